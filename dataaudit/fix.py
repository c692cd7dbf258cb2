"""Fixes: planned from a report, applied to the files, and taken back. Nothing else edits a dataset."""

from __future__ import annotations

import gzip
import json
import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from dataaudit import decisions as decided
from dataaudit import formats, journal, state
from dataaudit.errors import ConflictError, InputError, nearest
from dataaudit.types import Decision, Finding, Fix, Report, Source, Tables

__all__ = ["Applied", "Plan", "Planned", "Undone", "apply", "history", "plan", "undo"]


@dataclass(frozen=True, kw_only=True)
class Planned:
    """A fix and the finding that it follows from.

    Attributes:
        fix: the edit.
        finding: key of the finding.
        code: code of the check.
        score: the finding's score in [0, 1], 0 surely wrong.
        probability: calibrated chance that it is a real error, or None.
        decided: whether a person decided it, not the probability.
        reviewer: who decided, where that is known.
    """

    fix: Fix
    finding: str
    code: str
    score: float
    probability: float | None
    decided: bool = False
    reviewer: str | None = None


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
    probable finding before the less probable one. What a duplicate is merged into is never dropped.

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
    by_key = {decision.finding: decision for decision in decisions or ()}
    findings = _of_codes(report, codes)
    asked = [*_accepted(findings, by_key), *_probable(findings, by_key, min_probability)]
    candidates = _renamed(asked, report.tables)
    chosen, left_out = _one_a_label(candidates)
    chosen, orphans = _keep_merged(chosen)
    items = sorted(chosen, key=lambda item: _place(item.fix))
    return Plan(source=source, items=tuple(items), left_out={**left_out, **orphans})


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
    kept, undone = _way_back(folder, operations)
    application = uuid.uuid4().hex[:12]
    lines = [_line(item, application, reviewer) for item in plan.items]
    lines[0]["undo"] = undone
    state.prepare(source)
    journal.commit(folder, [*operations, *kept, _append(ledger, lines)])
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
    standing = _standing(source)
    if not standing:
        raise InputError("There is nothing to take back: no fix stands.", where=state.ledger_file(source))
    if not 1 <= steps <= len(standing):
        raise InputError(
            f"{steps} applications are to be taken back; the ledger holds {len(standing)}.",
            where=state.ledger_file(source),
        )
    back = standing[::-1][:steps]
    for lines in back:
        operations = [_operation(folder, record) for record in lines[0]["undo"]]
        entry = {
            "id": uuid.uuid4().hex[:12],
            "at": _now(),
            "op": "undo",
            "undoes": lines[0]["id"],
            "fixes": len(lines),
        }
        journal.commit(folder, [*operations, _append(state.ledger_file(source), [entry])])
    return Undone(ids=tuple(lines[0]["id"] for lines in back), fixes=sum(len(lines) for lines in back))


def history(source: Source) -> list[dict[str, Any]]:
    """The lines of the ledger, oldest first: a line for each fix, and one with the op ``undo`` for each undo.

    Raises:
        InputError: a damaged line, with file and line.
    """
    return list(_ledger(state.ledger_file(source)))


# Choosing


def _of_codes(report: Report, codes: Sequence[str]) -> list[Finding]:
    known = {*report.outcomes, *report.skipped, *(finding.code for finding in report.items)}
    for code in codes:
        if not code or not any(each.startswith(code) for each in known):
            raise InputError(
                f"The report has no check whose code begins with {code!r}. {nearest(code, known)}"
            )
    return [finding for finding in report.items if not codes or finding.code.startswith(tuple(codes))]


def _accepted(findings: Sequence[Finding], by_key: Mapping[str, Decision]) -> list[Planned]:
    chosen = []
    for finding in findings:
        decision = by_key.get(finding.key)
        if decision is None or decision.verdict not in ("accept", "other"):
            continue
        fix = decision.fix or (finding.fix if decision.verdict == "accept" else None)
        if fix is None:
            raise InputError(
                f"The decision {decision.verdict!r} on the finding {finding.key} comes without a fix."
            )
        chosen.append(_planned(finding, fix, decision))
    return chosen


def _probable(
    findings: Sequence[Finding], by_key: Mapping[str, Decision], min_probability: float | None
) -> list[Planned]:
    if min_probability is None:
        return []
    verdicts = {finding.key: _verdict(finding, by_key) for finding in findings}
    stay = {
        finding.fix.label_id
        for finding in findings
        if finding.fix is not None and not _takes_out(finding.fix) and verdicts[finding.key] == "keep"
    }
    return [
        _planned(finding, finding.fix, None)
        for finding in findings
        if finding.fix is not None
        and finding.key not in by_key
        and verdicts[finding.key] in (None, "accept")
        and finding.probability is not None
        and finding.probability >= min_probability
        and (_takes_out(finding.fix) or finding.fix.label_id not in stay)
    ]


def _verdict(finding: Finding, by_key: Mapping[str, Decision]) -> str | None:
    return by_key[finding.key].verdict if finding.key in by_key else finding.decision


def _planned(finding: Finding, fix: Fix, decision: Decision | None) -> Planned:
    return Planned(
        fix=fix,
        finding=finding.key,
        code=finding.code,
        score=finding.score,
        probability=finding.probability,
        decided=decision is not None,
        reviewer=decision.reviewer if decision is not None else None,
    )


def _weight(item: Planned) -> tuple[bool, bool, float]:
    return item.decided, _takes_out(item.fix), item.probability or 0.0


def _takes_out(fix: Fix) -> bool:
    return fix.op in ("drop", "merge")


def _renamed(asked: Sequence[Planned], tables: Tables) -> list[Planned]:
    """Each renaming of a class as a fix of each of its labels, but for those with a decision of their own."""
    renames = {item.fix.old: item for item in asked if item.fix.op == "rename"}
    if not renames:
        return list(asked)
    into = {old: str(item.fix.new) for old, item in renames.items()}
    others = []
    for item in asked:
        if item.fix.op == "relabel" and item.fix.new in into:
            item = replace(item, fix=replace(item.fix, new=into[item.fix.new]))
        stays = item.fix.op == "relabel" and item.fix.old == item.fix.new
        if item.fix.op != "rename" and not stays:
            others.append(item)
    decided = {item.fix.label_id for item in others if item.decided}
    labels = tables.labels[tables.labels["name"].isin(list(into)) & ~tables.labels.index.isin(decided)]
    has = set(zip(tables.labels["sample_id"], tables.labels["name"], strict=True))
    for label_id, sample_id, name, locator in zip(
        labels.index, labels["sample_id"], labels["name"], labels["locator"], strict=True
    ):
        item, twice = renames[name], (sample_id, into[name]) in has
        fix = Fix(
            op="remove" if twice else "relabel", sample_id=str(sample_id), label_id=str(label_id),
            locator=locator, old=name, new=None if twice else into[name],
        )  # fmt: skip
        others.append(replace(item, fix=fix))
    return others


def _one_a_label(candidates: Sequence[Planned]) -> tuple[list[Planned], dict[str, str]]:
    """The weightiest fix of each label; where that is to take the sample out, it alone."""
    chosen: dict[str, list[Planned]] = {}
    left_out = {}
    for item in sorted(candidates, key=_weight, reverse=True):
        others = chosen.setdefault(item.fix.sample_id, [])
        winner = next((other for other in others if _excludes(other.fix, item.fix)), None)
        if winner is None:
            others.append(item)
            continue
        _check_agreement(item, winner)
        left_out[item.finding] = f"{winner.code} fixes {item.fix.sample_id} already"
    return [item for items in chosen.values() for item in items], left_out


def _excludes(one: Fix, other: Fix) -> bool:
    """Whether two fixes of a sample can't both be applied, or are the same."""
    gives_the_same = one.new is not None and one.new == other.new
    return _takes_out(one) or _takes_out(other) or one.label_id == other.label_id or gives_the_same


def _check_agreement(one: Planned, other: Planned) -> None:
    if (
        one.decided
        and other.decided
        and one.fix.op == other.fix.op == "relabel"
        and one.fix.label_id == other.fix.label_id
        and one.fix.new != other.fix.new
    ):
        raise InputError(
            f"Two decisions contradict each other: {one.fix.sample_id} becomes {other.fix.new!r} by "
            f"{other.finding} and {one.fix.new!r} by {one.finding}.",
            fix="Change one of them to 'skip'.",
        )


def _keep_merged(chosen: Sequence[Planned]) -> tuple[list[Planned], dict[str, str]]:
    """Leave out merges whose kept sample would go too, so that no group of duplicates goes as a whole."""
    gone = {item.fix.sample_id for item in chosen if item.fix.op == "drop"}
    needed: set[str | None] = set()
    kept, left_out = [], {}
    for item in sorted(chosen, key=_weight, reverse=True):
        fix = item.fix
        if fix.op == "merge" and (fix.new in gone or fix.sample_id in needed):
            left_out[item.finding] = (
                f"{fix.new if fix.new in gone else fix.sample_id} is kept or dropped by another fix"
            )
            continue
        if fix.op == "merge":
            gone.add(fix.sample_id)
            needed.add(fix.new)
        kept.append(item)
    return kept, left_out


def _place(fix: Fix) -> tuple[str, int, str]:
    item = fix.locator.item
    return (fix.locator.file, item, "") if isinstance(item, int) else (fix.locator.file, -1, str(item))


# Showing


def _shown(source: Source, fix: Fix, moves: Mapping[Path, Path]) -> Iterator[str]:
    reason = f"  (the same image as {fix.new})" if fix.op == "merge" else ""
    path = source.root / fix.sample_id if source.root is not None else None
    if path is not None and path in moves:
        base = source.anchor if _takes_out(fix) else source.root
        yield f"--- {fix.sample_id}"
        yield f"+++ {os.path.relpath(moves[path], base).replace(os.sep, '/')}{reason}"
        return
    yield f"--- {fix.locator.file}"
    yield f"+++ {fix.locator.file}"
    yield f"@@ {fix.locator} @@ {fix.sample_id}{reason}"
    if fix.op != "add":
        yield f"-{_printable(fix.old)}"
    if fix.op in ("relabel", "add"):
        yield f"+{_printable(fix.new)}"


def _printable(name: str | None) -> str:
    return name if name is not None and name.isprintable() else "" if name is None else repr(name)


# The ledger


def _line(item: Planned, application: str, reviewer: str | None) -> dict[str, Any]:
    fix = item.fix
    return {
        "id": application,
        "at": _now(),
        "reviewer": item.reviewer or reviewer,
        "op": fix.op,
        "sample_id": fix.sample_id,
        "label_id": fix.label_id,
        "locator": asdict(fix.locator),
        "old": fix.old,
        "new": fix.new,
        **{name: box for name, box in (("old_box", fix.old_box), ("box", fix.box)) if box is not None},
        "code": item.code,
        "finding": item.finding,
        "score": item.score,
        "probability": item.probability,
    }


def _way_back(
    folder: Path, operations: Sequence[journal.Operation]
) -> tuple[list[journal.Operation], list[dict[str, Any]]]:
    """What has to be kept for an undo, and the records of the undo."""
    kept: list[journal.Operation] = []
    undone = journal.invert(folder, [each for each in operations if not isinstance(each, journal.Write)])
    for operation in operations:
        if not isinstance(operation, journal.Write):
            continue
        name = f"dropped/{operation.old_md5}{operation.path.suffix}.gz"
        if not (folder / name).exists():  # named by its content: there already after an undo
            content = gzip.compress(operation.path.read_bytes(), mtime=0)
            kept.append(journal.Write(path=folder / name, old_md5=None, content=content))
        back = journal.Write(path=operation.path, old_md5=journal.md5(operation.content), content=b"")
        undone.append({**journal.to_record(folder, back), "content": None, "kept": name})
    return kept, undone


def _operation(folder: Path, record: Mapping[str, Any]) -> journal.Operation:
    if "kept" not in record:
        return journal.from_record(folder, record)
    kept = folder / record["kept"]
    if not kept.exists():
        raise ConflictError(
            "The bytes from before the fix are gone.", where=kept, fix="Check out a version instead."
        )
    content = gzip.decompress(kept.read_bytes()).decode("latin-1")
    return journal.from_record(
        folder, {**{k: v for k, v in record.items() if k != "kept"}, "content": content}
    )


def _standing(source: Source) -> list[list[dict[str, Any]]]:
    """The lines of each application that hasn't been taken back, oldest first."""
    standing: dict[str, list[dict[str, Any]]] = {}
    for line in _ledger(state.ledger_file(source)):
        if line["op"] == "undo":
            standing.pop(line["undoes"], None)
        else:
            standing.setdefault(line["id"], []).append(line)
    return list(standing.values())


def _ledger(path: Path) -> Iterator[dict[str, Any]]:
    lines = path.read_bytes().decode(errors="replace").split("\n") if path.exists() else []
    for number, text in enumerate(lines, start=1):
        try:
            line = json.loads(text or "{}")
            if not line:
                continue
            line["op"], line["id"]
        except (ValueError, KeyError, TypeError):
            if number == len(lines):
                return  # a line whose writing was interrupted; the next one takes its place
            raise InputError("The line of the ledger can't be read.", where=f"{path}:{number}") from None
        yield line


def _append(path: Path, lines: Sequence[Mapping[str, Any]]) -> journal.Append:
    return journal.Append(path=path, lines=tuple(json.dumps(line, ensure_ascii=False) for line in lines))


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
