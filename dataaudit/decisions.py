"""Decisions: read from a table that people filled in, kept beside the dataset, and looked up by finding."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dataaudit import journal, state
from dataaudit.checks.box_fixes import BoxFixes
from dataaudit.errors import DataAuditError, InputError, nearest
from dataaudit.formats import _cells
from dataaudit.metrics import box_iou
from dataaudit.signals.objects import image_sizes
from dataaudit.types import CORNERS, VERDICTS, Box, Decision, Finding, Fix, Locator, Report, Source, Tables

__all__ = [
    "SAME",
    "fix_from_json",
    "fix_to_json",
    "known_again",
    "latest",
    "read",
    "record",
    "write_template",
]

SAME = 0.7
"""From which IoU on two boxes in one image are taken for the same object's."""

_ANSWERS = ("finding", "verdict", "label", "box", "reviewer", "note")
_CONTEXT = ("code", "sample_id", "given", "given_box", "suggested", "suggested_box", "probability", "message")
_BOXES = {"given_box": "box", "suggested_box": "suggested_box"}
_OF_OBJECTS = ("box", *_BOXES)
_JUDGED = ("code", "item_id", "given", "digest", "judged_box")
_KEPT = ("fix", "at", *_JUDGED)
_REPORTED = (*CORNERS, *(f"new_{corner}" for corner in CORNERS), "label_file", "label_item")


@dataclass(frozen=True, kw_only=True)
class _Row:
    """One answer and the place it stands at."""

    where: str
    cells: Mapping[str, Any]

    def text(self, name: str) -> str:
        value = self.cells.get(name)
        return "" if value is None else str(value).strip()


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
    path = Path(path)
    if not path.is_file():
        raise InputError("There is no such file of decisions.", where=path)
    content = path.read_bytes()
    rows = (
        _json_rows(path, content)
        if path.suffix.lower() in (".jsonl", ".ndjson")
        else _csv_rows(path, content)
    )
    findings = _Findings(report, new_classes=new_classes)
    return [findings.decide(row) for row in rows if row.text("verdict")]


def write_template(report: Report, path: str | Path) -> None:
    """Write the findings as a CSV to fill in: empty answers, and beside them what each finding says."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\r\n")
    left_out = () if report.tables.task == "detection" else _OF_OBJECTS
    answers, context = ([name for name in names if name not in left_out] for names in (_ANSWERS, _CONTEXT))
    writer.writerow([*answers, *context])
    for finding in report.items:
        said = [_said(finding, name) for name in context]
        writer.writerow([finding.key, *[""] * (len(answers) - 1), *said])
    # With its mark, or a spreadsheet guesses wrong
    Path(path).write_bytes(out.getvalue().encode("utf-8-sig"))


def record(source: Source, decisions: Sequence[Decision]) -> None:
    """Append decisions to those kept beside the dataset; one without a time gets the present one."""
    if not decisions:
        return
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    lines = [
        json.dumps(
            {
                "finding": each.finding,
                "verdict": each.verdict,
                "fix": None if each.fix is None else fix_to_json(each.fix),
                "reviewer": each.reviewer,
                "at": each.at or now,
                "note": each.note,
                **{name: getattr(each, name) for name in _JUDGED if getattr(each, name) is not None},
            },
            ensure_ascii=False,
        )
        for each in decisions
    ]
    folder = state.prepare(source)
    journal.commit(folder, [journal.Append(path=state.decisions_file(source), lines=tuple(lines))])


def latest(source: Source) -> dict[str, Decision]:
    """The last decision on each finding, by its key.

    Raises:
        InputError: a damaged line, with file and line.
    """
    path = state.decisions_file(source)
    found = {}
    for row in _json_rows(path, path.read_bytes()) if path.exists() else ():
        fix = row.cells.get("fix")
        try:
            found[row.text("finding")] = Decision(
                finding=row.text("finding"),
                verdict=row.cells["verdict"],
                fix=None if fix is None else fix_from_json(fix),
                reviewer=row.cells.get("reviewer"),
                at=row.cells.get("at"),
                note=row.cells.get("note"),
                **{name: _judged(row.cells, name) for name in _JUDGED},
            )
        except (KeyError, TypeError, DataAuditError) as error:
            raise InputError(f"The decision can't be read: {error!r}.", where=row.where) from None
    return found


def known_again(
    findings: Sequence[Finding], decided: Mapping[str, Decision], images: pd.DataFrame
) -> tuple[Finding, ...]:
    """Findings of objects that aren't labeled, with the decisions on them, though their boxes have moved.

    The proposed box is a detector's, which is another one after each training. It is the same object where
    the image has the same content and the boxes overlap by `SAME`.

    Args:
        findings: of an audit; those that have a decision keep it.
        decided: decisions by the key of the finding.
        images: of the dataset, with digests.
    """
    judged: dict[tuple[str | None, str | None], list[Decision]] = {}
    for each in decided.values():
        if each.judged_box is not None and each.given is None:
            judged.setdefault((each.code, each.digest), []).append(each)
    return tuple(_with_decision(each, judged, images["digest"]) if judged else each for each in findings)


def _with_decision(
    finding: Finding, judged: Mapping[tuple[Any, Any], Sequence[Decision]], digests: pd.Series[Any]
) -> Finding:
    missing = finding.decision is None and finding.box is None and finding.suggested_box is not None
    rivals = judged.get((finding.code, digests.get(finding.sample_id)), ()) if missing else ()
    if not rivals:
        return finding
    boxes = np.array([each.judged_box for each in rivals], dtype=np.float64)
    iou = box_iou(boxes, np.array(finding.suggested_box, dtype=np.float64))
    best = len(iou) - 1 - int(iou[::-1].argmax())  # of equal ones the latest
    return replace(finding, decision=rivals[best].verdict) if iou[best] > SAME else finding


def _judged(cells: Mapping[str, Any], name: str) -> Any:
    value = cells.get(name)
    return tuple(value) if name == "judged_box" and value is not None else value


def fix_to_json(fix: Fix) -> dict[str, Any]:
    """A fix as a JSON object."""
    return asdict(fix)


def fix_from_json(value: Mapping[str, Any]) -> Fix:
    """The fix that `fix_to_json` wrote."""
    boxes = {name: None if value.get(name) is None else tuple(value[name]) for name in ("old_box", "box")}
    return Fix(**{**value, "locator": Locator(**value["locator"]), **boxes})


class _Findings:
    """The findings of a report by the names that a row may give them."""

    def __init__(self, report: Report, *, new_classes: bool) -> None:
        self.classes, self.new_classes = report.tables.classes, new_classes
        self.labels = report.tables.labels
        self.digests = report.tables.images["digest"]
        self.several = report.tables.task == "multilabel"
        self.objects = _Objects(report.tables) if report.tables.task == "detection" else None
        self.names: dict[Any, set[str]] = {}
        self.of_sample: dict[str, str] | None = None
        self.by_key = {finding.key: finding for finding in report.items}
        self.by_sample: dict[str, list[Finding]] = {}
        for finding in report.items:
            for name in {finding.sample_id, finding.item_id} - {None}:
                self.by_sample.setdefault(f"{finding.code}:{name}", []).append(finding)

    def decide(self, row: _Row) -> Decision:
        finding = self.find(row)
        verdict, label = row.text("verdict").lower(), row.text("label")
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
            at=row.text("at") or None,
            note=row.text("note") or None,
            code=finding.code,
            item_id=finding.item_id,
            given=finding.given,
            digest=self.digest_of(finding),
            judged_box=finding.suggested_box if finding.box is None else finding.box,
        )

    def digest_of(self, finding: Finding) -> str | None:
        digest = self.digests.get(finding.sample_id) if finding.sample_id is not None else None
        return None if digest is None or pd.isna(digest) else str(digest)

    def find(self, row: _Row) -> Finding:
        name = row.text("finding")
        if name in self.by_key:
            return self.by_key[name]
        found = self.by_sample.get(name, [])
        if len(found) == 1:
            return found[0]
        if found:
            keys = ", ".join(finding.key for finding in found)
            raise InputError(
                f"{name!r} names {len(found)} findings.", where=row.where, fix=f"Give the key: {keys}."
            )
        raise InputError(
            f"There is no finding {name!r} in the report.", where=row.where,
            fix="Expected a finding's key, or CODE:sample_id. Findings change with the data: audit again.",
        )  # fmt: skip

    def other(self, finding: Finding, label: str, box: Box | None, where: str) -> Fix:
        """The fix that a person says instead of the proposed one."""
        if not label and box is None:
            empty = "label is" if self.objects is None else "label and the box are"
            raise InputError(
                f"The verdict is 'other' and the {empty} empty.", where=where, fix="Name the class."
            )
        if label and label not in self.classes and not self.new_classes:
            raise InputError(
                f"No sample has the class {label!r}. {nearest(label, self.classes)}", where=where,
                fix="For a class that is new, read the decisions with new_classes=True.",
            )  # fmt: skip
        of_a_class = finding.fix is not None and finding.fix.op == "rename"
        if self.objects is None or (of_a_class and box is None):
            return self.relabel(finding, label, where)
        return self.objects.other(finding, label or None, box, where)

    def relabel(self, finding: Finding, label: str, where: str) -> Fix:
        if finding.fix is not None and finding.fix.op == "rename":
            return replace(finding.fix, new=label)
        if finding.fix is not None and finding.fix.op == "add":
            return self.add(finding.fix, label, where)
        label_id = self.label_of(finding, where)
        row: Any = self.labels.loc[label_id]
        old = None if pd.isna(row["name"]) else str(row["name"])
        if label in self.classes_of(row["sample_id"]):
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

    def add(self, proposed: Fix, label: str, where: str) -> Fix:
        """Another class than the one that is missing."""
        if label in self.classes_of(proposed.sample_id):
            raise InputError(
                f"The sample {proposed.sample_id} has the class {label!r} already.", where=where,
                fix="Say 'keep'.",
            )  # fmt: skip
        return replace(proposed, label_id=f"{proposed.sample_id}:{label}", new=label)

    def classes_of(self, sample_id: str) -> set[str]:
        """The classes that a sample has."""
        if not self.names:
            self.names = self.labels.dropna(subset="name").groupby("sample_id")["name"].agg(set).to_dict()
        return self.names.get(sample_id, set())

    def label_of(self, finding: Finding, where: str) -> str:
        if finding.item_id in self.labels.index:
            return finding.item_id
        if self.of_sample is None:
            self.of_sample = dict(zip(self.labels["sample_id"], self.labels.index, strict=True))
        if finding.sample_id not in self.of_sample:
            raise InputError(
                f"The finding {finding.key} is about no label that could be changed.", where=where
            )
        if self.several and len(self.classes_of(finding.sample_id)) > 1:
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


def _box_of(row: _Row) -> Box | None:
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


def _csv_rows(path: Path, content: bytes) -> Iterator[_Row]:
    text = _cells.decode(content, path).text

    def fits(names: Iterable[str]) -> bool:
        return {"finding", "verdict"} <= {name.lower() for name in names}

    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_cells.layout(text, fits, path).delimiter)
    names: list[str] = []
    begins = 1
    for cells in reader:
        where, begins = f"{path}:{begins}", reader.line_num + 1
        if not any(cell.strip() for cell in cells):
            continue
        if not names:
            names = [name.strip().lower() for name in cells]
            _check_columns(names, where)
            continue
        if any(cell.strip() for cell in cells[len(names) :]):
            raise InputError(
                f"The row has {len(cells)} cells; the header has {len(names)}.", where=where,
                fix="Put a cell that holds the delimiter in quotes.",
            )  # fmt: skip
        yield _Row(where=where, cells=dict(zip(names, cells, strict=False)))


def _json_rows(path: Path, content: bytes) -> Iterator[_Row]:
    # Not splitlines: U+2028 may be in a text
    lines = content.decode("utf-8-sig", errors="replace").split("\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            cells = json.loads(line)
        except ValueError as error:
            if number == len(lines) and path.name == "decisions.jsonl":
                return  # a line whose writing was interrupted; the next one takes its place
            raise InputError(f"The line is not JSON: {error}.", where=where) from None
        if not isinstance(cells, dict):
            raise InputError(f"The line is a {type(cells).__name__}; expected an object.", where=where)
        _check_columns(list(cells), where)
        yield _Row(where=where, cells=cells)


def _check_columns(names: Sequence[str], where: str) -> None:
    known = (*_ANSWERS, *_CONTEXT, *_KEPT, *_REPORTED)
    for name in names:
        if name and name not in known:
            raise InputError(f"There is no column {name!r}. {nearest(name, known)}", where=where)
    for name in ("finding", "verdict"):
        if name not in names:
            raise InputError(f"The column {name!r} is missing; there are {', '.join(names)}.", where=where)


def _said(finding: Finding, name: str) -> object:
    """A cell of a template; corners have a space between them, or a spreadsheet reads them as one number."""
    if name not in _BOXES:
        return _harmless(getattr(finding, name))
    box = getattr(finding, _BOXES[name])
    return "" if box is None else ", ".join(f"{corner:.1f}" for corner in box)


def _harmless(value: object) -> object:
    """A spreadsheet runs what begins like a formula; these columns are for people, not read back."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t") else value
