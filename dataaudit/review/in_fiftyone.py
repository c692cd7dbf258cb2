"""Findings in FiftyOne: fields, tags, saved views and a summary, all of which `clean` takes away again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from dataaudit import registry, tables
from dataaudit.errors import InputError
from dataaudit.formats._fiftyone import connect
from dataaudit.types import Finding, Outcome, Report

if TYPE_CHECKING:
    import fiftyone as fo

__all__ = ["clean", "push"]

_KEY = "dataaudit"


def push(report: Report, *, dataset: fo.Dataset | None = None) -> fo.Dataset:
    """Write the findings of a report into FiftyOne, in place of those of an earlier one.

    For each check, such as ``LBL001``: the fields ``LBL001_score`` (the lower the worse; empty where the score is 1),
    ``LBL001_probability`` and ``LBL001_suggested`` or ``LBL001_group``; the tag ``LBL001`` on each flagged sample; the saved view
    ``LBL001 label_error``, worst first. ``dataset.info["dataaudit"]["report"]`` holds the summary.

    Args:
        report: an audit's result.
        dataset: where to; by default the dataset that was audited, or the one that its files are loaded into.

    Returns:
        The dataset, persistent.

    Raises:
        InputError: tables made by hand and no dataset.
        MissingDependencyError: FiftyOne has no database.
    """
    fiftyone = connect()
    source = report.tables.source
    if dataset is None:
        if source is None:
            raise InputError("These tables were made by hand.", fix="Give the FiftyOne dataset to write to.")
        dataset = tables.write(report.tables)
    clean(dataset)
    ids = _ids(dataset, report)
    made: dict[str, list[str]] = {"fields": [], "views": [], "tags": []}
    for code, outcome in report.outcomes.items():
        found = [item for item in report.items if item.code == code and item.sample_id in ids.index]
        level = registry.checks()[code].level if code in registry.checks() else "image"
        if level in ("image", "object"):
            _write_fields(dataset, code, outcome, found, ids, report, made, fiftyone)
        if found:
            name = f"{code} {registry.checks()[code].name}" if code in registry.checks() else code
            dataset.select([ids[item.sample_id] for item in found]).tag_samples(code)
            made["tags"].append(code)
            view = dataset.match_tags(code).sort_by(f"{code}_score")
            dataset.save_view(name, view, description=registry.checks()[code].summary, overwrite=True)
            made["views"].append(name)
    counts = pd.Series([item.code for item in report.items], dtype=str).value_counts().sort_index()
    summary = {
        "digest": report.digest,
        "images": len(report.tables.images),
        "findings": {str(code): int(n) for code, n in counts.items()},
        "skipped": dict(report.skipped),
    }
    dataset.info[_KEY] = {**dataset.info.get(_KEY, {}), "report": summary, "made": made}
    dataset.save()
    return dataset


def _ids(dataset: fo.Dataset, report: Report) -> pd.Series[str]:
    """FiftyOne's ids by sample id."""
    if tables.ID in dataset.get_field_schema():
        known, ids = dataset.values([tables.ID, "id"])
        by_own = pd.Series(ids, index=known)
        if by_own.index.isin(report.tables.images.index).any():
            return by_own[~by_own.index.duplicated()]
    ids = dataset.values("id")
    return pd.Series(ids, index=ids)


def _write_fields(
    dataset: fo.Dataset,
    code: str,
    outcome: Outcome,
    found: list[Finding],
    ids: pd.Series[str],
    report: Report,
    made: dict[str, list[str]],
    fiftyone: Any,
) -> None:
    samples = report.tables.labels["sample_id"]
    owner = pd.Series(outcome.score.index, index=outcome.score.index)
    owner = owner.map(samples).where(owner.isin(samples.index), owner)
    worst = outcome.score.groupby(owner).min()
    _set(dataset, f"{code}_score", worst[worst < 1], ids, made, fiftyone.FloatField)
    if outcome.probability is not None:
        chance = outcome.probability.groupby(owner).max()[worst < 1].dropna()
        _set(dataset, f"{code}_probability", chance, ids, made, fiftyone.FloatField)
    classes = set(report.tables.classes)
    suggested = {item.sample_id: item for item in found if item.suggested in classes}
    if suggested:
        labels = {
            ids[sample_id]: fiftyone.Classification(label=item.suggested, confidence=item.probability)
            for sample_id, item in suggested.items()
        }
        field = f"{code}_suggested"
        dataset.add_sample_field(
            field, fiftyone.EmbeddedDocumentField, embedded_doc_type=fiftyone.Classification
        )
        dataset.set_values(field, labels, key_field="id")
        made["fields"].append(field)
    if outcome.evidence is not None and "group" in outcome.evidence and len(outcome.evidence):
        groups = outcome.evidence["group"].dropna()
        _set(dataset, f"{code}_group", groups[~groups.index.duplicated()], ids, made, fiftyone.StringField)


def _set(
    dataset: fo.Dataset, field: str, values: pd.Series[Any], ids: pd.Series[str], made: dict[str, list[str]], kind: Any
) -> None:
    values = values[values.index.isin(ids.index)]
    if len(values):
        dataset.add_sample_field(field, kind)
        dataset.set_values(field, dict(zip(ids[values.index], values.tolist(), strict=True)), key_field="id")
        made["fields"].append(field)


def clean(dataset: fo.Dataset) -> None:
    """Take away all that `push` wrote: fields, tags, saved views and summary. Labels and what people added stay."""
    made = dataset.info.get(_KEY, {}).get("made")
    if made is None:
        return
    there = dataset.get_field_schema()
    fields = [field for field in made["fields"] if field in there]
    for name in made["views"]:
        if dataset.has_saved_view(name):
            dataset.delete_saved_view(name)
    if made["tags"]:
        dataset.match_tags(list(made["tags"])).untag_samples(list(made["tags"]))
    if fields:
        dataset.delete_sample_fields(fields)
    rest = {key: value for key, value in dataset.info[_KEY].items() if key not in ("made", "report")}
    if rest:
        dataset.info[_KEY] = rest
    else:
        del dataset.info[_KEY]
    dataset.save()
