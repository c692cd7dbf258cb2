"""The curves of a run, and what their names say: loss or metric, of training or validation."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

import numpy as np

from dataaudit.errors import InputError, nearest

__all__ = ["Curve", "History", "Pair", "pairs_of", "rate_of", "said_by"]

Array: TypeAlias = "np.ndarray[Any, np.dtype[np.float64]]"
Better = Literal["lower", "higher"]

_TRAIN = {"train", "training", "trn", "tr"}
_VALIDATION = {"val", "valid", "validation", "eval", "evaluation", "dev", "holdout"}
_TEST = {"test", "testing"}
_LOSSES = {"loss", "losses", "nll", "perplexity", "cost", "objective", "elbo"}
_ERRORS = {"error", "err", "mse", "mae", "rmse", "wer", "cer", "logloss", "brier"}
_METRICS = {
    "accuracy", "acc", "f1", "map", "map50", "map5095", "ap", "auc", "auroc", "auprc", "iou", "miou", "dice",
    "precision", "recall", "top1", "top5", "psnr", "ssim", "r2", "bleu", "kappa", "mcc", "score",
}  # fmt: skip
_PASSING = {"epoch", "step", "metrics", "metric", "avg", "mean", "b", "m"}
_MOST_TRAIN = 120
"""Points of a training curve after averaging, where nothing else says how many."""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One logged value over a run.

    Attributes:
        name: as it was logged.
        x: (n,) steps, ascending; epochs where no steps were logged.
        y: (n,) values; NaN and infinity stay.
        epoch: (n,) epoch of each point, or None where it wasn't logged.
        note: what was done to bring its points into order; mostly empty.
    """

    name: str
    x: Array
    y: Array
    epoch: Array | None = None
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class History:
    """All curves of one run, by name; `notes` say where its steps didn't only grow."""

    name: str
    curves: Mapping[str, Curve] = field(default_factory=dict)
    source: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Pair:
    """The same value in training and in validation, on one axis.

    Attributes:
        quantity: such as ``loss``.
        better: which direction is better.
        unit: of the axis, ``epoch`` or ``step``.
        train: (n,) positions and values of training, averaged; empty where it wasn't logged.
        val: the same of validation, as logged.
        raw: the training curve as it was logged, or None.
        names: of the curves, training first.
    """

    quantity: str
    better: Better
    unit: str
    train: tuple[Array, Array]
    val: tuple[Array, Array]
    raw: Curve | None = None
    names: tuple[str | None, str | None] = (None, None)

    @property
    def title(self) -> str:
        """The names of its curves."""
        return " and ".join(name for name in self.names if name)


def said_by(name: str) -> tuple[str | None, str, Better | None]:
    """What the name of a curve says.

    Returns:
        Its split (``train``, ``val``, ``test`` or None), the quantity, and which direction is better (None
        where the name doesn't say).

    >>> said_by("Loss/train"), said_by("val_mAP50"), said_by("lr-Adam")
    (('train', 'loss', 'lower'), ('val', 'map50', 'higher'), (None, 'lr adam', None))
    """
    words = re.sub(r"([a-z0-9])([A-Z][a-z])", r"\1 \2", re.sub(r"\(.*?\)", "", name)).lower()
    tokens = [token for token in re.split(r"[^a-z0-9]+", words) if token]
    split = None
    for known, label in ((_TRAIN, "train"), (_VALIDATION, "val"), (_TEST, "test")):
        if split is None and any(token in known for token in tokens):
            split = label
    kept = [t for t in tokens if t not in _TRAIN | _VALIDATION | _TEST | _PASSING]
    kept = [{"acc": "accuracy", "losses": "loss"}.get(token, token) for token in dict.fromkeys(kept)]
    better: Better | None = None
    if any(token in _LOSSES | _ERRORS or token.endswith("loss") for token in kept):
        better = "lower"
    elif any(token in _METRICS for token in kept):
        better = "higher"
    return split, " ".join(kept), better


def rate_of(history: History) -> Curve | None:
    """The learning rate, where it was logged; of several groups the first that changes."""
    found = [
        curve
        for name, curve in history.curves.items()
        if re.search(r"(^|[^a-z])(lr|learning[ _-]?rate)([^a-z]|$)", name.lower()) and len(curve.y)
    ]
    found.sort(key=lambda curve: -len(set(curve.y.tolist())))
    return found[0] if found else None


def pairs_of(history: History, asked: Sequence[str] = ()) -> list[Pair]:
    """Losses, then metrics, of training and validation.

    Args:
        history: the curves of a run.
        asked: ``TRAIN,VALIDATION`` or ``TRAIN,VALIDATION,lower`` (or ``higher``), names of curves; either
            may be left empty. Empty: found by name.

    Raises:
        InputError: a name that the run doesn't have, or a direction that is neither.
    """
    if asked:
        return [_asked(history, text) for text in asked]
    groups: dict[tuple[str, Better], dict[str | None, list[Curve]]] = {}
    for name, curve in history.curves.items():
        split, quantity, better = said_by(name)
        if better is not None and len(curve.y):
            groups.setdefault((quantity, better), {}).setdefault(split, []).append(curve)
    found = [_paired(quantity, better, splits) for (quantity, better), splits in groups.items()]
    return sorted(found, key=_rank)


def _rank(pair: Pair) -> tuple[bool, bool, bool, str]:
    whole = bool(len(pair.train[1]) and len(pair.val[1]))
    return pair.better != "lower", pair.quantity != "loss", not whole, pair.quantity


def _paired(quantity: str, better: Better, splits: Mapping[str | None, Sequence[Curve]]) -> Pair:
    def best(names: Iterable[str | None]) -> Curve | None:
        for name in names:
            if name in splits:
                # Of what is logged each step and each epoch, the epochs' means
                return min(splits[name], key=lambda curve: ("step" in curve.name.lower(), len(curve.y)))
        return None

    train, val = best(("train", None)), best(("val", "test"))
    raw = None if train is None else max(splits.get("train", splits.get(None, ())), key=lambda c: len(c.y))
    return _aligned(quantity, better, train, val, raw)


def _asked(history: History, text: str) -> Pair:
    parts = [part.strip() for part in text.split(",")]
    if len(parts) > 3 or not any(parts[:2]):
        raise InputError(f"The pair is {text!r}; expected TRAIN,VALIDATION or TRAIN,VALIDATION,lower.")
    for name in parts[:2]:
        if name and name not in history.curves:
            raise InputError(f"{history.name} has no curve {name!r}.", fix=nearest(name, history.curves))
    train, val = (history.curves[name] if name else None for name in (*parts[:2], "")[:2])
    _, quantity, better = said_by(parts[0] or parts[1])
    if len(parts) == 3:
        if parts[2] not in ("lower", "higher"):
            raise InputError(f"The direction is {parts[2]!r}; expected lower or higher.")
        better = "lower" if parts[2] == "lower" else "higher"
    if better is None:
        raise InputError(
            f"{text!r} doesn't say whether lower or higher is better.", fix=f"Write {text.rstrip(',')},lower."
        )
    return _aligned(quantity, better, train, val, train)


def _aligned(
    quantity: str, better: Better, train: Curve | None, val: Curve | None, raw: Curve | None
) -> Pair:
    """Both on the axis of epochs where they are known, and training averaged to about as many points."""
    nothing = (np.empty(0), np.empty(0))
    sides = [curve for curve in (train, val) if curve is not None]
    by_epoch = all(one.epoch is not None for one in sides) and all(
        len(np.unique(one.epoch)) >= 4 for one in sides if one.epoch is not None
    )
    if by_epoch:
        sides = [replace(one, x=one.epoch) for one in sides if one.epoch is not None]
    it = iter(sides)
    train = next(it) if train is not None else None
    val = next(it) if val is not None else None
    if train is not None and val is not None and not by_epoch:
        val = _rescaled(train, val)
    return Pair(
        quantity=quantity, better=better, unit="epoch" if by_epoch else "step",
        train=nothing if train is None else _binned(train, val),
        val=nothing if val is None else _mean_at(val),
        raw=raw, names=(None if train is None else train.name, None if val is None else val.name),
    )  # fmt: skip


def _rescaled(train: Curve, val: Curve) -> Curve:
    """Validation counted in epochs while training is counted in steps: brought to steps."""
    n = len(val.x)
    counted = n >= 3 and np.array_equal(np.diff(val.x), np.ones(n - 1)) and val.x[0] <= 1
    if counted and len(train.x) >= 3 * n and train.x[-1] >= 3 * val.x[-1]:
        return replace(val, x=(np.arange(n) + 1.0) / n * train.x[-1])
    return val


def _mean_at(curve: Curve) -> tuple[Array, Array]:
    """One value at each position: the mean of what was logged there."""
    at, inverse = np.unique(curve.x, return_inverse=True)
    return at, np.bincount(inverse, weights=curve.y) / np.bincount(inverse)


def _binned(train: Curve, val: Curve | None) -> tuple[Array, Array]:
    x, y = _mean_at(train)
    if val is not None and len(np.unique(val.x)) >= 6 and len(x) >= 2 * len(np.unique(val.x)):
        edges = np.unique(val.x)
        place = np.minimum(np.searchsorted(edges, x), len(edges) - 1)
        where = edges
    elif len(x) > 2 * _MOST_TRAIN:
        place = np.arange(len(x)) * _MOST_TRAIN // len(x)
        where = np.bincount(place, weights=x) / np.bincount(place)
    else:
        return x, y
    n = np.bincount(place, minlength=len(where))
    with np.errstate(invalid="ignore"):
        means = np.bincount(place, weights=y, minlength=len(where)) / n
    return where[n > 0], means[n > 0]
