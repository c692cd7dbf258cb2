"""What the loss is for right, uninformed and wrong predictions, by putting them in place of the model's."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the name that everyone knows

from dataaudit.modelcheck.training.loss_range import LossRange, loss_range
from dataaudit.modelcheck.training.setups import setup_of

TARGETS = torch.tensor([0, 1, 2, 3])


def of(loss: Any, targets: torch.Tensor = TARGETS, model: nn.Module | None = None, **given: Any) -> LossRange:
    found = loss_range(setup_of(model or nn.Linear(3, 4), loss, torch.rand(4, 3), targets, **given))
    assert found is not None
    return found


def test_cross_entropy_goes_from_log_of_the_classes_to_0() -> None:
    found = of(nn.CrossEntropyLoss())
    assert found.uninformed == pytest.approx(math.log(4), abs=1e-3)
    assert found.right == pytest.approx(0, abs=1e-3)
    assert (found.telling, found.inverted, found.bounded) == (True, False, True)
    assert (found.reached(0.6), found.reached(0.8)) == (True, False)


def test_label_smoothing_has_a_floor_above_0() -> None:
    # With logits of 4 for the class: 0.1 of the mean over classes, 0.9 of its own
    assert of(nn.CrossEntropyLoss(label_smoothing=0.1)).right == pytest.approx(0.353, abs=1e-2)


def test_squared_error_of_the_targets_is_0_and_that_of_their_mean_the_variance() -> None:
    want = torch.tensor([[2.0], [4.0], [6.0], [8.0]])
    found = of(nn.MSELoss(), want, nn.Linear(3, 1))
    assert (found.right, found.uninformed, found.wrong) == (0.0, 5.0, 20.0)


def test_a_wrong_sign_is_seen_and_distances_alone_are_not() -> None:
    assert of(lambda out, want: -F.cross_entropy(out, want)).inverted
    assert not of(lambda out, want: torch.cdist(out, out).mean()).telling


def test_a_whole_step_with_a_scaler_is_asked_too() -> None:
    scaler = torch.amp.GradScaler("cpu")

    def train_step(model: nn.Module, optimizer: torch.optim.Optimizer, data: Any) -> float:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(data[0]), data[1])
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        return loss.item()

    assert of(None, train_step=train_step).uninformed == pytest.approx(math.log(4), abs=1e-3)


def test_boxes_have_no_range() -> None:
    boxes = [{"boxes": torch.rand(1, 4), "labels": torch.ones(1)}] * 4
    assert loss_range(setup_of(nn.Linear(3, 4), lambda out, _: out.mean(), torch.rand(4, 3), boxes)) is None
