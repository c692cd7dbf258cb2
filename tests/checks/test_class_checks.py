from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_digits

from dataaudit.checks.classes import (
    class_error_rate,
    class_without_labels,
    classes_alike,
    rare_class,
    splits_differ_in_classes,
)
from dataaudit.errors import Unavailable
from dataaudit.signals.label_errors import label_errors
from dataaudit.signals.probabilities import pred_probs
from dataaudit.signals.spectrum import neighbors, spectrum
from dataaudit.types import Neighbors, Outcome


def labels_of(names: list[str | None]) -> pd.DataFrame:
    ids = [f"i{number}" for number in range(len(names))]
    given = pd.Series(names, dtype=object).to_numpy()
    return pd.DataFrame({"sample_id": ids, "name": given}, index=[f"L{i}" for i in ids])


def flagged(outcome: Outcome) -> list[str]:
    return list(outcome.flagged.index[outcome.flagged])


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return np.asarray(load_digits().data, dtype=np.float32)


@pytest.fixture(scope="module")
def digits() -> np.ndarray:
    return np.asarray(load_digits().target).astype(str).astype(object)


def judged(pixels: np.ndarray, names: np.ndarray) -> tuple[pd.DataFrame, pd.DataFrame, Neighbors]:
    values = pd.DataFrame(pixels, index=[f"i{number}" for number in range(len(names))])
    found = spectrum(values)
    near, labels = neighbors(found), labels_of(list(names))
    return pred_probs(found, near, pd.Series(range(len(names)), index=values.index), labels), labels, near


# LBL008


def test_classes_that_look_different_are_silent(pixels: np.ndarray, digits: np.ndarray) -> None:
    outcome = classes_alike(*judged(pixels, digits))
    assert flagged(outcome) == []
    assert outcome.score.min() > 0.9


def test_one_class_divided_by_chance_is_flagged(pixels: np.ndarray, digits: np.ndarray) -> None:
    half = (digits == "3") & (np.random.default_rng(0).random(len(digits)) < 0.5)
    outcome = classes_alike(*judged(pixels, np.where(half, "three", digits)))
    assert flagged(outcome) == ["3 / three"]
    assert outcome.evidence.loc["3 / three", "message"].startswith("'3' (")
    assert outcome.score["3 / three"] < 0.2


def test_two_classes_with_few_images_are_not_judged(pixels: np.ndarray, digits: np.ndarray) -> None:
    some = np.flatnonzero(np.isin(digits, ["1", "2", "3"]))[:60]
    names = digits[some].copy()
    three = np.flatnonzero(names == "3")
    names[three[::2]] = "three"
    assert flagged(classes_alike(*judged(pixels[some], names))) == []


def test_a_baseline_that_can_tell_nothing_says_nothing_about_two_classes(
    pixels: np.ndarray, digits: np.ndarray
) -> None:
    assert flagged(classes_alike(*judged(pixels, np.random.default_rng(0).permutation(digits)))) == []


# LBL010


def test_errors_spread_over_all_classes_are_silent(pixels: np.ndarray, digits: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    names = np.where(rng.random(len(digits)) < 0.1, rng.permutation(digits), digits)
    probabilities, labels, _ = judged(pixels, names)
    assert flagged(class_error_rate(label_errors(probabilities, labels))) == []


def test_a_class_with_many_wrong_labels_is_flagged(pixels: np.ndarray, digits: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    names = np.where((digits == "4") & (rng.random(len(digits)) < 0.3), rng.permutation(digits), digits)
    names = np.where((digits != "4") & (rng.random(len(digits)) < 0.04), "4", names)
    probabilities, labels, _ = judged(pixels, names)
    outcome = class_error_rate(label_errors(probabilities, labels))
    assert flagged(outcome) == ["4"]
    assert outcome.score["4"] == pytest.approx((digits == "4")[names == "4"].mean(), abs=0.1)
    assert "of the other classes' labels" in outcome.evidence.loc["4", "message"]


def test_a_class_of_three_images_is_not_judged_by_one_of_them() -> None:
    names: list[str | None] = ["a"] * 50 + ["b"] * 50 + ["c"] * 3
    sure = np.eye(3) * 0.95 + 0.05 / 3
    rows = [sure["abc".index(str(name))] for name in names[:-1]]
    probabilities = pd.DataFrame(
        [*rows, sure[0]], index=[f"i{number}" for number in range(103)], columns=list("abc")
    )
    assert flagged(class_error_rate(label_errors(probabilities, labels_of(names)))) == []


def test_one_class_has_nothing_to_be_compared_with() -> None:
    probabilities = pd.DataFrame([[1.0]], index=["i0"], columns=["a"])
    with pytest.raises(Unavailable, match="one class"):
        classes_alike(probabilities, labels_of(["a"]))


# LBL011


def test_a_class_that_no_image_has_is_flagged() -> None:
    outcome = class_without_labels(("cat", "cow", "dog"), labels_of(["cat", "dog", None]))
    assert flagged(outcome) == ["cow"]
    assert outcome.evidence["message"].tolist() == ["No image is labeled 'cow'."]
    assert flagged(class_without_labels(("cat",), labels_of(["cat"]))) == []
    assert flagged(class_without_labels((), labels_of([]))) == []


# LBL012


@pytest.mark.parametrize(
    "sizes",
    [
        {"a": 500, "b": 500, "c": 60},  # rare and still enough
        {"a": 3, "b": 4, "c": 5},  # a small dataset
        {"a": 1, "b": 1, "c": 1, "d": 9},  # most classes have one image
        {"a": 60, "b": 12},
        {"a": 7},
    ],
)
def test_classes_that_are_large_enough_or_all_small_are_silent(sizes: dict[str, int]) -> None:
    names: list[str | None] = [name for name, n in sizes.items() for _ in range(n)]
    assert flagged(rare_class(labels_of(names))) == []


def test_a_class_with_few_images_among_large_ones_is_flagged() -> None:
    names: list[str | None] = ["a"] * 500 + ["b"] * 400 + ["c"] * 8
    outcome = rare_class(labels_of(names))
    assert flagged(outcome) == ["c"]
    assert outcome.evidence.loc["c", "message"] == "8 pictures of 'c', where 400 are usual."
    assert flagged(rare_class(labels_of(names), min_images=5)) == []


def test_images_that_show_the_same_picture_count_once() -> None:
    names: list[str | None] = ["a"] * 8 + ["b"] * 8 + ["c"] * 8
    groups = pd.Series([*range(16), *[99] * 8], index=[f"i{number}" for number in range(24)])
    outcome = rare_class(labels_of(names), groups)
    assert flagged(outcome) == ["c"]
    assert outcome.evidence.loc["c", "message"] == "1 picture in 8 images of 'c', where 8 are usual."


def test_no_label_leaves_no_class_to_count() -> None:
    with pytest.raises(Unavailable, match="no image has a label"):
        rare_class(labels_of([None]))


# SPL002


def split(counts: dict[str, dict[str, int]]) -> Outcome:
    names: list[str | None] = []
    splits: list[str | None] = []
    for where, each in counts.items():
        for name, n in each.items():
            names += [name] * n
            splits += [where] * n
    labels = labels_of(names)
    images = pd.DataFrame({"split": pd.Series(splits, dtype=object).to_numpy()}, index=labels["sample_id"])
    return splits_differ_in_classes(images, labels)


@pytest.mark.parametrize(
    "counts",
    [
        {"train": {"a": 70, "b": 30}, "test": {"a": 16, "b": 4}},
        {"train": {"a": 50_000, "b": 50_000}, "test": {"a": 5_300, "b": 4_700}},
        {"train": {"a": 500, "b": 500, "c": 3}, "test": {"a": 50, "b": 50}},
        {"x": {"a": 3}, "y": {"b": 2}},
    ],
    ids=["by chance", "tiny in a large dataset", "rare and not tested", "too few to say"],
)
def test_splits_that_differ_little_are_silent(counts: dict[str, dict[str, int]]) -> None:
    assert flagged(split(counts)) == []


def test_a_class_that_is_much_more_frequent_in_one_split_is_flagged() -> None:
    outcome = split({"train": {"a": 900, "b": 100, "c": 1000}, "test": {"a": 90, "b": 30, "c": 80}})
    assert flagged(outcome) == ["b"]
    assert outcome.evidence.loc["b", "message"] == "'test': 30 (15.0%), 'train': 100 (5.0%)."


def test_a_class_that_is_tested_on_and_never_trained_on_is_flagged_however_rare() -> None:
    outcome = split({"train": {"a": 90, "b": 90}, "test": {"a": 9, "b": 9, "c": 1}})
    assert flagged(outcome) == ["c"]
    assert outcome.evidence.loc["c", "message"].startswith("No image to train on. 'test': 1 (")


def test_without_splits_or_labels_there_is_nothing_to_compare() -> None:
    labels = labels_of(["a", None])
    images = pd.DataFrame({"split": [None, None]}, index=labels["sample_id"])
    with pytest.raises(Unavailable, match="no splits"):
        splits_differ_in_classes(images, labels)
    with pytest.raises(Unavailable, match="no image in a split has a label"):
        splits_differ_in_classes(images.assign(split=["train", "test"]), labels_of([None, None]))
