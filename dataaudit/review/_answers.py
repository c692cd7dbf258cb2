"""What people said in a label tool, as decisions on the findings that they were asked about."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from dataaudit import decisions
from dataaudit.checks.box_fixes import BoxFixes
from dataaudit.decisions import Findings
from dataaudit.decisions.rows import Row
from dataaudit.errors import InputError, nearest
from dataaudit.metrics import box_iou
from dataaudit.review._tasks import Shown, proposed_class, shown_of
from dataaudit.types import Box, Decision, Finding, Fix, Report, Verdict

__all__ = ["TOLERANCE", "Answer", "Answers", "Drawn", "decide"]

TOLERANCE = 1.0
"""By how many pixels a corner may differ in a box that nobody touched: tools round, some in percent."""
_OVERLAP, _HARDLY = 0.5, 0.02


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A box as it is in the tool.

    Attributes:
        name: its class there.
        box: corners (x1, y1, x2, y2) in pixels.
        id: what the tool says it was sent as, or None.
        wrong: why it can't be used, such as that it is turned; None where it can.
    """

    name: str
    box: Box
    id: str | None = None
    wrong: str | None = None


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What one person said about one image.

    Attributes:
        sample_id: the image.
        findings: keys of the findings that were asked about.
        where: the place in the file, for errors.
        names: its classes; None for one with boxes.
        drawn: its boxes.
        finished: whether what wasn't changed was looked at and is to be kept.
        reviewer: who.
        at: when, ISO 8601.
        note: a comment.
    """

    sample_id: str
    findings: tuple[str, ...]
    where: str
    names: tuple[str, ...] | None = None
    drawn: tuple[Drawn, ...] = ()
    finished: bool = True
    reviewer: str | None = None
    at: str | None = None
    note: str | None = None


@dataclass(frozen=True, kw_only=True)
class Answers:
    """The answers of a label tool.

    Attributes:
        decisions: on the findings, as `dataaudit.decisions.record` takes them.
        left_out: what could not be turned into a decision, a sentence each with its place.
    """

    decisions: tuple[Decision, ...]
    left_out: tuple[str, ...]


def decide(
    report: Report,
    answers: Iterable[Answer],
    *,
    where: str,
    new_classes: bool = False,
    left: Iterable[str] = (),
) -> Answers:
    """Turn answers into decisions.

    A label that stayed is ``keep``; what the finding proposed is ``accept``; anything else is ``other``. A
    box has stayed where none of its corners moved by more than `TOLERANCE` pixels. A new box is taken for
    an object that a finding says is missing where the two overlap by half.

    Args:
        report: the report whose findings were sent.
        answers: of one file.
        where: the file, for errors.
        new_classes: take a class that no sample has yet; otherwise it is an error.
        left: sentences about what was left out before.

    Raises:
        InputError: a class that isn't known, or answers of another dataset.
    """
    deciding = _Deciding(report=report, new_classes=new_classes, left_out=list(left))
    given = list(answers)
    asked = {key for answer in given for key in answer.findings}
    if given and not asked & (deciding.by_key.keys() | deciding.recorded):
        known = deciding.samples & {answer.sample_id for answer in given}
        raise InputError(
            f"None of the {len(asked)} findings that these answers are about is in the report"
            + ("." if known else f", nor is an image such as {given[0].sample_id!r} in the dataset."),
            where=where,
            fix="The data changed since they were sent, or they are about another dataset.",
        )
    for answer in given:
        deciding.take(answer)
    return Answers(decisions=tuple(deciding.decisions), left_out=tuple(deciding.left_out))


@dataclass(kw_only=True)
class _Deciding:
    """What was decided so far."""

    report: Report
    new_classes: bool
    left_out: list[str]
    decisions: list[Decision] = field(default_factory=list)

    def __post_init__(self) -> None:
        tables = self.report.tables
        self.findings = Findings(self.report, new_classes=self.new_classes)
        self.by_key = self.findings.by_key
        history = () if tables.source is None else decisions.history(tables.source)
        self.recorded = {decision.finding for decision in history}
        self.samples = set(tables.images.index)
        self.proposed = proposed_class(tables.classes)
        self.shown = shown_of(self.report)
        self.fixes = BoxFixes(tables.labels, tables.images, tables.units)
        self.labels_of: dict[str, list[str]] = {}
        for label_id, sample_id in zip(tables.labels.index, tables.labels["sample_id"], strict=True):
            self.labels_of.setdefault(sample_id, []).append(label_id)

    def take(self, answer: Answer) -> None:
        """Decide on what one person said about one image."""
        names = answer.names if answer.names is not None else [drawn.name for drawn in answer.drawn]
        for name in names:
            if name not in (*self.report.tables.classes, self.proposed) and not self.new_classes:
                raise InputError(
                    f"No sample has the class {name!r}. {nearest(name, self.report.tables.classes)}",
                    where=answer.where,
                    fix="For a class that is new, read the answers with new_classes=True.",
                )
        findings = []
        for key in answer.findings:
            if key in self.by_key and self.by_key[key].sample_id == answer.sample_id:
                findings.append(self.by_key[key])
            else:
                changed = "the image, its label or the suggestion changed"
                why = "it was decided before" if key in self.recorded else changed
                self.leave(answer, f"The finding {key} is gone: {why}.")
        if not findings:
            return
        if self.report.tables.task == "detection":
            _Boxes(deciding=self, answer=answer, findings=findings).decide()
        elif answer.names is None:
            self.leave(answer, "The answer has boxes; expected classes.")
        elif self.report.tables.task == "multilabel":
            self._classes(answer, findings, answer.names)
        else:
            self._class(answer, findings, answer.names)

    def leave(self, answer: Answer, why: str) -> None:
        """Note what can't be a decision."""
        self.left_out.append(f"{answer.where}: {answer.sample_id}: {why}")

    def add(self, answer: Answer, finding: Finding, verdict: Verdict, fix: Fix | None = None) -> None:
        """Add a decision; `fix` is that of an ``other``."""
        if verdict == "keep" and not answer.finished:
            return
        said = {
            "finding": finding.key, "verdict": "skip", "reviewer": answer.reviewer, "at": answer.at,
            "note": answer.note,
        }  # fmt: skip
        decision = self.findings.decide(Row(where=answer.where, cells=said))
        fix = finding.fix if verdict == "accept" else fix
        self.decisions.append(replace(decision, verdict=verdict, fix=fix))

    def _given(self, sample_id: str) -> set[str]:
        names = self.report.tables.labels["name"]
        return {
            str(names[label_id])
            for label_id in self.labels_of.get(sample_id, ())
            if pd.notna(names[label_id])
        }

    def _class(self, answer: Answer, findings: Sequence[Finding], names: Sequence[str]) -> None:
        if len(names) != 1:
            self.leave(answer, f"The answer has {len(names)} classes; expected one.")
            return
        given = self._given(answer.sample_id)
        for finding in findings:
            if set(names) == given:
                self.add(answer, finding, "keep")
            elif finding.fix is not None and finding.fix.new == names[0]:
                self.add(answer, finding, "accept")
            else:
                self.add(answer, finding, "other", self.findings.other(finding, names[0], None, answer.where))

    def _classes(self, answer: Answer, findings: Sequence[Finding], names: Sequence[str]) -> None:
        """Several classes an image: each finding is about one of them."""
        given, said = self._given(answer.sample_id), set(names)
        added, removed = said - given, given - said
        fixes = [finding.fix for finding in findings if finding.fix is not None]
        explained = {name for fix in fixes for name in (fix.old, fix.new) if name is not None}
        for finding in findings:
            fix = finding.fix
            gone, new = (None, None) if fix is None else (fix.old, fix.new)
            if fix is None:
                if said == given:
                    self.add(answer, finding, "keep")
                else:
                    self.leave(
                        answer, f"{finding.code} proposes nothing, so no change is its answer; it stays open."
                    )
            elif gone in removed and len(added - explained) == 1 and new is not None and new not in said:
                (other,) = added - explained
                explained.add(other)
                self.add(answer, finding, "other", replace(fix, new=other))
            elif (gone is None or gone in removed) and (new is None or new in said):
                self.add(answer, finding, "accept")
            elif gone is None or gone in said:
                self.add(answer, finding, "keep")
            else:
                self.leave(
                    answer, f"{gone!r} was taken away and {new!r} not added; {finding.code} stays open."
                )
        for what, changed in (("added", added), ("taken away", removed)):
            for name in sorted(changed - explained):
                self.leave(answer, f"The class {name!r} was {what}, which no finding is about.")


@dataclass(kw_only=True)
class _Boxes:
    """What one person said about the boxes of one image."""

    deciding: _Deciding
    answer: Answer
    findings: Sequence[Finding]

    def decide(self) -> None:
        """Decide on each finding."""
        if self.answer.names is not None:
            self.deciding.leave(self.answer, "The answer has classes; expected boxes.")
            return
        shown = self.deciding.shown.get(self.answer.sample_id, [])
        proposals = {finding.key: finding for finding in self.findings if finding.suggested_box is not None}
        drawn = []
        for one in self.answer.drawn:
            each = self._usable(one, shown)
            if each is None:
                continue
            if each.name != self.deciding.proposed:
                drawn.append(each)
            elif each.id in proposals and not _same(each.box, proposals[each.id].suggested_box):
                said = f"The proposed box was moved to {_text(each.box)}, and not given a class."
                self.deciding.leave(self.answer, said)
        drawn = self._taken_up(drawn, shown, proposals)
        pairs, free = _pairs(shown, drawn)
        for label, found in zip(shown, pairs, strict=True):
            self._object(label, found)
        self._missing(free)

    def _usable(self, drawn: Drawn, shown: Sequence[Shown]) -> Drawn | None:
        """A box; in place of one that can't be used the object that it was, which isn't gone."""
        x1, y1, x2, y2 = drawn.box
        wrong = drawn.wrong or (None if x2 > x1 and y2 > y1 else "has no area")
        if wrong is None:
            return drawn
        self.deciding.leave(
            self.answer, f"The box of {drawn.name!r} at {_text(drawn.box)} {wrong}; it is left out."
        )
        was = next((label for label in shown if label.id == drawn.id), None)
        if was is None and shown and np.isfinite(drawn.box).all():
            overlaps = _overlaps(shown, [drawn])[:, 0]
            was = shown[int(overlaps.argmax())] if overlaps.max() >= _HARDLY else None
        return None if was is None else Drawn(name=was.name, box=was.box, id=was.id)

    def _taken_up(
        self, drawn: Sequence[Drawn], shown: Sequence[Shown], proposals: Mapping[str, Finding]
    ) -> list[Drawn]:
        """The boxes; a proposed one that was given a class is the object that it is proposed for."""
        kept = list(drawn)
        ids = {label.label_id: label.id for label in shown}
        known = {label.id: label.box for label in shown}
        for finding in proposals.values():
            own = ids.get(finding.item_id)
            if own is None:
                continue
            for new in drawn:
                exact = _same(new.box, finding.suggested_box) and new.id not in known
                if new.id == finding.key or exact:
                    old = [
                        each
                        for each in kept
                        if each.id == own or (each is not new and _same(each.box, known[own]))
                    ]
                    kept = [each for each in kept if each is not new and each not in old]
                    kept.append(replace(new, id=own))
                    break
        return kept

    def _object(self, label: Shown, found: Drawn | None) -> None:
        """Decide on the findings about one object."""
        asked = [finding for finding in self.findings if finding.item_id == label.label_id]
        if found is None:
            self._deleted(label, asked)
            return
        open_changes: dict[str, Fix] = {}
        assert label.label_id is not None
        if found.name != label.name:
            open_changes["class"] = self.deciding.fixes.relabel(label.label_id, found.name)
        moved = not _same(found.box, label.box)
        if moved and self.deciding.report.tables.labels["geometry"][label.label_id] != "box":
            said = f"The {label.name!r} at {_text(label.box)} was moved, and it isn't drawn as a box."
            self.deciding.leave(self.answer, said)
        elif moved:
            open_changes["box"] = self.deciding.fixes.move(label.label_id, found.box)
        verdicts = {finding.key: self._verdict(finding, label, found, open_changes) for finding in asked}
        # A change that no finding is about is said by the first one that proposes something else
        for finding in sorted(
            asked, key=lambda each: (each.fix is not None, each.fix is not None and each.fix.op != "remove")
        ):
            left = [change for change in open_changes if change not in _carried(verdicts.values())]
            if left and verdicts[finding.key] == ("keep", None, None):
                verdicts[finding.key] = ("other", open_changes[left[0]], left[0])
        for finding in asked:
            verdict, fix, _ = verdicts[finding.key]
            self.deciding.add(self.answer, finding, verdict, fix)
        for change in open_changes.keys() - _carried(verdicts.values()):
            said = f"became {found.name!r}" if change == "class" else f"was moved to {_text(found.box)}"
            why = "; audit again for it" if asked else ", and no finding is about it"
            self.deciding.leave(self.answer, f"The {label.name!r} at {_text(label.box)} {said}{why}.")

    def _verdict(
        self, finding: Finding, label: Shown, found: Drawn, changes: Mapping[str, Fix]
    ) -> tuple[Verdict, Fix | None, str | None]:
        """What was said about one finding: the verdict, the other fix, and the change that it is about."""
        if finding.fix is None or finding.fix.op not in ("relabel", "move"):
            return "keep", None, None
        about = "class" if finding.fix.op == "relabel" else "box"
        if about not in changes:
            return "keep", None, None
        if found.name == finding.fix.new if about == "class" else _same(found.box, finding.suggested_box):
            return "accept", None, about
        return "other", changes[about], about

    def _deleted(self, label: Shown, asked: Sequence[Finding]) -> None:
        assert label.label_id is not None
        for finding in asked:
            if finding.fix is not None and finding.fix.op == "remove":
                self.deciding.add(self.answer, finding, "accept")
            else:
                fix = self.deciding.fixes.remove(label.label_id)
                self.deciding.add(self.answer, finding, "other", fix)
        if not asked:
            said = f"The {label.name!r} at {_text(label.box)} was deleted, and no finding is about it."
            self.deciding.leave(self.answer, said)

    def _missing(self, free: Sequence[Drawn]) -> None:
        """Decide on the objects that findings say are missing, by the new boxes."""
        missing = [
            finding for finding in self.findings if finding.fix is not None and finding.fix.op == "add"
        ]
        wanted = [
            Shown(
                id=finding.key,
                label_id=None,
                name=str(finding.fix and finding.fix.new),
                box=finding.suggested_box,
            )
            for finding in missing
            if finding.suggested_box is not None
        ]
        pairs, rest = _pairs(wanted, free)
        for finding, found in zip(missing, pairs, strict=True):
            if found is None:
                self.deciding.add(self.answer, finding, "keep")
            elif (
                finding.fix is not None
                and found.name == finding.fix.new
                and _same(found.box, finding.suggested_box)
            ):
                self.deciding.add(self.answer, finding, "accept")
            else:
                fix = self.deciding.fixes.add(self.answer.sample_id, found.name, found.box)
                self.deciding.add(self.answer, finding, "other", fix)
        for each in rest:
            said = f"The {each.name!r} at {_text(each.box)} is new, and no finding is about it"
            self.deciding.leave(self.answer, f"{said}; add it to the dataset by hand.")


def _carried(verdicts: Iterable[tuple[Verdict, Fix | None, str | None]]) -> set[str]:
    return {about for _, _, about in verdicts if about is not None}


def _pairs(shown: Sequence[Shown], drawn: Sequence[Drawn]) -> tuple[list[Drawn | None], list[Drawn]]:
    """The box that became of each object, or None, and the boxes that are new."""
    rated: list[tuple[float, int, int]] = []
    overlaps = _overlaps(shown, drawn)
    for row, label in enumerate(shown):
        removal = any(finding.fix is not None and finding.fix.op == "remove" for finding in label.findings)
        for column, found in enumerate(drawn):
            iou, same = float(overlaps[row, column]), label.name == found.name
            if found.id == label.id:
                rated.append((10.0, row, column))
            elif iou >= _OVERLAP or (same and iou >= _HARDLY and found.id is None):
                # Of two copies the one stays that nobody proposes to remove
                rated.append((iou + 0.2 * same - 0.1 * removal, row, column))
    became: list[Drawn | None] = [None] * len(shown)
    taken: set[int] = set()
    for _, row, column in sorted(rated, key=lambda each: (-each[0], each[1], each[2])):
        if became[row] is None and column not in taken:
            became[row] = drawn[column]
            taken.add(column)
    return became, [found for column, found in enumerate(drawn) if column not in taken]


def _overlaps(shown: Sequence[Shown], drawn: Sequence[Drawn]) -> np.ndarray[Any, np.dtype[np.float64]]:
    if not shown or not drawn:
        return np.zeros((len(shown), len(drawn)))
    one = np.array([label.box for label in shown], dtype=np.float64)
    other = np.array([found.box for found in drawn], dtype=np.float64)
    return np.asarray(box_iou(one[:, None], other[None]), dtype=np.float64)


def _same(one: Box, other: Box | None) -> bool:
    return other is not None and max(abs(a - b) for a, b in zip(one, other, strict=True)) <= TOLERANCE


def _text(box: Box) -> str:
    return ", ".join(f"{corner:.0f}" for corner in box)
