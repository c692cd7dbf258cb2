"""Which sizes and shapes the boxes of each class have."""

from __future__ import annotations

from dataclasses import dataclass
from math import lgamma, log, pi
from typing import Any

import numpy as np
import pandas as pd

from dataaudit.types import CORNERS

__all__ = ["Sizes", "is_cut", "shapes"]

Doubles = np.ndarray[Any, np.dtype[np.float64]]
Ints = np.ndarray[Any, np.dtype[np.int64]]
Bools = np.ndarray[Any, np.dtype[np.bool_]]

_WEIGHT = 5.0
"""How many objects the other classes count as, for each class."""
_FREEDOM = 4.0
"""Degrees of freedom of the t distribution that location and spread are taken from: outliers weigh little."""
_ROUNDS = 15
_ENOUGH = 5000
_LEAST_SPREAD = 0.05
_BORDER = 0.01
_LONGER = np.array([[0.5, 1.0], [0.5, -1.0]])
"""What a larger width and a larger height change in a shape."""


def shapes(corners: Doubles, size: Doubles) -> Doubles:
    """Size and shape of boxes, the same in any resolution.

    Args:
        corners: (n, 4) pixels.
        size: (n, 2) width and height of the image in pixels.

    Returns:
        (n, 2): logarithm of the side, as a share of the image's (half the log of the share of its area), and
        of width over height.
    """
    sides = np.maximum(corners[:, 2:] - corners[:, :2], 1e-9)
    share = np.log(sides / size)
    return np.stack([share.mean(1), np.log(sides[:, 0] / sides[:, 1])], axis=1)


def is_cut(objects: pd.DataFrame) -> Bools:
    """(n, 2) whether the width and the height of each object may be larger than its box shows.

    So it is where the box ends at the border of the image, or the object is said to be truncated or occluded.
    """
    corners = objects[list(CORNERS)].to_numpy(dtype=np.float64)
    size = objects[["image_width", "image_height"]].to_numpy(dtype=np.float64)
    margin = _BORDER * size
    with np.errstate(invalid="ignore"):
        at_border = (corners[:, :2] <= margin) | (corners[:, 2:] >= size - margin)
    return np.asarray(at_border | (objects["truncated"] | objects["occluded"]).to_numpy(dtype=bool)[:, None])


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """A bivariate t distribution of the shapes of each class, drawn towards that of all classes.

    Attributes:
        mean: (k, 2).
        spread: (k, 2, 2) covariances; of a class with few objects they hold how far classes differ.
    """

    mean: Doubles
    spread: Doubles

    @classmethod
    def fit(cls, values: Doubles, names: Ints, k: int) -> Sizes:
        """Fit to shapes (n, 2) and numbers (n,) of classes below `k`; a part of large classes is enough."""
        part = _part(names, k)
        values, names = values[part], names[part]
        everyone = np.zeros(len(values), dtype=np.int64)
        none = np.zeros(2), np.diag([1.0, 0.25])
        middle, total = (each[0] for each in _fitted(values, everyone, 1, *none))
        mean, within = _fitted(values, names, k, middle, total)
        n = np.bincount(names, minlength=k).astype(np.float64)
        if n.sum() and k > 1:
            # Once more, towards the spread within classes instead of that of all objects
            pooled = np.einsum("k,kij->ij", n / n.sum(), within)
            mean, within = _fitted(values, names, k, middle, pooled)
            away = mean - middle
            between = np.einsum("k,ki,kj->ij", np.minimum(n, 20.0), away, away) / np.minimum(n, 20.0).sum()
        else:
            between = np.zeros((2, 2))
        return cls(mean=mean, spread=within + between * (_WEIGHT / (n + _WEIGHT))[:, None, None])

    def distances(self, values: Doubles, names: Ints, cut: Bools | None = None) -> Doubles:
        """(n,) squared Mahalanobis distance of each shape from its class.

        Args:
            values: (n, 2) shapes.
            names: (n,) numbers of their classes.
            cut: (n, 2) whether the width and the height may be larger than can be seen; then the nearest such
                shape counts.
        """
        away = values - self.mean[names]
        inverse = _inverse(self.spread)[names]
        for column, more in enumerate(_LONGER if cut is not None else ()):
            direction = np.broadcast_to(more, away.shape)
            slope = np.einsum("ni,nij,nj->n", direction, inverse, away)
            bend = np.einsum("ni,nij,nj->n", direction, inverse, direction)
            longer = np.where(cut[:, column] if cut is not None else False, np.maximum(-slope / bend, 0), 0)
            away = away + longer[:, None] * direction
        return _distances(away, inverse)

    def log_density(self, values: Doubles, names: Ints) -> Doubles:
        """(n,) logarithm of the density of each shape in its class."""
        scale = np.log(np.linalg.det(self.spread))[names] / 2
        return np.asarray(_log_t(self.distances(values, names), 2) - scale)

    def log_density_along(self, values: Doubles, names: Ints, side: Ints) -> Doubles:
        """(n,) logarithm of the density of each box's width (`side` 0) or height (1) in its class."""
        direction = np.array([[1.0, 0.5], [1.0, -0.5]])[side]
        spread = np.einsum("ni,nij,nj->n", direction, self.spread[names], direction)
        away = np.einsum("ni,ni->n", direction, values - self.mean[names])
        return np.asarray(_log_t(away**2 / spread, 1) - np.log(spread) / 2)


def _part(names: Ints, k: int) -> Bools:
    """(n,) an even choice of the objects of each class, `_ENOUGH` or somewhat more of each."""
    n = np.bincount(names, minlength=k)
    order = np.argsort(names, kind="stable")
    place = np.empty(len(names), dtype=np.int64)
    place[order] = np.arange(len(names)) - np.repeat(np.cumsum(n) - n, n)
    return np.asarray(place % np.maximum(n // _ENOUGH, 1)[names] == 0)


def _log_t(squared: Doubles, dimensions: int) -> Doubles:
    """Logarithm of the density of a standard t distribution at a squared distance."""
    f, d = _FREEDOM, dimensions
    scale = lgamma((f + d) / 2) - lgamma(f / 2) - d / 2 * log(f * pi)
    return np.asarray(scale - (f + d) / 2 * np.log1p(squared / f))


def _fitted(values: Doubles, names: Ints, k: int, middle: Doubles, total: Doubles) -> tuple[Doubles, Doubles]:
    """Mean (k, 2) and covariance (k, 2, 2) of each class, drawn towards `middle` and `total`."""
    mean, spread = np.tile(middle, (k, 1)), np.tile(total, (k, 1, 1))
    n = np.bincount(names, minlength=k).astype(np.float64)
    single = k == 1
    pull = 1e-3 if single else _WEIGHT
    if single and len(values):
        mean[0] = np.median(values, axis=0)
    for _ in range(_ROUNDS):
        away = values - mean[names]
        weight = (_FREEDOM + 2) / (_FREEDOM + _distances(away, _inverse(spread)[names]))
        weights = np.bincount(names, weights=weight, minlength=k)
        sums = np.stack([np.bincount(names, weights=weight * values[:, j], minlength=k) for j in (0, 1)], 1)
        mean = (sums + pull * middle) / (weights + pull)[:, None]
        away = values - mean[names]
        products = [
            np.bincount(names, weights=weight * away[:, i] * away[:, j], minlength=k)
            for i, j in ((0, 0), (0, 1), (0, 1), (1, 1))
        ]
        scatter = np.stack(products, 1).reshape(k, 2, 2)
        spread = (scatter + _WEIGHT * total) / (n + _WEIGHT)[:, None, None]
        spread = spread + np.eye(2) * _LEAST_SPREAD**2
    return mean, spread


def _inverse(spread: Doubles) -> Doubles:
    return np.asarray(np.linalg.inv(spread), dtype=np.float64)


def _distances(away: Doubles, inverse: Doubles) -> Doubles:
    # Written out: einsum over (n, 2, 2) takes several times as long
    x, y = away[:, 0], away[:, 1]
    return np.asarray(inverse[:, 0, 0] * x * x + 2 * inverse[:, 0, 1] * x * y + inverse[:, 1, 1] * y * y)
