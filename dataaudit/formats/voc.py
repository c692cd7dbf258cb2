"""Pascal VOC: an XML file for each image, with an ``<object>`` for each of its objects.

Found as ``Annotations/`` beside ``JPEGImages/`` (with splits in ``ImageSets/Main/*.txt``), ``annotations/``
beside ``images/``, XML files beside their images, and any of these in folders named train, valid, test.

An XML file belongs to the image of the same name without its ending; where there is none, to the one that
its ``<filename>`` names. Coordinates are taken as they are written: those of the Pascal VOC challenge itself
count pixels from 1 and include the last one, those of most tools count from 0, and the files don't say which.
``<part>`` elements inside an object are no objects.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from dataaudit import state
from dataaudit.errors import FormatError, InputError
from dataaudit.formats import _pairs, _voc_edits
from dataaudit.formats._files import content_of, head_of
from dataaudit.formats._lists import listed_splits
from dataaudit.formats._numbers import number, whole
from dataaudit.formats._shared import ObjectRows, absolute, default_anchor, place
from dataaudit.formats._xml import Document, Element, parse
from dataaudit.journal import Operation
from dataaudit.types import Fix, Locator, Problem, Source, Tables

NAME = "voc"
DESCRIPTION = (
    "Pascal VOC: an XML file for each image, in Annotations/ beside JPEGImages/ or beside the images."
)
OBJECTS = True

ANNOTATION_FOLDERS = ("annotations", "annotation", "labels", "label", "xml", "xmls", "annots")
IMAGE_FOLDERS = ("jpegimages", "images", "image", "imgs", "img", "data")

_ROOT = re.compile(rb"<(?:[\w.-]+:)?annotation[\s>/]")
_SAMPLE = 50
_NO_FLAG = frozenset({"", "true", "false", "yes", "no", "unspecified", "none"})


def sniff(path: Path) -> bool:
    """Whether `path` is a folder with Pascal VOC files in it."""
    if not path.is_dir():
        return False
    return any(
        _is_annotation(file) for file in islice(_pairs.near_files(path, ".xml", ANNOTATION_FOLDERS), _SAMPLE)
    )


def states(path: Path) -> list[Path]:
    """Where a journal of this dataset could be."""
    root = absolute(path)
    return [state.state_dir(_source(root, anchor)) for anchor in (root, root.parent)]


def read(path: Path, *, options: Mapping[str, str] | None = None) -> Tables:
    """Read a Pascal VOC dataset.

    Args:
        path: the root folder.
        options: ``images`` and ``annotations``: folders below the root, where they aren't found by their
            names.

    Returns:
        Images in the order of their paths, objects in the order of their file. Corners are xmin, ymin, xmax
        and ymax as they are written. An object's number, from 1, is the `item` of its locator. An image of a
        folder in which others have an annotation file is one without objects. What can't be used as it is
        written is in `Tables.problems`.

    Raises:
        FormatError: no annotation file can be read, or none has its image.
        InputError: an option that isn't known, or a folder that isn't there.
    """
    root = absolute(path)
    named = _pairs.folder_options(options, NAME, root)
    rows = ObjectRows()
    found = _paired(root, named, rows.problems)
    without, _ = _pairs.unannotated(found.images, tuple(found.files), rows.problems)
    bases = {base for file in found.files.values() for base in _pairs.above(file)}
    listed = listed_splits(root, sorted(bases), found.images, rows.problems)
    misnamed: list[tuple[str, str]] = []
    new_file, n_read = _pairs.new_files(found.files, ".xml"), 0
    for image in sorted([*found.files, *without]):
        file = found.files.get(image)
        at = Locator(file=file if file is not None else new_file(image))
        tree = None
        if file is not None:
            tree = _tree(root, file, image, rows.problems)
            n_read += tree is not None
        rows.image(
            image,
            str(root / image),
            at,
            split=listed(image) or _pairs.split_of(image),
            size=_size(tree, at, image, rows.problems),
        )
        if tree is not None:
            _add_objects(rows, tree, at.file, image)
            misnamed += [(at.file, name) for name in _other_name(tree, image)]
    _note_names(misnamed, set(found.images), rows.problems)
    if not n_read:
        raise FormatError(
            f"None of the {len(found.files)} annotation files can be read. {rows.problems[0].message}",
            where=root,
        )
    source = place(root, default_anchor(root), lambda anchor: _source(root, anchor, options))
    rows.problems = _pairs.capped(rows.problems)
    return rows.tables(source=source)


def patch(source: Source, fixes: Sequence[Fix]) -> list[Operation]:
    """The operations that carry out `fixes`: bytes of annotation files, and the moves of dropped images.

    Raises:
        ConflictError: a file no longer holds what its fix expects.
        InputError: a fix that can't be carried out, such as the move of a polygon.
    """
    if source.root is None:
        raise InputError("A Pascal VOC dataset has a root folder.", where=source.path)
    root = source.root
    known: dict[str, str] = {}

    def annotation_of(fix: Fix) -> str | None:
        if fix.locator.file.lower().endswith(".xml"):
            return fix.locator.file if (root / fix.locator.file).exists() else None
        if not known:
            known.update(_paired(root, _pairs.folder_options(source.options, NAME, root), []).files)
        return known.get(fix.sample_id)

    return _voc_edits.operations(source, fixes, annotation_of)


def _source(root: Path, anchor: Path, options: Mapping[str, str] | None = None) -> Source:
    return Source(format=NAME, root=root, path=str(root), anchor=anchor, options=dict(options or {}))


# Which file belongs to which image


@dataclass(frozen=True, kw_only=True)
class _Paired:
    """The images, and the annotation file of each that has one."""

    images: tuple[str, ...]
    files: dict[str, str] = field(default_factory=dict)


def _paired(root: Path, named: Mapping[str, str], problems: list[Problem]) -> _Paired:
    walked = _pairs.walk(root, ".xml", named)
    images = _pairs.Images(walked.images, ANNOTATION_FOLDERS, IMAGE_FOLDERS, named)
    paired = _Paired(images=walked.images)
    left_out: set[str] = set()
    for file in walked.annotations:
        candidates = images.of(file)
        if not candidates:
            candidates = _by_filename(root, file, images, problems)
        elif len(candidates) > 1:
            chosen = _one(root, file, candidates)
            left_out.update(_pairs.others(file, candidates, chosen, problems))
            candidates = [chosen]
        for image in candidates:
            _pairs.pair(paired.files, image, file, problems)
    _pairs.check_some(walked, paired.files, root, "Pascal VOC")
    kept = tuple(image for image in walked.images if image not in left_out or image in paired.files)
    return _Paired(images=kept, files=paired.files)


def _by_filename(root: Path, file: str, images: _pairs.Images, problems: list[Problem]) -> list[str]:
    """The image that a file names, which has no image of its own name."""
    if not _is_annotation(root / file):
        return []
    tree = _tree(root, file, None, problems)
    name = _text(tree, "filename") if tree is not None else ""
    found = images.named(file, name) if name else []
    if not found and tree is not None:
        n = sum(1 for _ in tree.all("object"))
        message = f"There is no image {_pairs.stem_of(file)} for this annotation file with {n} objects"
        message += f", nor the image {name!r} that it names." if name else "."
        where = Locator(file=file)
        problems.append(Problem(kind="annotation file without image", message=message, locator=where))
    return found


def _one(root: Path, file: str, candidates: Sequence[str]) -> str:
    """The image that a file belongs to where several have its name."""
    tree = _tree(root, file, None, [])
    name = _text(tree, "filename") if tree is not None else ""
    chosen = [image for image in candidates if image.endswith("/" + name) or image == name] or candidates
    return chosen[0]


def _is_annotation(file: Path) -> bool:
    return _ROOT.search(head_of(file, 8192).replace(b"\0", b"")) is not None


# What a file says


def _tree(root: Path, file: str, image: str | None, problems: list[Problem]) -> Element | None:
    """The root element of a file; None, and a problem, where it can't be read."""
    try:
        tree = parse(Document(content_of(root / file, file), file))
        if tree.name != "annotation":
            raise FormatError(f"The root element is {tree.tag!r}; expected 'annotation'.", where=f"{file}:1")
        return tree
    except FormatError as error:
        problems.append(
            Problem(
                kind="unreadable annotation file",
                message=f"{error} Its objects are left out.",
                locator=Locator(file=file),
                sample_id=image,
            )
        )
        return None


def _text(element: Element | None, name: str) -> str:
    child = element.first(name) if element is not None else None
    return child.text.strip() if child is not None else ""


def _size(
    tree: Element | None, at: Locator, image: str, problems: list[Problem]
) -> tuple[int | None, int | None]:
    size = tree.first("size") if tree is not None else None
    if size is None:
        return None, None
    width, height = _text(size, "width"), _text(size, "height")
    for side in (width, height):
        if side and whole(side) is None and number(side) != 0:
            message = f"The size says {side!r}; expected a whole number of pixels."
            problems.append(
                Problem(kind="unreadable size", message=message, locator=at, sample_id=image, severity="note")
            )
    return whole(width), whole(height)


def _add_objects(rows: ObjectRows, tree: Element, file: str, image: str) -> None:
    for item, element in enumerate(tree.all("object"), start=1):
        at, label_id = Locator(file=file, item=item), f"{image}:{item}"
        fields = {child.name: child for child in reversed(element.children)}
        name = fields["name"].text if "name" in fields else ""
        if not name.strip():
            message = f"The object {item} has no class; it is left out."
            rows.problems.append(
                Problem(kind="object without class", message=message, locator=at, sample_id=image)
            )
            continue
        if name != name.strip() and "\n" not in name:
            message = f"There is space around the class {name!r}; it counts as {name.strip()!r}."
            rows.problems.append(
                Problem(
                    kind="space around class", message=message, locator=at, sample_id=image,
                    label_id=label_id, severity="note",
                )
            )  # fmt: skip
        _note_flags(fields, at, image, rows.problems)
        corners, wrong = _voc_edits.corners(fields)
        if wrong:
            rows.problems.append(
                Problem(kind="unreadable box", message=wrong, locator=at, sample_id=image, label_id=label_id)
            )
        rows.object(
            image, label_id, name.strip(), corners, at,
            geometry=_voc_edits.geometry(fields),
            difficult=_is_set(fields.get("difficult")),
            truncated=_is_set(fields.get("truncated")),
            occluded=_is_set(fields.get("occluded")),
        )  # fmt: skip


def _note_flags(fields: Mapping[str, Element], at: Locator, image: str, problems: list[Problem]) -> None:
    """Report flags that are neither yes nor no."""
    for flag in ("difficult", "truncated", "occluded"):
        said = fields[flag].text.strip() if flag in fields else ""
        if said.lower() not in _NO_FLAG and math.isnan(number(said)):
            message = f"<{flag}> is {said[:40]!r}, which counts as 0; expected 0 or 1."
            problems.append(
                Problem(kind="unreadable flag", message=message, locator=at, sample_id=image, severity="note")
            )


def _is_set(element: Element | None) -> bool:
    if element is None:
        return False
    value = element.text.strip().lower()
    return value in ("true", "yes") or number(value) > 0


def _other_name(tree: Element, image: str) -> list[str]:
    """The name that a file gives, where that is another than its image's."""
    name = _text(tree, "filename").replace("\\", "/").rpartition("/")[2]
    return [name] if name and _pairs.stem_of(image) not in (name, _pairs.stem_of(name)) else []


def _note_names(misnamed: Sequence[tuple[str, str]], images: set[str], problems: list[Problem]) -> None:
    """Report the files that name another image than the one they belong to."""
    names = {image.rpartition("/")[2] for image in images}
    harmless = [(file, name) for file, name in misnamed if name not in names]
    for file, name in misnamed:
        if name in names:
            problems.append(
                Problem(
                    kind="another image named",
                    message=f"It names the image {name!r}, and counts for the image of its own name.",
                    locator=Locator(file=file, field="filename"),
                )
            )
    if harmless:
        message = (
            f"{len(harmless)} files name an image that isn't there and count for the image of their own "
        )
        message += f"name, such as {harmless[0][0]}, which names {harmless[0][1]!r}."
        where = Locator(file=harmless[0][0], field="filename")
        problems.append(Problem(kind="file name differs", message=message, locator=where, severity="note"))
