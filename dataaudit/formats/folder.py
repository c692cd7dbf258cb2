"""Class-per-folder trees: ``root/<class>/**/image.jpg`` or ``root/<split>/<class>/**/image.jpg``.

The first folder below the root (or below the split) is the class; folders below it only order the files. A
split is a folder named train, val, test and the like; all folders of the root must be splits, or none. Images
directly in the root or in a split are samples without a label. Files of other kinds, hidden ones and DVC's
are passed over.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from dataaudit import state
from dataaudit.errors import ConflictError, FormatError, InputError
from dataaudit.formats._files import is_folder
from dataaudit.formats._shared import (
    absolute,
    check_name,
    default_anchor,
    inside,
    is_ignored,
    is_image,
    new_label,
    place,
    tables,
)
from dataaudit.journal import Move, Operation, RemoveEmpty
from dataaudit.types import Fix, Locator, Source, Tables

NAME = "folder"
DESCRIPTION = (
    "A folder for each class with its images inside, with or without train/val/test folders above them."
)

SPLITS = frozenset(
    {
        "train",
        "training",
        "trn",
        "val",
        "valid",
        "validation",
        "dev",
        "test",
        "testing",
        "tst",
        "eval",
        "holdout",
    }
)
_MANIFESTS = (".csv", ".tsv", ".parquet", ".pq")
_ANNOTATIONS = (".json", ".xml", ".yaml", ".yml", ".names")
_NO_CLASSES = frozenset(
    {
        "images",
        "image",
        "imgs",
        "img",
        "jpegimages",
        "data",
        "image_2",
        "image_02",
        "image_3",
        "obj_train_data",
    }
)
_ANNOTATION_FOLDERS = frozenset(
    {
        "annotations",
        "annotation",
        "labels",
        "label",
        "label_2",
        "label_02",
        "label_3",
        "xml",
        "xmls",
        "annots",
    }
)


def sniff(path: Path) -> bool:
    """Whether `path` is a folder with class folders in it."""
    if not path.is_dir():
        return False
    files, folders = _entries(path, ())
    full = [name for name in folders if _has_image(path / name)]
    if not full:
        return False
    if all(name.lower() in SPLITS for name in full):
        inner = [(split, name) for split in full for name in _entries(path / split, ())[1]]
        with_images = [(split, name) for split, name in inner if _has_image(path / split / name)]
        places = [path, *(path / split for split in full)]
        return bool(with_images) and not _are_annotated(places, with_images)
    if _are_annotated([path], [("", name) for name in full]):
        return False
    # One folder of images beside a manifest is where the manifest's images are, not a class
    return len(full) > 1 or not any(name.lower().endswith(_MANIFESTS) for name in files)


def _are_annotated(places: Sequence[Path], classes: Sequence[tuple[str, str]]) -> bool:
    """Whether these are the images of a dataset whose annotations, perhaps damaged, are beside them."""
    names = [name.lower() for _, name in classes]
    if not all(name in _NO_CLASSES or name.endswith(_ANNOTATIONS) for name in names):
        return False
    for place_ in places:
        files, folders = _entries(place_, ())
        if any(name.lower().endswith(_ANNOTATIONS) for name in [*files, *folders]):
            return True
        if any(name.lower() in _ANNOTATION_FOLDERS for name in [*files, *folders]):
            return True
    return False


def states(path: Path) -> list[Path]:
    """Where a journal of this dataset could be."""
    root = absolute(path)
    return [state.state_dir(_source(root, anchor)) for anchor in (root, root.parent)]


def read(path: Path, *, options: Mapping[str, str] | None = None) -> Tables:
    """Read a class-per-folder tree.

    Args:
        path: the root folder.
        options: none are known.

    Returns:
        Samples in the order of their paths. `split` is the name of the split folder as it is written. A class
        folder with nothing in it is a class without labels.

    Raises:
        FormatError: split folders beside class folders, so that it isn't clear which is which.
        InputError: an option.
    """
    if options:
        raise InputError(f"The format {NAME!r} has no option {next(iter(options))!r}; it has none.")
    root = absolute(path)
    split = _has_splits(root)
    sample_ids, filepaths, splits, names = [], [], [], []
    for parts in _walk(root):
        relative = "/".join(parts)
        sample_ids.append(relative)
        filepaths.append(os.path.join(root, *parts))  # noqa: PTH118 - once a file
        folders = parts[:-1]
        splits.append(folders[0] if split and folders else None)
        names.append(_class_of(folders, split))
    found = tables(
        sample_ids=sample_ids,
        filepaths=filepaths,
        splits=splits,
        names=names,
        locators=[Locator(file=sample_id) for sample_id in sample_ids],
        source=place(root, default_anchor(root), lambda anchor: _source(root, anchor)),
    )
    return replace(found, classes=tuple(sorted({*found.classes, *_empty_classes(root, split)})))


def patch(source: Source, fixes: Sequence[Fix]) -> list[Operation]:
    """The moves that carry out `fixes`; nothing is changed yet.

    Raises:
        ConflictError: an image is gone or in another class, or a file is where it would be moved to.
        InputError: a path outside the dataset, or a class that can't be a folder's name.
    """
    if source.root is None:
        raise InputError("A folder tree has a root folder.", where=source.path)
    root = source.root
    split = _has_splits(root)
    dropped = state.state_dir(source) / "dropped"
    operations: list[Operation] = []
    for fix in fixes:
        src = inside(root, fix.sample_id)
        _check_old(root, fix, src, split)
        if fix.op == "relabel":
            dst = inside(root, _relabeled(fix.sample_id, new_label(fix), split))
            _check_link(src, dst)
        else:
            if fix.op == "merge" and fix.new is not None and not inside(root, fix.new).exists():
                raise ConflictError(
                    f"The sample to keep in place of {fix.sample_id} is gone.",
                    where=root / fix.new,
                    fix="Nothing was changed. Audit again.",
                )
            dst = _free(dropped / fix.sample_id)
        operations.append(Move(src=src, dst=dst))
    return [*operations, *_emptied(root, fixes, split)]


def _emptied(root: Path, fixes: Sequence[Fix], split: bool) -> Iterator[RemoveEmpty]:
    """The folders that lose all they hold to other classes, which would else be classes without labels."""
    moved: dict[Path, set[str]] = {}
    for fix in fixes:
        if fix.op == "relabel":
            *folders, name = fix.sample_id.split("/")
            moved.setdefault(root.joinpath(*folders), set()).add(name)
    for folder, names in sorted(moved.items(), reverse=True):
        if set(os.listdir(folder)) <= names:  # noqa: PTH208 - names alone
            depth = len(folder.relative_to(root).parts) - split
            yield from (RemoveEmpty(path=each) for each in (folder, *folder.parents)[:depth])


def _empty_classes(root: Path, split: bool) -> Iterator[str]:
    """Names of class folders that hold nothing at all; a folder of other files isn't a class."""
    for above in [root / name for name in _entries(root, ())[1]] if split else [root]:
        for name in _entries(above, ())[1]:
            folder = above / name
            if not folder.is_symlink() and not any(folder.iterdir()) and name.isprintable():
                yield name


def _source(root: Path, anchor: Path) -> Source:
    return Source(format=NAME, root=root, path=str(root), anchor=anchor)


def _class_of(folders: Sequence[str], split: bool) -> str | None:
    below = folders[1:] if split else folders
    return below[0] if below else None


def _relabeled(sample_id: str, new: str, split: bool) -> str:
    *folders, name = sample_id.split("/")
    above, below = (folders[:1], folders[2:]) if split else ([], folders[1:])
    unprintable = any(not character.isprintable() for character in new)
    if (
        "/" in new
        or "\\" in new
        or new.startswith(".")
        or unprintable
        or is_ignored(new)
        or new != new.strip()
    ):
        raise InputError(
            f"The class {new!r} of {sample_id} can't be the name of a folder.",
            fix="A class is a plain name: no slashes, no leading dot, no control characters.",
        )
    if not split and new.lower() in SPLITS:
        raise InputError(
            f"The class {new!r} of {sample_id} would read as a split.",
            fix="Choose another name for the class.",
        )
    return "/".join([*above, new, *below, name])


def _check_old(root: Path, fix: Fix, src: Path, split: bool) -> None:
    if fix.locator.file != fix.sample_id:
        raise InputError(f"The fix of {fix.sample_id} has the locator {fix.locator}; expected the same path.")
    found = _class_of(fix.sample_id.split("/")[:-1], split)
    if not os.path.lexists(src):
        raise ConflictError(
            f"The image is gone; expected it under the class {fix.old!r}.",
            where=src,
            fix="Nothing was changed. Audit again.",
        )
    if found != fix.old:
        raise ConflictError(
            f"The image is in the class {found!r}; expected {fix.old!r}.",
            where=src,
            fix="Nothing was changed. Audit again.",
        )


def _check_link(src: Path, dst: Path) -> None:
    if not src.is_symlink() or src.readlink().is_absolute():
        return
    if os.path.realpath(dst.parent / src.readlink()) != os.path.realpath(src):
        raise InputError(
            "The image is a link that would lead nowhere in another class folder.",
            where=src,
            fix="Nothing was changed. Replace the link by the image.",
        )


def _free(path: Path) -> Path:
    number, free = 1, path
    while os.path.lexists(free):
        number += 1
        free = path.with_name(f"{path.stem}~{number}{path.suffix}")
    return free


def _has_splits(root: Path) -> bool:
    """Whether the folders of `root` are splits.

    Raises:
        FormatError: splits beside class folders, or splits that hold images without classes.
    """
    full = [name for name in _entries(root, ())[1] if _has_image(root / name)]
    splits = [name for name in full if name.lower() in SPLITS]
    with_classes = [
        name
        for name in splits
        if any(_has_image(root / name / inner) for inner in _entries(root / name, ())[1])
    ]
    if not with_classes:
        if splits and len(splits) == len(full):
            raise FormatError(
                f"The split folders {', '.join(splits)} hold images and no class folders.",
                where=root,
                fix=f"Put the images into class folders, as {splits[0]}/<class>/1.jpg, or load a manifest.",
            )
        return False  # a class that happens to be named like a split, such as a train among vehicles
    others = [name for name in full if name not in splits]
    if others:
        raise FormatError(
            f"Some folders are splits with classes in them ({', '.join(with_classes)}) and others are not "
            f"({', '.join(others[:5])}); it isn't clear which folders are classes.",
            where=root,
            fix="Move the other folders away, or load each split by itself.",
        )
    return True


def _entries(folder: Path | str, above: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """Names of the files and folders, sorted; folders that lead back to one of `above` are left out."""
    files, folders = [], []
    with os.scandir(folder) as entries:
        for entry in entries:
            if is_ignored(entry.name):
                continue
            if not is_folder(entry):
                files.append(entry.name)
            elif not entry.is_symlink() or os.path.realpath(entry.path) not in above:
                folders.append(entry.name)
    return sorted(files), sorted(folders)


def _walk(root: Path) -> Iterator[tuple[str, ...]]:
    """The images below `root` as parts of their relative paths, folder by folder in the order of names."""

    def down(folder: str, parts: tuple[str, ...], above: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        above = (*above, os.path.realpath(folder))
        files, folders = _entries(folder, above)
        for name in files:
            if is_image(name):
                check_name(name, root.joinpath(*parts))
                yield (*parts, name)
        for name in folders:
            check_name(name, root.joinpath(*parts))
            yield from down(os.path.join(folder, name), (*parts, name), above)  # noqa: PTH118

    return down(str(root), (), ())


def _has_image(folder: Path | str, above: tuple[str, ...] = ()) -> bool:
    """Whether there is an image below `folder`; stops at the first, as there may be a million."""
    above = (*above, os.path.realpath(folder))
    folders = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if is_ignored(entry.name):
                continue
            if is_image(entry.name) and not is_folder(entry):
                return True
            if is_folder(entry) and not (entry.is_symlink() and os.path.realpath(entry.path) in above):
                folders.append(entry.path)
    return any(_has_image(path, above) for path in folders)
