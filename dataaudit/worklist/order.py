"""The order in which findings are looked at: what is likely to be an error first, what belongs together next
to each other, and no long runs of one kind.

Looking at a finding costs about the same whichever it is, so the order that finds the most errors at any
moment is that of falling probability; of findings that are looked at together it is that of their mean.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from itertools import islice

import numpy as np

from dataaudit.types import Fix
from dataaudit.worklist.entries import Entry

__all__ = [
    "LONGEST_RUN",
    "NEARLY",
    "WINDOW",
    "arranged",
    "kind_of",
    "ordered",
    "place_of",
    "together",
    "twins_of",
]

LONGEST_RUN = 3
"""How many findings of one kind may follow one another while others are nearly as likely."""
NEARLY = 0.05
"""By how much less likely an error may be for the sake of another kind."""
WINDOW = 12
"""How far another kind is looked for."""
_DIGITS = 9
"""Of a chance: the further ones of equal chances differ, and then the scores wouldn't decide."""


def place_of(entry: Entry) -> Hashable:
    """What findings that are looked at together have in common: the picture, or the object."""
    if entry.box is not None or entry.suggested_box is not None:
        return entry.sample_id, entry.item_id
    return entry.group or entry.sample_id or entry.key


def kind_of(entry: Entry) -> Hashable:
    """What makes findings look the same to a reviewer: the check and the two classes."""
    return entry.code, entry.given, entry.suggested if entry.given is not None else None


def ordered(entries: Sequence[Entry]) -> list[Entry]:
    """Findings in the order in which they are best looked at, before any verdict."""
    chances = [0.5 if entry.probability is None else entry.probability for entry in entries]
    gains = together(chances, twins_of(entries))
    order = arranged(
        gains, [entry.score for entry in entries], list(map(place_of, entries)), list(map(kind_of, entries))
    )
    return [entries[at] for at in order]


def twins_of(entries: Sequence[Entry]) -> dict[int, tuple[int, ...]]:
    """By the position of a finding the others that propose the same fix of the same label, if any."""
    by_fix: dict[Fix, list[int]] = {}
    for at, entry in enumerate(entries):
        if entry.fix is not None:
            by_fix.setdefault(entry.fix, []).append(at)
    return {
        at: tuple(other for other in places if other != at)
        for places in by_fix.values()
        if len(places) > 1
        for at in places
    }


def together(chances: Sequence[float], twins: Mapping[int, tuple[int, ...]]) -> list[float]:
    """Chances, of findings that one verdict answers together the largest.

    >>> together([0.9, 0.2, 0.5], {0: (1,), 1: (0,)})
    [0.9, 0.9, 0.5]
    """
    gains = list(chances)
    for at, others in twins.items():
        gains[at] = max(chances[at], *(chances[other] for other in others))
    return gains


def arranged(
    gains: Sequence[float], scores: Sequence[float], places: Sequence[Hashable], kinds: Sequence[Hashable]
) -> list[int]:
    """Positions of findings in the order in which they are best looked at.

    Args:
        gains: (n,) chance of each to be an error.
        scores: (n,) score of each, which decides among equal chances; 0 comes first.
        places: (n,) those of one place follow one another.
        kinds: (n,) of one kind at most `LONGEST_RUN` follow one another, while others within the next
            `WINDOW` places are nearly as likely.

    >>> arranged([0.9, 0.2, 0.5, 0.3], [0.1, 0.5, 0.2, 0.4], ["a", "b", "c", "b"], ["x", "x", "x", "x"])
    [0, 2, 3, 1]
    """
    values, low = np.round(gains, _DIGITS), np.asarray(scores, dtype=np.float64)
    members: dict[Hashable, list[int]] = {}
    for at in np.lexsort((low, -values)).tolist():
        members.setdefault(places[at], []).append(at)
    units = list(members.values())
    means = np.array([values[unit[0]] if len(unit) == 1 else values[unit].mean() for unit in units])
    means = means.round(_DIGITS)
    firsts = np.array([low[unit[0]] for unit in units])
    best = np.lexsort((firsts, -means))
    return [at for unit in _mixed(best.tolist(), means.tolist(), units, kinds) for at in units[unit]]


def _mixed(
    best: Sequence[int], means: Sequence[float], units: Sequence[Sequence[int]], kinds: Sequence[Hashable]
) -> list[int]:
    """The units in their order, but for those that are put between too many of one kind."""
    rest = iter(best)
    waiting = list(islice(rest, WINDOW))
    found: list[int] = []
    last: Hashable = None
    run = 0
    while waiting:
        at = 0
        if run >= LONGEST_RUN and kinds[units[waiting[0]][0]] == last:
            least = means[waiting[0]] - NEARLY
            at = next(
                (
                    place
                    for place, unit in enumerate(waiting)
                    if kinds[units[unit][0]] != last and means[unit] >= least
                ),
                0,
            )
        unit = waiting.pop(at)
        waiting += islice(rest, 1)
        kind = kinds[units[unit][0]]
        run = run + len(units[unit]) if kind == last else len(units[unit])
        last = kind
        found.append(unit)
    return found
