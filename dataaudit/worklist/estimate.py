"""What the verdicts so far say about the findings that are left: their probabilities, and how many errors.

The audit gives a finding i the probability p_i, with the log-odds z_i = log(p_i / (1 - p_i)). Verdicts move
them:

    logit(P(error_i)) = z_i + a + sum_j w_j exp(-(z_i - m_j)^2 / (2 W^2)) + c(check of i) + u(pair of i)

with an intercept a, bumps w_j along the log-odds at m_j = -9, -7.5, ..., 9 of the width W = 1.5, an effect c
of each check and an effect u of each pair of classes, given and suggested. All have normal priors at no
change, with the deviations of `PRIOR`. A finding without a probability has z_i = 0, no intercept and no
bumps, and an effect c of its check with a wider prior. One whose |z_i| is above 9.2 was decided before the
audit: it stays as it is. People look at the worst first: because of the bumps, what they find there says
little about what lies far from it.

The most probable a, w and c, joined as b, are found by `ROUNDS` Newton steps, with the rows x_i of what
multiplies them (1, the bumps, 1 for the check) and the verdicts y_i:

    q_i = 1 / (1 + exp(-(z_i + x_i b + u)))
    H = sum_i q_i (1 - q_i) x_i x_i' + diag(1 / deviation^2)
    b <- b + H^-1 (sum_i (y_i - q_i) x_i - b / deviation^2)

each followed by one step for each pair by itself, with the new b, and sums over the verdicts on the pair:

    h = sum_i q_i (1 - q_i) + 1 / PAIR^2
    u <- u + (sum_i (y_i - q_i) - u / PAIR^2) / h

The errors that are left are E = sum q_i over the findings without a verdict and over the items that no
finding is about (for which u = 0). With g = sum q_i (1 - q_i) x_i, and g_u the same sum without x_i over the
findings of a pair, its variance is

    S^2 = sum q_i (1 - q_i) + g' H^-1 g + sum_u g_u^2 / h_u

and the interval that of a log-normal distribution with this mean and variance: with L^2 = log(1 + S^2 / E^2),
E exp(-L^2 / 2 -+ 1.645 L).

Reference: Gelman and Hill, "Data Analysis Using Regression and Multilevel/Hierarchical Models", 2007, for
partial pooling; MacKay, "The Evidence Framework Applied to Classification Networks", Neural Computation 1992,
for the normal approximation around the most probable coefficients.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dataaudit.signals.noise import expected_f1_flags
from dataaudit.worklist.entries import Worklist
from dataaudit.worklist.order import kind_of

__all__ = ["PRIOR", "Estimate", "Estimator"]

Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

PRIOR: Mapping[str, float] = {"intercept": 0.4, "bump": 0.4, "check": 0.4, "unknown": 1.5, "pair": 0.5}
"""Deviations of the priors, in log-odds; `unknown` is that of a check without probabilities."""
ROUNDS = 8
SIDE = 1.6448536269514722
"""Of the normal distribution between its 5 % and 95 % quantiles."""
_BUMPS = np.arange(-9.0, 9.1, 1.5)
_WIDTH = 1.5
_SETTLED = 9.2
"""Log-odds from which on a probability is what a person said before."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """How many errors some items hold.

    Attributes:
        n: how many items there are.
        errors: the expected number of errors.
        low: lower end of the interval that holds the number with a chance of 90 %.
        high: its upper end.
    """

    n: int
    errors: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class _Rows:
    """Items as the model sees them; `counts` says how many a row stands for."""

    odds: Doubles  # (n,) log-odds by the audit
    bumps: Doubles  # (n, 1 + m) intercept and bumps
    checks: Ints  # (n,)
    pairs: Ints  # (n,)
    counts: Doubles  # (n,)
    settled: Bools  # (n,) decided before the audit


class Estimator:
    """Re-estimates the probabilities of a worklist from verdicts.

    Args:
        worklist: the findings.
    """

    def __init__(self, worklist: Worklist) -> None:
        entries = worklist.entries
        codes = sorted({entry.code for entry in entries} | set(worklist.background))
        number = {code: at for at, code in enumerate(codes)}
        pairs: dict[Any, int] = {}
        pair = [pairs.setdefault(kind_of(entry), len(pairs)) for entry in entries]
        checks = [number[entry.code] for entry in entries]
        self._findings = _rows([entry.probability for entry in entries], checks, pair)
        below = [(p, n, number[code]) for code, known in worklist.background.items() for p, n in known]
        self._background = _rows(
            [p for p, _, _ in below], [check for _, _, check in below], [len(pairs)] * len(below),
            [n for _, n, _ in below],
        )  # fmt: skip
        stated = np.zeros(len(codes), dtype=bool)
        for entry in entries:
            stated[number[entry.code]] |= entry.probability is not None
        for code in worklist.background:
            stated[number[code]] = True
        deviations = [PRIOR["intercept"], *[PRIOR["bump"]] * len(_BUMPS)]
        deviations += [PRIOR["check"] if known else PRIOR["unknown"] for known in stated]
        self._precision = 1 / np.square(deviations)
        self._n_pairs = len(pairs) + 1
        self.update({})

    @property
    def probability(self) -> Doubles:
        """(n,) the chance of each finding to be an error, by the verdicts of the last update."""
        return self._chance

    def update(self, verdicts: Mapping[int, bool]) -> None:
        """Take in verdicts.

        Args:
            verdicts: position of a finding in the worklist to whether it is an error.
        """
        places = np.fromiter(verdicts.keys(), dtype=np.int64, count=len(verdicts))
        truth = np.fromiter(verdicts.values(), dtype=np.float64, count=len(verdicts))
        usable = ~self._findings.settled[places]
        places, truth = places[usable], truth[usable]
        self._fit(places, truth)
        self._chance = self._moved(self._findings)
        self._below = self._moved(self._background)

    def left(self, decided: Bools) -> tuple[Estimate, Estimate]:
        """How many errors are left among the findings, and in all.

        Args:
            decided: (n,) the findings that have a verdict.

        Returns:
            Of the findings without a verdict; and of these with the items that no finding is about.
        """
        findings, below = self._findings, self._background
        some = np.where(decided, 0.0, 1.0)
        queue = self._sums(findings, self._chance, some)
        rest = self._sums(below, self._below, below.counts)
        return self._estimate(queue), self._estimate(tuple(a + b for a, b in zip(queue, rest, strict=True)))

    def threshold(self, decided: Bools) -> float | None:
        """From which probability on looking at the findings that are left makes the expected F1 largest.

        Args:
            decided: (n,) the findings that have a verdict.
        """
        chance = self._chance[~decided]
        total = float(chance.sum() + self._background.counts @ self._below)
        flagged = chance[expected_f1_flags(chance.astype(np.float32), total=total)]
        return float(flagged.min()) if len(flagged) else None

    def _design(self, rows: _Rows, places: Ints) -> Doubles:
        checks = np.zeros((len(places), len(self._precision) - rows.bumps.shape[1]))
        checks[np.arange(len(places)), rows.checks[places]] = 1.0
        return np.concatenate([rows.bumps[places], checks], axis=1)

    def _fit(self, places: Ints, truth: Doubles) -> None:
        design, pairs = self._design(self._findings, places), self._findings.pairs[places]
        odds = self._findings.odds[places]
        of_pair = 1 / PRIOR["pair"] ** 2
        weights, effects = np.zeros(len(self._precision)), np.zeros(self._n_pairs)
        hessian = np.diag(self._precision)
        precision_of_pair = np.full(self._n_pairs, of_pair)
        for _ in range(ROUNDS if len(places) else 0):
            chance = _sigmoid(odds + design @ weights + effects[pairs])
            hessian = (design * (chance * (1 - chance))[:, None]).T @ design + np.diag(self._precision)
            weights = weights + np.linalg.solve(
                hessian, design.T @ (truth - chance) - weights * self._precision
            )
            chance = _sigmoid(odds + design @ weights + effects[pairs])
            precision_of_pair = np.bincount(pairs, chance * (1 - chance), self._n_pairs) + of_pair
            slope = np.bincount(pairs, truth - chance, self._n_pairs) - effects * of_pair
            effects = effects + slope / precision_of_pair
        self._weights, self._effects = weights, effects
        self._covariance, self._of_pairs = np.linalg.inv(hessian), 1 / precision_of_pair

    def _moved(self, rows: _Rows) -> Doubles:
        moved = rows.odds + rows.bumps @ self._weights[: rows.bumps.shape[1]]
        moved += self._weights[rows.bumps.shape[1] :][rows.checks] + self._effects[rows.pairs]
        return _sigmoid(np.where(rows.settled, rows.odds, moved))

    def _sums(self, rows: _Rows, chance: Doubles, counts: Doubles) -> tuple[Any, ...]:
        """How many items, errors and variance there are, and how both kinds of effects move the errors."""
        spread = counts * chance * (1 - chance)
        moves = np.where(rows.settled, 0.0, spread)
        by_check = np.bincount(rows.checks, moves, len(self._precision) - rows.bumps.shape[1])
        gradient = np.concatenate([rows.bumps.T @ moves, by_check])
        pairs = np.bincount(rows.pairs, moves, self._n_pairs)
        pairs[-1] = 0.0
        return counts.sum(), counts @ chance, spread.sum(), gradient, pairs

    def _estimate(self, sums: tuple[Any, ...]) -> Estimate:
        n, spread, gradient, pairs = float(sums[0]), *sums[2:]
        errors = float(sums[1])
        if errors <= 0:
            return Estimate(n=int(n), errors=0.0, low=0.0, high=0.0)
        variance = float(spread + gradient @ self._covariance @ gradient + (pairs**2) @ self._of_pairs)
        width = math.sqrt(math.log1p(variance / errors**2))
        low, high = (errors * math.exp(-width * width / 2 + side * width) for side in (-SIDE, SIDE))
        return Estimate(n=int(n), errors=errors, low=min(low, n), high=min(high, n))


def _rows(
    chances: list[float | None], checks: list[int], pairs: list[int], counts: list[int] | None = None
) -> _Rows:
    known = np.array([chance is not None for chance in chances], dtype=bool)
    chance = np.array([0.5 if chance is None else chance for chance in chances], dtype=np.float64)
    inside = np.clip(chance, 1e-9, 1 - 1e-9)
    odds = np.log(inside / (1 - inside))
    settled = np.abs(odds) > _SETTLED
    bumps = np.exp(-((odds[:, None] - _BUMPS) ** 2) / (2 * _WIDTH**2))
    return _Rows(
        odds=odds,
        bumps=np.concatenate([np.ones((len(odds), 1)), bumps], axis=1) * known[:, None],
        checks=np.array(checks, dtype=np.int64),
        pairs=np.array(pairs, dtype=np.int64),
        counts=np.ones(len(odds)) if counts is None else np.array(counts, dtype=np.float64),
        settled=settled,
    )


def _sigmoid(odds: Doubles) -> Doubles:
    return np.asarray(1 / (1 + np.exp(-odds)))
