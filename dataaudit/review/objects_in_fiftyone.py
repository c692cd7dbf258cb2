"""Findings about single objects in FiftyOne: attributes and tags of detections, proposed boxes, patches."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from dataaudit import registry, tables
from dataaudit.formats import fiftyone_dataset
from dataaudit.journal import database
from dataaudit.signals.objects import image_sizes
from dataaudit.types import Finding, Report

if TYPE_CHECKING:
    import fiftyone as fo

__all__ = [
    "PROPOSED",
    "Marks",
    "View",
    "colour",
    "field_of",
    "is_object_check",
    "mark",
    "marks_of",
    "propose",
    "proposed_of",
    "save_view",
    "uncolour",
    "views_of",
]

PROPOSED = fiftyone_dataset.PROPOSED
PROPOSED_VIEW = "Proposed boxes"
_BATCH = 10_000  # images whose objects are in memory at a time
_GIVEN_COLOUR, _PROPOSED_COLOUR = "#1f8fff", "#ff8c00"


@dataclass(frozen=True, kw_only=True)
class Marks:
    """What is said about the objects of a field.

    Attributes:
        label_field: name of the `Detections` field.
        attributes: name to the type of its field, ``FloatField`` or ``StringField``.
        values: label id to the values of its attributes.
        tags: label id to the codes of the checks that flag it.
        codes: all of these codes.
    """

    label_field: str
    attributes: Mapping[str, str] = field(default_factory=dict)
    values: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    tags: Mapping[str, Sequence[str]] = field(default_factory=dict)
    codes: tuple[str, ...] = ()

    def paths(self) -> list[str]:
        """The attributes as FiftyOne names them."""
        return [f"{self.label_field}.detections.{name}" for name in self.attributes]


@dataclass(frozen=True, kw_only=True)
class View:
    """A view to be saved.

    Attributes:
        label_field: the field whose objects it shows.
        summary: its description.
        code: it shows each object with this tag by itself; None for whole images with objects in the field.
        by: attribute by which the objects are sorted.
        reverse: the highest value comes first.
        beside: fields whose objects are shown with each object.
    """

    label_field: str
    summary: str
    code: str | None = None
    by: str = ""
    reverse: bool = False
    beside: tuple[str, ...] = ()


def field_of(dataset: fo.Dataset, report: Report) -> str | None:
    """The field that holds the objects of a report; None where there are none, or no such field."""
    if report.tables.task != "detection":
        return None
    source = report.tables.source
    name = source.options["label_field"] if source is not None and source.root is None else tables.LABELS
    there = name in dataset.get_field_schema()
    return name if there and fiftyone_dataset.is_objects(dataset, name) else None


def is_object_check(code: str) -> bool:
    """Whether a check looks at single objects."""
    known = registry.checks().get(code)
    return known is not None and known.level == "object"


def marks_of(report: Report, name: str) -> Marks:
    """What a report says about the objects of the field `name`."""
    known = report.tables.labels.index
    columns: dict[str, dict[str, Any]] = {}
    tags: dict[str, list[str]] = {}
    codes = [code for code in report.outcomes if is_object_check(code)]
    for code in codes:
        outcome = report.outcomes[code]
        low = outcome.score[(outcome.score < 1) & outcome.score.index.isin(known)]
        columns[f"{code}_score"] = dict(zip(low.index, low.round(4).tolist(), strict=True))
        if outcome.evidence is not None and "group" in outcome.evidence:
            groups = outcome.evidence["group"].dropna()
            groups = groups[groups.index.isin(known)].astype(str)
            columns[f"{code}_group"] = dict(zip(groups.index, groups.tolist(), strict=True))
    there = set(known)
    for item in report.items:
        if item.code not in codes or item.item_id not in there:
            continue
        tags.setdefault(item.item_id, []).append(item.code)
        if item.probability is not None:
            columns.setdefault(f"{item.code}_probability", {})[item.item_id] = round(item.probability, 4)
        if item.suggested is not None:
            columns.setdefault(f"{item.code}_suggested", {})[item.item_id] = item.suggested
    columns = {column: of for column, of in sorted(columns.items()) if of}
    values: dict[str, dict[str, Any]] = {}
    for column, of in columns.items():
        for label_id, value in of.items():
            values.setdefault(label_id, {})[column] = value
    numeric = ("_score", "_probability")
    return Marks(
        label_field=name,
        attributes={each: "FloatField" if each.endswith(numeric) else "StringField" for each in columns},
        values=values,
        tags=tags,
        codes=tuple(sorted({code for each in tags.values() for code in each})),
    )


def mark(dataset: fo.Dataset, marks: Marks, before: Sequence[str], tagged: Collection[str]) -> bool:
    """Set what differs on the detections; what people gave them stays.

    Args:
        dataset: of the objects.
        marks: what is said about them.
        before: paths of the attributes of an earlier report.
        tagged: codes with which an earlier report tagged objects.

    Returns:
        Whether anything was changed.
    """
    import fiftyone

    there = dataset.get_field_schema(flat=True)
    stale = [path for path in before if path in there and path not in marks.paths()]
    if stale:
        dataset.delete_sample_fields(stale)
    for path, kind in zip(marks.paths(), marks.attributes.values(), strict=True):
        if path not in there:
            dataset.add_sample_field(path, getattr(fiftyone, kind))
    ids, changed = dataset.values("id"), bool(stale)
    for start in range(0, len(ids), _BATCH):
        changed |= _mark_some(dataset, marks, {*marks.codes, *tagged}, ids[start : start + _BATCH])
    dataset.reload()
    return changed


def _mark_some(dataset: fo.Dataset, marks: Marks, ours: set[str], ids: Sequence[str]) -> bool:
    contents = database.contents(dataset.name, marks.label_field, ids, without=["detections.mask"])
    new: dict[str, dict[str, Any]] = {}
    gone: dict[str, list[str]] = {}
    where: dict[str, dict[str, Any]] = {}
    for sample, content in contents.items():
        for number, detection in enumerate((content or {}).get("detections") or ()):
            label_id = detection.get(tables.ID) or f"{sample}:{detection['_id']}"
            path = f"{marks.label_field}.detections.{number}"
            wanted, left = _changes(detection, label_id, marks, ours)
            if wanted:
                new.setdefault(sample, {}).update({f"{path}.{name}": v for name, v in wanted.items()})
            if left:
                gone.setdefault(sample, []).extend(f"{path}.{name}" for name in left)
            if wanted or left:
                # Somebody may reorder them meanwhile
                where.setdefault(sample, {})[f"{path}._id"] = detection["_id"]
    if where:
        database.set_contents(dataset.name, new, gone=gone, where=where)
    return bool(where)


def _changes(
    detection: Mapping[str, Any], label_id: str, marks: Marks, ours: set[str]
) -> tuple[dict[str, Any], list[str]]:
    """The attributes of a detection to set, tags included, and those to take away."""
    values = marks.values.get(label_id, {})
    new = {name: value for name, value in values.items() if detection.get(name) != value}
    left = [name for name in detection if name in marks.attributes and name not in values]
    tags = detection.get("tags") or []
    wanted = marks.tags.get(label_id, ())
    if {tag for tag in tags if tag in ours} != set(wanted):
        kept = [tag for tag in tags if tag not in ours or tag in wanted]
        new["tags"] = kept + [tag for tag in wanted if tag not in kept]
    return new, left


def proposed_of(report: Report) -> dict[str, list[dict[str, Any]]]:
    """The proposed boxes of a report as FiftyOne stores them, by sample id, surest first."""
    sizes = image_sizes(report.tables.images)
    scale = dict(zip(sizes.index, sizes.to_numpy().tolist(), strict=True))
    found: dict[str, list[Finding]] = {}
    for item in report.items:
        if item.suggested_box is not None and item.sample_id in scale:
            found.setdefault(str(item.sample_id), []).append(item)
    return {
        sample_id: [
            _proposed(item, *scale[sample_id])
            for item in sorted(items, key=lambda item: -(item.probability or 0.0))
        ]
        for sample_id, items in found.items()
        if not np.isnan(scale[sample_id]).any()
    }


def _proposed(item: Finding, width: float, height: float) -> dict[str, Any]:
    from bson import ObjectId

    assert item.suggested_box is not None
    x1, y1, x2, y2 = item.suggested_box
    name = "\0".join((item.code, item.item_id, item.key))
    document = {
        # The same finding is the same detection in every report
        "_id": ObjectId(hashlib.md5(name.encode(), usedforsecurity=False).hexdigest()[:24]),
        "_cls": "Detection",
        "attributes": {},
        "tags": [item.code],
        "label": item.suggested or item.given or "object",
        "bounding_box": [x1 / width, y1 / height, (x2 - x1) / width, (y2 - y1) / height],
        "finding": item.key,
        "message": item.message,
    }
    return document if item.probability is None else {**document, "confidence": round(item.probability, 4)}


def propose(dataset: fo.Dataset, wanted: Mapping[str, Sequence[dict[str, Any]]], ids: pd.Series[str]) -> bool:
    """Show the proposed boxes in a field of their own, in place of those of an earlier report.

    Args:
        dataset: where to.
        wanted: see `proposed_of`.
        ids: FiftyOne's ids by sample id.

    Returns:
        Whether anything was changed.
    """
    import fiftyone

    there = dataset.get_field_schema(flat=True)
    if not wanted:
        if PROPOSED in there:
            dataset.delete_sample_field(PROPOSED)
        return PROPOSED in there
    if PROPOSED not in there:
        kind = fiftyone.EmbeddedDocumentField
        dataset.add_sample_field(PROPOSED, kind, embedded_doc_type=fiftyone.Detections)
    for name in ("finding", "message"):
        if f"{PROPOSED}.detections.{name}" not in there:
            dataset.add_sample_field(f"{PROPOSED}.detections.{name}", fiftyone.StringField)
    by_sample = {ids[sample_id]: list(each) for sample_id, each in wanted.items() if sample_id in ids.index}
    new: dict[str, dict[str, Any]] = {}
    for sample, content in database.contents(dataset.name, PROPOSED).items():
        have = (content or {}).get("detections") or []
        known = {each["_id"]: each for each in have}
        news = [_kept(known.get(each["_id"]), each) for each in by_sample.get(sample, ())]
        if news != have:
            new[sample] = {PROPOSED: {"_cls": "Detections", "detections": news} if news else None}
    if new:
        database.set_contents(dataset.name, new)
        dataset.reload()
    return bool(new)


def _kept(old: Mapping[str, Any] | None, new: dict[str, Any]) -> dict[str, Any]:
    """A proposed box with the tags and attributes that people gave it."""
    if old is None:
        return new
    return {**old, **new, "tags": list(dict.fromkeys([*new["tags"], *old.get("tags", [])]))}


def views_of(marks: Marks, report: Report, proposed: bool) -> dict[str, View]:
    """The saved views of single objects by name.

    Args:
        marks: what the report says about the labeled objects.
        report: an audit's result.
        proposed: whether any box is proposed.
    """
    found = {}
    new = {item.code for item in report.items if item.suggested_box is not None} if proposed else set()
    for code in sorted({*marks.codes, *filter(is_object_check, new)}):
        check = registry.checks()[code]
        shown, by = PROPOSED, "confidence"
        if code in marks.codes:
            shown = marks.label_field
            by = f"{code}_score" if f"{code}_score" in marks.attributes else by
        found[f"{code} {check.name} patches"] = View(
            label_field=shown,
            code=code,
            by=by,
            reverse=by == "confidence",
            summary=check.summary,
            beside=(marks.label_field if shown == PROPOSED else PROPOSED,),
        )
    if new:
        summary = "Images with boxes that are proposed."
        found[PROPOSED_VIEW] = View(label_field=PROPOSED, by="confidence", reverse=True, summary=summary)
    return found


def save_view(dataset: fo.Dataset, name: str, view: View) -> None:
    """Save a view of single objects, or of the images that have them."""
    from fiftyone import ViewField

    if view.code is None:
        detections = ViewField(f"{view.label_field}.detections")
        surest = detections.map(ViewField(view.by)).max()
        found = dataset.match(detections.length() > 0).sort_by(surest, reverse=view.reverse)
    else:
        flagged = dataset.filter_labels(view.label_field, ViewField("tags").contains(view.code))
        beside = [name for name in view.beside if dataset.has_sample_field(name)]
        patches = flagged.to_patches(view.label_field, other_fields=beside or None)
        found = patches.sort_by(f"{view.label_field}.{view.by}", reverse=view.reverse)
    dataset.save_view(name, found, description=view.summary, overwrite=True)


def colour(dataset: fo.Dataset, name: str) -> bool:
    """Give proposed boxes another colour than the given ones; a scheme that people chose stays.

    Returns:
        Whether the dataset has the scheme of ours.
    """
    import fiftyone

    fields = _colours(name)
    scheme = dataset.app_config.color_scheme
    if scheme is None:
        dataset.app_config.color_scheme = fiftyone.ColorScheme(color_by="field", fields=fields)
        dataset.save()
        return True
    return bool(scheme.fields == fields)


def uncolour(dataset: fo.Dataset, name: str) -> None:
    """Take the scheme of `colour` away, where it is still there."""
    scheme = dataset.app_config.color_scheme
    if scheme is not None and scheme.fields == _colours(name):
        dataset.app_config.color_scheme = None


def _colours(name: str) -> list[dict[str, str]]:
    return [
        {"path": name, "fieldColor": _GIVEN_COLOUR},
        {"path": PROPOSED, "fieldColor": _PROPOSED_COLOUR},
    ]
