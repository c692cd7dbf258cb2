"""Production that has drifted away from the reference, and production that hasn't."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from dataaudit.types import Finding

from . import planted
from ._images import ANIMALS

Change = Callable[[Image.Image], Image.Image]
SIZE = 240


def photographs(data: Path, seed: int = 0) -> list[Path]:
    """The 256 of COCO, in a random order."""
    return mixed(sorted((data / "coco128" / "images").rglob("*.jpg")), seed)


def frames(data: Path, seed: int = 0) -> list[Path]:
    """The 101 of CamVid, in a random order."""
    return mixed(sorted((data / "camvid" / "images").glob("*.png")), seed)


def small_ones(data: Path, n: int, seed: int = 0, classes: Sequence[str] = ANIMALS) -> list[Path]:
    """`n` of CIFAR-10H, in a random order."""
    folder = data / "cifar10h" / "images"
    return mixed([file for name in classes for file in sorted((folder / name).glob("*.jpg"))], seed)[:n]


def mixed(files: list[Path], seed: int) -> list[Path]:
    return random.Random(seed).sample(files, len(files))


def written(
    files: Sequence[Path], folder: str, change: Change | None = None, form: str = "png", **how: Any
) -> str:
    """Save them as RGB of at most `SIZE` pixels, so that both sides come from the same hand."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    for i, file in enumerate(files):
        with Image.open(file) as opened:
            image = opened.convert("RGB")
        image.thumbnail((SIZE, SIZE), Image.Resampling.LANCZOS)
        (change(image) if change else image).save(f"{folder}/{i:04d}_{file.stem}.{form}", **how)
    return folder


def by_class(files: Sequence[Path], folder: str) -> str:
    """Copy them as they are into a folder for each class."""
    for file in files:
        place = Path(folder) / file.parent.name / f"{file.parent.name}_{file.name}"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(file.read_bytes())
    return folder


def copied(files: Sequence[Path], folder: str, name: str = "{i:04d}_{stem}") -> str:
    """Copy them as they are into one folder."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    for i, file in enumerate(files):
        target = Path(folder) / (name.format(i=i, stem=f"{file.parent.name}_{file.stem}") + file.suffix)
        target.write_bytes(file.read_bytes())
    return folder


def drifted(reference: Any, production: Any) -> Sequence[Finding]:
    from dataaudit.modelcheck.drift import drift

    return drift(reference, production, device="cpu").items


def against(files: list[Path], n: int, change: Change, share: float = 1.0, **how: Any) -> Sequence[Finding]:
    """The first `n` files against the rest, of which a share was changed."""

    def sometimes(image: Image.Image) -> Image.Image:
        return change(image) if coins.random() < share else image

    coins = random.Random(1)
    with TemporaryDirectory() as folder:
        reference = written(files[:n], f"{folder}/reference")
        return drifted(reference, written(files[n : 2 * n], f"{folder}/production", sometimes, **how))


# ------------------------------------------------------------------ light, colour, sharpness


@planted("all frames of production by night", kind="night", part="drift", causes=["DRF001"])
def _(data: Path):
    return against(frames(data), 50, lambda image: ImageEnhance.Brightness(image).enhance(0.35))


@planted("a third of the photographs is dark", kind="night", part="drift", causes=["DRF001"])
def _(data: Path):
    return against(photographs(data), 128, lambda image: ImageEnhance.Brightness(image).enhance(0.4), 0.33)


@planted("lens out of focus", kind="blur", part="drift", causes=["DRF001"], mentions=["sharp"])
def _(data: Path):
    return against(photographs(data), 100, lambda image: image.filter(ImageFilter.GaussianBlur(2)))


@planted("white balance of another camera", kind="white balance", part="drift", causes=["DRF001"])
def _(data: Path):
    def warm(image):
        return Image.fromarray((np.asarray(image) * [1.0, 0.88, 0.7]).astype(np.uint8))

    return against(photographs(data, 1), 120, warm)


@planted(
    "half of the images from an infrared camera, grey", kind="grey images", part="drift", causes=["DRF001"]
)
def _(data: Path):
    return against(small_ones(data, 300), 150, lambda image: image.convert("L").convert("RGB"), 0.5)


@planted("mist on the lens takes the contrast", kind="contrast", part="drift", causes=["DRF001"])
def _(data: Path):
    def mist(image):
        return Image.blend(image, Image.new("RGB", image.size, (150, 150, 150)), 0.5)

    return against(frames(data, 2), 50, mist)


@planted("noise of a high ISO", kind="noise", part="drift", causes=["DRF001"])
def _(data: Path):
    noise = np.random.default_rng(0)

    def noisy(image):
        return Image.fromarray(
            (np.asarray(image) + noise.normal(0, 22, (*image.size[::-1], 3))).clip(0, 255).astype(np.uint8)
        )

    return against(photographs(data, 2), 100, noisy)


# ------------------------------------------------------------------ files and geometry


@planted("JPEG of quality 12 on the way", kind="compression", part="drift", causes=["DRF001"])
def _(data: Path):
    files = photographs(data, 3)
    with TemporaryDirectory() as folder:
        reference = written(files[:100], f"{folder}/reference", form="jpg", quality=92)
        return drifted(reference, written(files[100:200], f"{folder}/production", form="jpg", quality=12))


@planted("production comes through thumbnails and is enlarged again", kind="thumbnails", part="drift",
         causes=["DRF001"], mentions=["sharp"])  # fmt: skip
def _(data: Path):
    def thumbnail(image):
        small = image.resize((image.width // 4, image.height // 4), Image.Resampling.BILINEAR)
        return small.resize(image.size, Image.Resampling.BILINEAR)

    return against(photographs(data, 4), 100, thumbnail)


@planted(
    "camera shows the middle of the scene only", kind="other crop", part="drift", causes=["DRF001", "DRF002"]
)
def _(data: Path):
    def middle(image):
        width, height = image.size
        return image.crop((width // 4, height // 4, 3 * width // 4, 3 * height // 4))

    return against(frames(data, 3), 50, middle)


@planted("camera hangs upside down", kind="upside down", part="drift", causes=["DRF002"])
def _(data: Path):
    return against(frames(data, 4), 50, ImageOps.flip)


@planted("a third of the images is black", kind="black images", part="drift", causes=["DRF001", "DRF006"])
def _(data: Path):
    return against(small_ones(data, 240, 1), 120, lambda image: Image.new("RGB", image.size), 0.33)


# ------------------------------------------------------------------ content and classes


@planted("six in ten images of production are ships, with labels", kind="shares of classes", part="drift",
         causes=["DRF003"], mentions=["ship"])  # fmt: skip
def _(data: Path):
    files = small_ones(data, 4000)
    ships = [file for file in files if file.parent.name == "ship"]
    others = [file for file in files if file.parent.name != "ship"]
    with TemporaryDirectory() as folder:
        reference = by_class(small_ones(data, 150, 9), f"{folder}/reference")
        return drifted(reference, by_class(ships[:90] + others[:60], f"{folder}/production"))


@planted("a class that the reference hasn't, with labels", kind="new class", part="drift", causes=["DRF003"],
         mentions=["truck"])  # fmt: skip
def _(data: Path):
    with TemporaryDirectory() as folder:
        reference = by_class(small_ones(data, 150, 1, ANIMALS[:-1]), f"{folder}/reference")
        return drifted(reference, by_class(small_ones(data, 150, 2), f"{folder}/production"))


@planted("street scenes among photographs, without labels", kind="new kind of image", part="drift",
         causes=["DRF002", "DRF006"])  # fmt: skip
def _(data: Path):
    files = photographs(data, 5)
    with TemporaryDirectory() as folder:
        reference = written(files[:120], f"{folder}/reference")
        return drifted(reference, written(files[120:210] + frames(data)[:30], f"{folder}/production"))


@planted("production of animals only, without labels", kind="shares of classes", part="drift",
         causes=["DRF002", "DRF004"])  # fmt: skip
def _(data: Path):
    with TemporaryDirectory() as folder:
        reference = copied(small_ones(data, 150, 3), f"{folder}/reference")
        animals = ("bird", "cat", "deer", "dog", "frog", "horse")
        return drifted(reference, copied(small_ones(data, 150, 4, animals), f"{folder}/production"))


# ------------------------------------------------------------------ time


@planted("exposure falls on one day of the month and stays low", kind="change in time", part="drift",
         causes=["DRF007", "DRF001"])  # fmt: skip
def _(data: Path):
    from dataaudit.modelcheck.drift import read_side, with_times

    files = small_ones(data, 300, 5)
    with TemporaryDirectory() as folder:
        reference = written(files[:150], f"{folder}/reference")
        before = written(files[150:240], f"{folder}/production")
        for i, file in enumerate(files[240:]):
            dark = ImageEnhance.Brightness(Image.open(file).convert("RGB")).enhance(0.55)
            dark.save(f"{before}/{90 + i:04d}_dark.png")
        side = read_side(before, device="cpu")
        days = [int(Path(name).name[:4]) // 5 for name in side.images.index]
        times = pd.DataFrame(
            {"sample_id": side.images.index, "time": pd.Timestamp("2026-03-01") + pd.to_timedelta(days, "D")}
        )
        return drifted(reference, with_times(side, times))


def votes(data: Path, n: int, seed: int = 0) -> pd.DataFrame:
    """A stream of `n` images: what they are, and what one person says."""
    counts = pd.read_csv(data / "cifar10h" / "human_counts.csv")
    rng = np.random.default_rng(seed)
    rows = counts.sample(n, random_state=seed)
    votes_of = [rng.multinomial(1, row / row.sum()).argmax() for row in counts_of(rows)]
    times = pd.date_range("2026-01-01", periods=n, freq="h")
    said = [ANIMALS[index] for index in votes_of]
    return pd.DataFrame({"time": times, "given": rows["label_name"].to_numpy(), "predicted": said})


def counts_of(rows: pd.DataFrame) -> np.ndarray:
    """(n, 10) how many people say which class."""
    return rows[[f"h_{name}" for name in ANIMALS]].to_numpy(float)


def changed(table: pd.DataFrame) -> Sequence[Finding]:
    from dataaudit.modelcheck.drift import concept_drift, read_outcomes

    return concept_drift(read_outcomes(table)).items


@planted("from one day on cats are labelled dogs and dogs cats", kind="meaning of labels", part="drift",
         causes=["DRF005"])  # fmt: skip
def _(data: Path):
    table = votes(data, 1500)
    table.loc[900:, "given"] = table.loc[900:, "given"].replace({"cat": "dog", "dog": "cat"})
    return changed(table)


@planted("accuracy falls from 95 to 60 percent over months", kind="accuracy falls slowly", part="drift",
         causes=["DRF005"])  # fmt: skip
def _(data: Path):
    table = votes(data, 2000, 1)
    worse = np.random.default_rng(2).random(2000) < np.linspace(-0.3, 0.38, 2000)
    table.loc[worse, "predicted"] = "frog"
    return changed(table)
