from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hand_made_boxes import Object, fixes, flagged, objects_of, scaled, tables_of
from PIL import Image

from dataaudit.checks.box_copies import annotated_differently
from dataaudit.checks.duplicates import exact_duplicate
from dataaudit.checks.labels import label_groups_disagree
from dataaudit.errors import Unavailable
from dataaudit.types import CORNERS, Box, Outcome, Tables

BOX: Box = (20.0, 20.0, 60.0, 60.0)
OTHER: Box = (20.0, 20.0, 60.0, 80.0)
NONE = pd.Series([], dtype=object)


def copies(*objects: Sequence[Object]) -> Tables:
    """Copies a.jpg, b.jpg, ... of one file, and a picture of which there is one."""
    images: Mapping[str, Sequence[Object]] = {
        f"{name}.jpg": found for name, found in zip("abcdef", objects, strict=False)
    }
    same = dict.fromkeys(images, "same")
    return tables_of({**images, "other.jpg": [("cat", BOX)]}, digests={**same, "other.jpg": "other"})


def run(tables: Tables, **signals: object) -> Outcome:
    objects = objects_of(tables)
    return annotated_differently(objects, tables.images, tables.labels, tables.units, **signals)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "objects",
    [
        ([("cat", BOX)], [("cat", BOX)]),
        ([("cat", BOX), ("dog", OTHER)], [("dog", OTHER), ("cat", BOX)]),
        ([("cat", BOX)], [("cat", (20.5, 19.6, 60.4, 60.3))]),  # rounding
        ([], []),
    ],
)
def test_copies_with_the_same_boxes_are_silent(objects: tuple[list[Object], list[Object]]) -> None:
    outcome = run(copies(*objects))
    assert flagged(outcome) == []
    assert (outcome.score == 1).all()


@pytest.mark.parametrize(
    ("objects", "ids", "score", "words"),
    [
        (([("cat", BOX)], [("cat", OTHER)]), ["a.jpg:1", "b.jpg:1"], 1 / 3, "elsewhere (IoU 0.67)"),
        (([("cat", BOX)], [("dog", BOX)]), ["a.jpg:1", "b.jpg:1"], 0, "calls it 'dog' (IoU 1.00)"),
        (([("cat", BOX)], []), ["a.jpg:1"], 0, "b.jpg has the same bytes and has no 'cat' here"),
        (([("cat", BOX), ("cat", BOX)], [("cat", BOX)]), ["a.jpg:2"], 0, "has no 'cat' here"),
    ],
)
def test_copies_with_different_boxes_are_flagged(
    objects: tuple[list[Object], list[Object]], ids: list[str], score: float, words: str
) -> None:
    outcome = run(copies(*objects))
    assert flagged(outcome) == ids
    assert outcome.score[ids[0]] == pytest.approx(score)
    assert outcome.probability is not None
    assert outcome.probability[ids].eq(0.5).all()
    assert outcome.fixes == {}  # either may be right
    assert outcome.evidence is not None
    assert words in outcome.evidence.loc[ids[0], "message"]


def test_two_of_three_copies_outvote_the_third() -> None:
    agreed: list[Object] = [("cat", BOX), ("dog", (70, 70, 90, 90)), ("owl", (0, 0, 10, 10))]
    odd: list[Object] = [("cat", OTHER), ("wolf", (70, 70, 90, 90)), ("bat", (40, 0, 50, 10))]
    outcome = run(copies(agreed, agreed, odd))
    assert fixes(outcome) == {
        "c.jpg:1": ("move", BOX),
        "c.jpg:2": ("relabel",),
        "c.jpg:3": ("remove",),
        "c.jpg:+0,0,10,10": ("add", (0, 0, 10, 10)),
    }
    assert flagged(outcome) == ["c.jpg:1", "c.jpg:2", "c.jpg:3", "c.jpg:+0,0,10,10"]
    assert outcome.evidence is not None
    assert outcome.evidence.loc["c.jpg:+0,0,10,10", "sample_id"] == "c.jpg"
    assert outcome.probability is not None
    assert outcome.probability["c.jpg:1"] == pytest.approx(2 / 3)


def test_detections_say_which_of_two_copies_is_right() -> None:
    seen = [(f"{copy}.jpg", "cat", 0.9, *OTHER) for copy in "ab"]
    detections = pd.DataFrame(seen, columns=["sample_id", "name", "confidence", *CORNERS])
    outcome = run(copies([("cat", BOX)], [("cat", OTHER)]), detections=detections)
    assert flagged(outcome) == ["a.jpg:1", "b.jpg:1"]
    assert fixes(outcome) == {"a.jpg:1": ("move", OTHER)}


def test_a_crowd_in_a_copy_may_hold_the_object() -> None:
    tables = copies([("cat", BOX)], [("cat", (0, 0, 100, 100))])
    tables.labels.loc["b.jpg:1", "crowd"] = True
    assert flagged(run(tables)) == []


def test_scores_do_not_change_with_units_and_size() -> None:
    tables = copies([("cat", BOX), ("cat", (70, 70, 90, 90))], [("cat", OTHER)])
    expected = run(tables).score
    for other in (scaled(tables, 2), scaled(tables, relative=True)):
        pd.testing.assert_series_equal(run(other).score, expected, atol=1e-6, rtol=0)


def test_a_dataset_without_copies_is_skipped() -> None:
    with pytest.raises(Unavailable, match="more than once"):
        run(tables_of({"a.jpg": [("cat", BOX)], "b.jpg": []}))


# Copies of other bytes


def nearly_the_same(tmp_path: Path, first: Image.Image, second: Image.Image, moved: Box) -> Outcome:
    first.save(tmp_path / "a.jpg", quality=95)
    second.save(tmp_path / "b.jpg", quality=60)
    found: dict[str, list[Object]] = {"a.jpg": [("cat", (40, 40, 100, 100))], "b.jpg": [("cat", moved)]}
    tables = tables_of(found, size=(160, 160))
    images = tables.images.assign(filepath=[str(tmp_path / name) for name in found])
    grey = np.asarray(first.convert("L").resize((16, 16))).ravel()
    return run(
        replace(tables, images=images),
        near_duplicates=pd.Series([0, 0], index=list(found)),
        thumbnails=pd.DataFrame(np.array([grey, grey]), index=list(found)),
    )


def test_a_recompressed_copy_is_compared(tmp_path: Path, crops: list[Image.Image]) -> None:
    outcome = nearly_the_same(tmp_path, crops[0], crops[0], (70, 40, 130, 100))
    assert flagged(outcome) == ["a.jpg:1", "b.jpg:1"]
    assert outcome.score["a.jpg:1"] == pytest.approx(0.5 + 0.25 / 3)
    assert outcome.probability is not None
    assert outcome.probability[["a.jpg:1", "b.jpg:1"]].isna().all()


def test_slightly_other_boxes_of_a_recompressed_copy_are_silent(
    tmp_path: Path, crops: list[Image.Image]
) -> None:
    assert flagged(nearly_the_same(tmp_path, crops[0], crops[0], (43, 41, 102, 101))) == []


def test_what_moved_between_two_frames_is_silent(tmp_path: Path) -> None:
    ground = np.tile(np.linspace(0, 255, 160), (160, 1))
    frames = []
    for at in (60, 75):
        pixels = ground.copy()
        pixels[60:72, at : at + 12] = 0
        frames.append(Image.fromarray(pixels.astype(np.uint8)).convert("RGB"))
    outcome = nearly_the_same(tmp_path, *frames, (70, 40, 130, 100))
    assert flagged(outcome) == []


# Other checks of copies


@pytest.mark.parametrize(("other", "merged"), [(BOX, ["b.jpg"]), (OTHER, [])])
def test_copies_are_merged_only_if_their_boxes_are_the_same(other: Box, merged: list[str]) -> None:
    tables = copies([("cat", BOX), ("dog", BOX)], [("dog", BOX), ("cat", other)])
    outcome = exact_duplicate(tables.images, tables.labels, NONE)
    assert flagged(outcome) == ["b.jpg"]
    assert sorted(outcome.fixes) == merged


def test_copies_without_objects_are_merged() -> None:
    tables = copies([], [])
    assert sorted(exact_duplicate(tables.images, tables.labels, NONE).fixes) == ["b.jpg"]


def test_objects_are_not_compared_as_classes_of_images() -> None:
    tables = copies([("cat", BOX)], [("dog", BOX)])
    with pytest.raises(Unavailable, match="BOX013"):
        label_groups_disagree(pd.Series([0, 0, 1], index=tables.images.index), tables.labels, tables.images)
