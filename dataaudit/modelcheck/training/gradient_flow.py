"""Gradients of the first steps: their norms layer by layer, what a step changes, and where NaN begins."""

from __future__ import annotations

import math
import re
import statistics
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.optim.optimizer import Optimizer

from dataaudit.modelcheck.families import trn
from dataaudit.modelcheck.findings import finding, shown
from dataaudit.modelcheck.inputs import Batch, Inputs, tensors
from dataaudit.modelcheck.keeping import kept
from dataaudit.modelcheck.reporting import Table
from dataaudit.modelcheck.training.setups import (
    Loss,
    MakeOptimizer,
    Setup,
    Step,
    TrainStep,
    scalar,
    setup_of,
)
from dataaudit.modelcheck.training.trials import prepare
from dataaudit.modelcheck.watching import calls
from dataaudit.types import Finding

__all__ = ["CODES", "Gradients", "LayerGradient", "gradients"]

CODES = tuple(f"TRN{number:03d}" for number in range(20, 25))
FAR = 1e4
"""Factor between first and last layers from which a gradient vanishes or explodes."""


@dataclass(kw_only=True)
class LayerGradient:
    """The gradient of one weight with two dimensions or more, over some steps.

    Attributes:
        name: of the parameter.
        order: place of its layer in the forward pass.
        size: how many numbers it holds.
        norms: Euclidean norm of the gradient, unscaled, a step.
        weights: of the weight before the step.
        updates: norm of what the step changed, over that of the weight.
        zeros: share of units (rows) whose gradient is zero, a step.
    """

    name: str
    order: int
    size: int
    norms: list[float] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    updates: list[float] = field(default_factory=list)
    zeros: list[float] = field(default_factory=list)

    @property
    def pull(self) -> float:
        """Largest of gradient times weight over the steps; about equal in all layers of a sound network."""
        return max(
            (norm * weight for norm, weight in zip(self.norms, self.weights, strict=True)), default=0.0
        )

    @property
    def largest(self) -> float:
        """The largest update that counts: one step may be twice as large, and far more from next to 0."""
        small = min(self.weights, default=0.0) < 1e-3 * math.sqrt(self.size)
        return self.update if small else max(self.update, max(self.updates) / 2)

    @property
    def update(self) -> float:
        """Median of the update ratios; 0 where there was no step."""
        return statistics.median(self.updates) if self.updates else 0.0


@dataclass(frozen=True, kw_only=True)
class Gradients:
    """What the first steps show.

    Attributes:
        findings: what is wrong, the cause first.
        layers: in the order of the forward pass.
        skipped_steps: steps that the scaler of mixed precision left out, which is no fault.
    """

    findings: list[Finding]
    layers: tuple[LayerGradient, ...]
    skipped_steps: int = 0

    def table(self) -> Table:
        """A row a layer: norm of the gradient, ratio of update to weight, share of units without gradient."""
        named = {item.item_id for item in self.findings}
        rows = tuple(
            (
                one.name, one.size, statistics.median(one.norms) if one.norms else None,
                one.update if one.updates else None, min(one.zeros) if one.zeros else None,
            )
            for one in self.layers
        )  # fmt: skip
        marked = frozenset(
            at for at, one in enumerate(self.layers) if {one.name, one.name.rpartition(".")[0]} & named
        )
        return Table(
            title="Gradients", columns=("weight", "numbers", "gradient", "update/weight", "zero units"),
            rows=rows, marked=marked, note="Norms, medians over the steps; an update of 0.001 is usual.",
        )  # fmt: skip


def gradients(
    model: nn.Module,
    loss: Loss | None,
    inputs: Inputs | Batch,
    targets: Any = None,
    *,
    step: Step | None = None,
    train_step: TrainStep | None = None,
    optimizer: Optimizer | MakeOptimizer | None = None,
    scaler: Any = None,
    steps: int = 4,
) -> Gradients:
    """Take a few steps on one batch and look at every layer's gradient and update; all of it is put back.

    Args:
        model, loss, inputs, targets, step, train_step, optimizer: see `dataaudit.modelcheck.overfit`.
        scaler: ``torch.amp.GradScaler``; norms are those without its scale.
        steps: how many.

    Raises:
        InputError: there are no targets, or nothing to learn.

    >>> found = gradients(nn.Linear(4, 3), nn.CrossEntropyLoss(), torch.rand(6, 4), torch.arange(6) % 3)
    >>> found.findings, [one.name for one in found.layers]
    ([], ['weight'])
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        setup = setup_of(model, loss, inputs, targets, step=step, train_step=train_step,
                         optimizer=optimizer, scaler=scaler)  # fmt: skip
        with kept(*setup.roots, eager=True) as state, torch.enable_grad():
            prepare(model)
            layers = _layers(setup)
            skipped, broken = _steps(setup, layers, steps)
            found = []
            if broken:
                state.restore()
                prepare(model)
                # NaN after a step out of all proportion is that step's doing
                large = [item for item in _updates(setup, layers) if item.evidence["ratio"] > 1]
                found = large or list(nonfinite(setup))
            else:
                found = [*flow(layers), *_zeros(layers), *_updates(setup, layers)]
    return Gradients(findings=found, layers=tuple(layers.values()), skipped_steps=skipped)


def _layers(setup: Setup) -> dict[int, LayerGradient]:
    """Weights that ask for a gradient by id, in the order in which their layers are called."""
    order: dict[str, int] = {}
    with torch.no_grad(), calls(setup.model, keep=lambda tensor: tensor.new_empty(0)) as done:
        if setup.train_step is None:
            setup.forward()
        else:
            from dataaudit.modelcheck.inputs import call

            call(setup.model, setup.inputs)
    for one in sorted(done, key=lambda each: each.began):
        order.setdefault(one.name, one.began)
    rows = []
    for name, weight in setup.model.named_parameters():
        if weight.requires_grad and weight.ndim > 1 and weight.is_floating_point():
            at = order.get(name.rpartition(".")[0], len(done))
            rows.append((at, id(weight), LayerGradient(name=name, order=at, size=weight.numel())))
    return {key: row for _, key, row in sorted(rows, key=lambda each: each[0])}


def _steps(setup: Setup, layers: dict[int, LayerGradient], steps: int) -> tuple[int, bool]:
    """Take the steps; how many the scaler left out, and whether one was not finite without a scale."""
    parameters = {id(one): one for one in setup.model.parameters()}
    skipped, taken = 0, 0
    for _ in range(steps + 24):
        before = {key: parameters[key].detach().clone() for key in layers}
        scale = float(setup.scaler.get_scale()) if setup.scaler is not None else 1.0
        good = _one_step(setup, layers, parameters)
        if good:
            for key, row in layers.items():
                held = float(before[key].float().norm())
                moved = float((parameters[key].detach() - before[key]).float().norm())
                row.weights.append(held)
                row.updates.append(moved / held if held > 0 else 0.0)
            taken += 1
            if taken == steps:
                break
        elif setup.scaler is None or scale <= 1:
            return skipped, True
        else:
            skipped += 1
    return skipped, False


def _one_step(setup: Setup, layers: dict[int, LayerGradient], parameters: dict[int, nn.Parameter]) -> bool:
    """One step, noted if it was finite."""
    optimizer, scaler = setup.optimizer, setup.scaler
    noted: list[dict[int, tuple[float, float]]] = []

    def note(*_: Any) -> None:
        noted.append({key: _measured(parameters[key]) for key in layers})

    if setup.train_step is not None:
        handle = optimizer.register_step_pre_hook(note)
        try:
            setup.train_step(setup.model, optimizer, (setup.inputs, setup.targets))
        finally:
            handle.remove()
    else:
        optimizer.zero_grad(set_to_none=True)
        value = scalar(setup.forward())
        if value is None or not value.requires_grad:
            return True
        if not math.isfinite(float(value.detach())):
            return False
        (scaler.scale(value) if scaler is not None else value).backward()
        if scaler is not None:
            scaler.unscale_(optimizer)
        note()
        if all(_finite(one) for one in parameters.values()):
            _ = scaler.step(optimizer) if scaler is not None else optimizer.step()
        if scaler is not None:
            if not all(_finite(one) for one in parameters.values()):
                scaler.update(float(scaler.get_scale()) / 2)
            else:
                scaler.update()
    last = noted[-1] if noted else dict.fromkeys(layers, (0.0, 1.0))
    if not all(math.isfinite(norm) for norm, _ in last.values()) or not all(
        map(_finite, parameters.values())
    ):
        return False
    for key, (norm, zero) in last.items():
        layers[key].norms.append(norm)
        layers[key].zeros.append(zero)
    return True


def _finite(parameter: torch.Tensor) -> bool:
    return parameter.grad is None or bool(parameter.grad.isfinite().all())


def _measured(weight: torch.Tensor) -> tuple[float, float]:
    """Norm of the gradient, and the share of units whose gradient is zero."""
    if weight.grad is None:
        return 0.0, 1.0
    grad = weight.grad.detach().to_dense() if weight.grad.is_sparse else weight.grad.detach()
    grad = grad.float()
    return float(grad.norm()), float((grad.flatten(1).abs().amax(1) == 0).float().mean())


def flow(layers: dict[int, LayerGradient]) -> Iterator[Finding]:
    """TRN021 and TRN022: the pull on the first layers against that on the last."""
    rows = [one for one in layers.values() if one.norms and one.pull > 0]
    if not rows:
        return
    whole = math.sqrt(sum(max(one.norms) ** 2 for one in rows))
    weights = math.sqrt(sum(max(one.weights) ** 2 for one in rows))
    if len(rows) >= 4:
        n = max(1, len(rows) // 4)
        # The greatest pull counts: a skip that carries the gradient past small branches is sound
        early, late = max(one.pull for one in rows[:n]), max(one.pull for one in rows[-n:])
        ratio = early / late
        evidence = {"first": rows[0].name, "last": rows[-1].name, "ratio": ratio,
                    "norms": [statistics.median(one.norms) for one in rows[:50]]}  # fmt: skip
        if ratio < 1 / FAR:
            yield finding(
                trn.VANISHING_GRADIENT, rows[0].name,
                f"The gradient vanishes on its way back: gradient x weight is {ratio:.1g} times as much in "
                f"{rows[0].name} (norm {max(rows[0].norms):.2g}) as in {rows[-1].name} "
                f"(norm {max(rows[-1].norms):.2g}).",
                advice="ReLU in place of sigmoid or tanh, normalisation, residual connections, Kaiming "
                "initialisation.", evidence=evidence,
            )  # fmt: skip
            return
        if ratio > FAR:
            yield finding(
                trn.EXPLODING_GRADIENT, rows[0].name,
                f"The gradient explodes on its way back: gradient x weight is {ratio:.2g} times as much in "
                f"{rows[0].name} as in {rows[-1].name}.",
                advice="Normalisation, an initialisation that keeps the variance, or clipping.",
                evidence=evidence,
            )  # fmt: skip
            return
    if whole > 1e3 * max(weights, 1.0):
        top = max(rows, key=lambda one: max(one.norms))
        yield finding(
            trn.EXPLODING_GRADIENT, top.name,
            f"The gradient is huge: its norm is {whole:.3g}, most of it in {top.name}; the weights' is "
            f"{weights:.3g}.",
            advice="Scale the inputs and targets, take the mean in the loss, normalise, or clip.",
            evidence={"norm": whole, "weights": weights},
        )  # fmt: skip


def _zeros(layers: dict[int, LayerGradient]) -> Iterator[Finding]:
    """TRN023: layers whose gradient is zero in every step."""
    rows = [one for one in layers.values() if one.zeros]
    dead = [one for one in rows if min(one.zeros) > 0.9 and "embed" not in one.name.lower()]
    if not dead:
        return
    worst = dead[-1]
    share = min(worst.zeros)
    what = f"The gradient of {worst.name} is zero in every step" if share == 1 else (
        f"The gradient of {worst.name} is zero for {share:.0%} of its units in every step"
    )  # fmt: skip
    more = f"; so is that of {len(dead) - 1} others before it" if len(dead) > 1 else ""
    yield finding(
        trn.DEAD_GRADIENT, worst.name, f"{what}{more}.",
        advice="Look at what follows it: dead ReLUs, zero weights, rounding, detach; dataaudit model overfit "
        "finds out which.", evidence={"weights": [one.name for one in dead[:20]], "share": share},
    )  # fmt: skip


def _updates(setup: Setup, layers: dict[int, LayerGradient]) -> Iterator[Finding]:
    """TRN024: steps that are far too large or next to nothing."""
    rows = [one for one in layers.values() if one.updates and min(one.weights) > 0 and max(one.norms) > 0]
    if not rows:
        return
    rate = max((float(group.get("lr", 0)) for group in setup.optimizer.param_groups), default=0.0)
    top = max(rows, key=lambda one: one.largest)
    if top.largest > 1:
        most = max(top.updates)
        yield finding(
            trn.UPDATE_RATIO, top.name,
            f"A step changes {top.name} by {most:.2g} times its norm, at a learning rate of {rate:g}.",
            advice=f"A learning rate {_round(most / 0.01):,.0f} times lower.",
            evidence={"ratio": most, "rate": rate},
        )  # fmt: skip
        return
    top = max(rows, key=lambda one: one.update)
    if top.update < 1e-7:
        name = top.name
        factor = f"A learning rate {_round(1e-3 / top.update):.1g} times higher." if top.update else (
            "Check that optimizer.step() is called, that it holds these weights, and that its rate isn't 0."
        )  # fmt: skip
        yield finding(
            trn.UPDATE_RATIO, name,
            f"A step changes next to nothing: {name} by {top.update:.1g} of its norm, all others by less, "
            f"at a learning rate of {rate:g}.",
            advice=factor, evidence={"ratio": top.update, "rate": rate},
        )  # fmt: skip


def _round(value: float) -> float:
    return float(10 ** round(math.log10(value))) if value > 0 and math.isfinite(value) else value


def nonfinite(setup: Setup) -> Iterator[Finding]:
    """TRN020: the first layer, or the first operation of the backward pass, that isn't finite."""
    for one in tensors(setup.inputs):
        if one.is_floating_point() and not bool(one.isfinite().all()):
            yield finding(trn.NONFINITE_GRADIENT, "inputs", "The inputs hold NaN or infinity.",
                          advice="Look at the loader and the transform.")  # fmt: skip
            return
    named = [name for name, one in setup.model.named_parameters() if not bool(one.isfinite().all())]
    if named:
        yield finding(trn.NONFINITE_GRADIENT, named[0], f"The weights of {named[0]} hold NaN or infinity.",
                      advice="Load or draw them anew; they come from an earlier step.",
                      evidence={"weights": named[:20]})  # fmt: skip
        return
    value: torch.Tensor | None = None
    lines: list[str] = []
    function = ""
    with warnings.catch_warnings(record=True) as caught, torch.autograd.set_detect_anomaly(True):
        warnings.simplefilter("always")
        with calls(setup.model) as done:
            try:
                if setup.train_step is not None:
                    for _ in range(4):
                        setup.train_step(setup.model, setup.optimizer, (setup.inputs, setup.targets))
                else:
                    value = scalar(setup.forward())
                    if value is not None and math.isfinite(float(value.detach())):
                        torch.autograd.backward(value)
            except RuntimeError as error:
                told = re.search(r"Function '(\w+?)(?:Backward\d*)?' returned nan", str(error))
                function = told.group(1) if told else ""
    for warning in caught:
        files = re.findall(r'File "([^"]+)", line (\d+)', str(warning.message))
        own = [(file, line) for file, line in files if _is_own(file)]
        if "forward call" in str(warning.message) and own:
            lines.append(f"{shown(own[-1][0])}:{own[-1][1]}")
    yield _first_broken(done, value, function, lines[0] if lines else None)


def _is_own(file: str) -> bool:
    return not any(part in file for part in ("site-packages", "dataaudit/modelcheck", "/lib/python"))


def _first_broken(
    done: Sequence[Any], value: torch.Tensor | None, function: str, line: str | None
) -> Finding:
    for one in done:
        if all(map(_sound, one.inputs)) and not all(map(_sound, one.outputs)):
            return finding(
                trn.NONFINITE_GRADIENT, one.name or one.title,
                f"NaN or infinity appears in the forward pass, first in the output of {one.title}.",
                advice="dataaudit model trace --train --pdb stops inside it.",
                evidence={"pass": "forward", "module": one.title}, source=line,
            )  # fmt: skip
    if function:
        return finding(
            trn.NONFINITE_GRADIENT, function,
            f"The forward pass is finite, and the backward pass of {function.lower()} returns NaN"
            f"{f' ({line})' if line else ''}.",
            advice="Add a small epsilon inside the root, logarithm or division, or mask its input rather "
            "than its output.",
            evidence={"pass": "backward", "function": function}, source=line,
        )  # fmt: skip
    where = "in the loss" if value is not None and not _sound(value.detach()) else "after the first steps"
    return finding(
        trn.NONFINITE_GRADIENT, "loss", f"NaN or infinity appears {where}.",
        advice="Lower the learning rate, or look at the loss: dataaudit model loss.",
        evidence={"pass": "forward"}, source=line,
    )  # fmt: skip


def _sound(tensor: torch.Tensor) -> bool:
    return not tensor.is_floating_point() or bool(tensor.isfinite().all())
