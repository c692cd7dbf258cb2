"""The operations of a journal as data, their records, and what takes them back."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path
from typing import Any

from dataaudit.errors import InputError
from dataaudit.journal import database

__all__ = [
    "Append",
    "Assign",
    "Delete",
    "Edit",
    "Move",
    "Operation",
    "Remove",
    "RemoveEmpty",
    "Restore",
    "Rewrite",
    "Write",
    "absolute",
    "edited",
    "from_record",
    "invert",
    "md5",
    "relative",
    "to_record",
]


@dataclass(frozen=True, kw_only=True)
class Move:
    """Rename a file; the folders of `dst` are made, and an existing `dst` is a conflict."""

    src: Path
    dst: Path


@dataclass(frozen=True, kw_only=True)
class Write:
    """Replace a file's bytes and keep its mode; `old_md5` is None for a file that doesn't exist yet."""

    path: Path
    old_md5: str | None
    content: bytes


@dataclass(frozen=True, kw_only=True)
class Edit:
    """Replace byte ranges of a file.

    Attributes:
        splices: ``(start, end, new bytes)`` with offsets into the old file, ascending and not overlapping.
    """

    path: Path
    old_md5: str
    splices: tuple[tuple[int, int, bytes], ...]


@dataclass(frozen=True, kw_only=True)
class Remove:
    """Remove a file that holds what is expected."""

    path: Path
    old_md5: str


@dataclass(frozen=True, kw_only=True)
class Append:
    """Append lines (without their line ends) to a JSONL file; a torn last line is cut off first."""

    path: Path
    lines: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class RemoveEmpty:
    """Remove a folder if it is there and empty."""

    path: Path


@dataclass(frozen=True, kw_only=True)
class Assign:
    """Set labels of a `Classification` field in FiftyOne; `old` and `new` map sample ids to classes."""

    dataset: str
    field: str
    old: Mapping[str, str | None]
    new: Mapping[str, str | None]


@dataclass(frozen=True, kw_only=True)
class Rewrite:
    """Replace a field of FiftyOne samples.

    Attributes:
        old: sample id to the field's document in extended JSON; None where there is none.
        new: the same.
    """

    dataset: str
    field: str
    old: Mapping[str, str | None]
    new: Mapping[str, str | None]


@dataclass(frozen=True, kw_only=True)
class Delete:
    """Delete samples from a FiftyOne dataset (not their images)."""

    dataset: str
    ids: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Restore:
    """Put deleted samples back into a FiftyOne dataset; each is a document in extended JSON, with its id."""

    dataset: str
    samples: tuple[str, ...]


Operation = Move | Write | Edit | Remove | Append | RemoveEmpty | Assign | Rewrite | Delete | Restore


def edited(content: bytes, splices: Sequence[tuple[int, int, bytes]]) -> bytes:
    """Replace byte ranges.

    >>> edited(b"a.jpg,cat", [(6, 9, b"dog")])
    b'a.jpg,dog'
    """
    view, at = memoryview(content), 0  # slices of it are no copies of a large file
    parts: list[bytes | memoryview] = []
    for start, end, new in splices:
        if not at <= start <= end <= len(content):
            raise InputError(f"The byte range {start} to {end} of {len(content)} is out of order.")
        parts += [view[at:start], new]
        at = end
    return b"".join([*parts, view[at:]])


def md5(content: bytes) -> str:
    """Digest of bytes, as DVC names contents."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def invert(state: Path, operations: Sequence[Operation]) -> list[dict[str, Any]]:
    """What takes `operations` back, as records for a ledger; to be called before they are committed.

    Raises:
        InputError: an operation that can't be taken back from its record alone: a `Write` over a file.
    """
    undone: list[Operation] = []
    made: dict[Path, None] = {}
    for operation in operations:
        if isinstance(operation, Move):
            undone.append(Move(src=operation.dst, dst=operation.src))
            made |= dict.fromkeys(_missing_folders(operation.dst))
        elif isinstance(operation, Edit):
            undone.append(_inverse_edit(operation))
        elif isinstance(operation, Write) and operation.old_md5 is None:
            undone.append(Remove(path=operation.path, old_md5=md5(operation.content)))
            made |= dict.fromkeys(_missing_folders(operation.path))
        elif isinstance(operation, Assign | Rewrite):
            undone.append(replace(operation, old=operation.new, new=operation.old))
        elif isinstance(operation, Delete):
            undone.append(
                Restore(
                    dataset=operation.dataset, samples=database.documents(operation.dataset, operation.ids)
                )
            )
        elif not isinstance(operation, RemoveEmpty):  # moving a file back makes its folder again
            raise InputError(f"A {type(operation).__name__} can't be taken back from its record.")
    deepest_first = sorted(
        (folder for folder in made if state not in [folder, *folder.parents]), reverse=True
    )
    return [to_record(state, each) for each in (*undone, *(RemoveEmpty(path=path) for path in deepest_first))]


def _missing_folders(path: Path) -> Iterator[Path]:
    """The folders above `path` that will be made for it."""
    return takewhile(lambda folder: not folder.exists(), path.parents)


def _inverse_edit(edit: Edit) -> Edit:
    content = edit.path.read_bytes()
    shift, splices = 0, []
    for start, end, new in edit.splices:
        splices.append((start + shift, start + shift + len(new), content[start:end]))
        shift += len(new) - (end - start)
    return Edit(path=edit.path, old_md5=md5(edited(content, edit.splices)), splices=tuple(splices))


# Records: JSON objects, with paths relative to the state so that a dataset may be moved with it


def to_record(state: Path, operation: Operation) -> dict[str, Any]:
    """An operation as a JSON object."""
    record: dict[str, Any] = {"do": type(operation).__name__}
    for name, value in vars(operation).items():
        if isinstance(value, Path):
            value = relative(state, value)
        elif isinstance(value, bytes):
            value = value.decode("latin-1")
        elif isinstance(value, Mapping):
            value = dict(value)
        elif name == "splices":
            value = [[start, end, new.decode("latin-1")] for start, end, new in value]
        record[name] = value
    return record


def from_record(state: Path, record: Mapping[str, Any]) -> Operation:
    """The operation that `to_record` wrote.

    Raises:
        InputError: a record of an unknown kind, such as one of a newer version.
    """
    kinds = {
        kind.__name__: kind
        for kind in (Move, Write, Edit, Remove, Append, RemoveEmpty, Assign, Rewrite, Delete, Restore)
    }
    values = {name: value for name, value in record.items() if name != "do"}
    if record.get("do") not in kinds:
        raise InputError(
            f"The journal names the operation {record.get('do')!r}, which this version doesn't know."
        )
    for name, value in values.items():
        if name in ("path", "src", "dst"):
            values[name] = absolute(state, value)
        elif name == "content":
            values[name] = value.encode("latin-1")
        elif name == "splices":
            values[name] = tuple((start, end, new.encode("latin-1")) for start, end, new in value)
        elif isinstance(value, list):
            values[name] = tuple(value)
    operation: Operation = kinds[record["do"]](**values)
    return operation


def relative(state: Path, path: Path) -> str:
    """A path as a record holds it."""
    try:
        return os.path.relpath(path, state).replace(os.sep, "/")
    except ValueError:  # another drive on Windows
        return str(path)


def absolute(state: Path, text: str) -> Path:
    """A path of a record, which is relative to the state."""
    return Path(os.path.normpath(state / text))
