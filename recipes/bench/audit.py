"""A whole audit from the command line: first, again, and after 100 relabels; against a bare loop of the
fastest runtime.

The tree holds CIFAR-10H with labels drawn from people's votes. The bare loop runs over the same images,
decoded before its clock starts. With --memory, the peak memory of audits of 10,000 and of 40,000 images.
Needs dataaudit[bench].

    python recipes/bench/audit.py CIFAR10H [--memory] [--no-fiftyone]
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from _data import arguments, drawn, write_tree
from PIL import Image

_TIMED = """
import os, subprocess, sys, time
started = time.perf_counter()
quiet = subprocess.DEVNULL
process = subprocess.Popen(sys.argv[1:], stdout=quiet, stderr=quiet)
_, status, usage = os.wait4(process.pid, 0)
assert status == 0, status
print(time.perf_counter() - started, usage.ru_maxrss / 2**20)
"""
"""Run by a small process of its own: a child counts the memory of the process that it was forked from."""


def command(folder: Path, *more: str) -> tuple[float, float]:
    """Seconds and peak memory in GiB of one audit."""
    audit = [sys.executable, "-m", "dataaudit.cli", "audit", str(folder), "--exit-zero", "-q", *more]
    timed = [sys.executable, "-c", _TIMED, *audit]
    seconds, peak = subprocess.run(timed, check=True, capture_output=True, text=True).stdout.split()
    return float(seconds), float(peak)


def bare_loop(data: Path, n: int) -> tuple[str, float]:
    """The fastest runtime, and its seconds for n images."""
    from embeddings import decoded, rates_of_bare_loops

    paths = [str(path) for path in sorted((data / "images").glob("*/*.jpg"))[:960]]
    rates = rates_of_bare_loops(decoded(paths))
    for name, rate in rates.items():
        print(f"  bare loop, {name:14} {rate:6.1f} images/s, {n / rate:5.1f} s for {n:,}")
    named = {name: rate for name, rate in rates.items() if name != "OpenVINO"}
    best = max(named, key=lambda name: named[name])
    return best, n / named[best]


def four_times(folder: Path, into: Path) -> None:
    """Each image four times, turned and mirrored so that the contents differ."""
    turns = (None, Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_270)
    for path in folder.glob("*/*.jpg"):
        (into / path.parent.name).mkdir(parents=True, exist_ok=True)
        image = Image.open(path)
        for i, turn in enumerate(turns):
            turned = image if turn is None else image.transpose(turn)
            turned.save(into / path.parent.name / f"{path.stem}-{i}.jpg", quality=95)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--no-fiftyone", action="store_true")
    options = parser.parse_args()
    more = ["--no-fiftyone"] if options.no_fiftyone else []
    with tempfile.TemporaryDirectory() as temporary:
        tree = Path(temporary) / "photos"
        write_tree(options.data, tree, drawn(options.data, 0))
        time.sleep(3)  # files younger than two seconds are read again
        best, bare = bare_loop(options.data, 10_000)
        first, memory = command(tree, *more)
        again, _ = command(tree, *more)
        move(tree, 100)
        time.sleep(3)
        after, _ = command(tree, *more)
        print(
            f"first audit      {first:6.1f} s   {first / bare:.2f} times the bare loop of {best}; target 1.4"
        )
        print(f"again            {again:6.1f} s   {again / first:.1%} of the first; target 12 %")
        print(f"100 relabels     {after:6.1f} s   {after / first:.1%} of the first; target 15 %")
        print(f"peak memory      {memory:6.2f} GiB; target under 2")
        if options.memory:
            large = Path(temporary) / "large"
            four_times(tree, large)
            seconds, larger = command(large, *more)
            features = 30_000 * 1408 * 4 / 2**30
            print(f"40,000 images    {seconds:6.1f} s, peak {larger:.2f} GiB: {larger - memory:+.2f} GiB")
            print(f"                 the features of 30,000 more take {features:.2f} GiB in float32")


def move(tree: Path, n: int) -> None:
    """Relabel n images by hand, as a file manager would."""
    paths = sorted(tree.glob("*/*.jpg"))
    classes = sorted(folder.name for folder in tree.iterdir() if folder.is_dir())
    for i in np.random.default_rng(0).choice(len(paths), n, replace=False):
        other = classes[(classes.index(paths[i].parent.name) + 1) % len(classes)]
        paths[i].rename(tree / other / paths[i].name)


if __name__ == "__main__":
    main()
