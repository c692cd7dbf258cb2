from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from findings_to_decide import image_report, object_report

from dataaudit import decisions, state
from dataaudit.errors import InputError
from dataaudit.types import Decision, Finding, Fix, Report


@pytest.fixture
def report(tmp_path: Path) -> Report:
    return image_report(tmp_path)


@pytest.fixture
def objects(tmp_path: Path) -> Report:
    return object_report(tmp_path)


def file(tmp_path: Path, content: str | bytes, name: str = "decisions.csv") -> Path:
    (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return tmp_path / name


SAME = {
    "csv": "finding,verdict,label,reviewer,note\nk1,accept,,ann,sure\nk2,other,dog,ann,\n",
    "code and sample": "finding,verdict,label,reviewer,note\n"
    "LBL001:cat/1.jpg,accept,,ann,sure\nk2,other,dog,ann,\n",
    "from a spreadsheet": "\ufeffFinding;Verdict;Label;Reviewer;Note\r\n"
    "k1;Accept;;ann;sure\r\nk2;OTHER;dog;ann;\r\n;;;;\r\n",
    "short rows": "finding,verdict,reviewer,note,label\nk1,accept,ann,sure\nk2,other,ann,,dog\n",
    "undecided rows": "finding,verdict,label,reviewer,note\n"
    "k5,,,,\nk1,accept,,ann,sure\nk2,other,dog,ann,\nk4\n",
}


@pytest.mark.parametrize("content", SAME.values(), ids=SAME.keys())
def test_these_tables_say_the_same(tmp_path: Path, report: Report, content: str) -> None:
    one, two = decisions.read(file(tmp_path, content), report)
    assert one == Decision(
        finding="k1", verdict="accept", fix=report.items[0].fix, reviewer="ann", note="sure"
    )
    assert two == Decision(finding="k2", verdict="other", fix=report.items[1].fix, reviewer="ann")


def test_lines_of_json_are_read(tmp_path: Path, report: Report) -> None:
    path = file(tmp_path, '{"finding": "k1", "verdict": "keep", "note": null}\n\n', "d.jsonl")
    assert decisions.read(path, report) == [Decision(finding="k1", verdict="keep")]


WRONG = {
    "finding": ("k9,keep,", ":2: There is no finding 'k9'"),
    "several": ("LBL002:cat/2.jpg,keep,", ":2: 'LBL002:cat/2.jpg' names 2 findings.\nGive the key: k3, k4."),
    "verdict": ("k1,acept,", ":2: The verdict is 'acept'. Did you mean 'accept'?"),
    "no label": ("k1,other,", ":2: The verdict is 'other' and the label is empty"),
    "label elsewhere": ("k1,accept,cow", ":2: The verdict 'accept' comes with the label 'cow'"),
    "unknown label": ("k1,other,dgo", ":2: No sample has the class 'dgo'. Did you mean 'dog'?"),
    "same label": ("k1,other,cat", ":2: The sample cat/1.jpg has the class 'cat' already"),
    "nothing to accept": ("k5,accept,", ":2: The finding k5 proposes no fix"),
    "too many": ("k1,keep,,x", ":2: The row has 4 cells; the header has 3"),
    "later line": ('k1,keep,"\n"\nk9,keep,', ":4: There is no finding 'k9'"),
}


@pytest.mark.parametrize(("row", "message"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_row_is_named_with_its_line(tmp_path: Path, report: Report, row: str, message: str) -> None:
    path = file(tmp_path, f"finding,verdict,label\n{row}\n")
    with pytest.raises(InputError) as error:
        decisions.read(path, report)
    assert f"{path}{message}" in str(error.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("d.csv", "finding,verdikt\n", ":1: There is no column 'verdikt'. Did you mean 'verdict'"),
        ("d.csv", "finding,label\n", ":1: The column 'verdict' is missing"),
        ("d.jsonl", '{"finding": "k1", "verdict": "keep"}\n{"find', ":2: The line is not JSON"),
        ("d.jsonl", "[1]\n", ":1: The line is a list; expected an object"),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, report: Report, name: str, content: str, message: str) -> None:
    with pytest.raises(InputError) as error:
        decisions.read(file(tmp_path, content, name), report)
    assert message in str(error.value)


def test_a_file_that_is_not_there_says_so(tmp_path: Path, report: Report) -> None:
    with pytest.raises(InputError, match="no such file of decisions"):
        decisions.read(tmp_path / "nothing.csv", report)


def test_a_new_class_is_accepted_when_it_is_meant(tmp_path: Path, report: Report) -> None:
    path = file(tmp_path, "finding,verdict,label\nk1,other,fox\n")
    [decision] = decisions.read(path, report, new_classes=True)
    assert decision.fix is not None
    assert decision.fix.new == "fox"


def test_a_template_reads_once_it_is_filled_in(tmp_path: Path, report: Report) -> None:
    path = tmp_path / "template.csv"
    decisions.write_template(report, path)
    assert decisions.read(path, report) == []
    with path.open(newline="", encoding="utf-8-sig") as opened:
        rows = list(csv.DictReader(opened))
    assert rows[0]["sample_id"] == "cat/1.jpg"
    assert rows[0]["message"].startswith("'=")
    rows[1]["verdict"] = "Keep"
    with path.open("w", newline="", encoding="utf-8-sig") as opened:
        writer = csv.DictWriter(opened, rows[0].keys(), delimiter=";")
        writer.writeheader()
        writer.writerows(rows)
    assert decisions.read(path, report) == [Decision(finding="k2", verdict="keep")]


def test_the_last_decision_on_a_finding_counts(report: Report) -> None:
    source = report.tables.source
    assert source is not None
    assert decisions.latest(source) == {}
    accept = Decision(
        finding="k1", verdict="accept", fix=report.items[0].fix, reviewer="ann", note="a\u2028b"
    )
    decisions.record(source, [accept, Decision(finding="k2", verdict="keep")])
    decisions.record(source, [Decision(finding="k2", verdict="skip", at="2026-01-01T00:00:00+00:00")])
    found = decisions.latest(source)
    assert found["k1"].fix == accept.fix
    assert found["k1"].note == "a\u2028b"
    assert found["k1"].at is not None
    assert (found["k2"].verdict, found["k2"].at) == ("skip", "2026-01-01T00:00:00+00:00")


def test_a_line_that_was_torn_is_passed_over_and_replaced(report: Report) -> None:
    source = report.tables.source
    assert source is not None
    decisions.record(source, [Decision(finding="k1", verdict="keep")])
    path = state.decisions_file(source)
    path.write_bytes(path.read_bytes() + b'{"finding": "k2", "ver')
    assert list(decisions.latest(source)) == ["k1"]
    decisions.record(source, [Decision(finding="k3", verdict="keep")])
    assert list(decisions.latest(source)) == ["k1", "k3"]


# Objects


def decided(tmp_path: Path, report: Report, row: str) -> Fix | None:
    [decision] = decisions.read(file(tmp_path, f"finding;verdict;label;box\n{row}\n"), report)
    return decision.fix


def test_another_class_or_box_of_an_object_is_its_fix(tmp_path: Path, objects: Report) -> None:
    relabeled = decided(tmp_path, objects, "class;other;cow;")
    assert relabeled is not None
    assert (relabeled.op, relabeled.label_id, relabeled.old, relabeled.new) == (
        "relabel", "a.jpg:1", "cat", "cow"
    )  # fmt: skip
    moved = decided(tmp_path, objects, "loose;other;;21, 11, 39, 29")
    assert moved is not None
    assert (moved.op, moved.old_box, moved.box) == ("move", (20, 10, 40, 30), (21, 11, 39, 29))
    assert decided(tmp_path, objects, "loose;other;cat;21, 11, 39, 29") == moved
    added = decided(tmp_path, objects, "missing;other;cow;")
    assert added is not None
    assert (added.op, added.label_id, added.new, added.box) == (
        "add", "a.jpg:+50,50,70,70", "cow", (50, 50, 70, 70)
    )  # fmt: skip
    smaller = decided(tmp_path, objects, "missing;other;;[50 50 60.5 70]")
    assert smaller is not None and (smaller.new, smaller.box) == ("dog", (50, 50, 60.5, 70))
    another = decided(tmp_path, objects, "dark;other;cow;1,2,3,4")
    assert another is not None and (another.op, another.new, another.box) == ("add", "cow", (1, 2, 3, 4))


@pytest.mark.parametrize("key", ["class", "loose", "missing"])
def test_the_proposed_fix_of_an_object_is_accepted(tmp_path: Path, objects: Report, key: str) -> None:
    assert decided(tmp_path, objects, f"{key};accept;;") == next(
        item.fix for item in objects.items if item.key == key
    )


WRONG_OBJECTS = {
    "neither": ("class;other;;", "the label and the box are empty"),
    "both": ("class;other;dog;10,10,31,30", "another class and another box at once"),
    "the same": ("class;other;cat;", "has this class and box already: 'cat'"),
    "the same box": ("loose;other;;20,10,40,30", "has this class and box already: 'cat'"),
    "three numbers": ("loose;other;;1,2,3", r"The box is '1,2,3'; expected its corners"),
    "inverted": ("loose;other;;30,10,20,30", "with x1 < x2"),
    "not a number": ("loose;other;;1,2,nan,4", "expected its corners"),
    "outside": ("loose;other;;110,10,120,30", r"lies outside a\.jpg, which is 100 x 80 pixels"),
    "a box to keep": ("loose;keep;;1,2,3,4", "The verdict 'keep' comes with the box"),
    "an image": ("dark;other;cow;", "is about no single object"),
}


@pytest.mark.parametrize(("row", "message"), WRONG_OBJECTS.values(), ids=WRONG_OBJECTS.keys())
def test_a_wrong_row_about_an_object_is_named(
    tmp_path: Path, objects: Report, row: str, message: str
) -> None:
    with pytest.raises(InputError, match=message) as error:
        decided(tmp_path, objects, row)
    assert "decisions.csv:2: " in str(error.value)


def test_the_template_of_objects_shows_the_boxes(tmp_path: Path, objects: Report) -> None:
    decisions.write_template(objects, tmp_path / "t.csv")
    with (tmp_path / "t.csv").open(newline="", encoding="utf-8-sig") as opened:
        rows = list(csv.DictReader(opened))
    assert [row["given_box"] for row in rows] == ["10.0, 10.0, 30.0, 30.0", "20.0, 10.0, 40.0, 30.0", "", ""]
    assert rows[2]["suggested_box"] == "50.0, 50.0, 70.0, 70.0"
    assert list(rows[0])[:6] == ["finding", "verdict", "label", "box", "reviewer", "note"]
    assert decisions.read(tmp_path / "t.csv", objects) == []


def test_the_box_that_was_judged_is_kept(tmp_path: Path, objects: Report) -> None:
    made = decisions.read(file(tmp_path, "finding,verdict\nclass,keep\nmissing,keep\n"), objects)
    source = objects.tables.source
    assert source is not None
    decisions.record(source, made)
    found = decisions.latest(source)
    assert found["class"].judged_box == (10, 10, 30, 30)
    assert found["missing"].judged_box == (50, 50, 70, 70)


def test_an_image_whose_size_is_not_known_gets_no_relative_box(tmp_path: Path, objects: Report) -> None:
    tables = objects.tables
    unknown = tables.images.assign(declared_width=pd.NA, declared_height=pd.NA).astype(
        {"declared_width": "Int64", "declared_height": "Int64"}
    )
    report = replace(objects, tables=replace(tables, units="relative", images=unknown))
    with pytest.raises(InputError, match=r"The size of a\.jpg isn't known"):
        decided(tmp_path, report, "missing;other;;1,2,3,4")


def test_a_missing_object_is_known_again_though_its_box_moved(objects: Report) -> None:
    tables = objects.tables
    tables = replace(tables, images=tables.images.assign(digest="m0"))
    keep = Decision(
        finding="gone", verdict="keep", code="BOX003", digest="m0", judged_box=(51.0, 50.0, 71.0, 70.0)
    )

    def verdicts(decision: Decision, *items: Finding) -> list[str | None]:
        found = decisions.known_again(items or objects.items, {"gone": decision}, tables.images)
        return [item.decision for item in found]

    assert verdicts(keep) == [None, None, "keep", None]
    assert verdicts(replace(keep, digest="m1")) == [None] * 4
    assert verdicts(replace(keep, judged_box=(55.0, 50.0, 75.0, 70.0))) == [None] * 4
    assert verdicts(keep, replace(objects.items[2], decision="skip")) == ["skip"]
