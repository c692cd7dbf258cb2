"""All-or-nothing file operations: after a kill at any moment `recover` leads to the old or the new state.

`commit` checks every operation, stages what will be written, and makes the plan valid with one rename. From
then on the operations are carried out, by `commit` itself or, after a kill, by the next `recover`; each may
be carried out again without harm. Before that rename nothing outside the journal has been touched.

    <state>/journal/
      lock         held while a journal is written or carried out
      plan.json    the operations; there only while they are under way
      staged/      new contents of files
      parked/      files on their way to a name that another file of the same journal still holds
      parked.done  there once every such name is free
"""

from __future__ import annotations

import contextlib
import errno
import filecmp
import json
import os
import shutil
import stat
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dataaudit.errors import ConflictError, InputError
from dataaudit.journal import database
from dataaudit.journal.operations import (
    Append,
    Assign,
    Delete,
    Edit,
    Move,
    Operation,
    Remove,
    RemoveEmpty,
    Restore,
    Rewrite,
    Write,
    absolute,
    edited,
    from_record,
    invert,
    md5,
    relative,
    to_record,
)

__all__ = [
    "Append",
    "Assign",
    "Delete",
    "Edit",
    "Move",
    "Operation",
    "Remove",
    "RemoveEmpty",
    "Restore",
    "Rewrite",
    "Write",
    "commit",
    "edited",
    "from_record",
    "held",
    "invert",
    "md5",
    "recover",
    "sync_folder",
    "to_record",
]

PATIENCE = 60.0
"""Seconds to wait for another process that holds the lock."""

_NOTHING = "Nothing was changed."


def commit(state: Path, operations: Sequence[Operation]) -> None:
    """Carry out all of `operations` or, where one of them can't be, none.

    Args:
        state: folder of the dataset's state; the journal is kept in its subfolder ``journal``.
        operations: what to do. Files may trade places: a `Move` may go to where another `Move` starts.

    Raises:
        ConflictError: a file isn't what the operation expects, or another process holds the journal too long.
    """
    if not operations:
        return
    with _locked(state):
        _finish(state)
        _check(operations)
        _stage(state, operations)
        _finish(state)


def recover(state: Path) -> bool:
    """Finish the operations that a killed process left, or sweep away what it hadn't committed.

    Returns:
        True where operations were finished.

    Raises:
        ConflictError: a file was changed after the kill, so that they can't be finished.
    """
    try:
        left = {entry.name for entry in os.scandir(state / "journal")} - {"lock"}
    except (FileNotFoundError, NotADirectoryError):
        return False
    if not left:
        return False
    with _locked(state):
        return _finish(state)


@contextlib.contextmanager
def held(state: Path) -> Iterator[None]:
    """Keep other processes from changing a dataset, once what a killed one left is finished.

    For what appends to a file of the state by itself; `commit` holds the dataset already.

    Raises:
        ConflictError: another process holds it too long, or what was left can't be finished.
    """
    with _locked(state):
        _finish(state)
        yield


# Checking


def _check(operations: Sequence[Operation]) -> None:
    moves = [operation for operation in operations if isinstance(operation, Move)]
    sources = {move.src for move in moves}
    if len(sources) != len(moves):
        raise ConflictError("One file would be moved twice.", where=moves[0].src.parent, fix=_NOTHING)
    targets: dict[Path, Path] = {}
    for move in moves:
        if move.dst in targets:
            raise ConflictError(
                f"{targets[move.dst]} and {move.src} would both be moved here.",
                where=move.dst,
                fix=f"{_NOTHING} Rename one of the two files.",
            )
        targets[move.dst] = move.src
        _check_move(move, sources)
    for operation in operations:
        _check_content(operation)


def _check_content(operation: Operation) -> None:
    if isinstance(operation, Write | Edit | Remove):
        _check_write(operation)
    elif isinstance(operation, Append):
        if any("\n" in line for line in operation.lines):
            raise InputError("A line to append has a line break in it.", where=operation.path)
    elif isinstance(operation, Assign):
        database.check_labels(operation.dataset, operation.field, operation.old)
    elif isinstance(operation, Rewrite):
        database.check_documents(operation.dataset, operation.field, operation.old)
    elif isinstance(operation, Delete):
        database.check_samples(operation.dataset, operation.ids, present=True)
    elif isinstance(operation, Restore):
        ids = [database.id_of(document) for document in operation.samples]
        database.check_samples(operation.dataset, ids, present=False)


def _check_move(move: Move, sources: set[Path]) -> None:
    if not os.path.lexists(move.src):
        raise ConflictError(
            f"The file to be moved to {move.dst} is gone.", where=move.src, fix=f"{_NOTHING} Audit again."
        )
    if move.dst not in sources and os.path.lexists(move.dst):
        raise ConflictError(
            f"The file already exists; {move.src} would be moved onto it.",
            where=move.dst,
            fix=f"{_NOTHING} Rename one of the two files.",
        )
    _check_writable(move.src.parent)
    _check_folder(move.dst.parent)


def _check_write(operation: Write | Edit | Remove) -> None:
    path = operation.path
    found = md5(path.read_bytes()) if path.exists() else None
    if found != operation.old_md5:
        raise ConflictError(
            f"The file has changed: its MD5 is {found or 'none (no file)'}; "
            f"expected {operation.old_md5 or 'no file'}.",
            where=path,
            fix=f"{_NOTHING} Audit again.",
        )
    _check_folder(path.parent)


def _check_folder(folder: Path) -> None:
    while not os.path.lexists(folder):
        folder = folder.parent
    if not folder.is_dir():
        raise ConflictError("This is a file; a folder is needed here.", where=folder, fix=_NOTHING)
    _check_writable(folder)


def _check_writable(folder: Path) -> None:
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ConflictError("The folder is not writable.", where=folder, fix=f"{_NOTHING} Allow writing.")


# Staging


def _stage(state: Path, operations: Sequence[Operation]) -> None:
    staged = state / "journal" / "staged"
    staged.mkdir(parents=True)
    records: list[dict[str, Any]] = []
    for number, operation in enumerate(operations):
        if isinstance(operation, Write | Edit):
            name = f"journal/staged/{number}"
            digest = _stage_content(state / name, operation)
            path = relative(state, operation.path)
            records.append({"do": "Write", "path": path, "staged": name, "new_md5": digest})
            continue
        record = to_record(state, operation)
        if isinstance(operation, Append):
            record["size"], record["first"] = _whole_lines(operation.path)
        records.append(record)
    sync_folder(staged)
    draft = state / "journal" / "plan.tmp"
    _write_synced(draft, json.dumps(_ordered(records)).encode())
    draft.rename(state / "journal" / "plan.json")
    sync_folder(state / "journal")


def _stage_content(staged: Path, operation: Write | Edit) -> str:
    old = operation.path.read_bytes() if operation.old_md5 is not None else None
    if old is not None and md5(old) != operation.old_md5:
        raise ConflictError(
            "The file is being changed by another program.", where=operation.path, fix=_NOTHING
        )
    new = operation.content if isinstance(operation, Write) else edited(old or b"", operation.splices)
    _write_synced(staged, new)
    if old is not None:
        staged.chmod(stat.S_IMODE(operation.path.stat().st_mode))
    return md5(new)


def _ordered(records: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Split the work so that no move meets a taken name: moves to a name still held wait in ``parked/``."""
    held = {record["src"] for record in records if record["do"] == "Move"}
    plan: dict[str, list[dict[str, Any]]] = {"moves": [], "unpark": [], "others": []}
    for number, record in enumerate(records):
        if record["do"] != "Move":
            plan["others"].append(record)
        elif record["dst"] in held:
            parked = f"journal/parked/{number}"
            plan["moves"].append({"do": "Move", "src": record["src"], "dst": parked})
            plan["unpark"].append({"do": "Move", "src": parked, "dst": record["dst"]})
        else:
            plan["moves"].append(record)
    return plan


def _whole_lines(path: Path) -> tuple[int, str]:
    """Size of a JSONL file without a torn last line, and what to write before the next line."""
    if not path.exists():
        return 0, ""
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    try:
        json.loads(content[whole:])
    except ValueError:
        return whole, ""
    return len(content), "\n"


def _write_synced(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_folders(folders: Iterable[Path]) -> None:
    for folder in folders:
        if folder.is_dir():
            sync_folder(folder)


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# Carrying out


def _finish(state: Path) -> bool:
    journal = state / "journal"
    plan, parked = journal / "plan.json", journal / "parked.done"
    committed = plan.exists()
    if committed:
        steps = json.loads(plan.read_bytes())
        touched: set[Path] = set()
        if not parked.exists():
            for record in steps["moves"]:
                _perform(state, record, touched)
            if steps["unpark"]:
                # From here on a file under an old name may be one that came, not one that still has to go
                _sync_folders(touched)
                _write_synced(parked, b"")
                sync_folder(journal)
        for record in (*steps["unpark"], *steps["others"]):
            _perform(state, record, touched)
        _sync_folders(touched)
        plan.unlink()
        sync_folder(journal)
    for name in ("plan.tmp", "parked.done"):
        (journal / name).unlink(missing_ok=True)
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(journal / "staged")
    with contextlib.suppress(FileNotFoundError):
        (journal / "parked").rmdir()
    return committed


def _perform(state: Path, record: Mapping[str, Any], touched: set[Path]) -> None:
    paths = {name: absolute(state, record[name]) for name in ("src", "dst", "path") if name in record}
    try:
        if record["do"] == "Move":
            _move(paths["src"], paths["dst"])
        elif record["do"] == "Write":
            _replace(absolute(state, record["staged"]), paths["path"], record["new_md5"])
        elif record["do"] == "Append":
            _append(paths["path"], record["size"], record["first"], record["lines"])
        elif record["do"] == "Remove":
            paths["path"].unlink(missing_ok=True)
        elif record["do"] == "RemoveEmpty":
            with contextlib.suppress(OSError):
                paths["path"].rmdir()
        else:
            _perform_in_database(state, record)
    except OSError as error:
        raise ConflictError(
            f"The change stopped half-way: {error}.",
            where=next(iter(paths.values()), state),
            fix="Remove the cause; the next command on this dataset finishes the change.",
        ) from error
    touched.update(path.parent for path in paths.values())


def _perform_in_database(state: Path, record: Mapping[str, Any]) -> None:
    operation = from_record(state, record)
    if isinstance(operation, Assign):
        database.assign(operation.dataset, operation.field, operation.new)
    elif isinstance(operation, Rewrite):
        database.put(operation.dataset, operation.field, operation.new)
    elif isinstance(operation, Delete):
        database.delete(operation.dataset, operation.ids)
    elif isinstance(operation, Restore):
        database.restore(operation.dataset, operation.samples)


def _move(src: Path, dst: Path) -> None:
    if not os.path.lexists(src):
        if not os.path.lexists(dst):
            raise _in_the_way(src, f"it was to be moved to {dst} and is gone")
        return
    if os.path.lexists(dst):
        if src.lstat().st_dev == dst.lstat().st_dev or not filecmp.cmp(src, dst, shallow=False):
            raise _in_the_way(dst, f"{src} was to be moved here")
        src.unlink()  # a move between file systems, killed between its copy and its removal
        return
    dst.parent.mkdir(parents=True, exist_ok=True)
    try:
        src.rename(dst)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        _copy_over(src, dst)
        src.unlink()


def _replace(staged: Path, path: Path, new_md5: str) -> None:
    if not staged.exists():
        if not path.exists() or md5(path.read_bytes()) != new_md5:
            raise _in_the_way(path, "it was written and has changed again")
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        staged.replace(path)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        _copy_over(staged, path)
        staged.unlink()


def _copy_over(src: Path, dst: Path) -> None:
    part = dst.with_name(f".{dst.name}.part")
    shutil.copy2(src, part, follow_symlinks=False)
    if not part.is_symlink():
        with part.open("rb") as file:
            os.fsync(file.fileno())
    part.replace(dst)


def _append(path: Path, size: int, first: str, lines: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+b") as file:
        file.truncate(size)
        file.seek(size)
        file.write((first + "".join(f"{line}\n" for line in lines)).encode())
        file.flush()
        os.fsync(file.fileno())


def _in_the_way(path: Path, why: str) -> ConflictError:
    return ConflictError(
        f"A change that was interrupted can't be finished: {why}.",
        where=path,
        fix="Put the file back as it was; or give the change up: delete the folder 'journal' in the state.",
    )


# The lock


@contextlib.contextmanager
def _locked(state: Path) -> Iterator[None]:
    """Hold the journal; the system lets go of the lock when the process ends, however it ends."""
    journal = state / "journal"
    journal.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(journal / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        until = time.monotonic() + PATIENCE
        while not _try_lock(descriptor):
            if time.monotonic() > until:
                raise ConflictError(
                    f"Another process has been changing this dataset for over {PATIENCE:.0f} s.",
                    where=journal,
                    fix="Wait for it, or end it, and run this again.",
                )
            time.sleep(0.02)
        yield
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True
