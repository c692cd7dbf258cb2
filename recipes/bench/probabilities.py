"""Out-of-sample probabilities without refits against scikit-learn's 5-fold logistic regression, in one run.

On the features of CIFAR-10H with labels drawn from people's votes, and on 50,000 rows made of
them with noise; standardised features, C = 1e-3, the same threads. Ours includes the principal
components, the neighbours and both rounds.

    python recipes/bench/probabilities.py CIFAR10H [--seed 0]
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pandas as pd
from _data import arguments, drawn
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.model_selection import cross_val_predict
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_info

from dataaudit.signals.backbones import backbone_named, embedder
from dataaudit.signals.probabilities import pred_probs
from dataaudit.signals.spectrum import neighbors, spectrum
from dataaudit.sweep import sweep


def ours(features: pd.DataFrame, labels: pd.Series) -> tuple[np.ndarray, float]:
    started = time.perf_counter()
    found = spectrum(features)
    groups = pd.Series(np.arange(len(features)), index=features.index)
    table = pd.DataFrame({"sample_id": features.index, "name": labels.to_numpy()}, index=features.index)
    result = pred_probs(found, neighbors(found), groups, table)
    return result.loc[features.index].to_numpy(), time.perf_counter() - started


def regression(features: pd.DataFrame, labels: pd.Series, c: float) -> tuple[np.ndarray, float]:
    started = time.perf_counter()
    standard = StandardScaler().fit_transform(features.to_numpy())
    model = LogisticRegression(C=c, max_iter=300)
    result = cross_val_predict(model, standard, labels.to_numpy(), cv=5, method="predict_proba")
    return result, time.perf_counter() - started


def compare(title: str, features: pd.DataFrame, given: pd.Series, true: pd.Series) -> None:
    wrong = (given != true).to_numpy()
    classes = sorted(set(given))
    own = pd.Index(classes).get_indexer(pd.Index(given))
    print(f"\n{title}: {features.shape[0]:,} x {features.shape[1]:,}, {wrong.sum()} wrong labels")
    rows = np.arange(len(given))
    mine, seconds = ours(features, given)
    print(f"  closed form + neighbours   {seconds:6.1f} s   average precision "
          f"{average_precision_score(wrong, -mine[rows, own]):.3f}")  # fmt: skip
    for c in (1e-3, 1.0) if len(given) <= 10_000 else (1e-3,):
        theirs, others = regression(features, given, c)
        precision = average_precision_score(wrong, -theirs[rows, own])
        print(f"  5-fold regression, C={c:<6g} {others:6.1f} s   average precision {precision:.3f}", end="")
        print(f"   ratio {others / seconds:.1f}")


def five_times(features: pd.DataFrame, data: Path) -> tuple[pd.DataFrame, pd.Series, pd.Series]:
    """Real features five times, each time with noise of half their deviation and other people's labels."""
    rng = np.random.default_rng(0)
    values = features.to_numpy()
    deviation = values.std(0)
    noisy = [values + 0.5 * deviation * rng.normal(size=values.shape).astype(np.float32) for _ in range(5)]
    index = pd.Index([f"{i:06d}" for i in range(5 * len(values))])
    draws = pd.concat([drawn(data, seed).set_index("path").loc[features.index] for seed in range(5)])
    columns = [pd.Series(draws[name].to_numpy(), index=index) for name in ("given", "true")]
    return pd.DataFrame(np.concatenate(noisy), index=index), columns[0], columns[1]


if __name__ == "__main__":
    parser = arguments(__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--skip-large", action="store_true")
    options = parser.parse_args()
    table = drawn(options.data, options.seed).set_index("path")
    paths = pd.Series([str(options.data / path) for path in table.index], index=table.index)
    embedded = sweep(paths, embedder=embedder(backbone_named(), device="cpu")).embeddings
    assert embedded is not None
    print([f"{pool['internal_api']} {pool['num_threads']} threads" for pool in threadpool_info()])
    table = table.loc[embedded.index]
    compare(f"CIFAR-10H, seed {options.seed}, default features", embedded, table["given"], table["true"])
    if not options.skip_large:
        compare("CIFAR-10H five times with noise", *five_times(embedded, options.data))
