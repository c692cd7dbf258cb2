"""One finding as a picture, for notebooks and figures."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from dataaudit.errors import InputError, nearest
from dataaudit.report.drawing import Mark, close_up, draw_image
from dataaudit.report.objects import boxes_of, is_about_object
from dataaudit.report.thumbnails import upright
from dataaudit.types import Report

if TYPE_CHECKING:
    from PIL import Image, ImageDraw

__all__ = ["picture"]

COLOURS = {"given": "#e69f00", "proposed": "#56b4e9", "other": "#ffffff"}
DASH = 5


def picture(report: Report, key: str, *, crop: bool = False) -> Image.Image:
    """The image of a finding with its boxes drawn: in the dataset orange, proposed blue and dashed.

    Args:
        report: the result of an audit.
        key: of the finding, from the index of ``report.findings``.
        crop: only the object and what is beside it.

    Returns:
        An RGB image in the full resolution.

    Raises:
        InputError: no such finding, one that is about no image, or an image that can't be read.
    """
    from PIL import ImageDraw

    finding = next((one for one in report.items if one.key == key), None)
    if finding is None:
        raise InputError(
            f"There is no finding {key!r}. {nearest(key, [one.key for one in report.items][:20])}"
        )
    if finding.sample_id is None:
        raise InputError(f"The finding {key!r} is about no image.")
    filepath = str(report.tables.images.at[finding.sample_id, "filepath"])
    try:
        image = upright(filepath)
    except Exception as error:
        raise InputError(f"The image can't be read: {error}", where=filepath) from error
    if report.tables.task != "detection":
        return image
    image_boxes = boxes_of(report.tables, [finding.sample_id])[finding.sample_id]["boxes"]
    about = dataclasses.asdict(finding)
    marks = draw_image("", image.size, [about], image_boxes, finding.sample_id).marks
    pen = ImageDraw.Draw(image)
    width = max(2, round(max(image.size) / 320))
    for mark in marks:
        _box(pen, mark, width if mark.kind != "other" else max(1, width // 2))
    return image.crop(close_up(about, image.size)) if crop and is_about_object(about) else image


def _box(pen: ImageDraw.ImageDraw, mark: Mark, width: int) -> None:
    x1, y1, x2, y2 = mark.x, mark.y, mark.x + mark.width, mark.y + mark.height
    pen.rectangle((x1 - 1, y1 - 1, x2 + 1, y2 + 1), outline="black", width=width + 2)
    if mark.kind != "proposed":
        pen.rectangle((x1, y1, x2, y2), outline=COLOURS[mark.kind], width=width)
        return
    step = DASH * width
    for start, end, level in ((x1, x2, y1), (x1, x2, y2)):
        for at in np.arange(start, end, step):
            pen.line((at, level, min(at + step * 0.6, end), level), fill=COLOURS["proposed"], width=width)
    for start, end, level in ((y1, y2, x1), (y1, y2, x2)):
        for at in np.arange(start, end, step):
            pen.line((level, at, level, min(at + step * 0.6, end)), fill=COLOURS["proposed"], width=width)
