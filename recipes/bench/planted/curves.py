"""Bugs that show in the curves of a run; each run is a real one on CIFAR-10 images."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, RMSprop, lr_scheduler

from . import planted
from ._models import PlainNet, mlp
from ._runs import cnn, flips_and_shifts, seen, split, trained

EASY = ("airplane", "frog", "horse", "truck")

# ------------------------------------------------------------------ rate


@planted(
    "rate grows by 1.6 an epoch, as gamma was written upside down", kind="diverging", part="curves",
    causes=["TRN051"],
)  # fmt: skip
def _(data: Path):
    model = cnn(norm=False)
    optimizer = SGD(model.parameters(), lr=0.02, momentum=0.9)
    scheduler = lr_scheduler.ExponentialLR(optimizer, gamma=1 / 0.62)
    table = trained(
        model, split(data, 600, 0), split(data, 200, 600), optimizer=optimizer, epochs=15,
        scheduler=scheduler,
    )  # fmt: skip
    return seen(table.dropna().drop(columns="lr"))


@planted(
    "Adam with a rate of 0.05 and no normalisation", kind="diverging", part="curves",
    causes=["TRN053", "TRN051"],
)  # fmt: skip
def _(data: Path):
    model = PlainNet()
    table = trained(
        model, split(data, 600, 0), split(data, 200, 600),
        optimizer=Adam(model.parameters(), lr=0.05), epochs=15,
    )  # fmt: skip
    return seen(table)


@planted("SGD with a rate of 3 ends in NaN", kind="loss becomes NaN", part="curves", causes=["TRN050"])
def _(data: Path):
    model = cnn(norm=False)
    table = trained(
        model, split(data, 600, 0), split(data, 200, 600),
        optimizer=SGD(model.parameters(), lr=3.0, momentum=0.9), epochs=12,
    )  # fmt: skip
    return seen(table)


@planted(
    "binary cross entropy written out, and a probability becomes 1", kind="loss becomes NaN", part="curves",
    causes=["TRN050"], mentions=["epoch"],
)  # fmt: skip
def _(data: Path):
    def entropy(outputs, labels):
        p, target = outputs.sigmoid(), nn.functional.one_hot(labels, 10)
        return -(target * p.log() + (1 - target) * (1 - p).log()).sum(1).mean()

    model = mlp(width=256)
    table = trained(
        model, split(data, 300, 0), split(data, 200, 600), criterion=entropy,
        optimizer=Adam(model.parameters(), lr=2e-3), epochs=25,
    )  # fmt: skip
    return seen(table)


@planted("rate of 1e-8", kind="flat", part="curves", causes=["TRN053"])
def _(data: Path):
    model = cnn()
    table = trained(
        model, split(data, 600, 0), split(data, 200, 600),
        optimizer=Adam(model.parameters(), lr=1e-8), epochs=15, augment=flips_and_shifts,
    )  # fmt: skip
    return seen(table)


@planted("optimizer.step() never called", kind="flat", part="curves", causes=["TRN053"])
def _(data: Path):
    model = cnn()
    optimizer = Adam(model.parameters(), lr=1e-3)
    table = trained(
        model, split(data, 600, 0), split(data, 200, 600), optimizer=optimizer, epochs=20, step=False
    )
    return seen(table.drop(columns="lr"))


@planted(
    "optimizer has the weights of another copy of the model", kind="flat", part="curves", causes=["TRN053"]
)
def _(data: Path):
    model, other = PlainNet(), PlainNet()
    table = trained(
        model, split(data, 600, 0), split(data, 200, 600),
        optimizer=AdamW(other.parameters(), lr=1e-3), epochs=12,
    )  # fmt: skip
    return seen(table)


@planted(
    "rate cut to a thousandth after four epochs, as epochs were counted wrongly",
    kind="rate cut too early", part="curves", causes=["TRN059"],
)  # fmt: skip
def _(data: Path):
    model = cnn()
    optimizer = SGD(model.parameters(), lr=0.01, momentum=0.9)
    scheduler = lr_scheduler.StepLR(optimizer, step_size=4, gamma=0.001)
    table = trained(
        model, split(data, 800, 0), split(data, 300, 600), optimizer=optimizer, epochs=25,
        scheduler=scheduler, augment=flips_and_shifts,
    )  # fmt: skip
    return seen(table)


@planted("restart of the rate at eighty times the first one", kind="rate restarted too high", part="curves",
         causes=["TRN059"])  # fmt: skip
def _(data: Path):
    model = cnn()
    optimizer = SGD(model.parameters(), lr=0.02, momentum=0.9)
    scheduler = lr_scheduler.LambdaLR(optimizer, lambda epoch: 1.0 if epoch < 14 else 80.0)
    table = trained(
        model, split(data, 800, 0), split(data, 300, 600), optimizer=optimizer, epochs=24,
        scheduler=scheduler, augment=flips_and_shifts,
    )  # fmt: skip
    return seen(table.dropna())


@planted("rate is zero for the second half, as the schedule counts other steps", kind="rate ends too early",
         part="curves", causes=["TRN059"])  # fmt: skip
def _(data: Path):
    model = cnn()
    optimizer = Adam(model.parameters(), lr=1e-3)
    scheduler = lr_scheduler.LambdaLR(optimizer, lambda epoch: max(0.0, 1 - epoch / 8))
    table = trained(
        model, split(data, 800, 0), split(data, 300, 600), optimizer=optimizer, epochs=20,
        scheduler=scheduler, augment=flips_and_shifts,
    )  # fmt: skip
    return seen(table)


@planted("warm-up of 18 epochs from a rate of 1e-7", kind="plateau at the start", part="curves",
         causes=["TRN060"])  # fmt: skip
def _(data: Path):
    model = cnn()
    optimizer = Adam(model.parameters(), lr=1e-3)
    scheduler = lr_scheduler.LambdaLR(optimizer, lambda epoch: 1e-5 if epoch < 18 else 1.0)
    table = trained(
        model, split(data, 800, 0), split(data, 300, 600), optimizer=optimizer, epochs=30,
        scheduler=scheduler, augment=flips_and_shifts,
    )  # fmt: skip
    return seen(table)


@planted(
    "RMSprop with a constant rate of 0.03 and batch norm", kind="oscillating", part="curves",
    causes=["TRN054"],
)  # fmt: skip
def _(data: Path):
    model = cnn(4, width=8)
    table = trained(
        model, split(data, 600, 0, EASY), split(data, 300, 600, EASY), augment=flips_and_shifts,
        optimizer=RMSprop(model.parameters(), lr=0.03), epochs=25, batch=64,
    )  # fmt: skip
    return seen(table)


# ------------------------------------------------------------------ model and data


@planted("200 images, no augmentation, 40 epochs", kind="overfitting", part="curves", causes=["TRN055"])
def _(data: Path):
    model = cnn(width=24)
    table = trained(
        model, split(data, 200, 0), split(data, 300, 600),
        optimizer=Adam(model.parameters(), lr=1e-3), epochs=40,
    )  # fmt: skip
    return seen(table)


@planted(
    "wide linear layers on 500 images, only losses logged", kind="overfitting", part="curves",
    causes=["TRN055"], mentions=["epoch"],
)  # fmt: skip
def _(data: Path):
    model = mlp(width=512)
    table = trained(
        model, split(data, 500, 0), split(data, 300, 600),
        optimizer=Adam(model.parameters(), lr=3e-4), epochs=25,
    )  # fmt: skip
    return seen(table[["epoch", "train_loss", "val_loss"]])


@planted("a linear model on mean colours", kind="underfitting", part="curves", causes=["TRN056"])
def _(data: Path):
    model = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10)
    )
    table = trained(
        model, split(data, 1000, 0), split(data, 500, 600),
        optimizer=Adam(model.parameters(), lr=2e-2), epochs=40,
    )  # fmt: skip
    return seen(table)


@planted("weight decay of 0.15 with SGD", kind="too much regularisation", part="curves",
         causes=["TRN056"])  # fmt: skip
def _(data: Path):
    model = cnn(norm=False)
    table = trained(
        model, split(data, 600, 0), split(data, 300, 600),
        optimizer=SGD(model.parameters(), lr=0.02, momentum=0.9, weight_decay=0.15), epochs=25,
        augment=flips_and_shifts,
    )  # fmt: skip
    return seen(table)


@planted("stopped after 12 epochs at a small constant rate", kind="stopped early", part="curves",
         causes=["TRN057"])  # fmt: skip
def _(data: Path):
    model = cnn()
    table = trained(
        model, split(data, 1000, 0), split(data, 500, 600),
        optimizer=Adam(model.parameters(), lr=5e-5), epochs=12, augment=flips_and_shifts,
    )  # fmt: skip
    return seen(table)


@planted("dropout of 0.7 before the head and after each block", kind="too much dropout", part="curves",
         causes=["TRN058"])  # fmt: skip
def _(data: Path):
    model = cnn(4, dropout=0.7)
    model[3] = nn.Sequential(nn.MaxPool2d(2), nn.Dropout2d(0.5))
    model[7] = nn.Sequential(nn.MaxPool2d(2), nn.Dropout2d(0.5))
    table = trained(
        model, split(data, 800, 0, EASY), split(data, 300, 600, EASY),
        optimizer=Adam(model.parameters(), lr=1e-3), epochs=25,
    )  # fmt: skip
    return seen(table)


@planted(
    "validation images are among the training images", kind="validation leaks", part="curves",
    causes=["TRN058", "TRN062"],
)  # fmt: skip
def _(data: Path):
    model = cnn(width=24, dropout=0.5)
    train = split(data, 300, 0)
    table = trained(
        model, train, (train[0][:100], train[1][:100]), augment=flips_and_shifts,
        optimizer=Adam(model.parameters(), lr=1e-3), epochs=40,
    )  # fmt: skip
    return seen(table)


@planted(
    "validation has one class only, that of most training images", kind="validation of one class",
    part="curves", causes=["TRN062", "TRN058"],
)  # fmt: skip
def _(data: Path):
    model = cnn(2)
    images, labels = split(data, 900, 0, ("cat", "dog"))
    kept = torch.cat([torch.where(labels == 1)[0], torch.where(labels == 0)[0][:40]])
    val_images, val_labels = split(data, 300, 600, ("cat", "dog"))
    table = trained(
        model, (images[kept], labels[kept]), (val_images[val_labels == 1], val_labels[val_labels == 1]),
        optimizer=Adam(model.parameters(), lr=3e-4), epochs=15, augment=flips_and_shifts,
    )  # fmt: skip
    return seen(table)


@planted("cross entropy on a single output", kind="loss is zero", part="curves", causes=["TRN052"])
def _(data: Path):
    model = cnn(1)
    images, _ = split(data, 400, 0, ("cat", "dog"))
    val, _ = split(data, 200, 600, ("cat", "dog"))
    table = trained(
        model, (images, torch.zeros(400).long()), (val, torch.zeros(200).long()),
        optimizer=Adam(model.parameters(), lr=1e-3), epochs=10,
    )  # fmt: skip
    return seen(table)


@planted(
    "hinge loss whose margin every output meets after an epoch", kind="loss is zero", part="curves",
    causes=["TRN052"],
)  # fmt: skip
def _(data: Path):
    def hinge(outputs, labels):
        target = labels.float() * 0 + 1  # the mask of the negatives was lost
        return (1 - target * outputs[:, 0]).clamp(min=0).mean()

    model = cnn(2)
    table = trained(
        model, split(data, 400, 0, ("cat", "dog")), split(data, 200, 600, ("cat", "dog")), criterion=hinge,
        optimizer=Adam(model.parameters(), lr=5e-3), epochs=15,
    )  # fmt: skip
    return seen(table[["epoch", "train_loss", "val_loss"]])


# ------------------------------------------------------------------ batches and logging


@planted(
    "one batch in forty comes from a source that isn't normalised", kind="spikes", part="curves",
    causes=["TRN061"], mentions=["step"],
)  # fmt: skip
def _(data: Path):
    def corrupt(count, images):
        return images * 58 + 120 if count % 40 == 37 else images

    model, steps = cnn(norm=False), []
    trained(
        model, split(data, 800, 0), split(data, 200, 600), steps=steps, corrupt=corrupt,
        optimizer=Adam(model.parameters(), lr=5e-4), epochs=14,
    )  # fmt: skip
    return seen(pd.DataFrame(steps))


@planted(
    "files sorted by class and the loader doesn't shuffle", kind="not shuffled", part="curves",
    causes=["TRN054"],
)  # fmt: skip
def _(data: Path):
    images, labels = split(data, 800, 0)
    order = labels.argsort(stable=True)
    model, steps = cnn(), []
    trained(
        model, (images[order], labels[order]), split(data, 200, 600), steps=steps, shuffled=False,
        optimizer=Adam(model.parameters(), lr=1e-3), epochs=12,
    )  # fmt: skip
    return seen(pd.DataFrame(steps))


@planted(
    "momentum of batch norm 0.001, so that its statistics lag in validation", kind="running statistics lag",
    part="curves", causes=["TRN055", "TRN054"],
)  # fmt: skip
def _(data: Path):
    model = cnn(4)
    for layer in model:
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 0.001
    table = trained(
        model, split(data, 800, 0, EASY), split(data, 300, 600, EASY),
        optimizer=Adam(model.parameters(), lr=2e-3), epochs=15, augment=flips_and_shifts,
    )  # fmt: skip
    return seen(table)


@planted("validation set of 12 images", kind="validation set too small", part="curves", causes=["TRN054"])
def _(data: Path):
    model = cnn()
    with TemporaryDirectory() as folder:
        table = trained(
            model, split(data, 1000, 0), split(data, 12, 600),
            optimizer=Adam(model.parameters(), lr=3e-3), epochs=30, augment=flips_and_shifts, batch=16,
        )  # fmt: skip
        table.to_csv(f"{folder}/metrics.csv", index=False)
        return seen(f"{folder}/metrics.csv")


@planted("labels in the order of another list of files", kind="labels shuffled", part="curves",
         causes=["TRN053", "TRN056", "TRN055"])  # fmt: skip
def _(data: Path):
    images, labels = split(data, 1000, 0)
    val_images, val_labels = split(data, 300, 600)
    model = cnn(width=8)
    table = trained(
        model, (images, labels[torch.randperm(1000)]), (val_images, val_labels[torch.randperm(300)]),
        optimizer=Adam(model.parameters(), lr=1e-3), epochs=15, augment=flips_and_shifts,
    )  # fmt: skip
    return seen(table)
