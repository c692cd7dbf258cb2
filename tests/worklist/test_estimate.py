from __future__ import annotations

import numpy as np
import pytest
from entries_by_hand import entry, worklist

from dataaudit.worklist.estimate import Estimator


def estimator(chances: list[float | None], **fields: object) -> Estimator:
    found = [entry(str(at), chance) for at, chance in enumerate(chances)]
    return Estimator(worklist(found, **fields))


def none_decided(n: int) -> np.ndarray:
    return np.zeros(n, dtype=bool)


def test_without_verdicts_the_probabilities_are_those_of_the_audit() -> None:
    found = estimator([0.9, 0.5, 0.1])
    assert found.probability.tolist() == pytest.approx([0.9, 0.5, 0.1])
    queue, everything = found.left(none_decided(3))
    assert (queue.n, queue.errors) == (3, pytest.approx(1.5))
    assert everything == queue


def test_errors_that_no_finding_is_about_count_in_all_that_are_left() -> None:
    found = estimator([0.9, 0.5], background={"LBL001": ((0.1, 50), (0.01, 100))})
    queue, everything = found.left(none_decided(2))
    assert (queue.n, everything.n) == (2, 152)
    assert (queue.errors, everything.errors) == (pytest.approx(1.4), pytest.approx(7.4))
    assert everything.low < 4 and everything.high > 12


def test_findings_that_are_kept_lower_the_probabilities_near_them_most() -> None:
    found = estimator([0.9] * 20 + [0.85, 0.02])
    found.update(dict.fromkeys(range(20), False))
    near, far = found.probability[20], found.probability[21]
    assert near < 0.5
    assert np.log(0.85 / 0.15) - np.log(near / (1 - near)) > np.log(0.02 / 0.98) - np.log(far / (1 - far))


def test_what_is_found_confirms_the_probabilities_that_were_right() -> None:
    found = estimator([0.8] * 40)
    found.update({at: at % 5 != 0 for at in range(30)})
    assert found.probability[35] == pytest.approx(0.8, abs=0.03)


def test_a_pair_of_classes_learns_from_its_own_verdicts_first() -> None:
    cats = [entry(f"c{at}", 0.6) for at in range(12)]
    foxes = [entry(f"f{at}", 0.6, given="fox") for at in range(12)]
    found = Estimator(worklist([*cats, *foxes]))
    found.update({**dict.fromkeys(range(10), True), **dict.fromkeys(range(12, 22), False)})
    assert found.probability[11] > 0.7 > 0.5 > found.probability[23]


def test_a_check_without_probabilities_is_known_by_its_verdicts_alone() -> None:
    found = Estimator(worklist([entry(str(at), None, code="DUP001") for at in range(11)]))
    assert found.probability[10] == pytest.approx(0.5)
    found.update(dict.fromkeys(range(10), True))
    assert found.probability[10] > 0.8


def test_the_interval_becomes_narrower_with_verdicts_and_ends_at_nothing() -> None:
    found = estimator([0.6] * 100)
    before, _ = found.left(none_decided(100))
    found.update({at: at % 5 < 3 for at in range(50)})
    decided = np.arange(100) < 50
    after, _ = found.left(decided)
    assert after.high - after.low < (before.high - before.low) / 2
    assert found.left(np.ones(100, dtype=bool))[0].high == 0


def test_one_slip_on_a_sure_finding_moves_next_to_nothing() -> None:
    found = estimator([0.9999] * 30 + [0.7])
    found.update({at: at != 7 for at in range(30)})
    assert found.probability[30] == pytest.approx(0.7, abs=0.12)


def test_sure_and_impossible_findings_are_taken_too() -> None:
    found = estimator([1.0, 0.0, 0.5])
    found.update({0: False, 1: True})
    assert np.isfinite(found.probability).all()


def test_the_threshold_is_among_the_findings_that_are_left() -> None:
    found = estimator([0.9, 0.8, 0.15, 0.05])
    assert found.threshold(none_decided(4)) == pytest.approx(0.8)
    assert found.threshold(np.ones(4, dtype=bool)) is None


def test_the_interval_holds_the_truth_as_often_as_it_says_where_its_model_is_right() -> None:
    rng = np.random.default_rng(0)
    inside = []
    for _ in range(100):
        stated = rng.uniform(0.2, 0.95, 120)
        odds = np.log(stated / (1 - stated)) * (1 + 0.2 * rng.normal()) + 0.5 * rng.normal()
        truth = rng.random(120) < 1 / (1 + np.exp(-odds))
        found = estimator(sorted(stated.tolist(), reverse=True))
        truth = truth[np.argsort(-stated)]
        found.update({at: bool(truth[at]) for at in range(40)})
        queue, _ = found.left(np.arange(120) < 40)
        inside.append(queue.low <= truth[40:].sum() <= queue.high)
    assert np.mean(inside) >= 0.85


def test_an_empty_worklist_holds_no_errors() -> None:
    queue, everything = Estimator(worklist([])).left(none_decided(0))
    assert (queue.n, queue.errors, everything.high) == (0, 0.0, 0.0)
