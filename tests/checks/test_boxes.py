from __future__ import annotations

import pandas as pd
import pytest
from hand_made_boxes import Object, fixes, flagged, objects_of, scaled, tables_of

from dataaudit.checks.boxes import (
    annotation_problem,
    box_outside_image,
    declared_size_differs,
    degenerate_box,
)
from dataaudit.errors import Unavailable
from dataaudit.types import Locator, Outcome, Problem, Tables

NAN = float("nan")
PLACE = Locator(file="a.xml", item=3)


def outside(tables: Tables) -> Outcome:
    return box_outside_image(objects_of(tables), tables.labels, tables.images, tables.units)


def degenerate(tables: Tables) -> Outcome:
    problems = tables.problems
    return degenerate_box(objects_of(tables), tables.labels, tables.images, tables.units, problems)


def one(box: tuple[float, float, float, float]) -> dict[str, list[Object]]:
    return {"a.jpg": [("cat", box)]}


# BOX001


def problems_of(*problems: Problem) -> Outcome:
    tables = tables_of({"a.jpg": [("cat", (0, 0, 9, 9)), ("cat", (NAN, 0, 9, 9))]}, problems=problems)
    return annotation_problem(tables.problems, tables.labels, tables.images, tables.task)


def test_every_error_in_the_files_is_a_finding() -> None:
    lost = Problem(kind="unreadable", message="Lost.", locator=PLACE)
    outcome = problems_of(lost, lost, Problem(kind="twice", message="T.", locator=PLACE, label_id="a.jpg:1"))
    assert flagged(outcome) == ["a.xml:3:unreadable", "a.xml:3:unreadable#2", "a.jpg:1"]
    assert outcome.score.tolist() == [0, 0, 0]
    assert outcome.probability is not None
    assert outcome.probability.tolist() == [1, 1, 1]


def test_a_kind_of_notes_is_one_finding() -> None:
    notes = [
        Problem(kind="no labels", message="Empty.", locator=PLACE, severity="note", sample_id=sample_id)
        for sample_id in ("a.jpg", "b.jpg", "c.jpg")
    ]
    outcome = problems_of(*notes)
    assert flagged(outcome) == ["a.xml:3:no labels"]
    assert outcome.evidence is not None
    assert outcome.evidence["message"].iloc[0] == "Empty. There are 2 more like it (no labels)."
    assert outcome.evidence["sample_id"].tolist() == ["a.jpg", None, None]  # the others aren't in the dataset


def test_files_without_problems_have_none() -> None:
    outcome = problems_of()
    assert len(outcome.score) == 0


def test_a_box_that_cannot_be_read_is_reported_once() -> None:
    problem = Problem(kind="number", message="x1 is 'abc'.", locator=PLACE, label_id="a.jpg:2")
    assert flagged(problems_of(problem)) == []
    tables = tables_of({"a.jpg": [("cat", (0, 0, 9, 9)), ("cat", (NAN, 0, 9, 9))]}, problems=[problem])
    outcome = degenerate(tables)
    assert outcome.evidence is not None
    assert outcome.evidence.loc["a.jpg:2", "message"] == "x1 is 'abc'."
    assert fixes(outcome) == {"a.jpg:2": ("remove",)}


def test_datasets_without_boxes_have_no_problems_of_boxes() -> None:
    tables = tables_of({})
    with pytest.raises(Unavailable):
        annotation_problem((), tables.labels, tables.images, "classification")


# BOX006


@pytest.mark.parametrize(
    "box",
    [
        (0, 0, 100, 100),
        (-1, -1, 101, 101),  # rounding, and formats that count from 1
        (NAN, 0, 120, 10),  # BOX007's
        (120, 0, 50, 10),  # BOX007's
    ],
)
def test_boxes_inside_the_image_are_silent(box: tuple[float, float, float, float]) -> None:
    assert flagged(outside(tables_of(one(box)))) == []


@pytest.mark.parametrize(
    ("box", "score", "fix"),
    [
        ((-10, 0, 30, 10), 0.75, ("move", (0, 0, 30, 10))),
        ((50, 50, 150, 150), 0.25, ("move", (50, 50, 100, 100))),
        ((110, 0, 150, 10), 0.0, ("remove",)),
    ],
)
def test_boxes_outside_the_image_are_cut_off_or_removed(
    box: tuple[float, float, float, float], score: float, fix: tuple[object, ...]
) -> None:
    outcome = outside(tables_of(one(box)))
    assert flagged(outcome) == ["a.jpg:1"]
    assert outcome.score["a.jpg:1"] == pytest.approx(score)
    assert fixes(outcome) == {"a.jpg:1": fix}


def test_a_truncated_object_may_reach_out_of_the_image() -> None:
    assert flagged(outside(tables_of(one((-10, 0, 30, 10)), truncated=True))) == []
    assert flagged(outside(tables_of(one((-90, 0, 10, 10)), truncated=True))) == ["a.jpg:1"]


def test_datasets_that_draw_hidden_parts_are_silent() -> None:
    images: dict[str, list[Object]] = {f"{n}.jpg": [("cat", (-10 - n % 5, 0, 30, 50))] for n in range(40)}
    images["odd.jpg"] = [("cat", (-95, 0, 5, 10))]
    assert flagged(outside(tables_of(images))) == ["odd.jpg:1"]
    beside = images | {"x.jpg": [("cat", (200, 0, 230, 50))]}  # as a wrong unit or size would have it
    assert len(flagged(outside(tables_of(beside)))) == 42


def test_visible_shares_do_not_change_with_units_and_size() -> None:
    tables = tables_of(one((-10, 0, 30, 10)))
    for other in (scaled(tables, 2), scaled(tables, relative=True)):
        pd.testing.assert_series_equal(outside(other).score, outside(tables).score, rtol=1e-6)


def test_fixes_are_in_the_units_of_the_dataset() -> None:
    tables = scaled(tables_of(one((-10, 0, 30, 10))), relative=True)
    assert fixes(outside(tables)) == {"a.jpg:1": ("move", (0, 0, 0.3, 0.1))}


# BOX007


@pytest.mark.parametrize(
    ("box", "score", "fix", "words"),
    [
        ((30, 0, 10, 20), 0.1, ("move", (10, 0, 30, 20)), "x1 (30) is greater than x2 (10)"),
        ((300, 0, 200, 20), 0.1, ("remove",), "inverted"),  # exchanged it would be outside
        ((10, 5, 10, 20), 0.0, ("remove",), "no area: it is 0 wide and 15 high"),
        ((10, 5, 10.5, 20), 0.2, ("remove",), "0.5 x 15 pixels"),
        ((NAN, 5, 10.5, 20), 0.0, ("remove",), "aren't finite numbers"),
        ((0, 5, float("inf"), 20), 0.0, ("remove",), "aren't finite numbers"),
    ],
)
def test_degenerate_boxes_are_turned_or_removed(
    box: tuple[float, float, float, float], score: float, fix: tuple[object, ...], words: str
) -> None:
    outcome = degenerate(tables_of(one(box)))
    assert flagged(outcome) == ["a.jpg:1"]
    assert outcome.score["a.jpg:1"] == score
    assert fixes(outcome) == {"a.jpg:1": fix}
    assert outcome.evidence is not None
    assert words in outcome.evidence["message"].iloc[0]


def test_small_boxes_are_sound() -> None:
    assert flagged(degenerate(tables_of(one((10, 10, 12, 12))))) == []
    assert flagged(degenerate(tables_of({}))) == []


# BOX015


def sizes(declared: tuple[int, int], box: tuple[float, float, float, float], orientation: int = 1) -> Outcome:
    tables = tables_of(one(box), size=(200, 100), declared=declared)
    seen = pd.DataFrame({"orientation": orientation}, index=tables.images.index)
    return declared_size_differs(tables.images, tables.labels, seen, tables.task, tables.units)


@pytest.mark.parametrize(
    ("declared", "orientation", "score", "words"),
    [
        ((100, 200), 1, 0.25, "width and height are exchanged. Its boxes lie inside"),
        ((100, 200), 6, 0.25, "exchanged, as the image is without its EXIF orientation"),
        ((400, 200), 1, 0.25, "scaled by 2"),
        ((50, 100), 1, 0.25, "turned and scaled by 0.5"),
        ((200, 80), 1, 0.8, "another shape"),
    ],
)
def test_a_declared_size_that_differs_is_told(
    declared: tuple[int, int], orientation: int, score: float, words: str
) -> None:
    outcome = sizes(declared, (0, 0, 10, 10), orientation)
    assert flagged(outcome) == ["a.jpg"]
    assert outcome.score["a.jpg"] == pytest.approx(score)
    assert outcome.evidence is not None
    assert words in outcome.evidence.loc["a.jpg", "message"]


def test_boxes_that_fit_the_declared_size_alone_are_told() -> None:
    outcome = sizes((400, 200), (300, 10, 390, 190))
    assert outcome.evidence is not None
    assert "reach outside the image as it is" in outcome.evidence.loc["a.jpg", "message"]


def test_the_right_size_is_silent() -> None:
    assert flagged(sizes((200, 100), (0, 0, 10, 10))) == []
