"""Findings as a table for spreadsheets, to be filled in and read again."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from dataaudit.decisions.rows import ANSWERS, CONTEXT, harmless
from dataaudit.types import Box, Finding, Report

__all__ = ["write_template"]

_BOXES = {"given_box": "box", "suggested_box": "suggested_box"}
_OF_OBJECTS = ("box", *_BOXES)


def write_template(report: Report, path: str | Path) -> None:
    """Write the findings as a CSV to fill in: empty answers, and beside them what each finding says."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\r\n")
    left_out = () if report.tables.task == "detection" else _OF_OBJECTS
    answers, context = ([name for name in names if name not in left_out] for names in (ANSWERS, CONTEXT))
    writer.writerow([*answers, *context])
    for finding in report.items:
        said = [_said(finding, name) for name in context]
        writer.writerow([finding.key, *[""] * (len(answers) - 1), *said])
    # With its mark, or a spreadsheet guesses wrong
    Path(path).write_bytes(out.getvalue().encode("utf-8-sig"))


def _said(finding: Finding, name: str) -> object:
    """A cell of a template."""
    if name in _BOXES:
        box = getattr(finding, _BOXES[name])
        return "" if box is None else _corners(box)
    value = getattr(finding, name)
    return harmless(value) if isinstance(value, str) else value


def _corners(box: Box) -> str:
    """Corners with a space between them, or a spreadsheet reads them as one number."""
    return ", ".join(f"{corner:.1f}" for corner in box)
