"""Real pictures as files, and tables made by hand, for the tests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from dataaudit.types import Locator, Tables


def tables_of(
    root: Path, files: Sequence[str], names: Sequence[str | None], splits: Sequence[str | None] | None = None
) -> Tables:
    """Tables made by hand: one label an image, the path as both ids."""
    ids = pd.Index(list(files))
    images = pd.DataFrame(
        {
            "filepath": [str(root / file) for file in files],
            "width": None,
            "height": None,
            "split": pd.Series(list(splits) if splits else [None] * len(files), dtype=object).to_numpy(),
            "digest": None,
        },
        index=ids,
        dtype=object,
    )
    labels = pd.DataFrame(
        {
            "sample_id": ids,
            "name": list(names),
            "geometry": None,
            "locator": [Locator(file=file) for file in files],
        },
        index=ids,
        dtype=object,
    )
    return Tables(images=images, labels=labels, classes=tuple(sorted({name for name in names if name})))


def write_digits(root: Path, n: int, *, offset: int = 0, scale: int = 4) -> tuple[list[str], np.ndarray]:
    """Write scikit-learn's digits as <class>/<number>.png; return the names and the (n, 64) pixels."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    files = []
    for number in range(offset, offset + n):
        file = root / str(digits.target[number]) / f"{number:04d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = (digits.images[number] * 15.9).astype(np.uint8)
        Image.fromarray(pixels).resize((8 * scale, 8 * scale), Image.Resampling.BICUBIC).save(file)
        files.append(file.relative_to(root).as_posix())
    return files, digits.data[offset : offset + n].astype(np.float32)
