from __future__ import annotations

import csv
from pathlib import Path

import pytest

from dataaudit import decisions, formats, state
from dataaudit.errors import InputError
from dataaudit.types import Decision, Finding, Fix, Locator, Report


@pytest.fixture
def report(tmp_path: Path) -> Report:
    """Two cats that look like dogs, one of them named by two checks, and a finding without a fix."""
    for name in ("cat/1.jpg", "cat/2.jpg", "dog/3.jpg"):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).write_bytes(b"")
    tables = formats.read(tmp_path / "photos")

    def finding(key: str, code: str, sample: str, new: str | None) -> Finding:
        fix = new and Fix(
            op="relabel", sample_id=sample, label_id=sample, locator=Locator(file=sample), old="cat", new=new
        )
        return Finding(
            key=key, code=code, item_id=sample, sample_id=sample, score=0.1, probability=0.9,
            message='=1+1, "quoted"', given="cat", suggested=new, fix=fix or None,
        )  # fmt: skip

    items = (
        finding("k1", "LBL001", "cat/1.jpg", "dog"),
        finding("k2", "LBL001", "cat/2.jpg", "dog"),
        finding("k3", "LBL002", "cat/2.jpg", "dog"),
        finding("k4", "LBL002", "cat/2.jpg", "dog"),
        finding("k5", "IMG001", "dog/3.jpg", None),
    )
    return Report(digest="", params={}, outcomes={}, items=items, skipped={}, timings={}, tables=tables)


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
