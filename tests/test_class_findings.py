"""Findings about classes and annotators, from the files to the reports, FiftyOne and the fixes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from pictures import write_digits
from PIL import Image

import dataaudit
from dataaudit import decisions, fix, formats, report
from dataaudit.cli import main
from dataaudit.types import Decision, Finding, Report

CLASSES = ("LBL009", "LBL011")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A tree with the classes cat (twice spelled), dog and an empty one."""
    folder = tmp_path / "pets"
    rng = np.random.default_rng(0)
    for number, name in enumerate(["cat"] * 4 + ["Cat"] * 2 + ["dog"] * 4):
        (folder / name).mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name / f"{number}.png")
    (folder / "cow").mkdir()
    (folder / "notes").mkdir()
    (folder / "notes" / "readme.txt").write_text("no class")
    return folder


def audited(root: Path) -> Report:
    return dataaudit.audit(root, select=CLASSES, progress=False)


def of(found: Report, code: str) -> Finding:
    [finding] = [item for item in found.items if item.code == code]
    return finding


def test_an_empty_folder_is_a_class_without_labels_and_a_folder_of_other_files_is_none(root: Path) -> None:
    found = audited(root)
    assert found.tables.classes == ("Cat", "cat", "cow", "dog")
    assert of(found, "LBL011").item_id == "cow"


def test_one_decision_renames_a_class_and_an_undo_brings_it_back(root: Path) -> None:
    found = audited(root)
    finding = of(found, "LBL009")
    assert (finding.item_id, finding.suggested, finding.sample_id) == ("Cat", "cat", None)
    accepted = Decision(finding=finding.key, verdict="accept", fix=finding.fix)
    plan = fix.plan(found, decisions=[accepted])
    assert [(each.op, each.sample_id, each.new) for each in plan.fixes] == [
        ("relabel", "Cat/4.png", "cat"),
        ("relabel", "Cat/5.png", "cat"),
    ]
    fix.apply(plan)
    again = audited(root)
    assert again.tables.classes == ("cat", "cow", "dog")
    assert [item.code for item in again.items] == ["LBL011"]
    fix.undo(root)
    assert sorted(formats.read(root).images.index) == sorted(found.tables.images.index)


def test_a_rename_is_never_applied_by_a_probability(root: Path) -> None:
    assert len(fix.plan(audited(root), min_probability=0.0)) == 0


def test_a_decision_from_a_file_may_name_another_class(root: Path, tmp_path: Path) -> None:
    found = audited(root)
    file = tmp_path / "decisions.csv"
    file.write_text("finding,verdict,label\nLBL009:Cat,other,dog\n")
    [decision] = decisions.read(file, found)
    plan = fix.plan(found, decisions=[decision])
    assert {each.new for each in plan.fixes} == {"dog"}
    decisions.record(plan.source, [decision])
    assert decisions.latest(plan.source)[decision.finding].fix == decision.fix


def test_a_label_with_a_decision_of_its_own_keeps_it(root: Path) -> None:
    found = audited(root)
    finding = of(found, "LBL009")
    own = fix.Fix(
        op="relabel", sample_id="Cat/4.png", label_id="Cat/4.png", old="Cat", new="dog",
        locator=found.tables.labels.loc["Cat/4.png", "locator"],
    )  # fmt: skip
    other = Finding(
        key="own", code="LBL001", item_id="Cat/4.png", sample_id="Cat/4.png", score=0.1, probability=0.9,
        message="", fix=own,
    )  # fmt: skip
    both = Report(**{**found.__dict__, "items": (finding, other)})
    accept = [Decision(finding=key, verdict="accept") for key in (finding.key, "own")]
    assert [each.new for each in fix.plan(both, decisions=accept).fixes] == ["dog", "cat"]


def test_reports_show_findings_that_are_about_no_image(root: Path, tmp_path: Path) -> None:
    summary = report.summarize(audited(root))
    assert summary["counts"]["doubtful_labels"] == 0
    assert summary["estimate"] == "2 findings in 10 images."
    page = report.to_html(summary)
    assert "differ in capital letters only" in page
    assert "No image is labeled" in page
    sarif = json.loads(report.to_sarif(summary, base=tmp_path))
    assert {each["ruleId"] for each in sarif["runs"][0]["results"]} == set(CLASSES)
    assert "LBL009" in report.to_junit(summary)
    assert "LBL009" in report.to_github(summary, base=tmp_path)
    report.write(summary, tmp_path / "out", thumbnails=tmp_path / "thumbnails")
    template = tmp_path / "template.csv"
    decisions.write_template(audited(root), template)
    assert template.read_text(encoding="utf-8-sig").count("LBL009") == 1


def test_annotations_are_audited_from_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "digits"
    files, _ = write_digits(root, 60)
    wrong = root / ("1" if files[0][0] != "1" else "2") / "wrong.png"
    (root / files[0]).rename(wrong)
    rows = [f"{file},{who},{file[0]}" for file in files[1:] for who in ("ann", "bob", "eve")]
    rows += [f"wrong.png,{who},{files[0][0]}" for who in ("ann", "bob", "eve")]
    (tmp_path / "votes.csv").write_text("\n".join(["bild,annotator,label", *rows]))
    arguments = ["audit", str(root), "--annotations", str(tmp_path / "votes.csv"), "--no-fiftyone", "-q"]
    arguments += ["--select", "LBL005,LBL006,LBL007", "--format", "json"]
    assert main(arguments) == 2
    assert "No column of the annotations names the sample" in capsys.readouterr().err
    assert main([*arguments, "--annotation-column", "sample=bild"]) == 1
    found = json.loads(capsys.readouterr().out)["findings"]
    assert [(each["code"], each["sample_id"], each["suggested"]) for each in found] == [
        ("LBL005", f"{wrong.parent.name}/wrong.png", files[0][0])
    ]
