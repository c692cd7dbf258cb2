"""Fit the inputs to what a deployed model declares; what doesn't fit is a finding, and is bridged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from dataaudit.modelcheck.deployment.differences import largest
from dataaudit.modelcheck.deployment.runtimes import Deployed, Slot
from dataaudit.modelcheck.families import dep
from dataaudit.modelcheck.findings import finding
from dataaudit.types import Finding

__all__ = ["Fitted", "batch_sizes", "fit"]

Run = Callable[[Sequence[torch.Tensor]], tuple[torch.Tensor, ...]]
Change = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """How a deployed model is called with the inputs of the trained one.

    Attributes:
        run: takes the inputs; None where nothing makes them fit.
        inputs: for both models; resized ones where the deployed model takes another size.
        findings: what doesn't fit.
        notes: what is converted without being wrong.
        fixed: the batch size that the model is fixed to, or None.
    """

    run: Run | None
    inputs: list[torch.Tensor]
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()
    fixed: int | None = None


def fit(deployed: Deployed, inputs: list[torch.Tensor]) -> Fitted:
    """Compare what the deployed model declares with the inputs, and bridge what differs."""
    slots = deployed.slots
    if not slots:
        return Fitted(run=deployed.run, inputs=inputs)
    if len(slots) != len(inputs):
        names = ", ".join(slot.name for slot in slots)
        said = _mismatch(
            "inputs", f"It takes {len(slots)} inputs ({names}), the trained model is given {len(inputs)}."
        )
        return Fitted(run=None, inputs=inputs, findings=(said,))
    slot, image = slots[0], inputs[0]
    found: list[Finding] = []
    notes = _types(slots, inputs, found)
    change: Change | None = _as_it_is
    sized, fixed = image, None
    if slot.shape is not None:
        if len(slot.shape) != image.ndim:
            said = _mismatch(
                slot.name,
                f"It takes {len(slot.shape)} axes {_shape(slot)}, the trained model {image.ndim}: "
                f"{tuple(image.shape)}.",
            )
            return Fitted(run=None, inputs=inputs, findings=(*found, said))
        fixed = slot.shape[0]
        change, sized = _layout(slot, image, found)
    if change is None:
        return Fitted(run=None, inputs=inputs, findings=tuple(found))
    if fixed is not None and fixed != 1:
        found.append(
            finding(
                dep.BATCH_SIZE, slot.name,
                f"The batch is fixed to {fixed} samples: {_shape(slot)}.",
                advice='Export with dynamic_shapes={0: torch.export.Dim("batch")}, or on purpose with 1.',
                evidence={"batch": fixed}, score=0.3,
            )
        )  # fmt: skip
    elif fixed == 1 and len(image) > 1:
        notes.append("takes one sample at a time")
    new = inputs if sized is image else [sized, *inputs[1:]]
    return Fitted(
        run=_runner(deployed.run, change, fixed), inputs=new, findings=tuple(found), notes=tuple(notes),
        fixed=fixed,
    )  # fmt: skip


def _shape(slot: Slot) -> str:
    sides = ("free" if side is None else str(side) for side in slot.shape or ())
    return f"({', '.join(sides)})"


def _mismatch(where: str, what: str, advice: str = "") -> Finding:
    return finding(
        dep.INPUT_MISMATCH, where, what,
        advice=advice or "Export again with an example input of the right shape, and name the inputs.",
    )  # fmt: skip


def _types(slots: Sequence[Slot], inputs: Sequence[torch.Tensor], found: list[Finding]) -> list[str]:
    notes = []
    for slot, one in zip(slots, inputs, strict=True):
        if slot.dtype is None or slot.dtype == one.dtype:
            continue
        if slot.dtype.is_floating_point and one.is_floating_point():
            notes.append(f"takes {str(slot.dtype).removeprefix('torch.')}")
            continue
        found.append(
            _mismatch(
                slot.name,
                f"It takes {str(slot.dtype).removeprefix('torch.')}, the trained model is given "
                f"{str(one.dtype).removeprefix('torch.')}.",
                "Where the graph holds the preprocessing, give what it takes with --transform.",
            )
        )
    return notes


def _as_it_is(x: torch.Tensor) -> torch.Tensor:
    return x


def _channels_last(x: torch.Tensor) -> torch.Tensor:
    return x.permute(0, 2, 3, 1).contiguous()


def _layout(slot: Slot, image: torch.Tensor, found: list[Finding]) -> tuple[Change | None, torch.Tensor]:
    """How the axes of the input become those that the model declares; the size may change."""
    shape = slot.shape or ()
    wrong = [at for at in range(1, len(shape)) if shape[at] is not None and shape[at] != image.shape[at]]
    if not wrong:
        return _as_it_is, image
    given = tuple(image.shape)
    if len(shape) == 4 and shape[-1] == image.shape[1] and image.shape[1] in (1, 3, 4):
        found.append(
            _mismatch(
                slot.name,
                f"It takes channels last {_shape(slot)}, the trained model channels first {given}.",
                "Permute the axes on the way: x.permute(0, 2, 3, 1).",
            )
        )
        sides = [shape[1] or image.shape[2], shape[2] or image.shape[3]]
        return _channels_last, _resized(image, sides)
    if len(shape) == 4 and wrong and set(wrong) <= {2, 3}:
        found.append(
            _mismatch(
                slot.name,
                f"It takes images of {shape[2] or 'any'} x {shape[3] or 'any'}, the trained model is given "
                f"{given[2]} x {given[3]}.",
                "Resize to one size on both sides, or export with the size that you use.",
            )
        )
        return _as_it_is, _resized(image, [shape[2] or given[2], shape[3] or given[3]])
    found.append(_mismatch(slot.name, f"It takes {_shape(slot)}, the trained model is given {given}."))
    return None, image


def _resized(image: torch.Tensor, sides: Sequence[int]) -> torch.Tensor:
    if list(image.shape[2:]) == list(sides):
        return image
    return torch.nn.functional.interpolate(image, list(sides), mode="bilinear", antialias=True)


def _runner(run: Run, change: Change, fixed: int | None) -> Run:
    """Call a model with as many samples at a time as it is fixed to; the last part is filled up."""

    def whole(inputs: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        given = [change(inputs[0]), *inputs[1:]]
        n = len(given[0])
        if fixed is None or n == fixed:
            return run(given)
        parts = []
        for at in range(0, n, fixed):
            part = [one[at : at + fixed] for one in given]
            short = fixed - len(part[0])
            if short:
                part = [torch.cat([one, one[:1].expand(short, *one.shape[1:])]) for one in part]
            parts.append([one[: fixed - short] if one.ndim else one for one in run(part)])
        return tuple(torch.cat(each) if each[0].ndim else each[0] for each in zip(*parts, strict=True))

    return whole


def batch_sizes(
    deployed: Deployed,
    fitted: Fitted,
    inputs: list[torch.Tensor],
    after: tuple[torch.Tensor, ...],
    *,
    random: bool,
    limit: float,
) -> list[Finding]:
    """DEP004: a batch axis that is said to be free, and isn't."""
    n = len(inputs[0])
    if fitted.run is None or fitted.fixed is not None or n < 2 or random:
        return []
    for size in sorted({1, min(n - 1, 3)}):
        try:
            out = fitted.run([one[:size] for one in inputs])
        except Exception as error:
            said = (str(error).splitlines() or [type(error).__name__])[0]
            return [
                finding(
                    dep.BATCH_SIZE, "batch",
                    f"A batch of {n} runs, and one of {size} fails: {said[:300]}",
                    advice="A reshape holds the batch size: write x.flatten(1), and export with "
                    'dynamic_shapes={0: torch.export.Dim("batch")}.',
                    evidence={"works": n, "fails": size},
                )
            ]  # fmt: skip
        same = [whole[:size] if whole.ndim and len(whole) == n else whole for whole in after]
        gap = largest(same, out)
        if gap > limit:
            return [
                finding(
                    dep.BATCH_SIZE, "batch",
                    f"The same sample gets another output in a batch of {size} than in one of {n}.",
                    advice="Look for batch norm in train mode, and for a softmax, mean or reshape over "
                    "dimension 0.",
                    evidence={"relative": gap}, score=0.2,
                )
            ]  # fmt: skip
    return []
