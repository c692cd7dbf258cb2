from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from dataaudit.checks.outliers import off_topic_group, outlier, tail_probability
from dataaudit.errors import Unavailable
from dataaudit.signals.isolation import Islands, islands, neighbor_distance
from dataaudit.signals.spectrum import neighbors, spectrum
from dataaudit.types import Outcome

DIGITS = load_digits()
# Pixels that are nearly always empty make outliers of the digits that use them
PIXELS = np.flatnonzero(DIGITS.data.std(0) > 3)
ROWS = DIGITS.data[:, PIXELS]


def table_of(rows: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame(rows.astype(np.float32), index=[f"i{number}" for number in range(len(rows))])


def labels_of(names: list[str | None]) -> pd.DataFrame:
    ids = [f"i{number}" for number in range(len(names))]
    return pd.DataFrame({"sample_id": ids, "name": names, "geometry": None, "locator": None}, index=ids)


def alone(rows: np.ndarray, copies: dict[int, int] | None = None) -> Outcome:
    embeddings = table_of(rows)
    groups = pd.Series(np.arange(len(rows)), index=embeddings.index)
    for copy, of in (copies or {}).items():
        groups.iloc[copy] = of
    found = spectrum(embeddings)
    near = neighbors(found)
    return outlier(neighbor_distance(found, near, groups), near)


def islands_of(rows: np.ndarray, copies: dict[int, int] | None = None) -> Islands:
    embeddings = table_of(rows)
    groups = pd.Series(np.arange(len(rows)), index=embeddings.index)
    for copy, of in (copies or {}).items():
        groups.iloc[copy] = of
    return islands(spectrum(embeddings), groups)


def flagged(outcome: Outcome) -> list[str]:
    return list(outcome.flagged.index[outcome.flagged])


def photos(crops: list[Image.Image], n: int) -> np.ndarray:
    """The first n crops as rows of pixels, on the scale of the digits."""
    return np.stack([np.asarray(crop.convert("L").resize((8, 8))).ravel()[PIXELS] / 16 for crop in crops[:n]])


def noise(n: int) -> np.ndarray:
    """Rows far from the digits and from each other."""
    return np.random.default_rng(0).choice([0.0, 16.0], (n, len(PIXELS))) * 3


def test_real_digits_have_no_outliers() -> None:
    rows = ROWS[:600]
    assert flagged(alone(rows)) == []
    names = [str(name) for name in DIGITS.target[:600]]
    assert flagged(off_topic_group(islands_of(rows), labels_of(names))) == []
    assert flagged(off_topic_group(islands_of(rows), labels_of([None] * 600))) == []


def test_images_far_from_all_others_are_flagged() -> None:
    outcome = alone(np.vstack([ROWS[:600], noise(3)]))
    assert flagged(outcome) == ["i600", "i601", "i602"]
    assert outcome.score[["i600", "i601", "i602"]].max() < outcome.score[:600].min()
    assert "times as far from its nearest images as usual" in outcome.evidence.loc["i600", "message"]


def test_copies_of_an_outlier_do_not_hide_it() -> None:
    rows = np.vstack([ROWS[:600], np.repeat(noise(1), 5, axis=0)])
    assert flagged(alone(rows, {600 + copy: 600 for copy in range(5)})) == [f"i{n}" for n in range(600, 605)]


def test_different_images_that_belong_only_to_each_other_are_flagged_together() -> None:
    rows = np.vstack([ROWS[:600], 40 + 0.2 * ROWS[600:612]])
    outcome = off_topic_group(islands_of(rows), labels_of([str(n) for n in DIGITS.target[:612]]))
    assert flagged(outcome) == [f"i{n}" for n in range(600, 612)]
    assert set(outcome.evidence["group"]) == {"OUT002-1"}
    assert (
        outcome.evidence["message"].iloc[0].startswith("12 images belong to each other and to nothing else")
    )


def test_a_small_class_of_its_own_is_not_off_topic() -> None:
    rows = np.vstack([ROWS[:600], 40 + 0.2 * ROWS[600:612]])
    names = [*map(str, DIGITS.target[:600]), *["negative"] * 12]
    assert flagged(off_topic_group(islands_of(rows), labels_of(names))) == []


def test_where_the_dataset_is_made_of_such_groups_none_is_flagged() -> None:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(40, 16)) * 20
    rows = np.repeat(centres, 15, axis=0) + rng.normal(size=(600, 16))
    assert flagged(off_topic_group(islands_of(rows), labels_of([None] * 600))) == []
    assert flagged(alone(rows)) == []


def test_photos_among_digits_are_found(crops: list[Image.Image]) -> None:
    rows = np.vstack([ROWS[:600], photos(crops, 8)])
    both = np.minimum(
        alone(rows).score, off_topic_group(islands_of(rows), labels_of([None] * 608)).score
    ).to_numpy()
    assert set(np.argsort(both, kind="stable")[:8]) >= {600, 601, 602, 603}


@pytest.mark.parametrize("n", [1, 2, 19])
def test_a_handful_of_images_is_not_judged(n: int) -> None:
    with pytest.raises(Unavailable, match="needs 20 at least"):
        alone(ROWS[:n])
    with pytest.raises(Unavailable, match="needs 20 at least"):
        off_topic_group(islands_of(ROWS[:n]), labels_of([None] * n))


def test_images_that_are_all_equal_are_no_outliers() -> None:
    same = np.ones((40, 8))
    assert flagged(alone(same)) == []
    with pytest.raises(Unavailable, match="0 images can be compared"):
        off_topic_group(islands_of(same), labels_of(["a"] * 40))


def test_one_image_in_many_copies_is_not_judged() -> None:
    # All of one picture, but too many to be copies: each stands for itself
    rows = ROWS[:40]
    assert len(islands_of(rows, dict.fromkeys(range(40), 0)).distances) == 40


def test_islands_know_their_members_with_copies_and_where_the_others_are() -> None:
    rows = np.vstack([ROWS[:200], 60 + 0.1 * ROWS[200:204], 60 + 0.1 * ROWS[203:204]])
    found = islands_of(rows, {204: 203}).found
    ours = [island for island in found if 200 in island.members]
    assert any(
        list(island.members) == [200, 201, 202, 203, 204] and island.n_pictures == 4 for island in ours
    )
    assert all(island.distance > island.inner for island in found)
    assert all(island.nearest not in island.members for island in found)


def test_the_tail_is_that_of_the_reference() -> None:
    reference = np.exp(np.random.default_rng(0).normal(size=5000) * 0.2)
    chance = tail_probability(np.exp(0.2 * np.array([-1.0, 0.0, 1.28, 3.0, 6.0])), reference)
    assert chance[:3].round(1).tolist() == [0.5, 0.5, 0.1]
    assert 1e-3 < chance[3] < 1e-2
    assert chance[4] < 1e-4


def test_the_tail_without_reference_or_width_says_nothing_odd() -> None:
    assert tail_probability(np.array([1.0]), np.zeros(0)).tolist() == [0.5]
    assert tail_probability(np.array([1.0, 1.001]), np.ones(50)).min() > 0.4


def test_images_of_one_kind_take_more_to_be_off_topic_than_mixed_labels() -> None:
    """A subclass, such as the buses among the vehicles, hangs together too, but has one label."""
    rows = np.vstack([ROWS[:600], 14 + 0.3 * ROWS[600:612]])
    mixed = labels_of([str(name) for name in DIGITS.target[:612]])
    alike = labels_of([*map(str, DIGITS.target[:600]), *["3"] * 12])
    found = islands_of(rows)
    assert flagged(off_topic_group(found, mixed, min_times_alike=9.0)) == [f"i{n}" for n in range(600, 612)]
    assert flagged(off_topic_group(found, alike, min_times_alike=9.0)) == []
