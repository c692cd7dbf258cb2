"""What a reviewer looks at: the findings with their evidence, in the order of what looking at them brings."""

from __future__ import annotations

from dataaudit.worklist.entries import Choice, Entry, Neighbor, Worklist
from dataaudit.worklist.making import worklist_of
from dataaudit.worklist.session import Session

__all__ = ["Choice", "Entry", "Neighbor", "Session", "Worklist", "worklist_of"]
