"""Findings in FiftyOne: fields, tags, saved views and a summary, all of which `clean` takes away again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from dataaudit import registry, state, tables
from dataaudit.errors import InputError
from dataaudit.formats._fiftyone import connect
from dataaudit.review import objects_in_fiftyone as objects
from dataaudit.types import Finding, Outcome, Report

if TYPE_CHECKING:
    import fiftyone as fo

__all__ = ["WORKSPACE", "clean", "push"]

_KEY = tables.INFO
WORKSPACE = "dataaudit review"
"""The saved workspace with the panel of review."""
_NOTHING: Mapping[str, list[str]] = {
    kind: [] for kind in ("fields", "views", "tags", "label_fields", "attributes", "label_tags")
}


def push(report: Report, *, dataset: fo.Dataset | None = None) -> fo.Dataset:
    """Write the findings of a report into FiftyOne, in place of those of an earlier one.

    For each check, such as ``LBL001``: the fields ``LBL001_score`` (the lower the worse, empty for 1),
    ``LBL001_probability`` and ``LBL001_suggested`` or ``LBL001_group``, and of a multi-label dataset
    ``LBL003_labels``, all classes that are missing or too much; the tag ``LBL001`` on each flagged
    sample; the saved view ``LBL001 label_error``, worst first. The summary is
    ``dataset.info["dataaudit"]["report"]``.

    Of objects each detection has ``BOX002_score``, ``BOX002_probability``, ``BOX002_suggested`` and
    ``BOX002_group`` and, where it is flagged, the tag ``BOX002``; its sample has the lowest score. Proposed
    boxes are in the field ``dataaudit_proposed``, with the code as their tag, the key of their finding and
    its message; the saved view ``BOX002 wrong_class patches`` shows the single objects, worst first, and
    ``Proposed boxes`` the images with proposals.

    Args:
        report: an audit's result.
        dataset: where to; by default the dataset that was audited, or the one that its files are loaded into.

    Returns:
        The dataset.

    Raises:
        InputError: tables made by hand and no dataset, or a dataset without the samples of the report.
        MissingDependencyError: FiftyOne has no database.
    """
    fiftyone = connect()
    if dataset is None:
        if report.tables.source is None:
            raise InputError("These tables were made by hand.", fix="Give the FiftyOne dataset to write to.")
        dataset = tables.write(report.tables)
    ids = _ids(dataset, report)
    _forget(dataset)
    name = objects.field_of(dataset, report)
    marks = objects.Marks(label_field="") if name is None else objects.marks_of(report, name)
    proposed = {} if name is None else objects.proposed_of(report)
    fields: dict[str, tuple[Any, dict[str, Any]]] = {}
    tags: dict[str, set[str]] = {}
    views: dict[str, tuple[str, str]] = {}
    for code, outcome in report.outcomes.items():
        found = [item for item in report.items if item.code == code and item.sample_id in ids.index]
        known = registry.checks().get(code)
        if known is None or known.level in ("image", "object"):
            fields |= _fields_of(code, outcome, found, ids, report, fiftyone)
        if found:
            tags[code] = {ids[str(item.sample_id)] for item in found}
            views[f"{code} {known.name}" if known else code] = (code, known.summary if known else "")
    single = objects.views_of(marks, report, bool(proposed))
    before = {**_NOTHING, **dataset.info.get(_KEY, {}).get("made", {})}
    made = {
        "fields": [*fields, *([objects.PROPOSED] if proposed else [])],
        "views": [*views, *single],
        "tags": list(tags),
        "label_fields": [name] if name is not None else [],
        "attributes": marks.paths(),
        "label_tags": list(marks.codes),
    }
    # Noted before the first write, so that `clean` can take away what an interrupted push leaves
    _note(dataset, made={kind: sorted({*names, *before[kind]}) for kind, names in made.items()})
    _write_fields(dataset, fields, [each for each in before["fields"] if each != objects.PROPOSED])
    _write_tags(dataset, tags, before["tags"])
    changed = _write_objects(dataset, marks, proposed, ids, before)
    changed |= dataset.info[_KEY].get("report", {}).get("digest") != report.digest
    _write_views(dataset, views, [each for each in before["views"] if each not in single])
    for view_name, view in single.items():
        # What a view of patches shows is copied when it is saved
        if changed or not dataset.has_saved_view(view_name):
            objects.save_view(dataset, view_name, view)
    _note(dataset, report=_summary(report), made=made)
    return dataset


def _write_objects(
    dataset: fo.Dataset,
    marks: objects.Marks,
    proposed: Mapping[str, Sequence[dict[str, Any]]],
    ids: pd.Series[str],
    before: Mapping[str, Sequence[str]],
) -> bool:
    """Write what is about single objects; returns whether anything changed."""
    changed = False
    for name in {*before["label_fields"], *([marks.label_field] if marks.label_field else [])}:
        if not dataset.has_sample_field(name):
            continue
        said = marks if name == marks.label_field else objects.Marks(label_field=name)
        stale = [path for path in before["attributes"] if path.startswith(f"{name}.")]
        changed |= objects.mark(dataset, said, stale, before["label_tags"])
    if objects.PROPOSED in before["fields"] or proposed:
        changed |= objects.propose(dataset, proposed, ids)
    if proposed:
        objects.colour(dataset, marks.label_field)
    return changed


def _note(dataset: fo.Dataset, **news: Any) -> None:
    dataset.info[_KEY] = {**dataset.info.get(_KEY, {}), **news}
    dataset.save()


def _forget(dataset: fo.Dataset) -> None:
    """An audit from the command line compares with what it wrote last, which no longer holds."""
    source = tables.source_of(dataset)
    if source is not None:
        state.pushed_file(source).unlink(missing_ok=True)


def _summary(report: Report) -> dict[str, Any]:
    counts = pd.Series([item.code for item in report.items], dtype=str).value_counts().sort_index()
    return {
        "digest": report.digest,
        "images": len(report.tables.images),
        "findings": {str(code): int(n) for code, n in counts.items()},
        # What is about a class or the whole dataset has no sample to stand on
        "general": [
            {"code": item.code, "item": item.item_id, "message": item.message}
            for item in report.items
            if item.sample_id is None
        ],
        "skipped": dict(report.skipped),
    }


def _ids(dataset: fo.Dataset, report: Report) -> pd.Series[str]:
    """FiftyOne's ids by sample id."""
    samples = report.tables.images.index
    if tables.ID in dataset.get_field_schema():
        known, ids = dataset.values([tables.ID, "id"])
        own = pd.Series(ids, index=pd.Index(known, dtype=object), dtype=object)
        own = own[own.index.notna() & ~own.index.duplicated()]
        if own.index.isin(samples).any():
            return own
    ids = dataset.values("id")
    if len(samples) and not samples.isin(ids).any():
        raise InputError(
            f"The FiftyOne dataset {dataset.name!r} has no sample of the report, such as {samples[0]!r}.",
            fix="Leave the dataset out, or give the one that was audited.",
        )
    return pd.Series(ids, index=pd.Index(ids, dtype=object), dtype=object)


def _fields_of(
    code: str,
    outcome: Outcome,
    found: list[Finding],
    by_sample: pd.Series[str],
    report: Report,
    fiftyone: Any,
) -> dict[str, tuple[Any, dict[str, Any]]]:
    """Name of each field of a check to its type and its value by FiftyOne's id."""
    owner = dict(zip(report.tables.labels.index, report.tables.labels["sample_id"], strict=True))
    if outcome.evidence is not None and "sample_id" in outcome.evidence:  # labels that aren't there yet
        owner |= outcome.evidence["sample_id"].to_dict()
    ids = {sample_id: each for sample_id, each in by_sample.items() if sample_id is not None}
    low = outcome.score[outcome.score < 1]
    scores: dict[str, float] = {}
    for item, score in zip(low.index.tolist(), low.round(4).tolist(), strict=True):
        sample_id = owner.get(item, item)
        if sample_id in ids and score < scores.get(ids[sample_id], 1.0):
            scores[ids[sample_id]] = score
    classes = set(report.tables.classes)
    own = {ids[item.sample_id]: item for item in reversed(found)}
    changed: dict[str, list[str]] = {}
    single = report.tables.task == "detection" and objects.is_object_check(code)
    for item in found:
        if item.fix is not None and item.fix.op in ("add", "remove"):
            changed.setdefault(ids[item.sample_id], []).append(item.fix.new or item.fix.old or "")
    groups = {}
    if outcome.evidence is not None and "group" in outcome.evidence:
        named = outcome.evidence["group"].dropna()
        groups = {owner.get(item, item): group for item, group in named.items()}
    fields: dict[str, tuple[Any, dict[str, Any]]] = {
        f"{code}_score": (fiftyone.FloatField, scores),
        f"{code}_probability": (
            fiftyone.FloatField,
            {each: round(item.probability, 4) for each, item in own.items() if item.probability is not None},
        ),
        f"{code}_suggested": (
            fiftyone.Classification,
            {each: item.suggested for each, item in own.items() if item.suggested in classes},
        ),
        f"{code}_labels": (fiftyone.StringField, {each: ", ".join(names) for each, names in changed.items()}),
        f"{code}_group": (fiftyone.StringField, {ids[each]: g for each, g in groups.items() if each in ids}),
    }
    # What else there is to say about single objects stands on them
    kept = (f"{code}_score", f"{code}_probability") if single else tuple(fields)
    return {name: field for name, field in fields.items() if field[1] and name in kept}


def _write_fields(
    dataset: fo.Dataset, fields: Mapping[str, tuple[Any, Mapping[str, Any]]], before: Sequence[str]
) -> None:
    """Set what differs from what is there; fields of an earlier report that are no longer made go."""
    import fiftyone

    schema = dataset.get_field_schema()
    stale = [name for name in before if name in schema and name not in fields]
    if stale:
        dataset.delete_sample_fields(stale)
    labels = {name for name, (kind, _) in fields.items() if kind is fiftyone.Classification}
    for name, (kind, _) in fields.items():
        if name not in schema and name in labels:
            dataset.add_sample_field(name, fiftyone.EmbeddedDocumentField, embedded_doc_type=kind)
        elif name not in schema:
            dataset.add_sample_field(name, kind)
    ids, *columns = dataset.values(["id", *(f"{name}.label" if name in labels else name for name in fields)])
    for (name, (kind, wanted)), there in zip(fields.items(), columns, strict=True):
        changed = {
            key: wanted.get(key) for key, value in zip(ids, there, strict=True) if value != wanted.get(key)
        }
        if name in labels:
            changed = {key: value and kind(label=value) for key, value in changed.items()}
        if changed:
            dataset.set_values(name, changed, key_field="id")


def _write_tags(dataset: fo.Dataset, tags: Mapping[str, set[str]], before: Sequence[str]) -> None:
    for tag in {*before, *tags}:
        there = set(dataset.match_tags(tag).values("id"))
        wanted = tags.get(tag, set())
        if there - wanted:
            dataset.select(list(there - wanted)).untag_samples(tag)
        if wanted - there:
            dataset.select(list(wanted - there)).tag_samples(tag)


def _write_views(dataset: fo.Dataset, views: Mapping[str, tuple[str, str]], before: Sequence[str]) -> None:
    for name in before:
        if name not in views and dataset.has_saved_view(name):
            dataset.delete_saved_view(name)
    for name, (code, summary) in views.items():
        view = dataset.match_tags(code)
        if dataset.has_sample_field(f"{code}_score"):
            view = view.sort_by(f"{code}_score")
        if not (dataset.has_saved_view(name) and dataset.load_saved_view(name) == view):
            dataset.save_view(name, view, description=summary, overwrite=True)


def clean(dataset: fo.Dataset) -> None:
    """Take away all that `push` wrote: fields, tags, saved views and summary.

    Labels and what people added stay.
    """
    _forget(dataset)
    made = dataset.info.get(_KEY, {}).get("made")
    if made is None:
        return
    made = {**_NOTHING, **made}
    there = dataset.get_field_schema()
    if dataset.has_workspace(WORKSPACE):
        dataset.delete_workspace(WORKSPACE)
    fields = [field for field in made["fields"] if field in there]
    for name in made["views"]:
        if dataset.has_saved_view(name):
            dataset.delete_saved_view(name)
    if made["tags"]:
        dataset.match_tags(list(made["tags"])).untag_samples(list(made["tags"]))
    for name in made["label_fields"]:
        if name in there:
            stale = [path for path in made["attributes"] if path.startswith(f"{name}.")]
            objects.mark(dataset, objects.Marks(label_field=name), stale, made["label_tags"])
            objects.uncolour(dataset, name)
    if fields:
        dataset.delete_sample_fields(fields)
    rest = {key: value for key, value in dataset.info[_KEY].items() if key not in ("made", "report")}
    if rest:
        dataset.info[_KEY] = rest
    else:
        del dataset.info[_KEY]
    dataset.save()
