"""``dataaudit model processes``."""

from __future__ import annotations

import argparse

from dataaudit.modelcheck import commands

HELP = "do several processes (DDP) train the same model as one"


def arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    commands.model_argument(parser)
    parser.add_argument("--loss", metavar="SPEC", help="module:attribute of your loss (cross entropy)")
    parser.add_argument("--world", type=int, default=2, metavar="N", help="processes (%(default)s)")
    parser.add_argument("--sizes", metavar="N,N", help="samples of each process (equal parts)")
    parser.add_argument("--wrap", metavar="SPEC", help="your function that wraps the model (DDP)")
    parser.add_argument("--rank-loader", metavar="SPEC",
                        help="your function of rank and world that makes the loader")  # fmt: skip
    parser.add_argument("--rank-seed", metavar="SPEC", help="your function of the rank that seeds it")
    parser.add_argument("--seconds", type=float, default=120.0, metavar="S", help="at most (%(default)s)")
    commands.data_arguments(parser, n=8)
    commands.output_arguments(parser)


def run(given: argparse.Namespace) -> int:
    """Compare the processes; returns the exit code."""
    from torch import nn

    from dataaudit.errors import InputError
    from dataaudit.modelcheck import loading, reporting
    from dataaudit.modelcheck.training import options, processes

    try:
        sizes = [int(size) for size in given.sizes.split(",")] if given.sizes else None
    except ValueError:
        raise InputError(f"--sizes is {given.sizes!r}; expected such as 5,3.") from None
    clock = reporting.Clock()
    with clock("load"):
        model = loading.load_model(given.model)
        batch = options.labelled(given, model)
    with clock("processes"):
        done = processes.processes(
            given.model, given.loss or nn.CrossEntropyLoss(), batch,
            world=given.world, sizes=sizes, wrap=given.wrap, loader=given.rank_loader, seed=given.rank_seed,
            seconds=given.seconds,
        )  # fmt: skip
    skipped = {}
    if not given.rank_loader:
        skipped["TRN044"] = "it needs your loader: --rank-loader mymodule:make_loader"
    if not given.rank_seed:
        skipped["TRN042"] = "it needs your seeding: --rank-seed mymodule:seed"
    report = reporting.ModelReport(
        name=given.model, command="processes", codes=processes.CODES, items=done.findings, skipped=skipped,
        facts=[*commands.facts(model, batch), f"gradients differ by {done.difference:.1g}"],
        params=commands.params(given), timings=clock.seconds,
    )  # fmt: skip
    return commands.finish(given, report)
