"""LBL: class labels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from dataaudit.checks.groups import Groups, are_objects, locator_of
from dataaudit.checks.multilabel import label_sets_disagree
from dataaudit.errors import Unavailable
from dataaudit.registry import check
from dataaudit.signals.label_errors import LabelErrors
from dataaudit.signals.noise import expected_f1_flags
from dataaudit.types import Fix, Neighbors, Outcome

__all__ = ["label_error", "label_groups_disagree"]

_CELLS_AT_A_TIME = 2**22


@check("LBL001", level="object")
def label_error(
    label_errors: LabelErrors,
    labels: pd.DataFrame,
    pred_probs: pd.DataFrame,
    neighbors: Neighbors | None = None,
    model_predictions: pd.DataFrame | None = None,
    *,
    min_probability: float = 0.0,
    max_findings: int = 0,
) -> Outcome:
    """The label is probably wrong: the image looks like another class.

    Scoring: two judgements are joined, as log-odds. One, with twice the weight, is the probability that a
    baseline which has not seen the image, nor a near-duplicate of it, gives to the given class; the baseline
    joins a ridge regression on the backbone's features with the votes of the nearest images, unless you bring
    probabilities of your own. The other is the chance that the label is right by the noise in this dataset:
    how often each class is mislabeled, and as what, estimated from the images that the baseline is surest of.
    For probabilities of a network that was trained for the task both count the same. Where its margins in
    training are known, they are a third judgement.

    Probability: the chance by that noise, made to fall as the score rises. Verdicts of people on earlier
    findings move it to what they found, and settle the labels that they looked at.

    Flagged: the images that together make the largest expected F1: as many as there are likely to be errors,
    not every image above a fixed threshold. `min_probability` flags the images above a probability instead,
    and `max_findings` (0: no limit) keeps the worst.

    Fix: relabel to the class that is most probable given the image and the label.

    Reference: Northcutt, Jiang and Chuang, "Confident Learning: Estimating Uncertainty in Dataset Labels",
    JAIR 2021, for noise that depends on the class, and the class that each finding is counted under; Patrini
    et al., "Making Deep Neural Networks Robust to Label Noise: A Loss Correction Approach", CVPR 2017, for
    the correction; Pleiss et al., "Identifying Mislabeled Data using the Area Under the Margin Ranking",
    NeurIPS 2020, for the margin.
    """
    table = label_errors.table
    wrong = table["probability"].to_numpy(dtype=np.float32)
    flagged = wrong >= min_probability if min_probability > 0 else expected_f1_flags(wrong)
    if max_findings:
        keep = np.argsort(table["score"].to_numpy(), kind="stable")
        flagged &= np.isin(np.arange(len(flagged)), keep[flagged[keep]][:max_findings])
    suspects = table[flagged]
    suspects = suspects.assign(confident_learning=_confident_learning(table, flagged, pred_probs))
    if suspects["training_margin"].isna().all():
        suspects = suspects.drop(columns="training_margin")
    evidence = pd.concat([suspects.drop(columns=["sample_id", "given", "score", "probability"]),
                          _nearest(suspects, table, neighbors)], axis=1)  # fmt: skip
    evidence.insert(0, "message", _sentences(suspects, evidence, model_predictions))
    locators = labels["locator"]
    fixes = {
        str(label_id): Fix(
            op="relabel", sample_id=str(row.sample_id), label_id=str(label_id),
            locator=locator_of(locators[label_id], str(row.sample_id)), old=str(row.given),
            new=str(row.suggested),
        )
        for label_id, row in zip(suspects.index, suspects.itertuples(), strict=True)
    }  # fmt: skip
    return Outcome(
        score=table["score"].clip(0, 1).astype(float),
        flagged=pd.Series(flagged, index=table.index),
        probability=table["probability"].astype(float),
        evidence=evidence,
        fixes=fixes,
    )


def _confident_learning(
    table: pd.DataFrame, flagged: np.ndarray[Any, np.dtype[np.bool_]], pred_probs: pd.DataFrame
) -> np.ndarray[Any, np.dtype[np.object_]]:
    """The class that confident learning counts each flagged label under; None where it is of no class.

    It is the most probable of the classes that the image is as probable for as the images of that class are
    on average; cleanlab has these thresholds.
    """
    from cleanlab.count import get_confident_thresholds

    given = pred_probs.columns.get_indexer(pd.Index(table["given"]))
    values = pred_probs.to_numpy()
    thresholds = get_confident_thresholds(given, values)
    names = np.array([*map(str, pred_probs.columns), None], dtype=object)
    rows = np.flatnonzero(flagged)
    best = np.empty(len(rows), dtype=np.int64)
    step = max(1, _CELLS_AT_A_TIME // values.shape[1])
    for start in range(0, len(rows), step):
        part = values[rows[start : start + step]]
        confident = np.where(part >= thresholds, part, -1.0)
        best[start : start + step] = np.where(confident.max(1) >= 0, confident.argmax(1), -1)
    return np.asarray(names[best])


def _nearest(suspects: pd.DataFrame, table: pd.DataFrame, neighbors: Neighbors | None) -> pd.DataFrame:
    """How many of the nearest labeled images have the given and the suggested class."""
    counts = pd.DataFrame(index=suspects.index)
    if neighbors is None or not len(suspects):
        return counts
    name_of = table.set_index("sample_id")["given"].reindex(neighbors.ids).to_numpy(dtype=object)
    rows = neighbors.ids.get_indexer(pd.Index(suspects["sample_id"]))
    near = name_of[neighbors.indices[rows]]
    near[rows < 0] = None
    counts["nearest"] = (~pd.isna(near)).sum(1)
    counts["nearest_given"] = (near == suspects["given"].to_numpy(dtype=object)[:, None]).sum(1)
    counts["nearest_suggested"] = (near == suspects["suggested"].to_numpy(dtype=object)[:, None]).sum(1)
    return counts


def _sentences(
    suspects: pd.DataFrame, evidence: pd.DataFrame, model_predictions: pd.DataFrame | None
) -> list[str]:
    sentences = []
    rows = zip(suspects["sample_id"], suspects["given"], evidence.to_dict("records"), strict=True)
    for sample_id, given, row in rows:
        best = str(row["suggested"])
        text = (
            f"The baseline gives {given!r} {row['given_probability']:.1%} "
            f"and {best!r} {row['suggested_probability']:.0%}"
        )
        if row.get("nearest", 0):
            text += (
                f"; {row['nearest_suggested']} of its {row['nearest']} nearest images are {best!r}, "
                f"{row['nearest_given']} {given!r}"
            )
        if row["confident_learning"] not in (None, given):
            text += f"; confident learning counts it as {row['confident_learning']!r}"
        if model_predictions is not None and sample_id in model_predictions.index:
            said = model_predictions.loc[sample_id]
            text += f"; {(said == best).sum()} of {len(said)} models say {best!r}"
        if row.get("training_margin", 0.0) > 0.5:
            text += f"; in training it fared worse than {row['training_margin']:.1%} of the labels"
        sentences.append(f"{text}.")
    return sentences


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
    if are_objects(labels):
        raise Unavailable("images have objects here, which BOX013 compares")
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
