"""Training's preprocessing against deployment's on real images, and the change that makes them equal."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from dataaudit.errors import FormatError, InputError
from dataaudit.modelcheck.deployment.recipes import Array, Recipe, apply, fit_affine, identify
from dataaudit.modelcheck.families import dep
from dataaudit.modelcheck.findings import finding
from dataaudit.registry import Rule
from dataaudit.types import Finding

__all__ = ["CODES", "Preprocessing", "Side", "preprocessing"]

CODES = tuple(f"DEP{number:03d}" for number in range(10, 18))
EQUAL = 2.0
"""Mean absolute difference in levels of 255 up to which results count as equal: decoders and rounding."""
SURE = 0.75
"""The same where both are known to resize in other ways."""
ORIENTATION_TAG = 0x0112
_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"}
_TURNS: dict[str, Callable[[Array], Array]] = {
    "mirrored": lambda x: x[:, :, ::-1], "upside down": lambda x: x[:, ::-1],
    "turned by 180 degrees": lambda x: x[:, ::-1, ::-1], "with height and width exchanged":
    lambda x: x.transpose(0, 2, 1), "turned left": lambda x: np.rot90(x, 1, (1, 2)),
    "turned right": lambda x: np.rot90(x, -1, (1, 2)),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Side:
    """What one preprocessing does.

    Attributes:
        takes: what the function takes: ``path``, ``PIL image``, ``RGB array``, ``image=RGB array``.
        layout: ``channels first``, ``channels last`` or ``grey``, and whether there is a batch axis.
        dtype: type of its result.
        recipe: the known steps that explain it best.
    """

    takes: str
    layout: str
    dtype: str
    recipe: Recipe


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """How two ways to prepare images compare.

    Attributes:
        training, deployment: what each does.
        levels: mean absolute difference in levels of 255, or None for results of different size.
        findings: what differs; what explains most comes first.
        n: how many images.
    """

    training: Side
    deployment: Side
    levels: float | None
    findings: tuple[Finding, ...]
    n: int


def preprocessing(
    training: Callable[..., Any], deployment: Callable[..., Any], files: Sequence[str | Path]
) -> Preprocessing:
    """Compare two functions that prepare images, and say which step differs.

    Args:
        training: takes the path of an image, a PIL image or an RGB array, and returns a tensor or an array;
            which of them is found by trying. An evaluation transform, without random augmentation.
        deployment: the same for what is deployed.
        files: images, as they come in deployment; a few with an EXIF orientation among them if there are.

    Returns:
        The steps of each, and findings DEP010 to DEP017, what explains most first.

    Raises:
        InputError: no image, or a function that takes none of the forms.
    """
    paths = [Path(file) for file in files]
    if not paths:
        raise InputError("There is no image to compare with.")
    runs = [
        _Run(function, name, paths) for function, name in ((training, "training"), (deployment, "deployment"))
    ]
    images = [Image.open(path) for path in paths]
    one, other = runs
    random = [run for run in runs if run.is_random]
    found = [_random(run) for run in random]
    mine = identify(images, one.arrays)
    theirs = identify(images, other.arrays, like=mine)
    same_size = one.arrays[0].shape == other.arrays[0].shape
    spread = float(np.std([np.asarray(image.convert("RGB").resize((64, 64))) for image in images])) or 1.0
    levels = _levels(one.arrays, other.arrays, spread) if same_size else None
    sides = [
        Side(takes=run.takes, layout=run.layout, dtype=run.dtype, recipe=recipe)
        for run, recipe in ((one, mine), (other, theirs))
    ]
    known = mine.is_known and theirs.is_known
    other_steps = (mine.upright, mine.region, mine.method) != (theirs.upright, theirs.region, theirs.method)
    differ = levels is None or levels > (SURE if known and other_steps else EQUAL)
    if differ and not random:
        found += _differences(images, one, other, mine, theirs, spread)
    found += _forms(one, other)
    return Preprocessing(
        training=sides[0], deployment=sides[1], levels=levels, findings=tuple(found), n=len(paths)
    )


class _Run:
    """The results of a user's function for some images."""

    def __init__(self, function: Callable[..., Any], name: str, paths: Sequence[Path]) -> None:
        self.name, self.function = name, function
        self.takes, first = self._tried(paths[0])
        results = [first, *(self._call(self.takes, path) for path in paths[1:])]
        again = self._call(self.takes, paths[0])
        self.is_random = not np.array_equal(np.asarray(again), np.asarray(first), equal_nan=True)
        self.dtype = str(first.dtype)
        forms = [_canonical(each) for each in results]
        self.layout = forms[0][1]
        self.arrays = [array for array, _ in forms]
        sizes = {array.shape for array in self.arrays}
        if len(sizes) > 1:
            raise InputError(
                f"The preprocessing of {name} gives images of different sizes: {sorted(sizes)[:3]}.",
                fix="Compare the functions that give what the model takes, in one size.",
            )

    def _tried(self, path: Path) -> tuple[str, Any]:
        said = []
        for takes in ("path", "PIL image", "RGB array", "image=RGB array"):
            try:
                return takes, self._call(takes, path)
            except Exception as error:
                said.append(f"{takes}: {type(error).__name__}: {(str(error).splitlines() or [''])[0][:120]}")
        raise InputError(
            f"The preprocessing of {self.name} takes neither a path nor an image. " + "; ".join(said)
        )

    def _call(self, takes: str, path: Path) -> Any:
        if takes == "path":
            out = self.function(str(path))
        else:
            image = Image.open(path).convert("RGB")
            given = image if takes == "PIL image" else np.asarray(image).copy()
            out = self.function(image=given)["image"] if takes.startswith("image=") else self.function(given)
        if isinstance(out, torch.Tensor):
            out = out.detach().cpu().numpy()
        array = np.asarray(out)
        if array.ndim not in (2, 3, 4) or array.dtype.kind not in "fiu":
            raise InputError(f"it returned {type(out).__name__} of {array.dtype} and {array.ndim} axes")
        return array


def _canonical(array: Any) -> tuple[Array, str]:
    """(c, h, w) float64 of a result, and how its axes were arranged."""
    batch = ""
    if array.ndim == 4:
        if len(array) != 1:
            raise InputError(f"The preprocessing returns a batch of {len(array)} for one image.")
        array, batch = array[0], ", with a batch axis"
    if array.ndim == 2:
        return np.asarray(array[None], dtype=np.float64), "grey" + batch
    if array.shape[0] not in (1, 3, 4) and array.shape[-1] in (1, 3, 4):
        return np.asarray(array.transpose(2, 0, 1), dtype=np.float64), "channels last" + batch
    return np.asarray(array, dtype=np.float64), "channels first" + batch


def _levels(one: Sequence[Array], other: Sequence[Array], spread: float) -> float:
    """Mean absolute difference in levels of 255, by how many levels the images themselves vary."""
    a, b = np.stack(one), np.stack(other)
    scale = float(a.std()) or 1.0
    return float(np.nanmean(np.abs(a - b))) / scale * spread


def _random(run: _Run) -> Finding:
    return finding(
        dep.PREPROCESSING_DIFFERENCE, f"{run.name} random",
        f"The preprocessing of {run.name} gives something else for the same image each time.",
        advice="Compare with the transform of evaluation, without random augmentation.",
    )  # fmt: skip


def _forms(one: _Run, other: _Run) -> list[Finding]:
    """DEP016: other axes or another type."""
    said = []
    if one.layout != other.layout:
        said.append(f"axes: {one.layout} in training, {other.layout} in deployment")
    kinds = [np.dtype(each.dtype).kind for each in (one, other)]
    if kinds[0] != kinds[1]:
        said.append(f"type: {one.dtype} in training, {other.dtype} in deployment")
    if not said:
        return []
    return [
        finding(
            dep.LAYOUT, "layout", "; ".join(said).capitalize() + ".",
            advice="Arrange axes and convert the type as the model expects, once.", score=0.5,
        )
    ]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class _Change:
    """A step in which two recipes differ."""

    rule: Rule
    where: str
    what: str
    advice: str
    parts: tuple[str, ...]


def _differences(
    images: Sequence[Image.Image], one: _Run, other: _Run, mine: Recipe, theirs: Recipe, spread: float
) -> list[Finding]:
    """A finding for each step that differs, what leaves least when it alone is mended first."""
    if one.arrays[0].shape == other.arrays[0].shape and not (mine.is_known and theirs.is_known):
        turned = _turned(one, other)
        if turned is not None:
            return [turned]
    if not (mine.is_known and theirs.is_known):
        return [_unknown(one, other, mine, theirs, spread)]
    changes = _changes(one, other, mine, theirs)
    ranked = sorted(
        ((_left(images, one, mine, theirs, change, spread), change) for change in changes),
        key=lambda pair: pair[0],
    )
    found = []
    for at, (left, change) in enumerate(ranked):
        alone = ""
        if left <= EQUAL and len(ranked) == 1:
            alone = " This alone makes both equal."
        elif math.isfinite(left):
            alone = f" With this alone mended {left:.1f} levels of 255 are left."
        found.append(
            finding(
                change.rule, change.where, change.what + alone, advice=change.advice,
                evidence={"left": left}, score=min(0.4, 0.1 * at),
            )
        )  # fmt: skip
    return found or [_unknown(one, other, mine, theirs, spread)]


def _left(
    images: Sequence[Image.Image], one: _Run, mine: Recipe, theirs: Recipe, change: _Change, spread: float
) -> float:
    """Levels that are left when deployment's recipe takes over one step of training's."""
    mended = dataclasses.replace(theirs, **{part: getattr(mine, part) for part in change.parts})
    _, height, width = one.arrays[0].shape
    made = [apply(mended, image, height, width) for image in images]
    if any(array is None or array.shape != one.arrays[0].shape for array in made):
        return math.inf
    return _levels(one.arrays, [array for array in made if array is not None], spread)


def _changes(one: _Run, other: _Run, mine: Recipe, theirs: Recipe) -> list[_Change]:
    changes = []
    if mine.upright != theirs.upright:
        who = ("training", "deployment") if mine.upright else ("deployment", "training")
        changes.append(_Change(
            rule=dep.ORIENTATION, where="EXIF orientation", parts=("upright",),
            what=f"{who[0].capitalize()} turns images upright by their EXIF orientation, {who[1]} doesn't.",
            advice=f"PIL.ImageOps.exif_transpose in {who[1]}; cv2.imread does it unless it is told not to.",
        ))  # fmt: skip
    sizes = [f"{array.shape[2]} x {array.shape[1]}" for array in (one.arrays[0], other.arrays[0])]
    if mine.region != theirs.region or sizes[0] != sizes[1]:
        changes.append(_Change(
            rule=dep.IMAGE_REGION, where="region", parts=("region",),
            what=f"Training takes {sizes[0]}, {mine.region}; deployment {sizes[1]}, {theirs.region}.",
            advice="Resize and crop in the same steps and sizes.",
        ))  # fmt: skip
    if mine.method != theirs.method:
        changes.append(_Change(
            rule=dep.RESIZE_METHOD, where="resize", parts=("method",),
            what=f"Training resizes like {mine.method}, deployment like {theirs.method}.",
            advice=_resize_advice(mine.method, theirs.method),
        ))  # fmt: skip
    reverse = mine.reverse != theirs.reverse
    if reverse:
        names = ["BGR" if recipe.reverse else "RGB" for recipe in (mine, theirs)]
        changes.append(_Change(
            rule=dep.COLOUR_ORDER, where="colour order", parts=("reverse",),
            what=f"Training gives {names[0]}, deployment {names[1]}.",
            advice="cv2.cvtColor(image, cv2.COLOR_BGR2RGB) after cv2.imread, on the side that lacks it.",
        ))  # fmt: skip
    scaling = _scaling(mine, theirs, reverse)
    return changes if scaling is None else [*changes, scaling]


def _resize_advice(mine: str, theirs: str) -> str:
    if "without antialias" in theirs and "without" not in mine:
        return "Antialias in deployment: PIL, cv2.INTER_AREA, or interpolate(..., antialias=True)."
    if "without antialias" in mine and "without" not in theirs:
        return "Train with antialias=True as well, or resize in deployment with the library of training."
    return "Resize with the same library and interpolation on both sides."


def _scaling(mine: Recipe, theirs: Recipe, reverse: bool) -> _Change | None:
    """Another range or normalisation; with colours in another order, neither by place nor by colour."""
    orders = [theirs] if not reverse else [
        theirs, dataclasses.replace(theirs, slope=theirs.slope[::-1], shift=theirs.shift[::-1])]  # fmt: skip
    if any(_scaled_alike(mine, each) for each in orders):
        return None
    said = f"Training scales to {mine.scaling}; deployment to {theirs.scaling}."
    backwards = dataclasses.replace(theirs, slope=theirs.slope[::-1], shift=theirs.shift[::-1])
    if not reverse and _scaled_alike(mine, backwards):
        said += " The figures are the same in the reverse order."
    ranges = [recipe.is_range for recipe in (mine, theirs)]
    a, b = np.array(mine.slope), np.array(theirs.slope[: len(mine.slope)])
    ratio = a / b if len(a) == len(b) else np.ones(1)
    shift = np.array(mine.shift) - np.array(theirs.shift) * ratio if len(a) == len(b) else np.ones(1)
    same_shift = len(a) == len(b) and np.abs(np.array(mine.shift) - np.array(theirs.shift)).max() <= 0.05
    even = np.ptp(shift) <= 0.02 * max(1.0, np.abs(shift).max())
    uniform = np.ptp(ratio) <= 0.01 * abs(ratio[0]) and (even or same_shift)
    if all(ranges):
        rule, where, advice = dep.VALUE_RANGE, "value range", "Scale to the same range on both sides."
    elif uniform:
        rule, where = dep.VALUE_RANGE, "value range"
        advice = "Divide by 255 once before mean and deviation are used."
    else:
        rule, where = dep.NORMALISATION, "normalisation"
        advice = "Use the mean and deviation of training in deployment."
    return _Change(rule=rule, where=where, what=said, advice=advice, parts=("slope", "shift"))


def _scaled_alike(mine: Recipe, theirs: Recipe) -> bool:
    if len(mine.slope) != len(theirs.slope):
        return False
    a, b = np.array(mine.slope), np.array(theirs.slope)
    shift = np.abs(np.array(mine.shift) - np.array(theirs.shift))
    return bool((np.abs(a / b - 1) < 0.03).all() and (shift <= 3.0 * np.abs(a)).all())


def _turned(one: _Run, other: _Run) -> Finding | None:
    """DEP015: one result is the other mirrored or turned."""
    start = fit_affine([array.transpose(1, 2, 0) for array in one.arrays], other.arrays)[2]
    for name, turn in _TURNS.items():
        arrays = [turn(array) for array in one.arrays]
        if arrays[0].shape != other.arrays[0].shape:
            continue
        slope, _, left = fit_affine([array.transpose(1, 2, 0) for array in arrays], other.arrays)
        # What is left is in units of training's result, as is its spread
        if (
            left < 0.1 * float(np.std(one.arrays))
            and left < 0.3 * start
            and all(value > 0 for value in slope)
        ):
            return finding(
                dep.ORIENTATION, "orientation", f"Deployment's images are {name}, against training's.",
                advice="Leave out the flip or transpose, or do it on both sides: arrays are (height, width), "
                "sizes of PIL and OpenCV (width, height).",
                evidence={"left": left},
            )  # fmt: skip
    return None


def _unknown(one: _Run, other: _Run, mine: Recipe, theirs: Recipe, spread: float) -> Finding:
    if one.arrays[0].shape != other.arrays[0].shape:
        sizes = [" x ".join(str(side) for side in array.shape) for array in (one.arrays[0], other.arrays[0])]
        what = f"Training gives {sizes[0]}, deployment {sizes[1]}."
        return finding(
            dep.IMAGE_REGION, "region", what, advice="Resize and crop to the same size on both sides."
        )
    strange = [name for name, recipe in (("training", mine), ("deployment", theirs)) if not recipe.is_known]
    levels = _levels(one.arrays, other.arrays, spread)
    return finding(
        dep.PREPROCESSING_DIFFERENCE, "preprocessing",
        f"Results differ by {levels:.1f} levels of 255 on average; no known steps explain "
        f"{' and '.join(strange) or 'the rest'}.",
        advice="Save both results as images and look at them; leave out steps one by one.",
        evidence={"levels": levels, "left": [mine.left, theirs.left]},
    )  # fmt: skip


def some_files(path: str | Path, n: int) -> list[Path]:
    """Some images of a dataset, up to two with an EXIF orientation among them.

    Raises:
        InputError: none can be read.
    """
    from dataaudit import formats

    try:
        files = [Path(file) for file in formats.read(path).images["filepath"]]
    except FormatError:
        if not Path(path).is_dir():
            raise
        files = sorted(file for file in Path(path).rglob("*") if file.suffix.lower() in _SUFFIXES)
        if not files:
            raise
    step = max(1, len(files) // 500)
    plain: list[Path] = []
    turned: list[Path] = []
    for file in files[::step]:
        try:
            with Image.open(file) as image:
                tag = image.getexif().get(ORIENTATION_TAG, 1)
        except (OSError, ValueError):
            continue
        (plain if tag in (0, 1) else turned).append(file)
    chosen = turned[:2] + plain[:: max(1, len(plain) // n)]
    if not chosen:
        raise InputError("There is no image that can be read.", where=path)
    return chosen[:n] if n > 1 or not turned else turned[:1]
