"""Parquet manifests: their columns, and the same file with other labels."""

from __future__ import annotations

import io
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from dataaudit.errors import FormatError, InputError


def names(path: Path) -> tuple[str, ...]:
    """Names of the columns."""
    return tuple(_open(path.read_bytes(), path).schema_arrow.names)


def columns(content: bytes, wanted: Sequence[str], where: Path) -> list[list[str | None]]:
    """The columns `wanted` as texts; an empty text is None."""
    table = _open(content, where).read(columns=list(dict.fromkeys(wanted)))
    return [[_text(value) for value in table.column(name).to_pylist()] for name in wanted]


def rewritten(
    content: bytes, column: str, new: Mapping[int, str], dropped: Collection[int], where: Path
) -> bytes:
    """The file with other labels and without some rows.

    Args:
        new: row number to label.
        dropped: row numbers to leave out.

    Returns:
        A file with the same schema, metadata, compression and row groups.

    Raises:
        InputError: a label that the column's type can't hold.
    """
    import pyarrow as pa
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
            table = _relabeled(
                table, column, {row - rows.start: new[row] for row in rows if row in new}, where
            )
            kept = [row - rows.start for row in rows if row not in dropped]
            if len(kept) < table.num_rows:
                table = table.take(pa.array(kept, pa.int64()))
            if table.num_rows:
                writer.write_table(table, row_group_size=table.num_rows)
    return out.getvalue()


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
        if wanted not in categories:
            categories.append(wanted)
        indices[row] = categories.index(wanted)
    return pa.DictionaryArray.from_arrays(
        pa.array(indices, kind.index_type), pa.array(categories, kind.value_type), ordered=kind.ordered
    )


def _typed(label: str, kind: Any, where: Path) -> Any:
    import pyarrow as pa

    try:
        if pa.types.is_integer(kind):
            return int(label)
        if pa.types.is_floating(kind):
            return float(label)
        if pa.types.is_boolean(kind):
            return {"True": True, "False": False}[label]
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
    return value if isinstance(value, str) else str(value)


def _open(content: bytes, where: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(io.BytesIO(content))
    except (pa.ArrowInvalid, OSError) as error:
        raise FormatError(f"The file can't be read as Parquet: {error}.", where=where) from None
