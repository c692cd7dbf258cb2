"""What changed between two versions, label by label."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd

from dataaudit.types import Source, Tables
from dataaudit.version.objects import ObjectsDiff, counted, diff_objects
from dataaudit.version.place import place_of
from dataaudit.version.snapshot import read, working_tables

__all__ = ["VersionDiff", "diff", "diff_tables", "samples"]

KINDS = ("relabeled", "added", "dropped", "moved to another split", "changed content", "renamed")
_COLUMNS = ("kind", "sample_id", "before", "old", "new")
_WORKING = "working copy"
_NONE = "(none)"

BETWEEN = ", "
"""Stands between the classes of a sample that has several."""


@dataclass(frozen=True, kw_only=True)
class VersionDiff:
    """The changes from one version to another.

    Attributes:
        a: name of the older version.
        b: name of the newer one.
        changes: one row a change; `kind` (one of "relabeled", "added", "dropped", "moved to another split",
            "changed content", "renamed"), `sample_id` (in b, or in a for a dropped one), `before` (the sample
            id in a; None for an added one), `old` and `new` (classes, but splits for a move and digests for a
            changed content). A sample that changed in two ways has two rows.
        unchanged: how many samples are the same in both.
        several: whether a sample may have several classes; `old` and `new` are then all of them, sorted and
            joined by ", ".
        objects: of a detection dataset what became of the objects of the images that both versions have;
            `old` and `new` of images that were added or dropped are then how many objects they have of which
            class, such as "2 cat, 1 dog".
    """

    a: str
    b: str
    changes: pd.DataFrame
    unchanged: int
    several: bool = False
    objects: ObjectsDiff | None = None

    @property
    def counts(self) -> dict[str, int]:
        """How many changes there are of each kind, the kinds that occur only."""
        return counted(self.changes, KINDS)

    @property
    def matrix(self) -> pd.DataFrame:
        """How many samples went from one class (row) to another (column); "(none)" for unlabeled ones.

        Where samples have several classes, a class that one gained came from "(none)", and one it lost went
        there. Of a detection dataset it counts objects, those that have another class.
        """
        old, new = self._moved()
        return pd.crosstab(pd.Series(old, name="old"), pd.Series(new, name="new")).astype("int64")

    @property
    def moves(self) -> list[tuple[str, str, int]]:
        """From which class to which how many samples or objects went, the most frequent first."""
        pairs = Counter(zip(*self._moved(), strict=True))
        return [
            (old, new, n) for (old, new), n in sorted(pairs.items(), key=lambda item: (-item[1], item[0]))
        ]

    def _moved(self) -> tuple[list[str], list[str]]:
        """Old and new class of each label that changed."""
        if self.objects is not None:
            changed = self.objects.changes
            changed = changed[changed["kind"].isin(("relabeled", "moved and relabeled"))]
            return changed["old"].tolist(), changed["new"].tolist()
        moved = self.changes[self.changes["kind"] == "relabeled"]
        if not self.several:
            return moved["old"].fillna(_NONE).tolist(), moved["new"].fillna(_NONE).tolist()
        old, new = [], []
        for before, after in zip(moved["old"], moved["new"], strict=True):
            gained, lost = _gained_and_lost(before, after)
            old += [_NONE] * len(gained) + lost
            new += gained + [_NONE] * len(lost)
        return old, new

    def to_dict(self) -> dict[str, Any]:
        """The difference ready for JSON."""
        rows = self.changes.astype(object).where(self.changes.notna(), None)
        return {
            "a": self.a,
            "b": self.b,
            "counts": self.counts,
            "unchanged": self.unchanged,
            "matrix": [{"old": old, "new": new, "n": n} for old, new, n in self.moves],
            "changes": rows.to_dict(orient="records"),
            **({} if self.objects is None else {"objects": self.objects.to_dict()}),
        }

    def to_text(self, *, limit: int | None = 20) -> str:
        """The difference as lines for a terminal.

        Args:
            limit: how many samples or objects of each kind are listed; all where None.
        """
        if not len(self.changes) and not (self.objects is not None and len(self.objects.changes)):
            return f"{self.a} and {self.b} hold the same {self.unchanged:,} samples with the same labels."
        images = "" if self.objects is None else " images"
        summary = ", ".join(
            [*(f"{n:,} {kind}" for kind, n in self.counts.items()), f"{self.unchanged:,} unchanged"]
        )
        lines = [f"{self.a} -> {self.b}:{images} {summary}"]
        if self.objects is not None:
            counts = [f"{n:,} {kind}" for kind, n in self.objects.counts.items()]
            lines.append(f"Objects: {', '.join([*counts, f'{self.objects.unchanged:,} unchanged'])}")
        for kind in self.counts:
            lines += ["", kind[0].upper() + kind[1:]]
            if kind == "relabeled":
                lines += [f"  {self._move(old, new)}: {n:,}" for old, new, n in self.moves[:limit]] + [""]
            rows = self.changes[self.changes["kind"] == kind]
            lines += _listed(_lines(rows, kind, several=self.several), len(rows), limit)
        return "\n".join([*lines, *(self._of_objects(limit) if self.objects is not None else ())])

    def _of_objects(self, limit: int | None) -> Iterator[str]:
        assert self.objects is not None
        if len(self.objects.changes):
            yield from [
                "",
                *(f"  {line}" for line in self.objects.by_class[:limit].to_string().split("\n")),
            ]
        if self.moves:
            yield from ["", *(f"  {old} -> {new}: {n:,}" for old, new, n in self.moves[:limit])]
        for kind, n in self.objects.counts.items():
            yield from ["", f"Objects {kind}", *_listed(self.objects.lines(kind), n, limit)]

    def _move(self, old: str, new: str) -> str:
        if self.several:
            return f"+{new}" if old == _NONE else f"-{old}"
        return f"{old} -> {new}"

    def __repr__(self) -> str:
        return f"VersionDiff({self.a} -> {self.b}: {self.counts}, {self.unchanged} unchanged)"


def _listed(lines: Iterator[str], n: int, limit: int | None) -> list[str]:
    more = [f"  ... and {n - limit:,} more"] if limit is not None and n > limit else []
    return [*(f"  {line}" for line in islice(lines, limit)), *more]


def _gained_and_lost(before: Any, after: Any) -> tuple[list[str], list[str]]:
    """The classes that a sample has more, and those that it has no more."""
    old, new = ([] if pd.isna(names) else str(names).split(BETWEEN) for names in (before, after))
    return [name for name in new if name not in old], [name for name in old if name not in new]


def _lines(rows: pd.DataFrame, kind: str, *, several: bool) -> Iterator[str]:
    columns = [rows[name].fillna(_NONE) for name in ("sample_id", "before", "old", "new")]
    for sample_id, before, old, new in zip(*columns, strict=True):
        if kind == "added":
            yield f"+ {sample_id}  {new}"
        elif kind == "dropped":
            yield f"- {sample_id}  {old}"
        elif kind == "changed content":
            yield f"~ {sample_id}"
        elif kind == "renamed":
            yield f"{before} -> {sample_id}"
        elif several and kind == "relabeled":
            gained, lost = _gained_and_lost(*(None if names == _NONE else names for names in (old, new)))
            yield f"{before}  {', '.join([*(f'+{name}' for name in gained), *(f'-{name}' for name in lost)])}"
        else:
            yield f"{before}  {old} -> {new}"


def diff(dataset: str | Path | Source, a: str, b: str | None = None, *, progress: bool = True) -> VersionDiff:
    """What changed from version `a` to version `b`, without touching the working copy.

    Samples are followed by the MD5 of their content over moves and renames, so that an image moved to the
    folder of another class is one relabeled sample, not one dropped and one added.

    Args:
        dataset: the folder, the manifest or a source.
        a: ``v1``, a tag or any git revision.
        b: the same; the working copy where None.
        progress: show a bar while files are fetched.

    Returns:
        The difference.

    Raises:
        InputError: there is no such version.
        ConflictError: files are missing from the cache and no remote has them.
    """
    old = read(dataset, a, progress=progress)
    new = working_tables(place_of(dataset)) if b is None else read(dataset, b, progress=progress)
    return diff_tables(old, new, a=a, b=_WORKING if b is None else b)


def diff_tables(old: Tables, new: Tables, *, a: str, b: str) -> VersionDiff:
    """What changed from one state of a dataset to another, both with digests.

    Args:
        old: the older state.
        new: the newer state.
        a: name of the older state.
        b: name of the newer state.
    """
    left, right = samples(old), samples(new)
    pairs = _pairs(left, right)
    before = left.loc[pairs["before"]].reset_index(drop=True)
    after = right.loc[pairs["after"]].reset_index(drop=True)
    detection = "detection" in (old.task, new.task)
    relabeled = ~_same(before["name"], after["name"]) & (not detection)
    moved = ~_same(before["split"], after["split"])
    content = before["digest"] != after["digest"]
    renamed = ~relabeled & ~moved & ~content & (before["sample_id"] != after["sample_id"])
    tables = [
        _rows("relabeled", before[relabeled], after[relabeled], "name"),
        _rows("moved to another split", before[moved], after[moved], "split"),
        _rows("changed content", before[content], after[content], "digest"),
        _rows("renamed", before[renamed], after[renamed], None),
        _rows("added", None, right[~right.index.isin(pairs["after"])], "name"),
        _rows("dropped", left[~left.index.isin(pairs["before"])], None, "name"),
    ]
    changes = pd.concat(tables, ignore_index=True)
    order = changes["kind"].map({kind: number for number, kind in enumerate(KINDS)})
    changes = changes.assign(order=order).sort_values(["order", "sample_id"], kind="stable")
    unchanged = int((~(relabeled | moved | content | renamed)).sum())
    objects = diff_objects(old, new, before["sample_id"], after["sample_id"]) if detection else None
    return VersionDiff(
        a=a,
        b=b,
        changes=changes.drop(columns="order").reset_index(drop=True),
        unchanged=unchanged,
        several="multilabel" in (old.task, new.task),
        objects=objects,
    )


def samples(tables: Tables) -> pd.DataFrame:
    """One row a sample by position: `sample_id`, `digest`, `split`, `name` (its labels as one) and `file`."""
    labels = tables.labels[["sample_id", "name"]].dropna(subset="name")
    if tables.task == "detection":
        labels = _counted(labels)
    elif labels["sample_id"].duplicated().any():
        names = labels.sort_values("name").groupby("sample_id")["name"].agg(BETWEEN.join)
        labels = names.reset_index()
    images = tables.images
    return pd.DataFrame(
        {
            "sample_id": images.index.astype(object),
            "digest": images["digest"].to_numpy(dtype=object),
            "split": images["split"].to_numpy(dtype=object),
            "name": labels.set_index("sample_id")["name"].reindex(images.index).to_numpy(dtype=object),
            "file": [PurePosixPath(sample_id).name for sample_id in images.index],
        }
    )


def _counted(labels: pd.DataFrame) -> pd.DataFrame:
    """One row a sample, named by how many objects it has of which class."""
    counts = (
        labels.value_counts(["sample_id", "name"])
        .rename("n")
        .reset_index()
        .sort_values(["n", "name"], ascending=[False, True])
    )
    texts = counts["n"].astype(str) + " " + counts["name"]
    return texts.groupby(counts["sample_id"]).agg(BETWEEN.join).rename("name").reset_index()


def _same(left: pd.Series[Any], right: pd.Series[Any]) -> pd.Series[bool]:
    return (left == right) | (left.isna() & right.isna())


def _pairs(left: pd.DataFrame, right: pd.DataFrame) -> pd.DataFrame:
    """Which row of `left` is the same sample as which of `right`: the surest ways of telling come first."""
    found: list[pd.DataFrame] = []
    for keys in (["sample_id", "digest"], ["digest", "file"], ["digest"], ["sample_id"]):
        sides = []
        for name, table in (("before", left), ("after", right)):
            taken = pd.concat([pair[name] for pair in found]) if found else []
            free = table[~table.index.isin(taken)].dropna(subset=keys)
            # Copies of one content are paired one to one, in their order.
            side = free[keys].assign(copy=free.groupby(keys).cumcount())
            side[name] = free.index
            sides.append(side)
        found.append(sides[0].merge(sides[1], on=[*keys, "copy"])[["before", "after"]])
    return pd.concat(found, ignore_index=True).sort_values("before", ignore_index=True)


def _rows(
    kind: str, before: pd.DataFrame | None, after: pd.DataFrame | None, value: str | None
) -> pd.DataFrame:
    shown = after if after is not None else before
    assert shown is not None
    table = pd.DataFrame({"kind": kind, "sample_id": shown["sample_id"].to_numpy(dtype=object)})
    table["before"] = None if before is None else before["sample_id"].to_numpy(dtype=object)
    table["old"] = None if before is None or value is None else before[value].to_numpy(dtype=object)
    table["new"] = None if after is None or value is None else after[value].to_numpy(dtype=object)
    return table.astype(object)[list(_COLUMNS)]
