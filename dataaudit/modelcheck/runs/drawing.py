"""A plot of the curves that a finding is about, with the places that it names."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np

from dataaudit.modelcheck.runs.histories import History, Pair, rate_of
from dataaudit.modelcheck.runs.signs import Sign

__all__ = ["plot"]

TRAIN, VALIDATION, MARK = "#4c72b0", "#dd8452", "#c44e52"


def plot(history: History, pairs: Sequence[Pair], found: Sequence[Sign]) -> bytes:
    """A PNG with up to three pairs of curves one beside the other, and marks where the findings point."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = [sign.curve for sign in found]
    first = sorted(pairs, key=lambda pair: not set(pair.names) & set(shown))[:3]
    figure = Figure(figsize=(12, 3.6), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    for at, pair in enumerate(first):
        axes = figure.add_subplot(1, len(first), at + 1)
        for (x, y), name, color in zip((pair.train, pair.val), pair.names, (TRAIN, VALIDATION), strict=True):
            if len(y):
                marker = "o" if len(y) <= 30 else None
                axes.plot(x, np.where(np.isfinite(y), y, np.nan), color=color, label=name, marker=marker,
                          markersize=3, linewidth=1.4)  # fmt: skip
        for sign in found:
            if sign.curve in pair.names or (pair.raw is not None and sign.curve == pair.raw.name):
                for place in sign.at[:4]:
                    axes.axvline(place, color=MARK, linestyle=":", linewidth=1)
        values = np.concatenate([pair.train[1], pair.val[1]])
        values = values[np.isfinite(values)]
        if len(values) and values.min() > 0 and values.max() > 50 * np.median(values):
            axes.set_yscale("log")
        axes.set_xlabel(pair.unit)
        axes.set_title(pair.quantity, fontsize=10)
        axes.legend(fontsize=8, frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
        rate = rate_of(history)
        if at == 0 and rate is not None and len(rate.y) > 1:
            twin = axes.twinx()
            x = rate.epoch if pair.unit == "epoch" and rate.epoch is not None else rate.x
            twin.plot(x, rate.y, color="#999999", linewidth=0.8, linestyle="--")
            twin.set_yticks([])
            twin.set_ylabel("learning rate", fontsize=7, color="#777777")
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return stream.getvalue()
