"""Where the object of a box seems to be, and how well the box fits it: learnt from boxes that were moved.

Each labeled box is moved and resized at random many times; a small network learns from what the moved box
sees how to get back, and how much of the object it covers. It is trained in folds of images, and asked about
the boxes of the images that it didn't see.

Reference: Girshick et al., "Rich feature hierarchies for accurate object detection and semantic
segmentation", CVPR 2014, for the regression of boxes; Jiang et al., "Acquisition of Localization Confidence
for Accurate Object Detection", ECCV 2018, for learning the IoU from moved boxes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from dataaudit.signals.crops.dense import Dense
from dataaudit.signals.crops.describing import Given, describe

__all__ = ["Head", "Judged", "fit_heads", "judge", "one_thread"]

_ROIS = 14_000
_FEWEST_COPIES, _MOST_COPIES = 6, 48
_ELSEWHERE = 1 / 3
"""Boxes at random places, per moved box."""
_EPOCHS = 6
_BATCH = 256
_WIDTH = 96
_RATE, _DECAY = 2e-3, 0.05
_LEAST_IOU = 0.15
"""From which a moved box on it is still told where its object is."""
_STARTS = 8
_STEPS = 3
_AT_A_TIME = 2048
_MIRROR = (-1.0, 1.0, 1.0, 1.0)


class Head(nn.Module):
    """A description -> how to move the box (4 numbers) and the log odds of its IoU.

    Args:
        mean: (d,) of the descriptions.
        deviation: (d,) of them.
    """

    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(self, mean: torch.Tensor, deviation: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("deviation", deviation)
        self.layers = nn.Sequential(
            nn.Linear(len(mean), _WIDTH), nn.GELU(), nn.Dropout(0.1),
            nn.Linear(_WIDTH, _WIDTH), nn.GELU(), nn.Dropout(0.1), nn.Linear(_WIDTH, 5),
        )  # fmt: skip

    def forward(self, described: torch.Tensor) -> torch.Tensor:
        """(n, d) -> (n, 5)."""
        result: torch.Tensor = self.layers((described - self.mean) / self.deviation)
        return result

    def both(self, upright: torch.Tensor, mirrored: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(n, 4) moves and (n,) IoU, the mean over the image and its mirror image."""
        one, other = self(upright), self(mirrored)
        moves = (one[:, :4] + other[:, :4] * torch.tensor(_MIRROR)) / 2
        return moves, ((one[:, 4] + other[:, 4]) / 2).sigmoid()


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What is thought of boxes.

    Attributes:
        corners: (n, 4) network pixels: where the object seems to be.
        fit: (n,) expected IoU of the box with an object that no other box is for.
        fit_there: (n,) the same of the box at `corners`.
        spread: (n,) 1 - mean IoU of the places that several starts led to.
    """

    corners: torch.Tensor
    fit: torch.Tensor
    fit_there: torch.Tensor
    spread: torch.Tensor


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one thread: these networks are too small to be shared by several."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def fit_heads(dense: Dense, given: Given, sizes: torch.Tensor, folds: torch.Tensor) -> list[Head]:
    """A head for each fold, trained on the boxes of the others.

    Args:
        dense: answers for the cells.
        given: the labeled boxes.
        sizes: (images, 2) network pixels.
        folds: (images,) number of the fold of each image.
    """
    random = torch.Generator().manual_seed(0)
    n = len(given)
    copies = int(min(max(_ROIS // n, _FEWEST_COPIES), _MOST_COPIES))
    rows = torch.randperm(n, generator=random)[: _ROIS // copies].sort().values
    moved, origins = (
        moved_boxes(given, rows.repeat_interleave(copies), random),
        rows.repeat_interleave(copies),
    )
    moved = _inside(moved, sizes[given.images[origins]])
    images, others = random_boxes(given, sizes, int(len(moved) * _ELSEWHERE), random)
    sources = rows[torch.randint(len(rows), (len(others),), generator=random)]
    boxes = torch.cat([moved, others])
    truth = given.corners[origins]
    described = describe(
        dense, given, torch.cat([given.images[origins], images]), boxes,
        torch.cat([given.channels[origins], given.channels[sources]]),
        torch.cat([origins, torch.full((len(others),), -1)]),
    )  # fmt: skip
    overlap = torch.cat([iou(moved, truth), torch.zeros(len(others))])
    targets = torch.cat([_moves(moved, truth).clamp(-2, 2), torch.zeros(len(others), 4)])
    where = folds[torch.cat([given.images[origins], images])]
    return [
        _fit(*(each[where != fold] for each in (*described, targets, overlap)), seed=fold)
        for fold in range(int(folds.max()) + 1)
    ]


def _fit(
    upright: torch.Tensor, mirrored: torch.Tensor, targets: torch.Tensor, overlap: torch.Tensor, *, seed: int
) -> Head:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = Head(upright.mean(0), upright.std(0) + 0.05)
        optimizer = torch.optim.AdamW(head.parameters(), lr=_RATE, weight_decay=_DECAY)
        n_steps = _EPOCHS * -(-len(upright) // _BATCH)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, total_steps=n_steps, pct_start=0.1)
        mirror = torch.tensor(_MIRROR)
        learns = (overlap > _LEAST_IOU).float()
        for _ in range(_EPOCHS):
            order = torch.randperm(len(upright))
            for start in range(0, len(order), _BATCH):
                rows = order[start : start + _BATCH]
                turned = (torch.rand(len(rows)) < 0.5)[:, None]
                said = head(torch.where(turned, mirrored[rows], upright[rows]))
                target = torch.where(turned, targets[rows] * mirror, targets[rows])
                # People's boxes are loose, and some are the errors that are looked for: none may pull hard.
                off = functional.smooth_l1_loss(said[:, :4], target, beta=0.05, reduction="none").sum(1)
                loss = (off * learns[rows]).sum() / learns[rows].sum().clamp_min(1)
                loss = loss + functional.binary_cross_entropy_with_logits(said[:, 4], overlap[rows])
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
    return head.eval()


@torch.inference_mode()
def judge(
    dense: Dense,
    given: Given,
    heads: list[Head],
    folds: torch.Tensor,
    sizes: torch.Tensor,
    images: torch.Tensor,
    boxes: torch.Tensor,
    channels: torch.Tensor,
    origins: torch.Tensor,
) -> Judged:
    """Judge boxes by the heads that didn't see their images.

    Args:
        dense: answers for the cells.
        given: the labeled boxes.
        heads: one a fold.
        folds: (images,) fold of each image.
        sizes: (images, 2) network pixels.
        images: (n,) image of each box to judge.
        boxes: (n, 4) corners in network pixels.
        channels: (n,) channel of the class of each.
        origins: (n,) the labeled box that each stands for; -1 for none.
    """
    n = len(boxes)
    result = Judged(
        corners=torch.zeros(n, 4), fit=torch.zeros(n), fit_there=torch.zeros(n), spread=torch.zeros(n)
    )
    boxes = _inside(boxes, sizes[images])
    for fold, head in enumerate(heads):
        of_fold = (folds[images] == fold).nonzero()[:, 0]
        for start in range(0, len(of_fold), _AT_A_TIME):
            rows = of_fold[start : start + _AT_A_TIME]
            part = _judge(dense, given, head, sizes, images[rows], boxes[rows], channels[rows], origins[rows])
            for name in ("corners", "fit", "fit_there", "spread"):
                getattr(result, name)[rows] = getattr(part, name)
    return result


def _judge(
    dense: Dense, given: Given, head: Head, sizes: torch.Tensor, images: torch.Tensor, boxes: torch.Tensor,
    channels: torch.Tensor, origins: torch.Tensor,
) -> Judged:  # fmt: skip
    n = len(boxes)
    # Each box starts at itself and at the same few places around it, so that no box depends on the others.
    shifts, scales = _amounts(_STARTS, torch.Generator().manual_seed(1))
    shifts[0], scales[0] = 0, 0
    starts = _changed(boxes.repeat_interleave(_STARTS, 0), shifts.repeat(n, 1), scales.repeat(n, 1))
    images, channels, origins = (each.repeat_interleave(_STARTS) for each in (images, channels, origins))
    limits = sizes[images]
    places = _inside(starts, limits)
    fit = torch.zeros(n)
    for step in range(_STEPS + 1):
        moves, good = head.both(*describe(dense, given, images, places, channels, origins))
        if step == 0:
            fit = good.reshape(n, _STARTS)[:, 0]
        if step < _STEPS:
            places = _inside(_moved(places, moves), limits)
    good, places = good.reshape(n, _STARTS), places.reshape(n, _STARTS, 4)
    weight = good**4 / (good**4).sum(1, keepdim=True).clamp_min(1e-12)
    corners = (places * weight[..., None]).sum(1)
    apart = iou(places, corners[:, None].expand_as(places))
    return Judged(
        corners=corners,
        fit=fit,
        fit_there=(good * weight).sum(1),
        spread=1 - (apart * weight).sum(1),
    )


def moved_boxes(given: Given, rows: torch.Tensor, random: torch.Generator) -> torch.Tensor:
    """(n, 4): the labeled boxes at `rows`, moved and resized, some hardly and some by more than half."""
    return _changed(given.corners[rows], *_amounts(len(rows), random))


def _amounts(n: int, random: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """(n, 2) shifts in sides of the box, and (n, 2) logarithms of the change of its sides."""
    strength = torch.rand(n, 1, generator=random)
    shifts = torch.randn(n, 2, generator=random) * 0.3 * strength
    scales = torch.randn(n, 2, generator=random) * 0.35 + torch.randn(n, 1, generator=random) * 0.3
    return shifts, (scales * strength).clamp(-1, 1)


def random_boxes(
    given: Given, sizes: torch.Tensor, n: int, random: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Images (n,) and boxes (n, 4) of the sizes that boxes have here, anywhere but on a labeled object."""
    sources = torch.randint(len(given), (n,), generator=random)
    images = given.images[torch.randint(len(given), (n,), generator=random)]
    part = (given.corners[sources, 2:] - given.corners[sources, :2]) / sizes[given.images[sources]]
    sides = part * sizes[images] * (torch.randn(n, 1, generator=random) * 0.3).exp()
    sides = torch.minimum(sides, sizes[images] * 0.95)
    corner = torch.rand(n, 2, generator=random) * (sizes[images] - sides)
    boxes = _inside(torch.cat([corner, corner + sides], 1), sizes[images])
    elsewhere = _highest_iou(given, images, boxes) < 0.3
    return images[elsewhere], boxes[elsewhere]


def _highest_iou(given: Given, images: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    first = torch.searchsorted(given.images, images)
    n_there = torch.searchsorted(given.images, images, right=True) - first
    highest = torch.zeros(len(boxes))
    for number in range(int(n_there.max()) if len(boxes) else 0):
        rows = (n_there > number).nonzero()[:, 0]
        highest[rows] = torch.maximum(highest[rows], iou(boxes[rows], given.corners[first[rows] + number]))
    return highest


def iou(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """(..., 4) corners -> (...,) intersection over union."""
    shared = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp_min(0)
    inner = shared.prod(-1)
    areas = (a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1)
    return inner / (areas - inner).clamp_min(1e-6)


def _moves(boxes: torch.Tensor, to: torch.Tensor) -> torch.Tensor:
    sides, aim = boxes[:, 2:] - boxes[:, :2], to[:, 2:] - to[:, :2]
    middles = (to[:, :2] + to[:, 2:] - boxes[:, :2] - boxes[:, 2:]) / 2
    return torch.cat([middles / sides, torch.log(aim / sides)], 1)


def _moved(boxes: torch.Tensor, moves: torch.Tensor) -> torch.Tensor:
    return _changed(boxes, moves[:, :2], moves[:, 2:].clamp(-1.5, 1.5))


def _changed(boxes: torch.Tensor, shifts: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    sides = boxes[:, 2:] - boxes[:, :2]
    middle, half = (boxes[:, :2] + boxes[:, 2:]) / 2 + shifts * sides, sides * scales.exp() / 2
    return torch.cat([middle - half, middle + half], 1)


def _inside(boxes: torch.Tensor, sizes: torch.Tensor) -> torch.Tensor:
    """The boxes within their images, a network pixel wide and high at least."""
    low = torch.minimum(boxes[:, :2].clamp_min(0), sizes - 1)
    high = torch.maximum(torch.minimum(boxes[:, 2:], sizes), low + 1)
    return torch.cat([low, high], 1)
