"""A version of a dataset to train on, and the trusted labels of the images that no version trains on."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image

import dataaudit as da
from dataaudit.decode import decode
from dataaudit.errors import InputError
from dataaudit.types import Tables
from dataaudit.version import read
from dataaudit.version.place import Place, place_of
from dataaudit.version.snapshot import find

TEST, VALIDATION = ("test", "testing", "tst"), ("val", "valid", "validation", "dev")
COLUMNS = ["sample_id", "filepath", "digest", "name", "split"]


@dataclass(frozen=True, kw_only=True)
class Data:
    """What a job trains on, tunes nothing on, and is tested on.

    Attributes:
        train, validation: images of the version, with its own labels.
        test: the held-out images with the trusted labels; the same for every version.
        classes: names, in the order of the network's scores.
        record: what identifies the data: versions, commits, DVC's MD5, counts.
    """

    train: pd.DataFrame
    validation: pd.DataFrame
    test: pd.DataFrame
    classes: tuple[str, ...]
    record: dict[str, str | int]


def load(path: str, version: str, trusted: str | None, share: float) -> Data:
    """Read a version and the trusted labels from DVC's cache; the working copy is left alone.

    Args:
        path: the dataset.
        version: to train on.
        trusted: whose labels are the truth; the newest version when None.
        share: of the training images to validate on.

    Raises:
        DataAuditError: no repository, no such version, no classification, no image to test or to train on.
    """
    place = place_of(path)
    trusted = trusted or newest(path)
    truth = rows_of(path, trusted)
    test = held_out(truth, trusted)
    own = rows_of(path, version)
    # By content, not by name: a fix may have moved the file
    free = own[~own["digest"].isin(test["digest"]) & ~own["split"].isin(TEST)]
    checked = free["split"].isin(VALIDATION)
    if not checked.any():
        checked = free["digest"].map(fraction).sub(0.2).div(0.8).lt(share)
    train = free[~checked]
    classes = tuple(sorted({*own["name"], *truth["name"]}))
    if train["name"].nunique() < 2:
        raise InputError(
            f"{version} has {train['name'].nunique()} class in {len(train)} training images; "
            "expected 2 or more.",
            where=path,
        )
    record: dict[str, str | int] = {
        "dataset": place.prefix, "version": version, "commit": find(place, version),
        "trusted": trusted, "trusted_commit": find(place, trusted), "dvc_md5": dvc_md5(place, version),
        "n_train": len(train), "n_test": len(test),
    }  # fmt: skip
    return Data(train=train, validation=free[checked], test=test, classes=classes, record=record)


def newest(path: str) -> str:
    made = da.versions(path)
    if not made:
        raise InputError(
            "The dataset has no versions yet.", where=path,
            fix=f'Make the first one: dataaudit version commit {path} -m "as it came"',
        )  # fmt: skip
    return made[-1].name


def rows_of(path: str, version: str) -> pd.DataFrame:
    """The labeled images of a version: `COLUMNS`, one row an image."""
    tables: Tables = read(path, version, progress=False)
    if tables.task != "classification":
        raise InputError(
            f"{version} is a dataset of {tables.task}; this recipe trains classifiers.", where=path
        )
    labels = tables.labels.dropna(subset="name").set_index("sample_id")["name"]
    rows = tables.images.join(labels, how="inner").rename_axis("sample_id").reset_index()
    rows["split"] = rows["split"].map(lambda split: split.lower() if isinstance(split, str) else "")
    return rows.sort_values("digest", kind="stable")[COLUMNS].reset_index(drop=True)


def held_out(truth: pd.DataFrame, trusted: str) -> pd.DataFrame:
    """The test split, or a fifth chosen by content, so that it is the same fifth in every version."""
    rows = truth[truth["split"].isin(TEST)]
    if rows.empty:
        rows = truth[truth["digest"].map(fraction) < 0.2]
    agreed = rows.groupby("digest")["name"].transform("nunique") == 1  # else there is no truth
    rows = rows[agreed].drop_duplicates("digest")
    if rows.empty:
        raise InputError(f"No image of {trusted} can be held out of {len(truth)} labeled ones.")
    return rows.reset_index(drop=True)


def fraction(digest: str) -> float:
    """A number from 0 to 1 that depends on the content alone."""
    return int(digest[:8], 16) / 16**8


def dvc_md5(place: Place, version: str) -> str:
    """MD5 of the dataset as DVC names it, such as ``f800...41e8.dir``; empty where DVC tracks parts of it."""
    from dvc.api import DVCFileSystem

    files = DVCFileSystem(str(place.dvc_root), rev=find(place, version))
    name = place.root.relative_to(place.dvc_root).as_posix()
    return str(files.info(name).get("md5") or "") if name != "." else ""


def unsaved(path: str) -> int:
    """How many images of the working copy differ from the newest version, which nothing trains on."""
    return len(da.diff(path, newest(path)).changes)


class Pictures(torch.utils.data.Dataset):
    """Images as (3, size, size) uint8, the index of their class and their sample id; decoded once.

    Raises:
        InputError: an image can't be decoded.
    """

    def __init__(
        self, rows: pd.DataFrame, classes: tuple[str, ...], size: int, *, flip: bool = False
    ) -> None:
        self.ids, self.flip = rows["sample_id"].tolist(), flip
        self.targets = [classes.index(name) for name in rows["name"]]
        self.images = torch.empty((len(rows), 3, size, size), dtype=torch.uint8)
        for number, file in enumerate(rows["filepath"]):
            found = decode(Path(file).read_bytes(), size=size)
            if found.image is None:
                raise InputError(
                    f"{self.ids[number]} can't be decoded: {found.error}.",
                    fix="Take it out: `dataaudit audit` names all such images.",
                )
            squeezed = found.image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
            self.images[number] = torch.from_numpy(np.array(squeezed)).permute(2, 0, 1)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, number: int) -> tuple[torch.Tensor, int, str]:
        image = self.images[number]
        mirrored = self.flip and bool(torch.rand(()) < 0.5)
        return (image.flip(-1) if mirrored else image), self.targets[number], self.ids[number]
