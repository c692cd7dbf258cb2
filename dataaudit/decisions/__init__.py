"""Decisions of people: read from tables, kept beside the dataset, compared, settled and looked up."""

from __future__ import annotations

from dataaudit.decisions.again import known_again
from dataaudit.decisions.exchange import Imported, due, export_csv, import_files
from dataaudit.decisions.judging import Findings
from dataaudit.decisions.outcomes import SAME
from dataaudit.decisions.reading import read
from dataaudit.decisions.recording import (
    by_reviewer,
    fix_from_json,
    fix_to_json,
    history,
    latest,
    record,
    withdrawal,
)
from dataaudit.decisions.reviewers import (
    Agreement,
    Conflict,
    Kappa,
    Settled,
    agreement,
    conflicts,
    second,
    settle,
    standing,
    weighed,
)
from dataaudit.decisions.spreadsheet import write_template

__all__ = [
    "SAME",
    "Agreement",
    "Conflict",
    "Findings",
    "Imported",
    "Kappa",
    "Settled",
    "agreement",
    "by_reviewer",
    "conflicts",
    "due",
    "export_csv",
    "fix_from_json",
    "fix_to_json",
    "history",
    "import_files",
    "known_again",
    "latest",
    "read",
    "record",
    "second",
    "settle",
    "standing",
    "weighed",
    "withdrawal",
    "write_template",
]
