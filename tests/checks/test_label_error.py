from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_digits

from dataaudit.checks.labels import label_error
from dataaudit.errors import Unavailable
from dataaudit.metrics import expected_calibration_error
from dataaudit.signals.label_errors import label_errors
from dataaudit.signals.probabilities import pred_probs
from dataaudit.signals.spectrum import neighbors, spectrum
from dataaudit.types import Locator, Neighbors, Outcome


def labels_of(names: list[str | None]) -> pd.DataFrame:
    ids = [f"i{number}" for number in range(len(names))]
    return pd.DataFrame(
        {"sample_id": ids, "name": names, "geometry": None, "locator": [Locator(file=i) for i in ids]},
        index=[f"L{i}" for i in ids],
    )


def outcome_of(rows: list[list[float]], names: list[str], classes: str = "ab", **settings: float) -> Outcome:
    ids = [f"i{number}" for number in range(len(rows))]
    labels = labels_of(names)
    probabilities = pd.DataFrame(rows, index=ids, columns=list(classes))
    return label_error(label_errors(probabilities, labels), labels, probabilities, **settings)


SURE = [[0.95, 0.05], [0.05, 0.95]] * 20
NAMES = ["a", "b"] * 20


def test_labels_that_the_baseline_shares_are_silent() -> None:
    assert not outcome_of(SURE, NAMES).flagged.any()


def test_a_label_that_the_baseline_does_not_share_is_flagged() -> None:
    outcome = outcome_of([*SURE, [0.02, 0.98]], [*NAMES, "a"])
    assert list(outcome.flagged.index[outcome.flagged]) == ["Li40"]
    assert (outcome.fixes["Li40"].old, outcome.fixes["Li40"].new) == ("a", "b")
    assert outcome.score["Li40"] == outcome.score.min() < 0.1
    assert outcome.probability["Li40"] > 0.5
    assert outcome.evidence.loc["Li40", "message"] == (
        "The baseline gives 'a' 2.0% and 'b' 98%; confident learning counts it as 'b'."
    )


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
    outcome = label_error(label_errors(probabilities, pd.concat([none, labels])), labels, probabilities)
    assert list(outcome.score.index) == list(labels.index)


def test_one_class_leaves_nothing_to_compare() -> None:
    with pytest.raises(Unavailable, match="one class"):
        outcome_of([[1.0], [1.0]], ["a", "a"], "a")


def test_the_sentence_counts_the_nearest_images() -> None:
    rows, names = [*SURE, [0.02, 0.98]], [*NAMES, "a"]
    ids = pd.Index([f"i{number}" for number in range(41)])
    labels = labels_of(names)
    near = np.array([[(i + 1) % 41, (i + 2) % 41] for i in range(41)])
    near[40] = [1, 3]
    neighbors_ = Neighbors(ids=ids, indices=near, similarities=np.ones((41, 2), dtype=np.float32))
    probabilities = pd.DataFrame(rows, index=ids, columns=["a", "b"])
    errors = label_errors(probabilities, labels)
    models = pd.DataFrame({"one": ["b"] * 41, "two": ["a"] * 41}, index=ids)
    evidence = label_error(errors, labels, probabilities, neighbors_, models).evidence
    assert evidence is not None
    assert evidence.loc["Li40", "message"] == (
        "The baseline gives 'a' 2.0% and 'b' 98%; 2 of its 2 nearest images are 'b', 0 'a'; "
        "confident learning counts it as 'b'; "
        "1 of 2 models say 'b'."
    )


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
    return (
        label_error(label_errors(probabilities, labels), labels, probabilities),
        np.isin(np.arange(n), rows),
        digits.target,
    )


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
    assert outcome.probability.sum() == pytest.approx(flipped.sum(), rel=0.15)
    assert expected_calibration_error(outcome.probability.to_numpy(), flipped) < 0.05
