"""``dataaudit model sanity``."""

from __future__ import annotations

import argparse
from dataclasses import replace

from dataaudit.modelcheck import commands

HELP = "layers, loss, determinism, gradients and overfit on one batch: the cause first"


def arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    from dataaudit.modelcheck.training.options import training_arguments

    commands.model_argument(parser)
    training_arguments(parser, n=8)
    parser.add_argument("--seconds", type=float, default=60.0, metavar="S",
                        help="for everything (%(default)s)")  # fmt: skip
    commands.output_arguments(parser)


def run(given: argparse.Namespace) -> int:
    """Check the model; returns the exit code."""
    from dataaudit.modelcheck import loading, reporting, suite
    from dataaudit.modelcheck.training import options

    clock = reporting.Clock()
    with clock("load"):
        model = loading.load_model(given.model)
        batch = commands.batch(given, model)
        parts = options.parts(given, batch)
    done = suite.sanity(
        model, parts.loss, batch, step=parts.step, train_step=parts.train_step, optimizer=parts.optimizer,
        scaler=parts.scaler, seconds=given.seconds, seed=given.seed,
    )  # fmt: skip
    done = replace(done, timings={**clock.seconds, **done.timings})
    report = done.report(given.model, params=commands.params(given))
    printed = done.report(given.model, params=commands.params(given), whole=False)
    return commands.finish(given, report, printed=printed)
