"""The head of the baseline: from frozen feature maps to classes and a box at every cell."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

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
    """What a head says about every cell of a batch, those of the finest stride first.

    Attributes:
        logits: (b, cells, k) of the classes.
        boxes: (b, cells, 4) corners in network pixels.
        centres: (cells, 2) middles of the cells in network pixels.
        strides: (cells,) of the cells.
    """

    logits: torch.Tensor
    boxes: torch.Tensor
    centres: torch.Tensor
    strides: torch.Tensor


class Head(nn.Module):
    """What the maps say at some stride and all coarser ones; a stride hears what the next one sees.

    Args:
        n_classes: k.
        half_sides: for each stride, finest first and the last one 32, the typical distance from the middle of
            an object to its side, in network pixels.
        channels: width of the head.

    Reference: Lin et al., "Feature Pyramid Networks for Object Detection", CVPR 2017; Tian et al., "FCOS:
    Fully Convolutional One-Stage Object Detection", ICCV 2019, for the distances to the four sides.
    """

    def __init__(self, n_classes: int, *, half_sides: Sequence[float], channels: int = 64) -> None:
        super().__init__()
        self.strides, self.half_sides = STRIDES[-len(half_sides) :], tuple(half_sides)
        inputs = list(accumulate(CHANNELS))[-len(half_sides) :]
        self.lateral = nn.ModuleList(nn.Conv2d(each, channels, 1) for each in inputs)
        self.body = nn.ModuleList(_body(channels) for _ in inputs)
        self.classes = nn.ModuleList(nn.Conv2d(channels, n_classes, 1) for _ in inputs)
        self.sides = nn.ModuleList(nn.Conv2d(channels, 4, 1) for _ in inputs)
        # At first every class is rare everywhere
        for layers, start in ((self.classes, math.log(_RARE / (1 - _RARE))), (self.sides, 0.0)):
            for name, parameter in layers.named_parameters():
                if name.endswith("bias"):
                    nn.init.constant_(parameter, start)
                else:
                    nn.init.normal_(parameter, std=0.01)

    def forward(self, maps: Sequence[torch.Tensor]) -> Dense:
        """Maps as in `Batch` -> what the cells say."""
        joined: list[torch.Tensor] = []
        for layer, level in zip(reversed(self.lateral), reversed(maps), strict=True):
            x = layer(level)
            if joined:
                x = x + functional.interpolate(joined[0], size=x.shape[2:], mode="nearest")
            joined.insert(0, x)
        said = [self._level(number, x) for number, x in enumerate(joined)]
        return Dense(
            logits=torch.cat([each.logits for each in said], dim=1),
            boxes=torch.cat([each.boxes for each in said], dim=1),
            centres=torch.cat([each.centres for each in said]),
            strides=torch.cat([each.strides for each in said]),
        )

    def _level(self, number: int, x: torch.Tensor) -> Dense:
        x = self.body[number](x)
        stride = self.strides[number]
        centres = _centres(x, stride)
        # The sides of an object are learnt as multiples of what is typical
        factors = self.sides[number](x).clamp(-_REACH, _REACH).exp().flatten(2).transpose(1, 2)
        sides = self.half_sides[number] * factors
        return Dense(
            logits=self.classes[number](x).flatten(2).transpose(1, 2),
            boxes=torch.cat([centres - sides[..., :2], centres + sides[..., 2:]], dim=-1),
            centres=centres,
            strides=centres.new_full((len(centres),), stride),
        )


def _body(channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.GroupNorm(_GROUPS, channels), nn.SiLU(),
        nn.Conv2d(channels, channels, 3, padding=1), nn.GroupNorm(_GROUPS, channels), nn.SiLU(),
    )  # fmt: skip


def _centres(x: torch.Tensor, stride: int) -> torch.Tensor:
    rows = (torch.arange(x.shape[2], device=x.device) + 0.5) * stride
    columns = (torch.arange(x.shape[3], device=x.device) + 0.5) * stride
    vertical, horizontal = torch.meshgrid(rows, columns, indexing="ij")
    return torch.stack([horizontal, vertical], dim=-1).reshape(-1, 2)
