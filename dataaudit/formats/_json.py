"""JSON text with the place of every element, so that one value can be changed and no other byte."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from dataaudit.errors import FormatError
from dataaudit.formats import _cells

Span = tuple[int, int]
Splice = tuple[int, int, str]

_SPACE = re.compile(r"[ \t\n\r]*")
_NEXT = re.compile(r"[ \t\n\r]*([,\]}])[ \t\n\r]*")
_COLON = re.compile(r"[ \t\n\r]*:[ \t\n\r]*")
_STEP = 1 << 20

_decode = json.JSONDecoder().raw_decode


class Element(NamedTuple):
    """An element of one of the arrays that were asked for.

    Attributes:
        key: of the array.
        start: position in the text.
        end: position after it.
        value: what it says.
    """

    key: str
    start: int
    end: int
    value: Any


class Member(NamedTuple):
    """A key and its value in an object: where the key begins, and from where to where the value stands."""

    key: str
    at: int
    start: int
    end: int


def walk(text: str, where: Path, arrays: dict[str, Span], wanted: Collection[str]) -> Iterator[Element]:
    """The elements of the arrays under the keys `wanted` of the object that the text is, one by one.

    Only one element is held at a time: a file of 450 MB as Python objects takes several GB.

    Args:
        text: the whole file.
        where: the file.
        arrays: gets the place of each of the arrays, brackets included.
        wanted: keys of the outermost object.

    Raises:
        FormatError: no JSON, not an object, or one of the keys twice; with file, line and column.
    """
    at = _space(text, 0)
    if text[at : at + 1] != "{":
        raise error(text, at, where, "Expected an object: {")
    at = _space(text, at + 1)
    closed = text[at : at + 1] == "}"
    end = at + 1
    while not closed:
        key, end = _value(text, at, where)
        if not isinstance(key, str):
            raise error(text, at, where, "Expected a key in double quotes")
        colon = _COLON.match(text, end)
        if colon is None:
            raise error(text, end, where, "Expected a colon")
        at = colon.end()
        if key in arrays:
            raise error(text, at, where, f"The key {key!r} stands here again")
        if key in wanted and text.startswith("[", at):
            end = yield from _elements(text, at, where, key)
            arrays[key] = (at, end)
        else:
            _, end = _value(text, at, where)
        closed, end, at = _step(text, end, where, "}")
    rest = _space(text, end)
    if rest != len(text):
        raise error(text, rest, where, "Something follows the end")


def _elements(text: str, at: int, where: Path, key: str) -> Generator[Element, None, int]:
    """The elements of the array at `at`; returns the position after it."""
    at = _space(text, at + 1)
    if text.startswith("]", at):
        return at + 1
    while True:
        value, end = _value(text, at, where)
        yield Element(key, at, end, value)
        closed, end, at = _step(text, end, where, "]")
        if closed:
            return end


def _value(text: str, at: int, where: Path) -> tuple[Any, int]:
    try:
        return _decode(text, at)
    except json.JSONDecodeError as problem:
        raise error(text, problem.pos, where, problem.msg) from None
    except RecursionError:
        raise error(text, at, where, "Too deeply nested") from None
    except ValueError as problem:  # such as an integer of 5,000 digits
        raise error(text, at, where, str(problem)) from None


def _step(text: str, at: int, where: Path, closing: str) -> tuple[bool, int, int]:
    """Whether the array or object ends here, the position after the bracket, and that of what follows."""
    found = _NEXT.match(text, at)
    if found is None or found[1] not in (",", closing):
        raise error(text, _space(text, at), where, f"Expected a comma or {closing}")
    return found[1] == closing, found.end(1), found.end()


def _space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


def error(text: str, at: int, where: Path, what: str) -> FormatError:
    """The error for a position in the text."""
    line = text.count("\n", 0, at) + 1
    column = at - text.rfind("\n", 0, at)
    here = repr(text[at : at + 20]) if at < len(text) else "the end of the file"
    return FormatError(
        f"This isn't JSON. {what}; here is {here}.",
        where=f"{where}:{line}:{column}",
        fix="Correct the file there, or export it again.",
    )


def members(text: str, start: int) -> list[Member]:
    """The members of the object at `start`, which was read before."""
    found = []
    at = _space(text, start + 1)
    while not text.startswith("}", at):
        key, end = _decode(text, at)
        colon = _COLON.match(text, end)
        begin = colon.end() if colon else end
        _, end = _decode(text, begin)
        found.append(Member(key, at, begin, end))
        after = _NEXT.match(text, end)
        if after is None or after[1] != ",":
            break
        at = after.end()
    return found


def items(text: str, start: int) -> list[Span]:
    """The places of the items of the array at `start`, which was read before."""
    found = []
    at = _space(text, start + 1)
    while not text.startswith("]", at):
        _, end = _decode(text, at)
        found.append((at, end))
        after = _NEXT.match(text, end)
        if after is None or after[1] != ",":
            break
        at = after.end()
    return found


# Writing


@dataclass(frozen=True, kw_only=True)
class Style:
    """The white space of an object or array: behind the opening bracket, around colons and commas, and before
    the closing bracket."""

    opening: str = ""
    colon: str = ": "
    comma: str = ", "
    closing: str = ""

    def object(self, values: Mapping[str, str]) -> str:
        """An object of values that are JSON already."""
        inner = self.comma.join(f'"{key}"{self.colon}{value}' for key, value in values.items())
        return f"{{{self.opening}{inner}{self.closing}}}"

    def array(self, values: Iterable[str]) -> str:
        """An array of values that are JSON already."""
        return f"[{self.opening}{self.comma.join(values)}{self.closing}]"


def object_style(text: str, start: int) -> Style:
    """The style of the object at `start`."""
    found = members(text, start)
    if not found:
        return Style()
    first, last = found[0], found[-1]
    comma = text[first.end : found[1].at] if len(found) > 1 else Style().comma
    closing = text[last.end : text.index("}", last.end)]
    colon = text[first.at : first.start]
    return Style(
        opening=text[start + 1 : first.at], colon=colon[colon.rindex('"') + 1 :], comma=comma, closing=closing
    )


def array_style(text: str, start: int) -> Style:
    """The style of the array at `start`."""
    found = items(text, start)
    if not found:
        return Style()
    comma = text[found[0][1] : found[1][0]] if len(found) > 1 else Style().comma
    closing = text[found[-1][1] : text.index("]", found[-1][1])]
    return Style(opening=text[start + 1 : found[0][0]], comma=comma, closing=closing)


def without(starts: Sequence[int], ends: Sequence[int], gone: Collection[int]) -> list[Splice]:
    """What takes elements out of an array, each with one comma.

    Args:
        starts: where its elements begin, ascending.
        ends: and end.
        gone: numbers of the elements to take out.
    """
    splices = []
    numbers = sorted(gone)
    position = 0
    while position < len(numbers):
        first = last = numbers[position]
        while position + 1 < len(numbers) and numbers[position + 1] == last + 1:
            position += 1
            last += 1
        position += 1
        if last + 1 < len(starts):
            splices.append((starts[first], starts[last + 1], ""))
        elif first:
            splices.append((ends[first - 1], ends[last], ""))
        else:
            splices.append((starts[first], ends[last], ""))
    return splices


def appended(
    text: str,
    array: Span,
    starts: Sequence[int],
    ends: Sequence[int],
    gone: Collection[int],
    news: Sequence[str],
) -> list[Splice]:
    """What puts new elements at the end of an array from which those of the numbers `gone` are taken out."""
    if not news:
        return []
    if not starts:
        return [(array[0] + 1, array[0] + 1, ", ".join(news))]
    between = text[ends[0] : starts[1]] if len(starts) > 1 else "," + text[array[0] + 1 : starts[0]]
    if between == "," and object_or_space(text, starts[0]):
        between = ", "
    kept = len(starts) > len(gone)
    return [(ends[-1], ends[-1], between.join(["", *news] if kept else news))]


def object_or_space(text: str, start: int) -> bool:
    """Whether the first comma within the object at `start` is followed by a space."""
    return text.startswith("{", start) and object_style(text, start).comma == ", "


def to_splices(
    found: _cells.Text, changes: Iterable[Splice], where: Path
) -> tuple[tuple[int, int, bytes], ...]:
    """Changes of the text as changes of the file's bytes, in ascending order."""
    ordered = sorted(changes, key=lambda change: change[:2])
    offsets = byte_offsets(found, [position for change in ordered for position in change[:2]])
    news = [_cells.to_bytes(new, found.encoding, str(where)) for *_, new in ordered]
    return tuple(zip(offsets[::2], offsets[1::2], news, strict=True))


def byte_offsets(found: _cells.Text, positions: Sequence[int]) -> list[int]:
    """Byte offsets of ascending positions; of a large file without a copy of it."""
    if found.text.isascii() and found.encoding == "utf-8":
        return [position + len(found.bom) for position in positions]
    offsets, at, offset = [], 0, len(found.bom)
    for position in positions:
        for step in range(at, position, _STEP):
            offset += len(found.text[step : min(step + _STEP, position)].encode(found.encoding))
        at = position
        offsets.append(offset)
    return offsets


def string(value: str, text: str) -> str:
    """A string as JSON, with escapes where the file has nothing but ASCII."""
    return json.dumps(value, ensure_ascii=text.isascii())
