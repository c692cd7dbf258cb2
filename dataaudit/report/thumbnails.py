"""Small pictures of the flagged images, decoded once and kept by content."""

from __future__ import annotations

import base64
import io
import os
import threading
import warnings
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["LONG_SIDE", "Region", "Thumbnail", "crops", "sizes", "thumbnails", "upright"]

Region = tuple[int, int, int, int]

LONG_SIDE = 160
"""Length of a thumbnail's longer side in pixels; smaller images keep their size."""

_QUALITY = 82
_QUALITY_OF_TINY = 92
_TINY = 96
"""Up to this side a picture is scaled up where it is shown, and what the JPEG blurs is seen."""
_MAX_WORKERS = 8
_BATCH = 32
"""Files that a thread takes at once: handing one over costs as much as reading one."""
_SMALL_FILE = 8192
_PLAIN = {0xDB, 0xC0, 0xC2, 0xC4, 0xDD, 0xE0}
"""Segments of a JPEG that hold nothing but the picture: no EXIF, no comment, no colour profile."""
_ORIENTATION = 0x0112


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
    wanted: Iterable[tuple[str, str | None]], *, folder: Path | None = None, long_side: int = LONG_SIDE
) -> dict[str, Thumbnail]:
    """Thumbnails of images.

    Args:
        wanted: path of each image, and the digest of its content or None.
        folder: where thumbnails are kept by digest, so that the next report decodes nothing; made when
            needed.
        long_side: of a thumbnail, in pixels; smaller images keep their size.

    Returns:
        The thumbnail of each path that can be decoded; the others aren't in it.
    """
    whole = crops(((path, digest, None) for path, digest in wanted), folder=folder, long_side=long_side)
    return {path: thumbnail for (path, _), thumbnail in whole.items()}


def crops(
    wanted: Iterable[tuple[str, str | None, Region | None]],
    *,
    folder: Path | None = None,
    long_side: int = LONG_SIDE,
) -> dict[tuple[str, Region | None], Thumbnail]:
    """Parts of images, each image decoded once.

    Args:
        wanted: path of each image, the digest of its content or None, and the part, (x1, y1, x2, y2) in whole
            pixels of the image as shown; None for all of it.
        folder: where they are kept by digest and part; made when needed.
        long_side: of each, in pixels; smaller parts keep their size.

    Returns:
        By path and part; those that can't be decoded, or lie outside their image, aren't in it.
    """
    from PIL import Image

    Image.preinit()
    jobs: dict[tuple[str, str | None], list[Region | None]] = {}
    for path, digest, region in dict.fromkeys(wanted):
        jobs.setdefault((path, digest), []).append(region)
    if not jobs:
        return {}
    listed = list(jobs.items())
    batches = [listed[at : at + _BATCH] for at in range(0, len(listed), _BATCH)]
    workers = min(_MAX_WORKERS, (os.cpu_count() or 1) + 1, len(batches))
    # The filter belongs to the process, so it is set around the pool and not inside its threads.
    with warnings.catch_warnings(), ThreadPoolExecutor(workers) as pool:
        warnings.simplefilter("ignore")
        made = pool.map(lambda batch: _batch(batch, folder, long_side), batches)
        return {where: thumbnail for part in made for where, thumbnail in part.items()}


def _batch(
    jobs: Sequence[tuple[tuple[str, str | None], Sequence[Region | None]]],
    folder: Path | None,
    long_side: int,
) -> dict[tuple[str, Region | None], Thumbnail]:
    return {
        (path, region): thumbnail
        for (path, digest), regions in jobs
        for region, thumbnail in _parts(path, digest, regions, folder, long_side).items()
    }


def _parts(
    path: str, digest: str | None, regions: Sequence[Region | None], folder: Path | None, long_side: int
) -> dict[Region | None, Thumbnail]:
    found: dict[Region | None, Thumbnail] = {}
    files: dict[Region | None, Path] = {}
    whole = _as_it_is(path, long_side) if None in regions else None
    if whole is not None:
        found[None] = whole
    for region in regions:
        if folder is None or not digest or region in found:
            continue
        part = "" if region is None else f"-{'_'.join(map(str, region))}"
        files[region] = folder / digest[:2] / f"{digest[2:]}{part}-{long_side}.jpg"
        with suppress(OSError, ValueError):
            found[region] = _as_url(files[region].read_bytes())
    left = [region for region in regions if region not in found]
    try:
        contents = _small_jpegs(path, left, long_side) if left else {}
    except Exception:
        # Decoders raise whatever they like on damaged files; each of these files gets a placeholder.
        return found
    for region, content in contents.items():
        if region in files:
            _keep(files[region], content)
        found[region] = _as_url(content)
    return found


def _as_it_is(path: str, long_side: int) -> Thumbnail | None:
    """The file itself where it is a small JPEG that holds its picture alone: nothing is as fast or true."""
    try:
        if Path(path).stat().st_size > _SMALL_FILE:
            return None
        content = Path(path).read_bytes()
        if content[:2] != b"\xff\xd8" or content[-2:] != b"\xff\xd9":
            return None
        at = 2
        while content[at] == 0xFF and content[at + 1] in _PLAIN:
            if content[at + 1] in (0xC0, 0xC2) and content[at + 9] not in (1, 3):
                return None
            at += 2 + int.from_bytes(content[at + 2 : at + 4], "big")
        thumbnail = _as_url(content) if content[at : at + 2] == b"\xff\xda" else None
    except (OSError, ValueError, IndexError):
        return None
    return thumbnail if thumbnail and max(thumbnail.width, thumbnail.height) <= long_side else None


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


def _small_jpegs(path: str, regions: Sequence[Region | None], long_side: int) -> dict[Region | None, bytes]:
    from PIL import ImageOps

    from dataaudit.decode import open_image

    with open_image(path) as image:
        full = max(image.size)
        # Twice the size, so that the last step down still averages.
        wanted = 2 * long_side * max(full / (_long(region) or full) for region in regions)
        image.draft("RGB", (round(wanted), round(wanted)))
        upright: Image.Image = ImageOps.exif_transpose(image)
        scale = max(upright.size) / full
        made = {}
        for region in regions:
            part = upright
            if region is not None:
                x1, y1, x2, y2 = (round(scale * corner) for corner in region)
                x1, y1 = max(x1, 0), max(y1, 0)
                x2, y2 = min(max(x2, x1 + 1), upright.width), min(max(y2, y1 + 1), upright.height)
                if x1 >= x2 or y1 >= y2:
                    continue
                part = upright.crop((x1, y1, x2, y2))
            made[region] = _jpeg(part, long_side)
    return made


def _long(region: Region | None) -> int:
    return 0 if region is None else max(region[2] - region[0], region[3] - region[1])


def _jpeg(image: Image.Image, long_side: int) -> bytes:
    if max(image.size) > 4 * long_side and image.mode in ("RGB", "L", "RGBA"):
        image = image.reduce(max(1, max(image.size) // (2 * long_side)))
    image = _as_rgb(image)
    if image.mode == "RGB":
        image = image.copy()  # `thumbnail` changes its image, which may be that of other parts
    image.thumbnail((long_side, long_side))
    out = io.BytesIO()
    tiny = max(image.size) <= _TINY < long_side
    more: dict[str, Any] = {"quality": _QUALITY_OF_TINY, "subsampling": 0} if tiny else {"quality": _QUALITY}
    image.save(out, "JPEG", comment=b"", **more)
    return out.getvalue()


def upright(path: str) -> Image.Image:
    """An image in RGB and in full resolution, turned as its EXIF says.

    Raises:
        Exception: whatever the decoder raises on a damaged file.
    """
    from PIL import ImageOps

    from dataaudit.decode import open_image

    with open_image(path) as image:
        turned: Image.Image = ImageOps.exif_transpose(image)
        return _as_rgb(turned).copy()


def sizes(paths: Iterable[str]) -> dict[str, tuple[int, int]]:
    """Width and height of images in pixels as shown, from their headers; none of those that can't be read."""
    from dataaudit.decode import open_image

    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for path in dict.fromkeys(paths):
            try:
                with open_image(path) as image:
                    turned = image.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8)
                    found[path] = image.size[::-1] if turned else image.size
            except Exception:  # as above
                continue
    return found


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
