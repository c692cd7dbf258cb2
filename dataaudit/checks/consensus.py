"""What several people's votes, the given labels and a baseline say together about the class of each image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

__all__ = ["Consensus", "Votes", "consensus", "expected_gain"]

Floats = np.ndarray[Any, np.dtype[np.float64]]
Ints = np.ndarray[Any, np.dtype[np.int64]]

_N_ROUNDS = 20
_N_CANDIDATES = 12
_CORRELATIONS = (0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7)
_OWN_CELLS = 2**22
_SMALLEST = 1e-12
_NEVER = -1e4


@dataclass(frozen=True, kw_only=True)
class Votes:
    """Votes as numbers.

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
        return cls(
            rows=ids.get_indexer(pd.Index(votes["sample_id"])).astype(np.int64),
            names=classes.get_indexer(pd.Index(votes["name"])).astype(np.int64),
            weights=votes["n"].to_numpy(dtype=np.float64),
            people=np.asarray(who, dtype=np.int64),
            n_rows=len(ids),
            n_classes=len(classes),
            n_people=max(len(people), 1),
        )

    def totals(self) -> Floats:
        """(n,) votes of each image."""
        return np.bincount(self.rows, self.weights, self.n_rows).astype(np.float64)


@dataclass(frozen=True, kw_only=True)
class Consensus:
    """What is known about each image.

    Attributes:
        columns: (n, c) the classes that come into question for each image, -1 where there are fewer.
        chances: (n, c) the chance of each, rows that sum to 1.
        counts: (n, c) votes for each.
        confusion: (k, k) how people in general answer (column) for each true class (row), rows that sum to 1.
        correlation: how much the votes for one image go together beyond its class, in [0, 1].
        of_votes: (m, c) logarithm of what each vote adds, in the order of `Votes`.
        independent: whether the given labels count as an answer of their own.
    """

    columns: Ints
    chances: Floats
    counts: Floats
    confusion: Floats
    correlation: float
    of_votes: Floats
    independent: bool

    @property
    def best(self) -> Ints:
        """(n,) the most probable class of each image."""
        return np.asarray(np.take_along_axis(self.columns, self.chances.argmax(1)[:, None], 1)[:, 0])

    def chance_of(self, rows: Ints, names: Ints) -> Floats:
        """(m,) the chance that each of the images `rows` has the class in `names`."""
        return np.asarray((self.chances[rows] * (self.columns[rows] == names[:, None])).sum(1))


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

    With more than 12 classes the 12 that votes, label, baseline and the other votes suggest are looked at for
    each image.

    Args:
        votes: the votes.
        prior: (n, k) out-of-sample probabilities of a baseline; rows of NaN where it has none.
        given: (n,) position of the given class, -1 where there is none.
        strength: how many votes for each class the general matrix counts for.

    Reference: Dawid and Skene, "Maximum Likelihood Estimation of Observer Error-Rates Using the EM
    Algorithm", Journal of the Royal Statistical Society C 28, 1979. New are the shared matrix, the weighing
    without the vote itself, and Dirichlet-multinomial votes for the correlation.
    """
    given = np.full(votes.n_rows, -1, dtype=np.int64) if given is None else given
    data = _Data.of(votes, prior, given)
    found = _fit(data, None, strength)
    if not (given >= 0).any() or _made_from_votes(found, given):
        return found
    return _fit(data, given, strength, start=found.chances)


def expected_gain(chances: Floats, confusion: Floats, columns: Ints | None = None) -> Floats:
    """How much one more person's answer is expected to add to the certainty about an image.

    The certainty is the sum of the squared chances: the chance that a class drawn from them is the true one.

    Args:
        chances: (n, c) chance of each class, rows that sum to 1.
        confusion: (k, k) answers (column) for each true class (row), rows that sum to 1.
        columns: (n, c) the classes that the chances are of, -1 for none; by default all in their order.

    Returns:
        (n,) values in [0, 1 - 1 / c].

    >>> expected_gain(np.array([[0.5, 0.5], [1.0, 0.0]]), np.eye(2)).tolist()
    [0.5, 0.0]
    """
    n, c = chances.shape
    classes = np.broadcast_to(np.arange(c), (n, c)) if columns is None else np.maximum(columns, 0)
    gain = np.empty(n)
    for start in range(0, n, 8192):
        here = slice(start, start + 8192)
        own = chances[here]
        answer = confusion[classes[here][:, :, None], classes[here][:, None, :]]
        if columns is not None:
            answer = answer * (columns[here] >= 0)[:, None, :]
        rest = np.maximum(1 - answer.sum(2), 0)
        joint = own[:, :, None] * np.concatenate([answer, rest[:, :, None]], axis=2)
        after = (joint**2).sum(1) / np.maximum(joint.sum(1), _SMALLEST)
        gain[here] = after.sum(1) - (own**2).sum(1)
    return np.clip(gain, 0, 1)


@dataclass(frozen=True, kw_only=True)
class _Data:
    votes: Votes
    columns: Ints  # (n, c)
    classes: Ints  # (n, c) the same with 0 for none, for looking up
    missing: np.ndarray[Any, np.dtype[np.bool_]]  # (n, c)
    counts: Floats  # (n, c)
    totals: Floats  # (n,)
    scores: Floats | None  # (n, c) logarithm of the baseline's probabilities, NaN where it has none

    @classmethod
    def of(cls, votes: Votes, prior: Floats | None, given: Ints) -> _Data:
        columns = _candidates(votes, prior, given)
        missing, classes = columns < 0, np.maximum(columns, 0)
        hit = columns[votes.rows] == votes.names[:, None]
        cells = (votes.rows[:, None] * columns.shape[1] + np.arange(columns.shape[1]))[hit]
        weights = np.broadcast_to(votes.weights[:, None], hit.shape)[hit]
        counts = np.bincount(cells, weights, columns.size).reshape(columns.shape)
        scores = None
        if prior is not None:
            scores = np.log(np.maximum(np.take_along_axis(prior, classes, 1), _SMALLEST))
            scores[missing] = np.log(_SMALLEST)
            scores[np.isnan(prior[:, 0])] = np.nan
        return cls(
            votes=votes, columns=columns, classes=classes, missing=missing,
            counts=counts.astype(np.float64), totals=votes.totals(), scores=scores,
        )  # fmt: skip


def _candidates(votes: Votes, prior: Floats | None, given: Ints) -> Ints:
    """The classes that come into question for each image, most supported first; -1 fills the rest."""
    n, k = votes.n_rows, votes.n_classes
    if k <= _N_CANDIDATES:
        return np.broadcast_to(np.arange(k), (n, k)).copy()
    labeled = np.flatnonzero(given >= 0)
    rows, names = [votes.rows, labeled], [votes.names, given[labeled]]
    weights = [1e3 * votes.weights, np.full(len(labeled), 500.0)]
    often = _said_for_the_same(votes)
    for column in often.T:
        rows.append(votes.rows)
        names.append(column[votes.names])
        weights.append(np.full(len(votes.rows), 1e-3))
    if prior is not None:
        top = np.argpartition(-prior, 5, axis=1)[:, :6]
        rows.append(np.repeat(np.arange(n), top.shape[1]))
        names.append(top.ravel())
        weights.append(np.nan_to_num(np.take_along_axis(prior, top, 1).ravel()))
    keys, inverse = np.unique(np.concatenate(rows) * k + np.concatenate(names), return_inverse=True)
    support = np.bincount(inverse, np.concatenate(weights))
    order = np.lexsort((-support, keys // k))
    row, name = keys[order] // k, keys[order] % k
    place = np.arange(len(row)) - np.searchsorted(row, row)
    kept = place < _N_CANDIDATES
    columns = np.full((n, _N_CANDIDATES), -1, dtype=np.int64)
    columns[row[kept], place[kept]] = name[kept]
    return columns


def _said_for_the_same(votes: Votes, *, n_classes: int = 4) -> Ints:
    """(k, 4) the classes that are voted for most often where each class is."""
    from scipy.sparse import csr_matrix

    ones = np.ones(len(votes.rows))
    table = csr_matrix((ones, (votes.rows, votes.names)), shape=(votes.n_rows, votes.n_classes))
    together = np.asarray((table.T @ table).todense())
    return np.argpartition(-together, n_classes, axis=1)[:, :n_classes].astype(np.int64)


def _fit(data: _Data, given: Ints | None, strength: float, start: Floats | None = None) -> Consensus:
    votes, c = data.votes, data.columns.shape[1]
    chances = (data.counts + 1 / c) / (data.totals[:, None] + 1) if start is None else start
    chances = _normal(np.where(data.missing, _NEVER, np.log(np.maximum(chances, _SMALLEST))))
    extra = None if given is None else _given_as_votes(given, votes)
    sharpness, correlation = 1.0, 0.0
    for turn in range(_N_ROUNDS):
        before = chances
        confusion = _confusion(data, chances, votes)
        if turn % 5 == 1:
            correlation = _correlation(data, confusion, chances)
        weights = votes.weights / (1 + np.maximum(data.totals - 1, 0) * correlation)[votes.rows]
        of_votes = _answers(data, chances, confusion, votes, strength)
        evidence = _sum_by_row(of_votes, weights, votes)
        if extra is not None:
            of_given = _answers(data, chances, confusion, extra, strength)
            evidence += _sum_by_row(of_given, extra.weights, extra)
        if data.scores is not None and turn % 5 == 1:
            sharpness = _sharpness(data.scores, evidence)
        prior = _log_prior(data, sharpness, chances)
        chances = _normal(np.where(data.missing, _NEVER, evidence + prior))
        if turn > 5 and float(np.abs(chances - before).mean()) < 1e-4 / c:
            break
    return Consensus(
        columns=data.columns,
        chances=chances,
        counts=data.counts,
        confusion=confusion,
        correlation=correlation,
        of_votes=of_votes * (weights / votes.weights)[:, None],
        independent=given is not None,
    )


def _given_as_votes(given: Ints, votes: Votes) -> Votes:
    rows = np.flatnonzero(given >= 0)
    return Votes(
        rows=rows, names=given[rows], weights=np.ones(len(rows)), people=np.zeros(len(rows), dtype=np.int64),
        n_rows=votes.n_rows, n_classes=votes.n_classes, n_people=1,
    )  # fmt: skip


def _answers(data: _Data, chances: Floats, confusion: Floats, votes: Votes, strength: float) -> Floats:
    """(m, c) logarithm of the chance that this annotator gives this answer, for each class of the image."""
    k, people = votes.n_classes, votes.n_people
    classes, said = data.classes[votes.rows], votes.names[:, None]
    mass = votes.weights[:, None] * chances[votes.rows]
    is_said = classes == said
    right_of_class = np.diag(confusion)
    usual = float((chances * right_of_class[data.classes]).sum() / max(len(chances), 1))
    n = np.bincount(votes.people, votes.weights, people)
    right = (np.bincount(votes.people, (mass * is_said).sum(1), people) + 4 * usual) / (n + 4)
    shift = _logit(right) - _logit(usual)
    diagonal = 1 / (1 + np.exp(-(_logit(right_of_class)[classes] + shift[votes.people, None])))
    errors = confusion / np.maximum(1 - right_of_class, _SMALLEST)[:, None]
    answers = np.where(is_said, diagonal, errors[classes, said] * (1 - diagonal))
    if people * k**2 <= _OWN_CELLS:
        # Without the vote itself, which would vouch for what it says
        cell = (votes.people[:, None] * k + classes) * k + said
        cells = np.bincount(cell.ravel(), mass.ravel(), people * k**2)
        seen = cells.reshape(people, k, k).sum(2)[votes.people[:, None], classes]
        answers = (cells[cell] - mass + strength * answers) / (seen - mass + strength)
    return np.asarray(np.log(np.maximum(answers, 1e-5)))


def _made_from_votes(found: Consensus, given: Ints) -> bool:
    """Whether the given labels never are what no voter said, although independent ones sometimes would be."""
    rows = np.flatnonzero((given >= 0) & (found.counts.sum(1) > 0))
    if not len(rows):
        return False
    columns, counts, chances = found.columns[rows], found.counts[rows], found.chances[rows]
    is_given = columns == given[rows][:, None]
    right = float((chances * is_given).sum() / len(rows))
    # Of the labels that aren't the true class, how many would be what somebody said if they were independent
    unsaid = (counts == 0) & (columns >= 0)
    share = unsaid.sum(1) / np.maximum((columns >= 0).sum(1) - 1, 1)
    expected = float(((chances * unsaid).sum(1) * right + (1 - right) * share).sum())
    seen = int(((counts * is_given).sum(1) == 0).sum())
    return expected >= 3 and seen <= 0.03 * expected


def _normal(logarithms: Floats) -> Floats:
    chances = np.exp(logarithms - logarithms.max(1, keepdims=True))
    return np.asarray(chances / chances.sum(1, keepdims=True))


def _log_prior(data: _Data, sharpness: float, chances: Floats) -> Floats:
    k = data.votes.n_classes
    share = np.bincount(data.classes.ravel(), chances.ravel(), k) + 1
    known: Floats = np.log(share / share.sum())[data.classes]
    if data.scores is None:
        return known
    own = sharpness * (data.scores - data.scores.max(1, keepdims=True))
    own -= np.log(np.exp(own).sum(1, keepdims=True))
    return np.where(np.isnan(data.scores[:, :1]), known, own)


def _confusion(data: _Data, chances: Floats, votes: Votes, *, strength: float = 3.0) -> Floats:
    """(k, k) how people answer for each class, drawn towards equal errors where there is little to count."""
    k = votes.n_classes
    mass = votes.weights[:, None] * chances[votes.rows]
    cell = data.classes[votes.rows] * k + votes.names[:, None]
    cells = np.bincount(cell.ravel(), mass.ravel(), k * k).reshape(k, k)
    right = min(float((np.trace(cells) + 1) / (cells.sum() + 1 + 1 / k)), 0.999)
    even = np.full((k, k), (1 - right) / max(k - 1, 1))
    np.fill_diagonal(even, right)
    joined = cells + strength * even
    return np.asarray(joined / joined.sum(1, keepdims=True))


def _logit(p: Any) -> Any:
    from scipy.special import logit

    return logit(np.clip(p, 1e-4, 1 - 1e-4))


def _sum_by_row(values: Floats, weights: Floats, votes: Votes) -> Floats:
    from scipy.sparse import csr_matrix

    m = len(votes.rows)
    by_row = csr_matrix((weights, (votes.rows, np.arange(m))), shape=(votes.n_rows, m))
    return np.asarray(by_row @ values)


def _correlation(data: _Data, confusion: Floats, chances: Floats) -> float:
    """The intra-class correlation whose Dirichlet-multinomial votes fit best."""
    from scipy.special import gammaln

    rows = np.flatnonzero(data.totals >= 2)
    if len(rows) < 10:
        return 0.1
    if len(rows) > 5000:
        rows = rows[np.linspace(0, len(rows) - 1, 5000).astype(int)]
    cells, classes = data.counts[rows], data.classes[rows]
    candidates = np.take_along_axis(classes, np.argsort(-chances[rows], axis=1)[:, :3], 1)
    share = np.log(
        np.bincount(data.classes.ravel(), chances.ravel(), len(confusion)) / len(chances) + _SMALLEST
    )
    image, place = np.nonzero(cells)
    name, votes, total = classes[image, place], cells[image, place], cells.sum(1)
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
        # A few images on which all agree say next to nothing about it: then it is taken to be small
        together -= 30 * correlation
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
