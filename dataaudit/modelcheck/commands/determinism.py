"""``dataaudit model determinism``."""

from __future__ import annotations

import argparse

from dataaudit.modelcheck import commands

HELP = "does the same input give the same output: again, alone, in eval mode"


def arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    commands.model_argument(parser)
    commands.data_arguments(parser)
    commands.output_arguments(parser)


def run(given: argparse.Namespace) -> int:
    """Check the model; returns the exit code."""
    from dataaudit.modelcheck import loading, modes, repeating, reporting

    clock = reporting.Clock()
    with clock("load"):
        model = loading.load_model(given.model)
        batch = commands.batch(given, model)
    with clock("determinism"):
        found = repeating.determinism(model, batch)
    rows = []
    with clock("train against eval"):
        rows = modes.train_eval(model, batch.inputs)
    parts = []
    if rows:
        kinds: dict[tuple[str, bool], list[float]] = {}
        for row in rows:
            kinds.setdefault((row["type"], row["expected"]), []).append(row["difference"])
        table = tuple(
            (kind, len(gaps), max(gaps), "expected" if expected else "own code: check that it is meant")
            for (kind, expected), gaps in kinds.items()
        )
        parts.append(
            reporting.Table(
                title="Layers that act otherwise in train mode",
                columns=("layer", "how many", "largest difference", ""),
                rows=table,
                note="Difference as a share of the largest value, for the same input.",
            )
        )
    report = reporting.ModelReport(
        name=given.model, command="determinism", codes=repeating.CODES, items=found,
        facts=commands.facts(model, batch), params=commands.params(given), parts=parts,
        skipped={} if batch.real else {"MOD007": "it needs real data: --data or --loader"},
        timings=clock.seconds,
    )  # fmt: skip
    return commands.finish(given, report)
