"""What ``dataaudit decisions`` says, as text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from dataaudit.decisions.exchange import export_csv, import_files
from dataaudit.decisions.outcomes import said_of
from dataaudit.decisions.recording import Said, history, record, said, withdrawal
from dataaudit.decisions.reviewers import Kappa, agreement, conflicts, settle
from dataaudit.errors import InputError
from dataaudit.types import Decision, Report, Source

__all__ = ["agreed", "disputed", "exported", "imported", "listed", "settled", "withdrawn"]


def exported(report: Report, path: Path, *, reviewer: str | None) -> Iterator[str]:
    """Write the table of `dataaudit.decisions.export_csv`, and say so."""
    n = export_csv(report, path, reviewer=reviewer)
    yield f"{path}: {_count(len(report.items), 'finding')}, {_count(n, 'decision')}."


def imported(report: Report, paths: Sequence[Path], *, reviewer: str | None) -> Iterator[str]:
    """Record the decisions of files with `dataaudit.decisions.import_files`, and say what they brought."""
    found = import_files(report, paths, reviewer=reviewer)
    for where, why in found.left_out.items():
        yield f"Left out {where}: {why}."
    source = report.tables.source
    assert source is not None
    yield f"{len(found.new):,} new, {found.known:,} known already, {len(found.left_out):,} left out."
    open_ones = conflicts(source)
    if open_ones:
        yield f"{_count(len(open_ones), 'conflict')} to settle: dataaudit decisions conflicts {source.path}"


def listed(source: Source, *, reviewer: str | None, everything: bool) -> Iterator[str]:
    """What stands of each reviewer, or each line that was ever recorded, oldest first."""
    lines = history(source)
    if not everything:
        kept = said(lines).values()
        lines = [each for one in kept for each in _standing(one)]
    shown = [each for each in lines if reviewer is None or each.reviewer == reviewer]
    for each in shown:
        what = each.verdict if each.fix is None else f"{each.verdict}: {said_of(each.fix)}"
        note = f"  ({_line(each.note)})" if each.note else ""
        yield _row(each.finding, each.at, each.reviewer, each.code, each.item_id, what) + note
    if not shown:
        yield "There are no decisions yet."


def disputed(source: Source) -> Iterator[str]:
    """The findings that two people decided differently."""
    found = conflicts(source)
    for each in found:
        one = each.decisions[0]
        yield _row(each.finding, one.code, one.item_id)
        for decision in each.decisions:
            what = "keep" if decision.fix is None else f"{decision.verdict}: {said_of(decision.fix)}"
            yield "  " + _row(decision.at, decision.reviewer, what)
    how = f" Settle: dataaudit decisions settle {source.path} --rule latest, majority or by:NAME"
    yield f"{_count(len(found), 'conflict')}.{how if found else ''}"


def agreed(source: Source) -> Iterator[str]:
    """How far each pair of reviewers agrees."""
    found = agreement(source)
    for each in found:
        yield f"{each.one or 'someone'} and {each.two or 'someone'}, {_count(each.error.n, 'finding')}:"
        yield f"  error or not  {_agreement(each.error)}"
        yield f"  final label   {_agreement(each.label)}"
    if not found:
        yield "No two people have decided the same finding. A second opinion: dataaudit review --second"


def settled(
    source: Source, *, rule: str, reviewer: str | None, findings: Sequence[str] | None
) -> Iterator[str]:
    """Settle conflicts with `dataaudit.decisions.settle`, and say which."""
    found = settle(source, rule, reviewer=reviewer, findings=findings or None)
    for each in found.decisions:
        what = "keep" if each.fix is None else said_of(each.fix)
        yield _row(each.finding, each.code, each.item_id, what)
    for key, why in found.left_out.items():
        yield f"Left open {key}: {_line(why)}"
    yield f"{len(found.decisions):,} settled, {len(found.left_out):,} left open."


def withdrawn(source: Source, keys: Sequence[str], *, reviewer: str | None) -> Iterator[str]:
    """Take decisions back, each of the reviewer's or of the only person who decided.

    Raises:
        InputError: a finding that nobody decided, or several people where no reviewer is named.
    """
    kept = said(history(source))
    made = record(source, [withdrawal(_to_withdraw(key, kept.get(key), reviewer)) for key in keys])
    yield f"Withdrew {_count(len(made), 'decision')}."


def _to_withdraw(key: str, kept: Said | None, reviewer: str | None) -> Decision:
    stands = [] if kept is None else _standing(kept)
    own = [each for each in stands if reviewer is None or each.reviewer == reviewer]
    names = sorted({each.reviewer or "someone" for each in own})
    if not own:
        who = reviewer or "Nobody"
        raise InputError(
            f"{who} has decided nothing of the finding {key!r}.",
            fix="The keys: dataaudit decisions list DIR",
        )
    if len(names) > 1:
        raise InputError(f"{', '.join(names)} decided the finding {key}.", fix="Say whose: --reviewer NAME")
    return own[0]


def _standing(kept: Said) -> list[Decision]:
    return [*kept.verdicts.values(), *([kept.settled] if kept.settled is not None else [])]


def _agreement(found: Kappa) -> str:
    if found.kappa is None:
        return f"{found.raw:.0%} the same; no kappa, as all answers are alike"
    return f"{found.raw:.0%} the same, Cohen's kappa {found.kappa:.2f} ({found.low:.2f} to {found.high:.2f})"


def _row(*cells: str | None) -> str:
    return "  ".join(_line(cell or "-") for cell in cells)


def _line(text: str | None) -> str:
    """A text without what would end the line or steer the terminal."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text or "")


def _count(n: int, noun: str) -> str:
    return f"{n:,} {noun}{'' if n == 1 else 's'}"
