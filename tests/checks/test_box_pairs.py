from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hand_made_boxes import Object, crowd, fixes, flagged, objects_of, scaled, tables_of

from dataaudit.checks import box_neighbors
from dataaudit.checks.box_neighbors import Boxes
from dataaudit.checks.box_pairs import duplicate_box, duplicate_box_of_another_class, split_object
from dataaudit.checks.rarity import PowerTail, error_chances
from dataaudit.types import CORNERS, Box, Outcome, Tables

NAN = float("nan")
LEFT, RIGHT, WHOLE = (10.0, 10.0, 30.0, 50.0), (30.0, 10.0, 50.0, 50.0), (10.0, 10.0, 50.0, 50.0)


def run(check: object, tables: Tables) -> Outcome:
    assert callable(check)
    outcome = check(objects_of(tables), tables.labels, tables.images, tables.units)
    assert isinstance(outcome, Outcome)
    return outcome


def image(*boxes: Box, names: str = "aaaaaa") -> dict[str, list[Object]]:
    return {"a.jpg": list(zip(names, boxes, strict=False))}


# BOX008


@pytest.mark.parametrize(
    "images",
    [
        {},
        image(WHOLE),
        image(WHOLE, (12, 11, 51, 49), names="ab"),  # BOX009's
        image((10, 10, 30, 60), (12, 10, 40, 60)),  # one behind the other
        image(WHOLE, (15, 15, 45, 45)),  # one in the other
        image(WHOLE, (NAN, 10, 50, 50)),
        image((10, 10, 10, 50), (10, 10, 10, 50)),  # BOX007's
        {"a.jpg": [("a", WHOLE)], "b.jpg": [("a", WHOLE)]},
    ],
)
def test_single_boxes_are_silent(images: dict[str, list[Object]]) -> None:
    assert flagged(run(duplicate_box, tables_of(images))) == []


@pytest.mark.parametrize(
    ("images", "ids"),
    [
        (image(WHOLE, WHOLE), ["a.jpg:2"]),
        (image(WHOLE, (11, 11, 51, 49)), ["a.jpg:2"]),
        (image(WHOLE, WHOLE, (11, 11, 51, 49), WHOLE), ["a.jpg:2", "a.jpg:3", "a.jpg:4"]),
        (image((60, 60, 90, 90), WHOLE, (60, 60, 90, 91)), ["a.jpg:3"]),
    ],
)
def test_a_second_box_of_the_same_class_goes(images: dict[str, list[Object]], ids: list[str]) -> None:
    outcome = run(duplicate_box, tables_of(images))
    assert flagged(outcome) == ids
    assert fixes(outcome) == dict.fromkeys(ids, ("remove",))
    assert outcome.score.drop(ids).eq(1).all()


def test_of_a_chain_of_boxes_only_those_near_a_kept_one_go() -> None:
    chain = image(*((10 + 3 * step, 10, 50 + 3 * step, 50) for step in range(3)))
    assert flagged(run(duplicate_box, tables_of(chain))) == ["a.jpg:2"]


@pytest.mark.parametrize("flag", ["crowd", "ignore"])
def test_crowds_and_ignored_regions_may_overlap_anything(flag: str) -> None:
    assert flagged(run(duplicate_box, tables_of(image(WHOLE, WHOLE), **{flag: True}))) == []


def with_copies(
    n_images: int, share: float, jitter: float, *, other_class: bool = False
) -> tuple[Tables, list[str]]:
    images = crowd(n_images, names=("person", "horse"))
    draw = np.random.default_rng(1)
    planted = []
    for sample_id, found in images.items():
        for name, box in found[:5]:
            if draw.random() < share:
                sides = np.array([box[2] - box[0], box[3] - box[1]] * 2)
                moved = np.array(box) + draw.normal(0, jitter, 4) * sides
                new = {"person": "horse", "horse": "person"}[name] if other_class else name
                found.append((new, (float(moved[0]), float(moved[1]), float(moved[2]), float(moved[3]))))
                planted.append(f"{sample_id}:{len(found)}")
    return tables_of(images), planted


@pytest.mark.parametrize(("jitter", "least"), [(0.0, 1.0), (0.03, 0.9)])
def test_planted_copies_are_found_in_a_crowd(jitter: float, least: float) -> None:
    tables, planted = with_copies(200, 0.05, jitter)
    found = flagged(run(duplicate_box, tables))
    assert len(set(found) & set(planted)) >= least * len(planted)
    assert len(set(found) - set(planted)) <= 0.1 * len(planted)


def test_a_crowd_without_copies_is_silent() -> None:
    assert flagged(run(duplicate_box, tables_of(crowd(200)))) == []


def test_expected_numbers_are_about_right() -> None:
    tables, planted = with_copies(200, 0.05, 0.03)
    outcome = run(duplicate_box, tables)
    assert outcome.probability is not None
    assert outcome.probability.sum() == pytest.approx(len(planted), rel=0.15)


@pytest.mark.parametrize("check", [duplicate_box, duplicate_box_of_another_class, split_object])
def test_scores_do_not_change_with_units_and_size(check: object) -> None:
    tables, _ = with_copies(40, 0.1, 0.03)
    expected = run(check, tables)
    for other in (scaled(tables, 2), scaled(tables, relative=True)):
        pd.testing.assert_series_equal(run(check, other).score, expected.score, atol=1e-6, rtol=0)


def test_the_order_of_the_labels_does_not_matter() -> None:
    tables, _ = with_copies(40, 0.1, 0.03, other_class=True)
    mixed = replace(tables, labels=tables.labels.sort_values("x1", kind="stable"))
    one, other = (run(duplicate_box_of_another_class, each) for each in (tables, mixed))
    assert len(flagged(one)) > 5
    pd.testing.assert_series_equal(other.score.reindex(one.score.index), one.score)


def test_the_box_where_the_object_is_found_stays() -> None:
    tables = tables_of(image((12, 12, 53, 53), WHOLE))
    found = pd.DataFrame([WHOLE, WHOLE], index=tables.labels.index, columns=list(CORNERS))
    objects = objects_of(tables)
    assert flagged(duplicate_box(objects, tables.labels, tables.images, tables.units, found)) == ["a.jpg:1"]
    found.loc["a.jpg:1"] = NAN
    found.loc["a.jpg:2"] = NAN
    assert flagged(duplicate_box(objects, tables.labels, tables.images, tables.units, found)) == ["a.jpg:2"]


# BOX009


def test_one_object_of_two_classes_has_one_too_many() -> None:
    images = {**image(WHOLE, (11, 11, 51, 49), names="ab"), "b.jpg": [("a", WHOLE), ("a", (60, 60, 90, 90))]}
    outcome = run(duplicate_box_of_another_class, tables_of(images))
    assert flagged(outcome) == ["a.jpg:2"]  # 'a' has more objects
    assert fixes(outcome) == {"a.jpg:2": ("remove",)}
    assert outcome.score["a.jpg:2"] < outcome.score["a.jpg:1"] < 1


def test_the_pixels_say_which_class_is_wrong() -> None:
    tables = tables_of(
        {**image(WHOLE, (11, 11, 51, 49), names="ab"), "b.jpg": [("a", WHOLE), ("a", (60, 60, 90, 90))]}
    )
    probs = pd.DataFrame({"a": 0.1, "b": 0.9}, index=tables.labels.index)
    outcome = duplicate_box_of_another_class(
        objects_of(tables), tables.labels, tables.images, tables.units, probs
    )
    assert flagged(outcome) == ["a.jpg:1"]
    assert fixes(outcome) == {"a.jpg:1": ("remove",)}


def test_a_rider_and_his_horse_are_two() -> None:
    images = {f"{n}.jpg": image((20, 10, 60, 70), (10, 30, 80, 95), names="ab")["a.jpg"] for n in range(20)}
    assert flagged(run(duplicate_box_of_another_class, tables_of(images))) == []


def test_classes_that_go_together_are_meant() -> None:
    draw = np.random.default_rng(0)
    images: dict[str, list[Object]] = {}
    for number in range(60):
        x, y = draw.uniform(0, 50, 2).tolist()
        images[f"{number}.jpg"] = [(name, (x, y, x + 40, y + 40)) for name in ("car", "taxi")]
    assert flagged(run(duplicate_box_of_another_class, tables_of(images))) == []


# BOX010


def people(n: int) -> dict[str, list[Object]]:
    draw = np.random.default_rng(2)
    images: dict[str, list[Object]] = {}
    for number in range(n):
        w, h = (10 * np.exp(draw.normal(0, 0.1, 2)) * [1.0, 2.5]).tolist()
        images[f"{number}.jpg"] = [("person", (20.0, 20.0, 20.0 + w, 20.0 + h))]
    return images


def test_two_halves_become_the_whole() -> None:
    images = people(60)
    images["a.jpg"] = [("person", (20, 20, 30, 34)), ("person", (20, 34, 30, 45))]
    outcome = run(split_object, tables_of(images))
    assert flagged(outcome) == ["a.jpg:1", "a.jpg:2"]
    assert fixes(outcome) == {"a.jpg:1": ("move", (20, 20, 30, 45)), "a.jpg:2": ("remove",)}
    assert outcome.evidence is not None
    assert outcome.evidence["group"].nunique() == 1


def test_people_side_by_side_are_not_pieces() -> None:
    images = people(60)
    images["a.jpg"] = [("person", (20, 20, 30, 45)), ("person", (30, 20, 40, 45))]
    assert flagged(run(split_object, tables_of(images))) == []


def test_detections_tell_pieces_from_small_objects() -> None:
    images = people(60)
    pieces: list[Box] = [(20, 20, 30, 34), (20, 37, 30, 48)]
    images["a.jpg"] = [("person", box) for box in pieces]
    tables = tables_of(images)
    columns = ["sample_id", "name", "confidence", *CORNERS]
    scores = []
    for seen in ([(20, 20, 30, 48)], [], pieces):
        detections = pd.DataFrame([("a.jpg", "person", 0.9, *box) for box in seen], columns=columns)
        outcome = split_object(objects_of(tables), tables.labels, tables.images, tables.units, detections)
        scores.append(outcome.score["a.jpg:1"])
    assert scores == sorted(scores)
    assert scores[0] < scores[1] / 3 < scores[2] / 6


def test_pieces_that_are_no_boxes_are_not_redrawn() -> None:
    images = people(60)
    images["a.jpg"] = [("person", (20, 20, 30, 34)), ("person", (20, 34, 30, 45))]
    tables = tables_of(images)
    drawn = replace(tables, labels=tables.labels.assign(geometry="polygon"))
    assert fixes(run(split_object, drawn)) == {"a.jpg:2": ("remove",)}


# What they share


def test_pairs_are_the_same_in_small_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    objects = objects_of(tables_of(crowd(30)))
    whole = Boxes.of(objects).pairs(same_class=True)
    monkeypatch.setattr(box_neighbors, "_PAIRS_AT_A_TIME", 7)
    parts = Boxes.of(objects).pairs(same_class=True)
    assert len(whole.a) > 10
    for name in ("a", "b", "apart"):
        np.testing.assert_array_equal(getattr(parts, name), getattr(whole, name))


def test_the_tail_has_the_power_that_it_was_drawn_with() -> None:
    drawn = np.random.default_rng(0).random(20_000) ** (1 / 4)
    tail = PowerTail.fit(drawn, bulk=(0.3, 1.0), usual_power=2.0)
    assert tail.power == pytest.approx(4, rel=0.05)
    assert tail.n == pytest.approx(20_000, rel=0.05)


def test_without_distances_the_usual_power_counts() -> None:
    tail = PowerTail.fit(np.zeros(0), bulk=(0.25, 0.8), usual_power=3.0)
    assert tail.power == pytest.approx(3)


def test_the_number_of_errors_is_estimated() -> None:
    usual, wrong = np.full(1000, 10.0), np.full(1000, 1e-6)
    wrong[:50] = 100.0
    chance = error_chances(usual, wrong, n=1000, prior=1e-3)
    assert chance[:50].min() > 0.99
    assert chance[50:].max() < 0.01
    assert len(error_chances(np.zeros(0), np.zeros(0), n=0, prior=0.1)) == 0
