"""Decisions out to a table with all findings, and back from the tables of several people."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dataaudit.decisions.again import decided_again
from dataaudit.decisions.judging import Findings
from dataaudit.decisions.outcomes import EXACT, is_error, same_outcome
from dataaudit.decisions.recording import equal, history, record, said
from dataaudit.decisions.rows import REPORTED, Row, harmless, rows_of
from dataaudit.decisions.times import moment
from dataaudit.errors import InputError
from dataaudit.types import Decision, Finding, Report, Source

__all__ = ["Imported", "due", "export_csv", "import_files"]

_COLUMNS = ("finding", "verdict", "label", "box", "reviewer", "note", "at")
_ABOUT = ("code", "sample_id", "given", "suggested", "probability", "message")
_SAYABLE = ("relabel", "rename", "add", "move")
_KEY = re.compile("[0-9a-f]{12}")


@dataclass(frozen=True, kw_only=True)
class Imported:
    """What files of decisions brought.

    Attributes:
        new: the decisions that were recorded.
        known: how many rows said what was recorded already.
        left_out: file and line of each other row to the reason why it wasn't taken.
    """

    new: tuple[Decision, ...]
    known: int
    left_out: Mapping[str, str]


def due(report: Report) -> tuple[list[Decision], dict[str, str]]:
    """What was decided of the findings of a report, with the fixes as the files are now.

    Returns:
        The decisions that count, for `dataaudit.fix.plan`, and for each finding that was decided and has none
        the reason, by its key.

    Raises:
        InputError: tables without a source, or a damaged line of the decisions.
    """
    source, left_out, found = _source_of(report), {}, []
    kept = said(history(source))
    counted = {key: each.last for key, each in kept.items() if each.last is not None and not each.disputed}
    again = decided_again(report.items, counted, report.tables.images)
    findings = Findings(report, new_classes=True)
    for finding in report.items:
        decision = counted.get(finding.key) or again.get(finding.key)
        if decision is None:
            continue
        try:
            found.append(findings.again(finding, decision))
        except InputError as error:
            left_out[finding.key] = error.what
    return found, left_out


def export_csv(report: Report, path: str | Path, *, reviewer: str | None = None) -> int:
    """Write all findings with the decisions so far: the columns of ``findings.csv`` and when it was decided.

    A finding that several people decided has a row for each. `import_files` takes the file back, and what
    wasn't changed in it adds nothing.

    Args:
        report: the findings, of tables with a source.
        path: a CSV in UTF-8 with a byte order mark; no cell is a formula for a spreadsheet.
        reviewer: write only what this person decided, so that it can be filled in unaware of the others.

    Returns:
        How many decisions it holds.

    Raises:
        InputError: tables without a source, or a damaged line of the decisions.
    """
    kept, findings = said(history(_source_of(report))), Findings(report, new_classes=True)
    objects = report.tables.task == "detection"
    columns = [name for name in _COLUMNS if objects or name != "box"]
    out, n = io.StringIO(newline=""), 0
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow([*columns, *_ABOUT, *(REPORTED if objects else ())])
    for finding in report.items:
        about = [_cell(getattr(finding, name)) for name in _ABOUT]
        place = list(map(_cell, _place_of(finding, report))) if objects else []
        verdicts = kept[finding.key].verdicts if finding.key in kept else {}
        rows = [_answer(finding, each, findings) for who, each in verdicts.items() if reviewer in (None, who)]
        n += len(rows)
        for row in rows or [{}]:
            answer = {**row, "finding": finding.key}
            writer.writerow([*(_cell(answer.get(name)) for name in columns), *about, *place])
    Path(path).write_bytes(out.getvalue().encode("utf-8-sig"))
    return n


def import_files(
    report: Report,
    paths: Sequence[str | Path],
    *,
    reviewer: str | None = None,
    new_classes: bool = False,
) -> Imported:
    """Record the decisions of files, of one reviewer or of several; nothing where one of them has a slip.

    A row that says what its reviewer said already adds nothing, nor does one that is older than that. A row
    with the time of a recorded decision and another answer was changed by hand: it is decided now.

    Args:
        report: the findings, of tables with a source.
        paths: CSV or JSONL files, see `dataaudit.decisions.read`.
        reviewer: who decided the rows that name nobody.
        new_classes: accept labels that no sample has yet.

    Raises:
        InputError: a row that can't be understood, with file and line.
    """
    source, findings = _source_of(report), Findings(report, new_classes=new_classes)
    before: dict[tuple[str, str | None], list[Decision]] = {}
    for each in history(source):
        if each.rule is None:
            before.setdefault((each.finding, each.reviewer), []).append(each)
    new: list[Decision] = []
    known, left_out = 0, {}
    for row in _filled(paths):
        if _is_gone(row, findings):
            left_out[row.where] = f"there is no finding {row.text('finding')} any more"
            continue
        decision = findings.decide(row)
        decision = decision if decision.reviewer else replace(decision, reviewer=reviewer)
        own = before.setdefault((decision.finding, decision.reviewer), [])
        taken = _against(decision, own)
        if isinstance(taken, Decision):
            new.append(taken)
            own.append(taken)
        elif taken:
            left_out[row.where] = taken
        else:
            known += 1
    added = record(source, new)
    return Imported(new=tuple(added), known=known + len(new) - len(added), left_out=left_out)


def _source_of(report: Report) -> Source:
    if report.tables.source is None:
        raise InputError(
            "These tables were made by hand; nothing is kept beside them.",
            fix="Load the dataset from its files.",
        )
    return report.tables.source


def _filled(paths: Sequence[str | Path]) -> Iterator[Row]:
    return (row for path in paths for row in rows_of(Path(path)) if row.text("verdict"))


def _is_gone(row: Row, findings: Findings) -> bool:
    """Whether a row is about a finding of another audit, as one that was fixed since."""
    return bool(_KEY.fullmatch(row.text("finding"))) and row.text("finding") not in findings.by_key


def _against(decision: Decision, own: Sequence[Decision]) -> Decision | str | None:
    """What to record of a row, given what its reviewer said before; or why not; None where it is known."""
    last = own[-1] if own else None
    if decision.at is None:
        return None if last is not None and equal(last, decision) else decision
    at = moment(decision.at)
    same_time = [each for each in own if moment(each.at) == at]
    if any(equal(each, decision) for each in same_time):
        return None
    if same_time:
        return replace(decision, at=None)
    if last is not None and at < moment(last.at):
        return f"{decision.reviewer or 'the same person'} decided it again since"
    return decision


def _answer(finding: Finding, decision: Decision, findings: Findings) -> dict[str, Any]:
    """The answers of a row that say what was decided."""
    row: dict[str, Any] = {
        "verdict": decision.verdict,
        "reviewer": decision.reviewer,
        "note": decision.note,
        "at": decision.at,
    }
    proposed = replace(decision, verdict="accept", fix=finding.fix)
    accepts = decision.verdict == "accept" and same_outcome(proposed, decision, iou=EXACT)
    if decision.fix is not None and is_error(decision) and not accepts and decision.fix.op in _SAYABLE:
        label, box = findings.answer_of(decision.fix)
        row |= {"verdict": "other", "label": label}
        row["box"] = None if box is None else ", ".join(map(repr, box))
    return row


def _place_of(finding: Finding, report: Report) -> list[Any]:
    """The boxes of a finding in pixels, and where its label stands or would stand."""
    none = (None,) * 4
    labels, images = report.tables.labels, report.tables.images
    locator: Any = None
    if finding.item_id in labels.index:
        locator = labels.at[finding.item_id, "locator"]
    elif finding.sample_id in images.index:
        locator = images.at[finding.sample_id, "locator"]
    place = (None, None) if locator is None else (locator.file, locator.item)
    return [*(finding.box or none), *(finding.suggested_box or none), *place]


def _cell(value: Any) -> Any:
    return harmless(value) if isinstance(value, str) else value
