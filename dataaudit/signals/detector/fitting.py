"""One fold: a detector of torchvision is fine-tuned on some images and looks at others; loads torch."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from dataaudit.errors import InputError
from dataaudit.signals.detector.decoding import Found
from dataaudit.signals.detector.images import Images, Shown

__all__ = ["Fold", "detected", "tuned"]

_DECAY = 1e-4
_WARM_UP = 0.1
_LARGEST_STEP = 10.0
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.SyncBatchNorm)


@dataclass(frozen=True, kw_only=True)
class Fold:
    """How a fold is trained.

    Attributes:
        learnt: numbers of the images that are learnt from.
        epochs, batch_size, flip: as the signal's settings.
        rate: highest learning rate, of one cycle.
        steady: keep the statistics of the norms, which few images would make worse.
        seed: of order and mirroring.
        device: ``cpu``, ``cuda``, ...
    """

    learnt: Sequence[int]
    epochs: int
    batch_size: int
    rate: float
    flip: bool
    steady: bool
    seed: int
    device: str

    @property
    def n_steps(self) -> int:
        """Steps an epoch."""
        return math.ceil(len(self.learnt) / self.batch_size)


def tuned(
    network: nn.Module, images: Images, fold: Fold, *, file: Path | None, progress: Callable[[], None]
) -> nn.Module:
    """Fine-tune a detector, from where it was stopped.

    Args:
        network: changed in place.
        images: all images.
        fold: how.
        file: where the state after each epoch is kept; None keeps none.
        progress: called after each step, and for each step that was done before.

    Returns:
        The network in evaluation mode.

    Raises:
        InputError: the loss is no number any more.
    """
    network.to(fold.device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=fold.rate, weight_decay=_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, fold.rate, total_steps=fold.n_steps * fold.epochs + 1, pct_start=_WARM_UP,
        cycle_momentum=False,
    )  # fmt: skip
    parts = {"network": network, "optimizer": optimizer, "schedule": schedule}
    first = _restored(parts, file)
    for _ in range(first * fold.n_steps):
        progress()
    for epoch in range(first, fold.epochs):
        network.train()
        if fold.steady:
            for layer in network.modules():
                if isinstance(layer, _NORMS):
                    layer.eval()
        with _seeded(fold, epoch):
            _epoch(network, images, fold, epoch, optimizer, schedule, progress)
        if file is not None and epoch + 1 < fold.epochs:
            _keep(parts, epoch + 1, file)
    return network.eval()


def _epoch(
    network: nn.Module, images: Images, fold: Fold, epoch: int, optimizer: Any, schedule: Any,
    progress: Callable[[], None],
) -> None:  # fmt: skip
    rng = np.random.default_rng([fold.seed, epoch])
    order = rng.permutation(np.asarray(fold.learnt))
    batches = [part.tolist() for part in np.array_split(order, fold.n_steps)]
    mirror = rng.random(len(order)) < (0.5 if fold.flip else 0.0)
    done = 0
    for batch in images.batches(batches):
        shown = [each.mirrored() if mirror[done + row] else each for row, each in enumerate(batch)]
        done += len(batch)
        with _mixed(fold.device):
            losses = network(*_given(shown, fold.device))
        loss = torch.stack([value.float() for value in losses.values()]).sum()
        if not torch.isfinite(loss):
            raise InputError(
                f"The training lost its way: in epoch {epoch + 1} the loss is {loss.item()}.",
                fix="Set a lower learning_rate for the signal finetuned_detections.",
            )
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), _LARGEST_STEP)
        optimizer.step()
        schedule.step()
        progress()


@torch.inference_mode()
def detected(network: nn.Module, images: Images, numbers: Sequence[int], fold: Fold) -> dict[int, Found]:
    """What a detector finds in images, in the pixels of their files.

    Args:
        network: in evaluation mode.
        images: all images.
        numbers: of the images to look at.
        fold: its device and batch size count.
    """
    batches = [
        list(numbers[start : start + fold.batch_size]) for start in range(0, len(numbers), fold.batch_size)
    ]
    found = {}
    for batch, shown in zip(batches, images.batches(batches), strict=True):
        with _mixed(fold.device):
            said = network(_given(shown, fold.device)[0])
        for number, each, own in zip(batch, shown, said, strict=True):
            order = torch.argsort(own["scores"].float().cpu(), descending=True, stable=True)
            scale = torch.tensor(each.scale * 2, dtype=torch.float64)
            found[number] = Found(
                boxes=(own["boxes"].cpu().double()[order] / scale).numpy(),
                scores=own["scores"].cpu().double()[order].clamp(0, 1).numpy(),
                classes=own["labels"].cpu()[order].numpy().astype(np.int64) - 1,
            )
    return found


def _given(shown: Sequence[Shown], device: str) -> tuple[list[torch.Tensor], list[dict[str, torch.Tensor]]]:
    return (
        [each.pixels.to(device).float() / 255 for each in shown],
        [{"boxes": each.boxes.to(device), "labels": each.classes.to(device)} for each in shown],
    )


def _mixed(device: str) -> contextlib.AbstractContextManager[Any]:
    """Half precision where there is a type of it that has the range of float32."""
    if device.startswith("cuda") and torch.cuda.is_bf16_supported():
        return torch.autocast("cuda", dtype=torch.bfloat16)
    return contextlib.nullcontext()


@contextlib.contextmanager
def _seeded(fold: Fold, epoch: int) -> Iterator[None]:
    """Whatever torchvision draws is the same each time, and after an interruption."""
    devices = [torch.device(fold.device)] if fold.device.startswith("cuda") else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(int(np.random.SeedSequence([fold.seed, epoch]).generate_state(1)[0]))
        yield


def _keep(parts: dict[str, Any], epoch: int, file: Path) -> None:
    waiting = file.with_suffix(".part")
    torch.save({"epoch": epoch, **{name: part.state_dict() for name, part in parts.items()}}, waiting)
    waiting.replace(file)


def _restored(parts: dict[str, Any], file: Path | None) -> int:
    """The epochs that are done."""
    if file is None or not file.exists():
        return 0
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception:
        # torch and zipfile raise whatever a damaged file leads them into; the fold begins again then
        return 0
    for name, part in parts.items():
        part.load_state_dict(state[name])
    return int(state["epoch"])
