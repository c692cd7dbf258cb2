"""A dataset that lives in FiftyOne: by name, or as an object."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from dataaudit import state
from dataaudit.errors import FormatError, InputError, nearest
from dataaudit.formats import _detections
from dataaudit.formats._fiftyone import connect, rewritten
from dataaudit.formats._sets import check_fixes
from dataaudit.formats._shared import new_label, set_tables
from dataaudit.journal import Assign, Delete, Operation, database
from dataaudit.types import Fix, Locator, Source, Tables

if TYPE_CHECKING:
    import fiftyone as fo

__all__ = ["DESCRIPTION", "NAME", "PROPOSED", "from_dataset", "label_field_of", "patch", "read", "sniff"]

NAME = "fiftyone"
DESCRIPTION = "The name of a FiftyOne dataset with a Classification, Classifications or Detections field."

PROPOSED = "dataaudit_proposed"
_MADE = re.compile(rf"[A-Z]{{3}}\d{{3}}_suggested|{PROPOSED}")
_KINDS = ("Classification", "Classifications", "Detections")
_SPLIT_TAGS = frozenset({"train", "training", "val", "valid", "validation", "dev", "test", "testing"})


def sniff(path: Path) -> bool:
    """Whether there is no such file, but a FiftyOne dataset of that name."""
    if path.exists() or os.sep in str(path) or path.suffix.lower() in (".csv", ".tsv", ".parquet"):
        return False
    return bool(connect().dataset_exists(str(path)))


def read(path: Path, *, options: Mapping[str, str] | None = None) -> Tables:
    """Read the FiftyOne dataset of that name.

    Args:
        path: its name.
        options: ``label_field``, the `Classification`, `Classifications` or `Detections` field; not needed
            where there is only one.
    """
    options = dict(options or {})
    label_field = options.pop("label_field", None)
    if options:
        raise InputError(f"The format {NAME!r} has no option {next(iter(options))!r}. It has label_field.")
    fo = connect()
    if not fo.dataset_exists(str(path)):
        raise FormatError(
            f"There is no FiftyOne dataset {str(path)!r}. {nearest(str(path), fo.list_datasets())}"
        )
    dataset = fo.load_dataset(str(path))
    if not len(dataset):
        raise FormatError(f"The FiftyOne dataset {dataset.name!r} has no samples.")
    return from_dataset(dataset, label_field=label_field)


def from_dataset(dataset: fo.Dataset, *, label_field: str | None = None) -> Tables:
    """Tables of a FiftyOne dataset; sample ids are FiftyOne's.

    Splits are the field ``split`` where there is one, else tags such as ``train``, ``val`` and ``test``.

    Raises:
        FormatError: not a dataset of images.
        InputError: no field of labels, or several and none is named.
    """
    if dataset.media_type not in ("image", None):
        raise FormatError(
            f"The FiftyOne dataset {dataset.name!r} holds {dataset.media_type}; expected images."
        )
    label_field = label_field_of(dataset, label_field)
    if is_several(dataset, label_field):
        return _several(dataset, label_field)
    if is_objects(dataset, label_field):
        return _detections.read(
            dataset,
            label_field,
            splits=_splits(dataset, dataset.values("tags")),
            classes=_declared(dataset, label_field),
            source=_source(dataset, label_field),
        )
    ids, filepaths, names, tags = dataset.values(["id", "filepath", f"{label_field}.label", "tags"])
    splits = _splits(dataset, tags)
    index = pd.Index(ids, name="sample_id", dtype=object)
    size = pd.Series(pd.NA, index=index, dtype="Int64")
    nothing = pd.Series([None] * len(ids), index=index, dtype=object)
    images = pd.DataFrame(
        {"filepath": filepaths, "width": size, "height": size,
         "split": pd.Series(splits, index=index, dtype=object), "digest": nothing}, index=index,
    )  # fmt: skip
    locators = [Locator(file=sample_id, field=label_field) for sample_id in ids]
    labels = pd.DataFrame(
        {"sample_id": ids, "name": pd.Series(names, index=index, dtype=object), "geometry": nothing,
         "locator": pd.Series(locators, index=index, dtype=object)},
        index=pd.Index(ids, name="label_id", dtype=object),
    )  # fmt: skip
    return Tables(
        images=images,
        labels=labels,
        classes=tuple(sorted({*_declared(dataset, label_field), *filter(None, names)})),
        source=_source(dataset, label_field),
    )


def _source(dataset: fo.Dataset, label_field: str) -> Source:
    options = {"label_field": label_field}
    return Source(format=NAME, root=None, path=dataset.name, anchor=_anchor(), options=options)


def _declared(dataset: fo.Dataset, label_field: str) -> list[str]:
    """The classes that the dataset names for a field, used or not."""
    return [str(name) for name in dataset.classes.get(label_field) or dataset.default_classes or ()]


def is_several(dataset: fo.Dataset, label_field: str) -> bool:
    """Whether a field holds any number of classes a sample."""
    import fiftyone as fo

    return label_field in dataset.get_field_schema(embedded_doc_type=fo.Classifications)


def is_objects(dataset: fo.Dataset, label_field: str) -> bool:
    """Whether a field holds objects with boxes."""
    import fiftyone as fo

    return label_field in dataset.get_field_schema(embedded_doc_type=fo.Detections)


def _several(dataset: fo.Dataset, label_field: str) -> Tables:
    """Tables of a `Classifications` field; a class that a sample has twice counts once."""
    inside = f"{label_field}.classifications"
    ids, filepaths, names, label_ids, tags = dataset.values(
        ["id", "filepath", f"{inside}.label", f"{inside}.id", "tags"]
    )
    sets: list[list[str]] = []
    locators: list[list[Locator]] = []
    for sample_id, own, keys in zip(ids, names, label_ids, strict=True):
        first: dict[str, str] = {}
        for name, key in zip(own or (), keys or (), strict=True):
            if name is not None:
                first.setdefault(name, key)
        sets.append(list(first))
        places = [Locator(file=sample_id, item=key, field=label_field) for key in first.values()]
        locators.append(places or [Locator(file=sample_id, field=label_field)])
    return set_tables(
        sample_ids=ids,
        filepaths=filepaths,
        splits=_splits(dataset, tags),
        names=sets,
        locators=locators,
        source=_source(dataset, label_field),
    )


def _splits(dataset: fo.Dataset, tags: Sequence[Sequence[str]]) -> list[str | None]:
    from fiftyone import StringField

    if isinstance(dataset.get_field_schema().get("split"), StringField):
        return list(dataset.values("split"))
    return [_split(each) for each in tags]


def label_field_of(dataset: fo.Dataset, label_field: str | None) -> str:
    """The field of labels that is named, or the only one, or ``ground_truth``."""
    import fiftyone as fo

    kinds = [getattr(fo, kind) for kind in _KINDS]
    fields = sorted(dataset.get_field_schema(embedded_doc_type=kinds))
    own = [name for name in fields if not _MADE.fullmatch(name)]
    if label_field is not None:
        if label_field in fields:
            return label_field
        other = dataset.get_field_schema().get(label_field)
        if isinstance(other, fo.EmbeddedDocumentField):
            raise InputError(
                f"The field {label_field!r} of the FiftyOne dataset {dataset.name!r} holds "
                f"{other.document_type.__name__}; expected {', '.join(_KINDS[:-1])} or {_KINDS[-1]}."
            )
        raise InputError(
            f"The FiftyOne dataset {dataset.name!r} has no {_kind_of(dataset, own)} field {label_field!r}. "
            f"{nearest(label_field, own)}"
        )
    if "ground_truth" in own or len(own) == 1:
        return "ground_truth" if "ground_truth" in own else own[0]
    if not own:
        raise InputError(
            f"The FiftyOne dataset {dataset.name!r} has no Classification field, nor one of Classifications "
            "or Detections.",
            fix="Other labels, such as Polylines and Segmentation, aren't audited so far.",
        )
    raise InputError(
        f"The FiftyOne dataset {dataset.name!r} has {len(own)} {_kind_of(dataset, own)} fields: "
        f"{', '.join(own)}; which one holds the labels?",
        fix="Give label_field (--option label_field=NAME).",
    )


def _kind_of(dataset: fo.Dataset, fields: Sequence[str]) -> str:
    kinds = {dataset.get_field(field).document_type.__name__ for field in fields}
    return "Classification" if kinds <= {"Classification", "Classifications"} else "label"


def patch(source: Source, fixes: Sequence[Fix]) -> list[Operation]:
    """The changes in the database that carry out `fixes`; nothing is changed yet."""
    field = source.options["label_field"]
    dataset = connect().load_dataset(source.path)
    if is_objects(dataset, field):
        return _detections.patch(source.path, field, fixes)
    if is_several(dataset, field):
        return rewritten(source.path, field, fixes, _set_changed)
    relabeled = [fix for fix in fixes if fix.op == "relabel"]
    removed = tuple(fix.sample_id for fix in fixes if fix.op != "relabel")
    operations: list[Operation] = []
    if relabeled:
        old = {fix.sample_id: fix.old for fix in relabeled}
        new = {fix.sample_id: fix.new for fix in relabeled}
        operations.append(Assign(dataset=source.path, field=field, old=old, new=new))
    if removed:
        operations.append(Delete(dataset=source.path, ids=removed))
    return operations


def _set_changed(document: str | None, fixes: Sequence[Fix], where: str) -> tuple[bool, str | None]:
    if check_fixes(fixes, database.classes_of(document), where):
        return True, None
    relabels = {fix.old: new_label(fix) for fix in fixes if fix.op == "relabel"}
    first = [relabels.pop(None)] if None in relabels else []
    return False, database.relabeled(
        document,
        removed=[fix.old for fix in fixes if fix.op == "remove"],
        renamed=relabels,
        added=[*first, *(new_label(fix) for fix in fixes if fix.op == "add")],
    )


def states(path: Path) -> list[Path]:
    """Where a journal of this dataset could be."""
    if path.exists() or os.sep in str(path):
        return []
    return [state.state_dir(Source(format=NAME, root=None, path=str(path), anchor=_anchor()))]


def _anchor() -> Path:
    """A dataset without files of its own has its state in the user's data folder."""
    home = os.environ.get("XDG_DATA_HOME")
    return (Path(home) if home else Path.home() / ".local" / "share") / "dataaudit"


def _split(tags: Sequence[str]) -> str | None:
    found = [tag for tag in tags if tag.lower() in _SPLIT_TAGS]
    return found[0] if len(found) == 1 else None
