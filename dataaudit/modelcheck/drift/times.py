"""When images were taken, and times as numbers that can be put in order."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from dataaudit.errors import InputError
from dataaudit.modelcheck.drift.sides import Side
from dataaudit.sweep import pillow_set_up

__all__ = ["said", "to_numbers", "with_times"]

_IN_NAME = re.compile(
    r"(?<!\d)((?:19|20)\d\d)[-_.]?(0[1-9]|1[0-2])[-_.]?(0[1-9]|[12]\d|3[01])"
    r"(?:[-_.T ]?([01]\d|2[0-3])[-_.:h]?([0-5]\d)(?:[-_.:m]?([0-5]\d))?)?"
)
_EXIF, _TAKEN, _CHANGED = 0x8769, 0x9003, 0x0132


def with_times(side: Side, how: str | Path | pd.DataFrame) -> Side:
    """The side with the time of each image.

    Args:
        side: the images.
        how: ``exif`` (when the camera says it was taken), ``mtime`` (when the file was last changed),
            ``name`` (a date in the sample id, such as ``20260131_2359``), or a CSV file or table with the
            columns ``sample_id`` and ``time``.

    Raises:
        InputError: no image has a time.
    """
    readers: dict[str, Callable[[str, str], datetime | None]] = {
        "exif": _from_exif,
        "mtime": _from_file,
        "name": _from_name,
    }
    ids = side.images.index
    if isinstance(how, str) and how in readers:
        with pillow_set_up():
            found = [readers[how](str(i), path) for i, path in zip(ids, side.images["filepath"], strict=True)]
        times = pd.Series(pd.to_datetime(pd.Series(found, dtype=object), utc=True).to_numpy(), index=ids)
    else:
        times = _from_table(how, ids)
    if times.isna().all():
        raise InputError(
            f"No image of {side.name} has a time by {how!r}."
            if isinstance(how, str)
            else "No image is in it.",
            fix="Use exif, mtime, name (a date in the file's name), or a CSV with sample_id and time.",
        )
    return replace(side, times=times)


def to_numbers(times: pd.Series[Any], *, where: Path | None = None) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Times as numbers in their order: seconds since 1970 of dates, and numbers as they are; NaN for none.

    Raises:
        InputError: a text that is neither a date nor a number; with its line.
    """
    if pd.api.types.is_numeric_dtype(times):
        return np.asarray(times, dtype=np.float64)
    parsed = pd.to_datetime(times, utc=True, errors="coerce", format="ISO8601")
    if parsed.isna().sum() > times.isna().sum():
        parsed = pd.to_datetime(times, utc=True, errors="coerce", format="mixed")
    bad = np.flatnonzero(parsed.isna().to_numpy() & times.notna().to_numpy())
    if len(bad):
        row = int(bad[0])
        raise InputError(
            f"The time {times.iloc[row]!r} can't be read; expected a date such as 2026-01-31 23:59, or a "
            "number.",
            where=f"row {row}" if where is None else f"{where}:{row + 2}",
        )
    seconds = (parsed - pd.Timestamp(0, tz="UTC")) / pd.Timedelta(seconds=1)
    return np.asarray(seconds, dtype=np.float64)


def said(value: float, times: pd.Series[Any]) -> str:
    """A time as a person writes it: a date, with the hour where all lie within a month; or a number.

    >>> said(0.0, pd.Series(["1970-01-01", "1971-01-01"]))
    '1970-01-01'
    """
    if pd.api.types.is_numeric_dtype(times):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.4g}"
    when = datetime.fromtimestamp(value, tz=timezone.utc)
    numbers = to_numbers(times)
    short = float(np.nanmax(numbers) - np.nanmin(numbers)) < 40 * 86400
    return when.strftime("%Y-%m-%d %H:%M" if short else "%Y-%m-%d")


def _from_exif(_: str, path: str) -> datetime | None:
    try:
        with Image.open(path) as image:
            exif = image.getexif()
            text = exif.get_ifd(_EXIF).get(_TAKEN) or exif.get(_CHANGED)
        return datetime.strptime(str(text)[:19], "%Y:%m:%d %H:%M:%S").replace(tzinfo=timezone.utc)
    except Exception:
        # Damaged EXIF, for which Pillow raises what it runs into, is as good as none
        return None


def _from_file(_: str, path: str) -> datetime | None:
    try:
        return datetime.fromtimestamp(Path(path).stat().st_mtime, tz=timezone.utc)
    except OSError:
        return None


def _from_name(sample_id: str, _: str) -> datetime | None:
    match = _IN_NAME.search(sample_id)
    if match is None:
        return None
    try:
        return datetime(*(int(part or 0) for part in match.groups()), tzinfo=timezone.utc)  # type: ignore[misc, arg-type]
    except ValueError:  # such as the 31st of February
        return None


def _from_table(how: str | Path | pd.DataFrame, ids: pd.Index) -> pd.Series[Any]:
    where = None if isinstance(how, pd.DataFrame) else Path(how)
    if where is not None and not where.is_file():
        raise InputError(
            "There is no such file.", where=where, fix="Or take the times from exif, mtime or name."
        )
    table = how if isinstance(how, pd.DataFrame) else pd.read_csv(Path(how), dtype={"sample_id": str})
    missing = [name for name in ("sample_id", "time") if name not in table]
    if missing:
        raise InputError(
            f"There is no column {missing[0]!r}; there are {list(table.columns)}.",
            where=where,
            fix="Columns: sample_id and time.",
        )
    to_numbers(table["time"], where=where)
    return table.drop_duplicates("sample_id").set_index("sample_id")["time"].reindex(ids)
