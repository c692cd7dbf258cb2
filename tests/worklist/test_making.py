"""Worklists of real audits, of each task, and of tables made by hand."""

from __future__ import annotations

import csv
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from detections import CLASSES, scenes, seen
from pictures import write_digits
from PIL import Image

import dataaudit as da
from dataaudit import decisions, formats, state
from dataaudit.cli import main
from dataaudit.errors import InputError
from dataaudit.types import Locator, Report, Tables
from dataaudit.worklist import Session, Worklist, worklist_of


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 digits with 12 wrong labels, a copy under another class and a damaged file."""
    root = tmp_path_factory.mktemp("worklist") / "digits"
    write_digits(root, 200)
    for path in sorted(root.glob("*/*.png"))[::17]:
        wrong = root / ("3" if path.parent.name != "3" else "5")
        shutil.move(path, wrong / f"moved-{path.name}")
    first = sorted((root / "1").glob("*.png"))[0]
    shutil.copy(first, root / "2" / "copy <b>&'猫.png")
    (root / "4" / "damaged.png").write_bytes(b"\x89PNG nothing")
    return root


@pytest.fixture(scope="module")
def audited(digits: Path) -> Report:
    return da.audit(digits, select=["LBL", "DUP", "IMG001"], progress=False)


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """Plain images, a detector that saw more in them, and labels some of which are wrong or missing."""
    root, tables = tmp_path_factory.mktemp("objects"), scenes()
    for at, name in enumerate(tables.images.index):
        Image.new("RGB", (640, 480), (2 * at, 255 - 2 * at, at)).save(root / name)
    images = tables.images.assign(filepath=[str(root / name) for name in tables.images.index])
    labels = tables.labels.copy()
    labels.iloc[::25, labels.columns.get_loc("name")] = "cat"
    labels = labels.drop(index=labels.index[7::40])
    tables = replace(tables, images=images, labels=labels)
    return da.audit(tables, select=["BOX002", "BOX003"], predictions=seen(scenes()), progress=False)


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """A multi-label dataset with probabilities that miss a class here and there."""
    root = tmp_path_factory.mktemp("sets")
    rng = np.random.default_rng(0)
    truth = rng.random((150, 3)) < 0.4
    lines = ["filepath,label"]
    for number, row in enumerate(truth):
        pixels = rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"{number:03d}.png")
        names = [name for name, has in zip(CLASSES, row, strict=True) if has]
        if number % 15 == 0:
            names = names[1:] or ["dog"]
        lines.append(f"{number:03d}.png,{';'.join(names)}")
    (root / "labels.csv").write_text("\n".join(lines) + "\n")
    tables = formats.read(root / "labels.csv")
    chances = np.where(truth, 0.97, 0.03) + rng.uniform(-0.02, 0.02, truth.shape)
    own = pd.DataFrame(chances, index=[f"{number:03d}.png" for number in range(150)], columns=list(CLASSES))
    return da.audit(tables, select=["LBL003", "LBL004"], pred_probs=own, progress=False)


def test_every_finding_has_its_entry_with_what_it_says(audited: Report) -> None:
    found = {entry.key: entry for entry in worklist_of(audited).entries}
    assert set(found) == {item.key for item in audited.items}
    for item in audited.items:
        entry = found[item.key]
        assert (entry.code, entry.given, entry.suggested, entry.probability, entry.fix) == (
            item.code, item.given, item.suggested, item.probability, item.fix,
        )  # fmt: skip


def test_a_wrong_label_has_its_image_likely_classes_and_nearest_images(digits: Path, audited: Report) -> None:
    found = worklist_of(audited)
    entry = next(entry for entry in found.entries if entry.code == "LBL001")
    assert Path(entry.filepath) == digits / entry.sample_id
    with Image.open(entry.filepath) as image:
        assert entry.size == image.size
    chances = [choice.probability for choice in entry.choices]
    assert len(chances) == 5 and chances == sorted(chances, reverse=True)
    assert entry.suggested in [choice.name for choice in entry.choices]
    assert len(entry.neighbors) == 6
    nearest = entry.neighbors[0]
    assert Path(nearest.filepath).is_file() and nearest.names == (nearest.sample_id.split("/")[0],)
    similarities = [each.similarity for each in entry.neighbors]
    assert similarities == sorted(similarities, reverse=True)


def test_images_that_show_the_same_are_in_one_group(audited: Report) -> None:
    groups = {
        entry.sample_id: entry.group
        for entry in worklist_of(audited).entries
        if entry.code == "LBL002" or "copy" in str(entry.sample_id)
    }
    assert len(set(groups.values())) == 1 and None not in groups.values()


def test_a_damaged_image_has_an_entry_without_size_and_neighbours(audited: Report) -> None:
    [entry] = [entry for entry in worklist_of(audited).entries if entry.sample_id == "4/damaged.png"]
    assert (entry.code, entry.size, entry.choices, entry.neighbors) == ("IMG001", None, (), ())
    assert entry.digest is not None


def test_a_finding_about_a_class_has_no_image(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number, name in enumerate(["cat"] * 4 + ["Cat"] * 2):
        (tmp_path / name).mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(
            tmp_path / name / f"{number}.png"
        )
    found = worklist_of(da.audit(tmp_path, select=["LBL009"], progress=False))
    [entry] = found.entries
    assert (entry.item_id, entry.sample_id, entry.filepath, entry.fix.op) == ("Cat", None, None, "rename")
    assert (entry.other.op, entry.other.new, entry.neighbors) == ("rename", "", ())


def test_what_no_finding_is_about_keeps_its_errors(audited: Report) -> None:
    outcome = audited.outcomes["LBL001"]
    chance = outcome.probability[~outcome.flagged]
    pairs = worklist_of(audited).background["LBL001"]
    assert sum(p * n for p, n in pairs) == pytest.approx(chance.sum(), rel=1e-4)
    assert sum(n for _, n in pairs) == (chance > 0).sum()
    assert len(pairs) <= 48


def test_a_worklist_is_the_same_after_a_file(audited: Report, objects: Report, sets: Report) -> None:
    for report in (audited, objects, sets):
        found = worklist_of(report)
        assert Worklist.from_json(found.to_json()) == found


def test_a_damaged_worklist_says_what_to_do() -> None:
    with pytest.raises(InputError, match="worklist can't be read"):
        Worklist.from_json("{")
    with pytest.raises(InputError, match="has the schema 99"):
        Worklist.from_json('{"schema": 99}')


def test_missing_classes_know_what_the_image_has_already(sets: Report) -> None:
    found = worklist_of(sets)
    missing = [entry for entry in found.entries if entry.code == "LBL003"]
    assert missing
    names = sets.tables.labels.groupby("sample_id")["name"].agg(sorted)
    for entry in missing:
        assert entry.taken == tuple(names[entry.sample_id])
        assert (entry.other.op, entry.fix.op) == ("add", "add")
        assert entry.choices


def test_objects_have_their_boxes_and_no_neighbours(objects: Report) -> None:
    found = worklist_of(objects)
    by_code = {entry.code: entry for entry in found.entries}
    assert {"BOX002", "BOX003"} <= set(by_code)
    assert by_code["BOX002"].box is not None and by_code["BOX002"].other.op == "relabel"
    assert by_code["BOX003"].box is None and by_code["BOX003"].other.box is not None
    assert not any(entry.neighbors for entry in found.entries if entry.code.startswith("BOX"))


def test_another_class_means_what_a_file_of_decisions_means(
    audited: Report, objects: Report, sets: Report, tmp_path: Path
) -> None:
    """What a session makes of "other", and when it refuses, is what `decisions.read` does."""
    for report in (audited, objects, sets):
        found = worklist_of(report)
        session = Session(found)
        for entry in found.entries:
            for label in found.classes[:3]:
                assert outcome_of_session(session, entry.key, label) == outcome_of_file(
                    report, entry.key, label, tmp_path / "answers.csv"
                ), (entry, label)


def outcome_of_session(session: Session, key: str, label: str) -> object:
    try:
        return session.decide(key, "other", label=label).fix
    except InputError:
        return None


def outcome_of_file(report: Report, key: str, label: str, path: Path) -> object:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["finding", "verdict", "label"], [key, "other", label]])
    try:
        return decisions.read(path, report)[0].fix
    except InputError:
        return None


def test_tables_made_by_hand_have_a_worklist_without_pictures() -> None:
    names = ["cat", "dog"] * 40
    names[5] = "cat"
    ids = pd.Index([f"{number}.png" for number in range(80)])
    images = pd.DataFrame(
        {"filepath": "/nowhere", "width": pd.NA, "height": pd.NA, "split": None, "digest": None}, index=ids
    )
    labels = pd.DataFrame(
        {"sample_id": ids, "name": names, "geometry": None, "locator": Locator(file="l.csv")}, index=ids
    )
    tables = Tables(images=images, labels=labels, classes=("cat", "dog"))
    sure = np.tile([[0.98, 0.02], [0.02, 0.98]], (40, 1))
    own = pd.DataFrame(sure, index=ids, columns=["cat", "dog"])
    found = worklist_of(da.audit(tables, select=["LBL001"], pred_probs=own, progress=False))
    [entry] = found.entries
    assert (found.name, entry.sample_id, entry.suggested, entry.neighbors) == ("", "5.png", "dog", ())
    assert [choice.name for choice in entry.choices] == ["dog", "cat"]


def test_a_report_without_findings_or_signals_has_an_empty_worklist(audited: Report) -> None:
    found = worklist_of(replace(audited, items=(), outcomes={}, signals={}))
    assert (found.entries, found.background) == ((), {})
    bare = worklist_of(replace(audited, signals={}))
    assert all(not entry.choices and not entry.neighbors for entry in bare.entries)


def test_an_audit_from_the_command_line_leaves_its_worklist_beside_the_report(digits: Path) -> None:
    assert main(["audit", str(digits), "--no-fiftyone", "--exit-zero", "-q", "--select", "LBL001"]) == 0
    source = formats.read(digits).source
    found = Worklist.from_json(state.worklist_file(source).read_text())
    assert (found.task, found.path) == ("classification", str(digits))
    assert {entry.code for entry in found.entries} == {"LBL001"}
