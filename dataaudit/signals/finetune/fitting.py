"""Runs the folds with Lightning, each from where it was stopped; loads torch and Lightning."""

from __future__ import annotations

import contextlib
import logging
import shutil
import signal
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as lightning
import torch
from pytorch_lightning.callbacks import Callback, ModelCheckpoint

from dataaudit.cache import read_arrays, write_arrays
from dataaudit.errors import DataAuditError
from dataaudit.progress import bar
from dataaudit.signals.backbones import pick_device
from dataaudit.signals.finetune.begin import begin_head, features_of, usable_size
from dataaudit.signals.finetune.models import Classifier, Recipe, build, recipe_named
from dataaudit.signals.finetune.pictures import Pictures, pictures_of
from dataaudit.signals.finetune.plan import Data, Settings
from dataaudit.signals.finetune.training import Fold, Training
from dataaudit.types import Workplace

__all__ = ["Found", "run"]

Floats = np.ndarray[Any, np.dtype[np.float32]]
Arrays = dict[str, np.ndarray[Any, Any]]

_KEEP = 4
_FROZEN_ON_CPU = 0.25
_LOGGERS = ("pytorch_lightning", "lightning_fabric")


@dataclass(frozen=True, kw_only=True)
class Found:
    """What the folds found.

    Attributes:
        curves: (folds, epochs, 3, n) float32, see `Training.curves`.
        probabilities: (n, k) float32 out-of-sample.
        size: pixels a side.
    """

    curves: Floats
    probabilities: Floats
    size: int


def run(data: Data, settings: Settings, workplace: Workplace) -> Found:
    """Train and predict all folds that aren't finished yet.

    Args:
        data: the labeled images in their folds.
        settings: how.
        workplace: device, cache and whether progress is shown.

    Raises:
        KeyboardInterrupt: Ctrl-C; all epochs but the one that was under way are in the cache.
    """
    with torch.random.fork_rng():
        return _run(data, settings, workplace)


def _run(data: Data, settings: Settings, workplace: Workplace) -> Found:
    recipe = recipe_named(settings.model, pretrained=settings.pretrained)
    side = usable_size(recipe, settings.side(data, recipe.size))
    device = pick_device(workplace.device)
    frozen = settings.frozen_fraction
    if frozen == -1:
        frozen = _FROZEN_ON_CPU if device == "cpu" and settings.pretrained else 0.0
    digest = data.digest(settings, recipe.name, side, frozen)
    with _folder(workplace.cache, digest) as folder:
        work = _Work(data, settings, recipe, side, device, frozen, folder, shown=workplace.progress)
        results = [work.result(number) for number in range(data.n_folds)]
        work.clear()
    probabilities = np.empty((len(data.ids), len(data.classes)), dtype=np.float32)
    for number, result in enumerate(results):
        probabilities[data.fold == number] = result["probabilities"]
    return Found(
        curves=np.stack([result["curves"] for result in results]), probabilities=probabilities, size=side
    )


@contextlib.contextmanager
def _folder(cache: Path | None, digest: str) -> Iterator[Path]:
    """Folder of one training; those of the latest few are kept."""
    if cache is None:
        with tempfile.TemporaryDirectory(prefix="dataaudit-finetune-") as name:
            yield Path(name)
        return
    folder = cache / "finetune" / digest
    folder.mkdir(parents=True, exist_ok=True)
    folder.touch()
    others = sorted(folder.parent.iterdir(), key=lambda other: other.stat().st_mtime)
    for old in others[:-_KEEP]:
        shutil.rmtree(old, ignore_errors=True)
    yield folder


class _Work:
    """The folds of one training; images and features are made when the first fold needs them."""

    def __init__(self, data: Data, settings: Settings, recipe: Recipe, side: int, device: str,
                 frozen: float, folder: Path, *, shown: bool) -> None:  # fmt: skip
        self._data, self._settings, self._recipe, self._side = data, settings, recipe, side
        self._device, self._frozen, self._folder, self._shown = device, frozen, folder, shown

    def result(self, number: int) -> Arrays:
        """``curves`` (epochs, 3, n) and ``probabilities`` (held out images, k) of a fold."""
        file = self._folder / f"fold-{number}.npz"
        found = read_arrays(file)
        if found is None:
            latest = self._folder / f"fold-{number}.ckpt"
            training = Training(self._begin(number), self._fold(number))
            title = f"Fine-tuning, fold {number + 1} of {self._data.n_folds}"
            machine = _machine(self._device, self._settings.devices)
            _fit(training, latest, file, machine, _Progress(title, self._shown))
            found = read_arrays(file)
            latest.unlink(missing_ok=True)
        if found is None:
            raise DataAuditError("The training ended without a result.", where=file)
        return found

    def clear(self) -> None:
        """Take away what only the training needed."""
        for left in self._folder.iterdir():
            if left.suffix != ".npz" or left.name == "features.npz":
                left.unlink()

    @cached_property
    def _pictures(self) -> Pictures:
        with bar("Decoding images", shown=self._shown) as update:
            return pictures_of(
                self._data.filepaths, self._side, self._folder, progress=update,
                max_bytes=int(self._settings.max_gib * 2**30),
            )  # fmt: skip

    @cached_property
    def _features(self) -> Floats | None:
        if not self._settings.pretrained:
            return None
        file = self._folder / "features.npz"
        found = read_arrays(file)
        if found is not None:
            return found["features"]
        classifier = build(self._recipe, len(self._data.classes))
        with bar("Embedding images", shown=self._shown) as update:
            features = features_of(classifier, self._pictures, self._device, update)
        if features is not None:
            write_arrays(file, {"features": features})
        return features

    def _begin(self, number: int) -> Classifier:
        torch.manual_seed(self._settings.seed)
        classifier = build(self._recipe, len(self._data.classes))
        trained = self._data.fold != number
        if self._features is not None:
            begin_head(classifier, self._features[trained], self._data.given[trained], self._device)
        return classifier

    def _fold(self, number: int) -> Fold:
        settings = self._settings
        return Fold(
            pictures=self._pictures, given=self._data.given, held_out=self._data.fold == number,
            n_classes=len(self._data.classes), epochs=settings.epochs, batch_size=settings.batch_size,
            learning_rate=settings.learning_rate, head_rate=settings.head_rate, flip=settings.flip,
            pretrained=settings.pretrained, seed=settings.seed * 1000 + number,
            n_averaged=settings.n_averaged,
            frozen_fraction=self._frozen, workers=settings.workers,
        )  # fmt: skip


def _fit(training: Training, latest: Path, result: Path, machine: dict[str, Any], progress: Callback) -> None:
    """Train for all epochs, from the latest one that was kept, and write the result."""
    with _quiet(), _interruptible() as stopped:
        trainer = lightning.Trainer(
            **machine, max_epochs=training.fold.epochs, default_root_dir=latest.parent,
            callbacks=[
                progress, stopped, _Result(result),
                ModelCheckpoint(
                    latest.parent, latest.stem, save_on_train_epoch_end=True, enable_version_counter=False
                ),
            ],
            logger=False, enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
            use_distributed_sampler=False, gradient_clip_val=1.0,
        )  # fmt: skip
        trainer.fit(training, ckpt_path=str(latest) if _readable(latest) else None)


def _machine(device: str, devices: int) -> dict[str, Any]:
    """Accelerator, devices, strategy and precision for the trainer."""
    kind, _, number = device.partition(":")
    if kind == "cuda":
        chosen: Any = [int(number)] if number else (devices or torch.cuda.device_count())
        several = not number and chosen > 1
        precision = "bf16-mixed" if torch.cuda.is_bf16_supported() else "16-mixed"
    else:
        chosen, precision = max(devices, 1), "32-true"
        several = chosen > 1
    accelerator = {"cuda": "gpu"}.get(kind, kind)
    # Lightning's other way starts the whole command again on each device.
    strategy = "ddp_spawn" if several else "auto"
    return {"accelerator": accelerator, "devices": chosen, "strategy": strategy, "precision": precision}


def _readable(checkpoint: Path) -> bool:
    if not checkpoint.exists():
        return False
    try:
        torch.load(checkpoint, map_location="cpu", weights_only=True)
    except Exception:
        # torch and zipfile raise whatever a damaged file leads them into; the fold begins again then.
        return False
    return True


class _Progress(Callback):
    """A bar over the images of all epochs; made in the process that trains."""

    def __init__(self, title: str, shown: bool) -> None:
        self._title, self._shown = title, shown
        self._stack: contextlib.ExitStack | None = None

    def on_train_start(self, trainer: Any, module: Any) -> None:
        shown = self._shown and trainer.is_global_zero
        with contextlib.ExitStack() as stack:
            self._update = stack.enter_context(bar(self._title, unit="batches", shown=shown))
            self._stack = stack.pop_all()

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        if self._update is not None:
            self._update(trainer.global_step, int(trainer.estimated_stepping_batches))

    def teardown(self, trainer: Any, module: Any, stage: str) -> None:
        if self._stack is not None:
            self._stack.close()
            self._stack = None


class _Result(Callback):
    """Writes what was recorded, when all epochs are done."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def on_fit_end(self, trainer: Any, module: Any) -> None:
        if trainer.is_global_zero:
            write_arrays(self._file, {"curves": module.curves, "probabilities": module.probabilities})


class _Stopped(Callback):
    """Whether it was Ctrl-C that ended the training."""

    def __init__(self) -> None:
        self.by_hand = False

    def __setstate__(self, state: dict[str, Any]) -> None:
        # Read by another process, one a device, before it trains: it should be as quiet as this one.
        self.__dict__.update(state)
        _silence()

    def on_exception(self, trainer: Any, module: Any, exception: BaseException) -> None:
        self.by_hand = isinstance(exception, KeyboardInterrupt)


@contextlib.contextmanager
def _interruptible() -> Iterator[_Stopped]:
    # On Ctrl-C Lightning turns its handler off and leaves with exit code 1; the audit has a way of its own.
    stopped, before = _Stopped(), signal.getsignal(signal.SIGINT)
    try:
        yield stopped
    except SystemExit as error:
        if stopped.by_hand:
            raise KeyboardInterrupt from error
        raise
    finally:
        if stopped.by_hand:
            signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without Lightning's announcements and advice."""
    before = [logging.getLogger(name).level for name in _LOGGERS]
    try:
        with warnings.catch_warnings():
            _silence()
            yield
    finally:
        for name, level in zip(_LOGGERS, before, strict=True):
            logging.getLogger(name).setLevel(level)


def _silence() -> None:
    warnings.simplefilter("ignore")
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
