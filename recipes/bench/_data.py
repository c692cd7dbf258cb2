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
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from dataaudit.signals.backbones import Backbone


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


def planted(true: np.ndarray, rate: float, kind: str, seed: int) -> np.ndarray:
    """Given labels of which a share is wrong.

    Args:
        true: (n,) class numbers from 0.
        rate: share of wrong labels, at most 0.5.
        kind: ``uniform``: every class has its share, and any other class may be the wrong one; ``class``: the
            shares of the classes lie between a quarter and seven quarters of the rate, none above a half, and
            four in five wrong labels of a class name one other class.
        seed: of the random numbers.

    Returns:
        (n,) class numbers.
    """
    rng = np.random.default_rng(seed)
    k = int(true.max()) + 1
    rates = np.full(k, rate)
    if kind == "class":
        most = min(1.75 * rate, 0.5)
        rates = np.linspace(2 * rate - most, most, k)[rng.permutation(k)]
    wrong = np.concatenate(
        [
            rng.choice(members, round(share * len(members)), replace=False)
            for share, members in ((rates[c], np.flatnonzero(true == c)) for c in range(k))
        ]
    )
    given = true.copy()
    given[wrong] = (true[wrong] + rng.integers(1, k, len(wrong))) % k
    if kind == "class":
        order = rng.permutation(k)
        partner = np.empty(k, dtype=true.dtype)
        partner[order] = np.roll(order, 1)
        to_partner = rng.random(len(wrong)) < 0.8
        given[wrong[to_partner]] = partner[true[wrong[to_partner]]]
    return given


def lite0_last(size: int) -> Backbone:
    """EfficientNet-Lite0's last layer alone, on images of `size` pixels."""
    import torch
    from PIL import Image

    from dataaudit.signals.backbones import Backbone
    from dataaudit.signals.networks.lite import load_lite

    class Last(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = load_lite(0)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            x = self.network.stem((images.permute(0, 3, 1, 2).float() - 127.0) / 128.0)
            for stage in self.network.stages:
                x = stage(x)
            return self.network.head(x).mean((2, 3))

    def squeeze(image: Image.Image) -> np.ndarray:
        return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))

    return Backbone(name=f"bench-lite0-last-{size}", preprocess=squeeze, build=Last, size=size)


def swept(data: Path, paths: pd.Series[str], name: str, cache: Path) -> dict[str, np.ndarray]:
    """Features, perceptual hashes and thumbnails of the images, kept in `cache`; and which network each
    feature comes from, where there are several.

    Args:
        data: folder that the paths are relative to.
        paths: (n,) paths of the images.
        name: ``default``, ``lite0-last-128``, or what `dataaudit.signals.backbones.backbone_named` takes.
        cache: folder.
    """
    from dataaudit.signals.backbones import backbone_named, embedder
    from dataaudit.sweep import sweep

    if name.startswith("lite0-last-"):
        backbone = lite0_last(int(name.removeprefix("lite0-last-")))
    else:
        backbone = backbone_named() if name == "default" else backbone_named(name)
    file = cache / f"{data.name}-{backbone.name.replace('/', '_')}.npz"
    if not file.exists():
        where = pd.Series([str(data / path) for path in paths], index=list(paths))
        found = sweep(where, embedder=embedder(backbone, device="cpu"))
        assert found.embeddings is not None
        arrays = {"features": found.embeddings, "phash": found.phash, "thumbnails": found.thumbnails}
        kept = {key: value.loc[list(paths)].to_numpy() for key, value in arrays.items()}
        if backbone.blocks:
            kept["networks"] = np.array(found.embeddings.columns.get_level_values(0), dtype=str)
        np.savez(file, **kept)
    with np.load(file) as values:
        return dict(values)


def blobs(n: int, d: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Features of ten overlapping classes whose spectrum falls as that of a network's does: (n, d) float32,
    and (n,) class numbers."""
    rng = np.random.default_rng(seed)
    spread = (1 + np.arange(d)) ** -0.5
    centres = 0.5 * rng.normal(size=(10, d)) * spread * (np.arange(d) < 40)
    true = rng.integers(0, 10, n)
    features = rng.standard_normal((n, d), dtype=np.float32) * spread.astype(np.float32)
    features += centres.astype(np.float32)[true]
    return features, true


def write_probabilities(folder: Path, n: int, k: int, seed: int) -> np.ndarray:
    """Write (n, k) probabilities and (n,) given labels, a twentieth of them wrong; returns which are.

    A row's logits are normal, and that of the true class is higher by 9 on average, so that few rows are
    doubtful, as with a good model.
    """
    rng = np.random.default_rng(seed)
    true = rng.integers(0, k, n)
    given = planted(true, 0.05, "uniform", seed)
    shares = np.lib.format.open_memmap(
        folder / "probabilities-own.npy", mode="w+", dtype=np.float32, shape=(n, k)
    )
    for start in range(0, n, 10_000):
        here = slice(start, min(start + 10_000, n))
        rows = rng.standard_normal((here.stop - start, k), dtype=np.float32)
        rows[np.arange(len(rows)), true[here]] += rng.normal(9, 3, len(rows)).astype(np.float32)
        np.exp(rows, out=rows)
        rows /= rows.sum(1, keepdims=True)
        shares[here] = rows
    shares.flush()
    np.save(folder / "given.npy", given)
    return given != true
