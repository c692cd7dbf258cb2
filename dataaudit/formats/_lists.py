"""Lists of the images of each split, as Pascal VOC and KITTI have them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from dataaudit.errors import FormatError
from dataaudit.formats._files import content_of
from dataaudit.formats._pairs import stem_of
from dataaudit.formats._shared import is_image
from dataaudit.formats.folder import SPLITS
from dataaudit.types import Locator, Problem

__all__ = ["listed_splits"]


def listed_splits(
    root: Path, bases: Sequence[str], images: Iterable[str], problems: list[Problem]
) -> Callable[[str], str | None]:
    """The split of an image by the lists in the folders ``ImageSets`` and ``ImageSets/Main``.

    Args:
        root: of the dataset.
        bases: the folders that could hold an ``ImageSets``, relative.
        images: of the dataset.
        problems: gets a problem for an image that is in two splits, and a note for those that aren't there.
    """
    splits: dict[tuple[str, str], str] = {}
    there = {stem_of(image) for image in images}
    for base in bases:
        for folder in (f"{base}ImageSets/Main", f"{base}ImageSets"):
            for name, file in _lists(root / folder):
                try:
                    lines = content_of(file).decode("utf-8", errors="replace").splitlines()
                except FormatError as error:
                    where = Locator(file=f"{folder}/{file.name}")
                    problems.append(Problem(kind="unreadable list", message=str(error), locator=where))
                    continue
                missing: list[tuple[int, str]] = []
                for number, line in enumerate(lines, start=1):
                    stem = line.split()[0] if line.split() else ""
                    stem = stem_of(stem) if is_image(stem) else stem
                    if stem and stem not in there:
                        missing.append((number, stem))
                    known = splits.setdefault((base, stem), name)
                    if stem and name not in (known, "trainval"):
                        where = Locator(file=f"{folder}/{file.name}", item=number)
                        message = f"The image {stem} is in the splits {known} and {name}; {known} counts."
                        problems.append(Problem(kind="image in two splits", message=message, locator=where))
                if missing:
                    where = Locator(file=f"{folder}/{file.name}", item=missing[0][0])
                    message = (
                        f"{len(missing)} images of this list aren't there, such as {missing[0][1][:60]!r}."
                    )
                    problems.append(
                        Problem(kind="listed image missing", message=message, locator=where, severity="note")
                    )

    def split(image: str) -> str | None:
        parts = image.split("/")
        for depth in reversed(range(len(parts))):
            base = "".join(f"{part}/" for part in parts[:depth])
            if (base, stem_of(image)) in splits:
                return splits[base, stem_of(image)]
        return None

    return split


def _lists(folder: Path) -> list[tuple[str, Path]]:
    """The lists of splits in a folder, that of trainval last as the others say more."""
    if not folder.is_dir():
        return []
    known = {*SPLITS, "trainval"}
    found = [(file.stem, file) for file in sorted(folder.glob("*.txt")) if file.stem.lower() in known]
    return sorted(found, key=lambda each: each[0].lower() == "trainval")
