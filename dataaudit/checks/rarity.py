"""How likely a rare thing is an error: what the checks of boxes share.

Two explanations compete for each candidate: it is one of the usual ones, whose number near it is extrapolated
from the bulk of the dataset, or it is an error, whose number is estimated from what the first can't explain.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["PowerTail", "error_chances"]

Doubles = np.ndarray[Any, np.dtype[np.float64]]

_PRIOR_WEIGHT = 0.25
_ROUNDING = 0.01
"""Coordinates are rounded, so that what is close by chance may be at distance 0."""
_ROUNDS = 50


@dataclass(frozen=True, kw_only=True)
class PowerTail:
    """How many unrelated things come as close as a distance, by chance.

    Attributes:
        n: how many come closer than `widest`.
        power: they come closer than d in proportion to d to this power.
        widest: largest distance that the tail describes.
    """

    n: float
    power: float
    widest: float

    @classmethod
    def fit(
        cls,
        distances: Doubles,
        *,
        bulk: tuple[float, float],
        usual_power: float,
        more: float = 0.5,
        weight: float = 10.0,
    ) -> PowerTail:
        """Fit the tail to the bulk of the distances, which errors hardly reach.

        The number of unrelated things within d grows as a power of d, the number of coordinates that have to
        agree; the power is the maximum-likelihood estimate (of a truncated Pareto distribution in 1/d), drawn
        towards `usual_power` where there are few.

        Args:
            distances: (p,) at least 0.
            bulk: smallest and largest distance to fit to.
            usual_power: of other datasets.
            more: number of unrelated ones within `bulk` to add to those seen: a few may be missing by chance.
            weight: how many distances that counts as.

        Reference: Hill, "A Simple General Approach to Inference About the Tail of a Distribution", Annals of
        Statistics 3, 1975; here truncated on both sides.
        """
        low, high = bulk
        inside = distances[(distances >= low) & (distances <= high)]
        span = float(np.log(high / low))
        total = float(np.log(high / np.maximum(inside, low)).sum()) + weight * _mean_log(usual_power, span)
        power = _power_of(total / (len(inside) + weight), span)
        n = (len(inside) + more) / (1 - (low / high) ** power)
        return cls(n=n, power=power, widest=high)

    def density(self, distances: Doubles) -> Doubles:
        """(p,) expected number of unrelated ones per unit of distance, at each distance."""
        share = np.maximum(distances, _ROUNDING) / self.widest
        return np.asarray(self.n * self.power / self.widest * share ** (self.power - 1))


def _mean_log(power: float, span: float) -> float:
    """Mean of log(widest / distance) of a truncated power law."""
    return 1 / power - span / float(np.expm1(power * span))


def _power_of(mean: float, span: float) -> float:
    low, high = 1.0, 50.0
    for _ in range(60):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if _mean_log(middle, span) > mean else (low, middle)
    return low


def error_chances(usual: Doubles, wrong: Doubles, *, n: int, prior: float) -> Doubles:
    """The chance of each candidate to be an error.

    Args:
        usual: (p,) density of usual ones at each candidate: their expected number per unit.
        wrong: (p,) density of a single error at each candidate, per unit.
        n: number of items in which an error may be.
        prior: share of them that is wrong in other datasets.

    Returns:
        (p,) in [0, 1]. The number of errors is estimated with the chances (expectation-maximisation) under a
        gamma prior with the mean ``prior * n``, which a few clear errors overrule.
    """
    if not len(usual):
        return np.zeros(0)
    expected = max(prior * n, 1e-9)
    rate = _PRIOR_WEIGHT / expected
    errors = expected
    chance = np.zeros(len(usual))
    for _ in range(_ROUNDS):
        chance = errors * wrong / np.maximum(errors * wrong + usual, 1e-300)
        again = (float(chance.sum()) + _PRIOR_WEIGHT) / (1 + rate)
        if abs(again - errors) <= 1e-9 * errors:
            break
        errors = again
    return np.asarray(chance)
