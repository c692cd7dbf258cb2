"""How a user trains: model, batch, loss or step, optimizer and scaler; and one step of it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import nn
from torch.optim.optimizer import Optimizer

from dataaudit.errors import InputError
from dataaudit.modelcheck.inputs import Batch, Inputs, call, tensors
from dataaudit.modelcheck.keeping import Kept

__all__ = ["Loss", "MakeOptimizer", "Setup", "Step", "TrainStep", "make_optimizer", "setup_of"]

Loss: TypeAlias = Callable[[Any, Any], Any]
Step: TypeAlias = Callable[[nn.Module, Any], Any]
TrainStep: TypeAlias = Callable[[nn.Module, Optimizer, Any], Any]
MakeOptimizer: TypeAlias = Callable[[Any], Optimizer]

RATES = {"SGD": 0.01, "Adagrad": 0.01, "Adadelta": 1.0, "RMSprop": 1e-3, "Rprop": 0.01, "ASGD": 0.01}
"""Learning rates tried in place of the user's, by optimizer; 0.001 for all others, which are kin of Adam."""


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What one training step needs.

    Attributes:
        model: the model.
        inputs: what it is called with.
        targets: what the loss takes, or None.
        loss: of prediction and target; None where `step` or `train_step` is given, or the model computes it.
        step: of the model and ``(inputs, targets)``, returns the loss.
        train_step: of the model, the optimizer and ``(inputs, targets)``: a whole step, with the backward
            pass and the change of the weights.
        optimizer: as the user made it, or AdamW with 0.001 when there is none.
        own_optimizer: whether the user gave one.
        scaler: of mixed precision, or None.
        sample_ids: of the batch.
        before: the state before a function of the user's made the optimizer, or None.
    """

    model: nn.Module
    inputs: Inputs
    targets: Any = None
    loss: Loss | None = None
    step: Step | None = None
    train_step: TrainStep | None = None
    optimizer: Optimizer
    own_optimizer: bool = True
    scaler: Any = None
    sample_ids: tuple[str, ...] = ()
    before: Kept | None = None

    @property
    def roots(self) -> tuple[Any, ...]:
        """Everything that a step may change, for `dataaudit.modelcheck.keeping.kept`."""
        functions = (self.loss, self.step, self.train_step)
        held = [inspect.getclosurevars(one).nonlocals for one in functions if inspect.isfunction(one)]
        things = (self.model, self.optimizer, self.scaler, self.inputs, self.targets)
        return (*things, *functions, *held, self.before)

    def forward(self) -> Any:
        """What the loss function returns for the batch, in the mode that the model is in."""
        if self.step is not None:
            return self.step(self.model, (self.inputs, self.targets))
        if self.loss is None:
            return self.model(self.inputs, self.targets)
        return self.loss(call(self.model, self.inputs), self.targets)

    def named(self) -> Mapping[int, str]:
        """Name of each parameter by its id."""
        return {id(one): name for name, one in self.model.named_parameters()}


def setup_of(
    model: nn.Module,
    loss: Loss | None,
    inputs: Inputs | Batch,
    targets: Any = None,
    *,
    step: Step | None = None,
    train_step: TrainStep | None = None,
    optimizer: Optimizer | MakeOptimizer | None = None,
    scaler: Any = None,
) -> Setup:
    """The set-up that the arguments of a check describe.

    Raises:
        InputError: nothing says what the loss is, there are no targets, there is nothing to learn, or the
            weights are sharded over processes.
    """
    batch = inputs if isinstance(inputs, Batch) else Batch(inputs=inputs, targets=targets)
    wanted = batch.targets if targets is None else targets
    if (loss is not None) + (step is not None) + (train_step is not None) > 1:
        raise InputError("loss, step and train_step all say what the loss is.", fix="Give one of them.")
    if wanted is None and step is None and train_step is None:
        raise InputError("There are no targets.", fix="Give labels: --data DIR with labels, or --loader.")
    if not any(True for _ in model.parameters()):
        raise InputError(f"{type(model).__name__} has no parameters; there is nothing to train.")
    _refuse_sharded(model)
    # Functions that make an optimizer often freeze layers, or draw weights anew
    before = Kept(model, loss) if optimizer is not None and not isinstance(optimizer, Optimizer) else None
    try:
        made = make_optimizer(optimizer, model)
    except BaseException:
        if before is not None:
            before.restore()
        raise
    return Setup(
        model=model, inputs=batch.inputs, targets=wanted, loss=loss, step=step, train_step=train_step,
        optimizer=made, own_optimizer=optimizer is not None, scaler=scaler, sample_ids=batch.sample_ids,
        before=before,
    )  # fmt: skip


def _refuse_sharded(model: nn.Module) -> None:
    kinds = {type(one).__name__ for one in (*model.modules(), *model.parameters())}
    if kinds & {"FullyShardedDataParallel", "DTensor"}:
        raise InputError(
            f"The weights of {type(model).__name__} are sharded (FSDP): a check can't put them back.",
            fix="Check the model before fully_shard or FullyShardedDataParallel is applied.",
        )


def make_optimizer(optimizer: Optimizer | MakeOptimizer | None, model: nn.Module) -> Optimizer:
    """The user's optimizer: given, made by a function of the model or a class of PyTorch; else AdamW.

    Raises:
        InputError: the function raises, or returns something else.
    """
    if isinstance(optimizer, Optimizer):
        return optimizer
    asking = [one for one in model.parameters() if one.requires_grad] or list(model.parameters())
    if optimizer is None:
        return torch.optim.AdamW(asking, lr=1e-3)
    library = inspect.isclass(optimizer) and issubclass(optimizer, Optimizer)
    try:
        made = optimizer(asking if library else model)
    except Exception as error:
        name = getattr(optimizer, "__name__", type(optimizer).__name__)
        raise InputError(
            f"{name}, which makes the optimizer, raised {type(error).__name__}: {error}",
            fix="Give a function of the model: def make_optimizer(model): return torch.optim.SGD("
            "model.parameters(), lr=0.01)",
        ) from error
    if not isinstance(made, Optimizer):
        raise InputError(f"The optimizer is a {type(made).__name__}; expected a torch.optim.Optimizer.")
    return made


def scalar(value: Any) -> torch.Tensor | None:
    """A loss as one number: the sum of a mapping's parts, the mean of an array; None where there is none.

    A Python number, as ``loss.item()`` is, has no gradient.
    """
    if isinstance(value, float):
        return torch.tensor(value)
    if isinstance(value, Mapping):
        if isinstance(value.get("loss"), torch.Tensor):
            return scalar(value["loss"])
        parts = [one for one in tensors(value) if one.is_floating_point()]
        total = sum((part.mean() for part in parts[1:]), parts[0].mean()) if parts else None
        return total if isinstance(total, torch.Tensor) else None
    if isinstance(value, (tuple, list)) and value and isinstance(value[0], torch.Tensor):
        return scalar(value[0])
    if not isinstance(value, torch.Tensor) or not value.is_floating_point():
        return None
    return value if value.ndim == 0 else value.mean()


@contextmanager
def last_output(model: nn.Module) -> Iterator[list[Any]]:
    """What the model returned last, detached, as the only element of a list."""
    held: list[Any] = []

    def after(_module: nn.Module, _args: Any, output: Any) -> None:
        held[:] = [output]

    handle = model.register_forward_hook(after)
    try:
        yield held
    finally:
        handle.remove()
