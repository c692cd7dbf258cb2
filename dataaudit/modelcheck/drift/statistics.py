"""Two-sample statistics and their p-values by permutation, as pure functions of arrays.

Each statistic is computed for the sides as they are and for many ways to deal the images out to two sides of
the same sizes. Where nothing drifted, the first is one of them like any other, so that its rank is an exact
p-value for any number of images. Images that depend on each other move together, in blocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from dataaudit.errors import InputError

__all__ = [
    "Design",
    "area_under_curve",
    "classifier_scores",
    "classifier_test",
    "design",
    "distances",
    "frequencies",
    "holm",
    "p_values",
]

Floats = np.ndarray[Any, np.dtype[np.floating[Any]]]
Ints = np.ndarray[Any, np.dtype[np.int64]]
Bools = np.ndarray[Any, np.dtype[np.bool_]]

_LEVELS = 99
_COLUMNS_AT_A_TIME = 125
_FOLDS = 5
_RARE = 0.98


@dataclass(frozen=True, kw_only=True)
class Design:
    """Which image is on which side, and the other ways in which the images could have been dealt out.

    Attributes:
        labelings: (n, b) float32, 1 for production and 0 for reference; column 0 is as observed.
        weights: (n,) float32 above 0: a block counts as one, whatever its size.
        blocks: (n,) int64 from 0: images of one block are always on one side.
    """

    labelings: Floats
    weights: Floats
    blocks: Ints

    @property
    def production(self) -> Bools:
        """(n,) whether each image is of production."""
        return np.asarray(self.labelings[:, 0] > 0)

    def first(self) -> Design:
        """The sides as observed, without the other labelings."""
        return Design(labelings=self.labelings[:, :1], weights=self.weights, blocks=self.blocks)


def design(
    production: Bools,
    blocks: Ints | None = None,
    *,
    fixed: Bools | None = None,
    n_permutations: int = 999,
    seed: int = 0,
) -> Design:
    """Deal blocks of images out to two sides at random, as many to each as there are.

    Two images of one block, one of each side, change places or don't: what differs between them in the same
    way in all such pairs is drift. A larger block with images of both sides stays as it is.

    Args:
        production: (n,) True for an image of production, False for one of the reference.
        blocks: (n,) number of the block of each image; each image is its own by default.
        fixed: (n,) True for images that stay where they are.
        n_permutations: how often; the smallest p-value is 1 / (n_permutations + 1).
        seed: of the random numbers.

    >>> found = design(np.array([False, False, True, True]), n_permutations=3)
    >>> found.labelings[:, 0].tolist(), found.labelings.sum(0).tolist()
    ([0.0, 0.0, 1.0, 1.0], [2.0, 2.0, 2.0, 2.0])
    """
    n = len(production)
    given = np.arange(n) if blocks is None else np.asarray(blocks)
    if len(given) != n:
        raise InputError(f"There are {len(given)} blocks for {n} images; expected one an image.")
    _, block, size = np.unique(given, return_inverse=True, return_counts=True)
    n_production = np.bincount(block, weights=production, minlength=len(size))
    stays = np.zeros(len(size), dtype=bool)
    if fixed is not None:
        stays[block[fixed]] = True
    pure = np.flatnonzero(~stays & ((n_production == 0) | (n_production == size)))
    side = n_production[pure] > 0
    labelings = np.repeat(production.astype(np.float32)[:, None], n_permutations + 1, axis=1)
    rng = np.random.default_rng(seed)
    movable = np.isin(block, pure)
    position = np.searchsorted(pure, block[movable])
    pairs = np.flatnonzero(~stays & (size == 2) & (n_production == 1))
    paired = np.isin(block, pairs)
    place = np.searchsorted(pairs, block[paired])
    for column in range(1, n_permutations + 1):
        labelings[movable, column] = rng.permutation(side)[position]
        if len(pairs):
            labelings[paired, column] = production[paired] ^ (rng.random(len(pairs)) < 0.5)[place]
    # In a mixed block each side's images share what the block counts
    mixed = (n_production[block] > 0) & (n_production[block] < size[block])
    shared = np.where(production, n_production[block], size[block] - n_production[block])
    weights = 1 / np.where(mixed, 2 * np.maximum(shared, 1), size[block])
    return Design(labelings=labelings, weights=weights.astype(np.float32), blocks=block.astype(np.int64))


def distances(values: Floats, dealt: Design, *, tail_from: float = 0.0) -> tuple[Floats, Floats]:
    """How far the distributions of each column on the two sides are apart; a difference in the tails counts
    as much as one in the middle.

    Args:
        values: (n, k), one column a property.
        dealt: the sides.
        tail_from: level of the joint distribution from which on it counts how many more high values
            production has; 0 for a difference at any level in either direction.

    Returns:
        Two arrays (k, b) float64, the mean and the largest, over the levels H of the joint distribution, of
        the squared difference of the distribution functions over H (1 - H), times the effective number of
        images. The mean answers to a shift of all values, the largest to a part that lies elsewhere.

    Reference: Pettitt, "A two-sample Anderson-Darling rank statistic", Biometrika 1976, for the mean; here at
    99 levels at most and divided by n - 1. Donoho and Jin, "Higher criticism for detecting sparse
    heterogeneous mixtures", Annals of Statistics 2004, for the largest.
    """
    k, b = values.shape[1], dealt.labelings.shape[1]
    mean, largest = np.zeros((k, b)), np.zeros((k, b))
    for column in range(k):
        indicators, level = _indicators(values[:, column], dealt.weights)
        kept = level >= tail_from
        if not kept.any():
            continue
        gap, size = _gaps(indicators[:, kept], dealt)
        if tail_from:
            gap = np.minimum(gap, 0.0)
        squares = gap**2 / (level[kept] * (1 - level[kept]))[:, None]
        mean[column], largest[column] = squares.mean(0) * size, squares.max(0) * size
    return mean, largest


def frequencies(counts: Floats, dealt: Design) -> Floats:
    """How far the shares of classes on the two sides are apart: the chi-square statistic of the 2 x k table.

    Args:
        counts: (n, k), how often each image has each class; such as one 1 in each row.
        dealt: the sides.

    Returns:
        (b,) float64.
    """
    weighted = (counts * dealt.weights[:, None]).astype(np.float32)
    total = weighted.sum(0, dtype=np.float64)
    weighted, total = weighted[:, total > 0], total[total > 0]
    on_production = (weighted.T @ dealt.labelings).astype(np.float64)
    size = on_production.sum(0)
    all_ = total.sum()
    if not len(total):
        return np.zeros(dealt.labelings.shape[1])
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = total[:, None] * size / all_
        found = ((on_production - expected) ** 2 / total[:, None]).sum(0) * all_**2 / (size * (all_ - size))
    return np.asarray(np.nan_to_num(found, nan=0.0, posinf=0.0))


def classifier_scores(features: Floats, dealt: Design, groups: Ints, *, penalty: float = 0.3) -> Floats:
    """Out-of-sample scores by which a ridge regression tells the sides apart; one regression a labeling.

    Args:
        features: (n, r) float32 with mean 0, such as principal components.
        dealt: the sides.
        groups: (n,) images of one group are held out together, besides those of one block.
        penalty: as a multiple of the features' mean variance.

    Returns:
        (n, b) float32: higher is more like production.

    Reference: Lopez-Paz and Oquab, "Revisiting Classifier Two-Sample Tests", ICLR 2017; with a regression in
    closed form, so that it is fitted anew for every permutation.
    """
    n, r = features.shape
    fold = _folds(dealt.blocks, groups)
    scores = np.zeros(dealt.labelings.shape, dtype=np.float32)
    ridge = penalty * n * float((features.astype(np.float64) ** 2).mean()) * np.sqrt(r)
    for number in range(_FOLDS):
        held, rest = fold == number, fold != number
        if not held.any() or not rest.any():
            continue
        inner = features[rest] * dealt.weights[rest, None]
        gram = (inner.T @ features[rest]).astype(np.float64) + (ridge + 1e-9) * np.eye(r)
        sides = dealt.labelings[rest]
        mean = dealt.weights[rest] @ sides / dealt.weights[rest].sum()
        slopes = np.linalg.solve(gram, (inner.T @ (sides - mean)).astype(np.float64))
        scores[held] = features[held] @ slopes.astype(np.float32)
    return scores


def classifier_test(scores: Floats, dealt: Design) -> Floats:
    """(b,) area under the curve of out-of-sample scores (n, b), each for its labeling; blocks count once."""
    from scipy.sparse import csr_matrix

    n_blocks = int(dealt.blocks.max(initial=-1)) + 1
    if n_blocks == len(dealt.blocks):
        return area_under_curve(scores, dealt.labelings)
    # Of a block with images of both sides each side counts once
    of_side = 2 * dealt.blocks + dealt.production
    there = np.bincount(of_side, minlength=2 * n_blocks).reshape(-1, 2) > 0
    both = (there[:, 0] & there[:, 1])[dealt.blocks]
    _, unit = np.unique(np.where(both, of_side, 2 * dealt.blocks), return_inverse=True)
    size = np.bincount(unit)[:, None]
    rows = np.arange(len(unit))
    joined = csr_matrix((np.ones(len(rows), dtype=np.float32), (unit, rows)))
    return area_under_curve((joined @ scores) / size, (joined @ dealt.labelings) / size)


def area_under_curve(scores: Floats, labels: Floats) -> Floats:
    """Chance that a positive scores above a negative, ties as a half; 0.5 where there is none of one kind.

    >>> area_under_curve(np.array([[1.0], [2.0], [2.0], [3.0]]), np.array([[0.0], [0.0], [1.0], [1.0]]))
    array([0.875])
    """
    from scipy.stats import rankdata

    found = np.empty(scores.shape[1])
    for start in range(0, scores.shape[1], _COLUMNS_AT_A_TIME):
        here = slice(start, start + _COLUMNS_AT_A_TIME)
        positive = labels[:, here].T.astype(np.float64)
        ranks = rankdata(np.ascontiguousarray(scores[:, here].T), axis=1)
        n_positive = positive.sum(1)
        pairs = n_positive * (positive.shape[1] - n_positive)
        above = (ranks * positive).sum(1) - n_positive * (n_positive + 1) / 2
        found[here] = np.where(pairs > 0, above / np.maximum(pairs, 1), 0.5)
    return found


def p_values(statistics: Floats) -> tuple[float, Floats]:
    """P-values of several statistics of the same images, corrected for how many they are.

    Each is divided by what it rarely exceeds in the permutations, and the largest is compared with the
    largest of each permutation; then, step by step, the largest of those that are left. Statistics that say
    the same cost nothing together.

    Args:
        statistics: (k, b) at least 0, larger where there is more drift; column 0 is as observed.

    Returns:
        The p-value of all together, and (k,) the corrected one of each.

    Reference: Westfall and Young, "Resampling-Based Multiple Testing", 1993: step-down maxT.

    >>> p_values(np.array([[9.0, 1.0, 2.0, 3.0]]))[0]
    0.25
    """
    k, b = statistics.shape
    if not k:
        return 1.0, np.ones(0)
    rare = np.quantile(statistics, _RARE, axis=1, keepdims=True)
    # One that is 0 in nearly every permutation, as of a file format that a single image has
    rare = np.where(rare > 0, rare, statistics.max(1, keepdims=True))
    scaled = np.where(rare > 0, statistics / np.maximum(rare, 1e-300), 0.0)
    order = np.argsort(-scaled[:, 0], kind="stable")
    largest = np.maximum.accumulate(scaled[order[::-1]], axis=0)[::-1]
    # Sums of the same numbers in another order differ in the last digits
    each = (largest >= scaled[order, :1] * (1 - 1e-5)).sum(1) / b
    corrected = np.empty(k)
    corrected[order] = np.maximum.accumulate(each)
    return float(each[0]), corrected


def holm(values: Floats) -> Floats:
    """Factor by which each p-value is multiplied, so that one false alarm among all is as rare as promised.

    Args:
        values: (m,) p-values of m tests.

    Returns:
        (m,) corrected p-values, at most 1.

    Reference: Holm, "A simple sequentially rejective multiple test procedure", 1979.

    >>> holm(np.array([0.01, 0.04, 0.03])).round(3).tolist()
    [0.03, 0.06, 0.06]
    """
    m = len(values)
    order = np.argsort(values, kind="stable")
    raised = np.maximum.accumulate(values[order] * np.arange(m, 0, -1))
    corrected = np.empty(m)
    corrected[order] = np.minimum(raised, 1.0)
    return corrected


def _indicators(values: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Which values are at most each of some quantiles: (n, m) float32, and (m,) their levels in (0, 1)."""
    n = len(values)
    n_levels = min(_LEVELS, max(n - 1, 1))
    order = np.argsort(values, kind="stable")
    below = weights[order].cumsum(dtype=np.float64) / float(weights.sum())
    wanted = np.arange(1, n_levels + 1) / (n_levels + 1)
    thresholds = values[order[np.minimum(np.searchsorted(below, wanted - 1e-9), n - 1)]]
    indicators = values[:, None] <= thresholds
    level = weights.astype(np.float64) @ indicators / float(weights.sum())
    kept = level < 1 - 1e-6
    return indicators[:, kept].astype(np.float32), level[kept]


def _gaps(indicators: Floats, dealt: Design) -> tuple[Floats, Floats]:
    """(m, b) distribution function of production less that of the reference, and (b,) effective size."""
    weighted = indicators * dealt.weights[:, None]
    of_production = weighted.T @ dealt.labelings
    size = dealt.weights @ dealt.labelings
    everything = float(dealt.weights.sum())
    other = everything - size
    gap = of_production / np.maximum(size, 1e-12) - (weighted.sum(0)[:, None] - of_production) / np.maximum(
        other, 1e-12
    )
    return gap.astype(np.float64), (size * other / everything).astype(np.float64)


def _folds(blocks: Ints, groups: Ints) -> Ints:
    """(n,) fold of each image: those of one block or of one group are in one."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    n = len(blocks)
    _, group = np.unique(groups, return_inverse=True)
    n_blocks = int(blocks.max(initial=-1)) + 1
    size = n_blocks + int(group.max(initial=-1)) + 1
    links = coo_matrix((np.ones(n, dtype=np.int8), (blocks, n_blocks + group)), shape=(size, size))
    _, joined = connected_components(links, directed=False)
    _, unit = np.unique(joined[blocks], return_inverse=True)
    order = np.random.default_rng(0).permutation(int(unit.max(initial=-1)) + 1)
    return np.asarray(order[unit] % _FOLDS, dtype=np.int64)
