"""The folds of a fine-tuned detector, and what they find together; loads torch."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from dataaudit import __version__
from dataaudit.cache import read_arrays, write_arrays
from dataaudit.progress import bar
from dataaudit.signals.backbones import pick_device
from dataaudit.signals.detector import Scene
from dataaudit.signals.detector.decoding import Found
from dataaudit.signals.detector.fitting import Fold, detected, tuned
from dataaudit.signals.detector.images import Images
from dataaudit.signals.detector.models import Recipe, build, longest_side, recipe_named
from dataaudit.signals.detector.settings import Settings
from dataaudit.signals.detector.table import table_of
from dataaudit.types import Workplace

__all__ = ["found"]

_EPOCHS = (8, 30)
_SEEN = 6_000
_RATE, _RATE_FROM_NOTHING = 1e-4, 1e-3
_KEEP = 4
_TIMED = 5
_LONG = 120.0


def found(scene: Scene, images: pd.DataFrame, settings: Settings, workplace: Workplace) -> pd.DataFrame:
    """Fine-tune a detector for each fold; see `dataaudit.signals.detector.finetuned_detections`.

    Args:
        scene: the labels.
        images: those that can be decoded, in the order of the scene.
        settings: of the signal.
        workplace: device, cache and progress.
    """
    recipe = recipe_named(
        settings.model, weights=settings.weights, pretrained=settings.pretrained, size=settings.size
    )
    sizes = images[["width", "height"]].to_numpy(dtype=np.float64).reshape(-1, 2)
    with _folder(workplace.cache, _digest(scene, images, settings, recipe)) as (folder, is_kept):
        work = _Work(
            scene=scene, settings=settings, recipe=recipe, device=pick_device(workplace.device),
            images=_images(scene, images, sizes, settings, recipe), folder=folder, is_kept=is_kept,
        )  # fmt: skip
        seen = work.all(shown=workplace.progress)
    return table_of(seen, scene, images.index, sizes, np.ones((len(images), 2)))


def _images(
    scene: Scene, images: pd.DataFrame, sizes: np.ndarray[tuple[int, int], np.dtype[np.float64]],
    settings: Settings, recipe: Recipe,
) -> Images:  # fmt: skip
    return Images(
        images["filepath"].tolist(), sizes, boxes=scene.boxes, numbers=scene.numbers, owners=scene.images,
        longest=longest_side(recipe), max_bytes=int(settings.max_gib * 2**30),
    )  # fmt: skip


def _digest(scene: Scene, images: pd.DataFrame, settings: Settings, recipe: Recipe) -> str:
    made = hashlib.md5(usedforsecurity=False)
    made.update("\0".join([__version__, settings.facts(), recipe.digest, *scene.classes]).encode())
    made.update("\0".join(images["digest"].astype(str)).encode())
    for values in (scene.images, scene.boxes, scene.numbers, scene.folds):
        made.update(np.ascontiguousarray(values).tobytes())
    return made.hexdigest()[:24]


@contextlib.contextmanager
def _folder(cache: Path | None, digest: str) -> Iterator[tuple[Path, bool]]:
    """Folder of one training, and whether it stays; those of the latest few do."""
    if cache is None:
        with tempfile.TemporaryDirectory(prefix="dataaudit-detector-") as name:
            yield Path(name), False
        return
    folder = cache / "detector" / digest
    folder.mkdir(parents=True, exist_ok=True)
    folder.touch()
    others = sorted(folder.parent.iterdir(), key=lambda other: other.stat().st_mtime)
    for old in others[:-_KEEP]:
        shutil.rmtree(old, ignore_errors=True)
    yield folder, True


@dataclass(frozen=True, kw_only=True)
class _Work:
    """The training of all folds."""

    scene: Scene
    settings: Settings
    recipe: Recipe
    device: str
    images: Images
    folder: Path
    is_kept: bool

    def all(self, *, shown: bool) -> list[Found]:
        """What is found in each image."""
        n_folds = int(self.scene.folds.max()) + 1
        folds = [self._fold(number) for number in range(n_folds)]
        n_steps = sum(fold.n_steps * fold.epochs for fold in folds)
        seen: dict[int, Found] = {}
        with bar("Fine-tuning a detector", unit="batches", shown=shown) as update:
            steps = _Steps(total=n_steps, update=update, device=self.device, shown=shown)
            for number, fold in enumerate(folds):
                seen |= self._seen(number, fold, steps)
        return [seen[number] for number in range(len(self.images))]

    def _fold(self, number: int) -> Fold:
        settings = self.settings
        learnt = np.flatnonzero(self.scene.folds != number).tolist()
        rate = settings.learning_rate or (_RATE if settings.pretrained else _RATE_FROM_NOTHING)
        return Fold(
            learnt=learnt, batch_size=settings.batch_size, rate=rate, flip=settings.flip,
            epochs=settings.epochs or int(np.clip(round(_SEEN / len(learnt)), *_EPOCHS)),
            steady=settings.pretrained, seed=1000 * settings.seed + number, device=self.device,
        )  # fmt: skip

    def _seen(self, number: int, fold: Fold, steps: _Steps) -> dict[int, Found]:
        """What is found in the images of a fold, from disk where that is finished."""
        file = self.folder / f"fold-{number}.npz"
        own = np.flatnonzero(self.scene.folds == number).tolist()
        arrays = read_arrays(file)
        if arrays is not None:
            steps.skip(fold.n_steps * fold.epochs)
            return {each: Found(boxes=arrays[f"boxes-{each}"], scores=arrays[f"scores-{each}"],
                                classes=arrays[f"classes-{each}"]) for each in own}  # fmt: skip
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(fold.seed)
            network = build(self.recipe, len(self.scene.classes))
        latest = self.folder / f"fold-{number}.pt" if self.is_kept else None
        tuned(network, self.images, fold, file=latest, progress=steps.one)
        seen = detected(network, self.images, own, fold)
        write_arrays(
            file,
            {f"{name}-{each}": value for each, said in seen.items() for name, value in vars(said).items()},
        )
        if latest is not None:
            latest.unlink(missing_ok=True)
        return seen


@dataclass(kw_only=True)
class _Steps:
    """Counts steps, and says on a CPU how long all will take."""

    total: int
    update: Callable[[int, int], None] | None
    device: str
    shown: bool
    done: int = 0
    timed: list[float] = field(default_factory=list)

    def skip(self, n: int) -> None:
        """Steps that were done before."""
        self.done += n
        if self.update is not None:
            self.update(self.done, self.total)

    def one(self) -> None:
        """One step is done."""
        self.skip(1)
        if not self.shown or self.device != "cpu" or len(self.timed) > _TIMED:
            return
        self.timed.append(time.monotonic())
        if len(self.timed) > _TIMED:
            left = (self.timed[-1] - self.timed[0]) / _TIMED * (self.total - self.done)
            if left > _LONG:
                sys.stderr.write(
                    f"\nFine-tuning a detector on the CPU takes about {_duration(left)} more; a GPU takes "
                    "minutes. What is done is kept after Ctrl-C.\n"
                )


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes} minutes" if minutes < 90 else f"{minutes / 60:.1f} hours"
