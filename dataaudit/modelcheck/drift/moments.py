"""When something changed along a sequence: the moment, an interval for it, and whether it was sudden.

Pure functions of arrays that are in the order of time. What is close in time may depend on each other:
p-values come from permutations of blocks, whose length follows from the autocorrelation that is left beside
the change.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from dataaudit.modelcheck.drift.statistics import p_values

__all__ = ["Ramp", "Step", "block_length", "interval", "ramp", "scan", "step", "two_steps"]

Floats = np.ndarray[Any, np.dtype[np.float64]]

_LEAST_SHARE = 0.02
_LEAST = 5
_CUT = 3.676
"""Log-likelihood below the best at which the 95% interval of a change ends: -log(1 - sqrt(0.95)).

Around a change the log-likelihood is a two-sided random walk with drift; either side's maximum above the
true moment is exponential. Reference: Siegmund, "Confidence Sets in Change-point Problems", International
Statistical Review 1988.
"""
_GRID = 60


@dataclass(frozen=True, kw_only=True)
class Step:
    """A sudden change.

    Attributes:
        at: position of the first value after it.
        first, last: positions between which it lies by the 95% interval.
        before, after: mean of the values on either side.
        log_likelihood: of the values, up to a constant.
    """

    at: int
    first: int
    last: int
    before: float
    after: float
    log_likelihood: float


@dataclass(frozen=True, kw_only=True)
class Ramp:
    """A gradual change, linear in time.

    Attributes:
        begin, end: times between which it happened.
        before, after: mean of the values on either side.
        log_likelihood: of the values, up to a constant.
    """

    begin: float
    end: float
    before: float
    after: float
    log_likelihood: float


def scan(values: Floats, *, n_permutations: int = 999, seed: int = 0) -> tuple[float, Floats]:
    """Whether any column has another mean after some moment than before; the search for it is paid for.

    Args:
        values: (n, k) in the order of time.
        n_permutations: how often blocks of consecutive rows are put in another order.
        seed: of the random numbers.

    Returns:
        The p-value of all columns together, and (k,) the corrected one of each.

    Reference: Csörgő and Horváth, "Limit Theorems in Change-Point Analysis", 1997, for the statistic.
    """
    n, k = values.shape
    if n < 2 * _LEAST or not k:
        return 1.0, np.ones(k)
    length = max(block_length(values[:, column]) for column in range(k))
    rng = np.random.default_rng(seed)
    whole = n // length * length
    found = np.empty((k, n_permutations + 1))
    found[:, 0] = _statistic(values)
    for number in range(1, n_permutations + 1):
        # The cut between blocks moves too, or the last and shorter one would stand out
        order = np.roll(np.arange(n), int(rng.integers(n)))
        blocks = order[:whole].reshape(-1, length)[rng.permutation(whole // length)].ravel()
        found[:, number] = _statistic(values[np.concatenate([blocks, order[whole:]])])
    together, each = p_values(found)
    return together, np.asarray(each, dtype=np.float64)


def block_length(values: Floats) -> int:
    """How many consecutive values depend on each other, at most a tenth of them.

    The first lag at which the autocorrelation about the means before and after the likeliest change is below
    what chance makes of independent values.

    >>> block_length(np.random.default_rng(0).normal(size=1000))
    1
    """
    n = len(values)
    at = step(values).at
    rest = values - np.where(np.arange(n) < at, values[:at].mean(), values[at:].mean())
    total = float(rest @ rest)
    if total <= 1e-12 * n:
        return 1
    limit = 2 / np.sqrt(n)
    longest = max(n // 10, 1)
    for lag in range(1, longest):
        if float(rest[:-lag] @ rest[lag:]) / total < limit:
            return lag if lag == 1 else min(2 * lag, longest)
    return longest


def step(values: Floats, *, binary: bool = False) -> Step:
    """The likeliest sudden change, with its interval.

    Args:
        values: (n,) in the order of time, n at least 2.
        binary: they are 0 and 1.
    """
    curve, least = _curve(values, binary)
    best = int(curve.argmax())
    at = best + least
    spread = 1.0 if binary else max(_residual_variance(values, at), 1e-12)
    inside = np.flatnonzero(curve >= curve[best] - _CUT * (1.0 if binary else 2 * spread))
    return Step(
        at=at,
        first=int(inside[0]) + least,
        last=int(inside[-1]) + least,
        before=float(values[:at].mean()),
        after=float(values[at:].mean()),
        log_likelihood=float(curve[best]),
    )


def interval(values: Floats, dispersion: float) -> tuple[int, int]:
    """Positions between which a change of 0s and 1s lies, where neighbours depend on each other.

    Args:
        values: (n,) 0 and 1.
        dispersion: how many times the variance of sums is what it is for independent values.
    """
    curve, least = _curve(values, binary=True)
    inside = np.flatnonzero(curve >= curve.max() - _CUT * max(dispersion, 1.0))
    return int(inside[0]) + least, int(inside[-1]) + least


def ramp(values: Floats, counts: Floats, times: Floats) -> Ramp:
    """The likeliest change that is linear in time; a sudden one is the shortest of these.

    Args:
        values: (g,) share of 1s in each of g bins, in the order of time.
        counts: (g,) how many there are in each.
        times: (g,) mean time of each.
    """
    grid = np.unique(np.quantile(times, np.linspace(0, 1, _GRID)))
    begin, end = (each[np.triu_indices(len(grid), 1)] for each in np.meshgrid(grid, grid, indexing="ij"))
    weight = np.clip((times - begin[:, None]) / (end - begin)[:, None], 0, 1)
    total = counts.sum()
    mean_weight, mean_value = weight @ counts / total, float(values @ counts) / total
    centred = weight - mean_weight[:, None]
    slope = centred @ (counts * values) / np.maximum((centred**2) @ counts, 1e-12)
    before = mean_value - slope * mean_weight
    expected = np.clip(before[:, None] + slope[:, None] * weight, 1e-6, 1 - 1e-6)
    likelihood = np.log(expected) @ (counts * values) + np.log(1 - expected) @ (counts * (1 - values))
    best = int(likelihood.argmax())
    return Ramp(
        begin=float(begin[best]),
        end=float(end[best]),
        before=float(np.clip(before[best], 0, 1)),
        after=float(np.clip(before[best] + slope[best], 0, 1)),
        log_likelihood=float(likelihood[best]),
    )


def two_steps(values: Floats, counts: Floats) -> float:
    """Log-likelihood of the likeliest two sudden changes; see `ramp` for the arguments."""
    ones = np.concatenate([[0.0], (values * counts).cumsum()])
    size = np.concatenate([[0.0], counts.cumsum()])
    grid = np.unique(np.linspace(0, len(values), 2 * _GRID).astype(int))[1:-1]
    if len(grid) < 2:
        return -np.inf
    i, j = (grid[each] for each in np.triu_indices(len(grid), 1))
    parts = (
        (ones[i], size[i]),
        (ones[j] - ones[i], size[j] - size[i]),
        (ones[-1] - ones[j], size[-1] - size[j]),
    )
    return float(np.sum([_entropy(*part) for part in parts], axis=0).max())


def _least(n: int) -> int:
    return max(min(max(_LEAST, int(_LEAST_SHARE * n)), n // 2), 1)


def _statistic(values: Floats) -> Floats:
    """(k,) largest standardised difference of the means before and after, over all moments, squared."""
    n = len(values)
    least = _least(n)
    centred = values - values.mean(0)
    sums = centred.cumsum(0)[least - 1 : n - least]
    at = np.arange(least, n - least + 1)[:, None]
    variance = np.maximum(centred.var(0), 1e-12)
    return np.asarray((sums**2 * n / (at * (n - at))).max(0) / variance)


def _curve(values: Floats, binary: bool) -> tuple[Floats, int]:
    """Log-likelihood, or less twice the sum of squares, of a change at each position from `least` on."""
    n = len(values)
    least = _least(n)
    at = np.arange(least, n - least + 1)
    ahead = values.cumsum()[at - 1]
    behind = values.sum() - ahead
    if not binary:
        return ahead**2 / at + behind**2 / (n - at), least
    return _entropy(ahead, at) + _entropy(behind, n - at), least


def _entropy(ones: Floats, counts: Any) -> Floats:
    share = np.clip(ones / counts, 1e-12, 1 - 1e-12)
    return np.asarray(ones * np.log(share) + (counts - ones) * np.log(1 - share))


def _residual_variance(values: Floats, at: int) -> float:
    return float((values[:at].var() * at + values[at:].var() * (len(values) - at)) / len(values))
