"""What is sent to a label tool: of each image its labels, its findings and the boxes that they propose."""

from __future__ import annotations

import base64
import hashlib
import io
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd

from dataaudit import registry
from dataaudit.errors import InputError, nearest
from dataaudit.signals.objects import image_sizes, objects
from dataaudit.types import CORNERS, Box, Finding, Report

__all__ = [
    "Sent",
    "Shown",
    "Task",
    "check_folder",
    "link_of",
    "message_of",
    "new_file_name",
    "proposed_class",
    "shown_of",
    "sizes_of",
    "tasks_of",
]

_TAKES_OUT = ("drop", "merge")
_SHOWN_IN_BROWSERS = {"JPEG": "jpeg", "PNG": "png", "GIF": "gif", "WEBP": "webp", "BMP": "bmp"}


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A box in the tool.

    Attributes:
        id: the same for the same object in every export, and the key of the finding for a proposed box.
        label_id: the object; None for a proposed box.
        name: class of the object, or of the one proposed.
        box: corners (x1, y1, x2, y2) in pixels of the image as shown.
        findings: those about the object, or the one that proposes the box.
    """

    id: str
    label_id: str | None
    name: str
    box: Box
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Task:
    """An image with findings that a label tool can answer.

    Attributes:
        sample_id: the image.
        filepath: its file.
        size: width and height in pixels as shown; None where they aren't known and not needed.
        names: its classes; of a dataset of objects none.
        shown: its objects, and after them the proposed boxes.
        findings: most probable first.
    """

    sample_id: str
    filepath: str
    size: tuple[int, int] | None
    names: tuple[str, ...]
    shown: tuple[Shown, ...]
    findings: tuple[Finding, ...]


@dataclass(frozen=True, kw_only=True)
class Sent:
    """What was written for a label tool.

    Attributes:
        files: what to hand to the tool.
        n_tasks: how many images.
        n_findings: how many findings they are about.
        left_out: why not, by the key of a finding that wasn't sent.
        how: what to do with the files, a few sentences.
    """

    files: tuple[Path, ...]
    n_tasks: int
    n_findings: int
    left_out: Mapping[str, str]
    how: str


def tasks_of(
    report: Report, *, codes: Sequence[str] = (), n: int | None = None, decided: bool = False
) -> tuple[list[Task], dict[str, str]]:
    """The images to send, those with the most probable errors first.

    Args:
        report: an audit's result.
        codes: codes or prefixes of checks; empty takes every check.
        n: at most so many images.
        decided: send findings that have a decision too.

    Returns:
        The tasks, and by the key of a finding why it isn't sent; findings of other checks, beyond `n` or
        with a decision are not among them.

    Raises:
        InputError: a code that no check has, or `n` below 1.
    """
    if n is not None and n < 1:
        raise InputError(f"The number of images is {n}; expected 1 or more.")
    boxes, sizes = shown_of(report), sizes_of(report)
    left_out: dict[str, str] = {}
    found: dict[str, list[Finding]] = {}
    for finding in _chosen(report, codes):
        if finding.decision is not None and not decided:
            continue
        why = _why_not(finding, report, boxes, sizes)
        if why is None:
            found.setdefault(str(finding.sample_id), []).append(finding)
        else:
            left_out[finding.key] = why
    surest = {sample_id: sorted(items, key=_doubt) for sample_id, items in found.items()}
    order = sorted(surest, key=lambda sample_id: _doubt(surest[sample_id][0]))[:n]
    names = _names(report, order)
    return [_task(report, sample_id, surest[sample_id], boxes, names, sizes) for sample_id in order], left_out


def shown_of(report: Report, samples: Collection[str] | None = None) -> dict[str, list[Shown]]:
    """The objects that can be shown as boxes, by sample id.

    Args:
        report: an audit's result.
        samples: only of these; None for all.
    """
    tables = report.tables
    if tables.task != "detection":
        return {}
    table = objects(tables.images, tables.labels, tables.task, tables.units)
    table = table[np.isfinite(table[list(CORNERS)].to_numpy()).all(axis=1)]
    table = table[(table["x2"] > table["x1"]) & (table["y2"] > table["y1"])]
    if samples is not None:
        table = table[table["sample_id"].isin(samples)]
    of_label: dict[str, list[Finding]] = {}
    for finding in report.items:
        if finding.box is not None:
            of_label.setdefault(finding.item_id, []).append(finding)
    found: dict[str, list[Shown]] = {}
    seen: dict[str, int] = {}
    for label_id, sample_id, name, *box in table[["sample_id", "name", *CORNERS]].itertuples():
        text = "\0".join((str(sample_id), str(name), ",".join(f"{corner:.1f}" for corner in box)))
        # Exact copies are told apart by their order
        seen[text] = seen.get(text, -1) + 1
        digest = hashlib.md5(f"{text}\0{seen[text]}".encode(), usedforsecurity=False).hexdigest()[:10]
        shown = Shown(
            id=digest, label_id=str(label_id), name=str(name), box=(box[0], box[1], box[2], box[3]),
            findings=tuple(of_label.get(str(label_id), ())),
        )  # fmt: skip
        found.setdefault(str(sample_id), []).append(shown)
    return found


def sizes_of(report: Report) -> dict[str, tuple[int, int]]:
    """Width and height in pixels of each image, as shown, where they are known."""
    images = report.tables.images
    if report.tables.task == "detection":
        table = image_sizes(images).to_numpy(dtype=float)
    else:
        table = (
            images[["width", "height"]]
            .apply(pd.to_numeric, errors="coerce")
            .to_numpy(float, na_value=math.nan)
        )
    return {
        str(sample_id): (int(width), int(height))
        for sample_id, (width, height) in zip(images.index, table.tolist(), strict=True)
        if width >= 1 and height >= 1
    }


def proposed_class(classes: Collection[str]) -> str:
    """The class of proposed boxes in a tool, which none of the dataset's has the name of.

    >>> proposed_class(["cat"])
    'proposed box'
    """
    name = "proposed box"
    while name in classes:
        name += "!"
    return name


def message_of(finding: Finding) -> str:
    """What a finding says, in one line for a label tool."""
    said = " ".join(f"{finding.code} {finding.message}".split())
    fix = finding.fix
    if fix is None:
        return said
    what = {
        "relabel": f"Suggested: {fix.new}",
        "add": f"Suggested: add {fix.new}",
        "remove": f"Suggested: remove {fix.old}",
        "move": "Suggested: the proposed box",
    }[fix.op]
    return f"{said} [{what}]"


def link_of(task: Task, images: str, root: Path | None) -> str:
    """Where a label tool finds the image of a task.

    Args:
        task: the image.
        images: ``embed`` (the image itself as a data URL), ``local`` (Label Studio's local files, the path
            relative to the folder that `root` is in) or the URL of `root`.
        root: folder of the dataset; None where it has none.

    Raises:
        InputError: an image that can't be embedded, or `images` is something else.
    """
    if images == "embed":
        return _embedded(task.filepath)
    if images == "local":
        # Without a root, such as in FiftyOne, from the root of the file system
        inside = root is not None and Path(task.filepath).is_relative_to(root)
        above = root.parent if inside and root is not None else Path(Path(task.filepath).anchor)
        return "/data/local-files/?d=" + quote(Path(task.filepath).relative_to(above).as_posix())
    if "://" not in images and not images.startswith("/"):
        raise InputError(
            f"The images are {images!r}; expected 'embed', 'local' or a URL such as https://example.org/photos."
        )
    inside = root is not None and Path(task.filepath).is_relative_to(root)
    name = Path(task.filepath).relative_to(root).as_posix() if inside and root is not None else task.sample_id
    return f"{images.rstrip('/')}/{quote(name)}"


def new_file_name(task: Task) -> str:
    """The name of an image in an archive: its sample id, with the ending of its file."""
    suffix = PurePosixPath(task.filepath).suffix
    name = task.sample_id if task.sample_id.endswith(suffix) else task.sample_id + suffix
    return "/".join(part for part in name.replace("\\", "/").split("/") if part not in ("", ".", ".."))


def check_folder(folder: Path) -> None:
    """Make a folder for what is sent, which may exist if it is empty or holds an earlier export.

    Raises:
        InputError: the path is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError("The path is a file; expected a folder to write to.", where=folder)
    folder.mkdir(parents=True, exist_ok=True)


def _chosen(report: Report, codes: Sequence[str]) -> list[Finding]:
    known = {*report.outcomes, *report.skipped, *(finding.code for finding in report.items)}
    for code in codes:
        if not code or not any(each.startswith(code) for each in known):
            raise InputError(
                f"The report has no check whose code begins with {code!r}. {nearest(code, known)}"
            )
    return [finding for finding in report.items if not codes or finding.code.startswith(tuple(codes))]


def _doubt(finding: Finding) -> tuple[float, float]:
    return -(finding.probability or 0.0), finding.score


def _why_not(
    finding: Finding,
    report: Report,
    boxes: Mapping[str, Sequence[Shown]],
    sizes: Mapping[str, tuple[int, int]],
) -> str | None:
    """Why a label tool can't answer a finding; None where it can."""
    fix = finding.fix
    if finding.sample_id is None or (fix is not None and fix.op == "rename"):
        return "it is about a class or the whole dataset, not about one image"
    if fix is not None and fix.op in _TAKES_OUT:
        return "it proposes that the image leaves the dataset, which labels can't say"
    if report.tables.task != "detection":
        return None if fix is not None or finding.code.startswith("LBL") else "it is not about a label"
    if finding.sample_id not in sizes:
        return "the size of the image isn't known"
    if fix is not None and fix.op == "add":
        return None if finding.suggested_box is not None else "it proposes no box"
    known = registry.checks().get(finding.code)
    if fix is None and known is not None and known.level != "object":
        return "it is not about a single object"
    shown = any(each.label_id == finding.item_id for each in boxes.get(finding.sample_id, ()))
    return None if shown else "its box can't be shown"


def _names(report: Report, order: Sequence[str]) -> dict[str, tuple[str, ...]]:
    if report.tables.task == "detection":
        return {}
    labels = report.tables.labels
    own = labels[labels["sample_id"].isin(order)].dropna(subset="name")
    return {str(key): tuple(sorted(names)) for key, names in own.groupby("sample_id")["name"]}


def _task(
    report: Report,
    sample_id: str,
    findings: Sequence[Finding],
    boxes: Mapping[str, Sequence[Shown]],
    names: Mapping[str, tuple[str, ...]],
    sizes: Mapping[str, tuple[int, int]],
) -> Task:
    image: Any = report.tables.images.loc[sample_id]
    proposed = [
        Shown(
            id=finding.key, label_id=None, name=str(finding.fix.new), box=finding.suggested_box,
            findings=(finding,),
        )
        for finding in findings
        if finding.fix is not None and finding.fix.op in ("add", "move") and finding.suggested_box
    ]  # fmt: skip
    objects_of = report.tables.task == "detection"
    return Task(
        sample_id=sample_id,
        filepath=str(image["filepath"]),
        size=sizes.get(sample_id),
        names=names.get(sample_id, ()),
        shown=(*boxes.get(sample_id, ()), *proposed) if objects_of else (),
        findings=tuple(findings),
    )


def _embedded(filepath: str) -> str:
    """An image as a data URL; one that browsers don't show as PNG."""
    from PIL import Image

    try:
        content = Path(filepath).read_bytes()
        with Image.open(io.BytesIO(content)) as image:
            kind = _SHOWN_IN_BROWSERS.get(image.format or "")
            if kind is None:
                converted = io.BytesIO()
                image.convert("RGB").save(converted, "PNG")
                kind, content = "png", converted.getvalue()
    except OSError as error:
        raise InputError(
            f"The image can't be embedded: {error}.", where=filepath, fix="Give --images local or a URL."
        ) from None
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
