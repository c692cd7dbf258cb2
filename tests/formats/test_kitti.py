from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

import pytest
from object_fixes import apply, contents, of_image, of_object, write_image

from dataaudit import fix, formats
from dataaudit.errors import DataAuditError, FormatError, InputError
from dataaudit.types import Tables

GOLDEN = Path(__file__).parent.parent / "data" / "kitti"
REST = "1.60 1.57 3.23 -2.70 1.74 3.68 -1.29"
CAR = f"Car 0.00 0 -0.69 1.50 2.00 30.25 20.00 {REST}"


def dataset(root: Path, content: str | bytes) -> Path:
    """One image with that label file, and another with a car."""
    for stem, text in (("a", content), ("z", CAR + "\n")):
        write_image(root / f"image_2/{stem}.png")
        (root / "label_2").mkdir(exist_ok=True)
        (root / f"label_2/{stem}.txt").write_bytes(text.encode() if isinstance(text, str) else text)
    return root


def kinds(tables: Tables) -> list[str]:
    return [problem.kind for problem in tables.problems]


def after(root: Path, op: str, new: str | None = None, box: tuple[float, ...] | None = None) -> bytes:
    """The bytes of the first label file after a fix of its first object, or an add."""
    tables = formats.read(root, format="kitti")
    if op == "add":
        apply(tables, of_image(tables, "image_2/a.png", "add", new, box))
    else:
        apply(tables, of_object(tables, str(tables.labels.index[0]), op, new, box))
    return (root / "label_2/a.txt").read_bytes()


def test_objects_and_flags_of_the_golden_folder() -> None:
    tables = formats.read(GOLDEN)
    assert tables.labels.drop(columns=["locator", "sample_id"]).to_numpy().tolist() == [
        ["Pedestrian", "box", 5.4, 4, 21.73, 20.92, False, False, False, False, False],
        ["Car", "box", 30, 10.37, 47.31, 31, False, False, False, True, True],
        ["DontCare", "box", 40.89, 1.71, 47.61, 6.13, False, True, False, False, False],
        ["Car", "box", 6.63, 4, 22.3, 20.48, False, False, False, False, True],
    ]
    assert tables.labels.index[1] == "training/image_2/000000.png:2"
    assert str(tables.labels["locator"].iloc[1]) == "training/label_2/000000.txt:2"
    assert tables.images["split"].tolist() == ["training"] * 4
    assert kinds(tables) == ["image without annotation file"]


@pytest.mark.parametrize(
    ("labels", "images"),
    [
        ("training/label_2/{}.txt", "training/image_2/{}.png"),
        ("label_2/{}.txt", "image_2/{}.png"),
        ("labels/{}.txt", "data/{}.png"),
        ("labels/{}.txt", "images/{}.png"),
        ("labels/train/{}.txt", "images/train/{}.png"),
        ("{}.txt", "{}.png"),
    ],
)
def test_the_layouts_that_are_known_without_being_told(tmp_path: Path, labels: str, images: str) -> None:
    write_image(tmp_path / images.format("a"))
    file = tmp_path / labels.format("a")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(CAR)
    tables = formats.read(tmp_path)
    assert tables.source is not None
    assert tables.source.format == "kitti"
    assert tables.labels["sample_id"].tolist() == [images.format("a")]


@pytest.mark.parametrize(
    "line",
    [
        "0 0.5 0.5 0.2 0.2",
        "0 0.1 0.1 0.2 0.1 0.2 0.2 0.3 0.3 0.1 0.2 0.2 0.2 0.1 0.1",
        "7 0.88 3 -0.69 0.00 192.37 402.31 374.00 1.60 1.57 3.23 -2.70 1.74 3.68 -1.29",
        "what a line of text with fifteen words in it that is no label at all",
    ],
)
def test_lines_of_another_format_are_not_taken_for_kitti(tmp_path: Path, line: str) -> None:
    root = dataset(tmp_path / "d", line)
    (root / "label_2/z.txt").unlink()
    assert not formats.formats()["kitti"].sniff(root)


def test_other_folders_of_a_kitti_tree_are_left_out(tmp_path: Path) -> None:
    root = Path(shutil.copytree(GOLDEN, tmp_path / "kitti"))
    write_image(root / "training/image_3/000000.png")
    write_image(root / "testing/image_2/000000.png")
    tables = formats.read(root)
    assert len(tables.images) == 4
    assert kinds(tables)[1:] == ["folder of images without annotations"] * 2


def test_lists_of_splits_are_read(tmp_path: Path) -> None:
    root = Path(shutil.copytree(GOLDEN, tmp_path / "kitti"))
    (root / "ImageSets").mkdir()
    (root / "ImageSets/train.txt").write_text("000000\n000001\n")
    (root / "ImageSets/val.txt").write_text("000002\n")
    assert formats.read(root).images["split"].tolist() == ["train", "train", "val", "training"]


@pytest.mark.parametrize(
    ("content", "kind", "says"),
    [
        ("Car 0 0", "unreadable line", "label_2/a.txt:1: The line has 3 columns"),
        (f"{CAR}\n\nCar 1", "unreadable line", "label_2/a.txt:3:"),
        (CAR.replace("30.25", "wide"), "unreadable box", "'1.50 2.00 wide 20.00'"),
        (CAR.replace("30.25", "nan"), "unreadable box", "nan"),
        (b"\xff\xfe\x00", "unreadable annotation file", "can't be read"),
    ],
)
def test_what_cannot_be_used_is_reported_and_the_rest_is_read(
    tmp_path: Path, content: str | bytes, kind: str, says: str
) -> None:
    tables = formats.read(dataset(tmp_path / "d", content))
    [problem] = tables.problems
    assert (problem.kind, says in problem.message) == (kind, True)
    assert len(tables.images) == 2
    assert tables.classes == ("Car",)


def test_a_label_file_without_its_image_and_images_of_one_name_are_reported(tmp_path: Path) -> None:
    root = dataset(tmp_path / "d", CAR)
    write_image(root / "image_2/a.jpg")
    (root / "label_2/b.txt").write_text(CAR)
    tables = formats.read(root)
    assert kinds(tables) == ["two images for one annotation file", "annotation file without image"]
    assert tables.images.index.tolist() == ["image_2/a.jpg", "image_2/z.png"]


def test_no_line_that_can_be_read_is_an_error(tmp_path: Path) -> None:
    root = dataset(tmp_path / "d", "Car 1 2")
    (root / "label_2/z.txt").write_text("x")
    with pytest.raises(FormatError, match=r"None of the 2 label files can be read\. label_2/a\.txt:1"):
        formats.read(root, format="kitti")


@pytest.mark.parametrize(
    ("before", "new", "left"),
    [
        (CAR, "Van", CAR.replace("Car", "Van")),
        (f"\ufeff{CAR}\r\n{CAR}\r\n", "Van", f"\ufeff{CAR.replace('Car', 'Van')}\r\n{CAR}\r\n"),
        (f"  {CAR.replace(' ', '  ')} \n", "größe", f"  {CAR.replace('Car', 'größe').replace(' ', '  ')} \n"),
    ],
)
def test_a_relabel_changes_the_type_alone(tmp_path: Path, before: str, new: str, left: str) -> None:
    assert after(dataset(tmp_path / "d", before), "relabel", new).decode() == left


def test_a_move_changes_the_corners_that_change_with_the_decimals_of_the_file(tmp_path: Path) -> None:
    root = dataset(tmp_path / "d", CAR)
    assert after(root, "move", None, (1.5, 2.001, 33.333, 20)).decode() == CAR.replace("30.25", "33.33")


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_an_object_leaves_with_its_line(tmp_path: Path, end: str) -> None:
    van = CAR.replace("Car", "Van")
    assert after(dataset(tmp_path / "d", CAR + end + van), "remove").decode() == van
    assert after(dataset(tmp_path / "e", CAR), "remove") == b""


@pytest.mark.parametrize(
    ("before", "joint", "end"),
    [("", "", "\n"), (CAR, "\n", ""), (CAR + "\r\n", "", "\r\n"), (CAR + "\n\n", "", "\n")],
)
def test_a_new_object_is_a_line_with_an_unknown_3d_box(
    tmp_path: Path, before: str, joint: str, end: str
) -> None:
    new = "Van 0.00 0 -10 5.00 6.00 7.13 8.00 -1 -1 -1 -1000 -1000 -1000 -10"
    assert after(dataset(tmp_path / "d", before), "add", "Van", (5, 6, 7.126, 8)).decode() == (
        before + joint + new + end
    )


def test_a_new_object_has_the_columns_and_separators_of_the_others(tmp_path: Path) -> None:
    before = f"{CAR} 0.93\n".replace(" ", "\t")
    new = after(dataset(tmp_path / "d", before), "add", "Van", (5, 6, 7, 8)).decode().removeprefix(before)
    assert new == "Van\t0.00\t0\t-10\t5.00\t6.00\t7.00\t8.00\t-1\t-1\t-1\t-1000\t-1000\t-1000\t-10\t1.00\n"


def test_an_image_without_a_file_gets_one_and_loses_it_with_the_undo(tmp_path: Path) -> None:
    root = Path(shutil.copytree(GOLDEN, tmp_path / "kitti"))
    before, tables = contents(root), formats.read(root)
    apply(tables, of_image(tables, "training/image_2/000003.png", "add", "Van", (5, 6, 7.126, 8)))
    new = (root / "training/label_2/000003.txt").read_text()
    assert new == "Van 0.00 0 -10 5.00 6.00 7.13 8.00 -1 -1 -1 -1000 -1000 -1000 -10\n"
    assert formats.read(root).labels.index[-1] == "training/image_2/000003.png:1"
    fix.undo(root)
    assert contents(root) == before


def test_a_class_with_a_space_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="white space"):
        after(dataset(tmp_path / "d", CAR), "relabel", "police car")


@pytest.mark.parametrize("damage", [None, b"", b"\0", b"\n", b"\xff", b"x"])
def test_a_file_damaged_at_any_byte_is_read_or_reported_and_never_fails_otherwise(
    tmp_path: Path, damage: bytes | None
) -> None:
    whole = f"{CAR}\n{CAR}\n".encode()
    root = dataset(tmp_path / "d", whole)
    for at in range(len(whole)):
        content = whole[:at] if damage is None else whole[:at] + damage + whole[at + 1 :]
        (root / "label_2/a.txt").write_bytes(content)
        tables = formats.read(root, format="kitti")
        own = [each for each in tables.labels.index if each.startswith("image_2/a.png")]
        assert len(own) == 2 or tables.problems or content.count(b"Car") < 2
        for label_id in own:
            with contextlib.suppress(DataAuditError):
                formats.patch(tables.source, [of_object(tables, label_id, "relabel", "Van")])
