"""How far images, and small groups of them, stand from all others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from dataaudit.registry import signal
from dataaudit.signals.spectrum import Spectrum
from dataaudit.types import Neighbors

__all__ = ["Island", "Islands", "islands", "neighbor_distance"]

Floats = np.ndarray[Any, np.dtype[np.float32]]
Ints = np.ndarray[Any, np.dtype[np.int64]]

_EXACT_UP_TO = 20_000
_LINKS = 10
_MOST_BRIDGED = 4096
_MEMBERS_BRIDGED = 8
_MEMBERS_SEEN = 32
_ROUNDS = 12
_SMALLEST = 1e-6


@dataclass(frozen=True, kw_only=True)
class Island:
    """Images that lie closer to each other than to any other image.

    Attributes:
        members: positions of the images, copies included.
        n_pictures: how many different pictures they show.
        inner: the longest step that is needed to go from one to any other of them.
        distance: how far it is from most of them to any other image: the lower quartile over the members, as
            a single image in between makes the group no less of one.
        nearest: position of the nearest other image.
    """

    members: Ints
    n_pictures: int
    inner: float
    distance: float
    nearest: int


@dataclass(frozen=True, kw_only=True)
class Islands:
    """The small groups of images that hang together.

    Attributes:
        ids: (n,) sample ids.
        distances: (m,) how far it is from each picture, copies counted once, to the many: the step out of the
            largest small group that holds it; NaN where that isn't known.
        found: the islands; one may lie within another.
    """

    ids: pd.Index
    distances: Floats
    found: tuple[Island, ...]


@signal
def neighbor_distance(
    spectrum: Spectrum,
    neighbors: Neighbors,
    near_duplicates: pd.Series[int],
    *,
    n_nearest: int = 10,
    max_copies_fraction: float = 0.05,
) -> pd.Series[float]:
    """Mean distance of each image to its nearest neighbours that show another picture.

    The distance is Euclidean, in the space in which the neighbours were found: the cosine alone says nothing
    of how strong the features are.

    Args:
        spectrum: components of the embeddings.
        neighbors: nearest neighbours.
        near_duplicates: group of each image; the others of its group don't count as neighbours.
        n_nearest: how many neighbours count.
        max_copies_fraction: a larger group than this share of the images, such as the frames of one film, is
            no group of copies, and its images are each other's neighbours.

    Returns:
        (n,) float, index as the embeddings; NaN where no neighbour shows another picture.
    """
    n = len(spectrum.ids)
    groups = _copies(near_duplicates.loc[spectrum.ids], max_copies_fraction)
    leading = spectrum.components[:, :128]
    points = leading / spectrum.eigenvalues[: leading.shape[1]].astype(np.float32) ** 0.25
    norms = np.linalg.norm(points, axis=1)
    near = neighbors.indices
    other = (groups[near] != groups[:, None]) & (near != np.arange(n)[:, None])
    square = (
        norms[:, None] ** 2 + norms[near] ** 2 - 2 * norms[:, None] * norms[near] * neighbors.similarities
    )
    distances = np.where(other, np.sqrt(np.maximum(square, 0)), np.inf)
    distances = np.sort(distances, axis=1)[:, :n_nearest]
    known = np.isfinite(distances)
    total = np.where(known, distances, 0).sum(1)
    mean = np.divide(total, known.sum(1), out=np.full(n, np.nan), where=known.any(1))
    return pd.Series(mean, index=spectrum.ids, name="distance", dtype=float)


@signal
def islands(
    spectrum: Spectrum,
    near_duplicates: pd.Series[int],
    *,
    n_components: int = 16,
    max_fraction: float = 0.05,
    max_inner: float = 0.8,
) -> Islands:
    """The small groups of images that hang together more closely than with any other image.

    They are the small branches of the single-linkage tree over the leading components. A neighbour distance
    can't see them, as twenty screenshots among photos are each other's neighbours.

    Args:
        spectrum: components of the embeddings.
        near_duplicates: group of each image; copies count as one picture.
        n_components: how many components count; of a small dataset, an eighth of the number of its images
            at most.
        max_fraction: the largest island, as a share of the pictures.
        max_inner: how much shorter the steps within an island must be than the step out of it.

    Reference:
        Gower and Ross, "Minimum Spanning Trees and Single Linkage Cluster Analysis", Applied Statistics 18,
        1969. Deviation: the tree is that of the graph of the 10 nearest neighbours, whose parts are then
        joined by the shortest steps that a sample of their images finds.
    """
    ids = spectrum.ids
    groups = _copies(near_duplicates.loc[ids], max_fraction)
    _, first, unit = np.unique(groups, return_index=True, return_inverse=True)
    r = max(1, min(n_components, len(first) // 8, spectrum.components.shape[1]))
    points = np.ascontiguousarray(spectrum.components[first][:, :r], dtype=np.float32)
    largest = max(2, int(max_fraction * len(points)))
    if len(points) < 8 or not points.shape[1]:
        return Islands(ids=ids, distances=np.zeros(0, dtype=np.float32), found=())
    indices, distances = _nearest(points, min(_LINKS, len(points) - 1))
    edges = _tree(points, indices, distances, largest)
    found, out = _branches(edges, len(points), largest, max_inner)
    members = _members_by_unit(unit, len(points))
    away = [_away(points, np.array(units)) for units, _ in found]
    return Islands(
        ids=ids,
        distances=out,
        found=tuple(
            Island(
                members=np.sort(np.concatenate([members[u] for u in units])),
                n_pictures=len(units),
                inner=inner,
                distance=distance,
                nearest=int(first[nearest]),
            )
            for (units, inner), (distance, nearest) in zip(found, away, strict=True)
        ),
    )


def _copies(near_duplicates: pd.Series[int], max_fraction: float) -> Ints:
    """Group of each image; those of too large a group stand each for itself."""
    groups = np.unique(near_duplicates.to_numpy(dtype=np.int64), return_inverse=True)[1].astype(np.int64)
    size = np.bincount(groups, minlength=1)[groups]
    large = size > max(5, int(max_fraction * len(groups)))
    alone = groups.max(initial=-1) + 1 + np.arange(len(groups))
    return np.where(large, alone, groups)


def _members_by_unit(unit: Ints, n: int) -> list[Ints]:
    order = np.argsort(unit, kind="stable").astype(np.int64)
    return np.split(order, np.searchsorted(unit[order], np.arange(1, n)))


def _nearest(points: Floats, k: int) -> tuple[Ints, Floats]:
    """(m, k) nearest others and their distances, nearest first."""
    import faiss

    m, d = points.shape
    if m <= _EXACT_UP_TO:
        index: Any = faiss.IndexFlatL2(d)
    else:
        n_cells = int(np.sqrt(m))
        index = faiss.IndexIVFFlat(faiss.IndexFlatL2(d), d, n_cells, faiss.METRIC_L2)
        index.nprobe = max(8, n_cells // 24)
        rows = np.random.default_rng(0).choice(m, min(m, 64 * n_cells), replace=False)
        index.train(np.ascontiguousarray(points[np.sort(rows)]))
    index.add(points)
    squares, indices = index.search(points, k + 1)
    itself = (indices == np.arange(m)[:, None]) | (indices < 0)
    squares = np.where(itself, np.inf, squares)
    order = np.argsort(squares, axis=1, kind="stable")[:, :k]
    indices = np.take_along_axis(np.where(indices < 0, np.arange(m)[:, None], indices), order, axis=1)
    squares = np.take_along_axis(squares, order, axis=1)
    return indices.astype(np.int64), np.sqrt(np.maximum(squares, _SMALLEST**2)).astype(np.float32)


def _tree(points: Floats, indices: Ints, distances: Floats, largest: int) -> pd.DataFrame:
    """Edges a, b, length of the shortest tree, or of several where large parts stay apart; shortest first."""
    m = len(points)
    edges = pd.DataFrame(
        {"a": np.repeat(np.arange(m), indices.shape[1]), "b": indices.ravel(), "length": distances.ravel()}
    )
    edges = edges[np.isfinite(edges["length"]) & (edges["a"] != edges["b"])]
    for _ in range(_ROUNDS):
        edges, parts = _spanned(edges, m)
        size = np.bincount(parts)
        small = np.flatnonzero(size <= largest)
        if len(size) == 1 or not len(small):
            break
        edges = pd.concat([edges, _bridges(points, parts, small)])
    return _spanned(edges, m)[0]


def _away(points: Floats, units: Ints) -> tuple[float, int]:
    """How far it is from most of some units to the others, and the other that is nearest."""
    chosen = (
        units
        if len(units) <= _MEMBERS_SEEN
        else np.random.default_rng(0).choice(units, _MEMBERS_SEEN, replace=False)
    )
    squares = _squares(points, chosen)
    squares[:, units] = np.inf
    to = squares.argmin(1)
    steps = np.sqrt(np.maximum(squares[np.arange(len(chosen)), to], _SMALLEST**2))
    return float(np.quantile(steps, 0.25)), int(to[steps.argmin()])


def _squares(points: Floats, rows: Ints) -> Floats:
    """(r, m) squared distances from some points to all."""
    here = points[rows]
    lengths = np.einsum("ij,ij->i", points, points)
    return np.asarray(lengths[rows, None] + lengths[None] - 2 * here @ points.T)


def _spanned(edges: pd.DataFrame, m: int) -> tuple[pd.DataFrame, Ints]:
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components, minimum_spanning_tree

    low, high = np.minimum(edges["a"], edges["b"]), np.maximum(edges["a"], edges["b"])
    unique = pd.DataFrame({"a": low, "b": high, "length": edges["length"]}).drop_duplicates(["a", "b"])
    graph = coo_matrix((unique["length"].astype(float), (unique["a"], unique["b"])), shape=(m, m))
    tree = minimum_spanning_tree(graph.tocsr()).tocoo()
    _, parts = connected_components(tree, directed=False)
    kept = pd.DataFrame({"a": tree.row.astype(np.int64), "b": tree.col.astype(np.int64), "length": tree.data})
    return kept.sort_values(["length", "a", "b"], ignore_index=True), parts.astype(np.int64)


def _bridges(points: Floats, parts: Ints, small: Ints) -> pd.DataFrame:
    """The shortest steps out of each small part, from a sample of its members."""
    rng = np.random.default_rng(0)
    chosen = np.flatnonzero(np.isin(parts, small))
    chosen = chosen[np.lexsort((rng.random(len(chosen)), parts[chosen]))]
    starts = np.r_[True, parts[chosen][1:] != parts[chosen][:-1]]
    rank = np.arange(len(chosen)) - np.maximum.accumulate(np.where(starts, np.arange(len(chosen)), 0))
    a_part = max(1, min(_MEMBERS_BRIDGED, _MOST_BRIDGED // len(small)))
    chosen = chosen[rank < a_part][:_MOST_BRIDGED]
    steps = []
    for start in range(0, len(chosen), 256):
        rows = chosen[start : start + 256]
        apart = _squares(points, rows)
        apart[parts[rows][:, None] == parts[None]] = np.inf
        to = apart.argmin(1)
        length = np.sqrt(np.maximum(apart[np.arange(len(rows)), to], _SMALLEST**2))
        steps.append(pd.DataFrame({"a": rows, "b": to, "length": length}))
    return pd.concat(steps)


def _branches(
    edges: pd.DataFrame, m: int, largest: int, max_inner: float
) -> tuple[list[tuple[list[int], float]], Floats]:
    """Units and inner step of each branch of 2 to `largest` units whose step out is longer; and for each unit
    the step out of the largest branch that holds it, NaN where there is none."""
    parent, members = list(range(m)), {unit: [unit] for unit in range(m)}
    size, inner = [1] * m, [0.0] * m
    out = np.full(m, np.nan, dtype=np.float32)
    found = []

    def root(unit: int) -> int:
        while parent[unit] != unit:
            parent[unit] = parent[parent[unit]]
            unit = parent[unit]
        return unit

    for a, b, length in zip(edges["a"].tolist(), edges["b"].tolist(), edges["length"].tolist(), strict=True):
        one, other = root(a), root(b)
        for branch in (one, other):
            if 2 <= size[branch] <= largest and inner[branch] <= max_inner * length:
                found.append((list(members[branch]), inner[branch]))
        if size[one] < size[other]:
            one, other = other, one
        parent[other] = one
        size[one] += size[other]
        inner[one] = length
        if size[one] <= largest:
            members[one] += members.pop(other)
            continue
        for branch in (one, other):
            if branch in members:
                out[members.pop(branch)] = length
    return found, out
