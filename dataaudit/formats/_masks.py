"""Masks of FiftyOne's detections, which lie in the frame of their box."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["framed"]


def framed(mask: bytes, old: Sequence[float], new: Sequence[float]) -> bytes:
    """A mask in the frame of another box, so that it stays where it is in the image.

    Args:
        mask: as FiftyOne stores it.
        old: corners (x1, y1, x2, y2) of its box.
        new: corners of the new box; what lies outside is cut off, and the pixels stay as large.

    Returns:
        The new mask as FiftyOne stores it.
    """
    from fiftyone.core.utils import deserialize_numpy_array, serialize_numpy_array

    pixels: Any = deserialize_numpy_array(mask)
    columns, inside_x = _places(pixels.shape[1], (old[0], old[2]), (new[0], new[2]))
    rows, inside_y = _places(pixels.shape[0], (old[1], old[3]), (new[1], new[3]))
    moved = pixels[np.ix_(rows, columns)]
    moved[~inside_y] = 0
    moved[:, ~inside_x] = 0
    return bytes(serialize_numpy_array(moved))


def _places(n: int, old: tuple[float, float], new: tuple[float, float]) -> tuple[Any, Any]:
    """For each pixel of the new side the pixel of the old one at its place, and whether there is one."""
    width = old[1] - old[0]
    if width <= 0:
        return np.zeros(n, dtype=np.int64), np.zeros(n, dtype=bool)
    n_new = max(1, round(n * (new[1] - new[0]) / width))
    centres = new[0] + (np.arange(n_new) + 0.5) * (new[1] - new[0]) / n_new
    at = np.floor((centres - old[0]) / width * n).astype(np.int64)
    inside = (at >= 0) & (at < n)
    return np.clip(at, 0, n - 1), inside
