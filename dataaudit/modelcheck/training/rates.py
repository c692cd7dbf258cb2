"""Which learning rate: a range test on one batch after another, and whether it fits the batch size."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim.optimizer import Optimizer

from dataaudit.errors import InputError
from dataaudit.modelcheck.families import trn
from dataaudit.modelcheck.findings import finding
from dataaudit.modelcheck.inputs import Batch, Inputs
from dataaudit.modelcheck.keeping import kept
from dataaudit.modelcheck.reporting import Picture
from dataaudit.modelcheck.training.runs import take_step
from dataaudit.modelcheck.training.setups import Loss, MakeOptimizer, Setup, Step, setup_of
from dataaudit.modelcheck.training.trials import prepare, rate_of
from dataaudit.types import Finding

__all__ = ["CODES", "RateRange", "rate_fits_batch", "rate_range"]

CODES = ("TRN030", "TRN031")
REFERENCES = {"SGD": (0.1, 256), "Adam": (1e-3, 256)}
"""Rate and batch size that are known to work, for SGD with momentum and for Adam and its kin."""


@dataclass(frozen=True, kw_only=True)
class RateRange:
    """What a range test shows.

    Attributes:
        rates: learning rate of each step, growing evenly on a logarithmic scale.
        losses: of each step.
        smooth: losses smoothed over neighbouring steps.
        steepest: where the smoothed loss falls fastest; None where it doesn't fall.
        lowest: where it is lowest.
        diverges: from where on nine tenths of its fall are lost again; None where it doesn't.
        now: the optimizer's own rate, or None where the user gave no optimizer.
        findings: whether that lies outside.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    smooth: tuple[float, ...]
    steepest: float | None
    lowest: float | None
    diverges: float | None
    now: float | None
    findings: list[Finding]

    @property
    def suggested(self) -> float | None:
        """The smaller of a tenth of the rate of the lowest loss and the rate where it falls steepest."""
        if self.steepest is None or self.lowest is None:
            return None
        return min(self.lowest / 10, self.steepest)

    def picture(self) -> Picture:
        """The plot: loss over rate."""
        from dataaudit.modelcheck.training import drawing

        return drawing.rates(self.losses, self.smooth, self.rates, suggested=self.suggested, now=self.now)


def rate_range(
    model: nn.Module,
    loss: Loss | None,
    inputs: Inputs | Batch | Sequence[Batch],
    targets: Any = None,
    *,
    step: Step | None = None,
    optimizer: Optimizer | MakeOptimizer | None = None,
    low: float = 1e-7,
    high: float = 10.0,
    steps: int = 100,
    seed: int = 0,
) -> RateRange:
    """Train while the learning rate grows, and see where the loss falls and diverges; all is put back.

    Args:
        model, loss, targets, step, optimizer: see `dataaudit.modelcheck.overfit`.
        inputs: as there, or several batches that are gone through in turn.
        low, high: first and last learning rate.
        steps: how many; fewer where the loss diverges.
        seed: of the random numbers.

    Returns:
        Rates, losses, a suggestion, and TRN030 where the optimizer's own rate lies outside.

    Raises:
        InputError: `low` isn't below `high`, or there are no targets.

    Reference: Smith, "Cyclical Learning Rates for Training Neural Networks", WACV 2017.
    """
    if not 0 < low < high:
        raise InputError(f"The rates go from {low:g} to {high:g}; expected 0 < low < high.")
    if steps < 10:
        raise InputError(f"steps is {steps}; expected 10 or more.")
    batches = list(inputs) if isinstance(inputs, (list, tuple)) and inputs and isinstance(
        inputs[0], Batch) else [inputs]  # fmt: skip
    setup = setup_of(model, loss, batches[0], targets, step=step, optimizer=optimizer)
    others = [setup_of(model, loss, one, targets, step=step, optimizer=setup.optimizer) for one in batches]
    with warnings.catch_warnings(), kept(*setup.roots, eager=True), torch.enable_grad():
        warnings.simplefilter("ignore")
        prepare(model)
        torch.manual_seed(seed)
        rates, losses = _sweep(setup, others, low, high, steps)
    smooth = _smoothed(losses)
    steepest, lowest, diverges = _landmarks(rates, smooth)
    if diverges is None and rates and len(rates) < steps:
        diverges = rates[-1]
    now = rate_of(setup) if setup.own_optimizer else None
    found = RateRange(
        rates=tuple(rates), losses=tuple(losses), smooth=tuple(smooth), steepest=steepest, lowest=lowest,
        diverges=diverges, now=now, findings=[],
    )  # fmt: skip
    found.findings.extend(_outside(setup, found))
    return found


def _sweep(
    setup: Setup, others: Sequence[Setup], low: float, high: float, steps: int
) -> tuple[list[float], list[float]]:
    from dataclasses import replace

    rates: list[float] = []
    losses: list[float] = []
    groups = setup.optimizer.param_groups
    first = rate_of(setup) or 1.0
    shares = [float(group["lr"]) / first if first else 1.0 for group in groups]
    for at, one in zip(range(steps), itertools.cycle(others), strict=False):
        rate = low * (high / low) ** (at / (steps - 1))
        for group, share in zip(groups, shares, strict=True):
            group["lr"] = rate * share
        value = take_step(replace(one, optimizer=setup.optimizer))
        if value is None or not math.isfinite(value):
            break
        rates.append(rate)
        losses.append(value)
        if at > 10 and value > 4 * abs(min(losses)) + abs(losses[0]):
            break
    return rates, losses


def _smoothed(losses: Sequence[float]) -> list[float]:
    """A running mean over five steps, shorter at the ends."""
    return [
        sum(losses[max(0, at - 2) : at + 3]) / len(losses[max(0, at - 2) : at + 3])
        for at in range(len(losses))
    ]


def _landmarks(
    rates: Sequence[float], smooth: Sequence[float]
) -> tuple[float | None, float | None, float | None]:
    """Where the loss falls fastest, is lowest, and grows above its start."""
    if len(rates) < 8:
        return None, None, rates[-1] if rates else None
    bottom = min(range(len(smooth)), key=lambda at: smooth[at])
    again = smooth[bottom] + 0.9 * max(smooth[0] - smooth[bottom], 0.0)
    diverges = next((rates[at] for at in range(bottom, len(smooth)) if smooth[at] > again), None)
    if smooth[0] - smooth[bottom] < 0.02 * abs(smooth[0]) or bottom < 2:
        return None, None, diverges
    steps = range(1, bottom)
    fastest = min(steps, key=lambda at: smooth[at + 1] - smooth[at - 1])
    return rates[fastest], rates[bottom], diverges


def _outside(setup: Setup, found: RateRange) -> Iterator[Finding]:
    if found.now is None or found.suggested is None:
        return
    kind = type(setup.optimizer).__name__
    evidence = {"rate": found.now, "suggested": found.suggested, "diverges": found.diverges}
    if found.diverges is not None and found.now >= found.diverges:
        yield finding(
            trn.RATE_OUT_OF_RANGE, f"{kind} lr={found.now:g}",
            f"The learning rate {found.now:g} is too high: in the range test the loss grows from "
            f"{found.diverges:.2g} on.",
            advice=f"Set lr={found.suggested:.1g}.", evidence=evidence,
        )  # fmt: skip
    elif found.now < found.suggested / 1000:
        yield finding(
            trn.RATE_OUT_OF_RANGE, f"{kind} lr={found.now:g}",
            f"The learning rate {found.now:g} is too low: in the range test the loss falls fastest at "
            f"{found.suggested:.1g}.",
            advice=f"Set lr={found.suggested:.1g}.", evidence=evidence,
        )  # fmt: skip


def rate_fits_batch(
    optimizer: Optimizer | str,
    batch_size: int,
    *,
    rate: float | None = None,
    reference: tuple[float, int] | None = None,
) -> list[Finding]:
    """TRN031: whether learning rate and batch size fit, by the linear (SGD) or square-root rule (Adam).

    The linear rule held for SGD with momentum up to batches of 8,192 (with warm-up); the square-root rule
    follows for Adam and RMSprop, whose step doesn't grow with the gradient.

    Args:
        optimizer: it, or the name of its class.
        batch_size: samples a step, over all processes and accumulated batches.
        rate: the learning rate; the optimizer's when left out.
        reference: a rate and a batch size that work; one that is known for the optimizer when left out.

    Raises:
        InputError: the batch size isn't positive, or no rate is known.

    Reference: Goyal et al., "Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour", 2017; Malladi et
    al., "On the SDEs and Scaling Rules for Adaptive Gradient Algorithms", NeurIPS 2022.

    >>> [item.code for item in rate_fits_batch("SGD", 8, rate=0.4)], rate_fits_batch("AdamW", 32, rate=1e-3)
    (['TRN031'], [])
    """
    name = optimizer if isinstance(optimizer, str) else type(optimizer).__name__
    if rate is None and isinstance(optimizer, Optimizer):
        rate = max(float(group["lr"]) for group in optimizer.param_groups)
    if batch_size < 1 or rate is None or (reference is not None and min(reference) <= 0):
        raise InputError(f"Batch size {batch_size}, rate {rate}; expected both, above 0.")
    plain = name in ("SGD", "ASGD")
    adaptive = name in ("Adam", "AdamW", "NAdam", "RAdam", "Adamax", "RMSprop")
    if reference is None and not (plain or adaptive):
        return []
    known_rate, known_size = reference or REFERENCES["SGD" if plain else "Adam"]
    factor = batch_size / known_size
    fits = known_rate * (factor if plain else math.sqrt(factor))
    ratio, limit = rate / fits, 3.0 if reference is not None else 30.0
    # A low rate is slow and safe; without a pair of the user's it may be meant, as for fine-tuning
    if ratio <= limit and (reference is None or ratio >= 1 / limit):
        return []
    rule = "proportional to the batch size" if plain else "proportional to its square root"
    return [
        finding(
            trn.RATE_FOR_BATCH,
            f"{name} lr={rate:g}",
            f"A learning rate of {rate:g} with {batch_size} samples a step is {max(ratio, 1 / ratio):.3g} x "
            f"as {'high' if ratio > 1 else 'low'} as what follows from {known_rate:g} at {known_size} "
            f"({rule}): {fits:.2g}.",
            advice=f"Set lr={fits:.1g}, or change the batch size.",
            score=0.4 if reference is None else 0.1,
            evidence={
                "rate": rate,
                "batch_size": batch_size,
                "fits": fits,
                "reference": [known_rate, known_size],
            },
        )
    ]
