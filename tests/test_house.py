"""What holds for the whole house: style, types, and documents made from the code."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dataaudit import rules

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    "command",
    [("ruff", "check", "."), ("ruff", "format", "--check", "."), ("mypy",)],
    ids=["lint", "format", "types"],
)
def test_the_code_is_in_style(command: tuple[str, ...]) -> None:
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_catalogue_of_checks_is_that_of_the_code() -> None:
    written = (ROOT / "docs" / "checks.md").read_text()
    assert written == rules.describe(markdown=True) + "\n", (
        "Make it anew: dataaudit rule --format markdown > docs/checks.md"
    )
