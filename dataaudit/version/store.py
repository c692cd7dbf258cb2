"""DVC, through its Python API: what it tracks, what a revision holds, and where the bytes are.

The API sends no analytics (only DVC's command line does), and nothing here changes a configuration.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dataaudit.errors import ConflictError, DataAuditError, InputError

__all__ = [
    "Entry", "Out", "add", "checkout", "covering", "fetch", "init", "listing", "open_repo", "outs", "push",
    "remove", "root_of", "tracked_at", "working",
]  # fmt: skip

_LOGGERS = ("dvc", "dvc_data", "dvc_objects")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A file of a revision: the MD5 of its bytes, and the object in DVC's cache that holds them."""

    md5: str
    cached: Path


@dataclass(frozen=True, kw_only=True)
class Out:
    """A file or folder that DVC tracks.

    Attributes:
        path: absolute, in the working copy.
        file: the file of git that names its content: the ``.dvc`` file, or ``dvc.lock`` for a pipeline's
            output.
        address: how DVC names its stage.
        pipeline: whether a stage of a pipeline makes it.
    """

    path: Path
    file: Path
    address: str
    pipeline: bool


def root_of(folder: Path, git_root: Path) -> Path | None:
    """Root of the DVC repository that `folder` lies in, inside its git repository, or None."""
    for parent in (folder, *folder.parents):
        if (parent / ".dvc").is_dir():
            return parent
        if parent == git_root:
            break
    return None


def init(root: Path, git_root: Path) -> list[str]:
    """Make a DVC repository in `root`; returns the files made for git to hold, relative to `git_root`."""
    with _quiet(progress=False):
        from dvc.repo import Repo

        Repo.init(str(root), subdir=root != git_root).close()
    made = (root / ".dvc" / "config", root / ".dvc" / ".gitignore", root / ".dvcignore")
    return [path.relative_to(git_root).as_posix() for path in made]


@contextmanager
def open_repo(root: Path, *, progress: bool = True) -> Iterator[Any]:
    """The ``dvc.repo.Repo`` at `root`, quiet but for its progress bars, its errors turned into ours."""
    with _quiet(progress=progress):
        from dvc.config import Config
        from dvc.repo import Repo

        # DVC takes the settings of an old commit from that commit; the remotes of today are those that work.
        # autostage would put our files into the user's index before the version is committed.
        today = Config(str(root / ".dvc"))
        core = {**today.get("core", {}), "autostage": False}
        repo = Repo(str(root), config={"core": core, "remote": today.get("remote", {})})
        try:
            yield repo
        finally:
            repo.close()


@contextmanager
def _quiet(*, progress: bool) -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of DVC's own dependencies; ours are shown outside
        from dvc.exceptions import DvcException
        from scmrepo.exceptions import SCMError

        loggers = [logging.getLogger(name) for name in _LOGGERS]
        levels = [logger.level for logger in loggers]
        for logger in loggers:
            logger.setLevel(logging.ERROR if progress else logging.CRITICAL)
        try:
            yield
        except DataAuditError:
            raise
        except (DvcException, SCMError) as error:
            raise ConflictError(f"DVC refused: {_words(error)}") from error
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def _words(error: BaseException | None) -> str:
    said = []
    while error is not None:
        said.append(str(error))
        error = error.__cause__
    return ": ".join(dict.fromkeys(said))


def outs(repo: Any) -> list[Out]:
    """What DVC tracks, as the files of the working copy say it."""
    found = []
    for out in repo.index.outs:
        if out.protocol == "local" and out.use_cache:
            stage = out.stage
            pipeline = not stage.is_data_source
            file = Path(stage.path).with_name("dvc.lock") if pipeline else Path(stage.path)
            found.append(Out(path=Path(out.fs_path), file=file, address=stage.addressing, pipeline=pipeline))
    return found


def covering(known: Iterable[Out], path: Path) -> Out | None:
    """The tracked file or folder that `path` is or lies in, or None."""
    return next((out for out in known if out.path == path or out.path in path.parents), None)


def add(repo: Any, targets: Iterable[Path]) -> None:
    """Put the files at `targets` into the cache and their digests into the ``.dvc`` files."""
    known = outs(repo)
    plain = []
    for target in targets:
        out = covering(known, target)
        if out is not None and out.pipeline:
            repo.commit(out.address, force=True)
        else:
            plain.append(str(target))
    if plain:
        repo.add(plain)


def remove(repo: Any, out: Out) -> None:
    """Stop tracking `out`, whose files are gone."""
    repo.remove(out.address)


def listing(repo: Any, commit: str, targets: Iterable[Path]) -> dict[Path, Entry]:
    """The files at and under `targets` in a commit, by absolute path in the working copy."""
    root = Path(repo.root_dir)
    wanted = [target.relative_to(root).parts for target in targets]
    with repo.switch(commit):
        index = repo.index.data["repo"]
        return {root.joinpath(*key): entry for key, entry in _files(index, wanted)}


def _files(index: Any, wanted: list[tuple[str, ...]]) -> Iterator[tuple[tuple[str, ...], Entry]]:
    for prefix in wanted:
        try:
            for key, entry in index.iteritems(prefix):
                if entry.hash_info is not None and not (entry.meta is not None and entry.meta.isdir):
                    _, cached = index.storage_map.get_cache(entry)
                    yield key, Entry(md5=entry.hash_info.value, cached=Path(cached))
        except KeyError:  # the target wasn't tracked in this revision
            continue


def working(repo: Any, targets: Iterable[Path]) -> dict[Path, str]:
    """MD5 of each file at and under `targets` as they are on disk; unchanged files aren't read again."""
    from dvc.fs import localfs
    from dvc_data.hashfile.build import build

    found: dict[Path, str] = {}
    for target in targets:
        if not target.exists():
            continue
        _, _, made = build(repo.cache.local, str(target), localfs, "md5", dry_run=True, ignore=repo.dvcignore)
        if target.is_dir():
            found |= {target.joinpath(*key): entry.value for key, _, entry in made}
        else:
            found[target] = made.hash_info.value
    return found


def tracked_at(repo: Any, commit: str) -> list[Path]:
    """What DVC tracks in a commit, as absolute paths in the working copy."""
    root = Path(repo.root_dir)
    with repo.switch(commit):
        return [root / Path(out.path).relative_to(repo.root_dir) for out in outs(repo)]


def _at(repo: Any, targets: Iterable[Path]) -> list[str]:
    # In a commit DVC sees git's own tree, whose root is "/".
    return ["/" + target.relative_to(repo.scm.root_dir).as_posix() for target in targets]


def fetch(repo: Any, targets: Iterable[Path], *, commit: str, remote: str | None = None) -> int:
    """Bring the objects of `targets` in a commit from a remote into the cache; returns how many files came.

    Raises:
        InputError: there is no remote.
        ConflictError: the remote doesn't have them all.
    """
    with _remote_errors():
        repo.cloud.get_remote(name=remote)  # fetch and push do nothing where there is none
        return int(repo.fetch(_at(repo, targets), revs=[commit], workspace=False, remote=remote))


def push(repo: Any, targets: Iterable[Path], *, commits: list[str], remote: str | None = None) -> int:
    """Send the objects of `targets` in `commits` to a remote; returns how many files went."""
    with _remote_errors():
        repo.cloud.get_remote(name=remote)
        return int(repo.push(_at(repo, targets), revs=commits, workspace=False, remote=remote))


def checkout(repo: Any, files: Iterable[Path]) -> None:
    """Make the working copy what these ``.dvc`` files say."""
    repo.checkout(targets=[str(file) for file in files], force=True)


@contextmanager
def _remote_errors() -> Iterator[None]:
    from dvc.config import NoRemoteError, RemoteConfigError
    from dvc.exceptions import DownloadError, UploadError

    try:
        yield
    except (NoRemoteError, RemoteConfigError) as error:
        raise InputError(
            f"There is no DVC remote to use: {error}",
            fix="Add one: dvc remote add --default NAME URL (a folder, s3://, gs://, ssh:// ...).",
        ) from error
    except (DownloadError, UploadError) as error:
        raise ConflictError(
            f"The DVC remote could not be used for all files: {error}",
            fix="Check `dvc remote list` and its access, or push from the copy that has the files.",
        ) from error
