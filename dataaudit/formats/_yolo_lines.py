"""Lines of YOLO label files: what they say, and how they are changed."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

from dataaudit.formats import _numbers
from dataaudit.types import Box

_NAN: Box = (math.nan, math.nan, math.nan, math.nan)
_TOKEN = re.compile(rb"\S+")
_BOM = b"\xef\xbb\xbf"
_MIN_DECIMALS = 4
_MAX_SHARE = 1e12
_USUAL = ("0.000000", "0.1")


class Line(NamedTuple):
    """What a line says.

    Attributes:
        number: of the class; None where it can't be read.
        corners: relative to the image, NaN where they can't be read.
        geometry: ``box`` or ``polygon``.
        kind: of the problem with it, a few words; empty where there is none.
        problem: the sentence that says so.
    """

    number: int | None
    corners: Box
    geometry: str
    kind: str = ""
    problem: str = ""


def lines_of(content: bytes) -> list[bytes]:
    """The lines with their ends; the first one without a byte order mark."""
    lines = content.splitlines(keepends=True)
    if lines and lines[0].startswith(_BOM):
        lines[0] = lines[0][len(_BOM) :]
    return lines


def mark_of(content: bytes) -> int:
    """How many bytes stand before the first line."""
    return len(_BOM) if content.startswith(_BOM) else 0


def parsed(tokens: Sequence[bytes], keypoints: int = 0) -> Line:
    """What the words of a line say.

    Args:
        tokens: at least one.
        keypoints: how many numbers of keypoints follow a box.
    """
    n = len(tokens)
    try:
        number = int(tokens[0])
        values = list(map(float, tokens[1:]))
    except ValueError:
        return _unreadable(tokens)
    if n == 5 or (keypoints and n == 5 + keypoints):
        x, y, w, h = values[:4]
        corners, geometry, kind, problem = (x - w / 2, y - h / 2, x + w / 2, y + h / 2), "box", "", ""
    elif n == 6:
        x, y, w, h = values[:4]
        corners, geometry = (x - w / 2, y - h / 2, x + w / 2, y + h / 2), "box"
        kind, problem = "extra column", "The line has 6 numbers, as a prediction with a confidence has"
    elif n >= 7 and n % 2:
        xs, ys = values[::2], values[1::2]
        corners, geometry, kind, problem = (min(xs), min(ys), max(xs), max(ys)), "polygon", "", ""
    else:
        return Line(number, _NAN, "box", *_wrong_count(n))
    if not all(map(math.isfinite, values)):
        return Line(number, _NAN, geometry, "unreadable box", "The line has a number that isn't finite")
    if max(map(abs, values)) > _MAX_SHARE:
        what = f"The line has the number {max(values, key=abs):g}; expected shares of the image, 0 to 1"
        return Line(number, _NAN, geometry, "unreadable box", what)
    return Line(number, corners, geometry, kind, problem)


def _wrong_count(n: int) -> tuple[str, str]:
    expected = "5 (a class and a box), or a class and the points of a polygon"
    return "wrong number of columns", f"The line has {n} numbers; expected {expected}"


def _unreadable(tokens: Sequence[bytes]) -> Line:
    """A line with a word that is no number; a class such as ``3.0`` is one."""
    first = _numbers.number(tokens[0].decode("latin-1"))
    number = int(first) if first.is_integer() and abs(first) < 2**31 else None
    numbers = [_numbers.number(token.decode("latin-1")) for token in tokens[1:]]
    if number is not None and not any(map(math.isnan, numbers)):
        return parsed([str(number).encode(), *(token for token in tokens[1:])])
    shown = b" ".join(tokens)[:60].decode("latin-1")
    return Line(number, _NAN, "box", "unreadable line", f"The line isn't numbers alone: {shown!r}")


def spans_of(line: bytes) -> list[tuple[int, int]]:
    """The places of the words of a line."""
    return [found.span() for found in _TOKEN.finditer(line)]


def written(box: Box, old: Box, olds: Sequence[str | None], like: Sequence[str]) -> list[str]:
    """A box as centre, width and height; numbers that stay keep their texts.

    Args:
        box: the corners x1, y1, x2, y2, relative.
        old: those before.
        olds: the four numbers as they are written, None for none.
        like: other numbers of the file.
    """
    texts = []
    for position, (value, before) in enumerate(zip(_centred(box), _centred(old), strict=True)):
        own = olds[position]
        same = own is not None and abs(value - before) < 1e-9
        texts.append(str(own) if same else _numbers.written(value, like))
    return texts


def like_of(contents: Sequence[bytes]) -> list[str]:
    """Numbers as these files write them, one of each count of decimals; six decimals where they have few."""
    few: dict[int, str] = {}
    for content in contents:
        for line in lines_of(content):
            for token in line.split()[1:]:
                text = token.decode("latin-1")
                if math.isfinite(_numbers.number(text)):
                    few.setdefault(len(text.partition(".")[2]), text)
    return list(few.values()) if max(few, default=0) >= _MIN_DECIMALS else list(_USUAL)


def _centred(box: Box) -> Box:
    x1, y1, x2, y2 = box
    return (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1
