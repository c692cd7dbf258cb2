from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from dataaudit.annotators import Annotations
from dataaudit.checks.annotators import (
    annotator_unreliable,
    ask_another_person,
    label_differs_from_consensus,
)
from dataaudit.checks.consensus import Votes, consensus, expected_gain
from dataaudit.errors import Unavailable
from dataaudit.metrics import expected_calibration_error
from dataaudit.types import Locator

CLASSES = np.array(["cat", "dog", "fox"])


def labels_of(names: list[str | None]) -> pd.DataFrame:
    ids = [f"i{number}" for number in range(len(names))]
    return pd.DataFrame(
        {"sample_id": ids, "name": names, "geometry": None, "locator": [Locator(file=i) for i in ids]},
        index=[f"L{i}" for i in ids],
    )


def annotations_of(*rows: str) -> Annotations:
    """Of "0 cat dog", that the first annotator says cat for the image i0, the second dog; "-" is nobody."""
    votes = [
        (f"i{row.split()[0]}", f"p{person}", name, 1)
        for row in rows
        for person, name in enumerate(row.split()[1:])
        if name != "-"
    ]
    return Annotations(votes=pd.DataFrame(votes, columns=["sample_id", "annotator", "name", "n"]))


def counts_of(*rows: tuple[str, str, int]) -> Annotations:
    votes = pd.DataFrame(rows, columns=["sample_id", "name", "n"])
    return Annotations(votes=votes.assign(annotator=None))


AGREED = [f"{number} {name} {name} {name}" for number, name in enumerate(["cat", "dog"] * 10)]
GIVEN: list[str | None] = ["cat", "dog"] * 10


def test_labels_that_everybody_gives_are_silent() -> None:
    annotations, labels = annotations_of(*AGREED), labels_of(GIVEN)
    assert not label_differs_from_consensus(annotations, labels, "classification").flagged.any()
    assert not annotator_unreliable(annotations, labels, "classification").flagged.any()
    assert not ask_another_person(annotations, labels, "classification").flagged.any()


def test_a_label_that_nobody_gives_is_flagged_with_what_people_say() -> None:
    annotations, labels = annotations_of(*AGREED, "20 dog dog dog"), labels_of([*GIVEN, "cat"])
    outcome = label_differs_from_consensus(annotations, labels, "classification")
    assert list(outcome.flagged.index[outcome.flagged]) == ["Li20"]
    assert (outcome.fixes["Li20"].old, outcome.fixes["Li20"].new) == ("cat", "dog")
    assert outcome.probability["Li20"] > 0.9
    assert outcome.evidence.loc["Li20", "message"].startswith("People say 3 x 'dog': the chance that 'cat'")


def test_three_people_who_agree_outweigh_the_label_however_many_classes_there_are() -> None:
    names = [f"c{number % 10}" for number in range(60)]
    annotations = annotations_of(*(f"{number} {name} {name} {name}" for number, name in enumerate(names)))
    outcome = label_differs_from_consensus(annotations, labels_of(["c1", *names[1:]]), "classification")
    assert list(outcome.flagged.index[outcome.flagged]) == ["Li0"]


def test_numbers_of_votes_without_annotators_are_enough() -> None:
    rows = [(f"i{number}", name, 5) for number, name in enumerate(["cat", "dog"] * 10)]
    annotations = counts_of(*rows, ("i20", "dog", 4), ("i20", "cat", 1))
    labels = labels_of([*GIVEN, "cat"])
    outcome = label_differs_from_consensus(annotations, labels, "classification")
    assert list(outcome.flagged.index[outcome.flagged]) == ["Li20"]
    with pytest.raises(Unavailable, match="don't say who"):
        annotator_unreliable(annotations, labels, "classification")


def test_an_image_that_people_disagree_about_is_one_to_ask_about() -> None:
    annotations, labels = annotations_of(*AGREED, "20 dog cat -"), labels_of([*GIVEN, None])
    outcome = ask_another_person(annotations, labels, "classification", budget=1)
    assert list(outcome.flagged.index[outcome.flagged]) == ["i20"]
    assert outcome.evidence.loc["i20", "message"].startswith("People say 1 x 'cat', 1 x 'dog': '")
    assert outcome.score["i20"] < outcome.score.drop("i20").min()


def test_the_baseline_decides_between_two_people_who_disagree() -> None:
    annotations, labels = annotations_of(*AGREED, "20 dog cat"), labels_of([*GIVEN, None])
    probabilities = pd.DataFrame(
        [[0.98, 0.02], [0.02, 0.98]] * 10 + [[0.02, 0.98]],
        index=[f"i{number}" for number in range(21)],
        columns=["cat", "dog"],
    )
    alone = ask_another_person(annotations, labels, "classification").score["i20"]
    assert ask_another_person(annotations, labels, "classification", probabilities).score["i20"] > alone + 0.1


def test_unlabeled_images_and_images_nobody_was_asked_about_have_no_score() -> None:
    annotations = annotations_of(*AGREED[:-1])
    outcome = label_differs_from_consensus(annotations, labels_of([None, *GIVEN[1:]]), "classification")
    assert list(outcome.score.index) == [f"Li{number}" for number in range(1, 19)]


@pytest.mark.parametrize(
    ("rows", "given", "task", "reason"),
    [
        (["0 cat cat"], ["cat"], "classification", "one class"),
        (["0 cat dog"], [None], "classification", "no image that the annotations name has a label"),
        (["0 cat dog"], ["cat"], "multilabel", "one class an image"),
    ],
)
def test_where_there_is_nothing_to_compare_the_check_says_why(
    rows: list[str], given: list[str | None], task: str, reason: str
) -> None:
    with pytest.raises(Unavailable, match=reason):
        label_differs_from_consensus(annotations_of(*rows), labels_of(given), task)


@pytest.mark.parametrize(
    "rows",
    [
        ["0 cat"],
        ["0 cat", "1 - dog"],
        ["0 cat cat", "1 - - dog"],
        ["0 cat dog fox"],
        ["0 cat -", "1 dog dog"],
    ],
    ids=["one label", "no overlap", "one labeled one image alone", "nobody agrees", "half of an overlap"],
)
def test_odd_annotations_give_chances_all_the_same(rows: list[str]) -> None:
    labels = labels_of(["dog", "cat"])
    for run in (label_differs_from_consensus, ask_another_person):
        outcome = run(annotations_of(*rows), labels, "classification")
        assert outcome.score.between(0, 1).all()


def people(
    quality: list[float], n: int = 600, each: int = 3
) -> tuple[Annotations, pd.DataFrame, np.ndarray, np.ndarray]:
    """Votes of annotators of known quality, labels of which a tenth is wrong, and the true classes."""
    rng = np.random.default_rng(1)
    true = rng.integers(0, 3, n)
    who = np.argsort(rng.random((n, len(quality))), axis=1)[:, :each]
    right = rng.random((n, each)) < np.array(quality)[who]
    said = np.where(right, true[:, None], (true[:, None] + rng.integers(1, 3, (n, each))) % 3)
    votes = pd.DataFrame(
        {
            "sample_id": np.repeat([f"i{number}" for number in range(n)], each),
            "annotator": [f"p{person}" for person in who.ravel()],
            "name": CLASSES[said.ravel()],
            "n": 1,
        }
    )
    wrong = rng.random(n) < 0.1
    given = np.where(wrong, (true + rng.integers(1, 3, n)) % 3, true)
    return Annotations(votes=votes), labels_of(list(CLASSES[given])), true, wrong


QUALITY = [0.95, 0.9, 0.92, 0.88, 0.93, 0.9, 0.91, 0.35, 0.94, 0.9]


def test_a_careless_annotator_is_found_and_the_careful_ones_are_not() -> None:
    annotations, labels, _, _ = people(QUALITY)
    outcome = annotator_unreliable(annotations, labels, "classification")
    assert list(outcome.flagged.index[outcome.flagged]) == ["p7"]
    assert outcome.score["p7"] == pytest.approx(0.35, abs=0.08)
    assert outcome.evidence.loc["p7", "low"] < 0.35 < outcome.evidence.loc["p7", "high"]
    assert "others would be in" in outcome.evidence.loc["p7", "message"]


def test_annotators_who_differ_by_chance_alone_are_silent() -> None:
    annotations, labels, _, _ = people([0.9] * 10)
    assert not annotator_unreliable(annotations, labels, "classification").flagged.any()


def test_wrong_labels_are_found_with_calibrated_chances() -> None:
    annotations, labels, _, wrong = people(QUALITY)
    outcome = label_differs_from_consensus(annotations, labels, "classification")
    found = outcome.flagged.to_numpy()
    assert (found & wrong).sum() >= 0.85 * wrong.sum()
    assert (found & wrong).sum() >= 0.85 * found.sum()
    assert expected_calibration_error(outcome.probability.to_numpy(), wrong) < 0.03


def test_labels_made_from_the_votes_are_no_opinion_of_their_own() -> None:
    annotations, labels, true, _ = people([0.8] * 8)
    votes = annotations.votes.groupby("sample_id", sort=False)["name"].first()
    ids = pd.Index(labels["sample_id"])
    numbers = Votes.of(annotations.votes, ids, pd.Index(CLASSES), pd.Index(annotations.annotators))
    first = pd.Index(CLASSES).get_indexer(pd.Index(votes.loc[ids])).astype(np.int64)
    assert not consensus(numbers, None, first).independent
    assert consensus(numbers, None, true.astype(np.int64)).independent


def test_the_consensus_is_right_more_often_than_the_majority() -> None:
    annotations, labels, true, _ = people([0.95, 0.95, 0.4, 0.4, 0.4, 0.9])
    ids = pd.Index(labels["sample_id"])
    votes = Votes.of(annotations.votes, ids, pd.Index(CLASSES), pd.Index(annotations.annotators))
    found = consensus(votes)
    assert (found.best == true).mean() > (found.counts.argmax(1) == true).mean() + 0.03


def test_another_answer_is_worth_most_where_two_classes_are_as_probable() -> None:
    confusion = np.array([[0.9, 0.1, 0.0], [0.1, 0.9, 0.0], [0.0, 0.0, 1.0]])
    chances = np.array([[0.5, 0.5, 0.0], [0.9, 0.1, 0.0], [0.0, 0.5, 0.5], [1.0, 0.0, 0.0]])
    gain = expected_gain(chances, confusion)
    # (0.45^2 + 0.05^2) / 0.5 twice, less 0.5
    assert gain[0] == pytest.approx(0.32)
    assert gain[2] > gain[0] > gain[1] > gain[3] == 0


def test_classes_that_do_not_come_into_question_are_answers_like_any_other() -> None:
    confusion = np.full((50, 50), 0.1 / 49)
    np.fill_diagonal(confusion, 0.9)
    few = expected_gain(np.array([[0.5, 0.5, 0.0]]), confusion, np.array([[7, 3, -1]]))
    every = np.zeros((1, 50))
    every[0, [7, 3]] = 0.5
    assert few == pytest.approx(expected_gain(every, confusion))


def test_with_many_classes_those_that_are_suggested_are_looked_at() -> None:
    rng = np.random.default_rng(0)
    names = np.array([f"c{number:02d}" for number in range(40)])
    true = rng.integers(0, 40, 800)
    said = np.where(rng.random((800, 3)) < 0.8, true[:, None], rng.integers(0, 40, (800, 3)))
    votes = pd.DataFrame(
        {
            "sample_id": np.repeat([f"i{number}" for number in range(800)], 3),
            "annotator": np.tile(["ann", "bob", "eve"], 800),
            "name": names[said.ravel()],
            "n": 1,
        }
    )
    given = np.where(rng.random(800) < 0.1, rng.integers(0, 40, 800), true)
    probabilities = pd.DataFrame(
        0.4 * np.eye(40)[true] + 0.6 / 40, index=[f"i{number}" for number in range(800)], columns=names
    )
    labels = labels_of(list(names[given]))
    for baseline in (None, probabilities):
        outcome = label_differs_from_consensus(Annotations(votes=votes), labels, "classification", baseline)
        found = outcome.flagged.to_numpy()
        assert (found & (given != true)).sum() >= 0.85 * (given != true).sum()
        assert (found & (given != true)).sum() >= 0.85 * found.sum()
