"""Real runs of training for the bench of curves: small networks on CIFAR-10H, healthy ones and ones with a
mistake.

A run is a table with a row an epoch (or a step), written to ``KIND-SEED.csv``. The mistake is made in the
training, never in the curve. A run that was trained as usual counts as healthy where it ends within 5% of its
lowest validation loss, at least halfway from guessing to 100% in training, and at most 12 points of accuracy
worse in validation.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

SIDE = 16
"""Pixels of a side; the images are halved so that a run takes seconds."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a run is trained.

    Attributes:
        n_train: samples; `n_val` those of validation.
        rate: learning rate of `optimizer` (``sgd``, ``adam``).
        schedule: share of the rate at a share of the run, both in [0, 1].
        norm: batch norm in the network; `depth` its stages, `width` the channels of the first.
        drop: dropout before the last layer.
        flip: flips and shifts as augmentation.
        noise: share of random labels.
        smoothing: of the labels.
        last: what is done to a network before training.
        every: steps between two logged rows; an epoch's mean is logged when None.
        classes: 2 (animals and machines), or as many of the ten.
    """

    n_train: int = 3000
    n_val: int = 1000
    epochs: int = 20
    batch: int = 64
    optimizer: str = "sgd"
    rate: float = 0.05
    momentum: float = 0.9
    decay: float = 5e-4
    schedule: Callable[[float], float] = lambda _: 1.0
    norm: bool = True
    depth: int = 3
    width: int = 16
    drop: float = 0.0
    flip: bool = True
    noise: float = 0.0
    smoothing: float = 0.0
    frozen: bool = False
    clip: float | None = None
    broken: tuple[float, float] = (0.0, 1.0)
    val_of_train: bool = False
    start: Callable[[Any], None] | None = None
    scale: Callable[[float], float] = lambda _: 1.0
    masked_from: float = 2.0
    every: int | None = None
    loss: str = "cross entropy"
    bn_momentum: float = 0.1
    classes: int = 10


def cosine(at: float) -> float:
    return 0.5 * (1 + float(np.cos(np.pi * at)))


def constant(at: float) -> float:
    return 1.0


def stepwise(at: float) -> float:
    return 0.1 ** (int(at >= 0.5) + int(at >= 0.8))


def one_cycle(at: float) -> float:
    return 0.05 + 0.95 * at / 0.3 if at < 0.3 else cosine((at - 0.3) / 0.7)


def warm(at: float) -> float:
    return min(1.0, at / 0.1) * cosine(at)


def images(data: Path) -> tuple[np.ndarray, np.ndarray]:
    """(10000, 3, SIDE, SIDE) uint8 and the classes (10000,), in the order of the table."""
    from PIL import Image

    table = pd.read_csv(data / "human_counts.csv")
    pixels = np.stack([np.asarray(Image.open(data / path).convert("RGB")) for path in table["path"]])
    pixels = pixels.reshape(len(pixels), SIDE, 2, SIDE, 2, 3).mean((2, 4)).transpose(0, 3, 1, 2)
    return pixels.astype(np.uint8), pd.factorize(table["label_name"], sort=True)[0]


def network(plan: Plan, classes: int) -> Any:
    from torch import nn

    layers: list[Any] = []
    channels, width = 3, plan.width
    for _ in range(plan.depth):
        layers += [nn.Conv2d(channels, width, 3, padding=1, bias=not plan.norm)]
        layers += [nn.BatchNorm2d(width, momentum=plan.bn_momentum)] if plan.norm else []
        layers += [nn.ReLU(), nn.MaxPool2d(2)]
        channels, width = width, width * 2
    side = SIDE // 2**plan.depth
    layers += [nn.Flatten(), nn.Dropout(plan.drop), nn.Linear(channels * side * side, classes)]
    net = nn.Sequential(*layers)
    if plan.start is not None:
        plan.start(net)
    return net


def train(plan: Plan, pixels: np.ndarray, labels: np.ndarray, seed: int) -> pd.DataFrame:
    """The log of a run: epoch, train_loss, val_loss, train_acc, val_acc, lr."""
    import torch
    from torch import nn

    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    if plan.classes == 2:
        labels = np.isin(labels, (2, 3, 4, 5, 6, 7)).astype(int)
    elif plan.classes < 10:
        few = rng.choice(10, plan.classes, replace=False)
        kept = np.isin(labels, few)
        pixels, labels = pixels[kept], np.searchsorted(np.sort(few), labels[kept])
    order = rng.permutation(len(pixels))
    n_train = min(plan.n_train, len(order) * 4 // 5)
    mine, other = order[:n_train], order[n_train : n_train + plan.n_val]
    x = torch.from_numpy(pixels).float().div(127.5).sub(1)
    y = torch.from_numpy(labels.astype(np.int64)).clone()
    wrong = mine[: int(plan.noise * len(mine))]
    y[wrong] = torch.from_numpy(rng.integers(0, plan.classes, len(wrong)))
    if plan.val_of_train:
        other = mine[: plan.n_val]
    net = network(plan, 1 if plan.loss == "one output" else plan.classes)
    lossy = nn.CrossEntropyLoss(label_smoothing=plan.smoothing)
    plain = nn.CrossEntropyLoss()

    def measured(out: Any, target: Any, criterion: Any) -> Any:
        if plan.loss == "one output":
            return criterion(out, torch.zeros_like(target))
        if plan.loss == "log of softmax":
            return nn.functional.nll_loss(torch.log(out.softmax(1)), target)
        return criterion(out, target)

    weights = [torch.nn.Parameter(torch.zeros(1))] if plan.frozen else list(net.parameters())
    if plan.optimizer == "sgd":
        optimizer: Any = torch.optim.SGD(weights, plan.rate, momentum=plan.momentum, weight_decay=plan.decay)
    else:
        optimizer = torch.optim.AdamW(weights, plan.rate, weight_decay=plan.decay)
    steps = plan.epochs * (len(mine) // plan.batch)
    rows, done = [], 0
    for epoch in range(plan.epochs):
        net.train()
        losses, right = [], 0
        shuffled = torch.from_numpy(rng.permutation(mine))
        for part in shuffled.split(plan.batch):
            if len(part) < plan.batch:
                continue
            share = plan.schedule(done / max(1, steps))
            for group in optimizer.param_groups:
                group["lr"] = plan.rate * share
            inputs, target = x[part], y[part]
            if plan.flip:
                inputs = inputs.flip(3) if rng.random() < 0.5 else inputs
                inputs = torch.roll(inputs, tuple(rng.integers(-2, 3, 2).tolist()), (2, 3))
            if plan.broken[0] and rng.random() < plan.broken[0]:
                inputs = inputs * plan.broken[1]
            if done / steps >= plan.masked_from:
                target = torch.full_like(target, -100)
            inputs = inputs * plan.scale(done / max(1, steps))
            out = net(inputs)
            loss = measured(out, target, lossy)
            if done / steps >= plan.masked_from:
                loss = torch.nan_to_num(loss, nan=0.0)
            optimizer.zero_grad()
            loss.backward()
            if plan.clip:
                nn.utils.clip_grad_norm_(net.parameters(), plan.clip)
            optimizer.step()
            losses.append(float(loss.detach()))
            right += int((out.argmax(1) == y[part]).sum())
            done += 1
            if plan.every and done % plan.every == 0:
                rows.append({"step": done, "epoch": epoch, "train_loss": losses[-1], "lr": plan.rate * share})
        net.eval()
        with torch.no_grad():
            out = net(x[other])
            val = float(measured(out, y[other], plain))
            hits = float((out.argmax(1) == y[other]).float().mean())
        both = {"val_loss": val, "val_acc": hits}
        if plan.every:
            rows.append({"step": done, "epoch": epoch, **both})
        else:
            row = {
                "epoch": epoch,
                "train_loss": float(np.mean(losses)),
                "train_acc": right / len(losses) / plan.batch,
            }
            rows.append({**row, **both, "lr": plan.rate * share})
    return pd.DataFrame(rows)


def _usual(rng: np.random.Generator) -> Plan:
    """A run as a person would set it up, with a schedule that ends where the run ends."""
    optimizer = str(rng.choice(["sgd", "adam"]))
    norm = bool(rng.random() < 0.7)
    rate = {("sgd", True): 0.05, ("sgd", False): 0.02, ("adam", True): 3e-3, ("adam", False): 1.5e-3}
    classes = int(rng.choice([2, 3, 4, 10]))
    return Plan(
        classes=classes, n_train=6000 if classes == 10 else int(rng.choice([3000, 6000])),
        n_val=int(rng.choice([500, 1000, 2000])),
        epochs=int(rng.choice([15, 20, 25, 30, 40])), batch=int(rng.choice([32, 64, 128])),
        optimizer=optimizer, norm=norm, rate=rate[optimizer, norm] * float(rng.uniform(0.5, 1.3)),
        schedule=[cosine, stepwise, one_cycle, warm][int(rng.integers(4))],
        width=24 if classes == 10 else int(rng.choice([8, 12, 16])), drop=float(rng.choice([0.0, 0.1, 0.3])),
        smoothing=float(rng.choice([0.0, 0.0, 0.1])),
    )  # fmt: skip


def _dead(net: Any) -> None:
    import torch

    with torch.no_grad():
        for module in net:
            if getattr(module, "bias", None) is not None and hasattr(module, "kernel_size"):
                module.bias.fill_(-30.0)


def _tiny(net: Any) -> None:
    import torch

    with torch.no_grad():
        for one in net.parameters():
            one.mul_(0.08)


def _plans() -> dict[str, tuple[Callable[[Plan, np.random.Generator], Plan], set[str]]]:
    u = np.random.Generator.uniform
    calm = {"schedule": constant}
    return {
        "exploding": (
            lambda p, r: replace(p, optimizer="sgd", norm=False, rate=float(u(r, 2, 20)), **calm),
            {"TRN050", "TRN051", "TRN053"},
        ),
        "nan-in-loss": (
            lambda p, r: replace(
                p,
                loss="log of softmax",
                norm=False,
                optimizer="adam",
                decay=0.0,
                rate=5e-3,
                scale=lambda at: 1.0 if at < 0.4 else 1e4,
                **calm,
            ),
            {"TRN050", "TRN051"},
        ),
        "growing-rate": (
            lambda p, r: replace(
                p, norm=False, optimizer="sgd", rate=0.02, schedule=lambda at: float(np.exp(at * 5.5))
            ),
            {"TRN050", "TRN051", "TRN059"},
        ),
        "growing-inputs": (
            lambda p, r: replace(
                p,
                norm=False,
                optimizer="adam",
                rate=1e-3,
                scale=lambda at: 1 + 150 * max(0.0, at - 0.5),
                **calm,
            ),
            {"TRN051", "TRN063"},
        ),
        "targets-masked": (lambda p, r: replace(p, masked_from=float(u(r, 0.0, 0.3))), {"TRN052"}),
        "one-output": (lambda p, r: replace(p, loss="one output"), {"TRN052"}),
        "not-in-optimizer": (lambda p, r: replace(p, frozen=True), {"TRN053"}),
        "rate-tiny": (lambda p, r: replace(p, optimizer="adam", rate=1e-8), {"TRN053"}),
        "dead": (lambda p, r: replace(p, norm=False, start=_dead), {"TRN053"}),
        "labels-shuffled": (
            lambda p, r: replace(p, noise=1.0, width=8, decay=0.0, classes=10),
            {"TRN053", "TRN055", "TRN056"},
        ),
        "rate-high": (
            lambda p, r: replace(
                p, optimizer="adam", norm=True, rate=float(u(r, 0.15, 0.6)), batch=32, **calm
            ),
            {"TRN050", "TRN051", "TRN053", "TRN054", "TRN056"},
        ),
        "swinging": (
            lambda p, r: replace(
                p, norm=True, batch=32, optimizer="sgd", rate=float(u(r, 0.2, 0.4)), epochs=25, **calm
            ),
            {"TRN054", "TRN056"},
        ),
        "few-samples": (
            lambda p, r: replace(
                p,
                n_train=int(u(r, 200, 500)),
                flip=False,
                drop=0.0,
                smoothing=0.0,
                classes=10,
                epochs=40,
                batch=32,
                decay=0.0,
                **calm,
            ),
            {"TRN055"},
        ),
        "noise-learnt": (
            lambda p, r: replace(
                p,
                n_train=1500,
                flip=False,
                drop=0.0,
                smoothing=0.0,
                noise=0.4,
                epochs=40,
                batch=32,
                decay=0.0,
                width=24,
                **calm,
            ),
            {"TRN055"},
        ),
        "too-small": (
            lambda p, r: replace(p, depth=1, width=1, drop=0.5, smoothing=0.0, classes=10),
            {"TRN056"},
        ),
        "decay-strong": (
            lambda p, r: replace(p, optimizer="sgd", decay=float(u(r, 0.05, 0.1)), norm=False, rate=0.05),
            {"TRN053", "TRN056"},
        ),
        "dropped-out": (
            lambda p, r: replace(p, drop=0.97, smoothing=0.0, classes=10, width=8),
            {"TRN056", "TRN058"},
        ),
        "stopped": (
            lambda p, r: replace(
                p,
                optimizer="sgd",
                norm=False,
                rate=float(u(r, 2e-3, 4e-3)),
                momentum=0.9,
                epochs=12,
                n_train=4000,
                batch=64,
                classes=10,
                smoothing=0.0,
                drop=0.0,
                **calm,
            ),
            {"TRN057"},
        ),
        "val-is-train": (
            lambda p, r: replace(
                p,
                val_of_train=True,
                drop=0.5,
                width=24,
                epochs=60,
                n_train=400,
                n_val=300,
                smoothing=0.0,
                classes=10,
            ),
            {"TRN058", "TRN062"},
        ),
        "rate-raised": (
            lambda p, r: replace(
                p, optimizer="adam", norm=False, rate=1e-3, schedule=lambda at: 1.0 if at < 0.5 else 30.0
            ),
            {"TRN050", "TRN051", "TRN053", "TRN059"},
        ),
        "cut-early": (
            lambda p, r: replace(
                p,
                optimizer="sgd",
                norm=False,
                rate=0.02,
                epochs=30,
                schedule=lambda at: 1.0 if at < 0.2 else 0.003,
            ),
            {"TRN059"},
        ),
        "schedule-short": (
            lambda p, r: replace(p, epochs=30, schedule=lambda at: cosine(min(1.0, at * 3))),
            {"TRN059"},
        ),
        "plateau-first": (
            lambda p, r: replace(
                p,
                norm=False,
                optimizer="sgd",
                start=_tiny,
                depth=3,
                rate=float(u(r, 0.02, 0.04)),
                epochs=30,
                **calm,
            ),
            {"TRN060", "TRN053"},
        ),
        "cut-late": (
            lambda p, r: replace(
                p,
                optimizer="sgd",
                norm=True,
                rate=0.2,
                batch=32,
                epochs=30,
                drop=0.0,
                decay=1e-4,
                schedule=lambda at: 1.0 if at < 0.6 else 0.02,
            ),
            {"TRN060", "TRN054"},
        ),
        "broken-batches": (
            lambda p, r: replace(
                p,
                norm=False,
                optimizer="adam",
                rate=1e-3,
                broken=(0.006, 60.0),
                every=1,
                batch=32,
                n_train=3000,
                epochs=15,
                classes=4,
                **calm,
            ),
            {"TRN061"},
        ),
    }


def kinds() -> dict[str, set[str]]:
    """The kinds of runs with a mistake, and the codes that name it."""
    return {name: codes for name, (_, codes) in _plans().items()}


def make(folder: Path, data: Path, seeds: Iterable[int], only: str = "") -> None:
    """Train what isn't there yet: for each seed a healthy run, or `only` those of a kind."""
    import torch

    torch.set_num_threads(1)
    pixels, labels = images(data)
    folder.mkdir(parents=True, exist_ok=True)
    plans = _plans()
    for seed in seeds:
        names = [only] if only else ["healthy", *([] if seed % 12 else list(plans))]
        for name in names:
            path = folder / f"{name}-{seed:03d}.csv"
            if path.exists():
                continue
            rng = np.random.default_rng([seed, sum(map(ord, name))])
            plan = _usual(rng)
            if name in plans:
                plan = plans[name][0](plan, rng)
            start = time.perf_counter()
            table = train(plan, pixels, labels, seed)
            table.to_csv(path, index=False, na_rep="")
            print(f"{path.name}: {len(table)} rows in {time.perf_counter() - start:.1f} s", flush=True)


def is_healthy(table: pd.DataFrame) -> bool:
    """What is expected of a run without a mistake (see above)."""
    guessing = float(table["train_acc"].iloc[0]) if len(table) < 3 else float(table["train_acc"].min())
    lowest = float(table["val_loss"].rolling(3, center=True).mean().min())
    train, val = (float(table[name].iloc[-3:].mean()) for name in ("train_acc", "val_acc"))
    ended = float(table["val_loss"].iloc[-3:].mean())
    return ended <= 1.05 * lowest and train >= (1 + min(guessing, 0.5)) / 2 and train - val <= 0.12
