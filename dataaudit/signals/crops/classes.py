"""Features of the labeled boxes, from which their classes are told."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from dataaudit.cache import read_arrays, write_arrays
from dataaudit.decode import decode
from dataaudit.progress import bar
from dataaudit.sweep import pillow_set_up
from dataaudit.types import CORNERS

if TYPE_CHECKING:
    from dataaudit.signals.feature_maps import FeatureMaps, Maps
    from dataaudit.sweep import Embedder
    from dataaudit.types import Workplace

__all__ = ["crop_features", "geometry", "pooled_features"]

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

_WINDOWS = (1.0, 2.0)
"""Sides of the windows that are pooled, in sides of the box: the object, and the object in its place."""
_GRID = 4
_CONTEXT = 1.2
_LEAST_SIDE = 32.0  # pixels of a crop: of less the network makes nothing
_FULL = 2048
_IMAGES_AT_A_TIME = 64
_MOST_KEPT = 50_000
_NAME = "object-crops-lite0-v1.npz"


def geometry(boxes: pd.DataFrame, times: int) -> Floats:
    """(n, 5 x times): size, shape and place of boxes in their images, `times` times so that they count.

    Args:
        boxes: columns the corners, ``image_width`` and ``image_height``, in pixels.
        times: how often.
    """
    corners = boxes[list(CORNERS)].to_numpy(dtype=np.float64)
    sizes = boxes[["image_width", "image_height"]].to_numpy(dtype=np.float64)
    sides = np.maximum(corners[:, 2:] - corners[:, :2], 1e-9)
    part = np.log(np.maximum(sides / sizes, 1e-4))
    shape = np.log(np.clip(sides[:, 0] / sides[:, 1], 0.01, 100))
    middle = (corners[:, :2] + corners[:, 2:]) / (2 * sizes)
    return np.tile(np.column_stack([part, shape, middle]), (1, times)).astype(np.float32)


def pooled_features(boxes: pd.DataFrame, maps: FeatureMaps) -> Floats:
    """(n, 1416) means and deviations of the feature maps in the boxes, and means around them.

    Args:
        boxes: columns ``sample_id`` and the corners in pixels.
        maps: of their images.
    """
    result: Floats | None = None
    rows = boxes.groupby("sample_id", sort=False).indices
    corners = boxes[list(CORNERS)].to_numpy(dtype=np.float64)
    with bar("Looking at objects", shown=maps.workplace.progress) as update:
        for number, (sample_id, here) in enumerate(rows.items(), start=1):
            found = _pooled(maps.of(str(sample_id)), corners[here])
            if result is None:
                result = np.zeros((len(boxes), found.shape[1]), dtype=np.float32)
            result[here] = found
            if update is not None:
                update(number, len(rows))
    assert result is not None
    return result


def _pooled(maps: Maps, corners: Doubles) -> Floats:
    import torch
    from torch.nn import functional
    from torchvision.ops import roi_align

    from dataaudit.signals.feature_maps import STRIDES

    scaled = torch.from_numpy(corners * np.tile(maps.scale, 2)).float()
    middle, half = (scaled[:, :2] + scaled[:, 2:]) / 2, (scaled[:, 2:] - scaled[:, :2]) / 2
    parts = []
    for window in _WINDOWS:
        rois = torch.cat([torch.zeros(len(scaled), 1), middle - window * half, middle + window * half], 1)
        for level, stride in zip(maps.levels, STRIDES, strict=True):
            pooled = roi_align(
                torch.from_numpy(level.astype(np.float32))[None], rois, _GRID, 1 / stride, 2, True
            )
            moments = [pooled.mean((2, 3))]
            if window == 1:
                moments.append((pooled.var((2, 3)) + 1e-6).sqrt())
            # Each by itself, so that no level outweighs another
            parts += [functional.layer_norm(each, each.shape[1:]) for each in moments]
    return np.asarray(torch.cat(parts, 1).numpy())


def crop_features(boxes: pd.DataFrame, maps: FeatureMaps, workplace: Workplace) -> Floats:
    """(n, 1408) features of the crops of the boxes, with a margin; kept by the content of image and box.

    Args:
        boxes: columns ``sample_id`` and the corners in pixels.
        maps: of their images, for their files and digests.
        workplace: device and cache.
    """
    from dataaudit.signals.backbones import DEFAULT, backbone_named, embedder

    images = maps.ids.get_indexer(pd.Index(boxes["sample_id"]))
    corners = boxes[list(CORNERS)].to_numpy(dtype=np.float64)
    keys = _keys([maps.digests[row] for row in images.tolist()], corners)
    file = None if workplace.cache is None else workplace.cache / _NAME
    known = _read(file)
    waiting = np.flatnonzero(~pd.Index(keys).isin(known.index))
    if len(waiting):
        network = embedder(backbone_named(DEFAULT), device=workplace.device)
        features = np.empty((len(waiting), 0), dtype=np.float32)
        rows_of = pd.Series(np.arange(len(waiting))).groupby(images[waiting]).indices
        for rows, found in _embedded(maps, corners[waiting], rows_of, network, workplace.progress):
            if not features.shape[1]:
                features = np.empty((len(waiting), found.shape[1]), dtype=np.float32)
            features[rows] = found
        new = pd.DataFrame(features.astype(np.float16), index=pd.Index([keys[row] for row in waiting]))
        new = new[~new.index.duplicated()]
        known = new if not len(known) else pd.concat([known, new])
        _write(file, known)
    return known.loc[keys].to_numpy(dtype=np.float32)


def _embedded(
    maps: FeatureMaps, corners: Doubles, rows_of: Any, network: Embedder, progress: bool
) -> Iterator[tuple[npt.NDArray[np.int64], Floats]]:
    """The features of the crops of one image after the other, with their rows."""
    n_workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

    def one(image: int) -> tuple[npt.NDArray[np.int64], Floats]:
        rows = rows_of[image]
        return rows, _crops(Path(maps.filepaths[image]), corners[rows], network)

    images = list(rows_of)
    with (
        bar("Looking at objects", shown=progress) as update,
        pillow_set_up(),
        ThreadPoolExecutor(n_workers) as pool,
    ):
        for start in range(0, len(images), _IMAGES_AT_A_TIME):
            # A chunk at a time: after Ctrl-C no more than that is waited for.
            yield from pool.map(one, images[start : start + _IMAGES_AT_A_TIME])
            if update is not None:
                update(min(start + _IMAGES_AT_A_TIME, len(images)), len(images))


def _crops(file: Path, corners: Doubles, network: Embedder) -> Floats:
    found = decode(file.read_bytes(), size=_FULL)
    prepare: Callable[[Any], Any] = network.preprocess
    arrays = []
    if found.image is None:
        raise OSError(f"{file} can't be decoded any more: {found.error}")
    # A large JPEG may have been decoded at a reduced scale
    scale = found.image.width / found.width, found.image.height / found.height
    for x1, y1, x2, y2 in corners * np.tile(scale, 2):
        half = max((x2 - x1) * _CONTEXT, _LEAST_SIDE) / 2, max((y2 - y1) * _CONTEXT, _LEAST_SIDE) / 2
        x, y = (x1 + x2) / 2, (y1 + y2) / 2
        box = (round(x - half[0]), round(y - half[1]), round(x + half[0]), round(y + half[1]))
        arrays.append(prepare(found.image.crop(box)))
    batches = [
        np.stack(arrays[start : start + network.batch]) for start in range(0, len(arrays), network.batch)
    ]
    return np.concatenate([network.embed(batch) for batch in batches])


def _keys(digests: list[str], corners: Doubles) -> list[str]:
    # A hundredth of a pixel is more than the features can tell.
    rounded = np.round(corners * 100).astype(np.int64)
    return [
        hashlib.md5(f"{digest} {box}".encode(), usedforsecurity=False).hexdigest()
        for digest, box in zip(digests, rounded.tolist(), strict=True)
    ]


def _read(file: Path | None) -> pd.DataFrame:
    arrays = None if file is None else read_arrays(file)
    if (
        arrays is None
        or arrays.keys() != {"key", "features"}
        or len(arrays["key"]) != len(arrays["features"])
    ):
        return pd.DataFrame()
    return pd.DataFrame(arrays["features"], index=pd.Index(arrays["key"].tolist()))


def _write(file: Path | None, known: pd.DataFrame) -> None:
    if file is None:
        return
    latest = known.iloc[-_MOST_KEPT:]
    file.parent.mkdir(parents=True, exist_ok=True)
    write_arrays(file, {"key": np.array(latest.index, dtype=str), "features": latest.to_numpy()})
