"""The boxes and labels that a detection model is trained with: format, units and range."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from dataaudit.modelcheck.families import mod
from dataaudit.modelcheck.findings import finding
from dataaudit.types import Finding

__all__ = ["judge_targets"]

_MARGIN = 1.0
"""Pixels that a box may reach outside its image."""


def judge_targets(
    model: nn.Module, images: Sequence[torch.Tensor], targets: Sequence[Mapping[str, Any]]
) -> Iterator[Finding]:
    """Find out whether targets are as torchvision's detection models read them: corners in pixels.

    Args:
        model: the model, for the number of its classes.
        images: (channels, height, width) each.
        targets: ``boxes`` (k, 4) and ``labels`` (k,) for each image.

    Yields:
        MOD028 for the format, MOD029 for the units, MOD024 for labels.
    """
    sizes = [(float(image.shape[-1]), float(image.shape[-2])) for image in images]
    boxes = [torch.as_tensor(target["boxes"]).float().reshape(-1, 4) for target in targets]
    n = sum(map(len, boxes))
    if n:
        top = max(float(each.abs().max()) for each in boxes if len(each))
        if top <= 1.5 and min(min(size) for size in sizes) > 4:
            yield finding(
                mod.BOX_UNITS,
                "boxes",
                f"The {n} target boxes lie within 0 to {top:.3g}, and the model reads pixels.",
                advice="Multiply them by (width, height, width, height) of each image.",
                evidence={"highest": top},
            )
        else:
            yield from _format(boxes, sizes, n)
    yield from _labels(model, targets)


def _format(boxes: Sequence[torch.Tensor], sizes: Sequence[tuple[float, float]], n: int) -> Iterator[Finding]:
    turned = sum(int((each[:, 2:] <= each[:, :2]).any(1).sum()) for each in boxes)
    outside = _outside(boxes, sizes)
    if not turned and not outside:
        return
    readings = {
        "xywh": [torch.cat([each[:, :2], each[:, :2] + each[:, 2:]], 1) for each in boxes],
        "cxcywh": [
            torch.cat([each[:, :2] - each[:, 2:] / 2, each[:, :2] + each[:, 2:] / 2], 1) for each in boxes
        ],
        "yxyx": [each[:, [1, 0, 3, 2]] for each in boxes],
    }
    names = {
        "xywh": "(x, y, width, height)",
        "cxcywh": "(centre x, centre y, width, height)",
        "yxyx": "(y1, x1, y2, x2)",
    }
    fitting = [name for name, read in readings.items() if not _turned(read) and not _outside(read, sizes)]
    says = f" Read as {names[fitting[0]]} all of them fit." if fitting else ""
    if turned:
        what = f"{turned} of {n} target boxes have x2 <= x1 or y2 <= y1 as corners (x1, y1, x2, y2).{says}"
    else:
        what = f"{outside} of {n} target boxes reach outside their image as corners (x1, y1, x2, y2).{says}"
    if fitting and fitting[0] != "yxyx":
        advice = f'torchvision.ops.box_convert(boxes, "{fitting[0]}", "xyxy").'
    elif fitting:
        advice = "boxes[:, [1, 0, 3, 2]]."
    else:
        advice = "Check that boxes are resized and flipped with their images, and the file's format."
    if not turned and not fitting and outside < n / 2:
        return  # a few boxes over the edge are the data's matter: BOX006 of an audit
    yield finding(
        mod.BOX_FORMAT,
        "boxes",
        what,
        advice=advice,
        evidence={"turned": turned, "outside": outside, "boxes": n, "fits": fitting},
    )


def _turned(boxes: Sequence[torch.Tensor]) -> int:
    return sum(int((each[:, 2:] <= each[:, :2]).any(1).sum()) for each in boxes)


def _outside(boxes: Sequence[torch.Tensor], sizes: Sequence[tuple[float, float]]) -> int:
    n = 0
    for each, (width, height) in zip(boxes, sizes, strict=True):
        limit = torch.tensor([width, height, width, height], device=each.device) + _MARGIN
        n += int(((each > limit) | (each < -_MARGIN)).any(1).sum())
    return n


def _labels(model: nn.Module, targets: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    labels = torch.cat([torch.as_tensor(target["labels"]).reshape(-1) for target in targets])
    predictor = getattr(getattr(model, "roi_heads", None), "box_predictor", None)
    score = getattr(predictor, "cls_score", None)
    if score is None or not len(labels):
        return
    low, high, classes = int(labels.min()), int(labels.max()), int(score.out_features)
    if low < 1 or high >= classes:
        reason = "0 stands for the background" if low == 0 else f"the model has classes 1 to {classes - 1}"
        yield finding(
            mod.TARGET_RANGE,
            "labels",
            f"The labels of the boxes reach from {low} to {high}, and {reason}.",
            advice="Count the classes from 1, and make the model with one class more for the background.",
            evidence={"lowest": low, "highest": high, "classes": classes},
        )
