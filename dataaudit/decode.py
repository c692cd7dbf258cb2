"""From the bytes of a file to an RGB image, or to the reason why there is none.

What is defined here, so that no image crashes an audit:
16-bit and float images are scaled to 8 bits; palette, grey and CMYK images are converted; transparent pixels
are laid over white; of an animation the first frame counts; EXIF rotation is applied; JPEGs far larger than
needed are decoded at a reduced scale; an image of more than 2 ** 28 pixels is not decoded.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from stat import S_ISREG
from typing import Any

import numpy as np
from PIL import Image, ImageChops, UnidentifiedImageError

__all__ = [
    "FILE_PROPERTIES",
    "MAX_PIXELS",
    "PIXEL_PROPERTIES",
    "Decoded",
    "decode",
    "digest_of",
    "open_image",
    "perceptual_hash",
]

MAX_PIXELS = 2**28
FILE_PROPERTIES = (
    "width",
    "height",
    "mode",
    "format",
    "frames",
    "orientation",
    "orientation_tag",
    "exif_width",
    "exif_height",
)
PIXEL_PROPERTIES = (
    "brightness",
    "contrast",
    "shadow",
    "highlight",
    "black_fraction",
    "white_fraction",
    "entropy",
    "saturation",
    "colour_fraction",
    "uniform_fraction",
    "warmth",
    "tint",
    "sharpness",
    "detail",
)
_LEVELS = np.arange(256) / 255.0
_NEAR_BLACK, _NEAR_WHITE, _COLOURED, _UNIFORM = 12, 243, 16, 8
_ORIENTATION, _EXIF, _EXIF_WIDTH, _EXIF_HEIGHT = 0x0112, 0x8769, 0xA002, 0xA003
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """One decoded file.

    Attributes:
        error: why it can't be decoded, or None.
        image: RGB, upright, perhaps at a reduced scale; None on an error.
        width, height: pixels of the upright image at its full scale; 0 when unknown.
        mode, format: as in the file, such as ``I;16`` and ``PNG``.
        frames: number of frames or pages.
        orientation: EXIF orientation, 1 to 8; 1 when there is none.
        orientation_tag: the number that the file gives as its orientation; 0 when there is none.
        exif_width, exif_height: size of the stored image by its EXIF, read where the orientation is a quarter
            turn; 0 when unknown.
        phash: 64 bits; images that look the same differ in few.
        thumbnail: 16 x 16 grey pixels, row by row.
        pixels: properties of the pixels, each a float in [0, 1].
    """

    error: str | None = None
    image: Image.Image | None = None
    width: int = 0
    height: int = 0
    mode: str = ""
    format: str = ""
    frames: int = 0
    orientation: int = 1
    orientation_tag: int = 0
    exif_width: int = 0
    exif_height: int = 0
    phash: int = 0
    thumbnail: bytes = bytes(256)
    pixels: Mapping[str, float] = field(default_factory=dict)

    def without_image(self) -> Decoded:
        """The same without the pixels."""
        return replace(self, image=None)


def digest_of(data: bytes) -> str:
    """MD5 of a file's bytes, the name that DVC gives its content.

    >>> digest_of(b"")
    'd41d8cd98f00b204e9800998ecf8427e'
    """
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def decode(data: bytes, *, size: int) -> Decoded:
    """Decode an image.

    Args:
        data: the file's bytes.
        size: pixels that its shorter side must keep, at least, when a JPEG is decoded at a reduced scale.
    """
    if not data:
        return Decoded(error="the file is empty (0 bytes)")
    try:
        # Pillow raises whatever its decoders run into: the file is what's wrong then.
        with Image.open(io.BytesIO(data)) as opened:
            return _decode_opened(opened, size)
    except Exception as error:
        return Decoded(error=_reason(error, data))


def open_image(path: str | Path) -> Image.Image:
    """Open an image file; anything else is refused, as reading a pipe or a device may never end.

    Raises:
        OSError: no file, or not to be read.
        Exception: whatever the decoder raises on a damaged file.
    """
    if not S_ISREG(Path(path).stat().st_mode):
        raise OSError(f"{path} is no file.")
    return Image.open(path)


def _decode_opened(opened: Image.Image, size: int) -> Decoded:
    width, height = opened.size
    known = Decoded(
        width=width,
        height=height,
        mode=opened.mode,
        format=opened.format or "",
        frames=getattr(opened, "n_frames", 1),
    )
    if width * height > MAX_PIXELS:
        return replace(known, error=f"{width} x {height} pixels are more than the limit of {MAX_PIXELS}")
    tag, exif_width, exif_height = _exif(opened)
    orientation = tag if tag in range(1, 9) else 1
    if opened.format == "JPEG" and min(width, height) >= 4 * size:
        opened.draft("RGB", (2 * size, 2 * size))
    opened.load()
    image = to_rgb(opened)
    if opened.format == "TIFF":
        # Pillow turns a TIFF by itself, when it loads it.
        width, height = image.size
    elif orientation in _UPRIGHT:
        image = image.transpose(_UPRIGHT[orientation])
        if orientation >= 5:
            width, height = height, width
    return replace(
        known,
        image=image,
        width=width,
        height=height,
        orientation=orientation,
        orientation_tag=tag,
        exif_width=exif_width,
        exif_height=exif_height,
        phash=perceptual_hash(image),
        thumbnail=image.convert("L").resize((16, 16), Image.Resampling.BOX).tobytes(),
        pixels=pixel_properties(image),
    )


def _exif(opened: Image.Image) -> tuple[int, int, int]:
    """Orientation, and the width and height that the EXIF gives a picture which is to be turned."""
    try:
        exif = opened.getexif()
        tag = _whole(exif.get(_ORIENTATION))
        # Most files need no turn, and are spared the reading of a second table.
        inner = exif.get_ifd(_EXIF) if 5 <= tag <= 8 else {}
        return tag, _whole(inner.get(_EXIF_WIDTH)), _whole(inner.get(_EXIF_HEIGHT))
    except Exception:
        # Damaged EXIF, for which Pillow raises what it runs into, is no reason to lose the pixels.
        return 0, 0, 0


def _whole(value: object) -> int:
    return value if isinstance(value, int) and 0 <= value < 2**32 else 0


def _reason(error: Exception, data: bytes) -> str:
    text = str(error).replace("\n", " ")
    if isinstance(error, UnidentifiedImageError):
        return f"not an image: its {len(data)} bytes begin with {data[:8]!r}"
    if "truncated" in text.lower() or "broken data stream" in text or isinstance(error, EOFError):
        return f"the image is cut off or damaged ({text or 'it ends too early'})"
    return f"can't be decoded ({type(error).__name__}: {text})"


def to_rgb(image: Image.Image) -> Image.Image:
    """An 8-bit RGB image of any image."""
    if image.mode == "RGB" and "transparency" not in image.info:
        # A copy would be a second decode's worth of memory; the loaded pixels outlive the file.
        return image
    if image.mode.startswith("I") or image.mode == "F":
        return _to_8_bits(image).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        above = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", above.size, "white"), above).convert("RGB")
    return image.convert("RGB")


def _to_8_bits(image: Image.Image) -> Image.Image:
    values = np.asarray(image).astype(np.float32)
    finite = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    highest = float(finite.max(initial=0.0))
    if image.mode == "F":
        full = 1.0 if highest <= 1.0 else 255.0 if highest <= 255.0 else max(highest, 65535.0)
    else:
        full = 255.0 if highest <= 255.0 and image.mode == "I" else max(highest, 65535.0)
    return Image.fromarray(np.clip(finite / full * 255.0, 0, 255).astype(np.uint8))


def perceptual_hash(image: Image.Image) -> int:
    """64 bits that images which look the same share, but for a few.

    The signs of the 64 lowest coefficients of the cosine transform of the 32 x 32 grey image against their
    median.

    Reference: Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions", 2010.
    """
    from scipy.fft import dctn

    grey = np.asarray(image.convert("L").resize((32, 32), Image.Resampling.BOX), dtype=np.float64)
    low = np.asarray(dctn(grey, type=2))[:8, :8].ravel()
    # Rounding errors must not tell two flat images apart.
    low[np.abs(low) < 1e-6] = 0.0
    bits = low > np.median(low[1:])
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def pixel_properties(image: Image.Image) -> dict[str, float]:
    """Properties of an RGB image, each in [0, 1], taken at no more than 256 pixels a side.

    Returns:
        ``brightness`` and ``contrast``: mean and twice the standard deviation of the luminance;
        ``shadow`` and ``highlight``: its 5th and 95th percentile;
        ``black_fraction`` and ``white_fraction``: share of pixels within 5 % of black and of white;
        ``entropy``: of the 256 grey levels, 1 where all are as frequent;
        ``saturation``: mean difference between the highest and the lowest channel;
        ``colour_fraction``: share of pixels where that difference is above 1/16;
        ``uniform_fraction``: share of pixels that 8 neighbouring levels hold, in the channel with the least;
        ``warmth`` and ``tint``: mean of red less that of blue, and of green less the mean of both; 0.5 where
        they are equal;
        ``sharpness``: mean absolute Laplacian;
        ``detail``: energy of the Laplacian as share of itself and the highest at a half, a quarter and an
        eighth of the scale, as far as 8 pixels are left there. In a photo every octave has about as much; in
        a blurred one the finest has next to none, whatever its size and contrast. 1 without any structure.

    Reference: Field, "Relations between the statistics of natural images and the response properties of
    cortical cells", JOSA A 1987, for the octaves.
    """
    small = image if max(image.size) <= 256 else image.reduce(-(-max(image.size) // 256))
    grey = small.convert("L")
    return {**_tones(grey), **_colours(small), **_structure(grey)}


def _tones(grey: Image.Image) -> dict[str, float]:
    shares = np.array(grey.histogram()) / (grey.width * grey.height)
    below = shares.cumsum()
    mean = float(shares @ _LEVELS)
    variance = float(shares @ (_LEVELS - mean) ** 2)
    there = shares[shares > 0]
    low, high = below.searchsorted([0.05, 0.95])
    return {
        "brightness": min(mean, 1.0),
        "contrast": min(2 * variance**0.5, 1.0),
        "shadow": float(_LEVELS[low]),
        "highlight": float(_LEVELS[high]),
        "black_fraction": min(float(below[_NEAR_BLACK]), 1.0),
        "white_fraction": min(max(float(1 - below[_NEAR_WHITE - 1]), 0.0), 1.0),
        "entropy": min(max(-float(there @ np.log2(there)) / 8, 0.0), 1.0),
    }


def _colours(small: Image.Image) -> dict[str, float]:
    red, green, blue = small.split()
    highest = ImageChops.lighter(ImageChops.lighter(red, green), blue)
    lowest = ImageChops.darker(ImageChops.darker(red, green), blue)
    n = small.width * small.height
    chroma = np.array(ImageChops.subtract(highest, lowest).histogram()) / n
    channels = np.array(small.histogram()).reshape(3, 256)
    below = np.zeros((3, 257))
    np.cumsum(channels, axis=1, out=below[:, 1:])
    together = (below[:, _UNIFORM:] - below[:, :-_UNIFORM]).max(1).min()
    mean = (channels @ _LEVELS / n).tolist()
    return {
        "saturation": min(float(chroma @ _LEVELS), 1.0),
        "colour_fraction": min(float(chroma[_COLOURED + 1 :].sum()), 1.0),
        "uniform_fraction": float(together) / n,
        "warmth": min(max(0.5 + (mean[0] - mean[2]) / 2, 0.0), 1.0),
        "tint": min(max(0.5 + (mean[1] - (mean[0] + mean[2]) / 2) / 2, 0.0), 1.0),
    }


def _structure(grey: Image.Image) -> dict[str, float]:
    laplacian = _laplacian(grey)
    finest = float(np.square(laplacian).mean()) if laplacian.size else 0.0
    coarser = 0.0
    for factor in (2, 4, 8):
        # Of a few pixels it would only be known whether there is a subject in the middle
        if min(grey.size) >= 8 * factor:
            coarser = max(coarser, float(np.square(_laplacian(grey.reduce(factor))).mean()))
    return {
        "sharpness": float(np.abs(laplacian).mean()) / (4 * 255) if laplacian.size else 0.0,
        "detail": finest / (finest + coarser) if finest + coarser else 1.0,
    }


def _laplacian(grey: Image.Image) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Empty for an image of less than three pixels a side."""
    values = np.asarray(grey, dtype=np.float32)
    inner = 4 * values[1:-1, 1:-1]
    for neighbour in (values[:-2, 1:-1], values[2:, 1:-1], values[1:-1, :-2], values[1:-1, 2:]):
        inner -= neighbour
    return inner
