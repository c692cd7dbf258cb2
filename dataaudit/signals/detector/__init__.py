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
from dataaudit.signals.box_films import cut_films
from dataaudit.signals.feature_maps import FeatureMaps
from dataaudit.types import CORNERS, Workplace

__all__ = ["Scene", "detections", "finetuned_detections"]

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

    Images that show the same picture are in the same fold, and so are runs of the frames of a film (see
    `dataaudit.signals.box_films`). Crowds and ignored regions are neither learnt nor
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
    folds = folds or _enough_folds(n_images)
    for name, value, least in (("folds", folds, 2), ("members", members, 1), ("epochs", epochs, 0)):
        if value < least:
            raise InputError(f"detections: {name} is {value}; expected {least} at least.")
    contents = pd.Series(list(feature_maps.digests), index=feature_maps.ids)
    groups = cut_films(near_duplicates, contents)
    scene = Scene.of(objects, groups, feature_maps.ids, folds=folds, seed=seed)
    if max_images and n_images > max_images:
        from dataaudit.signals.backbones import on_cpu

        if on_cpu(workplace.device):
            raise Unavailable(
                f"{n_images} images take long without a GPU; hand in your own predictions, or let the "
                f"baseline be trained: detections.max_images = {n_images}"
            )
    from dataaudit.signals.detector.running import found

    return found(scene, feature_maps, workplace, epochs=epochs, members=members, seed=seed)


@signal
def finetuned_detections(
    objects: pd.DataFrame,
    near_duplicates: pd.Series[int],
    images: pd.DataFrame,
    image_errors: pd.Series[str],
    workplace: Workplace,
    *,
    model: str = "fasterrcnn_mobilenet_v3_large_320_fpn",
    weights: str = "",
    pretrained: bool = True,
    folds: int = 0,
    epochs: int = 0,
    size: int = 0,
    batch_size: int = 8,
    learning_rate: float = 0.0,
    flip: bool = True,
    seed: int = 0,
    max_gib: float = 4.0,
) -> pd.DataFrame:
    """Objects found in each image by a detector of torchvision that was fine-tuned on other images.

    It is asked for with ``audit(..., detector="finetune")``: minutes on a GPU, hours on a CPU. Images that
    show the same picture are in the same fold. What lies in crowds and ignored regions is painted grey, so
    that it is neither learnt nor taken for background; a difficult object counts as any other. What is
    finished is kept, epoch by epoch: after Ctrl-C the next audit goes on from there.

    Args:
        objects: every labeled object.
        near_duplicates: group of each image.
        images: of the dataset, after the sweep.
        image_errors: reason for each file that can't be decoded.
        workplace: device, cache and progress.
        model: a detector of torchvision, such as ``fasterrcnn_mobilenet_v3_large_320_fpn``,
            ``ssdlite320_mobilenet_v3_large`` or ``retinanet_resnet50_fpn_v2``.
        weights: file of weights to begin with; empty: torchvision's, trained on COCO, downloaded once.
        pretrained: begin with weights; False begins with random ones.
        folds: how many detectors, each of which judges the images that it didn't see; 0 picks 5 for up to
            1,000 images and 3 for more.
        epochs: how often each image is learnt from; 0 picks a number by how many images there are.
        size: pixels of the shorter side; 0: the detector's own.
        batch_size: images a step.
        learning_rate: highest rate; 0: 1e-4 with weights, 1e-3 without.
        flip: mirror half of the images.
        seed: of folds, order and mirroring; on a CPU the same seed gives the same detections.
        max_gib: decoded images that are kept in memory.

    Returns:
        As `detections`.

    Raises:
        InputError: a setting out of range, no detector of that name, or no such file of weights.
        MissingDependencyError: the weights are neither here nor to be had.
        Unavailable: there are too few objects to learn from.
    """
    from dataaudit.signals.detector.settings import Settings

    settings = Settings(
        model=model, weights=weights, pretrained=pretrained, folds=folds, epochs=epochs, size=size,
        batch_size=batch_size, learning_rate=learning_rate, flip=flip, seed=seed, max_gib=max_gib,
    )  # fmt: skip
    readable = images[~images.index.isin(image_errors.index) & images["digest"].notna().to_numpy()]
    n_folds = folds or _enough_folds(len(readable))
    groups = cut_films(near_duplicates, readable["digest"])
    scene = Scene.of(objects, groups, readable.index, folds=n_folds, seed=seed)
    from dataaudit.signals.detector.finetuning import found

    return found(scene, readable, settings, workplace)


def _enough_folds(n_images: int) -> int:
    return _MANY_FOLDS if n_images <= _FEW_IMAGES else _FEW_FOLDS


@dataclass(frozen=True, kw_only=True)
class Scene:
    """The labels as the baseline takes them.

    Attributes:
        classes: (k,) names of those that have an object to learn from.
        images: (m,) number of the image of each object.
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
        objects: pd.DataFrame, near_duplicates: pd.Series[int], ids: pd.Index, *, folds: int, seed: int
    ) -> Scene:
        """Take what can be learnt from; see `detections`.

        Args:
            objects: every labeled object.
            near_duplicates: group of each image.
            ids: (n,) sample ids of the images that can be decoded.
            folds: how many.
            seed: of how they are dealt.

        Raises:
            Unavailable: too few objects to learn from, or too few different images.
        """
        images = ids.get_indexer(pd.Index(objects["sample_id"]))
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
        dealt = _dealt(images[learnt], numbers[learnt], near_duplicates, ids, folds, seed)
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
