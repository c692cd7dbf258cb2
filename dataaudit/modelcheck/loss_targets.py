"""Is the target of a loss over classes what it expects: indices or rows, their type and range?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from dataaudit.modelcheck.families import mod
from dataaudit.modelcheck.findings import finding
from dataaudit.modelcheck.loss_calls import LossCall
from dataaudit.registry import Rule
from dataaudit.types import Finding

__all__ = ["found", "is_whole", "shape_of", "sums_to_one", "target_of_classes"]

IGNORED = 0.99
CLOSE = 1e-3


def found(
    call: LossCall, rule: Rule, part: str, what: str, advice: str, *, score: float = 0.0, **figures: Any
) -> Finding:
    """A finding about one argument of a loss, with the shapes and types of both."""
    evidence = {
        "loss": call.name,
        "input_shape": tuple(call.input.shape),
        "input_dtype": str(call.input.dtype),
        "target_shape": tuple(call.target.shape),
        "target_dtype": str(call.target.dtype),
        **figures,
    }
    return finding(
        rule, f"{call.name} {part}", what, advice=advice, evidence=evidence, source=call.line, score=score
    )


def shape_of(tensor: torch.Tensor) -> str:
    """``(4, 10)``."""
    return str(tuple(tensor.shape))


def sums_to_one(values: torch.Tensor, dim: int) -> bool:
    """Whether all sums over `dim` are 1, nearly."""
    return bool(((values.sum(dim) - 1).abs() < CLOSE).all())


def target_of_classes(call: LossCall) -> Iterator[Finding]:
    """The target of cross_entropy or nll_loss."""
    given, target = call.input, call.target
    if given.ndim < 2:
        return
    classes, rows = given.shape[1], target.shape == given.shape
    whole = not target.is_floating_point() or is_whole(target)
    if classes == 1 and not rows:
        yield found(
            call,
            mod.EVERYTHING_IGNORED,
            "input",
            f"{call.name} over one class is 0 whatever the model says.",
            "Use binary_cross_entropy_with_logits for one output, or two outputs.",
        )
    elif rows and (call.name == "nll_loss" or not target.is_floating_point()):
        yield found(
            call,
            mod.TARGET_ENCODING,
            "target",
            f"The target of {call.name} has the shape of the input, {shape_of(target)}, as one-hot rows "
            "have; "
            "class indices are expected.",
            "target.argmax(1)" + (", or one-hot rows as float." if call.name == "cross_entropy" else "."),
        )
    elif rows:
        yield from _probabilities(call)
    elif target.ndim == given.ndim and target.shape[1] == 1:
        yield found(
            call,
            mod.TARGET_ENCODING,
            "target",
            f"The target {shape_of(target)} has a dimension too many: class indices (n, ...) are expected.",
            "target.squeeze(1)",
        )
    elif target.ndim == given.ndim:
        yield found(
            call,
            mod.TARGET_ENCODING,
            "target",
            f"The target {shape_of(target)} looks like rows of {target.shape[1]} classes, and the input has "
            f"{classes}.",
            "target.argmax(1), or as many classes in both.",
        )
    elif target.dtype not in (torch.int64, torch.uint8):
        kind = str(target.dtype).removeprefix("torch.")
        yield found(
            call,
            mod.TARGET_RANGE,
            "target",
            f"The target of {call.name} is of type {kind}, and class indices are int64."
            + ("" if whole else " Its values aren't whole numbers, as of a regression."),
            "target.long()" if whole else "Use mse_loss or smooth_l1_loss for a regression.",
        )
    else:
        yield from _indices(call, classes)


def is_whole(target: torch.Tensor) -> bool:
    """Whether all values are whole numbers."""
    return bool((target == target.round()).all())


def _probabilities(call: LossCall) -> Iterator[Finding]:
    target = call.target
    ones = bool(((target == 0) | (target == 1)).all())
    sums = target.sum(1)
    if ones and bool((sums > 1).any()):
        yield found(
            call,
            mod.TARGET_ENCODING,
            "target",
            f"The target's rows hold up to {int(sums.max())} ones: a sample has several classes, and "
            "cross_entropy makes them compete.",
            "Use binary_cross_entropy_with_logits.",
        )
    elif bool((target < 0).any()) or not sums_to_one(target, 1):
        yield found(
            call,
            mod.TARGET_RANGE,
            "target",
            f"The target's rows are no probabilities: they sum to {float(sums.min()):.3g} to "
            f"{float(sums.max()):.3g}, the least value is {float(target.min()):.3g}.",
            "Rows of class probabilities are 0 or more and sum to 1; a softmax of them, or indices.",
        )


def _indices(call: LossCall, classes: int) -> Iterator[Finding]:
    target, ignore = call.target.long(), call.options.get("ignore_index", -100)
    counted = target[target != ignore]
    share = 1 - counted.numel() / max(target.numel(), 1)
    if share >= IGNORED:
        yield found(
            call,
            mod.EVERYTHING_IGNORED,
            "target",
            f"{share:.0%} of the targets are ignore_index ({ignore}), and {call.name} leaves them out.",
            "Check ignore_index against the class indices, and the mask of the labels.",
            share=share,
        )
        return
    low, high = int(counted.min()), int(counted.max())
    if low < 0 or high >= classes:
        hint = ""
        advice = "Map the labels to 0 to classes - 1, or give the model as many outputs as there are classes."
        if low >= 1 and high == classes:
            hint, advice = " They seem to count from 1.", "Subtract 1: target - 1."
        elif high == 255 or low == -1:
            advice = (
                f"If {255 if high == 255 else -1} means no label: ignore_index={255 if high == 255 else -1}."
            )
        yield found(
            call,
            mod.TARGET_RANGE,
            "target",
            f"The targets reach from {low} to {high}, and the input {shape_of(call.input)} has {classes} "
            "classes "
            f"(0 to {classes - 1}).{hint}",
            advice,
            lowest=low,
            highest=high,
            classes=classes,
        )
        return
    yield from _weights(call, counted, classes)


def _weights(call: LossCall, counted: torch.Tensor, classes: int) -> Iterator[Finding]:
    """Weights of 0: one may stand for no label, most of the classes can't."""
    weight = call.options.get("weight")
    if not isinstance(weight, torch.Tensor) or weight.numel() != classes:
        return
    without = (weight == 0).nonzero().flatten().tolist()
    if bool(weight[counted].any()) and len(without) <= max(1, classes // 2):
        return
    names = ", ".join(map(str, without[:5])) + (f" and {len(without) - 5} more" if len(without) > 5 else "")
    lost = 1 - float((weight[counted] != 0).float().mean())
    yield found(
        call,
        mod.EVERYTHING_IGNORED,
        "weight",
        f"{len(without)} of {classes} classes have weight 0 ({names}), and {lost:.0%} of the targets in the "
        "batch are of these: the loss leaves them out.",
        "Check the order and the computation of the class weights.",
        share=lost,
    )
