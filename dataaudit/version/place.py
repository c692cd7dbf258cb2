"""Where a dataset stands: its source, its git and DVC repositories, and what of it DVC tracks."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dataaudit import formats, state
from dataaudit.errors import InputError
from dataaudit.types import Source, Tables
from dataaudit.version import git, store

__all__ = [
    "RECORD", "Place", "check_not_in_git", "compared_by", "locate", "place_of", "read_tables", "targets_of",
    "write", "write_json",
]  # fmt: skip

RECORD = state.RECORD
MAX_LOOSE_FILES = 100
_BESIDE = {
    "kitti": ("ImageSets",),
    "voc": ("ImageSets",),
    "yolo": ("*.yaml", "*.yml", "*.txt", "*.names", "*.data"),
}
"""What formats may keep at the top of a dataset besides images and their annotations."""
_NO_PART = re.compile(r"readme|licen[cs]e|requirements|\.", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Place:
    """A dataset in its repositories.

    Attributes:
        source: where the dataset was loaded from.
        root: folder that sample ids are relative to.
        git_root: root of the git repository.
        dvc_root: root of the DVC repository, the same or below it.
    """

    source: Source
    root: Path
    git_root: Path
    dvc_root: Path

    @property
    def state(self) -> Path:
        """Folder of the ledger, the decisions and the metrics."""
        return state.state_dir(self.source)

    @property
    def prefix(self) -> str:
        """What the dataset's tags begin with: its name, behind the folder it lies in below the git root."""
        parts = (*self.source.anchor.relative_to(self.git_root).parts, state.name_of(self.source))
        return "/".join(_ref_part(part) for part in parts)

    def in_git(self, path: Path) -> str:
        """`path` relative to the git root, with forward slashes."""
        return path.relative_to(self.git_root).as_posix()

    def record(self, targets: Iterable[Path]) -> dict[str, Any]:
        """What a clone must know to find and read the dataset, ready for JSON."""
        anchor = self.source.anchor
        return {
            "format": self.source.format,
            "root": self.root.relative_to(anchor).as_posix(),
            "path": Path(self.source.path).relative_to(anchor).as_posix(),
            "options": dict(self.source.options),
            "targets": sorted(target.relative_to(anchor).as_posix() for target in targets),
        }


def _ref_part(name: str) -> str:
    """A name as a part of a git reference.

    >>> _ref_part("my photos.lock")
    'my-photos-lock'
    """
    safe = "".join(
        "-" if char in " ~^:?*[\\" or ord(char) < 32 or ord(char) == 127 else char for char in name
    )
    safe = safe.replace("..", "-").replace("@{", "-").strip(".")
    return safe[: -len(".lock")] + "-lock" if safe.endswith(".lock") else safe or "dataset"


def read_tables(source: Source) -> Tables:
    """Read the working copy again, as `source` was read."""
    return formats.read(source.path, format=source.format, options=source.options)


def locate(dataset: str | Path | Source) -> Source:
    """The source of a dataset, from what a version recorded where its files aren't there or needn't be read.

    Raises:
        InputError: the dataset lives in FiftyOne alone, or isn't there and no version recorded it.
    """
    if isinstance(dataset, Source):
        source = dataset
    else:
        known = _recorded(Path(dataset).resolve())
        if known is None:
            known = formats.read(dataset).source
        if known is None:
            raise InputError(f"The dataset {str(dataset)!r} has no source; a version needs files.")
        source = known
    if source.root is None:
        raise InputError(
            f"The dataset {source.path!r} lives in FiftyOne alone; a version needs files that DVC can track.",
            fix="Export it to a folder first (dataset.export), then commit that folder.",
        )
    return source


def _recorded(path: Path) -> Source | None:
    for anchor in (path.parent, path, path.parent.parent):
        for file in sorted((anchor / state.FOLDER).glob(f"*/{RECORD}")):
            record = json.loads(file.read_text(encoding="utf-8"))
            if (anchor / record["path"]).resolve() == path:
                root = (anchor / record["root"]).resolve()
                return Source(
                    format=record["format"],
                    root=root,
                    path=str(path),
                    anchor=anchor,
                    options=record["options"],
                )
    return None


def place_of(dataset: str | Path | Source, *, create: bool = False) -> Place:
    """Find the repositories of a dataset.

    Args:
        dataset: the folder, the manifest or a source.
        create: make the repositories that are missing.

    Raises:
        InputError: there is no repository and `create` is false, or none may be made here.
    """
    source = locate(dataset)
    assert source.root is not None
    anchor, root = source.anchor.resolve(), source.root.resolve()
    path = str(Path(source.path).resolve())
    source = Source(format=source.format, root=root, path=path, anchor=anchor, options=source.options)
    git_root = git.root_of(anchor)
    if git_root is None and create:
        git_root = git.init(anchor)
    dvc_root = None if git_root is None else store.root_of(anchor, git_root)
    if git_root is not None and dvc_root is None and create:
        store.init(anchor, git_root)
        dvc_root = anchor
    if git_root is None or dvc_root is None:
        raise InputError(
            f"The dataset has no versions yet: there is no {'DVC' if git_root else 'git'} repository here.",
            where=anchor,
            fix=f'Make the first one: dataaudit version commit {source.path} -m "as it came"',
        )
    return Place(source=source, root=root, git_root=git_root, dvc_root=dvc_root)


def targets_of(place: Place, tables: Tables, known: Iterable[store.Out]) -> list[Path]:
    """What DVC is to track for the dataset: as few targets as hold it and nothing of the state.

    Raises:
        InputError: images lie outside the dataset's folder, or many lie loose in it.
    """
    if tables.task == "detection":
        _refuse_outside(place, tables)
    manifest = Path(place.source.path) if Path(place.source.path).is_file() else None
    known = list(known)
    if store.covering(known, place.root) is not None:
        return [place.root]
    inner = [out.path for out in known if place.root in out.path.parents]
    names = _names(place, tables)
    files = [place.root / name for name in names]
    if inner and all(any(path == file or path in file.parents for path in inner) for file in files):
        return sorted(_with(manifest, inner))
    if manifest is None and place.root != place.source.anchor:
        return [place.root]
    tops = Counter(_top(name, place) for name in names)
    loose = [name for name in tops if (place.root / name).is_file()]
    if len(loose) > MAX_LOOSE_FILES:
        if place.root != place.source.anchor:
            return [place.root]
        raise InputError(
            f"{len(loose)} images lie loose in the dataset's folder, {loose[0]!r} among them; each would "
            f"need a DVC file of its own (at most {MAX_LOOSE_FILES}).",
            where=place.root,
            fix="Move the images into a subfolder and correct their paths in the manifest.",
        )
    found = [place.root / name for name in sorted(tops)]
    return _with(manifest, found)


def _with(manifest: Path | None, targets: list[Path]) -> list[Path]:
    """Targets, and the manifest where it is in none of them."""
    if manifest is None or any(path == manifest or path in manifest.parents for path in targets):
        return targets
    return [*targets, manifest]


def _names(place: Place, tables: Tables) -> list[str]:
    """The files that the dataset is read from, relative to its root, but for the manifest."""
    names = list(tables.images.index)
    if tables.task != "detection":
        return names
    locators = {*tables.labels["locator"], *tables.images["locator"]}
    names += sorted({locator.file for locator in locators if (place.root / locator.file).exists()})
    beside = [*_BESIDE.get(place.source.format, ()), *place.source.options.values()]
    for pattern in beside:
        found = place.root.glob(pattern) if pattern and not Path(pattern).is_absolute() else ()
        names += [path.relative_to(place.root).as_posix() for path in found if not _NO_PART.match(path.name)]
    return list(dict.fromkeys(names))


def _refuse_outside(place: Place, tables: Tables) -> None:
    for name in tables.images.index[tables.images.index.str.match(r"/|\.\./|[A-Za-z]:")]:
        raise InputError(
            f"The image {name!r} lies outside the dataset's folder; a version would not hold it.",
            where=place.source.path,
            fix="Put annotations and images below one folder.",
        )


def _top(sample_id: str, place: Place) -> str:
    first = sample_id.split("/", 1)[0]
    if first in ("..", ""):
        raise InputError(
            f"The image {sample_id!r} lies outside the dataset's folder; a version would not hold it.",
            where=place.source.path,
            fix="Put the manifest into a folder that holds all its images.",
        )
    return first


def check_not_in_git(place: Place, targets: Iterable[Path], tables: Tables) -> dict[Path, list[str]]:
    """The targets that git itself holds, such as a manifest or a folder of annotations, with their files.

    Raises:
        InputError: git tracks files beside images of the dataset, which DVC then can't.
    """
    targets = list(targets)
    pictures = {target for target in targets if _holds_images(place, target, tables)}
    held = git.tracked(place.git_root, pictures)
    images = [name for name in held if not name.endswith((".dvc", ".gitignore"))]
    if images:
        names = " ".join(sorted({place.in_git(target) for target in targets if target.is_dir()}))
        raise InputError(
            f"git itself tracks {len(images)} files of the dataset, {images[0]!r} among them; DVC tracks "
            "files that git doesn't.",
            where=place.git_root,
            fix=f"Hand them over (the files stay): git rm -r --cached --quiet -- {names} && git commit -m "
            "'Hand the images over to DVC'. Then commit the version again.",
        )
    tracked = {target: git.tracked(place.git_root, [target]) for target in targets if target not in pictures}
    return {
        target: sorted({*names, *(place.in_git(path) for path in target.rglob("*") if path.is_file())})
        for target, names in tracked.items()
        if names
    }


def _holds_images(place: Place, target: Path, tables: Tables) -> bool:
    if target == place.root or target in place.root.parents:
        return True
    name = target.relative_to(place.root).as_posix()
    ids = tables.images.index
    return bool((ids == name).any() or ids.str.startswith(f"{name}/").any())


def compared_by(place: Place) -> str:
    """The figure that versions were compared by: the second column of what was written."""
    file = place.state / "compare.csv"
    names = file.read_text(encoding="utf-8").partition("\n")[0].split(",") if file.exists() else []
    return names[1].strip() if len(names) > 1 else "accuracy"


def write(path: Path, data: bytes) -> None:
    """Write a file as a whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    made = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        made.chmod(path.stat().st_mode & 0o777 if path.exists() else 0o644)
        made.replace(path)
    finally:
        made.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON, as a whole or not at all."""
    write(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())
