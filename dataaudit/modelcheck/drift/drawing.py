"""Pictures of a drift report: the distributions, and the images that show what differs."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
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

__all__ = ["contact_sheet", "pictures_of", "png_of"]

REFERENCE, PRODUCTION = "#4c72b0", "#dd8452"
_MOST_PLOTS, _MOST_SHEETS = 6, 4
_TILE, _GAP, _HEAD = 112, 6, 18


def pictures_of(checked: Checked) -> list[Picture]:
    """A plot of the properties that drifted, and a sheet of images for each of the surest findings."""
    both = checked.both
    found: list[Picture] = []
    names = [each.evidence["property"] for _, each in checked.drifted if "property" in each.evidence]
    if names:
        found.append(
            Picture(
                title="Properties that differ",
                png=_histograms(both.reference, both.production, names[:_MOST_PLOTS]),
                note="Share of the images by value; blue is the reference, orange production.",
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
