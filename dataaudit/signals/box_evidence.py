"""What detections say about boxes: for each box how well a detection supports it, and how else one would."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from dataaudit.metrics import box_area, box_intersection, box_iou, pairs_by_group
from dataaudit.types import CORNERS

__all__ = [
    "Boxes",
    "Claims",
    "Detections",
    "Evidence",
    "claims",
    "evidence",
    "log_odds",
    "log_side",
    "most_overlap",
    "numbered",
    "repeated",
    "share_inside",
]

Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

_PAIRS = 2**17  # worked on at a time; several arrays of them fit the cache of a core
_FLOOR = 1e-2  # of a strength in [0, 1], before its log-odds
_PARTS = 4  # detections inside a box that are tried as its parts, the most confident ones


@dataclass(frozen=True, kw_only=True)
class Boxes:
    """Boxes to be judged, sorted by image.

    Attributes:
        images: (n,) number of the image.
        corners: (n, 4) pixels, finite, with x1 <= x2 and y1 <= y2.
        classes: (n,) number of the class.
        origins: (n,) number of the label that the box is, or stands in place of; -1 for none.
    """

    images: Ints
    corners: Doubles
    classes: Ints
    origins: Ints

    def __len__(self) -> int:
        return len(self.images)

    def take(self, rows: Any) -> Boxes:
        """Some of the boxes, in their order."""
        return Boxes(
            images=self.images[rows],
            corners=self.corners[rows],
            classes=self.classes[rows],
            origins=self.origins[rows],
        )


@dataclass(frozen=True, kw_only=True)
class Detections:
    """Detections, sorted by image, with the labels that they overlap most.

    Attributes:
        images: (m,) number of the image.
        corners: (m, 4) pixels.
        classes: (m,) number of the class.
        confidence: (m,) in [0, 1].
        best: (m,) number of the label with the highest IoU, -1 for none.
        best_iou: (m,) its IoU.
        second_iou: (m,) the highest IoU of the other labels.
    """

    images: Ints
    corners: Doubles
    classes: Ints
    confidence: Doubles
    best: Ints
    best_iou: Doubles
    second_iou: Doubles

    def __len__(self) -> int:
        return len(self.images)

    def claimed(self, rows: Ints, origins: Ints) -> Doubles:
        """Highest IoU of some detections with labels other than `origins`."""
        other: Doubles = np.where(self.best[rows] == origins, self.second_iou[rows], self.best_iou[rows])
        return other


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What detections say about each of n boxes.

    Attributes:
        same: support by a detection of the same class: its confidence times how well it fits, in [0, 1].
        any: the same for a detection of any class.
        other: the same for another class.
        beside: confidence of a detection of the class that overlaps the box, fits it badly, and fits no other
            label: how much the object seems to be elsewhere; in [0, 1].
        same_row: detection behind `same` or `beside`, whichever is stronger; -1 for none.
        other_row: detection behind `other`, -1 for none.
        any_row: detection behind `any`, -1 for none.
        iou: IoU of the box with the detection `same_row`, 0 for none.
        several: how much two detections inside the box, of its class, side by side, explain all of it; in
            [0, 1].
        first_row: the more confident one of them, -1 for none.
        second_row: the other.
    """

    same: Doubles
    any: Doubles
    other: Doubles
    beside: Doubles
    same_row: Ints
    other_row: Ints
    any_row: Ints
    iou: Doubles
    several: Doubles
    first_row: Ints
    second_row: Ints


@dataclass(frozen=True, kw_only=True)
class Claims:
    """How the detections are explained by the labels and by each other.

    Attributes:
        label: (m,) number of the label that a detection stands for: it is the one that supports it most, with
            an IoU of at least one half; -1 for none.
        claimed: (m,) highest IoU with another label than that.
        inside: (m,) largest share of the detection's area that lies in another label than that.
        repeats: (m,) highest IoU with a more confident detection.
    """

    label: Ints
    claimed: Doubles
    inside: Doubles
    repeats: Doubles


def numbered(
    labels: pd.DataFrame, detections: pd.DataFrame, classes: list[str], sample_ids: pd.Index[Any]
) -> tuple[Boxes, Detections, Ints, Ints]:
    """Labels and detections as arrays sorted by image.

    Args:
        labels: rows of the signal `objects` that have a valid box.
        detections: the signal `detections`.
        classes: names of the classes; a detection of another class has the number -1.
        sample_ids: of the dataset.

    Returns:
        The labels, the detections, and the position of each of them in `labels` and in `detections`.
    """
    # By more than the image, so that the order of the rows in the files doesn't matter
    images = _codes(labels["sample_id"], sample_ids)
    order = np.lexsort((labels["name"].astype(str), labels["y1"], labels["x1"], images))
    boxes = _taken(labels, order, images, classes)
    label_boxes = Boxes(origins=np.arange(len(order)), **boxes)
    images = _codes(detections["sample_id"], sample_ids)
    rows = np.argsort(images, kind="stable")
    found = _taken(detections, rows, images, classes)
    best, best_iou, second = _top_two(found["images"], found["corners"], label_boxes)
    made = Detections(
        confidence=detections["confidence"].to_numpy(dtype=np.float64)[rows],
        best=best,
        best_iou=best_iou,
        second_iou=second,
        **found,
    )
    return label_boxes, made, order, rows


def _taken(table: pd.DataFrame, order: Ints, images: Ints, classes: list[str]) -> dict[str, Any]:
    return {
        "images": images[order],
        "corners": table[list(CORNERS)].to_numpy(dtype=np.float64)[order],
        "classes": _codes(table["name"], pd.Index(classes))[order],
    }


def _codes(values: pd.Series[Any], index: pd.Index[Any]) -> Ints:
    codes, uniques = pd.factorize(values)
    found: Ints = index.get_indexer(pd.Index(uniques))[codes] if len(uniques) else codes
    return found


def evidence(boxes: Boxes, detections: Detections) -> Evidence:
    """What the detections of its image say about each box.

    A detection that fits another label better counts less: it is that one's.

    Args:
        boxes: n boxes, sorted by image.
        detections: of the images.
    """
    n = len(boxes)
    values = {name: np.zeros(n) for name in ("same", "any", "other", "beside", "iou", "several")}
    rows = {
        name: np.full(n, -1, dtype=np.int64)
        for name in ("same_row", "other_row", "any_row", "first_row", "second_row")
    }
    for start, left, right in _pairs(boxes.images, detections.images):
        left_all = left + start
        part = _evidence_of(boxes, detections, left_all, right)
        _write(values, rows, left_all, right, part)
        _write_several(values, rows, boxes, detections, left_all, right, part)
    columns: dict[str, Any] = {**values, **rows}
    return Evidence(**columns)


def _evidence_of(boxes: Boxes, detections: Detections, left: Ints, right: Ints) -> dict[str, Doubles | Bools]:
    """Strength of each pair in each role."""
    a, b = boxes.corners[left], detections.corners[right]
    shared = box_intersection(a, b)
    iou = shared / np.maximum(box_area(a) + box_area(b) - shared, 1e-9)
    claimed = detections.claimed(right, boxes.origins[left])
    own = np.where(iou >= claimed, 1.0, 1 - _ramp(claimed, 0.35, 0.7))
    confidence = detections.confidence[right]
    fits = confidence * _ramp(iou, 0.15, 0.75) * own
    same = boxes.classes[left] == detections.classes[right]
    free = 1 - _ramp(claimed, 0.2, 0.6)
    beside = confidence * free * _ramp(iou, 0.02, 0.15) * (1 - _ramp(iou, 0.45, 0.85))
    return {
        "same": fits * same,
        "any": fits,
        "other": fits * ~same,
        "beside": beside * same,
        "iou": iou,
        "inside": shared / np.maximum(box_area(b), 1e-9) * same,
    }


def _write_several(
    values: dict[str, Doubles],
    rows: dict[str, Ints],
    boxes: Boxes,
    detections: Detections,
    left: Ints,
    right: Ints,
    part: dict[str, Any],
) -> None:
    """Of each box the two detections inside it that explain it together."""
    part_of_it = (part["inside"] > 0.5) & (part["iou"] < 0.75) & (detections.confidence[right] > 0.05)
    left, right = left[part_of_it], right[part_of_it]
    order = np.lexsort((-detections.confidence[right], left))
    left, right = left[order], right[order]
    begins = np.searchsorted(left, left, side="left")
    few = np.arange(len(left)) - begins < _PARTS
    left, right = left[few], right[few]
    one, other = pairs_by_group(left, left)
    one, other = one[one < other], other[one < other]
    if not len(one):
        return
    a, b = detections.corners[right[one]], detections.corners[right[other]]
    both = np.concatenate([np.minimum(a[:, :2], b[:, :2]), np.maximum(a[:, 2:], b[:, 2:])], axis=1)
    covers = _ramp(box_iou(both, boxes.corners[left[one]]), 0.5, 0.85)
    apart = 1 - _ramp(box_iou(a, b), 0.1, 0.4)
    strength = detections.confidence[right[other]] * covers * apart
    box = left[one]
    starts = np.flatnonzero(np.r_[True, box[1:] != box[:-1]])
    most = np.maximum.reduceat(strength, starts)
    values["several"][box[starts]] = most
    where = np.flatnonzero((strength == np.repeat(most, np.diff(np.r_[starts, len(box)]))) & (strength > 0))
    rows["first_row"][box[where]] = right[one[where]]
    rows["second_row"][box[where]] = right[other[where]]


def _write(
    values: dict[str, Doubles], rows: dict[str, Ints], left: Ints, right: Ints, part: dict[str, Any]
) -> None:
    """Take the strongest pair of each box into the arrays of all boxes."""
    if not len(left):
        return
    starts = np.flatnonzero(np.r_[True, left[1:] != left[:-1]])
    boxes = left[starts]
    lengths = np.diff(np.r_[starts, len(left)])
    for name in ("same", "any", "other", "beside"):
        values[name][boxes] = np.maximum.reduceat(part[name], starts)
    part["same"] = np.maximum(part["same"], part["beside"])
    for name, column in (("same_row", "same"), ("any_row", "any"), ("other_row", "other")):
        most = np.maximum.reduceat(part[column], starts)
        is_best = (part[column] == np.repeat(most, lengths)) & (part[column] > 0)
        where = np.flatnonzero(is_best)[::-1]  # the first one is written last
        rows[name][left[where]] = right[where]
        if name == "same_row":
            values["iou"][left[where]] = part["iou"][where]


def _ramp(values: Doubles, low: float, high: float) -> Doubles:
    return np.clip((values - low) / (high - low), 0, 1)


def _pairs(a: Ints, b: Ints) -> Iterator[tuple[int, Ints, Ints]]:
    """Pairs of the same image, in parts: where the part begins in `a`, positions in the part, and in `b`."""
    first, last = np.searchsorted(b, a, side="left"), np.searchsorted(b, a, side="right")
    total = np.cumsum(last - first)
    start = 0
    while start < len(a):
        before = total[start - 1] if start else 0
        end = max(int(np.searchsorted(total, before + _PAIRS, side="right")), start + 1)
        low, high = int(first[start:end].min()), int(last[start:end].max())
        left, right = pairs_by_group(a[start:end], b[low:high])
        yield start, left, right + low
        start = end


def _top_two(images: Ints, corners: Doubles, labels: Boxes) -> tuple[Ints, Doubles, Doubles]:
    """Of each detection the label with the highest IoU, that IoU, and the next highest."""
    m = len(images)
    best, best_iou, second = np.full(m, -1, dtype=np.int64), np.zeros(m), np.zeros(m)
    for start, left, right in _pairs(images, labels.images):
        if not len(left):
            continue
        left = left + start
        iou = box_iou(corners[left], labels.corners[right])
        starts = np.flatnonzero(np.r_[True, left[1:] != left[:-1]])
        lengths = np.diff(np.r_[starts, len(left)])
        own = left[starts]
        most = np.maximum.reduceat(iou, starts)
        where = np.flatnonzero(iou == np.repeat(most, lengths))[::-1]
        best[left[where]] = right[where]
        chosen = right == best[left]
        best_iou[own] = most
        second[own] = np.maximum.reduceat(np.where(chosen, 0.0, iou), starts)
    best[best_iou <= 0] = -1
    return best, best_iou, second


def most_overlap(boxes: Boxes, labels: Boxes) -> Doubles:
    """(n,) highest IoU of each box with a label of its image."""
    return _top_two(boxes.images, boxes.corners, labels)[1]


def claims(labels: Boxes, detections: Detections, found: Evidence) -> Claims:
    """Which detections stand for a label, and what explains the others.

    Args:
        labels: all labels.
        detections: all detections.
        found: evidence of the labels.
    """
    label = np.full(len(detections), -1, dtype=np.int64)
    for rows in (found.any_row, found.same_row):
        known = np.flatnonzero(rows >= 0)
        fits = box_iou(labels.corners[known], detections.corners[rows[known]]) >= 0.5
        label[rows[known[fits]]] = known[fits]
    claimed = detections.claimed(np.arange(len(detections)), np.where(label >= 0, label, -2))
    return Claims(
        label=label,
        claimed=claimed,
        inside=_inside(labels, detections, label),
        repeats=_repeats(detections),
    )


def repeated(boxes: Boxes, least: float) -> Bools:
    """(n,) whether a box overlaps an earlier one of its image and class, in any order of the images.

    Args:
        boxes: the most important one first.
        least: IoU from which they are the same.
    """
    one, other = pairs_by_group(boxes.images, boxes.images)
    same = (other < one) & (boxes.classes[one] == boxes.classes[other])
    one, other = one[same], other[same]
    again = np.zeros(len(boxes), dtype=bool)
    again[one[box_iou(boxes.corners[one], boxes.corners[other]) >= least]] = True
    return again


def share_inside(detections: Detections, regions: Boxes) -> Doubles:
    """(m,) largest share of each detection's area that lies in a region."""
    return _inside(regions, detections, np.full(len(detections), -2, dtype=np.int64))


def _inside(labels: Boxes, detections: Detections, own: Ints) -> Doubles:
    most = np.zeros(len(detections))
    for start, left, right in _pairs(detections.images, labels.images):
        if len(left):
            left = left + start
            area = np.maximum(box_area(detections.corners[left]), 1e-9)
            share = box_intersection(detections.corners[left], labels.corners[right]) / area
            _put_most(most, left, np.where(own[left] == right, 0.0, share))
    return most


def _repeats(detections: Detections) -> Doubles:
    most = np.zeros(len(detections))
    for start, left, right in _pairs(detections.images, detections.images):
        if len(left):
            left = left + start
            stronger = detections.confidence[right] > detections.confidence[left]
            first = (detections.confidence[right] == detections.confidence[left]) & (right < left)
            iou = np.zeros(len(left))
            chosen = np.flatnonzero(stronger | first)
            iou[chosen] = box_iou(detections.corners[left[chosen]], detections.corners[right[chosen]])
            _put_most(most, left, iou)
    return most


def _put_most(most: Doubles, left: Ints, values: Doubles) -> None:
    """Write the largest value of each run of equal positions."""
    starts = np.flatnonzero(np.r_[True, left[1:] != left[:-1]])
    most[left[starts]] = np.maximum.reduceat(values, starts)


def log_odds(values: Doubles) -> Doubles:
    """Log-odds of strengths in [0, 1], which may be 0 and 1."""
    odds: Doubles = np.log((values + _FLOOR) / (1 - values + _FLOOR))
    return odds


def log_side(boxes: Boxes, sizes: Doubles) -> Doubles:
    """(n,) log of the side that a square as large as the box has, relative to its image's."""
    sides = np.maximum(boxes.corners[:, 2:] - boxes.corners[:, :2], 1e-9)
    relative = np.maximum(sides.prod(1) / sizes[boxes.images].prod(1), 1e-8)
    side: Doubles = 0.5 * np.log(relative)
    return side
