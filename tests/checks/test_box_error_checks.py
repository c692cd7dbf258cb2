from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from dataaudit.checks.box_errors import (
    bad_location,
    merged_objects,
    missing_object,
    spurious_box,
    wrong_class,
)
from dataaudit.signals.box_errors import BoxErrors
from dataaudit.types import Locator, Tables
from tests.detections import XY, scenes

NOWHERE = [np.nan] * 4


def errors(tables: Tables, **chances: list[float]) -> BoxErrors:
    """What detections say about the first objects; the others are sound."""
    n = len(tables.labels)
    table = pd.DataFrame(0.0, index=tables.labels.index, columns=list(KINDS))
    for name, values in chances.items():
        table.iloc[: len(values), KINDS.index(name.replace("_", " "))] = values
    table["sound"] = 1 - table.sum(axis=1)
    table = table.assign(support=0.1, other=0.8, beside=0.7, suggested="fox", iou=0.3, first=-1, second=-1)
    table[XY] = [[10.0, 20.0, 110.0, 220.0]] + [NOWHERE] * (n - 1)
    found = pd.DataFrame(
        [[10.0, 20, 60, 220, "000.jpg", "cat", 0.9], [60.0, 20, 110, 220, "000.jpg", "cat", 0.8]],
        columns=[*XY, "sample_id", "name", "confidence"],
    )
    table.iloc[0, table.columns.get_loc("first")] = 0
    table.iloc[0, table.columns.get_loc("second")] = 1
    missing = pd.DataFrame(
        [
            ["003.jpg", "dog", 300.0, 200, 400, 300, 0.93, 0.9, 0.0],
            ["004.jpg", "cat", 30.0, 20, 40, 30, 0.2, 0.01, 0.31],
        ],
        columns=["sample_id", "name", *XY, "confidence", "probability", "claimed"],
    )
    return BoxErrors(labels=table, missing=missing, detections=found)


KINDS = ("sound", "wrong class", "spurious", "bad location", "merged")


@pytest.fixture
def tables() -> Tables:
    return scenes(30)


def test_an_object_of_another_class_gets_it(tables: Tables) -> None:
    first = tables.labels.index[0]
    found = wrong_class(errors(tables, wrong_class=[0.9, 0.05]), tables.labels, tables.images, "pixels")
    assert found.flagged[found.flagged].index.tolist() == [first]
    assert found.score[first] == pytest.approx(0.1)
    fix = found.fixes[first]
    old = tables.labels.at[first, "name"]
    assert (fix.op, fix.old, fix.new) == ("relabel", old, "fox")
    assert fix.old_box == tuple(tables.labels.loc[first, XY])
    assert found.evidence is not None
    assert found.evidence.at[first, "message"] == (
        f"A detection of 'fox' supports this {old!r} with 0.80, one of {old!r} with 0.10."
    )


def test_a_missing_object_is_added_where_it_is_detected(tables: Tables) -> None:
    found = missing_object(errors(tables), tables.labels, tables.images, "pixels")
    assert found.flagged.to_dict() == {"003.jpg:+300,200,400,300": True, "004.jpg:+30,20,40,30": False}
    fix = found.fixes["003.jpg:+300,200,400,300"]
    assert (fix.op, fix.new, fix.box) == ("add", "dog", (300.0, 200.0, 400.0, 300.0))
    assert fix.locator == Locator(file="003.xml")
    assert found.evidence is not None
    assert found.evidence.iloc[0]["message"] == (
        "A 'dog' is detected here with confidence 0.93, and no label covers it."
    )


def test_a_missing_object_is_written_in_the_units_of_the_dataset(tables: Tables) -> None:
    found = missing_object(errors(tables), tables.labels, tables.images, "relative")
    box = found.fixes["003.jpg:+300,200,400,300"].box
    assert box == pytest.approx((300 / 640, 200 / 480, 400 / 640, 300 / 480))


def test_a_box_without_an_object_is_removed(tables: Tables) -> None:
    first = tables.labels.index[0]
    found = spurious_box(errors(tables, spurious=[0.8]), tables.labels, tables.images, "pixels")
    assert found.flagged.sum() == 1
    assert (found.fixes[first].op, found.fixes[first].new) == ("remove", None)


def test_a_badly_placed_box_is_moved_to_where_its_object_is_seen(tables: Tables) -> None:
    first, second = tables.labels.index[:2]
    found = bad_location(errors(tables, bad_location=[0.9, 0.85]), tables.labels, tables.images, "pixels")
    assert found.flagged[[first, second]].all()
    assert found.fixes[first].box == (10, 20, 110, 220)
    assert second not in found.fixes
    assert found.evidence is not None
    assert found.evidence.at[second, "message"].startswith("Nothing fits the box")


def test_a_box_around_two_objects_becomes_two(tables: Tables) -> None:
    first = tables.labels.index[0]
    found = merged_objects(errors(tables, merged=[0.9]), tables.labels, tables.images, "pixels")
    added = "000.jpg:+60,20,110,220"
    assert found.flagged[found.flagged].index.tolist() == [first, added]
    assert found.fixes[first].op == "move"
    assert found.fixes[first].box == (10, 20, 60, 220)
    assert (found.fixes[added].op, found.fixes[added].box) == ("add", (60, 20, 110, 220))
    assert found.evidence is not None
    assert found.evidence["group"].nunique() == 1


def test_nothing_is_flagged_on_a_chance_that_is_next_to_nothing(tables: Tables) -> None:
    said = errors(tables, wrong_class=[0.04], spurious=[0.03], bad_location=[0.02], merged=[0.01])
    for check in (wrong_class, spurious_box, bad_location, merged_objects):
        assert not check(said, tables.labels, tables.images, "pixels").flagged.any()


def test_a_smallest_probability_replaces_the_expected_f1(tables: Tables) -> None:
    said = errors(tables, spurious=[0.8, 0.3, 0.2])
    found = spurious_box(said, tables.labels, tables.images, "pixels", min_probability=0.25)
    assert found.flagged.sum() == 2
