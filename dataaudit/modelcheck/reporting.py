"""The report of model checks: the same outputs as an audit's, from the same kind of summary."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dataaudit import registry
from dataaudit.modelcheck.findings import plain
from dataaudit.report.text import plural, storable, visible
from dataaudit.types import Finding, Locator

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["ModelReport", "Picture", "Table", "to_html", "to_terminal", "write"]

WIDTH = 130
"""Columns of what is printed into a file."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table that a report shows besides the findings.

    Attributes:
        title: its heading.
        columns: names of the columns.
        rows: cells, each a text or a number; None is shown as nothing.
        marked: indices of the rows that a finding is about.
        note: a sentence below it.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    marked: frozenset[int] = frozenset()
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A plot or an image that a report shows.

    Attributes:
        title: its heading.
        png: the picture, as the bytes of a PNG file.
        note: a sentence below it, and its text for those who don't see it.
    """

    title: str
    png: bytes
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class ModelReport:
    """What checks of the model side found.

    Attributes:
        name: what was checked, as the user named it.
        command: the check, such as ``determinism``.
        codes: the codes that were looked for.
        items: the findings; shown worst first.
        facts: short texts for the head, such as ``11.7 M parameters``.
        params: settings, ready for JSON.
        parts: tables and pictures, in order.
        skipped: code to the reason why it wasn't looked for.
        timings: seconds by step.
        images: sample id to image file, of the samples that findings name.
        kind: what was checked, ``model``, ``run`` or ``data``.
    """

    name: str
    command: str
    codes: Sequence[str]
    items: Sequence[Finding]
    facts: Sequence[str] = ()
    params: Mapping[str, Any] = field(default_factory=dict)
    parts: Sequence[Table | Picture] = ()
    skipped: Mapping[str, str] = field(default_factory=dict)
    timings: Mapping[str, float] = field(default_factory=dict)
    images: Mapping[str, str] = field(default_factory=dict)
    kind: Literal["model", "run", "data"] = "model"

    def without(self, codes: Sequence[str]) -> ModelReport:
        """The same without the findings whose code begins with one of `codes`."""
        from dataclasses import replace

        left = tuple(codes)
        if not left:
            return self
        return replace(
            self,
            codes=[code for code in self.codes if not code.startswith(left)],
            items=[item for item in self.items if not item.code.startswith(left)],
        )

    def summary(self) -> dict[str, Any]:
        """Everything that an output needs, with the keys of `dataaudit.report.summarize`, and ``model``."""
        from dataaudit import __version__

        items = sorted(self.items, key=lambda item: item.score)
        findings = [_row(item, self.images) for item in items]
        n_images = len({item.sample_id for item in items} - {None})
        return {
            "schema": 1,
            "version": __version__,
            "dataset": {
                "name": self.name, "format": self.kind, "path": None, "root": str(Path.cwd()),
                "task": "model",
            },
            "digest": "",
            "params": plain(self.params),
            "counts": {
                "images": 0, "labels": 0, "objects": None, "classes": 0, "splits": {}, "unlabeled": 0,
                "findings": len(items), "open": len(items), "kept": 0, "flagged_images": n_images,
                "doubtful_labels": 0, "expected_wrong": None,
            },
            "estimate": self._estimate(),
            "expected": {},
            "codes": _codes([code for code in self.codes if code not in self.skipped], items),
            "open": _open(items),
            "classes": [],
            "matrix": {"classes": [], "counts": [], "classes_left_out": 0, "findings_left_out": 0},
            "histogram": None,
            "findings": findings,
            "left_out": 0,
            "groups": [],
            "objects": None,
            "skipped": [
                {"code": code, "name": _named(code)["name"], "reason": reason}
                for code, reason in sorted(self.skipped.items())
            ],
            "timings": {step: float(value) for step, value in self.timings.items()},
            "seconds": float(sum(self.timings.values())),
            "model": {
                "command": self.command,
                "facts": list(self.facts),
                "tables": [plain(asdict(part)) for part in self.parts if isinstance(part, Table)],
            },
        }  # fmt: skip

    def _estimate(self) -> str:
        if not self.items:
            n = len(set(self.codes) - set(self.skipped))
            return f"Nothing found: {plural(n, 'kind')} of defect looked for."
        names = list(dict.fromkeys(item.item_id for item in sorted(self.items, key=lambda one: one.score)))
        about = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        return f"{plural(len(self.items), 'finding')} about {about}."

    def __repr__(self) -> str:
        counts = Counter(item.code for item in self.items)
        found = ", ".join(f"{code} {n}" for code, n in sorted(counts.items())) or "none"
        return f"ModelReport({self.name}, {self.command}, findings: {found})"

    def _repr_html_(self) -> str:
        return to_html(self, embed=True)


def _named(code: str) -> dict[str, str]:
    known = registry.rules().get(code)
    names = ("name", "summary", "explain")
    return {name: "" if known is None else getattr(known, name) for name in names}


def _codes(codes: Sequence[str], items: Sequence[Finding]) -> list[dict[str, Any]]:
    counts = Counter(item.code for item in items)
    return [
        {
            "code": code, **_named(code), "level": "model", "items": None, "findings": counts[code],
            "open": counts[code], "expected": None, "share": 0.0,
            "images": len({item.sample_id for item in items if item.code == code} - {None}),
        }
        for code in sorted({*codes, *counts})
    ]  # fmt: skip


def _open(items: Sequence[Finding]) -> dict[str, dict[str, int]]:
    members: dict[str, list[Finding]] = {"any": list(items)}
    for item in items:
        members.setdefault(item.code, []).append(item)
        members.setdefault(item.code[:3], []).append(item)
    return {
        name: {"findings": len(them), "images": len({item.sample_id for item in them} - {None})}
        for name, them in sorted(members.items())
    }


def _row(item: Finding, images: Mapping[str, str]) -> dict[str, Any]:
    source = item.evidence.get("source")
    file, _, line = str(source).rpartition(":")
    locator = Locator(file=file, item=int(line)) if source and line.isdigit() else None
    return {
        "key": item.key, "code": item.code, "item_id": item.item_id, "sample_id": item.sample_id,
        "given": item.given, "suggested": item.suggested, "score": float(item.score),
        "probability": item.probability, "message": item.message, "decision": None, "box": None,
        "suggested_box": None, "group": None, "evidence": plain(item.evidence), "fix": None,
        "filepath": None if item.sample_id is None else images.get(item.sample_id), "split": None,
        "digest": None, "image": item.sample_id, "suggests": None, "change": None, "label": None,
        "locator": None if locator is None else asdict(locator),
    }  # fmt: skip


def to_terminal(
    report: ModelReport, console: Console | None = None, *, html: str | Path | None = None
) -> None:
    """Print a report: each finding with what is wrong, its figures and what to change, then the tables.

    Args:
        report: what was found.
        console: where to print; standard output when left out.
        html: where the HTML report lies, to be named in the last line.
    """
    from rich.console import Console
    from rich.text import Text

    if console is None:
        console = Console()
        if not console.is_terminal:  # a file or a pipe has no edge at column 80
            console = Console(width=WIDTH)
    console.print()
    facts = "  ·  ".join([report.command, *report.facts])
    console.print(Text.assemble((visible(report.name), "bold"), ("  " + visible(facts), "dim")))
    for part in report.parts:
        if isinstance(part, Table):
            console.print()
            console.print(_drawn(part))
            if part.note:
                console.print(Text(visible(part.note), style="dim"))
    for item in sorted(report.items, key=lambda one: one.score):
        console.print()
        source = item.evidence.get("source")
        where = f"  {source}" if source else ""
        console.print(
            Text.assemble((item.code, "bold red"), " ", (visible(item.item_id), "bold"), (where, "dim"))
        )
        console.print(Text(visible(str(item.evidence.get("what", item.message)))))
        if "advice" in item.evidence:
            console.print(Text.assemble(("Change: ", "green"), visible(str(item.evidence["advice"]))))
    console.print()
    console.print(Text(report._estimate(), style="bold" if report.items else "bold green"))
    said = {item.code for item in report.items} | set(report.skipped)
    silent = [code for code in sorted(report.codes) if code not in said]
    if silent:
        console.print(Text(f"Nothing found by: {', '.join(silent)}", style="dim"))
    for code, reason in sorted(report.skipped.items()):
        console.print(Text(f"Skipped: {code} {visible(reason)}", style="dim"))
    if html is not None:
        console.print(Text.assemble("Report: ", (visible(str(html)), "cyan")), soft_wrap=True)


def _drawn(part: Table) -> Any:
    from rich import box
    from rich.table import Table as Drawn
    from rich.text import Text

    drawn = Drawn(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="dim",
                  title=part.title, title_justify="left", title_style="bold")  # fmt: skip
    for name, is_number in zip(part.columns, _numeric(part), strict=True):
        drawn.add_column(name, justify="right" if is_number else "left", overflow="fold")
    for at, row in enumerate(part.rows):
        style = "bold red" if at in part.marked else ""
        drawn.add_row(*(Text(shown(cell), style=style) for cell in row))
    return drawn


def _numeric(part: Table) -> list[bool]:
    """Which columns hold numbers, or shares and sizes written as texts that begin with one."""
    found = []
    for at in range(len(part.columns)):
        cells = [shown(row[at]) for row in part.rows if row[at] not in (None, "")]
        found.append(
            bool(cells) and all(re.fullmatch(r"[-+]?([\d.,e+-]+ ?%?|nan|inf)", cell) for cell in cells)
        )
    return found


def shown(cell: Any) -> str:
    """A cell as people read it.

    >>> shown(0.123456), shown(12345), shown(None), shown(1e-9), shown(True)
    ('0.1235', '12,345', '', '1e-09', 'yes')
    """
    if cell is None:
        return ""
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, int):
        return f"{cell:,}"
    return f"{cell:.4g}" if isinstance(cell, float) else visible(str(cell))


def to_html(report: ModelReport, *, embed: bool = False) -> str:
    """The report as one HTML page that works offline, or as a fragment for notebooks.

    Args:
        report: what was found.
        embed: only what is inside the page's body, with its styles.
    """
    import base64

    from dataaudit.report.pages import asset, environment, source_hash

    style = asset("report.css") + asset("model.css")
    parts = [
        {
            "kind": "table",
            **asdict(part),
            "cells": [[shown(cell) for cell in row] for row in part.rows],
            "numeric": _numeric(part),
            "first": next((at for at in sorted(part.marked) if at), 0),
        }
        if isinstance(part, Table)
        else {
            "kind": "picture", "title": part.title, "note": part.note, "wide": _width(part.png) > 700,
            "url": "data:image/png;base64," + base64.b64encode(part.png).decode("ascii"),
        }
        for part in report.parts
    ]  # fmt: skip
    pictures = [(at, part) for at, part in enumerate(report.parts, 1) if isinstance(part, Picture)]
    template = environment().get_template("model.html")
    return template.render(
        summary=report.summary(), parts=parts, plots={part.title: at for at, part in pictures}, embed=embed,
        style=style, style_hash=source_hash(style),
    )  # fmt: skip


def _width(png: bytes) -> int:
    """Pixels of a row, which a PNG says in its first chunk."""
    return int.from_bytes(png[16:20], "big")


def write(report: ModelReport, folder: str | Path) -> dict[str, Path]:
    """Write ``model-COMMAND.html`` and ``model-COMMAND.json``, each whole or not at all.

    Returns:
        The path of each by ``html`` and ``json``.
    """
    from dataaudit.report import to_json
    from dataaudit.report.files import replace_file

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"model-{report.command.replace(' ', '-')}"
    html = replace_file(folder / f"{stem}.html", storable(to_html(report)).encode())
    return {"html": html, "json": replace_file(folder / f"{stem}.json", to_json(report.summary()).encode())}


class Clock:
    """Seconds by step: ``with clock("forward"): ...``."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._step, self._start = "", 0.0

    def __call__(self, step: str) -> Clock:
        self._step = step
        return self

    def __enter__(self) -> None:
        self._start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        took = time.perf_counter() - self._start
        self.seconds[self._step] = self.seconds.get(self._step, 0.0) + took
