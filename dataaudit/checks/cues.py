"""GRP: what gives a class away without showing it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from dataaudit.checks.population import KINDS, PIXEL_NUMBERS, known_properties
from dataaudit.errors import Unavailable
from dataaudit.registry import check
from dataaudit.types import Outcome

__all__ = ["held_out_accuracy", "spurious_cue"]

Ints = np.ndarray[Any, np.dtype[np.int64]]
Floats = np.ndarray[Any, np.dtype[Any]]

_SIDE = 16
_LEVELS = (0.01, 0.03, *(step / 12 for step in range(1, 12)), 0.97, 0.99)
_MOST_VALUES = 50
_PERMUTATIONS = 199
_MOST_NAMED = 3
_FILE_CUES = (*KINDS, "number of pixels", "width over height")


@check("GRP002", level="dataset")
def spurious_cue(
    image_properties: pd.DataFrame,
    thumbnails: pd.DataFrame,
    labels: pd.DataFrame,
    images: pd.DataFrame,
    near_duplicates: pd.Series[int] | None = None,
    *,
    min_accuracy: float = 0.75,
    min_images: int = 20,
    max_p: float = 0.01,
) -> Outcome:
    """A property of the files, or the border of the images, tells the class without showing it.

    A model learns such a cue in place of the class: that one class was photographed with another camera,
    saved as PNG, framed or watermarked.

    Scoring: for each property, how well its value tells one class from all others: by the rule "this value is
    more frequent in the class than outside it", for images that it wasn't counted from (leave-one-out).
    The score is two less twice the balanced accuracy, which is 0.5 by chance, of the class that is told best.
    Near-duplicates count as one image, classes with fewer than `min_images` don't count.

    The properties are those of the file (format, colour mode, number of pixels, width over height, EXIF
    orientation), those of the pixels (brightness, contrast, saturation, sharpness, entropy), and of the
    border: mean, spread and step inwards of its outer ring, and each pixel of the two outer rings of 16 x 16.

    Flagged: properties that reach `min_accuracy` for a class by three standard errors and beyond all of 199
    permutations of the labels. What the pixels show may well differ between classes, so the properties of
    pixels and border must also stand out from what is usual in the dataset: by three times the distance of
    ninth decile and median, over the other classes and the pixels in the middle. Airplanes before a bright
    sky don't.

    Fix: none. Take the cue away from the images (crop, resave, resize), or give it to all classes.

    Reference: Geirhos et al., "Shortcut Learning in Deep Neural Networks", Nature Machine Intelligence 2,
    2020.
    """
    ids, given, classes = _labeled(thumbnails.index, labels, near_duplicates, min_images)
    numbers = known_properties(image_properties, images).reindex(ids)
    pixels = thumbnails.loc[ids].to_numpy()
    cues = {**dict(_of_properties(numbers)), **dict(_of_border(pixels))}
    table = pd.DataFrame({name: _best(codes, given, len(classes)) for name, codes in cues.items()})
    middle = _of_middle(pixels, given, len(classes))
    shown = table[[name for name in table if name in PIXEL_NUMBERS]]
    flagged, rows = [], []
    for name, codes in cues.items():
        usual = 0.0 if name in _FILE_CUES else _usual(shown.drop(columns=name, errors="ignore"), middle)
        accuracy = table[name].to_numpy()
        told = np.flatnonzero(
            accuracy - 3 * _errors(accuracy, np.bincount(given)) >= np.maximum(min_accuracy, usual)
        )
        told = told[np.argsort(-accuracy[told], kind="stable")]
        flagged.append(len(told) > 0 and _by_permutation(codes, given == told[0]) <= max_p)
        if flagged[-1]:
            rows.append((name, *_evidence(name, accuracy, told, classes)))
    best = table.max()
    return Outcome(
        score=(2 - 2 * best).clip(0, 1).astype(float),
        flagged=pd.Series(flagged, index=best.index, dtype=bool),
        evidence=pd.DataFrame(rows, columns=["id", "message", "classes", "accuracy"]).set_index("id"),
    )


def held_out_accuracy(codes: Ints, given: Ints, n_classes: int) -> Floats:
    """How well a value tells each class from all others, held out.

    Args:
        codes: (n,) number of the value, from 0.
        given: (n,) class numbers.
        n_classes: k.

    Returns:
        (k,) balanced accuracy in [0, 1] of saying "it is the class" where the value is more frequent in it
        than outside it, both counted without the image that is judged; 0.5 is chance. NaN for a class that
        holds no image, or all.

    >>> held_out_accuracy(np.array([0, 0, 0, 1, 1, 1]), np.array([0, 0, 0, 1, 1, 1]), 2).tolist()
    [1.0, 1.0]
    """
    n_values = int(codes.max(initial=0)) + 1
    inside = np.bincount(given * n_values + codes, minlength=n_classes * n_values)
    inside = inside.reshape(n_classes, n_values).astype(float)
    outside = inside.sum(0) - inside
    n, m = inside.sum(1, keepdims=True), outside.sum(1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        hits = np.where((inside - 1) / (n - 1) > outside / m, inside, 0).sum(1)
        rejected = np.where(inside / n <= (outside - 1) / (m - 1), outside, 0).sum(1)
        return np.asarray((hits / n[:, 0] + rejected / m[:, 0]) / 2)


def _labeled(
    ids: pd.Index, labels: pd.DataFrame, near_duplicates: pd.Series[int] | None, min_images: int
) -> tuple[pd.Index, Ints, list[str]]:
    """The images that count, one a picture and class, their class numbers, and the names of the classes."""
    named = labels.dropna(subset="name").set_index("sample_id")["name"]
    if not named.index.is_unique:
        raise Unavailable("images have several labels, and it looks at classes that exclude each other")
    named = named.reindex(ids).dropna()
    if near_duplicates is not None:
        pictures = pd.DataFrame({"group": near_duplicates.reindex(named.index), "name": named})
        named = named[~pictures.duplicated().to_numpy() | pictures["group"].isna().to_numpy()]
    counts = named.value_counts()
    classes = sorted(str(name) for name in counts.index[counts >= max(min_images, 2)])
    named = named[named.isin(classes)]
    if len(classes) < 2:
        raise Unavailable(
            f"{len(classes)} class{'es' * (not classes)} with {min_images} different images; it needs two"
        )
    return named.index, np.asarray(pd.Index(classes).get_indexer(pd.Index(named)), dtype=np.int64), classes


def _binned(values: Floats) -> Ints:
    """(n,) or (n, m) number of the part that each value of a column lies in, twelfths but for the ends; the
    last for NaN."""
    columns = np.atleast_2d(values.T).astype(np.float64)
    codes = np.empty(columns.shape, dtype=np.int64)
    for at, column in enumerate(columns):
        known = np.isfinite(column)
        edges = np.unique(np.quantile(column[known], _LEVELS)) if known.any() else column[:0]
        codes[at] = np.where(known, np.searchsorted(edges, column, side="right"), len(edges) + 1)
    return codes[0] if values.ndim == 1 else codes.T


def _of_properties(numbers: pd.DataFrame) -> Iterator[tuple[str, Ints]]:
    for name in numbers:
        values = numbers[name]
        if values.nunique(dropna=False) < 2 or name == "split":
            continue
        if name in KINDS:
            yield str(name), np.asarray(pd.factorize(values, use_na_sentinel=False)[0], dtype=np.int64)
        else:
            codes = _binned(values.to_numpy(dtype=float))
            yield str(name), _with_frequent(values, codes) if name in _FILE_CUES else codes


def _with_frequent(values: pd.Series[Any], codes: Ints) -> Ints:
    """The codes, with one of its own for each frequent value: images of one source have one size."""
    counts = values.value_counts().iloc[:_MOST_VALUES]
    frequent = counts.index[counts >= 10]
    own = pd.Index(frequent).get_indexer(pd.Index(values))
    return np.asarray(np.where(own >= 0, codes.max(initial=0) + 1 + own, codes), dtype=np.int64)


def _depth() -> Ints:
    """(256,) how many pixels a pixel of a thumbnail lies from its border."""
    at = np.arange(_SIDE)
    side = np.minimum(at, _SIDE - 1 - at)
    return np.asarray(np.minimum(side[:, None], side[None]).ravel(), dtype=np.int64)


def _of_border(pixels: Floats) -> Iterator[tuple[str, Any]]:
    outer, inner = _depth() == 0, _depth() == 1
    ring, within = pixels[:, outer].astype(float), pixels[:, inner].astype(float)
    yield "brightness of the border", _binned(ring.mean(1))
    yield "evenness of the border", _binned(ring.std(1))
    yield "step at the border", _binned(ring.mean(1) - within.mean(1))
    yield "a pixel of the border", _binned(pixels[:, outer | inner])


def _best(codes: Ints, given: Ints, k: int) -> Floats:
    """(k,) accuracy of a cue, or of the best column of a cue with several."""
    if codes.ndim == 1:
        return held_out_accuracy(codes, given, k)
    return np.asarray(np.stack([held_out_accuracy(column, given, k) for column in codes.T]).max(0))


def _errors(accuracy: Floats, n: Ints) -> Floats:
    """Standard error of accuracies, from above: as if hits and misses were equally frequent."""
    spread = np.sqrt(np.maximum(accuracy * (1 - accuracy), 0.02))
    return np.asarray(spread * np.sqrt(1 / n + 1 / (n.sum() - n)) / 2)


def _of_middle(pixels: Floats, given: Ints, k: int) -> Floats:
    """(k, 64) how well each pixel in the middle tells each class."""
    codes = _binned(pixels[:, _depth() >= _SIDE // 4])
    return np.stack([held_out_accuracy(column, given, k) for column in codes.T], axis=1)


def _usual(shown: pd.DataFrame, middle: Floats) -> Floats:
    """(k,) accuracy above which a property of pixels stands out for a class in this dataset."""
    k = len(middle)
    # Pixels and properties count alike, though there are more pixels
    times = max(1, middle.shape[1] // max(shown.shape[1], 1))
    both = np.hstack([middle, *[shown.to_numpy()] * times])
    usual = np.empty(k)
    for at in range(k):
        # Of two classes each is the other's rest, and told as well.
        median, ninth = np.quantile(both if k == 2 else np.delete(both, at, axis=0), [0.5, 0.9])
        usual[at] = median + 3 * (ninth - median)
    return usual


def _by_permutation(codes: Ints, is_class: np.ndarray[Any, np.dtype[np.bool_]]) -> float:
    """Share of permutations of the labels from which the cue tells a class as well."""
    rng = np.random.default_rng(0)
    given = is_class.astype(np.int64)
    if codes.ndim > 1:
        each = [held_out_accuracy(column, given, 2)[1] for column in codes.T]
        codes = codes[:, int(np.argmax(each))]
    found = held_out_accuracy(codes, given, 2)[1]
    mixed = [held_out_accuracy(codes, rng.permutation(given), 2)[1] for _ in range(_PERMUTATIONS)]
    return float(1 + (np.array(mixed) >= found).sum()) / (_PERMUTATIONS + 1)


def _evidence(name: str, accuracy: Floats, told: Ints, classes: list[str]) -> tuple[str, str, float]:
    named = [f"{classes[at]!r} ({accuracy[at]:.0%})" for at in told[:_MOST_NAMED]]
    more = f" and {len(told) - _MOST_NAMED} more classes" if len(told) > _MOST_NAMED else ""
    message = (
        f"From {_with_article(name)} alone, {', '.join(named)}{more} can be told from the other "
        "classes, where 50% is chance: balanced accuracy, held out."
    )
    return message, ", ".join(classes[at] for at in told), float(accuracy[told[0]])


def _with_article(name: str) -> str:
    return name if name.startswith("a ") else f"the {name}"
