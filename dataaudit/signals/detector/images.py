"""Images and objects as a detector of torchvision takes them; loads torch."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from dataaudit.decode import decode
from dataaudit.errors import InputError

__all__ = ["Images", "Shown"]

_THREADS = 8
_AHEAD = 2
_GREY = 124
_SMALLEST = 1.0


@dataclass(frozen=True, kw_only=True)
class Shown:
    """An image and what is to be found in it.

    Attributes:
        pixels: (3, h, w) uint8.
        boxes: (m, 4) float32 corners in these pixels.
        classes: (m,) int64 numbers from 1 on.
        scale: of these pixels to those of the file, along x and along y.
    """

    pixels: torch.Tensor
    boxes: torch.Tensor
    classes: torch.Tensor
    scale: tuple[float, float]

    def mirrored(self) -> Shown:
        """The same with left and right exchanged."""
        width = self.pixels.shape[2]
        boxes = torch.stack(
            [width - self.boxes[:, 2], self.boxes[:, 1], width - self.boxes[:, 0], self.boxes[:, 3]], dim=1
        )
        return Shown(pixels=self.pixels.flip(2), boxes=boxes, classes=self.classes, scale=self.scale)


class Images:
    """The images of a dataset, decoded ahead by threads, and kept as far as there is room.

    Args:
        filepaths: (n,) paths.
        sizes: (n, 2) width and height in pixels, as the sweep found them.
        boxes: (m, 4) corners in pixels of all objects.
        numbers: (m,) class number of each, -1 where nothing is to be learnt.
        owners: (m,) image of each.
        longest: pixels of the longer side that are enough.
        max_bytes: of the images that are kept.
    """

    def __init__(
        self,
        filepaths: Sequence[str],
        sizes: npt.NDArray[np.float64],
        *,
        boxes: npt.NDArray[np.float64],
        numbers: npt.NDArray[np.int64],
        owners: npt.NDArray[np.int64],
        longest: int,
        max_bytes: int,
    ) -> None:
        self._filepaths, self._sizes, self._longest, self._left = filepaths, sizes, longest, max_bytes
        self._boxes, self._numbers, self._owners = boxes, numbers, owners
        order = np.argsort(owners, kind="stable")
        ends = np.searchsorted(owners[order], np.arange(len(filepaths) + 1))
        self._rows = [order[start:end] for start, end in pairwise(ends.tolist())]
        self._known: dict[int, npt.NDArray[np.uint8]] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._filepaths)

    def batches(self, batches: Sequence[Sequence[int]]) -> Iterator[list[Shown]]:
        """Images by number, the next batches being decoded while one is used."""
        with ThreadPoolExecutor(_THREADS) as pool:
            waiting: list[list[Future[Shown]]] = []
            for numbers in batches:
                waiting.append([pool.submit(self.shown, number) for number in numbers])
                if len(waiting) > _AHEAD:
                    yield [each.result() for each in waiting.pop(0)]
            for futures in waiting:
                yield [each.result() for each in futures]

    def shown(self, number: int) -> Shown:
        """One image.

        Raises:
            InputError: its file isn't what it was when the audit began.
        """
        pixels = self._pixels(number)
        scale = np.array([pixels.shape[1], pixels.shape[0]]) / self._sizes[number]
        rows = self._rows[number]
        limits = np.tile([pixels.shape[1], pixels.shape[0]], 2)
        boxes = np.clip(self._boxes[rows] * np.tile(scale, 2), 0, limits)
        numbers = self._numbers[rows]
        if (numbers < 0).any():
            pixels = _painted(pixels, boxes, numbers >= 0)
        learnt = (numbers >= 0) & (boxes[:, 2:] - boxes[:, :2] >= _SMALLEST).all(1)
        return Shown(
            pixels=torch.from_numpy(pixels).permute(2, 0, 1),
            boxes=torch.from_numpy(boxes[learnt].astype(np.float32)),
            classes=torch.from_numpy(numbers[learnt] + 1),
            scale=(float(scale[0]), float(scale[1])),
        )

    def _pixels(self, number: int) -> npt.NDArray[np.uint8]:
        known = self._known.get(number)
        if known is not None:
            return known
        path = self._filepaths[number]
        found = decode(Path(path).read_bytes(), size=self._longest)
        if found.image is None or (found.width, found.height) != tuple(self._sizes[number]):
            raise InputError(
                f"The image changed while it was audited: {found.error or 'it has another size now'}.",
                where=path,
                fix="Audit again.",
            )
        image = found.image
        factor = self._longest / max(image.size)
        if factor < 1:
            wanted = tuple(max(1, round(side * factor)) for side in image.size)
            image = image.resize((wanted[0], wanted[1]), Image.Resampling.BILINEAR, reducing_gap=2.0)
        pixels = np.array(image, dtype=np.uint8)
        with self._lock:
            if pixels.nbytes <= self._left and number not in self._known:
                self._known[number] = pixels
                self._left -= pixels.nbytes
        return pixels


def _painted(pixels: npt.NDArray[np.uint8], boxes: npt.NDArray[Any], learnt: Any) -> npt.NDArray[np.uint8]:
    """Grey where nothing is to be learnt, but in objects that are."""
    hidden = np.zeros(pixels.shape[:2], dtype=bool)
    for group, value in ((boxes[~learnt], True), (boxes[learnt], False)):
        for x1, y1, x2, y2 in group.round().astype(int).tolist():
            hidden[y1:y2, x1:x2] = value
    return np.where(hidden[..., None], np.uint8(_GREY), pixels)
