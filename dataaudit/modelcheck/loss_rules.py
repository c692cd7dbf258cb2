"""Is what a loss function was given what it expects? Pure functions of one recorded call."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from dataaudit.modelcheck.families import mod
from dataaudit.modelcheck.loss_calls import LossCall
from dataaudit.modelcheck.loss_targets import CLOSE, found, is_whole, shape_of, sums_to_one, target_of_classes
from dataaudit.types import Finding

__all__ = ["judge"]

MIN_VALUES = 16
SCALE = 20.0

_ELEMENTWISE = ("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss")
_BOXES = ("generalized_box_iou_loss", "distance_box_iou_loss", "complete_box_iou_loss")


def judge(call: LossCall, *, n_classes: int | None = None) -> list[Finding]:
    """What is wrong with what a loss function was given, the cause first.

    Args:
        call: a call as `dataaudit.modelcheck.loss_calls.recorded` notes it.
        n_classes: how many classes there are, where that is known.
    """
    if call.name == "cross_entropy":
        items = list(_cross_entropy(call, n_classes))
    elif call.name == "nll_loss":
        items = list(_nll(call, n_classes))
    elif call.name in ("binary_cross_entropy", "binary_cross_entropy_with_logits"):
        items = list(_binary(call))
    elif call.name == "kl_div":
        items = list(_divergence(call))
    elif call.name in _BOXES:
        items = list(_boxes(call))
    else:
        items = list(_elementwise(call))
    items += list(_any_loss(call))
    if not items and call.error is not None:
        shapes = f"an input {shape_of(call.input)} and a target {shape_of(call.target)}"
        what = f"{call.name} refuses {shapes}: {call.error}"
        items.append(
            found(call, mod.CLASS_AXIS, "input", what, "Compare both shapes with its documentation.")
        )
    return items


def _any_loss(call: LossCall) -> Iterator[Finding]:
    if call.target_grad and call.name not in _ELEMENTWISE:
        yield found(
            call,
            mod.TARGET_RANGE,
            "target",
            f"The target of {call.name} takes part in the gradient: it was computed by the model.",
            "Call .detach() on it, or pass prediction and target the other way round.",
        )
    for part, tensor in (("input", call.input), ("target", call.target)):
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            if call.name in ("nll_loss", "kl_div") and not bool(tensor.isnan().any()):
                continue  # the logarithm of a probability of 0
            yield found(
                call,
                mod.TARGET_RANGE,
                part,
                f"The {part} of {call.name} holds NaN or infinity.",
                "Find where it comes from: dataaudit model trace."
                if part == "input"
                else "Find the sample with the missing value.",
            )


def _cross_entropy(call: LossCall, n_classes: int | None) -> Iterator[Finding]:
    activation = _activation(call)
    if activation in ("softmax", "sigmoid"):
        yield found(
            call,
            mod.SOFTMAX_BEFORE_LOSS,
            "input",
            f"cross_entropy is given the output of {activation}, and takes the softmax itself: the loss "
            f"can't come below {_floor(call.input.shape[1] if call.input.ndim > 1 else 1):.2f}.",
            f"Give it the output before the {activation}.",
            activation=activation,
        )
    yield from _class_axis(call, n_classes)
    yield from target_of_classes(call)


def _floor(classes: int) -> float:
    """Cross-entropy of a certain and right prediction that went through softmax twice."""
    return float(torch.log(torch.tensor(2.718281828 + classes - 1))) - 1.0


def _activation(call: LossCall) -> str | None:
    """The activation that the input went through, by its graph or else by its values."""
    if call.origin.known:
        return call.origin.activation if call.origin.exact else None
    values = call.input.float()
    if values.ndim < 2 or values.numel() < MIN_VALUES or values.shape[1] < 2:
        return None
    if sums_to_one(values, 1) and bool((values >= 0).all()):
        return "softmax"
    return "log_softmax" if sums_to_one(values.exp(), 1) else None


def _class_axis(call: LossCall, n_classes: int | None) -> Iterator[Finding]:
    given, target = call.input, call.target
    if given.ndim < 2:
        return
    origin = call.origin
    softmax = origin.activation in ("softmax", "log_softmax") and not origin.moved
    if softmax and origin.dim not in (None, 1) and given.shape[1] > 1:
        yield found(
            call,
            mod.CLASS_AXIS,
            "input",
            f"The {origin.activation} runs over dimension {origin.dim}, and {call.name} has the classes in "
            f"dimension 1 of {shape_of(given)}.",
            f"{origin.activation}(dim=1), or move the classes to dimension 1.",
            dim=origin.dim,
        )
        return
    if target.shape != given.shape:
        yield from _classes_elsewhere(call, n_classes)


def _classes_elsewhere(call: LossCall, n_classes: int | None) -> Iterator[Finding]:
    """Classes that are on another axis by the shapes of input and target."""
    given, target, origin = call.input, call.target, call.origin
    wanted = (given.shape[0], *given.shape[2:])
    # A linear layer gave several rows a sample: each row holds the classes of one place
    last = (
        given.ndim > 2
        and origin.width is not None
        and not origin.moved
        and given.numel() != given.shape[0] * origin.width
    )
    fits = tuple(target.shape) == wanted
    if fits and last:
        yield found(
            call,
            mod.CLASS_AXIS,
            "input",
            f"The input {shape_of(given)} comes from a linear layer, whose classes are on the last axis; "
            f"{call.name} reads dimension 1 as the classes.",
            "output.movedim(-1, 1) before the loss; reshape or view would mix the values.",
        )
    elif fits and n_classes and given.shape[1] != n_classes and n_classes in given.shape[2:]:
        yield found(
            call,
            mod.CLASS_AXIS,
            "input",
            f"The {n_classes} classes are not in dimension 1 of the input {shape_of(given)}.",
            "output.movedim(-1, 1) before the loss.",
            classes=n_classes,
        )
    elif not fits and target.ndim == given.ndim - 1 and tuple(target.shape) == tuple(given.shape[:-1]):
        yield found(
            call,
            mod.CLASS_AXIS,
            "input",
            f"The target {shape_of(target)} fits the input {shape_of(given)} with the classes last; "
            f"{call.name} wants them in dimension 1.",
            "output.movedim(-1, 1) before the loss.",
        )
    elif not fits and target.ndim == given.ndim - 1 and target.shape[0] != given.shape[0]:
        yield found(
            call,
            mod.CLASS_AXIS,
            "input",
            f"The input {shape_of(given)} has {given.shape[0]} samples and the target {shape_of(target)} "
            f"{target.shape[0]}.",
            "Keep the batch in dimension 0 of both; look for a view(-1, ...) that mixes it.",
        )


def _nll(call: LossCall, n_classes: int | None) -> Iterator[Finding]:
    values = call.input.float()
    if values.ndim > 1 and call.origin.activation not in ("log_softmax",):
        positive = bool((values >= 0).all())
        sums = values.exp().sum(1)
        if call.origin.activation in ("softmax", "sigmoid") or (positive and sums_to_one(values, 1)):
            yield found(
                call,
                mod.LOGITS_INTO_PROBABILITY_LOSS,
                "input",
                "nll_loss is given probabilities; it needs their logarithms.",
                "log_softmax in place of softmax, or cross_entropy on the output before it.",
            )
        elif not bool(((sums - 1).abs() < CLOSE * 10).all()):
            yield found(
                call,
                mod.LOGITS_INTO_PROBABILITY_LOSS,
                "input",
                f"nll_loss is given logits: their exponentials sum to {float(sums.min()):.3g} to "
                f"{float(sums.max()):.3g} in place of 1, and the loss has no lower bound.",
                "Use cross_entropy, or log_softmax(dim=1) before it.",
            )
    yield from _class_axis(call, n_classes)
    yield from target_of_classes(call)


def _binary(call: LossCall) -> Iterator[Finding]:
    given, target, activation = call.input, call.target, _activation(call)
    low, high = _span(given)
    if call.name == "binary_cross_entropy":
        if low < 0 or high > 1:
            yield found(
                call,
                mod.LOGITS_INTO_PROBABILITY_LOSS,
                "input",
                f"binary_cross_entropy is given values from {low:.3g} to {high:.3g}; it needs probabilities.",
                "Use binary_cross_entropy_with_logits, or sigmoid before it.",
            )
    elif activation in ("softmax", "sigmoid") or _looks_like_probabilities(call):
        yield found(
            call,
            mod.SOFTMAX_BEFORE_LOSS,
            "input",
            f"{call.name} is given the output of {activation or 'a sigmoid'}, and takes the sigmoid itself: "
            "no probability below 0.5 can come out.",
            f"Give it the output before the {activation or 'sigmoid'}, or use binary_cross_entropy.",
            activation=activation,
        )
    if activation == "softmax" and given.ndim > 1 and given.shape[1] == 1:
        yield found(
            call,
            mod.EVERYTHING_IGNORED,
            "input",
            "A softmax over one class is 1 whatever the model says.",
            "sigmoid for one output.",
        )
    if target.shape != given.shape:
        yield from _shapes(call)
        return
    bottom, top = _span(target)
    if bottom < 0 or top > 1:
        yield found(
            call,
            mod.TARGET_RANGE,
            "target",
            f"The targets of {call.name} reach from {bottom:.3g} to {top:.3g}; expected 0 to 1.",
            _scaled(bottom, top),
            lowest=bottom,
            highest=top,
        )


def _looks_like_probabilities(call: LossCall) -> bool:
    low, high = _span(call.input)
    return (
        not call.origin.known and call.input.numel() >= MIN_VALUES and low >= 0 and high <= 1 and low < high
    )


def _span(tensor: torch.Tensor) -> tuple[float, float]:
    if not tensor.numel():
        return 0.0, 0.0
    return float(tensor.min()), float(tensor.max())


def _scaled(bottom: float, top: float) -> str:
    if bottom == -1 and top == 1:
        return "Labels of -1 and 1 become (target + 1) / 2."
    if bottom >= 0 and top == 255:
        return "A mask of 0 and 255 becomes target / 255."
    if bottom >= 0:
        return "Class indices become one_hot(target, classes).float(), or use cross_entropy."
    return "Scale the targets to 0 to 1, or use a loss for regression."


def _shapes(call: LossCall) -> Iterator[Finding]:
    """Input and target of different shapes, in a loss that compares element by element."""
    given, target = call.input, call.target
    whole = not target.is_floating_point()
    if (
        given.ndim == target.ndim + 1
        and given.shape[0] == target.shape[0]
        and given.shape[-1] > 1
        and (whole or (is_whole(target) and float(target.max()) > 1))
    ):
        yield found(
            call,
            mod.TARGET_ENCODING,
            "target",
            f"{call.name} compares element by element, and is given class indices {shape_of(target)} for an "
            f"input {shape_of(given)}.",
            "one_hot(target, classes).float(), or cross_entropy for one class a sample.",
        )
        return
    try:
        out = np.broadcast_shapes(tuple(given.shape), tuple(target.shape))
    except ValueError:
        yield found(
            call,
            mod.SILENT_BROADCAST,
            "input",
            f"The input {shape_of(given)} and the target {shape_of(target)} of {call.name} don't fit.",
            "Give both the same shape.",
        )
        return
    yield found(
        call,
        mod.SILENT_BROADCAST,
        "input",
        f"The input {shape_of(given)} and the target {shape_of(target)} of {call.name} are broadcast to "
        f"{tuple(out)}: predictions are compared with the targets of other samples.",
        "prediction.squeeze(1) or target.unsqueeze(1), so that both shapes are equal.",
        broadcast=tuple(out),
    )


def _elementwise(call: LossCall) -> Iterator[Finding]:
    given, target = call.input, call.target
    if given.shape != target.shape:
        if given.numel() > 1 and target.numel() > 1:
            yield from _shapes(call)
        return
    top = float(target.abs().max()) if target.numel() else 0.0
    if call.origin.activation in ("sigmoid", "softmax") and call.origin.exact and top > 1 + CLOSE:
        boxes = given.shape[-1] == 4
        rule = mod.BOX_UNITS if boxes and top > 2 else mod.TARGET_RANGE
        yield found(
            call,
            rule,
            "target",
            f"The prediction is the output of {call.origin.activation}, at most 1, and the targets reach "
            f"{top:.3g}.",
            "Divide the boxes by (width, height, width, height), or predict without the sigmoid."
            if boxes
            else "Scale the targets to 0 to 1, or predict without it.",
            highest=top,
        )


def _divergence(call: LossCall) -> Iterator[Finding]:
    values, target = call.input.float(), call.target.float()
    dim = call.origin.dim if call.origin.dim is not None else -1
    dim = dim if -values.ndim <= dim < values.ndim else -1
    logarithm = call.origin.activation in ("log_softmax", "log_sigmoid")
    if (
        not logarithm
        and not sums_to_one(values.exp(), dim)
        and not bool((values.exp().sum(1) - 1 < CLOSE).all())
    ):
        yield found(
            call,
            mod.LOGITS_INTO_PROBABILITY_LOSS,
            "input",
            "The input of kl_div isn't the logarithm of probabilities: its exponentials don't sum to 1.",
            "log_softmax before it.",
        )
    elif call.origin.activation in ("softmax", "sigmoid"):
        yield found(
            call,
            mod.LOGITS_INTO_PROBABILITY_LOSS,
            "input",
            "The input of kl_div is probabilities; it needs their logarithms.",
            "log_softmax in place of softmax.",
        )
    logs = bool(call.options.get("log_target", False))
    if logs and bool((target > CLOSE).any()):
        yield found(
            call,
            mod.LOGITS_INTO_PROBABILITY_LOSS,
            "target",
            "log_target is true, and the target isn't the logarithm of probabilities.",
            "log_target=False, or log_softmax of the target.",
        )
    elif not logs and bool((target < 0).any()):
        yield found(
            call,
            mod.LOGITS_INTO_PROBABILITY_LOSS,
            "target",
            f"The target of kl_div holds {float(target.min()):.3g}, and log_target is false.",
            "log_target=True where it is log-probabilities, and softmax where it is logits.",
        )


def _boxes(call: LossCall) -> Iterator[Finding]:
    """Boxes of a loss that reads corners."""
    given, target = call.input.float(), call.target.float()
    if given.ndim != 2 or given.shape != target.shape or given.shape[-1] != 4 or not len(given):
        return
    turned = int((target[:, 2:] < target[:, :2]).any(1).sum())
    if turned:
        yield found(
            call,
            mod.BOX_FORMAT,
            "target",
            f"{turned} of {len(target)} target boxes have x2 < x1 or y2 < y1: {call.name} reads corners, and "
            "they look like (x, y, width, height) or (centre, size).",
            'torchvision.ops.box_convert(boxes, "xywh", "xyxy"), or "cxcywh".',
        )
    tops = float(given.abs().max()), float(target.abs().max())
    bounded = call.origin.activation in ("sigmoid", "softmax") or tops[0] <= 1
    if (bounded and tops[1] > 2) or (tops[1] <= 1 + CLOSE and tops[0] > SCALE):
        yield found(
            call,
            mod.BOX_UNITS,
            "target",
            f"Predicted boxes reach {tops[0]:.3g} and target boxes {tops[1]:.3g}: one is relative and the "
            "other in pixels.",
            "Multiply the relative ones by (width, height, width, height).",
            tops=tops,
        )
    elif not turned and bool((given[:, 2:] < given[:, :2]).any(1).all()):
        yield found(
            call,
            mod.BOX_FORMAT,
            "input",
            f"All {len(given)} predicted boxes have x2 < x1 or y2 < y1, and {call.name} reads corners.",
            "Convert what the model predicts to corners before the loss.",
            score=0.4,
        )
