"""A training step of Lightning outside of the trainer's loops: nothing is logged, and all is put back."""

from __future__ import annotations

import contextlib
import importlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from dataaudit.errors import Unavailable
from dataaudit.modelcheck.inputs import tensors
from dataaudit.modelcheck.training.setups import TrainStep

__all__ = ["Parts", "Probe", "package_of", "split"]

_INPUTS = ("inputs", "input", "images", "image", "img", "pixel_values", "x", "data")
_TARGETS = ("targets", "target", "labels", "label", "y", "cls", "class")
_SHARDED = ("FSDP", "DeepSpeed", "ModelParallel", "XLA")


@dataclass(frozen=True, kw_only=True)
class Parts:
    """A batch in two parts.

    Attributes:
        inputs: what the model is called with, as `dataaudit.modelcheck.inputs.call` takes it.
        targets: what the loss takes, or None where the batch doesn't say.
        join: makes a batch of other inputs and targets, with all else as it was.
    """

    inputs: Any
    targets: Any
    join: Callable[[Any, Any], Any]


def split(batch: Any) -> Parts:
    """Inputs and targets of a batch: the first two of a tuple or list, or those of a mapping by their names.

    >>> parts = split([torch.zeros(2, 3), torch.tensor([0, 1]), ["a", "b"]])
    >>> parts.targets.tolist(), parts.join(torch.ones(2, 3), None)[2]
    ([0, 1], ['a', 'b'])
    """
    if isinstance(batch, Mapping):
        inputs = next((name for name in _INPUTS if name in batch), None)
        targets = next((name for name in _TARGETS if name in batch), None)
        if inputs is not None and targets is not None:
            return Parts(
                inputs=batch[inputs], targets=batch[targets],
                join=lambda x, y: {**batch, inputs: x, targets: y},
            )  # fmt: skip
    elif isinstance(batch, (tuple, list)) and len(batch) >= 2 and not hasattr(batch, "_fields"):
        kind, rest = type(batch), list(batch[2:])
        if isinstance(batch[0], torch.Tensor):
            return Parts(inputs=batch[0], targets=batch[1], join=lambda x, y: kind([x, y, *rest]))
        images = isinstance(batch[0], (tuple, list)) and all(
            isinstance(one, torch.Tensor) and one.ndim == 3 for one in batch[0]
        )
        if images:  # as torchvision's detection models want them
            inner = type(batch[0])
            return Parts(
                inputs=list(batch[0]), targets=batch[1], join=lambda x, y: kind([inner(x), y, *rest])
            )
    return Parts(inputs=(batch,), targets=None, join=lambda x, _: x[0])


def _cut(batch: Any, n: int) -> Any:
    """The first samples of a batch: of what is as long as its first tensor, or list of tensors."""
    if isinstance(batch, (list, tuple)) and batch and isinstance(batch[0], (list, tuple)):
        total = len(batch[0])
    else:
        total = next((len(one) for one in tensors(batch) if one.ndim), 0)

    def cut(value: Any, outermost: bool = False) -> Any:
        if isinstance(value, torch.Tensor):
            return value[:n] if value.ndim and len(value) == total else value
        if isinstance(value, Mapping):
            return {key: cut(one) for key, one in value.items()}
        if isinstance(value, (list, tuple)) and not hasattr(value, "_fields"):
            if len(value) == total and not outermost:
                return value[:n]
            return type(value)([cut(one) for one in value])
        return value

    return cut(batch, True)


def package_of(trainer: Any) -> str:
    """``pytorch_lightning`` or ``lightning.pytorch``, whichever the trainer is of."""
    for kind in type(trainer).__mro__:
        for package in ("lightning.pytorch", "pytorch_lightning"):
            if kind.__module__.startswith(package):
                return package
    return "pytorch_lightning"


class _Arrived(BaseException):
    """The module that a step calls has returned; what comes after it isn't wanted."""

    def __init__(self, output: Any) -> None:
        self.output = output


class Probe:
    """The training step of a module under a trainer, on a batch.

    Args:
        trainer: of ``pytorch_lightning`` or ``lightning.pytorch``, in its fit.
        module: its LightningModule.
        batch: as ``training_step`` gets it, on its device.
        batch_idx: its number.
        samples: how many of its samples are taken; None for all.

    Raises:
        Unavailable: the step can't be tried on its own; the message says why.
    """

    def __init__(
        self, trainer: Any, module: Any, batch: Any, batch_idx: int = 0, *, samples: int | None = None
    ) -> None:
        self.trainer, self.module, self.batch_idx = trainer, module, batch_idx
        self.batch = batch if samples is None else _cut(batch, samples)
        self.parts = split(self.batch)
        strategy = type(trainer.strategy).__name__
        if any(name in strategy for name in _SHARDED):
            raise Unavailable(f"{strategy} spreads the weights over processes")
        if len(trainer.optimizers) != 1:
            raise Unavailable(f"there are {len(trainer.optimizers)} optimizers")
        self._takes = inspect.signature(module.training_step).parameters
        if "dataloader_iter" in self._takes:
            raise Unavailable("training_step takes batches of the loader by itself")

    @property
    def manual(self) -> bool:
        """Whether training_step takes the optimizer's steps itself."""
        return not self.module.automatic_optimization

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """The optimizer that ``configure_optimizers`` returned."""
        found: torch.optim.Optimizer = self.trainer.optimizers[0]
        return found

    @property
    def scaler(self) -> Any:
        """Of mixed precision, or None."""
        return None if self.manual else getattr(self.trainer.precision_plugin, "scaler", None)

    def step(self, _model: Any, pair: Any) -> Any:
        """What training_step returns for ``(inputs, targets)``."""
        given: list[Any] = [self.parts.join(*pair)]
        several = any(one.kind is one.VAR_POSITIONAL for one in self._takes.values())
        if several or len(self._takes) > 1:
            given.append(self.batch_idx)
        with self.trainer.precision_plugin.train_step_context():
            return self.module.training_step(*given)

    def train_step(self) -> TrainStep:
        """The same as a whole step, of a module that optimizes by itself."""

        def train_step(model: nn.Module, optimizer: torch.optim.Optimizer, pair: Any) -> Any:
            with _replaced(self.module, optimizers=lambda use_pl_optimizer=True: optimizer):
                return self.step(model, pair)

        return train_step

    def run(self) -> Any:
        """The step on the batch as it is."""
        pair = (self.parts.inputs, self.parts.targets)
        return self.train_step()(self.module, self.optimizer, pair) if self.manual else self.step(None, pair)

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """Within it, nothing of a step reaches loggers, callbacks, the progress bar or other processes."""
        trainer, module = self.trainer, self.module
        loggers, callbacks = trainer.loggers, trainer.callbacks
        schedulers = [
            (config.scheduler, dict(vars(config.scheduler))) for config in trainer.lr_scheduler_configs
        ]
        dummy: Any = importlib.import_module(f"{package_of(trainer)}.loggers.logger").DummyLogger
        nothing: dict[str, Any] = dict.fromkeys(("log", "log_dict", "print"), _nothing)
        if self.manual:
            nothing["manual_backward"] = lambda loss, *args, **kwargs: loss.backward(*args, **kwargs)
        trainer.loggers, trainer.callbacks = [dummy() for _ in loggers], []
        try:
            with _replaced(module, **nothing), _alone():
                yield
        finally:
            trainer.loggers, trainer.callbacks = loggers, callbacks
            for scheduler, held in schedulers:
                vars(scheduler).clear()
                vars(scheduler).update(held)

    @contextmanager
    def as_trained(self) -> Iterator[None]:
        """Within it the optimizer clips as the trainer does, at the highest rate that a warm-up says."""
        trainer, optimizer = self.trainer, self.optimizer
        rates = [group["lr"] for group in optimizer.param_groups]
        for group in optimizer.param_groups:
            # A schedule that begins near 0 would look like a rate that is too low
            known = [group["lr"], group.get("initial_lr", 0), group.get("max_lr", 0)]
            group["lr"] = max(known, key=float)
        handle = None
        if not self.manual and trainer.gradient_clip_val:

            def clip(*_: Any) -> None:
                algorithm = trainer.gradient_clip_algorithm
                self.module.configure_gradient_clipping(optimizer, trainer.gradient_clip_val, algorithm)

            handle = optimizer.register_step_pre_hook(clip)
        try:
            yield
        finally:
            if handle is not None:
                handle.remove()
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate

    @contextmanager
    def called_as(self, entry: nn.Module | None) -> Iterator[None]:
        """Within it ``module(inputs)`` is what the training step does up to the end of its first model.

        Args:
            entry: the module that the step calls first; itself or None leaves ``forward`` as it is.
        """
        if entry is self.module:
            yield
            return

        def forward(*given: Any) -> Any:
            inputs = given[0] if self.parts.targets is not None else given
            if entry is None:
                return next(iter(tensors(self.step(None, (inputs, self.parts.targets)))), None)

            def arrived(_module: nn.Module, _args: Any, output: Any) -> None:
                raise _Arrived(output)

            handle = entry.register_forward_hook(arrived)
            try:
                self.step(None, (inputs, self.parts.targets))
            except _Arrived as reached:
                return reached.output
            finally:
                handle.remove()
            return None

        with _replaced(self.module, forward=forward):
            yield


def _nothing(*_: Any, **__: Any) -> None:
    return None


@contextmanager
def _replaced(module: Any, **functions: Any) -> Iterator[None]:
    """Attributes of an object set aside for a while."""
    held = vars(module)
    before = {name: held[name] for name in functions if name in held}
    held.update(functions)
    try:
        yield
    finally:
        for name in functions:
            held.pop(name, None)
        held.update(before)


@contextmanager
def _alone() -> Iterator[None]:
    """Within it PyTorch takes this process for the only one: one rank can take a step while others wait."""
    distributed = torch.distributed
    if not distributed.is_available() or not distributed.is_initialized():
        yield
        return
    with contextlib.ExitStack() as stack:
        before = distributed.is_initialized
        stack.callback(setattr, distributed, "is_initialized", before)
        distributed.is_initialized = lambda: False
        yield
