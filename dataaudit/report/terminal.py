"""The report in a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dataaudit.report.expected import sentences
from dataaudit.report.objects import by_class_and_kind
from dataaudit.report.summary import as_summary, is_grouped
from dataaudit.report.text import percent, plural, visible
from dataaudit.types import Report

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

__all__ = ["to_terminal"]

WORST = 10
MAX_CLASSES = 8
MAX_KINDS = 8


def to_terminal(
    report: Report | Mapping[str, Any], console: Console | None = None, *, html: str | Path | None = None
) -> None:
    """Print a report: what was audited, the findings by check, the worst of them, and what was skipped.

    Args:
        report: a report or its summary.
        console: where to print; standard output when left out. There is no colour where it isn't a terminal.
        html: where the HTML report lies, to be named in the last line.
    """
    from rich.console import Console
    from rich.text import Text

    summary = as_summary(report)
    console = console or Console()
    console.print()
    console.print(_header(summary))
    console.print()
    if any(entry["open"] for entry in summary["codes"]):
        console.print(_codes(summary))
        console.print()
    kinds = _kinds(summary)
    if kinds is not None:
        console.print(kinds)
        console.print()
    silent = [entry["code"] for entry in summary["codes"] if not entry["open"]]
    worst = _worst(summary["findings"])
    if worst:
        console.print(Text("Look at these first", style="bold"))
        console.print(_findings(worst))
        console.print()
    style = "bold green" if not summary["counts"]["open"] else "bold"
    console.print(Text(visible(summary["estimate"]), style=style))
    for sentence in sentences(summary.get("expected", {})):
        console.print(Text(sentence))
    if silent:
        console.print(Text(f"Nothing found by: {', '.join(silent)}", style="dim"))
    if summary["skipped"]:
        reasons: dict[str, list[str]] = {}
        for entry in summary["skipped"]:
            reasons.setdefault(entry["reason"].rstrip("."), []).append(entry["code"])
        skipped = "; ".join(f"{', '.join(codes)} {reason}" for reason, codes in reasons.items())
        console.print(Text(f"Skipped: {visible(skipped)}", style="dim"))
    if html is not None:
        console.print(Text.assemble("Report: ", (visible(str(html)), "cyan")), soft_wrap=True)


def _header(summary: Mapping[str, Any]) -> Text:
    from rich.text import Text

    dataset, counts = summary["dataset"], summary["counts"]
    parts = [dataset["format"], f"{counts['images']:,} images", f"{counts['classes']:,} classes"]
    if counts.get("objects") is not None:
        parts.insert(2, plural(counts["objects"], "object"))
    if counts["splits"]:
        parts.append(", ".join(f"{name} {n:,}" for name, n in counts["splits"].items()))
    if counts["unlabeled"]:
        parts.append(f"{counts['unlabeled']:,} unlabeled")
    return Text.assemble((visible(dataset["name"]), "bold"), ("  " + visible("  ·  ".join(parts)), "dim"))


def _table(*columns: tuple[str, str]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="dim")
    for name, justify in columns:
        right = justify == "right"
        table.add_column(name, justify="right" if right else "left", no_wrap=right, overflow="fold")
    return table


def _codes(summary: Mapping[str, Any]) -> Table:
    from rich.text import Text

    table = _table(
        ("Check", "left"),
        ("What it finds", "left"),
        ("Findings", "right"),
        ("Images", "right"),
        ("Real", "right"),
    )
    for entry in summary["codes"]:
        if not entry["open"]:
            continue
        expected = "" if entry["expected"] is None else f"≈{entry['expected']:,.0f}"
        table.add_row(
            Text(entry["code"], style=_style(entry["code"])),
            Text(visible(entry["summary"] or entry["name"]).rstrip(".")),
            Text(f"{entry['open']:,}", style="bold"),
            Text(percent(entry["share"]) if entry["images"] else "", style="dim"),
            Text(expected),
        )
    return table


def _kinds(summary: Mapping[str, Any]) -> Table | None:
    """The findings of objects by class and kind, of the classes that have most; None where there are none."""
    from rich.text import Text

    codes, rows = by_class_and_kind(summary)
    if len(rows) < 2:
        return None
    most = sorted(codes, key=lambda code: -sum(row["counts"].get(code, 0) for row in rows))
    shown = sorted(most[:MAX_KINDS])
    # A terminal is narrow, and all of these codes begin with BOX
    names = [code.removeprefix("BOX") for code in shown] + (["more"] if len(codes) > MAX_KINDS else [])
    table = _table(("Class", "left"), ("Objects", "right"), *((name, "right") for name in names))
    table.columns[0].max_width, table.columns[0].no_wrap, table.columns[0].overflow = 20, True, "ellipsis"
    table.title, table.title_justify, table.title_style = "BOX findings by class", "left", "bold"
    for row in rows[:MAX_CLASSES]:
        counts = [row["counts"].get(code, 0) for code in shown]
        counts += [row["open"] - sum(counts)] if len(codes) > MAX_KINDS else []
        cells = [Text(f"{n:,}" if n else "·", style="" if n else "dim") for n in counts]
        table.add_row(Text(visible(row["name"])), Text(f"{row['n']:,}", style="dim"), *cells)
    if len(rows) > MAX_CLASSES:
        table.caption = f"{plural(len(rows) - MAX_CLASSES, 'more class')} in the report"
        table.caption_justify = "left"
    return table


def _findings(worst: list[Mapping[str, Any]]) -> Table:
    from rich.text import Text

    table = _table(("Check", "left"), ("Image", "left"), ("Given → suggested", "left"), ("Chance", "right"))
    for finding in worst:
        given, suggested = finding["given"], finding["suggested"]
        if finding["change"] == "missing" and suggested is not None:
            change = Text.assemble(("missing ", "dim"), (visible(suggested), "green"))
        elif finding["change"] == "moved" and given is not None:
            change = Text.assemble(("moved ", "dim"), visible(given))
        elif finding["change"] == "extra" and given is not None:
            change = Text.assemble(("extra ", "dim"), (visible(given), "red"))
        elif given is not None and finding["suggests"] == "class" and suggested != given:
            change = Text.assemble((visible(given), "red"), (" → ", "dim"), (visible(suggested), "green"))
        else:
            change = Text(visible(finding["message"]))
        chance = finding["probability"]
        table.add_row(
            Text(finding["code"], style=_style(finding["code"])),
            Text(visible(finding["image"] or finding["item_id"])),
            change,
            Text("" if chance is None else percent(chance)),
        )
    return table


def _style(code: str) -> str:
    return {"LBL": "red", "BOX": "red", "DUP": "blue", "SPL": "magenta", "IMG": "yellow"}.get(
        code[:3], "cyan"
    )


def _worst(findings: list[dict[str, Any]]) -> list[Mapping[str, Any]]:
    """The worst findings: one of each check, then those of the labels before the others."""
    queues: dict[str, list[Mapping[str, Any]]] = {}
    seen: set[tuple[str, str]] = set()
    for finding in findings:
        if finding["decision"] == "keep":
            continue
        if is_grouped(finding) and finding["group"] is not None:
            if (finding["code"], finding["group"]) in seen:
                continue
            seen.add((finding["code"], finding["group"]))
        queues.setdefault(finding["code"], []).append(finding)
    order = sorted(queues, key=lambda code: (code[:3] not in ("LBL", "BOX"), code))
    room = max(0, WORST - len(order))
    chosen: list[Mapping[str, Any]] = []
    for code in order[:WORST]:
        more = queues[code][: 1 + room]
        room -= len(more) - 1
        chosen += more
    return chosen
