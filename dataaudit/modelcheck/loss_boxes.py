"""Which format of boxes does a loss of one's own read, and is it given that?"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch

from dataaudit.modelcheck.families import mod
from dataaudit.modelcheck.findings import finding
from dataaudit.modelcheck.loss_behaviour import Probe
from dataaudit.modelcheck.loss_calls import origin_of
from dataaudit.types import Finding

__all__ = ["FORMATS", "corners_of", "judge_boxes", "read_format"]

FORMATS = {
    "xyxy": "corners (x1, y1, x2, y2)",
    "xywh": "(x, y, width, height)",
    "cxcywh": "(centre x, centre y, width, height)",
}
RELATIVE = 1.5
SCALE = 20.0
_MARGIN = 0.03


def judge_boxes(probe: Probe) -> Iterator[Finding]:
    """Find out whether a loss of four numbers a row reads boxes, and whether they have its format and units.

    A loss that reads corners doesn't see both boxes moved by the same way, all four numbers of each; one that
    reads sizes doesn't see their first two numbers moved. What compares number by number sees neither.

    Args:
        probe: the loss and what it was given.

    Yields:
        MOD028 for the format, MOD029 for the units.
    """
    prediction, target = probe.prediction.detach().float(), probe.target.detach().float()
    if target.shape != prediction.shape or target.shape[-1:] != (4,) or not target.numel():
        return
    if not probe.target.is_floating_point() or not bool(target.isfinite().all()):
        return
    given, boxes = prediction.reshape(-1, 4), target.reshape(-1, 4)
    top = float(boxes.abs().max())
    reads = read_format(probe, top)
    if reads is None:
        return
    units = list(_units(probe, reads, given, boxes))
    yield from units
    if not units and reads in FORMATS:
        yield from _format(probe, reads, boxes)


def read_format(probe: Probe, top: float) -> str | None:
    """``xyxy``, ``xywh``, ``cxcywh``, ``each`` where it compares number by number, or None for anything else.

    Args:
        probe: the loss.
        top: largest number of the boxes that are tried.
    """

    def tried(first: list[float], second: list[float]) -> float:
        pair = (torch.tensor(one, device=probe.prediction.device) * top for one in (first, second))
        a, b = (one.expand(probe.prediction.shape) for one in pair)
        return probe.value(a, b.to(probe.target.dtype))

    first, second = [0.2, 0.2, 0.6, 0.7], [0.3, 0.25, 0.65, 0.6]
    apart, same = tried(first, second), tried(first, first)
    if not (math.isfinite(apart) and math.isfinite(same)) or apart - same <= 1e-4 * max(abs(apart), 1e-3):
        return None

    def moved(by: list[float]) -> bool:
        a, b = ([x + d for x, d in zip(box, by, strict=True)] for box in (first, second))
        return abs(tried(a, b) - apart) <= 2e-3 * abs(apart)

    # Twice, as a loss of something else may be equal by chance
    whole = moved([0.1, 0.1, 0.1, 0.1]) and moved([-0.15, 0.2, -0.15, 0.2])
    place = moved([0.1, 0.1, 0.0, 0.0]) and moved([-0.15, 0.2, 0.0, 0.0])
    if whole and place:
        return "each"
    if whole:
        return "xyxy"
    if not place:
        return None
    # A smaller box as far to one side as to the other: alike by centres, not by corners
    middle = [0.4, 0.4, 0.4, 0.4]
    left, right = tried(middle, [0.3, 0.4, 0.2, 0.4]), tried(middle, [0.5, 0.4, 0.2, 0.4])
    return "cxcywh" if abs(left - right) <= 2e-3 * max(abs(left), abs(right), 1e-6) else "xywh"


def corners_of(boxes: torch.Tensor, read_as: str) -> torch.Tensor:
    """(n, 4) corners of boxes (n, 4) that are read as one of `FORMATS`.

    >>> corners_of(torch.tensor([[4.0, 5.0, 2.0, 4.0]]), "cxcywh").tolist()
    [[3.0, 3.0, 5.0, 7.0]]
    """
    if read_as == "xywh":
        return torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1)
    if read_as == "cxcywh":
        return torch.cat([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], 1)
    return boxes


def _units(probe: Probe, reads: str, given: torch.Tensor, boxes: torch.Tensor) -> Iterator[Finding]:
    tops = float(given.abs().max()), float(boxes.abs().max())
    origin = origin_of(probe.prediction)
    sigmoid = origin.activation in ("sigmoid", "softmax")
    # An untrained layer's small numbers are seldom all boxes within 0 to 1
    valid = reads != "each" and bool((given >= 0).all()) and not _turned(corners_of(given, reads))
    small = tops[0] <= RELATIVE and (sigmoid or valid)
    if small and tops[1] > 2 * RELATIVE:
        predicted, wanted = "relative", "in pixels"
    elif tops[1] <= RELATIVE and tops[0] > SCALE:
        predicted, wanted = "in pixels", "relative"
    else:
        return
    yield finding(
        mod.BOX_UNITS,
        f"{probe.name} target",
        f"Predicted boxes reach {tops[0]:.3g} and target boxes {tops[1]:.3g}: the predictions are "
        f"{predicted} and the targets {wanted}.",
        advice="Multiply the relative ones by (width, height, width, height).",
        evidence={"tops": tops},
        source=probe.source,
    )


def _format(probe: Probe, reads: str, boxes: torch.Tensor) -> Iterator[Finding]:
    limits = _limits(probe, boxes)
    turned, outside = _turned(corners_of(boxes, reads)), _outside(corners_of(boxes, reads), limits)
    fitting = [
        name
        for name in FORMATS
        if name != reads
        and not _turned(corners_of(boxes, name))
        and not _outside(corners_of(boxes, name), limits)
    ]
    if not turned and not (outside and fitting):
        return
    wrong = (
        f"{turned} of {len(boxes)} target boxes have x2 <= x1 or y2 <= y1"
        if turned
        else f"{outside} of {len(boxes)} target boxes reach outside their image"
    )
    fits = f" Read as {FORMATS[fitting[0]]} all of them fit." if fitting else ""
    yield finding(
        mod.BOX_FORMAT,
        f"{probe.name} target",
        f"{probe.name} reads {FORMATS[reads]}, and read so {wrong}.{fits}",
        advice=f'torchvision.ops.box_convert(boxes, "{fitting[0]}", "{reads}") before it.'
        if fitting
        else "Check the file's format, and that boxes are resized and flipped with their images.",
        evidence={"reads": reads, "turned": turned, "outside": outside, "fits": fitting},
        source=probe.source,
    )


def _limits(probe: Probe, boxes: torch.Tensor) -> torch.Tensor | None:
    """Largest x and y of a box, with a little room; None where it isn't known."""
    if float(boxes.abs().max()) <= RELATIVE:
        return torch.full((4,), 1 + _MARGIN)
    if probe.image_size is None:
        return None
    width, height = probe.image_size
    return torch.tensor([width, height, width, height]) * (1 + _MARGIN)


def _turned(corners: torch.Tensor) -> int:
    return int((corners[:, 2:] <= corners[:, :2]).any(1).sum())


def _outside(corners: torch.Tensor, limits: torch.Tensor | None) -> int:
    if limits is None:
        return 0
    top = limits.to(corners.device)
    return int(((corners > top) | (corners < -_MARGIN * top)).any(1).sum())
