"""From what the cells say to detections."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torchvision.ops import batched_nms, box_iou

from dataaudit.signals.detector.network import Head
from dataaudit.signals.detector.pictures import Pictures

__all__ = ["Found", "decoded", "detect"]

_CANDIDATES = 400
_MOST = 100
_LEAST = 0.005
_SAME = 0.8
_VOTING = 0.6
_SOFTNESS = 0.3


@dataclass(frozen=True, kw_only=True)
class Found:
    """Detections in one image, most confident first.

    Attributes:
        boxes: (n, 4) float64 corners in network pixels, inside the picture.
        scores: (n,) float64 in [0, 1].
        classes: (n,) int64 numbers.
    """

    boxes: np.ndarray[Any, np.dtype[np.float64]]
    scores: np.ndarray[Any, np.dtype[np.float64]]
    classes: np.ndarray[Any, np.dtype[np.int64]]


@torch.inference_mode()
def detect(heads: Sequence[Head], pictures: Pictures, number: int, device: str = "cpu") -> Found:
    """What heads find in an image together, as it is and mirrored.

    Args:
        heads: their scores' log-odds and boxes are averaged, cell by cell.
        pictures: all images.
        number: of the image.
        device: where the heads are.
    """
    height, width = pictures.size(number)
    logits, boxes = [], []
    for mirror in (False, True):
        batch = pictures.batch([number], [mirror]).to(device)
        for head in heads:
            said = head(batch.maps)
            own, corners = said.logits[0], said.boxes[0]
            if mirror:
                order = _mirrored_cells(height, width, head.strides).to(device)
                own, corners = own[order], corners[order]
                corners = torch.stack(
                    [width - corners[:, 2], corners[:, 1], width - corners[:, 0], corners[:, 3]], dim=1
                )
            logits.append(own)
            boxes.append(corners)
    limits = torch.tensor([width, height, width, height], device=device)
    return decoded(
        torch.stack(logits).mean(0).sigmoid().cpu(),
        torch.minimum(torch.stack(boxes).mean(0).clamp_min(0), limits).cpu(),
    )


def _mirrored_cells(height: int, width: int, strides: Sequence[int]) -> torch.Tensor:
    """Position of each cell's counterpart in the mirrored picture."""
    parts, start = [], 0
    for stride in strides:
        rows, columns = height // stride, width // stride
        cells = torch.arange(start, start + rows * columns).reshape(rows, columns)
        parts.append(cells.flip(1).flatten())
        start += rows * columns
    return torch.cat(parts)


def decoded(scores: torch.Tensor, boxes: torch.Tensor) -> Found:
    """(cells, k) scores and (cells, 4) boxes in network pixels -> detections."""
    best, place = scores.flatten().topk(min(_CANDIDATES, scores.numel()))
    best, place = best[best > _LEAST], place[best > _LEAST]
    classes, corners = place % scores.shape[1], boxes[place // scores.shape[1]]
    kept = batched_nms(corners, best, classes, _SAME)
    voted = _voted(corners[kept], classes[kept], corners, best, classes)
    order, faded = _faded(voted, best[kept], classes[kept])
    return Found(
        boxes=voted[order].double().numpy(),
        scores=faded.double().numpy(),
        classes=classes[kept][order].numpy(),
    )


def _voted(
    boxes: torch.Tensor, own: torch.Tensor, corners: torch.Tensor, scores: torch.Tensor, classes: torch.Tensor
) -> torch.Tensor:
    """The mean of all candidates that overlap a box, by score; it lies closer than the best one.

    Reference: Gidaris and Komodakis, "Object Detection via a Multi-Region and Semantic Segmentation-Aware CNN
    Model", ICCV 2015.
    """
    weights = (box_iou(boxes, corners) > _VOTING) * (own[:, None] == classes) * scores
    # A box without area overlaps nothing, not even itself
    total = weights.sum(1, keepdim=True)
    return torch.where(total > 0, weights @ corners / total.clamp_min(1e-12), boxes)


def _faded(
    boxes: torch.Tensor, scores: torch.Tensor, classes: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Order and scores of detections, when each fades by how much it overlaps those before it.

    Reference: Bodla et al., "Soft-NMS: Improving Object Detection With One Line of Code", ICCV 2017.
    """
    overlap = box_iou(boxes, boxes) * (classes[:, None] == classes)
    fading = torch.exp(-overlap.square() / _SOFTNESS)
    left, order, faded = scores.clone(), [], []
    for _ in range(min(len(scores), _MOST)):
        best = int(left.argmax())
        score = float(left[best])
        if score < _LEAST:
            break
        order.append(best)
        faded.append(score)
        left *= fading[best]
        left[best] = -1.0
    return torch.tensor(order, dtype=torch.int64), torch.tensor(faded, dtype=torch.float64)
