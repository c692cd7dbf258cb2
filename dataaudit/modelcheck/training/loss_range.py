"""What the loss can be: its value for right, for uninformed and for wrong predictions of the batch."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from dataaudit.modelcheck.inputs import call, tensors
from dataaudit.modelcheck.training.setups import Setup, last_output, scalar

__all__ = ["LossRange", "loss_range"]

SCALES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
"""Sizes of logits that are tried: with label smoothing the best is at none of the ends."""


@dataclass(frozen=True, kw_only=True)
class LossRange:
    """Values of the loss for predictions made up from the targets, in place of the model's.

    Attributes:
        right: the lowest of right predictions; above 0 with label smoothing.
        uninformed: of the best prediction that is the same for every sample.
        wrong: the lowest of predictions of other classes, or of numbers mirrored at their mean.
        bounded: whether it stays above zero for all of them.
        apart: whether right and wrong predictions have other losses, as they don't where only distances
            between outputs count (metric learning).
    """

    right: float
    uninformed: float
    wrong: float
    bounded: bool
    apart: bool

    def reached(self, loss: float, share: float = 0.5) -> bool:
        """Whether `loss` is at most `share` of the way from right to uninformed predictions."""
        return loss <= self.right + share * (self.uninformed - self.right)

    @property
    def telling(self) -> bool:
        """Whether right predictions have a clearly lower loss, so that a right one says something."""
        return self.apart and self.uninformed - self.right > 0.1 * abs(self.uninformed)

    @property
    def inverted(self) -> bool:
        """Whether wrong predictions have the lower loss."""
        return self.apart and self.right > self.uninformed > self.wrong


def loss_range(setup: Setup) -> LossRange | None:
    """Put right and wrong predictions in place of the model's; within `kept`.

    Args:
        setup: its step is called a dozen times, with a model that returns what it is told to.

    Returns:
        None where no right prediction follows from the targets (boxes, several outputs of other shapes), or
        the step doesn't use what the model returns.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with torch.no_grad(), last_output(setup.model) as held:
                _ = setup.forward() if setup.train_step is None else call(setup.model, setup.inputs)
        except Exception:  # it is raised again, and reported, by the first step
            return None
        if not held:
            return None
        output = held[0]
        made = _predictions(next((one for one in tensors(output) if one.is_floating_point()), None),
                            setup.targets)  # fmt: skip
        if made is None:
            return None
        values = {name: [_valued(setup, output, one) for one in each] for name, each in made.items()}
    found = {name: [one for one in each if math.isfinite(one)] for name, each in values.items()}
    if not all(found.values()):
        return None
    right, wrong = min(found["right"]), min(found["wrong"])
    uninformed = min(found["uninformed"])
    size = max(abs(right), abs(uninformed), abs(wrong), 1e-12)
    if abs(uninformed - right) < 1e-3 * size:
        # One class alone in the batch: its share says everything
        uninformed = max(found["uninformed"])
    if abs(uninformed - right) < 1e-3 * size:
        return None
    return LossRange(
        right=right, uninformed=uninformed, wrong=wrong, bounded=min(right, uninformed, wrong) >= -1e-6,
        apart=abs(wrong - right) > 1e-2 * size,
    )  # fmt: skip


def _predictions(out: torch.Tensor | None, targets: Any) -> dict[str, list[torch.Tensor]] | None:
    """Right, uninformed and wrong predictions in the shape of `out`; None where they can't be made."""
    if out is None or not isinstance(targets, torch.Tensor) or not out.ndim or not targets.numel():
        return None
    if not targets.is_floating_point():
        if out.ndim != targets.ndim + 1 or out.shape[1] < 2 or out.shape[2:] != targets.shape[1:]:
            return None
        return _of_classes(out, targets)
    if out.numel() != targets.numel():
        return None
    want = targets.detach().reshape(out.shape).to(out.dtype)
    if bool(((want == 0) | (want == 1)).all()):
        return _of_marks(out, want)
    over = [axis for axis in range(want.ndim) if axis != 1] if want.ndim > 1 else [0]
    mean = want.mean(over, keepdim=True).expand_as(want)
    return {"right": [want], "uninformed": [mean], "wrong": [2 * mean - want]}


def _of_classes(out: torch.Tensor, targets: torch.Tensor) -> dict[str, list[torch.Tensor]] | None:
    n = out.shape[1]
    valid = (targets >= 0) & (targets < n)
    if targets.shape[0] != out.shape[0] or not bool(valid.any()):
        return None
    marks = nn.functional.one_hot(torch.where(valid, targets, 0).long(), n).movedim(-1, 1).to(out.dtype)
    shares = torch.bincount(targets[valid].long().flatten(), minlength=n).to(out)
    prior = (shares / shares.sum() + 1e-4).log()
    form = _form(out)
    shape = (1, n, *[1] * (out.ndim - 2))
    return {
        "right": [form(size * marks) for size in SCALES],
        "uninformed": [form(torch.zeros_like(out)), form(prior.reshape(shape).expand_as(out))],
        "wrong": [form(size * marks.roll(1, dims=1)) for size in SCALES],
    }


def _of_marks(out: torch.Tensor, want: torch.Tensor) -> dict[str, list[torch.Tensor]]:
    """For targets of zeros and ones."""
    form, sign = _form(out), 2 * want - 1
    over = [axis for axis in range(want.ndim) if axis != 1] if want.ndim > 1 else [0]
    share = want.mean(over, keepdim=True).clamp(1e-4, 1 - 1e-4).expand_as(want)
    return {
        "right": [want, *(form(size * sign) for size in SCALES)],
        "uninformed": [form(torch.zeros_like(out)), form(share.logit()), share.contiguous()],
        "wrong": [1 - want, *(form(-size * sign) for size in SCALES)],
    }


def _form(out: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    """What makes logits into the form that the model returns: probabilities, their logarithms, or logits."""
    held = out.detach().float()
    if out.ndim > 1 and out.shape[1] > 1:
        ones = torch.ones((), device=held.device)
        if bool((held >= 0).all()) and bool(torch.isclose(held.sum(1), ones, atol=1e-3).all()):
            return lambda logits: logits.softmax(1)
        if bool((held <= 0).all()) and bool(torch.isclose(held.exp().sum(1), ones, atol=1e-3).all()):
            return lambda logits: logits.log_softmax(1)
    if bool(((held >= 0) & (held <= 1)).all()):
        return torch.sigmoid
    return lambda logits: logits


def _valued(setup: Setup, output: Any, prediction: torch.Tensor) -> float:
    """The loss with `prediction` for every output of its shape; NaN where it can't be had."""
    told = _replaced(output, prediction, _nothing(setup))
    torch.manual_seed(0)
    try:
        if setup.loss is not None and setup.step is None and setup.train_step is None:
            with torch.no_grad():
                value = scalar(setup.loss(told, setup.targets))
        else:
            with _returning(setup.model, told) as used:
                if setup.train_step is not None:
                    data = (setup.inputs, setup.targets)
                    value = scalar(setup.train_step(setup.model, setup.optimizer, data))
                else:
                    value = scalar(setup.forward())
            if not used:
                return math.nan
    except Exception:  # a loss that refuses such a prediction says nothing about it
        return math.nan
    return math.nan if value is None else float(value.detach())


def _nothing(setup: Setup) -> torch.Tensor | None:
    """Zero, made of a weight, so that a step of the user's finds a gradient; None where none is taken."""
    if setup.train_step is None:
        return None
    weights = [one for group in setup.optimizer.param_groups for one in group["params"] if one.requires_grad]
    return weights[0].flatten()[0] * 0 if weights and weights[0].numel() else None


@contextmanager
def _returning(model: nn.Module, told: Any) -> Iterator[list[int]]:
    """The model returns what it is told to; the list holds an element for each call."""
    used: list[int] = []

    def forward(*_args: Any, **_kwargs: Any) -> Any:
        used.append(1)
        return told

    held = model.__dict__.get("forward")
    model.__dict__["forward"] = forward
    try:
        yield used
    finally:
        if held is None:
            model.__dict__.pop("forward", None)
        else:
            model.__dict__["forward"] = held


def _replaced(output: Any, prediction: torch.Tensor, nothing: torch.Tensor | None) -> Any:
    """The output with `prediction` for every tensor of its shape; it asks for a gradient."""
    if isinstance(output, torch.Tensor):
        if output.shape == prediction.shape and output.is_floating_point():
            told = prediction.detach().to(output.dtype, copy=True)
            return told.requires_grad_() if nothing is None else told + nothing.to(told)
        return output.detach()
    if isinstance(output, Mapping):
        made = copy.copy(output)
        for key, value in output.items():
            made[key] = _replaced(value, prediction, nothing)  # type: ignore[index]
        return made
    if isinstance(output, tuple) and hasattr(output, "_fields"):
        return type(output)(*(_replaced(one, prediction, nothing) for one in output))
    if isinstance(output, (list, tuple)):
        return type(output)(_replaced(one, prediction, nothing) for one in output)
    return output
