"""Out-of-sample class probabilities from embeddings, without refits.

Two members, both of which leave an image and its near-duplicates out when they judge it: a ridge regression
onto the classes, whose held-out residuals have a closed form, and a vote of the nearest neighbours. Their
scores are joined and brought to the scale of probabilities by one temperature, which is fitted on the
held-out scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from dataaudit.errors import Unavailable
from dataaudit.registry import signal
from dataaudit.signals.spectrum import Network, Spectrum
from dataaudit.types import Neighbors

__all__ = ["leave_one_out_ridge", "pred_probs", "softmax"]

Floats = np.ndarray[Any, np.dtype[np.float32]]
Ints = np.ndarray[Any, np.dtype[np.int64]]

_PENALTIES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
_ROWS_AT_A_TIME = 8192
_CELLS_AT_A_TIME = 2**22
_ROWS_FOR_PENALTY = 4000
_DOUBTFUL = 30


@signal
def pred_probs(
    spectrum: Spectrum,
    neighbors: Neighbors,
    near_duplicates: pd.Series[int],
    labels: pd.DataFrame,
    other_networks: Sequence[Network] = (),
    *,
    min_weight: float = 0.05,
) -> pd.DataFrame:
    """Out-of-sample probability of each class for each labeled image.

    Labels that a first round finds doubtful, 30 times less probable than the best class, count less in the
    second. Where the features are those of several networks, each judges by itself and the mean of their
    log-probabilities counts. A class whose images all show one picture can't be judged, as nothing is left of
    it when that picture is held out: its images get no row.

    Args:
        spectrum: components of the embeddings.
        neighbors: nearest neighbours.
        near_duplicates: group of each image.
        labels: given classes.
        other_networks: components and neighbours of the networks after the first.
        min_weight: weight of the most doubtful label, in (0, 1]; 1 leaves out the second round.

    Returns:
        (n, k) float32 rows that sum to 1; index: sample ids; columns: classes that have at least one label.

    Raises:
        Unavailable: fewer than two classes, or none with two different images.
    """
    data = _labeled(spectrum.ids, near_duplicates, labels)
    views = [_view(data, spectrum, neighbors)]
    views += [_view(data, other.spectrum, other.neighbors) for other in other_networks or ()]
    probabilities = _joined(
        data, [_round(data, view, np.ones_like(data.given, dtype=np.float32)) for view in views]
    )
    if min_weight < 1:
        own = probabilities[np.arange(len(data.given)), data.given]
        weights = np.clip(_DOUBTFUL * own / np.maximum(probabilities.max(1), 1e-12), min_weight, 1).astype(
            np.float32
        )
        probabilities = _joined(data, [_round(data, view, weights) for view in views])
    return pd.DataFrame(
        probabilities[data.judged], index=data.ids[data.judged], columns=pd.Index(data.classes)
    )


@dataclass(frozen=True, kw_only=True)
class _Data:
    ids: pd.Index
    classes: list[str]
    rows: Ints  # (n,) positions in the embeddings
    given: Ints  # (n,) position in classes
    groups: Ints  # (n,)
    judged: np.ndarray[Any, np.dtype[np.bool_]]  # (n,)


@dataclass(frozen=True, kw_only=True)
class _View:
    components: Floats  # (n, r)
    eigenvalues: np.ndarray[Any, Any] | None  # (r,); None for a part of the images, where they don't hold
    indices: Ints  # (n, k) positions; -1 where a neighbour has no label
    similarities: Floats  # (n, k)


def _labeled(ids: pd.Index, near_duplicates: pd.Series[int], labels: pd.DataFrame) -> _Data:
    named = labels.dropna(subset="name").drop_duplicates("sample_id").set_index("sample_id")["name"]
    rows = np.flatnonzero(ids.isin(named.index))
    ids = ids[rows]
    names = named.loc[ids]
    classes = sorted(set(names))
    given = pd.Index(classes).get_indexer(pd.Index(names)).astype(np.int64)
    groups = np.asarray(near_duplicates.loc[ids], dtype=np.int64)
    n_groups = pd.Series(groups).groupby(given).nunique()
    judged = n_groups.reindex(range(len(classes))).to_numpy()[given] >= 2
    if len(classes) < 2:
        raise Unavailable(
            f"there are labels of {len(classes)} class{'es' * (not classes)}; it needs two at least"
        )
    if not judged.any():
        raise Unavailable(
            "no class has two different images, so nothing is left of a class when one is held out"
        )
    return _Data(ids=ids, classes=classes, rows=rows, given=given, groups=groups, judged=judged)


def _view(data: _Data, spectrum: Spectrum, neighbors: Neighbors) -> _View:
    rows, n = data.rows, len(spectrum.ids)
    everything = len(rows) == n
    position = np.full(n, -1, dtype=np.int64)
    position[rows] = np.arange(len(rows))
    return _View(
        components=spectrum.components if everything else spectrum.components[rows],
        eigenvalues=spectrum.eigenvalues if everything else None,
        indices=position[neighbors.indices[rows]],
        similarities=neighbors.similarities[rows],
    )


def _round(data: _Data, view: _View, weights: Floats) -> Floats:
    """(n, k) probabilities by one network."""
    scores = leave_one_out_ridge(
        view.components, data.given, data.groups, n_classes=len(data.classes), weights=weights,
        eigenvalues=view.eigenvalues,
    )  # fmt: skip
    joined = np.log(np.maximum(_tempered(scores, data.given), 1e-9))
    joined += 0.5 * np.log(_votes(data, view, weights))
    return _tempered(joined, data.given)


def _joined(data: _Data, by_network: Sequence[Floats]) -> Floats:
    """(n, k) probabilities by the mean of the networks' log-probabilities."""
    if len(by_network) == 1:
        return by_network[0]
    total = np.zeros_like(by_network[0])
    for probabilities in by_network:
        total += np.log(np.maximum(probabilities, 1e-9))
    return _tempered(total, data.given)


def leave_one_out_ridge(
    components: Floats,
    given: Ints,
    groups: Ints,
    *,
    n_classes: int,
    weights: Floats | None = None,
    eigenvalues: np.ndarray[Any, Any] | None = None,
) -> Floats:
    """Scores of a ridge regression onto the classes, each group of images held out in turn, without refits.

    With the hat matrix H of the weighted fit, the held-out residuals of a group G are (I - H_GG)^-1 times its
    residuals; for a group of one, its residual over (1 - h). The penalty is the one whose held-out scores fit
    the labels best.

    Args:
        components: (n, r) float32.
        given: (n,) class numbers.
        groups: (n,) group numbers; images of one group are held out together.
        n_classes: k.
        weights: (n,) in (0, 1]; equal weights by default.
        eigenvalues: (r,) variance of each column, where the columns are centred and uncorrelated; it is
            faster then.

    Returns:
        (n, k) float32 scores, near 1 for the class and 0 for the others.

    Reference:
        Cook and Weisberg, "Residuals and Influence in Regression", 1982, section 2.2, for the closed form;
        An, Liu and Venkatesh, "Fast cross-validation algorithms for least squares support vector machine and
        kernel ridge regression", Pattern Recognition 40, 2007, for groups.
    """
    n = len(components)
    weights = np.ones(n, dtype=np.float32) if weights is None else weights
    uncorrelated = eigenvalues is not None
    if eigenvalues is None:
        eigenvalues = np.einsum("ij,ij->j", components, components, dtype=np.float64) / max(n, 1)
    total = float(weights.sum(dtype=np.float64))
    per_class = np.bincount(given, weights, n_classes)
    sums = _class_sums(components, given, weights, n_classes)
    mean = sums.sum(0) / total
    cross = (sums - np.outer(per_class, mean)).T
    share = per_class / total
    penalty = n * _best_penalty(components, given, groups, eigenvalues, cross, share)
    lighter = np.flatnonzero(weights < weights.max())
    low_rank: np.ndarray[Any, Any] | None = None
    inverse_root: np.ndarray[Any, Any]
    if uncorrelated and len(lighter) < len(eigenvalues) // 2:
        inverse_root = 1 / np.sqrt(n * eigenvalues * weights.max() + penalty)
        lost = components[lighter] * np.sqrt(weights.max() - weights[lighter])[:, None]
        low_rank = _low_rank(np.vstack([lost, np.sqrt(total) * mean]) * inverse_root)
        turned = inverse_root[:, None] * cross
        coefficients = inverse_root[:, None] * (turned + low_rank @ (low_rank.T @ turned))
    else:
        inverse_root = _inverse_root(components, weights, mean, penalty)
        coefficients = inverse_root @ (inverse_root.T @ cross)
    fit = _Fit(
        mean=mean.astype(np.float32), share=share.astype(np.float32), total=total,
        inverse_root=inverse_root.astype(np.float32), coefficients=coefficients.astype(np.float32),
        low_rank=None if low_rank is None else low_rank.astype(np.float32),
    )  # fmt: skip
    return _held_out(fit, components, given, groups, weights)


@dataclass(frozen=True, kw_only=True)
class _Fit:
    mean: Floats  # (r,)
    share: Floats  # (k,)
    inverse_root: (
        Floats  # (r, r): times its transpose, the inverse of the penalised covariance; or its diagonal
    )
    low_rank: (
        Floats | None
    )  # (r, m): where it is a diagonal, times its transpose, what the covariance lacks to it
    coefficients: Floats  # (r, k)
    total: float

    def leverages(self, rows: Floats) -> Floats:
        """Rows whose inner products, plus 1 / total, are the hat matrix before weights."""
        centred = rows - self.mean
        if self.low_rank is None:
            return np.asarray(centred @ self.inverse_root, dtype=np.float32)
        turned = centred * self.inverse_root
        return np.asarray(np.hstack([turned, turned @ self.low_rank]), dtype=np.float32)

    def scores(self, rows: Floats) -> Floats:
        """(m, k) fitted scores."""
        return np.asarray((rows - self.mean) @ self.coefficients + self.share, dtype=np.float32)


def _class_sums(components: Floats, given: Ints, weights: Floats, n_classes: int) -> np.ndarray[Any, Any]:
    from scipy.sparse import csr_matrix

    n = len(given)
    by_class = csr_matrix((weights, (given, np.arange(n))), shape=(n_classes, n))
    return np.asarray(by_class @ components, dtype=np.float64)


def _low_rank(lost: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The (r, m) matrix W with (I - V' V)^-1 = I + W W' for the (m, r) matrix V, `lost`; Woodbury's identity.

    The covariance of a weighted fit is that of all images less what the images that count less have lost, and
    less the mean: with few such images it costs next to nothing to invert.
    """
    from scipy.linalg import solve_triangular

    lost = np.asarray(lost, dtype=np.float64)
    lower = np.linalg.cholesky(np.eye(len(lost)) - lost @ lost.T)
    return np.asarray(solve_triangular(lower, lost, lower=True).T)


def _inverse_root(components: Floats, weights: Floats, mean: np.ndarray[Any, Any], penalty: float) -> Floats:
    from scipy.linalg import solve_triangular

    r = components.shape[1]
    covariance = np.zeros((r, r))
    root = np.sqrt(weights)[:, None]
    for start in range(0, len(components), _ROWS_AT_A_TIME):
        here = slice(start, start + _ROWS_AT_A_TIME)
        rows = (components[here] - mean.astype(np.float32)) * root[here]
        covariance += rows.T @ rows
    covariance[np.diag_indices(r)] += penalty
    lower = np.linalg.cholesky(covariance)
    inverse = solve_triangular(lower, np.eye(r), lower=True)
    return np.asarray(inverse.T, dtype=np.float32)


def _best_penalty(
    components: Floats,
    given: Ints,
    groups: Ints,
    eigenvalues: np.ndarray[Any, Any],
    cross: np.ndarray[Any, Any],
    share: np.ndarray[Any, Any],
) -> float:
    n = len(given)
    size = np.bincount(groups, minlength=groups.max(initial=0) + 1)[groups]
    alone = np.flatnonzero(size == 1)
    rows = alone if len(alone) >= min(n, 500) else np.arange(n)
    if len(rows) > _ROWS_FOR_PENALTY:
        rows = np.sort(np.random.default_rng(0).choice(rows, _ROWS_FOR_PENALTY, replace=False))
    points, own = components[rows], given[rows]
    best = (np.inf, _PENALTIES[0])
    for penalty in _PENALTIES:
        inverse = (1 / (n * (eigenvalues + penalty))).astype(np.float32)
        scores = (points * inverse) @ cross.astype(np.float32) + share.astype(np.float32)
        leverage = 1 / n + (points**2) @ inverse
        scores = _without_itself(scores, own, leverage)
        best = min(best, (_fit_temperature(scores, own)[1], penalty))
    return best[1]


def _without_itself(scores: Floats, given: Ints, leverage: Floats) -> Floats:
    leverage = np.minimum(leverage, 0.999)
    result = scores / (1 - leverage)[:, None]
    result[np.arange(len(given)), given] -= leverage / (1 - leverage)
    return result


def _held_out(fit: _Fit, components: Floats, given: Ints, groups: Ints, weights: Floats) -> Floats:
    scores = np.empty((len(given), len(fit.share)), dtype=np.float32)
    for start in range(0, len(given), _ROWS_AT_A_TIME):
        here = slice(start, start + _ROWS_AT_A_TIME)
        leverages = fit.leverages(components[here])
        own = weights[here] * (np.einsum("ij,ij->i", leverages, leverages) + 1 / fit.total)
        scores[here] = _without_itself(fit.scores(components[here]), given[here], own)
    order = np.argsort(groups, kind="stable")
    edges = np.flatnonzero(np.r_[True, groups[order][1:] != groups[order][:-1], True])
    for first in np.flatnonzero(np.diff(edges) > 1):
        members = order[edges[first] : edges[first + 1]]
        scores[members] = _without_group(fit, components[members], given[members], weights[members])
    return scores


def _without_group(fit: _Fit, rows: Floats, given: Ints, weights: Floats) -> Floats:
    """(m, k) scores of the m images of a group, from the images of all others."""
    leverages = fit.leverages(rows).astype(np.float64)
    left = np.c_[leverages, np.full(len(rows), fit.total**-0.5)]
    right = left.T * weights
    scores = fit.scores(rows)
    residuals = -scores.astype(np.float64)
    residuals[np.arange(len(rows)), given] += 1
    if len(rows) <= left.shape[1]:
        held_out = np.linalg.solve(np.eye(len(rows)) - left @ right, residuals)
    else:
        # The same by Woodbury's identity: thousands of copies need no matrix of their pairs.
        held_out = residuals + left @ np.linalg.solve(np.eye(left.shape[1]) - right @ left, right @ residuals)
    truth = residuals + scores
    return np.asarray(truth - held_out, dtype=np.float32)


def _votes(
    data: _Data, view: _View, weights: Floats, *, scale: float = 0.05, smoothing: float = 0.1
) -> Floats:
    """(n, k) float32 shares of the nearest neighbours' votes, without the own group and unlabeled images."""
    n, k = len(data.given), len(data.classes)
    votes = np.empty((n, k), dtype=np.float32)
    step = max(1, min(_ROWS_AT_A_TIME, _CELLS_AT_A_TIME // k))
    for start in range(0, n, step):
        near = view.indices[start : start + step]
        own = data.groups[start : start + len(near), None]
        counts = (near >= 0) & (data.groups[near] != own)
        similar = np.where(counts, view.similarities[start : start + len(near)], -np.inf)
        highest = similar.max(1, keepdims=True, initial=-1.0)
        strength = np.exp((similar - highest) / scale) * weights[near]
        cell = np.arange(len(near))[:, None] * k + data.given[near]
        counted = np.bincount(cell[counts], strength[counts], len(near) * k).reshape(len(near), k)
        votes[start : start + len(near)] = counted + smoothing
    votes /= votes.sum(1, keepdims=True)
    return votes


def softmax(scores: Floats) -> Floats:
    """(n, k) scores -> rows that sum to 1.

    >>> softmax(np.array([[0.0, 0.0]], dtype=np.float32)).tolist()
    [[0.5, 0.5]]
    """
    result: Floats = np.asarray(scores - scores.max(1, keepdims=True), dtype=np.float32)
    np.exp(result, out=result)
    result /= result.sum(1, keepdims=True)
    return result


def _fit_temperature(scores: Floats, given: Ints) -> tuple[float, float]:
    """The factor whose softmax fits the labels best, and its mean negative log-likelihood."""
    from scipy.optimize import minimize_scalar

    rows = (
        slice(None)
        if len(given) <= 20_000
        else np.random.default_rng(0).choice(len(given), 20_000, replace=False)
    )
    some, own = scores[rows], given[rows]
    some = some - some.max(1, keepdims=True)
    at = some[np.arange(len(own)), own]

    def loss(log_factor: float) -> float:
        factor = np.float32(np.exp(log_factor))
        return float(np.mean(np.log(np.exp(factor * some).sum(1)) - factor * at))

    found = minimize_scalar(loss, bounds=(-4, 5), method="bounded", options={"xatol": 1e-2})
    return float(np.exp(found.x)), float(found.fun)


def _tempered(scores: Floats, given: Ints) -> Floats:
    factor, _ = _fit_temperature(scores, given)
    return softmax(scores * np.float32(factor))
