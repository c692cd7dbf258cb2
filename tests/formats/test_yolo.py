from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from object_fixes import (
    NAMES,
    apply,
    contents,
    expected,
    fixes_of,
    objects,
    of_image,
    of_object,
    patched,
    write_image,
)

from dataaudit import fix, formats, journal, state
from dataaudit.errors import ConflictError, DataAuditError, FormatError, InputError
from dataaudit.types import Tables

GOLDEN = Path(__file__).parent.parent / "data" / "yolo"
COCO128 = Path(os.environ.get("DATAAUDIT_DATA", "nowhere")) / "coco128/object_detection"
YAML = "train: images\nnames: [cat, dog]\n"
CAT = "0 0.5 0.5 0.25 0.125\n"


def dataset(root: Path, files: dict[str, str | bytes], *images: str) -> Path:
    """A dataset of text files and images, by default one image with one label file."""
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    for image in images or ("images/a.png",):
        write_image(root / image)
    return root


def labelled(root: Path, lines: str | bytes, yaml: str = YAML) -> Path:
    return dataset(root, {"data.yaml": yaml, "labels/a.txt": lines})


def kinds(tables: Tables) -> list[str]:
    return [problem.kind for problem in tables.problems]


# Reading


def test_the_objects_of_the_golden_folder() -> None:
    tables = formats.read(GOLDEN)
    assert (tables.task, tables.units, tables.classes) == ("detection", "relative", ("cat", "dog"))
    assert tables.labels.index.tolist() == [
        "images/train/a.png:1", "images/train/a.png:2", "images/train/b größe.png:1",
        "images/train/b größe.png:3", "images/val/d.png:1", "images/val/d.png:2",
    ]  # fmt: skip
    assert tables.labels["name"].tolist() == ["cat", "dog", "dog", "cat", "dog", "cat"]
    assert tables.labels["geometry"].tolist() == ["box", "box", "polygon", "box", "box", "box"]
    assert tables.labels[["x1", "y1", "x2", "y2"]].iloc[2].tolist() == [0.1, 0.2, 0.3, 0.6]
    assert tables.labels[["x1", "y1", "x2", "y2"]].iloc[3].tolist() == [0.6, 0.4375, 0.85, 0.5625]
    assert tables.images["split"].tolist() == ["train", "train", "train", "val", "val"]
    assert [str(place) for place in tables.images["locator"]] == [
        "labels/train/a.txt", "labels/train/b größe.txt", "labels/train/c.txt", "labels/val/d.txt",
        "labels/val/e.txt",
    ]  # fmt: skip
    assert kinds(tables) == ["images without label file"]


LAYOUTS: dict[str, tuple[dict[str, str], list[str], list[str | None]]] = {
    "images/ and labels/": (
        {"classes.txt": "cat\ndog\n", "labels/a.txt": CAT},
        ["images/a.png"],
        [None],
    ),
    "splits below": (
        {"obj.names": "cat", "labels/train/a.txt": CAT, "labels/val/b.txt": CAT},
        ["images/train/a.png", "images/val/b.png"],
        ["train", "val"],
    ),
    "splits above": (
        {"classes.txt": "cat", "train/labels/a.txt": CAT, "valid/labels/b.txt": CAT},
        ["train/images/a.png", "valid/images/b.png"],
        ["train", "valid"],
    ),
    "names in a yaml without splits": (
        {"config.yaml": "names:\n  0: cat\n", "labels/a.txt": CAT},
        ["images/a.png"],
        [None],
    ),
    "Roboflow": (
        {
            "data.yaml": "train: ../train/images\nval: ../valid/images\nnc: 1\nnames: ['cat']\n",
            "train/labels/a.txt": CAT,
            "valid/labels/b.txt": CAT,
        },
        ["train/images/a.png", "valid/images/b.png"],
        ["train", "val"],
    ),
    "a list of images": (
        {
            "data.yaml": "train: train.txt\nval: [lists/val.txt]\nnames: {0: cat}\n",
            "train.txt": "./images/a.png\n",
            "lists/val.txt": "images/b.png",
            "labels/a.txt": CAT,
            "labels/b.txt": CAT,
        },
        ["images/a.png", "images/b.png"],
        ["train", "val"],
    ),
    "several folders": (
        {
            "data.yaml": "path: /somewhere/else\ntrain:\n- images/x\n- images/y\ntest:\nnames: [cat]\n",
            "labels/x/a.txt": CAT,
            "labels/y/b.txt": CAT,
        },
        ["images/x/a.png", "images/y/b.png"],
        ["train", "train"],
    ),
    "labels beside the images": ({"classes.txt": "cat\n", "a.txt": CAT}, ["a.png"], [None]),
    "a class called no": (
        {"data.yaml": "train: images\nnames: [no, 1]\n", "labels/a.txt": CAT},
        ["images/a.png"],
        ["train"],
    ),
}


@pytest.mark.parametrize(("files", "images", "splits"), LAYOUTS.values(), ids=LAYOUTS.keys())
def test_these_layouts_are_recognised(
    tmp_path: Path, files: dict[str, str], images: list[str], splits: list[str | None]
) -> None:
    root = dataset(tmp_path / "data", dict(files), *images)
    tables = formats.read(root)
    assert tables.source is not None
    assert tables.source.format == "yolo"
    assert tables.images.index.tolist() == images
    assert tables.images["split"].tolist() == splits
    assert tables.labels["name"].tolist() == ["no" if "no" in tables.classes else "cat"] * len(images)
    assert [kind for kind in kinds(tables) if kind != "place of the images"] == []


def test_images_beside_the_folder_of_the_yaml_are_found(tmp_path: Path) -> None:
    files = {"boxes/config.yaml": "path: .\ntrain: images/t\nnames: [cat]\n", "boxes/labels/t/a.txt": CAT}
    dataset(tmp_path / "data", dict(files), "images/t/a.png")
    tables = formats.read(tmp_path / "data/boxes")
    assert tables.source is not None
    assert tables.source.root == tmp_path / "data"
    assert tables.labels.index.tolist() == ["images/t/a.png:1"]
    assert tables.labels["locator"].iloc[0].file == "boxes/labels/t/a.txt"
    assert kinds(tables) == ["place of the images"]
    apply(tables, of_object(tables, "images/t/a.png:1", "remove"))
    assert len(formats.read(tmp_path / "data/boxes").labels) == 0
    fix.undo(tmp_path / "data/boxes")
    assert formats.read(tmp_path / "data/boxes/config.yaml").labels.equals(tables.labels)


@pytest.mark.skipif(not COCO128.is_dir(), reason="DATAAUDIT_DATA names no folder with coco128")
def test_coco128_is_read_with_its_two_orphans() -> None:
    tables = formats.read(COCO128)
    assert (len(tables.images), len(tables.labels), len(tables.classes)) == (256, 1827, 80)
    assert kinds(tables).count("label file without image") == 2


def test_what_is_no_yolo_label_is_not_taken_for_one(tmp_path: Path) -> None:
    kitti = "Car 0.00 0 1.5 100.0 120.0 200.0 220.0 1.5 1.6 4.0 1.0 1.5 20.0 1.5\n"
    root = dataset(tmp_path / "data", {"labels/a.txt": kitti})
    assert not formats.formats()["yolo"].sniff(root)
    root = dataset(tmp_path / "photos", {"cat/notes.txt": "1 2 3 4 5"}, "cat/a.png", "dog/b.png")
    assert formats.read(root).source.format == "folder"


LINES: dict[str, tuple[str | bytes, list[str]]] = {
    "four numbers": ("0 0.5 0.5 0.2\n", ["wrong number of columns"]),
    "a confidence": ("0 0.5 0.5 0.2 0.2 0.9\n", ["extra column"]),
    "eight numbers": ("0 0.5 0.5 0.2 0.2 0.1 0.2 0.9\n", ["wrong number of columns"]),
    "NaN": ("0 nan 0.5 0.2 0.2\n", ["unreadable box"]),
    "infinite": ("0 0.5 0.5 inf 0.2\n", ["unreadable box"]),
    "a number out of range": ("7 0.5 0.5 0.2 0.2\n", ["class number out of range"]),
    "a negative number": ("-1 0.5 0.5 0.2 0.2\n", ["class number out of range"]),
    "a text in a number": ("0 0.5 x 0.2 0.2\n", ["unreadable line"]),
    "CRLF and tabs": ("0\t0.5 0.5  0.2 0.2\r\n\r\n0 0.5 0.5 0.2 0.2\r\n", []),
    "a mark": (b"\xef\xbb\xbf0 0.5 0.5 0.2 0.2\n", []),
    "beyond the image": ("0 1.5 -0.5 0.2 0.2\n", []),
    "a class with a point": ("1.0 0.5 0.5 0.2 0.2\n", []),
}


@pytest.mark.parametrize(("lines", "wanted"), LINES.values(), ids=LINES.keys())
def test_what_is_odd_in_a_line_is_reported_and_the_object_kept(
    tmp_path: Path, lines: str | bytes, wanted: list[str]
) -> None:
    tables = formats.read(labelled(tmp_path / "data", lines))
    assert kinds(tables) == wanted
    assert len(tables.labels) >= 1
    for problem in tables.problems:
        assert str(problem.locator) == "labels/a.txt:1"
        assert problem.label_id == "images/a.png:1"


LOST = {"a text": "cat 0.5 0.5 0.2 0.2", "commas": "0,0.5,0.5,0.2,0.2", "UTF-16": CAT.encode("utf-16")}


@pytest.mark.parametrize("lines", LOST.values(), ids=LOST.keys())
def test_a_line_without_a_class_number_is_reported_and_no_object(tmp_path: Path, lines: str | bytes) -> None:
    tables = formats.read(labelled(tmp_path / "data", lines))
    assert set(kinds(tables)) == {"unreadable line"}
    assert len(tables.labels) == 0


def test_a_comment_is_a_note(tmp_path: Path) -> None:
    tables = formats.read(labelled(tmp_path / "data", f"# made by hand\n{CAT}"))
    assert [(each.kind, each.severity) for each in tables.problems] == [("comment", "note")]
    assert tables.labels.index.tolist() == ["images/a.png:2"]


def test_an_unreadable_box_has_no_corners(tmp_path: Path) -> None:
    tables = formats.read(labelled(tmp_path / "data", f"0 0.5 0.5\n{CAT}"))
    assert tables.labels["x1"].isna().tolist() == [True, False]


def test_keypoints_behind_a_box_are_no_polygon(tmp_path: Path) -> None:
    yaml = YAML + "kpt_shape: [2, 3]\n"
    lines = "0 0.5 0.5 0.25 0.125 0.1 0.1 2 0.2 0.2 1\n"
    root = labelled(tmp_path / "data", lines, yaml)
    tables = formats.read(root)
    assert tables.labels["geometry"].tolist() == ["box"]
    apply(tables, of_object(tables, "images/a.png:1", "move", box=(0.375, 0.4375, 0.625, 0.5)))
    apply(tables, of_image(tables, "images/a.png", "add", "dog", (0, 0, 0.5, 0.5)))
    assert (root / "labels/a.txt").read_text() == (
        "0 0.5 0.46875 0.25 0.0625 0.1 0.1 2 0.2 0.2 1\n1 0.250000 0.250000 0.500000 0.500000 0 0 0 0 0 0\n"
    ).replace("0.250000", "0.25").replace("0.500000", "0.5")


def test_without_a_class_list_classes_are_numbers_and_it_is_said(tmp_path: Path) -> None:
    root = dataset(tmp_path / "data", {"labels/a.txt": "0 0.5 0.5 0.2 0.2\n3 0.5 0.5 0.2 0.2\n"})
    tables = formats.read(root)
    assert tables.labels["name"].tolist() == ["0", "3"]
    assert kinds(tables) == ["no class list"]
    after = patched(root, of_object(tables, "images/a.png:1", "relabel", "5"))
    assert after.labels["name"].tolist() == ["5", "3"]
    with pytest.raises(InputError, match="no class list"):
        formats.patch(tables.source, [of_object(tables, "images/a.png:2", "relabel", "cat")])


def test_ids_that_start_at_one_are_noted(tmp_path: Path) -> None:
    tables = formats.read(labelled(tmp_path / "data", "1 0.5 0.5 0.2 0.2\n2 0.5 0.5 0.2 0.2\n"))
    assert kinds(tables) == ["class number out of range", "ids start at 1"]
    assert tables.labels["name"].tolist() == ["dog", "class 2"]


@pytest.mark.parametrize(
    ("yaml", "kind"),
    [
        ("train: images\nnc: 3\nnames: [cat, dog]\n", "class count differs"),
        ("train: images\nnames: [cat, cat]\n", "class twice"),
        ("train: images\nval: gone\nnames: [cat]\n", "split missing"),
        ("train: images\nval: images\nnames: [cat]\n", "image in several splits"),
        ("path: /not/here\ntrain: images\nnames: [cat]\n", "place of the images"),
    ],
)
def test_what_is_odd_in_the_yaml_is_reported(tmp_path: Path, yaml: str, kind: str) -> None:
    tables = formats.read(labelled(tmp_path / "data", CAT, yaml))
    assert kinds(tables) == [kind]
    assert tables.problems[0].locator.file == "data.yaml"


def test_label_files_without_an_image_and_images_without_one_are_reported(tmp_path: Path) -> None:
    root = labelled(tmp_path / "data", CAT)
    for name in ("b", "c", "d", "e"):
        write_image(root / f"images/{name}.png")
    (root / "labels/x.txt").write_text(CAT)
    tables = formats.read(root)
    assert [(each.kind, each.severity) for each in tables.problems] == [
        ("images without label file", "note"),
        ("label file without image", "error"),
    ]
    assert "4 images" in tables.problems[0].message
    assert tables.problems[1].locator.file == "labels/x.txt"


def test_a_label_file_of_two_images_is_reported_and_not_edited_twice(tmp_path: Path) -> None:
    root = labelled(tmp_path / "data", CAT)
    write_image(root / "images/a.bmp")
    tables = formats.read(root)
    assert kinds(tables) == ["label file of several images"]
    both = [of_object(tables, f"images/a.{end}:1", "relabel", "dog") for end in ("png", "bmp")]
    with pytest.raises(InputError, match="one line"):
        formats.patch(tables.source, both)
    apply(tables, of_image(tables, "images/a.bmp", "drop"))
    assert (root / "labels/a.txt").is_file()


ERRORS: dict[str, tuple[dict[str, str], str]] = {
    "YAML that is broken": (
        {"data.yaml": "train: images\nnames: [cat\n", "labels/a.txt": CAT},
        r"yaml:\d+:\d+: This isn't",
    ),
    "no folder of a split": (
        {"data.yaml": "train: x\nnames: [a]\n", "labels/a.txt": CAT},
        "None of the splits",
    ),
    "no label files": ({"data.yaml": YAML}, r"None of the 1 images has a label file; looked in .*labels"),
    "names by text": (
        {"data.yaml": "train: images\nnames: {a: cat}\n"},
        "'a' of the names is no class number",
    ),
    "two of them": ({"a.yaml": YAML, "b.yaml": YAML, "labels/a.txt": CAT}, r"a\.yaml, b\.yaml"),
}


@pytest.mark.parametrize(("files", "message"), ERRORS.values(), ids=ERRORS.keys())
def test_what_cannot_be_read_is_an_error_that_names_the_place(
    tmp_path: Path, files: dict[str, str], message: str
) -> None:
    with pytest.raises(FormatError, match=message):
        formats.read(dataset(tmp_path / "data", dict(files)))


def test_options_say_where_things_are(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {
        "txt/a.txt": CAT,
        "my.list": "bird\n",
        "data.yaml": "train: imgs\nnc: 1\n",
    }
    root = dataset(tmp_path / "data", files, "imgs/a.png")
    tables = formats.read(root, options={"labels": "txt", "names": "my.list"})
    assert tables.labels["name"].tolist() == ["bird"]
    for options in ({"label": "txt"}, {"labels": "x"}, {"names": "x"}, {"images": "x"}, {"config": "x.yaml"}):
        with pytest.raises(InputError):
            formats.read(root, format="yolo", options=options)


def test_damage_at_any_place_is_an_error_or_is_read(tmp_path: Path) -> None:
    lines = b"0 0.5 0.5 0.25 0.125\r\n1 0.1 0.2 0.3 0.2 0.3 0.6\n"
    root = labelled(tmp_path / "data", lines)
    for file in (root / "labels/a.txt", root / "data.yaml"):
        content = file.read_bytes()
        for at in range(0, len(content), 2):
            for new in (b"", b"\x00", b"\xff", b"[", b"\n"):
                file.write_bytes(content[:at] + new + content[at + 1 :])
                try:
                    tables = formats.read(root, format="yolo")
                    formats.patch(
                        tables.source, [of_image(tables, "images/a.png", "add", "cat", (0, 0, 1, 1))]
                    )
                except DataAuditError as error:
                    assert str(root) in str(error)
        file.write_bytes(content)


# Patching

TWO = "0 0.500000 0.500000 0.200000 0.300000\n1 0.25 0.25 0.1 0.1\n"
PATCHED: dict[str, tuple[tuple[Any, ...], str, str]] = {
    "relabel": (("relabel", "dog"), TWO, "1" + TWO[1:]),
    "remove": (("remove",), TWO, "1 0.25 0.25 0.1 0.1\n"),
    "move to the right": (
        ("move", None, (0.5, 0.35, 0.7, 0.65)),
        TWO,
        TWO.replace("0 0.500000", "0 0.6", 1),
    ),
    "move finely": (
        ("move", None, (0.41234567, 0.35, 0.6, 0.65)),
        "0 0.500000 0.500000 0.200000 0.300000\n",
        "0 0.506173 0.500000 0.187654 0.300000\n",
    ),
    "add": (
        ("add", "dog", (0.1, 0.2, 0.3, 0.5)),
        "0 0.500000 0.500000 0.200000 0.300000\n",
        "0 0.500000 0.500000 0.200000 0.300000\n1 0.200000 0.350000 0.200000 0.300000\n",
    ),
    "add behind a last line without an end": (
        ("add", "dog", (0.1, 0.2, 0.3, 0.5)),
        "0 0.5 0.5 0.25 0.125\r\n0 0.5 0.5 0.25 0.12345",
        "0 0.5 0.5 0.25 0.125\r\n0 0.5 0.5 0.25 0.12345\r\n1 0.2 0.35 0.2 0.3",
    ),
    "relabel with a mark and tabs": (
        ("relabel", "dog"),
        "\ufeff0\t0.5  0.5 0.25 0.125 \r\n",
        "\ufeff1\t0.5  0.5 0.25 0.125 \r\n",
    ),
    "move with a confidence": (
        ("move", None, (0, 0, 1, 1)),
        "0 0.4000 0.5000 0.2000 0.3000 0.9123\n",
        "0 0.5000 0.5000 1.0000 1.0000 0.9123\n",
    ),
}


@pytest.mark.parametrize(("asked", "old", "new"), PATCHED.values(), ids=PATCHED.keys())
def test_a_fix_changes_these_words_alone(tmp_path: Path, asked: tuple[Any, ...], old: str, new: str) -> None:
    root = labelled(tmp_path / "data", old)
    tables = formats.read(root)
    op, name, box = (*asked, None, None)[:3]
    if op == "add":
        apply(tables, of_image(tables, "images/a.png", op, name, box))
    else:
        apply(tables, of_object(tables, "images/a.png:1", op, name, box))
    assert (root / "labels/a.txt").read_bytes().decode() == new
    fix.undo(root)
    assert (root / "labels/a.txt").read_bytes().decode() == old


def test_the_last_line_may_leave_and_another_come(tmp_path: Path) -> None:
    root = labelled(tmp_path / "data", "0 0.5 0.5 0.25 0.12345\n1 0.5 0.5 0.2 0.2")
    tables = formats.read(root)
    apply(
        tables,
        of_object(tables, "images/a.png:2", "remove"),
        of_image(tables, "images/a.png", "add", "cat", (0, 0, 0.5, 0.5)),
    )
    assert (root / "labels/a.txt").read_text() == "0 0.5 0.5 0.25 0.12345\n0 0.25 0.25 0.5 0.5\n"


def test_an_image_without_a_label_file_gets_one_and_loses_it_again(tmp_path: Path) -> None:
    root = labelled(tmp_path / "data", "0 0.500000 0.500000 0.200000 0.300000\r\n")
    write_image(root / "images/deep/b.png")
    before, tables = contents(root), formats.read(root)
    apply(tables, of_image(tables, "images/deep/b.png", "add", "dog", (0, 0, 0.5, 0.5)))
    assert (root / "labels/deep/b.txt").read_bytes() == b"1 0.250000 0.250000 0.500000 0.500000\r\n"
    fix.undo(root)
    assert contents(root) == before
    assert not (root / "labels/deep").exists()


def test_a_polygon_is_relabeled_and_not_moved(tmp_path: Path) -> None:
    root = labelled(tmp_path / "data", "0 0.1 0.2 0.3 0.2 0.3 0.6\n")
    tables = formats.read(root)
    with pytest.raises(InputError, match="polygon, which can't be moved"):
        formats.patch(tables.source, [of_object(tables, "images/a.png:1", "move", box=(0, 0, 1, 1))])
    after = patched(root, of_object(tables, "images/a.png:1", "relabel", "dog"))
    assert (after.labels["name"].tolist(), after.labels["geometry"].tolist()) == (["dog"], ["polygon"])


CLASSES = {
    "flow list": (
        "nc: 2\nnames: [cat, 'dog']  # all\n",
        "nc: 4\nnames: [cat, 'dog', 'it''s', 'bird']  # all\n",
    ),
    "flow list in double quotes": ('names: ["cat", "dog"]\n', 'names: ["cat", "dog", "it\'s", "bird"]\n'),
    "block list": (
        "names:\n  - cat\n  - dog # x\nnc: 2",
        'names:\n  - cat\n  - dog # x\n  - "it\'s"\n  - bird\nnc: 4',
    ),
    "block list at the end": ("names:\n- cat\n- dog", 'names:\n- cat\n- dog\n- "it\'s"\n- bird'),
    "mapping": ("names:\n  0: cat\n  1: dog\n", 'names:\n  0: cat\n  1: dog\n  2: "it\'s"\n  3: bird\n'),
    "mapping with a gap": (
        "names:\n  0: cat\n  5: dog\n",
        'names:\n  0: cat\n  5: dog\n  6: "it\'s"\n  7: bird\n',
    ),
    "flow mapping": ("names: {0: cat, 1: dog}\n", 'names: {0: cat, 1: dog, 2: "it\'s", 3: bird}\n'),
}


@pytest.mark.parametrize(("old", "new"), CLASSES.values(), ids=CLASSES.keys())
def test_a_new_class_is_added_to_the_names(tmp_path: Path, old: str, new: str) -> None:
    root = labelled(tmp_path / "data", f"{CAT}{CAT}{CAT}", f"train: images\n{old}")
    before, tables = contents(root), formats.read(root)
    names = ("it's", "bird", "it's")
    after = patched(
        root,
        *(of_object(tables, f"images/a.png:{n}", "relabel", name) for n, name in enumerate(names, 1)),
    )
    assert (root / "data.yaml").read_text() == f"train: images\n{new}"
    assert after.labels["name"].tolist() == list(names)
    fix.undo(root)
    assert contents(root) == before


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("cat\r\ndog\r\n", "cat\r\ndog\r\nbird\r\n"),
        ("cat\ndog", "cat\ndog\nbird"),
        ("cat\n\n\n", "cat\nbird\n\n\n"),
    ],
)
def test_a_new_class_is_added_to_a_list_of_lines(tmp_path: Path, old: str, new: str) -> None:
    root = dataset(tmp_path / "data", {"classes.txt": old, "labels/a.txt": CAT})
    tables = formats.read(root)
    after = patched(root, of_object(tables, "images/a.png:1", "relabel", "bird"))
    assert (root / "classes.txt").read_bytes().decode() == new
    assert after.labels["name"].tolist() == ["bird"]


def test_a_dropped_image_leaves_with_its_label_file(tmp_path: Path) -> None:
    root = Path(shutil.copytree(GOLDEN, tmp_path / "yolo"))
    before, tables = contents(root), formats.read(root)
    apply(tables, of_image(tables, "images/train/a.png", "merge", "images/val/d.png"))
    assert {"images/train/a.png", "labels/train/a.txt"} == before.keys() - contents(root).keys()
    assert kinds(formats.read(root)) == ["images without label file"]
    fix.undo(root)
    assert contents(root) == before


def test_a_dropped_image_of_a_list_leaves_the_list_alone(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {
        "data.yaml": "train: train.txt\nval: val.txt\nnames: [cat]\n",
        "train.txt": "images/a.png\nimages/b.png\n",
        "val.txt": "images/a.png\nimages/c.png",
        "labels/a.txt": CAT,
    }
    root = dataset(tmp_path / "data", files, "images/a.png", "images/b.png", "images/c.png")
    before, tables = contents(root), formats.read(root)
    after = patched(root, of_image(tables, "images/b.png", "drop"), of_image(tables, "images/c.png", "drop"))
    assert after.images.index.tolist() == ["images/a.png"]
    assert (root / "train.txt").read_text() == "images/a.png\n"
    assert (root / "val.txt").read_text() == "images/a.png\n"
    assert (root / "images/b.png").is_file()
    fix.undo(root)
    assert contents(root) == before


def test_what_has_changed_since_is_a_conflict(tmp_path: Path) -> None:
    root = labelled(tmp_path / "data", CAT)
    tables = formats.read(root)
    relabel = of_object(tables, "images/a.png:1", "relabel", "dog")
    assert relabel.old_box is not None
    stale = [
        replace(relabel, old="bird"),
        replace(relabel, old_box=(*relabel.old_box[:3], 0.57)),
        replace(relabel, locator=replace(relabel.locator, item=7)),
        replace(relabel, locator=replace(relabel.locator, file="labels/b.txt")),
        replace(relabel, sample_id="images/b.png"),
        of_image(tables, "images/a.png", "merge", "images/b.png"),
    ]
    for each in stale:
        with pytest.raises(ConflictError):
            formats.patch(tables.source, [each])


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_random_fixes_do_what_they_say_and_their_undo_restores_every_byte(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(shutil.copytree(GOLDEN, Path(folder) / "yolo"))
        before, tables = contents(root), formats.read(root)
        fixes = data.draw(fixes_of(tables, NAMES))
        apply(tables, *fixes)
        found, wanted = objects(formats.read(root)), expected(tables, fixes)
        assert [each[:2] for each in found] == [each[:2] for each in wanted]
        for one, other in zip(found, wanted, strict=True):
            assert one[2] == pytest.approx(other[2], abs=2e-6)
        if fixes:
            fix.undo(root)
        assert contents(root) == before


def test_reading_finishes_an_interrupted_fix_first(tmp_path: Path) -> None:
    root = Path(shutil.copytree(GOLDEN, tmp_path / "data"))
    tables = formats.read(root)
    folder = state.prepare(tables.source)
    first = str(tables.labels.index[0])
    operations = formats.patch(tables.source, [of_object(tables, first, "relabel", "zebra")])
    with journal._locked(folder):
        journal._stage(folder, operations)
    assert formats.read(root).labels.loc[first, "name"] == "zebra"
