"""Judging the labeled boxes from their pixels, without a detector: what is in them, and where it is."""

from __future__ import annotations

import numpy as np
import pandas as pd

from dataaudit.errors import Unavailable
from dataaudit.registry import signal
from dataaudit.signals.box_films import cut_films
from dataaudit.signals.crops.chances import with_chances
from dataaudit.signals.crops.classes import crop_features, geometry, pooled_features
from dataaudit.signals.crops.regression import BoxJudge, group_numbers, learn, usable
from dataaudit.signals.feature_maps import FeatureMaps
from dataaudit.signals.probabilities import pred_probs
from dataaudit.signals.spectrum import neighbors, spectrum
from dataaudit.types import CORNERS, Workplace

__all__ = ["BoxJudge", "box_judge", "box_regressions", "object_probs"]

_GEOMETRY = 20


@signal
def box_judge(
    objects: pd.DataFrame,
    near_duplicates: pd.Series[int],
    feature_maps: FeatureMaps,
    *,
    max_images: int = 10_000,
) -> BoxJudge:
    """What the labeled boxes say about what fits an object, ready to judge any box.

    Each image is judged by what the boxes of other images say, near-duplicates left out with it: cells of the
    frozen feature maps are asked by ridge regression whether an object is there and where its sides are, and
    a small network, trained on moved copies of the boxes, reads from the cells around a box, and from where
    other labels are, how well it fits and how it should be moved.

    Args:
        objects: every labeled object.
        near_duplicates: group of each image.
        feature_maps: of the images.
        max_images: with more images than this boxes aren't judged.

    Raises:
        Unavailable: fewer than 20 usable boxes, or 10 images with one; or too many images.
    """
    n_images = len(feature_maps.ids)
    if n_images > max_images:
        raise Unavailable(
            f"{n_images} images are more than box_judge.max_images = {max_images}; set it higher for the "
            "places of boxes to be judged"
        )
    return learn(objects, feature_maps, _without_films(near_duplicates, feature_maps))


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


@signal
def object_probs(
    objects: pd.DataFrame,
    near_duplicates: pd.Series[int],
    feature_maps: FeatureMaps,
    workplace: Workplace,
    *,
    max_crops: int = 3000,
    max_objects: int = 100_000,
) -> pd.DataFrame:
    """Out-of-sample probability of each class for each labeled box.

    A box is described by the frozen feature maps in it and around it, by its size, shape and place, and,
    where there are few boxes, by its crop as the network sees it. Ridge regression and neighbours leave the
    boxes of the same picture out when they judge it, as those of whole images do (see `pred_probs`).

    Args:
        objects: every labeled object.
        near_duplicates: group of each image.
        feature_maps: of the images.
        workplace: device and cache.
        max_crops: with more boxes than this the crops are left out: they are more accurate, and take about a
            second for 150 on two cores.
        max_objects: with more boxes than this they aren't judged.

    Returns:
        (n, k) float32 rows that sum to 1; index: label ids, in the order of `objects`; columns: the classes
        that have labels. NaN for crowds, objects to be ignored, boxes without an area in an image that can be
        read, and the only boxes of their class.

    Raises:
        Unavailable: fewer than two classes that several images have, or too many boxes.
    """
    chosen = objects[usable(objects, feature_maps)]
    if len(chosen) > max_objects:
        raise Unavailable(
            f"{len(chosen)} boxes are more than object_probs.max_objects = {max_objects}; set it higher for "
            "their classes to be judged"
        )
    if chosen["name"].nunique() < 2:
        raise Unavailable("all objects are of one class")
    parts = [pooled_features(chosen, feature_maps), geometry(chosen, _GEOMETRY)]
    if len(chosen) <= max_crops:
        parts.append(crop_features(chosen, feature_maps, workplace))
    described = spectrum(pd.DataFrame(np.concatenate(parts, axis=1), index=chosen.index))
    apart = _without_films(near_duplicates, feature_maps)
    groups = group_numbers(pd.Index(chosen["sample_id"]), apart)
    numbers: pd.Series[int] = pd.Series(groups, index=chosen.index, dtype="int64")
    given = pd.DataFrame({"sample_id": chosen.index, "name": chosen["name"].to_numpy()})
    return pred_probs(described, neighbors(described), numbers, given).reindex(objects.index)


def _without_films(near_duplicates: pd.Series[int], maps: FeatureMaps) -> pd.Series[int]:
    return cut_films(near_duplicates, pd.Series(list(maps.digests), index=maps.ids))
