"""The calls of loss functions in a step, with what they were given and where it came from."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import CodeType, FrameType
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from dataaudit.modelcheck.watching import user_line

__all__ = ["Broadcast", "LossCall", "Origin", "origin_of", "recorded"]

_NAMES = (
    "cross_entropy",
    "nll_loss",
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "kl_div",
    "mse_loss",
    "l1_loss",
    "smooth_l1_loss",
    "huber_loss",
)
LOSSES: dict[Any, str] = {getattr(functional, name): name for name in _NAMES}
_BOX_LOSSES = ("generalized_box_iou_loss", "distance_box_iou_loss", "complete_box_iou_loss")
_ARITHMETIC = {"sub", "__sub__", "rsub", "__rsub__", "mul", "__mul__", "__rmul__", "add", "__add__", "div",
               "__truediv__", "pow", "eq", "__eq__", "subtract", "multiply"}  # fmt: skip
_PASSED = (
    "View", "UnsafeView", "ReshapeAlias", "Squeeze", "Unsqueeze", "Permute", "Transpose", "TBackward",
    "Slice", "Select", "Clone", "ToCopy", "AsStrided", "Index", "Clamp", "Expand", "Alias",
    "Log", "Add", "Mul", "Div", "Neg", "Sub", "Cat", "Contiguous", "Movedim", "Flatten",
)  # fmt: skip
_MOVED = ("Permute", "Transpose", "TBackward", "Movedim")
_ENDS = {
    "LogSoftmax": "log_softmax",
    "Softmax": "softmax",
    "Sigmoid": "sigmoid",
    "LogSigmoid": "log_sigmoid",
}
_LAST = ("Addmm", "Mm")


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where the input of a loss came from, by the graph of its computation.

    Attributes:
        known: whether there is a graph.
        activation: ``softmax``, ``log_softmax``, ``sigmoid``, ``log_sigmoid`` or None.
        dim: of the softmax, counted from the front, in the tensor that it was taken of.
        moved: whether axes were exchanged on the way to the loss.
        width: of the linear layer that it comes from, whose features are on the last axis, or None.
        exact: whether only changes of shape lie between the activation and the loss, no arithmetic.
    """

    known: bool
    activation: str | None = None
    dim: int | None = None
    moved: bool = False
    width: int | None = None
    exact: bool = True


@dataclass(frozen=True, kw_only=True)
class LossCall:
    """One call of a loss function.

    Attributes:
        name: such as ``cross_entropy``.
        input: the prediction that it was given.
        target: the target.
        options: the other arguments, such as ``reduction`` and ``ignore_index``.
        origin: where the input came from.
        target_grad: whether the target takes part in the gradient.
        line: ``file:line`` of the user's code, or None.
        error: what it raised, or None.
    """

    name: str
    input: torch.Tensor
    target: torch.Tensor
    options: Mapping[str, Any] = field(default_factory=dict)
    origin: Origin
    target_grad: bool = False
    line: str | None = None
    error: str | None = None


@dataclass(frozen=True, kw_only=True)
class Broadcast:
    """Two operands of the user's own arithmetic that were broadcast to a shape larger than both.

    Attributes:
        operation: its name.
        a, b, out: shapes.
        line: ``file:line`` of the user's code, or None.
    """

    operation: str
    a: tuple[int, ...]
    b: tuple[int, ...]
    out: tuple[int, ...]
    line: str | None


@dataclass
class Recording:
    """What happened in a step.

    Attributes:
        calls: of loss functions.
        broadcasts: of prediction against target.
    """

    calls: list[LossCall]
    broadcasts: list[Broadcast]


class _Recorder(TorchFunctionMode):
    def __init__(self, targets: set[int]) -> None:
        super().__init__()
        self.recording = Recording([], [])
        self._targets = targets
        self._alive: list[torch.Tensor] = []

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        name = LOSSES.get(func)
        if name is None:
            out = func(*args, **kwargs)
            self._follow(func, args, out)
            return out
        bound = inspect.signature(func).bind(*args, **kwargs)
        bound.apply_defaults()
        given = dict(bound.arguments)
        prediction, target = given.pop("input"), given.pop("target")
        error = None
        try:
            return func(*args, **kwargs)
        except Exception as raised:
            error = f"{type(raised).__name__}: {(str(raised).splitlines() or [''])[0]}"
            raise
        finally:
            if isinstance(prediction, torch.Tensor) and isinstance(target, torch.Tensor):
                self.recording.calls.append(
                    LossCall(
                        name=name, input=prediction.detach(), target=target.detach(), options=given,
                        origin=origin_of(prediction), target_grad=target.requires_grad, line=user_line(),
                        error=error,
                    )
                )  # fmt: skip

    def _follow(self, func: Any, args: tuple[Any, ...], out: Any) -> None:
        """Follow what is made of the targets, and note where it meets the prediction in another shape."""
        given = [one for one in args if isinstance(one, torch.Tensor)]
        if not given or not isinstance(out, torch.Tensor):
            return
        from_target = [one for one in given if id(one) in self._targets]
        if from_target and not any(one.requires_grad for one in given):
            self._targets.add(id(out))
            self._alive.append(out)
        name = getattr(func, "__name__", "")
        if name not in _ARITHMETIC or len(given) != 2 or not from_target:
            return
        other = given[0] if given[1] is from_target[0] else given[1]
        # What is compared with itself, as every sample with every other, is meant
        if not other.requires_grad or id(other) in self._targets:
            return
        if out.numel() > max(one.numel() for one in given) and other.ndim != from_target[0].ndim:
            self.recording.broadcasts.append(
                Broadcast(operation=name, a=tuple(given[0].shape), b=tuple(given[1].shape),
                          out=tuple(out.shape), line=user_line())
            )  # fmt: skip


@contextmanager
def recorded(targets: list[torch.Tensor]) -> Iterator[Recording]:
    """Record the loss functions that are called, also those of torchvision for boxes.

    Args:
        targets: the tensors that hold the targets.
    """
    recorder = _Recorder({id(one) for one in targets})
    with _box_losses(recorder.recording), recorder:
        yield recorder.recording


@contextmanager
def _box_losses(recording: Recording) -> Iterator[None]:
    """Note the boxes that torchvision's losses are given; PyTorch doesn't announce these functions."""
    codes = _codes()
    if not codes:
        yield
        return
    before = sys.getprofile()

    def profile(frame: FrameType, event: Any, argument: Any) -> None:
        if event == "call" and frame.f_code in codes:
            given = dict(frame.f_locals)
            one, other = given.get("boxes1"), given.get("boxes2")
            if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
                recording.calls.append(
                    LossCall(
                        name=codes[frame.f_code], input=one.detach(), target=other.detach(),
                        options={"reduction": given.get("reduction", "none")}, origin=origin_of(one),
                        line=user_line(),
                    )
                )  # fmt: skip
        if before is not None:
            before(frame, event, argument)

    sys.setprofile(profile)
    try:
        yield
    finally:
        sys.setprofile(before)


def _codes() -> dict[CodeType, str]:
    # Where the user hasn't imported torchvision there is nothing of it to be called
    ops = sys.modules.get("torchvision.ops")
    if ops is None:
        return {}
    functions: list[tuple[Callable[..., Any], str]] = [(getattr(ops, name), name) for name in _BOX_LOSSES]
    return {function.__code__: name for function, name in functions}


def origin_of(tensor: torch.Tensor) -> Origin:
    """Where a tensor came from: back through changes of shape and arithmetic, to an activation."""
    node: Any = tensor.grad_fn
    if node is None:
        return Origin(known=False)
    moved, log, exact = False, False, True
    for _ in range(30):
        name = type(node).__name__
        kind = next((each for each in _ENDS if name.startswith(f"{each}Backward")), None)
        if kind is not None:
            return _ended(node, kind, moved=moved, log=log, exact=exact)
        if name.startswith(_LAST):
            sizes = getattr(node, "_saved_mat2_sym_sizes", None)
            return Origin(known=True, width=int(sizes[1]) if sizes else None, moved=moved)
        if not name.startswith(_PASSED):
            return Origin(known=True, moved=moved)
        moved = moved or name.startswith(_MOVED)
        if name.startswith("LogBackward"):
            log = True
        elif name.startswith(("Mul", "Div", "Neg", "Sub", "Cat")):
            exact = False
        edges = [edge for edge, _ in node.next_functions if edge is not None]
        if name.startswith("Add") and len(edges) == 2:
            # The bias of a linear layer is a leaf of its own
            edges = [edge for edge in edges if type(edge).__name__ != "AccumulateGrad"]
        if len(edges) != 1:
            return Origin(known=True, moved=moved)
        node = edges[0]
    return Origin(known=True, moved=moved)


def _ended(node: Any, kind: str, *, moved: bool, log: bool, exact: bool) -> Origin:
    activation = _ENDS[kind]
    if log and activation in ("softmax", "sigmoid"):
        activation = f"log_{activation}"
    dim = getattr(node, "_saved_dim", None)
    if isinstance(dim, int):
        saved = getattr(node, "_saved_result", None)
        # Negative numbers are saved as unsigned ones
        dim = dim - 2**64 if dim > 2**63 else dim
        if dim < 0 and isinstance(saved, torch.Tensor):
            dim += saved.ndim
    return Origin(known=True, activation=activation, dim=dim, moved=moved, exact=exact)


def last_width(model: nn.Module) -> int | None:
    """How many classes the model tells apart, by its last linear or convolutional layer; None without one."""
    width = None
    for part in model.modules():
        if isinstance(part, nn.Linear):
            width = part.out_features
        elif isinstance(part, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
            width = part.out_channels
    return width
