"""Images with boxes drawn over them, as SVG in pixels of the image.

Each picture is in a page once, however many drawings show it; the boxes are its overlay.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dataaudit.report.thumbnails import Region, Thumbnail, crops, sizes

__all__ = [
    "Drawing",
    "Gallery",
    "Mark",
    "Picture",
    "Plan",
    "close_up",
    "draw_findings",
    "draw_image",
    "draw_members",
    "drawing_of",
    "plans",
]

Corners = Sequence[float]
View = tuple[float, float, float, float]

CROP_SIDE = 200
WHOLE_SIDE = 160
CONTEXT = 0.35
"""What a crop shows on each side of the boxes, as a share of their longer side."""
MIN_CROP = 48
MIN_CROP_SHARE = 0.04
ENOUGH = 0.6
"""Share of an image from which on a crop shows nothing that the image doesn't."""
OVERHANG = 0.5
"""How far beyond the image a box is drawn, as a share of its side."""
MAX_LABEL = 24
LETTER = 0.6
"""Width of a letter, as a share of the height of the font."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A JPEG and its place in the image, in pixels of the image."""

    url: str
    x: int
    y: int
    width: int
    height: int
    tiny: bool


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A box as it is drawn.

    Attributes:
        kind: class of its style: ``given``, ``proposed``, ``other`` or ``c0`` to ``c11``.
        x, y, width, height: in pixels of the image.
        title: shown where the pointer rests.
        label: written over the box; empty for none.
        label_x: where it begins, or ends where that would reach out of the view.
        anchor: ``start`` or ``end``.
    """

    kind: str
    x: float
    y: float
    width: float
    height: float
    title: str
    label: str = ""
    label_x: float = 0.0
    anchor: str = "start"


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """What one SVG shows.

    Attributes:
        picture: id of the picture, or None where there is none.
        view: ``viewBox``, x, y, width and height.
        halo: path around the foremost boxes, dark, so that light ones stand out.
        shade: the same, fainter, around the other boxes.
        marks: the boxes, the foremost last.
        alt: what is seen, in words.
        font: size of the labels in pixels of the image.
    """

    picture: str | None
    view: str
    halo: str
    shade: str
    marks: tuple[Mark, ...]
    alt: str
    font: float


class Gallery:
    """The pictures of a page, each once, by ids made of their content."""

    def __init__(self) -> None:
        self.pictures: dict[str, Picture] = {}

    def add(self, thumbnail: Thumbnail | None, region: Region) -> str | None:
        """Place a thumbnail of a region and return its id; None for none."""
        if thumbnail is None:
            return None
        material = f"{thumbnail.url}{region}".encode()
        name = "p" + hashlib.md5(material, usedforsecurity=False).hexdigest()[:12]
        x1, y1, x2, y2 = region
        self.pictures[name] = Picture(
            url=thumbnail.url, x=x1, y=y1, width=x2 - x1, height=y2 - y1,
            tiny=max(thumbnail.width, thumbnail.height) < 80,
        )  # fmt: skip
        return name


def draw_findings(
    findings: Sequence[Mapping[str, Any]],
    images: Mapping[str, Mapping[str, Any]],
    gallery: Gallery,
    folder: Path | None,
) -> dict[str, list[Drawing]]:
    """The crop around the boxes of each finding, and its whole image; one drawing where both are the same.

    Args:
        findings: of a summary, about objects.
        images: the entry ``images`` of a summary's objects; an image that isn't there is drawn without its
            other boxes.
        gallery: gets the pictures.
        folder: where thumbnails are kept, or None.

    Returns:
        Drawings by the finding's key; those whose image can't be read have none.
    """
    planned = plans(findings, images)
    crop = crops(
        ((one.finding["filepath"], one.finding["digest"], one.part) for one in planned),
        folder=folder, long_side=CROP_SIDE,
    )  # fmt: skip
    image = crops(
        ((one.finding["filepath"], one.finding["digest"], None) for one in planned if one.whole is not None),
        folder=folder, long_side=WHOLE_SIDE,
    )  # fmt: skip
    found: dict[str, list[Drawing]] = {}
    for one in planned:
        finding = one.finding
        picture = gallery.add(crop.get((finding["filepath"], one.part)), one.part)
        if picture is None:
            continue
        others = images.get(finding["sample_id"], {}).get("boxes", ())
        marks = [*_others(others, [finding], one.size), *_own(finding, one.size)]
        drawings = [_drawing(picture, one.view, marks, f"part of {finding['image']}")]
        if one.whole is not None:
            picture = gallery.add(image.get((finding["filepath"], None)), (0, 0, *one.size))
            drawings.append(_drawing(picture, one.whole, marks, f"{finding['image']}"))
        found[finding["key"]] = drawings
    return found


def draw_members(
    groups: Sequence[Mapping[str, Any]],
    findings: Sequence[Mapping[str, Any]],
    images: Mapping[str, Mapping[str, Any]],
    gallery: Gallery,
    folder: Path | None,
) -> dict[str, Drawing]:
    """The images of groups with all their boxes, those that findings are about drawn as such.

    Args:
        groups: of a summary, each with its ``members``.
        findings: about objects of these groups.
        images: the entry ``images`` of a summary's objects.
        gallery: gets the pictures.
        folder: where thumbnails are kept, or None.

    Returns:
        A drawing by sample id; none of images that can't be read or whose boxes aren't known.
    """
    members = {
        one["sample_id"]: one
        for group in groups
        for one in group["members"]
        if one["filepath"] is not None and images.get(one["sample_id"], {}).get("width")
    }
    jobs = ((one["filepath"], one["digest"], None) for one in members.values())
    made = crops(jobs, folder=folder, long_side=CROP_SIDE)
    about: dict[str, list[Mapping[str, Any]]] = {}
    for finding in findings:
        about.setdefault(finding["sample_id"], []).append(finding)
    found = {}
    for sample, member in members.items():
        size = images[sample]["width"], images[sample]["height"]
        picture = gallery.add(made.get((member["filepath"], None)), (0, 0, *size))
        if picture is not None:
            mine = about.get(sample, [])
            found[sample] = draw_image(picture, size, mine, images[sample]["boxes"], member["image"])
    return found


def draw_image(
    picture: str,
    size: tuple[int, int],
    findings: Sequence[Mapping[str, Any]],
    boxes: Sequence[Mapping[str, Any]],
    alt: str,
) -> Drawing:
    """A whole image with the boxes of its findings, and thin its other boxes.

    Args:
        picture: id of the picture.
        size: width and height of the image in pixels.
        findings: of a summary, about objects of the image.
        boxes: of the image, see `dataaudit.report.objects.boxes_of`.
        alt: what is seen, in words.
    """
    marks = _others(boxes, findings, size)
    marks += [mark for finding in findings for mark in _own(finding, size)]
    corners = [(mark.x, mark.y, mark.x + mark.width, mark.y + mark.height) for mark in marks]
    return _drawing(picture, _around(corners, *size), marks, alt)


def close_up(finding: Mapping[str, Any], size: tuple[int, int]) -> Region:
    """The part of an image that shows the boxes of a finding and what is beside them."""
    own = [_drawn(box, *size) for box in (finding["box"], finding["suggested_box"]) if box is not None]
    return _inside(_crop(own, *size), *size)


def drawing_of(
    picture: str, size: tuple[int, int], boxes: Iterable[tuple[str, bool, Mapping[str, Any]]], alt: str
) -> Drawing:
    """A whole image with its boxes.

    Args:
        picture: id of the picture.
        size: width and height of the image in pixels.
        boxes: of each its kind, whether its class is written beside it, and the box; see
            `dataaudit.report.objects.boxes_of`.
        alt: what is seen, in words.
    """
    marks = []
    for kind, labeled, box in boxes:
        title = _title(box)
        marks.append(_mark(kind, _drawn(box["box"], *size), title, label=title if labeled else ""))
    # Small ones over large ones, or they couldn't be pointed at
    marks.sort(key=lambda mark: (mark.kind != "other", -mark.width * mark.height))
    return _drawing(picture, (0, 0, *size), marks, alt)


def _title(box: Mapping[str, Any]) -> str:
    return ", ".join([box["name"], *box["flags"]])


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be shown of a finding: a view of a part and, where that isn't most of it, of all."""

    finding: Mapping[str, Any]
    size: tuple[int, int]
    view: View
    part: Region
    whole: View | None


def plans(findings: Sequence[Mapping[str, Any]], images: Mapping[str, Mapping[str, Any]]) -> list[Plan]:
    """How the boxes of findings are shown; nothing of an image that can't be read.

    Args:
        findings: of a summary, about objects; all with at least one box.
        images: width and height of images by sample; of the others they are read from the files.
    """
    unknown = [
        one["filepath"]
        for one in findings
        if one["filepath"] is not None and not images.get(one["sample_id"], {}).get("width")
    ]
    read = sizes(unknown)
    found = []
    for finding in findings:
        known = images.get(finding["sample_id"], {})
        size = (known["width"], known["height"]) if known.get("width") else read.get(finding["filepath"])
        if finding["filepath"] is None or size is None or 0 in size:
            continue
        own = [_drawn(box, *size) for box in (finding["box"], finding["suggested_box"]) if box is not None]
        view, whole = _crop(own, *size), _around(own, *size)
        if view[2] * view[3] >= ENOUGH * size[0] * size[1]:
            plan = Plan(finding=finding, size=size, view=whole, part=(0, 0, *size), whole=None)
        else:
            plan = Plan(finding=finding, size=size, view=view, part=_inside(view, *size), whole=whole)
        found.append(plan)
    return found


def _drawn(box: Corners, width: int, height: int) -> tuple[float, float, float, float]:
    """A box upright, and not further out of the image than it can be shown."""
    x1, y1, x2, y2 = box
    xs = sorted(min(max(x, -OVERHANG * width), (1 + OVERHANG) * width) for x in (x1, x2))
    ys = sorted(min(max(y, -OVERHANG * height), (1 + OVERHANG) * height) for y in (y1, y2))
    return xs[0], ys[0], xs[1], ys[1]


def _around(boxes: Iterable[Corners], width: int, height: int) -> View:
    """The view of an image with the boxes that reach out of it."""
    corners = [(0.0, 0.0, float(width), float(height)), *boxes]
    x1, y1 = min(one[0] for one in corners), min(one[1] for one in corners)
    x2, y2 = max(one[2] for one in corners), max(one[3] for one in corners)
    return x1, y1, x2 - x1, y2 - y1


def _crop(boxes: Sequence[Corners], width: int, height: int) -> View:
    """A square around boxes with what is beside them, inside the image where they are."""
    lows = [min(box[side] for box in boxes) for side in (0, 1)]
    highs = [max(box[side] for box in boxes) for side in (2, 3)]
    longest = max(high - low for low, high in zip(lows, highs, strict=True))
    side = max((1 + 2 * CONTEXT) * longest, MIN_CROP, MIN_CROP_SHARE * max(width, height))
    starts, lengths = [], []
    for low, high, full in zip(lows, highs, (width, height), strict=True):
        margin = (side - (high - low)) / 2
        # Beyond the image only where a box is
        least = min(0.0, low - margin / 2) if low < 0 else 0.0
        most = max(float(full), high + margin / 2) if high > full else float(full)
        length = min(side, most - least)
        starts.append(min(max(low - margin, least), most - length))
        lengths.append(length)
    return starts[0], starts[1], lengths[0], lengths[1]


def _inside(view: View, width: int, height: int) -> Region:
    """The part of an image that a view shows, in whole pixels; never nothing."""
    x, y, w, h = view
    x1, y1 = min(max(math.floor(x), 0), width - 1), min(max(math.floor(y), 0), height - 1)
    return x1, y1, max(min(math.ceil(x + w), width), x1 + 1), max(min(math.ceil(y + h), height), y1 + 1)


def _own(finding: Mapping[str, Any], size: tuple[int, int]) -> list[Mark]:
    marks = []
    for kind, box, name in (
        ("given", finding["box"], finding["given"]),
        ("proposed", finding["suggested_box"], finding["suggested"] or finding["given"]),
    ):
        if box is not None:
            marks.append(_mark(kind, _drawn(box, *size), f"{kind}: {name or 'no class'}"))
    return marks


def _others(
    boxes: Iterable[Mapping[str, Any]], findings: Sequence[Mapping[str, Any]], size: tuple[int, int]
) -> list[Mark]:
    about = {finding["item_id"] for finding in findings}
    return [_mark("other", _drawn(one["box"], *size), _title(one)) for one in boxes if one["id"] not in about]


def _mark(kind: str, box: Corners, title: str, label: str = "") -> Mark:
    x1, y1, x2, y2 = box
    shown = label if len(label) <= MAX_LABEL else label[: MAX_LABEL - 1] + "…"
    return Mark(
        kind=kind, x=round(x1, 2), y=round(y1, 2), width=round(x2 - x1, 2), height=round(y2 - y1, 2),
        title=title, label=shown,
    )  # fmt: skip


def _drawing(picture: str | None, view: View, marks: Sequence[Mark], alt: str) -> Drawing:
    x, y, width, height = view
    # A box without width isn't drawn at all, so it gets some
    least = 0.004 * max(width, height)
    # Of the same size on the page, where pictures are four to three
    font = round(max(width / 28, height / 21), 2)
    seen = tuple(
        _placed(replace(mark, width=max(mark.width, least), height=max(mark.height, least)), x + width, font)
        for mark in marks
        if mark.x <= x + width and mark.x + mark.width >= x
        and mark.y <= y + height and mark.y + mark.height >= y
    )  # fmt: skip
    return Drawing(
        picture=picture,
        view=f"{x:.2f} {y:.2f} {width:.2f} {height:.2f}",
        halo=_outline(mark for mark in seen if mark.kind != "other"),
        shade=_outline(mark for mark in seen if mark.kind == "other"),
        marks=seen,
        alt=alt,
        font=font,
    )


def _placed(mark: Mark, right: float, font: float) -> Mark:
    """The mark with the place of its label, which keeps left of `right`."""
    fits = mark.x + LETTER * font * len(mark.label) <= right
    if fits:
        return replace(mark, label_x=mark.x)
    return replace(mark, label_x=round(min(mark.x + mark.width, right), 2), anchor="end")


def _outline(marks: Iterable[Mark]) -> str:
    return "".join(
        f"M{mark.x:g} {mark.y:g}h{mark.width:g}v{mark.height:g}h{-mark.width:g}z" for mark in marks
    )
