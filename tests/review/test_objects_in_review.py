"""Findings about single objects in FiftyOne: what `push` writes on detections and `clean` takes away."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from databases import fiftyone
from PIL import Image

from dataaudit import formats, pipeline, review, tables
from dataaudit.formats._shared import ObjectRows
from dataaudit.types import Locator, Outcome, Report, Source, Tables

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

OBJECTS = {
    "a.png:1": ("cat", (10.0, 10.0, 50.0, 50.0)),
    "a.png:2": ("dog", (60.0, 10.0, 90.0, 40.0)),
    "b.png:1": ("cat", (0.0, 0.0, 100.0, 50.0)),
    "b.png:2": ("dog", (20.0, 20.0, 40.0, 40.0)),
}


@pytest.fixture
def made(tmp_path: Path) -> Tables:
    """Two objects on each of two images of 100 x 50 pixels, and a third image without any."""
    rows = ObjectRows()
    for name in ("a.png", "b.png", "c.png"):
        Image.fromarray(np.full((50, 100, 3), len(rows.sample_ids) * 40, dtype=np.uint8)).save(
            tmp_path / name
        )
        rows.image(name, str(tmp_path / name), Locator(file="all.json"), size=(100, 50))
    for number, (label_id, (name, box)) in enumerate(OBJECTS.items()):
        place = Locator(file="all.json", item=number)
        rows.object(label_id.split(":")[0], label_id, name, box, place)
    source = Source(format="made", root=tmp_path, path=str(tmp_path / "all.json"), anchor=tmp_path)
    return rows.tables(source=source)


def outcome(scores: dict[str, float], rows: dict[str, dict[str, Any]]) -> Outcome:
    """What a check found: the score of each item, and the evidence of the flagged ones."""
    score = pd.Series(scores, dtype=float)
    evidence = pd.DataFrame.from_dict(rows, orient="index")
    corners = [corner for corner in ("x1", "y1", "x2", "y2") if corner in evidence]
    return Outcome(
        score=score,
        flagged=pd.Series(score.index.isin(list(rows)), index=score.index),
        probability=pd.Series(score.index.isin(list(rows)) * 0.75 + 0.125, index=score.index),
        evidence=evidence.astype(dict.fromkeys(corners, float)),
    )


def report_of(found: Tables, names: dict[str, str] | None = None) -> Report:
    """A wrong class and a loose box on the first image, a missing object on the third.

    Args:
        found: the dataset.
        names: other ids for the objects.
    """
    ids = dict(zip(OBJECTS, found.labels.index, strict=True))
    third = found.images.index[2]
    box = dict(zip(("x1", "y1", "x2", "y2"), (10.0, 10.0, 40.0, 30.0), strict=True))
    outcomes = {
        "BOX002": outcome(
            {ids["a.png:1"]: 0.9, ids["a.png:2"]: 0.2, ids["b.png:1"]: 0.1, ids["b.png:2"]: 1.0},
            {
                ids["a.png:2"]: {"message": "It looks like cat.", "suggested": "cat", "group": "g"},
                ids["b.png:1"]: {"message": "It looks like dog.", "suggested": "dog", "group": None},
            },
        ),
        "BOX003": outcome(
            {f"{third}:+10,10,40,30": 0.3},
            {
                f"{third}:+10,10,40,30": {
                    "message": "No box on a dog.", "suggested": "dog", "sample_id": third, **box,
                }
            },
        ),
        "BOX005": outcome(
            {ids["a.png:1"]: 0.4, ids["a.png:2"]: 1.0}, {ids["a.png:1"]: {"message": "Loose.", **box}}
        ),
    }  # fmt: skip
    swept = replace(found, images=found.images.assign(width=100, height=50))
    return Report(
        digest="1", params={}, outcomes=outcomes, items=pipeline.findings_of(outcomes, swept, {}), skipped={},
        timings={}, tables=swept,
    )  # fmt: skip


@pytest.fixture
def report(made: Tables) -> Report:
    return report_of(made)


@pytest.fixture
def dataset(made: Tables) -> Iterator[Any]:
    fo = fiftyone()
    loaded = tables.write(made)
    loaded.set_values("ground_truth.detections.tags", [[["mine"], []], [["mine"], []], []])
    loaded.set_values("ground_truth.detections.note", [["one", None], [None, "two"], []])
    yield loaded
    fo.delete_dataset(loaded.name)


def of_objects(dataset: Any, name: str) -> dict[str, Any]:
    """An attribute of the detections, by id, where they have it."""
    columns = dataset.values([f"ground_truth.detections.{each}" for each in (tables.ID, name)])
    pairs = [pair for each in zip(*columns, strict=True) for pair in zip(*each, strict=True)]
    return {key: value for key, value in pairs if value not in (None, [])}


def state_of(dataset: Any) -> dict[str, Any]:
    """All that a push could have changed."""
    dataset.reload()
    documents = [{**each, "last_modified_at": None} for each in dataset._sample_collection.find()]
    for each in documents:
        for name in [name for name, value in each.items() if value is None]:
            del each[name]
    return {
        "documents": documents,
        "schema": sorted(dataset.get_field_schema(flat=True)),
        "views": dataset.list_saved_views(),
        "info": dict(dataset.info),
        "colours": dataset.app_config.color_scheme,
    }


def test_scores_chances_and_suggestions_are_attributes_of_the_objects(dataset: Any, report: Report) -> None:
    review.push(report, dataset=dataset)
    assert of_objects(dataset, "BOX002_score") == {"a.png:1": 0.9, "a.png:2": 0.2, "b.png:1": 0.1}
    assert of_objects(dataset, "BOX002_probability") == {"a.png:2": 0.875, "b.png:1": 0.875}
    assert of_objects(dataset, "BOX002_suggested") == {"a.png:2": "cat", "b.png:1": "dog"}
    assert of_objects(dataset, "BOX002_group") == {"a.png:2": "g"}
    assert of_objects(dataset, "label") == {key: name for key, (name, _) in OBJECTS.items()}


def test_flagged_objects_have_the_code_as_a_tag_besides_those_of_people(dataset: Any, report: Report) -> None:
    review.push(report, dataset=dataset)
    assert of_objects(dataset, "tags") == {
        "a.png:1": ["mine", "BOX005"],
        "a.png:2": ["BOX002"],
        "b.png:1": ["mine", "BOX002"],
    }


def test_an_image_has_the_lowest_score_of_its_objects_and_the_tag(dataset: Any, report: Report) -> None:
    review.push(report, dataset=dataset)
    assert dataset.values("BOX002_score") == [0.2, 0.1, None]
    assert dataset.values("BOX003_score") == [None, None, 0.3]
    assert dataset.match_tags("BOX002").values("dataaudit_id") == ["a.png", "b.png"]
    view = dataset.load_saved_view("BOX002 wrong_class")
    assert view.values("dataaudit_id") == ["b.png", "a.png"]
    assert "BOX002_suggested" not in dataset.get_field_schema()


def test_proposed_boxes_stand_in_a_field_of_their_own(dataset: Any, report: Report) -> None:
    review.push(report, dataset=dataset)
    first, second, third = dataset.values("dataaudit_proposed.detections")
    assert not second
    [loose], [missing] = first, third
    assert (loose.label, loose.tags, loose.message) == ("cat", ["BOX005"], "Loose.")
    assert (missing.label, missing.tags, missing.confidence) == ("dog", ["BOX003"], 0.875)
    assert missing.bounding_box == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert missing.finding == next(item.key for item in report.items if item.code == "BOX003")
    assert dataset.load_saved_view("Proposed boxes").values("dataaudit_id") == ["a.png", "c.png"]


def test_a_view_of_patches_shows_each_object_worst_first(dataset: Any, report: Report) -> None:
    review.push(report, dataset=dataset)
    patches = dataset.load_saved_view("BOX002 wrong_class patches")
    assert patches.values("ground_truth.dataaudit_id") == ["b.png:1", "a.png:2"]
    name = next(name for name in dataset.list_saved_views() if name.startswith("BOX003") and "patch" in name)
    assert dataset.load_saved_view(name).values("dataaudit_proposed.label") == ["dog"]


def test_a_proposed_box_has_another_colour_unless_people_chose_the_colours(
    dataset: Any, report: Report
) -> None:
    review.push(report, dataset=dataset)
    given, proposed = dataset.app_config.color_scheme.fields
    assert (given["path"], proposed["path"]) == ("ground_truth", "dataaudit_proposed")
    assert given["fieldColor"] != proposed["fieldColor"]
    theirs = fiftyone().ColorScheme(color_by="value")
    dataset.app_config.color_scheme = theirs
    dataset.save()
    review.push(report, dataset=dataset)
    review.clean(dataset)
    assert dataset.app_config.color_scheme.color_by == "value"


def test_pushing_twice_changes_nothing(dataset: Any, report: Report) -> None:
    review.push(report, dataset=dataset)
    once = state_of(dataset)
    review.push(report, dataset=dataset)
    assert state_of(dataset) == once


def test_a_later_report_takes_the_place_of_an_earlier_one(dataset: Any, report: Report) -> None:
    review.push(report, dataset=dataset)
    sample = dataset.last()
    sample.dataaudit_proposed.detections[0].tags.append("yes")
    sample.save()
    rest = tuple(item for item in report.items if item.code != "BOX002")
    outcomes = {code: each for code, each in report.outcomes.items() if code != "BOX002"}
    review.push(replace(report, items=rest, outcomes=outcomes), dataset=dataset)
    assert of_objects(dataset, "tags") == {"a.png:1": ["mine", "BOX005"], "b.png:1": ["mine"]}
    assert not [name for name in dataset.get_field_schema(flat=True) if "BOX002" in name]
    assert not [name for name in dataset.list_saved_views() if "BOX002" in name]
    assert dataset.last().dataaudit_proposed.detections[0].tags == ["BOX003", "yes"]


def test_cleaning_leaves_everything_as_it_was_before_the_first_push(dataset: Any, report: Report) -> None:
    before = state_of(dataset)
    review.push(report, dataset=dataset)
    assert state_of(dataset) != before
    review.clean(dataset)
    assert state_of(dataset) == before


def test_what_people_did_after_the_push_survives_the_cleaning(dataset: Any, report: Report) -> None:
    review.push(report, dataset=dataset)
    sample = dataset.first()
    sample.ground_truth.detections[1].tags.append("later")
    sample.ground_truth.detections.reverse()
    sample.save()
    review.clean(dataset)
    assert of_objects(dataset, "tags") == {"a.png:1": ["mine"], "a.png:2": ["later"], "b.png:1": ["mine"]}
    assert of_objects(dataset, "note") == {"a.png:1": "one", "b.png:2": "two"}


def test_an_audit_after_a_push_leaves_the_marks_to_the_next_push(
    made: Tables, dataset: Any, report: Report
) -> None:
    review.push(report, dataset=dataset)
    before = state_of(dataset)
    tables.write(made)
    assert state_of(dataset) == before


def test_objects_of_fiftyone_alone_are_marked_and_cleaned(tmp_path: Path, made: Tables) -> None:
    fo = fiftyone()
    theirs = fo.Dataset()
    samples = [fo.Sample(filepath=path, boxes=fo.Detections()) for path in made.images["filepath"]]
    for label_id, (name, (x1, y1, x2, y2)) in OBJECTS.items():
        number = ["a.png", "b.png"].index(label_id.split(":")[0])
        box = [x1 / 100, y1 / 50, (x2 - x1) / 100, (y2 - y1) / 50]
        samples[number].boxes.detections.append(fo.Detection(label=name, bounding_box=box))
    theirs.add_samples(samples, progress=False)
    before = state_of(theirs)
    report = report_of(formats.read(theirs.name))
    assert review.push(report).name == theirs.name
    theirs.reload()
    assert theirs.values("boxes.detections.BOX002_suggested") == [[None, "cat"], ["dog", None], []]
    assert [len(each or []) for each in theirs.values("dataaudit_proposed.detections")] == [1, 0, 1]
    assert formats.read(theirs.name).labels.index.equals(report.tables.labels.index)
    review.clean(theirs)
    assert state_of(theirs) == before
    theirs.delete()
