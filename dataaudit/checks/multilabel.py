"""LBL: classes that are missing at an image, or too many, where an image may have any number of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from dataaudit.checks.groups import Groups, locator_of, one_a_sample
from dataaudit.registry import check
from dataaudit.signals.multilabel import multi_hot
from dataaudit.signals.noise import expected_f1_flags
from dataaudit.types import Fix, Locator, Neighbors, Outcome

__all__ = ["cell_chances", "extra_label", "label_sets_disagree", "missing_label"]

Bools = np.ndarray[Any, np.dtype[np.bool_]]
Floats = np.ndarray[Any, np.dtype[np.float32]]
Ints = np.ndarray[Any, np.dtype[np.int64]]

_LEAST = 0.1
"""No cell is flagged on a smaller chance."""

_SLIPS = 1e-3
"""However clean the labels seem, one in a thousand is a slip: what is blatant is found though it is alone."""

_FARTHEST = 8.0
_BINS = 128


@check("LBL003", level="object")
def missing_label(
    multilabel_probs: pd.DataFrame,
    labels: pd.DataFrame,
    neighbors: Neighbors | None = None,
    *,
    min_probability: float = 0.0,
    max_findings: int = 0,
) -> Outcome:
    """A label is probably missing: the image looks like a class that it isn't labeled with.

    For multi-label datasets. Each class is judged for itself, in all images, also in those without a label.

    Scoring: one minus the probability of the absent class, by a baseline that has not seen the image, nor a
    near-duplicate of it; for each image its most probable absent class, and every flagged one. The
    probabilities, also those that a user brings, are first calibrated class by class on the given labels.
    This is the score of cleanlab's ``multilabel_classification.rank`` with self-confidence, before it is
    brought together to one figure an image.

    Probability: the chance that a class is forgotten, the chance that one is given too much, and how sharp
    the baseline really is are estimated together from all labels: what it is surest of and is still not
    given is missing. The chance of each cell follows by Bayes' rule.

    Flagged: the cells that together make the largest expected F1. `min_probability` flags those above a
    probability instead, and `max_findings` (0: no limit) keeps the worst.

    Fix: add the class to the labels of the image.

    Reference: Bootkrajang and Kabán, "Label-Noise Robust Logistic Regression and Its Applications", ECML
    2012, for the estimate; Lipton, Elkan and Naryanaswamy, "Optimal Thresholding of Classifiers to Maximize
    F1 Measure", ECML 2014, for the threshold.
    """
    cells = _Cells.of(multilabel_probs, labels)
    candidates = np.nonzero(~cells.given & (cells.wrong >= (min_probability or _LEAST)))
    total = float(cells.wrong[~cells.given].sum(dtype=np.float64))
    kept = _flagged(cells.wrong[candidates], cells.probs[candidates], total, min_probability, max_findings)
    found = candidates[0][kept], candidates[1][kept]
    absent = np.where(cells.given, -1.0, cells.probs)
    worst = absent.argmax(1)
    others = np.flatnonzero(~cells.given.all(1))
    here = np.isin(others * len(cells.classes) + worst[others], found[0] * len(cells.classes) + found[1])
    others = others[~here]
    at = np.r_[found[0], others], np.r_[found[1], worst[others]]
    names = cells.classes.to_numpy(dtype=object)[at[1]]
    items = pd.Index(
        [f"{sample_id}:{name}" for sample_id, name in zip(cells.ids[at[0]], names, strict=True)], dtype=object
    )
    flagged = np.arange(len(items)) < len(found[0])
    return cells.outcome(items, at, 1 - cells.probs[at], flagged, _Evidence.of(cells, labels, neighbors))


@check("LBL004", level="object")
def extra_label(
    multilabel_probs: pd.DataFrame,
    labels: pd.DataFrame,
    neighbors: Neighbors | None = None,
    *,
    min_probability: float = 0.0,
    max_findings: int = 0,
) -> Outcome:
    """A label is probably too much: the image doesn't look like a class that it is labeled with.

    For multi-label datasets. Each class is judged for itself.

    Scoring: the probability of the given class, by a baseline that has not seen the image, nor a
    near-duplicate of it, calibrated as in `LBL003`.

    Probability: as in `LBL003`.

    Flagged: the labels that together make the largest expected F1. `min_probability` flags those above a
    probability instead, and `max_findings` (0: no limit) keeps the worst.

    Fix: remove the class from the labels of the image; an image may be left without any.

    Reference: as in `LBL003`.
    """
    cells = _Cells.of(multilabel_probs, labels)
    own = labels.dropna(subset="name")
    rows = cells.ids.get_indexer(pd.Index(own["sample_id"], dtype=object))
    columns = cells.classes.get_indexer(pd.Index(own["name"], dtype=object))
    known = (rows >= 0) & (columns >= 0)
    at = rows[known].astype(np.int64), columns[known].astype(np.int64)
    wrong = cells.wrong[at]
    total = float(wrong.sum(dtype=np.float64))
    flagged = _flagged(wrong, 1 - cells.probs[at], total, min_probability, max_findings)
    evidence = _Evidence.of(cells, labels, neighbors)
    return cells.outcome(own.index[known], at, cells.probs[at], flagged, evidence)


def label_sets_disagree(
    near_duplicates: pd.Series[int], labels: pd.DataFrame, images: pd.DataFrame
) -> Outcome:
    """`LBL002` for images with several classes: each class that some images of a group have and others don't.

    Args:
        near_duplicates: group of each image.
        labels: a row for each class of an image.
        images: of the dataset.
    """
    members = Groups.of(near_duplicates, labels, images)
    ids = pd.Index(members.members.index, dtype=object)
    own = labels[labels["name"].notna()]
    classes = sorted(set(own["name"][own["sample_id"].isin(ids)]))
    given = multi_hot(own, ids, classes)
    by_cell = dict(zip(zip(own["sample_id"], own["name"], strict=True), own.index, strict=True))
    first = one_a_sample(labels)["locator"]
    score = pd.Series(1.0, index=own.index)
    rows: dict[str, tuple[str, str | None, str, str]] = {}
    fixes: dict[str, Fix] = {}
    for number, group in members.several():
        at = ids.get_indexer(pd.Index(group.index, dtype=object))
        counts = given[at].sum(0)
        for column in np.flatnonzero((counts > 0) & (counts < len(at))):
            name, n_with = classes[column], int(counts[column])
            n_without = len(at) - n_with
            missing = n_with >= n_without
            right = 1 / (1 + 9.0 ** abs(n_with - n_without))
            message = f"{n_with} of {len(at)} images that show the same picture are labeled {name!r}."
            for sample_id, there in zip(map(str, group.index), given[at, column], strict=True):
                if there == missing:
                    continue
                item = str(by_cell.get((sample_id, name), f"{sample_id}:{name}"))
                score[item] = right
                suggested = name if missing else None
                rows[item] = (message, suggested, sample_id, f"LBL002-{number}")
                locator = own.at[item, "locator"] if there else first.get(sample_id)
                fixes[item] = _change(item, sample_id, name, locator, add=missing)
    evidence = pd.DataFrame.from_dict(
        rows, orient="index", columns=["message", "suggested", "sample_id", "group"]
    )
    flagged = pd.Series(score.index.isin(list(fixes)), index=score.index)
    return Outcome(score=score, flagged=flagged, probability=1 - score, evidence=evidence, fixes=fixes)


def _change(item: str, sample_id: str, name: str, locator: Any, *, add: bool) -> Fix:
    """The fix that gives a class to an image or takes it away."""
    return Fix(
        op="add" if add else "remove",
        sample_id=sample_id,
        label_id=item,
        locator=locator_of(locator, sample_id),
        old=None if add else name,
        new=name if add else None,
    )


@dataclass(frozen=True, kw_only=True)
class _Cells:
    """Every image with every class."""

    ids: pd.Index  # n sample ids
    classes: pd.Index  # k
    given: Bools  # (n, k)
    raw: Floats  # (n, k) the probabilities as they came
    probs: Floats  # (n, k) calibrated
    wrong: Floats  # (n, k) chance that the given label, or its absence, is wrong

    @classmethod
    def of(cls, probabilities: pd.DataFrame, labels: pd.DataFrame) -> _Cells:
        ids, classes = pd.Index(probabilities.index, dtype=object), list(probabilities.columns)
        raw = probabilities.to_numpy(dtype=np.float32)
        given = multi_hot(labels, ids, classes)
        probs, wrong = cell_chances(raw, given)
        return cls(
            ids=ids, classes=pd.Index(classes, dtype=object), given=given, raw=raw, probs=probs, wrong=wrong
        )

    def outcome(
        self, items: pd.Index, at: tuple[Ints, Ints], score: Floats, flagged: Bools, evidence: _Evidence
    ) -> Outcome:
        """The outcome for some cells, of which those that are flagged get evidence and a fix."""
        table: dict[str, tuple[str, str | None, str, float]] = {}
        fixes: dict[str, Fix] = {}
        for number in map(int, np.flatnonzero(flagged)):
            row, column = int(at[0][number]), int(at[1][number])
            item, sample_id, name = str(items[number]), str(self.ids[row]), str(self.classes[column])
            there = bool(self.given[row, column])
            message = evidence.sentence(row, column)
            table[item] = (message, None if there else name, sample_id, float(self.raw[row, column]))
            locator = evidence.locator(sample_id, item, name)
            fixes[item] = _change(item, sample_id, name, locator, add=not there)
        columns = ["message", "suggested", "sample_id", "class_probability"]
        return Outcome(
            score=pd.Series(np.clip(score, 0, 1).astype(float), index=items),
            flagged=pd.Series(flagged, index=items, dtype=bool),
            probability=pd.Series(self.wrong[at].astype(float), index=items),
            evidence=pd.DataFrame.from_dict(table, orient="index", columns=columns),
            fixes=fixes,
        )


@dataclass(frozen=True, kw_only=True)
class _Evidence:
    """What a person is told about a cell, and where its label stands."""

    cells: _Cells
    labels: pd.DataFrame
    by_sample: Mapping[str, tuple[Any, Any]]  # sample id to locator and name of its first label
    near: Ints | None  # (n, m) rows of `cells` of the nearest images, -1 for images that aren't there

    @classmethod
    def of(cls, cells: _Cells, labels: pd.DataFrame, neighbors: Neighbors | None) -> _Evidence:
        first = labels.drop_duplicates("sample_id")
        near = None
        if neighbors is not None and neighbors.indices.shape[1]:
            row_of = cells.ids.get_indexer(pd.Index(neighbors.ids, dtype=object))
            at = pd.Index(neighbors.ids, dtype=object).get_indexer(cells.ids)
            near = np.where(at[:, None] < 0, -1, row_of[neighbors.indices[at]])
        columns = zip(first["locator"], first["name"], strict=True)
        by_sample = dict(zip(first["sample_id"], columns, strict=True))
        return cls(cells=cells, labels=labels, by_sample=by_sample, near=near)

    def locator(self, sample_id: str, item: str, name: str) -> Any:
        """Where a label stands, or would stand: beside the first label of its image."""
        if item in self.labels.index:
            return self.labels.at[item, "locator"]
        found, first = self.by_sample.get(sample_id, (None, None))
        if isinstance(found, Locator) and found.field == first:  # a column for each class
            return replace(found, field=name)
        return found

    def sentence(self, row: int, column: int) -> str:
        cells = self.cells
        chance, name = float(cells.raw[row, column]), str(cells.classes[column])
        others = [repr(str(each)) for each in cells.classes[cells.given[row]] if each != name]
        nearest = ""
        if self.near is not None:
            known = self.near[row][self.near[row] >= 0]
            nearest = f" {int(cells.given[known, column].sum())} of its {len(known)} nearest images have it."
        if cells.given[row, column]:
            return f"The baseline gives {name!r}, which it is labeled with, {chance:.1%}.{nearest}"
        besides = f"is labeled {', '.join(others)}" if others else "has no label"
        return f"The baseline gives {name!r} {chance:.0%}, and the image {besides}.{nearest}"


def _flagged(
    wrong: Floats, confidence: Floats, total: float, min_probability: float, max_findings: int
) -> Bools:
    """Which cells to flag; the errors of all cells, also of those left out, are expected to be `total`.

    `confidence` is high where an error shows most.
    """
    if min_probability:
        flagged = wrong >= min_probability
    else:
        flagged = expected_f1_flags(wrong, least=_LEAST, total=total)
    if max_findings and flagged.sum() > max_findings:
        chosen = np.flatnonzero(flagged)
        chosen = chosen[np.argsort(-confidence[chosen], kind="stable")][:max_findings]
        flagged = np.isin(np.arange(len(flagged)), chosen)
    return np.asarray(flagged, dtype=bool)


def cell_chances(
    probabilities: Floats,
    given: Bools,
    *,
    n_rounds: int = 1000,
    strength: float = 20.0,
    max_cells: int = 2**22,
) -> tuple[Floats, Floats]:
    """Calibrated probabilities of the given labels, and the chance that each label, or its absence, is wrong.

    The odds of each class are first fitted to its given labels. A model fitted to noisy labels predicts noisy
    labels, so the sharpness of the odds of the true labels, the chance that a class is forgotten and the
    chance that it is given too much are then estimated by expectation maximisation of the likelihood of the
    given labels. A class's two chances are drawn towards those of all classes.

    Args:
        probabilities: (n, k) in [0, 1], out-of-sample.
        given: (n, k) bool.
        n_rounds: rounds of estimation, at most.
        strength: how many images the chances over all classes count for in each class.
        max_cells: how many cells are computed at a time.

    Returns:
        (n, k) float32 calibrated probabilities of the given labels, and (n, k) float32 chances in [0, 1].
    """
    n, k = probabilities.shape
    step = max(1, max_cells // max(k, 1))
    counts = np.zeros((2, k * _BINS))
    for start in range(0, n, step):
        here = slice(start, start + step)
        bins = ((_logits(probabilities[here]) / _FARTHEST + 1) * (_BINS / 2)).astype(np.int64)
        cells = np.minimum(bins, _BINS - 1) + _BINS * np.arange(k)
        for side in (0, 1):
            counts[side] += np.bincount(cells[given[here] == side], minlength=k * _BINS)
    centres = ((np.arange(_BINS) + 0.5) / _BINS * 2 - 1) * _FARTHEST
    absent, present = counts.reshape(2, k, _BINS)
    slope, shift = _calibration(centres, absent, present)
    noise = _noise(slope * centres + shift, absent, present, n_rounds=n_rounds, strength=strength)
    calibrated = np.empty((n, k), dtype=np.float32)
    wrong = np.empty((n, k), dtype=np.float32)
    for start in range(0, n, step):
        here = slice(start, start + step)
        logits = _logits(probabilities[here]) * slope.T + shift.T
        calibrated[here] = _sigmoid(logits)
        true = _sigmoid(noise.sharpness * logits + noise.shift)
        missing, extra = _posteriors(true, noise.forgotten.T, noise.added.T)
        wrong[here] = np.where(given[here], extra, missing)
    return calibrated, wrong


@dataclass(frozen=True, kw_only=True)
class _Noise:
    sharpness: float
    shift: float
    forgotten: np.ndarray[Any, Any]  # (k, 1) chance that a class that is there isn't given
    added: np.ndarray[Any, Any]  # (k, 1) chance that a class that isn't there is given


def _logits(probabilities: Any) -> Any:
    from scipy.special import logit

    return np.clip(logit(np.asarray(probabilities, dtype=np.float32)), -_FARTHEST, _FARTHEST)


def _sigmoid(logits: Any) -> Any:
    return 1 / (1 + np.exp(-np.clip(logits, -30, 30)))


def _posteriors(true: Any, forgotten: Any, added: Any) -> tuple[Any, Any]:
    """Chance that a class is there although it isn't given, and that it isn't although it is."""
    missing = true * forgotten / (true * forgotten + (1 - true) * (1 - added) + 1e-12)
    extra = (1 - true) * added / ((1 - true) * added + true * (1 - forgotten) + 1e-12)
    return missing, extra


def _calibration(
    centres: np.ndarray[Any, Any], absent: np.ndarray[Any, Any], present: np.ndarray[Any, Any]
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """(k, 1) slopes and shifts of the log-odds that fit the given labels of each class (Platt's scaling).

    Both are drawn a little towards 1 and 0, which is where calibrated probabilities are.
    """
    k = len(absent)
    slope, shift = np.ones((k, 1)), np.zeros((k, 1))
    total = absent + present
    for _ in range(30):
        chance = _sigmoid(slope * centres + shift)
        residual, weight = total * chance - present, total * chance * (1 - chance)
        gradient = np.stack([(residual * centres).sum(1) + (slope[:, 0] - 1), residual.sum(1) + shift[:, 0]])
        a, b, c = (weight * centres**2).sum(1) + 1, (weight * centres).sum(1), weight.sum(1) + 1
        steps = np.stack([c * gradient[0] - b * gradient[1], a * gradient[1] - b * gradient[0]])
        steps = np.clip(steps / (a * c - b * b), -1, 1)
        slope, shift = slope - steps[0][:, None], shift - steps[1][:, None]
        if np.abs(steps).max(initial=0) < 1e-6:
            break
    return np.maximum(slope, 1e-3), shift


def _noise(
    logits: np.ndarray[Any, Any],
    absent: np.ndarray[Any, Any],
    present: np.ndarray[Any, Any],
    *,
    n_rounds: int,
    strength: float,
) -> _Noise:
    """How sharp the baseline is and how often labels are forgotten and added, from (k, bins) counts."""
    k, total = len(logits), absent + present
    sharpness, shift = 1.0, 0.0
    forgotten, added = np.full((k, 1), 0.05), np.full((k, 1), 0.02)
    for _ in range(n_rounds):
        true = _sigmoid(sharpness * logits + shift)
        missing, extra = _posteriors(true, forgotten, added)
        there = present * (1 - extra) + absent * missing
        n_there = there.sum(1, keepdims=True)
        n_not = total.sum(1, keepdims=True) - n_there
        before: tuple[Any, ...] = (forgotten, added, sharpness, shift)
        forgotten = _shrunk((absent * missing).sum(1, keepdims=True), n_there, strength)
        added = _shrunk((present * extra).sum(1, keepdims=True), n_not, strength)
        residual, weight = total * true - there, total * true * (1 - true)
        a, b, c = (weight * logits**2).sum() + 1, (weight * logits).sum(), weight.sum() + 1
        along, up = (residual * logits).sum(), residual.sum()
        determinant = a * c - b * b
        sharpness = float(np.clip(sharpness - (c * along - b * up) / determinant, 0.2, 5))
        shift = float(np.clip(shift - (a * up - b * along) / determinant, -5, 5))
        now: tuple[Any, ...] = (forgotten, added, sharpness, shift)
        changes = [float(np.abs(one - other).max(initial=0)) for one, other in zip(before, now, strict=True)]
        if max(changes) < 1e-6:
            break
    return _Noise(sharpness=sharpness, shift=shift, forgotten=forgotten, added=added)


def _shrunk(found: np.ndarray[Any, Any], of: np.ndarray[Any, Any], strength: float) -> np.ndarray[Any, Any]:
    """Shares, drawn towards the share over all classes; never quite 1/2, where a label would say nothing."""
    overall = found.sum() / max(float(of.sum()), 1e-9)
    return np.asarray(np.clip((found + strength * overall) / (of + strength), _SLIPS, 0.49))
