"""BOX: what is wrong with a box or its file by itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from dataaudit.checks.box_fixes import BoxFixes
from dataaudit.errors import Unavailable
from dataaudit.metrics import box_area, box_intersection
from dataaudit.registry import check
from dataaudit.types import CORNERS, Outcome, Problem

__all__ = ["annotation_problem", "box_outside_image", "declared_size_differs", "degenerate_box"]

Doubles = np.ndarray[Any, np.dtype[np.float64]]
Bools = np.ndarray[Any, np.dtype[np.bool_]]

_NOTE = 0.6
_HARDLY_VISIBLE = 0.2
_QUARTER_TURNS = (5, 6, 7, 8)


@check("BOX001", level="object")
def annotation_problem(
    problems: tuple[Problem, ...], labels: pd.DataFrame, images: pd.DataFrame, task: str
) -> Outcome:
    """Something in the annotation files can't be used as it is written.

    Scoring: 0 where an annotation is lost or can't be trusted, 0.6 for what may be meant, such as an image
    without labels.

    Probability: 1 for the first, unknown for the second.

    Flagged: every one of the first; of the second one of each kind, which says how many there are. Boxes
    whose coordinates can't be read are `BOX007`'s.

    Fix: none. The message says where it stands in which file.
    """
    if task != "detection":
        raise Unavailable("the dataset has no boxes")
    unreadable = _unreadable(labels)
    own = [problem for problem in problems if problem.label_id not in unreadable]
    count: dict[str, int] = {}
    for problem in own:
        count[problem.kind] = count.get(problem.kind, 0) + 1
    rows: dict[str, tuple[Any, ...]] = {}
    noted: set[str] = set()
    for problem in own:
        item = problem.label_id
        if item is None or item not in labels.index or item in rows:
            item = _unique(f"{problem.locator}:{problem.kind}", rows)
        error, first = problem.severity == "error", problem.kind not in noted
        message = problem.message
        if not error and first and count[problem.kind] > 1:
            message += f" There are {count[problem.kind] - 1:,} more like it ({problem.kind})."
        sample_id = problem.sample_id if problem.sample_id in images.index else None
        rows[item] = (message, sample_id, str(problem.locator), problem.kind, error, error or first)
        if not error:
            noted.add(problem.kind)
    columns = ["message", "sample_id", "place", "kind", "error", "flagged"]
    table = pd.DataFrame.from_dict(rows, orient="index", columns=columns)
    # pandas reads None among texts as NaN
    table["sample_id"] = table["sample_id"].astype(object).where(table["sample_id"].notna(), None)
    lost = table.pop("error").astype(bool)
    return Outcome(
        score=lost.map({True: 0.0, False: _NOTE}).astype(float),
        flagged=table.pop("flagged").astype(bool),
        probability=lost.map({True: 1.0, False: np.nan}).astype(float),
        evidence=table,
    )


def _unreadable(labels: pd.DataFrame) -> set[str]:
    """The labels whose box isn't made of finite numbers."""
    corners = labels[list(CORNERS)].to_numpy(dtype=np.float64)
    return set(labels.index[~np.isfinite(corners).all(1)])


def _unique(name: str, taken: Mapping[str, Any]) -> str:
    if name not in taken:
        return name
    number = 2
    while f"{name}#{number}" in taken:
        number += 1
    return f"{name}#{number}"


@check("BOX006", level="object")
def box_outside_image(
    objects: pd.DataFrame,
    labels: pd.DataFrame,
    images: pd.DataFrame,
    units: str,
    *,
    tolerance: float = 1.0,
) -> Outcome:
    """The box reaches outside its image.

    Scoring: the share of the box's area that is inside the image.

    Probability: 1. Where most boxes at the border reach over it, the dataset draws the hidden parts of
    objects, too: then it is 1 for boxes of which next to nothing is inside, and 0 for others.

    Flagged: boxes that reach outside by more than `tolerance` pixels, which is left for rounding and for
    formats that count from 1, unless that is meant. An object that is marked as truncated may reach out as
    far as a fifth of its area stays inside.

    Fix: cut the box off at the border; remove it where nothing of it is inside.
    """
    corners = objects[list(CORNERS)].to_numpy(dtype=np.float64)
    size = objects[["image_width", "image_height"]].to_numpy(dtype=np.float64)
    with np.errstate(invalid="ignore"):
        known = np.isfinite(np.concatenate([corners, size], axis=1)).all(1)
        known &= (corners[:, 2:] > corners[:, :2]).all(1)
    kept, corners, size = objects[known], corners[known], size[known]
    frame = np.concatenate([np.zeros_like(size), size], axis=1)
    inside = box_intersection(corners, frame) / box_area(corners)
    over = np.maximum(-corners[:, :2], corners[:, 2:] - size).max(1, initial=0)
    out = over > tolerance
    meant = (inside > _HARDLY_VISIBLE) & (
        kept["truncated"].to_numpy(dtype=bool)
        | _hidden_parts_are_drawn(corners, size, over, inside, tolerance)
    )
    flagged = out & ~meant
    fixes = BoxFixes(labels, images, units)
    clipped = np.concatenate([np.maximum(corners[:, :2], 0), np.minimum(corners[:, 2:], size)], axis=1)
    rows: dict[str, tuple[Any, ...]] = {}
    found = {}
    box_like = (kept["geometry"] == "box").to_numpy()
    for at in np.flatnonzero(flagged).tolist():
        item = str(kept.index[at])
        gone = inside[at] <= 0
        rows[item] = (_outside(inside[at], over[at]), *([np.nan] * 4 if gone else clipped[at].tolist()))
        if gone:
            found[item] = fixes.remove(item)
        elif box_like[at]:
            found[item] = fixes.move(item, clipped[at].tolist())
    return Outcome(
        score=pd.Series(np.clip(inside, 0, 1), index=kept.index),
        flagged=pd.Series(flagged, index=kept.index),
        probability=pd.Series(flagged.astype(float), index=kept.index),
        evidence=pd.DataFrame.from_dict(rows, orient="index", columns=["message", *CORNERS]),
        fixes=found,
    )


def _hidden_parts_are_drawn(
    corners: Doubles, size: Doubles, over: Doubles, inside: Doubles, tolerance: float
) -> bool:
    """Whether most boxes at the border reach over it, as where whole objects are drawn, seen or not."""
    margin = tolerance + 0.005 * size.max(1, initial=0)
    at_border = over >= -margin
    out = (over > tolerance) & (inside > _HARDLY_VISIBLE)
    # Boxes of a wrong size or unit are also beside the image, which those of objects in it aren't
    beside = int(((over > tolerance) & (inside <= 0)).sum())
    return bool(out.sum() >= 20 and out.sum() > 0.5 * at_border.sum() and beside <= 0.01 * out.sum())


def _outside(inside: float, over: float) -> str:
    if inside <= 0:
        return "The box lies outside the image altogether."
    pixels = f"{over:.0f} pixel{'' if round(over) == 1 else 's'}"
    return f"The box reaches {pixels} outside the image; {inside:.1%} of it is inside."


@check("BOX007", level="object")
def degenerate_box(
    objects: pd.DataFrame,
    labels: pd.DataFrame,
    images: pd.DataFrame,
    units: str,
    problems: tuple[Problem, ...] = (),
    *,
    min_pixels: float = 1.0,
) -> Outcome:
    """The box can't hold an object: it is inverted, has no area, or isn't made of numbers.

    Scoring: 0 for boxes with coordinates that aren't numbers and for those without an area, 0.1 for inverted
    ones, 0.2 for those thinner than `min_pixels`, 1 for all others.

    Probability: one minus the score; thin boxes may be of something thin.

    Flagged: all with a score below 1.

    Fix: exchange the corners of an inverted box, where that gives one with an area in the image; remove the
    others.
    """
    corners = objects[list(CORNERS)].to_numpy(dtype=np.float64)
    given = labels[list(CORNERS)].to_numpy(dtype=np.float64)
    unread = ~np.isfinite(given).all(1)
    sides = given[:, 2:] - given[:, :2]
    with np.errstate(invalid="ignore"):
        inverted = ~unread & (sides < 0).any(1)
        empty = ~unread & ~inverted & (sides == 0).any(1)
        thin = ~unread & ~inverted & ~empty & ((corners[:, 2:] - corners[:, :2]) < min_pixels).any(1)
    turned = np.concatenate(
        [np.minimum(corners[:, :2], corners[:, 2:]), np.maximum(corners[:, :2], corners[:, 2:])], axis=1
    )
    usable = _usable(turned, objects, min_pixels)
    flagged = unread | inverted | empty | thin
    value = np.select([unread | empty, inverted, thin], [0.0, 0.1, 0.2], 1.0)
    said = {problem.label_id: problem.message for problem in problems}
    fixes = BoxFixes(labels, images, units)
    rows: dict[str, tuple[Any, ...]] = {}
    found = {}
    for at in np.flatnonzero(flagged).tolist():
        item = str(objects.index[at])
        turn = bool(inverted[at] and usable[at])
        message = _degenerate(given[at], unread[at], inverted[at], corners[at])
        message = said.get(item, message) if unread[at] else message
        rows[item] = (message, *(turned[at].tolist() if turn else [np.nan] * 4))
        if not turn:
            found[item] = fixes.remove(item)
        elif objects["geometry"].iloc[at] == "box":
            found[item] = fixes.move(item, turned[at].tolist())
    score = pd.Series(value, index=objects.index)
    return Outcome(
        score=score,
        flagged=pd.Series(flagged, index=objects.index),
        probability=1 - score,
        evidence=pd.DataFrame.from_dict(rows, orient="index", columns=["message", *CORNERS]),
        fixes=found,
    )


def _usable(corners: Doubles, objects: pd.DataFrame, min_pixels: float) -> Bools:
    """(n,) whether each box has an area, most of it in the image."""
    size = objects[["image_width", "image_height"]].to_numpy(dtype=np.float64)
    frame = np.concatenate([np.zeros_like(size), size], axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        inside = box_intersection(corners, frame) / box_area(corners)
        return np.asarray(((corners[:, 2:] - corners[:, :2]) >= min_pixels).all(1) & (inside > 0.5))


def _degenerate(given: Doubles, unread: bool, inverted: bool, pixels: Doubles) -> str:
    x1, y1, x2, y2 = given.tolist()
    if unread:
        return f"The box ({x1:g}, {y1:g}, {x2:g}, {y2:g}) has coordinates that aren't finite numbers."
    if inverted:
        ends = [
            f"{low} ({a:g}) is greater than {high} ({b:g})"
            for low, high, a, b in (("x1", "x2", x1, x2), ("y1", "y2", y1, y2))
            if a > b
        ]
        return f"The box is inverted: {' and '.join(ends)}."
    width, height = pixels[2] - pixels[0], pixels[3] - pixels[1]
    if x1 == x2 or y1 == y2:
        return f"The box has no area: it is {x2 - x1:g} wide and {y2 - y1:g} high."
    return f"The box is {width:.2g} x {height:.2g} pixels, thinner than a pixel."


@check("BOX015", level="image")
def declared_size_differs(
    images: pd.DataFrame, labels: pd.DataFrame, image_properties: pd.DataFrame, task: str, units: str
) -> Outcome:
    """The annotations give another size for the image than it has.

    Scoring: the smaller over the larger of the two widths, times the same of the heights. Images of which
    either size isn't known aren't looked at.

    Probability: 1; it is a fact, though boxes that fit the image as it is may still be right.

    Flagged: every image whose sizes differ. The message says how: width and height exchanged, as by a camera
    held upright or a turned file, scaled, or another picture.

    Fix: none. Boxes drawn at the declared size have to be scaled or turned; the message says whether they
    reach outside the image as it is.
    """
    if task != "detection":
        raise Unavailable("the dataset has no boxes")
    sizes = [_numbers(images[name]) for name in ("width", "height", "declared_width", "declared_height")]
    width, height, said_width, said_height = sizes
    known = np.logical_and.reduce([each > 0 for each in sizes])
    if not known.any():
        raise Unavailable("the annotations don't give the sizes of images")
    score = np.ones(len(images))
    with np.errstate(invalid="ignore", divide="ignore"):
        for real, said in ((width, said_width), (height, said_height)):
            score *= np.where(known, np.minimum(real, said) / np.maximum(real, said), 1)
    flagged = known & ((width != said_width) | (height != said_height))
    farthest = _farthest(images, labels) if units == "pixels" else None
    turn = image_properties["orientation"].reindex(images.index).isin(_QUARTER_TURNS).to_numpy()
    rows = np.flatnonzero(flagged)
    messages = [
        _sizes_differ(
            (width[at], height[at]),
            (said_width[at], said_height[at]),
            bool(turn[at]),
            None if farthest is None else farthest[at],
        )
        for at in rows.tolist()
    ]
    index = images.index[known]
    return Outcome(
        score=pd.Series(score[known], index=index),
        flagged=pd.Series(flagged[known], index=index),
        probability=pd.Series(flagged[known].astype(float), index=index),
        evidence=pd.DataFrame({"message": messages}, index=images.index[rows]),
    )


def _numbers(column: pd.Series[Any]) -> Doubles:
    return np.asarray(column.astype("Float64").to_numpy(dtype=np.float64, na_value=np.nan))


def _farthest(images: pd.DataFrame, labels: pd.DataFrame) -> Doubles:
    """(n, 2) right and lower end of the boxes of each image, NaN where it has none."""
    ends = labels.groupby("sample_id")[["x2", "y2"]].max()
    return np.asarray(ends.reindex(images.index).to_numpy(dtype=np.float64))


def _sizes_differ(
    real: tuple[float, float], said: tuple[float, float], turned: bool, farthest: Doubles | None
) -> str:
    text = f"The annotations say {said[0]:.0f} x {said[1]:.0f}, the image is {real[0]:.0f} x {real[1]:.0f}"
    ratio = (said[0] / real[0], said[1] / real[1])
    if said == real[::-1]:
        text += ": width and height are exchanged"
        text += ", as the image is without its EXIF orientation" if turned else ""
    elif abs(ratio[0] / ratio[1] - 1) < 0.01:
        text += f": scaled by {ratio[0]:.3g}"
    elif abs(said[0] / real[1] / (said[1] / real[0]) - 1) < 0.01:
        text += f": turned and scaled by {said[0] / real[1]:.3g}"
    else:
        text += ": another shape, so perhaps another picture"
    if farthest is None or np.isnan(farthest).any():
        return f"{text}."
    out = farthest[0] > real[0] + 1 or farthest[1] > real[1] + 1
    return (
        f"{text}. Its boxes {'reach outside the image as it is' if out else 'lie inside the image as it is'}."
    )
