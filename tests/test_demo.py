"""The demo: what it planted is found, and what it prints fits a terminal."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from dataaudit import demo
from dataaudit.errors import InputError


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The demo without FiftyOne, in a terminal of 80 columns: its folder and what it printed.

    It lies in a repository that ignores it, as a clone of this project does.
    """
    folder = tmp_path_factory.mktemp("a folder with a name that is long enough to be wrapped") / "demo"
    subprocess.run(["git", "init", "--quiet", str(folder.parent)], check=True)
    (folder.parent / ".gitignore").write_text("demo/\n")
    command = [sys.executable, "-m", "dataaudit", "demo", str(folder), "--no-fiftyone"]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "COLUMNS": "80"}, timeout=280
    )
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def test_what_was_planted_is_found(ran: tuple[Path, str]) -> None:
    rows = re.findall(
        r"([A-Z]{3}\d{3}) \D+?(\d+) \D+?(\d+) \D+?(\d+) ", ran[1].split("Found against planted")[1]
    )
    found = {code: (int(planted), int(found)) for code, planted, found, _ in rows}
    assert found["LBL001"][0] == 90
    assert found["LBL001"][1] >= 80
    assert (found["SPL001"], found["DUP001"], found["IMG001"]) == ((12, 12), (8, 8), (1, 1))


def test_most_relabels_restore_the_true_class(ran: tuple[Path, str]) -> None:
    match = re.search(r"(\d+) fixes applied; (\d+) of (\d+) relabels restore the true class", ran[1])
    assert match is not None
    n_fixes, n_right, n_relabeled = map(int, match.groups())
    assert n_fixes > n_relabeled > 80
    assert n_right / n_relabeled > 0.9


def test_both_versions_and_their_accuracy_are_shown(ran: tuple[Path, str]) -> None:
    _, out = ran
    assert "v1 -> v2:" in out
    accuracies = [float(each) for each in re.findall(r"^  v\d  +([\d.]+)%", out, re.MULTILINE)]
    assert len(accuracies) == 2
    assert accuracies[1] >= accuracies[0] > 90


def test_no_line_is_wrapped_in_the_middle_of_a_path(ran: tuple[Path, str]) -> None:
    folder, out = ran
    for name in ("digits", ".dataaudit/digits/reports/report.html", ".dataaudit/digits/reports/compare.png"):
        assert str(folder / name) in out
    assert f"  dataaudit fix --undo {folder / 'digits'}" in out.splitlines()
    assert all(len(line) <= 80 for line in out.splitlines() if str(folder) not in line)


def test_the_files_it_names_are_there(ran: tuple[Path, str]) -> None:
    folder, _ = ran
    planted = json.loads((folder / "planted.json").read_text())
    assert len(planted["flipped"]) == 90
    assert (folder / ".dataaudit/digits/reports/report.html").stat().st_size > 100_000


def test_the_first_recipe_without_an_argument_audits_the_digits_that_are_there(ran: tuple[Path, str]) -> None:
    folder, _ = ran
    recipe = Path(__file__).parent.parent / "recipes/01_audit_a_folder.py"
    done = subprocess.run(
        [sys.executable, str(recipe)], capture_output=True, text=True, cwd=folder, timeout=200
    )
    assert done.returncode == 0, done.stderr
    assert "doubtful labels about" in done.stdout
    assert "Report: .dataaudit/digits/reports/report.html" in done.stdout


def test_a_folder_that_holds_something_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="not empty"):
        demo.write_digits(tmp_path)
