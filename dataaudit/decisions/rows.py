"""The rows of files of decisions, each with the place it stands at."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dataaudit.errors import InputError, nearest
from dataaudit.formats import _cells
from dataaudit.types import CORNERS

__all__ = ["ANSWERS", "CONTEXT", "JUDGED", "REPORTED", "Row", "csv_rows", "json_rows", "rows_of"]

ANSWERS = ("finding", "verdict", "label", "box", "reviewer", "note")
"""What a person fills in."""
CONTEXT = ("code", "sample_id", "given", "given_box", "suggested", "suggested_box", "probability", "message")
"""What a template says beside it."""
JUDGED = ("code", "item_id", "given", "digest", "judged_box")
"""What is kept of a decision so that it is known again."""
REPORTED = (*CORNERS, *(f"new_{corner}" for corner in CORNERS), "label_file", "label_item")
"""Further columns of findings.csv."""
_KEPT = ("fix", "at", "rule", *JUDGED)
_DANGER = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One answer and the place it stands at.

    Attributes:
        where: file and line.
        cells: what stands in the columns, by their names.
        escaped: whether a leading apostrophe may hide a formula, as in a CSV.
    """

    where: str
    cells: Mapping[str, Any]
    escaped: bool = False

    def raw(self, name: str) -> str:
        """What a cell holds."""
        value = self.cells.get(name)
        return "" if value is None else str(value)

    def text(self, name: str) -> str:
        """What a cell says, without spaces around it and without the apostrophe before a formula."""
        text = self.raw(name).strip()
        return plain(text) if self.escaped else text


def plain(text: str) -> str:
    """A cell without the apostrophe that keeps a spreadsheet from running it; see `harmless`.

    >>> plain("'=SUM(A1)"), plain("'cat'")
    ('=SUM(A1)', "'cat'")
    """
    return text[1:] if text[:1] == "'" and text[1:2] in (*_DANGER, "'") and len(text) > 1 else text


def harmless(text: str) -> str:
    """A cell that no spreadsheet takes for a formula, from which `plain` makes `text` again.

    Bytes of a file name that aren't UTF-8 are written as an escape.

    >>> harmless("=SUM(A1)"), harmless("cat"), plain(harmless("'=x"))
    ("'=SUM(A1)", 'cat', "'=x")
    """
    text = text.encode("utf-8", "backslashreplace").decode()
    hidden = text[:1] in _DANGER or (text[:1] == "'" and text[1:2] in (*_DANGER, "'") and len(text) > 1)
    return f"'{text}" if text and hidden else text


def rows_of(path: Path) -> Iterator[Row]:
    """The rows of a CSV or JSONL file.

    Raises:
        InputError: no such file, an unknown or missing column, or a line that can't be read.
    """
    if not path.is_file():
        raise InputError("There is no such file of decisions.", where=path)
    content = path.read_bytes()
    if path.suffix.lower() in (".jsonl", ".ndjson"):
        return json_rows(path, content)
    return csv_rows(path, content)


def csv_rows(path: Path, content: bytes) -> Iterator[Row]:
    """The rows of a CSV in any encoding and with any delimiter that spreadsheets write."""
    text = _cells.decode(content, path).text

    def fits(names: Iterable[str]) -> bool:
        return {"finding", "verdict"} <= {name.lower() for name in names}

    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_cells.layout(text, fits, path).delimiter)
    names: list[str] = []
    begins = 1
    for cells in reader:
        where, begins = f"{path}:{begins}", reader.line_num + 1
        if not any(cell.strip() for cell in cells):
            continue
        if not names:
            names = [name.strip().lower() for name in cells]
            _check_columns(names, where)
            continue
        if any(cell.strip() for cell in cells[len(names) :]):
            raise InputError(
                f"The row has {len(cells)} cells; the header has {len(names)}.", where=where,
                fix="Put a cell that holds the delimiter in quotes.",
            )  # fmt: skip
        yield Row(where=where, cells=dict(zip(names, cells, strict=False)), escaped=True)


def json_rows(path: Path, content: bytes) -> Iterator[Row]:
    """The lines of JSON, of the dataset's own history without a last one whose writing was interrupted."""
    # Not splitlines: U+2028 may be in a text
    lines = content.decode("utf-8-sig", errors="replace").split("\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            cells = json.loads(line)
        except ValueError as error:
            if number == len(lines) and path.name == "decisions.jsonl":
                return  # the next line that is recorded takes its place
            raise InputError(f"The line is not JSON: {error}.", where=where) from None
        if not isinstance(cells, dict):
            raise InputError(f"The line is a {type(cells).__name__}; expected an object.", where=where)
        _check_columns(list(cells), where)
        yield Row(where=where, cells=cells)


def _check_columns(names: Sequence[str], where: str) -> None:
    known = (*ANSWERS, *CONTEXT, *_KEPT, *REPORTED)
    for name in names:
        if name and name not in known:
            raise InputError(f"There is no column {name!r}. {nearest(name, known)}", where=where)
    for name in ("finding", "verdict"):
        if name not in names:
            raise InputError(f"The column {name!r} is missing; there are {', '.join(names)}.", where=where)
