"""``dataaudit model drift``: production against the reference, or along its time."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from dataaudit.modelcheck.commands import finish, output_arguments, params

if TYPE_CHECKING:
    from dataaudit.modelcheck.drift import Side
    from dataaudit.modelcheck.reporting import ModelReport

HELP = "does production still look like what the model was trained on"
_NOT_SHOWN = ("device", "quiet", "save_reference")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "reference",
        nargs="?",
        metavar="REFERENCE",
        help="what the model was trained on: a dataset, a folder of images, or a file of --save-reference",
    )
    parser.add_argument(
        "production", nargs="?", metavar="PRODUCTION", help="what it sees now; needs no labels"
    )
    parser.add_argument(
        "--save-reference", metavar="FILE", help="keep the reference in a file, to compare without its images"
    )
    parser.add_argument(
        "--outcomes",
        metavar="CSV",
        help="a stream of outcomes: time, and correct (0 or 1) or given and predicted; finds when accuracy "
        "changed",
    )
    parser.add_argument(
        "--times",
        metavar="HOW",
        help="when each image of production was taken: exif, mtime, name, or a CSV with sample_id and time",
    )
    parser.add_argument(
        "--predictions",
        metavar="FILE",
        help="what your model says of production: sample_id, name, confidence",
    )
    parser.add_argument("--reference-predictions", metavar="FILE", help="what it says of the reference")
    parser.add_argument(
        "--groups",
        metavar="PATTERN",
        help="regular expression that finds in a sample id which images were taken together, such as a video",
    )
    parser.add_argument("--test", choices=("classifier", "mmd"), default="classifier",
                        help="how embeddings are compared (%(default)s)")  # fmt: skip
    parser.add_argument("--level", type=float, default=0.05, metavar="P",
                        help="chance of a false alarm in the report, at most (%(default)s)")  # fmt: skip
    parser.add_argument("--permutations", type=int, default=999, metavar="N",
                        help="how often images are dealt out anew (%(default)s)")  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the permutations (%(default)s)")
    parser.add_argument("--backbone", default="efficientnet_lite0", metavar="NAME",
                        help="whose features are compared; none for properties (%(default)s)")  # fmt: skip
    parser.add_argument("--device", default="auto", metavar="NAME", help="auto, cpu, cuda, mps")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress bars")
    output_arguments(parser)


def run(given: argparse.Namespace) -> int:
    """Run the command; returns its exit code."""
    from dataaudit.errors import InputError
    from dataaudit.report import check_rules

    check_rules(tuple(given.fail_on or ()))
    if given.outcomes:
        if given.reference:
            raise InputError(
                "--outcomes is a comparison by itself, without images.",
                fix="Run it once with --outcomes, and once with REFERENCE and PRODUCTION.",
            )
        from dataaudit.modelcheck.drift import concept_drift, read_outcomes

        outcomes = read_outcomes(given.outcomes)
        found = concept_drift(outcomes, level=given.level, seed=given.seed, name=given.outcomes)
        return finish(given, found)
    if given.reference is None:
        raise InputError(
            "There is nothing to compare.",
            fix="Name REFERENCE and PRODUCTION, or a stream of outcomes with --outcomes FILE.csv.",
        )
    if given.production is None and not given.save_reference:
        raise InputError(
            "PRODUCTION is missing.",
            fix="Name what to compare with the reference, or keep the reference with --save-reference FILE.",
        )
    reference = _side(given, given.reference, given.reference_predictions)
    if given.save_reference:
        from dataaudit.modelcheck.drift import save_side

        path = save_side(reference, given.save_reference)
        sys.stderr.write(f"Kept {len(reference):,} images of the reference: {path}\n")
        if given.production is None:
            return 0
    production = _side(given, given.production, given.predictions)
    return finish(given, _report(given, reference, production))


def _side(given: argparse.Namespace, path: str, predictions: str | None) -> Side:
    from dataaudit import inputs
    from dataaudit.modelcheck.drift import read_side, with_predictions

    side = read_side(
        path,
        backbone=None if given.backbone.lower() == "none" else given.backbone,
        device=given.device,
        progress=not given.quiet and given.format == "text",
    )
    return side if predictions is None else with_predictions(side, inputs.read(predictions, indexed=False))


def _report(given: argparse.Namespace, reference: Side, production: Side) -> ModelReport:
    from dataaudit.modelcheck.drift import compare, report_of, with_times

    settings: dict[str, Any] = {
        "level": given.level,
        "n_permutations": given.permutations,
        "seed": given.seed,
        "groups": given.groups,
        "test": given.test,
    }
    if given.times:
        production = with_times(production, given.times)
    checked = compare(reference, production, **settings)
    shown = {name: value for name, value in params(given).items() if name not in _NOT_SHOWN}
    return report_of(checked, params=shown)
