"""Kill a fix at random moments and count in which state the next command finds the dataset.

1,000 relabels in a manifest of 10,000 rows (or, with ``--tree``, 1,000 moves in a folder tree) are applied by
a child process that is killed with SIGKILL after a random share of the time that the apply takes. Then the
dataset is read, as any next command does. Old and new state are compared byte for byte, and the ledger has to
agree.

    python recipes/bench/fix_kill.py
    python recipes/bench/fix_kill.py --tree
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from dataaudit import fix, formats, state
from dataaudit.types import Fix, Source


def main() -> int:
    arguments = _arguments()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        original = (
            _make_tree(Path(folder), arguments) if arguments.tree else _make_manifest(Path(folder), arguments)
        )
        plan = _plan(original, arguments.fixes)
        before = _contents(original)
        duration, after = _measure(original, plan)
        chance = random.Random(arguments.seed)
        ends = {"old": 0, "new": 0, "neither": 0}
        finished = 0
        for _ in range(arguments.kills):
            copy = _copy(original)
            _killed(copy, plan, chance.uniform(0, duration * 1.1))
            under_way = any((folder / "plan.json").exists() for folder in copy.glob(".dataaudit/*/journal"))
            finished += under_way
            ends[_end(copy, before, after, arguments.fixes)] += 1
            shutil.rmtree(copy)
    good = ends["old"] + ends["new"]
    what = "moves in a tree of" if arguments.tree else "relabels in a CSV of"
    print(f"{arguments.fixes} {what} {arguments.rows}; the apply takes {duration * 1000:.0f} ms")
    print(
        f"killed {arguments.kills} times: "
        f"{ends['old']} ended old, {ends['new']} new, {ends['neither']} in neither"
    )
    print(f"{finished} were finished by the next command from their journal")
    print(f"{good} of {arguments.kills} ended in the old or the new state")
    return 0 if good == arguments.kills else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tree", action="store_true", help="a folder tree in place of a manifest")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--fixes", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", help="where to work; a temporary folder when it is left out")
    return parser.parse_args()


def _make_manifest(folder: Path, arguments: argparse.Namespace) -> Path:
    root = folder / "original"
    (root / "images").mkdir(parents=True)
    (root / "images/0.jpg").write_bytes(b"")
    lines = [f'images/{n}.jpg,"class {n % 10}",note {n}' for n in range(arguments.rows)]
    (root / "labels.csv").write_text("\n".join(["filepath,label,note", *lines, ""]))
    return root


def _make_tree(folder: Path, arguments: argparse.Namespace) -> Path:
    # A repository of its own, so that the state lies in the folder and is copied with it
    root = folder / "original"
    (root / ".git").mkdir(parents=True)
    for n in range(arguments.rows):
        path = root / f"class {n % 10}" / f"{n}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(str(n).encode())
    return root


def _plan(root: Path, n_fixes: int) -> list[Fix]:
    labels = formats.read(root).labels
    chosen = labels.iloc[:: max(1, len(labels) // n_fixes)][:n_fixes]
    return [
        Fix(
            op="relabel",
            sample_id=row.sample_id,
            label_id=row.Index,
            locator=row.locator,
            old=row.name,
            new=f"class {(int(row.name[-1]) + 1) % 10}",
        )
        for row in chosen.itertuples()
    ]


def _apply(source: Source, fixes: list[Fix]) -> None:
    items = tuple(
        fix.Planned(fix=each, finding=f"k{n}", code="LBL001", score=0.1, probability=0.9)
        for n, each in enumerate(fixes)
    )
    fix.apply(fix.Plan(source=source, items=items))


def _copy(original: Path) -> Path:
    """A copy by links, which is quick and safe: a fix replaces files, it never writes into them."""
    copy = original.with_name("copy")
    shutil.copytree(original, copy, copy_function=os.link)
    return copy


def _measure(original: Path, fixes: list[Fix]) -> tuple[float, dict[str, str]]:
    times = []
    after: dict[str, str] = {}
    for _ in range(3):
        copy = _copy(original)
        source = formats.read(copy).source
        assert source is not None
        begin = time.perf_counter()
        _apply(source, fixes)
        times.append(time.perf_counter() - begin)
        after = _contents(copy)
        shutil.rmtree(copy)
    return sorted(times)[1], after


def _killed(root: Path, fixes: list[Fix], after: float) -> None:
    """Apply in a child that is killed `after` seconds, counted from the beginning of the apply."""
    source = formats.read(root).source
    assert source is not None
    ready, begin = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(begin, b"!")
        _apply(source, fixes)
        os._exit(0)
    os.read(ready, 1)
    until = time.perf_counter() + after
    while time.perf_counter() < until:
        pass
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(ready)
    os.close(begin)


def _end(root: Path, before: dict[str, str], after: dict[str, str], n_fixes: int) -> str:
    source = formats.read(root).source
    assert source is not None
    ledger = state.ledger_file(source)
    lines = [json.loads(line) for line in ledger.read_text().splitlines()] if ledger.exists() else []
    found = _contents(root)
    left = [path.name for path in (ledger.parent / "journal").glob("*") if path.name != "lock"]
    if left:
        return "neither"
    if found == before and not lines:
        return "old"
    if found == after and len(lines) == n_fixes and len({line["id"] for line in lines}) == 1:
        return "new"
    return "neither"


def _contents(root: Path) -> dict[str, str]:
    return {
        path.relative_to(root).as_posix(): hashlib.md5(path.read_bytes()).hexdigest()
        for path in root.rglob("*")
        if path.is_file() and state.FOLDER not in path.relative_to(root).parts
    }


if __name__ == "__main__":
    sys.exit(main())
