"""What TensorBoard and MLflow leave on disk, also half-written, resumed and broken."""

from __future__ import annotations

import json
import math
import sqlite3
import struct
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dataaudit.errors import DataAuditError, FormatError, InputError
from dataaudit.modelcheck.runs import curves, read_runs
from dataaudit.modelcheck.runs.event_files import _checksum, scalars
from dataaudit.modelcheck.runs.steps import in_order


def record(step: int, tag: bytes, value: float) -> bytes:
    """An event as ``SummaryWriter.add_scalar`` writes it."""
    inner = b"\x0a" + bytes([len(tag)]) + tag + b"\x15" + struct.pack("<f", value)
    summary = b"\x0a" + bytes([len(inner)]) + inner
    event = (
        b"\x09" + struct.pack("<d", 1.0) + b"\x10" + bytes([step]) + b"\x2a" + bytes([len(summary)]) + summary
    )
    length = struct.pack("<Q", len(event))
    return length + struct.pack("<I", _checksum(length)) + event + struct.pack("<I", _checksum(event))


def test_the_checksum_is_that_of_tensorflow() -> None:
    assert _checksum(b"123456789") == 0xC78AB0E5  # CRC-32C of these digits is 0xE3069283


def test_an_event_file_that_is_still_written_is_read_up_to_its_last_whole_record(tmp_path: Path) -> None:
    path = tmp_path / "events.out.tfevents.1"
    path.write_bytes(record(0, b"loss", 2.5) + record(1, b"loss", 1.5)[:-7])
    assert list(scalars(path)) == [("loss", 0, 2.5)]


def test_a_broken_event_file_is_an_error_with_the_byte(tmp_path: Path) -> None:
    path = tmp_path / "events.out.tfevents.1"
    first = record(0, b"loss", 2.5)
    path.write_bytes(first + b"\xff" * 40)
    with pytest.raises(FormatError, match=f"the record at byte {len(first)} is broken"):
        read_runs(tmp_path)
    path.write_bytes(b"not an event file, but long enough for a head")
    with pytest.raises(FormatError, match="its first record can't be read"):
        read_runs(path)


def test_event_files_of_torch_are_read_alike_in_the_old_and_the_new_style(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(tmp_path)) as writer:
        writer.add_text("note", "no number", 0)
        writer.add_histogram("weights", np.arange(4.0), 0)
        writer.add_scalar("loss", 2.5, 3)
        writer.add_scalar("loss", math.inf, 300)
        writer.add_scalar("val_loss", 0.1, 5, new_style=True, double_precision=True)
    (history,) = read_runs(tmp_path)
    assert {name: (one.x.tolist(), one.y.tolist()) for name, one in history.curves.items()} == {
        "loss": ([3.0, 300.0], [2.5, math.inf]),
        "val_loss": ([5.0], [0.1]),
    }


def database(path: Path) -> None:
    with sqlite3.connect(path) as one:
        one.executescript("""
            create table experiments (experiment_id integer, name text, lifecycle_stage text);
            create table runs (run_uuid text, name text, experiment_id integer, lifecycle_stage text);
            create table metrics
                (key text, value float, timestamp bigint, run_uuid text, step bigint, is_nan boolean);
            insert into experiments values (1, 'cats', 'active');
            insert into runs values ('4f', 'brave-fish-1', 1, 'active'), ('50', 'gone', 1, 'deleted');
            insert into metrics values ('train_loss', 2.5, 1, '4f', 0, 0),
                ('train_loss', 0.0, 2, '4f', 10, 1), ('train_loss', 1.0, 1, '50', 0, 0),
                ('val_loss', 1.7976931348623157e308, 2, '4f', 10, 0);
        """)
    one.close()


@pytest.mark.parametrize("named", ["{}", "sqlite:///{}", "{}/.."])
def test_the_database_of_mlflow_is_read_without_mlflow(tmp_path: Path, named: str) -> None:
    database(tmp_path / "mlflow.db")
    source = tmp_path if named == "{}/.." else named.format(tmp_path / "mlflow.db")
    (history,) = read_runs(source)
    assert (history.name, history.curves["val_loss"].y.tolist()) == ("cats/brave-fish-1", [math.inf])
    assert history.curves["train_loss"].y[0] == 2.5
    assert np.isnan(history.curves["train_loss"].y[1])


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.db", b"SQLite format 3\x00", "can't be read as a database of MLflow"),
        ("a.csv", b"", "the table can't be read"),
        ("a.csv", b"epoch,note\n1,x\n2,y\n", "no curves were found"),
        ("a.json", b"{", "the table can't be read"),
    ],
)
def test_a_file_without_curves_is_an_error_that_names_it(
    tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataAuditError, match=said) as caught:
        read_runs(tmp_path / name)
    assert name in str(caught.value)


def test_a_server_that_isnt_there_is_an_error_at_once() -> None:
    with pytest.raises(InputError, match="no tracking server answers"):
        read_runs("http://127.0.0.1:9")


def test_a_table_with_semicolons_and_a_cut_off_last_line_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("\ufeffepoch;train_loss;val_loss\n0;2.5;2.6\n1;1.5;1.7\n2;1.")
    (history,) = read_runs(tmp_path / "a.csv")
    assert history.curves["val_loss"].y.tolist() == [2.6, 1.7]
    (tmp_path / "b.jsonl").write_text(
        json.dumps({"step": 1, "loss": 2.5})
        + "\n"
        + json.dumps({"step": 2, "loss": 1.5})
        + '\n{"step": 3, "l'
    )
    (history,) = read_runs(tmp_path / "b.jsonl")
    assert history.curves["loss"].y.tolist() == [2.5, 1.5]


@pytest.mark.parametrize(
    ("x", "epoch", "expected", "note"),
    [
        ([0, 1, 2, 3], None, [0, 1, 2, 3], ""),
        ([0, 1, 2, 3, 2, 3, 4], None, [0, 1, 2, 3, 4], "go back from 3 to 2"),
        ([0, 1, 0, 1, 0, 1], [0, 0, 1, 1, 2, 2], [0, 1, 2, 3, 4, 5], "restart 2 times"),
        ([1, 2, 3, 1, 2, 3, 1], None, [1, 2, 3, 4, 5, 6, 7], "restart 2 times"),
        ([5, 4, 3, 2, 1], None, [1, 2, 3, 4, 5], ""),
    ],
    ids=["in order", "resumed", "counted in each epoch", "counted anew", "newest first"],
)
def test_steps_that_go_back_are_brought_into_the_order_of_training(
    x: list[int], epoch: list[int] | None, expected: list[int], note: str
) -> None:
    told = None if epoch is None else np.array(epoch, dtype=float)
    found, values, _, said = in_order(np.array(x, dtype=float), np.arange(len(x), dtype=float), told)
    assert found.tolist() == expected
    assert len(values) == len(expected)
    assert note in said


def test_a_resumed_run_counts_what_came_later_and_says_so() -> None:
    frame = pd.DataFrame({"epoch": [0, 1, 2, 3, 2, 3], "train_loss": [4.0, 3.0, 9.0, 9.0, 2.0, 1.0]})
    (history,) = read_runs(frame)
    assert history.curves["train_loss"].y.tolist() == [4.0, 3.0, 2.0, 1.0]
    (table, *_) = curves(frame).parts
    assert table.note == "train_loss: its steps go back from 3 to 2: the later values count."
