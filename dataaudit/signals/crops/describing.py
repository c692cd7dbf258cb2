"""What a box sees of the answers of the cells around it: a few hundred numbers, for many boxes at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torchvision.ops import roi_align

from dataaudit.signals.crops.dense import FIXED, Dense

__all__ = ["Given", "describe"]

Ints = npt.NDArray[np.int64]

_GRID = 10
_REACH = 2.0
"""Sides of the window around a box, in sides of the box."""
_AT_A_TIME = 4096
_FURTHEST = 3.0


@dataclass(frozen=True, kw_only=True)
class Given:
    """The labeled boxes, sorted by image.

    Attributes:
        images: (n,) int64 numbers of the images.
        corners: (n, 4) float32 network pixels.
        channels: (n,) int64 channel of the class of each box among those of `Dense`.
    """

    images: torch.Tensor
    corners: torch.Tensor
    channels: torch.Tensor

    def __len__(self) -> int:
        return len(self.images)


def describe(
    dense: Dense,
    given: Given,
    images: torch.Tensor,
    boxes: torch.Tensor,
    channels: torch.Tensor,
    origins: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Describe boxes by the answers of the cells around them and by where other boxes are.

    Args:
        dense: answers for the cells.
        given: the labeled boxes.
        images: (n,) image of each box to describe.
        boxes: (n, 4) float32 corners in network pixels, at least a pixel wide and high.
        channels: (n,) channel of the class of each.
        origins: (n,) the labeled box that each stands for, which isn't among the others; -1 for none.

    Returns:
        (n, d) float32, and the same for the mirrored image.
    """
    parts = []
    order = torch.argsort(images, stable=True)
    back = torch.empty_like(order)
    back[order] = torch.arange(len(order))
    for start in range(0, len(order), _AT_A_TIME):
        rows = order[start : start + _AT_A_TIME]
        window = _window(boxes[rows])
        seen = _pooled(dense, images[rows], window, channels[rows])
        taken = _taken(given, images[rows], window, origins[rows])
        parts.append(_features(seen, taken, boxes[rows]))
    if not parts:
        return torch.zeros(0, 0), torch.zeros(0, 0)
    upright, mirrored = (torch.cat(each)[back] for each in zip(*parts, strict=True))
    return upright, mirrored


def _window(boxes: torch.Tensor) -> torch.Tensor:
    middle, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2 * _REACH
    return torch.cat([middle - half, middle + half], 1)


def _pooled(dense: Dense, images: torch.Tensor, window: torch.Tensor, channels: torch.Tensor) -> torch.Tensor:
    """(n, 10, grid, grid): the fixed channels and that of the own class."""
    pictures, place = torch.unique(images, return_inverse=True)
    fixed = [dense.maps[int(each)][:FIXED] for each in pictures]
    n_channels = len(dense.maps[0])
    pairs, own_place = torch.unique(images * n_channels + channels, return_inverse=True)
    own = [dense.maps[int(each) // n_channels][[int(each) % n_channels]] for each in pairs]
    pooled = [
        roi_align(
            _stacked(maps), torch.cat([at[:, None].float(), window], 1), _GRID, 1 / dense.stride, 2, True
        )
        for maps, at in ((fixed, place), (own, own_place))
    ]
    return torch.cat(pooled, 1)


def _stacked(maps: Sequence[npt.NDArray[np.float16]]) -> torch.Tensor:
    height, width = max(each.shape[1] for each in maps), max(each.shape[2] for each in maps)
    stack = np.zeros((len(maps), len(maps[0]), height, width), dtype=np.float32)
    for number, each in enumerate(maps):
        stack[number, :, : each.shape[1], : each.shape[2]] = each
    return torch.from_numpy(stack)


def _taken(given: Given, images: torch.Tensor, window: torch.Tensor, origins: torch.Tensor) -> torch.Tensor:
    """(n, grid, grid) in [0, 1]: the most that one other labeled box covers of each cell."""
    first = torch.searchsorted(given.images, images)
    n_others = torch.searchsorted(given.images, images, right=True) - first
    taken = torch.zeros(len(images), _GRID, _GRID)
    steps = torch.arange(_GRID) / _GRID
    side = (window[:, 2:] - window[:, :2]) / _GRID
    for number in range(int(n_others.max()) if len(images) else 0):
        rows = ((n_others > number) & (first + number != origins)).nonzero()[:, 0]
        other = given.corners[first[rows] + number]
        near = ((other[:, :2] < window[rows, 2:]) & (other[:, 2:] > window[rows, :2])).all(1)
        rows, other = rows[near], other[near]
        shares = []
        for axis in (0, 1):
            start = window[rows, axis, None] + steps * (window[rows, 2 + axis] - window[rows, axis])[:, None]
            end = start + side[rows, axis, None]
            low = torch.maximum(start, other[:, axis, None])
            high = torch.minimum(end, other[:, 2 + axis, None])
            shares.append((high - low).clamp_min(0) / side[rows, axis, None])
        taken[rows] = torch.maximum(taken[rows], shares[1][:, :, None] * shares[0][:, None, :])
    return taken


def _features(
    seen: torch.Tensor, taken: torch.Tensor, boxes: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    place = ((torch.arange(_GRID) + 0.5) / _GRID - 0.5) * _REACH
    x, y = place[None, None, :], place[None, :, None]
    sides = boxes[:, 2:] - boxes[:, :2]
    width, height = sides[:, 0, None, None], sides[:, 1, None, None]
    far = seen[:, 1:5].clamp(0, 8).exp()
    # How far each cell thinks that the sides of its object are from those of the box, in sides of the box.
    votes = torch.stack(
        [
            x - far[:, 0] / width + 0.5,
            y - far[:, 1] / height + 0.5,
            x + far[:, 2] / width - 0.5,
            y + far[:, 3] / height - 0.5,
        ],
        1,
    ).clamp(-_FURTHEST, _FURTHEST)
    size = sides.log() - 4
    upright = _view(seen[:, 0], votes, seen[:, 5:9], seen[:, 9], taken, place)
    turned = votes.flip(3)[:, [2, 1, 0, 3]] * torch.tensor([-1.0, 1, -1, 1])[:, None, None]
    edges = seen[:, 5:9].flip(3)[:, [2, 1, 0, 3]]
    mirrored = _view(seen[:, 0].flip(2), turned, edges, seen[:, 9].flip(2), taken.flip(2), place)
    return torch.cat([upright, size], 1), torch.cat([mirrored, size], 1)


def _view(
    there: torch.Tensor,
    votes: torch.Tensor,
    edges: torch.Tensor,
    own: torch.Tensor,
    taken: torch.Tensor,
    place: torch.Tensor,
) -> torch.Tensor:
    along = (place.abs() < 0.5).float()
    box = along[:, None] * along
    middle = ((place.abs()[:, None] < 0.3) & (place.abs() < 0.3)).float()
    free = own * (1 - taken)
    parts = [own.flatten(1), free.flatten(1)]
    for share in (box, middle, torch.ones_like(box)):
        # An object of another box votes for that one
        weight = (there.clamp(0.01, 1) * (1 - 0.95 * taken)) ** 2 * share
        total = weight.sum((1, 2)).clamp_min(1e-6)[:, None]
        mean = (votes * weight[:, None]).sum((2, 3)) / total
        spread = (votes**2 * weight[:, None]).sum((2, 3)) / total - mean**2
        parts += [2 * mean, 2 * spread.clamp_min(0).sqrt()]
    for channel in (there, own, free, taken):
        parts += _profiles(channel[:, None], along)
    parts += _profiles(edges[:, [0, 2]], along)[:1] + _profiles(edges[:, [1, 3]], along)[1:2]
    parts += [edges[:, [0, 2]].amax(2).flatten(1), edges[:, [1, 3]].amax(3).flatten(1)]
    return torch.cat(parts, 1)


def _profiles(channels: torch.Tensor, along: torch.Tensor) -> list[torch.Tensor]:
    """Means over the height and over the width of the box, for each column and each row of the window."""
    n = along.sum()
    columns = (channels * along[:, None]).sum(2) / n
    rows = (channels * along).sum(3) / n
    return [columns.flatten(1), rows.flatten(1)]
