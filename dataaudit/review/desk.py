"""The desk of a reviewer: the worklist, the session and the file of decisions behind the panel in the App."""

from __future__ import annotations

import contextlib
import getpass
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from dataaudit import decisions, registry, state, tables
from dataaudit.errors import DataAuditError, InputError
from dataaudit.formats._fiftyone import connect
from dataaudit.review.jobs import Job
from dataaudit.types import Fix, Source, Tables
from dataaudit.worklist import Entry, Worklist
from dataaudit.worklist.session import Session

__all__ = ["AHEAD", "Desk", "Order", "is_ready", "ordered", "read_worklist"]

AHEAD = 8
"""How many findings the panel has beforehand, so that the next one shows at once."""


_MOVES = ("move", "merge", "drop", "remove")


@dataclass(frozen=True, kw_only=True)
class Order:
    """What is reviewed, and by whom.

    Attributes:
        source: the dataset.
        dataset: name of the FiftyOne dataset.
        reviewer: who decides.
        codes: codes or prefixes of the checks whose findings are shown; empty shows all.
        arguments: of the command line that say how the dataset is audited, for audits to come.
        folder: that files in `arguments` are relative to; None for the present one.
        keys: findings to decide a second time, without what others said; None for a first review.
        note: what the reviewer is told at the start, or None.
    """

    source: Source
    dataset: str
    reviewer: str
    codes: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    folder: str | None = None
    keys: tuple[str, ...] | None = None
    note: str | None = None


def read_worklist(source: Source) -> Worklist:
    """The worklist of the latest audit.

    Raises:
        InputError: there is none, or it can't be read.
    """
    file = state.reports_dir(source) / "worklist.json"
    if not file.is_file():
        raise InputError(
            "There is nothing to review yet.", where=file, fix=f"Audit it: dataaudit audit {source.path}"
        )
    return Worklist.from_json(file.read_text(encoding="utf-8"), where=str(file))


def is_ready(source: Source, dataset: str | None) -> bool:
    """Whether there is an audit to review, and the FiftyOne dataset has its findings.

    Args:
        source: the dataset.
        dataset: name of its FiftyOne dataset; None where it isn't needed.

    Raises:
        MissingDependencyError: FiftyOne has no database.
    """
    if not state.worklist_file(source).is_file():
        return False
    if dataset is None:
        return True
    fiftyone = connect()
    if not fiftyone.dataset_exists(dataset):
        return False
    report = fiftyone.load_dataset(dataset).info.get(tables.INFO, {}).get("report", {})
    return bool(report.get("digest") == read_worklist(source).digest)


def ordered(
    found: Tables,
    *,
    dataset: str,
    reviewer: str | None = None,
    codes: Sequence[str] = (),
    second: float | None = None,
    arguments: Sequence[str] = (),
    folder: str | None = None,
) -> Order:
    """What is to be reviewed.

    Args:
        found: the dataset as its files say now.
        dataset: name of the FiftyOne dataset.
        reviewer: who decides; by default the user of this machine.
        codes: codes or prefixes of the checks; empty takes all.
        second: share in [0, 1] of what others decided, to be decided again without seeing what they said.
        arguments: of the command line that say how the dataset is audited.
        folder: that files in `arguments` are relative to.
    """
    source = found.source
    assert source is not None
    reviewer = reviewer or getpass.getuser()
    keys = None
    if second is not None:
        keys = tuple(decisions.second(source, reviewer, fraction=second))
    note = None
    if _is_stale(found):
        note = "Files changed after the audit: what it found may not hold any more. Audit again first."
    return Order(
        source=source, dataset=dataset, reviewer=reviewer, codes=tuple(codes), arguments=tuple(arguments),
        folder=folder, keys=keys, note=note,
    )  # fmt: skip


def _is_stale(found: Tables) -> bool:
    """Whether a file of annotations or a folder of images changed after the latest audit, by their times."""
    source = found.source
    assert source is not None
    if source.root is None:
        return False
    root = source.root
    files = {root / each.file for each in found.labels["locator"] if each is not None}
    files |= {Path(folder) for folder in {path.rpartition(os.sep)[0] for path in found.images["filepath"]}}
    files |= {Path(source.path), state.ledger_file(source)}
    audited = state.worklist_file(source).stat().st_mtime_ns
    for file in files:
        with contextlib.suppress(OSError):
            if file.stat().st_mtime_ns > audited:
                return True
    return False


@dataclass
class Desk:
    """What the panel asks, answered for one reviewer and one dataset; safe to use from several threads.

    Attributes:
        order: what is reviewed, and by whom.
    """

    order: Order
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _job: Job | None = None

    def __post_init__(self) -> None:
        self._open()

    def _open(self) -> None:
        worklist = read_worklist(self.order.source)
        entries = [each for each in worklist.entries if self._is_wanted(each)]
        self._worklist = replace(worklist, entries=tuple(entries))
        self._entries = {each.key: each for each in entries}
        own = decisions.by_reviewer(self.order.source).get(self.order.reviewer, {})
        # What another person decided isn't asked again, unless a second opinion is wanted. It comes first in
        # the history, so that what is undone is one's own
        others = {} if self.order.keys is not None else decisions.latest(self.order.source)
        first = {key: replace(each, at="") for key, each in others.items() if key not in own}
        known = {key: each for key, each in {**first, **own}.items() if key in self._entries}
        self._undoable = sum(key in own for key in known)
        self._session = Session(self._worklist, known, reviewer=self.order.reviewer)
        self._filter: dict[str, Any] = {}

    def _is_wanted(self, entry: Entry) -> bool:
        if self.order.keys is not None and entry.key not in self.order.keys:
            return False
        return not self.order.codes or entry.code.startswith(self.order.codes)

    def answer(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """Answer the panel.

        Args:
            question: ``action`` and what goes with it. ``open``: all there is to know at the start.
                ``decide``: `key`, `verdict` and perhaps `label` and `note`. ``undo``. ``go``: to `key` or by
                `step`, 1 or -1. ``filter``: `codes`, `classes`, `min_probability`, `max_probability`,
                `words`, `undecided`. ``preview`` and ``bulk``: `verdict` and perhaps `keys`, `items` or
                `min_probability`. ``start``: the `job` ``apply``, ``commit`` (with `message`) or ``audit``.
                ``job``: how it is getting on.

        Returns:
            Plain JSON: `findings` to show next, `progress` and what else was asked for; or `error`, the
            sentence to show, where nothing was changed.
        """
        actions = {
            "open": self._opened, "decide": self._decide, "undo": self._undo, "go": self._go,
            "filter": self._set_filter, "preview": self._preview, "bulk": self._bulk,
            "start": self._start, "job": self._progress_of_job,
        }  # fmt: skip
        with self._lock:
            try:
                action = actions.get(str(question.get("action")))
                if action is None:
                    raise InputError(f"The panel can't do {question.get('action')!r}.")
                return action(question)
            except (DataAuditError, OSError) as error:
                return {"error": str(error)}

    def _opened(self, _: Mapping[str, Any]) -> dict[str, Any]:
        codes: dict[str, int] = {}
        for entry in self._entries.values():
            codes[entry.code] = codes.get(entry.code, 0) + 1
        known = registry.checks()
        return {
            "name": self._worklist.name,
            "task": self._worklist.task,
            "classes": list(self._worklist.classes),
            "reviewer": self.order.reviewer,
            "second": self.order.keys is not None,
            "note": self.order.note,
            "codes": [
                {"code": code, "name": known[code].name if code in known else code, "n": n}
                for code, n in sorted(codes.items())
            ],
            "filter": self._filter,
            "running": self._job is not None and self._job.running,
            **self._shown(),
        }

    def _shown(self) -> dict[str, Any]:
        """The findings to show next, and how far the reviewer is."""
        queue = self._session.queue
        current = self._session.current
        now = None if current is None else current.key
        start = queue.index(now) if now in queue else 0
        ahead = [*queue[start:], *queue[:start]][:AHEAD]
        if now is not None and now not in ahead:
            ahead.insert(0, now)
        return {
            "findings": [self._plain(self._entries[key]) for key in ahead],
            "left_under_filter": len(queue),
            "progress": self._session.progress(),
        }

    def _plain(self, entry: Entry) -> dict[str, Any]:
        """A finding as the panel shows it."""
        plain = {key: value for key, value in asdict(entry).items() if key not in ("fix", "other")}
        known = registry.checks().get(entry.code)
        verdict = self._session.decisions.get(entry.key)
        if entry.probability is not None:
            plain["probability"] = self._session.probability(entry.key)
        plain["check"] = entry.code if known is None else known.name
        plain["accept"] = None if entry.fix is None else _says(entry.fix)
        # Naming this class is the same as accepting
        plain["accept_label"] = None if entry.fix is None or entry.fix.op in _MOVES else entry.fix.new
        plain["other"] = entry.other is not None
        plain["verdict"] = None if verdict is None else verdict.verdict
        plain["by"] = None if verdict is None or self.order.keys is not None else verdict.reviewer
        return plain

    def _decide(self, question: Mapping[str, Any]) -> dict[str, Any]:
        key = str(question.get("key"))
        if key not in self._entries:
            raise InputError(f"There is no finding {key!r} in this review.", fix="Load the page again.")
        self._session.decide(
            key, str(question.get("verdict")), label=question.get("label"), note=question.get("note")
        )
        self._record()
        return self._shown()

    def _record(self) -> None:
        """Write what the session took in last; what can't be written isn't taken in."""
        made = self._session.last
        try:
            decisions.record(self.order.source, made)
        except BaseException:
            self._session.undo()
            raise
        self._undoable += bool(made)

    def _undo(self, _: Mapping[str, Any]) -> dict[str, Any]:
        if self._undoable == 0:
            return {**self._shown(), "message": "There is nothing to undo."}
        undone = self._session.undo()
        assert undone is not None
        try:
            decisions.record(self.order.source, self._session.last)
        except BaseException:
            self._open()
            raise
        self._undoable -= 1
        self._session.go(undone.finding)
        return {**self._shown(), "undone": undone.finding}

    def _go(self, question: Mapping[str, Any]) -> dict[str, Any]:
        if question.get("key") is not None:
            self._session.go(str(question["key"]))
        elif int(question.get("step", 1)) < 0:
            self._session.previous()
        else:
            self._session.next()
        return self._shown()

    def _set_filter(self, question: Mapping[str, Any]) -> dict[str, Any]:
        names = ("codes", "classes", "min_probability", "max_probability", "words", "undecided")
        self._filter = {name: question[name] for name in names if question.get(name) is not None}
        self._session.filter(**self._filter)
        return {**self._shown(), "filter": self._filter}

    def _chosen(self, question: Mapping[str, Any]) -> list[str]:
        """The undecided findings that a verdict on many is about."""
        keys = question.get("keys")
        items = question.get("items")
        if keys is None and items is not None:
            wanted = set(items)
            keys = [key for key, each in self._entries.items() if wanted & {each.sample_id, each.item_id}]
        keys = list(self._session.queue) if keys is None else [str(key) for key in keys]
        least = question.get("min_probability")
        open_keys = set(self._entries) - set(self._session.decisions)
        chosen = [self._entries[key] for key in keys if key in open_keys]
        if least is not None:
            chosen = [each for each in chosen if self._session.probability(each.key) >= float(least)]
        if question.get("verdict") == "accept":
            chosen = [each for each in chosen if each.fix is not None]
        return [each.key for each in chosen]

    def _preview(self, question: Mapping[str, Any]) -> dict[str, Any]:
        keys = self._chosen(question)
        precision = self._session.expected_precision(keys) if keys else None
        return {"keys": keys, "precision": precision}

    def _bulk(self, question: Mapping[str, Any]) -> dict[str, Any]:
        keys = self._chosen(question)
        made = self._session.bulk(keys, str(question.get("verdict")))
        self._record()
        return {**self._shown(), "decided": len(made)}

    def _start(self, question: Mapping[str, Any]) -> dict[str, Any]:
        self.start(str(question.get("job")), message=question.get("message"))
        return self._progress_of_job(question)

    def start(self, name: str, *, message: str | None = None) -> Job:
        """Begin a job: ``apply`` the decisions, ``commit`` a version or ``audit`` again.

        Raises:
            InputError: no such job, no message for the version, or another one is under way.
        """
        with self._lock:
            if self._job is not None and self._job.running:
                raise InputError(f"{self._job.title} is under way.", fix="Wait until it is done.")
            order = self.order
            self._job = Job.of(name, order.source.path, order.arguments, folder=order.folder, message=message)
            return self._job

    def _progress_of_job(self, _: Mapping[str, Any]) -> dict[str, Any]:
        if self._job is None:
            return {"job": None}
        found = self._job.plain()
        if not self._job.running and not self._job.seen:
            self._job.seen = True
            self._open()
        return {"job": found}


def _says(fix: Fix) -> str:
    """What a fix does, in a few words.

    >>> from dataaudit.types import Locator
    >>> _says(Fix(op="relabel", sample_id="a", label_id="a", locator=Locator(file="a"), old="cat", new="dog"))
    'The label becomes dog'
    """
    if fix.op == "add":
        return f"Adds {fix.new} here" if fix.box is not None else f"Adds {fix.new}"
    return {
        "relabel": f"The label becomes {fix.new}",
        "rename": f"Every {fix.old} becomes {fix.new}",
        "remove": f"Removes {fix.old}",
        "move": "Moves the box to the proposed one",
        "drop": "Takes the image out of the dataset",
        "merge": f"Takes the image out; {fix.new} stays",
    }[fix.op]
