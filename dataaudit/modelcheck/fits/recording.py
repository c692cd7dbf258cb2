"""The curves of a fit, kept by the callback itself, so that no logger is needed to read them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from dataaudit.modelcheck.runs.histories import Curve, History, said_by

__all__ = ["Record"]

_PENDING = 256
_MOST_STEPS = 20_000


class Record:
    """What is logged in a fit, by epoch, and the loss of each step."""

    def __init__(self) -> None:
        self._epochs: dict[str, dict[int, tuple[int, float]]] = {}
        self._steps: list[int] = []
        self._at_epoch: list[int] = []
        self._losses: list[float] = []
        self._pending: list[tuple[int, int, torch.Tensor]] = []
        self._every = 1

    def loss(self, step: int, epoch: int, loss: torch.Tensor) -> None:
        """The loss of a step; read from its device only now and then."""
        if step % self._every:
            return
        self._pending.append((step, epoch, loss.detach()))
        if len(self._pending) >= _PENDING:
            self._read()

    def logged(self, step: int, epoch: int, metrics: Mapping[str, Any]) -> None:
        """What has been logged at the end of an epoch; what has no number is passed over."""
        for name, value in metrics.items():
            try:
                number = float(value)
            except (TypeError, ValueError):
                continue
            self._epochs.setdefault(name, {})[epoch] = (step, number)

    def knows(self, name: str) -> bool:
        """Whether something was logged under the name."""
        return name in self._epochs

    def history(self, name: str) -> History:
        """The curves: as they were logged, and the training loss where no curve of it was."""
        self._read()
        twice = {each.removesuffix("_epoch") for each in self._epochs if each.endswith("_epoch")}
        curves = {}
        for each, points in self._epochs.items():
            # Lightning logs loss, loss_step and loss_epoch where both are asked for
            if each in twice or (each.endswith("_step") and each.removesuffix("_step") in twice):
                continue
            epochs = sorted(points)
            x = np.array([points[epoch][0] for epoch in epochs], dtype=float)
            y = np.array([points[epoch][1] for epoch in epochs], dtype=float)
            curves[each] = Curve(name=each, x=x, y=y, epoch=np.array(epochs, dtype=float))
        said = [said_by(each) for each in curves]
        own = not any(split in ("train", None) and better == "lower" for split, _, better in said)
        if own and self._losses:
            curves |= self._own_curves()
        return History(name=name, curves=curves)

    def _own_curves(self) -> dict[str, Curve]:
        steps, losses = np.array(self._steps, dtype=float), np.array(self._losses, dtype=float)
        at = np.array(self._at_epoch)
        epochs = np.unique(at)
        ends = np.array([steps[at == epoch][-1] for epoch in epochs])
        means = np.array([losses[at == epoch].mean() for epoch in epochs])
        found = {"train_loss": Curve(name="train_loss", x=ends, y=means, epoch=epochs.astype(float))}
        found["train_loss_step"] = Curve(name="train_loss_step", x=steps, y=losses, epoch=at.astype(float))
        return found

    def _read(self) -> None:
        pending, self._pending = self._pending, []
        if not pending:
            return
        values = torch.stack([loss.float().reshape(()) for _, _, loss in pending]).tolist()
        for (step, epoch, _), value in zip(pending, values, strict=True):
            self._steps.append(step)
            self._at_epoch.append(epoch)
            self._losses.append(value)
        if len(self._steps) > _MOST_STEPS:
            self._every *= 2
            for each in (self._steps, self._at_epoch, self._losses):
                del each[1::2]
