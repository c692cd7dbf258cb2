"""The central types. All frozen and keyword-only; they validate, and hold no logic."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from dataaudit.errors import InputError

__all__ = [
    "Check",
    "Decision",
    "Finding",
    "Fix",
    "Locator",
    "Neighbors",
    "Outcome",
    "Problem",
    "Report",
    "Source",
    "Tables",
    "Workplace",
]

Level = Literal["image", "object", "class", "dataset"]
Verdict = Literal["accept", "keep", "other", "skip"]
Op = Literal["relabel", "rename", "add", "remove", "move", "drop", "merge"]
Box = tuple[float, float, float, float]

VERDICTS: tuple[Verdict, ...] = ("accept", "keep", "other", "skip")
WITHDRAW: Literal["withdraw"] = "withdraw"
OPS: tuple[Op, ...] = ("relabel", "rename", "add", "remove", "move", "drop", "merge")
TASKS = ("classification", "multilabel", "detection")
UNITS = ("pixels", "relative")
CORNERS = ("x1", "y1", "x2", "y2")
FLAGS = ("crowd", "ignore", "difficult", "truncated", "occluded")
IMAGE_COLUMNS = ("filepath", "width", "height", "split", "digest")
LABEL_COLUMNS = ("sample_id", "name", "geometry", "locator")
OBJECT_COLUMNS = (*LABEL_COLUMNS, *CORNERS, *FLAGS)
OBJECT_IMAGE_COLUMNS = (*IMAGE_COLUMNS, "locator", "declared_width", "declared_height")


@dataclass(frozen=True, kw_only=True, slots=True)
class Locator:
    """Where a label stands in its source.

    Attributes:
        file: path relative to the dataset's root, with forward slashes.
        item: line number of the record (from 1), annotation id or object number; None where the file is the
            label.
        field: column or key.

    >>> str(Locator(file="labels.csv", item=17, field="label"))
    'labels.csv:17:label'
    """

    file: str
    item: int | str | None = None
    field: str | None = None

    def __str__(self) -> str:
        return ":".join(str(part) for part in (self.file, self.item, self.field) if part is not None)


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Something in the annotation files that can't be used as it is written, found while reading them.

    Attributes:
        kind: a few words that are the same for all problems of the kind, such as ``image without labels``.
        message: the sentence that a person reads.
        locator: where it stands.
        sample_id: the image that it is about, if it is one of the dataset's.
        label_id: the label that it is about, if it is one of the dataset's.
        severity: ``error`` where an annotation is lost or can't be trusted, ``note`` where it may be meant.
    """

    kind: str
    message: str
    locator: Locator
    sample_id: str | None = None
    label_id: str | None = None
    severity: Literal["error", "note"] = "error"


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a dataset was loaded from.

    Attributes:
        format: name of the format, a module of ``dataaudit.formats``.
        root: folder that sample ids are relative to; None for a dataset that lives in FiftyOne alone.
        path: what was loaded: the folder, the manifest file, or the name of the FiftyOne dataset.
        anchor: folder that holds ``.dataaudit``, and ``.git`` and ``.dvc`` when they are made.
        options: settings of the format, such as the name of the label column or field.
        dataset: name of the FiftyOne dataset that the tables were read from; None for those read from files.
    """

    format: str
    root: Path | None
    path: str
    anchor: Path
    options: Mapping[str, str] = field(default_factory=dict)
    dataset: str | None = None


@dataclass(frozen=True, kw_only=True)
class Tables:
    """A dataset as tables, the form in which everything is computed.

    Attributes:
        images: index ``sample_id``; columns ``filepath`` (absolute), ``width`` and ``height`` (pixels, as
            shown after EXIF rotation; <NA> before the sweep), ``split`` (None where there is none),
            ``digest`` (MD5 of the file's bytes, as DVC names content; None before the sweep).
        labels: index ``label_id``; columns ``sample_id``, ``name`` (class; None for an unlabeled image),
            ``geometry`` (None for a class label), ``locator``. In a multi-label dataset an image has a row
            for each of its classes.
        predictions: the user's predictions, columns ``sample_id``, ``name`` and ``confidence``, or None; of
            objects also the corners ``x1``, ``y1``, ``x2`` and ``y2`` in `units`.
        classes: names of the classes, sorted.
        task: ``"classification"``, ``"multilabel"`` where an image may have any number of classes, or
            ``"detection"`` where it has any number of objects, each with a class and a box.
        units: of the corners of boxes: ``"pixels"`` of the image as shown, or ``"relative"`` to its width and
            height; ``x`` runs to the right and ``y`` down from the upper left corner of the image, and a box
            is ``x2 - x1`` wide.
        problems: what was found while reading the files and can't be used as it is written.
        source: where the tables came from; None when they were made by hand.

    Objects: a row of `labels` is an object, and an image without objects has no row. `geometry` is ``box``,
    ``polygon``, ``mask`` or ``rotated``, the form that the source has, of which the corners are the bounding
    box. Further columns are ``x1``, ``y1``, ``x2``, ``y2`` (float64; as they are written, so NaN where they
    can't be read and `x2` below `x1` where a box is inverted) and the booleans ``crowd`` (one box for a group
    of objects), ``ignore`` (no object to be learnt; detections in it say nothing), ``difficult``,
    ``truncated`` (it reaches out of the image) and ``occluded``. `images` has further the columns ``locator``
    (where a new object of the image would stand), ``declared_width`` and ``declared_height`` (<NA> where the
    annotations don't say).
    """

    images: pd.DataFrame
    labels: pd.DataFrame
    classes: tuple[str, ...]
    predictions: pd.DataFrame | None = None
    task: str = "classification"
    units: str = "pixels"
    problems: tuple[Problem, ...] = ()
    source: Source | None = None

    def __post_init__(self) -> None:
        for name, value, known in (("task", self.task, TASKS), ("units", self.units, UNITS)):
            if value not in known:
                raise InputError(f"Tables.{name} is {value!r}; expected one of {', '.join(known)}.")
        objects = self.task == "detection"
        for name, table, columns in (
            ("images", self.images, OBJECT_IMAGE_COLUMNS if objects else IMAGE_COLUMNS),
            ("labels", self.labels, OBJECT_COLUMNS if objects else LABEL_COLUMNS),
        ):
            missing = [column for column in columns if column not in table.columns]
            if missing:
                raise InputError(
                    f"Tables.{name} has no column {', '.join(map(repr, missing))}; "
                    f"it has {list(table.columns)}.",
                    fix=f"Tables.{name} needs the columns {', '.join(columns)}.",
                )
            if not table.index.is_unique:
                twice = table.index[table.index.duplicated()][0]
                raise InputError(f"Tables.{name} has the id {twice!r} more than once; ids must be unique.")
        named = self.labels["sample_id"]
        # With one label an image the two are the same, and comparing is 10 times faster than looking up
        unknown = (
            named[:0] if self.images.index.equals(pd.Index(named)) else named[~named.isin(self.images.index)]
        )
        if len(unknown):
            raise InputError(
                f"Tables.labels names the sample {unknown.iloc[0]!r}, which Tables.images doesn't have."
            )
        strange = set(self.labels["name"].dropna()) - set(self.classes)
        if strange:
            raise InputError(
                f"Tables.labels has the class {sorted(strange)[0]!r}, which Tables.classes doesn't name."
            )


@dataclass(frozen=True, kw_only=True)
class Neighbors:
    """Nearest neighbours of each image, itself left out.

    Attributes:
        ids: (n,) sample ids.
        indices: (n, k) int64 positions in `ids`, nearest first.
        similarities: (n, k) float32 cosine similarities in [-1, 1], in the same order.
    """

    ids: pd.Index
    indices: np.ndarray[Any, np.dtype[np.int64]]
    similarities: np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True, kw_only=True)
class Workplace:
    """Where and how signals that take long are computed.

    Attributes:
        cache: folder of the cached signals; None keeps nothing.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        backbone: name of the audit's backbone; None for one of the user's own.
        progress: show progress bars.
    """

    cache: Path | None = None
    device: str = "auto"
    backbone: str | None = None
    progress: bool = False


@dataclass(frozen=True, kw_only=True)
class Fix:
    """One reversible edit.

    Attributes:
        op: ``relabel`` (the label becomes `new`), ``rename`` (every label of the class `old` becomes `new`; a
            plan makes a relabel of each), ``add`` (the image gets the class `new` besides those it has, or an
            object of it with the box `box`), ``remove`` (it loses the class `old`, or the object), ``move``
            (the object gets the box `box`; `old` and `new` are both its class), ``drop`` (the sample leaves
            the dataset) or ``merge`` (the sample leaves it in favour of the sample `new`, which shows the
            same image).
        sample_id: the sample that is edited; empty for a ``rename``.
        label_id: the label that is edited; empty for a ``rename``.
        locator: where the label stands in its source.
        old: the class that the source must still hold; None for an unlabeled sample and for an ``add``.
            A sample with several classes leaves the dataset with all of them, sorted and joined by ", ".
        new: the new class, the sample kept in a merge, or None for a drop and a ``remove``.
        old_box: of an object, the corners (x1, y1, x2, y2) that the source must still hold, in the units of
            the tables; None for class labels, for an ``add``, and for a box that can't be read.
        box: the new corners, for the ``move`` and the ``add`` of an object.
    """

    op: Op
    sample_id: str
    label_id: str
    locator: Locator
    old: str | None
    new: str | None
    old_box: Box | None = None
    box: Box | None = None

    def __post_init__(self) -> None:
        if self.op not in OPS:
            raise InputError(f"Fix.op is {self.op!r}; expected one of {', '.join(OPS)}.")
        if (self.new is None) != (self.op in ("drop", "remove")):
            raise InputError(f"A {self.op} fix of {self.sample_id} has new={self.new!r}.")
        if (self.op == "add" and self.old is not None) or (self.op == "remove" and self.old is None):
            raise InputError(f"A {self.op} fix of {self.sample_id} has old={self.old!r}.")
        for name, box in (("old_box", self.old_box), ("box", self.box)):
            if box is not None and (len(box) != 4 or not all(map(math.isfinite, box))):
                raise InputError(f"A {self.op} fix of {self.sample_id} has {name}={box!r}.")
        if (self.op == "move") > (self.box is not None) or (self.op in ("relabel", "remove") and self.box):
            raise InputError(f"A {self.op} fix of {self.sample_id} has box={self.box!r}.")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a check found.

    Attributes:
        score: one float in [0, 1] for each item it looked at, 0 surely wrong and 1 surely fine; the index
            holds the items' ids (sample ids, label ids or class names, by the check's level).
        flagged: one bool an item, same index.
        probability: calibrated chance that each item is a real error, same index, or None.
        evidence: a table whose index holds at least the flagged items; its column ``message`` is the sentence
            that a person reads, ``suggested`` the class or sample suggested, ``group`` joins items that
            belong together, ``sample_id`` is the image of an object that isn't there yet, and ``x1``, ``y1``,
            ``x2``, ``y2`` are the corners of a proposed box in pixels, NaN for none.
        fixes: proposed fix for each item that has one.
    """

    score: pd.Series[float]
    flagged: pd.Series[bool]
    probability: pd.Series[float] | None = None
    evidence: pd.DataFrame | None = None
    fixes: Mapping[str, Fix] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.score.index.equals(self.flagged.index):
            raise InputError(
                f"Outcome.score has {len(self.score)} items and Outcome.flagged {len(self.flagged)}; "
                "both need the same index."
            )
        values = self.score.to_numpy(dtype=float)
        if len(values) and not (
            np.nanmin(values) >= 0 and np.nanmax(values) <= 1 and not np.isnan(values).any()
        ):
            raise InputError(f"Outcome.score reaches from {values.min()} to {values.max()}; expected [0, 1].")
        if self.probability is not None:
            if not self.probability.index.equals(self.score.index):
                raise InputError("Outcome.probability needs the same index as Outcome.score.")
            lowest, highest = self.probability.min(), self.probability.max()
            if lowest < 0 or highest > 1:
                raise InputError(
                    f"Outcome.probability reaches from {lowest} to {highest}; expected [0, 1], or NaN."
                )
        if self.evidence is not None:
            missing = self.flagged.index[self.flagged.to_numpy(dtype=bool)].difference(self.evidence.index)
            if len(missing):
                raise InputError(f"Outcome.evidence lacks the flagged item {missing[0]!r}.")


@dataclass(frozen=True, kw_only=True)
class Check:
    """A check as the registry knows it.

    Attributes:
        code: three letters and three digits, such as ``LBL001``.
        name: name of the function, the defect it looks for.
        level: what its items are.
        needs: names of its positional parameters: fields of `Tables`, signals or inputs of the user.
        optional: those of its needs that have a default: the check runs without them.
        settings: its keyword-only parameters with their defaults.
        run: the function.
        summary: first line of its docstring.
        explain: the whole docstring.
    """

    code: str
    name: str
    level: Level
    needs: tuple[str, ...]
    settings: Mapping[str, Any]
    run: Callable[..., Outcome]
    summary: str
    explain: str
    optional: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One flagged item.

    Attributes:
        key: names the finding over audits; it changes with the image, the given label and the suggestion.
        code: code of the check.
        item_id: what is flagged: a sample, a label or a class.
        sample_id: the image to look at; None for a finding about a class or the dataset.
        score: in [0, 1], 0 surely wrong.
        probability: calibrated chance that it is a real error, or None.
        message: the sentence that a person reads.
        given: the class in the source, or None.
        suggested: the class or sample suggested, or None.
        evidence: further figures, ready for JSON.
        fix: the proposed fix, or None.
        decision: the latest verdict of a person, or None.
        box: corners (x1, y1, x2, y2) of the object in the source, in pixels of the image as shown, or None.
        suggested_box: corners of the proposed box in pixels, or None.
    """

    key: str
    code: str
    item_id: str
    sample_id: str | None
    score: float
    probability: float | None
    message: str
    given: str | None = None
    suggested: str | None = None
    evidence: Mapping[str, Any] = field(default_factory=dict)
    fix: Fix | None = None
    decision: Verdict | None = None
    box: Box | None = None
    suggested_box: Box | None = None


@dataclass(frozen=True, kw_only=True)
class Decision:
    """A person's verdict on a finding.

    Attributes:
        finding: key of the finding.
        verdict: ``accept`` the proposed fix, ``keep`` the label as it is, ``other`` (another class or box,
            in `fix`), or ``skip``; ``withdraw`` takes back what the reviewer said of the finding before.
        fix: what to do, for ``accept`` and ``other``.
        reviewer: who decided.
        at: when, ISO 8601 in UTC.
        note: free text.
        code: check that found it.
        item_id: what was flagged, such as the label.
        given: the class that was judged.
        digest: MD5 of the image's bytes, by which it is known again when it was moved.
        judged_box: corners in pixels of the object that was judged, or of the one that is proposed.
        rule: by which it settles a conflict, such as ``majority``; None for a person's own verdict.
    """

    finding: str
    verdict: Verdict | Literal["withdraw"]
    fix: Fix | None = None
    reviewer: str | None = None
    at: str | None = None
    note: str | None = None
    code: str | None = field(default=None, compare=False)
    item_id: str | None = field(default=None, compare=False)
    given: str | None = field(default=None, compare=False)
    digest: str | None = field(default=None, compare=False)
    judged_box: Box | None = field(default=None, compare=False)
    rule: str | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if self.verdict not in (*VERDICTS, WITHDRAW):
            raise InputError(f"The verdict is {self.verdict!r}; expected one of {', '.join(VERDICTS)}.")


@dataclass(frozen=True, kw_only=True)
class Report:
    """The result of an audit.

    Attributes:
        digest: digest of the data that was audited: contents, labels and splits.
        params: the settings of the audit, ready for JSON.
        outcomes: the dense result of each check by code.
        items: the findings, worst first.
        skipped: code to the reason why the check didn't run.
        timings: seconds by step.
        tables: the tables that were audited, with sizes and digests filled in.
        n_decoded: how many images were decoded; the others were known from an earlier audit.
        detections: what the predictions that judged the boxes say, columns ``sample_id``, ``name``,
            ``confidence`` and the corners ``x1``, ``y1``, ``x2``, ``y2`` in pixels; None without any.
        signals: what a reviewer is shown, by name: class probabilities, neighbours, near-duplicates.
    """

    digest: str
    params: Mapping[str, Any]
    outcomes: Mapping[str, Outcome]
    items: tuple[Finding, ...]
    skipped: Mapping[str, str]
    timings: Mapping[str, float]
    tables: Tables
    n_decoded: int = 0
    detections: pd.DataFrame | None = None
    signals: Mapping[str, Any] = field(default_factory=dict)

    @property
    def findings(self) -> pd.DataFrame:
        """The findings as a table, worst first.

        Returns:
            One row a finding, index ``key``; columns ``code``, ``item_id``, ``sample_id``, ``given``,
            ``suggested``, ``score``, ``probability`` (NaN where the check has none), ``message``,
            ``decision``; of a detection dataset also the corners of the object, ``x1``, ``y1``, ``x2`` and
            ``y2``, and of the proposed box, ``new_x1`` to ``new_y2``, in pixels, NaN for none.
        """
        columns = ["key", "code", "item_id", "sample_id", "given", "suggested", "score", "probability"]
        columns += ["message", "decision"]
        rows = [[getattr(finding, column) for column in columns] for finding in self.items]
        table = pd.DataFrame(rows, columns=columns).set_index("key")
        table = table.astype({"score": "float64", "probability": "float64"})
        if self.tables.task != "detection":
            return table
        none = (math.nan,) * 4
        corners = [(finding.box or none) + (finding.suggested_box or none) for finding in self.items]
        names = [*CORNERS, *(f"new_{name}" for name in CORNERS)]
        boxes = np.array(corners, dtype=np.float64).reshape(-1, len(names))
        return pd.concat([table, pd.DataFrame(boxes, index=table.index, columns=names)], axis=1)

    def expected(self, code: str = "LBL001") -> dict[str, Any]:
        """How many errors a check expects, in all and among the first to look at, and the review budget.

        Args:
            code: a check whose outcome has probabilities.

        Returns:
            See `dataaudit.report.expected.expected`.

        Raises:
            InputError: the check didn't run, or has no probabilities.
        """
        from dataaudit.report.expected import expected

        return expected(self, code)

    def __repr__(self) -> str:
        counts = pd.Series([finding.code for finding in self.items], dtype=str).value_counts().sort_index()
        found = ", ".join(f"{code} {n}" for code, n in counts.items()) or "none"
        return f"Report({len(self.tables.images)} images, findings: {found})"

    def _repr_html_(self) -> str:
        from dataaudit.report import to_html

        return to_html(self, embed=True)
