"""How many labels are wrong, and which: a model of the noise, estimated from out-of-sample probabilities.

What a model predicts from noisy labels is a picture of the noise too, and it isn't as sharp as the truth.
So three things are told apart here: how sure the model would be of the true class (its sharpness), how often
a label of each class is wrong, and what it is then taken for. The images that the model is surest of say the
last two: there it hardly errs by itself, and a label that disagrees is likely to be wrong. A few wrong
labels say little about each of the many ways to be wrong; how much they say is itself estimated (empirical
Bayes): noise that hits all classes alike is recognised as such, and isn't taken for a pattern.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

__all__ = ["Noise", "error_probabilities", "estimate_noise", "expected_f1_flags", "falling", "log_odds"]

Floats = np.ndarray[Any, np.dtype[np.float32]]
Doubles = np.ndarray[Any, np.dtype[np.float64]]
Ints = np.ndarray[Any, np.dtype[np.int64]]
Bools = np.ndarray[Any, np.dtype[np.bool_]]

_CELLS = 2**23
_MOST_ROWS = 50_000
_ANCHORED = 0.5  # share of the images of a predicted class, the surest, that the noise is estimated from
_FEWEST_ANCHORS = 20
_SHARPNESS = tuple(np.geomspace(0.7, 7.0, 10))
_STRENGTHS = np.geomspace(1.0, 1e5, 26)
_UNIFORM = 60.0  # a strength above this means noise without a pattern
_DOUBT, _DOUBT_OF_PEOPLE = 0.1, 0.75  # rise of the log-odds of an error per nat of the model's doubt
_CLEAR = (0.25, 0.98)  # of a trained network: all but a quarter of the images are clearer than this
_HARDEST = 3.0  # and the odds of a wrong label at most this many times those of the surest images


@dataclass(frozen=True, kw_only=True)
class Noise:
    """How labels go wrong, and how sure the model is of the truth.

    Attributes:
        sharpness: power of the model's probabilities that gives those of the true class.
        rates: (k,) how often a label is wrong, by true class, on the clearest images.
        confusion: (k, k) what a wrong label says, by true class; zero diagonal, rows sum to 1.
        strength: of the prior on a row of `confusion`, in labels; above 60 the noise has no pattern.
        difficulty: by how much the log-odds of a wrong label rise, per nat of the model's doubt.
        weight: of the model's own judgement in the score, in [0, 1]; the rest is the noise's.
    """

    sharpness: float
    rates: Doubles
    confusion: Doubles
    strength: float
    difficulty: float = 0.1
    weight: float = 2 / 3

    def posterior(self, pred_probs: Floats, given: Ints) -> tuple[Floats, Floats]:
        """Chance of each true class, given image and label; and the log-likelihood of the label.

        Args:
            pred_probs: (m, k) out-of-sample probabilities.
            given: (m,) class numbers.

        Returns:
            (m, k) float32 rows that sum to 1, and (m,) float32.
        """
        clear = _sharpened(pred_probs, self.sharpness)
        rows = np.arange(len(given))
        doubt = np.minimum(-np.log(np.maximum(clear.max(1), 1e-9)), 1.5)
        odds = np.exp(self.difficulty * doubt)[:, None] * _odds(self.rates).astype(np.float32)
        wrong = odds / (1 + odds)
        right = clear[rows, given] * (1 - wrong[rows, given])
        wrong *= clear
        wrong *= self.confusion.T.astype(np.float32)[given]
        wrong[rows, given] = right
        total = np.maximum(wrong.sum(1), 1e-30)
        wrong /= total[:, None]
        return wrong, np.log(total)


def error_probabilities(
    pred_probs: Floats, given: Ints, *, trained: bool = False, noise: Noise | None = None
) -> tuple[Floats, Floats, Ints]:
    """How suspect each label is, the chance that it is wrong, and the class that is most probable then.

    The score joins two judgements, as log-odds: the probability that the model gives to the label, and the
    chance by the estimated noise that it is right. The first holds whatever the noise is like, and has twice
    the weight where a probe judges; the second knows which mistakes are common, and counts as much where a
    trained network does. The chances are made to fall as the score rises.

    Args:
        pred_probs: (n, k) float32 out-of-sample probabilities, rows that sum to 1.
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
    step = max(1, _CELLS // (4 * k))
    for start in range(0, n, step):
        here = slice(start, start + step)
        part, _ = noise.posterior(pred_probs[here], given[here])
        own = np.arange(len(part))
        right[here] = part[own, given[here]]
        part[own, given[here]] = 0
        wrong[here] = part.sum(1)
        suggested[here] = part.argmax(1)
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

    These labels alone can't say whether doubt on a hard image is the model's or was the labeler's. A probe on
    features is taken at its word. A network that was trained for the task is expected to see most images
    clearly: where the likelihood says otherwise and the noise has a pattern, as that of people does, it is
    sharpened until three quarters of the images are clear, or the odds of an error are
    three times those on the images that the model is surest of; and errors then become more likely with
    the model's doubt.

    Args:
        pred_probs: (n, k) float32 out-of-sample probabilities, rows that sum to 1; of many rows a sample is
            taken.
        given: (n,) class numbers.
        trained: whether a network was trained for the task.

    Returns:
        The noise.
    """
    n, k = pred_probs.shape
    most = int(min(_MOST_ROWS, max(_CELLS * 2 // k, 2000)))
    if n > most:
        rows = np.sort(np.random.default_rng(0).choice(n, most, replace=False))
        pred_probs, given = pred_probs[rows], given[rows]
    fits = [_fit(pred_probs, given, sharpness) for sharpness in _SHARPNESS]
    best = _fit(pred_probs, given, _peak([likelihood for _, likelihood in fits]))[0]
    if trained and best.strength < _UNIFORM:
        best = _sharper(best, pred_probs, given)
    return replace(best, weight=0.5) if trained else best


def _sharper(noise: Noise, pred_probs: Floats, given: Ints) -> Noise:
    """The noise if most images are clear, as far as errors don't become too many."""
    lowest, highest = np.log(noise.sharpness), np.log(max(_clear_sharpness(pred_probs), noise.sharpness))
    ceiling = _HARDEST * float(_odds(np.asarray(noise.rates @ np.bincount(given, minlength=len(noise.rates)))
                                     / len(given)))  # fmt: skip
    found = noise
    candidate = highest
    for _ in range(5):
        if candidate <= lowest:
            break
        sharper = _fit(pred_probs, given, float(np.exp(candidate)), difficulty=_DOUBT_OF_PEOPLE)[0]
        posterior, _ = sharper.posterior(pred_probs, given)
        wrong = 1 - float(posterior[np.arange(len(given)), given].mean())
        if wrong / (1 - wrong) <= ceiling:
            found, lowest = sharper, candidate
            if candidate == highest:
                break
        else:
            highest = candidate
        candidate = (lowest + highest) / 2
    return found


def _clear_sharpness(pred_probs: Floats) -> float:
    """The power that makes all but a share of the images as clear as a trained network should see them."""
    share, clear = _CLEAR
    low, high = np.log(0.5), np.log(20.0)
    for _ in range(12):
        middle = (low + high) / 2
        surest = _sharpened(pred_probs, float(np.exp(middle))).max(1)
        low, high = (middle, high) if np.quantile(surest, share) < clear else (low, middle)
    return float(np.exp(high))


def _fit(
    pred_probs: Floats,
    given: Ints,
    sharpness: float,
    *,
    anchored: float = _ANCHORED,
    difficulty: float = _DOUBT,
    n_rounds: int = 12,
) -> tuple[Noise, float]:
    """Rates and confusion at one sharpness, and the mean log-likelihood of all labels."""
    k = pred_probs.shape[1]
    clear = _sharpened(pred_probs, sharpness)
    anchors = _anchors(clear, anchored)
    surest, labels = clear[anchors], given[anchors]
    even = (1 - np.eye(k)) / (k - 1)
    rates, confusion = np.full(k, 0.1), even
    strength = among = 10.0
    for turn in range(n_rounds):
        counts = _counts(surest, labels, rates, confusion)
        wrong = counts.sum(1) - np.diag(counts)
        shares = counts.sum(1)
        overall = wrong.sum() / max(shares.sum(), 1e-12)
        off = counts * (1 - np.eye(k))
        if turn % 4 == 3:
            base = np.array([[overall, 1 - overall]]).repeat(k, axis=0)
            among = _strength(np.c_[wrong, shares - wrong], base)
            strength = _strength(off, even)
        rates = (wrong + among * overall) / (shares + among)
        confusion = off + strength * even
        confusion /= confusion.sum(1, keepdims=True)
    found = Noise(
        sharpness=sharpness,
        rates=np.clip(rates, 1e-6, 0.95),
        confusion=confusion,
        strength=strength,
        difficulty=difficulty,
    )
    return found, float(found.posterior(pred_probs, given)[1].mean())


def _counts(clear: Floats, given: Ints, rates: Doubles, confusion: Doubles) -> Doubles:
    """(k, k) expected number of labels by true class (row) and given class."""
    from scipy.sparse import csr_matrix

    n, k = clear.shape
    chance = confusion * rates[:, None]
    np.fill_diagonal(chance, 1 - rates)
    joint = clear * chance.T.astype(np.float32)[given]
    joint /= np.maximum(joint.sum(1, keepdims=True), 1e-30)
    by_given = csr_matrix((np.ones(n, dtype=np.float32), (given, np.arange(n))), shape=(k, n))
    return np.asarray(by_given @ joint, dtype=np.float64).T


def _anchors(clear: Floats, share: float) -> Ints:
    """Rows of the images that the model is surest of, of each class that it predicts."""
    predicted, surest = clear.argmax(1), clear.max(1)
    order = np.lexsort((-surest, predicted))
    sizes = np.bincount(predicted, minlength=clear.shape[1])
    position = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    kept = np.maximum(share * sizes, np.minimum(_FEWEST_ANCHORS, sizes))
    return np.asarray(np.sort(order[position < np.repeat(kept, sizes)]), dtype=np.int64)


def _strength(counts: Doubles, base: Doubles) -> float:
    """Strength of the Dirichlet prior with mean `base` under which rows of counts are most likely.

    Reference: Minka, "Estimating a Dirichlet distribution", 2000, for the likelihood.
    """
    from scipy.special import gammaln

    rows = np.argsort(-counts.sum(1), kind="stable")[:100]
    counts, base = counts[rows], base[rows]
    totals = counts.sum(1)

    def likelihood(strength: float) -> float:
        prior = np.maximum(strength * base, 1e-12)
        cells = np.where(base > 0, gammaln(counts + prior) - gammaln(prior), 0.0).sum()
        return float((gammaln(strength) - gammaln(strength + totals)).sum() + cells)

    return float(max(_STRENGTHS, key=likelihood))


def _peak(likelihoods: list[float]) -> float:
    """The sharpness where a parabola through the best three is highest."""
    best = min(max(int(np.argmax(likelihoods)), 1), len(likelihoods) - 2)
    x = np.log(_SHARPNESS[best - 1 : best + 2])
    curve = np.polyfit(x, likelihoods[best - 1 : best + 2], 2)
    if curve[0] >= 0:
        return float(_SHARPNESS[int(np.argmax(likelihoods))])
    return float(np.exp(np.clip(-curve[1] / (2 * curve[0]), x[0], x[2])))


def _sharpened(pred_probs: Floats, sharpness: float) -> Floats:
    scores: Floats = np.log(np.maximum(pred_probs, 1e-9), dtype=np.float32)
    scores -= scores.max(1, keepdims=True)
    scores *= np.float32(sharpness)
    np.exp(scores, out=scores)
    scores /= scores.sum(1, keepdims=True)
    return scores


def _odds(chance: Any) -> Any:
    return chance / np.maximum(1 - chance, 1e-9)


def log_odds(chance: Floats) -> Floats:
    """log(p / (1 - p)), p at least 1e-7 from 0 and 1."""
    safe = np.clip(chance.astype(np.float64), 1e-7, 1 - 1e-7)
    return np.asarray(np.log(safe) - np.log1p(-safe), dtype=np.float32)


def expected_f1_flags(probability: Floats, *, least: float = 0.1) -> Bools:
    """Flag the items, most probable first, whose number makes the expected F1 largest.

    Args:
        probability: (n,) chances that items are wrong.
        least: an item less probable than this isn't flagged.

    Returns:
        (n,) bool.

    Reference: Lipton, Elkan and Naryanaswamy, "Optimal Thresholding of Classifiers to Maximize F1 Measure",
    ECML 2014.
    """
    order = np.argsort(-probability, kind="stable")
    expected = probability[order].cumsum(dtype=np.float64)
    flagged = np.zeros(len(probability), dtype=bool)
    if len(order) and expected[-1] > 0:
        f1 = 2 * expected / (np.arange(1, len(order) + 1) + expected[-1])
        flagged[order[: int(f1.argmax()) + 1]] = True
    # A handful of labels can't be flagged on a chance that is next to nothing.
    return np.asarray(flagged & (probability >= least))
