"""BOX: copies of one picture that are annotated differently."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from dataaudit.checks.box_fixes import BoxFixes, new_object_id
from dataaudit.checks.box_neighbors import sound_boxes
from dataaudit.checks.box_regions import Regions
from dataaudit.checks.box_support import support
from dataaudit.errors import Unavailable
from dataaudit.metrics import box_iou
from dataaudit.registry import check
from dataaudit.signals.objects import image_sizes
from dataaudit.types import CORNERS, Fix, Outcome

__all__ = ["annotated_differently"]

Doubles = np.ndarray[Any, np.dtype[np.float64]]

_ROUNDING = 0.003
"""Edges may differ by this share of the image's side, however small the object is."""
_CLOSE = 0.02
"""And by this share of the object's."""
_COPIES_AT_MOST = 12
"""A picture is compared with this many copies of it."""
_SAME_OBJECT = 0.5
_LEAST_IOU = 0.1
_MIN_CORRELATION = 0.995
_BETTER = 0.1
_CLEARLY_OFF = 0.7
"""Copies of other bytes may be moved by a little; boxes in them differ where the IoU is below this."""


@check("BOX013", level="object")
def annotated_differently(
    objects: pd.DataFrame,
    images: pd.DataFrame,
    labels: pd.DataFrame,
    units: str,
    near_duplicates: pd.Series[int] | None = None,
    thumbnails: pd.DataFrame | None = None,
    detections: pd.DataFrame | None = None,
) -> Outcome:
    """Copies of the same picture have different boxes.

    The boxes of each two copies are matched one to one, by IoU, as shares of width and height, so that copies
    may have different sizes.

    Scoring: 1 where a copy has the same box, else half of the IoU with its match there, 0 where it has none
    or one of another class; the median over several copies. For copies of other bytes half of that, plus one
    half. Images without a copy have score 1.

    Probability: the share of the copies that have another box, this one counted as one that hasn't: each copy
    is as likely to be right. Of copies of other bytes it isn't known.

    Flagged: boxes that more than half of the other copies have elsewhere, not at all, or as another class;
    and boxes that most of three or more files of the same bytes have, where one of them lacks it. Edges in
    files of the same bytes may differ by 2 % of the object's side and 0.3 % of the image's. Copies of other
    bytes (another size or compression) are compared where their thumbnails correlate almost fully, and are
    flagged below an IoU of 0.7 where the pixels within the boxes are the same too: in a film things move.

    Fix: where at least two other copies agree, what they say: their class, their box, or that there is no
    such object. Of two copies the box of the other one, where detections lie on it better
    (confidence times IoU higher by 0.1); else a person has to look which one is right.
    """
    sets = list(_sets(images, near_duplicates, thumbnails))
    if not sets:
        raise Unavailable("no picture is there more than once")
    copies = _Copies(objects, images, {sample_id for _, members in sets for sample_id in members})
    found: list[_Difference] = []
    for number, (exact, members) in enumerate(sets, start=1):
        found += copies.differences(members, f"BOX013-{number}", exact=exact)
    if detections is not None:
        found = _decided(found, objects, detections)
    return _outcome(found, objects, BoxFixes(labels, images, units))


def _decided(found: list[_Difference], objects: pd.DataFrame, detections: pd.DataFrame) -> list[_Difference]:
    """The differences, those that two copies leave open decided by what detections lie on."""
    at = [number for number, each in enumerate(found) if each.op is None and each.box is not None]
    rows = objects.loc[[found[number].item for number in at]]
    there = np.array([found[number].box for number in at], dtype=np.float64).reshape(-1, 4)
    here = rows[list(CORNERS)].to_numpy(dtype=np.float64)
    on_here, on_there = (
        support(rows["sample_id"], rows["name"], corners, detections, min_iou=_SAME_OBJECT)
        for corners in (here, there)
    )
    better = set(np.array(at, dtype=np.int64)[on_there > on_here + _BETTER].tolist())
    return [replace(each, op="move") if number in better else each for number, each in enumerate(found)]


def _outcome(found: list[_Difference], objects: pd.DataFrame, make: BoxFixes) -> Outcome:
    new = [each.item for each in found if each.op == "add"]
    index = pd.Index([*objects.index, *dict.fromkeys(new)], dtype=object)
    score, chance = pd.Series(1.0, index=index), pd.Series(0.0, index=index)
    rows: dict[str, tuple[Any, ...]] = {}
    fixes: dict[str, Fix] = {}
    is_box = objects["geometry"] == "box"
    for each in found:
        score[each.item] = min(score[each.item], each.score)
        if each.item in rows:
            continue
        chance[each.item] = each.probability
        box = [np.nan] * 4 if each.box is None or each.op is None else each.box.tolist()
        name = each.name if each.op in ("relabel", "add") else None
        rows[each.item] = (each.message, name, each.group, each.sample_id, *box)
        if each.op == "relabel":
            fixes[each.item] = make.relabel(each.item, each.name)
        elif each.op == "remove":
            fixes[each.item] = make.remove(each.item)
        elif each.op == "add" and each.box is not None:
            fixes[each.item] = make.add(each.sample_id, each.name, each.box.tolist())
        elif each.op == "move" and each.box is not None and is_box[each.item]:
            fixes[each.item] = make.move(each.item, each.box.tolist())
    columns = ["message", "suggested", "group", "sample_id", *CORNERS]
    return Outcome(
        score=score,
        flagged=pd.Series(score.index.isin(list(rows)), index=score.index),
        probability=chance,
        evidence=pd.DataFrame.from_dict(rows, orient="index", columns=columns),
        fixes=fixes,
    )


def _sets(
    images: pd.DataFrame, near_duplicates: pd.Series[int] | None, thumbnails: pd.DataFrame | None
) -> Iterator[tuple[bool, list[str]]]:
    """Whether the files are the same, and the sample ids, of each set of copies with two or more."""
    digests = images["digest"].dropna()
    for _, same in digests[digests.duplicated(keep=False)].groupby(digests, sort=False):
        yield True, same.index.tolist()[:_COPIES_AT_MOST]
    if near_duplicates is None or thumbnails is None:
        return
    first = near_duplicates[~images["digest"].reindex(near_duplicates.index).duplicated()]
    first = first[first.index.isin(thumbnails.index)]
    for _, alike in first[first.duplicated(keep=False)].groupby(first, sort=False):
        ids = alike.index.tolist()[:_COPIES_AT_MOST]
        values = thumbnails.loc[ids].to_numpy(dtype=np.float64)
        values = values - values.mean(1, keepdims=True)
        values /= np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)
        close = values @ values[0] >= _MIN_CORRELATION
        members = [sample_id for sample_id, near in zip(ids, close, strict=True) if near]
        if len(members) > 1:
            yield False, members


@dataclass(frozen=True, kw_only=True)
class _Difference:
    """A box that most other copies don't have, or one that they have and the copy lacks (`op` is "add")."""

    item: str
    sample_id: str
    group: str
    score: float
    probability: float
    message: str
    op: str | None = None
    name: str = ""
    box: Doubles | None = None


@dataclass(frozen=True, kw_only=True)
class _Own:
    """The objects of one image.

    Attributes:
        ids: of the labels.
        names: classes.
        boxes: (n, 4) corners as shares of the image's sides.
        skipped: (m, 4) the same of crowds and regions to ignore.
        size: (4,) width, height, width and height of the image.
    """

    ids: list[str]
    names: list[str]
    boxes: Doubles
    skipped: Doubles
    size: Doubles


@dataclass(frozen=True, kw_only=True)
class _Match:
    """What another copy has in place of a box."""

    sample_id: str
    iou: float
    name: str | None
    box: Doubles | None
    same: bool


class _Copies:
    """Compares the objects of copies."""

    def __init__(self, objects: pd.DataFrame, images: pd.DataFrame, ids: set[str]) -> None:
        rows = objects[objects["sample_id"].isin(ids)]
        sizes = image_sizes(images.loc[sorted(ids)]).fillna(1.0)
        sound = pd.Series(sound_boxes(rows), index=rows.index)
        self._own: dict[str, _Own] = {}
        self._regions = Regions(images)
        by_sample = dict(list(rows.groupby("sample_id", sort=False)))
        for sample_id in ids:
            own = by_sample.get(sample_id, rows.iloc[:0])
            size = np.tile(sizes.loc[sample_id].to_numpy(dtype=np.float64), 2)
            self._own[sample_id] = _own(own, sound.loc[own.index].to_numpy(dtype=bool), size)

    def differences(self, members: list[str], group: str, *, exact: bool) -> Iterator[_Difference]:
        """Every box of these copies that more than half of the other copies don't have."""
        matches = {
            (one, other): _matched(self._own[one], self._own[other], other, exact=exact)
            for one in members
            for other in members
            if one != other
        }
        for one in members:
            others = [other for other in members if other != one]
            for row, item in enumerate(self._own[one].ids):
                found = [matches[one, other][row] for other in others]
                apart = [match for match in found if not match.same]
                if 2 * len(apart) <= len(others):
                    continue
                if exact or self._shown(one, row, apart[0]):
                    yield self._difference(one, row, item, found, group, exact=exact)
            if exact and len(others) > 1:
                yield from self._missing(one, others, matches, group)

    def _shown(self, sample_id: str, row: int, match: _Match) -> bool:
        box = self._own[sample_id].boxes[row]
        if match.box is not None:
            box = np.concatenate([np.minimum(box[:2], match.box[:2]), np.maximum(box[2:], match.box[2:])])
        return self._regions.same(sample_id, match.sample_id, box)

    def _difference(
        self, sample_id: str, row: int, item: str, found: list[_Match], group: str, *, exact: bool
    ) -> _Difference:
        own = self._own[sample_id]
        agreed = [1.0 if match.same else match.iou * (match.name == own.names[row]) / 2 for match in found]
        score = float(np.median(agreed))
        op, name, box = _by_majority(own.names[row], found)
        n_apart = sum(not match.same for match in found)
        return _Difference(
            item=item,
            sample_id=sample_id,
            group=group,
            score=score if exact else 0.5 + score / 2,
            probability=n_apart / (len(found) + 1) if exact else float("nan"),
            message=_message(own.names[row], found, exact=exact),
            op=op,
            name=name,
            box=None if box is None else box * own.size,
        )

    def _missing(
        self,
        sample_id: str,
        others: list[str],
        matches: dict[tuple[str, str], list[_Match]],
        group: str,
    ) -> Iterator[_Difference]:
        """Objects that most of three or more copies have and this one lacks."""
        for other in others[: len(others) // 2 + 1]:
            own = self._own[other]
            for row, name in enumerate(own.names):
                there = [matches[other, third][row] for third in others if third != other]
                boxes = [match.box for match in there if match.same and match.box is not None]
                n = len(boxes) + 1
                if matches[other, sample_id][row].box is not None or 2 * n <= len(others) or n < 2:
                    continue
                box = np.median([own.boxes[row], *boxes], axis=0) * self._own[sample_id].size
                yield _Difference(
                    item=new_object_id(sample_id, box.tolist()),
                    sample_id=sample_id,
                    group=group,
                    score=0.0,
                    probability=n / (len(others) + 1),
                    message=f"{n} of {len(others)} other files of the same bytes have a {name!r} here.",
                    op="add",
                    name=name,
                    box=box,
                )


def _own(rows: pd.DataFrame, sound: np.ndarray[Any, np.dtype[np.bool_]], size: Doubles) -> _Own:
    boxes = rows[list(CORNERS)].to_numpy(dtype=np.float64) / size
    skip = (rows["crowd"] | rows["ignore"]).to_numpy(dtype=bool)
    return _Own(
        ids=rows.index[sound].tolist(),
        names=rows["name"][sound].tolist(),
        boxes=boxes[sound],
        skipped=boxes[skip],
        size=size,
    )


def _matched(one: _Own, other: _Own, sample_id: str, *, exact: bool) -> list[_Match]:
    """What `other` has in place of each box of `one`: each of its boxes is taken once, the nearest first."""
    iou = box_iou(one.boxes[:, None], other.boxes[None])
    same_name = np.array(one.names, dtype=object)[:, None] == np.array(other.names, dtype=object)[None]
    taken: dict[int, int] = {}
    left = np.where(same_name, iou >= _LEAST_IOU, iou >= _SAME_OBJECT)
    # A box of the same class goes before one of another class that is nearer
    for at in np.argsort(-(iou + same_name), axis=None, kind="stable").tolist():
        row, column = divmod(at, max(len(other.names), 1))
        if left[row, column]:
            taken[row] = column
            left[row, :] = left[:, column] = False
    matches = []
    for row, name in enumerate(one.names):
        if row not in taken:
            skipped = _covered(one.boxes[row], other.skipped)
            matches.append(_Match(sample_id=sample_id, iou=0.0, name=None, box=None, same=skipped))
            continue
        column = taken[row]
        near = _agree(one.boxes[row], other.boxes[column], exact=exact)
        there = other.names[column]
        matches.append(
            _Match(
                sample_id=sample_id,
                iou=float(iou[row, column]),
                name=there,
                box=other.boxes[column],
                same=near and there == name,
            )
        )
    return matches


def _agree(one: Doubles, other: Doubles, *, exact: bool) -> bool:
    if not exact:
        return bool(box_iou(one, other) >= _CLEARLY_OFF)
    sides = np.tile((one[2:] - one[:2] + other[2:] - other[:2]) / 2, 2)
    return bool((np.abs(one - other) <= _CLOSE * sides + _ROUNDING).all())


def _covered(box: Doubles, skipped: Doubles) -> bool:
    """Whether the middle of a box is in one of the boxes (n, 4) of crowds and regions to ignore."""
    middle = (box[:2] + box[2:]) / 2
    return bool(((skipped[:, :2] <= middle) & (middle <= skipped[:, 2:])).all(1).any())


def _by_majority(name: str, found: list[_Match]) -> tuple[str | None, str, Doubles | None]:
    """Operation, class and box that two or more, and most, of the other copies agree upon."""
    need = max(2, len(found) // 2 + 1)
    missing = sum(match.name is None for match in found)
    if missing >= need:
        return "remove", name, None
    names = pd.Series([match.name for match in found if match.name is not None], dtype=object)
    if not len(names):
        return None, name, None
    most = names.value_counts()
    if most.iloc[0] < need:
        # Of two copies detections may decide
        alone = len(found) == 1 and found[0].name == name
        return None, name, found[0].box if alone else None
    if most.index[0] != name:
        return "relabel", str(most.index[0]), None
    boxes = [match.box for match in found if match.name == name and match.box is not None]
    middle = np.median(boxes, axis=0)
    close = sum(_agree(box, middle, exact=True) for box in boxes)
    return ("move", name, middle) if close >= need else (None, name, None)


def _message(name: str, found: list[_Match], *, exact: bool) -> str:
    apart = [match for match in found if not match.same]
    match = apart[0]
    what = "has the same bytes" if exact else "shows the same picture"
    if match.name is None:
        text = f"{match.sample_id} {what} and has no {name!r} here"
    elif match.name != name:
        text = f"{match.sample_id} {what} and calls it {match.name!r} (IoU {match.iou:.2f})"
    else:
        text = f"{match.sample_id} {what} and has this {name!r} elsewhere (IoU {match.iou:.2f})"
    if len(found) > 1:
        text += f"; {len(apart)} of {len(found)} other copies differ"
    return f"{text}."
