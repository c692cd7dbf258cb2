"""What a version holds, read from git and DVC's cache without touching the working copy."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from dataaudit import formats, state
from dataaudit.errors import ConflictError, DataAuditError, InputError, nearest
from dataaudit.types import Source, Tables
from dataaudit.version import git, store
from dataaudit.version.place import RECORD, Place, place_of, read_tables

__all__ = ["File", "files_at", "find", "materialize", "read", "working_files", "working_tables"]


@dataclass(frozen=True, kw_only=True)
class File:
    """A file of a version: the MD5 of its bytes, and where they are (DVC's cache, or at hand from git)."""

    md5: str
    cached: Path | None = None
    data: bytes | None = None


def find(place: Place, version: str) -> str:
    """The commit of a version: ``v1``, a tag of the user's, or any git revision.

    Raises:
        InputError: there is no such version.
    """
    for name in (f"refs/tags/{place.prefix}/{version}", version):
        commit = git.resolve(place.git_root, name)
        if commit is not None:
            return commit
    short = [tag.name.removeprefix(f"{place.prefix}/") for tag in git.tags(place.git_root, place.prefix)]
    raise InputError(f"There is no version {version!r} of {place.prefix}.", fix=nearest(version, short))


def targets_at(place: Place, repo: Any, commit: str) -> list[Path]:
    """What DVC tracked of the dataset in a commit; empty where the dataset wasn't there yet.

    What the version recorded counts; a revision from before the first version is searched.
    """
    recorded = git.show(place.git_root, commit, place.in_git(place.state / RECORD))
    if recorded is not None:
        return [(place.source.anchor / target).resolve() for target in json.loads(recorded)["targets"]]
    held = store.tracked_at(repo, commit)
    if any(path == place.root or path in place.root.parents for path in held):
        return [place.root]
    return [path for path in held if place.root in path.parents]


def files_at(place: Place, repo: Any, commit: str, *, name: str) -> dict[str, File]:
    """The files of a version by their path relative to the dataset's root.

    Raises:
        InputError: the dataset isn't in this revision.
        ConflictError: the list of its files is neither in the cache nor on a remote.
    """
    targets = targets_at(place, repo, commit)
    found = _listing(place, repo, commit, targets, name)
    files = {
        path.relative_to(place.root).as_posix(): File(md5=entry.md5, cached=entry.cached)
        for path, entry in found.items()
        if path.is_relative_to(place.root)
    }
    manifest = _manifest(place)
    known = [str(path) for path in found]
    loose = [
        target
        for target in targets
        if not any(f"{path}{os.sep}".startswith(f"{target}{os.sep}") for path in known)
    ]
    if manifest is not None and manifest not in files:
        loose.append(place.root / manifest)
    held = git.contents(place.git_root, commit, [place.in_git(path) for path in loose if path != place.root])
    for name, data in held.items():
        path = place.git_root / name
        if path.is_relative_to(place.root) and path.name != ".gitignore":
            md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
            files[path.relative_to(place.root).as_posix()] = File(md5=md5, data=data)
    files = {path: file for path, file in files.items() if not path.startswith(f"{state.FOLDER}/")}
    if not files:
        raise InputError(
            f"The dataset {place.prefix} isn't in the version {name!r}.",
            where=place.git_root,
            fix="`dataaudit version list` shows the versions that hold it.",
        )
    return files


def _listing(place: Place, repo: Any, commit: str, targets: list[Path], name: str) -> dict[Path, store.Entry]:
    from dvc_data.index import DataIndexDirError

    try:
        return store.listing(repo, commit, targets)
    except DataIndexDirError:
        _fetch(place, repo, commit, targets, name)
        return store.listing(repo, commit, targets)


def is_nested(place: Place, repo: Any) -> bool:
    """Whether the state lies in a folder that DVC tracks as a whole, where git can't hold it."""
    return store.covering(store.outs(repo), place.state) is not None


def state_at(place: Place, repo: Any, commit: str, name: str) -> bytes | None:
    """Content of the state's file `name` in a commit, from git or, where DVC tracks the state, its cache."""
    data = git.show(place.git_root, commit, place.in_git(place.state / name))
    if data is None and is_nested(place, repo):
        entry = _listing(place, repo, commit, [place.state], commit[:7]).get(place.state / name)
        data = entry.cached.read_bytes() if entry is not None and entry.cached.exists() else None
    return data


def _manifest(place: Place) -> str | None:
    path = Path(place.source.path)
    return None if path == place.root else path.relative_to(place.root).as_posix()


def _fetch(place: Place, repo: Any, commit: str, targets: list[Path], name: str) -> None:
    try:
        store.fetch(repo, targets, commit=commit)
    except DataAuditError as error:
        raise ConflictError(
            f"Files of the version {name!r} are not in DVC's cache, and no remote gave them: {error.what}",
            where=place.dvc_root,
            fix=f"Get them: dataaudit version pull {place.source.path} (or `dvc pull`), with a remote that "
            "has them.",
        ) from error


def complete(place: Place, repo: Any, commit: str, files: Mapping[str, File], *, name: str) -> None:
    """See to it that the bytes of all `files` are in the cache; what is missing is fetched."""
    if any(file.cached is not None and not file.cached.exists() for file in files.values()):
        _fetch(place, repo, commit, targets_at(place, repo, commit), name)


def working_files(place: Place, repo: Any) -> dict[str, str]:
    """MD5 of each file of the working copy by its path relative to the dataset's root."""
    file = place.state / RECORD
    if file.exists():
        record = json.loads(file.read_text(encoding="utf-8"))
        targets = [(place.source.anchor / target).resolve() for target in record["targets"]]
    else:
        targets = [place.root]
    manifest = _manifest(place)
    if manifest is None:
        targets += _new_folders(place, targets)
    elif not any(
        (place.root / manifest) == path or path in (place.root / manifest).parents for path in targets
    ):
        targets.append(place.root / manifest)
    found = store.working(repo, targets)
    return {
        path.relative_to(place.root).as_posix(): md5
        for path, md5 in found.items()
        if path.is_relative_to(place.root) and state.FOLDER not in path.relative_to(place.root).parts[:1]
    }


def _new_folders(place: Place, targets: list[Path]) -> list[Path]:
    """Folders beside the tracked ones that a fix may have made, such as that of a new class."""
    if not place.root.is_dir() or any(path == place.root or path in place.root.parents for path in targets):
        return []
    known = {path for target in targets for path in (target, *target.parents)}
    folders = [path for path in place.root.iterdir() if path.is_dir() and not path.name.startswith(".")]
    return [path for path in folders if path not in known]


def working_tables(place: Place) -> Tables:
    """The working copy as tables, `digest` filled; unchanged files aren't read again."""
    tables = read_tables(place.source)
    with store.open_repo(place.dvc_root, progress=False) as repo:
        digests = working_files(place, repo)
    return _with_digests(tables, digests)


def _with_digests(tables: Tables, digests: Mapping[str, str]) -> Tables:
    column = [digests.get(sample_id) for sample_id in tables.images.index]
    images = tables.images.assign(digest=pd.Series(column, index=tables.images.index, dtype=object))
    return replace(tables, images=images)


def materialize(dataset: str | Path | Source, version: str, *, progress: bool = True) -> Path:
    """An old version as a folder of links into DVC's cache, beside the working copy and without touching it.

    It is made once, appears as a whole or not at all, and is used again.

    Args:
        dataset: the folder, the manifest or a source.
        version: ``v1``, a tag or any git revision.
        progress: show a bar while files are fetched.

    Returns:
        The folder, or the manifest in it, ready for ``formats.read``. Its files are DVC's own: read them
        only.

    Raises:
        InputError: there is no such version.
        ConflictError: files are missing from the cache and no remote has them.
    """
    place = place_of(dataset)
    commit = find(place, version)
    return _materialize(place, commit, version, progress=progress)[1]


def _materialize(
    place: Place, commit: str, name: str, *, progress: bool
) -> tuple[Path, Path, dict[str, File]]:
    with store.open_repo(place.dvc_root, progress=progress) as repo:
        files = files_at(place, repo, commit, name=name)
        complete(place, repo, commit, files, name=name)
    home = state.cache_dir(place.source) / "versions" / commit
    folder = home / place.root.name
    manifest = _manifest(place)
    if not all((folder / path).exists() for path in files):
        state.prepare(place.source)
        home.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=".making-", dir=home))
        try:
            for path, file in files.items():
                _put(file, made / path, copy=path == manifest)
            made.chmod(0o755)
            if folder.exists():  # links that lead nowhere, since the cache was moved or emptied
                shutil.rmtree(folder)
            made.rename(folder)
        finally:
            shutil.rmtree(made, ignore_errors=True)
    return folder, folder if manifest is None else folder / manifest, files


def _put(file: File, path: Path, *, copy: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if file.data is not None:
        path.write_bytes(file.data)
        return
    assert file.cached is not None
    # A manifest is copied: readers resolve its path, and a link would lead them into the cache.
    for link in () if copy else (os.symlink, os.link):
        try:
            link(file.cached, path)
            return
        except OSError:
            continue
    shutil.copyfile(file.cached, path)


def read(dataset: str | Path | Source, version: str, *, progress: bool = True) -> Tables:
    """The tables of an old version, without touching the working copy and without reading an image.

    Args:
        dataset: the folder, the manifest or a source.
        version: ``v1``, a tag or any git revision.
        progress: show a bar while files are fetched.

    Returns:
        Tables with the sample ids of the working copy, `digest` from DVC, file paths that lead to the old
        contents, and a source whose anchor is the dataset's, so that its cached signals are found.

    Raises:
        InputError: there is no such version.
        ConflictError: files are missing from the cache and no remote has them.
    """
    place = place_of(dataset)
    root, path, files = _materialize(place, find(place, version), version, progress=progress)
    tables = formats.read(path, format=place.source.format, options=place.source.options)
    tables = _with_digests(tables, {name: file.md5 for name, file in files.items()})
    source = replace(place.source, root=root, path=str(path))
    return replace(tables, source=source)
