"""Fixes of COCO files: which characters change."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from dataaudit.errors import InputError
from dataaudit.formats import _cells, _json, _numbers
from dataaudit.formats._coco_rows import GEOMETRIES, Part, Rows, is_rectangle, read_rows
from dataaudit.formats._found import check_old, gone, relative_to
from dataaudit.formats._numbers import is_same, written
from dataaudit.formats._pairs import check_file
from dataaudit.formats._shared import new_label
from dataaudit.journal import Edit, Operation, md5
from dataaudit.types import Fix

KEYS = ("id", "image_id", "category_id", "bbox", "area", "iscrowd", "segmentation", "ignore")

_LIKE = 100

Samples = Callable[[Rows], Sequence[str | None]]


def unknown_class(key: int | str | None) -> str:
    """What a class without a category is called.

    >>> unknown_class(7)
    'category 7'
    """
    return "no category" if key is None else f"category {key}"


def operations(root: Path, files: Sequence[tuple[Path, Samples]], fixes: Sequence[Fix]) -> list[Operation]:
    """The edits of all files of a dataset.

    Args:
        root: of the dataset.
        files: each with what gives the sample id of each of its image entries.
        fixes: of the dataset.

    Raises:
        ConflictError: a file no longer holds what a fix expects.
        InputError: a fix that can't be carried out.
    """
    leaving = {fix.sample_id: fix for fix in fixes if fix.op in ("drop", "merge")}
    needed = {str(fix.new): fix for fix in leaving.values() if fix.op == "merge"}
    own: dict[str, list[Fix]] = {relative_to(root, file): [] for file, _ in files}
    for fix in fixes:
        if fix.sample_id not in leaving or fix is not leaving[fix.sample_id]:
            if fix.locator.file not in own:
                raise gone(fix, str(root / fix.locator.file))
            own[fix.locator.file].append(fix)
    found: list[Operation] = []
    missing = dict(leaving)
    for file, samples in files:
        name = relative_to(root, file)
        if own[name] or leaving:
            patch, digest = _opened(check_file(root, name), name, samples)
            for dropped in patch.drop(leaving):
                missing.pop(dropped, None)
            for sample_id in patch.samples:
                needed.pop(str(sample_id), None)
            patch.change(own[name])
            splices = patch.splices()
            if splices:
                found.append(Edit(path=file, old_md5=digest, splices=splices))
    for fix in (*missing.values(), *needed.values()):
        raise gone(fix, str(root / fix.locator.file))
    return found


def _opened(file: Path, name: str, samples: Samples) -> tuple[_Patch, str]:
    content = file.read_bytes()
    digest, text = md5(content), _cells.decode(content, file)
    del content  # the text is as large
    rows = read_rows(file, text)
    return _Patch(rows, name, samples(rows)), digest


class _Patch:
    """The changes of one file.

    Args:
        rows: what it says.
        name: of the file, relative to the root.
        samples: sample id of each image entry.
    """

    def __init__(self, rows: Rows, name: str, samples: Sequence[str | None]) -> None:
        self.rows, self.name, self.samples = rows, name, samples
        self.text = rows.content.text
        self._changes: list[_json.Splice] = []
        self._gone: dict[str, set[int]] = {"images": set(), "annotations": set()}
        self._new: dict[str, list[str]] = {"annotations": [], "categories": []}
        self._sample_of: dict[Any, str] = {}
        self._image_of: dict[tuple[str, Any], int] = {}
        for number, (key, sample_id) in enumerate(zip(rows.images.ids, samples, strict=True)):
            if key is not None and sample_id is not None:
                self._sample_of.setdefault(key, sample_id)
                self._image_of.setdefault((sample_id, key), number)
        self._next_id = max((key for key in rows.objects.ids if isinstance(key, int)), default=0) + 1
        self._class_of: dict[Any, str] = {}
        self._category: dict[str, str] = {}
        for number, (key, label) in enumerate(zip(rows.categories.ids, rows.classes, strict=True)):
            if key is not None and label is not None and key not in self._class_of:
                self._class_of[key] = label
                if label not in self._category:
                    self._category[label] = self._raw(rows.categories, number, "id")
        self._like = {"bbox": self._numbers("bbox"), "area": self._numbers("area")}

    def drop(self, leaving: Iterable[str]) -> set[str]:
        """Take images out, with all their annotations; returns those that there are."""
        wanted = set(leaving)
        numbers = [number for number, sample_id in enumerate(self.samples) if sample_id in wanted]
        self._gone["images"].update(numbers)
        ids = {key for key, sample_id in self._sample_of.items() if sample_id in wanted}
        if ids:
            owners = self.rows.image_ids
            self._gone["annotations"].update(number for number, key in enumerate(owners) if key in ids)
        return {str(self.samples[number]) for number in numbers}

    def change(self, fixes: Sequence[Fix]) -> None:
        """Carry out fixes of objects."""
        places = self._places([fix for fix in fixes if fix.op != "add"])
        for fix in fixes:
            where = f"{self.rows.file}:{fix.locator.item}"
            if fix.op == "add":
                self._add(fix, where)
                continue
            number = places.get(fix.locator.item)
            if number is None:
                raise gone(fix, where)
            self._check(fix, number, where)
            if fix.op == "relabel":
                self._relabel(fix, number)
            elif fix.op == "move":
                self._move(fix, number, where)
            else:
                self._gone["annotations"].add(number)

    def splices(self) -> tuple[tuple[int, int, bytes], ...]:
        """The changes of the file's bytes."""
        parts = {
            "images": self.rows.images,
            "annotations": self.rows.objects,
            "categories": self.rows.categories,
        }
        changes = list(self._changes)
        for key, part in parts.items():
            if key in self.rows.arrays:
                away, news = self._gone.get(key, set()), self._new.get(key, [])
                span = self.rows.arrays[key]
                changes += _json.without(part.starts, part.ends, away)
                changes += _json.appended(self.text, span, part.starts, part.ends, away, news)
        return _json.to_splices(self.rows.content, changes, self.rows.file)

    # Finding

    def _places(self, fixes: Sequence[Fix]) -> dict[Any, int]:
        """The number of each annotation that a fix names."""
        wanted = {fix.locator.item for fix in fixes}
        found: dict[Any, list[int]] = {}
        for number, key in enumerate(self.rows.objects.ids):
            if key in wanted:
                found.setdefault(key, []).append(number)
        places: dict[Any, int] = {key: numbers[0] for key, numbers in found.items() if len(numbers) == 1}
        for item in wanted - set(places):
            ordinal = int(item[1:]) if isinstance(item, str) and re.fullmatch(r"#[1-9]\d{0,9}", item) else 0
            if 0 < ordinal <= len(self.rows.objects.ids):
                places[item] = ordinal - 1
        return places

    def _check(self, fix: Fix, number: int, where: str) -> None:
        rows = self.rows
        if self._sample_of.get(rows.image_ids[number]) != fix.sample_id:
            raise gone(fix, where)
        if number in self._gone["annotations"]:
            raise InputError(
                f"The object {fix.label_id} leaves with its image, or by another fix.", where=where
            )
        key = rows.category_ids[number]
        corners = rows.corners(number)
        if not all(map(math.isfinite, corners)):
            corners = (math.nan, math.nan, math.nan, math.nan)
        check_old(fix, self._class_of.get(key, unknown_class(key)), corners, where)

    # Changing

    def _relabel(self, fix: Fix, number: int) -> None:
        found = self._members(number)
        raw = self._category_of(new_label(fix))
        if "category_id" in found:
            old = self.text[found["category_id"].start]
            raw = json.dumps(raw.strip('"')) if old == '"' else raw
        self._set(number, found, "category_id", raw)

    def _move(self, fix: Fix, number: int, where: str) -> None:
        rows = self.rows
        geometry = GEOMETRIES[rows.geometries[number]]
        if geometry != "box":
            kind = "rotated box" if geometry == "rotated" else geometry
            raise InputError(
                f"The object {fix.label_id} is a {kind}, which can't be moved as a box.",
                where=where,
                fix="Nothing was changed. Redraw it, or remove the object and add a box.",
            )
        assert fix.box is not None
        found = self._members(number)
        old = rows.boxes[4 * number : 4 * number + 4].tolist()
        olds: list[str | None] = [None] * 4
        if number not in rows.strange:
            olds = [self.text[slice(*span)] for span in _json.items(self.text, found["bbox"].start)]
        texts = _box_texts(fix.box, old, olds, self._like["bbox"])
        if None in olds:
            self._set(number, found, "bbox", self._bbox_style().array(texts))
        else:
            self._change_items(found["bbox"].start, texts)
        new = [float(text) for text in texts]
        self._move_area(found, old, new)
        self._move_segments(found, old, new)

    def _move_area(self, found: dict[str, _json.Member], old: Sequence[float], new: Sequence[float]) -> None:
        if "area" not in found:
            return
        place = found["area"]
        raw = self.text[place.start : place.end]
        value = json.loads(raw)
        if not isinstance(value, int | float) or isinstance(value, bool):
            return
        decimals = len(raw.partition(".")[2])
        if abs(value - old[2] * old[3]) <= 0.51 * 10**-decimals + 1e-6 * abs(value):
            text = written(new[2] * new[3], [*self._like["area"], raw])
            self._replace(place.start, place.end, text)

    def _move_segments(
        self, found: dict[str, _json.Member], old: Sequence[float], new: Sequence[float]
    ) -> None:
        """Move the polygon that is just the rectangle of its box."""
        if "segmentation" not in found:
            return
        at = found["segmentation"].start
        segments, _ = json.JSONDecoder().raw_decode(self.text, at)
        if not segments or not is_rectangle(segments[0], old):
            return
        [(polygon, _)] = _json.items(self.text, at)
        spans = _json.items(self.text, polygon)
        like = _few([*self._like["bbox"], *(self.text[slice(*span)] for span in spans)])
        for position, (span, value) in enumerate(zip(spans, segments[0], strict=True)):
            axis = position % 2
            low, high = old[axis], old[axis] + old[axis + 2]
            is_high = abs(value - high) < abs(value - low)
            target = new[axis] + new[axis + 2] if is_high else new[axis]
            if not is_same(target, high if is_high else low):
                self._replace(*span, written(target, like))

    def _add(self, fix: Fix, where: str) -> None:
        rows = self.rows
        image = self._image_of.get((fix.sample_id, fix.locator.item))
        if image is None or image in self._gone["images"]:
            if image is None and isinstance(fix.locator.item, str) and fix.sample_id in self.samples:
                raise InputError(
                    f"The image {fix.sample_id} has no id, so no object can name it.", where=where
                )
            raise gone(fix, where)
        if fix.box is None:
            raise InputError(f"The new object of {fix.sample_id} has no box.", where=where)
        template = self._template()
        own = {} if template is None else self._members(template)
        texts = _box_texts(fix.box, [math.nan] * 4, [None] * 4, self._like["bbox"])
        area = float(texts[2]) * float(texts[3])
        n = self._next_id + len(self._new["annotations"])
        crowd = (
            self._raw(rows.objects, template, "iscrowd") if template is not None and "iscrowd" in own else "0"
        )
        values = {
            "id": json.dumps(str(n)) if "id" in own and self.text[own["id"].start] == '"' else str(n),
            "image_id": self._raw(rows.images, image, "id"),
            "category_id": self._category_of(new_label(fix)),
            "bbox": self._bbox_style().array(texts),
            "area": written(area, self._like["area"] or self._like["bbox"]),
            "iscrowd": "false" if crowd in ("true", "false") else "0",
            "segmentation": "[]",
            "ignore": "0",
        }
        order = list(own) or list(KEYS[:6])
        order += [key for key in ("image_id", "category_id", "bbox") if key not in order]
        style = self._style(rows.objects, template, rows.images)
        self._new["annotations"].append(style.object({key: values[key] for key in order if key in values}))

    def _category_of(self, name: str) -> str:
        """The id of a class as JSON; a class that isn't there yet is added to the categories."""
        if name in self._category:
            return self._category[name]
        rows = self.rows
        if "categories" not in rows.arrays:
            raise InputError(
                f"The file has no categories, so no object can become {name!r}.",
                where=rows.file,
                fix="Nothing was changed. Add the list of categories first.",
            )
        n = max((key for key in rows.categories.ids if isinstance(key, int)), default=0) + 1
        n += len(self._new["categories"])
        last = len(rows.categories.ids) - 1
        texts = bool(rows.categories.ids) and self._raw(rows.categories, last, "id").startswith('"')
        raw = json.dumps(str(n)) if texts else str(n)
        values = {"id": raw, "name": _json.string(name, self.text), "supercategory": self._supercategory()}
        own = _json.members(self.text, rows.categories.starts[last]) if last >= 0 else []
        order = [member.key for member in own if member.key in values]
        order += [key for key in ("id", "name") if key not in order]
        style = self._style(rows.categories, last if own else None, rows.images)
        self._new["categories"].append(style.object({key: values[key] for key in order}))
        self._category[name] = raw
        return raw

    def _supercategory(self) -> str:
        """That of the other classes, where they agree."""
        part = self.rows.categories
        own = {self._raw(part, number, "supercategory") for number in range(len(part.ids))} - {""}
        return own.pop() if len(own) == 1 and len(part.ids) > 1 else '""'

    # The text

    def _members(self, number: int) -> dict[str, _json.Member]:
        found = _json.members(self.text, self.rows.objects.starts[number])
        return {member.key: member for member in found}

    def _raw(self, part: Part, number: int, key: str) -> str:
        """The JSON of a member of an element, empty where it has none."""
        if not self.text.startswith("{", part.starts[number]):
            return ""
        found = {member.key: member for member in _json.members(self.text, part.starts[number])}
        return self.text[found[key].start : found[key].end] if key in found else ""

    def _replace(self, start: int, end: int, new: str) -> None:
        if self.text[start:end] != new:
            self._changes.append((start, end, new))

    def _set(self, number: int, found: dict[str, _json.Member], key: str, raw: str) -> None:
        """Set a member of an annotation, which gets it where it has none."""
        if key in found:
            self._replace(found[key].start, found[key].end, raw)
            return
        start = self.rows.objects.starts[number]
        style = _json.object_style(self.text, start)
        first = min((member.at for member in found.values()), default=start + 1)
        comma = style.comma if found else ""
        self._changes.append((first, first, f'"{key}"{style.colon}{raw}{comma}'))

    def _change_items(self, start: int, texts: Sequence[str]) -> None:
        for span, text in zip(_json.items(self.text, start), texts, strict=True):
            self._replace(*span, text)

    def _numbers(self, key: str) -> list[str]:
        """Numbers of the first and last annotations as they are written, one of each count of decimals."""
        n = len(self.rows.objects.ids)
        texts: list[str] = []
        for number in (*range(min(n, _LIKE)), *range(max(n - _LIKE, _LIKE), n)):
            raw = self._raw(self.rows.objects, number, key)
            if raw.startswith("["):
                texts += [raw[slice(*span)] for span in _json.items(raw, 0)]
            elif raw:
                texts.append(raw)
        return _few(texts)

    def _template(self) -> int | None:
        """The last annotation with a box that can be read."""
        away, strange = self._gone["annotations"], self.rows.strange
        numbers = range(len(self.rows.objects.ids) - 1, -1, -1)
        stays = (number for number in numbers if number not in strange and number not in away)
        found = next(stays, None)
        return next((number for number in numbers if number not in strange), None) if found is None else found

    def _style(self, part: Part, number: int | None, other: Part) -> _json.Style:
        """The style of an element, or of one of another array where there is none."""
        if number is not None:
            return _json.object_style(self.text, part.starts[number])
        return _json.object_style(self.text, other.starts[0]) if len(other.starts) else _json.Style()

    def _bbox_style(self) -> _json.Style:
        template = self._template()
        return (
            _json.Style()
            if template is None
            else _json.array_style(self.text, self._members(template)["bbox"].start)
        )


def _box_texts(
    box: Sequence[float], old: Sequence[float], olds: Sequence[str | None], like: Sequence[str]
) -> list[str]:
    """A box as x, y, width and height; numbers that stay keep their texts.

    Args:
        box: the corners x1, y1, x2, y2.
        old: x, y, width and height before.
        olds: as they are written, None for none.
        like: numbers of the file.
    """
    like = _few([*like, *(text for text in olds if text is not None)]) or ["0.00"]
    texts: list[str] = []
    for position in range(4):
        axis = position % 2
        value = box[axis] if position < 2 else box[axis + 2] - float(texts[axis])
        own = olds[position]
        texts.append(own if own is not None and is_same(value, old[position]) else written(value, like))
    return texts


def _few(texts: Iterable[str]) -> list[str]:
    """One number of each count of decimals, as a file has millions."""
    return list(
        {len(text.partition(".")[2]): text for text in texts if math.isfinite(_numbers.number(text))}.values()
    )
