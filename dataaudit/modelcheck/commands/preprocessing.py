"""``dataaudit model preprocessing``."""

from __future__ import annotations

import argparse

from dataaudit.modelcheck import commands

HELP = "do training and deployment prepare images alike: resize, colours, normalisation, EXIF"


def arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    for name in ("training", "deployment"):
        parser.add_argument(
            name,
            metavar=name.upper(),
            help=f"module:attribute of {name}'s function from a path, PIL image or RGB array to a tensor",
        )
    parser.add_argument("--data", metavar="DIR", required=True, help="dataset whose images are prepared")
    parser.add_argument("-n", "--n", type=int, default=6, metavar="N", help="how many images (%(default)s)")
    commands.output_arguments(parser)


def run(given: argparse.Namespace) -> int:
    """Compare; returns the exit code."""
    from dataaudit.errors import InputError
    from dataaudit.modelcheck import loading, reporting
    from dataaudit.modelcheck.deployment import preparing, reports

    if given.n < 1:
        raise InputError(f"-n is {given.n}; expected 1 or more.")
    clock = reporting.Clock()
    with clock("load"):
        training = loading.load_callable(given.training, what="preprocessing")
        deployment = loading.load_callable(given.deployment, what="preprocessing")
        files = preparing.some_files(given.data, given.n)
    with clock("preprocessing"):
        found = preparing.preprocessing(training, deployment, files)
    report = reporting.ModelReport(
        name=f"{given.training} and {given.deployment}", command="preprocessing", codes=preparing.CODES,
        items=found.findings, facts=[f"{found.n} images"], params=commands.params(given),
        parts=[reports.steps(found)], timings=clock.seconds,
    )  # fmt: skip
    return commands.finish(given, report)
