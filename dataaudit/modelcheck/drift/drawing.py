"""Pictures of a drift report: the distributions, and the images that show what differs."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw

from dataaudit.decode import decode
from dataaudit.modelcheck.drift.properties import MEASURES
from dataaudit.modelcheck.drift.sides import Side
from dataaudit.modelcheck.reporting import Picture
from dataaudit.sweep import pillow_set_up

if TYPE_CHECKING:
    from dataaudit.modelcheck.drift.checking import Checked
    from dataaudit.modelcheck.drift.outcomes import Change

__all__ = ["contact_sheet", "outcome_plot", "pictures_of", "png_of"]

REFERENCE, PRODUCTION = "#4c72b0", "#dd8452"
_MOST_PLOTS, _MOST_SHEETS = 6, 4
_TILE, _GAP, _HEAD = 112, 6, 18
_WINDOWS = 30


def pictures_of(checked: Checked) -> list[Picture]:
    """A plot of the properties that drifted, and a sheet of images for each of the surest findings."""
    both = checked.both
    found: list[Picture] = []
    named = [each.evidence for _, each in checked.drifted if "property" in each.evidence]
    names = [str(evidence["property"]) for evidence in named if "between" not in evidence]
    if names:
        found.append(
            Picture(
                title="Properties that differ",
                png=_histograms(both.reference, both.production, names[:_MOST_PLOTS]),
                note="Share of the images by value; blue is the reference, orange production.",
            )
        )
    over_time = [evidence for evidence in named if "between" in evidence and evidence["property"] in MEASURES]
    if over_time:
        found.append(
            Picture(
                title="Production over time",
                png=_timeline(both.reference, both.production, [str(over_time[0]["property"])]),
                note="Mean of consecutive images of production; the band holds 90% of the reference.",
            )
        )
    for _, candidate in checked.drifted[:_MOST_SHEETS]:
        sheet = contact_sheet(both.reference, both.production, candidate.examples)
        if sheet is not None:
            note = "Above: production; below: what comes nearest to it in the reference."
            found.append(Picture(title=f"Images that show it: {candidate.item}", png=sheet, note=note))
    return found


def contact_sheet(reference: Side, production: Side, examples: Sequence[Mapping[str, str]]) -> bytes | None:
    """A PNG with the images of production above and the nearest ones of the reference below.

    Images whose file isn't there any more, as with a saved reference, are drawn from their 16 x 16 grey
    pixels. None without examples.
    """
    if not examples:
        return None
    width = len(examples) * (_TILE + _GAP) + _GAP
    sheet = Image.new("RGB", (width, 2 * (_TILE + _GAP + _HEAD) + _GAP), "white")
    draw = ImageDraw.Draw(sheet)
    with pillow_set_up():
        for row, (key, side) in enumerate((("production", production), ("reference", reference))):
            top = row * (_TILE + _GAP + _HEAD)
            draw.text((_GAP, top + 3), key, fill="#555555")
            for column, example in enumerate(examples):
                tile = _tile(side, example[key])
                at = (_GAP + column * (_TILE + _GAP), top + _HEAD)
                sheet.paste(tile, (at[0] + (_TILE - tile.width) // 2, at[1] + (_TILE - tile.height) // 2))
    return _png(sheet)


def _tile(side: Side, sample_id: str) -> Image.Image:
    row = side.images.index.get_loc(sample_id)
    try:
        image = decode(Path(side.images["filepath"].iloc[row]).read_bytes(), size=_TILE).image
    except OSError:
        image = None
    if image is None:
        image = Image.fromarray(side.thumbnails[row].reshape(16, 16)).convert("RGB")
        return image.resize((_TILE, _TILE), Image.Resampling.BICUBIC)
    scale = _TILE / max(image.size)
    size = (max(round(image.width * scale), 1), max(round(image.height * scale), 1))
    return image.resize(size, Image.Resampling.LANCZOS)


def _histograms(reference: Side, production: Side, names: Sequence[str]) -> bytes:
    columns = min(len(names), 3)
    rows = -(-len(names) // columns)
    figure = _figure(3.2 * columns, 2.2 * rows)
    for number, name in enumerate(names, 1):
        axes = figure.add_subplot(rows, columns, number)
        values = [side.images[name].to_numpy(dtype=float) for side in (reference, production)]
        low, high = min(map(np.min, values)), max(map(np.max, values))
        edges = np.linspace(low, high if high > low else low + 1, 31)
        for each, colour in zip(values, (REFERENCE, PRODUCTION), strict=True):
            weights = np.full(len(each), 1 / len(each))
            axes.hist(each, bins=edges, weights=weights, color=colour, alpha=0.6)
        axes.set_title(f"{MEASURES[name].words}{MEASURES[name].unit and f' ({MEASURES[name].unit.strip()})'}",
                       fontsize=9)  # fmt: skip
        axes.tick_params(labelsize=7)
        axes.set_yticks([])
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
    return png_of(figure)


def _timeline(reference: Side, production: Side, names: Sequence[str]) -> bytes:
    from dataaudit.modelcheck.drift.times import said, to_numbers

    times = production.times
    assert times is not None
    numbers = to_numbers(times)
    order = np.argsort(numbers, kind="stable")[: int((~np.isnan(numbers)).sum())]
    figure = _figure(6.4, 2.4 * len(names))
    for number, name in enumerate(names, 1):
        axes = figure.add_subplot(len(names), 1, number)
        parts = np.array_split(order, min(_WINDOWS, max(len(order) // 5, 1)))
        values = production.images[name].to_numpy(dtype=float)
        axes.axhspan(*np.quantile(reference.images[name], [0.05, 0.95]), color=REFERENCE, alpha=0.15)
        axes.plot(
            [numbers[part].mean() for part in parts],
            [values[part].mean() for part in parts],
            marker="o",
            markersize=3,
            color=PRODUCTION,
        )
        axes.set_title(MEASURES[name].words, fontsize=9)
        _time_axis(axes, lambda value: said(value, times))
    return png_of(figure)


def outcome_plot(moments: Any, right: Any, times: Any, found: Sequence[Change]) -> bytes:
    """A PNG: accuracy of consecutive outcomes with its 95% interval, and the changes that were found.

    Args:
        moments: (n,) times as numbers, rising.
        right: (n,) 0 or 1.
        times: (n,) times as given, for the labels.
        found: the changes, in the order of time.
    """
    from dataaudit.modelcheck.drift.times import said

    figure = _figure(6.4, 2.8)
    axes = figure.add_subplot()
    parts = np.array_split(np.arange(len(right)), min(_WINDOWS, max(len(right) // 5, 1)))
    n = np.array([len(part) for part in parts])
    share = np.array([right[part].mean() for part in parts])
    # Wilson's interval, which stays within 0 and 1
    z = 1.96
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    x = np.array([moments[part].mean() for part in parts])
    bars = np.clip(np.stack([share - (middle - half), middle + half - share]), 0, 1)
    axes.errorbar(x, share, yerr=bars, fmt="o", markersize=3, color=REFERENCE, linewidth=1)
    for change in found:
        axes.axvspan(change.first, change.last, color=PRODUCTION, alpha=0.2)
        line = ([change.first, change.last], [change.before, change.after])
        if change.gradual:
            axes.plot(*line, color=PRODUCTION)
        else:
            axes.axvline(change.at, color=PRODUCTION)
    axes.set_ylim(-0.02, 1.02)
    axes.set_ylabel("accuracy", fontsize=8)
    _time_axis(axes, lambda value: said(value, times))
    return png_of(figure)


def _time_axis(axes: Any, say: Callable[[float], str]) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: say(float(value))))
    axes.tick_params(labelsize=7)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _figure(width: float, height: float) -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=110, layout="tight")


def png_of(figure: Any) -> bytes:
    """A figure of matplotlib as a PNG file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    stream = io.BytesIO()
    FigureCanvasAgg(figure).print_png(stream)
    return stream.getvalue()


def _png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()
