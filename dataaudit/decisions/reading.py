"""Decisions read from a table that people filled in."""

from __future__ import annotations

from pathlib import Path

from dataaudit.decisions.judging import Findings
from dataaudit.decisions.rows import rows_of
from dataaudit.types import Decision, Report

__all__ = ["read"]


def read(path: str | Path, report: Report, *, new_classes: bool = False) -> list[Decision]:
    """Read decisions from a CSV or JSONL file.

    Args:
        path: columns ``finding`` (a key, or ``CODE:sample_id``), ``verdict``, ``label`` (for ``other``),
            ``box`` (for ``other`` of an object: its corners ``x1, y1, x2, y2`` in pixels), ``reviewer`` and
            ``note``; the other columns of a template may stay. Rows without a verdict are left out.
        report: the report whose findings were decided.
        new_classes: accept a label that no sample has yet; otherwise it is taken for a slip.

    Returns:
        The decisions in the order of the rows, each ``accept`` and ``other`` with its fix.

    Raises:
        InputError: an unknown column, finding, verdict or label, or a box that can't be read, with file and
            line.
    """
    findings = Findings(report, new_classes=new_classes)
    return [findings.decide(row) for row in rows_of(Path(path)) if row.text("verdict")]
