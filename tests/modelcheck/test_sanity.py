"""All checks on one batch: the cause first, what follows from it below, and nothing on a sound set-up."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dataaudit.errors import InputError
from dataaudit.modelcheck import sanity


def small(*end: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
        nn.Linear(32, 4), *end,
    )  # fmt: skip


X = torch.randn(8, 3, 12, 12, generator=torch.Generator().manual_seed(1))
Y = torch.arange(8) % 4


def test_a_sound_model_has_no_finding_and_every_check_ran() -> None:
    done = sanity(small(), nn.CrossEntropyLoss(), X, Y)
    assert done.findings == []
    assert done.learned
    assert done.skipped == {}
    assert list(done.timings) == ["trace", "loss inputs", "determinism", "gradients", "overfit"]


def test_a_softmax_before_the_loss_is_the_only_finding() -> None:
    done = sanity(small(nn.Softmax(1)), nn.CrossEntropyLoss(), X, Y)
    assert [item.code for item in done.findings] == ["MOD020"]


def test_what_follows_from_a_cause_is_under_it() -> None:
    model = small()
    with torch.no_grad():
        model[0].weight[0, 0, 0, 0] = float("nan")
    done = sanity(model, nn.CrossEntropyLoss(), X, Y)
    assert [(item.code, item.item_id) for item in done.findings] == [("MOD010", "0")]
    assert {item.code for item, _ in done.explained} >= {"TRN020"}
    assert {cause.code for _, cause in done.explained} == {"MOD010"}
    told = done.findings[0].evidence["explains"]
    assert {"code", "about", "what"} == set(told[0])


class Raising(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = small()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training:
            raise KeyError("only in eval mode")
        return self.body(x)


def test_where_one_check_fails_in_the_users_code_the_others_run() -> None:
    done = sanity(Raising(), nn.CrossEntropyLoss(), X, Y)
    (item,) = done.findings
    assert item.code == "MOD040"
    assert "KeyError: 'only in eval mode', in trace and in determinism (in eval mode)" in item.message
    assert str(item.evidence["source"]).endswith("test_sanity.py:57")
    assert done.learned
    assert set(done.skipped) == {"trace", "determinism"}


def test_without_targets_only_layers_and_determinism_are_looked_at() -> None:
    done = sanity(small(), None, X)
    assert done.learned is None
    assert done.skipped["overfit"] == "the batch has no targets"
    assert list(done.timings) == ["trace", "determinism"]


def test_a_check_that_does_not_fit_into_the_time_is_left_out() -> None:
    done = sanity(small(), nn.CrossEntropyLoss(), X, Y, seconds=1e-6)
    assert done.findings == []
    assert done.learned is None
    assert "s are left" in done.skipped["overfit"]


def test_a_model_that_does_not_compute_its_loss_has_to_be_given_one() -> None:
    with pytest.raises(InputError, match=r"Raising.forward takes \(x\)[^/]*Give a loss"):
        sanity(Raising(), None, X, Y)


def test_arguments_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(InputError, match="all say what the loss is"):
        sanity(small(), nn.CrossEntropyLoss(), X, Y, step=lambda model, batch: model(batch[0]).sum())
    with pytest.raises(InputError, match="expected more than 0"):
        sanity(small(), nn.CrossEntropyLoss(), X, Y, seconds=0)
