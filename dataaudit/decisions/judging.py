"""What a verdict on a finding means: the decision, with the fix that follows from it."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import Any

import pandas as pd

from dataaudit.checks.box_fixes import BoxFixes
from dataaudit.decisions.outcomes import EXACT, is_error, same_outcome
from dataaudit.decisions.rows import Row, harmless
from dataaudit.decisions.times import is_time
from dataaudit.errors import InputError, nearest
from dataaudit.signals.objects import image_sizes
from dataaudit.types import VERDICTS, Box, Decision, Finding, Fix, Report, Tables

__all__ = ["Findings"]


class Findings:
    """The findings of a report by the names that a row may give them."""

    def __init__(self, report: Report, *, new_classes: bool) -> None:
        self.classes, self.new_classes = report.tables.classes, new_classes
        self.labels = report.tables.labels
        self.digests = report.tables.images["digest"]
        self.several = report.tables.task == "multilabel"
        self.objects = _Objects(report.tables) if report.tables.task == "detection" else None
        self.shown: dict[str, str] | None = None
        self.names: dict[Any, set[str]] = {}
        self.of_sample: dict[str, str] | None = None
        self.by_key = {finding.key: finding for finding in report.items}
        self.by_sample: dict[str, list[Finding]] = {}
        for finding in report.items:
            for name in {finding.sample_id, finding.item_id} - {None}:
                self.by_sample.setdefault(f"{finding.code}:{name}", []).append(finding)

    def decide(self, row: Row) -> Decision:
        """The decision that a row says.

        Raises:
            InputError: a finding, verdict, label, box or time that can't be understood, with file and line.
        """
        finding = self.find(row)
        verdict, label = row.text("verdict").lower(), self._label_of_row(row)
        box = _box_of(row)
        if verdict not in VERDICTS:
            raise InputError(f"The verdict is {verdict!r}. {nearest(verdict, VERDICTS)}", where=row.where)
        if label and verdict != "other":
            raise InputError(
                f"The verdict {verdict!r} comes with the label {label!r}.", where=row.where,
                fix="A label goes with the verdict 'other'.",
            )  # fmt: skip
        if box is not None and (verdict != "other" or self.objects is None):
            raise InputError(
                f"The verdict {verdict!r} comes with the box {row.text('box')!r}.", where=row.where,
                fix="A box goes with the verdict 'other' on an object.",
            )  # fmt: skip
        fix = None
        if verdict == "accept":
            fix = finding.fix
            if fix is None:
                raise InputError(
                    f"The finding {finding.key} proposes no fix to accept.", where=row.where,
                    fix="Say 'other' with a label, 'keep' or 'skip'.",
                )  # fmt: skip
        elif verdict == "other":
            fix = self.other(finding, label, box, row.where)
        return Decision(
            finding=finding.key,
            verdict=verdict,
            fix=fix,
            reviewer=row.text("reviewer") or None,
            at=_time_of(row),
            note=row.text("note") or None,
            code=finding.code,
            item_id=finding.item_id,
            given=finding.given,
            digest=self._digest_of(finding),
            judged_box=finding.suggested_box if finding.box is None else finding.box,
        )

    def again(self, finding: Finding, decision: Decision) -> Decision:
        """A recorded decision on a finding, with its fix as the files are now.

        Args:
            finding: of the report; its key may be another than when it was decided.
            decision: what was recorded.

        Raises:
            InputError: what was decided can't be done any more.
        """
        fix = decision.fix
        if is_error(decision):
            accepted = replace(decision, verdict="accept", fix=finding.fix)
            if fix is None or same_outcome(accepted, decision, iou=EXACT):
                fix = finding.fix
            else:
                fix = self.other(finding, *self.answer_of(fix), f"the finding {finding.key}", new=True)
        return replace(decision, finding=finding.key, fix=fix)

    def answer_of(self, fix: Fix) -> tuple[str, Box | None]:
        """The label and the box, in pixels, that a row with the verdict ``other`` says for a fix.

        Raises:
            InputError: no label or box says it, as it takes something away.
        """
        if fix.new is None or fix.op == "merge":
            raise InputError(f"What was decided of {fix.label_id}, to {fix.op} it, is no longer proposed.")
        box = fix.box
        if box is not None and self.objects is not None:
            box = self.objects.in_pixels(fix.sample_id, box)
        return "" if fix.op == "move" else fix.new, box

    def _of(self, row: Row) -> list[Finding]:
        """The findings of the check on the sample that the other columns of a row name."""
        return self.by_sample.get(f"{row.text('code')}:{row.text('sample_id')}", [])

    def _label_of_row(self, row: Row) -> str:
        """The class as it is named, of one with spaces around it or an apostrophe in front as well."""
        raw = row.raw("label")
        if not row.escaped:
            return raw if raw in self.classes else row.text("label")
        if self.shown is None:
            self.shown = {harmless(name): name for name in self.classes}
        return self.shown.get(raw) or row.text("label")

    def _digest_of(self, finding: Finding) -> str | None:
        digest = self.digests.get(finding.sample_id) if finding.sample_id is not None else None
        return None if digest is None or pd.isna(digest) else str(digest)

    def find(self, row: Row) -> Finding:
        """The finding that a row names.

        Raises:
            InputError: there is no such finding, or more than one, with file and line.
        """
        name = row.text("finding")
        if name in self.by_key:
            return self.by_key[name]
        found = self.by_sample.get(name, [])
        if len(found) == 1:
            return found[0]
        close = [each for each in self._of(row) if _is_number(each.key, name)]
        if len(close) == 1:
            return close[0]
        if found:
            keys = ", ".join(finding.key for finding in found)
            raise InputError(
                f"{name!r} names {len(found)} findings.", where=row.where, fix=f"Give the key: {keys}."
            )
        raise InputError(
            f"There is no finding {name!r} in the report.", where=row.where,
            fix="Expected a finding's key, or CODE:sample_id. Findings change with the data: audit again.",
        )  # fmt: skip

    def other(self, finding: Finding, label: str, box: Box | None, where: str, *, new: bool = False) -> Fix:
        """The fix that a person says instead of the proposed one.

        Args:
            finding: what was judged.
            label: the class; empty for another box of the same class.
            box: corners of an object in pixels, or None.
            where: what an error names.
            new: whether the class may be one that no sample has.

        Raises:
            InputError: nothing is said, or something that can't be done.
        """
        if not label and box is None:
            empty = "label is" if self.objects is None else "label and the box are"
            raise InputError(
                f"The verdict is 'other' and the {empty} empty.", where=where, fix="Name the class."
            )
        if label and label not in self.classes and not (new or self.new_classes):
            raise InputError(
                f"No sample has the class {label!r}. {nearest(label, self.classes)}", where=where,
                fix="For a class that is new, read the decisions with new_classes=True.",
            )  # fmt: skip
        of_a_class = finding.fix is not None and finding.fix.op == "rename"
        if self.objects is None or (of_a_class and box is None):
            return self._relabel(finding, label, where)
        return self.objects.other(finding, label or None, box, where)

    def _relabel(self, finding: Finding, label: str, where: str) -> Fix:
        if finding.fix is not None and finding.fix.op == "rename":
            return replace(finding.fix, new=label)
        if finding.fix is not None and finding.fix.op == "add":
            return self._add(finding.fix, label, where)
        label_id = self._label_of(finding, where)
        row: Any = self.labels.loc[label_id]
        old = None if pd.isna(row["name"]) else str(row["name"])
        if label in self._classes_of(row["sample_id"]):
            raise InputError(
                f"The sample {row['sample_id']} has the class {label!r} already.",
                where=where,
                fix="Say 'keep'.",
            )
        return Fix(
            op="relabel",
            sample_id=row["sample_id"],
            label_id=label_id,
            locator=row["locator"],
            old=old,
            new=label,
        )

    def _add(self, proposed: Fix, label: str, where: str) -> Fix:
        """Another class than the one that is missing."""
        if label in self._classes_of(proposed.sample_id):
            raise InputError(
                f"The sample {proposed.sample_id} has the class {label!r} already.", where=where,
                fix="Say 'keep'.",
            )  # fmt: skip
        return replace(proposed, label_id=f"{proposed.sample_id}:{label}", new=label)

    def _classes_of(self, sample_id: str) -> set[str]:
        """The classes that a sample has."""
        if not self.names:
            self.names = self.labels.dropna(subset="name").groupby("sample_id")["name"].agg(set).to_dict()
        return self.names.get(sample_id, set())

    def _label_of(self, finding: Finding, where: str) -> str:
        if finding.item_id in self.labels.index:
            return finding.item_id
        if self.of_sample is None:
            self.of_sample = dict(zip(self.labels["sample_id"], self.labels.index, strict=True))
        if finding.sample_id not in self.of_sample:
            raise InputError(
                f"The finding {finding.key} is about no label that could be changed.", where=where
            )
        if self.several and len(self._classes_of(finding.sample_id)) > 1:
            raise InputError(
                f"The sample {finding.sample_id} has several labels; which one is to be changed?",
                where=where,
                fix="Decide on the findings of LBL003 and LBL004, which are about one label each.",
            )
        return self.of_sample[finding.sample_id]


class _Objects:
    """Fixes of the objects of a dataset, by what a person says in pixels."""

    def __init__(self, tables: Tables) -> None:
        self.tables = tables
        self.fixes = BoxFixes(tables.labels, tables.images, tables.units)
        self.sizes = image_sizes(tables.images)

    def other(self, finding: Finding, label: str | None, box: Box | None, where: str) -> Fix:
        """Another class or box of the object that a finding is about, or an object that isn't there yet."""
        if finding.item_id in self.tables.labels.index:
            return self.changed(finding, label, box, where)
        missing = finding.fix is not None and finding.fix.op == "add"
        name = label or (finding.suggested if missing else None)
        box = box or (finding.suggested_box if missing else None)
        if finding.sample_id is None or name is None or box is None:
            raise InputError(
                f"The finding {finding.key} is about no single object that could be changed.", where=where,
                fix="Give the label and the box of an object to add, or decide on findings about objects.",
            )  # fmt: skip
        self.check(finding.sample_id, box, where)
        return self.fixes.add(finding.sample_id, name, box)

    def changed(self, finding: Finding, label: str | None, box: Box | None, where: str) -> Fix:
        label_id, own = finding.item_id, finding.box
        old = str(self.tables.labels.loc[label_id, "name"])
        same_box = box is None or (
            own is not None and max(abs(a - b) for a, b in zip(box, own, strict=True)) < 0.1
        )
        if same_box and label in (None, old):
            raise InputError(
                f"The object {label_id} has this class and box already: {old!r}.", where=where,
                fix="Say 'keep'.",
            )  # fmt: skip
        if same_box:
            return self.fixes.relabel(label_id, str(label))
        if label not in (None, old):
            raise InputError(
                f"The object {label_id} would get another class and another box at once.", where=where,
                fix="Give one of them now, and the other after the next audit.",
            )  # fmt: skip
        assert box is not None
        self.check(str(self.tables.labels.loc[label_id, "sample_id"]), box, where)
        return self.fixes.move(label_id, box)

    def in_pixels(self, sample_id: str, box: Box) -> Box:
        """A box of the tables in pixels."""
        if self.tables.units == "pixels":
            return box
        size: Any = self.sizes.loc[sample_id]
        width, height = float(size["width"]), float(size["height"])
        return box[0] * width, box[1] * height, box[2] * width, box[3] * height

    def check(self, sample_id: str, box: Box, where: str) -> None:
        """Refuse a box that the image doesn't show, or that can't be written."""
        size: Any = self.sizes.loc[sample_id]
        width, height = float(size["width"]), float(size["height"])
        if math.isnan(width) or math.isnan(height):
            if self.tables.units == "relative":
                raise InputError(
                    f"The size of {sample_id} isn't known, so its boxes can't be written.", where=where
                )
            return
        x1, y1, x2, y2 = box
        if x1 >= width or y1 >= height or x2 <= 0 or y2 <= 0:
            raise InputError(
                f"The box {x1:g}, {y1:g}, {x2:g}, {y2:g} lies outside {sample_id}, which is {width:g} x "
                f"{height:g} pixels.", where=where, fix="Give its corners x1, y1, x2, y2 in pixels.",
            )  # fmt: skip


def _is_number(key: str, cell: str) -> bool:
    """Whether a cell is a key that a spreadsheet took for a number, as 123456789012 becomes 1.23457E+11."""
    try:
        number, written = float(key), float(cell.replace(",", "."))
    except ValueError:
        return False
    return math.isfinite(number) and math.isclose(number, written, rel_tol=0.01)


def _time_of(row: Row) -> str | None:
    at = row.text("at")
    if at and not is_time(at):
        raise InputError(
            f"The time is {at!r}; expected ISO 8601, such as 2026-03-01T12:00:00+00:00.", where=row.where,
            fix="Leave it empty for the present time.",
        )  # fmt: skip
    return at or None


def _box_of(row: Row) -> Box | None:
    """The corners that a row says; None where it says none."""
    text = row.text("box")
    if not text:
        return None
    try:
        x1, y1, x2, y2 = map(float, re.split(r"[\s,;]+", text.strip("[]() ")))
    except ValueError:
        x1 = y1 = x2 = y2 = math.nan
    if not (math.isfinite(x1 + y1 + x2 + y2) and x1 < x2 and y1 < y2):
        raise InputError(
            f"The box is {text!r}; expected its corners x1, y1, x2, y2 in pixels, such as '10, 20, 30, 40', "
            "with x1 < x2 and y1 < y2.", where=row.where,
        )  # fmt: skip
    return x1, y1, x2, y2
