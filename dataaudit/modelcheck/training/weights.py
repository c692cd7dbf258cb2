"""The sentences about a batch that isn't learned: the smallest change that helps, or where it ends."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from dataaudit.modelcheck.families import trn
from dataaudit.modelcheck.findings import finding
from dataaudit.modelcheck.training.at_sight import odd_weights, scale_fault
from dataaudit.modelcheck.training.events import Activation
from dataaudit.modelcheck.training.own_steps import Randomness
from dataaudit.modelcheck.training.paths import Paths, shorter
from dataaudit.modelcheck.training.runs import Run
from dataaudit.modelcheck.training.setups import RATES, Setup
from dataaudit.modelcheck.training.trials import Bench, Change, frozen_norms, prepare, rate_of
from dataaudit.registry import Rule
from dataaudit.types import Finding

__all__ = ["contradiction", "decay_of", "deepest", "said"]

RULES = {one.code: one for one in vars(trn).values() if isinstance(one, Rule)}


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


def decay_of(setup: Setup) -> float:
    """The largest weight decay of the optimizer's groups."""
    groups = setup.optimizer.param_groups
    return max((float(group.get("weight_decay", 0.0) or 0.0) for group in groups), default=0.0)


def said(bench: Bench, run: Run, helps: Change | None, seen: Paths, noise: Randomness) -> Finding:
    """The finding for the smallest change with which the batch is learned."""
    bench.state.restore()
    prepare(bench.setup.model)
    setup, failed, evidence = bench.setup, _failed(run), _evidence(bench, run)
    parts = helps.parts() if helps is not None else []
    if len(parts) > 1:
        first = parts[0]
        item = said(bench, run, first, seen, noise)
        together = " and ".join(str(part) for part in parts)
        return finding(
            RULES[item.code], item.item_id, f"{failed}, and is learned with {together}, none of which "
            "suffices by itself.", advice=item.evidence["advice"], evidence=evidence, score=0.1,
        )  # fmt: skip
    if helps is None:
        return finding(
            trn.CANNOT_OVERFIT, type(setup.model).__name__,
            f"{failed}, and is learned with several changes at once; the time was up before it was known "
            "which of them count.", advice="Give it more time (--seconds).", evidence=evidence, score=0.2,
        )  # fmt: skip
    if helps.rate != 1 or helps.fixed_rate or helps.fresh_optimizer is not None:
        return _rate(bench, run, helps)
    if helps.standardised:
        return _scale(seen, failed, evidence)
    if helps.fresh_weights:
        return deepest(bench, seen, run, helps)
    if helps.bare_output:
        dead = next(one for one in reversed(seen.events.activations) if one.last)
        return _activation(dead, failed, evidence, None)
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
    return _regularised(bench, run, helps, seen, noise)


def unfinished(bench: Bench, run: Run, suspected: Sequence[Change]) -> Iterator[Finding]:
    """What speaks for itself where time was up before anything that was tried could help."""
    setup, rate = bench.setup, rate_of(bench.setup)
    kind = type(setup.optimizer).__name__
    if not run.losses or run.losses[-1] < 0.98 * run.losses[0] or not any(one.rate != 1 for one in suspected):
        return
    usual = RATES.get(kind, 1e-3)
    yield finding(
        trn.LEARNING_RATE, f"{kind} lr={rate:g}",
        f"{_failed(run)} with {kind} at {rate:g}, where {usual:g} is usual; time was up before another rate "
        "was tried.",
        advice=f"Set lr={usual:g}, or give it more time (--seconds).", score=0.2,
        evidence={**_evidence(bench, run), "rate": rate, "learns_at": usual},
    )  # fmt: skip


def _rate(bench: Bench, run: Run, helps: Change) -> Finding:
    """TRN004: another learning rate helps."""
    setup, failed, evidence = bench.setup, _failed(run), _evidence(bench, run)
    kind, rate = type(setup.optimizer).__name__, rate_of(setup)
    lowered = run.rates[1] < 1e-3 * run.rates[0]
    if helps.fixed_rate or (helps.fresh_optimizer is not None and lowered):
        with_what = "when it stays" if helps.fixed_rate else f"with {helps}, which no scheduler touches"
        return finding(
            trn.LEARNING_RATE, f"{kind} lr={run.rates[0]:g}",
            f"{failed} while a scheduler takes the learning rate from {run.rates[0]:g} to "
            f"{run.rates[1]:.3g}, and is learned {with_what}.",
            advice="Look at the scheduler: whether it is called once an epoch or once a step, its factor and "
            "its number of steps.", evidence={**evidence, "rates": run.rates},
        )  # fmt: skip
    if helps.fresh_optimizer is not None:
        zero = f"The learning rate of {kind} is 0. " if rate == 0 else ""
        where = f"{kind} lr=0" if rate == 0 else kind
        return finding(
            trn.LEARNING_RATE, where, f"{zero}{failed} with {kind} at {rate:g}, and is learned with AdamW at "
            f"{helps.fresh_optimizer:g}.",
            advice=f"Take AdamW at {helps.fresh_optimizer:g} and come back to your settings one by one.",
            evidence=evidence, score=0.0 if rate == 0 else 0.1,
        )  # fmt: skip
    way = "high" if helps.rate < 1 else "low"
    return finding(
        trn.LEARNING_RATE, f"{kind} lr={rate:g}",
        f"The learning rate {rate:g} of {kind} is too {way}: {_lower(failed)}, and is learned at "
        f"{rate * helps.rate:g} with nothing else changed.",
        advice=f"Set lr={rate * helps.rate:g}; dataaudit model lr shows the whole range.",
        evidence={**evidence, "rate": rate, "learns_at": rate * helps.rate},
    )  # fmt: skip


def _regularised(bench: Bench, run: Run, helps: Change, seen: Paths, noise: Randomness) -> Finding:
    """TRN008, or TRN006 where the targets are what is random."""
    setup, failed, evidence = bench.setup, _failed(run), _evidence(bench, run)
    if helps.no_decay:
        decay = decay_of(setup)
        return finding(
            trn.REGULARISATION, f"weight_decay={decay:g}",
            f"Weight decay {decay:g} is too high: {_lower(failed)}, and is learned without it.",
            advice="Lower it; 0.0001 (SGD) and 0.05 (AdamW) are usual.", evidence=evidence,
        )  # fmt: skip
    if helps.same_seed and noise.targets:
        return finding(
            trn.CONTRADICTING_LABELS, "targets",
            f"{failed}: from step to step inputs and targets are paired anew at random. With the same random "
            "numbers in every step it is learned.",
            advice="Shuffle inputs and targets together, before the model is called.", source=noise.line,
            evidence=evidence,
        )  # fmt: skip
    if helps.same_seed:
        return finding(
            trn.REGULARISATION, "random numbers",
            f"{failed}, and is learned when every step draws the same random numbers: noise or augmentation "
            "in the step or in forward is too strong.",
            advice="Take it out, or make it weaker; dataaudit model determinism names what draws.",
            evidence=evidence,
        )  # fmt: skip
    rate, module = max(seen.events.dropouts, default=(0.0, "dropout"))
    return finding(
        trn.REGULARISATION, module or "dropout",
        f"Dropout is in the way ({rate:g} in {module or 'forward'}): {_lower(failed)}, and is learned "
        "without it.",
        advice="Lower its rate: 0.1 to 0.5 is usual.", evidence=evidence,
    )  # fmt: skip


def _scale(seen: Paths, failed: str, evidence: dict[str, Any]) -> Finding:
    entry = seen.events.entry
    given, layer = scale_fault(entry), entry.module if entry is not None else "the first layer"
    return finding(
        trn.INPUT_SCALE, "inputs", f"{failed}, and is learned when each channel of the inputs is brought "
        f"to mean 0 and deviation 1: {layer} is given {given}.",
        advice="Scale pixels to 0 to 1 once, and normalise once with the training data's mean and deviation.",
        evidence=evidence,
    )  # fmt: skip


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


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
    """Neither rate nor regularisation is at fault: weights, an activation, a gradient, or nothing known."""
    setup, failed, evidence = bench.setup, _failed(run), _evidence(bench, run)
    dead = _dead(seen)
    odd = odd_weights(setup.model)
    grave = any("all" in why or sure for _, why, sure in odd)
    if dead is not None and not (grave and (helps is not None or bench.left <= 0)):
        return _activation(dead, failed, evidence, helps)
    if helps is not None or (grave and bench.left <= 0):
        unknown = (type(setup.model).__name__, "can't be told from others by size", False)
        name, why, _ = odd[0] if odd else unknown
        what = f"{failed}, and is learned with newly drawn weights" if helps is not None else failed
        others = [str(part) for part in helps.parts() if not part.fresh_weights] if helps is not None else []
        what += f" (and {', '.join(others)})" if others else ""
        return finding(
            trn.INITIALISATION, name, f"{what}: the weights of {name} {why}."
            + (f" {len(odd) - 1} more such layers." if len(odd) > 1 else ""),
            advice="Leave PyTorch's initialisation, or draw from nn.init.kaiming_normal_.",
            evidence={**evidence, "layers": [each[0] for each in odd][:20]},
        )  # fmt: skip
    if seen.zero:
        return _zero(seen, failed, evidence)
    flows = _flows(bench)
    if flows:
        return flows[0]
    return finding(
        trn.CANNOT_OVERFIT, type(setup.model).__name__,
        f"{failed}, nor with any of {len(bench.tried) - 1} changes that were tried.",
        advice="Look at the loss (dataaudit model loss) and the layers (dataaudit model trace), and whether "
        "the targets follow from the inputs.",
        evidence=evidence, score=0.2,
    )  # fmt: skip


def _zero(seen: Paths, failed: str, evidence: dict[str, Any]) -> Finding:
    layers = shorter([name.rpartition(".")[0] for name in seen.zero])
    rounding = ("round", "sign", "floor")
    cut = next((one for one in seen.events.cuts if one.name.strip("_") in rounding), None)
    why = f": {cut.name}() at {cut.line or cut.module} lets none through" if cut is not None else ""
    return finding(
        trn.NO_GRADIENT, layers[0], f"{failed}; the gradient of {', '.join(layers[:3])} is zero in every "
        f"step{why}.",
        advice="Look for rounding, a factor of 0, or dead units between it and the loss.",
        evidence={**evidence, "zero": seen.zero[:20]}, source=None if cut is None else cut.line,
    )  # fmt: skip


def _flows(bench: Bench) -> list[Finding]:
    """TRN021 and TRN022: a gradient that vanishes or explodes on its way back."""
    from dataaudit.modelcheck.training.gradient_flow import gradients

    setup = bench.setup
    bench.state.restore()
    try:
        shown = gradients(
            setup.model, setup.loss, setup.inputs, setup.targets, step=setup.step,
            train_step=setup.train_step, optimizer=setup.optimizer, scaler=setup.scaler,
        )  # fmt: skip
    except Exception:  # said by its own command; here it is one source among others
        return []
    return [item for item in shown.findings if item.code in ("TRN020", "TRN021", "TRN022")]


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
