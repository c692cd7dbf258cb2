"""CVAT for images, XML 1.1: one file with an ``<image>`` for each image and its shapes inside.

The dataset is the file, or a folder with one such file. Images are looked for by their names beside the
file, in ``images/`` or ``data/``, and there in the folder of their subset.

Boxes, polygons, masks and ellipses are objects; polylines, points, cuboids and skeletons bound none and are
passed over, with a note. Of what isn't an upright box the corners are those of the bounding box, and it can
be relabeled and removed, not moved. Where the file lists its classes, a new one is added to the list. An
image that leaves the dataset leaves the file; the picture stays.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dataaudit import state
from dataaudit.errors import FormatError, InputError
from dataaudit.formats import _cvat_edits, _pairs
from dataaudit.formats._cvat_shapes import SHAPES, corners, geometry, is_set
from dataaudit.formats._files import content_of, head_of, why_unread
from dataaudit.formats._found import Problems, note_unlisted
from dataaudit.formats._numbers import number, whole
from dataaudit.formats._shared import ObjectRows, absolute, is_ignored, place
from dataaudit.formats._xml import Document, Element, parse
from dataaudit.journal import Operation
from dataaudit.types import Fix, Locator, Problem, Source, Tables

NAME = "cvat"
DESCRIPTION = "CVAT for images 1.1: one XML file with the boxes, polygons and masks of all images."
OBJECTS = True

_ROOT = re.compile(rb"<annotations[\s>]")
_PARTS = re.compile(rb"<(?:meta|image|track|version)[\s>/]")
_FOLDERS = ("", "images/", "data/")
_TRACKS = "CVAT for video: it has tracks over frames, and no images."


def sniff(path: Path) -> bool:
    """Whether `path` is a CVAT file, or a folder with one in it."""
    return _is_cvat(path) if path.is_file() else path.is_dir() and bool(_files(path))


def states(path: Path) -> list[Path]:
    """Where a journal of this dataset could be."""
    path = absolute(path)
    files = (
        [path] if not path.is_dir() else [each for each in path.iterdir() if each.suffix.lower() == ".xml"]
    )
    return [
        state.state_dir(_source(file, anchor))
        for file in files
        for anchor in (file.parent, file.parent.parent)
    ]


def read(path: Path, *, options: Mapping[str, str] | None = None) -> Tables:
    """Read a CVAT file.

    Args:
        path: the file, or a folder with one in it.
        options: ``images``: the folder of the images, relative to that of the file.

    Returns:
        Images and objects in the order of the file. The `item` of a locator is the number of the image in
        the file and that of the shape in the image, both from 1, as ``3/1``. What can't be used as it is
        written is in `Tables.problems`.

    Raises:
        FormatError: not well-formed, a file of tracks over video frames, several files, or no image where
            the names say.
        InputError: an option that isn't known.
    """
    file = _file(absolute(path))
    root = file.parent
    for key in options or {}:
        if key != "images":
            raise InputError(f"The format {NAME!r} has no option {key!r}; it has the option images.")
    reading = _Reading(file=file, find=finder(root, options or {}))
    parse(Document(content_of(file), str(file)), reading.take)
    if not reading.n_images:
        raise FormatError("The file has no <image>.", where=file)
    if not reading.rows.sample_ids:
        raise FormatError(
            f"None of the {reading.n_images} images is there, such as {reading.lost[0]}.",
            where=file,
            fix="Put the images beside the file, or into images/; or name their folder in the option images.",
        )
    source = place(root, root, lambda anchor: _source(file, anchor, options))
    reading.report()
    problems = Problems()
    used = [Path(each).parent for each in reading.rows.filepaths]
    note_unlisted(root, used, reading.rows.filepaths, file.name, problems)
    reading.rows.problems += problems.all()
    reading.rows.problems = _pairs.capped(reading.rows.problems)
    return reading.rows.tables(source=source, classes=reading.classes)


def patch(source: Source, fixes: Sequence[Fix]) -> list[Operation]:
    """The edit that carries out `fixes`.

    Raises:
        ConflictError: the file no longer holds what a fix expects.
        InputError: a fix that can't be carried out, such as the move of a polygon.
    """
    if source.root is None:
        raise InputError("A CVAT dataset has a root folder.", where=source.path)
    file = _pairs.check_file(source.root, Path(source.path).name)
    return [_cvat_edits.edit(file, fixes, finder(source.root, source.options))]


def finder(root: Path, options: Mapping[str, str]) -> Callable[[Element], str | None]:
    """The path of the picture of an ``<image>``, relative to `root`; None where there is none."""
    chosen = options.get("images")
    folders = _FOLDERS if chosen is None else (chosen.strip("/") + "/",)

    def find(image: Element) -> str | None:
        name = image.attributes.get("name", "").replace("\\", "/")
        subset = image.attributes.get("subset", "")
        names = [name] + ([f"{subset}/{name}"] if subset else [])
        if "/" in name:
            names.append(name.rpartition("/")[2])
        for folder in folders:
            for each in names:
                relative = os.path.normpath(folder + each).replace(os.sep, "/")
                outside = not each or relative.startswith(("../", "/")) or relative in (".", "..")
                if not outside and os.path.isfile(root / relative):  # noqa: PTH113 - also of a name too long
                    return relative
        return None

    return find


def _source(file: Path, anchor: Path, options: Mapping[str, str] | None = None) -> Source:
    return Source(format=NAME, root=file.parent, path=str(file), anchor=anchor, options=dict(options or {}))


# Finding the file


def _files(folder: Path) -> list[Path]:
    named = sorted(file for file in folder.iterdir() if file.suffix.lower() == ".xml")
    return [file for file in named if not is_ignored(file.name) and file.is_file() and _is_cvat(file)]


def _is_cvat(file: Path) -> bool:
    if file.suffix.lower() != ".xml":
        return False
    head = head_of(file, 65536).replace(b"\0", b"")
    return _ROOT.search(head) is not None and _PARTS.search(head) is not None


def _file(path: Path) -> Path:
    if path.is_file():
        return path
    found = _files(path) if path.is_dir() else []
    if len(found) > 1:
        raise FormatError(
            f"The folder has several CVAT files: {', '.join(file.name for file in found)}.",
            where=path,
            fix=f"Give the path of one, such as {found[0]}.",
        )
    if not found:
        raise FormatError(
            "The folder has no CVAT file: no .xml with <annotations>.",
            where=path,
            fix=why_unread(sorted(path.glob("*.xml"))) or None,
        )
    return found[0]


# Reading it


@dataclass(kw_only=True)
class _Reading:
    """What was read of a file so far."""

    file: Path
    find: Callable[[Element], str | None]
    rows: ObjectRows = field(default_factory=ObjectRows)
    classes: list[str] = field(default_factory=list)
    n_images: int = 0
    lost: list[str] = field(default_factory=list)
    passed_over: Counter[str] = field(default_factory=Counter)
    first_passed_over: Locator | None = None
    seen: dict[str, int] = field(default_factory=dict)

    def take(self, element: Element) -> None:
        """Take a child of the root."""
        if element.name == "meta":
            self.classes += class_names(element)
        elif element.name == "track":
            raise FormatError(
                _TRACKS, where=self.file, fix="Export the task as 'CVAT for images 1.1', or as COCO."
            )
        elif element.name == "image":
            self.n_images += 1
            self._image(element)

    def _image(self, element: Element) -> None:
        at = Locator(file=self.file.name, item=str(self.n_images))
        name = element.attributes.get("name", "")
        sample_id = self.find(element)
        n_shapes = len(element.children)
        if sample_id is None:
            self.lost.append(name)
            message = f"The image {name!r} isn't there; its {n_shapes} shapes are left out."
            self._problem("image missing", message, at)
            return
        if sample_id in self.seen:
            message = f"{sample_id} is the image {self.seen[sample_id]} already; "
            message += f"these {n_shapes} shapes are left out."
            self._problem("image annotated twice", message, at, sample_id)
            return
        self.seen[sample_id] = self.n_images
        size = element.attributes.get("width", ""), element.attributes.get("height", "")
        for side in size:
            if side and whole(side) is None and number(side) != 0:
                message = f"The size says {side!r}; expected a whole number of pixels."
                self._problem("unreadable size", message, at, sample_id, note=True)
        split = element.attributes.get("subset") or _pairs.split_of(sample_id)
        sizes = whole(size[0]), whole(size[1])
        self.rows.image(sample_id, str(self.file.parent / sample_id), at, split=split, size=sizes)
        for item, shape in enumerate(element.children, start=1):
            self._shape(shape, sample_id, item)

    def _shape(self, shape: Element, sample_id: str, item: int) -> None:
        at = Locator(file=self.file.name, item=f"{self.n_images}/{item}")
        if shape.name not in SHAPES:
            if shape.name not in ("tag", "attribute"):
                self.passed_over[shape.name] += 1
                self.first_passed_over = self.first_passed_over or at
            return
        label_id = f"{sample_id}:{item}"
        name = shape.attributes.get("label", "")
        if not name.strip():
            message = f"The shape {item} of {sample_id} has no class; it is left out."
            self._problem("object without class", message, at, sample_id)
            return
        box, wrong = corners(shape)
        if wrong:
            self._problem("unreadable box", wrong, at, sample_id, label_id)
        flags = {
            (child.attributes.get("name") or "").lower(): is_set(child.text)
            for child in shape.all("attribute")
        }
        self.rows.object(
            sample_id,
            label_id,
            name,
            box,
            at,
            geometry=geometry(shape),
            crowd=flags.get("iscrowd", False) or flags.get("is_crowd", False) or flags.get("crowd", False),
            difficult=flags.get("difficult", False),
            truncated=flags.get("truncated", False),
            occluded=is_set(shape.attributes.get("occluded", "")) or flags.get("occluded", False),
        )

    def _problem(
        self,
        kind: str,
        message: str,
        at: Locator,
        sample_id: str | None = None,
        label_id: str | None = None,
        *,
        note: bool = False,
    ) -> None:
        self.rows.problems.append(
            Problem(
                kind=kind,
                message=message,
                locator=at,
                sample_id=sample_id,
                label_id=label_id,
                severity="note" if note else "error",
            )
        )

    def report(self) -> None:
        """Report what is known when all was read."""
        if self.first_passed_over is not None:
            counted = ", ".join(f"{n} {name}" for name, n in sorted(self.passed_over.items()))
            message = f"Shapes that bound no object are passed over: {counted}."
            self._problem("shape passed over", message, self.first_passed_over, note=True)
        strange = sorted(set(self.rows.names) - set(self.classes)) if self.classes else []
        if strange:
            message = f"The list of labels lacks {', '.join(map(repr, strange))}, which shapes have."
            self._problem("class not in the list", message, Locator(file=self.file.name), note=True)


def class_names(meta: Element) -> list[str]:
    """The classes that the ``<meta>`` of a file lists."""
    return [
        name.text.strip()
        for label in _cvat_edits.labels(meta)
        for name in label.all("name")
        if name.text.strip()
    ]
