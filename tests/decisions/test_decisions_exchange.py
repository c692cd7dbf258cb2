from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path

import pytest
from findings_to_decide import image_report, object_report

from dataaudit import decisions
from dataaudit import report as reports
from dataaudit.decisions.rows import harmless, plain
from dataaudit.errors import InputError
from dataaudit.types import Decision, Finding, Fix, Locator, Report, Source, Tables

ODD = (
    "=SUM(A1)",
    "-x",
    "سلام",
    "a\nb",
    '"',
    "'=x",
    "''",
    "a;b,c",
    " cat ",
    "@me",
    "+1",
    "\tx",
    "a\r\nb",
    "🐈",
)


@pytest.fixture
def report(tmp_path: Path) -> Report:
    return image_report(tmp_path)


@pytest.fixture
def objects(tmp_path: Path) -> Report:
    return object_report(tmp_path)


def source_of(report: Report) -> Source:
    assert report.tables.source is not None
    return report.tables.source


def rows_in(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def write(path: Path, rows: list[dict[str, str]], *, delimiter: str = ",", bom: bool = True) -> Path:
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, list(rows[0]), delimiter=delimiter, lineterminator="\r\n")
    writer.writeheader()
    writer.writerows(rows)
    path.write_bytes(out.getvalue().encode("utf-8-sig" if bom else "utf-8"))
    return path


def filled(path: Path, to: Path, answers: dict[str, dict[str, str]], **how: object) -> Path:
    """The rows of a table with some cells filled in, as a person does in a spreadsheet."""
    rows = [{**row, **answers.get(row["finding"], {})} for row in rows_in(path)]
    return write(to, rows, **how)  # type: ignore[arg-type]


def says(report: Report, verdict: str, key: str, name: str, new: str | None = None) -> Decision:
    finding = next(each for each in report.items if each.key == key)
    fix = finding.fix if new is None else replace(finding.fix, new=new)  # type: ignore[type-var]
    return Decision(
        finding=key,
        verdict=verdict,  # type: ignore[arg-type]
        fix=fix if verdict in ("accept", "other") else None,
        reviewer=name,
        note='  =1+1, "so";\nit is  ',
    )


def test_the_table_has_the_columns_of_findings_csv_and_when_it_was_decided(
    report: Report, objects: Report, tmp_path: Path
) -> None:
    for number, each in enumerate((report, objects)):
        decisions.export_csv(each, tmp_path / f"{number}.csv")
        files = reports.write(each, tmp_path / f"reports {number}")
        columns = list(rows_in(tmp_path / f"{number}.csv")[0])
        assert [name for name in columns if name != "at"] == list(rows_in(files["findings.csv"])[0])


def test_a_table_that_was_not_changed_adds_nothing(report: Report, tmp_path: Path) -> None:
    source, path = source_of(report), tmp_path / "all.csv"
    made = [
        says(report, "accept", "k1", "ann"), says(report, "keep", "k1", "=bob"),
        says(report, "skip", "k2", "ann"), says(report, "keep", "k5", "ann"),
    ]  # fmt: skip
    decisions.record(source, made)
    before = decisions.history(source)
    assert decisions.export_csv(report, path) == 4
    assert [row["finding"] for row in rows_in(path)] == ["k1", "k1", "k2", "k3", "k4", "k5"]
    for name, delimiter, bom in (("a.csv", ",", True), ("b.csv", ";", False), ("c.csv", "\t", True)):
        found = decisions.import_files(
            report, [filled(path, tmp_path / name, {}, delimiter=delimiter, bom=bom)]
        )
        assert (found.new, found.known, found.left_out) == ((), 4, {})
    assert decisions.history(source) == before


def labeled(tmp_path: Path) -> Report:
    """A finding for each odd class, all on labels of the class before it in order."""
    root = tmp_path / "odd"
    root.mkdir()
    lines = io.StringIO(newline="")
    csv.writer(lines).writerows([["filepath", "label"], *([f"{n}.png", name] for n, name in enumerate(ODD))])
    (root / "labels.csv").write_text(lines.getvalue(), newline="")
    import pandas as pd

    names = [f"{number}.png" for number in range(len(ODD))]
    images = pd.DataFrame(
        {"filepath": names, "width": pd.NA, "height": pd.NA, "split": None, "digest": "m"}, names
    )
    places = [Locator(file="labels.csv", item=number + 2, field="label") for number in range(len(ODD))]
    labels = pd.DataFrame({"sample_id": names, "name": ODD, "geometry": None, "locator": places}, names)
    source = Source(format="manifest", root=root, path=str(root / "labels.csv"), anchor=root)
    tables = Tables(images=images, labels=labels, classes=tuple(sorted(ODD)), source=source)
    items = [
        Finding(
            key=f"{number:012x}", code="LBL001", item_id=name, sample_id=name, score=0.1, probability=0.9,
            message="=HYPERLINK(1)", given=given, suggested=ODD[number - 1],
            fix=Fix(
                op="relabel", sample_id=name, label_id=name, locator=place, old=given, new=ODD[number - 1]
            ),
        )
        for number, (name, given, place) in enumerate(zip(names, ODD, places, strict=True))
    ]  # fmt: skip
    return Report(
        digest="", params={}, outcomes={}, items=tuple(items), skipped={}, timings={}, tables=tables
    )  # fmt: skip


@pytest.mark.parametrize("delimiter", [",", ";"])
def test_odd_classes_go_out_and_come_back_exactly(tmp_path: Path, delimiter: str) -> None:
    report = labeled(tmp_path)
    source = source_of(report)
    others = [
        says(report, "other", each.key, "ann", ODD[(number + 3) % len(ODD)])
        for number, each in enumerate(report.items)
    ]
    decisions.record(source, others)
    decisions.export_csv(report, tmp_path / "all.csv")
    text = (tmp_path / "all.csv").read_text("utf-8-sig")
    assert not [
        cell
        for row in csv.reader(io.StringIO(text, newline=""))
        for cell in row
        if cell[:1] in ("=", "@", "+", "-", "\t")
    ]
    path = filled(tmp_path / "all.csv", tmp_path / "again.csv", {}, delimiter=delimiter)
    assert decisions.import_files(report, [path]).known == len(ODD)
    every = {f"{n:012x}": {"reviewer": "bob", "at": "", "note": ""} for n in range(len(ODD))}
    decisions.import_files(report, [filled(path, path, every) if delimiter == "," else path])
    read = {each.finding: each.fix and each.fix.new for each in decisions.read(path, report)}
    assert read == {each.finding: each.fix and each.fix.new for each in others}


@pytest.mark.parametrize("text", ["", "'", "'a", "''a", "'=x", "=x", "\rx", "-1", "a=b", "'''", '"', "\n=x"])
def test_what_hides_a_formula_is_taken_away_again(text: str) -> None:
    assert plain(harmless(text)) == text
    assert harmless(text)[:1] not in ("=", "+", "-", "@", "\t", "\r")


def test_answers_of_several_people_come_in_at_once(report: Report, tmp_path: Path) -> None:
    source, path = source_of(report), tmp_path / "all.csv"
    decisions.export_csv(report, path)
    ann = filled(path, tmp_path / "ann.csv", {"k1": {"verdict": "Accept", "reviewer": "ann"}})
    bob = filled(path, tmp_path / "bob.csv", {"k1": {"verdict": "keep"}, "k5": {"verdict": "skip"}})
    (tmp_path / "eve.jsonl").write_text('{"finding": "k1", "verdict": "keep", "reviewer": "eve"}\n')
    found = decisions.import_files(report, [ann, bob, tmp_path / "eve.jsonl"], reviewer="bob")
    assert [(each.reviewer, each.verdict) for each in found.new] == [
        ("ann", "accept"), ("bob", "keep"), ("bob", "skip"), ("eve", "keep")
    ]  # fmt: skip
    assert decisions.import_files(report, [ann, bob], reviewer="bob").known == 3
    assert [str(each) for each in decisions.conflicts(source)] == [
        "ann says accept: dog, bob says keep, eve says keep"
    ]


def test_a_row_that_was_changed_by_hand_is_decided_now_and_an_old_one_is_left_out(
    report: Report, tmp_path: Path
) -> None:
    source, path = source_of(report), tmp_path / "all.csv"
    first = replace(says(report, "accept", "k1", "ann"), at="2026-03-01T12:00:00+00:00")
    decisions.record(source, [first])
    decisions.export_csv(report, path)
    decisions.record(source, [replace(first, verdict="keep", fix=None, at="2026-03-02T12:00:00+00:00")])
    assert decisions.import_files(report, [path]).known == 1
    assert decisions.latest(source)["k1"].verdict == "keep"
    changed = filled(path, tmp_path / "changed.csv", {"k1": {"verdict": "skip"}})
    [new] = decisions.import_files(report, [changed]).new
    assert (new.verdict, new.at != first.at) == ("skip", True)
    older = filled(path, tmp_path / "old.csv", {"k1": {"verdict": "skip", "at": "2026-02-01 12:00"}})
    assert list(decisions.import_files(report, [older]).left_out.values()) == ["ann decided it again since"]


def test_a_row_about_a_finding_that_is_gone_is_left_out_with_its_line(report: Report, tmp_path: Path) -> None:
    path = write(tmp_path / "d.csv", [{"finding": "0123456789ab", "verdict": "keep"}])
    found = decisions.import_files(report, [path])
    assert found.left_out == {f"{path}:2": "there is no finding 0123456789ab any more"}


def test_a_slip_in_any_file_records_nothing(report: Report, tmp_path: Path) -> None:
    good = write(tmp_path / "good.csv", [{"finding": "k1", "verdict": "keep"}])
    for row in ({"verdict": "kep", "at": ""}, {"verdict": "keep", "at": "yesterday"}):
        bad = write(tmp_path / "bad.csv", [{"finding": "k2", **row}])
        with pytest.raises(InputError, match=r"bad\.csv:2"):
            decisions.import_files(report, [good, bad])
    assert decisions.history(source_of(report)) == []


@pytest.mark.parametrize(
    ("key", "cell"),
    [("123456789012", "1.23457E+11"), ("012345678901", "12345678901"), ("12345678e012", "1,23E+19")],
)
def test_a_key_that_a_spreadsheet_took_for_a_number_is_found_by_check_and_sample(
    report: Report, tmp_path: Path, key: str, cell: str
) -> None:
    items = (*report.items[:3], replace(report.items[3], key=key), *report.items[4:])
    row = {"finding": cell, "verdict": "keep", "code": "LBL002", "sample_id": "cat/2.jpg"}
    path = write(tmp_path / "d.csv", [row], delimiter=";")
    assert [each.finding for each in decisions.read(path, replace(report, items=items))] == [key]


def test_one_person_gets_a_table_without_what_the_others_said(report: Report, tmp_path: Path) -> None:
    made = [says(report, "keep", "k1", "ann"), says(report, "keep", "k2", "bob")]
    decisions.record(source_of(report), made)
    assert decisions.export_csv(report, tmp_path / "bob.csv", reviewer="bob") == 1
    rows = {row["finding"]: row["verdict"] for row in rows_in(tmp_path / "bob.csv")}
    assert rows == {"k1": "", "k2": "keep", "k3": "", "k4": "", "k5": ""}


def test_boxes_go_out_in_pixels_and_come_back(objects: Report, tmp_path: Path) -> None:
    path = write(
        tmp_path / "d.csv",
        [
            {"finding": "class", "verdict": "other", "label": "cow", "box": ""},
            {"finding": "loose", "verdict": "other", "label": "", "box": "21, 11.25, 39, 29"},
            {"finding": "missing", "verdict": "other", "label": "cow", "box": "50 50 60.5 70"},
        ],
    )
    assert len(decisions.import_files(objects, [path], reviewer="ann").new) == 3
    decisions.export_csv(objects, tmp_path / "all.csv")
    boxes = {row["finding"]: (row["label"], row["box"]) for row in rows_in(tmp_path / "all.csv")}
    assert boxes == {
        "class": ("cow", ""), "loose": ("", "21.0, 11.25, 39.0, 29.0"),
        "missing": ("cow", "50.0, 50.0, 60.5, 70.0"), "dark": ("", ""),
    }  # fmt: skip
    assert decisions.import_files(objects, [tmp_path / "all.csv"]).known == 3
    wider = filled(tmp_path / "all.csv", tmp_path / "wider.csv", {"loose": {"box": "21, 11.25, 39.5, 29"}})
    assert [each.finding for each in decisions.import_files(objects, [wider]).new] == ["loose"]


def test_boxes_of_relative_units_go_out_in_pixels_and_come_back(objects: Report, tmp_path: Path) -> None:
    tables = objects.tables
    corners = ["x1", "y1", "x2", "y2"]
    labels = tables.labels.copy()
    labels[corners] = labels[corners] / [100, 80, 100, 80]
    relative = replace(objects, tables=replace(tables, units="relative", labels=labels))
    path = write(tmp_path / "d.csv", [{"finding": "loose", "verdict": "other", "box": "21, 11.3, 39, 29"}])
    [made] = decisions.import_files(relative, [path]).new
    assert made.fix is not None and made.fix.box == pytest.approx((0.21, 0.14125, 0.39, 0.3625))
    decisions.export_csv(relative, tmp_path / "all.csv")
    row = next(row for row in rows_in(tmp_path / "all.csv") if row["finding"] == "loose")
    assert list(map(float, row["box"].split(", "))) == pytest.approx([21, 11.3, 39, 29])
    assert decisions.import_files(relative, [tmp_path / "all.csv"]).known == 1


def test_what_was_accepted_is_applied_where_the_label_stands_now(objects: Report) -> None:
    source = source_of(objects)
    loose = objects.items[1]
    assert loose.fix is not None
    old_place = Locator(file="a.xml", item=7)
    accepted = replace(loose.fix, locator=old_place, label_id="a.jpg:7", box=(23.0, 12.0, 38.0, 28.0))
    decisions.record(source, [Decision(finding="loose", verdict="accept", fix=accepted)])
    [due], stale = decisions.due(objects)
    assert stale == {}
    assert due.fix == replace(loose.fix, box=(23.0, 12.0, 38.0, 28.0))  # the box that was seen


def test_what_can_no_longer_be_done_is_left_out_with_the_reason(report: Report) -> None:
    first = report.items[0]
    assert first.fix is not None
    same = Decision(finding="k1", verdict="other", fix=replace(first.fix, new="cat"))
    gone = Decision(finding="k5", verdict="accept", fix=replace(first.fix, op="drop", new=None))
    decisions.record(source_of(report), [same, gone])
    due, stale = decisions.due(report)
    assert due == []
    assert stale == {
        "k1": "The sample cat/1.jpg has the class 'cat' already.",
        "k5": "What was decided of cat/1.jpg, to drop it, is no longer proposed.",
    }
