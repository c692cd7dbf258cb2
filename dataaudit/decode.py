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

import numpy as np
from PIL import Image, UnidentifiedImageError

__all__ = ["MAX_PIXELS", "PIXEL_PROPERTIES", "Decoded", "decode", "digest_of", "perceptual_hash"]

MAX_PIXELS = 2**28
PIXEL_PROPERTIES = ("brightness", "contrast", "saturation", "sharpness")
_ORIENTATION = 0x0112
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
    orientation = _orientation(opened)
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
        phash=perceptual_hash(image),
        thumbnail=image.convert("L").resize((16, 16), Image.Resampling.BOX).tobytes(),
        pixels=pixel_properties(image),
    )


def _orientation(opened: Image.Image) -> int:
    try:
        found = opened.getexif().get(_ORIENTATION, 1)
    except Exception:
        # Damaged EXIF, for which Pillow raises what it runs into, is no reason to lose the pixels.
        return 1
    return found if found in range(1, 9) else 1


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
        ``saturation``: mean difference between the highest and the lowest channel; ``sharpness``: mean
        absolute Laplacian.
    """
    small = image if max(image.size) <= 256 else image.reduce(-(-max(image.size) // 256))
    rgb = np.asarray(small, dtype=np.float32) / 255.0
    grey = rgb @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    inner = grey[1:-1, 1:-1]
    laplacian = np.abs(4 * inner - grey[:-2, 1:-1] - grey[2:, 1:-1] - grey[1:-1, :-2] - grey[1:-1, 2:])
    return {
        "brightness": min(float(grey.mean()), 1.0),
        "contrast": min(float(grey.std()) * 2, 1.0),
        "saturation": float((rgb.max(2) - rgb.min(2)).mean()),
        "sharpness": float(laplacian.mean()) / 4 if laplacian.size else 0.0,
    }
