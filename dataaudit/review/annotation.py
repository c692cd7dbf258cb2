"""Findings to a label tool through FiftyOne's annotation API, for those who have it connected to a server.

`annotate` sends the flagged samples with their label field by ``dataset.annotate``; `answers` downloads what
came of them and compares. The labels are downloaded beside the dataset, never into it: no field of it
changes, but that FiftyOne notes the run and may fill in ``metadata`` where it needs the size. FiftyOne sends
neither what a finding says nor the boxes that it proposes, nor does it tell who annotated which image; the
files of `dataaudit.review.label_tools` do.

Reference: https://docs.voxel51.com/user_guide/annotation.html, FiftyOne's annotation API.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dataaudit import tables
from dataaudit.errors import InputError
from dataaudit.formats._fiftyone import connect
from dataaudit.review import objects_in_fiftyone as objects
from dataaudit.review._answers import Answer, Answers, Drawn, decide
from dataaudit.review._tasks import shown_of, sizes_of, tasks_of
from dataaudit.types import Report

if TYPE_CHECKING:
    import fiftyone as fo

__all__ = ["annotate", "answers"]


def annotate(
    report: Report,
    *,
    backend: str,
    anno_key: str = "dataaudit",
    codes: Sequence[str] = (),
    n: int | None = None,
    dataset: fo.Dataset | None = None,
    decided: bool = False,
    settings: Mapping[str, Any] | None = None,
) -> str:
    """Send the samples with findings to a server of a label tool, with their labels to be corrected.

    Args:
        report: an audit's result.
        backend: ``labelstudio``, ``cvat`` or another backend of FiftyOne's annotation API.
        anno_key: name of the annotation run, by which `answers` finds it again.
        codes: codes or prefixes of checks; empty takes every check.
        n: at most so many images, those with the most probable errors.
        dataset: the FiftyOne dataset; by default that which was audited, or which the files are loaded into.
        decided: send findings that have a decision too.
        settings: further arguments of ``dataset.annotate``, such as ``url`` or ``project_name``.

    Returns:
        `anno_key`.

    Raises:
        InputError: no finding to send, a dataset without the samples of the report, or a run of that name.
    """
    connect()
    dataset = _dataset(report, dataset)
    tasks, _ = tasks_of(report, codes=codes, n=n, decided=decided)
    if not tasks:
        raise InputError("There is no undecided finding that a label tool could answer.")
    if anno_key in dataset.list_annotation_runs():
        raise InputError(
            f"The dataset has an annotation run {anno_key!r} already.",
            fix="Give another anno_key, or take the run away: dataset.delete_annotation_run(...)",
        )
    ids = _ids(dataset, report)
    lost = [task.sample_id for task in tasks if task.sample_id not in ids]
    if lost:
        raise InputError(f"The FiftyOne dataset {dataset.name!r} has no sample {lost[0]!r}.")
    field = _field(dataset, report)
    view = dataset.select([ids[task.sample_id] for task in tasks], ordered=True)
    try:
        view.annotate(
            anno_key, backend=backend, label_field=field, classes=list(report.tables.classes),
            attributes=False, **(settings or {}),
        )  # fmt: skip
    except BaseException:
        # FiftyOne notes the run before the server has it
        dataset.reload()
        if anno_key in dataset.list_annotation_runs():
            dataset.delete_annotation_run(anno_key)
        raise
    asked = {ids[task.sample_id]: [finding.key for finding in task.findings] for task in tasks}
    noted = {**_noted(dataset), anno_key: {"field": field, "asked": asked}}
    dataset.info[tables.INFO] = {**dataset.info.get(tables.INFO, {}), "annotations": noted}
    dataset.save()
    return anno_key


def answers(
    report: Report,
    anno_key: str = "dataaudit",
    *,
    dataset: fo.Dataset | None = None,
    reviewer: str | None = None,
    new_classes: bool = False,
    finished: bool = False,
    settings: Mapping[str, Any] | None = None,
) -> Answers:
    """Download what came of `annotate`; `dataaudit.review.label_tools.take` records it.

    Args:
        report: the report whose findings were sent.
        anno_key: name of the annotation run.
        dataset: as for `annotate`.
        reviewer: who annotated, which FiftyOne doesn't tell.
        new_classes: take a class that no sample has yet; otherwise it is an error.
        finished: every image was looked at, so that what wasn't changed is to be kept. FiftyOne doesn't tell
            which images were annotated, so otherwise what wasn't changed stays undecided.
        settings: credentials, such as ``url`` and ``api_key``, where FiftyOne's config has none.

    Raises:
        InputError: no such run of ours, or a class that isn't known.
    """
    connect()
    dataset = _dataset(report, dataset)
    noted = _noted(dataset)
    if anno_key not in noted:
        raise InputError(
            f"The dataset {dataset.name!r} has no annotation run {anno_key!r} of dataaudit; "
            f"there are {', '.join(map(repr, noted)) or 'none'}."
        )
    run = noted[anno_key]
    results = dataset.load_annotation_results(anno_key, **(settings or {}))
    downloaded = results.backend.download_annotations(results).get(run["field"], {})
    samples = {key: sample_id for sample_id, key in _ids(dataset, report).items()}
    where, said = f"annotation run {anno_key}", _Said(report, dataset, run["field"])
    found: list[Answer] = []
    labeled = set(report.tables.labels.dropna(subset="name")["sample_id"])
    for key, asked in run["asked"].items():
        labels = [label for of in downloaded.values() for label in _labels(of.get(key))]
        sample_id = samples.get(key, key)
        if not labels and sample_id in labeled:
            said.left.append(f"{where}: {sample_id}: It came back without labels; was it annotated at all?")
            continue
        boxes = report.tables.task == "detection"
        found.append(
            Answer(
                sample_id=sample_id,
                findings=tuple(asked),
                where=where,
                names=None if boxes else said.names(labels),
                drawn=tuple(said.drawn(sample_id, labels, where)) if boxes else (),
                finished=finished,
                reviewer=reviewer,
            )
        )
    return decide(report, found, where=where, new_classes=new_classes, left=said.left)


def _dataset(report: Report, dataset: fo.Dataset | None) -> fo.Dataset:
    if dataset is not None:
        return dataset
    if report.tables.source is None:
        raise InputError("These tables were made by hand.", fix="Give the FiftyOne dataset.")
    return tables.write(report.tables)


def _ids(dataset: fo.Dataset, report: Report) -> dict[str, str]:
    """FiftyOne's ids by sample id."""
    ids = dataset.values("id")
    if tables.ID in dataset.get_field_schema():
        own = dict(zip(dataset.values(tables.ID), ids, strict=True))
        if own.keys() & set(report.tables.images.index):
            return own
    return dict(zip(ids, ids, strict=True))


def _field(dataset: fo.Dataset, report: Report) -> str:
    """The label field of a report."""
    if report.tables.task == "detection":
        name = objects.field_of(dataset, report)
        if name is None:
            raise InputError(f"The FiftyOne dataset {dataset.name!r} has no field of the report's objects.")
        return name
    source = report.tables.source
    return source.options["label_field"] if source is not None and source.root is None else tables.LABELS


def _noted(dataset: fo.Dataset) -> dict[str, Any]:
    return dict(dataset.info.get(tables.INFO, {}).get("annotations", {}))


def _labels(value: Any) -> Iterator[Any]:
    """The single labels of what FiftyOne downloaded for a sample."""
    for label in (value.values() if isinstance(value, dict) else [value]) if value is not None else ():
        several = getattr(label, "classifications", None) or getattr(label, "detections", None)
        yield from several if several is not None else [label]


class _Said:
    """Labels of FiftyOne as classes or boxes."""

    def __init__(self, report: Report, dataset: fo.Dataset, field: str) -> None:
        self.report, self.left = report, list[str]()
        self.sizes = sizes_of(report)
        self.known: dict[str, str] = {}
        if report.tables.task == "detection":
            shown = {each.label_id: each.id for of in shown_of(report).values() for each in of}
            path = f"{field}.detections"
            has_own = f"{path}.{tables.ID}" in dataset.get_field_schema(flat=True)
            for sample, detections in zip(*dataset.values(["id", path]), strict=True):
                for each in detections or ():
                    own = each[tables.ID] if has_own else None
                    label_id = own or f"{sample}:{each.id}"
                    if label_id in shown:
                        self.known[str(each.id)] = shown[label_id]

    def names(self, labels: Sequence[Any]) -> tuple[str, ...]:
        """The classes that labels name."""
        return tuple(str(label.label) for label in labels)

    def drawn(self, sample_id: str, labels: Sequence[Any], where: str) -> Iterator[Drawn]:
        """The boxes of labels in pixels."""
        width, height = self.sizes.get(sample_id, (0, 0))
        for label in labels:
            box = getattr(label, "bounding_box", None)
            if box is None:
                self.left.append(f"{where}: {sample_id}: A {type(label).__name__} says nothing here.")
                continue
            x, y, w, h = (float(value) for value in box)
            turned = float(label.get_attribute_value("rotation", 0) or 0)
            yield Drawn(
                name=str(label.label),
                box=(x * width, y * height, (x + w) * width, (y + h) * height),
                id=self.known.get(str(label.id)),
                wrong=f"is turned by {turned:g} degrees; expected an upright box" if turned else None,
            )
