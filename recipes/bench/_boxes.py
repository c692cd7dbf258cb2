"""Errors planted in boxes, with the truth, for the benches of objects."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from dataaudit.metrics import box_iou
from dataaudit.signals.objects import image_sizes
from dataaudit.types import CORNERS, Locator, Tables

KINDS = ("wrong class", "missing", "spurious", "shifted", "resized", "duplicate", "other duplicate", "split",
         "merged")  # fmt: skip
XY = list(CORNERS)


@dataclass(frozen=True, kw_only=True)
class Planted:
    """A dataset with errors of one kind.

    Attributes:
        tables: the dataset with the errors; boxes are in pixels.
        wrong: ids of the labels that are wrong; for "duplicate" and "split" those of the pairs, either of
            which may be flagged, are in `groups`.
        gone: objects that are missing: columns sample_id, name and corners.
        groups: of a label that is wrong together with others, the name of the group.
        pairs: of "merged", the label that stands for each object that is gone too.
        whole: of "merged", the boxes that those labels had of their own: columns as in `gone`.
    """

    tables: Tables
    wrong: frozenset[str]
    gone: pd.DataFrame
    groups: dict[str, str]
    pairs: tuple[str, ...] = ()
    whole: pd.DataFrame | None = None


def plant(tables: Tables, kind: str, *, share: float = 0.1, seed: int = 0) -> Planted:
    """Plant errors of one kind in a share of the objects.

    Args:
        tables: a detection dataset with sizes of its images.
        kind: one of `KINDS`.
        share: of the objects.
        seed: of all that is drawn.
    """
    rng = np.random.default_rng(seed)
    labels, sizes = _in_pixels(tables)
    sound = labels[~(labels["crowd"] | labels["ignore"]) & labels[XY].notna().all(axis=1)]
    if kind == "merged":
        return _merged(tables, labels, sound, sizes, share, rng)
    order = rng.permutation(len(sound))
    chosen = sound.index[np.sort(order[: max(round(share * len(sound)), 1)])]
    gone = labels.loc[chosen[:0]]
    groups: dict[str, str] = {}
    wrong: list[str] = list(chosen)
    if kind == "wrong class":
        counts = sound["name"].value_counts()
        for label_id in chosen:
            others = counts.drop(labels.at[label_id, "name"])
            labels.at[label_id, "name"] = rng.choice(others.index, p=others / others.sum())
    elif kind == "missing":
        gone, labels, wrong = labels.loc[chosen], labels.drop(index=chosen), []
    elif kind in ("shifted", "resized"):
        move, wrong = _shifted if kind == "shifted" else _resized, []
        for label_id in sound.index[order]:  # a box that fills its image can't be shifted; another is
            size = sizes.loc[labels.at[label_id, "sample_id"]].to_numpy()
            box = labels.loc[label_id, XY].to_numpy(dtype=float)
            new = move(box, size, rng)
            if len(wrong) < len(chosen) and 0.25 <= box_iou(box, new) <= 0.65:
                labels.loc[label_id, XY] = new
                wrong.append(label_id)
    elif kind == "spurious":
        labels, wrong = _spurious(labels, sound, sizes, len(chosen), rng)
    else:
        labels, wrong, groups = _doubled(labels, chosen, kind, sizes, rng)
    return _planted(tables, labels, wrong, gone, groups)


def _planted(
    tables: Tables, labels: pd.DataFrame, wrong: list[str], gone: pd.DataFrame, groups: dict[str, str]
) -> Planted:
    classes = tuple(sorted({*tables.classes, *labels["name"]}))
    made = replace(tables, labels=labels, classes=classes, units="pixels")
    return Planted(tables=made, wrong=frozenset(wrong), gone=gone[["sample_id", "name", *XY]], groups=groups)


def _in_pixels(tables: Tables) -> tuple[pd.DataFrame, pd.DataFrame]:
    sizes = image_sizes(tables.images)
    labels = tables.labels.copy()
    if tables.units == "relative":
        own = sizes.loc[labels["sample_id"]].to_numpy()
        labels[XY] = labels[XY].to_numpy() * np.tile(own, 2)
    return labels, sizes


def _until(draw: Callable[[], Any], fits: Callable[[Any], bool], times: int = 500) -> Any:
    for _ in range(times):
        found = draw()
        if fits(found):
            return found
    return found


def _shifted(box: Any, size: Any, rng: Any) -> Any:
    """The box somewhere beside its object: IoU from 0.25 to 0.65."""
    sides = box[2:] - box[:2]

    def draw() -> Any:
        corner = np.clip(box[:2] + rng.uniform(-0.7, 0.7, 2) * sides, 0, np.maximum(size - sides, 0))
        return np.concatenate([corner, corner + sides])

    return _until(draw, lambda new: 0.25 <= box_iou(box, new) <= 0.65)


def _resized(box: Any, size: Any, rng: Any) -> Any:
    """One or both sides from half to twice as long, about another centre: IoU from 0.25 to 0.65."""
    sides = box[2:] - box[:2]

    def draw() -> Any:
        longer = sides * np.where(rng.random(2) < 0.7, np.exp(rng.uniform(-0.9, 0.9, 2)), 1.0)
        corner = box[:2] + (sides - longer) * rng.random(2)
        return np.concatenate([np.maximum(corner, 0), np.minimum(corner + longer, size)])

    return _until(draw, lambda new: 0.25 <= box_iou(box, new) <= 0.65)


def _spurious(
    labels: pd.DataFrame, sound: pd.DataFrame, sizes: pd.DataFrame, n: int, rng: Any
) -> tuple[pd.DataFrame, list[str]]:
    """Boxes of the size and class of some object in another image, where no object is."""
    rows, ids = [], []
    boxes = {name: each[XY].to_numpy() for name, each in labels.groupby("sample_id")}
    for number in range(20 * n):
        if len(rows) == n:
            break
        row = sound.iloc[rng.integers(len(sound))].copy()
        relative = row[XY].to_numpy(dtype=float) / np.tile(sizes.loc[row["sample_id"]].to_numpy(), 2)
        sides = relative[2:] - relative[:2]
        for _ in range(500):
            sample_id = sizes.index[rng.integers(len(sizes))]
            corner = rng.random(2) * np.maximum(1 - sides, 0)
            box = np.concatenate([corner, corner + sides]) * np.tile(sizes.loc[sample_id].to_numpy(), 2)
            if box_iou(box, boxes.get(sample_id, np.zeros((1, 4)))).max() < 0.1:
                break
        else:
            continue
        row[XY] = box
        row["sample_id"] = sample_id
        row["locator"] = Locator(file=f"{sample_id}.planted", item=number)
        rows.append(row)
        ids.append(f"{sample_id}:planted-{number}")
    return _with(labels, rows, ids), ids


def _doubled(
    labels: pd.DataFrame, chosen: Any, kind: str, sizes: pd.DataFrame, rng: Any
) -> tuple[pd.DataFrame, list[str], dict[str, str]]:
    """Each chosen object twice, of one or two classes, or in two halves."""
    counts = labels["name"].value_counts()
    rows, ids, groups = [], [], {}
    for label_id in chosen:
        row = labels.loc[label_id].copy()
        box = row[XY].to_numpy(dtype=float)
        sides = box[2:] - box[:2]
        new = f"{label_id}:planted"
        if kind == "split":
            across = int(sides[1] > sides[0])
            cut = box[across] + sides[across] * rng.uniform(0.35, 0.65)
            first, second = box.copy(), box.copy()
            first[2 + across] = cut + 0.05 * sides[across]
            second[across] = cut - 0.05 * sides[across]
            labels.loc[label_id, XY] = first
            row[XY] = second
        else:
            row[XY] = box + np.tile(sides, 2) * rng.uniform(-0.06, 0.06, 4)
            row[["x1", "y1"]] = row[["x1", "y1"]].clip(lower=0)
            row[["x2", "y2"]] = np.minimum(
                row[["x2", "y2"]].to_numpy(dtype=float), sizes.loc[row["sample_id"]].to_numpy()
            )
            if kind == "other duplicate":
                others = counts.drop(row["name"])
                row["name"] = rng.choice(others.index, p=others / others.sum())
        row["locator"] = Locator(file=f"{label_id}.planted", item=1)
        rows.append(row)
        ids.append(new)
        groups |= {label_id: label_id, new: label_id}
    return _with(labels, rows, ids), list(groups), groups


def _merged(
    tables: Tables, labels: pd.DataFrame, sound: pd.DataFrame, sizes: pd.DataFrame, share: float, rng: Any
) -> Planted:
    """Two neighbours of a class under one box."""
    pairs = []
    for _, own in sound.groupby(["sample_id", "name"], sort=True):
        boxes, ids = own[XY].to_numpy(), list(own.index)
        for i in range(len(ids)):
            for j in range(i + 1, len(ids)):
                both = np.concatenate(
                    [np.minimum(boxes[i, :2], boxes[j, :2]), np.maximum(boxes[i, 2:], boxes[j, 2:])]
                )
                if min(box_iou(both, boxes[i]), box_iou(both, boxes[j])) > 0.25:
                    pairs.append((ids[i], ids[j], both))
    rng.shuffle(pairs)
    wrong: list[str] = []
    gone: list[str] = []
    for one, other, both in pairs:
        if len(wrong) < round(share * len(sound)) and not {one, other} & {*wrong, *gone}:
            wrong.append(one)
            gone.append(other)
            labels.loc[one, XY] = both
    made = _planted(tables, labels.drop(index=gone), wrong, labels.loc[gone], {})
    return replace(made, pairs=tuple(wrong), whole=sound.loc[wrong, ["sample_id", "name", *XY]])


def _with(labels: pd.DataFrame, rows: list[Any], ids: list[str]) -> pd.DataFrame:
    if not rows:
        return labels
    added = pd.DataFrame(rows).set_axis(pd.Index(ids, name=labels.index.name))
    return pd.concat([labels, added.astype(labels.dtypes.to_dict())])
