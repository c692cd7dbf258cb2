"""Scalars of TensorBoard's event files, read without TensorBoard.

An event file is a row of records: length (8 bytes), its checksum (4), an ``Event`` message of protocol
buffers, its checksum (4). Of the messages only the fields of scalars are looked at.

Reference: tensorflow/core/lib/io/record_writer.h, tensorflow/core/util/event.proto and
tensorflow/core/framework/summary.proto. Checksums are CRC-32C, compared only where a record can't be read.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

from dataaudit.errors import FormatError

__all__ = ["Point", "scalars"]

Point = tuple[str, int, float]
"""Tag, step and value."""
_HEAD = struct.Struct("<QI")
_FLOAT, _DOUBLE = struct.Struct("<f"), struct.Struct("<d")
# Of TensorProto: number of the type, its format and the field of its values
_TENSORS = {1: ("<f", 5), 2: ("<d", 6), 3: ("<i", 7), 9: ("<q", 10), 19: ("<e", 13)}


def scalars(path: Path) -> Iterator[Point]:
    """Every scalar of a file, in the order in which it was written.

    A file that ends in the middle of a record is read up to it: that run is still being written, or was
    killed.

    Raises:
        FormatError: not an event file, or broken inside.
    """
    data = path.read_bytes()
    at, size = 0, len(data)
    known: set[bytes] = set()
    while at + _HEAD.size <= size:
        length, told = _HEAD.unpack_from(data, at)
        start = at + _HEAD.size
        end = start + length
        if end + 4 > size:
            if _checksum(data[at : at + 8]) != told:
                raise _broken(path, at)
            return
        try:
            yield from _of_event(data[start:end], known)
        except (IndexError, struct.error, ValueError, UnicodeDecodeError):
            if _checksum(data[at : at + 8]) == told and not any(data[at:]):
                return
            raise _broken(path, at) from None
        at = end + 4


def _broken(path: Path, at: int) -> FormatError:
    if not at:
        return FormatError(
            "it is named as an event file of TensorBoard, but its first record can't be read.",
            where=path, fix="Take the file away, or copy it again from where it was written.",
        )  # fmt: skip
    return FormatError(
        f"the record at byte {at:,} is broken.", where=path,
        fix=f"Copy the file again, or keep what comes before: head -c {at} FILE > NEW.",
    )  # fmt: skip


def _of_event(event: bytes, known: set[bytes]) -> list[Point]:
    step = 0
    summaries = []
    for number, value in _fields(event):
        if number == 2 and isinstance(value, int):
            step = value - (1 << 64) if value >> 63 else value
        elif number == 5 and isinstance(value, bytes):
            summaries.append(value)
    found = []
    for summary in summaries:
        for number, value in _fields(summary):
            if number == 1 and isinstance(value, bytes):
                point = _of_value(value, known)
                if point is not None:
                    found.append((point[0], step, point[1]))
    return found


def _of_value(message: bytes, known: set[bytes]) -> tuple[str, float] | None:
    tag, number_at, tensor, plugin = b"", None, None, b""
    for number, value in _fields(message):
        if not isinstance(value, bytes):
            continue
        if number == 1:
            tag = value
        elif number == 2:
            number_at = _FLOAT.unpack(value)[0]
        elif number == 8:
            tensor = value
        elif number == 9:
            plugin = _inner(_inner(value, 1), 1)
    if number_at is not None:
        return tag.decode(), float(number_at)
    if plugin == b"scalars":
        known.add(tag)
    # TensorFlow tells what a tag is only where it is first written
    if tensor is None or tag not in known:
        return None
    single = _single(tensor)
    return None if single is None else (tag.decode(), single)


def _inner(message: bytes, wanted: int) -> bytes:
    return next((v for number, v in _fields(message) if number == wanted and isinstance(v, bytes)), b"")


def _single(tensor: bytes) -> float | None:
    kind, content = 0, b""
    values: dict[int, int | bytes] = {}
    for number, value in _fields(tensor):
        if number == 1 and isinstance(value, int):
            kind = value
        elif number == 4 and isinstance(value, bytes):
            content = value
        else:
            values[number] = value
    if kind not in _TENSORS:
        return None
    form, place = _TENSORS[kind]
    if len(content) >= struct.calcsize(form):
        return float(struct.unpack_from(form, content)[0])
    held = values.get(place)
    if isinstance(held, bytes) and kind in (1, 2) and held:
        return float(struct.unpack_from(form, held)[0])
    whole = _varint(held, 0)[0] if isinstance(held, bytes) and held else 0 if held is None else int(held)
    if kind == 19:
        return float(struct.unpack("<e", struct.pack("<H", whole))[0])
    return float(whole - (1 << 64) if whole >> 63 else whole)


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Number and value of each field: an int of a varint, the bytes of everything else."""
    at, size = 0, len(message)
    while at < size:
        key = message[at]
        at += 1
        if key >= 0x80:
            key, at = _varint(message, at - 1)
        kind = key & 7
        if kind == 0:
            value, at = _varint(message, at)
            yield key >> 3, value
            continue
        if kind == 2:
            length, at = _varint(message, at)
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        else:
            raise ValueError(f"no field of protocol buffers has the kind {kind}")
        if at + length > size:
            raise IndexError("a field is longer than its message")
        yield key >> 3, message[at : at + length]
        at += length


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value, shift = 0, 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a number has more than 64 bits")


def _table() -> list[int]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


def _checksum(data: bytes) -> int:
    """CRC-32C, masked as in the records of TensorFlow."""
    table, value = _table(), 0xFFFFFFFF
    for byte in data:
        value = table[(value ^ byte) & 0xFF] ^ value >> 8
    value ^= 0xFFFFFFFF
    return ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF
