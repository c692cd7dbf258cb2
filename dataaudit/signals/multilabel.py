"""Out-of-sample probability of each class for each image, where an image may have any number of classes.

As with one class an image (`dataaudit.signals.probabilities`) a ridge regression and the votes of the nearest
neighbours judge an image that is held out with its near-duplicates, without refits: the hat matrix is the
same, the targets are a column of zeros and ones for each class. The two are joined by a logistic regression
for each class, which is drawn towards one that all classes share.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from dataaudit.errors import Unavailable
from dataaudit.registry import signal
from dataaudit.signals.spectrum import Spectrum
from dataaudit.types import Neighbors

__all__ = ["held_out_ridge", "multi_hot", "multilabel_probs", "neighbor_shares"]

Bools = np.ndarray[Any, np.dtype[np.bool_]]
Floats = np.ndarray[Any, np.dtype[np.float32]]
Ints = np.ndarray[Any, np.dtype[np.int64]]

_PENALTIES = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
_ROWS_FOR_PENALTY = 4000
_ROWS_FOR_FIT = 20_000
_ROWS_AT_A_TIME = 8192
_STRENGTH = 20.0


@signal
def multilabel_probs(
    spectrum: Spectrum, neighbors: Neighbors, near_duplicates: pd.Series[int], labels: pd.DataFrame, task: str
) -> pd.DataFrame:
    """Out-of-sample probability of each class for each image of a multi-label dataset.

    An image without a label counts: it shows none of the classes. A class that only one picture has can't be
    judged, as nothing is left of it when that picture is held out: it gets no column.

    Args:
        spectrum: components of the embeddings.
        neighbors: nearest neighbours.
        near_duplicates: group of each image.
        labels: given classes, a row for each class of an image.
        task: of the dataset.

    Returns:
        (n, k) float32 in [0, 1], rows need not sum to 1; index: sample ids; columns: classes that two
        different pictures have at least.

    Raises:
        Unavailable: another task than ``multilabel``, or no class that could be judged.
    """
    if task != "multilabel":
        raise Unavailable("each image has one label at most, not a set of them")
    ids = spectrum.ids
    names = sorted(set(labels["name"].dropna()))
    targets = multi_hot(labels, ids, names)
    groups = pd.factorize(near_duplicates.loc[ids])[0].astype(np.int64)
    judged = np.array([len(np.unique(groups[column])) >= 2 for column in targets.T], dtype=bool)
    if not judged.any():
        raise Unavailable(
            "no class has two different images, so nothing is left of a class when one is held out"
        )
    targets = targets[:, judged]
    evidence = _evidence(
        held_out_ridge(spectrum.components, spectrum.eigenvalues, targets, groups),
        neighbor_shares(neighbors, targets, groups),
        targets,
    )
    columns = pd.Index([name for name, known in zip(names, judged, strict=True) if known], dtype=object)
    return pd.DataFrame(_joined(evidence, targets), index=ids, columns=columns)


def multi_hot(labels: pd.DataFrame, ids: pd.Index, classes: list[str]) -> Bools:
    """Which image has which class.

    Args:
        labels: columns ``sample_id`` and ``name``; rows of other samples and classes don't count.
        ids: (n,) sample ids.
        classes: k names.

    Returns:
        (n, k) bool.
    """
    found = np.zeros((len(ids), len(classes)), dtype=bool)
    rows = ids.get_indexer(pd.Index(labels["sample_id"], dtype=object))
    columns = pd.Index(classes, dtype=object).get_indexer(pd.Index(labels["name"], dtype=object))
    known = (rows >= 0) & (columns >= 0)
    found[rows[known], columns[known]] = True
    return found


def held_out_ridge(
    components: Floats, eigenvalues: np.ndarray[Any, Any], targets: Bools, groups: Ints
) -> Floats:
    """Scores of a ridge regression onto zeros and ones, each group of images held out in turn.

    The columns of `components` are centred and uncorrelated, so the hat matrix needs no inverse: H is 1/n
    plus the inner products of the rows, weighted by 1 / (n (eigenvalue + penalty)). The held-out residuals
    of a group G are (I - H_GG)^-1 times its residuals. The penalty is the one whose held-out residuals are
    smallest over all classes.

    Args:
        components: (n, r) float32.
        eigenvalues: (r,) variance of each column.
        targets: (n, k) bool.
        groups: (n,) group numbers from 0; images of one group are held out together.

    Returns:
        (n, k) float32 scores, near 1 where an image shows a class and near 0 where it doesn't.

    Reference:
        Cook and Weisberg, "Residuals and Influence in Regression", 1982, section 2.2, for the closed form;
        Allen, "The Relationship between Variable Selection and Data Augmentation and a Method for
        Prediction", Technometrics 16, 1974, for the choice of the penalty (PRESS).
    """
    n = len(components)
    share = targets.mean(0, dtype=np.float64).astype(np.float32)
    cross = np.zeros((components.shape[1], targets.shape[1]), dtype=np.float32)
    for start in range(0, n, _ROWS_AT_A_TIME):
        here = slice(start, start + _ROWS_AT_A_TIME)
        cross += components[here].T @ (targets[here] - share)
    shrink = _best_shrinkage(components, eigenvalues, targets, groups, cross, share)
    coefficients = shrink[:, None] * cross
    scores = np.empty(targets.shape, dtype=np.float32)
    for start in range(0, n, _ROWS_AT_A_TIME):
        here = slice(start, start + _ROWS_AT_A_TIME)
        leverage = 1 / n + (components[here] ** 2) @ shrink
        scores[here] = _without_itself(components[here] @ coefficients + share, targets[here], leverage)
    order = np.argsort(groups, kind="stable")
    edges = np.flatnonzero(np.r_[True, groups[order][1:] != groups[order][:-1], True])
    for first in np.flatnonzero(np.diff(edges) > 1):
        members = order[edges[first] : edges[first + 1]]
        fitted = components[members] @ coefficients + share
        scores[members] = _without_group(components[members], shrink, fitted, targets[members], n)
    return scores


def _best_shrinkage(
    components: Floats,
    eigenvalues: np.ndarray[Any, Any],
    targets: Bools,
    groups: Ints,
    cross: Floats,
    share: Floats,
) -> Floats:
    """(r,) 1 / (n (eigenvalue + penalty)) for the penalty with the smallest held-out residuals."""
    n = len(targets)
    alone = np.flatnonzero(np.bincount(groups)[groups] == 1)
    rows = alone if len(alone) >= min(n, 500) else np.arange(n)
    if len(rows) > _ROWS_FOR_PENALTY:
        rows = np.sort(np.random.default_rng(0).choice(rows, _ROWS_FOR_PENALTY, replace=False))
    points, own = components[rows], targets[rows]
    # A rare class counts as much as a frequent one
    weights = 1 / np.maximum(share * (1 - share), 1 / n)
    best, chosen = np.inf, np.zeros(len(eigenvalues), dtype=np.float32)
    for penalty in _PENALTIES:
        shrink = (1 / (n * (eigenvalues + penalty))).astype(np.float32)
        leverage = 1 / n + (points**2) @ shrink
        scores = _without_itself(points @ (shrink[:, None] * cross) + share, own, leverage)
        loss = float((((own - scores) ** 2).mean(0) * weights).mean())
        if loss < best:
            best, chosen = loss, shrink
    return chosen


def _without_itself(scores: Floats, targets: Bools, leverage: Floats) -> Floats:
    leverage = np.minimum(leverage, 0.999)[:, None]
    return np.asarray((scores - leverage * targets) / (1 - leverage), dtype=np.float32)


def _without_group(rows: Floats, shrink: Floats, scores: Floats, targets: Bools, n: int) -> Floats:
    """(m, k) scores of the m images of a group, from the images of all others."""
    left = np.c_[rows * np.sqrt(shrink), np.full(len(rows), n**-0.5)].astype(np.float64)
    residuals: np.ndarray[Any, Any] = targets - scores.astype(np.float64)
    if len(rows) <= left.shape[1]:
        held_out = np.linalg.solve(np.eye(len(rows)) - left @ left.T, residuals)
    else:
        # The same by Woodbury's identity: thousands of copies need no matrix of their pairs
        inner = np.eye(left.shape[1]) - left.T @ left
        held_out = residuals + left @ np.linalg.solve(inner, left.T @ residuals)
    return np.asarray(targets - held_out, dtype=np.float32)


def neighbor_shares(
    neighbors: Neighbors, targets: Bools, groups: Ints, *, scale: float = 0.05, smoothing: float = 0.5
) -> Floats:
    """Share of the nearest neighbours that have each class, the own group left out.

    Args:
        neighbors: of the n images, in their order.
        targets: (n, k) bool.
        groups: (n,) group numbers.
        scale: difference in cosine similarity at which a neighbour counts e times less.
        smoothing: how many neighbours the share of the class among all images counts for.

    Returns:
        (n, k) float32 in [0, 1].
    """
    from scipy.sparse import csr_matrix

    counts = groups[neighbors.indices] != groups[:, None]
    similar = np.where(counts, neighbors.similarities, -np.inf)
    strength = np.exp((similar - similar.max(1, keepdims=True, initial=-1.0)) / scale).astype(np.float32)
    n, width = strength.shape
    begins = np.arange(0, n * width + 1, max(width, 1))[: n + 1] if width else np.zeros(n + 1, dtype=int)
    weights = csr_matrix((strength.ravel(), neighbors.indices.ravel(), begins), shape=(n, n))
    votes = np.asarray((weights @ csr_matrix(targets, dtype=np.float32)).todense(), dtype=np.float32)
    votes += smoothing * targets.mean(0, dtype=np.float64).astype(np.float32)
    votes /= strength.sum(1, keepdims=True) + smoothing
    return votes


def _evidence(scores: Floats, shares: Floats, targets: Bools) -> tuple[Floats, Floats, Floats]:
    """What the two members say over what the frequency of a class says, alike in scale for all classes.

    Returns:
        (n, k) deviations of the regression's scores from their mean; (n, k) log-odds of the neighbours' votes
        over those of the class; and (k,) log-odds of the class.
    """
    n = len(targets)
    usual = ((targets.sum(0) + 0.5) / (n + 1)).astype(np.float32)
    prior = np.log(usual / (1 - usual))
    centred = scores - scores.mean(0)
    centred /= np.maximum(centred.std(0), 1e-6)
    clipped = np.clip(shares, 1e-3, 1 - 1e-3)
    odds = np.log(clipped / (1 - clipped)) - prior
    return np.clip(centred, -20, 20), odds.astype(np.float32), prior


def _joined(evidence: tuple[Floats, Floats, Floats], targets: Bools) -> Floats:
    """(n, k) probabilities: a logistic regression for each class, drawn towards that of all classes."""
    deviations, odds, prior = evidence
    n, k = targets.shape
    rows = (
        np.arange(n)
        if n <= _ROWS_FOR_FIT
        else np.random.default_rng(0).choice(n, _ROWS_FOR_FIT, replace=False)
    )
    cells = np.arange(len(rows) * k)
    if len(cells) > 5 * _ROWS_FOR_FIT:
        cells = np.random.default_rng(0).choice(len(cells), 5 * _ROWS_FOR_FIT, replace=False)
    at = rows[cells // k], cells % k
    start = np.array([1.0, 0.1, 0.0])
    shared = _logistic(deviations[at], odds[at], prior[at[1]], targets[at], around=start, strength=1.0)
    result = np.empty((n, k), dtype=np.float32)
    for column in range(k):
        own = _logistic(
            deviations[rows, column],
            odds[rows, column],
            prior[column],
            targets[rows, column],
            around=shared,
            strength=_STRENGTH,
        )
        logits = own[0] * deviations[:, column] + own[1] * odds[:, column] + own[2] + prior[column]
        result[:, column] = 1 / (1 + np.exp(-np.clip(logits, -30, 30)))
    return result


def _logistic(
    deviations: Floats,
    odds: Floats,
    prior: Floats | np.floating[Any],
    targets: Bools,
    *,
    around: np.ndarray[Any, Any],
    strength: float,
    n_steps: int = 12,
) -> np.ndarray[Any, Any]:
    """Two slopes and an intercept by Newton's method, drawn towards `around`.

    Args:
        deviations: (m,) of the regression's scores.
        odds: (m,) of the neighbours' votes.
        prior: log-odds that are added as they are.
        targets: (m,) bool.
        around: (3,) where it starts and is drawn to.
        strength: how strongly it is drawn, as the number of sure observations.
    """
    columns = np.stack([deviations, odds, np.ones_like(odds)])
    found = around.astype(np.float64)
    pull = strength / 4
    for _ in range(n_steps):
        chance = 1 / (1 + np.exp(-np.clip(found @ columns + prior, -30, 30)))
        gradient = columns @ (chance - targets) + pull * (found - around)
        curvature = (columns * (chance * (1 - chance) + 1e-9)) @ columns.T + pull * np.eye(3)
        step = np.linalg.solve(curvature, gradient)
        # A step of Newton's method may overshoot where chances are near 0 or 1
        before, found = found, found - step / max(1.0, float(np.abs(step).max()))
        # What is left of the others when an image is held out tells its label, the wrong way round: where
        # the features say nothing, a negative slope would read it
        found[:2] = np.maximum(found[:2], 0.0)
        if np.abs(found - before).max() < 1e-4:
            break
    return np.asarray(found)
