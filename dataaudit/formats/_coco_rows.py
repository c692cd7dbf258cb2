"""What a COCO file says, column by column, with the place of every image, annotation and category."""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from dataaudit.formats import _cells, _json

GEOMETRIES = ("box", "polygon", "mask", "rotated")
FLAGS = ("iscrowd", "ignore", "difficult", "truncated", "occluded")

NO_BOX = "The annotation has no bbox"

_BOX, _POLYGON, _MASK, _ROTATED = range(4)
_NAN = [math.nan] * 4
_ATTRIBUTES = {"difficult": 4, "truncated": 8, "occluded": 16}
_TOLERANCE = 0.02
_NUMBERS = (float, int)
_FLAG_VALUES = (0, 1, "0", "1", "")

Key = int | str


@dataclass(kw_only=True)
class Part:
    """One of the three arrays: where its elements stand."""

    starts: array[int] = field(default_factory=lambda: array("q"))
    ends: array[int] = field(default_factory=lambda: array("q"))
    ids: list[Any] = field(default_factory=list)


@dataclass(kw_only=True)
class Rows:
    """What a file says.

    Attributes:
        file: the file.
        content: its text.
        arrays: place of each array by its key.
        images: `Part` of the images; ids None where there is none.
        sizes: width and height of each image, None where it says none.
        names: file name of each image, None where it has none.
        categories: `Part` of the categories.
        classes: name of each category.
        objects: `Part` of the annotations.
        image_ids: of each annotation.
        category_ids: of each annotation.
        boxes: x, y, width and height of each annotation, one after the other, NaN where they can't be read.
        geometries: position in `GEOMETRIES` of each annotation.
        flags: bits of each annotation, in the order of `FLAGS`.
        strange: number of an annotation to what is wrong with its box.
        odd: number of an annotation, and what else in it can't be used: kind and sentence.
        odd_sizes: number of an image, and what it says for its size.
    """

    file: Path
    content: _cells.Text
    arrays: dict[str, _json.Span] = field(default_factory=dict)
    images: Part = field(default_factory=Part)
    sizes: list[tuple[int | None, int | None]] = field(default_factory=list)
    names: list[str | None] = field(default_factory=list)
    categories: Part = field(default_factory=Part)
    classes: list[str | None] = field(default_factory=list)
    objects: Part = field(default_factory=Part)
    image_ids: list[Any] = field(default_factory=list)
    category_ids: list[Any] = field(default_factory=list)
    boxes: array[float] = field(default_factory=lambda: array("d"))
    geometries: bytearray = field(default_factory=bytearray)
    flags: bytearray = field(default_factory=bytearray)
    strange: dict[int, str] = field(default_factory=dict)
    odd: list[tuple[int, str, str]] = field(default_factory=list)
    odd_sizes: list[tuple[int, str]] = field(default_factory=list)

    def corners(self, number: int) -> tuple[float, float, float, float]:
        """The corners x1, y1, x2, y2 of an annotation."""
        x, y, width, height = self.boxes[4 * number : 4 * number + 4]
        return x, y, x + width, y + height


def read_rows(file: Path, content: _cells.Text) -> Rows:
    """Read what a file says, as `_cells.decode` gives it.

    Raises:
        FormatError: it isn't JSON; with file, line and column.
    """
    found = Rows(file=file, content=content)
    adders = {"images": _add_image, "annotations": _add_object, "categories": _add_category}
    for key, start, end, value in _json.walk(found.content.text, file, found.arrays, adders):
        adders[key](found, start, end, value if type(value) is dict else {})
    return found


def _add_image(rows: Rows, start: int, end: int, value: Mapping[str, Any]) -> None:
    rows.images.starts.append(start)
    rows.images.ends.append(end)
    rows.images.ids.append(key_of(value.get("id")))
    name = value.get("file_name")
    rows.names.append(name if isinstance(name, str) and name.strip() else None)
    said = value.get("width"), value.get("height")
    sizes = _side(said[0]), _side(said[1])
    rows.sizes.append(sizes)
    if any(side is None and each not in (None, 0) for side, each in zip(sizes, said, strict=True)):
        rows.odd_sizes.append((len(rows.sizes) - 1, f"{said[0]!r} x {said[1]!r}"[:80]))


def _add_category(rows: Rows, start: int, end: int, value: Mapping[str, Any]) -> None:
    rows.categories.starts.append(start)
    rows.categories.ends.append(end)
    rows.categories.ids.append(key_of(value.get("id")))
    name = value.get("name")
    named = name is not None and not isinstance(name, dict | list) and str(name).strip()
    rows.classes.append(str(name) if named else None)


def _add_object(rows: Rows, start: int, end: int, value: Mapping[str, Any]) -> None:
    rows.objects.starts.append(start)
    rows.objects.ends.append(end)
    own = value.get("id")
    rows.objects.ids.append(own if type(own) is int else key_of(own))
    image = value.get("image_id")
    rows.image_ids.append(image if type(image) is int else key_of(image))
    category = value.get("category_id")
    rows.category_ids.append(category if type(category) is int else key_of(category))
    box = value.get("bbox")
    try:
        # A boolean counts as 0 or 1 in Python; looking at types only where there is one of these is cheap
        if len(box) != 4 or ((0 in box or 1 in box) and bool in map(type, box)):  # type: ignore[arg-type, operator]
            raise ValueError
        rows.boxes.fromlist(box)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        rows.strange[len(rows.geometries)] = _wrong_box(value)
        rows.boxes.fromlist(_NAN)
        box = _NAN
    segments = value.get("segmentation")
    if segments and not _is_outline(segments):
        said = f"The segmentation is {str(segments)[:60]}; expected lists of x and y by turns, or a mask"
        rows.odd.append((len(rows.geometries), "unreadable segmentation", said))
    rows.geometries.append(_geometry(segments, box) if segments else _BOX)
    crowd, ignore = value.get("iscrowd"), value.get("ignore")
    if (crowd and crowd not in _FLAG_VALUES) or (ignore and ignore not in _FLAG_VALUES):
        said = f"iscrowd is {crowd!r} and ignore {ignore!r}; expected 0 or 1"
        rows.odd.append((len(rows.flags), "unreadable flag", said[:160]))
    flags = (crowd in (1, "1")) + 2 * (ignore in (1, "1"))
    attributes = value.get("attributes")
    if type(attributes) is dict:
        flags += sum(bit for name, bit in _ATTRIBUTES.items() if attributes.get(name) in (1, "1", "true"))
        if attributes.get("rotation") not in (None, 0, "0", "0.0"):
            rows.geometries[-1] = _ROTATED
    rows.flags.append(flags)


def _wrong_box(value: Mapping[str, Any]) -> str:
    if "bbox" not in value:
        return NO_BOX
    return f"The bbox is {str(value['bbox'])[:80]}; expected four numbers [x, y, width, height]"


def key_of(value: Any) -> Key | None:
    """An id as a key, None where it is none.

    >>> key_of(7), key_of("7"), key_of(7.0), key_of("a"), key_of(None)
    (7, 7, 7, 'a', None)
    """
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    if isinstance(value, str):
        plain = value.isascii() and value.isdigit() and len(value) < 19 and str(int(value)) == value
        return int(value) if plain else value or None
    return None


def _side(value: Any) -> int | None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return int(value) if number and 0 < value < 2**31 else None


def _is_outline(segments: Any) -> bool:
    """Whether a segmentation is polygons or a mask; of the numbers only the first is looked at."""
    if type(segments) is not list:
        return type(segments) is dict and "counts" in segments and "size" in segments
    for part in segments:
        if type(part) is not list or len(part) % 2 or (part and type(part[0]) not in _NUMBERS):
            return False
    return True


def _geometry(segments: Any, box: Any) -> int:
    if type(segments) is dict:
        return _MASK
    if type(segments) is not list:
        return _BOX
    if len(segments) == 1 and type(segments[0]) is list and is_rectangle(segments[0], box):
        return _BOX
    return _POLYGON


def is_rectangle(points: list[Any], box: Any) -> bool:
    """Whether a polygon has the corners of a box, each once, in order around it.

    Args:
        points: x and y by turns.
        box: x, y, width, height.
    """
    if len(points) == 10 and points[:2] == points[-2:]:
        points = points[:8]
    if len(points) != 8 or not all(isinstance(number, int | float) for number in (*points, *box)):
        return False
    x, y, width, height = box
    near = _TOLERANCE + 1e-6 * max(abs(x) + abs(width), abs(y) + abs(height))
    sides = []
    for number, value in enumerate(points):
        low, size = ((x, width), (y, height))[number % 2]
        if abs(value - low) <= near:
            sides.append(0)
        elif abs(value - low - size) <= near:
            sides.append(1)
        else:
            return False
    corners = list(zip(sides[::2], sides[1::2], strict=True))
    steps = [abs(a[0] - b[0]) + abs(a[1] - b[1]) for a, b in pairwise(corners)]
    return len(set(corners)) == 4 and steps == [1, 1, 1]
