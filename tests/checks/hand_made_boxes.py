"""Detection datasets made by hand, for the tests of checks of boxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from dataaudit.formats._shared import ObjectRows
from dataaudit.signals.objects import objects
from dataaudit.types import CORNERS, Box, Locator, Outcome, Problem, Tables

Object = tuple[str, Box]


def tables_of(
    images: Mapping[str, Sequence[Object]],
    *,
    size: tuple[int, int] = (100, 100),
    declared: tuple[int, int] | None = None,
    problems: Sequence[Problem] = (),
    digests: Mapping[str, str] | None = None,
    **flags: bool,
) -> Tables:
    """Images of one size with their objects in pixels; the third object of a.jpg is the label a.jpg:3."""
    rows = ObjectRows(problems=list(problems))
    for sample_id, found in images.items():
        rows.image(sample_id, f"/d/{sample_id}", Locator(file=f"{sample_id}.xml"), size=declared or size)
        for number, (name, box) in enumerate(found, start=1):
            locator = Locator(file=f"{sample_id}.xml", item=number)
            rows.object(sample_id, f"{sample_id}:{number}", name, box, locator, **flags)
    source: Any = None
    made = rows.tables(source=source)
    known = made.images.assign(
        width=size[0], height=size[1], digest=[(digests or {}).get(i, i) for i in images]
    )
    return replace(made, images=known)


def scaled(tables: Tables, factor: float = 1.0, *, relative: bool = False) -> Tables:
    """The same dataset with images `factor` times as large, or in relative units."""
    corners = tables.labels[list(CORNERS)].to_numpy(dtype=np.float64)
    images = tables.images
    if relative:
        sizes = images.loc[tables.labels["sample_id"], ["width", "height"]].to_numpy(dtype=np.float64)
        corners = corners / np.concatenate([sizes, sizes], axis=1)
    else:
        corners = corners * factor
        sides = ("width", "height", "declared_width", "declared_height")
        images = images.assign(**{side: (images[side] * factor).astype("Int64") for side in sides})
    labels = tables.labels.assign(**{name: corners[:, at] for at, name in enumerate(CORNERS)})
    return replace(tables, images=images, labels=labels, units="relative" if relative else "pixels")


def objects_of(tables: Tables) -> pd.DataFrame:
    """The signal `objects`."""
    return objects(tables.images, tables.labels, tables.task, tables.units)


def flagged(outcome: Outcome) -> list[str]:
    """The flagged items, in order."""
    return outcome.flagged.index[outcome.flagged].tolist()


def fixes(outcome: Outcome) -> dict[str, tuple[Any, ...]]:
    """Operation and new box, in whole numbers, of each proposed fix."""
    return {
        item: (fix.op, *(() if fix.box is None else (tuple(round(corner, 3) for corner in fix.box),)))
        for item, fix in outcome.fixes.items()
    }


def crowd(n: int, seed: int = 0, names: Sequence[str] = ("person",)) -> dict[str, list[Object]]:
    """`n` images of 100 x 100 pixels with about five objects of many sizes each, which may overlap."""
    draw = np.random.default_rng(seed)
    images: dict[str, list[Object]] = {}
    for number in range(n):
        found: list[Object] = []
        for _ in range(5):
            height = float(np.exp(draw.normal(3.2, 0.4)))
            width = height * float(np.exp(draw.normal(-0.7, 0.15)))
            x, y = draw.uniform(0, 1, 2) * (100 - width, 100 - min(height, 99))
            box = (float(x), float(y), float(x + width), float(y + min(height, 99)))
            found.append((str(draw.choice(list(names))), box))
        images[f"{number}.jpg"] = found
    return images
