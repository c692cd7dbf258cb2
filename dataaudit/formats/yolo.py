"""YOLO (v5 to v11): a text file for each image, with a line ``class cx cy w h`` for each object.

The dataset is a ``data.yaml`` (its ``train``, ``val`` and ``test`` may be folders, lists of images, or
several of either), a folder with one, or a folder with ``images/`` and ``labels/`` and a class list
(``classes.txt``, ``obj.names``), with or without splits above or below them; images and their label files
may also lie in one folder. Labels are where the trainers look for them: ``labels`` in place of the last
``images`` in the path; else in ``labels/`` beside the ``data.yaml``, or beside the image.

Numbers are relative to the image. A line with a class and three or more points is a polygon, which can be
relabeled and removed and not moved. Objects are named by the number of their line. A class that isn't in the
class list is added to it when a fix needs it. Options: ``config``, the name of the ``data.yaml``; ``images``,
what its splits are relative to, or the folder of the images; ``labels``, the folder of the labels; ``names``,
the class list.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from dataaudit import state
from dataaudit.errors import FormatError
from dataaudit.formats import _yolo_files, _yolo_names, _yolo_patch
from dataaudit.formats._files import content_of
from dataaudit.formats._found import Problems, no_collection, relative_to, root_of
from dataaudit.formats._pairs import examples
from dataaudit.formats._shared import ObjectRows, absolute, default_anchor, place
from dataaudit.formats._yolo_files import Layout
from dataaudit.formats._yolo_lines import Line, lines_of, parsed
from dataaudit.journal import Operation
from dataaudit.types import Fix, Locator, Source, Tables

NAME = "yolo"
DESCRIPTION = "YOLO: a data.yaml, or images/ and labels/, with a text file of boxes for each image."
OBJECTS = True


def sniff(path: Path) -> bool:
    """Whether `path` is a ``data.yaml``, or a folder with one or with images and YOLO labels."""
    return _yolo_files.sniff(path)


def states(path: Path) -> list[Path]:
    """Where a journal of this dataset could be."""
    start = _start(absolute(path))
    return [
        state.state_dir(_source(start, root, anchor))
        for root in (start, *start.parents[:2])
        for anchor in (root, root.parent)
    ]


@no_collection()
def read(path: Path, *, options: Mapping[str, str] | None = None) -> Tables:
    """Read a YOLO dataset.

    Args:
        path: the folder, or the ``data.yaml``.
        options: see the format.

    Returns:
        Images by split in the order of their paths; sample ids are relative to the folder that holds both the
        images and the labels. What can't be used as it is written is in ``Tables.problems``.

    Raises:
        FormatError: no images or no label files, or a ``data.yaml`` that can't be read.
        InputError: an option.
    """
    path = absolute(path)
    if not path.exists():
        raise FormatError("There is no such file or folder.", where=path)
    start, chosen = _start(path), dict(options or {})
    if path.is_file():
        chosen.setdefault("config", path.name)
    layout = _yolo_files.layout_of(start, chosen)
    root = _root(layout, start)
    problems = Problems()
    rows = ObjectRows()
    home = (
        Locator(file=relative_to(root, layout.config.file or start)) if root != start else Locator(file=".")
    )
    if layout.config.file is not None:
        home = Locator(file=relative_to(root, layout.config.file))
    for kind, message, is_note in layout.notes:
        problems.add(kind, message, home, severity="note" if is_note else "error")
    _note_names(layout, start, home, problems)
    counts = _read_labels(layout, root, rows, problems)
    _note_classes(layout, counts, home, problems)
    _note_files(layout, root, home, problems)
    rows.problems = problems.all()
    source = place(root, default_anchor(root), lambda anchor: _source(start, root, anchor, chosen))
    return rows.tables(source=source, units="relative", classes=sorted(set(layout.names.values())))


def patch(source: Source, fixes: Sequence[Fix]) -> list[Operation]:
    """The edits of label files that carry out `fixes`, the moves of images that leave, and new classes.

    A dropped image leaves with its label file; where a list names it, its line leaves the list instead.

    Raises:
        ConflictError: a file no longer holds what a fix expects.
        InputError: a polygon is to be moved, or there is no class list for a new class.
    """
    layout = _yolo_files.layout_of(Path(source.path), source.options)
    return _yolo_patch.operations(source, layout, fixes)


def class_ids(source: Source) -> dict[int, str]:
    """The name of each class number."""
    return dict(_yolo_files.layout_of(Path(source.path), source.options).names)


def _start(path: Path) -> Path:
    return path if path.is_dir() or path.suffix.lower() not in (".yaml", ".yml") else path.parent


def _source(start: Path, root: Path, anchor: Path, options: Mapping[str, str] | None = None) -> Source:
    return Source(format=NAME, root=root, path=str(start), anchor=anchor, options=dict(options or {}))


def _root(layout: Layout, start: Path) -> Path:
    folders = {str(Path(each).parent) for image in layout.images for each in (image.path, image.label)}
    return root_of(start, [Path(folder) / "x" for folder in folders])


def _read_labels(layout: Layout, root: Path, rows: ObjectRows, problems: Problems) -> Counter[int]:
    """Add the images with their objects; return how many objects there are of each class number."""
    prefix = f"{root.as_posix()}/"
    counts: Counter[int] = Counter()
    unknown: dict[int, str] = {}
    keypoints = layout.config.keypoints
    for image in layout.images:
        sample_id, label = image.path.removeprefix(prefix), image.label.removeprefix(prefix)
        rows.image(sample_id, image.path, Locator(file=label), split=image.split)
        if image.label not in layout.texts:
            continue
        try:
            content = content_of(image.label, label)
        except FormatError as error:
            message = f"{error} Its objects are left out."
            problems.add("unreadable label file", message, Locator(file=label), sample_id=sample_id)
            continue
        for number, raw in enumerate(lines_of(content), start=1):
            tokens = raw.split()
            if not tokens:
                continue
            line = parsed(tokens, keypoints)
            if line.number is None or line.kind:
                _note_line(line, raw, label, number, sample_id, problems)
            if line.number is None:
                continue
            name = layout.names.get(line.number) or unknown.get(line.number)
            counts[line.number] += 1
            label_id = f"{sample_id}:{number}"
            where = Locator(file=label, item=number)
            if name is None or line.number in unknown:
                name = unknown.setdefault(line.number, _yolo_patch.class_name(layout.names, line.number))
                if layout.names:
                    has = f"{_list_of(layout)}, which has {_range(layout)}"
                    message = f"The class {line.number} isn't in {has}."
                    problems.add(
                        "class number out of range", message, where, sample_id=sample_id, label_id=label_id
                    )
            rows.object(sample_id, label_id, name, line.corners, where, geometry=line.geometry)
    return counts


def _note_line(line: Line, raw: bytes, label: str, number: int, sample_id: str, problems: Problems) -> None:
    where = Locator(file=label, item=number)
    if raw.lstrip().startswith((b"#", b"//")):
        message = f"The line is a comment, which trainers can't read: {raw.decode('latin-1').strip()[:60]!r}."
        problems.add("comment", message, where, sample_id=sample_id, severity="note")
        return
    label_id = f"{sample_id}:{number}" if line.number is not None else None
    problems.add(line.kind, f"{line.problem}.", where, sample_id=sample_id, label_id=label_id)


def _list_of(layout: Layout) -> str:
    return f"the class list {layout.names_file.name}" if layout.names_file is not None else "the class list"


def _range(layout: Layout) -> str:
    return f"{len(layout.names)} classes, {min(layout.names)} to {max(layout.names)}"


def _note_names(layout: Layout, start: Path, home: Locator, problems: Problems) -> None:
    names = layout.names
    for key, line in layout.config.again:
        message = f"{home.file}:{line}: The key {key!r} stands here again, and this one counts."
        problems.add("key twice", message, Locator(file=home.file, item=line))
    for key, expected in layout.config.odd:
        message = f"{home.file}: The value of {key!r} can't be used; expected {expected}."
        problems.add("setting that can't be read", message, Locator(file=home.file, field=key))
    if not names:
        message = "No class list was found; the classes are called by their numbers. Add names to data.yaml, "
        message += "or a file classes.txt with one name a line."
        unread = _yolo_names.not_used(start) if layout.config.file is None else ""
        problems.add("no class list", f"{message} {unread}".rstrip(), home)
        return
    n = layout.config.n_classes
    if n is not None and n != len(names):
        problems.add("class count differs", f"nc is {n}, and there are {len(names)} names.", home)
    for name, count in Counter(names.values()).items():
        if count > 1:
            numbers = ", ".join(str(number) for number, other in names.items() if other == name)
            where = Locator(file=layout.names_file.name) if layout.names_file is not None else home
            problems.add("class twice", f"The classes {numbers} are all called {name!r}.", where)


def _note_classes(layout: Layout, counts: Counter[int], home: Locator, problems: Problems) -> None:
    n = len(layout.names)
    if n and counts[n] and n not in layout.names and not counts[0] and max(counts) == n:
        message = f"No object has the class 0 and {counts[n]} have the class {n}: ids seem to start at 1."
        problems.add("ids start at 1", message, home, severity="note")


def _note_files(layout: Layout, root: Path, home: Locator, problems: Problems) -> None:
    """Report images without label files, label files without images, and those that images share."""
    without = [image for image in layout.images if image.label not in layout.texts]
    if without:
        paths = [relative_to(root, Path(image.path)) for image in without]
        message = f"{len(without)} images have no label file: {examples(paths)}."
        problems.add("images without label file", message, home, severity="note")
    owners: dict[str, list[str]] = {}
    for image in layout.images:
        owners.setdefault(image.label, []).append(relative_to(root, Path(image.path)))
    for label, images in owners.items():
        if len(images) > 1:
            message = f"{len(images)} images share this label file: {examples(images)}."
            where = Locator(file=relative_to(root, Path(label)))
            problems.add("label file of several images", message, where, sample_id=images[0])
    for label in sorted(layout.texts - set(owners)):
        where = Locator(file=relative_to(root, Path(label)))
        problems.add("label file without image", "There is no image of this name.", where)
    if layout.again:
        paths = [relative_to(root, Path(path)) for path in dict.fromkeys(layout.again)]
        message = f"{len(paths)} images are in several splits, and the first counts: {examples(paths)}."
        problems.add("image in several splits", message, home, severity="note")
