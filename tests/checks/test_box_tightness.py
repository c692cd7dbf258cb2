from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hand_made_boxes import crowd, flagged, objects_of, scaled, tables_of

from dataaudit.checks.box_tightness import inconsistent_tightness
from dataaudit.errors import Unavailable
from dataaudit.types import CORNERS, Outcome, Tables


def dataset(factor: float, n: int = 80) -> tuple[Tables, pd.DataFrame]:
    """Images in two folders; around the same objects the boxes of the second are `factor` times as large."""
    tables = tables_of({f"{'ab'[at % 2]}/{name}": found for at, (name, found) in enumerate(crowd(n).items())})
    corners = tables.labels[list(CORNERS)].to_numpy(dtype=np.float64)
    in_b = tables.labels["sample_id"].str.startswith("b/").to_numpy()
    noise = np.exp(np.random.default_rng(0).normal(0, 0.1, len(corners))) * np.where(in_b, factor, 1.0)
    middle, half = (corners[:, :2] + corners[:, 2:]) / 2, (corners[:, 2:] - corners[:, :2]) / 2
    half = half / noise[:, None]
    found = np.concatenate([middle - half, middle + half], axis=1)
    return tables, pd.DataFrame(found, index=tables.labels.index, columns=list(CORNERS))


def run(tables: Tables, found: pd.DataFrame) -> Outcome:
    return inconsistent_tightness(objects_of(tables), tables.images, found)


@pytest.mark.parametrize("factor", [1.0, 1.03])
def test_folders_with_nearly_the_same_tightness_are_silent(factor: float) -> None:
    assert flagged(run(*dataset(factor))) == []


@pytest.mark.parametrize(("factor", "words"), [(1.15, "wider and higher"), (0.85, "narrower and lower")])
def test_a_folder_with_other_boxes_is_one_finding(factor: float, words: str) -> None:
    outcome = run(*dataset(factor))
    assert len(flagged(outcome)) == 1
    assert flagged(outcome)[0] in ("folder a", "folder b")
    assert outcome.evidence is not None
    message = outcome.evidence["message"].iloc[0]
    assert (words in message) == (flagged(outcome) == ["folder b"])
    assert outcome.score[flagged(outcome)[0]] == pytest.approx(1 - np.log(1.15) / 0.25, abs=0.12)


def test_scores_do_not_change_with_units_and_size() -> None:
    tables, found = dataset(1.15)
    expected = run(tables, found).score
    relative = run(scaled(tables, relative=True), found).score
    pd.testing.assert_series_equal(relative, expected, atol=1e-6, rtol=0)
    double = run(scaled(tables, 2), found * 2).score
    folders = ["folder a", "folder b"]
    pd.testing.assert_series_equal(double[folders], expected[folders], atol=1e-6, rtol=0)


def test_too_few_images_say_nothing() -> None:
    with pytest.raises(Unavailable, match="it needs 40"):
        run(*dataset(1.15, n=10))


def test_boxes_that_were_not_found_do_not_count() -> None:
    tables, found = dataset(1.15)
    with pytest.raises(Unavailable, match="0 images"):
        run(tables, found * np.nan)
    splits = pd.Series("train", index=tables.images.index)
    assert flagged(run(replace(tables, images=tables.images.assign(split=splits)), found)) != []
