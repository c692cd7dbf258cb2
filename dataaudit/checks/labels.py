"""LBL: class labels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from dataaudit.checks.groups import Groups, locator_of
from dataaudit.checks.multilabel import label_sets_disagree
from dataaudit.errors import Unavailable
from dataaudit.registry import check
from dataaudit.types import Fix, Outcome

__all__ = ["error_probabilities", "label_error", "label_groups_disagree"]

Floats = np.ndarray[Any, np.dtype[np.float32]]
Ints = np.ndarray[Any, np.dtype[np.int64]]


@check("LBL001", level="object")
def label_error(
    pred_probs: pd.DataFrame, labels: pd.DataFrame, *, min_probability: float = 0.0, max_findings: int = 0
) -> Outcome:
    """The label is probably wrong: the image looks like another class.

    Scoring: the score is the probability that a baseline which has not seen the image, nor a near-duplicate
    of it, gives to the given class. The baseline joins a ridge regression on the backbone's features with the
    votes of the nearest images.

    Probability: how classes are mistaken for each other is estimated from all labels at once, beginning with
    cleanlab's confident joint; the chance that a label is wrong follows by Bayes' rule, and is made to fall
    as the score rises.

    Flagged: the images that together make the largest expected F1: as many as there are likely to be errors,
    not every image above a fixed threshold. `min_probability` flags the images above a probability instead,
    and `max_findings` (0: no limit) keeps the worst.

    Fix: relabel to the class that is most probable given the image and the label.

    Reference: Northcutt, Jiang and Chuang, "Confident Learning: Estimating Uncertainty in Dataset Labels",
    JAIR 2021; Patrini et al., "Making Deep Neural Networks Robust to Label Noise: A Loss Correction
    Approach", CVPR 2017, for the correction.
    """
    if pred_probs.shape[1] < 2:
        raise Unavailable("pred_probs has one class; it needs two at least")
    named = labels.dropna(subset="name").reset_index(names="label_id").drop_duplicates("sample_id")
    named = named.set_index("sample_id").loc[pred_probs.index]
    label_ids = pd.Index(named["label_id"].to_numpy())
    given = pred_probs.columns.get_indexer(pd.Index(named["name"])).astype(np.int64)
    values = pred_probs.to_numpy(dtype=np.float32)
    wrong, suggested = error_probabilities(values, given)
    score = values[np.arange(len(given)), given]
    flagged = wrong >= min_probability if min_probability > 0 else _largest_expected_f1(wrong)
    if max_findings:
        keep = np.argsort(score, kind="stable")
        flagged &= np.isin(np.arange(len(flagged)), keep[flagged[keep]][:max_findings])
    evidence, fixes = _relabels(named, pred_probs, suggested, np.flatnonzero(flagged))
    return Outcome(
        score=pd.Series(np.clip(score, 0, 1).astype(float), index=label_ids),
        flagged=pd.Series(flagged, index=label_ids),
        probability=pd.Series(wrong.astype(float), index=label_ids),
        evidence=evidence,
        fixes=fixes,
    )


def _relabels(
    named: pd.DataFrame, pred_probs: pd.DataFrame, suggested: Ints, rows: Ints
) -> tuple[pd.DataFrame, dict[str, Fix]]:
    """Evidence and fixes for some rows of `named`, which has a label for each row of `pred_probs`."""
    evidence: dict[str, tuple[str, str, float, float]] = {}
    fixes: dict[str, Fix] = {}
    values = pred_probs.to_numpy()
    for row in map(int, rows):
        label = named.iloc[row]
        sample_id, label_id, given = str(named.index[row]), str(label["label_id"]), str(label["name"])
        best = str(pred_probs.columns[suggested[row]])
        own = float(values[row, pred_probs.columns.get_loc(label["name"])])
        other = float(values[row, suggested[row]])
        message = f"The baseline gives {given!r} {own:.1%} and {best!r} {other:.0%}."
        evidence[label_id] = (message, best, own, other)
        locator = locator_of(label["locator"], sample_id)
        fixes[label_id] = Fix(
            op="relabel", sample_id=sample_id, label_id=label_id, locator=locator, old=given, new=best
        )
    columns = ["message", "suggested", "given_probability", "suggested_probability"]
    return pd.DataFrame.from_dict(evidence, orient="index", columns=columns), fixes


@check("LBL002", level="object")
def label_groups_disagree(
    near_duplicates: pd.Series[int],
    labels: pd.DataFrame,
    images: pd.DataFrame,
    pred_probs: pd.DataFrame | None = None,
) -> Outcome:
    """The same or nearly the same image has different labels.

    Scoring: images that show the same picture are taken together. Each label in the group counts as a vote,
    nine to one for its class, and the baseline's probabilities, if there are any, decide among equals. The
    score of a label is the chance that it is right by this count; labels of groups that agree have score 1.

    Flagged: the labels that differ from the group's most probable class. Of multi-label datasets each class
    is voted on for itself; where as many have it as haven't, it counts as missing.

    Fix: relabel to that class; add or remove it in a multi-label dataset.
    """
    if labels["sample_id"].duplicated().any():
        return label_sets_disagree(near_duplicates, labels, images)
    groups = Groups.of(near_duplicates, labels, images)
    first = labels.drop_duplicates("sample_id")
    score = pd.Series(1.0, index=first.index)
    label_of = pd.Series(first.index, index=first["sample_id"])
    rows: list[tuple[str, str, str, str]] = []
    fixes: dict[str, Fix] = {}
    for number, members in groups.several():
        names = members["name"].dropna()
        if names.nunique() < 2:
            continue
        chances = _group_chances(names, pred_probs)
        best = str(chances.index[0])
        counts = ", ".join(f"{n} x {other!r}" for other, n in names.value_counts().items())
        message = f"Images that show the same picture are labeled {counts}."
        for sample_id, name in zip(map(str, names.index), names, strict=True):
            label_id = str(label_of[sample_id])
            right = chances[name] if name == best else chances[name] / (chances[name] + chances[best])
            score[label_id] = right
            rows.append((label_id, message, best, f"LBL002-{number}"))
            if name != best:
                locator = locator_of(first.at[label_id, "locator"], sample_id)
                fixes[label_id] = Fix(
                    op="relabel", sample_id=sample_id, label_id=label_id, locator=locator, old=name, new=best
                )
    evidence = pd.DataFrame(rows, columns=["label_id", "message", "suggested", "group"]).set_index("label_id")
    flagged = pd.Series(first.index.isin(list(fixes)), index=first.index)
    return Outcome(score=score, flagged=flagged, probability=1 - score, evidence=evidence, fixes=fixes)


def _group_chances(names: pd.Series[str], pred_probs: pd.DataFrame | None) -> pd.Series[float]:
    """Chance of each class among the labels of a group, most probable first."""
    votes = names.value_counts().sort_index()
    chances = 9.0 ** (votes - votes.max())
    if pred_probs is not None:
        known = names.index.intersection(pred_probs.index)
        if len(known):
            chances *= pred_probs.loc[known].reindex(columns=votes.index).fillna(0.0).mean() + 1e-6
    return (chances / chances.sum()).sort_values(ascending=False, kind="stable")


def error_probabilities(
    pred_probs: Floats, given: Ints, *, n_rounds: int = 30, strength: float = 10.0
) -> tuple[Floats, Ints]:
    """The calibrated chance that each label is wrong, and the class that is most probable then.

    A model fitted to noisy labels predicts noisy labels: where a tenth is wrong, it is never surer than nine
    tenths. So the sharpness of its probabilities and the noise, given the true class, are estimated together
    by expectation maximisation of the likelihood of the given labels. The noise begins with cleanlab's joint
    of given and true labels and is drawn towards equal chances for all wrong classes where there is little to
    count.

    Args:
        pred_probs: (n, k) float32 out-of-sample probabilities, rows that sum to 1.
        given: (n,) class numbers.
        n_rounds: rounds of estimation, at most.
        strength: how many labels of each class the equal chances count for, per class.

    Returns:
        (n,) float32 chances in [0, 1], falling as the probability of the given class rises; and (n,) class
        numbers.
    """
    from sklearn.isotonic import IsotonicRegression

    n = len(pred_probs)
    rows = np.arange(n) if n <= 100_000 else np.random.default_rng(0).choice(n, 100_000, replace=False)
    noise = _cleanlab_noise(pred_probs, given)
    scores = np.log(np.maximum(pred_probs[rows], 1e-9))
    sharpness = 1.0
    for turn in range(n_rounds):
        joint = _posterior(scores, given[rows], sharpness, noise)
        noise = _noise(joint, given[rows], strength)
        before, sharpness = sharpness, _sharpness(scores, given[rows], noise)
        if turn > 5 and abs(sharpness - before) < 1e-3 * before:
            break
    wrong = np.empty(n, dtype=np.float32)
    suggested = np.empty(n, dtype=np.int64)
    for start in range(0, n, 8192):
        here = slice(start, start + 8192)
        part = _posterior(np.log(np.maximum(pred_probs[here], 1e-9)), given[here], sharpness, noise)
        own = np.arange(len(part))
        wrong[here] = 1 - part[own, given[here]]
        part[own, given[here]] = -1
        suggested[here] = part.argmax(1)
    own_probability = pred_probs[np.arange(n), given]
    monotone = IsotonicRegression(increasing=False, out_of_bounds="clip").fit(own_probability, wrong)
    return np.clip(monotone.predict(own_probability), 0, 1).astype(np.float32), suggested


def _cleanlab_noise(pred_probs: Floats, given: Ints) -> np.ndarray[Any, Any]:
    """(k, k) chance of each given class (column) for each true class (row), by confident learning."""
    from cleanlab.count import estimate_joint

    joint = np.asarray(estimate_joint(given, pred_probs), dtype=np.float64)
    noise = np.maximum(joint.T, 1e-9)
    return np.asarray(noise / noise.sum(1, keepdims=True))


def _posterior(scores: Floats, given: Ints, sharpness: float, noise: np.ndarray[Any, Any]) -> Floats:
    """(m, k) chance of each true class, given image and label."""
    joint = np.exp(np.float32(sharpness) * (scores - scores.max(1, keepdims=True)))
    joint *= noise.T.astype(np.float32)[given]
    joint /= np.maximum(joint.sum(1, keepdims=True), 1e-30)
    return np.asarray(joint, dtype=np.float32)


def _noise(posterior: Floats, given: Ints, strength: float) -> np.ndarray[Any, Any]:
    from scipy.sparse import csr_matrix

    n, k = posterior.shape
    by_given = csr_matrix((np.ones(n, dtype=np.float32), (given, np.arange(n))), shape=(k, n))
    counts = np.asarray(by_given @ posterior, dtype=np.float64).T
    wrong_share = 1 - np.trace(counts) / n
    prior = np.full((k, k), wrong_share / (k - 1))
    np.fill_diagonal(prior, 1 - wrong_share)
    counts += strength * k * prior
    return np.asarray(counts / counts.sum(1, keepdims=True))


def _sharpness(scores: Floats, given: Ints, noise: np.ndarray[Any, Any]) -> float:
    from scipy.optimize import minimize_scalar

    chance = noise.T.astype(np.float32)[given]
    centred = scores - scores.max(1, keepdims=True)

    def loss(log_factor: float) -> float:
        odds = np.exp(np.float32(np.exp(log_factor)) * centred)
        return -float(np.mean(np.log((odds * chance).sum(1) + 1e-30) - np.log(odds.sum(1))))

    return float(np.exp(minimize_scalar(loss, bounds=(-1, 3.5), method="bounded", options={"xatol": 1e-2}).x))


def _largest_expected_f1(probability: Floats) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Flag the items, most probable first, whose number makes the expected F1 largest.

    Reference: Lipton, Elkan and Naryanaswamy, "Optimal Thresholding of Classifiers to Maximize F1 Measure",
    ECML 2014.
    """
    order = np.argsort(-probability, kind="stable")
    expected = probability[order].cumsum(dtype=np.float64)
    flagged = np.zeros(len(probability), dtype=bool)
    if len(order) and expected[-1] > 0:
        f1 = 2 * expected / (np.arange(1, len(order) + 1) + expected[-1])
        flagged[order[: int(f1.argmax()) + 1]] = True
    # A handful of labels can't be flagged on a chance that is next to nothing.
    return np.asarray(flagged & (probability >= 0.1))
