"""Small LightningModules and their data, for tests of the callback."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

import pytorch_lightning as lightning  # isort: skip


class Colours(Dataset[Any]):
    """Images of noise in one of three colours, with their class and name; every tenth label is wrong."""

    def __init__(self, n: int = 48, *, as_dict: bool = False) -> None:
        chance = torch.Generator().manual_seed(0)
        self.true = torch.arange(n) % 3
        self.images = torch.rand(n, 3, 12, 12, generator=chance) * 0.5
        for at in range(n):
            self.images[at, self.true[at]] += 0.5
        self.given = self.true.clone()
        self.given[::10] = (self.given[::10] + 1) % 3
        self.as_dict = as_dict

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, at: int) -> Any:
        name = f"{'rgb'[self.given[at]]}/{at:03d}.png"
        if self.as_dict:
            return {"image": self.images[at], "label": self.given[at], "path": name}
        return self.images[at], self.given[at], name


def loader(n: int = 48, *, as_dict: bool = False) -> DataLoader[Any]:
    data = Colours(n, as_dict=as_dict)
    return DataLoader(data, 12, shuffle=True, generator=torch.Generator().manual_seed(1))


def backbone(dropout: float = 0.1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Dropout(dropout), nn.Linear(8, 3),
    )  # fmt: skip


class Sound(lightning.LightningModule):
    """A classifier without a fault, and without ``forward``."""

    def __init__(self, rate: float = 0.02) -> None:
        super().__init__()
        self.net, self.rate = backbone(), rate
        self.calls = 0
        self.kept: list[float] = []

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        images, given, _ = batch
        self.calls += 1
        loss = functional.cross_entropy(self.net(images), given)
        self.kept.append(float(loss.detach()))
        self.log("train_loss", loss, on_step=True, on_epoch=True)
        if self.logger is not None:
            self.logger.log_metrics({"own": float(loss.detach())}, step=self.global_step)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", functional.cross_entropy(self.net(batch[0]), batch[1]))

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), self.rate)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 2)]


class Soft(Sound):
    """Softmax before cross entropy."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        images, given, _ = batch
        return functional.cross_entropy(self.net(images).softmax(1), given)


class Rooted(Sound):
    """A root of zero, whose slope is infinite, from step 5 on."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        images, given, _ = batch
        scores = self.net(images)
        if self.global_step >= 5:
            scores = torch.sqrt(scores * 0) + scores
        return functional.cross_entropy(scores, given)


class Named(Sound):
    """Batches are mappings, and the model is called through ``forward``."""

    def forward(self, images: torch.Tensor) -> Any:
        return self.net(images)

    def training_step(self, batch: Any) -> Any:
        return {"loss": functional.cross_entropy(self(batch["image"]), batch["label"])}


class Mixed(Sound):
    """Mixup: images and labels of two samples are mixed."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        images, given, _ = batch
        other = given.flip(0)
        scores = self.net(0.6 * images + 0.4 * images.flip(0))
        return 0.6 * functional.cross_entropy(scores, given) + 0.4 * functional.cross_entropy(scores, other)


class Manual(Sound):
    """Optimizes by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        images, given, _ = batch
        optimizer: Any = self.optimizers()
        optimizer.zero_grad()
        loss = functional.cross_entropy(self.net(images), given)
        self.manual_backward(loss)
        optimizer.step()
        self.log("train_loss", loss)
        return loss


class Warmed(Sound):
    """The learning rate begins near 0."""

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), self.rate)
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1e-6, total_iters=20)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


class Adversaries(Sound):
    """Two optimizers."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> None:
        loss = functional.cross_entropy(self.net(batch[0]), batch[1])
        self.manual_backward(loss)
        for optimizer in self.optimizers():  # type: ignore[union-attr]
            optimizer.step()
            optimizer.zero_grad()

    def configure_optimizers(self) -> Any:
        return [torch.optim.SGD(one.parameters(), 0.1) for one in (self.net[0], self.net[6])]


def trainer(folder: Path, *callbacks: Any, epochs: int = 2, **settings: Any) -> Any:
    lightning.seed_everything(0)
    settings = {"logger": False, **settings}
    return lightning.Trainer(
        max_epochs=epochs, accelerator="cpu", default_root_dir=folder, callbacks=list(callbacks),
        enable_progress_bar=False, enable_checkpointing=False, enable_model_summary=False,
        log_every_n_steps=1, **settings,
    )  # fmt: skip


def two_processes(folder: Path) -> None:
    """Train in two processes, each with half of the samples."""
    from dataaudit.modelcheck import SanityCheck

    check = SanityCheck(watch_every=1, seconds=20)
    run = trainer(folder, check, devices=2, strategy="ddp")
    run.fit(Sound(), loader())
    print(run.global_rank, [item.code for item in check.findings], flush=True)  # noqa: T201


if __name__ == "__main__":
    assert importlib.util.find_spec("pytorch_lightning") is not None
    two_processes(Path(sys.argv[1]))
