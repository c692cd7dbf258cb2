"""How many labels are wrong, and which: a model of the noise, estimated from out-of-sample probabilities.

What a model predicts from noisy labels is a picture of the noise too, and it isn't as sharp as the truth.
So three things are told apart here: how sure the model would be of the true class (its sharpness), how often
a label of each class is wrong, and what it is then taken for. The images that the model is surest of say the
last two: there it hardly errs by itself, and a label that disagrees is likely to be wrong. A few wrong
labels say little about each of the many ways to be wrong; how much they say is itself estimated (empirical
Bayes): noise that hits all classes alike is recognised as such, and isn't taken for a pattern.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

__all__ = ["Noise", "error_probabilities", "estimate_noise", "expected_f1_flags", "falling", "log_odds"]

Floats = np.ndarray[Any, np.dtype[np.float32]]
Doubles = np.ndarray[Any, np.dtype[np.float64]]
Ints = np.ndarray[Any, np.dtype[np.int64]]
Bools = np.ndarray[Any, np.dtype[np.bool_]]

_CHUNK = 2**17  # cells worked on at a time: two such arrays fit the cache of a core
_MOST_ROWS, _MOST_CELLS = 50_000, 2**24  # that the noise is estimated from
_CELLS_OF_SEARCH = 2**22  # that its sharpness is searched on
_ANCHORED = 0.5  # share of the images of a predicted class, the surest, that the noise is estimated from
_FEWEST_ANCHORS = 20
_ROUNDS = 12
_SHARPNESS = tuple(np.geomspace(0.7, 7.0, 10))
_STRENGTHS = np.geomspace(1.0, 1e5, 26)
_UNIFORM = 60.0  # a strength above this means noise without a pattern
_DOUBT, _DOUBT_OF_PEOPLE = (
    0.6,
    0.75,
)  # where noise has a pattern: rise of the log-odds of an error per nat of the model's doubt
_CLEAR = (0.25, 0.985)  # of a trained network: all but a quarter of the images are clearer than this
_HARDEST = 3.0  # and the odds of a wrong label at most this many times those of the surest images


@dataclass(frozen=True, kw_only=True)
class Noise:
    """How labels go wrong, and how sure the model is of the truth.

    Attributes:
        sharpness: power of the model's probabilities that gives those of the true class.
        rates: (k,) how often a label is wrong, by true class, on the clearest images.
        confusion: (k, k) what a wrong label says, by true class; zero diagonal, rows sum to 1.
        strength: of the prior on a row of `confusion`, in labels; above 60 the noise has no pattern.
        difficulty: by how much the log-odds of a wrong label rise, per nat of the model's doubt; 0 for noise
            without a pattern.
        weight: of the model's own judgement in the score, in [0, 1]; the rest is the noise's.
    """

    sharpness: float
    rates: Doubles
    confusion: Doubles
    strength: float
    difficulty: float = 0.0
    weight: float = 2 / 3

    def joint(self, clear: Floats, given: Ints) -> Floats:
        """Chance of each true class and the given label together.

        Args:
            clear: (m, k) out-of-sample probabilities, sharpened.
            given: (m,) class numbers.

        Returns:
            (m, k) float32; a row's sum is the chance of the label.
        """
        rows = np.arange(len(given))
        doubt = np.minimum(-np.log(np.maximum(clear.max(1), 1e-9)), 1.5)
        chance: Floats = np.exp(self.difficulty * doubt)[:, None] * _odds(self.rates).astype(np.float32)
        other = chance + 1
        chance /= other
        right = clear[rows, given] * (1 - chance[rows, given])
        chance *= clear
        chance *= np.take(self._by_given, given, axis=0, out=other)
        chance[rows, given] = right
        return chance

    def labels(self, clear: Floats, given: Ints) -> tuple[Floats, Floats]:
        """The chance of each given label, at least 1e-30, and of it and that it is right; (m,) each."""
        total, right = np.empty((2, len(given)), dtype=np.float32)
        for here in _chunks(*clear.shape):
            joint = self.joint(clear[here], given[here])
            total[here] = joint.sum(1)
            right[here] = joint[np.arange(len(joint)), given[here]]
        return np.maximum(total, 1e-30), right

    @cached_property
    def _by_given(self) -> Floats:
        """(k, k) what a wrong label says (row), by true class."""
        rows: Floats = np.ascontiguousarray(self.confusion.T, dtype=np.float32)
        return rows


def error_probabilities(
    pred_probs: Floats, given: Ints, *, trained: bool = False, noise: Noise | None = None
) -> tuple[Floats, Floats, Ints]:
    """How suspect each label is, the chance that it is wrong, and the class that is most probable then.

    The score joins two judgements, as log-odds: the probability that the model gives to the label, and the
    chance by the estimated noise that it is right. The first holds whatever the noise is like, and has twice
    the weight where a probe judges; the second knows which mistakes are common, and counts as much where a
    trained network does. The chances are made to fall as the score rises.

    Args:
        pred_probs: (n, k) float32 or float64 out-of-sample probabilities, rows that sum to 1; they aren't
            copied.
        given: (n,) class numbers.
        trained: they come from a network trained for the task, not from a probe on features; see
            `estimate_noise`.
        noise: the noise, where it is known.

    Returns:
        (n,) float32 scores in [0, 1], 0 surely wrong; (n,) float32 chances in [0, 1]; (n,) class numbers.
    """
    noise = noise or estimate_noise(pred_probs, given, trained=trained)
    n, k = pred_probs.shape
    right = np.empty(n, dtype=np.float32)
    wrong = np.empty(n, dtype=np.float32)
    suggested = np.empty(n, dtype=np.int64)
    for here in _chunks(n, k):
        part = noise.joint(_clear(_logs(pred_probs[here]), noise.sharpness), given[here])
        own = np.arange(len(part)), given[here]
        right[here] = part[own]
        part[own] = 0
        wrong[here] = part.sum(1)
        suggested[here] = part.argmax(1)
    total = np.maximum(right + wrong, 1e-30)
    right /= total
    wrong /= total
    own_odds = log_odds(pred_probs[np.arange(n), given])
    by_noise = np.log(np.maximum(right, 1e-9)) - np.log(np.maximum(wrong, 1e-9))
    joined = noise.weight * own_odds + (1 - noise.weight) * by_noise
    score = np.asarray(1 / (1 + np.exp(-joined)), dtype=np.float32)
    return score, falling(np.asarray(joined, dtype=np.float32), wrong), suggested


def falling(score: Floats, wrong: Floats) -> Floats:
    """(n,) chances nearest to `wrong` that fall as the score rises, in [0, 1]."""
    from sklearn.isotonic import IsotonicRegression

    monotone = IsotonicRegression(increasing=False, out_of_bounds="clip").fit_transform(score, wrong)
    return np.asarray(np.clip(monotone, 0, 1), dtype=np.float32)


def estimate_noise(pred_probs: Floats, given: Ints, *, trained: bool = False) -> Noise:
    """Estimate how labels go wrong from out-of-sample probabilities and given labels.

    By expectation maximisation on the images that the model is surest of, half of those of each predicted
    class; the sharpness is the one that makes the given labels of all images most likely.

    Noise with a pattern is taken for people's, whose errors become more likely with the doubt of the model:
    they find the same images hard. These labels alone can't say whether doubt on a hard image is the model's
    or was the labeler's. A probe on features is taken at its word. A network that was trained for the task is
    expected to see most images clearly: where the likelihood says otherwise and the noise has a pattern, it
    is sharpened until three quarters of the images are clear, or the odds of an error are three times those
    on the images that the model is surest of.

    Args:
        pred_probs: (n, k) float32 out-of-sample probabilities, rows that sum to 1; of many rows a sample is
            taken.
        given: (n,) class numbers.
        trained: whether a network was trained for the task.

    Returns:
        The noise.
    """
    logs, given = _some(pred_probs, given, min(_MOST_ROWS, max(_MOST_CELLS // pred_probs.shape[1], 2000)))
    logs = _logs(logs)
    fewer = _some(logs, given, max(_CELLS_OF_SEARCH // logs.shape[1], 2000))
    likelihoods = [_fit(*fewer, sharpness)[1] for sharpness in _SHARPNESS]
    best = _fit(logs, given, _peak(likelihoods))[0]
    if trained and best.strength < _UNIFORM:
        best = _sharper(best, logs, given)
    return replace(best, weight=0.5) if trained else best


def _some(values: Floats, given: Ints, most: int) -> tuple[Floats, Ints]:
    """At most so many rows, drawn at random, in their order."""
    if len(given) <= most:
        return values, given
    rows = np.sort(np.random.default_rng(0).choice(len(given), most, replace=False))
    return values[rows], given[rows]


def _sharper(noise: Noise, logs: Floats, given: Ints) -> Noise:
    """The noise if most images are clear, as far as errors don't become too many."""
    lowest, highest = np.log(noise.sharpness), np.log(max(_clear_sharpness(logs), noise.sharpness))
    ceiling = _HARDEST * float(_odds(np.asarray(noise.rates @ np.bincount(given, minlength=len(noise.rates)))
                                     / len(given)))  # fmt: skip
    found = noise
    candidate = highest
    for _ in range(5):
        if candidate <= lowest:
            break
        sharper = _fit(logs, given, float(np.exp(candidate)))[0]
        sharper = replace(sharper, difficulty=_DOUBT_OF_PEOPLE)
        total, right = sharper.labels(_clear(logs, sharper.sharpness), given)
        wrong = 1 - float((right / total).mean())
        if wrong / (1 - wrong) <= ceiling:
            found, lowest = sharper, candidate
            if candidate == highest:
                break
        else:
            highest = candidate
        candidate = (lowest + highest) / 2
    return found


def _clear_sharpness(logs: Floats) -> float:
    """The power that makes all but a share of the images as clear as a trained network should see them."""
    share, clear = _CLEAR
    low, high = np.log(0.5), np.log(20.0)
    for _ in range(12):
        middle = (low + high) / 2
        surest = _clear(logs, float(np.exp(middle))).max(1)
        low, high = (middle, high) if np.quantile(surest, share) < clear else (low, middle)
    return float(np.exp(high))


def _fit(logs: Floats, given: Ints, sharpness: float) -> tuple[Noise, float]:
    """Rates and confusion at one sharpness, and the mean log-likelihood of all labels."""
    k = logs.shape[1]
    clear = _clear(logs, sharpness)
    anchors = _anchors(clear)
    anchors = anchors[np.argsort(given[anchors], kind="stable")]
    even = 1 / (k - 1)
    strength = among = 10.0
    rates = np.full(k, 0.1)
    taken_for = np.full((k, k), even, dtype=np.float32)  # by given (row) and true class
    for turn in range(_ROUNDS):
        chance = taken_for * rates.astype(np.float32)
        np.fill_diagonal(chance, 1 - rates)
        off = _counts(clear, anchors, given[anchors], chance)
        right = off.diagonal().astype(np.float64)
        np.fill_diagonal(off, 0)
        wrong = off.sum(0, dtype=np.float64)
        shares = wrong + right
        overall = wrong.sum() / max(shares.sum(), 1e-12)
        if turn % 4 == 3:
            most = np.argsort(-shares, kind="stable")[:100]
            among = _strength([(wrong[most], overall), (right[most], 1 - overall)], shares[most])
            most = np.argsort(-wrong, kind="stable")[:100]
            strength = _strength([(off[:, most], even)], wrong[most])
        rates = (wrong + among * overall) / (shares + among)
        taken_for = np.add(off, strength * even, out=off)
        taken_for /= (wrong + strength).astype(np.float32)
    np.fill_diagonal(taken_for, 0)
    confusion = taken_for.T.astype(np.float64)
    confusion /= confusion.sum(1, keepdims=True)
    found = Noise(
        sharpness=sharpness,
        rates=np.clip(rates, 1e-6, 0.95),
        confusion=confusion,
        strength=strength,
        difficulty=_DOUBT if strength < _UNIFORM else 0.0,
    )
    return found, float(np.log(found.labels(clear, given)[0]).mean())


def _counts(clear: Floats, anchors: Ints, given: Ints, chance: Floats) -> Floats:
    """(k, k) expected number of labels by given (row) and true class.

    Args:
        clear: (n, k) probabilities, sharpened.
        anchors: (m,) rows that are counted.
        given: (m,) class numbers of the anchors, sorted.
        chance: (k, k) of a given class (row) by true class.
    """
    counts = np.zeros_like(chance)
    names, starts = np.unique(given, return_index=True)
    for name, start, end in zip(names, starts, np.append(starts[1:], len(given)), strict=True):
        rows = clear[anchors[start:end]]
        weight = 1 / np.maximum(rows @ chance[name], 1e-30)
        counts[name] = weight @ rows
    counts *= chance
    return counts


def _anchors(clear: Floats) -> Ints:
    """Rows of the images that the model is surest of, of each class that it predicts."""
    predicted, surest = clear.argmax(1), clear.max(1)
    order = np.lexsort((-surest, predicted))
    sizes = np.bincount(predicted, minlength=clear.shape[1])
    position = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    kept = np.maximum(_ANCHORED * sizes, np.minimum(_FEWEST_ANCHORS, sizes))
    return np.asarray(np.sort(order[position < np.repeat(kept, sizes)]), dtype=np.int64)


def _strength(cells: list[tuple[Any, float]], totals: Doubles) -> float:
    """Strength of the Dirichlet prior under which rows of counts are most likely.

    Args:
        cells: counts of any shape with their share by the prior's mean.
        totals: (m,) sums of the rows.

    Reference: Minka, "Estimating a Dirichlet distribution", 2000, for the likelihood.
    """
    from scipy.special import digamma, gammaln, polygamma

    parts = []
    for counts, share in cells:
        # Of very small counts, as most are among many classes, two terms of the series are enough.
        large = counts[counts > 1e-3 * share * _STRENGTHS[0]].astype(np.float64)
        small = counts[counts <= 1e-3 * share * _STRENGTHS[0]].astype(np.float64)
        parts.append((large, float(small.sum()), float(small @ small) / 2, share))

    def likelihood(strength: float) -> float:
        sum_ = float((gammaln(strength) - gammaln(strength + totals)).sum())
        for large, first, second, share in parts:
            if share > 0:
                prior = max(strength * share, 1e-12)
                sum_ += float((gammaln(large + prior) - gammaln(prior)).sum())
                sum_ += first * float(digamma(prior)) + second * float(polygamma(1, prior))
        return sum_

    return float(max(_STRENGTHS, key=likelihood))


def _peak(likelihoods: list[float]) -> float:
    """The sharpness where a parabola through the best three is highest."""
    best = min(max(int(np.argmax(likelihoods)), 1), len(likelihoods) - 2)
    x = np.log(_SHARPNESS[best - 1 : best + 2])
    curve = np.polyfit(x, likelihoods[best - 1 : best + 2], 2)
    if curve[0] >= 0:
        return float(_SHARPNESS[int(np.argmax(likelihoods))])
    return float(np.exp(np.clip(-curve[1] / (2 * curve[0]), x[0], x[2])))


def _chunks(n: int, k: int) -> Iterator[slice]:
    step = max(1, _CHUNK // k)
    return (slice(start, start + step) for start in range(0, n, step))


def _logs(pred_probs: Floats) -> Floats:
    """Logarithms, less the largest in each row."""
    logs: Floats = np.maximum(pred_probs, 1e-9, dtype=np.float32, order="C")
    np.log(logs, out=logs)
    logs -= logs.max(1, keepdims=True)
    return logs


def _clear(logs: Floats, sharpness: float) -> Floats:
    """Probabilities, sharpened, from what `_logs` returns."""
    scores: Floats = logs * np.float32(sharpness)
    np.exp(scores, out=scores)
    scores /= scores.sum(1, keepdims=True)
    return scores


def _odds(chance: Any) -> Any:
    return chance / np.maximum(1 - chance, 1e-9)


def log_odds(chance: Floats) -> Floats:
    """log(p / (1 - p)), p at least 1e-7 from 0 and 1."""
    from scipy.special import logit

    return np.asarray(logit(np.clip(chance.astype(np.float64), 1e-7, 1 - 1e-7)), dtype=np.float32)


def expected_f1_flags(probability: Floats, *, least: float = 0.1, total: float | None = None) -> Bools:
    """Flag the items, most probable first, whose number makes the expected F1 largest.

    Args:
        probability: (n,) chances that items are wrong.
        least: an item less probable than this isn't flagged.
        total: how many errors are expected in all, where there are items besides these.

    Returns:
        (n,) bool.

    Reference: Lipton, Elkan and Naryanaswamy, "Optimal Thresholding of Classifiers to Maximize F1 Measure",
    ECML 2014.
    """
    order = np.argsort(-probability, kind="stable")
    expected = probability[order].cumsum(dtype=np.float64)
    flagged = np.zeros(len(probability), dtype=bool)
    if len(order) and expected[-1] > 0:
        f1 = 2 * expected / (np.arange(1, len(order) + 1) + (expected[-1] if total is None else total))
        flagged[order[: int(f1.argmax()) + 1]] = True
    # A handful of labels can't be flagged on a chance that is next to nothing.
    return np.asarray(flagged & (probability >= least))
