"""A sample alone and in a batch: does what the model says about it depend on the others?"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from dataaudit.modelcheck.families import mod
from dataaudit.modelcheck.findings import finding, place_of
from dataaudit.modelcheck.inputs import Inputs, call, first, is_detector, length, tensors
from dataaudit.modelcheck.watching import Call, Operation, calls, operations
from dataaudit.types import Finding

__all__ = ["batch_dependence"]

TOLERANCE = {torch.float64: 1e-6, torch.float32: 2e-3, torch.float16: 5e-2, torch.bfloat16: 2e-1}


def batch_dependence(model: nn.Module, inputs: Inputs, fresh: Callable[[], None]) -> list[Finding]:
    """MOD005: the first module of which a sample's output alone isn't its output in the batch.

    Args:
        model: the model; within `kept`.
        inputs: two samples or more; one sample gives no finding.
        fresh: puts the model back into eval mode and its state before the check.
    """
    n = length(inputs)
    if n < 2 or _sizes_differ(inputs):
        return []
    fresh()
    whole, together = _record(model, inputs)
    for at in (n - 1, 0):
        fresh()
        try:
            alone, single = _record(model, first(inputs, 1, at))
        except Exception as error:
            return [_fails_alone(model, error)]
        if _agree(whole, alone, n, at):
            continue
        found = _departure(together, single, n, at, detector=is_detector(model))
        if found is None and is_detector(model):
            continue
        mixing = None if is_detector(model) else _mixing(model, inputs, n, at, fresh)
        return [_finding(model, found, whole, alone, n, at, mixing)]
    return []


def _mixing(model: nn.Module, inputs: Inputs, n: int, at: int, fresh: Callable[[], None]) -> Operation | None:
    """The first operation after which nothing of sample `at` is free of the others.

    The others are changed: what changes then depends on them, and a sample's share of each tensor stays as it
    was until the samples are mixed.
    """
    changed = _others_changed(inputs, n, at)
    if changed is None:
        return None
    runs: list[list[Operation]] = []
    for given in (inputs, changed):
        fresh()
        torch.manual_seed(0)
        with operations(keep=True) as done, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                call(model, given)
            except Exception:  # what is changed may be no valid input: then no line is named
                return None
        runs.append(done)
    for one, other in zip(runs[0], runs[1], strict=False):
        if one.name != other.name:
            return None
        for a, b in zip(one.tensors, other.tensors, strict=False):
            share = _unchanged(a, b)
            if share is not None and share < 0.9 / n:
                return one
    return None


def _others_changed(inputs: Inputs, n: int, at: int) -> Inputs | None:
    """The inputs with every sample but one changed; None where that changes nothing."""
    others = torch.arange(n) != at

    def alter(values: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
        # Half of it mirrored, since a mean over an axis doesn't see what is mirrored alone
        return values.flip(-1) * 0.5 if values.is_floating_point() else kept.expand_as(values)

    def change(value: Any) -> Any:
        if isinstance(value, torch.Tensor) and value.ndim > 1 and len(value) == n:
            made = value.detach().clone()
            made[others] = alter(value[others], value[at])
            return made
        if isinstance(value, Mapping):
            return {key: change(item) for key, item in value.items()}
        if isinstance(value, list) and len(value) == n:
            return [one if row == at else alter(one, value[at]) for row, one in enumerate(value)]
        return tuple(map(change, value)) if isinstance(value, tuple) else value

    made = change(inputs)
    pairs = zip(tensors(inputs), tensors(made), strict=True)
    return made if any(not torch.equal(a, b) for a, b in pairs) else None


def _unchanged(a: torch.Tensor, b: torch.Tensor) -> float | None:
    """Share of equal values; None where all are, and for what holds no numbers."""
    if a.shape != b.shape or not a.is_floating_point() or torch.equal(a, b):
        return None
    top = float(a.double().abs().nan_to_num(0.0, 0.0, 0.0).max())
    equal = (a.double() - b.double()).abs() <= 1e-6 * top
    return float(equal.double().mean())


def _sizes_differ(inputs: Inputs) -> bool:
    # Images of several sizes are padded to the largest of the batch, which may show at their edges
    return isinstance(inputs, list) and len({tuple(one.shape) for one in tensors(inputs)}) > 1


def _record(model: nn.Module, inputs: Inputs) -> tuple[tuple[torch.Tensor, ...], list[Call]]:
    torch.manual_seed(0)
    with calls(model) as done, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        out = call(model, inputs)
    return tuple(one.detach().clone() for one in tensors(out)), done


def _slice(tensor: torch.Tensor, n: int, at: int) -> torch.Tensor | None:
    """The part of sample `at`; None where it can't be told."""
    if not tensor.ndim or tensor.shape[0] % n:
        return None
    each = tensor.shape[0] // n
    return tensor[at * each : (at + 1) * each]


def _agree(whole: Sequence[torch.Tensor], alone: Sequence[torch.Tensor], n: int, at: int) -> bool:
    if len(whole) == n * len(alone):  # a list with a result for each sample
        each = len(alone)
        return all(map(_close, whole[at * each : (at + 1) * each], alone))
    if len(whole) != len(alone):
        return False
    for one, other in zip(whole, alone, strict=True):
        part = _slice(one, n, at)
        if one.ndim == 0 and other.ndim == 0:  # a number about the whole batch, such as an auxiliary loss
            continue
        if part is None:
            # Without a batch dimension it is no statement about a sample, unless squeeze() took it away
            if one.shape != other.shape and part is None and other.ndim < one.ndim:
                return False
            continue
        if not _close(part, other):
            return False
    return True


def _close(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two tensors agree up to sums in another order; the shapes have to."""
    if a.shape != b.shape:
        return False
    if not a.numel():
        return True
    if not a.is_floating_point():
        return bool((a == b).all()) if not a.is_complex() else True
    limit = TOLERANCE.get(a.dtype, 2e-3)
    one, other = a.double(), b.double()
    if not torch.equal(one.isnan(), other.isnan()):
        return False
    gap = float((one - other).abs().nan_to_num(0.0, 0.0, 0.0).max())
    top = float(one.abs().nan_to_num(0.0, 0.0, 0.0).max())
    return gap <= limit * max(top, 1e-3)


def _departure(
    together: Sequence[Call], single: Sequence[Call], n: int, at: int, *, detector: bool
) -> Call | None:
    """The first call whose inputs agree, and whose outputs don't."""
    for one, other in zip(together, single, strict=False):
        if one.name != other.name:
            return None
        inputs = [(_slice(a, n, at), b) for a, b in zip(one.inputs, other.inputs, strict=False)]
        if not all(part is not None and _close(part, b) for part, b in inputs if part is not None):
            continue
        outputs = [(_slice(a, n, at), b) for a, b in zip(one.outputs, other.outputs, strict=False)]
        if (
            detector
            and any(True for _ in one.module.children())
            and one.module.__class__.__name__ not in ("Sequential",)
        ):
            continue  # which boxes are kept turns on ties
        if any(part is not None and not _close(part, b) for part, b in outputs):
            return one
    return None


def _finding(
    model: nn.Module, found: Call | None, whole: Any, alone: Any, n: int, at: int, mixing: Operation | None
) -> Finding:
    title = type(model).__name__ + ".forward" if found is None else found.title
    module = model if found is None else found.module
    norm = "Norm" in type(module).__name__
    what = f"Sample {at} gets another output alone than in a batch of {n}: {title} departs first"
    shapes = sorted({tuple(one.shape) for one in alone})
    if [one.ndim for one in whole] != [one.ndim for one in alone]:
        what += f" (a batch gives {tuple(whole[0].shape)}, one sample {shapes[0]})"
        advice = "squeeze() without a dimension takes the batch's away where it is 1: write squeeze(dim)."
    elif norm and module.training:
        advice = "It is in train mode after model.eval(), and normalises by the batch: make eval() reach it."
    elif norm and getattr(module, "running_mean", 0) is None:
        advice = "It keeps no running statistics: use track_running_stats=True, or group or layer norm."
    else:
        advice = "Look for a mean, norm, softmax or reshape over dimension 0, which mixes the samples."
    if mixing is not None and not norm:
        operation = mixing.name.removeprefix("aten.").split(".")[0].strip("_")
        what += f", and {operation} is the first operation that mixes the samples"
        what += f" ({mixing.line})" if mixing.line else ""
    own = type(module).__module__.split(".")[0] not in ("torch", "torchvision", "timm")
    return finding(
        mod.BATCH_DEPENDENT_OUTPUT, title if found is None else found.name or title, what + ".",
        advice=advice,
        evidence={"module": title, "batch": n, "sample": at, "operation": mixing and mixing.name},
        source=(mixing.line if mixing is not None else None) or (place_of(module) if own else None),
    )  # fmt: skip


def _fails_alone(model: nn.Module, error: Exception) -> Finding:
    said = (str(error).splitlines() or [""])[0]
    name = type(model).__name__
    return finding(
        mod.BATCH_DEPENDENT_OUTPUT, name,
        f"The model takes a batch, and fails with a single sample: {type(error).__name__}: {said}",
        advice="Look for squeeze() without a dimension, and for batch norm that normalises by the batch.",
        evidence={"error": said}, source=place_of(model),
    )  # fmt: skip
