"""Objects and what a fair detector says about them, drawn by a seed: no pictures are needed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from dataaudit.formats._shared import ObjectRows
from dataaudit.types import CORNERS, Locator, Tables

XY = list(CORNERS)
WIDTH, HEIGHT = 640, 480
CLASSES = ("cat", "dog", "fox")


def scenes(n: int = 120, *, seed: int = 0) -> Tables:
    """Images of 640 x 480 pixels with two to four objects that hardly overlap."""
    rng = np.random.default_rng(seed)
    rows = ObjectRows()
    for number in range(n):
        sample_id = f"{number:03d}.jpg"
        rows.image(
            sample_id, f"/nowhere/{sample_id}", Locator(file=f"{number:03d}.xml"), size=(WIDTH, HEIGHT)
        )
        for place in rng.permutation(6)[: rng.integers(2, 5)]:
            width, height = rng.uniform(60, 190), rng.uniform(70, 220)
            x = place % 3 * 213 + rng.uniform(0, 213 - width)
            y = place // 3 * 240 + rng.uniform(0, 240 - height)
            item = len(rows.owners)
            rows.object(
                sample_id,
                f"{sample_id}:{item}",
                str(rng.choice(CLASSES)),
                (x, y, x + width, y + height),
                Locator(file=f"{number:03d}.xml", item=item),
            )
    return rows.tables(source=None)  # type: ignore[arg-type]


def seen(tables: Tables, *, seed: int = 0, recall: float = 0.95) -> pd.DataFrame:
    """What a fair detector says: boxes a little off, some objects missed, some boxes from nothing."""
    rng = np.random.default_rng(seed)
    labels = tables.labels
    found = labels[rng.random(len(labels)) < recall]
    boxes = found[XY].to_numpy()
    sides = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
    boxes = boxes + rng.normal(0, 0.03, boxes.shape) * sides
    names = np.where(rng.random(len(found)) < 0.99, found["name"], rng.choice(CLASSES, len(found)))
    real = pd.DataFrame(boxes, columns=XY).assign(
        sample_id=found["sample_id"].to_numpy(), name=names, confidence=rng.beta(8, 2, len(found))
    )
    n = 2 * len(tables.images)
    corner = rng.uniform(0, 1, (n, 2)) * [440, 280]
    size = rng.uniform(40, 200, (n, 2))
    nothing = pd.DataFrame(np.concatenate([corner, corner + size], axis=1), columns=XY).assign(
        sample_id=rng.choice(tables.images.index, n),
        name=rng.choice(CLASSES, n),
        confidence=rng.beta(1, 8, n),
    )
    return pd.concat([real, nothing], ignore_index=True)


def with_labels(tables: Tables, labels: pd.DataFrame) -> Tables:
    """The same images with other labels."""
    return replace(tables, labels=labels)
