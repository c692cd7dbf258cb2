"""GRP: groups of images that fare worse, imbalance that hurts, and order in the file names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from dataaudit.checks.groups import are_objects
from dataaudit.errors import Unavailable
from dataaudit.registry import check
from dataaudit.signals.spectrum import Spectrum
from dataaudit.types import Neighbors, Outcome

__all__ = [
    "KINDS",
    "PIXEL_NUMBERS",
    "imbalance",
    "known_properties",
    "ordered_files",
    "underperforming_group",
]

Ints = np.ndarray[Any, np.dtype[np.int64]]
Floats = np.ndarray[Any, np.dtype[Any]]
Bools = np.ndarray[Any, np.dtype[np.bool_]]

PIXEL_NUMBERS = ("brightness", "contrast", "saturation", "sharpness", "entropy")
"""Names of the properties of the pixels."""
KINDS = ("split", "file format", "colour mode", "EXIF orientation")
"""Names of the properties that are kinds, no numbers."""

_LARGEST_FIT = 20_000


@check("GRP001", level="dataset")
def underperforming_group(
    pred_probs: pd.DataFrame,
    labels: pd.DataFrame,
    images: pd.DataFrame,
    image_properties: pd.DataFrame,
    spectrum: Spectrum | None = None,
    *,
    min_ratio: float = 1.5,
    min_images: int = 30,
    max_chance: float = 0.01,
) -> Outcome:
    """A group of images is predicted worse than its classes are elsewhere.

    Groups are the fifths of each property (brightness, contrast, size, ...), the splits, file formats and
    colour modes, and clusters of images that look alike. Where the baseline's best class isn't the given one,
    that counts as an error, be it the baseline's or the label's.

    Scoring: the errors that the group would have if it fared as its classes do outside it, over those it has;
    at most 1. A group of difficult classes is so no worse than these classes are.

    Flagged: groups with `min_images` or more that have at least `min_ratio` times as many errors, by
    the lower end of their interval (exact binomial, `max_chance` shared out among all groups). Of groups that
    are mostly the same images the worst is flagged.

    Fix: none. Look at the group: its labels may be wrong, its images too few or of another kind.

    Reference: Clopper and Pearson, "The use of confidence or fiducial limits illustrated in the case of the
    binomial", Biometrika 26, 1934; Chung et al., "Automated Data Slicing for Model Validation", TKDE 2019.
    """
    given = _given(pred_probs, labels)
    wrong = pred_probs.to_numpy().argmax(1) != given
    least = max(min_images, 1)
    if len(wrong) < 2 * least:
        raise Unavailable(f"{len(wrong)} images have a prediction; it needs {2 * least} at least")
    columns = known_properties(image_properties, images).reindex(pred_probs.index)
    groups = dict(_groups(columns, least))
    groups |= _clusters(pred_probs, spectrum, given, least)
    names = list(groups)
    rows = [_fares(groups[name], wrong, given, max_chance / max(len(names), 1)) for name in names]
    table = pd.DataFrame(
        rows, index=pd.Index(names, dtype=object), columns=["n", "errors", "expected", "low"]
    )
    table = table.astype(float)
    candidates = table[table["low"] >= min_ratio].sort_values("low", ascending=False)
    kept: list[str] = []
    for name in candidates.index:
        if not any(_overlap(groups[name], groups[other]) > 0.5 for other in kept):
            kept.append(name)
    score = (table["expected"] / table["errors"].clip(lower=1e-9)).clip(0, 1)
    return Outcome(
        score=score,
        flagged=pd.Series(table.index.isin(kept), index=table.index, dtype=bool),
        evidence=table.loc[kept].assign(message=_messages(table.loc[kept])),
    )


def _messages(table: pd.DataFrame) -> list[str]:
    return [
        f"{errors:,.0f} of {n:,.0f} images are predicted as another class than given, where {expected:,.1f} "
        f"are to be expected of their classes elsewhere: {errors / expected:.1f} times as many, at least "
        f"{low:.1f}."
        for n, errors, expected, low in table.to_numpy().tolist()
    ]


def _given(pred_probs: pd.DataFrame, labels: pd.DataFrame) -> Ints:
    """(n,) number of the given class of each row."""
    if pred_probs.shape[1] < 2:
        raise Unavailable("pred_probs has one class; it needs two at least")
    named = labels.dropna(subset="name").drop_duplicates("sample_id").set_index("sample_id")["name"]
    return np.asarray(
        pred_probs.columns.get_indexer(pd.Index(named.reindex(pred_probs.index))), dtype=np.int64
    )


def known_properties(image_properties: pd.DataFrame, images: pd.DataFrame) -> pd.DataFrame:
    """What is known of each image by its names for people: numbers, and those of `KINDS`.

    Returns:
        index as `image_properties`; NaN where it isn't known.
    """
    width, height = (image_properties[side].to_numpy(dtype=float) for side in ("width", "height"))
    seen = (width > 0) & (height > 0)
    columns: dict[str, Any] = {
        name: image_properties[name] for name in PIXEL_NUMBERS if name in image_properties
    }
    columns["number of pixels"] = np.where(seen, width * height, np.nan)
    columns["width over height"] = np.divide(width, height, out=np.full(len(width), np.nan), where=seen)
    columns["split"] = images["split"].reindex(image_properties.index)
    for name, column in (
        ("file format", "format"),
        ("colour mode", "mode"),
        ("EXIF orientation", "orientation"),
    ):
        if column in image_properties:
            columns[name] = image_properties[column]
    return pd.DataFrame(columns, index=image_properties.index)


def _groups(columns: pd.DataFrame, min_images: int) -> Iterator[tuple[str, Bools]]:
    """Name and members of each fifth of a number, and of each kind."""
    for name in columns:
        values = columns[name]
        if name in KINDS:
            counts = values.value_counts()
            for level in counts.index[(counts >= min_images) & (counts <= len(values) - min_images)]:
                yield f"{name} {level}", (values == level).to_numpy(dtype=bool)
            continue
        numbers = values.to_numpy(dtype=float)
        known = numbers[np.isfinite(numbers)]
        edges = np.unique(np.quantile(known, [0.2, 0.4, 0.6, 0.8])) if len(known) else np.zeros(0)
        bins = np.where(np.isfinite(numbers), np.searchsorted(edges, numbers, side="right"), -1)
        for at in range(len(edges) + 1):
            members = bins == at
            if min_images <= members.sum() <= len(values) - min_images:
                yield _interval(str(name), edges, at), members


def _interval(name: str, edges: Floats, at: int) -> str:
    if at == 0:
        return f"{name} below {edges[0]:.3g}"
    if at == len(edges):
        return f"{name} {edges[-1]:.3g} or more"
    return f"{name} {edges[at - 1]:.3g} to {edges[at]:.3g}"


def _clusters(
    pred_probs: pd.DataFrame, spectrum: Spectrum | None, given: Ints, min_images: int
) -> dict[str, Bools]:
    """Clusters of images that look alike, each named by the image in its middle."""
    if spectrum is None:
        return {}
    rows = spectrum.ids.get_indexer(pred_probs.index)
    if (rows < 0).any():
        return {}
    from sklearn.cluster import MiniBatchKMeans

    points = spectrum.components[rows][:, :16]
    n_clusters = int(np.clip(len(points) // (4 * min_images), 2, 40))
    if not points.shape[1] or len(np.unique(points[:_LARGEST_FIT], axis=0)) < n_clusters:
        return {}
    model = MiniBatchKMeans(n_clusters, random_state=0, n_init=1, batch_size=1024, max_iter=30)
    some = np.random.default_rng(0).choice(len(points), min(len(points), _LARGEST_FIT), replace=False)
    model.fit(points[np.sort(some)])
    of, away = model.predict(points), model.transform(points)
    found = {}
    for number in range(n_clusters):
        members = of == number
        if min_images <= members.sum() <= len(points) - min_images:
            middle = pred_probs.index[int(np.where(members, away[:, number], np.inf).argmin())]
            classes, n = np.unique(given[members], return_counts=True)
            common = [str(pred_probs.columns[one]) for one in classes[np.argsort(-n, kind="stable")][:2]]
            found[f"images like {middle} ({', '.join(common)})"] = members
    return found


def _fares(members: Bools, wrong: Bools, given: Ints, chance: float) -> tuple[float, float, float, float]:
    """Images, errors, expected errors and the lower end of their ratio, of one group."""
    from scipy.stats import beta

    k = int(given.max(initial=0)) + 1
    outside = ~members
    rate = wrong[outside].mean() if outside.any() else wrong.mean()
    errors = np.bincount(given[outside], wrong[outside], k) + 5 * rate
    share = errors / (np.bincount(given[outside], minlength=k) + 5)
    n, found = int(members.sum()), int(wrong[members].sum())
    expected = float(share[given[members]].sum())
    low = float(beta.ppf(chance, found, n - found + 1)) if found else 0.0
    return n, found, max(expected, 1e-3), low * n / max(expected, 1.0)


def _overlap(one: Bools, other: Bools) -> float:
    return float((one & other).sum() / max(min(one.sum(), other.sum()), 1))


@check("GRP003", level="dataset")
def ordered_files(
    neighbors: Neighbors,
    near_duplicates: pd.Series[int],
    labels: pd.DataFrame,
    *,
    window: int = 5,
    min_share: float = 0.2,
    min_ratio: float = 5.0,
) -> Outcome:
    """Images with neighbouring file names look alike, as the frames of a film do.

    Such images aren't independent: a random split puts nearly the same scene on both sides, and figures taken
    on the test side are too good. Split by series instead.

    Scoring: for each folder, or each class in it, files are put in the order of their names, numbers by their
    value. The score is one minus the share of images whose nearest image of another picture in the folder is
    one of the `window` before or after it.

    Flagged: where that share is at least `min_share` and `min_ratio` times that of a random order, beyond
    chance. That a file or folder is sorted by class tells nothing and isn't looked at.

    Fix: none.

    Reference: Cummings et al., "Detecting Dataset Drift and Non-IID Sampling: A k-Nearest Neighbors Approach
    that works for Image/Text/Audio/Numeric Data", ICML workshop DataPerf 2023. Deviation: order counts only
    within a folder and class, and only near neighbours in it.
    """
    ids = neighbors.ids
    folder, order = _places(ids, labels)
    size = np.bincount(folder, minlength=1)[folder]
    groups = near_duplicates.loc[ids].to_numpy()
    near = neighbors.indices
    usable = (folder[near] == folder[:, None]) & (near != np.arange(len(ids))[:, None])
    usable &= groups[near] != groups[:, None]
    has = usable.any(1) & (size >= 4 * window + 2)
    if has.sum() < 50:
        raise Unavailable(
            f"{int(has.sum())} images have a similar image in their folder; it needs 50 at least"
        )
    nearest = near[np.arange(len(ids)), usable.argmax(1)]
    close = np.abs(order - order[nearest]) <= window
    expected = 2 * window / np.maximum(size - 1, 1)
    share, usual = float(close[has].mean()), float(np.minimum(expected[has], 1).mean())
    beyond = (share - usual) / np.sqrt(usual * (1 - usual) / has.sum() + 1e-12)
    flagged = share >= min_share and share >= min_ratio * usual and beyond > 6
    message = (
        f"{share:.0%} of the images have their most similar image among the {2 * window} files next to them, "
        f"where {usual:.1%} would by chance: they come in series."
    )
    item = pd.Index(["order of the files"])
    return Outcome(
        score=pd.Series([float(np.clip(1 - share, 0, 1))], index=item),
        flagged=pd.Series([bool(flagged)], index=item),
        evidence=pd.DataFrame({"message": [message], "share": [share], "by_chance": [usual]}, index=item),
    )


def _places(ids: pd.Index, labels: pd.DataFrame) -> tuple[Ints, Ints]:
    """Number of each image's folder and class, and its place among the names there."""
    own = labels.iloc[:0] if are_objects(labels) else labels.drop_duplicates("sample_id")
    named = own.set_index("sample_id")["name"].reindex(ids)
    paths = pd.Series(ids.astype(str)).str.rpartition("/")
    where = pd.MultiIndex.from_arrays([paths[0], named.astype(str).to_numpy()])
    folder = np.asarray(pd.factorize(where)[0], dtype=np.int64)
    keys = [re.sub(r"\d+", lambda number: number[0].zfill(20), name) for name in paths[2]]
    by_name = np.lexsort((np.array(keys, dtype=str), folder))
    starts = np.searchsorted(folder[by_name], np.arange(folder.max(initial=-1) + 1))
    place = np.empty(len(ids), dtype=np.int64)
    place[by_name] = np.arange(len(ids)) - starts[folder[by_name]]
    return folder, place


@check("GRP004", level="class")
def imbalance(
    pred_probs: pd.DataFrame,
    labels: pd.DataFrame,
    near_duplicates: pd.Series[int] | None = None,
    *,
    min_ratio: float = 10.0,
    max_recall: float = 0.5,
    max_chance: float = 0.01,
) -> Outcome:
    """The class has so few images beside the others that it is predicted too seldom.

    Scoring: how often the class is predicted, over how often it is given; at most 1.

    Flagged: classes with at most 1 / `min_ratio` of the effective number of images of the largest class that
    are predicted less than `max_recall` times as often as they are given, beyond chance (`max_chance` shared
    out among the classes). A rare class that is predicted as often as it is there needs nothing.
    Near-duplicates count as one image in the effective number.

    Fix: none. Collect images, or weight the class by the inverse of its effective number in the loss.

    Reference: Cui et al., "Class-Balanced Loss Based on Effective Number of Samples", CVPR 2019.
    """
    given = _given(pred_probs, labels)
    k = pred_probs.shape[1]
    n = np.bincount(given, minlength=k).astype(float)
    predicted = np.bincount(pred_probs.to_numpy().argmax(1), minlength=k).astype(float)
    effective = _effective_number(given, pred_probs.index, near_duplicates, k)
    ratio = effective.max(initial=1) / np.maximum(effective, 1)
    from scipy.stats import poisson

    by_chance = poisson.cdf(predicted, np.maximum(n * max_recall, 1e-9)) if k else np.zeros(0)
    flagged = (n > 0) & (ratio >= min_ratio) & (by_chance * max(k, 1) <= max_chance)
    index = pd.Index([str(name) for name in pred_probs.columns], dtype=object)
    weight = effective.sum() / np.maximum(k * effective, 1e-9)
    messages = [
        f"{int(n[at]):,} images, {ratio[at]:.0f} times fewer than the largest class (effective numbers): "
        f"it is predicted {int(predicted[at]):,} times. A balanced loss would weight it {weight[at]:.1f}."
        for at in np.flatnonzero(flagged)
    ]
    return Outcome(
        score=pd.Series(np.clip(predicted / np.maximum(n, 1), 0, 1), index=index),
        flagged=pd.Series(flagged, index=index),
        evidence=pd.DataFrame({"message": messages, "weight": weight[flagged]}, index=index[flagged]),
    )


def _effective_number(given: Ints, ids: pd.Index, near_duplicates: pd.Series[int] | None, k: int) -> Floats:
    """(k,) effective number of images of each class: further images add less and less."""
    if near_duplicates is None:
        pictures = np.bincount(given, minlength=k).astype(float)
    else:
        first = (
            ~pd.DataFrame({"c": given, "g": near_duplicates.reindex(ids).to_numpy()}).duplicated().to_numpy()
        )
        pictures = np.bincount(given[first], minlength=k).astype(float)
    total = max(pictures.sum(), 2.0)
    decay = (total - 1) / total
    return np.asarray((1 - decay**pictures) / (1 - decay))
