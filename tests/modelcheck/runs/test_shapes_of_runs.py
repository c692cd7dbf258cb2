"""What curves show: each defect by the run that has it, and silence on healthy ones."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from dataaudit.modelcheck.runs import curves, read_runs, signs_of

EPOCH = np.arange(40.0)
FALL = np.exp(-EPOCH / 6)
NOISE = np.random.default_rng(0).standard_normal((2, 40)) * 0.01


def table(**columns: object) -> pd.DataFrame:
    healthy = {
        "epoch": EPOCH, "train_loss": (0.1 + 2.2 * FALL) * (1 + NOISE[0]),
        "val_loss": (0.15 + 2.15 * FALL) * (1 + NOISE[1]),
    }  # fmt: skip
    return pd.DataFrame({**healthy, **columns})


def codes(frame: pd.DataFrame) -> list[str]:
    (history,) = read_runs(frame)
    return [sign.rule.code for sign in signs_of(history)]


@pytest.mark.parametrize(
    "frame",
    [
        table(),
        table(lr=0.1 * (1 + np.cos(np.pi * EPOCH / 40)) / 2),
        table(train_acc=0.95 - 0.8 * FALL, val_acc=0.94 - 0.8 * FALL),
        table(val_loss=0.5 + 1.8 * FALL),
        table().head(5),
    ],
    ids=["losses", "cosine", "accuracy", "a gap that stays", "too short to say"],
)
def test_a_healthy_run_is_silent(frame: pd.DataFrame) -> None:
    assert codes(frame) == []


AFTER = np.maximum(EPOCH - 15, 0)
STEP = EPOCH >= 20


@pytest.mark.parametrize(
    ("code", "columns"),
    [
        ("TRN050", {"train_loss": np.where(EPOCH < 30, 0.1 + FALL, np.inf)}),
        ("TRN051", {"train_loss": 0.1 + 2.2 * FALL + np.expm1(AFTER / 10)}),
        ("TRN052", {"train_loss": np.zeros(40)}),
        ("TRN053", {"train_loss": np.log(10) * (1 + NOISE[0]), "val_loss": np.log(10) * (1 + NOISE[1])}),
        ("TRN054", {"train_loss": 1.2 + FALL + 0.8 * (-1) ** EPOCH}),
        ("TRN055", {"val_loss": 0.15 + 2.15 * FALL + 0.03 * AFTER}),
        ("TRN056", {"train_loss": 1.9 + 0.4 * FALL + NOISE[0], "val_loss": 1.9 + 0.4 * FALL + NOISE[1]}),
        ("TRN057", {"train_loss": 2.3 - EPOCH / 30 + NOISE[0], "val_loss": 2.4 - EPOCH / 30 + NOISE[1]}),
        ("TRN058", {"val_loss": 0.4 * (0.1 + 2.2 * FALL)}),
        ("TRN059", {"train_loss": 0.1 + 2.2 * FALL + STEP, "lr": np.where(STEP, 0.1, 0.01)}),
        ("TRN060", {"train_loss": np.where(STEP, 0.1 + np.exp(20 - EPOCH), 1.2 + FALL**3)}),
        ("TRN061", {"train_loss": np.where(EPOCH == 25, 9.0, 0.1 + 2.2 * FALL)}),
        ("TRN062", {"train_acc": 0.9 - 0.8 * FALL, "val_acc": np.ones(40)}),
        ("TRN063", {"train_acc": 0.9 - 0.8 * FALL, "val_acc": np.where(STEP, 0.12, 0.9 - 0.8 * FALL)}),
    ],
)
def test_each_defect_is_found_in_a_run_that_has_it(code: str, columns: dict[str, np.ndarray]) -> None:
    assert code in codes(table(**columns))


def test_a_cut_of_the_rate_is_too_early_where_the_loss_still_fell_fast() -> None:
    def cut(at: int) -> pd.DataFrame:
        loss = 0.2 + 2.0 / (1 + np.minimum(EPOCH, at - 1) / 4) * (1 + NOISE[0] / 4)
        return table(train_loss=loss, val_loss=loss + 0.05, lr=np.where(at > EPOCH, 0.1, 0.001))

    (history,) = read_runs(cut(6))
    (sign,) = signs_of(history)
    assert (sign.rule.code, sign.at) == ("TRN059", (6.0,))
    assert "The rate was cut to 0.01 of it at epoch 6, while train_loss still fell" in sign.what
    assert codes(cut(20)) == []


def test_steps_of_a_schedule_at_half_and_four_fifths_are_silent() -> None:
    loss = np.where(EPOCH < 20, 0.3 + 2 * np.exp(-EPOCH / 5), 0.25 + 0.05 * np.exp(-(EPOCH - 20) / 2))
    rate = 0.1 ** (1.0 + (EPOCH >= 20) + (EPOCH >= 32))
    assert codes(table(train_loss=loss, val_loss=loss + 0.05, lr=rate)) == []


@pytest.mark.parametrize(
    "frame",
    [
        pd.DataFrame(
            {
                "epoch": EPOCH,
                "train_loss": 0.1 + 2.2 * FALL,
                "val_acc": 0.9 - 0.8 * FALL - 0.012 * np.maximum(EPOCH - 15, 0),
            }
        ),
        pd.DataFrame(
            {
                "epoch": EPOCH,
                "train_acc": 1 - 0.8 * FALL,
                "val_acc": 0.9 - 0.8 * FALL - 0.012 * np.maximum(EPOCH - 15, 0),
            }
        ),
    ],
    ids=["validation has no loss", "no loss at all"],
)
def test_overfitting_is_seen_in_a_metric_and_told_in_its_figures(frame: pd.DataFrame) -> None:
    (history,) = read_runs(frame)
    (sign,) = signs_of(history)
    assert (sign.rule.code, sign.curve) == ("TRN055", "val_acc")
    assert "val_acc is best at epoch 1" in sign.what
    assert "and falls to 0.6" in sign.what


def test_a_regularised_training_loss_is_no_leak_and_a_constant_factor_is_said() -> None:
    metric = {"train_acc": 0.9 - 0.8 * FALL, "val_acc": 0.9 - 0.8 * FALL}
    assert codes(table(train_loss=0.5 + 1.8 * FALL, val_loss=0.05 + 2.2 * FALL, **metric)) == []
    (history,) = read_runs(table(val_loss=0.25 * (0.1 + 2.2 * FALL), **metric))
    (sign,) = signs_of(history)
    assert sign.rule.code == "TRN058"
    assert "their ratio is the same all along" in sign.what


def test_a_training_loss_that_is_empty_in_every_row_is_nan() -> None:
    assert codes(table(train_loss=np.full(40, np.nan)))[:1] == ["TRN050"]
    assert codes(table(test_loss=np.full(40, np.nan))) == []


def test_nan_is_said_with_its_first_step_and_what_came_before() -> None:
    loss = np.where(EPOCH < 12, 0.1 + 2.2 * FALL, np.nan)
    (history,) = read_runs(table(train_loss=loss))
    sign = signs_of(history)[0]
    assert (sign.rule.code, sign.figures["first"], sign.figures["points"]) == ("TRN050", 12.0, 28)
    assert "train_loss is NaN at epoch 12" in sign.what


def test_the_epoch_from_which_validation_rises_is_named() -> None:
    (history,) = read_runs(table(val_loss=0.15 + 2.15 * FALL + 0.03 * AFTER))
    (sign,) = signs_of(history)
    assert 13 <= sign.at[0] <= 20
    assert "Keep the weights of epoch" in sign.advice


def test_a_flat_loss_at_the_level_of_guessing_names_the_classes() -> None:
    report = curves(table(train_loss=np.log(10) * (1 + NOISE[0]), val_loss=np.log(10) * (1 + NOISE[1])))
    (item,) = report.items
    assert item.evidence["classes"] == 10
    assert [type(part).__name__ for part in report.parts] == ["Table", "Picture"]


def test_a_rate_that_is_zero_for_the_end_is_said_once_it_was_logged() -> None:
    frame = table(lr=np.where(STEP, 0.0, 0.1))
    assert codes(frame) == ["TRN059"]
    assert curves(table()).skipped == {"TRN059": "it needs the learning rate, as a curve named lr"}


def test_a_gap_that_the_mean_over_the_epoch_explains_is_silent() -> None:
    steep = np.exp(-EPOCH / 3)
    during = 0.5 * (steep + np.exp(-(EPOCH + 1) / 3))
    assert codes(table(train_loss=0.3 + 2 * during, val_loss=0.3 + 2 * np.exp(-(EPOCH + 1) / 3))) == []
