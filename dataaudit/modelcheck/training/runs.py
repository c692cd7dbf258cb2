"""Training on one batch: step after step until it is learned, and what counts as learned."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from dataaudit.modelcheck.inputs import tensors
from dataaudit.modelcheck.training.setups import Setup, last_output, scalar

__all__ = ["Run", "train"]

STEPS = 120
"""Steps of a run at first; up to eight times as many while the loss still falls."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run of steps on one batch.

    Attributes:
        losses: of each step, before its change of the weights.
        correct: share of right predictions at the end (or R² of a regression), None where it can't be told.
        learned: whether the batch is learned.
        falling: whether the loss still fell steadily when the run ended.
        seconds: how long it took.
        reason: the error that ended it, or empty.
    """

    losses: tuple[float, ...]
    correct: float | None = None
    learned: bool = False
    falling: bool = False
    seconds: float = 0.0
    reason: str = ""

    @property
    def broke(self) -> bool:
        """Whether it ended with NaN, infinity, or a loss far above the first."""
        return bool(self.losses) and (
            not math.isfinite(self.losses[-1]) or self.losses[-1] > 3 * abs(self.losses[0]) + 1
        )


@dataclass
class _Progress:
    losses: list[float] = field(default_factory=list)
    correct: float | None = None
    streak: int = 0

    def learned(self) -> bool:
        return self.streak >= 2


def train(
    setup: Setup,
    *,
    steps: int = STEPS,
    seconds: float = 20.0,
    each: Callable[[int], None] | None = None,
) -> Run:
    """Train on the batch, in the mode that the model is in, until it is learned or no progress is seen.

    Args:
        setup: what a step needs; its model and optimizer are changed.
        steps: at first; up to eight times as many while the loss still falls.
        seconds: at most.
        each: called after every step with its number.
    """
    progress, limit, start = _Progress(), steps, time.perf_counter()
    reason = ""
    with last_output(setup.model) as output, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        at = 0
        while at < limit and time.perf_counter() - start < seconds:
            try:
                value = take_step(setup)
            except (RuntimeError, ValueError, IndexError, TypeError) as error:
                reason = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
                break
            _note(progress, value, output, setup.targets)
            if each is not None:
                each(at)
            at += 1
            if progress.learned() or (progress.losses and not math.isfinite(progress.losses[-1])):
                break
            if at == limit and limit < 8 * steps and _falling(progress.losses, least=0.01):
                limit *= 2
    return Run(
        losses=tuple(progress.losses), correct=progress.correct, learned=progress.learned(),
        falling=_falling(progress.losses), seconds=time.perf_counter() - start, reason=reason,
    )  # fmt: skip


def take_step(setup: Setup) -> float | None:
    """One whole step; the loss, or None where the user's step returns none.

    Raises:
        RuntimeError: whatever the user's code raises.
    """
    model, optimizer = setup.model, setup.optimizer
    if setup.train_step is not None:
        value = scalar(setup.train_step(model, optimizer, (setup.inputs, setup.targets)))
        return None if value is None else float(value.detach())
    optimizer.zero_grad(set_to_none=True)
    value = backward(setup)
    if value is None or not value.requires_grad:
        return None if value is None else float(value)
    if setup.scaler is not None:
        setup.scaler.step(optimizer)
        setup.scaler.update()
    else:
        optimizer.step()
    return float(value.detach())


def backward(setup: Setup) -> torch.Tensor | None:
    """Forward and backward pass; the loss, which has no gradient where nothing connects it with a weight."""
    with torch.enable_grad():
        value = scalar(setup.forward())
        if value is not None and value.requires_grad:
            (setup.scaler.scale(value) if setup.scaler is not None else value).backward()
    return value


def _note(progress: _Progress, value: float | None, output: list[Any], targets: Any) -> None:
    correct = share_correct(output[0] if output else None, targets)
    progress.correct = correct
    if value is not None:
        progress.losses.append(value)
    losses = progress.losses
    done = correct is not None and correct >= 1.0
    if correct is None or (losses and abs(losses[0]) > 0 and not _must_be_right(targets)):
        done = done or (len(losses) > 1 and 0 <= losses[-1] < 0.1 * losses[0])
    if done and losses and not math.isfinite(losses[-1]):
        done = False
    progress.streak = progress.streak + 1 if done else 0


def _must_be_right(targets: Any) -> bool:
    """Whether targets are numbers, whose mean alone could account for most of the loss."""
    return isinstance(targets, torch.Tensor) and targets.is_floating_point()


def share_correct(output: Any, targets: Any) -> float | None:
    """How much of the batch the output gets right: 1 counts as learned; None where that can't be told.

    Class indices: the share of samples whose largest value is at their class, 1 from 95 % on where a sample
    has many (pixels). Floats of the output's shape: of zeros and ones the share on the right side; for other
    numbers R², 1 from 0.9 on.
    """
    out = next((one for one in tensors(output) if one.is_floating_point()), None)
    if out is None or not isinstance(targets, torch.Tensor) or not bool(out.isfinite().all()):
        return None
    out = out.detach().float()
    if not targets.is_floating_point() and out.ndim == targets.ndim + 1:
        valid = (targets >= 0) & (targets < out.shape[1])
        if not bool(valid.any()) or out.shape[1] < 2:
            return None
        share = float((out.argmax(1) == targets)[valid].float().mean())
        return 1.0 if targets.ndim > 1 and share >= 0.95 else share
    if out.numel() != targets.numel():
        return None
    want = targets.float().reshape(-1)
    got = out.reshape(-1)
    if bool(((want == 0) | (want == 1)).all()):
        if out.ndim == 2 and bool((targets.reshape(out.shape).sum(1) == 1).all()) and out.shape[1] > 1:
            return float((out.argmax(1) == targets.reshape(out.shape).argmax(1)).float().mean())
        middle = 0.5 if float(got.min()) >= 0 and float(got.max()) <= 1 else 0.0
        return float(((got > middle) == (want > 0.5)).float().mean())
    spread = float(want.var()) if want.numel() > 1 else 0.0
    if spread == 0:
        return None
    explained = 1 - float(((got - want) ** 2).mean()) / spread
    return 1.0 if explained >= 0.9 else min(explained, 0.99)


def _falling(losses: list[float], *, least: float = 0.05) -> bool:
    """Whether the loss still falls: the last third is below the middle one by `least` of the first."""
    n = len(losses) // 3
    if n < 5 or not all(map(math.isfinite, losses)):
        return False
    middle, last = sum(losses[n : 2 * n]) / n, sum(losses[-n:]) / n
    first = max(losses[0], sum(losses[:3]) / 3)
    return middle - last > least * abs(first) and last < (1 - 2 * least) * first
