from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score

from dataaudit.errors import Unavailable
from dataaudit.signals.multilabel import held_out_ridge, multi_hot, multilabel_probs, neighbor_shares
from dataaudit.signals.spectrum import neighbors, spectrum
from dataaudit.types import Neighbors


def labels_of(sets: list[str]) -> pd.DataFrame:
    """A row for each letter of each set, and one without a name for an empty set."""
    rows = [(f"i{number}", name) for number, own in enumerate(sets) for name in own or [None]]
    return pd.DataFrame(rows, columns=["sample_id", "name"])


def pairs_of_digits(n: int = 400) -> tuple[pd.DataFrame, np.ndarray, pd.DataFrame]:
    """Two digits beside each other: (n, 128) pixels, (n, 10) truth and labels."""
    digits = load_digits()
    chosen = np.random.default_rng(0).choice(len(digits.data), (n, 2))
    ids = [f"i{number}" for number in range(n)]
    features = pd.DataFrame(np.hstack([digits.data[chosen[:, side]] for side in (0, 1)]), index=ids)
    truth = np.zeros((n, 10), dtype=bool)
    for side in (0, 1):
        truth[np.arange(n), digits.target[chosen[:, side]]] = True
    sets = ["".join(str(digit) for digit in np.flatnonzero(row)) for row in truth]
    return features.astype(np.float32), truth, labels_of(sets)


def probabilities(
    features: pd.DataFrame, labels: pd.DataFrame, groups: np.ndarray | None = None
) -> pd.DataFrame:
    found = spectrum(features)
    groups = np.arange(len(features)) if groups is None else groups
    near_duplicates = pd.Series(groups, index=features.index)
    return multilabel_probs(found, neighbors(found), near_duplicates, labels, "multilabel")


def test_a_set_is_a_row_of_truths() -> None:
    hot = multi_hot(labels_of(["ab", "", "b"]), pd.Index(["i0", "i1", "i2", "other"]), ["a", "b"])
    assert hot.tolist() == [[True, True], [False, False], [False, True], [False, False]]


@pytest.mark.parametrize(
    "groups",
    [list(range(8)), [0, 0, 1, 2, 3, 3, 3, 4], [0] * 6 + [1, 2, 3, 4, 5, 6, 6, 6]],
    ids=["alone", "small groups", "a group larger than the number of components"],
)
def test_scores_are_those_of_refits_without_the_group(groups: list[int]) -> None:
    rng, n = np.random.default_rng(0), len(groups)
    found = spectrum(pd.DataFrame(rng.normal(size=(n, 3)).astype(np.float32)))
    targets = rng.random((n, 2)) < 0.5
    numbers = np.array(groups)
    scores = held_out_ridge(found.components, found.eigenvalues, targets, numbers)
    x = found.components.astype(np.float64)

    def refit(penalty: float) -> np.ndarray:
        expected = np.empty((n, 2))
        for group in set(groups):
            train, test = numbers != group, numbers == group
            a = np.c_[x[train], np.ones(train.sum())]
            penalties = np.diag([n * penalty] * x.shape[1] + [0.0])
            expected[test] = np.c_[x[test], np.ones(test.sum())] @ np.linalg.solve(
                a.T @ a + penalties, a.T @ targets[train]
            )
        return expected

    errors = [np.abs(scores - refit(penalty)).max() for penalty in (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)]
    assert min(errors) < 1e-4


def test_neighbours_vote_for_each_class_and_the_own_group_does_not() -> None:
    near = Neighbors(
        ids=pd.Index(list("abc")),
        indices=np.array([[1, 2], [0, 2], [0, 1]]),
        similarities=np.ones((3, 2), dtype=np.float32),
    )
    targets = np.array([[True, False], [True, True], [False, True]])
    shares = neighbor_shares(near, targets, np.array([0, 1, 2]), smoothing=0.0)
    assert shares.tolist() == [[0.5, 1.0], [0.5, 0.5], [1.0, 0.5]]
    shares = neighbor_shares(near, targets, np.array([0, 0, 2]), smoothing=1e-9)
    assert shares[0] == pytest.approx([0.0, 1.0], abs=1e-6)


def test_the_classes_of_two_digits_are_told_and_calibrated() -> None:
    features, truth, labels = pairs_of_digits()
    found = probabilities(features, labels)
    assert found.shape == (400, 10)
    assert found.to_numpy().min() >= 0
    assert found.to_numpy().max() <= 1
    scores = [roc_auc_score(truth[:, column], found.iloc[:, column]) for column in range(10)]
    assert np.mean(scores) > 0.95
    assert found.to_numpy().mean(0) == pytest.approx(truth.mean(0), abs=0.03)


def test_an_image_does_not_vouch_for_its_own_label_nor_does_its_copy() -> None:
    features, truth, _ = pairs_of_digits(200)
    copies = pd.concat([features, features.iloc[:20].set_axis([f"copy{n}" for n in range(20)])])
    groups = np.r_[np.arange(200), np.arange(20)]
    flipped = truth.copy()
    flipped[:20, 3] = ~truth[:20, 3]
    both = np.vstack([flipped, flipped[:20]])
    rows, columns = np.nonzero(both)
    labels = pd.DataFrame({"sample_id": copies.index[rows], "name": [str(column) for column in columns]})
    found = probabilities(copies, labels, groups)
    assert roc_auc_score(truth[:20, 3], found["3"].iloc[:20]) > 0.75


def test_images_without_a_label_count_and_get_a_row() -> None:
    features, _, labels = pairs_of_digits(100)
    labels = labels[labels["sample_id"] != "i7"]
    assert probabilities(features, labels).index.equals(features.index)


def test_a_class_of_one_picture_gets_no_column() -> None:
    features, _, labels = pairs_of_digits(100)
    once = pd.DataFrame({"sample_id": ["i3"], "name": ["once"]})
    found = probabilities(features, pd.concat([labels, once]))
    assert list(found.columns) == [str(digit) for digit in range(10)]


def test_other_tasks_and_lonely_classes_are_left_out() -> None:
    features, _, labels = pairs_of_digits(30)
    found = spectrum(features)
    groups = pd.Series(np.arange(30), index=features.index)
    with pytest.raises(Unavailable, match="one label at most"):
        multilabel_probs(found, neighbors(found), groups, labels, "classification")
    with pytest.raises(Unavailable, match="no class has two different images"):
        multilabel_probs(found, neighbors(found), groups * 0, labels, "multilabel")


def test_images_that_are_all_equal_get_the_frequencies() -> None:
    features = pd.DataFrame(np.ones((6, 4), dtype=np.float32), index=[f"i{n}" for n in range(6)])
    found = probabilities(features, labels_of(["a", "a", "ab", "b", "", ""]))
    assert np.isfinite(found.to_numpy()).all()
    assert found["a"].std() < 0.05
