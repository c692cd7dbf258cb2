"""Bugs planted in small real models on real data: which the checks find, and whether the cause comes first.

    python recipes/bench/planted_bugs.py DATA [--split all|dev|held-out] [--part loss] [--only WORDS]

DATA holds ``cifar10h/``, ``coco128/``, ``raccoon/`` and ``camvid/``. A bug is found where any finding is
given, named where any names its cause, and first where the first does. A set-up without a bug counts as a
false alarm with any finding. What raises counts against the checks in both. A third of the cases, chosen by
name, is held out: no check was mended with it. Intervals are Wilson's at 95 %.
"""

from __future__ import annotations

import argparse
import importlib
import json
import pkgutil
import sys
import time
import traceback
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path

import planted
from planted import CASES, Case


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What the checks said of a case."""

    name: str
    kind: str
    part: str
    held_out: bool
    found: bool
    named: bool
    first: bool
    codes: tuple[str, ...]
    messages: tuple[str, ...]
    seconds: float
    raised: str = ""


def run(case: Case, data: Path) -> Outcome:
    """Run one case in this process, from the same seeds whatever ran before."""
    import random

    import numpy as np
    import torch

    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    start, raised, findings = time.perf_counter(), "", []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            findings = list(case.run(data))
    except Exception:
        raised = traceback.format_exc()
    named = [case.names(item) for item in findings]
    return Outcome(
        name=case.name, kind=case.kind, part=case.part, held_out=case.held_out, found=bool(findings),
        named=any(named), first=bool(named and named[0]), codes=tuple(item.code for item in findings),
        messages=tuple(f"{item.item_id}: {item.message}" for item in findings),
        seconds=time.perf_counter() - start, raised=raised,
    )  # fmt: skip


def interval(hits: int, n: int) -> str:
    """Share with Wilson's interval, in percent."""
    from scipy.stats import binomtest

    if not n:
        return "-"
    low, high = binomtest(hits, n).proportion_ci(0.95, method="wilson")
    return f"{hits}/{n} = {100 * hits / n:.1f} % ({100 * low:.0f} to {100 * high:.0f})"


def show(outcome: Outcome) -> None:
    """A line for a case, and what was said where it isn't right."""
    bug = bool(outcome.kind)
    right = not outcome.raised and (outcome.first if bug else not outcome.found)
    mark = (
        "ok  "
        if right
        else "RAISED"
        if outcome.raised
        else "named"
        if outcome.named
        else "found"
        if outcome.found and bug
        else "MISS"
        if bug
        else "ALARM"
    )
    print(
        f"{mark:6} {outcome.seconds:6.1f} s  {outcome.part:10} {outcome.name}  [{', '.join(outcome.codes)}]",
        flush=True,
    )
    if not right:
        for line in (*outcome.messages[:3], *outcome.raised.splitlines()[-3:]):
            print(f"         {line[:300]}")


def figures(outcomes: list[Outcome], title: str) -> None:
    """The three figures of a set of cases."""
    bugs, sound = [o for o in outcomes if o.kind], [o for o in outcomes if not o.kind]
    print(f"\n{title}: {len(bugs)} bugs of {len({o.kind for o in bugs})} kinds, {len(sound)} set-ups without")
    print(f"  found            {interval(sum(o.found and not o.raised for o in bugs), len(bugs))}")
    print(f"  cause named      {interval(sum(o.named for o in bugs), len(bugs))}")
    print(f"  cause first      {interval(sum(o.first for o in bugs), len(bugs))}")
    print(f"  false alarms     {interval(sum(o.found or bool(o.raised) for o in sound), len(sound))}")


def chosen(given: argparse.Namespace) -> list[Case]:
    """The cases that the arguments ask for."""
    for module in pkgutil.iter_modules(planted.__path__):
        importlib.import_module(f"planted.{module.name}")
    cases = [case for case in CASES if given.split == "all" or case.held_out == (given.split == "held-out")]
    cases = [case for case in cases if given.part in (None, case.part)]
    return [case for case in cases if given.only is None or given.only.lower() in case.name.lower()]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--split", choices=("all", "dev", "held-out"), default="all")
    parser.add_argument("--part")
    parser.add_argument("--only", help="words of the name")
    parser.add_argument("--list", action="store_true", help="name the cases, and run none")
    parser.add_argument("--out", type=Path, help="outcomes as JSON lines")
    given = parser.parse_args()
    cases = chosen(given)
    if given.list:
        for case in cases:
            print(
                f"{'held out' if case.held_out else 'dev':9} {case.part:10} {case.kind or '-':34} {case.name}"
            )
        kinds = {case.kind for case in cases} - {""}
        bugs = sum(bool(case.kind) for case in cases)
        print(f"{bugs} bugs of {len(kinds)} kinds, {len(cases) - bugs} set-ups without")
        return
    outcomes = []
    for case in cases:
        outcomes.append(run(case, given.data))
        show(outcomes[-1])
        if given.out:
            with given.out.open("a") as file:
                file.write(json.dumps(asdict(outcomes[-1])) + "\n")
    if not outcomes:
        sys.exit("No such case.")
    for title, members in (
        ("dev", [o for o in outcomes if not o.held_out]), ("held out", [o for o in outcomes if o.held_out]),
        ("all", outcomes),
    ):  # fmt: skip
        if members:
            figures(members, title)


if __name__ == "__main__":
    main()
