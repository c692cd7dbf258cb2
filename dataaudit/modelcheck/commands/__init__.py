"""``dataaudit model ...``: one file a subcommand, which registers itself.

A file here has ``HELP`` (a line), ``arguments(parser)``, which declares what the command takes, and
``run(given)``, which returns the exit code. It imports what is heavy inside ``run``, and is named after the
command. Nothing else has to be edited to add one.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import pkgutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from dataaudit.modelcheck.inputs import Batch
    from dataaudit.modelcheck.reporting import ModelReport

__all__ = [
    "add",
    "batch",
    "data_arguments",
    "facts",
    "finish",
    "model_argument",
    "output_arguments",
    "params",
]

_QUIET = ("run", "command", "check", "format", "output", "exit_zero", "fail_on", "ignore", "log_to")


def add(command: argparse.ArgumentParser, *, epilog: str | None = None) -> None:
    """Add every subcommand of this package to the parser of ``dataaudit model``."""
    subcommands = command.add_subparsers(dest="check", metavar="CHECK", required=True)
    for found in sorted(pkgutil.iter_modules(__path__), key=lambda one: one.name):
        module: Any = importlib.import_module(f"{__name__}.{found.name}")
        name = found.name.rstrip("_").replace("_", "-")
        parser = subcommands.add_parser(name, help=module.HELP, epilog=epilog)
        module.arguments(parser)
        parser.set_defaults(run=module.run)


def model_argument(parser: argparse.ArgumentParser, name: str = "model") -> None:
    """The model, as `dataaudit.modelcheck.loading.load_model` reads it."""
    parser.add_argument(
        name,
        metavar=name.upper(),
        help="module:attribute or file.py:attribute (a model, or a function that makes one), timm:NAME, "
        "torchvision:NAME, or a .pt file",
    )


def data_arguments(parser: argparse.ArgumentParser, *, n: int = 4) -> None:
    """Where the inputs come from: images, a loader of the user's, or random numbers when nothing is given."""
    parser.add_argument("--data", metavar="DIR", help="dataset whose images the model is given")
    parser.add_argument(
        "--loader", metavar="SPEC", help="module:attribute of your own loader, or a function that makes one"
    )
    parser.add_argument(
        "--transform", metavar="SPEC", help="module:attribute that turns a PIL image into a tensor"
    )
    parser.add_argument("--input-shape", metavar="C,H,W", help="of one sample, where it can't be found out")
    parser.add_argument("-n", "--n", type=int, default=n, metavar="N", help="how many samples (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the samples (%(default)s)")
    parser.add_argument("--device", default="cpu", metavar="NAME", help="cpu, cuda, mps (%(default)s)")


def output_arguments(parser: argparse.ArgumentParser) -> None:
    """What is printed and written, and when the exit code is 1."""
    parser.add_argument("--ignore", metavar="CODES", help="codes to leave out, such as MOD001")
    parser.add_argument("--fail-on", action="append", metavar="RULE",
                        help="gate: 'MOD>0', 'any>=2'; repeatable (any>0)")  # fmt: skip
    parser.add_argument("--exit-zero", action="store_true", help="exit with 0 whatever is found")
    parser.add_argument("--format", choices=("text", "json", "sarif", "junit", "github"), default="text",
                        help="what goes to standard output (%(default)s)")  # fmt: skip
    parser.add_argument("--output", metavar="FOLDER", help="write the report there, as HTML and JSON")
    parser.add_argument("--log-to", action="append", type=_log_target, metavar="PLACE",
                        help="mlflow, mlflow:URI or tensorboard:FOLDER; repeatable")  # fmt: skip


def _log_target(text: str) -> str:
    """A place to log to, refused before anything is checked where it can't be."""
    from dataaudit.errors import InputError
    from dataaudit.modelcheck import tracking

    try:
        tracking.need(tracking.target_of(text)[0])
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def batch(given: argparse.Namespace, model: nn.Module) -> Batch:
    """The batch that the arguments ask for: the user's or of images, and else of random numbers."""
    from dataaudit.errors import InputError
    from dataaudit.modelcheck import inputs, loading

    if given.n < 1:
        raise InputError(f"-n is {given.n}; expected 1 or more.")
    model.to(given.device)
    shape = None
    if given.input_shape:
        try:
            shape = tuple(int(side) for side in given.input_shape.replace("x", ",").split(","))
        except ValueError:
            raise InputError(f"--input-shape is {given.input_shape!r}; expected such as 3,224,224.") from None
    if given.loader and given.data:
        raise InputError("--loader and --data both say where the inputs come from.", fix="Give one of them.")
    if given.loader:
        found = inputs.user_batch(loading.from_spec(given.loader), given.n)
    elif given.data:
        transform = None if not given.transform else loading.load_callable(given.transform, what="transform")
        found = inputs.images_batch(
            given.data, model, given.n, shape=shape, transform=transform, seed=given.seed
        )
    else:
        found = inputs.random_batch(model, given.n, shape=shape, seed=given.seed)
    return dataclasses.replace(
        found,
        inputs=inputs.move(found.inputs, given.device),
        targets=inputs.move(found.targets, given.device),
    )


def facts(model: nn.Module, batch: Batch) -> list[str]:
    """The model's size and the batch, in a few words."""
    from dataaudit.modelcheck.inputs import tensors

    n = sum(one.numel() for one in model.parameters())
    size = f"{n / 1e6:.1f} M" if n >= 1e5 else f"{n:,}"
    shapes = [str(tuple(one.shape)) for one in tensors(batch.inputs)]
    kind = "real" if batch.real else "random"
    return [f"{type(model).__name__}, {size} parameters", f"{kind} inputs {', '.join(shapes[:2])}"]


def params(given: argparse.Namespace) -> dict[str, Any]:
    """The arguments that a report names."""
    return {name: value for name, value in vars(given).items() if value is not None and name not in _QUIET}


def finish(given: argparse.Namespace, report: ModelReport, *, printed: ModelReport | None = None) -> int:
    """Print and write a report as the arguments of `output_arguments` ask; returns the exit code.

    Args:
        given: the arguments.
        report: what is written and decides about the exit code.
        printed: the same with fewer tables, for the terminal.
    """
    from dataaudit.modelcheck import reporting
    from dataaudit.report import gate

    ignored = [code.strip().upper() for code in (given.ignore or "").split(",") if code.strip()]
    report = report.without(ignored)
    printed = report if printed is None else printed.without(ignored)
    summary = report.summary()
    files = reporting.write(report, given.output) if given.output else {}
    if given.format == "text":
        reporting.to_terminal(printed, html=files.get("html"))
    else:
        sys.stdout.write(_machine(summary, given.format).rstrip("\n") + "\n")
    if given.log_to:
        from dataaudit.modelcheck import tracking

        for target in given.log_to:
            sys.stderr.write(f"Logged: {tracking.log_to(report, target)}\n")
    breaches = gate(summary, tuple(given.fail_on or ("any>0",)))
    if given.fail_on:
        for breach in breaches:
            sys.stderr.write(f"Over the gate: {breach.message}\n")
    return 1 if breaches and not given.exit_zero else 0


def _machine(summary: Mapping[str, Any], format_name: str) -> str:
    from dataaudit import report

    if format_name == "sarif":
        return report.to_sarif(summary, base=Path.cwd())
    if format_name == "github":
        return report.to_github(summary, base=Path.cwd())
    return report.to_junit(summary) if format_name == "junit" else report.to_json(summary)
