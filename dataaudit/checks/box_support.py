"""How well detections support boxes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from dataaudit.metrics import box_iou, pairs_by_group
from dataaudit.types import CORNERS

__all__ = ["support"]

Doubles = np.ndarray[Any, np.dtype[np.float64]]

_BOXES_AT_A_TIME = 20_000


def support(
    sample_ids: pd.Series[Any],
    names: pd.Series[Any],
    corners: Doubles,
    detections: pd.DataFrame,
    *,
    min_iou: float,
) -> Doubles:
    """Confidence of the surest detection of its class that lies on each box, times their IoU.

    Args:
        sample_ids: (n,) image of each box.
        names: (n,) its class.
        corners: (n, 4) pixels.
        detections: columns ``sample_id``, ``name``, ``confidence`` and the corners in pixels.
        min_iou: of the two, at least.

    Returns:
        (n,) in [0, 1]; 0 where there is none.
    """
    found = np.zeros(len(corners))
    detections = detections[np.isfinite(detections[list(CORNERS)].to_numpy(dtype=np.float64)).all(1)]
    both = pd.MultiIndex.from_arrays(
        [
            np.concatenate(
                [sample_ids.to_numpy(dtype=object), detections["sample_id"].to_numpy(dtype=object)]
            ),
            np.concatenate([names.to_numpy(dtype=object), detections["name"].to_numpy(dtype=object)]),
        ]
    )
    keys = pd.factorize(both)[0].astype(np.int64)
    own, theirs = keys[: len(corners)], keys[len(corners) :]
    boxes = detections[list(CORNERS)].to_numpy(dtype=np.float64)
    confidence = detections["confidence"].to_numpy(dtype=np.float64)
    for start in range(0, len(corners), _BOXES_AT_A_TIME):
        row, other = pairs_by_group(own[start : start + _BOXES_AT_A_TIME], theirs)
        iou = box_iou(corners[row + start], boxes[other])
        near = iou >= min_iou
        np.maximum.at(found, row[near] + start, (iou * confidence[other])[near])
    return found
