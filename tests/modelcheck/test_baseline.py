"""The model against the baseline: which of the two to debug is said with an interval and a paired test."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import nn

from dataaudit import formats
from dataaudit.cli import main
from dataaudit.errors import InputError
from dataaudit.modelcheck.baselines import compare, predict


def series(text: str) -> pd.Series:
    return pd.Series(list(text), index=[f"{at}.png" for at in range(len(text))])


LABELS = "a" * 50 + "b" * 50
# Predictions of the model, of the baseline, and the codes
CASES = [
    ("a" * 40 + "b" * 60, LABELS, ["MOD030"]),
    (LABELS, "a" * 40 + "b" * 60, []),
    ("a" * 45 + "b" * 55, "a" * 50 + "b" * 45 + "a" * 5, ["MOD031"]),
    (LABELS[:99] + "a", LABELS, []),
    ("b" * 5 + "a" * 5, "a" * 5 + "b" * 5, []),
]


@pytest.mark.parametrize(("model", "baseline", "codes"), CASES)
def test_worse_and_equal_models_are_told_apart(model: str, baseline: str, codes: list[str]) -> None:
    found = compare(series(model), series(baseline), series(LABELS[45:55] if len(model) == 10 else LABELS))
    assert [item.code for item in found.findings] == codes


def test_the_samples_that_only_the_baseline_has_right_are_listed() -> None:
    found = compare(series("abbb"), series("aabb"), series("aabb"))
    assert found.only_baseline == ("1.png",)
    assert found.only_model == ()
    assert (found.right, found.baseline_right, found.n, found.p) == (3, 4, 4, 1.0)
    assert found.classes["model"].to_dict() == {"a": 0.5, "b": 1.0}
    with pytest.raises(InputError, match="No sample"):
        compare(series("a"), series("a"), pd.Series({"other": "a"}))


class Constant(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scores = nn.Parameter(torch.arange(10.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.scores.expand(len(x), -1)


def test_a_model_predicts_every_image(digit_folder: Path) -> None:
    found = predict(Constant(), digit_folder, shape=(3, 8, 8))
    assert len(found) == 120
    assert set(found["name"]) == {formats.read(digit_folder).classes[9]}
    with pytest.raises(InputError, match="10 classes"):
        predict(nn.Sequential(nn.Flatten(), nn.Linear(192, 4)), digit_folder, shape=(3, 8, 8))


def test_the_command_says_that_a_constant_model_is_worse(
    digit_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    predict(Constant(), digit_folder, shape=(3, 8, 8)).to_csv("predictions.csv", index=False)
    assert main(["model", "baseline", "--predictions", "predictions.csv", "--data", str(digit_folder)]) == 1
    out = capsys.readouterr().out
    assert "MOD030 accuracy" in out
    assert "right by the baseline and wrong by the model" in out
    assert main(["model", "baseline", "--data", str(digit_folder)]) == 2
