"""Plots of losses."""

from __future__ import annotations

import io
from collections.abc import Sequence

from dataaudit.modelcheck.reporting import Picture

__all__ = ["losses", "rates"]


def losses(values: Sequence[float], *, title: str) -> Picture:
    """The loss over the steps."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 2.8), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(range(1, len(values) + 1), values, color="#2563eb", linewidth=1.5)
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    finite = [value for value in values if abs(value) < float("inf")]
    if finite and min(finite) >= 0:
        axes.set_ylim(bottom=0)  # so that a loss that hardly moves is seen to be flat
    return Picture(title=title, png=_png(figure, axes), note=f"{values[0]:.4g} to {values[-1]:.4g}.")


def rates(
    values: Sequence[float],
    smooth: Sequence[float],
    at: Sequence[float],
    *,
    suggested: float | None,
    now: float | None,
) -> Picture:
    """The loss over the learning rate, with the rate that is suggested and the one that is set."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.2), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(at, values, color="#94a3b8", linewidth=0.8, label="loss")
    axes.plot(at, smooth, color="#2563eb", linewidth=1.8, label="smoothed")
    low, high = min(smooth), max(smooth[0], min(smooth) + 1e-9)
    axes.set_ylim(low - 0.1 * (high - low) - 1e-9, high + 0.8 * (high - low) + 1e-9)
    if suggested is not None:
        axes.axvline(suggested, color="#16a34a", linestyle="--", label=f"suggested {suggested:.2g}")
    if now is not None:
        axes.axvline(now, color="#dc2626", linestyle=":", label=f"set {now:.2g}")
    axes.set_xscale("log")
    axes.set_xlabel("learning rate")
    axes.set_ylabel("loss")
    axes.legend(frameon=False)
    note = "" if suggested is None else f"Suggested: {suggested:.2g}."
    return Picture(title="Learning rate range test", png=_png(figure, axes), note=note)


def _png(figure: object, axes: object) -> bytes:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)  # type: ignore[attr-defined]
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=144)  # type: ignore[attr-defined]
    return buffer.getvalue()
