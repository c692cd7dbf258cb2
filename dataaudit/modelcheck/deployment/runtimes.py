"""Deployed models: ONNX Runtime, TorchScript, torch.export, OpenVINO or a callable, all called alike."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dataaudit.errors import InputError, MissingDependencyError
from dataaudit.modelcheck.inputs import tensors
from dataaudit.modelcheck.loading import from_spec, load_model

__all__ = ["Axis", "Deployed", "Slot", "open_deployed", "parameter_bytes", "precision_of"]

Axis = int | None
"""Length of an axis; None where it is free."""

_TYPES = {
    "tensor(float)": torch.float32, "tensor(double)": torch.float64, "tensor(float16)": torch.float16,
    "tensor(bfloat16)": torch.bfloat16, "tensor(uint8)": torch.uint8, "tensor(int8)": torch.int8,
    "tensor(int32)": torch.int32, "tensor(int64)": torch.int64, "tensor(bool)": torch.bool,
}  # fmt: skip
_LOW = {torch.float64: 0, torch.float32: 1, torch.float16: 2, torch.bfloat16: 3, torch.qint8: 4}


@dataclass(frozen=True, kw_only=True)
class Slot:
    """An input that a deployed model declares.

    Attributes:
        name: its name.
        shape: of the batch, None for a free axis; or None where it isn't said.
        dtype: or None where it isn't said.
    """

    name: str
    shape: tuple[Axis, ...] | None
    dtype: torch.dtype | None


@dataclass(frozen=True, kw_only=True)
class Deployed:
    """A model as it is deployed.

    Attributes:
        name: as the user named it.
        runtime: what runs it, with its version.
        run: from the input tensors in order to the output tensors in order, on the CPU.
        slots: the inputs that it declares; empty where it doesn't say.
        precision: the lowest type it computes in; ``torch.qint8`` for a quantised one.
        size: bytes that it takes on disk or in memory, or None.
        path: its file, or None.
        module: the module that runs, where it is one of PyTorch's.
    """

    name: str
    runtime: str
    run: Callable[[Sequence[torch.Tensor]], tuple[torch.Tensor, ...]]
    slots: tuple[Slot, ...] = ()
    precision: torch.dtype = torch.float32
    size: int | None = None
    path: Path | None = None
    module: nn.Module | None = None


def open_deployed(thing: Any) -> Deployed:
    """Load a deployed model.

    Args:
        thing: a file (``.onnx``, ``.pt2`` of ``torch.export.save``, TorchScript, ``.xml`` of OpenVINO), a
            ``module:attribute`` of a module or function, a module, an exported program, a model of OpenVINO,
            or any callable that takes tensors (or arrays) and returns them.

    Raises:
        InputError: no such file, or one that isn't what its name says.
        MissingDependencyError: the runtime isn't installed.
    """
    if isinstance(thing, Deployed):
        return thing
    if isinstance(thing, (str, Path)):
        path = Path(thing)
        readers = {".onnx": _onnx, ".ort": _onnx, ".xml": _openvino, ".pt2": _exported_file}
        reader = readers.get(path.suffix.lower())
        if reader is not None:
            if not path.is_file():
                raise InputError(f"There is no file {path}.")
            return reader(path)
        text = str(thing)
        made = load_model(text) if ":" not in text or text.startswith(("timm:", "torchvision:")) else None
        found = from_spec(text) if made is None else made
        if not isinstance(found, nn.Module) and callable(found) and _needs_nothing(found):
            found = found()
        return _of_object(found, text, path if path.is_file() else None)
    return _of_object(thing, type(thing).__name__, None)


def _needs_nothing(function: Any) -> bool:
    """Whether it is a factory: a function without parameters."""
    import inspect

    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return False
    return all(each.default is not each.empty or each.kind in (2, 4) for each in parameters) and not any(
        each.kind == 2 for each in parameters
    )


def _of_object(thing: Any, name: str, path: Path | None) -> Deployed:
    if isinstance(thing, torch.export.ExportedProgram):
        return _exported(thing, name, path)
    if type(thing).__module__.split(".")[0] == "openvino" and hasattr(thing, "outputs"):
        return _openvino_model(thing, name, path)
    if isinstance(thing, nn.Module):
        script = isinstance(thing, torch.jit.ScriptModule)
        return Deployed(
            name=name, runtime=f"{'TorchScript' if script else 'PyTorch'} {version('torch')}",
            run=_module_runner(thing), precision=precision_of(thing), path=path, module=thing,
            size=path.stat().st_size if path else parameter_bytes(thing),
        )  # fmt: skip
    if not callable(thing):
        raise InputError(
            f"{name} is a {type(thing).__name__}; expected a deployed model.",
            fix="Give a .onnx, .pt2, TorchScript or OpenVINO file, a module, or a function of the input.",
        )
    return Deployed(name=name, runtime="callable", run=_callable_runner(thing), path=path)


def precision_of(module: nn.Module) -> torch.dtype:
    """The lowest floating type of a module's weights; ``torch.qint8`` where parts of it are quantised."""
    if any("quantized" in _kind(part) for part in module.modules()):
        return torch.qint8
    found = [one.dtype for one in [*module.parameters(), *module.buffers()] if one.is_floating_point()]
    return max(found, key=lambda dtype: _LOW.get(dtype, 1), default=torch.float32)


def _kind(part: nn.Module) -> str:
    """Where the class of a module is written, also of a scripted one."""
    compiled: Any = getattr(part, "_c", None)
    if isinstance(part, torch.jit.ScriptModule) and compiled is not None:
        return str(compiled._type().qualified_name())
    return type(part).__module__


def parameter_bytes(module: nn.Module) -> int | None:
    """Bytes of a module's parameters and buffers; None where it doesn't show them."""
    found = [*module.parameters(), *module.buffers()]
    if precision_of(module) == torch.qint8:
        try:
            found = list(tensors(module.state_dict()))
        except RuntimeError:  # scripted modules pack them
            return None
    return sum(one.numel() * one.element_size() for one in found) if found else None


def _module_runner(module: nn.Module) -> Callable[[Sequence[torch.Tensor]], tuple[torch.Tensor, ...]]:
    def run(inputs: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        weight = next((one for one in module.parameters() if one.is_floating_point()), None)
        given = [
            one.to(weight.device, weight.dtype)
            if weight is not None and one.is_floating_point()
            else one.clone()
            for one in inputs
        ]
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return tuple(one.detach().cpu() for one in tensors(module(*given)))

    return run


def _callable_runner(
    function: Callable[..., Any],
) -> Callable[[Sequence[torch.Tensor]], tuple[torch.Tensor, ...]]:
    arrays: list[bool] = []

    def run(inputs: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        given = [one.detach().cpu().clone() for one in inputs]
        with torch.no_grad():
            if not arrays:
                try:
                    out = function(*given)
                    arrays.append(False)
                except Exception:
                    out = function(*(one.numpy() for one in given))
                    arrays.append(True)
            else:
                out = function(*((one.numpy() for one in given) if arrays[0] else given))
        return tuple(one.detach().cpu() for one in tensors(_as_tensors(out)))

    return run


def _as_tensors(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _as_tensors(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)) and not (value and isinstance(value[0], (int, float))):
        return [_as_tensors(item) for item in value]
    return value if isinstance(value, torch.Tensor) else torch.as_tensor(value)


def _exported_file(path: Path) -> Deployed:
    try:
        program = torch.export.load(path)
    except Exception as error:
        raise InputError(f"It isn't a program of torch.export.save: {_said(error)}", where=path) from error
    return _exported(program, str(path), path)


def _exported(program: torch.export.ExportedProgram, name: str, path: Path | None) -> Deployed:
    from torch.export.graph_signature import TensorArgument

    nodes = {node.name: node for node in program.graph.nodes}
    slots = []
    for spec in program.graph_signature.input_specs:
        if spec.kind.name == "USER_INPUT" and isinstance(spec.arg, TensorArgument):
            value = nodes[spec.arg.name].meta["val"]
            shape = tuple(side if isinstance(side, int) else None for side in value.shape)
            slots.append(Slot(name=spec.arg.name, shape=shape, dtype=value.dtype))
    module = program.module()
    types = [one.dtype for one in program.state_dict.values() if one.is_floating_point()]
    return Deployed(
        name=name, runtime=f"torch.export {version('torch')}", run=_module_runner(module), slots=tuple(slots),
        precision=max(types, key=lambda dtype: _LOW.get(dtype, 1), default=torch.float32), path=path,
        size=path.stat().st_size if path else parameter_bytes(module), module=module,
    )  # fmt: skip


def _onnx(path: Path) -> Deployed:
    try:
        import onnxruntime
    except ImportError as error:
        raise missing("onnxruntime", "ONNX models are run by ONNX Runtime") from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise InputError(f"ONNX Runtime can't load it: {_said(error)}", where=path) from error
    slots = tuple(
        Slot(
            name=one.name,
            shape=tuple(side if isinstance(side, int) else None for side in one.shape),
            dtype=_TYPES.get(one.type),
        )
        for one in session.get_inputs()
    )

    def run(inputs: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        feed = {
            slot.name: (one if slot.dtype is None else one.to(slot.dtype)).detach().cpu().numpy()
            for slot, one in zip(slots, inputs, strict=True)
        }
        return tuple(torch.as_tensor(one) for one in session.run(None, feed))

    from dataaudit.modelcheck.deployment.onnx_files import precision_of_file, size_of_file

    return Deployed(
        name=str(path), runtime=f"ONNX Runtime {version('onnxruntime')}", run=run, slots=slots,
        precision=precision_of_file(path), size=size_of_file(path), path=path,
    )  # fmt: skip


def _openvino(path: Path) -> Deployed:
    try:
        import openvino
    except ImportError as error:
        raise missing("openvino", "OpenVINO models are run by OpenVINO") from error
    try:
        compiled = openvino.compile_model(str(path), "CPU", {"INFERENCE_NUM_THREADS": 1})
    except Exception as error:
        raise InputError(f"OpenVINO can't load it: {_said(error)}", where=path) from error
    return _openvino_model(compiled, str(path), path)


def _openvino_model(thing: Any, name: str, path: Path | None) -> Deployed:
    """A model of OpenVINO, compiled or not."""
    import openvino

    read = not hasattr(thing, "create_infer_request")
    compiled = openvino.compile_model(thing, "CPU", {"INFERENCE_NUM_THREADS": 1}) if read else thing
    named = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16, "f64": torch.float64}
    slots = tuple(
        Slot(
            name=one.get_any_name() if one.get_names() else str(at),
            shape=tuple(None if side.is_dynamic else side.get_length() for side in one.partial_shape),
            dtype=named.get(one.element_type.to_string()),
        )
        for at, one in enumerate(compiled.inputs)
    )

    def run(inputs: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        out = compiled([one.detach().cpu().numpy() for one in inputs])
        return tuple(torch.as_tensor(out[at].copy()) for at in range(len(compiled.outputs)))

    used = str(compiled.get_property("INFERENCE_PRECISION_HINT"))
    found = re.search(r"(bf16|f16|bfloat16|float16)", used)
    lower = {"bf16": torch.bfloat16, "bfloat16": torch.bfloat16, "f16": torch.float16}
    return Deployed(
        name=name, runtime=f"OpenVINO {version('openvino')}", run=run, slots=slots, path=path,
        precision=torch.float32 if found is None else lower.get(found[1], torch.float16),
        size=None if path is None else _size_with_weights(path),
    )  # fmt: skip


def _size_with_weights(path: Path) -> int:
    weights = path.with_suffix(".bin")
    return path.stat().st_size + (weights.stat().st_size if weights.is_file() else 0)


def missing(package: str, why: str, extra: str = "onnx") -> MissingDependencyError:
    """The error for a package that isn't installed."""
    return MissingDependencyError(
        f"{why}, and {package} isn't installed.",
        fix=f"pip install {package}"
        + (f", or pip install 'dataaudit[{extra}]'" if package != "openvino" else ""),
    )


def _said(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}{': ' + text[0][:300] if text else ''}"
