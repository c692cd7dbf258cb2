"""Pure functions of arrays for what is measured. Ranking metrics are scikit-learn's: use those."""

from __future__ import annotations

from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from dataaudit.errors import InputError

__all__ = [
    "best_pairs",
    "box_area",
    "box_intersection",
    "box_iou",
    "expected_calibration_error",
    "expected_errors",
    "mcnemar",
    "pairs_by_group",
    "review_budget",
    "wilson_interval",
]

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.floating[Any]]
Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_EXACT_UP_TO = 200
"""Of how many uncertain items a distribution is computed exactly; it takes the square of their number."""
_SURE = 1 - 1e-12


def wilson_interval(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Interval of a share, such as an accuracy, that stays in [0, 1] and holds for few trials.

    Args:
        successes: how many of the trials succeeded.
        n: how many trials there were; without any, the interval is all of [0, 1].
        confidence: in (0, 1).

    Returns:
        The lower and the upper end, two-sided.

    Raises:
        InputError: `successes` isn't in [0, n], or `confidence` not in (0, 1).

    Reference:
        E. B. Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", Journal of the
        American Statistical Association, 1927. Without continuity correction.

    >>> low, high = wilson_interval(8, 10)
    >>> round(low, 4), round(high, 4)
    (0.4902, 0.9433)
    """
    if not 0 <= successes <= n:
        raise InputError(f"{successes} successes in {n} trials; expected 0 to {n}.")
    if not 0 < confidence < 1:
        raise InputError(f"The confidence is {confidence}; expected a number between 0 and 1, such as 0.95.")
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = successes / n
    middle = share + z * z / (2 * n)
    half = z * (share * (1 - share) / n + z * z / (4 * n * n)) ** 0.5
    scale = 1 + z * z / n
    low, high = (middle - half) / scale, (middle + half) / scale
    # Where none or all succeed the end is exactly 0 or 1, and rounding must not move it.
    return (0.0 if successes == 0 else low), (1.0 if successes == n else high)


def mcnemar(a_right: Bools, b_right: Bools) -> tuple[int, int, float]:
    """Whether two classifiers differ on the same samples, by the exact test of those on which only one is
    right.

    Args:
        a_right: (n,) bool, whether the first is right.
        b_right: (n,) bool, whether the second is right on the same sample.

    Returns:
        How many only the first has right, how many only the second, and the two-sided p-value in [0, 1].

    Raises:
        InputError: the shapes differ.

    Reference:
        Q. McNemar, "Note on the Sampling Error of the Difference Between Correlated Proportions or
        Percentages", Psychometrika, 1947; exact, by the binomial distribution with p = 1/2, instead of the
        chi-squared limit.

    >>> mcnemar(np.array([True, False, False, False]), np.array([True, True, True, True]))
    (0, 3, 0.25)
    """
    if a_right.shape != b_right.shape or a_right.ndim != 1:
        raise InputError(
            f"The answers have the shapes {a_right.shape} and {b_right.shape}; expected the same (n,)."
        )
    from scipy.stats import binomtest

    only_a, only_b = int(np.sum(a_right & ~b_right)), int(np.sum(~a_right & b_right))
    if only_a + only_b == 0:
        return 0, 0, 1.0
    return only_a, only_b, float(binomtest(only_a, only_a + only_b, 0.5).pvalue)


def expected_calibration_error(probability: Floats, truth: Bools, bins: int = 10) -> float:
    """How far stated probabilities lie from how often they come true, on average.

    Args:
        probability: (n,) in [0, 1], stated for each sample.
        truth: (n,) bool, whether it came true.
        bins: number of bins of equal width over [0, 1]; a probability on an edge belongs to the bin above it.

    Returns:
        The mean over the samples of the distance in their bin, in [0, 1]; 0 for no samples.

    Raises:
        InputError: the shapes differ, a probability isn't in [0, 1], or there is no bin.

    Reference:
        C. Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, equation 3.

    >>> stated = np.array([0.25, 0.25, 0.75, 0.75])
    >>> expected_calibration_error(stated, np.array([False, False, True, True]), 2)
    0.25
    """
    if probability.shape != truth.shape or probability.ndim != 1:
        raise InputError(
            f"The probabilities have the shape {probability.shape} and the truths {truth.shape}; "
            "expected the same (n,)."
        )
    if bins < 1:
        raise InputError(f"{bins} bins; expected at least 1.")
    if len(probability) == 0:
        return 0.0
    if not (np.min(probability) >= 0 and np.max(probability) <= 1):
        raise InputError(
            f"The probabilities reach from {np.min(probability)} to {np.max(probability)}; expected [0, 1]."
        )
    place = np.minimum((probability * bins).astype(np.int64), bins - 1)
    gaps = np.bincount(place, weights=probability.astype(float) - truth.astype(float), minlength=bins)
    return float(np.abs(gaps).sum() / len(probability))


def expected_errors(probability: Floats, confidence: float = 0.9) -> tuple[float, int, int]:
    """How many of some items are wrong, when each is with a probability of its own.

    Args:
        probability: (n,) in [0, 1], the calibrated chance of each item to be wrong.
        confidence: of the interval, in (0, 1).

    Returns:
        The expected number, and the lower and the upper end of the interval of the number itself: it is below
        the one and above the other with a chance of at most (1 - confidence) / 2 each. The interval holds for
        independent items and right probabilities; it doesn't know by how much the probabilities may be off.

    Raises:
        InputError: a probability isn't in [0, 1], or `confidence` not in (0, 1).

    Reference:
        Y. Hong, "On Computing the Distribution Function for the Poisson Binomial Distribution", Computational
        Statistics and Data Analysis 59, 2013: exact for up to 200 items that are neither sure nor impossible,
        the refined normal approximation, which knows the skewness, beyond.

    >>> expected_errors(np.array([1.0, 1.0, 0.5, 0.0]))
    (2.5, 2, 3)
    """
    _refuse_no_probabilities(probability)
    if not 0 < confidence < 1:
        raise InputError(f"The confidence is {confidence}; expected a number between 0 and 1, such as 0.9.")
    chance = np.asarray(probability, dtype=np.float64)
    certain = int(np.sum(chance > _SURE))
    open_ones = chance[(chance > 1 - _SURE) & (chance <= _SURE)]
    tail = (1 - confidence) / 2
    ends = _exact_ends if len(open_ones) <= _EXACT_UP_TO else _approximate_ends
    low, high = ends(open_ones, tail)
    return float(chance.sum()), certain + low, certain + high


def review_budget(probability: Floats, share: float) -> int:
    """How many items must be looked at, in the order given, to find a share of the errors that are expected.

    Args:
        probability: (n,) in [0, 1], the chance of each item to be wrong, in the order of review.
        share: of the expected number of errors, in [0, 1].

    Returns:
        The least number of items, from the first, among which that many errors are expected; 0 where none is.

    Raises:
        InputError: a probability isn't in [0, 1], or `share` not in [0, 1].

    >>> review_budget(np.array([0.9, 0.6, 0.4, 0.1]), 0.75)
    2
    """
    _refuse_no_probabilities(probability)
    if not 0 <= share <= 1:
        raise InputError(f"The share is {share}; expected a number from 0 to 1, such as 0.8.")
    found = np.cumsum(probability, dtype=np.float64)
    if not len(found) or found[-1] == 0 or share == 0:
        return 0
    # Sums in another order differ in the last digits; that must not ask for one item more.
    return int(np.searchsorted(found, share * found[-1] * (1 - 1e-12))) + 1


def _refuse_no_probabilities(probability: Floats) -> None:
    if probability.ndim != 1:
        raise InputError(f"The probabilities have the shape {probability.shape}; expected (n,).")
    if len(probability) and not (np.min(probability) >= 0 and np.max(probability) <= 1):
        raise InputError(
            f"The probabilities reach from {np.min(probability)} to {np.max(probability)}; expected [0, 1]."
        )


def _exact_ends(chance: Floats, tail: float) -> tuple[int, int]:
    """The quantiles of the number of events, from its distribution: one event joined after the other."""
    n = len(chance)
    mass = np.zeros(n + 1)
    mass[0] = 1.0
    for at, one in enumerate(chance.tolist(), start=1):
        mass[1 : at + 1] = mass[1 : at + 1] * (1 - one) + mass[:at] * one
        mass[0] *= 1 - one
    below = np.minimum(np.cumsum(mass), 1.0)
    low, high = np.searchsorted(below, [tail, 1 - tail - 1e-12])
    return int(low), int(min(high, n))


def _approximate_ends(chance: Floats, tail: float) -> tuple[int, int]:
    """The same by the normal distribution, corrected for skewness and for whole numbers."""
    variance = float(np.sum(chance * (1 - chance)))
    deviation = variance**0.5
    skewness = float(np.sum(chance * (1 - chance) * (1 - 2 * chance))) / deviation**3
    middle, z = float(chance.sum()), NormalDist().inv_cdf(1 - tail)
    ends = []
    for side in (-z, z):
        moved = side + skewness * (side * side - 1) / 6
        ends.append(int(np.clip(np.ceil(middle + deviation * moved - 0.5), 0, len(chance))))
    return ends[0], ends[1]


def box_area(boxes: Doubles) -> Doubles:
    """Area of boxes.

    Args:
        boxes: (..., 4) corners x1, y1, x2, y2, in any unit.

    Returns:
        (...,) areas, 0 for an inverted box.

    >>> box_area(np.array([0.0, 0.0, 2.0, 3.0])).item()
    6.0
    """
    width, height = boxes[..., 2] - boxes[..., 0], boxes[..., 3] - boxes[..., 1]
    area: Doubles = np.maximum(width, 0) * np.maximum(height, 0)
    return area


def box_intersection(a: Doubles, b: Doubles) -> Doubles:
    """Area that boxes have in common.

    Args:
        a: (..., 4) corners x1, y1, x2, y2.
        b: the same, of a shape that broadcasts with that of `a`.

    Returns:
        (...,) areas.
    """
    # Number by number: corners taken in pairs take twice as long
    width = np.minimum(a[..., 2], b[..., 2]) - np.maximum(a[..., 0], b[..., 0])
    height = np.minimum(a[..., 3], b[..., 3]) - np.maximum(a[..., 1], b[..., 1])
    area: Doubles = np.maximum(width, 0) * np.maximum(height, 0)
    return area


def box_iou(a: Doubles, b: Doubles) -> Doubles:
    """Intersection over union of boxes.

    Args:
        a: (..., 4) corners x1, y1, x2, y2.
        b: the same, of a shape that broadcasts with that of `a`.

    Returns:
        (...,) in [0, 1]; 0 where both boxes are empty, NaN where a corner is.

    >>> box_iou(np.array([0.0, 0.0, 2.0, 2.0]), np.array([1.0, 0.0, 3.0, 2.0])).round(4).item()
    0.3333
    """
    shared = box_intersection(a, b)
    union = box_area(a) + box_area(b) - shared
    return np.asarray(shared / np.where(union == 0, 1, union))


def pairs_by_group(a: Ints, b: Ints) -> tuple[Ints, Ints]:
    """Every pair of an item of `a` and an item of `b` that are in the same group, such as the same image.

    Args:
        a: (n,) number of the group of each item, any integers.
        b: (m,) the same.

    Returns:
        Positions in `a` and in `b`, (p,) each, sorted by the position in `a` and then in `b`.

    >>> [each.tolist() for each in pairs_by_group(np.array([0, 1, 1]), np.array([1, 0, 1]))]
    [[0, 1, 1, 2, 2], [1, 0, 2, 0, 2]]
    """
    order = np.argsort(b, kind="stable")
    ordered = b[order]
    first = np.searchsorted(ordered, a, side="left")
    n = np.searchsorted(ordered, a, side="right") - first
    left = np.repeat(np.arange(len(a)), n)
    within = np.arange(len(left)) - np.repeat(np.cumsum(n) - n, n)
    return left, order[np.repeat(first, n) + within]


def best_pairs(a: Ints, b: Ints, score: Doubles) -> Ints:
    """Pairs one to one, greedily: the pair with the highest score first, then the highest of what is left.

    Args:
        a: (p,) number of the first item of each pair, any integers.
        b: (p,) number of the second.
        score: (p,) no NaN; of equal ones the earlier pair goes first.

    Returns:
        Positions of the pairs that are taken, ascending; no item of `a` and none of `b` is in two of them.

    >>> best_pairs(np.array([0, 0, 1]), np.array([0, 1, 0]), np.array([0.9, 0.8, 0.95])).tolist()
    [1, 2]
    """
    order = np.argsort(-score, kind="stable")
    taken: list[Ints] = []
    while len(order):
        # Pairs that are the best of both their items: greedy would take each of them too
        of_a, of_b = (np.unique(side[order], return_index=True)[1] for side in (a, b))
        best = order[np.intersect1d(of_a, of_b)]
        taken.append(best)
        order = order[~np.isin(a[order], a[best]) & ~np.isin(b[order], b[best])]
    return np.sort(np.concatenate(taken)) if taken else np.empty(0, dtype=np.int64)
