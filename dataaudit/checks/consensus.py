"""What several people's votes, the given labels and a baseline say together about the class of each image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

__all__ = ["Consensus", "Votes", "consensus", "expected_gain"]

Floats = np.ndarray[Any, np.dtype[np.float64]]
Ints = np.ndarray[Any, np.dtype[np.int64]]

_N_ROUNDS = 25
_CORRELATIONS = (0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7)
_OWN_CELLS = 2**22
_SMALLEST = 1e-12


@dataclass(frozen=True, kw_only=True)
class Votes:
    """Votes as numbers, sorted by annotator.

    Attributes:
        rows: (m,) position of the image.
        names: (m,) position of the class.
        weights: (m,) how many such votes.
        people: (m,) position of the annotator; all 0 where nobody knows who voted.
        n_rows: how many images there are.
        n_classes: how many classes.
        n_people: how many annotators; 1 where nobody knows.
    """

    rows: Ints
    names: Ints
    weights: Floats
    people: Ints
    n_rows: int
    n_classes: int
    n_people: int

    @classmethod
    def of(cls, votes: pd.DataFrame, ids: pd.Index, classes: pd.Index, people: pd.Index) -> Votes:
        """Votes as in `Annotations.votes`, of the images `ids` and the annotators `people`."""
        who = people.get_indexer(pd.Index(votes["annotator"])) if len(people) else np.zeros(len(votes))
        order = np.argsort(who, kind="stable")
        return cls(
            rows=ids.get_indexer(pd.Index(votes["sample_id"]))[order].astype(np.int64),
            names=classes.get_indexer(pd.Index(votes["name"]))[order].astype(np.int64),
            weights=votes["n"].to_numpy(dtype=np.float64)[order],
            people=np.asarray(who, dtype=np.int64)[order],
            n_rows=len(ids),
            n_classes=len(classes),
            n_people=max(len(people), 1),
        )

    def counts(self) -> Floats:
        """(n, k) votes of each image for each class."""
        cells = self.rows * self.n_classes + self.names
        size = self.n_rows * self.n_classes
        counts = np.bincount(cells, self.weights, size).astype(np.float64)
        return counts.reshape(self.n_rows, self.n_classes)

    def edges(self) -> Ints:
        """(n_people + 1,) where the votes of each annotator begin and end."""
        return np.searchsorted(self.people, np.arange(self.n_people + 1)).astype(np.int64)


@dataclass(frozen=True, kw_only=True)
class Consensus:
    """What is known about each image.

    Attributes:
        chances: (n, k) chance of each class for each image, rows that sum to 1.
        confusion: (k, k) how people in general answer (column) for each true class (row), rows that sum to 1.
        correlation: how much the votes for one image go together beyond its class, in [0, 1].
        of_votes: (m, k) logarithm of what each vote adds, in the order of `Votes`.
        independent: whether the given labels count as an answer of their own.
    """

    chances: Floats
    confusion: Floats
    correlation: float
    of_votes: Floats
    independent: bool


def consensus(
    votes: Votes, prior: Floats | None = None, given: Ints | None = None, *, strength: float = 50.0
) -> Consensus:
    """Estimate the class of each image and how well each annotator tells the classes, together.

    Expectation maximisation over a confusion matrix of each annotator, which is drawn towards how people in
    general answer, moved up or down by how often this one is right: with few votes little more than that can
    be known. A vote is weighed by what its annotator says about other images. The votes for one image aren't
    independent, as some images mislead everybody; how much less they weigh together follows from how
    unevenly they are spread. `prior` is sharpened or flattened until it fits the votes.

    The given labels are one more annotator, unless they were made from the votes: a label that is never
    outside of what the voters said, where one in so many would be.

    Args:
        votes: the votes.
        prior: (n, k) out-of-sample probabilities of a baseline; rows of NaN where it has none.
        given: (n,) position of the given class, -1 where there is none.
        strength: how many votes for each class the general matrix counts for.

    Reference: Dawid and Skene, "Maximum Likelihood Estimation of Observer Error-Rates Using the EM
    Algorithm", Journal of the Royal Statistical Society C 28, 1979. New are the shared matrix, the weighing
    without the vote itself, and Dirichlet-multinomial votes for the correlation.
    """
    scores = None if prior is None else np.log(np.maximum(prior, _SMALLEST))
    found = _fit(votes, scores, None, strength)
    if given is None or not (given >= 0).any() or _made_from_votes(found, votes.counts(), given):
        return found
    return _fit(votes, scores, given, strength)


def expected_gain(chances: Floats, confusion: Floats, *, n_candidates: int = 8) -> Floats:
    """How much one more person's answer is expected to add to the certainty about an image.

    The certainty is the sum of the squared chances: the chance that a class drawn from them is the true one.

    Args:
        chances: (n, k) chance of each class, rows that sum to 1.
        confusion: (k, k) answers (column) for each true class (row), rows that sum to 1.
        n_candidates: how many of the most probable classes are looked at.

    Returns:
        (n,) values in [0, 1 - 1 / k].

    >>> expected_gain(np.array([[0.5, 0.5], [1.0, 0.0]]), np.eye(2)).tolist()
    [0.5, 0.0]
    """
    n, k = chances.shape
    m = min(n_candidates, k)
    top = np.argpartition(-chances, m - 1, axis=1)[:, :m]
    own = np.take_along_axis(chances, top, 1)
    own = own / np.maximum(own.sum(1, keepdims=True), _SMALLEST)
    gain = np.empty(n)
    for start in range(0, n, 8192):
        here = slice(start, start + 8192)
        answer = confusion[top[here][:, :, None], top[here][:, None, :]]
        rest = np.maximum(1 - answer.sum(2), 0)
        joint = own[here][:, :, None] * np.concatenate([answer, rest[:, :, None]], axis=2)
        after = (joint**2).sum(1) / np.maximum(joint.sum(1), _SMALLEST)
        gain[here] = after.sum(1) - (own[here] ** 2).sum(1)
    return np.clip(gain, 0, 1)


def _fit(votes: Votes, scores: Floats | None, given: Ints | None, strength: float) -> Consensus:
    counts = votes.counts()
    total = counts.sum(1)
    chances = (counts + 1 / votes.n_classes) / (total[:, None] + 1)
    labeled = np.flatnonzero(given >= 0) if given is not None else np.zeros(0, dtype=np.int64)
    sharpness, correlation = 1.0, 0.0
    for turn in range(_N_ROUNDS):
        before = chances
        confusion = _confusion(chances, counts)
        if turn % 5 == 1:
            correlation = _correlation(counts, confusion, chances)
        weights = votes.weights / (1 + np.maximum(total - 1, 0) * correlation)[votes.rows]
        usual = _Usual.of(chances, confusion)
        of_votes = _of_votes(votes, chances, usual, strength)
        evidence = _sum_by_row(of_votes, weights, votes)
        if given is not None:
            ones = np.ones(len(labeled))
            evidence[labeled] += usual.answers(chances, labeled, given[labeled], ones, strength, own=True)
        if scores is not None and turn % 5 == 1:
            sharpness = _sharpness(scores, evidence)
        share = (chances.sum(0) + 1) / (len(chances) + votes.n_classes)
        chances = _normal(evidence + _log_prior(scores, sharpness, share))
        if turn > 6 and float(np.abs(chances - before).mean()) < 1e-4 / votes.n_classes:
            break
    return Consensus(
        chances=chances,
        confusion=confusion,
        correlation=correlation,
        of_votes=of_votes * (weights / votes.weights)[:, None],
        independent=given is not None,
    )


@dataclass(frozen=True, kw_only=True)
class _Usual:
    """How people in general answer."""

    right: float
    right_of_class: Floats  # (k,)
    errors: Floats  # (k, k) with an empty diagonal, rows that sum to 1

    @classmethod
    def of(cls, chances: Floats, confusion: Floats) -> _Usual:
        errors = confusion.copy()
        np.fill_diagonal(errors, 0)
        errors /= np.maximum(errors.sum(1, keepdims=True), _SMALLEST)
        right = np.diag(confusion)
        return cls(right=float((chances @ right).mean()), right_of_class=right, errors=errors)

    def answers(
        self, chances: Floats, rows: Ints, names: Ints, weights: Floats, strength: float, *, own: bool
    ) -> Floats:
        """(m, k) logarithm of the chance that one annotator gives each of its answers, by true class."""
        at = chances[rows]
        right = (weights @ at[np.arange(len(rows)), names] + 4 * self.right) / (weights.sum() + 4)
        shift = _logit(right) - _logit(self.right)
        diagonal = 1 / (1 + np.exp(-(_logit(self.right_of_class) + shift)))
        matrix = self.errors * (1 - diagonal)[:, None]
        np.fill_diagonal(matrix, diagonal)
        answers = matrix.T[names]
        if own:
            # Without the vote itself, which would vouch for what it says
            cells = np.zeros(matrix.shape)
            mass = weights[:, None] * at
            np.add.at(cells, names, mass)
            answers = (cells[names] - mass + strength * answers) / (cells.sum(0) - mass + strength)
        return np.asarray(np.log(np.maximum(answers, 1e-5)))


def _of_votes(votes: Votes, chances: Floats, usual: _Usual, strength: float) -> Floats:
    edges = votes.edges()
    own = votes.n_people * votes.n_classes**2 <= _OWN_CELLS
    out = np.empty((len(votes.rows), votes.n_classes))
    for person in range(votes.n_people):
        here = slice(edges[person], edges[person + 1])
        out[here] = usual.answers(
            chances, votes.rows[here], votes.names[here], votes.weights[here], strength, own=own
        )
    return out


def _made_from_votes(found: Consensus, counts: Floats, given: Ints) -> bool:
    """Whether the given labels never are what no voter said, although independent ones sometimes would be."""
    rows = np.flatnonzero((given >= 0) & (counts.sum(1) > 0))
    if not len(rows):
        return False
    one_hot = np.zeros((len(rows), counts.shape[1]))
    one_hot[np.arange(len(rows)), given[rows]] = 1
    answers = found.chances[rows] @ _confusion(found.chances[rows], one_hot)
    expected = float((answers * (counts[rows] == 0)).sum())
    seen = int((counts[rows, given[rows]] == 0).sum())
    return expected >= 3 and seen <= 0.03 * expected


def _normal(logarithms: Floats) -> Floats:
    chances = np.exp(logarithms - logarithms.max(1, keepdims=True))
    return np.asarray(chances / chances.sum(1, keepdims=True))


def _log_prior(scores: Floats | None, sharpness: float, share: Floats) -> Floats:
    known: Floats = np.log(share)[None, :]
    if scores is None:
        return known
    own = sharpness * (scores - scores.max(1, keepdims=True))
    own -= np.log(np.exp(own).sum(1, keepdims=True))
    return np.where(np.isnan(scores[:, :1]), known, own)


def _confusion(chances: Floats, counts: Floats, *, strength: float = 3.0) -> Floats:
    """(k, k) how people answer for each class, drawn towards equal errors where there is little to count."""
    k = counts.shape[1]
    cells = chances.T @ counts
    right = min(float((np.trace(cells) + 1) / (cells.sum() + 1 + 1 / k)), 0.999)
    even = np.full((k, k), (1 - right) / max(k - 1, 1))
    np.fill_diagonal(even, right)
    cells += strength * even
    return np.asarray(cells / cells.sum(1, keepdims=True))


def _logit(p: Any) -> Any:
    p = np.clip(p, 1e-4, 1 - 1e-4)
    return np.log(p / (1 - p))


def _sum_by_row(values: Floats, weights: Floats, votes: Votes) -> Floats:
    from scipy.sparse import csr_matrix

    m = len(votes.rows)
    by_row = csr_matrix((weights, (votes.rows, np.arange(m))), shape=(votes.n_rows, m))
    return np.asarray(by_row @ values)


def _correlation(counts: Floats, confusion: Floats, chances: Floats) -> float:
    """The intra-class correlation whose Dirichlet-multinomial votes fit best."""
    from scipy.special import gammaln

    rows = np.flatnonzero(counts.sum(1) >= 2)
    if len(rows) < 10:
        return 0.1
    if len(rows) > 5000:
        rows = rows[np.linspace(0, len(rows) - 1, 5000).astype(int)]
    cells = counts[rows]
    candidates = np.argsort(-chances[rows], axis=1)[:, :3]
    share = np.log(chances.mean(0) + _SMALLEST)
    image, name = np.nonzero(cells)
    votes, total = cells[image, name], cells.sum(1)
    found = (-np.inf, 0.0)
    for correlation in _CORRELATIONS:
        size = (1 - correlation) / max(correlation, 1e-6)
        whole = gammaln(size) - gammaln(size + total)
        parts = []
        for true in candidates.T:
            alpha = size * confusion[true[image], name]
            each = gammaln(alpha + votes) - gammaln(alpha)
            parts.append(share[true] + whole + np.bincount(image, each, len(rows)))
        together = float(np.logaddexp.reduce(np.array(parts), axis=0).sum())
        found = max(found, (together, correlation))
    return found[1]


def _sharpness(scores: Floats, evidence: Floats) -> float:
    """The exponent of the baseline's probabilities under which the votes are most probable."""
    from scipy.optimize import minimize_scalar

    rows = np.flatnonzero(~np.isnan(scores[:, 0]))
    if not len(rows):
        return 1.0
    if len(rows) > 20_000:
        rows = rows[np.linspace(0, len(rows) - 1, 20_000).astype(int)]
    centred = scores[rows] - scores[rows].max(1, keepdims=True)
    chance = np.exp(evidence[rows] - evidence[rows].max(1, keepdims=True))

    def loss(log_factor: float) -> float:
        odds = np.exp(np.exp(log_factor) * centred)
        return -float(np.mean(np.log((odds * chance).sum(1) + 1e-300) - np.log(odds.sum(1))))

    return float(np.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded", options={"xatol": 1e-2}).x))
