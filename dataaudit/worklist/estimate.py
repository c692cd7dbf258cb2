"""What the verdicts so far say about the findings that are left: their probabilities, and how many errors.

The audit gives an item i the probability p_i: the findings, and what no finding is about, the background.
With p_i cut to [1e-9, 1 - 1e-9], z_i = log(p_i / (1 - p_i)) and t_i = z_i cut to [-9, 9], verdicts move it to

    logit(q_i) = z_i + x_i b + u(pair of i)
    x_i b = a + s t_i + sum_j w_j exp(-(t_i - m_j)^2 / (2 W^2)) + c(check of i) + d (of the background)

with an intercept a, a slope s, bumps w_j at m_j = -9, -6, ..., 9 of the width W = 2, an effect c of each
check, an effect d that all of the background shares, and an effect u of each pair of classes of a check,
given and suggested. All are normal with mean 0 and the deviations of `PRIOR`. A finding without a probability
has z_i = 0 and no effects but c, with a wider prior, and u; the background has no u. Nobody looks at the
background, so no verdict says anything of d: it is how far the background may be from what findings say.

A verdict y_i is 1 for an error, and a slip in e = 0.02 of the cases: P(y_i = 1) = r_i = e + (1 - 2 e) q_i.
With k_i = (1 - 2 e) q_i (1 - q_i), f_i = k_i (y_i - r_i) / (r_i (1 - r_i)) and v_i = k_i^2 / (r_i (1 - r_i)),
the most probable b and u are found in `ROUNDS` rounds from 0, each a step for b and then, with q anew, one
for each u:

    H = sum_i v_i x_i x_i' + diag(1 / deviation^2)
    step = H^-1 (sum_i f_i x_i - b / deviation^2);  b <- b + step / max(1, largest |step_j|)
    h = sum_(i of the pair) v_i + 1 / PAIR^2
    u <- u + (sum_(i of the pair) f_i - u / PAIR^2) / h, but by no more than 1 either way

The number of errors among n_i items of each kind (1 of a finding without a verdict, of the background as
many as have p_i) is E = sum n_i q_i. With g = sum n_i q_i (1 - q_i) x_i, g_u the same sum without x_i over
the items of a pair, V = H^-1 and Z = 1.645, its interval joins two parts:

- the coefficients are wrong: E- and E+ are the sums with b -+ Z V g / sqrt(g' V g) in place of b;
- items and pairs, each by itself, a log-normal number with the variance S^2 = sum n_i q_i (1 - q_i) +
  sum_u g_u^2 / h: with L^2 = log(1 + S^2 / E^2), from E exp(-L^2 / 2 - Z L) to E exp(-L^2 / 2 + Z L).

The distances of both lower ends from E are joined as the root of the sum of their squares, and so are those
of the upper ends; the interval stays within [0, sum n_i]. With no verdicts H = diag(1 / deviation^2).

Reference: Gelman and Hill, "Data Analysis Using Regression and Multilevel/Hierarchical Models", 2007, for
partial pooling; MacKay, "The Evidence Framework Applied to Classification Networks", Neural Computation 1992,
for the normal approximation; Zou and Donner, "Construction of Confidence Limits About Effect Measures: A
General Approach", Statistics in Medicine 2008, for the joined distances.
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

PRIOR: Mapping[str, float] = {
    "intercept": 0.5, "slope": 0.2, "bump": 0.4, "background": 0.8, "check": 0.4, "unknown": 1.5, "pair": 0.5,
}  # fmt: skip
"""Deviations of the priors, in log-odds; `unknown` is that of the effect of a check without probabilities."""
ROUNDS = 12
SLIPS = 0.02
SIDE = 1.6448536269514722
"""The 95 % quantile of the normal distribution."""
_BUMPS = np.arange(-9.0, 9.1, 3.0)
_WIDTH = 2.0
_LEAST = 1e-9


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


class Estimator:
    """Re-estimates the probabilities of a worklist from verdicts.

    Args:
        worklist: the findings and their background.
    """

    def __init__(self, worklist: Worklist) -> None:
        entries = worklist.entries
        below = [(code, p, n) for code, known in worklist.background.items() for p, n in known]
        self._n = len(entries)
        codes = [entry.code for entry in entries] + [code for code, _, _ in below]
        chances = [entry.probability for entry in entries] + [p for _, p, _ in below]
        self._below = np.array([n for _, _, n in below], dtype=np.float64)
        numbers: dict[Any, int] = {}
        pairs = [numbers.setdefault(kind_of(entry), len(numbers)) for entry in entries]
        # The last pair is that of the background and has no effect
        self._pairs = np.array(pairs + [len(numbers)] * len(below), dtype=np.int64)
        self._of_pair = np.full(len(numbers) + 1, PRIOR["pair"] ** -2)
        self._odds, self._design, self._deviation = _design(codes, chances, self._n)
        self.update({})

    @property
    def probability(self) -> Doubles:
        """(n,) the chance of each finding to be an error, by the verdicts of the last update."""
        return self._chance[: self._n]

    def update(self, verdicts: Mapping[int, bool]) -> None:
        """Take in verdicts, in place of those before.

        Args:
            verdicts: position of a finding in the worklist to whether it is an error.
        """
        places = np.fromiter(verdicts.keys(), dtype=np.int64, count=len(verdicts))
        truth = np.fromiter(verdicts.values(), dtype=np.float64, count=len(verdicts))
        odds, design, pairs = self._odds[places], self._design[places], self._pairs[places]
        weights, effects = np.zeros(len(self._deviation)), np.zeros(len(self._of_pair))
        precision = 1 / self._deviation**2
        hessian, of_pairs = np.diag(precision), self._of_pair
        for _ in range(ROUNDS if len(places) else 0):
            pull, known = _pulls(_sigmoid(odds + design @ weights + effects[pairs]), truth)
            hessian = (design * known[:, None]).T @ design + np.diag(precision)
            step = np.linalg.solve(hessian, design.T @ pull - weights * precision)
            weights = weights + step / max(1.0, float(np.abs(step).max()))
            pull, known = _pulls(_sigmoid(odds + design @ weights + effects[pairs]), truth)
            of_pairs = np.bincount(pairs, known, len(effects)) + self._of_pair
            slope = np.bincount(pairs, pull, len(effects)) - effects * self._of_pair
            effects = effects + np.clip(slope / of_pairs, -1.0, 1.0)
        self._weights, self._effects = weights, effects
        self._covariance, self._of_pairs = np.linalg.inv(hessian), of_pairs
        self._chance = self._moved(weights)

    def left(self, decided: Bools) -> tuple[Estimate, Estimate]:
        """How many errors are left among the findings, and in all.

        Args:
            decided: (n,) the findings that have a verdict.

        Returns:
            Of the findings without a verdict; and of these with the items that no finding is about.
        """
        findings = np.where(decided, 0.0, 1.0)
        among = self._estimate(np.r_[findings, np.zeros(len(self._below))])
        return among, self._estimate(np.r_[findings, self._below])

    def threshold(self, decided: Bools) -> float | None:
        """From which probability on looking at the findings that are left makes the expected F1 largest.

        Args:
            decided: (n,) the findings that have a verdict.
        """
        chance = self.probability[~decided]
        total = float(chance.sum() + self._below @ self._chance[self._n :])
        flagged = chance[expected_f1_flags(chance.astype(np.float32), total=total)]
        return float(flagged.min()) if len(flagged) else None

    def _moved(self, weights: Doubles) -> Doubles:
        return _sigmoid(self._odds + self._design @ weights + self._effects[self._pairs])

    def _estimate(self, counts: Doubles) -> Estimate:
        n, errors = int(counts.sum()), float(counts @ self._chance)
        if errors <= 0:
            return Estimate(n=n, errors=0.0, low=0.0, high=0.0)
        spread = counts * self._chance * (1 - self._chance)
        gradient = spread @ self._design
        turned = self._covariance @ gradient
        move = SIDE * turned / math.sqrt(max(float(gradient @ turned), 1e-300))
        by_pair = np.bincount(self._pairs, spread, len(self._of_pairs))[:-1]
        by_item = float(spread.sum() + (by_pair**2 / self._of_pairs[:-1]).sum())
        width = math.sqrt(math.log1p(by_item / errors**2))
        ends = []
        for side in (-1, 1):
            together = float(counts @ self._moved(self._weights + side * move)) - errors
            alone = errors * math.exp(-width * width / 2 + side * SIDE * width) - errors
            ends.append(errors + side * math.hypot(together, alone))
        return Estimate(n=n, errors=errors, low=max(ends[0], 0.0), high=min(ends[1], n))


def _design(codes: list[str], chances: list[float | None], n: int) -> tuple[Doubles, Doubles, Doubles]:
    """Log-odds of items, the first n of them findings; what multiplies the coefficients; their deviations."""
    known = np.array([chance is not None for chance in chances], dtype=bool)
    chance = np.array([0.5 if chance is None else chance for chance in chances], dtype=np.float64)
    chance = np.clip(chance, _LEAST, 1 - _LEAST)
    odds = np.log(chance / (1 - chance))
    inside = np.clip(odds, _BUMPS[0], _BUMPS[-1])
    bumps = np.exp(-((inside[:, None] - _BUMPS) ** 2) / (2 * _WIDTH**2))
    shared = np.column_stack([np.ones(len(odds)), inside, bumps, np.arange(len(odds)) >= n])
    names = sorted(set(codes))
    number = {code: at for at, code in enumerate(names)}
    place = np.array([number[code] for code in codes], dtype=np.int64)
    checks = (place[:, None] == np.arange(len(names))).astype(np.float64)
    stated = [bool(known[place == at].any()) for at in range(len(names))]
    deviation = [PRIOR["intercept"], PRIOR["slope"], *[PRIOR["bump"]] * len(_BUMPS), PRIOR["background"]]
    deviation += [PRIOR["check"] if each else PRIOR["unknown"] for each in stated]
    return odds, np.column_stack([shared * known[:, None], checks]), np.array(deviation)


def _pulls(chance: Doubles, truth: Doubles) -> tuple[Doubles, Doubles]:
    """How each verdict pulls at the log-odds of its finding, and how much it says of them."""
    slope = (1 - 2 * SLIPS) * chance * (1 - chance)
    said = SLIPS + (1 - 2 * SLIPS) * chance
    return slope * (truth - said) / (said * (1 - said)), slope**2 / (said * (1 - said))


def _sigmoid(odds: Doubles) -> Doubles:
    return np.asarray(1 / (1 + np.exp(-odds)))
