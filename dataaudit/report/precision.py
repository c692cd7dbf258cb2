"""How well predictions and labels of objects agree: precision and recall by class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from dataaudit.metrics import box_area, box_intersection, box_iou, pairs_by_group
from dataaudit.types import CORNERS

__all__ = ["match", "precision_recall"]

Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

MIN_IOU = 0.5
CURVE_POINTS = 60
_AT_ONCE = 500_000
"""Detections whose pairs with objects are made at a time, for the sake of memory."""


def precision_recall(
    objects: pd.DataFrame, detections: pd.DataFrame, classes: Sequence[str], *, min_iou: float = MIN_IOU
) -> dict[str, Any]:
    """Precision and recall of predictions against the labels as they are, errors and all.

    A prediction is right where it overlaps a labeled object of its class that no surer prediction took.
    Objects that are crowds, ignored or difficult are neither missed nor found: predictions on them don't
    count.

    Args:
        objects: the signal `objects` of a dataset, boxes in pixels.
        detections: columns ``sample_id``, ``name``, ``confidence`` in [0, 1] and the corners in pixels.
        classes: names of the classes.
        min_iou: least intersection over union of a right prediction.

    Returns:
        A dict that ``json.dumps`` takes as it is: ``iou``, ``detections`` (how many), ``mean_ap`` (over the
        classes that have objects, or None), ``all`` (the classes pooled) and ``classes`` (those with objects
        or detections). Each of these has ``name``, ``n`` (objects), ``detections``, ``ap`` (None without
        objects), ``precision``, ``recall`` and ``confidence`` at the threshold of the best F1, and ``curve``,
        pairs of recall and the best precision at that recall or above.

    Reference:
        M. Everingham et al., "The PASCAL Visual Object Classes Challenge: A Retrospective", International
        Journal of Computer Vision, 2015: average precision as the area under the interpolated curve, at all
        points. Crowds as in COCO.
    """
    known = pd.Index(classes)
    usable = detections[detections["name"].isin(known) & detections[list(CORNERS)].notna().all(axis=1)]
    usable = usable.iloc[np.argsort(-usable["confidence"].to_numpy(dtype=np.float64), kind="stable")]
    labeled = objects[objects[list(CORNERS)].notna().all(axis=1)]
    right, counts = match(labeled, usable, min_iou)
    kept = usable[counts]
    right = right[counts]
    confidence = kept["confidence"].to_numpy(dtype=np.float64)
    passed = _without_judgement(labeled)
    of_object = known.get_indexer(pd.Index(labeled["name"][~passed]))
    of_detection = known.get_indexer(pd.Index(kept["name"]))
    n_objects = np.bincount(of_object[of_object >= 0], minlength=len(known))
    n_detections = np.bincount(of_detection, minlength=len(known))
    order = np.argsort(of_detection, kind="stable")
    ends = np.cumsum(n_detections)
    rows = []
    for number in np.flatnonzero(n_objects + n_detections).tolist():
        mine = order[ends[number] - n_detections[number] : ends[number]]
        found = _curve(right[mine], confidence[mine], int(n_objects[number]))
        rows.append({"name": str(known[number]), **found})
    stated = [row["ap"] for row in rows if row["ap"] is not None]
    return {
        "iou": min_iou,
        "detections": len(detections),
        "mean_ap": float(np.mean(stated)) if stated else None,
        "all": {"name": "all", **_curve(right, confidence, int(n_objects.sum()))},
        "classes": rows,
    }


def match(objects: pd.DataFrame, detections: pd.DataFrame, min_iou: float = MIN_IOU) -> tuple[Bools, Bools]:
    """Which predictions find a labeled object, each object being found once.

    Args:
        objects: the signal `objects`, without corners that are NaN.
        detections: columns ``sample_id``, ``name`` and corners, n rows, surest first.
        min_iou: least intersection over union.

    Returns:
        (n,) whether each prediction is right; and (n,) whether it counts: one on an object that isn't to be
        judged doesn't.
    """
    passed, ignore = _without_judgement(objects), objects["ignore"].to_numpy(dtype=bool)
    group, anywhere = _groups(objects, detections)
    n = len(objects)
    right = np.zeros(len(detections), dtype=bool)
    boxes = objects[list(CORNERS)].to_numpy(dtype=np.float64)
    guesses = detections[list(CORNERS)].to_numpy(dtype=np.float64)
    judged = np.flatnonzero(~passed)
    guess, found, overlap = _pairs(guesses, boxes[judged], group[n:], group[judged], min_iou)
    right[_greedy(guess, found, overlap)] = True
    counts = np.ones(len(detections), dtype=bool)
    for rows, places in ((np.flatnonzero(passed & ~ignore), group), (np.flatnonzero(ignore), anywhere)):
        rest = np.flatnonzero(~right & counts)
        crowds = objects["crowd"].to_numpy(dtype=bool)[rows] | ignore[rows]
        on, _, _ = _pairs(guesses[rest], boxes[rows], places[n:][rest], places[rows], min_iou, inside=crowds)
        counts[rest[on]] = False
    return right, counts


def _without_judgement(objects: pd.DataFrame) -> Bools:
    flags = objects[["crowd", "ignore", "difficult"]].to_numpy(dtype=bool)
    return np.asarray(flags.any(axis=1), dtype=bool)


def _groups(objects: pd.DataFrame, detections: pd.DataFrame) -> tuple[Ints, Ints]:
    """A number for the image and class of each object and then of each detection; and one for the image."""
    both = pd.concat([objects[["sample_id", "name"]], detections[["sample_id", "name"]]])
    image, _ = pd.factorize(both["sample_id"])
    name, names = pd.factorize(both["name"])
    image = image.astype(np.int64)
    return image * max(len(names), 1) + name, image


def _pairs(
    guesses: Doubles,
    boxes: Doubles,
    group: Ints,
    box_group: Ints,
    min_iou: float,
    inside: Bools | None = None,
) -> tuple[Ints, Ints, Doubles]:
    """Positions of guesses and boxes that overlap enough, and by how much.

    Where `inside` is true for a box, what counts is the share of the guess that lies in it.
    """
    parts = []
    for start in range(0, len(guesses), _AT_ONCE):
        one, other = pairs_by_group(group[start : start + _AT_ONCE], box_group)
        one = one + start
        overlap = box_iou(guesses[one], boxes[other])
        if inside is not None and len(one):
            area = box_area(guesses[one])
            share = box_intersection(guesses[one], boxes[other]) / np.where(area == 0, 1, area)
            overlap = np.where(inside[other], share, overlap)
        enough = overlap >= min_iou
        parts.append((one[enough], other[enough], overlap[enough]))
    if not parts:
        nothing = np.zeros(0, dtype=np.int64)
        return nothing, nothing, np.zeros(0)
    ones, others, overlaps = (np.concatenate(each) for each in zip(*parts, strict=True))
    return ones, others, overlaps


def _greedy(guess: Ints, box: Ints, overlap: Doubles) -> Ints:
    """The guesses that get a box: each, surest first, takes the free box that it overlaps most.

    In rounds over all images at once.
    """
    order = np.lexsort((-overlap, guess))
    guess, box = guess[order], box[order]
    takers = [np.zeros(0, dtype=np.int64)]
    while len(guess):
        # A guess may take its best box when no surer guess might want that box
        best = np.ones(len(guess), dtype=bool)
        best[1:] = guess[1:] != guess[:-1]
        _, first = np.unique(box, return_index=True)
        surest = np.zeros(len(guess), dtype=bool)
        surest[first] = True
        chosen = best & surest
        takers.append(guess[chosen])
        free = ~(np.isin(guess, guess[chosen]) | np.isin(box, box[chosen]))
        guess, box = guess[free], box[free]
    return np.concatenate(takers)


def _curve(right: Bools, confidence: Doubles, n: int) -> dict[str, Any]:
    """Average precision, the threshold of the best F1 and the curve; predictions surest first."""
    nothing: dict[str, Any] = {
        "n": n, "detections": len(right), "ap": None if n == 0 else 0.0, "precision": None, "recall": None,
        "confidence": None, "curve": [],
    }  # fmt: skip
    if n == 0 or not len(right):
        return nothing
    found = np.cumsum(right)
    recall, precision = found / n, found / np.arange(1, len(right) + 1)
    # Predictions of the same confidence come all or not at all
    last = np.append(confidence[1:] != confidence[:-1], True)
    recall, precision, threshold = recall[last], precision[last], confidence[last]
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    ap = float(np.sum(np.diff(recall, prepend=0.0) * envelope))
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    best = int(np.argmax(f1))
    corners = np.flatnonzero(np.append(envelope[1:] != envelope[:-1], True))
    # Beyond the last one that is right the precision falls and nothing is found
    corners = corners[np.diff(recall[corners], prepend=0.0) > 0]
    steps = np.linspace(0, recall[-1], CURVE_POINTS)
    some = np.unique(np.searchsorted(recall[corners], steps)) if len(corners) > CURVE_POINTS else slice(None)
    curve = [[round(float(recall[at]), 4), round(float(envelope[at]), 4)] for at in corners[some]]
    return nothing | {
        "ap": ap,
        "precision": float(precision[best]),
        "recall": float(recall[best]),
        "confidence": float(threshold[best]),
        "curve": curve,
    }
