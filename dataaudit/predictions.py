"""Predictions of objects that a user brings: tables, files, FiftyOne fields, models."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dataaudit import formats
from dataaudit.errors import InputError, nearest
from dataaudit.progress import bar
from dataaudit.types import CORNERS, Tables

__all__ = ["read"]

_COLUMNS = ("sample_id", "name", "confidence", *CORNERS)


def read(values: Any, tables: Tables, *, progress: bool = False) -> tuple[pd.DataFrame, str]:
    """Read predictions of objects.

    Args:
        values: a table with the columns ``sample_id``, ``name``, ``confidence`` and the corners ``x1``,
            ``y1``, ``x2``, ``y2`` in the units of the dataset; a file of such a table (``.csv``,
            ``.parquet``); a JSON file of COCO results (``image_id``, ``category_id``, ``bbox``, ``score``); a
            folder of YOLO text files (``class cx cy w h confidence``); the name of a `Detections` field of
            the FiftyOne dataset; or a model: a detector of torchvision, an Ultralytics model, or a callable
            that takes an RGB image (PIL) and returns its predictions, either ``{"boxes": (m, 4) pixels,
            "scores": (m,), "labels": (m,)}`` or an array (m, 6) of x1, y1, x2, y2, confidence and class.
            Labels are names, numbers in the list of classes of the dataset, or ids of its categories.
        tables: the dataset.
        progress: show a progress bar while a model runs.

    Returns:
        The predictions, a row each with those columns, and the units of their corners: ``pixels`` or
        ``relative``. Predictions of a class that the dataset doesn't have are left out.

    Raises:
        InputError: what is given isn't one of these, or a row can't be read, with file and line.
    """
    units = tables.units
    if isinstance(values, pd.DataFrame):
        table = values
    elif isinstance(values, (str, Path)):
        table, units = _from_path(values, tables)
    elif callable(values):
        from dataaudit.signals.predicting import predict

        with bar("Predicting", shown=progress) as update:
            table = predict(values, tables.images["filepath"], _numbered(tables), update)
        units = "pixels"
    else:
        raise InputError(
            f"The predictions are a {type(values).__name__}; expected a table, a file, a folder, the name of "
            "a FiftyOne field, or a model."
        )
    return _checked(table, tables), units


def _from_path(values: str | Path, tables: Tables) -> tuple[pd.DataFrame, str]:
    path = Path(values)
    if path.is_dir():
        return _from_yolo(path, tables), "relative"
    if path.suffix.lower() == ".json" and path.is_file():
        return _from_coco(path, tables), "pixels"
    if path.is_file():
        from dataaudit import inputs

        return inputs.read(path, indexed=False), tables.units
    if path.suffix or len(path.parts) > 1:
        raise InputError("There is no such file or folder of predictions.", where=path)
    from dataaudit import tables as in_fiftyone
    from dataaudit.formats._fiftyone import connect

    source = tables.source
    name = None if source is None else in_fiftyone.dataset_name(source)
    fiftyone = connect()
    if name is None or not fiftyone.dataset_exists(name):
        raise InputError(
            f"{str(values)!r} is no file, and the dataset isn't in FiftyOne, where it could be a field.",
            fix="Give a file, a folder or a table; or load the dataset into FiftyOne first.",
        )
    found = in_fiftyone.predictions_of(fiftyone.load_dataset(name), str(values), samples=tables.images.index)
    return found, "relative"


# COCO results


def _from_coco(path: Path, tables: Tables) -> pd.DataFrame:
    try:
        entries = json.loads(path.read_bytes().decode("utf-8-sig"))
    except ValueError as error:
        raise InputError(f"It isn't JSON: {error}.", where=path) from None
    if isinstance(entries, dict):
        entries = entries.get("annotations", entries.get("predictions"))
    if not isinstance(entries, list):
        raise InputError(
            "Expected an array of predictions, each with image_id, category_id, bbox and score.", where=path
        )
    samples, names = _image_ids(tables), _numbered(tables)
    rows = []
    for number, entry in enumerate(entries, start=1):
        where = f"{path}: prediction {number}"
        if not isinstance(entry, dict) or not {"image_id", "bbox", "score"} <= set(entry):
            raise InputError("It has no image_id, bbox or score.", where=where)
        sample_id = samples.get(str(entry["image_id"]))
        if sample_id is None:
            raise InputError(
                f"There is no image {entry['image_id']!r} in the dataset.", where=where,
                fix="Expected an image id of the dataset's file, or the name of an image.",
            )  # fmt: skip
        name = entry.get("category_name", names.get(str(entry.get("category_id"))))
        if name is None:
            raise InputError(f"There is no category {entry.get('category_id')!r}.", where=where)
        x, y, width, height = _numbers(entry["bbox"], 4, where)
        rows.append((sample_id, name, entry["score"], x, y, x + width, y + height))
    return pd.DataFrame(rows, columns=list(_COLUMNS))


def _image_ids(tables: Tables) -> dict[str, str]:
    """What a result may call an image, to its sample id: an id in the annotations, or its name."""
    samples = tables.images.index
    stems = Counter(Path(each).stem for each in samples)
    known = {Path(each).stem: each for each in samples if stems[Path(each).stem] == 1}
    known |= {str(int(stem)): each for stem, each in list(known.items()) if stem.isdecimal()}
    known |= {Path(each).name: each for each in samples if stems[Path(each).stem] == 1}
    known |= {each: each for each in samples}
    places = zip(samples, tables.images["locator"], strict=True)
    ids = {str(place.item): each for each, place in places if place.item is not None}
    return {**known, **ids} if len(ids) == len(samples) else known


def _numbered(tables: Tables) -> dict[str, str]:
    """What a prediction may call a class, to its name."""
    names = {name: name for name in tables.classes}
    if tables.source is not None:
        names |= {str(key): name for key, name in formats.class_ids(tables.source).items()}
    return names


# YOLO text files


def _from_yolo(folder: Path, tables: Tables) -> pd.DataFrame:
    files = sorted(folder.rglob("*.txt"))
    if not files:
        raise InputError("The folder holds no text file of predictions.", where=folder)
    samples, names = _image_ids(tables), _numbered(tables)
    rows = [row for file in files if file.stem in samples for row in _lines(file, samples[file.stem], names)]
    if not any(file.stem in samples for file in files):
        raise InputError(
            f"No file is named like an image; the first is {files[0].name}.", where=folder,
            fix="Expected one text file an image, with the same stem.",
        )  # fmt: skip
    return pd.DataFrame(rows, columns=list(_COLUMNS))


def _lines(file: Path, sample_id: str, names: Mapping[str, str]) -> Iterator[tuple[Any, ...]]:
    for number, line in enumerate(file.read_text(encoding="utf-8-sig").splitlines(), start=1):
        tokens, where = line.split(), f"{file}:{number}"
        if not tokens:
            continue
        if len(tokens) != 6:
            raise InputError(
                f"The line has {len(tokens)} numbers; expected class, cx, cy, w, h and confidence.",
                where=where,
                fix="Save the predictions with their confidences (save_conf=True in Ultralytics).",
            )
        if tokens[0] not in names:
            raise InputError(f"The class {tokens[0]} isn't in the dataset's list of classes.", where=where)
        x, y, width, height, confidence = _numbers(tokens[1:], 5, where)
        yield (
            sample_id, names[tokens[0]], confidence, x - width / 2, y - height / 2, x + width / 2,
            y + height / 2,
        )  # fmt: skip


def _numbers(values: Any, n: int, where: str) -> list[float]:
    try:
        numbers = [float(value) for value in values]
    except (TypeError, ValueError):
        numbers = []
    if len(numbers) != n or not np.isfinite(numbers).all():
        raise InputError(f"{values!r} are not {n} numbers.", where=where)
    return numbers


# What all have in common


def _checked(table: pd.DataFrame, tables: Tables) -> pd.DataFrame:
    for column in _COLUMNS:
        if column not in table:
            raise InputError(
                f"The predictions have no column {column!r}; they have {list(table.columns)}.",
                fix=f"Give one row an object: {', '.join(_COLUMNS)}.",
            )
    strange = table["sample_id"][~table["sample_id"].isin(tables.images.index)]
    if len(strange):
        close = nearest(str(strange.iloc[0]), tables.images.index[:10_000])
        raise InputError(f"The predictions name the sample {strange.iloc[0]!r}, which isn't there. {close}")
    if len(table) and not table["name"].isin(tables.classes).any():
        seen = sorted(set(map(str, table["name"])))[:5]
        raise InputError(
            f"No prediction is of a class of the dataset: they are of {', '.join(seen)}, and its classes are "
            f"{', '.join(tables.classes[:5])}."
        )
    numbers = table[["confidence", *CORNERS]].apply(pd.to_numeric, errors="coerce")
    wrong = numbers.isna().any(axis=1) | ~numbers["confidence"].between(0, 1)
    if wrong.any():
        row = table[wrong].iloc[0]
        raise InputError(
            f"A prediction of {row['sample_id']!r} has the confidence {row['confidence']!r} and the corners "
            f"{[row[corner] for corner in CORNERS]}; expected numbers, and a confidence from 0 to 1."
        )
    made = table[["sample_id", "name"]].assign(**{name: numbers[name] for name in numbers})
    return made[made["name"].isin(tables.classes)].reset_index(drop=True)[list(_COLUMNS)]
