"""Delimited text with the place of every cell, so that one cell can be changed and no other byte."""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from dataaudit.errors import FormatError, InputError

DELIMITERS = ",;\t|"

_QUOTED = '"[^"]*(?:""[^"]*)*"(?!")'
_LINE_END = re.compile(r"\r\n|\n|\r")
_BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))


@dataclass(frozen=True, kw_only=True)
class Text:
    """A text file: its text without the byte order mark, and how to get back to the same bytes."""

    text: str
    encoding: str
    bom: bytes

    def byte_offsets(self, positions: Sequence[int]) -> list[int]:
        """Byte offsets in the file of ascending positions in the text."""
        offsets, at, offset = [], 0, len(self.bom)
        for position in positions:
            offset += len(self.text[at:position].encode(self.encoding))
            at = position
            offsets.append(offset)
        return offsets


def decode(content: bytes, where: Path) -> Text:
    """Decode UTF-8, UTF-16 or, where it is neither, the Western encoding of Windows.

    Raises:
        FormatError: UTF-16 that is cut short.
    """
    for bom, encoding in _BOMS:
        if content.startswith(bom):
            try:
                return Text(text=content[len(bom) :].decode(encoding), encoding=encoding, bom=bom)
            except UnicodeDecodeError as error:
                raise FormatError(
                    f"The file begins as {encoding} and can't be read as it: {error}.", where=where
                ) from None
    guesses = ["utf-8", "cp1252", "latin-1"]
    head = content[:4096]
    if b"\0" in head:
        wide = ["utf-16-le", "utf-16-be"] if content[1:2] == b"\0" else ["utf-16-be", "utf-16-le"]
        evens, odds = sorted((head[::2].count(0), head[1::2].count(0)))
        # The upper halves of characters are all at even places or all at odd ones
        guesses = wide if odds * 4 >= len(head) // 2 and evens * 2 < odds else ["utf-8", *wide]
    for encoding in guesses:
        try:
            return Text(text=content.decode(encoding), encoding=encoding, bom=b"")
        except UnicodeDecodeError:
            continue
    raise FormatError("The file is not text.", where=where, fix="Expected text in UTF-8, UTF-16 or Latin-1.")


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How a delimited text is laid out.

    Attributes:
        delimiter: between cells.
        spaced: whether a space that follows a delimiter is no part of the cell, as the header shows.
        names: the header's cells.
        start: position in the text where the first record begins.
        line: line number there.
    """

    delimiter: str
    spaced: bool
    names: tuple[str, ...]
    start: int
    line: int


class Record(NamedTuple):
    """One record; a named tuple, as there may be millions.

    Attributes:
        line: number of the line that it begins on, from 1.
        span: its place in the text with its line end.
        cells: places of the cells that were asked for, with their quotes.
    """

    line: int
    span: tuple[int, int]
    cells: tuple[tuple[int, int], ...]


def layout(text: str, fits: Callable[[tuple[str, ...]], bool], where: Path) -> Layout:
    """Find the delimiter: the one whose header cells fit, else the one with the most cells.

    Raises:
        FormatError: no header.
    """
    begin = len(text) - len(text.lstrip("\r\n"))
    if begin == len(text):
        raise FormatError(
            "The file is empty.", where=where, fix="Expected a header and a line for each image."
        )
    found = [_header(text, begin, delimiter) for delimiter in DELIMITERS]
    return max(found, key=lambda each: (fits(each.names), len(each.names)))


def records(text: str, found: Layout, columns: Sequence[int], where: Path) -> Iterator[Record]:
    """The records below the header; blank lines are passed over.

    Args:
        columns: numbers of the columns whose cells are wanted.

    Raises:
        FormatError: a record with too few or too many cells, or a quote that isn't closed.
    """
    pattern = _record_pattern(found, columns)
    groups = [sorted(set(columns)).index(column) + 1 for column in columns]
    quoted = '"' in text
    line, expected = found.line, found.start
    for match in pattern.finditer(text, found.start):
        start, end = match.span()
        if start != expected or start == len(text):
            break
        expected = end
        if match.start(1) >= 0:
            yield Record(line, (start, end), tuple([match.span(group) for group in groups]))
        line += len(_LINE_END.findall(text, start, end)) if quoted else 1
    if expected < len(text):
        raise _malformed(text, expected, line, found, where)


def value(text: str, span: tuple[int, int]) -> str:
    """What a cell says."""
    raw = text[span[0] : span[1]]
    return raw[1:-1].replace('""', '"') if raw.startswith('"') else raw


def encoded(new: str, old_raw: str, found: Layout) -> str:
    """A cell's text for the value `new`: quoted where the old one was, or where it has to be."""
    needed = any(character in new for character in f'"\r\n{found.delimiter}') or new != new.strip()
    if needed or old_raw.startswith('"'):
        return '"' + new.replace('"', '""') + '"'
    return new


def line_end(text: str) -> str:
    """How the lines of a text end.

    >>> line_end("a,b\\r\\nc,d")
    '\\r\\n'
    """
    found = _LINE_END.search(text)
    return found.group() if found else "\n"


def to_bytes(text: str, encoding: str, where: str) -> bytes:
    """Encode a cell.

    Raises:
        InputError: a character that the file's encoding doesn't have.
    """
    try:
        return text.encode(encoding)
    except UnicodeEncodeError:
        raise InputError(
            f"The file is in {encoding}, which can't hold {text!r}.", where=where,
            fix="Nothing was changed. Save the file as UTF-8 first.",
        ) from None  # fmt: skip


def _cell(delimiter: str, spaced: bool) -> tuple[str, str, str]:
    """Patterns: what comes before the cell, the cell, what comes after it."""
    stop = re.escape(delimiter)
    return " *" if spaced else "", rf'{_QUOTED}|[^"{stop}\r\n][^{stop}\r\n]*|', " *"


def _record_pattern(found: Layout, columns: Sequence[int]) -> re.Pattern[str]:
    before, cell, after = _cell(found.delimiter, found.spaced)
    stop = re.escape(found.delimiter)
    last = max(columns)
    cells = [
        f"{before}({cell}){after}" if n in columns else f"{before}(?:{cell}){after}" for n in range(last + 1)
    ]
    more = len(found.names) - 1 - last
    rest = f"(?:{stop}{before}(?:{cell}){after}){{0,{more}}}{stop}*" if more else f"{stop}*"
    return re.compile(rf"(?:{stop.join(cells)}{rest}|[ \t]*)(?:\r\n|\n|\r|\Z)")


def _header(text: str, begin: int, delimiter: str) -> Layout:
    _, cell, after = _cell(delimiter, True)
    names, spaces, at = [], [], begin
    pattern = re.compile(f"( *)({cell}){after}")
    while True:
        match = pattern.match(text, at)
        assert match is not None  # an empty cell matches anywhere
        names.append(value(text, match.span(2)).strip())
        spaces.append(bool(match.group(1)))
        at = match.end()
        if not text.startswith(delimiter, at):
            break
        at += 1
    end = _LINE_END.search(text, at)
    start = end.end() if end else len(text)
    while len(names) > 1 and not names[-1]:
        names.pop()
    line = 1 + len(_LINE_END.findall(text, 0, start))
    spaced = len(names) > 1 and all(spaces[1 : len(names)])
    return Layout(delimiter=delimiter, spaced=spaced, names=tuple(names), start=start, line=line)


def _malformed(text: str, at: int, line: int, found: Layout, where: Path) -> FormatError:
    before, cell, after = _cell(found.delimiter, found.spaced)
    pattern = re.compile(f"{before}({cell}){after}(?={re.escape(found.delimiter)}|\r|\n|\\Z)")
    count = 0
    while match := pattern.match(text, at):
        count += 1
        at = match.end()
        if not text.startswith(found.delimiter, at):
            break
        at += 1
    place = f"{where}:{line}"
    if match is None:
        return FormatError(
            f"The quotes in cell {count + 1} don't match.", where=place,
            fix='A cell in quotes ends with a quote; a quote inside it is written "".',
        )  # fmt: skip
    return FormatError(
        f"The record has {count} cells; the header has {len(found.names)}.", where=place,
        fix="Put a cell that holds the delimiter in quotes, or add the cells that are missing.",
    )  # fmt: skip
