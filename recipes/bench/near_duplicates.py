"""How many copies of real photos are found, by what was done to them, and how many different images are
joined.

python recipes/bench/near_duplicates.py FOLDER_OF_IMAGES [--images 300]
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import pandas as pd
from PIL import Image, ImageEnhance

from dataaudit.signals.backbones import backbone_named, embedder
from dataaudit.signals.duplicates import near_duplicates
from dataaudit.signals.spectrum import neighbors, spectrum
from dataaudit.sweep import sweep


def cropped(image: Image.Image, share: float) -> Image.Image:
    width, height = image.size
    left, top = int(width * share), int(height * share)
    return image.crop((left, top, width - left, height - top))


CHANGES: dict[str, tuple[Callable[[Image.Image], Image.Image], int]] = {
    "recompressed (quality 50)": (lambda image: image, 50),
    "half the size": (lambda image: image.resize((image.width // 2, image.height // 2)), 90),
    "20 % brighter": (lambda image: ImageEnhance.Brightness(image).enhance(1.2), 90),
    "cropped, 3 % a side": (lambda image: cropped(image, 0.03), 90),
    "cropped, 5 % a side": (lambda image: cropped(image, 0.05), 90),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=300)
    given = parser.parse_args()
    paths = sorted(given.folder.rglob("*.jpg"))
    paths = paths[:: max(1, len(paths) // given.images)][: given.images]
    for name, (change, quality) in CHANGES.items():
        with tempfile.TemporaryDirectory() as folder:
            files = {f"{i}/original": str(path) for i, path in enumerate(paths)}
            for i, path in enumerate(paths):
                files[f"{i}/copy"] = f"{folder}/{i}.jpg"
                change(Image.open(path).convert("RGB")).save(files[f"{i}/copy"], quality=quality)
            found = sweep(pd.Series(files), embedder=embedder(backbone_named(), device="cpu"))
        assert found.embeddings is not None
        images = pd.DataFrame({"digest": found.digests})
        near = neighbors(spectrum(found.embeddings))
        groups = near_duplicates(found.embeddings, near, found.phash, found.thumbnails, images)
        n = len(paths)
        joined = sum(groups[f"{i}/original"] == groups[f"{i}/copy"] for i in range(n))
        apart = groups[[f"{i}/original" for i in range(n)]].nunique()
        print(f"{name:28} {joined / n:6.1%} of {n} copies found; {n - apart} originals joined with another")


if __name__ == "__main__":
    main()
