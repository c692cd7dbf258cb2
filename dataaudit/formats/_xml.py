"""XML files: read with the place of every element, and edited with all else left byte for byte.

Elements are found by expat, which names byte offsets; nothing is written back through a tree, so comments,
indentation, quotes, the order of attributes and the encoding stay. Entities that a file declares are never
expanded.
"""

from __future__ import annotations

import codecs
import re
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from xml.parsers import expat

from dataaudit.errors import FormatError, InputError

__all__ = [
    "Document", "Element", "Splice", "Values", "attribute", "copied", "escaped", "inserted", "parse",
    "removed", "text",
]  # fmt: skip

Splice = tuple[int, int, str]
"""Start and end in a document's UTF-8 bytes, and the text that comes in their place."""
Values = Mapping[str, "str | Values"]

_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_UNMARKED = (
    (b"<\0\0\0", "utf-32-le"),
    (b"\0\0\0<", "utf-32-be"),
    (b"<\0", "utf-16-le"),
    (b"\0<", "utf-16-be"),
)
_NO_ENCODINGS = frozenset({"idna", "punycode", "raw-unicode-escape", "undefined", "unicode-escape", "utf-7"})
"""What Python calls encodings and no XML file has."""
_DECLARED = re.compile(rb"""\s*<\?xml[^>]*?encoding\s*=\s*["']([A-Za-z0-9._-]+)["']""")
_START_TAG = re.compile(rb"""<(?:[^>"']|"[^"]*"|'[^']*')*>""")
_ATTRIBUTE = re.compile(rb"""\s([^\s=/>]+)\s*=\s*(?:"([^"]*)"|'([^']*)')""")
_PIECE = re.compile(rb"<!--.*?-->|<\?.*?\?>|<!\[CDATA\[.*?\]\]>|[^<]+", re.DOTALL)
_INDENTED = re.compile(rb"(\r\n|\n|\r)([ \t]*)<")
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")


class Element:
    """An element with its place.

    Attributes:
        tag: its name as it is written.
        name: its name without the prefix of a namespace.
        attributes: their values by name.
        text: the text directly inside it.
        children: the elements directly inside it.
        start: offset of its first byte.
        stop: offset of its closing tag, or of its end where it has none.
    """

    __slots__ = ("attributes", "children", "name", "start", "stop", "tag", "text")

    def __init__(self, tag: str, attributes: dict[str, str], start: int) -> None:
        self.tag, self.attributes, self.start = tag, attributes, start
        self.name = tag.rpartition(":")[2] if ":" in tag else tag
        self.text, self.stop = "", start
        self.children: list[Element] = []

    def first(self, name: str) -> Element | None:
        """The first child of that name."""
        return next((child for child in self.children if child.name == name), None)

    def all(self, name: str) -> Iterator[Element]:
        """The children of that name."""
        return (child for child in self.children if child.name == name)


class Document:
    """The bytes of an XML file.

    Args:
        content: all bytes of the file.
        file: its path, for errors.

    Raises:
        FormatError: the bytes aren't text in the encoding that the file declares.
    """

    def __init__(self, content: bytes, file: str) -> None:
        self.content, self.file = content, file
        self.bom, self.encoding = _encoding(content)
        self.data = content[len(self.bom) :] if self.bom else content
        if self.encoding != "utf-8":
            try:
                self.data = self.data.decode(self.encoding).encode()
            except (UnicodeError, LookupError) as error:
                raise FormatError(
                    f"The bytes aren't text in the encoding {self.encoding!r}: {error}.", where=file
                ) from None

    def line(self, position: int) -> int:
        """The line of a position, from 1."""
        return self.data.count(b"\n", 0, position) + 1

    def opened(self, element: Element) -> int:
        """The end of an element's start tag."""
        found = _START_TAG.match(self.data, element.start)
        assert found is not None, element.tag
        return found.end()

    def end(self, element: Element) -> int:
        """The end of an element."""
        if self.is_closed(element):
            return element.stop
        return self.data.index(b">", element.stop) + 1

    def is_closed(self, element: Element) -> bool:
        """Whether an element is one tag alone, ``<a/>``."""
        opened = self.opened(element)
        return opened == element.stop and self.data[opened - 2 : opened] == b"/>"

    def edits(self, splices: Sequence[Splice]) -> tuple[tuple[int, int, bytes], ...]:
        """Splices of the file's own bytes.

        Raises:
            InputError: the file's encoding can't be written without changing other bytes, or a text holds
                what XML can't.
        """
        ordered = sorted(splices)
        for *_, new in ordered:
            if (character := _FORBIDDEN.search(new)) is not None:
                raise InputError(
                    f"The text {new.strip()!r} has the character {character[0]!r}, which XML can't hold.",
                    where=self.file,
                )
        after = _joined(self.data, [(start, end, new.encode()) for start, end, new in ordered])
        offsets = self._offsets([position for start, end, _ in ordered for position in (start, end)])
        news = [new.encode(self.encoding, "xmlcharrefreplace") for *_, new in ordered]
        edits = tuple(zip(offsets[::2], offsets[1::2], news, strict=True))
        try:
            check = Document(_joined(self.content, edits), self.file)
            if self.encoding == "utf-8" and check.data != after:
                raise FormatError("other bytes would change.")
            parse(check, lambda _: None)
        except FormatError as error:
            raise InputError(
                f"The edit would break the file: {error.what}", where=self.file, fix="Nothing was changed."
            ) from None
        return edits

    def _offsets(self, positions: Sequence[int]) -> list[int]:
        """Positions in the file's own bytes; `positions` ascend."""
        first = len(self.bom)
        if self.encoding == "utf-8":
            return [first + position for position in positions]
        found, at = [], 0
        for position in positions:
            first += len(self.data[at:position].decode().encode(self.encoding))
            found.append(first)
            at = position
        if first + len(self.data[at:].decode().encode(self.encoding)) != len(self.content):
            raise InputError(
                f"The encoding {self.encoding!r} isn't written as this file is.",
                where=self.file,
                fix="Save the file in UTF-8.",
            )
        return found


def parse(document: Document, each: Callable[[Element], None] | None = None) -> Element:
    """The root element.

    Args:
        document: the file.
        each: called with each child of the root when it is complete; the root then has no children, so that
            a long file needs no memory for all of them.

    Raises:
        FormatError: not well-formed, or with entities of its own; with line and column.
    """
    parser = expat.ParserCreate("utf-8")
    parser.buffer_text = True
    stack: list[Element] = []
    roots: list[Element] = []

    def start(tag: str, attributes: dict[str, str]) -> None:
        element = Element(tag, attributes, parser.CurrentByteIndex)
        if not stack:
            roots.append(element)
        elif each is None or len(stack) > 1:
            stack[-1].children.append(element)
        stack.append(element)

    def stop(_: str) -> None:
        element = stack.pop()
        element.stop = parser.CurrentByteIndex
        if each is not None and len(stack) == 1:
            each(element)

    def characters(data: str) -> None:
        # Blanks between a million children would be joined a million times
        if stack[-1].text or not data.isspace():
            stack[-1].text += data

    def declared(name: str, *_: object) -> None:
        raise _malformed(document, parser, f"it declares the entity {name!r}, and entities aren't expanded")

    def skipped(name: str, _: object) -> None:
        raise _malformed(document, parser, f"the entity {name!r} isn't known")

    parser.StartElementHandler, parser.EndElementHandler = start, stop
    parser.CharacterDataHandler = characters
    parser.EntityDeclHandler, parser.SkippedEntityHandler = declared, skipped
    try:
        parser.Parse(document.data, True)
    except expat.ExpatError as error:
        raise _malformed(document, parser, expat.ErrorString(error.code) or str(error)) from None
    return roots[0]


def _malformed(document: Document, parser: expat.XMLParserType, why: str) -> FormatError:
    line, column = parser.ErrorLineNumber, parser.ErrorColumnNumber
    return FormatError(f"The XML can't be read: {why}.", where=f"{document.file}:{line}:{column + 1}")


def escaped(value: str) -> str:
    """Text as it stands between tags.

    >>> escaped("black & white")
    'black &amp; white'
    """
    return value.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("\r", "&#13;")


def text(document: Document, element: Element, new: str) -> list[Splice]:
    """Replace the text of an element; comments in it and the space around the text stay.

    Raises:
        InputError: there are elements in it.
    """
    if element.children:
        raise InputError(
            f"The element {element.tag!r} holds other elements; expected text.",
            where=f"{document.file}:{document.line(element.start)}",
        )
    opened = document.opened(element)
    if document.is_closed(element):
        before = document.data[element.start : opened - 2].rstrip()
        return [(element.start + len(before), opened, f">{escaped(new)}</{element.tag}>")]
    splices: list[Splice] = []
    for piece in _PIECE.finditer(document.data, opened, element.stop):
        if piece[0].startswith((b"<!--", b"<?")):
            continue
        cdata = piece[0].startswith(b"<![CDATA[")
        start, end = (piece.start() + 9, piece.end() - 3) if cdata else piece.span()
        inner = document.data[start:end]
        if not inner.strip():
            continue
        value = "" if splices else new
        if cdata and ("]]>" in value or not _can(document.encoding, value)):
            splices.append((*piece.span(), escaped(value)))
            continue
        start, end = start + len(inner) - len(inner.lstrip()), end - len(inner) + len(inner.rstrip())
        splices.append((start, end, value if cdata else escaped(value)))
    return splices or [(opened, opened, escaped(new))]


def attribute(document: Document, element: Element, name: str, new: str) -> Splice:
    """Replace the value of an attribute.

    Raises:
        InputError: the element has no such attribute.
    """
    opened = document.opened(element)
    for found in _ATTRIBUTE.finditer(document.data, element.start, opened):
        if found[1].decode() == name:
            group = 2 if found[2] is not None else 3
            quote, reference = ('"', "&quot;") if group == 2 else ("'", "&#39;")
            value = escaped(new).replace(quote, reference).replace("\n", "&#10;").replace("\t", "&#9;")
            return (*found.span(group), value)
    raise InputError(
        f"The element {element.tag!r} has no attribute {name!r}.",
        where=f"{document.file}:{document.line(element.start)}",
    )


def removed(document: Document, element: Element) -> Splice:
    """Remove an element, with its lines where it stands alone on them."""
    data, start, end = document.data, element.start, document.end(element)
    line = max(data.rfind(b"\n", 0, start), data.rfind(b"\r", 0, start)) + 1
    after = _past(data, end, b" \t")
    if not data[line:start].strip(b" \t") and data[after : after + 1] in (b"\n", b"\r") and line:
        return line, after + (2 if data[after : after + 2] == b"\r\n" else 1), ""
    return start, end, ""


def inserted(
    document: Document, parent: Element, after: Element | None, news: Sequence[str], *, instead: bool = False
) -> Splice:
    """Insert elements into a parent, each as the one before it is set apart from what is before that.

    Args:
        document: the file.
        parent: gets them.
        after: its child that they come after; None for its last.
        news: the elements as text.
        instead: whether they take the place of `after`.
    """
    data = document.data
    after = after or (parent.children[-1] if parent.children else None)
    if after is not None:
        end = document.end(after)
        gap = data[_before(data, after.start) : after.start].decode()
        if instead:
            return after.start, end, gap.join(news)
        return end, end, "".join(gap + new for new in news)
    opened = document.opened(parent)
    gap, last = _gaps(document, parent)
    joined = "".join(gap + new for new in news)
    if document.is_closed(parent):
        before = data[parent.start : opened - 2].rstrip()
        return parent.start + len(before), opened, f">{joined}{last}</{parent.tag}>"
    broken = {b"\n", b"\r"} & {data[at : at + 1] for at in range(opened, _past(data, opened, b" \t\r\n"))}
    return opened, opened, joined + ("" if broken else last)


def copied(document: Document, template: Element, values: Values, optional: Values | None = None) -> str:
    """An element like another one: its tags, order and white space with other values.

    Args:
        document: of the template.
        template: the element.
        values: name to the text or the values of each child; those that the template lacks come last.
        optional: the same, for those that are left out where the template lacks them.
    """
    data, opened = document.data, document.opened(template)
    gap = last = ""
    if template.children:
        gap = data[_before(data, template.children[0].start) : template.children[0].start].decode()
        end = document.end(template.children[-1])
        last = data[end : _past(data, end, b" \t\r\n")].decode()
    left = {**(optional or {}), **values}
    parts = []
    for child in template.children:
        if child.name in left:
            parts.append(_filled(document, child, left.pop(child.name)))
    prefix = template.tag.removesuffix(template.name)
    for name in values:
        if name in left:
            new = Element(prefix + name, {}, -1)
            parts.append(_filled(document, new, left.pop(name)))
    spaces = "".join(
        found[0].decode()
        for found in _ATTRIBUTE.finditer(data, max(template.start, 0), opened)
        if found[1].startswith(b"xmlns")
    )
    body = "".join(gap + part for part in parts)
    return f"<{template.tag}{spaces}>{body}{last}</{template.tag}>"


def _filled(document: Document, element: Element, value: str | Values) -> str:
    if isinstance(value, str):
        return f"<{element.tag}>{escaped(value)}</{element.tag}>"
    if element.start >= 0:
        return copied(document, element, value)
    prefix = element.tag.removesuffix(element.name)
    inner = "".join(_filled(document, Element(prefix + name, {}, -1), each) for name, each in value.items())
    return f"<{element.tag}>{inner}</{element.tag}>"


def _encoding(content: bytes) -> tuple[bytes, str]:
    """The mark at the beginning of a file, and its encoding."""
    for mark, name in _BOMS:
        if content.startswith(mark):
            return mark, name
    for start, name in _UNMARKED:
        if content.startswith(start):
            return b"", name
    found = _DECLARED.match(content, 0, 200)
    if found is None:
        return b"", "utf-8"
    name = found[1].decode().lower()
    # A single-byte file that calls itself UTF-16 was written by a program that meant its own strings
    if name.replace("_", "-").startswith(("utf-16", "utf-32", "ucs", "iso-10646")):
        return b"", "utf-8"
    try:
        found_name = codecs.lookup(name).name
    except LookupError:
        return b"", name
    return b"", "unknown" if found_name in _NO_ENCODINGS else found_name


def _can(encoding: str, value: str) -> bool:
    try:
        value.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


def _joined(content: bytes, splices: Sequence[tuple[int, int, bytes]]) -> bytes:
    parts, at = [], 0
    for start, end, new in splices:
        if start < at:
            raise InputError("Two fixes would edit the same bytes.", fix="Nothing was changed.")
        parts += [content[at:start], new]
        at = end
    return b"".join([*parts, content[at:]])


def _past(data: bytes, position: int, characters: bytes) -> int:
    while data[position : position + 1] and data[position] in characters:
        position += 1
    return position


def _before(data: bytes, position: int) -> int:
    while position and data[position - 1] in b" \t\r\n":
        position -= 1
    return position


def _gaps(document: Document, parent: Element) -> tuple[str, str]:
    """White space before a first child of an element, and after its last."""
    data = document.data
    indents = [(found[1].decode(), found[2].decode()) for found in _INDENTED.finditer(data, 0, 100_000)]
    if not indents:
        return "", ""
    line = max(data.rfind(b"\n", 0, parent.start), data.rfind(b"\r", 0, parent.start)) + 1
    own = data[line : _past(data, line, b" \t")].decode()
    widths = sorted({indent for _, indent in indents if indent}, key=len)
    at = bisect_left([len(width) for width in widths], len(own) + 1)
    deeper = widths[at] if at < len(widths) else own + (widths[0] if widths else "\t")
    return indents[0][0] + deeper, indents[0][0] + own
