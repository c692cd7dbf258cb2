"""Where a deployed model first departs from the trained one: by the values in between, not by names.

Every value of the trained model is looked for among the values of the deployed one. An operation whose inputs
are found and whose output isn't, nor anything that is computed from it, is where they part. Names and scopes
of exporters only serve to say it, so that fused and renamed nodes do no harm.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import nn

from dataaudit.modelcheck.deployment import node_causes
from dataaudit.modelcheck.deployment.differences import relative
from dataaudit.modelcheck.deployment.fitting import Fitted
from dataaudit.modelcheck.deployment.runtimes import Deployed
from dataaudit.modelcheck.deployment.values import Departure, Step, Values, of_module, of_onnx

__all__ = ["first_departure"]

SAMPLES = 2
DEPTH = 10
_ALIKE = 2e-6


def first_departure(
    model: nn.Module, deployed: Deployed, inputs: Sequence[torch.Tensor], fitted: Fitted, *, limit: float
) -> Departure | None:
    """Find where a deployed model departs; None where its values can't be seen, or nothing says where.

    Args:
        model: the trained model in eval mode, within `kept`.
        deployed: the deployed one; ONNX, an exported program or a module.
        inputs: of both; two samples are used.
        fitted: how the deployed model is called.
        limit: relative difference that is rounding.
    """
    few = [one[:SAMPLES] for one in inputs]
    if fitted.fixed is not None:
        few = [one[:1].expand(fitted.fixed, *one.shape[1:]).contiguous() for one in inputs]
    there = _deployed_values(deployed, few)
    if there is None:
        return None
    here = of_module(model, few)
    overflow = _nonfinite(here, there)
    if overflow is not None:
        return overflow
    # The same kernels in the same type agree to the last digits: what is less than the limit shows too
    alike = deployed.module is not None and limit > _ALIKE
    return (_depart(here, there, _ALIKE) if alike else None) or _depart(here, there, limit)


def _deployed_values(deployed: Deployed, inputs: Sequence[torch.Tensor]) -> Values | None:
    if deployed.path is not None and deployed.path.suffix == ".onnx":
        given = [
            one.to(slot.dtype) if slot.dtype is not None else one
            for slot, one in zip(deployed.slots, inputs, strict=True)
        ]
        shape = deployed.slots[0].shape
        if shape is not None and len(shape) == 4 and shape[-1] == inputs[0].shape[1] != shape[1]:
            given[0] = given[0].permute(0, 2, 3, 1).contiguous()
        return of_onnx(deployed.path, given)
    if deployed.module is None or isinstance(deployed.module, torch.jit.ScriptModule):
        return None
    module = copy.deepcopy(deployed.module)
    weight = next((one for one in module.parameters() if one.is_floating_point()), None)
    given = [one if weight is None or not one.is_floating_point() else one.to(weight.dtype) for one in inputs]
    try:
        return of_module(module, given)
    except Exception:  # such as quantised kernels without copies of their values
        return None


def _is_float(value: torch.Tensor | None) -> bool:
    return value is not None and value.is_floating_point() and value.numel() > 1


def _nonfinite(here: Values, there: Values) -> Departure | None:
    """The first deployed step that writes NaN or infinity, where the trained model has none."""
    if any(not bool(one.isfinite().all()) for one in here.values.values() if _is_float(one)):
        return None
    for step in there.steps:
        wrote = [there.values[name] for name in step.outputs if _is_float(there.values.get(name))]
        if all(bool(one.isfinite().all()) for one in wrote):
            continue
        largest = _size_there(here, step, wrote)
        return node_causes.overflow(step, wrote[0].dtype, largest)
    return None


def _size_there(here: Values, step: Step, wrote: Sequence[torch.Tensor]) -> float | None:
    """Largest value that the trained model has at a step: same scope, else the same shape."""
    shapes = {tuple(one.shape) for one in wrote}
    found = [
        float(here.values[name].abs().max())
        for one in here.steps
        for name in one.outputs
        if name in here.values and _is_float(here.values[name])
        and tuple(here.values[name].shape) in shapes and (not step.scope or one.scope == step.scope)
    ]  # fmt: skip
    return max(found, default=None)


class _Index:
    """The deployed model's values, to be found by what they hold."""

    def __init__(self, there: Values, limit: float) -> None:
        self.limit = limit
        self.by_size: dict[int, list[tuple[str, torch.Tensor, float]]] = {}
        for name, value in there.values.items():
            if _is_float(value):
                flat = value.detach().float()
                self.by_size.setdefault(value.numel(), []).append((name, flat, float(flat.abs().mean())))

    def find(self, value: torch.Tensor) -> list[str]:
        """Names of the values that equal `value`, in the same shape or read in another."""
        flat = value.detach().float()
        mean, top = float(flat.abs().mean()), float(flat.abs().max())
        found = []
        for name, other, its in self.by_size.get(value.numel(), []):
            if abs(its - mean) > self.limit * top:
                continue
            if relative(flat.reshape(-1), other.reshape(-1)) <= self.limit:
                found.append(name)
            elif flat.ndim == other.ndim == 4 and flat.shape != other.shape:
                turned = other.permute(0, 3, 1, 2) if other.shape[-1] == flat.shape[1] else other
                if turned.shape == flat.shape and relative(flat, turned) <= self.limit:
                    found.append(name)
        return found


def _depart(here: Values, there: Values, limit: float) -> Departure | None:
    index = _Index(there, limit)
    same: dict[str, list[str]] = {}
    for name, value in here.values.items():
        if _is_float(value):
            same[name] = index.find(value)
    covered = {name: bool(names) for name, names in same.items()}
    moving = _moving(here)
    readers: dict[str, list[bool]] = {}
    for step in reversed(here.steps):
        outputs = [name for name in step.outputs if name in covered]
        for name in outputs:
            # Fused away: all that is computed from it is there
            covered[name] = covered[name] or (bool(readers.get(name)) and all(readers[name]))
        if outputs:
            for name in step.inputs:
                readers.setdefault(name, []).append(any(covered[one] for one in outputs))
    for step in here.steps:
        outputs = [name for name in step.outputs if name in covered]
        inputs = [name for name in step.inputs if name in covered and name in moving]
        if not outputs or any(covered[name] for name in outputs) or not inputs:
            continue
        if not all(covered[name] for name in inputs):
            continue
        return _at(here, there, step, [one for name in inputs for one in same[name]])
    return None


def _moving(here: Values) -> set[str]:
    """Names of the values that depend on the input, and not on weights alone."""
    found = {name for name in here.values if name.startswith("input")}
    for step in here.steps:
        if any(name in found for name in step.inputs):
            found |= set(step.outputs)
    return found


def _at(here: Values, there: Values, step: Step, read: Sequence[str]) -> Departure:
    """Describe a departure at a step of the trained model whose inputs are the deployed values `read`."""
    expected = here.values[step.outputs[0]]
    node = _node(there, read, expected, step)
    own = f"{step.op.split('.')[1] if '.' in step.op else step.op} of {step.scope or 'the model'}"
    if node is None:
        return Departure(
            title=step.scope or step.title, evidence={"operation": step.title},
            sentence=f"Up to {own} both agree, and from there on they don't.",
            advice="Look at how the export wrote this operation.",
        )  # fmt: skip
    wrote = next((there.values[name] for name in node.outputs if name in there.values), None)
    gap = relative(expected, wrote.float()) if wrote is not None and wrote.shape == expected.shape else None
    cause = node_causes.cause(here, there, step, node)
    said = f"It first departs at {node.title}, which is {own}" + (
        f", by {gap:.2g}" if gap is not None else ""
    )
    return Departure(
        title=step.scope or node.title, sentence=f"{said}. {cause.what}".rstrip(), advice=cause.advice,
        rule=cause.rule,
        evidence={"node": node.title, "operation": step.title, "gap": gap, "inputs": list(step.inputs)},
    )  # fmt: skip


def _node(there: Values, read: Sequence[str], expected: torch.Tensor, step: Step) -> Step | None:
    """The deployed step that computes, from values that agree, what should have been `expected`."""
    reach = set(read)
    near: list[Step] = []
    for node in there.steps:
        if any(name in reach for name in node.inputs):
            near.append(node)
            if len(near) < DEPTH:
                reach |= set(node.outputs)
    kinds = node_causes.NODES.get(step.op.split(".")[1] if "." in step.op else step.op, ())
    shape = tuple(expected.shape)
    ranked = sorted(
        enumerate(near),
        key=lambda pair: (
            pair[1].op not in kinds and pair[1].op != step.op,
            bool(step.scope) and pair[1].scope != step.scope,
            shape not in {tuple(there.values[one].shape) for one in pair[1].outputs if one in there.values},
            pair[0],
        ),
    )
    return ranked[0][1] if ranked else None
