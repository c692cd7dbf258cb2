"""OUT: images that belong to nothing else in the dataset."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from dataaudit.checks.groups import are_objects
from dataaudit.errors import Unavailable
from dataaudit.registry import check
from dataaudit.signals.isolation import Island, Islands
from dataaudit.types import Neighbors, Outcome

__all__ = ["off_topic_group", "outlier", "tail_probability"]

Ints = np.ndarray[Any, np.dtype[np.int64]]
Doubles = np.ndarray[Any, np.dtype[Any]]

_FEWEST = 20
_MOST_WITNESSES = 25


@check("OUT001", level="image")
def outlier(
    neighbor_distance: pd.Series[float], neighbors: Neighbors, *, max_false_share: float = 0.05
) -> Outcome:
    """The image lies far from all others.

    Scoring: the chance that an image of this dataset lies as far from its nearest neighbours, by the tail
    that the distances of the other images foretell. Near-duplicates are no neighbours: five copies of a
    screenshot are as far from the photos as one. A group of different images that belong to each other and to
    nothing else is `OUT002`'s.

    Flagged: the images whose distance is beyond what a dataset of this size has by itself, so that among the
    flagged about `max_false_share` are none (Benjamini and Hochberg). A dataset of one kind has none.

    Fix: none; look whether the image belongs to the dataset.

    Reference: Kuan and Mueller, "Back to the Basics: Revisiting Out-of-Distribution Detection Baselines",
    ICML workshop on principles of distribution shift 2022, for the distance; Benjamini and Hochberg,
    "Controlling the False Discovery Rate", JRSS B 57, 1995.
    """
    known = neighbor_distance.dropna()
    if len(known) < _FEWEST:
        raise Unavailable(f"{len(known)} images can be compared; it needs {_FEWEST} at least")
    values = known.to_numpy(dtype=np.float64)
    chance = tail_probability(values, values)
    flagged = _few_false(chance, max_false_share)
    score = pd.Series(1.0, index=neighbor_distance.index)
    score[known.index] = chance
    marked = pd.Series(False, index=score.index)
    marked[known.index] = flagged
    usual = float(np.median(values))
    where = score.index.get_indexer(known.index[flagged])
    nearest = neighbors.ids[neighbors.indices[where, 0]] if len(where) else pd.Index([])
    rows = [
        (sample, f"It lies {distance / max(usual, 1e-12):.1f} times as far from its nearest images as usual.",
         other, distance / max(usual, 1e-12))
        for sample, distance, other in zip(known.index[flagged], values[flagged], nearest, strict=True)
    ]  # fmt: skip
    evidence = pd.DataFrame(rows, columns=["id", "message", "nearest", "times_usual"]).set_index("id")
    return Outcome(score=score, flagged=marked, evidence=evidence)


@check("OUT002", level="image")
def off_topic_group(
    islands: Islands,
    labels: pd.DataFrame,
    *,
    max_chance: float = 0.01,
    min_times: float = 1.25,
    min_times_alike: float = 2.0,
    max_class_fraction: float = 0.5,
    max_fraction: float = 0.1,
) -> Outcome:
    """A few images belong to each other and to nothing else in the dataset.

    Scoring: the chance that a group of this size stands as far from all other images in this dataset, by the
    tail that the distances between images foretell: of s pictures it takes the square root of s of them to
    stand apart by themselves. 1 for all images outside such groups.

    Flagged: groups of different pictures that are at least a fifth closer to each other than to the nearest
    other image, that stand `min_times` as far from the others as is usual, and that would not be there by
    chance (`max_chance`). Images of one kind, such as the buses among the vehicles, are a group too, but have
    one class: where two thirds of a group have one class, or none has any, it takes `min_times_alike`. Groups
    that hold more than `max_class_fraction` of the images of a class are that class, and aren't flagged; nor
    is any where they make up more than `max_fraction` of the images, as the dataset consists of such groups.

    Fix: none; look whether the images belong to the dataset.

    Reference: Gower and Ross, "Minimum Spanning Trees and Single Linkage Cluster Analysis", Applied
    Statistics 18, 1969.
    """
    reference = islands.distances[np.isfinite(islands.distances)].astype(float)
    if len(reference) < _FEWEST:
        raise Unavailable(f"{len(reference)} images can be compared; it needs {_FEWEST} at least")
    pictures = np.array([island.n_pictures for island in islands.found], dtype=float)
    away = np.array([island.distance for island in islands.found], dtype=float)
    chance = tail_probability(away, reference) ** np.sqrt(np.minimum(pictures, _MOST_WITNESSES))
    expected = np.minimum(chance * len(reference) / np.maximum(pictures, 1), 1)
    class_of = _classes(labels, islands.ids)
    score, found = _scores(islands, class_of, expected, max_class_fraction)
    usual = float(np.median(reference))
    least = [
        min_times if _is_mixed(class_of[island.members]) else min_times_alike for island in islands.found
    ]
    found = [i for i in found if expected[i] <= max_chance and away[i] >= usual * least[i]]
    if sum(len(islands.found[i].members) for i in found) > max_fraction * len(score):
        found = []
    flagged = np.zeros(len(score), dtype=bool)
    rows: list[tuple[Any, ...]] = []
    for number, i in enumerate(found, start=1):
        flagged[islands.found[i].members] = True
        rows += _evidence(islands.found[i], islands.ids, usual, f"OUT002-{number}")
    evidence = pd.DataFrame(rows, columns=["id", "message", "nearest", "times_usual", "group"])
    return Outcome(
        score=pd.Series(score, index=islands.ids),
        flagged=pd.Series(flagged, index=islands.ids, dtype=bool),
        evidence=evidence.set_index("id"),
    )


def _scores(
    islands: Islands, class_of: Ints, expected: Doubles, max_class_fraction: float
) -> tuple[Doubles, list[int]]:
    """(n,) score of each image, and the islands that count, which don't overlap, worst first."""
    n_of_class = np.bincount(class_of[class_of >= 0])
    score = np.ones(len(islands.ids))
    found = []
    for i in np.argsort(expected, kind="stable").tolist():
        members = islands.found[i].members
        if score[members].min() == 1 and not _is_a_class(class_of[members], n_of_class, max_class_fraction):
            score[members] = expected[i]
            found.append(i)
    return score, found


def _evidence(island: Island, ids: pd.Index, usual: float, group: str) -> list[tuple[Any, ...]]:
    times = island.distance / max(usual, 1e-12)
    nearest = ids[island.nearest]
    message = (
        f"{len(island.members)} images belong to each other and to nothing else: they lie {times:.1f} times "
        f"as far from the others as is usual; the nearest is {nearest}."
    )
    return [(sample, message, nearest, times, group) for sample in ids[island.members]]


def _classes(labels: pd.DataFrame, ids: pd.Index) -> Ints:
    """Number of each image's class, -1 where it has none."""
    own = labels.iloc[:0] if are_objects(labels) else labels.dropna(subset="name")
    named = own.drop_duplicates("sample_id").set_index("sample_id")["name"]
    return np.asarray(pd.factorize(named.reindex(ids))[0], dtype=np.int64)


def _is_a_class(members: Ints, n_of_class: Ints, max_fraction: float) -> bool:
    """Whether most images of an island are of one class, and more than a share of that class lies in it."""
    inside = np.bincount(members[members >= 0])
    if not len(inside):
        return False
    common = int(inside.argmax())
    # A class of two, one of them in the island by chance, tells nothing.
    most = inside[common] * 2 >= len(members)
    return bool(most and inside[common] > max_fraction * n_of_class[common])


def _is_mixed(members: Ints) -> bool:
    """Whether at most two thirds of the labels of an island are of one class, as where they mean nothing."""
    inside = np.bincount(members[members >= 0])
    return bool(inside.sum() > 1 and inside.max() * 3 <= inside.sum() * 2)


def tail_probability(values: Doubles, reference: Doubles) -> Doubles:
    """Chance of a value at least as large, by the upper half of a reference.

    The logarithms of the reference's upper half are described by a Weibull tail through their median, third
    quartile and ninth decile: so up to a tenth of the reference may be what is looked for.

    Args:
        values: (m,) positive.
        reference: (n,) positive.

    Returns:
        (m,) in [0, 0.5]; 0.5 up to the median.

    >>> tail_probability(np.array([1.0, 10.0]), np.arange(1.0, 4.0)).round(2).tolist()
    [0.5, 0.0]
    """
    if not len(reference) or not len(values):
        return np.full(len(values), 0.5)
    smallest = max(1e-9, 1e-6 * float(np.max(reference)))
    median, third, ninth = np.quantile(np.log(np.maximum(reference, smallest)), [0.5, 0.75, 0.9])
    # Where most distances are equal, a thousandth more is no outlier.
    width = max(ninth - median, 0.02)
    middle = min(max(third - median, 1e-3 * width), 0.999 * width)
    shape = float(np.clip(np.log(np.log(5) / np.log(2)) / np.log(width / middle), 1.0, 1.5))
    beyond = np.maximum(np.log(np.maximum(values, smallest)) - median, 0) / width
    return np.asarray(0.5 * np.exp(-np.log(5) * beyond**shape))


def _few_false(chance: Doubles, share: float) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which of n chances to believe, so that a given share of them is false at most."""
    n = len(chance)
    order = np.argsort(chance, kind="stable")
    below = chance[order] <= share * np.arange(1, n + 1) / n
    believed = np.zeros(n, dtype=bool)
    if below.any():
        believed[order[: int(np.flatnonzero(below)[-1]) + 1]] = True
    return believed
