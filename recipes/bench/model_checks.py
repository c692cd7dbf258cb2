"""Time and memory of the model checks on a ResNet-18 on the CPU, against one training step.

    python recipes/bench/model_checks.py [--side 64] [--n 8]

Prints seconds of overfit, determinism, loss inputs and gradients, and the peak of memory over what a step
needs. Each runs in a process of its own, as the peak of a process never falls.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time


def once(what: str, side: int, n: int) -> tuple[float, float]:
    """Seconds, and MB of the peak above what was there before the check."""
    import torch
    import torchvision
    from torch import nn

    from dataaudit.modelcheck.losses import loss_inputs
    from dataaudit.modelcheck.repeating import determinism
    from dataaudit.modelcheck.training.gradient_flow import gradients
    from dataaudit.modelcheck.training.overfitting import overfit

    torch.manual_seed(0)
    model = torchvision.models.resnet18(num_classes=10)
    x, y, loss = torch.randn(n, 3, side, side), torch.arange(n) % 10, nn.CrossEntropyLoss()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    if what == "step":
        optimizer = torch.optim.AdamW(model.parameters())
        for _ in range(2):
            optimizer.zero_grad()
            loss(model(x), y).backward()
            optimizer.step()
    elif what == "overfit":
        overfit(model, loss, x, y)
    elif what == "determinism":
        determinism(model, x)
    elif what == "loss":
        loss_inputs(model, loss, x, y)
    else:
        gradients(model, loss, x, y)
    seconds = time.perf_counter() - start
    return seconds, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--n", type=int, default=8)
    parser.add_argument("--only")
    given = parser.parse_args()
    if given.only:
        print(*once(given.only, given.side, given.n))
        return
    total, base = 0.0, 0.0
    for what in ("step", "overfit", "determinism", "loss", "gradients"):
        command = [sys.executable, __file__, "--only", what, "--side", str(given.side), "--n", str(given.n)]
        done = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        seconds, peak = float(done[0]), float(done[1])
        base = peak if what == "step" else base
        total += 0.0 if what == "step" else seconds
        print(f"{what:12} {seconds:6.1f} s  {peak:6.0f} MB  {peak / max(base, 1):.2f} x a step", flush=True)
    print(f"together     {total:6.1f} s")


if __name__ == "__main__":
    main()
