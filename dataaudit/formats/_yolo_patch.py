"""Fixes of YOLO datasets: which words of which lines change, and which files leave."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from dataaudit.errors import InputError
from dataaudit.formats import _yolo_lines, _yolo_names
from dataaudit.formats._cells import line_end
from dataaudit.formats._files import head_of, is_free
from dataaudit.formats._found import check_old, gone
from dataaudit.formats._pairs import by_file, check_file
from dataaudit.formats._shared import inside, new_label
from dataaudit.formats._yolo_files import Image, Layout, relisted
from dataaudit.formats._yolo_lines import lines_of, mark_of, parsed, spans_of
from dataaudit.journal import Edit, Operation, Write, md5
from dataaudit.types import Box, Fix, Source

_OTHERS, _HEAD = 20, 1 << 16

Splice = tuple[int, int, bytes]


def class_name(names: Mapping[int, str], number: int) -> str:
    """The name of a class; of one that the list doesn't have, or where there is no list, from its number.

    >>> class_name({0: "cat"}, 0), class_name({0: "cat"}, 7), class_name({}, 7)
    ('cat', 'class 7', '7')
    """
    return names.get(number) or (f"class {number}" if names else str(number))


def operations(source: Source, layout: Layout, fixes: Sequence[Fix]) -> list[Operation]:
    """What carries out the fixes of a dataset.

    Raises:
        ConflictError: a file no longer holds what a fix expects.
        InputError: a fix that can't be carried out.
    """
    root = source.root
    assert root is not None
    prefix = f"{root.as_posix()}/"
    images = {image.path.removeprefix(prefix): image for image in layout.images}
    for fix in fixes:
        image = images.get(fix.sample_id)
        leaves = fix.op in ("drop", "merge")
        if image is None or (not leaves and image.label.removeprefix(prefix) != fix.locator.file):
            raise gone(fix, f"{root / fix.locator.file}")
    found, own = _leave(source, fixes, images, prefix)
    numbers = _Numbers(layout)
    for file, each in own.items():
        found += _edited(root, file, each, layout, numbers)
    return [*found, *numbers.operations(root)]


def _leave(
    source: Source, fixes: Sequence[Fix], images: Mapping[str, Image], prefix: str
) -> tuple[list[Operation], dict[str, list[Fix]]]:
    """What takes images out, from the lists that name them or with their label files from the folders; and
    the other fixes by label file."""
    leaving = [fix for fix in fixes if fix.op in ("drop", "merge")]
    for fix in leaving:
        if fix.op == "merge" and fix.new not in images:
            raise gone(fix, str(source.path))
    gone_ids = {fix.sample_id for fix in leaving}
    taken = {image.label for sample_id, image in images.items() if sample_id not in gone_ids}

    def label_of(fix: Fix) -> str | None:
        label = images[fix.sample_id].label
        if label in taken or not Path(label).is_file():
            return None
        taken.add(label)
        return label.removeprefix(prefix)

    listed = [fix for fix in leaving if images[fix.sample_id].listed]
    found, own = by_file(source, [fix for fix in fixes if fix not in listed], label_of)
    assert source.root is not None
    for file, numbers in relisted([line for fix in listed for line in images[fix.sample_id].listed]).items():
        content = check_file(source.root, file.as_posix().removeprefix(prefix)).read_bytes()
        spans = enumerate(_line_spans(content), start=1)
        edits = tuple((start, end, b"") for number, (start, end) in spans if number in numbers)
        found.append(Edit(path=file, old_md5=md5(content), splices=edits))
    return found, own


def _line_spans(content: bytes) -> list[tuple[int, int]]:
    spans, at = [], mark_of(content)
    for line in lines_of(content):
        spans.append((at, at + len(line)))
        at += len(line)
    return spans


class _Numbers:
    """The number of each class; classes that the list doesn't have yet get the next ones."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._numbers: dict[str, int] = {}
        for number, name in layout.names.items():
            self._numbers.setdefault(name, number)
        self._new: list[str] = []

    def of(self, name: str) -> int:
        """The number of a class."""
        layout = self._layout
        if name not in self._numbers:
            if not layout.names:
                if name.isascii() and name.isdecimal() and len(name) < 10:
                    return int(name)
                raise InputError(
                    f"There is no class list that the class {name!r} could be added to.",
                    where=layout.config.file or Path(layout.images[0].label).parent,
                    fix="Nothing was changed. Add names to data.yaml, or a file classes.txt.",
                )
            self._numbers[name] = max(layout.names) + 1 + len(self._new)
            self._new.append(name)
        return self._numbers[name]

    def operations(self, root: Path) -> list[Operation]:
        """The edit of the class list."""
        file = self._layout.names_file
        if not self._new or file is None:
            return []
        content = check_file(root, file.relative_to(root).as_posix() if root in file.parents else str(file))
        old = content.read_bytes()
        splices = _yolo_names.added(file, old, self._layout.names, self._new)
        return [Edit(path=file, old_md5=md5(old), splices=splices)]


def _edited(
    root: Path, file: str, fixes: Sequence[Fix], layout: Layout, numbers: _Numbers
) -> list[Operation]:
    """The edit of one label file, or a new one."""
    path = inside(root, file)
    adds = [fix for fix in fixes if fix.op == "add"]
    if is_free(path):
        for fix in fixes:
            if fix.op != "add":
                raise gone(fix, str(path))
        contents = [head_of(text, _HEAD) for text in sorted(layout.texts)[:_OTHERS]]
        end = next((line_end(each.decode("latin-1")) for each in contents if each.strip()), "\n")
        lines = [_line(fix, layout, numbers, _yolo_lines.like_of(contents)) for fix in adds]
        return [Write(path=path, old_md5=None, content="".join(line + end for line in lines).encode())]
    path = check_file(root, file)
    content = path.read_bytes()
    like = _yolo_lines.like_of([content])
    splices = _changed(content, [fix for fix in fixes if fix.op != "add"], path, layout, numbers, like)
    lines = [_line(fix, layout, numbers, like) for fix in adds]
    splices += _appended(content, lines, {(start, end) for start, end, new in splices if not new}, layout)
    return [Edit(path=path, old_md5=md5(content), splices=tuple(splices))] if splices else []


def _changed(
    content: bytes, fixes: Sequence[Fix], path: Path, layout: Layout, numbers: _Numbers, like: Sequence[str]
) -> list[Splice]:
    lines, spans = lines_of(content), _line_spans(content)
    seen: dict[int | str | None, Fix] = {}
    splices: list[Splice] = []
    for fix in fixes:
        item, where = fix.locator.item, f"{path}:{fix.locator.item}"
        if not isinstance(item, int) or not 0 < item <= len(lines) or not lines[item - 1].split():
            raise gone(fix, where)
        if item in seen:
            raise InputError(
                f"{fix.label_id} and {seen[item].label_id} are one line; it has two fixes.", where=where
            )
        seen[item] = fix
        raw, at = lines[item - 1], spans[item - 1][0]
        tokens = raw.split()
        line = parsed(tokens, layout.config.keypoints)
        if line.number is None:
            raise gone(fix, where)
        check_old(fix, class_name(layout.names, line.number), line.corners, where)
        words = [(at + start, at + end) for start, end in spans_of(raw)]
        if fix.op == "remove":
            splices.append((*spans[item - 1], b""))
        elif fix.op == "relabel":
            splices.append((*words[0], str(numbers.of(new_label(fix))).encode()))
        else:
            splices += _moved(fix, line, tokens, words, like, where)
    return sorted(splices)


def _moved(
    fix: Fix,
    line: _yolo_lines.Line,
    tokens: Sequence[bytes],
    words: Sequence[tuple[int, int]],
    like: Sequence[str],
    where: str,
) -> list[Splice]:
    if line.geometry != "box" or (math.isnan(line.corners[0]) and len(words) < 5):
        what = line.geometry if line.geometry != "box" else f"line of {len(words)} numbers"
        raise InputError(
            f"The object {fix.label_id} is a {what}, which can't be moved as a box.",
            where=where,
            fix="Nothing was changed. Remove the object and add a box.",
        )
    assert fix.box is not None
    olds = [token.decode("latin-1") for token in tokens[1:5]]
    known = [None] * 4 if math.isnan(line.corners[0]) else olds
    texts = _yolo_lines.written(fix.box, line.corners, known, like)
    return [
        (*span, text.encode()) for span, text, old in zip(words[1:5], texts, olds, strict=True) if text != old
    ]


def _line(fix: Fix, layout: Layout, numbers: _Numbers, like: Sequence[str]) -> str:
    if fix.box is None:
        raise InputError(f"The new object of {fix.sample_id} has no box.", where=fix.locator.file)
    nothing: Box = (math.nan, math.nan, math.nan, math.nan)
    texts = _yolo_lines.written(fix.box, nothing, [None] * 4, like)
    return " ".join([str(numbers.of(new_label(fix))), *texts, *["0"] * layout.config.keypoints])


def _appended(
    content: bytes, lines: Sequence[str], removed: set[tuple[int, int]], layout: Layout
) -> list[Splice]:
    """New lines at the end of a file, whose last line may have no line end."""
    if not lines:
        return []
    spans = _line_spans(content)
    text = content.decode("latin-1")
    if not spans:
        others = (head_of(each, _HEAD) for each in sorted(layout.texts)[:_OTHERS])
        text = next((each.decode("latin-1") for each in others if each.strip()), "")
    end = line_end(text)
    opened = bool(spans) and not content.endswith((b"\n", b"\r")) and spans[-1] not in removed
    new = end + end.join(lines) if opened else "".join(line + end for line in lines)
    return [(len(content), len(content), new.encode())]
