"""The objects of a detection dataset, all in pixels of the image as shown."""

from __future__ import annotations

import numpy as np
import pandas as pd

from dataaudit.errors import Unavailable
from dataaudit.registry import signal
from dataaudit.types import CORNERS, FLAGS

__all__ = ["image_sizes", "in_pixels", "objects"]

_FAR = 1e12


@signal
def objects(images: pd.DataFrame, labels: pd.DataFrame, task: str, units: str) -> pd.DataFrame:
    """Every labeled object with its box in pixels.

    Args:
        images: of the dataset, after the sweep.
        labels: of the dataset.
        task: of the dataset.
        units: of the corners in `labels`.

    Returns:
        Index label id, in the order of `labels`; columns ``sample_id``, ``name``, ``geometry``, the corners
        ``x1``, ``y1``, ``x2``, ``y2`` (float64 pixels; NaN where they can't be read or the size of the image
        isn't known), ``image_width``, ``image_height`` (float64 pixels, NaN where they aren't known) and the
        booleans ``crowd``, ``ignore``, ``difficult``, ``truncated``, ``occluded``.

    Raises:
        Unavailable: the dataset has no boxes.
    """
    if task != "detection":
        raise Unavailable("the dataset has no boxes")
    sizes = image_sizes(images)
    rows = images.index.get_indexer(pd.Index(labels["sample_id"]))
    width, height = sizes["width"].to_numpy()[rows], sizes["height"].to_numpy()[rows]
    corners = labels[list(CORNERS)].to_numpy(dtype=np.float64)
    if units == "relative":
        corners = corners * np.stack([width, height, width, height], axis=1)
    # Areas of numbers that no image has room for would overflow
    corners = np.where(np.isfinite(corners), np.clip(corners, -_FAR, _FAR), corners)
    table = pd.DataFrame(corners, columns=list(CORNERS), index=labels.index)
    known = labels[["sample_id", "name", "geometry"]]
    found = pd.concat([known, table], axis=1).assign(image_width=width, image_height=height)
    return found.assign(**{flag: labels[flag].to_numpy(dtype=bool) for flag in FLAGS})


def in_pixels(table: pd.DataFrame, images: pd.DataFrame) -> pd.DataFrame:
    """A table of boxes with corners in pixels, of one with corners relative to the images.

    Args:
        table: columns ``sample_id`` and the corners; rows of images whose size isn't known go.
        images: of the dataset, after the sweep.
    """
    sizes = image_sizes(images).to_numpy()[images.index.get_indexer(pd.Index(table["sample_id"]))]
    corners = table[list(CORNERS)].to_numpy(dtype=np.float64) * np.tile(sizes, 2)
    made = table.assign(**{name: corners[:, number] for number, name in enumerate(CORNERS)})
    found: pd.DataFrame = made[np.isfinite(corners).all(axis=1)].reset_index(drop=True)
    return found


def image_sizes(images: pd.DataFrame) -> pd.DataFrame:
    """Width and height of each image in pixels, from the image or else as the annotations say.

    Args:
        images: of the dataset.

    Returns:
        Index sample id; columns ``width`` and ``height``, float64, NaN where nothing says.
    """
    sizes = {}
    for side in ("width", "height"):
        own = images[side].astype("Float64").to_numpy(dtype=np.float64, na_value=np.nan)
        own = np.where(own > 0, own, np.nan)
        said = images[f"declared_{side}"].astype("Float64").to_numpy(dtype=np.float64, na_value=np.nan)
        sizes[side] = np.where(np.isnan(own), np.where(said > 0, said, np.nan), own)
    return pd.DataFrame(sizes, index=images.index)
