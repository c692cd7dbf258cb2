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
    "delete",
    "documents",
    "fields",
    "id_of",
    "put",
    "relabeled",
    "restore",
]


def documents(name: str, ids: Sequence[str]) -> tuple[str, ...]:
    """The samples `ids` of the dataset `name` as extended JSON."""
    from bson import ObjectId, json_util

    found = _dataset(name)._sample_collection.find({"_id": {"$in": [ObjectId(each) for each in ids]}})
    return tuple(json_util.dumps(each, json_options=json_util.CANONICAL_JSON_OPTIONS) for each in found)


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
    from bson import ObjectId, json_util

    collection = _dataset(name)._sample_collection
    found = collection.find({"_id": {"$in": [ObjectId(each) for each in ids]}}, {field: True})
    options = json_util.CANONICAL_JSON_OPTIONS
    values = {str(each["_id"]): each.get(field) for each in found}
    return {
        key: None if value is None else json_util.dumps(value, json_options=options)
        for key, value in values.items()
    }


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
    from bson import ObjectId, json_util
    from pymongo import UpdateOne

    options = json_util.CANONICAL_JSON_OPTIONS
    dataset = _dataset(name)
    dataset._sample_collection.bulk_write(
        [
            UpdateOne(
                {"_id": ObjectId(sample)},
                {"$set": {field: None if text is None else json_util.loads(text, json_options=options)}},
            )
            for sample, text in new.items()
        ]
    )
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
    from bson import ObjectId, json_util

    options = json_util.CANONICAL_JSON_OPTIONS
    found: dict[str, Any] = {"_cls": "Classifications", "classifications": []}
    if document is not None:
        found = json_util.loads(document, json_options=options)
    labels = [label for label in found.get("classifications") or [] if label.get("label") not in removed]
    labels = [
        {**label, "label": (renamed or {}).get(label.get("label"), label.get("label"))} for label in labels
    ]
    labels += [{"_id": ObjectId(), "_cls": "Classification", "tags": [], "label": name} for name in added]
    return str(json_util.dumps({**found, "classifications": labels}, json_options=options))


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
    from bson import json_util

    dataset = _dataset(name)
    there = set(dataset.values("id"))
    missing = [
        json_util.loads(each, json_options=json_util.CANONICAL_JSON_OPTIONS)
        for each in samples
        if id_of(each) not in there
    ]
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
