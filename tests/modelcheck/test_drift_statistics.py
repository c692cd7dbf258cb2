"""The statistics of drift, against values worked out by hand and against scipy's."""

from __future__ import annotations

import numpy as np
import pytest

from dataaudit.errors import InputError
from dataaudit.modelcheck.drift.statistics import (
    classifier_scores,
    classifier_test,
    design,
    distances,
    frequencies,
    holm,
    p_values,
)

SIDES = np.array([False, False, True, True])


def test_every_labeling_has_as_many_images_a_side_as_there_are() -> None:
    dealt = design(np.arange(30) < 10, n_permutations=50, seed=3)
    assert dealt.labelings.shape == (30, 51)
    assert dealt.labelings[:, 0].tolist() == [1.0] * 10 + [0.0] * 20
    assert set(dealt.labelings.sum(0)) == {10.0}


def test_the_same_seed_deals_the_same() -> None:
    one, same, other = (design(SIDES, n_permutations=20, seed=seed).labelings for seed in (1, 1, 2))
    assert (one == same).all()
    assert (one != other).any()


def test_images_of_one_block_move_together_and_count_as_one() -> None:
    dealt = design(np.array([False, False, False, True, True]), np.array([7, 7, 7, 8, 9]), n_permutations=30)
    assert (dealt.labelings[0] == dealt.labelings[1]).all()
    assert (dealt.labelings[0] == dealt.labelings[2]).all()
    assert dealt.weights.tolist() == pytest.approx([1 / 3, 1 / 3, 1 / 3, 1, 1])


def test_the_two_of_a_pair_change_places_and_count_as_one() -> None:
    dealt = design(np.array([False, True, False, True]), np.array([0, 0, 1, 2]), n_permutations=30)
    assert (dealt.labelings[0] + dealt.labelings[1] == 1).all()
    assert 5 < dealt.labelings[0].sum() < 25
    assert dealt.weights.tolist() == [0.5, 0.5, 1, 1]


def test_what_is_fixed_and_larger_blocks_of_both_sides_stay_where_they_are() -> None:
    sides = np.array([False, True, False, True, True, False, True])
    fixed = np.array([True, True, False, False, False, False, False])
    dealt = design(sides, np.array([0, 0, 1, 1, 1, 2, 3]), fixed=fixed, n_permutations=30)
    assert (dealt.labelings[:5] == dealt.labelings[:5, :1]).all()
    assert (dealt.labelings[5] != dealt.labelings[5, :1]).any()


def test_pairs_that_differ_in_the_same_way_are_drift_and_others_are_not() -> None:
    rng = np.random.default_rng(0)
    sides, blocks = np.tile([False, True], 12), np.repeat(np.arange(12), 2)
    dealt = design(sides, blocks, n_permutations=999)
    values = np.repeat(rng.normal(size=12), 2)[:, None] + 0.1 * rng.normal(size=(24, 1))
    assert p_values(np.concatenate(distances(values, dealt)))[0] > 0.05
    values[sides] += 0.5
    assert p_values(np.concatenate(distances(values, dealt)))[0] < 0.01


def test_a_block_for_each_image_is_needed() -> None:
    with pytest.raises(InputError, match="2 blocks for 4 images"):
        design(SIDES, np.array([0, 1]))


def test_anderson_darling_is_the_value_worked_out_by_hand() -> None:
    # Levels 1/4, 1/2, 3/4: gaps -1/2, -1, -1/2; squares over H (1 - H): 4/3, 4, 4/3; 2 x 2 / 4 images
    mean, largest = distances(np.array([[1.0], [2.0], [3.0], [4.0]]), design(SIDES, n_permutations=1))
    assert mean[0, 0] == pytest.approx((4 / 3 + 4 + 4 / 3) / 3)
    assert largest[0, 0] == pytest.approx(4)


def test_a_property_without_variation_has_no_distance() -> None:
    found = distances(np.full((4, 1), 5.0), design(SIDES, n_permutations=9))
    assert [each.tolist() for each in found] == [[[0.0] * 10]] * 2


def test_a_part_that_lies_elsewhere_is_seen_by_the_largest_distance() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(200, 1))
    values[180:] -= 8
    mean, largest = distances(values, design(np.arange(200) >= 100, n_permutations=199))
    assert largest[0, 0] > 1.5 * largest[0, 1:].max()
    assert largest[0, 0] / largest[0, 1:].max() > mean[0, 0] / mean[0, 1:].max()


def test_the_upper_tail_sees_what_is_higher_in_production_only() -> None:
    values = np.arange(40.0)[:, None]
    dealt = design(np.arange(40) >= 20, n_permutations=1)
    assert distances(values, dealt, tail_from=0.75)[0][0, 0] > 1
    assert distances(-values, dealt, tail_from=0.75)[0][0, 0] == 0


def test_frequencies_are_the_chi_square_statistic_of_scipy() -> None:
    from scipy.stats import chi2_contingency

    classes = np.array([0] * 12 + [1] * 5 + [2] * 3 + [0] * 4 + [1] * 9 + [2] * 7)
    side = np.arange(40) >= 20
    table = [[int(((classes == k) & (side == s)).sum()) for k in range(3)] for s in (False, True)]
    found = frequencies(np.eye(4)[classes], design(side, n_permutations=1))
    assert found[0] == pytest.approx(chi2_contingency(table, correction=False).statistic, rel=1e-5)


def test_one_class_only_has_no_distance() -> None:
    assert frequencies(np.ones((4, 1)), design(SIDES, n_permutations=3)).tolist() == [0, 0, 0, 0]


def test_p_values_are_ranks_and_the_smaller_is_never_the_larger_after_correction() -> None:
    statistics = np.array([[8.0, 1, 2, 3, 4, 5, 6, 7], [5.0, 8, 7, 6, 1, 2, 3, 4], [0.0] * 8])
    together, each = p_values(statistics)
    assert together == each[0] == pytest.approx(2 / 8)
    assert each[0] <= each[1] <= each[2] == 1


def test_holm_multiplies_the_smallest_by_all_and_the_largest_by_one() -> None:
    assert holm(np.array([0.2, 0.01, 0.03])).tolist() == pytest.approx([0.2, 0.03, 0.06])
    assert holm(np.array([0.9, 0.8])).tolist() == [1, 1]


def test_p_values_without_drift_are_as_often_small_as_they_say() -> None:
    rng = np.random.default_rng(0)
    side = np.arange(40) >= 20
    found = []
    for seed in range(150):
        dealt = design(side, n_permutations=99, seed=seed)
        found.append(p_values(np.concatenate(distances(rng.normal(size=(40, 3)), dealt)))[0])
    assert 1 <= sum(p <= 0.05 for p in found) <= 16
    assert 0.4 < np.mean(found) < 0.6


def test_a_classifier_tells_shifted_features_apart_and_equal_ones_not() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(120, 8)).astype(np.float32)
    dealt = design(np.arange(120) >= 60, n_permutations=99)
    same = classifier_test(classifier_scores(features, dealt, np.arange(120)), dealt)
    features[60:, 0] += 2
    apart = classifier_test(classifier_scores(features - features.mean(0), dealt, np.arange(120)), dealt)
    assert apart[0] > 0.85 > apart[1:].max()
    assert (same[1:] >= same[0]).mean() > 0.05


def test_copies_of_one_image_do_not_vouch_for_each_other() -> None:
    rng = np.random.default_rng(0)
    features = np.repeat(rng.normal(size=(20, 30)), 5, axis=0).astype(np.float32)
    features += 0.01 * rng.normal(size=features.shape).astype(np.float32)
    dealt = design(np.arange(100) >= 50, np.repeat(np.arange(20), 5), n_permutations=99)
    areas = classifier_test(classifier_scores(features, dealt, np.repeat(np.arange(20), 5)), dealt)
    assert (areas >= areas[0]).mean() > 0.05
