"""Does a loss get what it expects? One step is run, and every loss function in it is looked at."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from torch import nn

from dataaudit.errors import InputError
from dataaudit.modelcheck.families import mod
from dataaudit.modelcheck.findings import finding, place_of
from dataaudit.modelcheck.inputs import Batch, Inputs, call, called, is_detector, length, tensors
from dataaudit.modelcheck.keeping import kept
from dataaudit.modelcheck.loss_calls import Broadcast, Recording, last_width, recorded
from dataaudit.modelcheck.loss_probing import asked
from dataaudit.modelcheck.loss_rules import judge
from dataaudit.modelcheck.target_boxes import judge_targets
from dataaudit.types import Finding

__all__ = ["CODES", "loss_inputs"]

CODES = tuple(f"MOD{number:03d}" for number in range(20, 30))

Loss: TypeAlias = Callable[[Any, Any], Any]
Step: TypeAlias = Callable[[nn.Module, Any], Any]

CAUSES = ("MOD025", "MOD022", "MOD024", "MOD028", "MOD029", "MOD020", "MOD021", "MOD023", "MOD026", "MOD027")
"""Where several are found, an earlier one explains the later ones."""


def loss_inputs(
    model: nn.Module,
    loss: Loss | None,
    inputs: Inputs | Batch,
    targets: Any = None,
    *,
    step: Step | None = None,
    n_classes: int | None = None,
) -> list[Finding]:
    """Find out whether a loss is given what it expects.

    One step is run in train mode, ``loss(model(inputs), targets)``, and every loss function of PyTorch and
    torchvision in it is looked at: what it was given, and by the graph of the computation where that came
    from. Your own arithmetic is watched for broadcasting. A loss of your own is asked about predictions that
    are made up: whether it wants logits or probabilities, and which format of boxes it reads. Nothing is
    trained, and everything is put back.

    Args:
        model: the model.
        loss: a module of ``torch.nn``, a function, or any callable of prediction and target; None where the
            model computes its loss itself, as torchvision's detection models do with targets.
        inputs: what the model is called with, or a `Batch` with targets.
        targets: what the loss takes; those of the batch when left out.
        step: in place of `loss`, a function of the model and ``(inputs, targets)`` that returns the loss.
        n_classes: how many classes there are, where neither the model nor the batch says it.

    Returns:
        Findings MOD020 to MOD029, the cause first.

    Raises:
        InputError: there are no targets, the model raises, or the loss takes other arguments.

    >>> found = loss_inputs(
    ...     nn.Sequential(nn.Linear(4, 3), nn.Softmax(1)), nn.CrossEntropyLoss(),
    ...     torch.rand(8, 4), torch.arange(8) % 3,
    ... )
    >>> [item.code for item in found]
    ['MOD020']
    """
    batch = inputs if isinstance(inputs, Batch) else Batch(inputs=inputs, targets=targets)
    given, wanted = batch.inputs, batch.targets if targets is None else targets
    if wanted is None and step is None:
        raise InputError("There are no targets.", fix="Give labels: --data DIR with labels, or --loader.")
    if loss is not None and step is None:
        _takes_two(loss)
    classes = n_classes or len(batch.classes) or last_width(model)
    with kept(model, loss, given, wanted, eager=True), torch.enable_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = list(judge_targets(model, given, wanted)) if _is_detection(model, wanted) else []
        with _outputs(model) as outputs:
            value, recording, error = _run(model, loss, given, wanted, step)
        for one in recording.calls:
            found += judge(one, n_classes=classes)
        found += [_broadcast(one) for one in recording.broadcasts]
        if error is not None and not found:
            found.append(_raised(loss or step or model, error))
        if not found and error is None:
            found += asked(model, loss, step, given, wanted, outputs, recording)
        if error is None:
            found += _value(value, found, loss or step)
            if not found and (loss is not None or step is not None):
                model.eval()
                found += _doubling(_runner(model, loss, step), given, wanted, loss or step)
    return _ordered(found)


def _is_detection(model: nn.Module, targets: Any) -> bool:
    first = targets[0] if isinstance(targets, (list, tuple)) and targets else None
    return isinstance(first, Mapping) and "boxes" in first and is_detector(model)


def _run(
    model: nn.Module, loss: Loss | None, inputs: Inputs, targets: Any, step: Step | None
) -> tuple[Any, Recording, Exception | None]:
    model.train()
    for one in model.parameters():
        one.requires_grad_(one.is_floating_point())
    with recorded(list(tensors(targets))) as recording:
        try:
            if step is not None:
                return step(model, (inputs, targets)), recording, None
            if loss is None:
                return model(inputs, targets), recording, None
            return loss(called(model, inputs), targets), recording, None
        except InputError:
            raise
        except Exception as error:
            return None, recording, error


@contextmanager
def _outputs(model: nn.Module) -> Iterator[list[Any]]:
    """What the model puts out in the calls to come."""
    found: list[Any] = []

    def note(_: nn.Module, __: Any, output: Any) -> None:
        found.append(output)

    handle = None if isinstance(model, torch.jit.ScriptModule) else model.register_forward_hook(note)
    try:
        yield found
    finally:
        if handle is not None:
            handle.remove()


def _takes_two(loss: Loss) -> None:
    """Whether a loss can be called with prediction and target alone.

    Raises:
        InputError: it takes more, or fewer.
    """
    try:
        signature = inspect.signature(loss.forward if isinstance(loss, nn.Module) else loss)
    except (TypeError, ValueError):
        return
    try:
        signature.bind(None, None)
    except TypeError as error:
        kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        needed = [
            name
            for name, one in signature.parameters.items()
            if one.default is one.empty and one.kind not in kinds
        ]
        name = getattr(loss, "__name__", type(loss).__name__)
        more = ", ".join(needed[2:])
        raise InputError(
            f"The loss {name} takes {more} besides prediction and target."
            if more
            else f"The loss {name} takes {', '.join(needed) or 'nothing'}; expected prediction and target.",
            where=place_of(loss),
            fix="Give a function of the two that calls it, or a step: a function of model and batch that "
            "returns the loss.",
        ) from error


def _runner(model: nn.Module, loss: Loss | None, step: Step | None) -> Callable[[Any, Any], Any]:
    if step is not None:
        return lambda inputs, targets: step(model, (inputs, targets))
    assert loss is not None
    return lambda inputs, targets: loss(call(model, inputs), targets)


def _broadcast(one: Broadcast) -> Finding:
    what = f"{one.a} and {one.b} are broadcast to {one.out} by {one.operation.strip('_')}: "
    what += "each prediction is compared with the targets of other samples."
    return finding(
        mod.SILENT_BROADCAST,
        "loss",
        what,
        advice="prediction.squeeze(1) or target.unsqueeze(1), so that both shapes are equal.",
        evidence={"operation": one.operation, "shapes": [one.a, one.b], "broadcast": one.out},
        source=one.line,
    )


def _raised(culprit: Any, error: Exception) -> Finding:
    said = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    return finding(
        mod.CLASS_AXIS,
        getattr(culprit, "__name__", type(culprit).__name__),
        f"The step raises {said}.",
        advice="Compare the shapes and types of the model's output and of the targets.",
        evidence={"error": said},
        source=place_of(culprit),
    )


def _value(value: Any, found: Sequence[Finding], culprit: Any) -> Iterator[Finding]:
    """What is wrong with the loss itself: no number, no gradient, or NaN."""
    parts = list(tensors(value))
    name = getattr(culprit, "__name__", type(culprit).__name__) if culprit is not None else "loss"
    source = None if culprit is None else place_of(culprit)
    if type(culprit).__module__.split(".")[0] == "torch":
        source = None
    if not parts:
        yield finding(
            mod.EVERYTHING_IGNORED,
            name,
            f"The loss is a {type(value).__name__}, not a tensor with a gradient.",
            advice="Return the tensor, without .item() or float().",
            source=source,
        )
        return
    if not isinstance(value, Mapping) and any(part.numel() > 1 for part in parts):
        shape = next(tuple(part.shape) for part in parts if part.numel() > 1)
        yield finding(
            mod.SUMMED_LOSS,
            f"{name} reduction",
            f"The loss has shape {shape}; backward() wants one number.",
            advice='Take its mean, or reduction="mean".',
            source=source,
        )
    elif not any(part.requires_grad for part in parts):
        yield finding(
            mod.EVERYTHING_IGNORED,
            name,
            "The loss has no gradient: nothing connects it with the model's weights.",
            advice="Look for argmax, round, detach, .item(), .numpy() or no_grad between model and loss.",
            source=source,
        )
    elif not found and any(not bool(part.isfinite().all()) for part in parts):
        yield finding(
            mod.TARGET_RANGE,
            name,
            "The loss is NaN or infinite on the first batch.",
            advice="If the model's output is (dataaudit model trace), start there; else look at the mask.",
            source=source,
        )
    elif not found and all(bool((part == 0).all()) for part in parts):
        yield finding(
            mod.EVERYTHING_IGNORED,
            name,
            "The loss is exactly 0 on the first batch.",
            advice="Check the mask, the weights and the ignored class.",
            source=source,
        )


def _doubling(
    run: Callable[[Any, Any], Any], inputs: Inputs, targets: Any, culprit: Any
) -> Iterator[Finding]:
    """Whether the loss of the batch given twice is twice the loss of the batch."""
    twice_in, twice_out = _twice(inputs), _twice(targets)
    if twice_in is None or twice_out is None or length(inputs) != length(targets):
        return
    values = []
    for given, wanted in ((inputs, targets), (inputs, targets), (twice_in, twice_out)):
        torch.manual_seed(0)
        try:
            with torch.no_grad():
                value = run(given, wanted)
        except Exception:  # a step that takes this batch alone: then nothing is said
            return
        if not isinstance(value, torch.Tensor) or value.numel() != 1:
            return
        values.append(float(value))
    one, again, twice = values
    if one != again or one == 0 or abs(twice / one - 2) > 0.02:
        return
    name = getattr(culprit, "__name__", type(culprit).__name__)
    library = type(culprit).__module__.split(".")[0] == "torch"
    yield finding(
        mod.SUMMED_LOSS,
        f"{name} reduction",
        f"The loss is {one:.4g} for the batch and {twice:.4g} for it given twice: it is a sum, so that the "
        "step grows with the batch size.",
        advice='reduction="mean".' if library else "Divide by the number of samples, or use .mean().",
        source=None if library else place_of(culprit),
        score=0.6,
        evidence={"once": one, "twice": twice},
    )


def _twice(value: Any) -> Any:
    """A batch given twice; None for what isn't a batch."""
    if isinstance(value, torch.Tensor):
        return torch.cat([value, value]) if value.ndim else None
    if isinstance(value, list) and value:
        return value + value
    return None


def _ordered(found: Sequence[Finding]) -> list[Finding]:
    """Each finding once, the cause first."""
    seen: dict[str, Finding] = {}
    for item in found:
        seen.setdefault(item.key, item)
    return sorted(seen.values(), key=lambda item: CAUSES.index(item.code))
