"""Whether two images show the same pixels in the same place."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from dataaudit.decode import decode

__all__ = ["Regions"]

Doubles = np.ndarray[Any, np.dtype[np.float64]]

_SIDE, _PATCH = 512, 32
_PADDING = 0.15
_CELL = 8
_FLAT = 4.0
_DIFFERENT = 0.35
_KEPT, _DECODED_AT_MOST = 16, 4000


class Regions:
    """Compares regions of images, which are decoded when they are first needed.

    Args:
        images: of the dataset.
        min_correlation: of the grey pixels of regions that are the same.
    """

    def __init__(self, images: pd.DataFrame, *, min_correlation: float = 0.97) -> None:
        self._paths, self._least = images["filepath"], min_correlation
        self._grey: OrderedDict[str, Image.Image | None] = OrderedDict()
        self._n_decoded = 0

    def same(self, one: str, other: str, box: Doubles) -> bool:
        """Whether two images agree in a box (4,), corners as shares of width and height, and around it.

        False where a file can't be read, and after some thousand files: a dataset of films has no end.
        """
        patches = []
        for sample_id in (one, other):
            grey = self._image(sample_id)
            if grey is None:
                return False
            patches.append(_patch(grey, box))
        a, b = patches
        if min(a.std(), b.std()) < _FLAT:
            return bool(np.abs(a - b).max() < 2 * _FLAT)
        correlation = float(np.corrcoef(a.ravel(), b.ravel())[0, 1])
        return correlation >= self._least and _largest_difference(a, b) <= _DIFFERENT

    def _image(self, sample_id: str) -> Image.Image | None:
        if sample_id not in self._grey:
            if self._n_decoded >= _DECODED_AT_MOST:
                return None
            self._n_decoded += 1
            self._grey[sample_id] = _read(Path(str(self._paths[sample_id])))
            if len(self._grey) > _KEPT:
                self._grey.popitem(last=False)
        return self._grey[sample_id]


def _largest_difference(a: Doubles, b: Doubles) -> float:
    """Largest difference in a part of two patches, once their brightness and contrast are the same.

    What moved may be small beside what stayed, so that the whole patches correlate.
    """
    rest = (a - a.mean()) / a.std() - (b - b.mean()) / b.std()
    n = _PATCH // _CELL
    cells = (rest**2).reshape(n, _CELL, n, _CELL).mean(axis=(1, 3))
    return float(np.sqrt(cells.max()))


def _read(path: Path) -> Image.Image | None:
    try:
        data = path.read_bytes()
    except OSError:
        return None
    image = decode(data, size=_SIDE).image
    if image is None:
        return None
    image = image.convert("L")
    image.thumbnail((_SIDE, _SIDE), Image.Resampling.BOX)
    return image


def _patch(grey: Image.Image, box: Doubles) -> Doubles:
    size = np.array([*grey.size, *grey.size], dtype=np.float64)
    pad = np.concatenate([box[:2] - box[2:], box[2:] - box[:2]]) * _PADDING
    x1, y1, x2, y2 = (np.clip(box + pad, 0, 1) * size).tolist()
    # A box outside the image has a patch of one pixel at its border
    x1, y1 = min(x1, size[0] - 1), min(y1, size[1] - 1)
    region = (x1, y1, max(x2, x1 + 1), max(y2, y1 + 1))
    patch = grey.resize((_PATCH, _PATCH), Image.Resampling.BOX, box=region)
    return np.asarray(patch, dtype=np.float64)
