"""Audited datasets with findings made by hand, for the round trips to label tools."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from dataaudit import formats
from dataaudit.checks.box_fixes import BoxFixes
from dataaudit.findings import findings_of
from dataaudit.types import Finding, Fix, Outcome, Report, Tables

HOSTILE = '<b>"O\'x"</b> & $image سلام 🐈.png'
"""A name of a file, and without its ending of a class."""
CATEGORIES = ("cat", "dog", 'fox & "co" <i>')
BOXES = {
    "a.png": [("cat", 10, 10, 40, 40), ("dog", 60, 10, 30, 30), ("cat", 10.37, 10.21, 40, 40)],
    "b.png": [("cat", 0, 0, 100, 50), ("dog", 20, 20, 20, 20)],
    "c.png": [],
}
"""The objects of the images, x, y, width and height in pixels."""


def picture(path: Path, size: tuple[int, int] = (120, 60), shade: int = 90) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((size[1], size[0], 3), shade, dtype=np.uint8)).save(path)


def swept(tables: Tables) -> Tables:
    """Tables as they are after the sweep."""
    return replace(tables, images=tables.images.assign(width=120, height=60, digest="d"))


def _report(tables: Tables, items: list[Finding]) -> Report:
    return Report(
        digest="1", params={}, outcomes={}, items=tuple(items), skipped={}, timings={}, tables=tables
    )


def _finding(key: str, code: str, sample_id: str, fix: Fix | None, **more: Any) -> Finding:
    values = {"item_id": sample_id, "score": 0.1, "probability": 0.9, "message": f"About {sample_id}."}
    return Finding(key=key, code=code, sample_id=sample_id, fix=fix, **{**values, **more})


def classes_report(root: Path) -> Report:
    """Two cats that look like dogs, a fox that looks like a cat, a dog without a proposal, a duplicate."""
    for number, name in enumerate(("cat/1.png", "cat/2.png", f"fox/{HOSTILE}", "dog/3.png", "dog/4.png")):
        picture(root / "photos" / name, shade=20 * number)
    tables = swept(formats.read(root / "photos"))

    def relabel(sample_id: str, new: str) -> Fix:
        row: Any = tables.labels.loc[sample_id]
        return Fix(
            op="relabel",
            sample_id=sample_id,
            label_id=sample_id,
            locator=row["locator"],
            old=row["name"],
            new=new,
        )

    drop = replace(relabel("dog/4.png", "x"), op="drop", new=None)
    fox = f"fox/{HOSTILE}"
    items = [
        _finding("k1", "LBL001", "cat/1.png", relabel("cat/1.png", "dog"), given="cat", suggested="dog"),
        _finding("k2", "LBL001", "cat/2.png", relabel("cat/2.png", "dog"), given="cat", probability=0.6),
        _finding("k3", "LBL001", fox, relabel(fox, "cat"), given="fox", message='<script>"&'),
        _finding("k4", "LBL002", "dog/3.png", None, given="dog", probability=None),
        _finding("k5", "DUP001", "dog/4.png", drop, given="dog"),
    ]
    return _report(tables, items)


def several_report(root: Path) -> Report:
    """Images with several classes: one class missing, one too much, one that should be another."""
    rows = {"1.png": "cat,dog", "2.png": "cat", "3.png": "fox"}
    for number, name in enumerate(rows):
        picture(root / name, shade=20 * number)
    lines = [f'{name},"{names}"' for name, names in rows.items()]
    (root / "labels.csv").write_text("\n".join(["filepath,labels", *lines]) + "\n")
    options = {"multilabel": "cells", "label": "labels", "separator": ","}
    tables = swept(formats.read(root / "labels.csv", options=options))
    place = tables.labels.iloc[0]["locator"]

    def fix(op: Any, sample_id: str, old: str | None, new: str | None) -> Fix:
        name = old or new
        own = tables.labels[(tables.labels["sample_id"] == sample_id) & (tables.labels["name"] == name)]
        label_id = own.index[0] if len(own) else f"{sample_id}:{name}"
        return Fix(op=op, sample_id=sample_id, label_id=label_id, locator=place, old=old, new=new)

    items = [
        _finding("m1", "LBL004", "1.png", fix("remove", "1.png", "dog", None), suggested="dog"),
        _finding("m2", "LBL003", "1.png", fix("add", "1.png", None, "fox"), suggested="fox", probability=0.7),
        _finding("m3", "LBL003", "2.png", fix("add", "2.png", None, "dog"), suggested="dog"),
        _finding("m4", "LBL001", "3.png", fix("relabel", "3.png", "fox", "cat"), suggested="cat"),
    ]
    return _report(tables, items)


def boxes_report(root: Path) -> Report:
    """A wrong class and a copy on the first image, a loose box on the second, a missing one on the third."""
    images, found = [], []
    for number, (name, boxes) in enumerate(BOXES.items()):
        picture(root / "images" / name, shade=20 * number)
        images.append({"id": number, "file_name": name, "width": 120, "height": 60})
        for label, *box in boxes:
            found.append(
                {"id": len(found), "image_id": number, "category_id": CATEGORIES.index(label), "bbox": box}
            )
    categories = [{"id": number, "name": name} for number, name in enumerate(CATEGORIES)]
    text = json.dumps({"images": images, "annotations": found, "categories": categories}, indent=1)
    (root / "labels.json").write_text(text)
    tables = swept(formats.read(root / "labels.json"))
    fixes = BoxFixes(tables.labels, tables.images, tables.units)
    ids = list(tables.labels.index)
    a, b, c = tables.images.index
    new, tight = (20.0, 10.0, 70.0, 40.0), (0.0, 0.0, 60.0, 50.0)
    rows: dict[str, tuple[str, str, dict[str, Any], Fix]] = {
        "BOX002": (ids[1], a, {"message": "It is a cat.", "suggested": "cat"}, fixes.relabel(ids[1], "cat")),
        "BOX003": (f"{c}:+", c, {"message": "No box.", "suggested": "dog"}, fixes.add(c, "dog", new)),
        "BOX004": (ids[2], a, {"message": "A copy."}, fixes.remove(ids[2])),
        "BOX005": (ids[3], b, {"message": "Loose."}, fixes.move(ids[3], tight)),
    }
    outcomes = {
        code: Outcome(
            score=pd.Series({item: 0.1}),
            flagged=pd.Series({item: True}),
            probability=pd.Series({item: 0.8}),
            evidence=pd.DataFrame([{"sample_id": sample, **said, **_corners(fix)}], index=[item]),
            fixes={item: fix},
        )
        for code, (item, sample, said, fix) in rows.items()
    }
    return _report(tables, list(findings_of(outcomes, tables, {})))


def _corners(fix: Fix) -> dict[str, float]:
    return {} if fix.box is None else dict(zip(("x1", "y1", "x2", "y2"), fix.box, strict=True))


def key_of(report: Report, code: str) -> str:
    """The key of the only finding of a check."""
    (key,) = [item.key for item in report.items if item.code == code]
    return key


def verdicts(decisions: Any) -> dict[str, Any]:
    """Each finding's verdict, with the class or box of the fix of an ``other``."""
    said = {}
    for each in decisions:
        fix = each.fix
        other = each.verdict == "other"
        said[each.finding] = (fix.op, fix.new, fix.box) if other else each.verdict
    return said
