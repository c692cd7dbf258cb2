"""The recipes run as they are, on real digits."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from pictures import write_digits

RECIPES = Path(__file__).parent.parent / "recipes"


def run(recipe: str, *arguments: object, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(RECIPES / recipe), *map(str, arguments)],
        capture_output=True, text=True, cwd=folder, env=dict(os.environ), timeout=200,
    )  # fmt: skip


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """200 digits, ten under a wrong class."""
    folder = tmp_path / "photos"
    write_digits(folder, 200)
    for number in range(0, 200, 20):
        file = next(folder.glob(f"*/{number:04d}.png"))
        file.rename(folder / str((int(file.parent.name) + 3) % 10) / file.name)
    return folder


def test_an_audit_of_a_folder_prints_its_findings(photos: Path) -> None:
    done = run("01_audit_a_folder.py", photos, folder=photos.parent)
    assert done.returncode == 0, done.stderr
    assert "LBL001" in done.stdout
    assert (photos.parent / ".dataaudit/photos/reports/report.html").is_file()


def test_labels_are_cleaned_up_and_the_files_are_as_before_in_the_end(photos: Path) -> None:
    before = {path: path.read_bytes() for path in photos.rglob("*.png")}
    done = run("02_clean_up_labels.py", photos, folder=photos.parent)
    assert done.returncode == 0, done.stderr
    for words in ("relabeled", "Baseline accuracy", "Took back"):
        assert words in done.stdout
    assert {path: path.read_bytes() for path in photos.rglob("*.png")} == before


def test_the_gate_fails_on_wrong_labels_and_writes_sarif(photos: Path) -> None:
    done = run("03_gate_in_ci.py", photos, "LBL>1%", folder=photos.parent)
    assert done.returncode == 1, done.stderr
    assert "LBL>1%" in done.stdout
    assert json.loads((photos.parent / "dataaudit.sarif").read_text())["version"] == "2.1.0"
    assert run("03_gate_in_ci.py", photos, "LBL>50%", folder=photos.parent).returncode == 0


def test_boxes_are_cleaned_up_and_the_label_files_are_as_before_in_the_end(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    # Too few objects to train a detector on, which takes a minute; a box that reaches out needs none
    runpy.run_path(str(RECIPES / "shapes.py"))["draw"](folder, 7)
    (folder / "labels/003.txt").write_text("0 0.1 0.5 0.4 0.4\n1 0.7500 0.5000 0.2000 0.2000\n")
    before = {path: path.read_bytes() for path in folder.rglob("*.*")}
    done = run("04_clean_boxes.py", folder, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    for words in (
        "BOX006 images/003.png",
        "-disc (-0.1, 0.3, 0.3, 0.7)\n+disc (0, 0.3, 0.3, 0.7)",
        "1 findings before and 0 after 1 fixes.",
        "Took back 1 fixes.",
    ):
        assert words in done.stdout
    assert {path: path.read_bytes() for path in folder.rglob("*.*")} == before


@pytest.mark.parametrize("recipe", sorted(path.name for path in RECIPES.glob("0*.py")))
def test_a_recipe_is_short(recipe: str) -> None:
    assert len((RECIPES / recipe).read_text().splitlines()) < 60
