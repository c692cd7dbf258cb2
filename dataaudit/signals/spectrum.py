"""Signals of the embeddings alone: their principal components and neighbours.

Where the embeddings are those of several networks, the first one's components and neighbours are those of the
images; the other networks' are signals of their own, for what asks all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from dataaudit.registry import signal
from dataaudit.types import Neighbors

__all__ = ["Network", "Spectrum", "first_network", "neighbors", "other_networks", "spectrum"]

Floats = np.ndarray[Any, np.dtype[np.float32]]

_ROWS_AT_A_TIME = 8192
_EXACT_UP_TO = 20_000


@dataclass(frozen=True, kw_only=True)
class Spectrum:
    """Standardised embeddings turned onto their principal components.

    Attributes:
        ids: (n,) sample ids.
        components: (n, r) float32; column j has mean 0 and variance ``eigenvalues[j]``.
        eigenvalues: (r,) float64, falling, all above 0.
    """

    ids: pd.Index
    components: Floats
    eigenvalues: np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, kw_only=True)
class Network:
    """What one network of several sees.

    Attributes:
        spectrum: components of its features.
        neighbors: nearest neighbours by its features.
    """

    spectrum: Spectrum
    neighbors: Neighbors


def first_network(embeddings: pd.DataFrame) -> pd.DataFrame:
    """The columns of the first network, which stands for all where there can be only one opinion.

    >>> columns = pd.MultiIndex.from_tuples([("one", 0), ("one", 1), ("two", 0)])
    >>> first_network(pd.DataFrame([[1.0, 2.0, 3.0]], columns=columns)).to_numpy().tolist()
    [[1.0, 2.0]]
    """
    return _networks(embeddings)[0]


def _networks(embeddings: pd.DataFrame) -> list[pd.DataFrame]:
    if embeddings.columns.nlevels < 2 or embeddings.columns.empty:
        return [embeddings]
    names = embeddings.columns.get_level_values(0)
    edges = np.flatnonzero(np.r_[True, names[1:] != names[:-1], True])
    return [embeddings.iloc[:, start:end] for start, end in pairwise(edges)]


@signal
def spectrum(embeddings: pd.DataFrame) -> Spectrum:
    """Principal components of the standardised embeddings; everything linear is cheap from there.

    Args:
        embeddings: (n, d) float32; of several networks the first one's columns count.
    """
    values = first_network(embeddings).to_numpy(dtype=np.float32)
    n, d = values.shape
    mean = values.mean(0, dtype=np.float64)
    deviation = np.sqrt(np.maximum(_mean_square(values, mean), 1e-12))
    covariance = np.zeros((d, d))
    scaled = np.empty((min(n, _ROWS_AT_A_TIME), d), dtype=np.float32)
    for start in range(0, n, _ROWS_AT_A_TIME):
        part = values[start : start + _ROWS_AT_A_TIME]
        rows = _scale(part, mean, deviation, out=scaled[: len(part)])
        covariance += rows.T @ rows
    eigenvalues, vectors = np.linalg.eigh(covariance / max(n, 1))
    kept = np.flatnonzero(eigenvalues > 1e-6 * max(eigenvalues[-1], 1e-12))[::-1]
    basis = vectors[:, kept].astype(np.float32)
    components = np.empty((n, len(kept)), dtype=np.float32)
    for start in range(0, n, _ROWS_AT_A_TIME):
        part = values[start : start + _ROWS_AT_A_TIME]
        np.matmul(
            _scale(part, mean, deviation, out=scaled[: len(part)]),
            basis,
            out=components[start : start + len(part)],
        )
    return Spectrum(ids=embeddings.index, components=components, eigenvalues=eigenvalues[kept])


def _mean_square(values: Floats, mean: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.float64]]:
    total = np.zeros(values.shape[1])
    for start in range(0, len(values), _ROWS_AT_A_TIME):
        part = values[start : start + _ROWS_AT_A_TIME] - mean.astype(np.float32)
        total += np.einsum("ij,ij->j", part, part, dtype=np.float64)
    return total / max(len(values), 1)


def _scale(
    values: Floats, mean: np.ndarray[Any, Any], deviation: np.ndarray[Any, Any], *, out: Floats
) -> Floats:
    np.subtract(values, mean.astype(np.float32), out=out)
    out /= deviation.astype(np.float32)
    return out


@signal
def neighbors(spectrum: Spectrum, *, n_neighbors: int = 50, n_components: int = 128) -> Neighbors:
    """Nearest neighbours of each image by cosine similarity of its leading components, the image itself left
    out.

    The components are scaled by the fourth root of their variance, half-way to whitening: so that a few
    directions don't decide alone. The search is exact up to 20,000 images, and in an inverted file (faiss)
    beyond.

    Args:
        spectrum: components of the embeddings.
        n_neighbors: k, at most n - 1.
        n_components: how many components count.
    """
    leading = spectrum.components[:, :n_components]
    points = leading / spectrum.eigenvalues[:n_components].astype(np.float32) ** 0.25
    points /= np.maximum(np.linalg.norm(points, axis=1, keepdims=True), 1e-12)
    n = len(points)
    k = max(min(n_neighbors, n - 1), 0)
    if k == 0 or not points.shape[1]:
        return _all_alike(spectrum.ids, k)
    similarities, indices = _search(np.ascontiguousarray(points), k + 1)
    others = _others(indices).reshape(n, k)
    return Neighbors(
        ids=spectrum.ids,
        indices=np.take_along_axis(indices, others, axis=1).astype(np.int64),
        similarities=np.take_along_axis(similarities, others, axis=1).astype(np.float32),
    )


@signal
def other_networks(embeddings: pd.DataFrame, neighbors: Neighbors) -> tuple[Network, ...]:
    """Components and neighbours of the networks after the first.

    Args:
        embeddings: (n, d) float32; their columns say which network they come from.
        neighbors: of the first network, for how many there are.

    Returns:
        One for each further network; () for the features of one network.
    """
    return tuple(_network(features, neighbors.indices.shape[1]) for features in _networks(embeddings)[1:])


def _network(features: pd.DataFrame, n_neighbors: int) -> Network:
    found = spectrum(features)
    return Network(spectrum=found, neighbors=neighbors(found, n_neighbors=n_neighbors))


def _all_alike(ids: pd.Index, k: int) -> Neighbors:
    """Neighbours where nothing tells the images apart: the next ones, as similar as can be."""
    n = len(ids)
    following = np.arange(n, dtype=np.int64)[:, None] + np.arange(1, k + 1)
    return Neighbors(ids=ids, indices=following % max(n, 1), similarities=np.ones((n, k), dtype=np.float32))


def _others(indices: np.ndarray[Any, np.dtype[np.int64]]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """(n, k + 1) neighbours -> (n, k) columns without the image itself.

    It is usually first, but an identical image may stand before it, or so many that it isn't there: the last
    goes then.
    """
    n, columns = indices.shape
    itself = indices == np.arange(n)[:, None]
    left_out = np.where(itself.any(1), itself.argmax(1), columns - 1)
    kept: np.ndarray[Any, np.dtype[np.int64]] = np.arange(columns - 1, dtype=np.int64)[None].repeat(n, axis=0)
    kept += kept >= left_out[:, None]
    return kept


def _search(points: Floats, k: int) -> tuple[Floats, np.ndarray[Any, np.dtype[np.int64]]]:
    import faiss

    n, d = points.shape
    if n <= _EXACT_UP_TO:
        index: Any = faiss.IndexFlatIP(d)
    else:
        n_cells = int(np.sqrt(n))
        index = faiss.IndexIVFFlat(faiss.IndexFlatIP(d), d, n_cells, faiss.METRIC_INNER_PRODUCT)
        index.nprobe = max(8, n_cells // 24)  # about 85 % of the 50 nearest of 50,000
        rows = np.random.default_rng(0).choice(n, min(n, 64 * n_cells), replace=False)
        index.train(np.ascontiguousarray(points[np.sort(rows)]))
    index.add(points)
    similarities, indices = index.search(points, k)
    # An inverted file returns -1 where its cells hold fewer than k points: the image itself stands in, and
    # counts nothing.
    empty = indices < 0
    if empty.any():
        indices = np.where(empty, np.arange(n)[:, None], indices)
        similarities = np.where(empty, -1.0, similarities)
    return similarities, indices
