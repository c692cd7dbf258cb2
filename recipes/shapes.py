"""A small detection dataset that is drawn: discs and squares, as YOLO, with errors among the labels."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

CLASSES = ("disc", "square")
COLOURS = ("firebrick", "steelblue")
WIDTH, HEIGHT = 256, 192


def draw(folder: Path, n: int = 60, *, every: int = 8) -> None:
    """Draw two shapes an image; in one image of `every` the label of the second is wrong.

    In turn it is of the other class, there twice, missing, and beside its shape.
    """
    rng = np.random.default_rng(0)
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)
    (folder / "data.yaml").write_text(f"train: images\nnames: [{', '.join(CLASSES)}]\n")
    for number in range(n):
        picture = Image.fromarray(rng.integers(90, 130, (HEIGHT, WIDTH, 3), dtype=np.uint8))
        for middle in (WIDTH / 4, WIDTH * 3 / 4):
            kind, side = int(rng.integers(2)), rng.uniform(40, 90)
            x, y = middle + rng.uniform(-15, 15), HEIGHT / 2 + rng.uniform(-30, 30)
            pen = ImageDraw.Draw(picture)
            corners = (x - side / 2, y - side / 2, x + side / 2, y + side / 2)
            (pen.rectangle if kind else pen.ellipse)(corners, fill=COLOURS[kind])
            if middle < WIDTH / 2:
                lines = line(kind, x, y, side)
        wrong = (
            line(1 - kind, x, y, side), 2 * line(kind, x, y, side), "", line(kind, x, y + side / 3, side)
        )  # fmt: skip
        error = number % every == every - 1
        lines += wrong[number // every % len(wrong)] if error else line(kind, x, y, side)
        picture.save(folder / "images" / f"{number:03d}.png")
        (folder / "labels" / f"{number:03d}.txt").write_text(lines)


def line(kind: int, x: float, y: float, side: float) -> str:
    return f"{kind} {x / WIDTH:.4f} {y / HEIGHT:.4f} {side / WIDTH:.4f} {side / HEIGHT:.4f}\n"
