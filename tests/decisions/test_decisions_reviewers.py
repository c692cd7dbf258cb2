from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from findings_to_decide import image_report

from dataaudit import decisions, fix
from dataaudit.decisions.reviewers import cohen_kappa
from dataaudit.errors import InputError
from dataaudit.types import Decision, Fix, Locator, Report, Source


@pytest.fixture
def report(tmp_path: Path) -> Report:
    return image_report(tmp_path)


@pytest.fixture
def source(report: Report) -> Source:
    assert report.tables.source is not None
    return report.tables.source


def relabel(new: str, sample: str = "cat/1.jpg") -> Fix:
    return Fix(
        op="relabel", sample_id=sample, label_id=sample, locator=Locator(file=sample), old="cat", new=new
    )


def says(name: str | None, what: str, key: str = "k1", minute: int = 0) -> Decision:
    """``keep``, ``skip`` or the class that the label becomes, accepted where it is the one proposed."""
    at = f"2026-03-01T12:{minute:02d}:00+00:00"
    if what in ("keep", "skip"):
        return Decision(finding=key, verdict=what, reviewer=name, at=at, given="cat")  # type: ignore[arg-type]
    verdict = "accept" if what == "dog" else "other"
    return Decision(finding=key, verdict=verdict, fix=relabel(what), reviewer=name, at=at, given="cat")  # type: ignore[arg-type]


def test_two_different_answers_are_a_conflict_that_names_who_said_what(source: Source) -> None:
    decisions.record(source, [says("bob", "dog", minute=5), says("ann", "keep"), says("ann", "keep", "k2")])
    [found] = decisions.conflicts(source)
    assert found.finding == "k1"
    assert [each.reviewer for each in found.decisions] == ["ann", "bob"]
    assert str(found) == "ann says keep, bob says accept: dog"
    assert list(decisions.standing(source)) == ["k2"]


def test_the_same_end_by_another_verdict_is_no_conflict(source: Source) -> None:
    other = replace(says("bob", "dog"), verdict="other")
    decisions.record(source, [says("ann", "dog"), other, says("eve", "skip"), says("ann", "keep", "k2")])
    assert decisions.conflicts(source) == []
    assert set(decisions.standing(source)) == {"k1", "k2"}


def test_two_classes_are_a_conflict_and_so_are_two_boxes_that_hardly_overlap(source: Source) -> None:
    move = replace(relabel("cat"), op="move", old_box=(0.0, 0.0, 10.0, 10.0), box=(0.0, 0.0, 20.0, 20.0))
    near, far = replace(move, box=(0.0, 0.0, 20.0, 20.5)), replace(move, box=(9.0, 9.0, 20.0, 20.0))
    box = Decision(finding="box", verdict="other", fix=move, reviewer="ann")
    decisions.record(source, [says("ann", "dog"), says("bob", "cow"), box])
    decisions.record(source, [replace(box, fix=near, reviewer="bob")])
    assert [each.finding for each in decisions.conflicts(source)] == ["k1"]
    decisions.record(source, [replace(box, fix=far, reviewer="eve")])
    assert [each.finding for each in decisions.conflicts(source)] == ["k1", "box"]


@pytest.mark.parametrize(
    ("rule", "outcome"),
    [("latest", "keep"), ("by:bob", "accept"), ("by:ann", "keep"), ("majority", None)],
)
def test_a_rule_settles_a_conflict_with_a_decision_that_says_so(
    source: Source, rule: str, outcome: str | None
) -> None:
    decisions.record(source, [says("bob", "dog"), says("ann", "keep", minute=1)])
    done = decisions.settle(source, rule, reviewer="lead")
    if outcome is None:
        assert done.decisions == ()
        assert done.left_out == {"k1": "bob says accept: dog, ann says keep: there is no majority"}
        return
    [settled] = done.decisions
    assert (settled.verdict, settled.reviewer, settled.rule) == (outcome, "lead", rule)
    assert settled.note == f"settled ({rule}): bob says accept: dog, ann says keep"
    assert decisions.conflicts(source) == []
    assert decisions.standing(source)["k1"].verdict == outcome
    assert set(decisions.by_reviewer(source)) == {"ann", "bob"}


def test_latest_goes_by_the_time_and_not_by_the_order_of_the_lines(source: Source) -> None:
    decisions.record(source, [says("ann", "keep", minute=9), says("bob", "dog", minute=1)])
    [settled] = decisions.settle(source, "latest").decisions
    assert (settled.verdict, settled.reviewer) == ("keep", "ann")


def test_a_third_person_makes_the_majority_or_decides_alone(source: Source) -> None:
    both = [says("ann", "keep"), says("bob", "dog"), says("ann", "keep", "k2"), says("bob", "dog", "k2")]
    decisions.record(source, [*both, says("eve", "dog", minute=3)])
    assert [each.finding for each in decisions.settle(source, "majority", findings=["k1"]).decisions] == [
        "k1"
    ]
    assert decisions.standing(source)["k1"].verdict == "accept"
    assert decisions.settle(source, "by:eve").left_out == {"k2": "eve hasn't decided it"}


def test_a_new_answer_opens_a_settled_conflict_and_the_same_answer_does_not(source: Source) -> None:
    decisions.record(source, [says("ann", "keep"), says("bob", "dog", minute=1)])
    decisions.settle(source, "by:bob", reviewer="lead")
    decisions.record(source, [says("eve", "dog", minute=2)])
    assert decisions.conflicts(source) == []
    decisions.record(source, [says("eve", "cow", minute=3)])
    assert [each.finding for each in decisions.conflicts(source)] == ["k1"]
    decisions.settle(source, "by:bob", reviewer="lead")
    assert decisions.conflicts(source) == []
    kept = decisions.standing(source)["k1"]
    decisions.record(source, [decisions.withdrawal(kept)])
    assert [each.finding for each in decisions.conflicts(source)] == ["k1"]


@pytest.mark.parametrize(
    ("rule", "findings", "message"),
    [
        ("newest", None, "There is no rule 'newest'"),
        ("by:anne", None, "'anne' has decided nothing. Did you mean 'ann'?"),
        ("latest", ["k9"], "The finding k9 has no conflict"),
    ],
)
def test_what_cannot_settle_is_said(
    source: Source, rule: str, findings: list[str] | None, message: str
) -> None:
    decisions.record(source, [says("ann", "keep"), says("bob", "dog")])
    with pytest.raises(InputError) as error:
        decisions.settle(source, rule, findings=findings)
    assert message in str(error.value)


def test_a_fix_leaves_a_conflict_out_until_it_is_settled(report: Report, source: Source) -> None:
    decisions.record(source, [says("ann", "dog", "k2"), says("ann", "dog"), says("bob", "keep", minute=1)])
    due, stale = decisions.due(report)
    assert ([each.finding for each in due], stale) == (["k2"], {})
    plan = fix.plan(report, min_probability=0.5, decisions=due)
    assert [each.finding for each in plan.items] == ["k2"]
    assert plan.left_out["k1"] == "ann says accept: dog, bob says keep: settle it"
    decisions.settle(source, "by:ann")
    due, _ = decisions.due(report)
    assert {each.finding for each in fix.plan(report, decisions=due).items} == {"k1", "k2"}


def test_a_file_of_one_person_does_not_overrule_another_silently(report: Report, source: Source) -> None:
    decisions.record(source, [says("ann", "keep")])
    plan = fix.plan(report, decisions=[says("bob", "dog")])
    assert (len(plan), plan.left_out["k1"]) == (0, "ann says keep, bob says accept: dog: settle it")
    assert len(fix.plan(report, decisions=[says("ann", "dog", minute=1)])) == 1


def test_agreement_is_counted_on_errors_and_on_labels(source: Source) -> None:
    ann = ["dog", "dog", "dog", "keep", "keep", "keep", "cow", "skip"]
    bob = ["dog", "cow", "keep", "keep", "keep", "dog", "cow", "dog"]
    keys = [f"f{number}" for number in range(8)]
    for name, answers in (("ann", ann), ("bob", bob)):
        decisions.record(source, [says(name, what, key) for what, key in zip(answers, keys, strict=True)])
    decisions.record(source, [says("eve", "keep", "elsewhere")])
    [found] = decisions.agreement(source)
    assert (found.one, found.two) == ("ann", "bob")
    assert (found.error.n, found.label.n) == (7, 7)
    assert found.error.raw == pytest.approx(5 / 7)
    assert found.label.raw == pytest.approx(4 / 7)
    assert found.error.kappa == pytest.approx(0.416667, abs=1e-6)
    # By hand: chance (3 * 2 + 3 * 3 + 1 * 2) / 49
    assert found.label.kappa == pytest.approx((4 / 7 - 17 / 49) / (1 - 17 / 49))


@pytest.mark.parametrize("seed", range(5))
def test_kappa_is_that_of_scikit_learn(seed: int) -> None:
    from sklearn.metrics import cohen_kappa_score

    chance = np.random.default_rng(seed)
    one = chance.integers(0, 4, 60)
    two = np.where(chance.random(60) < 0.6, one, chance.integers(0, 4, 60))
    found = cohen_kappa(list(map(str, one)), list(map(str, two)))
    assert found.kappa == pytest.approx(cohen_kappa_score(one, two))
    assert found.low is not None and found.kappa is not None and found.high is not None
    assert -1 <= found.low < found.kappa < found.high <= 1


def test_kappa_of_people_who_always_agree_has_an_interval_and_of_one_answer_none() -> None:
    with warnings.catch_warnings(record=True) as warned:
        always = cohen_kappa(["a", "b", "a", "b"], ["a", "b", "a", "b"])
        alike = cohen_kappa(["a", "a"], ["a", "a"])
    assert not warned
    assert always.kappa == 1
    assert always.high == pytest.approx(1)
    assert always.low == pytest.approx((4 / (4 + 1.959964**2) - 0.5) / 0.5)
    assert (alike.raw, alike.kappa, alike.low) == (1, None, None)


def test_the_second_reviewer_gets_the_same_random_share_when_it_is_interrupted(source: Source) -> None:
    keys = [f"f{number}" for number in range(40)]
    decisions.record(source, [says("ann", "keep", key) for key in keys])
    decisions.record(source, [says("ann", "skip", "skipped"), says("bob", "keep", "own")])
    first = decisions.second(source, "bob", n=10, seed=1)
    assert len(first) == 10 and set(first) <= set(keys)
    assert first != decisions.second(source, "bob", n=10, seed=2)
    decisions.record(source, [says("bob", "keep", key) for key in first[:4]])
    assert decisions.second(source, "bob", n=10, seed=1) == first[4:]
    assert len(decisions.second(source, "eve")) == 41
    some = decisions.second(source, "eve", fraction=0.5)
    assert 10 < len(some) < 31
    assert decisions.second(source, "eve", fraction=0.5, among=keys[:5]) == [
        key for key in some if key in keys[:5]
    ]  # fmt: skip
    assert decisions.second(source, "ann") == ["own"]


@pytest.mark.parametrize("more", [{"n": 1, "fraction": 0.5}, {"n": -1}, {"fraction": 1.5}])
def test_a_second_look_at_a_share_that_is_none_is_refused(source: Source, more: dict[str, float]) -> None:
    with pytest.raises(InputError):
        decisions.second(source, "bob", **more)  # type: ignore[arg-type]
