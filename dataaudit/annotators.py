"""What several people said about the same images, read from a table."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dataaudit.errors import InputError, nearest
from dataaudit.formats import _cells
from dataaudit.types import Tables

__all__ = ["Annotations", "read"]

_COLUMNS = {
    "sample": (
        "sample", "sample_id", "dataaudit_id", "image", "image_id", "image_path", "img", "path", "filepath",
        "file", "filename", "file_name", "item", "item_id", "id",
    ),
    "annotator": (
        "annotator", "annotator_id", "annotator_name", "worker", "worker_id", "rater", "rater_id", "labeler",
        "labeller", "labeled_by", "user", "user_id", "person", "reviewer", "expert",
    ),
    "label": (
        "label", "class", "class_name", "label_name", "category", "name", "answer", "vote", "annotation",
        "response", "choice",
    ),
}  # fmt: skip
_PREFIXES = ("h_", "n_", "count_", "counts_", "vote_", "votes_", "num_")
_SUFFIXES = ("_count", "_counts", "_votes", "_n")
_SHAPES = (
    "Expected one row a vote (sample, annotator, label), one column an annotator, or one column a class with "
    "its number of votes; name the columns if they are called otherwise."
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Annotations:
    """Which person gave which class to which image.

    Attributes:
        votes: one row a vote; columns ``sample_id``, ``annotator`` (None where only the votes are known, not
            who gave them), ``name`` (a class of the dataset) and ``n`` (how many such votes, 1 or more).
    """

    votes: pd.DataFrame

    def __post_init__(self) -> None:
        missing = [name for name in ("sample_id", "annotator", "name", "n") if name not in self.votes]
        if missing:
            raise InputError(
                f"Annotations.votes has no column {missing[0]!r}; it has {list(self.votes.columns)}.",
                fix="Read them with dataaudit.annotators.read.",
            )

    @property
    def annotators(self) -> tuple[str, ...]:
        """Who voted, sorted; empty where only the numbers of votes are known."""
        return tuple(sorted(set(self.votes["annotator"].dropna())))


@dataclass(frozen=True, kw_only=True)
class _Table:
    """Cells as text, and where each row stands."""

    cells: pd.DataFrame
    lines: list[int] | None
    file: Path | None

    def where(self, row: int) -> str | None:
        return None if self.file is None or self.lines is None else f"{self.file}:{self.lines[row]}"

    def of(self, row: int) -> str:
        """How an error names a row that stands in no file."""
        return "" if self.file is not None else f" (row {row} of the annotations)"


def read(
    source: str | Path | pd.DataFrame | Annotations,
    tables: Tables,
    *,
    columns: Mapping[str, str] | None = None,
) -> Annotations:
    """Read what several people said about the images of a dataset.

    Three shapes are understood: one row a vote with the columns sample, annotator (may be missing) and label;
    one row an image with one column an annotator, empty where that person wasn't asked; and one row an image
    with one column a class that holds its number of votes, named as the class or with one common prefix or
    suffix such as ``h_``.

    Args:
        source: a CSV or Parquet file, or a table; a table without a column for the sample has the sample ids
            as its index.
        tables: the dataset. Samples may be named by id, by path, or by the end of their path where that is
            unique.
        columns: names of columns that aren't recognised: ``sample``, ``annotator`` and ``label``, or
            ``annotators`` with the names of several columns, separated by commas.

    Returns:
        The votes.

    Raises:
        InputError: a table of none of these shapes, an unknown sample or class, or the same annotator twice
            for one image, with file and line.
    """
    if isinstance(source, Annotations):
        _check(source, tables)
        return source
    table = _frame(source) if isinstance(source, pd.DataFrame) else _file(Path(source))
    votes = _votes(table, tables, _named(columns or {}, table))
    if not len(votes):
        raise InputError("There is no annotation in the table.", where=table.file, fix=_SHAPES)
    rows = votes.pop("row").to_numpy()
    votes["sample_id"] = _samples(votes["sample_id"], rows, table, tables)
    _refuse_unknown_classes(votes["name"], rows, table, tables)
    _refuse_twice(votes, rows, table)
    return Annotations(votes=votes.reset_index(drop=True))


def _check(annotations: Annotations, tables: Tables) -> None:
    votes = annotations.votes
    for column, known, what in (
        ("sample_id", tables.images.index, "sample"),
        ("name", pd.Index(tables.classes), "class"),
    ):
        strange = votes[column][~votes[column].isin(known)]
        if len(strange):
            raise InputError(f"The annotations name the {what} {strange.iloc[0]!r}, which the dataset lacks.")


# Reading


def _file(path: Path) -> _Table:
    if not path.is_file():
        raise InputError("There is no such file of annotations.", where=path)
    if path.suffix.lower() in (".parquet", ".pq"):
        try:
            found = _frame(pd.read_parquet(path))
        except (ValueError, OSError) as error:
            raise InputError(f"The annotations can't be read: {error}", where=path) from error
        return _Table(cells=found.cells, lines=list(range(1, len(found.cells) + 1)), file=path)
    text = _cells.decode(path.read_bytes(), path).text
    delimiter = _cells.layout(text, _fits, path).delimiter
    rows: list[list[str]] = []
    lines: list[int] = []
    names: list[str] = []
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    begins = 1
    for cells in reader:
        line, begins = begins, reader.line_num + 1
        if not any(cell.strip() for cell in cells):
            continue
        if not names:
            names = [cell.strip() for cell in cells]
            continue
        if len(cells) > len(names):
            raise InputError(
                f"The row has {len(cells)} cells; the header has {len(names)}.", where=f"{path}:{line}",
                fix="Put a cell that holds the delimiter in quotes.",
            )  # fmt: skip
        rows.append([cell.strip() for cell in cells] + [""] * (len(names) - len(cells)))
        lines.append(line)
    _refuse_double(names, path)
    return _Table(cells=pd.DataFrame(rows, columns=pd.Index(names), dtype=object), lines=lines, file=path)


def _fits(names: tuple[str, ...]) -> bool:
    return any(name.strip().lower() in _COLUMNS["sample"] for name in names)


def _frame(frame: pd.DataFrame) -> _Table:
    names = [str(name).strip() for name in frame.columns]
    _refuse_double(names, None)
    cells = pd.DataFrame(
        {name: [_text(value) for value in frame.iloc[:, at].tolist()] for at, name in enumerate(names)},
        dtype=object,
    )
    if not _fits(tuple(names)) and not isinstance(frame.index, pd.RangeIndex):
        cells.insert(0, "sample_id", [_text(value) for value in frame.index.tolist()])
    return _Table(cells=cells, lines=None, file=None)


def _text(value: Any) -> str:
    if value is None or value is pd.NA or value is pd.NaT:
        return ""
    if isinstance(value, (float, np.floating)):
        return "" if np.isnan(value) else str(int(value)) if float(value).is_integer() else str(value)
    return str(value).strip()


def _refuse_double(names: Sequence[str], path: Path | None) -> None:
    twice = [name for at, name in enumerate(names) if name and name in names[:at]]
    if twice:
        raise InputError(f"The annotations have the column {twice[0]!r} more than once.", where=path)


# Understanding


def _named(columns: Mapping[str, str], table: _Table) -> dict[str, str]:
    """The user's names of columns, checked against the table."""
    known = (*_COLUMNS, "annotators")
    for key, name in columns.items():
        if key not in known:
            raise InputError(f"The annotations have no column of the kind {key!r}. {nearest(key, known)}")
        for each in name.split(",") if key == "annotators" else [name]:
            if each.strip() not in table.cells.columns:
                raise InputError(
                    f"The annotations have no column {each.strip()!r}. "
                    f"{nearest(each.strip(), table.cells.columns)}",
                    where=table.file,
                )
    return dict(columns)


def _votes(table: _Table, tables: Tables, named: Mapping[str, str]) -> pd.DataFrame:
    """Votes with unresolved samples; columns ``sample_id``, ``annotator``, ``name``, ``n``, ``row``."""
    found = {kind: named.get(kind) or _recognised(kind, table) for kind in _COLUMNS}
    sample = found["sample"]
    if sample is None:
        raise InputError(
            f"No column of the annotations names the sample; there are {', '.join(table.cells.columns)}.",
            where=table.file,
            fix="Call it sample, or say which it is: --annotation-column sample=NAME.",
        )
    others = [name for name in table.cells.columns if name and name != sample]
    counted = _class_columns(others, tables) if "label" not in named and "annotators" not in named else {}
    if counted and (found["annotator"] is None or found["label"] is None):
        return _counts(table, sample, counted)
    repeated = bool(table.cells[sample].duplicated().any())
    alone = found["label"] is not None and ("label" in named or repeated or others == [found["label"]])
    if "annotators" not in named and found["label"] is not None and (found["annotator"] is not None or alone):
        return _long(table, sample, found["annotator"], found["label"])
    people = [name.strip() for name in named["annotators"].split(",")] if "annotators" in named else others
    if not people:
        raise InputError("No column of the annotations holds a label.", where=table.file, fix=_SHAPES)
    return _wide(table, sample, people)


def _recognised(kind: str, table: _Table) -> str | None:
    by_name = {name.lower(): name for name in reversed(table.cells.columns)}
    return next((by_name[name] for name in _COLUMNS[kind] if name in by_name), None)


def _class_columns(names: Sequence[str], tables: Tables) -> dict[str, str]:
    """Column to class, where columns are classes or begin or end alike before or after a class."""
    classes = set(tables.classes)
    plain = {name: name for name in names if name in classes}
    readings = [plain]
    for prefix in _PREFIXES:
        readings.append({name: name[len(prefix) :] for name in names if name.startswith(prefix)})
    for suffix in _SUFFIXES:
        readings.append({name: name[: -len(suffix)] for name in names if name.endswith(suffix)})
    best = max(readings, key=lambda reading: sum(each in classes for each in reading.values()))
    return best if sum(each in classes for each in best.values()) >= 2 else {}


def _counts(table: _Table, sample: str, counted: Mapping[str, str]) -> pd.DataFrame:
    twice = table.cells[sample].duplicated().to_numpy()
    if twice.any():
        row = int(twice.argmax())
        raise InputError(
            f"The sample {table.cells[sample].iloc[row]!r} has numbers of votes already{table.of(row)}.",
            where=table.where(row),
        )
    parts = []
    for column, name in counted.items():
        numbers = pd.to_numeric(table.cells[column].replace("", "0"), errors="coerce")
        values = numbers.to_numpy(dtype=float)
        wrong = ~np.isfinite(values) | (values < 0) | (values != np.floor(values))
        if wrong.any():
            row = int(wrong.argmax())
            raise InputError(
                f"The number of votes for {name!r} is {table.cells[column].iloc[row]!r}; expected a whole "
                f"number of 0 or more{table.of(row)}.",
                where=table.where(row),
            )
        rows = np.flatnonzero(values)
        parts.append(
            pd.DataFrame(
                {
                    "sample_id": table.cells[sample].to_numpy()[rows],
                    "annotator": None,
                    "name": name,
                    "n": values[rows].astype(np.int64),
                    "row": rows,
                }
            )
        )
    return pd.concat(parts).sort_values("row", kind="stable")


def _long(table: _Table, sample: str, annotator: str | None, label: str) -> pd.DataFrame:
    for column in (name for name in (sample, annotator, label) if name is not None):
        empty = (table.cells[column] == "").to_numpy()
        if empty.any():
            row = int(empty.argmax())
            raise InputError(f"The cell of {column!r} is empty{table.of(row)}.", where=table.where(row))
    who = None if annotator is None else table.cells[annotator].to_numpy()
    return pd.DataFrame(
        {
            "sample_id": table.cells[sample].to_numpy(),
            "annotator": who,
            "name": table.cells[label].to_numpy(),
            "n": np.ones(len(table.cells), dtype=np.int64),
            "row": np.arange(len(table.cells)),
        }
    )


def _wide(table: _Table, sample: str, people: Sequence[str]) -> pd.DataFrame:
    cells = table.cells[list(people)].to_numpy(dtype=object)
    rows, columns = np.nonzero(cells != "")
    return pd.DataFrame(
        {
            "sample_id": table.cells[sample].to_numpy()[rows],
            "annotator": np.array(people, dtype=object)[columns],
            "name": cells[rows, columns],
            "n": np.ones(len(rows), dtype=np.int64),
            "row": rows,
        }
    )


# Checking


def _samples(names: pd.Series[str], rows: Any, table: _Table, tables: Tables) -> list[str]:
    """The sample ids that the table means."""
    ids = tables.images.index
    given = list(dict.fromkeys(names))
    known = {each: str(each) for each in given if each in ids}
    unknown = [each for each in given if each not in known]
    if unknown:
        paths = dict(zip(tables.images["filepath"].astype(str), map(str, ids), strict=True))
        tails = _tails([str(each) for each in ids])
        folder = None if table.file is None else table.file.parent.absolute()
        found = {each: _resolved(each, paths, tails, folder) for each in unknown}
        # The end of a path is enough as long as no other row means the same sample
        taken = [*known.values(), *filter(None, found.values())]
        twice = {each for each, n in pd.Series(taken, dtype=object).value_counts().items() if n > 1}
        known |= {each: sample for each, sample in found.items() if sample and sample not in twice}
    lost = [each for each in unknown if each not in known]
    if lost:
        row = int(rows[int((names == lost[0]).to_numpy().argmax())])
        more = f" (and {len(lost) - 1:,} more)" if len(lost) > 1 else ""
        raise InputError(
            f"The dataset has no sample {lost[0]!r}{more}{table.of(row)}.",
            where=table.where(row),
            fix=f"Expected ids such as {', '.join(map(repr, list(ids[:2])))}, or the unique end of one.",
        )
    return [known[each] for each in names]


def _tails(ids: Sequence[str]) -> dict[str, str | None]:
    """Every end of a path to its sample id; None where several samples end so."""
    tails: dict[str, str | None] = {}
    for each in ids:
        parts = each.replace("\\", "/").split("/")
        for start in range(len(parts)):
            tail = "/".join(parts[start:])
            tails[tail] = None if tail in tails else each
    return tails


def _resolved(
    name: str, paths: Mapping[str, str], tails: Mapping[str, str | None], folder: Path | None
) -> str | None:
    for path in (name, *([str(folder / name)] if folder is not None else [])):
        if path in paths:
            return paths[path]
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
    for start in range(len(parts)):
        tail = "/".join(parts[start:])
        if tail in tails:
            return tails[tail]
    return None


def _refuse_unknown_classes(names: pd.Series[str], rows: Any, table: _Table, tables: Tables) -> None:
    strange = (~names.isin(tables.classes)).to_numpy()
    if strange.any():
        at = int(strange.argmax())
        name = names.iloc[at]
        raise InputError(
            f"The dataset has no class {name!r}{table.of(int(rows[at]))}. {nearest(name, tables.classes)}",
            where=table.where(int(rows[at])),
            fix=None if len(names) > 1 else _SHAPES,
        )


def _refuse_twice(votes: pd.DataFrame, rows: Any, table: _Table) -> None:
    named = votes["annotator"].notna()
    keys = ["sample_id", "annotator"] if named.any() else ["sample_id", "name"]
    twice = votes.duplicated(keys).to_numpy()
    if named.any() and twice.any():
        at = int(twice.argmax())
        vote = votes.iloc[at]
        first = int(np.flatnonzero((votes[keys] == vote[keys]).all(axis=1).to_numpy())[0])
        before = table.where(int(rows[first])) or f"row {rows[first]}"
        raise InputError(
            f"{vote['annotator']!r} has labeled {vote['sample_id']!r} before, at {before}"
            f"{table.of(int(rows[at]))}.",
            where=table.where(int(rows[at])),
            fix="Keep one answer of each person for an image.",
        )
