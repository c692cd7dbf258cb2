"""A small detection dataset made by hand, with real pictures and findings of every shape."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from dataaudit.formats._shared import ObjectRows
from dataaudit.types import Box, Finding, Fix, Locator, Report, Source, Tables

OBJECTS: dict[str, list[tuple[str, Box]]] = {
    "images/1.jpg": [("cat", (10, 10, 40, 50)), ("dog", (60, 20, 110, 70))],
    "images/2.jpg": [("dog", (-20, 5, 30, 45)), ("cat", (50, 30, 50, 60))],
    "images/3.jpg": [],
}


def objects_of(
    root: Path | None = None,
    objects: dict[str, list[tuple[str, Box]]] | None = None,
    *,
    size: tuple[int, int] = (160, 120),
    crowds: frozenset[str] = frozenset(),
) -> Tables:
    """Tables of boxes in pixels, each label at a line of its own; with a root, the images are there."""
    rows = ObjectRows()
    for sample, mine in (OBJECTS if objects is None else objects).items():
        file = f"labels/{Path(sample).stem}.txt"
        path = (root or Path("/nowhere")) / sample
        if root is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((size[1], size[0], 3), 90, np.uint8)).save(path)
        rows.image(sample, str(path), Locator(file=file))
        for line, (name, corners) in enumerate(mine, 1):
            label_id = f"{sample}:{line}"
            rows.object(
                sample, label_id, name, corners, Locator(file=file, item=line), crowd=label_id in crowds
            )
    source = Source(
        format="yolo", root=root or Path("/nowhere"), path=str(root), anchor=root or Path("/nowhere")
    )
    tables = rows.tables(source=source)
    width, height = (pd.array([side] * len(tables.images), dtype="Int64") for side in size)
    return replace(tables, images=tables.images.assign(width=width, height=height))


def found(tables: Tables, key: str, code: str, item: str, **more: Any) -> Finding:
    """A finding about a labeled object, or about one that isn't there yet."""
    given: dict[str, Any] = {"score": 0.1, "probability": 0.9, "message": "Odd."}
    if item in tables.labels.index:
        row: Any = tables.labels.loc[item]
        given |= {"sample_id": row["sample_id"], "given": row["name"]}
        given["box"] = tuple(float(row[corner]) for corner in ("x1", "y1", "x2", "y2"))
    return Finding(key=key, code=code, item_id=item, **(given | more))


def object_report(tables: Tables, *items: Finding, **more: Any) -> Report:
    if not items:
        items = some_findings(tables)
    given: dict[str, Any] = {"params": {}, "outcomes": {}, "skipped": {}, "timings": {}} | more
    return Report(digest="d1", items=items, tables=tables, **given)


def some_findings(tables: Tables) -> tuple[Finding, ...]:
    """A wrong class, a missing object, a box to move, one too many and one without area."""
    new: Box = (70, 60, 100, 110)
    where = tables.labels["locator"].to_dict()
    wrong = Fix(
        op="relabel", sample_id="images/1.jpg", label_id="images/1.jpg:1", locator=where["images/1.jpg:1"],
        old="cat", new="dog", old_box=(10, 10, 40, 50),
    )  # fmt: skip
    missing = Fix(
        op="add", sample_id="images/3.jpg", label_id="images/3.jpg:+70,60,100,110",
        locator=Locator(file="labels/3.txt"), old=None, new="cat", box=new,
    )  # fmt: skip
    move = Fix(
        op="move", sample_id="images/2.jpg", label_id="images/2.jpg:1", locator=where["images/2.jpg:1"],
        old="dog", new="dog", old_box=(-20, 5, 30, 45), box=(0, 5, 30, 45),
    )  # fmt: skip
    extra = Fix(
        op="remove", sample_id="images/1.jpg", label_id="images/1.jpg:2", locator=where["images/1.jpg:2"],
        old="dog", new=None, old_box=(60, 20, 110, 70),
    )  # fmt: skip
    return (
        found(tables, "k1", "BOX002", "images/1.jpg:1", suggested="dog", fix=wrong, score=0.1),
        found(
            tables, "k2", "BOX003", "images/3.jpg:+70,60,100,110", sample_id="images/3.jpg", suggested="cat",
            suggested_box=new, fix=missing, score=0.2, probability=0.8, message="A cat has no box.",
        ),
        found(
            tables, "k3", "BOX006", "images/2.jpg:1", suggested_box=(0, 5, 30, 45), fix=move, score=0.3,
            probability=1.0, message="40 % of the box lies outside the image.",
        ),
        found(tables, "k4", "BOX004", "images/1.jpg:2", fix=extra, score=0.4, probability=0.5),
        found(tables, "k5", "BOX007", "images/2.jpg:2", score=0.0, probability=None, decision="keep"),
    )  # fmt: skip
