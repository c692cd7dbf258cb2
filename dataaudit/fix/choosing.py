"""Which of the fixes that findings propose a plan takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from dataaudit.decisions import SAME
from dataaudit.errors import InputError, nearest
from dataaudit.metrics import box_iou
from dataaudit.types import CORNERS, Box, Decision, Finding, Fix, Report, Tables

__all__ = ["Planned", "choose", "takes_out"]

_PLACING = ("add", "move")


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


def choose(
    report: Report,
    by_key: Mapping[str, Decision],
    min_probability: float | None = None,
    codes: Sequence[str] = (),
) -> tuple[tuple[Planned, ...], dict[str, str]]:
    """The fixes to apply, in the order of their places, and what was left out of those that were asked for.

    Args:
        report: the audit's result.
        by_key: decisions by the key of the finding.
        min_probability: take the fixes of findings that are at least this probable and undecided.
        codes: codes or prefixes of checks; empty takes every check.

    Returns:
        The fixes, and the reason why not by the key of a finding.

    Raises:
        InputError: decisions that contradict each other, or a code that no check has.
    """
    findings = _of_codes(report, codes)
    asked = [*_accepted(findings, by_key), *_probable(findings, by_key, min_probability)]
    objects = report.tables.task == "detection"
    candidates, later = _renamed(asked, report.tables)
    chosen, beaten = _one_a_label(candidates, objects=objects)
    chosen, orphans = _keep_merged(chosen)
    if objects:
        chosen, waiting = _keep_one(chosen, report)
        orphans |= waiting
    items = sorted(chosen, key=lambda item: _place(item.fix))
    taken = {item.finding for item in items}  # of a class that is renamed some labels have their own fix
    left_out = {key: why for key, why in (later | beaten).items() if key not in taken}
    return tuple(items), left_out | orphans


def takes_out(fix: Fix) -> bool:
    """Whether the whole sample leaves the dataset."""
    return fix.op in ("drop", "merge")


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
        if finding.fix is not None and not takes_out(finding.fix) and verdicts[finding.key] == "keep"
    }
    return [
        _planned(finding, finding.fix, None)
        for finding in findings
        if finding.fix is not None
        and finding.key not in by_key
        and verdicts[finding.key] in (None, "accept")
        and finding.probability is not None
        and finding.probability >= min_probability
        and (takes_out(finding.fix) or finding.fix.label_id not in stay)
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
    return item.decided, takes_out(item.fix), item.probability or 0.0


def _place(fix: Fix) -> tuple[str, int, str]:
    item = fix.locator.item
    return (fix.locator.file, item, "") if isinstance(item, int) else (fix.locator.file, -1, str(item))


# Classes that are renamed


def _renamed(asked: Sequence[Planned], tables: Tables) -> tuple[list[Planned], dict[str, str]]:
    """Each renaming of a class as a fix of each of its labels, but for those with a decision of their own.

    Returns:
        The fixes, and by the key of a finding what has to wait: the box of an object that is renamed.
    """
    renames = {item.fix.old: item for item in asked if item.fix.op == "rename"}
    if not renames:
        return list(asked), {}
    into = {old: str(item.fix.new) for old, item in renames.items()}
    objects = tables.task == "detection"
    named = ("relabel", "add") if objects else ("relabel",)
    others: list[Planned] = []
    later: dict[str, str] = {}
    for item in asked:
        if item.fix.op in named and item.fix.new in into:
            item = replace(item, fix=replace(item.fix, new=into[item.fix.new]))
        if item.fix.op == "move" and item.fix.old in into:
            later[item.finding] = f"the class {item.fix.old!r} is renamed first; audit again for the box"
            continue
        stays = item.fix.op == "relabel" and item.fix.old == item.fix.new
        if item.fix.op != "rename" and not stays:
            others.append(item)
    decided = {item.fix.label_id for item in others if item.decided}
    labels = tables.labels[tables.labels["name"].isin(list(into)) & ~tables.labels.index.isin(decided)]
    boxes = _boxes(labels) if objects else [None] * len(labels)
    has = set() if objects else set(zip(tables.labels["sample_id"], tables.labels["name"], strict=True))
    columns = (labels.index, labels["sample_id"], labels["name"], labels["locator"], boxes)
    for label_id, sample_id, name, locator, box in zip(*columns, strict=True):
        item, twice = renames[name], (sample_id, into[name]) in has
        fix = Fix(
            op="remove" if twice else "relabel", sample_id=str(sample_id), label_id=str(label_id),
            locator=locator, old=name, new=None if twice else into[name], old_box=box,
        )  # fmt: skip
        others.append(replace(item, fix=fix))
    return others, later


def _boxes(labels: Any) -> list[Box | None]:
    """The corners of each object as they are in the tables; None where they can't be read."""
    corners = labels[list(CORNERS)].to_numpy(dtype=np.float64)
    known = np.isfinite(corners).all(axis=1).tolist()
    return [tuple(row) if good else None for row, good in zip(corners.tolist(), known, strict=True)]


# One fix a label


@dataclass(kw_only=True)
class _Taken:
    """The fixes chosen so far of one sample."""

    items: list[Planned] = field(default_factory=list)
    by_label: dict[str, Planned] = field(default_factory=dict)
    placing: list[Planned] = field(default_factory=list)
    whole: Planned | None = None

    def take(self, item: Planned) -> None:
        self.items.append(item)
        self.by_label[item.fix.label_id] = item
        if item.fix.op in _PLACING:
            self.placing.append(item)
        if takes_out(item.fix):
            self.whole = item

    def excluding(self, item: Planned, *, objects: bool) -> Planned | None:
        """The chosen fix that can't be applied together with `item`, or is the same."""
        if takes_out(item.fix) and self.items:
            return self.items[0]
        same_label = self.whole or self.by_label.get(item.fix.label_id)
        if same_label is not None:
            return same_label
        if objects:
            rivals = self.items if item.fix.op in _PLACING else self.placing
            return next((other for other in rivals if _same_object(other, item)), None)
        gives = item.fix.new
        return next((other for other in self.items if gives is not None and other.fix.new == gives), None)


def _one_a_label(candidates: Sequence[Planned], *, objects: bool) -> tuple[list[Planned], dict[str, str]]:
    """The weightiest fix of each label; where that is to take the sample out, it alone."""
    chosen: dict[str, _Taken] = {}
    left_out = {}
    for item in sorted(candidates, key=_weight, reverse=True):
        taken = chosen.setdefault(item.fix.sample_id, _Taken())
        winner = taken.excluding(item, objects=objects)
        if winner is None:
            taken.take(item)
            continue
        _check_agreement(item, winner)
        left_out[item.finding] = (
            _why_left_out(item, winner) if objects else (f"{winner.code} fixes {item.fix.sample_id} already")
        )
    return [item for taken in chosen.values() for item in taken.items], left_out


def _same_object(one: Planned, other: Planned) -> bool:
    """Whether two fixes of different labels would give one object two boxes, or undo each other.

    Two boxes that are there already may both change their class: that leaves as many as there were.
    """
    fixes, ops = (one.fix, other.fix), (one.fix.op, other.fix.op)
    if not set(ops) & set(_PLACING):
        return False
    if "remove" in ops:
        removed, placed = fixes if ops[0] == "remove" else fixes[::-1]
        # A box may move to where another goes, as a fragment does whose rest is removed
        return placed.op == "add" and removed.old == placed.new and _iou(removed.old_box, placed.box) > SAME
    if one.fix.new != other.fix.new and ("add" not in ops or (one.decided and other.decided)):
        return False
    return _iou(*(fix.box if fix.box is not None else fix.old_box for fix in fixes)) > SAME


def _iou(one: Box | None, other: Box | None) -> float:
    if one is None or other is None:
        return 0.0
    return float(box_iou(np.array(one), np.array(other)))


def _why_left_out(item: Planned, winner: Planned) -> str:
    if takes_out(winner.fix):
        return f"{winner.code} takes {item.fix.sample_id} out"
    if takes_out(item.fix):
        return f"{winner.code} changes {item.fix.sample_id}, which would be taken out"
    if winner.fix.label_id == item.fix.label_id:
        same = (winner.fix.op, winner.fix.new) == (item.fix.op, item.fix.new)
        again = "" if same or winner.fix.op == "remove" else "; audit again for what is left"
        return f"{winner.code} fixes {item.fix.label_id} already{again}"
    return f"{winner.code} fixes the same object ({winner.fix.op} {winner.fix.label_id})"


def _check_agreement(one: Planned, other: Planned) -> None:
    if (
        one.decided
        and other.decided
        and one.fix.op == other.fix.op == "relabel"
        and one.fix.label_id == other.fix.label_id
        and one.fix.new != other.fix.new
    ):
        raise InputError(
            f"Two decisions contradict each other: {one.fix.label_id} becomes {other.fix.new!r} by "
            f"{other.finding} and {one.fix.new!r} by {one.finding}.",
            fix="Change one of them to 'skip'.",
        )


# Groups that never go as a whole


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


def _keep_one(chosen: Sequence[Planned], report: Report) -> tuple[list[Planned], dict[str, str]]:
    """Leave out removals of boxes in favour of one that goes too, or that isn't moved as it was to be.

    The boxes of one object, such as duplicates, have the same ``group`` in the evidence of their check, those
    to keep as well. What a person decided is done.
    """
    taken = {item.finding for item in chosen}
    removed = {item.fix.label_id for item in chosen if item.fix.op == "remove"}
    groups = {item.key: (item.code, item.evidence.get("group")) for item in report.items}
    unmoved = {
        groups[item.key]
        for item in report.items
        if item.fix is not None and item.fix.op == "move" and item.key not in taken
    }
    members = {
        (code, group): set(map(str, ids))
        for code in {item.code for item in chosen if item.fix.op == "remove"}
        for group, ids in _groups_of(report, code).items()
    }
    kept, left_out = [], {}
    for item in sorted(chosen, key=_weight):
        group = groups.get(item.finding, (item.code, None))
        if item.fix.op == "remove" and not item.decided and group[1] is not None:
            if group in unmoved:
                left_out[item.finding] = "the box that was to take its place isn't moved"
            elif members.get(group, removed | {""}) <= removed:
                left_out[item.finding] = "all boxes of the object would go; audit again for this one"
        if item.finding not in left_out:
            kept.append(item)
        else:
            removed.discard(item.fix.label_id)
    return kept, left_out


def _groups_of(report: Report, code: str) -> dict[Any, Any]:
    """The items of each group in the evidence of a check, flagged or not."""
    outcome = report.outcomes.get(code)
    if outcome is None or outcome.evidence is None or "group" not in outcome.evidence:
        return {}
    return dict(outcome.evidence.groupby("group").groups)
