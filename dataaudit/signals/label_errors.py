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

_BUMPS = np.arange(-9.0, 9.1, 1.5)
_WIDTH, _SPREAD = 1.5, 1.0
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
    images: pd.DataFrame | None = None,
    judge: str = "probe",
    predictions: pd.DataFrame | None = None,
    training_dynamics: pd.DataFrame | None = None,
    verdicts: pd.DataFrame | None = None,
) -> LabelErrors:
    """Join what is known about each label.

    Args:
        pred_probs: (n, k) out-of-sample probabilities; index: sample ids, columns: classes.
        labels: given classes.
        images: the images, for their digests; judged images that were moved are known again by them.
        judge: who made `pred_probs`: ``probe`` (a regression on features) or ``network`` (one that was
            trained for the task, the user's or ours); see `dataaudit.signals.noise.estimate_noise`.
        predictions: the user's predictions, columns ``sample_id``, ``name`` and ``confidence``; joined with
            `pred_probs` as the geometric mean.
        training_dynamics: how each label fared in training, index sample id; the column ``margin``, else
            ``confidence``, else ``loss`` counts.
        verdicts: of people on findings of `LBL001`, index label id; columns ``given``, the class that was
            judged, ``wrong``, ``chosen``, the class that was found right, and ``digest`` of the image.

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
        digests = None if images is None else images["digest"].reindex(pred_probs.index)
        judged = _judged(table, verdicts, digests)
        n_verdicts = _take_in(table, judged, values, pred_probs.columns, noise)
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


def _judged(table: pd.DataFrame, verdicts: pd.DataFrame, digests: pd.Series[str] | None) -> pd.DataFrame:
    """The verdicts on images that are still there, with the ``row`` of each in the table."""
    rows = table.index.get_indexer(verdicts.index)
    if digests is not None:
        # A label in a tree of folders moves with its correction, and another image may have its name now.
        by_digest = digests[digests.notna() & ~digests.duplicated()]
        place = pd.Series(digests.index.get_indexer(by_digest.index), index=by_digest.to_numpy())
        rows_by_digest = place.reindex(verdicts["digest"]).fillna(-1).to_numpy(dtype=np.int64)
        same = digests.to_numpy()[rows] == verdicts["digest"].to_numpy()
        rows = np.where((rows >= 0) & (same | verdicts["digest"].isna()), rows, rows_by_digest)
    found = verdicts.assign(row=rows)
    return found[found["row"] >= 0]


def _take_in(
    table: pd.DataFrame, judged: pd.DataFrame, values: Floats, classes: pd.Index, noise: Noise
) -> int:
    """Move the chances to what people found, in place; a label that a person looked at is settled."""
    judged = judged[classes.get_indexer(pd.Index(judged["given"])) >= 0]
    if not len(judged):
        return 0
    rows, truth = judged["row"].to_numpy(), judged["wrong"].to_numpy(dtype=bool)
    was = classes.get_indexer(pd.Index(judged["given"])).astype(np.int64)
    # What was judged may have been corrected since: its score is that of the label it was then.
    score, _, _ = error_probabilities(values[rows], was, noise=noise)
    current = table["given"].to_numpy()[rows]
    same = current == judged["given"].to_numpy()
    score[same] = table["score"].to_numpy()[rows[same]]
    order = np.argsort(table["score"].to_numpy(), kind="stable")
    chance = np.interp(score, table["score"].to_numpy()[order], table["probability"].to_numpy()[order])
    moved = _corrected(table["probability"].to_numpy(), chance, truth)
    moved = falling(table["score"].to_numpy(), moved)
    right = current == judged["chosen"].to_numpy()
    moved[rows[same & truth]] = 1.0
    moved[rows[right]] = 0.0
    table["probability"] = moved
    table.loc[table.index[rows[right]], "score"] = 1.0
    return len(rows)


def _corrected(probability: Floats, judged: Floats, truth: np.ndarray[Any, np.dtype[np.bool_]]) -> Floats:
    """Chances, moved near those that were judged to what was found there; far from them nothing is known.

    A logistic regression on bumps along the log-odds, with a Gaussian prior at no change.
    """
    from scipy.optimize import minimize

    def bumps(chance: Floats) -> tuple[Doubles, Doubles]:
        odds = np.asarray(log_odds(np.clip(chance, 1e-4, 1 - 1e-4)), dtype=np.float64)
        return odds, np.exp(-((odds[:, None] - _BUMPS) ** 2) / (2 * _WIDTH**2))

    odds, basis = bumps(judged)
    sign = np.where(truth, 1.0, -1.0)

    def loss(weights: Doubles) -> tuple[float, Doubles]:
        margin = sign * (odds + basis @ weights)
        slope = -sign / (1 + np.exp(np.clip(margin, -50, 50)))
        value = np.logaddexp(0, -margin).sum() + (weights**2).sum() / (2 * _SPREAD**2)
        return float(value), basis.T @ slope + weights / _SPREAD**2

    weights = minimize(loss, np.zeros(len(_BUMPS)), jac=True, method="L-BFGS-B").x
    moved = np.minimum(log_odds(probability), _BUMPS[-1]) + bumps(probability)[1] @ weights
    return np.asarray(1 / (1 + np.exp(-moved)), dtype=np.float32)
