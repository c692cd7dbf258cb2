"""A training step of the user's: are backward, step and zero_grad called, in order, and once?"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from dataaudit.modelcheck.families import trn
from dataaudit.modelcheck.findings import finding, place_of
from dataaudit.modelcheck.inputs import length, tensors
from dataaudit.modelcheck.keeping import Kept
from dataaudit.modelcheck.training.runs import take_step
from dataaudit.modelcheck.training.setups import Setup, scalar
from dataaudit.modelcheck.training.trials import prepare, without_dropout
from dataaudit.modelcheck.watching import user_line
from dataaudit.types import Finding

__all__ = ["Randomness", "judge_step", "randomness"]

CALLS = 16
"""Calls of a step that never changes a weight before it counts as one that doesn't."""


@dataclass
class _Seen:
    """What happened in calls of the step; norms are of the whole gradient."""

    arrived: list[float] = field(default_factory=list)
    stepped: list[tuple[int, float]] = field(default_factory=list)
    given: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    returned: list[float] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    parts: int = 1
    call: int = 0

    @property
    def scale(self) -> float:
        """What the loss is multiplied by before backward(), as by the scaler of mixed precision."""
        value = next(iter(self.losses or self.returned), 0.0)
        return self.given[0] / value if self.given and value else 0.0


@dataclass(frozen=True, kw_only=True)
class Randomness:
    """Whether a step of the same batch and weights isn't the same with other random numbers, dropout aside.

    Attributes:
        any: whether the loss differs.
        targets: whether the loss function is given other targets, or the model the same inputs in another
            order.
        line: where it is called.
    """

    any: bool = False
    targets: bool = False
    line: str | None = None


class _Targets(TorchFunctionMode):
    """The targets that loss functions are given."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []
        self.line: str | None = None

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        name, given = getattr(func, "__name__", ""), kwargs or {}
        target = given.get("target", args[1] if len(args) > 1 else None)
        if ("loss" in name or name.endswith("cross_entropy")) and isinstance(target, torch.Tensor):
            self.seen.append(str(target.detach().cpu().tolist()[:4096] if target.ndim else float(target)))
            self.line = self.line or user_line()
        return func(*args, **given)


def randomness(setup: Setup, state: Kept) -> Randomness:
    """Take the step with two seeds and the learning rate at 0; within `kept`, and put back after."""
    losses, targets, line = [], [], None
    orders: list[list[float]] = []
    for seed in (1, 2):
        state.restore()
        prepare(setup.model)
        for group in setup.optimizer.param_groups:
            group["lr"] = 0.0
        torch.manual_seed(seed)
        watch = _Targets()
        order: list[float] = []
        setup.model.register_forward_pre_hook(partial(_note_order, order))
        try:
            with without_dropout(), watch:
                value = take_step(setup)
        except Exception:  # it was taken without an error before; nothing can be said of this one
            return Randomness()
        losses.append(value)
        targets.append(watch.seen)
        orders.append(order)
        line = line or watch.line
    state.restore()
    prepare(setup.model)
    if losses[0] is None or losses[1] is None or losses[0] == losses[1]:
        return Randomness()
    moved = targets[0] == targets[1] and orders[0] != orders[1] and sorted(orders[0]) == sorted(orders[1])
    return Randomness(
        any=abs(losses[0] - losses[1]) > 1e-3 * abs(losses[0]), line=line,
        targets=moved or targets[0] != targets[1],
    )  # fmt: skip


def _note_order(order: list[float], _module: Any, args: Any) -> None:
    """What tells the samples of the first input apart, in their order."""
    one = next(tensors(args), None)
    if one is not None and one.ndim and not order:
        order += one.detach().double().flatten(1).sum(1).tolist() if one.ndim > 1 else one.tolist()


class _Losses(TorchFunctionMode):
    """Values that loss functions return, and those of which the gradient is taken."""

    def __init__(self, seen: _Seen) -> None:
        super().__init__()
        self.seen = seen

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        if name == "backward" and args and isinstance(args[0], torch.Tensor) and args[0].numel() == 1:
            self.seen.given.append(float(args[0].detach()))
        out = func(*args, **(kwargs or {}))
        loss = "loss" in name or "cross_entropy" in name
        if loss and isinstance(out, torch.Tensor) and out.numel() == 1 and out.requires_grad:
            self.seen.losses.append(float(out.detach()))
        return out


def judge_step(setup: Setup, state: Kept) -> Iterator[Finding]:
    """TRN007: what a training step of the user's leaves out; within `kept`."""
    if setup.train_step is None:
        return
    seen = _watched(setup, state)
    name = getattr(setup.train_step, "__name__", "train_step")
    what, advice = _wrong(seen)
    if what:
        yield finding(
            trn.TRAINING_STEP, name, what, advice=advice, source=place_of(setup.train_step),
            evidence={"calls": seen.call, "steps": len(seen.stepped), "norms_at_step":
                      [norm for _, norm in seen.stepped[:8]], "norms_after_backward": seen.arrived[:8]},
        )  # fmt: skip


def _watched(setup: Setup, state: Kept) -> _Seen:
    state.restore()
    prepare(setup.model)
    seen = _Seen()
    parameters = [one for group in setup.optimizer.param_groups for one in group["params"]]
    touched: list[bool] = [False]

    def arrive(_: torch.Tensor) -> None:
        touched[0] = True

    for one in parameters:
        if one.requires_grad:
            watch: Callable[..., Any] = one.register_post_accumulate_grad_hook
            watch(arrive)
    for group in setup.optimizer.param_groups:
        # Weights stay as they are, so that the gradient of the same batch is the same each time
        group["lr"] = 0.0
        if "weight_decay" in group:
            group["weight_decay"] = 0.0

    def before(*_: Any) -> None:
        seen.stepped.append((seen.call, _norm(parameters)))

    setup.optimizer.register_step_pre_hook(before)
    assert setup.train_step is not None
    handle = setup.model.register_forward_pre_hook(lambda _, args: seen.lengths.append(length(args)))
    clipped = _Clips(parameters, seen)
    with without_dropout(), _Losses(seen), clipped:
        for at in range(CALLS):
            seen.call, touched[0] = at + 1, False
            torch.manual_seed(0)
            told = scalar(setup.train_step(setup.model, setup.optimizer, (setup.inputs, setup.targets)))
            if told is not None:
                seen.returned.append(float(told.detach()))
            if at == 0:
                handle.remove()
                seen.parts = _parts(seen, length(setup.inputs))
            if touched[0] and len(seen.arrived) < at + 1:
                seen.arrived.append(_norm(parameters))
            if len(seen.stepped) >= 4 and at >= 3:
                break
    state.restore()
    prepare(setup.model)
    return seen


def _parts(seen: _Seen, total: int) -> int:
    """Into how many parts, each with a backward pass, the first call of the step deals the batch."""
    n = len(seen.lengths)
    return n if n > 1 and n == len(seen.given) and sum(seen.lengths) == total else 1


class _Clips(TorchFunctionMode):
    """Notes the norm of the gradient right after each backward."""

    def __init__(self, parameters: list[torch.Tensor], seen: _Seen) -> None:
        super().__init__()
        self.parameters, self.seen = parameters, seen

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if getattr(func, "__name__", "") == "backward":
            self.seen.arrived.append(_norm(self.parameters))
        return out


def _norm(parameters: list[torch.Tensor]) -> float:
    total = sum(float(one.grad.detach().float().norm()) ** 2 for one in parameters if one.grad is not None)
    return math.sqrt(total)


def _wrong(seen: _Seen) -> tuple[str, str]:
    """What is wrong and what to change; empty where nothing is."""
    order = "optimizer.zero_grad(), loss.backward(), optimizer.step(), in this order."
    if not seen.arrived:
        return f"In {seen.call} calls of the step no gradient arrived: backward() isn't called.", order
    if not seen.stepped:
        return f"Gradients arrive, and in {seen.call} calls optimizer.step() isn't called.", order
    norms = [norm for _, norm in seen.stepped]
    arrived = max(seen.arrived)
    if max(norms) == 0 and arrived > 0:
        return (
            "When optimizer.step() is called the gradients are zero: they are cleared after backward().",
            order,
        )
    if norms[0] == 0 and max(norms) > 0:
        return (
            "The first optimizer.step() comes before backward(): it uses the gradient of the batch before.",
            order,
        )
    share = seen.scale
    every = seen.stepped[1][0] - seen.stepped[0][0] if len(seen.stepped) > 1 else seen.stepped[0][0]
    if len(norms) > 2 and norms[1] > 1.5 * norms[0] and norms[2] > 1.25 * norms[1]:
        return (
            "Gradients add up from step to step: on the same batch their norm is "
            f"{norms[0]:.3g}, {norms[1]:.3g}, {norms[2]:.3g}. zero_grad() isn't called.", order,
        )  # fmt: skip
    if seen.parts > 1 and seen.losses and abs(share - 1) < 1e-3:
        return (
            f"The gradients of {seen.parts} parts of the batch are added up and not divided by {seen.parts}: "
            f"the step is {seen.parts} times that of their mean.", f"(loss / {seen.parts}).backward().",
        )  # fmt: skip
    first = seen.arrived[0]
    if every > 1 and norms[0] > 0.75 * every * first and abs(share - 1) < 1e-3:
        return (
                f"The gradients of {every} batches are added up and not divided by {every}: the step is "
                f"{norms[0] / first:.2g} times that of one batch.", f"(loss / {every}).backward().",
            )  # fmt: skip
    if every > 1 and norms[0] < 1.2 * first and abs(share * every - 1) < 1e-3:
        return (
                f"The optimizer steps every {every} batches, and the gradient is of the last alone: it is "
                "cleared in each call.", "Call zero_grad() after step() only.",
            )  # fmt: skip
    unscaled = arrived / share if share > 16 else arrived
    if norms[0] < 1e-3 * unscaled:
        what = f"The gradient's norm is {unscaled:.3g} after backward() and {norms[0]:.3g} at step(): "
        if share > 16 and norms[0] * share > 1e-3:
            return (
                f"{what}it is clipped while it is still multiplied by the scaler's {share:.3g}.",
                "scaler.unscale_(optimizer) before clip_grad_norm_.",
            )
        return f"{what}it is clipped to next to nothing.", "Clip to a norm of about 1."
    return "", ""
