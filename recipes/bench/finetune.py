"""The fine-tuned baseline against the probe, on the same images, labels and backbone.

On a part of CIFAR-10H with labels drawn from people's votes: average precision of each score as a ranking of
the wrong labels, accuracy of the probabilities against the true classes, seconds.

    python recipes/bench/finetune.py CIFAR10H [--images 2000] [--folds 3] [--epochs 5] [--size 128]
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from _data import arguments, drawn
from sklearn.metrics import average_precision_score

from dataaudit.signals.backbones import backbone_named, embedder
from dataaudit.signals.finetune import finetuned, finetuned_probs
from dataaudit.signals.label_errors import label_errors
from dataaudit.signals.probabilities import pred_probs
from dataaudit.signals.spectrum import neighbors, spectrum
from dataaudit.sweep import sweep
from dataaudit.types import Workplace


def score(name: str, probabilities: pd.DataFrame, table: pd.DataFrame, seconds: float) -> None:
    found = probabilities.loc[table.index]
    own = found.to_numpy()[np.arange(len(found)), found.columns.get_indexer(pd.Index(table["given"]))]
    right = (found.idxmax(axis=1) == table["true"]).mean()
    ranking(f"{name}: probability of the given class", -own, table, f"accuracy {right:.3f}, {seconds:.0f} s")


def ranking(name: str, doubt: np.ndarray, table: pd.DataFrame, rest: str = "") -> None:
    precision = average_precision_score(table["given"] != table["true"], doubt)
    print(f"  {name:52} average precision {precision:.3f}   {rest}", flush=True)


def engine(
    name: str, probabilities: pd.DataFrame, labels: pd.DataFrame, table: pd.DataFrame, **known: Any
) -> None:
    judged = label_errors(probabilities, labels, **known).table.set_index("sample_id").loc[table.index]
    ranking(name, -judged["score"].to_numpy(), table)


if __name__ == "__main__":
    parser = arguments(__doc__)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--cache", type=Path, help="keep what is trained here, to go on from")
    parser.add_argument("--model", default="efficientnet_lite0")
    options = parser.parse_args()
    table = drawn(options.data, options.seed).set_index("path")
    rows = np.random.default_rng(0).choice(len(table), options.images, replace=False)
    table = table.iloc[np.sort(rows)]
    wrong = (table["given"] != table["true"]).sum()
    print(f"CIFAR-10H, seed {options.seed}, {len(table):,} images, {wrong} wrong labels")
    paths = pd.Series([str(options.data / path) for path in table.index], index=table.index)
    groups = pd.Series(np.arange(len(table)), index=table.index)
    labels = pd.DataFrame({"sample_id": table.index, "name": table["given"].to_numpy()}, index=table.index)

    started = time.perf_counter()
    swept = sweep(paths, embedder=embedder(backbone_named(), device=options.device))
    found = spectrum(swept.embeddings)
    probed = pred_probs(found, neighbors(found), groups, labels)
    score("probe, 224 pixels", probed, table, time.perf_counter() - started)

    images = swept.properties.assign(filepath=paths, digest=swept.digests)
    engine("  the audit's score", probed, labels, table, judge="probe")
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as new:
        place = Workplace(cache=options.cache or Path(new), device=options.device, progress=True)
        tuned = finetuned(
            images, groups, labels, place, model=options.model, folds=options.folds, epochs=options.epochs,
            size=options.size,
        )  # fmt: skip
    score(f"fine-tuned, {tuned.size} pixels", tuned.pred_probs, table, time.perf_counter() - started)
    dynamics = tuned.dynamics.loc[table.index]
    ranking("  mean margin in training", -dynamics["margin"].to_numpy(), table)
    ranking("  mean margin when held out", -dynamics["held_out_margin"].to_numpy(), table)
    started = time.perf_counter()
    joined = finetuned_probs(tuned, found, neighbors(found), groups, labels)
    score("fine-tuned and probe joined", joined, table, time.perf_counter() - started)
    engine("  the audit's score", joined, labels, table, judge="network", training_dynamics=tuned.dynamics)
