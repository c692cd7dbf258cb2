from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from made_reports import relabel, report_of, tables_of

from dataaudit import decisions
from dataaudit.report import summarize, write
from dataaudit.types import Report


def test_four_files_are_written_and_nothing_else(report: Report, tmp_path: Path) -> None:
    files = write(report, tmp_path / "out" / "reports")
    names = ["findings.csv", "findings.parquet", "report.html", "report.json"]
    assert sorted(files) == names
    assert sorted(path.name for path in (tmp_path / "out" / "reports").iterdir()) == names
    assert all(files[name] == tmp_path / "out" / "reports" / name for name in names)


def test_the_json_is_the_summary(report: Report, tmp_path: Path) -> None:
    assert json.loads(write(report, tmp_path)["report.json"].read_text("utf-8")) == summarize(report)


def test_the_parquet_has_every_finding_with_its_types(report: Report, tmp_path: Path) -> None:
    table = pd.read_parquet(write(report, tmp_path)["findings.parquet"])
    assert table["key"].tolist() == ["k3", "k4", "k1", "k2"]
    assert table["score"].tolist() == [0.0, 0.0, 0.02, 0.32]
    assert table["decision"].tolist()[3] == "keep"
    assert json.loads(table["fix"][2])["new"] == "dog"


def test_no_findings_are_tables_with_the_same_columns(report: Report, tmp_path: Path) -> None:
    some = pd.read_parquet(write(report, tmp_path / "a")["findings.parquet"])
    none = pd.read_parquet(write(replace(report, items=()), tmp_path / "b")["findings.parquet"])
    assert len(none) == 0
    assert none.columns.tolist() == some.columns.tolist()


def test_the_csv_with_verdicts_filled_in_is_a_file_of_decisions(report: Report, tmp_path: Path) -> None:
    path = write(report, tmp_path)["findings.csv"]
    assert decisions.read(path, report) == []
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    table.loc[table["finding"] == "k1", "verdict"] = "accept"
    table.to_csv(path, index=False)
    (decision,) = decisions.read(path, report)
    assert (decision.finding, decision.verdict) == ("k1", "accept")


def test_a_spreadsheet_takes_no_cell_of_the_csv_for_a_formula(tmp_path: Path) -> None:
    tables = tables_of({"=cmd|x.jpg": "+cat", "b.jpg": "@dog", "c.jpg": "-x"})
    report = report_of(tables, relabel("k", tables, "L0", "@dog", message='=HYPERLINK("x")'))
    with write(report, tmp_path)["findings.csv"].open(encoding="utf-8-sig", newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["sample_id"] == "'=cmd|x.jpg"
    assert (row["given"], row["suggested"]) == ("'+cat", "'@dog")
    assert row["message"] == '\'=HYPERLINK("x")'
    assert row["probability"] == "0.9"


def test_names_that_are_not_utf_8_are_written_in_every_form(tmp_path: Path) -> None:
    tables = tables_of({"caf\udce9.jpg": "cat"}, classes=("dog",))
    files = write(report_of(tables, relabel("k", tables, "L0", "dog")), tmp_path)
    assert pd.read_parquet(files["findings.parquet"])["sample_id"].tolist() == ["caf\\udce9.jpg"]
    assert "caf\\udce9.jpg" in files["findings.csv"].read_text("utf-8-sig")


def test_thumbnails_are_kept_in_the_cache_of_the_dataset(
    report: Report, photos: Path, tmp_path: Path
) -> None:
    write(report, tmp_path / "out")
    kept = list((photos.parent / ".dataaudit" / "cache" / "thumbnails").rglob("*.jpg"))
    assert len({path.name[:30] for path in kept}) == 3


def test_a_file_is_replaced_whole(report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = write(report, tmp_path)["report.html"].read_bytes()

    def full(self: Path, content: bytes) -> int:
        with self.open("wb") as file:
            file.write(content[:10])
        raise OSError("disk full")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="disk full"):
        write(replace(report, items=()), tmp_path)
    monkeypatch.undo()
    assert (tmp_path / "report.html").read_bytes() == before
    assert not [name for name in tmp_path.iterdir() if name.suffix == ".tmp"]


def test_writing_again_gives_the_same_bytes(report: Report, tmp_path: Path) -> None:
    first = {name: path.read_bytes() for name, path in write(report, tmp_path).items()}
    assert {name: path.read_bytes() for name, path in write(report, tmp_path).items()} == first
