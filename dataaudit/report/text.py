"""Names and messages as text that can be shown and stored anywhere."""

from __future__ import annotations

import re
from typing import Any

__all__ = ["percent", "plural", "spreadsheet_safe", "storable", "visible"]

# Control characters, and the marks that turn the direction of what follows them.
_UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def visible(text: str) -> str:
    r"""`text` with what would move the cursor, turn the line or break the encoding written as an escape.

    >>> print(visible("cat\x1b[31m\n"))
    cat\x1b[31m\x0a
    """
    return _UNSEEN.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    number = ord(match[0])
    return f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}"


def storable(text: str) -> str:
    r"""`text` as valid Unicode: bytes of a file name that aren't UTF-8 are written as an escape.

    >>> print(storable("caf\udce9.jpg"))
    caf\udce9.jpg
    """
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def spreadsheet_safe(value: Any) -> Any:
    """A text that a spreadsheet would take for a formula gets a leading apostrophe, others stay as they are.

    >>> spreadsheet_safe("=HYPERLINK(1)"), spreadsheet_safe("cat"), spreadsheet_safe(-1.0)
    ("'=HYPERLINK(1)", 'cat', -1.0)
    """
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def percent(share: float) -> str:
    """A share that is neither shown as nothing when it is something nor as all when it isn't.

    >>> percent(0.0), percent(0.0004), percent(0.031), percent(0.62), percent(0.9999)
    ('0%', '<0.1%', '3.1%', '62%', '>99%')
    """
    if 0 < share < 0.001:
        return "<0.1%"
    if 0.995 <= share < 1:
        return ">99%"
    return f"{share:.1%}" if 0 < share < 0.1 else f"{share:.0%}"


def plural(n: int, noun: str) -> str:
    """A number with its noun.

    >>> plural(1, "image"), plural(1200, "image"), plural(2, "box")
    ('1 image', '1,200 images', '2 boxes')
    """
    ending = "es" if noun.endswith(("x", "s")) else "s"
    return f"{n:,} {noun}{'' if n == 1 else ending}"
