"""LBL and SPL: what is odd about whole classes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from dataaudit.checks.groups import split_rank
from dataaudit.checks.spelling import spelling_key
from dataaudit.errors import Unavailable
from dataaudit.registry import check
from dataaudit.signals.label_errors import LabelErrors
from dataaudit.types import Neighbors, Outcome

__all__ = [
    "class_error_rate", "class_without_labels", "classes_alike", "rare_class", "splits_differ_in_classes",
]  # fmt: skip

Floats = np.ndarray[Any, np.dtype[np.float64]]
Ints = np.ndarray[Any, np.dtype[np.int64]]


@check("LBL008", level="class")
def classes_alike(
    pred_probs: pd.DataFrame,
    labels: pd.DataFrame,
    neighbors: Neighbors | None = None,
    *,
    max_auc: float = 0.65,
) -> Outcome:
    """Two classes can't be told apart by what their images show.

    Scoring: for each pair of classes that the baseline mixes up most, how well their images are told apart:
    twice the area under the ROC curve of the baseline's odds, or of the nearest images' labels where that is
    better, less one.

    Flagged: the pairs whose area is below `max_auc` (0.5 is chance) at the upper end of its 95 % interval,
    while the baseline tells the two from the other classes: a baseline that can tell nothing says nothing
    about two classes.

    Fix: none. If they are one class, rename one of them; if not, the definition of the classes, or a picture
    of higher resolution, has to say what differs.

    Reference: Hanley and McNeil, "The meaning and use of the area under a receiver operating characteristic
    (ROC) curve", Radiology 143, 1982, for the interval.
    """
    given, values = _given(pred_probs, labels)
    n = np.bincount(given, minlength=values.shape[1])
    keys = [spelling_key(str(name)) for name in pred_probs.columns]
    # Two spellings of one name are LBL009's
    pairs = [(one, other) for one, other in _mixed_up(values, given, n) if keys[one] != keys[other]]
    near = _near_classes(neighbors, pred_probs, given)
    order = np.argsort(given, kind="stable")
    rows = np.split(order, np.cumsum(n)[:-1])
    found = [_area(values, near, rows[one], rows[other], one, other) for one, other in pairs]
    auc, high = (np.array([each[at] for each in found], dtype=float) for at in (0, 1))
    names = [str(name) for name in pred_probs.columns]
    ids = [f"{names[one]} / {names[other]}" for one, other in pairs]
    flagged = high <= max_auc
    for at in np.flatnonzero(flagged):
        flagged[at] = _apart(values, given, *pairs[at]) >= 0.5 + (max_auc - 0.5) * 1.5
    messages = {
        ids[
            at
        ]: f"{names[one]!r} ({n[one]:,} images) and {names[other]!r} ({n[other]:,}) are told apart with an "
        f"area under the curve of {auc[at]:.2f} (95 % interval up to {high[at]:.2f}), where 0.5 is chance."
        for at, (one, other) in enumerate(pairs)
        if flagged[at]
    }
    index = pd.Index(ids, dtype=object)
    evidence = pd.DataFrame(
        {"message": pd.Series(messages, dtype=object), "auc": pd.Series(auc, index=index)}
    )
    return Outcome(
        score=pd.Series(np.clip(2 * auc - 1, 0, 1), index=index),
        flagged=pd.Series(flagged, index=index),
        evidence=evidence[evidence["message"].notna()],
    )


@check("LBL010", level="class")
def class_error_rate(
    label_errors: LabelErrors,
    *,
    min_ratio: float = 2.0,
    min_excess: float = 0.05,
    max_p: float = 0.05,
) -> Outcome:
    """The class has many more wrong labels than the others.

    Scoring: one minus the share of the class's labels that are expected to be wrong, drawn towards the share
    of all classes where the class has few images (beta-binomial shrinkage).

    Flagged: classes whose share is at least `min_ratio` times that of the others and higher by `min_excess`,
    but for a chance below `max_p`.

    Fix: none for the class; its labels are `LBL001`'s. Such a class is often one whose definition people
    understand differently.
    """
    by_class = label_errors.table.groupby("given")["probability"].agg(["size", "sum"])
    names = pd.Index(by_class.index.astype(str))
    n, errors = by_class["size"].to_numpy(), by_class["sum"].to_numpy(dtype=np.float64)
    others = (errors.sum() - errors) / np.maximum(n.sum() - n, 1)
    limit = np.maximum(min_ratio * others, others + min_excess)
    rate, low, high, p = _shrunken(errors, n.astype(np.float64), limit)
    flagged = p <= max_p
    messages = [
        f"About {rate[at]:.0%} of {int(n[at]):,} labels are wrong "
        f"(95 % interval {low[at]:.0%} to {high[at]:.0%}), "
        f"{others[at]:.1%} of the other classes' labels."
        for at in np.flatnonzero(flagged)
    ]
    return Outcome(
        score=pd.Series(np.clip(1 - rate, 0, 1), index=names),
        flagged=pd.Series(flagged, index=names),
        evidence=pd.DataFrame(
            {"message": messages, "rate": rate[flagged], "low": low[flagged], "high": high[flagged]},
            index=names[flagged],
        ),
    )


@check("LBL011", level="class")
def class_without_labels(classes: tuple[str, ...], labels: pd.DataFrame) -> Outcome:
    """The dataset names the class, and no image has it.

    Scoring: 0 for such a class, 1 for all others.

    Flagged: every such class: an empty folder, a name in the list of classes that is used nowhere.

    Fix: none; take the class out of the list, or add the images that are missing.
    """
    empty = ~pd.Index(classes).isin(labels["name"].dropna().unique())
    index = pd.Index(classes, dtype=object)
    return Outcome(
        score=pd.Series(np.where(empty, 0.0, 1.0), index=index),
        flagged=pd.Series(empty, index=index),
        evidence=pd.DataFrame(
            {"message": [f"No image is labeled {name!r}." for name in index[empty]]}, index=index[empty]
        ),
    )


@check("LBL012", level="class")
def rare_class(
    labels: pd.DataFrame,
    near_duplicates: pd.Series[int] | None = None,
    *,
    min_images: int = 20,
    max_share: float = 0.1,
) -> Outcome:
    """The class has too few images to be learned or checked.

    Scoring: the number of different pictures of the class as a share of `min_images`, at most 1; images that
    show the same picture count once.

    Flagged: classes with fewer pictures than `min_images` and than `max_share` of what is usual (the median
    class). Where most classes are small the dataset is meant to be so, and none is flagged but a class whose
    images all show one picture while others have more.

    Fix: none; add images, or join the class with another.
    """
    named = labels.dropna(subset="name")
    if not len(named):
        raise Unavailable("no image has a label")
    images = named.groupby("name")["sample_id"].nunique()
    pictures = images
    if near_duplicates is not None:
        group = named["sample_id"].map(near_duplicates)
        group = group.astype(object).where(group.notna(), named["sample_id"])
        pictures = group.groupby(named["name"]).nunique()
    usual = float(pictures.median())
    flagged = (pictures < min_images) & (pictures < max_share * usual)
    if usual >= 5:
        flagged |= pictures < 2
    messages = [
        f"{pictures[name]:,} picture{'' if pictures[name] == 1 else 's'}"
        + (f" in {images[name]:,} images" if images[name] != pictures[name] else "")
        + f" of {name!r}, where {usual:,.0f} are usual."
        for name in flagged.index[flagged]
    ]
    return Outcome(
        score=(pictures / max(min_images, 1)).clip(0, 1).astype(float),
        flagged=flagged,
        evidence=pd.DataFrame({"message": messages}, index=flagged.index[flagged]),
    )


@check("SPL002", level="class")
def splits_differ_in_classes(
    images: pd.DataFrame,
    labels: pd.DataFrame,
    *,
    min_effect: float = 0.2,
    min_ratio: float = 2.0,
    max_p: float = 0.001,
) -> Outcome:
    """The class is more frequent in one split than in another.

    Scoring: one minus the effect size, the largest difference between two splits in the arcsine of the square
    root of the class's share (Cohen's h), at most 1.

    Flagged: classes with an effect of at least `min_effect`, or a share that is `min_ratio` times as large,
    where chance alone would do that less often than `max_p` (G-test, corrected for the number of classes);
    and classes that are tested on but have no image to be trained on.

    Fix: none; split again, by class.

    Reference: Cohen, "Statistical Power Analysis for the Behavioral Sciences", 1988, chapter 6.
    """
    table = _by_split(images, labels)
    totals = images["split"].map(str, na_action="ignore").value_counts().reindex(table.columns)
    counts, sizes = (part.to_numpy().astype(np.float64) for part in (table, totals))
    share = counts / sizes
    angle = 2 * np.arcsin(np.sqrt(np.clip(share, 0, 1)))
    effect = angle.max(1) - angle.min(1)
    ratio = share.max(1) / np.maximum(share.min(1), 0.5 / sizes.max())
    significant = _g_test(counts, sizes) * len(table) <= max_p
    flagged = significant & ((effect >= min_effect) | (ratio >= min_ratio))
    training = np.array([split_rank(split) == 2 for split in table.columns])
    untrained = np.zeros(len(table), dtype=bool)
    if training.any():
        untrained = (counts[:, training].sum(1) == 0) & (counts[:, ~training].sum(1) > 0)
    messages = [
        ("No image to train on. " if untrained[at] else "")
        + ", ".join(
            f"{split!r}: {int(counts[at, column]):,} ({share[at, column]:.1%})"
            for column, split in enumerate(table.columns)
        )
        + "."
        for at in np.flatnonzero(flagged | untrained)
    ]
    score = np.where(untrained, 0.0, np.clip(1 - effect, 0, 1))
    return Outcome(
        score=pd.Series(score, index=table.index),
        flagged=pd.Series(flagged | untrained, index=table.index),
        evidence=pd.DataFrame(
            {"message": messages, "effect": effect[flagged | untrained]},
            index=table.index[flagged | untrained],
        ),
    )


def _given(pred_probs: pd.DataFrame, labels: pd.DataFrame) -> tuple[Ints, Floats]:
    """The (n,) given class and the (n, k) probabilities of each row of `pred_probs`."""
    if pred_probs.shape[1] < 2:
        raise Unavailable("pred_probs has one class; it needs two at least")
    named = labels.dropna(subset="name").drop_duplicates("sample_id").set_index("sample_id")["name"]
    given = pred_probs.columns.get_indexer(pd.Index(named.reindex(pred_probs.index)))
    known = given >= 0
    if known.all():
        return given.astype(np.int64), pred_probs.to_numpy()  # not copied, which indexing would
    return given[known].astype(np.int64), pred_probs.to_numpy()[known]


def _mixed_up(values: Floats, given: Ints, n: Ints, *, at_most: int = 500) -> list[tuple[int, int]]:
    """The pairs of classes whose images get most of each other's probability, the worst first."""
    from scipy.sparse import csr_matrix

    k = values.shape[1]
    by_class = csr_matrix((np.ones(len(given)), (given, np.arange(len(given)))), shape=(k, len(given)))
    mean = np.asarray(by_class @ values, dtype=np.float64) / np.maximum(n, 1)[:, None]
    own = np.maximum(np.diag(mean), 1e-9)
    mixed = np.sqrt(mean * mean.T / own[:, None] / own[None, :])
    mixed[(n < 2)[:, None] | (n < 2)[None, :]] = 0
    one, other = np.triu_indices(k, 1)
    order = np.argsort(-mixed[one, other], kind="stable")[:at_most]
    return [(int(one[at]), int(other[at])) for at in order if mixed[one[at], other[at]] > 0]


def _near_classes(neighbors: Neighbors | None, pred_probs: pd.DataFrame, given: Ints) -> Ints | None:
    """(n, m) classes of the nearest images of each row, -1 where there is no label; None if unknown."""
    if neighbors is None or len(given) != len(pred_probs):
        return None
    rows = neighbors.ids.get_indexer(pred_probs.index)
    if (rows < 0).any():
        return None
    classes = np.full(len(neighbors.ids), -1, dtype=np.int64)
    classes[rows] = given
    return np.asarray(classes[neighbors.indices[rows]])


def _area(
    values: Floats, near: Ints | None, of_one: Ints, of_other: Ints, one: int, other: int
) -> tuple[float, float]:
    """The area under the curve for two classes, and the upper end of its 95 % interval."""
    n, m = len(of_one), len(of_other)
    rows = np.concatenate([of_one, of_other])
    is_one = np.arange(n + m) < n
    odds = np.log(values[rows, one] + 1e-9) - np.log(values[rows, other] + 1e-9)
    auc = _auc(odds, is_one)
    if near is not None:
        votes = (near[rows] == one).sum(1) / np.maximum((near[rows] == other).sum(1), 0.5)
        auc = max(auc, _auc(votes, is_one))
    area = max(auc, 0.5)
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
    variance = (area * (1 - area) + (n - 1) * (q1 - area**2) + (m - 1) * (q2 - area**2)) / (n * m)
    return auc, area + 1.96 * float(np.sqrt(max(variance, 0)))


def _apart(values: Floats, given: Ints, one: int, other: int) -> float:
    """The area under the curve for two classes together against all others; 1 where there are none."""
    both = (given == one) | (given == other)
    return 1.0 if both.all() else _auc(values[:, one] + values[:, other], both)


def _auc(score: Floats, positive: np.ndarray[Any, np.dtype[np.bool_]]) -> float:
    from scipy.stats import rankdata

    n = int(positive.sum())
    m = len(positive) - n
    return float((rankdata(score)[positive].sum() - n * (n + 1) / 2) / max(n * m, 1))


def _shrunken(errors: Floats, n: Floats, limit: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """Rate of each class with its 95 % interval, and the chance that it is below its limit."""
    from scipy.stats import beta

    share = errors / n
    overall = min(max(float(errors.sum() / n.sum()), 1e-4), 0.5)
    spread = float(np.average((share - overall) ** 2, weights=n)) - overall * (1 - overall) * len(n) / n.sum()
    strength = overall * (1 - overall) / max(spread, 1e-9) - 1
    strength = min(max(strength, 5.0), 200.0)
    a = strength * overall + errors
    b = strength * (1 - overall) + n - errors
    rate = a / (a + b)
    return rate, beta.ppf(0.025, a, b), beta.ppf(0.975, a, b), beta.cdf(limit, a, b)


def _by_split(images: pd.DataFrame, labels: pd.DataFrame) -> pd.DataFrame:
    """(classes, splits) number of images."""
    splits = images["split"].dropna().map(str)
    if splits.nunique() < 2:
        raise Unavailable("the dataset has no splits")
    named = labels.dropna(subset="name").drop_duplicates(["sample_id", "name"])
    split = named["sample_id"].map(splits)
    if not split.notna().any():
        raise Unavailable("no image in a split has a label")
    table = pd.crosstab(named["name"], split)
    return table.reindex(columns=sorted(splits.unique()), fill_value=0)


def _g_test(counts: Floats, sizes: Floats) -> Floats:
    """(k,) chance of a G statistic this large, for each class against all other images."""
    from scipy.special import xlogy
    from scipy.stats import chi2

    share = counts.sum(1, keepdims=True) / sizes.sum()
    expected = share * sizes
    rest = sizes - counts
    statistic = 2 * (
        xlogy(counts, counts / np.maximum(expected, 1e-12))
        + xlogy(rest, np.maximum(rest, 0) / np.maximum(sizes - expected, 1e-12))
    ).sum(1)
    return np.asarray(chi2.sf(statistic, len(sizes) - 1))
