"""The maximum mean discrepancy: a two-sample test by a kernel, as an alternative to the classifier's."""

from __future__ import annotations

from typing import Any

import numpy as np

from dataaudit.errors import Unavailable
from dataaudit.modelcheck.drift.comparisons import Candidate, Compared
from dataaudit.modelcheck.drift.pairing import Pairing
from dataaudit.modelcheck.drift.statistics import Design, p_values
from dataaudit.modelcheck.families import drf

__all__ = ["discrepancies", "embeddings_by_kernel", "median_distance"]

Floats = np.ndarray[Any, np.dtype[np.floating[Any]]]

_MEDIAN_OF = 1000
_ROWS_AT_A_TIME = 1024
_PART = 10_000
_WIDTHS = (0.5, 1.0)
_RARE = 0.95


def embeddings_by_kernel(both: Pairing) -> Compared:
    """Whether the features of production have another distribution than those of the reference.

    Raises:
        Unavailable: there are no embeddings.
    """
    if not both.components.shape[1]:
        raise Unavailable("there are no embeddings: a backbone was left out")
    median = median_distance(both.components)
    squares, witness = [], np.zeros(len(both.components))
    for width in _WIDTHS:
        found, seen = discrepancies(both.components, both.dealt, width=width * median)
        squares.append(found)
        witness += seen
    together, each = p_values(np.maximum(np.stack(squares), 0))
    best = int(np.argmin(each))
    distance = float(np.sqrt(max(float(squares[best][0]), 0.0)))
    by_chance = float(np.quantile(squares[best], _RARE))
    usual = float(np.sqrt(max(by_chance, 0.0)))
    of_production = np.full(len(both.production), -np.inf)
    rows = both.rows[both.is_production] - len(both.reference)
    of_production[rows] = witness[both.is_production]
    candidate = Candidate(
        item="embeddings",
        p_value=together,
        effect=min(distance / float(np.sqrt(2)), 1.0),
        effect_words=f"MMD {distance:.3f}",
        message=(
            "Production shows something else than the reference: the maximum mean discrepancy of their "
            f"features is {distance:.3f}; by chance it would be at most {usual:.3f} in 95% of cases."
        ),
        advice="Look at the images that are most unlike the reference; collect and label such images for "
        "training.",
        evidence={
            "mmd": distance,
            "mmd_by_chance": usual,
            "width": _WIDTHS[best] * median,
            "n_components": both.components.shape[1],
        },
        examples=both.examples(of_production),
    )
    return Compared(rule=drf.EMBEDDING_DRIFT, p_value=together, candidates=[candidate])


def median_distance(features: Floats) -> float:
    """Median distance between two of the points, of 1,000 of them at most, for a width of the kernel.

    >>> median_distance(np.array([[0.0], [1.0], [5.0]]))
    4.0
    """
    n = len(features)
    rows = np.random.default_rng(0).permutation(n)[:_MEDIAN_OF]
    points = features[rows].astype(np.float64)
    squares = _squares(points, points)[np.triu_indices(len(points), 1)]
    return float(np.sqrt(np.median(squares))) if len(squares) else 0.0


def discrepancies(
    features: Floats, dealt: Design, *, width: float, part: int = _PART
) -> tuple[Floats, Floats]:
    """Squared maximum mean discrepancy of the sides by a Gaussian kernel, for each labeling.

    A pair of images of one block says nothing: it is left out, as an image and itself are. Above `part`
    images these are cut into parts at random, and only pairs within a part count, so that time and
    memory grow with the number of images and no longer with its square.

    Args:
        features: (n, r), such as principal components.
        dealt: the sides.
        width: of the kernel exp(-distance² / (2 width²)); 0 where all features are equal.
        part: most images of which all pairs count.

    Returns:
        (b,) float64, unbiased and so below 0 for about half of the labelings where nothing differs; and
        (n,) float64, how much nearer each image is to production than to the reference.

    Reference: Gretton et al., "A Kernel Two-Sample Test", JMLR 2012, eq. 3; with pairs within parts, and no
    others, Zaremba, Gretton and Blaschko, "B-tests", NeurIPS 2013.

    >>> from dataaudit.modelcheck.drift.statistics import design
    >>> dealt = design(np.array([False, False, True, True]), n_permutations=1)
    >>> found, _ = discrepancies(np.array([[0.0], [0.0], [9.0], [9.0]]), dealt, width=1.0)
    >>> round(float(found[0]), 6)
    2.0
    """
    n, b = dealt.labelings.shape
    sums = np.zeros((6, b))
    witness = np.zeros(n)
    order = np.random.default_rng(0).permutation(n)
    for rows in np.array_split(order, max(-(-n // part), 1)):
        found, seen = _sums(
            features[rows], dealt.labelings[rows], dealt.weights[rows], dealt.blocks[rows], width
        )
        sums += found
        witness[rows] = seen
    return _unbiased(sums), witness


def _unbiased(sums: Floats) -> Floats:
    """(b,) mean kernel within each side, less twice that between them; 0 where a side has no pair."""
    # within production, within the reference, between: kernel, then number of pairs
    kernel, pairs = sums[:3], sums[3:]
    ok = (pairs > 1e-9).all(0)
    means = kernel / np.maximum(pairs, 1e-300)
    return np.asarray(np.where(ok, means[0] + means[1] - 2 * means[2], 0.0))


def _sums(
    features: Floats, labelings: Floats, weights: Floats, blocks: np.ndarray[Any, Any], width: float
) -> tuple[Floats, Floats]:
    """(6, b) sums of the kernel and of the pairs, within production, within the reference and between."""
    of_production = (labelings * weights[:, None]).astype(np.float32)
    near = np.zeros_like(of_production)
    to_all = np.zeros(len(features))
    for start in range(0, len(features), _ROWS_AT_A_TIME):
        rows = slice(start, start + _ROWS_AT_A_TIME)
        kernel = _kernel(features[rows], features, width)
        kernel[blocks[rows, None] == blocks] = 0
        near[rows] = kernel @ of_production
        to_all[rows] = kernel @ weights
    both, crossed, everything = _products(of_production, near, to_all, weights)
    pairs = _pairs(of_production, weights, blocks)
    kernels = np.stack([both, everything - 2 * crossed + both, crossed - both])
    observed, all_ = of_production[:, 0].sum(), weights.sum()
    seen = near[:, 0] / max(observed, 1e-12) - (to_all - near[:, 0]) / max(all_ - observed, 1e-12)
    return np.concatenate([kernels, pairs]), seen


def _products(
    of_production: Floats, near: Floats, to_all: Floats, weights: Floats
) -> tuple[Floats, Floats, float]:
    """a'Ka and a'Kw for each labeling a, and w'Kw."""
    both = np.einsum("ij,ij->j", of_production, near, dtype=np.float64)
    return both, to_all @ of_production.astype(np.float64), float(weights @ to_all)


def _pairs(of_production: Floats, weights: Floats, blocks: np.ndarray[Any, Any]) -> Floats:
    """(3, b) the weight of the pairs of two blocks, likewise."""
    from scipy.sparse import csr_matrix

    n = len(blocks)
    _, block = np.unique(blocks, return_inverse=True)
    joined = csr_matrix((np.ones(n, dtype=np.float64), (block, np.arange(n))))
    first = joined @ of_production.astype(np.float64)
    all_ = (joined @ weights.astype(np.float64))[:, None]
    second = all_ - first
    a, b = first.sum(0), second.sum(0)
    return np.stack([
        a * a - (first * first).sum(0), b * b - (second * second).sum(0), a * b - (first * second).sum(0)
    ])  # fmt: skip


def _kernel(points: Floats, others: Floats, width: float) -> Floats:
    squares = _squares(points, others)
    if width <= 0:
        return np.asarray((squares <= 0).astype(np.float32))
    squares *= -0.5 / width**2
    return np.asarray(np.exp(squares, out=squares))


def _squares(points: Floats, others: Floats) -> Floats:
    """Squared distance of each point to each of the others."""
    found = points @ others.T
    found *= -2
    found += np.einsum("ij,ij->i", points, points)[:, None]
    found += np.einsum("ij,ij->i", others, others)
    return np.asarray(np.maximum(found, 0, out=found))
