from __future__ import annotations

import json
import logging
import os
import pickle
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

pytest.importorskip("pytorch_lightning")
import lightning_nets as nets
import pytorch_lightning as lightning

from dataaudit import inputs
from dataaudit.errors import InputError, MissingDependencyError
from dataaudit.modelcheck import SanityCheck, SanityError

pytestmark = pytest.mark.filterwarnings("ignore::Warning:pytorch_lightning", "ignore::Warning:torch")


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in ("pytorch_lightning", "lightning_fabric")]
    levels = [one.level for one in loggers]
    for one in loggers:
        one.setLevel(logging.ERROR)
    yield
    for one, level in zip(loggers, levels, strict=True):
        one.setLevel(level)


def fitted(folder: Path, module: Any, check: Any, *, as_dict: bool = False, **settings: Any) -> Any:
    run = nets.trainer(folder, check, **settings)
    run.fit(module, nets.loader(as_dict=as_dict), nets.loader(as_dict=False))
    return run


def state(module: Any) -> dict[str, Any]:
    optimizer = module.trainer.optimizers[0]
    return {
        "weights": module.state_dict(), "optimizer": optimizer.state_dict(), "calls": module.calls,
        "kept": module.kept, "torch": torch.get_rng_state(), "numpy": np.random.get_state()[1].tolist(),
        "python": random.getstate(), "step": module.trainer.global_step,
        "schedule": module.lr_schedulers().state_dict(),
        "logged": {name: float(value) for name, value in module.trainer.callback_metrics.items()},
    }  # fmt: skip


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def test_a_training_goes_on_as_it_would_without_the_callback(tmp_path: Path) -> None:
    ends, rows = [], []
    for name, callbacks in (("with", [SanityCheck(watch_every=2, log=False)]), ("without", [])):
        folder = tmp_path / name
        logger = lightning.loggers.CSVLogger(folder)
        run = nets.trainer(folder, *callbacks, logger=logger)
        module = nets.Sound()
        run.fit(module, nets.loader(), nets.loader())
        ends.append(state(module))
        rows.append((Path(logger.log_dir) / "metrics.csv").read_text())
    for key in ends[0]:
        assert same(ends[0][key], ends[1][key]), key
    assert rows[0] == rows[1]


def test_a_sound_training_has_a_report_without_findings_and_a_table_for_the_audit(tmp_path: Path) -> None:
    check = SanityCheck(watch_every=2)
    fitted(tmp_path, nets.Sound(), check, epochs=8)
    assert check.findings == []
    written = json.loads((tmp_path / "dataaudit/model-training.json").read_text())
    assert [item["code"] for item in written["codes"]][:2] == ["MOD001", "MOD002"]
    assert {"Gradients during training", "Runs", "What was run"} <= {
        table["title"] for table in written["model"]["tables"]
    }
    table = inputs.read(check.training_dynamics)
    data = nets.Colours()
    wrong = (data.given != data.true).tolist()
    assert sorted(table.index) == sorted(data[at][2] for at in range(48))
    assert (table["seen"] == 8).all()
    order = [data[at][2] for at in range(48)]
    margins = table.loc[order, "margin"].to_numpy()
    assert margins[wrong].max() < np.median(margins[np.logical_not(wrong)])


def test_what_is_wrong_stops_the_training_before_its_first_step(tmp_path: Path) -> None:
    module = nets.Soft()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with pytest.raises(SanityError, match=r"lightning_nets.py:\d+: MOD020 .* output of softmax") as raised:
        fitted(tmp_path, module, SanityCheck(on_finding="raise"))
    assert [item.code for item in raised.value.findings] == ["MOD020"]
    assert same(dict(module.state_dict()), before)
    written = json.loads((tmp_path / "dataaudit/model-training.json").read_text())
    assert "stopped by SanityError" in written["model"]["facts"]


def test_a_warning_is_printed_and_the_training_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check = SanityCheck()
    fitted(tmp_path, nets.Soft(), check, epochs=1)
    assert [item.code for item in check.findings] == ["MOD020"]
    assert "Change: Give it the output before the softmax." in capsys.readouterr().out
    fitted(tmp_path, nets.Soft(), SanityCheck(on_finding="ignore"), epochs=1)
    assert capsys.readouterr().out == ""


def test_nan_is_traced_to_its_line_while_the_weights_are_still_finite(tmp_path: Path) -> None:
    module = nets.Rooted()
    with pytest.raises(
        SanityError, match=r"TRN020 \w+: Step 5: .* backward pass of \w+ returns NaN"
    ) as raised:
        fitted(tmp_path, module, SanityCheck(sanity=False, on_finding="raise", watch_every=100))
    assert raised.value.where is not None
    file, _, line = raised.value.where.rpartition(":")
    assert "torch.sqrt" in Path(file).read_text().splitlines()[int(line) - 1]
    assert module.global_step == 5
    assert all(bool(one.isfinite().all()) for one in module.parameters())


def test_curves_that_follow_from_nan_are_listed_under_it(tmp_path: Path) -> None:
    check = SanityCheck(sanity=False)
    fitted(tmp_path, nets.Rooted(), check, epochs=3)
    assert [item.code for item in check.findings] == ["TRN020"]
    assert check.report is not None
    (table,) = [part for part in check.report.parts if part.title == "What follows from it"]
    assert table.rows[0][0] == "TRN050"


def test_batches_may_be_mappings_and_the_ids_a_function(tmp_path: Path) -> None:
    class Plain(nets.Named):
        def validation_step(self, batch: Any, batch_idx: int) -> None:
            return None

    check = SanityCheck(sanity=False, watch_every=None)
    fitted(tmp_path, Plain(), check, as_dict=True, epochs=1)
    assert inputs.read(check.training_dynamics).index[0].endswith(".png")
    check = SanityCheck(sanity=False, sample_ids=lambda batch: [f"/data/set/{one}" for one in batch["path"]],
                        root="/data/set")  # fmt: skip
    fitted(tmp_path, Plain(), check, as_dict=True, epochs=1)
    assert inputs.read(check.training_dynamics).index[0][0] in "rgb"


@pytest.mark.parametrize(
    ("module", "codes"),
    [(nets.Warmed, []), (nets.Manual, []), (nets.Adversaries, [])],
    ids=["warm-up", "manual", "two optimizers"],
)
def test_ways_to_train_that_are_sound_have_no_finding(tmp_path: Path, module: Any, codes: list[str]) -> None:
    check = SanityCheck(watch_every=2, seconds=30)
    fitted(tmp_path, module(), check)
    assert [item.code for item in check.findings] == codes
    assert check.report is not None
    skipped = check.report.skipped.get("TRN001")
    assert skipped == ("there are 2 optimizers" if module is nets.Adversaries else None)


def test_labels_that_are_mixed_are_not_followed_and_the_report_says_so(tmp_path: Path) -> None:
    check = SanityCheck(sanity=False)
    fitted(tmp_path, nets.Mixed(), check, epochs=1)
    assert check.training_dynamics is None
    assert check.report is not None
    assert "no training dynamics: the targets are mixed before the loss" in check.report.facts


def test_accumulated_gradients_and_clipping_are_as_in_the_training(tmp_path: Path) -> None:
    check = SanityCheck(watch_every=1)
    fitted(tmp_path, nets.Sound(), check, accumulate_grad_batches=2, gradient_clip_val=0.5)
    assert check.findings == []


def test_the_callback_is_one_of_lightning_and_can_be_sent_to_another_process() -> None:
    check = SanityCheck(watch_every=7)
    assert isinstance(check, SanityCheck)
    assert isinstance(check, lightning.Callback)
    again = pickle.loads(pickle.dumps(check))
    assert isinstance(again, lightning.Callback)
    assert (again.watch_every, type(again).__name__) == (7, "SanityCheck")


def test_arguments_out_of_range_are_refused() -> None:
    with pytest.raises(InputError, match="on_finding is 'stop'; expected"):
        SanityCheck(on_finding="stop")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="seconds is 0; expected more than 0"):
        SanityCheck(seconds=0)


def test_without_lightning_the_error_says_what_to_install() -> None:
    script = """
import importlib.util
importlib.util.find_spec = lambda name, package=None: None
from dataaudit.modelcheck.lightning import SanityCheck
SanityCheck()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert MissingDependencyError.__name__ in done.stderr
    assert "pip install 'dataaudit[lightning]'" in done.stderr


def test_two_processes_join_what_they_saw(tmp_path: Path) -> None:
    script = Path(nets.__file__)
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path)], capture_output=True, text=True, timeout=200,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert "0 []" in done.stdout
    table = pd.read_parquet(tmp_path / "dataaudit/training_dynamics.parquet")
    assert len(table) == 48
    assert (table["seen"] == 2).all()
    assert [path.name for path in (tmp_path / "dataaudit").glob(".*")] == []
