"""One pass over the images: each file is read and decoded once, and everything that needs its pixels comes
from that.

Each worker takes a chunk of files, reads, decodes and embeds it; with one network stream a worker, decoding
of one chunk runs beside the network of another. Results are kept by content in the cache, part by part, so
that a sweep that was stopped goes on where it was.
"""

from __future__ import annotations

import contextlib
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from dataaudit.cache import Digests, Rows
from dataaudit.decode import FILE_PROPERTIES, PIXEL_PROPERTIES, Decoded, decode, digest_of
from dataaudit.errors import InputError

__all__ = ["Embedder", "Swept", "pillow_set_up", "sweep"]

_BATCH = 64
_FLUSH_ROWS, _FLUSH_SECONDS = 4096, 20.0


@dataclass(frozen=True, kw_only=True)
class Embedder:
    """What turns decoded images into features.

    Attributes:
        name: names the features in the cache: another network or preprocessing has another name.
        size: pixels that a JPEG decoded at reduced scale must keep in its shorter side, at least.
        preprocess: RGB image -> array.
        embed: (b, *shape of the array) -> (b, d) float32; called from several threads.
        batch: files that a worker takes at a time; more cost memory, and on a CPU they are no faster.
        blocks: number of columns of each network by its name, where several networks' features stand side by
            side.
    """

    name: str
    size: int
    preprocess: Callable[[Image.Image], np.ndarray[Any, Any]]
    embed: Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]
    batch: int = 8
    blocks: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Swept:
    """What the sweep found.

    Attributes:
        digests: MD5 of each file by sample id; None for one that can't be read.
        properties: one row a sample: the columns `FILE_PROPERTIES`, as in `dataaudit.decode.Decoded` (0 or ""
            where they are unknown), and `PIXEL_PROPERTIES`, NaN where the file can't be decoded.
        errors: reason by sample id, for the files that can't be decoded.
        phash: uint64 perceptual hash of each sample that can be decoded.
        thumbnails: (n, 256) uint8, 16 x 16 grey pixels of each sample that can be decoded.
        embeddings: (n, d) float32, one row for each sample that can be decoded; None without an embedder. The
            columns of several networks are pairs of a network's name and a number.
        n_decoded: how many files were decoded in this run; the others came from the cache.
    """

    digests: pd.Series[str]
    properties: pd.DataFrame
    errors: pd.Series[str]
    phash: pd.Series[int]
    thumbnails: pd.DataFrame
    embeddings: pd.DataFrame | None
    n_decoded: int


def sweep(
    filepaths: pd.Series[str],
    *,
    embedder: Embedder | None = None,
    cache: Path | None = None,
    workers: int | None = None,
    digests: pd.Series[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Swept:
    """Read and decode each image once.

    Args:
        filepaths: path of the image by sample id; ids are unique.
        embedder: the backbone; without it there are no embeddings.
        cache: folder of the cached signals; without it nothing is kept.
        workers: threads; one a core by default.
        digests: MD5 by sample id where it is known already, as from DVC: such a file isn't read when the
            cache has it.
        progress: called with the number of images done and of all, from the calling thread.

    Returns:
        What was found, each table in the order of `filepaths`.

    Raises:
        KeyboardInterrupt: Ctrl-C; what was done by then is in the cache.
    """
    rows = Rows(cache, embedder.name if embedder else "none")
    known = Digests(cache)
    if digests is not None:
        known.assume(filepaths, digests)
    found: dict[str, str | None] = {}
    n_decoded = 0
    started = time.monotonic()
    with pillow_set_up(), contextlib.ExitStack() as at_end:
        at_end.callback(known.save)
        at_end.callback(rows.flush)
        size = embedder.batch if embedder is not None else _BATCH
        work = _in_threads(_Work(embedder, rows, known), filepaths, size, workers)
        # Closed first: after Ctrl-C the workers finish the chunks they have, and those are kept too.
        at_end.enter_context(contextlib.closing(work))
        for ids, chunk_digests, n_new in work:
            found.update(zip(ids, chunk_digests, strict=True))
            n_decoded += n_new
            if rows.n_pending >= _FLUSH_ROWS or time.monotonic() - started > _FLUSH_SECONDS:
                rows.flush()
                started = time.monotonic()
            if progress is not None:
                progress(len(found), len(filepaths))
    in_order = pd.Series([found[i] for i in filepaths.index], index=filepaths.index, dtype=object)
    return _collect(in_order, rows, embedder, n_decoded)


class _Work:
    """What one worker does with one chunk."""

    def __init__(self, embedder: Embedder | None, rows: Rows, known: Digests) -> None:
        self._embedder, self._rows, self._known = embedder, rows, known

    def __call__(self, chunk: Sequence[tuple[str, str]]) -> tuple[list[str], list[str | None], int]:
        digests: list[str | None] = []
        decoded: dict[str, Decoded] = {}
        arrays: dict[str, np.ndarray[Any, Any]] = {}
        for _, path in chunk:
            digest = self._known.get(path)
            if digest is None or (digest not in self._rows and digest not in decoded):
                digest = self._read(path, decoded, arrays)
            digests.append(digest)
        if decoded:
            self._rows.add(decoded, self._embed(arrays))
        return [sample_id for sample_id, _ in chunk], digests, len(decoded)

    def _read(
        self, path: str, decoded: dict[str, Decoded], arrays: dict[str, np.ndarray[Any, Any]]
    ) -> str | None:
        stat = self._known.stat(path)
        if stat is None:
            return None
        try:
            data = Path(path).read_bytes()
        except OSError:
            return None
        digest = digest_of(data)
        self._known.put(path, stat, digest)
        if digest not in self._rows and digest not in decoded:
            result = decode(data, size=self._embedder.size if self._embedder else 256)
            decoded[digest] = result.without_image()
            if self._embedder is not None and result.image is not None:
                arrays[digest] = self._preprocess(self._embedder, result.image, path)
        return digest

    @staticmethod
    def _preprocess(embedder: Embedder, image: Image.Image, path: str) -> np.ndarray[Any, Any]:
        try:
            return embedder.preprocess(image)
        except Exception as error:
            # The transform may be the user's: which image it couldn't take is what they need to know.
            raise InputError(
                f"The transform of {embedder.name} failed: {type(error).__name__}: {error}", where=path
            ) from error

    def _embed(self, arrays: dict[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
        if self._embedder is None or not arrays:
            return {}
        shapes = {array.shape for array in arrays.values()}
        if len(shapes) > 1:
            raise InputError(
                f"The transform of {self._embedder.name} makes arrays of several shapes: {sorted(shapes)}."
            )
        features = np.asarray(self._embedder.embed(np.stack(list(arrays.values()))))
        if features.ndim != 2 or len(features) != len(arrays) or not features.shape[1]:
            raise InputError(
                f"The backbone {self._embedder.name} returned an array of shape {features.shape} for "
                f"{len(arrays)} images; expected ({len(arrays)}, d)."
            )
        if not np.isfinite(features).all():
            raise InputError(
                f"The backbone {self._embedder.name} returned features that are NaN or infinite."
            )
        return dict(zip(arrays, features, strict=True))


def _in_threads(
    work: _Work, filepaths: pd.Series[str], size: int, workers: int | None
) -> Generator[tuple[list[str], list[str | None], int], None, None]:
    import os

    n = workers or (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    pairs = iter(zip(filepaths.index, filepaths, strict=True))
    chunks = iter(lambda: list(islice(pairs, size)), [])
    pool = ThreadPoolExecutor(n, thread_name_prefix="sweep")
    running: deque[Future[tuple[list[str], list[str | None], int]]] = deque()
    try:
        while True:
            # A few chunks ahead of the workers and no more, so that memory doesn't grow with the dataset.
            running.extend(pool.submit(work, chunk) for chunk in islice(chunks, n + 2 - len(running)))
            if not running:
                return
            yield running.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


_pillow_lock = threading.Lock()


@contextlib.contextmanager
def pillow_set_up() -> Iterator[None]:
    """Pillow as `decode` needs it: without a limit of its own and without warnings, one user at a time."""
    # decode() has a limit of its own, Pillow's would warn about an aerial photo; and Pillow warns of odd EXIF
    # and palettes. Both settings are the process's, so they are made here, once, and not by each worker.
    with _pillow_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before


def _collect(digests: pd.Series[str], rows: Rows, embedder: Embedder | None, n_decoded: int) -> Swept:
    table, features, thumbnails = rows.take(digests)
    error = table["error"].where(
        digests.notna(), "the file can't be opened: it is missing, or may not be read"
    )
    fine = error.isna().to_numpy()
    properties = table[[*FILE_PROPERTIES, *PIXEL_PROPERTIES]]
    embeddings = None
    if embedder is not None:
        embeddings = pd.DataFrame(features if fine.all() else features[fine], index=digests.index[fine])
        if embedder.blocks and len(embeddings):
            embeddings.columns = _columns(embedder.blocks)
    return Swept(
        digests=digests,
        properties=properties,
        errors=error[~fine].astype(str),
        phash=pd.Series(
            table["phash"].to_numpy(dtype=np.uint64)[fine], index=digests.index[fine], name="phash"
        ),
        thumbnails=pd.DataFrame(thumbnails[fine], index=digests.index[fine]),
        embeddings=embeddings,
        n_decoded=n_decoded,
    )


def _columns(blocks: Mapping[str, int]) -> pd.MultiIndex:
    return pd.MultiIndex.from_tuples(
        [(name, number) for name, width in blocks.items() for number in range(width)],
        names=["network", "feature"],
    )
