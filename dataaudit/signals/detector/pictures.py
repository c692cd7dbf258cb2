"""Images as the head takes them: maps at some strides, and the objects to be learnt."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from dataaudit.signals.feature_maps import CHANNELS, STRIDES, FeatureMaps

__all__ = ["Batch", "Objects", "Pictures", "level_of", "strides_for"]

_MEASURED = 100
_SMALL, _TINY = 5.0, 1.5
_COARSER = 6.0
_MAX_BYTES = 2**30
_LARGEST = 6e4


@dataclass(frozen=True, kw_only=True)
class Objects:
    """The objects of one image.

    Attributes:
        boxes: (m, 4) float32 corners in network pixels.
        classes: (m,) int64 numbers.
        weights: (m,) float32, how much each counts.
        ignored: (q, 4) float32 corners of regions where nothing is learnt.
    """

    boxes: np.ndarray[tuple[int, int], np.dtype[np.float32]]
    classes: np.ndarray[tuple[int], np.dtype[np.int64]]
    weights: np.ndarray[tuple[int], np.dtype[np.float32]]
    ignored: np.ndarray[tuple[int, int], np.dtype[np.float32]]


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Some images side by side, filled up to the largest.

    Attributes:
        maps: for each stride s of the head, finest first, (b, c, h / s, w / s): its own channels after those
            of the finer strides.
        boxes, classes, weights: (b, m, 4), (b, m) and (b, m), as in `Objects`.
        exist: (b, m) bool, False where an image has fewer objects.
        ignored: (b, q, 4); empty boxes where an image has fewer.
        sizes: (b, 2) height and width of each picture in network pixels.
    """

    maps: tuple[torch.Tensor, ...]
    boxes: torch.Tensor
    classes: torch.Tensor
    weights: torch.Tensor
    exist: torch.Tensor
    ignored: torch.Tensor
    sizes: torch.Tensor

    def to(self, device: str) -> Batch:
        """The same on a device."""
        if device == "cpu":
            return self
        return Batch(
            maps=tuple(each.to(device) for each in self.maps),
            boxes=self.boxes.to(device),
            classes=self.classes.to(device),
            weights=self.weights.to(device),
            exist=self.exist.to(device),
            ignored=self.ignored.to(device),
            sizes=self.sizes.to(device),
        )


class Pictures:
    """The images of a dataset for a head; called from several threads.

    Args:
        maps: the feature maps.
        objects: of each image, in the order of ``maps.ids``.
        strides: of the head, finest first, the last one 32.
    """

    def __init__(self, maps: FeatureMaps, objects: Sequence[Objects], strides: Sequence[int]) -> None:
        self.maps, self.objects, self.strides = maps, objects, tuple(strides)
        self._known: dict[int, tuple[torch.Tensor, ...]] = {}
        self._bytes, self._lock = 0, threading.Lock()
        self._mean, self._deviation = self._moments()

    def __len__(self) -> int:
        return len(self.objects)

    def inputs(self, number: int) -> tuple[torch.Tensor, ...]:
        """Standardised float16 maps of an image, as in `Batch` but without the first axis."""
        known = self._known.get(number)
        if known is not None:
            return known
        levels = self.maps.of(self.maps.ids[number]).levels
        values = [
            (torch.from_numpy(level).float() - mean) / deviation
            for level, mean, deviation in zip(levels, self._mean, self._deviation, strict=True)
        ]
        made = tuple(
            torch.cat(
                [
                    _pooled(each, own, stride)
                    for each, own in zip(values, STRIDES, strict=True)
                    if own <= stride
                ]
            )
            .clamp(-_LARGEST, _LARGEST)
            .half()
            for stride in self.strides
        )
        size = sum(each.numel() * 2 for each in made)
        with self._lock:
            if self._bytes + size <= _MAX_BYTES and number not in self._known:
                self._known[number] = made
                self._bytes += size
        return made

    def size(self, number: int) -> tuple[int, int]:
        """Height and width in network pixels."""
        shape = self.inputs(number)[0].shape
        return shape[1] * self.strides[0], shape[2] * self.strides[0]

    def batch(self, numbers: Sequence[int], mirrored: Sequence[bool]) -> Batch:
        """Images with their objects.

        Args:
            numbers: (b,) of the images.
            mirrored: (b,) whether each is shown with left and right exchanged.
        """
        inputs = [self.inputs(number) for number in numbers]
        sizes = [self.size(number) for number in numbers]
        objects = [
            _mirrored(self.objects[number], size[1]) if mirror else self.objects[number]
            for number, size, mirror in zip(numbers, sizes, mirrored, strict=True)
        ]
        m = max(1, *(len(each.boxes) for each in objects))
        q = max(1, *(len(each.ignored) for each in objects))
        boxes, ignored = (
            np.zeros((len(numbers), m, 4), np.float32),
            np.zeros((len(numbers), q, 4), np.float32),
        )
        classes, weights = np.zeros((len(numbers), m), np.int64), np.zeros((len(numbers), m), np.float32)
        exist = np.zeros((len(numbers), m), bool)
        for row, each in enumerate(objects):
            n = len(each.boxes)
            boxes[row, :n], classes[row, :n], weights[row, :n] = each.boxes, each.classes, each.weights
            exist[row, :n] = True
            ignored[row, : len(each.ignored)] = each.ignored
        return Batch(
            maps=_joined(inputs, mirrored),
            boxes=torch.from_numpy(boxes),
            classes=torch.from_numpy(classes),
            weights=torch.from_numpy(weights),
            exist=torch.from_numpy(exist),
            ignored=torch.from_numpy(ignored),
            sizes=torch.tensor(sizes),
        )

    def _moments(self) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Mean and deviation of each channel over some of the images, (c, 1, 1) for each stride."""
        step = max(1, len(self.objects) // _MEASURED)
        sums = [torch.zeros(2, channels) for channels in CHANNELS]
        n_images = 0
        for number in range(0, len(self.objects), step):
            n_images += 1
            for total, level in zip(sums, self.maps.of(self.maps.ids[number]).levels, strict=True):
                values = torch.from_numpy(level).float().flatten(1)
                total += torch.stack([values.mean(1), values.square().mean(1)])
        mean = [total[0] / max(n_images, 1) for total in sums]
        variance = [total[1] / max(n_images, 1) - middle**2 for total, middle in zip(sums, mean, strict=True)]
        return (
            [each.reshape(-1, 1, 1) for each in mean],
            [each.clamp_min(1e-6).sqrt().reshape(-1, 1, 1) for each in variance],
        )


def strides_for(sides: np.ndarray[tuple[int], np.dtype[np.float64]]) -> tuple[int, ...]:
    """The strides that a head needs: fine ones only where there are small objects, as they take long.

    Args:
        sides: (n,) square root of the area of each object, in network pixels.
    """
    if np.percentile(sides, 5) >= _SMALL * STRIDES[2]:
        return STRIDES[2:]
    return STRIDES[1:] if np.percentile(sides, 25) >= _TINY * STRIDES[1] else STRIDES


def level_of(sides: torch.Tensor, strides: Sequence[int]) -> torch.Tensor:
    """The stride at which an object is learnt: the coarsest of which it covers some cells.

    Args:
        sides: (...,) square root of the area, in network pixels.
        strides: of the head, finest first.
    """
    levels = torch.full_like(sides, strides[0])
    for stride in strides[1:]:
        levels = torch.where(sides >= _COARSER * stride, float(stride), levels)
    return levels


def _pooled(values: torch.Tensor, own: int, stride: int) -> torch.Tensor:
    return values if own == stride else functional.avg_pool2d(values[None], stride // own)[0]


def _mirrored(objects: Objects, width: int) -> Objects:
    def turn(
        boxes: np.ndarray[tuple[int, int], np.dtype[np.float32]],
    ) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
        return np.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], axis=1)

    return Objects(
        boxes=turn(objects.boxes),
        classes=objects.classes,
        weights=objects.weights,
        ignored=turn(objects.ignored),
    )


def _joined(inputs: Sequence[tuple[torch.Tensor, ...]], mirrored: Sequence[bool]) -> tuple[torch.Tensor, ...]:
    joined = []
    for level in zip(*inputs, strict=True):
        height, width = max(each.shape[1] for each in level), max(each.shape[2] for each in level)
        values = torch.zeros(len(level), level[0].shape[0], height, width)
        for row, (each, mirror) in enumerate(zip(level, mirrored, strict=True)):
            values[row, :, : each.shape[1], : each.shape[2]] = each.flip(2) if mirror else each
        joined.append(values)
    return tuple(joined)
