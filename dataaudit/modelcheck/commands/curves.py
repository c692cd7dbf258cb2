"""``dataaudit model curves``: what the losses and metrics of runs show."""

from __future__ import annotations

import argparse

from dataaudit.modelcheck import commands

HELP = "what losses and metrics of runs show: TensorBoard, MLflow, Lightning's CSV or any CSV"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="RUNS",
        help="folder with TensorBoard event files, mlruns or CSV files; such a file; or an MLflow URI",
    )
    parser.add_argument(
        "--pair",
        action="append",
        metavar="TRAIN,VAL[,lower|higher]",
        help="names of curves that belong together, where their names don't say so; repeatable",
    )
    commands.output_arguments(parser)


def run(given: argparse.Namespace) -> int:
    """Look at the runs; returns the exit code."""
    from dataclasses import replace

    from dataaudit.modelcheck.runs import curves
    from dataaudit.report import check_rules

    check_rules(tuple(given.fail_on or ()))
    report = curves(given.runs, pairs=given.pair or (), name=", ".join(given.runs))
    return commands.finish(given, replace(report, params=commands.params(given)))
