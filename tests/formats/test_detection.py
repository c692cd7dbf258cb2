"""Every format with a golden folder reads it, changes nothing unasked, and takes back what it did."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from dataaudit import fix, formats, journal, state
from dataaudit.errors import FormatError, InputError
from dataaudit.types import Finding, Fix, Report, Tables

DATA = Path(__file__).parent.parent / "data"
CLASSES = {name for name, module in formats.formats().items() if not getattr(module, "OBJECTS", False)}
GOLDEN = sorted(folder.name for folder in DATA.iterdir() if folder.name in CLASSES)


def contents(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and state.FOLDER not in path.parts
    }


def report_of(tables: Tables, *fixes: Fix) -> Report:
    items = tuple(
        Finding(
            key=f"k{n}",
            code="LBL001",
            item_id=each.label_id,
            sample_id=each.sample_id,
            score=0.1,
            probability=0.9,
            message="",
            fix=each,
        )
        for n, each in enumerate(fixes)
    )
    return Report(digest="", params={}, outcomes={}, items=items, skipped={}, timings={}, tables=tables)


def fix_of(tables: Tables, sample_id: str, op: str, new: str | None) -> Fix:
    row = tables.labels.loc[sample_id]
    return Fix(
        op=op, sample_id=sample_id, label_id=sample_id, locator=row["locator"], old=row["name"], new=new
    )


@pytest.fixture(params=GOLDEN)
def golden(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return Path(shutil.copytree(DATA / request.param, tmp_path / request.param))


def test_every_format_of_files_has_a_golden_folder() -> None:
    assert {"folder", "manifest"} <= set(GOLDEN)


def test_a_golden_folder_is_recognised_without_being_told(golden: Path) -> None:
    tables = formats.read(golden)
    assert tables.source is not None
    assert tables.source.format == golden.name
    assert all(Path(path).is_file() for path in tables.images["filepath"])


def test_no_fix_changes_no_byte(golden: Path) -> None:
    before = contents(golden)
    tables = formats.read(golden)
    assert formats.patch(tables.source, []) == []
    fix.apply(fix.plan(report_of(tables), min_probability=0.5))
    assert contents(golden) == before


@pytest.mark.parametrize("op", ["relabel", "drop", "merge"])
def test_a_fix_is_seen_by_the_next_read_and_its_undo_restores_every_byte(golden: Path, op: str) -> None:
    before = contents(golden)
    tables = formats.read(golden)
    first, second = tables.images.index[:2]
    new = {"relabel": "zebra", "drop": None, "merge": second}[op]
    fix.apply(fix.plan(report_of(tables, fix_of(tables, first, op, new)), min_probability=0.5))
    after = formats.read(golden)
    assert len(after.images) == len(tables.images) - (op != "relabel")
    assert ("zebra" in after.classes) == (op == "relabel")
    assert contents(golden) != before
    fix.undo(golden)
    assert contents(golden) == before


@pytest.mark.parametrize("name", ["", "a/b", "..", ".hidden", "a\nb", " ", "a\\b"])
def test_a_class_that_is_no_folder_name_is_refused(tmp_path: Path, name: str) -> None:
    root = Path(shutil.copytree(DATA / "folder", tmp_path / "photos"))
    tables = formats.read(root)
    with pytest.raises(InputError):
        formats.patch(tables.source, [fix_of(tables, "train/cat/1.png", "relabel", name)])


def test_two_fixes_of_one_label_are_refused(golden: Path) -> None:
    tables = formats.read(golden)
    first = tables.images.index[0]
    both = [fix_of(tables, first, "relabel", "x"), fix_of(tables, first, "relabel", "y")]
    with pytest.raises(InputError, match="two fixes"):
        formats.patch(tables.source, both)


def test_a_path_that_is_not_there_names_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    with pytest.raises(FormatError, match=r"Did you mean .*photos"):
        formats.read(tmp_path / "fotos")


def test_an_empty_folder_says_so(tmp_path: Path) -> None:
    (tmp_path / ".hidden").write_text("")
    with pytest.raises(FormatError, match="The folder is empty"):
        formats.read(tmp_path)


def test_a_folder_without_images_lists_what_was_seen_and_the_formats(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / "sub").mkdir()
    with pytest.raises(FormatError, match=r"holds no images") as error:
        formats.read(tmp_path)
    assert "1 .txt" in str(error.value)
    assert "sub" in str(error.value)
    assert "manifest: A CSV" in str(error.value)


def test_a_file_that_is_no_manifest_says_what_was_expected(tmp_path: Path) -> None:
    (tmp_path / "photos.zip").write_bytes(b"")
    with pytest.raises(FormatError, match=r"a \.zip file; expected a folder or a manifest"):
        formats.read(tmp_path / "photos.zip")


def test_loose_images_alone_are_no_dataset_unless_the_format_is_given(tmp_path: Path) -> None:
    (tmp_path / "1.jpg").write_bytes(b"")
    with pytest.raises(FormatError, match="no class folders and no manifest"):
        formats.read(tmp_path)
    assert formats.read(tmp_path, format="folder").labels["name"].tolist() == [None]


def test_a_manifest_beside_class_folders_has_to_be_chosen(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.jpg").write_bytes(b"")
    (tmp_path / "labels.csv").write_text("filepath,label\ncat/1.jpg,cat\n")
    with pytest.raises(FormatError, match="as folder and as manifest"):
        formats.read(tmp_path)
    assert len(formats.read(tmp_path, format="folder").images) == 2
    assert len(formats.read(tmp_path / "labels.csv").images) == 1


def test_an_unknown_format_lists_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Did you mean 'folder'"):
        formats.read(tmp_path, format="foldr")


def test_reading_finishes_an_interrupted_fix_first(golden: Path) -> None:
    tables = formats.read(golden)
    first = tables.images.index[0]
    folder = state.prepare(tables.source)
    operations = formats.patch(tables.source, [fix_of(tables, first, "relabel", "zebra")])
    with journal._locked(folder):
        journal._stage(folder, operations)
    assert "zebra" in formats.read(golden).classes
