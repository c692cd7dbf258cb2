"""Concept drift along a stream of outcomes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dataaudit.cli import main
from dataaudit.errors import InputError
from dataaudit.modelcheck.drift import concept_drift, read_outcomes
from dataaudit.modelcheck.drift.moments import block_length, scan, step


def stream(chances: np.ndarray, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    times = pd.date_range("2026-01-01", periods=len(chances), freq="4h").astype(str)
    return pd.DataFrame({"time": times, "correct": (rng.random(len(chances)) < chances).astype(int)})


def test_a_sudden_fall_is_dated_with_an_interval_that_holds_it() -> None:
    table = stream(np.where(np.arange(900) < 600, 0.98, 0.6))
    (item,) = concept_drift(table, n_permutations=199).items
    assert item.code == "DRF005"
    assert item.evidence["gradual"] is False
    assert item.evidence["first"] <= "2026-04-11" <= item.evidence["last"]
    assert abs(item.evidence["before"] - 0.98) < 0.02
    assert abs(item.evidence["after"] - 0.6) < 0.06


def test_a_slow_fall_over_months_is_told_from_a_sudden_one() -> None:
    table = stream(np.interp(np.arange(1200), [300, 1000], [0.98, 0.6]))
    (item,) = concept_drift(table, n_permutations=199).items
    assert item.evidence["gradual"] is True
    assert "Accuracy fell from 9" in item.message
    assert "gradually, from 2026-0" in item.message


def test_two_sudden_falls_are_two_findings_with_the_accuracy_between_them() -> None:
    table = stream(np.select([np.arange(1500) < 500, np.arange(1500) < 1000], [0.98, 0.8], 0.4))
    first, second = sorted(
        concept_drift(table, n_permutations=199).items, key=lambda item: item.evidence["at"]
    )
    assert first.evidence["after"] == second.evidence["before"] == pytest.approx(0.8, abs=0.05)


def test_a_stream_without_change_is_silent() -> None:
    assert [len(concept_drift(stream(np.full(400, 0.9), seed), n_permutations=99, level=0.01).items)
            for seed in range(8)] == [0] * 8  # fmt: skip


def test_a_stream_that_is_always_right_or_very_short_is_silent() -> None:
    assert concept_drift(stream(np.ones(100))).items == []
    short = concept_drift(stream(np.full(10, 0.5)))
    assert short.skipped == {"DRF005": "there are 10 outcomes; it needs 20"}


def test_values_that_depend_on_each_other_are_moved_in_blocks() -> None:
    rng = np.random.default_rng(0)
    walk = np.zeros(600)
    for at in range(1, 600):
        walk[at] = 0.9 * walk[at - 1] + rng.normal()
    assert block_length(walk) > 10
    assert block_length(rng.normal(size=600)) <= 2
    small = [scan(walk[:, None], n_permutations=99)[0] > 0.05 for walk in _walks(12)]
    assert sum(small) >= 9


def _walks(n: int) -> list[np.ndarray]:
    found = []
    for seed in range(n):
        noise = np.random.default_rng(seed).normal(size=400)
        walk = np.zeros(400)
        for at in range(1, 400):
            walk[at] = 0.6 * walk[at - 1] + noise[at]
        found.append(walk)
    return found


def test_the_likeliest_step_is_the_one_worked_out_by_hand() -> None:
    found = step(np.array([1.0] * 10 + [0.0] * 10), binary=True)
    assert (found.at, found.before, found.after) == (10, 1.0, 0.0)
    assert found.first <= 10 <= found.last


def test_rows_are_put_in_the_order_of_time() -> None:
    table = pd.DataFrame({"date": ["2026-01-03", "2026-01-01"], "label": ["a", "b"], "pred": ["a", "c"]})
    assert read_outcomes(table)["correct"].tolist() == [0, 1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("time,correct\n2026-01-01,1\n2026-01-02,maybe\n", r"o\.csv:3: correct is 'maybe'"),
        ("time,correct\n2026-01-01,1\nsoon,0\n", r"o\.csv:3: The time 'soon' can't be read"),
        ("when,correct\n1,1\n", "no column 'time'"),
        ("time,given\n1,cat\n", "no column 'predicted'"),
        ("time,value\n1,cat\n", "no column 'correct' or 'given'"),
        ("time,given,predicted\n1,cat,\n", r"o\.csv:2: An outcome lacks its class"),
        ("time,correct\n", "no outcomes"),
        ("", "can't be read"),
    ],
)
def test_a_table_that_cannot_be_read_says_where(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "o.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        read_outcomes(tmp_path / "o.csv")


def test_the_command_takes_a_csv(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stream(np.where(np.arange(300) < 200, 0.98, 0.5)).to_csv(tmp_path / "falls.csv", index=False)
    stream(np.full(300, 0.95)).to_csv(tmp_path / "steady.csv", index=False)
    assert main(["model", "drift", "--outcomes", str(tmp_path / "falls.csv")]) == 1
    assert "Accuracy fell from 9" in capsys.readouterr().out
    assert main(["model", "drift", "--outcomes", str(tmp_path / "steady.csv")]) == 0
    assert main(["model", "drift", "a", "--outcomes", str(tmp_path / "steady.csv")]) == 2
