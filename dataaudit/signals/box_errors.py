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
from dataaudit.metrics import box_iou
from dataaudit.registry import signal
from dataaudit.signals.box_evidence import (
    Boxes,
    Evidence,
    claims,
    evidence,
    log_odds,
    log_side,
    numbered,
    repeated,
    share_inside,
)
from dataaudit.signals.box_kinds import Kinds
from dataaudit.signals.box_missing import chances_by_fit, missing_chances
from dataaudit.signals.box_planting import KINDS, planted
from dataaudit.signals.crops import BoxJudge
from dataaudit.signals.objects import image_sizes
from dataaudit.types import CORNERS

__all__ = ["BoxErrors", "box_errors"]

Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_FEWEST = 20  # labeled objects
_MOST_FITTED = 5_000  # labels that errors are planted in
_PLANTED = 8_000  # errors of a kind, at most four times as many as there are labels
_AT_A_TIME = 100_000
_LEAST_SEVERAL = 0.05
_LEAST_JUDGED = 0.003  # chance from which the pixels of a detection are judged
_MOST_JUDGED = 4_000
_SAME_PLACE = 0.6  # IoU
_REPEATED = 0.05  # of its chance, where a likelier one leads to the same place
_SIZES = (1 / 3, 2 / 3)  # quantiles between small, middle and large objects
_WAYS = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the way from a detection to where the pixels say
_FEWEST_PLACED = 20  # detections of labels that tell how far to go
_MOST_MISSING = 200_000  # candidates that are kept, the most probable ones


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
            the corners in pixels, ``confidence``, ``probability`` that it is an object without a box
            and ``claimed``, its highest IoU with a label.
        detections: the detections.
    """

    labels: pd.DataFrame
    missing: pd.DataFrame
    detections: pd.DataFrame


@signal
def box_errors(
    objects: pd.DataFrame,
    detections: pd.DataFrame,
    images: pd.DataFrame,
    classes: tuple[str, ...],
    object_probs: pd.DataFrame | None = None,
    box_judge: BoxJudge | None = None,
    box_regressions: pd.DataFrame | None = None,
) -> BoxErrors:
    """The chance of each kind of error for each labeled object, and of each detection to be a missing one.

    Args:
        objects: every labeled object.
        detections: out-of-sample predictions.
        images: of the dataset.
        classes: of the dataset.
        object_probs: (n, k) out-of-sample class probabilities of the labeled boxes.
        box_judge: what the pixels in and around any box say about how well it fits.
        box_regressions: what they say about the labels, from which the shares of misplaced and of spurious
            boxes are known at least.

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
    from threadpoolctl import threadpool_limits

    # Many small products: several threads of BLAS wait for each other longer than they compute
    with threadpool_limits(1, "blas"):
        judge = _Judge(valid, detections, list(classes), sizes, object_probs, box_judge)
        if box_regressions is not None:
            known = box_regressions.reindex(valid.index)
            judge.least[KINDS.index("bad location")] = np.nan_to_num(known["misplaced"].mean())
            judge.least[KINDS.index("spurious")] = np.nan_to_num(known["spurious"].mean())
        chances = judge.label_chances()
        return BoxErrors(
            labels=judge.describe(chances),
            missing=judge.missing(chances, objects),
            detections=detections,
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
        by_pixels: BoxJudge | None,
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
        self.by_pixels = by_pixels
        self.least = np.zeros(len(KINDS))
        self.expected = _Expected(self.labels, self.evidence, self.sizes, len(classes))

    def label_chances(self) -> Doubles:
        """(n, kinds) chances of each label."""
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
        possible = self.possible()
        model = Kinds().fit(
            np.concatenate(parts), np.concatenate(kinds), np.concatenate(origins), possible[chosen],
            self.least,
        )  # fmt: skip
        if len(chosen) == n:
            return self.with_merged(model.own)
        chances = np.empty((n, len(KINDS)))
        for start in range(0, n, _AT_A_TIME):
            here = np.arange(start, min(start + _AT_A_TIME, n))
            part = _rows_of(self.evidence, here)
            features = self.features(self.labels.take(here), part, here, own=True)
            chances[here] = model.chances(features, possible[here])
        return self.with_merged(chances)

    def with_merged(self, chances: Doubles) -> Doubles:
        """Chances with what two detections side by side say; few datasets have neighbours to learn from."""
        several = np.clip(self.evidence.several - self.evidence.same, 0, 1)[:, None]
        merged = np.zeros_like(chances)
        merged[:, KINDS.index("merged")] = 1
        mixed: Doubles = chances * (1 - several) + merged * several
        return mixed

    def possible(self) -> npt.NDArray[np.bool_]:
        """(n, kinds) whether a label can be of a kind: a box of several objects holds two detections."""
        possible = np.ones((len(self.labels), len(KINDS)), dtype=bool)
        possible[:, KINDS.index("merged")] = self.evidence.several > _LEAST_SEVERAL
        return possible

    def features(
        self, boxes: Boxes, found: Evidence, rows: Ints, *, own: bool = False, spurious: bool = False
    ) -> Doubles:
        """(n, features) what tells the kinds apart."""
        same, any_, other, beside, several = (
            log_odds(each) for each in (found.same, found.any, found.other, found.beside, found.several)
        )
        usual = self.expected.of(boxes, same if own else None)
        area = log_side(boxes, self.sizes)
        has = (found.same_row >= 0).astype(np.float64)
        matched = np.maximum(found.same_row, 0)
        to = self.found.corners[matched]
        sides = np.maximum(boxes.corners[:, 2:] - boxes.corners[:, :2], 1e-6)
        off = np.abs((to[:, :2] + to[:, 2:]) - (boxes.corners[:, :2] + boxes.corners[:, 2:])) / (2 * sides)
        stretch = np.abs(np.log(np.maximum(to[:, 2:] - to[:, :2], 1e-6) / sides))
        confidence = log_odds(np.where(found.same_row >= 0, self.found.confidence[matched], 0.0))
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
        columns += self.fit(boxes)
        return np.stack(columns, axis=1)

    def fit(self, boxes: Boxes) -> list[Doubles]:
        """What the pixels say about how well each box fits; nothing where nothing is known."""
        if self.by_pixels is None:
            return []
        said = self.seen(boxes)
        there = np.nan_to_num(box_iou(boxes.corners, said[list(CORNERS)].to_numpy()), nan=0.5)
        known = said["fit"].notna().to_numpy(dtype=np.float64)
        fit, fit_there, spread = (
            np.nan_to_num(said[name].to_numpy(dtype=np.float64), nan=0.5)
            for name in ("fit", "fit_there", "spread")
        )
        return [known, fit, log_odds(fit), log_odds(fit_there), fit_there - fit, there, there * there,
                np.maximum(0.7 - there, 0), spread]  # fmt: skip

    def seen(self, boxes: Boxes) -> pd.DataFrame:
        """Where the object of each box seems to be, by the pixels."""
        assert self.by_pixels is not None
        names = np.array(self.classes, dtype=object)[boxes.classes]
        labels = [None if origin < 0 else self.ids[origin] for origin in boxes.origins.tolist()]
        return self.by_pixels.judge(self.sample_ids[boxes.images], list(names), boxes.corners, labels)

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
        looks, probability = missing_chances(found, said, self.sizes, len(self.classes))
        corners = found.corners
        if self.by_pixels is not None:
            corners, probability = self._by_fit(looks, probability)
        # One that shows where a badly placed or wrongly named box belongs isn't another object
        explained = np.zeros(len(found))
        wrong = chances[:, 1] + chances[:, 3]
        for rows in (self.evidence.same_row, self.evidence.other_row):
            at = np.flatnonzero(rows >= 0)
            np.maximum.at(explained, rows[at], wrong[at] * (self.evidence.iou[at] > 0))
        probability = probability * (1 - explained)
        rows = np.flatnonzero((said.label < 0) & (found.classes >= 0) & ~self._left_out(objects))
        rows = rows[np.argsort(-probability[rows], kind="stable")[:_MOST_MISSING]]
        table = self.table.iloc[self.rows[rows]].reset_index(drop=True)[["sample_id", "name", "confidence"]]
        for number, name in enumerate(CORNERS):
            table[name] = corners[rows, number]
        return table.assign(probability=probability[rows], claimed=said.claimed[rows])

    def _by_fit(self, looks: Doubles, probability: Doubles) -> tuple[Doubles, Doubles]:
        """Boxes of the likely ones where their object seems to be, and chances by the pixels there."""
        found, has = self.found, self.claims.label >= 0
        corners, chances = found.corners.copy(), probability.copy()
        likely = np.flatnonzero((probability > _LEAST_JUDGED) & (found.classes >= 0))
        likely = likely[np.argsort(-probability[likely], kind="stable")[:_MOST_JUDGED]]
        stand = np.flatnonzero(has & (found.classes >= 0))
        stand = np.random.default_rng(0).permutation(stand)[:_MOST_JUDGED]
        rows = np.sort(np.concatenate([likely, stand]))
        boxes = Boxes(
            images=found.images[rows], corners=found.corners[rows], classes=found.classes[rows],
            origins=self.claims.label[rows],
        )  # fmt: skip
        said = self.seen(boxes)
        known = said["fit"].notna().to_numpy()
        rows, said = rows[known], said[known]
        fit, there = (said[name].to_numpy(dtype=np.float64) for name in ("fit", "fit_there"))
        moved = ~has[rows] & (there > fit)
        corners[rows[moved]] = self._nearer(rows, said[list(CORNERS)].to_numpy())[moved]
        chances[rows] = chances_by_fit(looks[rows], fit, there, has[rows])
        # Several that lead to one place are one object
        order = rows[np.argsort(-chances[rows], kind="stable")]
        boxes = Boxes(
            images=found.images[order], corners=corners[order], classes=found.classes[order],
            origins=order,
        )  # fmt: skip
        chances[order[repeated(boxes, _SAME_PLACE)]] *= _REPEATED
        return corners, chances

    def _nearer(self, rows: Ints, to: Doubles) -> Doubles:
        """Boxes on the way from detections to where the pixels say that their objects are.

        Detections of labels show how far to go: the pixels place small objects worse than detections do.
        """
        found, label = self.found, self.claims.label[rows]
        boxes = Boxes(
            images=found.images[rows], corners=found.corners[rows], classes=found.classes[rows], origins=label
        )
        side, has = log_side(boxes, self.sizes), label >= 0
        part = np.digitize(side, np.quantile(side[has], _SIZES)) if has.any() else np.zeros(len(rows))
        way = np.ones(len(rows))
        for number in range(len(_SIZES) + 1):
            known = np.flatnonzero((part == number) & has)
            if len(known) >= _FEWEST_PLACED:
                truth = self.labels.corners[label[known]]
                near = [
                    box_iou((1 - share) * boxes.corners[known] + share * to[known], truth).mean()
                    for share in _WAYS
                ]
                way[part == number] = _WAYS[int(np.argmax(near))]
        nearer: Doubles = (1 - way[:, None]) * boxes.corners + way[:, None] * to
        return nearer

    def _left_out(self, objects: pd.DataFrame) -> npt.NDArray[np.bool_]:
        """Detections that lie in a crowd or in a region that is to be ignored."""
        regions = objects[(objects["crowd"] | objects["ignore"]) & objects[list(CORNERS)].notna().all(axis=1)]
        if not len(regions):
            return np.zeros(len(self.found), dtype=bool)
        boxes, *_ = numbered(regions, self.table, self.classes, self.sample_ids)
        return np.asarray(share_inside(self.found, boxes) > 0.5)


def _rows_of(found: Evidence, rows: Ints) -> Evidence:
    return Evidence(**{name: values[rows] for name, values in vars(found).items()})


class _Expected:
    """The support that a label of some class and size usually has."""

    def __init__(self, labels: Boxes, found: Evidence, sizes: Doubles, n_classes: int) -> None:
        self.sizes = sizes
        support = log_odds(found.same)
        design = self._design(labels)
        self.weights = np.linalg.solve(design.T @ design + np.diag([1e-6, 1, 1]), design.T @ support)
        left = support - design @ self.weights
        self.sums = np.bincount(labels.classes, left, n_classes)
        self.counts: Any = np.bincount(labels.classes, minlength=n_classes)

    def _design(self, boxes: Boxes) -> Doubles:
        area = log_side(boxes, self.sizes)
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
