"""The decisions kept beside a dataset: appended, never changed, and read as a history or as what stands.

A line of ``decisions.jsonl`` is on the disk when `record` returns. Whoever isn't sure whether a decision was
recorded records it again: what equals the reviewer's last word on the finding adds no line.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from dataaudit import journal, state
from dataaudit.decisions.outcomes import EXACT, answered, same_outcome
from dataaudit.decisions.rows import JUDGED, Row, json_rows
from dataaudit.decisions.times import moment, now
from dataaudit.errors import DataAuditError, InputError
from dataaudit.types import WITHDRAW, Decision, Fix, Locator, Source

__all__ = [
    "Said",
    "by_reviewer",
    "equal",
    "fix_from_json",
    "fix_to_json",
    "history",
    "latest",
    "record",
    "said",
    "withdrawal",
]

_FEW = 20
"""Up to how many decisions are looked for one by one in the file instead of reading all of it."""


@dataclass(frozen=True, kw_only=True)
class Said:
    """What people have said of one finding and not taken back.

    Attributes:
        verdicts: the last of each reviewer, in the order in which they were recorded.
        settled: the decision that settled a conflict of theirs and holds still, or None.
    """

    verdicts: Mapping[str | None, Decision] = field(default_factory=dict)
    settled: Decision | None = None

    @property
    def answers(self) -> list[Decision]:
        """The verdicts that aren't ``skip``."""
        return [each for each in self.verdicts.values() if answered(each)]

    @property
    def disputed(self) -> bool:
        """Whether two reviewers would do different things, and nothing settled it."""
        answers = self.answers
        return self.settled is None and any(
            not same_outcome(one, other) for n, one in enumerate(answers) for other in answers[n + 1 :]
        )

    @property
    def last(self) -> Decision | None:
        """What settled it, else the last verdict of anyone; ``skip`` only where nobody answered."""
        if self.settled is not None:
            return self.settled
        said = self.answers or list(self.verdicts.values())
        return said[-1] if said else None

    def lacks(self, decision: Decision) -> bool:
        """Whether a decision says more than its reviewer's last word, or withdraws one."""
        own = self.verdicts.get(decision.reviewer)
        if decision.verdict == WITHDRAW:
            return own is not None or (
                self.settled is not None and self.settled.reviewer == decision.reviewer
            )
        before = own if decision.rule is None else self.settled
        return before is None or not equal(before, decision)

    def then(self, decision: Decision) -> Said:
        """What has been said after one more decision on the finding."""
        who = decision.reviewer
        if decision.rule is not None:
            return replace(self, settled=decision)
        others = {name: each for name, each in self.verdicts.items() if name != who}
        settled = self.settled
        if decision.verdict == WITHDRAW:
            own = settled is not None and settled.reviewer == who
            return Said(verdicts=others, settled=None if own else settled)
        # A new answer opens the matter again, unless it is the one that it was settled with
        if settled is not None and answered(decision) and not same_outcome(settled, decision):
            settled = None
        return Said(verdicts={**others, who: decision}, settled=settled)


def record(source: Source, decisions: Sequence[Decision]) -> list[Decision]:
    """Append decisions to those kept beside the dataset; they are on the disk when this returns.

    Safe with several processes at a time; after a kill each decision is there as a whole or not at all.

    Args:
        source: the dataset.
        decisions: what was decided, in order; one without a time gets the present one. A decision that equals
            its reviewer's last word on the finding (verdict, what it does, note) adds no line, nor does a
            withdrawal of nothing.

    Returns:
        Those that were added, with their times.

    Raises:
        InputError: a damaged line among those kept, with file and line.
        ConflictError: another process holds the dataset for too long.
    """
    if not decisions:
        return []
    folder, path = state.prepare(source), state.decisions_file(source)
    with journal.held(folder):
        content = path.read_bytes() if path.exists() else b""
        new = _new(path, content, decisions)
        if new:
            _append(path, content, [_line_of(each) for each in new])
    return new


def history(source: Source) -> list[Decision]:
    """All decisions and withdrawals ever recorded, oldest first.

    Raises:
        InputError: a damaged line, with file and line; one whose writing was interrupted at the end of the
            file is none.
    """
    path = state.decisions_file(source)
    return [_decision(row) for row in json_rows(path, path.read_bytes())] if path.exists() else []


def said(decisions: Iterable[Decision], more: Iterable[Decision] = ()) -> dict[str, Said]:
    """What stands of a history, and of decisions that aren't recorded yet, by the key of the finding."""
    found: dict[str, Said] = {}
    for each in decisions:
        found[each.finding] = found.get(each.finding, Said()).then(each)
    for each in more:
        before = found.get(each.finding, Said())
        found[each.finding] = before.then(each) if before.lacks(each) else before
    return {key: each for key, each in found.items() if each.last is not None}


def latest(source: Source) -> dict[str, Decision]:
    """The last decision on each finding, whoever made it, by its key; what was withdrawn doesn't count.

    It doesn't say whether others decided differently: see `dataaudit.decisions.standing`.

    Raises:
        InputError: a damaged line, with file and line.
    """
    return {key: each.last for key, each in said(history(source)).items() if each.last is not None}


def by_reviewer(source: Source) -> dict[str | None, dict[str, Decision]]:
    """Each reviewer's last decision on each finding, by its key; what was withdrawn doesn't count.

    Raises:
        InputError: a damaged line, with file and line.
    """
    found: dict[str | None, dict[str, Decision]] = {}
    for key, each in said(history(source)).items():
        for name, decision in each.verdicts.items():
            found.setdefault(name, {})[key] = decision
    return found


def withdrawal(decision: Decision, *, note: str | None = None) -> Decision:
    """What takes a decision back once it is recorded: the finding is undecided again for that reviewer."""
    return replace(decision, verdict=WITHDRAW, fix=None, at=None, note=note, rule=None)


def equal(one: Decision, other: Decision) -> bool:
    """Whether two decisions of one reviewer on one finding say the same, whatever their times."""
    return (
        one.rule == other.rule
        and same_outcome(one, other, iou=EXACT)
        and _words(one.note) == _words(other.note)
    )


def fix_to_json(fix: Fix) -> dict[str, Any]:
    """A fix as a JSON object."""
    return asdict(fix)


def fix_from_json(value: Mapping[str, Any]) -> Fix:
    """The fix that `fix_to_json` wrote."""
    boxes = {name: None if value.get(name) is None else tuple(value[name]) for name in ("old_box", "box")}
    return Fix(**{**value, "locator": Locator(**value["locator"]), **boxes})


def _words(note: str | None) -> str:
    """A note as it comes back from a spreadsheet."""
    return (note or "").replace("\r\n", "\n").strip()


def _decision(row: Row) -> Decision:
    fix, box = row.cells.get("fix"), row.cells.get("judged_box")
    judged: dict[str, Any] = {name: row.cells.get(name) for name in JUDGED}
    try:
        return Decision(
            finding=row.text("finding"),
            verdict=row.cells["verdict"],
            fix=None if fix is None else fix_from_json(fix),
            reviewer=row.cells.get("reviewer"),
            at=row.cells.get("at"),
            note=row.cells.get("note"),
            rule=row.cells.get("rule"),
            **{**judged, "judged_box": None if box is None else tuple(box)},
        )
    except (KeyError, TypeError, DataAuditError) as error:
        raise InputError(f"The decision can't be read: {error!r}.", where=row.where) from None


def _line_of(decision: Decision) -> str:
    judged = {name: getattr(decision, name) for name in (*JUDGED, "rule")}
    line = {
        "finding": decision.finding,
        "verdict": decision.verdict,
        "fix": None if decision.fix is None else fix_to_json(decision.fix),
        "reviewer": decision.reviewer,
        "at": decision.at,
        "note": decision.note,
        **{name: value for name, value in judged.items() if value is not None},
    }
    text = json.dumps(line, ensure_ascii=False)
    # The name of a file may hold bytes that aren't UTF-8, which JSON can write as escapes alone
    return text if text.isascii() or not re.search("[\ud800-\udfff]", text) else json.dumps(line)


def _new(path: Path, content: bytes, decisions: Sequence[Decision]) -> list[Decision]:
    """Those decisions that aren't their reviewer's last word already."""
    keys = {each.finding for each in decisions}
    rows = _rows_about(path, content, keys) if len(keys) <= _FEW else json_rows(path, content)
    stands = {key: Said() for key in keys}
    seen = set()
    for row in rows:
        key = row.text("finding")
        if key in keys:
            kept = _decision(row)
            stands[key] = stands[key].then(kept)
            seen.add(_same_line(kept))
    new = []
    for each in decisions:
        if not stands[each.finding].lacks(each) or (_same_line(each) in seen and _is_over(each, stands)):
            continue
        each = each if each.at else replace(each, at=now())
        stands[each.finding] = stands[each.finding].then(each)
        new.append(each)
    return new


def _same_line(decision: Decision) -> tuple[str | None, ...]:
    return decision.finding, decision.reviewer, decision.verdict, decision.at


def _is_over(decision: Decision, stands: Mapping[str, Said]) -> bool:
    """Whether its reviewer has said something else since: it is recorded again after a kill, too late."""
    own = stands[decision.finding].verdicts.get(decision.reviewer)
    return decision.at is not None and own is not None and moment(decision.at) < moment(own.at)


def _rows_about(path: Path, content: bytes, keys: Iterable[str]) -> Iterator[Row]:
    """The lines about some findings, in order, without reading the others."""
    starts = set()
    for key in keys:
        for form in {json.dumps(key, ensure_ascii=False), json.dumps(key)}:
            sought = form.encode("utf-8", "surrogatepass")
            at = content.find(sought)
            while at >= 0:
                starts.add(content.rfind(b"\n", 0, at) + 1)
                at = content.find(sought, at + 1)
    for start in sorted(starts):
        end = content.find(b"\n", start)
        if end < 0:
            yield from json_rows(path, content[start:])
            return
        try:
            cells = json.loads(content[start:end])
        except ValueError:
            cells = None
        if not isinstance(cells, dict):
            yield from json_rows(path, content)  # names the line in its error
            return
        yield Row(where=str(path), cells=cells)


def _append(path: Path, content: bytes, lines: Sequence[str]) -> None:
    """Write lines behind the last whole one, and wait for the disk."""
    first = b""
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        try:
            json.loads(content[whole:])
            whole, first = len(content), b"\n"
        except ValueError:
            pass  # a line whose writing was interrupted: it was never reported as recorded
    is_new = not path.exists()
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o644)
    with os.fdopen(descriptor, "r+b") as file:
        if whole < len(content):
            file.truncate(whole)
        file.seek(whole)
        file.write(first + "".join(f"{line}\n" for line in lines).encode())
        file.flush()
        os.fsync(file.fileno())
    if is_new:
        journal.sync_folder(path.parent)
