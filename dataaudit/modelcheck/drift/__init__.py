"""Drift: production is compared with the reference that the model was trained on, or along its time."""

from dataaudit.modelcheck.drift.checking import compare, drift, report_of
from dataaudit.modelcheck.drift.outcomes import concept_drift, read_outcomes
from dataaudit.modelcheck.drift.sides import Side, load_side, read_side, save_side, with_predictions
from dataaudit.modelcheck.drift.times import with_times

__all__ = [
    "Side",
    "compare",
    "concept_drift",
    "drift",
    "load_side",
    "read_outcomes",
    "read_side",
    "report_of",
    "save_side",
    "with_predictions",
    "with_times",
]
