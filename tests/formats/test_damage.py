"""Damaged annotation files of objects: each is an error or a finding that names the place, and no more."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from damage import FORMATS, Damage, sound, to_files, to_images
from damaged_folders import to_folders
from damaged_values import to_values
from object_fixes import apply, of_image, of_object

from dataaudit import fix, formats, state
from dataaudit.cli import main
from dataaudit.errors import ConflictError, InputError
from dataaudit.pipeline import audit
from dataaudit.types import CORNERS, Finding, Tables

CODES = ("BOX001", "BOX006", "BOX007", "BOX008", "BOX015", "IMG001")
HARMLESS = (
    "a byte order mark",
    "lines that end with CR LF",
    "lines that end with CR",
    "no end of the last line",
    "coco annotations.json: UTF-16 with a mark",
    "coco annotations.json: UTF-16 without a mark",
    "coco annotations.json: blank lines around",
    "yolo a.txt: blank lines around",
    "yolo data.yaml: UTF-16 with a mark",
    "yolo data.yaml: UTF-16 without a mark",
    "yolo data.yaml: blank lines around",
    "yolo data.yaml: two byte order marks",
    "voc a.xml: UTF-16 with a mark",
    "voc a.xml: UTF-16 without a mark",
    "voc a.xml: UTF-32",
    "voc a.xml: two byte order marks",
    "kitti a.txt: blank lines around",
    "cvat annotations.xml: UTF-16 with a mark",
    "cvat annotations.xml: UTF-16 without a mark",
    "cvat annotations.xml: UTF-32",
    "cvat annotations.xml: two byte order marks",
    "coco half a surrogate in a text",
    "coco an unknown key",
    "coco an unknown key that is deep",
    "coco a size of zero",
    "coco no size",
    "coco attributes of text",
    "coco a JSON of another kind beside it",
    "yolo data.yaml: no splits",
    "yolo data.yaml: keypoints of a thousand",
    "yolo data.yaml: an unknown key",
    "yolo data.yaml: a comment",
    "yolo data.yaml: an anchor",
    "yolo data.yaml: quotes",
    "yolo a line: tabs between",
    "yolo a line: blanks around",
    "yolo a line: exponents",
    "yolo a line: a plus",
    "yolo a line: class 0.0",
    "yolo a line: form feeds between",
    "yolo a second yaml",
    "yolo a class list in UTF-16",
    "yolo a class list with a mark",
    "yolo a bomb of anchors",
    "voc a document type from elsewhere",
    "voc an encoding it isn't in",
    "voc a prefix that isn't declared",
    "voc a namespace",
    "voc an unknown element",
    "voc a comment",
    "voc CDATA",
    "voc an instruction",
    "voc new lines around the name",
    "voc blanks around xmin",
    "voc a point behind xmin",
    "voc an exponent in xmin",
    "kitti a line: a score",
    "kitti a line: tabs between",
    "kitti a line: blanks around",
    "kitti a line: exponents",
    "cvat no list of labels",
    "cvat an unknown attribute",
    "cvat an unknown element",
    "cvat a comment",
    "cvat single quotes",
    "cvat a document type",
)
VALID = (
    # An empty label file is an image without objects
    "yolo a.txt: empty",
    "yolo a.txt: blanks alone",
    "kitti a.txt: empty",
    "kitti a.txt: blanks alone",
    # By chance the cut is at the end of a line or of a number
    "yolo a.txt: a half is left",
    "yolo a.txt: the first half is gone",
    "kitti a.txt: the first half is gone",
    # Without any annotations these are folders of images
    "coco annotations.json: missing",
    "cvat annotations.xml: missing",
    # Of a key that stands twice in an object every reader of JSON takes the last
    "coco bbox twice",
    "coco attributes in a list",
    "yolo data.yaml: names of numbers",
    # Annotations belong to images by the names without endings
    "yolo an image of another ending",
    "voc an image of another ending",
    "kitti an image of another ending",
)
OUTCOMES = dict.fromkeys(HARMLESS, "harmless") | dict.fromkeys(VALID, "valid")
CASES = [*to_files(OUTCOMES), *to_images(OUTCOMES), *to_values(OUTCOMES), *to_folders(OUTCOMES)]
OF_FILES = {case.name for case in to_files({})}  # many, and alike to all checks
SYNTAX = re.compile("isn't JSON|isn't YAML|XML can't be read")
LINE = re.compile(r"\.(?:json|yaml|xml):\d+")


def of(outcome: str) -> Any:
    return pytest.mark.parametrize("case", [case for case in CASES if case.outcome == outcome], ids=str)


def snapshot(root: Path) -> dict[str, tuple[Any, ...]]:
    """All that there is below a folder: modes, times, and the bytes of files."""
    found: dict[str, tuple[Any, ...]] = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        content: Any = path.readlink() if path.is_symlink() else path.read_bytes() if path.is_file() else None
        found[str(path)] = (status.st_mode, status.st_mtime_ns, content)
    return found


def content(root: Path) -> list[tuple[Any, ...]]:
    """What there is below a folder, without times of change and the state of the tool."""
    seen = snapshot(root).items()
    return [(path, mode, what) for path, (mode, _, what) in seen if state.FOLDER not in path]


def findings(tables: Tables) -> tuple[Finding, ...]:
    # Without a source nothing is kept beside the dataset
    return audit(replace(tables, source=None), select=CODES, progress=False).items


def said_by(finding: Finding, tables: Tables) -> str:
    """All that a finding says of its place."""
    said = [finding.item_id, finding.message, str(finding.evidence.get("place", ""))]
    if finding.item_id in tables.labels.index:
        said.append(str(tables.labels.loc[finding.item_id, "locator"]))
    elif finding.item_id in tables.images.index:
        said.append(str(tables.images.loc[finding.item_id, "locator"]))
    return " ".join(said)


def objects(tables: Tables) -> list[tuple[Any, ...]]:
    table = tables.labels
    return sorted(zip(table["sample_id"], table["name"], *(table[side] for side in CORNERS), strict=True))


def test_there_are_damages_of_every_kind() -> None:
    assert len({(case.format, case.name) for case in CASES}) == len(CASES) >= 700
    unknown = set(OUTCOMES) - {f"{case.format} {case.name}" for case in CASES}
    assert len([case for case in CASES if f"{case.format} {case.name}" in COMMANDS]) == len(COMMANDS)
    assert unknown <= {case.name.partition(": ")[2] for case in CASES}


@pytest.mark.timeout(60)
@of("reported")
def test_damage_is_an_error_or_a_finding_that_names_the_place(case: Damage, tmp_path: Path) -> None:
    root = sound(case.format, tmp_path / "data")
    case.harm(root)
    before = snapshot(tmp_path)
    try:
        tables = formats.read(root)
    except InputError as error:
        assert case.place in str(error)
        assert not SYNTAX.search(str(error)) or LINE.search(str(error)), error
        with pytest.raises(InputError):
            formats.read(root, format=case.format)
    else:
        assert tables.task == "detection"
        found = [f"{each.message} {each.locator}" for each in tables.problems]
        if case.name not in OF_FILES or not any(case.place in each for each in found):
            found = [said_by(each, tables) for each in findings(tables)]
        assert any(case.place in each for each in found), found
    assert snapshot(tmp_path) == before


TEXTS = ("yolo", "voc", "kitti")
BESIDE = (": a broken link", ": a link to itself", ": a folder", ": a pipe", ": random bytes", "empty")


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "case", [case for case in CASES if case.format in TEXTS and case.name.endswith(BESIDE)], ids=str
)
def test_a_fix_beside_the_damage_is_refused_or_can_be_undone(case: Damage, tmp_path: Path) -> None:
    root = sound(case.format, tmp_path / "data")
    case.harm(root)
    before, tables = content(root), formats.read(root)
    box = (0.25, 0.25, 0.5, 0.5) if tables.units == "relative" else (1.0, 2.0, 9.0, 8.0)
    fixes = [
        of_image(tables, image, "add", tables.labels["name"].iloc[0], box) for image in tables.images.index
    ]
    fixes += [of_object(tables, str(label_id), "remove") for label_id in tables.labels.index]
    for each in fixes:
        with suppress(InputError, ConflictError):
            apply(tables, each)
            assert content(root) != before
            fix.undo(root)
        assert content(root) == before


COMMANDS = (
    "coco annotations.json: a half is left",
    "coco annotations.json: empty",
    "coco annotations.json: 100,000 brackets",
    "coco annotations.json: a pipe",
    "coco annotations.json: a pointer of git-lfs",
    "coco annotations.json: a link to itself",
    "yolo data.yaml: an unclosed bracket",
    "voc no folder of images",
    "kitti a further image named no UTF-8",
    "cvat annotations.xml: a device without end",
    "cvat a bomb of entities",
)


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "case", [case for case in CASES if f"{case.format} {case.name}" in COMMANDS], ids=str
)
def test_the_command_ends_with_code_2_and_one_message(
    case: Damage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = sound(case.format, tmp_path / "data")
    case.harm(root)
    before = snapshot(tmp_path)
    assert main(["audit", str(root)]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"dataaudit: {root}")
    assert case.place in said.err
    assert "Traceback" not in said.err
    assert snapshot(tmp_path) == before


@pytest.mark.timeout(60)
@of("harmless")
def test_what_the_format_allows_is_read_without_loss_and_comes_back_after_a_fix(
    case: Damage, tmp_path: Path
) -> None:
    root = sound(case.format, tmp_path / "data")
    wanted = objects(formats.read(root))
    case.harm(root)
    before = content(root)
    tables = formats.read(root)
    assert objects(tables) == wanted
    assert not [each.message for each in findings(tables) if each.score < 0.5]
    first = str(tables.labels.index[0])
    other = next((name for name in tables.classes if name != tables.labels.loc[first, "name"]), "dog")
    apply(tables, of_object(tables, first, "relabel", other))
    assert formats.read(root).labels.loc[first, "name"] == other
    fix.undo(root)
    assert content(root) == before


@pytest.mark.timeout(60)
@of("valid")
def test_a_sound_file_that_says_something_else_is_read_as_it_is(case: Damage, tmp_path: Path) -> None:
    root = sound(case.format, tmp_path / "data")
    case.harm(root)
    before = snapshot(tmp_path)
    tables = formats.read(root)
    assert all(np.isfinite(tables.labels[side]).all() for side in CORNERS if side in tables.labels)
    findings(tables)
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("form", FORMATS)
def test_the_dataset_that_is_damaged_is_sound_before(form: str, tmp_path: Path) -> None:
    tables = formats.read(sound(form, tmp_path / "data"))
    assert tables.source is not None
    assert tables.source.format == form
    assert not tables.problems
    assert not findings(tables)
