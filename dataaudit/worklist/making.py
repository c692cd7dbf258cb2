"""From a report to a worklist: beside each finding what a reviewer wants to see of it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from dataaudit import state
from dataaudit.types import CORNERS, Finding, Fix, Neighbors, Report
from dataaudit.worklist.entries import Choice, Entry, Neighbor, Worklist
from dataaudit.worklist.order import ordered

__all__ = ["MOST_CHOICES", "MOST_NEIGHBORS", "worklist_of"]

MOST_CHOICES, MOST_NEIGHBORS = 5, 6
_BINS = 48
_LEAST = 1e-6


def worklist_of(report: Report) -> Worklist:
    """The findings of a report with all that a reviewer needs, in the order in which they are best looked at.

    Args:
        report: of an audit; its `signals` say which classes a label may be and which images are alike. One
            of tables made by hand, or whose checks needed no signals, has findings without these.

    Returns:
        The worklist: a finding for each of the report's, decided ones too.
    """
    tables, source = report.tables, report.tables.source
    images = _Images(report)
    choices = _choices(report)
    others = _Others(report)
    made = [_entry(finding, images, choices, others) for finding in report.items]
    return Worklist(
        name="" if source is None else state.name_of(source),
        path="" if source is None else source.path,
        task=tables.task,
        classes=tables.classes,
        digest=report.digest,
        entries=tuple(ordered(made)),
        background=background_of(report),
    )


def _entry(
    finding: Finding, images: _Images, choices: Mapping[str, tuple[Choice, ...]], others: _Others
) -> Entry:
    sample_id = finding.sample_id
    image = images.known.get(sample_id) if sample_id is not None else None
    filepath, size, split, digest = image or (None, None, None, None)
    # Of an object the whole image is no neighbour of
    shows_neighbors = sample_id is not None and finding.box is None and finding.suggested_box is None
    return Entry(
        key=finding.key,
        code=finding.code,
        item_id=finding.item_id,
        sample_id=sample_id,
        filepath=filepath,
        score=finding.score,
        probability=finding.probability,
        message=finding.message,
        size=size,
        split=split,
        digest=digest,
        given=finding.given,
        suggested=finding.suggested,
        box=finding.box,
        suggested_box=finding.suggested_box,
        group=images.group_of(finding),
        choices=choices.get(finding.key, ()),
        neighbors=images.neighbors_of(str(sample_id)) if shows_neighbors else (),
        fix=finding.fix,
        other=others.of(finding),
        taken=others.taken_by(finding),
    )


class _Images:
    """The images of a report: their files, what is alike, and which show the same picture."""

    def __init__(self, report: Report) -> None:
        tables, items = report.tables, report.items
        neighbors: Neighbors | None = report.signals.get("neighbors")
        wanted = {item.sample_id for item in items} - {None}
        self._rows: dict[str, tuple[Any, Any]] = {}
        near: set[str] = set()
        if neighbors is not None:
            asked = [sample_id for sample_id in wanted if sample_id in neighbors.ids]
            places = neighbors.ids.get_indexer(pd.Index(asked, dtype=object))
            ids = neighbors.ids.to_numpy(dtype=object)[neighbors.indices[places, :MOST_NEIGHBORS]]
            similar = neighbors.similarities[places, :MOST_NEIGHBORS].astype(np.float64).round(3)
            rows = zip(ids.tolist(), similar.tolist(), strict=True)
            self._rows = dict(zip(map(str, asked), rows, strict=True))
            near = set(ids.ravel().tolist())
        self.known = _files(tables.images, wanted | near)
        self._names = _names(tables.labels, near)
        self._groups = _groups(report.signals.get("near_duplicates"))

    def neighbors_of(self, sample_id: str) -> tuple[Neighbor, ...]:
        """The images most like one, nearest first."""
        ids, similarities = self._rows.get(sample_id, ((), ()))
        return tuple(
            Neighbor(
                sample_id=other,
                filepath=self.known[other][0],
                names=self._names.get(other, ()),
                similarity=similarity,
                digest=self.known[other][3],
            )
            for other, similarity in zip(ids, similarities, strict=True)
        )

    def group_of(self, finding: Finding) -> str | None:
        """The same text for findings on images that show the same picture."""
        group = self._groups.get(finding.sample_id)
        if group is not None:
            return f"near-duplicates {group}"
        said = finding.evidence.get("group")
        return None if said is None or said != said else str(said)


def _files(images: pd.DataFrame, wanted: Iterable[Any]) -> dict[Any, tuple[Any, ...]]:
    """File, size, split and digest of some images."""
    chosen = images.loc[images.index.isin(list(wanted))]
    # Of an image that can't be read nothing is known, or that it has no pixels
    sides = (
        pd.to_numeric(chosen[name], errors="coerce").fillna(0).astype(int) for name in ("width", "height")
    )
    width, height = (side.tolist() for side in sides)
    split, digest = (
        [
            None if missing else str(cell)
            for cell, missing in zip(chosen[name], chosen[name].isna(), strict=True)
        ]
        for name in ("split", "digest")
    )
    files = map(str, chosen["filepath"])
    return {
        sample_id: (filepath, (w, h) if w > 0 and h > 0 else None, part, content)
        for sample_id, filepath, w, h, part, content in zip(
            chosen.index, files, width, height, split, digest, strict=True
        )
    }


def _names(labels: pd.DataFrame, wanted: Iterable[Any]) -> dict[Any, tuple[str, ...]]:
    """The classes of some images, each once, sorted."""
    chosen = labels.loc[labels["sample_id"].isin(list(wanted)), ["sample_id", "name"]].dropna()
    found: dict[Any, set[str]] = {}
    for sample_id, name in zip(chosen["sample_id"], chosen["name"], strict=True):
        found.setdefault(sample_id, set()).add(str(name))
    return {sample_id: tuple(sorted(names)) for sample_id, names in found.items()}


def _groups(near_duplicates: pd.Series[int] | None) -> dict[Any, int]:
    """The group of each image that shows the same picture as another."""
    if near_duplicates is None:
        return {}
    several = near_duplicates[near_duplicates.duplicated(keep=False)]
    return dict(zip(several.index, several.tolist(), strict=True))


def _choices(report: Report) -> dict[str, tuple[Choice, ...]]:
    """The classes that the label of each finding may be, by the key of the finding."""
    detection = report.tables.task == "detection"
    names = ("object_probs",) if detection else ("pred_probs", "multilabel_probs")
    table = next((report.signals[name] for name in names if name in report.signals), None)
    if table is None or not len(table):
        return {}
    about = [(item.key, item.item_id if detection else item.sample_id) for item in report.items]
    places = table.index.get_indexer(pd.Index([each for _, each in about], dtype=object))
    rows = table.to_numpy()[np.maximum(places, 0)]
    judged = (places >= 0) & ~np.isnan(rows).any(1)
    k = min(MOST_CHOICES, rows.shape[1])
    best = np.argsort(-rows, axis=1, kind="stable")[:, :k]
    columns = np.array(list(map(str, table.columns)), dtype=object)
    shares = np.take_along_axis(rows, best, 1).astype(np.float64).round(4).tolist()
    return {
        key: tuple(Choice(name=name, probability=share) for name, share in zip(line, row, strict=True))
        for (key, _), line, row, known in zip(about, columns[best].tolist(), shares, judged, strict=True)
        if known
    }


class _Others:
    """What another class than the one proposed would be, for each finding; as `decisions.read` has it."""

    def __init__(self, report: Report) -> None:
        tables = report.tables
        asked = {item.sample_id for item in report.items} - {None}
        self._task, labels = tables.task, tables.labels[tables.labels["sample_id"].isin(asked)]
        columns = [labels[name] for name in ("sample_id", "name", "locator")]
        self._rows = dict(zip(labels.index, zip(*columns, strict=True), strict=True))
        self._corners: dict[Any, Sequence[float]] = {}
        if self._task == "detection":
            corners = labels[list(CORNERS)].to_numpy(dtype=np.float64).tolist()
            self._corners = dict(zip(labels.index, corners, strict=True))
        self._labels_of: dict[Any, list[Any]] = {}
        for label_id, sample_id in zip(labels.index, labels["sample_id"], strict=True):
            self._labels_of.setdefault(sample_id, []).append(label_id)

    def of(self, finding: Finding) -> Fix | None:
        """The fix with an empty class in place of another one; None where it is about no single label."""
        fix = finding.fix
        if fix is not None and fix.op == "rename":
            return replace(fix, new="")
        if finding.sample_id is None:
            return None
        if fix is not None and fix.op == "add":
            return replace(fix, new="")
        label_id = self._label_of(finding)
        if label_id is None:
            return None
        sample_id, name, locator = self._rows[label_id]
        corners = self._corners.get(label_id, [math.nan])
        return Fix(
            op="relabel",
            sample_id=sample_id,
            label_id=label_id,
            locator=locator,
            old=None if pd.isna(name) else str(name),
            new="",
            old_box=(corners[0], corners[1], corners[2], corners[3])
            if all(map(math.isfinite, corners))
            else None,
        )

    def taken_by(self, finding: Finding) -> tuple[str, ...]:
        """The classes that the image of a finding has already; of a multi-label dataset."""
        if self._task != "multilabel" or finding.sample_id is None:
            return ()
        names = (self._rows[label_id][1] for label_id in self._labels_of.get(finding.sample_id, ()))
        return tuple(sorted({str(name) for name in names if not pd.isna(name)}))

    def _label_of(self, finding: Finding) -> Any:
        if finding.item_id in self._rows:
            return finding.item_id
        own = self._labels_of.get(finding.sample_id, [])
        return own[0] if len(own) == 1 and self._task != "detection" else None


def background_of(report: Report) -> dict[str, tuple[tuple[float, int], ...]]:
    """The probabilities of what no finding is about, as pairs of a probability and how many items have it.

    Probabilities next to each other are put together, which changes neither their sum nor how many they are.
    """
    found = {}
    for code, outcome in report.outcomes.items():
        if outcome.probability is None:
            continue
        chance = outcome.probability.to_numpy(dtype=np.float64)
        chance = chance[~outcome.flagged.to_numpy(dtype=bool) & np.isfinite(chance)]
        pairs = _binned(chance[chance > 0])
        if pairs:
            found[code] = pairs
    return found


def _binned(chance: np.ndarray[Any, Any]) -> tuple[tuple[float, int], ...]:
    inside = np.clip(chance, _LEAST, 1 - _LEAST)
    odds = np.log(inside / (1 - inside))
    edge = math.log(_LEAST / (1 - _LEAST))
    place = np.minimum(((odds - edge) / (-2 * edge) * _BINS).astype(np.int64), _BINS - 1)
    counts, sums = np.bincount(place, minlength=_BINS), np.bincount(place, chance, minlength=_BINS)
    return tuple(
        (float(f"{total / n:.6g}"), int(n))
        for n, total in zip(counts.tolist(), sums.tolist(), strict=True)
        if n
    )
