"""One thing is changed, and the batch is learned anew from the same state: does it learn now?"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from dataaudit.modelcheck.inputs import tensors
from dataaudit.modelcheck.keeping import Kept
from dataaudit.modelcheck.training.loss_range import LossRange
from dataaudit.modelcheck.training.runs import PATIENCE, STEPS, Run, is_learned, share_correct, train
from dataaudit.modelcheck.training.setups import RATES, Setup, last_output, scalar

__all__ = ["Bench", "Change", "frozen_norms", "rate_of"]


@dataclass(frozen=True, kw_only=True)
class Change:
    """What is changed in a trial; everything else stays as the user has it.

    Attributes:
        rate: factor of every learning rate.
        unfreeze, norms, no_dropout, no_decay: every weight asks for a gradient; batch norm in train mode;
            without dropout; without weight decay.
        fresh_optimizer: the rate of an AdamW over every weight in place of the user's, or None.
        complete_optimizer: the weights that the user's optimizer lacks are added to it.
        fresh_weights: every layer draws its weights anew.
        standardised: each channel of the inputs has mean 0 and deviation 1.
        momentum: that of SGD is 0.9 at most.
        fixed_rate: the learning rate stays as it is at the start, whatever a scheduler says.
        same_seed: every step draws the same random numbers.
        bare_output: the activation at the end of the model hands back what it is given.
    """

    rate: float = 1.0
    unfreeze: bool = False
    norms: bool = False
    no_dropout: bool = False
    no_decay: bool = False
    fresh_optimizer: float | None = None
    complete_optimizer: bool = False
    fresh_weights: bool = False
    standardised: bool = False
    momentum: bool = False
    fixed_rate: bool = False
    same_seed: bool = False
    bare_output: bool = False

    def parts(self) -> list[Change]:
        """The single changes that it is made of."""
        plain = Change()
        names = [one.name for one in fields(self) if getattr(self, one.name) != getattr(plain, one.name)]
        return [replace(plain, **{name: getattr(self, name)}) for name in names]

    def without(self, part: Change) -> Change:
        """It, less a single change."""
        plain = Change()
        names = [one.name for one in fields(self) if getattr(part, one.name) != getattr(plain, one.name)]
        return replace(self, **{name: getattr(plain, name) for name in names})

    def __str__(self) -> str:
        words = {
            "unfreeze": "everything unfrozen", "norms": "batch norm in train mode",
            "no_dropout": "no dropout", "no_decay": "no weight decay",
            "complete_optimizer": "all weights in the optimizer", "fresh_weights": "new weights",
            "standardised": "standardised inputs", "momentum": "momentum of 0.9",
            "fixed_rate": "a learning rate that stays", "same_seed": "the same random numbers in every step",
            "bare_output": "no activation at the output",
        }  # fmt: skip
        said = [text for name, text in words.items() if getattr(self, name)]
        if self.rate != 1:
            said.append(f"learning rate x {self.rate:g}")
        if self.fresh_optimizer is not None:
            said.append(f"AdamW at {self.fresh_optimizer:g}")
        return ", ".join(said) or "as it is"


@dataclass
class Bench:
    """Runs from one state, with a change each.

    Attributes:
        setup: as the user has it.
        state: to which everything is put back before a run.
        seconds: for all runs together.
        bounds: what the loss can be, or None.
        seed: of every run.
        bare: name of the activation at the end of the model, or None.
        tried: each change and its run, in order.
    """

    setup: Setup
    state: Kept
    seconds: float
    bounds: LossRange | None = None
    seed: int = 0
    bare: str | None = None
    steps: int = STEPS
    tried: list[tuple[Change, Run]] = field(default_factory=list)
    start: float = field(default_factory=time.perf_counter)

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return self.seconds - (time.perf_counter() - self.start)

    def run(self, change: Change) -> Run:
        """Put everything back, change what is asked for, and train; a trial ends early without progress."""
        self.state.restore()
        setup = self.setup
        with ExitStack() as stack:
            torch.manual_seed(self.seed)
            prepare(setup.model)
            setup = _changed(setup, change)
            if change.bare_output and self.bare is not None:
                dict(setup.model.named_modules())[self.bare].__dict__["forward"] = lambda given: given
            if change.no_dropout:
                stack.enter_context(without_dropout())
            share = 4 if self.tried else 2
            done = train(
                setup, steps=self.steps, seconds=max(min(self.left, self.seconds / share), 0.5),
                bounds=self.bounds, patience=PATIENCE if self.tried else None, fixed_rate=change.fixed_rate,
                same_seed=self.seed if change.same_seed else None,
            )  # fmt: skip
            if not done.learned and not change.no_dropout and 0 < largest_dropout(setup.model) <= 0.6:
                done = _judged_without_dropout(setup, done, self.bounds)
        self.tried.append((change, done))
        return done

    def first(self, changes: Sequence[Change]) -> Change | None:
        """The first change with which the batch is learned; None where there is none or time is up."""
        for change in changes:
            if self.left <= 0:
                return None
            if self.run(change).learned:
                return change
        return None


def prepare(model: nn.Module) -> None:
    """Train mode, unless parts of a model that is in train mode are left out of it on purpose."""
    if not model.training:
        model.train()


def _changed(setup: Setup, change: Change) -> Setup:
    model, optimizer = setup.model, setup.optimizer
    if change.fresh_weights:
        draw_weights(model)
    if change.unfreeze:
        for one in model.parameters():
            if one.is_floating_point():
                one.requires_grad_(True)
    if change.norms:
        for _, norm in frozen_norms(model):
            norm.train()
    if change.fresh_optimizer is not None:
        asking = [one for one in model.parameters() if one.requires_grad]
        if isinstance(setup.loss, nn.Module):
            asking += list(setup.loss.parameters())
        fresh = torch.optim.AdamW(asking, lr=change.fresh_optimizer, weight_decay=0.0)
        # What a step of the user's may look for on their optimizer, such as a scheduler
        fresh.__dict__.update(
            {name: one for name, one in vars(optimizer).items() if not hasattr(fresh, name)}
        )
        setup = replace(setup, optimizer=fresh, scaler=None)
    elif change.complete_optimizer or change.unfreeze:
        held = {id(one) for group in optimizer.param_groups for one in group["params"]}
        lacking = [one for one in model.parameters() if one.requires_grad and id(one) not in held]
        if lacking:
            optimizer.add_param_group({"params": lacking})
    for group in setup.optimizer.param_groups:
        if change.rate != 1:
            group["lr"] = group["lr"] * change.rate
        if change.no_decay and "weight_decay" in group:
            group["weight_decay"] = 0.0
        if change.momentum and group.get("momentum", 0.0) > 0.9:
            group["momentum"] = 0.9
    return replace(setup, inputs=standardised(setup.inputs)) if change.standardised else setup


def draw_weights(model: nn.Module) -> None:
    """Let every layer draw its weights anew, and give those that it can't draw a small deviation."""
    for module in model.modules():
        reset = getattr(module, "reset_parameters", None) or getattr(module, "_reset_parameters", None)
        if callable(reset):
            reset()


def standardised(inputs: Any) -> Any:
    """Inputs of which each channel (or feature) has mean 0 and deviation 1 over the batch."""
    if not isinstance(inputs, torch.Tensor) or not inputs.is_floating_point() or inputs.ndim < 2:
        return inputs
    over = [axis for axis in range(inputs.ndim) if axis != 1] if inputs.ndim > 2 else [0, 1]
    clean = inputs.nan_to_num(0.0, 0.0, 0.0)
    mean, deviation = clean.mean(over, keepdim=True), clean.std(over, keepdim=True)
    return (clean - mean) / deviation.clamp(min=1e-12)


def frozen_norms(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Batch norms in eval mode in a model in train mode."""
    kind = nn.modules.batchnorm._BatchNorm
    return [(name, one) for name, one in model.named_modules() if isinstance(one, kind) and not one.training]


def largest_dropout(model: nn.Module) -> float:
    """The largest rate of a dropout layer in train mode; 0 where there is none."""
    rates = [
        float(one.p)
        for one in model.modules()
        if isinstance(one, nn.modules.dropout._DropoutNd) and one.training
    ]
    return max(rates, default=0.0)


class _WithoutDropout(TorchFunctionMode):
    dropped = False

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        given = dict(kwargs or {})
        if "dropout" in getattr(func, "__name__", "") and (args or "input" in given):
            self.dropped = True
            return args[0] if args else given["input"]
        return func(*args, **given)


@contextmanager
def without_dropout() -> Iterator[_WithoutDropout]:
    """Dropout hands back its input, also where it is called as a function."""
    with _WithoutDropout() as mode:
        yield mode


def _judged_without_dropout(setup: Setup, done: Run, bounds: LossRange | None) -> Run:
    if setup.train_step is not None:
        return done
    try:
        with torch.no_grad(), without_dropout(), last_output(setup.model) as output:
            value = scalar(setup.forward())
    except Exception:  # a step that takes gradients itself: it is judged as it ran
        return done
    correct = share_correct(output[0] if output else None, setup.targets)
    losses = [*done.losses, float("nan") if value is None else float(value)]
    learned = correct is not None and correct >= 1 and is_learned(losses, correct, setup.targets, bounds)
    return replace(done, correct=correct, learned=True) if learned else done


def rate_of(setup: Setup) -> float:
    """The largest learning rate of the optimizer's groups."""
    rates = [float(group["lr"]) for group in setup.optimizer.param_groups if "lr" in group]
    return max(rates, default=RATES.get(type(setup.optimizer).__name__, 1e-3))


def unsound_inputs(inputs: Any) -> str | None:
    """What is wrong with the inputs at sight: not finite, or nothing but one value; None where nothing is."""
    parts = [one for one in tensors(inputs) if one.is_floating_point() and one.numel() > 1]
    for one in parts:
        share = float((~one.isfinite()).float().mean())
        if share:
            return f"{share:.0%} of the inputs' values are NaN or infinite"
    if parts and all(math.isclose(float(one.max()), float(one.min())) for one in parts):
        return f"every value of the inputs is {float(parts[0].flatten()[0]):g}"
    return None
