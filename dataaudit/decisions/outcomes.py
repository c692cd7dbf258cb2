"""What a decision leads to, by which decisions of several people are compared."""

from __future__ import annotations

import numpy as np

from dataaudit.metrics import box_iou
from dataaudit.types import Box, Decision, Fix

__all__ = ["ALIKE", "EXACT", "SAME", "answered", "final_label", "is_error", "same_outcome"]

SAME = 0.7
"""From which IoU on two boxes in one image are taken for the same object's."""
ALIKE = 0.9
"""From which IoU on two people who moved a box have said the same; nobody hits the pixel of another."""
EXACT = 0.999
"""From which IoU on a box is the one that was written into a table and read again."""

_ENDS = {"drop": "(dropped)", "remove": "(removed)"}


def answered(decision: Decision) -> bool:
    """Whether a decision says something of the finding: neither ``skip`` nor ``withdraw``."""
    return decision.verdict in ("accept", "keep", "other")


def is_error(decision: Decision) -> bool:
    """Whether a person says that the finding is an error."""
    return decision.verdict in ("accept", "other")


def same_outcome(one: Decision, other: Decision, *, iou: float = ALIKE) -> bool:
    """Whether two decisions on one finding lead to the same, as ``accept`` and ``other`` with that class do.

    Args:
        one: a decision.
        other: another on the same finding.
        iou: from which IoU on two boxes count as the same.
    """
    if is_error(one) != is_error(other) or one.fix is None or other.fix is None:
        return one.verdict == other.verdict and one.fix is other.fix
    a, b = one.fix, other.fix
    return (a.op, a.new) == (b.op, b.new) and (a.op == "relabel" or _same_box(a.box, b.box, iou))


def final_label(decision: Decision) -> str:
    """What the label is in the end, as a text."""
    if decision.verdict == "keep" or decision.fix is None:
        return decision.given or "(as it is)"
    return said_of(decision.fix)


def said_of(fix: Fix) -> str:
    """What a fix makes of its label, in a few words."""
    if fix.op in _ENDS:
        return _ENDS[fix.op]
    if fix.op == "merge":
        return f"(merged into {fix.new})"
    return f"{fix.new} (moved)" if fix.op == "move" else str(fix.new)


def _same_box(one: Box | None, other: Box | None, least: float) -> bool:
    if one is None or other is None:
        return one is other
    # IoU doesn't depend on the units, so neither pixels nor relative corners need be known
    return one == other or float(box_iou(np.array(one), np.array(other))) >= least
