from __future__ import annotations

import json
import multiprocessing
from dataclasses import replace
from pathlib import Path

import pytest
from findings_to_decide import image_report

from dataaudit import decisions, state
from dataaudit.errors import InputError
from dataaudit.types import Decision, Fix, Locator, Report, Source, Verdict


@pytest.fixture
def report(tmp_path: Path) -> Report:
    return image_report(tmp_path)


@pytest.fixture
def source(tmp_path: Path) -> Source:
    (tmp_path / "photos").mkdir()
    return Source(
        format="folder", root=tmp_path / "photos", path=str(tmp_path / "photos"), anchor=tmp_path
    )  # fmt: skip


def fix(new: str) -> Fix:
    return Fix(op="relabel", sample_id="1", label_id="1", locator=Locator(file="1"), old="cat", new=new)


def says(name: str | None, verdict: Verdict, *, key: str = "k1", at: str | None = None) -> Decision:
    new = fix("dog") if verdict in ("accept", "other") else None
    return Decision(finding=key, verdict=verdict, fix=new, reviewer=name, at=at)


def lines(source: Source) -> list[tuple[str | None, str]]:
    return [(each.reviewer, each.verdict) for each in decisions.history(source)]


def test_each_reviewer_has_a_last_word_and_the_history_has_all(source: Source) -> None:
    for name, verdict in (("ann", "accept"), ("bob", "keep"), ("ann", "skip")):
        decisions.record(source, [says(name, verdict)])  # type: ignore[arg-type]
    assert lines(source) == [("ann", "accept"), ("bob", "keep"), ("ann", "skip")]
    found = decisions.by_reviewer(source)
    assert {name: each["k1"].verdict for name, each in found.items()} == {"ann": "skip", "bob": "keep"}


def test_a_skip_does_not_take_the_place_of_what_another_person_said(source: Source) -> None:
    decisions.record(source, [says("ann", "accept"), says("bob", "skip"), says("bob", "skip", key="k2")])
    assert {key: each.verdict for key, each in decisions.latest(source).items()} == {
        "k1": "accept", "k2": "skip"
    }  # fmt: skip


def test_what_is_withdrawn_is_undecided_again_for_that_reviewer_alone(source: Source) -> None:
    decisions.record(source, [says("ann", "accept"), says("bob", "accept")])
    decisions.record(source, [decisions.withdrawal(says("bob", "accept"))])
    assert list(decisions.by_reviewer(source)) == ["ann"]
    assert decisions.latest(source)["k1"].reviewer == "ann"
    decisions.record(source, [decisions.withdrawal(says("ann", "accept"))])
    assert decisions.latest(source) == {}
    assert lines(source) == [("ann", "accept"), ("bob", "accept"), ("bob", "withdraw"), ("ann", "withdraw")]


def test_a_decision_that_is_recorded_again_adds_no_line(source: Source) -> None:
    accept = says("ann", "accept")
    assert [each.finding for each in decisions.record(source, [accept])] == ["k1"]
    assert decisions.record(source, [accept, accept]) == []
    assert decisions.record(source, [says("ann", "other")]) == []  # with the same class
    assert decisions.record(source, [decisions.withdrawal(says("bob", "keep"))]) == []
    assert len(decisions.record(source, [replace(accept, note="sure")])) == 1
    assert len(decisions.record(source, [says("ann", "keep"), accept])) == 2
    assert [each.at is None for each in decisions.history(source)] == [False] * 4


def test_many_at_once_are_compared_with_what_is_kept_as_well(source: Source) -> None:
    many = [says("ann", "accept", key=f"k{number}") for number in range(50)]
    assert len(decisions.record(source, many)) == 50
    assert decisions.record(source, many) == []


def test_what_is_recorded_again_after_a_kill_does_not_replace_what_was_said_since(source: Source) -> None:
    first = says("ann", "accept", at="2026-03-01T12:00:00.000+00:00")
    decisions.record(source, [first, says("ann", "keep", at="2026-03-01T12:00:09.000+00:00")])
    assert decisions.record(source, [first]) == []
    assert decisions.latest(source)["k1"].verdict == "keep"


@pytest.mark.parametrize("at", range(1, 60, 7))
def test_half_a_line_is_none_and_the_next_takes_its_place(source: Source, at: int) -> None:
    decisions.record(source, [says("ann", "keep")])
    path = state.decisions_file(source)
    whole = path.read_bytes()
    decisions.record(source, [replace(says("ann", "keep", key="k2"), note="é")])
    path.write_bytes(path.read_bytes()[: len(whole) + at])
    assert list(decisions.latest(source)) == ["k1"]
    decisions.record(source, [says("bob", "keep", key="k3")])
    assert list(decisions.latest(source)) == ["k1", "k3"]
    assert path.read_bytes().startswith(whole)


def test_a_whole_line_without_its_end_stays(source: Source) -> None:
    decisions.record(source, [says("ann", "keep")])
    path = state.decisions_file(source)
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    decisions.record(source, [says("ann", "keep", key="k2")])
    assert list(decisions.latest(source)) == ["k1", "k2"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"finding": "k1", "verdict": "acept"}', "decisions.jsonl:2: The decision can't be read"),
        ('{"finding": "k1", "verd', "decisions.jsonl:2: The line is not JSON"),
        ('["k1"]', "decisions.jsonl:2: The line is a list"),
    ],
)
def test_damage_above_the_last_line_is_named_and_nothing_is_added(
    source: Source, line: str, message: str
) -> None:
    decisions.record(source, [says("ann", "keep"), says("ann", "keep", key="k3")])
    path = state.decisions_file(source)
    first, last = path.read_text().splitlines()
    path.write_text(f"{first}\n{line}\n{last}\n")
    before = path.read_bytes()
    with pytest.raises(InputError) as error:
        decisions.latest(source)
    assert message in str(error.value)
    with pytest.raises(InputError):
        decisions.record(source, [says("bob", "keep")])
    assert path.read_bytes() == before


def test_lines_of_an_older_version_are_read(source: Source) -> None:
    state.prepare(source)
    old = {
        "finding": "k1",
        "verdict": "keep",
        "fix": None,
        "reviewer": None,
        "at": "2025-01-01",
        "note": None,
    }
    state.decisions_file(source).write_text(json.dumps(old) + "\n")
    assert decisions.latest(source)["k1"].verdict == "keep"


def test_names_with_bytes_that_are_no_text_and_keys_with_quotes_are_kept(source: Source) -> None:
    odd = replace(says("سلام", "keep", key='class:"a\nb"'), item_id="caf\udce9.jpg")
    decisions.record(source, [odd])
    assert decisions.record(source, [odd]) == []
    [found] = decisions.history(source)
    assert (found.finding, found.item_id, found.reviewer) == ('class:"a\nb"', "caf\udce9.jpg", "سلام")


def _record_some(source: Source, name: str) -> None:
    for number in range(30):
        decisions.record(source, [says(name, "keep", key=f"k{number}")])


def test_two_processes_at_a_time_lose_nothing(source: Source) -> None:
    context = multiprocessing.get_context("spawn")
    children = [context.Process(target=_record_some, args=(source, name)) for name in ("ann", "bob", "ann")]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0, 0, 0]
    found = lines(source)
    assert (len(found), found.count(("ann", "keep")), found.count(("bob", "keep"))) == (60, 30, 30)


def test_nothing_to_record_makes_no_file(report: Report) -> None:
    source = report.tables.source
    assert source is not None
    assert decisions.record(source, []) == []
    assert not state.decisions_file(source).exists()
