"""Small pictures of the flagged images, decoded once and kept by content."""

from __future__ import annotations

import base64
import io
import os
import threading
import warnings
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["LONG_SIDE", "Thumbnail", "thumbnails"]

LONG_SIDE = 160
"""Length of a thumbnail's longer side in pixels; smaller images keep their size."""

_QUALITY = 82
_MAX_WORKERS = 8


@dataclass(frozen=True, kw_only=True)
class Thumbnail:
    """A small JPEG.

    Attributes:
        url: the picture as a ``data:`` URL.
        width: in pixels, as shown after EXIF rotation.
        height: in pixels.
    """

    url: str
    width: int
    height: int


def thumbnails(
    wanted: Iterable[tuple[str, str | None]], *, folder: Path | None = None
) -> dict[str, Thumbnail]:
    """Thumbnails of images, long side at most 160 pixels.

    Args:
        wanted: path of each image, and the digest of its content or None.
        folder: where thumbnails are kept by digest, so that the next report decodes nothing; made when
            needed.

    Returns:
        The thumbnail of each path that can be decoded; the others aren't in it.
    """
    from PIL import Image

    Image.preinit()
    jobs = dict(wanted)
    if not jobs:
        return {}
    workers = min(_MAX_WORKERS, (os.cpu_count() or 1) + 1, len(jobs))
    # The filter belongs to the process, so it is set around the pool and not inside its threads.
    with warnings.catch_warnings(), ThreadPoolExecutor(workers) as pool:
        warnings.simplefilter("ignore")
        made = list(pool.map(lambda job: _thumbnail(job[0], job[1], folder), jobs.items()))
    return {path: thumbnail for path, thumbnail in zip(jobs, made, strict=True) if thumbnail is not None}


def _thumbnail(path: str, digest: str | None, folder: Path | None) -> Thumbnail | None:
    kept = None if folder is None or not digest else folder / digest[:2] / f"{digest[2:]}-{LONG_SIDE}.jpg"
    if kept is not None:
        try:
            return _as_url(kept.read_bytes())
        except (OSError, ValueError):
            pass
    try:
        content = _small_jpeg(path)
    except Exception:
        # Decoders raise whatever they like on damaged files; each of these files gets a placeholder.
        return None
    if kept is not None:
        _keep(kept, content)
    return _as_url(content)


def _as_url(content: bytes) -> Thumbnail:
    width, height = _jpeg_size(content)
    return Thumbnail(
        url="data:image/jpeg;base64," + base64.b64encode(content).decode("ascii"), width=width, height=height
    )


def _jpeg_size(content: bytes) -> tuple[int, int]:
    """Width and height from the frame header, which costs a hundredth of opening the picture."""
    at = 2
    while content[:2] == b"\xff\xd8" and at + 9 <= len(content):
        marker, length = content[at + 1], int.from_bytes(content[at + 2 : at + 4], "big")
        if 0xC0 <= marker <= 0xC2:
            return int.from_bytes(content[at + 7 : at + 9], "big"), int.from_bytes(
                content[at + 5 : at + 7], "big"
            )
        at += 2 + length
    raise ValueError("not a JPEG")


def _keep(path: Path, content: bytes) -> None:
    """Store a thumbnail; a cache that can't be written costs the next report time, nothing else."""
    staged = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        staged.write_bytes(content)
        staged.replace(path)
    except OSError:
        with suppress(OSError):
            staged.unlink()


def _small_jpeg(path: str) -> bytes:
    from PIL import Image, ImageOps

    with Image.open(path) as image:
        # Twice the size, so that the last step down still averages.
        image.draft("RGB", (2 * LONG_SIDE, 2 * LONG_SIDE))
        upright: Image.Image = ImageOps.exif_transpose(image)
        if max(upright.size) > 4 * LONG_SIDE and upright.mode in ("RGB", "L", "RGBA"):
            upright = upright.reduce(max(1, max(upright.size) // (2 * LONG_SIDE)))
        upright = _as_rgb(upright)
        upright.thumbnail((LONG_SIDE, LONG_SIDE))
        out = io.BytesIO()
        upright.save(out, "JPEG", quality=_QUALITY)
    return out.getvalue()


def _as_rgb(image: Image.Image) -> Image.Image:
    """Any mode as RGB: transparent on white, more than 8 bits stretched from the darkest to the brightest."""
    from PIL import Image

    if image.mode == "RGB":
        return image
    if image.mode.startswith("I") or image.mode == "F":
        values: np.ndarray[Any, np.dtype[np.float32]] = np.asarray(image, dtype=np.float32)
        low, high = float(np.nanmin(values)), float(np.nanmax(values))
        values = np.nan_to_num((values - low) / (high - low if high > low else 1.0)) * 255
        return Image.fromarray(values.astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        solid = image.convert("RGBA")
        behind = Image.new("RGBA", solid.size, "white")
        return Image.alpha_composite(behind, solid).convert("RGB")
    return image.convert("RGB")
