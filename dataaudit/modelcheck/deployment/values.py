"""Every value in between of one call: of a PyTorch module by its operations, of ONNX by its nodes."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from dataaudit.modelcheck.inputs import tensors
from dataaudit.registry import Rule

__all__ = ["Departure", "Step", "Values", "of_module", "of_onnx"]


@dataclass(frozen=True, kw_only=True)
class Step:
    """One operation of a model.

    Attributes:
        op: such as ``aten.convolution.default`` or ``Conv``.
        title: what a person knows it by.
        scope: name of the module that it belongs to.
        inputs: names of the values that it reads.
        outputs: names of those that it writes.
        settings: its attributes or plain arguments.
        raw: the node, or the operation's arguments.
    """

    op: str
    title: str
    scope: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    raw: Any = None


@dataclass(frozen=True, kw_only=True)
class Values:
    """The steps of a model in order, and the floating values that they wrote.

    Attributes:
        steps: in the order of execution.
        values: by name; weights aren't among them.
        weights: by name.
    """

    steps: tuple[Step, ...]
    values: Mapping[str, torch.Tensor]
    weights: Mapping[str, torch.Tensor]


_SAME = {
    torch.ops.aten.t.default,
    torch.ops.aten.transpose.int,
    torch.ops.aten.detach.default,
    torch.ops.aten.alias.default,
}


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes each operation, its scope, and a copy of what it wrote."""

    def __init__(self, weights: Mapping[int, str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: dict[tuple[int, int], str] = {}
        self.alive: list[torch.Tensor] = []
        self.weights, self.scopes = dict(weights), [""]
        self.steps: list[Step] = []
        self.values: dict[str, torch.Tensor] = {}

    def name(self, tensor: torch.Tensor) -> str:
        if id(tensor) in self.weights:
            return self.weights[id(tensor)]
        return self.names.get((id(tensor), tensor._version), "")

    def note(self, tensor: torch.Tensor) -> str:
        name = f"v{len(self.values)}"
        self.alive.append(tensor)  # its id stays its own
        self.names[id(tensor), tensor._version] = name
        self.values[name] = tensor.detach().clone()
        return name

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = [*tensors([args, kwargs])]
        inputs = tuple(filter(None, map(self.name, given)))
        out = func(*args, **(kwargs or {}))
        if given and isinstance(out, torch.Tensor) and func in _SAME and id(given[0]) in self.weights:
            # A weight that is only read the other way round keeps its name
            self.weights[id(out)] = self.weights[id(given[0])]
            self.alive.append(out)
            return out
        outputs = tuple(self.note(one) for one in tensors(out))
        settings = dict(zip((one.name for one in func._schema.arguments), args, strict=False))
        settings.update(kwargs or {})
        scope = self.scopes[-1]
        name = str(func)
        short = name.split(".")[1] if "." in name else name
        plain = {key: value for key, value in settings.items() if not any(True for _ in tensors(value))}
        held = {key: value for key, value in settings.items() if isinstance(value, torch.Tensor)}
        self.steps.append(
            Step(op=name, title=f"{short} in {scope}" if scope else short, scope=scope, inputs=inputs,
                 outputs=outputs, settings=plain, raw=held)
        )  # fmt: skip
        return out


def of_module(module: nn.Module, inputs: Sequence[torch.Tensor]) -> Values:
    """The operations of one call of a PyTorch module; within `kept`, which takes its hooks away."""
    weights = {id(one): name for name, one in (*module.named_parameters(), *module.named_buffers())}
    recorder = _Recorder(weights)
    handles = []

    def enter(name: str) -> Callable[..., None]:
        return lambda *_: recorder.scopes.append(name)

    for name, part in module.named_modules():
        if isinstance(part, torch.jit.ScriptModule):
            continue
        handles.append(part.register_forward_pre_hook(enter(name)))
        handles.append(part.register_forward_hook(lambda *_: (recorder.scopes.pop(), None)[1]))
    given = [one.clone() for one in inputs]
    for one in given:
        recorder.note(one)
    n_inputs = len(given)
    try:
        with torch.no_grad(), warnings.catch_warnings(), recorder:
            warnings.simplefilter("ignore")
            module(*given)
    finally:
        for handle in handles:
            handle.remove()
    named = {name: one.detach() for name, one in (*module.named_parameters(), *module.named_buffers())}
    values = {f"input{at}" if at < n_inputs else name: one
              for at, (name, one) in enumerate(recorder.values.items())}  # fmt: skip
    rename = {f"v{at}": f"input{at}" for at in range(n_inputs)}
    steps = tuple(
        Step(op=one.op, title=one.title, scope=one.scope, outputs=one.outputs, settings=one.settings,
             inputs=tuple(rename.get(name, name) for name in one.inputs), raw=one.raw)
        for one in recorder.steps
    )  # fmt: skip
    return Values(steps=steps, values=values, weights=named)


def of_onnx(path: Path, inputs: Sequence[torch.Tensor], *, optimised: bool = True) -> Values:
    """The nodes of an ONNX file with what each wrote.

    Args:
        path: the file.
        inputs: in order, in the types that it takes.
        optimised: with the runtime's graph optimisations, as far as values in between allow them.
    """
    import onnx
    import onnxruntime
    from onnx import numpy_helper

    from dataaudit.modelcheck.deployment import onnx_files

    model = onnx_files.read(path)
    graph = model.graph
    weights = {
        one.name: torch.as_tensor(numpy_helper.to_array(one).copy())
        for one in graph.initializer
        if one.data_type in (1, 10, 11)
    }
    known = {one.name for one in graph.output}
    names = [name for node in graph.node if node.op_type != "Constant" for name in node.output if name]
    graph.output.extend([onnx.ValueInfoProto(name=name) for name in names if name not in known])
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    if not optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    feed = {slot.name: one.numpy() for slot, one in zip(session.get_inputs(), inputs, strict=True)}
    wanted = [one.name for one in session.get_outputs()]
    values = {name: torch.as_tensor(one) for name, one in zip(wanted, session.run(wanted, feed), strict=True)
              if hasattr(one, "shape")}  # fmt: skip
    values |= {slot.name: one for slot, one in zip(session.get_inputs(), inputs, strict=True)}
    steps = tuple(
        Step(
            op=node.op_type, title=onnx_files.node_title(node), scope=onnx_files.scope_of(node),
            inputs=tuple(name for name in node.input if name), outputs=tuple(node.output),
            settings={each.name: onnx.helper.get_attribute_value(each) for each in node.attribute},
            raw=node,
        )
        for node in graph.node
    )  # fmt: skip
    return Values(steps=steps, values=values, weights=weights)


@dataclass(frozen=True, kw_only=True)
class Departure:
    """The first operation whose inputs agree and whose output doesn't.

    Attributes:
        title: of the node of the deployed model, or of the trained one's operation.
        sentence: what happens there, and the likely cause.
        advice: what to change.
        rule: what is wrong, where the cause says it; or None.
        evidence: figures.
    """

    title: str
    sentence: str
    advice: str
    rule: Rule | None = None
    evidence: Mapping[str, Any] = field(default_factory=dict)
