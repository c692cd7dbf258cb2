"""Which images show the same picture."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from dataaudit.registry import signal
from dataaudit.signals.spectrum import first_network
from dataaudit.types import Neighbors

__all__ = ["near_duplicates"]

Pairs = np.ndarray[Any, np.dtype[np.int64]]
Hashes = np.ndarray[Any, np.dtype[np.uint64]]

_ROWS_AT_A_TIME = 8192
_BANDS = ((0, 13), (13, 13), (26, 13), (39, 13), (52, 12))
_LARGEST_BUCKET = 200
_CLOSE = len(_BANDS) - 1
_LEAST_CORRELATION = 0.8


@signal
def near_duplicates(
    embeddings: pd.DataFrame,
    neighbors: Neighbors,
    phash: pd.Series[int],
    thumbnails: pd.DataFrame,
    images: pd.DataFrame,
    *,
    max_hash_distance: int = 12,
    min_correlation: float = 0.98,
    min_closeness: float = 0.75,
) -> pd.Series[int]:
    """Group number of each image; images of one group show the same picture.

    Two images are joined when their files are equal, or when their perceptual hashes differ in few bits and
    either their grey thumbnails correlate almost fully (another compression, size or brightness), or their
    embeddings are far closer than those of neighbours usually are in this dataset (a slight crop). How close
    is measured from the median similarity of
    an image to its fifth neighbour, 0, to identity, 1: in a dataset of digits or of video frames, where all
    images are alike, more is asked than among photos.

    Args:
        embeddings: (n, d) float32; of several networks the first one's columns count.
        neighbors: nearest neighbours; pairs are looked for among them and among images whose hashes share a
            band.
        phash: 64 bits an image.
        thumbnails: (n, 256) grey pixels.
        images: for the digests of the files.
        max_hash_distance: differing bits of 64, at most.
        min_correlation: of the thumbnails, in [0, 1].
        min_closeness: of the embeddings, in [0, 1]; thumbnails must correlate by 0.8 as well.

    Returns:
        (n,) int64, index as `embeddings`.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    ids = embeddings.index
    n = len(ids)
    hashes = np.asarray(phash.loc[ids], dtype=np.uint64)
    pairs = np.unique(
        np.concatenate(
            [
                _pairs_of_neighbors(neighbors, hashes, max_hash_distance),
                *(_pairs_of_band(hashes, *b) for b in _BANDS),
            ]
        ),
        axis=0,
    )
    values = first_network(embeddings).to_numpy(dtype=np.float32)
    usual = _usual_similarity(values, neighbors)
    closeness = (_similarities(values, pairs) - usual) / max(1 - usual, 1e-6)
    correlation = _similarities(thumbnails.loc[ids].to_numpy(dtype=np.float32), pairs, by_row=True)
    alike = (correlation >= min_correlation) & (closeness >= 0)
    same = alike | ((closeness >= min_closeness) & (correlation >= _LEAST_CORRELATION))
    apart = np.bitwise_count(hashes[pairs[:, 0]] ^ hashes[pairs[:, 1]])
    same &= apart <= max_hash_distance
    digests = images.loc[ids, "digest"].to_numpy()
    first = pd.Series(np.arange(n)).groupby(digests).transform("first").to_numpy()
    links = np.concatenate([pairs[same], np.stack([np.arange(n), first], axis=1)])
    graph = coo_matrix((np.ones(len(links), dtype=np.int8), (links[:, 0], links[:, 1])), shape=(n, n))
    _, groups = connected_components(graph, directed=False)
    return pd.Series(groups.astype(np.int64), index=ids, name="group")


def _pairs_of_neighbors(neighbors: Neighbors, hashes: Hashes, max_hash_distance: int) -> Pairs:
    found = [np.zeros((0, 2), dtype=np.int64)]
    for start in range(0, len(hashes), _ROWS_AT_A_TIME):
        near = neighbors.indices[start : start + _ROWS_AT_A_TIME]
        apart = np.bitwise_count(hashes[start : start + len(near), None] ^ hashes[near])
        row, column = np.nonzero(apart <= max_hash_distance)
        found.append(_ordered(row + start, near[row, column]))
    return np.concatenate(found)


def _pairs_of_band(hashes: Hashes, shift: int, width: int) -> Pairs:
    # Hashes that differ in at most 4 bits agree in at least one of the 5 bands.
    band = (hashes >> np.uint64(shift)) & np.uint64((1 << width) - 1)
    order = np.argsort(band, kind="stable")
    starts = np.flatnonzero(np.r_[True, band[order][1:] != band[order][:-1], True])
    size = np.diff(starts)
    size_of = np.repeat(np.where(size <= _LARGEST_BUCKET, size, 0), size)
    rank = np.arange(len(order)) - np.repeat(starts[:-1], size)
    found = [np.zeros((0, 2), dtype=np.int64)]
    for step in range(1, int(size_of.max(initial=0))):
        here = np.flatnonzero(rank + step < size_of)
        a, b = order[here], order[here + step]
        close = np.bitwise_count(hashes[a] ^ hashes[b]) <= _CLOSE
        found.append(_ordered(a[close], b[close]))
    return np.concatenate(found)


def _ordered(a: Pairs, b: Pairs) -> Pairs:
    return np.stack([np.minimum(a, b), np.maximum(a, b)], axis=1).astype(np.int64)


def _usual_similarity(values: np.ndarray[Any, Any], neighbors: Neighbors) -> float:
    """Median similarity of an image to its fifth neighbour, as the first may be its copy; of a sample."""
    n, k = neighbors.indices.shape
    if k == 0:
        return 0.0
    rows = np.arange(n) if n <= 2000 else np.random.default_rng(0).choice(n, 2000, replace=False)
    nearest = _similarities(values, np.stack([rows, neighbors.indices[rows, min(4, k - 1)]], axis=1))
    return float(np.clip(np.median(nearest), 0.0, 1.0))


def _similarities(
    values: np.ndarray[Any, Any], pairs: Pairs, *, by_row: bool = False
) -> np.ndarray[Any, Any]:
    """Cosine similarity of each pair of rows, about the mean of all rows, or `by_row` about its own."""
    mean = values.mean(0) if len(values) else 0.0
    similar = np.empty(len(pairs), dtype=np.float32)
    for start in range(0, len(pairs), _ROWS_AT_A_TIME):
        here = slice(start, start + _ROWS_AT_A_TIME)
        a, b = values[pairs[here, 0]], values[pairs[here, 1]]
        a = a - a.mean(1, keepdims=True) if by_row else a - mean
        b = b - b.mean(1, keepdims=True) if by_row else b - mean
        norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        similar[here] = np.einsum("ij,ij->i", a, b) / np.maximum(norms, 1e-12)
    return similar
