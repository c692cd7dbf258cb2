"""Objects in FiftyOne: fields of `Detections`, read, fixed and brought up to date."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from dataaudit.errors import ConflictError, InputError
from dataaudit.formats._fiftyone import rewritten
from dataaudit.formats._masks import framed
from dataaudit.formats._shared import ObjectRows, new_label
from dataaudit.journal import Operation, database
from dataaudit.types import CORNERS, FLAGS, Box, Fix, Locator, Problem, Source, Tables

if TYPE_CHECKING:
    import fiftyone as fo

__all__ = [
    "ATTRIBUTES",
    "OBJECT_ID",
    "Document",
    "corners_of",
    "flattened",
    "is_set",
    "new_detection",
    "patch",
    "predictions",
    "read",
]

OBJECT_ID = "dataaudit_id"
ATTRIBUTES = {flag: "iscrowd" if flag == "crowd" else flag for flag in FLAGS}
"""The attribute of a detection, as FiftyOne's importers name it, for each flag of an object."""

Document = dict[str, Any]
_NOWHERE: Box = (math.nan, math.nan, math.nan, math.nan)


def read(
    dataset: fo.Dataset, field: str, *, splits: Sequence[str | None], classes: Sequence[str], source: Source
) -> Tables:
    """Tables of a `Detections` field, in relative units; a label's id is the sample's and the detection's.

    Args:
        dataset: a dataset of images.
        field: name of the field.
        splits: of each sample, in the order of the dataset.
        classes: further classes, which no object has.
        source: of the tables.
    """
    from fiftyone import ViewField

    inside = f"{field}.detections"
    ids, paths, widths, heights, keys, names = dataset.values(
        ["id", "filepath", "metadata.width", "metadata.height", f"{inside}.id", f"{inside}.label"]
    )
    boxes = _boxes(dataset, inside)
    flags = dataset.values([f"{inside}.{attribute}" for attribute in ATTRIBUTES.values()])
    has_mask = ViewField("mask").exists() | ViewField("mask_path").exists()
    masks = dataset.values(ViewField(inside).map(has_mask))
    rows = ObjectRows()
    samples = zip(ids, paths, splits, widths, heights, strict=True)
    for sample_id, path, split, width, height in samples:
        rows.image(sample_id, path, Locator(file=sample_id, field=field), split=split, size=(width, height))
    for sample_id, *columns in zip(ids, keys, names, boxes, masks, *flags, strict=True):
        if columns[0]:
            for key, name, box, mask, *marks in zip(*columns, strict=True):
                _add(rows, sample_id, Locator(file=sample_id, item=key, field=field), name, box, mask, marks)
    return rows.tables(source=source, units="relative", classes=classes)


def _boxes(dataset: fo.Dataset, inside: str) -> list[Any]:
    """The bounding boxes of each sample as they are stored; FiftyOne breaks on one that holds text."""
    found: list[Any] = dataset.values(f"{inside}.bounding_box", _raw=True)
    return found


def _add(
    rows: ObjectRows, sample_id: str, locator: Locator, name: Any, box: Any, mask: bool, marks: Sequence[Any]
) -> None:
    label_id = f"{sample_id}:{locator.item}"
    corners = corners_of(box)
    if not isinstance(name, str):
        rows.problems.append(
            Problem(
                kind="object without a class",
                message=f"The detection has no class: its label is {name!r}.",
                locator=locator,
                sample_id=sample_id,
            )
        )
        return
    if corners is None:
        rows.problems.append(
            Problem(
                kind="box that can't be read",
                message=f"The bounding_box is {box!r}; expected [x, y, width, height], relative.",
                locator=locator,
                sample_id=sample_id,
                label_id=label_id,
            )
        )
    rows.object(
        sample_id,
        label_id,
        name,
        corners or _NOWHERE,
        locator,
        geometry="mask" if mask else "box",
        **{flag: is_set(mark) for flag, mark in zip(ATTRIBUTES, marks, strict=True)},
    )


def corners_of(box: Any) -> Box | None:
    """The corners of a bounding_box; None for one that isn't four finite numbers.

    >>> corners_of([0.25, 0.5, 0.5, 0.25])
    (0.25, 0.5, 0.75, 0.75)
    """
    try:
        x, y, width, height = map(float, box)
    except (TypeError, ValueError):
        return None
    corners = x, y, x + width, y + height
    return corners if all(map(math.isfinite, corners)) else None


def _xywh(box: Sequence[float]) -> list[float]:
    x1, y1, x2, y2 = map(float, box)
    return [x1, y1, x2 - x1, y2 - y1]


def is_set(mark: Any) -> bool:
    """Whether the value of an attribute says yes; datasets have booleans, numbers and texts."""
    if isinstance(mark, str):
        return mark.strip().lower() in ("1", "true", "yes")
    return isinstance(mark, int | float) and mark > 0


def predictions(dataset: fo.Dataset, field: str, ids: Sequence[str | None]) -> pd.DataFrame:
    """The predictions in a `Detections` field; see `dataaudit.tables.predictions_of`.

    Args:
        dataset: a dataset of images.
        field: name of the field.
        ids: sample id of each sample; those of None are left out.
    """
    inside = f"{field}.detections"
    columns = dataset.values([f"{inside}.{name}" for name in ("id", "label", "confidence")])
    nested = [*columns, _boxes(dataset, inside)]
    owners = [each for each, own in zip(ids, nested[0], strict=True) for _ in own or ()]
    keys, names, confidences, boxes = (flattened(each) for each in nested)
    crowds = [is_set(each) for each in flattened(dataset.values(f"{inside}.{ATTRIBUTES['crowd']}"))]
    texts = {"sample_id": owners, "name": names}
    table = pd.DataFrame({name: pd.Series(each, dtype=object) for name, each in texts.items()})
    numbers = [np.nan if each is None else each for each in confidences]
    table["confidence"] = np.array(numbers, dtype=np.float64)
    corners = [corners_of(box) or _NOWHERE for box in boxes]
    table[list(CORNERS)] = np.array(corners, dtype=np.float64).reshape(-1, 4)
    wanted = table["sample_id"].notna().to_numpy() & ~np.array(crowds, dtype=bool)
    sound = table.notna().all(axis=1) & table["confidence"].between(0, 1)
    broken = np.flatnonzero(wanted & ~sound.to_numpy())
    if len(broken):
        row = int(broken[0])
        raise InputError(
            f"The detection {keys[row]} in {field!r} has the label {names[row]!r}, the confidence "
            f"{confidences[row]!r} and the box {boxes[row]!r}; expected a class, a confidence from 0 to 1 "
            "and [x, y, width, height].",
            where=f"FiftyOne dataset {dataset.name}, sample {owners[row]}",
        )
    found: pd.DataFrame = table[wanted].reset_index(drop=True)
    return found


def flattened(nested: Iterable[Sequence[Any] | None]) -> list[Any]:
    """The values of all samples in one list; nothing for a sample without a field."""
    return list(chain.from_iterable(each or () for each in nested))


# Fixes


def patch(name: str, field: str, fixes: Sequence[Fix]) -> list[Operation]:
    """The changes that carry out `fixes` in the field of the dataset `name`.

    Of a sample only the detections that are fixed change, and of those only what is fixed.

    Raises:
        ConflictError: a sample or detection is gone, or no longer what a fix expects.
        InputError: a sample is taken out and changed at once, or a mask can't follow its box.
    """
    return rewritten(name, field, fixes, _changed)


def _changed(document: str | None, fixes: Sequence[Fix], where: str) -> tuple[bool, str | None]:
    content: Document = {"_cls": "Detections"} if document is None else database.parsed(document)
    if _takes_out(fixes, content, where):
        return True, None
    content["detections"] = _fixed(content.get("detections") or [], fixes, where)
    return False, database.dumped(content)


def _takes_out(fixes: Sequence[Fix], content: Document, where: str) -> bool:
    """Whether these fixes of a sample take it out of the dataset."""
    out = [fix for fix in fixes if fix.op in ("drop", "merge")]
    if not out:
        return False
    if len(fixes) > 1:
        raise InputError(f"{out[0].sample_id} is taken out and changed at once.", where=where)
    names = sorted(str(each.get("label")) for each in content.get("detections") or [])
    said = {", ".join(names) or None, ", ".join(sorted(set(names))) or None}
    if out[0].old not in said:
        raise _conflict(f"The objects are {', '.join(names) or None!r}; expected {out[0].old!r}.", where)
    return True


def _fixed(detections: Sequence[Document], fixes: Sequence[Fix], where: str) -> list[Document]:
    of_key = {str(fix.locator.item): fix for fix in fixes if fix.op != "add"}
    there = {str(each.get("_id")) for each in detections}
    for key, fix in of_key.items():
        if key not in there:
            raise _conflict(f"The detection {key} ({fix.old}) is gone.", where)
    result = []
    for each in detections:
        found = of_key.get(str(each.get("_id")))
        if found is None:
            result.append(each)
            continue
        _check(each, found, where)
        if found.op == "relabel":
            result.append({**each, "label": new_label(found)})
        elif found.op == "move":
            result.append(_moved(each, found, where))
    added = [fix for fix in fixes if fix.op == "add"]
    return result + [new_detection(new_label(fix), _xywh(fix.box)) for fix in added if fix.box is not None]


def _check(detection: Document, fix: Fix, where: str) -> None:
    where = f"{where}, detection {detection['_id']}"
    if detection.get("label") != fix.old:
        raise _conflict(f"The class is {detection.get('label')!r}; expected {fix.old!r}.", where)
    corners = corners_of(detection.get("bounding_box"))
    same = (corners is None) == (fix.old_box is None)
    if corners is not None and fix.old_box is not None:
        same = all(
            abs(is_ - was) <= 1e-6 * (1 + abs(was)) for is_, was in zip(corners, fix.old_box, strict=True)
        )
    if not same:
        raise _conflict(f"The box is {corners}; expected {fix.old_box}.", where)


def _moved(detection: Document, fix: Fix, where: str) -> Document:
    assert fix.box is not None
    moved = {**detection, "bounding_box": _xywh(fix.box)}
    if detection.get("mask_path") is not None:
        raise InputError(
            f"The mask of the detection {detection['_id']} is a file, which can't follow its box.",
            where=where,
            fix="Nothing was changed. Leave this fix out.",
        )
    if detection.get("mask") is not None and fix.old_box is not None:
        moved["mask"] = framed(detection["mask"], fix.old_box, fix.box)
    return moved


def new_detection(label: str, box: list[float]) -> Document:
    """A detection as FiftyOne stores it, with an id of its own."""
    from bson import ObjectId

    return {
        "_id": ObjectId(),
        "_cls": "Detection",
        "attributes": {},
        "tags": [],
        "label": label,
        "bounding_box": box,
    }


def _conflict(what: str, where: str) -> ConflictError:
    return ConflictError(what, where=where, fix="Nothing was changed. Audit again.")
