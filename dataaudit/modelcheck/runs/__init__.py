"""Runs of training: their curves are read from where they were logged, and what they show is said."""

from dataaudit.modelcheck.runs.checking import curves, signs_of
from dataaudit.modelcheck.runs.histories import Curve, History, pairs_of
from dataaudit.modelcheck.runs.reading import read_runs

__all__ = ["Curve", "History", "curves", "pairs_of", "read_runs", "signs_of"]
