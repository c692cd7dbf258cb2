"""What the folds say together: probabilities on one scale, and how each label fared in training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from dataaudit.signals.probabilities import softmax

__all__ = ["Finetuned", "dynamics_of", "tempered"]

Floats = np.ndarray[Any, np.dtype[np.float32]]
Ints = np.ndarray[Any, np.dtype[np.int64]]


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


def tempered(probabilities: Floats, given: Ints, fold: Ints) -> Floats:
    """Bring the probabilities of each fold to the scale on which they fit the labels.

    The temperature of a fold is fitted on all other folds, so that no label has a say in its own probability.

    Args:
        probabilities: (n, k) out-of-sample, rows that sum to 1.
        given: (n,) class numbers.
        fold: (n,) fold numbers.

    Returns:
        (n, k) float32 rows that sum to 1.

    Reference:
        Guo et al., "On Calibration of Modern Neural Networks", ICML 2017.
    """
    scores = np.log(np.maximum(probabilities, 1e-12)).astype(np.float32)
    result = np.empty_like(scores)
    for each in np.unique(fold):
        here = fold == each
        factor = _sharpness(scores[~here], given[~here])
        result[here] = softmax(scores[here] * np.float32(factor))
    return result


def _sharpness(scores: Floats, given: Ints) -> float:
    """The factor whose softmax fits the labels best."""
    from scipy.optimize import minimize_scalar

    if len(given) > 20_000:
        rows = np.random.default_rng(0).choice(len(given), 20_000, replace=False)
        scores, given = scores[rows], given[rows]
    own = scores[np.arange(len(given)), given]

    def loss(log_factor: float) -> float:
        factor = np.float32(np.exp(log_factor))
        return float(np.mean(np.log(np.exp(factor * scores).sum(1)) - factor * own))

    found = minimize_scalar(loss, bounds=(-3, 2), method="bounded", options={"xatol": 1e-2})
    return float(np.exp(found.x))


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
