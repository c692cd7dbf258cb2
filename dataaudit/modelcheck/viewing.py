"""A model's architecture in Netron."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from dataaudit.errors import InputError, MissingDependencyError

__all__ = ["file_of", "view"]

_SHOWN = (".onnx", ".pt2", ".pt", ".pth", ".ts", ".torchscript", ".xml", ".tflite", ".keras", ".h5",
          ".safetensors")  # fmt: skip


def file_of(model: nn.Module | str | Path, folder: str | Path, *, batch: Any = None) -> Path:
    """The file that shows a model: itself, or an ONNX file of a module, written into `folder`.

    Args:
        model: a file that Netron reads, or a module or its name.
        folder: where an export is written.
        batch: example inputs; random numbers of a shape that it takes when left out.

    Raises:
        InputError: no such file, or a module that can't be exported.
        MissingDependencyError: the exporter isn't installed.
    """
    from dataaudit.modelcheck.deployment.converting import convert
    from dataaudit.modelcheck.inputs import random_batch
    from dataaudit.modelcheck.loading import load_model

    if isinstance(model, (str, Path)) and Path(model).suffix.lower() in _SHOWN and ":" not in str(model):
        if not Path(model).is_file():
            raise InputError(f"There is no file {model}.")
        return Path(model)
    made = load_model(model if isinstance(model, nn.Module) else str(model))
    Path(folder).mkdir(parents=True, exist_ok=True)
    path = convert(made, "onnx", batch or random_batch(made, 2), folder).path
    assert path is not None
    return path


def view(file: str | Path, *, browse: bool = True, port: int | None = None) -> str:
    """Serve a model's file with Netron on this machine, and open the browser.

    Args:
        file: see `file_of`.
        browse: open the browser.
        port: of the server; a free one when left out.

    Returns:
        Its address. The server runs until the program ends; `wait` keeps it.

    Raises:
        MissingDependencyError: Netron isn't installed.
    """
    netron = _netron(file)
    host, number = netron.serve(str(file), None, ("127.0.0.1", port), browse)
    return f"http://{host}:{number}"


def wait() -> None:
    """Keep serving until the program is interrupted."""
    _netron("").wait()


def _netron(file: str | Path) -> Any:
    try:
        import netron
    except ImportError as error:
        raise MissingDependencyError(
            "Models are shown by Netron, and it isn't installed.",
            fix="pip install 'dataaudit[view]'; or open the file elsewhere"
            + (f": {file}" if file else "")
            + ", as with --no-open.",
        ) from error
    return netron
