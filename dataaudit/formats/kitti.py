"""KITTI object labels: a text file for each image, with a line for each object.

Found as ``training/label_2/`` beside ``training/image_2/`` (with splits in ``ImageSets/*.txt``), ``labels/``
beside ``images/`` or ``data/``, and text files beside their images. A line is

    type truncated occluded alpha x1 y1 x2 y2 height width length x y z rotation_y [score]

of which the corners are pixels from 0. ``DontCare`` is a region to be ignored; an object is truncated where
that is above 0, and occluded where that is 1 (partly), 2 (largely) or 3 (unknown).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path

from dataaudit import state
from dataaudit.errors import ConflictError, FormatError, InputError
from dataaudit.formats import _pairs
from dataaudit.formats._files import content_of, head_of, is_free
from dataaudit.formats._lists import listed_splits
from dataaudit.formats._numbers import is_same, number, written
from dataaudit.formats._shared import ObjectRows, absolute, default_anchor, inside, new_label, place
from dataaudit.journal import Edit, Operation, Write, md5
from dataaudit.types import Box, Fix, Locator, Problem, Source, Tables

NAME = "kitti"
DESCRIPTION = "KITTI: a text file for each image, in label_2/ beside image_2/, with 15 columns an object."
OBJECTS = True

ANNOTATION_FOLDERS = ("label_2", "label_02", "labels", "label", "label_3", "annotations")
IMAGE_FOLDERS = ("image_2", "image_02", "images", "image", "data", "imgs", "image_3")

_IGNORED = "DontCare"
_CORNERS = slice(4, 8)
_COLUMNS = (15, 16)
_TOKEN = re.compile(rb"[^ \t\r\n]+")
_LINE = re.compile(rb"[^\r\n]*(?:\r\n|\n|\r|$)")
_BOM = b"\xef\xbb\xbf"
_SAMPLE = 50
_UNKNOWN = ("-1", "-1", "-1", "-1000", "-1000", "-1000", "-10")
"""Height, width, length, place and rotation of an object whose 3D box isn't known, as KITTI writes them."""


def sniff(path: Path) -> bool:
    """Whether `path` is a folder with KITTI label files in it."""
    if not path.is_dir():
        return False
    return any(map(_is_labels, islice(_pairs.near_files(path, ".txt", ANNOTATION_FOLDERS), _SAMPLE)))


def states(path: Path) -> list[Path]:
    """Where a journal of this dataset could be."""
    root = absolute(path)
    return [state.state_dir(_source(root, anchor)) for anchor in (root, root.parent)]


def read(path: Path, *, options: Mapping[str, str] | None = None) -> Tables:
    """Read KITTI object labels.

    Args:
        path: the root folder.
        options: ``images`` and ``annotations``: folders below the root, where they aren't found by their
            names.

    Returns:
        Images in the order of their paths, objects in the order of their lines. A line's number is the
        `item` of its locator. An image of a folder in which others have a label file is one without objects.
        Lines that can't be used are in `Tables.problems`.

    Raises:
        FormatError: no label file can be read, or none has its image.
        InputError: an option that isn't known, or a folder that isn't there.
    """
    root = absolute(path)
    named = _pairs.folder_options(options, NAME, root)
    rows = ObjectRows()
    images, files = _paired(root, named, rows.problems)
    without, _ = _pairs.unannotated(images, tuple(files), rows.problems)
    bases = {base for file in files.values() for base in _pairs.above(file)}
    listed = listed_splits(root, sorted(bases), images, rows.problems)
    new_file, n_read = _pairs.new_files(files, ".txt"), 0
    for image in sorted([*files, *without]):
        file = files[image] if image in files else new_file(image)
        split = listed(image) or _pairs.split_of(image)
        rows.image(image, str(root / image), Locator(file=file), split=split)
        if image in files:
            n_read += _add_objects(rows, root, file, image)
    if not n_read:
        raise FormatError(
            f"None of the {len(files)} label files can be read. {rows.problems[0].message}", where=root
        )
    source = place(root, default_anchor(root), lambda anchor: _source(root, anchor, options))
    rows.problems = _pairs.capped(rows.problems)
    return rows.tables(source=source)


def patch(source: Source, fixes: Sequence[Fix]) -> list[Operation]:
    """The operations that carry out `fixes`: bytes of label files, and the moves of dropped images.

    A new object is neither truncated nor occluded, and its 3D box is unknown.

    Raises:
        ConflictError: a line no longer holds what its fix expects.
        InputError: a class with white space in it.
    """
    if source.root is None:
        raise InputError("A KITTI dataset has a root folder.", where=source.path)
    root = source.root
    known: dict[str, str] = {}

    def annotation_of(fix: Fix) -> str | None:
        if fix.locator.file.lower().endswith(".txt"):
            return fix.locator.file if (root / fix.locator.file).exists() else None
        if not known:
            known.update(_paired(root, _pairs.folder_options(source.options, NAME, root), [])[1])
        return known.get(fix.sample_id)

    found, by_file = _pairs.by_file(source, fixes, annotation_of)
    for file, own in by_file.items():
        path = inside(root, file)
        if is_free(path) and all(fix.op == "add" for fix in own):
            like = next((other for other in sorted(path.parent.glob("*.txt")) if _is_labels(other)), None)
            lines = _lines(like.read_bytes()) if like is not None else []
            content = _added([], lines, own)
            found.append(Write(path=path, old_md5=None, content=content))
        else:
            found.append(_edit(_pairs.check_file(root, file), own))
    return found


def _source(root: Path, anchor: Path, options: Mapping[str, str] | None = None) -> Source:
    return Source(format=NAME, root=root, path=str(root), anchor=anchor, options=dict(options or {}))


def _is_labels(file: Path) -> bool:
    head = head_of(file, 4096)
    first = next((line.split() for line in head.removeprefix(_BOM).splitlines() if line.strip()), [])
    texts = [token.decode("latin-1") for token in first]
    return (
        len(texts) in _COLUMNS
        and math.isnan(number(texts[0]))
        and all(not math.isnan(number(text)) for text in texts[1:])
    )


def _paired(
    root: Path, named: Mapping[str, str], problems: list[Problem]
) -> tuple[tuple[str, ...], dict[str, str]]:
    """The images, and the label file of each that has one."""
    walked = _pairs.walk(root, ".txt", named)
    images = _pairs.Images(walked.images, ANNOTATION_FOLDERS, IMAGE_FOLDERS, named)
    by_folder: dict[str, list[str]] = {}
    for file in walked.annotations:
        by_folder.setdefault(file.rpartition("/")[0], []).append(file)
    files: dict[str, str] = {}
    left_out: set[str] = set()
    for folder, own in by_folder.items():
        usual = folder.rpartition("/")[2].lower() in ANNOTATION_FOLDERS
        if not usual and not any(_is_labels(root / file) for file in own[:_SAMPLE]):
            continue  # calibrations and lists are text files too
        for file in own:
            candidates = images.of(file)
            if not candidates and (usual or _is_labels(root / file)):
                message = f"There is no image {_pairs.stem_of(file)} for this label file."
                where = Locator(file=file)
                problems.append(Problem(kind="annotation file without image", message=message, locator=where))
            elif candidates:
                left_out.update(_pairs.others(file, candidates, candidates[0], problems))
                _pairs.pair(files, candidates[0], file, problems)
    _pairs.check_some(walked, files, root, "KITTI")
    return tuple(image for image in walked.images if image not in left_out or image in files), files


# What a file says


def _add_objects(rows: ObjectRows, root: Path, file: str, image: str) -> bool:
    """Add the objects of a file; False where nothing in it can be read."""
    try:
        text = _text(root, file)
    except FormatError as error:
        _note(
            rows,
            "unreadable annotation file",
            f"{error} Its objects are left out.",
            Locator(file=file),
            image,
        )
        return False
    n_lines = n_read = 0
    for item, line in enumerate(re.split("\r\n|\n|\r", text), start=1):
        tokens = re.split("[ \t]+", line.strip(" \t"))
        if tokens == [""]:
            continue
        n_lines += 1
        at = Locator(file=file, item=item)
        if len(tokens) not in _COLUMNS:
            message = f"{at}: The line has {len(tokens)} columns; expected 15 or 16. It is left out."
            _note(rows, "unreadable line", message, at, image)
            continue
        n_read += 1
        label_id = f"{image}:{item}"
        x1, y1, x2, y2 = (number(token) for token in tokens[_CORNERS])
        if math.isnan(x1 + y1 + x2 + y2):
            message = f"{at}: The box is {' '.join(tokens[_CORNERS])!r}; expected four numbers."
            _note(rows, "unreadable box", message, at, image, label_id)
        elif wrong := [token for token in tokens[1:] if math.isnan(number(token))]:
            message = f"{at}: {wrong[0][:40]!r} isn't a number; expected one in every column but the first."
            _note(rows, "unreadable number", message, at, image, label_id)
        is_object = tokens[0] != _IGNORED
        rows.object(
            image,
            label_id,
            tokens[0],
            (x1, y1, x2, y2),
            at,
            ignore=not is_object,
            truncated=is_object and number(tokens[1]) > 0,
            occluded=is_object and number(tokens[2]) >= 1,
        )
    return n_read > 0 or not n_lines


def _text(root: Path, file: str) -> str:
    content = content_of(root / file, file)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        at_line = content.count(b"\n", 0, error.start) + 1
        raise FormatError(f"The file can't be read: {error}.", where=f"{file}:{at_line}") from None


def _note(
    rows: ObjectRows, kind: str, message: str, at: Locator, image: str, label_id: str | None = None
) -> None:
    rows.problems.append(Problem(kind=kind, message=message, locator=at, sample_id=image, label_id=label_id))


# Patching


def _lines(content: bytes) -> list[bytes]:
    """The lines with their line ends; joined they are the content."""
    return [line for line in _LINE.findall(content) if line]


def _edit(path: Path, fixes: Sequence[Fix]) -> Edit:
    content = path.read_bytes()
    lines = _lines(content)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))
    splices: list[tuple[int, int, bytes]] = []
    numbers = _corner_texts(lines)
    removed = {fix.locator.item for fix in fixes if fix.op == "remove"}
    for fix in fixes:
        if fix.op == "add":
            continue
        tokens = _checked(path, lines, fix)
        at = starts[int(fix.locator.item or 0) - 1]
        if fix.op == "remove":
            splices.append((at, at + len(lines[int(fix.locator.item or 0) - 1]), b""))
        elif fix.op == "relabel":
            splices.append((at + tokens[0].start(), at + tokens[0].end(), _type_of(fix)))
        else:
            assert fix.box is not None
            for token, value in zip(tokens[_CORNERS], fix.box, strict=True):
                old, new = number(token[0].decode()), written(value, numbers)
                if not is_same(old, value) and number(new) != old:
                    splices.append((at + token.start(), at + token.end(), new.encode()))
    adds = [fix for fix in fixes if fix.op == "add"]
    if adds:
        kept = [line for item, line in enumerate(lines, start=1) if item not in removed]
        splices.append((len(content), len(content), _added(kept, lines, adds)))
    return Edit(path=path, old_md5=md5(content), splices=tuple(sorted(splices)))


def _checked(path: Path, lines: Sequence[bytes], fix: Fix) -> list[re.Match[bytes]]:
    """The tokens of a fix's line, which still says what the fix expects."""
    item = fix.locator.item
    where = f"{path}:{item}"
    if not isinstance(item, int) or not 1 <= item <= len(lines):
        raise ConflictError(
            f"There is no such line any more; there are {len(lines)}.",
            where=where,
            fix="Nothing was changed. Audit again.",
        )
    line = lines[item - 1]
    tokens = list(_TOKEN.finditer(line, 3 if item == 1 and line.startswith(_BOM) else 0))
    texts = [token[0].decode(errors="replace") for token in tokens]
    if len(tokens) not in _COLUMNS or texts[0] != fix.old:
        said = texts[0] if texts else ""
        raise ConflictError(
            f"The class of the line is {said!r}, in {len(tokens)} columns; expected {fix.old!r}, in 15 or "
            "16.",
            where=where,
            fix="Nothing was changed. Audit again.",
        )
    box = tuple(number(text) for text in texts[_CORNERS])
    if fix.old_box is not None and not all(map(is_same, box, fix.old_box)):
        raise ConflictError(
            f"The box of the line is {box}; expected {fix.old_box}.",
            where=where,
            fix="Nothing was changed. Audit again.",
        )
    return tokens


def _type_of(fix: Fix) -> bytes:
    name = new_label(fix)
    if any(character.isspace() or not character.isprintable() for character in name):
        raise InputError(
            f"The class {name!r} of {fix.sample_id} has white space in it, which ends a column.",
            fix="Choose a name such as Person_sitting.",
        )
    return name.encode()


def _corner_texts(lines: Sequence[bytes]) -> list[str]:
    """The coordinates as they are written."""
    split = [line.decode(errors="replace").split() for line in lines]
    return [text for tokens in split if len(tokens) in _COLUMNS for text in tokens[_CORNERS]]


def _added(kept: Sequence[bytes], like: Sequence[bytes], fixes: Sequence[Fix]) -> bytes:
    """What comes at the end of a file for new objects.

    Args:
        kept: the lines that stay before it.
        like: the lines whose columns, separators, line ends and decimals are followed.
        fixes: of new objects.
    """
    last = next((line for line in reversed(like) if len(line.split()) in _COLUMNS), b"")
    between = b"\t" if b"\t" in last else b" "
    end = next((line[len(line.rstrip(b"\r\n")) :] for line in like if line.endswith((b"\n", b"\r"))), b"\n")
    numbers = _corner_texts(like) or ["0.00"]
    news = []
    for fix in fixes:
        assert fix.box is not None
        texts = ["0.00", "0", "-10", *_box_texts(fix.box, numbers), *_UNKNOWN]
        texts += ["1.00"] if len(last.split()) == max(_COLUMNS) else []
        news.append(between.join([_type_of(fix), *(text.encode() for text in texts)]))
    open_end = bool(kept) and not kept[-1].endswith((b"\n", b"\r"))
    return (end if open_end else b"") + end.join(news) + (b"" if open_end else end)


def _box_texts(box: Box, numbers: Sequence[str]) -> list[str]:
    return [written(value, numbers) for value in box]
