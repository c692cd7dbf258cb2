from __future__ import annotations

import json
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

GOLDEN = Path(__file__).parent.parent / "data" / "coco"
IMAGES = [
    {"id": 1, "file_name": "a.png", "width": 48, "height": 32},
    {"id": 2, "file_name": "b.png", "width": 48, "height": 32},
]
CATEGORIES = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]


def one(**members: Any) -> dict[str, Any]:
    """An annotation; a member that is None isn't there."""
    usual = {"id": 5, "image_id": 1, "category_id": 1, "bbox": [1, 2, 10, 20]}
    return {key: value for key, value in {**usual, **members}.items() if value is not None}


def dataset(
    root: Path,
    annotations: list[Any] | None = None,
    images: list[Any] = IMAGES,
    categories: list[Any] = CATEGORIES,
    **more: Any,
) -> Path:
    """A folder with a.png and b.png in images/ and an annotations.json."""
    for name in ("a.png", "b.png"):
        write_image(root / "images" / name)
    annotations = [one(), one(id=6, image_id=2)] if annotations is None else annotations
    content = {"images": images, "annotations": annotations, "categories": categories, **more}
    (root / "annotations.json").write_text(json.dumps(content), encoding="utf-8")
    return root


def kinds(tables: Tables) -> list[str]:
    return [problem.kind for problem in tables.problems]


def text_of(root: Path) -> str:
    return (root / "annotations.json").read_bytes().decode()


def after(root: Path, text: str, op: str, new: str | None = None, box: Any = None, n: int = 0) -> str:
    """The text of the file after a fix of its n-th object, or of its first image."""
    dataset(root)
    (root / "annotations.json").write_bytes(text.encode())
    tables = formats.read(root)
    if op in ("add", "drop"):
        apply(tables, of_image(tables, tables.images.index[0], op, new, box))
    else:
        apply(tables, of_object(tables, str(tables.labels.index[n]), op, new, box))
    return text_of(root)


# Reading


def test_the_objects_of_the_golden_folder() -> None:
    tables = formats.read(GOLDEN)
    assert (tables.task, tables.units, tables.classes) == ("detection", "pixels", ("cat", "dog"))
    assert tables.labels[["name", "geometry", "x1", "y1", "x2", "y2"]].to_numpy().tolist() == [
        ["cat", "box", 1.5, 2.25, 21.5, 32.75],
        ["dog", "box", 30, 10.75, 42.25, 18.75],
        ["dog", "mask", 0, 0, 64, 48],
        ["cat", "polygon", 5, 6, 15, 17],
        ["cat", "box", 40.25, 6.5, 50.75, 17.75],
    ]
    assert tables.labels.index.tolist() == [
        "images/a.png:1", "images/a.png:2", "images/b größe.png:5", "images/c.png:4", "images/c.png:9",
    ]  # fmt: skip
    assert tables.labels["crowd"].tolist() == [False, False, True, False, False]
    assert tables.labels["occluded"].tolist() == [False, True, False, False, False]
    assert str(tables.labels["locator"].iloc[2]) == "annotations/instances.json:5:annotations"
    assert tables.images["declared_width"].tolist() == [64, 64, 64, 64]
    assert [(problem.kind, problem.severity) for problem in tables.problems] == [
        ("images without annotations", "note")
    ]


ENCODED = {
    "UTF-8 with a mark": lambda text: b"\xef\xbb\xbf" + text.encode(),
    "UTF-16": lambda text: text.encode("utf-16"),
    "UTF-16, no mark": lambda text: text.encode("utf-16-be"),
    "CRLF": lambda text: text.replace("\n", "\r\n").encode(),
    "escapes": lambda text: json.dumps(json.loads(text)).encode(),
    "tabs": lambda text: json.dumps(json.loads(text), indent="\t", ensure_ascii=False).encode(),
    "another order": lambda text: json.dumps(dict(reversed(json.loads(text).items()))).encode(),
}


@pytest.mark.parametrize("encode", ENCODED.values(), ids=ENCODED.keys())
def test_these_say_the_same_and_a_fix_changes_and_undoes_the_same(tmp_path: Path, encode: Any) -> None:
    root = Path(shutil.copytree(GOLDEN, tmp_path / "coco"))
    file = root / "annotations/instances.json"
    file.write_bytes(encode(file.read_text(encoding="utf-8")))
    before, tables = contents(root), formats.read(root)
    assert objects(tables) == objects(formats.read(GOLDEN))
    fixes = [
        of_object(tables, "images/a.png:1", "relabel", "größe"),
        of_object(tables, "images/c.png:9", "move", box=(1, 2, 3, 4)),
        of_image(tables, "images/d.png", "add", "cat", (1, 2, 3, 4)),
    ]
    apply(tables, *fixes)
    assert objects(formats.read(root)) == expected(tables, fixes)
    fix.undo(root)
    assert contents(root) == before


LAYOUTS = {
    "beside the images": ({"a.json": ["a.png"]}, ["a.png"], [None]),
    "images/": ({"a.json": ["a.png"]}, ["images/a.png"], [None]),
    "FiftyOne": ({"labels.json": ["a.png"]}, ["data/a.png"], [None]),
    "COCO": (
        {"annotations/instances_train2017.json": ["a.png"], "annotations/instances_val2017.json": ["b.png"]},
        ["train2017/a.png", "val2017/b.png"],
        ["train", "val"],
    ),
    "Roboflow": (
        {"train/_annotations.coco.json": ["a.png"], "valid/_annotations.coco.json": ["b.png"]},
        ["train/a.png", "valid/b.png"],
        ["train", "valid"],
    ),
    "names with folders": ({"annotations/all.json": ["train/a.png"]}, ["images/train/a.png"], [None]),
    "names of another machine": ({"a.json": ["/home/me/a.png", "C:\\x\\b.png"]}, ["images/a.png"], [None]),
}


@pytest.mark.parametrize(("files", "images", "splits"), LAYOUTS.values(), ids=LAYOUTS.keys())
def test_these_layouts_are_recognised(
    tmp_path: Path, files: dict[str, list[str]], images: list[str], splits: list[str | None]
) -> None:
    root = tmp_path / "data"
    for image in images:
        write_image(root / image)
    for number, (file, names) in enumerate(files.items()):
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        entries = [{"id": n, "file_name": name} for n, name in enumerate(names)]
        annotations = [one(id=number, image_id=0)]
        said = {"images": entries, "annotations": annotations, "categories": CATEGORIES}
        (root / file).write_text(json.dumps(said))
    tables = formats.read(root)
    assert tables.source is not None
    assert tables.source.format == "coco"
    assert tables.images.index.tolist()[: len(images)] == images
    assert tables.images["split"].tolist()[: len(images)] == splits
    assert len(tables.labels) == len(files)


def test_the_file_itself_may_be_given(tmp_path: Path) -> None:
    write_image(tmp_path / "d/val2017/a.png")
    (tmp_path / "d/annotations").mkdir()
    file = tmp_path / "d/annotations/instances_val2017.json"
    file.write_text(json.dumps({"images": IMAGES[:1], "annotations": [one()], "categories": CATEGORIES}))
    tables = formats.read(file)
    assert tables.source is not None
    assert tables.source.root == tmp_path / "d"
    assert tables.labels.index.tolist() == ["val2017/a.png:5"]
    apply(tables, of_object(tables, "val2017/a.png:5", "remove"))
    assert len(formats.read(file).labels) == 0
    fix.undo(file)
    assert formats.read(file).labels.equals(tables.labels)


def test_the_option_images_says_where_the_images_are(tmp_path: Path) -> None:
    root = dataset(tmp_path / "data")
    write_image(root / "other/a.png")
    assert formats.read(root, options={"images": "other"}).images.index[0] == "other/a.png"
    with pytest.raises(InputError, match="no folder"):
        formats.read(root, options={"images": "nowhere"})
    with pytest.raises(InputError, match="no option 'imgs'"):
        formats.read(root, format="coco", options={"imgs": "x"})


def test_images_in_two_places_are_reported(tmp_path: Path) -> None:
    root = dataset(tmp_path / "data")
    write_image(root / "a.png")
    tables = formats.read(root)
    assert tables.images.index[0] == "images/a.png"
    [problem] = [each for each in tables.problems if each.kind == "place of the images"]
    assert "taken from images" in problem.message


def test_files_that_are_not_of_splits_have_to_be_chosen(tmp_path: Path) -> None:
    root = dataset(tmp_path / "data")
    shutil.copy(root / "annotations.json", root / "better.json")
    with pytest.raises(FormatError, match=r"annotations\.json, better\.json"):
        formats.read(root)
    tables = formats.read(root, options={"annotations": "better.json"})
    assert tables.labels["locator"].iloc[0].file == "better.json"


def test_files_beside_the_instances_are_left_out_with_a_note(tmp_path: Path) -> None:
    root = dataset(tmp_path / "data")
    (root / "annotations.json").rename(root / "instances_train2017.json")
    shutil.copy(root / "instances_train2017.json", root / "person_keypoints_train2017.json")
    captions = {"images": IMAGES, "annotations": [{"id": 1, "image_id": 1, "caption": "a cat"}]}
    (root / "captions_train2017.json").write_text(json.dumps(captions))
    tables = formats.read(root)
    assert len(tables.labels) == 2
    assert kinds(tables) == ["annotation file left out"]


PROBLEMS: dict[str, tuple[dict[str, Any], str]] = {
    "a box of three numbers": ({"annotations": [one(bbox=[1, 2, 3])]}, "unreadable box"),
    "a box of texts": ({"annotations": [one(bbox=["1", 2, 3, 4])]}, "unreadable box"),
    "a box that is null": ({"annotations": [one(), one(id=7, bbox=False)]}, "unreadable box"),
    "a box with NaN": ({"annotations": [one(bbox=[1, 2, float("nan"), 4])]}, "unreadable box"),
    "a box beyond numbers": ({"annotations": [one(bbox=[1, 2, 3, 10**400])]}, "unreadable box"),
    "no box": ({"annotations": [one(), one(id=7, bbox=None)]}, "unreadable box"),
    "an unknown category": ({"annotations": [one(category_id=9)]}, "unknown category"),
    "no category": ({"annotations": [one(category_id=None)]}, "unknown category"),
    "a category that is a list": ({"annotations": [one(category_id=[1])]}, "unknown category"),
    "an unknown image": ({"annotations": [one(), one(id=7, image_id=9)]}, "annotation of an unknown image"),
    "an annotation that is a number": ({"annotations": [one(), 3]}, "annotation of an unknown image"),
    "an annotation id twice": ({"annotations": [one(), one()]}, "annotation id missing or twice"),
    "no annotation id": ({"annotations": [one(id=None)]}, "annotation id missing or twice"),
    "a category name twice": ({"categories": [*CATEGORIES, {"id": 3, "name": "cat"}]}, "category twice"),
    "a category id twice": ({"categories": [*CATEGORIES, {"id": 2, "name": "bird"}]}, "category id twice"),
    "no category name": ({"categories": [*CATEGORIES, {"id": 3}]}, "category without name"),
    "no category id": ({"categories": [*CATEGORIES, {"name": "x"}]}, "category without id"),
    "an image twice": ({"images": [*IMAGES, {"id": 3, "file_name": "a.png"}]}, "image twice"),
    "an image id twice": ({"images": [*IMAGES, {"id": 1, "file_name": "c.png"}]}, "image id twice"),
    "no file name": ({"images": [*IMAGES, {"id": 3}]}, "image without file name"),
    "no image id": ({"images": [*IMAGES, {"file_name": "c.png"}]}, "image without id"),
    "no such image": ({"images": [*IMAGES, {"id": 3, "file_name": "c.png"}]}, "image file missing"),
}


@pytest.mark.parametrize(("said", "kind"), PROBLEMS.values(), ids=PROBLEMS.keys())
def test_what_cannot_be_used_is_reported_and_the_rest_is_read(
    tmp_path: Path, said: dict[str, Any], kind: str
) -> None:
    tables = formats.read(dataset(tmp_path / "data", **said))
    assert kind in kinds(tables)
    found = next(problem for problem in tables.problems if problem.kind == kind)
    assert found.severity == "error"
    assert found.locator.file == "annotations.json"
    assert len(tables.labels) >= 1
    if kind == "unreadable box":
        assert tables.labels.loc[found.label_id, ["x1", "y1", "x2", "y2"]].isna().all()


def test_a_class_without_a_category_is_called_by_its_id(tmp_path: Path) -> None:
    root = dataset(tmp_path / "data", [one(category_id=9), one(id=6, category_id=None)])
    tables = formats.read(root)
    assert tables.labels["name"].tolist() == ["category 9", "no category"]
    tables = patched(
        root,
        of_object(tables, "images/a.png:5", "relabel", "cat"),
        of_object(tables, "images/a.png:6", "relabel", "dog"),
    )
    assert tables.labels["name"].tolist() == ["cat", "dog"]


def test_annotations_of_an_image_that_is_there_twice_are_all_its_own(tmp_path: Path) -> None:
    images = [*IMAGES, {"id": 3, "file_name": "a.png"}]
    root = dataset(tmp_path / "data", [one(), one(id=6, image_id=3)], images)
    tables = formats.read(root)
    assert tables.labels["sample_id"].tolist() == ["images/a.png", "images/a.png"]
    after = patched(root, of_image(tables, "images/a.png", "drop"))
    assert json.loads(text_of(root)) == {"images": IMAGES[1:], "annotations": [], "categories": CATEGORIES}
    assert after.images.index.tolist() == ["images/b.png"]


def test_ids_that_are_texts_name_the_same(tmp_path: Path) -> None:
    annotations = [one(id="x1", image_id="1", category_id="2"), one(id="6")]
    tables = formats.read(dataset(tmp_path / "data", annotations))
    assert tables.labels.index.tolist() == ["images/a.png:x1", "images/a.png:6"]
    assert tables.labels["name"].tolist() == ["dog", "cat"]


def test_problems_of_a_kind_are_counted_after_the_first_ones(tmp_path: Path) -> None:
    annotations = [one(), *(one(id=n, image_id=77) for n in range(10, 310))]
    tables = formats.read(dataset(tmp_path / "data", annotations))
    messages = [each.message for each in tables.problems if each.kind == "annotation of an unknown image"]
    assert len(messages) == 201
    assert messages[-1] == "100 more of the kind: annotation of an unknown image."


def test_ignored_and_crowded_objects_have_their_flags(tmp_path: Path) -> None:
    attributes = {"truncated": True, "difficult": 1, "occluded": False, "rotation": 30.0}
    annotations = [one(iscrowd=1), one(id=6, ignore=1), one(id=7, attributes=attributes)]
    labels = formats.read(dataset(tmp_path / "data", annotations)).labels
    assert labels[["crowd", "ignore", "difficult", "truncated", "occluded"]].to_numpy().tolist() == [
        [True, False, False, False, False],
        [False, True, False, False, False],
        [False, False, True, True, False],
    ]
    assert labels["geometry"].tolist() == ["box", "box", "rotated"]


def test_broken_json_is_named_with_line_and_column(tmp_path: Path) -> None:
    root = dataset(tmp_path / "data")
    (root / "annotations.json").write_text('{"images": [\n {"id": 1,}\n], "annotations": []}')
    with pytest.raises(FormatError, match=r"annotations\.json:2:1\d: This isn't JSON"):
        formats.read(root)


BROKEN = [
    '{"images": [], "images": [], "annotations": [], "categories": []}',
    '{"images": [], "annotations": []} {}',
    '{"images": [], "annotations": [',
    '{"images": 3, "annotations": []}',
    '{"images": [1 2], "annotations": []}',
    '{"annotations": [], "images": [' + "[" * 100_000,
    '{"images": [], "annotations": [' + "9" * 5000 + "]}",
    '{"images": [], "annotations": [{"a" 1}]}',
    '{"images": [], 3: 4, "annotations": []}',
]


@pytest.mark.parametrize("text", BROKEN)
def test_what_is_no_coco_file_is_an_error_that_names_it(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(FormatError, match=r"a\.json"):
        formats.read(tmp_path / "a.json", format="coco")


def test_no_image_where_the_file_says_is_an_error(tmp_path: Path) -> None:
    root = dataset(tmp_path / "data", images=[{"id": 1, "file_name": "x.png"}])
    with pytest.raises(FormatError, match=r"None of the 1 images is there"):
        formats.read(root)


def test_damage_at_any_place_is_an_error_or_is_read(tmp_path: Path) -> None:
    root = dataset(tmp_path / "data", [one(segmentation=[[1, 2, 3, 4, 5, 6]]), one(id=6, image_id=2)])
    file = root / "annotations.json"
    text = file.read_text()
    n_errors = 0
    for at in range(0, len(text), 3):
        for damaged in (text[:at], text[:at] + "\x00" + text[at + 1 :], text[:at] + "]" + text[at + 1 :]):
            file.write_text(damaged)
            try:
                tables = formats.read(root, format="coco")
                formats.patch(tables.source, [of_image(tables, tables.images.index[0], "drop")])
            except DataAuditError as error:
                n_errors += 1
                assert "annotations.json" in str(error) or str(root) in str(error)
    assert n_errors > len(text) * 0.6


# Patching

PLAIN = (
    '{"images": [{"id": 1, "file_name": "a.png"}],'
    ' "annotations": [{"id": 5, "image_id": 1, "category_id": 1, "bbox": [1.5, 2.0, 10.25, 20.0]}],'
    ' "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]}'
)


def changed(old: str, new: str) -> str:
    assert PLAIN.count(old) == 1
    return PLAIN.replace(old, new)


PATCHED = {
    "relabel": (("relabel", "dog"), changed('"category_id": 1', '"category_id": 2')),
    "relabel to a new class": (
        ("relabel", 'größe "1"'),
        changed('"category_id": 1', '"category_id": 3').replace(
            '"dog"}', '"dog"}, {"id": 3, "name": "gr\\u00f6\\u00dfe \\"1\\""}'
        ),
    ),
    "remove": (
        ("remove",),
        changed('{"id": 5, "image_id": 1, "category_id": 1, "bbox": [1.5, 2.0, 10.25, 20.0]}', ""),
    ),
    "move to the right": (("move", None, (2.5, 2, 12.75, 22)), changed("1.5, 2.0", "2.5, 2.0")),
    "move a side": (("move", None, (1.5, 2, 12, 22)), changed("10.25", "10.5")),
    "move finely": (("move", None, (1.23456, 2, 11.75, 22)), changed("1.5, 2.0, 10.25", "1.23, 2.0, 10.52")),
    "add": (
        ("add", "dog", (1, 2, 3.125, 4)),
        changed(
            "20.0]}", '20.0]}, {"id": 6, "image_id": 1, "category_id": 2, "bbox": [1.0, 2.0, 2.12, 2.0]}'
        ),
    ),
}


@pytest.mark.parametrize(("asked", "wanted"), PATCHED.values(), ids=PATCHED.keys())
def test_a_fix_changes_these_characters_alone(tmp_path: Path, asked: tuple[Any, ...], wanted: str) -> None:
    root = tmp_path / "data"
    assert after(root, PLAIN, *asked) == wanted
    fix.undo(root)
    assert text_of(root) == PLAIN


def test_whole_numbers_stay_whole(tmp_path: Path) -> None:
    text = PLAIN.replace("[1.5, 2.0, 10.25, 20.0]", "[1, 2, 10, 20]")
    assert "[1, 3, 11, 19]" in after(tmp_path / "data", text, "move", None, (1.2, 2.6, 12.4, 22))


def test_numbers_with_always_two_decimals_keep_two(tmp_path: Path) -> None:
    text = PLAIN.replace("[1.5, 2.0, 10.25, 20.0]", "[1.50, 2.00, 10.25, 20.00]")
    assert "[3.00, 2.00, 10.00, 20.00]" in after(tmp_path / "data", text, "move", None, (3, 2, 13, 22))


def test_area_and_rectangle_move_with_the_box(tmp_path: Path) -> None:
    rectangle = "[[1.5, 2.0, 1.5, 22.0, 11.75, 22.0, 11.75, 2.0, 1.5, 2.0]]"
    text = PLAIN.replace("20.0]}", f'20.0], "area": 205.0, "segmentation": {rectangle}}}')
    moved = after(tmp_path / "data", text, "move", None, (1.5, 3, 21.5, 23))
    assert '"bbox": [1.5, 3.0, 20.0, 20.0], "area": 400.0, ' in moved
    assert "[[1.5, 3.0, 1.5, 23.0, 21.5, 23.0, 21.5, 3.0, 1.5, 3.0]]" in moved


def test_another_area_stays(tmp_path: Path) -> None:
    text = PLAIN.replace("20.0]}", '20.0], "area": 150.5}')
    assert '"area": 150.5}' in after(tmp_path / "data", text, "move", None, (1, 2, 3, 4))


def test_an_unreadable_box_is_replaced(tmp_path: Path) -> None:
    annotations = [one(bbox=[1, 2]), one(id=6, bbox=None), one(id=7)]
    root = dataset(tmp_path / "data", annotations)
    tables = formats.read(root)
    moves = [of_object(tables, f"images/a.png:{n}", "move", box=(1, 2, 4, 6)) for n in (5, 6)]
    after = patched(root, *moves)
    assert after.labels["x2"].tolist() == [4, 4, 11]
    assert '{"bbox": [1, 2, 3, 4], "id": 6' in text_of(root)


def test_polygons_and_masks_are_relabeled_and_not_moved(tmp_path: Path) -> None:
    root = Path(shutil.copytree(GOLDEN, tmp_path / "coco"))
    tables = formats.read(root)
    for label_id in ("images/b größe.png:5", "images/c.png:4"):
        with pytest.raises(InputError, match="can't be moved"):
            formats.patch(tables.source, [of_object(tables, label_id, "move", box=(1, 2, 3, 4))])
    after = patched(root, of_object(tables, "images/c.png:4", "relabel", "dog"))
    assert after.labels.loc["images/c.png:4", "name"] == "dog"


INDENTED = {
    "four spaces": {"indent": 4},
    "tabs": {"indent": "\t"},
    "no spaces": {"separators": (",", ":")},
    "usual": {},
}


@pytest.mark.parametrize("style", INDENTED.values(), ids=INDENTED.keys())
def test_new_objects_and_classes_have_the_style_of_the_file(tmp_path: Path, style: Any) -> None:
    said: Any = {
        "images": IMAGES,
        "annotations": [one(iscrowd=0, segmentation=[], area=1), one(id=6, iscrowd=0, area=1)],
        "categories": list(CATEGORIES),
    }
    root = tmp_path / "data"
    text = after(root, json.dumps(said, **style), "add", "bird", (1, 2, 4, 6))
    said["annotations"].append(
        {"id": 7, "image_id": 1, "category_id": 3, "bbox": [1, 2, 3, 4], "iscrowd": 0, "area": 12}
    )
    said["categories"].append({"id": 3, "name": "bird"})
    assert text == json.dumps(said, **style)


def test_a_file_without_annotations_gets_its_first(tmp_path: Path) -> None:
    root = dataset(tmp_path / "data", [])
    tables = formats.read(root)
    assert len(tables.labels) == 0
    after = patched(root, of_image(tables, "images/b.png", "add", "cat", (1, 2, 3.5, 4)))
    assert objects(after) == [("images/b.png", "cat", (1, 2, 3.5, 4))]


@pytest.mark.parametrize("gone", [[0], [1], [2], [0, 1], [1, 2], [0, 2], [0, 1, 2]])
def test_an_element_leaves_with_one_comma(tmp_path: Path, gone: list[int]) -> None:
    annotations = [one(id=n) for n in (1, 2, 3)]
    root = dataset(tmp_path / "data", annotations)
    tables = formats.read(root)
    labels = [str(tables.labels.index[n]) for n in gone]
    apply(tables, *(of_object(tables, each, "remove") for each in labels))
    kept = [each for n, each in enumerate(annotations) if n not in gone]
    assert text_of(root) == json.dumps({"images": IMAGES, "annotations": kept, "categories": CATEGORIES})


def test_objects_without_an_id_of_their_own_are_named_by_their_number(tmp_path: Path) -> None:
    root = dataset(tmp_path / "data", [one(), one(bbox=[5, 6, 7, 8]), one(id=None), one(id=8)])
    tables = formats.read(root)
    assert tables.labels.index.tolist() == [f"images/a.png:{item}" for item in ("#1", "#2", "#3", 8)]
    after = patched(root, of_object(tables, "images/a.png:#2", "relabel", "dog"))
    assert after.labels["name"].tolist() == ["cat", "dog", "cat", "cat"]


def test_a_dropped_image_leaves_both_files_and_stays_on_disk(tmp_path: Path) -> None:
    root = dataset(tmp_path / "data")
    (root / "annotations.json").rename(root / "train.json")
    shutil.copy(root / "train.json", root / "val.json")
    tables = formats.read(root)
    assert "image twice" in kinds(tables)
    after = patched(root, of_image(tables, "images/a.png", "merge", "images/b.png"))
    assert after.images.index.tolist() == ["images/b.png"]
    assert (root / "images/a.png").is_file()


def test_what_has_changed_since_is_a_conflict(tmp_path: Path) -> None:
    root = dataset(tmp_path / "data")
    tables = formats.read(root)
    relabel = of_object(tables, "images/a.png:5", "relabel", "dog")
    stale = [
        replace(relabel, old="bird"),
        replace(relabel, old_box=(1, 2, 11, 22.1)),
        replace(relabel, locator=replace(relabel.locator, item=77)),
        replace(relabel, locator=replace(relabel.locator, file="gone.json")),
        replace(relabel, sample_id="images/b.png"),
        of_image(tables, "images/a.png", "merge", "images/c.png"),
        replace(of_image(tables, "images/a.png", "add", "cat", (1, 2, 3, 4)), sample_id="images/c.png"),
    ]
    for each in stale:
        with pytest.raises(ConflictError):
            formats.patch(tables.source, [each])


def test_the_objects_of_an_image_that_leaves_cannot_be_edited_too(tmp_path: Path) -> None:
    root = dataset(tmp_path / "data")
    tables = formats.read(root)
    with pytest.raises(InputError, match="leaves with its image"):
        formats.patch(
            tables.source,
            [of_image(tables, "images/a.png", "drop"), of_object(tables, "images/a.png:5", "remove")],
        )


def test_the_mode_of_the_file_stays(tmp_path: Path) -> None:
    root = dataset(tmp_path / "data")
    (root / "annotations.json").chmod(0o640)
    tables = formats.read(root)
    apply(tables, of_object(tables, "images/a.png:5", "relabel", "dog"))
    assert (root / "annotations.json").stat().st_mode & 0o777 == 0o640


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data(), indent=st.sampled_from([None, 2, "as it is"]))
def test_random_fixes_do_what_they_say_and_their_undo_restores_every_byte(
    data: st.DataObject, indent: Any
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(shutil.copytree(GOLDEN, Path(folder) / "coco"))
        file = root / "annotations/instances.json"
        if indent != "as it is":
            file.write_text(json.dumps(json.loads(file.read_bytes()), indent=indent))
        before, tables = contents(root), formats.read(root)
        fixes = data.draw(fixes_of(tables, NAMES))
        apply(tables, *fixes)
        found, wanted = objects(formats.read(root)), expected(tables, fixes)
        assert [each[:2] for each in found] == [each[:2] for each in wanted]
        for one, other in zip(found, wanted, strict=True):
            assert one[2] == pytest.approx(other[2], abs=0.006)
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
