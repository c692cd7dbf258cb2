"""The linter for vision datasets: find wrong labels, review them, fix them in place, version the result."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dataaudit.errors import DataAuditError
    from dataaudit.fix import apply, plan, undo
    from dataaudit.loading import load
    from dataaudit.pipeline import audit
    from dataaudit.report import show
    from dataaudit.review import clean, push
    from dataaudit.types import Check, Decision, Finding, Fix, Locator, Outcome, Report, Source, Tables
    from dataaudit.version import checkout, commit, compare, diff, versions

__version__ = "0.1.0"

_HOME = {
    "audit": "pipeline",
    "DataAuditError": "errors",
    "apply": "fix",
    "plan": "fix",
    "undo": "fix",
    "clean": "review",
    "push": "review",
    "load": "loading",
    "show": "report",
    "Check": "types",
    "Decision": "types",
    "Finding": "types",
    "Fix": "types",
    "Locator": "types",
    "Outcome": "types",
    "Report": "types",
    "Source": "types",
    "Tables": "types",
    "checkout": "version",
    "commit": "version",
    "compare": "version",
    "diff": "version",
    "versions": "version",
}

__all__ = [
    "Check",
    "DataAuditError",
    "Decision",
    "Finding",
    "Fix",
    "Locator",
    "Outcome",
    "Report",
    "Source",
    "Tables",
    "apply",
    "audit",
    "checkout",
    "clean",
    "commit",
    "compare",
    "diff",
    "load",
    "plan",
    "push",
    "show",
    "undo",
    "versions",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'dataaudit' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"dataaudit.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
