"""Bugs as people write them, and set-ups without any: what the checks of the model side are measured on.

A case is a function of the folder with the real data that builds a set-up and returns what the check says,
in the order of its report. Whoever writes a case names the cause from the side of the bug; every third one,
chosen by its name, is held out: the checks are neither looked at nor mended with it.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dataaudit.types import Finding

__all__ = ["CASES", "Case", "healthy", "planted"]

Run = Callable[[Path], Sequence[Finding]]


@dataclass(frozen=True, kw_only=True)
class Case:
    """One bug, or one set-up without any.

    Attributes:
        name: what was done, in words; unique.
        kind: kind of bug, such as ``softmax twice``; empty for a set-up without any.
        part: ``training``, ``model``, ``loss``, ``processes``, ``curves``, ``deployment`` or ``drift``.
        causes: codes that name the cause itself.
        mentions: texts of which each must be in the message that names it, such as the layer.
        run: builds it, and returns the findings in the report's order.
    """

    name: str
    kind: str
    part: str
    causes: tuple[str, ...]
    mentions: tuple[str, ...]
    run: Run

    @property
    def held_out(self) -> bool:
        """Whether it is of the third that the checks were not mended with."""
        return zlib.crc32(self.name.encode()) % 3 == 0

    def names(self, finding: Finding) -> bool:
        """Whether a finding says what the bug is."""
        return finding.code in self.causes and all(text in finding.message for text in self.mentions)


CASES: list[Case] = []


def _add(case: Case) -> None:
    if any(case.name == other.name for other in CASES):
        raise ValueError(f"Two cases are named {case.name!r}.")
    CASES.append(case)


def planted(
    name: str, *, kind: str, part: str, causes: Iterable[str], mentions: Iterable[str] = ()
) -> Callable[[Run], Run]:
    """Declare a bug: ``@planted("softmax before cross entropy", kind="softmax twice", ...)``."""

    def add(run: Run) -> Run:
        _add(Case(name=name, kind=kind, part=part, causes=tuple(causes), mentions=tuple(mentions), run=run))
        return run

    return add


def healthy(name: str, *, part: str) -> Callable[[Run], Run]:
    """Declare a set-up without a bug."""

    def add(run: Run) -> Run:
        _add(Case(name=name, kind="", part=part, causes=(), mentions=(), run=run))
        return run

    return add
