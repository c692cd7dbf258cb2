"""Pairs of boxes in one image, and how far they are apart."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from dataaudit.metrics import pairs_by_group
from dataaudit.types import CORNERS

__all__ = [
    "Boxes",
    "Pairs",
    "apart_as_pieces",
    "crowding",
    "edges_apart",
    "groups",
    "sound_boxes",
    "ways_of_pieces",
]

Doubles = np.ndarray[Any, np.dtype[np.float64]]
Ints = np.ndarray[Any, np.dtype[np.int64]]
Bools = np.ndarray[Any, np.dtype[np.bool_]]

WIDEST = 0.8
"""Pairs that are farther apart than this share of their sides aren't looked at."""
NEIGHBORS = 0.02
"""Neighbours of a box that are added to those seen, as any dataset may have some."""
_CLASS_WEIGHT, _IMAGE_WEIGHT = 50.0, 10.0
"""How many boxes with as many close neighbours as usual are added to those of a class and of an image."""
_FARTHEST = 1e9
"""Corners beyond this many pixels are mistakes that no figure can be made of."""
_PAIRS_AT_A_TIME = 2_000_000


def sound_boxes(objects: pd.DataFrame) -> Bools:
    """(n,) whether each object is a box with an area that stands for one object."""
    corners = objects[list(CORNERS)].to_numpy(dtype=np.float64)
    with np.errstate(invalid="ignore"):
        sound = (np.abs(corners) < _FARTHEST).all(1) & (corners[:, 2:] > corners[:, :2]).all(1)
    meant = ~(objects["crowd"] | objects["ignore"]).to_numpy(dtype=bool)
    return np.asarray(sound & meant & objects["name"].notna().to_numpy())


def edges_apart(one: Doubles, other: Doubles) -> Doubles:
    """(p,) largest deviation of the edges of two boxes, as a share of their mean sides."""
    sides = (one[:, 2:] - one[:, :2] + other[:, 2:] - other[:, :2]) / 2
    return np.asarray((np.abs(one - other) / np.concatenate([sides, sides], axis=1)).max(1, initial=0))


def apart_as_pieces(one: Doubles, other: Doubles) -> Doubles:
    """(p,) how far two boxes are from being two halves of a box, as a share of the box around both."""
    beside, above = ways_of_pieces(one, other)
    return np.asarray(np.minimum(beside, above))


def ways_of_pieces(one: Doubles, other: Doubles) -> tuple[Doubles, Doubles]:
    """The same for pieces side by side, and one above the other."""
    low, high = np.minimum(one[:, :2], other[:, :2]), np.maximum(one[:, 2:], other[:, 2:])
    sides = high - low
    ends = np.maximum(np.abs(one[:, :2] - other[:, :2]), np.abs(one[:, 2:] - other[:, 2:])) / sides
    gap = np.maximum(one[:, :2], other[:, :2]) - np.minimum(one[:, 2:], other[:, 2:])
    gap = np.where(gap > 0, gap, -gap / 2) / sides
    return np.maximum(ends[:, 1], gap[:, 0]), np.maximum(ends[:, 0], gap[:, 1])


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Pairs of boxes in one image: positions in `Boxes`, and how far they are apart."""

    a: Ints
    b: Ints
    apart: Doubles


@dataclass(frozen=True, kw_only=True)
class Boxes:
    """The sound boxes, image by image.

    Attributes:
        rows: position of each in the table of objects.
        corners: (n, 4).
        image: number of its image, ascending.
        name: number of its class.
        size: (n, 2) width and height of its image.
    """

    rows: Ints
    corners: Doubles
    size: Doubles
    image: Ints
    name: Ints

    @classmethod
    def of(cls, objects: pd.DataFrame) -> Boxes:
        """Those of the signal `objects`."""
        rows = np.flatnonzero(sound_boxes(objects))
        image = pd.factorize(objects["sample_id"])[0][rows].astype(np.int64)
        order = np.argsort(image, kind="stable")
        rows = rows[order]
        return cls(
            rows=rows,
            corners=objects[list(CORNERS)].to_numpy(dtype=np.float64)[rows],
            size=objects[["image_width", "image_height"]].to_numpy(dtype=np.float64)[rows],
            image=image[order],
            name=pd.factorize(objects["name"])[0][rows].astype(np.int64),
        )

    def pairs(self, *, same_class: bool, apart: Callable[[Doubles, Doubles], Doubles] = edges_apart) -> Pairs:
        """The pairs that are less than `WIDEST` apart."""
        parts = []
        for a, b in self._chunks():
            fits = (a < b) & ((self.name[a] == self.name[b]) == same_class)
            a, b = a[fits], b[fits]
            d = apart(self.corners[a], self.corners[b])
            near = d <= WIDEST
            parts.append((a[near], b[near], d[near]))
        if not parts:
            nothing = np.zeros(0, dtype=np.int64)
            return Pairs(a=nothing, b=nothing, apart=np.zeros(0))
        return Pairs(
            **{
                key: np.concatenate(part)
                for key, part in zip(("a", "b", "apart"), zip(*parts, strict=True), strict=True)
            }
        )

    def _chunks(self) -> Iterator[tuple[Ints, Ints]]:
        """Ordered pairs of boxes in one image, so many at a time that they fit."""
        first = np.searchsorted(self.image, self.image, side="left")
        last = np.searchsorted(self.image, self.image, side="right")
        done = np.cumsum(last - first)
        start = 0
        while start < len(self.rows):
            before = done[start - 1] if start else 0
            end = max(int(np.searchsorted(done, before + _PAIRS_AT_A_TIME, side="right")), start + 1)
            low, high = int(first[start]), int(last[end - 1])
            a, b = pairs_by_group(self.image[start:end], self.image[low:high])
            yield a + start, b + low
            start = end


def crowding(boxes: Boxes, pairs: Pairs, least: float) -> Doubles:
    """(p,) how many times more close pairs the image of each pair has than all images, by its classes too."""
    bulk = pairs.apart >= least
    a, b = pairs.a[bulk], pairs.b[bulk]

    def counted(group: Ints) -> tuple[Doubles, Doubles]:
        n = np.bincount(group).astype(np.float64)
        close = np.bincount(group[a], minlength=len(n)) + np.bincount(group[b], minlength=len(n))
        return n, close / 2

    mean = (len(a) + 0.5) / len(boxes.rows) + NEIGHBORS
    n, close = counted(boxes.name)
    of_class = (close + _CLASS_WEIGHT * mean) / (n + _CLASS_WEIGHT)
    n, close = counted(boxes.image)
    expected = np.bincount(boxes.image, weights=of_class[boxes.name], minlength=len(n)) / np.maximum(n, 1)
    of_image = (close + _IMAGE_WEIGHT * expected) / (n + _IMAGE_WEIGHT)
    return np.asarray(of_image[boxes.image[pairs.a]] / mean)


def groups(a: Ints, b: Ints) -> Iterator[tuple[str, list[int]]]:
    """Number and members, ascending, of each group of rows that pairs connect."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    rows, at = np.unique(np.concatenate([a, b]), return_inverse=True)
    links = (np.ones(len(a)), (at[: len(a)], at[len(a) :]))
    _, group = connected_components(coo_matrix(links, shape=(len(rows), len(rows))), directed=False)
    order = np.argsort(group, kind="stable")
    parts = np.split(rows[order], np.flatnonzero(np.diff(group[order])) + 1) if len(rows) else []
    for number, members in enumerate(parts, start=1):
        yield str(number), members.tolist()
