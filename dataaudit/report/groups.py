"""Findings about images that belong together: which images, and which of them to keep."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from dataaudit.types import Report, Tables

__all__ = ["duplicate_groups", "folder_above", "shown_path"]


def duplicate_groups(findings: Sequence[dict[str, Any]], report: Report) -> list[dict[str, Any]]:
    """Join findings that are about the same images.

    Findings belong together when they share a group of their check or an image, be it flagged or only named
    as the one that it repeats; a pair that is both a duplicate and a leak between splits is one group.

    Args:
        findings: findings as in a summary, worst first, each with a ``sample_id``.
        report: the report that they are from; the evidence of its checks says who else is in a group.

    Returns:
        One dict a group, in the order of its worst finding: ``codes``, ``messages``, ``score``,
        ``probability`` (the highest, or None), ``open`` (whether any finding isn't decided as keep) and
        ``members``. A member has ``sample_id``, ``image`` (its name for people), ``filepath``, ``digest``,
        ``split``, ``label``, ``keep`` (stays when the others are merged) and ``codes``; the members to keep
        come first.
    """
    tables, others = report.tables, _members(report)
    related = {
        finding["key"]: [
            *_related(finding, tables.images.index),
            *others.get((finding["code"], finding["group"] or ""), ()),
        ]
        for finding in findings
    }
    parent: dict[object, object] = {}
    for finding in findings:
        nodes: list[object] = [*related[finding["key"]]]
        if finding["group"] is not None:
            nodes.append((finding["code"], finding["group"]))
        for node in nodes:
            _join(parent, nodes[0], node)
    joined: dict[object, list[dict[str, Any]]] = defaultdict(list)
    for finding in findings:
        joined[_root(parent, finding["sample_id"])].append(finding)
    samples = _samples({sample for them in related.values() for sample in them}, tables)
    return [_group(them, related, samples) for them in joined.values()]


def folder_above(tables: Tables) -> str | None:
    """The folder above all images of a dataset whose sample ids aren't paths, or None where they are."""
    if tables.source is None or tables.source.root is not None or not len(tables.images):
        return None
    try:
        return str(os.path.commonpath([Path(path).parent for path in tables.images["filepath"]]))
    except ValueError:  # on several drives, or some relative
        return None


def shown_path(sample_id: str | None, filepath: str | None, above: str | None) -> str | None:
    """What a person knows an image by: the sample id where it is a path, else the path below `above`."""
    if above is None or filepath is None:
        return sample_id
    return os.path.relpath(filepath, above).replace(os.sep, "/")


def _root(parent: dict[object, object], node: object) -> object:
    while parent.setdefault(node, node) != node:
        parent[node] = parent[parent[node]]
        node = parent[node]
    return node


def _join(parent: dict[object, object], one: object, other: object) -> None:
    parent[_root(parent, other)] = _root(parent, one)


def _related(finding: dict[str, Any], known: pd.Index[Any]) -> Iterator[str]:
    """The image of a finding, and those that its suggestion, fix and evidence name."""
    yield finding["sample_id"]
    fix = finding["fix"]
    named = [finding["suggested"], fix["new"] if fix is not None else None, *finding["evidence"].values()]
    for value in named:
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, str) and one != finding["sample_id"] and one in known:
                yield one


def _members(report: Report) -> dict[tuple[str, str], list[str]]:
    """The images of each group of each check, be they flagged or not."""
    known, sample_of = report.tables.images.index, report.tables.labels["sample_id"]
    members: dict[tuple[str, str], list[str]] = defaultdict(list)
    for code, outcome in report.outcomes.items():
        if outcome.evidence is None or "group" not in outcome.evidence.columns:
            continue
        for item, group in outcome.evidence["group"].dropna().items():
            sample = item if item in known else sample_of.get(item)
            if sample is None and "sample_id" in outcome.evidence:  # a label that isn't there yet
                sample = outcome.evidence.at[item, "sample_id"]
            if sample is not None:
                members[code, str(group)].append(str(sample))
    return members


def _samples(ids: set[str], tables: Tables) -> dict[str, dict[str, Any]]:
    index = sorted(ids)
    images = tables.images.reindex(index)
    labels = tables.labels[tables.labels["sample_id"].isin(index)].dropna(subset="name").sort_values("name")
    names: dict[Any, str] = labels.groupby("sample_id")["name"].agg(_together).to_dict()

    def text(value: Any) -> str | None:
        return None if pd.isna(value) else str(value)

    above = folder_above(tables)
    columns = zip(index, images["filepath"], images["digest"], images["split"], strict=True)
    return {
        sample: {
            "sample_id": sample,
            "image": shown_path(sample, text(path), above),
            "filepath": text(path),
            "digest": text(digest),
            "split": text(split),
            "label": text(names.get(sample)),
        }
        for sample, path, digest, split in columns
    }


def _together(names: pd.Series[str]) -> str:
    """The classes of an image, with how many objects it has of each where that is more than one."""
    return ", ".join(name if n == 1 else f"{n} {name}" for name, n in Counter(names).items())


def _group(
    findings: list[dict[str, Any]], related: dict[str, list[str]], samples: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    codes: dict[str, set[str]] = defaultdict(set)
    merged, targets = set(), set()
    for finding in findings:
        codes[finding["sample_id"]].add(finding["code"])
        fix = finding["fix"]
        if fix is not None and fix["op"] in ("merge", "drop"):
            merged.add(finding["sample_id"])
        if finding["suggests"] == "sample":
            targets.add(finding["suggested"])
        elif fix is not None and fix["op"] == "merge":
            targets.add(fix["new"])
    ids = {sample for finding in findings for sample in related[finding["key"]]}
    kept = targets - merged
    probable = [finding["probability"] for finding in findings if finding["probability"] is not None]
    return {
        "codes": sorted({finding["code"] for finding in findings}),
        "messages": list(dict.fromkeys(finding["message"] for finding in findings)),
        "score": findings[0]["score"],
        "probability": max(probable, default=None),
        "open": any(finding["decision"] != "keep" for finding in findings),
        "members": [
            {**samples[sample], "keep": sample in kept, "codes": sorted(codes[sample])}
            for sample in sorted(ids, key=lambda sample: (sample not in kept, sample))
        ],
    }
