"""Which detections that stand for no label are objects without one."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from dataaudit.signals.box_evidence import Boxes, Claims, Detections, log_odds, log_side

__all__ = ["chances_by_fit", "missing_chances"]

Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

_AT_A_TIME = 100_000
_MOST_EXPLAINED = 200_000  # detections that those without a label are told apart on


class _Explained:
    """What tells detections that stand for a label from the others, in parts of the detections."""

    def __init__(self, found: Detections, said: Claims, sizes: Doubles, n_classes: int, rows: Ints) -> None:
        from sklearn.linear_model import LogisticRegression

        self.found, self.said, self.sizes = found, said, sizes
        self.classes = np.where(found.classes < 0, n_classes, found.classes)
        first = np.stack([log_odds(found.confidence[rows]), said.claimed[rows]], axis=1)
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
        area = log_side(boxes, self.sizes)
        confidence, claimed = log_odds(found.confidence[rows]), said.claimed[rows]
        columns = [
            confidence, np.maximum(confidence, 0), claimed, np.maximum(claimed - 0.4, 0),
            self.by_class[self.classes[rows]], area, area * area, said.repeats[rows], said.inside[rows],
        ]  # fmt: skip
        return np.stack(columns, axis=1)


def missing_chances(
    found: Detections, said: Claims, sizes: Doubles, n_classes: int
) -> tuple[Doubles, Doubles]:
    """How much each detection looks like one of an object, and its chance to be an object without a label.

    Detections that stand for a label show what detections of objects look like, the others what is left. If a
    share of the objects has no label, and the detections that look best are all of objects, that share of
    them has none; further down, what has no label is such an object or nothing.

    Returns:
        (m,) log-odds; (m,) chances, 0 for those that stand for a label.
    """
    from sklearn.preprocessing import StandardScaler

    m = len(found)
    fitted = np.arange(m)
    if m > _MOST_EXPLAINED:
        fitted = np.sort(np.random.default_rng(0).choice(m, _MOST_EXPLAINED, replace=False))
    has = said.label[fitted] >= 0
    if has.all() or not has.any():
        return np.zeros(m), np.zeros(m)
    features = _Explained(found, said, sizes, n_classes, fitted)
    scale = StandardScaler()
    scaled = scale.fit_transform(features.of(fitted))
    model, share = _beside_missing(scaled, has)
    log_odds_ = np.empty(m)
    for start in range(0, m, _AT_A_TIME):
        here = slice(start, start + _AT_A_TIME)
        log_odds_[here] = model.decision_function(scale.transform(features.of(here)))
    return log_odds_, np.where(said.label >= 0, 0.0, _chance(log_odds_, share))


def chances_by_fit(first: Doubles, fit: Doubles, fit_there: Doubles, has: Bools) -> Doubles:
    """(p,) chances of detections to be objects without a label, where their pixels were judged too.

    Args:
        first: (p,) log-odds of `missing_chances`.
        fit: (p,) IoU with an object of its own that is expected of the detection.
        fit_there: (p,) the same of the box where its object seems to be.
        has: (p,) whether it stands for a label.
    """
    from sklearn.preprocessing import StandardScaler

    if has.all() or not has.any():
        return np.zeros(len(has))
    columns = [first, log_odds(fit), log_odds(fit_there), fit * fit_there]
    scaled = StandardScaler().fit_transform(np.stack(columns, axis=1))
    model, share = _beside_missing(scaled, has)
    return np.where(has, 0.0, _chance(model.decision_function(scaled), share))


def _beside_missing(scaled: Doubles, has: Bools) -> tuple[Any, float]:
    """A regression of what stands for a label, beside objects without one, and the share of those."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(max_iter=300)
    weights = np.ones(len(has))
    for _ in range(4):
        found = model.fit(scaled, has, sample_weight=weights).decision_function(scaled)
        share = _share_missing(found, has)
        weights = np.where(has, 1.0, 1 - 0.98 * _chance(found, share))
    return model, share


def _chance(found: Doubles, share: float) -> Doubles:
    chance: Doubles = np.clip(share / (1 - share) * np.exp(np.minimum(found, 50)), 0, 1)
    return chance


def _share_missing(odds: Doubles, has: Bools) -> float:
    """Share of objects without a label, at most, by the detections that look most like objects."""
    order = np.argsort(-odds, kind="stable")
    labeled = np.cumsum(has[order])
    unlabeled = np.arange(1, len(order) + 1) - labeled
    best = labeled >= max(20, 0.1 * labeled[-1])
    share = (unlabeled + 0.5) / (labeled + unlabeled + 1)
    return float(np.minimum(share[best].min() if best.any() else 0.1, 0.5))
