"""Errors planted in sound boxes, from which it is learnt what errors look like to a detector."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from dataaudit.metrics import box_iou, pairs_by_group
from dataaudit.signals.box_evidence import Boxes, most_overlap

__all__ = ["KINDS", "planted"]

Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

KINDS = ("sound", "wrong class", "spurious", "bad location", "merged")
"""What a labeled box can be; the numbers that `planted` gives are positions here."""
_LOW, _HIGH = 0.2, 0.75  # IoU of a badly placed box with its object
_FEWEST_MERGED = 20
_ALONE = 0.1  # IoU of a spurious box with any label, at most


def planted(
    labels: Boxes, chosen: Ints, sizes: Doubles, n_classes: int, *, times: int, seed: int = 0
) -> Iterator[tuple[int, Boxes, Ints]]:
    """Boxes with one kind of error each, as they might stand in place of labels.

    Args:
        labels: all labels.
        chosen: positions of the labels that errors are planted in.
        sizes: (n images, 2) width and height in pixels.
        n_classes: how many classes there are.
        times: how often each label is taken.
        seed: of all that is drawn.

    Yields:
        The kind as a position in `KINDS`; the boxes, sorted by image; and the position in `labels` that each
        was made of.
    """
    rng = np.random.default_rng(seed)
    if n_classes > 1:
        yield 1, *_of_other_classes(labels, np.repeat(chosen, times), n_classes, rng)
    yield 2, *_elsewhere(labels, np.repeat(chosen, times), sizes, rng)
    yield 3, *_misplaced(labels, np.repeat(chosen, 3 * times), sizes, rng)
    merged, rows = _merged(labels, chosen, times)
    if len(rows) >= _FEWEST_MERGED:
        yield 4, merged, rows


def _of_other_classes(labels: Boxes, rows: Ints, n_classes: int, rng: Any) -> tuple[Boxes, Ints]:
    shares = np.bincount(labels.classes, minlength=n_classes) + 0.5
    new = rng.choice(n_classes, size=len(rows), p=shares / shares.sum())
    other = new != labels.classes[rows]
    rows, new = rows[other], new[other]
    boxes = labels.take(rows)
    made = Boxes(images=boxes.images, corners=boxes.corners, classes=new, origins=boxes.origins)
    return made, rows


def _elsewhere(labels: Boxes, rows: Ints, sizes: Doubles, rng: Any) -> tuple[Boxes, Ints]:
    """Boxes as large as a label of some image, in another image, at the same or another place of it."""
    boxes = labels.take(rows)
    relative = boxes.corners / np.tile(sizes[boxes.images], 2)
    sides = relative[:, 2:] - relative[:, :2]
    anywhere = rng.random((len(rows), 2)) * np.maximum(1 - sides, 0)
    corner = np.where(rng.random((len(rows), 1)) < 0.5, anywhere, relative[:, :2])
    known = np.flatnonzero(np.isfinite(sizes).all(axis=1))
    images = known[rng.integers(len(known), size=len(rows))]
    corners = np.concatenate([corner, corner + sides], axis=1) * np.tile(sizes[images], 2)
    order = np.argsort(images, kind="stable")
    made = Boxes(
        images=images[order],
        corners=corners[order],
        classes=boxes.classes[order],
        origins=np.full(len(rows), -1, dtype=np.int64),
    )
    alone = np.flatnonzero(most_overlap(made, labels) < _ALONE)
    return made.take(alone), rows[order][alone]


def _misplaced(labels: Boxes, rows: Ints, sizes: Doubles, rng: Any) -> tuple[Boxes, Ints]:
    """Boxes moved to the side, or with sides moved by themselves."""
    boxes = labels.take(rows)
    n = len(rows)
    sides = np.tile(boxes.corners[:, 2:] - boxes.corners[:, :2], 2)
    moved = np.tile(rng.uniform(-0.7, 0.7, (n, 2)) * rng.random((n, 1)), 2)
    resized = rng.uniform(-0.6, 0.6, (n, 4)) * (rng.random((n, 4)) < 0.7)
    corners = boxes.corners + np.where(rng.random((n, 1)) < 0.5, moved, resized) * sides
    corners = np.clip(corners, 0, np.tile(sizes[boxes.images], 2))
    iou = box_iou(corners, boxes.corners)
    kept = _evenly(iou, rng)
    boxes = boxes.take(kept)
    made = Boxes(images=boxes.images, corners=corners[kept], classes=boxes.classes, origins=boxes.origins)
    return made, rows[kept]


def _evenly(iou: Doubles, rng: Any) -> Ints:
    """Positions of boxes of which every IoU from `_LOW` to `_HIGH` is about as frequent, in their order."""
    edges = np.linspace(_LOW, _HIGH, 12)
    part = np.digitize(iou, edges)
    counts = np.bincount(part, minlength=len(edges) + 1)
    fewest = np.median(counts[1:-1])
    inside = (part > 0) & (part < len(edges))
    kept = inside & (rng.random(len(iou)) < fewest / np.maximum(counts[part], 1))
    return np.asarray(np.flatnonzero(kept), dtype=np.int64)


def _merged(labels: Boxes, chosen: Ints, times: int) -> tuple[Boxes, Ints]:
    """One box around two labels of a class that are neighbours."""
    one, other = pairs_by_group(labels.images[chosen], labels.images[chosen])
    first, second = chosen[one], chosen[other]
    apart = (first < second) & (labels.classes[first] == labels.classes[second])
    first, second = first[apart], second[apart]
    a, b = labels.corners[first], labels.corners[second]
    both = np.concatenate([np.minimum(a[:, :2], b[:, :2]), np.maximum(a[:, 2:], b[:, 2:])], axis=1)
    near = np.minimum(box_iou(both, a), box_iou(both, b)) > _LOW
    rows = first[near][: len(chosen) * times]
    boxes = labels.take(rows)
    made = Boxes(
        images=boxes.images,
        corners=both[near][: len(rows)],
        classes=boxes.classes,
        origins=boxes.origins,
    )
    return made, rows
