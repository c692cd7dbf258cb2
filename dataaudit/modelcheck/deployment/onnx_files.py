"""What an ONNX file says without running it: types, size, and signs of an export in train mode."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

__all__ = ["node_title", "precision_of_file", "scope_of", "size_of_file", "train_nodes"]

_QUANTISED = {"QuantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger",
              "MatMulInteger"}  # fmt: skip


def read(path: Path, *, weights: bool = True) -> Any:
    """The model of a file.

    Raises:
        MissingDependencyError: the package onnx isn't installed.
    """
    try:
        import onnx
    except ImportError as error:
        from dataaudit.modelcheck.deployment.runtimes import missing

        raise missing("onnx", "The graph of a model is read by onnx") from error
    return onnx.load(str(path), load_external_data=weights)


def precision_of_file(path: Path) -> torch.dtype:
    """The lowest type that a file's graph computes in; float32 where onnx isn't there to say."""
    try:
        import onnx
    except ImportError:
        return torch.float32
    try:
        graph = onnx.load(str(path), load_external_data=False).graph
    except Exception:  # such as a .ort file
        return torch.float32
    if any(node.op_type in _QUANTISED for node in graph.node):
        return torch.qint8
    kinds = {one.data_type for one in graph.initializer}
    kinds |= {one.type.tensor_type.elem_type for one in (*graph.input, *graph.output)}
    for node in graph.node:
        if node.op_type == "Cast":
            kinds |= {each.i for each in node.attribute if each.name == "to"}
    if onnx.TensorProto.BFLOAT16 in kinds:
        return torch.bfloat16
    if onnx.TensorProto.FLOAT16 in kinds:
        return torch.float16
    floats = kinds & {onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE}
    return torch.float64 if floats == {onnx.TensorProto.DOUBLE} else torch.float32


def size_of_file(path: Path) -> int:
    """Bytes of a file and of the data that lies beside it."""
    beside = path.with_name(path.name + ".data")
    return path.stat().st_size + (beside.stat().st_size if beside.is_file() else 0)


def scope_of(node: Any) -> str:
    """Name of the module that a node was exported from, where the exporter says it.

    Both exporters of PyTorch do: the current one in the node's metadata, the older one in its name.
    """
    import ast

    for entry in node.metadata_props:
        if entry.key == "pkg.torch.onnx.name_scopes":
            try:
                names = [name for name in ast.literal_eval(entry.value) if name]
            except (ValueError, SyntaxError):
                break
            return str(names[-2]) if len(names) > 1 else ""
    parts = [part for part in node.name.split("/") if part]
    return ".".join(parts[:-1]) if node.name.startswith("/") else ""


def node_title(node: Any) -> str:
    """``Resize /up/Resize (of up)``."""
    scope = scope_of(node)
    name = node.name or (node.output[0] if node.output else "")
    return f"{node.op_type} {name}" + (f" (of {scope})" if scope else "")


def train_nodes(path: Path) -> list[Any]:
    """Nodes of dropout and batch norm that act as in training."""
    from onnx import numpy_helper

    graph = read(path).graph
    constants = {one.name: one for one in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            for each in node.attribute:
                if each.name == "value":
                    constants[node.output[0]] = each.t
    found = []
    for node in graph.node:
        if node.op_type == "BatchNormalization":
            modes = [each.i for each in node.attribute if each.name == "training_mode"]
            if any(modes) or len([name for name in node.output if name]) > 1:
                found.append(node)
        elif node.op_type == "Dropout" and len(node.input) > 2 and node.input[2] in constants:
            if bool(numpy_helper.to_array(constants[node.input[2]]).any()):
                found.append(node)
        elif node.op_type in ("RandomUniformLike", "RandomNormalLike", "Bernoulli"):
            found.append(node)
    return found
