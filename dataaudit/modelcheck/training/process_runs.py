"""Several processes are started, waited for, and ended whatever happens."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from dataaudit.errors import InputError

__all__ = ["placement", "run_together"]


def placement(world: int, *, gpus: int, on_gpu: bool) -> tuple[str, list[str]]:
    """The backend, and the device of each process.

    Args:
        world: how many processes.
        gpus: how many there are.
        on_gpu: whether the model is on one.

    >>> placement(2, gpus=0, on_gpu=False), placement(2, gpus=2, on_gpu=False)
    (('gloo', ['cpu', 'cpu']), ('nccl', ['cuda:0', 'cuda:1']))
    >>> placement(2, gpus=1, on_gpu=True)  # nccl refuses two processes on one
    ('gloo', ['cuda:0', 'cuda:0'])
    """
    if gpus >= world:
        return "nccl", [f"cuda:{rank}" for rank in range(world)]
    if on_gpu and gpus:
        return "gloo", [f"cuda:{rank % gpus}" for rank in range(world)]
    return "gloo", ["cpu"] * world


def run_together(
    job: Mapping[str, Any], things: Mapping[str, Any], seconds: float
) -> tuple[list[dict[str, Any]], dict[str, Any] | None]:
    """The results of all processes, or what the first that failed said."""
    folder = Path(tempfile.mkdtemp(prefix="dataaudit-processes-"))
    running: list[subprocess.Popen[bytes]] = []
    try:
        (folder / "job.json").write_text(json.dumps(job))
        try:
            torch.save(dict(things), folder / "given.pt")
        except Exception as error:
            raise InputError(
                f"The model or loss can't be handed to another process: {error}",
                fix="Give module:attribute in its place, which each process makes anew.",
            ) from error
        settings = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
        command = [sys.executable, "-m", "dataaudit.modelcheck.training.process_worker", str(folder)]
        for rank in range(job["world"]):
            with (folder / f"said-{rank}.txt").open("wb") as said:
                running.append(subprocess.Popen([*command, str(rank)], env=settings, stdin=subprocess.DEVNULL,
                                                stdout=said, stderr=said))  # fmt: skip
        return _awaited(folder, running, seconds)
    finally:
        for one in running:
            if one.poll() is None:
                one.kill()
            one.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _awaited(
    folder: Path, running: Sequence[subprocess.Popen[bytes]], seconds: float
) -> tuple[list[dict[str, Any]], dict[str, Any] | None]:
    end = time.monotonic() + seconds
    while True:
        codes = [one.poll() for one in running]
        failed = [file for rank, code in enumerate(codes) if code
                  and (file := folder / f"failed-{rank}.json").is_file()]  # fmt: skip
        if failed:
            told: dict[str, Any] = json.loads(failed[0].read_text())
            return [], told
        for rank, code in enumerate(codes):
            if code:
                raise _ended(folder, rank, code)
        if all(code == 0 for code in codes):
            break
        if time.monotonic() > end:
            raise InputError(
                f"The processes took over {seconds:g} s and were ended.",
                fix="A process that waits for another hangs: look for a branch that depends on the rank.",
            )
        time.sleep(0.05)
    found = [torch.load(folder / f"result-{rank}.pt", weights_only=False) for rank in range(len(running))]
    return found, None


def _ended(folder: Path, rank: int, code: int) -> InputError:
    words = (folder / f"said-{rank}.txt").read_text(errors="replace").strip().splitlines()
    return InputError(
        f"Process {rank} ended with {code}: {words[-1] if words else 'it said nothing'}",
        fix="Ended by a signal it is often memory; otherwise run your script with one process.",
    )
