"""A sound model learns a small batch in seconds; one that can't is told why, the cause first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the name that everyone knows

from dataaudit.modelcheck.training.overfitting import Overfit, overfit


def batch(n: int = 8, classes: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    """Real digits, in colour."""
    from sklearn.datasets import load_digits

    digits = load_digits(n_class=classes)
    x = torch.tensor(digits.images[:n], dtype=torch.float32)[:, None] / 8 - 1
    images = F.interpolate(x, scale_factor=4).expand(-1, 3, -1, -1).contiguous()
    return images, torch.tensor(digits.target[:n])


def resnet() -> nn.Module:
    torch.manual_seed(0)
    return torchvision.models.resnet18(num_classes=4)


def small(*middle: nn.Module, head: nn.Module | None = None) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, stride=2), nn.ReLU(), *middle, nn.AdaptiveAvgPool2d(4), nn.Flatten(),
        head or nn.Linear(256, 4),
    )  # fmt: skip


class Cutting(nn.Module):
    def __init__(self, cut: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.stem, self.head, self.cut = nn.Conv2d(3, 8, 4, stride=4), nn.Linear(512, 4), cut

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.cut(self.stem(x)).flatten(1))


class Unused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.extra, self.head = nn.Conv2d(3, 8, 4, stride=4), nn.Linear(3, 3), nn.Linear(512, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.stem(x).relu().flatten(1))


def off(x: torch.Tensor) -> torch.Tensor:
    return x.detach()


def sgd(rate: float, **settings: Any) -> Callable[[nn.Module], torch.optim.Optimizer]:
    return lambda model: torch.optim.SGD(model.parameters(), lr=rate, **settings)


def learn(model: nn.Module, **settings: Any) -> Overfit:
    x, y = batch()
    return overfit(model, settings.pop("loss", nn.CrossEntropyLoss()), x, y, seconds=40, **settings)


@pytest.mark.parametrize(
    "make",
    [
        resnet,
        lambda: torchvision.models.mobilenet_v3_small(num_classes=4),
        lambda: timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=4, depth=4),
        lambda: small(nn.Dropout(0.5)),
    ],
    ids=["resnet18", "mobilenet", "vit", "dropout"],
)
def test_a_sound_model_learns_the_batch_and_gives_no_finding(make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    done = learn(make())
    assert [item.message for item in done.findings] == []
    assert done.learned or done.run.falling, done.said


def test_the_model_and_the_optimizer_are_bit_equal_afterwards() -> None:
    model = resnet()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    chance = torch.get_rng_state()
    learn(model, optimizer=optimizer)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert dict(optimizer.state) == {}
    assert all(one.grad is None and not one._post_accumulate_grad_hooks for one in model.parameters())
    assert torch.equal(torch.get_rng_state(), chance)


def test_an_exception_in_a_loss_is_an_error_and_leaves_the_model_as_it_was() -> None:
    model = resnet()
    before = {name: value.clone() for name, value in model.state_dict().items()}

    def loss(_out: torch.Tensor, _targets: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("no such class")

    with pytest.raises(ValueError, match="The training step raised RuntimeError: no such class"):
        learn(model, loss=loss)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def zeroed() -> nn.Module:
    model = small(head=nn.Sequential(nn.Linear(256, 16), nn.ReLU(), nn.Linear(16, 4)))
    for one in model.parameters():
        nn.init.zeros_(one)
    return model


def dead() -> nn.Module:
    model = small()
    nn.init.constant_(model[0].bias, -100.0)
    return model


def frozen() -> nn.Module:
    model = small()
    for one in model.parameters():
        one.requires_grad_(False)
    model[0].bias.requires_grad_(True)
    return model


FAULTS: dict[str, tuple[Callable[[], nn.Module], dict[str, Any], str, str]] = {
    "too low": (small, {"optimizer": sgd(1e-9)}, "TRN004", "is too low"),
    "too high": (small, {"optimizer": sgd(1e4)}, "TRN004", "is too high"),
    "detach": (lambda: Cutting(off), {}, "TRN002", "No gradient reaches stem"),
    "weight decay": (small, {"optimizer": sgd(0.1, weight_decay=5.0)}, "TRN008", "Weight decay 5"),
    "dropout": (lambda: small(nn.Dropout(0.999)), {}, "TRN008", "Dropout is in the way"),
    "zeros": (zeroed, {}, "TRN010", "are all 0"),
    "dead": (dead, {}, "TRN005", "is dead"),
    "unused": (Unused, {}, "TRN013", "the forward pass never calls it"),
    "frozen": (frozen, {}, "TRN011", "learned when nothing is frozen"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_the_first_finding_is_the_planted_cause(name: str) -> None:
    make, settings, code, says = FAULTS[name]
    torch.manual_seed(0)
    done = learn(make(), **settings)
    assert [item.code for item in done.findings][:1] == [code], (done.said, done.findings)
    assert says in done.findings[0].message, done.findings[0].message


def test_the_line_that_cuts_the_gradient_off_is_named() -> None:
    done = learn(Cutting(off))
    line = off.__code__.co_firstlineno + 1
    assert done.findings[0].evidence["source"] == f"tests/modelcheck/training/test_overfitting.py:{line}"


def test_an_optimizer_of_a_replaced_head_is_found() -> None:
    model = small()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model[-1] = nn.Linear(256, 4)
    done = learn(model, optimizer=optimizer)
    assert done.findings[0].code == "TRN003"
    assert "2 parameters get a gradient and aren't in the optimizer" in done.findings[0].message


def test_equal_images_with_other_labels_are_found() -> None:
    x, y = batch()
    x[3] = x[0]
    done = overfit(small(), nn.CrossEntropyLoss(), x, y, seconds=5)
    assert [item.code for item in done.findings][:1] == ["TRN006"]
    assert "sample 0 and sample 3" in done.findings[0].message


def no_step(model: nn.Module, optimizer: torch.optim.Optimizer, data: Any) -> torch.Tensor:
    optimizer.zero_grad()
    loss = F.cross_entropy(model(data[0]), data[1])
    loss.backward()
    return loss


def no_zero_grad(model: nn.Module, optimizer: torch.optim.Optimizer, data: Any) -> torch.Tensor:
    loss = F.cross_entropy(model(data[0]), data[1])
    loss.backward()
    optimizer.step()
    return loss


def cleared(model: nn.Module, optimizer: torch.optim.Optimizer, data: Any) -> torch.Tensor:
    loss = F.cross_entropy(model(data[0]), data[1])
    loss.backward()
    optimizer.zero_grad()
    optimizer.step()
    return loss


def clipped(model: nn.Module, optimizer: torch.optim.Optimizer, data: Any) -> torch.Tensor:
    optimizer.zero_grad()
    loss = F.cross_entropy(model(data[0]), data[1])
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1e-6)
    optimizer.step()
    return loss


def sound(model: nn.Module, optimizer: torch.optim.Optimizer, data: Any) -> torch.Tensor:
    optimizer.zero_grad()
    loss = F.cross_entropy(model(data[0]), data[1])
    loss.backward()
    optimizer.step()
    return loss


class Accumulating:
    """A step of the optimizer every four calls, with the loss divided, or not."""

    def __init__(self, divided: bool) -> None:
        self.divided, self.count = divided, 0

    def __call__(self, model: nn.Module, optimizer: torch.optim.Optimizer, data: Any) -> torch.Tensor:
        loss = F.cross_entropy(model(data[0]), data[1])
        (loss / 4 if self.divided else loss).backward()
        self.count += 1
        if self.count % 4 == 0:
            optimizer.step()
            optimizer.zero_grad()
        return loss


@pytest.mark.parametrize(
    ("step", "says"),
    [
        (no_step, "optimizer.step() isn't called"),
        (no_zero_grad, "zero_grad() isn't called"),
        (cleared, "cleared after backward()"),
        (clipped, "clipped to next to nothing"),
        (Accumulating(False), "not divided by 4"),
        (sound, None),
        (Accumulating(True), None),
    ],
    ids=["no step", "no zero_grad", "cleared", "clipped", "not divided", "sound", "divided"],
)
def test_a_training_step_of_ones_own_is_looked_at(step: Any, says: str | None) -> None:
    x, y = batch()
    done = overfit(small(), None, x, y, train_step=step, optimizer=sgd(0.1), seconds=30)
    first = done.findings[0].message if done.findings else None
    assert (says is None and first is None) or (says is not None and says in str(first)), (first, done.said)
