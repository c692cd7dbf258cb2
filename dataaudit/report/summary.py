"""From a report to a plain dict: everything that any output needs, ready for JSON."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dataaudit import registry
from dataaudit.errors import InputError
from dataaudit.report.expected import expected_by_check
from dataaudit.report.groups import duplicate_groups, folder_above, shown_path
from dataaudit.report.objects import about_objects, corners, is_about_object
from dataaudit.report.text import percent, plural
from dataaudit.types import Finding, Locator, Report, Tables

__all__ = ["Summary", "as_summary", "is_grouped", "summarize"]

Summary = dict[str, Any]

MATRIX_CLASSES = 40
ACROSS_IMAGES = "BOX013"
"""The check of objects whose groups are of several images."""
HISTOGRAM_CODES = ("LBL001", "BOX002")
"""Checks of which every label has a score for its class."""
HISTOGRAM_BINS = 20
NO_STEPS = ("total", "decoded")
"""Entries of the timings that are no step of their own: the sum, and a number of images."""


def summarize(report: Report, *, max_shown: int | None = None) -> Summary:
    """Everything that an output needs to know about a report, as plain dicts, lists, strings and numbers.

    Args:
        report: the result of an audit.
        max_shown: how many findings the list holds at most, worst first; the counts cover all of them.

    Returns:
        A dict that ``json.dumps`` takes as it is, with the keys ``schema``, ``version``, ``dataset``,
        ``digest``, ``params``, ``counts``, ``estimate``, ``expected``
        (`dataaudit.report.expected.expected` of each check with probabilities, by code), ``codes`` (one entry
        a check that ran), ``open`` (findings and images by code, family and ``any``, without those that a
        person decided to keep), ``classes``, ``matrix``, ``histogram``, ``findings``, ``left_out`` (how many
        findings `max_shown` cut), ``groups``, ``objects`` (`dataaudit.report.objects.about_objects`),
        ``skipped``, ``timings`` (seconds by step) and ``seconds``.

    Raises:
        InputError: `max_shown` is negative.
    """
    if max_shown is not None and max_shown < 0:
        raise InputError(f"max_shown is {max_shown}; expected 0 or more, or None for all findings.")
    findings = _findings(report)
    considered = [finding for finding in findings if finding["decision"] != "keep"]
    shown = findings if max_shown is None else findings[:max_shown]
    counts = _counts(report.tables, findings, considered)
    groups = duplicate_groups([finding for finding in shown if is_grouped(finding)], report)
    return {
        "schema": 1,
        "version": _version(),
        "dataset": _dataset(report.tables),
        "digest": report.digest,
        "params": _plain(report.params),
        "counts": counts,
        "estimate": _estimate(considered, counts),
        "expected": expected_by_check(report),
        "codes": _codes(report, findings, considered),
        "open": _open(considered),
        "classes": _classes(report.tables, considered),
        "matrix": _matrix(report.tables.classes, considered),
        "histogram": _histogram(report),
        "findings": shown,
        "left_out": len(findings) - len(shown),
        "groups": groups,
        "objects": about_objects(report, considered, shown, groups),
        "skipped": _skipped(report),
        "timings": {step: float(value) for step, value in report.timings.items() if step not in NO_STEPS},
        "seconds": float(report.timings.get("total", sum(report.timings.values()))),
    }


def as_summary(report: Report | Mapping[str, Any]) -> Summary:
    """The summary of a report; a summary is handed back as it is."""
    return summarize(report) if isinstance(report, Report) else dict(report)


def is_grouped(finding: Mapping[str, Any]) -> bool:
    """Whether a finding is about several images that belong together, and is looked at beside them."""
    if finding["sample_id"] is None:
        return False
    if finding["code"].startswith("BOX"):
        # The others group objects of one image
        return finding["code"] == ACROSS_IMAGES and finding["group"] is not None
    return (
        finding["group"] is not None or finding["code"] == "LBL002" or finding["code"][:3] in ("DUP", "SPL")
    )


def _version() -> str:
    from dataaudit import __version__

    return __version__


def _dataset(tables: Tables) -> dict[str, Any]:
    source = tables.source
    if source is None:
        return {"name": "tables", "format": "tables", "path": None, "root": None, "task": tables.task}
    path = Path(source.path)
    below = source.root is not None and path != source.root
    return {
        "name": source.path
        if source.root is None
        else f"{path.parent.name}/{path.name}"
        if below
        else path.name,
        "format": source.format,
        "path": source.path,
        "root": None if source.root is None else str(source.root),
        "task": tables.task,
    }


def _text(value: Any) -> str | None:
    return (
        None
        if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value))
        else str(value)
    )


def _number(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


def _plain(value: Any) -> Any:
    """`value` in the types of JSON: numpy scalars and arrays, paths, sets and NaN are turned into them."""
    if value is None or isinstance(value, (bool, str, int)):
        return value
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted((_plain(item) for item in value), key=str)
    if isinstance(value, (np.ndarray, np.generic, pd.Series, pd.Index)):
        return _plain(value.tolist())
    if isinstance(value, Sequence):
        return [_plain(item) for item in value]
    return None if value is pd.NA or value is pd.NaT else str(value)


def _findings(report: Report) -> list[dict[str, Any]]:
    """The findings as dicts, worst first, with what is known about their images."""
    images = report.tables.images
    ids = pd.Index([finding.sample_id for finding in report.items], dtype=object)
    where = images.index.get_indexer(ids)
    columns = {name: images[name].to_numpy(dtype=object) for name in ("filepath", "split", "digest")}
    abouts = _abouts(report.tables, where, [finding.item_id for finding in report.items], ids)
    above = folder_above(report.tables)
    rows = []
    for finding, at, (name, locator) in zip(report.items, where, abouts, strict=True):
        row = _finding(finding)
        row.update({column: _text(values[at]) if at >= 0 else None for column, values in columns.items()})
        if report.tables.task == "detection" and not is_about_object(row) and row["code"][:3] != "BOX":
            # An image with a hundred objects has no class of its own
            row["given"] = None
        row["image"] = shown_path(row["sample_id"], row["filepath"], above)
        row["suggests"] = _suggests(row, report.tables)
        row["change"] = _change(finding)
        row["label"] = None if row["change"] == "missing" else _text(name)
        if finding.fix is not None and finding.fix.op != "rename":
            locator = finding.fix.locator
        row["locator"] = dataclasses.asdict(locator) if isinstance(locator, Locator) else None
        rows.append(row)
    rows.sort(key=lambda row: (row["score"], -(row["probability"] or 0.0)))
    return rows


def _abouts(
    tables: Tables, where: Iterable[int], items: Sequence[str], samples: pd.Index[Any]
) -> list[tuple[Any, Any]]:
    """Class and place of what each finding is about: its label, or the first of its image.

    Of an image with objects none is the first: what counts is the place of a new one.
    """
    labels = tables.labels
    own = labels.index.get_indexer(pd.Index(items, dtype=object))
    names, places = (labels[column].to_numpy(dtype=object) for column in ("name", "locator"))
    if tables.task == "detection":
        of_image = tables.images["locator"].to_numpy(dtype=object)
        others = [(None, of_image[at]) if at >= 0 else (None, None) for at in where]
    else:
        by_sample = labels.drop_duplicates("sample_id")
        first = pd.Index(by_sample["sample_id"].astype(object)).get_indexer(samples)
        rows = labels.index.get_indexer(by_sample.index)
        others = [(names[rows[at]], places[rows[at]]) if at >= 0 else (None, None) for at in first]
    return [(names[at], places[at]) if at >= 0 else other for at, other in zip(own, others, strict=True)]


def _change(finding: Finding) -> str | None:
    """What is wrong besides the class: a label is ``missing`` or ``extra``, or a box is ``moved``."""
    if finding.fix is None:
        new = finding.box is None and finding.suggested_box is not None
        return "missing" if new else None
    return {"add": "missing", "remove": "extra", "move": "moved"}.get(finding.fix.op)


def _finding(finding: Finding) -> dict[str, Any]:
    evidence = _plain(finding.evidence)
    return {
        "key": finding.key,
        "code": finding.code,
        "item_id": str(finding.item_id),
        "sample_id": finding.sample_id,
        "given": _text(finding.given),
        "suggested": _text(finding.suggested),
        "score": float(finding.score),
        "probability": _number(finding.probability),
        "message": finding.message,
        "decision": finding.decision,
        "box": corners(finding.box),
        "suggested_box": corners(finding.suggested_box),
        "group": _text(evidence.get("group")),
        "evidence": evidence,
        "fix": None if finding.fix is None else _plain(dataclasses.asdict(finding.fix)),
    }


def _split_order(name: str) -> tuple[int, str]:
    usual = ("train", "val", "test")
    return next((at for at, prefix in enumerate(usual) if name.lower().startswith(prefix)), len(usual)), name


def _suggests(row: Mapping[str, Any], tables: Tables) -> str | None:
    """What a suggestion names: ``class``, ``sample`` or nothing."""
    if row["suggested"] is None:
        return None
    is_sample = row["code"][:3] not in ("LBL", "BOX") and row["suggested"] in tables.images.index
    return "sample" if is_sample else "class"


def _counts(
    tables: Tables, findings: list[dict[str, Any]], considered: list[dict[str, Any]]
) -> dict[str, Any]:
    named = tables.labels[tables.labels["name"].notna()]
    splits = tables.images["split"].dropna().astype(str).value_counts(sort=False)
    chances = _label_chances(considered)
    probable = [chance for chance in chances.values() if chance is not None]
    boxed = tables.task == "detection"
    return {
        "images": len(tables.images),
        "labels": len(named),
        "objects": len(tables.labels) if boxed else None,
        "classes": len(tables.classes),
        "splits": {name: int(splits[name]) for name in sorted(splits.index, key=_split_order)},
        "unlabeled": 0 if boxed else len(tables.images) - int(named["sample_id"].nunique()),
        "findings": len(findings),
        "open": len(considered),
        "kept": len(findings) - len(considered),
        "flagged_images": _n_images(considered),
        "doubtful_labels": len(chances),
        "expected_wrong": sum(probable) if probable else None,
    }


def _label_chances(considered: list[dict[str, Any]]) -> dict[str, float | None]:
    """The highest probability of each label that a check of labels flags, or None where there is none."""
    chances: dict[str, float | None] = {}
    for finding in considered:
        if _judges_label(finding):
            known = [p for p in (finding["probability"], chances.get(finding["item_id"])) if p is not None]
            chances[finding["item_id"]] = max(known, default=None)
    return chances


def _judges_label(finding: Mapping[str, Any]) -> bool:
    """Whether a finding says that a label is wrong, not that a class is odd or somebody should be asked."""
    check = registry.checks().get(finding["code"])
    if finding["code"].startswith("BOX") and check is None:
        return is_about_object(finding)
    return finding["code"][:3] in ("LBL", "BOX") and (check is None or check.level == "object")


def _n_images(findings: list[dict[str, Any]]) -> int:
    return len({finding["sample_id"] for finding in findings} - {None})


def _estimate(considered: list[dict[str, Any]], counts: Mapping[str, Any]) -> str:
    """The sentence that says how many of the findings are real."""
    n_kept = counts["kept"]
    kept = f" {n_kept:,} more {'was' if n_kept == 1 else 'were'} kept by a person." if n_kept else ""
    images, n = plural(counts["images"], "image"), counts["doubtful_labels"]
    if not considered:
        return f"Nothing to fix in {images}.{kept}"
    if counts["expected_wrong"] is None:
        return f"{plural(len(considered), 'finding')} in {images}.{kept}"
    others = sum(not _judges_label(finding) for finding in considered)
    wrong = round(counts["expected_wrong"])
    about = f"about {wrong:,} {'is' if wrong == 1 else 'are'}" if wrong else "less than one is"
    noun, wrong_how = ("box", "wrong or missing") if counts["objects"] is not None else ("label", "wrong")
    sentence = f"Of these {plural(n, f'doubtful {noun}')}, {about} {wrong_how}."
    if n == 1:
        chance = percent(counts["expected_wrong"])
        sentence = f"One {noun} is doubtful, with a chance of {chance} that it is {wrong_how}."
    return sentence + (f" {plural(others, 'other finding')}." if others else "") + kept


def _codes(
    report: Report, findings: list[dict[str, Any]], considered: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """One entry for each check that ran, and for each code that findings have."""
    known = registry.checks()
    images = len(report.tables.images)
    n_all = Counter(finding["code"] for finding in findings)
    by_code: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for finding in considered:
        by_code[finding["code"]].append(finding)
    rows = []
    for code in sorted({*report.outcomes, *n_all}):
        mine = by_code[code]
        probable = [finding["probability"] for finding in mine if finding["probability"] is not None]
        check = known.get(code)
        rows.append(
            {
                "code": code,
                "name": "" if check is None else check.name,
                "summary": "" if check is None else check.summary,
                "explain": "" if check is None else check.explain,
                "level": None if check is None else check.level,
                "items": len(report.outcomes[code].score) if code in report.outcomes else None,
                "findings": n_all[code],
                "open": len(mine),
                "images": _n_images(mine),
                "share": _n_images(mine) / images if images else 0.0,
                "expected": sum(probable) if probable else None,
            }
        )
    return rows


def _open(considered: list[dict[str, Any]]) -> dict[str, dict[str, int]]:
    """Findings and distinct images by code, by family and in all."""
    members: dict[str, list[dict[str, Any]]] = defaultdict(list, {"any": considered})
    for finding in considered:
        members[finding["code"]].append(finding)
        members[finding["code"][:3]].append(finding)
    return {
        name: {"findings": len(them), "images": _n_images(them)} for name, them in sorted(members.items())
    }


def _classes(tables: Tables, considered: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One entry a class: how many labels, how many of them doubtful, and what is suggested most often."""
    sizes = tables.labels["name"].value_counts()
    by_class: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for finding in considered:
        name = finding["suggested"] if finding["change"] == "missing" else finding["given"]
        if _judges_label(finding) and name is not None:
            by_class[name].append(finding)
    rows = []
    for name in tables.classes:
        n, mine = int(sizes.get(name, 0)), _label_chances(by_class[name])
        probable = [chance for chance in mine.values() if chance is not None]
        moves = {(finding["item_id"], finding["suggested"]) for finding in by_class[name]}
        suggestions = Counter(suggested for _, suggested in moves if suggested not in (None, name))
        common = sorted(suggestions.items(), key=lambda move: (-move[1], str(move[0])))[:1]
        rows.append(
            {
                "name": name,
                "n": n,
                "flagged": len(mine),
                "share": min(len(mine) / n, 1.0) if n else 0.0,
                "expected": sum(probable) if probable else None,
                "suggestion": common[0][0] if common else None,
                "suggestion_n": common[0][1] if common else 0,
            }
        )
    return rows


def _matrix(classes: Sequence[str], considered: list[dict[str, Any]]) -> dict[str, Any]:
    """How often each class is suggested in place of each given one; rows given, columns suggested."""
    known = set(classes)
    moves = {
        (finding["item_id"], finding["given"], finding["suggested"])
        for finding in considered
        if finding["code"][:3] in ("LBL", "BOX")
        and not (finding["code"].startswith("BOX") and finding["change"])
        and {finding["given"], finding["suggested"]} <= known
    }
    pairs = Counter((given, suggested) for _, given, suggested in moves if given != suggested)
    affected: Counter[str] = Counter()
    for (given, suggested), n in pairs.items():
        affected[given] += n
        affected[suggested] += n
    chosen = list(classes)
    if len(classes) > MATRIX_CLASSES:
        ranked = sorted(affected, key=lambda name: (-affected[name], name))
        chosen = sorted(ranked[:MATRIX_CLASSES])
    counts = [[pairs[given, suggested] for suggested in chosen] for given in chosen]
    shown = sum(map(sum, counts))
    return {
        "classes": chosen,
        "counts": counts,
        "classes_left_out": len(classes) - len(chosen),
        "findings_left_out": sum(pairs.values()) - shown,
    }


def _histogram(report: Report) -> dict[str, Any] | None:
    code = next((one for one in HISTOGRAM_CODES if one in report.outcomes), "")
    outcome = report.outcomes.get(code)
    if outcome is None or not len(outcome.score):
        return None
    scores, flagged = outcome.score.to_numpy(dtype=float), outcome.flagged.to_numpy(dtype=bool)
    yes, edges = np.histogram(scores[flagged], bins=HISTOGRAM_BINS, range=(0.0, 1.0))
    no, _ = np.histogram(scores[~flagged], bins=HISTOGRAM_BINS, range=(0.0, 1.0))
    return {
        "code": code,
        "edges": [round(float(edge), 6) for edge in edges],
        "flagged": [int(n) for n in yes],
        "not_flagged": [int(n) for n in no],
    }


def _skipped(report: Report) -> list[dict[str, str]]:
    known = registry.checks()
    return [
        {"code": code, "name": known[code].name if code in known else "", "reason": reason}
        for code, reason in sorted(report.skipped.items())
    ]
