"""Boxes of the connected parts of CamVid's masks: street scenes with many small and crowded objects."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

from dataaudit.formats._shared import ObjectRows
from dataaudit.types import Locator, Tables

SETS = ("camvid", "camvid-people", "camvid-tiny")
"""All classes; one class, with images that have none; four frames in one image, so that objects are tiny."""

CLASSES = {6: "sign", 8: "car", 9: "pedestrian", 10: "bicyclist"}
SMALLEST_AREA, SMALLEST_SIDE = 40, 6


def streets(name: str, data: Path, folder: Path) -> Tables:
    """A dataset with true boxes.

    Args:
        name: one of `SETS`.
        data: holds ``camvid/images`` and ``camvid/masks``.
        folder: where new images are written.
    """
    frames = sorted((data / "camvid" / "images").iterdir())
    masks = sorted((data / "camvid" / "masks").iterdir())
    step = 4 if name == "camvid-tiny" else 1
    numbers = (9,) if name == "camvid-people" else tuple(CLASSES)
    rows = ObjectRows()
    for start in range(0, len(frames) - step + 1, step):
        # Frames far apart in the film, or the four parts of an image were much the same
        chosen = [start // step + part * (len(frames) // step) for part in range(step)]
        image, mask = (_tiled([each[number] for number in chosen]) for each in (frames, masks))
        file = folder / f"{name}-{start:03d}.png"
        Image.fromarray(image).save(file)
        rows.image(file.name, str(file), Locator(file="a.xml"), size=(image.shape[1], image.shape[0]))
        for number in numbers:
            parts, _ = ndimage.label(mask == number)
            for item, (down, across) in enumerate(ndimage.find_objects(parts), start=1):
                sides = across.stop - across.start, down.stop - down.start
                if (parts[down, across] == item).sum() < SMALLEST_AREA or min(sides) < SMALLEST_SIDE:
                    continue
                box = (float(across.start), float(down.start), float(across.stop), float(down.stop))
                label_id = f"{file.name}:{number}-{item}"
                rows.object(file.name, label_id, CLASSES[number], box, Locator(file="a.xml", item=item))
    return rows.tables(source=None)


def _tiled(files: list[Path]) -> np.ndarray:
    pictures = [np.array(Image.open(file)) for file in files]
    if len(pictures) == 1:
        return pictures[0]
    return np.concatenate([np.concatenate(pictures[:2], 1), np.concatenate(pictures[2:], 1)], 0)
