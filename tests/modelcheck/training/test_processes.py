"""Several processes train the model that one would, or the reason why not is named."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from dataaudit.modelcheck.inputs import Batch
from dataaudit.modelcheck.training.processes import processes

HERE = "parallel_models"


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    monkeypatch.setenv("DATAAUDIT_TEST_HOME", str(os.getpid()))


def batch() -> Batch:
    torch.manual_seed(1)
    return Batch(inputs=torch.rand(8, 3, 32, 32), targets=torch.arange(8) % 4)


@pytest.mark.parametrize(
    ("model", "settings", "codes", "says"),
    [
        ("plain", {}, [], ""),
        ("normed", {}, ["TRN040"], "SyncBatchNorm"),
        ("plain", {"sizes": [6, 2]}, ["TRN041"], "6, 2 samples"),
        ("plain", {"loss": f"{HERE}:summed"}, ["TRN041"], "a sum"),
        ("Spare", {}, ["TRN045"], "spare.weight"),
        (
            "plain",
            {"wrap": f"{HERE}:bare", "loader": f"{HERE}:same_loader", "seed": f"{HERE}:same_seed"},
            ["TRN043", "TRN042", "TRN044"],
            "DistributedDataParallel",
        ),
    ],
)
def test_what_differs_between_one_process_and_two_has_its_cause(
    model: str, settings: dict[str, Any], codes: list[str], says: str
) -> None:
    loss = settings.pop("loss", nn.CrossEntropyLoss())
    done = processes(f"{HERE}:{model}", loss, batch(), **settings)
    assert [item.code for item in done.findings] == codes, done.findings
    assert not codes or says in done.findings[0].message, done.findings[0].message


def test_a_process_that_is_killed_is_an_error_at_once() -> None:
    with pytest.raises(ValueError, match=r"Process \d ended with -9"):
        processes(f"{HERE}:Killed", nn.CrossEntropyLoss(), batch())
