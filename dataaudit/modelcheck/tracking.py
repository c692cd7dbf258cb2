"""Reports are logged where runs are tracked: MLflow and TensorBoard, and what a Lightning trainer logs to."""

from __future__ import annotations

import csv
import importlib.util
import io
import math
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dataaudit.errors import InputError, MissingDependencyError
from dataaudit.modelcheck import reporting
from dataaudit.modelcheck.reporting import ModelReport, Picture, Table
from dataaudit.report.text import storable
from dataaudit.types import Report

__all__ = [
    "log_to",
    "log_to_logger",
    "log_to_mlflow",
    "log_to_tensorboard",
    "need",
    "numbers_of",
    "target_of",
]

MOST_NUMBERS = 300
MOST_ROWS = 40
"""Rows of a table whose cells are logged as numbers; a longer one is logged as a file alone."""
_LISTED = 50
_EXTRAS = {"mlflow": "mlflow", "tensorboard": "tensorboard"}


def log_to_mlflow(
    report: ModelReport | Report, run_id: str | None = None, tracking_uri: str | None = None
) -> str:
    """Log a report to a run of MLflow: its numbers as metrics, the report and its tables as artifacts, tags.

    Args:
        report: of a model check, or of an audit.
        run_id: the run. When left out: the active run, that of ``MLFLOW_RUN_ID``, or a new one in the
            experiment of ``MLFLOW_EXPERIMENT_NAME`` (``dataaudit``).
        tracking_uri: such as ``sqlite:///mlflow.db`` or ``http://localhost:5000``; MLflow's own setting when
            left out.

    Returns:
        The id of the run.

    Raises:
        MissingDependencyError: MLflow isn't installed.
        InputError: MLflow refuses, such as for a run that doesn't exist.
    """
    need("mlflow")
    import mlflow
    from mlflow.entities import Metric, RunTag
    from mlflow.exceptions import MlflowException

    content = _content(report)
    now = int(time.time() * 1000)
    try:
        client = mlflow.MlflowClient(tracking_uri=tracking_uri)
        run, mine = (
            (run_id, False) if run_id is not None else _run(client, mlflow, tracking_uri, content.name)
        )
        metrics = [Metric(name, value, now, 0) for name, value in content.numbers.items()]
        tags = [RunTag(name, value[:5000]) for name, value in content.tags.items()]
        client.log_batch(run, metrics=metrics, tags=tags)
        with tempfile.TemporaryDirectory() as folder:
            content.write(Path(folder))
            client.log_artifacts(run, folder, f"dataaudit/{content.command}")
        if mine:
            client.set_terminated(run)
    except MlflowException as error:
        raise _refused(str(error), tracking_uri) from error
    return str(run)


def _refused(said: str, uri: str | None) -> InputError:
    what = (said.strip().splitlines() or ["it gives no reason"])[0]
    fix = "Check the run's id and the tracking URI."
    if "maintenance mode" in said:
        what = "it writes to a folder no longer unless it is told to"
        fix = "Set MLFLOW_ALLOW_FILE_STORE=true, or give a server or sqlite:///mlflow.db."
    elif "unsupported URI" in said:
        what = "mlflow-skinny knows servers and folders, and no database"
        fix = "Install all of MLflow: pip install mlflow"
    return InputError(f"MLflow refuses: {what}.", where=uri, fix=fix)


def _run(client: Any, mlflow: Any, uri: str | None, name: str) -> tuple[str, bool]:
    """The run that is active, or a new one; and whether it is new."""
    active = mlflow.active_run()
    if active is not None and uri in (None, mlflow.get_tracking_uri()):
        return active.info.run_id, False
    named = os.environ.get("MLFLOW_RUN_ID")
    if named:
        return named, False
    experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME", "dataaudit")
    found = client.get_experiment_by_name(experiment)
    number = client.create_experiment(experiment) if found is None else found.experiment_id
    return client.create_run(number, run_name=name).info.run_id, True


def log_to_tensorboard(report: ModelReport | Report, target: str | Path | Any, *, step: int = 0) -> None:
    """Log a report to TensorBoard: its numbers as scalars, findings and tables as text, plots as images.

    Args:
        report: of a model check, or of an audit.
        target: a folder of event files, or a ``SummaryWriter``, which stays open.
        step: at which it is shown.

    Raises:
        MissingDependencyError: TensorBoard isn't installed.
        InputError: the target is neither.
    """
    if isinstance(target, (str, Path)):
        need("tensorboard")
        from torch.utils.tensorboard import SummaryWriter

        make: Callable[[str], Any] = SummaryWriter
        writer = make(str(target))
        try:
            log_to_tensorboard(report, writer, step=step)
        finally:
            writer.close()
        return
    if not all(hasattr(target, name) for name in ("add_scalar", "add_text", "add_image")):
        raise InputError(
            f"The target is a {type(target).__name__}; expected a folder or a SummaryWriter of "
            "torch.utils.tensorboard."
        )
    content = _content(report)
    prefix = f"dataaudit/{content.command}"
    for name, value in content.numbers.items():
        target.add_scalar(name, value, step)
    target.add_text(f"{prefix}/findings", content.markdown, step)
    for name, table in content.tables.items():
        target.add_text(f"{prefix}/{name}", _markdown_table(table), step)
    for name, png in content.pictures.items():
        target.add_image(f"{prefix}/{name}", _pixels(png), step, dataformats="HWC")
    target.flush()


def log_to_logger(report: ModelReport, logger: Any, *, step: int = 0) -> None:
    """Log a report to a logger of a Lightning trainer: MLflow and TensorBoard whole, others the numbers.

    Args:
        report: of a model check.
        logger: such as ``trainer.logger``; beside the metrics of a CSVLogger the report lies as files.
        step: at which it is shown.
    """
    kinds = {kind.__name__ for kind in type(logger).__mro__}
    if "MLFlowLogger" in kinds:
        log_to_mlflow(report, logger.run_id, logger._tracking_uri)
    elif "TensorBoardLogger" in kinds:
        log_to_tensorboard(report, logger.experiment, step=step)
    else:
        logger.log_metrics(dict(_content(report).numbers), step)
        if "CSVLogger" in kinds:
            logger.save()
            reporting.write(report, Path(logger.log_dir) / "dataaudit")


def log_to(report: ModelReport | Report, target: str) -> str:
    """Log a report as ``--log-to`` names it; returns where it is, in words.

    Args:
        report: of a model check, or of an audit.
        target: ``mlflow``, ``mlflow:URI`` or ``tensorboard:FOLDER``.

    Raises:
        InputError: it is none of them.
    """
    kind, place = target_of(target)
    if kind == "mlflow":
        return f"MLflow run {log_to_mlflow(report, tracking_uri=place)}"
    assert place is not None
    log_to_tensorboard(report, place)
    return f"TensorBoard folder {place}"


def target_of(text: str) -> tuple[str, str | None]:
    """The two parts of what ``--log-to`` takes.

    Raises:
        InputError: neither MLflow nor TensorBoard, or no folder.

    >>> target_of("mlflow:sqlite:///mlflow.db"), target_of("tensorboard:runs"), target_of("mlflow")
    (('mlflow', 'sqlite:///mlflow.db'), ('tensorboard', 'runs'), ('mlflow', None))
    """
    kind, _, place = text.partition(":")
    if kind not in _EXTRAS or (kind == "tensorboard" and not place):
        raise InputError(
            f"{text!r} is no place to log to; expected mlflow, mlflow:URI or tensorboard:FOLDER."
        )
    return kind, place or None


def need(package: str) -> None:
    """Refuse where a package of an extra isn't installed.

    Raises:
        MissingDependencyError: ``mlflow`` or ``tensorboard`` is missing.
    """
    try:
        found = importlib.util.find_spec(package) is not None
    except ValueError:  # set to None in sys.modules
        found = False
    if not found:
        title = {"mlflow": "MLflow", "tensorboard": "TensorBoard"}[package]
        raise MissingDependencyError(
            f"Logging to {title} needs the package {package}, which isn't installed.",
            fix=f"Install it: pip install 'dataaudit[{_EXTRAS[package]}]'",
        )


@dataclass(frozen=True, kw_only=True)
class _Content:
    """What is logged of a report."""

    name: str
    command: str
    numbers: Mapping[str, float]
    markdown: str
    tables: Mapping[str, Table]
    pictures: Mapping[str, bytes]
    tags: Mapping[str, str]
    write: Callable[[Path], None]


def _content(report: ModelReport | Report) -> _Content:
    from dataaudit import report as audit

    if isinstance(report, Report):
        summary = audit.summarize(report)
        command, markdown = "audit", audit.to_markdown(summary)
        parts: Sequence[Table | Picture] = ()
    elif isinstance(report, ModelReport):
        summary, command, parts = report.summary(), report.command.replace(" ", "-"), report.parts
        markdown = _markdown(summary)
    else:
        raise InputError(
            f"A {type(report).__name__} can't be logged; expected a report of an audit or a model check."
        )
    tables = dict(_named(part for part in parts if isinstance(part, Table)))
    pictures = {name: part.png for name, part in _named(part for part in parts if isinstance(part, Picture))}

    def write(folder: Path) -> None:
        if isinstance(report, ModelReport):
            reporting.write(report, folder)
        else:
            audit.write(report, folder)
        (folder / "findings.md").write_text(storable(markdown), encoding="utf-8")
        for name, table in tables.items():
            (folder / f"{name}.csv").write_text(_csv(table), encoding="utf-8", newline="")
        for name, png in pictures.items():
            (folder / f"{name}.png").write_bytes(png)

    codes = sorted({finding["code"] for finding in summary["findings"]})
    tags = {
        "dataaudit.version": summary["version"], f"dataaudit.{command}.name": summary["dataset"]["name"],
        f"dataaudit.{command}.codes": ", ".join(codes) or "none",
        f"dataaudit.{command}.estimate": summary["estimate"],
    }  # fmt: skip
    if summary["digest"]:
        tags[f"dataaudit.{command}.digest"] = summary["digest"]
    return _Content(
        name=summary["dataset"]["name"], command=command, numbers=numbers_of(summary, command, tables),
        markdown=markdown, tables=tables, pictures=pictures, tags=tags, write=write,
    )  # fmt: skip


def numbers_of(
    summary: Mapping[str, Any], command: str, tables: Mapping[str, Table] | None = None
) -> dict[str, float]:
    """The numbers of a report by the name under which they are logged.

    Args:
        summary: of a report.
        command: such as ``audit`` or ``parity``, part of the names.
        tables: of a model report, by name; the cells of short ones are numbers too.

    Returns:
        Such as ``dataaudit/parity/findings``, ``dataaudit/parity/DEP001/findings``,
        ``dataaudit/parity/DEP001/largest`` (of the evidence) and ``dataaudit/audit/expected_wrong``; finite
        ones only, `MOST_NUMBERS` at most.
    """
    found: dict[str, float] = {}
    counts = summary["counts"]
    keep = ("findings",) if not counts["images"] else tuple(counts)
    pairs: list[tuple[str, Any]] = [(name, counts[name]) for name in keep]
    pairs += [(f"{entry['code']}/findings", entry["findings"]) for entry in summary["codes"]]
    pairs += [(f"{entry['code']}/expected", entry["expected"]) for entry in summary["codes"]]
    pairs += [(f"seconds/{_part(name)}", value) for name, value in summary["timings"].items()]
    for item in summary["findings"][:_LISTED] if not counts["images"] else ():
        pairs += [(f"{item['code']}/{_part(name)}", value) for name, value in item["evidence"].items()]
    for name, table in (tables or {}).items():
        if len(table.rows) <= MOST_ROWS:
            pairs += [(f"{name}/{row}", value) for row, value in _cells(table)]
    for name, value in pairs:
        key = _key(f"dataaudit/{command}/{name}")
        number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        if number and key not in found and len(found) < MOST_NUMBERS:
            found[key] = float(value)
    return found


def _cells(table: Table) -> Iterator[tuple[str, Any]]:
    for at, row in enumerate(table.rows):
        label = next((str(cell) for cell in row if isinstance(cell, str) and cell), str(at))
        for column, cell in zip(table.columns, row, strict=True):
            yield f"{_part(label)}/{_part(column)}", cell


def _part(text: str) -> str:
    """A name without slashes: in a file store a name can't be a file and a folder."""
    return text.replace("/", "_")


def _key(text: str) -> str:
    """A name as MLflow allows it: letters, digits, and _ - . / and space."""
    return re.sub(r"[^\w.\-/ ]+", "_", text, flags=re.ASCII).strip("/ ")[:250]


def _named(parts: Iterator[Any]) -> Iterator[tuple[str, Any]]:
    """Parts by a short name of their title that a file can have, each name once."""
    seen: dict[str, int] = {}
    for part in parts:
        name = re.sub(r"[^a-z0-9]+", "-", part.title.lower()).strip("-")[:60] or "part"
        seen[name] = seen.get(name, 0) + 1
        yield (name if seen[name] == 1 else f"{name}-{seen[name]}"), part


def _markdown(summary: Mapping[str, Any]) -> str:
    model = summary["model"]
    head = " · ".join([model["command"], *model["facts"]])
    lines = [f"## dataaudit: {_cell(summary['dataset']['name'])}", "", head, "", f"**{summary['estimate']}**"]
    for item in summary["findings"][:_LISTED]:
        source = item["evidence"].get("source")
        lines += ["", f"### {item['code']} {_cell(item['item_id'])}", ""]
        lines += [f"`{source}`", ""] if source else []
        lines += [_cell(str(item["evidence"].get("what", item["message"])))]
        if "advice" in item["evidence"]:
            lines += ["", f"**Change:** {_cell(str(item['evidence']['advice']))}"]
    for entry in summary["skipped"]:
        lines += ["", f"Skipped: {entry['code']} {_cell(entry['reason'])}"]
    return storable("\n".join(lines) + "\n")


def _markdown_table(table: Table) -> str:
    lines = [f"| {' | '.join(map(_cell, table.columns))} |", "|---" * len(table.columns) + "|"]
    lines += [f"| {' | '.join(_cell(reporting.shown(cell)) for cell in row)} |" for row in table.rows]
    return storable("\n".join([*lines, "", table.note]))


def _cell(text: str) -> str:
    return re.sub(r"([|`*_<>\[\]])", r"\\\1", " ".join(text.split()))


def _csv(table: Table) -> str:
    from dataaudit.report.text import spreadsheet_safe

    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(table.columns)
    for row in table.rows:
        writer.writerow([spreadsheet_safe(cell) if isinstance(cell, str) else cell for cell in row])
    return storable(out.getvalue())


def _pixels(png: bytes) -> Any:
    import numpy as np
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
