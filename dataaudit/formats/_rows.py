"""The rows of a manifest: which columns hold what, and what they say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from dataaudit.errors import FormatError, InputError, nearest
from dataaudit.formats import _cells, _parquet, _sets
from dataaudit.formats._sets import Row, Sets

FILEPATH = ("filepath", "file_path", "path", "image_path", "filename", "file_name", "file", "image")
LABEL = ("label", "class", "category", "target", "class_name")
SPLIT = ("split", "subset")
PARQUET = (".parquet", ".pq")

_ROLES = ("filepath", "label", "split")


def rows(
    file: Path, content: bytes, options: Mapping[str, str]
) -> tuple[dict[str, str], Sets | None, Iterator[Row]]:
    """The columns of the roles, how sets are written as far as the options say it, and the rows."""
    kind = _sets.kind_of(options)
    sets = None
    if file.suffix.lower() in PARQUET:
        names = _parquet.names(file)
        chosen = _columns(names, options, file)
        if kind == "columns":
            sets = Sets(kind=kind, columns=_flag_columns(file, content, names, chosen, options))
        rows = _parquet_rows(file, content, chosen, sets)
    else:
        text = _cells.decode(content, file).text
        laid_out, chosen = layout(text, options, file)
        if kind == "columns":
            sets = Sets(kind=kind, columns=_flag_columns(file, content, laid_out.names, chosen, options))
        rows = _text_rows(file, text, laid_out, chosen, sets)
    if kind == "rows":
        sets = Sets(kind=kind)
    elif kind == "cells" and "separator" in options:
        sets = Sets(kind=kind, separator=options["separator"])
    return chosen, sets, rows


def layout(text: str, options: Mapping[str, str], file: Path) -> tuple[_cells.Layout, dict[str, str]]:
    """How a text is laid out, and the columns of the roles."""
    named = [options[role] for role in _ROLES if role in options]

    def fitting(names: tuple[str, ...]) -> bool:
        return all(name in names for name in named) and (bool(named) or fits(names))

    found = _cells.layout(text, fitting, file)
    return found, _columns(found.names, options, file)


def _flag_columns(
    file: Path, content: bytes, names: Sequence[str], chosen: Mapping[str, str], options: Mapping[str, str]
) -> tuple[str, ...]:
    """The columns that are classes: those that are named, or all that hold nothing but zeros and ones."""
    if "columns" in options:
        named = _sets.named_columns(options["columns"])
        for name in named:
            if names.count(name) != 1:
                raise InputError(
                    f"The manifest has the column {name!r} {names.count(name)} times; expected once. "
                    f"{nearest(name, names)}",
                    where=file,
                )
        return named
    others = [name for name in names if name not in chosen.values() and list(names).count(name) == 1]
    if file.suffix.lower() in PARQUET:
        found = _parquet.columns(content, others, file)
        values = {name: set(cells) for name, cells in zip(others, found, strict=True)}
    else:
        text = _cells.decode(content, file).text
        laid_out, _ = layout(text, options, file)
        values = {name: set() for name in others}
        at = [laid_out.names.index(name) for name in others]
        for record in _cells.records(text, laid_out, at, file) if others else ():
            for name, span in zip(others, record.cells, strict=True):
                values[name].add(_cells.value(text, span))
    flags = [
        name
        for name, cells in values.items()
        if any(cell for cell in cells) and all(_sets.is_flag(cell or "") for cell in cells)
    ]
    if not flags:
        raise FormatError(
            "No column holds nothing but 0 and 1.", where=file, fix="Name those that are classes."
        )
    return tuple(flags)


def _text_rows(
    file: Path, text: str, laid_out: _cells.Layout, chosen: Mapping[str, str], sets: Sets | None
) -> Iterator[Row]:
    roles = [role for role in _ROLES if role in chosen]
    flags = sets.columns if sets is not None else ()
    columns = [laid_out.names.index(name) for name in (*(chosen[role] for role in roles), *flags)]
    for record in _cells.records(text, laid_out, columns, file):
        values = [_cells.value(text, span) for span in record.cells]
        cells = dict(zip(roles, values, strict=False))
        if not cells["filepath"].strip():
            raise FormatError(f"The cell {chosen['filepath']!r} is empty.", where=f"{file}:{record.line}")
        label, split = cells.get("label", ""), cells.get("split", "")
        yield Row(
            record.line,
            cells["filepath"],
            label if label.strip() else None,
            split.strip() or None,
            tuple(values[len(roles) :]),
            record,
        )


def _parquet_rows(file: Path, content: bytes, chosen: Mapping[str, str], sets: Sets | None) -> Iterator[Row]:
    roles = [role for role in _ROLES if role in chosen]
    flags = sets.columns if sets is not None else ()
    found = _parquet.columns(content, [*(chosen[role] for role in roles), *flags], file)
    columns = dict(zip(roles, found, strict=False))
    nothing: list[str | None] = [None] * len(columns["filepath"])
    labels, splits = columns.get("label", nothing), columns.get("split", nothing)
    for row, filepath in enumerate(columns["filepath"]):
        if filepath is None:
            raise FormatError(f"The cell {chosen['filepath']!r} is empty.", where=f"{file}:{row}")
        own = tuple(cells[row] or "" for cells in found[len(roles) :])
        yield Row(row, filepath, labels[row], splits[row], own)


def fits(names: Sequence[str]) -> bool:
    """Whether columns are named like those of a manifest."""
    known = {name.casefold() for name in names}
    return any(name in known for name in FILEPATH) and any(name in known for name in LABEL)


def _columns(names: Sequence[str], options: Mapping[str, str], where: Path) -> dict[str, str]:
    """Names of the columns for filepath, label and, where there is one, split."""
    known = (*_ROLES, *_sets.OPTIONS)
    for option in options:
        if option not in known:
            raise InputError(f"The format 'manifest' has no option {option!r}. {nearest(option, known)}")
    chosen = {}
    in_columns = _sets.kind_of(options) == "columns"
    for role, usual in (("filepath", FILEPATH), ("label", LABEL), ("split", SPLIT)):
        if role == "label" and in_columns:
            continue
        if role in options:
            if options[role] not in names:
                raise InputError(
                    f"The manifest has no column {options[role]!r}. {nearest(options[role], names)}",
                    where=where,
                )
            chosen[role] = options[role]
            continue
        found = [name for known in usual for name in names if name.casefold() == known]
        if not found and role != "split":
            raise InputError(
                f"No column is named like a {role}. There are: {', '.join(names)}.", where=where,
                fix=f"Expected one of {', '.join(usual)}; or say which with the option {role}.",
            )  # fmt: skip
        if len(found) > 1 and role == "label":
            # A fix of one of them would leave the other behind
            raise InputError(
                f"More than one column could hold the label: {', '.join(found)}.", where=where,
                fix="Say which with the option label.",
            )  # fmt: skip
        if found:
            chosen[role] = found[0]
    twice = [name for name in chosen.values() if list(names).count(name) > 1]
    if twice:
        raise InputError(
            f"The manifest has the column {twice[0]!r} twice.", where=where, fix="Rename one of them."
        )
    return chosen
