"""What the folds say together: probabilities on one scale, and how each label fared in training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from dataaudit.signals.probabilities import softmax

__all__ = ["Finetuned", "dynamics_of", "pooled"]

Floats = np.ndarray[Any, np.dtype[np.float32]]
Ints = np.ndarray[Any, np.dtype[np.int64]]

_CELLS = 2**21
_LEAST_POWER = 0.02


@dataclass(frozen=True, kw_only=True)
class Finetuned:
    """What a network says of each image, in the folds that hold it out and in those that train on it.

    Attributes:
        pred_probs: (n, k) float32 out-of-sample probabilities, rows that sum to 1; index: sample ids;
            columns: classes. An image of a class that lies in its fold alone has no row.
        dynamics: one row a labeled image, see `dynamics_of`.
        history: one row an image and epoch, index ``(sample_id, epoch)``, epochs from 1: ``loss``, ``margin``
            and ``confidence``, means over the folds that were trained on it, and the same with ``held_out_``.
        fold: fold that holds out each image.
        size: pixels a side that the images were squeezed to.
    """

    pred_probs: pd.DataFrame
    dynamics: pd.DataFrame
    history: pd.DataFrame
    fold: pd.Series[int]
    size: int


def pooled(members: Sequence[Floats], given: Ints, fold: Ints) -> Floats:
    """Join the probabilities of several models, or bring those of one to the scale that fits the labels.

    The result is the normalised product of the members, each raised to a power: for one member, a
    temperature. The powers of a fold are fitted on all other folds, so that no label has a say in its own
    probability.

    Args:
        members: each (n, k) out-of-sample, rows that sum to 1.
        given: (n,) class numbers.
        fold: (n,) fold numbers.

    Returns:
        (n, k) float32 rows that sum to 1.

    Reference:
        Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, for the temperature; Genest and
        Zidek, "Combining Probability Distributions", Statistical Science 1986, for the logarithmic pool.
    """
    scores = np.stack([np.log(np.maximum(each, 1e-12)).astype(np.float32) for each in members])
    result = np.empty(scores.shape[1:], dtype=np.float32)
    for each in np.unique(fold):
        here = fold == each
        powers = _powers(scores[:, ~here], given[~here])
        result[here] = softmax(np.tensordot(powers, scores[:, here], axes=1))
    return result


def _powers(scores: Floats, given: Ints) -> Floats:
    """(m,) powers whose product fits the labels best, for (m, n, k) logarithms of probabilities."""
    from scipy.optimize import minimize

    m, n, k = scores.shape
    n_rows = max(min(n, _CELLS // k), min(n, 2000))
    if n > n_rows:
        rows = np.random.default_rng(0).choice(n, n_rows, replace=False)
        scores, given = scores[:, rows], given[rows]
    own = scores[:, np.arange(len(given)), given]

    def loss(powers: np.ndarray[Any, Any]) -> tuple[float, np.ndarray[Any, Any]]:
        total = np.tensordot(powers.astype(np.float32), scores, axes=1)
        total -= total.max(1, keepdims=True)
        chances = np.exp(total)
        norm = chances.sum(1)
        chances /= norm[:, None]
        value = np.mean(np.log(norm) - total[np.arange(len(given)), given])
        slope = [np.mean(np.einsum("nk,nk->n", chances, scores[i]) - own[i]) for i in range(m)]
        return float(value), np.array(slope, dtype=np.float64)

    found = minimize(loss, np.full(m, 1 / m), jac=True, method="L-BFGS-B", bounds=[(_LEAST_POWER, 8.0)] * m)
    return np.asarray(found.x, dtype=np.float32)


def dynamics_of(
    curves: Floats, held_out: np.ndarray[Any, np.dtype[np.bool_]]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """How each label fared, summed up and epoch by epoch.

    Args:
        curves: (folds, epochs, 3, n) float32 loss, margin (score of the given class less the highest other)
            and probability of the given class.
        held_out: (folds, n) whether a fold held the image out.

    Returns:
        One row an image: ``loss``, ``margin`` (the area under the margin) and ``confidence``, means over the
        folds and epochs that were trained on it; ``variability``, standard deviation of the confidence over
        epochs; ``forgotten``, how often, a fold, it was right in an epoch and wrong in the next;
        ``learned``, share of the epochs in which it was right; and ``held_out_loss``, ``held_out_margin``
        and ``held_out_confidence``, means over the epochs of the fold that held it out. Then one row an image
        and epoch, index ``(row, epoch)``.

    Reference:
        Pleiss et al., "Identifying Mislabeled Data using the Area Under the Margin Ranking", NeurIPS 2020;
        Toneva et al., "An Empirical Study of Example Forgetting during Deep Neural Network Learning", ICLR
        2019; Swayamdipta et al., "Dataset Cartography", EMNLP 2020, for confidence and variability.
    """
    names = ("loss", "margin", "confidence")
    seen = np.where(held_out[:, None, None, :], np.nan, curves)
    out = np.where(held_out[:, None, None, :], curves, np.nan)
    trained = _mean(seen, 0)  # (epochs, 3, n)
    judged = _mean(out, 0)
    right = seen[:, :, 1] > 0  # (folds, epochs, n)
    n_folds = np.maximum((~held_out).sum(0), 1)
    table = {name: _mean(trained[:, i], 0) for i, name in enumerate(names)}
    table["variability"] = trained[:, 2].std(0)
    table["forgotten"] = (right[:, :-1] & ~right[:, 1:]).sum((0, 1)) / n_folds
    table["learned"] = right.mean(1).sum(0) / n_folds
    table |= {f"held_out_{name}": _mean(judged[:, i], 0) for i, name in enumerate(names)}
    n_epochs, n = trained.shape[0], trained.shape[2]
    by_epoch = {name: trained[:, i].T.ravel() for i, name in enumerate(names)}
    by_epoch |= {f"held_out_{name}": judged[:, i].T.ravel() for i, name in enumerate(names)}
    index = pd.MultiIndex.from_product([range(n), range(1, n_epochs + 1)], names=["row", "epoch"])
    dynamics = pd.DataFrame(table, dtype=np.float32)
    return dynamics, pd.DataFrame(by_epoch, index=index, dtype=np.float32)


def _mean(values: Floats, axis: int) -> Floats:
    """Mean of what isn't NaN; NaN where all is."""
    known = np.isfinite(values)
    total = np.where(known, values, 0).sum(axis, dtype=np.float64)
    count = known.sum(axis)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan).astype(np.float32)
