"""Manifests whose images have any number of classes: how their sets are written, and what changes them."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from dataaudit.errors import ConflictError, FormatError, InputError, nearest
from dataaudit.formats import _cells
from dataaudit.formats._parquet import IN_LIST
from dataaudit.formats._shared import new_label
from dataaudit.types import Fix

KINDS = ("cells", "columns", "rows", "no")
OPTIONS = ("multilabel", "separator", "columns")

_SEPARATORS = (";", "|", ",", " ")
_MIN_ROWS, _MIN_SEVERAL = 10, 3
_FLIPPED = {
    "0": "1", "0.0": "1.0", "false": "true", "False": "True", "FALSE": "TRUE", "no": "yes", "No": "Yes",
    "n": "y", "N": "Y", "f": "t", "F": "T", "": "1",
}  # fmt: skip
_NOT_GIVEN = frozenset(_FLIPPED)
_GIVEN = frozenset(_FLIPPED.values())
_BACK = {yes: no for no, yes in reversed(_FLIPPED.items()) if no}


class Row(NamedTuple):
    """A row: its line (from 1) or number (from 0, in Parquet) and cells.

    Attributes:
        item: line or number.
        filepath, label, split: the cells of these roles; None for an empty one.
        flags: the cells of the class columns, where each class has one.
        record: places of the cells in a text: of filepath, label where there is one, split where there is
            one, and the class columns.
    """

    item: int
    filepath: str
    label: str | None
    split: str | None
    flags: tuple[str, ...] = ()
    record: _cells.Record | None = None


@dataclass(frozen=True, kw_only=True)
class Sets:
    """How a manifest writes the classes of an image.

    Attributes:
        kind: ``cells`` (one cell holds them all), ``columns`` (each class has a column of zeros and ones) or
            ``rows`` (an image has a row for each class).
        separator: between the classes of a cell.
        columns: the class columns.
    """

    kind: str
    separator: str = ""
    columns: tuple[str, ...] = ()

    def of(self, row: Row, where: str) -> list[str]:
        """The classes of a row, each once.

        Raises:
            FormatError: a cell of a class column that is neither 0 nor 1.
        """
        if self.kind == "columns":
            flags = zip(self.columns, row.flags, strict=True)
            return [name for name, cell in flags if _is_given(cell, name, where)]
        if self.kind == "cells":
            return split(row.label or "", self.separator)
        return [row.label] if row.label is not None else []

    def options(self) -> dict[str, str]:
        """The options that read the manifest in the same way."""
        found = {"multilabel": self.kind}
        if self.kind == "cells" and self.separator != IN_LIST:
            found["separator"] = self.separator
        if self.kind == "columns":
            found["columns"] = _listed(self.columns)
        return found


def kind_of(options: Mapping[str, str]) -> str | None:
    """How the options say that sets are written; None where they don't say.

    Raises:
        InputError: an unknown value, or options that contradict each other.
    """
    kind = options.get("multilabel")
    if kind is not None and kind not in KINDS:
        raise InputError(f"The option multilabel is {kind!r}. {nearest(kind, KINDS)}")
    for option, needed in (("separator", "cells"), ("columns", "columns")):
        if option not in options:
            continue
        if kind not in (None, needed):
            raise InputError(f"The option {option} goes with multilabel={needed}, not with {kind!r}.")
        if not options[option]:
            raise InputError(f"The option {option} is empty.", fix="For one label an image: multilabel=no.")
        kind = needed
    return kind


def named_columns(text: str) -> tuple[str, ...]:
    """The names that the option ``columns`` lists, separated by commas; in quotes where they hold one."""
    return tuple(name.strip() for name in next(csv.reader([text], skipinitialspace=True)))


def _listed(names: Sequence[str]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="").writerow(names)
    return out.getvalue()


def split(cell: str, separator: str) -> list[str]:
    """The classes in a cell, each once.

    >>> split("cat; dog;cat", ";")
    ['cat', 'dog']
    """
    parts = cell.split() if separator == " " else (part.strip() for part in cell.split(separator))
    return list(dict.fromkeys(part for part in parts if part))


def separator_of(cells: Iterable[str | None]) -> str | None:
    """The separator of sets of classes, where these cells can hardly be anything else.

    Split at it, at least ten cells, three of them with several parts, must fall into fewer classes than there
    are different cells; these classes must come again, and not always at the same place, as the levels of
    ``animal|cat`` and the parts of ``red car`` do. For commas and spaces, which names have too, there must
    be at least twice as many different cells as classes.
    """
    counts = Counter(cell.strip() for cell in cells if cell is not None and cell.strip())
    fitting = [separator for separator in _SEPARATORS if _splits(counts, separator)]
    return fitting[0] if len(fitting) == 1 else None


def _splits(counts: Counter[str], separator: str) -> bool:
    several = sum(n for cell, n in counts.items() if separator in cell)
    if several < _MIN_SEVERAL or counts.total() < _MIN_ROWS:
        return False
    uses: Counter[str] = Counter()
    places: dict[str, set[int]] = {}
    for cell, n in counts.items():
        parts = cell.split() if separator == " " else [part.strip() for part in cell.split(separator)]
        if len(set(parts)) < len(parts) or not all(parts):
            return False
        for place, part in enumerate(parts):
            uses[part] += n
            places.setdefault(part, set()).add(place)
    if any(other in part for part in uses for other in _SEPARATORS[:3]):
        return False
    factor = 2 if separator in ", " else 1
    if factor * len(uses) > len(counts) - (factor == 1):
        return False
    again = [part for part, n in uses.items() if n > 1]
    moving = [part for part in again if len(places[part]) > 1]
    return 10 * len(again) >= 9 * len(uses) and 2 * len(moving) >= len(again)


def _is_given(cell: str, name: str, where: str) -> bool:
    value = cell.strip()
    if value in _GIVEN:
        return True
    if value in _NOT_GIVEN:
        return False
    raise FormatError(
        f"The cell of the class {name!r} is {cell!r}; expected 0 or 1.",
        where=where,
        fix="Name the columns that are classes with the option columns.",
    )


def is_flag(cell: str) -> bool:
    """Whether a cell says that an image has a class or that it hasn't."""
    return cell.strip() in _GIVEN or cell.strip() in _NOT_GIVEN


def flipped(cell: str) -> str:
    """The other value in the same manner.

    >>> flipped("0"), flipped("True"), flipped("")
    ('1', 'False', '1')
    """
    value = cell.strip()
    return _FLIPPED[value] if value in _FLIPPED else _BACK[value]


# What fixes change


@dataclass(frozen=True, kw_only=True)
class Edits:
    """What is to be changed in a manifest.

    Attributes:
        cells: the new value of a cell by row and column; the column is a number in `Sets.columns`, or None
            for the label.
        dropped: rows to take out.
        copies: labels of the rows to put behind a row, which are otherwise its copies.
    """

    cells: dict[tuple[int, int | None], str] = field(default_factory=dict)
    dropped: set[int] = field(default_factory=set)
    copies: dict[int, list[str]] = field(default_factory=dict)


def edits(sets: Sets, rows: Mapping[str, Sequence[Row]], fixes: Sequence[Fix], file: Path) -> Edits:
    """The edits that carry out `fixes`.

    Args:
        sets: how the manifest writes its sets.
        rows: the rows of each sample that is to be fixed.
        fixes: any number of each sample, but one alone that takes it out.
        file: the manifest, for errors.

    Raises:
        ConflictError: the sample no longer has what a fix expects, or has already what it adds.
        InputError: a class that can't be written, or fixes that contradict each other.
    """
    found = Edits()
    by_sample: dict[str, list[Fix]] = {}
    for fix in fixes:
        by_sample.setdefault(fix.sample_id, []).append(fix)
    for sample_id, mine in by_sample.items():
        if sample_id not in rows:
            raise _conflict(file, mine[0], f"There is no row of {sample_id} any more.")
        own = rows[sample_id]
        have = list(dict.fromkeys(name for row in own for name in sets.of(row, f"{file}:{row.item}")))
        if _check(mine, own, have, file):
            found.dropped.update(row.item for row in own)
            continue
        removed = {fix.old for fix in mine if fix.op == "remove"}
        renamed = {fix.old: new_label(fix) for fix in mine if fix.op == "relabel"}
        added = [new_label(fix) for fix in mine if fix.op == "add"]
        if None in renamed:  # the first class of an image without one
            added.append(renamed.pop(None))
        for name in (*added, *renamed.values()):
            _check_name(sets, name, file)
        _change(found, sets, own, removed, renamed, added)
    return found


def _check(fixes: Sequence[Fix], rows: Sequence[Row], have: Sequence[str], file: Path) -> bool:
    """Raise where the fixes of a sample don't fit its rows; returns whether they take it out."""
    for fix in fixes:
        if fix.locator.file != file.name:
            raise InputError(f"The fix of {fix.sample_id} is for {fix.locator.file}.", where=file)
        if fix.locator.item not in [row.item for row in rows]:
            raise _conflict(file, fix, f"There is no row of {fix.sample_id} here any more.")
    return check_fixes(fixes, have, f"{file}:{fixes[0].locator.item}")


def check_fixes(fixes: Sequence[Fix], have: Sequence[str], where: str) -> bool:
    """Raise where the fixes of a sample don't fit what it has; returns whether they take it out.

    Args:
        fixes: of one sample.
        have: its classes.
        where: its place, for errors.

    Raises:
        ConflictError: it no longer has what a fix expects, or has already what it adds.
        InputError: it is taken out and changed at once.
    """
    out = [fix for fix in fixes if fix.op in ("drop", "merge")]
    if out and len(fixes) > 1:
        raise InputError(f"{out[0].sample_id} is taken out and changed at once.", where=where)
    shown = ", ".join(sorted(have)) or None
    news = [fix.new for fix in fixes if fix.op in ("add", "relabel")]
    for fix in fixes:
        what = None
        fits = fix.old in have or fix.op == "add" or (fix.op == "relabel" and fix.old is None and not have)
        if not (fix.old == shown if out else fits):
            what = f"The labels of {fix.sample_id} are {shown!r}; expected {fix.old!r}."
        elif fix.new is not None and not out and (fix.new in have or news.count(fix.new) > 1):
            what = f"{fix.sample_id} has the label {fix.new!r} already, or twice."
        if what is not None:
            raise ConflictError(what, where=where, fix="Nothing was changed. Audit again.")
    return bool(out)


def _check_name(sets: Sets, name: str, file: Path) -> None:
    if sets.kind == "columns" and name not in sets.columns:
        raise InputError(
            f"The manifest has no column for the class {name!r}. {nearest(name, sets.columns)}",
            where=file,
            fix="Nothing was changed. Add the column first.",
        )
    if sets.kind == "cells" and split(name, sets.separator) != [name]:
        raise InputError(
            f"The class {name!r} can't stand in a cell that is split at {sets.separator!r}.",
            where=file,
            fix="Nothing was changed.",
        )


def _change(
    found: Edits,
    sets: Sets,
    rows: Sequence[Row],
    removed: set[str | None],
    renamed: Mapping[str | None, str],
    added: Sequence[str],
) -> None:
    if sets.kind == "cells":
        [row] = rows
        found.cells[row.item, None] = _rewritten(row.label or "", sets.separator, removed, renamed, added)
    elif sets.kind == "columns":
        [row] = rows
        for name in (*removed, *renamed, *renamed.values(), *added):
            column = sets.columns.index(str(name))
            found.cells[row.item, column] = flipped(row.flags[column])
    else:
        _change_rows(found, rows, removed, renamed, added)


def _change_rows(
    found: Edits,
    rows: Sequence[Row],
    removed: set[str | None],
    renamed: Mapping[str | None, str],
    added: Sequence[str],
) -> None:
    for row in rows:
        if row.label in renamed:
            found.cells[row.item, None] = renamed[row.label]
    free = [row for row in rows if row.label is None]
    gone = [row for row in rows if row.label in removed]
    left = list(added)
    # An image keeps a row, also without a label, and a row that is free takes the first new one
    for row in free or (gone[:1] if len(gone) == len(rows) else []):
        gone = [other for other in gone if other is not row]
        found.cells[row.item, None] = left.pop(0) if left else ""
    found.dropped.update(row.item for row in gone)
    if left:
        stays = [row for row in rows if row.item not in found.dropped]
        found.copies[stays[-1].item] = left


def _rewritten(
    cell: str,
    separator: str,
    removed: set[str | None],
    renamed: Mapping[str | None, str],
    added: Sequence[str],
) -> str:
    """A cell with other classes; the parts that stay are written as they were."""
    parts = [part for part in cell.split(separator) if part.strip()]
    padding = parts[1][: len(parts[1]) - len(parts[1].lstrip())] if len(parts) > 1 else ""
    kept = [
        part.replace(part.strip(), renamed[part.strip()]) if part.strip() in renamed else part
        for part in parts
        if part.strip() not in removed
    ]
    if kept and removed:
        kept[0] = kept[0].lstrip() if parts[0] != kept[0] else kept[0]
    news = [padding + name if number or kept else name for number, name in enumerate(added)]
    return separator.join([*kept, *news])


def splices(
    found: Edits, rows: Iterable[Row], text: str, layout: _cells.Layout, label: int
) -> Iterator[tuple[int, int, str, int]]:
    """Where a text changes: start, end, new text and line, ascending.

    Args:
        found: the edits.
        rows: all rows, with records.
        text: the manifest.
        layout: how it is laid out.
        label: which of a record's cells is the label; the class columns are the last ones.
    """
    for row in rows:
        assert row.record is not None
        start, end = row.record.span
        if row.item in found.dropped:
            yield start, end, "", row.item
        changes = []
        for column in (None, *range(len(row.flags))):
            if (row.item, column) in found.cells:
                cells = row.record.cells
                at = cells[label] if column is None else cells[len(cells) - len(row.flags) + column]
                new = _cells.encoded(found.cells[row.item, column], text[slice(*at)], layout)
                changes.append((*at, new, row.item))
        yield from sorted(changes)
        if row.item in found.copies:
            yield end, end, _copies(found.copies[row.item], row.record, text, layout, label), row.item


def _copies(
    labels: Sequence[str], record: _cells.Record, text: str, layout: _cells.Layout, label: int
) -> str:
    start, end = record.span
    first, last = record.cells[label]
    whole = text[start:end]
    body = whole.rstrip("\r\n")
    ending = whole[len(body) :] or _cells.line_end(text)
    lines = [
        body[: first - start] + _cells.encoded(name, text[first:last], layout) + body[last - start :]
        for name in labels
    ]
    if body == whole:  # the last line, without an end
        return "".join(ending + line for line in lines)
    return "".join(line + ending for line in lines)


def _conflict(file: Path, fix: Fix, what: str) -> ConflictError:
    return ConflictError(what, where=f"{file}:{fix.locator.item}", fix="Nothing was changed. Audit again.")
