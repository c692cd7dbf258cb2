"""Files as they are met on disk: only plain ones are read, as a pipe or a device has no end."""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Iterable
from pathlib import Path

from dataaudit.errors import FormatError

__all__ = ["content_of", "head_of", "is_folder", "is_free", "kind_of", "why_unread"]

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)
_ENDINGS = (".json", ".xml", ".yaml", ".yml", ".txt")
_MAX_PARSED = 20_000_000
_SHOWN = 3


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder; a link that leads to itself is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def kind_of(path: str | Path) -> str:
    """What is at a path if it isn't a file that can be opened, such as ``a broken link``; else nothing."""
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116 - once an annotation file
    except OSError as error:
        if not os.path.islink(path):  # noqa: PTH114
            return f"not to be opened ({error.strerror})"
        return "a link to itself" if error.errno == errno.ELOOP else "a broken link"
    if stat.S_ISREG(mode):
        return ""
    return next((kind for fits, kind in _KINDS if fits(mode)), "no file")


def content_of(path: str | Path, where: str | Path | None = None) -> bytes:
    """The bytes of a file.

    Args:
        path: of the file.
        where: what the error calls it; by default `path`.

    Raises:
        FormatError: something else is there, such as a folder or a pipe, or it may not be read.
    """
    kind = kind_of(path)
    if kind:
        raise FormatError(f"The file can't be read: it is {kind}.", where=where or path)
    try:
        with open(path, "rb") as opened:  # noqa: PTH123 - once an annotation file
            return opened.read()
    except OSError as error:
        raise FormatError(f"The file can't be read: {error.strerror}.", where=where or path) from None


def is_free(path: Path) -> bool:
    """Whether a new file may be written at a path; a link that leads nowhere is something, too."""
    return not os.path.lexists(path)


def head_of(path: str | Path, size: int) -> bytes:
    """The first bytes of a file; none where it can't be read."""
    if kind_of(path):
        return b""
    try:
        with open(path, "rb") as opened:  # noqa: PTH123
            return opened.read(size)
    except OSError:
        return b""


def why_unread(paths: Iterable[Path]) -> str:
    """What is wrong with files that look like annotations by their names; one a line, empty without any."""
    reasons = []
    for path in paths:
        if path.suffix.lower() in _ENDINGS and (reason := _reason(path)):
            reasons.append(reason)
        if len(reasons) == _SHOWN:
            break
    return "\n".join(reasons)


def _reason(path: Path) -> str:
    kind = kind_of(path)
    if kind:
        return f"{path} is {kind}."
    head = head_of(path, 4096)
    if not head.strip(b" \t\r\n"):
        return f"{path} is empty."
    if not head.strip(b"\0"):
        return f"{path} holds nothing but zero bytes."
    if head.startswith(b"version https://git-lfs"):
        return f"{path} is a pointer of git-lfs; fetch the file itself with git lfs pull."
    if head.startswith(b"\x1f\x8b"):
        return f"{path} is compressed; unpack it."
    if path.stat().st_size > _MAX_PARSED:
        return ""
    try:
        _parse(path)
    except FormatError as error:
        return str(error).partition("\n")[0]
    return ""


def _parse(path: Path) -> None:
    from dataaudit.formats import _cells, _json, _xml

    content = content_of(path)
    if path.suffix.lower() == ".json":
        text = _cells.decode(content, path).text
        try:
            said = json.loads(text)
        except json.JSONDecodeError as problem:
            raise _json.error(text, problem.pos, path, problem.msg) from None
        except RecursionError:
            raise FormatError("This JSON is too deeply nested.", where=path) from None
        except ValueError as problem:  # such as an integer of 5,000 digits
            raise FormatError(f"This isn't JSON: {problem}.", where=path) from None
        if isinstance(said, dict):
            keys = ", ".join(map(repr, list(said)[:8])) or "none"
            raise FormatError(
                f"This is JSON with the keys {keys}, and has no boxes as COCO has them.", where=path
            )
    elif path.suffix.lower() == ".xml":
        _xml.parse(_xml.Document(content, str(path)), lambda _: None)
