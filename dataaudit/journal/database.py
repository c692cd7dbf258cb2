"""Labels and samples of a FiftyOne dataset, read and changed in bulk."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from dataaudit.errors import ConflictError

__all__ = [
    "assign",
    "check_documents",
    "check_labels",
    "check_samples",
    "classes_of",
    "contents",
    "delete",
    "documents",
    "dumped",
    "fields",
    "id_of",
    "parsed",
    "put",
    "relabeled",
    "restore",
    "set_contents",
]


def documents(name: str, ids: Sequence[str]) -> tuple[str, ...]:
    """The samples `ids` of the dataset `name` as extended JSON."""
    from bson import ObjectId

    found = _dataset(name)._sample_collection.find({"_id": {"$in": [ObjectId(each) for each in ids]}})
    return tuple(dumped(each) for each in found)


def id_of(document: str) -> str:
    """The id of a sample's document."""
    return str(json.loads(document)["_id"]["$oid"])


def check_labels(name: str, field: str, expected: Mapping[str, str | None]) -> None:
    """Raise ConflictError where a label of `field` isn't as `expected`."""
    ids, names = _dataset(name).values(["id", f"{field}.label"])
    now = dict(zip(ids, names, strict=True))
    for sample, old in expected.items():
        if sample not in now or now[sample] != old:
            raise ConflictError(
                f"The label of sample {sample} in {field!r} is {now.get(sample)!r}; expected {old!r}.",
                where=f"FiftyOne dataset {name}",
                fix="Nothing was changed. Audit again.",
            )


def fields(name: str, field: str, ids: Collection[str]) -> dict[str, str | None]:
    """The documents of a field in extended JSON by sample id; None where there is none."""
    return {
        key: None if value is None else dumped(value) for key, value in contents(name, field, ids).items()
    }


def contents(
    name: str, field: str, ids: Collection[str] | None = None, *, without: Sequence[str] = ()
) -> dict[str, Any]:
    """The documents of a field as they are stored, by sample id; None where there is none.

    Args:
        name: of the dataset.
        field: name of a field of its samples.
        ids: of samples; None for all.
        without: what is left out of each document, such as ``detections.mask``.
    """
    from bson import ObjectId

    wanted = {} if ids is None else {"_id": {"$in": [ObjectId(each) for each in ids]}}
    found = _dataset(name)._sample_collection.find(wanted, {field: True})
    if without:
        left_out = [{"$unset": [f"{field}.{each}" for each in without]}]
        pipeline = [{"$match": wanted}, {"$project": {field: True}}, *left_out]
        found = _dataset(name)._sample_collection.aggregate(pipeline)
    return {str(each["_id"]): each.get(field) for each in found}


def parsed(document: str) -> Any:
    """What a document in extended JSON holds."""
    from bson import json_util

    return json_util.loads(document, json_options=json_util.CANONICAL_JSON_OPTIONS)


def dumped(content: Any) -> str:
    """Extended JSON of a document, from which it comes back with the same types."""
    from bson import json_util

    return str(json_util.dumps(content, json_options=json_util.CANONICAL_JSON_OPTIONS))


def classes_of(document: str | None) -> list[str]:
    """The classes in the document of a `Classifications` field, each once."""
    labels = json.loads(document).get("classifications") or [] if document is not None else []
    return list(dict.fromkeys(label["label"] for label in labels if label.get("label") is not None))


def check_documents(name: str, field: str, expected: Mapping[str, str | None]) -> None:
    """Raise ConflictError where a document of `field` isn't as `expected`."""
    now = fields(name, field, list(expected))
    for sample, old in expected.items():
        if sample not in now or now[sample] != old:
            raise ConflictError(
                f"The labels of sample {sample} in {field!r} have changed, or the sample is gone.",
                where=f"FiftyOne dataset {name}",
                fix="Nothing was changed. Audit again.",
            )


def put(name: str, field: str, new: Mapping[str, str | None]) -> None:
    """Set the documents of a field."""
    values = {sample: None if text is None else parsed(text) for sample, text in new.items()}
    set_contents(name, {sample: {field: value} for sample, value in values.items()})


def set_contents(
    name: str,
    new: Mapping[str, Mapping[str, Any]],
    *,
    gone: Mapping[str, Collection[str]] | None = None,
    where: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Set parts of samples as they are stored, in bulk.

    Args:
        name: of the dataset.
        new: paths, such as ``ground_truth.detections.0.tags``, and their values by sample id.
        gone: paths to take away by sample id.
        where: paths and the values that they must have, by sample id; a sample where one has another is left
            as it is.
    """
    from bson import ObjectId
    from pymongo import UpdateOne

    dataset = _dataset(name)
    updates = []
    for sample in dict.fromkeys([*new, *(gone or ())]):
        change: dict[str, Any] = {}
        if new.get(sample):
            change["$set"] = dict(new[sample])
        if gone and gone.get(sample):
            change["$unset"] = dict.fromkeys(gone[sample], "")
        if change:
            updates.append(UpdateOne({"_id": ObjectId(sample), **(where or {}).get(sample, {})}, change))
    if updates:
        dataset._sample_collection.bulk_write(updates, ordered=False)
    dataset.reload()


def relabeled(
    document: str | None,
    removed: Collection[str | None] = (),
    renamed: Mapping[str | None, str] | None = None,
    added: Sequence[str] = (),
) -> str:
    """The document of a `Classifications` field with other classes; the labels that stay are as they were.

    Args:
        document: in extended JSON; None for a sample without labels.
        removed: classes to take out.
        renamed: old to new class.
        added: classes to append.
    """
    from bson import ObjectId

    found: dict[str, Any] = {"_cls": "Classifications", "classifications": []}
    if document is not None:
        found = parsed(document)
    labels = [label for label in found.get("classifications") or [] if label.get("label") not in removed]
    labels = [
        {**label, "label": (renamed or {}).get(label.get("label"), label.get("label"))} for label in labels
    ]
    labels += [{"_id": ObjectId(), "_cls": "Classification", "tags": [], "label": name} for name in added]
    return dumped({**found, "classifications": labels})


def check_samples(name: str, ids: Sequence[str], *, present: bool) -> None:
    """Raise ConflictError where one of `ids` is gone (or, with `present` False, still there)."""
    there = set(_dataset(name).values("id"))
    for sample in ids:
        if (sample in there) != present:
            raise ConflictError(
                f"The sample {sample} is {'gone' if present else 'there already'}.",
                where=f"FiftyOne dataset {name}",
                fix="Nothing was changed. Audit again.",
            )


def assign(name: str, field: str, new: Mapping[str, str | None]) -> None:
    """Set labels; other attributes of an existing label, such as its confidence, stay."""
    import fiftyone

    dataset = _dataset(name)
    ids, present = dataset.select(list(new)).values(["id", f"{field}.label"])
    empty = {each for each, label in zip(ids, present, strict=True) if label is None}
    named = {each: label for each, label in new.items() if label is not None}
    whole: dict[str, Any] = {
        each: fiftyone.Classification(label=label) for each, label in named.items() if each in empty
    }
    whole |= {each: None for each, label in new.items() if label is None}
    cells = {each: label for each, label in named.items() if each not in empty}
    if cells:
        dataset.set_values(f"{field}.label", cells, key_field="id")
    if whole:
        dataset.set_values(field, whole, key_field="id")


def delete(name: str, ids: Sequence[str]) -> None:
    """Delete those of `ids` that are still there."""
    dataset = _dataset(name)
    dataset.delete_samples(sorted(set(dataset.values("id")) & set(ids)))


def restore(name: str, samples: Sequence[str]) -> None:
    """Put those documents back that are not there."""
    dataset = _dataset(name)
    there = set(dataset.values("id"))
    missing = [parsed(each) for each in samples if id_of(each) not in there]
    if missing:
        # The public way gives a sample that comes back a new id, which findings and views don't know
        dataset._sample_collection.insert_many(missing)
    dataset.reload()


def _dataset(name: str) -> Any:
    os.environ.setdefault("FIFTYONE_DO_NOT_TRACK", "true")
    import fiftyone

    if not fiftyone.dataset_exists(name):
        raise ConflictError(f"There is no FiftyOne dataset {name!r} any more.", fix="Nothing was changed.")
    return fiftyone.load_dataset(name)
