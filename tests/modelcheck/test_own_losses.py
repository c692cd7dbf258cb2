"""Losses of one's own are known by how they behave: logits or probabilities, which boxes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the name that everyone knows

from dataaudit.errors import InputError
from dataaudit.modelcheck import loss_inputs

N, C, SIZE = 12, 5, 32
torch.manual_seed(0)


class Net(nn.Module):
    """A linear classifier of images and what comes after it."""

    def __init__(self, after: Callable[[torch.Tensor], torch.Tensor] = lambda x: x, out: int = C) -> None:
        super().__init__()
        self.head = nn.Linear(3 * SIZE * SIZE, out)
        self.after = after

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.after(self.head(x.flatten(1)))


class Mask(nn.Module):
    """A class for each pixel."""

    def __init__(self, after: Callable[[torch.Tensor], torch.Tensor] = lambda x: x, out: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, out, 3, padding=1)
        self.after = after

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.after(self.conv(x))


X = torch.rand(N, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
Y = torch.arange(N) % C
HOT = F.one_hot(Y, C).float()
MASKS = (torch.rand(N, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(1)) > 0.7).float()
CORNERS = torch.tensor([[4.0, 6.0, 20.0, 28.0], [10.0, 2.0, 30.0, 16.0], [14.0, 12.0, 26.0, 30.0]]).repeat(
    4, 1
)
XYWH = torch.cat([CORNERS[:, :2], CORNERS[:, 2:] - CORNERS[:, :2]], 1)
CXCYWH = torch.cat([(CORNERS[:, :2] + CORNERS[:, 2:]) / 2, CORNERS[:, 2:] - CORNERS[:, :2]], 1)
RELATIVE = CORNERS / SIZE


@dataclass
class Packed:
    logits: torch.Tensor


def focal(p: torch.Tensor, t: torch.Tensor, gamma: float = 2.0) -> torch.Tensor:
    logp = torch.log_softmax(p, 1)
    right = logp.gather(1, t[:, None]).squeeze(1)
    return (-((1 - right.exp()) ** gamma) * right).mean()


def focal_of_cross_entropy(p: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    ce = F.cross_entropy(p, t, reduction="none")
    return ((1 - torch.exp(-ce)) ** 2 * ce).mean()


def sigmoid_focal(p: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    q = torch.sigmoid(p)
    return -(t * (1 - q) ** 2 * (q + 1e-8).log() + (1 - t) * q**2 * (1 - q + 1e-8).log()).mean()


def log_of_probabilities(p: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    return -torch.log(p.clamp(1e-7, 1.0)).gather(1, t[:, None]).mean()


def clipped_bce(p: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    return F.binary_cross_entropy(p.clamp(1e-6, 1 - 1e-6), t)


def own_bce(p: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    p = torch.clip(p, 1e-6, 1 - 1e-6)
    return -(t * p.log() + (1 - t) * (1 - p).log()).mean()


def dice(p: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    p, t = p.flatten(1), t.flatten(1)
    return 1 - ((2 * (p * t).sum(1) + 1) / (p.sum(1) + t.sum(1) + 1)).mean()


def dice_of_logits(p: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    return dice(torch.sigmoid(p), t)


def smoothed(p: torch.Tensor, t: torch.Tensor, eps: float = 0.1) -> torch.Tensor:
    soft = torch.full_like(p, eps / p.shape[1]).scatter_(1, t[:, None], 1 - eps + eps / p.shape[1])
    return -(soft * F.log_softmax(p, 1)).sum(1).mean()


def own_nll(p: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    return -p[torch.arange(len(t)), t].mean()


def _iou(p: torch.Tensor, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    low, high = torch.max(p[:, :2], t[:, :2]), torch.min(p[:, 2:], t[:, 2:])
    common = (high - low).clamp(min=0).prod(1)
    union = (p[:, 2:] - p[:, :2]).prod(1) + (t[:, 2:] - t[:, :2]).prod(1) - common
    return common / (union + 1e-7), union


def iou(p: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    return (1 - _iou(p, t)[0]).mean()


def giou(p: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    found, union = _iou(p, t)
    hull = (torch.max(p[:, 2:], t[:, 2:]) - torch.min(p[:, :2], t[:, :2])).prod(1)
    return (1 - found + (hull - union) / (hull + 1e-7)).mean()


def from_centre(b: torch.Tensor) -> torch.Tensor:
    return torch.cat([b[:, :2] - b[:, 2:] / 2, b[:, :2] + b[:, 2:] / 2], 1)


def from_size(b: torch.Tensor) -> torch.Tensor:
    return torch.cat([b[:, :2], b[:, :2] + b[:, 2:]], 1)


def iou_of_centres(p: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    return giou(from_centre(p), from_centre(t))


def iou_of_sizes(p: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    return iou(from_size(p), from_size(t))


def pairwise(p: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    return 1 - torch.diag(torchvision.ops.box_iou(p, t)).mean()


def own_l1(p: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    return (p - t).abs().mean()


def mixed(p: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    return own_l1(p, t) + giou(p, t)


def corners(scale: float) -> Net:
    """Corners whatever the weights are, up to `scale`."""

    def after(x: torch.Tensor) -> torch.Tensor:
        x = x.sigmoid()
        low = x[:, :2] * 0.5
        return torch.cat([low, low + x[:, 2:] * 0.5], 1) * scale

    return Net(after, out=4)


def sizes(scale: float) -> Net:
    """Centre or corner, and size, up to `scale`."""
    return Net(lambda x: x.sigmoid() * scale, out=4)


PLANTED: dict[str, tuple[nn.Module, Any, torch.Tensor, str]] = {
    "softmax, focal": (Net(lambda x: x.softmax(1)), focal, Y, "MOD020"),
    "softmax, focal of cross-entropy": (Net(lambda x: x.softmax(1)), focal_of_cross_entropy, Y, "MOD020"),
    "sigmoid, focal": (Net(torch.sigmoid), focal, Y, "MOD020"),
    "sigmoid, sigmoid focal": (Net(torch.sigmoid), sigmoid_focal, HOT, "MOD020"),
    "softmax, smoothed": (Net(lambda x: x.softmax(1)), smoothed, Y, "MOD020"),
    "softmax, smoothed, torch's": (
        Net(lambda x: x.softmax(1)), nn.CrossEntropyLoss(label_smoothing=0.1), Y, "MOD020"),
    "sigmoid, dice of logits": (Mask(torch.sigmoid), dice_of_logits, MASKS, "MOD020"),
    "softmax, a lambda": (
        Net(lambda x: x.softmax(1)), lambda p, t: -(HOT * p.log_softmax(1)).sum(1).mean(), Y, "MOD020"),
    "softmax, log-softmax, nll": (
        Net(lambda x: x.softmax(1)), lambda p, t: F.nll_loss(F.log_softmax(p, 1), t), Y, "MOD020"),
    "softmax, multi-margin of softmax": (
        Net(lambda x: x.softmax(1)), lambda p, t: F.nll_loss(p.softmax(1).log(), t), Y, "MOD020"),
    "logits, log": (Net(), log_of_probabilities, Y, "MOD021"),
    "logits, clipped bce": (Net(), clipped_bce, HOT, "MOD021"),
    "logits, own bce": (Net(), own_bce, HOT, "MOD021"),
    "logits, own bce of masks": (Mask(), own_bce, MASKS, "MOD021"),
    "logits, dice": (Mask(), dice, MASKS, "MOD021"),
    "logits, own nll": (Net(), own_nll, Y, "MOD021"),
    "softmax, own nll": (Net(lambda x: x.softmax(1)), own_nll, Y, "MOD021"),
    "xywh, iou": (corners(SIZE), iou, XYWH, "MOD028"),
    "xywh, giou": (corners(SIZE), giou, XYWH, "MOD028"),
    "cxcywh, giou": (corners(SIZE), giou, CXCYWH, "MOD028"),
    "xywh, giou of torchvision": (
        corners(SIZE), lambda p, t: torchvision.ops.generalized_box_iou_loss(p, t).mean(), XYWH, "MOD028"),
    "xywh, pairs": (corners(SIZE), pairwise, XYWH, "MOD028"),
    "corners, iou of sizes": (sizes(SIZE), iou_of_sizes, CORNERS, "MOD028"),
    "corners, iou of centres": (sizes(SIZE), iou_of_centres, CORNERS, "MOD028"),
    "pixels, relative iou": (corners(1), iou, CORNERS, "MOD029"),
    "pixels, relative giou": (corners(1), giou, CORNERS, "MOD029"),
    "relative, giou in pixels": (corners(SIZE), giou, RELATIVE, "MOD029"),
    "pixels, own l1": (sizes(1), own_l1, CORNERS, "MOD029"),
    "pixels, l1 and giou": (corners(1), mixed, CORNERS, "MOD029"),
    "pixels, pairs": (corners(1), pairwise, CORNERS, "MOD029"),
}  # fmt: skip


@pytest.mark.parametrize("name", PLANTED)
def test_the_cause_is_named_first(name: str) -> None:
    model, loss, y, code = PLANTED[name]
    found = loss_inputs(model, loss, X, y)
    assert found, "nothing found"
    assert found[0].code == code, [item.message for item in found]


def supervised_contrastive(p: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    p = F.normalize(p, dim=1)
    same = (t[:, None] == t[None]).float().fill_diagonal_(0)
    logits = (p @ p.T / 0.1).masked_fill(torch.eye(len(p), dtype=torch.bool), -1e9)
    return -(same * logits.log_softmax(1)).sum() / same.sum()


def cosine_contrastive(p: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    cos = F.cosine_similarity(p[:, None], p[None], dim=-1)
    same = (t[:, None] == t[None]).float()
    return (same * (1 - cos) + (1 - same) * (cos - 0.3).clamp(min=0)).mean()


def triplet(p: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    far = torch.cdist(p, p)
    same = t[:, None] == t[None]
    return ((far * same).amax(1) - far.masked_fill(same, 1e9).amin(1) + 0.2).clamp(min=0).mean()


def arc(p: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(30 * (p.tanh() - 0.35 * F.one_hot(t, C)), t)


def arc_cosine(p: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(30 * torch.cos(torch.acos(p) + 0.5 * F.one_hot(t, C)), t)


def hinge(p: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    return (1 - (2 * t - 1) * p).clamp(min=0).mean()


HEALTHY: dict[str, tuple[nn.Module, Any, torch.Tensor]] = {
    "focal": (Net(), focal, Y),
    "focal of cross-entropy": (Net(), focal_of_cross_entropy, Y),
    "sigmoid focal": (Net(), sigmoid_focal, HOT),
    "smoothed": (Net(), smoothed, Y),
    "smoothed, torch's": (Net(), nn.CrossEntropyLoss(label_smoothing=0.2), Y),
    "poly": (Net(), lambda p, t: F.cross_entropy(p, t) + (1 - p.softmax(1).gather(1, t[:, None])).mean(), Y),
    "log of softmax": (Net(lambda x: x.softmax(1)), log_of_probabilities, Y),
    "clipped bce": (Net(torch.sigmoid), clipped_bce, HOT),
    "own bce": (Net(torch.sigmoid), own_bce, HOT),
    "own bce of masks": (Mask(torch.sigmoid), own_bce, MASKS),
    "dice": (Mask(torch.sigmoid), dice, MASKS),
    "dice of logits": (Mask(), dice_of_logits, MASKS),
    "bce and dice": (
        Mask(), lambda p, t: F.binary_cross_entropy_with_logits(p, t) + dice_of_logits(p, t), MASKS),
    "own nll": (Net(lambda x: x.log_softmax(1)), own_nll, Y),
    "brier": (Net(lambda x: x.softmax(1)), lambda p, t: (p - HOT).square().sum(1).mean(), Y),
    "squares of logits": (Net(), lambda p, t: (p - HOT).square().mean(), Y),
    "regression": (Net(), lambda p, t: (p - t).abs().mean(), HOT * 3),
    "regression of 0 to 1": (Net(), lambda p, t: (p - t).square().mean(), torch.rand(N, C)),
    "hinge": (Net(), hinge, HOT),
    "multi-margin": (Net(), nn.MultiMarginLoss(), Y),
    "multi-label soft margin": (Net(), nn.MultiLabelSoftMarginLoss(), HOT),
    "contrastive": (Net(), supervised_contrastive, Y),
    "cosine": (Net(), cosine_contrastive, Y),
    "triplet": (Net(), triplet, Y),
    "arc": (Net(), arc, Y),
    "arc cosine": (Net(lambda x: x.tanh() * 0.99), arc_cosine, Y),
    "sigmoid, squares": (Net(torch.sigmoid), lambda p, t: (p - t).square().mean(), HOT),
    "soft targets": (
        Net(), lambda p, t: F.kl_div(p.log_softmax(1), t, reduction="batchmean"), HOT * 0.8 + 0.04),
    "log targets": (
        Net(), lambda p, t: F.kl_div(p.log_softmax(1), t, log_target=True, reduction="batchmean"),
        torch.randn(N, C).log_softmax(1)),
    "distilled": (
        Net(), lambda p, t: 4 * F.kl_div((p / 2).log_softmax(1), (t / 2).softmax(1), reduction="batchmean"),
        torch.randn(N, C)),
    "iou": (corners(SIZE), iou, CORNERS),
    "giou": (corners(SIZE), giou, CORNERS),
    "giou, relative": (corners(1), giou, RELATIVE),
    "iou of sizes": (sizes(SIZE), iou_of_sizes, XYWH),
    "iou of centres": (sizes(SIZE), iou_of_centres, CXCYWH),
    "iou of centres, relative": (sizes(1), iou_of_centres, CXCYWH / SIZE),
    "pairs": (corners(SIZE), pairwise, CORNERS),
    "own l1": (Net(out=4), own_l1, CORNERS),
    "own l1, relative": (sizes(1), own_l1, RELATIVE),
    "l1 and giou": (corners(SIZE), mixed, CORNERS),
    "offsets of four": (Net(out=4), own_l1, torch.randn(N, 4)),
}  # fmt: skip


@pytest.mark.parametrize("name", HEALTHY)
def test_a_right_loss_gives_no_finding(name: str) -> None:
    model, loss, y = HEALTHY[name]
    assert [item.message for item in loss_inputs(model, loss, X, y)] == []


def test_a_step_is_looked_at_likewise() -> None:
    def step(model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        return focal(model(batch[0]), batch[1])

    assert [one.code for one in loss_inputs(Net(lambda x: x.softmax(1)), None, X, Y, step=step)] == ["MOD020"]
    assert loss_inputs(Net(), None, X, Y, step=step) == []


def pixels(p: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(p.reshape(-1, C), t.reshape(-1))


def moved_pixels(p: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(p.permute(0, 2, 3, 1).reshape(-1, C), t.reshape(-1))


def test_classes_mixed_with_places_by_a_reshape_in_the_loss_are_found() -> None:
    index = (MASKS[:, 0] * 3).long()
    found = loss_inputs(Mask(out=C), pixels, X, index)
    assert [one.code for one in found] == ["MOD022"]
    assert found[0].evidence["dimensions"] == [1, 2, 3]
    assert loss_inputs(Mask(out=C), moved_pixels, X, index) == []


def test_a_model_compared_with_itself_can_collapse() -> None:
    def step(model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        return F.mse_loss(model(batch[0]), model(batch[0].flip(-1)))

    def detached(model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        return F.mse_loss(model(batch[0]), model(batch[0].flip(-1)).detach())

    def besides(model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        output = model(batch[0])
        return F.mse_loss(output, model(batch[0].flip(-1))) + F.cross_entropy(output, batch[1])

    assert [one.code for one in loss_inputs(Net(), None, X, Y, step=step)] == ["MOD024"]
    assert loss_inputs(Net(), None, X, Y, step=detached) == []
    assert loss_inputs(Net(), None, X, Y, step=besides) == []


def test_outputs_in_dicts_tuples_and_dataclasses_are_made_up_likewise() -> None:
    for pack, unpack in (
        (lambda x: {"logits": x}, lambda o: o["logits"]),
        (lambda x: (x,), lambda o: o[0]),
        (Packed, lambda o: o.logits),
    ):
        model = Net(lambda x, pack=pack: pack(x.softmax(1)))  # type: ignore[misc]
        found = loss_inputs(model, lambda o, t, unpack=unpack: focal(unpack(o), t), X, Y)
        assert [one.code for one in found] == ["MOD020"]


def test_a_loss_with_a_default_is_taken_and_one_with_another_argument_is_refused() -> None:
    def weighted(p: torch.Tensor, t: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(p, t, weight)

    with pytest.raises(InputError, match="weighted takes weight besides prediction and target") as raised:
        loss_inputs(Net(), weighted, X, Y)
    assert "step" in str(raised.value)
