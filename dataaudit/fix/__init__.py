"""Fixes: planned from a report, applied to the files, and taken back. Nothing else edits a dataset."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dataaudit import decisions as decided
from dataaudit import formats, journal, state
from dataaudit.errors import InputError
from dataaudit.fix import ledger as records
from dataaudit.fix.choosing import Planned, choose, takes_out
from dataaudit.types import Box, Decision, Fix, Report, Source

__all__ = ["Applied", "Plan", "Planned", "Undone", "apply", "history", "plan", "undo"]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Fixes to apply, in the order of the places they edit.

    Attributes:
        source: the dataset.
        items: at most one fix a label; of a sample that is taken out no other.
        left_out: key of a finding to the reason why its fix is not in the plan although it was asked for.
    """

    source: Source
    items: tuple[Planned, ...]
    left_out: Mapping[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.items)

    @property
    def fixes(self) -> tuple[Fix, ...]:
        """The fixes alone."""
        return tuple(item.fix for item in self.items)

    def diff(self) -> str:
        """What applying would do, in the manner of a unified diff; nothing is changed.

        Raises:
            ConflictError: the files no longer hold what the plan expects.
        """
        operations = formats.patch(self.source, self.fixes)
        moves = {
            operation.src: operation.dst for operation in operations if isinstance(operation, journal.Move)
        }
        return "".join(line + "\n" for item in self.items for line in _shown(self.source, item.fix, moves))


@dataclass(frozen=True, kw_only=True)
class Applied:
    """What was applied.

    Attributes:
        id: names this application in the ledger; None for an empty plan.
        source: the dataset.
        fixes: the fixes.
        ledger: the file that they are recorded in.
    """

    id: str | None
    source: Source
    fixes: tuple[Fix, ...]
    ledger: Path


@dataclass(frozen=True, kw_only=True)
class Undone:
    """What was taken back: ids of the applications, the last one first, and the number of their fixes."""

    ids: tuple[str, ...]
    fixes: int


def plan(
    report: Report,
    *,
    min_probability: float | None = None,
    codes: Sequence[str] = (),
    decisions: str | Path | Sequence[Decision] | None = None,
) -> Plan:
    """Choose the fixes to apply.

    A person's decision goes before a probability, dropping a sample before relabeling it, and the more
    probable finding before the less probable one. What a duplicate is merged into is never dropped. Of an
    object the class or the box is changed, not both at once, and no object is put where another fix puts the
    same one; what was left out for that comes back with the next audit. What two people decided differently
    is left out until it is settled.

    Args:
        report: the audit's result.
        min_probability: take the fixes of findings that are at least this probable, in [0, 1], unless a
            person decided otherwise.
        codes: codes or prefixes, such as ``LBL``; empty takes every check.
        decisions: a file of decisions or the decisions themselves; takes what they accept.

    Raises:
        InputError: nothing to choose by, tables without a source, the report of an old version, or decisions
            that contradict each other.
    """
    source = report.tables.source
    if source is None:
        raise InputError(
            "These tables were made by hand; there are no files to fix.",
            fix="Load the dataset from its files.",
        )
    if "rev" in source.options:
        raise InputError(
            f"The report is of the version {source.options['rev']}, which never changes.",
            where=source.path,
            fix="Audit the working copy, or check the version out first, and plan from that report.",
        )
    if min_probability is None and decisions is None:
        raise InputError("Nothing says which fixes to take.", fix="Give min_probability or decisions.")
    if min_probability is not None and not 0 <= min_probability <= 1:
        raise InputError(f"min_probability is {min_probability}; expected a number from 0 to 1.")
    if isinstance(decisions, str | Path):
        decisions = decided.read(decisions, report)
    by_key, disputed = decided.weighed(source, decisions or ())
    items, left_out = choose(report, by_key, min_probability, codes)
    for finding in report.items:
        if finding.key in disputed and (not codes or finding.code.startswith(tuple(codes))):
            left_out[finding.key] = disputed[finding.key]
    return Plan(source=source, items=items, left_out=left_out)


def apply(plan: Plan, *, reviewer: str | None = None) -> Applied:
    """Apply a plan to the files, all of it or nothing, and record it in the ledger.

    Args:
        plan: the fixes.
        reviewer: who stands for those fixes that no reviewer decided.

    Raises:
        ConflictError: a file no longer holds what a fix expects, or one is in the way; nothing was changed.
    """
    source, ledger = plan.source, state.ledger_file(plan.source)
    if not plan.items:
        return Applied(id=None, source=source, fixes=(), ledger=ledger)
    folder = state.state_dir(source)
    journal.recover(folder)
    operations = formats.patch(source, plan.fixes)
    kept, undone = records.way_back(folder, operations)
    application = uuid.uuid4().hex[:12]
    lines = [records.line_of(item, application, reviewer) for item in plan.items]
    lines[0]["undo"] = undone
    state.prepare(source)
    journal.commit(folder, [*operations, *kept, records.append(ledger, lines)])
    return Applied(id=application, source=source, fixes=plan.fixes, ledger=ledger)


def undo(dataset: str | Path | Source, *, steps: int = 1) -> Undone:
    """Take back the last application of fixes, to the same bytes; again, and the one before it.

    Args:
        dataset: the path, or the source of its tables.
        steps: number of applications to take back.

    Raises:
        InputError: fewer applications in the ledger.
        ConflictError: a file was changed since; nothing more was changed.
    """
    source = dataset if isinstance(dataset, Source) else formats.read(dataset).source
    if source is None:
        raise InputError("This dataset has no files to restore.")
    folder = state.state_dir(source)
    journal.recover(folder)
    standing = records.standing(source)
    if not standing:
        raise InputError("There is nothing to take back: no fix stands.", where=state.ledger_file(source))
    if not 1 <= steps <= len(standing):
        raise InputError(
            f"{steps} applications are to be taken back; the ledger holds {len(standing)}.",
            where=state.ledger_file(source),
        )
    back = standing[::-1][:steps]
    for lines in back:
        operations = [records.operation(folder, record) for record in lines[0]["undo"]]
        entry = {
            "id": uuid.uuid4().hex[:12],
            "at": records.now(),
            "op": "undo",
            "undoes": lines[0]["id"],
            "fixes": len(lines),
        }
        journal.commit(folder, [*operations, records.append(state.ledger_file(source), [entry])])
    return Undone(ids=tuple(lines[0]["id"] for lines in back), fixes=sum(len(lines) for lines in back))


def history(source: Source) -> list[dict[str, Any]]:
    """The lines of the ledger, oldest first: a line for each fix, and one with the op ``undo`` for each undo.

    Raises:
        InputError: a damaged line, with file and line.
    """
    return list(records.read(state.ledger_file(source)))


# Showing


def _shown(source: Source, fix: Fix, moves: Mapping[Path, Path]) -> Iterator[str]:
    reason = f"  (the same image as {fix.new})" if fix.op == "merge" else ""
    path = source.root / fix.sample_id if source.root is not None else None
    if path is not None and path in moves:
        base = source.anchor if takes_out(fix) else source.root
        yield f"--- {fix.sample_id}"
        yield f"+++ {os.path.relpath(moves[path], base).replace(os.sep, '/')}{reason}"
        return
    yield f"--- {fix.locator.file}"
    yield f"+++ {fix.locator.file}"
    yield f"@@ {fix.locator} @@ {fix.sample_id}{reason}"
    if fix.op != "add":
        gone = fix.sample_id if takes_out(fix) and fix.old is None else _printable(fix.old)
        yield f"-{gone}{_corners(fix.old_box)}"
    if fix.op in ("relabel", "add", "move"):
        yield f"+{_printable(fix.new)}{_corners(fix.box if fix.op != 'relabel' else fix.old_box)}"


def _printable(name: str | None) -> str:
    return name if name is not None and name.isprintable() else "" if name is None else repr(name)


def _corners(box: Box | None) -> str:
    """The corners as they are in the tables, behind a class."""
    return "" if box is None else f" ({', '.join(f'{corner:.6g}' for corner in box)})"
