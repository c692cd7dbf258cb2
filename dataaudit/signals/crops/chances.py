"""How likely a box is misplaced or on nothing, learnt from boxes that were put there on purpose."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from dataaudit.metrics import box_iou
from dataaudit.signals.crops.regression import BoxJudge
from dataaudit.types import CORNERS

__all__ = ["with_chances"]

Doubles = npt.NDArray[np.float64]

_MISPLACED = (0.3, 0.75)
"""IoU with the object of a box that is on it, but in the wrong place."""
_MOST = 2000
_TIMES = 4
_ROUNDS = 200
_LEAST_WEIGHT = 0.05
_LEAST_SHARE = 0.005
_USUAL = (0.8, 0.1, 0.1)


def with_chances(judge: BoxJudge, judged: pd.DataFrame, boxes: Doubles) -> pd.DataFrame:
    """Add the chances that each box is misplaced or on nothing, and its expected IoU.

    The boxes that the judge learnt from are taken for right, copies of them that are moved for misplaced, and
    boxes at random places for spurious. A multinomial regression tells the three apart, and the shares of the
    kinds among the real boxes are those under which its answers are most likely.

    Args:
        judge: what was learnt.
        judged: (n,) what it says of the labeled boxes.
        boxes: (n, 4) those boxes, in pixels.

    Returns:
        `judged` with the columns ``misplaced`` and ``spurious``, chances in [0, 1], and ``iou``, the expected
        IoU of the box with its object.

    Reference:
        Saerens et al., "Adjusting the Outputs of a Classifier to New a Priori Probabilities: A Simple
        Procedure", Neural Computation 14, 2002, for the shares.
    """
    from sklearn.linear_model import LogisticRegression

    fine = judged["fit"].notna().to_numpy()
    real = _evidence(judged[fine], boxes[fine])
    moved, overlap, elsewhere = _planted(judge)
    rows = np.random.default_rng(0).permutation(len(real))[:_MOST]
    values = np.concatenate([real[rows], moved, elsewhere])
    kinds = np.repeat([0, 1, 2], [len(rows), len(moved), len(elsewhere)])
    middle, deviation = values.mean(0), values.std(0) + 1e-6
    weights = np.ones(len(values))
    for last in (False, True):
        # Every kind weighs the same; and a real box that is probably wrong is no example of a right one.
        totals = np.bincount(kinds, weights, 3)
        model = LogisticRegression(C=0.3, max_iter=1000)
        model.fit((values - middle) / deviation, kinds, weights * len(values) / 3 / totals[kinds])
        chances = np.zeros((len(real), 3))
        chances[:, model.classes_] = model.predict_proba((real - middle) / deviation)
        chances = _at_their_shares(chances, given=None if last else _USUAL)
        weights[: len(rows)] = np.maximum(chances[rows, 0], _LEAST_WEIGHT)
    off = _expected(moved, overlap, real)
    table = judged.assign(misplaced=np.nan, spurious=np.nan, iou=np.nan)
    table.loc[fine, "misplaced"] = chances[:, 1]
    table.loc[fine, "spurious"] = chances[:, 2]
    table.loc[fine, "iou"] = chances[:, 0] + chances[:, 1] * off
    return table


def _planted(judge: BoxJudge) -> tuple[Doubles, Doubles, Doubles]:
    """Evidence of misplaced boxes, their IoU with their objects, and evidence of boxes on nothing."""
    import torch

    from dataaudit.signals.crops.judging import iou, moved_boxes, random_boxes

    random = torch.Generator().manual_seed(2)
    given, sizes = judge.given, torch.from_numpy(judge.sizes).float()
    rows = torch.randperm(len(given), generator=random)[:_MOST].repeat(_TIMES)
    moved = moved_boxes(given, rows, random)
    limits = sizes[given.images[rows]]
    moved = torch.maximum(torch.minimum(moved, limits.repeat(1, 2)), torch.zeros(1))
    overlap = iou(moved, given.corners[rows])
    kept = ((overlap > _MISPLACED[0]) & (overlap < _MISPLACED[1])).nonzero()[:, 0][:_MOST]
    images, others = random_boxes(given, sizes, min(2 * len(given), _MOST), random)
    sources = torch.randint(len(given), (len(others),), generator=random)
    names = {number: name for name, number in judge.channels.items()}

    def asked(at: torch.Tensor, boxes: torch.Tensor, of: torch.Tensor, *, known: bool) -> Doubles:
        pictures = at.numpy()
        corners = boxes.numpy().astype(np.float64) / judge.scales[pictures]
        classes = [names.get(int(channel), "") for channel in given.channels[of]]
        labels = judge.labels[of.numpy()] if known else None
        return _evidence(judge.judge(judge.ids[pictures], classes, corners, labels), corners)

    misplaced = asked(given.images[rows[kept]], moved[kept], rows[kept], known=True)
    spurious = asked(images, others, sources, known=False)
    sound = np.isfinite(misplaced).all(1)
    return (
        misplaced[sound],
        overlap[kept].numpy().astype(np.float64)[sound],
        spurious[np.isfinite(spurious).all(1)],
    )


def _evidence(judged: pd.DataFrame, boxes: Doubles) -> Doubles:
    """(n, 12) what tells the kinds apart."""
    fit, there, spread = (judged[name].to_numpy(dtype=np.float64) for name in ("fit", "fit_there", "spread"))
    fit, there = np.clip(fit, 0.01, 0.99), np.clip(there, 0.01, 0.99)
    to = judged[list(CORNERS)].to_numpy(dtype=np.float64)
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 1e-9)
    off = np.abs(to[:, :2] + to[:, 2:] - boxes[:, :2] - boxes[:, 2:]) / (2 * sides)
    stretch = np.abs(np.log(np.maximum(to[:, 2:] - to[:, :2], 1e-9) / sides))
    shared = np.clip(box_iou(boxes, to), 1e-3, 1)
    columns = [
        fit, there, fit - there, np.log(fit), np.log(there), shared, np.log(shared), spread,
        np.minimum(off.max(1), 2), np.minimum(stretch.max(1), 2), there * (there - fit), (1 - shared) * there,
    ]  # fmt: skip
    return np.stack(columns, axis=1)


def _at_their_shares(chances: Doubles, given: tuple[float, ...] | None) -> Doubles:
    """Chances under equal shares of the kinds -> under those given, or those that make them likeliest."""
    if given is not None:
        weighted = chances * np.array(given)
        return np.asarray(weighted / weighted.sum(1, keepdims=True))
    shares = np.full(chances.shape[1], 1 / chances.shape[1])
    found = chances
    for _ in range(_ROUNDS):
        weighted = chances * shares
        found = weighted / np.maximum(weighted.sum(1, keepdims=True), 1e-12)
        renewed = np.maximum(found.mean(0), _LEAST_SHARE)
        renewed /= renewed.sum()
        if np.abs(renewed - shares).max() < 1e-6:
            break
        shares = renewed
    return found


def _expected(moved: Doubles, overlap: Doubles, real: Doubles) -> Any:
    """(n,) IoU that boxes would have with their objects if they were misplaced, by ridge regression."""
    if len(moved) < 2:
        return np.full(len(real), sum(_MISPLACED) / 2)
    middle, deviation = moved.mean(0), moved.std(0) + 1e-6
    scaled = (moved - middle) / deviation
    square = scaled.T @ scaled + 0.01 * len(moved) * np.eye(scaled.shape[1])
    slope = np.linalg.solve(square, scaled.T @ (overlap - overlap.mean()))
    return np.clip((real - middle) / deviation @ slope + overlap.mean(), *_MISPLACED)
