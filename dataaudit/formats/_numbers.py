"""Numbers of annotation files: read strictly, and written as the file writes its own."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

__all__ = ["is_same", "number", "whole", "written"]

_NUMBER = re.compile(r"\s*[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?\s*", re.ASCII)
_MAX_SIDE = 2**31 - 1
_MAX_DECIMALS = 12


def number(text: str) -> float:
    """The number that a text is; NaN where it isn't one, or not a finite one.

    >>> number("12.50"), number("1_000"), number("inf")
    (12.5, nan, nan)
    """
    if len(text) > 400 or _NUMBER.fullmatch(text) is None:
        return math.nan
    value = float(text)
    return value if math.isfinite(value) else math.nan


def whole(text: str) -> int | None:
    """The size in pixels that a text is; None where it is 0 or no such number.

    >>> whole("640"), whole("640.0"), whole("0")
    (640, 640, None)
    """
    value = number(text)
    return int(value) if 0 < value <= _MAX_SIDE and value == int(value) else None


def is_same(one: float, other: float) -> bool:
    """Whether two numbers are equal but for rounding: 1e-6, relative and absolute.

    >>> is_same(640.0000001, 640), is_same(1, 1.1)
    (True, False)
    """
    return abs(one - other) <= 1e-6 + 1e-6 * max(abs(one), abs(other))


def written(value: float, like: Sequence[str]) -> str:
    """A number with as many decimals as others have.

    Args:
        value: the number.
        like: numbers of the same file as they are written; those that aren't numbers don't count.

    >>> written(12.3456, ["8.50", "10.25"]), written(12.6, ["8", "10"]), written(3, ["8.5", "10"])
    ('12.35', '13', '3')
    """
    counts = [_decimals(text.strip()) for text in like if math.isfinite(number(text))]
    most, least = max(counts, default=0), min(counts, default=0)
    text = f"{value:.{min(most, _MAX_DECIMALS)}f}"
    while least < most and _decimals(text) > least and text[-1] in "0.":
        text = text[:-1].removesuffix(".")
    return text.removeprefix("-") if not number(text) else text


def _decimals(text: str) -> int:
    mantissa, _, exponent = text.lower().partition("e")
    return max(0, len(mantissa.partition(".")[2]) - int(exponent or 0))
