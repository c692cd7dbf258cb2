"""Both sides together: which images count as independent, and what tells them apart."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from dataaudit.errors import InputError
from dataaudit.modelcheck.drift.probe import probed
from dataaudit.modelcheck.drift.properties import MEASURES
from dataaudit.modelcheck.drift.sides import Side
from dataaudit.modelcheck.drift.statistics import Design, design
from dataaudit.signals.duplicates import near_duplicates
from dataaudit.signals.spectrum import Spectrum, neighbors, spectrum

__all__ = ["Pairing", "pair"]

Floats = np.ndarray[Any, np.dtype[np.float32]]
Ints = np.ndarray[Any, np.dtype[np.int64]]
Bools = np.ndarray[Any, np.dtype[np.bool_]]

_COMPONENTS = 128
_FLAT = 8
"""Grey levels between the darkest and the brightest part of an image without content."""


@dataclass(frozen=True, kw_only=True)
class Pairing:
    """The images that count, of both sides; (n,) of them.

    Attributes:
        reference: one side, whole.
        production: the other.
        rows: (n,) position in the reference, followed by production: of images that show the same picture
            one a side.
        dealt: which are of production, and how they could have been dealt out.
        components: (n, r) float32 principal components of the embeddings of both sides; (n, 0) without any.
        groups: (n,) images that show the same picture.
        same_file: (n,) whether the other side has the same file.
        all_components: components of every image of both sides, the reference's first.
        all_pictures: number of the picture of every image of both sides.
        n_shared: images of production that show the same picture as one of the reference.
        n_repeats: images that don't count, since another one of their side shows the same picture.
    """

    reference: Side
    production: Side
    rows: Ints
    dealt: Design
    components: Floats
    groups: Ints
    same_file: Bools
    all_components: Floats
    all_pictures: Ints
    n_shared: int
    n_repeats: int

    @property
    def is_production(self) -> Bools:
        """(n,) whether each image that counts is of production."""
        return self.dealt.production

    @cached_property
    def probed(self) -> pd.DataFrame:
        """Classes that a regression on the reference predicts for every image, the reference's first.

        Raises:
            Unavailable: the reference has no labels of two classes.
        """
        labels = self.reference.labels
        assert labels is not None
        return probed(self.all_components, labels, self.all_pictures)

    @property
    def can_differ(self) -> bool:
        """Whether there is anything to compare: pictures of either side that the other doesn't have."""
        return bool((self.dealt.labelings[:, 1:] != self.dealt.labelings[:, :1]).any())

    def of_both(self, reference: Any, production: Any) -> np.ndarray[Any, Any]:
        """(n, ...) rows of what each side has one of an image."""
        return np.concatenate([np.asarray(reference), np.asarray(production)])[self.rows]

    def measures(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """(n, k) the columns `MEASURES`."""
        names = list(MEASURES)
        return self.of_both(self.reference.images[names], self.production.images[names]).astype(np.float64)

    def examples(self, scores: Any, n: int = 6) -> list[dict[str, str]]:
        """The images of production with the highest scores, each with the reference's nearest to it.

        Args:
            scores: one number for each image of production.
            n: how many, at most.

        Returns:
            ``production`` and ``reference`` are sample ids.
        """
        n_reference = len(self.reference)
        order = np.argsort(-np.asarray(scores, dtype=float), kind="stable")[:n]
        found = []
        for row in order:
            nearest = self._nearest(int(row), n_reference)
            found.append(
                {
                    "production": str(self.production.images.index[row]),
                    "reference": str(self.reference.images.index[nearest]),
                }
            )
        return found

    def _nearest(self, row: int, n_reference: int) -> int:
        if not self.all_components.shape[1]:
            return 0
        gap = self.all_components[:n_reference] - self.all_components[n_reference + row]
        return int(np.einsum("ij,ij->i", gap, gap).argmin())


def pair(
    reference: Side,
    production: Side,
    *,
    n_permutations: int = 999,
    seed: int = 0,
    groups: str | None = None,
) -> Pairing:
    """Put two sides together.

    Images that show the same picture, such as frames of one video, count once. Of a picture that both sides
    have, as a camera that hangs still gives it, the two change places; where they are the same file, it can't
    say what differs, and stays on both sides in every permutation. Where the reference has no picture of its
    own, what is new in production is compared with all of the reference. An image without content, such as a
    black one, shows no picture: each counts.

    Args:
        reference: what the model was trained on.
        production: what it sees now.
        n_permutations: how often the images are dealt out anew.
        seed: of the random numbers.
        groups: a regular expression that finds in a sample id which images were taken together, such as
            ``^[^/]+`` for the first folder or ``cam\\d+``; such images are dealt out together.

    Raises:
        InputError: different backbones, or a pattern that can't be read or doesn't fit a sample id.
    """
    if reference.backbone != production.backbone:
        raise InputError(
            f"The reference has features of {reference.backbone or 'no backbone'}, and production of "
            f"{production.backbone or 'none'}; they can't be compared.",
            fix="Give both the same backbone, or save the reference anew.",
        )
    n_reference, n = len(reference), len(reference) + len(production)
    side = np.arange(n) >= n_reference
    digests = np.concatenate([each.images["digest"] for each in (reference, production)]).astype(str)
    components, pictures = _pictures(reference, production)
    pictures = _numbered(pictures, digests)
    empty = np.ptp(np.concatenate([reference.thumbnails, production.thumbnails]), axis=1) <= _FLAT
    pictures = np.where(empty, n + np.arange(n), pictures)
    shared = _shared(pictures, side)
    rows = _one_a_side(pictures, side, digests)
    own_of_reference = ~side[rows] & ~shared[rows]
    n_different, n_shared = len(rows), int((shared & side).sum())
    twice = _shared(np.unique(digests, return_inverse=True)[1], side) & ~empty
    # A picture that both sides have as another file can change places; the same file can't
    if shared.any() and not own_of_reference.any() and bool(twice[shared].all()):
        rows = rows[~(side[rows] & shared[rows])]
        shared = np.zeros_like(shared)
    blocks = pictures[rows] if groups is None else _named(groups, reference, production)[rows]
    blocks = np.where(shared[rows], pictures[rows], blocks + n)
    blocks = pd.factorize(blocks)[0].astype(np.int64)
    same_file = (twice & shared)[rows]
    return Pairing(
        reference=reference,
        production=production,
        rows=rows,
        dealt=design(side[rows], blocks, fixed=same_file, n_permutations=n_permutations, seed=seed),
        same_file=same_file,
        components=components[rows],
        groups=pictures[rows],
        all_components=components,
        all_pictures=pictures,
        n_shared=n_shared,
        n_repeats=n - n_different,
    )


def _pictures(reference: Side, production: Side) -> tuple[Floats, Ints]:
    """(n, r) components of all images, and (n,) the number of the picture that each shows."""
    digests = np.concatenate([reference.images["digest"], production.images["digest"]])
    n = len(digests)
    _, same_file = np.unique(digests.astype(str), return_inverse=True)
    if not reference.embeddings.shape[1] or not production.embeddings.shape[1]:
        return np.zeros((n, 0), dtype=np.float32), same_file.astype(np.int64)
    ids = pd.RangeIndex(n)
    features = pd.DataFrame(np.concatenate([reference.embeddings, production.embeddings]), index=ids)
    found = _few(features) if n < features.shape[1] else spectrum(features)
    leading = np.ascontiguousarray(found.components[:, : min(_COMPONENTS, max(n // 2, 1))])
    if n < 2:
        return leading, same_file.astype(np.int64)
    groups = near_duplicates(
        features,
        neighbors(found, n_neighbors=20),
        pd.Series(np.concatenate([reference.phash, production.phash]), index=ids),
        pd.DataFrame(np.concatenate([reference.thumbnails, production.thumbnails]), index=ids),
        pd.DataFrame({"digest": digests}, index=ids),
    )
    return leading, np.asarray(groups, dtype=np.int64)


def _few(features: pd.DataFrame) -> Spectrum:
    """What `spectrum` returns, for fewer images than features: by way of the images' products."""
    values = features.to_numpy(dtype=np.float32)
    values = values - values.mean(0)
    values /= np.sqrt(np.maximum(np.einsum("ij,ij->j", values, values) / len(values), 1e-12))
    eigenvalues, vectors = np.linalg.eigh((values @ values.T).astype(np.float64) / len(values))
    kept = np.flatnonzero(eigenvalues > 1e-6 * max(eigenvalues[-1], 1e-12))[::-1]
    components = vectors[:, kept] * np.sqrt(eigenvalues[kept] * len(values))
    return Spectrum(
        ids=features.index, components=components.astype(np.float32), eigenvalues=eigenvalues[kept]
    )


def _shared(pictures: Ints, side: Bools) -> Bools:
    """(n,) whether each image's picture is on both sides."""
    _, picture = np.unique(pictures, return_inverse=True)
    n_production = np.bincount(picture, weights=side)
    size = np.bincount(picture)
    return np.asarray((n_production[picture] > 0) & (n_production[picture] < size[picture]))


def _numbered(pictures: Ints, digests: np.ndarray[Any, Any]) -> Ints:
    """The pictures numbered by content, so that nothing depends on the names or the order of files."""
    order = np.argsort(digests, kind="stable")
    numbers = np.empty(len(pictures), dtype=np.int64)
    numbers[order] = pd.factorize(pictures[order])[0]
    return numbers


def _one_a_side(pictures: Ints, side: Bools, digests: np.ndarray[Any, Any]) -> Ints:
    """Positions of one image for each picture and side, in an order that follows from their contents."""
    order = np.lexsort((digests, side, pictures))
    first = np.r_[True, (pictures[order][1:] != pictures[order][:-1]) | (side[order][1:] != side[order][:-1])]
    kept = order[first[: len(order)]]
    return np.asarray(kept[np.lexsort((digests[kept], side[kept]))], dtype=np.int64)


def _named(pattern: str, reference: Side, production: Side) -> Ints:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise InputError(f"The pattern {pattern!r} of groups can't be read: {error}.") from error
    names = []
    for number, side in enumerate((reference, production)):
        for sample_id in side.images.index:
            match = compiled.search(str(sample_id))
            if match is None:
                raise InputError(
                    f"The pattern {pattern!r} of groups doesn't fit the sample {str(sample_id)!r}.",
                    fix="It is a regular expression; what it finds, or its first group, names the group.",
                )
            names.append(f"{number}{match[1] if compiled.groups else match[0]}")
    _, group = np.unique(np.array(names, dtype=str), return_inverse=True)
    return group.astype(np.int64)
