"""Telling the kinds of errors apart, and how frequent each is."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from dataaudit.signals.box_planting import KINDS

__all__ = ["Kinds"]

Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

_ROUNDS = 5
_REGULAR = 0.05
_EXPECTED = np.array([0.9, 0.03, 0.03, 0.03, 0.01])  # shares of the kinds before anything is known
_WEIGHT = 10.0  # of that, in labels
_FEW = 3_000  # labels up to which each is judged by a regression that hasn't seen it
_FOLDS = 10
_MOST_OF_ONE = 4.0  # what a planted error counts at most, in labels


class Kinds:
    """A regression that tells the kinds apart.

    Attributes:
        shares: (kinds,) estimated share of each of `KINDS` among the labels.
        own: (n, kinds) chances of the labels that it was fitted on.
    """

    shares: Doubles
    own: Doubles

    def fit(self, features: Doubles, kinds: Ints, origins: Ints, possible: Bools, least: Doubles) -> Kinds:
        """Fit on labels and on errors that were planted in them.

        The labels hold errors themselves: each counts as sound as far as the last round left it so. Where
        they are few, each is judged by a regression of the others and of what was planted in them, or it
        would be taken for sound because it was shown as sound.

        Args:
            features: (n + m, d) of the labels, and of the planted errors.
            kinds: (n + m,) positions in `KINDS`; the labels are of kind 0, and first.
            origins: (n + m,) the label that each error was planted in; of a label itself.
            possible: (n, kinds) whether a label can be of a kind at all.
            least: (kinds,) share of each kind that is known from elsewhere, 0 for none.

        Reference: Saerens, Latinne and Decaestecker, "Adjusting the Outputs of a Classifier to New a Priori
        Probabilities", Neural Computation 2002, for the shares.
        """
        from sklearn.preprocessing import StandardScaler

        n = int((kinds == 0).sum())
        self._scale = StandardScaler().fit(features)
        scaled = self._scale.transform(features)
        folds = origins % _FOLDS if n <= _FEW else None
        sound = np.ones(n)
        for _ in range(_ROUNDS):
            weights = self._weights(kinds, sound[origins])
            even = self._out_of_sample(scaled, kinds, weights, folds)
            even[:n] *= possible
            self.shares = _shares(even[:n], np.bincount(kinds, minlength=len(KINDS)) > 0, least)
            self.own = _shared(even[:n], self.shares)
            sound = np.maximum(self.own[:, 0], 0.01)
        if folds is not None:
            self._fit(scaled, kinds, weights)
        return self

    def chances(self, features: Doubles, possible: Bools) -> Doubles:
        """(n, kinds) chances of other labels; see `fit`."""
        return _shared(self._even(self._scale.transform(features)) * possible, self.shares)

    def _weights(self, kinds: Ints, sound: Doubles) -> Doubles:
        """What each example counts, so that the kinds count the same where there are enough examples."""
        totals = np.bincount(kinds, sound, len(KINDS))
        wanted = np.minimum(totals[0], _MOST_OF_ONE * totals)
        self._prior = wanted / wanted.sum()
        weights: Doubles = sound * (wanted / np.maximum(totals, 1e-9))[kinds]
        return weights

    def _out_of_sample(self, scaled: Doubles, kinds: Ints, weights: Doubles, folds: Ints | None) -> Doubles:
        if folds is None:
            self._fit(scaled, kinds, weights)
            return self._even(scaled)
        even = np.empty((len(scaled), len(KINDS)))
        for fold in range(_FOLDS):
            here = folds == fold
            self._fit(scaled[~here], kinds[~here], weights[~here])
            even[here] = self._even(scaled[here])
        return even

    def _fit(self, scaled: Doubles, kinds: Ints, weights: Doubles) -> None:
        from sklearn.linear_model import LogisticRegression

        self._model: Any = LogisticRegression(C=_REGULAR, max_iter=300, tol=1e-3)
        self._model.fit(scaled, kinds, sample_weight=weights)

    def _even(self, scaled: Doubles) -> Doubles:
        """(n, kinds) likelihood of each kind, up to a factor a row."""
        chances = np.zeros((len(scaled), len(KINDS)))
        chances[:, self._model.classes_] = self._model.predict_proba(scaled)
        chances /= np.maximum(self._prior, 1e-9)
        return chances


def _shares(even: Doubles, present: Bools, least: Doubles) -> Doubles:
    """(kinds,) shares under which the labels are most likely, and not below `least`.

    A little of each kind is expected before any is seen.
    """
    expected = np.where(present, _EXPECTED, 0)
    shares = expected / expected.sum()
    for _ in range(200):
        chances = _shared(even, shares)
        shares = (chances.sum(0) + _WEIGHT * expected) / (len(even) + _WEIGHT * expected.sum())
    shares[1:] = np.maximum(shares[1:], least[1:] * present[1:])
    shares[0] = max(1 - shares[1:].sum(), 0.1)
    return np.asarray(shares / shares.sum())


def _shared(even: Doubles, shares: Doubles) -> Doubles:
    chances: Doubles = even * shares
    chances /= chances.sum(1, keepdims=True)
    return chances
