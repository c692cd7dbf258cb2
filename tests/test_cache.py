from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dataaudit.cache import Digests, Rows, read_arrays, write_arrays
from dataaudit.decode import Decoded


def test_a_digest_is_believed_until_the_file_changes(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"one")
    os.utime(file, (1_600_000_000, 1_600_000_000))
    digests = Digests(tmp_path / "cache")
    assert digests.get(str(file)) is None
    digests.put(str(file), digests.stat(str(file)), "d1")
    digests.save()
    assert Digests(tmp_path / "cache").get(str(file)) == "d1"
    file.write_bytes(b"two")
    assert Digests(tmp_path / "cache").get(str(file)) is None


def test_the_digest_of_a_file_written_just_now_is_not_kept(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"one")
    digests = Digests(tmp_path)
    digests.put(str(file), digests.stat(str(file)), "d1")
    assert digests.get(str(file)) is None


def test_a_file_that_is_gone_has_no_digest(tmp_path: Path) -> None:
    assert Digests.stat(str(tmp_path / "gone")) is None
    assert Digests(None).get(str(tmp_path / "gone")) is None


def test_digests_known_from_elsewhere_are_taken_where_there_are_any() -> None:
    digests = Digests(None)
    digests.assume(pd.Series({"a": "/a.png", "b": "/b.png"}), pd.Series({"a": "d1", "b": None, "c": "d3"}))
    assert (digests.get("/a.png"), digests.get("/b.png")) == ("d1", None)


def test_rows_come_back_as_they_were_added(tmp_path: Path) -> None:
    rows = Rows(tmp_path, "net/1")
    fine = Decoded(width=4, height=3, mode="RGB", format="PNG", phash=2**64 - 1, pixels={"brightness": 0.5})
    rows.add({"d1": fine, "d2": Decoded(error="broken")}, {"d1": np.array([1.5, -2.0], dtype=np.float32)})
    rows.flush()
    again = Rows(tmp_path, "net/1")
    assert "d1" in again
    assert "d3" not in again
    table, features, _ = again.take(pd.Series({"x": "d2", "y": "d1", "z": "d1", "w": None}, dtype=object))
    assert features.tolist() == [[0, 0], [1.5, -2], [1.5, -2], [0, 0]]
    assert table["error"].iloc[0] == "broken"
    assert table["error"].iloc[1:].isna().all()
    assert table["phash"].tolist() == [0, 2**64 - 1, 2**64 - 1, 0]
    assert table["brightness"].iloc[1] == 0.5


def test_the_rows_of_two_embedders_are_kept_apart(tmp_path: Path) -> None:
    for name in ("a/b", "a_b", "a" * 300):
        rows = Rows(tmp_path, name)
        assert "d1" not in rows
        rows.add({"d1": Decoded(width=1, height=1)}, {})
        rows.flush()


def test_arrays_that_are_missing_or_damaged_read_as_none(tmp_path: Path) -> None:
    assert read_arrays(tmp_path / "none.npz") is None
    write_arrays(tmp_path / "a.npz", {"x": np.arange(50), "y": np.array(["a", "b"])})
    good = (tmp_path / "a.npz").read_bytes()
    assert read_arrays(tmp_path / "a.npz")["x"].tolist() == list(range(50))
    rng = np.random.default_rng(0)
    for _ in range(300):
        data = bytearray(good)
        data[rng.integers(len(data))] = rng.integers(256)
        (tmp_path / "a.npz").write_bytes(bytes(data[: rng.integers(len(data) // 2, len(data) + 1)]))
        found = read_arrays(tmp_path / "a.npz")
        assert found is None or "x" not in found or found["x"].tolist() == list(range(50))


def test_objects_are_never_unpickled(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.array([{"a": 1}], dtype=object))
    assert read_arrays(tmp_path / "a.npz") is None


def test_a_part_without_its_columns_is_left_out(tmp_path: Path) -> None:
    rows = Rows(tmp_path, "net")
    rows.add({"d1": Decoded(width=1, height=1)}, {})
    rows.flush()
    (part,) = tmp_path.glob("*/*.npz")
    write_arrays(part, {"digest": np.array(["d1"])})
    assert "d1" not in Rows(tmp_path, "net")


@pytest.mark.parametrize("value", [1e3, 1e30])
def test_features_beyond_half_precision_are_kept_whole(tmp_path: Path, value: float) -> None:
    rows = Rows(tmp_path, "net")
    rows.add({"d1": Decoded(width=1, height=1)}, {"d1": np.array([value], dtype=np.float32)})
    assert rows.take(pd.Series({"a": "d1"}))[1][0, 0] == pytest.approx(value, rel=1e-3)
