"""What every layer puts out, in execution order, and the first that is bad."""

from __future__ import annotations

import math
import pdb
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from dataaudit.modelcheck.families import mod
from dataaudit.modelcheck.findings import finding, place_of
from dataaudit.modelcheck.inputs import Batch, Inputs, call, length, random_batch, tensors
from dataaudit.modelcheck.keeping import kept
from dataaudit.modelcheck.reporting import Table
from dataaudit.modelcheck.watching import is_scripted
from dataaudit.types import Finding

__all__ = ["CODES", "Layer", "Trace", "stop_at_first_bad", "trace"]

CODES = ("MOD010", "MOD011")
FADED = 1e-4
"""Difference between samples, as a share of the largest value, that is as good as none."""
TINY = 1e-2
"""A largest value below this counts as this."""


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One call of a module.

    Attributes:
        name: of the module in the model, such as ``layer1.0.bn2``; empty for the model itself.
        type: its class.
        depth: 0 for the model itself.
        inputs, outputs: shapes of the tensors that go in and come out.
        dtype, device: of the first tensor that comes out; empty where none does.
        mean, std: of all that come out, without NaN and infinity; None where no number does.
        zeros: share of zeros among them.
        bad: share of NaN and infinity among them.
        nan: whether there is NaN.
        bad_inputs: whether there are NaN or infinity among the inputs.
        constant: whether what comes out is exactly the same for every sample, though what goes in isn't
            (it differs by more than a ten-thousandth of its largest value); None where that can't be told.
        parameters: how many numbers the module itself holds, without those inside it; counted at its first
            call.
        bad_parameters: names of those that hold NaN or infinity.
        leaf: whether it holds no other module.
        call: 1 for the first call of the module, 2 for the second, and so on.
    """

    name: str
    type: str
    depth: int
    inputs: tuple[tuple[int, ...], ...]
    outputs: tuple[tuple[int, ...], ...]
    dtype: str
    device: str
    mean: float | None
    std: float | None
    zeros: float | None
    bad: float
    nan: bool
    bad_inputs: bool
    constant: bool | None
    parameters: int
    bad_parameters: tuple[str, ...]
    leaf: bool
    call: int


@dataclass(frozen=True, kw_only=True)
class Trace:
    """The layers of one forward pass.

    Attributes:
        layers: in the order in which the calls begin, so that a module stands above what is inside it.
        order: indices of `layers` in the order in which the calls end.
        unused: names of modules with parameters that weren't called; a module around them may use their
            weights by itself, as attention does.
        findings: what is bad.
        error: what the forward pass raised, or None; the layers are those until then.
    """

    layers: tuple[Layer, ...]
    order: tuple[int, ...]
    unused: tuple[str, ...]
    findings: tuple[Finding, ...]
    error: str | None = None

    def table(self, *, leaves: bool = True) -> Table:
        """The layers as a table for a report; only those without others inside where `leaves` is true."""
        shown = [
            (at, layer) for at, layer in enumerate(self.layers) if layer.leaf or not leaves or not layer.depth
        ]
        about = {item.item_id for item in self.findings}
        rows = tuple(_cells(layer) for _, layer in shown)
        marked = frozenset(
            at for at, (_, layer) in enumerate(shown) if layer.bad or (layer.name or layer.type) in about
        )
        note = f"Not called: {', '.join(self.unused[:8])}." if self.unused else ""
        if self.error:
            note = f"The forward pass stopped there: {self.error} {note}".rstrip()
        return Table(
            title="Layers in execution order", rows=rows, marked=marked, note=note,
            columns=("layer", "type", "in", "out", "dtype", "mean", "std", "zeros", "NaN/inf", "parameters"),
        )  # fmt: skip

    def __str__(self) -> str:
        lines = [
            f"{'  ' * layer.depth}{layer.name or layer.type}: {' '.join(map(_shape, layer.outputs))} "
            f"mean {layer.mean} std {layer.std}"
            for layer in self.layers
        ]
        return "\n".join(lines)


def _shape(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) if shape else "()"


def _cells(layer: Layer) -> tuple[Any, ...]:
    def shapes(all_of_them: tuple[tuple[int, ...], ...]) -> str:
        return ", ".join(map(_shape, all_of_them[:2])) + (" ..." if len(all_of_them) > 2 else "")

    again = f" (call {layer.call})" if layer.call > 1 else ""
    return (
        (layer.name or "(model)") + again, layer.type, shapes(layer.inputs), shapes(layer.outputs),
        f"{layer.dtype}{'' if layer.device in ('cpu', '') else ' ' + layer.device}",
        layer.mean, layer.std, None if layer.zeros is None else f"{layer.zeros:.0%}",
        f"{layer.bad:.1%}" if layer.bad else "", layer.parameters or None,
    )  # fmt: skip


def trace(model: nn.Module, inputs: Inputs | Batch | None = None, *, train: bool = False) -> Trace:
    """Run a model once and note what each layer puts out.

    Args:
        model: the model; it is as before afterwards.
        inputs: what it is called with (see `dataaudit.modelcheck.inputs`), or a `Batch`; random numbers of a
            shape that it takes when left out.
        train: call it in train mode instead of eval mode.

    Returns:
        The layers, and findings MOD010 and MOD011.

    Raises:
        InputError: no input shape can be found.

    >>> trace(nn.Sequential(nn.Linear(2, 3), nn.ReLU()), torch.ones(1, 2)).layers[1].outputs
    ((1, 3),)
    """
    given = _inputs(model, inputs)
    if is_scripted(model):
        model = _Whole(model)
    watcher = _Watcher(model, length(given))
    error = None
    with kept(model, given, eager=True), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.train(train)
        watcher.attach()
        try:
            call(model, given)
        except Exception as raised:
            error = f"{type(raised).__name__}: {(str(raised).splitlines() or [''])[0]}"
    layers, order = watcher.ordered()
    called = {layer.name for layer in layers}
    unused = tuple(
        name for name, part in model.named_modules()
        if name not in called and any(True for _ in part.parameters(recurse=False))
    )  # fmt: skip
    found = _findings(model, [layers[at] for at in order], length(given))
    return Trace(layers=layers, order=order, unused=unused, findings=tuple(found), error=error)


def _inputs(model: nn.Module, inputs: Inputs | Batch | None) -> Inputs:
    if isinstance(inputs, Batch):
        return inputs.inputs
    return random_batch(model).inputs if inputs is None else inputs


class _Whole(nn.Module):
    """A model that takes no hooks, as one layer."""

    def __init__(self, scripted: nn.Module) -> None:
        super().__init__()
        self.scripted = scripted

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.scripted(*args, **kwargs)


class _Watcher:
    """Notes each call of a module in hooks."""

    def __init__(self, model: nn.Module, n: int) -> None:
        self._names = {module: name for name, module in model.named_modules()}
        self._n = n
        self._stack: list[tuple[int, tuple[tuple[int, ...], ...], bool, bool]] = []
        self._began = 0
        self._done: list[tuple[int, Layer]] = []
        self._times: dict[str, int] = {}

    def attach(self) -> None:
        for module in self._names:
            if is_scripted(module) or (isinstance(module, torch.jit.ScriptModule) and self._names[module]):
                continue
            module.register_forward_pre_hook(self._before, with_kwargs=True)
            module.register_forward_hook(self._after, with_kwargs=True)

    def ordered(self) -> tuple[tuple[Layer, ...], tuple[int, ...]]:
        """The layers in the order in which they began, and the indices in which they ended."""
        began = sorted(at for at, _ in self._done)
        place = {at: index for index, at in enumerate(began)}
        by_start = sorted(self._done, key=lambda one: one[0])
        return tuple(layer for _, layer in by_start), tuple(place[at] for at, _ in self._done)

    def _before(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        given = list(tensors([args, kwargs]))
        bad = any(_n_bad(one) for one in given)
        differ = any((_spread(one, self._n) or 0.0) > FADED for one in given)
        self._stack.append((self._began, tuple(tuple(one.shape) for one in given), bad, differ))
        self._began += 1

    def _after(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        began, shapes, bad, differ = self._stack.pop()
        name = self._names[module]
        self._times[name] = self._times.get(name, 0) + 1
        layer = _layer(module, name, len(self._stack), list(tensors(output)), self._n, self._times[name],
                       shapes, bad, differ)  # fmt: skip
        self._done.append((began, layer))


def _layer(
    module: nn.Module, name: str, depth: int, out: list[torch.Tensor], n: int, times: int,
    shapes: tuple[tuple[int, ...], ...], bad_inputs: bool, differ: bool,
) -> Layer:  # fmt: skip
    own = list(module.named_parameters(recurse=False)) + list(module.named_buffers(recurse=False))
    size = sum(one.numel() for one in module.parameters(recurse=False)) if times == 1 else 0
    mean, std, zeros, bad = _numbers(out)
    spreads = [_spread(one, n) for one in out]
    known = differ and bool(spreads) and None not in spreads
    constant = all(one == 0 for one in spreads) or _normalises_one(module, shapes) if known else None
    return Layer(
        name=name, type=type(module).__name__, depth=depth, inputs=shapes,
        outputs=tuple(tuple(one.shape) for one in out),
        dtype=str(out[0].dtype).removeprefix("torch.") if out else "",
        device=str(out[0].device) if out else "", nan=any(_has_nan(one) for one in out),
        mean=mean, std=std, zeros=zeros, bad=bad, bad_inputs=bad_inputs, constant=constant, parameters=size,
        bad_parameters=tuple(each for each, value in own if _n_bad(value)),
        leaf=not any(True for _ in module.children()), call=times,
    )  # fmt: skip


def _normalises_one(module: nn.Module, inputs: tuple[tuple[int, ...], ...]) -> bool:
    """Whether a norm takes each value by itself, so that nothing but rounding is left of it."""
    if isinstance(module, nn.LayerNorm):
        return math.prod(module.normalized_shape) == 1
    if isinstance(module, nn.GroupNorm) and inputs:
        return math.prod(inputs[0][1:]) == module.num_groups
    return False


def _numbers(out: list[torch.Tensor]) -> tuple[float | None, float | None, float | None, float]:
    """Mean, deviation, share of zeros and of NaN and infinity over all numbers."""
    flat = [one.detach().reshape(-1) for one in out if one.numel() and not one.is_complex()]
    flat = [one if one.is_floating_point() else one.to(torch.float32) for one in flat]
    if not flat:
        return None, None, None, 0.0
    values = torch.cat([one.float() if one.dtype is not torch.float64 else one for one in flat])
    finite = values[values.isfinite()] if not bool(values.isfinite().all()) else values
    n = values.numel()
    mean = float(finite.double().mean()) if finite.numel() else None
    std = float(finite.double().std(unbiased=False)) if finite.numel() else None
    return mean, std, float((values == 0).sum()) / n, (n - finite.numel()) / n


def _n_bad(tensor: torch.Tensor) -> int:
    if not tensor.is_floating_point() or not tensor.numel() or tensor.layout is not torch.strided:
        return 0
    return int((~tensor.detach().isfinite()).sum())


def _has_nan(tensor: torch.Tensor) -> bool:
    return tensor.is_floating_point() and bool(tensor.isnan().any())


def _spread(tensor: torch.Tensor, n: int) -> float | None:
    """Largest difference between samples, as a share of the largest value.

    None where there is one sample, no such dimension, or NaN or infinity.
    """
    if n < 2 or not tensor.ndim or tensor.shape[0] != n or not tensor.numel() or tensor.is_complex():
        return None
    values = tensor.detach().reshape(n, -1).double()
    if not bool(values.isfinite().all()):
        return None
    # What is tiny is lost beside the bias of the next layer
    top = max(float(values.abs().max()), TINY)
    return float((values - values[:1]).abs().max()) / top


def _findings(model: nn.Module, ended: Sequence[Layer], n: int) -> list[Finding]:
    modules = dict(model.named_modules())
    first = _first_bad(ended)
    if first is not None:
        return [_nonfinite(modules[first.name], first)]
    alone = [
        layer for layer in ended if layer.constant and _normalises_one(modules[layer.name], layer.inputs)
    ]
    if alone:
        return [_norm_of_one(alone[0])]
    last = ended[-1] if ended and not ended[-1].depth else None
    if last is None or not last.constant:
        return []
    # What a layer deep inside puts out alone may be constant, such as a table of positions: what counts is
    # the first after which it stays so
    stays = _stays_constant(ended)
    if stays[0] is last and not last.leaf and not _varies(ended):
        return []  # the signal fades from layer to layer, as in deep networks before training
    name = stays[0].name or stays[0].type
    what = f"The model's output is the same for {n} different samples, first that of {name} ({stays[0].type})"
    dead = stays[0].zeros == 1.0
    what += ", whose output is all zeros." if dead else f", with mean {stays[0].mean:.3g}."
    where = modules[stays[0].name]
    weights = [one for one in where.parameters(recurse=False) if one.ndim > 1]
    empty = bool(weights) and all(not bool(one.any()) for one in weights)
    leaves = [layer for layer in ended if layer.leaf]
    if empty and stays[0] is leaves[-1]:
        return []  # many models start with a head of zeros
    if empty:
        advice = "Its weights are all 0: initialise them, or load them."
    elif dead:
        advice = "No gradient comes through it: a smaller learning rate, a new start, or a leaky ReLU."
    else:
        advice = (
            "Compare its inputs' scale with its weights' in the table, and look for a saturated activation."
        )
    return [
        finding(
            mod.CONSTANT_OUTPUT,
            name,
            what,
            advice=advice,
            evidence={"type": stays[0].type, "mean": stays[0].mean},
        )
    ]


def _stays_constant(ended: Sequence[Layer]) -> list[Layer]:
    """The constant layers after the last that tells the samples apart, in order."""
    after = next((at for at in reversed(range(len(ended))) if ended[at].constant is False), -1)
    return [layer for layer in ended[after + 1 :] if layer.constant]


def _norm_of_one(layer: Layer) -> Finding:
    name = layer.name or layer.type
    what = f"{name} ({layer.type}) puts out the same for every sample: it normalises over one value, which"
    return finding(
        mod.CONSTANT_OUTPUT,
        name,
        f"{what} leaves nothing.",
        advice="Fewer groups, or no norm there.",
        evidence={"type": layer.type, "input": layer.inputs[0] if layer.inputs else None},
    )


def _varies(ended: Sequence[Layer]) -> bool:
    """Whether the last layer inside the model still tells the samples apart."""
    inner = [layer for layer in ended if layer.depth]
    return bool(inner) and inner[-1].constant is False


def _first_bad(ended: Sequence[Layer]) -> Layer | None:
    """The innermost call that puts out NaN or infinity without having been given any."""
    # Infinity that doesn't reach the output may be meant, as where attention is masked
    reaches = not ended or ended[-1].depth > 0 or ended[-1].bad > 0
    bad = [layer for layer in ended if layer.nan or (layer.bad and reaches)]
    return next((layer for layer in bad if not layer.bad_inputs), bad[0] if bad else None)


def _nonfinite(module: nn.Module, layer: Layer) -> Finding:
    name = layer.name or layer.type
    what = f"{name} ({layer.type}) is the first layer that puts out NaN or infinity, {layer.bad:.1%} of it."
    if layer.bad_parameters:
        what += f" Its {' and '.join(layer.bad_parameters)} hold NaN or infinity."
        advice = "Go back to a checkpoint before the loss was NaN; then look for what broke the gradients."
    elif layer.bad_inputs:
        what += " The model's input holds some already."
        advice = "Look at the data and its preprocessing: a division by 0, or a missing value."
    elif "16" in layer.dtype:
        advice = f"It computes in {layer.dtype}: keep this layer in float32, or scale its inputs down."
    else:
        advice = "Look for a division, logarithm or root of 0 in its forward; --pdb stops there."
    own = type(module).__module__.split(".")[0] not in ("torch", "torchvision", "timm")
    evidence = {"type": layer.type, "share": layer.bad, "weights": layer.bad_parameters, "dtype": layer.dtype}
    return finding(mod.NONFINITE_ACTIVATION, name, what, advice=advice, evidence=evidence,
                   source=place_of(module) if own else None)  # fmt: skip


def stop_at_first_bad(model: nn.Module, inputs: Inputs | Batch | None = None, *, train: bool = False) -> bool:
    """Stop in the debugger inside the ``forward`` of the first layer that puts out NaN or infinity.

    The layer is called again with the same input, and the debugger stops at the first line of its
    ``forward``; the model is as before afterwards.

    Args:
        model, inputs, train: as for `trace`.

    Returns:
        Whether there is such a layer.
    """
    given = _inputs(model, inputs)
    found = trace(model, given, train=train)
    first = _first_bad([found.layers[at] for at in found.order])
    if first is None:
        return False
    module = model.get_submodule(first.name)
    forward = module.forward
    count = 0

    def stopped(*args: Any, **kwargs: Any) -> Any:
        nonlocal count
        count += 1
        if count != first.call:
            return forward(*args, **kwargs)
        return pdb.runcall(forward, *args, **kwargs)

    with kept(model, given, eager=True), torch.no_grad():
        model.train(train)
        module.forward = stopped
        call(model, given)
    return True
