"""Tables <-> FiftyOne: a dataset of files becomes a persistent `fiftyone.Dataset`, and a dataset becomes tables."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from dataaudit import formats
from dataaudit.decode import digest_of
from dataaudit.errors import InputError
from dataaudit.formats import fiftyone_dataset
from dataaudit.formats._fiftyone import connect
from dataaudit.journal import database
from dataaudit.types import Locator, Source, Tables

if TYPE_CHECKING:
    import fiftyone as fo

__all__ = ["dataset_name", "read", "source_of", "write"]

LABELS = "ground_truth"
ID, DIGEST = "dataaudit_id", "dataaudit_digest"


def dataset_name(source: Source) -> str:
    """Name of the FiftyOne dataset of a source: the folder's name and a few letters for where it is.

    Two folders of the same name have different ones, and the same folder always the same.
    """
    if source.root is None:
        return source.path
    where = hashlib.md5(str(Path(source.path).resolve()).encode(), usedforsecurity=False).hexdigest()[:6]
    revision = f"@{source.options['rev']}" if "rev" in source.options else ""
    return f"{Path(source.path).stem}-{where}{revision}"


def write(tables: Tables, *, name: str | None = None) -> fo.Dataset:
    """Bring the persistent FiftyOne dataset of these tables up to date; it is made when it isn't there.

    What people added to it, such as tags and fields, stays. An image that was moved keeps its sample: it is known by its
    content, or else by its path. Media is never copied.

    Args:
        tables: tables with a source.
        name: name of the dataset; made from the source by default.

    Raises:
        InputError: tables without a source and without a name; or a dataset of that name that is not this source's.
        MissingDependencyError: FiftyOne has no database.
    """
    source = tables.source
    if source is None and name is None:
        raise InputError("These tables have no source to name the FiftyOne dataset after.", fix="Give a name.")
    fiftyone = connect()
    name = name if name is not None or source is None else dataset_name(source)
    if source is not None and source.root is None:
        return fiftyone.load_dataset(source.path)
    dataset = fiftyone.load_dataset(name) if fiftyone.dataset_exists(name) else fiftyone.Dataset(name)
    if len(dataset) and "dataaudit" not in dataset.info:
        raise InputError(f"There is a FiftyOne dataset {name!r} already, which wasn't made here.", fix="Give another name.")
    dataset.persistent = True
    for field in (ID, DIGEST, "split"):
        if field not in dataset.get_field_schema():
            dataset.add_sample_field(field, fiftyone.StringField)
    if LABELS not in dataset.get_field_schema():
        dataset.add_sample_field(LABELS, fiftyone.EmbeddedDocumentField, embedded_doc_type=fiftyone.Classification)
    _update(dataset, tables)
    if list(dataset.default_classes) != list(tables.classes):
        dataset.default_classes = list(tables.classes)
    info = {"source": _plain(source)} if source is not None else {}
    if dataset.info.get("dataaudit", {}).get("source") != info.get("source") or not dataset.info:
        dataset.info["dataaudit"] = {**dataset.info.get("dataaudit", {}), **info}
        dataset.save()
    return dataset


def _plain(source: Source) -> dict[str, Any]:
    return {**asdict(source), "root": str(source.root), "anchor": str(source.anchor), "options": dict(source.options)}


def source_of(dataset: fo.Dataset) -> Source | None:
    """The files that a FiftyOne dataset was loaded from; None for one that lives in FiftyOne alone."""
    known = dataset.info.get("dataaudit", {}).get("source")
    if known is None:
        return None
    return Source(**{**known, "root": Path(known["root"]), "anchor": Path(known["anchor"])})


def _update(dataset: fo.Dataset, tables: Tables) -> None:
    wanted = tables.images.assign(
        label=tables.labels.drop_duplicates("sample_id").set_index("sample_id")["name"].reindex(tables.images.index)
    )
    columns = ["id", ID, "filepath", f"{LABELS}.label", "split", DIGEST]
    rows = list(zip(*dataset.values(columns), strict=True)) if len(dataset) else []
    have = pd.DataFrame(rows, columns=["id", "sample_id", "filepath", "label", "split", "digest"], dtype=object)
    have = have.drop_duplicates("sample_id").set_index("sample_id")
    have = _follow_moves(have, wanted)
    gone = have.index.difference(wanted.index)
    if len(gone):
        dataset.delete_samples(have.loc[gone, "id"].tolist())
    both = wanted.index[wanted.index.isin(have.index)]
    _set_changed(dataset, have.loc[both], wanted.loc[both])
    new = wanted.loc[~wanted.index.isin(have.index)]
    if len(new):
        _add(dataset, new)


def _follow_moves(have: pd.DataFrame, wanted: pd.DataFrame) -> pd.DataFrame:
    """Give samples whose file is gone the new id of a file with the same content."""
    gone = have.loc[~have.index.isin(wanted.index) & have["digest"].notna().to_numpy()]
    appeared = wanted.index[~wanted.index.isin(have.index)]
    if not len(gone) or not len(appeared):
        return have
    by_digest: dict[str, list[str]] = {}
    for sample_id in appeared:
        digest = wanted.at[sample_id, "digest"] or _digest_of_file(wanted.at[sample_id, "filepath"])
        by_digest.setdefault(digest, []).append(sample_id)
    moved = {old: by_digest[digest].pop(0) for old, digest in gone["digest"].items() if by_digest.get(digest)}
    return have.rename(index=moved).assign(moved=[old in moved for old in have.index])


def _digest_of_file(path: str) -> str:
    try:
        return digest_of(Path(path).read_bytes())
    except OSError:
        return ""


def _set_changed(dataset: fo.Dataset, have: pd.DataFrame, wanted: pd.DataFrame) -> None:
    def changed(column: str) -> dict[str, Any]:
        old, new = have[column], wanted[column]
        rows = [
            (sample_id, None if pd.isna(b) else b)
            for sample_id, a, b in zip(have["id"], old, new, strict=True)
            if not (a == b or (pd.isna(a) and pd.isna(b)))
        ]
        return dict(rows)

    if "moved" in have:
        moved = have[have["moved"].to_numpy(dtype=bool)]
        if len(moved):
            dataset.set_values(ID, dict(zip(moved["id"], moved.index, strict=True)), key_field="id")
    for column, field in (("filepath", "filepath"), ("split", "split"), ("digest", DIGEST)):
        values = changed(column)
        if column == "digest":
            values = {key: value for key, value in values.items() if value is not None}
        if values:
            dataset.set_values(field, values, key_field="id")
    labels = changed("label")
    if labels:
        database.assign(dataset.name, LABELS, labels)
        dataset.reload()


def _add(dataset: fo.Dataset, new: pd.DataFrame) -> None:
    import fiftyone

    samples = [
        fiftyone.Sample(
            filepath=row.filepath,
            tags=[] if pd.isna(row.split) else [row.split],
            **{
                LABELS: None if pd.isna(row.label) else fiftyone.Classification(label=row.label),
                ID: row.Index,
                DIGEST: None if pd.isna(row.digest) else row.digest,
                "split": None if pd.isna(row.split) else row.split,
            },
        )
        for row in new.itertuples()
    ]
    dataset.add_samples(samples, progress=False)


def read(dataset: fo.Dataset, *, label_field: str | None = None) -> Tables:
    """Tables of a FiftyOne dataset.

    For a dataset that was loaded from files, ids and places of the labels are those of the files, so that fixes go there;
    its labels are the ones in FiftyOne.

    Args:
        dataset: a dataset of images.
        label_field: the `Classification` field, where there are several.

    Raises:
        InputError: no such field, or several and none is named.
    """
    source = source_of(dataset)
    tables = fiftyone_dataset.from_dataset(dataset, label_field=label_field)
    if source is None or (label_field or LABELS) != LABELS:
        return tables
    ids = pd.Series(dataset.values(ID), index=tables.images.index)
    if ids.isna().any() or not ids.is_unique:
        return tables
    locators = _locators(source, ids.tolist())
    images = tables.images.set_axis(pd.Index(ids.to_numpy(), name="sample_id"))
    labels = tables.labels.set_axis(pd.Index(ids.to_numpy(), name="label_id"))
    labels = labels.assign(sample_id=ids.to_numpy(), locator=pd.Series(locators, index=labels.index, dtype=object))
    return replace(tables, images=images.sort_index(), labels=labels.sort_index(), source=source)


def _locators(source: Source, ids: Sequence[str]) -> list[Locator]:
    known: Mapping[str, Locator] = {}
    if source.format != "folder" and Path(source.path).exists():
        files = formats.read(source.path, format=source.format, options=source.options)
        known = dict(zip(files.labels["sample_id"], files.labels["locator"], strict=True))
    return [known.get(sample_id, Locator(file=sample_id)) for sample_id in ids]
