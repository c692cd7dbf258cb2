"""The images as one array of small squares, decoded once for all folds and epochs."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dataaudit.decode import decode
from dataaudit.errors import InputError
from dataaudit.sweep import pillow_set_up

__all__ = ["Pictures", "pictures_of", "square"]

Bytes = np.ndarray[Any, np.dtype[np.uint8]]

_CHUNK = 64


class Pictures:
    """Squares of images by row: from one array in a file where that was made, else from the images' files.

    Args:
        filepaths: (n,) paths.
        size: pixels a side.
        file: ``.npy`` file of the (n, size, size, 3) uint8 array; None decodes at every access.
    """

    def __init__(self, filepaths: Sequence[str], size: int, file: Path | None) -> None:
        self.filepaths, self.size, self.file = tuple(filepaths), size, file
        self._array: Bytes | None = None

    def __len__(self) -> int:
        return len(self.filepaths)

    def __getstate__(self) -> dict[str, Any]:
        # Another process maps the file by itself, where the array would be sent as a copy.
        return {**self.__dict__, "_array": None}

    def take(self, rows: np.ndarray[Any, Any]) -> Bytes:
        """(b, size, size, 3) uint8 squares of these rows."""
        if self.file is None:
            with pillow_set_up():
                return np.stack([square(self.filepaths[row], self.size) for row in rows])
        if self._array is None:
            self._array = np.load(self.file, mmap_mode="r")
        return np.asarray(self._array[rows])


def pictures_of(
    filepaths: Sequence[str],
    size: int,
    folder: Path,
    *,
    max_bytes: int,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Pictures:
    """Decode each image into a square, kept in a file that all folds read.

    Args:
        filepaths: (n,) paths of images that can be decoded.
        size: pixels a side.
        folder: where the file goes.
        max_bytes: a larger array isn't made; images are decoded at every access then.
        workers: threads; one a core by default.
        progress: called with the number of images done and of all.

    Raises:
        InputError: a file that can't be decoded any more.
    """
    n = len(filepaths)
    if n * size * size * 3 > max_bytes:
        return Pictures(filepaths, size, None)
    file = folder / f"pictures-{size}.npy"
    if not file.exists():
        part = file.with_suffix(".part")
        array = np.lib.format.open_memmap(part, mode="w+", dtype=np.uint8, shape=(n, size, size, 3))
        starts = range(0, n, _CHUNK)

        def fill(start: int) -> None:
            for row in range(start, min(start + _CHUNK, n)):
                array[row] = square(filepaths[row], size)

        with pillow_set_up(), ThreadPoolExecutor(workers or os.cpu_count()) as pool:
            for done, _ in enumerate(pool.map(fill, starts), 1):
                if progress is not None:
                    progress(min(done * _CHUNK, n), n)
        array.flush()
        part.replace(file)
    return Pictures(filepaths, size, file)


def square(path: str, size: int) -> Bytes:
    """(size, size, 3) uint8: the whole image, squeezed to a square, as the default backbone sees it.

    Raises:
        InputError: the file can't be read or decoded.
    """
    try:
        decoded = decode(Path(path).read_bytes(), size=size)
    except OSError as error:
        raise InputError(f"The image can't be read any more: {error.strerror}.", where=path) from error
    if decoded.image is None:
        raise InputError(
            f"The image can't be decoded any more: {decoded.error}.",
            where=path,
            fix="It changed while it was audited; run the audit again.",
        )
    return np.asarray(decoded.image.resize((size, size), Image.Resampling.BILINEAR))
