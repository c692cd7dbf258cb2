"""The sentences about a batch that isn't learned: the one change that helps, or the layer where it ends."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from dataaudit.modelcheck.families import trn
from dataaudit.modelcheck.findings import finding
from dataaudit.modelcheck.inputs import tensors
from dataaudit.modelcheck.training.events import Activation
from dataaudit.modelcheck.training.paths import Paths, shorter
from dataaudit.modelcheck.training.runs import Run
from dataaudit.modelcheck.training.trials import Bench, Change, frozen_norms, rate_of
from dataaudit.types import Finding

__all__ = ["contradiction", "deepest", "odd_weights", "said"]


def contradiction(inputs: Any, targets: Any) -> tuple[int, int, int] | None:
    """Two samples that are equal and have other targets, and how many are equal to the first of them."""
    if not isinstance(inputs, torch.Tensor) or not isinstance(targets, torch.Tensor):
        return None
    if inputs.ndim < 2 or not targets.ndim or len(targets) != len(inputs):
        return None
    for a in range(len(inputs)):
        same = [b for b in range(len(inputs)) if torch.equal(inputs[a], inputs[b])]
        other = [b for b in same if b > a and not torch.equal(targets[a], targets[b])]
        if other:
            return a, other[0], len(same)
    return None


def said(bench: Bench, run: Run, helps: Change | None, seen: Paths, decay: float) -> Finding:
    """The finding for the one change with which the batch is learned."""
    setup = bench.setup
    kind, rate = type(setup.optimizer).__name__, rate_of(setup)
    failed = _failed(run)
    evidence = _evidence(bench, run)
    if helps is None or helps.fresh_optimizer is not None:
        what = f"{failed} with {kind} at {rate:g}, and is learned with AdamW at 0.001"
        what += "." if helps is not None else ", everything unfrozen, without dropout and weight decay."
        return finding(
            trn.LEARNING_RATE if helps is not None else trn.CANNOT_OVERFIT, kind, what,
            advice="Take AdamW at 0.001 and come back to your settings one by one.",
            evidence=evidence, score=0.1,
        )  # fmt: skip
    if helps.rate != 1:
        way = "high" if helps.rate < 1 else "low"
        return finding(
            trn.LEARNING_RATE, f"{kind} lr={rate:g}",
            f"The learning rate {rate:g} of {kind} is too {way}: {failed.lower()}, and is learned at "
            f"{rate * helps.rate:g} with nothing else changed.",
            advice=f"Set lr={rate * helps.rate:g}; dataaudit model lr shows the whole range.",
            evidence={**evidence, "rate": rate, "learns_at": rate * helps.rate},
        )  # fmt: skip
    if helps.unfreeze:
        layers = shorter([name.rpartition(".")[0] for name in seen.frozen])
        return finding(
            trn.FROZEN_LAYERS, layers[0], f"{failed}, and is learned when nothing is frozen "
            f"({len(seen.frozen)} parameters are: {', '.join(layers[:3])}).",
            advice="Set requires_grad_(True) on more of the last layers, and on all with random weights.",
            evidence={**evidence, "frozen": seen.frozen[:20]},
        )  # fmt: skip
    if helps.norms:
        names = [name for name, _ in frozen_norms(setup.model)]
        return finding(
            trn.NORMALISATION, names[0],
            f"{failed} with batch norm in eval mode ({len(names)} layers, first {names[0]}), "
            "and is learned with it in train mode.",
            advice="Leave it in train mode, or load weights whose running statistics fit the inputs.",
            evidence={**evidence, "layers": names[:20]},
        )  # fmt: skip
    if helps.no_decay:
        return finding(
            trn.REGULARISATION, f"weight_decay={decay:g}",
            f"Weight decay {decay:g} is too high: {failed.lower()}, and is learned without it.",
            advice="Lower it; 0.0001 (SGD) and 0.05 (AdamW) are usual.", evidence=evidence,
        )  # fmt: skip
    return finding(
        trn.REGULARISATION, _dropouts(setup.model),
        f"Dropout is in the way: {failed.lower()}, and is learned without it.",
        advice="Lower its rate: 0.1 to 0.5 is usual.", evidence=evidence,
    )  # fmt: skip


def _dropouts(model: nn.Module) -> str:
    kinds = nn.modules.dropout._DropoutNd
    found = [(float(one.p), name) for name, one in model.named_modules() if isinstance(one, kinds)]
    return max(found)[1] if found else "dropout"


def _failed(run: Run) -> str:
    text = "The batch is not learned"
    if run.losses:
        text += f" (loss {run.losses[0]:.3g} to {run.losses[-1]:.3g} in {len(run.losses)} steps"
        text += f", {run.correct:.0%} right)" if run.correct is not None and run.correct >= 0 else ")"
    return text


def _evidence(bench: Bench, run: Run) -> dict[str, Any]:
    return {
        "first_loss": run.losses[0] if run.losses else None,
        "last_loss": run.losses[-1] if run.losses else None,
        "steps": len(run.losses), "correct": run.correct,
        "tried": [{"change": str(change), "learned": done.learned} for change, done in bench.tried],
    }  # fmt: skip


def deepest(bench: Bench, seen: Paths, run: Run, helps: Change | None) -> Finding:
    """Neither rate nor regularisation is at fault: inputs, weights, an activation, or nothing known."""
    setup, failed, evidence = bench.setup, _failed(run), _evidence(bench, run)
    dead = _dead(seen)
    odd = odd_weights(setup.model)
    if helps is not None and helps.standardised:
        span = _span(setup.inputs)
        return finding(
            trn.INPUT_SCALE, "inputs", f"{failed}, and is learned when each channel of the inputs is brought "
            f"to mean 0 and deviation 1; they reach from {span[0]:.4g} to {span[1]:.4g}, mean {span[2]:.4g}.",
            advice="Scale pixels to 0 to 1, and normalise with the training data's mean and deviation.",
            evidence=evidence,
        )  # fmt: skip
    if dead is not None and (helps is None or not odd):
        return _activation(dead, failed, evidence, helps)
    if helps is not None:
        name, why = odd[0] if odd else (type(setup.model).__name__, "they can't be told from others by size")
        about = f": the weights of {name} {why}" if odd else ""
        return finding(
            trn.INITIALISATION, name, f"{failed}, and is learned with newly drawn weights{about}."
            + (f" {len(odd) - 1} more such layers." if len(odd) > 1 else ""),
            advice="Leave PyTorch's initialisation, or draw from nn.init.kaiming_normal_.",
            evidence={**evidence, "layers": [each[0] for each in odd][:20]},
        )  # fmt: skip
    if seen.zero:
        layers = shorter([name.rpartition(".")[0] for name in seen.zero])
        cut = next(
            (one for one in seen.events.cuts if one.name.strip("_") in ("round", "sign", "floor")), None
        )
        why = f": {cut.name}() at {cut.line or cut.module} lets none through" if cut is not None else ""
        return finding(
            trn.NO_GRADIENT, layers[0], f"{failed}; the gradient of {', '.join(layers[:3])} is zero in every "
            f"step{why}.",
            advice="Look for rounding, a factor of 0, or dead units between it and the loss.",
            evidence={**evidence, "zero": seen.zero[:20]}, source=None if cut is None else cut.line,
        )  # fmt: skip
    return finding(
        trn.CANNOT_OVERFIT, type(setup.model).__name__,
        f"{failed}, nor with any of {len(bench.tried) - 1} changes that were tried.",
        advice="Look at the loss (dataaudit model loss) and the layers (dataaudit model trace), and whether "
        "the targets follow from the inputs.",
        evidence=evidence, score=0.2,
    )  # fmt: skip


def _span(inputs: Any) -> tuple[float, float, float]:
    one = next(tensors(inputs)).float()
    return float(one.min()), float(one.max()), float(one.mean())


def _dead(seen: Paths) -> Activation | None:
    """The activation that lets the least through; softmax doesn't count."""
    limits = {
        "relu": 0.999,
        "relu6": 0.999,
        "hardtanh": 0.999,
        "threshold": 0.999,
        "sigmoid": 0.98,
        "tanh": 0.9,
    }
    found = [one for one in seen.events.activations if one.dead >= limits.get(one.name, 2.0)]
    ends = [one for one in seen.events.activations if one.last and one.name in ("relu", "relu6")]
    return next(iter(found or ends), None)


def _activation(dead: Activation, failed: str, evidence: dict[str, Any], helps: Change | None) -> Finding:
    where = dead.module or "forward"
    if dead.last and dead.name.startswith("relu"):
        what = f"{failed}; the model ends in {dead.name} ({where}), which puts out {dead.dead:.0%} zeros and "
        what += "lets no gradient through for them."
        advice = "Take the activation off the output."
    elif dead.name.startswith("relu") or dead.name in ("hardtanh", "threshold"):
        what = f"{failed}; {dead.name} in {where} is dead: {dead.dead:.1%} of its values are at its end."
        advice = "Look at the bias and scale before it; normalise, or take a leaky activation."
    else:
        what = (
            f"{failed}; {dead.name} in {where} is saturated: {dead.dead:.1%} of its values are at its ends."
        )
        advice = "Scale what goes in (normalisation, smaller weights), or take ReLU."
    if helps is not None:
        what += " With newly drawn weights the batch is learned."
    return finding(
        trn.DEAD_ACTIVATION, where, what, advice=advice,
        evidence={**evidence, "activation": dead.name, "dead": dead.dead},
    )  # fmt: skip


def odd_weights(model: nn.Module) -> list[tuple[str, str]]:
    """Layers whose weights no usual initialisation gives, with what is odd about them."""
    found = []
    for name, module in model.named_modules():
        weight = getattr(module, "weight", None)
        if not isinstance(weight, torch.Tensor) or weight.ndim < 2 or weight.layout is not torch.strided:
            continue
        held = weight.detach().float()
        fan = max(1, held[0].numel())
        spread, top = float(held.std()) if held.numel() > 1 else 0.0, float(held.abs().max())
        if not math.isfinite(spread):
            found.append((name, "hold NaN or infinity"))
        elif top == 0:
            found.append((name, "are all 0"))
        elif spread == 0 and held.numel() > 1:
            found.append((name, f"are all {float(held.flatten()[0]):.3g}"))
        elif not isinstance(module, nn.Embedding) and spread * math.sqrt(fan) > 30:
            found.append((name, f"deviate by {spread:.3g}, where {1 / math.sqrt(fan):.2g} is usual"))
        elif not isinstance(module, nn.Embedding) and spread * math.sqrt(fan) < 1e-3:
            found.append((name, f"deviate by {spread:.2g} only, where {1 / math.sqrt(fan):.2g} is usual"))
    return found
