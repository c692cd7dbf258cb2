from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import stat
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from dataaudit import journal
from dataaudit.errors import ConflictError, InputError
from dataaudit.journal import Append, Edit, Move, Operation, Remove, RemoveEmpty, Write, md5

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

TOUCHING = (
    "os.rename",
    "os.remove",
    "os.rmdir",
    "os.mkdir",
    "os.truncate",
    "open",
    "shutil.rmtree",
    "os.chmod",
)


def contents(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and "journal" not in path.parts
    }


def killed(action: Callable[[], object], moment: int) -> bool:
    """Run `action` in a child that dies before its `moment`-th touch of the file system; whether it died."""
    child = os.fork()
    if child == 0:
        seen = 0

        def die(event: str, arguments: object) -> None:
            nonlocal seen
            if event in TOUCHING:
                seen += 1
                if seen == moment:
                    os._exit(9)

        sys.addaudithook(die)
        with contextlib.suppress(BaseException):
            action()
            os._exit(0)
        os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 9)
    return code == 9


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("cat/1", "cat/2", "dog/1", "labels.csv", "new.txt"):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).write_bytes(name.encode())
    (tmp_path / "state").mkdir()
    (tmp_path / "state/fixes.jsonl").write_text('{"n": 0}\n')
    return tmp_path / "photos"


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


def many(root: Path, state: Path) -> list[Operation]:
    """Operations of each kind: two files trade places, a third takes a name that becomes free, and so on."""
    return [
        Move(src=root / "cat/1", dst=root / "dog/1"),
        Move(src=root / "dog/1", dst=root / "cow/deep/1"),
        Move(src=root / "cat/2", dst=root / "cat/1"),
        Edit(
            path=root / "labels.csv", old_md5=md5(b"labels.csv"), splices=((0, 0, b"my "), (6, 10, b".tsv"))
        ),
        Write(path=state / "dropped/old.gz", old_md5=None, content=b"\x00\xff"),
        Remove(path=root / "new.txt", old_md5=md5(b"new.txt")),
        Append(path=state / "fixes.jsonl", lines=('{"n": 1}', '{"n": 2}')),
    ]


DONE = {
    "photos/cat/1": b"cat/2",
    "photos/cow/deep/1": b"dog/1",
    "photos/dog/1": b"cat/1",
    "photos/labels.csv": b"my labels.tsv",
    "state/dropped/old.gz": b"\x00\xff",
    "state/fixes.jsonl": b'{"n": 0}\n{"n": 1}\n{"n": 2}\n',
}


def test_operations_of_every_kind_are_carried_out(root: Path, state: Path) -> None:
    journal.commit(state, many(root, state))
    assert contents(root.parent) == DONE
    assert [path.name for path in (state / "journal").iterdir()] == ["lock"]


def test_no_operations_leave_no_trace(tmp_path: Path) -> None:
    journal.commit(tmp_path / "state", [])
    assert not (tmp_path / "state").exists()
    assert journal.recover(tmp_path / "state") is False
    assert not (tmp_path / "state").exists()


@pytest.mark.skipif(os.name != "posix", reason="forks")
def test_a_kill_at_any_moment_leaves_the_old_or_the_new_state(
    tmp_path_factory: pytest.TempPathFactory, root: Path, state: Path
) -> None:
    before = contents(root.parent)
    ends = []
    for moment in range(1, 200):
        copy = tmp_path_factory.mktemp("kill")
        for name, content in before.items():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes(content)
        operations = many(copy / "photos", copy / "state")
        died = killed(lambda: journal.commit(copy / "state", operations), moment)  # noqa: B023
        finished = journal.recover(copy / "state")
        ends.append(contents(copy) == DONE)
        assert contents(copy) == (DONE if ends[-1] else before)
        assert not finished or ends[-1]
        assert journal.recover(copy / "state") is False
        if not died:
            break
    assert len(ends) > 20
    assert ends == sorted(ends)
    assert False in ends


@pytest.mark.skipif(os.name != "posix", reason="forks")
def test_a_kill_in_the_recovery_is_recovered_from(
    tmp_path_factory: pytest.TempPathFactory, root: Path, state: Path
) -> None:
    for moment in range(1, 200):
        copy = tmp_path_factory.mktemp("kill")
        for name, content in contents(root.parent).items():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes(content)
        with journal._locked(copy / "state"):
            journal._stage(copy / "state", many(copy / "photos", copy / "state"))
        died = killed(lambda: journal.recover(copy / "state"), moment)  # noqa: B023
        journal.recover(copy / "state")
        assert contents(copy) == DONE
        if not died:
            return
    pytest.fail("the recovery never came to its end")


def test_two_files_trade_places(root: Path, state: Path) -> None:
    one, two = root / "cat/1", root / "dog/1"
    journal.commit(state, [Move(src=one, dst=two), Move(src=two, dst=one)])
    assert (one.read_bytes(), two.read_bytes()) == (b"dog/1", b"cat/1")


def test_what_takes_operations_back_restores_every_byte_and_removes_new_folders(
    root: Path, state: Path
) -> None:
    before = contents(root.parent)
    operations = [each for each in many(root, state) if isinstance(each, Move | Edit)]
    records = json.loads(json.dumps(journal.invert(state, operations)))
    journal.commit(state, operations)
    journal.commit(state, [journal.from_record(state, record) for record in records])
    assert contents(root.parent) == before
    assert not (root / "cow").exists()


def test_a_file_that_was_made_goes_again_with_its_folders(root: Path, state: Path) -> None:
    before = contents(root.parent)
    operations = [Write(path=root / "labels/train/1.txt", old_md5=None, content=b"0 1 1 1 1")]
    records = json.loads(json.dumps(journal.invert(state, operations)))
    journal.commit(state, operations)
    journal.commit(state, [journal.from_record(state, record) for record in records])
    assert contents(root.parent) == before
    assert not (root / "labels").exists()


def test_a_folder_that_a_move_empties_stays(root: Path, state: Path) -> None:
    journal.commit(state, [Move(src=root / "dog/1", dst=root / "cat/3")])
    assert (root / "dog").is_dir()


def test_a_folder_that_is_not_empty_is_not_removed(root: Path, state: Path) -> None:
    journal.commit(state, [RemoveEmpty(path=root / "cat"), RemoveEmpty(path=root / "nowhere")])
    assert (root / "cat/1").exists()


REFUSED: dict[str, tuple[Callable[[Path], Sequence[Operation]], str]] = {
    "no source": (lambda root: [Move(src=root / "cat/9", dst=root / "dog/9")], r"cat/9: .*is gone"),
    "target there": (
        lambda root: [Move(src=root / "cat/1", dst=root / "dog/1")],
        r"dog/1: .*cat/1 would be moved",
    ),
    "one target": (
        lambda root: [Move(src=root / f"cat/{n}", dst=root / "dog/9") for n in (1, 2)],
        "dog/9: .*cat/1 and .*cat/2 would both be moved here",
    ),
    "one source": (
        lambda root: [Move(src=root / "cat/1", dst=root / f"dog/{n}") for n in (8, 9)],
        "would be moved twice",
    ),
    "file as folder": (
        lambda root: [Move(src=root / "cat/1", dst=root / "cat/2/1")],
        "cat/2: This is a file",
    ),
    "changed": (
        lambda root: [Edit(path=root / "labels.csv", old_md5=md5(b"old"), splices=())],
        r"labels\.csv: The file has changed",
    ),
    "to be removed and changed": (
        lambda root: [Remove(path=root / "cat/1", old_md5=md5(b"old"))],
        "cat/1: The file has changed",
    ),
    "there already": (
        lambda root: [Write(path=root / "cat/1", old_md5=None, content=b"")],
        "expected no file",
    ),
}


@pytest.mark.parametrize(("operations", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_one_operation_that_cannot_be_done_leaves_everything_undone(
    root: Path, state: Path, operations: Callable[[Path], Sequence[Operation]], message: str
) -> None:
    before = contents(root.parent)
    first = Move(src=root / "labels.csv", dst=root / "moved.csv")
    wanted = [each for each in operations(root) if not isinstance(each, Edit)]
    batch = [first, *wanted] if wanted else list(operations(root))
    with pytest.raises(ConflictError, match=message):
        journal.commit(state, batch)
    assert contents(root.parent) == before


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="an administrator may write anywhere")
def test_a_folder_that_is_not_writable_is_found_before_anything_is_done(root: Path, state: Path) -> None:
    (root / "dog").chmod(0o500)
    try:
        with pytest.raises(ConflictError, match="not writable"):
            journal.commit(state, [Move(src=root / "cat/1", dst=root / "dog/9")])
    finally:
        (root / "dog").chmod(0o700)


def test_the_mode_of_a_file_stays(root: Path, state: Path) -> None:
    (root / "labels.csv").chmod(0o640)
    journal.commit(
        state, [Edit(path=root / "labels.csv", old_md5=md5(b"labels.csv"), splices=((0, 6, b"x"),))]
    )
    assert stat.S_IMODE((root / "labels.csv").stat().st_mode) == 0o640


def test_a_file_that_is_a_hard_link_is_replaced_and_its_twin_stays(root: Path, state: Path) -> None:
    os.link(root / "labels.csv", root / "twin.csv")
    journal.commit(
        state, [Edit(path=root / "labels.csv", old_md5=md5(b"labels.csv"), splices=((0, 6, b"x"),))]
    )
    assert (root / "twin.csv").read_bytes() == b"labels.csv"


TAILS = {
    "whole": (b'{"n": 0}\n', b'{"n": 0}\n{"n": 1}\n'),
    "torn": (b'{"n": 0}\n{"n": ', b'{"n": 0}\n{"n": 1}\n'),
    "without its line end": (b'{"n": 0}', b'{"n": 0}\n{"n": 1}\n'),
    "empty": (b"", b'{"n": 1}\n'),
}


@pytest.mark.parametrize(("tail", "expected"), TAILS.values(), ids=TAILS.keys())
def test_lines_go_below_the_last_whole_line(state: Path, tail: bytes, expected: bytes) -> None:
    state.mkdir()
    (state / "x.jsonl").write_bytes(tail)
    journal.commit(state, [Append(path=state / "x.jsonl", lines=('{"n": 1}',))])
    assert (state / "x.jsonl").read_bytes() == expected


def test_a_line_with_a_line_break_is_refused(state: Path) -> None:
    with pytest.raises(InputError, match="line break"):
        journal.commit(state, [Append(path=state / "x.jsonl", lines=("a\nb",))])


def test_what_was_not_committed_is_swept_away(root: Path, state: Path) -> None:
    before = contents(root.parent)
    with journal._locked(state):
        journal._stage(state, many(root, state))
    (state / "journal/plan.json").rename(state / "journal/plan.tmp")
    assert journal.recover(state) is False
    assert contents(root.parent) == before
    assert [path.name for path in (state / "journal").iterdir()] == ["lock"]


def test_a_file_that_came_into_the_way_after_a_kill_is_not_overwritten(root: Path, state: Path) -> None:
    with journal._locked(state):
        journal._stage(state, [Move(src=root / "cat/1", dst=root / "dog/9")])
    (root / "dog/9").write_bytes(b"new")
    with pytest.raises(ConflictError, match=r"dog/9: A change that was interrupted can't be finished"):
        journal.recover(state)
    assert (root / "dog/9").read_bytes() == b"new"


def test_a_dataset_that_moved_with_its_state_after_a_kill_is_finished(root: Path, state: Path) -> None:
    with journal._locked(state):
        journal._stage(state, many(root, state))
    moved = root.parent.rename(root.parent.with_name("elsewhere"))
    assert journal.recover(moved / "state")
    assert contents(moved) == DONE


def test_a_second_process_waits_for_the_first(root: Path, state: Path) -> None:
    threads = []
    with journal._locked(state):
        threads = [
            threading.Thread(target=journal.commit, args=(state, [each])) for each in many(root, state)[4:]
        ]
        for thread in threads:
            thread.start()
        assert not (state / "dropped/old.gz").exists()
    for thread in threads:
        thread.join()
    assert (state / "dropped/old.gz").exists()
    assert len((state / "fixes.jsonl").read_text().splitlines()) == 3


def test_waiting_ends_with_an_error(root: Path, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "PATIENCE", 0.0)
    with journal._locked(state), pytest.raises(ConflictError, match="Another process"):
        journal.commit(state, many(root, state))


def _append(state: Path, number: int) -> None:
    for _ in range(10):
        journal.commit(state, [Append(path=state / "x.jsonl", lines=(f'{{"n": {number}}}',) * 3)])


@pytest.mark.skipif(os.name != "posix", reason="forks")
def test_processes_that_write_at_once_lose_no_line(state: Path) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_append, args=(state, number)) for number in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    lines = (state / "x.jsonl").read_text().splitlines()
    assert sorted(lines) == sorted(f'{{"n": {number}}}' for number in range(4) for _ in range(30))


def test_a_journal_of_a_newer_version_is_not_guessed_at(state: Path) -> None:
    with pytest.raises(InputError, match="'Teleport', which this version doesn't know"):
        journal.from_record(state, {"do": "Teleport"})
