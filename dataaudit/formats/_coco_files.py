"""Which files are COCO annotations, of which split, and where their images are."""

from __future__ import annotations

import mmap
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dataaudit.errors import FormatError, InputError
from dataaudit.formats import _cells
from dataaudit.formats._files import is_folder, why_unread
from dataaudit.formats._shared import is_ignored
from dataaudit.formats.folder import SPLITS

OPTIONS = ("images", "annotations")

_MAX_JSON = 50
_HEAD = 1 << 16
_SAMPLE = 200
_ANNOTATIONS = re.compile(rb'"annotations"\s*:\s*\[')
_KEYS = re.compile(rb'"(?:images|annotations|categories)"\s*:\s*\[')
_YEAR = re.compile(r"[_-]?(?:19|20)\d\d$")


def is_coco(file: Path) -> bool:
    """Whether a file begins, or goes on, as COCO annotations with boxes; it may be damaged."""
    if file.suffix.lower() != ".json" or not file.is_file() or not file.stat().st_size:
        return False
    with file.open("rb") as opened:
        head = opened.read(_HEAD)
        if b"\0" in head[:64]:
            return _is_coco(_cells.decode(head[: len(head) // 4 * 4] + opened.read(), file).text.encode())
        if not head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
            return False
        with mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return _is_coco(content)


def _is_coco(content: bytes | mmap.mmap) -> bool:
    at = content.find(b'"annotations"')
    if at < 0:
        return b'"images"' in content[:_HEAD] and _KEYS.search(content[:_HEAD]) is not None
    found = _ANNOTATIONS.match(content[at : at + 200])
    if found is None:
        return False
    beginning = content[at + found.end() : at + _HEAD]
    if b'"bbox"' in beginning or beginning.lstrip().startswith(b"]"):
        return b'"segments_info"' not in beginning[:4096]
    long = len(beginning) > _HEAD - 1000 and b'"caption"' not in beginning
    return long and b'"segmentation"' in beginning and content.find(b'"bbox"', at) >= 0


def _named_json(path: Path) -> list[Path]:
    return [*sorted(path.glob("*.json")), *sorted(path.glob("*/*.json"))][:_MAX_JSON]


def annotation_files(path: Path) -> list[Path]:
    """The COCO files of a folder: in it and in its subfolders; cheap also where it isn't of this format."""
    if path.is_file():
        return [path] if is_coco(path) else []
    if not path.is_dir():
        return []
    with os.scandir(path) as entries:
        folders = sorted(entry.name for entry in entries if not is_ignored(entry.name) and is_folder(entry))[
            :_MAX_JSON
        ]
    found = [file for folder in (path, *(path / name for name in folders)) for file in _json_in(folder)]
    return [file for file in found if is_coco(file)]


def _json_in(folder: Path) -> list[Path]:
    """The JSON files of a folder; none where they are many, as then each is of one image."""
    try:
        with os.scandir(folder) as entries:
            names = [
                entry.name
                for entry in entries
                if entry.name.lower().endswith(".json") and not is_ignored(entry.name)
            ]
    except OSError:
        return []
    return [folder / name for name in sorted(names)] if len(names) <= _MAX_JSON else []


def chosen_files(path: Path, options: Mapping[str, str]) -> tuple[list[Path], list[Path]]:
    """The files to read, and those that are left out although they have boxes.

    Raises:
        FormatError: none, or several that aren't those of splits.
        InputError: an option that isn't there.
    """
    for key in options:
        if key not in OPTIONS:
            raise InputError(f"The format 'coco' has no option {key!r}; it has {' and '.join(OPTIONS)}.")
    if path.is_file():
        return [path], []
    if not path.exists():
        raise FormatError("There is no such file or folder.", where=path)
    if "annotations" in options:
        files = [path / name.strip() for name in options["annotations"].split(",")]
        for file in files:
            if not file.is_file():
                raise InputError(f"There is no file {file} for the option annotations.", where=path)
        return files, []
    files = annotation_files(path)
    if not files:
        raise FormatError(
            "The folder has no JSON file of COCO annotations with boxes.",
            where=path,
            fix=why_unread(_named_json(path)) or None,
        )
    named = [file for file in files if file.name.lower().startswith("instances")]
    chosen = named or files
    splits = [split_of(file) for file in chosen]
    if len(chosen) > 1 and (None in splits or len(set(splits)) < len(splits)):
        names = ", ".join(file.relative_to(path).as_posix() for file in chosen[:6])
        raise FormatError(
            f"The folder has several files of COCO annotations, and not one for each split: {names}.",
            where=path,
            fix="Give the path of one, or say which with the option annotations, separated by commas.",
        )
    return chosen, [file for file in files if file not in chosen]


def split_of(file: Path) -> str | None:
    """The split that an annotation file is of, by its name or its folder's.

    >>> split_of(Path("annotations/instances_train2017.json")), split_of(Path("valid/_annotations.coco.json"))
    ('train', 'valid')
    """
    stem = file.name.lower().removesuffix(".json").removesuffix(".coco")
    words = [_YEAR.sub("", stem), *re.split(r"[_\-. ]+", _YEAR.sub("", stem))]
    named = [word for word in words if _YEAR.sub("", word) in SPLITS]
    if named:
        return _YEAR.sub("", named[0])
    return file.parent.name if file.parent.name.lower() in SPLITS else None


@dataclass(kw_only=True)
class Pictures:
    """Where the images of one annotation file are.

    Attributes:
        folder: that the file names are relative to.
        found: how many of the names that were tried are there.
        tried: how many were.
        others: further folders where some are too.
        by_name: whether only the last part of a file name counts, as its folders are of another machine.
    """

    folder: Path
    found: int
    tried: int
    others: tuple[Path, ...] = ()
    by_name: bool = False
    _listed: dict[str, frozenset[str]] = field(default_factory=dict)

    def path(self, name: str) -> str:
        """Absolute path of the image that the file names so; it needn't be there."""
        plain = name.replace("\\", "/") if "\\" in name else name
        if self.by_name:
            plain = plain.rpartition("/")[2]
        joined = os.path.join(self.folder, plain)  # noqa: PTH118 - once an image
        return os.path.normpath(joined) if "./" in joined or "//" in joined else joined

    def exists(self, path: str) -> bool:
        """Whether there is such a file; each folder is listed once."""
        folder, _, name = path.rpartition("/")
        if folder not in self._listed:
            try:
                self._listed[folder] = frozenset(os.listdir(folder))  # noqa: PTH208 - names alone
            except OSError:
                self._listed[folder] = frozenset()
        return name in self._listed[folder]


def pictures_of(file: Path, names: Sequence[str], option: str | None, base: Path) -> Pictures:
    """Find the folder of the images: the one where the most of `names` are.

    Args:
        file: of the annotations.
        names: of images, as it says.
        option: folder that the user says, relative to `base` or absolute.
        base: what the user gave as the dataset, or its folder.

    Raises:
        InputError: the user's folder isn't there.
    """
    sample = names[:: max(1, len(names) // _SAMPLE)][:_SAMPLE]
    candidates = _candidates(file)
    if option is not None:
        candidates = [Path(os.path.normpath(base / option))]
        if not candidates[0].is_dir():
            raise InputError(f"There is no folder {candidates[0]} for the option images.", where=file)
    best = [_tried(candidates, sample, by_name) for by_name in (False, True)]
    return best[1] if best[1].found > best[0].found else best[0]


def _tried(candidates: Sequence[Path], sample: Sequence[str], by_name: bool) -> Pictures:
    tried = [Pictures(folder=folder, found=0, tried=len(sample), by_name=by_name) for folder in candidates]
    is_there: Callable[[str], bool] = os.path.isfile
    for each in tried:
        each.found = sum(is_there(each.path(name)) for name in sample)
    best = max(tried, key=lambda each: each.found)
    best.others = tuple(each.folder for each in tried if each.found and each is not best)
    return best


def _candidates(file: Path) -> list[Path]:
    """The folders that the names may be relative to, the most usual first."""
    stem = re.sub(r"^(?:instances|annotations?)[_-]", "", file.stem.removesuffix(".coco").lstrip("_"))
    plain = _YEAR.sub("", stem)
    names = dict.fromkeys([stem, plain, f"{plain}2017", f"{plain}2014"])
    found: list[Path] = []
    for base in (file.parent, file.parent.parent):
        found += [base, base / "images"]
        found += [base / name for name in names]
        found += [base / "images" / name for name in names]
        found += [base / name for name in ("data", "JPEGImages", "imgs", "img")]
    return [folder for folder in dict.fromkeys(found) if folder.is_dir()]
