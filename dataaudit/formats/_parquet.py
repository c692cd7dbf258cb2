"""Parquet manifests: their columns, and the same file with other labels."""

from __future__ import annotations

import io
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from dataaudit.errors import FormatError, InputError

IN_LIST = "\x1f"
"""Stands between the texts of a cell that holds a list."""


def names(path: Path) -> tuple[str, ...]:
    """Names of the columns."""
    return tuple(_open(path.read_bytes(), path).schema_arrow.names)


def columns(content: bytes, wanted: Sequence[str], where: Path) -> list[list[str | None]]:
    """The columns `wanted` as texts; an empty text is None, and a list is its texts joined by `IN_LIST`."""
    table = _open(content, where).read(columns=list(dict.fromkeys(wanted)))
    return [[_text(value) for value in table.column(name).to_pylist()] for name in wanted]


def is_list(path: Path, column: str) -> bool:
    """Whether the cells of a column hold lists."""
    import pyarrow as pa

    kind = _open(path.read_bytes(), path).schema_arrow.field(column).type
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


def rewritten(
    content: bytes,
    new: Mapping[str, Mapping[int, str]],
    dropped: Collection[int],
    where: Path,
    *,
    copies: Mapping[int, Sequence[str]] | None = None,
    label: str = "",
) -> bytes:
    """The file with other cells, without some rows and with copies of others.

    Args:
        new: for each column row number to new value.
        dropped: row numbers to leave out.
        where: the file, for errors.
        copies: for a row number the labels of copies of it, which are put behind it.
        label: the column of these labels.

    Returns:
        A file with the same schema, metadata, compression and row groups.

    Raises:
        InputError: a label that the column's type can't hold.
    """
    import pyarrow.parquet as pq

    file = _open(content, where)
    metadata = file.metadata
    compression = {}
    if metadata.num_row_groups:
        group = metadata.row_group(0)
        for number in range(group.num_columns):
            codec = group.column(number).compression
            compression[group.column(number).path_in_schema] = "NONE" if codec == "UNCOMPRESSED" else codec
    out = io.BytesIO()
    version = metadata.format_version if metadata.format_version in ("1.0", "2.4", "2.6") else "2.6"
    with pq.ParquetWriter(
        out, file.schema_arrow, compression=compression or "snappy", version=version
    ) as writer:
        first = 0
        for number in range(metadata.num_row_groups):
            table = file.read_row_group(number)
            rows = range(first, first + table.num_rows)
            first = rows.stop
            for column, cells in new.items():
                here = {row - rows.start: value for row, value in cells.items() if row in rows}
                table = _relabeled(table, column, here, where)
            table = _rearranged(table, rows, dropped, copies or {}, label, where)
            if table.num_rows:
                writer.write_table(table, row_group_size=table.num_rows)
    return out.getvalue()


def _rearranged(
    table: Any,
    rows: range,
    dropped: Collection[int],
    copies: Mapping[int, Sequence[str]],
    label: str,
    where: Path,
) -> Any:
    """The table of some rows without those that are dropped, and with the copies behind the others."""
    import pyarrow as pa

    order: list[int] = []
    labels: dict[int, str] = {}
    for row in rows:
        order += [] if row in dropped else [row - rows.start]
        for name in copies.get(row, ()):
            labels[len(order)] = name
            order.append(row - rows.start)
    if len(order) == table.num_rows and not labels:
        return table
    return _relabeled(table.take(pa.array(order, pa.int64())), label, labels, where)


def _relabeled(table: Any, column: str, new: Mapping[int, str], where: Path) -> Any:
    if not new:
        return table
    import pyarrow as pa

    number = table.schema.get_field_index(column)
    kind = table.schema.field(number).type
    if pa.types.is_dictionary(kind):
        values = _in_dictionary(table.column(number), kind, new, where)
    else:
        cells = table.column(number).to_pylist()
        for row, label in new.items():
            cells[row] = _typed(label, kind, where)
        values = pa.array(cells, type=kind)
    return table.set_column(number, table.schema.field(number), values)


def _in_dictionary(cells: Any, kind: Any, new: Mapping[int, str], where: Path) -> Any:
    """A dictionary column with other labels; the order of its categories stays, new ones come last."""
    import pyarrow as pa

    joined = cells.unify_dictionaries().combine_chunks()
    joined = joined.chunk(0) if isinstance(joined, pa.ChunkedArray) else joined
    categories, indices = joined.dictionary.to_pylist(), joined.indices.to_pylist()
    for row, label in new.items():
        wanted = _typed(label, kind.value_type, where)
        if wanted is None:
            indices[row] = None
            continue
        if wanted not in categories:
            categories.append(wanted)
        indices[row] = categories.index(wanted)
    return pa.DictionaryArray.from_arrays(
        pa.array(indices, kind.index_type), pa.array(categories, kind.value_type), ordered=kind.ordered
    )


def _typed(label: str, kind: Any, where: Path) -> Any:
    import pyarrow as pa

    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return [_typed(each, kind.value_type, where) for each in label.split(IN_LIST) if each]
    if not label:
        return None
    try:
        if pa.types.is_integer(kind):
            return int(label)
        if pa.types.is_floating(kind):
            return float(label)
        if pa.types.is_boolean(kind):
            return {"True": True, "False": False, "1": True, "0": False}[label]
    except (ValueError, KeyError):
        raise InputError(
            f"The label column holds {kind} and can't hold {label!r}.",
            where=where,
            fix="Nothing was changed.",
        ) from None
    return label


def _text(value: Any) -> str | None:
    if value is None or value != value or value == "":
        return None
    if isinstance(value, list):
        return IN_LIST.join(str(each) for each in value if each is not None) or None
    return value if isinstance(value, str) else str(value)


def _open(content: bytes, where: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(io.BytesIO(content))
    except (pa.ArrowInvalid, OSError) as error:
        raise FormatError(f"The file can't be read as Parquet: {error}.", where=where) from None
