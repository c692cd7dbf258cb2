"""Objects of files as FiftyOne shows them: detections brought up to date, and tables that people changed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from dataaudit.decode import open_image
from dataaudit.formats._detections import ATTRIBUTES, OBJECT_ID, Document, is_set, new_detection
from dataaudit.types import CORNERS, FLAGS, Locator, Tables

__all__ = ["documents_of", "joined", "sizes_of", "updated"]

_ORIENTATION = 0x0112


def sizes_of(tables: Tables, shown: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Width and height of each image: as the sweep, FiftyOne, the image's header or the annotations say.

    Args:
        tables: of a detection dataset.
        shown: the metadata that FiftyOne has, by sample id.

    Returns:
        Index sample id; columns ``width`` and ``height``, float64 pixels as shown, NaN where nothing says.
    """
    images = tables.images
    columns = {}
    for side in ("width", "height"):
        swept = _numbers(images[side])
        known = [shown.get(str(sample_id), {}).get(side) for sample_id in images.index]
        columns[side] = swept.fillna(_numbers(pd.Series(known, index=images.index, dtype=object)))
    sizes = pd.DataFrame(columns)
    unknown = sizes.index[sizes.isna().any(axis=1)]
    sizes.loc[unknown] = _sizes_of_files(images.loc[unknown, "filepath"])
    for side in ("width", "height"):
        sizes[side] = sizes[side].fillna(_numbers(images[f"declared_{side}"]))
    return sizes.mask(sizes.isna().any(axis=1))


def _numbers(column: pd.Series[Any]) -> pd.Series[float]:
    """A column of positive numbers; NaN for anything else."""
    numbers = pd.to_numeric(column, errors="coerce").astype("Float64")
    values = numbers.to_numpy(dtype=np.float64, na_value=np.nan)
    return pd.Series(np.where(values > 0, values, np.nan), index=column.index)


def _sizes_of_files(paths: Iterable[str]) -> Any:
    """(n, 2) float64 width and height of images as their headers say; NaN where they can't be read."""
    # A header is no bomb; Pillow would warn in the middle of the threads
    before = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = None
    try:
        with ThreadPoolExecutor(8) as pool:
            return np.array(list(pool.map(_size_of_file, paths)), dtype=np.float64).reshape(-1, 2)
    finally:
        Image.MAX_IMAGE_PIXELS = before


def _size_of_file(path: str) -> tuple[float, float]:
    """Width and height of an image as shown."""
    try:
        with open_image(path) as opened:
            width, height = opened.size
            turned = opened.getexif().get(_ORIENTATION, 1) in range(5, 9)
    except Exception:  # Pillow raises whatever its decoders run into; the sweep says what is wrong
        return np.nan, np.nan
    return (height, width) if turned else (width, height)


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
    corners = np.hstack([corners[:, :2], corners[:, 2:] - corners[:, :2]])
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
        return [{**new_detection(each["label"], each["bounding_box"]), **each} for each in wanted]
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
    result += [{**new_detection(each["label"], each["bounding_box"]), **each} for each in todo.values()]
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
    stale = [name for name in mirrored if name not in new and is_set(old.get(name))]
    differs = any(old.get(name) != value for name, value in new.items() if name != "bounding_box")
    near = old.get("bounding_box") == new["bounding_box"]
    if near and not differs and not stale:
        return old
    return {**{name: value for name, value in old.items() if name not in stale}, **new}


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
    labels.index = labels.index.astype(object).rename("label_id")
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
