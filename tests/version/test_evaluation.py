from __future__ import annotations

import contextlib
import io

import numpy as np
import pandas as pd
import pytest

from dataaudit.version.evaluation import draws, evaluate


def objects(*rows: tuple, **flags: list[bool]) -> pd.DataFrame:
    """Objects as (image, class, x1, y1, x2, y2)."""
    table = pd.DataFrame(rows, columns=["sample_id", "name", "x1", "y1", "x2", "y2"])
    return table.assign(**{name: flags.get(name, False) for name in ("crowd", "ignore", "difficult")})


def detections(*rows: tuple) -> pd.DataFrame:
    """Detections as (image, class, confidence, x1, y1, x2, y2)."""
    return pd.DataFrame(rows, columns=["sample_id", "name", "confidence", "x1", "y1", "x2", "y2"])


TWO = objects(("a", "cat", 0, 0, 10, 10), ("b", "cat", 0, 0, 10, 10))
RIGHT = ("a", "cat", 0.9, 0, 0, 10, 10)


@pytest.mark.parametrize(
    ("found", "ap50"),
    [
        (detections(RIGHT, ("b", "cat", 0.8, 0, 0, 10, 10)), 1.0),
        # half of the objects, at full precision: the first 51 of the 101 recalls
        (detections(RIGHT), 51 / 101),
        # a wrong one that is surer
        (detections(RIGHT, ("b", "cat", 0.95, 50, 50, 60, 60)), 51 / 101 / 2),
        # a second box on the same object counts as wrong
        (
            detections(("a", "cat", 0.95, 0, 0, 10, 9), RIGHT, ("b", "cat", 0.8, 0, 0, 10, 10)),
            (51 + 50 * 2 / 3) / 101,
        ),
        (detections(("a", "dog", 0.9, 0, 0, 10, 10)), 0.0),
        # on no image that is looked at
        (detections(("c", "cat", 0.9, 0, 0, 10, 10), RIGHT), 51 / 101),
        (detections(("a", "cat", 0.9, np.nan, 0, 10, 10), RIGHT), 51 / 101),
        (detections(), 0.0),
    ],
)  # fmt: skip
def test_average_precision_at_half_overlap(found, ap50):
    judged = evaluate(TWO, found, ["a", "b"])
    assert judged.ap50 == pytest.approx(ap50)
    assert (judged.classes, judged.n_objects) == (("cat",), (2,))


def test_stricter_thresholds_count_the_same():
    """IoU 0.8 passes 0.5 to 0.8, which is 7 of the 10 thresholds."""
    judged = evaluate(TWO[:1], detections(("a", "cat", 0.9, 0, 0, 10, 8)), ["a"])
    assert judged.precision[0].tolist() == [1.0] * 7 + [0.0] * 3
    assert judged.map == pytest.approx(0.7)


def test_detections_on_crowds_ignored_regions_and_difficult_objects_do_not_count():
    there = objects(
        ("a", "cat", 0, 0, 10, 10), ("a", "cat", 20, 0, 60, 40), ("a", "DontCare", 0, 50, 30, 90),
        ("a", "cat", 70, 0, 90, 20),
        crowd=[False, True, False, False], ignore=[False, False, True, False],
        difficult=[False, False, False, True],
    )  # fmt: skip
    found = detections(
        ("a", "cat", 0.99, 22, 2, 30, 10), ("a", "cat", 0.98, 40, 2, 50, 10),
        ("a", "cat", 0.97, 2, 60, 9, 70), ("a", "cat", 0.96, 70, 0, 90, 20), RIGHT,
    )  # fmt: skip
    judged = evaluate(there, found, ["a"])
    assert (judged.classes, judged.n_objects, judged.ap50) == (("cat",), (1,), 1.0)
    wrong = evaluate(there.assign(ignore=False), found[2:], ["a"])
    assert wrong.precision[list(wrong.classes).index("cat"), 0] == pytest.approx(0.5)


def test_it_agrees_with_pycocotools():
    random = np.random.default_rng(0)
    corners = random.uniform(0, 80, (120, 2))
    boxes = np.concatenate([corners, corners + random.uniform(5, 20, (120, 2))], axis=1)
    samples = random.choice([f"{n}.jpg" for n in range(20)], 120)
    names = random.choice(["cat", "dog", "cow"], 120)
    there = objects(*[(*each, *box) for *each, box in zip(samples, names, boxes, strict=True)])
    shifted = boxes + random.normal(0, 1.5, boxes.shape)
    found = detections(
        *[(s, n, c, *b) for s, n, c, b in zip(samples, names, random.uniform(size=120), shifted, strict=True)]
    )
    images = sorted(set(samples))
    assert evaluate(there, found, images).map == pytest.approx(by_coco(there, found, images), abs=1e-9)


def by_coco(there: pd.DataFrame, found: pd.DataFrame, images: list[str]) -> float:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def rows(table: pd.DataFrame) -> list[dict]:
        return [
            {
                "id": number, "image_id": images.index(row["sample_id"]), "iscrowd": 0,
                "category_id": ["cat", "dog", "cow"].index(row["name"]), "score": row.get("confidence"),
                "bbox": [row["x1"], row["y1"], row["x2"] - row["x1"], row["y2"] - row["y1"]],
                "area": (row["x2"] - row["x1"]) * (row["y2"] - row["y1"]),
            }
            for number, row in enumerate(table.to_dict("records"), start=1)
        ]  # fmt: skip

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "info": {}, "images": [{"id": n} for n in range(len(images))],
            "categories": [{"id": n} for n in range(3)], "annotations": rows(there),
        }  # fmt: skip
        truth.createIndex()
        judge = COCOeval(truth, truth.loadRes(rows(found)), "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return float(judge.stats[0])


def test_draws_of_images_give_figures_around_the_figure():
    samples = [f"{n}" for n in range(40)]
    there = objects(*[(each, "cat", 0, 0, 10, 10) for each in samples])
    found = detections(*[(each, "cat", 0.9, 0, 0, 10, 10) for each in samples[::2]])
    judged = evaluate(there, found, samples)
    weights = draws(40, 200)
    assert weights.sum(axis=1).tolist() == [40] * 200
    overall, at_half = judged.drawn(weights)
    assert overall.shape == at_half.shape == (200,)
    assert at_half.mean() == pytest.approx(judged.ap50, abs=0.03)
    once = judged.drawn(np.ones((1, 40), dtype=np.int64))
    assert once[0][0] == pytest.approx(judged.map)


def test_images_without_objects_have_no_figure():
    judged = evaluate(objects(), detections(RIGHT), ["a"])
    assert judged.classes == () and np.isnan(judged.map) and np.isnan(judged.ap50)
