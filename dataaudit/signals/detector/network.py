"""The head of the baseline: from frozen feature maps to classes and a box at every cell."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from dataaudit.signals.feature_maps import CHANNELS, STRIDES

__all__ = ["Dense", "Head"]

_RARE = 0.01
_GROUPS = 8
_REACH = 4.0


@dataclass(frozen=True, kw_only=True)
class Dense:
    """What a head says about every cell of a batch.

    Attributes:
        logits: (b, cells, k) of the classes.
        boxes: (b, cells, 4) corners in network pixels.
        centres: (cells, 2) middles of the cells in network pixels.
    """

    logits: torch.Tensor
    boxes: torch.Tensor
    centres: torch.Tensor


class Head(nn.Module):
    """Maps of all strides joined at one, two convolutions, and what they say about each cell.

    Args:
        n_classes: k.
        stride: of the cells, one of 8, 16 and 32.
        half_side: typical distance from the middle of an object to its side, in network pixels.
        channels: width of the head.
    """

    def __init__(self, n_classes: int, *, stride: int, half_side: float, channels: int = 96) -> None:
        super().__init__()
        self.stride, self.half_side = stride, half_side
        fine = sum(each for each, own in zip(CHANNELS, STRIDES, strict=True) if own <= stride)
        self.fine = nn.Conv2d(fine, channels, 1)
        self.coarse = nn.ModuleList(
            nn.Conv2d(each, channels, 1) for each, own in zip(CHANNELS, STRIDES, strict=True) if own > stride
        )
        self.body = nn.Sequential(
            nn.GroupNorm(_GROUPS, channels), nn.SiLU(),
            nn.Conv2d(channels, channels, 3, padding=1), nn.GroupNorm(_GROUPS, channels), nn.SiLU(),
            nn.Conv2d(channels, channels, 3, padding=1), nn.GroupNorm(_GROUPS, channels), nn.SiLU(),
        )  # fmt: skip
        self.classes = nn.Conv2d(channels, n_classes, 1)
        self.sides = nn.Conv2d(channels, 4, 1)
        for layer in (self.classes, self.sides):
            nn.init.normal_(layer.weight, std=0.01)
            if layer.bias is not None:
                # At first every class is rare everywhere
                nn.init.constant_(layer.bias, math.log(_RARE / (1 - _RARE)) if layer is self.classes else 0.0)

    def forward(self, maps: Sequence[torch.Tensor]) -> Dense:
        """Maps as in `Batch` -> what the cells say."""
        x = self.fine(maps[0])
        for layer, level in zip(self.coarse, maps[1:], strict=True):
            x = x + functional.interpolate(layer(level), size=x.shape[2:], mode="nearest")
        x = self.body(x)
        centres = _centres(x, self.stride)
        # The sides of an object are learnt as multiples of what is typical
        sides = self.half_side * self.sides(x).clamp(-_REACH, _REACH).exp().flatten(2).transpose(1, 2)
        return Dense(
            logits=self.classes(x).flatten(2).transpose(1, 2),
            boxes=torch.cat([centres - sides[..., :2], centres + sides[..., 2:]], dim=-1),
            centres=centres,
        )


def _centres(x: torch.Tensor, stride: int) -> torch.Tensor:
    rows = (torch.arange(x.shape[2], device=x.device) + 0.5) * stride
    columns = (torch.arange(x.shape[3], device=x.device) + 0.5) * stride
    vertical, horizontal = torch.meshgrid(rows, columns, indexing="ij")
    return torch.stack([horizontal, vertical], dim=-1).reshape(-1, 2)
