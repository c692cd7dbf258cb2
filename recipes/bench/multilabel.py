"""Missing and extra labels against cleanlab's, on pictures made of four images of CIFAR-10H each.

The set of an image's classes is the set of those of its four parts. Labels are taken away and added at
random; both tools look at the same features. Theirs gets the probabilities of scikit-learn's 5-fold logistic
regression for each class, and ours too in a row of its own.

    python recipes/bench/multilabel.py CIFAR10H [--n 2000] [--seed 0]
    python recipes/bench/multilabel.py COCO128 --coco
"""

from __future__ import annotations

import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from _data import arguments
from cleanlab.multilabel_classification.filter import find_multilabel_issues_per_class
from cleanlab.multilabel_classification.rank import get_label_quality_scores_per_class
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.model_selection import cross_val_predict
from sklearn.preprocessing import StandardScaler

from dataaudit.checks.multilabel import cell_chances, extra_label, missing_label
from dataaudit.metrics import expected_calibration_error
from dataaudit.signals.backbones import backbone_named, embedder
from dataaudit.signals.multilabel import multilabel_probs
from dataaudit.signals.spectrum import neighbors, spectrum
from dataaudit.sweep import sweep

NOISE = ((0.10, 0.05), (0.02, 0.01), (0.30, 0.10), (0.0, 0.0))


def mosaics(data: Path, folder: Path, n: int, seed: int) -> pd.DataFrame:
    """Write pictures of 2 x 2 images; returns which of them (rows) show which class (columns)."""
    files = sorted((data / "images").glob("*/*.jpg"))
    rng = np.random.default_rng(seed)
    rows = {}
    for number in range(n):
        picture = Image.new("RGB", (64, 64))
        chosen = [files[at] for at in rng.choice(len(files), 4, replace=False)]
        for at, file in enumerate(chosen):
            picture.paste(Image.open(file).convert("RGB"), (32 * (at % 2), 32 * (at // 2)))
        path = folder / f"{number:05d}.png"
        picture.save(path)
        rows[str(path)] = {file.parent.name: True for file in chosen}
    table = pd.DataFrame.from_dict(rows, orient="index")
    return table[sorted(table)].notna()


def coco(folder: Path) -> pd.DataFrame:
    """Which of COCO's pictures (rows) shows which class (columns); of classes that two pictures show."""
    rows = {}
    images = {file.stem: file for file in sorted((folder / "images").rglob("*.jpg"))}
    for file in sorted((folder / "object_detection").rglob("*.txt")):
        lines = [line.split() for line in file.read_text().splitlines() if line[:1].isdigit()]
        if lines and file.stem in images:
            rows[str(images[file.stem])] = {line[0]: True for line in lines}
    table = pd.DataFrame.from_dict(rows, orient="index")
    table = table[sorted(table)].notna()
    return table.loc[:, table.sum() >= 2]


def planted(true: np.ndarray, forgotten: float, added: float, seed: int) -> np.ndarray:
    """The labels with a share taken away and a share (of their number) added."""
    rng = np.random.default_rng(seed)
    gone = true & (rng.random(true.shape) < forgotten)
    more = ~true & (rng.random(true.shape) < added * true.sum() / (~true).sum())
    return (true & ~gone) | more


def figures(wrong: np.ndarray, score: np.ndarray, flagged: np.ndarray, chance: np.ndarray | None) -> str:
    """Cells of the table: average precision, F1 of the flags, their number, estimate, calibration error."""
    precision = average_precision_score(wrong, -score) if wrong.any() else float("nan")
    f1 = 2 * (flagged & wrong).sum() / max(1, flagged.sum() + wrong.sum())
    worst = np.zeros(len(wrong), dtype=bool)
    worst[np.argsort(score, kind="stable")[: wrong.sum()]] = True
    best = 2 * (worst & wrong).sum() / max(1, 2 * wrong.sum())
    cells = [f"{precision:.3f}", f"{f1:.3f} ({best:.3f})", f"{flagged.sum()} of {wrong.sum()}"]
    if chance is None:
        return " | ".join([*cells, "", ""])
    error = expected_calibration_error(chance, wrong)
    return " | ".join([*cells, f"{chance.sum():.0f}", f"{error:.3f}"])


def ours(probabilities: pd.DataFrame, labels: pd.DataFrame, given: np.ndarray) -> tuple[np.ndarray, ...]:
    """(n, k) scores, flags and chances of every cell."""
    calibrated, chances = cell_chances(probabilities.to_numpy(), given)
    flags = np.zeros(given.shape, dtype=bool)
    for check in (missing_label, extra_label):
        outcome = check(probabilities, labels)
        for item in outcome.flagged.index[outcome.flagged]:
            fix = outcome.fixes[item]
            row = probabilities.index.get_loc(fix.sample_id)
            flags[row, probabilities.columns.get_loc(fix.new or fix.old)] = True
    return np.where(given, calibrated, 1 - calibrated), flags, chances


def regression(features: pd.DataFrame, given: np.ndarray, c: float) -> np.ndarray:
    standard = StandardScaler().fit_transform(features.to_numpy())
    model = LogisticRegression(C=c, max_iter=300)
    columns = [
        np.full(len(own), own.mean())  # no fold without its only label could be fitted
        if own.sum() < 2
        else cross_val_predict(model, standard, own, cv=5, method="predict_proba")[:, 1]
        for own in given.T
    ]
    return np.column_stack(columns)


def compare(features: pd.DataFrame, true: pd.DataFrame, noise: tuple[float, float], seed: int) -> None:
    truth = true.to_numpy()
    given = planted(truth, *noise, seed)
    wrong = given != truth
    rows, columns = np.nonzero(given)
    labels = pd.DataFrame(
        {
            "sample_id": true.index[rows],
            "name": true.columns[columns],
            "geometry": None,
            "locator": None,
        },
        index=[
            f"{true.index[row]}:{true.columns[column]}" for row, column in zip(rows, columns, strict=True)
        ],
    )
    started = time.perf_counter()
    groups = pd.Series(np.arange(len(features)), index=features.index)
    found = spectrum(features)
    own = multilabel_probs(found, neighbors(found), groups, labels, "multilabel")
    # A class of which one label is left has no probabilities; its frequency says nothing either way
    own = own.reindex(columns=true.columns).fillna(dict(zip(true.columns, given.mean(0), strict=True)))
    entries = [("ours", *ours(own, labels, given), time.perf_counter() - started)]
    for c in (1e-3, 1.0):
        started = time.perf_counter()
        probabilities = regression(features, given, c)
        took = time.perf_counter() - started
        started = time.perf_counter()
        sets = [np.flatnonzero(row).tolist() for row in given]
        flags = find_multilabel_issues_per_class(sets, probabilities, n_jobs=1)
        score = np.column_stack(get_label_quality_scores_per_class(sets, probabilities).T)
        seconds = took + time.perf_counter() - started
        entries.append((f"cleanlab, regression C = {c:g}", score, flags, None, seconds))
        table = pd.DataFrame(probabilities, index=features.index, columns=true.columns)
        entries.append((f"ours, regression C = {c:g}", *ours(table, labels, given), took))
    print(f"\n{noise[0]:.0%} forgotten, {noise[1]:.0%} added: {wrong[~given].sum()} missing among "
          f"{(~given).sum()} cells, {wrong[given].sum()} extra among {given.sum()} labels\n")  # fmt: skip
    heads = ["what", "by", "average precision", "F1 (at the true number)", "flagged", "expected"]
    print(f"| {' | '.join([*heads, 'calibration error', 'seconds'])} |")
    print("|---|---|---|---|---|---|---|---|")
    for title, cells in (("missing", ~given), ("extra", given)):
        for name, score, flags, chances, seconds in entries:
            chance = None if chances is None else chances[cells]
            print(f"| {title} | {name} | {figures(wrong[cells], score[cells], flags[cells], chance)} | "
                  f"{seconds:.1f} |")  # fmt: skip


if __name__ == "__main__":
    parser = arguments(__doc__)
    parser.add_argument("--n", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--coco", action="store_true", help="the folder holds COCO128 and not CIFAR-10H")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as made:
        true = (
            coco(options.data) if options.coco else mosaics(options.data, Path(made), options.n, options.seed)
        )
        paths = pd.Series(list(true.index), index=true.index)
        embedded = sweep(paths, embedder=embedder(backbone_named(), device="cpu")).embeddings
        assert embedded is not None
        true = true.loc[embedded.index]
        for each in NOISE:
            compare(embedded, true, each, options.seed + 1)
