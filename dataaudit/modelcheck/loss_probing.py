"""A loss is asked about made-up outputs of the model, and what it says is judged."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from typing import Any

import torch
from torch import nn

from dataaudit.modelcheck.families import mod
from dataaudit.modelcheck.findings import finding, place_of
from dataaudit.modelcheck.inputs import Inputs, tensors
from dataaudit.modelcheck.loss_behaviour import Probe, judge_classes
from dataaudit.modelcheck.loss_boxes import judge_boxes
from dataaudit.modelcheck.loss_calls import Recording, recorded
from dataaudit.modelcheck.loss_targets import shape_of
from dataaudit.types import Finding

__all__ = ["asked"]

_OVER_CLASSES = ("cross_entropy", "nll_loss")
_EXACT = 2**24
_COLLAPSED = 1e-9


def asked(
    model: nn.Module,
    loss: Callable[[Any, Any], Any] | None,
    step: Callable[[nn.Module, Any], Any] | None,
    inputs: Inputs,
    targets: Any,
    outputs: Sequence[Any],
    recording: Recording,
) -> list[Finding]:
    """What a loss wants, found by what it says of outputs that the model might have given.

    Args:
        model: the model; it isn't run, its outputs are replaced.
        loss: the loss, or None with a step.
        step: a function of model and batch, or None.
        inputs: what the model was called with.
        targets: what the loss was given.
        outputs: what the model put out in the step, one a call.
        recording: the loss functions that were called in it.
    """
    culprit = step if step is not None else loss
    if culprit is None or not outputs:
        return []

    def run(made: Callable[[Any], Any], target: Any) -> Any:
        if step is None:
            assert loss is not None
            return loss(made(outputs[-1]), target)
        handle = model.register_forward_hook(lambda _, __, output: made(output))
        try:
            return step(model, (inputs, target))
        finally:
            handle.remove()

    name = getattr(culprit, "__name__", type(culprit).__name__)
    source = None if type(culprit).__module__.split(".")[0] == "torch" else place_of(culprit)
    found = list(_collapsed(run, targets, recording, name, source))
    floats = [one for one in tensors(outputs[0]) if one.is_floating_point()]
    if found or len(outputs) != 1 or len(floats) != 1 or not isinstance(targets, torch.Tensor):
        return found
    image = next((one for one in tensors(inputs) if one.ndim == 4), None)
    probe = Probe(
        run=lambda made, target: run(lambda output: _replaced(output, made), target),
        prediction=floats[0], target=targets, name=name, source=source,
        image_size=None if image is None else (float(image.shape[-1]), float(image.shape[-2])),
    )  # fmt: skip
    return [*_mixed(probe, recording)] or [*judge_boxes(probe)] or [*judge_classes(probe)]


def _collapsed(
    run: Callable[[Callable[[Any], Any], Any], Any],
    targets: Any,
    recording: Recording,
    name: str,
    source: str | None,
) -> Iterator[Finding]:
    """Whether two outputs of the model are compared with each other, and a constant makes the loss 0."""
    both = [one for one in recording.calls if one.target_grad]
    if not both:
        return
    try:
        value = run(
            lambda output: _mapped(output, lambda one: torch.ones_like(one).requires_grad_()), targets
        )
    except Exception:  # a step that takes no such output: then nothing is said
        return
    parts = list(tensors(value))
    if not parts or any(float(part.detach().abs().max()) > _COLLAPSED for part in parts if part.numel()):
        return
    yield finding(
        mod.TARGET_RANGE,
        f"{both[0].name} target",
        f"The target of {both[0].name} takes part in the gradient: both sides come from the model, and the "
        "loss is 0 where it puts out the same for everything.",
        advice="Call .detach() on the target, or add a term that keeps the outputs apart.",
        evidence={"loss": name},
        source=both[0].line or source,
    )


def _mixed(probe: Probe, recording: Recording) -> Iterator[Finding]:
    """Whether a row of classes, as the loss sees it, holds values of several places of the output."""
    shape, n = probe.prediction.shape, probe.prediction.numel()
    reshaped = [
        one
        for one in recording.calls
        if one.name in _OVER_CLASSES and one.input.numel() == n and one.input.shape != shape
    ]
    if len(shape) < 3 or len(reshaped) != 1 or n > _EXACT:
        return
    places = torch.arange(n, dtype=torch.float32, device=probe.prediction.device).reshape(shape)
    try:
        with recorded([]) as again:
            probe.run(places.requires_grad_(), probe.target)
    except Exception:  # a loss that takes no such values: then nothing is said
        return
    call = next((one for one in again.calls if one.name == reshaped[0].name), None)
    if call is None or call.input.shape != reshaped[0].input.shape or call.input.ndim < 2:
        return
    rows = call.input.movedim(1, -1).reshape(-1, call.input.shape[1]).round().long()
    if not torch.equal(rows.flatten().sort()[0], torch.arange(n, device=rows.device)):
        return
    varying = _varying(rows, shape)
    if len(varying) < 2:
        return
    yield finding(
        mod.CLASS_AXIS,
        f"{call.name} input",
        f"The output {shape_of(probe.prediction)} is reshaped to {shape_of(call.input)}, and a row of that "
        f"holds values of dimensions {', '.join(map(str, varying))}: its {rows.shape[1]} classes are of "
        "several places.",
        advice=f"Move the classes to the end first: output.movedim(1, -1).reshape(-1, {rows.shape[1]}).",
        evidence={"loss": probe.name, "dimensions": varying},
        source=reshaped[0].line or probe.source,
    )


def _varying(rows: torch.Tensor, shape: torch.Size) -> list[int]:
    """Dimensions of `shape` along which the places in a row differ."""
    found, rest = [], rows
    for dim in reversed(range(len(shape))):
        at, rest = rest % shape[dim], rest // shape[dim]
        if bool((at != at[:, :1]).any()):
            found.append(dim)
    return sorted(found)


def _replaced(output: Any, tensor: torch.Tensor) -> Any:
    """The model's output with another tensor in place of its only one of floats."""
    return _mapped(output, lambda _: tensor)


def _mapped(output: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """The model's output with its tensors of floats changed."""
    if isinstance(output, torch.Tensor):
        return change(output) if output.is_floating_point() else output
    if isinstance(output, Mapping):
        made: Any = copy(output)
        for key, item in output.items():
            made[key] = _mapped(item, change)
        return made
    if isinstance(output, tuple) and hasattr(output, "_fields"):
        return type(output)(*(_mapped(item, change) for item in output))
    if isinstance(output, (tuple, list)):
        return type(output)(_mapped(item, change) for item in output)
    if hasattr(output, "__dataclass_fields__"):
        made = copy(output)
        for key, item in vars(output).items():
            object.__setattr__(made, key, _mapped(item, change))
        return made
    return output
