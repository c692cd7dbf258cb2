"""Git, through its own program: what of a repository is read, and the one way in which it is written.

A commit is made from blobs and a tree of its own, never through the user's index, so what is staged, unstaged
or untracked beside it stays as it was.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from dataaudit.errors import ConflictError, InputError, MissingDependencyError

__all__ = [
    "Tag", "commit", "good_name", "history", "ignored", "in_order", "init", "resolve", "root_of", "run",
    "show", "tag", "tags", "tracked",
]  # fmt: skip

_NAME, _EMAIL = "dataaudit", "dataaudit@localhost"
_UNFINISHED = ("MERGE_HEAD", "CHERRY_PICK_HEAD", "REVERT_HEAD", "rebase-merge", "rebase-apply")


@dataclass(frozen=True, kw_only=True)
class Tag:
    """A tag: its whole name, the commit it stands on, when it was made and its message."""

    name: str
    commit: str
    date: datetime
    message: str


def run(root: Path, *args: str, stdin: bytes | None = None, index: Path | None = None) -> bytes:
    """Run git in `root` and return what it printed.

    Raises:
        ConflictError: git refused; its own words are in the message.
        MissingDependencyError: there is no git.
    """
    done = _git(root, args, stdin=stdin, index=index)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip() or f"exit code {done.returncode}"
        raise ConflictError(f"`git {args[0]}` failed: {said}", where=root)
    return done.stdout


def _git(
    root: Path, args: Sequence[str], *, stdin: bytes | None = None, index: Path | None = None
) -> subprocess.CompletedProcess[bytes]:
    # Inside a hook git sets GIT_DIR and the like, which would send every command to the wrong repository.
    environment = {key: value for key, value in os.environ.items() if key not in _REPOSITORY_VARIABLES}
    environment |= {"LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0"}
    if index is not None:
        environment["GIT_INDEX_FILE"] = str(index)
    program = shutil.which("git")
    if program is None:
        raise MissingDependencyError("Versions need git, which isn't installed.", fix="Install git.")
    return subprocess.run(
        [program, "-C", str(root), *args], input=stdin, capture_output=True, env=environment
    )


_REPOSITORY_VARIABLES = {"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_OBJECT_DIRECTORY"}


def root_of(folder: Path) -> Path | None:
    """Root of the repository that `folder` lies in, or None.

    Raises:
        ConflictError: there is one that git doesn't want to open, such as another user's.
    """
    done = _git(folder, ("rev-parse", "--show-toplevel"))
    if done.returncode == 0:
        return Path(os.fsdecode(done.stdout.rstrip(b"\n")))
    said = done.stderr.decode(errors="replace").strip()
    if "not a git repository" in said:
        return None
    raise ConflictError(f"git can't open the repository of this folder: {said}", where=folder)


def init(folder: Path) -> Path:
    """Make a repository in `folder` and return its root.

    Raises:
        InputError: `folder` is the home folder, the root of the disk or the temp folder, or can't be written
            to.
    """
    folder = folder.resolve()
    shared = {Path.home().resolve(), Path(folder.anchor), Path(tempfile.gettempdir()).resolve()}
    if folder in shared or not os.access(folder, os.W_OK):
        why = "holds far more than this dataset" if folder in shared else "can't be written to"
        raise InputError(
            f"No git repository holds the dataset, and one made here would take in a folder that {why}.",
            where=folder,
            fix="Move the dataset into a folder of its own, or run `git init` where the repository belongs.",
        )
    branch = (
        () if _git(folder, ("config", "init.defaultBranch")).stdout else ("-c", "init.defaultBranch=main")
    )
    run(folder, *branch, "init", "--quiet")
    return folder


def resolve(root: Path, revision: str) -> str | None:
    """Hash of the commit that `revision` names, or None."""
    done = _git(root, ("rev-parse", "--verify", "--quiet", "--end-of-options", revision + "^{commit}"))
    return done.stdout.decode().strip() or None


def show(root: Path, revision: str, path: str) -> bytes | None:
    """Content of `path` (relative to the root, forward slashes) in `revision`; None where it isn't there."""
    done = _git(root, ("cat-file", "blob", f"{revision}:{path}"))
    return done.stdout if done.returncode == 0 else None


def contents(root: Path, revision: str, paths: Sequence[str]) -> dict[str, bytes]:
    """Content of each file at and under `paths` in `revision`, by its path; all relative to the root."""
    if not paths:
        return {}
    listed = run(root, "ls-tree", "-r", "-z", "--full-tree", revision, "--", *paths).split(b"\0")
    rows = [line.partition(b"\t") for line in listed if line.split(b" ")[1:2] == [b"blob"]]
    blobs = {os.fsdecode(name): head.split(b" ")[2] for head, _, name in rows}
    wanted = b"".join(blob + b"\n" for blob in blobs.values())
    given = run(root, "cat-file", "--batch", stdin=wanted) if blobs else b""
    found, at = {}, 0
    for name in blobs:
        start = given.index(b"\n", at) + 1
        end = start + int(given[at : start - 1].split(b" ")[2])
        found[name], at = given[start:end], end + 1
    return found


def tracked(root: Path, paths: Iterable[Path]) -> list[str]:
    """The files at and under `paths` that git itself tracks, relative to the root."""
    names = [str(path) for path in paths]
    found = run(root, "ls-files", "-z", "--", *(f":(literal){name}" for name in names)) if names else b""
    return [os.fsdecode(name) for name in found.split(b"\0") if name]


def ignored(root: Path, path: Path) -> bool:
    """Whether the user's ignore rules leave `path` out."""
    return _git(root, ("check-ignore", "--quiet", "--no-index", str(path))).returncode == 0


def history(root: Path, paths: Iterable[str]) -> list[str]:
    """The commits of HEAD that changed one of `paths`, newest first; of all of them with no paths."""
    if resolve(root, "HEAD") is None:
        return []
    named = [f":(top,literal){path}" for path in paths]
    return run(root, "rev-list", "HEAD", "--", *named).decode().split()


def in_order(root: Path, commits: Sequence[str]) -> list[str]:
    """`commits` without repeats, oldest first: an ancestor before its descendants, then by date."""
    wanted = set(commits)
    printed = run(root, "rev-list", "--date-order", "--reverse", *wanted) if wanted else b""
    return [commit for commit in printed.decode().split() if commit in wanted]


def good_name(root: Path, name: str) -> bool:
    """Whether `name` can be the name of a tag."""
    return _git(root, ("check-ref-format", f"refs/tags/{name}")).returncode == 0


def tags(root: Path, prefix: str) -> list[Tag]:
    """The tags whose name begins with `prefix` and a slash, oldest first."""
    form = (
        "%(refname:strip=2)%00%(objectname)%00%(*objectname)%00%(creatordate:unix)%00%(contents:subject)%01"
    )
    printed = run(root, "for-each-ref", "--sort=creatordate", f"--format={form}", f"refs/tags/{prefix}/")
    found = []
    for record in printed.decode(errors="replace").split("\x01"):
        if record.strip():
            name, own, target, date, message = record.lstrip("\n").split("\0")
            when = datetime.fromtimestamp(int(date)).astimezone()
            found.append(Tag(name=name, commit=target or own, date=when, message=message))
    return found


def tag(root: Path, name: str, commit: str, message: str) -> None:
    """Set the annotated tag `name` on `commit`."""
    run(
        root,
        *_identity(root),
        "tag",
        "--annotate",
        "--cleanup=whitespace",
        "--message",
        message,
        name,
        commit,
    )


def commit(
    root: Path, message: str, *, files: Mapping[str, bytes | None], lines: Mapping[str, Sequence[str]]
) -> str | None:
    """Commit these files on top of HEAD and leave all else, the user's index included, as it is.

    Hooks don't run: they are written for the code that a person commits, and see the working tree, which is
    not what is committed here.

    Args:
        root: root of the repository.
        message: the commit's message.
        files: path relative to the root to the content it gets, or None for a file that goes.
        lines: path to lines that the file must have: what HEAD or the index holds stays, what is missing is
            appended, so that the user's own edits of a shared ``.gitignore`` aren't committed along.

    Returns:
        Hash of the commit; None where HEAD holds all of it already.

    Raises:
        ConflictError: a merge or rebase is under way, or git refused.
    """
    for name in _UNFINISHED:
        if (root / os.fsdecode(run(root, "rev-parse", "--git-path", name).strip())).exists():
            raise ConflictError(
                "A merge, rebase or cherry-pick is under way in this repository.",
                where=root,
                fix="Finish or abort it (`git status` says how), then commit the version.",
            )
    head = resolve(root, "HEAD")
    blobs = {path: None if data is None else _blob(root, path, data) for path, data in files.items()}
    shared = {path: _with_lines(root, f"HEAD:{path}", path, wanted) for path, wanted in lines.items()}
    staged = {path: _with_lines(root, f":{path}", path, wanted) for path, wanted in lines.items()}
    with tempfile.TemporaryDirectory() as folder:
        index = Path(folder) / "index"
        run(root, "read-tree", *([head] if head else ["--empty"]), index=index)
        _set(root, blobs | shared, index=index)
        tree = run(root, "write-tree", index=index).decode().strip()
    if head and tree == run(root, "rev-parse", f"{head}^{{tree}}").decode().strip():
        return None
    sign = ("-S",) if _git(root, ("config", "--bool", "commit.gpgsign")).stdout.strip() == b"true" else ()
    parent = ("-p", head) if head else ()
    made = run(root, *_identity(root), "commit-tree", *sign, *parent, "-F", "-", tree, stdin=message.encode())
    new = made.decode().strip()
    # The index goes first: killed in between, the new state is staged; the other way it would look deleted.
    _set(root, blobs | staged)
    run(root, "update-ref", "-m", f"commit: {message.splitlines()[0]}", "HEAD", new, head or "0" * len(new))
    _git(root, ("update-index", "-q", "--refresh"))
    return new


def _blob(root: Path, path: str, data: bytes) -> str:
    return run(root, "hash-object", "-w", "--stdin", "--path", path, stdin=data).decode().strip()


def _with_lines(root: Path, name: str, path: str, wanted: Sequence[str]) -> str:
    done = _git(root, ("cat-file", "blob", name))
    text = done.stdout if done.returncode == 0 else b""
    have = set(text.decode(errors="replace").splitlines())
    missing = [line for line in wanted if line not in have]
    if text and not text.endswith(b"\n") and missing:
        text += b"\n"
    return _blob(root, path, text + "".join(f"{line}\n" for line in missing).encode())


def _set(root: Path, blobs: Mapping[str, str | None], *, index: Path | None = None) -> None:
    records = [
        f"100644 {blob} 0\t{path}" if blob else f"0 {'0' * 40}\t{path}" for path, blob in blobs.items()
    ]
    stdin = "".join(f"{record}\0" for record in records).encode("utf-8", "surrogateescape")
    run(root, "update-index", "-z", "--index-info", stdin=stdin, index=index)


def _identity(root: Path) -> tuple[str, ...]:
    known = all(
        os.environ.get(f"GIT_COMMITTER_{part.upper()}")
        or _git(root, ("config", f"user.{part}")).stdout.strip()
        for part in ("name", "email")
    )
    return () if known else ("-c", f"user.name={_NAME}", "-c", f"user.email={_EMAIL}")
