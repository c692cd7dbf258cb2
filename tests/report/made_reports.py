from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from dataaudit.types import Finding, Fix, Locator, Report, Source, Tables

SAMPLES = {
    "train/cat/1.jpg": "cat",
    "train/cat/2.jpg": "cat",
    "train/dog/1.jpg": "dog",
    "train/dog/2.jpg": "dog",
    "test/dog/3.jpg": "dog",
    "test/dog/broken.jpg": "dog",
}


def tables_of(
    samples: dict[str, str | None], *, root: Path | None = None, classes: tuple[str, ...] = ()
) -> Tables:
    ids = list(samples)
    images = pd.DataFrame(
        {
            "filepath": [str((root or Path("/nowhere")) / sample) for sample in ids],
            "width": 64,
            "height": 48,
            "split": [sample.split("/")[0] if sample.count("/") > 1 else None for sample in ids],
            "digest": [f"{at:032x}" for at in range(len(ids))],
        },
        index=pd.Index(ids, name="sample_id", dtype=object),
        dtype=object,
    )
    labels = pd.DataFrame(
        {
            "sample_id": ids,
            "name": list(samples.values()),
            "geometry": None,
            "locator": [Locator(file=sample) for sample in ids],
        },
        index=pd.Index([f"L{at}" for at in range(len(ids))], name="label_id"),
        dtype=object,
    )
    names = tuple(sorted({*classes, *(name for name in samples.values() if name is not None)}))
    source = None if root is None else Source(format="folder", root=root, path=str(root), anchor=root.parent)
    return Tables(images=images, labels=labels, classes=names, source=source)


def relabel(key: str, tables: Tables, label_id: str, suggested: str, **more: Any) -> Finding:
    row = tables.labels.loc[label_id]
    fix = Fix(
        op="relabel",
        sample_id=row["sample_id"],
        label_id=label_id,
        locator=row["locator"],
        old=row["name"],
        new=suggested,
    )
    given = {"score": 0.1, "probability": 0.9, "message": f"Looks like {suggested}.", "fix": fix} | more
    return Finding(
        key=key, code="LBL001", item_id=label_id, sample_id=row["sample_id"], given=row["name"],
        suggested=suggested, **given,
    )  # fmt: skip


def report_of(tables: Tables, *items: Finding, **more: Any) -> Report:
    given: dict[str, Any] = {"params": {}, "outcomes": {}, "skipped": {}, "timings": {}} | more
    return Report(digest="d1", items=items, tables=tables, **given)
