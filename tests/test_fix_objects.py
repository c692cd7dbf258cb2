from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from object_fixes import contents, write_image

from dataaudit import fix, formats
from dataaudit.checks.box_fixes import BoxFixes
from dataaudit.errors import ConflictError, InputError
from dataaudit.formats._shared import ObjectRows
from dataaudit.types import Decision, Finding, Fix, Locator, Outcome, Report, Source, Tables

BOXES = {
    "a:1": ("cat", (10.0, 10.0, 50.0, 50.0)),
    "a:2": ("dog", (60.0, 10.0, 90.0, 50.0)),
    "a:3": ("cat", (12.0, 10.0, 52.0, 50.0)),
}


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    """One image, 100 x 100, with three objects."""
    rows = ObjectRows()
    rows.image("a", str(tmp_path / "a"), Locator(file="a.xml"), size=(100, 100))
    for number, (label_id, (name, corners)) in enumerate(BOXES.items()):
        rows.object("a", label_id, name, corners, Locator(file="a.xml", item=number))
    source = Source(format="voc", root=tmp_path, path=str(tmp_path), anchor=tmp_path)
    return rows.tables(source=source)


def finding(
    tables: Tables, key: str, op: str, item: Any, new: Any = None, probability: float = 0.9, **more: Any
) -> Finding:
    """A finding about the label `item`, or of a missing object of the class `new` at the box `item`."""
    fixes = BoxFixes(tables.labels, tables.images, tables.units)
    proposed: Fix
    if op == "add":
        proposed = fixes.add("a", new, item)
    elif op == "remove":
        proposed = fixes.remove(item)
    else:
        proposed = fixes.relabel(item, new) if op == "relabel" else fixes.move(item, new)
    code = {"relabel": "BOX002", "add": "BOX003", "remove": "BOX004", "move": "BOX005"}[op]
    fields: dict[str, Any] = {"code": code, "message": "", "fix": proposed, **more}
    return Finding(
        key=key, item_id=proposed.label_id, sample_id="a", score=0.25, probability=probability, **fields
    )


def report(tables: Tables, *items: Finding, outcomes: Any = None) -> Report:
    return Report(
        digest="", params={}, outcomes=outcomes or {}, items=items, skipped={}, timings={}, tables=tables
    )


def planned(tables: Tables, *items: Finding, **more: Any) -> list[str]:
    """The keys of the findings that are taken of some."""
    plan = fix.plan(report(tables, *items, **more), min_probability=0.5)
    assert {item.finding for item in plan.items} | set(plan.left_out) == {item.key for item in items}
    return sorted(item.finding for item in plan.items)


def test_two_objects_of_one_class_are_both_added(tables: Tables) -> None:
    one = finding(tables, "one", "add", (0, 60, 20, 80), "cat")
    assert planned(tables, one, finding(tables, "two", "add", (30, 60, 50, 80), "cat")) == ["one", "two"]


NEAR = (1, 60, 21, 80)  # IoU 0.9 with the first of the boxes that are added
CLASHES = {
    "the same object added twice": [("add", (0, 60, 20, 80), "cat"), ("add", NEAR, "cat")],
    "one object added as two classes": [("add", (0, 60, 20, 80), "cat"), ("add", NEAR, "dog")],
    "a box moved to where the object is added": [("move", "a:1", (0, 60, 20, 80)), ("add", NEAR, "cat")],
    "an object added where one gets its class": [("relabel", "a:2", "cat"), ("add", BOXES["a:2"][1], "cat")],
    "an object removed and added again": [("remove", "a:2"), ("add", BOXES["a:2"][1], "dog")],
    "two boxes moved to one place": [("move", "a:1", (0, 60, 20, 80)), ("move", "a:3", NEAR)],
    "class and box of one object": [("relabel", "a:1", "dog"), ("move", "a:1", (0, 60, 20, 80))],
    "an object removed and relabeled": [("remove", "a:1"), ("relabel", "a:1", "dog")],
}
FRIENDS = {
    "a box removed and another moved to its place": [("remove", "a:2"), ("move", "a:1", BOXES["a:2"][1])],
    "a box removed and another class added there": [("remove", "a:2"), ("add", BOXES["a:2"][1], "cat")],
    "boxes of two classes moved to one place": [("move", "a:1", (0, 60, 20, 80)), ("move", "a:2", NEAR)],
    "two boxes on one place relabeled alike": [("relabel", "a:1", "dog"), ("relabel", "a:3", "dog")],
    "two boxes on one place removed": [("remove", "a:1"), ("remove", "a:3")],
    "classes of different objects": [("relabel", "a:1", "dog"), ("relabel", "a:2", "cat")],
}


@pytest.mark.parametrize("pair", CLASHES.values(), ids=CLASHES.keys())
def test_of_two_fixes_that_clash_the_more_probable_one_is_taken(tables: Tables, pair: Any) -> None:
    for high in (0, 1):
        items = [
            finding(tables, str(n), *each, probability=0.9 if n == high else 0.6)
            for n, each in enumerate(pair)
        ]
        assert planned(tables, *items) == [str(high)]


@pytest.mark.parametrize("pair", FRIENDS.values(), ids=FRIENDS.keys())
def test_fixes_of_different_objects_are_taken_together(tables: Tables, pair: Any) -> None:
    items = [finding(tables, str(n), *each) for n, each in enumerate(pair)]
    assert planned(tables, *items) == ["0", "1"]


def test_what_a_person_accepts_of_two_classes_on_one_place_is_added(tables: Tables) -> None:
    items = [
        finding(tables, "rider", "add", (0, 60, 20, 80), "cat"), finding(tables, "bike", "add", NEAR, "dog")
    ]  # fmt: skip
    accepted = [Decision(finding=item.key, verdict="accept") for item in items]
    assert len(fix.plan(report(tables, *items), decisions=accepted)) == 2


def test_what_was_left_out_says_why(tables: Tables) -> None:
    items = [
        finding(tables, "class", "relabel", "a:1", "dog", 0.9),
        finding(tables, "box", "move", "a:1", (0, 60, 20, 80), 0.8),
        finding(tables, "new", "add", (61, 10, 91, 50), "dog", 0.7),
        finding(tables, "other", "move", "a:2", (61, 10, 91, 50), 0.9),
    ]
    assert fix.plan(report(tables, *items), min_probability=0.5).left_out == {
        "box": "BOX002 fixes a:1 already; audit again for what is left",
        "new": "BOX005 fixes the same object (move a:2)",
    }


def test_two_classes_decided_for_one_object_are_an_error(tables: Tables) -> None:
    items = [finding(tables, name, "relabel", "a:2", name) for name in ("cat", "cow")]
    accepted = [Decision(finding=item.key, verdict="accept") for item in items]
    with pytest.raises(InputError, match="a:2 becomes 'cat' by cat and 'cow' by cow"):
        fix.plan(report(tables, *items), decisions=accepted)


def duplicates(*labels: str) -> dict[str, Outcome]:
    """What the check of duplicates says of boxes on one object: all but the first are too many."""
    index = pd.Index(labels)
    flagged = pd.Series([False] + [True] * (len(labels) - 1), index=index)
    evidence = pd.DataFrame({"message": "", "group": "BOX008-0"}, index=index)
    return {
        "BOX008": Outcome(score=1.0 - 0.9 * flagged.astype(float), flagged=flagged, evidence=evidence),
    }


def test_all_boxes_of_one_object_never_go(tables: Tables) -> None:
    group = {"evidence": {"group": "BOX008-0"}, "code": "BOX008"}
    items = [
        finding(tables, "duplicate", "remove", "a:3", **group),
        finding(tables, "spurious", "remove", "a:1", None, 0.95),
    ]
    assert planned(tables, items[0], outcomes=duplicates("a:1", "a:3")) == ["duplicate"]
    assert planned(tables, *items, outcomes=duplicates("a:1", "a:3")) == ["spurious"]
    both = [Decision(finding=item.key, verdict="accept") for item in items]
    outcomes = duplicates("a:1", "a:3")
    assert len(fix.plan(report(tables, *items, outcomes=outcomes), decisions=both)) == 2


def test_fragments_go_only_with_the_box_that_takes_their_place(tables: Tables) -> None:
    group = {"evidence": {"group": "BOX010-0"}, "code": "BOX010"}
    whole = finding(tables, "whole", "move", "a:1", (10, 10, 52, 50), **group)
    fragment = finding(tables, "fragment", "remove", "a:3", **group)
    assert planned(tables, whole, fragment) == ["fragment", "whole"]
    plan = fix.plan(
        report(tables, whole, fragment),
        min_probability=0.5,
        decisions=[Decision(finding="whole", verdict="keep")],
    )
    assert [item.finding for item in plan.items] == []


def test_a_class_of_objects_is_renamed_label_by_label(tables: Tables) -> None:
    renamed = Finding(
        key="rename", code="LBL009", item_id="cat", sample_id=None, score=0.1, probability=None, message="",
        fix=Fix(op="rename", sample_id="", label_id="", locator=Locator(file=""), old="cat", new="dog"),
    )  # fmt: skip
    items = [
        renamed,
        finding(tables, "box", "move", "a:1", (0, 60, 20, 80)),
        finding(tables, "new", "add", (0, 60, 20, 80), "cat"),
    ]
    accepted = [Decision(finding=item.key, verdict="accept") for item in items]
    plan = fix.plan(report(tables, *items), decisions=accepted)
    assert [(each.op, each.label_id, each.new, each.old_box) for each in plan.fixes] == [
        ("add", "a:+0,60,20,80", "dog", None),
        ("relabel", "a:1", "dog", BOXES["a:1"][1]),
        ("relabel", "a:3", "dog", BOXES["a:3"][1]),
    ]
    assert plan.left_out == {"box": "the class 'cat' is renamed first; audit again for the box"}


# In files


VOC = """<annotation>
  <object><name>cat</name><bndbox><xmin>1</xmin><ymin>5</ymin><xmax>20</xmax><ymax>15</ymax></bndbox></object>
  <object><name>dog</name><bndbox><xmin>2</xmin><ymin>6</ymin><xmax>22</xmax><ymax>16</ymax></bndbox></object>
  <object><name>cow</name><bndbox><xmin>3</xmin><ymin>7</ymin><xmax>23</xmax><ymax>17</ymax></bndbox></object>
</annotation>
"""


@pytest.fixture
def voc(tmp_path: Path) -> Tables:
    for name in ("a", "b"):
        write_image(tmp_path / f"set/{name}.png")
    (tmp_path / "set/a.xml").write_text(VOC)
    return formats.read(tmp_path / "set")


def corrections(voc: Tables) -> fix.Plan:
    fixes = BoxFixes(voc.labels, voc.images, voc.units)
    proposed = (
        fixes.relabel("a.png:1", "dog"), fixes.remove("a.png:2"), fixes.move("a.png:3", (4, 7, 24, 17)),
        fixes.add("b.png", "cat", (1, 2, 3, 4)),
    )  # fmt: skip
    items = tuple(
        Finding(
            key=str(n), code="BOX002", item_id=each.label_id, sample_id=each.sample_id, score=0.1,
            probability=0.9, message="", fix=each,
        )
        for n, each in enumerate(proposed)
    )  # fmt: skip
    return fix.plan(report(voc, *items), min_probability=0.5)


def test_the_diff_shows_classes_and_corners(voc: Tables) -> None:
    assert corrections(voc).diff() == (
        "--- a.xml\n+++ a.xml\n@@ a.xml:1 @@ a.png\n-cat (1, 5, 20, 15)\n+dog (1, 5, 20, 15)\n"
        "--- a.xml\n+++ a.xml\n@@ a.xml:2 @@ a.png\n-dog (2, 6, 22, 16)\n"
        "--- a.xml\n+++ a.xml\n@@ a.xml:3 @@ a.png\n-cow (3, 7, 23, 17)\n+cow (4, 7, 24, 17)\n"
        "--- b.xml\n+++ b.xml\n@@ b.xml @@ b.png\n+cat (1, 2, 3, 4)\n"
    )


def test_objects_are_changed_in_their_files_recorded_and_taken_back(voc: Tables, tmp_path: Path) -> None:
    before = contents(tmp_path / "set")
    applied = fix.apply(corrections(voc))
    corrected = formats.read(tmp_path / "set").labels
    assert corrected["name"].tolist() == ["dog", "cow", "cat"]
    assert corrected[["x1", "x2"]].to_numpy().tolist() == [[1, 20], [4, 24], [1, 3]]
    lines = fix.history(applied.source)
    assert [(line["op"], line.get("old_box"), line.get("box")) for line in lines] == [
        ("relabel", [1, 5, 20, 15], None),
        ("remove", [2, 6, 22, 16], None),
        ("move", [3, 7, 23, 17], [4, 7, 24, 17]),
        ("add", None, [1, 2, 3, 4]),
    ]
    assert fix.undo(applied.source).fixes == 4
    assert contents(tmp_path / "set") == before


def test_a_file_that_a_fix_made_and_somebody_changed_is_not_taken_away(voc: Tables, tmp_path: Path) -> None:
    fix.apply(corrections(voc))
    made = tmp_path / "set/b.xml"
    made.write_text(made.read_text() + "<!-- mine -->")
    with pytest.raises(ConflictError, match=r"b\.xml: The file has changed"):
        fix.undo(tmp_path / "set")
    assert "mine" in made.read_text()
