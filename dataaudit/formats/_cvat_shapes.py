"""The shapes of CVAT files and their bounding boxes."""

from __future__ import annotations

import math

from dataaudit.formats._numbers import number
from dataaudit.formats._xml import Element
from dataaudit.types import Box

__all__ = ["PASSED_OVER", "SHAPES", "SIDES", "corners", "geometry", "is_set"]

SHAPES = ("box", "polygon", "mask", "ellipse")
PASSED_OVER = ("polyline", "points", "cuboid", "skeleton")
SIDES = ("xtl", "ytl", "xbr", "ybr")

_NAN = (math.nan, math.nan, math.nan, math.nan)


def is_set(text: str) -> bool:
    """Whether a flag is set.

    >>> is_set("1"), is_set("false")
    (True, False)
    """
    return text.strip().lower() in ("true", "yes") or number(text) > 0


def geometry(shape: Element) -> str:
    """The form of a shape: ``box``, ``rotated``, ``polygon`` or ``mask``."""
    if shape.name == "box":
        return "box" if number(shape.attributes.get("rotation", "0")) == 0 else "rotated"
    return "mask" if shape.name == "mask" else "polygon"


def corners(shape: Element) -> tuple[Box, str]:
    """The corners of a shape's bounding box, and what is wrong with them, or an empty text."""
    given = shape.attributes
    if shape.name == "polygon":
        points = [number(part) for pair in given.get("points", "").split(";") for part in pair.split(",")]
        if len(points) % 2 or any(map(math.isnan, points)):
            return _NAN, "The points of the polygon can't be read; expected x,y;x,y;..."
        xs, ys = points[::2], points[1::2]
        return (min(xs), min(ys), max(xs), max(ys)), ""
    names = {"mask": ("left", "top", "width", "height"), "ellipse": ("cx", "cy", "rx", "ry")}.get(
        shape.name, SIDES
    )
    a, b, c, d = (number(given.get(name, "")) for name in names)
    turned = math.radians(number(given.get("rotation", "0")))
    if math.isnan(a + b + c + d + turned):
        wrong = [
            f"{name} is {given[name]!r}" if name in given else f"there is no {name}"
            for name in (*names, "rotation")
            if math.isnan(number(given.get(name, "0" if name == "rotation" else "")))
        ]
        # A box says what it says of the corners that can be read
        box = (a, b, c, d) if shape.name == "box" else _NAN
        return box, f"The {shape.name} can't be read: {', '.join(wrong)}; expected numbers."
    if shape.name == "mask":
        return (a, b, a + c, b + d), ""
    if shape.name == "ellipse":
        cosine, sine = math.cos(turned), math.sin(turned)
        width, height = math.hypot(c * cosine, d * sine), math.hypot(c * sine, d * cosine)
        return (a - width, b - height, a + width, b + height), ""
    return _turned((a, b, c, d), turned) if turned else (a, b, c, d), ""


def _turned(box: Box, angle: float) -> Box:
    """The bounding box of a box that is turned around its centre."""
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    width, height = box[2] - box[0], box[3] - box[1]
    cosine, sine = abs(math.cos(angle)), abs(math.sin(angle))
    half = (width * cosine + height * sine) / 2, (width * sine + height * cosine) / 2
    return x - half[0], y - half[1], x + half[0], y + half[1]
