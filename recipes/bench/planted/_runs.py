"""Real training runs on small images, with their curves as people log them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from dataaudit.types import Finding

from ._images import ANIMALS, normalised, pixels

Split = tuple[Tensor, Tensor]


@cache
def split(data: Path, n: int, first: int, classes: tuple[str, ...] = ANIMALS, side: int = 32) -> Split:
    """(n, 3, side, side) normalised and (n,) classes: the same number of each class, from file `first` on."""
    images, labels = [], []
    for i in range(n):
        label, number = i % len(classes), first + i // len(classes)
        file = data / "cifar10h" / "images" / classes[label] / f"{number:04d}.jpg"
        images.append(pixels(file, side, side))
        labels.append(label)
    return normalised(torch.stack(images)), torch.tensor(labels)


def cnn(classes: int = 10, width: int = 16, dropout: float = 0.0, norm: bool = True) -> nn.Sequential:
    """Three convolutions and a head, for images of 32 pixels."""
    layers: list[nn.Module] = []
    for inside, outside in ((3, width), (width, 2 * width), (2 * width, 2 * width)):
        layers += [nn.Conv2d(inside, outside, 3, padding=1)]
        layers += [nn.BatchNorm2d(outside)] if norm else []
        layers += [nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Dropout(dropout), nn.Linear(32 * width, classes))


def flips_and_shifts(images: Tensor) -> Tensor:
    """Each image is mirrored or not, and the batch is cropped at a place of its own."""
    flipped = torch.where(torch.rand(len(images), 1, 1, 1) < 0.5, images.flip(3), images)
    padded = nn.functional.pad(flipped, (3, 3, 3, 3), mode="reflect")
    y, x = torch.randint(0, 7, (2,)).tolist()
    return padded[:, :, y : y + images.shape[2], x : x + images.shape[3]]


@torch.no_grad()
def measured(model: nn.Module, part: Split, criterion: Callable[..., Tensor]) -> tuple[float, float]:
    """Loss and accuracy, in the mode that the model is in."""
    outputs = model(part[0])
    return float(criterion(outputs, part[1])), float((outputs.argmax(1) == part[1]).float().mean())


def trained(
    model: nn.Module,
    train: Split,
    val: Split,
    *,
    optimizer: torch.optim.Optimizer,
    epochs: int,
    batch: int = 32,
    scheduler: Any = None,
    by_step: Any = None,
    criterion: Callable[..., Tensor] = cross_entropy,
    augment: Callable[[Tensor], Tensor] | None = None,
    shuffled: bool = True,
    step: bool = True,
    corrupt: Callable[[int, Tensor], Tensor] | None = None,
    eval_mode: bool = True,
    steps: list[dict[str, float]] | None = None,
) -> pd.DataFrame:
    """Train, and log an epoch a row; `steps` gets a row for each step."""
    rows, count = [], 0
    for epoch in range(epochs):
        model.train()
        order = torch.randperm(len(train[0])) if shuffled else torch.arange(len(train[0]))
        losses, right = [], 0
        for part in order.split(batch):
            images, labels = train[0][part], train[1][part]
            images = augment(images) if augment else images
            images = corrupt(count, images) if corrupt else images
            outputs = model(images)
            loss = criterion(outputs, labels)
            optimizer.zero_grad()
            if loss.requires_grad:
                loss.backward()
            if step:
                optimizer.step()
            if by_step is not None:
                by_step.step()
            losses.append(float(loss.detach()))
            right += int((outputs.argmax(1) == labels).sum())
            if steps is not None:
                steps.append({"step": count, "train_loss": losses[-1]})
            count += 1
        model.train(not eval_mode)
        val_loss, val_acc = measured(model, val, criterion)
        rows.append(
            {"epoch": epoch, "train_loss": float(np.mean(losses)), "train_acc": right / len(train[0]),
             "val_loss": val_loss, "val_acc": val_acc, "lr": optimizer.param_groups[0]["lr"]}
        )  # fmt: skip
        if scheduler is not None:
            metric = (val_loss,) if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau) else ()
            scheduler.step(*metric)
    return pd.DataFrame(rows)


def seen(table: Any, **given: Any) -> Sequence[Finding]:
    """Findings of the curves."""
    from dataaudit.modelcheck import curves

    return curves(table, **given).items
