from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from dataaudit.checks.multilabel import cell_chances, extra_label, label_sets_disagree, missing_label
from dataaudit.metrics import expected_calibration_error
from dataaudit.types import Locator, Neighbors, Outcome


def labels_of(sets: list[str], *, columns: bool = False) -> pd.DataFrame:
    """A row for each letter of each set, and one without a name for an empty set."""
    rows, index = [], []
    for number, own in enumerate(sets):
        for name in own or [None]:
            field = name if columns else "label"
            place = Locator(file="labels.csv", item=number + 2, field=field)
            rows.append({"sample_id": f"i{number}", "name": name, "geometry": None, "locator": place})
            index.append(f"i{number}:{name}" if name else f"i{number}")
    return pd.DataFrame(rows, index=index)


def probs_of(rows: list[list[float]], classes: str = "ab") -> pd.DataFrame:
    return pd.DataFrame(rows, index=[f"i{number}" for number in range(len(rows))], columns=list(classes))


def seen(n: int = 400) -> tuple[list[list[float]], list[str]]:
    """What a good baseline says about n images, and their right labels."""
    chances = 1 / (1 + np.exp(-np.random.default_rng(0).normal(0, 4, (n, 2))))
    there = np.random.default_rng(1).random((n, 2)) < chances
    sets = ["".join(name for name, has in zip("ab", row, strict=True) if has) for row in there]
    return chances.tolist(), sets


SURE, SETS = seen()
UNSURE = [[0.5, 0.5]] * 40, ["a", "b", "ab", ""] * 10


def flagged(outcome: Outcome) -> list[str]:
    return list(outcome.flagged.index[outcome.flagged])


@pytest.mark.parametrize(
    ("rows", "sets"),
    [
        (SURE, SETS),
        (SURE[:1], SETS[:1]),
        UNSURE,
        (SURE, ["ab"] * 400),
        (SURE, [""] * 400),
        ([[0.9]] * 10, ["a"] * 10),
    ],
    ids=["as the baseline says", "one image", "a baseline that knows nothing", "all", "none", "one class"],
)
@pytest.mark.parametrize("check", [missing_label, extra_label])
def test_these_are_silent(check, rows: list[list[float]], sets: list[str]) -> None:
    probs = probs_of(rows, "ab"[: len(rows[0])])
    labels = labels_of(sets)
    assert flagged(check(probs, labels)) == []


def test_no_image_at_all_is_silent() -> None:
    empty = probs_of([]).reindex(columns=["a", "b"])
    labels = labels_of(["a"]).iloc[:0]
    assert len(missing_label(empty, labels).score) == len(extra_label(empty, labels).score) == 0


def test_a_class_that_the_image_shows_and_lacks_is_missing() -> None:
    outcome = missing_label(probs_of([*SURE, [0.9999, 0.9999]]), labels_of([*SETS, "a"]))
    assert "i400:b" in flagged(outcome)
    assert len(flagged(outcome)) <= 2
    fix = outcome.fixes["i400:b"]
    assert (fix.op, fix.sample_id, fix.label_id, fix.old, fix.new) == ("add", "i400", "i400:b", None, "b")
    assert str(fix.locator) == "labels.csv:402:label"
    assert outcome.probability["i400:b"] > 0.5
    assert outcome.score["i400:b"] < 0.01
    row = outcome.evidence.loc["i400:b"]
    assert (row["sample_id"], row["suggested"]) == ("i400", "b")
    assert row["message"] == "The baseline gives 'b' 100%, and the image is labeled 'a'."


def test_an_image_without_a_label_may_lack_one() -> None:
    outcome = missing_label(probs_of([*SURE, [0.9999, 0.0001]]), labels_of([*SETS, ""]))
    assert flagged(outcome) == ["i400:a"]
    message = outcome.evidence.loc["i400:a", "message"]
    assert message == "The baseline gives 'a' 100%, and the image has no label."


def test_each_image_has_a_score_for_its_most_probable_absent_class() -> None:
    outcome = missing_label(probs_of(SURE), labels_of(SETS))
    assert {item.split(":")[0] for item in outcome.score.index} == {
        f"i{number}" for number, own in enumerate(SETS) if own != "ab"
    }
    assert outcome.score.index.is_unique


def test_a_class_that_the_image_does_not_show_is_too_much() -> None:
    labels = labels_of([*SETS, "ab"])
    outcome = extra_label(probs_of([*SURE, [0.9999, 0.0001]]), labels)
    assert "i400:b" in flagged(outcome)
    assert len(flagged(outcome)) <= 2
    fix = outcome.fixes["i400:b"]
    assert (fix.op, fix.old, fix.new) == ("remove", "b", None)
    assert outcome.score["i400:b"] < 0.01
    message = outcome.evidence.loc["i400:b", "message"]
    assert message == "The baseline gives 'b', which it is labeled with, 0.0%."
    assert list(outcome.score.index) == [item for item in labels.index if ":" in item]


def test_the_nearest_images_are_counted() -> None:
    probs = probs_of([*SURE, [0.9999, 0.9999]])
    with_b = [number for number, own in enumerate(SETS) if "b" in own]
    indices = np.tile(np.array([with_b[0], with_b[1], SETS.index("a")]), (401, 1))
    near = Neighbors(ids=probs.index, indices=indices, similarities=np.ones((401, 3), dtype=np.float32))
    outcome = missing_label(probs, labels_of([*SETS, "a"]), near)
    assert outcome.evidence.loc["i400:b", "message"].endswith("2 of its 3 nearest images have it.")


def test_a_class_with_a_column_of_its_own_is_added_there() -> None:
    labels = labels_of([*SETS, "a"], columns=True)
    outcome = missing_label(probs_of([*SURE, [0.9999, 0.9999]]), labels)
    assert str(outcome.fixes["i400:b"].locator) == "labels.csv:402:b"


def test_settings_flag_by_probability_and_keep_the_worst() -> None:
    probs, labels = probs_of([*SURE, [0.9999, 0.9999], [0.9999, 0.999]]), labels_of([*SETS, "a", "a"])
    assert {"i400:b", "i401:b"} <= set(flagged(missing_label(probs, labels, min_probability=0.01)))
    assert flagged(missing_label(probs, labels, min_probability=0.01, max_findings=1)) == ["i400:b"]
    assert flagged(missing_label(probs, labels, min_probability=0.9999)) == []


def noisy(
    forgotten: float, added: float, n: int = 3000, k: int = 8
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities of the true labels, the given labels, and which of them are wrong."""
    rng = np.random.default_rng(0)
    logits = rng.normal(-1.5, 2.5, (n, k))
    probs = 1 / (1 + np.exp(-logits))
    true = rng.random((n, k)) < probs
    given = (true & (rng.random((n, k)) >= forgotten)) | (~true & (rng.random((n, k)) < added))
    return probs.astype(np.float32), given, given != true


@pytest.mark.parametrize(("forgotten", "added"), [(0.05, 0.01), (0.2, 0.02), (0.4, 0.05)])
def test_planted_errors_are_counted_and_the_chances_are_calibrated(forgotten: float, added: float) -> None:
    probs, given, wrong = noisy(forgotten, added)
    _, chances = cell_chances(probs, given)
    for cells in (given, ~given):
        assert chances[cells].sum() == pytest.approx(wrong[cells].sum(), rel=0.15)
        assert expected_calibration_error(chances[cells], wrong[cells]) < 0.02


def test_clean_labels_are_hardly_doubted() -> None:
    probs, given, _ = noisy(0.0, 0.0)
    _, chances = cell_chances(probs, given)
    assert (chances > 0.5).mean() < 0.001
    assert chances.sum() < 0.004 * chances.size


def test_probabilities_on_another_scale_for_each_class_say_the_same() -> None:
    probs, given, _ = noisy(0.1, 0.02)
    logits = np.log(probs / (1 - probs))
    scaled = 1 / (1 + np.exp(-(1.5 * logits + np.linspace(-1, 1, 8))))
    _, chances = cell_chances(probs, given)
    calibrated, others = cell_chances(scaled.astype(np.float32), given)
    assert np.abs(chances - others).mean() < 0.01
    assert calibrated.mean(0) == pytest.approx(given.mean(0), abs=0.01)


def test_hard_zeros_and_ones_are_probabilities_too() -> None:
    _, given, _ = noisy(0.1, 0.02)
    calibrated, chances = cell_chances(given.astype(np.float32), given)
    assert np.isfinite(calibrated).all()
    assert chances.max() < 0.1


def groups_of(sets: list[str], groups: list[int]) -> Outcome:
    ids = [f"i{number}" for number in range(len(sets))]
    images = pd.DataFrame(
        {"filepath": ids, "width": 1, "height": 1, "split": None, "digest": ids}, index=ids, dtype=object
    )
    return label_sets_disagree(pd.Series(groups, index=ids), labels_of(sets), images)


def test_copies_with_the_same_sets_are_silent() -> None:
    assert flagged(groups_of(["ab", "ba", "c", ""], [0, 0, 1, 2])) == []


def test_a_class_that_one_copy_of_three_lacks_is_added_there() -> None:
    outcome = groups_of(["ab", "ab", "a", "b"], [0, 0, 0, 1])
    assert flagged(outcome) == ["i2:b"]
    assert (outcome.fixes["i2:b"].op, outcome.fixes["i2:b"].new) == ("add", "b")
    assert outcome.probability["i2:b"] == pytest.approx(0.9)
    row = outcome.evidence.loc["i2:b"]
    assert row["message"] == "2 of 3 images that show the same picture are labeled 'b'."
    assert (row["sample_id"], row["suggested"], row["group"]) == ("i2", "b", "LBL002-1")


def test_a_class_that_one_copy_of_three_has_is_removed_there() -> None:
    outcome = groups_of(["ab", "a", "a"], [0, 0, 0])
    assert flagged(outcome) == ["i0:b"]
    assert (outcome.fixes["i0:b"].op, outcome.fixes["i0:b"].old) == ("remove", "b")


def test_a_class_that_half_of_the_copies_have_is_missing_at_the_others() -> None:
    outcome = groups_of(["a", ""], [0, 0])
    assert flagged(outcome) == ["i1:a"]
    assert outcome.probability["i1:a"] == pytest.approx(0.5)
