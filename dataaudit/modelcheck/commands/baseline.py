"""``dataaudit model baseline``."""

from __future__ import annotations

import argparse

from dataaudit.modelcheck import commands

HELP = "is the model better than the dataset's baseline: debug the model, or look at the data"


def arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("model", nargs="?", metavar="MODEL", help="module:attribute or file, as elsewhere")
    parser.add_argument("--predictions", metavar="FILE", help="in its place: CSV with sample_id and name")
    parser.add_argument("--data", metavar="DIR", required=True, help="classification dataset")
    parser.add_argument("--split", metavar="NAME", help="compare on this split, such as test")
    parser.add_argument(
        "--transform", metavar="SPEC", help="module:attribute that turns a PIL image into a tensor"
    )
    parser.add_argument("--device", default="auto", metavar="NAME", help="auto, cpu, cuda, mps")
    commands.output_arguments(parser)


def run(given: argparse.Namespace) -> int:
    """Compare; returns the exit code."""
    from dataaudit import inputs
    from dataaudit.errors import InputError
    from dataaudit.modelcheck import baselines, loading, reporting

    if (given.model is None) == (given.predictions is None):
        raise InputError("Give MODEL or --predictions FILE, and not both.")
    clock = reporting.Clock()
    with clock("predictions"):
        if given.predictions:
            predicted = inputs.read(given.predictions, indexed=False)
        else:
            transform = None
            if given.transform:
                transform = loading.load_callable(given.transform, what="transform")
            predicted = baselines.predict(loading.load_model(given.model), given.data, transform=transform)
    with clock("baseline"):
        found = baselines.baseline(predicted, given.data, split=given.split, device=given.device)
    report = reporting.ModelReport(
        name=given.model or given.predictions, command="baseline", codes=baselines.CODES,
        items=found.findings, facts=[f"{found.n:,} samples"], params=commands.params(given),
        parts=found.tables(), timings=clock.seconds,
    )  # fmt: skip
    return commands.finish(given, report)
