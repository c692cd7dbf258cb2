"""The Hydra recipe trains on two versions in DVC and compares them, as its README says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from pictures import write_digits

import dataaudit as da

RECIPE = Path(__file__).parent.parent / "recipes/05_hydra_baseline"
SETTINGS = ("model=small", "epochs=3", "learning_rate=3e-3", "data.flip=false", "data.batch_size=16")

pytest.importorskip("hydra")
pytest.importorskip("mlflow")
pytest.importorskip("tensorboard")


def run(script: str, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(RECIPE / script), *arguments], capture_output=True, text=True, cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=250,
    )  # fmt: skip


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Digits in two splits: every fourth training label is wrong in v1, none in v2."""
    folder = tmp_path / "photos"
    write_digits(folder / "train", 200)
    write_digits(folder / "test", 280)
    for file in sorted(folder.glob("test/*/*")):
        if int(file.stem) < 200:
            file.unlink()
    right = sorted((folder / "train").glob("*/*.png"), key=lambda file: file.name)[::4]
    wrong = [file.parent.parent / str((int(file.parent.name) + 3) % 10) / file.name for file in right]
    for file, other in zip(right, wrong, strict=True):
        file.rename(other)
    da.commit(folder, message="as it came", progress=False)
    for file, other in zip(right, wrong, strict=True):
        other.rename(file)
    da.commit(folder, message="corrected", progress=False)
    return folder


def test_two_versions_are_trained_on_tracked_and_compared(photos: Path) -> None:
    folder, before = photos.parent, {file: file.stat().st_mtime_ns for file in photos.rglob("*.png")}
    done = run("train.py", "-m", "data.path=photos", "data.version=v1,v2", "seed=0", *SETTINGS, folder=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "v2 against v1" in done.stdout or "than v1" in done.stdout
    assert len({file.parent for file in folder.glob("multirun/**/events.out.tfevents.*")}) == 2
    assert len(list(folder.glob("multirun/**/metrics.csv"))) == 2
    assert {file: file.stat().st_mtime_ns for file in photos.rglob("*.png")} == before
    again = run("compare.py", folder=folder)
    assert again.returncode == 0, again.stderr
    assert "80 held-out images" in again.stdout


def test_a_version_that_is_not_there_is_said_before_anything_is_trained(photos: Path) -> None:
    done = run("train.py", "-m", "data.path=photos", "data.version=v1,v7", *SETTINGS, folder=photos.parent)
    assert done.returncode == 2
    assert "v7" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (photos.parent / "mlruns").exists()
