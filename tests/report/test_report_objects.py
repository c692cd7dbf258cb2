from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from made_objects import found, object_report, objects_of
from made_reports import report_of, tables_of
from rich.console import Console

from dataaudit import decisions
from dataaudit.report import (
    summarize,
    to_github,
    to_json,
    to_junit,
    to_markdown,
    to_sarif,
    to_terminal,
    write,
)  # fmt: skip
from dataaudit.types import Finding, Report


def terminal(report: Report) -> str:
    console = Console(file=io.StringIO(), width=80)
    to_terminal(report, console)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_the_classes_are_counted_by_kind_and_a_missing_object_counts_for_its_class() -> None:
    about = summarize(object_report(objects_of()))["objects"]
    assert about["codes"] == ["BOX002", "BOX003", "BOX004", "BOX006"]
    assert about["classes"] == [
        {
            "name": "cat",
            "n": 2,
            "open": 2,
            "expected": pytest.approx(1.7),
            "counts": {"BOX002": 1, "BOX003": 1},
        },
        {"name": "dog", "n": 2, "open": 2, "expected": 1.5, "counts": {"BOX004": 1, "BOX006": 1}},
    ]
    assert (about["objects"], about["empty"], about["baseline"]) == (4, 1, None)


def test_what_a_person_kept_is_not_counted() -> None:
    about = summarize(object_report(objects_of()))["objects"]
    assert "BOX007" not in about["codes"]


def test_an_image_without_objects_is_not_unlabeled_and_doubtful_boxes_are_counted() -> None:
    summary = summarize(object_report(objects_of()))
    counts = summary["counts"]
    assert (counts["objects"], counts["labels"], counts["unlabeled"]) == (4, 4, 0)
    assert counts["doubtful_labels"] == 4
    assert summary["estimate"] == (
        "Of these 4 doubtful boxes, about 3 are wrong or missing. 1 more was kept by a person."
    )


def test_a_finding_says_what_changes_and_where_both_boxes_are() -> None:
    rows = {row["key"]: row for row in summarize(object_report(objects_of()))["findings"]}
    assert {key: row["change"] for key, row in rows.items()} == {
        "k1": None, "k2": "missing", "k3": "moved", "k4": "extra", "k5": None,
    }  # fmt: skip
    assert (rows["k3"]["box"], rows["k3"]["suggested_box"]) == ([-20, 5, 30, 45], [0, 5, 30, 45])
    assert (rows["k2"]["box"], rows["k2"]["label"]) == (None, None)
    assert rows["k5"]["locator"] == {"file": "labels/2.txt", "item": 2, "field": None}


def test_a_finding_about_an_image_has_no_class_of_its_objects() -> None:
    tables = objects_of()
    dark = Finding(
        key="k", code="IMG002", item_id="images/1.jpg", sample_id="images/1.jpg", score=0.1, probability=None,
        message="Dark.", given="cat, dog",
    )  # fmt: skip
    (row,) = summarize(object_report(tables, dark))["findings"]
    assert (row["given"], row["label"], row["change"]) == (None, None, None)


def test_a_proposed_box_without_a_fix_is_a_missing_object() -> None:
    tables = objects_of()
    seen = found(
        tables, "k", "BOX003", "images/3.jpg:+1,1,9,9", sample_id="images/3.jpg", suggested_box=(1, 1, 9, 9)
    )
    (row,) = summarize(object_report(tables, seen))["findings"]
    assert (row["change"], row["locator"]["file"]) == ("missing", "labels/3.txt")
    # Of no class, so its message is shown
    assert "images/3.jpg   Odd." in terminal(object_report(tables, seen))


def test_only_the_images_that_are_shown_come_with_their_boxes() -> None:
    tables = objects_of(objects={**{f"{at}.jpg": [("cat", (1, 1, 9, 9))] for at in range(9)}})
    images = summarize(object_report(tables, found(tables, "k", "BOX004", "3.jpg:1")))["objects"]["images"]
    assert images == {
        "3.jpg": {
            "width": 160, "height": 120, "n": 1,
            "boxes": [{"id": "3.jpg:1", "name": "cat", "box": [1, 1, 9, 9], "flags": []}],
        }
    }  # fmt: skip


def test_a_crowded_image_comes_with_200_boxes_at_most() -> None:
    tables = objects_of(objects={"1.jpg": [("cat", (1, 1, 9, 9))] * 300})
    image = summarize(object_report(tables, found(tables, "k", "BOX004", "1.jpg:1")))["objects"]["images"]
    assert (image["1.jpg"]["n"], len(image["1.jpg"]["boxes"])) == (300, 200)


def test_a_dataset_of_classes_has_no_objects() -> None:
    assert summarize(report_of(tables_of({"1.jpg": "cat"})))["objects"] is None


def test_the_matrix_has_the_wrong_classes_and_not_the_boxes_to_remove() -> None:
    matrix = summarize(object_report(objects_of()))["matrix"]
    assert (matrix["classes"], matrix["counts"]) == (["cat", "dog"], [[0, 1], [0, 0]])


def test_a_report_without_any_object_can_be_summed_up() -> None:
    tables = objects_of(objects={"1.jpg": []})
    empty = pd.DataFrame(columns=["sample_id", "name", "confidence", "x1", "y1", "x2", "y2"])
    summary = summarize(report_of(tables, detections=empty))
    assert summary["objects"]["baseline"]["classes"] == []
    assert summary["estimate"] == "Nothing to fix in 1 image."
    assert json.loads(to_json(summary)) == summary


def test_the_terminal_has_a_table_of_classes_by_kind() -> None:
    lines = [line.split() for line in terminal(object_report(objects_of())).splitlines()]
    assert ["Class", "Objects", "002", "003", "004", "006"] in lines
    assert ["cat", "2", "1", "1", "·", "·"] in lines
    assert lines[1][1:] == ["yolo", "·", "3", "images", "·", "4", "objects", "·", "2", "classes"]


def test_sarif_has_the_line_of_the_label_and_the_boxes_in_the_image() -> None:
    result = json.loads(to_sarif(object_report(objects_of())))["runs"][0]["results"][3]
    assert result["message"]["text"].startswith("40 % of the box")
    (place,) = result["locations"]
    assert place["physicalLocation"] == {
        "artifactLocation": {"uri": "labels/2.txt"}, "region": {"startLine": 1},
    }  # fmt: skip
    assert place["logicalLocations"] == [{"fullyQualifiedName": "labels/2.txt:1", "kind": "object"}]
    assert result["properties"]["suggested_box"] == [0, 5, 30, 45]
    (attached,) = result["attachments"]
    assert attached["artifactLocation"] == {"uri": "images/2.jpg"}
    assert attached["rectangles"] == [
        {"left": -20, "top": 5, "right": 30, "bottom": 45, "message": {"text": "in the dataset"}},
        {"left": 0, "top": 5, "right": 30, "bottom": 45, "message": {"text": "proposed"}},
    ]


def test_github_and_junit_name_the_box_and_the_line() -> None:
    report = object_report(objects_of())
    assert (
        "::error file=images/3.jpg,title=BOX003 missing_object::A cat has no box (80%25 likely an error) "
        "[proposed box 70, 60, 100, 110; labels/3.txt]\n"
    ) in to_github(report).replace("title=BOX003::", "title=BOX003 missing_object::")
    assert "images/1.jpg: Odd (90% likely an error) [box 10, 10, 40, 50; labels/1.txt:1]" in to_junit(report)


def test_markdown_has_a_table_of_classes_by_kind() -> None:
    assert "| cat | 2 | 1 | 1 | 0 | 0 | 2 |\n| dog | 2 | 0 | 0 | 1 | 1 | 2 |\n" in to_markdown(
        object_report(objects_of())
    )


def test_the_findings_as_files_have_the_corners_of_both_boxes(tmp_path: Path) -> None:
    files = write(object_report(objects_of()), tmp_path)
    with files["findings.csv"].open(encoding="utf-8-sig", newline="") as file:
        rows = {row["finding"]: row for row in csv.DictReader(file)}
    assert [rows["k3"][name] for name in ("x1", "x2", "new_x1", "label_file", "label_item")] == [
        "-20.0", "30.0", "0.0", "labels/2.txt", "1",
    ]  # fmt: skip
    assert rows["k2"]["x1"] == ""
    table = pq.read_table(files["findings.parquet"]).to_pandas().set_index("key")
    assert table.loc["k2", ["new_x1", "new_y1", "new_x2", "new_y2"]].tolist() == [70, 60, 100, 110]
    assert pd.isna(table.loc["k2", "x1"])


def test_the_findings_of_objects_with_verdicts_filled_in_are_a_file_of_decisions(tmp_path: Path) -> None:
    report = object_report(objects_of())
    path = write(report, tmp_path)["findings.csv"]
    table = pd.read_csv(path, dtype=str, keep_default_na=False).set_index("finding")
    table.loc["k2", ["verdict", "box"]] = ["other", "70, 60, 99, 109"]
    table.loc["k3", "verdict"] = "accept"
    table.to_csv(path)
    said = {each.finding: each.fix for each in decisions.read(path, report)}
    assert [said[key].op for key in ("k2", "k3")] == ["add", "move"]
    assert said["k2"].box == (70, 60, 99, 109)


def test_the_findings_of_classes_have_the_columns_that_they_had(tmp_path: Path) -> None:
    report = report_of(tables_of({"1.jpg": "cat"}))
    assert list(report.findings) == [
        "code", "item_id", "sample_id", "given", "suggested", "score", "probability", "message", "decision",
    ]  # fmt: skip
    files = write(report, tmp_path)
    assert "x1" not in files["findings.csv"].read_text(encoding="utf-8-sig")
    assert "x1" not in pq.read_table(files["findings.parquet"]).column_names


def test_the_findings_table_of_objects_has_the_boxes() -> None:
    table = object_report(objects_of()).findings
    assert table.loc["k3", ["x1", "y1", "x2", "y2", "new_x1", "new_x2"]].tolist() == [-20, 5, 30, 45, 0, 30]
    assert table.loc["k2", ["x1", "y1", "x2", "y2"]].isna().all()
    assert list(replace(object_report(objects_of()), items=()).findings.columns[-8:]) == [
        "x1", "y1", "x2", "y2", "new_x1", "new_y1", "new_x2", "new_y2",
    ]  # fmt: skip
