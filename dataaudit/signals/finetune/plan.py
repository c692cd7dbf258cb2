"""What is to be trained: the labeled images in their folds, and the settings."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from dataaudit import __version__
from dataaudit.errors import InputError, Unavailable
from dataaudit.signals.finetune.folds import folds_of

__all__ = ["Data", "Settings", "labeled"]

Ints = np.ndarray[Any, np.dtype[np.int64]]

_SMALLEST, _STEP = 96, 32


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of the signal `finetuned`, checked; it documents them.

    Raises:
        InputError: a setting is out of range.
    """

    model: str
    pretrained: bool
    folds: int
    epochs: int
    size: int
    batch_size: int
    learning_rate: float
    head_rate: float
    frozen_fraction: float
    flip: bool
    seed: int
    devices: int
    workers: int
    max_gib: float

    def __post_init__(self) -> None:
        for name, least in (("folds", 2), ("epochs", 1), ("batch_size", 2), ("seed", 0), ("devices", 0),
                            ("workers", 0), ("size", 0), ("max_gib", 0)):  # fmt: skip
            if getattr(self, name) < least:
                raise InputError(f"finetuned: {name} = {getattr(self, name)!r}; expected {least} or more.")
        for name in ("learning_rate", "head_rate"):
            if not 0 < getattr(self, name) < 1:
                raise InputError(f"finetuned: {name} = {getattr(self, name)!r}; expected it between 0 and 1.")
        if self.frozen_fraction != -1 and not 0 <= self.frozen_fraction <= 1:
            raise InputError(
                f"finetuned: frozen_fraction = {self.frozen_fraction!r}; expected 0 to 1, "
                "or -1 for the default."
            )
        if self.size % _STEP:
            raise InputError(f"finetuned: size = {self.size}; expected a multiple of {_STEP}, or 0.")

    @property
    def n_averaged(self) -> int:
        """How many epochs, the last ones, are averaged into the probabilities."""
        return (self.epochs + 1) // 2

    def side(self, data: Data, own: int) -> int:
        """Pixels a side: three times that of the images, within limits; `own` is the model's."""
        if self.size:
            return self.size
        wanted = _STEP * round(3 * data.side / _STEP)
        return int(min(max(wanted, _SMALLEST), max(own // _STEP * _STEP, _STEP)))


@dataclass(frozen=True, kw_only=True)
class Data:
    """The labeled images.

    Attributes:
        ids: (n,) sample ids, in the order of their contents.
        filepaths: (n,) paths.
        digests: (n,) MD5 of the contents.
        classes: names of the classes that have a label.
        given: (n,) class numbers.
        groups: (n,) group numbers of near-duplicates.
        fold: (n,) fold that holds out each image.
        judged: (n,) whether an image of its class lies in another fold.
        side: median pixels of the longer side.
    """

    ids: pd.Index
    filepaths: tuple[str, ...]
    digests: tuple[str, ...]
    classes: tuple[str, ...]
    given: Ints
    groups: Ints
    fold: Ints
    judged: np.ndarray[Any, np.dtype[np.bool_]]
    side: float

    @property
    def n_folds(self) -> int:
        """How many folds there are."""
        return int(self.fold.max()) + 1

    def digest(self, settings: Settings, *facts: object) -> str:
        """Names all that the training depends on; where a file lies, and the device, don't count."""
        kept = {**asdict(settings), "devices": 0, "workers": 0, "max_gib": 0}
        lines = [f"{a} {b} {c}" for a, b, c in zip(self.digests, self.given, self.fold, strict=True)]
        text = json.dumps([__version__, kept, self.classes, lines, [str(each) for each in facts]])
        return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()[:24]


def labeled(
    images: pd.DataFrame, near_duplicates: pd.Series[int], labels: pd.DataFrame, *, folds: int, seed: int
) -> Data:
    """The labeled images that can be decoded, dealt over the folds.

    Raises:
        Unavailable: fewer than two classes, or none with two different images.
    """
    named = labels.dropna(subset="name").drop_duplicates("sample_id").set_index("sample_id")["name"]
    ids = near_duplicates.index[near_duplicates.index.isin(named.index)]
    names = named.loc[ids]
    classes = tuple(sorted(set(names)))
    if len(classes) < 2:
        raise Unavailable(
            f"there are labels of {len(classes)} class{'es' * (not classes)}; it needs two at least"
        )
    given = pd.Index(classes).get_indexer(pd.Index(names)).astype(np.int64)
    groups = np.asarray(near_duplicates.loc[ids], dtype=np.int64)
    fold = folds_of(given, groups, min(folds, len(np.unique(groups))), seed=seed)
    n_folds = pd.Series(fold).groupby(given).nunique()
    judged = n_folds.reindex(range(len(classes))).to_numpy()[given] >= 2
    if not judged.any():
        raise Unavailable(
            "no class has two different images, so nothing is left of a class when one is held out"
        )
    table = images.loc[ids]
    longer = table[["width", "height"]].astype(float).max(axis=1)
    return Data(
        ids=ids, filepaths=tuple(map(str, table["filepath"])), digests=tuple(map(str, table["digest"])),
        classes=classes, given=given, groups=groups, fold=fold, judged=judged,
        side=float(np.nan_to_num(longer.median(), nan=224.0)),
    )  # fmt: skip
