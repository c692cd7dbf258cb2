"""Round trips to Label Studio; ``tests/data/label_tools`` was exported by Label Studio 1.23.2."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from label_tools import HOSTILE, boxes_report, classes_report, key_of, several_report, verdicts
from pictures import write_digits

from dataaudit import decisions, fix
from dataaudit.cli import main
from dataaudit.errors import InputError
from dataaudit.review import label_studio, label_tools
from dataaudit.types import Report

EXPORTED = Path(__file__).parents[1] / "data" / "label_tools"
FOX = f"fox/{HOSTILE}"


def sent(report: Report, folder: Path, **options: Any) -> dict[str, dict[str, Any]]:
    """The tasks for Label Studio by their sample."""
    label_studio.export(report, folder, images="https://example.org/photos", **options)
    tasks = json.loads((folder / "tasks.json").read_text(encoding="utf-8"))
    return {task["data"]["sample_id"]: task for task in tasks}


def given(task: dict[str, Any], version: str = "given") -> list[dict[str, Any]]:
    """The results of a prediction, as Label Studio starts an annotation from them."""
    (prediction,) = [each for each in task["predictions"] if each["model_version"] == version]
    return list(prediction["result"])


def answered(task: dict[str, Any], result: Any, by: Any = 1, at: str = "2026-03-01T10:00:00Z") -> None:
    """Add an annotation to a task."""
    annotation = {"result": result, "completed_by": by, "updated_at": at, "was_cancelled": False}
    task.setdefault("annotations", []).append(annotation)


def read(report: Report, path: Path, tasks: Any, **options: Any) -> Any:
    """The answers of tasks."""
    exported = [{"id": number, "annotations": [], **task} for number, task in enumerate(tasks, start=1)]
    (path / "export.json").write_text(json.dumps(exported))
    return label_studio.read(path / "export.json", report, **options)


def test_a_class_goes_out_as_given_and_as_suggested(tmp_path: Path) -> None:
    task = sent(classes_report(tmp_path), tmp_path / "out")["cat/1.png"]
    assert task["data"]["image"] == "https://example.org/photos/cat/1.png"
    assert task["data"]["finding"] == "LBL001 About cat/1.png. [Suggested: dog]"
    assert task["data"]["dataaudit"]["findings"] == [
        {"key": "k1", "code": "LBL001", "message": "About cat/1.png.", "given": "cat", "suggested": "dog",
         "probability": 0.9},
    ]  # fmt: skip
    suggested, as_given = task["predictions"]
    assert (suggested["model_version"], suggested["score"]) == ("suggested", 0.9)
    assert suggested["result"][0]["value"] == {"choices": ["dog"]}
    # The last version is the one that Label Studio starts an annotation from
    assert as_given["model_version"] == "given"
    assert as_given["result"][0]["value"] == {"choices": ["cat"]}


def test_boxes_go_out_in_percent_and_proposed_ones_as_a_class_of_their_own(tmp_path: Path) -> None:
    task = sent(boxes_report(tmp_path), tmp_path / "out")["images/b.png"]
    assert [(each["value"]["rectanglelabels"], each["value"]["width"]) for each in given(task)] == [
        (["cat"], pytest.approx(100 / 120 * 100)),
        (["dog"], pytest.approx(20 / 120 * 100)),
        (["proposed box"], pytest.approx(50)),
    ]
    first = given(task)[0]
    assert (first["original_width"], first["original_height"], first["value"]["rotation"]) == (120, 60, 0)
    assert first["meta"] == {"text": ["BOX005 Loose. [Suggested: the proposed box]"]}
    assert [each["value"]["width"] for each in given(task, "suggested")] == [50, pytest.approx(20 / 1.2)]


@pytest.mark.parametrize("made", [classes_report, several_report, boxes_report])
@pytest.mark.parametrize(("version", "verdict"), [("given", "keep"), ("suggested", "accept")])
def test_what_is_submitted_as_it_was_sent_is_kept_or_accepted(
    tmp_path: Path, made: Callable[[Path], Report], version: str, verdict: str
) -> None:
    report = made(tmp_path)
    tasks = sent(report, tmp_path / "out")
    for task in tasks.values():
        versions = {each["model_version"] for each in task["predictions"]}
        answered(task, given(task, version if version in versions else "given"))
    found = read(report, tmp_path, tasks.values())
    asked = [item.key for item in report.items if item.code != "DUP001"]
    nothing_proposed = {"k4": "keep"} if "k4" in asked else {}
    assert verdicts(found.decisions) == {**dict.fromkeys(asked, verdict), **nothing_proposed}
    assert found.left_out == ()


@pytest.mark.parametrize("ending", ["", "_min"])
def test_classes_that_label_studio_exported_are_read(tmp_path: Path, ending: str) -> None:
    found = label_tools.read(EXPORTED / f"classes{ending}.json", classes_report(tmp_path))
    assert verdicts(found.decisions) == {"k1": "accept", "k2": "keep", "k3": ("relabel", "dog", None)}
    assert found.left_out == ()  # the skipped task says nothing
    one = found.decisions[0]
    assert one.reviewer == "label-studio:1"
    assert one.at is not None and one.at.startswith("2026-")


@pytest.mark.parametrize("ending", ["", "_min"])
def test_several_classes_that_label_studio_exported_are_read(tmp_path: Path, ending: str) -> None:
    found = label_tools.read(EXPORTED / f"several{ending}.json", several_report(tmp_path), reviewer="ann")
    expected = {"m1": "keep", "m2": "accept", "m3": "accept", "m4": ("relabel", "dog", None)}
    assert verdicts(found.decisions) == expected
    assert {each.reviewer for each in found.decisions} == {"ann"}


@pytest.mark.parametrize("ending", ["", "_min"])
def test_boxes_that_label_studio_exported_are_read(tmp_path: Path, ending: str) -> None:
    report = boxes_report(tmp_path)
    path = EXPORTED / f"boxes{ending}.json"
    found = label_tools.read(path, report)
    assert verdicts(found.decisions) == {
        key_of(report, "BOX002"): "accept",
        key_of(report, "BOX003"): ("add", "dog", pytest.approx((20, 10, 80, 40))),
        key_of(report, "BOX004"): "accept",
        key_of(report, "BOX005"): "accept",
    }
    (left,) = found.left_out
    assert left.startswith(f"{path}: task ")
    assert left.endswith(
        "images/c.png: The 'dog' at 96, 6, 108, 18 is new, and no finding is about it; "
        "add it to the dataset by hand."
    )


def box(x: float, y: float, right: float, bottom: float, name: str, key: str | None = None) -> dict[str, Any]:
    """A result of Label Studio on an image of 120 x 60 pixels."""
    value = {
        "x": x / 1.2,
        "y": y / 0.6,
        "width": (right - x) / 1.2,
        "height": (bottom - y) / 0.6,
        "rotation": 0,
    }
    return {"id": key, "type": "rectanglelabels", "value": {**value, "rectanglelabels": [name]}}


LOOSE = (0, 0, 100, 50)
DOG = box(20, 20, 40, 40, "dog")
MOVED = {
    "rounded to half a percent": ([box(0.4, 0.2, 99.6, 50.3, "cat"), DOG], "keep"),
    "moved by two pixels": (
        [box(2, 0, 100, 50, "cat"), DOG], ("move", "cat", pytest.approx((2, 0, 100, 50))),
    ),
    "to the proposal": ([box(0, 0, 60.4, 50, "cat"), DOG], "accept"),
    "another class": ([box(*LOOSE, "dog"), DOG], ("relabel", "dog", None)),
    "deleted": ([DOG], ("remove", None, None)),
    "far away": ([box(0, 0, 20, 20, "cat"), DOG], ("move", "cat", pytest.approx((0, 0, 20, 20)))),
    "proposal taken up, given one left": (
        [box(*LOOSE, "cat"), box(0, 0, 60, 50, "cat"), DOG], "accept",
    ),
    "proposal left": ([box(*LOOSE, "cat"), box(0, 0, 60, 50, "proposed box"), DOG], "keep"),
}  # fmt: skip


@pytest.mark.parametrize(("result", "verdict"), MOVED.values(), ids=MOVED.keys())
def test_a_loose_box(tmp_path: Path, result: Any, verdict: Any) -> None:
    report = boxes_report(tmp_path)
    task = sent(report, tmp_path / "out", codes=["BOX005"])["images/b.png"]
    answered(task, result)
    found = read(report, tmp_path, [task])
    assert verdicts(found.decisions) == {key_of(report, "BOX005"): verdict}
    assert found.left_out == ()


UNSAID = {
    "turned": (
        [{**box(0, 0, 60, 50, "cat"), "value": {**box(0, 0, 60, 50, "cat")["value"], "rotation": 30}}, DOG],
        "The box of 'cat' at 0, 0, 60, 50 is turned by 30 degrees; expected an upright box; it is left out.",
        "keep",
    ),
    "class and box at once": (
        [box(0, 0, 60, 50, "dog"), DOG],
        "The 'cat' at 0, 0, 100, 50 became 'dog'; audit again for it.",
        "accept",
    ),
    "another object": (
        [box(*LOOSE, "cat"), box(20, 20, 40, 40, "cat")],
        "The 'dog' at 20, 20, 40, 40 became 'cat', and no finding is about it.",
        "keep",
    ),
    "another object deleted": (
        [box(*LOOSE, "cat")],
        "The 'dog' at 20, 20, 40, 40 was deleted, and no finding is about it.",
        "keep",
    ),
    "no area": (
        [box(*LOOSE, "cat"), DOG, box(90, 20, 90, 20, "cat")],
        "The box of 'cat' at 90, 20, 90, 20 has no area; it is left out.",
        "keep",
    ),
    "a brush": (
        [box(*LOOSE, "cat"), DOG, {"type": "brushlabels", "value": {"rle": [1]}}],
        "A result of the kind 'brushlabels' says nothing here.",
        "keep",
    ),
}


@pytest.mark.parametrize(("result", "left", "verdict"), UNSAID.values(), ids=UNSAID.keys())
def test_what_is_no_decision_is_reported(tmp_path: Path, result: Any, left: str, verdict: str) -> None:
    report = boxes_report(tmp_path)
    task = sent(report, tmp_path / "out", codes=["BOX005"])["images/b.png"]
    answered(task, result)
    found = read(report, tmp_path, [task])
    assert verdicts(found.decisions) == {key_of(report, "BOX005"): verdict}
    assert [each.partition("images/b.png: ")[2] for each in found.left_out] == [left]


def test_several_people_are_several_reviewers_and_the_latest_answer_of_each_counts(tmp_path: Path) -> None:
    report = classes_report(tmp_path)
    task = sent(report, tmp_path / "out")["cat/1.png"]
    answered(task, given(task), {"id": 7, "email": "ann@example.org"}, "2026-03-01T10:00:00.123456Z")
    answered(task, given(task, "suggested"), {"id": 7, "email": "ann@example.org"}, "2026-03-02T10:00:00Z")
    answered(task, given(task), 8)
    found = read(report, tmp_path, [task], reviewer="bob")
    assert [(each.reviewer, each.verdict, each.at) for each in found.decisions] == [
        ("ann@example.org", "accept", "2026-03-02T10:00:00Z"),
        ("bob", "keep", "2026-03-01T10:00:00Z"),
    ]
    (left,) = found.left_out
    assert left.endswith("cat/1.png: ann@example.org has a later answer on this image.")
    answered(task, given(task), 9)
    with pytest.raises(InputError, match="These are answers of 2 people: 8, 9"):
        read(report, tmp_path, [task], reviewer="bob")


def test_answers_are_recorded_once_and_change_the_files_that_they_are_about(tmp_path: Path) -> None:
    report = classes_report(tmp_path)
    tasks = sent(report, tmp_path / "out")
    before = {path: path.read_bytes() for path in (tmp_path / "photos").rglob("*.png")}
    answered(tasks["cat/1.png"], given(tasks["cat/1.png"], "suggested"))
    answered(tasks[FOX], given(tasks[FOX]))
    found = read(report, tmp_path, tasks.values())
    assert {path: path.read_bytes() for path in (tmp_path / "photos").rglob("*.png")} == before
    first, again = label_tools.take(report, found), label_tools.take(report, found)
    assert (len(first.new), first.known, len(again.new), again.known) == (2, 0, 0, 2)
    source = report.tables.source
    assert source is not None
    assert verdicts(decisions.latest(source).values()) == {"k1": "accept", "k3": "keep"}
    plan = fix.plan(report, decisions=found.decisions)
    fix.apply(plan)
    assert (tmp_path / "photos" / "dog" / "1.png").exists()
    assert (tmp_path / "photos" / FOX).exists()
    later = label_studio.read(tmp_path / "export.json", replace(report, items=report.items[1:]))
    assert verdicts(later.decisions) == {"k3": "keep"}
    assert later.left_out[0].endswith("The finding k1 is gone: it was decided before.")


def test_an_old_answer_does_not_come_back_over_a_later_one(tmp_path: Path) -> None:
    report = classes_report(tmp_path)
    task = sent(report, tmp_path / "out")["cat/1.png"]
    answered(task, given(task), "ann", at="2026-03-01T10:00:00Z")
    old = read(report, tmp_path, [task])
    answered(task, given(task, "suggested"), "ann", at="2026-03-02T10:00:00Z")
    label_tools.take(report, old)
    label_tools.take(report, read(report, tmp_path, [task]))
    assert label_tools.take(report, old).new == ()
    source = report.tables.source
    assert source is not None
    assert decisions.latest(source)["k1"].verdict == "accept"


def test_the_labeling_interface_holds_any_class(tmp_path: Path) -> None:
    report = classes_report(tmp_path)
    names = ("a \"b\" <c> & 'd'", "costs $5", "سلام", "two\nlines")
    report = replace(report, tables=replace(report.tables, classes=(*report.tables.classes, *names)))
    root = ElementTree.fromstring(label_studio.config(report))
    choices = [choice.attrib.get("alias", choice.attrib["value"]) for choice in root.iter("Choice")]
    assert choices == [*("cat", "dog", "fox"), *names]
    # Label Studio replaces a name after a dollar by what the task has of that name
    assert not any("$" in choice.attrib["value"] for choice in root.iter("Choice"))


def test_images_are_embedded_or_named(tmp_path: Path) -> None:
    report = classes_report(tmp_path)

    def images(where: str) -> dict[str, str]:
        label_studio.export(report, tmp_path / "out", images=where)
        tasks = json.loads((tmp_path / "out" / "tasks.json").read_text(encoding="utf-8"))
        return {task["data"]["sample_id"]: task["data"]["image"] for task in tasks}

    assert images("embed")["cat/1.png"].startswith("data:image/png;base64,iVBOR")
    assert images("local")[FOX].startswith(
        "/data/local-files/?d=photos/fox/%3Cb%3E%22O%27x%22%3C/b%3E%20%26%20%24"
    )
    with pytest.raises(InputError, match="The images are 'here'; expected 'embed', 'local' or a URL"):
        images("here")
    (tmp_path / "photos" / "cat" / "1.png").write_bytes(b"nothing")
    with pytest.raises(InputError, match="The image can't be embedded"):
        images("embed")


def test_what_a_label_tool_cannot_answer_is_left_out_with_its_reason(tmp_path: Path) -> None:
    found = label_studio.export(classes_report(tmp_path), tmp_path / "out", n=2)
    assert (found.n_tasks, found.n_findings) == (2, 2)
    assert found.left_out == {"k5": "it proposes that the image leaves the dataset, which labels can't say"}
    assert "Submit says that they are right" in found.how


WRONG = {
    "not JSON": ("labels: cat", "is neither an export of Label Studio (JSON) nor of CVAT"),
    "no tasks": ('{"a": 1}', "is neither an export of Label Studio (JSON) nor of CVAT"),
    "of others": (
        '[{"id": 1, "data": {"image": "a.png"}, "annotations": []}]',
        "None of the tasks was made by dataaudit",
    ),
    "of another dataset": (
        '[{"id": 1, "data": {"sample_id": "x.png", "dataaudit": {"findings": [{"key": "zz"}]}}, '
        '"annotations": [{"result": []}]}]',
        "None of the 1 findings that these answers are about is in the report, nor is an image such as 'x",
    ),
    "an unknown class": (
        '[{"id": 4, "data": {"sample_id": "cat/1.png", "dataaudit": {"findings": [{"key": "k1"}]}}, '
        '"annotations": [{"result": [{"type": "choices", "value": {"choices": ["dgo"]}}]}]}]',
        "task 4: No sample has the class 'dgo'. Did you mean 'dog'?",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("content", "message"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_file_says_what_is_wrong(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "answers.json").write_text(content)
    with pytest.raises(InputError) as caught:
        label_tools.read(tmp_path / "answers.json", classes_report(tmp_path))
    assert message in str(caught.value)
    assert "answers.json" in str(caught.value)


def test_the_command_sends_and_takes_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "digits"
    write_digits(root, 150)
    wrong = {"8/0003.png": "3", "7/0001.png": "1", "6/0000.png": "0"}
    for name, digit in wrong.items():
        (root / digit / name[2:]).rename(root / name)
    options = ["--select", "LBL001", "-n", "1", "--quiet"]
    assert (
        main(["decisions", "export", str(root), str(tmp_path / "out"), "--to", "label-studio", *options]) == 0
    )
    assert "1 findings on 1 images for label-studio." in capsys.readouterr().out
    (task,) = json.loads((tmp_path / "out" / "tasks.json").read_text(encoding="utf-8"))
    name = task["data"]["sample_id"]
    answered(task, given(task, "suggested"), {"email": "ann@example.org"})
    (tmp_path / "back.json").write_text(json.dumps([task]))
    for counts in ("1 new, 0 known already", "0 new, 1 known already"):
        assert main(["decisions", "import", str(root), str(tmp_path / "back.json"), "--quiet"]) == 0
        assert counts in capsys.readouterr().out
    assert main(["fix", str(root), "--decided", "--quiet"]) == 0
    assert (root / wrong[name] / name[2:]).exists()
    assert sum((root / each).exists() for each in wrong) == 2


def test_a_finding_that_is_gone_is_reported(tmp_path: Path) -> None:
    report = classes_report(tmp_path)
    tasks = sent(report, tmp_path / "out")
    for task in tasks.values():
        answered(task, given(task))
    now = replace(report, items=report.items[1:])
    found = read(now, tmp_path, tasks.values())
    assert "k1" not in verdicts(found.decisions)
    (left,) = found.left_out
    assert left.endswith("The finding k1 is gone: the image, its label or the suggestion changed.")
