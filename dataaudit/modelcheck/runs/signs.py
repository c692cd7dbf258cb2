"""What the curve of a training loss shows by itself, and with the learning rate beside it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from dataaudit.modelcheck.families import trn_curves as trn
from dataaudit.modelcheck.runs import shapes
from dataaudit.modelcheck.runs.histories import Curve, Pair
from dataaudit.registry import Rule

__all__ = [
    "FEWEST",
    "Sight",
    "Sign",
    "diverging",
    "flat",
    "nonfinite",
    "oscillating",
    "plateau",
    "rate_effect",
    "settled",
    "spikes",
    "zero_loss",
]  # fmt: skip

Array: TypeAlias = "np.ndarray[Any, np.dtype[np.float64]]"
FEWEST = 8
"""Points below which a curve has no shape; what is NaN or zero is said of any."""
MIDDLING = 10
"""Points that a swing, a plateau and a rest take to be seen."""


@dataclass(frozen=True, kw_only=True)
class Sign:
    """What a detector saw.

    Attributes:
        rule: the defect.
        curve: name of the curve that shows it.
        what: the sentence with the figures.
        advice: what to change.
        at: positions on the axis that the plot marks.
        figures: evidence.
        score: 0 surely wrong.
    """

    rule: Rule
    curve: str
    what: str
    advice: str
    at: tuple[float, ...] = ()
    figures: Mapping[str, Any] = field(default_factory=dict)
    score: float = 0.1


@dataclass(frozen=True, kw_only=True)
class Sight:
    """What a detector looks at.

    Attributes:
        pair: the loss, or the metric turned into a cost.
        train: (n,) finite costs of training, and `at_train` their positions.
        val: the same of validation.
        metric: the same run's accuracy or its like; None where it wasn't logged.
        rate: the learning rate, on the same axis; None where it wasn't logged.
        top: what a metric was subtracted from to become a cost; None for a loss.
    """

    pair: Pair
    train: Array
    at_train: Array
    val: Array
    at_val: Array
    metric: Pair | None = None
    rate: Curve | None = None
    top: float | None = None

    @property
    def falls(self) -> str:
        """What a curve does that gets better, in a word."""
        return "falls" if self.top is None else "rises"

    @property
    def rises(self) -> str:
        """What a curve does that gets worse, in a word."""
        return "rises" if self.top is None else "falls"

    def value(self, cost: float) -> float:
        """A cost as it was logged."""
        return cost if self.top is None else self.top - cost

    @property
    def fell(self) -> float:
        """How far the training cost fell, from its start to its lowest level; at least 0."""
        if len(self.train) < 3:
            return 0.0
        return max(0.0, shapes.ends(self.train)[0] - float(shapes.smooth(self.train).min()))

    def when(self, x: float) -> str:
        """A position in words."""
        return f"{self.pair.unit} {x:,.0f}"


def nonfinite(name: str, curve: Curve, unit: str) -> Sign | None:
    """NaN or infinity anywhere in a curve."""
    bad = ~np.isfinite(curve.y)
    if not bad.any():
        return None
    first = int(np.flatnonzero(bad)[0])
    at = curve.epoch if unit == "epoch" and curve.epoch is not None else curve.x
    kind = "NaN" if np.isnan(curve.y[first]) else "infinite"
    before = curve.y[:first][-5:]
    what = f"{name} is {kind} at {unit} {at[first]:,.0f}, and at {bad.sum():,} of {len(bad):,} points."
    grew = len(before) >= 2 and before[-1] > 2 * np.median(curve.y[:first])
    if not first:
        what += " It is so from the first value on."
        advice = "Look at inputs and loss: dataaudit model loss, dataaudit model trace."
    elif grew:
        what += f" It had grown before: {', '.join(f'{value:.4g}' for value in before)}."
        advice = "Lower the learning rate, warm up, or clip the gradients; dataaudit model lr finds a rate."
    else:
        what += f" The values before were usual: {', '.join(f'{value:.4g}' for value in before)}."
        advice = (
            "Look for a division, logarithm or root in the loss, or a broken sample: "
            "dataaudit model gradients names the operation."
        )
    return Sign(
        rule=trn.NONFINITE_CURVE, curve=name, what=what, advice=advice, at=(float(at[first]),), score=0.0,
        figures={"first": float(at[first]), "points": int(bad.sum()), "before": before.tolist()},
    )  # fmt: skip


def zero_loss(name: str, curve: Curve, unit: str) -> Sign | None:
    """A loss that is exactly zero and wasn't small before."""
    y = curve.y
    zero = y == 0
    runs = np.flatnonzero(zero[2:] & zero[1:-1] & zero[:-2]) if len(y) >= 3 else np.empty(0, dtype=int)
    if not len(runs):
        return None
    first = int(runs[0])
    before = y[:first][np.isfinite(y[:first])]
    if len(before) and abs(before[-1]) < 0.05 * np.abs(before).max():
        return None
    at = curve.epoch if unit == "epoch" and curve.epoch is not None else curve.x
    since = (
        "from the start" if not len(before) else f"from {unit} {at[first]:,.0f} on, after {before[-1]:.4g}"
    )
    return Sign(
        rule=trn.ZERO_LOSS, curve=name, score=0.0,
        what=f"{name} is exactly 0 {since}.", at=(float(at[first]),),
        advice="Look at what the loss is given (dataaudit model loss): all targets ignored, one class only, "
        "a softmax over one output, a mask of zeros.",
        figures={"first": float(at[first]), "zeros": int(zero.sum()), "points": len(y)},
    )  # fmt: skip


def diverging(see: Sight) -> Sign | None:
    """The training loss ends far above its lowest level."""
    y = see.train
    if len(y) < FEWEST:
        return None
    smooth = shapes.smooth(y)
    low = int(np.argmin(smooth[:-1]))
    start, end = shapes.ends(y)
    rise = end - float(smooth[low])
    fell = max(start - float(smooth[low]), 0.0)
    sigma = max(shapes.noise(y[: low + 3]), shapes.noise(y[: max(FEWEST, len(y) // 2)]))
    grown = rise > 0.5 * fell and rise > 0.2 * abs(float(smooth[low])) and rise > 6 * sigma
    _, p = shapes.trend(y[low:]) if len(y) - low >= 4 else (0.0, 0.0)
    if not grown or (p > 0.05 and rise < 3 * max(fell, abs(start))):
        return None
    at = float(see.at_train[low])
    name = see.pair.names[0] or see.pair.quantity
    return Sign(
        rule=trn.DIVERGING_CURVE, curve=name, score=0.02, at=(at,),
        what=f"{name} {see.rises} from {see.value(float(smooth[low])):.4g} at {see.when(at)} to "
        f"{see.value(end):.4g} at the end ({see.value(start):.4g} at the start).",
        advice=f"Lower the learning rate 3 to 10 times, warm up, or clip the gradients; look at what changed "
        f"at {see.when(at)}.",
        figures={"start": start, "lowest": float(smooth[low]), "end": end, "from": at, "noise": sigma},
    )  # fmt: skip


def flat(see: Sight) -> Sign | None:
    """The training loss stays where it began."""
    y = see.train
    if len(y) < FEWEST or _good(see.metric, 0.9) or _learns(see.metric):
        return None
    start, end = shapes.ends(y)
    _, p = shapes.trend(y)
    sigma = shapes.noise(y)
    if not _still(see, end - start):
        return None
    name = see.pair.names[0] or see.pair.quantity
    guess = next((k for k in (2, 3, 4, 5, 8, 10, 20, 50, 100, 200, 365, 1000, 21843)
                  if abs(math.log(k) - np.median(y)) < 0.01 * math.log(k)), None)  # fmt: skip
    said = "" if guess is None or see.pair.better != "lower" else (
        f" That is ln {guess}, the loss of guessing among {guess} classes."
    )  # fmt: skip
    return Sign(
        rule=trn.FLAT_CURVE, curve=name, score=0.05,
        what=f"{name} stays at {see.value(float(np.median(y))):.4g} from the start to the end (first "
        f"{see.value(start):.4g}, last {see.value(end):.4g}, {len(y)} points).{said}",
        advice="Look whether it can learn one batch, and why not: dataaudit model overfit.",
        figures={"start": start, "end": end, "p_trend": p, "noise": sigma, "classes": guess},
    )  # fmt: skip


def _still(see: Sight, change: float) -> bool:
    """Whether nothing was gained: hardly anything, nothing beyond the noise, or nothing for validation."""
    y = see.train
    level = abs(float(np.median(y))) if see.top is None else see.top
    gained = max(shapes.ends(y)[0] - float(shapes.levels(y, 5).min()), abs(change))
    sigma = shapes.noise(y)
    if sigma > 0.5 * level:
        return False
    if gained < 0.01 * level:
        return True
    tau, p = shapes.trend(y)
    if gained <= max(0.02 * level, 1.5 * sigma) and not (p < 0.05 and tau < 0):
        return True
    # Where validation gains nothing, what little training gains is known by heart
    return see.top is None and gained < 0.1 * level and len(see.val) >= FEWEST and not _gains(see.val)


def _learns(metric: Pair | None) -> bool:
    """Whether a metric rises clearly over the run, whatever the noise of the loss hides."""
    if metric is None:
        return False
    for _, values in (metric.train, metric.val):
        y = values[np.isfinite(values)]
        if len(y) < FEWEST:
            continue
        tau, p = shapes.trend(y)
        start, end = shapes.ends(y)
        if tau > 0 and p < 0.02 and end - start > 0.08 * (100.0 if y.max() > 1.5 else 1.0) and _holds(metric):
            return True
    return False


def _holds(metric: Pair) -> bool:
    """Whether validation takes part in what training learns; true where it wasn't logged."""
    y = metric.val[1][np.isfinite(metric.val[1])]
    return len(y) < FEWEST or _gains(-y)


def _gains(y: Array) -> bool:
    """Whether a curve of validation gets better by more than its noise."""
    start, _ = shapes.ends(y)
    best = float(shapes.smooth(y).min())
    return start - best > max(0.01 * abs(start), 2 * shapes.noise(y))


def oscillating(see: Sight) -> Sign | None:
    """A curve swings by much of what it has fallen."""
    for name, y, at in (
        (see.pair.names[0], see.train, see.at_train),
        (see.pair.names[1], see.val, see.at_val),
    ):
        if name is None or len(y) < MIDDLING:
            continue
        sigma, turns = shapes.turning(y)
        start = shapes.ends(y)[0]
        half = y[len(y) // 2 :]
        level = float(np.median(half))
        fell = max(start - level, 0.0)
        slow = turns < 0.5
        # Slow waves of a schedule that restarts end low: the rate explains them
        wide = sigma > max(0.25 * fell, 0.1 * abs(level)) or sigma > max(0.12 * fell, 0.5 * abs(level))
        few = _samples_of(see.metric) if name == see.pair.names[1] else None
        wide |= few is not None and sigma > max(0.12 * fell, 0.05 * abs(level))
        if not wide or (slow and _restarts(see.rate)):
            continue
        first, second = np.array_split(half, 2)  # means: the median of a swing is one of its ends
        if abs(float(first.mean() - second.mean())) > sigma:
            continue
        alone = name == see.pair.names[1] and len(see.train) >= MIDDLING
        return Sign(
            rule=trn.OSCILLATING_CURVE, curve=name, score=0.15, at=(float(at[len(y) // 2]),),
            what=f"{name} swings by {sigma:.4g} (standard deviation) about {see.value(level):.4g} in the "
            f"second half of the run, having gained {fell:.4g} in all."
            + ("" if few is None else f" Its metric is in steps of 1/{few}: so few samples say little."),
            advice="Use a larger validation set, evaluate an average of the weights, or lower the rate."
            if alone else "Lower the learning rate, let it decay, or enlarge the batch.",
            figures={"deviation": sigma, "level": level, "fell": fell, "turns": turns,
                     **({} if few is None else {"validation_samples": few})},
        )  # fmt: skip
    return None


def _samples_of(metric: Pair | None) -> int | None:
    """The number of validation samples, at most 60, of which every value of an accuracy is a multiple."""
    if metric is None or "accuracy" not in metric.quantity.split():
        return None
    values = np.unique(metric.val[1][np.isfinite(metric.val[1])])
    if len(values) < 4:
        return None
    shares = values / (100.0 if values.max() > 1.5 else 1.0)
    for n in range(2, 61):
        # As rounded to three digits, which logs often are
        if np.abs(shares * n - np.round(shares * n)).max() < min(0.0006 * n, 0.05):
            return n
    return None


def _restarts(rate: Curve | None) -> bool:
    """Whether the rate goes up again in the second half of the run."""
    return rate is not None and bool((np.diff(rate.y[len(rate.y) // 2 :]) > 0).any())


def spikes(see: Sight) -> Sign | None:
    """Single values, or a few in a row, far above their surroundings, after which the loss comes back."""
    raw = see.pair.raw
    y = see.train if raw is None else raw.y[np.isfinite(raw.y)]
    x = see.at_train if raw is None else raw.x[np.isfinite(raw.y)]
    if see.top is not None or len(y) < MIDDLING or y.min() <= 0:
        return None
    middle = shapes.smooth(y, width=max(9, min(41, len(y) // 8 | 1)))
    log = np.log(y / middle)
    sigma = 1.4826 * float(np.median(np.abs(log)))
    # The first values fall steeply, and a median over them lies below
    out = (log > max(math.log(3.0), 10 * sigma)) & (np.arange(len(y)) >= 3)
    count = int(out.sum())
    if not count or count > 0.1 * len(y) or out[-1]:
        return None
    # One hard batch among many is usual
    if len(y) > 200 and count < 3 and not (out[1:] & out[:-1]).any():
        return None
    name = see.pair.names[0] if raw is None else raw.name
    worst = int(np.argmax(np.where(out, log, -np.inf)))
    places = x[out].tolist()
    unit = "step" if raw is not None and raw.x is x else see.pair.unit
    return Sign(
        rule=trn.SPIKES, curve=name or see.pair.quantity, score=0.25, at=tuple(places[:8]),
        what=f"{name} has {count} value{'s' * (count > 1)} far above the others, the highest {y[worst]:.4g} "
        f"at {unit} {x[worst]:,.0f}, where {middle[worst]:.4g} is usual.",
        advice="Clip the gradients, and look at the batches of these steps: broken images, extreme targets.",
        figures={"spikes": places[:20], "highest": float(y[worst]), "usual": float(middle[worst])},
    )  # fmt: skip


def settled(y: Array, fell: float) -> bool:
    """Whether a curve hardly falls any more over its last quarter."""
    last, _ = shapes.drop_left(y)
    return last < 0.04 * fell + 2 * shapes.noise(y) / math.sqrt(max(2, len(y) // 12))


def plateau(see: Sight) -> Sign | None:
    """A long part without progress, and then progress again."""
    y, n = see.train, len(see.train)
    if n < MIDDLING or see.fell <= 0:
        return None
    smooth, sigma = shapes.smooth(y), shapes.noise(y)
    needed = max(see.fell / 3, 4 * sigma)
    found = _longest_still(smooth, max(0.04 * see.fell, sigma), needed)
    if found is None:
        return None
    first, last = found
    after = float(smooth[last]) - float(smooth[last:].min())
    if last - first + 1 < 0.3 * n or n - last < 3:
        return None
    begin, end = float(see.at_train[first]), float(see.at_train[last])
    factor = _rate_change(see, begin, end)
    name = see.pair.names[0] or see.pair.quantity
    cut = factor is not None and factor < 0.7
    early = first <= 0.1 * n
    advice = (
        f"Cut the rate at about {see.when(begin)} already: the cut is what ended it." if cut
        else "Warm up, and look at initialisation and scale of the inputs: dataaudit model lr." if early
        else f"Cut the learning rate at about {see.when(begin)}, or use a schedule that decays."
    )  # fmt: skip
    return Sign(
        rule=trn.PLATEAU, curve=name, score=0.35, at=(begin, end), advice=advice,
        what=f"{name} stands still at {see.value(float(np.median(y[first : last + 1]))):.4g} from "
        f"{see.when(begin)} to {see.when(end)}, {(last - first + 1) / n:.0%} of the run, and {see.falls} by "
        f"{after:.4g} after it.",
        figures={"from": begin, "to": end, "fell_after": after, "rate_factor": factor},
    )  # fmt: skip


def _longest_still(smooth: Array, tolerance: float, needed: float) -> tuple[int, int] | None:
    """First and last point of the longest part within which nothing moves by more than `tolerance`, and
    after which the curve falls by `needed`.
    """
    left = smooth - np.minimum.accumulate(smooth[::-1])[::-1]
    best: tuple[int, int] | None = None
    first = 0
    for last in range(len(smooth)):
        while smooth[first : last + 1].max() - smooth[first : last + 1].min() > tolerance:
            first += 1
        if left[last] >= needed and (best is None or last - first > best[1] - best[0]):
            best = first, last
    return best


def _rate_change(see: Sight, begin: float, end: float) -> float | None:
    """By what factor the rate changed from the middle of a part to just after it."""
    if see.rate is None:
        return None
    width = max(1.0, (see.at_train[-1] - see.at_train[0]) * 0.05)
    x, y = see.rate.x, see.rate.y
    inside, after = y[(x >= begin) & (x <= end - width)], y[(x >= end - width) & (x <= end + 2 * width)]
    if not len(inside) or not len(after) or np.median(inside) <= 0:
        return None
    return float(after[-1] / np.median(inside))


def rate_effect(see: Sight) -> Sign | None:
    """What a change of the learning rate did to the training loss."""
    if see.rate is None or len(see.train) < FEWEST + 4:
        return None
    place = np.clip(np.searchsorted(see.rate.x, see.at_train, side="right") - 1, 0, len(see.rate.y) - 1)
    rate = see.rate.y[place]
    if rate.max() <= 0:
        return None
    zero = rate <= 1e-9 * rate.max()
    name = see.pair.names[0] or see.pair.quantity
    if zero[-3:].all() and zero.mean() >= 0.2:
        at = float(see.at_train[int(np.flatnonzero(~zero)[-1]) + 1])
        return Sign(
            rule=trn.RATE_EFFECT, curve=see.rate.name, score=0.1, at=(at,),
            what=f"The learning rate is zero from {see.when(at)} on, {zero.mean():.0%} of the run.",
            advice="Let the schedule last as long as the run: count its length in what it is stepped by "
            "(epochs or steps).",
            figures={"from": at, "share": float(zero.mean())},
        )  # fmt: skip
    for at in range(4, len(rate) - 4):
        sign = _at_change(see, rate, at, name)
        if sign is not None:
            return sign
    return None


def _at_change(see: Sight, rate: Array, at: int, name: str) -> Sign | None:
    """The first point with a new rate, judged by four points and more on each side."""
    if rate[at - 1] <= 0 or 0.5 < rate[at] / rate[at - 1] < 2:
        return None
    y, where = see.train, float(see.at_train[at])
    sigma, factor = shapes.noise(y), float(rate[at] / rate[at - 1])
    before, after = y[at - 4 : at], y[at : at + 6]
    figures = {"at": where, "rate": [float(rate[at - 1]), float(rate[at])], "before": before.tolist(),
               "after": after.tolist()}  # fmt: skip
    if factor >= 2:
        jump = float(np.median(after) - np.median(before))
        if jump > max(6 * sigma, 0.3 * see.fell) and float(np.median(y[-4:])) > np.median(before) + 3 * sigma:
            return Sign(
                rule=trn.RATE_EFFECT, curve=name, score=0.15, at=(where,), figures=figures,
                what=f"{name} jumps from {see.value(float(np.median(before))):.4g} to "
                f"{see.value(float(np.median(after))):.4g} at "
                f"{see.when(where)}, where the rate goes up {factor:.3g} times, and doesn't come back.",
                advice="Keep the lower rate, or raise it over more steps.",
            )  # fmt: skip
        return None
    return _cut_early(see, at, factor, figures)


def _cut_early(see: Sight, at: int, factor: float, figures: Mapping[str, Any]) -> Sign | None:
    """Compares what the loss fell by after a cut with what it would have at the old pace.

    The pace slows as the inverse of the time, as on a power law: from point `at` to n a curve that fell by s
    a point falls by s * at * ln(n / at).
    """
    y, n = see.train, len(see.train)
    name, where = see.pair.names[0] or see.pair.quantity, float(see.at_train[at])
    before = y[max(1, at - 4) : at]
    pace = -float(np.polyfit(np.arange(len(before)), before, 1)[0])
    expected = pace * at * math.log(n / at)
    fell = float(np.median(before[-2:])) - float(np.median(y[-4:]))
    if pace * 3 < 4 * shapes.noise(y) or expected - fell < 0.35 * see.fell or at > 0.5 * n:
        return None
    return Sign(
        rule=trn.RATE_EFFECT, curve=name, score=0.2, at=(where,),
        figures={**figures, "pace": pace, "expected": expected, "fell": fell},
        what=f"The rate was cut to {factor:.3g} of it at {see.when(where)}, while {name} still fell by "
        f"{pace:.3g} a point: from there it fell by {fell:.3g}, where about {expected:.2g} were to be "
        "expected at the old pace, slowing.",
        advice="Cut the rate later, once the loss stands still, or by less.",
    )  # fmt: skip


def _good(metric: Pair | None, least: float) -> bool:
    """Whether the training metric (validation where there is none) is at least `least` of its maximum."""
    if metric is None:
        return False
    values = metric.train[1] if len(metric.train[1]) else metric.val[1]
    values = values[np.isfinite(values)]
    if not len(values):
        return False
    top = 100.0 if values.max() > 1.5 else 1.0
    return float(np.median(values[-3:])) >= least * top
