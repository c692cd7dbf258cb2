"""``dataaudit model overfit``."""

from __future__ import annotations

import argparse

from dataaudit.modelcheck import commands

HELP = "can the model learn one small batch by heart, and if not, why not"


def arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    from dataaudit.modelcheck.training.options import training_arguments

    commands.model_argument(parser)
    training_arguments(parser, n=8)
    parser.add_argument("--seconds", type=float, default=60.0, metavar="S", help="at most (%(default)s)")
    commands.output_arguments(parser)


def run(given: argparse.Namespace) -> int:
    """Check the model; returns the exit code."""
    from dataaudit.modelcheck import loading, reporting
    from dataaudit.modelcheck.training import drawing, options, overfitting

    clock = reporting.Clock()
    with clock("load"):
        model = loading.load_model(given.model)
        batch = options.labelled(given, model)
        parts = options.parts(given, batch)
    with clock("overfit"):
        done = overfitting.overfit(
            model, parts.loss, batch, step=parts.step, train_step=parts.train_step,
            optimizer=parts.optimizer, scaler=parts.scaler, seconds=given.seconds, seed=given.seed,
        )  # fmt: skip
    rows = [(change, "yes" if learned else "no", loss) for change, learned, loss in done.tried]
    shown: list[reporting.Table | reporting.Picture] = [
        reporting.Table(title="What was tried", columns=("change", "learned", "last loss"), rows=tuple(rows))
    ]
    if given.output and done.run.losses:
        shown.append(drawing.losses(done.run.losses, title="Loss on the one batch"))
    report = reporting.ModelReport(
        name=given.model, command="overfit", codes=overfitting.CODES, items=done.findings,
        facts=[*commands.facts(model, batch), done.said], params=commands.params(given), parts=shown,
        timings=clock.seconds,
    )  # fmt: skip
    return commands.finish(given, report)
