"""Judging the labeled boxes from their pixels, without a detector: what is in them, and where it is."""

from __future__ import annotations

import numpy as np
import pandas as pd

from dataaudit.registry import signal
from dataaudit.signals.crops.chances import with_chances
from dataaudit.signals.crops.regression import BoxJudge, learn
from dataaudit.signals.feature_maps import FeatureMaps
from dataaudit.types import CORNERS

__all__ = ["BoxJudge", "box_judge", "box_regressions"]


@signal
def box_judge(objects: pd.DataFrame, near_duplicates: pd.Series[int], feature_maps: FeatureMaps) -> BoxJudge:
    """What the labeled boxes say about what fits an object, ready to judge any box.

    Each image is judged by what the boxes of other images say, near-duplicates left out with it: cells of the
    frozen feature maps are asked by ridge regression whether an object is there and where its sides are, and
    a small network, trained on moved copies of the boxes, reads from the cells around a box, and from where
    other labels are, how well it fits and how it should be moved.

    Args:
        objects: every labeled object.
        near_duplicates: group of each image.
        feature_maps: of the images.

    Raises:
        Unavailable: fewer than 20 usable boxes, or 10 images with one.
    """
    return learn(objects, feature_maps, near_duplicates)


@signal
def box_regressions(objects: pd.DataFrame, box_judge: BoxJudge) -> pd.DataFrame:
    """Where the object of each labeled box seems to be, judged by the boxes of other images.

    Args:
        objects: every labeled object.
        box_judge: what the boxes say about what fits an object.

    Returns:
        Index label id, in the order of `objects`; columns ``x1``, ``y1``, ``x2``, ``y2``: where the object
        seems to be, in pixels; ``fit`` and ``fit_there``: IoU with an object of its own that is expected of
        the box as it is and of the box there; ``spread``: how far several starts led apart, in [0, 1];
        ``misplaced`` and ``spurious``: calibrated chances that the box is on an object but with an IoU below
        0.75, and that it is on none; ``iou``: expected IoU of the box with its object. NaN for the objects
        that are crowds or to be ignored, and those without an area in an image that can be read.
    """
    corners = objects[list(CORNERS)].to_numpy(dtype=np.float64)
    whole = ~(objects["crowd"].to_numpy(dtype=bool) | objects["ignore"].to_numpy(dtype=bool))
    whole &= objects["name"].notna().to_numpy()
    corners = np.where(whole[:, None], corners, np.nan)
    judged = box_judge.judge(objects["sample_id"], objects["name"], corners, objects.index)
    return with_chances(box_judge, judged, corners).set_axis(objects.index)
