"""What a score means: the chance that a detection is an object of its class, at an IoU of at least 0.5."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dataaudit.metrics import box_iou, pairs_by_group

__all__ = ["calibrated", "matched"]

Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

_MATCH = 0.5
_EDGE = 1e-6
_TRUST = 1.0
_LEAST_SLOPE = 0.1
_STEPS = 50


def matched(groups: Ints, boxes: Doubles, scores: Doubles, label_groups: Ints, label_boxes: Doubles) -> Bools:
    """Which detections stand for a label: each label has one at most, the most confident that overlaps it.

    Args:
        groups: (n,) number of the image and class of each detection.
        boxes: (n, 4) corners.
        scores: (n,).
        label_groups: (m,) the same of the labels.
        label_boxes: (m, 4).

    Returns:
        (n,) whether a label of its image and class is covered with an IoU of at least one half, and by no
        more confident detection.
    """
    rows, labels = pairs_by_group(groups, label_groups)
    overlap = box_iou(boxes[rows], label_boxes[labels])
    close = overlap >= _MATCH
    rows, labels, overlap = rows[close], labels[close], overlap[close]
    order = np.lexsort((-overlap, rows, -scores[rows]))
    rows, labels = rows[order], labels[order]
    # The label that each detection overlaps most, then for each label the first of its detections
    _, first = np.unique(rows, return_index=True)
    first = np.sort(first)
    rows, labels = rows[first], labels[first]
    _, first = np.unique(labels, return_index=True)
    found = np.zeros(len(scores), dtype=bool)
    found[rows[first]] = True
    return found


def calibrated(scores: Doubles, right: Bools, counts: Bools) -> Doubles:
    """Scores as chances, in the same order.

    Args:
        scores: (n,) in [0, 1].
        right: (n,) whether each detection is an object, by the labels.
        counts: (n,) whether that is known.

    Returns:
        (n,) in [0, 1].

    Reference: Platt, "Probabilistic Outputs for Support Vector Machines", 1999, with a pull towards the
    scores as they are where there are few.
    """
    values = np.log(np.clip(scores, _EDGE, 1 - _EDGE) / (1 - np.clip(scores, _EDGE, 1 - _EDGE)))
    known = np.stack([values[counts], np.ones(int(counts.sum()))], axis=1)
    truth = right[counts].astype(np.float64)
    start = np.array([1.0, 0.0])
    weights = start.copy()
    for _ in range(_STEPS):
        chance = _logistic(known @ weights)
        gradient = known.T @ (chance - truth) + _TRUST * (weights - start)
        curvature = (known.T * (chance * (1 - chance))) @ known + _TRUST * np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        weights = weights - np.clip(step, -1, 1)
        if np.abs(step).max() < 1e-8:
            break
    slope = max(float(weights[0]), _LEAST_SLOPE)
    return _logistic(slope * values + weights[1])


def _logistic(values: Doubles) -> Doubles:
    chances: Doubles = 1 / (1 + np.exp(-np.clip(values, -500, 500)))
    return chances
