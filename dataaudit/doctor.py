"""What is installed and working on this machine."""

from __future__ import annotations

import importlib.metadata
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from dataaudit.errors import DataAuditError

__all__ = ["Row", "examine", "print_rows"]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One thing that was looked at.

    Attributes:
        name: what.
        works: whether it works; None for something optional that isn't there.
        says: version, place and figures, or what is wrong and what to do.
    """

    name: str
    works: bool | None
    says: str


def examine() -> list[Row]:
    """Look at each thing that dataaudit uses; nothing is installed or changed."""
    rows = [Row(name="python", works=sys.version_info >= (3, 10), says=sys.version.split()[0])]
    steps: tuple[tuple[str, Callable[[], str]], ...] = (
        ("backbone", _backbone), ("device", _device), ("cleanlab", _cleanlab), ("fiftyone", _fiftyone),
        ("git", _git), ("dvc", _dvc),
    )  # fmt: skip
    rows += [_row(name, step) for name, step in steps]
    for package, use in (
        ("timm", "backbones timm:NAME"), ("mlflow", "version compare --mlflow"),
        ("pytorch-lightning", "audit --baseline finetune"),
    ):  # fmt: skip
        found = _installed(package) or _installed(f"{package}-skinny")
        rows.append(
            Row(name=package, works=True if found else None, says=found or f"not installed; for {use}")
        )
    return rows


def print_rows(rows: list[Row]) -> int:
    """Print the rows as a table; returns 0 when all that is needed works, else 1."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for row in rows:
        mark = {True: ("ok", "green"), False: ("fails", "bold red"), None: ("-", "dim")}[row.works]
        table.add_row(Text(*mark), Text(row.name), Text(row.says))
    Console().print(table)
    return 0 if all(row.works is not False for row in rows) else 1


def _row(name: str, step: Callable[[], str]) -> Row:
    try:
        return Row(name=name, works=True, says=step())
    except DataAuditError as error:
        return Row(name=name, works=False, says=str(error))
    except Exception as error:
        return Row(
            name=name,
            works=False,
            says=f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
        )


def _installed(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _backbone() -> str:
    import numpy as np
    from PIL import Image

    from dataaudit.signals.backbones import DEFAULT, backbone_named, embedder

    found = embedder(backbone_named(DEFAULT))
    batch = np.stack([found.preprocess(Image.new("RGB", (64, 64), "gray"))] * 16)
    features = found.embed(batch)
    started = time.perf_counter()
    found.embed(batch)
    rate = 16 / (time.perf_counter() - started)
    return f"{DEFAULT}, {features.shape[1]} features, {rate:.0f} images/s in one thread"


def _device() -> str:
    import torch

    from dataaudit.signals.backbones import pick_device

    device = pick_device("auto")
    name = torch.cuda.get_device_name() if device == "cuda" else f"{torch.get_num_threads()} cores"
    return (
        f"{device} ({name}), torch {torch.__version__}, OpenVINO {_installed('openvino') or 'not installed'}"
    )


def _cleanlab() -> str:
    import cleanlab

    return str(cleanlab.__version__)


def _fiftyone() -> str:
    from dataaudit.formats._fiftyone import connect

    fiftyone = connect()
    server = fiftyone.core.odm.get_db_conn().client.server_info()["version"]
    return f"{fiftyone.__version__}, mongod {server}, {len(fiftyone.list_datasets())} datasets"


def _git() -> str:
    program = shutil.which("git")
    if program is None:
        raise DataAuditError("git is not on the PATH.", fix="Install it, as with: apt-get install git")
    return subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout.strip()


def _dvc() -> str:
    import dvc.repo  # noqa: F401

    return f"{_installed('dvc')}"
