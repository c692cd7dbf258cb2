"""Annotation files beside images: which belongs to which, in which split, and how both leave a dataset."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dataaudit import state
from dataaudit.errors import ConflictError, FormatError, InputError
from dataaudit.formats._files import is_folder
from dataaudit.formats._found import Problems
from dataaudit.formats._shared import check_name, inside, is_ignored, is_image
from dataaudit.formats.folder import SPLITS
from dataaudit.journal import Move, Operation
from dataaudit.types import Fix, Locator, Problem, Source

__all__ = [
    "Images", "Walked", "above", "by_file", "capped", "check_file", "check_some", "examples",
    "folder_options", "leave", "near_files", "new_files", "others", "pair", "split_of",
    "stem_of", "unannotated", "walk",
]  # fmt: skip

_BUDGET = 50_000
_BUDGET_OF_A_FOLDER = 2_000


@dataclass(frozen=True, kw_only=True)
class Walked:
    """The files of a dataset, as paths relative to its root in the order of their names."""

    annotations: tuple[str, ...]
    images: tuple[str, ...]


def walk(root: Path, suffix: str, options: Mapping[str, str]) -> Walked:
    """All images below `root`, and all files with the ending `suffix` (in small letters).

    Args:
        root: of the dataset.
        suffix: of annotation files.
        options: the folders that both are in, from `folder_options`.

    Raises:
        FormatError: not a folder, or a name that isn't valid Unicode.
    """
    if not root.is_dir():
        raise FormatError("This is a file; expected the folder of a dataset.", where=root)
    annotations: list[str] = []
    images: list[str] = []

    def down(folder: str, relative: str, above: tuple[str, ...]) -> None:
        above = (*above, os.path.realpath(folder))
        folders = []
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
        for entry in found:
            if is_ignored(entry.name):
                continue
            if is_folder(entry):
                if not entry.is_symlink() or os.path.realpath(entry.path) not in above:
                    folders.append(entry)
            elif entry.name.lower().endswith(suffix) or is_image(entry.name):
                check_name(entry.name, root / relative)
                (images if is_image(entry.name) else annotations).append(relative + entry.name)
        for entry in folders:
            check_name(entry.name, root / relative)
            down(entry.path, f"{relative}{entry.name}/", above)

    down(str(root), "", ())
    return Walked(
        annotations=tuple(path for path in annotations if path.startswith(options.get("annotations", ""))),
        images=tuple(path for path in images if path.startswith(options.get("images", ""))),
    )


def near_files(root: Path, suffix: str, names: Sequence[str]) -> Iterator[Path]:
    """Some of the files with the ending `suffix` in the first folders below `root`, with little effort.

    Args:
        root: a folder.
        suffix: in small letters.
        names: folders to look into first.
    """
    left, level = _BUDGET, [str(root)]
    for _ in range(4):
        below: list[str] = []
        for folder in level:
            try:
                with os.scandir(folder) as entries:
                    for number, entry in enumerate(entries):
                        left -= 1
                        if left < 0 or number > _BUDGET_OF_A_FOLDER:
                            break
                        if is_ignored(entry.name):
                            continue
                        if entry.name.lower().endswith(suffix):
                            yield Path(entry.path)
                        elif is_folder(entry):
                            below.append(entry.path)
            except OSError:
                continue
        level = sorted(below, key=lambda path: (Path(path).name.lower() not in names, path))


class Images:
    """The images of a dataset, to be found by the annotation files that belong to them.

    Args:
        images: relative paths.
        annotation_folders: usual names of folders with annotations, in small letters.
        image_folders: usual names of folders with images, in small letters, the most usual first.
        options: folders that the user names, from `folder_options`.
    """

    def __init__(
        self,
        images: Sequence[str],
        annotation_folders: Sequence[str],
        image_folders: Sequence[str],
        options: Mapping[str, str],
    ) -> None:
        self._named = options
        self._by_stem: dict[str, dict[str, list[str]]] = defaultdict(dict)
        self._by_name: dict[str, list[str]] = defaultdict(list)
        self._folders: dict[tuple[str, ...], str] = {}
        for image in images:
            folder, _, name = image.rpartition("/")
            self._by_stem[stem_of(name)].setdefault(folder, []).append(image)
            self._by_name[name].append(image)
            self._folders[tuple(folder.split("/")) if folder else ()] = folder
        self._annotation_folders, self._image_folders = annotation_folders, image_folders
        self._known: dict[str, list[str]] = {}

    def of(self, annotation: str) -> list[str]:
        """The images of the stem of an annotation file: beside it, in the folder for images that belongs to
        its own, or wherever the only one of that stem is."""
        folder, _, name = annotation.rpartition("/")
        folders = self._by_stem.get(stem_of(name), {})
        for candidate in self._candidates(folder):
            if candidate in folders:
                return folders[candidate]
        return next(iter(folders.values())) if len(folders) == 1 else []

    def named(self, annotation: str, filename: str) -> list[str]:
        """The image that an annotation file names: in the folders for its images, or the only one."""
        name = filename.replace("\\", "/").rpartition("/")[2]
        found = self._by_name.get(name, [])
        candidates = self._candidates(annotation.rpartition("/")[0])
        near = [image for image in found if image.rpartition("/")[0] in candidates]
        return near[:1] or (found if len(found) == 1 else [])

    def _candidates(self, folder: str) -> list[str]:
        if folder not in self._known:
            parts = tuple(folder.split("/")) if folder else ()
            below = (folder + "/").removeprefix(self._named.get("annotations", ""))
            chosen = tuple((self._named.get("images", "") + below).rstrip("/").split("/"))
            found = [chosen, parts] if self._named else [parts]
            for number in reversed(range(len(parts))):
                if parts[number].lower() in self._annotation_folders:
                    found += self._like(parts[:number], parts[number + 1 :])
            found += self._like(parts, ())
            self._known[folder] = ["/".join(each) for each in dict.fromkeys(found)]
        return self._known[folder]

    def _like(self, before: tuple[str, ...], after: tuple[str, ...]) -> list[tuple[str, ...]]:
        """Folders of images between two paths, the most usual name first, then none between them."""
        n = len(before)
        fitting = [
            parts
            for parts in self._folders
            if len(parts) == n + 1 + len(after)
            and parts[:n] == before
            and parts[n + 1 :] == after
            and parts[n].lower() in self._image_folders
        ]
        fitting.sort(key=lambda parts: (self._image_folders.index(parts[n].lower()), parts))
        return [*fitting, before + after]


def others(file: str, candidates: Sequence[str], chosen: str, problems: list[Problem]) -> list[str]:
    """The images that a file isn't for although they have its name; a problem, where there are any."""
    found = [image for image in candidates if image != chosen]
    if found:
        problems.append(
            Problem(
                kind="two images for one annotation file",
                message=f"It could belong to {chosen} and to {', '.join(found)}; it counts for {chosen}, "
                "and the others are left out.",
                locator=Locator(file=file),
                sample_id=chosen,
            )
        )
    return found


def above(file: str) -> list[str]:
    """The folders above a file, each with a slash at its end but for the root.

    >>> above("a/b/1.xml")
    ['', 'a/', 'a/b/']
    """
    parts = file.split("/")[:-1]
    return ["".join(f"{part}/" for part in parts[:depth]) for depth in range(len(parts) + 1)]


def pair(files: dict[str, str], image: str, file: str, problems: list[Problem]) -> None:
    """Give an image its annotation file; a second one is a problem."""
    if image in files:
        message = f"{files[image]} belongs to the image {image} too and counts; this file is left out."
        where = Locator(file=file)
        problems.append(
            Problem(
                kind="two annotation files for one image", message=message, locator=where, sample_id=image
            )
        )
    else:
        files[image] = file


def new_files(files: Mapping[str, str], suffix: str) -> Callable[[str], str]:
    """Where the annotation file of an image that has none would stand: where the others of its folder do.

    Args:
        files: image to annotation file, relative.
        suffix: of the new file.
    """
    folders: dict[str, str] = {}
    for image, file in files.items():
        folders.setdefault(image.rpartition("/")[0], file.rpartition("/")[0])

    def new_file(image: str) -> str:
        folder = folders.get(image.rpartition("/")[0], image.rpartition("/")[0])
        return f"{folder}/{stem_of(image)}{suffix}".lstrip("/")

    return new_file


def capped(problems: Sequence[Problem]) -> list[Problem]:
    """The first problems of each kind, and one that counts the others."""
    found = Problems()
    for each in problems:
        found.add(
            each.kind,
            each.message,
            each.locator,
            sample_id=each.sample_id,
            label_id=each.label_id,
            severity=each.severity,
        )
    return found.all()


def stem_of(path: str) -> str:
    """The name of a file without its folder and ending.

    >>> stem_of("images/a.b.jpg")
    'a.b'
    """
    return os.path.splitext(path.rpartition("/")[2])[0]  # noqa: PTH122 - called for every file


def split_of(path: str) -> str | None:
    """The first folder of a path that is named like a split.

    >>> split_of("images/Train/1.jpg")
    'Train'
    """
    return next((part for part in path.split("/")[:-1] if part.lower() in SPLITS), None)


def examples(paths: Sequence[str]) -> str:
    """The first few of several paths.

    >>> examples(["a", "b", "c", "d", "e"])
    'a, b, c and 2 more'
    """
    more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
    return ", ".join(paths[:3]) + more


def folder_options(options: Mapping[str, str] | None, name: str, root: Path) -> dict[str, str]:
    """The options ``images`` and ``annotations``: folders, relative to the root, with a slash at the end.

    Raises:
        InputError: another option, or a folder that isn't there.
    """
    found = {}
    for key, value in (options or {}).items():
        if key not in ("images", "annotations"):
            raise InputError(
                f"The format {name!r} has no option {key!r}; it has the options images and annotations."
            )
        folder = inside(root, value)
        if not folder.is_dir():
            raise InputError(f"There is no folder {value!r} for the option {key!r}.", where=root)
        found[key] = folder.relative_to(root).as_posix() + "/"
    return found


# Fixes


def check_file(root: Path, relative: str) -> Path:
    """The path of an annotation file that is to be edited.

    Raises:
        ConflictError: it is gone.
        InputError: it is outside the dataset, or a link that leads there.
    """
    path = inside(root, relative)
    if not path.is_file():
        raise ConflictError(
            "The annotation file is gone.", where=path, fix="Nothing was changed. Audit again."
        )
    target = Path(os.path.realpath(path))
    if path.is_symlink() and "files" not in target.parts and root not in target.parents:
        raise InputError(
            f"The annotation file is a link to {target}, outside the dataset.",
            where=path,
            fix="Nothing was changed.",
        )
    return path


def by_file(
    source: Source, fixes: Sequence[Fix], annotation_of: Callable[[Fix], str | None]
) -> tuple[list[Operation], dict[str, list[Fix]]]:
    """The moves of images that leave the dataset, and the other fixes by their annotation file.

    Args:
        source: of the dataset.
        fixes: of objects and of images.
        annotation_of: the annotation file of the image of a fix, relative; None where it has none.

    Raises:
        ConflictError: an image is gone, or the one that would be kept.
        InputError: the fix of an object whose image leaves the dataset.
    """
    leaving = [fix for fix in fixes if fix.op in ("drop", "merge")]
    operations = leave(source, leaving, annotation_of)
    gone = {fix.sample_id for fix in leaving}
    files: dict[str, list[Fix]] = {}
    for fix in fixes:
        if fix.op in ("drop", "merge"):
            continue
        if fix.sample_id in gone:
            raise InputError(f"{fix.sample_id} leaves the dataset; its objects can't be edited too.")
        files.setdefault(fix.locator.file, []).append(fix)
    return operations, files


def leave(
    source: Source, fixes: Sequence[Fix], annotation_of: Callable[[Fix], str | None]
) -> list[Operation]:
    """The moves of images and their annotation files out of the dataset.

    Args:
        source: of the dataset.
        fixes: drops and merges.
        annotation_of: relative path of the annotation file of the image of a fix, None where it has none.

    Raises:
        ConflictError: an image is gone, or the one that would be kept.
    """
    if source.root is None:
        raise InputError("This dataset has no root folder.", where=source.path)
    dropped, operations = state.state_dir(source) / "dropped", []
    for fix in fixes:
        image = inside(source.root, fix.sample_id)
        if not os.path.lexists(image):
            raise ConflictError("The image is gone.", where=image, fix="Nothing was changed. Audit again.")
        if fix.op == "merge" and fix.new is not None and not inside(source.root, fix.new).exists():
            raise ConflictError(
                f"The sample to keep in place of {fix.sample_id} is gone.",
                where=source.root / fix.new,
                fix="Nothing was changed. Audit again.",
            )
        annotation = annotation_of(fix)
        for relative in [fix.sample_id] + ([annotation] if annotation is not None else []):
            src = inside(source.root, relative)
            operations.append(Move(src=src, dst=_free(dropped / relative)))
    return list(operations)


def _free(path: Path) -> Path:
    number, free = 1, path
    while os.path.lexists(free):
        number += 1
        free = path.with_name(f"{path.stem}~{number}{path.suffix}")
    return free


def unannotated(
    images: Sequence[str], paired: Sequence[str], problems: list[Problem]
) -> tuple[list[str], list[str]]:
    """Images without an annotation file that are samples all the same, as others of their folder have one.

    Args:
        images: all of the dataset.
        paired: those with an annotation file.
        problems: gets one for these, and one for each folder in which no image has one.

    Returns:
        Those images, and the folders that hold samples.
    """
    taken, folders = set(paired), {image.rpartition("/")[0] for image in paired}
    alone = [image for image in images if image not in taken]
    without = [image for image in alone if image.rpartition("/")[0] in folders]
    if without:
        message = f"{len(without)} images have no annotation file: {examples(without)}."
        problems.append(
            Problem(
                kind="image without annotation file",
                message=f"{message} They count as images without objects.",
                locator=Locator(file=without[0]),
                severity="note",
            )
        )
    others = Counter(image.rpartition("/")[0] for image in alone if image.rpartition("/")[0] not in folders)
    for folder, n in sorted(others.items()):
        problems.append(
            Problem(
                kind="folder of images without annotations",
                message=f"None of the {n} images of this folder has an annotation file; they are left out.",
                locator=Locator(file=folder or "."),
                severity="note",
            )
        )
    return without, sorted(folders)


def check_some(walked: Walked, paired: Collection[str], root: Path, kind: str) -> None:
    """Raise FormatError where there are no annotation files, or none has its image."""
    annotations, images = walked.annotations, walked.images
    if not annotations:
        raise FormatError(f"The folder has no {kind} annotation file.", where=root)
    if not images:
        raise FormatError(
            "There are annotation files and no images.",
            where=root,
            fix="Give the folder that holds both the annotations and the images.",
        )
    if not paired:
        raise FormatError(
            f"None of the {len(annotations)} annotation files has its image, such as {annotations[0]}.",
            where=root,
            fix="An image has the name of its annotation file and is beside it, or in the folder for images "
            "next to the folder for annotations; or give the option images.",
        )
