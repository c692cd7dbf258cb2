"""The errors of dataaudit: what was wrong, where, and what to do next."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path

__all__ = [
    "ConflictError",
    "DataAuditError",
    "FormatError",
    "InputError",
    "MissingDependencyError",
    "Unavailable",
    "nearest",
]


class DataAuditError(Exception):
    """An error that a user can act on.

    Args:
        what: the sentence that says what was wrong, with the value that came and the one that was expected.
        where: the file, or file and line, that it is about.
        fix: what to do next.
    """

    def __init__(self, what: str, *, where: str | Path | None = None, fix: str | None = None) -> None:
        self.what, self.where, self.fix = what, None if where is None else str(where), fix
        message = what if where is None else f"{where}: {what}"
        super().__init__(message if fix is None else f"{message}\n{fix}")


class InputError(DataAuditError, ValueError):
    """An argument, option, setting or file that can't be used as it is."""


class FormatError(InputError):
    """A dataset, manifest or annotation file that is damaged or not recognised."""


class ConflictError(DataAuditError):
    """Something on disk is no longer what it was when the work was planned; nothing was changed."""


class MissingDependencyError(DataAuditError, ImportError):
    """An optional package, program or set of weights that isn't there."""


class Unavailable(DataAuditError):
    """A signal or check doesn't apply to this dataset; its reason goes into ``Report.skipped``."""


def nearest(name: str, names: Iterable[str]) -> str:
    """Say which of `names` was probably meant, and list them.

    >>> nearest("lable", ["label", "split"])
    "Did you mean 'label'? There are: label, split."
    """
    known = sorted(names)
    by_small_letters = {each.casefold(): each for each in known}
    close = difflib.get_close_matches(name.casefold(), by_small_letters, n=1)
    hint = f"Did you mean '{by_small_letters[close[0]]}'? " if close else ""
    return f"{hint}There are: {', '.join(known) or 'none'}."
