"""Objects in FiftyOne: fields of `Detections`, read, fixed and brought up to date."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from dataaudit.errors import ConflictError, InputError
from dataaudit.formats._masks import framed
from dataaudit.formats._shared import ObjectRows, new_label
from dataaudit.journal import Delete, Operation, Rewrite, database
from dataaudit.types import CORNERS, FLAGS, Box, Fix, Locator, Problem, Source, Tables

if TYPE_CHECKING:
    import fiftyone as fo

__all__ = ["ATTRIBUTES", "OBJECT_ID", "Document", "documents_of", "patch", "read", "updated"]

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
    ids, paths, widths, heights, keys, names, boxes = dataset.values(
        ["id", "filepath", "metadata.width", "metadata.height"]
        + [f"{inside}.{name}" for name in ("id", "label", "bounding_box")]
    )
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
        **{flag: _is_set(mark) for flag, mark in zip(ATTRIBUTES, marks, strict=True)},
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


def _is_set(mark: Any) -> bool:
    if isinstance(mark, str):
        return mark.strip().lower() in ("1", "true", "yes")
    return isinstance(mark, int | float) and mark > 0


# Fixes


def patch(name: str, field: str, fixes: Sequence[Fix]) -> list[Operation]:
    """The changes that carry out `fixes` in the field of the dataset `name`.

    Of a sample only the detections that are fixed change, and of those only what is fixed.

    Raises:
        ConflictError: a sample or detection is gone, or no longer what a fix expects.
        InputError: a sample is taken out and changed at once, or a mask can't follow its box.
    """
    by_sample: dict[str, list[Fix]] = {}
    for fix in fixes:
        by_sample.setdefault(fix.sample_id, []).append(fix)
    documents = database.fields(name, field, list(by_sample))
    old: dict[str, str | None] = {}
    new: dict[str, str | None] = {}
    removed: list[str] = []
    for sample_id, mine in by_sample.items():
        where = f"FiftyOne dataset {name}, sample {sample_id}"
        if sample_id not in documents:
            raise _conflict(f"The sample {sample_id} is gone.", where)
        document = documents[sample_id]
        content: Document = {"_cls": "Detections"} if document is None else database.parsed(document)
        if _takes_out(mine, content, where):
            removed.append(sample_id)
            continue
        content["detections"] = _fixed(content.get("detections") or [], mine, where)
        old[sample_id], new[sample_id] = document, database.dumped(content)
    operations: list[Operation] = []
    if new:
        operations.append(Rewrite(dataset=name, field=field, old=old, new=new))
    if removed:
        operations.append(Delete(dataset=name, ids=tuple(removed)))
    return operations


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
    return result + [_new(new_label(fix), _xywh(fix.box)) for fix in added if fix.box is not None]


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


def _new(label: str, box: list[float]) -> Document:
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


# Tables -> documents


def documents_of(tables: Tables, sizes: pd.DataFrame) -> dict[str, list[Document]]:
    """What FiftyOne is to show of each sample's objects: class, relative bounding box, id and flags.

    Args:
        tables: of a detection dataset.
        sizes: ``width`` and ``height`` in pixels of each sample, NaN where nothing says.

    Returns:
        The documents by sample id; a box that can't be read or has no known place is left out.
    """
    labels = tables.labels
    corners = labels[list(CORNERS)].to_numpy(dtype=np.float64)
    if tables.units == "pixels":
        size = sizes[["width", "height", "width", "height"]].to_numpy(dtype=np.float64)
        corners = corners / size[sizes.index.get_indexer(pd.Index(labels["sample_id"]))]
    known = np.isfinite(corners).all(1)
    corners[:, 2:] -= corners[:, :2]
    columns = [labels[name].to_numpy()[known].tolist() for name in ("sample_id", "name")]
    marks = labels[list(FLAGS)].to_numpy(dtype=bool)[known]
    attributes = list(ATTRIBUTES.values())
    found: dict[str, list[Document]] = {str(sample_id): [] for sample_id in tables.images.index}
    rows: Iterable[Any] = zip(
        labels.index[known].tolist(), *columns, corners[known].tolist(), marks.any(1), marks, strict=True
    )
    for label_id, sample_id, name, box, any_flag, flags in rows:
        document: Document = {"label": name, "bounding_box": box, OBJECT_ID: label_id}
        if any_flag:
            document |= {attribute: True for attribute, flag in zip(attributes, flags, strict=True) if flag}
        found[sample_id].append(document)
    return found


def updated(
    have: Sequence[Document] | None, wanted: Sequence[Document], mirrored: Iterable[str]
) -> list[Document] | None:
    """The detections of a sample brought up to date; None where nothing differs.

    A detection stays itself, with its id, its tags and what else people gave it, when its number in the
    file, its class or its box changes. Those that people added stay.

    Args:
        have: in FiftyOne now.
        wanted: see `documents_of`.
        mirrored: attributes that go where they aren't wanted.
    """
    if have is None:
        return [{**_new(each["label"], each["bounding_box"]), **each} for each in wanted]
    pairs = zip(have, wanted, strict=False)
    if len(have) == len(wanted) and all(_brought_up(old, new, mirrored) is old for old, new in pairs):
        return None  # as nearly always, and by far the quickest to see
    left = dict(enumerate(have))
    todo = dict(enumerate(wanted))
    match: dict[int, int] = {}
    for same in (_whole, _content, _box, _number):
        if todo:
            for old, new in list(_pairs(left, todo, same)):
                match[old] = new
                del left[old], todo[new]
    gone = {number for number, each in left.items() if each.get(OBJECT_ID) is not None}
    result = []
    for number, each in enumerate(have):
        if number in match:
            result.append(_brought_up(each, wanted[match[number]], mirrored))
        elif number not in gone:
            result.append(each)
    result += [{**_new(each["label"], each["bounding_box"]), **each} for each in todo.values()]
    unchanged = len(result) == len(have) and all(a is b for a, b in zip(result, have, strict=True))
    return None if unchanged else result


def _whole(each: Document) -> Any:
    return each.get(OBJECT_ID) and (each[OBJECT_ID], *_content(each))


def _content(each: Document) -> Any:
    return each.get("label"), _box(each)


def _box(each: Document) -> Any:
    box = each.get("bounding_box")
    return None if box is None else tuple(round(float(number), 7) for number in box)


def _number(each: Document) -> Any:
    return each.get(OBJECT_ID)


def _pairs(
    have: Mapping[int, Document], wanted: Mapping[int, Document], same: Any
) -> Iterator[tuple[int, int]]:
    """Numbers of what is there and what is wanted that are the same, each once."""
    places: dict[Any, list[int]] = {}
    for number, each in have.items():
        places.setdefault(same(each), []).append(number)
    for number, each in wanted.items():
        found = places.get(same(each))
        if found and same(each) is not None:
            yield found.pop(0), number


def _brought_up(old: Document, new: Document, mirrored: Iterable[str]) -> Document:
    stale = [name for name in mirrored if name not in new and _is_set(old.get(name))]
    differs = any(old.get(name) != value for name, value in new.items() if name != "bounding_box")
    near = old.get("bounding_box") == new["bounding_box"]
    if near and not differs and not stale:
        return old
    return {**{name: value for name, value in old.items() if name not in stale}, **new}


def flattened(nested: Iterable[Sequence[Any] | None]) -> list[Any]:
    """The values of all samples in one list; nothing for a sample without a field."""
    return list(chain.from_iterable(each or () for each in nested))


# Back to the files


def joined(files: Tables, found: Tables) -> Tables:
    """Objects that are what FiftyOne says, and stand where the files say.

    Args:
        files: the dataset as it is read from its files.
        found: the same from FiftyOne, in relative units, with the sample and label ids of the files.

    Returns:
        Tables in the units of the files. A box that is the same in both has the very numbers of the file;
        objects that FiftyOne can't show, because their box can't be read, are those of the files.
    """
    images, labels = _in_units(files, found), found.labels
    rows = files.labels.index.get_indexer(labels.index)
    known = rows >= 0
    corners = labels[list(CORNERS)].to_numpy(dtype=np.float64)
    if files.units == "pixels":
        corners = corners * _scale(found.images, labels["sample_id"])
    theirs = files.labels[list(CORNERS)].to_numpy(dtype=np.float64)[rows]
    same = known & (np.abs(corners - theirs) <= 1e-6 * (1 + np.abs(theirs))).all(1)
    corners[same] = theirs[same]
    labels = labels.assign(
        locator=images["locator"].loc[labels["sample_id"]].to_numpy(),
        **{name: corners[:, number] for number, name in enumerate(CORNERS)},
    )
    for column in ("geometry", "locator", *FLAGS):
        values = labels[column].to_numpy(copy=True)
        values[known] = files.labels[column].to_numpy()[rows[known]]
        labels[column] = values
    labels = pd.concat([labels, _hidden(files, found)])
    place = files.labels.index.get_indexer(labels.index)
    order = np.argsort(np.where(place < 0, len(files.labels), place), kind="stable")
    return Tables(
        images=images,
        labels=labels.iloc[order],
        classes=tuple(sorted({*files.classes, *found.classes})),
        task="detection",
        units=files.units,
        problems=tuple(each for each in files.problems if each.sample_id in {None, *images.index}),
        source=found.source,
    )


def _in_units(files: Tables, found: Tables) -> pd.DataFrame:
    """The images that FiftyOne has, in the order of the files, with places and sizes as the files say."""
    place = files.images.index.get_indexer(found.images.index)
    order = np.argsort(np.where(place < 0, len(files.images), place), kind="stable")
    images = found.images.iloc[order]
    theirs = files.images.reindex(images.index)
    nowhere = [Locator(file=str(each)) for each in images.index]
    places = [
        own if isinstance(own, Locator) else other
        for own, other in zip(theirs["locator"], nowhere, strict=True)
    ]
    return images.assign(
        locator=pd.Series(places, index=images.index, dtype=object),
        declared_width=theirs["declared_width"],
        declared_height=theirs["declared_height"],
    )


def _scale(images: pd.DataFrame, sample_ids: pd.Series[str]) -> Any:
    """(n, 4) width, height, width, height of the image of each object, NaN where nothing says."""
    sizes = images[["declared_width", "declared_height"]].astype("Float64")
    numbers = sizes.to_numpy(dtype=np.float64, na_value=np.nan)
    return np.tile(numbers[images.index.get_indexer(pd.Index(sample_ids))], 2)


def _hidden(files: Tables, found: Tables) -> pd.DataFrame:
    """The objects of the files that have no box in FiftyOne."""
    labels = files.labels[files.labels["sample_id"].isin(found.images.index)]
    labels = labels[~labels.index.isin(found.labels.index)]
    corners = labels[list(CORNERS)].to_numpy(dtype=np.float64)
    if files.units == "pixels":
        corners = corners / _scale(found.images, labels["sample_id"])
    hidden: pd.DataFrame = labels[~np.isfinite(corners).all(1)]
    return hidden
