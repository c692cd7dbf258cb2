"""Production that is like the reference, however it was drawn, named or saved."""

from __future__ import annotations

import os
import random
from pathlib import Path
from tempfile import TemporaryDirectory

from . import healthy
from .drift import by_class, changed, copied, drifted, frames, photographs, small_ones, votes, written


def halves(files: list[Path], first: int, second: int):
    """Copies of the first and the next files, as they are."""
    with TemporaryDirectory() as folder:
        reference = copied(files[:first], f"{folder}/reference")
        return drifted(reference, copied(files[first : first + second], f"{folder}/production"))


@healthy("halves of the small images, seed 1", part="drift")
def _(data: Path):
    return halves(small_ones(data, 300, 11), 150, 150)


@healthy("halves of the small images, seed 2", part="drift")
def _(data: Path):
    return halves(small_ones(data, 300, 12), 150, 150)


@healthy("halves of the photographs, seed 1", part="drift")
def _(data: Path):
    return halves(photographs(data, 11), 128, 128)


@healthy("halves of the photographs, seed 2", part="drift")
def _(data: Path):
    return halves(photographs(data, 12), 128, 128)


@healthy("halves of the street scenes, at random", part="drift")
def _(data: Path):
    return halves(frames(data, 11), 51, 50)


@healthy("reference three times as large as production", part="drift")
def _(data: Path):
    return halves(photographs(data, 13), 190, 60)


@healthy("production is a bootstrap of the reference's photographs", part="drift")
def _(data: Path):
    files = photographs(data, 14)[:120]
    with TemporaryDirectory() as folder:
        reference = copied(files, f"{folder}/reference")
        return drifted(reference, copied(random.Random(3).choices(files, k=120), f"{folder}/production"))


@healthy("the same street scenes with other PNG compression", part="drift")
def _(data: Path):
    files = frames(data, 15)
    with TemporaryDirectory() as folder:
        reference = written(files, f"{folder}/reference", compress_level=6)
        return drifted(reference, written(files, f"{folder}/production", compress_level=5))


@healthy("other names and times of the files", part="drift")
def _(data: Path):
    files = small_ones(data, 240, 16)
    with TemporaryDirectory() as folder:
        reference = copied(files[:120], f"{folder}/reference")
        production = copied(files[120:], f"{folder}/production", "IMG_20260401_{i:06d}")
        for i, file in enumerate(sorted(Path(production).iterdir())):
            os.utime(file, (1_700_000_000 + 60 * i, 1_700_000_000 + 60 * i))
        return drifted(reference, production)


@healthy("small images with labels, same shares of classes", part="drift")
def _(data: Path):
    files = small_ones(data, 300, 17)
    with TemporaryDirectory() as folder:
        reference = by_class(files[:150], f"{folder}/reference")
        return drifted(reference, by_class(files[150:], f"{folder}/production"))


@healthy("stream of outcomes whose accuracy stays at 95 percent", part="drift")
def _(data: Path):
    return changed(votes(data, 1500, 5))
