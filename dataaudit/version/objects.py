"""What changed between two versions, object by object."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from dataaudit.metrics import best_pairs, box_iou, pairs_by_group
from dataaudit.types import CORNERS, FLAGS, Tables

__all__ = ["KINDS", "ObjectsDiff", "counted", "diff_objects"]

KINDS = ("relabeled", "moved", "moved and relabeled", "marked otherwise", "added", "removed")
OLD_CORNERS = tuple(f"old_{corner}" for corner in CORNERS)
COLUMNS = ("kind", "sample_id", "label_id", "before", "class", "old", "new", *OLD_CORNERS, *CORNERS, "iou")
_SAME_IOU = 0.5
"""From which IoU on a box may be another one's successor whatever its class."""
_NEAR_IOU = 0.1
"""The same for a box of the same class."""
_PAIRS_AT_ONCE = 5_000_000
_BONUS = 0.2
"""What the same class, and the same id, count for in a match, against the IoU."""

Ints = npt.NDArray[np.int64]
Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class ObjectsDiff:
    """The changes of objects in the images that both versions have.

    Attributes:
        changes: one row an object that changed; ``kind`` (one of "relabeled", "moved", "moved and
            relabeled", "marked otherwise", "added", "removed"), ``sample_id`` (in b; in a for a removed
            one), ``label_id`` (the same), ``before`` (the label id in a; None for an added one), ``class``
            (the old one where it changed), ``old`` and ``new`` (classes; for "marked otherwise" the flags
            that are set), the old corners ``old_x1`` to ``old_y2`` and the new ones ``x1`` to ``y2``, as they
            are in the files, and ``iou`` of the two.
        unchanged: how many objects are the same in both.
        units: of the corners, ``pixels`` or ``relative``.
    """

    changes: pd.DataFrame
    unchanged: int
    units: str

    @property
    def counts(self) -> dict[str, int]:
        """How many changes there are of each kind, the kinds that occur only."""
        return counted(self.changes, KINDS)

    @property
    def by_class(self) -> pd.DataFrame:
        """How many objects of each class (row) changed in which way (column)."""
        table = pd.crosstab(self.changes["class"], self.changes["kind"])
        return table[[kind for kind in KINDS if kind in table]].astype("int64")

    def to_dict(self) -> dict[str, Any]:
        """The difference ready for JSON."""
        by_class = self.by_class
        return {
            "counts": self.counts,
            "unchanged": self.unchanged,
            "units": self.units,
            "by_class": {str(name): row for name, row in by_class.to_dict(orient="index").items()},
            "changes": [_record(row) for row in self.changes.to_dict(orient="records")],
        }

    def lines(self, kind: str) -> Iterator[str]:
        """The changes of a kind as lines for a terminal."""
        rows = self.changes[self.changes["kind"] == kind]
        sides = (_texts(rows, OLD_CORNERS), _texts(rows, CORNERS))
        columns = (rows["sample_id"], rows["old"], rows["new"], rows["iou"], *sides)
        for sample_id, old, new, iou, old_box, box in zip(*columns, strict=True):
            if kind == "added":
                yield f"+ {sample_id}  {new} {box}"
            elif kind == "removed":
                yield f"- {sample_id}  {old} {old_box}"
            elif kind == "moved":
                yield f"{sample_id}  {new} {old_box} -> {box}  IoU {iou:.2f}"
            elif kind == "moved and relabeled":
                yield f"{sample_id}  {old} {old_box} -> {new} {box}  IoU {iou:.2f}"
            elif kind == "marked otherwise":
                yield f"{sample_id}  {box}  {old or 'no mark'} -> {new or 'no mark'}"
            else:
                yield f"{sample_id}  {old} -> {new}  {box}"


def _record(row: dict[Any, Any]) -> dict[str, Any]:
    old, new = ([row[name] for name in names] for names in (OLD_CORNERS, CORNERS))
    return {
        **{name: row[name] for name in ("kind", "sample_id", "label_id")},
        **{name: None if pd.isna(row[name]) else row[name] for name in ("before", "class", "old", "new")},
        "old_box": None if np.isnan(old).any() else old,
        "box": None if np.isnan(new).any() else new,
        "iou": None if np.isnan(row["iou"]) else round(row["iou"], 4),
    }


def _texts(rows: pd.DataFrame, names: tuple[str, ...]) -> list[str]:
    corners = rows[list(names)].to_numpy(dtype=np.float64)
    return [f"({', '.join(f'{corner:.6g}' for corner in row)})" for row in corners.tolist()]


def counted(changes: pd.DataFrame, kinds: Sequence[str]) -> dict[str, int]:
    """How many rows there are of each of `kinds`, those that occur only, in their order."""
    found = changes["kind"].value_counts()
    return {kind: int(found[kind]) for kind in kinds if kind in found}


def diff_objects(old: Tables, new: Tables, before: pd.Series[str], after: pd.Series[str]) -> ObjectsDiff:
    """What became of the objects of images that two states have in common.

    An object is the same where it has the class and the box; else the one that overlaps it most, counting for
    it that class or id are the same. Ids alone don't do: in many formats they are the numbers of lines.

    Args:
        old: the older state.
        new: the newer state, its corners in the same units.
        before: sample ids in `old`.
        after: the sample ids in `new` of the same images, in the same order.
    """
    left, right = _objects(old, before), _objects(new, after)
    a, b = _same(left, right)
    free_a = np.setdiff1d(np.arange(len(left)), a)
    free_b = np.setdiff1d(np.arange(len(right)), b)
    matched_a, matched_b = _matched(left, right, free_a, free_b)
    a, b = np.concatenate([a, matched_a]), np.concatenate([b, matched_b])
    pairs = _pair_rows(left.iloc[a], right.iloc[b])
    changed = pairs[pairs["kind"].notna()]
    gone = left.iloc[np.setdiff1d(free_a, matched_a)]
    come = right.iloc[np.setdiff1d(free_b, matched_b)]
    tables = [changed, _alone("added", come), _alone("removed", gone)]
    changes = pd.concat([table for table in tables if len(table)] or [changed], ignore_index=True)
    order = changes["kind"].map({kind: number for number, kind in enumerate(KINDS)})
    changes = changes.assign(order=order).sort_values(["order", "sample_id"], kind="stable")
    return ObjectsDiff(
        changes=changes.drop(columns="order").reset_index(drop=True),
        unchanged=len(pairs) - len(changed),
        units=new.units,
    )


def _objects(tables: Tables, samples: pd.Series[str]) -> pd.DataFrame:
    """The objects of some images by position, with the number of their image and the marks they bear."""
    numbers = pd.Series(np.arange(len(samples)), index=pd.Index(samples, dtype=object))
    labels = tables.labels[tables.labels["sample_id"].isin(numbers.index)]
    flags = labels[list(FLAGS)].to_numpy(dtype=bool)
    marks = np.full(len(labels), "", dtype=object)
    for row in np.flatnonzero(flags.any(axis=1)).tolist():
        marks[row] = ", ".join(flag for flag, is_set in zip(FLAGS, flags[row], strict=True) if is_set)
    found = labels[["sample_id", "name", *CORNERS]].astype({"sample_id": object, "name": object})
    image = numbers.reindex(labels["sample_id"]).to_numpy(dtype=np.int64)
    # Of a renamed image the labels have other ids: what counts is what follows the image's own
    own = [
        label_id[len(sample_id) :]
        for label_id, sample_id in zip(labels.index, labels["sample_id"], strict=True)
    ]
    return found.assign(label_id=labels.index.astype(object), image=image, own=own, marks=marks).reset_index(
        drop=True
    )


def _same(left: pd.DataFrame, right: pd.DataFrame) -> tuple[Ints, Ints]:
    """Positions of the objects that have class and box in common, copies of one another in their order."""
    found: list[pd.DataFrame] = []
    taken: Any
    for keys in (["image", "name", *CORNERS, "own"], ["image", "name", *CORNERS]):
        sides = []
        for side, table in (("a", left), ("b", right)):
            taken = np.concatenate([pair[side] for pair in found]) if found else []
            free = table[~table.index.isin(taken)]
            part = free[keys].assign(copy=free.groupby(keys, dropna=False).cumcount())
            part[side] = free.index
            sides.append(part)
        found.append(sides[0].merge(sides[1], on=[*keys, "copy"])[["a", "b"]])
    pairs = pd.concat(found, ignore_index=True)
    return pairs["a"].to_numpy(dtype=np.int64), pairs["b"].to_numpy(dtype=np.int64)


def _matched(left: pd.DataFrame, right: pd.DataFrame, free_a: Ints, free_b: Ints) -> tuple[Ints, Ints]:
    """Positions of the objects that changed, paired with what they became."""
    one, other = left.iloc[free_a], right.iloc[free_b]
    n_images = 1 + max(left["image"].max(), right["image"].max()) if len(left) and len(right) else 0
    n_pairs = np.bincount(one["image"], minlength=n_images) * np.bincount(other["image"], minlength=n_images)
    part = np.cumsum(n_pairs) // _PAIRS_AT_ONCE
    found = []
    for number in np.unique(part[n_pairs > 0]):
        mine, theirs = (np.flatnonzero(part[table["image"]] == number) for table in (one, other))
        a, b = _best(one.iloc[mine], other.iloc[theirs])
        found.append((free_a[mine[a]], free_b[theirs[b]]))
    nothing = np.empty(0, dtype=np.int64)
    return (
        np.concatenate([nothing, *(pair[0] for pair in found)]),
        np.concatenate([nothing, *(pair[1] for pair in found)]),
    )


def _best(one: pd.DataFrame, other: pd.DataFrame) -> tuple[Ints, Ints]:
    """Positions of the pairs, by IoU and what else they have in common."""
    a, b = pairs_by_group(one["image"].to_numpy(), other["image"].to_numpy())
    iou = _iou(one.iloc[a], other.iloc[b])
    same_class = one["name"].to_numpy()[a] == other["name"].to_numpy()[b]
    same_id = one["own"].to_numpy()[a] == other["own"].to_numpy()[b]
    likely = (iou >= _SAME_IOU) | (same_class & (iou >= _NEAR_IOU)) | (same_class & same_id)
    a, b, score = a[likely], b[likely], (iou + _BONUS * same_class + _BONUS * same_id)[likely]
    best = best_pairs(a, b, score)
    return a[best], b[best]


def _iou(one: pd.DataFrame, other: pd.DataFrame) -> Doubles:
    """IoU of the objects in the same rows; 0 where a box can't be read."""
    a, b = (table[list(CORNERS)].to_numpy(dtype=np.float64) for table in (one, other))
    return np.nan_to_num(box_iou(a, b))


def _pair_rows(before: pd.DataFrame, after: pd.DataFrame) -> pd.DataFrame:
    """One row a pair, its kind None where nothing changed."""
    before, after = before.reset_index(drop=True), after.reset_index(drop=True)
    old, new = before[list(CORNERS)].to_numpy(dtype=float), after[list(CORNERS)].to_numpy(dtype=float)
    moved = ~np.isclose(old, new, rtol=1e-6, atol=1e-6, equal_nan=True).all(axis=1)
    relabeled = (before["name"] != after["name"]).to_numpy()
    marked = (before["marks"] != after["marks"]).to_numpy() & ~moved & ~relabeled
    kind = np.full(len(before), None, dtype=object)
    for name, rows in (
        ("relabeled", relabeled & ~moved), ("moved", moved & ~relabeled),
        ("moved and relabeled", moved & relabeled), ("marked otherwise", marked),
    ):  # fmt: skip
        kind[rows] = name
    columns: dict[str, Any] = {
        "kind": kind,
        "before": before["label_id"],
        "class": before["name"],
        "old": before["name"].where(~marked, before["marks"]),
        "new": after["name"].where(~marked, after["marks"]),
        "iou": _iou(before, after),
    }
    return after.assign(**columns, **dict(zip(OLD_CORNERS, old.T, strict=True)))[list(COLUMNS)]


def _alone(kind: str, objects: pd.DataFrame) -> pd.DataFrame:
    """One row an object that has no counterpart."""
    names, nothing = objects["name"], pd.Series(None, index=objects.index, dtype=object)
    columns: dict[str, Any] = {"kind": kind, "class": names, "iou": np.nan}
    if kind == "added":
        columns |= {"before": nothing, "old": nothing, "new": names, **dict.fromkeys(OLD_CORNERS, np.nan)}
    else:
        columns |= {"before": objects["label_id"], "old": names, "new": nothing}
        columns |= {old: objects[corner] for old, corner in zip(OLD_CORNERS, CORNERS, strict=True)}
        columns |= dict.fromkeys(CORNERS, np.nan)
    return objects.assign(**columns)[list(COLUMNS)]
