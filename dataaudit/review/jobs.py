"""Long work that is begun in the App: each job is a command of the command line in a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import IO, Any

from dataaudit.errors import InputError

__all__ = ["TITLES", "Job"]

TITLES = {"apply": "Applying the decisions", "commit": "Committing a version", "audit": "Auditing again"}
_PERCENT = re.compile(r"(\d{1,3})%\|")
_KEPT = 40  # lines of what a command says


class Job:
    """A command that runs beside the App's server, so that neither stops the other.

    Attributes:
        title: what it does, for people.
        seen: whether the panel knows that it is done.
    """

    def __init__(self, title: str, command: Sequence[str], *, folder: str | None = None) -> None:
        self.title, self.seen = title, False
        self._share: float | None = None
        self._doing = ""
        self._lines: list[str] = []
        environment = {**os.environ, "DATAAUDIT_PROGRESS_SECONDS": "0.5", "PYTHONUNBUFFERED": "1"}
        # The variable tells FiftyOne that it is the App's server
        for name in ("FIFTYONE_SERVER", "FIFTYONE_DISABLE_SERVICES"):
            environment.pop(name, None)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "dataaudit", *command],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, encoding="utf-8", errors="replace", env=environment, cwd=folder,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @classmethod
    def of(
        cls,
        name: str,
        path: str,
        arguments: Sequence[str],
        *,
        folder: str | None = None,
        message: str | None = None,
    ) -> Job:
        """Begin a job.

        Args:
            name: ``apply``, ``commit`` or ``audit``.
            path: of the dataset.
            arguments: how it is read.
            folder: to run in; by default the present one.
            message: of the version to commit.

        Raises:
            InputError: no such job, or no message.
        """
        if name == "commit" and not (message or "").strip():
            raise InputError("A version needs a message.", fix="Say what changed.")
        commands = {
            "apply": ["fix", "--decided", *arguments, "--", path],
            "commit": ["version", "commit", "-m", message or "", "--", path],
            "audit": ["audit", "--exit-zero", *arguments, "--", path],
        }
        if name not in commands:
            raise InputError(f"There is no job {name!r}.")
        return cls(TITLES[name], commands[name], folder=folder)

    @property
    def running(self) -> bool:
        """Whether it is under way."""
        return self._reader.is_alive()

    def wait(self, seconds: float) -> bool:
        """Wait for its end, for some seconds at most; returns whether it has ended."""
        self._reader.join(seconds)
        return not self.running

    def plain(self) -> dict[str, Any]:
        """How it is getting on, as plain JSON; ``share`` of what it is ``doing`` is done, or None."""
        running = self.running
        return {
            "title": self.title,
            "running": running,
            "doing": self._doing,
            "share": self._share,
            "ok": None if running else self._process.returncode == 0,
            "message": "" if running else "\n".join(self._lines).strip(),
        }

    def _read(self) -> None:
        with self._process as process:  # closes the pipe and waits for the end
            assert process.stdout is not None
            for line in _lines(process.stdout):
                found = _PERCENT.search(line)
                if found:
                    self._share = min(int(found[1]), 100) / 100
                    self._doing = line.split(":")[0].strip()
                elif line.strip():
                    self._lines = [*self._lines, line.rstrip()][-_KEPT:]
                    self._doing, self._share = line.strip(), None


def _lines(stream: IO[str]) -> Iterator[str]:
    """What a command says, in lines; a progress bar begins its line anew and anew."""
    line = ""
    while True:
        letter = stream.read(1)
        if letter in ("", "\r", "\n"):
            if line:
                yield line
            line = ""
            if not letter:
                return
        else:
            line += letter
