from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from dataaudit.metrics import expected_calibration_error
from dataaudit.signals.noise import (
    Noise,
    error_probabilities,
    estimate_noise,
    expected_f1_flags,
    falling,
    log_odds,
)


def planted(
    n: int, k: int, rate: float, *, pairs: bool = False, spread: float = 2.5
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Calibrated probabilities, given labels of which a share is wrong, and which are."""
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(n, k)) * spread
    probabilities = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    truth = (rng.random(n)[:, None] > probabilities.cumsum(1)).sum(1).clip(0, k - 1)
    wrong = rng.random(n) < rate
    other = (truth + (1 if pairs else rng.integers(1, k, n))) % k
    return probabilities.astype(np.float32), np.where(wrong, other, truth), wrong


@pytest.mark.parametrize("rate", [0.05, 0.2, 0.4])
def test_the_expected_number_of_errors_is_that_of_the_planted_ones(rate: float) -> None:
    probabilities, given, wrong = planted(20_000, 6, rate)
    _, chance, _ = error_probabilities(probabilities, given)
    assert chance.sum() == pytest.approx(wrong.sum(), rel=0.05)
    assert expected_calibration_error(chance, wrong) < 0.02


@pytest.mark.parametrize(("rate", "too_many"), [(0.05, 0.35), (0.2, 0.2), (0.4, 0.15)])
def test_of_planted_errors_with_a_pattern_somewhat_too_many_are_expected(
    rate: float, too_many: float
) -> None:
    # They don't become more likely where an image is hard, as people's do.
    probabilities, given, wrong = planted(20_000, 6, rate, pairs=True)
    _, chance, _ = error_probabilities(probabilities, given)
    assert 1 <= chance.sum() / wrong.sum() <= 1 + too_many
    assert expected_calibration_error(chance, wrong) < 0.05


def test_noise_without_a_pattern_is_told_from_noise_with_one() -> None:
    uniform = estimate_noise(*planted(20_000, 6, 0.2)[:2])
    paired = estimate_noise(*planted(20_000, 6, 0.2, pairs=True)[:2])
    assert uniform.strength > 60 > paired.strength
    assert paired.confusion[2, 3] > 0.9
    assert uniform.confusion[2, 3] == pytest.approx(0.2, abs=0.05)
    assert uniform.rates == pytest.approx(np.full(6, 0.2), abs=0.05)


def test_probabilities_that_are_too_flat_are_sharpened() -> None:
    probabilities, given, _ = planted(20_000, 6, 0.1)
    flat = probabilities**0.5
    flat /= flat.sum(1, keepdims=True)
    assert estimate_noise(flat, given).sharpness == pytest.approx(2, rel=0.15)
    assert estimate_noise(probabilities, given).sharpness == pytest.approx(1, rel=0.15)


def test_a_trained_network_is_expected_to_see_most_images_clearly() -> None:
    probabilities, given, _ = planted(20_000, 6, 0.2, pairs=True)
    probe, network = (estimate_noise(probabilities, given, trained=trained) for trained in (False, True))
    assert network.sharpness > probe.sharpness
    uniform = planted(20_000, 6, 0.2)[:2]
    assert estimate_noise(*uniform, trained=True).sharpness == estimate_noise(*uniform).sharpness


def test_mistakes_that_are_common_are_suspected_before_others() -> None:
    noise = Noise(
        sharpness=1.0, rates=np.array([0.2, 0.2, 0.2]), strength=1.0,
        confusion=np.array([[0, 0.9, 0.1], [0.5, 0, 0.5], [0.5, 0.5, 0]]),
    )  # fmt: skip
    probabilities = np.array([[0.7, 0.2, 0.1], [0.7, 0.1, 0.2]], dtype=np.float32)
    score, _, suggested = error_probabilities(probabilities, np.array([1, 2]), noise=noise)
    assert score[0] < score[1]
    assert suggested.tolist() == [0, 0]


@pytest.mark.parametrize(
    ("rows", "given"),
    [
        ([[0.9, 0.1], [0.2, 0.8]], [0, 1]),
        ([[0.9, 0.1], [0.2, 0.8]], [0, 0]),
        ([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]], [0, 1, 1]),
        ([[0.5, 0.5]] * 10, [0, 1] * 5),
        ([[0.6, 0.3, 0.1]] * 6, [0, 1, 0, 1, 0, 1]),
        ([[1.0, 0.0, 0.0]] * 30, [0] * 30),
        ([[0.6, 0.4]], [0]),
    ],
    ids=[
        "two images", "a class nobody gave", "perfectly sure", "no idea", "three classes, one not given",
        "all equal", "one image",
    ],
)  # fmt: skip
@pytest.mark.parametrize("trained", [False, True])
def test_chances_are_defined_for_odd_inputs(rows: list[list[float]], given: list[int], trained: bool) -> None:
    score, wrong, suggested = error_probabilities(
        np.array(rows, dtype=np.float32), np.array(given), trained=trained
    )
    for values in (score, wrong):
        assert np.isfinite(values).all()
        assert ((values >= 0) & (values <= 1)).all()
    assert (suggested != given).all()


def test_chances_fall_as_the_score_rises() -> None:
    probabilities, given, _ = planted(500, 4, 0.2)
    score, wrong, _ = error_probabilities(probabilities, given)
    assert (np.diff(wrong[np.argsort(score, kind="stable")]) <= 1e-6).all()


def test_many_rows_are_judged_by_a_sample_of_them() -> None:
    probabilities, given, wrong = planted(120_000, 3, 0.1)
    _, chance, _ = error_probabilities(probabilities, given)
    assert chance.sum() == pytest.approx(wrong.sum(), rel=0.1)


def test_many_rows_take_little_memory_besides_their_own() -> None:
    probabilities, given, _ = planted(60_000, 100, 0.1)
    noise = estimate_noise(probabilities[:2000], given[:2000])
    tracemalloc.start()
    score, wrong, _ = error_probabilities(probabilities, given, noise=noise)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 0.3 * probabilities.nbytes
    order = np.asfortranarray(probabilities)
    assert np.abs(error_probabilities(order, given, noise=noise)[0] - score).max() < 1e-5
    double = error_probabilities(probabilities.astype(np.float64), given, noise=noise)
    assert np.abs(double[1] - wrong).max() < 1e-5


def test_a_thousand_classes_are_told_apart_by_few_images_each() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 1000, 6000)
    scores = rng.normal(size=(6000, 1000))
    scores[np.arange(6000), truth] += 9
    probabilities = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    wrong = rng.random(6000) < 0.1
    given = np.where(wrong, (truth + rng.integers(1, 1000, 6000)) % 1000, truth)
    _, chance, _ = error_probabilities(probabilities.astype(np.float32), given)
    assert chance.sum() == pytest.approx(wrong.sum(), rel=0.15)


def test_flags_make_the_largest_expected_f1() -> None:
    chances = np.array([0.05, 0.9, 0.8, 0.3, 0.05], dtype=np.float32)
    assert expected_f1_flags(chances).tolist() == [False, True, True, False, False]
    assert not expected_f1_flags(np.zeros(3, dtype=np.float32)).any()
    assert not expected_f1_flags(np.full(3, 0.01, dtype=np.float32)).any()


def test_falling_chances_and_log_odds_have_these_values() -> None:
    score, wrong = np.array([0.1, 0.2, 0.3], np.float32), np.array([0.5, 0.7, 0.1], np.float32)
    assert falling(score, wrong) == pytest.approx([0.6, 0.6, 0.1])
    assert log_odds(np.array([0.5, 0.75, 0.0], np.float32)) == pytest.approx(
        [0, np.log(3), -16.118], rel=1e-3
    )
