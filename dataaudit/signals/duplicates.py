"""Which images show the same picture."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from dataaudit.registry import signal
from dataaudit.types import Neighbors

__all__ = ["near_duplicates"]

Pairs = np.ndarray[Any, np.dtype[np.int64]]
Hashes = np.ndarray[Any, np.dtype[np.uint64]]

_ROWS_AT_A_TIME = 8192
_BANDS = ((0, 13), (13, 13), (26, 13), (39, 13), (52, 12))
_LARGEST_BUCKET = 200
_CLOSE = len(_BANDS) - 1


@signal
def near_duplicates(
    embeddings: pd.DataFrame,
    neighbors: Neighbors,
    phash: pd.Series[int],
    images: pd.DataFrame,
    *,
    min_similarity: float = 0.85,
    max_hash_distance: int = 12,
) -> pd.Series[int]:
    """Group number of each image; images of one group show the same picture.

    Two images are joined when their files are equal, or when their perceptual hashes differ in few bits and their
    embeddings (about their mean) point the same way: the more bits differ, the higher the cosine similarity must be, from
    0.5 for at most 4 bits, as small images have after another compression, up to `min_similarity` at `max_hash_distance`.
    Pairs are looked for among the nearest neighbours and among the images whose hashes share a band of bits.

    Args:
        embeddings: (n, d) float32.
        neighbors: nearest neighbours.
        phash: 64 bits an image.
        images: for the digests of the files.
        min_similarity: cosine similarity at the largest distance of the hashes, in [0.5, 1].
        max_hash_distance: differing bits of 64, at most.

    Returns:
        (n,) int64, index as `embeddings`.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    ids = embeddings.index
    n = len(ids)
    hashes = phash.loc[ids].to_numpy(dtype=np.uint64)
    pairs = np.unique(
        np.concatenate(
            [_pairs_of_neighbors(neighbors, hashes, max_hash_distance), *(_pairs_of_band(hashes, *b) for b in _BANDS)]
        ),
        axis=0,
    )
    apart = np.bitwise_count(hashes[pairs[:, 0]] ^ hashes[pairs[:, 1]]).astype(np.int64)
    needed = np.interp(apart, [_CLOSE, max(max_hash_distance, _CLOSE + 1)], [0.5, min_similarity])
    same = (apart <= max_hash_distance) & (_similarities(embeddings.to_numpy(dtype=np.float32), pairs) >= needed)
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


def _similarities(values: np.ndarray[Any, Any], pairs: Pairs) -> np.ndarray[Any, Any]:
    mean = values.mean(0) if len(values) else 0.0
    similar = np.empty(len(pairs), dtype=np.float32)
    for start in range(0, len(pairs), _ROWS_AT_A_TIME):
        here = slice(start, start + _ROWS_AT_A_TIME)
        a, b = values[pairs[here, 0]] - mean, values[pairs[here, 1]] - mean
        norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        similar[here] = np.einsum("ij,ij->i", a, b) / np.maximum(norms, 1e-12)
    return similar
