"""Detections of all images as a table, with chances as confidence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from dataaudit.metrics import box_area, box_intersection, pairs_by_group
from dataaudit.signals.detector import Scene
from dataaudit.signals.detector.calibration import calibrated, matched
from dataaudit.signals.detector.decoding import Found
from dataaudit.types import CORNERS

__all__ = ["table_of"]

_INSIDE = 0.5
_LEAST = 0.005


def table_of(
    seen: Sequence[Found],
    scene: Scene,
    ids: pd.Index,
    sizes: npt.NDArray[np.float64],
    scale: npt.NDArray[np.float64],
) -> pd.DataFrame:
    """The signal `dataaudit.signals.detector.detections`.

    Args:
        seen: detections in each image.
        scene: the labels.
        ids: (n,) sample ids.
        sizes: (n, 2) width and height of the images in pixels.
        scale: (n, 2) of the pixels that `seen` speaks of to those of the image.
    """
    counts = [len(each.scores) for each in seen]
    images = np.repeat(np.arange(len(seen)), counts)
    boxes = np.concatenate([each.boxes for each in seen]).reshape(-1, 4) / np.tile(scale, 2)[images]
    boxes = np.clip(boxes, 0, np.tile(sizes, 2)[images])
    scores = np.concatenate([each.scores for each in seen])
    numbers = np.concatenate([each.classes for each in seen]).astype(np.int64)
    learnt = scene.weights > 0
    k = len(scene.classes)
    right = matched(
        images * k + numbers,
        boxes,
        scores,
        scene.images[learnt] * k + scene.numbers[learnt],
        scene.boxes[learnt],
    )
    outside = ~_covered(images, boxes, scene.images[~learnt], scene.boxes[~learnt])
    columns: dict[str, Any] = {
        "sample_id": ids.to_numpy(dtype=object)[images],
        "name": np.array(scene.classes, dtype=object)[numbers],
        "confidence": calibrated(scores, right, outside | right),
    }
    table = pd.DataFrame({**columns, **{name: boxes[:, place] for place, name in enumerate(CORNERS)}})
    return table[table["confidence"] >= _LEAST].reset_index(drop=True)


def _covered(
    images: npt.NDArray[np.int64],
    boxes: npt.NDArray[np.float64],
    regions_of: npt.NDArray[np.int64],
    regions: npt.NDArray[np.float64],
) -> npt.NDArray[np.bool_]:
    """Which boxes lie in an ignored region by half."""
    rows, there = pairs_by_group(images, regions_of)
    inside = box_intersection(boxes[rows], regions[there]) >= _INSIDE * np.maximum(
        box_area(boxes[rows]), 1e-9
    )
    covered = np.zeros(len(images), dtype=bool)
    covered[rows[inside]] = True
    return covered
