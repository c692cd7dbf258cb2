"""Known ways to prepare an image, simulated: which of them does a function of the user follow?

A recipe turns the pixels of a file into what the model is given: turn upright, take a region in a size, with
an interpolation, order the colours, scale and shift each channel.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from PIL import Image, ImageOps

__all__ = ["METHODS", "Recipe", "Region", "apply", "fit_affine", "identify", "regions"]

Array: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]

METHODS = {
    "PIL bilinear, antialias": Image.Resampling.BILINEAR, "PIL bicubic, antialias": Image.Resampling.BICUBIC,
    "PIL Lanczos, antialias": Image.Resampling.LANCZOS, "PIL box": Image.Resampling.BOX,
    "PIL Hamming, antialias": Image.Resampling.HAMMING, "nearest": Image.Resampling.NEAREST,
    "bilinear without antialias (OpenCV INTER_LINEAR, torch)": "bilinear",
    "bicubic without antialias (OpenCV INTER_CUBIC, torch)": "bicubic",
    "area (OpenCV INTER_AREA)": "area",
}  # fmt: skip
CLOSE = 0.4
"""Levels by which a recipe may fit worse and still be the same: rounding, another decoder."""
_SIDES = 64
KNOWN = 4.0
"""Levels of 255 (root mean square) up to which a recipe is the one that was followed."""


@dataclass(frozen=True, kw_only=True)
class Region:
    """What part of an image is taken, in what size.

    Attributes:
        kind: ``squeeze`` to the size, ``cover`` (shorter side to `side`, then the centre), ``crop`` (the
            centre as it is), ``letterbox`` (longer side to the size, the rest is filled).
        side: length of the shorter side before the crop, of ``cover``.
        down: whether an odd rest is rounded down.
        corner: whether a letterbox begins in the upper left corner.
    """

    kind: str
    side: int = 0
    down: bool = False
    corner: bool = False

    def __str__(self) -> str:
        if self.kind == "cover":
            off = ", crop rounded down" if self.down else ""
            return f"shorter side to {self.side}, centre crop{off}"
        if self.kind == "letterbox":
            return "letterbox " + ("in the corner" if self.corner else "in the middle")
        return {"squeeze": "squeezed to the size", "crop": "centre crop without resize"}[self.kind]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How an image is prepared.

    Attributes:
        upright: whether the EXIF orientation is applied.
        region: what part, in what size.
        method: of the interpolation, a key of `METHODS`.
        reverse: whether channels are BGR.
        slope: (c,) factor of each channel, from levels 0 to 255.
        shift: (c,) added to each channel.
        left: root mean square that the recipe doesn't explain, in levels.
    """

    upright: bool
    region: Region
    method: str
    reverse: bool
    slope: tuple[float, ...]
    shift: tuple[float, ...]
    left: float

    @property
    def is_known(self) -> bool:
        """Whether the recipe explains what was seen."""
        return self.left <= KNOWN

    @property
    def is_range(self) -> bool:
        """Whether all channels are scaled alike."""
        return bool(np.ptp(self.slope) <= 0.01 * abs(self.slope[0]) and np.ptp(self.shift) <= 0.02)

    @property
    def scaling(self) -> str:
        """``mean (0.485, 0.456, 0.406), deviation (0.229, 0.224, 0.225) of 0 to 1``, or a range."""
        if self.is_range:
            low, high = self.shift[0], self.shift[0] + 255 * self.slope[0]
            if abs(low) <= 0.01:
                return f"0 to {high:.3g}"
            span = high - low
            return f"{low:.3g} to {high:.3g} (mean {-low / span:.3g}, deviation {1 / span:.3g} of 0 to 1)"
        mean = ", ".join(f"{-b / a / 255:.3f}" for a, b in zip(self.slope, self.shift, strict=True))
        deviation = ", ".join(f"{1 / a / 255:.3f}" for a in self.slope)
        return f"mean ({mean}), deviation ({deviation}) of 0 to 1"


def regions(height: int, width: int) -> list[Region]:
    """The regions that are tried for an output of this size."""
    short = min(height, width)
    sides = dict.fromkeys(
        round(short * share)
        for share in (1, 8 / 7, 1 / 0.875, 232 / 224, 236 / 224, 1 / 0.9, 1 / 0.95, 342 / 299, 1.25, 1.5)
    )
    sides[short + 32] = None
    found = [Region(kind="squeeze")]
    found += [Region(kind="cover", side=side, down=down) for side in sides for down in (False, True)]
    found += [Region(kind="letterbox", down=down) for down in (False, True)]
    found += [Region(kind="letterbox", corner=True), Region(kind="crop")]
    return found


def resized(image: Image.Image, width: int, height: int, method: str) -> Array:
    """(height, width, 3) levels of an image in another size."""
    how: Any = METHODS[method]
    if (width, height) == image.size:
        return np.asarray(image, dtype=np.float64)
    if isinstance(how, Image.Resampling):
        return np.asarray(image.resize((width, height), how), dtype=np.float64)
    pixels = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)[None].float()
    options: dict[str, Any] = {} if how == "area" else {"align_corners": False, "antialias": False}
    done = torch.nn.functional.interpolate(pixels, (height, width), mode=how, **options)
    return done[0].permute(1, 2, 0).clamp(0, 255).double().numpy()


def taken(image: Image.Image, region: Region, method: str, height: int, width: int) -> Array | None:
    """(height, width, 3) levels of a region, NaN where a letterbox is filled; None where it doesn't fit."""
    if region.kind == "squeeze":
        return resized(image, width, height, method)
    if region.kind == "letterbox":
        scale = min(height / image.height, width / image.width)
        size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
        out = np.full((height, width, 3), math.nan)
        rest = (0, 0) if region.corner else (width - size[0], height - size[1])
        left, top = (one // 2 if region.down else round(one / 2) for one in rest)
        out[top : top + size[1], left : left + size[0]] = resized(image, *size, method)
        return out
    pixels = np.asarray(image, dtype=np.float64)
    if region.kind == "cover":
        short = min(image.size)
        size = (int(region.side * image.width / short), int(region.side * image.height / short))
        if size[0] < width or size[1] < height:
            return None
        pixels = resized(image, *size, method)
    rest = pixels.shape[0] - height, pixels.shape[1] - width
    if min(rest) < 0 or (region.down and not any(one % 2 for one in rest)):
        return None
    top, left = (one // 2 if region.down else round(one / 2) for one in rest)
    return pixels[top : top + height, left : left + width]


def fit_affine(
    pixels: Sequence[Array], outputs: Sequence[Array]
) -> tuple[tuple[float, ...], tuple[float, ...], float]:
    """Factor and shift of each channel that make `pixels` (h, w, c) the `outputs` (c, h, w).

    Returns:
        (c,) factors, (c,) shifts, and the root mean square of the rest in levels; NaN pixels don't count.
    """
    slopes, shifts, rest, n = [], [], 0.0, 0
    for channel in range(len(outputs[0])):
        x = np.concatenate([one[..., channel % one.shape[2]].ravel() for one in pixels])
        y = np.concatenate([one[channel].ravel() for one in outputs])
        known = np.isfinite(x) & np.isfinite(y)
        x, y = x[known], y[known]
        spread = float(x.var()) if len(x) else 0.0
        slope = float(((x - x.mean()) * (y - y.mean())).mean() / spread) if spread > 0 else 0.0
        shift = float(y.mean() - slope * x.mean()) if len(x) else 0.0
        slopes.append(slope)
        shifts.append(shift)
        error = y - slope * x - shift
        rest += float((error**2).sum()) / slope**2 if slope else math.inf
        n += len(x)
    return tuple(slopes), tuple(shifts), math.sqrt(rest / n) if n else math.inf


def apply(recipe: Recipe, image: Image.Image, height: int, width: int) -> Array | None:
    """(c, height, width) that a recipe makes of an image; NaN where a letterbox is filled."""
    upright = ImageOps.exif_transpose(image) if recipe.upright else image
    pixels = taken(upright.convert("RGB"), recipe.region, recipe.method, height, width)
    if pixels is None:
        return None
    ordered = pixels[..., ::-1] if recipe.reverse else pixels
    scaled = ordered[..., : len(recipe.slope)] * np.array(recipe.slope) + np.array(recipe.shift)
    return np.ascontiguousarray(scaled.transpose(2, 0, 1))


def identify(
    images: Sequence[Image.Image], outputs: Sequence[Array], *, like: Recipe | None = None
) -> Recipe:
    """The recipe that explains the outputs best.

    Args:
        images: as they are stored, not turned.
        outputs: (c, h, w) of each, all of one size.
        like: a recipe that is taken over as far as it explains them as well.

    Returns:
        The best; its `left` says whether it is the one.
    """
    _, height, width = outputs[0].shape
    turned = any(image.getexif().get(0x0112, 1) not in (0, 1) for image in images)
    few = min(2, len(images))
    trials: dict[tuple[bool, Region], Recipe] = {}
    for upright in (False, True) if turned else (False,):
        for region in regions(height, width):
            n = len(images) if turned else few
            for recipe in _tried(images[:n], outputs[:n], upright, region, next(iter(METHODS))):
                known = trials.get((upright, region))
                if known is None or recipe.left < known.left - CLOSE / 4:
                    trials[upright, region] = recipe
    if min((one.left for one in trials.values()), default=math.inf) > KNOWN:
        trials |= _other_sides(images[:few], outputs[:few], turned=turned)
    best = sorted(trials.items(), key=lambda pair: pair[1].left)[:4]
    places = [place for place, _ in best]
    if like is not None and (like.upright, like.region) not in places:
        places.append((like.upright, like.region))
    found = [
        recipe
        for upright, region in places
        for method in METHODS
        for recipe in _tried(images, outputs, upright, region, method)
    ]
    if not found:
        plain = Region(kind="squeeze")
        return Recipe(upright=False, region=plain, method=next(iter(METHODS)), reverse=False,
                      slope=(1.0,), shift=(0.0,), left=math.inf)  # fmt: skip
    least = min(one.left for one in found)
    near = [one for one in found if one.left <= least + CLOSE]
    if like is None:
        return min(near, key=lambda one: one.left)
    return min(near, key=lambda one: (_apart(one, like), one.left))


def _other_sides(
    images: Sequence[Image.Image], outputs: Sequence[Array], *, turned: bool
) -> dict[tuple[bool, Region], Recipe]:
    """The best sides of a resize before the centre crop, when it is none of the usual ones."""
    _, height, width = outputs[0].shape
    short = min(height, width)
    step = max(1, round(short / _SIDES))
    found: dict[tuple[bool, Region], Recipe] = {}

    def best(upright: bool, sides: Sequence[int]) -> Recipe | None:
        tried = [
            recipe
            for side in sides
            for down in (False, True)
            for recipe in _tried(
                images, outputs, upright, Region(kind="cover", side=side, down=down), next(iter(METHODS))
            )
        ]
        return min(tried, key=lambda one: one.left, default=None)

    for upright in (False, True) if turned else (False,):
        coarse = best(upright, range(short, 2 * short + 1, step))
        if coarse is None:
            continue
        near = range(max(short, coarse.region.side - step), coarse.region.side + step + 1)
        fine = best(upright, near) if step > 1 else coarse
        assert fine is not None
        found[upright, fine.region] = fine
    return found


def _apart(one: Recipe, other: Recipe) -> int:
    return sum(
        (one.upright != other.upright, one.region != other.region, one.method != other.method,
         one.reverse != other.reverse)
    )  # fmt: skip


def _tried(
    images: Sequence[Image.Image], outputs: Sequence[Array], upright: bool, region: Region, method: str
) -> Iterator[Recipe]:
    _, height, width = outputs[0].shape
    pixels = []
    for image in images:
        straight = ImageOps.exif_transpose(image) if upright else image
        got = taken(straight.convert("RGB"), region, method, height, width)
        if got is None and not region.down:
            return
        # An even rest has no two ways to round
        got = taken(straight.convert("RGB"), _up(region), method, height, width) if got is None else got
        if got is None:
            return
        pixels.append(got)
    for reverse in (False, True):
        given = [one[..., ::-1] for one in pixels] if reverse else pixels
        slope, shift, left = fit_affine(given, outputs)
        if all(slope):
            yield Recipe(upright=upright, region=region, method=method, reverse=reverse, slope=slope,
                         shift=shift, left=left)  # fmt: skip


def _up(region: Region) -> Region:
    return Region(kind=region.kind, side=region.side, corner=region.corner)
