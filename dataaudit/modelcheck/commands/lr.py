"""``dataaudit model lr``."""

from __future__ import annotations

import argparse

from dataaudit.modelcheck import commands

HELP = "a learning rate that suits: range test, and whether it fits the batch size"


def arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    from dataaudit.modelcheck.training.options import training_arguments

    commands.model_argument(parser)
    training_arguments(parser, n=32, train_step=False)
    parser.add_argument("--low", type=float, default=1e-7, metavar="RATE", help="first rate (%(default)s)")
    parser.add_argument("--high", type=float, default=10.0, metavar="RATE", help="last rate (%(default)s)")
    parser.add_argument("--steps", type=int, default=100, metavar="N", help="at most (%(default)s)")
    parser.add_argument("--batch-size", type=int, metavar="N",
                        help="samples a step in your training, over all processes")  # fmt: skip
    parser.add_argument("--reference", metavar="RATE@SIZE", help="a pair that works, such as 0.1@256")
    commands.output_arguments(parser)


def run(given: argparse.Namespace) -> int:
    """Run the range test; returns the exit code."""
    from dataaudit.errors import InputError
    from dataaudit.modelcheck import loading, reporting
    from dataaudit.modelcheck.training import options, rates, setups

    reference = None
    if given.reference:
        rate, _, size = given.reference.partition("@")
        try:
            reference = float(rate), int(size)
        except ValueError:
            raise InputError(f"--reference is {given.reference!r}; expected such as 0.1@256.") from None
    clock = reporting.Clock()
    with clock("load"):
        model = loading.load_model(given.model)
        batch = options.labelled(given, model)
        parts = options.parts(given, batch)
    with clock("range test"):
        done = rates.rate_range(
            model, parts.loss, batch, step=parts.step, optimizer=parts.optimizer, low=given.low,
            high=given.high, steps=given.steps, seed=given.seed,
        )  # fmt: skip
    found, skipped = list(done.findings), {}
    if given.batch_size and parts.optimizer is not None:
        made = setups.make_optimizer(parts.optimizer, model)
        found += rates.rate_fits_batch(made, given.batch_size, reference=reference)
    else:
        skipped["TRN031"] = (
            "it needs your batch size and optimizer: --batch-size N --optimizer NAME --lr RATE"
        )
    facts = commands.facts(model, batch)
    facts.append(f"suggested rate {done.suggested:.2g}" if done.suggested else "the loss falls at no rate")
    rows = [("falls steepest", done.steepest), ("lowest loss", done.lowest), ("diverges", done.diverges),
            ("set", done.now), ("suggested", done.suggested)]  # fmt: skip
    shown: list[reporting.Table | reporting.Picture] = [
        reporting.Table(title="Learning rates", columns=("where", "rate"), rows=tuple(rows))
    ]
    if given.output and done.losses:
        shown.append(done.picture())
    report = reporting.ModelReport(
        name=given.model, command="lr", codes=rates.CODES, items=found, facts=facts,
        params=commands.params(given), parts=shown, skipped=skipped, timings=clock.seconds,
    )  # fmt: skip
    return commands.finish(given, report)
