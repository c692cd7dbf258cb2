"""Several processes train the model that one would, or the reason why not is named."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import parallel_models
import pytest
import torch
from torch import nn

from dataaudit.modelcheck.inputs import Batch
from dataaudit.modelcheck.training.process_loaders import judge_loaders, read_loader
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
        ("Counting", {}, ["TRN043"], "the buffer center"),
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


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (parallel_models.unset_epoch, "nothing calls set_epoch()"),
        (parallel_models.repeating, "18 of the 20 samples that a process gets"),
        (parallel_models.uneven, "The processes get 3, 2 batches"),
        (parallel_models.same_loader, "12 of 12 samples go to more than one process"),
        (parallel_models.set_epoch, None),
        (parallel_models.of_evaluation, None),
    ],
)
def test_a_loader_of_several_processes_is_judged(make: Any, says: str | None) -> None:
    many = [{"loader": read_loader(make, rank, 2, seconds=5)} for rank in range(2)]
    found = [item.message for item in judge_loaders(many)]
    assert len(found) == (says is not None)
    assert says is None or says in found[0], found


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "kill"])
def test_the_processes_end_with_the_one_that_started_them(signum: signal.Signals, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    code = (
        "import os, torch\n"
        "os.environ['DATAAUDIT_TEST_HOME'] = str(os.getpid())\n"
        "from dataaudit.modelcheck.inputs import Batch\n"
        "from dataaudit.modelcheck.training.processes import processes\n"
        "batch = Batch(inputs=torch.rand(4, 3, 32, 32), targets=torch.arange(4))\n"
        "processes('parallel_models:Waiting', torch.nn.CrossEntropyLoss(), batch)\n"
    )
    settings = {**os.environ, "DATAAUDIT_TEST_PIPE": str(pipe), "PYTHONPATH": str(Path(__file__).parent)}
    run = subprocess.Popen([sys.executable, "-c", code], env=settings, stderr=subprocess.PIPE)
    with pipe.open() as told:
        started = [int(told.readline()), int(told.readline())]
        run.send_signal(signum)
        assert told.read() == ""  # which returns when nobody holds the other end any more
    _, said = run.communicate(timeout=30)
    assert len(set(started)) == 2
    assert run.returncode in (-signum, 1)
    assert signum is signal.SIGKILL or b"KeyboardInterrupt" in said
