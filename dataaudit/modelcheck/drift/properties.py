"""Properties of images whose distributions are compared, and how a change of each is said in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

__all__ = ["ASPECTS", "CATEGORIES", "MEASURES", "Measure", "described", "number"]


@dataclass(frozen=True, kw_only=True)
class Measure:
    """A number that each image has.

    Attributes:
        aspect: what it is about; one finding names at most one measure of an aspect.
        words: what it is called in a sentence.
        more: what production is where it is higher.
        less: what production is where it is lower.
        higher: what a single image is that lies above all others.
        lower: what one is that lies below them.
        unit: after the number.
    """

    aspect: str
    words: str
    more: str
    less: str
    higher: str
    lower: str
    unit: str = ""


MEASURES: Mapping[str, Measure] = {
    "brightness": Measure(
        aspect="light", words="brightness", more="brighter", less="darker", higher="brighter", lower="darker"
    ),
    "highlight": Measure(
        aspect="light",
        words="brightness of the brightest parts",
        more="brighter",
        less="darker",
        higher="brighter",
        lower="darker",
    ),
    "shadow": Measure(
        aspect="light",
        words="brightness of the darkest parts",
        more="brighter in the shadows",
        less="darker in the shadows",
        higher="brighter there",
        lower="darker there",
    ),
    "contrast": Measure(
        aspect="contrast",
        words="contrast",
        more="richer in contrast",
        less="poorer in contrast",
        higher="richer in contrast",
        lower="poorer in contrast",
    ),
    "saturation": Measure(
        aspect="colour",
        words="saturation",
        more="more colourful",
        less="less colourful",
        higher="more colourful",
        lower="less colourful",
    ),
    "warmth": Measure(
        aspect="colour",
        words="red less blue",
        more="redder",
        less="bluer",
        higher="redder",
        lower="bluer",
    ),
    "tint": Measure(
        aspect="colour",
        words="green less red and blue",
        more="greener",
        less="more purple",
        higher="greener",
        lower="more purple",
    ),
    "sharpness": Measure(
        aspect="sharpness", words="sharpness", more="sharper", less="softer", higher="sharper", lower="softer"
    ),
    "detail": Measure(
        aspect="sharpness",
        words="share of fine detail",
        more="richer in fine detail or noise",
        less="blurrier",
        higher="richer in it",
        lower="blurrier",
    ),
    "side": Measure(
        aspect="size",
        words="side of the image",
        more="larger",
        less="smaller",
        higher="larger",
        lower="smaller",
        unit=" pixels",
    ),
    "aspect": Measure(
        aspect="shape",
        words="width over height",
        more="wider",
        less="narrower",
        higher="wider",
        lower="narrower",
    ),
    "bits_per_pixel": Measure(
        aspect="compression",
        words="size of the file for each pixel",
        more="less compressed, or richer in noise",
        less="more compressed, or poorer in detail",
        higher="larger",
        lower="smaller",
        unit=" bits",
    ),
}
CATEGORIES: Mapping[str, str] = {"format": "file format", "mode": "colour mode"}
"""Properties that are names, and what they are called in a sentence."""
ASPECTS = tuple(dict.fromkeys(measure.aspect for measure in MEASURES.values()))


def described(filepaths: pd.Series[str], properties: pd.DataFrame) -> pd.DataFrame:
    """The properties that are compared.

    Args:
        filepaths: by sample id, of images that can be decoded.
        properties: of the sweep, same index.

    Returns:
        Index as `filepaths`; columns ``filepath``, `MEASURES` (float64) and `CATEGORIES` (str).
    """
    found = pd.DataFrame({"filepath": filepaths.astype(object)})
    area = properties["width"].astype(float) * properties["height"].astype(float)
    derived = {
        "side": np.sqrt(area),
        "aspect": properties["width"] / properties["height"],
        "bits_per_pixel": pd.Series([_bits(path) for path in filepaths], index=filepaths.index) / area,
    }
    for name in MEASURES:
        found[name] = np.asarray(derived.get(name, properties.get(name, 0.0)), dtype=np.float64)
    for name in CATEGORIES:
        found[name] = properties[name].astype(str)
    return found


def number(value: float, measure: Measure) -> str:
    """A value of a measure as it stands in a sentence.

    >>> number(0.02817, MEASURES["sharpness"]), number(0.4, MEASURES["brightness"])
    ('0.028', '0.40')
    >>> number(1234.6, MEASURES["side"])
    '1,235 pixels'
    """
    digits = 0 if abs(value) >= 100 else 2 if abs(value) >= 0.1 or value == 0 else 3
    return f"{value:,.{digits}f}{measure.unit}"


def _bits(path: Any) -> int:
    try:
        return 8 * Path(path).stat().st_size
    except OSError:
        return 0
