from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hand_made_boxes import Object, crowd, flagged, objects_of, scaled, tables_of

from dataaudit.checks.box_shapes import odd_box_size
from dataaudit.checks.box_sizes import Sizes, shapes
from dataaudit.errors import Unavailable
from dataaudit.types import Tables


def with_odd(box: tuple[float, float, float, float], n: int = 60) -> Tables:
    images = crowd(n)
    images["odd.jpg"] = [("person", box)]
    return tables_of(images)


def test_sizes_and_shapes_are_shares_of_the_image() -> None:
    found = shapes(np.array([[10.0, 20.0, 60.0, 45.0]]), np.array([[100.0, 100.0]]))
    np.testing.assert_allclose(np.exp(found), [[np.sqrt(0.5 * 0.25), 2.0]])


@pytest.mark.parametrize("seed", range(3))
def test_a_dataset_with_objects_of_all_sizes_is_silent(seed: int) -> None:
    assert flagged(odd_box_size(objects_of(tables_of(crowd(100, seed))))) == []


@pytest.mark.parametrize(
    "box",
    [
        (10, 40, 90, 45),  # sixteen times as wide as high, where people are twice as high as wide
        (40, 40, 40.5, 41),  # tiny
        (50, 5, 52, 95),  # a line
    ],
)
def test_a_box_far_from_its_class_is_flagged(box: tuple[float, float, float, float]) -> None:
    outcome = odd_box_size(objects_of(with_odd(box)))
    assert flagged(outcome) == ["odd.jpg:1"]
    assert outcome.score.idxmin() == "odd.jpg:1"
    assert outcome.evidence is not None
    assert "times as wide as high; nine in ten 'person' have" in outcome.evidence["message"].iloc[0]


@pytest.mark.parametrize("box", [(10, 90, 40, 100), (0, 20, 2, 50)])
def test_a_box_that_the_border_cuts_may_be_of_any_larger_object(box: tuple[float, ...]) -> None:
    x1, y1, x2, y2 = box
    assert flagged(odd_box_size(objects_of(with_odd((x1, y1, x2, y2))))) == []
    inside = with_odd((x1 + 20, y1 - 50 if y2 == 100 else y1, x2 + 20, y2 - 50 if y2 == 100 else y2))
    score = odd_box_size(objects_of(inside)).score
    assert score["odd.jpg:1"] < 0.5


def test_a_class_with_one_object_is_not_odd_by_itself() -> None:
    images = crowd(60)
    images["dog.jpg"] = [("dog", (20, 40, 60, 65))]
    assert flagged(odd_box_size(objects_of(tables_of(images)))) == []


@pytest.mark.parametrize("flag", ["crowd", "ignore"])
def test_crowds_and_ignored_regions_have_no_size(flag: str) -> None:
    tables = with_odd((10, 40, 90, 45))
    tables.labels.loc["odd.jpg:1", flag] = True
    outcome = odd_box_size(objects_of(tables))
    assert "odd.jpg:1" not in outcome.score.index


def test_scores_do_not_change_with_units_and_size() -> None:
    tables = with_odd((10, 40, 90, 45))
    expected = odd_box_size(objects_of(tables)).score
    for other in (scaled(tables, 2), scaled(tables, relative=True)):
        pd.testing.assert_series_equal(odd_box_size(objects_of(other)).score, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("images", [{}, {"a.jpg": [("a", (0.0, 0.0, 9.0, 9.0))]}])
def test_a_few_boxes_say_nothing_about_sizes(images: dict[str, list[Object]]) -> None:
    with pytest.raises(Unavailable, match="it needs 30"):
        odd_box_size(objects_of(tables_of(images)))


def test_equal_boxes_have_no_spread_and_no_finding() -> None:
    images: dict[str, list[Object]] = {f"{n}.jpg": [("a", (10, 10, 50, 50))] for n in range(50)}
    assert flagged(odd_box_size(objects_of(tables_of(images)))) == []


def test_a_part_of_a_large_class_gives_the_same_sizes() -> None:
    values = np.random.default_rng(0).normal([-2, 0], [0.5, 0.2], (40_000, 2))
    names = np.zeros(len(values), dtype=np.int64)
    sizes = Sizes.fit(values, names, 1)
    np.testing.assert_allclose(sizes.mean[0], [-2, 0], atol=0.03)
    assert sizes.distances(values, names).mean() == pytest.approx(
        2.6, rel=0.15
    )  # spreads of the t distribution
