"""Label Studio: findings as tasks with predictions, and the annotations back as decisions.

A task is an image. Its prediction ``given`` holds the labels as they are, boxes that findings propose beside
them as boxes of a class of their own; the prediction ``suggested`` holds the labels as they would be, with
the probability as its score. Label Studio starts an annotation from the prediction of the project's model
version, which its import sets to ``given``. So ``Submit`` says that the labels are right, and a task that
nobody submitted, or that was skipped, says nothing. (Given labels as annotations can't say that: Label Studio
doesn't let a person update an annotation in which nothing was changed, and counts the task as done.)

Reference: https://labelstud.io/guide/task_format (tasks), https://labelstud.io/guide/predictions
(predictions), https://labelstud.io/guide/export (JSON and JSON-MIN). Coordinates are percent of the image.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

from dataaudit import state
from dataaudit.errors import InputError
from dataaudit.review._answers import Answer, Answers, Drawn, decide
from dataaudit.review._tasks import (
    Sent,
    Shown,
    Task,
    check_folder,
    link_of,
    message_of,
    proposed_class,
    sizes_of,
    tasks_of,
)
from dataaudit.types import Box, Fix, Report

__all__ = ["config", "export", "is_answers", "read"]

TASKS, CONFIG = "tasks.json", "config.xml"
_CONTROL, _IMAGE = "label", "image"
_HOW = """\
1. Make a project in Label Studio; Settings, Labeling Interface, Code: paste {config}.
2. Import {tasks}. Its given labels are shown first; Submit says that they are right.
3. Export as JSON, and: dataaudit decisions import DATASET FILE"""
_HOW_LOCAL = """
Label Studio must be started with LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true and
LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT={above}; add to the project the source storage Local Files, path
{root}, without syncing it."""


def export(
    report: Report,
    folder: str | Path,
    *,
    codes: Sequence[str] = (),
    n: int | None = None,
    images: str = "embed",
    decided: bool = False,
) -> Sent:
    """Write the findings as tasks for Label Studio, and the labeling interface that they need.

    Args:
        report: an audit's result.
        folder: where ``tasks.json`` and ``config.xml`` go.
        codes: codes or prefixes of checks; empty takes every check.
        n: at most so many images, those with the most probable errors.
        images: ``embed`` puts the images into the file, ``local`` names them for Label Studio's local files,
            relative to the folder that the dataset is in; anything else is the URL of the dataset's folder.
        decided: send findings that have a decision too.

    Raises:
        InputError: a code that no check has, an image that can't be embedded, or a path that can't be used.
    """
    folder = Path(folder)
    tasks, left_out = tasks_of(report, codes=codes, n=n, decided=decided)
    source = report.tables.source
    root = None if source is None else source.root
    name = "" if source is None else state.name_of(source)
    written = [_task(report, task, link_of(task, images, root), name) for task in tasks]
    check_folder(folder)
    files = folder / TASKS, folder / CONFIG
    files[0].write_text(json.dumps(written, ensure_ascii=False, allow_nan=False, indent=1), encoding="utf-8")
    files[1].write_text(config(report), encoding="utf-8")
    how = _HOW.format(tasks=files[0], config=files[1])
    if images == "local":
        how += _HOW_LOCAL.format(above="/" if root is None else root.parent, root=root or "with the images")
    return Sent(
        files=files,
        n_tasks=len(tasks),
        n_findings=sum(len(task.findings) for task in tasks),
        left_out=left_out,
        how=how,
    )


def config(report: Report) -> str:
    """The labeling interface for the classes of a dataset, as XML."""
    tables = report.tables
    names = list(tables.classes)
    if tables.task == "detection":
        names.append(proposed_class(tables.classes))
        opened, label, closed = (
            f'<RectangleLabels name="{_CONTROL}" toName="{_IMAGE}">',
            "Label",
            "RectangleLabels",
        )
    else:
        kind = "multiple" if tables.task == "multilabel" else "single-radio"
        opened = f'<Choices name="{_CONTROL}" toName="{_IMAGE}" choice="{kind}" showInline="true">'
        label, closed = "Choice", "Choices"
    lines = [f"    <{label} {_named(name)}/>" for name in names]
    if tables.task == "detection":
        lines[-1] = lines[-1].replace("/>", ' background="#ff8c00"/>')
    return "\n".join(
        [
            "<View>",
            '  <Header value="$finding" size="5"/>',
            f'  <Image name="{_IMAGE}" value="$image" zoom="true" zoomControl="true"/>',
            f"  {opened}",
            *lines,
            f"  </{closed}>",
            "</View>",
            "",
        ]
    )


def is_answers(content: bytes) -> bool:
    """Whether a file is what Label Studio exports as JSON or JSON-MIN."""
    try:
        value = json.loads(content)
    except ValueError:
        return False
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        return False
    return all("annotations" in each or "annotation_id" in each for each in value)


def read(
    path: str | Path, report: Report, *, reviewer: str | None = None, new_classes: bool = False
) -> Answers:
    """Read what people said in Label Studio.

    The reviewer is the e-mail address of who annotated. Where the export has only a number, as JSON-MIN
    does, it is ``label-studio:1``, or `reviewer`. Of several annotations of a person on one image the latest
    counts.

    Args:
        path: a project's export, JSON or JSON-MIN.
        report: the report whose findings were sent.
        reviewer: who annotated, where the export has only a number.
        new_classes: take a class that no sample has yet; otherwise it is an error.

    Raises:
        InputError: not such a file, answers of another dataset, or a class that isn't known.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError("There is no such file of answers.", where=path)
    content = path.read_bytes()
    if not is_answers(content):
        raise InputError(
            "This is not an export of Label Studio: expected a JSON list of tasks with annotations.",
            where=path,
            fix="Export the project as JSON or JSON-MIN.",
        )
    reading = _Reading(path=path, report=report, reviewer=reviewer)
    answers = reading.all(json.loads(content))
    return decide(report, answers, where=str(path), new_classes=new_classes, left=reading.left_out)


# Tasks


def _task(report: Report, task: Task, link: str, dataset: str) -> dict[str, Any]:
    says = [
        {
            "key": finding.key,
            "code": finding.code,
            "message": finding.message,
            "given": finding.given,
            "suggested": finding.suggested,
            "probability": finding.probability,
        }
        for finding in task.findings
    ]
    data = {
        "image": link,
        "finding": " | ".join(map(message_of, task.findings)),
        "sample_id": task.sample_id,
        "dataaudit": {"dataset": dataset, "digest": report.digest, "findings": says},
    }
    objects = report.tables.task == "detection"
    given, suggested = (
        (_given_boxes(report, task), _suggested_boxes(task)) if objects else _classes(report, task)
    )
    score = max((finding.probability or 0.0 for finding in task.findings if finding.fix), default=0.0)
    predictions: list[dict[str, Any]] = []
    if suggested and suggested != given:
        predictions.append({"model_version": "suggested", "score": round(score, 4), "result": suggested})
    # The last one becomes the project's model version
    predictions.append({"model_version": "given", "result": given})
    return {"data": data, "predictions": [each for each in predictions if each["result"]]}


def _classes(report: Report, task: Task) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    names = list(task.names)
    fixes = [finding.fix for finding in task.findings if finding.fix is not None]
    if report.tables.task != "multilabel":
        fixes = fixes[:1]
    for fix in fixes:
        names = [name for name in names if name != fix.old]
        if fix.new is not None and fix.new not in names:
            names.append(fix.new)
    return _choices(task.names), _choices(sorted(names))


def _choices(names: Sequence[str]) -> list[dict[str, Any]]:
    if not names:
        return []
    return [
        {
            "id": "given",
            "from_name": _CONTROL,
            "to_name": _IMAGE,
            "type": "choices",
            "value": {"choices": [*names]},
        }
    ]


def _given_boxes(report: Report, task: Task) -> list[dict[str, Any]]:
    proposed = proposed_class(report.tables.classes)
    return [
        _region(task, shown, shown.name if shown.label_id is not None else proposed, shown.box)
        for shown in task.shown
    ]


def _suggested_boxes(task: Task) -> list[dict[str, Any]]:
    """The objects as they would be; of several proposals on one object the most probable of each kind."""
    fixes: dict[str, dict[str, Fix]] = {}
    boxes: dict[str, Box | None] = {}
    for finding in reversed(task.findings):
        if finding.fix is not None:
            fixes.setdefault(finding.item_id, {})[finding.fix.op] = finding.fix
            boxes[finding.item_id] = finding.suggested_box or boxes.get(finding.item_id)
    regions = []
    for shown in task.shown:
        if shown.label_id is None:
            if shown.findings[0].fix is not None and shown.findings[0].fix.op == "add":
                regions.append(_region(task, shown, shown.name, shown.box))
            continue
        of = fixes.get(shown.label_id, {})
        if "remove" not in of:
            box = boxes.get(shown.label_id) if "move" in of else None
            regions.append(
                _region(
                    task, shown, str(of["relabel"].new) if "relabel" in of else shown.name, box or shown.box
                )
            )
    return regions


def _region(task: Task, shown: Shown, name: str, box: Box) -> dict[str, Any]:
    assert task.size is not None
    width, height = task.size
    x1, y1, x2, y2 = box
    region: dict[str, Any] = {
        "id": shown.id,
        "from_name": _CONTROL,
        "to_name": _IMAGE,
        "type": "rectanglelabels",
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "value": {
            "x": x1 / width * 100,
            "y": y1 / height * 100,
            "width": (x2 - x1) / width * 100,
            "height": (y2 - y1) / height * 100,
            "rotation": 0,
            "rectanglelabels": [name],
        },
    }
    asked = {finding.key for finding in task.findings}
    said = [message_of(finding) for finding in shown.findings if finding.key in asked]
    return {**region, "meta": {"text": said}} if said else region


def _named(name: str) -> str:
    """The attributes of a class; in a value Label Studio takes what follows a dollar for a variable."""
    quoted = quoteattr(name, {"\n": "&#10;", "\t": "&#9;", "\r": "&#13;", '"': "&quot;"})
    if "$" not in name:
        return f"value={quoted}"
    return f"value={quoted.replace('$', chr(0xFF04))} alias={quoted}"


# Answers


@dataclass(kw_only=True)
class _Reading:
    """What was read so far."""

    path: Path
    report: Report
    reviewer: str | None
    left_out: list[str] = field(default_factory=list)
    numbers: set[str] = field(default_factory=set)

    def all(self, records: Sequence[Mapping[str, Any]]) -> list[Answer]:
        """The answers of an export, of each person the latest on each image."""
        self.sizes = sizes_of(self.report)
        sent = [record for record in records if self._keys(record) is not None]
        if records and not sent:
            raise InputError(
                "None of the tasks was made by dataaudit: their data has no 'dataaudit'.",
                where=self.path,
                fix="Give the export of a project into which its tasks.json was imported.",
            )
        latest: dict[tuple[str, str | None], Answer] = {}
        for record in records:
            for answer in self._of(record):
                known = latest.get((answer.sample_id, answer.reviewer))
                new = known is None or (answer.at or "") >= (known.at or "")
                if known is not None:
                    old = known if new else answer
                    self.left_out.append(
                        f"{old.where}: {old.sample_id}: {old.reviewer} has a later answer on this image."
                    )
                if new:
                    latest[answer.sample_id, answer.reviewer] = answer
        if self.reviewer is not None and len(self.numbers) > 1:
            raise InputError(
                f"These are answers of {len(self.numbers)} people: {', '.join(sorted(self.numbers))}.",
                where=self.path,
                fix="Leave the reviewer out, or export the answers of each by themselves.",
            )
        return list(latest.values())

    def _keys(self, record: Mapping[str, Any]) -> tuple[str, ...] | None:
        data = record.get("data", record)
        try:
            return tuple(str(each["key"]) for each in data["dataaudit"]["findings"])
        except (TypeError, KeyError):
            return None

    def _of(self, record: Mapping[str, Any]) -> Iterator[Answer]:
        where = f"{self.path}: task {record.get('id', '?')}"
        keys = self._keys(record)
        if keys is None:
            self.left_out.append(f"{where}: It was not made by dataaudit.")
            return
        data = record.get("data", record)
        sample_id = str(data.get("sample_id"))
        if "annotations" not in record:
            results = _of_min(record.get(_CONTROL))
            yield from self._answer(record, record.get("annotator"), results, sample_id, keys, where)
            return
        for annotation in record["annotations"]:
            if not annotation.get("was_cancelled"):
                results = annotation.get("result") or []
                yield from self._answer(
                    annotation, annotation.get("completed_by"), results, sample_id, keys, where
                )

    def _answer(
        self,
        annotation: Mapping[str, Any],
        by: Any,
        results: Sequence[Mapping[str, Any]],
        sample_id: str,
        keys: tuple[str, ...],
        where: str,
    ) -> Iterator[Answer]:
        objects = self.report.tables.task == "detection"
        names: list[str] = []
        drawn: list[Drawn] = []
        for result in results:
            kind, value = result.get("type"), result.get("value")
            if kind == "choices" and not objects and isinstance(value, dict):
                names += map(str, value.get("choices", ()))
            elif kind == "rectanglelabels" and objects and isinstance(value, dict):
                drawn.append(self._drawn(result.get("id"), value, sample_id))
            else:
                self.left_out.append(
                    f"{where}: {sample_id}: A result of the kind {kind!r} says nothing here."
                )
        yield Answer(
            sample_id=sample_id,
            findings=keys,
            where=where,
            names=None if objects else tuple(names),
            drawn=tuple(drawn),
            reviewer=self._person(by),
            at=annotation.get("updated_at") or annotation.get("created_at"),
        )

    def _drawn(self, region: Any, value: Mapping[str, Any], sample_id: str) -> Drawn:
        names = value.get("rectanglelabels") or value.get("labels") or ()
        width, height = self.sizes.get(sample_id, (math.nan, math.nan))
        try:
            x, y, w, h = (float(value[name]) / 100 for name in ("x", "y", "width", "height"))
        except (KeyError, TypeError, ValueError):
            x = y = w = h = math.nan
        box = (x * width, y * height, (x + w) * width, (y + h) * height)
        wrong = None
        if len(names) != 1:
            wrong = f"has {len(names)} classes; expected one"
        elif abs(float(value.get("rotation") or 0)) > 0.01:
            wrong = f"is turned by {float(value['rotation']):g} degrees; expected an upright box"
        return Drawn(
            name=str(names[0]) if names else "",
            box=box,
            id=None if region is None else str(region),
            wrong=wrong,
        )

    def _person(self, by: Any) -> str | None:
        if isinstance(by, dict):
            by = by.get("email") or by.get("username") or by.get("id")
        if by is None or not str(by).strip():
            return self.reviewer
        if str(by).isdecimal():
            self.numbers.add(str(by))
            return self.reviewer or f"label-studio:{by}"
        return str(by)


def _of_min(value: Any) -> list[dict[str, Any]]:
    """The results of a control in JSON-MIN, which leaves out what their kind says."""
    if value is None:
        return []
    if isinstance(value, str):
        return [{"type": "choices", "value": {"choices": [value]}}]
    if isinstance(value, dict):
        if "choices" in value:
            return [{"type": "choices", "value": value}]
        value = [value]
    boxes = [each for each in value if isinstance(each, dict)]
    names = [str(each) for each in value if not isinstance(each, dict)]
    found = [{"type": "rectanglelabels", "value": each} for each in boxes]
    return [*found, {"type": "choices", "value": {"choices": names}}] if names else found
