"""The detection baseline: objects found in each image by a model that was trained on other images.

A small head is trained in folds on frozen feature maps, so that it takes minutes on a CPU. Its detections say
which objects have no box, and which boxes have no object or another place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from dataaudit.errors import InputError, Unavailable
from dataaudit.registry import signal
from dataaudit.signals.feature_maps import FeatureMaps
from dataaudit.types import CORNERS, Workplace

__all__ = ["Scene", "detections"]

_FEWEST = 20
_FEW_IMAGES = 1000
_MANY_FOLDS, _FEW_FOLDS = 5, 3
_DIFFICULT = 0.3
_SMALLEST = 1.0


@signal
def detections(
    objects: pd.DataFrame,
    near_duplicates: pd.Series[int],
    feature_maps: FeatureMaps,
    workplace: Workplace,
    *,
    folds: int = 0,
    epochs: int = 0,
    members: int = 1,
    max_images: int = 5000,
    seed: int = 0,
) -> pd.DataFrame:
    """Objects found in each image by a baseline that was trained on the labels of other images.

    Images that show the same picture are in the same fold. Crowds and ignored regions are neither learnt nor
    held against the baseline, and a difficult object counts for a third.

    Args:
        objects: every labeled object.
        near_duplicates: group of each image.
        feature_maps: of the frozen backbone.
        workplace: device and progress.
        folds: how many models, each of which judges the images that it didn't see; 0 picks 5 for up to 1,000
            images, which need what labels there are, and 3 for more.
        epochs: how often each image is learnt from; 0 picks a number by how many images there are.
        members: heads trained for each fold, whose opinions are averaged.
        max_images: with more images and without a GPU the baseline isn't trained; 0 sets no limit.
        seed: of folds, weights and order.

    Returns:
        Columns ``sample_id``, ``name``, ``confidence`` (the chance that it is an object of that class, by
        the labels as they are), and the corners in pixels; the most confident of each image first, 100 at
        most.

    Raises:
        InputError: fewer than 2 folds or no member.
        Unavailable: there are too few objects to learn from, or too many images for a CPU.
    """
    n_images = len(feature_maps.ids)
    folds = folds or (_MANY_FOLDS if n_images <= _FEW_IMAGES else _FEW_FOLDS)
    for name, value, least in (("folds", folds, 2), ("members", members, 1), ("epochs", epochs, 0)):
        if value < least:
            raise InputError(f"detections: {name} is {value}; expected {least} at least.")
    scene = Scene.of(objects, near_duplicates, feature_maps, folds=folds, seed=seed)
    if max_images and n_images > max_images:
        from dataaudit.signals.backbones import on_cpu

        if on_cpu(workplace.device):
            raise Unavailable(
                f"{n_images} images take long without a GPU; hand in your own predictions, or let the "
                f"baseline be trained: detections.max_images = {n_images}"
            )
    from dataaudit.signals.detector.running import found

    return found(scene, feature_maps, workplace, epochs=epochs, members=members, seed=seed)


@dataclass(frozen=True, kw_only=True)
class Scene:
    """The labels as the baseline takes them.

    Attributes:
        classes: (k,) names of those that have an object to learn from.
        images: (m,) position in ``FeatureMaps.ids`` of each object.
        boxes: (m, 4) corners in pixels.
        numbers: (m,) position in `classes`.
        weights: (m,) how much each counts; 0 where nothing is to be learnt, as in a crowd.
        folds: (n,) fold of each image.
    """

    classes: tuple[str, ...]
    images: npt.NDArray[np.int64]
    boxes: npt.NDArray[np.float64]
    numbers: npt.NDArray[np.int64]
    weights: npt.NDArray[np.float64]
    folds: npt.NDArray[np.int64]

    @staticmethod
    def of(
        objects: pd.DataFrame, near_duplicates: pd.Series[int], maps: FeatureMaps, *, folds: int, seed: int
    ) -> Scene:
        """Take what can be learnt from; see `detections`."""
        images = maps.ids.get_indexer(pd.Index(objects["sample_id"]))
        boxes = objects[list(CORNERS)].to_numpy(dtype=np.float64)
        with np.errstate(invalid="ignore"):
            sides = boxes[:, 2:] - boxes[:, :2]
            valid = np.isfinite(boxes).all(1) & (sides >= _SMALLEST).all(1) & (images >= 0)
        left_out = objects["crowd"].to_numpy(dtype=bool) | objects["ignore"].to_numpy(dtype=bool)
        weights = np.where(
            left_out, 0.0, np.where(objects["difficult"].to_numpy(dtype=bool), _DIFFICULT, 1.0)
        )
        learnt = valid & (weights > 0) & objects["name"].notna().to_numpy()
        if learnt.sum() < _FEWEST:
            raise Unavailable(
                f"there are {learnt.sum()} objects with a valid box; from {_FEWEST} on a detector can be "
                "trained. Hand in your own predictions"
            )
        names = objects["name"].to_numpy(dtype=object)
        classes = tuple(sorted(set(names[learnt])))
        rows = valid & (learnt | left_out)
        numbers = np.where(learnt, pd.Index(classes).get_indexer(pd.Index(names)), -1)
        dealt = _dealt(images[learnt], numbers[learnt], near_duplicates, maps.ids, folds, seed)
        return Scene(
            classes=classes,
            images=images[rows].astype(np.int64),
            boxes=boxes[rows],
            numbers=numbers[rows].astype(np.int64),
            weights=np.where(learnt, weights, 0.0)[rows],
            folds=dealt,
        )


def _dealt(
    images: npt.NDArray[Any],
    numbers: npt.NDArray[Any],
    near_duplicates: pd.Series[int],
    ids: pd.Index,
    n_folds: int,
    seed: int,
) -> npt.NDArray[np.int64]:
    """The fold of each image: pictures that are the same go together, classes are spread."""
    from dataaudit.signals.finetune.folds import folds_of

    groups = near_duplicates.reindex(ids).to_numpy(dtype=np.float64)
    unknown = np.isnan(groups)
    groups[unknown] = np.nanmax(groups, initial=0.0) + 1 + np.arange(unknown.sum())
    # An image counts for the rarest of its classes, so that each fold has some of them
    rarity = np.bincount(numbers)[numbers]
    order = np.lexsort((numbers, rarity, images))
    first = np.unique(images[order], return_index=True)
    given = np.full(len(ids), numbers.max(initial=0) + 1, dtype=np.int64)
    given[first[0]] = numbers[order][first[1]]
    _, compact = np.unique(groups, return_inverse=True)
    if compact.max(initial=0) + 1 < n_folds:
        raise Unavailable(f"{compact.max(initial=0) + 1} different images are too few for {n_folds} folds")
    return folds_of(given, compact.astype(np.int64), n_folds, seed=seed)
