"""Which single change of input, output or mode makes the trained model equal to the deployed one."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from dataaudit.modelcheck.deployment.differences import largest
from dataaudit.modelcheck.inputs import DEVIATION, MEAN, tensors
from dataaudit.registry import Rule

__all__ = ["Explanation", "explain"]

Outputs = tuple[torch.Tensor, ...]
Change = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """A change that makes two models equal.

    Attributes:
        rule: what is wrong.
        where: what it is about, such as ``input``.
        what: the sentence that says it.
        advice: what to change.
        left: the relative difference that is left.
    """

    rule: Rule
    where: str
    what: str
    advice: str
    left: float


def explain(
    model: nn.Module,
    inputs: Sequence[torch.Tensor],
    before: Outputs,
    after: Outputs,
    *,
    limit: float,
    fresh: Callable[[], None],
) -> Explanation | None:
    """The change that explains the difference best, or None when none does.

    Args:
        model: the trained model, within `kept`.
        inputs: what both were given, in order.
        before: its outputs, and `after` those of the deployed model.
        limit: relative difference up to which they count as equal.
        fresh: puts the model back into its state, in eval mode.
    """
    start = largest(before, after)
    found = []
    for each in (_outputs(before, after), _inputs(model, inputs, after), _modes(model, inputs, after, fresh)):
        for explanation in each:
            # What is left has to be far below what there was: with random weights much is nearly equal
            if explanation.left <= limit and explanation.left <= 0.2 * start:
                found.append(explanation)
        fresh()
        if found:
            return min(found, key=lambda one: one.left)
    return None


def _outputs(before: Outputs, after: Outputs) -> Iterator[Explanation]:
    """Changes of the output: an activation at the end, another order of classes or of outputs."""
    from dataaudit.modelcheck.families import dep

    if len(before) == len(after) > 1:
        backwards = tuple(reversed(before))
        yield Explanation(
            rule=dep.OUTPUT_FORM, where="output", what="The outputs come in the reverse order.",
            advice="Take outputs by name.", left=largest(backwards, after),
        )  # fmt: skip
    if len(before) != 1 or len(after) != 1 or before[0].ndim < 2:
        return
    a, b = before[0], after[0]
    activations: dict[str, Change] = {
        "softmax": lambda x: x.softmax(1), "sigmoid": torch.sigmoid,
        "log_softmax": lambda x: x.log_softmax(1),
    }  # fmt: skip
    for name, function in activations.items():
        if not (a.is_floating_point() and b.is_floating_point()):
            break
        for there, one, other in ((True, function(a), b), (False, a, function(b))):
            side = "The deployed model ends" if there else "The trained model ends"
            lacks = "the trained one doesn't" if there else "the deployed one doesn't"
            yield Explanation(
                rule=dep.OUTPUT_FORM, where="output", what=f"{side} with a {name}, and {lacks}.",
                advice=f"Apply {name} once: in the graph, or in the code after it.",
                left=largest([one], [other]),
            )  # fmt: skip
    if b.shape == a.transpose(-1, -2).shape:
        yield Explanation(
            rule=dep.OUTPUT_FORM, where="output", what="The last two axes of the output are exchanged.",
            advice="Transpose it on one side.", left=largest([a.transpose(-1, -2)], [b]),
        )  # fmt: skip
    if a.shape == b.shape and a.ndim == 2 and 2 < a.shape[1] <= 20_000 and len(a) > 1:
        yield from _permuted(a, b)


def _permuted(a: torch.Tensor, b: torch.Tensor) -> Iterator[Explanation]:
    """The same columns in another order."""
    from dataaudit.modelcheck.families import dep

    order = a[0].argsort()
    place = b[0].argsort()
    source = torch.empty_like(order)
    source[place] = order
    places = (source != torch.arange(len(source))).nonzero().flatten().tolist()
    if places:
        shown = ", ".join(f"{int(source[at])} at {at}" for at in places[:3])
        yield Explanation(
            rule=dep.OUTPUT_FORM, where="output", advice="Use one list of classes on both sides.",
            what=f"The classes have another order: {len(places)} of {len(source)} moved: {shown}.",
            left=largest([a[:, source]], [b]),
        )  # fmt: skip


def _run(model: nn.Module, inputs: Sequence[torch.Tensor]) -> Outputs | None:
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return tuple(one.detach().cpu() for one in tensors(model(*inputs)))
    except Exception:  # a change of the input that the model doesn't take explains nothing
        return None


def _inputs(model: nn.Module, inputs: Sequence[torch.Tensor], after: Outputs) -> Iterator[Explanation]:
    """Changes of the input: the deployed model holds a step of preprocessing, or lacks one."""
    from dataaudit.modelcheck.families import dep

    image = inputs[0]
    if len(inputs) != 1 or image.ndim != 4 or not image.is_floating_point():
        return
    mean, deviation = (torch.tensor(values).view(1, 3, 1, 1).to(image) for values in (MEAN, DEVIATION))
    changes: list[tuple[Rule, str, str, Change]] = []
    if image.shape[1] == 3:
        changes += [
            (dep.COLOUR_ORDER, "reads the channels in the reverse order (BGR for RGB).",
             "Give it the order that it was exported with, and reverse the channels once.",
             lambda x: x.flip(1)),
            (dep.NORMALISATION, "normalises the input once more (by ImageNet's figures).",
             "Normalise once: in the graph or before it.", lambda x: (x - mean) / deviation),
            (dep.NORMALISATION, "takes the normalisation of the input back (ImageNet's).",
             "Normalise once on each side.", lambda x: x * deviation + mean),
        ]  # fmt: skip
    changes += [
        (dep.VALUE_RANGE, "divides the input by 255.",
         "Scale once: in the graph or before it.", lambda x: x / 255),
        (dep.VALUE_RANGE, "multiplies the input by 255.", "Scale once on each side.",
         lambda x: x * 255),
        (dep.VALUE_RANGE, "maps 0 to 1 onto -1 to 1.", "Scale once on each side.", lambda x: x * 2 - 1),
        (dep.ORIENTATION, "exchanges height and width.", "Permute the axes the same way on both sides.",
         lambda x: x.transpose(2, 3)),
        (dep.ORIENTATION, "mirrors the image.", "Leave augmentation out of the export.",
         lambda x: x.flip(3)),
        (dep.ORIENTATION, "turns the image upside down.", "Flip on both sides or on none.",
         lambda x: x.flip(2)),
        (dep.LAYOUT, "reads channels-last memory as channels-first (reshape in place of permute).",
         "Use permute(0, 3, 1, 2).", lambda x: x.permute(0, 2, 3, 1).reshape(x.shape)),
    ]  # fmt: skip
    for rule, what, advice, change in changes:
        out = _run(model, [change(image).contiguous()])
        if out is not None:
            yield Explanation(
                rule=rule,
                where="input",
                what=f"The deployed model {what}",
                advice=advice,
                left=largest(out, after),
            )


def _modes(
    model: nn.Module, inputs: Sequence[torch.Tensor], after: Outputs, fresh: Callable[[], None]
) -> Iterator[Explanation]:
    """The model in train mode, and in a type of lower precision."""
    from dataaudit.modelcheck.families import dep

    kinds = sorted({type(part).__name__ for part in model.modules() if "BatchNorm" in type(part).__name__})
    by = f": {kinds[0]} normalises by the batch" if kinds else ""
    for norms_only in (False, True):
        fresh()
        model.train()
        for part in model.modules():
            # Dropout is random: what is left can be compared
            if norms_only and "Dropout" in type(part).__name__:
                part.eval()
        out = _run(model, inputs)
        fresh()
        if out is not None:
            yield Explanation(
                rule=dep.TRAIN_MODE, where="mode", what=f"The deployed model is in train mode{by}.",
                advice="Call model.eval() before the export, and export again.", left=largest(out, after),
            )  # fmt: skip


def nonfinite(outputs: Sequence[Any]) -> int:
    """How many values of tensors are NaN or infinite."""
    return sum(int((~one.isfinite()).sum()) for one in outputs if one.is_floating_point())


def is_far(value: float, limit: float) -> bool:
    """Whether a relative difference is beyond the limit; NaN is."""
    return math.isnan(value) or value > limit
