"""Signals kept by content, so that an audit after 500 fixes pays for 500.

Nothing here is needed to be right: a part that is missing or damaged is computed again.
"""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from stat import S_ISREG
from typing import Any

import numpy as np
import pandas as pd

from dataaudit.decode import PIXEL_PROPERTIES, Decoded, digest_of
from dataaudit.errors import InputError

__all__ = ["Digests", "Rows", "read_arrays", "write_arrays"]

_VERSION = "3"
_COLUMNS: dict[str, Any] = {
    "error": object,
    "width": np.int64,
    "height": np.int64,
    "mode": object,
    "format": object,
    "frames": np.int64,
    "orientation": np.int64,
    "orientation_tag": np.int64,
    "exif_width": np.int64,
    "exif_height": np.int64,
    "phash": np.uint64,
    **dict.fromkeys(PIXEL_PROPERTIES, np.float64),
}
_PART_KEYS = {"digest", "thumbnail", "features_row", "features", *_COLUMNS}


class Digests:
    """MD5 of files by path, believed while size, time of change and inode stay the same, as git believes its
    index.

    Args:
        folder: the cache; None keeps nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self._file = None if folder is None else folder / "digests.feather"
        self._known: dict[str, tuple[int, int, int, str]] = {}
        self._assumed: dict[str, str] = {}
        self._changed = False
        if self._file is not None and self._file.exists():
            try:
                table = pd.read_feather(self._file)
                self._known = {row[0]: row[1:] for row in table.itertuples(index=False, name=None)}
            except (OSError, ValueError, IndexError):
                self._known = {}

    def assume(self, filepaths: pd.Series[str], digests: pd.Series[str]) -> None:
        """Take digests that are known from elsewhere."""
        known = digests.reindex(filepaths.index)
        has = known.notna().to_numpy()
        self._assumed = dict(zip(filepaths[has], known[has], strict=True))

    @staticmethod
    def stat(path: str) -> tuple[int, int, int] | None:
        """Size, time of change and inode, to be taken before the file is read; None without a file."""
        try:
            status = Path(path).stat()
        except (OSError, ValueError):  # such as a zero byte in the path
            return None
        # A pipe or a device has no end
        regular = S_ISREG(status.st_mode)
        return (status.st_size, status.st_mtime_ns, status.st_ino) if regular else None

    def get(self, path: str) -> str | None:
        """The digest, or None when the file is new or has changed."""
        if path in self._assumed:
            return self._assumed[path]
        known = self._known.get(path)
        return known[3] if known is not None and known[:3] == self.stat(path) else None

    def put(self, path: str, stat: tuple[int, int, int] | None, digest: str) -> None:
        """Keep a digest, unless the file is so new that a change within the clock's grain would go unseen."""
        if stat is not None and time.time_ns() - stat[1] > 2_000_000_000:
            self._known[path] = (*stat, digest)
            self._changed = True

    def save(self) -> None:
        """Write what changed."""
        if self._file is None or not self._changed:
            return
        rows = [(path, *known) for path, known in self._known.items()]
        table = pd.DataFrame(rows, columns=["path", "size", "mtime", "inode", "digest"])
        table = table.astype({"size": "int64", "mtime": "int64", "inode": "uint64"})
        self._file.parent.mkdir(parents=True, exist_ok=True)
        part = self._file.with_name(f"digests-{uuid.uuid4().hex}.part")
        table.to_feather(part, compression="uncompressed")
        part.replace(self._file)
        self._changed = False


class Rows:
    """What the sweep found in each file, by MD5: a row of properties and, with a backbone, features.

    Args:
        folder: the cache; None keeps rows in memory only.
        name: name of the embedder.
    """

    def __init__(self, folder: Path | None, name: str) -> None:
        self._name = name
        self._folder = None if folder is None else folder / f"{_folder_name(name)}-v{_VERSION}"
        self._lock = threading.Lock()
        self._width: int | None = None
        self._parts: list[Mapping[str, np.ndarray[Any, Any]]] = []
        self._where: dict[str, tuple[int, int]] = {}
        self._pending: dict[str, tuple[Decoded, np.ndarray[Any, Any] | None]] = {}
        for file in sorted(self._folder.glob("*.npz")) if self._folder is not None else ():
            part = read_arrays(file)
            if part is not None and part.keys() >= _PART_KEYS:
                self._attach(part)

    def __contains__(self, digest: str) -> bool:
        return digest in self._where or digest in self._pending

    @property
    def n_pending(self) -> int:
        """How many rows are not written yet."""
        return len(self._pending)

    def add(self, decoded: Mapping[str, Decoded], features: Mapping[str, np.ndarray[Any, Any]]) -> None:
        """Take the rows of a chunk; called from several threads."""
        with self._lock:
            for digest, row in decoded.items():
                values = features.get(digest)
                if values is not None:
                    self._expect_width(len(values))
                self._pending[digest] = (row, None if values is None else _compact(values))

    def flush(self) -> None:
        """Write the pending rows as one part."""
        with self._lock:
            if not self._pending:
                return
            part = _part_of(self._pending)
            # Attached before they stop pending: a worker that asks in between must not decode them again.
            self._attach(part)
            self._pending = {}
        if self._folder is not None:
            self._folder.mkdir(parents=True, exist_ok=True)
            write_arrays(self._folder / f"{time.time_ns():020d}-{os.getpid()}.npz", part)

    def take(
        self, digests: pd.Series[str]
    ) -> tuple[pd.DataFrame, np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """The rows of these digests.

        Args:
            digests: MD5 by sample id; None for a file that can't be read.

        Returns:
            The properties, index as `digests`, and the (n, d) float32 features; where there is no row, or the
            file can't be decoded, the features are 0.
        """
        self.flush()
        found = [self._where.get(digest, (-1, -1)) for digest in digests]
        where = np.array(found, dtype=np.int64).reshape(-1, 2)
        features = np.zeros((len(digests), self._width or 0), dtype=np.float32)
        thumbnails = np.zeros((len(digests), 256), dtype=np.uint8)
        columns = {name: np.full(len(digests), _missing(kind), dtype=kind) for name, kind in _COLUMNS.items()}
        for number, part in enumerate(self._parts):
            here = np.flatnonzero(where[:, 0] == number)
            rows = where[here, 1]
            for name, values in columns.items():
                values[here] = part[name][rows]
            thumbnails[here] = part["thumbnail"][rows]
            position = part["features_row"][rows]
            has = position >= 0
            if has.any():
                features[here[has]] = part["features"][position[has]]
        table = pd.DataFrame(columns, index=digests.index)
        table["error"] = table["error"].where(table["error"] != "", None)
        return table, features, thumbnails

    def _expect_width(self, width: int) -> None:
        if self._width not in (None, width):
            raise InputError(
                f"The backbone {self._name} made features of {self._width} numbers, and now of {width}; "
                "all images need as many.",
                where=self._folder,
                fix="Give a network that you changed another name, or delete this folder of the cache.",
            )
        self._width = width

    def _attach(self, part: Mapping[str, np.ndarray[Any, Any]]) -> None:
        if len(part["features"]):
            self._expect_width(part["features"].shape[1])
        number = len(self._parts)
        self._parts.append(part)
        self._where.update({digest: (number, row) for row, digest in enumerate(part["digest"].tolist())})


def _folder_name(name: str) -> str:
    safe = "".join(c if c.isalnum() or c in "-_." else "_" for c in name)[:100]
    return safe if safe == name else f"{safe}-{digest_of(name.encode())[:8]}"


def _compact(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    # Half precision is plenty for features, but it ends at 65,504.
    return values.astype(np.float16 if np.abs(values).max(initial=0.0) < 65_000 else np.float32)


def _part_of(
    pending: Mapping[str, tuple[Decoded, np.ndarray[Any, Any] | None]],
) -> dict[str, np.ndarray[Any, Any]]:
    rows = [row for row, _ in pending.values()]
    part: dict[str, np.ndarray[Any, Any]] = {"digest": np.array(list(pending), dtype=str)}
    for name, kind in _COLUMNS.items():
        values = [
            row.pixels.get(name, np.nan) if name in PIXEL_PROPERTIES else getattr(row, name) for row in rows
        ]
        if kind is object:
            part[name] = np.array([value or "" for value in values], dtype=str)
        else:
            part[name] = np.array(values, dtype=kind)
    part["thumbnail"] = np.frombuffer(b"".join(row.thumbnail for row in rows), dtype=np.uint8).reshape(
        -1, 256
    )
    features = [values for _, values in pending.values()]
    has = np.array([values is not None for values in features])
    part["features_row"] = np.where(has, np.cumsum(has) - 1, -1)
    kept = [values for values in features if values is not None]
    part["features"] = np.stack(kept) if kept else np.zeros((0, 0), dtype=np.float16)
    return part


def _missing(kind: Any) -> Any:
    return {object: "", np.int64: 0, np.uint64: 0, np.float64: np.nan}[kind]


def write_arrays(file: Path, arrays: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """Write arrays to an ``.npz`` file, whole or not at all."""
    part = file.with_name(f"{file.stem}-{uuid.uuid4().hex}.part")
    with part.open("wb") as stream:
        np.savez(stream, **dict(arrays))  # type: ignore[arg-type]
    part.replace(file)


def read_arrays(file: Path) -> dict[str, np.ndarray[Any, Any]] | None:
    """Read what `write_arrays` wrote; None when it is missing or damaged."""
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except Exception:
        # numpy and zipfile raise whatever a damaged file leads them into; it is computed again then.
        return None
