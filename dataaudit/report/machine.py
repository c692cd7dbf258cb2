"""The report for machines: JSON, SARIF, JUnit, GitHub's workflow commands and Markdown."""

from __future__ import annotations

import json
import os
import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

from dataaudit.report.objects import by_class_and_kind, is_about_object
from dataaudit.report.summary import as_summary
from dataaudit.report.text import percent, plural, storable, visible
from dataaudit.types import Report

__all__ = ["to_github", "to_json", "to_junit", "to_markdown", "to_sarif"]

SARIF_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
MAX_ANNOTATIONS = 50
MAX_LISTED = 100
MAX_CLASSES = 15

_LINED = (".csv", ".tsv", ".txt", ".py")
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def to_json(report: Report | Mapping[str, Any]) -> str:
    """The whole summary as JSON, indented, in UTF-8 without escapes.

    Args:
        report: a report or its summary.
    """
    return storable(json.dumps(as_summary(report), ensure_ascii=False, indent=1, allow_nan=False))


def to_sarif(report: Report | Mapping[str, Any], *, base: str | Path | None = None) -> str:
    """The findings as SARIF 2.1.0, with one rule for each check.

    A finding stands at the line of the manifest that holds its label where there is one, else at its image. A
    finding that a person decided to keep is in the log with a suppression.

    Args:
        report: a report or its summary.
        base: folder that the locations are relative to, such as the root of a repository; the dataset's root
            when left out, or where a file isn't inside it.

    Reference: Static Analysis Results Interchange Format (SARIF) Version 2.1.0, OASIS Standard.
    """
    summary = as_summary(report)
    rules = [_rule(entry) for entry in summary["codes"]]
    position = {rule["id"]: index for index, rule in enumerate(rules)}
    results = [_result(finding, position, summary, base) for finding in summary["findings"]]
    notices = [
        {
            "level": "note",
            "message": {"text": f"Skipped: {visible(entry['reason'])}"},
            "descriptor": {"id": entry["code"]},
        }
        for entry in summary["skipped"]
    ]
    driver = {"name": "dataaudit", "semanticVersion": summary["version"], "rules": rules}
    run = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "invocations": [{"executionSuccessful": True, "toolExecutionNotifications": notices}],
        "properties": {"digest": summary["digest"], "images": summary["counts"]["images"]},
        "results": results,
    }
    log = {"$schema": SARIF_SCHEMA, "version": "2.1.0", "runs": [run]}
    return storable(json.dumps(log, ensure_ascii=False, indent=1, allow_nan=False))


def _rule(entry: Mapping[str, Any]) -> dict[str, Any]:
    short = entry["summary"] or entry["name"] or entry["code"]
    rule: dict[str, Any] = {
        "id": entry["code"],
        "shortDescription": {"text": short},
        "fullDescription": {"text": entry["explain"] or short},
        "defaultConfiguration": {"level": "error"},
    }
    if entry["name"]:
        rule["name"] = "".join(word.capitalize() for word in entry["name"].split("_"))
    return rule


def _result(
    finding: Mapping[str, Any],
    position: Mapping[str, int],
    summary: Mapping[str, Any],
    base: str | Path | None,
) -> dict[str, Any]:
    place, line, image = _places(finding, summary, base)
    figures = {
        key: finding[key]
        for key in ("score", "probability", "given", "suggested", "box", "suggested_box")
        if finding.get(key) is not None
    }
    result: dict[str, Any] = {
        "ruleId": finding["code"],
        "ruleIndex": position[finding["code"]],
        "level": _level(finding),
        "rank": round(100 * (1 - finding["score"]), 4),
        "message": {"text": visible(_sentence(finding))},
        "partialFingerprints": {"finding/v1": finding["key"]},
        "properties": figures,
    }
    if place is not None:
        result["locations"] = [_location(place, line)]
        if image is not None and image != place:
            result["relatedLocations"] = [_location(image, None)]
    if is_about_object(finding):
        if image is not None:
            result["attachments"] = [_attachment(finding, image)]
        label = _label_place(finding)
        if label and "locations" in result:
            result["locations"][0]["logicalLocations"] = [{"fullyQualifiedName": label, "kind": "object"}]
    if finding["decision"] == "keep":
        result["suppressions"] = [
            {"kind": "external", "justification": "A person decided to keep the label."}
        ]
    return result


def _attachment(finding: Mapping[str, Any], image: str) -> dict[str, Any]:
    """The image with the boxes in it, which viewers draw."""
    rectangles = []
    for what, box in (("in the dataset", finding["box"]), ("proposed", finding["suggested_box"])):
        if box is not None:
            left, top, right, bottom = box
            corners = {"left": left, "top": top, "right": right, "bottom": bottom}
            rectangles.append({**corners, "message": {"text": what}})
    return {
        "description": {"text": "The image and its boxes, in pixels."},
        "artifactLocation": _location(image, None)["physicalLocation"]["artifactLocation"],
        "rectangles": rectangles,
    }


def _label_place(finding: Mapping[str, Any]) -> str:
    """Where the label of an object stands, or a new one would: file, and item in it."""
    locator = finding["locator"]
    return "" if locator is None else ":".join(str(locator[key]) for key in ("file", "item") if locator[key])


def _object_place(finding: Mapping[str, Any]) -> str:
    """The box of a finding about an object and where its label stands, in brackets."""
    if not is_about_object(finding):
        return ""
    known = (("box", finding["box"]), ("proposed box", finding["suggested_box"]))
    parts = [f"{what} {', '.join(f'{one:.0f}' for one in box)}" for what, box in known if box is not None]
    return f" [{'; '.join([*parts, _label_place(finding)]).rstrip('; ')}]"


def _location(place: str, line: int | None) -> dict[str, Any]:
    physical: dict[str, Any] = {"artifactLocation": {"uri": quote(place.encode("utf-8", "surrogateescape"))}}
    if line is not None:
        physical["region"] = {"startLine": line}
    return {"physicalLocation": physical}


def _level(finding: Mapping[str, Any]) -> str:
    """``error``, or ``warning`` for what is more likely right than wrong."""
    return "warning" if finding["probability"] is not None and finding["probability"] < 0.5 else "error"


def _sentence(finding: Mapping[str, Any]) -> str:
    chance = finding["probability"]
    message = finding["message"] or finding["item_id"]
    return message if chance is None else f"{message.rstrip('.')} ({chance:.0%} likely an error)"


def _places(
    finding: Mapping[str, Any], summary: Mapping[str, Any], base: str | Path | None
) -> tuple[str | None, int | None, str | None]:
    """Where a finding stands: file, line and image, relative to `base` or else to the dataset's root."""
    root, locator = summary["dataset"]["root"], finding["locator"]
    base = root if base is None else base
    image = None if finding["image"] is None else _relative(finding["filepath"], finding["image"], base)
    if locator is not None and isinstance(locator["item"], int) and locator["file"].lower().endswith(_LINED):
        manifest = None if root is None else str(Path(root, locator["file"]))
        return _relative(manifest, locator["file"], base), locator["item"], image
    return image, None, image


def _relative(path: str | None, otherwise: str, base: str | Path | None) -> str:
    if path is None or base is None:
        return otherwise
    relative = os.path.relpath(path, base)
    return otherwise if relative.startswith("..") else relative.replace(os.sep, "/")


def _by_code(summary: Mapping[str, Any]) -> dict[str, list[Mapping[str, Any]]]:
    """The findings that count, by code."""
    by_code: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for finding in summary["findings"]:
        if finding["decision"] != "keep":
            by_code[finding["code"]].append(finding)
    return by_code


def to_junit(report: Report | Mapping[str, Any]) -> str:
    """JUnit XML: one test case for each check, failed where it has findings and skipped where it didn't run.

    Args:
        report: a report or its summary.
    """
    summary = as_summary(report)
    by_code = _by_code(summary)
    suite = ElementTree.Element("testsuite", name="dataaudit")
    for entry in summary["codes"]:
        case = _case(suite, entry, summary)
        if entry["open"]:
            listed = [_line(finding) for finding in by_code[entry["code"]][:MAX_LISTED]]
            if entry["open"] > len(listed):
                listed.append(f"and {entry['open'] - len(listed):,} more")
            message = f"{plural(entry['open'], 'finding')} in {plural(entry['images'], 'image')}"
            failure = ElementTree.SubElement(case, "failure", message=message, type=entry["code"])
            failure.text = _xml("\n".join(listed))
    for entry in summary["skipped"]:
        ElementTree.SubElement(
            _case(suite, entry, summary), "skipped", message=_xml(visible(entry["reason"]))
        )
    failed = sum(entry["open"] > 0 for entry in summary["codes"])
    figures = {"tests": len(suite), "failures": failed, "errors": 0, "skipped": len(summary["skipped"])}
    root = ElementTree.Element("testsuites", name="dataaudit")
    for element in (root, suite):
        for name, value in figures.items():
            element.set(name, str(value))
    root.append(suite)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _case(
    suite: ElementTree.Element, entry: Mapping[str, Any], summary: Mapping[str, Any]
) -> ElementTree.Element:
    return ElementTree.SubElement(
        suite, "testcase", name=f"{entry['code']} {entry['name']}".rstrip(),
        classname=_xml(f"dataaudit.{visible(summary['dataset']['name'])}"),
        time=f"{summary['timings'].get(entry['code'], 0.0):.3f}",
    )  # fmt: skip


def _line(finding: Mapping[str, Any]) -> str:
    said = _sentence(finding) + _object_place(finding)
    return f"{visible(finding['image'] or finding['item_id'])}: {visible(said)}"


def _xml(text: str) -> str:
    return _NOT_XML.sub("?", text)


def to_github(report: Report | Mapping[str, Any], *, base: str | Path | None = None) -> str:
    """The findings as workflow commands of GitHub Actions, at most 50, then a line that counts them all.

    Args:
        report: a report or its summary.
        base: folder that the files are named relative to, such as the root of the repository; the dataset's
            root when left out, or where a file isn't inside it.

    Reference: Workflow commands for GitHub Actions, docs.github.com.
    """
    summary = as_summary(report)
    names = {entry["code"]: entry["name"] for entry in summary["codes"]}
    considered = [finding for finding in summary["findings"] if finding["decision"] != "keep"]
    lines = []
    for finding in considered[:MAX_ANNOTATIONS]:
        place, line, _ = _places(finding, summary, base)
        properties = {} if place is None else {"file": visible(place)}
        if line is not None:
            properties["line"] = str(line)
        properties["title"] = f"{finding['code']} {names[finding['code']]}".rstrip()
        written = ",".join(f"{name}={_property(value)}" for name, value in properties.items())
        lines.append(
            f"::{_level(finding)} {written}::{_data(visible(_sentence(finding) + _object_place(finding)))}"
        )
    hidden = summary["counts"]["open"] - len(considered[:MAX_ANNOTATIONS])
    more = f" Not shown here: {plural(hidden, 'finding')}." if hidden else ""
    lines.append(f"::notice title=dataaudit::{_data(visible(summary['estimate']) + more)}")
    return "\n".join(lines) + "\n"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def to_markdown(report: Report | Mapping[str, Any], *, max_listed: int = 20) -> str:
    """A page in Markdown, as for the step summary of GitHub Actions: the counts and the worst findings.

    Args:
        report: a report or its summary.
        max_listed: how many findings are listed at most.
    """
    summary = as_summary(report)
    dataset, counts = summary["dataset"], summary["counts"]
    considered = [finding for finding in summary["findings"] if finding["decision"] != "keep"]
    lines = [
        f"## dataaudit: {_cell(dataset['name'])}", "",
        f"{counts['images']:,} images, {counts['classes']:,} classes. **{_cell(summary['estimate'])}**", "",
        "| check | what it finds | findings | images | expected real |", "|---|---|---:|---:|---:|",
    ]  # fmt: skip
    for entry in summary["codes"]:
        expected = "" if entry["expected"] is None else f"{entry['expected']:.0f}"
        what = _cell(entry["summary"] or entry["name"])
        lines.append(
            f"| {entry['code']} | {what} | {entry['open']:,} | {percent(entry['share'])} | {expected} |"
        )
    lines += _kinds(summary)
    listed = considered[:max_listed]
    if listed:
        lines += ["", "| check | image | finding | chance |", "|---|---|---|---:|"]
    for finding in listed:
        chance = "" if finding["probability"] is None else f"{finding['probability']:.0%}"
        place = _cell(finding["image"] or finding["item_id"])
        lines.append(f"| {finding['code']} | {place} | {_cell(finding['message'])} | {chance} |")
    if counts["open"] > len(listed):
        lines += ["", f"{counts['open'] - len(listed):,} more findings are not listed."]
    if summary["skipped"]:
        reasons = ((entry["code"], _cell(entry["reason"].rstrip("."))) for entry in summary["skipped"])
        skipped = "; ".join(f"{code} {reason}" for code, reason in reasons)
        lines += ["", f"Skipped: {skipped}"]
    return storable("\n".join(lines) + "\n")


def _kinds(summary: Mapping[str, Any]) -> list[str]:
    """The findings of objects by class and kind, those of the classes that have most."""
    codes, rows = by_class_and_kind(summary)
    if not rows:
        return []
    lines = [
        "",
        f"| class | objects | {' | '.join(codes)} | expected real |",
        f"|---|---:|{'---:|' * len(codes)}---:|",
    ]
    for entry in rows[:MAX_CLASSES]:
        counts = " | ".join(f"{entry['counts'].get(code, 0):,}" for code in codes)
        expected = "" if entry["expected"] is None else f"{entry['expected']:.0f}"
        lines.append(f"| {_cell(entry['name'])} | {entry['n']:,} | {counts} | {expected} |")
    if len(rows) > MAX_CLASSES:
        lines += ["", f"{plural(len(rows) - MAX_CLASSES, 'more class')} with findings."]
    return lines


def _cell(text: str) -> str:
    """User text that stays text in a Markdown table."""
    return re.sub(r"([\\`*_{}\[\]<>()#+!|~&@])", r"\\\1", visible(text))
