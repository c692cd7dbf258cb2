"""BOX: boxes of odd sizes, and groups of images with tighter or looser ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from dataaudit.checks.box_neighbors import sound_boxes
from dataaudit.checks.box_sizes import Sizes, is_cut, shapes
from dataaudit.checks.rarity import error_chances
from dataaudit.errors import Unavailable
from dataaudit.registry import check
from dataaudit.types import CORNERS, Outcome

__all__ = ["odd_box_size"]

Doubles = np.ndarray[Any, np.dtype[np.float64]]
Ints = np.ndarray[Any, np.dtype[np.int64]]
Bools = np.ndarray[Any, np.dtype[np.bool_]]

_PRIOR = 1 / 1000
_REACH = 3.0
"""Wrong sizes and shapes may be off by this in the logarithm, a factor of 20, either way."""
_LEAST_OBJECTS = 30
_MOST_FREEDOM = 10.0
"""No dataset is believed to have a normal distribution's short tail, however alike its middle is to one."""


@check("BOX012", level="object")
def odd_box_size(objects: pd.DataFrame, *, min_probability: float = 0.5) -> Outcome:
    """The box has a size or shape that is far from those of its class.

    Boxes are described by two logarithms together: of their side, as a share of the image's, and of width
    over height; classes by a t distribution of these, drawn towards all classes where they have few objects.

    Scoring: one minus the probability.

    Probability: the distances from the classes have a tail that is as long as the median and the ninth decile
    of this dataset say; wrong boxes are off by any factor up to 20, and how many there are is estimated from
    what the tail can't explain. A dataset with objects of all sizes so has few findings or none. Boxes that
    end at the border of the image, are truncated or are occluded may be of larger objects: of the sizes that
    these may have, the one nearest to the class counts.

    Flagged: where that is at least `min_probability`.

    Fix: none. Look at it: the box may be on a part of the object or on several, or the class is another.
    """
    sound = sound_boxes(objects) & objects["image_width"].notna().to_numpy()
    kept = objects[sound]
    if len(kept) < _LEAST_OBJECTS:
        raise Unavailable(f"{len(kept)} boxes say little about sizes; it needs {_LEAST_OBJECTS}")
    size = kept[["image_width", "image_height"]].to_numpy(dtype=np.float64)
    values = shapes(kept[list(CORNERS)].to_numpy(dtype=np.float64), size)
    names, known = pd.factorize(kept["name"], sort=True)
    sizes = Sizes.fit(values, names, len(known))
    cut = is_cut(kept)
    away = sizes.distances(values, names, cut)
    usual = _usual(away, np.asarray(cut.any(1))) * len(kept)
    area = np.pi * np.sqrt(np.linalg.det(sizes.spread))
    wrong = (area / (2 * _REACH) ** 2)[names]
    chance = error_chances(usual, wrong, n=len(kept), prior=_PRIOR)
    flagged = chance >= min_probability
    at = np.flatnonzero(flagged)
    table = pd.DataFrame(values).groupby(names).quantile(np.array([0.05, 0.95]))
    usually = table.to_numpy().reshape(-1, 2, 2)
    messages = [_message(values[row], usually[names[row]], str(known[names[row]])) for row in at]
    evidence = pd.DataFrame({"message": messages, "distance": np.sqrt(away[at])}, index=kept.index[at])
    score = pd.Series(1 - chance, index=kept.index)
    return Outcome(
        score=score, flagged=pd.Series(flagged, index=kept.index), probability=1 - score, evidence=evidence
    )


def _usual(away: Doubles, cut: Bools) -> Doubles:
    """(n,) density of the squared distances, with a tail fitted to median and ninth decile."""
    density = np.zeros(len(away))
    for group in (cut, ~cut):
        own = away[group] if group.sum() >= _LEAST_OBJECTS else away
        middle, far = np.quantile(own, [0.5, 0.9])
        freedom = _freedom(float(far / max(middle, 1e-12)))
        scale = max(float(middle), 1e-12) / (freedom * (2 ** (2 / freedom) - 1))
        here = 1 + away[group] / (freedom * scale)
        density[group] = here ** (-freedom / 2 - 1) / (2 * scale)
    return density


def _freedom(ratio: float) -> float:
    """Degrees of freedom of a bivariate t distribution by the ninth decile over the median of its squares."""
    low, high = 1.5, _MOST_FREEDOM
    for _ in range(60):
        middle = (low * high) ** 0.5
        found = np.expm1(2 / middle * np.log(10)) / np.expm1(2 / middle * np.log(2))
        low, high = (middle, high) if found > ratio else (low, middle)
    return low


def _message(value: Doubles, usually: Doubles, name: str) -> str:
    side, shape = np.exp(value)
    low, high = np.exp(usually)
    return (
        f"Its area is {side**2:.2%} of the image and it is {shape:.2g} times as wide as high; nine in ten "
        f"{name!r} have {low[0] ** 2:.2%} to {high[0] ** 2:.2%} and {low[1]:.2g} to {high[1]:.2g}."
    )
