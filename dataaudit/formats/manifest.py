"""Manifests: a CSV, TSV or Parquet file with a row for each image, ``filepath,label[,split][,...]``.

Paths are relative to the manifest or absolute. A sample's id is its path relative to the manifest's folder; a
path that leads outside it stays as it is written; where a path stands in two rows, the later ones end in
``#<line>``. An empty label is an image without one. A fix changes the manifest alone, never an image.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from dataaudit import state
from dataaudit.errors import ConflictError, DataAuditError, FormatError, InputError, nearest
from dataaudit.formats import _cells, _parquet
from dataaudit.formats._shared import absolute, default_anchor, is_ignored, new_label, place, tables
from dataaudit.journal import Edit, Operation, Write, md5
from dataaudit.types import Fix, Locator, Source, Tables

NAME = "manifest"
DESCRIPTION = (
    "A CSV, TSV or Parquet file with the columns filepath and label, and split where there are splits."
)

FILEPATH = ("filepath", "file_path", "path", "image_path", "filename", "file_name", "file", "image")
LABEL = ("label", "class", "category", "target", "class_name")
SPLIT = ("split", "subset")
SUFFIXES = (".csv", ".tsv", ".parquet", ".pq")

_PARQUET = (".parquet", ".pq")
_ROLES = ("filepath", "label", "split")


class _Row(NamedTuple):
    """A row: its line (from 1) or number (from 0, in Parquet) and cells."""

    item: int
    filepath: str
    label: str | None
    split: str | None
    record: _cells.Record | None = None


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
        options: ``filepath``, ``label`` and ``split``: names of columns, where they aren't the usual.

    Returns:
        Samples in the order of the rows.

    Raises:
        FormatError: several manifests, a malformed row, or no image where the rows say.
        InputError: a column that isn't there.
    """
    file = _manifest(absolute(path))
    root = file.parent
    chosen, rows = _rows(file, file.read_bytes(), options or {})
    sample_ids, filepaths, splits, names, locators = [], [], [], [], []
    seen: set[str] = set()
    below = True
    for row in rows:
        sample_id, filepath = _resolved(root, row.filepath)
        below = below and "/" in sample_id and not sample_id.startswith(("/", ".."))
        if sample_id in seen:
            sample_id = f"{sample_id}#{row.item}"
        seen.add(sample_id)
        sample_ids.append(sample_id)
        filepaths.append(filepath)
        splits.append(row.split)
        names.append(row.label)
        locators.append(Locator(file=file.name, item=row.item, field=chosen["label"]))
    if not sample_ids:
        raise FormatError("The manifest has a header and no rows.", where=file)
    _check_some_exist(file, filepaths, locators[0])
    default = root if below else default_anchor(root)
    return tables(
        sample_ids=sample_ids,
        filepaths=filepaths,
        splits=splits,
        names=names,
        locators=locators,
        source=place(root, default, lambda anchor: _source(file, anchor, chosen)),
    )


def patch(source: Source, fixes: Sequence[Fix]) -> list[Operation]:
    """The edit that carries out `fixes`: the cells of new labels, and the lines of dropped samples.

    Raises:
        ConflictError: a row no longer holds what its fix expects.
        InputError: a label that the file can't hold.
    """
    file = Path(source.path)
    content = file.read_bytes()
    _check_link(file)
    _, rows = _rows(file, content, source.options)
    wanted = {fix.locator.item: fix for fix in fixes}
    if len(wanted) != len(fixes):
        raise InputError("Two fixes are of the same row; at most one can be applied.", where=file)
    kept = {fix.new: fix for fix in fixes if fix.op == "merge"}
    found: list[tuple[Fix, _Row]] = []
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
    if file.suffix.lower() in _PARQUET:
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
        if file.suffix.lower() in _PARQUET:
            return _fits(_parquet.names(file))
        with file.open("rb") as opened:
            head = opened.read(65536)
        return _fits(_cells.layout(_cells.decode(head[: len(head) // 4 * 4], file).text, _fits, file).names)
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


def _fits(names: Sequence[str]) -> bool:
    known = {name.casefold() for name in names}
    return any(name in known for name in FILEPATH) and any(name in known for name in LABEL)


def _columns(names: Sequence[str], options: Mapping[str, str], where: Path) -> dict[str, str]:
    """Names of the columns for filepath, label and, where there is one, split."""
    for option in options:
        if option not in _ROLES:
            raise InputError(f"The format {NAME!r} has no option {option!r}. {nearest(option, _ROLES)}")
    chosen = {}
    for role, usual in (("filepath", FILEPATH), ("label", LABEL), ("split", SPLIT)):
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


# Rows


def _rows(file: Path, content: bytes, options: Mapping[str, str]) -> tuple[dict[str, str], Iterator[_Row]]:
    if file.suffix.lower() in _PARQUET:
        chosen = _columns(_parquet.names(file), options, file)
        return chosen, _parquet_rows(file, content, chosen)
    decoded = _cells.decode(content, file)
    layout, chosen = _layout(decoded.text, options, file)
    return chosen, _text_rows(file, decoded.text, layout, chosen)


def _layout(text: str, options: Mapping[str, str], file: Path) -> tuple[_cells.Layout, dict[str, str]]:
    def fits(names: tuple[str, ...]) -> bool:
        return all(name in names for name in options.values()) and (bool(options) or _fits(names))

    layout = _cells.layout(text, fits, file)
    return layout, _columns(layout.names, options, file)


def _text_rows(file: Path, text: str, layout: _cells.Layout, chosen: Mapping[str, str]) -> Iterator[_Row]:
    columns = [layout.names.index(chosen[role]) for role in ("filepath", "label", "split") if role in chosen]
    for record in _cells.records(text, layout, columns, file):
        filepath, label, *split = [_cells.value(text, span) for span in record.cells]
        if not filepath.strip():
            raise FormatError(f"The cell {chosen['filepath']!r} is empty.", where=f"{file}:{record.line}")
        yield _Row(
            record.line,
            filepath,
            label if label.strip() else None,
            split[0].strip() or None if split else None,
            record,
        )


def _parquet_rows(file: Path, content: bytes, chosen: Mapping[str, str]) -> Iterator[_Row]:
    filepaths, labels, *splits = _parquet.columns(content, list(chosen.values()), file)
    for row, filepath in enumerate(filepaths):
        if filepath is None:
            raise FormatError(f"The cell {chosen['filepath']!r} is empty.", where=f"{file}:{row}")
        yield _Row(row, filepath, labels[row], splits[0][row] if splits else None)


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


def _check_old(file: Path, fix: Fix, row: _Row) -> None:
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
    file: Path, content: bytes, found: Sequence[tuple[Fix, _Row]], options: Mapping[str, str]
) -> list[Operation]:
    decoded = _cells.decode(content, file)
    layout, _ = _layout(decoded.text, options, file)
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
    file: Path, content: bytes, found: Sequence[tuple[Fix, _Row]], column: str
) -> list[Operation]:
    new = {row.item: new_label(fix) for fix, row in found if fix.op == "relabel"}
    dropped = {row.item for fix, row in found if fix.op != "relabel"}
    return [
        Write(
            path=file, old_md5=md5(content), content=_parquet.rewritten(content, column, new, dropped, file)
        )
    ]
