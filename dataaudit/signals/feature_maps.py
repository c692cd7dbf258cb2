"""Feature maps of whole images, from which objects are found and judged.

They are those of EfficientNet-Lite0, frozen, at strides 8, 16 and 32, and are kept by content: a picture goes
through the network once, however often the baseline is trained on it.
"""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from PIL import Image

from dataaudit.decode import decode
from dataaudit.errors import InputError
from dataaudit.progress import bar
from dataaudit.registry import signal
from dataaudit.types import Workplace

if TYPE_CHECKING:
    from torch import nn

__all__ = ["CHANNELS", "STRIDES", "FeatureMaps", "Maps", "feature_maps", "network_size"]

Halves = np.ndarray[Any, np.dtype[np.float16]]
Run = Callable[[np.ndarray[Any, Any]], list[Halves]]

STRIDES = (8, 16, 32)
CHANNELS = (40, 112, 320)
_VERSION = 1
_MULTIPLE = 32
_LARGEST = 65_000.0
_CHUNK = 64
_USUAL = 640
_SMALL = {32: 1.5, 20: 2.0}  # network pixels below which the median object is small, and how much larger then
_FEW_IMAGES = 400  # of the usual size, on a CPU


@dataclass(frozen=True, kw_only=True)
class Maps:
    """Feature maps of one image.

    Attributes:
        levels: float16 arrays (40, h / 8, w / 8), (112, h / 16, w / 16) and (320, h / 32, w / 32), for a
            picture of h x w network pixels. Cell (i, j) of a level of stride s is about the network pixels
            from (s j, s i) to (s (j + 1), s (i + 1)).
        scale: network pixels per pixel of the image, along x and along y. They differ a little, since both
            sides are a multiple of 32 network pixels.
    """

    levels: tuple[Halves, ...]
    scale: tuple[float, float]


@dataclass(kw_only=True, eq=False)
class FeatureMaps:
    """The feature maps of the images that can be decoded; computed when they are first asked for.

    Attributes:
        ids: (n,) sample ids.
        filepaths: (n,) absolute paths.
        digests: (n,) MD5 of the files.
        sizes: (n, 2) width and height of the images in pixels.
        size: network pixels of the longer side.
        workplace: where maps are kept and computed.
        max_bytes: maps that take more in all aren't kept, but computed each time.
    """

    ids: pd.Index
    filepaths: Sequence[str]
    digests: Sequence[str]
    sizes: np.ndarray[Any, np.dtype[np.float64]]
    size: int
    workplace: Workplace
    max_bytes: int
    _memory: dict[str, Halves] = field(default_factory=dict, init=False, repr=False)
    _network: _Network | None = field(default=None, init=False, repr=False)

    @property
    def n_bytes(self) -> int:
        """Bytes that all maps take."""
        pictures = {
            digest: network_size(width, height, self.size)
            for digest, (width, height) in zip(self.digests, self.sizes.tolist(), strict=True)
        }
        return sum(2 * _length(picture) for picture in pictures.values())

    @property
    def are_kept(self) -> bool:
        """Whether there is room to keep the maps."""
        return self.n_bytes <= self.max_bytes

    def of(self, sample_id: str) -> Maps:
        """The maps of an image.

        The first call computes those of all images that aren't known, unless there is no room to keep them.

        Raises:
            KeyError: the image can't be decoded, or there is none of that name.
            InputError: its file isn't what it was when the audit began.
        """
        row = int(self.ids.get_indexer(pd.Index([sample_id]))[0])
        if row < 0:
            raise KeyError(sample_id)
        digest = self.digests[row]
        width, height = self.sizes[row].tolist()
        picture = network_size(width, height, self.size)
        flat = self._known(digest, picture)
        if flat is None and self.are_kept:
            self.compute()
            flat = self._known(digest, picture)
        if flat is None:
            flat = self._computed(row)
        scale = picture[0] / width, picture[1] / height
        return Maps(levels=_levels(flat, picture), scale=scale)

    def compute(self) -> None:
        """Compute and keep the maps of all images that aren't known; what is done is kept after Ctrl-C."""
        pictures = [network_size(width, height, self.size) for width, height in self.sizes.tolist()]
        waiting = {
            digest: row
            for row, (digest, picture) in enumerate(zip(self.digests, pictures, strict=True))
            if not self._has(digest, picture)
        }
        if not waiting:
            return
        rows = sorted(waiting.values())
        n_workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        with (
            bar("Mapping images", shown=self.workplace.progress) as update,
            ThreadPoolExecutor(n_workers) as pool,
        ):
            for start in range(0, len(rows), _CHUNK):
                here = rows[start : start + _CHUNK]
                # A chunk at a time: after Ctrl-C no more than that is waited for.
                for row, flat in zip(here, pool.map(self._computed, here), strict=True):
                    self._keep(self.digests[row], flat)
                if update is not None:
                    update(start + len(here), len(rows))

    def _computed(self, row: int) -> Halves:
        data = Path(self.filepaths[row]).read_bytes()
        found = decode(data, size=self.size)
        if found.image is None or (found.width, found.height) != tuple(self.sizes[row]):
            raise InputError(
                f"The image changed while it was audited: {found.error or 'it has another size now'}.",
                where=self.filepaths[row],
                fix="Audit again.",
            )
        picture = network_size(found.width, found.height, self.size)
        pixels = np.asarray(found.image.resize(picture, Image.Resampling.BILINEAR, reducing_gap=2.0))
        if self._network is None:
            with _FIRST:
                if self._network is None:
                    self._network = _Network(self.workplace.device)
        return np.concatenate([level.ravel() for level in self._network(pixels[None])])

    def _file(self, digest: str) -> Path | None:
        if self.workplace.cache is None:
            return None
        name = f"feature-maps-lite0-{self.size}-v{_VERSION}"
        return self.workplace.cache / name / digest[:2] / f"{digest}.npy"

    def _has(self, digest: str, picture: tuple[int, int]) -> bool:
        file = self._file(digest)
        if file is None:
            return digest in self._memory
        try:
            # The header of a flat array takes 128 bytes
            return file.stat().st_size == 128 + 2 * _length(picture)
        except OSError:
            return False

    def _known(self, digest: str, picture: tuple[int, int]) -> Halves | None:
        file = self._file(digest)
        if file is None:
            return self._memory.get(digest)
        try:
            flat = np.load(file, allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None
        return flat if flat.shape == (_length(picture),) and flat.dtype == np.float16 else None

    def _keep(self, digest: str, flat: Halves) -> None:
        file = self._file(digest)
        if file is None:
            self._memory[digest] = flat
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_name(f"{digest}-{uuid.uuid4().hex}.part")
        with part.open("wb") as stream:
            np.save(stream, flat)
        part.replace(file)


@signal
def feature_maps(
    images: pd.DataFrame,
    image_errors: pd.Series[str],
    workplace: Workplace,
    objects: pd.DataFrame | None = None,
    *,
    size: int = 0,
    max_bytes: int = 8 * 2**30,
) -> FeatureMaps:
    """Frozen feature maps of each image that can be decoded, at strides 8, 16 and 32.

    Args:
        images: of the dataset, after the sweep.
        image_errors: reason for each file that can't be decoded.
        workplace: device and cache.
        objects: every labeled object, whose size decides where `size` is 0.
        size: network pixels of the longer side; the other one keeps the aspect, to a multiple of 32. 0: 640,
            or half as many more, or twice as many, where half of the objects would be smaller than 32 or 20
            network pixels, and there is a GPU or the images are few.
        max_bytes: maps that take more in all aren't kept, but computed each time that they are needed.

    Returns:
        The maps, which are computed when they are first asked for.

    Raises:
        InputError: a size below 32.
    """
    if size and size < _MULTIPLE:
        raise InputError(f"feature_maps: size is {size}; expected {_MULTIPLE} network pixels at least.")
    readable = images[~images.index.isin(image_errors.index) & images["digest"].notna().to_numpy()]
    sizes = readable[["width", "height"]].to_numpy(dtype=np.float64).reshape(-1, 2)
    return FeatureMaps(
        ids=readable.index,
        filepaths=readable["filepath"].tolist(),
        digests=readable["digest"].tolist(),
        sizes=sizes,
        size=size or _size_for(objects, readable.index, sizes, workplace.device),
        workplace=workplace,
        max_bytes=max_bytes,
    )


def _size_for(
    objects: pd.DataFrame | None, ids: pd.Index, sizes: np.ndarray[Any, np.dtype[np.float64]], device: str
) -> int:
    """Network pixels of the longer side: more where objects are small, as far as a CPU has the time."""
    if objects is None or not len(objects):
        return _USUAL
    from dataaudit.signals.backbones import on_cpu

    rows = ids.get_indexer(pd.Index(objects["sample_id"]))
    sides = [(objects[f"{axis}2"] - objects[f"{axis}1"]).clip(lower=0) for axis in "xy"]
    area = (sides[0] * sides[1]).to_numpy(dtype=np.float64)
    with np.errstate(invalid="ignore"):
        fine = (rows >= 0) & (area > 0)
    if not fine.any():
        return _USUAL
    median = np.median(np.sqrt(area[fine]) * _USUAL / sizes[rows[fine]].max(1))
    size = _USUAL
    for below, factor in _SMALL.items():
        if median < below and (len(ids) * factor**2 <= _FEW_IMAGES or not on_cpu(device)):
            size = round(_USUAL * factor)
    return size


def network_size(width: float, height: float, size: int) -> tuple[int, int]:
    """Width and height in network pixels of an image: multiples of 32, the longer one about `size`.

    >>> network_size(1920, 1080, 640)
    (640, 352)
    """
    factor = size / max(width, height)
    sides = (max(1, round(side * factor / _MULTIPLE)) * _MULTIPLE for side in (width, height))
    return next(sides), next(sides)


def _length(picture: tuple[int, int]) -> int:
    cells = [(picture[0] // stride) * (picture[1] // stride) for stride in STRIDES]
    return sum(channels * n for channels, n in zip(CHANNELS, cells, strict=True))


def _levels(flat: Halves, picture: tuple[int, int]) -> tuple[Halves, ...]:
    levels, start = [], 0
    for stride, channels in zip(STRIDES, CHANNELS, strict=True):
        shape = channels, picture[1] // stride, picture[0] // stride
        end = start + shape[0] * shape[1] * shape[2]
        levels.append(flat[start:end].reshape(shape))
        start = end
    return tuple(levels)


_FIRST = threading.Lock()


class _Network:
    """Runs the network on one picture at a time; called from several threads."""

    def __init__(self, device: str) -> None:
        from dataaudit.signals.backbones import Backbone, compile_openvino, on_cpu

        self._device, self._local, self._lock = device, threading.local(), threading.Lock()
        self._compiled: Any = None
        if on_cpu(device):
            backbone = Backbone(
                name=f"efficientnet_lite0-maps-v{_VERSION}", preprocess=np.asarray, build=_build, size=0
            )
            self._compiled = compile_openvino(
                backbone, np.zeros((1, 64, 64, 3), dtype=np.uint8), [1, -1, -1, 3]
            )
            # The bindings fill static tables at the first call, which two threads mustn't make at once.
            self(np.zeros((1, 64, 64, 3), dtype=np.uint8))
        else:
            from dataaudit.signals.backbones import pick_device

            self._device = pick_device(device)
            self._module = _build().to(self._device)

    def __call__(self, picture: np.ndarray[Any, Any]) -> list[Halves]:
        """(1, h, w, 3) uint8 -> the levels, each (1, c, h / stride, w / stride) float16."""
        if self._compiled is not None:
            request = getattr(self._local, "request", None)
            if request is None:
                request = self._local.request = self._compiled.create_infer_request()
            found = request.infer({0: picture}, share_inputs=True)
            return [_half(found[number]) for number in range(len(STRIDES))]
        import torch

        with self._lock, torch.inference_mode():
            levels = self._module(torch.from_numpy(picture).to(self._device))
            return [_half(level.float().cpu().numpy()) for level in levels]


def _half(values: np.ndarray[Any, Any]) -> Halves:
    halves: Halves = np.clip(values, -_LARGEST, _LARGEST).astype(np.float16)
    return halves


def _build() -> nn.Module:
    from dataaudit.signals.networks.lite import Levels, load_lite

    return Levels(load_lite(0)).eval()
