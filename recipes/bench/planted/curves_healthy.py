"""Real runs that are fine, in the ways in which people train and log."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, lr_scheduler

from . import healthy
from ._models import lite0
from ._runs import ANIMALS, cnn, flips_and_shifts, seen, split, trained

EASY = ("airplane", "frog", "horse", "truck")
MANY = 1200


def features(data: Path, n: int, first: int, classes: tuple[str, ...] = ANIMALS):
    """What the ImageNet backbone says of the images: (n, 1280)."""
    images, labels = split(data, n, first, classes, side=64)
    backbone = lite0(0).eval()
    with torch.no_grad():
        return torch.cat([backbone(part) for part in images.split(100)]), labels


@healthy("cosine to zero over 20 epochs, SGD with momentum", part="curves")
def _(data: Path):
    model = cnn(4)
    optimizer = SGD(model.parameters(), lr=0.03, momentum=0.9, weight_decay=5e-4)
    table = trained(
        model, split(data, MANY, 0, EASY), split(data, 400, 600, EASY), optimizer=optimizer, epochs=20,
        scheduler=lr_scheduler.CosineAnnealingLR(optimizer, 20), augment=flips_and_shifts,
    )  # fmt: skip
    return seen(table)


@healthy("three steps of the rate", part="curves")
def _(data: Path):
    model = cnn(4, width=12)
    optimizer = SGD(model.parameters(), lr=0.02, momentum=0.9, weight_decay=5e-4)
    table = trained(
        model, split(data, MANY, 0, EASY), split(data, 400, 600, EASY), optimizer=optimizer, epochs=18,
        scheduler=lr_scheduler.MultiStepLR(optimizer, [10, 14, 16], 0.2), augment=flips_and_shifts,
    )  # fmt: skip
    return seen(table)


@healthy("warm-up of three epochs, then cosine", part="curves")
def _(data: Path):
    model = cnn(4)
    optimizer = AdamW(model.parameters(), lr=3e-3)
    scheduler = lr_scheduler.SequentialLR(
        optimizer,
        [lr_scheduler.LinearLR(optimizer, 0.1, total_iters=3), lr_scheduler.CosineAnnealingLR(optimizer, 15)],
        [3],
    )
    table = trained(
        model, split(data, MANY, 0, EASY), split(data, 400, 600, EASY), optimizer=optimizer, epochs=18,
        scheduler=scheduler, augment=flips_and_shifts,
    )  # fmt: skip
    return seen(table)


@healthy("one cycle of the rate in six epochs", part="curves")
def _(data: Path):
    model = cnn(4)
    optimizer = AdamW(model.parameters(), lr=1e-3)
    cycle = lr_scheduler.OneCycleLR(optimizer, 5e-3, epochs=6, steps_per_epoch=MANY // 40)
    table = trained(
        model, split(data, MANY, 0, EASY), split(data, 400, 600, EASY), optimizer=optimizer, epochs=6,
        by_step=cycle, augment=flips_and_shifts, batch=40,
    )  # fmt: skip
    return seen(table)


@healthy("linear layer on features of a backbone, rate decays", part="curves")
def _(data: Path):
    model = nn.Sequential(nn.BatchNorm1d(1280, affine=False), nn.Dropout(0.5), nn.Linear(1280, 4))
    optimizer = AdamW(model.parameters(), lr=2e-4, weight_decay=1e-2)
    table = trained(
        model, features(data, 800, 0, EASY), features(data, 400, 600, EASY), optimizer=optimizer, epochs=10,
        scheduler=lr_scheduler.CosineAnnealingLR(optimizer, 10),
    )  # fmt: skip
    return seen(table)


@healthy("easy task, converged halfway and flat to the end", part="curves")
def _(data: Path):
    easy = ("airplane", "frog")
    model = nn.Sequential(nn.BatchNorm1d(1280, affine=False), nn.Linear(1280, 2))
    optimizer = SGD(model.parameters(), lr=0.005, momentum=0.9, weight_decay=0.1)
    table = trained(
        model, features(data, 500, 0, easy), features(data, 300, 600, easy), optimizer=optimizer, epochs=30
    )
    return seen(table)


@healthy("augmentation and a little dropout make validation slightly better", part="curves")
def _(data: Path):
    model = cnn(4, dropout=0.1)
    optimizer = AdamW(model.parameters(), lr=2e-3)
    table = trained(
        model, split(data, MANY, 0, EASY), split(data, 400, 600, EASY), optimizer=optimizer, epochs=14,
        scheduler=lr_scheduler.CosineAnnealingLR(optimizer, 14), augment=flips_and_shifts,
    )  # fmt: skip
    return seen(table)


@healthy("rate reduced on plateau until it is small", part="curves")
def _(data: Path):
    model = cnn(4, width=8)
    optimizer = Adam(model.parameters(), lr=3e-3)
    scheduler = lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.3, patience=1)
    table = trained(
        model, split(data, MANY, 0, EASY), split(data, 400, 600, EASY), optimizer=optimizer, epochs=24,
        scheduler=scheduler, augment=flips_and_shifts,
    )  # fmt: skip
    return seen(table)


@healthy("losses of each step, batches of 16", part="curves")
def _(data: Path):
    model, steps = cnn(4), []
    optimizer = AdamW(model.parameters(), lr=2e-3)
    cycle = lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=8 * 75)
    trained(
        model, split(data, 1200, 0, EASY), split(data, 100, 600, EASY), optimizer=optimizer, epochs=8,
        by_step=cycle, augment=flips_and_shifts, batch=16, steps=steps,
    )  # fmt: skip
    return seen(pd.DataFrame(steps))


@healthy("CSV of Lightning, in which training and validation are rows of their own", part="curves")
def _(data: Path):
    model = cnn(4)
    optimizer = AdamW(model.parameters(), lr=2e-3)
    table = trained(
        model, split(data, MANY, 0, EASY), split(data, 400, 600, EASY), optimizer=optimizer, epochs=12,
        scheduler=lr_scheduler.CosineAnnealingLR(optimizer, 12), augment=flips_and_shifts,
    )  # fmt: skip
    rows = []
    for row in table.to_dict("records"):
        place = {"epoch": row["epoch"], "step": 38 * (row["epoch"] + 1) - 1}
        rows.append({**place, "val_loss": row["val_loss"], "val_acc": row["val_acc"]})
        rows.append({**place, "train_loss_epoch": row["train_loss"], "train_acc": row["train_acc"]})
    with TemporaryDirectory() as folder:
        file = Path(folder) / "lightning_logs" / "version_0" / "metrics.csv"
        file.parent.mkdir(parents=True)
        pd.DataFrame(rows).to_csv(file, index=False)
        return seen(folder)
