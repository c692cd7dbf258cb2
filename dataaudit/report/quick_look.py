"""A quick look at a dataset: some of its images with their labels drawn, in one page that works offline."""

from __future__ import annotations

import hashlib
import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dataaudit import formats, state
from dataaudit.errors import InputError, nearest
from dataaudit.report.drawing import Drawing, Gallery, draw_image, drawing_of
from dataaudit.report.files import replace_file
from dataaudit.report.groups import folder_above, shown_path
from dataaudit.report.objects import boxes_of, is_about_object
from dataaudit.report.pages import asset, environment, source_hash
from dataaudit.report.summary import as_summary
from dataaudit.report.text import storable
from dataaudit.report.thumbnails import crops, sizes
from dataaudit.types import Report, Tables

__all__ = ["ORDERS", "Page", "show"]

ORDERS = ("random", "worst", "densest", "sparsest")
LONG_SIDE = 480
N_COLOURS = 12
MAX_LABELED = 40
"""How many boxes of an image have their class written beside them; with more, nothing could be read."""
MAX_CLASSES = 60


@dataclass(frozen=True, kw_only=True)
class Page:
    """A page of pictures; a notebook shows it.

    Attributes:
        html: the page, which needs nothing else.
        samples: ids of the images, in the order shown.
    """

    html: str
    samples: tuple[str, ...]

    def write(self, path: str | Path) -> Path:
        """Write the page, whole or not at all; its folder is made where it doesn't exist."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        return replace_file(path, storable(self.html).encode())

    def _repr_html_(self) -> str:
        # A frame of its own keeps the page's styles and the notebook's apart
        page = html.escape(storable(self.html))
        return f'<iframe srcdoc="{page}" width="100%" height="720" frameborder="0"></iframe>'


def show(
    data: str | Path | Tables,
    *,
    n: int = 24,
    seed: int = 0,
    order: str = "random",
    name: str | None = None,
    report: Report | Mapping[str, Any] | None = None,
    format: str | None = None,  # noqa: A002 - the word that users know
    options: Mapping[str, str] | None = None,
) -> Page:
    """Draw the labels of some images, boxes and classes, without an audit.

    Args:
        data: a folder or manifest, the name of a FiftyOne dataset, or tables.
        n: how many images.
        seed: of the random choice.
        order: ``random``; ``worst``, by the findings of an audit; ``densest`` or ``sparsest``, by the number
            of objects or labels.
        name: only images with this class; of the others on them, boxes are drawn thin.
        report: for the order ``worst``, a report or its summary; the dataset's last report when left out.
        format: name of the format, when it isn't to be detected.
        options: options of the format, such as the name of the label column.

    Returns:
        The page. A colour stands for a class, the same on every page of a dataset.

    Raises:
        InputError: `n` is below 1, an unknown order or class, or no report for the order ``worst``.
    """
    if n < 1:
        raise InputError(f"n is {n}; expected 1 or more.")
    if order not in ORDERS:
        raise InputError(f"There is no order {order!r}. {nearest(order, ORDERS)}")
    tables = data if isinstance(data, Tables) else formats.read(data, format=format, options=options)
    if name is not None and name not in tables.classes:
        raise InputError(f"The dataset has no class {name!r}. {nearest(name, tables.classes)}")
    findings = _findings(tables, report) if order == "worst" else []
    ids = _chosen(tables, order, n, seed, name, findings)
    part = _part(tables, ids)
    mine = [finding for finding in findings if finding["sample_id"] in part.images.index]
    said = {"order": order, "seed": seed, "name": name, "of": len(tables.images)}
    return Page(html=_page(part, mine, said, _colours(tables.classes)), samples=tuple(ids))


def _findings(tables: Tables, report: Report | Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """The findings about single images of a report, worst first."""
    if report is None:
        if tables.source is None:
            raise InputError(
                "Tables made by hand have no last report.", fix="Give one: show(..., report=report)"
            )
        file = state.reports_dir(tables.source) / "report.json"
        try:
            report = json.loads(file.read_text(encoding="utf-8"))
        except OSError as error:
            raise InputError(
                f"There is no report to know the worst images from ({error.strerror}).", where=file,
                fix=f"Make one: dataaudit audit {tables.source.path}",
            ) from error  # fmt: skip
        except ValueError as error:
            raise InputError(f"The report can't be read: {error}", where=file) from error
    findings = as_summary(report or {})["findings"]
    known = tables.images.index
    return [one for one in findings if one["decision"] != "keep" and one["sample_id"] in known]


def _chosen(
    tables: Tables, order: str, n: int, seed: int, name: str | None, findings: Sequence[Mapping[str, Any]]
) -> list[str]:
    ids, labels = tables.images.index, tables.labels[tables.labels["name"].notna()]
    if name is not None:
        ids = ids[ids.isin(labels["sample_id"][labels["name"] == name])]
    if order == "worst":
        allowed = set(ids)
        ranked = dict.fromkeys(one["sample_id"] for one in findings if one["sample_id"] in allowed)
        return list(ranked)[:n]
    if order == "random":
        # In the order of the dataset, so that what stands side by side there does so here
        chosen = np.random.default_rng(seed).permutation(len(ids))[:n]
        return [str(sample) for sample in ids[np.sort(chosen)]]
    counts = labels["sample_id"].value_counts().reindex(ids, fill_value=0)
    counts = counts.sort_values(ascending=order == "sparsest", kind="stable")
    return [str(sample) for sample in counts.index[:n]]


def _part(tables: Tables, ids: Sequence[str]) -> Tables:
    """The images shown with their sizes, which an audit would know, and their labels."""
    images = tables.images.loc[list(ids)]
    read = sizes(images["filepath"])
    for number, side in enumerate(("width", "height")):
        own = [read[path][number] if path in read else pd.NA for path in images["filepath"]]
        images = images.assign(**{side: pd.array(own, dtype="Int64")})
    labels = tables.labels[tables.labels["sample_id"].isin(images.index)]
    return replace(tables, images=images, labels=labels)


def _colours(classes: Sequence[str]) -> dict[str, int]:
    """A colour for each class: the one that its name gives, or the next that no other class has."""
    colours: dict[str, int] = {}
    free = set(range(N_COLOURS))
    for name in sorted(classes):
        first = int(hashlib.md5(name.encode("utf-8", "surrogatepass"), usedforsecurity=False).hexdigest(), 16)
        free = free or set(range(N_COLOURS))
        colours[name] = next(
            colour % N_COLOURS for colour in range(first, first + N_COLOURS) if colour % N_COLOURS in free
        )
        free.discard(colours[name])
    return colours


def _page(
    tables: Tables, findings: Sequence[dict[str, Any]], said: Mapping[str, Any], colours: Mapping[str, int]
) -> str:
    gallery = Gallery()
    boxed = tables.task == "detection"
    drawn = _drawn(tables, findings, said["name"], colours, gallery)
    named = tables.labels[tables.labels["name"].notna()]
    counts = named["name"].value_counts()
    images, above = tables.images, folder_above(tables)
    names = named.groupby("sample_id")["name"].agg(list).to_dict()
    messages: dict[str, list[str]] = {}
    for finding in findings:
        messages.setdefault(finding["sample_id"], []).append(finding["message"])
    cards = [
        {
            "image": shown_path(str(sample), str(path), above),
            "split": None if pd.isna(split) else str(split),
            "drawing": drawn.get(str(sample)),
            "n": len(names.get(sample, ())),
            "names": [] if boxed else [(one, colours[one]) for one in names.get(sample, ())],
            "messages": messages.get(str(sample), []),
        }
        for sample, path, split in zip(images.index, images["filepath"], images["split"], strict=True)
    ]
    classes = [(str(one), int(n), colours[str(one)]) for one, n in counts.items()]
    style = asset("report.css") + asset("show.css")
    return environment().get_template("show.html").render(
        said, cards=cards, boxed=boxed, gallery=gallery.pictures, title=_title(tables), style=style,
        style_hash=source_hash(style), classes=classes[:MAX_CLASSES],
        classes_left_out=max(0, len(classes) - MAX_CLASSES),
    )  # fmt: skip


def _title(tables: Tables) -> str:
    return "tables" if tables.source is None else Path(tables.source.path).name or tables.source.path


def _drawn(
    tables: Tables,
    findings: Sequence[dict[str, Any]],
    name: str | None,
    colours: Mapping[str, int],
    gallery: Gallery,
) -> dict[str, Drawing]:
    """A drawing of each image that can be read."""
    images = tables.images
    known = images[images["width"].notna() & (images["width"] > 0)]
    boxes = boxes_of(tables, list(known.index)) if tables.task == "detection" else {}
    about: dict[str, list[dict[str, Any]]] = {}
    for finding in findings:
        if is_about_object(finding):
            about.setdefault(finding["sample_id"], []).append(finding)
    pictures = crops(
        ((str(path), None, None) for path in known["filepath"]), folder=None, long_side=LONG_SIDE
    )
    found = {}
    for sample, path, width, height in zip(
        known.index, known["filepath"], known["width"], known["height"], strict=True
    ):
        size = int(width), int(height)
        picture = gallery.add(pictures.get((str(path), None)), (0, 0, *size))
        if picture is None:
            continue
        mine = boxes.get(sample, {}).get("boxes", [])
        if about.get(sample):
            found[sample] = draw_image(picture, size, about[sample], mine, str(sample))
            continue
        wanted = [name in (None, one["name"]) for one in mine]
        # With one class, writing it beside each box would say nothing
        labeled = name is None and len(mine) <= MAX_LABELED
        chosen = [
            (f"c{colours[one['name']]}" if has else "other", has and labeled, one)
            for one, has in zip(mine, wanted, strict=True)
        ]
        found[sample] = drawing_of(picture, size, chosen, str(sample))
    return found
