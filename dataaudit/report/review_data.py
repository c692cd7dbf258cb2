"""What the page's review needs, embedded in the page: the worklist as JSON, and its pictures.

Every picture is there once, in blocks of text that the page takes apart when it comes to them, so that a page
with thousands of findings opens as fast as one with ten.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from dataaudit.report.drawing import Plan, plans
from dataaudit.report.objects import corners
from dataaudit.report.thumbnails import Region, Thumbnail, crops
from dataaudit.worklist import Entry, Neighbor, Worklist
from dataaudit.worklist.order import kind_of, place_of

if TYPE_CHECKING:
    from markupsafe import Markup

__all__ = ["MAX_ENTRIES", "ReviewData", "review_data"]

MAX_ENTRIES = 5000
"""How many findings a page has; a label clean-up of more is a matter for the App."""
SIDES = ((600, 480, 96), (1200, 320, 80), (2500, 224, 64), (MAX_ENTRIES, 128, 64))
"""Longer sides of the pictures and of the nearest images, by how many findings there are at most."""
TINY = 96
"""Pictures up to this side are shown as they are where they are small."""
MAX_NEAR = 6
BUDGET = 30 * 2**20
"""Characters of all pictures; nearest images that don't fit are named and not shown."""
BLOCK = 50
"""Pictures in a block."""
_URL = "data:image/jpeg;base64,"

_Job = tuple[str, str | None, Region | None]
_Image = tuple[str, str | None]


@dataclass(frozen=True, kw_only=True)
class ReviewData:
    """The parts of a page that its review reads.

    Attributes:
        json: the worklist, with the numbers of pictures instead of files; safe inside a ``script``.
        blocks: of `BLOCK` pictures each, base64 of a JPEG a line.
        n: how many findings there are.
        left_out: how many more the worklist has.
        boxes: whether any finding has a box to draw.
    """

    json: Markup
    blocks: tuple[Markup, ...]
    n: int
    left_out: int
    boxes: bool


def review_data(
    worklist: Worklist,
    summary: Mapping[str, Any],
    *,
    thumbnails: Path | None = None,
    folder: Path | None = None,
) -> ReviewData:
    """Everything that the review in a page needs.

    Args:
        worklist: the findings in the order in which they are looked at.
        summary: of the same report: what people decided already, boxes of other objects, names of checks.
        thumbnails: folder where pictures are kept by content; None keeps none.
        folder: where the page will lie, so that it can point to the images' files; None points to none.
    """
    from markupsafe import Markup

    entries = worklist.entries[:MAX_ENTRIES]
    pictures = _Pictures()
    images = _Images(summary, pictures, folder)
    side, near_side = next(sides for most, *sides in SIDES if len(entries) <= most)
    shown = _shown(entries, side, thumbnails, pictures, images)
    near = _near(entries, images)
    thumbs = crops(((path, digest, None) for path, digest in near), folder=thumbnails, long_side=near_side)
    found = {finding["key"]: finding for finding in summary["findings"]}
    rows = []
    belongs = _belongs(entries)
    for entry, together in zip(entries, belongs, strict=True):
        for path, digest in _beside(entry):
            pictures.offer((path, digest), thumbs.get((path, None)))
        decided = found.get(entry.key, {}).get("decision")
        rows.append(_row(entry, shown.get(entry.key, []), images, decided) | together)
    value = {
        "name": worklist.name,
        "task": worklist.task,
        "classes": worklist.classes,
        "digest": worklist.digest,
        "codes": {one["code"]: one["summary"] or one["name"] for one in summary["codes"]},
        "background": worklist.background,
        "block": BLOCK,
        "images": images.rows(),
        "entries": rows,
    }
    # As ASCII: neither a line separator nor half a surrogate pair is anything special in it
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return ReviewData(
        json=Markup(text),
        blocks=tuple(map(Markup, pictures.blocks())),
        n=len(entries),
        left_out=len(worklist.entries) - len(entries),
        boxes=any(entry.box is not None or entry.suggested_box is not None for entry in entries),
    )


class _Pictures:
    """The pictures of a page, each once, within a budget."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.numbers: dict[str, int] = {}
        self.of_image: dict[_Image, int] = {}
        self.used = 0

    def add(self, thumbnail: Thumbnail) -> int:
        """Number of a picture."""
        text = thumbnail.url.removeprefix(_URL)
        if text not in self.numbers:
            self.numbers[text] = len(self.texts)
            self.texts.append(text)
            self.used += len(text)
        return self.numbers[text]

    def offer(self, image: _Image, thumbnail: Thumbnail | None) -> None:
        """Add the picture of an image where there is one, and room for it."""
        if thumbnail is not None and image not in self.of_image and self.used < BUDGET:
            self.of_image[image] = self.add(thumbnail)

    def blocks(self) -> Iterator[str]:
        for at in range(0, len(self.texts), BLOCK):
            yield "\n".join(self.texts[at : at + BLOCK])


class _Images:
    """The images that a review shows, by number, with their names and files."""

    def __init__(self, summary: Mapping[str, Any], pictures: _Pictures, folder: Path | None) -> None:
        self.pictures, self.folder = pictures, None if folder is None else folder.resolve()
        self.boxes = (summary.get("objects") or {}).get("images", {})
        members = [one for group in summary["groups"] for one in group["members"]]
        known = [*summary["findings"], *members]
        self.known = {one["sample_id"]: one for one in reversed(known) if one["sample_id"] is not None}
        self.names: dict[str, str] = {sample: one["image"] for sample, one in self.known.items()}
        self.above = next(filter(None, map(_above, known)), None)
        self.numbers: dict[str, int] = {}
        self.of: list[dict[str, Any]] = []

    def number(
        self,
        sample: str,
        filepath: str | None,
        digest: str | None,
        names: Sequence[str],
        *,
        own: bool = False,
    ) -> int:
        """Number of an image; `own` says that a finding is about it, so that its file is pointed to."""
        if sample not in self.numbers:
            self.numbers[sample] = len(self.of)
            self.of.append({"id": sample, "file": filepath, "digest": digest, "names": (), "own": False})
        number = self.numbers[sample]
        self.of[number]["names"] = self.of[number]["names"] or names
        self.of[number]["own"] |= own
        return number

    def other(self, entry: Entry) -> tuple[str, str | None, str | None, list[str]] | None:
        """The image that a finding names besides its own, such as the one that it repeats."""
        fix = entry.fix
        named = fix.new if fix is not None and fix.op == "merge" else entry.suggested
        one = self.known.get(named) if named != entry.sample_id else None
        if one is None or one["filepath"] is None:
            return None
        label = one.get("label") or one.get("given")
        return one["sample_id"], one["filepath"], one["digest"], [] if label is None else [label]

    def rows(self) -> list[dict[str, Any]]:
        """As the page has them: ``name``, ``labels``, ``url`` and ``thumb``, and ``boxes`` where known."""
        rows = []
        for one in self.of:
            row: dict[str, Any] = {"name": self.name(one["id"], one["file"])}
            if one["names"]:
                row["labels"] = one["names"]
            if one["file"] is not None:
                row["url"] = _url_of(one["file"], self.folder) if one["own"] else None
                row["thumb"] = self.pictures.of_image.get((one["file"], one["digest"]))
            boxes = self.boxes.get(one["id"], {}).get("boxes")
            if boxes:
                row["boxes"] = [[box["id"], box["name"], *box["box"]] for box in boxes]
            rows.append({name: value for name, value in row.items() if value is not None})
        return rows

    def name(self, sample: str, filepath: str | None) -> str:
        if sample in self.names:
            return self.names[sample]
        inside = self.above is not None and filepath is not None and filepath.startswith(self.above)
        return filepath[len(self.above) :] if inside and filepath and self.above else sample


def _above(one: Mapping[str, Any]) -> str | None:
    """The folder that names of images begin below, where they aren't the ids of samples."""
    image, path = one["image"], one["filepath"]
    if image is None or path is None or image == one["sample_id"] or not path.endswith(image):
        return None
    return str(path)[: -len(image)]


def _url_of(filepath: str, folder: Path | None) -> str | None:
    """The file as an address relative to the page; whatever its name holds, it is one path."""
    if folder is None:
        return None
    try:
        relative = os.path.relpath(filepath, folder)
    except ValueError:  # on another drive
        return None
    return quote(os.fsencode(relative.replace(os.sep, "/")), safe="/")


def _shown(
    entries: Sequence[Entry], side: int, folder: Path | None, pictures: _Pictures, images: _Images
) -> dict[str, list[dict[str, Any]]]:
    """The pictures of each finding: its image, or the part around its boxes and then the image."""
    planned = {one.finding["key"]: one for one in plans(*_objects(entries))}
    jobs: list[_Job] = []
    for entry in entries:
        if entry.filepath is not None:
            plan = planned.get(entry.key)
            jobs += [(entry.filepath, entry.digest, part) for part in _parts(plan)]
        other = images.other(entry)
        if other is not None and other[1] is not None:
            jobs.append((other[1], other[2], None))
    made = crops(jobs, folder=folder, long_side=side)
    found: dict[str, list[dict[str, Any]]] = {}
    for entry in entries:
        if entry.filepath is None:
            continue
        plan = planned.get(entry.key)
        views = [None] if plan is None else [plan.view] if plan.whole is None else [plan.view, plan.whole]
        for part, view in zip(_parts(plan), views, strict=True):
            thumbnail = made.get((entry.filepath, part))
            if thumbnail is None:
                continue
            one: dict[str, Any] = {"at": pictures.add(thumbnail), "size": [thumbnail.width, thumbnail.height]}
            if plan is not None and view is not None:
                one["part"] = part or [0, 0, *plan.size]
                one["view"] = [round(side, 1) for side in view]
            elif max(one["size"]) <= TINY:
                pictures.of_image[entry.filepath, entry.digest] = one["at"]
            found.setdefault(entry.key, []).append(one)
        other = images.other(entry)
        thumbnail = None if other is None else made.get((other[1] or "", None))
        if other is not None and thumbnail is not None:
            size = [thumbnail.width, thumbnail.height]
            found.setdefault(entry.key, []).append(
                {"at": pictures.add(thumbnail), "size": size, "of": images.number(*other)}
            )
    return found


def _parts(plan: Plan | None) -> list[Region | None]:
    if plan is None or plan.whole is None:
        return [None]
    return [plan.part, None]


def _objects(entries: Iterable[Entry]) -> tuple[list[dict[str, Any]], dict[str, dict[str, Any]]]:
    """The findings about objects as `plans` takes them, and the sizes of their images."""
    findings, sizes = [], {}
    for entry in entries:
        if entry.box is None and entry.suggested_box is None:
            continue
        if entry.size is not None and entry.sample_id is not None:
            sizes[entry.sample_id] = dict(zip(("width", "height"), entry.size, strict=True))
        findings.append(
            {
                "key": entry.key,
                "sample_id": entry.sample_id,
                "filepath": entry.filepath,
                "box": entry.box,
                "suggested_box": entry.suggested_box,
            }
        )
    return findings, sizes


def _beside(entry: Entry) -> Iterator[_Image]:
    """The images that are shown small beside that of a finding."""
    for neighbor in entry.neighbors[:MAX_NEAR]:
        yield neighbor.filepath, neighbor.digest


def _near(entries: Iterable[Entry], images: _Images) -> list[_Image]:
    """All of these, each once; those that are shown anyway are small enough already."""
    every = dict.fromkeys(image for entry in entries for image in _beside(entry))
    return [image for image in every if image not in images.pictures.of_image]


def _belongs(entries: Sequence[Entry]) -> list[dict[str, int]]:
    """Numbers that findings have in common: looked at together, of one kind, and with the same fix."""
    numbers: tuple[dict[Any, int], ...] = ({}, {}, {})
    rows = []
    for entry in entries:
        keys = (place_of(entry), kind_of(entry), entry.key if entry.fix is None else entry.fix)
        found = [known.setdefault(key, len(known)) for known, key in zip(numbers, keys, strict=True)]
        rows.append(dict(zip(("place", "kind", "same"), found, strict=True)))
    return rows


def _row(entry: Entry, shown: list[dict[str, Any]], images: _Images, decided: str | None) -> dict[str, Any]:
    """A finding as the page has it; what is None or empty is left out."""
    other = images.other(entry)
    row = {
        "key": entry.key,
        "code": entry.code,
        "item": entry.item_id if entry.sample_id is None else None,
        "image": _image_of(entry, images),
        "split": entry.split,
        "score": entry.score,
        "p": entry.probability,
        "message": entry.message,
        "given": entry.given,
        "suggested": entry.suggested if other is None else None,
        "box": corners(entry.box),
        "newBox": corners(entry.suggested_box),
        "object": entry.item_id if entry.box is not None else None,
        "choices": [[one.name, _rounded(one.probability)] for one in entry.choices],
        "near": [[_near_of(one, images), _rounded(one.similarity)] for one in entry.neighbors[:MAX_NEAR]],
        "pictures": shown,
        "fix": None
        if entry.fix is None
        else {"op": entry.fix.op, "old": entry.fix.old, "new": entry.fix.new},
        "named": entry.other is not None or None,
        "taken": list(entry.taken),
        "decision": decided,
    }
    return {name: value for name, value in row.items() if value is not None and value != []}


def _image_of(entry: Entry, images: _Images) -> int | None:
    if entry.sample_id is None:
        return None
    return images.number(entry.sample_id, entry.filepath, entry.digest, (), own=True)


def _near_of(neighbor: Neighbor, images: _Images) -> int:
    return images.number(neighbor.sample_id, neighbor.filepath, neighbor.digest, neighbor.names)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
