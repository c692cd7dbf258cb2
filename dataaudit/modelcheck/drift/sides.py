"""One side of a comparison: what is known of the images of the reference, or of production.

A side can be kept in a file, so that what comes in daily is compared without the reference's images.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dataaudit import formats, state
from dataaudit.cache import read_arrays, write_arrays
from dataaudit.errors import FormatError, InputError
from dataaudit.formats._shared import is_image
from dataaudit.modelcheck.drift.properties import CATEGORIES, MEASURES, described
from dataaudit.progress import bar
from dataaudit.signals.backbones import DEFAULT, backbone_named, embedder
from dataaudit.sweep import Embedder, sweep
from dataaudit.types import Source, Tables

__all__ = ["Side", "load_side", "of_tables", "read_side", "save_side", "with_predictions"]

_SCHEMA = "dataaudit drift reference 1"
_NPZ = ".npz"


@dataclass(frozen=True, kw_only=True)
class Side:
    """What is known of the images of one side.

    Attributes:
        name: where they came from, as the user wrote it.
        images: index sample id, one row an image that can be decoded; columns ``filepath`` (absolute; it may
            not exist any more), ``digest``, and the properties `MEASURES` (float64) and `CATEGORIES` (str).
        errors: reason by sample id, of the files that can't be decoded.
        embeddings: (n, d) float32, rows as in `images`; (n, 0) without any.
        phash: (n,) uint64 perceptual hashes.
        thumbnails: (n, 256) uint8 grey pixels.
        backbone: name of the network that the embeddings come from, "" without any.
        classes: (n, k) float32, how many labels of each class an image has; None without labels.
        predictions: (n,) the class that the user's model predicts, None where it says nothing; or None.
        confidence: (n,) float64 its confidence in [0, 1], NaN where unknown.
        times: (n,) when each image was taken; NaT where unknown; or None.
    """

    name: str
    images: pd.DataFrame
    errors: pd.Series[str]
    embeddings: np.ndarray[Any, np.dtype[np.float32]]
    phash: np.ndarray[Any, np.dtype[np.uint64]]
    thumbnails: np.ndarray[Any, np.dtype[np.uint8]]
    backbone: str
    classes: pd.DataFrame | None = None
    predictions: pd.Series[str] | None = None
    confidence: pd.Series[float] | None = None
    times: pd.Series[Any] | None = None

    def __len__(self) -> int:
        return len(self.images)

    @property
    def labels(self) -> pd.Series[str] | None:
        """(n,) the class of each image that has one label, None for the others; None where no image has."""
        if self.classes is None:
            return None
        one = self.classes.sum(axis=1) == 1
        names = self.classes.columns.to_numpy(dtype=object)[self.classes.to_numpy().argmax(1)]
        return pd.Series(np.where(one, names, None), index=self.classes.index, dtype=object)


def read_side(
    data: str | Path | Tables | Side,
    *,
    backbone: str | None = DEFAULT,
    device: str = "auto",
    cache: Path | None = None,
    format: str | None = None,  # noqa: A002
    options: Mapping[str, str] | None = None,
    progress: bool = False,
) -> Side:
    """Read one side: a dataset of any format, a folder of images, or a file made by `save_side`.

    Args:
        data: where it is; a folder needs no labels. A side is handed back as it is.
        backbone: whose embeddings are compared; None leaves them out.
        device: ``auto``, ``cpu``, ``cuda``, ``mps``.
        cache: folder of the cached signals; by default ``.dataaudit/cache`` beside the data, where that can
            be written.
        format: of the dataset, when it isn't to be detected.
        options: options of the format.
        progress: show progress bars.

    Raises:
        InputError: no images, or none that can be decoded.
    """
    if isinstance(data, Side):
        return data
    if isinstance(data, (str, Path)) and Path(data).suffix == _NPZ:
        return load_side(Path(data))
    tables = data if isinstance(data, Tables) else _tables(data, format, options)
    chosen = None if backbone is None else embedder(backbone_named(backbone), device=device)
    kept = cache if cache is not None else _cache_of(tables.source)
    name = str(data) if isinstance(data, (str, Path)) else "tables"
    return of_tables(tables, name=name, embedder=chosen, cache=kept, progress=progress)


def of_tables(
    tables: Tables,
    *,
    name: str,
    embedder: Embedder | None,
    cache: Path | None = None,
    progress: bool = False,
) -> Side:
    """Read and decode each image of `tables` once; see `read_side`."""
    paths = tables.images["filepath"]
    with bar(f"Reading {Path(name).name}", shown=progress) as update:
        swept = sweep(paths, embedder=embedder, cache=cache, progress=update)
    fine = paths.index.difference(swept.errors.index, sort=False)
    if not len(fine):
        reason = f" The first: {swept.errors.index[0]}: {swept.errors.iloc[0]}." if len(swept.errors) else ""
        raise InputError(
            f"None of the {len(paths):,} images can be decoded.{reason}",
            where=name,
            fix="Drift compares images: give a folder with at least one that can be opened.",
        )
    images = described(paths.loc[fine], swept.properties.loc[fine])
    images.insert(1, "digest", swept.digests.loc[fine].astype(str))
    features = (
        np.zeros((len(fine), 0), dtype=np.float32)
        if swept.embeddings is None
        else swept.embeddings.loc[fine].to_numpy(dtype=np.float32)
    )
    return Side(
        name=name,
        images=images,
        errors=swept.errors,
        embeddings=features,
        phash=np.asarray(swept.phash.loc[fine], dtype=np.uint64),
        thumbnails=swept.thumbnails.loc[fine].to_numpy(dtype=np.uint8),
        backbone="" if embedder is None else embedder.name,
        classes=_classes(tables, fine),
    )


def save_side(side: Side, file: str | Path) -> Path:
    """Keep a side in a file: properties, embeddings, classes and predictions, but no images.

    Returns:
        The file; ``.npz`` is added where it is missing.

    Raises:
        InputError: it can't be written.
    """
    path = Path(file)
    path = path if path.suffix == _NPZ else path.with_name(path.name + _NPZ)
    arrays: dict[str, Any] = {
        "schema": np.array(_SCHEMA),
        "name": np.array(side.name),
        "backbone": np.array(side.backbone),
        "ids": _texts(side.images.index),
        "filepath": _texts(side.images["filepath"]),
        "digest": _texts(side.images["digest"]),
        "measures": side.images[list(MEASURES)].to_numpy(dtype=np.float64),
        "categories": np.stack([_texts(side.images[each]) for each in CATEGORIES]),
        "embeddings": side.embeddings.astype(
            np.float16 if np.abs(side.embeddings).max(initial=0) < 65_000 else np.float32
        ),
        "phash": side.phash,
        "thumbnails": side.thumbnails,
        "error_ids": _texts(side.errors.index),
        "error_reasons": _texts(side.errors),
    }
    if side.classes is not None:
        arrays |= {"class_names": _texts(side.classes.columns), "classes": side.classes.to_numpy()}
    if side.predictions is not None:
        arrays["predictions"] = _texts(side.predictions.fillna("\0").str.replace("\0", "\x01", regex=False))
    if side.confidence is not None:
        arrays["confidence"] = side.confidence.to_numpy(dtype=np.float64)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_arrays(path, arrays)
    except OSError as error:
        raise InputError(f"The reference can't be written ({error.strerror}).", where=path) from error
    return path


def load_side(file: Path) -> Side:
    """Read a side that `save_side` wrote.

    Raises:
        InputError: no such file, or another kind of file.
    """
    if not file.is_file():
        raise InputError("There is no such file.", where=file)
    found = read_arrays(file)
    if found is None or "schema" not in found or str(found["schema"]) != _SCHEMA:
        raise InputError(
            "This is no reference of a drift check, or it is damaged.",
            where=file,
            fix="Make it anew: dataaudit model drift REFERENCE --save-reference FILE.npz",
        )
    ids = pd.Index(found["ids"].astype(object))
    images = pd.DataFrame(
        {"filepath": found["filepath"].astype(object), "digest": found["digest"].astype(object)}, index=ids
    )
    images[list(MEASURES)] = found["measures"]
    for row, name in enumerate(CATEGORIES):
        images[name] = found["categories"][row].astype(object)
    classes = predictions = confidence = None
    if "classes" in found:
        classes = pd.DataFrame(found["classes"], index=ids, columns=found["class_names"].astype(object))
    if "predictions" in found:
        said = pd.Series(found["predictions"].astype(object), index=ids, dtype=object)
        predictions = said.where(said != "\x01", None)
    if "confidence" in found:
        confidence = pd.Series(found["confidence"], index=ids)
    return Side(
        name=str(found["name"]),
        images=images,
        errors=pd.Series(found["error_reasons"].astype(object), index=found["error_ids"].astype(object)),
        embeddings=found["embeddings"].astype(np.float32),
        phash=found["phash"],
        thumbnails=found["thumbnails"],
        backbone=str(found["backbone"]),
        classes=classes,
        predictions=predictions,
        confidence=confidence,
    )


def _texts(values: Any) -> np.ndarray[Any, Any]:
    return np.array([str(value) for value in values], dtype=str)


def _tables(data: str | Path, name: str | None, options: Mapping[str, str] | None) -> Tables:
    """The dataset at a path, or the images below a folder where no format fits."""
    try:
        return formats.read(data, format=name, options=options)
    except FormatError:
        folder = Path(data)
        if name is not None or not folder.is_dir():
            raise
        files = _images_below(folder)
        if not files:
            raise InputError(
                "There are no images in this folder.",
                where=folder,
                fix="Give a folder with images, or a dataset in one of the formats.",
            ) from None
    return _unlabeled(folder.absolute(), files)


def _images_below(folder: Path) -> list[str]:
    found = []
    for root, folders, files in os.walk(folder):
        folders[:] = sorted(each for each in folders if not each.startswith("."))
        inner = Path(root).relative_to(folder)
        found += [(inner / file).as_posix() for file in sorted(files) if is_image(file)]
    return found


def _unlabeled(folder: Path, files: list[str]) -> Tables:
    images = pd.DataFrame(
        {"filepath": [str(folder / file) for file in files]}, index=pd.Index(files, dtype=object)
    )
    for column in ("width", "height", "split", "digest"):
        images[column] = None
    labels = pd.DataFrame(columns=["sample_id", "name", "geometry", "locator"], dtype=object)
    source = Source(format="images", root=folder, path=str(folder), anchor=folder.parent)
    return Tables(images=images, labels=labels, classes=(), source=source)


def _cache_of(source: Source | None) -> Path | None:
    """Where the signals are kept; None where nothing can be written, as production may be read-only."""
    if source is None:
        return None
    try:
        state.prepare(source)
    except OSError:
        return None
    return state.cache_dir(source)


def _classes(tables: Tables, ids: pd.Index) -> pd.DataFrame | None:
    labels = tables.labels.dropna(subset="name")
    labels = labels[labels["sample_id"].isin(ids)]
    if not len(labels):
        return None
    names = sorted(set(labels["name"]))
    counts = np.zeros((len(ids), len(names)), dtype=np.float32)
    rows, columns = (
        index.get_indexer(pd.Index(labels[column]))
        for index, column in ((ids, "sample_id"), (pd.Index(names), "name"))
    )
    np.add.at(counts, (rows, columns), 1)
    return pd.DataFrame(counts, index=ids, columns=pd.Index(names, dtype=object))


def with_predictions(side: Side, table: pd.DataFrame) -> Side:
    """The side with what the user's model says of its images.

    Args:
        side: the images.
        table: columns ``sample_id``, ``name`` and, where known, ``confidence``.

    Raises:
        InputError: a column is missing, or no row is about an image of the side.
    """
    missing = [name for name in ("sample_id", "name") if name not in table]
    if missing:
        raise InputError(
            f"The predictions of {side.name} have no column {missing[0]!r}; they have {list(table.columns)}.",
            fix="Columns: sample_id, name and, where known, confidence.",
        )
    best = table.sort_values("confidence", ascending=False, kind="stable") if "confidence" in table else table
    best = best.drop_duplicates("sample_id").set_index("sample_id")
    said = best["name"].reindex(side.images.index)
    if said.isna().all():
        raise InputError(
            f"The predictions name {str(best.index[0])!r}, and no image of {side.name} is called that."
            if len(best)
            else f"The predictions of {side.name} are empty.",
            fix=f"Sample ids are written like {side.images.index[0]!r}.",
        )
    said = said.astype(object).where(said.notna(), None)
    if "confidence" not in best:
        return replace(side, predictions=said)
    confidence = pd.to_numeric(best["confidence"], errors="coerce").reindex(side.images.index)
    return replace(side, predictions=said, confidence=confidence)
