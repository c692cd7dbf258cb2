"""What the processes of a test import by name."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the name that everyone knows
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset


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


class Waiting(nn.Module):
    """Says its process in the pipe of DATAAUDIT_TEST_PIPE, which it holds open, and waits without end."""

    def __init__(self) -> None:
        super().__init__()
        self.body = plain()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if os.environ.get("DATAAUDIT_TEST_HOME") != str(os.getpid()):
            pipe = Path(os.environ["DATAAUDIT_TEST_PIPE"]).open("w")  # noqa: SIM115 - as long as the process is
            print(os.getpid(), file=pipe, flush=True)
            threading.Event().wait()
        return self.body(x)


class Counting(nn.Module):
    """Counts the samples of its own process, and keeps their mean."""

    def __init__(self) -> None:
        super().__init__()
        self.body = plain()
        self.register_buffer("center", torch.zeros(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.body(x)
        with torch.no_grad():
            self.center.copy_(out.mean(0))
        return out


def unset_epoch(rank: int, world: int) -> Any:
    held = TensorDataset(torch.arange(40.0)[:, None])
    return DataLoader(held, batch_size=4, sampler=DistributedSampler(held, world, rank))


def set_epoch(rank: int, world: int, epoch: int) -> Any:
    loader = unset_epoch(rank, world)
    loader.sampler.set_epoch(epoch)
    return loader


def of_evaluation(rank: int, world: int) -> Any:
    held = TensorDataset(torch.arange(40.0)[:, None])
    return DataLoader(held, batch_size=4, sampler=DistributedSampler(held, world, rank, shuffle=False))


def repeating(rank: int, _world: int) -> Any:
    held = TensorDataset(torch.arange(40.0)[:, None])
    return DataLoader(held, batch_size=4, sampler=[rank, rank + 2] * 10)


def uneven(rank: int, world: int) -> Any:
    for at in range(rank, 5, world):
        yield torch.arange(4.0)[:, None] + 4 * at
