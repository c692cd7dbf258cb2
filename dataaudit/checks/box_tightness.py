"""BOX: groups of images with tighter or looser boxes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from dataaudit.checks.box_neighbors import sound_boxes
from dataaudit.errors import Unavailable
from dataaudit.registry import check
from dataaudit.types import CORNERS, Outcome

__all__ = ["inconsistent_tightness"]

Doubles = np.ndarray[Any, np.dtype[np.float64]]
Bools = np.ndarray[Any, np.dtype[np.bool_]]

_WORST = 0.25
"""Boxes that are a quarter larger than others are as inconsistent as can be."""
_FARTHEST = 0.7
"""A box that is twice or half as large as its object seems is about something else than tightness."""


@check("BOX014", level="dataset")
def inconsistent_tightness(
    objects: pd.DataFrame,
    images: pd.DataFrame,
    box_regressions: pd.DataFrame,
    *,
    min_difference: float = 0.04,
    min_images: int = 20,
    max_chance: float = 0.01,
) -> Outcome:
    """A group of images has tighter or looser boxes than the others.

    Groups are the splits, the folders and the sizes of the images: what was labeled by other people, in
    another tool or under other rules often stands in one of these. A given box is compared with the box that
    the baseline, which hasn't seen the image, finds from the pixels; a baseline that is wrong in the same way
    everywhere does no harm.

    Scoring: one minus the difference between the group and all other images in the mean logarithm of given
    over found side, each class compared with itself, over a quarter.

    Flagged: groups of `min_images` or more whose difference is `min_difference` or more (4 % of the side, 8 %
    of the area), at the lower end of its interval (Welch's t on the means of images, `max_chance` shared out
    among all groups). Of two groups of the same images one is flagged.

    Fix: none. Agree on a rule, and look at the group's boxes.

    Reference: Welch, "The generalization of 'Student's' problem when several different population variances
    are involved", Biometrika 34, 1947.
    """
    ratio = _ratios(objects, box_regressions)
    means = ratio.groupby(objects.loc[ratio.index, "sample_id"]).mean()
    if len(means) < 2 * min_images:
        raise Unavailable(f"{len(means)} images have boxes to compare; it needs {2 * min_images} at least")
    found = dict(_groups(images.loc[means.index], min_images))
    values = means.to_numpy(dtype=np.float64)
    rows = [_difference(values, members, max_chance / max(len(found), 1)) for members in found.values()]
    index = pd.Index(list(found), dtype=object)
    table = pd.DataFrame(rows, index=index, columns=["images", "difference", "low"]).astype(float)
    kept: list[str] = []
    for name in (
        table["low"].sort_values(ascending=False).index[: int((table["low"] >= min_difference).sum())]
    ):
        if not any(_same_images(found[name], found[other]) for other in kept):
            kept.append(name)
    evidence = table.loc[kept].assign(message=[_message(*row) for row in table.loc[kept].to_numpy().tolist()])
    return Outcome(
        score=(1 - table["difference"].abs() / _WORST).clip(0, 1),
        flagged=pd.Series(index.isin(kept), index=index, dtype=bool),
        evidence=evidence,
    )


def _ratios(objects: pd.DataFrame, box_regressions: pd.DataFrame) -> pd.Series[float]:
    """Logarithm of given over found side of each box, less the median of its class."""
    given = objects[sound_boxes(objects)]
    found = box_regressions.reindex(given.index)[list(CORNERS)].to_numpy(dtype=np.float64)
    own = given[list(CORNERS)].to_numpy(dtype=np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.log((own[:, 2:] - own[:, :2]) / (found[:, 2:] - found[:, :2])).mean(1)
    known = pd.Series(ratio, index=given.index)
    known = known[np.abs(known) <= _FARTHEST]
    return known - known.groupby(given.loc[known.index, "name"]).transform("median")


def _groups(images: pd.DataFrame, min_images: int) -> Iterator[tuple[str, Bools]]:
    """Name and members of each split, folder and size that has enough images, and leaves enough."""
    folder = pd.Series(images.index.astype(str), index=images.index).str.rpartition("/")[0]
    size = images["width"].astype(str) + " x " + images["height"].astype(str)
    for kind, values in (("split", images["split"]), ("folder", folder), ("size", size)):
        counts = values.value_counts()
        for level in counts.index[(counts >= min_images) & (counts <= len(images) - min_images)]:
            yield f"{kind} {level}", (values == level).to_numpy(dtype=bool)


def _difference(values: Doubles, members: Bools, chance: float) -> tuple[float, float, float]:
    """Number of images, difference to the others, and the end of its interval that is nearer to 0."""
    from scipy.stats import t

    one, other = values[members], values[~members]
    parts = one.var(ddof=1) / len(one), other.var(ddof=1) / len(other)
    error = float(np.sqrt(sum(parts)))
    freedom = sum(parts) ** 2 / max(parts[0] ** 2 / (len(one) - 1) + parts[1] ** 2 / (len(other) - 1), 1e-300)
    difference = float(one.mean() - other.mean())
    margin = float(t.ppf(1 - chance / 2, max(freedom, 1.0))) * error
    return len(one), difference, max(abs(difference) - margin, 0.0)


def _same_images(one: Bools, other: Bools) -> bool:
    """Whether two groups are of mostly the same images, or one holds what the other leaves."""
    shared = (one == other).mean()
    return bool(shared > 0.8 or shared < 0.2)


def _message(n: float, difference: float, low: float) -> str:
    how = "wider and higher" if difference > 0 else "narrower and lower"
    return (
        f"The boxes of {n:,.0f} images are {abs(np.expm1(difference)):.0%} {how} around their objects than "
        f"those of the other images, at least {abs(np.expm1(low)):.0%}."
    )
