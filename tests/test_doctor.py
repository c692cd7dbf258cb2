"""What is installed and working."""

from __future__ import annotations

import pytest

from dataaudit import doctor
from dataaudit.cli import main
from dataaudit.doctor import Row
from dataaudit.errors import DataAuditError


@pytest.fixture(scope="module")
def rows() -> dict[str, Row]:
    return {row.name: row for row in doctor.examine()}


def test_each_thing_that_is_used_has_a_row(rows: dict[str, Row]) -> None:
    assert list(rows) == [
        "python", "backbone", "device", "cleanlab", "fiftyone", "git", "dvc", "timm", "mlflow",
        "pytorch-lightning",
    ]  # fmt: skip


def test_what_works_here_says_its_version_and_figures(rows: dict[str, Row]) -> None:
    assert rows["python"].says.startswith("3.")
    assert rows["git"].says.startswith("git version ")
    assert "images/s" in rows["backbone"].says
    assert [row.name for row in rows.values() if row.works is False] in ([], ["fiftyone"])


def test_what_is_optional_and_not_there_is_no_failure(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [Row(name="git", works=True, says="2.39"), Row(name="timm", works=None, says="not installed")]
    assert doctor.print_rows(rows) == 0
    assert capsys.readouterr().out.splitlines()[1].split() == ["-", "timm", "not", "installed"]


def test_what_fails_says_why_and_is_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    def broken() -> str:
        raise DataAuditError("git is not on the PATH.", fix="Install it.")

    def crashed() -> str:
        raise OSError("libGL.so: cannot open [shared object]\nmore")

    rows = [doctor._row("git", broken), doctor._row("torch", crashed)]
    assert doctor.print_rows(rows) == 1
    out = capsys.readouterr().out
    assert "Install it." in out
    assert "OSError: libGL.so: cannot open [shared object]" in out
    assert "more" not in out


def test_git_that_is_not_there_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    row = doctor._row("git", doctor._git)
    assert row.works is False
    assert "apt-get install git" in row.says


def test_the_command_prints_the_rows(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) in (0, 1)
    assert "backbone" in capsys.readouterr().out
