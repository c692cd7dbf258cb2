"""Make a deployed version of a model: ONNX, TorchScript, torch.export, OpenVINO, half precision, int8."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dataaudit.errors import DataAuditError, InputError, nearest
from dataaudit.modelcheck.deployment.runtimes import Deployed, missing, open_deployed
from dataaudit.modelcheck.inputs import Batch, first, length, tensors
from dataaudit.modelcheck.keeping import kept

__all__ = ["KINDS", "convert", "export_onnx"]


def convert(model: nn.Module, kind: str, batch: Batch, folder: str | Path) -> Deployed:
    """A deployed version of a model, in eval mode; the model is as before.

    Args:
        model: the trained model.
        kind: ``onnx``, ``torchscript``, ``export``, ``openvino``, ``float16``, ``bfloat16`` or ``int8``.
        batch: an example of its inputs.
        folder: where files are written.

    Raises:
        InputError: no such kind, or the model can't be converted; with what the exporter says.
        MissingDependencyError: the exporter or runtime isn't installed.
    """
    if kind not in KINDS:
        raise InputError(f"--to {kind!r} isn't known. {nearest(kind, KINDS)}")
    with kept(model), torch.no_grad(), _quiet():
        model.eval()
        try:
            return KINDS[kind](model, batch, Path(folder))
        except DataAuditError:
            raise
        except Exception as error:
            lines = [line for line in str(error).splitlines() if line.strip()]
            said = lines[0][:300] if lines else ""
            raise InputError(
                f"The model can't be converted to {kind}: {type(error).__name__}: {said}"
            ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Exporters print; what they say of failures is in their exceptions."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def _arguments(batch: Batch) -> tuple[torch.Tensor, ...]:
    # Two samples: exporters take an axis of length 1 for a constant
    few = first(batch.inputs, 2) if length(batch.inputs) > 1 else batch.inputs
    found = tuple(tensors(few))
    if len(found[0]) == 1:
        found = tuple(torch.cat([one, one]) for one in found)
    return found


def _dynamic(arguments: tuple[torch.Tensor, ...]) -> tuple[dict[int, Any], ...]:
    axis = torch.export.Dim("batch")
    return tuple({0: axis} if one.ndim else {} for one in arguments)


def export_onnx(model: nn.Module, batch: Batch, path: Path) -> str:
    """Write a model in eval mode as ONNX, with a free batch axis where the exporter finds it possible.

    Returns:
        ``"free batch"`` or ``"fixed batch"``.
    """
    for package in ("onnx", "onnxscript"):
        try:
            __import__(package)
        except ImportError as error:
            raise missing(package, "A PyTorch model is written as ONNX by torch.onnx") from error
    arguments = _arguments(batch)
    try:
        torch.onnx.export(
            model, arguments, str(path), dynamo=True, dynamic_shapes=_dynamic(arguments), verbose=False,
            external_data=False,
        )  # fmt: skip
        return "free batch"
    except Exception:
        one = tuple(each[:1] for each in arguments)
        torch.onnx.export(model, one, str(path), dynamo=True, verbose=False, external_data=False)
        return "fixed batch"


def _onnx(model: nn.Module, batch: Batch, folder: Path) -> Deployed:
    path = folder / "model.onnx"
    export_onnx(model, batch, path)
    return open_deployed(path)


def _script(model: nn.Module, batch: Batch, folder: Path) -> Deployed:
    path = folder / "model.ts"
    trace: Any = torch.jit.trace
    trace(model, _arguments(batch), check_trace=False).save(str(path))
    return open_deployed(path)


def _export(model: nn.Module, batch: Batch, folder: Path) -> Deployed:
    path = folder / "model.pt2"
    arguments = _arguments(batch)
    program = torch.export.export(model, arguments, dynamic_shapes=_dynamic(arguments), strict=False)
    torch.export.save(program, path)
    return open_deployed(path)


def _openvino(model: nn.Module, batch: Batch, folder: Path) -> Deployed:
    try:
        import openvino
    except ImportError as error:
        raise missing("openvino", "OpenVINO models are made by OpenVINO") from error
    path = folder / "model.xml"
    arguments = _arguments(batch)
    openvino.save_model(openvino.convert_model(model, example_input=arguments), path, compress_to_fp16=False)
    return open_deployed(path)


def _half(dtype: torch.dtype) -> Callable[[nn.Module, Batch, Path], Deployed]:
    def make(model: nn.Module, batch: Batch, folder: Path) -> Deployed:
        return open_deployed(copy.deepcopy(model).to(dtype))

    return make


def _int8(model: nn.Module, batch: Batch, folder: Path) -> Deployed:
    quantize: Any = torch.ao.quantization.quantize_dynamic
    made = quantize(copy.deepcopy(model), {nn.Linear}, dtype=torch.qint8)
    return open_deployed(made)


KINDS: dict[str, Callable[[nn.Module, Batch, Path], Deployed]] = {
    "onnx": _onnx, "torchscript": _script, "export": _export, "openvino": _openvino,
    "float16": _half(torch.float16), "bfloat16": _half(torch.bfloat16), "int8": _int8,
}  # fmt: skip
