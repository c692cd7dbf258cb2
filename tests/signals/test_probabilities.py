from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from dataaudit.errors import Unavailable
from dataaudit.signals.probabilities import _PENALTIES, leave_one_out_ridge, pred_probs, softmax
from dataaudit.signals.spectrum import Network, neighbors, spectrum


def refitted(
    points: np.ndarray, given: np.ndarray, groups: np.ndarray, k: int, weights: np.ndarray, penalty: float
) -> np.ndarray:
    """Fit a ridge regression anew without each group, and return its scores there."""
    truth = np.eye(k)[given]
    scores = np.empty((len(given), k))
    for group in np.unique(groups):
        out = groups == group
        w, x, y = weights[~out], points[~out].astype(np.float64), truth[~out]
        mean, share = np.average(x, axis=0, weights=w), np.average(y, axis=0, weights=w)
        centred = x - mean
        gram = (centred * w[:, None]).T @ centred + penalty * np.eye(x.shape[1])
        scores[out] = share + (points[out] - mean) @ np.linalg.solve(
            gram, (centred * w[:, None]).T @ (y - share)
        )
    return scores


def data_of(n: int, d: int, k: int, *, seed: int = 0) -> tuple[pd.DataFrame, np.ndarray]:
    rng = np.random.default_rng(seed)
    given = np.r_[np.arange(k), rng.integers(0, k, n - k)]
    values = rng.normal(size=(n, d)) + 2 * rng.normal(size=(k, d))[given]
    return pd.DataFrame(values.astype(np.float32)), given


@pytest.mark.parametrize(("n", "d"), [(60, 8), (40, 100)])
@pytest.mark.parametrize("n_lighter", [0, 3, 40])
@pytest.mark.parametrize("sizes", [(1,), (1, 2, 3), (1, 1, 15)])
def test_held_out_scores_equal_those_of_refits(
    n: int, d: int, n_lighter: int, sizes: tuple[int, ...]
) -> None:
    values, given = data_of(n, d, 3)
    found = spectrum(values)
    rng = np.random.default_rng(1)
    weights = np.ones(n, dtype=np.float32)
    weights[:n_lighter] = rng.uniform(0.05, 1, n_lighter)
    groups = np.repeat(np.arange(n), np.resize(sizes, n))[:n]
    rng.shuffle(groups)
    scores = leave_one_out_ridge(
        found.components, given, groups, n_classes=3, weights=weights, eigenvalues=found.eigenvalues
    )
    nearest = min(
        np.abs(scores - refitted(found.components, given, groups, 3, weights, n * penalty)).max()
        for penalty in _PENALTIES
    )
    assert nearest < 1e-3


def test_held_out_scores_are_exact_for_columns_that_are_neither_centred_nor_uncorrelated() -> None:
    values, given = data_of(50, 6, 3)
    points = values.to_numpy() @ np.random.default_rng(2).normal(size=(6, 6)).astype(np.float32) + 3
    groups, weights = np.arange(50), np.ones(50, dtype=np.float32)
    scores = leave_one_out_ridge(points, given, groups, n_classes=3)
    refits = [refitted(points, given, groups, 3, weights, 50 * penalty) for penalty in _PENALTIES]
    assert min(np.abs(scores - each).max() for each in refits) < 1e-3


def test_thousands_of_copies_of_one_image_are_held_out_together_without_a_matrix_of_their_pairs() -> None:
    values, given = data_of(40, 5, 2)
    copies = pd.concat(
        [values, pd.DataFrame(np.repeat(values.iloc[:1].to_numpy(), 6000, axis=0))], ignore_index=True
    )
    given = np.r_[given, np.resize([0, 1], 6000)]
    groups = np.r_[np.arange(40), np.zeros(6000, dtype=np.int64)]
    found = spectrum(copies)
    scores = leave_one_out_ridge(found.components, given, groups, n_classes=2, eigenvalues=found.eigenvalues)
    weights = np.ones(len(given), dtype=np.float32)
    refits = [refitted(found.components, given, groups, 2, weights, len(given) * each) for each in _PENALTIES]
    assert min(np.abs(scores - each).max() for each in refits) < 1e-3


def probabilities_of(
    values: pd.DataFrame, names: list[str | None], groups: list[int] | None = None
) -> pd.DataFrame:
    found = spectrum(values)
    labels = pd.DataFrame({"sample_id": values.index, "name": names})
    alone = pd.Series(groups if groups is not None else range(len(values)), index=values.index)
    return pred_probs(found, neighbors(found), alone, labels)


def test_rows_sum_to_one_and_know_the_classes() -> None:
    values, given = data_of(300, 20, 4)
    found = probabilities_of(values, [f"c{i}" for i in given])
    assert found.shape == (300, 4)
    assert list(found.columns) == ["c0", "c1", "c2", "c3"]
    assert np.abs(found.to_numpy().sum(1) - 1).max() < 1e-5
    assert (found.to_numpy().argmax(1) == given).mean() > 0.95


def test_two_classes_are_enough() -> None:
    values, given = data_of(50, 10, 2)
    found = probabilities_of(values, [f"c{i}" for i in given])
    assert (found.to_numpy().argmax(1) == given).mean() > 0.9


def test_networks_that_see_different_halves_judge_better_together() -> None:
    values, given = data_of(400, 30, 4)
    rng = np.random.default_rng(1)
    blurred = values + rng.normal(scale=6, size=values.shape).astype(np.float32)
    halves = [blurred.iloc[:, :15], blurred.iloc[:, 15:]]
    names = [f"c{i}" for i in given]
    labels = pd.DataFrame({"sample_id": values.index, "name": names})
    groups = pd.Series(np.arange(400))
    views = [Network(spectrum=found, neighbors=neighbors(found)) for found in map(spectrum, halves)]

    def loss(first: Network, *others: Network) -> float:
        found = pred_probs(first.spectrum, first.neighbors, groups, labels, others).to_numpy()
        assert np.abs(found.sum(1) - 1).max() < 1e-5
        return float(-np.log(found[np.arange(400), given]).mean())

    assert loss(*views) < min(loss(views[0]), loss(views[1])) - 0.05


def test_a_wrong_label_gets_a_low_probability() -> None:
    values, given = data_of(200, 10, 2)
    names = [f"c{i}" for i in given]
    names[7] = "c1" if names[7] == "c0" else "c0"
    found = probabilities_of(values, names)
    assert found.loc[7, names[7]] < 0.1


def test_an_image_of_a_class_of_its_own_has_no_row() -> None:
    values, given = data_of(60, 10, 2)
    names = [f"c{i}" for i in given]
    names[5] = "alone"
    found = probabilities_of(values, names)
    assert 5 not in found.index
    assert len(found) == 59
    assert "alone" in found.columns


def test_a_class_whose_images_all_show_one_picture_has_no_rows() -> None:
    values, given = data_of(60, 10, 2)
    names = ["twins" if i in (8, 9) else f"c{given[i]}" for i in range(60)]
    groups = [8 if i == 9 else i for i in range(60)]
    assert set(probabilities_of(values, names, groups).index) == set(range(60)) - {8, 9}


def test_unlabeled_images_have_no_row_and_no_vote() -> None:
    values, given = data_of(80, 10, 2)
    names: list[str | None] = [f"c{i}" for i in given]
    names[::4] = [None] * 20
    found = probabilities_of(values, names)
    assert list(found.index) == [i for i in range(80) if i % 4]
    assert np.isfinite(found.to_numpy()).all()
    labeled = values.loc[found.index].reset_index(drop=True)
    alone = probabilities_of(labeled, [f"c{given[i]}" for i in found.index])
    assert np.corrcoef(found["c0"], alone["c0"])[0, 1] > 0.95


def test_a_thousand_classes_of_three_images_each_are_told_apart() -> None:
    rng = np.random.default_rng(0)
    given = np.repeat(np.arange(1000), 3)
    values = pd.DataFrame(
        (rng.normal(size=(1000, 64))[given] * 3 + rng.normal(size=(3000, 64))).astype(np.float32)
    )
    found = probabilities_of(values, [f"c{i:04d}" for i in given])
    assert found.shape == (3000, 1000)
    assert (found.to_numpy().argmax(1) == given).mean() > 0.9
    assert np.abs(found.to_numpy().sum(1) - 1).max() < 1e-4


def test_a_class_500_times_rarer_is_still_found() -> None:
    rng = np.random.default_rng(0)
    given = np.r_[np.zeros(2000, dtype=int), np.ones(4, dtype=int)]
    values = pd.DataFrame((rng.normal(size=(2004, 16)) + given[:, None] * 6).astype(np.float32))
    found = probabilities_of(values, [f"c{i}" for i in given])
    assert np.isfinite(found.to_numpy()).all()
    assert found.loc[2000:, "c1"].min() > found.loc[:1999, "c1"].max()


def test_identical_images_give_no_opinion_about_their_labels() -> None:
    values = pd.DataFrame(np.full((30, 12), 0.1, dtype=np.float32))
    found = probabilities_of(values, ["a", "b", "b"] * 10)
    assert np.isfinite(found.to_numpy()).all()
    assert np.abs(found.to_numpy().sum(1) - 1).max() < 1e-5
    assert found["b"].between(0.2, 0.9).all()


def test_identical_images_held_out_together_are_not_judged() -> None:
    values = pd.DataFrame(np.full((30, 12), 0.1, dtype=np.float32))
    with pytest.raises(Unavailable, match="no class has two different images"):
        probabilities_of(values, ["a", "b", "b"] * 10, [0] * 30)


def test_three_images_are_judged_where_it_is_possible() -> None:
    values, _ = data_of(3, 5, 2)
    found = probabilities_of(values, ["a", "b", "a"])
    assert list(found.index) == [0, 2]
    assert np.isfinite(found.to_numpy()).all()


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (["a"] * 4, "there are labels of 1 class; it needs two at least"),
        ([None] * 4, "there are labels of 0 classes; it needs two at least"),
        (["a", "b", "c", "d"], "no class has two different images"),
    ],
)
def test_too_few_classes_or_images_have_a_reason(names: list[str | None], reason: str) -> None:
    with pytest.raises(Unavailable, match=reason):
        probabilities_of(data_of(4, 5, 2)[0], names)


def test_a_second_label_of_an_image_does_not_count() -> None:
    values, given = data_of(40, 5, 2)
    labels = pd.DataFrame({"sample_id": [0, *range(40)], "name": [None, *(f"c{i}" for i in given)]})
    found = spectrum(values)
    assert len(pred_probs(found, neighbors(found), pd.Series(range(40)), labels)) == 40


def test_softmax_of_large_scores_is_finite() -> None:
    assert softmax(np.array([[1e4, 0.0], [-1e4, -1e4]], dtype=np.float32)).tolist() == [[1, 0], [0.5, 0.5]]
