"""What every place of an image says about objects: is one there, where are its sides, of which class is it.

A ridge regression from the frozen feature maps answers for each cell, held out by folds of images; with the
sums of each fold kept apart that needs no refits. A few hundred boxes are enough for it, as each of them has
many cells, and what it says is so little that a small network can learn the rest from the boxes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from dataaudit.progress import bar

if TYPE_CHECKING:
    from dataaudit.signals.feature_maps import FeatureMaps, Maps

__all__ = ["FIXED", "Dense", "dense"]

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

FIXED = 9
"""Channels that don't depend on the classes: an object is here; log distance to its left, upper, right and
lower side; and how near a side of each kind is."""

_COMPONENTS = 160
_WINDOWS = (3, 7)  # cells
_PENALTY = 5.0
_CELLS = 600
_SAMPLED_IMAGES = 200
_SAMPLED_CELLS = 100
_LIMIT = 6.0
_SMALL = 96.0


@dataclass(frozen=True, kw_only=True)
class Dense:
    """Held-out answers for every cell of every image.

    Attributes:
        stride: network pixels a cell.
        maps: for each image (9 + k, h, w) float16: the channels of `FIXED`, then the k classes.
    """

    stride: int
    maps: Sequence[npt.NDArray[np.float16]]


@dataclass(frozen=True, kw_only=True)
class _Basis:
    """Standardised features turned onto their leading components."""

    stride: int
    mean: Floats  # (472,)
    deviation: Floats  # (472,)
    vectors: Floats  # (472, c)

    def __call__(self, maps: Maps) -> Floats:
        """(cells, d): the components of each cell, their means around it, and 1."""
        from scipy.ndimage import uniform_filter

        shape = _shape(maps, self.stride)
        own = np.zeros((self.vectors.shape[1], *shape), dtype=np.float32)
        start = 0
        for level in _levels(maps, self.stride):
            here = slice(start, start + len(level))
            start += len(level)
            flat = level.reshape(len(level), -1).T
            scaled = np.clip((flat - self.mean[here]) / self.deviation[here], -_LIMIT, _LIMIT)
            # Turned before they are enlarged: there are fewer cells and fewer channels
            turned = (scaled @ self.vectors[here]).T.reshape(-1, *level.shape[1:])
            own += _enlarged(turned, shape)
        around = [uniform_filter(own, size=(1, window, window), mode="nearest") for window in _WINDOWS]
        ones = np.ones((1, *shape), dtype=np.float32)
        every = np.concatenate([own, *around, ones])
        return np.ascontiguousarray(every.reshape(len(every), -1).T)


@dataclass(kw_only=True)
class _Sums:
    """Of one regression: inner products of the features and with the targets, by fold."""

    features: Doubles  # (folds, d, d)
    targets: Doubles  # (folds, d, m)

    def add(self, fold: int, rows: Floats, targets: Floats) -> None:
        """Take some cells of an image of a fold."""
        self.features[fold] += rows.T @ rows
        self.targets[fold] += rows.T @ targets

    def without(self, fold: int) -> Floats:
        """(d, m) coefficients from the other folds."""
        features = self.features.sum(0) - self.features[fold]
        d = len(features)
        ridge = _PENALTY * float(np.diagonal(features)[:-1].mean())
        features[np.diag_indices(d)] += np.r_[np.full(d - 1, max(ridge, 1e-6)), 1e-3]
        targets = self.targets.sum(0) - self.targets[fold]
        return np.linalg.solve(features, targets).astype(np.float32)


def dense(
    maps: FeatureMaps, boxes: Sequence[Doubles], classes: Sequence[Ints], folds: Ints, n_classes: int
) -> Dense:
    """Learn and ask the regression.

    Args:
        maps: of n images.
        boxes: for each of them (m, 4) corners in network pixels.
        classes: for each of them the (m,) numbers of the classes, -1 for one without a channel.
        folds: (n,) fold of each image.
        n_classes: k, how many classes get a channel.
    """
    rng = np.random.default_rng(0)
    basis = _basis(maps, _stride(boxes), rng)
    n_folds = int(folds.max()) + 1
    d = basis.vectors.shape[1] * (1 + len(_WINDOWS)) + 1

    def sums(m: int) -> _Sums:
        return _Sums(features=np.zeros((n_folds, d, d)), targets=np.zeros((n_folds, d, m)))

    presence, distance = sums(FIXED - 4 + n_classes), sums(4)
    n = len(maps.ids)
    with bar("Learning what objects look like", shown=maps.workplace.progress) as update:
        for row, sample_id in enumerate(maps.ids):
            found = maps.of(sample_id)
            height, width = _shape(found, basis.stride)
            cells = rng.permutation(height * width)[:_CELLS]
            middles = np.stack([cells % width, cells // width], axis=1).astype(np.float64) + 0.5
            features = basis(found)[cells]
            there, far, inside = _targets(
                middles * basis.stride, boxes[row], classes[row], basis.stride, n_classes
            )
            presence.add(int(folds[row]), features, there)
            distance.add(int(folds[row]), features[inside], far)
            if update is not None:
                update(row + 1, 2 * n)
        fitted = [_together(presence.without(fold), distance.without(fold)) for fold in range(n_folds)]
        answers = []
        for row, sample_id in enumerate(maps.ids):
            found = maps.of(sample_id)
            height, width = _shape(found, basis.stride)
            said = (basis(found) @ fitted[int(folds[row])]).T.reshape(-1, height, width)
            answers.append(said.astype(np.float16))
            if update is not None:
                update(n + row + 1, 2 * n)
    return Dense(stride=basis.stride, maps=answers)


def _together(presence: Floats, distance: Floats) -> Floats:
    return np.concatenate([presence[:, :1], distance, presence[:, 1:]], axis=1)


def _stride(boxes: Sequence[Doubles]) -> int:
    every = np.concatenate(list(boxes))
    sides = np.sqrt(np.maximum((every[:, 2:] - every[:, :2]).prod(1), 0))
    return 8 if float(np.median(sides)) < _SMALL else 16


def _shape(maps: Maps, stride: int) -> tuple[int, int]:
    """Cells along y and x."""
    _, height, width = maps.levels[0].shape
    return height * 8 // stride, width * 8 // stride


def _levels(maps: Maps, stride: int) -> list[Floats]:
    """The three levels (c, h, w), none of them finer than the stride."""
    eighth, sixteenth, thirtieth = (level.astype(np.float32) for level in maps.levels)
    if stride > 8:
        c, h, w = eighth.shape
        eighth = eighth.reshape(c, h // 2, 2, w // 2, 2).mean((2, 4))
    return [eighth, sixteenth, thirtieth]


def _enlarged(level: Floats, shape: tuple[int, int]) -> Floats:
    """(c, h, w) -> (c, *shape), in between linear."""
    if level.shape[1:] == shape:
        return level
    import torch
    from torch.nn import functional

    larger = functional.interpolate(torch.from_numpy(level)[None], size=shape, mode="bilinear")
    return larger[0].numpy()


def _basis(maps: FeatureMaps, stride: int, rng: np.random.Generator) -> _Basis:
    n = len(maps.ids)
    rows = np.sort(rng.choice(n, min(n, _SAMPLED_IMAGES), replace=False))
    sampled = []
    for row in rows:
        found = maps.of(maps.ids[row])
        shape = _shape(found, stride)
        cells = rng.integers(shape[0] * shape[1], size=_SAMPLED_CELLS)
        parts = []
        for level in _levels(found, stride):
            times = shape[0] // level.shape[1]
            parts.append(level[:, cells // shape[1] // times, cells % shape[1] // times].T)
        sampled.append(np.concatenate(parts, axis=1))
    values = np.concatenate(sampled)
    mean, deviation = values.mean(0), values.std(0) + 1e-3
    scaled = np.clip((values - mean) / deviation, -_LIMIT, _LIMIT)
    _, vectors = np.linalg.eigh((scaled.T @ scaled / len(scaled)).astype(np.float64))
    kept = np.ascontiguousarray(vectors[:, ::-1][:, :_COMPONENTS], dtype=np.float32)
    return _Basis(stride=stride, mean=mean, deviation=deviation, vectors=kept)


def _targets(
    middles: Doubles, boxes: Doubles, classes: Ints, stride: int, n_classes: int
) -> tuple[Floats, Floats, npt.NDArray[np.bool_]]:
    """What should be said of cells.

    Args:
        middles: (c, 2) x and y of the cells in network pixels.
        boxes: (m, 4).
        classes: (m,).
        stride: network pixels a cell.
        n_classes: k.

    Returns:
        (c, 5 + k) object, sides, classes; (i, 4) log distances of the cells in a box; (c,) which those are.
    """
    there = np.zeros((len(middles), FIXED - 4 + n_classes), dtype=np.float32)
    if not len(boxes):
        return there, np.zeros((0, 4), dtype=np.float32), np.zeros(len(middles), dtype=bool)
    sides = boxes[:, 2:] - boxes[:, :2]
    before = middles[:, None] - boxes[None, :, :2]
    after = boxes[None, :, 2:] - middles[:, None]
    within = (before > 0) & (after > 0)
    is_in = np.asarray(within.all(2))
    inside = np.asarray(is_in.any(1))
    there[:, 0] = inside
    # A side is met along its box, and blurred by a tenth of it.
    along = (before > -stride / 2) & (after > -stride / 2)
    blur = np.maximum(sides * 0.06, 10.0 * stride / 16)
    for axis in (0, 1):
        met = along[:, :, 1 - axis]
        for number, gap in ((1 + axis, before), (3 + axis, after)):
            near = np.exp(-0.5 * (gap[:, :, axis] / blur[:, axis]) ** 2)
            there[:, number] = (near * met).max(1)
    for number in range(n_classes):
        own = classes == number
        there[:, FIXED - 4 + number] = is_in[:, own].any(1)
    # Of several boxes around a cell the smallest is in front.
    smallest = np.where(is_in, sides.prod(1)[None], np.inf).argmin(1)
    rows = np.flatnonzero(inside)
    gaps = np.concatenate([before[rows, smallest[rows]], after[rows, smallest[rows]]], axis=1)
    return there, np.log(np.maximum(gaps, 1.0)).astype(np.float32), inside
