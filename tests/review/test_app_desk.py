"""The desk behind the panel: what it answers, and what is on the disk by then."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from reviewed import HOSTILE, WRONG, audited, keys_of, write_dataset

from dataaudit import decisions, formats, state
from dataaudit.errors import InputError
from dataaudit.review.desk import AHEAD, Desk, Order, is_ready, ordered
from dataaudit.types import Report


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Report]:
    """The dataset and its report; to be copied."""
    folder = tmp_path_factory.mktemp("desk") / "home"
    folder.mkdir()
    return folder, audited(write_dataset(folder))


@pytest.fixture
def order(made: tuple[Path, Report], tmp_path: Path) -> Order:
    """Ann's order to review a copy of the dataset."""
    shutil.copytree(made[0], tmp_path / "home")
    source = formats.read(tmp_path / "home/photos").source
    assert source is not None
    return Order(source=source, dataset="photos", reviewer="ann")


@pytest.fixture
def keys(made: tuple[Path, Report]) -> dict[str, str]:
    return keys_of(made[1])


def on_disk(order: Order) -> list[tuple[str, str | None, str]]:
    return [(each.finding, each.reviewer, each.verdict) for each in decisions.history(order.source)]


def shown(answer: dict[str, Any]) -> list[str]:
    return [each["key"] for each in answer["findings"]]


def test_at_the_start_there_are_the_findings_to_come_and_how_many(order: Order) -> None:
    answer = Desk(order=order).answer({"action": "open"})
    assert len(answer["findings"]) == min(AHEAD, len(WRONG)) == len(set(shown(answer)))
    assert answer["codes"] == [{"code": "LBL001", "name": "label_error", "n": len(WRONG)}]
    assert (answer["progress"]["decided"], answer["progress"]["left"]) == (0, len(WRONG))


def test_names_come_as_they_are(order: Order, keys: dict[str, str]) -> None:
    answer = Desk(order=order).answer({"action": "open"})
    found = {each["key"]: each for each in answer["findings"]}[keys["3/0030.png"]]
    assert (found["given"], found["suggested"], found["accept"]) == (
        "3",
        HOSTILE,
        f"The label becomes {HOSTILE}",
    )


def test_a_verdict_is_on_the_disk_when_it_is_answered(order: Order) -> None:
    desk = Desk(order=order)
    first, second, *_ = shown(desk.answer({"action": "open"}))
    answer = desk.answer({"action": "decide", "key": first, "verdict": "accept"})
    assert on_disk(order) == [(first, "ann", "accept")]
    assert shown(answer)[0] == second
    assert (answer["progress"]["decided"], answer["progress"]["confirmed"]) == (1, 1)


def test_another_class_is_written_as_what_it_does(order: Order, keys: dict[str, str]) -> None:
    desk = Desk(order=order)
    desk.answer({"action": "decide", "key": keys["6/0003.png"], "verdict": "other", "label": HOSTILE})
    (found,) = decisions.history(order.source)
    assert found.fix is not None
    assert (found.verdict, found.fix.old, found.fix.new) == ("other", "6", HOSTILE)


def test_what_cannot_be_written_is_not_decided(order: Order) -> None:
    desk = Desk(order=order)
    first = shown(desk.answer({"action": "open"}))[0]
    state.decisions_file(order.source).mkdir()  # in the way of the file
    answer = desk.answer({"action": "decide", "key": first, "verdict": "keep"})
    assert str(state.decisions_file(order.source)) in answer["error"]
    state.decisions_file(order.source).rmdir()
    again = desk.answer({"action": "open"})
    assert (again["progress"]["decided"], shown(again)[0]) == (0, first)
    desk.answer({"action": "decide", "key": first, "verdict": "keep"})
    assert on_disk(order) == [(first, "ann", "keep")]


def test_undo_withdraws_one_after_the_other(order: Order) -> None:
    desk = Desk(order=order)
    first, second, *_ = shown(desk.answer({"action": "open"}))
    desk.answer({"action": "decide", "key": first, "verdict": "accept"})
    desk.answer({"action": "decide", "key": second, "verdict": "keep"})
    assert shown(desk.answer({"action": "undo"}))[0] == second
    assert shown(desk.answer({"action": "undo"}))[0] == first
    assert decisions.latest(order.source) == {}
    assert desk.answer({"action": "undo"})["message"] == "There is nothing to undo."


def test_another_process_goes_on_where_the_last_one_stopped(order: Order) -> None:
    desk = Desk(order=order)
    first, second, *_ = shown(desk.answer({"action": "open"}))
    desk.answer({"action": "decide", "key": first, "verdict": "accept"})
    later = Desk(order=order)
    answer = later.answer({"action": "open"})
    assert (answer["progress"]["decided"], shown(answer)[0]) == (1, second)
    assert shown(later.answer({"action": "undo"}))[0] == first


def test_what_another_person_decided_is_neither_asked_nor_undone(order: Order) -> None:
    first = shown(Desk(order=order).answer({"action": "open"}))[0]
    Desk(order=order).answer({"action": "decide", "key": first, "verdict": "accept"})
    bob = Desk(order=replace(order, reviewer="bob"))
    assert first not in shown(bob.answer({"action": "open"}))
    assert bob.answer({"action": "undo"})["message"] == "There is nothing to undo."
    assert on_disk(order) == [(first, "ann", "accept")]


def test_a_second_opinion_shows_what_others_decided_but_not_what_they_said(order: Order) -> None:
    first = shown(Desk(order=order).answer({"action": "open"}))[0]
    Desk(order=order).answer({"action": "decide", "key": first, "verdict": "accept"})
    found = formats.read(order.source.path)
    asked = ordered(found, dataset="photos", reviewer="bob", second=1.0)
    answer = Desk(order=asked).answer({"action": "open"})
    assert shown(answer) == [first]
    assert (answer["findings"][0]["verdict"], answer["findings"][0]["by"], answer["second"]) == (
        None,
        None,
        True,
    )
    Desk(order=asked).answer({"action": "decide", "key": first, "verdict": "keep"})
    assert on_disk(order) == [(first, "ann", "accept"), (first, "bob", "keep")]


def test_a_filter_leaves_findings_of_a_class(order: Order, keys: dict[str, str]) -> None:
    desk = Desk(order=order)
    answer = desk.answer({"action": "filter", "classes": [HOSTILE]})
    assert set(shown(answer)) == {keys["3/0030.png"], keys[f"{HOSTILE}/0043.png"]}
    assert desk.answer({"action": "filter"})["left_under_filter"] == len(WRONG)


def test_many_are_accepted_at_once_after_a_look_at_how_many_are_right(order: Order) -> None:
    desk = Desk(order=order)
    desk.answer({"action": "filter", "classes": ["6"]})
    preview = desk.answer({"action": "preview", "verdict": "accept", "min_probability": 0.5})
    assert len(preview["keys"]) == 3
    assert preview["precision"] > 0.9
    assert on_disk(order) == []
    answer = desk.answer({"action": "bulk", "verdict": "accept", "keys": preview["keys"]})
    assert answer["decided"] == 3
    assert sorted(on_disk(order)) == sorted((key, "ann", "accept") for key in preview["keys"])
    desk.answer({"action": "undo"})
    assert decisions.latest(order.source) == {}


def test_what_is_selected_in_the_grid_is_found_by_its_image(order: Order, keys: dict[str, str]) -> None:
    preview = Desk(order=order).answer(
        {"action": "preview", "verdict": "keep", "items": ["6/0003.png", "no"]}
    )
    assert preview["keys"] == [keys["6/0003.png"]]


@pytest.mark.parametrize(
    ("question", "said"),
    [
        ({"action": "dance"}, "can't do 'dance'"),
        ({"action": "decide", "key": "nothing", "verdict": "keep"}, "no finding 'nothing'"),
        ({"action": "start", "job": "commit", "message": "  "}, "needs a message"),
        ({"action": "start", "job": "rest"}, "no job 'rest'"),
    ],
)
def test_what_cannot_be_done_is_answered_with_a_sentence(
    order: Order, question: dict[str, Any], said: str
) -> None:
    assert said in Desk(order=order).answer(question)["error"]


def test_findings_of_other_checks_are_left_out(order: Order) -> None:
    answer = Desk(order=replace(order, codes=("DUP",))).answer({"action": "open"})
    assert (answer["findings"], answer["codes"]) == ([], [])


def test_a_reviewer_is_told_when_files_changed_after_the_audit(order: Order) -> None:
    found = formats.read(order.source.path)
    assert ordered(found, dataset="photos", reviewer="ann").note is None
    (Path(order.source.path) / "6/0003.png").rename(Path(order.source.path) / "3/0003.png")
    changed = formats.read(order.source.path)
    assert "Audit again" in (ordered(changed, dataset="photos", reviewer="ann").note or "")


def test_without_an_audit_there_is_nothing_to_review(order: Order) -> None:
    assert is_ready(order.source, None)
    state.worklist_file(order.source).unlink()
    assert not is_ready(order.source, None)
    with pytest.raises(InputError, match="dataaudit audit"):
        Desk(order=order)
