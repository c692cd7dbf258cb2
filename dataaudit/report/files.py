"""The report as files: HTML, JSON and the findings as Parquet and CSV."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dataaudit import state
from dataaudit.report.html import to_html
from dataaudit.report.machine import to_json
from dataaudit.report.summary import as_summary
from dataaudit.report.text import spreadsheet_safe, storable
from dataaudit.types import Report
from dataaudit.worklist import Worklist, worklist_of

__all__ = ["CSV_COLUMNS", "replace_file", "write", "write_html"]

CSV_COLUMNS = (
    "finding", "verdict", "label", "reviewer", "note",
    "code", "sample_id", "given", "suggested", "probability", "message",
)  # fmt: skip
"""Columns of findings.csv; with the second to fifth filled in it is a decisions file."""

ANSWERS = ("verdict", "label", "box", "reviewer", "note")
"""Those that are empty, for a person to fill in; the box is asked for of objects only."""

BOX_COLUMNS = ("x1", "y1", "x2", "y2", "new_x1", "new_y1", "new_x2", "new_y2")
"""Further columns of a detection dataset: the box and the proposed one, in pixels."""

PLACE_COLUMNS = ("label_file", "label_item")
"""And where the label stands, or a new one would."""

_PARQUET_TEXT = ("key", "code", "item_id", "sample_id", "given", "suggested", "message", "decision", "group")


def write(
    report: Report | Mapping[str, Any],
    folder: str | Path,
    *,
    thumbnails: Path | None = None,
    worklist: Worklist | None = None,
) -> dict[str, Path]:
    """Write a report in each form, each file whole or not at all.

    Args:
        report: a report or its summary.
        folder: where the files go; made where it doesn't exist.
        thumbnails: where thumbnails are kept by content; the cache of a report's dataset when left out.
        worklist: of the same report, for the review in the page; made of a report when left out.

    Returns:
        The path of each file by its name: ``report.html``, ``report.json``, ``findings.parquet`` and
        ``findings.csv``.
    """
    source = report.tables.source if isinstance(report, Report) else None
    if thumbnails is None and source is not None:
        thumbnails = state.cache_dir(source) / "thumbnails"
    if worklist is None and isinstance(report, Report):
        worklist = worklist_of(report)
    summary = as_summary(report)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    page = to_html(summary, thumbnails=thumbnails, worklist=worklist, folder=folder)
    contents = {
        "report.html": storable(page).encode(),
        "report.json": to_json(summary).encode(),
        "findings.parquet": _parquet(summary),
        "findings.csv": _csv(summary).encode("utf-8-sig"),
    }
    return {name: replace_file(folder / name, content) for name, content in contents.items()}


def write_html(
    report: Report | Mapping[str, Any], path: str | Path, *, thumbnails: Path | None = None
) -> Path:
    """Write the HTML report, whole or not at all.

    Args:
        report: a report or its summary.
        path: the file; its folder is made where it doesn't exist.
        thumbnails: folder where thumbnails are kept by content, or None.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    page = to_html(report, thumbnails=thumbnails, folder=path.parent)
    return replace_file(path, storable(page).encode())


def replace_file(path: Path, content: bytes) -> Path:
    """Write a file, whole or not at all."""
    staged = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        staged.write_bytes(content)
        staged.replace(path)
    finally:
        staged.unlink(missing_ok=True)
    return path


def _csv(summary: Mapping[str, Any]) -> str:
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\r\n")
    columns: tuple[str, ...] = CSV_COLUMNS
    if summary.get("objects") is not None:
        columns = (*columns[:3], "box", *columns[3:], *BOX_COLUMNS, *PLACE_COLUMNS)
    writer.writerow(columns)
    for finding in summary["findings"]:
        row = {**finding, **_box_cells(finding), **dict.fromkeys(ANSWERS, ""), "finding": finding["key"]}
        cells = (row[column] for column in columns)
        writer.writerow(
            [spreadsheet_safe(storable(cell) if isinstance(cell, str) else cell) for cell in cells]
        )
    return out.getvalue()


def _box_cells(finding: Mapping[str, Any]) -> dict[str, Any]:
    none, locator = [None] * 4, finding["locator"] or {"file": None, "item": None}
    corners = (finding.get("box") or none) + (finding.get("suggested_box") or none)
    item = locator["item"]
    place = {"label_file": locator["file"], "label_item": None if item is None else str(item)}
    return dict(zip(BOX_COLUMNS, corners, strict=True)) | place


def _parquet(summary: Mapping[str, Any]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    findings = summary["findings"]
    columns: dict[str, Any] = {
        name: pa.array([None if row[name] is None else storable(row[name]) for row in findings], pa.string())
        for name in _PARQUET_TEXT
    }
    for name in ("score", "probability"):
        columns[name] = pa.array([row[name] for row in findings], pa.float64())
    for name in ("evidence", "fix"):
        texts = [None if row[name] is None else storable(json.dumps(row[name])) for row in findings]
        columns[name] = pa.array(texts, pa.string())
    if summary.get("objects") is not None:
        cells = [_box_cells(row) for row in findings]
        for name in BOX_COLUMNS:
            columns[name] = pa.array([row[name] for row in cells], pa.float64())
        for name in PLACE_COLUMNS:
            texts = [None if row[name] is None else storable(row[name]) for row in cells]
            columns[name] = pa.array(texts, pa.string())
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink, compression="zstd")
    return sink.getvalue()
