from __future__ import annotations

from pathlib import Path

import pytest

from dataaudit import formats, state
from dataaudit.errors import ConflictError, FormatError, InputError
from dataaudit.journal import RemoveEmpty
from dataaudit.types import Fix, Locator


def tree(root: Path, *files: str) -> Path:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_bytes(file.encode())
    return root


def rows(root: Path) -> list[tuple[str, str | None, str | None]]:
    tables = formats.read(root, format="folder")
    return list(zip(tables.images.index, tables.labels["name"], tables.images["split"], strict=True))


def relabel(sample_id: str, old: str | None, new: str) -> Fix:
    return Fix(
        op="relabel",
        sample_id=sample_id,
        label_id=sample_id,
        locator=Locator(file=sample_id),
        old=old,
        new=new,
    )


def test_the_first_folder_is_the_class_and_the_order_is_that_of_the_names(tmp_path: Path) -> None:
    root = tree(tmp_path / "photos", "dog/2.jpg", "cat/deep/b.PNG", "cat/a.jpeg", "dog/10.jpg")
    assert rows(root) == [
        ("cat/a.jpeg", "cat", None),
        ("cat/deep/b.PNG", "cat", None),
        ("dog/10.jpg", "dog", None),
        ("dog/2.jpg", "dog", None),
    ]


def test_splits_stand_above_the_classes(tmp_path: Path) -> None:
    root = tree(tmp_path / "photos", "Train/cat/1.jpg", "valid/dog/2.jpg", "test/3.jpg")
    assert rows(root) == [
        ("Train/cat/1.jpg", "cat", "Train"),
        ("test/3.jpg", None, "test"),
        ("valid/dog/2.jpg", "dog", "valid"),
    ]


def test_what_is_no_part_of_the_dataset_is_passed_over(tmp_path: Path) -> None:
    root = tree(
        tmp_path / "photos", "cat/1.jpg", "cat/.2.jpg", ".dataaudit/x/3.jpg", "__MACOSX/4.jpg",
        "cat/Thumbs.db", "cat/notes.txt", "cat/5.jpg.dvc", "dog/6.webp",
    )  # fmt: skip
    assert [row[0] for row in rows(root)] == ["cat/1.jpg", "dog/6.webp"]


def test_images_beside_the_class_folders_have_no_label(tmp_path: Path) -> None:
    root = tree(tmp_path / "photos", "loose.jpg", "cat/1.jpg")
    assert rows(root)[0] == ("loose.jpg", None, None)


def test_a_class_named_train_among_vehicles_is_a_class(tmp_path: Path) -> None:
    root = tree(tmp_path / "photos", "train/1.jpg", "car/2.jpg", "bus/3.jpg")
    assert formats.read(root).classes == ("bus", "car", "train")


def test_splits_beside_classes_are_an_error(tmp_path: Path) -> None:
    root = tree(tmp_path / "photos", "train/cat/1.jpg", "dog/2.jpg")
    with pytest.raises(FormatError, match="isn't clear which folders are classes"):
        formats.read(root)


def test_splits_without_classes_are_an_error(tmp_path: Path) -> None:
    root = tree(tmp_path / "photos", "train/1.jpg", "test/2.jpg")
    with pytest.raises(FormatError, match="hold images and no class folders"):
        formats.read(root, format="folder")


def test_linked_files_and_folders_are_read_and_loops_end(tmp_path: Path) -> None:
    root = tree(tmp_path / "photos", "cat/1.jpg")
    elsewhere = tree(tmp_path / "elsewhere", "2.jpg")
    (root / "dog").symlink_to(elsewhere)
    (root / "cat" / "again").symlink_to(root)
    (root / "cat" / "3.jpg").symlink_to(root / "cat" / "1.jpg")
    assert [row[0] for row in rows(root)] == ["cat/1.jpg", "cat/3.jpg", "dog/2.jpg"]


def test_names_in_any_script_stay_as_they_are(tmp_path: Path) -> None:
    root = tree(tmp_path / "photos", "Ko\u0308rper/\u732b.jpg", "K\u00f6rper/1.jpg")
    assert sorted(formats.read(root).classes) == ["Ko\u0308rper", "K\u00f6rper"]


def test_a_name_that_is_no_unicode_is_named_in_the_error(tmp_path: Path) -> None:
    root = tree(tmp_path / "photos", "cat/1.jpg")
    try:
        (root / "cat" / "b\udcff.jpg").write_bytes(b"")
    except (OSError, UnicodeError):
        pytest.skip("this file system keeps such names out")
    with pytest.raises(FormatError, match="isn't valid UTF-8"):
        formats.read(root)


def test_the_state_stands_beside_the_tree_or_in_it_where_it_is_a_repository(tmp_path: Path) -> None:
    root = tree(tmp_path / "photos", "cat/1.jpg")
    assert formats.read(root).source.anchor == tmp_path
    (root / ".git").mkdir()
    assert formats.read(root).source.anchor == root


def test_the_state_stays_where_a_ledger_is(tmp_path: Path) -> None:
    root = tree(tmp_path / "photos", "cat/1.jpg")
    source = formats.read(root).source
    state.prepare(source)
    state.ledger_file(source).write_text("")
    (root / ".git").mkdir()
    assert formats.read(root).source.anchor == tmp_path


def test_a_relabel_moves_the_file_within_its_split_and_folder(tmp_path: Path) -> None:
    root = tree(tmp_path / "photos", "train/cat/deep/1.jpg", "test/dog/2.jpg")
    source = formats.read(root).source
    [move, *emptied] = formats.patch(source, [relabel("train/cat/deep/1.jpg", "cat", "dog")])
    assert emptied == [RemoveEmpty(path=root / "train/cat/deep"), RemoveEmpty(path=root / "train/cat")]
    assert move.dst == root / "train/dog/deep/1.jpg"


def test_a_loose_image_moves_into_a_class(tmp_path: Path) -> None:
    root = tree(tmp_path / "photos", "loose.jpg", "cat/1.jpg")
    [move] = formats.patch(formats.read(root).source, [relabel("loose.jpg", None, "cat")])
    assert move.dst == root / "cat/loose.jpg"


def test_another_class_than_expected_is_a_conflict(tmp_path: Path) -> None:
    root = tree(tmp_path / "photos", "cat/1.jpg")
    with pytest.raises(ConflictError, match="class 'cat'; expected 'dog'"):
        formats.patch(formats.read(root).source, [relabel("cat/1.jpg", "dog", "bird")])


def test_an_image_that_is_gone_is_a_conflict(tmp_path: Path) -> None:
    root = tree(tmp_path / "photos", "cat/1.jpg", "cat/2.jpg")
    source = formats.read(root).source
    (root / "cat/1.jpg").unlink()
    with pytest.raises(ConflictError, match=r"cat/1\.jpg: The image is gone"):
        formats.patch(source, [relabel("cat/1.jpg", "cat", "bird")])


@pytest.mark.parametrize("sample_id", ["../other/1.jpg", "cat/../../other/1.jpg"])
def test_a_path_outside_is_refused(tmp_path: Path, sample_id: str) -> None:
    root = tree(tmp_path / "photos", "cat/1.jpg")
    tree(tmp_path, "other/1.jpg")
    with pytest.raises(InputError, match="leads outside the dataset"):
        formats.patch(formats.read(root).source, [relabel(sample_id, "other", "dog")])


def test_a_linked_class_folder_is_left_alone(tmp_path: Path) -> None:
    root = tree(tmp_path / "photos", "cat/1.jpg")
    (root / "dog").symlink_to(tree(tmp_path / "elsewhere", "2.jpg"))
    source = formats.read(root).source
    for each in (relabel("dog/2.jpg", "dog", "cat"), relabel("cat/1.jpg", "cat", "dog")):
        with pytest.raises(InputError, match="leads outside the dataset"):
            formats.patch(source, [each])


def test_a_relative_link_that_would_break_is_refused(tmp_path: Path) -> None:
    root = tree(tmp_path / "photos", "cat/1.jpg")
    (root / "cat/2.jpg").symlink_to("1.jpg")
    with pytest.raises(InputError, match="lead nowhere"):
        formats.patch(formats.read(root).source, [relabel("cat/2.jpg", "cat", "dog")])


def test_a_merge_into_a_sample_that_is_gone_is_a_conflict(tmp_path: Path) -> None:
    root = tree(tmp_path / "photos", "cat/1.jpg")
    merge = Fix(
        op="merge", sample_id="cat/1.jpg", label_id="cat/1.jpg", locator=Locator(file="cat/1.jpg"), old="cat",
        new="cat/2.jpg",
    )  # fmt: skip
    with pytest.raises(ConflictError, match=r"to keep in place of cat/1\.jpg is gone"):
        formats.patch(formats.read(root).source, [merge])
