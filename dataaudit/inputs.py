"""What a user brings to an audit besides the dataset: probabilities, predictions, training dynamics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dataaudit.errors import InputError
from dataaudit.types import Decision, Tables

__all__ = ["models", "predictions", "probabilities", "read", "training_dynamics", "verdicts"]

_ROWS = 10_000  # taken at a time


def read(path: str | Path, *, indexed: bool = True) -> Any:
    """Read what a user brings from a file.

    Args:
        path: ``.npy`` (an array), ``.csv`` or ``.parquet`` (a table).
        indexed: the first column of a table holds the sample ids.

    Raises:
        InputError: no such file, an unknown ending, or contents that can't be read.
    """
    file = Path(path)
    if not file.is_file():
        raise InputError("There is no such file.", where=file)
    try:
        if file.suffix == ".npy":
            return np.load(file, allow_pickle=False)
        if file.suffix in (".parquet", ".pq"):
            table = pd.read_parquet(file)
            has_ids = not isinstance(table.index, pd.RangeIndex)
            return table if has_ids or not indexed else table.set_index(table.columns[0])
        if file.suffix == ".csv":
            return pd.read_csv(file, index_col=0 if indexed else None, dtype={0: str})
    except (ValueError, OSError, EOFError) as error:
        raise InputError(f"It can't be read: {error}", where=file) from error
    raise InputError(f"{file.suffix or 'No ending'} is not one of .npy, .csv and .parquet.", where=file)


def models(
    values: Sequence[pd.DataFrame | np.ndarray[Any, Any]] | Mapping[str, pd.DataFrame | np.ndarray[Any, Any]],
    tables: Tables,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Join the probabilities of several models as their geometric mean.

    Args:
        values: out-of-sample probabilities of each model, see `probabilities`.
        tables: the dataset.

    Returns:
        (n, k) float32 probabilities of the samples that all models have rows for; and the class that each
        model predicts, one column a model.
    """
    named = (
        values if isinstance(values, Mapping) else {f"model {i}": each for i, each in enumerate(values, 1)}
    )
    if not named:
        raise InputError("pred_probs is an empty collection of models.", fix="Give one model at least.")
    checked = {name: probabilities(each, tables) for name, each in named.items()}
    first = next(iter(checked.values()))
    ids = first.index
    for each in checked.values():
        ids = ids[ids.isin(each.index)]
    if not len(ids):
        raise InputError("No sample has a row in the pred_probs of every model.")
    total, best = _joined(
        [
            (each.to_numpy(), each.index.get_indexer(ids), each.columns.get_indexer(first.columns))
            for each in checked.values()
        ]
    )
    said = {name: first.columns.to_numpy()[column] for name, column in zip(checked, best.T, strict=True)}
    return (
        pd.DataFrame(total, index=ids, columns=first.columns, copy=False),
        pd.DataFrame(said, index=ids),
    )


def _joined(models: Sequence[tuple[Any, Any, Any]]) -> tuple[Any, Any]:
    """Geometric mean of models, each with the rows and columns to take; and the best column of each."""
    n, k = len(models[0][1]), len(models[0][2])
    total = np.zeros((n, k), dtype=np.float32)
    best = np.empty((n, len(models)), dtype=np.int64)
    for start in range(0, n, _ROWS):
        here = slice(start, start + _ROWS)
        for number, (values, rows, columns) in enumerate(models):
            part = values[rows[here]][:, columns]
            total[here] += np.log(np.maximum(part, 1e-9))
            best[here, number] = part.argmax(1)
        part = total[here]
        part /= len(models)
        part -= part.max(1, keepdims=True)
        np.exp(part, out=part)
        part /= part.sum(1, keepdims=True)
    return total, best


def predictions(values: pd.DataFrame, tables: Tables) -> pd.DataFrame:
    """Check predictions: columns ``sample_id``, ``name`` and ``confidence`` in [0, 1].

    Raises:
        InputError: a column is missing, a sample or class is unknown, or a confidence is out of range.
    """
    for column in ("sample_id", "name", "confidence"):
        if column not in values:
            raise InputError(
                f"The predictions have no column {column!r}; they have {list(values.columns)}.",
                fix="Give one row a sample: sample_id, name (the class), confidence.",
            )
    for column, known in (("sample_id", tables.images.index), ("name", pd.Index(tables.classes))):
        strange = values[column][~values[column].isin(known)]
        if len(strange):
            raise InputError(
                f"The predictions name the {column} {strange.iloc[0]!r}, which the dataset doesn't have."
            )
    confidence = pd.to_numeric(values["confidence"], errors="coerce")
    wrong = ~((confidence >= 0) & (confidence <= 1))
    if wrong.any():
        raise InputError(
            f"The confidence of {values['sample_id'][wrong].iloc[0]!r} is "
            f"{values['confidence'][wrong].tolist()[0]!r}; expected a number from 0 to 1."
        )
    return values.assign(confidence=confidence)


def training_dynamics(values: pd.DataFrame, tables: Tables) -> pd.DataFrame:
    """Check training dynamics: one row a sample, or one a sample and epoch, which are averaged.

    Args:
        values: index sample id, or a column ``sample_id``; columns ``margin`` (score of the given class less
            the highest other), ``confidence`` (probability of the given class) or ``loss``.
        tables: the dataset.

    Raises:
        InputError: no column that counts, or no sample of the dataset.
    """
    table = values.set_index("sample_id") if "sample_id" in values else values
    if table.index.nlevels > 1:
        table = table.droplevel(list(range(1, table.index.nlevels)))
    kept = [name for name in ("margin", "confidence", "loss") if name in table]
    if not kept:
        raise InputError(
            f"The training dynamics have the columns {list(values.columns)}; expected 'margin', 'confidence' "
            "or 'loss'."
        )
    found = table.loc[table.index.isin(tables.images.index), kept].astype(float)
    if not len(found):
        raise InputError("No row of the training dynamics has the id of a sample.")
    return found.groupby(level=0).mean()


def verdicts(decided: Mapping[str, Decision]) -> pd.DataFrame | None:
    """What people decided about single labels; None if nothing.

    Returns:
        Index label id; columns ``given``, the class that was judged, ``wrong``, ``chosen``, the class that it
        is to have, and ``digest`` of the image.
    """
    rows = [
        (
            each.item_id,
            each.given,
            each.verdict != "keep",
            each.fix.new if each.fix is not None else each.given,
            each.digest,
        )
        for each in decided.values()
        if each.code == "LBL001" and each.verdict != "skip" and each.item_id and each.given
    ]
    table = pd.DataFrame(rows, columns=["label_id", "given", "wrong", "chosen", "digest"])
    return table.set_index("label_id") if rows else None


def probabilities(values: pd.DataFrame | np.ndarray[Any, Any], tables: Tables) -> pd.DataFrame:
    """Check out-of-sample probabilities and bring them to the form of the signal `pred_probs`.

    Args:
        values: (n, k) with sample ids and classes, or an array in the order of the labeled samples (of a
            multi-label dataset: all samples) and of the sorted classes.
        tables: the dataset.

    Returns:
        (n, k) with sample ids and classes, in the precision that the values have: they aren't copied unless
        some of their rows belong to no labeled sample, or they are neither float32 nor float64.

    Raises:
        InputError: a wrong shape, an unknown or missing class, a row that doesn't sum to 1.
    """
    several = tables.task == "multilabel"
    labeled = tables.labels.dropna(subset="name").drop_duplicates("sample_id")
    if several:
        labeled = labeled.set_index("sample_id").reindex(tables.images.index).reset_index(names="sample_id")
    samples = pd.Index(labeled["sample_id"])
    if not isinstance(values, pd.DataFrame):
        expected = (len(labeled), len(tables.classes))
        if np.shape(values) != expected:
            raise InputError(
                f"pred_probs has the shape {np.shape(values)}; expected {expected}: one row for each "
                f"{'' if several else 'labeled '}sample, in the order of the dataset, and one column for "
                "each class, in sorted order.",
                fix="A DataFrame with sample ids and classes needs no order.",
            )
        values = pd.DataFrame(np.asarray(values), index=samples, columns=pd.Index(tables.classes), copy=False)
    for axis, names in (("row", values.index), ("column", values.columns)):
        if not names.is_unique:
            twice = names[names.duplicated()][0]
            raise InputError(f"pred_probs has the {axis} {twice!r} more than once.")
    strange = list(values.columns[~values.columns.isin(tables.classes)])
    missing = sorted(set(tables.labels["name"].dropna()) - set(values.columns))
    if strange or missing:
        raise InputError(
            f"The columns of pred_probs are not the dataset's classes: {strange or missing} "
            f"{'are no classes' if strange else 'are missing'}; the classes are {list(tables.classes)}."
        )
    rows = values
    if not values.index.equals(samples):  # which is quick; of a million strings isin takes 12 s
        known = samples.get_indexer(values.index) >= 0
        rows = values if known.all() else values.loc[known]
    if not len(rows):
        raise InputError("No row of pred_probs has the id of a labeled sample.")
    numbers = rows.to_numpy()
    if numbers.dtype not in (np.float32, np.float64):
        try:
            numbers = numbers.astype(np.float32)
        except (ValueError, TypeError) as error:
            raise InputError(f"pred_probs holds something that is no number: {error}.") from error
    # Columns that are stored one by one are put together once and for all.
    rows = pd.DataFrame(numbers, index=rows.index, columns=rows.columns, copy=False)
    if several:
        return _in_range(rows)
    sums, lowest = numbers.sum(1), numbers.min(1)
    wrong = ~np.isfinite(sums) | (np.abs(sums - 1) > 1e-2) | (lowest < 0)
    if wrong.any():
        worst = int(wrong.argmax())
        raise InputError(
            f"The row of {rows.index[worst]!r} in pred_probs sums to {sums[worst]:.4g}, with a least value "
            f"of {lowest[worst]:.4g}; expected probabilities that sum to 1."
        )
    return rows


def _in_range(rows: pd.DataFrame) -> pd.DataFrame:
    """The probabilities of classes that don't exclude each other, which are in [0, 1] and sum to anything."""
    numbers = rows.to_numpy()
    wrong = ~((numbers.min(1) >= 0) & (numbers.max(1) <= 1))
    if wrong.any():
        row = int(wrong.argmax())
        column = int((~((numbers[row] >= 0) & (numbers[row] <= 1))).argmax())
        raise InputError(
            f"pred_probs holds {numbers[row, column]} for {rows.index[row]!r} and {rows.columns[column]!r}; "
            "expected a probability from 0 to 1.",
            fix="Apply a sigmoid to the logits of a multi-label model.",
        )
    return rows
