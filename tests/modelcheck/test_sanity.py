"""All checks on one batch: the cause first, what follows from it below, and nothing on a sound set-up."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from dataaudit.cli import main
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
    assert str(item.evidence["source"]).endswith("test_sanity.py:64")
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


def test_a_compiled_model_is_checked_uncompiled() -> None:
    model = torch.compile(small(nn.Softmax(1)))
    done = sanity(model, nn.CrossEntropyLoss(), X, Y)
    assert [item.code for item in done.findings] == ["MOD020"]
    assert done.skipped == {}


def test_a_wrapped_model_without_a_loss_is_judged_by_what_is_inside() -> None:
    with pytest.raises(InputError, match=r"Sequential.forward takes \(input\)"):
        sanity(nn.DataParallel(small()), None, X, Y)


class OwnLoss(nn.Module):
    """As a detection model: a list of images and of targets in, losses by name out in train mode."""

    def __init__(self) -> None:
        super().__init__()
        self.body = small()

    def forward(
        self, images: list[torch.Tensor], targets: list[dict[str, torch.Tensor]] | None = None
    ) -> Any:
        scores = self.body(torch.stack(images))
        if targets is None:
            return [{"scores": each} for each in scores]
        labels = torch.stack([each["labels"] for each in targets])
        return {"classifier": nn.functional.cross_entropy(scores, labels)}


def test_a_model_that_computes_its_own_loss_is_checked_without_one() -> None:
    done = sanity(OwnLoss(), None, list(X), [{"labels": one} for one in Y])
    assert done.findings == []
    assert done.learned
    assert done.skipped == {}


@pytest.mark.parametrize(
    ("end", "loss", "targets"),
    [
        (None, nn.BCEWithLogitsLoss(), nn.functional.one_hot(Y, 4).float()),
        (nn.Sequential(nn.Linear(4, 1), nn.Flatten(0)), nn.MSELoss(), torch.linspace(-1, 1, 8)),
        (nn.Unflatten(1, (4, 1, 1)), nn.CrossEntropyLoss(), Y[:, None, None]),
    ],
    ids=["several labels", "a number", "a mask"],
)
def test_other_tasks_than_classification_are_learned(
    end: nn.Module | None, loss: nn.Module, targets: torch.Tensor
) -> None:
    done = sanity(small(*([] if end is None else [end])), loss, X, targets)
    assert done.findings == []
    assert done.learned


def test_a_whole_step_has_its_loss_looked_at_as_well() -> None:
    def train_step(model: nn.Module, optimizer: torch.optim.Optimizer, batch: Any) -> float:
        optimizer.zero_grad()
        value = nn.functional.cross_entropy(model(batch[0]), batch[1])
        value.backward()
        optimizer.step()
        return value.item()

    assert sanity(small(), None, X, Y, train_step=train_step).findings == []
    done = sanity(small(nn.Softmax(1)), None, X, Y, train_step=train_step)
    assert [item.code for item in done.findings] == ["MOD020"]


def test_torchscript_is_refused_with_what_to_do() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = torch.jit.trace(small().eval(), X)
    with pytest.raises(InputError, match="Give the Python module"):
        sanity(model, nn.CrossEntropyLoss(), X, Y)


MODULE = """
import torch
from torch import nn

def good():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 32), nn.ReLU(), nn.Linear(32, 10))

class Dividing(nn.Module):
    def forward(self, x):
        return x / (x - x)

def broken():
    return nn.Sequential(good(), Dividing())
"""


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, digit_folder: Path) -> tuple[str, ...]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "sanenets", raising=False)
    (tmp_path / "sanenets.py").write_text(MODULE)
    return "--data", str(digit_folder), "--input-shape", "3,8,8"


def test_the_command_exits_with_0_on_a_sound_model(
    photos: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["model", "sanity", "sanenets:good", *photos]) == 0
    out = capsys.readouterr().out
    assert "Nothing found: " in out
    assert "8 samples learned in " in out
    assert "Layers in execution order" not in out


def test_the_command_names_the_cause_and_what_follows_in_every_output(
    photos: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["model", "sanity", "sanenets:broken", *photos]
    assert main([*command, "--output", "out"]) == 1
    out = capsys.readouterr().out
    assert "MOD010 1  sanenets.py:10" in out
    assert "1 finding about 1." in out
    page = (tmp_path / "out" / "model-sanity.html").read_text()
    assert "What follows from it" in page
    assert "Layers in execution order" in page
    told = json.loads((tmp_path / "out" / "model-sanity.json").read_text())
    (item,) = told["findings"]
    assert item["code"] == "MOD010"
    assert {one["code"] for one in item["evidence"]["explains"]} >= {"TRN020"}
    assert main([*command, "--fail-on", "TRN>0", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["counts"]["findings"] == 1


def test_without_data_the_command_looks_at_layers_and_determinism(
    photos: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["model", "sanity", "sanenets:good", "--input-shape", "3,8,8"]) == 0
    assert "Skipped: TRN001 the batch has no targets" in capsys.readouterr().out
