"""Findings of several checks become causes and what follows from them."""

from __future__ import annotations

import pytest

from dataaudit.modelcheck.families import mod, trn
from dataaudit.modelcheck.findings import finding
from dataaudit.modelcheck.ranking import settle
from dataaudit.registry import Rule
from dataaudit.types import Finding


def made(rule: Rule, where: str = "layer", *, score: float = 0.0, **evidence: object) -> Finding:
    return finding(
        rule, where, f"{rule.name} in {where}.", advice="Change it.", evidence=evidence, score=score
    )


NOT_LEARNED = made(trn.CANNOT_OVERFIT, "Net", score=0.2)
TOO_LOW = made(trn.LEARNING_RATE, "SGD lr=1e-06", rate=1e-6, learns_at=1e-2, tried=[])
NAN_LAYER = made(mod.NONFINITE_ACTIVATION, "body.3")
NAN_INPUTS = made(trn.INPUT_SCALE, "inputs", inputs="50% are NaN")
NAN_LOSS = finding(
    mod.TARGET_RANGE, "cross_entropy input", "The input of cross_entropy holds NaN or infinity.",
    advice="Find where it comes from.",
)  # fmt: skip
NAN_STEP = made(trn.NONFINITE_GRADIENT, "body.3")
SOFTMAX = made(mod.SOFTMAX_BEFORE_LOSS, "cross_entropy input")
SUM = made(mod.SUMMED_LOSS, "reduction", score=0.6)
CUT = made(trn.NO_GRADIENT, "body", cut="detach")
NO_GRADIENT_LOSS = made(mod.EVERYTHING_IGNORED, "loss")
STILL_TRAINING = made(mod.EVAL_NOT_REACHED, "drop", modules=["drop"])
RANDOM = made(mod.RANDOM_OUTPUT, "drop")
RANDOM_ELSEWHERE = made(mod.RANDOM_OUTPUT, "noise")
STEP_OUT_OF_ORDER = made(trn.TRAINING_STEP, "train_step")
NO_UPDATE = made(trn.UPDATE_RATIO, "fc.weight", ratio=0.0)
LARGE_UPDATE = made(trn.UPDATE_RATIO, "fc.weight", ratio=0.9)
VANISHING = made(trn.VANISHING_GRADIENT, "conv1.weight", ratio=1e-5)
VANISHED = made(trn.VANISHING_GRADIENT, "conv1.weight", ratio=1e-12)
DEAD = made(trn.DEAD_GRADIENT, "conv1.weight", share=1.0)
DEAD_UNITS = made(trn.DEAD_GRADIENT, "conv1.weight", share=0.95)


@pytest.mark.parametrize(
    ("found", "causes"),
    [
        ([NOT_LEARNED, SOFTMAX], [SOFTMAX]),
        ([NAN_STEP, NAN_LOSS, NAN_LAYER, NOT_LEARNED], [NAN_LAYER]),
        ([NAN_LAYER, NAN_LOSS, NAN_STEP, NAN_INPUTS], [NAN_INPUTS]),
        ([NO_GRADIENT_LOSS, CUT, DEAD, NOT_LEARNED], [CUT]),
        ([RANDOM, STILL_TRAINING], [STILL_TRAINING]),
        ([NO_UPDATE, STEP_OUT_OF_ORDER, NOT_LEARNED], [STEP_OUT_OF_ORDER]),
        ([VANISHING, TOO_LOW, NO_UPDATE], [TOO_LOW]),
        ([VANISHED, DEAD, NOT_LEARNED], [DEAD]),
        ([LARGE_UPDATE, SUM], [SUM]),
        # Two faults that have nothing to do with each other are two findings
        ([RANDOM_ELSEWHERE, STILL_TRAINING], [STILL_TRAINING, RANDOM_ELSEWHERE]),
        ([TOO_LOW, SOFTMAX], [SOFTMAX, TOO_LOW]),
        ([RANDOM, SOFTMAX], [SOFTMAX, RANDOM]),
        ([CUT, SUM], [CUT, SUM]),
    ],
)
def test_the_cause_is_named_and_what_follows_is_under_it(found: list[Finding], causes: list[Finding]) -> None:
    done = settle(found, sound=False)
    assert [item.key for item in done.findings] == [item.key for item in causes]
    below = {item.key for item, _ in done.explained}
    assert below == {item.key for item in found} - {item.key for item in causes}


@pytest.mark.parametrize(
    ("item", "passes"),
    [(VANISHING, True), (VANISHED, False), (DEAD_UNITS, True), (DEAD, False), (LARGE_UPDATE, True),
     (RANDOM, False), (SOFTMAX, False)],
)  # fmt: skip
def test_statistics_of_a_set_up_that_learns_are_a_finding_only_where_they_are_far_off(
    item: Finding, passes: bool
) -> None:
    done = settle([item], sound=True)
    assert done.passed_over == ((item,) if passes else ())
    assert len(done.findings) == (0 if passes else 1)
    assert len(settle([item], sound=False).findings) == 1


def test_a_consequence_of_a_consequence_is_under_the_first_cause() -> None:
    done = settle([NOT_LEARNED, NAN_STEP, NAN_LAYER, NAN_INPUTS], sound=False)
    assert {cause.code for _, cause in done.explained} == {"TRN012"}
    assert [one["code"] for one in done.findings[0].evidence["explains"]] == ["MOD010", "TRN020", "TRN001"]


def test_the_same_finding_of_two_checks_is_one() -> None:
    assert len(settle([SOFTMAX, SOFTMAX], sound=False).findings) == 1
