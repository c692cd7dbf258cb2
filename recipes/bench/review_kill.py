"""Kill a review at random moments and look whether what it recorded is there, once.

A child process goes through a review as the App does: it asks the session for the current finding, decides it
(sometimes it undoes the last verdict), records that beside the dataset, and then says so on a pipe. It is
killed with SIGKILL at a random moment; every third time two of them are at work, half of those for the same
reviewer. The next child first records again what the killed one had begun, as a person does who isn't sure
whether the last key press was taken, and goes on.

Afterwards every line that was reported as recorded has to be in the history, no line may be there twice, and
a decision that says what its reviewer said last of the finding counts as twice as well.

    python recipes/bench/review_kill.py
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from dataaudit import decisions, state
from dataaudit.types import Decision, Fix, Locator, Source
from dataaudit.worklist import Entry, Session, Worklist

_THERE = 5_000
Line = tuple[str, str, str, str]
"""Finding, reviewer, verdict and time of a decision, which nothing else has."""


def main() -> int:
    arguments = _arguments()
    chance = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        (Path(folder) / "photos").mkdir()
        root = Path(folder) / "photos"
        source = Source(format="folder", root=root, path=str(root), anchor=Path(folder))
        done: list[Line] = []
        begun: dict[str, list[Decision]] = {"ann": [], "bob": []}
        torn = retried = 0
        for number in range(arguments.kills):
            reviewers = ["ann"]
            if number % 3 == 2:
                reviewers.append(chance.choice(["ann", "bob"]))
            seeds = [chance.randrange(2**32) for _ in reviewers]
            again = {name: begun[name] for name in reviewers}
            retried += sum(map(len, again.values()))
            for name in reviewers:
                begun[name] = []
            for name, acknowledged, left in _killed(
                source, arguments.findings, reviewers, seeds, again, chance.uniform(0, arguments.longest)
            ):
                done += acknowledged
                begun[name] += left
            path = state.decisions_file(source)
            torn += path.exists() and not path.read_bytes().endswith(b"\n")
        took, disk = _measure(Path(folder))
        print(f"one decision is recorded in {took:.1f} ms where {_THERE:,} are kept (median of 200);")
        print(f"a line alone is appended and synced in {disk:.1f} ms, by turns in the same run")
        return _count(source, done, arguments.kills, torn, retried)


def _measure(folder: Path) -> tuple[float, float]:
    """Milliseconds in which a decision is recorded, and a line of its length by itself: medians of 200."""
    (folder / "many").mkdir()
    source = Source(format="folder", root=folder / "many", path=str(folder / "many"), anchor=folder)
    worklist = _worklist(_THERE + 200)
    session = Session(worklist, reviewer="ann", adaptive=False)
    for entry in worklist.entries[:_THERE]:
        session.decide(entry.key, "accept")
    decisions.record(source, list(session.decisions.values()))
    took, alone = [], []
    with (folder / "many" / "alone").open("ab", buffering=0) as file:
        for entry in worklist.entries[_THERE:]:
            made = [session.decide(entry.key, "accept")]
            begin = time.perf_counter()
            decisions.record(source, made)
            took.append(time.perf_counter() - begin)
            begin = time.perf_counter()
            file.write(b"x" * 500 + b"\n")
            os.fsync(file.fileno())
            alone.append(time.perf_counter() - begin)
    return 1000 * sorted(took)[100], 1000 * sorted(alone)[100]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--findings", type=int, default=300)
    parser.add_argument("--longest", type=float, default=0.3, help="seconds until a kill, at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", help="where to work; a temporary folder when it is left out")
    return parser.parse_args()


def _worklist(n: int) -> Worklist:
    entries = []
    for number in range(n):
        sample = f"class {number % 10}/{number}.jpg"
        fix = Fix(
            op="relabel", sample_id=sample, label_id=sample, locator=Locator(file=sample),
            old=f"class {number % 10}", new=f"class {(number + 1) % 10}",
        )  # fmt: skip
        entries.append(
            Entry(
                key=f"{number:012x}", code="LBL001", item_id=sample, sample_id=sample, filepath=None,
                score=number / n, probability=1 - number / n, message='looks like "another"\nclass',
                given=fix.old, suggested=fix.new, digest="0" * 32, fix=fix, other=fix,
            )
        )  # fmt: skip
    classes = tuple(sorted(f"class {number}" for number in range(10)))
    return Worklist(
        name="photos",
        path="photos",
        task="classification",
        classes=classes,
        digest="",
        entries=tuple(entries),
    )


def _killed(
    source: Source,
    n: int,
    reviewers: list[str],
    seeds: list[int],
    again: dict[str, list[Decision]],
    after: float,
) -> list[tuple[str, list[Line], list[Decision]]]:
    """Let children review, kill them, and return what each said it had recorded, and what it had begun."""
    children = []
    for at, (name, seed) in enumerate(zip(reviewers, seeds, strict=True)):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            # What was begun is retried once, also where two processes are of the same reviewer
            retry = again[name] if reviewers.index(name) == at else []
            try:
                _review(source, n, name, random.Random(seed), retry, writing)
            except BaseException as error:
                os.write(writing, f"failed {error!r}\n".encode())
            os._exit(1)
        os.close(writing)
        children.append((name, child, reading))
    begin = [os.read(reading, 1) for _, _, reading in children]  # the sessions are open
    assert begin == [b"!"] * len(children)
    time.sleep(after)
    for _, child, _ in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return [(name, *_said(reading)) for name, _, reading in children]


def _review(
    source: Source, n: int, name: str, chance: random.Random, again: list[Decision], pipe: int
) -> None:
    own = decisions.by_reviewer(source).get(name, {})
    os.write(pipe, b"!")
    _record(source, again, pipe)
    session = Session(_worklist(n), own, reviewer=name)
    while True:
        entry = session.current or session.go(chance.choice(session.worklist.entries).key)
        if chance.random() < 0.1 and session.undo() is not None:
            pass
        elif chance.random() < 0.2:
            assert entry.suggested is not None
            label = chance.choice([each for each in session.worklist.classes if each != entry.given])
            session.decide(entry.key, "other", label=label, note='a "note", with\nlines')
        else:
            session.decide(entry.key, chance.choice(["accept", "keep", "skip"]))
        _record(source, session.last, pipe)


def _record(source: Source, made: list[Decision] | tuple[Decision, ...], pipe: int) -> None:
    for each in made:
        line = {"verdict": each.verdict, "finding": each.finding, "reviewer": each.reviewer, "at": each.at}
        more = {"note": each.note, "fix": each.fix and decisions.fix_to_json(each.fix)}
        os.write(pipe, f"begin {json.dumps(line | more)}\n".encode())
    for each in decisions.record(source, made):
        os.write(pipe, f"done {json.dumps(_line(each))}\n".encode())
    os.write(pipe, b"end\n")


def _said(pipe: int) -> tuple[list[Line], list[Decision]]:
    with os.fdopen(pipe, "rb") as file:
        lines = file.read().decode().split("\n")[:-1]
    done, begun = [], []
    for line in lines:
        word, _, rest = line.partition(" ")
        if word == "begin":
            value = json.loads(rest)
            fix = value["fix"] and decisions.fix_from_json(value["fix"])
            begun.append(Decision(**{**value, "fix": fix}))
        elif word == "done":
            done.append(tuple(json.loads(rest)))
        elif word == "end":
            begun = []
        else:
            raise SystemExit(line)
    return done, begun


def _line(decision: Decision) -> Line:
    return decision.finding, str(decision.reviewer), decision.verdict, str(decision.at)


def _count(source: Source, done: list[Line], kills: int, torn: int, retried: int) -> int:
    kept = decisions.history(source)
    there = Counter(map(_line, kept))
    lost = sum(there[line] == 0 for line in done)
    twice = sum(n - 1 for n in there.values())
    last: dict[tuple[str, str | None], Decision] = {}
    for each in kept:
        before = last.get((each.finding, each.reviewer))
        said = (each.verdict, each.fix, each.note)
        twice += before is not None and said == (before.verdict, before.fix, before.note)
        last[each.finding, each.reviewer] = each
    print(f"lost {lost}, duplicated {twice} of {len(done):,} decisions in {kills} kills")
    print(f"{len(kept) - len(done):,} more were written and not yet reported when the process was killed")
    print(f"{torn} kills left half a line; {retried} decisions were recorded again, to be sure")
    return 1 if lost or twice else 0


if __name__ == "__main__":
    sys.exit(main())
