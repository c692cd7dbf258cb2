"""BOX: several boxes on one object."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from dataaudit.checks.box_fixes import BoxFixes
from dataaudit.checks.box_neighbors import (
    NEIGHBORS,
    Boxes,
    Pairs,
    apart_as_pieces,
    crowding,
    edges_apart,
    groups,
    sound_boxes,
    ways_of_pieces,
)
from dataaudit.checks.box_sizes import Sizes, shapes
from dataaudit.checks.box_support import support
from dataaudit.checks.rarity import PowerTail, error_chances
from dataaudit.metrics import box_iou
from dataaudit.registry import check
from dataaudit.types import CORNERS, Fix, Outcome

__all__ = ["duplicate_box", "duplicate_box_of_another_class", "split_object"]

Doubles = np.ndarray[Any, np.dtype[np.float64]]
Ints = np.ndarray[Any, np.dtype[np.int64]]
Bools = np.ndarray[Any, np.dtype[np.bool_]]

_BULK = (0.25, 0.8)
"""Deviations at which nearly all pairs of boxes are of two objects, as shares of their sides."""
_PIECES_BULK = (0.15, 0.6)
_USUAL_POWER, _PIECES_POWER = 3.0, 2.0
_TWICE = 0.08
"""Deviation between two boxes that people draw around one object, on average."""
_PRIOR = 1 / 2000
"""Share of boxes that are there twice, where the dataset itself says nothing."""
_BETTER = 0.1
"""How much nearer a later box must be to where the object seems to be, to stay in place of an earlier one."""
_UNSEEN = 0.05
"""Confidence that is added to that of every detection: a detector that sees nothing says nothing."""
_SEEN_OFTEN = 10.0
"""How many boxes of a class without a partner are added, before its share of those with one is believed."""


@check("BOX008", level="object")
def duplicate_box(
    objects: pd.DataFrame,
    labels: pd.DataFrame,
    images: pd.DataFrame,
    units: str,
    box_regressions: pd.DataFrame | None = None,
    *,
    min_probability: float = 0.5,
) -> Outcome:
    """The object has two boxes of the same class.

    Two boxes are compared by the largest deviation between their edges, as a share of their mean width and
    height: two objects, one before the other, have at least one edge apart, however large their overlap is.

    Scoring: one minus the probability, of the box that may go; 1 for the box that stays and all others.

    Probability: how many boxes of two objects come that close is extrapolated from the pairs that are 25 to
    80 % apart: their number falls with a power of the deviation, which is fitted, as is their number in the
    class and in the image, so that crowds are compared with crowds. Boxes drawn twice are 8 % apart on
    average, and how many there are is estimated from the pairs that chance can't explain.

    Flagged: where that is at least `min_probability`; of each group all but the box that stands first in the
    file, or another one where the baseline finds the object there rather (IoU higher by 0.1). Crowds and
    regions to ignore may overlap anything and aren't looked at.

    Fix: remove the box.
    """
    boxes = Boxes.of(objects)
    pairs = boxes.pairs(same_class=True)
    chance = _chances_of_pairs(boxes, pairs)
    first, later = (choose(boxes.rows[pairs.a], boxes.rows[pairs.b]) for choose in (np.minimum, np.maximum))
    fit = _fit(objects, box_regressions)
    turned = fit[later] > fit[first] + _BETTER
    worst = np.zeros(len(objects))
    np.maximum.at(worst, np.where(turned, first, later), chance)
    fixes = BoxFixes(labels, images, units)
    found = _Found(code="BOX008")
    sure = chance >= min_probability
    for group, row, kept in _to_go(first[sure], later[sure], turned[sure]):
        one, other = str(objects.index[row]), str(objects.index[kept])
        iou, apart = _compared(objects, row, kept)
        how = "The same box as" if apart == 0 else f"IoU {iou:.2f} (edges within {apart:.1%}) with"
        found.add(other, "To keep.", group)
        found.add(one, f"{how} {other}, also {objects['name'].iloc[row]!r}.", group, flagged=True)
        found.fixes[one] = fixes.remove(one)
    return found.outcome(pd.Series(1 - worst, index=objects.index))


@check("BOX009", level="object")
def duplicate_box_of_another_class(
    objects: pd.DataFrame,
    labels: pd.DataFrame,
    images: pd.DataFrame,
    units: str,
    object_probs: pd.DataFrame | None = None,
    *,
    min_probability: float = 0.5,
) -> Outcome:
    """The object has two boxes of different classes.

    Scoring: one minus the probability.

    Probability: the chance that both boxes are on one object, as in `BOX008`, shared between the two by
    what the baseline says to both boxes' pixels; without it the class with more objects is the likelier one,
    in proportion. Where objects of one class
    mostly have a box of the other one too, as where every 'taxi' is a 'car' as well, that is meant, and the
    probability is lower by their share.

    Flagged: where the chance that both are on one object is at least `min_probability`, the less likely one.

    Fix: remove the box.
    """
    boxes = Boxes.of(objects)
    pairs = boxes.pairs(same_class=False)
    chance = _chances_of_pairs(boxes, pairs) * (1 - _meant(boxes, pairs))
    of_a_wrong = _first_is_wrong(objects, boxes, pairs, object_probs)
    a_goes = (of_a_wrong > 0.5) | ((of_a_wrong == 0.5) & (boxes.rows[pairs.a] > boxes.rows[pairs.b]))
    goes = np.where(a_goes, boxes.rows[pairs.a], boxes.rows[pairs.b])
    stays = np.where(a_goes, boxes.rows[pairs.b], boxes.rows[pairs.a])
    worst = np.zeros(len(objects))
    np.maximum.at(worst, boxes.rows[pairs.a], chance * of_a_wrong)
    np.maximum.at(worst, boxes.rows[pairs.b], chance * (1 - of_a_wrong))
    fixes = BoxFixes(labels, images, units)
    found = _Found(code="BOX009")
    order = np.argsort(-chance, kind="stable")
    for number, at in enumerate(order[chance[order] >= min_probability], start=1):
        row, kept = int(goes[at]), int(stays[at])
        one, other = str(objects.index[row]), str(objects.index[kept])
        if one in found.fixes:
            continue
        iou, apart = _compared(objects, row, kept)
        name, kept_name = objects["name"].iloc[row], objects["name"].iloc[kept]
        found.add(other, f"To keep, or {one}.", str(number))
        found.add(
            one,
            f"IoU {iou:.2f} (edges within {apart:.1%}) with {other}: one object is both {name!r} and "
            f"{kept_name!r}.",
            str(number),
            flagged=True,
        )
        found.fixes[one] = fixes.remove(one)
    return found.outcome(pd.Series(1 - worst, index=objects.index))


@check("BOX010", level="object")
def split_object(
    objects: pd.DataFrame,
    labels: pd.DataFrame,
    images: pd.DataFrame,
    units: str,
    detections: pd.DataFrame | None = None,
    *,
    min_probability: float = 0.5,
) -> Outcome:
    """Several boxes are pieces of one object.

    Pieces of one object lie side by side or one above the other and end where it ends: two edges of one box
    go on in the other, and a third one meets it.

    Scoring: one minus the probability; 1 for boxes without such a neighbour of their class.

    Probability: as in `BOX008`, with the largest of the three deviations, as a share of both boxes together;
    where the boxes overlap, half of the overlap. Objects of one size stand side by side, too. So it also
    counts how usual the size and shape of the whole is in the class, and of the pieces if each were an object
    (as in `BOX012`), and whether detections, if there are any, lie on the whole or on both pieces.

    Flagged: where that is at least `min_probability`.

    Fix: the largest piece becomes the box around all of them, the others are removed.
    """
    boxes = Boxes.of(objects)
    pairs = boxes.pairs(same_class=True, apart=apart_as_pieces)
    ratio = _whole_over_pieces(boxes, pairs) * _seen_as_whole(objects, boxes, pairs, detections)
    chance = _chances_of_pairs(boxes, pairs, _PIECES_BULK, _PIECES_POWER, ratio)
    worst = np.zeros(len(objects))
    for side in (pairs.a, pairs.b):
        np.maximum.at(worst, boxes.rows[side], chance)
    fixes = BoxFixes(labels, images, units)
    found = _Found(code="BOX010")
    corners = objects[list(CORNERS)].to_numpy(dtype=np.float64)
    sure = chance >= min_probability
    for group, members in groups(boxes.rows[pairs.a[sure]], boxes.rows[pairs.b[sure]]):
        box = np.concatenate([corners[members, :2].min(0), corners[members, 2:].max(0)])
        areas = np.prod(corners[members, 2:] - corners[members, :2], axis=1)
        largest = members[int(areas.argmax())]
        name = objects["name"].iloc[largest]
        share = areas.sum() / np.prod(box[2:] - box[:2])
        for row in members:
            what = "grows to the box around all" if row == largest else "goes"
            found.add(
                objects.index[row],
                f"{len(members)} boxes of {name!r} continue each other and fill {min(share, 1):.0%} of the "
                f"box around them; this one {what}.",
                group,
                flagged=True,
                box=box if row == largest else None,
            )
            one = str(objects.index[row])
            if row != largest:
                found.fixes[one] = fixes.remove(one)
            elif objects["geometry"].iloc[row] == "box":
                found.fixes[one] = fixes.move(one, box.tolist())
    return found.outcome(pd.Series(1 - worst, index=objects.index))


def _chances_of_pairs(
    boxes: Boxes,
    pairs: Pairs,
    bulk: tuple[float, float] = _BULK,
    usual_power: float = _USUAL_POWER,
    ratio: Doubles | float = 1.0,
) -> Doubles:
    """(p,) chance that both boxes of each pair are on one object.

    Args:
        boxes: all of them.
        pairs: pairs of them.
        bulk: deviations at which they are nearly all of two objects.
        usual_power: with which the number of such pairs falls, in other datasets.
        ratio: how many times as likely what else is known makes one object.
    """
    n = len(boxes.rows)
    tail = PowerTail.fit(pairs.apart, bulk=bulk, usual_power=usual_power, more=NEIGHBORS * n + 0.5)
    crowd = crowding(boxes, pairs, bulk[0]) if n else np.zeros(0)
    usual = tail.density(pairs.apart) * crowd
    wrong = np.exp(-pairs.apart / _TWICE) / _TWICE * ratio
    return error_chances(usual, wrong, n=n, prior=_PRIOR)


def _whole_over_pieces(boxes: Boxes, pairs: Pairs) -> Doubles:
    """(p,) how many times as likely the sizes of each pair are as those of two pieces than of two objects.

    A whole has a size of its class and is cut anywhere; of two objects each has one, and the second has the
    side along which they stand from the first. Objects in one image are alike, so that two odd ones say less
    than twice as much as one: the ratio's root counts.
    """
    if not len(pairs.a):
        return np.zeros(0)
    values = shapes(boxes.corners, boxes.size)
    known = np.isfinite(values).all(1)
    sizes = Sizes.fit(values[known], boxes.name[known], int(boxes.name.max()) + 1)
    one, other = boxes.corners[pairs.a], boxes.corners[pairs.b]
    low, high = np.minimum(one[:, :2], other[:, :2]), np.maximum(one[:, 2:], other[:, 2:])
    both = shapes(np.concatenate([low, high], axis=1), boxes.size[pairs.a])
    names = boxes.name[pairs.a]
    beside, above = ways_of_pieces(one, other)
    shared = np.where(beside <= above, 1, 0)
    of_one, of_other = values[pairs.a], values[pairs.b]
    length = [(box[:, 2:] - box[:, :2])[np.arange(len(box)), 1 - shared] for box in (one, other)]
    part = length[0] / (length[0] + length[1])
    ratio = (
        sizes.log_density(both, names)
        + np.log(part * (1 - part))
        + sizes.log_density_along((of_one + of_other) / 2, names, shared)
        - sizes.log_density(of_one, names)
        - sizes.log_density(of_other, names)
    )
    return np.asarray(np.exp(np.where(np.isfinite(ratio), np.clip(ratio / 2, -12, 8), 0)))


def _seen_as_whole(
    objects: pd.DataFrame, boxes: Boxes, pairs: Pairs, detections: pd.DataFrame | None
) -> Doubles:
    """(p,) how many times as likely detections see one object in each pair of pieces than two."""
    ratio = np.ones(len(pairs.a))
    if detections is None or not len(detections):
        return ratio
    near = np.flatnonzero(pairs.apart <= _PIECES_BULK[0] * 2)
    one, other = boxes.corners[pairs.a[near]], boxes.corners[pairs.b[near]]
    whole = np.concatenate([np.minimum(one[:, :2], other[:, :2]), np.maximum(one[:, 2:], other[:, 2:])], 1)
    rows = boxes.rows[pairs.a[near]]
    sample_ids, names = objects["sample_id"].iloc[rows], objects["name"].iloc[rows]
    on_whole, on_one, on_other = (
        support(sample_ids, names, corners, detections, min_iou=0.6) for corners in (whole, one, other)
    )
    ratio[near] = (on_whole + _UNSEEN) / (np.minimum(on_one, on_other) + _UNSEEN)
    return ratio


def _first_is_wrong(
    objects: pd.DataFrame, boxes: Boxes, pairs: Pairs, object_probs: pd.DataFrame | None
) -> Doubles:
    """(p,) chance that the class of the first box is the wrong one of the two of each pair."""
    count = np.bincount(boxes.name, minlength=1).astype(np.float64)
    of_a, of_b = count[boxes.name[pairs.a]], count[boxes.name[pairs.b]]
    chance = of_b / (of_a + of_b)
    if object_probs is None or not len(pairs.a):
        return np.asarray(chance)
    rows = [object_probs.index.get_indexer(objects.index[boxes.rows[side]]) for side in (pairs.a, pairs.b)]
    columns = [
        object_probs.columns.get_indexer(pd.Index(objects["name"].iloc[boxes.rows[side]]))
        for side in (pairs.a, pairs.b)
    ]
    probs = np.log(np.maximum(object_probs.to_numpy(dtype=np.float64), 1e-6))
    known = np.logical_and.reduce([each >= 0 for each in (*rows, *columns)])
    odds = sum((probs[row, columns[1]] - probs[row, columns[0]]) / 2 for row in rows)
    seen = 1 / (1 + np.exp(-np.asarray(odds)))
    return np.asarray(np.where(known & np.isfinite(seen), seen, chance))


def _meant(boxes: Boxes, pairs: Pairs) -> Doubles:
    """(p,) share of the rarer class's boxes that have one of the other class, for each pair's classes."""
    k = int(boxes.name.max(initial=0)) + 1
    one, other = boxes.name[pairs.a], boxes.name[pairs.b]
    of_pair, at = np.unique(np.minimum(one, other) * k + np.maximum(one, other), return_inverse=True)
    together = np.bincount(at[pairs.apart <= _TWICE], minlength=len(of_pair))
    n = np.bincount(boxes.name, minlength=k)
    rarer = np.minimum(n[of_pair // k], n[of_pair % k])
    return np.asarray(np.minimum(together / (rarer + _SEEN_OFTEN), 1.0)[at])


def _compared(objects: pd.DataFrame, row: int, other: int) -> tuple[float, float]:
    """IoU of two boxes and the largest deviation of their edges."""
    one, two = (objects[list(CORNERS)].iloc[[at]].to_numpy(dtype=np.float64) for at in (row, other))
    return float(box_iou(one, two)[0]), float(edges_apart(one, two)[0])


def _fit(objects: pd.DataFrame, box_regressions: pd.DataFrame | None) -> Doubles:
    """(n,) IoU of each box with where its object seems to be, 0 where that isn't known."""
    if box_regressions is None:
        return np.zeros(len(objects))
    found = box_regressions.reindex(objects.index)[list(CORNERS)].to_numpy(dtype=np.float64)
    given = objects[list(CORNERS)].to_numpy(dtype=np.float64)
    known = sound_boxes(objects) & np.isfinite(found).all(1)
    fit = np.zeros(len(objects))
    fit[known] = box_iou(given[known], found[known])
    return fit


def _to_go(first: Ints, later: Ints, turned: Bools) -> Iterator[tuple[str, int, int]]:
    """Group, row and the row that stays for each row that is near one that stays.

    Args:
        first: (p,) earlier row of each pair.
        later: (p,) the other one.
        turned: (p,) whether the later one is the better one.
    """
    near: dict[int, list[int]] = {}
    worse: dict[int, int] = {}
    for one, other, swap in zip(first.tolist(), later.tolist(), turned.tolist(), strict=True):
        near.setdefault(one, []).append(other)
        near.setdefault(other, []).append(one)
        worse[one] = worse.get(one, 0) + swap
    for group, members in groups(first, later):
        stays: set[int] = set()
        for row in sorted(members, key=lambda row: (worse.get(row, 0), row)):
            kept = [other for other in near[row] if other in stays]
            if kept:
                yield group, row, min(kept)
            else:
                stays.add(row)


class _Found:
    """Collects the findings of one check."""

    def __init__(self, code: str) -> None:
        self._code = code
        self._rows: dict[str, tuple[Any, ...]] = {}
        self._flagged: set[str] = set()
        self.fixes: dict[str, Fix] = {}

    def add(
        self, item: Any, message: str, group: str, *, flagged: bool = False, box: Doubles | None = None
    ) -> None:
        """Add the evidence of an item; that of a flagged one isn't replaced by that of one to keep."""
        if not flagged and str(item) in self._flagged:
            return
        corners = (float("nan"),) * 4 if box is None else tuple(map(float, box))
        self._rows[str(item)] = (message, f"{self._code}-{group}", *corners)
        if flagged:
            self._flagged.add(str(item))

    def outcome(self, score: pd.Series[float]) -> Outcome:
        """The outcome; the probability is one minus the score."""
        return Outcome(
            score=score,
            flagged=pd.Series(score.index.isin(self._flagged), index=score.index, dtype=bool),
            probability=1 - score,
            evidence=pd.DataFrame.from_dict(
                self._rows, orient="index", columns=["message", "group", *CORNERS]
            ),
            fixes=self.fixes,
        )
