"""Time and memory of the model checks on a ResNet-18 on the CPU, against one training step.

    python recipes/bench/model_checks.py [--side 64] [--n 8] [--each]

Prints seconds and the peak of memory of the sanity suite, and with --each of the checks in it, over what a
step needs. Each runs in a process of its own, as the peak of a process never falls; what counts is what comes
on top of the imports, the model and the batch. One step is what training holds: weights, gradients, the state
of AdamW and what the forward pass keeps.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from typing import Any

CHECKS = ("trace", "loss", "determinism", "gradients", "overfit")


def once(what: str, side: int, n: int) -> tuple[float, float, str]:
    """Seconds, MB of the peak above what was there before, and what the suite said."""
    import torch
    import torchvision
    from torch import nn

    import dataaudit.modelcheck.suite  # noqa: F401  its imports count for none

    torch.manual_seed(0)
    model = torchvision.models.resnet18(num_classes=10)
    x, y, loss = torch.randn(n, 3, side, side), torch.arange(n) % 10, nn.CrossEntropyLoss()
    # A first step of another network starts what PyTorch starts once, such as its autograd threads
    nn.Conv2d(3, 3, 3)(torch.randn(1, 3, 8, 8)).sum().backward()
    torch.optim.AdamW(nn.Linear(1, 1).parameters()).step()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    said = run(what, model, loss, x, y)
    seconds = time.perf_counter() - start
    return seconds, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024, said


def run(what: str, model: Any, loss: Any, x: Any, y: Any) -> str:
    """Do one of the checks, or two training steps; returns what it said."""
    import torch

    from dataaudit import modelcheck

    if what == "step":
        optimizer = torch.optim.AdamW(model.parameters())
        for _ in range(2):
            optimizer.zero_grad()
            loss(model(x), y).backward()
            optimizer.step()
        return ""
    if what == "trace":
        modelcheck.trace(model, x)
    elif what == "loss":
        modelcheck.loss_inputs(model, loss, x, y)
    elif what == "determinism":
        modelcheck.determinism(model, x)
    elif what == "gradients":
        modelcheck.gradients(model, loss, x, y)
    elif what == "overfit":
        return modelcheck.overfit(model, loss, x, y).said
    else:
        done = modelcheck.sanity(model, loss, x, y)
        codes = ", ".join(item.code for item in done.findings) or "nothing found"
        return f"{codes}; {done.skipped or 'all checks ran'}; {done.overfit.said if done.overfit else ''}"
    return ""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--side", type=int, default=64, help="of the images, in pixels (%(default)s)")
    parser.add_argument("--n", type=int, default=8, help="samples of the batch (%(default)s)")
    parser.add_argument("--each", action="store_true", help="each check by itself as well")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.only:
        print(*once(given.only, given.side, given.n), sep="\t")
        return
    base = 0.0
    for what in ("step", "sanity", *(CHECKS if given.each else ())):
        command = [sys.executable, __file__, "--only", what, "--side", str(given.side), "--n", str(given.n)]
        done = subprocess.run(command, check=True, capture_output=True, text=True).stdout.rstrip("\n")
        seconds, peak, said = done.split("\t")
        base = float(peak) if what == "step" else base
        print(
            f"{what:12} {float(seconds):6.1f} s  {float(peak):6.0f} MB  "
            f"{float(peak) / max(base, 1):.2f} x a step  {said}",
            flush=True,
        )


if __name__ == "__main__":
    main()
