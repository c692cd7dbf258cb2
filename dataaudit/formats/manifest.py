"""Manifests: a CSV, TSV or Parquet file with a row for each image, ``filepath,label[,split][,...]``.

Paths are relative to the manifest or absolute. A sample's id is its path relative to the manifest's folder; a
path that leads outside it stays as it is written; where a path stands in two rows, the later ones end in
``#<line>``. An empty label is an image without one. A fix changes the manifest alone, never an image.

An image may have several classes: in one cell (``cat;dog``), in a column of zeros and ones for each class, or
in a row for each class. The first is found by itself where there can hardly be a doubt; the options say so.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from dataaudit import state
from dataaudit.errors import ConflictError, DataAuditError, FormatError, InputError
from dataaudit.formats import _cells, _parquet, _rows, _sets
from dataaudit.formats._sets import Row, Sets
from dataaudit.formats._shared import (
    absolute,
    default_anchor,
    is_ignored,
    new_label,
    place,
    set_tables,
    tables,
)
from dataaudit.journal import Edit, Operation, Write, md5
from dataaudit.types import Fix, Locator, Source, Tables

NAME = "manifest"
DESCRIPTION = (
    "A CSV, TSV or Parquet file with the columns filepath and label, and split where there are splits."
)

SUFFIXES = (".csv", ".tsv", ".parquet", ".pq")


def sniff(path: Path) -> bool:
    """Whether `path` is a manifest, or a folder with one in it."""
    if path.is_file():
        return path.suffix.lower() in SUFFIXES
    return path.is_dir() and bool(_manifests(path))


def states(path: Path) -> list[Path]:
    """Where a journal of this dataset could be."""
    path = absolute(path)
    files = [path]
    if path.is_dir():
        files = _named(path)
    return [
        state.state_dir(_source(file, anchor))
        for file in files
        for anchor in (file.parent, file.parent.parent)
    ]


def read(path: Path, *, options: Mapping[str, str] | None = None) -> Tables:
    """Read a manifest.

    Args:
        path: the file, or a folder with one manifest in it.
        options: ``filepath``, ``label`` and ``split``: names of columns, where they aren't the usual;
            ``multilabel``: ``cells``, ``columns`` or ``rows`` where images have several classes in a cell,
            in a column for each class or in a row for each, and ``no`` where they haven't; ``separator``:
            what stands between the classes of a cell; ``columns``: those that are classes, separated by
            commas, by default all that hold nothing but 0 and 1.

    Returns:
        Samples in the order of the rows.

    Raises:
        FormatError: several manifests, a malformed row, or no image where the rows say.
        InputError: a column that isn't there.
    """
    file = _manifest(absolute(path))
    root = file.parent
    chosen, sets, found = _rows.rows(file, file.read_bytes(), options or {})
    rows = list(found)
    if not rows:
        raise FormatError("The manifest has a header and no rows.", where=file)
    sets = sets if sets is not None else _sniffed(file, rows, chosen, options or {})
    sample_ids, filepaths = _identified(root, rows, several=sets is not None and sets.kind == "rows")
    first = Locator(file=file.name, item=rows[0].item, field=chosen.get("label"))
    _check_some_exist(file, filepaths, first)
    below = all("/" in sample_id and not sample_id.startswith(("/", "..")) for sample_id in sample_ids)
    known = {**chosen, **(sets.options() if sets is not None else {})}
    if options and options.get("multilabel") == "no":
        known["multilabel"] = "no"
    source = place(root, root if below else default_anchor(root), lambda anchor: _source(file, anchor, known))
    if sets is not None:
        return _several(file, rows, sample_ids, filepaths, sets, source)
    return tables(
        sample_ids=sample_ids,
        filepaths=filepaths,
        splits=[row.split for row in rows],
        names=[row.label for row in rows],
        locators=[Locator(file=file.name, item=row.item, field=chosen["label"]) for row in rows],
        source=source,
    )


def _identified(root: Path, rows: Sequence[Row], *, several: bool) -> tuple[list[str], list[str]]:
    """Sample id and absolute path of each row; a path again is another sample, but where it may have several
    rows."""
    sample_ids, filepaths = [], []
    seen: set[str] = set()
    for row in rows:
        sample_id, filepath = _resolved(root, row.filepath)
        if not several:
            sample_id = f"{sample_id}#{row.item}" if sample_id in seen else sample_id
            seen.add(sample_id)
        sample_ids.append(sample_id)
        filepaths.append(filepath)
    return sample_ids, filepaths


def _several(
    file: Path,
    rows: Sequence[Row],
    sample_ids: Sequence[str],
    filepaths: Sequence[str],
    sets: Sets,
    source: Source,
) -> Tables:
    """The tables of a manifest whose images have several classes."""
    paths: dict[str, str] = {}
    splits: dict[str, str | None] = {}
    labels: dict[str, dict[str, Locator]] = {}
    places: dict[str, Locator] = {}
    for row, sample_id, filepath in zip(rows, sample_ids, filepaths, strict=True):
        where = f"{file}:{row.item}"
        if splits.setdefault(sample_id, row.split) != row.split:
            raise FormatError(
                f"{sample_id} is in the split {row.split!r} here and in {splits[sample_id]!r} before.",
                where=where,
                fix="The rows of an image need the same split.",
            )
        paths[sample_id] = filepath
        own = labels.setdefault(sample_id, {})
        place_of = Locator(file=file.name, item=row.item, field=source.options.get("label"))
        places.setdefault(sample_id, place_of)
        for name in sets.of(row, where):
            at = Locator(file=file.name, item=row.item, field=name) if sets.kind == "columns" else place_of
            own.setdefault(name, at)
    return set_tables(
        sample_ids=list(paths),
        filepaths=list(paths.values()),
        splits=list(splits.values()),
        names=[list(own) for own in labels.values()],
        locators=[list(own.values()) or [places[sample_id]] for sample_id, own in labels.items()],
        classes=sets.columns,
        source=source,
    )


def _sniffed(
    file: Path, rows: Sequence[Row], chosen: Mapping[str, str], options: Mapping[str, str]
) -> Sets | None:
    """The sets that the label cells hold; None where they hold one class each."""
    kind = _sets.kind_of(options)
    if kind == "no":
        return None
    if file.suffix.lower() in _rows.PARQUET and _parquet.is_list(file, chosen["label"]):
        return Sets(kind="cells", separator=_parquet.IN_LIST)
    separator = _sets.separator_of(row.label for row in rows)
    if separator is None and kind == "cells":
        raise FormatError(
            f"No separator splits the cells of {chosen['label']!r} into classes that come again.",
            where=file,
            fix="Say what stands between the classes with the option separator.",
        )
    return None if separator is None else Sets(kind="cells", separator=separator)


def patch(source: Source, fixes: Sequence[Fix]) -> list[Operation]:
    """The edit that carries out `fixes`: the cells of new labels, and the lines of dropped samples.

    Raises:
        ConflictError: a row no longer holds what its fix expects.
        InputError: a label that the file can't hold.
    """
    file = Path(source.path)
    content = file.read_bytes()
    _check_link(file)
    chosen, sets, rows = _rows.rows(file, content, source.options)
    if sets is None and source.options.get("multilabel") == "cells":
        sets = Sets(kind="cells", separator=_parquet.IN_LIST)
    if sets is not None:
        return _patch_sets(source, content, sets, list(rows), fixes, chosen)
    wanted = {fix.locator.item: fix for fix in fixes}
    if len(wanted) != len(fixes):
        raise InputError("Two fixes are of the same row; at most one can be applied.", where=file)
    kept = {fix.new: fix for fix in fixes if fix.op == "merge"}
    found: list[tuple[Fix, Row]] = []
    for row in rows:
        if kept:
            plain = _resolved(file.parent, row.filepath)[0]
            kept.pop(plain, None)
            kept.pop(f"{plain}#{row.item}", None)
        if row.item in wanted:
            found.append((wanted.pop(row.item), row))
    for fix in (*wanted.values(), *kept.values()):
        gone = fix.sample_id if fix in wanted.values() else fix.new
        raise _conflict(file, fix, f"There is no row of {gone} any more.")
    for fix, row in found:
        _check_old(file, fix, row)
    if file.suffix.lower() in _rows.PARQUET:
        return _patch_parquet(file, content, found, source.options["label"])
    return _patch_text(file, content, found, source.options)


def _source(file: Path, anchor: Path, options: Mapping[str, str] | None = None) -> Source:
    return Source(format=NAME, root=file.parent, path=str(file), anchor=anchor, options=dict(options or {}))


# Finding the manifest and its columns


def _manifests(folder: Path) -> list[Path]:
    files = _named(folder)
    return [file for file in files if not is_ignored(file.name) and file.is_file() and _has_columns(file)]


def _named(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES)


def _has_columns(file: Path) -> bool:
    try:
        if file.suffix.lower() in _rows.PARQUET:
            return _rows.fits(_parquet.names(file))
        with file.open("rb") as opened:
            head = opened.read(65536)
        return _rows.fits(
            _cells.layout(_cells.decode(head[: len(head) // 4 * 4], file).text, _rows.fits, file).names
        )
    except (DataAuditError, OSError):
        return False


def _manifest(path: Path) -> Path:
    if path.is_file():
        return path
    found = _manifests(path)
    if len(found) > 1:
        raise FormatError(
            f"The folder has several manifests: {', '.join(file.name for file in found)}.", where=path,
            fix=f"Give the path of one, such as {found[0]}.",
        )  # fmt: skip
    if not found:
        raise FormatError(
            f"The folder has no manifest: no {', '.join(SUFFIXES)} file with the columns filepath and label.",
            where=path,
        )
    return found[0]


def _resolved(root: Path, cell: str) -> tuple[str, str]:
    """Sample id and absolute path of an image."""
    if (
        not cell.startswith("/")
        and "./" not in cell
        and "\\" not in cell
        and "//" not in cell
        and ":" not in cell[:2]
    ):
        return cell, f"{root}{os.sep}{cell}"
    written = cell
    if "\\" in cell and not (root / cell).exists():
        cell = cell.replace("\\", "/")
    path = os.path.normpath(root / cell)
    relative = (
        os.path.relpath(path, root).replace(os.sep, "/") if path.startswith(f"{root}{os.sep}") else written
    )
    return relative, path


def _check_some_exist(file: Path, filepaths: Sequence[str], first: Locator) -> None:
    if any(Path(path).exists() for path in filepaths):
        return
    raise FormatError(
        f"None of the {len(filepaths)} images is there; the first would be {filepaths[0]}.",
        where=f"{file}:{first.item}",
        fix="Paths are relative to the manifest's folder: move it to where they begin, or correct them.",
    )


def _check_link(file: Path) -> None:
    target = Path(os.path.realpath(file))
    if file.is_symlink() and "files" not in target.parts and file.parent not in target.parents:
        raise InputError(
            f"The manifest is a link to {target}, outside the dataset.",
            where=file,
            fix="Nothing was changed.",
        )


# Patching


def _check_old(file: Path, fix: Fix, row: Row) -> None:
    if fix.locator.file != file.name:
        raise InputError(f"The fix of {fix.sample_id} is for {fix.locator.file}.", where=file)
    found = _resolved(file.parent, row.filepath)[0]
    if fix.sample_id not in (found, f"{found}#{row.item}"):
        raise _conflict(file, fix, f"The row is about {found}; expected {fix.sample_id}.")
    if row.label != fix.old:
        raise _conflict(file, fix, f"The label of {fix.sample_id} is {row.label!r}; expected {fix.old!r}.")


def _conflict(file: Path, fix: Fix, what: str) -> ConflictError:
    return ConflictError(what, where=f"{file}:{fix.locator.item}", fix="Nothing was changed. Audit again.")


def _patch_text(
    file: Path, content: bytes, found: Sequence[tuple[Fix, Row]], options: Mapping[str, str]
) -> list[Operation]:
    decoded = _cells.decode(content, file)
    layout, _ = _rows.layout(decoded.text, options, file)
    spans: list[tuple[int, int]] = []
    news: list[bytes] = []
    for fix, row in found:
        assert row.record is not None
        span, new = row.record.span, ""
        if fix.op == "relabel":
            span = row.record.cells[1]
            new = _cells.encoded(new_label(fix), decoded.text[slice(*span)], layout)
        spans.append(span)
        news.append(_cells.to_bytes(new, decoded.encoding, f"{file}:{row.item}"))
    offsets = decoded.byte_offsets([position for span in spans for position in span])
    splices = tuple(zip(offsets[::2], offsets[1::2], news, strict=True))
    return [Edit(path=file, old_md5=md5(content), splices=splices)]


def _patch_parquet(
    file: Path, content: bytes, found: Sequence[tuple[Fix, Row]], column: str
) -> list[Operation]:
    new = {row.item: new_label(fix) for fix, row in found if fix.op == "relabel"}
    dropped = {row.item for fix, row in found if fix.op != "relabel"}
    changed = _parquet.rewritten(content, {column: new}, dropped, file)
    return [Write(path=file, old_md5=md5(content), content=changed)]


def _patch_sets(
    source: Source,
    content: bytes,
    sets: Sets,
    rows: Sequence[Row],
    fixes: Sequence[Fix],
    chosen: Mapping[str, str],
) -> list[Operation]:
    """The edit of a manifest whose images have several classes."""
    file = Path(source.path)
    touched = {fix.sample_id for fix in fixes}
    sample_ids, _ = _identified(file.parent, rows, several=sets.kind == "rows")
    for fix in fixes:
        if fix.op == "merge" and fix.new not in set(sample_ids):
            raise _conflict(file, fix, f"There is no row of {fix.new} any more.")
    own: dict[str, list[Row]] = {}
    for row, sample_id in zip(rows, sample_ids, strict=True):
        if sample_id in touched:
            own.setdefault(sample_id, []).append(row)
    found = _sets.edits(sets, own, fixes, file)
    if file.suffix.lower() in _rows.PARQUET:
        new: dict[str, dict[int, str]] = {}
        for (item, column), value in found.cells.items():
            new.setdefault(chosen["label"] if column is None else sets.columns[column], {})[item] = value
        changed = _parquet.rewritten(
            content, new, found.dropped, file, copies=found.copies, label=chosen.get("label", "")
        )
        return [Write(path=file, old_md5=md5(content), content=changed)]
    decoded = _cells.decode(content, file)
    layout, _ = _rows.layout(decoded.text, source.options, file)
    changes = list(_sets.splices(found, rows, decoded.text, layout, 1))
    offsets = decoded.byte_offsets([position for change in changes for position in change[:2]])
    news = [_cells.to_bytes(new, decoded.encoding, f"{file}:{line}") for *_, new, line in changes]
    splices = tuple(zip(offsets[::2], offsets[1::2], news, strict=True))
    return [Edit(path=file, old_md5=md5(content), splices=splices)]
