"""``dataaudit model view``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from dataaudit.modelcheck import commands

HELP = "show the architecture in Netron"


def arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    commands.model_argument(parser)
    parser.add_argument("--input-shape", metavar="C,H,W", help="of one sample, where it can't be found out")
    parser.add_argument("--output", metavar="FOLDER", default=".dataaudit/models",
                        help="where an export is written (%(default)s)")  # fmt: skip
    parser.add_argument("--no-open", action="store_true", help="only write the file, and print where it is")
    parser.add_argument("--port", type=int, metavar="N", help="of the server (a free one)")


def run(given: argparse.Namespace) -> int:
    """Show the model; returns the exit code."""
    from dataaudit.errors import InputError
    from dataaudit.modelcheck import inputs, loading, viewing

    model, batch = given.model, None
    if given.input_shape:
        try:
            shape = tuple(int(side) for side in given.input_shape.split(","))
        except ValueError:
            raise InputError(f"--input-shape is {given.input_shape!r}; expected such as 3,224,224.") from None
        model = loading.load_model(given.model)
        batch = inputs.random_batch(model, 2, shape=shape)
    file = viewing.file_of(model, Path(given.output), batch=batch)
    if given.no_open:
        sys.stdout.write(f"{file}\n")
        return 0
    address = viewing.view(file, port=given.port)
    sys.stdout.write(f"{file} is shown at {address}; stop with Ctrl+C\n")
    sys.stdout.flush()
    viewing.wait()
    return 0
