"""What the benchmarks share: the images of CIFAR-10H with labels that people gave, and how figures are
printed.

CIFAR-10H: Peterson et al., "Human uncertainty makes classification more robust", ICCV 2019 (CC BY-NC-SA
4.0). The folder holds the 10,000 CIFAR-10 test images and ``human_counts.csv``: path, label_name and,
for each class, how many people chose it (``h_airplane``, ...).
"""

from __future__ import annotations

import argparse
import resource
import shutil
from pathlib import Path

import numpy as np
import pandas as pd


def arguments(description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("data", type=Path, help="folder with CIFAR-10H: images/ and human_counts.csv")
    return parser


def drawn(data: Path, seed: int) -> pd.DataFrame:
    """One vote an image as the given label: columns path, true, given."""
    table = pd.read_csv(data / "human_counts.csv")
    columns = [name for name in table if name.startswith("h_")]
    shares = table[columns].to_numpy(dtype=float)
    shares /= shares.sum(1, keepdims=True)
    chosen = (np.random.default_rng(seed).random(len(shares))[:, None] > shares.cumsum(1)).sum(1)
    names = np.array([name[2:] for name in columns])
    given = names[np.minimum(chosen, len(names) - 1)]
    return pd.DataFrame({"path": table["path"], "true": table["label_name"], "given": given})


def write_tree(data: Path, folder: Path, labels: pd.DataFrame) -> pd.Series[str]:
    """Copy the images into class folders by their given label; returns the true class by sample id."""
    true = {}
    for i, row in enumerate(labels.itertuples()):
        sample_id = f"{row.given}/{i:05d}.jpg"
        (folder / str(row.given)).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(data / str(row.path), folder / sample_id)
        true[sample_id] = row.true
    return pd.Series(true)


def peak_gib() -> float:
    """Peak memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
