from __future__ import annotations

from entries_by_hand import entry

from dataaudit.worklist.order import arranged, ordered


def keys(*entries: object) -> list[str]:
    return [each.key for each in ordered(entries)]  # type: ignore[arg-type, attr-defined]


def test_the_likely_errors_come_first_and_the_score_decides_among_equals() -> None:
    assert keys(
        entry("a", 0.3), entry("b", 0.9), entry("c", 0.6, score=0.2), entry("d", 0.6, score=0.1)
    ) == list("bdca")


def test_near_duplicates_follow_one_another_at_the_place_of_their_mean() -> None:
    pair = {"group": "near-duplicates 7"}
    assert keys(entry("a", 0.9, **pair), entry("b", 0.8), entry("c", 0.5, **pair), entry("d", 0.6)) == list(
        "bacd"
    )


def test_findings_on_one_image_follow_one_another() -> None:
    assert keys(entry("a", 0.9), entry("b", 0.8), entry("c", 0.8, sample_id="a.jpg", code="LBL002")) == list(
        "acb"
    )


def test_objects_of_one_image_come_each_at_its_own_place() -> None:
    of_one = {"sample_id": "1.jpg", "fix": None, "group": "near-duplicates 1"}
    boxes = [(0.0, 0.0, 9.0, 9.0), (9.0, 9.0, 20.0, 20.0)]
    found = keys(
        entry("a", 0.9, box=boxes[0], item_id="1", **of_one),
        entry("b", 0.5, sample_id="2.jpg"),
        entry("c", 0.1, box=boxes[1], item_id="2", **of_one),
    )
    assert found == list("abc")


def test_a_finding_without_a_probability_stands_in_the_middle() -> None:
    assert keys(entry("a", 0.4), entry("b", None), entry("c", 0.6)) == list("cba")


def test_after_three_of_a_kind_comes_another_that_is_nearly_as_likely() -> None:
    gains = [0.90, 0.89, 0.88, 0.87, 0.86, 0.85]
    kinds = ["x", "x", "x", "x", "x", "y"]
    assert arranged(gains, [0.0] * 6, range(6), kinds) == [0, 1, 2, 5, 3, 4]


def test_a_run_goes_on_where_the_others_are_much_less_likely() -> None:
    gains = [0.90, 0.89, 0.88, 0.87, 0.60]
    assert arranged(gains, [0.0] * 5, range(5), ["x", "x", "x", "x", "y"]) == [0, 1, 2, 3, 4]


def test_nothing_is_in_order_too() -> None:
    assert arranged([], [], [], []) == []
    assert ordered([]) == []
