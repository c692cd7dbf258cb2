"""CVAT: findings as a "CVAT for images 1.1" dataset, and CVAT's export of it back as decisions.

An image has its given labels, as tags or boxes, and a tag ``dataaudit`` that says what the findings are, with
a box to tick when the image was looked at: CVAT doesn't know that by itself. Boxes that findings propose
are there as boxes of a class of their own; giving one a class takes it up. Only what was sent is judged.

Reference: https://docs.cvat.ai/docs/other/xml_format (the file),
https://docs.cvat.ai/docs/manual/advanced/formats/format-cvat (the archive). CVAT writes two decimals.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from dataaudit.decisions.times import is_time
from dataaudit.errors import FormatError, InputError
from dataaudit.formats._cvat_shapes import PASSED_OVER, SHAPES, SIDES, is_set
from dataaudit.formats._numbers import number
from dataaudit.formats._xml import Document, Element, parse
from dataaudit.review._answers import Answer, Answers, Drawn, decide
from dataaudit.review._tasks import (
    Sent,
    Shown,
    Task,
    check_folder,
    message_of,
    new_file_name,
    proposed_class,
    tasks_of,
)
from dataaudit.types import Report

__all__ = ["export", "is_answers", "read"]

ANNOTATIONS, LABELS, DATASET = "annotations.xml", "labels.json", "dataset.zip"
_TAG = "dataaudit"
_SAYS, _ID, _KEYS, _SAMPLE, _TICK = "says", "dataaudit_id", "findings", "sample", "reviewed"
_LONGEST_CLASS, _LONGEST_VALUE = 64, 4000
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
_HOW = """\
1. Make a task in CVAT: paste {labels} as its labels (Raw), and give it {images}.
2. Upload annotations to the task, format CVAT 1.1: {annotations}.
3. Correct labels, and tick 'reviewed' in the tag 'dataaudit' of each image that was looked at.
4. Export annotations as 'CVAT for images 1.1', and: dataaudit decisions import DATASET FILE"""


def export(
    report: Report,
    folder: str | Path,
    *,
    codes: Sequence[str] = (),
    n: int | None = None,
    images: bool = True,
    decided: bool = False,
) -> Sent:
    """Write the findings as annotations for CVAT, with the labels of a task and an archive of the images.

    Args:
        report: an audit's result.
        folder: where ``annotations.xml``, ``labels.json`` and ``dataset.zip`` go.
        codes: codes or prefixes of checks; empty takes every check.
        n: at most so many images, those with the most probable errors.
        images: make the archive; without, images are named by their sample ids, as on a share of CVAT.
        decided: send findings that have a decision too.

    Raises:
        InputError: a code that no check has, a class that CVAT can't hold, or a path that can't be used.
    """
    folder = Path(folder)
    tasks, left_out = tasks_of(report, codes=codes, n=n, decided=decided)
    names = _names(tasks, "images/" if images else "")
    # CVAT numbers the images of an archive by their names
    ordered = sorted(tasks, key=lambda task: names[task.sample_id])
    labels = _labels(report)
    text = _xml(report, ordered, names, labels)
    check_folder(folder)
    files = [folder / ANNOTATIONS, folder / LABELS]
    files[0].write_text(text, encoding="utf-8")
    files[1].write_text(json.dumps(labels, ensure_ascii=False, indent=1), encoding="utf-8")
    if images:
        files.append(folder / DATASET)
        _archive(files[2], text, ordered, names)
    where = files[2] if images else "the images of the dataset"
    return Sent(
        files=tuple(files),
        n_tasks=len(tasks),
        n_findings=sum(len(task.findings) for task in tasks),
        left_out=left_out,
        how=_HOW.format(labels=files[1], images=where, annotations=files[0]),
    )


def is_answers(content: bytes) -> bool:
    """Whether a file is what CVAT exports: an XML file with ``<annotations>``, or an archive with one."""
    try:
        return re.search(rb"<annotations[\s>]", _xml_of(content, "")[:65536].replace(b"\0", b"")) is not None
    except InputError:
        return False


def read(
    path: str | Path,
    report: Report,
    *,
    reviewer: str | None = None,
    new_classes: bool = False,
    finished: bool = False,
) -> Answers:
    """Read what people said in CVAT.

    The reviewer is whom the task or job is assigned to, else its owner; the time is that of its last change.

    Args:
        path: an export "CVAT for images 1.1" of a task, job or project, the XML file or the archive.
        report: the report whose findings were sent.
        reviewer: who annotated, in place of whom the file names.
        new_classes: take a class that no sample has yet; otherwise it is an error.
        finished: every image was looked at, ticked or not. Otherwise what wasn't changed in an image that
            isn't ticked stays undecided.

    Raises:
        InputError: not such a file, answers of another dataset, or a class that isn't known.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError("There is no such file of answers.", where=path)
    reading = _Reading(path=path, report=report, reviewer=reviewer, finished=finished)
    reading.parse(_xml_of(path.read_bytes(), str(path)))
    return decide(
        report, reading.answers, where=str(path), new_classes=new_classes, left=reading.all_left_out()
    )


# Sending


def _names(tasks: Sequence[Task], folder: str) -> dict[str, str]:
    """A name in the archive for each sample, no two alike."""
    found: dict[str, str] = {}
    taken: set[str] = set()
    for task in tasks:
        name = folder + new_file_name(task)
        for again in range(2, len(tasks) + 2):
            if name not in taken:
                break
            name = f"{folder}{again}/{new_file_name(task)}"
        taken.add(name)
        found[task.sample_id] = name
    return found


def _labels(report: Report) -> list[dict[str, Any]]:
    """The labels of a task, as CVAT's raw constructor takes them."""
    objects = report.tables.task == "detection"
    for name in report.tables.classes:
        if len(name) > _LONGEST_CLASS or _FORBIDDEN.search(name) or name != name.strip():
            raise InputError(
                f"CVAT can't hold the class {name!r}; expected at most {_LONGEST_CLASS} characters, none of "
                "them a control character, and no space around them.",
                fix="Rename the class, or send the findings to Label Studio.",
            )
    kind = "rectangle" if objects else "tag"
    own = [_text_attribute(_SAYS), _text_attribute(_ID)] if objects else []
    classes = [{"name": name, "type": kind, "attributes": own} for name in report.tables.classes]
    if objects:
        proposed = proposed_class(report.tables.classes)
        classes.append({"name": proposed, "color": "#ff8c00", "type": kind, "attributes": own})
    tick = {**_text_attribute(_TICK), "input_type": "checkbox", "default_value": "false", "values": ["false"]}
    asked = [tick, *map(_text_attribute, (_SAYS, _KEYS, _SAMPLE))]
    return [*classes, {"name": _tag(report.tables.classes), "type": "tag", "attributes": asked}]


def _text_attribute(name: str) -> dict[str, Any]:
    return {"name": name, "mutable": True, "input_type": "text", "default_value": "", "values": [""]}


def _tag(classes: Collection[str]) -> str:
    name = _TAG
    while name in classes:
        name += "!"
    return name


def _xml(
    report: Report, tasks: Sequence[Task], names: Mapping[str, str], labels: Sequence[Mapping[str, Any]]
) -> str:
    lines = [
        '<?xml version="1.0" encoding="utf-8"?>',
        "<annotations>",
        "  <version>1.1</version>",
        "  <meta>",
    ]
    lines += [
        "    <task>",
        f"      <size>{len(tasks)}</size>",
        "      <mode>annotation</mode>",
        "      <labels>",
    ]
    for label in labels:
        lines += ["        <label>", f"          <name>{escape(label['name'])}</name>"]
        lines += [f"          <type>{label['type']}</type>", "          <attributes>"]
        for each in label["attributes"]:
            lines += [
                "            <attribute>", f"              <name>{each['name']}</name>",
                f"              <mutable>{each['mutable']}</mutable>",
                f"              <input_type>{each['input_type']}</input_type>",
                f"              <default_value>{each['default_value']}</default_value>",
                f"              <values>{each['values'][0]}</values>", "            </attribute>",
            ]  # fmt: skip
        lines += ["          </attributes>", "        </label>"]
    lines += ["      </labels>", "    </task>", "  </meta>"]
    for place, task in enumerate(tasks):
        size = "" if task.size is None else f' width="{task.size[0]}" height="{task.size[1]}"'
        lines.append(f'  <image id="{place}" name={_quoted(names[task.sample_id])}{size}>')
        lines += _tags(report, task)
        for shown in task.shown:
            lines += _box(report, task, shown)
        lines.append("  </image>")
    return "\n".join([*lines, "</annotations>", ""])


def _tags(report: Report, task: Task) -> Iterator[str]:
    asked = {
        _TICK: "false",
        _SAYS: " | ".join(map(message_of, task.findings)),
        _KEYS: " ".join(finding.key for finding in task.findings),
        _SAMPLE: task.sample_id,
    }
    for name, attributes in [*((name, {}) for name in task.names), (_tag(report.tables.classes), asked)]:
        yield f'    <tag label={_quoted(name)} source="manual">'
        yield from _attributes(attributes)
        yield "    </tag>"


def _box(report: Report, task: Task, shown: Shown) -> Iterator[str]:
    name, source, occluded = proposed_class(report.tables.classes), "auto", 0
    if shown.label_id is not None:
        name, source = shown.name, "manual"
        occluded = int(report.tables.labels["occluded"][shown.label_id])
    corners = " ".join(f'{side}="{value:.2f}"' for side, value in zip(SIDES, shown.box, strict=True))
    keys = {finding.key for finding in task.findings}
    says = " | ".join(message_of(finding) for finding in shown.findings if finding.key in keys)
    yield f'    <box label={_quoted(name)} source="{source}" occluded="{occluded}" {corners} z_order="0">'
    yield from _attributes({_SAYS: says, _ID: shown.id})
    yield "    </box>"


def _attributes(values: Mapping[str, str]) -> Iterator[str]:
    for name, value in values.items():
        text = _FORBIDDEN.sub("\ufffd", value)[:_LONGEST_VALUE]
        yield f'      <attribute name="{name}">{escape(text)}</attribute>'


def _quoted(text: str) -> str:
    return quoteattr(_FORBIDDEN.sub("\ufffd", text), {"\n": "&#10;", "\t": "&#9;", "\r": "&#13;"})


def _archive(path: Path, text: str, tasks: Sequence[Task], names: Mapping[str, str]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(zipfile.ZipInfo(ANNOTATIONS), text.encode())
        for task in tasks:
            try:
                content = Path(task.filepath).read_bytes()
            except OSError as error:
                raise InputError(f"The image can't be read: {error}.", where=task.filepath) from None
            archive.writestr(zipfile.ZipInfo(names[task.sample_id]), content)


# Reading


def _xml_of(content: bytes, where: str) -> bytes:
    """The XML of an export, which may be an archive."""
    if not content.startswith(b"PK"):
        return content
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            named = [name for name in archive.namelist() if name.lower().endswith(".xml")]
            if len(named) == 1:
                return archive.read(named[0])
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError) as error:
        raise InputError(f"The archive can't be read: {error}.", where=where) from None
    raise InputError(
        f"The archive has {len(named)} XML files; expected one.", where=where,
        fix="Export the annotations as 'CVAT for images 1.1'.",
    )  # fmt: skip


@dataclass(kw_only=True)
class _Reading:
    """What was read so far."""

    path: Path
    report: Report
    reviewer: str | None
    finished: bool
    answers: list[Answer] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    n_open: int = 0
    people: dict[str, tuple[str | None, str | None]] = field(default_factory=dict)

    def parse(self, content: bytes) -> None:
        """Read the file."""
        self.tag = _tag(self.report.tables.classes)
        self.samples = set(self.report.tables.images.index)
        self.document = Document(content, str(self.path))
        root = parse(self.document, self._take)
        if root.name != "annotations":
            raise FormatError(
                f"The root is <{root.name}>; expected <annotations> of CVAT.", where=self.path,
                fix="Export the annotations as 'CVAT for images 1.1'.",
            )  # fmt: skip
        if not self.answers:
            raise InputError(
                f"No image has a tag {self.tag!r}, which says what was asked.", where=self.path,
                fix="Give CVAT's export of a task into which our annotations.xml was uploaded.",
            )  # fmt: skip

    def all_left_out(self) -> list[str]:
        """What was left out, with a word on images that weren't ticked."""
        if not self.n_open:
            return self.left_out
        said = f"{self.path}: {self.n_open} images aren't ticked as reviewed; what wasn't changed stays open."
        return [*self.left_out, said]

    def _take(self, element: Element) -> None:
        if element.name == "meta":
            self.people = _people(element)
        elif element.name == "track":
            raise FormatError(
                "CVAT for video: it has tracks over frames, and no images.", where=self.path,
                fix="Export the annotations as 'CVAT for images 1.1'.",
            )  # fmt: skip
        elif element.name == "image":
            self._image(element)

    def _image(self, image: Element) -> None:
        name = image.attributes.get("name", "")
        where = f"{self.path}:{self.document.line(image.start)}"
        asked = [tag for tag in image.all("tag") if tag.attributes.get("label") == self.tag]
        if not asked:
            self.left_out.append(
                f"{where}: {name}: The tag {self.tag!r} isn't there, which says what was asked."
            )
            return
        said = _values(asked[0])
        sample_id = said.get(_SAMPLE) or self._sample(name)
        ticked = self.finished or any(is_set(_values(tag).get(_TICK, "")) for tag in asked)
        self.n_open += not ticked
        objects = self.report.tables.task == "detection"
        reviewer, at = self.people.get(image.attributes.get("task_id", ""), self.people.get("", (None, None)))
        self.answers.append(
            Answer(
                sample_id=sample_id,
                findings=tuple(said.get(_KEYS, "").split()),
                where=where,
                names=None if objects else tuple(self._classes(image)),
                drawn=tuple(self._drawn(image, where, name)) if objects else (),
                finished=ticked,
                reviewer=self.reviewer or reviewer,
                at=at,
            )
        )

    def _sample(self, name: str) -> str:
        """The sample whose image it is, by the end of its name."""
        parts = name.split("/")
        ends = ["/".join(parts[start:]) for start in range(len(parts))]
        return next((end for end in ends if end in self.samples), name)

    def _classes(self, image: Element) -> Iterator[str]:
        for tag in image.all("tag"):
            if tag.attributes.get("label") != self.tag:
                yield tag.attributes.get("label", "")

    def _drawn(self, image: Element, where: str, name: str) -> Iterator[Drawn]:
        for shape in image.children:
            given = shape.attributes
            if shape.name == "box":
                x1, y1, x2, y2 = (number(given.get(side, "")) for side in SIDES)
                turned = number(given.get("rotation", "0"))
                wrong = None if turned == 0 else f"is turned by {turned:g} degrees; expected an upright box"
                yield Drawn(
                    name=given.get("label", ""),
                    box=(x1, y1, x2, y2),
                    id=_values(shape).get(_ID) or None,
                    wrong=wrong,
                )
            elif shape.name in (*SHAPES, *PASSED_OVER):
                self.left_out.append(
                    f"{where}: {name}: A {shape.name} of {given.get('label')!r} says nothing here."
                )


def _values(element: Element) -> dict[str, str]:
    return {each.attributes.get("name", ""): each.text.strip() for each in element.all("attribute")}


def _people(meta: Element) -> dict[str, tuple[str | None, str | None]]:
    """Who annotated and when, by the id of the task; under an empty text where there is one task or job."""
    found: dict[str, tuple[str | None, str | None]] = {}
    for holder in _holders(meta):
        who = next(filter(None, (_person(holder.first(name)) for name in ("assignee", "owner"))), None)
        at = _text(holder.first("updated")).replace(" ", "T")
        said = who, at if is_time(at) else None
        found[_text(holder.first("id"))] = said
        found.setdefault("", said)
    return found


def _holders(element: Element) -> Iterator[Element]:
    for child in element.children:
        if child.name in ("job", "task"):
            yield child
        elif child.name in ("project", "tasks"):
            yield from _holders(child)


def _person(element: Element | None) -> str | None:
    if element is None:
        return None
    return _text(element.first("email")) or _text(element.first("username")) or _text(element) or None


def _text(element: Element | None) -> str:
    return "" if element is None else element.text.strip()
