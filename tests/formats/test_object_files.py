"""Formats of XML and text files: what is asked is done, nothing else, and it comes back."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from object_fixes import apply, contents, expected, fixes_of, objects, of_image, of_object

from dataaudit import fix, formats, journal
from dataaudit.errors import ConflictError, InputError

DATA = Path(__file__).parent.parent / "data"
FORMATS = ("cvat", "kitti", "voc")
PLAIN = ("dog", "Größe", "a<b>&c", 'say"hi"', "it's", "]]>", "猫")
# Half the last decimal of the files
TOLERANCE = {"cvat": 0.0051, "kitti": 0.0051, "voc": 0.51}


@pytest.fixture(params=FORMATS)
def golden(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return Path(shutil.copytree(DATA / request.param, tmp_path / request.param))


def test_a_golden_folder_is_recognised_without_being_told(golden: Path) -> None:
    tables = formats.read(golden)
    assert tables.source is not None
    assert (tables.source.format, tables.task, tables.units) == (golden.name, "detection", "pixels")
    assert all(Path(path).is_file() for path in tables.images["filepath"])


def test_no_fix_changes_no_byte(golden: Path) -> None:
    before = contents(golden)
    tables = formats.read(golden)
    assert formats.patch(tables.source, []) == []
    apply(tables)
    assert contents(golden) == before


@pytest.mark.parametrize("name", FORMATS)
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
@given(data=st.data())
def test_random_fixes_do_what_they_say_and_their_undo_restores_every_byte(
    name: str, data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(shutil.copytree(DATA / name, Path(folder) / name))
        before, tables = contents(root), formats.read(root)
        fixes = data.draw(fixes_of(tables, PLAIN))
        wanted = expected(tables, fixes)
        apply(tables, *fixes)
        after = formats.read(root)
        found = objects(after)
        # Rounded boxes may change the order of the objects of one class
        assert [each[:2] for each in found] == [each[:2] for each in wanted]
        near = pytest.approx(sorted(sum(each[2]) for each in wanted), abs=4 * TOLERANCE[name])
        assert sorted(sum(each[2]) for each in found) == near
        if fixes:
            fix.undo(root)
        assert contents(root) == before
        assert formats.read(root).labels.equals(tables.labels)


@pytest.mark.parametrize("op", ["relabel", "remove", "move"])
def test_an_object_of_another_class_or_box_than_expected_is_a_conflict(golden: Path, op: str) -> None:
    tables = formats.read(golden)
    first = str(tables.labels.index[0])
    new = {"relabel": "zebra", "remove": None, "move": None}[op]
    each = of_object(tables, first, op, new, (1, 2, 3, 4) if op == "move" else None)
    with pytest.raises(ConflictError, match=r"expected 'lynx'"):
        formats.patch(tables.source, [replace(each, old="lynx", new="lynx" if op == "move" else new)])
    assert each.old_box is not None
    x1, *others = each.old_box
    with pytest.raises(ConflictError, match=r"box .* expected \("):
        formats.patch(tables.source, [replace(each, old_box=(x1 + 0.001, *others))])
    assert formats.patch(tables.source, [replace(each, old_box=(x1 + 1e-7, *others))])


def test_an_object_that_is_gone_is_a_conflict(golden: Path) -> None:
    tables = formats.read(golden)
    last = str(tables.labels.index[tables.labels["sample_id"] == tables.labels["sample_id"].iloc[0]][-1])
    stale = of_object(tables, last, "relabel", "zebra")
    apply(tables, of_object(tables, last, "remove"))
    with pytest.raises(ConflictError):
        formats.patch(tables.source, [stale])


def test_the_objects_of_an_image_that_leaves_cannot_be_edited_too(golden: Path) -> None:
    tables = formats.read(golden)
    first = str(tables.labels.index[0])
    sample_id = str(tables.labels["sample_id"].iloc[0])
    with pytest.raises(InputError, match="leaves the dataset"):
        formats.patch(
            tables.source, [of_image(tables, sample_id, "drop"), of_object(tables, first, "remove")]
        )


def test_a_merge_into_an_image_that_is_gone_is_a_conflict(golden: Path) -> None:
    tables = formats.read(golden)
    first, second = tables.images.index[:2]
    with pytest.raises(ConflictError, match="gone"):
        formats.patch(tables.source, [of_image(tables, first, "merge", f"{second}x")])
    assert formats.patch(tables.source, [of_image(tables, first, "merge", second)])


def test_an_empty_class_is_refused(golden: Path) -> None:
    tables = formats.read(golden)
    with pytest.raises(InputError, match="expected a name"):
        formats.patch(tables.source, [of_object(tables, str(tables.labels.index[0]), "relabel", " ")])


def test_a_class_that_the_file_cannot_hold_is_refused(golden: Path) -> None:
    tables = formats.read(golden)
    with pytest.raises(InputError):
        formats.patch(tables.source, [of_object(tables, str(tables.labels.index[0]), "relabel", "a\x00b")])


def test_the_mode_of_a_file_stays(golden: Path) -> None:
    tables = formats.read(golden)
    first = of_object(tables, str(tables.labels.index[0]), "relabel", "zebra")
    (golden / first.locator.file).chmod(0o640)
    apply(tables, first)
    assert (golden / first.locator.file).stat().st_mode & 0o777 == 0o640


def test_an_annotation_file_that_is_a_link_to_elsewhere_is_left_alone(golden: Path, tmp_path: Path) -> None:
    tables = formats.read(golden)
    first = of_object(tables, str(tables.labels.index[0]), "relabel", "zebra")
    file = golden / first.locator.file
    file.rename(tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="link"):
        formats.patch(tables.source, [first])


def test_an_edit_is_of_the_touched_bytes_alone(golden: Path) -> None:
    tables = formats.read(golden)
    [edit] = formats.patch(
        tables.source, [of_object(tables, str(tables.labels.index[0]), "relabel", "zebra")]
    )
    assert isinstance(edit, journal.Edit)
    old = edit.path.read_bytes()
    touched = [(old[start:end].decode(), new.decode()) for start, end, new in edit.splices]
    assert touched[-1] == (tables.labels["name"].iloc[0], "zebra")
