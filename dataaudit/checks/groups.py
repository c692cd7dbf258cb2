"""Groups of images that show the same picture: what the checks of duplicates, splits and labels share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd

from dataaudit.types import CORNERS, Fix, Locator

__all__ = [
    "Groups",
    "are_objects",
    "class_of",
    "locator_of",
    "one_a_sample",
    "removal",
    "rows_of",
    "split_rank",
]

_RANKS = {"test": 0, "testing": 0, "val": 1, "valid": 1, "validation": 1, "dev": 1, "train": 2, "training": 2}


def split_rank(split: str | None) -> int:
    """How much a split must be kept as it is: 0 for a test split, 1 for validation, 2 for training, 3 for
    others.

    >>> [split_rank(name) for name in ("test", "Validation", "train", None)]
    [0, 1, 2, 3]
    """
    return 3 if split is None or pd.isna(split) else _RANKS.get(str(split).lower(), 3)


def locator_of(locator: Any, sample_id: str) -> Locator:
    """The locator of a label, or that of a file that is its own label, for tables made by hand."""
    return locator if isinstance(locator, Locator) else Locator(file=sample_id)


def class_of(name: Any) -> str | None:
    """The class that a cell of a table holds, None for an unlabeled image."""
    return None if pd.isna(name) else str(name)


def are_objects(labels: pd.DataFrame) -> bool:
    """Whether the labels are objects with boxes, which say nothing about the class of an image as a whole."""
    return "x1" in labels.columns


def _annotations(labels: pd.DataFrame, ids: pd.Index, names: pd.Series[Any]) -> pd.Series[Any]:
    """What each of some samples is annotated with, equal for equal annotations: its class, or its objects."""
    if not are_objects(labels):
        return names
    own = labels[labels["sample_id"].isin(ids)]
    cells = zip(own["name"].astype(str), *(own[corner] for corner in CORNERS), strict=True)
    texts = [f"{name} {a:.6g} {b:.6g} {c:.6g} {d:.6g}" for name, a, b, c, d in cells]
    by_sample = pd.Series(texts, index=pd.Index(own["sample_id"]), dtype=object)
    joined = by_sample.sort_values().groupby(level=0).agg("; ".join)
    return joined.reindex(ids, fill_value="")


def one_a_sample(labels: pd.DataFrame) -> pd.DataFrame:
    """The first label of each sample; where it has several, their classes are one name, joined by ", ".

    Returns:
        Index sample id; columns ``label_id``, ``name``, ``geometry``, ``locator``.
    """
    first = labels.reset_index(names="label_id").drop_duplicates("sample_id").set_index("sample_id")
    if len(first) == len(labels):
        return first
    named = labels.dropna(subset="name").sort_values("name").groupby("sample_id")["name"].agg(", ".join)
    return first.assign(name=named.reindex(first.index).astype(object).where(first["name"].notna(), None))


def removal(sample_id: str, label_id: Any, locator: Any, name: Any, *, kept: str | None = None) -> Fix:
    """The fix that takes a sample out: dropped, or merged into the sample `kept`."""
    return Fix(
        op="drop" if kept is None else "merge",
        sample_id=sample_id,
        label_id=str(label_id),
        locator=locator_of(locator, sample_id),
        old=class_of(name),
        new=kept,
    )


def rows_of(members: pd.DataFrame) -> Iterator[Any]:
    """The rows of `Groups.members`, the sample id as ``Index``."""
    return iter(members.itertuples())


@dataclass(frozen=True, kw_only=True)
class Groups:
    """Images by group.

    Attributes:
        members: index sample id; columns ``group``, ``name``, ``annotations`` (the class again, or the
            objects with their boxes), ``split``, ``digest``, ``pixels``, ``locator``, ``label_id``; the image
            to keep stands first in its group.
    """

    members: pd.DataFrame

    @classmethod
    def of(cls, groups: pd.Series[int], labels: pd.DataFrame, images: pd.DataFrame) -> Groups:
        """Bring together what is known about the images of each group with two or more."""
        several = groups[groups.duplicated(keep=False)]
        ids = several.index
        first = one_a_sample(labels).reindex(ids)
        shown = images.loc[ids]
        members = pd.DataFrame(
            {
                "group": several.to_numpy(),
                "name": first["name"].to_numpy(),
                "annotations": _annotations(labels, ids, first["name"]).to_numpy(),
                "split": shown["split"].to_numpy(),
                "digest": shown["digest"].to_numpy(),
                "pixels": pd.to_numeric(shown["width"] * shown["height"]).fillna(0).to_numpy(),
                "locator": first["locator"].to_numpy(),
                "label_id": first["label_id"]
                .where(first["label_id"].notna(), pd.Series(ids, index=ids))
                .to_numpy(),
            },
            index=ids,
        )
        members = members.assign(
            rank=[split_rank(split) for split in members["split"]],
            votes=-members.groupby("group")["annotations"]
            .transform(lambda names: names.map(names.value_counts()))
            .fillna(0),
            length=[len(sample_id) for sample_id in ids],
            id=ids,
        )
        order = ["group", "rank", "votes", "pixels", "length", "id"]
        members = members.sort_values(order, ascending=[True, True, True, False, True, True], kind="stable")
        return cls(members=members.drop(columns=["rank", "votes", "length", "id"]))

    def several(self) -> Iterator[tuple[int, pd.DataFrame]]:
        """Each group's number, counted from 1, and its members; the image to keep comes first."""
        for number, (_, members) in enumerate(self.members.groupby("group", sort=True), start=1):
            yield number, members
