from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest

from dataaudit.checks.duplicates import exact_duplicate, near_duplicate
from dataaudit.checks.images import undecodable_image
from dataaudit.checks.labels import label_groups_disagree
from dataaudit.checks.splits import leaks_between_splits
from dataaudit.errors import Unavailable
from dataaudit.types import Locator, Outcome

Row = tuple[str, str | None, str | None, str, int]
"""Sample id, class, split, digest and pixels a side."""


def images_of(rows: Sequence[Row]) -> pd.DataFrame:
    ids = [row[0] for row in rows]
    return pd.DataFrame(
        {
            "filepath": [f"/d/{i}" for i in ids],
            "width": [row[4] for row in rows],
            "height": [row[4] for row in rows],
            "split": pd.Series([row[2] for row in rows], dtype=object).to_numpy(),
            "digest": [row[3] for row in rows],
        },
        index=ids,
    )


def labels_of(rows: Sequence[Row]) -> pd.DataFrame:
    ids = [f"L{row[0]}" for row in rows]
    return pd.DataFrame(
        {
            "sample_id": [row[0] for row in rows],
            "name": pd.Series([row[1] for row in rows], dtype=object).to_numpy(),
            "geometry": None,
            "locator": [Locator(file=row[0]) for row in rows],
        },
        index=ids,
    )


def groups_of(rows: Sequence[Row], groups: Sequence[int]) -> pd.Series:
    return pd.Series(list(groups), index=[row[0] for row in rows])


def flagged(outcome: Outcome) -> list[str]:
    return sorted(outcome.flagged.index[outcome.flagged])


NONE = pd.Series([], dtype=object)
A, B = ("a", "cat", None, "1", 9), ("b", "cat", None, "1", 9)

EXACT_SILENT: list[list[Row]] = [
    [],
    [A],
    [A, ("b", "cat", None, "2", 9)],
    # Copies in two splits are SPL001's.
    [("a", "cat", "train", "1", 9), ("b", "cat", "test", "1", 9)],
]
EXACT_FLAGS: list[tuple[list[Row], list[str], list[str]]] = [
    ([A, B], ["b"], ["b"]),
    # The shorter path is kept.
    ([("a/deep", "cat", None, "1", 9), ("z", "cat", None, "1", 9)], ["a/deep"], ["a/deep"]),
    # Each split keeps one.
    (
        [("a", "cat", "train", "1", 9), ("b", "cat", "train", "1", 9), ("c", "cat", "test", "1", 9)],
        ["b"],
        ["b"],
    ),
    # The label that most copies have is kept; another label isn't merged.
    ([("a", "dog", None, "1", 9), ("b", "cat", None, "1", 9), ("c", "cat", None, "1", 9)], ["a", "c"], ["c"]),
    # Unlabeled copies are merged with each other.
    ([("a", None, None, "1", 9), ("b", None, None, "1", 9)], ["b"], ["b"]),
    # A copy without a label isn't merged into one that has one.
    ([("a", None, None, "1", 9), ("b", "cat", None, "1", 9)], ["a"], []),
]


@pytest.mark.parametrize("rows", EXACT_SILENT)
def test_exact_duplicates_are_silent(rows: list[Row]) -> None:
    outcome = exact_duplicate(images_of(rows), labels_of(rows), NONE)
    assert flagged(outcome) == []
    assert (outcome.score == 1).all()


@pytest.mark.parametrize(("rows", "ids", "merged"), EXACT_FLAGS)
def test_exact_duplicates_are_flagged(rows: list[Row], ids: list[str], merged: list[str]) -> None:
    outcome = exact_duplicate(images_of(rows), labels_of(rows), NONE)
    assert flagged(outcome) == ids
    assert sorted(outcome.fixes) == merged
    assert all(fix.op == "merge" and fix.label_id == f"L{i}" for i, fix in outcome.fixes.items())
    assert (outcome.score[ids] == 0).all()


def test_files_that_cannot_be_decoded_are_no_duplicates() -> None:
    errors = pd.Series({"a": "empty", "b": "empty"})
    assert flagged(exact_duplicate(images_of([A, B]), labels_of([A, B]), errors)) == []


def test_images_without_a_row_of_labels_may_be_duplicates() -> None:
    outcome = exact_duplicate(images_of([A, B]), labels_of([]), NONE)
    assert flagged(outcome) == ["b"]
    assert outcome.fixes["b"].label_id == "b"


VECTORS = pd.DataFrame(
    np.array([[1, 0], [1, 0.1], [-1, 0.2], [-1, -0.3]], dtype=np.float32), index=list("abcd")
)


def test_near_duplicates_are_silent_where_all_groups_have_one_image() -> None:
    rows: list[Row] = [(i, "cat", None, i, 9) for i in "abcd"]
    outcome = near_duplicate(groups_of(rows, [0, 1, 2, 3]), VECTORS, labels_of(rows), images_of(rows))
    assert flagged(outcome) == []


@pytest.mark.parametrize(
    ("rows", "ids"),
    [
        # The image with most pixels is kept.
        ([("a", "cat", None, "1", 9), ("b", "cat", None, "2", 20)], ["a"]),
        # Copies of the same bytes are left to DUP001.
        ([("a", "cat", None, "1", 9), ("b", "cat", None, "1", 9)], []),
        ([("a", "cat", None, "1", 9), ("b", "cat", None, "1", 9), ("c", "cat", None, "2", 9)], ["c"]),
    ],
)
def test_near_duplicates_are_flagged(rows: list[Row], ids: list[str]) -> None:
    outcome = near_duplicate(
        groups_of(rows, [5] * len(rows)), VECTORS.iloc[: len(rows)], labels_of(rows), images_of(rows)
    )
    assert flagged(outcome) == ids
    assert sorted(outcome.fixes) == ids
    assert outcome.score.between(0, 1).all()


@pytest.mark.parametrize(
    ("rows", "groups"),
    [
        (
            [("a", "cat", "train", "1", 9), ("b", "cat", "train", "1", 9), ("c", "cat", "test", "3", 9)],
            [0, 0, 1],
        ),
        (
            [("a", "cat", None, "1", 9), ("b", "cat", "train", "1", 9), ("c", "cat", "test", "3", 9)],
            [0, 0, 1],
        ),
    ],
)
def test_groups_within_a_split_are_no_leak(rows: list[Row], groups: list[int]) -> None:
    assert flagged(leaks_between_splits(groups_of(rows, groups), labels_of(rows), images_of(rows))) == []


@pytest.mark.parametrize(
    ("rows", "ids"),
    [
        ([("a", "cat", "train", "1", 9), ("b", "cat", "test", "2", 9)], ["a"]),
        (
            [("a", "cat", "val", "1", 9), ("b", "cat", "test", "1", 9), ("c", "dog", "train", "3", 9)],
            ["a", "c"],
        ),
        # An image without a split takes no part.
        ([("a", "cat", None, "1", 9), ("b", "cat", "fold1", "1", 9), ("c", "cat", "fold2", "1", 9)], ["c"]),
    ],
)
def test_leaks_are_flagged_in_the_split_that_may_lose_an_image(rows: list[Row], ids: list[str]) -> None:
    outcome = leaks_between_splits(groups_of(rows, [0] * len(rows)), labels_of(rows), images_of(rows))
    assert flagged(outcome) == ids
    assert {fix.op for fix in outcome.fixes.values()} == {"drop"}
    assert sorted(outcome.fixes) == ids


def test_a_leak_of_the_very_bytes_is_certain_and_of_the_picture_a_question() -> None:
    rows: list[Row] = [("a", "x", "train", "1", 9), ("b", "x", "test", "1", 9), ("c", "x", "train", "2", 9)]
    outcome = leaks_between_splits(groups_of(rows, [0, 0, 0]), labels_of(rows), images_of(rows))
    assert outcome.score.to_dict() == {"a": 0.0, "b": 1.0, "c": 0.1}
    assert outcome.probability["a"] == 1
    assert np.isnan(outcome.probability["c"])
    assert outcome.evidence.loc["a", "message"] == "The same bytes as b in the split 'test'."
    assert outcome.evidence.loc["c", "message"] == "Nearly the same picture as b in the split 'test'."


def test_without_splits_there_is_no_leak_to_look_for() -> None:
    rows: list[Row] = [("a", "x", "train", "1", 9), ("b", "x", None, "1", 9)]
    with pytest.raises(Unavailable, match="the dataset has no splits"):
        leaks_between_splits(groups_of(rows, [0, 0]), labels_of(rows), images_of(rows))


@pytest.mark.parametrize(
    ("names", "groups"),
    [(["cat", "cat"], [0, 0]), (["cat", "dog"], [0, 1]), (["cat", None], [0, 0]), ([None, None], [0, 0])],
)
def test_groups_that_agree_are_silent(names: list[str | None], groups: list[int]) -> None:
    rows: list[Row] = [(i, name, None, i, 9) for i, name in zip("ab", names, strict=True)]
    outcome = label_groups_disagree(groups_of(rows, groups), labels_of(rows), images_of(rows))
    assert flagged(outcome) == []
    assert (outcome.score == 1).all()


def test_the_minority_of_a_group_is_flagged_and_relabeled() -> None:
    rows: list[Row] = [("a", "cat", None, "1", 9), ("b", "dog", None, "2", 9), ("c", "cat", None, "3", 9)]
    outcome = label_groups_disagree(groups_of(rows, [0, 0, 0]), labels_of(rows), images_of(rows))
    assert flagged(outcome) == ["Lb"]
    assert (outcome.fixes["Lb"].old, outcome.fixes["Lb"].new) == ("dog", "cat")
    assert outcome.score["Lb"] == pytest.approx(0.1)
    assert (
        outcome.evidence.loc["Lb", "message"]
        == "Images that show the same picture are labeled 2 x 'cat', 1 x 'dog'."
    )


def test_the_baseline_decides_among_equals() -> None:
    rows: list[Row] = [("a", "cat", None, "1", 9), ("b", "dog", None, "2", 9)]
    probabilities = pd.DataFrame({"cat": [0.1, 0.2], "dog": [0.9, 0.8]}, index=["a", "b"])
    outcome = label_groups_disagree(groups_of(rows, [0, 0]), labels_of(rows), images_of(rows), probabilities)
    assert flagged(outcome) == ["La"]
    without = label_groups_disagree(groups_of(rows, [0, 0]), labels_of(rows), images_of(rows))
    assert without.score[flagged(without)].tolist() == [0.5]


def test_files_that_decode_are_silent() -> None:
    outcome = undecodable_image(images_of([A, B]), labels_of([A, B]), NONE)
    assert (outcome.score == 1).all()
    assert not outcome.flagged.any()


def test_files_that_do_not_decode_are_flagged_with_the_reason() -> None:
    rows: list[Row] = [A, ("b", None, None, "2", 0), ("c", "dog", None, "3", 0)]
    errors = pd.Series({"b": "the file is empty (0 bytes)", "c": "not an image"})
    outcome = undecodable_image(
        images_of(rows), labels_of(rows)[lambda table: table["sample_id"] != "b"], errors
    )
    assert flagged(outcome) == ["b", "c"]
    assert outcome.evidence.loc["b", "message"] == "The file is empty (0 bytes)."
    assert (outcome.fixes["b"].op, outcome.fixes["b"].old, outcome.fixes["b"].label_id) == ("drop", None, "b")
    assert (outcome.fixes["c"].old, outcome.fixes["c"].label_id) == ("dog", "Lc")
    assert outcome.probability.to_dict() == {"a": 0, "b": 1, "c": 1}
