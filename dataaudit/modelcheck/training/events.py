"""What a forward pass does that a gradient cares about: cuts, activations, and where gradients are off."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from dataaudit.modelcheck.inputs import tensors
from dataaudit.modelcheck.watching import user_line

__all__ = ["Activation", "Cut", "Events", "watched"]

CUTS = {
    "detach", "detach_", "argmax", "argmin", "item", "tolist", "numpy", "round", "floor", "ceil", "trunc",
    "sign", "heaviside", "bincount", "one_hot", "__float__", "__int__", "__array__", "int", "long", "bool",
    "gt", "lt", "ge", "le", "eq", "__gt__", "__lt__", "__ge__", "__le__", "histc", "requires_grad_", "round_",
    "bernoulli", "multinomial", "new_tensor", "floor_divide", "__floordiv__", "data", "max_unpool2d", "sgn",
}  # fmt: skip
RANGES: Mapping[str, tuple[float, float] | None] = {
    "relu": None, "relu_": None, "relu6": None, "hardtanh": None, "threshold": None, "sigmoid": (0.0, 1.0),
    "sigmoid_": (0.0, 1.0), "tanh": (-1.0, 1.0), "tanh_": (-1.0, 1.0), "hardsigmoid": (0.0, 1.0),
    "softmax": (0.0, 1.0),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Cut:
    """A function that lets no gradient through.

    Attributes:
        name: of the function, such as ``detach``.
        line: ``file:line`` in the user's code, or None.
        module: of the model that called it, by name; None outside of the model.
        at: its place in the order of everything that happened.
    """

    name: str
    line: str | None
    module: str | None
    at: int


@dataclass(frozen=True, kw_only=True)
class Activation:
    """What an activation put out.

    Attributes:
        name: of the function.
        module: of the model that called it.
        dead: share of its values at which its slope is zero or nearly so.
        at: its place in the order of everything that happened.
        last: whether its output is what the model returns.
    """

    name: str
    module: str
    dead: float
    at: int
    last: bool = False


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What the first layer with weights is given.

    Attributes:
        module: its name.
        low, high, mean, deviation: of the values; `spread` is the largest deviation of a channel.
        raw: whether it is the batch itself, that nothing in the model has changed.
        image: whether it has the shape of images.
    """

    module: str
    low: float
    high: float
    mean: float
    deviation: float
    spread: float
    raw: bool
    image: bool


@dataclass
class Events:
    """What happened in a forward pass, in order.

    Attributes:
        cuts, activations: see there.
        dropouts: rate and module of each dropout in train mode.
        entry: what the first layer is given; None where that layer normalises or takes no numbers.
        ends: place at which the last call of each module ended, by its name.
        without_gradient: modules with weights to learn that were called while gradients were off.
        severed: modules with weights to learn whose output has no gradient although gradients were on.
    """

    cuts: list[Cut] = field(default_factory=list)
    activations: list[Activation] = field(default_factory=list)
    ends: dict[str, int] = field(default_factory=dict)
    without_gradient: list[str] = field(default_factory=list)
    severed: list[str] = field(default_factory=list)
    dropouts: list[tuple[float, str]] = field(default_factory=list)
    entry: Entry | None = None
    count: int = 0


_WEIGHTED = (nn.Linear, nn.modules.conv._ConvNd)


class _Watch(TorchFunctionMode):
    def __init__(self, events: Events, stack: list[str]) -> None:
        super().__init__()
        self.events, self.stack = events, stack
        self.tracked: dict[int, torch.Tensor] = {}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        events = self.events
        events.count += 1
        if name == "__get__":
            name = getattr(getattr(func, "__self__", None), "__name__", "")
        if name in CUTS and self._loses(args, out):
            module = self.stack[-1] if self.stack else None
            events.cuts.append(Cut(name=name, line=user_line(), module=module, at=events.count))
        elif name in RANGES and isinstance(out, torch.Tensor) and out.is_floating_point():
            module = self.stack[-1] if self.stack else ""
            events.activations.append(
                Activation(name=name.strip("_"), module=module, dead=_dead(name, out), at=events.count,
                           last=False)
            )  # fmt: skip
            self.tracked[len(events.activations) - 1] = out
        elif name.endswith("dropout") or name in ("dropout1d", "dropout2d", "dropout3d"):
            rate, training = _dropout(args, kwargs or {})
            if training and rate > 0:
                events.dropouts.append((rate, self.stack[-1] if self.stack else ""))
        return out

    def _loses(self, args: Any, out: Any) -> bool:
        if not any(one.requires_grad for one in tensors(list(args))):
            return False
        found = list(tensors(out))
        zero = {"round", "floor", "ceil", "trunc", "sign", "sgn", "round_", "bernoulli", "heaviside"}
        return not found or not any(one.requires_grad for one in found) or not zero.isdisjoint({_name(out)})


def _dropout(args: Any, kwargs: Mapping[str, Any]) -> tuple[float, bool]:
    """Rate and training flag of a call of ``F.dropout`` or its kin."""
    rate = kwargs.get("p", args[1] if len(args) > 1 else 0.5)
    training = kwargs.get("training", args[2] if len(args) > 2 else True)
    return (float(rate), bool(training)) if isinstance(rate, (int, float)) else (0.0, False)


def _entry(name: str, given: torch.Tensor, raw: bool) -> Entry:
    value = given.detach().float()
    axes = [axis for axis in range(value.ndim) if axis != 1]
    deviation = value.std() if value.numel() > 1 else torch.zeros(())
    return Entry(
        module=name, low=float(value.min()), high=float(value.max()), mean=float(value.mean()),
        deviation=float(deviation), raw=raw, image=value.ndim == 4 and value.shape[1] in (1, 3, 4),
        spread=float(value.std(axes).max()) if value.ndim > 1 and len(value) > 1 else float(deviation),
    )  # fmt: skip


def _name(out: Any) -> str:
    """Name of the operation that made a tensor: ``RoundBackward0`` is ``round``."""
    made = type(getattr(out, "grad_fn", None)).__name__
    return made.removesuffix("Backward0").lower()


def _dead(name: str, out: torch.Tensor) -> float:
    value = out.detach()
    if not value.numel():
        return 0.0
    ends = RANGES[name]
    if name == "softmax":
        return float((value.amax(-1) > 1 - 1e-6).float().mean())
    if ends is None:
        return float((value == 0).float().mean())
    low, high = ends
    return float(((value - low < 1e-3) | (high - value < 1e-3)).float().mean())


@contextmanager
def watched(model: nn.Module, inputs: Any = None) -> Iterator[Events]:
    """Record what happens in the forward passes inside; within `kept`, which takes the hooks away again.

    Args:
        model: what is watched.
        inputs: the batch, by which what reaches the first layer is compared.
    """
    events, stack = Events(), []
    names = {module: name for name, module in model.named_modules()}
    own = {module: any(one.requires_grad for one in module.parameters(recurse=False)) for module in names}

    given = {one.untyped_storage().data_ptr() for one in tensors(inputs)}
    entered: list[bool] = []

    def before(module: nn.Module, args: Any) -> None:
        stack.append(names[module])
        if own[module] and not entered:
            entered.append(True)
            first = next((one for one in tensors(args) if one.is_floating_point() and one.numel()), None)
            if first is not None and isinstance(module, _WEIGHTED):
                events.entry = _entry(names[module], first, first.untyped_storage().data_ptr() in given)
        if own[module] and not torch.is_grad_enabled():
            events.without_gradient.append(names[module])

    watch = _Watch(events, stack)

    def after(module: nn.Module, _args: Any, output: Any) -> None:
        if stack:
            stack.pop()
        events.ends[names[module]] = events.count
        parts = [one for one in tensors(output) if one.is_floating_point()]
        if own[module] and parts and torch.is_grad_enabled() and not any(one.requires_grad for one in parts):
            events.severed.append(names[module])
        if module is model:
            _mark_last(events, watch.tracked, parts)

    handles = []
    for module in names:
        if not isinstance(module, torch.jit.ScriptModule):
            handles.append(module.register_forward_pre_hook(before))
            handles.append(module.register_forward_hook(after))
    try:
        with watch:
            yield events
    finally:
        for handle in handles:
            handle.remove()


def _mark_last(events: Events, tracked: Mapping[int, torch.Tensor], parts: list[torch.Tensor]) -> None:
    from dataclasses import replace

    for at, out in tracked.items():
        if any(out is part for part in parts):
            events.activations[at] = replace(events.activations[at], last=True)
