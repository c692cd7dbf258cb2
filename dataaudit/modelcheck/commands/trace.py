"""``dataaudit model trace``."""

from __future__ import annotations

import argparse
import sys

from dataaudit.modelcheck import commands

HELP = "every layer in order: shapes, mean, deviation, zeros, NaN; the debugger in the first bad one"


def arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    commands.model_argument(parser)
    commands.data_arguments(parser)
    parser.add_argument("--train", action="store_true", help="in train mode instead of eval mode")
    parser.add_argument("--all", action="store_true", help="also the modules that hold others")
    parser.add_argument(
        "--pdb", action="store_true", help="stop in the debugger inside the forward of the first bad layer"
    )
    commands.output_arguments(parser)


def run(given: argparse.Namespace) -> int:
    """Trace the model; returns the exit code."""
    from dataaudit.modelcheck import loading, reporting, tracing

    clock = reporting.Clock()
    with clock("load"):
        model = loading.load_model(given.model)
        batch = commands.batch(given, model)
    if given.pdb and tracing.stop_at_first_bad(model, batch, train=given.train):
        return 1
    if given.pdb:
        sys.stderr.write("No layer puts out NaN or infinity; there is nowhere to stop.\n")
    with clock("trace"):
        found = tracing.trace(model, batch, train=given.train)
    report = reporting.ModelReport(
        name=given.model, command="trace", codes=tracing.CODES, items=found.findings,
        facts=commands.facts(model, batch), params=commands.params(given),
        parts=[found.table(leaves=not given.all)], timings=clock.seconds,
    )  # fmt: skip
    return commands.finish(given, report)
