"""A dataset, or a version of it, in FiftyOne."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from dataaudit import formats, tables
from dataaudit.types import Tables

if TYPE_CHECKING:
    import fiftyone as fo

__all__ = ["load", "read"]


def load(
    path: str | Path,
    *,
    rev: str | None = None,
    format: str | None = None,  # noqa: A002 - the word that users know
    options: Mapping[str, str] | None = None,
    name: str | None = None,
) -> fo.Dataset:
    """Load a dataset into FiftyOne.

    Loading again updates the same persistent dataset and keeps what people added to it. Media is never
    copied.

    Args:
        path: a folder, a manifest file, or the name of a FiftyOne dataset.
        rev: a version, such as ``v1``, or any git revision; the working copy isn't touched.
        format: name of the format, when it isn't to be detected.
        options: options of the format, such as the name of the label column.
        name: name of the FiftyOne dataset; by default the folder's, and a few letters for where it is.

    Returns:
        The persistent dataset: labels in ``ground_truth``, splits in ``split`` and as tags.

    Raises:
        FormatError: the format isn't recognised; lists what was seen and which formats there are.
        MissingDependencyError: FiftyOne has no database; says which three ways out there are.
    """
    return tables.write(read(path, rev=rev, format=format, options=options), name=name)


def read(
    path: str | Path,
    *,
    rev: str | None = None,
    format: str | None = None,  # noqa: A002 - the word that users know
    options: Mapping[str, str] | None = None,
) -> Tables:
    """Tables of a dataset, or of a version of it."""
    if rev is None:
        return formats.read(path, format=format, options=options)
    from dataaudit import version

    found = version.read(path, rev)
    assert found.source is not None
    return replace(found, source=replace(found.source, options={**found.source.options, "rev": rev}))
