"""Gradients layer by layer: sound models are silent, and what vanishes or breaks is named."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import timm
import torch
import torchvision
from torch import nn

from dataaudit.modelcheck.training.gradient_flow import gradients
from dataaudit.modelcheck.training.rates import rate_fits_batch, rate_range


def data() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return torch.randn(8, 3, 32, 32), torch.arange(8) % 4


def deep(activation: Callable[[], nn.Module]) -> nn.Module:
    middle = [part for _ in range(12) for part in (activation(), nn.Linear(64, 64))]
    return nn.Sequential(nn.Flatten(), nn.Linear(3072, 64), *middle, activation(), nn.Linear(64, 4))


class Root(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3072, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = self.head(x.flatten(1))
        return z + torch.sqrt((z * 0).sum(1, keepdim=True))


@pytest.mark.parametrize(
    "make",
    [
        lambda: torchvision.models.mobilenet_v3_small(num_classes=4),
        lambda: timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=4, depth=4),
        lambda: timm.create_model("convnext_atto", num_classes=4),
    ],
    ids=["mobilenet", "vit", "convnext"],
)
def test_a_sound_model_gives_no_finding(make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    assert gradients(make(), nn.CrossEntropyLoss(), *data()).findings == []


def test_a_deep_stack_of_sigmoids_vanishes() -> None:
    found = gradients(deep(nn.Sigmoid), nn.CrossEntropyLoss(), *data()).findings
    assert [(item.code, item.item_id) for item in found] == [("TRN021", "1.weight")]


def test_nan_of_the_backward_pass_is_found_with_its_line() -> None:
    found = gradients(Root(), nn.CrossEntropyLoss(), *data()).findings
    line = Root.forward.__code__.co_firstlineno + 2
    assert [item.code for item in found] == ["TRN020"]
    assert found[0].evidence["source"] == f"tests/modelcheck/training/test_gradient_flow.py:{line}"


def test_steps_that_a_scaler_skips_are_no_fault() -> None:
    torch.manual_seed(0)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127)
    found = gradients(deep(nn.ReLU), nn.CrossEntropyLoss(), *data(), scaler=scaler)
    assert found.findings == []
    assert scaler.get_scale() == 2.0**127


@pytest.mark.parametrize("rate", [1e3, 1e-12])
def test_a_step_out_of_proportion_is_found(rate: float) -> None:
    model = torchvision.models.mobilenet_v3_small(num_classes=4)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    found = gradients(model, nn.CrossEntropyLoss(), *data(), optimizer=optimizer).findings
    assert [item.code for item in found] == ["TRN024"]


def test_a_range_test_suggests_a_rate_and_finds_one_that_is_too_low() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3072, 16), nn.ReLU(), nn.Linear(16, 4))
    done = rate_range(model, nn.CrossEntropyLoss(), *data(), steps=60, high=1e3,
                      optimizer=lambda each: torch.optim.SGD(each.parameters(), lr=1e-9))  # fmt: skip
    assert done.suggested is not None
    assert 1e-4 < done.suggested < 1
    assert [item.code for item in done.findings] == ["TRN030"]
    assert done.picture().png.startswith(b"\x89PNG")


def test_a_rate_at_which_the_loss_grows_is_too_high() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3072, 4))
    done = rate_range(model, nn.MSELoss(), data()[0], torch.randn(len(data()[0]), 4), steps=60, high=1e3,
                      optimizer=lambda each: torch.optim.SGD(each.parameters(), lr=100.0))  # fmt: skip
    assert [item.code for item in done.findings] == ["TRN030"]
    assert "The learning rate 100 is too high" in done.findings[0].message
    assert done.diverges is not None
    assert done.diverges < 100


@pytest.mark.parametrize("scaled", [False, True])
def test_gradients_under_autocast_are_those_without_scale(scaled: bool) -> None:
    def step(model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return nn.functional.cross_entropy(model(batch[0]), batch[1])

    torch.manual_seed(0)
    model = torchvision.models.resnet18(num_classes=4)
    scaler = torch.amp.GradScaler("cpu") if scaled else None
    mixed = gradients(model, None, *data(), step=step, scaler=scaler)
    whole = gradients(model, nn.CrossEntropyLoss(), *data())
    assert (mixed.findings, mixed.skipped_steps) == ([], 0)
    assert mixed.layers[-1].norms[0] == pytest.approx(whole.layers[-1].norms[0], rel=0.1)


def test_rate_and_batch_size_follow_the_rule_of_the_optimizer() -> None:
    assert rate_fits_batch("SGD", 512, rate=0.2, reference=(0.1, 256)) == []
    assert rate_fits_batch("Adam", 1024, rate=2e-3, reference=(1e-3, 256)) == []
    found = rate_fits_batch("SGD", 2048, rate=0.1, reference=(0.1, 256))
    assert "0.8" in found[0].message
