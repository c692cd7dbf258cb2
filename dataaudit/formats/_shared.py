"""What the formats of files share: which files count, where the state stands, and the tables themselves."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dataaudit import state
from dataaudit.errors import FormatError, InputError
from dataaudit.types import CORNERS, FLAGS, Fix, Locator, Problem, Source, Tables

IMAGE_SUFFIXES = frozenset(
    {
        ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm",
        ".avif",
    }
)  # fmt: skip
"""Files with these endings are samples, however damaged they are."""

_LITTER = frozenset({"thumbs.db", "desktop.ini", "__macosx", "__pycache__", "lost+found", "@eadir"})


def absolute(path: Path) -> Path:
    """The path from the root of the file system, links kept."""
    return Path(os.path.normpath(path.absolute()))


def is_ignored(name: str) -> bool:
    """Whether a file or folder is no part of a dataset: hidden, left by an operating system, or of DVC."""
    return name.startswith(".") or name.lower() in _LITTER or name.lower().endswith(".dvc")


def is_image(name: str) -> bool:
    """Whether a file's name has the ending of an image."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES  # noqa: PTH122 - called for every file


def check_name(name: str, where: Path) -> None:
    """Raise FormatError for a name that isn't valid Unicode and so can stand in no report or version."""
    try:
        name.encode()
    except UnicodeEncodeError:
        raise FormatError(
            f"The name {name!r} isn't valid UTF-8.", where=where, fix="Rename the file or folder."
        ) from None


def place(root: Path, default: Path, make: Callable[[Path], Source]) -> Source:
    """The source with its anchor: where its ledger or decisions stand already, else `default`.

    An anchor that followed from the data alone would move away from its ledger when a fix changes the data.
    """
    for anchor in (root, root.parent):
        source = make(anchor)
        kept = (
            state.ledger_file(source),
            state.decisions_file(source),
            state.state_dir(source) / "journal/plan.json",
        )
        if any(file.exists() for file in kept):
            return source
    return make(default)


def default_anchor(root: Path) -> Path:
    """The folder above the dataset; the dataset's own where it is a repository or all that can be written."""
    alone = (root / ".git").exists() or os.path.ismount(root) or not os.access(root.parent, os.W_OK)
    return root if alone else root.parent


def tables(
    *,
    sample_ids: Sequence[str],
    filepaths: Sequence[str],
    splits: Sequence[str | None],
    names: Sequence[str | None],
    locators: Sequence[Locator],
    source: Source,
) -> Tables:
    """The tables of a dataset with one label an image, all arguments in the same order."""
    index = pd.Index(sample_ids, name="sample_id")
    size = pd.Series(pd.NA, index=index, dtype="Int64")
    images = pd.DataFrame(
        {
            "filepath": list(filepaths),
            "width": size,
            "height": size,
            "split": _objects(splits, index),
            "digest": _objects([None] * len(index), index),
        },
        index=index,
    )
    index = index.rename("label_id")
    labels = pd.DataFrame(
        {
            "sample_id": list(sample_ids),
            "name": _objects(names, index),
            "geometry": _objects([None] * len(index), index),
            "locator": _objects(locators, index),
        },
        index=index,
    )
    classes = tuple(sorted({name for name in names if name is not None}))
    return Tables(images=images, labels=labels, classes=classes, source=source)


def set_tables(
    *,
    sample_ids: Sequence[str],
    filepaths: Sequence[str],
    splits: Sequence[str | None],
    names: Sequence[Sequence[str]],
    locators: Sequence[Sequence[Locator]],
    classes: Sequence[str] = (),
    source: Source,
) -> Tables:
    """The tables of a multi-label dataset, all sequences in the same order of the samples.

    Args:
        sample_ids: of each image.
        filepaths: absolute.
        splits: None where there is none.
        names: the classes of each image, none of them twice.
        locators: of each of them; one where an image has none, for the place where the first would stand.
        classes: further classes, which no image has.
        source: of the dataset.
    """
    single = tables(
        sample_ids=sample_ids,
        filepaths=filepaths,
        splits=splits,
        names=[None] * len(sample_ids),
        locators=[each[0] for each in locators],
        source=source,
    )
    owners: list[str] = []
    ids: list[str] = []
    for sample_id, own in zip(sample_ids, names, strict=True):
        owners += [sample_id] * max(len(own), 1)
        ids += [f"{sample_id}:{name}" for name in own] or [sample_id]
    flat: list[str | None] = []
    for own in names:
        flat += own or [None]
    index = pd.Index(ids, name="label_id")
    labels = pd.DataFrame(
        {
            "sample_id": owners,
            "name": _objects(flat, index),
            "geometry": _objects([None] * len(index), index),
            "locator": _objects([locator for each in locators for locator in each], index),
        },
        index=index,
    )
    known = tuple(sorted({*classes, *(name for name in flat if name is not None)}))
    return Tables(images=single.images, labels=labels, classes=known, task="multilabel", source=source)


@dataclass(kw_only=True)
class ObjectRows:
    """The rows of a detection dataset as a format reads them, column by column, in order.

    An image is added once, before its objects. Of an object whose box can't be read the corners are NaN.
    """

    sample_ids: list[str] = field(default_factory=list)
    filepaths: list[str] = field(default_factory=list)
    splits: list[str | None] = field(default_factory=list)
    places: list[Locator] = field(default_factory=list)
    declared: list[tuple[int | None, int | None]] = field(default_factory=list)
    owners: list[str] = field(default_factory=list)
    label_ids: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    geometries: list[str] = field(default_factory=list)
    locators: list[Locator] = field(default_factory=list)
    corners: list[tuple[float, float, float, float]] = field(default_factory=list)
    flags: list[tuple[bool, bool, bool, bool, bool]] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def image(
        self,
        sample_id: str,
        filepath: str,
        place: Locator,
        *,
        split: str | None = None,
        size: tuple[int | None, int | None] = (None, None),
    ) -> None:
        """Add an image.

        Args:
            sample_id: path of the image, relative to the dataset's root.
            filepath: absolute path.
            place: where a new object of the image would stand.
            split: None where there is none.
            size: width and height as the annotations say, in pixels.
        """
        self.sample_ids.append(sample_id)
        self.filepaths.append(filepath)
        self.places.append(place)
        self.splits.append(split)
        self.declared.append(size)

    def object(
        self,
        sample_id: str,
        label_id: str,
        name: str,
        corners: tuple[float, float, float, float],
        locator: Locator,
        *,
        geometry: str = "box",
        crowd: bool = False,
        ignore: bool = False,
        difficult: bool = False,
        truncated: bool = False,
        occluded: bool = False,
    ) -> None:
        """Add an object of an image that was added before; see `Tables` for what the columns mean."""
        self.owners.append(sample_id)
        self.label_ids.append(label_id)
        self.names.append(name)
        self.corners.append(corners)
        self.locators.append(locator)
        self.geometries.append(geometry)
        self.flags.append((crowd, ignore, difficult, truncated, occluded))

    def tables(self, *, source: Source, units: str = "pixels", classes: Sequence[str] = ()) -> Tables:
        """The tables of these rows.

        Args:
            source: of the dataset.
            units: of the corners, ``pixels`` or ``relative``.
            classes: further classes, which no object has.
        """
        self._note_classes()
        single = tables(
            sample_ids=self.sample_ids,
            filepaths=self.filepaths,
            splits=self.splits,
            names=[None] * len(self.sample_ids),
            locators=self.places,
            source=source,
        )
        images = single.images.assign(locator=_objects(self.places, single.images.index))
        for number, side in enumerate(("declared_width", "declared_height")):
            said = [size[number] for size in self.declared]
            images[side] = pd.array(said, dtype="Int64")
        index = pd.Index(self.label_ids, name="label_id", dtype=object)
        columns: dict[str, Any] = {
            "sample_id": _objects(self.owners, index),
            "name": _objects(self.names, index),
            "geometry": _objects(self.geometries, index),
            "locator": _objects(self.locators, index),
        }
        corners = np.array(self.corners, dtype=np.float64).reshape(-1, 4)
        columns |= {name: corners[:, number] for number, name in enumerate(CORNERS)}
        flags = np.array(self.flags, dtype=bool).reshape(-1, len(FLAGS))
        columns |= {name: flags[:, number] for number, name in enumerate(FLAGS)}
        return Tables(
            images=images,
            labels=pd.DataFrame(columns, index=index),
            classes=tuple(sorted({*classes, *self.names})),
            task="detection",
            units=units,
            problems=tuple(self.problems),
            source=source,
        )

    def _note_classes(self) -> None:
        """Report the classes that look like others and aren't: with blanks around, or what can't be seen."""
        known = set(self.names)
        for name in sorted(known):
            plain = "".join(letter for letter in name if letter.isprintable()).strip()
            if name == plain:
                continue
            first = self.names.index(name)
            message = f"The class {name!r} has blanks around it or characters that can't be seen"
            message += f", and {plain!r} is a class too." if plain in known else "."
            self.problems.append(
                Problem(
                    kind="class with hidden characters",
                    message=message,
                    locator=self.locators[first],
                    sample_id=self.owners[first],
                    severity="error" if plain in known else "note",
                )
            )


def _objects(values: Sequence[object], index: pd.Index[Any]) -> pd.Series[Any]:
    """A column of Python objects; pandas would read texts with None between them as texts with NaN."""
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return pd.Series(array, index=index, dtype=object)


def inside(root: Path, relative: str) -> Path:
    """The path of a file of the dataset.

    Raises:
        InputError: a path that leads outside `root`: by ``..``, absolute, or through a linked folder.
    """
    path = Path(os.path.normpath(root / relative))
    outside = Path(relative).is_absolute() or path == root or root not in path.parents
    if outside or not Path(os.path.realpath(path.parent)).is_relative_to(os.path.realpath(root)):
        raise InputError(
            f"The path {relative!r} leads outside the dataset.",
            where=root,
            fix="Nothing was changed; edit it by hand.",
        )
    return path


def new_label(fix: Fix) -> str:
    """The class that a relabel fix sets.

    Raises:
        InputError: an empty class, or one that reads as empty.
    """
    if fix.new is None or not fix.new.strip():
        raise InputError(f"The new class of {fix.sample_id} is {fix.new!r}; expected a name.")
    return fix.new
