"""The command line: arguments, exit codes, what goes to which stream."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pictures import write_digits

from dataaudit import registry
from dataaudit.cli import main, parser

COMMANDS = (
    (), ("audit",), ("fix",), ("version",), ("version", "commit"), ("version", "list"), ("version", "diff"),
    ("version", "compare"), ("version", "checkout"), ("version", "push"), ("version", "pull"), ("rule",),
    ("doctor",), ("demo",),
)  # fmt: skip


def run(*arguments: object, **more: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dataaudit", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **more)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda each: " ".join(each) or "dataaudit")
def test_every_command_has_a_help(command: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([*command, "--help"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out.startswith(" ".join(["usage: dataaudit", *command]))


@pytest.mark.parametrize(
    "arguments",
    [(), ("audit",), ("audit", "photos", "--colour"), ("audit", "photos", "--format", "pdf"),
     ("adit", "photos"), ("fix", "photos", "--min-probability", "high"), ("version",),
     ("version", "commit", "photos")],
    ids=lambda each: " ".join(each) or "nothing",
)  # fmt: skip
def test_bad_usage_is_exit_code_2(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(list(arguments))
    assert stopped.value.code == 2
    assert "error:" in capsys.readouterr().err


def test_python_dash_m_is_the_command() -> None:
    done = run("--version")
    assert (done.returncode, done.stdout) == (0, "dataaudit 0.1.0\n")


@pytest.mark.parametrize("code", sorted(registry.rules()))
def test_every_check_is_explained(code: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rule", code.lower()]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"{code} {registry.rules()[code].name}")
    assert registry.rules()[code].summary in out


def test_rule_without_a_code_lists_all_and_a_wrong_one_names_the_nearest(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["rule"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(registry.rules())
    assert main(["rule", "LBL01"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("dataaudit: There is no check 'LBL01'. Did you mean 'LBL0")


def test_a_folder_that_is_not_there_is_an_error_in_words(tmp_path: Path) -> None:
    done = run("audit", tmp_path / "nowhere", "--no-fiftyone")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(
        f"dataaudit: {tmp_path}/nowhere: There is no such file, folder or dataset.\n"
    )
    assert "Traceback" not in done.stderr


def test_an_empty_folder_is_an_error_in_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", str(tmp_path), "--no-fiftyone"]) == 2
    assert capsys.readouterr().err.startswith(f"dataaudit: {tmp_path}: The folder is empty.")


def test_a_folder_that_may_not_be_read_is_an_error_in_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_digits(tmp_path / "photos", 3)
    locked = tmp_path / "photos/0"
    locked.chmod(0)
    try:
        if os.access(locked, os.R_OK):
            pytest.skip("this user may read everything")
        assert main(["audit", str(tmp_path / "photos"), "--no-fiftyone"]) == 2
    finally:
        locked.chmod(0o755)
    err = capsys.readouterr().err
    assert "photos/0" in err
    assert "Traceback" not in err


def test_what_the_system_refuses_is_an_error_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "x" * 5000, "--no-fiftyone"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "File name too long" in err


def test_a_reader_that_closes_the_pipe_ends_the_command_quietly() -> None:
    command = f"{sys.executable} -m dataaudit rule --format markdown | true; exit ${{PIPESTATUS[0]}}"
    for _ in range(3):
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
        assert done.returncode in (0, 141)
        assert done.stderr == ""


def opened(pid: int) -> set[str]:
    """The files that a process has open."""
    names = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            names.add(str(entry.readlink()))
    return names


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="the system doesn't say which files are open")
def test_ctrl_c_in_the_sweep_is_130_and_the_next_run_goes_on_from_there(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    write_digits(photos, 300)
    slow = photos / "5/0150-slow.png"
    with slow.open("wb") as empty:
        empty.truncate(2**30)  # long enough to be seen while it is read
    arguments = ["audit", str(photos), "--no-fiftyone", "--exit-zero", "--select", "DUP001"]
    started = subprocess.Popen(
        [sys.executable, "-m", "dataaudit", *arguments],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    while str(slow) not in opened(started.pid):
        assert started.poll() is None
    started.send_signal(signal.SIGINT)
    out, err = started.communicate(timeout=60)
    assert started.returncode == 130, err
    assert out == ""
    assert err.splitlines()[-1] == "dataaudit: stopped. What was read is kept: run it again to go on."
    assert "Traceback" not in err
    slow.unlink()
    again = run(*arguments)
    assert again.returncode == 0, again.stderr
    known = int(again.stderr.split("decoded, ")[1].split(" known")[0])
    assert 100 < known < 300


def test_the_parser_knows_no_default_that_hides_the_settings_file() -> None:
    given = parser().parse_args(["audit", "photos"])
    assert (given.backbone, given.device, given.select, given.ignore, given.fail_on) == (None,) * 5
