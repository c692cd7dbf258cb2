"""The comparisons of two sides: each computes the p-value of its family, and what to say if it holds.

A comparison knows nothing of the others; `dataaudit.modelcheck.drift.checking` corrects for how many there
are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from dataaudit.errors import Unavailable
from dataaudit.modelcheck.drift.pairing import Pairing
from dataaudit.modelcheck.drift.properties import ASPECTS, CATEGORIES, MEASURES, number
from dataaudit.modelcheck.drift.statistics import (
    Design,
    classifier_scores,
    classifier_test,
    design,
    distances,
    frequencies,
    p_values,
)
from dataaudit.modelcheck.families import drf
from dataaudit.registry import Rule
from dataaudit.report.text import percent, plural

__all__ = [
    "Candidate",
    "Compared",
    "accuracy",
    "classes",
    "embeddings",
    "outliers",
    "predictions",
    "properties",
]

Floats = np.ndarray[Any, np.dtype[np.floating[Any]]]

_FEWEST_CALIBRATED = 8
_MOST_FITTED = 5000
_NEAREST = 3
_TAIL = 0.75


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """What a finding would say, if its p-value holds after correction.

    Attributes:
        item: what it is about, such as ``light``.
        p_value: corrected for the other candidates of its family.
        effect: size of the difference in [0, 1], 0 for none.
        effect_words: what the effect is.
        message: the sentence with the figures.
        advice: what to look at or to change.
        evidence: further figures.
        examples: images of production that show it, each with the nearest of the reference.
    """

    item: str
    p_value: float
    effect: float
    effect_words: str
    message: str
    advice: str
    evidence: Mapping[str, Any] = field(default_factory=dict)
    examples: Sequence[Mapping[str, str]] = ()


@dataclass(frozen=True, kw_only=True)
class Compared:
    """What one comparison found: its p-value, and the candidates with the smallest first."""

    rule: Rule
    p_value: float
    candidates: Sequence[Candidate]


def properties(both: Pairing) -> Compared:
    """Light, contrast, colour, sharpness, size, shape, compression, file format and colour mode."""
    measured = both.measures()
    statistics = [*distances(measured, both.dealt)]
    for name in CATEGORIES:
        texts = both.of_both(both.reference.images[name], both.production.images[name])
        statistics.append(frequencies(_one_hot(texts)[0], both.dealt)[None])
    together, each = p_values(np.concatenate(statistics))
    k = len(MEASURES)
    each = np.concatenate([np.minimum(each[:k], each[k : 2 * k]), each[2 * k :]])
    names = [*MEASURES, *CATEGORIES]
    found = []
    for aspect in ASPECTS:
        mine = [at for at, name in enumerate(MEASURES) if MEASURES[name].aspect == aspect]
        # Of equal p-values, which are common, the clearly larger difference is the one to name
        best = min(mine, key=lambda at: (each[at], -round(10 * _difference(both, names[at])[0])))
        found.append(_property(both, names[best], float(each[best])))
    for at, name in enumerate(CATEGORIES, start=len(MEASURES)):
        found.append(_category(both, name, float(each[at])))
    return Compared(rule=drf.PROPERTY_DRIFT, p_value=together, candidates=_sorted(found))


def embeddings(both: Pairing) -> Compared:
    """Whether a classifier tells production from the reference by what the images show.

    Raises:
        Unavailable: there are no embeddings.
    """
    if not both.components.shape[1]:
        raise Unavailable("there are no embeddings: a backbone was left out")
    scores = classifier_scores(both.components, both.dealt, both.groups)
    areas = classifier_test(scores, both.dealt)
    together, _ = p_values(np.maximum(areas - 0.5, 0)[None])
    area = float(areas[0])
    of_production = np.full(len(both.production), -np.inf)
    rows = both.rows[both.is_production] - len(both.reference)
    of_production[rows] = scores[both.is_production, 0]
    message = (
        "Production shows something else than the reference: of an unseen image of each, a classifier picks "
        f"the one of production in {percent(area)} of pairs; by chance it would be 50%."
    )
    candidate = Candidate(
        item="embeddings",
        p_value=together,
        effect=max(2 * area - 1, 0.0),
        effect_words=f"AUC {area:.2f}",
        message=message,
        advice="Look at the images that it is most sure of; collect and label such images for training.",
        evidence={"auc": area, "n_components": both.components.shape[1]},
        examples=both.examples(of_production),
    )
    return Compared(rule=drf.EMBEDDING_DRIFT, p_value=together, candidates=[candidate])


def outliers(both: Pairing) -> Compared:
    """Whether more of production than by chance is unlike anything in the reference.

    One half of the reference says what is known; distances of the other half to it, and of production, are
    exchangeable where nothing drifted.

    Raises:
        Unavailable: there are no embeddings, or too few images in the reference.
    """
    if not both.components.shape[1]:
        raise Unavailable("there are no embeddings: a backbone was left out")
    side, blocks = both.is_production, both.dealt.blocks
    own = np.unique(blocks[~side])
    rng = np.random.default_rng(0)
    fitted = ~side & np.isin(blocks, rng.permutation(own)[: len(own) // 2])
    calibrated = ~side & ~fitted
    if calibrated.sum() < _FEWEST_CALIBRATED:
        raise Unavailable(
            f"the reference has {plural(int((~side).sum()), 'different image')}; "
            f"it needs {2 * _FEWEST_CALIBRATED} to know how far apart they usually are"
        )
    known = np.flatnonzero(fitted)[:_MOST_FITTED]
    scores = _distances(both.components, both.components[known])
    rest = calibrated | side
    smaller = _redealt(both, rest)
    together, _ = p_values(np.concatenate(distances(scores[rest, None], smaller, tail_from=_TAIL)))
    limit = float(np.quantile(scores[calibrated], 0.95, method="higher"))
    beyond = side & (scores > limit)
    n_production = int(side.sum())
    share = float(beyond.sum() / max(n_production, 1))
    all_scores = _distances(both.all_components, both.components[known])[len(both.reference) :]
    message = (
        f"{_capital(plural(int(beyond.sum()), 'image'))} of production ({percent(share)}) "
        f"{'is' if beyond.sum() == 1 else 'are'} further from the reference than 95% of its own images are "
        "from each other."
    )
    candidate = Candidate(
        item="outliers",
        p_value=together,
        effect=max(share - 0.05, 0.0),
        effect_words=f"{percent(share)} beyond, 5% expected",
        message=message,
        advice="Look at them: another camera, something new to the model, or files that don't belong there.",
        evidence={"share_beyond": share, "n_beyond": int(beyond.sum())},
        examples=both.examples(all_scores),
    )
    return Compared(rule=drf.OUTLIER_SHARE, p_value=together, candidates=[candidate])


def classes(both: Pairing) -> Compared:
    """Whether the classes of the labels have other shares.

    Raises:
        Unavailable: one side has no labels, or they share no class.
    """
    first, second = both.reference.classes, both.production.classes
    if first is None or second is None:
        raise Unavailable(f"{'the reference' if first is None else 'production'} has no labels")
    if not set(first.columns) & set(second.columns):
        raise Unavailable(
            "the sides share no class: "
            f"the reference has {first.columns[0]!r} and production {second.columns[0]!r}, for example"
        )
    return _shares(both, first, second, drf.CLASS_DRIFT, "classes", "Classes of the labels have")


def predictions(both: Pairing) -> Compared:
    """Whether the predicted classes have other shares, or another confidence.

    Raises:
        Unavailable: neither both sides have predictions, nor the reference labels to predict from.
    """
    reference, production = _predicted(both)
    first, second = (pd.get_dummies(each["name"], dtype=np.float32) for each in (reference, production))
    found = _shares(both, first, second, drf.PREDICTION_DRIFT, "predictions", "Predicted classes have")
    if reference["confidence"].isna().any() or production["confidence"].isna().any():
        return found
    values = both.of_both(reference["confidence"], production["confidence"]).astype(np.float64)[:, None]
    shares = found.candidates[0]
    statistic = frequencies(both.of_both(*_aligned(first, second)), both.dealt)[None]
    together, each = p_values(np.concatenate([statistic, *distances(values, both.dealt)]))
    before, after = float(reference["confidence"].mean()), float(production["confidence"].mean())
    confident = Candidate(
        item="confidence",
        p_value=float(each[1:].min()),
        effect=min(abs(after - before), 1.0),
        effect_words=f"mean {after:.2f} against {before:.2f}",
        message=f"Predictions are {'less' if after < before else 'more'} confident in production: "
        f"mean {after:.2f} against {before:.2f} on the reference.",
        advice="Label some of the least confident images of production to know whether accuracy fell.",
        evidence={"confidence_reference": before, "confidence_production": after},
        examples=both.examples(-production["confidence"].to_numpy(dtype=float)),
    )
    rest = {**vars(shares), "p_value": float(each[0])}
    return Compared(
        rule=drf.PREDICTION_DRIFT, p_value=together, candidates=_sorted([Candidate(**rest), confident])
    )


def accuracy(both: Pairing) -> Compared:
    """Whether predictions that are right on the reference are wrong in production.

    Raises:
        Unavailable: one side has no labels, or there are no predictions.
    """
    if both.reference.labels is None or both.production.labels is None:
        raise Unavailable("both sides need a label an image to know which predictions are right")
    sides = _predicted(both)
    right = []
    for side, said in zip((both.reference, both.production), sides, strict=True):
        assert side.labels is not None
        known = side.labels.notna() & said["name"].notna()
        right.append(pd.Series(np.where(known, side.labels == said["name"], np.nan), index=said.index))
    values = both.of_both(*right).astype(np.float64)
    fine = ~np.isnan(values)
    dealt = _redealt(both, fine)
    if not dealt.production.any() or dealt.production.all():
        raise Unavailable("one side has no image with a label and a prediction")
    outcome = np.stack([values[fine] == 1, values[fine] == 0], axis=1).astype(np.float32)
    statistic = frequencies(outcome, dealt)
    together, _ = p_values(statistic[None])
    before, after = (float(each.mean()) for each in right)
    wrong = (right[1] == 0).to_numpy(dtype=float)
    candidate = Candidate(
        item="accuracy",
        p_value=together,
        effect=abs(after - before),
        effect_words=f"{percent(after)} against {percent(before)}",
        message=f"Accuracy is {percent(after)} in production against {percent(before)} on the reference.",
        advice="Look at what the wrong images have in common; label recent images and train again.",
        evidence={"accuracy_reference": before, "accuracy_production": after},
        examples=both.examples(np.where(wrong > 0, 1.0, -np.inf))[: int(wrong.sum())],
    )
    return Compared(rule=drf.CONCEPT_DRIFT, p_value=together, candidates=[candidate])


def _property(both: Pairing, name: str, p_value: float) -> Candidate:
    measure = MEASURES[name]
    first = both.reference.images[name].to_numpy(dtype=float)
    second = both.production.images[name].to_numpy(dtype=float)
    effect, sign = _difference(both, name)
    before, after = float(first.mean()), float(second.mean())
    beyond, limit_words = _beyond(first, second, sign)
    word = measure.higher if sign > 0 else measure.lower
    message = (
        f"Production is {measure.more if sign > 0 else measure.less}: mean {measure.words} "
        f"{number(after, measure)} against {number(before, measure)}"
        f"{'' if beyond == 0 else f'; {percent(beyond)} of the images are {word} than {limit_words}'}."
    )
    evidence = {
        "property": name,
        "mean_reference": before,
        "mean_production": after,
        "median_reference": float(np.median(first)),
        "median_production": float(np.median(second)),
        "share_beyond": beyond,
        "cliffs_delta": sign * effect,
    }
    return Candidate(
        item=measure.aspect,
        p_value=p_value,
        effect=effect,
        effect_words=f"{number(before, measure)} to {number(after, measure)}",
        message=message,
        advice=_ADVICE[measure.aspect],
        evidence=evidence,
        examples=both.examples(sign * second),
    )


_ADVICE = {
    "light": "Look at exposure and time of day; add such images to the training data, or augment brightness.",
    "contrast": "Look at exposure, fog or a dirty lens; augment contrast where production is right.",
    "colour": "Look at white balance, the order of colour channels and the light; augment colour.",
    "sharpness": "Look at focus, motion, resizing and compression on the way to the model.",
    "size": "Look at the camera's settings and at what resizes images before the model sees them.",
    "shape": "Look at cropping and rotation; a model's preprocessing squeezes or crops other shapes.",
    "compression": "Look at the quality with which production saves images; train on the same.",
}


def _category(both: Pairing, name: str, p_value: float) -> Candidate:
    counts = [side.images[name].value_counts(normalize=True) for side in (both.reference, both.production)]
    gap = counts[1].sub(counts[0], fill_value=0.0)
    most = str(gap.abs().sort_values(ascending=False).index[0])
    before, after = (float(each.get(most, 0.0)) for each in counts)
    distance = float(gap.abs().sum() / 2)
    odd = (both.production.images[name] == most).to_numpy(dtype=float) * (1 if after > before else -1)
    return Candidate(
        item=CATEGORIES[name],
        p_value=p_value,
        effect=distance,
        effect_words=f"{most} {percent(before)} to {percent(after)}",
        message=f"The {CATEGORIES[name]} is another: {percent(after)} of production is {most}, "
        f"{percent(before)} of the reference.",
        advice="Look at what writes or converts the files of production.",
        evidence={"value": most, "share_reference": before, "share_production": after},
        examples=both.examples(odd),
    )


def _difference(both: Pairing, name: str) -> tuple[float, int]:
    """Size of the difference in [0, 1], and its direction, 1 where production is higher.

    Cliff's delta, or where a part of production lies beyond the reference, its share.
    """
    from scipy.stats import rankdata

    first = both.reference.images[name].to_numpy(dtype=float)
    second = both.production.images[name].to_numpy(dtype=float)
    ranks = rankdata(np.concatenate([first, second]))[len(first) :]
    above = (ranks.sum() - len(second) * (len(second) + 1) / 2) / (len(first) * len(second))
    delta = float(2 * above - 1)
    low, high = np.quantile(first, [0.01, 0.99])
    below, over = float((second < low).mean()), float((second > high).mean())
    tail = over - below
    # A fifth of the images at night hardly moves the ranks, but it is all in one tail
    chosen = tail if abs(tail) > abs(delta) else delta
    return min(abs(chosen), 1.0), 1 if chosen >= 0 else -1


def _beyond(first: Floats, second: Floats, sign: int) -> tuple[float, str]:
    """Share of production beyond all of the reference, or beyond 99% of it."""
    outside = float((second > first.max()).mean() if sign > 0 else (second < first.min()).mean())
    limit = np.quantile(first, 0.99 if sign > 0 else 0.01)
    nearly = float((second > limit).mean() if sign > 0 else (second < limit).mean())
    if nearly <= 0.02:
        return 0.0, ""
    # One strange image in the reference must not hide what a fifth of production is
    if outside >= nearly / 2:
        return outside, "any of the reference"
    return nearly, "99% of the reference"


def _shares(
    both: Pairing, first: pd.DataFrame, second: pd.DataFrame, rule: Rule, item: str, opening: str
) -> Compared:
    counts = both.of_both(*_aligned(first, second))
    statistic = frequencies(counts, both.dealt)
    together, _ = p_values(statistic[None])
    before, after = (each.sum() / max(float(each.to_numpy().sum()), 1.0) for each in (first, second))
    gap = after.sub(before, fill_value=0.0)
    distance = float(gap.abs().sum() / 2)
    moved = gap.abs().sort_values(ascending=False, kind="stable").index[:3]
    parts = [
        f"{name} {percent(float(after.get(name, 0.0)))} against {percent(float(before.get(name, 0.0)))}"
        for name in moved
        if gap[name]
    ]
    new = [str(name) for name in second.columns if name not in first.columns]
    gone = [str(name) for name in first.columns if name not in second.columns]
    message = f"{opening} other shares in production: {', '.join(parts) or 'none'}."
    message += f" New there: {', '.join(new[:5])}." if new else ""
    message += f" Missing there: {', '.join(gone[:5])}." if gone else ""
    top = moved[0] if len(moved) else None
    scores = np.zeros(len(both.production))
    if top is not None and top in second.columns and gap[top] > 0:
        scores = second[top].to_numpy(dtype=float)
    candidate = Candidate(
        item=item,
        p_value=together,
        effect=distance,
        effect_words=f"{percent(distance)} of the images in another class",
        message=message,
        advice="Sample or weigh classes as production has them, and collect images of what is new there.",
        evidence={
            "distance": distance,
            "new": new,
            "missing": gone,
            "share_reference": {str(name): float(value) for name, value in before.items()},
            "share_production": {str(name): float(value) for name, value in after.items()},
        },
        examples=both.examples(scores)[: int((scores > 0).sum())],
    )
    return Compared(rule=rule, p_value=together, candidates=[candidate])


def _predicted(both: Pairing) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Columns ``name`` and ``confidence`` of both sides: the user's, or those of a probe on the reference."""
    sides = (both.reference, both.production)
    has = [side.predictions is not None for side in sides]
    if all(has):
        tables = []
        for side in sides:
            confidence = side.confidence
            if confidence is None:
                confidence = pd.Series(np.nan, index=side.images.index)
            tables.append(pd.DataFrame({"name": side.predictions, "confidence": confidence}))
        return tables[0], tables[1]
    if any(has):
        raise Unavailable(
            f"predictions are needed for both sides; {'production' if has[0] else 'the reference'} has none"
        )
    if both.reference.labels is None or not both.all_components.shape[1]:
        raise Unavailable("the reference has no labels to predict from, and there are no predictions")
    found = both.probed
    n = len(both.reference)
    return (
        found.iloc[:n].set_index(both.reference.images.index),
        found.iloc[n:].set_index(both.production.images.index),
    )


def _distances(points: Floats, known: Floats) -> Floats:
    """(n,) mean distance of each point to its nearest known ones."""
    found = np.empty(len(points))
    square = np.einsum("ij,ij->i", known, known)
    k = min(_NEAREST, len(known))
    for start in range(0, len(points), 1024):
        part = points[start : start + 1024]
        gaps = np.einsum("ij,ij->i", part, part)[:, None] + square - 2 * part @ known.T
        nearest = np.partition(gaps, k - 1, axis=1)[:, :k]
        found[start : start + len(part)] = np.sqrt(np.maximum(nearest, 0)).mean(1)
    return found


def _redealt(both: Pairing, kept: np.ndarray[Any, np.dtype[np.bool_]]) -> Design:
    """The images kept, dealt out anew among themselves."""
    dealt = both.dealt
    n = dealt.labelings.shape[1] - 1
    return design(
        dealt.production[kept], dealt.blocks[kept], fixed=both.same_file[kept], n_permutations=n, seed=1
    )


def _aligned(first: pd.DataFrame, second: pd.DataFrame) -> tuple[Floats, Floats]:
    names = sorted({*first.columns, *second.columns})
    a, b = (each.reindex(columns=names, fill_value=0).to_numpy(dtype=np.float32) for each in (first, second))
    return a, b


def _one_hot(texts: Any) -> tuple[Floats, list[str]]:
    names, at = np.unique(np.asarray(texts).astype(str), return_inverse=True)
    return np.eye(len(names), dtype=np.float32)[at], [str(name) for name in names]


def _sorted(found: list[Candidate]) -> list[Candidate]:
    return sorted(found, key=lambda each: (each.p_value, -each.effect))


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
