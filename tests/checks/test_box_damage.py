from __future__ import annotations

import contextlib
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hand_made_boxes import Object, objects_of, tables_of

from dataaudit.checks.box_copies import annotated_differently
from dataaudit.checks.box_pairs import duplicate_box, duplicate_box_of_another_class, split_object
from dataaudit.checks.box_shapes import odd_box_size
from dataaudit.checks.boxes import box_outside_image, degenerate_box
from dataaudit.errors import Unavailable
from dataaudit.pipeline import findings_of
from dataaudit.types import CORNERS, FLAGS, Outcome, Tables

STRANGE = (float("nan"), float("inf"), -float("inf"), 1e300)


def damaged(seed: int) -> Tables:
    """A dataset drawn at random, with boxes of all kinds, copies, and images of unknown size."""
    draw = np.random.default_rng(seed)
    images: dict[str, list[Object]] = {}
    for number in range(draw.integers(0, 40)):
        found: list[Object] = []
        for _ in range(draw.integers(0, 8)):
            box = draw.uniform(-20, 120, 4).round(draw.integers(0, 3))
            if draw.random() < 0.6:
                box = np.sort(box.reshape(2, 2), axis=0).ravel()
            if draw.random() < 0.05:
                box[draw.integers(4)] = STRANGE[draw.integers(4)]
            if found and draw.random() < 0.2:
                box = np.array(found[-1][1]) + draw.normal(0, 1, 4)
            x1, y1, x2, y2 = box.tolist()
            found.append(("abc"[draw.integers(3)], (x1, y1, x2, y2)))
        images[f"{number}.jpg"] = found
    digests = {sample_id: str(draw.integers(30)) for sample_id in images}
    tables = tables_of(images, digests=digests)
    unknown = draw.random(len(images)) < 0.1
    sides = {side: tables.images[side].astype("Int64").mask(unknown) for side in ("width", "height")}
    said = {f"declared_{side}": column for side, column in sides.items()}
    flags = {flag: draw.random(len(tables.labels)) < 0.1 for flag in FLAGS}
    units = "relative" if draw.random() < 0.3 else "pixels"
    return replace(
        tables,
        images=tables.images.assign(**sides, **said),
        labels=tables.labels.assign(**flags),
        units=units,
    )


@pytest.mark.parametrize("seed", range(25))
def test_no_dataset_makes_a_check_fail(seed: int) -> None:
    tables = damaged(seed)
    objects = objects_of(tables)
    known = (tables.labels, tables.images, tables.units)
    detections = objects[["sample_id", "name", *CORNERS]].assign(confidence=0.9).reset_index(drop=True)
    found = objects[list(CORNERS)]
    probs = pd.DataFrame(1 / 3, index=objects.index, columns=list("abc"))
    outcomes: dict[str, Outcome] = {
        "BOX006": box_outside_image(objects, *known),
        "BOX007": degenerate_box(objects, *known),
        "BOX008": duplicate_box(objects, *known, found),
        "BOX009": duplicate_box_of_another_class(objects, *known, probs),
        "BOX010": split_object(objects, *known, detections),
    }
    # Of few boxes, and where nothing is there twice, they say nothing
    with contextlib.suppress(Unavailable):
        outcomes["BOX012"] = odd_box_size(objects)
    copies = (tables.images, tables.labels, tables.units, None, None, detections)
    with contextlib.suppress(Unavailable):
        outcomes["BOX013"] = annotated_differently(objects, *copies)
    for finding in findings_of(outcomes, tables, {}):
        assert finding.sample_id in tables.images.index
        assert finding.fix is None or finding.fix.sample_id == finding.sample_id
        assert finding.suggested_box is None or np.isfinite(finding.suggested_box).all()
