"""Concept drift: when the share of right predictions changed along a stream of outcomes."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dataaudit.errors import InputError
from dataaudit.modelcheck.drift.drawing import outcome_plot
from dataaudit.modelcheck.drift.moments import Ramp, Step, block_length, interval, ramp, scan, step, two_steps
from dataaudit.modelcheck.drift.times import said, to_numbers
from dataaudit.modelcheck.families import drf
from dataaudit.modelcheck.findings import finding
from dataaudit.modelcheck.reporting import ModelReport, Picture, Table
from dataaudit.report.text import percent, plural

__all__ = ["Change", "changes", "concept_drift", "read_outcomes"]

_TIMES = ("time", "timestamp", "date", "datetime", "at", "step")
_CORRECT = ("correct", "right", "is_correct", "hit")
_GIVEN = ("given", "label", "truth", "true", "target", "actual", "y_true")
_PREDICTED = ("predicted", "prediction", "pred", "y_pred", "name")
_WORDS = {"1": 1.0, "0": 0.0, "true": 1.0, "false": 0.0, "yes": 1.0, "no": 0.0, "1.0": 1.0, "0.0": 0.0}
_BINS = 1000
_MOST_CHANGES = 5
_FEWEST = 20


@dataclass(frozen=True, kw_only=True)
class Change:
    """One change of accuracy.

    Attributes:
        p_value: of any change in the part of the stream in which it was found.
        before, after: accuracy on either side.
        at: time of the first outcome after it; of a gradual one the middle.
        first, last: times between which it lies by the 95% interval; of a gradual one begin and end.
        gradual: whether it took a while.
    """

    p_value: float
    before: float
    after: float
    at: float
    first: float
    last: float
    gradual: bool


def read_outcomes(data: str | Path | pd.DataFrame) -> pd.DataFrame:
    """Read a stream of outcomes, and put it in the order of time.

    Args:
        data: a CSV file or a table with a column ``time`` (dates, seconds or numbers) and either ``correct``
            (0 or 1, true or false) or ``given`` and ``predicted``; usual other names are known as well.

    Returns:
        Columns ``time`` (as given) and ``correct`` (float64, 0 or 1), in the order of time.

    Raises:
        InputError: a column is missing, or a cell can't be read; with its line.
    """
    where = None if isinstance(data, pd.DataFrame) else Path(data)
    table = data if isinstance(data, pd.DataFrame) else _read(Path(data))
    if not len(table):
        raise InputError("There are no outcomes.", where=where)
    moments = _column(table, _TIMES, where)
    correct = _column(table, _CORRECT, None)
    if correct is not None:
        right = correct.astype(str).str.strip().str.lower().map(_WORDS)
        bad = np.flatnonzero(right.isna())
        if len(bad):
            raise InputError(
                f"{correct.name} is {correct.iloc[bad[0]]!r}; expected 0 or 1, true or false.",
                where=_line(where, int(bad[0])),
            )
    else:
        given, predicted = _column(table, _GIVEN, where, or_="correct"), _column(table, _PREDICTED, where)
        assert given is not None
        assert predicted is not None
        bad = np.flatnonzero(given.isna() | predicted.isna())
        if len(bad):
            raise InputError("An outcome lacks its class; a row needs both.", where=_line(where, int(bad[0])))
        right = (given.astype(str) == predicted.astype(str)).astype(np.float64)
    assert moments is not None
    numbers = to_numbers(moments, where=where)
    order = np.argsort(numbers, kind="stable")
    return pd.DataFrame({"time": moments.to_numpy()[order], "correct": right.to_numpy(dtype=float)[order]})


def concept_drift(
    outcomes: pd.DataFrame,
    *,
    level: float = 0.05,
    n_permutations: int = 999,
    seed: int = 0,
    name: str = "outcomes",
) -> ModelReport:
    """Find when accuracy changed along a stream, from what to what, and whether suddenly or gradually.

    Args:
        outcomes: columns ``time`` and ``correct``, as `read_outcomes` returns.
        level: chance of a false alarm, at most.
        n_permutations: how often blocks of the stream are put in another order.
        seed: of the random numbers.
        name: what the report is called.

    Returns:
        A report with one finding for each change, and a plot.
    """
    started = time.perf_counter()
    table = read_outcomes(outcomes)
    moments = to_numbers(table["time"])
    right = table["correct"].to_numpy(dtype=float)
    skipped = {}
    found: list[Change] = []
    if len(right) < _FEWEST:
        skipped[drf.CONCEPT_DRIFT.code] = f"there are {len(right)} outcomes; it needs {_FEWEST}"
    else:
        found = changes(right, moments, level=level, n_permutations=n_permutations, seed=seed)
    items = [_finding(change, table["time"]) for change in found]
    facts = [plural(len(right), "outcome"), f"accuracy {percent(float(right.mean()))}"]
    parts: list[Table | Picture] = [_table(found, table["time"])] if found else []
    parts.append(
        Picture(
            title="Accuracy over time",
            png=outcome_plot(moments, right, table["time"], found),
            note="Accuracy of consecutive outcomes with its 95% interval; the line is what was found.",
        )
    )
    return ModelReport(
        name=name,
        command="drift",
        codes=[] if skipped else [drf.CONCEPT_DRIFT.code],
        items=items,
        facts=facts,
        params={"level": level, "permutations": n_permutations, "seed": seed},
        parts=parts,
        skipped=skipped,
        timings={"compare": time.perf_counter() - started},
        kind="data",
    )


def changes(
    right: np.ndarray[Any, np.dtype[np.float64]],
    moments: np.ndarray[Any, np.dtype[np.float64]],
    *,
    level: float = 0.05,
    n_permutations: int = 999,
    seed: int = 0,
) -> list[Change]:
    """The changes of a stream of 0s and 1s, in the order of time.

    The likeliest change splits the stream, and the parts are searched in turn. A change that a straight line
    explains better than a step is gradual, and isn't split further.

    Args:
        right: (n,) 0 or 1, in the order of time.
        moments: (n,) times as numbers, rising.
        level: chance of a false alarm where nothing changed, at most.
        n_permutations: how often blocks are put in another order.
        seed: of the random numbers.
    """
    found: list[Change] = []
    waiting = [(0, len(right), level)]
    while waiting and len(found) < _MOST_CHANGES:
        start, end, chance = waiting.pop(0)
        change, at = _one(right[start:end], moments[start:end], chance, n_permutations, seed)
        if change is None:
            continue
        found.append(change)
        if not change.gradual:
            # Both parts together may give as many false alarms as the whole
            waiting += [(start, start + at, chance / 2), (start + at, end, chance / 2)]
    return _between(sorted(found, key=lambda change: change.at), right, moments)


def _between(found: list[Change], right: np.ndarray[Any, Any], moments: np.ndarray[Any, Any]) -> list[Change]:
    """The changes with the accuracy since the one before and until the next, where several are sudden."""
    if len(found) < 2:
        return found
    edges = [-np.inf, *(change.at for change in found), np.inf]
    means = [float(right[(moments >= start) & (moments < end)].mean()) for start, end in pairwise(edges)]
    return [
        change if change.gradual else replace(change, before=means[at], after=means[at + 1])
        for at, change in enumerate(found)
    ]


def _one(
    right: np.ndarray[Any, Any], moments: np.ndarray[Any, Any], level: float, n_permutations: int, seed: int
) -> tuple[Change | None, int]:
    if len(right) < _FEWEST or right.min() == right.max():
        return None, 0
    shares, counts, times = _binned(right, moments)
    p_value, _ = scan(shares[:, None], n_permutations=n_permutations, seed=seed)
    if p_value > level:
        return None, 0
    sudden = step(right, binary=True)
    slow = ramp(shares, counts, times)
    # Neighbours that depend on each other make every likelihood look surer than it is
    dispersion = _dispersion(right, sudden)
    # A line has one number more than a step, and two steps have one more than a line
    each = dispersion * np.log(len(right)) / 2
    steps = max(sudden.log_likelihood, two_steps(shares, counts) - 2 * each)
    if slow.log_likelihood - each > steps:
        return _gradual(slow, p_value), 0
    first, last = interval(right, dispersion)
    return Change(
        p_value=p_value,
        before=sudden.before,
        after=sudden.after,
        at=float(moments[sudden.at]),
        first=float(moments[max(first - 1, 0)]),
        last=float(moments[min(last, len(moments) - 1)]),
        gradual=False,
    ), sudden.at


def _gradual(slow: Ramp, p_value: float) -> Change:
    return Change(
        p_value=p_value,
        before=slow.before,
        after=slow.after,
        at=(slow.begin + slow.end) / 2,
        first=slow.begin,
        last=slow.end,
        gradual=True,
    )


def _dispersion(right: np.ndarray[Any, Any], sudden: Step) -> float:
    """How many times the variance of sums over blocks is that of independent outcomes, at least 1."""
    rest = right - np.where(np.arange(len(right)) < sudden.at, sudden.before, sudden.after)
    length = block_length(right)
    n_blocks = len(rest) // length
    if length == 1 or n_blocks < 4:
        return 1.0
    sums = rest[: n_blocks * length].reshape(n_blocks, length).sum(1)
    return max(float(sums.var() / max(length * rest.var(), 1e-12)), 1.0)


def _binned(
    right: np.ndarray[Any, Any], moments: np.ndarray[Any, Any]
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Share of 1s, number and mean time of consecutive outcomes."""
    edges = np.unique(np.linspace(0, len(right), min(len(right), _BINS) + 1).astype(int))
    counts = np.diff(edges).astype(float)
    shares, times = (np.add.reduceat(each, edges[:-1]) / counts for each in (right, moments))
    return shares, counts, times


def _finding(change: Change, times: pd.Series[Any]) -> Any:
    verb = "fell" if change.after < change.before else "rose"
    first, last = said(change.first, times), said(change.last, times)
    how = (
        f"gradually, from {first} to {last}"
        if change.gradual
        else f"suddenly, at {said(change.at, times)} (95% interval: {first} to {last})"
    )
    return finding(
        drf.CONCEPT_DRIFT,
        f"accuracy at {said(change.at, times)}",
        f"Accuracy {verb} from {percent(change.before)} to {percent(change.after)} {how}.",
        advice="Look at what changed then: the camera, the subjects or what labels mean; label recent images "
        "and train again."
        if change.after < change.before
        else "Nothing to do; make sure that the outcomes are measured in the same way as before.",
        evidence={
            "p_value": change.p_value,
            "effect": abs(change.after - change.before),
            "before": change.before,
            "after": change.after,
            "at": said(change.at, times),
            "first": first,
            "last": last,
            "gradual": change.gradual,
        },
        score=min(change.p_value, 1.0),
    )


def _table(found: list[Change], times: pd.Series[Any]) -> Table:
    rows = [
        (
            said(change.at, times),
            "gradual" if change.gradual else "sudden",
            percent(change.before),
            percent(change.after),
            f"{said(change.first, times)} to {said(change.last, times)}",
            float(f"{change.p_value:.2g}"),
        )
        for change in found
    ]
    return Table(
        title="Changes of accuracy",
        columns=("when", "how", "before", "after", "between", "p-value"),
        rows=tuple(rows),
        marked=frozenset(range(len(rows))),
    )


def _read(file: Path) -> pd.DataFrame:
    if not file.is_file():
        raise InputError("There is no such file.", where=file)
    try:
        return pd.read_parquet(file) if file.suffix == ".parquet" else pd.read_csv(file)
    except (ValueError, OSError) as error:
        raise InputError(f"It can't be read: {error}", where=file) from error


def _column(
    table: pd.DataFrame, names: tuple[str, ...], where: Path | None, *, or_: str | None = None
) -> pd.Series[Any] | None:
    by_small = {str(column).strip().lower(): column for column in table.columns}
    for name in names:
        if name in by_small:
            return table[by_small[name]]
    if names is _CORRECT:
        return None
    wanted = f"{or_!r} or {names[0]!r}" if or_ else repr(names[0])
    raise InputError(
        f"There is no column {wanted}; there are {list(table.columns)}.",
        where=where,
        fix="Columns: time, and correct (0 or 1) or given and predicted.",
    )


def _line(where: Path | None, row: int) -> str:
    return f"row {row}" if where is None else f"{where}:{row + 2}"
