"""What is wrong before anything is trained: settings, inputs, weights and the loss, as they are."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import nn

from dataaudit.modelcheck.families import trn
from dataaudit.modelcheck.findings import finding, place_of
from dataaudit.modelcheck.training.events import Activation, Entry
from dataaudit.modelcheck.training.loss_range import LossRange
from dataaudit.modelcheck.training.paths import Paths
from dataaudit.modelcheck.training.setups import Setup
from dataaudit.modelcheck.training.trials import rate_of
from dataaudit.types import Finding

__all__ = ["SUSPECTED", "judge_settings", "last_activation", "odd_weights", "scale_fault"]

SUSPECTED = 0.3
"""Score of what is wrong by its looks; a trial that learns without it makes it sure."""


def judge_settings(setup: Setup, paths: Paths, bounds: LossRange | None) -> Iterator[Finding]:
    """TRN004 to TRN014 as far as they show without training."""
    yield from _loss(setup, bounds)
    yield from _optimizer(setup)
    yield from _dropout(paths)
    yield from _normalisation(setup, paths)
    fault = scale_fault(paths.events.entry)
    entry = paths.events.entry
    if fault and entry is not None:
        yield finding(
            trn.INPUT_SCALE, "inputs", f"{entry.module or 'The first layer'} is given {fault}.",
            advice="Scale pixels to 0 to 1 once, and normalise once with the training data's mean and "
            "deviation.",
            score=SUSPECTED,
            evidence={"suspected": True, "low": entry.low, "high": entry.high, "mean": entry.mean,
                      "deviation": entry.deviation, "layer": entry.module},
        )  # fmt: skip
    yield from _output(setup, paths, bounds)
    odd = [(name, why) for name, why, grave in odd_weights(setup.model) if grave]
    if odd:
        yield finding(
            trn.INITIALISATION, odd[0][0], f"The weights of {odd[0][0]} {odd[0][1]}."
            + (f" {len(odd) - 1} more such layers." if len(odd) > 1 else ""),
            advice="Leave PyTorch's initialisation, or draw from nn.init.kaiming_normal_.",
            score=SUSPECTED, evidence={"suspected": True, "layers": [name for name, _ in odd][:20]},
        )  # fmt: skip


def _loss(setup: Setup, bounds: LossRange | None) -> Iterator[Finding]:
    """TRN014: a loss that is lower for wrong predictions."""
    if bounds is None or not bounds.inverted:
        return
    culprit = setup.loss or setup.step or setup.train_step
    library = type(culprit).__module__.split(".")[0] == "torch"
    yield finding(
        trn.INVERTED_LOSS, getattr(culprit, "__name__", type(culprit).__name__),
        f"The loss is lower for wrong predictions ({bounds.wrong:.3g}) than for right ones "
        f"({bounds.right:.3g}): training makes the model worse.",
        advice="Turn its sign: -log_prob, 1 - dice.", source=None if library else place_of(culprit),
        score=SUSPECTED if bounds.bounded else 0.0,
        evidence={"suspected": bounds.bounded, "right": bounds.right, "uninformed": bounds.uninformed,
                  "wrong": bounds.wrong},
    )  # fmt: skip


def _optimizer(setup: Setup) -> Iterator[Finding]:
    kind = type(setup.optimizer).__name__
    groups = setup.optimizer.param_groups
    momentum = max((float(group.get("momentum", 0.0) or 0.0) for group in groups), default=0.0)
    if momentum >= 1:
        yield finding(
            trn.LEARNING_RATE, f"{kind} momentum={momentum:g}",
            f"The momentum of {kind} is {momentum:g}: steps add up without end, and grow.",
            advice="Set it below 1; 0.9 is usual.", evidence={"momentum": momentum},
        )  # fmt: skip
    decay = max((float(group.get("weight_decay", 0.0) or 0.0) for group in groups), default=0.0)
    if decay >= 1 or decay * rate_of(setup) >= 0.01:
        yield finding(
            trn.REGULARISATION, f"weight_decay={decay:g}",
            f"Weight decay {decay:g} at a learning rate of {rate_of(setup):g} is far above what is usual.",
            advice="Lower it; 0.0001 (SGD) and 0.05 (AdamW) are usual.",
            score=SUSPECTED, evidence={"suspected": True, "weight_decay": decay, "rate": rate_of(setup)},
        )  # fmt: skip


def _dropout(paths: Paths) -> Iterator[Finding]:
    rate, module = max(paths.events.dropouts, default=(0.0, ""))
    if rate > 0.8:
        yield finding(
            trn.REGULARISATION, module or "dropout",
            f"Dropout in {module or 'forward'} leaves out {rate:.4g} of all values.",
            advice="Lower its rate: 0.1 to 0.5 is usual. PyTorch's p is the share that is dropped, not kept.",
            score=SUSPECTED, evidence={"suspected": True, "rate": rate},
        )  # fmt: skip


def _normalisation(setup: Setup, paths: Paths) -> Iterator[Finding]:
    if not paths.resting or paths.error is not None:
        return
    first = dict(setup.model.named_modules())[paths.resting[0]]
    momentum = getattr(first, "momentum", None)
    why = f" (momentum={momentum:g})" if isinstance(momentum, float) and momentum < 1e-3 else ""
    yield finding(
        trn.NORMALISATION, paths.resting[0],
        f"The running statistics of {len(paths.resting)} batch norm layers, first {paths.resting[0]}, don't "
        f"follow the batches{why}: the model learns in train mode, and says something else in eval mode.",
        advice="A momentum of 0.1 is usual; PyTorch's is the weight of the new batch, 1 minus TensorFlow's.",
        score=SUSPECTED, evidence={"suspected": True, "layers": paths.resting[:20], "momentum": momentum},
    )  # fmt: skip


def scale_fault(entry: Entry | None) -> str | None:
    """What is odd about the scale of what the first layer is given, in words; None where nothing is.

    Only the batch itself counts: what the model makes of it first is meant.
    """
    if entry is None or not entry.raw or not math.isfinite(entry.deviation):
        return None
    span = f"values from {entry.low:.4g} to {entry.high:.4g} (mean {entry.mean:.3g}, deviation "
    span += f"{entry.spread:.2g})"
    if entry.image:
        if entry.low >= 0 and entry.high > 2 and entry.spread > 3:
            return f"{span}: pixels that are neither divided by 255 nor normalised"
        if entry.spread > 30:
            return f"{span}: pixels that aren't divided by 255"
        if entry.spread > 3:
            return f"{span}, as of images that are normalised twice"
        if entry.spread < 0.01:
            return f"{span}: nearly nothing but one value, as of pixels that are divided by 255 twice"
        return None
    if entry.deviation > 100 or (entry.deviation < 1e-3 and entry.high > entry.low):
        return span
    return f"{span}, far from 0" if abs(entry.mean) > 30 * entry.deviation > 0 else None


def _ending(setup: Setup, paths: Paths, bounds: LossRange | None) -> Activation | None:
    """A ReLU after the scores of classes; None where there is none, or where the loss wants none below 0."""
    if not isinstance(setup.targets, torch.Tensor) or bounds is None or not bounds.telling:
        return None
    targets = setup.targets
    classes = not targets.is_floating_point() or bool(((targets == 0) | (targets == 1)).all())
    numbers = (nn.MSELoss, nn.L1Loss, nn.SmoothL1Loss, nn.BCELoss)
    ends = [one for one in paths.events.activations if one.last and one.name in ("relu", "relu6", "hardtanh")]
    return ends[-1] if classes and ends and not isinstance(setup.loss, numbers) else None


def last_activation(setup: Setup, paths: Paths, bounds: LossRange | None) -> str | None:
    """Name of a module that is a ReLU after the scores of classes, or None."""
    one = _ending(setup, paths, bounds)
    module = dict(setup.model.named_modules()).get(one.module) if one is not None else None
    plain = isinstance(module, (nn.ReLU, nn.ReLU6, nn.Hardtanh))
    return one.module if one is not None and plain else None


def _output(setup: Setup, paths: Paths, bounds: LossRange | None) -> Iterator[Finding]:
    """TRN005: a ReLU after the scores of classes."""
    one = _ending(setup, paths, bounds)
    if one is not None:
        yield finding(
            trn.DEAD_ACTIVATION, one.module or "forward",
            f"The model ends in {one.name}{f' ({one.module})' if one.module else ''}, which puts out "
            f"{one.dead:.0%} zeros: scores of classes below 0 are lost, and no gradient comes back for them.",
            advice="Take the activation off the output.", score=SUSPECTED,
            evidence={"suspected": True, "activation": one.name, "dead": one.dead},
        )  # fmt: skip


def odd_weights(model: nn.Module) -> list[tuple[str, str, bool]]:
    """Layers whose weights no usual initialisation gives, with what is odd about them.

    The last of each is whether it is odd also in a model that learns: zeros may be meant, as at the end of a
    residual branch, and small weights come with weight decay.
    """
    found = []
    for name, module in model.named_modules():
        weight = getattr(module, "weight", None)
        if not isinstance(weight, torch.Tensor) or weight.ndim < 2 or weight.layout is not torch.strided:
            continue
        held = weight.detach().float()
        fan = max(1, held[0].numel())
        spread, top = float(held.std()) if held.numel() > 1 else 0.0, float(held.abs().max())
        plain = not isinstance(module, nn.Embedding)
        if not math.isfinite(spread):
            found.append((name, "hold NaN or infinity", True))
        elif top == 0:
            found.append((name, "are all 0", False))
        elif spread == 0 and held.numel() > 1:
            several = len(held) > 1 and fan > 1 and weight.requires_grad
            found.append((name, f"are all {float(held.flatten()[0]):.3g}", several))
        elif plain and spread * math.sqrt(fan) > 30:
            about = f"deviate by {spread:.3g}, where {1 / math.sqrt(fan):.2g} is usual"
            found.append((name, about, weight.requires_grad))
        elif plain and spread * math.sqrt(fan) < 1e-3:
            about = f"deviate by {spread:.2g} only, where {1 / math.sqrt(fan):.2g} is usual"
            found.append((name, about, False))
    return found
