"""``dataaudit model gradients``."""

from __future__ import annotations

import argparse

from dataaudit.modelcheck import commands

HELP = "each layer's gradient and update: vanishing, exploding, dead, NaN"


def arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    from dataaudit.modelcheck.training.options import training_arguments

    commands.model_argument(parser)
    training_arguments(parser, n=8)
    parser.add_argument("--steps", type=int, default=4, metavar="N", help="how many (%(default)s)")
    commands.output_arguments(parser)


def run(given: argparse.Namespace) -> int:
    """Check the model; returns the exit code."""
    from dataaudit.modelcheck import loading, reporting
    from dataaudit.modelcheck.training import gradient_flow, options

    clock = reporting.Clock()
    with clock("load"):
        model = loading.load_model(given.model)
        batch = options.labelled(given, model)
        parts = options.parts(given, batch)
    with clock("gradients"):
        done = gradient_flow.gradients(
            model, parts.loss, batch, step=parts.step, train_step=parts.train_step,
            optimizer=parts.optimizer, scaler=parts.scaler, steps=given.steps,
        )  # fmt: skip
    facts = commands.facts(model, batch)
    if done.skipped_steps:
        facts.append(f"{done.skipped_steps} steps skipped by the scaler")
    report = reporting.ModelReport(
        name=given.model, command="gradients", codes=gradient_flow.CODES, items=done.findings, facts=facts,
        params=commands.params(given), parts=[done.table()], timings=clock.seconds,
    )  # fmt: skip
    return commands.finish(given, report)
