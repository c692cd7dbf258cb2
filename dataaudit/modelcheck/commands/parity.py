"""``dataaudit model parity``."""

from __future__ import annotations

import argparse

from dataaudit.modelcheck import commands

HELP = (
    "does the deployed model say what the trained one does: ONNX, TorchScript, torch.export, OpenVINO, half"
)
_PRECISIONS = ("float32", "float64", "float16", "bfloat16", "int8")


def arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    commands.model_argument(parser)
    parser.add_argument(
        "deployed",
        metavar="DEPLOYED",
        help=".onnx, .pt2, TorchScript or OpenVINO .xml file, module:attribute of a module or a function; or "
        "what to make of the model here: onnx, torchscript, export, openvino, float16, bfloat16, int8, "
        "several with commas",
    )
    parser.add_argument("--precision", choices=_PRECISIONS,
                        help="what a function computes in (float32)")  # fmt: skip
    parser.add_argument("--no-latency", action="store_true", help="don't measure how long a call takes")
    commands.data_arguments(parser, n=64)
    commands.output_arguments(parser)


def run(given: argparse.Namespace) -> int:
    """Compare; returns the exit code."""
    import tempfile

    from dataaudit.modelcheck import loading, reporting
    from dataaudit.modelcheck.deployment import checking, converting, reports

    clock = reporting.Clock()
    with clock("load"):
        model = loading.load_model(given.model)
        batch = commands.batch(given, model)
    precision = reports.TYPES[given.precision] if given.precision else None
    found = []
    with tempfile.TemporaryDirectory(prefix="dataaudit-parity-") as folder, clock("parity"):
        kinds = [kind.strip() for kind in given.deployed.split(",")]
        own = any(kind in converting.KINDS for kind in kinds)
        things = (
            [converting.convert(model, kind, batch, folder) for kind in kinds] if own else [given.deployed]
        )
        for thing in things:
            found.append(
                checking.parity(model, thing, batch, precision=precision, timed=not given.no_latency)
            )
    report = reporting.ModelReport(
        name=given.model, command="parity", codes=checking.CODES,
        items=[item for one in found for item in one.findings], facts=commands.facts(model, batch),
        params=commands.params(given), parts=reports.tables(found), timings=clock.seconds,
    )  # fmt: skip
    return commands.finish(given, report)
