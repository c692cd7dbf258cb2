"""Jobs: commands that run beside the App's server."""

from __future__ import annotations

from pathlib import Path

import pytest

from dataaudit.errors import InputError
from dataaudit.review.jobs import Job


def test_a_job_says_what_its_command_said() -> None:
    job = Job("Explaining", ["rule", "LBL001"])
    assert job.wait(60)
    found = job.plain()
    assert (found["ok"], found["running"], found["title"]) == (True, False, "Explaining")
    assert "LBL001" in found["message"]


def test_a_job_that_fails_says_why(tmp_path: Path) -> None:
    job = Job.of("apply", str(tmp_path / "gone"), ())
    assert job.wait(60)
    assert job.plain()["ok"] is False
    assert "gone" in job.plain()["message"]


def test_a_version_needs_a_message(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="needs a message"):
        Job.of("commit", str(tmp_path), (), message=" ")
