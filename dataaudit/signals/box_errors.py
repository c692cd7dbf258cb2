"""Which labeled boxes are wrong and in what way, and which objects have no box.

What an error looks like to a detector is learnt from errors that are planted: the same boxes with another
class, moved, around two objects, or in another image where nothing is. What detections say about these and
about the labels as they are tells the kinds apart, whatever the detector is good at. The labels as they are
hold errors already, so they count as sound only as far as the last round left them so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from dataaudit.errors import Unavailable
from dataaudit.registry import signal
from dataaudit.signals.box_evidence import (
    Boxes,
    Claims,
    Detections,
    Evidence,
    claims,
    evidence,
    numbered,
    share_inside,
)
from dataaudit.signals.box_planting import KINDS, planted
from dataaudit.signals.objects import image_sizes
from dataaudit.types import CORNERS

__all__ = ["BoxErrors", "box_errors"]

Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_FEWEST = 20  # labeled objects
_MOST_FITTED = 5_000  # labels that errors are planted in
_PLANTED = 8_000  # errors of a kind, at most four times as many as there are labels
_AT_A_TIME = 100_000
_MOST_EXPLAINED = 200_000  # detections that those without a label are told apart on
_MOST_MISSING = 200_000  # candidates that are kept, the most probable ones
_ROUNDS = 5
_EXPECTED = np.array([0.9, 0.03, 0.03, 0.03, 0.01])  # shares of the kinds before anything is known
_WEIGHT = 10.0  # of that, in labels
_FLOOR = 1e-2  # of a strength in [0, 1], before its log-odds


@dataclass(frozen=True, kw_only=True)
class BoxErrors:
    """What detections say about the labels.

    Attributes:
        labels: index label id, the objects that were judged: those with a valid box that are neither a crowd
            nor ignored. Columns: the chance of each of `KINDS`; ``support``, ``other`` and ``beside``, in
            [0, 1] (see `dataaudit.signals.box_evidence.Evidence`); ``suggested``, the class that it would be;
            ``x1``, ``y1``, ``x2``, ``y2``, where its object would be, pixels, NaN where nothing says;
            ``iou`` of the box with that; and ``first`` and ``second``, the rows of the two detections that a
            merged box would cover, -1 for none.
        missing: detections that no label explains, most probable first. Columns ``sample_id``, ``name``,
            the corners in pixels, ``confidence``, ``probability`` that it is an object without a box,
            ``claimed``, its highest IoU with a label, and ``row``, its row among the detections.
        detections: the detections.
        shares: estimated share of each of `KINDS` among the labels.
    """

    labels: pd.DataFrame
    missing: pd.DataFrame
    detections: pd.DataFrame
    shares: dict[str, float]


@signal
def box_errors(
    objects: pd.DataFrame,
    detections: pd.DataFrame,
    images: pd.DataFrame,
    classes: tuple[str, ...],
    object_probs: pd.DataFrame | None = None,
) -> BoxErrors:
    """The chance of each kind of error for each labeled object, and of each detection to be a missing one.

    Args:
        objects: every labeled object.
        detections: out-of-sample predictions.
        images: of the dataset.
        classes: of the dataset.
        object_probs: (n, k) out-of-sample class probabilities of the labeled boxes.

    Raises:
        Unavailable: too few objects to learn from, or no detections.
    """
    sizes = image_sizes(images)
    valid = _valid(objects, sizes)
    if len(valid) < _FEWEST:
        raise Unavailable(
            f"{len(valid)} objects with a valid box; from {_FEWEST} on errors can be told apart"
        )
    if not len(detections):
        raise Unavailable("there are no detections")
    judge = _Judge(valid, detections, list(classes), sizes, object_probs)
    chances, shares = judge.label_chances()
    table = judge.describe(chances)
    return BoxErrors(
        labels=table,
        missing=judge.missing(chances, objects),
        detections=detections,
        shares=dict(zip(KINDS, shares.tolist(), strict=True)),
    )


def _valid(objects: pd.DataFrame, sizes: pd.DataFrame) -> pd.DataFrame:
    corners = objects[list(CORNERS)].to_numpy(dtype=np.float64)
    with np.errstate(invalid="ignore"):
        fine = np.isfinite(corners).all(1) & (corners[:, 2:] > corners[:, :2]).all(1)
    known = np.isfinite(sizes.to_numpy()[sizes.index.get_indexer(pd.Index(objects["sample_id"]))]).all(1)
    left_out = objects["crowd"].to_numpy(dtype=bool) | objects["ignore"].to_numpy(dtype=bool)
    valid: pd.DataFrame = objects.loc[fine & known & ~left_out]
    return valid


class _Judge:
    """Everything as arrays sorted by image."""

    def __init__(
        self,
        valid: pd.DataFrame,
        detections: pd.DataFrame,
        classes: list[str],
        sizes: pd.DataFrame,
        probs: pd.DataFrame | None,
    ) -> None:
        self.classes, self.sizes, self.table = classes, sizes.to_numpy(), detections
        self.labels, self.found, order, self.rows = numbered(valid, detections, classes, sizes.index)
        self.ids, self.sample_ids = valid.index[order], sizes.index
        self.evidence = evidence(self.labels, self.found)
        self.claims = claims(self.labels, self.found, self.evidence)
        self.probs = None
        if probs is not None:
            wanted = probs.reindex(index=self.ids, columns=pd.Index(classes)).to_numpy(dtype=np.float64)
            self.probs = np.where(np.isnan(wanted).all(1, keepdims=True), 1 / len(classes), wanted)
            self.probs = np.nan_to_num(self.probs)
        self.expected = _Expected(self.labels, self.evidence, self.sizes, len(classes))

    def label_chances(self) -> tuple[Doubles, Doubles]:
        """(n, kinds) chances of each label, and the (kinds,) shares."""
        n = len(self.labels)
        chosen = np.arange(n)
        if n > _MOST_FITTED:
            chosen = np.sort(np.random.default_rng(0).choice(n, _MOST_FITTED, replace=False))
        own = self.features(self.labels.take(chosen), _rows_of(self.evidence, chosen), chosen, own=True)
        parts, kinds, origins = [own], [np.zeros(len(chosen), dtype=np.int64)], [np.arange(len(chosen))]
        where = np.full(n, -1)
        where[chosen] = np.arange(len(chosen))
        times = int(np.clip(_PLANTED // len(chosen), 1, 4))
        for kind, boxes, rows in planted(self.labels, chosen, self.sizes, len(self.classes), times=times):
            if len(boxes):
                parts.append(self.features(boxes, evidence(boxes, self.found), rows, spurious=kind == 2))
                kinds.append(np.full(len(boxes), kind, dtype=np.int64))
                origins.append(where[rows])
        model = _Kinds().fit(np.concatenate(parts), np.concatenate(kinds), np.concatenate(origins))
        if len(chosen) == n:
            return model.chances(own), model.shares
        chances = np.empty((n, len(KINDS)))
        for start in range(0, n, _AT_A_TIME):
            here = np.arange(start, min(start + _AT_A_TIME, n))
            part = _rows_of(self.evidence, here)
            chances[here] = model.chances(self.features(self.labels.take(here), part, here, own=True))
        return chances, model.shares

    def features(
        self, boxes: Boxes, found: Evidence, rows: Ints, *, own: bool = False, spurious: bool = False
    ) -> Doubles:
        """(n, features) what tells the kinds apart."""
        same, any_, other, beside, several = (
            _log_odds(each) for each in (found.same, found.any, found.other, found.beside, found.several)
        )
        usual = self.expected.of(boxes, same if own else None)
        area, _ = _shape(boxes, self.sizes)
        has = (found.same_row >= 0).astype(np.float64)
        matched = np.maximum(found.same_row, 0)
        to = self.found.corners[matched]
        sides = np.maximum(boxes.corners[:, 2:] - boxes.corners[:, :2], 1e-6)
        off = np.abs((to[:, :2] + to[:, 2:]) - (boxes.corners[:, :2] + boxes.corners[:, 2:])) / (2 * sides)
        stretch = np.abs(np.log(np.maximum(to[:, 2:] - to[:, :2], 1e-6) / sides))
        confidence = _log_odds(np.where(found.same_row >= 0, self.found.confidence[matched], 0.0))
        columns = [
            same, any_, other, beside, several, same - other, np.maximum(beside - same, -6), several - same,
            usual, same - usual, (same - usual) * usual, area,
            has, has * np.minimum(off.max(1), 2), has * np.minimum(stretch.max(1), 2), confidence,
            found.iou, has * found.iou * confidence,
            *(has * np.maximum(found.iou - knot, 0) for knot in (0.3, 0.5, 0.7)),
            *(np.maximum(same - knot, 0) for knot in (-2.0, 0.0)),
            *(np.maximum(same - usual - knot, 0) for knot in (-1.0, 1.0)),
        ]  # fmt: skip
        if self.probs is not None:
            columns.append(np.zeros(len(boxes)) if spurious else self.preference(rows, boxes.classes))
        return np.stack(columns, axis=1)

    def preference(self, rows: Ints, classes: Ints) -> Doubles:
        """Log of the probability of a class, against that of the best other one."""
        assert self.probs is not None
        chances = self.probs[rows]
        at = np.arange(len(rows)), classes
        given = chances[at]
        chances[at] = 0
        preferred: Doubles = np.log(given + 1e-3) - np.log(chances.max(1) + 1e-3)
        return preferred

    def describe(self, chances: Doubles) -> pd.DataFrame:
        """The table of the labels."""
        found = self.evidence
        table = pd.DataFrame(chances, index=self.ids, columns=list(KINDS))
        table = table.assign(support=found.same, other=found.other, beside=found.beside)
        table["suggested"] = self.suggested()
        row = np.where(found.same_row >= 0, found.same_row, found.any_row)
        corners = np.where((row >= 0)[:, None], self.found.corners[np.maximum(row, 0)], np.nan)
        for number, name in enumerate(CORNERS):
            table[name] = corners[:, number]
        table["iou"] = found.iou
        for name, rows in (("first", found.first_row), ("second", found.second_row)):
            table[name] = np.where(rows >= 0, self.rows[np.maximum(rows, 0)], -1)
        return table

    def suggested(self) -> Any:
        """The class that each label would have if its own is wrong; None where nothing says."""
        names = np.array([*self.classes, None], dtype=object)
        row = self.evidence.other_row
        by_detection = np.where(row >= 0, self.found.classes[np.maximum(row, 0)], -1)
        if self.probs is None:
            return names[by_detection]
        chances = self.probs.copy()
        chances[np.arange(len(chances)), self.labels.classes] = 0
        known = np.flatnonzero(by_detection >= 0)
        chances[known, by_detection[known]] += self.evidence.other[known]
        return names[chances.argmax(1)]

    def missing(self, chances: Doubles, objects: pd.DataFrame) -> pd.DataFrame:
        """The detections that no label explains, with the chance that each is an object."""
        found, said = self.found, self.claims
        probability = _missing_chances(found, said, self.sizes, len(self.classes))
        # One that shows where a badly placed or wrongly named box belongs isn't another object
        explained = np.zeros(len(found))
        wrong = chances[:, 1] + chances[:, 3]
        for rows in (self.evidence.same_row, self.evidence.other_row):
            at = np.flatnonzero(rows >= 0)
            np.maximum.at(explained, rows[at], wrong[at] * (self.evidence.iou[at] > 0))
        probability = probability * (1 - explained)
        rows = np.flatnonzero((said.label < 0) & (found.classes >= 0) & ~self._left_out(objects))
        rows = rows[np.argsort(-probability[rows], kind="stable")[:_MOST_MISSING]]
        table = self.table.iloc[self.rows[rows]].reset_index(drop=True)
        return table[["sample_id", "name", *CORNERS, "confidence"]].assign(
            probability=probability[rows], claimed=said.claimed[rows], row=self.rows[rows]
        )

    def _left_out(self, objects: pd.DataFrame) -> npt.NDArray[np.bool_]:
        """Detections that lie in a crowd or in a region that is to be ignored."""
        regions = objects[(objects["crowd"] | objects["ignore"]) & objects[list(CORNERS)].notna().all(axis=1)]
        if not len(regions):
            return np.zeros(len(self.found), dtype=bool)
        boxes, *_ = numbered(regions, self.table, self.classes, self.sample_ids)
        return np.asarray(share_inside(self.found, boxes) > 0.5)


def _rows_of(found: Evidence, rows: Ints) -> Evidence:
    return Evidence(**{name: values[rows] for name, values in vars(found).items()})


def _log_odds(values: Doubles) -> Doubles:
    odds: Doubles = np.log((values + _FLOOR) / (1 - values + _FLOOR))
    return odds


def _shape(boxes: Boxes, sizes: Doubles) -> tuple[Doubles, Doubles]:
    """Log of the side of each box relative to its image, and of its aspect."""
    sides = np.maximum(boxes.corners[:, 2:] - boxes.corners[:, :2], 1e-9)
    relative = np.maximum(sides.prod(1) / sizes[boxes.images].prod(1), 1e-8)
    return 0.5 * np.log(relative), np.log(sides[:, 0] / sides[:, 1])


class _Expected:
    """The support that a label of some class and size usually has."""

    def __init__(self, labels: Boxes, found: Evidence, sizes: Doubles, n_classes: int) -> None:
        self.sizes = sizes
        support = _log_odds(found.same)
        design = self._design(labels)
        self.weights = np.linalg.solve(design.T @ design + np.diag([1e-6, 1, 1]), design.T @ support)
        left = support - design @ self.weights
        self.sums = np.bincount(labels.classes, left, n_classes)
        self.counts: Any = np.bincount(labels.classes, minlength=n_classes)

    def _design(self, boxes: Boxes) -> Doubles:
        area, _ = _shape(boxes, self.sizes)
        return np.stack([np.ones_like(area), area, area * area], axis=1)

    def of(self, boxes: Boxes, own: Doubles | None) -> Doubles:
        """The usual support of each box; of labels themselves without `own`, what they have."""
        base = self._design(boxes) @ self.weights
        sums: Any = self.sums[boxes.classes]
        counts = self.counts[boxes.classes]
        left_out = 0.0 if own is None else 1.0
        sums = sums - left_out * ((0.0 if own is None else own) - base)
        usual: Doubles = base + sums / (counts - left_out + 5)
        return usual


class _Kinds:
    """A regression that tells the kinds apart, and how frequent they are."""

    def fit(self, features: Doubles, kinds: Ints, origins: Ints) -> _Kinds:
        """Fit on labels (kind 0, first) and on errors that were planted in the labels `origins`."""
        from sklearn.linear_model import LogisticRegression
        from sklearn.preprocessing import StandardScaler

        n = int((kinds == 0).sum())
        self.scale = StandardScaler().fit(features)
        scaled = self.scale.transform(features)
        known = np.bincount(kinds, minlength=len(KINDS)) > 0
        expected = np.where(known, _EXPECTED, 0)
        self.shares = expected / expected.sum()
        sound = np.ones(n)
        for _ in range(_ROUNDS):
            weights = sound[origins]
            totals = np.bincount(kinds, weights, len(KINDS))
            weights = weights * (sound.sum() / np.maximum(totals, 1e-9))[kinds]
            self.model = LogisticRegression(max_iter=300, tol=1e-3)
            self.model.fit(scaled, kinds, sample_weight=weights)
            even = self._even(scaled[:n])
            for _ in range(100):
                chances = _shared(even, self.shares)
                self.shares = (chances.sum(0) + _WEIGHT * expected) / (n + _WEIGHT * expected.sum())
            sound = np.maximum(chances[:, 0], 0.01)
        return self

    def chances(self, features: Doubles) -> Doubles:
        """(n, kinds) chances."""
        return _shared(self._even(self.scale.transform(features)), self.shares)

    def _even(self, scaled: Doubles) -> Doubles:
        """(n, kinds) chances if all kinds were equally frequent."""
        chances = np.zeros((len(scaled), len(KINDS)))
        chances[:, self.model.classes_] = self.model.predict_proba(scaled)
        return chances


def _shared(even: Doubles, shares: Doubles) -> Doubles:
    chances: Doubles = even * shares
    chances /= chances.sum(1, keepdims=True)
    return chances


class _Explained:
    """What tells detections that stand for a label from the others, in parts of the detections."""

    def __init__(self, found: Detections, said: Claims, sizes: Doubles, n_classes: int, rows: Ints) -> None:
        from sklearn.linear_model import LogisticRegression

        self.found, self.said, self.sizes = found, said, sizes
        self.classes = np.where(found.classes < 0, n_classes, found.classes)
        first = np.stack([_log_odds(found.confidence[rows]), said.claimed[rows]], axis=1)
        has = said.label[rows] >= 0
        alone = LogisticRegression().fit(first, has).predict_proba(first)[:, 1]
        seen = (np.bincount(self.classes[rows], each, n_classes + 1) + 3 for each in (has, alone))
        self.by_class = np.log(np.divide(*seen))

    def of(self, rows: Any) -> Doubles:
        """(len(rows), features)."""
        found, said = self.found, self.said
        boxes = Boxes(
            images=found.images[rows],
            corners=found.corners[rows],
            classes=self.classes[rows],
            origins=said.label[rows],
        )
        area, _ = _shape(boxes, self.sizes)
        confidence, claimed = _log_odds(found.confidence[rows]), said.claimed[rows]
        columns = [
            confidence, np.maximum(confidence, 0), claimed, np.maximum(claimed - 0.4, 0),
            self.by_class[self.classes[rows]], area, area * area, said.repeats[rows], said.inside[rows],
        ]  # fmt: skip
        return np.stack(columns, axis=1)


def _missing_chances(found: Detections, said: Claims, sizes: Doubles, n_classes: int) -> Doubles:
    """(m,) chance of each detection without a label to be an object without one.

    Detections that stand for a label show what detections of objects look like, the others what is left. If a
    share of the objects has no label, and the detections that look best are all of objects, that share of
    them has none; further down, what has no label is such an object or nothing.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    m = len(found)
    fitted = np.arange(m)
    if m > _MOST_EXPLAINED:
        fitted = np.sort(np.random.default_rng(0).choice(m, _MOST_EXPLAINED, replace=False))
    has = said.label[fitted] >= 0
    if has.all() or not has.any():
        return np.zeros(m)
    features = _Explained(found, said, sizes, n_classes, fitted)
    scale = StandardScaler()
    scaled = scale.fit_transform(features.of(fitted))
    model = LogisticRegression(max_iter=300)
    weights = np.ones(len(fitted))
    for _ in range(4):
        odds = np.exp(model.fit(scaled, has, sample_weight=weights).decision_function(scaled))
        share = _share_missing(odds, has)
        chance = np.clip(share / (1 - share) * odds, 0, 1)
        weights = np.where(has, 1.0, 1 - 0.98 * chance)
    chances = np.empty(m)
    for start in range(0, m, _AT_A_TIME):
        here = slice(start, start + _AT_A_TIME)
        odds = np.exp(model.decision_function(scale.transform(features.of(here))))
        chances[here] = np.clip(share / (1 - share) * odds, 0, 1)
    return np.where(said.label >= 0, 0.0, chances)


def _share_missing(odds: Doubles, has: npt.NDArray[np.bool_]) -> float:
    """Share of objects without a label, at most, by the detections that look most like objects."""
    order = np.argsort(-odds, kind="stable")
    labeled = np.cumsum(has[order])
    unlabeled = np.arange(1, len(order) + 1) - labeled
    best = labeled >= max(20, 0.1 * labeled[-1])
    share = (unlabeled + 0.5) / (labeled + unlabeled + 1)
    return float(np.minimum(share[best].min() if best.any() else 0.1, 0.5))
