from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from dataaudit.errors import InputError
from dataaudit.metrics import (
    expected_calibration_error,
    expected_errors,
    mcnemar,
    review_budget,
    wilson_interval,
)


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        (50, 100, 0.4038, 0.5962),
        (0, 0, 0.0, 1.0),
    ],
)
def test_wilson_interval_agrees_with_published_values(successes, n, low, high):
    assert wilson_interval(successes, n) == pytest.approx((low, high), abs=5e-5)


def test_wilson_interval_narrows_with_less_confidence():
    wide, narrow = wilson_interval(30, 40, 0.99), wilson_interval(30, 40, 0.8)
    assert wide[0] < narrow[0] < 0.75 < narrow[1] < wide[1]


@pytest.mark.parametrize("arguments", [(11, 10), (-1, 10), (5, 10, 1.0)])
def test_wilson_interval_refuses_what_is_no_share(arguments):
    with pytest.raises(InputError, match="expected"):
        wilson_interval(*arguments)


def test_mcnemar_counts_only_where_the_two_differ():
    a = np.array([True] * 10 + [False] * 2 + [True] * 50)
    b = np.array([False] * 10 + [True] * 2 + [True] * 50)
    only_a, only_b, p = mcnemar(a, b)
    assert (only_a, only_b) == (10, 2)
    assert p == pytest.approx(2 * (1 + 12 + 66) / 2**12)


def test_mcnemar_of_equal_answers_is_one():
    assert mcnemar(np.array([True, False]), np.array([True, False])) == (0, 0, 1.0)


def test_mcnemar_names_both_shapes_when_they_differ():
    with pytest.raises(InputError, match=r"\(2,\) and \(3,\)"):
        mcnemar(np.ones(2, dtype=bool), np.ones(3, dtype=bool))


def test_calibration_error_is_zero_where_probabilities_come_true_as_often_as_stated():
    assert expected_calibration_error(np.full(4, 0.5), np.array([True, False, True, False]), 10) == 0.0


def test_calibration_error_weighs_bins_by_their_samples():
    probability, truth = np.array([0.9, 0.9, 0.9, 0.1]), np.array([True, True, True, True])
    assert expected_calibration_error(probability, truth, 10) == pytest.approx((3 * 0.1 + 0.9) / 4)


def test_calibration_error_of_nothing_is_zero():
    assert expected_calibration_error(np.array([]), np.array([], dtype=bool), 10) == 0.0


def test_calibration_error_refuses_what_is_no_probability():
    with pytest.raises(InputError, match=r"expected \[0, 1\]"):
        expected_calibration_error(np.array([1.5]), np.array([True]), 10)


def test_the_expected_errors_of_one_fair_coin_may_be_none_or_one() -> None:
    assert expected_errors(np.array([0.5])) == (0.5, 0, 1)


def test_what_is_sure_leaves_no_interval() -> None:
    assert expected_errors(np.array([1.0, 1.0, 0.0])) == (2.0, 2, 2)
    assert expected_errors(np.array([])) == (0.0, 0, 0)


@pytest.mark.parametrize("n", [100, 201, 5000])
def test_the_interval_of_equal_chances_is_that_of_the_binomial_distribution(n: int) -> None:
    expected, low, high = expected_errors(np.full(n, 0.05))
    assert expected == pytest.approx(0.05 * n)
    assert (low, high) == (binom.ppf(0.05, n, 0.05), binom.ppf(0.95, n, 0.05))


def test_the_interval_holds_the_number_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    chance = rng.beta(0.1, 1.0, 2000)
    numbers = (rng.random((4000, 2000)) < chance).sum(1)
    _, low, high = expected_errors(chance, 0.8)
    assert 0.8 <= np.mean((numbers >= low) & (numbers <= high)) < 0.84


def test_the_approximation_goes_on_where_the_exact_distribution_ends() -> None:
    chance = np.random.default_rng(0).beta(0.2, 1.0, 200)
    (_, *exact), (_, *approximate) = expected_errors(chance), expected_errors(np.r_[chance, 1e-9])
    assert approximate == exact


@pytest.mark.parametrize(("share", "budget"), [(0.0, 0), (0.45, 1), (0.46, 2), (0.9, 3), (1.0, 4)], ids=str)
def test_the_review_budget_is_the_least_number_that_reaches_the_share(share: float, budget: int) -> None:
    assert review_budget(np.array([0.9, 0.6, 0.4, 0.1, 0.0]), share) == budget


def test_without_errors_nothing_has_to_be_reviewed() -> None:
    assert review_budget(np.zeros(3), 0.9) == review_budget(np.array([]), 0.9) == 0


@pytest.mark.parametrize("wrong", [[1.5], [-0.1], [float("nan")], [[0.5]]], ids=str)
def test_what_is_no_probability_is_refused(wrong: list[float]) -> None:
    for function in (expected_errors, lambda values: review_budget(values, 0.5)):
        with pytest.raises(InputError):
            function(np.array(wrong))


def test_a_share_or_confidence_outside_its_range_is_refused() -> None:
    with pytest.raises(InputError, match=r"The share is 80"):
        review_budget(np.array([0.5]), 80)
    with pytest.raises(InputError, match=r"The confidence is 1"):
        expected_errors(np.array([0.5]), 1)
