from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score

from dataaudit.errors import Unavailable
from dataaudit.metrics import box_iou
from dataaudit.signals.box_errors import BoxErrors, _Judge, box_errors
from dataaudit.signals.box_evidence import Boxes, claims, evidence, numbered
from dataaudit.signals.objects import image_sizes, objects
from dataaudit.types import Tables
from tests.detections import XY, scenes, seen, with_labels


def judged(tables: Tables, detections: pd.DataFrame) -> BoxErrors:
    found = objects(tables.images, tables.labels, tables.task, tables.units)
    return box_errors(found, detections, tables.images, tables.classes)


@pytest.fixture(scope="module")
def sound() -> Tables:
    return scenes()


@pytest.fixture(scope="module")
def detections(sound: Tables) -> pd.DataFrame:
    return seen(sound)


def every_tenth(tables: Tables) -> pd.Index:
    return tables.labels.index[::10]


def test_labels_of_another_class_are_told_from_sound_ones(sound: Tables, detections: pd.DataFrame) -> None:
    labels, wrong = sound.labels.copy(), every_tenth(sound)
    truth = labels.loc[wrong, "name"]
    labels.loc[wrong, "name"] = truth.map({"cat": "dog", "dog": "fox", "fox": "cat"})
    found = judged(with_labels(sound, labels), detections).labels
    assert average_precision_score(found.index.isin(wrong), found["wrong class"]) > 0.85
    right = found.loc[wrong, "suggested"] == truth
    assert right.mean() > 0.85


def test_boxes_beside_their_object_are_told_from_sound_ones(sound: Tables, detections: pd.DataFrame) -> None:
    labels, wrong = sound.labels.copy(), every_tenth(sound)
    before = labels.loc[wrong, XY].to_numpy()
    labels.loc[wrong, ["x1", "x2"]] += 0.4 * (before[:, [2]] - before[:, [0]])
    found = judged(with_labels(sound, labels), detections).labels
    assert average_precision_score(found.index.isin(wrong), found["bad location"]) > 0.85
    likely = found.loc[wrong].nlargest(25, "bad location")
    truth = sound.labels.loc[likely.index, XY].to_numpy()
    assert np.median(box_iou(likely[XY].to_numpy(), truth)) > 0.8


def test_boxes_without_an_object_are_told_from_sound_ones(sound: Tables, detections: pd.DataFrame) -> None:
    gone = detections.merge(sound.labels.loc[every_tenth(sound)].reset_index(), on="sample_id")
    over = box_iou(
        gone[[f"{name}_x" for name in XY]].to_numpy(), gone[[f"{name}_y" for name in XY]].to_numpy()
    )
    unseen = gone[over > 0.5][[f"{name}_x" for name in XY]].to_numpy()
    left = detections[~detections["x1"].isin(unseen[:, 0])]
    found = judged(sound, left).labels
    assert average_precision_score(found.index.isin(every_tenth(sound)), found["spurious"]) > 0.6


def test_an_object_without_a_label_is_missing_and_its_chance_is_calibrated(
    sound: Tables, detections: pd.DataFrame
) -> None:
    gone = sound.labels.loc[every_tenth(sound)]
    found = judged(with_labels(sound, sound.labels.drop(index=gone.index)), detections).missing
    hits = [
        any(
            box_iou(np.array(box, dtype=float), gone.loc[gone["sample_id"] == sample_id, XY].to_numpy()) > 0.5
        )
        for sample_id, box in zip(found["sample_id"], found[XY].to_numpy().tolist(), strict=True)
    ]
    assert average_precision_score(hits, found["probability"]) > 0.85
    assert 0.7 * sum(hits) < found["probability"].sum() < 1.4 * sum(hits)


def test_chances_of_a_sound_dataset_are_low(sound: Tables, detections: pd.DataFrame) -> None:
    found = judged(sound, detections)
    assert found.labels["sound"].mean() > 0.93
    assert found.missing["probability"].sum() < 0.05 * len(sound.labels)


def test_chances_sum_to_one(sound: Tables, detections: pd.DataFrame) -> None:
    kinds = ["sound", "wrong class", "spurious", "bad location", "merged"]
    assert judged(sound, detections).labels[kinds].sum(axis=1).to_numpy() == pytest.approx(1)


def test_the_size_of_the_images_and_the_units_change_nothing(sound: Tables, detections: pd.DataFrame) -> None:
    from dataclasses import replace

    expected = judged(sound, detections)
    double = replace(
        sound,
        labels=sound.labels.assign(**{name: 2 * sound.labels[name] for name in XY}),
        images=sound.images.assign(declared_width=1280, declared_height=960),
    )
    larger = judged(double, detections.assign(**{name: 2 * detections[name] for name in XY}))
    size = {"x1": 640, "x2": 640, "y1": 480, "y2": 480}
    shares = sound.labels.assign(**{name: sound.labels[name] / size[name] for name in XY})
    relative = judged(replace(sound, labels=shares, units="relative"), detections)
    for other in (larger, relative):
        kinds = ["sound", "wrong class", "spurious", "bad location"]
        assert np.abs(other.labels[kinds] - expected.labels[kinds]).to_numpy().max() < 1e-6
        assert np.abs(other.missing["probability"] - expected.missing["probability"]).max() < 1e-6


def test_the_order_of_rows_changes_nothing(sound: Tables, detections: pd.DataFrame) -> None:
    mixed = with_labels(sound, sound.labels.sample(frac=1, random_state=0))
    one, other = judged(sound, detections).labels, judged(mixed, detections).labels
    assert np.abs(one["wrong class"] - other["wrong class"].loc[one.index]).max() < 1e-9


def test_what_is_detected_in_a_crowd_or_an_ignored_region_is_not_missing(
    sound: Tables, detections: pd.DataFrame
) -> None:
    labels = sound.labels.copy()
    labels["ignore"] = labels["sample_id"] == "003.jpg"
    rows = labels.index[labels["ignore"]]
    labels.loc[rows, XY] = (0, 0, 640, 480)
    found = judged(with_labels(sound, labels), detections)
    assert "003.jpg" not in set(found.missing["sample_id"])
    assert not found.labels.index.isin(rows).any()


def test_a_box_that_cant_be_read_is_left_out(sound: Tables, detections: pd.DataFrame) -> None:
    labels = sound.labels.copy()
    labels.loc["000.jpg:0", "x1"] = np.nan
    assert "000.jpg:0" not in judged(with_labels(sound, labels), detections).labels.index


def test_it_takes_a_few_objects_and_a_detection(sound: Tables, detections: pd.DataFrame) -> None:
    with pytest.raises(Unavailable, match="19 objects with a valid box; from 20 on"):
        judged(with_labels(sound, sound.labels.iloc[:19]), detections)
    with pytest.raises(Unavailable, match="there are no detections"):
        judged(sound, detections.iloc[:0])


def one_image(labels: list[list[float]], found: list[list[float]]) -> tuple[Boxes, ...]:
    def table(rows: list[list[float]]) -> pd.DataFrame:
        boxes = pd.DataFrame([row[:4] for row in rows], columns=XY, dtype=float)
        return boxes.assign(sample_id="a", name="cat", confidence=[row[4] for row in rows])

    made = numbered(table([[*row, 1] for row in labels]), table(found), ["cat"], pd.Index(["a"]))
    return made[0], made[1]


def test_a_detection_stands_for_the_label_that_it_fits_best() -> None:
    labels, found = one_image(
        [[0, 0, 100, 100], [50, 0, 150, 100]],
        [[2, 0, 102, 100, 0.9], [55, 0, 155, 100, 0.8], [300, 0, 400, 90, 0.7]],
    )
    said = claims(labels, found, evidence(labels, found))
    assert said.label.tolist() == [0, 1, -1]
    assert said.claimed.round(2).tolist() == [0.35, 0.29, 0.0]
    assert said.repeats.round(2).tolist() == [0.0, 0.31, 0.0]


def test_two_detections_side_by_side_explain_a_box_around_them() -> None:
    labels, found = one_image([[0, 0, 200, 100]], [[0, 0, 100, 100, 0.9], [100, 0, 200, 100, 0.8]])
    said = evidence(labels, found)
    assert said.several.tolist() == [0.8]
    assert (said.first_row.tolist(), said.second_row.tolist()) == ([0], [1])


def test_a_detection_of_a_neighbour_supports_no_other_box() -> None:
    alone, found = one_image([[40, 0, 140, 100]], [[0, 0, 100, 100, 0.9]])
    beside, same = one_image([[0, 0, 100, 100], [40, 0, 140, 100]], [[0, 0, 100, 100, 0.9]])
    assert evidence(alone, found).beside[0] > 0.8
    assert evidence(beside, same).beside[1] == 0


@pytest.mark.parametrize("judge_is_right", [True, False])
def test_a_missing_object_is_placed_by_whoever_places_labels_better(
    sound: Tables, detections: pd.DataFrame, judge_is_right: bool
) -> None:
    found = objects(sound.images, sound.labels, sound.task, sound.units)
    judge = _Judge(found, detections, list(sound.classes), image_sizes(sound.images), None, None)
    rows = np.flatnonzero(judge.claims.label >= 0)
    truth = judge.labels.corners[judge.claims.label[rows]]
    to = truth if judge_is_right else truth + 40
    expected = truth if judge_is_right else judge.found.corners[rows]
    np.testing.assert_allclose(judge._nearer(rows, to), expected)
