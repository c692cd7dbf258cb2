"""Faults as users make them are named; set-ups that look like them and are sound are left alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the name that everyone knows
from torch.optim import lr_scheduler

from dataaudit.modelcheck.training.overfitting import Overfit, overfit

Pair = tuple[torch.Tensor, torch.Tensor]


def digits(n: int = 8, classes: int = 4) -> Pair:
    from sklearn.datasets import load_digits

    found = load_digits(n_class=classes)
    x = torch.tensor(found.images[:n], dtype=torch.float32)[:, None] / 8 - 1
    return F.interpolate(x, scale_factor=4).expand(-1, 3, -1, -1).contiguous(), torch.tensor(found.target[:n])


def cnn() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1),
        nn.BatchNorm2d(32), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(128, 4),
    )  # fmt: skip


def plain() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(256, 4)
    )


def sgd(rate: float, **settings: Any) -> Callable[[nn.Module], torch.optim.Optimizer]:
    return lambda model: torch.optim.SGD(model.parameters(), lr=rate, **settings)


def learn(model: nn.Module, data: Pair | None = None, **settings: Any) -> Overfit:
    x, y = data if data is not None else digits()
    alone = "step" in settings or "train_step" in settings
    loss = settings.pop("loss", None if alone else nn.CrossEntropyLoss())
    return overfit(model, loss, x, y, seconds=60, **settings)


class Blind(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3072, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.ones_like(x).flatten(1))


def misfitting_norms() -> nn.Module:
    model = cnn()
    model[1].running_var.fill_(1e6)
    model[1].eval()
    return model


def resting_norms() -> nn.Module:
    model = cnn()
    model[1].momentum = 0.0
    return model


def pooled_norm() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2), nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8, 4)
    )


def equal_weights() -> nn.Module:
    model = nn.Sequential(nn.Flatten(), nn.Linear(3072, 32), nn.ReLU(), nn.Linear(32, 4))
    for one in model.parameters():
        nn.init.constant_(one, 0.5)
    return model


def rectified() -> nn.Module:
    return nn.Sequential(cnn(), nn.ReLU())


class Root(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = cnn()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = self.body(x)
        return z + torch.sqrt((z * 0).square())


def shuffled(model: nn.Module, data: Pair) -> torch.Tensor:
    return F.cross_entropy(model(data[0]), data[1][torch.randperm(len(data[1]))])


class Stepping:
    """A whole step, with a scheduler."""

    def __init__(self, make: Callable[[torch.optim.Optimizer], Any]) -> None:
        self.make, self.scheduler = make, None

    def __call__(self, model: nn.Module, optimizer: torch.optim.Optimizer, data: Pair) -> torch.Tensor:
        if self.scheduler is None:
            self.scheduler = self.make(optimizer)
        optimizer.zero_grad()
        loss = F.cross_entropy(model(data[0]), data[1])
        loss.backward()
        optimizer.step()
        self.scheduler.step()
        return loss


class Stale:
    """The model is called in the first step only."""

    def __init__(self) -> None:
        self.held: list[torch.Tensor] = []

    def __call__(self, model: nn.Module, optimizer: torch.optim.Optimizer, data: Pair) -> torch.Tensor:
        if not self.held:
            self.held.append(model(data[0]))
        optimizer.zero_grad()
        loss = F.cross_entropy(self.held[0], data[1])
        loss.backward(retain_graph=True)
        optimizer.step()
        return loss


def scaled(unscale: bool) -> Callable[..., torch.Tensor]:
    scaler = torch.amp.GradScaler("cpu")

    def train_step(model: nn.Module, optimizer: torch.optim.Optimizer, data: Pair) -> torch.Tensor:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = F.cross_entropy(model(data[0]), data[1])
        scaler.scale(loss).backward()
        if unscale:
            scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
        return loss

    return train_step


def in_parts(divided: bool) -> Callable[..., torch.Tensor]:
    def train_step(model: nn.Module, optimizer: torch.optim.Optimizer, data: Pair) -> torch.Tensor:
        optimizer.zero_grad()
        for x, y in zip(data[0].chunk(4), data[1].chunk(4), strict=True):
            loss = F.cross_entropy(model(x), y)
            (loss / 4 if divided else loss).backward()
        optimizer.step()
        return loss

    return train_step


def wrong_sign(out: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return out.log_softmax(1).gather(1, targets[:, None]).mean()


def another() -> Callable[..., torch.Tensor]:
    other = cnn()

    def train_step(_: nn.Module, optimizer: torch.optim.Optimizer, data: Pair) -> torch.Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(other(data[0]), data[1])
        loss.backward()
        optimizer.step()
        return loss

    return train_step


def pixels(factor: float) -> Pair:
    x, y = digits()
    return (x + 1) / 2 * factor, y


def linear() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(3072, 4))


def by(train_step: Callable[..., torch.Tensor]) -> dict[str, Any]:
    return {"train_step": train_step, "optimizer": sgd(0.02)}


def warmed(optimizer: torch.optim.Optimizer) -> lr_scheduler.LRScheduler:
    return lr_scheduler.LambdaLR(optimizer, lambda at: min(1, at / 10))


def of_head(model: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(model[-1].parameters(), 0.01)


FAULTS: dict[str, tuple[Callable[[], nn.Module], dict[str, Any], str, str]] = {
    "inputs never used": (Blind, {}, "TRN001", "nor with any of"),
    "batch norm at other statistics": (misfitting_norms, {"optimizer": sgd(0.01)}, "TRN009", "train mode"),
    "batch norm that follows nothing": (resting_norms, {}, "TRN009", "momentum=0"),
    "one value a channel": (pooled_norm, {"data": digits(1)}, "TRN009", "one value a channel"),
    "divided by 255 twice": (plain, {"data": pixels(1 / 255), "optimizer": sgd(0.05)}, "TRN012", "is given"),
    "pixels of 0 to 255": (cnn, {"data": pixels(255)}, "TRN012", "neither divided by 255"),
    "equal weights": (equal_weights, {"optimizer": sgd(0.01)}, "TRN010", "are all 0.5"),
    "ReLU at the end": (rectified, {}, "TRN005", "ends in relu"),
    "rate falls to 0": (cnn, {"train_step": Stepping(lambda one: lr_scheduler.ExponentialLR(one, 0.1)),
                              "optimizer": sgd(0.05)}, "TRN004", "scheduler"),
    "momentum above 1": (cnn, {"optimizer": sgd(0.01, momentum=1.1)}, "TRN004", "momentum of SGD is 1.1"),
    "decay": (cnn, {"optimizer": lambda one: torch.optim.AdamW(one.parameters(), 1e-2, weight_decay=10.0)},
              "TRN008", "Weight decay 10"),
    "wrong sign": (cnn, {"loss": wrong_sign}, "TRN014", "lower for wrong predictions"),
    "targets shuffled in the step": (cnn, {"step": shuffled}, "TRN006", "paired anew"),
    "old output, one layer": (linear, by(Stale()), "TRN007", "last digit"),
    "old output": (cnn, by(Stale()), "TRN007", "an earlier step"),
    "clipped before unscale_": (cnn, by(scaled(False)), "TRN007", "unscale_"),
    "parts not divided": (cnn, by(in_parts(False)), "TRN007", "divided by 4"),
    "another model": (cnn, by(another()), "TRN002", "never calls the model"),
    "root of 0": (Root, {}, "TRN020", "returns NaN"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_the_fault_comes_first(name: str) -> None:
    make, settings, code, says = FAULTS[name]
    torch.manual_seed(0)
    done = learn(make(), **settings)
    assert done.findings, done.said
    assert (done.findings[0].code, says in done.findings[0].message) == (code, True), done.findings[0].message


def focal(out: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    each = F.cross_entropy(out, targets, reduction="none")
    return ((1 - torch.exp(-each)) ** 2 * each).mean()


def dice(out: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    p = out.sigmoid()
    return 1 - (2 * (p * targets).sum() + 1) / (p.sum() + targets.sum() + 1)


def contrastive(out: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    z = F.normalize(out, dim=1)
    eye = torch.eye(len(z), dtype=torch.bool)
    near = (z @ z.T / 0.1).masked_fill(eye, -1e9)
    same = (targets[:, None] == targets[None]) & ~eye
    return -((near - near.logsumexp(1, keepdim=True)) * same).sum() / same.sum()


def mixup(model: nn.Module, data: Pair) -> torch.Tensor:
    x, y = data
    order = torch.randperm(len(x))
    out = model(0.8 * x + 0.2 * x[order])
    return 0.8 * F.cross_entropy(out, y) + 0.2 * F.cross_entropy(out, y[order])


def segmenter(channels: int) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 16, 3, 1, 1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, channels, 1))


def masks() -> Pair:
    x, _ = digits()
    y = (x[:, 0] > 0.3).long()
    y[:, :4] = 255
    return x, y


def tuned() -> nn.Module:
    model = cnn()
    for one in model.parameters():
        one.requires_grad_(False)
    model[-1] = nn.Linear(128, 4)
    return model


def regression() -> Pair:
    x, y = digits()
    return x, y.float()


SOUND: dict[str, tuple[Callable[[], nn.Module], dict[str, Any]]] = {
    "label smoothing": (cnn, {"loss": nn.CrossEntropyLoss(label_smoothing=0.3), "optimizer": sgd(0.05)}),
    "focal loss": (cnn, {"loss": focal}),
    "class weights": (cnn, {"loss": nn.CrossEntropyLoss(weight=torch.tensor([1.0, 5.0, 0.2, 10.0]))}),
    "void pixels": (lambda: segmenter(2), {"data": masks(), "loss": nn.CrossEntropyLoss(ignore_index=255)}),
    "dice": (lambda: segmenter(1), {"data": (digits()[0], (digits()[0][:, :1] > 0.3).float()), "loss": dice}),
    "contrastive": (lambda: cnn()[:-1], {"loss": contrastive}),
    "hinge": (cnn, {"data": (digits()[0], 2.0 * F.one_hot(digits()[1], 4) - 1),
                    "loss": lambda out, want: F.relu(1 - out * want).mean()}),
    "mixup": (cnn, {"step": mixup}),
    "regression by L1": (lambda: nn.Sequential(cnn(), nn.Linear(4, 1), nn.Flatten(0)),
                         {"data": regression(), "loss": nn.L1Loss()}),
    "mixed precision": (cnn, {"train_step": scaled(True), "optimizer": sgd(0.05, momentum=0.9)}),
    "a scaler": (cnn, {"scaler": torch.amp.GradScaler("cpu")}),
    "parts divided": (linear, by(in_parts(True))),
    "warm-up": (cnn, {"train_step": Stepping(warmed),
                      "optimizer": sgd(0.05, momentum=0.9)}),
    "frozen backbone, new head": (tuned, {"optimizer": of_head}),
    "log-probabilities": (lambda: nn.Sequential(cnn(), nn.LogSoftmax(1)), {"loss": nn.NLLLoss()}),
}  # fmt: skip


@pytest.mark.parametrize("name", SOUND)
def test_a_sound_set_up_gives_no_finding(name: str) -> None:
    make, settings = SOUND[name]
    done = learn(make(), **settings)
    assert [item.message for item in done.findings] == []
    assert done.learned or done.run.falling, done.said


def test_right_predictions_alone_are_not_enough() -> None:
    x, y = digits()
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3072, 4))
    with torch.no_grad():
        solved = torch.linalg.lstsq(x.flatten(1), 1e-3 * F.one_hot(y, 4).float()).solution
        model[1].weight.copy_(solved.T)
        model[1].bias.zero_()
    done = learn(model, optimizer=sgd(1e-9))
    assert (done.learned, done.run.correct) == (False, 1.0)
    assert [item.code for item in done.findings] == ["TRN004"]


def test_a_compiled_model_is_checked_and_a_sharded_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert learn(torch.compile(cnn())).learned
    sharded = type("FullyShardedDataParallel", (nn.Linear,), {})
    with pytest.raises(ValueError, match="before fully_shard"):
        learn(sharded(4, 4))
