"""Decisions of people: read from tables, kept beside the dataset, compared, settled and looked up."""

from __future__ import annotations

from dataaudit.decisions.again import known_again
from dataaudit.decisions.history import (
    by_reviewer,
    fix_from_json,
    fix_to_json,
    history,
    latest,
    record,
    withdrawal,
)
from dataaudit.decisions.judging import Findings
from dataaudit.decisions.outcomes import SAME
from dataaudit.decisions.reading import read
from dataaudit.decisions.spreadsheet import write_template

__all__ = [
    "SAME",
    "Findings",
    "by_reviewer",
    "fix_from_json",
    "fix_to_json",
    "history",
    "known_again",
    "latest",
    "read",
    "record",
    "withdrawal",
    "write_template",
]
