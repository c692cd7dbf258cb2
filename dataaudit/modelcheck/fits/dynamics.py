"""How each label fares during training, summed up as it goes: margin, confidence, loss, forgetting."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch.nn import functional

__all__ = ["Dynamics", "ids_of", "joined"]

_NAMES = (
    "sample_id",
    "sample_ids",
    "id",
    "ids",
    "filepath",
    "path",
    "paths",
    "filename",
    "file_name",
    "index",
)
_SUMS = ("loss", "margin", "confidence", "squared", "right", "forgotten", "seen")
_PENDING = 64


class Dynamics:
    """Running sums of each sample; a row takes about 150 bytes, however long the training is.

    Args:
        root: folder that the ids are made relative to, where they are paths in it.
        limit: how many samples are followed at most.
    """

    def __init__(self, *, root: str | Path | None = None, limit: int = 2_000_000) -> None:
        self.root = None if root is None else Path(root).resolve()
        self.limit = limit
        self.left_out = 0
        self._rows: dict[str, int] = {}
        self._known: dict[Any, str] = {}
        self._sums = np.zeros((len(_SUMS), 1024), dtype=np.float64)
        self._was = np.zeros(1024, dtype=bool)
        self._given = np.zeros(1024, dtype=np.int64)
        self._pending: list[tuple[list[str], torch.Tensor]] = []

    def __len__(self) -> int:
        self._flush()
        return len(self._rows)

    def add(self, ids: Sequence[Any], scores: torch.Tensor, given: torch.Tensor) -> None:
        """Add a batch.

        Args:
            ids: (n,) of the samples: texts, paths or numbers.
            scores: (n, k) of the classes, before or after softmax's logarithm.
            given: (n,) class numbers; negative ones are passed over.
        """
        with torch.no_grad():
            values, classes = scores.detach().float(), given.detach().long()
            safe = classes.clamp(0, values.shape[1] - 1)
            losses = functional.cross_entropy(values, safe, reduction="none")
            own = values.gather(1, safe[:, None])[:, 0]
            others = values.scatter(1, safe[:, None], -torch.inf).amax(1)
            rows = torch.stack([losses, own - others, torch.exp(-losses), classes.float()])
        self._pending.append(([self._id(one) for one in ids], rows))
        if len(self._pending) >= _PENDING:
            self._flush()

    def table(self) -> pd.DataFrame:
        """One row a sample.

        Returns:
            Index ``sample_id``; ``given`` (class number), ``margin`` (score of the given class less the
            highest other), ``confidence`` (probability of the given class) and ``loss``, means over the times
            that it was trained on, ``variability`` (standard deviation of the confidence), ``learned`` (share
            of the times that it was right), ``forgotten`` (how often it was right and then wrong) and
            ``seen`` (how often).
        """
        return _means(self.sums())

    def sums(self) -> pd.DataFrame:
        """The sums, from which those of several processes can be joined by `joined`."""
        self._flush()
        n = len(self._rows)
        table = pd.DataFrame(self._sums[:, :n].T, columns=list(_SUMS), index=pd.Index(self._rows, dtype=str))
        table.index.name = "sample_id"
        return table.assign(given=self._given[:n])

    def _id(self, one: Any) -> str:
        if one not in self._known:
            text = str(one)
            if self.root is not None:
                path = Path(text)
                full = path if path.is_absolute() else path.absolute()
                if full.is_relative_to(self.root):
                    text = full.relative_to(self.root).as_posix()
            if len(self._known) >= self.limit:
                return text
            self._known[one] = text
        return self._known[one]

    def _flush(self) -> None:
        pending, self._pending = self._pending, []
        if not pending:
            return
        values = torch.cat([rows for _, rows in pending], dim=1).cpu().numpy().astype(np.float64)
        start = 0
        for ids, rows in pending:
            part = values[:, start : start + rows.shape[1]]
            start += rows.shape[1]
            self._take(ids, part)

    def _take(self, ids: Sequence[str], part: np.ndarray[Any, Any]) -> None:
        rows = np.array([self._row(one) for one in ids])
        fine = (rows >= 0) & np.isfinite(part[:3]).all(0) & (part[3] >= 0)
        rows, (loss, margin, confidence, given) = rows[fine], part[:, fine]
        right = margin > 0
        lost = self._was[rows] & ~right
        sums = (loss, margin, confidence, confidence**2, right, lost, np.ones(len(rows)))
        for at, values in enumerate(sums):
            np.add.at(self._sums[at], rows, values)
        self._was[rows] = right
        self._given[rows] = given

    def _row(self, one: str) -> int:
        row = self._rows.get(one)
        if row is not None:
            return row
        if len(self._rows) >= self.limit:
            self.left_out += 1
            return -1
        row = self._rows[one] = len(self._rows)
        if row >= self._sums.shape[1]:
            self._sums = np.pad(self._sums, ((0, 0), (0, row)))
            self._was, self._given = np.pad(self._was, (0, row)), np.pad(self._given, (0, row))
        return row


def joined(parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The table of several processes' sums, of `Dynamics.sums`; see `Dynamics.table`.

    A sample that moves between processes is forgotten unseen, so ``forgotten`` is of what each process saw.
    """
    whole = pd.concat(list(parts))
    groups = whole.groupby(level=0, sort=False)
    return _means(groups[list(_SUMS)].sum().assign(given=groups["given"].last()))


def _means(sums: pd.DataFrame) -> pd.DataFrame:
    seen = sums["seen"].clip(lower=1)
    confidence = sums["confidence"] / seen
    spread = np.sqrt((sums["squared"] / seen - confidence**2).clip(lower=0))
    table = pd.DataFrame(
        {
            "given": sums["given"], "margin": sums["margin"] / seen, "confidence": confidence,
            "loss": sums["loss"] / seen, "variability": spread, "learned": sums["right"] / seen,
            "forgotten": sums["forgotten"], "seen": sums["seen"],
        }
    )  # fmt: skip
    table = table.loc[sums["seen"] > 0]
    small = dict.fromkeys(("margin", "confidence", "loss", "variability", "learned"), "float32")
    return table.astype({**small, "given": "int32", "forgotten": "int32", "seen": "int32"})


def ids_of(batch: Any, given: Callable[[Any], Any] | None = None) -> list[Any] | None:
    """Ids of a batch's samples: by the user's function, by a key of a mapping, or its third part; else None.

    >>> ids_of([torch.zeros(2, 1), torch.zeros(2), ["a.png", "b.png"]])
    ['a.png', 'b.png']
    """
    found: Any = None
    if given is not None:
        found = given(batch)
    elif isinstance(batch, Mapping):
        found = next((batch[name] for name in _NAMES if name in batch), None)
    elif isinstance(batch, (tuple, list)) and len(batch) > 2:
        found = batch[2]
        if isinstance(found, Mapping):
            found = next((found[name] for name in _NAMES if name in found), None)
    if isinstance(found, torch.Tensor):
        found = found.tolist() if found.ndim == 1 and not found.is_floating_point() else None
    if isinstance(found, np.ndarray):
        found = found.tolist()
    if not isinstance(found, (list, tuple)) or not all(isinstance(one, (str, int, Path)) for one in found):
        return None
    return list(found)
