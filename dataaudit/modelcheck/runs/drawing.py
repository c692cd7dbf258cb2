"""Plots of the curves that findings are about, with the places that they name."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from dataaudit.modelcheck.runs.histories import Curve, History, Pair, rate_of
from dataaudit.modelcheck.runs.signs import Sign

__all__ = ["MOST_RUNS", "overview", "plot"]

TRAIN, VALIDATION, MARK, QUIET = "#4c72b0", "#dd8452", "#c44e52", "#b8bcc4"
COLORS = ("#4c72b0", "#dd8452", "#55a868", "#8172b3", "#937860", "#da8bc3", "#64b5cd", "#ccb974")
MOST_RUNS = 60
"""Runs that an overview draws at most."""
_MOST_PANELS, _MOST_MARKS = 3, 4
_DECADES = 30.0
"""Ratio of the largest to the middle value from which an axis is a log."""


def plot(history: History, pairs: Sequence[Pair], found: Sequence[Sign]) -> bytes:
    """A PNG with up to three pairs of curves one beside the other, the findings' places marked by their code.

    Below the first lies the learning rate, where it was logged and changes.
    """
    shown = {sign.curve for sign in found}
    panels = sorted(pairs, key=lambda pair: not _names(pair) & shown)[:_MOST_PANELS]
    rate = rate_of(history)
    rate = rate if rate is not None and len(np.unique(rate.y)) > 1 else None
    figure = _figure(5.2 * len(panels) + (0.8 if len(panels) == 1 else 0), 4.2 if rate is not None else 3.4)
    rows = figure.add_gridspec(2, len(panels), height_ratios=(4, 1)) if rate is not None else None
    for at, pair in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), at + 1) if rows is None else figure.add_subplot(rows[0, at])
        _pair(axes, pair)
        # Said of the rate or of a metric that isn't drawn: the first panel has it
        mine = [
            sign
            for sign in found
            if sign.curve in _names(pair) or (not at and not any(sign.curve in _names(one) for one in panels))
        ]
        _marks(axes, pair, mine)
        if rows is not None and rate is not None:
            below = figure.add_subplot(rows[1, at], sharex=axes)
            _rate(below, rate, pair, label=not at)
            axes.tick_params(labelbottom=False)
            axes.set_xlabel("")
    return _png(figure)


def overview(
    histories: Sequence[History], pairs: Sequence[Sequence[Pair]], bad: Sequence[bool]
) -> bytes | None:
    """A PNG with one curve of each run: of validation where it was logged, of the value that most runs have.

    Runs with findings are coloured and named, the others grey. None where fewer than two runs have it.
    """
    counts: dict[str, int] = {}
    for each in pairs:
        for quantity in dict.fromkeys(pair.quantity for pair in each):
            counts[quantity] = counts.get(quantity, 0) + 1
    if not counts:
        return None
    quantity = max(counts, key=lambda name: (counts[name], name == "loss"))
    lines = []
    for history, each, is_bad in zip(histories, pairs, bad, strict=True):
        pair = next((one for one in each if one.quantity == quantity), None)
        if pair is not None:
            lines.append((history.name, pair, is_bad))
    if len(lines) < 2:
        return None
    lines = sorted(lines, key=lambda line: line[2])[-MOST_RUNS:]  # what is coloured lies above
    figure = _figure(9.0, 3.6)
    axes = figure.add_subplot()
    named, drawn = 0, []
    for name, pair, is_bad in lines:
        of_val = np.isfinite(pair.val[1]).any()
        x, y = pair.val if of_val else pair.train
        y = np.where(np.isfinite(y), y, np.nan)
        drawn.append(y)
        label, color = None, QUIET
        if is_bad:
            color = COLORS[named % len(COLORS)]
            label = name if named < len(COLORS) else None
            named += 1
        axes.plot(x, y, color=color, label=label, linewidth=1.4 if is_bad else 0.9)
    _scale(axes, np.concatenate(drawn))
    split = "validation" if len(lines[0][1].val[1]) else "training"
    axes.set_xlabel(lines[0][1].unit)
    axes.set_title(f"{quantity} of {split}, {len(lines)} runs", fontsize=10)
    if named:
        axes.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return _png(figure)


def _names(pair: Pair) -> set[str]:
    return {name for name in (*pair.names, pair.raw.name if pair.raw is not None else None) if name}


def _figure(width: float, height: float) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _png(figure: Any) -> bytes:
    from matplotlib.ticker import MaxNLocator

    for axes in figure.axes:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.spines[["top", "right"]].set_visible(False)
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return stream.getvalue()


def _pair(axes: Any, pair: Pair) -> None:
    raw = pair.raw
    if raw is not None and len(raw.y) > 2 * len(pair.train[1]) and pair.unit == "step":
        thin = np.linspace(0, len(raw.y) - 1, min(len(raw.y), 4000)).astype(int)
        axes.plot(raw.x[thin], raw.y[thin], color=TRAIN, alpha=0.25, linewidth=0.6)
    for (x, y), name, color in zip((pair.train, pair.val), pair.names, (TRAIN, VALIDATION), strict=True):
        if not len(y):
            continue
        fine = np.isfinite(y)
        axes.plot(x, np.where(fine, y, np.nan), color=color, label=name, linewidth=1.6,
                  marker="o" if len(y) <= 30 else None, markersize=3)  # fmt: skip
        if not fine.all():  # along the lower edge, where the curve has no value
            axes.plot(x[~fine], np.full((~fine).sum(), 0.02), transform=axes.get_xaxis_transform(),
                      color=MARK, marker="x", markersize=4, linestyle="none")  # fmt: skip
    both = np.concatenate([pair.train[1], pair.val[1]])
    if not np.isfinite(both).all():
        axes.plot([], [], color=MARK, marker="x", linestyle="none", markersize=4, label="NaN or infinite")
    _scale(axes, both)
    axes.set_xlabel(pair.unit)
    axes.set_title(pair.quantity, fontsize=10)
    axes.legend(fontsize=8, frameon=False)


def _scale(axes: Any, values: np.ndarray[Any, Any]) -> None:
    """A logarithmic axis where a linear one would show a single point, or nothing of the end."""
    values = values[np.isfinite(values)]
    if len(values) and values.min() > 0 and values.max() > _DECADES * np.median(values):
        axes.set_yscale("log")


def _marks(axes: Any, pair: Pair, found: Sequence[Sign]) -> None:
    """A line at each place, with its code; a band where a finding names a beginning and an end."""
    last = max([*pair.train[0][-1:], *pair.val[0][-1:]], default=0.0)
    height = 0.97
    for sign in found:
        places = sorted(sign.at)[:_MOST_MARKS]
        if not places:
            continue
        if "to" in sign.figures and len(places) == 2:
            axes.axvspan(*places, color=MARK, alpha=0.1, linewidth=0)
        for place in places:
            axes.axvline(place, color=MARK, linestyle=":", linewidth=1.1)
        right = places[0] > 0.6 * last
        label = f"{sign.rule.code} {pair.unit} {places[0]:,.0f}"
        axes.annotate(label, (places[0], height), xycoords=axes.get_xaxis_transform(),
                      xytext=(-4 if right else 4, 0), textcoords="offset points", fontsize=7.5, color=MARK,
                      ha="right" if right else "left", va="top",
                      bbox={"facecolor": "white", "alpha": 0.7, "linewidth": 0, "pad": 1})  # fmt: skip
        height -= 0.08


def _rate(axes: Any, rate: Curve, pair: Pair, *, label: bool) -> None:
    x = rate.epoch if pair.unit == "epoch" and rate.epoch is not None else rate.x
    axes.plot(x, rate.y, color="#777777", linewidth=1.0, drawstyle="steps-post")
    positive = rate.y[rate.y > 0]
    if len(positive) and positive.max() > 20 * positive.min() and len(np.unique(rate.y)) <= 6:
        axes.set_yscale("log")
    else:
        axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
        axes.yaxis.get_offset_text().set_fontsize(7)
    axes.tick_params(labelsize=7)
    axes.set_xlabel(pair.unit)
    if label:
        axes.set_ylabel("learning rate", fontsize=7.5, color="#555555")
