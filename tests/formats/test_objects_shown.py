"""How objects of files stand in FiftyOne's documents."""

from __future__ import annotations

import pytest

from dataaudit.formats import _objects_shown
from dataaudit.formats._shared import ObjectRows
from dataaudit.types import Locator


def test_relative_corners_become_corner_and_size_and_the_tables_stay_as_they_are() -> None:
    rows = ObjectRows()
    rows.image("a.jpg", "/nowhere/a.jpg", Locator(file="a.txt"), size=(200, 100))
    rows.object("a.jpg", "a.jpg:1", "cat", (0.25, 0.5, 0.75, 0.625), Locator(file="a.txt", item=1))
    tables = rows.tables(source=None, units="relative")  # type: ignore[arg-type]
    sizes = tables.images[["width", "height"]]
    found = _objects_shown.documents_of(tables, sizes)
    assert found["a.jpg"][0]["bounding_box"] == pytest.approx([0.25, 0.5, 0.5, 0.125])
    assert tables.labels.loc["a.jpg:1", ["x2", "y2"]].tolist() == [0.75, 0.625]
