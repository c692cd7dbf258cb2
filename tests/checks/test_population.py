from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_digits

from dataaudit.checks.population import imbalance, ordered_files, underperforming_group
from dataaudit.errors import Unavailable
from dataaudit.signals.spectrum import neighbors, spectrum
from dataaudit.types import Outcome

DIGITS = load_digits()


def ids_of(n: int) -> list[str]:
    return [f"i{number}" for number in range(n)]


def labels_of(names: list[str], ids: list[str] | None = None) -> pd.DataFrame:
    ids = ids or ids_of(len(names))
    return pd.DataFrame({"sample_id": ids, "name": names, "geometry": None, "locator": None}, index=ids)


def images_of(n: int, splits: list[str] | None = None) -> pd.DataFrame:
    return pd.DataFrame({"split": splits or [None] * n}, index=ids_of(n), dtype=object)


def properties_of(n: int, **columns: object) -> pd.DataFrame:
    known = {"width": 32, "height": 32, "brightness": np.linspace(0, 1, n), "format": "PNG", **columns}
    return pd.DataFrame(known, index=ids_of(n))


def predictions(given: list[str], wrong: np.ndarray, classes: str = "ab") -> pd.DataFrame:
    """The given class nearly for sure, or the next one where it is wrong."""
    at = np.array([classes.index(name) for name in given])
    at = np.where(wrong, (at + 1) % len(classes), at)
    rows = np.full((len(given), len(classes)), 0.1 / (len(classes) - 1))
    rows[np.arange(len(given)), at] = 0.9
    return pd.DataFrame(rows, index=ids_of(len(given)), columns=list(classes))


def flagged(outcome: Outcome) -> list[str]:
    return list(outcome.flagged.index[outcome.flagged])


NAMES = ["a", "b"] * 500
MIXED = np.random.default_rng(0).permutation(1000)


def test_errors_spread_evenly_make_no_group() -> None:
    wrong = np.random.default_rng(1).random(1000) < 0.1
    outcome = underperforming_group(
        predictions(NAMES, wrong), labels_of(NAMES), images_of(1000), properties_of(1000)
    )
    assert flagged(outcome) == []
    assert len(outcome.score) == 5


def test_a_property_whose_images_are_predicted_worse_is_named() -> None:
    rng = np.random.default_rng(1)
    wrong = rng.random(1000) < np.where(np.arange(1000) < 200, 0.4, 0.1)
    outcome = underperforming_group(
        predictions(NAMES, wrong), labels_of(NAMES), images_of(1000), properties_of(1000)
    )
    assert flagged(outcome) == ["brightness below 0.2"]
    row = outcome.evidence.loc["brightness below 0.2"]
    assert (row["n"], row["errors"]) == (200, wrong[:200].sum())
    assert 1.5 <= row["low"] < row["errors"] / row["expected"]
    assert "of 200 images are predicted as another class than given" in row["message"]


def test_a_split_that_is_predicted_worse_is_named() -> None:
    wrong = np.random.default_rng(1).random(1000) < np.where(MIXED < 300, 0.4, 0.1)
    splits = np.where(MIXED < 300, "val", "train").tolist()
    outcome = underperforming_group(
        predictions(NAMES, wrong), labels_of(NAMES), images_of(1000, splits), properties_of(1000)
    )
    assert flagged(outcome) == ["split val"]


def test_a_group_of_a_difficult_class_is_no_worse_than_its_class() -> None:
    names = ["a" if at < 500 else "b" for at in range(1000)]
    wrong = np.random.default_rng(1).random(1000) < np.where(np.arange(1000) < 500, 0.4, 0.05)
    outcome = underperforming_group(
        predictions(names, wrong), labels_of(names), images_of(1000), properties_of(1000)
    )
    assert flagged(outcome) == []


def test_images_that_look_alike_and_are_predicted_worse_are_a_group() -> None:
    rows = np.random.default_rng(0).normal(size=(1000, 8))
    rows[:150, 0] += 12
    ids = ids_of(1000)
    found = spectrum(pd.DataFrame(rows.astype(np.float32), index=ids))
    wrong = np.random.default_rng(1).random(1000) < np.where(np.arange(1000) < 150, 0.5, 0.05)
    brightness = np.random.default_rng(2).random(1000)
    outcome = underperforming_group(
        predictions(NAMES, wrong), labels_of(NAMES), images_of(1000),
        properties_of(1000, brightness=brightness), found,
    )  # fmt: skip
    assert len(flagged(outcome)) >= 1
    assert all(name.startswith("images like i") for name in flagged(outcome))


def test_properties_that_are_not_known_make_no_group() -> None:
    nothing = properties_of(1000, brightness=np.nan, width=np.nan, height=0)
    wrong = np.random.default_rng(1).random(1000) < 0.1
    outcome = underperforming_group(predictions(NAMES, wrong), labels_of(NAMES), images_of(1000), nothing)
    assert len(outcome.score) == 0


def test_few_images_and_one_class_are_not_judged() -> None:
    with pytest.raises(Unavailable, match="needs 60"):
        underperforming_group(
            predictions(["a", "b"], np.zeros(2, dtype=bool)),
            labels_of(["a", "b"]),
            images_of(2),
            properties_of(2),
        )
    one = pd.DataFrame([[1.0]] * 100, index=ids_of(100), columns=["a"])
    with pytest.raises(Unavailable, match="one class"):
        underperforming_group(one, labels_of(["a"] * 100), images_of(100), properties_of(100))


def order_of(rows: np.ndarray, ids: list[str]) -> Outcome:
    embeddings = pd.DataFrame(rows.astype(np.float32), index=ids)
    alone = pd.Series(np.arange(len(ids)), index=ids)
    return ordered_files(neighbors(spectrum(embeddings)), alone, labels_of(["x"] * len(ids), ids))


def test_files_in_random_order_are_silent() -> None:
    rows = DIGITS.data[np.random.default_rng(0).permutation(1797)[:600]]
    assert flagged(order_of(rows, [f"all/{at}.png" for at in range(600)])) == []


def test_a_film_in_single_images_is_flagged() -> None:
    """A slow random walk; file 10 comes after file 9."""
    rows = np.random.default_rng(0).normal(size=(600, 16)).cumsum(0)
    outcome = order_of(rows, [f"all/frame{at}.png" for at in range(600)])
    assert flagged(outcome) == ["order of the files"]
    assert "they come in series" in outcome.evidence["message"].iloc[0]


def test_a_folder_sorted_by_class_is_no_series() -> None:
    by_class = np.argsort(DIGITS.target[np.random.default_rng(0).permutation(1797)[:600]], kind="stable")
    rows = DIGITS.data[np.random.default_rng(0).permutation(1797)[:600]][by_class]
    names = np.sort(DIGITS.target[np.random.default_rng(0).permutation(1797)[:600]])
    ids = [f"all/{at}.png" for at in range(600)]
    embeddings = pd.DataFrame(rows.astype(np.float32), index=ids)
    alone = pd.Series(np.arange(600), index=ids)
    outcome = ordered_files(
        neighbors(spectrum(embeddings)), alone, labels_of([str(name) for name in names], ids)
    )
    assert flagged(outcome) == []


def test_small_folders_have_no_order_to_look_at() -> None:
    with pytest.raises(Unavailable, match="it needs 50 at least"):
        order_of(DIGITS.data[:40], [f"all/{at}.png" for at in range(40)])


def test_a_rare_class_that_is_hardly_predicted_is_flagged() -> None:
    names = ["a"] * 950 + ["b"] * 50
    wrong = np.r_[np.zeros(955, dtype=bool), np.ones(45, dtype=bool)]
    outcome = imbalance(predictions(names, wrong), labels_of(names))
    assert flagged(outcome) == ["b"]
    assert outcome.score["b"] == pytest.approx(0.1)
    assert outcome.evidence.loc["b", "message"].startswith("50 images, 13 times fewer than the largest class")
    assert outcome.evidence.loc["b", "weight"] > 1


def test_a_rare_class_that_is_predicted_as_often_as_it_is_there_is_silent() -> None:
    names = ["a"] * 950 + ["b"] * 50
    assert flagged(imbalance(predictions(names, np.zeros(1000, dtype=bool)), labels_of(names))) == []


def test_classes_of_one_size_are_silent_however_badly_they_are_predicted() -> None:
    wrong = np.array([name == "b" for name in NAMES])
    assert flagged(imbalance(predictions(NAMES, wrong), labels_of(NAMES))) == []


def test_copies_do_not_make_a_class_larger() -> None:
    names = ["a"] * 700 + ["b"] * 300
    wrong = np.r_[np.zeros(700, dtype=bool), np.ones(300, dtype=bool)]
    groups = pd.Series([*range(700), *[700 + at % 20 for at in range(300)]], index=ids_of(1000))
    assert flagged(imbalance(predictions(names, wrong), labels_of(names))) == []
    assert flagged(imbalance(predictions(names, wrong), labels_of(names), groups)) == ["b"]
