"""What happens in a forward pass: every call of a module, and every operation with its line of code."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from dataaudit.modelcheck.findings import shown
from dataaudit.modelcheck.inputs import tensors

__all__ = ["Call", "Operation", "calls", "is_scripted", "operations", "same", "user_line"]

_LIBRARIES = ("torch", "torchvision", "timm", "pytorch_lightning", "lightning", "numpy", "dataaudit")


@dataclass(frozen=True, kw_only=True, eq=False)
class Call:
    """One call of a module, in the order in which the calls end: what is inside comes before what is around.

    Attributes:
        name: of the module in the model, such as ``layer1.0.bn2``; empty for the model itself.
        module: it.
        inputs: tensors that it was given, copied before it ran.
        outputs: tensors that it returned, copied.
        depth: of the call: 0 for the model itself.
        began: number of the call in the order in which the calls begin.
    """

    name: str
    module: nn.Module
    inputs: tuple[torch.Tensor, ...]
    outputs: tuple[torch.Tensor, ...]
    depth: int
    began: int

    @property
    def title(self) -> str:
        """``layer1.0.bn2 (BatchNorm2d)``."""
        kind = type(self.module).__name__
        return f"{self.name} ({kind})" if self.name else f"{kind}.forward"


@contextmanager
def calls(
    model: nn.Module,
    *,
    keep: Callable[[torch.Tensor], torch.Tensor] = lambda tensor: tensor.detach().clone(),
) -> Iterator[list[Call]]:
    """Record every call of a module of `model`; within `kept`, which takes the hooks away again.

    Args:
        model: what is watched.
        keep: what is kept of each tensor; a copy when left out.

    Yields:
        The calls so far, in the order in which they end.
    """
    done: list[Call] = []
    stack: list[tuple[tuple[torch.Tensor, ...], int]] = []
    handles = []
    count = 0

    def before(module: nn.Module, args: Any, kwargs: Any) -> None:
        nonlocal count
        stack.append((tuple(keep(one) for one in tensors([args, kwargs])), count))
        count += 1

    def after(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        inputs, began = stack.pop()
        outputs = tuple(keep(one) for one in tensors(output))
        done.append(
            Call(name=names[module], module=module, inputs=inputs, outputs=outputs, depth=len(stack),
                 began=began)
        )  # fmt: skip

    names = {module: name for name, module in model.named_modules()}
    for module in names:
        if is_scripted(module) or (isinstance(module, torch.jit.ScriptModule) and module is not model):
            continue
        handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
        handles.append(module.register_forward_hook(after, with_kwargs=True))
    try:
        yield done
    finally:
        for handle in handles:
            handle.remove()


def is_scripted(module: nn.Module) -> bool:
    """Whether it is of ``torch.jit.script`` or was loaded: those take no hooks."""
    return type(module).__name__ == "RecursiveScriptModule"


def same(a: tuple[torch.Tensor, ...], b: tuple[torch.Tensor, ...]) -> bool:
    """Whether tensors are equal bit by bit, NaN to NaN."""
    return len(a) == len(b) and all(
        one.shape == other.shape and one.dtype == other.dtype and _equal(one, other)
        for one, other in zip(a, b, strict=True)
    )


def _equal(a: torch.Tensor, b: torch.Tensor) -> bool:
    if torch.equal(a, b):
        return True
    if not (a.is_floating_point() or a.is_complex()):
        return False
    return bool(((a == b) | (a.isnan() & b.isnan())).all())


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One operation of PyTorch.

    Attributes:
        name: such as ``aten.bernoulli_.float``.
        inputs: digest of the tensors that it was given.
        outputs: digest of those that it returned.
        line: ``file:line`` of the innermost code that isn't a library's, or None.
        tensors: what it returned, where that is kept.
    """

    name: str
    inputs: str
    outputs: str
    line: str | None
    tensors: tuple[torch.Tensor, ...] = ()


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self, keep: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.done: list[Operation] = []
        self._keep = keep

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        inputs = _digest([args, kwargs])
        out = func(*args, **(kwargs or {}))
        line = user_line()
        copies = tuple(one.detach().clone() for one in tensors(out)) if self._keep else ()
        self.done.append(
            Operation(name=str(func), inputs=inputs, outputs=_digest(out), line=line, tensors=copies)
        )
        return out


@contextmanager
def operations(*, keep: bool = False) -> Iterator[list[Operation]]:
    """Record every operation, with digests of what goes in and comes out.

    Args:
        keep: keep copies of what comes out.
    """
    recorder = _Recorder(keep)
    with recorder:
        yield recorder.done


def _digest(value: Any) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for one in tensors(value):
        digest.update(str((tuple(one.shape), one.dtype)).encode())
        if one.layout is torch.strided and one.device.type != "meta":
            plain = one.detach().cpu().contiguous()
            digest.update(plain.reshape(-1).view(torch.uint8).numpy().data if plain.numel() else b"")
    return digest.hexdigest()


def user_line(depth: int = 1) -> str | None:
    """``file:line`` of the innermost frame below the check that isn't of a library, or None."""
    frame = sys._getframe(depth)
    outside = False
    while frame is not None:
        package = str(frame.f_globals.get("__name__", "")).split(".")[0]
        file = frame.f_code.co_filename
        if package == "dataaudit" and outside:
            return None
        outside = outside or package != "dataaudit"
        if package not in _LIBRARIES and not file.startswith("<") and not _is_library(file):
            return f"{shown(file)}:{frame.f_lineno}"
        if frame.f_back is None:
            return None
        frame = frame.f_back
    return None


def _is_library(file: str) -> bool:
    return "site-packages" in file or file.startswith(str(Path(contextmanager.__code__.co_filename).parent))
