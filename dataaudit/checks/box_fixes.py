"""Fixes of objects: proposed in pixels, written in the units of the dataset."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from dataaudit.signals.objects import image_sizes
from dataaudit.types import CORNERS, Box, Fix

__all__ = ["BoxFixes", "new_object_id"]

Pixels = Sequence[float]


class BoxFixes:
    """Makes fixes of single objects.

    Args:
        labels: of the dataset.
        images: of the dataset, after the sweep.
        units: of the corners in `labels`.
    """

    def __init__(self, labels: pd.DataFrame, images: pd.DataFrame, units: str) -> None:
        self._labels, self._images = labels, images
        self._sizes = image_sizes(images) if units == "relative" else None

    def relabel(self, label_id: str, new: str) -> Fix:
        """The object is of another class."""
        return Fix(op="relabel", new=new, **self._known(label_id))

    def remove(self, label_id: str) -> Fix:
        """There is no such object."""
        return Fix(op="remove", new=None, **self._known(label_id))

    def move(self, label_id: str, box: Pixels) -> Fix:
        """The object's box is another one, (x1, y1, x2, y2) in pixels."""
        known = self._known(label_id)
        return Fix(op="move", new=known["old"], box=self._in_units(known["sample_id"], box), **known)

    def add(self, sample_id: str, name: str, box: Pixels) -> Fix:
        """The image shows another object, (x1, y1, x2, y2) in pixels."""
        image: Any = self._images.loc[sample_id]
        return Fix(
            op="add",
            sample_id=sample_id,
            label_id=new_object_id(sample_id, box),
            locator=image["locator"],
            old=None,
            new=name,
            box=self._in_units(sample_id, box),
        )

    def _known(self, label_id: str) -> dict[str, Any]:
        row: Any = self._labels.loc[label_id]
        corners = tuple(float(row[corner]) for corner in CORNERS)
        return {
            "sample_id": row["sample_id"],
            "label_id": label_id,
            "locator": row["locator"],
            "old": row["name"],
            "old_box": corners if all(abs(corner) < float("inf") for corner in corners) else None,
        }

    def _in_units(self, sample_id: str, box: Pixels) -> Box:
        x1, y1, x2, y2 = (float(corner) for corner in box)
        if self._sizes is None:
            return x1, y1, x2, y2
        size: Any = self._sizes.loc[sample_id]
        width, height = float(size["width"]), float(size["height"])
        return x1 / width, y1 / height, x2 / width, y2 / height


def new_object_id(sample_id: str, box: Pixels) -> str:
    """The id of an object that isn't in the dataset yet: where it is, in whole pixels.

    >>> new_object_id("a.jpg", (10.2, 20, 30.7, 40))
    'a.jpg:+10,20,31,40'
    """
    return f"{sample_id}:+{','.join(str(round(corner)) for corner in box)}"
