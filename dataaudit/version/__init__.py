"""Versions of a dataset: commit, list, checkout, diff, compare, push and pull, in git and DVC."""

from __future__ import annotations

from dataaudit.version.comparison import Comparison, compare
from dataaudit.version.detection import DetectionComparison
from dataaudit.version.difference import VersionDiff, diff
from dataaudit.version.history import Version, checkout, commit, pull, push, versions
from dataaudit.version.snapshot import materialize, read

__all__ = [
    "Comparison",
    "DetectionComparison",
    "Version",
    "VersionDiff",
    "checkout",
    "commit",
    "compare",
    "diff",
    "materialize",
    "pull",
    "push",
    "read",
    "versions",
]
