"""Real folders of tiny pictures, and git to look at what became of them."""

from __future__ import annotations

import subprocess
from pathlib import Path

from PIL import Image


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
