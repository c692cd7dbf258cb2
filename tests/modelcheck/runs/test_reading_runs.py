"""Runs are read as each tool writes them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dataaudit.cli import main
from dataaudit.errors import FormatError, InputError
from dataaudit.modelcheck.runs import pairs_of, read_runs

LIGHTNING = """epoch,lr-Adam,step,train_loss_epoch,train_loss_step,val_loss
,0.1,9,,,
0,,9,,2.0,
0,,19,,,1.8
0,,19,2.2,,
1,,29,,1.5,
1,,39,,,nan
1,,39,1.6,,
"""


def test_lightning_rows_are_sparse_and_a_cell_that_says_nan_is_a_value(tmp_path: Path) -> None:
    folder = tmp_path / "version_0"
    folder.mkdir()
    (folder / "metrics.csv").write_text(LIGHTNING)
    (history,) = read_runs(tmp_path)
    assert history.name == "version_0"
    assert history.curves["train_loss_epoch"].y.tolist() == [2.2, 1.6]
    assert history.curves["train_loss_epoch"].epoch is not None
    val = history.curves["val_loss"]
    assert (val.y[0], np.isnan(val.y[1]), val.x.tolist()) == (1.8, True, [19.0, 39.0])


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("train_loss", "val_loss"), ("loss", "lower")),
        (("loss", "val_loss"), ("loss", "lower")),
        (("Loss/train", "Loss/valid"), ("loss", "lower")),
        (("train/accuracy", "eval/accuracy"), ("accuracy", "higher")),
        (("trainAcc", "valAcc"), ("accuracy", "higher")),
        (("train/box_loss", "val/box_loss"), ("box loss", "lower")),
    ],
)
def test_names_that_belong_together_are_paired(names: tuple[str, str], said: tuple[str, str]) -> None:
    frame = pd.DataFrame({"epoch": range(8), names[0]: np.arange(8.0) + 1, names[1]: np.arange(8.0) + 2})
    (history,) = read_runs(frame)
    (pair,) = pairs_of(history)
    assert (pair.names, (pair.quantity, pair.better)) == (names, said)


def test_a_long_table_with_runs_gives_each_run_its_curves() -> None:
    rows = [(run, tag, step, 1.0 * step) for run in "ab" for tag in ("loss", "val_loss") for step in range(3)]
    found = read_runs(pd.DataFrame(rows, columns=["run", "metric", "step", "value"]))
    assert [(one.name, sorted(one.curves)) for one in found] == [
        ("a", ["loss", "val_loss"]), ("b", ["loss", "val_loss"]),
    ]  # fmt: skip


def test_the_file_store_of_mlflow_is_read_with_its_names_and_epochs(tmp_path: Path) -> None:
    run = tmp_path / "mlruns" / "0" / "4f"
    (run / "metrics" / "val").mkdir(parents=True)
    (run / "meta.yaml").write_text("artifact_uri: x\nrun_name: brave-fish-1\n")
    (run / "metrics" / "loss").write_text("1700000000000 2.5 0\n1700000000001 NaN 10\n")
    (run / "metrics" / "epoch").write_text("1700000000000 0 0\n1700000000001 1 10\n")
    (run / "metrics" / "val" / "loss").write_text("1700000000000 2.4 10\n")
    (history,) = read_runs(tmp_path)
    assert (history.name, sorted(history.curves)) == ("brave-fish-1", ["loss", "val/loss"])
    loss = history.curves["loss"]
    assert (loss.x.tolist(), loss.epoch.tolist()) == ([0.0, 10.0], [0.0, 1.0])  # type: ignore[union-attr]
    (run / "metrics" / "loss").write_text("1700000000000 2.5 0\nbroken\n")
    with pytest.raises(FormatError, match="loss:2: the line is 'broken'"):
        read_runs(tmp_path)


def test_the_history_of_transformers_is_read(tmp_path: Path) -> None:
    log = [{"epoch": 0.5, "step": 5, "loss": 2.0}, {"epoch": 1.0, "step": 10, "eval_loss": 1.5}]
    (tmp_path / "trainer_state.json").write_text(json.dumps({"log_history": log}))
    (history,) = read_runs(tmp_path)
    assert {name: one.y.tolist() for name, one in history.curves.items()} == {
        "loss": [2.0],
        "eval_loss": [1.5],
    }


def test_event_files_are_read_and_folders_of_splits_are_one_run(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from torch.utils.tensorboard import SummaryWriter

    for split in ("train", "validation"):
        with SummaryWriter(str(tmp_path / "one" / split)) as writer:
            for step in range(3):
                writer.add_scalar("epoch_loss", 1.0 / (step + 1), step)
    (history,) = read_runs(tmp_path)
    assert (history.name, sorted(history.curves)) == ("one", ["train/epoch_loss", "validation/epoch_loss"])
    np.testing.assert_allclose(history.curves["train/epoch_loss"].y, [1, 1 / 2, 1 / 3], rtol=1e-6)


def test_curves_are_named_by_the_user_where_their_names_dont_say(tmp_path: Path) -> None:
    (history,) = read_runs(pd.DataFrame({"epoch": range(4), "a": range(4), "b": range(4)}))
    assert pairs_of(history) == []
    (pair,) = pairs_of(history, ["a,b,lower"])
    assert pair.names == ("a", "b")
    with pytest.raises(InputError, match="whether lower or higher"):
        pairs_of(history, ["a,b"])
    with pytest.raises(InputError, match="no curve 'c'"):
        pairs_of(history, ["c,b,lower"])


def test_what_holds_no_curves_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no curves were found"):
        read_runs(tmp_path)
    with pytest.raises(InputError, match="no such file"):
        read_runs(tmp_path / "runs")
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(FormatError, match="isn't a format of curves"):
        read_runs(tmp_path / "notes.txt")


def test_the_command_exits_with_1_on_a_finding(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    epoch = np.arange(30)
    frame = pd.DataFrame(
        {"epoch": epoch, "train_loss": np.exp(-epoch / 5), "val_loss": np.exp(-epoch / 5) + 0.1}
    )
    frame.to_csv(tmp_path / "run.csv", index=False)
    assert main(["model", "curves", str(tmp_path / "run.csv")]) == 0
    frame.assign(val_loss=np.where(epoch < 10, frame.val_loss, 0.02 * epoch)).to_csv(
        tmp_path / "run.csv", index=False
    )
    assert main(["model", "curves", str(tmp_path), "--output", str(tmp_path / "out")]) == 1
    assert "TRN055" in capsys.readouterr().out
    assert (tmp_path / "out" / "model-curves.html").stat().st_size > 20_000
