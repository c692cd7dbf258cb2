"""Which weights learn: who gets a gradient, who is in the optimizer, and what cuts the others off."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from dataaudit.modelcheck.families import trn
from dataaudit.modelcheck.findings import finding, place_of
from dataaudit.modelcheck.keeping import Kept
from dataaudit.modelcheck.training.events import Cut, Events, watched
from dataaudit.modelcheck.training.runs import take_step
from dataaudit.modelcheck.training.setups import Setup
from dataaudit.types import Finding

__all__ = ["Paths", "judge", "look", "shorter"]


@dataclass(frozen=True, kw_only=True)
class Paths:
    """What the first steps show.

    Attributes:
        frozen: names of the parameters that ask for no gradient.
        unreached: of those that ask for one and have none after the backward pass.
        zero: of weights whose gradient is zero in every step.
        missing: of those with a gradient that the optimizer doesn't hold.
        foreign: how many tensors the optimizer holds that are neither the model's nor the loss's.
        events: of the first forward pass.
        broken: whether the loss or a gradient of the first step isn't finite, without a scaler's doing.
        resting: batch norms in train mode whose running statistics stay as they are.
        error: what the user's code raised.
        steps: how many steps were taken before that.
    """

    frozen: tuple[str, ...]
    unreached: tuple[str, ...]
    zero: tuple[str, ...]
    missing: tuple[str, ...]
    foreign: int
    events: Events
    broken: bool = False
    resting: tuple[str, ...] = ()
    error: Exception | None = None
    steps: int = 0


def look(setup: Setup, state: Kept, *, steps: int = 3) -> Paths:
    """Take a few steps and note which weights get a gradient; within `kept`, and put back after."""
    model = setup.model
    largest: dict[int, float] = {}

    def note(parameter: torch.Tensor) -> None:
        if parameter.grad is not None:
            top = float(parameter.grad.detach().abs().max()) if parameter.grad.numel() else 0.0
            largest[id(parameter)] = max(top, largest.get(id(parameter), 0.0)) if top == top else math.inf

    named = [(name, one) for name, one in model.named_parameters() if one.is_floating_point()]
    for _, one in named:
        if one.requires_grad:
            watch: Callable[..., Any] = one.register_post_accumulate_grad_hook
            watch(note)
    error: Exception | None = None
    events, broken, taken = Events(), False, 0
    norms = {name: one.running_mean.clone() for name, one in _norms(model)}
    try:
        with watched(model, setup.inputs) as events:
            value = take_step(setup)
        taken = 1
        broken = not all(map(math.isfinite, [value or 0.0, *largest.values()])) and setup.scaler is None
        while taken < steps:
            take_step(setup)
            taken += 1
    except Exception as raised:
        error = raised
    asking = [(name, one) for name, one in named if one.requires_grad]
    held = {id(one) for group in setup.optimizer.param_groups for one in group["params"]}
    known = {id(one) for one in model.parameters()}
    if isinstance(setup.loss, nn.Module):
        known |= {id(one) for one in setup.loss.parameters()}
    paths = Paths(
        frozen=tuple(name for name, one in named if not one.requires_grad),
        unreached=tuple(name for name, one in asking if id(one) not in largest),
        zero=tuple(name for name, one in asking if largest.get(id(one)) == 0 and one.ndim > 1),
        missing=tuple(name for name, one in asking if id(one) in largest and id(one) not in held),
        foreign=len(held - known),
        events=events,
        broken=broken,
        resting=tuple(
            name for name, one in _norms(model)
            if name in norms and name in events.ends and torch.equal(one.running_mean, norms[name])
        ),
        error=error,
        steps=taken,
    )  # fmt: skip
    state.restore()
    return paths


def _norms(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """Batch norms in train mode that keep running statistics."""
    kind = nn.modules.batchnorm._BatchNorm
    for name, one in model.named_modules():
        if isinstance(one, kind) and one.training and one.running_mean is not None:
            yield name, one


def judge(setup: Setup, paths: Paths) -> Iterator[Finding]:
    """TRN002, TRN003, TRN011 and TRN013: what the first steps say by themselves."""
    if paths.error is not None:
        return
    total = sum(1 for _ in setup.model.parameters())
    if len(paths.frozen) == total:
        yield finding(
            trn.FROZEN_LAYERS, "every layer", f"All {total} parameters of the model are frozen.",
            advice="Set requires_grad_(True) on what should learn.",
            evidence={"frozen": paths.frozen[:20]},
        )  # fmt: skip
        return
    yield from _unreached(setup, paths)
    if paths.missing or paths.foreign:
        yield _optimizer(setup, paths)


def _unreached(setup: Setup, paths: Paths) -> Iterator[Finding]:
    events = paths.events
    if not events.ends and paths.unreached:
        given = setup.train_step or setup.step
        yield finding(
            trn.NO_GRADIENT, type(setup.model).__name__,
            f"The step never calls the model that it is given ({type(setup.model).__name__}): what it trains "
            "is another object.",
            advice="Use the argument, and not a model of the same kind that was made or copied elsewhere.",
            source=None if given is None else place_of(given),
        )  # fmt: skip
        return
    groups: dict[str, list[str]] = {}
    unused = []
    for name in paths.unreached:
        owner = name.rpartition(".")[0]
        if owner and owner not in events.ends:
            unused.append(name)
            continue
        groups.setdefault(owner, []).append(name)
    if groups:
        yield _cut_off(setup, events, list(groups), paths)
    if unused:
        layers = shorter([name.rpartition(".")[0] for name in unused])
        what = f"{_listed(layers)} {'has' if len(layers) == 1 else 'have'} weights that ask for a gradient, "
        what += "and the forward pass never calls " + ("it." if len(layers) == 1 else "them.")
        yield finding(
            trn.UNUSED_LAYER, layers[0], what,
            advice="Call it in forward, or take it out (or requires_grad_(False)).",
            evidence={"parameters": unused[:20]}, source=_own_place(setup.model), score=0.5,
        )  # fmt: skip


def _cut_off(setup: Setup, events: Events, owners: list[str], paths: Paths) -> Finding:
    off = [name for name in owners if name in events.without_gradient]
    layers = shorter(owners)
    last = max(owners, key=lambda name: events.ends.get(name, 0))
    cut = None if off else _cut_after(events, events.ends.get(last, 0))
    what = f"No gradient reaches {_listed(layers)}"
    n = len(paths.unreached)
    what += f" ({n} parameter{'' if n == 1 else 's'} without one after backward)"
    if off:
        what += ": it runs while gradients are switched off."
        advice = "Take torch.no_grad(), inference_mode or set_grad_enabled(False) from around it."
    elif cut is not None:
        where = f" in {cut.module}" if cut.module else "" if cut.module is None else " in the model's forward"
        what += f": {cut.name}(){where}{f' at {cut.line}' if cut.line else ''} cuts it off."
        advice = _instead(cut)
    else:
        what += ", although it takes part."
        advice = "Look for torch.tensor(...), .data, NumPy or .item() between it and the loss, or for an "
        advice += "output that is never used."
    source = cut.line if cut is not None else None
    module = dict(setup.model.named_modules()).get(last)
    source = source or (None if module is None else _own_place(module)) or _own_place(setup.model)
    return finding(
        trn.NO_GRADIENT, layers[0] or type(setup.model).__name__, what, advice=advice, source=source,
        evidence={"parameters": paths.unreached[:20], "cut": None if cut is None else cut.name,
                  "gradients_off": off[:10]},
    )  # fmt: skip


def _cut_after(events: Events, at: int) -> Cut | None:
    """The first cut after the last layer without gradient ended, or else the last before it."""
    after = [one for one in events.cuts if one.at >= at]
    comparing = {"gt", "lt", "ge", "le", "eq"}
    sure = [one for one in after if one.name.strip("_") not in comparing]
    return next(iter(sure or after), None)


def _instead(cut: Cut) -> str:
    if cut.name in ("argmax", "argmin", "multinomial", "one_hot", "long", "int"):
        return "Give the loss the scores themselves; classes have no gradient."
    if cut.name.strip("_") in ("round", "floor", "ceil", "sign", "trunc", "sgn"):
        return "Rounding has no gradient: leave it to evaluation, or use a straight-through estimator."
    if cut.name in ("item", "tolist", "numpy", "__float__", "__int__", "__array__"):
        return "Stay with tensors of PyTorch from the input to the loss."
    return f"Take {cut.name} out of the path from the layer to the loss."


def _optimizer(setup: Setup, paths: Paths) -> Finding:
    layers = shorter([name.rpartition(".")[0] for name in paths.missing])
    held = sum(len(group["params"]) for group in setup.optimizer.param_groups)
    kind = type(setup.optimizer).__name__
    if paths.missing:
        what = f"{len(paths.missing)} parameters get a gradient and aren't in the optimizer ({kind}, which "
        what += f"holds {held}): {_listed(layers)}."
    else:
        what = f"The optimizer ({kind}) holds {paths.foreign} tensors that aren't the model's."
    if paths.foreign and paths.missing:
        what += f" It holds {paths.foreign} tensors that aren't the model's, of a layer that was replaced or "
        what += "of another copy."
    return finding(
        trn.NOT_IN_OPTIMIZER, layers[0] if layers else kind, what,
        advice="Make the optimizer after the model is complete, from model.parameters().",
        evidence={"missing": paths.missing[:20], "foreign": paths.foreign, "held": held},
        score=0.0 if paths.missing else 0.4,
    )  # fmt: skip


def shorter(names: Sequence[str]) -> list[str]:
    """Names of layers, the topmost parent in place of many of its parts.

    >>> shorter(["layer1.0.conv1", "layer1.0.bn1", "layer1.1.conv1", "fc"])
    ['layer1', 'fc']
    """
    unique = list(dict.fromkeys(names))
    if len(unique) <= 3:
        return unique
    tops: dict[str, list[str]] = {}
    for name in unique:
        tops.setdefault(name.split(".")[0], []).append(name)
    return [top if len(parts) > 1 else parts[0] for top, parts in tops.items()]


def _listed(names: Sequence[str]) -> str:
    shown = [name or "the model itself" for name in names[:3]]
    return ", ".join(shown) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _own_place(module: nn.Module) -> str | None:
    """Where a class of the user's is written; None for a library's."""
    if type(module).__module__.split(".")[0] in ("torch", "torchvision", "timm"):
        return None
    return place_of(module)
