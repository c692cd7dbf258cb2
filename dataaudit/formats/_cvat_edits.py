"""The edit of a CVAT file that carries out fixes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dataaudit.errors import ConflictError, InputError
from dataaudit.formats._cvat_shapes import PASSED_OVER, SHAPES, SIDES, corners, geometry
from dataaudit.formats._numbers import is_same, number, written
from dataaudit.formats._shared import new_label
from dataaudit.formats._xml import (
    Document,
    Element,
    Splice,
    attribute,
    copied,
    escaped,
    inserted,
    parse,
    removed,
)
from dataaudit.journal import Edit, md5
from dataaudit.types import Fix

__all__ = ["edit", "labels"]

_DEFAULT = b"""<annotations>
  <image id="0" name="">
    <box label="" source="manual" occluded="0" xtl="0.00" ytl="0.00" xbr="0.00" ybr="0.00" z_order="0">
    </box>
  </image>
</annotations>
"""
_COPIED = ("label", "source", "occluded", *SIDES, "z_order")
_ENOUGH = 1000


def labels(meta: Element) -> Iterator[Element]:
    """The ``<label>`` elements that list the classes, wherever the task, job or project has them."""
    for holder in _holders(meta):
        yield from holder.all("label")


def edit(file: Path, fixes: Sequence[Fix], find: Callable[[Element], str | None]) -> Edit:
    """The edit of a file.

    Args:
        file: the CVAT file.
        fixes: at most one a label.
        find: the relative path of the picture of an ``<image>``.

    Raises:
        ConflictError: the file no longer holds what a fix expects.
        InputError: a fix that can't be carried out.
    """
    document = Document(file.read_bytes(), str(file))
    editing = _Editing(document=document, find=find)
    for fix in fixes:
        number_of_image = str(fix.locator.item).partition("/")[0]
        editing.wanted.setdefault(number_of_image, []).append(fix)
        if fix.op == "merge" and fix.new is not None:
            editing.kept.add(fix.new)
    parse(document, editing.take)
    editing.finish()
    return Edit(path=file, old_md5=md5(document.content), splices=document.edits(editing.splices))


@dataclass(kw_only=True)
class _Editing:
    """The edits found so far."""

    document: Document
    find: Callable[[Element], str | None]
    wanted: dict[str, list[Fix]] = field(default_factory=dict)
    kept: set[str] = field(default_factory=set)
    meta: Element | None = None
    boxes: list[Element] = field(default_factory=list)
    numbers: list[str] = field(default_factory=list)
    touched: list[tuple[Element, list[Fix]]] = field(default_factory=list)
    splices: list[Splice] = field(default_factory=list)
    n_images: int = 0

    def take(self, element: Element) -> None:
        """Take a child of the root."""
        if element.name == "meta":
            self.meta = element
        if element.name != "image":
            return
        self.n_images += 1
        if len(self.numbers) < _ENOUGH:
            boxes = [shape for shape in element.all("box") if set(SIDES) <= set(shape.attributes)]
            self.boxes = self.boxes or boxes[:1]
            self.numbers += [box.attributes[side] for box in boxes for side in SIDES]
        if self.kept and (found := self.find(element)) is not None:
            self.kept.discard(found)
        if str(self.n_images) in self.wanted:
            self.touched.append((element, self.wanted.pop(str(self.n_images))))

    def finish(self) -> None:
        """Make the edits, when the whole file is known."""
        for fixes in self.wanted.values():
            raise _conflict(self.document, None, f"There is no image {fixes[0].locator.item} any more.")
        for sample_id in self.kept:
            raise _conflict(self.document, None, f"The sample to keep, {sample_id}, is gone.")
        new_classes: dict[str, None] = {}
        for image, fixes in self.touched:
            self._image(image, fixes)
            new_classes |= {new_label(fix): None for fix in fixes if fix.op in ("relabel", "add")}
        self._list_classes(list(new_classes))

    def _image(self, image: Element, fixes: Sequence[Fix]) -> None:
        found = self.find(image)
        for fix in fixes:
            if fix.sample_id != found:
                raise _conflict(self.document, image, f"The image is {found}; expected {fix.sample_id}.")
        if any(fix.op in ("drop", "merge") for fix in fixes):
            if len(fixes) > 1:
                raise InputError(f"{found} leaves the dataset; its objects can't be edited too.")
            self.splices.append(removed(self.document, image))
            return
        shapes = [child for child in image.children if child.name in (*SHAPES, *PASSED_OVER)]
        last = shapes[-1] if shapes else None
        adds = [fix for fix in fixes if fix.op == "add"]
        takes_place = False
        for fix in fixes:
            if fix.op == "add":
                continue
            shape = self._shape(image, fix)
            if fix.op == "relabel":
                self.splices.append(attribute(self.document, shape, "label", new_label(fix)))
            elif fix.op == "move":
                self.splices += self._moved(shape, fix)
            elif adds and shape is last:
                takes_place = True
            else:
                self.splices.append(removed(self.document, shape))
        if adds:
            news = [self._new_box(fix) for fix in adds]
            self.splices.append(inserted(self.document, image, last, news, instead=takes_place))

    def _shape(self, image: Element, fix: Fix) -> Element:
        """The shape of a fix, which still says what the fix expects."""
        item = str(fix.locator.item).partition("/")[2]
        if not item.isdecimal() or not 1 <= int(item) <= len(image.children):
            raise _conflict(self.document, image, f"There is no shape {fix.locator.item} any more.")
        shape = image.children[int(item) - 1]
        name = shape.attributes.get("label", "")
        if shape.name not in SHAPES or name != fix.old:
            what = (
                f"The shape {fix.locator.item} is a {shape.name} of the class {name!r}; expected {fix.old!r}."
            )
            raise _conflict(self.document, shape, what)
        box, _ = corners(shape)
        if fix.old_box is not None and not all(map(is_same, box, fix.old_box)):
            what = f"The box of the shape {fix.locator.item} is {box}; expected {fix.old_box}."
            raise _conflict(self.document, shape, what)
        return shape

    def _moved(self, shape: Element, fix: Fix) -> Iterator[Splice]:
        assert fix.box is not None
        form = geometry(shape)
        if form != "box":
            what = "rotated box" if form == "rotated" else form
            raise InputError(
                f"The object is a {what}; only an upright box can be moved.",
                where=f"{self.document.file}:{self.document.line(shape.start)}",
                fix="Nothing was changed. Edit it in CVAT, or remove the object and add another.",
            )
        for side, value in zip(SIDES, fix.box, strict=True):
            old, new = number(shape.attributes.get(side, "")), written(value, self.numbers or ["0.00"])
            if not is_same(old, value) and number(new) != old:
                yield attribute(self.document, shape, side, new)

    def _new_box(self, fix: Fix) -> str:
        """A box as the first one of the file is written, or as CVAT writes it."""
        assert fix.box is not None
        document, template = (self.document, self.boxes[0]) if self.boxes else _default()
        texts = [written(value, self.numbers or ["0.00"]) for value in fix.box]
        values = {"label": new_label(fix), "source": "manual", "occluded": "0", "z_order": "0"}
        values |= dict(zip(SIDES, texts, strict=True))
        names = [name for name in template.attributes if name in _COPIED]
        attributes = " ".join(f'{name}="{_in_quotes(values[name])}"' for name in names)
        if document.is_closed(template):
            return f"<{template.tag} {attributes}/>"
        inner = document.data[document.opened(template) : template.stop]
        space = inner[len(inner.rstrip(b" \t\r\n")) :].decode()
        return f"<{template.tag} {attributes}>{space}</{template.tag}>"

    def _list_classes(self, names: Sequence[str]) -> None:
        """Add classes to the list of the file, where it has one."""
        if self.meta is None:
            return
        for holder in _holders(self.meta):
            known = [label for label in holder.all("label") if label.first("name") is not None]
            has = {name.text.strip() for label in known for name in label.all("name")}
            news = [name for name in names if name not in has]
            if known and news:
                values = [
                    copied(self.document, known[-1], {"name": name}, {"type": "any", "attributes": ""})
                    for name in news
                ]
                self.splices.append(inserted(self.document, holder, known[-1], values))


def _holders(meta: Element) -> Iterator[Element]:
    for child in meta.children:
        if child.name == "labels":
            yield child
        elif child.name in ("task", "job", "project"):
            yield from _holders(child)


def _conflict(document: Document, element: Element | None, what: str) -> ConflictError:
    line = f":{document.line(element.start)}" if element is not None else ""
    return ConflictError(what, where=f"{document.file}{line}", fix="Nothing was changed. Audit again.")


def _in_quotes(value: str) -> str:
    return escaped(value).replace('"', "&quot;").replace("\n", "&#10;").replace("\t", "&#9;")


def _default() -> tuple[Document, Element]:
    document = Document(_DEFAULT, "")
    return document, parse(document).children[0].children[0]
