"""What a change of the boxes did to a baseline detector, on images that it didn't see in training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from dataaudit.errors import InputError
from dataaudit.signals.objects import objects
from dataaudit.types import Report, Tables
from dataaudit.version.evaluation import N_DRAWS, Evaluation, draws, evaluate

if TYPE_CHECKING:
    from dataaudit.signals.backbones import Backbone

__all__ = ["Detect", "DetectionComparison", "compare_objects"]

Detect = Callable[[Tables], pd.DataFrame]
"""Detections on every image of a version by a model that didn't see it, trained on the version's labels."""
Doubles = npt.NDArray[np.float64]

_DETECTED = ("BOX003",)
_READ = ("IMG001",)


@dataclass(frozen=True, kw_only=True)
class DetectionComparison:
    """The baseline's average precision with each version's labels, on the same images.

    The baseline is trained in folds: each image is looked at by a model that was trained on the version's
    labels of other images. mAP is the mean over classes and IoU thresholds from 0.5 to 0.95.

    Attributes:
        table: index ``version``, in the order asked for; ``n_train`` (images), ``n_objects`` (labels),
            ``n_test`` (images); ``map`` with ``low`` and ``high`` and ``ap50`` (at IoU 0.5) with
            ``ap50_low`` and ``ap50_high``, against the labels of `newest`; ``difference`` in mAP to the first
            version with ``difference_low`` and ``difference_high``, and ``p_value`` (NaN for the first);
            ``own_map`` and ``own_ap50``, against the version's own labels of the same images. Intervals are
            of 95 %, by drawing the images again, the same ones for all versions.
        per_class: index ``class``; ``n`` (objects in the images) and the AP with each version.
        per_class_50: the same at IoU 0.5.
        newest: the version whose labels are the truth.
        held_out: which images are looked at, as a person reads it.
    """

    table: pd.DataFrame
    per_class: pd.DataFrame
    per_class_50: pd.DataFrame
    newest: str
    held_out: str

    measure = "map"
    """The column that is compared."""
    named = "mAP"

    def to_dict(self) -> dict[str, Any]:
        """The comparison ready for JSON; also what ``dvc metrics`` shows."""
        tables = {"versions": self.table, "per_class": self.per_class, "per_class_50": self.per_class_50}
        return {"newest": self.newest, "held_out": self.held_out} | {
            key: {
                str(name): row
                for name, row in table.astype(object)
                .where(table.notna(), None)
                .to_dict(orient="index")
                .items()
            }
            for key, table in tables.items()
        }

    def to_text(self, *, limit: int = 10) -> str:
        """The comparison as lines for a terminal.

        Args:
            limit: how many classes are listed, those that changed most.
        """
        lines = [
            f"Baseline trained on each version, out of sample on {self.held_out}",
            f"mAP (IoU 0.5 to 0.95) and AP50 against the labels of {self.newest}",
            "",
        ]
        width = max(len(str(name)) for name in self.table.index)
        for name, row in self.table.to_dict(orient="index").items():
            line = f"  {name!s:<{width}}  mAP {row['map']:.2%} [{row['low']:.2%}, {row['high']:.2%}]"
            line += f"  AP50 {row['ap50']:.2%} [{row['ap50_low']:.2%}, {row['ap50_high']:.2%}]"
            if not np.isnan(row["p_value"]):
                low, high = 100 * row["difference_low"], 100 * row["difference_high"]
                line += f"  {100 * row['difference']:+.2f} points [{low:+.2f}, {high:+.2f}]"
                line += f", p = {row['p_value']:.3g}"
            lines.append(line)
        lines.append("")
        for name, row in self.table.to_dict(orient="index").items():
            lines.append(
                f"  {name!s:<{width}}  {int(row['n_objects']):,} objects in {int(row['n_train']):,} images; "
                f"against its own labels mAP {row['own_map']:.2%}, AP50 {row['own_ap50']:.2%}"
            )
        changed = self.changes().head(limit)
        if len(changed):
            lines += [
                "",
                f"Classes whose AP changed most from {self.table.index[0]} to {self.table.index[-1]}",
            ]
            lines += [f"  {100 * change:+.1f} points  {name}" for name, change in changed.items()]
        return "\n".join(lines)

    def plot(self, path: str | Path) -> Path:
        """Draw the figures with their intervals and what changed class by class; returns `path`.

        Args:
            path: the picture to write; its ending says the format, such as ``.png`` or ``.svg``.
        """
        from dataaudit.version.comparison import draw

        return draw(self, Path(path))

    def changes(self) -> pd.Series[float]:
        """Change of each class's AP from the first version to the last, largest first, no zeros."""
        change = (self.per_class.iloc[:, -1] - self.per_class.iloc[:, 1]).astype(float).dropna()
        change = change[change != 0]
        return change.loc[change.abs().sort_values(ascending=False, kind="stable").index]

    def __repr__(self) -> str:
        parts = ", ".join(f"{name} mAP {share:.2%}" for name, share in self.table["map"].items())
        return f"DetectionComparison({parts}; {self.held_out})"


def compare_objects(
    tables: Mapping[str, Tables],
    *,
    newest: str,
    backbone: str | Backbone = "efficientnet_lite0",
    device: str = "auto",
    detect: Detect | None = None,
    progress: bool = True,
    n_draws: int = N_DRAWS,
) -> DetectionComparison:
    """Train the baseline on each version's labels and compare it on the images that all versions have.

    Args:
        tables: of each version, with digests; the first is what the others are compared to.
        newest: the version whose labels are the truth, and whose test split, else its validation split, is
            looked at; all images where it has neither.
        backbone: network whose feature maps the baseline is trained on.
        device: ``auto``, ``cpu``, ``cuda``, ``mps``.
        detect: a detector of your own instead; see `Detect`. It gives the columns ``sample_id``, ``name``,
            ``confidence`` and the corners ``x1``, ``y1``, ``x2``, ``y2`` in pixels.
        progress: show bars.
        n_draws: how often the images are drawn again for the intervals.

    Raises:
        InputError: no image in common, no object on them, or too little to train a detector on.
    """
    images, held_out = _images(tables, newest)
    found = {}
    for name, table in tables.items():
        report = _audited(name, table, _DETECTED if detect is None else _READ, backbone, device, progress)
        detections = _detections(name, report) if detect is None else detect(report.tables)
        found[name] = (
            _by_content(report.tables, _objects(report.tables)),
            _by_content(report.tables, detections),
        )
    truth = found[newest][0]
    if not truth["sample_id"].isin(images).any():
        raise InputError(
            f"The version {newest!r} has no object on the {held_out}.",
            fix="Compare versions with more labels, or with another test split.",
        )
    judged = {name: evaluate(truth, detections, images) for name, (_, detections) in found.items()}
    own = {name: evaluate(*both, images) for name, both in found.items()}
    summary = _table(judged, own, draws(len(images), n_draws))
    summary.insert(0, "n_objects", [len(tables[name].labels) for name in summary.index])
    summary.insert(0, "n_train", [len(tables[name].images) for name in summary.index])
    strict, loose = (_per_class(judged, thresholds) for thresholds in (slice(None), slice(0, 1)))
    return DetectionComparison(
        table=summary, per_class=strict, per_class_50=loose, newest=newest, held_out=held_out
    )


def _images(tables: Mapping[str, Tables], newest: str) -> tuple[list[str], str]:
    """The contents to look at, and where they come from."""
    from dataaudit.version.comparison import TEST, VALIDATION, folded

    common = set.intersection(*(set(table.images["digest"].dropna()) for table in tables.values()))
    images = tables[newest].images
    images = images[images["digest"].isin(common)].drop_duplicates("digest")
    for splits, source in (
        (TEST, "images of the test split"),
        (VALIDATION, "images of the validation split"),
    ):
        rows = images[folded(images["split"]).isin(splits)]
        if len(rows):
            return rows["digest"].tolist(), f"{len(rows):,} {source}"
    if not len(images):
        raise InputError("The versions have no image in common.", fix="Compare versions of the same images.")
    return images["digest"].tolist(), f"{len(images):,} images"


def _audited(
    name: str, tables: Tables, select: tuple[str, ...], backbone: str | Backbone, device: str, progress: bool
) -> Report:
    """The audit of a version that reads its images, which are what the version says they are."""
    from dataaudit import pipeline

    source = tables.source
    if source is not None:
        tables = replace(tables, source=replace(source, options={**source.options, "rev": name}))
    return pipeline.audit(tables, select=select, backbone=backbone, device=device, progress=progress)


def _detections(name: str, report: Report) -> pd.DataFrame:
    if report.detections is None:
        why = next(
            (report.skipped[code] for code in _DETECTED if code in report.skipped), "it has no detections"
        )
        raise InputError(f"No baseline can be trained on the version {name!r}: {why}.")
    return report.detections


def _objects(tables: Tables) -> pd.DataFrame:
    return objects(tables.images, tables.labels, tables.task, tables.units)


def _by_content(tables: Tables, boxes: pd.DataFrame) -> pd.DataFrame:
    """Boxes with the content of their image as its id; of copies of one content those of the first."""
    digests = tables.images["digest"].dropna().drop_duplicates()
    kept = boxes[boxes["sample_id"].isin(digests.index)]
    return kept.assign(sample_id=digests.reindex(kept["sample_id"]).to_numpy(dtype=object))


def _table(
    judged: Mapping[str, Evaluation], own: Mapping[str, Evaluation], weights: npt.NDArray[np.int64]
) -> pd.DataFrame:
    drawn = {name: each.drawn(weights) for name, each in judged.items()}
    first = next(iter(judged))
    rows = []
    for name, each in judged.items():
        (low, high), (low_50, high_50) = (_interval(values) for values in drawn[name])
        difference = drawn[name][0] - drawn[first][0]
        ends = _interval(difference)
        rows.append(
            {
                "version": name, "n_test": each.n_images,
                "map": each.map, "low": low, "high": high,
                "ap50": each.ap50, "ap50_low": low_50, "ap50_high": high_50,
                "difference": each.map - judged[first].map,
                "difference_low": ends[0], "difference_high": ends[1],
                "p_value": float("nan") if name == first else _p_value(difference),
                "own_map": own[name].map, "own_ap50": own[name].ap50,
            }
        )  # fmt: skip
    return pd.DataFrame(rows).set_index("version")


def _interval(values: Doubles) -> tuple[float, float]:
    known = values[~np.isnan(values)]
    if not len(known):
        return float("nan"), float("nan")
    low, high = np.quantile(known, [0.025, 0.975])
    return float(low), float(high)


def _p_value(difference: Doubles) -> float:
    """Two-sided: how often the draws of the images have the difference on its other side."""
    known = difference[~np.isnan(difference)]
    tail = min(int((known <= 0).sum()), int((known >= 0).sum()))
    return min(1.0, 2 * (tail + 1) / (len(known) + 1))


def _per_class(judged: Mapping[str, Evaluation], thresholds: slice) -> pd.DataFrame:
    first = next(iter(judged.values()))
    n = dict(zip(first.classes, first.n_objects, strict=True))
    columns = {
        name: pd.Series(dict(zip(each.classes, each.precision[:, thresholds].mean(axis=1), strict=True)))
        for name, each in judged.items()
    }
    table = pd.DataFrame(columns, index=pd.Index(list(n), name="class"))
    table.insert(0, "n", list(n.values()))
    return table
