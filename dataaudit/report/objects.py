"""What a summary says about the objects of a detection dataset."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from dataaudit.report.precision import precision_recall
from dataaudit.signals.objects import image_sizes, objects
from dataaudit.types import CORNERS, FLAGS, Box, Report, Tables

__all__ = ["about_objects", "boxes_of", "by_class_and_kind", "corners", "is_about_object"]

MAX_IMAGES = 500
MAX_BOXES = 200


def is_about_object(finding: Mapping[str, Any]) -> bool:
    """Whether a finding of a summary is about one object: one that is there, or one that should be."""
    return finding.get("box") is not None or finding.get("suggested_box") is not None


def corners(box: Box | None) -> list[float] | None:
    """A box as a summary has it, in pixels to a hundredth.

    >>> corners((1.23456, 2, 3, 4)), corners(None)
    ([1.23, 2.0, 3.0, 4.0], None)
    """
    return None if box is None else [round(float(corner), 2) for corner in box]


def about_objects(
    report: Report,
    considered: Sequence[Mapping[str, Any]],
    shown: Sequence[Mapping[str, Any]],
    groups: Sequence[Mapping[str, Any]],
) -> dict[str, Any] | None:
    """The objects by class and kind of finding, the precision of the predictions, and boxes to draw.

    Args:
        report: the result of an audit.
        considered: the findings as in a summary, without those that a person decided to keep.
        shown: the findings that the summary lists, worst first.
        groups: of images, as in the summary.

    Returns:
        None where the dataset has no objects; else a dict that ``json.dumps`` takes as it is: ``objects``
        (how many), ``empty`` (images without), ``flags`` (how many objects have each), ``codes`` (of checks
        of objects that found something), ``classes`` (of each class with objects or findings its ``name``,
        ``n``, ``open``, ``expected`` and ``counts`` by code, most findings first), ``baseline``
        (`dataaudit.report.precision.precision_recall`, or None without predictions) and ``images``
        (`boxes_of` the images that are shown first).
    """
    tables = report.tables
    if tables.task != "detection":
        return None
    mine = [finding for finding in considered if is_about_object(finding) or finding["code"][:3] == "BOX"]
    found = objects(tables.images, tables.labels, tables.task, tables.units)
    wanted = [finding["sample_id"] for finding in shown if finding["sample_id"] is not None]
    members = [member["sample_id"] for group in groups for member in group["members"]]
    drawn = [*list(dict.fromkeys(wanted))[:MAX_IMAGES], *list(dict.fromkeys(members))[:MAX_IMAGES]]
    return {
        "objects": len(found),
        "empty": len(tables.images) - int(found["sample_id"].nunique()),
        "flags": {flag: int(found[flag].sum()) for flag in FLAGS if found[flag].any()},
        "codes": sorted({finding["code"] for finding in mine}),
        "classes": _classes(tables, mine),
        "baseline": None
        if report.detections is None
        else precision_recall(found, report.detections, tables.classes),
        "images": boxes_of(tables, drawn, found),
    }


def by_class_and_kind(summary: Mapping[str, Any]) -> tuple[list[str], list[dict[str, Any]]]:
    """The codes of checks of objects that found something, and the classes with findings, most first."""
    about = summary.get("objects")
    if about is None:
        return [], []
    return about["codes"], [entry for entry in about["classes"] if entry["open"]]


def _classes(tables: Tables, findings: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """How many findings of each kind each class has; a finding counts for the class that it is about."""
    sizes = tables.labels["name"].value_counts()
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    chances: dict[str, float] = defaultdict(float)
    for finding in findings:
        name = finding["given"] if finding["given"] is not None else finding["suggested"]
        if name is not None:
            counts[name][finding["code"]] += 1
            chances[name] += finding["probability"] or 0.0
    rows = [
        {
            "name": name,
            "n": int(sizes.get(name, 0)),
            "open": counts[name].total() if name in counts else 0,
            "expected": chances[name] if chances[name] else None,
            "counts": dict(sorted(counts[name].items())),
        }
        for name in {**dict.fromkeys(tables.classes), **dict.fromkeys(counts)}
    ]
    return sorted(rows, key=lambda row: (-row["open"], -row["n"], row["name"]))


def boxes_of(
    tables: Tables, sample_ids: Sequence[str], found: pd.DataFrame | None = None
) -> dict[str, dict[str, Any]]:
    """The labeled boxes of some images, in pixels.

    Args:
        tables: a detection dataset.
        sample_ids: of the images.
        found: the signal `objects` of the dataset, when it is known.

    Returns:
        Of each image ``width`` and ``height`` in pixels (None where they aren't known), ``n`` (how many
        objects it has) and ``boxes``, at most 200: ``id``, ``name``, ``box`` and ``flags``.
    """
    if found is None:
        found = objects(tables.images, tables.labels, tables.task, tables.units)
    sizes = image_sizes(tables.images.loc[tables.images.index.isin(sample_ids)])
    mine = found[found["sample_id"].isin(sample_ids)]
    images: dict[str, dict[str, Any]] = {
        str(sample): {"width": _side(width), "height": _side(height), "n": 0, "boxes": []}
        for sample, width, height in zip(sizes.index, sizes["width"], sizes["height"], strict=True)
    }
    values = mine[list(CORNERS)].to_numpy(dtype=np.float64)
    flags = mine[list(FLAGS)].to_numpy(dtype=bool)
    columns = (mine.index, mine["sample_id"], mine["name"], values, flags, np.isfinite(values).all(axis=1))
    for label_id, sample, name, box, flagged, known in zip(*columns, strict=True):
        image = images[sample]
        image["n"] += 1
        if known and len(image["boxes"]) < MAX_BOXES:
            x1, y1, x2, y2 = box.tolist()
            named = [flag for flag, has in zip(FLAGS, flagged, strict=True) if has]
            image["boxes"].append(
                {"id": str(label_id), "name": str(name), "box": corners((x1, y1, x2, y2)), "flags": named}
            )
    return {sample: images[sample] for sample in sample_ids if sample in images}


def _side(value: float) -> int | None:
    return int(value) if np.isfinite(value) else None
