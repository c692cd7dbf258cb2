"""Training on one batch: step after step until it is learned, and what counts as learned."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from dataaudit.modelcheck.inputs import tensors
from dataaudit.modelcheck.training.loss_range import LossRange
from dataaudit.modelcheck.training.setups import Setup, last_output, scalar

__all__ = ["Run", "train"]

STEPS = 120
"""Steps of a run at first; up to eight times as many while the loss still falls."""


PATIENCE = 80
"""Steps after which a trial ends when the loss has hardly moved."""


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
        cut: whether time was up before its last step.
        rates: largest learning rate before the first step and after the last.
        moved: how far a sample of the weights went, as a share of their size.
    """

    losses: tuple[float, ...]
    correct: float | None = None
    learned: bool = False
    falling: bool = False
    seconds: float = 0.0
    reason: str = ""
    cut: bool = False
    rates: tuple[float, float] = (0.0, 0.0)
    moved: float = 0.0

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
    bounds: LossRange | None = None,
    patience: int | None = None,
    same_seed: int | None = None,
    fixed_rate: bool = False,
) -> Run:
    """Train on the batch, in the mode that the model is in, until it is learned or no progress is seen.

    Args:
        setup: what a step needs; its model and optimizer are changed.
        steps: at first; up to eight times as many while the loss still falls.
        seconds: at most.
        bounds: what the loss can be, where it is known.
        patience: steps after which a run ends whose loss hasn't fallen; None where it goes on.
        same_seed: of the random numbers of each step, where all are to draw the same.
        fixed_rate: whether the learning rates stay as they are at the start.
    """
    progress, limit, start = _Progress(), steps, time.perf_counter()
    groups, reason, top, cut = setup.optimizer.param_groups, "", _largest_rate(setup), False
    first_rates, weights = [group.get("lr", 0.0) for group in groups], _sample(setup)
    with last_output(setup.model) as output, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        at = 0
        while at < limit:
            cut = time.perf_counter() - start > seconds
            if cut:
                break
            if same_seed is not None:
                torch.manual_seed(same_seed)
            try:
                value = take_step(setup)
            except Exception as error:  # the first steps ran: it is the change that this step can't do with
                reason = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
                break
            if fixed_rate:
                for group, rate in zip(groups, first_rates, strict=False):
                    group["lr"] = rate
            _note(progress, value, output, setup.targets, bounds)
            at += 1
            if progress.learned() or (progress.losses and not math.isfinite(progress.losses[-1])):
                break
            if at == patience and _still(progress.losses, least=0.01):
                break
            if at == PATIENCE and _largest_rate(setup) <= top and _still(progress.losses, least=1e-3):
                break
            if at == limit and limit < 8 * steps and _falling(progress.losses, least=0.01):
                limit *= 2
    return Run(
        losses=tuple(progress.losses), correct=progress.correct, learned=progress.learned(),
        falling=_falling(progress.losses), seconds=time.perf_counter() - start, reason=reason, cut=cut,
        rates=(top, _largest_rate(setup)),
        moved=_moved(weights, _sample(setup)),
    )  # fmt: skip


def _largest_rate(setup: Setup) -> float:
    return max((float(group.get("lr", 0.0)) for group in setup.optimizer.param_groups), default=0.0)


def _sample(setup: Setup) -> list[torch.Tensor]:
    """A few hundred numbers of each weight with two dimensions or more."""
    held = [
        one.detach().flatten() for one in setup.model.parameters() if one.ndim > 1 and one.is_floating_point()
    ]
    return [one[:: max(1, len(one) // 256)].float().clone() for one in held]


def _moved(before: list[torch.Tensor], after: list[torch.Tensor]) -> float:
    pairs = list(zip(before, after, strict=True))
    size = sum(float(one.square().sum()) for one in before)
    gap = sum(float((one - other).square().sum()) for one, other in pairs)
    return math.sqrt(gap / size) if size > 0 else math.sqrt(gap)


def _still(losses: list[float], *, least: float) -> bool:
    """Whether the loss has hardly fallen since the first steps: by less than a share of its value."""
    if len(losses) < 10 or not all(map(math.isfinite, losses)):
        return False
    early, late = sum(losses[:3]) / 3, sum(losses[-5:]) / 5
    return late > early - least * max(abs(early), 1e-12)


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


def _note(
    progress: _Progress, value: float | None, output: list[Any], targets: Any, bounds: LossRange | None
) -> None:
    correct = share_correct(output[0] if output else None, targets)
    if bounds is not None and not bounds.telling:
        correct = None  # what is right isn't what the loss asks for, as where only distances count
    progress.correct = correct
    if value is not None:
        progress.losses.append(value)
    done = is_learned(progress.losses, correct, targets, bounds)
    progress.streak = progress.streak + 1 if done else 0


def is_learned(
    losses: Sequence[float], correct: float | None, targets: Any, bounds: LossRange | None
) -> bool:
    """Whether the batch is learned, by the predictions and by the loss.

    All predictions right is not enough where the loss has a range: it must have come half of the way from
    uninformed predictions to right ones. Where the range isn't known, the loss alone counts with a tenth of
    its first value.
    """
    if losses and not math.isfinite(losses[-1]):
        return False
    if bounds is not None and not bounds.telling:
        bounds = None
    last = losses[-1] if losses else None
    if last is not None and len(losses) > 1 and bounds is not None and bounds.reached(last, 0.02):
        return True  # with a hinge, predictions beyond the targets are as good
    if correct is not None and correct >= 1.0:
        if last is None:
            return True
        if bounds is not None and bounds.bounded:
            return bounds.reached(last)
        return len(losses) < 2 or last < losses[0] or last == 0
    # Numbers as targets: their mean alone could account for most of the loss
    numbers = isinstance(targets, torch.Tensor) and targets.is_floating_point()
    if last is None or len(losses) < 2 or (correct is not None and numbers):
        return False
    top = losses[0] if bounds is None else min(losses[0], bounds.uninformed)
    low = 0.0 if bounds is None else max(bounds.right, 0.0)
    return top > low and last >= 0 and last <= low + 0.1 * (top - low)


def share_correct(output: Any, targets: Any) -> float | None:
    """How much of the batch the output gets right: 1 counts as learned; None where that can't be told.

    Class indices: the share of samples whose largest value is at their class, 1 from 95 % on where a sample
    has 64 or more (pixels). Floats of the output's shape: of zeros and ones the share on the right side,
    likewise; for other numbers R², 1 from 0.9 on.
    """
    out = next((one for one in tensors(output) if one.is_floating_point()), None)
    if out is None or not isinstance(targets, torch.Tensor) or not bool(out.isfinite().all()):
        return None
    out = out.detach().float()
    if not out.ndim or not targets.ndim or len(out) != len(targets):
        return None  # a step of its own may deal the batch in parts
    if not targets.is_floating_point() and out.ndim == targets.ndim + 1:
        valid = (targets >= 0) & (targets < out.shape[1])
        if not bool(valid.any()) or out.shape[1] < 2:
            return None
        return _dense(float((out.argmax(1) == targets)[valid].float().mean()), targets)
    if out.numel() != targets.numel():
        return None
    want = targets.float().reshape(-1)
    got = out.reshape(-1)
    if bool(((want == 0) | (want == 1)).all()):
        if out.ndim == 2 and bool((targets.reshape(out.shape).sum(1) == 1).all()) and out.shape[1] > 1:
            return float((out.argmax(1) == targets.reshape(out.shape).argmax(1)).float().mean())
        middle = 0.5 if float(got.min()) >= 0 and float(got.max()) <= 1 else 0.0
        return _dense(float(((got > middle) == (want > 0.5)).float().mean()), targets)
    spread = float(want.var()) if want.numel() > 1 else 0.0
    if spread == 0:
        return None
    explained = 1 - float(((got - want) ** 2).mean()) / spread
    return 1.0 if explained >= 0.9 else min(explained, 0.99)


def _dense(share: float, targets: torch.Tensor) -> float:
    """With many targets a sample (pixels) a few wrong ones don't count."""
    many = targets.numel() >= 64 * max(1, len(targets))
    return 1.0 if many and share >= 0.95 else share


def _falling(losses: list[float], *, least: float = 0.05) -> bool:
    """Whether the loss still falls: the last third is below the middle one by `least` of the first."""
    n = len(losses) // 3
    if n < 5 or not all(map(math.isfinite, losses)):
        return False
    middle, last = sum(losses[n : 2 * n]) / n, sum(losses[-n:]) / n
    first = max(losses[0], sum(losses[:3]) / 3)
    return middle - last > least * abs(first) and last < (1 - 2 * least) * first
