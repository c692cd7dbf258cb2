from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from dataaudit.checks.spelling import class_spelled_differently, spelling_key
from dataaudit.types import Neighbors, Outcome


def outcome_of(sizes: dict[str, int], near: Neighbors | None = None) -> Outcome:
    names = [name for name, n in sizes.items() for _ in range(n)]
    ids = [f"i{number}" for number in range(len(names))]
    labels = pd.DataFrame({"sample_id": ids, "name": pd.Series(names, dtype=object).to_numpy()}, index=ids)
    return class_spelled_differently(tuple(sorted(sizes)), labels, near)


def flagged(outcome: Outcome) -> dict[str, str]:
    return dict(outcome.evidence.loc[outcome.flagged.index[outcome.flagged], "suggested"])


SILENT = [
    ("grade_1", "grade_2"),
    ("grade 1", "grade 11"),
    ("stage II", "stage III"),
    ("size S", "size M"),
    ("size s", "sizes"),
    ("animal/dog", "animal/cat"),
    ("animal/dog", "plant/dog"),
    ("n01440764", "n01440765"),
    ("car", "cart"),
    ("car", "cat"),
    ("a", "A"),  # letters
    ("Co", "CO"),  # elements
    ("temp_-1", "temp_1"),
    ("1.5", "15"),
    ("c", "c++"),
    ("glass", "glasses2"),
    ("bus", "bu"),
    ("hypertension", "hypotension"),
    ("1980", "1980s"),
    ("benign", "malignant"),
    ("left eye", "right eye"),
    ("", "-"),
]


@pytest.mark.parametrize(("one", "other"), SILENT)
def test_names_that_mean_different_things_are_silent(one: str, other: str) -> None:
    assert flagged(outcome_of({one: 100, other: 1})) == {}


@pytest.mark.parametrize(
    ("usual", "rare", "how"),
    [
        ("car", "Car", "differ in capital letters only"),
        ("traffic light", "traffic_light", "differ in how the same words are written only"),
        ("traffic light", "TrafficLight", "differ in how the same words are written only"),
        ("traffic-light", "traffic light", "differ in how the same words are written only"),
        ("dog", "dog ", "differ in spaces only"),
        ("hot dog", "hot  dog", "differ in spaces only"),
        ("caf\u00e9", "cafe\u0301", "look the same and are made of different characters"),
        ("dog", "dog\u200b", "look the same and are made of different characters"),
        ("dog", "\uff44\uff4f\uff47", "look the same and are made of different characters"),
        ("car", "c\u0430r", "look the same and are made of different characters"),
        ("dog", "dogs", "are singular and plural"),
        ("berry", "berries", "are singular and plural"),
        ("box", "boxes", "are singular and plural"),
        ("animal/dog", "animal/dogs", "are singular and plural"),
    ],
)
def test_one_name_written_in_two_ways_is_flagged_with_the_frequent_one(
    usual: str, rare: str, how: str
) -> None:
    outcome = outcome_of({usual: 40, rare: 3, "tree": 40})
    assert flagged(outcome) == {rare: usual}
    assert outcome.evidence.loc[rare, "message"] == f"{rare!r} (3 labels) and {usual!r} (40 labels) {how}."
    fix = outcome.fixes[rare]
    assert (fix.op, fix.old, fix.new) == ("rename", rare, usual)


def test_all_spellings_of_a_name_are_renamed_to_the_same() -> None:
    outcome = outcome_of({"car": 9, "Car": 5, "CAR": 2, "cars": 1, "dog": 9})
    assert flagged(outcome) == {"Car": "car", "CAR": "car", "cars": "car"}


def test_of_two_names_as_frequent_the_plain_one_stays() -> None:
    assert flagged(outcome_of({"Dog": 5, "dog": 5})) == {"Dog": "dog"}
    assert flagged(outcome_of({"dog ": 5, "dog": 5})) == {"dog ": "dog"}


def test_a_name_without_labels_is_flagged_and_has_nothing_to_rename() -> None:
    outcome = outcome_of({"dog": 5, "Dog": 0})
    assert flagged(outcome) == {"Dog": "dog"}
    assert outcome.fixes == {}


def near(sizes: dict[str, int], mixed: set[str]) -> Neighbors:
    """Neighbours in which the classes `mixed` are one heap and each other class is by itself."""
    names = np.array([name for name, n in sizes.items() for _ in range(n)])
    heaps = np.array(["mixed" if name in mixed else name for name in names])
    rng = np.random.default_rng(0)
    indices = np.array([rng.choice(np.flatnonzero(heaps == heap), 5) for heap in heaps])
    ids = pd.Index([f"i{number}" for number in range(len(names))])
    return Neighbors(ids=ids, indices=indices, similarities=np.ones(indices.shape, dtype=np.float32))


def test_a_slip_of_one_letter_is_flagged_where_the_images_look_the_same() -> None:
    sizes = {"horse": 60, "hrose": 10, "house": 60, "zebra": 60}
    assert flagged(outcome_of(sizes, near(sizes, {"horse", "hrose"}))) == {"hrose": "horse"}


def test_a_rare_word_of_another_meaning_is_silent_where_its_images_look_different() -> None:
    sizes = {"horse": 60, "house": 1, "zebra": 60}
    assert flagged(outcome_of(sizes, near(sizes, set()))) == {}


def test_a_slip_is_flagged_by_its_rarity_where_images_cannot_be_compared() -> None:
    assert flagged(outcome_of({"horse": 60, "hrose": 1})) == {"hrose": "horse"}
    assert flagged(outcome_of({"horse": 60, "house": 30})) == {}


def test_a_plural_whose_images_look_different_is_silent() -> None:
    sizes = {"glove": 60, "gloves": 60, "zebra": 60}
    assert flagged(outcome_of(sizes, near(sizes, set()))) == {}
    assert flagged(outcome_of(sizes, near(sizes, {"glove", "gloves"}))) == {"gloves": "glove"}


def test_many_classes_are_compared_in_no_time() -> None:
    sizes = {f"{'abcdefghij'[n % 10] * 4}word{n // 10}": 1 for n in range(3000)}
    assert flagged(outcome_of(sizes)) == {}


def test_no_class_is_no_pair() -> None:
    assert len(outcome_of({}).score) == 0


@pytest.mark.parametrize(
    ("name", "key"),
    [("Covid-19", "covid19"), ("type 2 a", "type_2_a"), ("non-cancer", "noncancer"), ("1-2", "1-2")],
)
def test_what_stays_the_same_in_a_name(name: str, key: str) -> None:
    assert spelling_key(name) == key
