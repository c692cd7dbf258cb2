from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_digits

from dataaudit.checks.labels import error_probabilities, label_error
from dataaudit.errors import Unavailable
from dataaudit.metrics import expected_calibration_error
from dataaudit.signals.probabilities import pred_probs
from dataaudit.signals.spectrum import neighbors, spectrum
from dataaudit.types import Locator, Outcome


def labels_of(names: list[str | None]) -> pd.DataFrame:
    ids = [f"i{number}" for number in range(len(names))]
    return pd.DataFrame(
        {"sample_id": ids, "name": names, "geometry": None, "locator": [Locator(file=i) for i in ids]},
        index=[f"L{i}" for i in ids],
    )


def outcome_of(rows: list[list[float]], names: list[str], classes: str = "ab", **settings: float) -> Outcome:
    ids = [f"i{number}" for number in range(len(rows))]
    return label_error(pd.DataFrame(rows, index=ids, columns=list(classes)), labels_of(names), **settings)


SURE = [[0.95, 0.05], [0.05, 0.95]] * 20
NAMES = ["a", "b"] * 20


def test_labels_that_the_baseline_shares_are_silent() -> None:
    assert not outcome_of(SURE, NAMES).flagged.any()


def test_a_label_that_the_baseline_does_not_share_is_flagged() -> None:
    outcome = outcome_of([*SURE, [0.02, 0.98]], [*NAMES, "a"])
    assert list(outcome.flagged.index[outcome.flagged]) == ["Li40"]
    assert (outcome.fixes["Li40"].old, outcome.fixes["Li40"].new) == ("a", "b")
    assert outcome.score["Li40"] == pytest.approx(0.02)
    assert outcome.probability["Li40"] > 0.5
    assert outcome.evidence.loc["Li40", "message"] == "The baseline gives 'a' 2.0% and 'b' 98%."


def test_settings_flag_by_probability_and_keep_the_worst() -> None:
    rows, names = [*SURE, [0.02, 0.98], [0.3, 0.7]], [*NAMES, "a", "a"]
    assert outcome_of(rows, names, min_probability=1e-6).flagged.sum() >= 2
    assert not outcome_of(rows, names, min_probability=0.9999).flagged[:40].any()
    worst = outcome_of(rows, names, min_probability=1e-6, max_findings=1)
    assert list(worst.flagged.index[worst.flagged]) == ["Li40"]


def test_columns_may_stand_in_any_order() -> None:
    one = outcome_of([*SURE, [0.02, 0.98]], [*NAMES, "a"])
    other = outcome_of([row[::-1] for row in [*SURE, [0.02, 0.98]]], [*NAMES, "a"], "ba")
    assert one.score.tolist() == other.score.tolist()
    assert one.fixes == other.fixes


def test_an_unlabeled_row_before_the_label_does_not_count() -> None:
    probabilities = pd.DataFrame(SURE, index=[f"i{number}" for number in range(40)], columns=["a", "b"])
    labels = labels_of(NAMES)
    none = pd.DataFrame(
        {"sample_id": ["i0"], "name": [None], "geometry": None, "locator": None}, index=["none"]
    )
    outcome = label_error(probabilities, pd.concat([none, labels]))
    assert list(outcome.score.index) == list(labels.index)


def test_one_class_leaves_nothing_to_compare() -> None:
    with pytest.raises(Unavailable, match="one class"):
        outcome_of([[1.0], [1.0]], ["a", "a"], "a")


@pytest.mark.parametrize(
    ("rows", "given"),
    [
        ([[0.9, 0.1], [0.2, 0.8]], [0, 1]),
        ([[0.9, 0.1], [0.2, 0.8]], [0, 0]),
        ([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]], [0, 1, 1]),
        ([[0.5, 0.5]] * 10, [0, 1] * 5),
        ([[0.6, 0.3, 0.1]] * 6, [0, 1, 0, 1, 0, 1]),
        ([[1.0, 0.0, 0.0]] * 30, [0] * 30),
    ],
    ids=[
        "two images",
        "a class nobody gave",
        "perfectly sure",
        "no idea",
        "three classes, one not given",
        "all equal",
    ],
)
def test_chances_are_defined_for_odd_inputs(rows: list[list[float]], given: list[int]) -> None:
    wrong, suggested = error_probabilities(np.array(rows, dtype=np.float32), np.array(given))
    assert np.isfinite(wrong).all()
    assert ((wrong >= 0) & (wrong <= 1)).all()
    assert (suggested != given).all()


def test_chances_fall_as_the_probability_of_the_given_class_rises() -> None:
    rng = np.random.default_rng(0)
    values = rng.dirichlet([1, 1, 1], 300).astype(np.float32)
    given = rng.integers(0, 3, 300)
    wrong, _ = error_probabilities(values, given)
    order = np.argsort(values[np.arange(300), given])
    assert (np.diff(wrong[order]) <= 1e-6).all()


@pytest.fixture(scope="module")
def planted() -> tuple[Outcome, np.ndarray, np.ndarray]:
    """The outcome for the digits with 5 % of the labels flipped, which were flipped, and the true classes."""
    digits = load_digits()
    n = len(digits.target)
    rng = np.random.default_rng(0)
    rows = rng.choice(n, n // 20, replace=False)
    names = digits.target.copy()
    names[rows] = (names[rows] + rng.integers(1, 10, len(rows))) % 10
    values = pd.DataFrame(digits.data.astype(np.float32), index=[f"i{number}" for number in range(n)])
    labels = labels_of([str(name) for name in names])
    found = spectrum(values)
    probabilities = pred_probs(found, neighbors(found), pd.Series(range(n), index=values.index), labels)
    return label_error(probabilities, labels), np.isin(np.arange(n), rows), digits.target


def test_planted_flips_are_found(planted: tuple[Outcome, np.ndarray, np.ndarray]) -> None:
    outcome, flipped, _ = planted
    flagged = outcome.flagged.to_numpy()
    assert (flagged & flipped).sum() / flipped.sum() >= 0.85
    assert (flagged & flipped).sum() / flagged.sum() >= 0.8


def test_planted_flips_get_their_class_back(planted: tuple[Outcome, np.ndarray, np.ndarray]) -> None:
    outcome, flipped, truth = planted
    right = [
        outcome.fixes[f"Li{i}"].new == str(truth[i])
        for i in np.flatnonzero(flipped)
        if f"Li{i}" in outcome.fixes
    ]
    assert np.mean(right) >= 0.95


def test_chances_add_up_to_the_number_of_flips_and_are_calibrated(
    planted: tuple[Outcome, np.ndarray, np.ndarray],
) -> None:
    outcome, flipped, _ = planted
    assert outcome.probability.sum() == pytest.approx(flipped.sum(), rel=0.2)
    assert expected_calibration_error(outcome.probability.to_numpy(), flipped) < 0.05
