"""What a regression on the reference's features and labels says about images that it wasn't fitted to."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from dataaudit.errors import Unavailable

__all__ = ["probed"]

_FOLDS = 5
_PENALTY = 0.1


def probed(
    points: np.ndarray[Any, np.dtype[np.float32]],
    labels: pd.Series[str],
    pictures: np.ndarray[Any, np.dtype[np.int64]],
) -> pd.DataFrame:
    """Predicted class of every image by a ridge regression that saw neither it nor its near-duplicates.

    Each image of production is judged by one of the regressions that judge the reference's held-out images,
    so that both sides are treated alike.

    Args:
        points: (n, r) principal components, the reference's images first.
        labels: (m,) classes of the m images of the reference, None where there is none.
        pictures: (n,) images with equal numbers show the same picture.

    Returns:
        (n,) columns ``name`` and ``confidence``: how far the best class is above the second, in [0, 1].

    Raises:
        Unavailable: fewer than two classes.
    """
    names = sorted(set(labels.dropna()))
    if len(names) < 2:
        raise Unavailable(f"the reference has labels of {len(names)} class{'es' * (not names)}")
    n = len(labels)
    target = pd.Index(names).get_indexer(pd.Index(labels.fillna("\0")))
    one_hot = np.zeros((n, len(names)), dtype=np.float32)
    known = np.flatnonzero(target >= 0)
    one_hot[known, target[known]] = 1
    order = np.random.default_rng(0).permutation(int(pictures.max(initial=-1)) + 1)
    fold = order[pictures] % _FOLDS
    ridge = _PENALTY * n * float((points**2).mean()) + 1e-9
    scores = np.zeros((len(points), len(names)), dtype=np.float32)
    for number in range(_FOLDS):
        rest = known[fold[:n][known] != number]
        held = fold == number
        if not len(rest) or not held.any():
            continue
        mean = one_hot[rest].mean(0)
        gram = (points[rest].T @ points[rest]).astype(np.float64) + ridge * np.eye(points.shape[1])
        slopes = np.linalg.solve(gram, (points[rest].T @ (one_hot[rest] - mean)).astype(np.float64))
        scores[held] = points[held] @ slopes.astype(np.float32) + mean
    best = np.partition(scores, -2, axis=1)[:, -2:]
    return pd.DataFrame(
        {
            "name": np.array(names, dtype=object)[scores.argmax(1)],
            "confidence": np.clip(best[:, 1] - best[:, 0], 0, 1).astype(np.float64),
        }
    )
