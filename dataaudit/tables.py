"""Tables <-> FiftyOne: files become a persistent `fiftyone.Dataset`, and a dataset becomes tables."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from dataaudit import formats
from dataaudit.decode import digest_of
from dataaudit.errors import InputError, nearest
from dataaudit.formats import _detections, fiftyone_dataset
from dataaudit.formats._detections import ATTRIBUTES, OBJECT_ID, flattened
from dataaudit.formats._fiftyone import connect
from dataaudit.formats._objects_shown import documents_of, joined, sizes_of, updated
from dataaudit.journal import database
from dataaudit.types import Locator, Source, Tables

if TYPE_CHECKING:
    import fiftyone as fo

__all__ = ["dataset_name", "predictions_of", "read", "source_of", "write"]

LABELS = "ground_truth"
INFO, ID, DIGEST = "dataaudit", OBJECT_ID, "dataaudit_digest"
_BETWEEN = "\x1f"
_BATCH = 10_000  # images whose objects are in memory at a time
_KINDS = {"classification": "Classification", "multilabel": "Classifications", "detection": "Detections"}
_LABEL = {"classification": f"{LABELS}.label", "multilabel": f"{LABELS}.classifications.label"}


def dataset_name(source: Source) -> str:
    """Name of the FiftyOne dataset of a source: the folder's name and a few letters for where it is.

    Two folders of the same name have different ones, and the same folder always the same.
    """
    if source.root is None:
        return source.path
    if source.dataset is not None:
        return source.dataset
    where = hashlib.md5(str(Path(source.path).resolve()).encode(), usedforsecurity=False).hexdigest()[:6]
    revision = f"@{source.options['rev']}" if "rev" in source.options else ""
    return f"{Path(source.path).stem}-{where}{revision}"


def write(tables: Tables, *, name: str | None = None) -> fo.Dataset:
    """Bring the persistent FiftyOne dataset of these tables up to date; it is made when it isn't there.

    What people added to it, such as tags and fields, stays. An image that was moved keeps its sample:
    it is known by its path, or else by its content. Media is never copied.

    Args:
        tables: tables with a source.
        name: name of the dataset; made from the source by default.

    Raises:
        InputError: tables without a source and without a name; or the dataset of that name holds something
            else.
        MissingDependencyError: FiftyOne has no database.
    """
    source = tables.source
    if source is None and name is None:
        raise InputError(
            "These tables have no source to name the FiftyOne dataset after.", fix="Give a name."
        )
    fiftyone = connect()
    if source is not None and source.root is None:
        return fiftyone.load_dataset(source.path)
    if name is None:
        assert source is not None
        name = dataset_name(source)
    dataset = fiftyone.load_dataset(name) if fiftyone.dataset_exists(name) else fiftyone.Dataset(name)
    _refuse_another(dataset, source)
    _declare(dataset, fiftyone, tables.task)
    _update(dataset, tables)
    if tables.task == "detection":
        _update_objects(dataset, tables, fiftyone)
    if list(dataset.default_classes) != list(tables.classes):
        dataset.default_classes = list(tables.classes)
    known = {**dataset.info.get(INFO, {}), "source": None if source is None else _plain(source)}
    if dataset.info.get(INFO) != known:
        dataset.info[INFO] = known
        dataset.save()
    return dataset


def _refuse_another(dataset: fo.Dataset, source: Source | None) -> None:
    """Bringing a dataset up to date takes samples out of it, so it must be the one of these files."""
    if not len(dataset):
        return
    if "source" not in dataset.info.get(INFO, {}):
        raise InputError(
            f"There is a FiftyOne dataset {dataset.name!r} already, which wasn't loaded from these files.",
            fix="Give another name.",
        )
    known = source_of(dataset)
    if known is None or source is None or not Path(known.path).exists():
        return
    same_place = Path(known.path).resolve() == Path(source.path).resolve()
    if not same_place or known.options.get("rev") != source.options.get("rev"):
        revision = f" at {known.options['rev']}" if "rev" in known.options else ""
        raise InputError(
            f"The FiftyOne dataset {dataset.name!r} holds {known.path}{revision}; expected {source.path}.",
            fix="Give another name.",
        )


def _declare(dataset: fo.Dataset, fiftyone: Any, task: str) -> None:
    dataset.persistent = True
    there = dataset.get_field_schema()
    for field in (ID, DIGEST, "split"):
        if field not in there:
            dataset.add_sample_field(field, fiftyone.StringField)
    kind = getattr(fiftyone, _KINDS[task])
    if LABELS in there and LABELS not in dataset.get_field_schema(embedded_doc_type=kind):
        # The files are read in another way than before; they hold the labels
        dataset.delete_sample_field(LABELS)
        del there[LABELS]
    if LABELS not in there:
        dataset.add_sample_field(LABELS, fiftyone.EmbeddedDocumentField, embedded_doc_type=kind)


def _plain(source: Source) -> dict[str, Any]:
    return {
        **asdict(source),
        "root": str(source.root),
        "anchor": str(source.anchor),
        "options": dict(source.options),
        "dataset": None,
    }


def source_of(dataset: fo.Dataset) -> Source | None:
    """The files that a FiftyOne dataset was loaded from; None for one that lives in FiftyOne alone."""
    known = dataset.info.get(INFO, {}).get("source")
    if known is None:
        return None
    return Source(**{**known, "root": Path(known["root"]), "anchor": Path(known["anchor"])})


def _update(dataset: fo.Dataset, tables: Tables) -> None:
    several = tables.task == "multilabel"
    wanted = tables.images.assign(label=_labels(tables))
    columns = ["id", ID, "filepath", _LABEL.get(tables.task, ID), "split", DIGEST]
    rows = list(zip(*dataset.values(columns), strict=True)) if len(dataset) else []
    if several:
        rows = [(*row[:3], _joined(row[3]), *row[4:]) for row in rows]
    elif tables.task not in _LABEL:  # objects are no class of the image
        rows = [(*row[:3], None, *row[4:]) for row in rows]
    have = pd.DataFrame(
        rows, columns=["id", "sample_id", "filepath", "label", "split", "digest"], dtype=object
    )
    # Samples that a person added or cloned stay as they are
    have = have[have["sample_id"].notna()].drop_duplicates("sample_id").set_index("sample_id")
    new = wanted.index[~wanted.index.isin(have.index)]
    wanted = wanted.assign(digest=_with_digests(wanted["digest"], wanted.loc[new, "filepath"]))
    have = _follow_moves(have, wanted)
    gone = have.index.difference(wanted.index)
    if len(gone):
        dataset.delete_samples(have.loc[gone, "id"].tolist())
    both = wanted.index[wanted.index.isin(have.index)]
    _set_changed(dataset, have.loc[both], wanted.loc[both], several=several)
    new = wanted.index[~wanted.index.isin(have.index)]
    if len(new):
        _add(dataset, wanted.loc[new], several=several)


def _labels(tables: Tables) -> pd.Series[Any]:
    """The class of each sample; of a multi-label dataset its classes, joined."""
    labels = tables.labels
    if tables.task == "detection":
        return pd.Series(None, index=tables.images.index, dtype=object)
    if tables.task != "multilabel":
        return labels.drop_duplicates("sample_id").set_index("sample_id")["name"].reindex(tables.images.index)
    named = labels.dropna(subset="name").groupby("sample_id")["name"].agg(list)
    return named.map(_joined).reindex(tables.images.index)


def _joined(names: Sequence[str | None] | None) -> str | None:
    """A set of classes as one text; None for none."""
    return _BETWEEN.join(sorted({name for name in names or () if name is not None})) or None


def _with_digests(digests: pd.Series[Any], new: pd.Series[str]) -> pd.Series[Any]:
    """The digests, filled in for `new` files, so that a file that moved is known by its content."""
    unread = new[digests.loc[new.index].isna().to_numpy()]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(_digest_of_file, unread))
    filled = digests.astype(object)
    filled.loc[unread.index] = found
    return filled


def _digest_of_file(path: str) -> str | None:
    try:
        return digest_of(Path(path).read_bytes())
    except OSError:
        return None


def _follow_moves(have: pd.DataFrame, wanted: pd.DataFrame) -> pd.DataFrame:
    """Give samples whose file is gone the new id of a file with the same content."""
    gone = have.loc[~have.index.isin(wanted.index) & have["digest"].notna().to_numpy()]
    by_digest: dict[str, list[str]] = {}
    for sample_id, digest in wanted.loc[~wanted.index.isin(have.index), "digest"].items():
        by_digest.setdefault(digest, []).append(str(sample_id))
    moved = {old: by_digest[digest].pop(0) for old, digest in gone["digest"].items() if by_digest.get(digest)}
    return have.assign(moved=have.index.isin(list(moved))).rename(index=moved)


def _set_changed(dataset: fo.Dataset, have: pd.DataFrame, wanted: pd.DataFrame, *, several: bool) -> None:
    moved = have[have["moved"].to_numpy(dtype=bool)]
    if len(moved):
        dataset.set_values(ID, dict(zip(moved["id"], moved.index, strict=True)), key_field="id")
    splits = _changed(have, wanted, "split")
    if splits:
        _retag(dataset, dict(zip(have["id"], have["split"], strict=True)), splits)
        dataset.set_values("split", splits, key_field="id")
    paths = _changed(have, wanted, "filepath")
    if paths:
        dataset.set_values("filepath", paths, key_field="id")
    digests = {key: value for key, value in _changed(have, wanted, "digest").items() if value is not None}
    if digests:
        dataset.set_values(DIGEST, digests, key_field="id")
    labels = _changed(have, wanted, "label")
    if labels and several:
        _set_labels(dataset, labels)
    elif labels:
        database.assign(dataset.name, LABELS, labels)
        dataset.reload()


def _set_labels(dataset: fo.Dataset, labels: Mapping[str, str | None]) -> None:
    """Give samples other sets of classes; labels of classes that stay are as they were."""
    new: dict[str, str | None] = {}
    for sample, document in database.fields(dataset.name, LABELS, list(labels)).items():
        wanted = (labels[sample] or "").split(_BETWEEN)
        have = database.classes_of(document)
        added = [name for name in wanted if name and name not in have]
        new[sample] = database.relabeled(document, removed=set(have) - set(wanted), added=added)
    database.put(dataset.name, LABELS, new)
    dataset.reload()


def _changed(have: pd.DataFrame, wanted: pd.DataFrame, column: str) -> dict[str, Any]:
    """The new value of each sample, by its FiftyOne id, where the column differs."""
    rows: Iterable[Any] = zip(have["id"], have[column], wanted[column], strict=True)
    return {
        each: None if pd.isna(new) else new
        for each, old, new in rows
        if not (old == new or (pd.isna(old) and pd.isna(new)))
    }


def _retag(dataset: fo.Dataset, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    for split in _names(old[each] for each in new):
        dataset.select([each for each in new if old[each] == split]).untag_samples(split)
    for split in _names(new.values()):
        dataset.select([each for each, name in new.items() if name == split]).tag_samples(split)


def _names(splits: Iterable[Any]) -> list[str]:
    return sorted({split for split in splits if not pd.isna(split)})


def _add(dataset: fo.Dataset, new: pd.DataFrame, *, several: bool) -> None:
    import fiftyone

    def label(joined: Any) -> Any:
        if several:
            names = [] if pd.isna(joined) else joined.split(_BETWEEN)
            return fiftyone.Classifications(
                classifications=[fiftyone.Classification(label=name) for name in names]
            )
        return None if pd.isna(joined) else fiftyone.Classification(label=joined)

    rows: Iterable[Any] = new.itertuples()
    samples = [
        fiftyone.Sample(
            filepath=row.filepath,
            tags=[] if pd.isna(row.split) else [row.split],
            **{
                LABELS: label(row.label),
                ID: row.Index,
                DIGEST: None if pd.isna(row.digest) else row.digest,
                "split": None if pd.isna(row.split) else row.split,
            },
        )
        for row in rows
    ]
    dataset.add_samples(samples, progress=False)


def _update_objects(dataset: fo.Dataset, tables: Tables, fiftyone: Any) -> None:
    used = [attribute for flag, attribute in ATTRIBUTES.items() if tables.labels[flag].any()]
    there = dataset.get_field_schema(flat=True)
    for name, kind in ((ID, fiftyone.StringField), *((name, fiftyone.BooleanField) for name in used)):
        if f"{LABELS}.detections.{name}" not in there:
            dataset.add_sample_field(f"{LABELS}.detections.{name}", kind)
    ids, known = dataset.values(["id", ID])
    own = {sample_id: each for each, sample_id in reversed(list(zip(ids, known, strict=True)))}
    metadata = database.contents(dataset.name, "metadata")
    shown = {sample_id: metadata.get(each) or {} for sample_id, each in own.items() if sample_id is not None}
    sizes = sizes_of(tables, shown)
    sample_ids = tables.images.index
    for start in range(0, len(sample_ids), _BATCH):
        part = sample_ids[start : start + _BATCH]
        labels = tables.labels[tables.labels["sample_id"].isin(part)]
        some = replace(tables, images=tables.images.loc[part], labels=labels)
        new = _changed_objects(dataset, some, sizes.loc[part], own, used)
        for sample_id, width, height in zip(
            part, sizes.loc[part, "width"].tolist(), sizes.loc[part, "height"].tolist(), strict=True
        ):
            size = {"width": width, "height": height}
            if width == width and size != {side: shown[sample_id].get(side) for side in size}:
                whole = {side: int(pixels) for side, pixels in size.items()}
                content = {"_cls": "ImageMetadata", **shown[sample_id], **whole}
                new.setdefault(own[sample_id], {})["metadata"] = content
        if new:
            database.set_contents(dataset.name, new)
    dataset.reload()


def _changed_objects(
    dataset: fo.Dataset, tables: Tables, sizes: pd.DataFrame, own: Mapping[Any, str], used: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """The field of each sample whose objects differ from those in FiftyOne, by FiftyOne's id."""
    have = database.contents(dataset.name, LABELS, [own[each] for each in tables.images.index])
    new: dict[str, dict[str, Any]] = {}
    for sample_id, wanted in documents_of(tables, sizes).items():
        content = have.get(own[sample_id])
        detections = updated(None if content is None else content.get("detections") or [], wanted, used)
        if detections is not None:
            new[own[sample_id]] = {LABELS: {**(content or {"_cls": "Detections"}), "detections": detections}}
    return new


def read(dataset: fo.Dataset, *, label_field: str | None = None) -> Tables:
    """Tables of a FiftyOne dataset.

    For a dataset that was loaded from files, ids and places of the labels are those of the files, so that
    fixes go there; its labels are the ones in FiftyOne.

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
    ids = pd.Series(dataset.values(ID), index=tables.images.index, dtype=object)
    if ids.isna().any() or not ids.is_unique:
        return tables
    if tables.task == "detection":
        return _objects_of_files(dataset, tables, ids, source)
    images = tables.images.set_axis(pd.Index(ids.to_numpy(), name="sample_id"))
    owners = ids.loc[tables.labels["sample_id"]].tolist()
    keys = owners
    if tables.task == "multilabel":
        names = tables.labels["name"]
        keys = [own if name is None else f"{own}:{name}" for own, name in zip(owners, names, strict=True)]
    labels = tables.labels.set_axis(pd.Index(keys, name="label_id"))
    locators = _locators(source, keys, owners)
    labels = labels.assign(sample_id=owners, locator=pd.Series(locators, index=labels.index, dtype=object))
    source = replace(source, dataset=dataset.name)
    return replace(tables, images=images.sort_index(), labels=labels.sort_index(), source=source)


def _objects_of_files(dataset: fo.Dataset, found: Tables, ids: pd.Series[str], source: Source) -> Tables:
    """Tables of objects that were loaded from files: what they are as in FiftyOne, the rest as in the files.

    Args:
        dataset: the dataset.
        found: its tables as they are read from FiftyOne alone.
        ids: sample ids by FiftyOne's.
        source: of the files.
    """
    inside = f"{LABELS}.detections"
    keys, own = (flattened(each) for each in dataset.values([f"{inside}.id", f"{inside}.{ID}"]))
    own_ids = pd.Series(own, index=pd.Index(keys, dtype=object), dtype=object)
    shown = own_ids.loc[[locator.item for locator in found.labels["locator"]]]
    if shown.isna().any() or not shown.is_unique:
        return found
    images = found.images.set_axis(pd.Index(ids.to_numpy(), name="sample_id"))
    labels = found.labels.set_axis(pd.Index(shown.to_numpy(), name="label_id", dtype=object))
    labels = labels.assign(sample_id=ids.loc[labels["sample_id"]].to_numpy())
    source = replace(source, dataset=dataset.name)
    if "rev" in source.options or not Path(source.path).exists():
        places = pd.Series([Locator(file=each) for each in images.index], index=images.index, dtype=object)
        labels = labels.assign(locator=places.loc[labels["sample_id"]].to_numpy())
        return replace(found, images=images.assign(locator=places), labels=labels, source=source)
    files = formats.read(source.path, format=source.format, options=source.options)
    return joined(files, replace(found, images=images, labels=labels, source=source))


def _locators(source: Source, label_ids: Sequence[str], sample_ids: Sequence[str]) -> list[Locator]:
    known: dict[str, Locator] = {}
    if source.format != "folder" and Path(source.path).exists():
        files = formats.read(source.path, format=source.format, options=source.options)
        known = dict(zip(files.labels["sample_id"], files.labels["locator"], strict=True))
        known |= dict(zip(files.labels.index, files.labels["locator"], strict=True))
    return [
        known.get(label_id, known.get(sample_id, Locator(file=sample_id)))
        for label_id, sample_id in zip(label_ids, sample_ids, strict=True)
    ]


def predictions_of(dataset: fo.Dataset, field: str, *, samples: pd.Index[Any] | None = None) -> pd.DataFrame:
    """The predictions in a field of FiftyOne.

    Args:
        dataset: a dataset of images.
        field: name of a `Detections` field whose detections have confidences.
        samples: the sample ids of the tables that the predictions go with; by default those of `read`.

    Returns:
        A row a detection, in the order of the dataset: ``sample_id``, ``name`` (class), ``confidence`` in
        [0, 1] and the corners ``x1``, ``y1``, ``x2``, ``y2``, relative to the image. Crowds are left out.

    Raises:
        InputError: no such field, or a detection without a class, a confidence or a box.
    """
    import fiftyone

    fields = sorted(dataset.get_field_schema(embedded_doc_type=fiftyone.Detections))
    if field not in fields:
        raise InputError(
            f"The FiftyOne dataset {dataset.name!r} has no Detections field {field!r}. "
            f"{nearest(field, fields)}"
        )
    return _detections.predictions(dataset, field, _sample_ids(dataset, samples))


def _sample_ids(dataset: fo.Dataset, samples: pd.Index[Any] | None) -> list[str | None]:
    """The sample id of each sample in tables of the dataset; None for one that isn't in them."""
    ids = list(dataset.values("id"))
    known = dataset.values(ID) if ID in dataset.get_field_schema() else [None] * len(ids)
    if samples is not None:
        wanted = set(samples)
        ids, known = ([each if each in wanted else None for each in own] for own in (ids, known))
        return list(known) if any(each is not None for each in known) else ids
    from_files = source_of(dataset) is not None and None not in known and len(set(known)) == len(known)
    return list(known) if from_files else ids
