"""Runs that MLflow tracks: in a folder, in a database of SQLite, on a server."""

from __future__ import annotations

import math
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

from dataaudit.errors import FormatError, InputError, MissingDependencyError
from dataaudit.modelcheck.findings import shown

__all__ = ["Points", "is_database", "of_database", "of_folder", "of_server"]

Points = dict[str, list[tuple[float, float]]]
"""Step and value of each point, by the name of the metric, in the order in which they were logged."""
_LARGEST = 1.7976931348623157e308
_SECONDS = 10.0


def of_folder(folder: Path) -> tuple[str, Points] | None:
    """Name and points of a run in the file store: a file a metric, with time, value and step in each line.

    Returns:
        None for a run that was deleted.

    Raises:
        FormatError: a line that isn't such; the last one may be cut off, as in a run that still goes on.
    """
    meta = (folder / "meta.yaml").read_text(encoding="utf-8", errors="replace")
    if re.search(r"^lifecycle_stage:\s*['\"]?deleted", meta, re.MULTILINE):
        return None
    named = re.search(r"^run_name:\s*['\"]?(.+?)['\"]?\s*$", meta, re.MULTILINE)
    points: Points = {}
    for path in sorted((folder / "metrics").rglob("*")):
        if not path.is_file():
            continue
        tag = path.relative_to(folder / "metrics").as_posix()
        text = path.read_text(encoding="utf-8", errors="replace")
        lines = text.splitlines()
        for number, line in enumerate(lines, 1):
            parts = line.split()
            try:
                point = (float(parts[2]) if len(parts) > 2 else 0.0, float(parts[1]))
            except (ValueError, IndexError):
                if number == len(lines) and not text.endswith("\n"):
                    break
                raise FormatError(
                    f"the line is {line!r}; expected time, value and step.",
                    where=f"{shown(str(path))}:{number}",
                ) from None
            points.setdefault(tag, []).append(point)
    return named[1] if named else folder.name, points


def is_database(path: Path) -> bool:
    """Whether a file is a database of SQLite."""
    with path.open("rb") as stream:
        return stream.read(16) == b"SQLite format 3\x00"


def of_database(path: Path) -> list[tuple[str, Points]]:
    """The runs in MLflow's database, read-only and without MLflow: name and points, in the order of names.

    Raises:
        InputError: no such file.
        FormatError: no database of MLflow.
    """
    if not path.is_file():
        raise InputError("there is no such database.", where=path)
    asked = """
        select r.run_uuid, e.name, r.name, m.key, m.step, m.value, m.is_nan
        from metrics m join runs r on r.run_uuid = m.run_uuid join experiments e
            on e.experiment_id = r.experiment_id
        where r.lifecycle_stage = 'active' and e.lifecycle_stage = 'active'
        order by m.timestamp, m.step"""
    found: dict[str, tuple[str, Points]] = {}
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as database:
            for run, experiment, name, key, step, value, is_nan in database.execute(asked):
                if run not in found:
                    found[run] = f"{experiment}/{name or run}", {}
                number = math.nan if is_nan else float(value)
                if abs(number) >= _LARGEST:  # as which MLflow stores infinity
                    number = math.copysign(math.inf, number)
                found[run][1].setdefault(key, []).append((float(step), number))
    except sqlite3.DatabaseError as error:
        raise FormatError(
            f"it can't be read as a database of MLflow: {error}.", where=path,
            fix="Expected the tables experiments, runs and metrics, as mlflow 1.0 and later write them.",
        ) from error  # fmt: skip
    return _named(list(found.items()))


def _named(found: list[tuple[str, tuple[str, Points]]]) -> list[tuple[str, Points]]:
    """Runs of one name get the beginning of their id behind it."""
    names = [name for _, (name, _) in found]
    told = [(f"{name} ({run[:8]})" if names.count(name) > 1 else name, p) for run, (name, p) in found]
    return sorted(told, key=lambda one: one[0])


def of_server(uri: str) -> list[tuple[str, Points]]:
    """The runs of a tracking server: name and points, in the order of names.

    Raises:
        MissingDependencyError: MLflow isn't installed.
        InputError: the server doesn't answer, or refuses.
    """
    _reach(uri)
    try:
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient
    except ImportError as error:
        raise MissingDependencyError(
            "A tracking server is read with MLflow, which isn't installed.", where=uri,
            fix="pip install 'dataaudit[mlflow]'",
        ) from error  # fmt: skip
    found: list[tuple[str, tuple[str, Points]]] = []
    try:
        client = MlflowClient(tracking_uri=uri)
        for experiment in client.search_experiments():
            token = None
            while True:
                page = client.search_runs([experiment.experiment_id], page_token=token)
                for run in page:
                    points = {
                        tag: [
                            (float(one.step), float(one.value))
                            for one in client.get_metric_history(run.info.run_id, tag)
                        ]
                        for tag in run.data.metrics
                    }
                    name = f"{experiment.name}/{run.info.run_name or run.info.run_id}"
                    found.append((run.info.run_id, (name, points)))
                token = page.token
                if not token:
                    break
    except MlflowException as error:
        raise InputError(f"MLflow can't read it: {error.message}", where=uri) from error
    return _named(found)


def _reach(uri: str) -> None:
    """MLflow tries a server that isn't there for minutes."""
    import socket

    parts = urlsplit(uri)
    if parts.scheme not in ("http", "https"):
        return
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        socket.create_connection((parts.hostname or "", port), timeout=_SECONDS).close()
    except (OSError, ValueError) as error:
        raise InputError(
            f"no tracking server answers: {error}.", where=uri,
            fix="Start it (mlflow server), or give the folder or database where it keeps its runs.",
        ) from error  # fmt: skip
