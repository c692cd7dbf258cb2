"""The folds of the baseline, trained side by side, one core each, and what they find together."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from dataaudit.progress import bar
from dataaudit.signals.backbones import pick_device
from dataaudit.signals.detector import Scene
from dataaudit.signals.detector.decoding import Found, detect
from dataaudit.signals.detector.network import Head
from dataaudit.signals.detector.pictures import Objects, Pictures, level_of, strides_for
from dataaudit.signals.detector.table import table_of
from dataaudit.signals.detector.training import Plan, fit
from dataaudit.signals.feature_maps import FeatureMaps
from dataaudit.types import Workplace

__all__ = ["found"]

_EPOCHS = (6, 20)
_SEEN = 5_000


def found(
    scene: Scene, maps: FeatureMaps, workplace: Workplace, *, epochs: int, members: int, seed: int
) -> pd.DataFrame:
    """Train the heads of each fold and let them look at its images; see `dataaudit.signals.detector`."""
    if maps.are_kept:
        maps.compute()
    device = pick_device(workplace.device)
    scale = np.array([maps.of(each).scale for each in maps.ids]).reshape(-1, 2)
    boxes = scene.boxes * np.tile(scale, 2)[scene.images]
    sides = np.sqrt(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1))[scene.weights > 0]
    strides = strides_for(sides)
    pictures = Pictures(maps, _objects(scene, boxes, len(maps.ids)), strides)
    n_train = len(maps.ids) * (1 - 1 / (scene.folds.max() + 1))
    runs = _Runs(
        scene=scene,
        pictures=pictures,
        half_sides=_half_sides(sides, strides),
        members=members,
        plan=Plan(
            epochs=epochs or int(np.clip(round(_SEEN / n_train), *_EPOCHS)),
            seed=seed,
            device=device,
        ),
    )
    seen = runs.all(workplace)
    return table_of(seen, scene, maps.ids, maps.sizes, scale)


@dataclass(frozen=True, kw_only=True)
class _Runs:
    """The training of all folds."""

    scene: Scene
    pictures: Pictures
    half_sides: tuple[float, ...]
    members: int
    plan: Plan

    def all(self, workplace: Workplace) -> list[Found]:
        """What is found in each image."""
        folds = range(int(self.scene.folds.max()) + 1)
        n_steps = sum(
            self.members * self.plan.epochs * math.ceil((self.scene.folds != fold).sum() / self.plan.batch)
            for fold in folds
        )
        seen: dict[int, Found] = {}
        lock, done = threading.Lock(), [0]
        with bar("Training a detector", unit="batches", shown=workplace.progress) as update:

            def progress() -> None:
                with lock:
                    done[0] += 1
                    if update is not None:
                        update(done[0], n_steps)

            with _one_thread_each(self.plan.device):
                workers = 1 if self.plan.device != "cpu" else min(len(folds), _cores())
                with ThreadPoolExecutor(workers) as pool:
                    for part in pool.map(lambda fold: self._fold(fold, progress), folds):
                        seen.update(part)
        return [seen[number] for number in range(len(self.pictures))]

    def _fold(self, fold: int, progress: Callable[[], None]) -> dict[int, Found]:
        learnt = np.flatnonzero(self.scene.folds != fold).tolist()
        heads = [
            self._head(learnt, 1000 * self.plan.seed + 100 * fold + member, progress)
            for member in range(self.members)
        ]
        own = np.flatnonzero(self.scene.folds == fold).tolist()
        return {number: detect(heads, self.pictures, number, self.plan.device) for number in own}

    def _head(self, learnt: Sequence[int], seed: int, progress: Callable[[], None]) -> Head:
        with _SEEDING, torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            head = Head(len(self.scene.classes), half_sides=self.half_sides)
        return fit(head, self.pictures, learnt, replace(self.plan, seed=seed), progress)


_SEEDING = threading.Lock()


@contextmanager
def _one_thread_each(device: str) -> Iterator[None]:
    """One core for each fold: that is faster than many for one, and the result doesn't depend on them."""
    before = torch.get_num_threads()
    try:
        if device == "cpu":
            torch.set_num_threads(1)
        yield
    finally:
        torch.set_num_threads(before)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _half_sides(sides: npt.NDArray[np.float64], strides: Sequence[int]) -> tuple[float, ...]:
    levels = level_of(torch.from_numpy(sides), strides).numpy()
    # Where no object is learnt at a stride, it doesn't matter
    return tuple(
        float(np.median(sides[levels == each])) / 2 if (levels == each).any() else float(each)
        for each in strides
    )


def _objects(scene: Scene, boxes: npt.NDArray[np.float64], n_images: int) -> list[Objects]:
    order = np.argsort(scene.images, kind="stable")
    ends = np.searchsorted(scene.images[order], np.arange(n_images + 1))
    each = []
    for start, end in pairwise(ends.tolist()):
        rows = order[start:end]
        learnt, ignored = rows[scene.weights[rows] > 0], rows[scene.weights[rows] == 0]
        each.append(
            Objects(
                boxes=boxes[learnt].astype(np.float32),
                classes=scene.numbers[learnt],
                weights=scene.weights[learnt].astype(np.float32),
                ignored=boxes[ignored].astype(np.float32),
            )
        )
    return each
