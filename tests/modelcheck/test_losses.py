"""A loss that isn't given what it expects is found, with the cause first; a right one gives no finding."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the name that everyone knows
from torchvision.models import detection

from dataaudit.errors import InputError
from dataaudit.modelcheck import loss_inputs

N, C = 12, 5
torch.manual_seed(0)


class Net(nn.Module):
    """A linear classifier and what comes after it."""

    def __init__(self, after: Callable[[torch.Tensor], torch.Tensor] = lambda x: x, out: int = C) -> None:
        super().__init__()
        self.head = nn.Linear(8, out)
        self.after = after

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.after(self.head(x))


class Dense(nn.Module):
    """A convolution with a class for each pixel."""

    def __init__(self, after: Callable[[torch.Tensor], torch.Tensor] = lambda x: x) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, C, 1)
        self.after = after

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.after(self.conv(x))


X = torch.rand(N, 8, generator=torch.Generator().manual_seed(0))
ROWS = torch.rand(N, 7, 8, generator=torch.Generator().manual_seed(0))
SQUARE = torch.rand(N, C, 8, generator=torch.Generator().manual_seed(0))
IMAGES = torch.rand(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))
Y = torch.arange(N) % C
HOT = F.one_hot(Y, C)
PIXELS = torch.arange(72).reshape(2, 6, 6) % C
VALUES = torch.linspace(0, 1, N)
CE, NLL, BCE, LOGITS = nn.CrossEntropyLoss(), nn.NLLLoss(), nn.BCELoss(), nn.BCEWithLogitsLoss()
MULTI = torch.cat([HOT[:, :-1], torch.ones(N, 1, dtype=torch.int64)], 1).float()
EVEN = torch.full((N, C), 1 / C)
BOXES = torch.tensor([[10.0, 10.0, 60.0, 80.0]]).repeat(N, 1)
focal = partial(torchvision.ops.sigmoid_focal_loss, reduction="mean")
generalized = partial(torchvision.ops.generalized_box_iou_loss, reduction="mean")
complete = partial(torchvision.ops.complete_box_iou_loss, reduction="mean")


def own_mse(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return ((prediction - target) ** 2).mean()


def own_sum(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return -F.log_softmax(prediction, 1).gather(1, target[:, None]).sum()


PLANTED: dict[str, tuple[nn.Module, Any, torch.Tensor, torch.Tensor, str]] = {
    "softmax, then cross-entropy": (Net(lambda x: x.softmax(1)), CE, X, Y, "MOD020"),
    "sigmoid, then cross-entropy": (Net(torch.sigmoid), CE, X, Y, "MOD020"),
    "softmax that is reshaped": (Net(lambda x: x.softmax(1).view(-1, C)), CE, X, Y, "MOD020"),
    "sigmoid, then logits": (Net(torch.sigmoid), LOGITS, X, HOT.float(), "MOD020"),
    "sigmoid, then focal": (
        Net(torch.sigmoid), focal, X, HOT.float(),
        "MOD020",
    ),
    "functional, in a function of the user's": (
        Net(lambda x: F.softmax(x, -1)), lambda p, t: F.cross_entropy(p, t), X, Y, "MOD020"),
    "logits into nll": (Net(), NLL, X, Y, "MOD021"),
    "probabilities into nll": (Net(lambda x: x.softmax(1)), NLL, X, Y, "MOD021"),
    "logits into bce": (Net(), BCE, X, HOT.float(), "MOD021"),
    "logits into kl": (
        Net(), nn.KLDivLoss(reduction="batchmean"), X, EVEN, "MOD021"),
    "kl with logits as target": (
        Net(lambda x: x.log_softmax(1)), nn.KLDivLoss(reduction="batchmean"), X, torch.randn(N, C), "MOD021"),
    "softmax over the batch": (Net(lambda x: x.log_softmax(0)), NLL, X, Y, "MOD022"),
    "classes last": (Net(), CE, ROWS, torch.zeros(N, 7, dtype=torch.int64), "MOD022"),
    "classes last, square": (Net(), CE, SQUARE, torch.zeros(N, C, dtype=torch.int64), "MOD022"),
    "view in place of permute": (
        Net(lambda x: x.view(N, C, 7)), CE, ROWS, torch.zeros(N, 7, dtype=torch.int64), "MOD022"),
    "pixels, classes last": (Dense(lambda x: x.permute(0, 2, 3, 1)), CE, IMAGES, PIXELS, "MOD022"),
    "softmax over the rows of pixels": (Dense(lambda x: x.log_softmax(2)), NLL, IMAGES, PIXELS, "MOD022"),
    "column against row": (Net(out=1), nn.MSELoss(), X, VALUES, "MOD023"),
    "column against row, l1": (Net(out=1), F.l1_loss, X, VALUES, "MOD023"),
    "column against row, own": (Net(out=1), own_mse, X, VALUES, "MOD023"),
    "row against column, own": (Net(lambda x: x[:, 0], out=1), own_mse, X, VALUES[:, None], "MOD023"),
    "bce of a column against a row": (Net(out=1), LOGITS, X, VALUES, "MOD023"),
    "labels from 1": (Net(), CE, X, Y + 1, "MOD024"),
    "a label of -1": (Net(), CE, X, Y - 1, "MOD024"),
    "labels as float": (Net(), CE, X, Y.float(), "MOD024"),
    "labels as int32": (Net(), CE, X, Y.int(), "MOD024"),
    "labels of -1 and 1": (Net(out=1), LOGITS, X, (VALUES > 0.5).float()[:, None] * 2 - 1, "MOD024"),
    "a mask of 255": (Net(out=1), LOGITS, X, (VALUES > 0.5).float()[:, None] * 255, "MOD024"),
    "rows that don't sum to 1": (Net(), CE, X, HOT.float() * 0.5, "MOD024"),
    "sigmoid for large values": (Net(torch.sigmoid, out=1), nn.MSELoss(), X, VALUES[:, None] * 50, "MOD024"),
    "nan in the target": (Net(out=1), nn.MSELoss(), X, torch.full((N, 1), float("nan")), "MOD024"),
    "one-hot integers": (Net(), CE, X, HOT, "MOD025"),
    "one-hot into nll": (Net(lambda x: x.log_softmax(1)), NLL, X, HOT, "MOD025"),
    "a column of indices": (Net(), CE, X, Y[:, None], "MOD025"),
    "several classes": (Net(), CE, X, MULTI, "MOD025"),
    "indices into bce": (Net(), LOGITS, X, Y, "MOD025"),
    "indices into mse": (Net(), nn.MSELoss(), X, Y, "MOD025"),
    "all ignored": (Net(), nn.CrossEntropyLoss(ignore_index=0), X, torch.zeros_like(Y), "MOD026"),
    "weights of 0 but for one class": (
        Net(), nn.CrossEntropyLoss(weight=torch.eye(C)[0]), X, Y, "MOD026",
    ),
    "weights of 0": (Net(), nn.CrossEntropyLoss(weight=torch.zeros(C)), X, Y, "MOD026"),
    "one class": (Net(out=1), CE, X, torch.zeros_like(Y), "MOD026"),
    "argmax before the loss": (Net(lambda x: x.argmax(1).float()), nn.MSELoss(), X, Y.float(), "MOD026"),
    "detached": (Net(lambda x: x.detach()), CE, X, Y, "MOD026"),
    "sum": (Net(), nn.CrossEntropyLoss(reduction="sum"), X, Y, "MOD027"),
    "none": (Net(), nn.CrossEntropyLoss(reduction="none"), X, Y, "MOD027"),
    "an own sum": (Net(), own_sum, X, Y, "MOD027"),
    "boxes as width and height": (
        Net(lambda x: torch.cat([x[:, :2], x[:, :2] + x[:, 2:].exp()], 1) * 50, out=4),
        generalized, X,
        torch.tensor([[50.0, 60.0, 10.0, 20.0]]).repeat(N, 1), "MOD028",
    ),
    "boxes in pixels against relative": (
        Net(torch.sigmoid, out=4), complete, X,
        BOXES, "MOD029",
    ),
    "boxes in pixels, smooth l1": (
        Net(torch.sigmoid, out=4), nn.SmoothL1Loss(), X, BOXES,
        "MOD029",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PLANTED)
def test_the_cause_is_named_first(name: str) -> None:
    model, loss, x, y, code = PLANTED[name]
    found = loss_inputs(model, loss, x, y)
    assert found, "nothing found"
    assert found[0].code == code, [item.message for item in found]
    assert found[0].evidence["advice"]
    assert all(one.grad is None for one in model.parameters())


def yolo_like(p: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    return F.smooth_l1_loss(p, t) + torchvision.ops.generalized_box_iou_loss(p, t, reduction="mean")


HEALTHY: dict[str, tuple[nn.Module, Any, torch.Tensor, torch.Tensor]] = {
    "logits": (Net(), CE, X, Y),
    "logits, functional": (Net(), F.cross_entropy, X, Y),
    "a class that stands for no label": (Net(), nn.CrossEntropyLoss(1 - torch.eye(C)[0]), X, Y),
    "label smoothing, weights": (Net(), nn.CrossEntropyLoss(torch.ones(C), label_smoothing=0.1), X, Y),
    "soft targets": (Net(), CE, X, EVEN),
    "one-hot rows as float": (Net(), CE, X, HOT.float()),
    "some ignored": (Net(), nn.CrossEntropyLoss(ignore_index=0), X, Y),
    "log-softmax, nll": (Net(lambda x: x.log_softmax(1)), NLL, X, Y),
    "log of softmax, nll": (Net(lambda x: (x.softmax(1) + 1e-9).log()), NLL, X, Y),
    "log-softmax, cross-entropy": (Net(lambda x: x.log_softmax(1)), CE, X, Y),
    "sigmoid, bce": (Net(torch.sigmoid), BCE, X, HOT.float()),
    "logits, several classes": (Net(), LOGITS, X, MULTI),
    "binary": (Net(lambda x: x[:, 0], out=1), LOGITS, X, (VALUES > 0.5).float()),
    "regression": (Net(lambda x: x.squeeze(1), out=1), nn.MSELoss(), X, VALUES * 50),
    "regression by sigmoid": (Net(torch.sigmoid, out=1), nn.MSELoss(), X, VALUES[:, None]),
    "own regression": (Net(out=1), own_mse, X, VALUES[:, None]),
    "kl": (Net(lambda x: x.log_softmax(1)), nn.KLDivLoss(reduction="batchmean"), X, EVEN),
    "pixels": (Dense(), CE, IMAGES, PIXELS),
    "rows, moved": (Net(lambda x: x.movedim(-1, 1)), CE, ROWS, torch.zeros(N, 7, dtype=torch.int64)),
    "several heads": (Net(lambda x: x.view(N, C, 3), out=3 * C), CE, X, torch.zeros(N, 3, dtype=torch.int64)),
    "boxes": (
        Net(lambda x: torch.cat([x[:, :2], x[:, :2] + x[:, 2:].exp()], 1), out=4), yolo_like, X,
        torch.tensor([[0.1, 0.2, 0.6, 0.9]]).repeat(N, 1),
    ),
    "focal": (Net(), focal, X, HOT.float()),
    "contrastive": (
        Net(), lambda p, t: ((p @ p.T) * (t[:, None] == t[None, :])).mean(), X, Y),
    "a distance of each pair": (
        Net(out=1), lambda p, t: ((p - p.T) - (t[:, None] - t[None, :])).square().mean(), X, VALUES),
}  # fmt: skip


@pytest.mark.parametrize("name", HEALTHY)
def test_a_right_loss_gives_no_finding(name: str) -> None:
    model, loss, x, y = HEALTHY[name]
    assert [item.message for item in loss_inputs(model, loss, x, y)] == []


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "vit"])
def test_known_networks_with_the_right_loss_give_no_finding(name: str) -> None:
    if name == "vit":
        model: nn.Module = timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=C)
    else:
        model = torchvision.models.get_model(name, num_classes=C)
    assert [item.message for item in loss_inputs(model, CE, torch.rand(4, 3, 32, 32), Y[:4])] == []


def test_the_line_of_the_call_is_named() -> None:
    def step(model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        x, y = batch
        return F.cross_entropy(model(x).softmax(1), y)

    found = loss_inputs(Net(), None, X, Y, step=step)
    assert found[0].code == "MOD020"
    line = step.__code__.co_firstlineno + 2
    assert found[0].evidence["source"] == f"tests/modelcheck/test_losses.py:{line}"


def detector() -> nn.Module:
    return detection.fasterrcnn_mobilenet_v3_large_320_fpn(
        weights=None, weights_backbone=None, num_classes=3, min_size=64, max_size=64
    )


CORNERS = torch.tensor([[30.0, 20.0, 60.0, 50.0], [5.0, 8.0, 40.0, 44.0]])


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("boxes", "labels", "codes"),
    [
        (CORNERS, [1, 2], []),
        (torch.tensor([[30.0, 20.0, 12.0, 9.0], [5.0, 8.0, 3.0, 4.0]]), [1, 2], ["MOD028"]),
        (CORNERS / 64, [1, 2], ["MOD029"]),
        (CORNERS, [0, 1], ["MOD024"]),
        (CORNERS, [1, 3], ["MOD024"]),
    ],
    ids=["right", "xywh", "relative", "background", "too many"],
)
def test_the_boxes_of_a_detection_model_are_looked_at(
    boxes: torch.Tensor, labels: list[int], codes: list[str]
) -> None:
    torch.manual_seed(0)
    targets = [{"boxes": boxes, "labels": torch.tensor(labels)}]
    found = loss_inputs(detector(), None, [torch.rand(3, 64, 64)], targets)
    assert [item.code for item in found][:1] == codes, [item.message for item in found]


def test_without_targets_it_is_an_error() -> None:
    with pytest.raises(InputError, match="There are no targets"):
        loss_inputs(Net(), CE, X)


def test_what_the_model_raises_is_no_matter_of_the_loss() -> None:
    with pytest.raises(
        InputError, match=r"The model raises RuntimeError: mat1.*inputs \(12, 7\) in train mode"
    ):
        loss_inputs(Net(), CE, torch.rand(12, 7), Y)
