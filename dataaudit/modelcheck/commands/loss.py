"""``dataaudit model loss``."""

from __future__ import annotations

import argparse
from typing import Any

from dataaudit.modelcheck import commands

HELP = "does the loss get what it expects: logits, class axis, shapes, targets, boxes"


def arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    commands.model_argument(parser)
    parser.add_argument(
        "--loss",
        metavar="SPEC",
        help="module:attribute of your loss, a function of prediction and target; or the name of one of "
        "torch.nn (CrossEntropyLoss)",
    )
    parser.add_argument(
        "--step",
        metavar="SPEC",
        help="in place of --loss: a function of model and batch that returns the loss",
    )
    parser.add_argument("--classes", type=int, metavar="N", help="how many classes there are")
    commands.data_arguments(parser, n=16)
    commands.output_arguments(parser)


def run(given: argparse.Namespace) -> int:
    """Check the loss; returns the exit code."""
    from dataaudit.errors import InputError
    from dataaudit.modelcheck import loading, losses, reporting

    if not given.data and not given.loader:
        raise InputError("A loss needs labels.", fix="Give --data DIR, or --loader mymodule:make_loader.")
    if given.loss and given.step:
        raise InputError("--loss and --step both say what the loss is.", fix="Give one of them.")
    clock = reporting.Clock()
    with clock("load"):
        model = loading.load_model(given.model)
        batch = commands.batch(given, model)
        loss = _loss(given.loss) if given.loss else None
        step = loading.load_callable(given.step, what="function of model and batch") if given.step else None
    if loss is None and step is None and not isinstance(batch.inputs, list):
        loss = _loss("CrossEntropyLoss")
    with clock("loss"):
        found = losses.loss_inputs(model, loss, batch, step=step, n_classes=given.classes)
    report = reporting.ModelReport(
        name=given.model,
        command="loss",
        codes=losses.CODES,
        items=found,
        facts=commands.facts(model, batch),
        params=commands.params(given),
        timings=clock.seconds,
    )
    return commands.finish(given, report)


def _loss(spec: str) -> Any:
    from torch import nn

    from dataaudit.modelcheck import loading

    if ":" not in spec and hasattr(nn, spec):
        return getattr(nn, spec)()
    return loading.load_callable(spec, what="loss, a function of prediction and target")
