"""Frames of a film are cut into runs, so that a detector can be trained on some and judge the others."""

from __future__ import annotations

import pandas as pd

from dataaudit.signals.box_films import cut_films


def groups_of(groups: list[int], digests: str | None = None, names: list[str] | None = None) -> list[int]:
    ids = names or [f"{number}.png" for number in range(len(groups))]
    contents = list(digests) if digests else ids
    return cut_films(pd.Series(groups, index=ids), pd.Series(contents, index=ids)).tolist()


def test_small_groups_stay_as_they_are() -> None:
    groups = [0, 0, 0, 0, 1, 2, 2, *range(3, 16)]
    assert groups_of(groups) == groups


def test_a_film_is_cut_into_runs_of_frames() -> None:
    assert groups_of([5] * 30) == [6 + number // 3 for number in range(30)]


def test_frames_are_in_the_order_of_their_numbers() -> None:
    names = [f"frame-{number}.png" for number in (10, 9, 2, 1, 8, 7, 3, 4, 6, 5)]
    found = dict(zip(names, groups_of([0] * 10, names=names), strict=True))
    assert [found[f"frame-{number}.png"] for number in range(1, 11)] == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]


def test_files_of_the_same_bytes_stay_together() -> None:
    found = groups_of([0] * 10, digests="abcdefghia")
    assert found[0] == found[9]
    assert len(set(found)) == 5


def test_films_beside_other_images_are_cut_alone() -> None:
    found = groups_of([0] * 20 + [1, 1] + list(range(2, 20)))
    assert found[20:] == [1, 1, *range(2, 20)]
    assert len(set(found[:20])) == 5
    assert not set(found[:20]) & set(found[20:])


def test_without_images_there_are_no_groups() -> None:
    assert groups_of([]) == []
