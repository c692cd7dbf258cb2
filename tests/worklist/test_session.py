from __future__ import annotations

import json

import pytest
from entries_by_hand import entry, relabel, worklist

from dataaudit.errors import InputError
from dataaudit.types import Decision, Fix, Locator
from dataaudit.worklist import Session


def session(*entries: object, decisions: dict[str, Decision] | None = None, **fields: object) -> Session:
    return Session(worklist(entries, **fields), decisions, reviewer="ann")  # type: ignore[arg-type]


@pytest.fixture
def three() -> Session:
    return session(entry("a", 0.9), entry("b", 0.8), entry("c", 0.7))


def said(decisions: object) -> list[tuple[str, str]]:
    return [(each.finding, each.verdict) for each in decisions]  # type: ignore[attr-defined]


def test_a_verdict_leads_to_the_next_finding(three: Session) -> None:
    assert three.current.key == "a"
    made = three.decide("a", "accept", note="sure")
    assert (made.finding, made.verdict, made.reviewer, made.note) == ("a", "accept", "ann", "sure")
    assert made.fix == relabel("a.jpg", "cat", "dog")
    assert (made.code, made.item_id, made.given) == ("LBL001", "a.jpg", "cat")
    assert (three.current.key, three.queue) == ("b", ["b", "c"])
    assert three.last == (made,)


def test_another_class_takes_the_place_of_the_proposed_one(three: Session) -> None:
    assert three.decide("a", "other", label="fox").fix == relabel("a.jpg", "cat", "fox")


def test_another_class_of_a_missing_label_is_another_label() -> None:
    add = Fix(
        op="add", sample_id="a.jpg", label_id="a.jpg:dog", locator=Locator(file="l"), old=None, new="dog"
    )
    found = session(entry("a", given=None, fix=add, other=add, taken=("cat",)), task="multilabel")
    with pytest.raises(InputError, match="has the class 'cat' already"):
        found.decide("a", "other", label="cat")
    made = found.decide("a", "other", label="fox").fix
    assert (made.op, made.label_id, made.new) == ("add", "a.jpg:fox", "fox")


@pytest.mark.parametrize(
    ("verdict", "label", "message"),
    [
        ("acept", None, "The verdict is 'acept'. Did you mean 'accept'"),
        ("keep", "dog", "The verdict 'keep' comes with the label 'dog'"),
        ("other", None, "the label is empty"),
        ("other", "foxx", "No sample has the class 'foxx'. Did you mean 'fox'"),
        ("other", "cat", "has the class 'cat' already"),
    ],
)
def test_a_verdict_that_cannot_be_meant_is_refused_and_changes_nothing(
    three: Session, verdict: str, label: str | None, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        three.decide("a", verdict, label=label)
    assert (three.current.key, three.last, three.undo()) == ("a", (), None)


def test_nothing_can_be_accepted_where_nothing_is_proposed() -> None:
    found = session(entry("a", fix=None, other=None))
    with pytest.raises(InputError, match="proposes no fix to accept"):
        found.decide("a", "accept")
    with pytest.raises(InputError, match="no single label"):
        found.decide("a", "other", label="dog")
    assert found.decide("a", "keep").fix is None


def test_an_unknown_finding_is_an_error(three: Session) -> None:
    with pytest.raises(InputError, match="no finding 'z' in the worklist"):
        three.decide("z", "keep")
    with pytest.raises(InputError, match="no finding 'z' in the worklist"):
        three.go("z")


def test_undo_takes_back_any_number_of_verdicts(three: Session) -> None:
    for key in "abc":
        three.decide(key, "keep")
    assert three.current is None
    assert [(three.undo().finding, three.current.key) for _ in "abc"] == [("c", "c"), ("b", "b"), ("a", "a")]
    assert three.undo() is None
    assert (three.queue, three.progress()["decided"]) == (["a", "b", "c"], 0)


def test_an_undone_verdict_is_withdrawn_or_the_one_before_is_said_again(three: Session) -> None:
    three.decide("a", "keep")
    three.decide("a", "accept")
    back = three.undo()
    assert (back.finding, back.verdict, back.fix) == ("a", "keep", None)
    gone = three.undo()
    assert (gone.finding, gone.verdict, gone.reviewer, gone.fix) == ("a", "withdraw", "ann", None)


def test_verdicts_of_an_earlier_session_are_known_and_can_be_undone() -> None:
    before = {
        "b": Decision(finding="b", verdict="keep", at="2026-01-02T00:00:00+00:00"),
        "c": Decision(finding="c", verdict="withdraw", at="2026-01-03T00:00:00+00:00"),
        "x": Decision(finding="x", verdict="keep", at="2026-01-04T00:00:00+00:00"),
    }
    found = session(entry("a", 0.9), entry("b", 0.8), entry("c", 0.7), decisions=before)
    assert (found.queue, found.progress()["kept"]) == (["a", "c"], 1)
    assert said([found.undo()]) == [("b", "withdraw")]
    assert found.queue == ["a", "b", "c"]


def test_what_is_skipped_comes_again_behind_the_rest(three: Session) -> None:
    three.decide("a", "skip")
    assert three.queue == ["b", "c", "a"]
    three.decide("b", "skip")
    three.decide("c", "keep")
    assert (three.queue, three.current.key) == (["a", "b"], "a")
    three.decide("a", "skip")
    assert (three.queue, three.current.key) == (["b", "a"], "b")
    assert three.progress()["skipped"] == 2


def test_a_skipped_finding_that_stands_alone_stays_the_current_one() -> None:
    found = session(entry("a"))
    found.decide("a", "skip")
    assert found.current.key == "a"


def test_everything_decided_leaves_nothing_to_look_at(three: Session) -> None:
    for key in "abc":
        three.decide(key, "accept")
    assert (three.current, three.queue, three.next(), three.previous()) == (None, [], None, None)
    assert three.progress()["advice"] == "Every finding is decided, 3 of them errors."


def test_next_and_previous_stay_within_the_queue(three: Session) -> None:
    assert [three.previous().key, three.next().key, three.next().key, three.next().key] == list("abcc")
    assert three.go("a").key == "a"


def test_the_finding_that_follows_is_next_wherever_one_decides(three: Session) -> None:
    three.go("b")
    three.decide("b", "keep")
    assert three.current.key == "c"
    three.decide("c", "keep")
    assert three.current.key == "a"


def test_two_filters_hold_at_once_and_another_call_replaces_them() -> None:
    found = session(
        entry("a", 0.9),
        entry("b", 0.8, given="fox"),
        entry("c", 0.2, given="fox"),
        entry("d", 0.7, code="LBL002", given="fox", message="Größe 猫"),
    )
    found.filter(classes=["fox"], min_probability=0.5)
    assert (found.queue, found.current.key) == (["b", "d"], "b")
    found.filter(codes=["LBL002"], classes=["dog"])
    assert found.queue == ["d"]
    found.filter(words="GRÖSSE 猫")
    assert found.queue == ["d"]
    found.filter()
    assert found.queue == ["a", "b", "d", "c"]


def test_a_filter_that_nothing_meets_shows_nothing(three: Session) -> None:
    three.filter(codes=["BOX001"])
    assert (three.queue, three.current, three.next()) == ([], None, None)
    assert (three.bulk(None, "keep"), three.expected_precision()) == ([], None)
    assert three.progress()["left"] == 3


def test_what_is_decided_is_shown_where_one_asks_for_it(three: Session) -> None:
    three.decide("b", "keep")
    three.filter(undecided=False)
    assert three.queue == ["a", "b", "c"]
    three.filter(undecided=True)
    assert three.queue == ["a", "c"]


def test_a_filter_keeps_the_current_finding_where_it_shows_it(three: Session) -> None:
    three.go("c")
    three.filter(max_probability=0.85)
    assert three.current.key == "c"


def test_a_bulk_verdict_is_one_step_to_undo(three: Session) -> None:
    three.filter(min_probability=0.75)
    assert three.expected_precision() == pytest.approx(0.85)
    assert said(three.bulk(None, "accept")) == [("a", "accept"), ("b", "accept")]
    three.filter()
    assert three.queue == ["c"]
    assert three.undo().verdict == "withdraw"
    assert said(three.last) == [("a", "withdraw"), ("b", "withdraw")]
    assert three.queue == ["a", "b", "c"]


def test_a_bulk_accept_leaves_out_what_proposes_nothing_unless_it_is_named() -> None:
    found = session(entry("a", 0.9, fix=None, other=None), entry("b", 0.8))
    with pytest.raises(InputError, match="proposes no fix"):
        found.bulk(["b", "a"], "accept")
    assert found.progress()["decided"] == 0
    assert said(found.bulk(None, "accept")) == [("b", "accept")]


def test_one_verdict_answers_the_findings_that_propose_the_same() -> None:
    found = session(
        entry("a", 0.9), entry("b", 0.8), entry("c", 0.3, sample_id="a.jpg", code="LBL002", score=0.1)
    )
    made = found.decide("a", "keep")
    assert made.finding == "a"
    assert said(found.last) == [("a", "keep"), ("c", "keep")]
    assert [each.code for each in found.last] == ["LBL001", "LBL002"]
    assert found.queue == ["b"]
    found.undo()
    assert found.queue == ["a", "c", "b"]


def test_after_a_block_the_rest_is_ordered_by_what_was_found() -> None:
    cats = [entry(f"cat{at:02d}", 0.80 - 0.001 * at) for at in range(30)]
    foxes = [entry(f"fox{at:02d}", 0.75 - 0.001 * at, given="fox") for at in range(30)]
    found = session(*cats, *foxes)
    while (now := found.current) is not None and found.progress()["decided"] < 20:
        found.decide(now.key, "accept" if now.given == "fox" else "keep")
    rest = [key[:3] for key in found.queue]
    assert rest[:3] == ["fox"] * 3
    assert rest[-10:] == ["cat"] * 10


def test_a_session_that_goes_on_stands_where_the_one_before_stood() -> None:
    entries = [entry(f"{at:02d}", 0.9 - 0.01 * at, given="cat" if at % 3 else "fox") for at in range(50)]
    one = session(*entries)
    for _ in range(20):
        one.decide(one.current.key, "accept" if one.current.given == "fox" else "keep")
    other = session(*entries, decisions=one.decisions)
    assert other.queue == one.queue
    assert other.progress() == one.progress()


def test_progress_counts_what_was_found_and_is_ready_for_json(three: Session) -> None:
    three.decide("a", "accept")
    three.decide("b", "keep")
    found = json.loads(json.dumps(three.progress()))
    assert {name: found[name] for name in ("decided", "left", "confirmed", "kept", "shown")} == {
        "decided": 2, "left": 1, "confirmed": 1, "kept": 1, "shown": 1,
    }  # fmt: skip
    assert found["low"] < found["errors_left"] < found["high"] <= 1


def test_stopping_is_advised_when_next_to_nothing_is_found() -> None:
    found = session(*(entry(f"{at:03d}", 0.3) for at in range(200)))
    assert found.progress()["advice"] is None
    for _ in range(100):
        found.decide(found.current.key, "keep")
    advice = found.progress()["advice"]
    assert advice.startswith("About ") and "left in 100 findings" in advice and "looks an error" in advice


def test_an_empty_worklist_has_nothing_to_decide() -> None:
    found = session()
    assert (found.current, found.queue, found.undo()) == (None, [], None)
    assert found.progress()["advice"] == "Every finding is decided, 0 of them errors."
