"""Arguments that the training commands share, and what they name."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dataaudit.modelcheck import commands

if TYPE_CHECKING:
    from torch import nn

    from dataaudit.modelcheck.inputs import Batch

__all__ = ["Parts", "labelled", "parts", "training_arguments"]


def training_arguments(parser: argparse.ArgumentParser, *, n: int, train_step: bool = True) -> None:
    """How the model is trained, and on what."""
    parser.add_argument("--loss", metavar="SPEC",
                        help="module:attribute of your loss, or the name of one of torch.nn "
                        "(CrossEntropyLoss)")  # fmt: skip
    parser.add_argument("--step", metavar="SPEC",
                        help="in place of --loss: a function of model and batch that returns it")  # fmt: skip
    if train_step:
        parser.add_argument("--train-step", metavar="SPEC",
                            help="in place of --loss: a function of model, optimizer and batch that does a "
                            "whole step")  # fmt: skip
    parser.add_argument("--optimizer", metavar="SPEC",
                        help="module:attribute of a function of the model that makes it, or the name of one "
                        "of torch.optim, such as SGD (AdamW)")  # fmt: skip
    parser.add_argument("--lr", type=float, metavar="RATE", help="learning rate, with a name of torch.optim")
    parser.add_argument("--weight-decay", type=float, metavar="X", help="with a name of torch.optim")
    parser.add_argument("--momentum", type=float, metavar="X", help="with SGD or RMSprop of torch.optim")
    parser.add_argument(
        "--scaler", metavar="SPEC", help="module:attribute of a function that makes one of AMP"
    )
    commands.data_arguments(parser, n=n)


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What the arguments name: see `dataaudit.modelcheck.training.setups.Setup`."""

    loss: Any = None
    step: Any = None
    train_step: Any = None
    optimizer: Any = None
    scaler: Any = None


def labelled(given: argparse.Namespace, model: nn.Module) -> Batch:
    """The batch; a step needs labels, so random numbers won't do.

    Raises:
        InputError: neither data nor a loader is given.
    """
    from dataaudit.errors import InputError

    if not given.data and not given.loader:
        raise InputError("Training needs labels.", fix="Give --data DIR, or --loader mymodule:make_loader.")
    return commands.batch(given, model)


def parts(given: argparse.Namespace, batch: Batch) -> Parts:
    """Loss, step and optimizer as the arguments name them; cross entropy when nothing does."""
    from torch import nn

    from dataaudit.modelcheck import loading

    train_step = getattr(given, "train_step", None)
    loss: Any = None
    if given.loss:
        named = ":" not in given.loss and hasattr(nn, given.loss)
        loss = getattr(nn, given.loss)() if named else loading.load_callable(given.loss, what="loss")
    elif not given.step and not train_step and not isinstance(batch.inputs, list):
        loss = nn.CrossEntropyLoss()
    scaler = loading.from_spec(given.scaler) if given.scaler else None
    return Parts(
        loss=loss,
        step=loading.load_callable(given.step, what="function of model and batch") if given.step else None,
        train_step=loading.load_callable(train_step, what="training step") if train_step else None,
        optimizer=_optimizer(given),
        scaler=scaler() if callable(scaler) else scaler,
    )


def _optimizer(given: argparse.Namespace) -> Any:
    import torch

    from dataaudit.errors import InputError, nearest
    from dataaudit.modelcheck import loading

    words = {"lr": given.lr, "weight_decay": given.weight_decay, "momentum": given.momentum}
    settings = {name: value for name, value in words.items() if value is not None}
    if given.optimizer is None and not settings:
        return None
    if given.optimizer and ":" in given.optimizer:
        if settings:
            raise InputError(
                f"--{next(iter(settings)).replace('_', '-')} goes with a name of torch.optim, not with a "
                "function of yours.", fix="Set it in the function.",
            )  # fmt: skip
        return loading.from_spec(given.optimizer)
    name = given.optimizer or "AdamW"
    known = [each for each in dir(torch.optim) if each[0].isupper() and each != "Optimizer"]
    if name not in known:
        raise InputError(f"torch.optim has no {name!r}. {nearest(name, known)}")

    def make(model: nn.Module) -> Any:
        asking = [one for one in model.parameters() if one.requires_grad]
        return getattr(torch.optim, name)(asking, **settings)

    return make
