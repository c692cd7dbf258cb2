"""Entries and worklists written by hand for the tests of review."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dataaudit.types import Fix, Locator
from dataaudit.worklist import Entry, Worklist

CLASSES = ("cat", "dog", "fox")


def relabel(sample_id: str, old: str, new: str) -> Fix:
    return Fix(
        op="relabel",
        sample_id=sample_id,
        label_id=sample_id,
        locator=Locator(file=sample_id),
        old=old,
        new=new,
    )


def entry(key: str, probability: float | None = 0.5, **fields: Any) -> Entry:
    """A finding of LBL001 on the image of its key: a cat that looks like a dog."""
    given, suggested = fields.setdefault("given", "cat"), fields.setdefault("suggested", "dog")
    sample_id = fields.setdefault("sample_id", f"{key}.jpg")
    if sample_id is not None and given is not None and suggested is not None:
        fields.setdefault("fix", relabel(sample_id, given, suggested))
        fields.setdefault("other", relabel(sample_id, given, ""))
    fields = {"code": "LBL001", "item_id": sample_id or given, "filepath": None, "message": "", **fields}
    score = fields.pop("score", 0.5 if probability is None else 1 - probability)
    return Entry(key=key, probability=probability, score=score, **fields)


def worklist(entries: Sequence[Entry], **fields: Any) -> Worklist:
    known = {"name": "pets", "path": "/pets", "task": "classification", "classes": CLASSES, "digest": ""}
    return Worklist(**{**known, **fields}, entries=tuple(entries))
