"""The report as one HTML file that needs nothing else, and as a fragment for notebooks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dataaudit.errors import InputError
from dataaudit.report.drawing import Drawing, Gallery, draw_findings, draw_members
from dataaudit.report.expected import foremost, sentences
from dataaudit.report.objects import is_about_object
from dataaudit.report.pages import asset, environment, source_hash
from dataaudit.report.review_data import review_data
from dataaudit.report.summary import as_summary, is_grouped
from dataaudit.report.thumbnails import thumbnails as make_thumbnails
from dataaudit.types import Report
from dataaudit.worklist import Worklist, worklist_of

__all__ = ["to_html"]

MAX_CARDS = 500
MAX_CARDS_EMBEDDED = 24
MAX_MEMBERS = 12
MAX_CLASSES = 250
MAX_UNREADABLE = 1000
HEAT_LEVELS = 7
FULL_HEAT = 6
PLOT_WIDTH, PLOT_HEIGHT = 600, 220
UNREADABLE = "IMG001"
STYLES = ("report.css", "review.css")
SCRIPTS = (
    "report.js", "review_store.js", "review_pictures.js", "review_estimate.js", "review_order.js",
    "review_queue.js", "review_view.js", "review.js",
)  # fmt: skip
"""What a page holds, in this order; those of the review only where it has one."""


def to_html(
    report: Report | Mapping[str, Any],
    *,
    embed: bool = False,
    thumbnails: Path | None = None,
    max_cards: int | None = None,
    worklist: Worklist | None = None,
    folder: Path | None = None,
) -> str:
    """The report as HTML that works offline: styles, script and pictures are inside, and it may load nothing.

    Args:
        report: a report or its summary.
        embed: a fragment for notebooks instead of a page: one ``div`` with its own styles and no script.
        thumbnails: folder where thumbnails are kept by content, so that the next report decodes nothing; None
            keeps none.
        max_cards: how many pictures there are at most; 500, or 24 in a fragment, when left out.
        worklist: of the same report; with it the page has a review. Without one it is made of a report, and a
            summary has none.
        folder: where the page will lie, so that its review can point to the files of the images.

    Raises:
        InputError: `max_cards` is negative.
    """
    from markupsafe import Markup

    limit = (MAX_CARDS_EMBEDDED if embed else MAX_CARDS) if max_cards is None else max_cards
    if limit < 0:
        raise InputError(f"max_cards is {limit}; expected 0 or more.")
    summary = as_summary(report)
    shown = _shown(summary, limit)
    gallery = Gallery()
    drawn, drawn_members = _drawn(summary, shown, gallery, thumbnails)
    wanted = [
        *(card for card in shown["cards"] if card["key"] not in drawn),
        *(
            one
            for group in shown["groups"]
            for one in group["members"]
            if one["sample_id"] not in drawn_members
        ),
    ]
    pictures = make_thumbnails(
        ((item["filepath"], item["digest"]) for item in wanted if item["filepath"] is not None),
        folder=thumbnails,
    )
    context = {
        "summary": summary,
        "pictures": pictures,
        "gallery": gallery.pictures,
        "drawn": drawn,
        "drawn_members": drawn_members,
        "objects": _objects(summary.get("objects")),
        "names": {entry["code"]: entry["summary"] or entry["name"] for entry in summary["codes"]},
        "expected": _expected(summary),
        "expected_sentences": sentences(summary.get("expected", {})),
        "histogram": _histogram(summary["histogram"]),
        "matrix": _matrix(summary["matrix"]),
        "classes": _classes(summary["classes"]),
        "largest_share": max((entry["share"] for entry in summary["codes"]), default=0.0),
        **shown,
    }
    if embed:
        return environment().get_template("embed.html").render(context, style=asset("embed.css"))
    review = None
    if worklist is None and isinstance(report, Report):
        worklist = worklist_of(report)
    if worklist is not None and worklist.entries:
        review = review_data(worklist, summary, thumbnails=thumbnails, folder=folder)
    style, script = (
        Markup("\n").join(asset(name) for name in names if review is not None or name.startswith("report"))
        for names in (STYLES, SCRIPTS)
    )
    return (
        environment()
        .get_template("report.html")
        .render(
            context,
            review=review,
            style=style,
            script=script,
            style_hash=source_hash(style),
            script_hash=source_hash(script),
        )
    )


def _shown(summary: Mapping[str, Any], limit: int) -> dict[str, Any]:
    """What is shown as pictures, what as lines, and how much of each is left out."""
    findings = summary["findings"]
    single = [finding for finding in findings if finding["sample_id"] is not None and not is_grouped(finding)]
    cards = sorted(
        (finding for finding in single if finding["code"] != UNREADABLE),
        key=lambda one: one["decision"] == "keep",
    )
    groups = [
        {**group, "n": len(group["members"]), "members": group["members"][:MAX_MEMBERS]}
        for group in summary["groups"]
    ]
    # A third of the pictures is for groups, so that many label errors don't hide every duplicate.
    n_members = sum(len(group["members"]) for group in groups)
    n_cards = min(len(cards), max(limit - n_members, limit - limit // 3))
    room, chosen = limit - n_cards, []
    for group in groups:
        if len(group["members"]) > room:
            break
        room -= len(group["members"])
        chosen.append(group)
    unreadable = [finding for finding in single if finding["code"] == UNREADABLE]
    names = {card["given"] for card in cards[:n_cards]} - {None}
    names |= {card["suggested"] for card in cards[:n_cards] if card["suggests"] == "class"}
    return {
        "cards": cards[:n_cards],
        "cards_left_out": len(cards) - n_cards,
        "card_codes": sorted({card["code"] for card in cards[:n_cards]}),
        "card_classes": sorted(names),
        "groups": chosen,
        "n_groups": len(groups),
        "groups_left_out": len(groups) - len(chosen),
        "unreadable": unreadable[:MAX_UNREADABLE],
        "unreadable_left_out": max(0, len(unreadable) - MAX_UNREADABLE),
        "general": [finding for finding in findings if finding["sample_id"] is None],
    }


def _drawn(
    summary: Mapping[str, Any], shown: Mapping[str, Any], gallery: Gallery, folder: Path | None
) -> tuple[dict[str, list[Drawing]], dict[str, Drawing]]:
    """Drawings of the findings about objects by key, and of the members of groups by sample."""
    about = summary.get("objects")
    if about is None:
        return {}, {}
    cards = [card for card in shown["cards"] if is_about_object(card)]
    grouped = [one for one in summary["findings"] if is_about_object(one) and is_grouped(one)]
    return (
        draw_findings(cards, about["images"], gallery, folder),
        draw_members(shown["groups"], grouped, about["images"], gallery, folder),
    )


def _objects(objects: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The tables of objects, with the curves of precision and recall in pixels."""
    if objects is None:
        return None
    baseline = objects["baseline"]
    if baseline is not None:
        ranked = sorted(baseline["classes"], key=lambda one: (-one["n"], one["name"]))
        baseline = {
            **baseline,
            "line": _steps(baseline["all"]["curve"], PLOT_WIDTH, PLOT_HEIGHT),
            "width": PLOT_WIDTH,
            "height": PLOT_HEIGHT,
            "rows": [{**one, "line": _steps(one["curve"], 60, 24)} for one in ranked[:MAX_CLASSES]],
            "left_out": max(0, len(ranked) - MAX_CLASSES),
        }
    found = [entry for entry in objects["classes"] if entry["open"]]
    return {
        **objects,
        "rows": found[:MAX_CLASSES],
        "left_out": max(0, len(found) - MAX_CLASSES),
        "baseline": baseline,
    }


def _steps(curve: list[list[float]], width: int, height: int) -> str:
    """The path of a curve of precision over recall that falls where the precision does."""
    parts: list[str] = []
    before = 0.0
    for recall, precision in curve:
        y = round(height * (1 - precision), 2)
        parts.append(f"{'L' if parts else 'M'}{round(width * before, 2)} {y}L{round(width * recall, 2)} {y}")
        before = recall
    return "".join(parts)


def _classes(classes: list[dict[str, Any]]) -> dict[str, Any]:
    ranked = sorted(classes, key=lambda entry: (-entry["flagged"], -entry["share"], entry["name"]))
    largest = max((entry["share"] for entry in ranked), default=0.0)
    return {
        "rows": ranked[:MAX_CLASSES],
        "left_out": max(0, len(ranked) - MAX_CLASSES),
        "largest": largest or 1.0,
    }


def _matrix(matrix: Mapping[str, Any]) -> dict[str, Any]:
    """The matrix with a level of heat for each cell: 0 for none, 1 to 7 by the square root of the count."""
    most = max((n for row in matrix["counts"] for n in row), default=0)
    # A matrix of ones is not alarming, so the full heat begins at some.
    hottest = max(most, FULL_HEAT)
    rows = [
        {
            "name": name,
            "cells": [
                {
                    "n": n,
                    "to": matrix["classes"][column],
                    "heat": n and math.ceil(HEAT_LEVELS * math.sqrt(n / hottest)),
                }
                for column, n in enumerate(counts)
            ],
        }
        for name, counts in zip(matrix["classes"], matrix["counts"], strict=True)
    ]
    return {**matrix, "rows": rows, "most": most}


def _expected(summary: Mapping[str, Any]) -> dict[str, Any] | None:
    """The expected errors, with the curve of what looking finds in pixels."""
    shown = foremost(summary.get("expected", {}))
    if shown is None:
        return None
    code, entry = shown
    curve = entry["curve"]
    last, most = max(curve[-1]["k"], 1) if curve else 1, max((one["high"] for one in curve), default=1) or 1

    def point(k: float, errors: float) -> tuple[float, float]:
        return round(PLOT_WIDTH * k / last, 2), round(PLOT_HEIGHT * (1 - errors / most), 2)

    def path(key: str) -> list[str]:
        return [f"{x} {y}" for x, y in (point(one["k"], one[key]) for one in curve)]

    marks = []
    for one in entry["budget"]:
        reached = one["share"] * entry["errors"] - entry["confirmed"]
        if one["k"] and reached <= most:
            x, y = point(one["k"], reached)
            title = f"{one['share']:.0%} of the errors: the worst {one['k']:,}"
            marks.append({"x": x, "y": y, "title": title})
    return {
        **entry,
        "code": code,
        "line": "M" + "L".join(path("errors")) if curve else "",
        "band": "M" + "L".join(path("low") + path("high")[::-1]) + "Z" if curve else "",
        "marks": marks,
        "ticks": [{"up": PLOT_HEIGHT - point(0, n)[1], "text": f"{n:,}"} for n in _round_numbers(most)],
        "columns": [{"x": point(k, 0)[0], "text": f"{k:,}"} for k in (0, *_round_numbers(last))],
        "width": PLOT_WIDTH,
        "height": PLOT_HEIGHT,
    }


def _round_numbers(most: int) -> list[int]:
    """Four numbers or so up to `most`, such as 20, 40 and 60, to mark an axis with."""
    rough = most / 4
    power = 10 ** math.floor(math.log10(max(rough, 1)))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough or factor == 10)
    return list(range(step, most + 1, step))


def _histogram(histogram: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Bars and ticks in pixels; by the square root, so that the few flagged stay visible beside the many."""
    if histogram is None:
        return None
    edges, flagged, others = histogram["edges"], histogram["flagged"], histogram["not_flagged"]
    most = max(max(flagged), max(others), 1)

    def height(n: float) -> float:
        return round(PLOT_HEIGHT * math.sqrt(n / most), 2)

    step = PLOT_WIDTH / len(flagged)
    bars = [
        {
            "x": round(index * step, 2),
            "width": round(step / 2 - 1.5, 2),
            "flagged": height(yes),
            "other": height(no),
            "title": f"score {edges[index]:.2f} to {edges[index + 1]:.2f}: {yes:,} flagged, {no:,} not",
        }
        for index, (yes, no) in enumerate(zip(flagged, others, strict=True))
    ]
    ticks: list[dict[str, Any]] = []
    for n in (factor * 10**power for power in range(9, -1, -1) for factor in (5, 2, 1)):
        if n <= most and (not ticks or ticks[-1]["up"] - height(n) > 26):
            ticks.append({"up": height(n), "text": f"{n:,}"})
    return {
        **histogram, "bars": bars, "ticks": [tick for tick in ticks if tick["up"] > 18], "step": step,
        "width": PLOT_WIDTH, "height": PLOT_HEIGHT,
    }  # fmt: skip
