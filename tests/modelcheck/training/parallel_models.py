"""What the processes of a test import by name."""

from __future__ import annotations

import os
import signal
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the name that everyone knows


def plain() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 4, stride=4), nn.ReLU(), nn.Flatten(), nn.Linear(512, 4))


def normed() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 4, stride=4),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Dropout(),
        nn.Flatten(),
        nn.Linear(512, 4),
    )


class Spare(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.spare = plain(), nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x)


class Killed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.home = plain(), os.environ.get("DATAAUDIT_TEST_HOME")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if os.environ.get("DATAAUDIT_TEST_HOME") != str(os.getpid()):
            os.kill(os.getpid(), signal.SIGKILL)
        return self.body(x)


def summed(out: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(out, targets, reduction="sum")


def bare(model: nn.Module) -> nn.Module:
    return model


def same_loader(_rank: int, _world: int) -> Any:
    return [torch.arange(12.0)[:, None]]


def same_seed(_rank: int) -> None:
    torch.manual_seed(7)
