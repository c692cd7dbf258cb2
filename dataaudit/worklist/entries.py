"""What a reviewer needs of each finding, in one file that opens without an audit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from typing import Any

from dataaudit.decisions import fix_from_json
from dataaudit.errors import InputError
from dataaudit.types import Box, Fix

__all__ = ["Choice", "Entry", "Neighbor", "Worklist"]

SCHEMA = 2


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A class that the label may be.

    Attributes:
        name: the class.
        probability: out-of-sample chance of the class in [0, 1], or None where nothing says.
    """

    name: str
    probability: float | None = None


@dataclass(frozen=True, kw_only=True)
class Neighbor:
    """An image that looks like the one in question.

    Attributes:
        sample_id: the image.
        filepath: its file, absolute.
        names: its classes.
        similarity: cosine similarity in [-1, 1].
        digest: MD5 of the image's bytes, by which its thumbnail is kept, or None.
    """

    sample_id: str
    filepath: str
    names: tuple[str, ...]
    similarity: float
    digest: str | None = None


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A finding with all that is shown to a reviewer and all that a verdict needs.

    Attributes:
        key: of the finding.
        code: of its check.
        item_id: what is flagged: a sample, a label or a class.
        sample_id: the image to look at; None for a finding about a class or the dataset.
        filepath: its file, absolute; None without an image.
        size: width and height of the image in pixels as shown, or None.
        split: of the image, or None.
        digest: MD5 of the image's bytes, or None.
        given: the class in the source, or None.
        suggested: the class or sample suggested, or None.
        score: in [0, 1], 0 surely wrong.
        probability: calibrated chance that the finding is a real error, or None.
        message: the sentence that a person reads.
        box: corners (x1, y1, x2, y2) of the object in the source, in pixels of the image as shown, or None.
        suggested_box: corners of the proposed box in pixels, or None.
        group: the same text for findings on images that nearly are the same, or None.
        choices: classes that the label may be, most probable first.
        neighbors: images that look like this one, nearest first.
        fix: what ``accept`` does, or None where nothing is proposed.
        other: what another class would be, with that class in place of `new`; None where none can be named.
        taken: classes that the image has already, so that it can't get them again; of a multi-label dataset.
    """

    key: str
    code: str
    item_id: str
    sample_id: str | None
    filepath: str | None
    score: float
    probability: float | None
    message: str
    size: tuple[int, int] | None = None
    split: str | None = None
    digest: str | None = None
    given: str | None = None
    suggested: str | None = None
    box: Box | None = None
    suggested_box: Box | None = None
    group: str | None = None
    choices: tuple[Choice, ...] = ()
    neighbors: tuple[Neighbor, ...] = ()
    fix: Fix | None = None
    other: Fix | None = None
    taken: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Worklist:
    """The findings of one audit, in the order in which they are best looked at.

    Attributes:
        name: of the dataset, as people know it.
        path: what was audited: the folder, the file or the name of the FiftyOne dataset.
        task: ``classification``, ``multilabel`` or ``detection``.
        classes: names of the classes, sorted.
        digest: of the data that was audited.
        entries: first the one to look at first.
        background: of each check with probabilities those of the items that it did not flag, as pairs of a
            probability and how many items have it: they hold the errors that no finding is about.
    """

    name: str
    path: str
    task: str
    classes: tuple[str, ...]
    digest: str
    entries: tuple[Entry, ...]
    background: Mapping[str, tuple[tuple[float, int], ...]] = field(default_factory=dict)

    def to_json(self) -> str:
        """The worklist as JSON text."""
        images: dict[str, list[Any]] = {}
        value = {
            "schema": SCHEMA,
            **{each.name: getattr(self, each.name) for each in fields(self) if each.name != "entries"},
            "entries": [_packed(entry, images) for entry in self.entries],
            "images": images,
        }
        # ASCII: a file name that is no text in UTF-8 survives
        return json.dumps(value, allow_nan=False, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str, *, where: str = "worklist.json") -> Worklist:
        """The worklist that `to_json` wrote.

        Args:
            text: JSON.
            where: the file that it comes from, for the error.

        Raises:
            InputError: the text isn't a worklist, or of another version of dataaudit.
        """
        try:
            value = json.loads(text)
            schema = value.pop("schema")
            if schema == SCHEMA:
                images = {name: _image(*cells) for name, cells in value.pop("images").items()}
                entries = tuple(_entry(each, images) for each in value.pop("entries"))
                background = {
                    code: tuple((float(p), int(n)) for p, n in pairs)
                    for code, pairs in value.pop("background").items()
                }
                classes = tuple(value.pop("classes"))
                return cls(**value, classes=classes, entries=entries, background=background)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise InputError(
                f"The worklist can't be read: {error!r}.", where=where, fix="Audit again."
            ) from None
        raise InputError(
            f"The worklist has the schema {schema!r}; expected {SCHEMA}.", where=where, fix="Audit again."
        )


def _packed(entry: Entry, images: dict[str, list[Any]]) -> dict[str, Any]:
    """What an entry says beyond what it would say by itself; the images of its neighbours go into a table."""
    value = {name: getattr(entry, name) for name in _FIELDS if getattr(entry, name) != _FIELDS[name]}
    for fix, name in ((entry.fix, "fix"), (entry.other, "other")):
        if fix is not None:
            locator = fix.locator
            at = {"file": locator.file, "item": locator.item, "field": locator.field}
            value[name] = {
                **vars(fix),
                "locator": {key: cell for key, cell in at.items() if cell is not None},
            }
    if entry.fix is not None and value.get("other") == {**value["fix"], "new": ""}:
        value["other"] = True
    if entry.choices:
        value["choices"] = [[choice.name, choice.probability] for choice in entry.choices]
    if entry.neighbors:
        value["neighbors"] = [[near.sample_id, near.similarity] for near in entry.neighbors]
        for near in entry.neighbors:
            images[near.sample_id] = [near.filepath, near.names, near.digest]
    return value


def _entry(value: dict[str, Any], images: Mapping[str, tuple[Any, ...]]) -> Entry:
    for name in ("size", "box", "suggested_box", "taken"):
        if name in value:
            value[name] = tuple(value[name])
    for name in ("fix", "other"):
        if isinstance(value.get(name), dict):
            value[name] = fix_from_json(value[name])
    if value.get("other") is True:
        value["other"] = replace(value["fix"], new="")
    value["choices"] = tuple(Choice(name=name, probability=p) for name, p in value.get("choices", ()))
    near = []
    for sample_id, similarity in value.get("neighbors", ()):
        filepath, names, digest = images[sample_id]
        near.append(
            Neighbor(
                sample_id=sample_id, filepath=filepath, names=names, similarity=similarity, digest=digest
            )
        )  # fmt: skip
    return Entry(**{**dict.fromkeys(_ALWAYS), **value, "neighbors": tuple(near)})


def _image(filepath: str, names: list[str], digest: str | None) -> tuple[Any, ...]:
    return filepath, tuple(names), digest


_ALWAYS = tuple(each.name for each in fields(Entry) if each.default is MISSING)
_FIELDS: dict[str, Any] = {
    each.name: None if each.default is MISSING else each.default for each in fields(Entry)
}
"""The fields of an entry with what is left out of its JSON."""
