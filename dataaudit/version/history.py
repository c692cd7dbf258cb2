"""Versions of a dataset: made, listed, gone back to, sent and fetched."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from dataaudit import formats, state
from dataaudit.errors import ConflictError, InputError
from dataaudit.types import Source, Tables
from dataaudit.version import git, store
from dataaudit.version.place import (
    RECORD,
    Place,
    check_not_in_git,
    compared_by,
    place_of,
    read_tables,
    targets_of,
    write,
    write_json,
)
from dataaudit.version.snapshot import (
    File,
    complete,
    files_at,
    find,
    is_nested,
    state_at,
    targets_at,
    working_files,
)

__all__ = ["Version", "checkout", "commit", "pull", "push", "versions"]

METRICS = "metrics.json"
_IGNORED_BY_DVC = ("/cache", "/*/reports", "/*/journal", "/*/dropped")
_STATE_FILES = (RECORD, "fixes.jsonl", "decisions.jsonl")
_COMPARED = ("compare.json", "compare.csv")
_RESTORED = (RECORD, "fixes.jsonl", METRICS, *_COMPARED)


@dataclass(frozen=True, kw_only=True)
class Version:
    """A state of the dataset in git and DVC.

    Attributes:
        name: ``v1``, as it is given to the commands.
        tag: the git tag, ``photos/v1``.
        commit: hash of the git commit.
        date: when it was made.
        message: what its author said.
        counts: ``images``, ``classes``, ``labels`` (images by class) and, where an audit was committed along,
            ``findings`` (by code) and ``expected_errors``.
    """

    name: str
    tag: str
    commit: str
    date: datetime
    message: str
    counts: Mapping[str, Any] = field(default_factory=dict)


def commit(
    dataset: str | Path | Source,
    *,
    message: str,
    tag: str | None = None,
    summary: Mapping[str, Any] | None = None,
    progress: bool = True,
) -> Version:
    """Commit the dataset as it is now as a version: files in DVC, pointers, ledger and figures in git.

    Git and DVC repositories are made where there are none. What is staged, changed or untracked beside the
    dataset stays as it is; hooks don't run.

    Args:
        dataset: the folder, the manifest or a source.
        message: what changed, one line or more.
        tag: name of the version; the next of v1, v2, ... by default.
        summary: figures of an audit for ``dvc metrics diff``, such as ``{"findings": {"LBL001": 12}}``.
        progress: show a bar while files are added.

    Returns:
        The version.

    Raises:
        InputError: nothing changed since the last version, the tag exists, git tracks the images itself, or
            no repository may be made here.
        ConflictError: git or DVC refused, or a checkout was interrupted.
    """
    if not message.strip():
        raise InputError(
            "A version needs a message that says what changed.", fix='Give one: -m "relabel 41 cats"'
        )
    place = place_of(dataset, create=True)
    tables = read_tables(place.source)
    if _marker(place).exists():
        under_way = _marker(place).read_text(encoding="utf-8")
        raise ConflictError(
            f"A checkout of {under_way!r} was interrupted; the files are part old, part new.",
            where=place.source.path,
            fix=f"Finish it first: dataaudit version checkout {place.source.path} {under_way}",
        )
    name = _free_name(place, tag)
    state.prepare(place.source)
    with store.open_repo(place.dvc_root, progress=progress) as repo:
        files, lines = _add(place, repo, tables, summary)
        _refuse_known(place, files)
        if not is_nested(place, repo):
            files |= _figures(place, tables, summary)
    full = f"{place.prefix}/{name}"
    # None where a commit was cut off before its tag, or made by hand: HEAD holds it all, and gets the tag.
    made = git.commit(place.git_root, f"{message.strip()}\n", files=files, lines=lines)
    git.tag(place.git_root, full, made or find(place, "HEAD"), message.strip())
    return next(version for version in versions(place.source) if version.name == name)


def _free_name(place: Place, tag: str | None) -> str:
    taken = {found.name.removeprefix(f"{place.prefix}/") for found in git.tags(place.git_root, place.prefix)}
    if tag is None:
        numbers = [int(name[1:]) for name in taken if re.fullmatch(r"v\d+", name)]
        return f"v{max(numbers, default=0) + 1}"
    if tag in taken:
        raise InputError(f"There is a version {tag!r} of {place.prefix} already.", fix="Choose another tag.")
    if not git.good_name(place.git_root, f"{place.prefix}/{tag}"):
        raise InputError(
            f"{tag!r} can't be the name of a git tag.", fix="Use letters, digits, dots and dashes."
        )
    return tag


def _add(
    place: Place, repo: Any, tables: Tables, summary: Mapping[str, Any] | None
) -> tuple[dict[str, bytes | None], dict[str, list[str]]]:
    """Add the dataset to DVC; returns the files of git that say so, and lines that shared files need."""
    known = store.outs(repo)
    targets = targets_of(place, tables, known)
    in_git = check_not_in_git(place, targets, tables)
    tracked = [target for target in targets if target not in in_git]
    nested = store.covering(known, place.state) is not None
    lines = _leave_out_state(place, nested=nested)
    write_json(place.state / RECORD, place.record(targets))
    if nested:
        _figures(place, tables, summary)
    repo._reset()  # a .dvcignore may just have been written
    store.add(repo, [*tracked, place.state] if nested else tracked)
    gone = [out for out in store.outs(repo) if _is_gone(place, out, targets)]
    for out in gone:
        store.remove(repo, out)
    files: dict[str, bytes | None] = {place.in_git(out.file): None for out in gone}
    for out in sorted(store.outs(repo), key=lambda out: out.path):
        if store.covering([out], place.root) or out.path in tracked:
            files[place.in_git(out.file)] = out.file.read_bytes()
            for shared, wanted in _ignore_line(place, out).items():
                lines[shared] = [*lines.get(shared, []), *wanted]
    for held in (place.git_root / name for names in in_git.values() for name in names):
        files[place.in_git(held)] = held.read_bytes() if held.exists() else None
    files |= {} if nested else _state_files(place)
    for path in (place.dvc_root / name for name in (".dvc/config", ".dvc/.gitignore", ".dvcignore")):
        name = place.in_git(path)  # of a DVC repository that was just made
        if path.exists() and name not in lines and git.show(place.git_root, "HEAD", name) is None:
            files[name] = path.read_bytes()
    return files, lines


def _is_gone(place: Place, out: store.Out, targets: list[Path]) -> bool:
    ours = place.root in out.path.parents and not out.pipeline and out.path not in targets
    return ours and not any(path.is_file() for path in out.path.rglob("*")) and not out.path.is_file()


def _leave_out_state(place: Place, *, nested: bool) -> dict[str, list[str]]:
    """Keep DVC out of the cache and the reports; returns the lines that git is to hold of a shared file."""
    if not nested:
        write(place.source.anchor / state.FOLDER / ".dvcignore", "\n".join(_IGNORED_BY_DVC).encode() + b"\n")
        return {}
    folder = (place.source.anchor / state.FOLDER).relative_to(place.dvc_root).as_posix()
    wanted = [f"/{folder}{pattern}" for pattern in (*_IGNORED_BY_DVC, "/.gitignore")]
    file = place.dvc_root / ".dvcignore"
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    missing = [line for line in wanted if line not in text.splitlines()]
    if missing:
        write(
            file,
            (text + ("" if text.endswith("\n") or not text else "\n") + "\n".join(missing) + "\n").encode(),
        )
    return {place.in_git(file): wanted}


def _ignore_line(place: Place, out: store.Out) -> dict[str, list[str]]:
    file = out.path.parent / ".gitignore"
    line = "/" + re.sub(r"([\[\]!*#?])", r"\\\1", out.path.name)
    there = file.exists() and line in file.read_text(encoding="utf-8").splitlines()
    return {place.in_git(file): [line]} if there else {}


def _state_files(place: Place) -> dict[str, bytes | None]:
    files: dict[str, bytes | None] = {}
    for path in (place.state / name for name in _STATE_FILES):
        if path.exists():
            files[place.in_git(path)] = path.read_bytes()
    ignore = place.source.anchor / state.FOLDER / ".dvcignore"
    files[place.in_git(ignore)] = ignore.read_bytes()
    return files


def _figures(place: Place, tables: Tables, summary: Mapping[str, Any] | None) -> dict[str, bytes | None]:
    """Write the figures of the version, and tell DVC where they are."""
    counts = tables.labels["name"].value_counts().sort_index()
    figures = {
        "images": len(tables.images),
        "classes": len(tables.classes),
        "labels": {str(name): int(n) for name, n in counts.items()},
        **(summary or {}),
    }
    write_json(place.state / METRICS, figures)
    compared = [place.state / name for name in _COMPARED if (place.state / name).exists()]
    written = (place.state / METRICS, *compared, *declare(place))
    return {place.in_git(path): path.read_bytes() for path in written}


def declare(place: Place) -> list[Path]:
    """Declare the figures in a ``dvc.yaml`` beside them, so that the user's own stays as it is."""
    file = place.state / "dvc.yaml"
    if git.ignored(place.git_root, file):
        return []  # DVC stops at a dvc.yaml that git ignores, as it does all that lies in a tracked folder
    text = f"metrics:\n- {METRICS}\n"
    if (place.state / "compare.json").exists():
        text += f"- compare.json\nplots:\n- compare.csv:\n    x: version\n    y: {compared_by(place)}\n"
    write(file, text.encode())
    return [file]


def _refuse_known(place: Place, files: Mapping[str, bytes | None]) -> None:
    """Stop where HEAD holds these files already and a version names them."""

    def holds(commit: str) -> bool:
        return all(git.show(place.git_root, commit, path) == data for path, data in files.items())

    if git.resolve(place.git_root, "HEAD") is None or not holds("HEAD"):
        return
    for version in reversed(versions(place.source)):
        if holds(version.commit):
            raise InputError(
                f"Nothing changed since the version {version.name}: images, labels, ledger and decisions are "
                "as they were.",
                fix="There is nothing to commit.",
            )


def versions(dataset: str | Path | Source) -> list[Version]:
    """The versions of a dataset, oldest first.

    Args:
        dataset: the folder, the manifest or a source.

    Returns:
        One `Version` a tag of the dataset; empty where none was made.

    Raises:
        InputError: there is no repository.
    """
    place = place_of(dataset)
    found = []
    for tag in git.tags(place.git_root, place.prefix):
        figures = git.show(place.git_root, tag.commit, place.in_git(place.state / METRICS))
        found.append(
            Version(
                name=tag.name.removeprefix(f"{place.prefix}/"),
                tag=tag.name,
                commit=tag.commit,
                date=tag.date,
                message=tag.message,
                counts=json.loads(figures) if figures else {},
            )
        )
    order = {
        made: n for n, made in enumerate(git.in_order(place.git_root, [version.commit for version in found]))
    }
    return sorted(found, key=lambda version: (order[version.commit], _number(version.name)))


def _number(name: str) -> int:
    match = re.fullmatch(r"v(\d+)", name)
    return int(match.group(1)) if match else 0


def checkout(
    dataset: str | Path | Source, version: str, *, force: bool = False, progress: bool = True
) -> None:
    """Bring the working copy of the dataset, its ledger and its figures to a version.

    HEAD, the branch, the index, the decisions and all files that aren't the dataset's stay as they are.
    Stopped in the middle, the same command finishes.

    Args:
        dataset: the folder, the manifest or a source.
        version: ``v1``, a tag or any git revision.
        force: go even where changes are lost that are in no version.
        progress: show a bar while files are fetched and placed.

    Raises:
        InputError: there is no such version.
        ConflictError: the dataset has changes that are in no version, or files are missing from cache and
            remote.
    """
    place = place_of(dataset)
    formats.recover(place.source.path)  # a fix that was cut off
    commit = find(place, version)
    with store.open_repo(place.dvc_root, progress=progress) as repo:
        if not force:
            refuse_unsaved(place, repo, f"dataaudit version checkout {place.source.path} {version}")
        files = files_at(place, repo, commit, name=version)
        complete(place, repo, commit, files, name=version)
        write(_marker(place), version.encode())
        kept = {name: state_at(place, repo, commit, name) for name in _RESTORED}
        _place_files(place, repo, commit, files)
    for name, data in kept.items():
        if name != RECORD or data is not None:  # a revision from before the first version has no record
            _set(place.state / name, data)
    declare(place)
    _marker(place).unlink()


def _marker(place: Place) -> Path:
    return state.cache_dir(place.source) / f"checkout-{state.name_of(place.source)}"


def _place_files(place: Place, repo: Any, commit: str, files: Mapping[str, File]) -> None:
    targets = targets_at(place, repo, commit)
    for path, file in files.items():
        if file.data is not None:
            write(place.root / path, file.data)
    pointers = [target.with_name(target.name + ".dvc") for target in targets]
    if all(git.show(place.git_root, commit, place.in_git(pointer)) is not None for pointer in pointers):
        stale = [
            out for out in store.outs(repo) if place.root in out.path.parents and out.path not in targets
        ]
        for out in stale:
            if not out.pipeline:
                _remove(out.path)
                out.file.unlink()
        for pointer in pointers:
            _set(pointer, git.show(place.git_root, commit, place.in_git(pointer)))
        repo._reset()
        store.checkout(repo, pointers)
    else:
        # A pipeline's stage or a folder that holds more than this dataset: its pointer speaks for others too.
        _copy_files(place, repo, files)


def _copy_files(place: Place, repo: Any, files: Mapping[str, File]) -> None:
    have = working_files(place, repo)
    for path, file in files.items():
        if have.get(path) != file.md5 and file.cached is not None:
            write(place.root / path, file.cached.read_bytes())
    for path in have.keys() - files.keys():
        (place.root / path).unlink()


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _set(path: Path, data: bytes | None) -> None:
    if data is None:
        path.unlink(missing_ok=True)
    else:
        write(path, data)


def refuse_unsaved(place: Place, repo: Any, command: str) -> None:
    """Stop where the dataset or its ledger hold changes that no commit has.

    Raises:
        ConflictError: with some of the changes.
    """
    if not Path(place.source.path).exists():
        return
    commits = _commits(place, repo)
    have = working_files(place, repo)
    if have:
        _refuse_unsaved_files(place, repo, have, commits, command)
    ledger = state.ledger_file(place.source)
    lines = ledger.read_bytes() if ledger.exists() else b""
    if lines and not any((state_at(place, repo, c, ledger.name) or b"").startswith(lines) for c in commits):
        _refuse(place, [f"{len(lines.splitlines())} fixes in {place.in_git(ledger)}"], command)


def _refuse_unsaved_files(
    place: Place, repo: Any, have: Mapping[str, str], commits: list[str], command: str
) -> None:
    nearest: dict[str, str] | None = None
    seen: set[tuple[str, str]] = set()
    for number, commit in enumerate(commits):
        try:
            then = {path: file.md5 for path, file in files_at(place, repo, commit, name=commit[:7]).items()}
        except (InputError, ConflictError):
            continue
        nearest = then if number == 0 or nearest is None else nearest
        seen.update(then.items())
        if then == have:
            break
    else:
        changed = sorted(path for path, md5 in have.items() if (path, md5) not in seen)
        gone = sorted((nearest or {}).keys() - have.keys())
        # After an interrupted checkout each file is of one version or another; what is of none would be lost.
        if changed or not _marker(place).exists():
            _refuse(place, [*changed, *(f"{path} (gone)" for path in gone)] or sorted(have), command)


def _refuse(place: Place, changes: list[str], command: str) -> None:
    some = ", ".join(changes[:5]) + (f" and {len(changes) - 5} more" if len(changes) > 5 else "")
    raise ConflictError(
        f"The dataset has changes that are in no version, and they would be lost: {some}.",
        where=place.source.path,
        fix=f'Commit them first: dataaudit version commit {place.source.path} -m "..."\n'
        f"Or give them up: {command} --force",
    )


def _commits(place: Place, repo: Any) -> list[str]:
    """HEAD, the versions and the commits that touched the dataset, newest first."""
    held = [
        out for out in store.outs(repo) if store.covering([out], place.root) or place.root in out.path.parents
    ]
    pointers = [place.in_git(place.state), *(place.in_git(out.file) for out in held)]
    head = git.resolve(place.git_root, "HEAD")
    tagged = [tag.commit for tag in reversed(git.tags(place.git_root, place.prefix))]
    return list(dict.fromkeys([*([head] if head else []), *tagged, *git.history(place.git_root, pointers)]))


def push(dataset: str | Path | Source, remote: str | None = None, *, progress: bool = True) -> int:
    """Send the files of all versions to a DVC remote; the git commits and tags go by ``git push
    --follow-tags``.

    Args:
        dataset: the folder, the manifest or a source.
        remote: name of the remote; the default one where None.
        progress: show bars.

    Returns:
        How many files went.

    Raises:
        InputError: there is no such remote, or no version.
        ConflictError: files can't be read or sent.
    """
    place = place_of(dataset)
    commits = [version.commit for version in versions(place.source)]
    if not commits:
        raise InputError(
            f"{place.prefix} has no version to push.", fix="Make one: dataaudit version commit ..."
        )
    sent = 0
    with store.open_repo(place.dvc_root, progress=progress) as repo:
        groups: dict[tuple[Path, ...], list[str]] = {}
        for made in commits:
            groups.setdefault(tuple(targets_at(place, repo, made)), []).append(made)
        for targets, group in groups.items():
            sent += store.push(repo, targets, commits=group, remote=remote)
    return sent


def pull(dataset: str | Path | Source, remote: str | None = None, *, progress: bool = True) -> int:
    """Fetch the files of the dataset as HEAD names them from a DVC remote and place them, as after a clone.

    Args:
        dataset: the folder or the manifest, which needn't be there yet.
        remote: name of the remote; the default one where None.
        progress: show bars.

    Returns:
        How many files came.

    Raises:
        InputError: there is no such remote, or HEAD doesn't have the dataset.
        ConflictError: the dataset has changes that are in no version, or the remote lacks files.
    """
    place = place_of(dataset)
    formats.recover(place.source.path)
    head = find(place, "HEAD")
    with store.open_repo(place.dvc_root, progress=progress) as repo:
        refuse_unsaved(place, repo, f"dataaudit version checkout {place.source.path} HEAD")
        came = store.fetch(repo, targets_at(place, repo, head), commit=head, remote=remote)
        write(_marker(place), b"HEAD")
        _place_files(place, repo, head, files_at(place, repo, head, name="HEAD"))
    _marker(place).unlink()
    return came
