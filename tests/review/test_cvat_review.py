"""Round trips to CVAT; ``cvat_boxes.xml`` is laid out as CVAT exports a task ("CVAT for images 1.1")."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from databases import fiftyone
from label_tools import HOSTILE, boxes_report, classes_report, key_of, several_report, verdicts

from dataaudit import formats
from dataaudit.errors import InputError
from dataaudit.review import cvat, label_tools
from dataaudit.types import CORNERS, Report

EXPORTED = Path(__file__).parents[1] / "data" / "label_tools" / "cvat_boxes.xml"


def sent(report: Report, folder: Path) -> str:
    """The annotations for CVAT."""
    cvat.export(report, folder)
    return (folder / "annotations.xml").read_text(encoding="utf-8")


def read(report: Report, folder: Path, text: str, *, finished: bool = False) -> label_tools.Answers:
    """The answers that a text of XML gives."""
    (folder / "back.xml").write_text(text, encoding="utf-8")
    return label_tools.read(folder / "back.xml", report, finished=finished)


@pytest.mark.parametrize("made", [classes_report, several_report, boxes_report])
def test_what_comes_back_as_it_was_sent_is_kept_where_it_was_looked_at(
    tmp_path: Path, made: Callable[[Path], Report]
) -> None:
    report = made(tmp_path)
    text = sent(report, tmp_path / "out")
    asked = [item.key for item in report.items if item.code != "DUP001"]
    untouched = read(report, tmp_path, text)
    assert untouched.decisions == ()
    (left,) = untouched.left_out
    assert "images aren't ticked as reviewed; what wasn't changed stays open" in left
    ticked = text.replace('<attribute name="reviewed">false<', '<attribute name="reviewed">true<')
    for found in (read(report, tmp_path, ticked), read(report, tmp_path, text, finished=True)):
        assert verdicts(found.decisions) == dict.fromkeys(asked, "keep")
        assert found.left_out == ()
    archive = label_tools.read(tmp_path / "out" / "dataset.zip", report, finished=True)
    assert verdicts(archive.decisions) == dict.fromkeys(asked, "keep")


def test_classes_are_tags(tmp_path: Path) -> None:
    report = classes_report(tmp_path)
    text = sent(report, tmp_path / "out")
    one, two, three, four = text.split("</image>")[:4]
    back = one.replace('tag label="cat"', 'tag label="dog"') + "</image>"
    back += two.replace('tag label="cat"', 'tag label="fox"') + "</image>"
    back += three.replace('reviewed">false', 'reviewed">true') + "</image>"
    back += four.replace('tag label="fox"', 'tag label="dog" source="manual"></tag><tag label="fox"')
    found = read(report, tmp_path, back + "</image></annotations>")
    assert verdicts(found.decisions) == {"k1": "accept", "k2": ("relabel", "fox", None), "k4": "keep"}
    open_ones, several = found.left_out
    assert several.endswith(f"fox/{HOSTILE}: The answer has 2 classes; expected one.")
    assert "3 images aren't ticked" in open_ones


def test_an_export_of_cvat_is_read(tmp_path: Path) -> None:
    report = boxes_report(tmp_path)
    found = label_tools.read(EXPORTED, report)
    # a.png isn't ticked, and was changed; c.png isn't, and wasn't
    assert verdicts(found.decisions) == {
        key_of(report, "BOX002"): "accept",
        key_of(report, "BOX004"): "accept",
        key_of(report, "BOX005"): ("move", "cat", (0, 0, 62.37, 50)),
    }
    assert {each.reviewer for each in found.decisions} == {"ann"}
    assert {each.at for each in found.decisions} == {"2026-03-02T10:30:00.250000+00:00"}
    assert [left.partition(": ")[2] for left in found.left_out] == [
        "images/images/b.png: A polygon of 'dog' says nothing here.",
        "2 images aren't ticked as reviewed; what wasn't changed stays open.",
    ]
    everything = label_tools.read(EXPORTED, report, finished=True, reviewer="bob")
    assert verdicts(everything.decisions)[key_of(report, "BOX003")] == "keep"
    assert {each.reviewer for each in everything.decisions} == {"bob"}


def test_answers_are_recorded_once(tmp_path: Path) -> None:
    report = boxes_report(tmp_path)
    before = (tmp_path / "labels.json").read_bytes()
    first = label_tools.take(report, label_tools.read(EXPORTED, report))
    again = label_tools.take(report, label_tools.read(EXPORTED, report))
    rest = label_tools.take(report, label_tools.read(EXPORTED, report, finished=True))
    assert (len(first.new), len(again.new), again.known, len(rest.new)) == (3, 0, 3, 1)
    assert (tmp_path / "labels.json").read_bytes() == before


def test_people_of_a_project_are_known_by_their_tasks(tmp_path: Path) -> None:
    report = boxes_report(tmp_path)
    text = EXPORTED.read_text(encoding="utf-8")
    start, stop = text.index("    <task>"), text.index("    </task>") + len("    </task>\n")
    other = text[start:stop].replace("<id>7</id>", "<id>8</id>").replace("<username>ann", "<username>bob")
    text = text.replace(text[start:stop], f"<project><tasks>{text[start:stop]}{other}</tasks></project>")
    for number, task in ((0, 7), (1, 8)):
        text = text.replace(f'<image id="{number}"', f'<image id="{number}" task_id="{task}"')
    found = read(report, tmp_path, text)
    assert [(each.code, each.reviewer) for each in found.decisions] == [
        ("BOX002", "ann"), ("BOX004", "ann"), ("BOX005", "bob"),
    ]  # fmt: skip


def test_the_labels_of_a_task_are_the_classes_and_two_of_ours(tmp_path: Path) -> None:
    cvat.export(boxes_report(tmp_path), tmp_path / "out")
    labels = json.loads((tmp_path / "out" / "labels.json").read_text(encoding="utf-8"))
    assert [(label["name"], label["type"]) for label in labels] == [
        ("cat", "rectangle"), ("dog", "rectangle"), ('fox & "co" <i>', "rectangle"),
        ("proposed box", "rectangle"), ("dataaudit", "tag"),
    ]  # fmt: skip
    assert [each["name"] for each in labels[-1]["attributes"]] == ["reviewed", "says", "findings", "sample"]


def test_images_are_numbered_as_cvat_sorts_those_of_an_archive(tmp_path: Path) -> None:
    text = sent(classes_report(tmp_path), tmp_path / "out")
    with zipfile.ZipFile(tmp_path / "out" / "dataset.zip") as archive:
        images = [name for name in archive.namelist() if name != "annotations.xml"]
        assert archive.read("images/cat/1.png") == (tmp_path / "photos" / "cat" / "1.png").read_bytes()
    assert images == sorted(images)
    assert [f'id="{number}" name="{name}"' in text for number, name in enumerate(images[:3])] == [True] * 3
    cvat.export(classes_report(tmp_path), tmp_path / "share", images=False)
    assert 'id="0" name="cat/1.png"' in (tmp_path / "share" / "annotations.xml").read_text(encoding="utf-8")
    assert not (tmp_path / "share" / "dataset.zip").exists()


def test_our_own_reader_and_that_of_fiftyone_find_the_boxes_that_were_sent(tmp_path: Path) -> None:
    report = boxes_report(tmp_path)
    cvat.export(report, tmp_path / "out")
    with zipfile.ZipFile(tmp_path / "out" / "dataset.zip") as archive:
        archive.extractall(tmp_path / "there")
    own = formats.read(tmp_path / "there")
    given = own.labels[own.labels["name"] != "proposed box"]
    assert given[list(CORNERS)].round(2).to_numpy().tolist() == [
        [10, 10, 50, 50], [60, 10, 90, 40], [10.37, 10.21, 50.37, 50.21], [0, 0, 100, 50], [20, 20, 40, 40],
    ]  # fmt: skip
    assert own.problems == ()
    fo = fiftyone()
    from fiftyone.utils.cvat import CVATImageDatasetImporter

    importer = CVATImageDatasetImporter(
        data_path=str(tmp_path / "there"), labels_path=str(tmp_path / "there" / "annotations.xml")
    )
    importer.setup()
    labels = {Path(path).name: labels for path, _, labels in importer}
    assert [each.label for each in labels["a.png"]["detections"].detections] == ["cat", "dog", "cat"]
    box = fo.Detection(bounding_box=[60 / 120, 10 / 60, 30 / 120, 30 / 60]).bounding_box
    assert labels["a.png"]["detections"].detections[1].bounding_box == pytest.approx(box)
    (tag,) = labels["a.png"]["classifications"].classifications
    assert tag.label == "dataaudit"


WRONG = {
    "no annotations": ("<html><body/></html>", "is neither an export of Label Studio (JSON) nor of CVAT"),
    "not well-formed": ("<annotations><image></annotations>", "The XML can't be read"),
    "a film": ('<annotations><track id="0"/></annotations>', "CVAT for video: it has tracks over frames"),
    "not ours": ('<annotations><image id="0" name="a.png"/></annotations>', "No image has a tag 'dataaudit'"),
    "of another dataset": (
        EXPORTED.read_text(encoding="utf-8")
        .replace(" 6d20a61769c7", "")
        .replace('"findings">', '"findings">z'),
        "None of the 3 findings that these answers are about is in the report.",
    ),
    "an unknown class": (
        EXPORTED.read_text(encoding="utf-8").replace('box label="dog"', 'box label="dgo"'),
        "back.xml:69: No sample has the class 'dgo'. Did you mean 'dog'?",
    ),
}


@pytest.mark.parametrize(("text", "message"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_file_says_what_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        read(boxes_report(tmp_path), tmp_path, text)
    assert message in str(caught.value)
    assert "back.xml" in str(caught.value)


def test_a_class_that_cvat_cannot_hold_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    report = classes_report(tmp_path)
    report = replace(report, tables=replace(report.tables, classes=(*report.tables.classes, "x" * 65)))
    with pytest.raises(InputError, match="CVAT can't hold the class"):
        cvat.export(report, tmp_path / "out")
    assert not (tmp_path / "out").exists()
