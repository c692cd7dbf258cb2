"""Round trips to label tools: findings out to Label Studio or CVAT, their answers back into the decisions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dataaudit import decisions
from dataaudit.decisions import actions
from dataaudit.decisions.times import moment
from dataaudit.errors import InputError, nearest
from dataaudit.review import cvat, label_studio
from dataaudit.review._answers import Answers
from dataaudit.review._tasks import Sent
from dataaudit.types import Decision, Report

__all__ = ["TOOLS", "Taken", "export", "exported", "imported", "is_answers", "read", "take"]

TOOLS = ("label-studio", "cvat")


@dataclass(frozen=True, kw_only=True)
class Taken:
    """What became of answers.

    Attributes:
        new: the decisions that were recorded.
        known: how many were recorded before.
        left_out: what could not be turned into a decision, a sentence each.
    """

    new: tuple[Decision, ...]
    known: int
    left_out: tuple[str, ...]


def export(
    report: Report,
    folder: str | Path,
    *,
    to: str,
    codes: Sequence[str] = (),
    n: int | None = None,
    images: str = "embed",
    decided: bool = False,
) -> Sent:
    """Write findings for a label tool, in its own import format.

    Args:
        report: an audit's result.
        folder: where the files go.
        to: ``label-studio`` or ``cvat``.
        codes: codes or prefixes of checks; empty takes every check.
        n: at most so many images, those with the most probable errors.
        images: ``embed`` sends the images along; ``local`` or a URL says where the tool finds them.
        decided: send findings that have a decision too.

    Returns:
        The files, what was left out, and what to do next.

    Raises:
        InputError: another tool, a code that no check has, or an image that can't be sent.
    """
    if to == "label-studio":
        return label_studio.export(report, folder, codes=codes, n=n, images=images, decided=decided)
    if to == "cvat":
        return cvat.export(report, folder, codes=codes, n=n, images=images == "embed", decided=decided)
    raise InputError(f"There is no label tool {to!r}. {nearest(to, TOOLS)}")


def is_answers(path: str | Path) -> bool:
    """Whether a file is an export of Label Studio or CVAT, by what it holds."""
    path = Path(path)
    if not path.is_file():
        return False
    content = path.read_bytes()
    return label_studio.is_answers(content) or cvat.is_answers(content)


def read(
    path: str | Path,
    report: Report,
    *,
    reviewer: str | None = None,
    new_classes: bool = False,
    finished: bool = False,
) -> Answers:
    """Read the answers of Label Studio (JSON, JSON-MIN) or CVAT (XML, zip); which, is seen by what they hold.

    Args:
        path: the tool's export.
        report: the report whose findings were sent.
        reviewer: who annotated, where the file doesn't say.
        new_classes: take a class that no sample has yet; otherwise it is an error.
        finished: of CVAT: images that aren't ticked as reviewed were looked at too.

    Raises:
        InputError: not such a file, answers of another dataset, or a class that isn't known.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError("There is no such file of answers.", where=path)
    content = path.read_bytes()
    if cvat.is_answers(content):
        return cvat.read(path, report, reviewer=reviewer, new_classes=new_classes, finished=finished)
    if label_studio.is_answers(content):
        return label_studio.read(path, report, reviewer=reviewer, new_classes=new_classes)
    raise InputError(
        "This is neither an export of Label Studio (JSON) nor of CVAT (XML or zip).",
        where=path,
        fix="Export Label Studio's project as JSON, or CVAT's task as 'CVAT for images 1.1'.",
    )


def take(report: Report, answers: Answers) -> Taken:
    """Record the decisions of answers beside the dataset; those that were recorded before add nothing.

    Args:
        report: of tables with a source.
        answers: see `read`.

    Raises:
        InputError: tables that were made by hand.
    """
    source = report.tables.source
    if source is None:
        raise InputError("These tables were made by hand.", fix="Record the decisions of `read` yourself.")
    before: dict[tuple[str, str | None], list[Decision]] = {}
    for each in decisions.history(source):
        before.setdefault((each.finding, each.reviewer), []).append(each)
    # An old answer doesn't come back over what the same person said since, in the tool or elsewhere
    news = [
        each
        for each in answers.decisions
        if not _is_known(each, before.get((each.finding, each.reviewer), ()))
    ]
    new = decisions.record(source, news)
    return Taken(new=tuple(new), known=len(answers.decisions) - len(new), left_out=answers.left_out)


def _is_known(decision: Decision, own: Sequence[Decision]) -> bool:
    return decision.at is not None and any(moment(each.at) >= moment(decision.at) for each in own)


# What the command says


def exported(
    report: Report, folder: Path, *, to: str, codes: Sequence[str], n: int | None, images: str, decided: bool
) -> Iterator[str]:
    """Write findings for a label tool, and say what to do next."""
    sent = export(report, folder, to=to, codes=codes, n=n, images=images, decided=decided)
    for why, number in Counter(sent.left_out.values()).items():
        yield f"Left out {number:,}: {why}."
    yield f"{sent.n_findings:,} findings on {sent.n_tasks:,} images for {to}."
    if sent.n_tasks:
        yield sent.how


def imported(
    report: Report, paths: Sequence[Path], *, reviewer: str | None, finished: bool = False
) -> Iterator[str]:
    """Record the decisions of tables and label tools, nothing where a tool's file can't be read; says so."""
    of_tools = [path for path in paths if is_answers(path)]
    answers = [read(path, report, reviewer=reviewer, finished=finished) for path in of_tools]
    tables = [path for path in paths if path not in of_tools]
    if tables:
        yield from actions.imported(report, tables, reviewer=reviewer)
    for path, each in zip(of_tools, answers, strict=True):
        taken = take(report, each)
        yield from (f"Left out {why}" for why in taken.left_out)
        counts = f"{len(taken.new):,} new, {taken.known:,} known already, {len(taken.left_out):,} left out"
        yield f"{path}: {counts}."
