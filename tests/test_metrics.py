from __future__ import annotations

import numpy as np
import pytest

from dataaudit.errors import InputError
from dataaudit.metrics import expected_calibration_error, mcnemar, wilson_interval


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
