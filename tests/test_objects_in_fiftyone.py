"""Objects in FiftyOne: read from a field of `Detections`, fixed in it, and brought there from files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from bson import ObjectId
from databases import fiftyone
from PIL import Image

from dataaudit import fix, formats, tables
from dataaudit.errors import ConflictError, InputError
from dataaudit.formats._shared import ObjectRows
from dataaudit.types import Box, Finding, Fix, Locator, Report, Source, Tables

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture
def fo() -> Any:
    return fiftyone()


@pytest.fixture
def dataset(fo: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Three images of FiftyOne's own: two objects, none, and no field."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    made = fo.Dataset()
    samples = [fo.Sample(filepath=str(tmp_path / f"{n}.jpg"), tags=["val"]) for n in range(3)]
    mask = np.zeros((4, 4), dtype=bool)
    mask[0, 0] = True
    samples[0]["boxes"] = fo.Detections(
        detections=[
            fo.Detection(
                label="cat", bounding_box=[0.25, 0.5, 0.5, 0.25], tags=["mine"], iscrowd=1, colour="red"
            ),
            fo.Detection(label="dog", bounding_box=[0.0, 0.0, 0.5, 0.5], mask=mask),
        ]
    )
    samples[0]["metadata"] = fo.ImageMetadata(width=200, height=100)
    samples[1]["boxes"] = fo.Detections()
    made.add_samples(samples, progress=False)
    yield made
    made.delete()


def report_of(found: Tables, *fixes: Fix) -> Report:
    items = [
        Finding(
            key=str(key), code="BOX002", item_id=each.label_id, sample_id=each.sample_id, score=0.1,
            probability=0.9, message="", fix=each,
        )
        for key, each in enumerate(fixes)
    ]  # fmt: skip
    return Report(digest="", params={}, outcomes={}, items=tuple(items), skipped={}, timings={}, tables=found)


def edit(found: Tables, number: int, op: Any, new: str | None = None, box: Box | None = None) -> Fix:
    """A fix of the object of this number."""
    row = found.labels.iloc[number]
    return Fix(
        op=op, sample_id=row["sample_id"], label_id=found.labels.index[number], locator=row["locator"],
        old=row["name"], new=row["name"] if op == "move" else new,
        old_box=tuple(row[["x1", "y1", "x2", "y2"]].astype(float)), box=box,
    )  # fmt: skip


def added(found: Tables, number: int, new: str, box: Box) -> Fix:
    """A fix that gives the image of this number another object."""
    row = found.images.iloc[number]
    return Fix(
        op="add", sample_id=found.images.index[number], label_id=f"new {number}", locator=row["locator"],
        old=None, new=new, box=box,
    )  # fmt: skip


def documents(dataset: Any, field: str = "boxes") -> list[Any]:
    return [each.get(field) for each in dataset._sample_collection.find().sort("_id")]


def test_a_field_of_detections_is_a_table_of_objects(dataset: Any) -> None:
    found = formats.read(dataset.name)
    ids, [keys, *_] = dataset.values("id"), dataset.values("boxes.detections.id")
    assert (found.task, found.units, found.classes) == ("detection", "relative", ("cat", "dog"))
    assert found.images["declared_width"].tolist()[0] == 200
    assert found.images["split"].tolist() == ["val"] * 3
    assert found.labels.index.tolist() == [f"{ids[0]}:{key}" for key in keys]
    assert found.labels[["x1", "y1", "x2", "y2"]].to_numpy().tolist() == [
        [0.25, 0.5, 0.75, 0.75],
        [0.0, 0.0, 0.5, 0.5],
    ]
    assert found.labels["crowd"].tolist() == [True, False]
    assert found.labels["geometry"].tolist() == ["box", "mask"]
    assert str(found.labels["locator"].iloc[0]) == f"{ids[0]}:{keys[0]}:boxes"
    assert found.problems == ()


def test_what_other_formats_call_a_flag_is_one(dataset: Any) -> None:
    dataset.set_values("boxes.detections.difficult", [[0, "1"], [], None])
    dataset.set_values("boxes.detections.truncated", [[0.0, 0.3], [], None])
    found = formats.read(dataset.name)
    assert found.labels["difficult"].tolist() == [False, True]
    assert found.labels["truncated"].tolist() == [False, True]


def test_objects_that_cannot_be_read_are_problems(dataset: Any) -> None:
    dataset.set_values("boxes.detections.label", [[None, "dog"], [], None])
    dataset.set_values("boxes.detections.bounding_box", [[[0, 0, 1, 1], [0.5, 0.5]], [], None])
    found = formats.read(dataset.name)
    assert found.labels["name"].tolist() == ["dog"]
    assert found.labels["x1"].isna().tolist() == [True]
    assert [each.kind for each in found.problems] == ["object without a class", "box that can't be read"]


def test_of_several_fields_ground_truth_holds_the_labels(dataset: Any) -> None:
    dataset.clone_sample_field("boxes", "dataaudit_proposed")
    assert formats.read(dataset.name).source.options == {"label_field": "boxes"}
    dataset.clone_sample_field("boxes", "more")
    with pytest.raises(InputError, match="2 label fields: boxes, more"):
        formats.read(dataset.name)
    assert formats.read(dataset.name, options={"label_field": "more"}).task == "detection"
    dataset.clone_sample_field("boxes", "ground_truth")
    assert formats.read(dataset.name).source.options == {"label_field": "ground_truth"}


def test_a_field_of_polylines_is_refused_with_what_is_expected(fo: Any, dataset: Any) -> None:
    dataset.add_sample_field("lines", fo.EmbeddedDocumentField, embedded_doc_type=fo.Polylines)
    message = "'lines' .* holds Polylines; expected Classification, Classifications or Detections"
    with pytest.raises(InputError, match=message):
        formats.read(dataset.name, options={"label_field": "lines"})


def test_objects_change_in_place_and_the_undo_brings_the_same_documents_back(dataset: Any) -> None:
    before = documents(dataset)
    found = formats.read(dataset.name)
    plan = fix.plan(
        report_of(
            found,
            edit(found, 0, "relabel", "fox"),
            edit(found, 1, "remove"),
            added(found, 1, "cow", (0.5, 0.5, 0.75, 1.0)),
            added(found, 2, "cat", (0.0, 0.0, 1.0, 1.0)),
        ),
        min_probability=0.5,
    )
    fix.apply(plan)
    after = documents(dataset)
    assert after[0]["detections"] == [{**before[0]["detections"][0], "label": "fox"}]
    assert after[1]["detections"][0]["bounding_box"] == [0.5, 0.5, 0.25, 0.5]
    dataset.reload()
    assert dataset.values("boxes.detections.label") == [["fox"], ["cow"], ["cat"]]
    assert dataset.first().boxes.detections[0].colour == "red"
    fix.undo(plan.source)
    assert documents(dataset) == before


def test_a_moved_box_keeps_all_else_and_its_mask_stays_where_it_is(dataset: Any) -> None:
    before = documents(dataset)
    found = formats.read(dataset.name)
    moves = [edit(found, n, "move", box=(0.0, 0.0, 0.25, 1.0)) for n in range(2)]
    plan = fix.plan(report_of(found, *moves), min_probability=0.5)
    fix.apply(plan)
    dataset.reload()
    first, second = dataset.first().boxes.detections
    assert first.bounding_box == second.bounding_box == [0.0, 0.0, 0.25, 1.0]
    assert (first.label, first.tags, first.colour, first.iscrowd) == ("cat", ["mine"], "red", 1)
    expected = np.zeros((8, 2), dtype=bool)
    expected[0, 0] = True
    assert (second.mask == expected).all()
    fix.undo(plan.source)
    assert documents(dataset) == before


@pytest.mark.parametrize(
    ("field", "values", "message"),
    [
        ("boxes.detections.label", [["cow", "dog"], [], None], "class is 'cow'; expected 'cat'"),
        ("boxes.detections.bounding_box", [[[0.25, 0.5, 0.5, 0.26], [0, 0, 0.5, 0.5]], [], None], "box is"),
        ("boxes", [None, None, None], r"detection \w+ \(cat\) is gone"),
    ],
)
def test_an_object_that_changed_since_stops_the_whole_plan(
    dataset: Any, field: str, values: Sequence[Any], message: str
) -> None:
    found = formats.read(dataset.name)
    plan = fix.plan(
        report_of(found, added(found, 1, "cow", (0, 0, 1, 1)), edit(found, 0, "relabel", "fox")),
        min_probability=0.5,
    )
    dataset.set_values(field, values)
    with pytest.raises(ConflictError, match=message):
        fix.apply(plan)
    dataset.reload()
    assert not dataset.values("boxes.detections")[1]


def test_a_sample_with_objects_is_dropped_and_comes_back(dataset: Any) -> None:
    before = documents(dataset)
    found = formats.read(dataset.name)
    row = found.images.iloc[0]
    drop = Fix(
        op="drop", sample_id=row.name, label_id=row.name, locator=row["locator"], old="cat, dog", new=None
    )  # fmt: skip
    operations = formats.patch(found.source, [drop])
    from dataaudit import journal, state

    folder = state.prepare(found.source)
    undo = journal.invert(folder, operations)
    journal.commit(folder, operations)
    dataset.reload()
    assert len(dataset) == 2
    journal.commit(folder, [journal.from_record(folder, each) for each in undo])
    assert documents(dataset) == before


def test_many_random_fixes_and_their_undo_leave_the_same_documents(fo: Any, dataset: Any) -> None:
    rng = np.random.default_rng(0)
    samples = [fo.Sample(filepath=f"/none/{n}.jpg") for n in range(40)]
    for sample in samples:
        boxes = rng.uniform(0.05, 0.5, (int(rng.integers(0, 9)), 4)).tolist()
        detections = [fo.Detection(label=f"c{rng.integers(5)}", bounding_box=box, n=1) for box in boxes]
        sample["boxes"] = fo.Detections(detections=detections)
    dataset.add_samples(samples, progress=False)
    before = documents(dataset)
    found = formats.read(dataset.name)
    fixes = [added(found, n, f"new{n}", (0.0, 0.1, 0.2, 0.3)) for n in range(0, len(found.images), 3)]
    for number in range(len(found.labels)):
        op = ("relabel", "remove", "move", None)[int(rng.integers(4))]
        x, y, width, height = rng.uniform(0.05, 0.5, 4).tolist()
        box = (x, y, x + width, y + height) if op == "move" else None
        if op is not None:
            fixes.append(edit(found, number, op, "other" if op == "relabel" else None, box))
    assert len(fixes) > 100
    plan = fix.plan(report_of(found, *fixes), min_probability=0.5)
    fix.apply(plan)
    assert documents(dataset) != before
    fix.undo(plan.source)
    assert documents(dataset) == before


@pytest.mark.parametrize(
    "damage",
    [
        {"_cls": "Detections"},
        {"_cls": "Detections", "detections": None},
        *(
            {"_cls": "Detections", "detections": [{"_id": ObjectId(), "_cls": "Detection", **each}]}
            for each in (
                {},
                {"label": "cat"},
                {"label": 3, "bounding_box": [0.1, 0.1, 0.1, 0.1]},
                {"label": "cat", "bounding_box": None},
                {"label": "cat", "bounding_box": "0.1 0.1 0.1 0.1"},
                {"label": "cat", "bounding_box": [0.1, None, 0.1, 0.1]},
                {"label": "cat", "bounding_box": [0.1, [0.1], 0.1, 0.1]},
                {"label": "cat", "bounding_box": [0.1, float("nan"), 0.1, 0.1]},
                {"label": "cat", "bounding_box": [0.1, 0.1, float("inf"), 0.1]},
                {"label": "cat", "bounding_box": [0.1, 0.1, 0.1, 0.1, 0.1]},
                {"label": "cat", "bounding_box": {"x": 0.1}},
                {"label": "cat", "bounding_box": [0.1, 0.1, 0.1, 0.1], "iscrowd": [1], "difficult": "often"},
                {"label": "cat", "bounding_box": [0.1, 0.1, 0.1, 0.1], "mask": 3},
            )
        ),
    ],
)
def test_a_damaged_document_is_a_problem_or_no_object(dataset: Any, damage: dict[str, Any]) -> None:
    sample = {"_id": ObjectId(dataset.values("id")[1])}
    dataset._sample_collection.update_one(sample, {"$set": {"boxes": damage}})
    found = formats.read(dataset.name)
    own = found.labels[found.labels["sample_id"] == found.images.index[1]]
    broken = own[["x1", "y1", "x2", "y2"]].isna().any(axis=1).sum()
    detections = damage.get("detections") or []
    lost = len(detections) - len(own)
    assert len(found.problems) == lost + broken


# Files -> FiftyOne -> tables


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two images, one of them turned by its EXIF, and one that can't be read."""
    for name, orientation in (("a.jpg", 1), ("b.jpg", 6)):
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.new("RGB", (200, 100), (90, 120, 60)).save(tmp_path / name, exif=exif)
    (tmp_path / "c.jpg").write_bytes(b"no image")
    return tmp_path


def of_photos(
    photos: Path, *objects: tuple[str, str, str, Box], units: str = "pixels", **marks: Any
) -> Tables:
    """Tables of the photos: image, id, class and box of each object."""
    rows = ObjectRows()
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        rows.image(name, str(photos / name), Locator(file="all.json"), size=(200, 100))
    for image, key, label, box in objects:
        rows.object(image, f"{image}:{key}", label, box, Locator(file="all.json", item=key), **marks)
    source = Source(format="made", root=photos, path=str(photos / "gone.json"), anchor=photos)
    return rows.tables(source=source, units=units)


CAT = ("a.jpg", "1", "cat", (50.0, 25.0, 150.0, 75.0))
DOG = ("a.jpg", "2", "dog", (0.0, 0.0, 100.0, 100.0))


def shown(dataset: Any) -> list[Any]:
    """Id, class and box of each object by sample."""
    dataset.reload()
    inside = "ground_truth.detections"
    columns = dataset.values([f"{inside}.{name}" for name in ("dataaudit_id", "label", "bounding_box")])
    return [list(zip(*each, strict=True)) for each in zip(*columns, strict=True)]


def test_boxes_in_pixels_are_relative_to_the_image_as_shown(fo: Any, photos: Path) -> None:
    upright = ("b.jpg", "3", "cat", (50.0, 50.0, 100.0, 100.0))
    unreadable = ("c.jpg", "4", "cat", (20.0, 10.0, 40.0, 20.0))
    dataset = tables.write(of_photos(photos, CAT, upright, unreadable))
    assert dataset.persistent
    assert shown(dataset) == [
        [("a.jpg:1", "cat", [0.25, 0.25, 0.5, 0.5])],
        [("b.jpg:3", "cat", [0.5, 0.25, 0.5, 0.25])],
        [("c.jpg:4", "cat", [0.1, 0.1, 0.1, 0.1])],
    ]
    assert dataset.values("metadata.width") == [200, 100, 200]
    assert dataset.values("metadata.height") == [100, 200, 100]
    assert dataset.first().ground_truth.detections[0].label == "cat"
    assert dataset.default_classes == ["cat"]


def test_a_box_that_cannot_be_read_is_left_out_and_flags_are_attributes(fo: Any, photos: Path) -> None:
    nowhere = ("a.jpg", "9", "cat", (np.nan,) * 4)
    dataset = tables.write(of_photos(photos, DOG, nowhere, crowd=True, difficult=True))
    [detection] = dataset.first().ground_truth.detections
    assert (detection.iscrowd, detection.difficult, detection.has_field("ignore")) == (True, True, False)
    assert dataset.values("ground_truth.detections.id")[1:] == [[], []]


def test_writing_again_writes_nothing(fo: Any, photos: Path) -> None:
    made = of_photos(photos, CAT, DOG, crowd=True)
    dataset = tables.write(made)
    before = list(dataset._sample_collection.find())
    database = fo.core.odm.get_db_conn()
    n_updates = database.command("serverStatus")["metrics"]["commands"]["update"]["total"]
    dataset = tables.write(made)
    assert list(dataset._sample_collection.find()) == before
    # The dataset's own document alone
    assert database.command("serverStatus")["metrics"]["commands"]["update"]["total"] <= n_updates + 6


def test_an_object_stays_itself_when_its_number_class_or_box_changes(fo: Any, photos: Path) -> None:
    dataset = tables.write(of_photos(photos, CAT, DOG))
    dataset.set_values("ground_truth.detections.tags", [[["one"], ["two"]], [], []])
    dataset.set_values("ground_truth.detections.note", [["first", "second"], [], []])
    keys = dataset.values("ground_truth.detections.id")[0]
    renumbered = ("a.jpg", "1", *DOG[2:])
    dataset = tables.write(of_photos(photos, renumbered))
    assert shown(dataset)[0] == [("a.jpg:1", "dog", [0.0, 0.0, 0.5, 1.0])]
    [left] = dataset.first().ground_truth.detections
    assert (left.id, left.tags, left.note) == (keys[1], ["two"], "second")
    moved = ("a.jpg", "1", "dog", (0.0, 0.0, 50.0, 50.0))
    dataset = tables.write(of_photos(photos, moved, ("a.jpg", "2", "cow", DOG[3])))
    labels = dataset.first().ground_truth.detections
    # What stands at the same place is the same, whatever its number
    assert [(each.label, each.tags) for each in labels] == [("cow", ["two"]), ("dog", [])]
    assert labels[0].id == keys[1]


def test_objects_that_people_drew_stay_and_those_gone_from_the_files_go(fo: Any, photos: Path) -> None:
    dataset = tables.write(of_photos(photos, CAT, DOG))
    sample = dataset.first()
    sample.ground_truth.detections.append(fo.Detection(label="bird", bounding_box=[0.0, 0.0, 0.1, 0.1]))
    sample.save()
    dataset = tables.write(of_photos(photos, CAT))
    assert [each[:2] for each in shown(dataset)[0]] == [("a.jpg:1", "cat"), (None, "bird")]
    drawn = ("a.jpg", "2", "bird", (0.0, 0.0, 20.0, 10.0))
    dataset = tables.write(of_photos(photos, CAT, drawn))
    assert [each[:2] for each in shown(dataset)[0]] == [("a.jpg:1", "cat"), ("a.jpg:2", "bird")]


def test_a_flag_that_went_from_the_files_goes_and_one_that_people_set_stays(fo: Any, photos: Path) -> None:
    rows = of_photos(photos, CAT, DOG)
    marked = rows.labels.assign(difficult=[True, True])
    from dataclasses import replace

    dataset = tables.write(replace(rows, labels=marked))
    dataset.set_values("ground_truth.detections.occluded", [[True, True], [], []])
    dataset = tables.write(replace(rows, labels=rows.labels.assign(difficult=[False, True])))
    first, second = dataset.first().ground_truth.detections
    assert not first.has_field("difficult")
    assert second.difficult is True
    assert (first.occluded, second.occluded) == (True, True)


def test_a_dataset_whose_files_are_gone_is_read_as_it_is_shown(fo: Any, photos: Path) -> None:
    found = tables.read(tables.write(of_photos(photos, CAT, DOG)))
    assert (found.task, found.units) == ("detection", "relative")
    assert found.labels.index.tolist() == ["a.jpg:1", "a.jpg:2"]
    assert found.labels["sample_id"].tolist() == ["a.jpg", "a.jpg"]
    assert found.labels[["x1", "y1", "x2", "y2"]].to_numpy().tolist()[0] == [0.25, 0.25, 0.75, 0.75]


# Predictions


def test_predictions_are_rows_with_the_sample_ids_of_the_tables(fo: Any, photos: Path) -> None:
    dataset = tables.write(of_photos(photos, CAT))
    predicted = [
        fo.Detection(label="dog", confidence=0.5, bounding_box=[0.25, 0.5, 0.5, 0.25]),
        fo.Detection(label="dog", confidence=0.9, bounding_box=[0.0, 0.0, 1.0, 1.0], iscrowd=1),
    ]
    dataset.set_values("yolo", [None, fo.Detections(detections=predicted), fo.Detections()])
    found = tables.predictions_of(dataset, "yolo")
    assert found.columns.tolist() == ["sample_id", "name", "confidence", "x1", "y1", "x2", "y2"]
    assert found.to_numpy().tolist() == [["b.jpg", "dog", 0.5, 0.25, 0.5, 0.75, 0.75]]
    ids = pd.Index(dataset.values("id"))
    assert tables.predictions_of(dataset, "yolo", samples=ids)["sample_id"].tolist() == [ids[1]]
    own = tables.predictions_of(dataset, "yolo", samples=pd.Index(["b.jpg"]))
    assert own["sample_id"].tolist() == ["b.jpg"]


def test_a_field_without_detections_has_no_predictions(dataset: Any) -> None:
    dataset.clone_sample_field("boxes", "yolo")
    dataset.clear_sample_field("yolo")
    assert len(tables.predictions_of(dataset, "yolo")) == 0
    with pytest.raises(InputError, match=r"no Detections field 'yolov'. Did you mean 'yolo'"):
        tables.predictions_of(dataset, "yolov")


def test_labels_are_no_predictions(dataset: Any) -> None:
    with pytest.raises(InputError, match="label 'dog', the confidence None"):
        tables.predictions_of(dataset, "boxes")


# A real format


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    """Pascal VOC: two images, one of them without objects, and a box that can't be read."""
    for name in ("JPEGImages", "Annotations"):
        (tmp_path / "voc" / name).mkdir(parents=True)
    boxes = [
        ("cat", "10", "20", "110", "70"),
        ("dog", "33", "1", "77", "100"),
        ("dog", "?", "1", "77", "100"),
    ]
    for name, own in (("a", boxes), ("b", [])):
        Image.new("RGB", (200, 100), (len(own), 120, 60)).save(tmp_path / f"voc/JPEGImages/{name}.jpg")
        objects = "".join(
            f"<object><name>{label}</name><difficult>{int(label == 'dog')}</difficult><bndbox>"
            f"<xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
            for label, x1, y1, x2, y2 in own
        )
        (tmp_path / f"voc/Annotations/{name}.xml").write_text(
            f"<annotation><filename>{name}.jpg</filename><size><width>200</width><height>100</height>"
            f"<depth>3</depth></size>{objects}</annotation>"
        )
    return tmp_path / "voc"


def test_reading_a_loaded_dataset_gives_the_tables_of_its_files(fo: Any, voc: Path) -> None:
    expected = formats.read(voc)
    assert len(expected.labels) == 3
    dataset = tables.write(expected)
    assert dataset.values("ground_truth.detections.label") == [["cat", "dog"], []]
    found = tables.read(dataset)
    pd.testing.assert_frame_equal(found.images, expected.images, check_dtype=False)
    pd.testing.assert_frame_equal(found.labels, expected.labels)
    assert (found.classes, found.units, found.problems) == (expected.classes, "pixels", expected.problems)
    assert found.source.root == expected.source.root


def test_what_people_changed_in_fiftyone_is_read_with_the_places_of_the_files(fo: Any, voc: Path) -> None:
    expected = formats.read(voc)
    dataset = tables.write(expected)
    sample = dataset.first()
    sample.ground_truth.detections[0].label = "fox"
    sample.ground_truth.detections[1].bounding_box = [0.25, 0.5, 0.25, 0.5]
    sample.save()
    found = tables.read(dataset)
    assert found.labels["name"].tolist() == ["fox", "dog", "dog"]
    assert found.labels[["x1", "y1", "x2", "y2"]].to_numpy().tolist()[1] == [50, 50, 100, 100]
    assert found.labels["locator"].tolist() == expected.labels["locator"].tolist()
    sample.ground_truth.detections.pop(0)
    sample.save()
    assert tables.read(dataset).labels.index.tolist() == expected.labels.index.tolist()[1:]


def test_a_fix_goes_to_the_files_and_then_to_fiftyone(fo: Any, voc: Path) -> None:
    dataset = tables.write(formats.read(voc))
    found = tables.read(dataset)
    plan = fix.plan(report_of(found, edit(found, 0, "relabel", "fox")), min_probability=0.5)
    fix.apply(plan)
    assert "<name>fox</name>" in (voc / "Annotations/a.xml").read_text()
    key = dataset.values("ground_truth.detections.id")[0]
    dataset = tables.write(formats.read(voc))
    assert dataset.values("ground_truth.detections.label") == [["fox", "dog"], []]
    assert dataset.values("ground_truth.detections.id")[0] == key
