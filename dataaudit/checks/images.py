"""IMG: image files and their properties.

Most of these checks ask two things, and flag only what fails both: does the image look wrong by itself, and
is it unlike the other images of its dataset? So a dataset taken at night isn't dark throughout, and a clean
one has nothing to show. Their score is 1 / (1 + excess), where the excess is 1 at the threshold: below 0.5 is
flagged.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from dataaudit.checks.groups import one_a_sample, removal
from dataaudit.errors import Unavailable
from dataaudit.registry import check
from dataaudit.types import Fix, Outcome

__all__ = [
    "blurry_image",
    "bright_image",
    "dark_image",
    "low_information",
    "near_constant",
    "odd_aspect_ratio",
    "odd_colour",
    "odd_size",
    "orientation_depends_on_reader",
    "undecodable_image",
    "wrong_orientation",
]

Floats = np.ndarray[Any, np.dtype[np.float64]]

_QUARTILE = 0.6745  # of the normal distribution, in standard deviations
_LEVEL = 1 / 255
_FINEST = 1e-4


@check("IMG001", level="image")
def undecodable_image(images: pd.DataFrame, labels: pd.DataFrame, image_errors: pd.Series[str]) -> Outcome:
    """The file can't be decoded: it is missing, empty, cut off, damaged, too large or not an image.

    Scoring: 0 for such a file, 1 for all others.

    Flagged: every such file, with the reason.

    Fix: drop the sample.
    """
    failed = images.index.isin(image_errors.index)
    score = pd.Series(1.0, index=images.index).where(~failed, 0.0)
    reasons = image_errors.loc[images.index[failed]]
    evidence = pd.DataFrame(
        {"message": [f"{reason[0].upper()}{reason[1:]}." for reason in reasons]}, index=reasons.index
    )
    return Outcome(
        score=score,
        flagged=pd.Series(failed, index=images.index),
        probability=1 - score,
        evidence=evidence,
        fixes=_drops(images.index[failed], labels),
    )


@check("IMG002", level="image")
def dark_image(
    image_properties: pd.DataFrame, *, max_highlight: float = 0.22, n_deviations: float = 4.0
) -> Outcome:
    """The image is so dark that little can be seen on it.

    Scoring: how far the 95th percentile of the luminance lies below `max_highlight`, and below what is usual
    in the dataset, whichever is less.

    Flagged: images whose 95th percentile is below `max_highlight`, and `n_deviations` below the dataset's
    median on a logarithmic scale; the deviation is that of the darker half. Images without any content are
    `IMG009`'s.

    Fix: look at it; such an image may well belong to the data. None is proposed.
    """
    known = _known(image_properties)
    excess = _darkness(known, max_highlight, n_deviations)
    usual = known["highlight"].median()
    values = known["highlight"][excess > 1]
    messages = [
        f"Dark: 95% of its pixels are below {value:.0%} of full brightness; {usual:.0%} is usual here."
        for value in values
    ]
    return _outcome(known, excess, messages, highlight=values)


@check("IMG003", level="image")
def bright_image(
    image_properties: pd.DataFrame,
    *,
    min_brightness: float = 0.88,
    min_shadow: float = 0.35,
    n_deviations: float = 4.0,
) -> Outcome:
    """The image is so bright that little can be seen on it.

    Scoring: how far mean and 5th percentile of the luminance lie above their thresholds, and the mean above
    what is usual in the dataset, whichever is least.

    Flagged: images with a mean above `min_brightness`, a 5th percentile above `min_shadow`, and a mean
    that is `n_deviations` nearer to white than the dataset's median, on a logarithmic scale; the deviation is
    that of the brighter half. A picture cut out on white paper can look like an overexposed one. Images
    without any content are `IMG009`'s.

    Fix: none; look at it and drop it if it shows nothing of use.
    """
    known = _known(image_properties)
    excess = _brightness(known, min_brightness, min_shadow, n_deviations)
    usual = known["brightness"].median()
    values = known["brightness"][excess > 1]
    white = known["white_fraction"][excess > 1]
    messages = [
        f"Bright: its mean is {value:.0%} of full brightness, {usual:.0%} is usual here; "
        f"{share:.0%} of its pixels are nearly white."
        for value, share in zip(values, white, strict=True)
    ]
    return _outcome(known, excess, messages, brightness=values)


@check("IMG004", level="image")
def blurry_image(
    image_properties: pd.DataFrame, *, max_detail: float = 0.03, n_deviations: float = 4.0
) -> Outcome:
    """The image is blurry: it has no fine detail.

    Scoring: the energy of the finest structure, at 256 pixels a side, against the energy at coarser scales.
    In photos every octave has about as much, whatever the subject, contrast or size; the score says how far
    it lies below `max_detail`, and below what is usual in the dataset, whichever is less.

    Flagged: images with less detail than `max_detail`, and `n_deviations` less than the dataset's median on a
    logarithmic scale; the deviation is that of the blurrier half. The strongest edges count most, so that a
    sharp subject before a blurred background is none. Images without any content are `IMG009`'s.

    Reference: Field, "Relations between the statistics of natural images and the response properties of
    cortical cells", JOSA A 1987.

    Fix: none; look at it and drop it if it shows nothing of use.
    """
    known = _known(image_properties)
    detail = known["detail"].to_numpy()
    own = max_detail / np.maximum(detail, _FINEST)
    among = _below_median(np.log(np.maximum(detail, _FINEST)), least=0.25) / n_deviations
    excess = np.where(_plain(known), 0.0, _both(own, among))
    usual = known["detail"].median()
    values = known["detail"][excess > 1]
    messages = [
        f"Blurry: its finest structure has {value:.1%} of the energy that coarser ones have; "
        f"{usual:.0%} is usual here."
        for value in values
    ]
    return _outcome(known, excess, messages, detail=values)


@check("IMG005", level="image")
def low_information(
    image_properties: pd.DataFrame, *, max_bits: float = 3.6, n_deviations: float = 4.0
) -> Outcome:
    """The image holds little information: a few grey levels make up most of it.

    Scoring: how far the entropy of the 256 grey levels lies below `max_bits` (of 8), and below what is usual
    in the dataset, whichever is less.

    Flagged: images with less than `max_bits`, and `n_deviations` less than the dataset's median; the
    deviation is that of the lower half. Images that `IMG002`, `IMG003` or `IMG009` flag by their defaults are
    theirs.

    Fix: none; look at it and drop it if it shows nothing of use.
    """
    known = _known(image_properties)
    bits = 8 * known["entropy"].to_numpy()
    own = max_bits / np.maximum(bits, 0.01)
    among = _below_median(bits, least=0.4) / n_deviations
    others = _plain(known) | (_darkness(known) > 1) | (_brightness(known) > 1)
    excess = np.where(others, 0.0, _both(own, among))
    values = pd.Series(bits, index=known.index)[excess > 1]
    messages = [
        f"Little information: its grey levels hold {value:.1f} bits; {np.median(bits):.1f} are usual here."
        for value in values
    ]
    return _outcome(known, excess, messages, bits=values)


@check("IMG006", level="image")
def odd_size(
    image_properties: pd.DataFrame, *, min_factor: float = 3.0, max_fraction: float = 0.05
) -> Outcome:
    """The image is far smaller or larger than the others.

    Scoring: how far its side (the square root of its area) is from the nearest one that is common, on a
    logarithmic scale. Common is a side that `max_fraction` of the images share, within a factor of 1.5: there
    may be several, or a broad range.

    Flagged: images whose side differs by `min_factor` from every common one; and, where all but
    `max_fraction` of the images have the very same size, those that have another (0.4 at most), unless
    `IMG007` flags them by its defaults.

    Fix: none; look at it, such an image often comes from another source.
    """
    known = _known(image_properties)
    side = np.sqrt(known["width"].to_numpy(dtype=float) * known["height"].to_numpy(dtype=float))
    excess, nearest = _from_common(side, within=1.5, min_factor=min_factor, max_fraction=max_fraction)
    sizes = known["width"].astype(str) + " x " + known["height"].astype(str)
    counts = sizes.value_counts()
    same = len(known) >= 20 and counts.iloc[0] > (1 - max_fraction) * len(known)
    if same:
        plain = (sizes == counts.index[0]) | (_elongation(known)[0] > 1)
        excess = np.where(plain, excess, np.maximum(excess, 1.5))
    messages = []
    for row in np.flatnonzero(excess > 1):
        factor = max(side[row] / nearest[row], nearest[row] / side[row])
        than = "smaller" if side[row] < nearest[row] else "larger"
        how = f"a side {factor:.1f} times {than} than the nearest common one"
        if same:
            how = f"where {counts.iloc[0] / len(known):.1%} of the images have {counts.index[0]}"
        messages.append(f"Odd size: {sizes.iloc[row]} pixels, {how}.")
    return _outcome(known, excess, messages)


@check("IMG007", level="image")
def odd_aspect_ratio(
    image_properties: pd.DataFrame, *, min_factor: float = 2.0, max_fraction: float = 0.05
) -> Outcome:
    """The image is far longer or wider than the others.

    Scoring: how far the ratio of its longer to its shorter side is from the nearest one that is common, on a
    logarithmic scale. Common is a ratio that `max_fraction` of the images share, within a factor of 1.15.
    Upright and lying images count as the same.

    Flagged: images whose ratio differs by `min_factor` from every common one.

    Fix: none; look at it, such an image is often a strip or a collage.
    """
    known = _known(image_properties)
    excess, ratio, nearest = _elongation(known, min_factor, max_fraction)
    sides = known[["width", "height"]].to_numpy()
    messages = [
        f"Odd aspect ratio: {sides[row, 0]} x {sides[row, 1]} pixels are {ratio[row]:.1f} to 1; "
        f"the nearest common ratio is {nearest[row]:.1f} to 1."
        for row in np.flatnonzero(excess > 1)
    ]
    return _outcome(known, excess, messages)


@check("IMG008", level="image")
def odd_colour(
    image_properties: pd.DataFrame, *, max_fraction: float = 0.1, max_saturation: float = 0.004
) -> Outcome:
    """The image is grey among colour images, or in colour among grey ones.

    Scoring: half the share that its kind has in the dataset, over `max_fraction`; 1 for all others. Grey is
    what the pixels are, not what the file says: grey JPEGs are often stored with three channels.

    Flagged: the grey images, or those in colour, where they are less than `max_fraction` of the dataset. Grey
    is an image whose channels differ by `max_saturation` at most, in the mean and of 1: about the rounding of
    a JPEG, so a photo of a grey scene is in colour. Images that `IMG002` or `IMG009` flag by their defaults
    are theirs.

    Fix: none; make all images grey, or look for where the odd ones come from.
    """
    known = _known(image_properties)
    seen = ~_plain(known) & (_darkness(known) <= 1)
    grey = (known["saturation"] <= max_saturation).to_numpy(dtype=bool)
    share = float(grey[seen].mean()) if seen.any() else 0.0
    excess = np.zeros(len(known))
    for kind, fraction in ((grey & seen, share), (~grey & seen, 1 - share)):
        if 0 < fraction < max_fraction:
            excess[kind] = 2 * max_fraction / fraction - 1
    messages = []
    for row in np.flatnonzero(excess > 1):
        here, there, fraction = ("Grey", "colour", 1 - share) if grey[row] else ("In colour", "grey", share)
        messages.append(
            f"{here}, stored as {known['mode'].iloc[row]}; {fraction:.1%} of the images are {there}."
        )
    return _outcome(known, excess, messages)


@check("IMG009", level="image")
def near_constant(
    image_properties: pd.DataFrame,
    labels: pd.DataFrame,
    *,
    max_content: float = 0.005,
    n_deviations: float = 4.0,
) -> Outcome:
    """The image is empty: nearly all of its pixels have the same colour.

    Scoring: the share of pixels outside 8 neighbouring levels, in the channel with the most, against
    `max_content`, and against what is usual in the dataset, whichever is less.

    Flagged: images where that share is below `max_content`, and `n_deviations` below the dataset's median on
    a logarithmic scale, the deviation being that of the emptier half; and images of one colour, whatever the
    others are like.

    Fix: drop the sample.
    """
    known = _known(image_properties)
    content = np.maximum(1 - known["uniform_fraction"].to_numpy(), 0.0)
    own = max_content / np.maximum(content, _FINEST)
    among = _below_median(np.log(content + _FINEST), least=0.25) / n_deviations
    excess = np.where(content < _FINEST, own, _both(own, among))
    values = known["uniform_fraction"][excess > 1]
    messages = [
        f"Empty: {'all' if value > 1 - _FINEST else f'{value:.1%}'} of its pixels have nearly one colour."
        for value in values
    ]
    return _outcome(known, excess, messages, fixes=_drops(values.index, labels), uniform_fraction=values)


@check("IMG010", level="image")
def wrong_orientation(image_properties: pd.DataFrame) -> Outcome:
    """The orientation in the EXIF is wrong: the image is turned twice, or the number means nothing.

    Scoring: 0.2 for an image that seems to be turned twice, 0.4 for a number above 8, 1 for all others.

    Flagged: images whose EXIF asks for a quarter turn, although the pixels are stored at the size that the
    EXIF gives, width and height exchanged: a program has turned them and left the EXIF as it was. And images
    whose orientation is none of 1 to 8 (0, which some cameras write for none, is let be).

    Fix: write the picture upright and without the tag. None is proposed, as files of images are never edited.
    """
    known = _known(image_properties)
    tag = known["orientation_tag"].to_numpy(dtype=np.int64)
    twice = _turned_twice(known)
    excess = np.where(twice, 4.0, np.where(tag > 8, 1.5, 0.0))
    messages = []
    for row in np.flatnonzero(excess > 1):
        if not twice[row]:
            messages.append(f"The EXIF orientation is {tag[row]}; only 1 to 8 mean something.")
            continue
        stored = f"{known['height'].iloc[row]} x {known['width'].iloc[row]}"
        by_exif = f"{known['exif_width'].iloc[row]} x {known['exif_height'].iloc[row]}"
        messages.append(
            f"The EXIF asks for a quarter turn (orientation {tag[row]}), but the pixels seem to be turned "
            f"already: they are {stored}, and were {by_exif} by the EXIF."
        )
    return _outcome(known, excess, messages)


@check("IMG011", level="image")
def orientation_depends_on_reader(image_properties: pd.DataFrame) -> Outcome:
    """The image is turned by its EXIF, which some readers do and others don't.

    Scoring: 0.4 for such an image, 1 for all others.

    Flagged: images with an EXIF orientation of 2 to 8, where the dataset has other orientations too.
    Browsers, FiftyOne and OpenCV's ``imread`` turn them; Pillow's ``Image.open``, torchvision and TensorFlow
    give the pixels as they are stored, unless they are asked. A model then sees other pictures than the
    annotator did. Those of `IMG010` are left out. Store the pixels upright, or make sure that every reader
    turns them.

    Fix: the same as for `IMG010`; or read all images with a reader that turns them.
    """
    known = _known(image_properties)
    orientation = known["orientation"].to_numpy(dtype=np.int64)
    differs = (orientation > 1) & ~_turned_twice(known) & (len(np.unique(orientation)) > 1)
    messages = []
    # There may be many: most of the photos of a phone are turned.
    for tag, width, height in known.loc[differs, ["orientation", "width", "height"]].to_numpy().tolist():
        how = f"{width} x {height} or {height} x {width}" if tag > 4 else "turned or not"
        messages.append(f"The EXIF orientation is {tag}: {how}, depending on the reader.")
    return _outcome(known, np.where(differs, 1.5, 0.0), messages)


def _known(image_properties: pd.DataFrame) -> pd.DataFrame:
    """The rows of the images that can be decoded."""
    known = image_properties.dropna(subset=["uniform_fraction"])
    if not len(known):
        raise Unavailable("no image can be decoded")
    return known


def _drops(ids: Iterable[Any], labels: pd.DataFrame) -> dict[str, Fix]:
    """The fix that takes each of these samples out."""
    first = one_a_sample(labels)
    fixes: dict[str, Fix] = {}
    for sample_id in map(str, ids):
        label = first.loc[sample_id].to_dict() if sample_id in first.index else {}
        fixes[sample_id] = removal(
            sample_id, label.get("label_id", sample_id), label.get("locator"), label.get("name")
        )
    return fixes


def _outcome(
    known: pd.DataFrame,
    excess: Floats,
    messages: list[str],
    *,
    fixes: dict[str, Fix] | None = None,
    **figures: pd.Series[float],
) -> Outcome:
    """Flag where the excess is above 1; `messages` and `figures` are those of the flagged images."""
    flagged = pd.Series(excess > 1, index=known.index)
    evidence = pd.DataFrame({"message": messages, **figures}, index=known.index[excess > 1])
    score = pd.Series(1 / (1 + excess), index=known.index)
    return Outcome(score=score, flagged=flagged, evidence=evidence, fixes=fixes or {})


def _below_median(values: Floats, *, least: float) -> Floats:
    """How many deviations each value lies below the median; 0 above it.

    The deviation is that of the lower half, since one tail of these properties is often far heavier than the
    other, estimated from its middle, so that it doesn't move until a quarter of all images are odd.

    Args:
        values: (n,) float.
        least: the deviation where that of the dataset is smaller: images of one camera differ by nothing.
    """
    quartile, median = np.quantile(values, [0.25, 0.5])
    deviation = max(float(median - quartile) / _QUARTILE, least)
    return np.asarray(np.clip((median - values) / deviation, 0.0, None))


def _both(own: Floats, among: Floats) -> Floats:
    """Excess of what is beyond a threshold of its own, and is odd among the others.

    The clearer the one, the less of the other it takes: the geometric mean counts, but own must reach 1, and
    among one half.
    """
    return np.asarray(np.minimum.reduce([own, 2 * among, np.sqrt(own * among)]))


def _from_common(
    values: Floats, *, within: float, min_factor: float, max_fraction: float
) -> tuple[Floats, Floats]:
    """How far each value is from the nearest common one, and that one.

    Args:
        values: (n,) positive.
        within: the factor up to which two values count as the same.
        min_factor: the factor from which a value is odd.
        max_fraction: share of the values that must be the same for one to be common; two at least, in all
            but the smallest datasets.

    Returns:
        (n,) logarithm of the factor between the two, over that of `min_factor`; (n,) the nearest common
        value. Both say that nothing is odd where no value is common.
    """
    logs = np.log(np.maximum(values, 1e-12))
    ordered = np.sort(logs)
    near = np.log(within) + 1e-9
    count = np.searchsorted(ordered, ordered + near, "right") - np.searchsorted(ordered, ordered - near)
    common = ordered[count >= max(max_fraction * len(values), min(2.0, len(values) / 10))]
    if not len(common):
        return np.zeros(len(values)), values
    above = np.searchsorted(common, logs).clip(0, len(common) - 1)
    below = (above - 1).clip(0)
    nearest = np.where(
        np.abs(common[above] - logs) < np.abs(common[below] - logs), common[above], common[below]
    )
    return np.abs(logs - nearest) / np.log(min_factor), np.exp(nearest)


def _elongation(
    known: pd.DataFrame, min_factor: float = 2.0, max_fraction: float = 0.05
) -> tuple[Floats, Floats, Floats]:
    """Excess of `odd_aspect_ratio`, the longer over the shorter side, and the nearest common ratio."""
    sides = known[["width", "height"]].to_numpy(dtype=float)
    ratio = sides.max(1) / np.maximum(sides.min(1), 1)
    excess, nearest = _from_common(ratio, within=1.15, min_factor=min_factor, max_fraction=max_fraction)
    return excess, ratio, nearest


def _plain(known: pd.DataFrame, max_content: float = 0.005) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Images without any content, of which nothing else can be said."""
    return (1 - known["uniform_fraction"] < max_content).to_numpy(dtype=bool)


def _darkness(known: pd.DataFrame, max_highlight: float = 0.22, n_deviations: float = 4.0) -> Floats:
    """Excess of `dark_image`."""
    highlight = known["highlight"].to_numpy(dtype=float) + _LEVEL
    among = _below_median(np.log(highlight), least=0.25) / n_deviations
    return np.where(_plain(known), 0.0, _both(max_highlight / highlight, among))


def _brightness(
    known: pd.DataFrame, min_brightness: float = 0.88, min_shadow: float = 0.35, n_deviations: float = 4.0
) -> Floats:
    """Excess of `bright_image`."""
    from_white = 1 - known["brightness"].to_numpy(dtype=float) + _LEVEL
    among = _below_median(np.log(from_white), least=0.25) / n_deviations
    own = (1 - min_brightness) / from_white
    shadow = known["shadow"].to_numpy(dtype=float) / min_shadow
    return np.where(_plain(known), 0.0, _both(np.minimum(own, shadow), among))


def _turned_twice(known: pd.DataFrame) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Images that the EXIF turns by a quarter, although they are stored as if it was done."""
    columns = ["width", "height", "exif_width", "exif_height"]
    width, height, exif_width, exif_height = known[columns].to_numpy(dtype=float).T
    # As they are stored: width and height are those of the image as it is shown
    stored = np.log(np.maximum(height, 1) / np.maximum(width, 1))
    by_exif = np.log(np.maximum(exif_width, 1) / np.maximum(exif_height, 1))
    told = (exif_width > 0) & (exif_height > 0) & (known["orientation"].to_numpy() >= 5)
    # A square tells nothing, and a crop has sides of its own; resizing keeps the ratio
    return np.asarray(told & (np.abs(stored) > 0.05) & (np.abs(stored + by_exif) < 0.02))
