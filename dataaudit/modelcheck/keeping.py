"""Nothing that a check does is left behind: state is noted before, and put back bit by bit after."""

from __future__ import annotations

import random
import sys
import types
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.optimizer import Optimizer

from dataaudit.errors import InputError

__all__ = ["Kept", "kept", "set_deterministic"]

Undo = Callable[[], None]

_LEAVES = (
    type, types.FunctionType, types.BuiltinFunctionType, types.ModuleType, types.GeneratorType,
    str, bytes, int, float, complex, bool, type(None), torch.dtype, torch.device, weakref.ref,
)  # fmt: skip
_LIBRARIES = {"torch", "torchvision", "timm", "numpy", "builtins", "collections", "pytorch_lightning",
              "lightning", "torchmetrics", "threading", "logging"}  # fmt: skip


@contextmanager
def kept(*roots: Any, eager: bool = False) -> Iterator[Kept]:
    """Leave everything as it was, also after an exception.

    What is put back, bit by bit: the values, ``requires_grad``, gradients (or that there is none) and hooks
    of every tensor that the roots hold; their attributes, lists, dicts and sets, and so train mode, module
    hooks, the optimizer's state and groups, and counters of the user's own; the random numbers of Python,
    NumPy and PyTorch; and PyTorch's settings (gradients, autocast, default dtype, cuDNN, threads,
    determinism).
    Objects keep their identity: a Parameter is the same Parameter.

    Args:
        *roots: models, optimizers, schedulers, scalers, tensors, lists or dicts of them; None is passed over.
            A `Kept` of an earlier moment is put back last of all.
        eager: whether what ``torch.compile`` made runs uncompiled meanwhile. Compiled code calls no hook of
            the modules in it, and each change of mode or hooks has it compiled anew, which takes minutes.

    Yields:
        A `Kept` whose `restore` puts everything back in between.

    Raises:
        InputError: a lazy layer that has no weights yet, as its first call can't be taken back.

    >>> layer = nn.Linear(2, 2)
    >>> with kept(layer):
    ...     _ = layer.eval().weight.data.zero_()
    >>> layer.training, bool(layer.weight.any())
    (True, True)
    """
    earlier = [root for root in roots if isinstance(root, Kept)]
    try:
        state = Kept(*(root for root in roots if not isinstance(root, Kept)))
        try:
            with _uncompiled() if eager else nullcontext():
                yield state
        finally:
            state.restore()
    finally:
        for each in earlier:
            each.restore()


def _uncompiled() -> AbstractContextManager[Any]:
    # Nothing is compiled where Dynamo wasn't loaded, and loading it takes seconds
    if "torch._dynamo" not in sys.modules or not hasattr(torch.compiler, "set_stance"):
        return nullcontext()
    stance: AbstractContextManager[Any] = torch.compiler.set_stance("force_eager")
    return stance


class Kept:
    """The state of some objects and of PyTorch at one moment.

    Args:
        *roots: see `kept`.
    """

    def __init__(self, *roots: Any) -> None:
        self._undo: list[Undo] = []
        self._views: list[Undo] = []
        self._tensors: list[Undo] = []
        self._seen: dict[int, Any] = {}
        self._storages: set[int] = set()
        self._own = _own_packages(roots)
        self._settings = _Settings()
        pending: list[Any] = [root for root in roots if root is not None]
        pending += _global_hooks()
        roots_ids = {id(root) for root in roots}
        while pending:
            thing = pending.pop()
            if isinstance(thing, _LEAVES) or id(thing) in self._seen:
                continue
            self._seen[id(thing)] = thing
            pending += self._note(thing, id(thing) in roots_ids)

    def restore(self) -> None:
        """Put everything back as it was when this was made."""
        try:
            with torch.inference_mode(False), torch.no_grad():
                # Types and shapes first: a gradient has to fit its parameter
                for undo in (*self._views, *self._undo, *self._tensors):
                    undo()
        finally:
            self._settings.restore()

    def _note(self, thing: Any, is_root: bool) -> list[Any]:
        """Note how to put `thing` back; returns what it holds."""
        if isinstance(thing, torch.Tensor):
            return self._tensor(thing)
        if isinstance(thing, dict):
            return self._dict(thing)
        if isinstance(thing, (list, set, deque, bytearray)):
            return self._items(thing)
        if isinstance(thing, (tuple, frozenset)):
            return list(thing)
        if isinstance(thing, types.MethodType):
            return []
        if isinstance(thing, np.ndarray):
            copy = thing.copy()
            if thing.flags.writeable:
                self._undo.append(lambda: np.copyto(thing, copy))
            return []
        if isinstance(thing, torch.jit.ScriptModule):
            return self._script(thing)
        if self._generator(thing):
            return []
        whole = isinstance(thing, (nn.Module, Optimizer, LRScheduler, torch.amp.GradScaler))
        held = getattr(thing, "__dict__", None)
        if isinstance(held, dict) and (whole or is_root or type(thing).__module__.split(".")[0] in self._own):
            return [held]
        return []

    def _tensor(self, tensor: torch.Tensor) -> list[Any]:
        if isinstance(tensor, (nn.parameter.UninitializedParameter, nn.parameter.UninitializedBuffer)):
            raise InputError(
                "The model has a lazy layer that has no weights yet.",
                fix="Call the model once on a batch before it is checked.",
            )
        grad, requires, leaf = tensor.grad if tensor.is_leaf else None, tensor.requires_grad, tensor.is_leaf
        held = tensor.detach()
        if tensor.layout is torch.strided and tensor.device.type != "meta":
            self._storage(tensor)
        hooks = [(name, getattr(tensor, name, None)) for name in _TENSOR_HOOKS] if leaf else []
        copies = [(name, found, None if found is None else dict(found)) for name, found in hooks]

        def view() -> None:
            if not _same_view(tensor, held):
                if tensor.grad is not None and tensor.is_leaf:
                    tensor.grad = None
                tensor.data = held

        def undo() -> None:
            if not leaf:
                return
            if tensor.requires_grad is not requires:
                tensor.requires_grad_(requires)
            if tensor.grad is not grad:
                tensor.grad = grad
            for name, found, copy in copies:
                if found is not None and copy is not None:
                    found.clear()
                    found.update(copy)
                if getattr(tensor, name, None) is not found:
                    setattr(tensor, name, found)

        self._views.append(view)
        self._undo.append(undo)
        extra = getattr(tensor, "__dict__", None)
        return [one for one in (grad, extra) if one is not None]

    def _storage(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage.data_ptr() in self._storages or not storage.nbytes():
            return
        self._storages.add(storage.data_ptr())
        clone: Callable[[], torch.UntypedStorage] = storage.clone
        copy = clone()

        def undo() -> None:
            if storage.nbytes() != copy.nbytes():
                storage.resize_(copy.nbytes())
            storage.copy_(copy, False)

        self._tensors.append(undo)

    def _dict(self, held: dict[Any, Any]) -> list[Any]:
        copy = dict(held)

        def undo() -> None:
            same = len(held) == len(copy) and all(
                key is other and value is copy[other]
                for (key, value), other in zip(held.items(), copy, strict=True)
            )
            if not same:
                held.clear()
                held.update(copy)

        self._undo.append(undo)
        return list(copy.values())

    def _items(self, held: Any) -> list[Any]:
        copy = list(held)

        def undo() -> None:
            if isinstance(held, (list, bytearray)):
                held[:] = copy
            elif isinstance(held, set):
                held.clear()
                held.update(copy)
            else:
                held.clear()
                held.extend(copy)

        self._undo.append(undo)
        return copy

    def _script(self, module: torch.jit.ScriptModule) -> list[Any]:
        # A frozen script has no mode any more
        modes = [(part, part.training) for part in module.modules() if hasattr(part, "training")]

        def undo() -> None:
            for part, mode in modes:
                part.training = mode

        self._undo.append(undo)
        return [*module.parameters(), *module.buffers()]

    def _generator(self, thing: Any) -> bool:
        """Whether `thing` draws random numbers; its state is noted."""
        if isinstance(thing, torch.Generator):
            bits = thing.get_state()
            self._undo.append(partial(_set_bits, thing, bits))
        elif isinstance(thing, random.Random):
            seed = thing.getstate()
            self._undo.append(lambda: thing.setstate(seed))
        elif isinstance(thing, np.random.Generator):
            state = thing.bit_generator.state
            self._undo.append(lambda: setattr(thing.bit_generator, "state", state))
        elif isinstance(thing, np.random.RandomState):
            old = thing.get_state()
            self._undo.append(lambda: thing.set_state(old))
        else:
            return False
        return True


_TENSOR_HOOKS = ("_backward_hooks", "_post_accumulate_grad_hooks")


def _same_view(tensor: torch.Tensor, held: torch.Tensor) -> bool:
    if tensor.layout is not torch.strided or tensor.device.type == "meta":
        return True
    return bool(
        tensor.dtype is held.dtype
        and tensor.device == held.device
        and tensor.shape == held.shape
        and tensor.stride() == held.stride()
        and tensor.storage_offset() == held.storage_offset()
        and tensor.untyped_storage().data_ptr() == held.untyped_storage().data_ptr()
    )


def _own_packages(roots: tuple[Any, ...]) -> set[str]:
    """Packages of the user's own classes: objects of those are followed, those of libraries aren't."""
    found = {type(root) for root in roots}
    for root in roots:
        if isinstance(root, nn.Module):
            found |= {type(part) for part in root.modules()}
    return {each.__module__.split(".")[0] for each in found} - _LIBRARIES


def _global_hooks() -> list[Any]:
    module = nn.modules.module
    return [value for name, value in vars(module).items() if name.startswith("_global_") and "hooks" in name]


class _Settings:
    """Random numbers and global settings of Python, NumPy and PyTorch."""

    def __init__(self) -> None:
        self._random, self._numpy = random.getstate(), np.random.get_state()
        self._torch = torch.get_rng_state()
        started: Callable[[], bool] = torch.cuda.is_initialized
        self._cuda = torch.cuda.get_rng_state_all() if started() else None
        self._values = [(write, read()) for read, write in _SETTINGS]
        self._errors = np.geterr()

    def restore(self) -> None:
        random.setstate(self._random)
        np.random.set_state(self._numpy)
        torch.set_rng_state(self._torch)
        if self._cuda is not None:
            torch.cuda.set_rng_state_all(self._cuda)
        for write, value in self._values:
            write(value)
        np.seterr(**self._errors)


def _set_bits(generator: torch.Generator, bits: torch.Tensor) -> None:
    generator.set_state(bits)


def _deterministic() -> tuple[bool, bool]:
    return torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()


def set_deterministic(mode: bool, *, warn_only: bool = False) -> None:
    """``torch.use_deterministic_algorithms`` without the seconds that importing PyTorch's compiler takes."""
    if "torch._inductor" in sys.modules:
        torch.use_deterministic_algorithms(mode, warn_only=warn_only)
    else:
        torch._C._set_deterministic_algorithms(mode, warn_only=warn_only)


def _set_threads(n: int) -> None:
    if torch.get_num_threads() != n:
        torch.set_num_threads(n)


def _autocast(device: str) -> tuple[Callable[[], Any], Callable[[Any], None]]:
    def read() -> tuple[bool, torch.dtype]:
        return torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)

    def write(value: tuple[bool, torch.dtype]) -> None:
        torch.set_autocast_enabled(device, value[0])
        torch.set_autocast_dtype(device, value[1])

    return read, write


def _attribute(owner: Any, name: str) -> tuple[Callable[[], Any], Callable[[Any], None]]:
    def write(value: Any) -> None:
        if getattr(owner, name) != value:
            setattr(owner, name, value)

    return lambda: getattr(owner, name), write


def _anomaly() -> tuple[bool, bool]:
    return torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()


_SETTINGS: tuple[tuple[Callable[[], Any], Callable[[Any], Any]], ...] = (
    (torch.is_grad_enabled, lambda value: torch._C._set_grad_enabled(value)),
    (torch.get_default_dtype, torch.set_default_dtype),
    (torch.get_num_threads, _set_threads),
    (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    (_deterministic, lambda value: set_deterministic(value[0], warn_only=value[1])),
    (_anomaly, lambda value: torch.set_anomaly_enabled(value[0], value[1])),
    (torch.is_autocast_cache_enabled, torch.set_autocast_cache_enabled),
    _autocast("cpu"),
    _autocast("cuda"),
    _attribute(torch.backends.cudnn, "benchmark"),
    _attribute(torch.backends.cudnn, "deterministic"),
    _attribute(torch.backends.cudnn, "enabled"),
    _attribute(torch.backends.cudnn, "allow_tf32"),
    _attribute(torch.utils.deterministic, "fill_uninitialized_memory"),
)
