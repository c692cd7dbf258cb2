"""What training and validation show beside each other."""

from __future__ import annotations

import math

import numpy as np

from dataaudit.modelcheck.families import trn_curves as trn
from dataaudit.modelcheck.runs import shapes
from dataaudit.modelcheck.runs.histories import Pair
from dataaudit.modelcheck.runs.signs import FEWEST, MIDDLING, Sight, Sign, settled

__all__ = [
    "overfitting",
    "perfect_validation",
    "stopped_early",
    "underfitting",
    "validation_better",
    "validation_collapsed",
]


def _shares(metric: Pair | None) -> tuple[float, float] | None:
    """Last level of a metric in training and in validation, as shares of its maximum."""
    if metric is None or not len(metric.train[1]) or not len(metric.val[1]):
        return None
    train, val = (side[np.isfinite(side)] for side in (metric.train[1], metric.val[1]))
    if not len(train) or not len(val) or min(train.min(), val.min()) < 0:
        return None
    top = 100.0 if max(train.max(), val.max()) > 1.5 else 1.0
    if max(train.max(), val.max()) > top:
        return None
    return float(np.median(train[-3:]) / top), float(np.median(val[-3:]) / top)


def overfitting(see: Sight) -> Sign | None:
    """Validation gets worse while training gets better, or stays far behind what is known by heart."""
    return _rising(see) or _behind(see)


def _rising(see: Sight) -> Sign | None:
    y, n = see.val, len(see.val)
    if n < FEWEST or len(see.train) < 4:
        return None
    low = shapes.lowest(y)
    start, _ = shapes.ends(y)
    level = float(shapes.smooth(y)[low])
    rise, error = shapes.rises(y, low)
    fell = max(start - level, 0.0)
    if n - low < 4 or rise < 4 * error or rise < max(0.1 * fell, 0.05 * abs(level)):
        return None
    tau, p = shapes.trend(y[low:])
    # Where it jumps up and stays there is no trend
    if (tau <= 0 or p > 0.02) and (rise < 10 * error or rise < 0.3 * fell):
        return None
    at = float(see.at_val[low])
    later = see.train[see.at_train >= at]
    if len(later) >= 4 and float(np.median(later[-3:]) - np.median(later[:3])) > 2 * shapes.noise(see.train):
        return None  # training grows as well: that is no overfitting
    name = see.pair.names[1] or see.pair.quantity
    metric = see.metric.val[1] if see.metric is not None else np.empty(0)
    metric = metric[np.isfinite(metric)]
    calm = len(metric) == n and float(np.median(metric[-3:])) >= float(
        np.median(metric[max(0, low - 1) : low + 2])
    )
    what = f"{name} is best at {see.when(at)} ({see.value(level):.4g}) and {see.rises} to "
    what += f"{see.value(level + rise):.4g}, while training gets better."
    shares = _shares(see.metric)
    if shares is not None and see.metric is not None and shares[0] - shares[1] > 0.15:
        calm = False
        what += f" {see.metric.names[0]} is {shares[0]:.1%}, {see.metric.names[1]} {shares[1]:.1%}."
    if calm and see.metric is not None:
        what += f" {see.metric.names[1]} doesn't fall with it: the model becomes too sure rather than wrong."
    return Sign(
        rule=trn.OVERFITTING, curve=name, what=what, at=(at,), score=0.3 if calm else 0.1,
        advice=f"Keep the weights of {see.when(at)} (early stopping); add data, augmentation or weight decay"
        + (", or smooth the labels." if calm else "."),
        figures={"best": at, "lowest": level, "rise": rise, "standard_error": error, "p_trend": p},
    )  # fmt: skip


def _behind(see: Sight) -> Sign | None:
    shares = _shares(see.metric)
    if shares is None or see.metric is None or len(see.metric.val[1]) < FEWEST:
        return None
    train, val = shares
    values = see.metric.val[1][np.isfinite(see.metric.val[1])]
    late = values[len(values) // 2 :]
    growing = shapes.trend(late)[0] > 0 and shapes.trend(late)[1] < 0.05
    if train < 0.95 or train - val < 0.15 or growing:
        return None
    name = see.metric.names[1] or see.metric.quantity
    return Sign(
        rule=trn.OVERFITTING, curve=name, score=0.2,
        what=f"{see.metric.names[0]} is {train:.1%} and {name} {val:.1%}, and the latter doesn't get better: "
        "the training data is known by heart.",
        advice="Add data or augmentation, weight decay, dropout, or take a smaller or pretrained model.",
        figures={"train": train, "validation": val, "gap": train - val},
    )  # fmt: skip


def _last(metric: Pair | None) -> float:
    """Last level of a metric, of training where it has both, as a share of its maximum; 0 for none."""
    if metric is None:
        return 0.0
    values = metric.train[1] if len(metric.train[1]) else metric.val[1]
    values = values[np.isfinite(values)]
    if not len(values):
        return 0.0
    return float(np.median(values[-3:]) / (100.0 if values.max() > 1.5 else 1.0))


def validation_collapsed(see: Sight) -> Sign | None:
    """The validation metric falls back towards guessing while the training metric doesn't."""
    shares, metric = _shares(see.metric), see.metric
    if shares is None or metric is None or min(len(metric.val[1]), len(metric.train[1])) < FEWEST:
        return None
    at, y = metric.val
    train = metric.train[1][np.isfinite(metric.train[1])]
    best = int(np.nanargmax(shapes.smooth(np.nan_to_num(y), 3)))
    level, end = float(y[best]), float(np.nanmedian(y[-3:]))
    start = float(min(np.nanmin(y), train.min()))
    lost, gained = level - end, level - start
    top = 100.0 if max(np.nanmax(y), train.max()) > 1.5 else 1.0
    kept = float(np.median(train[-3:])) >= float(shapes.smooth(train, 3).max()) - 0.05 * top
    late = np.flatnonzero(y[best:] < level - 0.5 * gained)
    if not kept or gained < 0.1 * top or lost < 0.5 * gained or len(late) < 3:
        return None
    where = float(at[best + int(late[0])])
    name = metric.names[1] or metric.quantity
    return Sign(
        rule=trn.VALIDATION_COLLAPSED, curve=name, score=0.08, at=(where,),
        what=f"{name} falls from {level / top:.1%} at {metric.unit} {at[best]:,.0f} to {end / top:.1%}, "
        f"while {metric.names[0]} is {shares[0]:.1%}: it is back near guessing from {metric.unit} "
        f"{where:,.0f} on.",
        advice="Training and validation don't see the same: compare their transforms, call model.eval() in "
        "validation, and look at batch norm's running statistics: dataaudit model determinism.",
        figures={"best": level, "end": end, "from": where, "train": shares[0]},
    )  # fmt: skip


def underfitting(see: Sight) -> Sign | None:
    """Both have come to rest at a high level."""
    y = see.train
    if len(y) < MIDDLING or len(see.val) < FEWEST or see.top is not None:
        return None
    if min(y.min(), see.val.min()) <= 0:
        return None
    shares = _shares(see.metric)
    if (shares[0] if shares is not None else _last(see.metric)) > 0.7:
        return None
    start, end = shapes.ends(y)
    fell, sigma = start - end, shapes.noise(y)
    if shares is not None:  # a first epoch may lie far above guessing
        start = min(start, float(y[1]))
    poor = start - end < 0.4 * start or (shares is not None and max(shares) < 0.4)
    rests = settled(y, fell) or shapes.drop_left(y)[0] < 0.01 * end
    if fell < max(0.02 * start, 3 * sigma) or not poor or not rests:
        return None
    last = float(np.median(see.val[-3:]))
    if last > end * 1.1 + 2 * shapes.noise(see.val):
        return None
    name = see.pair.names[0] or see.pair.quantity
    return Sign(
        rule=trn.UNDERFITTING, curve=name, score=0.35,
        what=f"{name} came to rest at {end:.4g}, {end / start:.0%} of its start, and validation is no worse "
        f"({last:.4g})." + ("" if shares is None or see.metric is None else
                            f" {see.metric.names[0]} is {shares[0]:.1%}."),
        advice="Use a larger model or a higher learning rate, less regularisation and augmentation; "
        "and look at the labels with dataaudit audit.",
        figures={"start": start, "end": end, "validation": last},
    )  # fmt: skip


def stopped_early(see: Sight) -> Sign | None:
    """The run ends while the loss still falls."""
    of_val = len(see.val) >= FEWEST
    y, name = (see.val, see.pair.names[1]) if of_val else (see.train, see.pair.names[0])
    if len(y) < FEWEST or _last(see.metric) >= 0.99 or _decayed(see):
        return None
    start, end = shapes.ends(y)
    fell = start - float(shapes.smooth(y).min())
    last, gain = shapes.drop_left(y)
    sigma = shapes.noise(y)
    if fell <= 0.05 * abs(start) or fell < 4 * sigma:
        return None
    quarter = y[-max(6, len(y) // 4) :]
    tau, p = shapes.trend(quarter)
    error = 1.2533 * sigma * math.sqrt(6 / len(quarter))
    if tau >= 0 or p > 0.05 or last < 0.08 * fell or last < 4 * error or gain < 0.05 * fell:
        return None
    if y.min() >= 0 and end < 0.05 * start:
        return None
    return Sign(
        rule=trn.STOPPED_EARLY, curve=name or see.pair.quantity, score=0.4,
        at=(float(see.at_train[-1]),) if len(see.at_train) else (),
        what=f"{name} still {see.falls} at the end: by {last:.4g} over the last quarter, {last / fell:.0%} "
        f"of all that it gained. As many {see.pair.unit}s again may bring about {gain:.2g} more.",
        advice="Train longer, or with a higher learning rate.",
        figures={"fell": fell, "fell_in_last_quarter": last, "extrapolated_gain": gain, "p_trend": p},
    )  # fmt: skip


def _decayed(see: Sight) -> bool:
    """Whether the rate came down to a twentieth of its highest: then the run ended as planned."""
    return (
        see.rate is not None
        and len(see.rate.y) > 3
        and float(see.rate.y[-1]) <= 0.05 * float(see.rate.y.max())
    )


def validation_better(see: Sight) -> Sign | None:
    """Validation lies far below training, also where training is taken half an epoch later."""
    if len(see.val) < FEWEST or len(see.train) < FEWEST or min(see.val.min(), see.train.min()) <= 0:
        return None
    train = np.interp(see.at_val, see.at_train, see.train)
    later = np.append((train[1:] + train[:-1]) / 2, train[-1])
    half = len(train) // 2
    ratio = see.val / np.minimum(train, later)
    late, below = float(np.median(ratio[half:])), float((ratio[half:] < 0.9).mean())
    scale = max(see.val.max(), train.max())
    shares, early = _shares(see.metric), float(np.median(ratio[:3]))
    # Where training is poor too and the answers are better, a smaller gap tells
    held_back = shares is not None and shares[0] < 0.7 and 1 - shares[1] < 0.85 * (1 - shares[0])
    if late > (0.85 if held_back else 0.75) or below < (0.75 if held_back else 0.9):
        return None
    if float(np.median(train[half:])) < 0.02 * scale:
        return None
    alike = shares is not None and 1 - shares[1] >= 0.75 * (1 - shares[0]) and not held_back
    steady = early < 0.75 and late < 0.6 and abs(late / early - 1) < 0.15
    if alike and not steady:
        return None  # the answers are no better: a term that is part of the training loss alone
    name = see.pair.names[1] or see.pair.quantity
    fits = ["dropout or augmentation, which act in training only"]
    if alike:
        fits = [
            "a sum, weighting or scale that makes the two losses unlike: their ratio is the same all along, "
            "and the metric is no better in validation"
        ]
    elif early < 0.75:
        fits.append(
            "a validation set that is easier, or that leaks from training: the gap is there from the start"
        )
    else:
        fits.append("a sum or weighting that makes the two losses unlike")
    return Sign(
        rule=trn.VALIDATION_BETTER, curve=name, score=0.45,
        what=f"{name} is {late:.0%} of the training loss over the second half. "
        f"What fits: {'; or '.join(fits)}. That training is averaged over the epoch doesn't explain it.",
        advice="Measure the training set in eval mode with the same loss; if the gap stays, look for "
        "leakage: dataaudit audit --select SPL,DUP.",
        figures={"ratio": late, "ratio_at_start": early, "explanations": fits},
    )  # fmt: skip


def perfect_validation(see: Sight) -> Sign | None:
    """Validation is perfect while training isn't."""
    return _perfect_metric(see) or _tiny_loss(see)


def _perfect_metric(see: Sight) -> Sign | None:
    metric = see.metric
    if metric is None or len(metric.val[1]) < 3:
        return None
    at, y = metric.val
    top = 100.0 if np.nanmax(y) > 1.5 else 1.0
    perfect = y >= 0.9995 * top
    both = np.flatnonzero(perfect[1:] & perfect[:-1])
    if not len(both) or not len(metric.train[1]) or perfect[both[0] :].mean() < 0.8:
        return None
    first = int(both[0])
    training = float(np.interp(at[first], metric.train[0], metric.train[1]) / top)
    late = float(np.nanmedian(metric.train[1][-3:]) / top)
    if training > 0.97 or (late > 0.99 and first > 0.2 * len(y)):
        return None
    name = metric.names[1] or metric.quantity
    return Sign(
        rule=trn.PERFECT_VALIDATION, curve=name, score=0.1, at=(float(at[first]),),
        what=f"{name} is perfect from {metric.unit} {at[first]:,.0f} on, while {metric.names[0]} "
        f"is {training:.1%}.",
        advice="Look for validation samples in training, for the target among the inputs, and whether "
        "validation has one class only: dataaudit audit --select SPL,DUP.",
        figures={"from": float(at[first]), "train": training},
    )  # fmt: skip


def _tiny_loss(see: Sight) -> Sign | None:
    if len(see.val) < FEWEST or len(see.train) < FEWEST or min(see.val.min(), see.train.min()) < 0:
        return None
    train = np.interp(see.at_val, see.at_train, see.train)
    half = len(train) // 2
    ratio = see.val / np.maximum(train, 1e-12)
    if float(np.median(ratio[half:])) > 0.1 or float(np.median(train[half:])) < 0.05 * float(train.max()):
        return None
    name = see.pair.names[1] or see.pair.quantity
    return Sign(
        rule=trn.PERFECT_VALIDATION, curve=name, score=0.15,
        what=f"{name} is {np.median(ratio[half:]):.1%} of the training loss over the second half.",
        advice="Look for validation samples in training and for the target among the inputs; and whether "
        "both losses are computed alike: dataaudit audit --select SPL,DUP.",
        figures={"ratio": float(np.median(ratio[half:]))},
    )  # fmt: skip
