from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from dataaudit import formats
from dataaudit.types import Locator, Source, Tables


def _read(path, *, format=None, options: Mapping[str, str] = {}) -> Tables:
    path = Path(path)
    root = path.parent if path.is_file() else path
    own = path.is_file() or (path / ".git").exists()
    source = Source(
        format="manifest" if path.is_file() else "folder",
        root=root,
        path=str(path),
        anchor=root if own else root.parent,
    )
    if path.is_file():
        rows = [tuple(line.split(",")) for line in path.read_text().splitlines()[1:]]
    else:
        files = sorted(f for f in path.rglob("*.png") if ".dataaudit" not in f.relative_to(path).parts)
        rows = [(f.relative_to(path).as_posix(), f.parent.name) for f in files]
    ids = [row[0] for row in rows]
    split = [
        row[2] if len(row) > 2 else (None if i.count("/") < 2 else i.split("/")[0])
        for i, row in zip(ids, rows)
    ]
    images = pd.DataFrame(
        {
            "filepath": [str(root / i) for i in ids],
            "width": pd.NA,
            "height": pd.NA,
            "split": split,
            "digest": None,
        },
        index=pd.Index(ids, name="sample_id"),
    )
    labels = pd.DataFrame(
        {
            "sample_id": ids,
            "name": [r[1] for r in rows],
            "geometry": None,
            "locator": [Locator(file=i) for i in ids],
        },
        index=pd.Index(ids, name="label_id"),
    )
    return Tables(images=images, labels=labels, classes=tuple(sorted(set(labels["name"]))), source=source)


@pytest.fixture(autouse=True)
def reader(monkeypatch):
    if not hasattr(formats, "read"):
        monkeypatch.setattr(formats, "read", _read, raising=False)


def git(root, *args) -> str:
    return subprocess.run(["git", "-C", root, *args], check=True, capture_output=True, text=True).stdout


def picture(path: Path, shade: int, size: int = 4) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (size, size), shade).save(path)


def folder(root: Path, *, split: bool = False) -> Path:
    """Two classes of three images, each of its own shade."""
    for number in range(6):
        name = "cat" if number < 3 else "dog"
        middle = f"{'test' if number % 3 == 2 else 'train'}/{name}" if split else name
        picture(root / middle / f"{number}.png", 10 * number)
    return root


def tree(root: Path) -> dict[str, bytes]:
    """Every file below `root` by its path."""
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}
