from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from pictures import write_digits

pytest.importorskip("pytorch_lightning")
RECIPE = Path(__file__).parents[2] / "recipes/06_lightning_callback.py"


def test_a_training_is_checked_and_its_dynamics_reach_the_audit(tmp_path: Path) -> None:
    files, _ = write_digits(tmp_path / "photos", 60)
    done = subprocess.run(
        [sys.executable, str(RECIPE), "photos", "1"], capture_output=True, text=True, cwd=tmp_path,
        env=dict(os.environ), timeout=250,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    table = pd.read_parquet(tmp_path / "dataaudit/training_dynamics.parquet")
    assert sorted(table.index) == sorted(files)
    assert (tmp_path / "dataaudit/model-training.html").is_file()
    assert "training dynamics of 60 samples" in done.stdout
