"""Findings: the flagged items of the checks with all that is said about each, and what they are known by."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from dataaudit import registry
from dataaudit.decisions.again import key_of
from dataaudit.signals.objects import objects
from dataaudit.types import CORNERS, FLAGS, Box, Finding, Outcome, Tables

__all__ = ["contents_of", "digest_of", "findings_of", "md5_of"]


def md5_of(text: str) -> str:
    """MD5 of a text."""
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def contents_of(tables: Tables, separator: str) -> pd.Series[Any]:
    """What each labeled sample is said to show, as a text: its class, its classes joined, or its objects."""
    return _objects_of(tables) if tables.task == "detection" else _names(tables, separator)


def _names(tables: Tables, separator: str) -> pd.Series[Any]:
    """The class of each labeled sample, or its classes in their order, joined."""
    named = tables.labels.dropna(subset="name")
    if named["sample_id"].is_unique:
        return named.set_index("sample_id")["name"]
    return named.sort_values("name").groupby("sample_id")["name"].agg(separator.join)


def _objects_of(tables: Tables) -> pd.Series[str]:
    """The objects of each image as a text, in any order of their rows."""
    labels = tables.labels
    columns = [labels["name"].astype(str), *(labels[name].map(repr) for name in (*CORNERS, *FLAGS))]
    texts = pd.Series(list(map(",".join, zip(*columns, strict=True))), index=labels.index, dtype=object)
    joined = texts.sort_values(kind="stable").groupby(labels["sample_id"]).agg(";".join)
    return joined.reindex(tables.images.index, fill_value="")


def digest_of(tables: Tables) -> str:
    """Digest of contents, labels and splits; where a file lies doesn't count, what it says does."""
    named = contents_of(tables, "\0").reindex(tables.images.index, fill_value="None").astype(str)
    columns = (tables.images["digest"], named, tables.images["split"])
    lines = zip(*([str(value) for value in column] for column in columns), strict=True)
    return md5_of("\n".join(sorted("\t".join(line) for line in lines)))


def findings_of(
    outcomes: Mapping[str, Outcome], tables: Tables, verdicts: Mapping[str, Any]
) -> tuple[Finding, ...]:
    """The flagged items of all checks, worst first within each check."""
    sample_of = tables.labels["sample_id"]
    # The objects of an image aren't what a finding about the whole image is about
    own = tables.labels["name"]
    given = pd.Series(dtype=object) if tables.task == "detection" else _names(tables, ", ")
    digests = tables.images["digest"]
    boxes = _boxes(tables)
    items: list[Finding] = []
    for code, outcome in outcomes.items():
        level = registry.checks()[code].level if code in registry.checks() else "image"
        flagged = outcome.flagged.index[outcome.flagged.to_numpy(dtype=bool)]
        order = outcome.score.loc[flagged].sort_values(kind="stable").index
        # All at once: a row by itself takes as long as twenty
        table = pd.DataFrame(index=order) if outcome.evidence is None else outcome.evidence.loc[order]
        for item_id, evidence in zip(order, table.to_dict("records"), strict=True):
            if level == "object":
                # In its evidence: a label that isn't there yet
                sample_id, name = sample_of.get(item_id, evidence.get("sample_id")), own.get(item_id)
            else:
                sample_id = item_id if level == "image" else None
                name = given.get(sample_id)
            found = _finding(
                code, outcome, evidence, str(item_id), sample_id, name, digests.get(sample_id), verdicts,
                boxes.get(item_id) if level == "object" else None,
            )  # fmt: skip
            items.append(found)
    return tuple(items)


def _finding(
    code: str,
    outcome: Outcome,
    evidence: Mapping[Any, Any],
    item_id: str,
    sample_id: str | None,
    name: Any,
    digest: Any,
    verdicts: Mapping[str, Any],
    box: Box | None,
) -> Finding:
    known = dict(evidence)
    suggested_box = _corners([known.pop(corner, None) for corner in CORNERS])
    message = str(known.pop("message", registry.checks()[code].summary if code in registry.checks() else ""))
    suggested = known.pop("suggested", None)
    known.pop("sample_id", None)
    suggested = None if pd.isna(suggested) else str(suggested)
    given = None if pd.isna(name) else str(name)
    probability = None
    if outcome.probability is not None and not pd.isna(outcome.probability[item_id]):
        probability = float(outcome.probability[item_id])
    key = key_of(code, item_id, sample_id, box, digest, given, suggested)
    return Finding(
        key=key,
        code=code,
        item_id=item_id,
        sample_id=sample_id,
        score=float(outcome.score[item_id]),
        probability=probability,
        message=message,
        given=given,
        suggested=suggested,
        evidence={name: value.item() if hasattr(value, "item") else value for name, value in known.items()},
        fix=outcome.fixes.get(item_id),
        decision=verdicts.get(key),
        box=box,
        suggested_box=suggested_box,
    )


def _boxes(tables: Tables) -> dict[Any, Box]:
    """The box of each object in pixels, where it is known."""
    if tables.task != "detection":
        return {}
    found = objects(tables.images, tables.labels, tables.task, tables.units)[list(CORNERS)].dropna()
    return dict(zip(found.index, map(tuple, found.to_numpy().tolist()), strict=True))


def _corners(values: Sequence[Any]) -> Box | None:
    if any(value is None or pd.isna(value) for value in values):
        return None
    x1, y1, x2, y2 = map(float, values)
    return x1, y1, x2, y2
