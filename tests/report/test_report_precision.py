from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from dataaudit.report.precision import match, precision_recall

Rows = list[tuple[Any, ...]]
FLAGS = ("crowd", "ignore", "difficult")


def objects_of(*rows: tuple[Any, ...]) -> pd.DataFrame:
    """Image, class, box, and perhaps a flag."""
    return pd.DataFrame(
        [
            {"sample_id": row[0], "name": row[1], **dict(zip(("x1", "y1", "x2", "y2"), row[2], strict=True))}
            | {flag: flag in row[3:] for flag in FLAGS}
            for row in rows
        ],
        columns=["sample_id", "name", "x1", "y1", "x2", "y2", *FLAGS],
    ).astype({"x1": float, "y1": float, "x2": float, "y2": float} | dict.fromkeys(FLAGS, bool))


def detections_of(*rows: tuple[Any, ...]) -> pd.DataFrame:
    """Image, class, confidence, box."""
    return pd.DataFrame(
        [
            {"sample_id": row[0], "name": row[1], "confidence": row[2]}
            | dict(zip(("x1", "y1", "x2", "y2"), map(float, row[3]), strict=True))
            for row in rows
        ],
        columns=["sample_id", "name", "confidence", "x1", "y1", "x2", "y2"],
    )


BOX, HALF, FAR = (0, 0, 10, 10), (0, 0, 10, 6), (50, 50, 60, 60)


@pytest.mark.parametrize(
    ("objects", "detections", "right", "counts"),
    [
        pytest.param([("a", "cat", BOX)], [("a", "cat", 0.9, HALF)], [True], [True], id="overlaps enough"),
        pytest.param([("a", "cat", BOX)], [("a", "cat", 0.9, FAR)], [False], [True], id="elsewhere"),
        pytest.param([("a", "cat", BOX)], [("a", "dog", 0.9, BOX)], [False], [True], id="another class"),
        pytest.param([("a", "cat", BOX)], [("b", "cat", 0.9, BOX)], [False], [True], id="another image"),
        pytest.param(
            [("a", "cat", BOX)], [("a", "cat", 0.9, HALF), ("a", "cat", 0.8, BOX)],
            [True, False], [True, True], id="the surer takes the object, though the other fits better",
        ),
        pytest.param(
            [("a", "cat", BOX), ("a", "cat", HALF)], [("a", "cat", 0.9, BOX), ("a", "cat", 0.8, BOX)],
            [True, True], [True, True], id="the second takes what the first left",
        ),
        pytest.param(
            [("a", "cat", BOX, "crowd")], [("a", "cat", 0.9, (1, 1, 3, 3)), ("a", "dog", 0.9, BOX)],
            [False, False], [False, True], id="inside a crowd of its class",
        ),
        pytest.param(
            [("a", "", BOX, "ignore")], [("a", "cat", 0.9, (1, 1, 3, 3))], [False], [False],
            id="inside a region to ignore, of any class",
        ),
        pytest.param(
            [("a", "cat", BOX, "difficult")], [("a", "cat", 0.9, BOX), ("a", "cat", 0.8, (1, 1, 3, 3))],
            [False, False], [False, True], id="on a difficult object, not somewhere in it",
        ),
        pytest.param([], [("a", "cat", 0.9, BOX)], [False], [True], id="no objects"),
        pytest.param([("a", "cat", BOX)], [], [], [], id="no predictions"),
    ],
)  # fmt: skip
def test_which_predictions_are_right(
    objects: Rows, detections: Rows, right: list[bool], counts: list[bool]
) -> None:
    found = match(objects_of(*objects), detections_of(*detections))
    assert [each.tolist() for each in found] == [right, counts]


def test_average_precision_worked_out_by_hand() -> None:
    objects = objects_of(("a", "cat", BOX), ("a", "cat", FAR), ("b", "cat", BOX), ("c", "cat", BOX))
    detections = detections_of(
        ("b", "cat", 0.7, FAR), ("a", "cat", 0.9, BOX), ("a", "cat", 0.6, FAR), ("b", "cat", 0.8, BOX)
    )
    found = precision_recall(objects, detections, ["cat", "dog"])
    (cat,) = found["classes"]
    # Right, right, wrong, right: precision 1 up to recall 1/2, then 3/4 up to 3/4, and one is never found
    assert cat["ap"] == pytest.approx(0.5 * 1 + 0.25 * 0.75)
    assert cat["curve"] == [[0.5, 1.0], [0.75, 0.75]]
    assert (cat["precision"], cat["recall"], cat["confidence"]) == (0.75, 0.75, 0.6)
    assert found["mean_ap"] == cat["ap"]
    assert {**found["all"], "name": "cat"} == cat


def test_a_class_without_objects_has_no_average_precision_and_one_without_predictions_has_0() -> None:
    found = precision_recall(
        objects_of(("a", "cat", BOX)), detections_of(("a", "dog", 0.9, BOX)), ["cat", "dog"]
    )
    assert [(row["name"], row["ap"]) for row in found["classes"]] == [("cat", 0.0), ("dog", None)]
    assert found["mean_ap"] == 0.0


def test_predictions_of_equal_confidence_count_together_in_any_order() -> None:
    objects = objects_of(("a", "cat", BOX))
    rows = [("a", "cat", 0.5, BOX), ("b", "cat", 0.5, BOX)]
    scores = [
        precision_recall(objects, detections_of(*order), ["cat"])["mean_ap"] for order in (rows, rows[::-1])
    ]
    assert scores == [0.5, 0.5]


def test_boxes_that_cannot_be_read_and_unknown_classes_are_left_out() -> None:
    objects = objects_of(("a", "cat", BOX), ("a", "cat", (np.nan, 0, 1, 1)))
    detections = detections_of(
        ("a", "cat", 0.9, BOX), ("a", "horse", 0.9, BOX), ("a", "cat", 0.8, [np.nan] * 4)
    )
    found = precision_recall(objects, detections, ["cat"])
    assert (found["classes"][0]["n"], found["classes"][0]["ap"], found["detections"]) == (1, 1.0, 3)


def test_a_long_curve_is_cut_to_60_points_over_all_of_its_length() -> None:
    rng = np.random.default_rng(0)
    n = 2000
    objects = objects_of(*((f"{at}", "cat", BOX) for at in range(n)))
    detections = detections_of(
        *(
            (f"{at}", "cat", conf, BOX if rng.random() < conf else FAR)
            for at, conf in enumerate(rng.random(n))
        )
    )
    curve = precision_recall(objects, detections, ["cat"])["all"]["curve"]
    recall = [point[0] for point in curve]
    assert len(curve) <= 60
    assert max(np.diff(recall)) < 0.05
