"""Everything known about each label, joined into one score and one chance that it is wrong."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from dataaudit.errors import InputError, Unavailable
from dataaudit.registry import signal
from dataaudit.signals.noise import (
    Doubles,
    Floats,
    Noise,
    error_probabilities,
    estimate_noise,
    falling,
    log_odds,
)

__all__ = ["LabelErrors", "label_errors"]

_SPREAD_OF_SHIFT = 1.5
_SPREAD_OF_SLOPE = 0.5
_ROWS = 10_000  # taken at a time


@dataclass(frozen=True, kw_only=True)
class LabelErrors:
    """What is known about each label.

    Attributes:
        table: one row a label, index label id; columns ``sample_id``, ``given`` (class), ``score`` (0 surely
            wrong, 1 surely right), ``probability`` (chance that it is wrong), ``suggested`` (the class that
            is most probable then), ``given_probability`` and ``suggested_probability`` (of the model), and
            ``training_margin`` (share of the labels whose margin was higher while a model was trained; NaN
            without).
        noise: how labels go wrong in this dataset.
        n_verdicts: how many verdicts of people the probabilities take in.
    """

    table: pd.DataFrame
    noise: Noise
    n_verdicts: int = field(default=0)


@signal
def label_errors(
    pred_probs: pd.DataFrame,
    labels: pd.DataFrame,
    judge: str = "probe",
    predictions: pd.DataFrame | None = None,
    training_dynamics: pd.DataFrame | None = None,
    verdicts: pd.DataFrame | None = None,
) -> LabelErrors:
    """Join what is known about each label.

    Args:
        pred_probs: (n, k) out-of-sample probabilities; index: sample ids, columns: classes.
        labels: given classes.
        judge: who made `pred_probs`: ``probe`` (a regression on features) or ``network`` (one that was
            trained for the task, the user's or ours); see `dataaudit.signals.noise.estimate_noise`.
        predictions: the user's predictions, columns ``sample_id``, ``name`` and ``confidence``; joined with
            `pred_probs` as the geometric mean.
        training_dynamics: how each label fared in training, index sample id; the column ``margin``, else
            ``confidence``, else ``loss`` counts.
        verdicts: of people on findings of `LBL001`, index label id; columns ``given``, the class that was
            judged, and ``wrong``.

    Returns:
        A row for each labeled sample that has a row in `pred_probs`.

    Raises:
        Unavailable: fewer than two classes.
        InputError: dynamics without a column that counts.
    """
    if pred_probs.shape[1] < 2:
        raise Unavailable("pred_probs has one class; it needs two at least")
    named = labels.dropna(subset="name").reset_index(names="label_id").drop_duplicates("sample_id")
    named = named.set_index("sample_id").loc[pred_probs.index]
    given = pred_probs.columns.get_indexer(pd.Index(named["name"])).astype(np.int64)
    values = pred_probs.to_numpy()
    if predictions is not None and len(predictions):
        values = _with_predictions(values, pred_probs, predictions)
    noise = estimate_noise(values, given, trained=judge == "network")
    score, wrong, suggested = error_probabilities(values, given, noise=noise)
    margin = np.full(len(given), np.nan, dtype=np.float32)
    if training_dynamics is not None:
        margin = _margin(training_dynamics).reindex(pred_probs.index).to_numpy(dtype=np.float32)
        score, wrong = _with_margin(score, wrong, margin)
    rows = np.arange(len(given))
    table = pd.DataFrame(
        {
            "sample_id": pred_probs.index,
            "given": named["name"].to_numpy(),
            "score": score,
            "probability": wrong,
            "suggested": pred_probs.columns.to_numpy()[suggested],
            "given_probability": values[rows, given],
            "suggested_probability": values[rows, suggested],
            "training_margin": _share_above(margin),
        },
        index=pd.Index(named["label_id"].to_numpy()),
    )
    n_verdicts = 0
    if verdicts is not None and len(verdicts):
        n_verdicts = _take_in(table, verdicts, values, pred_probs, noise)
    return LabelErrors(table=table, noise=noise, n_verdicts=n_verdicts)


def _with_predictions(values: Floats, pred_probs: pd.DataFrame, predictions: pd.DataFrame) -> Floats:
    """(n, k) geometric mean of two models, the second known by its best class and confidence alone."""
    k = values.shape[1]
    best = predictions.sort_values("confidence", kind="stable").drop_duplicates("sample_id", keep="last")
    row = pred_probs.index.get_indexer(pd.Index(best["sample_id"]))
    column = pred_probs.columns.get_indexer(pd.Index(best["name"]))
    confidence = best["confidence"].to_numpy(dtype=np.float32)
    known = (row >= 0) & (column >= 0) & np.isfinite(confidence)
    row, column, confidence = row[known], column[known], np.clip(confidence[known], 1e-3, 1 - 1e-3)
    joined = values.astype(np.float32)
    for start in range(0, len(row), _ROWS):
        here = slice(start, start + _ROWS)
        other = np.repeat(((1 - confidence[here]) / (k - 1))[:, None], k, axis=1)
        other[np.arange(len(other)), column[here]] = confidence[here]
        both = np.sqrt(np.maximum(joined[row[here]], 1e-9) * other)
        joined[row[here]] = both / both.sum(1, keepdims=True)
    return joined


def _margin(dynamics: pd.DataFrame) -> pd.Series[float]:
    for name, sign in (("margin", 1), ("confidence", 1), ("loss", -1)):
        if name in dynamics:
            found: pd.Series[float] = sign * dynamics[name].astype(float)
            return found
    raise InputError(
        f"training_dynamics has the columns {list(dynamics.columns)}; expected 'margin', 'confidence' or "
        "'loss', one row a sample."
    )


def _with_margin(score: Floats, wrong: Floats, margin: Floats) -> tuple[Floats, Floats]:
    """Score and chance, joined with what the training margin says, at a third of the weight."""
    known = np.isfinite(margin)
    if known.sum() < 2:
        return score, wrong
    by_margin = falling(margin[known], wrong[known])
    joined = log_odds(score)
    joined[known] = (2 * joined[known] - log_odds(np.clip(by_margin, 1e-4, 1 - 1e-4))) / 3
    return (1 / (1 + np.exp(-joined))).astype(np.float32), falling(joined, wrong)


def _share_above(margin: Floats) -> Floats:
    known = np.isfinite(margin)
    share = np.full(len(margin), np.nan, dtype=np.float32)
    rank = pd.Series(margin[known]).rank(method="max")
    share[known] = 1 - rank.to_numpy() / max(known.sum(), 1)
    return share


def _take_in(
    table: pd.DataFrame, verdicts: pd.DataFrame, values: Floats, pred_probs: pd.DataFrame, noise: Noise
) -> int:
    """Move the chances to what people found, in place; a label that was judged is known."""
    rows = table.index.get_indexer(verdicts.index)
    judged = pred_probs.columns.get_indexer(pd.Index(verdicts["given"]))
    known = (rows >= 0) & (judged >= 0)
    rows, judged = rows[known], judged[known].astype(np.int64)
    if not len(rows):
        return 0
    truth = verdicts["wrong"].to_numpy(dtype=bool)[known]
    # What was judged may have been corrected since: its score is that of the label it was then.
    score, _, _ = error_probabilities(values[rows], judged, noise=noise)
    same = pred_probs.columns.to_numpy()[judged] == table["given"].to_numpy()[rows]
    score[same] = table["score"].to_numpy()[rows[same]]
    order = np.argsort(table["score"].to_numpy(), kind="stable")
    chance = np.interp(score, table["score"].to_numpy()[order], table["probability"].to_numpy()[order])
    shift, slope = _correction(log_odds(np.clip(chance, 1e-4, 1 - 1e-4)).astype(np.float64), truth)
    moved = shift + slope * log_odds(np.clip(table["probability"].to_numpy(), 1e-4, 1 - 1e-4))
    moved = 1 / (1 + np.exp(-moved))
    moved[rows[same]] = truth[same]
    table["probability"] = moved.astype(np.float32)
    table.loc[table.index[rows[same & ~truth]], "score"] = 1.0
    return len(rows)


def _correction(odds: Doubles, truth: np.ndarray[Any, np.dtype[np.bool_]]) -> tuple[float, float]:
    """Shift and slope of the log-odds that fit the verdicts, with a prior at no change.

    Reference: Platt, "Probabilistic outputs for support vector machines", 1999, with a Gaussian prior.
    """
    from scipy.optimize import minimize

    sign = np.where(truth, 1.0, -1.0)

    def loss(values: Doubles) -> float:
        shift, slope = values
        prior = (shift / _SPREAD_OF_SHIFT) ** 2 / 2 + ((slope - 1) / _SPREAD_OF_SLOPE) ** 2 / 2
        return float(np.logaddexp(0, -sign * (shift + slope * odds)).sum() + prior)

    shift, slope = minimize(loss, np.array([0.0, 1.0]), method="Nelder-Mead").x
    return float(shift), float(max(slope, 0.05))
