"""What readers of objects share: a collection of problems that can't grow without end, and roots."""

from __future__ import annotations

import contextlib
import gc
import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal

from dataaudit.errors import ConflictError
from dataaudit.formats._numbers import is_same
from dataaudit.formats._shared import is_image
from dataaudit.types import Box, Fix, Locator, Problem

MAX_OF_A_KIND = 200

_NAN = (math.nan, math.nan, math.nan, math.nan)


class Problems:
    """Problems as a reader meets them: of each kind the first ones, and one that counts the others."""

    def __init__(self) -> None:
        self._first: list[Problem] = []
        self._counts: Counter[str] = Counter()
        self._last: dict[str, Problem] = {}

    def add(
        self,
        kind: str,
        message: str,
        locator: Locator,
        *,
        sample_id: str | None = None,
        label_id: str | None = None,
        severity: Literal["error", "note"] = "error",
    ) -> None:
        """Add a problem; see `Problem`."""
        self._counts[kind] += 1
        problem = Problem(
            kind=kind,
            message=message,
            locator=locator,
            sample_id=sample_id,
            label_id=label_id,
            severity=severity,
        )
        if self._counts[kind] > MAX_OF_A_KIND:
            self._last[kind] = problem
        else:
            self._first.append(problem)

    def all(self) -> list[Problem]:
        """The problems, in the order in which they were met."""
        more = [
            Problem(
                kind=kind,
                message=f"{self._counts[kind] - MAX_OF_A_KIND} more of the kind: {kind}.",
                locator=last.locator,
                severity=last.severity,
            )
            for kind, last in self._last.items()
        ]
        return [*self._first, *more]


@contextlib.contextmanager
def no_collection() -> Iterator[None]:
    """Rows have no cycles, and looking for some among millions of them takes a quarter of the time."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def root_of(start: Path, files: Iterable[Path]) -> Path:
    """The folder that sample ids are relative to: `start`, or one of the two above it."""
    files = list(files)
    for root in (start, *start.parents[:2]):
        if root.parent != root and all(root in file.parents or root == file for file in files):
            return root
    return start


def check_old(fix: Fix, name: str, box: Sequence[float], where: str) -> None:
    """Raise ConflictError where an object isn't what its fix expects.

    Args:
        fix: of the object.
        name: its class as the file says now.
        box: its corners as the file says now, NaN where they can't be read.
        where: file and place.
    """
    if name != fix.old:
        raise ConflictError(
            f"The object is of the class {name!r}; expected {fix.old!r}.",
            where=where,
            fix="Nothing was changed. Audit again.",
        )
    if fix.old_box is None and fix.op not in ("move", "remove"):
        return
    old: Box = fix.old_box or _NAN
    same = all(is_same(a, b) or (a != a and b != b) for a, b in zip(old, box, strict=True))
    if not same:
        raise ConflictError(
            f"The box of the object is {_shown(box)}; expected {_shown(old)}.",
            where=where,
            fix="Nothing was changed. Audit again.",
        )


def gone(fix: Fix, where: str) -> ConflictError:
    """The error for an object or image that isn't there any more."""
    return ConflictError(
        f"There is no {'image' if fix.op in ('add', 'drop', 'merge') else 'object'} of {fix.sample_id} any "
        "more where the fix expects it.",
        where=where,
        fix="Nothing was changed. Audit again.",
    )


def _shown(box: Sequence[float]) -> str:
    return ", ".join(f"{corner:.7g}" for corner in box)


def note_unlisted(
    root: Path, folders: Iterable[Path], known: Iterable[str], file: str, problems: Problems
) -> None:
    """Report the images of folders that no annotation file lists.

    Args:
        root: of the dataset.
        folders: of images.
        known: absolute paths of those that are listed.
        file: of annotations, relative.
        problems: gets one.
    """
    listed = {os.path.realpath(folder): folder for folder in folders}
    names = set(known)
    more = []
    for folder in listed.values():
        with contextlib.suppress(OSError):
            found = os.listdir(folder)  # noqa: PTH208 - names alone
            more += [f"{folder}/{name}" for name in found if is_image(name) and not name.startswith(".")]
    unlisted = sorted(path for path in more if path not in names)
    if unlisted:
        shown = relative_to(root, Path(unlisted[0])).encode(errors="backslashreplace").decode()
        message = f"{len(unlisted)} images are in no annotation file, such as {shown}; they are left out."
        problems.add("images that aren't listed", message, Locator(file=file), severity="note")


def relative_to(root: Path, path: Path) -> str:
    """A path as an id: relative to `root` with forward slashes, or absolute where it is outside."""
    return path.relative_to(root).as_posix() if root in path.parents else path.as_posix()
