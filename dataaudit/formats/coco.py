"""COCO instances: one JSON file with ``images``, ``annotations`` and ``categories``, or one for each split.

The dataset is the file, or a folder with the file in it or in one of its subfolders. Several files are read
together where each is of another split, by its name or its folder's (``instances_train2017.json``,
``train/_annotations.coco.json``). The images are looked for where they usually are, beside the file or the
folder of it, and taken from the folder that has the most of them; the option ``images`` says which it is. The
option ``annotations`` names the files to read.

Boxes are in pixels: ``bbox`` is x, y, width and height. An annotation with a segmentation is a polygon or a
mask, which can be relabeled and removed and not moved; a polygon that is just the rectangle of its box counts
as a box and moves with it. Objects are named by the id of their annotation, or by ``#`` and their number in
the file where that id is missing or not the only one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dataaudit import state
from dataaudit.errors import FormatError
from dataaudit.formats import _cells, _coco_files, _coco_patch
from dataaudit.formats._coco_rows import FLAGS, GEOMETRIES, NO_BOX, Rows, read_rows
from dataaudit.formats._files import content_of
from dataaudit.formats._found import Problems, no_collection, note_unlisted, relative_to, root_of
from dataaudit.formats._pairs import examples
from dataaudit.formats._shared import ObjectRows, absolute, check_name, default_anchor, place
from dataaudit.journal import Operation
from dataaudit.types import Fix, Locator, Source, Tables

NAME = "coco"
DESCRIPTION = "COCO instances: a JSON file with images, annotations and categories, or a folder with one."
OBJECTS = True


def sniff(path: Path) -> bool:
    """Whether `path` is a COCO file with boxes, or a folder with one in it or in a subfolder."""
    return bool(_coco_files.annotation_files(path))


def states(path: Path) -> list[Path]:
    """Where a journal of this dataset could be."""
    path = absolute(path)
    start = path if path.is_dir() else path.parent
    return [
        state.state_dir(_source(path, root, anchor))
        for root in (start, *start.parents[:2])
        for anchor in (root, root.parent)
    ]


@no_collection()
def read(path: Path, *, options: Mapping[str, str] | None = None) -> Tables:
    """Read COCO annotations.

    Args:
        path: the file, or the folder.
        options: ``images``: the folder of the images, relative to the dataset or absolute; ``annotations``:
            the files to read, relative to the folder, separated by commas.

    Returns:
        Images in the order of the files, with sample ids relative to the folder that holds both the
        annotations and the images. What can't be used as it is written is in ``Tables.problems``.

    Raises:
        FormatError: no JSON, with file, line and column; several files that aren't those of splits; no image
            where the file says; no boxes.
        InputError: an option.
    """
    path = absolute(path)
    chosen = dict(options or {})
    files, others = _coco_files.chosen_files(path, chosen)
    problems = Problems()
    reading = [_reading(file, path, chosen) for file in files]
    start = path if path.is_dir() else path.parent
    folders = [each.pictures.folder for each in reading if each.pictures.found]
    root = root_of(start, [*files, *(folder / "x" for folder in folders)])
    for file in others:
        problems.add(
            "annotation file left out",
            f"{relative_to(root, file)} has boxes too and is left out, as others are named instances.",
            Locator(file=relative_to(root, file)),
            severity="note",
        )
    rows = ObjectRows()
    classes: set[str] = set()
    used: list[str] = []
    known: dict[str, str] = {}
    splits = [_coco_files.split_of(file) for file in files]
    for each, split in zip(reading, splits, strict=True):
        _read_file(each, root, split if len(files) > 1 else None, rows, problems, known)
        classes.update(name for name in each.rows.classes if name is not None)
        used.append(each.file.name)
    _check_some(reading, rows, path)
    folders = [each.pictures.folder for each in reading if each.pictures.found]
    note_unlisted(root, folders, rows.filepaths, relative_to(root, reading[0].file), problems)
    rows.problems = problems.all()
    below = path.is_file() and all("/" in each and not each.startswith("/") for each in rows.sample_ids)
    source = place(
        root, root if below else default_anchor(root), lambda anchor: _source(path, root, anchor, chosen)
    )
    return rows.tables(source=source, classes=sorted(classes))


@no_collection()
def patch(source: Source, fixes: Sequence[Fix]) -> list[Operation]:
    """The edits that carry out `fixes`; the images stay where they are.

    A class that the file doesn't have is added to its categories. A dropped image leaves the file with all
    its annotations.

    Raises:
        ConflictError: the file no longer holds what a fix expects.
        InputError: a polygon or mask is to be moved, or an object is to be added to an image without an id.
    """
    root = source.root
    assert root is not None
    path = Path(source.path)
    files, _ = _coco_files.chosen_files(path, source.options)
    return _coco_patch.operations(
        root, [(file, lambda rows: _sample_ids(rows, path, source.options, root)) for file in files], fixes
    )


def class_ids(source: Source) -> dict[int | str, str]:
    """The name of each category id."""
    files, _ = _coco_files.chosen_files(Path(source.path), dict(source.options))
    known: dict[int | str, str] = {}
    for file in files:
        own = read_rows(file, _cells.decode(content_of(file), file))
        pairs = zip(own.categories.ids, own.classes, strict=True)
        known |= {key: name for key, name in pairs if key is not None and name is not None}
    return known


def _source(path: Path, root: Path, anchor: Path, options: Mapping[str, str] | None = None) -> Source:
    return Source(format=NAME, root=root, path=str(path), anchor=anchor, options=dict(options or {}))


# Reading


@dataclass(frozen=True, kw_only=True)
class _Reading:
    file: Path
    rows: Rows
    pictures: _coco_files.Pictures


def _reading(file: Path, path: Path, options: Mapping[str, str]) -> _Reading:
    rows = read_rows(file, _cells.decode(content_of(file), file))
    for key in ("images", "annotations"):
        if key not in rows.arrays:
            raise FormatError(
                f"The file has no array {key!r}.", where=file, fix="Expected a file of COCO instances."
            )
    # The text is needed no more, and with it in memory the tables would take twice as much
    rows.content = type(rows.content)(text="", encoding=rows.content.encoding, bom=rows.content.bom)
    return _Reading(file=file, rows=rows, pictures=_pictures(rows, path, options))


def _pictures(rows: Rows, path: Path, options: Mapping[str, str]) -> _coco_files.Pictures:
    names = [name for name in rows.names if name is not None]
    base = path if path.is_dir() else path.parent
    return _coco_files.pictures_of(rows.file, names, options.get("images"), base)


def _sample_ids(rows: Rows, path: Path, options: Mapping[str, str], root: Path) -> list[str | None]:
    """The sample id of each image entry, as `read` gives it."""
    pictures = _pictures(rows, path, options)
    prefix = f"{root.as_posix()}/"
    return [None if name is None else pictures.path(name).removeprefix(prefix) for name in rows.names]


def _read_file(
    reading: _Reading,
    root: Path,
    split: str | None,
    rows: ObjectRows,
    problems: Problems,
    known: dict[str, str],
) -> None:
    """Add what one file says.

    Args:
        known: sample id to the file that it was met in before; gets those of this file.
    """
    file = relative_to(root, reading.file)
    if reading.rows.content.encoding in ("cp1252", "latin-1"):
        message = f"{file} isn't in UTF-8, as JSON is; it was read as {reading.rows.content.encoding}."
        problems.add("encoding", message, Locator(file=file), severity="note")
    _note_pictures(reading, file, root, problems)
    by_number = _add_images(reading, file, root, split, rows, problems, known)
    owners = _owners(reading.rows, by_number, file, problems)
    names = _names(reading.rows, file, problems)
    _add_objects(reading.rows, file, owners, names, rows, problems)


def _note_pictures(reading: _Reading, file: str, root: Path, problems: Problems) -> None:
    pictures = reading.pictures
    if not pictures.found or (not pictures.others and not pictures.by_name):
        return
    where = relative_to(root, pictures.folder) if pictures.folder != root else "."
    message = f"The images of {file} are taken from {where}, which has {pictures.found} of {pictures.tried}"
    if pictures.by_name:
        message += ", by the last part of their file names"
    if pictures.others:
        message += f"; some are also in {examples([relative_to(root, each) for each in pictures.others])}"
    problems.add(
        "place of the images", f"{message}. The option images says which it is.", Locator(file=file),
        severity="note",
    )  # fmt: skip


def _add_images(
    reading: _Reading,
    file: str,
    root: Path,
    split: str | None,
    rows: ObjectRows,
    problems: Problems,
    known: dict[str, str],
) -> dict[Any, str]:
    """Add the images of a file; return the sample of each image id."""
    own, pictures = reading.rows, reading.pictures
    by_id: dict[Any, str] = {}
    prefix = f"{root.as_posix()}/"
    for number, (key, name, size) in enumerate(zip(own.images.ids, own.names, own.sizes, strict=True), 1):
        item = key if key is not None else f"#{number}"
        where = Locator(file=file, item=item, field="images")
        if name is None:
            problems.add("image without file name", f"The image {item} has no file_name.", where)
            continue
        check_name(name, reading.file)
        filepath = pictures.path(name)
        sample_id = filepath.removeprefix(prefix)
        if ".." in name and not filepath.startswith(prefix) and not Path(name).is_absolute():
            message = f"The file_name {name!r} leads out of the dataset; the image is left out."
            problems.add("image outside the dataset", message, where)
            continue
        if key is None:
            problems.add("image without id", f"{name} has no id.", where, sample_id=sample_id)
        elif key in by_id:
            message = f"The image id {key} is that of {by_id[key]} too; its annotations count for that one."
            problems.add("image id twice", message, where, sample_id=sample_id)
        else:
            by_id[key] = sample_id
        if sample_id in known:
            message = f"{sample_id} is an image again here, and before in {known[sample_id]}."
            problems.add("image twice", message, where, sample_id=sample_id)
            continue
        known[sample_id] = file
        if not pictures.exists(filepath):
            message = f"There is no file {sample_id}."
            problems.add("image file missing", message, where, sample_id=sample_id)
        rows.image(sample_id, filepath, where, split=split, size=size)
    for number, said in own.odd_sizes:
        key = own.images.ids[number]
        where = Locator(file=file, item=key if key is not None else f"#{number + 1}", field="images")
        message = f"The size of the image is {said}; expected two numbers of pixels."
        problems.add("unreadable size", message, where, sample_id=by_id.get(key), severity="note")
    return by_id


def _owners(own: Rows, by_id: Mapping[Any, str], file: str, problems: Problems) -> list[str | None]:
    """The sample of each annotation."""
    owners = [by_id.get(key) for key in own.image_ids]
    if None in owners:
        for number, owner in enumerate(owners):
            if owner is None:
                message = f"The annotation is of the image {own.image_ids[number]!r}, which there isn't."
                problems.add("annotation of an unknown image", message, _locator(own, number, file))
    without = sorted(set(by_id.values()) - set(owners))
    if without:
        message = f"{len(without)} images have no annotations: {examples(without)}."
        problems.add("images without annotations", message, Locator(file=file), severity="note")
    return owners


def _names(own: Rows, file: str, problems: Problems) -> list[str]:
    """The class of each annotation."""
    classes: dict[Any, str] = {}
    for number, (key, name) in enumerate(zip(own.categories.ids, own.classes, strict=True), 1):
        where = Locator(file=file, item=key if key is not None else f"#{number}", field="categories")
        if name is None:
            problems.add("category without name", f"The category {key} has no name.", where)
        elif key is None:
            problems.add("category without id", f"The category {name!r} has no id.", where)
        elif key in classes:
            message = f"The category id {key} is that of {classes[key]!r} and of {name!r}; the first counts."
            problems.add("category id twice", message, where)
        else:
            check_name(name, own.file)
            classes[key] = name
    for name, n in Counter(classes.values()).items():
        if n > 1:
            ids = ", ".join(str(key) for key, other in classes.items() if other == name)
            message = (
                f"The category {name!r} is there {n} times, with the ids {ids}; they count as one class."
            )
            where = Locator(file=file, item=name, field="categories")
            problems.add("category twice", message, where)
    known = [classes.get(key) for key in own.category_ids]
    if None in known:
        for number, each in enumerate(known):
            if each is None:
                message = f"The category {own.category_ids[number]!r} isn't among the categories."
                problems.add("unknown category", message, _locator(own, number, file))
    return [
        name if name is not None else _coco_patch.unknown_class(key)
        for name, key in zip(known, own.category_ids, strict=True)
    ]


def _locator(own: Rows, number: int, file: str) -> Locator:
    key = own.objects.ids[number]
    return Locator(file=file, item=key if key is not None else f"#{number + 1}", field="annotations")


def _items(own: Rows) -> Iterator[int | str]:
    """What names each annotation: its id, or its number where the id isn't the only one."""
    ids = own.objects.ids
    if len(set(ids)) == len(ids) and None not in ids:
        yield from ids
        return
    counts = Counter(ids)
    for number, key in enumerate(ids, start=1):
        yield key if key is not None and counts[key] == 1 else f"#{number}"


def _add_objects(
    own: Rows,
    file: str,
    owners: Sequence[str | None],
    names: Sequence[str],
    rows: ObjectRows,
    problems: Problems,
) -> None:
    boxes = np.frombuffer(own.boxes, dtype=np.float64).reshape(-1, 4)
    with np.errstate(over="ignore", invalid="ignore"):
        corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
    unreadable = ~np.isfinite(corners).all(axis=1)
    corners[unreadable] = np.nan
    bits = np.frombuffer(bytes(own.flags), dtype=np.uint8)
    flags = (bits[:, None] >> np.arange(len(FLAGS), dtype=np.uint8) & 1).astype(bool)
    items = list(_items(own))
    _note_ids(own, items, file, problems)
    for number, kind, message in own.odd:
        where = Locator(file=file, item=items[number], field="annotations")
        problems.add(kind, f"{message}.", where, sample_id=owners[number])
    taken = set(rows.label_ids)
    for number, (owner, item, name, code) in enumerate(
        zip(owners, items, names, own.geometries, strict=True)
    ):
        if owner is None:
            continue
        label_id = f"{owner}:{item}"
        if taken and label_id in taken:
            label_id = f"{owner}:{file}:{item}"
        where = Locator(file=file, item=item, field="annotations")
        rows.owners.append(owner)
        rows.label_ids.append(label_id)
        rows.names.append(name)
        rows.locators.append(where)
        rows.geometries.append(GEOMETRIES[code])
        if unreadable[number]:
            message = own.strange.get(number, "The numbers of the bbox aren't finite")
            problems.add("unreadable box", f"{message}.", where, sample_id=owner, label_id=label_id)
    kept = np.array([owner is not None for owner in owners], dtype=bool)
    rows.corners += corners[kept].tolist()
    rows.flags += flags[kept].tolist()


def _note_ids(own: Rows, items: Sequence[int | str], file: str, problems: Problems) -> None:
    """Report the ids of annotations that name none, or several."""
    for number, (item, key) in enumerate(zip(items, own.objects.ids, strict=True), start=1):
        if item is not key and isinstance(item, str) and item.startswith("#") and item != key:
            what = "has no id" if key is None else f"has the id {key}, which isn't the only one"
            message = f"The annotation number {number} {what}."
            problems.add("annotation id missing or twice", message, Locator(file=file, item=item))


def _check_some(reading: Sequence[_Reading], rows: ObjectRows, path: Path) -> None:
    if not rows.sample_ids:
        raise FormatError("There are no images in the annotations.", where=path)
    if not any(each.pictures.found for each in reading):
        raise FormatError(
            f"None of the {len(rows.sample_ids)} images is there; the first would be {rows.filepaths[0]}.",
            where=path,
            fix="Put the images beside the annotations, or say where they are with the option images.",
        )
    n = sum(len(each.rows.objects.ids) for each in reading)
    if n and n == sum(list(each.rows.strange.values()).count(NO_BOX) for each in reading):
        raise FormatError(
            f"None of the {n} annotations has a bbox.",
            where=reading[0].file,
            fix="Expected COCO instances, where each annotation has one.",
        )
