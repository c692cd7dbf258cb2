"""LBL: labels that several people gave."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import pandas as pd

from dataaudit.annotators import Annotations
from dataaudit.checks.consensus import Consensus, Votes, consensus, expected_gain
from dataaudit.checks.groups import locator_of
from dataaudit.errors import Unavailable
from dataaudit.registry import check
from dataaudit.types import Fix, Outcome

__all__ = ["annotator_unreliable", "ask_another_person", "label_differs_from_consensus"]


@check("LBL005", level="object")
def label_differs_from_consensus(
    annotations: Annotations,
    labels: pd.DataFrame,
    task: str,
    pred_probs: pd.DataFrame | None = None,
    *,
    min_probability: float = 0.5,
) -> Outcome:
    """The label isn't what the people who were asked about the image say together.

    Scoring: the chance that the given label is right. How well each annotator tells the classes is estimated
    together with the class of each image, so that a careless annotator counts less, and one who mixes up two
    classes counts less for these; the baseline's probabilities are one more opinion where there are any. The
    given labels are another, unless they were made from the votes.

    Probability: the chance that the given label is wrong; the votes for one image don't count as independent
    where they go together more than its class explains.

    Flagged: labels with a probability of at least `min_probability` that aren't the most probable class.

    Fix: relabel to the most probable class.

    Reference: Dawid and Skene, "Maximum Likelihood Estimation of Observer Error-Rates Using the EM
    Algorithm", Journal of the Royal Statistical Society C 28, 1979.
    """
    known = _known(annotations, labels, task, pred_probs)
    rows = np.flatnonzero(known.given >= 0)
    if not len(rows):
        raise Unavailable("no image that the annotations name has a label")
    given, best = known.given[rows], known.found.best[rows]
    score = np.clip(known.found.chance_of(rows, given), 0, 1)
    highest = known.found.chances[rows].max(1)
    index = pd.Index(known.label_ids[rows])
    flagged = (1 - score >= min_probability) & (best != given)
    messages: dict[str, tuple[str, str, float]] = {}
    fixes: dict[str, Fix] = {}
    for at in map(int, np.flatnonzero(flagged)):
        label_id, row = str(index[at]), int(rows[at])
        old, new = str(known.classes[given[at]]), str(known.classes[best[at]])
        right = float(score[at])
        message = f"{_said(known, row)}: the chance that {old!r} is right is {right:.1%}."
        messages[label_id] = (message, new, float(highest[at]))
        sample_id = str(known.ids[row])
        fixes[label_id] = Fix(
            op="relabel", sample_id=sample_id, label_id=label_id, old=old, new=new,
            locator=locator_of(known.locators[row], sample_id),
        )  # fmt: skip
    columns = ["message", "suggested", "suggested_probability"]
    return Outcome(
        score=pd.Series(score, index=index),
        flagged=pd.Series(flagged, index=index),
        probability=pd.Series(1 - score, index=index),
        evidence=pd.DataFrame.from_dict(messages, orient="index", columns=columns),
        fixes=fixes,
    )


@check("LBL006", level="dataset")
def annotator_unreliable(
    annotations: Annotations,
    labels: pd.DataFrame,
    task: str,
    pred_probs: pd.DataFrame | None = None,
    *,
    min_votes: int = 10,
    min_excess: float = 0.03,
    min_ratio: float = 1.5,
    max_p: float = 0.01,
) -> Outcome:
    """An annotator is wrong much more often than the others.

    Scoring: the share of an annotator's labels that are right, each judged by all that is known about the
    image without this label: the other people, the baseline and the given label.

    Flagged: annotators with `min_votes` labels at least that are right less often than a usual annotator
    would be on the same images: beyond what differs between the others (a one-sided test with the level
    `max_p`, corrected for their number), wrong `min_ratio` times as often at least, and more often by
    `min_excess` at least.

    Fix: none. Judge the label of the images without this annotator, or have them labeled again.
    """
    if not annotations.annotators:
        raise Unavailable("the annotations don't say who gave which label")
    known = _known(annotations, labels, task, pred_probs)
    table = _qualities(known)
    table = table[table["n"] > 0]
    if not len(table):
        raise Unavailable("no image was labeled by two people, and there is nothing else to judge them by")
    wrong, expected = 1 - table["right"], 1 - table["usual"]
    significant = (table["p"] * len(table) <= max_p) & (table["n"] >= min_votes)
    large = (wrong >= expected + min_excess) & (wrong >= min_ratio * expected)
    flagged = pd.Series((significant & large).to_numpy(dtype=bool), index=table.index)
    messages = {
        str(name): f"Right in {row['right']:.0%} of {int(row['n']):,} labels "
        f"(95 % interval {row['low']:.0%} to {row['high']:.0%}); "
        f"others would be in {row['usual']:.0%} of them.{_habit(known, int(row['at']))}"
        for name, row in table[flagged].iterrows()
    }
    evidence = table.loc[flagged, ["n", "right", "low", "high", "usual"]].assign(message=pd.Series(messages))
    return Outcome(
        score=table["right"].clip(0, 1), flagged=flagged, evidence=evidence.astype({"message": object})
    )


@check("LBL007", level="image")
def ask_another_person(
    annotations: Annotations,
    labels: pd.DataFrame,
    task: str,
    pred_probs: pd.DataFrame | None = None,
    *,
    budget: int = 0,
    max_certainty: float = 0.9,
) -> Outcome:
    """One more person's answer would help: those asked so far leave the class open.

    Scoring: one minus what another answer is expected to add to the certainty, the sum of the squared
    chances of the classes. An image whose class is open although nobody could tell it gains little.

    Flagged: where `budget` is 0, as many images as are expected to have a wrong consensus, those that gain
    most, unless the best class is more probable than `max_certainty`; else the `budget` images that gain
    most.

    Fix: none; ask, add the answers to the annotations and audit again.

    Reference: Goh and Mueller, "ActiveLab: Active Learning with Re-Labeling by Multiple Annotators", ICLR
    Workshop 2023, for the question; the gain is computed from the estimated confusion of the annotators.
    """
    known = _known(annotations, labels, task, pred_probs)
    chances = known.found.chances
    gain = expected_gain(chances, known.found.confusion, known.found.columns)
    best = chances.max(1)
    number = budget if budget > 0 else round(float((1 - best).sum()))
    order = np.argsort(-gain, kind="stable")[:number]
    flagged = np.isin(np.arange(len(gain)), order) & (gain > 0)
    if budget <= 0:
        flagged &= best <= max_certainty
    messages = {}
    for row in map(int, np.flatnonzero(flagged)):
        order = np.argsort(-chances[row], kind="stable")[:2]
        names = known.classes[known.found.columns[row, order]]
        likely = ", ".join(f"{name!r} {chances[row, at]:.0%}" for name, at in zip(names, order, strict=True))
        message = f"{_said(known, row, given=True)}: {likely}."
        messages[str(known.ids[row])] = (message, float(gain[row]))
    return Outcome(
        score=pd.Series(np.clip(1 - gain, 0, 1), index=known.ids),
        flagged=pd.Series(flagged, index=known.ids),
        evidence=pd.DataFrame.from_dict(messages, orient="index", columns=["message", "gain"]),
    )


class _Known:
    """The annotations of one audit, as numbers, and what follows from them."""

    def __init__(
        self, annotations: Annotations, labels: pd.DataFrame, pred_probs: pd.DataFrame | None
    ) -> None:
        self.ids = pd.Index(annotations.votes["sample_id"].unique(), dtype=object)
        first = labels.reset_index(names="label_id").drop_duplicates("sample_id").set_index("sample_id")
        first = first.reindex(self.ids)
        names = first["name"].dropna()
        voted = annotations.votes["name"]
        self.classes = pd.Index(sorted({*voted, *names}), dtype=object)
        if len(self.classes) < 2:
            raise Unavailable("the annotations name one class; it needs two at least")
        self.given = self.classes.get_indexer(pd.Index(first["name"])).astype(np.int64)
        self.label_ids = first["label_id"].to_numpy(dtype=object)
        self.locators = first["locator"].to_numpy(dtype=object)
        self.people = pd.Index(annotations.annotators, dtype=object)
        self.votes = Votes.of(annotations.votes, self.ids, self.classes, self.people)
        self.prior = _prior(pred_probs, self.ids, self.classes)
        self.found: Consensus = consensus(self.votes, self.prior, self.given)


_kept: WeakKeyDictionary[Annotations, tuple[Any, Any, _Known]] = WeakKeyDictionary()


def _known(
    annotations: Annotations, labels: pd.DataFrame, task: str, pred_probs: pd.DataFrame | None
) -> _Known:
    """The consensus, which three checks share: made once for the same tables."""
    if task != "classification":
        raise Unavailable("several annotators are understood for one class an image")
    before = _kept.get(annotations)
    if before is not None and before[0] is labels and before[1] is pred_probs:
        return before[2]
    known = _Known(annotations, labels, pred_probs)
    _kept[annotations] = (labels, pred_probs, known)
    return known


def _prior(
    pred_probs: pd.DataFrame | None, ids: pd.Index, classes: pd.Index
) -> np.ndarray[Any, np.dtype[np.float64]] | None:
    """(n, k) the baseline's probabilities; a class that it doesn't know has next to none."""
    if pred_probs is None:
        return None
    rows, columns = pred_probs.index.get_indexer(ids), pred_probs.columns.get_indexer(classes)
    if (rows < 0).all():
        return None
    values = pred_probs.to_numpy()[np.ix_(rows, columns)].astype(np.float64)
    values[:, columns < 0] = 1e-3
    values[rows < 0] = np.nan
    return np.asarray(values)


def _said(known: _Known, row: int, *, given: bool = False) -> str:
    counts, names = known.found.counts[row], known.classes[known.found.columns[row]]
    order = [at for at in np.argsort(-counts, kind="stable") if counts[at] > 0]
    parts = [f"{int(counts[at]):,} x {names[at]!r}" for at in order[:4]]
    label = f", the label {known.classes[known.given[row]]!r}" if given and known.given[row] >= 0 else ""
    return f"People say {', '.join(parts)}{', ...' if len(order) > 4 else ''}{label}"


def _qualities(known: _Known) -> pd.DataFrame:
    """One row an annotator: ``n`` labels judged, share ``right`` with its interval, ``usual``, ``p``."""
    from scipy.stats import norm

    votes, found = known.votes, known.found
    judged = np.flatnonzero(_judged(known))
    rows, names, people = votes.rows[judged], votes.names[judged], votes.people[judged]
    others = np.log(np.maximum(found.chances[rows], 1e-12)) - found.of_votes[judged]
    others = np.exp(others - others.max(1, keepdims=True))
    others /= others.sum(1, keepdims=True)
    right = (others * (found.columns[rows] == names[:, None])).sum(1)
    usual = ((others**2) * np.diag(found.confusion)[found.columns[rows]]).sum(1)
    n = np.bincount(people, minlength=votes.n_people)
    some = np.maximum(n, 1)
    mean = np.bincount(people, right, votes.n_people) / some
    typical = np.bincount(people, usual, votes.n_people) / some
    variance = np.maximum(typical * (1 - typical), 1e-4) / some
    worse = typical - mean
    seen = n > 0
    centre = float(np.median(worse[seen])) if seen.any() else 0.0
    spread = 1.4826 * float(np.median(np.abs(worse[seen] - centre))) if seen.any() else 0.0
    between = max(0.0, spread**2 - float(np.median(variance[seen]))) if seen.any() else 0.0
    p = norm.sf((worse - centre) / np.sqrt(variance + between))
    low, high = _wilson(mean, some)
    return pd.DataFrame(
        {"n": n, "right": mean, "low": low, "high": high, "usual": typical, "p": p, "at": range(len(n))},
        index=known.people,
    )


def _judged(known: _Known) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """(m,) whether there is anything besides the vote to judge its image by."""
    several = known.votes.totals() > 1
    if known.prior is not None:
        several |= ~np.isnan(known.prior[:, 0])
    if known.found.independent:
        several |= known.given >= 0
    return np.asarray(several[known.votes.rows])


def _wilson(share: Any, n: Any, z: float = 1.96) -> tuple[Any, Any]:
    """Bounds of Wilson's 95 % interval of a share."""
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return np.clip(middle - half, 0, 1), np.clip(middle + half, 0, 1)


def _habit(known: _Known, person: int) -> str:
    """The mistake that an annotator makes most, as a sentence; nothing where none stands out."""
    votes = known.votes
    own = votes.people == person
    cells = np.zeros((votes.n_classes, votes.n_classes))
    columns = known.found.columns[votes.rows[own]]
    np.add.at(cells, (votes.names[own][:, None], columns), known.found.chances[votes.rows[own]])
    np.fill_diagonal(cells, 0)
    said, true = np.unravel_index(int(cells.argmax()), cells.shape)
    if cells[said, true] < max(2.0, 0.1 * cells.sum()):
        return ""
    return f" Says {known.classes[said]!r} for {known.classes[true]!r} most often."
