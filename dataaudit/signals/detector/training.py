"""Training of a head on the frozen maps of some images."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from dataaudit.signals.detector.network import Dense, Head
from dataaudit.signals.detector.pictures import Batch, Pictures, level_of

__all__ = ["Plan", "Targets", "fit", "generalized_iou", "targets"]

_SPREAD = 0.2
_FAINTEST = 0.1
_PLACED = 0.3
_BOX_WEIGHT = 2.0
_WARM_UP = 0.15
_LARGEST_STEP = 5.0
_SHUFFLE = 0.15
_EMPTY = 1e-6


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a head is trained.

    Attributes:
        epochs: how often each image is seen.
        batch: images at a time.
        rate: highest learning rate, of one cycle.
        decay: of the weights.
        memory: of the weights' moving average, which is what predicts.
        seed: of weights, order and mirroring.
        device: ``cpu``, ``cuda``, ...
    """

    epochs: int
    batch: int = 8
    rate: float = 3e-3
    decay: float = 1e-2
    memory: float = 0.98
    seed: int = 0
    device: str = "cpu"


@dataclass(frozen=True, kw_only=True)
class Targets:
    """What the cells of a batch should say.

    Attributes:
        classes: (b, cells, k) in [0, 1]: 1 in the middle of an object, less beside it.
        counted: (b, cells) weight of what is said about classes; 0 outside the picture and in ignored
            regions.
        boxes: (b, cells, 4) of the object that each cell is nearest to the middle of.
        placed: (b, cells) weight of what is said about its box.
    """

    classes: torch.Tensor
    counted: torch.Tensor
    boxes: torch.Tensor
    placed: torch.Tensor


def fit(
    head: Head,
    pictures: Pictures,
    numbers: Sequence[int],
    plan: Plan,
    progress: Callable[[], None] | None = None,
) -> Head:
    """Train a head.

    Args:
        head: changed in place.
        pictures: all images.
        numbers: those to learn from.
        plan: how.
        progress: called after each batch.

    Returns:
        The head with the moving average of its weights, in evaluation mode.
    """
    rng = np.random.default_rng(plan.seed)
    head = head.to(plan.device).train()
    optimizer = torch.optim.AdamW(head.parameters(), lr=plan.rate, weight_decay=plan.decay)
    n_steps = math.ceil(len(numbers) / plan.batch) * plan.epochs
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, plan.rate, total_steps=n_steps + 1, pct_start=_WARM_UP
    )
    average = {name: value.detach().clone() for name, value in head.state_dict().items()}
    step = 0
    for _ in range(plan.epochs):
        for chosen in _batches(pictures, numbers, plan.batch, rng):
            batch = pictures.batch(chosen, (rng.random(len(chosen)) < 0.5).tolist()).to(plan.device)
            value = _loss(head(batch.maps), batch)
            optimizer.zero_grad()
            value.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(head.parameters(), _LARGEST_STEP)
            optimizer.step()
            schedule.step()
            step += 1
            _remember(average, head, min(plan.memory, step / (step + 10)))
            if progress is not None:
                progress()
    head.load_state_dict(average)
    return head.eval()


def _batches(
    pictures: Pictures, numbers: Sequence[int], size: int, rng: np.random.Generator
) -> list[list[int]]:
    """Images of about the same aspect go together, so that little is filled up."""
    aspects = np.array([np.divide(*pictures.size(number)) for number in numbers])
    order = np.argsort(np.log(aspects) + rng.uniform(-_SHUFFLE, _SHUFFLE, len(aspects)), kind="stable")
    batches = [[numbers[row] for row in order[start : start + size]] for start in range(0, len(order), size)]
    return [batches[place] for place in rng.permutation(len(batches))]


@torch.no_grad()
def _remember(average: dict[str, torch.Tensor], head: Head, memory: float) -> None:
    for name, value in head.state_dict().items():
        average[name].lerp_(value, 1 - memory)


def targets(centres: torch.Tensor, strides: torch.Tensor, batch: Batch, n_classes: int) -> Targets:
    """What cells should say: how near they are to the middle of an object, in units of its sides.

    Args:
        centres: (cells, 2) middles of the cells in network pixels.
        strides: (cells,) of the cells; an object is learnt at one stride.
        batch: the objects.
        n_classes: k.
    """
    boxes, exist = batch.boxes, batch.exist
    middles = (boxes[..., :2] + boxes[..., 2:]) / 2
    sides = (boxes[..., 2:] - boxes[..., :2]).clamp_min(1)
    apart = centres - middles[:, :, None]
    inside = (centres[None, :, 1] < batch.sizes[:, :1]) & (centres[None, :, 0] < batch.sizes[:, 1:])
    levels = level_of(sides.prod(-1).sqrt(), sorted(set(strides.tolist())))
    own = inside[:, None] & (strides == levels[:, :, None])
    near = torch.exp(-(apart / sides[:, :, None]).square().sum(-1) / (2 * _SPREAD**2))
    # However small an object is, one cell stands for it
    nearest = apart.square().sum(-1).masked_fill(~own, torch.inf).argmin(-1, keepdim=True)
    near = near.scatter(2, nearest, 1.0) * (exist[:, :, None] & own)
    classes = near.new_zeros(len(boxes), len(centres), n_classes)
    index = batch.classes[:, None].expand(-1, len(centres), -1)
    classes = classes.scatter_reduce(2, index, near.transpose(1, 2), "amax")
    strength, owner = near.max(1)
    placed = torch.where(strength > _PLACED, strength, 0.0)
    weight = torch.where(placed > 0, batch.weights.gather(1, owner), 1.0)
    ignored = _within(centres, batch.ignored) & (placed == 0)
    return Targets(
        classes=torch.where(classes > _FAINTEST, classes, 0.0),
        counted=weight * (inside & ~ignored),
        boxes=boxes.gather(1, owner[..., None].expand(-1, -1, 4)),
        placed=placed * weight,
    )


def _within(centres: torch.Tensor, regions: torch.Tensor) -> torch.Tensor:
    """(b, cells) whether each lies in a region."""
    low, high = regions[:, :, None, :2], regions[:, :, None, 2:]
    return ((centres > low) & (centres < high)).all(-1).any(1)


def _loss(said: Dense, batch: Batch) -> torch.Tensor:
    """Focal loss of the classes and generalised IoU of the boxes.

    Reference: Li et al., "Generalized Focal Loss", NeurIPS 2020, its quality focal loss, with the nearness to
    the middle as quality; Zhou et al., "Objects as Points", 2019, for the heat maps; Rezatofighi et al.,
    "Generalized Intersection over Union", CVPR 2019.
    """
    with torch.no_grad():
        wanted = targets(said.centres, said.strides, batch, said.logits.shape[2])
    n = wanted.placed.sum().clamp_min(1)
    entropy = functional.binary_cross_entropy_with_logits(said.logits, wanted.classes, reduction="none")
    focus = (wanted.classes - said.logits.sigmoid()).square()
    of_classes = (entropy * focus * wanted.counted[..., None]).sum() / n
    of_boxes = ((1 - generalized_iou(said.boxes, wanted.boxes)) * wanted.placed).sum() / n
    return of_classes + _BOX_WEIGHT * of_boxes


def generalized_iou(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """IoU less the share of the smallest box around both that neither covers.

    Args:
        a: (..., 4) corners, none inverted.
        b: the same.

    Returns:
        (...,) in [-1, 1].
    """
    shared = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp_min(0)
    around = torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])
    areas = [(each[..., 2:] - each[..., :2]).prod(-1) for each in (a, b)]
    both, hull = shared.prod(-1), around.prod(-1)
    union = areas[0] + areas[1] - both
    return both / union.clamp_min(_EMPTY) - (hull - union) / hull.clamp_min(_EMPTY)
