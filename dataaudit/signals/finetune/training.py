"""One fold: a network is fine-tuned with Lightning on the other folds; loads torch and Lightning."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pytorch_lightning as lightning
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, Sampler

from dataaudit.errors import InputError
from dataaudit.signals.finetune.models import Classifier
from dataaudit.signals.finetune.pictures import Pictures

__all__ = ["CURVES", "Fold", "Training"]

CURVES = ("loss", "margin", "confidence")
"""What is recorded of each image in each epoch, in this order."""

Ints = np.ndarray[Any, np.dtype[np.int64]]
Floats = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True, kw_only=True)
class Fold:
    """What a fold is trained on, and how.

    Attributes:
        pictures: of all n images.
        given: (n,) class numbers.
        held_out: (n,) bool, the images of this fold.
        n_classes: k.
        epochs, batch_size, learning_rate, head_rate, seed, flip: as the signal's settings.
        pretrained: whether the network began with weights, so that batch norms keep their statistics.
        n_averaged: how many epochs, the last ones, are averaged into the probabilities.
        frozen_fraction: share of the layers, the first ones, that keep their weights.
        workers: processes that decode, where the images aren't in one array.
    """

    pictures: Pictures
    given: Ints
    held_out: np.ndarray[Any, np.dtype[np.bool_]]
    n_classes: int
    epochs: int
    batch_size: int
    learning_rate: float
    head_rate: float
    seed: int
    flip: bool
    pretrained: bool
    n_averaged: int
    frozen_fraction: float
    workers: int


class Training(lightning.LightningModule):
    """Trains a classifier on a fold and records what it says of every image in every epoch.

    Attributes:
        curves: (epochs, 3, n) float32, the `CURVES` of each image: of an image that is trained on, as it was
            seen in training; of one that is held out, after the epoch.
        probabilities: (held out images, k) float32, mean over the last epochs.
    """

    def __init__(self, classifier: Classifier, fold: Fold) -> None:
        super().__init__()
        self.classifier, self.fold = classifier, fold
        layers = classifier.layers()
        n_frozen = round(fold.frozen_fraction * len(layers))
        self._frozen, self._trained = layers[:n_frozen], layers[n_frozen:]
        for layer in self._frozen:
            layer.requires_grad_(False)
        # Statistics of few images are worse than those the network was trained with, and the last layer was
        # fitted to features that were made with them.
        norms = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
        kept = [layer for layer in layers if fold.pretrained and isinstance(layer, norms)]
        self._steady = [*self._frozen, *kept]
        self.curves = np.full((fold.epochs, len(CURVES), len(fold.given)), np.nan, dtype=np.float32)
        self._rows = np.flatnonzero(fold.held_out)
        self.probabilities = np.zeros((len(self._rows), fold.n_classes), dtype=np.float32)
        self._seen: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._predicted: list[tuple[torch.Tensor, torch.Tensor]] = []

    def train_dataloader(self) -> DataLoader[Any]:
        """Batches of nearly equal size, as many on each device."""
        rows = np.flatnonzero(~self.fold.held_out)
        return self._loader(
            _Batches(rows, self.fold, self.trainer.global_rank, self.trainer.world_size, True)
        )

    def val_dataloader(self) -> DataLoader[Any]:
        """Each image that is held out, on one device."""
        return self._loader(
            _Batches(self._rows, self.fold, self.trainer.global_rank, self.trainer.world_size, False)
        )

    def _loader(self, batches: _Batches) -> DataLoader[Any]:
        workers = 0 if self.fold.pictures.file is not None else self.fold.workers
        return DataLoader(
            _Rows(self.fold), sampler=batches, batch_size=None, num_workers=workers,
            pin_memory=self.device.type == "cuda",
        )  # fmt: skip

    def configure_optimizers(self) -> Any:
        """AdamW in one cycle; the earlier a layer, the slower it changes."""
        groups = []
        for factor, layers in zip(_RATES, _in_parts(self._trained, len(_RATES)), strict=True):
            groups += _groups(layers, factor * self.fold.learning_rate)
        groups += _groups(list(self.classifier.head.modules()), self.fold.head_rate)
        optimizer = torch.optim.AdamW(groups, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, [group["lr"] for group in groups], pct_start=0.3, div_factor=10,
            total_steps=int(self.trainer.estimated_stepping_batches), cycle_momentum=False,
        )  # fmt: skip
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_train_epoch_start(self) -> None:
        """Begin an epoch."""
        self._seen.clear()
        self.classifier.train()
        for layer in self._steady:
            layer.eval()

    def training_step(self, batch: Any, number: int) -> torch.Tensor:
        """Mean loss of a batch."""
        # So that a training that was stopped goes on as if it had not been.
        facts = [self.fold.seed, self.current_epoch, number, self.global_rank]
        torch.manual_seed(int(np.random.SeedSequence(facts).generate_state(1)[0]))
        images, given, rows = batch
        pixels = _augmented(_pixels(images), flip=self.fold.flip)
        scores = self.classifier(pixels).float()
        losses = functional.cross_entropy(scores, given, reduction="none")
        self._seen.append((rows, _curves(scores.detach(), losses.detach(), given)))
        return losses.mean()

    def on_validation_epoch_start(self) -> None:
        """Begin to predict."""
        self._predicted.clear()
        self.classifier.eval()

    def validation_step(self, batch: Any, number: int) -> None:
        """Predict a batch of images that are held out."""
        images, given, rows = batch
        scores = self.classifier(_pixels(images)).float()
        losses = functional.cross_entropy(scores, given, reduction="none")
        self._seen.append((rows, _curves(scores, losses, given)))
        if self.current_epoch >= self.fold.epochs - self.fold.n_averaged:
            self._predicted.append((rows, scores.softmax(1)))

    def on_validation_epoch_end(self) -> None:
        """Bring together what all devices saw in this epoch; each image was seen by one."""
        own = self.curves[self.current_epoch]
        for rows, curves in self._gathered(self._seen):
            own[:, rows] = curves.T
        if not np.isfinite(own).all():
            raise InputError(
                f"The training lost its way: in epoch {self.current_epoch + 1} scores are NaN or infinite.",
                fix="Set a lower learning_rate for the signal finetuned.",
            )
        for rows, probabilities in self._gathered(self._predicted):
            self.probabilities[np.searchsorted(self._rows, rows)] += probabilities / self.fold.n_averaged
        self._seen.clear()
        self._predicted.clear()

    def _gathered(self, pairs: list[tuple[torch.Tensor, torch.Tensor]]) -> list[tuple[Ints, Floats]]:
        own = [(rows.cpu().numpy(), values.cpu().numpy()) for rows, values in pairs]
        if self.trainer.world_size == 1:
            return own
        everyone: list[list[tuple[Ints, Floats]]] = [[] for _ in range(self.trainer.world_size)]
        torch.distributed.all_gather_object(everyone, own)
        return [pair for each in everyone for pair in each]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what was recorded with the weights."""
        checkpoint["curves"] = torch.from_numpy(self.curves)
        checkpoint["probabilities"] = torch.from_numpy(self.probabilities)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on with what was recorded."""
        self.curves = checkpoint["curves"].numpy().copy()
        self.probabilities = checkpoint["probabilities"].numpy().copy()


_RATES = (0.5, 0.7, 1.0)
"""Rates of the first, middle and last third of the trained layers, as shares of the learning rate."""


class _Rows(Dataset[Any]):
    """The batch of some rows: images, classes and the rows."""

    def __init__(self, fold: Fold) -> None:
        self._fold = fold

    def __getitem__(self, rows: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        images = self._fold.pictures.take(rows)
        return torch.from_numpy(images), torch.from_numpy(self._fold.given[rows]), torch.from_numpy(rows)


class _Batches(Sampler[Any]):
    """Rows by batch, this device's share: as many batches on each in training, and no row twice or never."""

    def __init__(self, rows: Ints, fold: Fold, rank: int, world: int, shuffled: bool) -> None:
        self._rows, self._seed, self._shuffled = rows, fold.seed, shuffled
        self._rank, self._world, self._epoch = rank, world, 0
        size = fold.batch_size if shuffled else 2 * fold.batch_size
        self._n = max(1, round(len(rows) / (size * world)))

    def set_epoch(self, epoch: int) -> None:
        """Another order in each epoch; Lightning calls it."""
        self._epoch = epoch

    def __len__(self) -> int:
        return self._n

    def __iter__(self) -> Iterator[Ints]:
        rows = self._rows
        if self._shuffled:
            rows = np.random.default_rng([self._seed, self._epoch]).permutation(rows)
        yield from np.array_split(rows, self._n * self._world)[self._rank :: self._world]


def _pixels(images: torch.Tensor) -> torch.Tensor:
    return images.permute(0, 3, 1, 2).float() / 255


def _augmented(pixels: torch.Tensor, *, flip: bool) -> torch.Tensor:
    """A random part of each image, at least three quarters of its sides, and with `flip` its mirror image."""
    b, device = len(pixels), pixels.device
    side = 0.75 + 0.25 * torch.rand(b, 2, device=device)
    shift = (2 * torch.rand(b, 2, device=device) - 1) * (1 - side)
    if flip:
        side[:, 0] *= torch.where(torch.rand(b, device=device) < 0.5, -1.0, 1.0)
    turn = torch.zeros(b, 2, 3, device=device)
    turn[:, 0, 0], turn[:, 1, 1], turn[:, :, 2] = side[:, 0], side[:, 1], shift
    grid = functional.affine_grid(turn, list(pixels.shape), align_corners=False)
    return functional.grid_sample(pixels, grid, padding_mode="reflection", align_corners=False)


def _curves(scores: torch.Tensor, losses: torch.Tensor, given: torch.Tensor) -> torch.Tensor:
    """(b, 3) loss, margin and probability of the given class."""
    own = scores.gather(1, given[:, None])[:, 0]
    others = scores.scatter(1, given[:, None], -torch.inf).amax(1)
    return torch.stack([losses, own - others, torch.exp(-losses)], dim=1)


def _in_parts(layers: list[nn.Module], n: int) -> list[list[nn.Module]]:
    edges = np.linspace(0, len(layers), n + 1).round().astype(int)
    return [layers[a:b] for a, b in pairwise(edges)]


def _groups(layers: list[nn.Module], rate: float) -> list[dict[str, Any]]:
    """Parameter groups: weights decay, biases and the factors of norms don't."""
    every = [each for layer in layers for each in layer.parameters(recurse=False) if each.requires_grad]
    # Layers may share their weights
    own = list({id(each): each for each in every}.values())
    parts = ([each for each in own if each.ndim > 1], [each for each in own if each.ndim <= 1])
    rated: list[dict[str, Any]] = [
        {"params": parts[0], "lr": rate},
        {"params": parts[1], "lr": rate, "weight_decay": 0.0},
    ]
    return [group for group in rated if group["params"]]
