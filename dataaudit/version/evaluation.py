"""Average precision of detections as COCO measures it, and how sure it is: by drawing the images again."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from dataaudit.types import CORNERS

__all__ = ["N_DRAWS", "Evaluation", "draws", "evaluate"]

N_DRAWS = 500
THRESHOLDS = np.linspace(0.5, 0.95, 10)
_RECALLS = np.linspace(0.0, 1.0, 101)
_NO_AREA = -1.0
"""COCO's evaluation takes objects whose area is out of its range as neither missed nor found."""

Doubles = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class _OfClass:
    """Detections of a class, surest first: their image, and at each threshold whether right and counted."""

    image: Ints
    right: Bools
    counts: Bools
    objects: Ints  # the image of each object that can be missed


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Detections matched with objects.

    Attributes:
        classes: those that have objects, in the order of the rows of `precision`.
        n_images: how many images were looked at.
        n_objects: how many objects of each class can be missed.
        precision: (k, 10) average precision of each class at the IoU thresholds 0.5, 0.55, ..., 0.95.
    """

    classes: tuple[str, ...]
    n_images: int
    n_objects: tuple[int, ...]
    precision: Doubles
    _matches: tuple[_OfClass, ...]

    @property
    def map(self) -> float:
        """Mean average precision over classes and thresholds; NaN without objects."""
        return _mean(self.precision)

    @property
    def ap50(self) -> float:
        """Mean average precision at IoU 0.5; NaN without objects."""
        return _mean(self.precision[:, 0])

    def drawn(self, weights: npt.NDArray[np.int64]) -> tuple[Doubles, Doubles]:
        """The figures if the images were others.

        Args:
            weights: (draws, n_images) how often each image is there.

        Returns:
            `map` and `ap50` of each draw, (draws,) each.
        """
        found = np.stack([_precision(each, weights) for each in self._matches], axis=1)
        with np.errstate(invalid="ignore"):
            known = ~np.isnan(found)
            totals, n = np.where(known, found, 0.0).sum(axis=1), known.sum(axis=1)
            means = totals / n
        return means.mean(axis=1), means[:, 0]


def _mean(values: Doubles) -> float:
    return float(values.mean()) if values.size else float("nan")


def draws(n_images: int, n: int = N_DRAWS, seed: int = 0) -> npt.NDArray[np.int64]:
    """How often each image is there if as many are drawn with replacement, (n, n_images)."""
    random = np.random.default_rng(seed)
    return random.multinomial(n_images, np.full(n_images, 1 / n_images), size=n)


def evaluate(objects: pd.DataFrame, detections: pd.DataFrame, samples: Sequence[str]) -> Evaluation:
    """Match detections with objects, class by class, surest detection first.

    Args:
        objects: boxes in pixels, columns ``sample_id``, ``name``, the corners and ``crowd``, ``ignore``,
            ``difficult``. Detections in a crowd of their class or in an ignored region of any are not
            counted; difficult objects are neither missed nor found.
        detections: columns ``sample_id``, ``name``, ``confidence`` and the corners in pixels; of each image
            and class the 100 surest count.
        samples: the images to look at; what is on others is left out.

    Reference:
        T.-Y. Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014, with the matching of
        pycocotools over all sizes.
    """
    numbers = pd.Index(list(samples))
    objects, detections = (_on(table, numbers) for table in (objects, detections))
    classes = pd.Index(sorted(set(objects["name"]) | set(detections["name"])))
    with contextlib.redirect_stdout(io.StringIO()):
        matched = _matched(
            _ground_truth(objects, detections, classes), _results(detections, classes), numbers, classes
        )
    kept = [number for number, each in enumerate(matched) if len(each.objects)]
    once = np.ones((1, len(numbers)), dtype=np.int64)
    precision = [_precision(matched[number], once)[0] for number in kept]
    return Evaluation(
        classes=tuple(str(classes[number]) for number in kept),
        n_images=len(numbers),
        n_objects=tuple(len(matched[number].objects) for number in kept),
        precision=np.array(precision, dtype=np.float64).reshape(-1, len(THRESHOLDS)),
        _matches=tuple(matched[number] for number in kept),
    )


def _on(table: pd.DataFrame, samples: pd.Index[Any]) -> pd.DataFrame:
    """What is on these images and has a box, with the number of its image."""
    image: Ints = samples.get_indexer(pd.Index(table["sample_id"]))
    corners = table[list(CORNERS)].to_numpy(dtype=np.float64)
    kept: Bools = (
        (image >= 0) & np.isfinite(corners).all(axis=1) & (corners[:, 2:] > corners[:, :2]).all(axis=1)
    )
    return table[kept].assign(image=image[kept])


def _ground_truth(objects: pd.DataFrame, detections: pd.DataFrame, classes: pd.Index[Any]) -> dict[str, Any]:
    ignored = objects["ignore"].to_numpy(dtype=bool)
    plain = objects[~ignored]
    crowd = plain["crowd"].to_numpy(dtype=bool)
    difficult = plain["difficult"].to_numpy(dtype=bool)
    boxes = _xywh(plain)
    area = np.where(difficult, _NO_AREA, boxes[:, 2] * boxes[:, 3])
    columns = (plain["image"], classes.get_indexer(pd.Index(plain["name"])), boxes, crowd, area)
    rows = [
        {"image_id": image, "category_id": name, "bbox": box, "iscrowd": int(is_crowd), "area": size}
        for image, name, box, is_crowd, size in zip(*(_list(column) for column in columns), strict=True)
    ]
    # A region to be ignored is one for every class that is detected in its image
    regions = objects[ignored].assign(box=_list(_xywh(objects[ignored])))
    there = detections[["image", "name"]].drop_duplicates()
    both = regions[["image", "box"]].merge(there, on="image")
    numbers = classes.get_indexer(pd.Index(both["name"]))
    rows += [
        {"image_id": image, "category_id": int(name), "bbox": box, "iscrowd": 1, "area": box[2] * box[3]}
        for image, name, box in zip(both["image"].tolist(), numbers, both["box"], strict=True)
    ]
    return {"annotations": [{"id": number, **row} for number, row in enumerate(rows, start=1)]}


def _results(detections: pd.DataFrame, classes: pd.Index[Any]) -> list[dict[str, Any]]:
    names = classes.get_indexer(pd.Index(detections["name"]))
    columns = (detections["image"], names, _xywh(detections), detections["confidence"])
    return [
        {"image_id": image, "category_id": name, "bbox": box, "score": score}
        for image, name, box, score in zip(*(_list(column) for column in columns), strict=True)
    ]


def _xywh(table: pd.DataFrame) -> Doubles:
    corners = table[list(CORNERS)].to_numpy(dtype=np.float64)
    return np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)


def _list(column: Any) -> list[Any]:
    found: list[Any] = column.tolist()
    return found


def _matched(
    truth: dict[str, Any], results: list[dict[str, Any]], images: pd.Index[Any], classes: pd.Index[Any]
) -> list[_OfClass]:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    known = COCO()
    known.dataset = {
        "images": [{"id": number} for number in range(len(images))],
        "categories": [{"id": number, "name": str(name)} for number, name in enumerate(classes)],
        **truth,
    }
    known.createIndex()
    if not results:
        of_class: list[list[int]] = [[] for _ in classes]
        for row in truth["annotations"]:
            if not row["iscrowd"] and row["area"] != _NO_AREA:
                of_class[row["category_id"]].append(row["image_id"])
        return [_of_class([], objects) for objects in of_class]
    judge = COCOeval(known, known.loadRes(results), "bbox")
    judge.params.iouThrs = THRESHOLDS
    judge.params.areaRng, judge.params.areaRngLbl = [[0.0, 1e15]], ["all"]
    judge.evaluate()
    n = len(images)
    found = []
    for number in range(len(classes)):
        mine = [each for each in judge.evalImgs[number * n : (number + 1) * n] if each is not None]
        objects = [each["image_id"] for each in mine for ignored in each["gtIgnore"] if not ignored]
        found.append(_of_class(mine, objects))
    return found


def _of_class(matches: Sequence[dict[str, Any]], objects: Sequence[int]) -> _OfClass:
    """The detections of a class in all images, surest first."""
    n = [len(each["dtScores"]) for each in matches]
    scores = np.concatenate([np.empty(0), *(each["dtScores"] for each in matches)])
    image = np.repeat(np.array([each["image_id"] for each in matches], dtype=np.int64), n)
    nothing = np.empty((len(THRESHOLDS), 0), dtype=bool)
    right = np.concatenate([nothing, *(each["dtMatches"] > 0 for each in matches)], axis=1)
    ignored = np.concatenate([nothing, *(each["dtIgnore"].astype(bool) for each in matches)], axis=1)
    order = np.argsort(-scores, kind="stable")
    return _OfClass(
        image=image[order],
        right=(right & ~ignored).T[order],
        counts=~ignored.T[order],
        objects=np.array(objects, dtype=np.int64),
    )


def _precision(found: _OfClass, weights: npt.NDArray[np.int64]) -> Doubles:
    """Average precision in each draw at each threshold, (draws, 10); NaN where a draw has no object."""
    n = weights[:, found.objects].sum(axis=1)
    result = np.full((len(weights), len(THRESHOLDS)), np.nan)
    for row in np.flatnonzero(n).tolist():
        weight = weights[row, found.image][:, None]
        right = np.cumsum(weight * found.right, axis=0)
        counted = np.cumsum(weight * found.counts, axis=0)
        precision = np.divide(right, counted, out=np.zeros(right.shape), where=counted > 0)
        precision = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
        precision = np.concatenate([precision, np.zeros((1, len(THRESHOLDS)))])
        for column in range(len(THRESHOLDS)):
            at = np.searchsorted(right[:, column] / n[row], _RECALLS, side="left")
            result[row, column] = precision[at, column].mean()
    return result
