"""The boxes of Pascal VOC files, and the edits that carry out fixes of them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from itertools import islice
from pathlib import Path

from PIL import Image

from dataaudit.decode import open_image
from dataaudit.errors import ConflictError, DataAuditError, InputError
from dataaudit.formats import _pairs
from dataaudit.formats._files import content_of, is_free
from dataaudit.formats._numbers import is_same, number, written
from dataaudit.formats._shared import inside, new_label
from dataaudit.formats._xml import Document, Element, Splice, Values, copied, inserted, parse, removed, text
from dataaudit.journal import Edit, Operation, Write, edited, md5
from dataaudit.types import Box, Fix, Source

__all__ = ["corners", "geometry", "operations"]

SIDES = ("xmin", "ymin", "xmax", "ymax")

_DECLARATION = re.compile(rb"\s*<\?xml.*?\?>\s*", re.DOTALL)
_POINT = re.compile(r"([xy])\d*", re.ASCII)
_DEFAULT = b"""<annotation>
\t<folder></folder>
\t<filename></filename>
\t<size>
\t\t<width>0</width>
\t\t<height>0</height>
\t\t<depth>3</depth>
\t</size>
\t<segmented>0</segmented>
\t<object>
\t\t<name></name>
\t\t<pose>Unspecified</pose>
\t\t<truncated>0</truncated>
\t\t<difficult>0</difficult>
\t\t<bndbox>
\t\t\t<xmin>0</xmin>
\t\t\t<ymin>0</ymin>
\t\t\t<xmax>0</xmax>
\t\t\t<ymax>0</ymax>
\t\t</bndbox>
\t</object>
</annotation>
"""


def geometry(fields: Mapping[str, Element]) -> str:
    """The form of an object: ``polygon``, ``rotated`` or ``box``.

    Args:
        fields: the children of an object by name.
    """
    return "polygon" if "polygon" in fields else "rotated" if "robndbox" in fields else "box"


def corners(fields: Mapping[str, Element]) -> tuple[Box, str]:
    """The corners of an object's box as they are written, and what is wrong with them, or an empty text.

    Args:
        fields: the children of an object by name.
    """
    if "bndbox" in fields:
        return _of_box(fields["bndbox"])
    found: Box | None = None
    if "robndbox" in fields:
        found = _of_rotated(fields["robndbox"])
    elif "polygon" in fields:
        found = _of_points(fields["polygon"])
    if found is None:
        return (math.nan,) * 4, "The object has no box: no <bndbox>."
    return found, "" if all(map(math.isfinite, found)) else "Numbers of the object's outline can't be read."


def _of_box(element: Element) -> tuple[Box, str]:
    texts = {child.name: child.text for child in reversed(element.children)}
    x1, y1, x2, y2 = (number(texts.get(side, "")) for side in SIDES)
    if not math.isnan(x1 + y1 + x2 + y2):
        names = [child.name for child in element.children]
        twice = [side for side in SIDES if names.count(side) > 1]
        return (x1, y1, x2, y2), f"The box has <{twice[0]}> twice; the first counts." if twice else ""
    wrong = [
        f"<{side}> is {texts[side].strip()!r}; expected a number"
        if side in texts
        else f"there is no <{side}>"
        for side in SIDES
        if math.isnan(number(texts.get(side, "")))
    ]
    return (x1, y1, x2, y2), f"The box can't be read: {', '.join(wrong)}."


def _of_rotated(element: Element) -> Box:
    """The bounding box of a centre, sides and an angle in radians, as roLabelImg writes them."""
    values = {child.name: number(child.text) for child in reversed(element.children)}
    x, y, width, height, angle = (values.get(name, math.nan) for name in ("cx", "cy", "w", "h", "angle"))
    cosine, sine = abs(math.cos(angle)), abs(math.sin(angle))
    half = (width * cosine + height * sine) / 2, (width * sine + height * cosine) / 2
    return x - half[0], y - half[1], x + half[0], y + half[1]


def _of_points(element: Element) -> Box | None:
    points: dict[str, list[float]] = {"x": [], "y": []}
    for child in [*element.children, *(inner for each in element.children for inner in each.children)]:
        found = _POINT.fullmatch(child.name)
        if found is not None:
            points[found[1]].append(number(child.text))
    xs, ys = points["x"], points["y"]
    if not xs or not ys:
        return None
    if any(map(math.isnan, xs + ys)):
        return (math.nan,) * 4
    return min(xs), min(ys), max(xs), max(ys)


def operations(
    source: Source, fixes: Sequence[Fix], annotation_of: Callable[[Fix], str | None]
) -> list[Operation]:
    """The operations that carry out `fixes`.

    Args:
        source: of the dataset.
        fixes: of objects, and of images that leave the dataset.
        annotation_of: the annotation file of the image of a fix, relative; None where it has none.

    Raises:
        ConflictError: a file no longer holds what its fix expects.
        InputError: a fix that can't be carried out.
    """
    assert source.root is not None
    found, by_file = _pairs.by_file(source, fixes, annotation_of)
    for file, own in by_file.items():
        path = inside(source.root, file)
        if is_free(path) and all(fix.op == "add" for fix in own):
            found.append(_new_file(path, source.root, own))
        else:
            found.append(_edit(_pairs.check_file(source.root, file), own))
    return found


def _edit(path: Path, fixes: Sequence[Fix]) -> Edit:
    """The edit of one file."""
    document = Document(path.read_bytes(), str(path))
    tree = parse(document)
    objects = list(tree.all("object"))
    adds = [fix for fix in fixes if fix.op == "add"]
    splices: list[Splice] = []
    takes_place = False
    for fix in fixes:
        if fix.op == "add":
            continue
        element = _found(document, objects, fix)
        if fix.op == "relabel":
            splices += text(document, _name_of(element), new_label(fix))
        elif fix.op == "move":
            splices += _moved(document, element, objects, fix)
        elif adds and element is objects[-1]:
            takes_place = True
        else:
            splices.append(removed(document, element))
    if adds:
        news = _new_objects(document, objects, path, adds)
        last = objects[-1] if objects else None
        splices.append(inserted(document, tree, last, news, instead=takes_place))
    return Edit(path=path, old_md5=md5(document.content), splices=document.edits(splices))


def _found(document: Document, objects: Sequence[Element], fix: Fix) -> Element:
    """The object of a fix, which still says what the fix expects."""
    item = fix.locator.item
    if not isinstance(item, int) or not 1 <= item <= len(objects):
        raise _conflict(document, None, f"There is no object {item} any more; there are {len(objects)}.")
    element = objects[item - 1]
    fields = {child.name: child for child in reversed(element.children)}
    name = fields["name"].text.strip() if "name" in fields else ""
    if name != fix.old:
        raise _conflict(document, element, f"The class of object {item} is {name!r}; expected {fix.old!r}.")
    box, _ = corners(fields)
    if fix.old_box is not None and not all(map(is_same, box, fix.old_box)):
        raise _conflict(document, element, f"The box of object {item} is {box}; expected {fix.old_box}.")
    return element


def _conflict(document: Document, element: Element | None, what: str) -> ConflictError:
    line = f":{document.line(element.start)}" if element is not None else ""
    return ConflictError(what, where=f"{document.file}{line}", fix="Nothing was changed. Audit again.")


def _name_of(element: Element) -> Element:
    name = element.first("name")
    assert name is not None
    return name


def _moved(document: Document, element: Element, objects: Sequence[Element], fix: Fix) -> Iterator[Splice]:
    assert fix.box is not None
    fields = {child.name: child for child in reversed(element.children)}
    sides = {child.name: child for child in reversed(fields["bndbox"].children)} if "bndbox" in fields else {}
    form = geometry(fields)
    if form != "box" or not set(SIDES) <= set(sides):
        raise InputError(
            f"The object is a {form}; only a box can be moved."
            if form != "box"
            else "The object's <bndbox> isn't complete, so it can't be moved.",
            where=f"{document.file}:{document.line(element.start)}",
            fix="Nothing was changed. Edit it by hand, or remove the object and add another.",
        )
    like = _written_numbers(objects)
    for side, value in zip(SIDES, fix.box, strict=True):
        old, new = number(sides[side].text), written(value, like)
        if not is_same(old, value) and number(new) != old:
            yield from text(document, sides[side], new)


def _written_numbers(objects: Sequence[Element]) -> list[str]:
    """The coordinates as they are written."""
    return [
        side.text
        for element in objects
        for box in element.all("bndbox")
        for side in box.children
        if side.name in SIDES
    ]


# New objects and files


def _new_objects(
    document: Document, objects: Sequence[Element], path: Path, fixes: Sequence[Fix]
) -> list[str]:
    """New objects in the manner of the last one of the file, or of another file."""
    own = [element for element in objects if element.first("bndbox") is not None]
    if own:
        return [_object(document, own[-1], _written_numbers(own), fix) for fix in fixes]
    other, tree = _template(path)
    like = [element for element in tree.all("object") if element.first("bndbox") is not None]
    return [_object(other, like[-1], _written_numbers(like), fix) for fix in fixes]


def _object(document: Document, template: Element, like: Sequence[str], fix: Fix) -> str:
    assert fix.box is not None
    box = {side: written(value, like) for side, value in zip(SIDES, fix.box, strict=True)}
    unknown = {"pose": "Unspecified", "truncated": "0", "difficult": "0", "occluded": "0"}
    return copied(document, template, {"name": new_label(fix), "bndbox": box}, unknown)


def _new_file(path: Path, root: Path, fixes: Sequence[Fix]) -> Write:
    """The annotation file of an image that has none, in the manner of the others in its folder."""
    document, tree = _template(path)
    image = inside(root, fixes[0].sample_id)
    values: dict[str, str | dict[str, str]] = {"filename": image.name}
    size = _size_of(image)
    if size is not None:
        values["size"] = {"width": str(size[0]), "height": str(size[1]), "depth": str(size[2])}
    optional: Values = {"folder": image.parent.name, "segmented": "0", "source": {"database": "Unknown"}}
    declared = _DECLARATION.match(document.data)
    first = declared[0].decode() if declared is not None and document.encoding == "utf-8" else ""
    whole = first + copied(document, tree, values, optional)
    if document.data.endswith((b"\n", b"\r")):
        whole += "\r\n" if document.data.endswith(b"\r\n") else document.data[-1:].decode()
    new = Document(whole.encode(), str(path))
    splice = inserted(new, parse(new), None, _new_objects(document, list(tree.all("object")), path, fixes))
    return Write(path=path, old_md5=None, content=edited(new.content, new.edits([splice])))


def _template(path: Path) -> tuple[Document, Element]:
    """An annotation file of the same folder that has an object with a box, or one as labelImg writes it."""
    for other in islice(sorted(path.parent.glob("*.xml")), 200) if path.parent.is_dir() else ():
        try:
            document = Document(content_of(other), str(other))
            tree = parse(document)
        except (DataAuditError, OSError):
            continue
        if tree.name == "annotation" and any(element.first("bndbox") for element in tree.all("object")):
            return document, tree
    return _default()


@cache
def _default() -> tuple[Document, Element]:
    document = Document(_DEFAULT, "")
    return document, parse(document)


def _size_of(path: Path) -> tuple[int, int, int] | None:
    """Width, height and channels of an image as it is shown; None where it can't be read."""
    try:
        with open_image(path) as opened:
            width, height = opened.size
            if opened.getexif().get(0x0112, 1) in (5, 6, 7, 8):
                width, height = height, width
            return width, height, len(opened.getbands())
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
