"""Curves of runs are read from where they were logged: TensorBoard, MLflow, CSV files, tables."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias
from urllib.request import url2pathname

import numpy as np
import pandas as pd

from dataaudit.errors import FormatError, InputError
from dataaudit.modelcheck.runs import event_files, tracking
from dataaudit.modelcheck.runs.histories import Curve, History, said_by
from dataaudit.modelcheck.runs.steps import in_order
from dataaudit.modelcheck.runs.tracking import Points

__all__ = ["Runs", "read_runs"]

Runs: TypeAlias = "str | Path | pd.DataFrame | History | Sequence[str | Path | pd.DataFrame | History]"

_STEPS = ("step", "global_step", "iteration", "iter", "batch", "n_iter")
_EPOCHS = ("epoch", "epochs")
_RUNS = ("run", "run_id", "run_name", "experiment", "trial", "seed")
_NAMES = ("metric", "tag", "name", "key", "variable")
_TABLES = {".csv", ".tsv", ".json", ".jsonl", ".parquet"}
_DATABASES = (".db", ".sqlite", ".sqlite3")
_SPLIT_FOLDERS = {"train", "training", "val", "valid", "validation", "eval", "test"}


def read_runs(source: Runs) -> list[History]:
    """Read the curves of one run or several.

    Args:
        source: a folder (searched for TensorBoard event files, ``mlruns`` of MLflow and CSV files of
            metrics), a file (event file, database of MLflow, CSV, TSV, JSON, JSON lines, Parquet,
            ``trainer_state.json``), an MLflow tracking URI, a table, or several of these. A table is wide (a
            column for each curve) or long (a column with names, and ``value``); ``step`` and ``epoch`` are
            its axis and ``run`` its runs, where there are such columns.

    Returns:
        The runs, in the order of their names within each source.

    Raises:
        InputError: nothing is there, or no curve in it.
        FormatError: a file that can't be read.
        MissingDependencyError: a tracking server is asked for and MLflow isn't installed.
    """
    if isinstance(source, History):
        return [source]
    if isinstance(source, pd.DataFrame):
        return _tabular(source, "table")
    if not isinstance(source, (str, Path)):
        return [history for one in source for history in read_runs(one)]
    text = str(source)
    if text.startswith("sqlite:"):
        path = Path(re.sub(r"^sqlite:(///)?", "", text))
        return _tracked(tracking.of_database(path), path)
    if text.startswith("file:"):
        source = url2pathname(re.sub(r"^file:(//(?=/))?", "", text))
    elif "://" in text or text == "databricks":
        return _tracked(tracking.of_server(text), text)
    path = Path(source)
    if not path.exists():
        raise InputError("there is no such file or folder.", where=path)
    found = list(_in_folder(path)) if path.is_dir() else _in_file(path)
    if not any(history.curves for history in found):
        raise InputError(
            "no curves were found.", where=path,
            fix="Expected TensorBoard event files, mlruns of MLflow, or CSV files with a column a curve.",
        )  # fmt: skip
    return [history for history in found if history.curves]


def _in_file(path: Path) -> list[History]:
    if "tfevents" in path.name:
        return [_events([path], path.parent.name or path.name)]
    if path.suffix.lower() in _DATABASES or (path.suffix not in _TABLES and tracking.is_database(path)):
        return _tracked(tracking.of_database(path), path)
    if path.suffix.lower() not in _TABLES:
        raise FormatError(
            f"{path.suffix or 'no suffix'} isn't a format of curves; expected an event file of TensorBoard, "
            "a database of MLflow, CSV, TSV, JSON, JSON lines or Parquet.",
            where=path,
        )
    return _tabular(_table(path), path.stem if path.stem != "metrics" else path.parent.name, path)


def _in_folder(root: Path) -> Iterator[History]:
    files = sorted(root.rglob("*"))
    events: dict[Path, list[Path]] = {}
    for path in files:
        if "tfevents" in path.name and path.is_file():
            folder = path.parent
            events.setdefault(folder, []).append(path)
    yield from _merged(root, {folder: _events(paths, "") for folder, paths in events.items()})
    for path in files:
        if path.name == "metrics" and path.is_dir() and (path.parent / "meta.yaml").is_file():
            run = tracking.of_folder(path.parent)
            if run is not None:
                yield _of_points(*run, str(path.parent))
    for path in files:
        if path.name in ("mlflow.db", "mlruns.db") and path.is_file():
            yield from _tracked(tracking.of_database(path), path)
    for path in files:
        if path.suffix.lower() in (".csv", ".tsv") or path.name == "trainer_state.json":
            named = path.name in (
                "metrics.csv",
                "results.csv",
                "progress.csv",
                "trainer_state.json",
                "log.csv",
            )
            if not named and path.parent != root:
                continue
            table = _table(path)
            if not named and not any(said_by(str(name))[2] for name in table.columns):
                continue
            own = path.parent if named else path.with_suffix("")
            yield from _tabular(table, _name(root, own), path)


def _name(root: Path, folder: Path) -> str:
    return folder.relative_to(root).as_posix() if folder != root else root.resolve().name


def _merged(root: Path, found: dict[Path, History]) -> Iterator[History]:
    """Folders named after a split, as Keras writes them, and those of `add_scalars`, belong to one run."""
    runs: dict[Path, dict[str, Curve]] = {}
    for folder, history in found.items():
        inner, _, last = folder.name.rpartition("_")
        split = folder.name if folder.name.lower() in _SPLIT_FOLDERS else last
        of_split = folder != root and split.lower() in _SPLIT_FOLDERS
        tags = {re.sub(r"[^A-Za-z0-9]", "_", tag) for tag in history.curves}
        if of_split and (not inner or split == folder.name or inner in tags):
            mine = runs.setdefault(folder.parent, {})
            mine.update({f"{split}/{tag}": curve for tag, curve in history.curves.items()})
        else:
            runs.setdefault(folder, {}).update(history.curves)
    for folder, curves in runs.items():
        renamed = {name: replace(curve, name=name) for name, curve in curves.items()}
        notes = tuple(f"{name}: {curve.note}." for name, curve in renamed.items() if curve.note)
        yield History(name=_name(root, folder), curves=renamed, source=str(folder), notes=notes)


def _events(paths: Sequence[Path], name: str) -> History:
    points: Points = {}
    for path in sorted(paths):
        for tag, step, value in event_files.scalars(path):
            points.setdefault(tag, []).append((float(step), value))
    return _of_points(name, points, str(paths[0].parent))


def _of_points(name: str, points: Points, source: str) -> History:
    """Curves from (step, value) pairs in the order in which they were logged."""
    arrays = {tag: np.array(pairs, dtype=float).reshape(-1, 2) for tag, pairs in points.items()}
    epochs = next((each for tag, each in arrays.items() if tag.lower().split("/")[-1] in _EPOCHS), None)
    when = None
    if epochs is not None:
        at, counted, _, _ = in_order(epochs[:, 0], epochs[:, 1])
        when = (at, counted) if len(at) else None
    curves, notes = {}, []
    for tag, each in arrays.items():
        if each is epochs:
            continue
        x, y, _, note = in_order(each[:, 0], each[:, 1])
        if note:
            notes.append(f"{tag}: {note}.")
        epoch = None
        if when is not None:
            epoch = when[1][np.minimum(np.searchsorted(when[0], x), len(when[0]) - 1)]
        curves[tag] = Curve(name=tag, x=x, y=y, epoch=epoch, note=note)
    return History(name=name, curves=curves, source=source, notes=tuple(notes))


def _tracked(found: Sequence[tuple[str, Points]], where: str | Path) -> list[History]:
    histories = [_of_points(name, points, str(where)) for name, points in found]
    if not any(history.curves for history in histories):
        raise InputError("no run with metrics was found.", where=where)
    return [one for one in histories if one.curves]


def _table(path: Path) -> pd.DataFrame:
    kind = path.suffix.lower()
    try:
        if kind in (".csv", ".tsv"):
            # A cell that says nan is a value that was logged, an empty one is not
            text, separator = _whole_lines(path.read_text(encoding="utf-8-sig", errors="replace"))
            return pd.read_csv(
                io.StringIO(text), sep=separator, skipinitialspace=True, keep_default_na=False, na_values=[""]
            )
        if kind == ".parquet":
            return pd.read_parquet(path)
        text = path.read_text(encoding="utf-8")
        if kind == ".jsonl":
            lines = [line for line in text.splitlines() if line.strip()]
            if lines and not text.endswith("\n") and not lines[-1].rstrip().endswith("}"):
                lines.pop()  # the run is still being written, or was killed
            return pd.DataFrame([json.loads(line) for line in lines])
        data = json.loads(text)
        return pd.DataFrame(data.get("log_history", data) if isinstance(data, dict) else data)
    except (ValueError, TypeError, OSError) as error:
        raise FormatError(f"the table can't be read: {error}", where=path) from error


def _whole_lines(text: str) -> tuple[str, str]:
    """A table's text without a last line that is cut off (the run goes on, or was killed), and what separates
    its cells.
    """
    head = text[: text.find("\n") + 1] or text
    separator = max(",;\t", key=head.count)
    last = text.rfind("\n") + 1
    if 0 < last < len(text) and text.count(separator, last) < head.count(separator):
        text = text[:last]
    return text, separator


def _column(table: pd.DataFrame, names: Sequence[str]) -> str | None:
    known = {str(name).strip().lower(): name for name in table.columns}
    return next((known[name] for name in names if name in known), None)


def _tabular(table: pd.DataFrame, name: str, path: Path | None = None) -> list[History]:
    table = table.rename(columns=lambda column: str(column).strip())
    run = _column(table, _RUNS)
    if run is not None and table[run].notna().any():
        parts = [
            (f"{name}/{key}" if path is not None else str(key), part) for key, part in table.groupby(run)
        ]
        table = table.drop(columns=run)
        return [_one(part.drop(columns=run), key, path) for key, part in parts]
    return [_one(table, name, path)]


def _one(table: pd.DataFrame, name: str, path: Path | None) -> History:
    step, epoch = _column(table, _STEPS), _column(table, _EPOCHS)
    names, value = _column(table, _NAMES), _column(table, ("value",))
    source = None if path is None else str(path)
    curves = {}
    if names is not None and value is not None:
        for key, part in table.groupby(names, sort=False):
            curves[str(key)] = _curve(str(key), part, value, step, epoch)
    else:
        for column in table.columns:
            if column in (step, epoch):
                continue
            numbers = pd.to_numeric(table[column], errors="coerce")
            logged = table[column].notna() & (
                numbers.notna() | table[column].astype(str).str.lower().isin(_NOT_A_NUMBER)
            )
            if logged.any() and numbers[logged].notna().any():
                curves[column] = _curve(column, table[logged], column, step, epoch)
    _restore_nan(table, curves, step, epoch)
    notes = tuple(f"{key}: {each.note}." for key, each in curves.items() if each.note)
    curves = {key: each for key, each in curves.items() if len(each.y)}
    return History(name=name, curves=curves, source=source, notes=notes)


_NOT_A_NUMBER = ("nan", "inf", "-inf", "infinity", "-infinity")


def _restore_nan(table: pd.DataFrame, curves: dict[str, Curve], step: str | None, epoch: str | None) -> None:
    """Pandas writes NaN as an empty cell, which elsewhere means that nothing was logged in this row.

    Where a curve has a value in every row up to one and none after it, while another goes on in every row,
    the rest of the curve is NaN; and so is a training loss that is empty from the first row on.
    """
    present = {name: table[name].notna().to_numpy() for name in curves if name in table.columns}
    if not any(has.all() for has in present.values()):
        return
    for name, has in present.items():
        last = int(np.flatnonzero(has)[-1]) if has.any() else -1
        if 1 <= last < len(table) - 1 and has[: last + 1].all():
            curves[name] = _curve(name, table, name, step, epoch)
    for name in table.columns:
        split, _, better = said_by(name)
        if name not in curves and better == "lower" and split == "train" and table[name].isna().all():
            curves[name] = _curve(name, table, name, step, epoch)


def _curve(name: str, table: pd.DataFrame, value: str, step: str | None, epoch: str | None) -> Curve:
    y = pd.to_numeric(table[value], errors="coerce").to_numpy(dtype=float)
    axis = step if step is not None and table[step].notna().all() else epoch
    x = np.arange(len(y), dtype=float) if axis is None else table[axis].to_numpy(dtype=float)
    epochs = None if epoch is None or table[epoch].isna().any() else table[epoch].to_numpy(dtype=float)
    if epochs is not None and not np.array_equal(epochs, np.floor(epochs)):
        # A fraction of an epoch, as transformers logs it: what is logged up to its end belongs to it
        epochs = np.ceil(epochs)
    x, y, epochs, note = in_order(x, y, epochs)
    return Curve(name=name, x=x, y=y, epoch=epochs, note=note)
