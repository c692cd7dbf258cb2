"""Label errors found by ours and by its peers: the same images, embeddings and labels, in one run.

    python recipes/bench/label_errors.py --data DATA --set cifar10h --seeds 0 1 2 3 4 --cache CACHE
    python recipes/bench/label_errors.py --data DATA --set cifar10h --features lite0-last-128
    python recipes/bench/label_errors.py --data DATA --set pred_probs/human40_twins
    python recipes/bench/label_errors.py --set digits --noise 0.02 0.05 0.1 0.2 0.4 --kind uniform class
    python recipes/bench/label_errors.py --scale 1000000x1000
    python recipes/bench/label_errors.py --time 10000x1280 50000x1280

Needs dataaudit[bench]. DATA holds ``cifar10h/`` (see _data.py) and ``pred_probs/NAME/`` with
``pred_probs.npy``, ``noisy_labels.npy`` and ``true_labels.npy``. On CIFAR-10H one person's vote an image is
the given label, unless --noise plants errors in the original labels instead. Each method runs in a process of
its own; seconds are those of the method, without imports, features and the regression that the 5-fold
probabilities come from. A calibration error (15 bins of equal mass, of equal width) is that of a stated
probability, or of 1 - score where the score is called one; the estimated number of errors is ours by the
probabilities and the peers' by their flags.

SelfClean is under CC BY-NC 4.0 and so has an environment of its own, named by --selfclean-python:
``pip install --no-deps selfclean scienceplots && pip install loguru seaborn einops torchinfo torchmetrics
transformers scikit-learn pandas tqdm torch torchvision``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import pandas as pd
from _data import blobs, drawn, planted, swept, write_probabilities
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from dataaudit.metrics import expected_calibration_error

BINS = 15
ON_FEATURES = (
    "ours", "ours:1e-3", "datalab", "datalab:1", "datalab:1e-3", "differs:1e-3", "mistakenness:1e-3",
    "selfclean",
)  # fmt: skip
ON_PROBABILITIES = (
    "ours:own", "filter:prune_by_noise_rate/own", "filter:prune_by_class/own", "filter:both/own",
    "filter:confident_learning/own", "differs:own", "score:normalized_margin/own",
    "score:confidence_weighted_entropy/own", "score:self_confidence-adjusted/own",
)  # fmt: skip
ON_TIME = ("ours", "datalab", "datalab:1e-3")
TITLES = {
    "ours": "dataaudit LBL001",
    "datalab": "cleanlab Datalab",
    "filter": "cleanlab find_label_issues",
    "score": "cleanlab quality score",
    "differs": "prediction differs",
    "mistakenness": "FiftyOne mistakenness",
    "selfclean": "SelfClean",
    "regression": "the 5-fold regression itself",
}
COLUMNS = (
    "AUROC", "AP", "F1 flags", "F1 at true n", "P@100", "P@500", "ECE mass", "ECE width",
    "errors est/true", "s", "GiB",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One dataset with wrong labels.

    Attributes:
        title: what its runs are averaged under.
        rate: share of planted errors; None where people made them.
        kind: how they were planted.
        arrays: what the methods are given, by the names of _peers.py, without ``.npy``.
        wrong: (n,) bool.
    """

    title: str
    rate: float | None = None
    kind: str = ""
    arrays: Mapping[str, np.ndarray]
    wrong: np.ndarray


class Failed(Exception):
    """A method ended with an error, which is the message."""


@dataclass(frozen=True, kw_only=True)
class Bench:
    """How the methods are run."""

    cache: Path
    selfclean_python: str | None
    chosen: Sequence[str]
    max_gib: float | None = None

    def methods(self, among: Sequence[str]) -> list[str]:
        wanted = [name for name in among if not self.chosen or name in self.chosen]
        return [name for name in wanted if name != "selfclean" or self.selfclean_python]

    def run(self, method: str, folder: Path) -> dict[str, np.ndarray]:
        """One method in a process of its own."""
        python = self.selfclean_python if method == "selfclean" else sys.executable
        out = folder / "out.npz"
        quiet = {
            "FIFTYONE_DO_NOT_TRACK": "true",
            "FIFTYONE_DATABASE_DIR": str(self.cache / "fiftyone"),
            "PYTHONWARNINGS": "ignore",
        }
        command = [str(python), str(Path(__file__).with_name("_peers.py")), method, str(folder), str(out)]
        command += [] if self.max_gib is None else [str(self.max_gib)]
        done = subprocess.run(command, env=os.environ | quiet, capture_output=True, text=True)
        if done.returncode:
            raise Failed(f"{method} failed ({done.returncode}):\n{done.stderr[-3000:]}")
        with np.load(out) as found:
            result = dict(found)
        out.unlink()
        return result

    def probabilities(self, folder: Path, c: str, arrays: Mapping[str, np.ndarray]) -> float:
        """Write the 5-fold probabilities of a logistic regression with penalty 1 / c; returns its seconds."""
        material = hashlib.md5(arrays["features"].tobytes() + arrays["given"].tobytes() + c.encode())
        kept = self.cache / f"regression-{material.hexdigest()}.npz"
        if not kept.exists():
            found = self.run(f"regression:{c}", folder)
            np.savez(kept, values=found["probability"], seconds=found["seconds"])
        with np.load(kept) as found:
            np.save(folder / f"probabilities-{c}.npy", found["values"])
            return float(found["seconds"])


def problems(options: argparse.Namespace) -> Iterator[Problem]:
    for name in options.set:
        if name.startswith("pred_probs/"):
            folder = options.data / name
            given, true = (np.load(folder / f"{kind}_labels.npy") for kind in ("noisy", "true"))
            shares = np.load(folder / "pred_probs.npy")
            arrays = {"given": given, "probabilities-own": shares}
            yield Problem(title=name, arrays=arrays, wrong=given != true)
            continue
        if not options.noise and name == "digits":
            raise SystemExit("digits have right labels: --noise says how many to make wrong.")
        for rate in options.noise or [None]:
            for kind in options.kind if rate is not None else [""]:
                for seed in options.seeds:
                    yield _with_features(name, options, rate, kind, seed)


def _with_features(
    name: str, options: argparse.Namespace, rate: float | None, kind: str, seed: int
) -> Problem:
    if name == "digits":
        from sklearn.datasets import load_digits

        values, true = load_digits(return_X_y=True)
        arrays, title = {"features": values.astype(np.float32)}, "digits"
    else:
        folder = options.data / name
        table = drawn(folder, seed)
        classes = sorted(set(table["true"]))
        true = pd.Index(classes).get_indexer(pd.Index(table["true"]))
        arrays, title = (
            swept(folder, table["path"], options.features, options.cache),
            f"{name}, {options.features}",
        )
    if rate is None:
        given = pd.Index(classes).get_indexer(pd.Index(table["given"]))
        title += ", people's votes"
    else:
        given = planted(true, rate, kind, seed)
        title += f", {rate:.0%} {kind} noise"
    arrays |= {"given": given.astype(np.int64)}
    return Problem(title=title, rate=rate, kind=kind, arrays=arrays, wrong=given != true)


def figures(method: str, found: Mapping[str, np.ndarray], wrong: np.ndarray) -> dict[str, float]:
    """What is printed about one run of a method, without what it doesn't give."""
    suspicion, flagged = found["suspicion"], found["flagged"].astype(bool)
    order = np.argsort(-suspicion, kind="stable")
    n_wrong = int(wrong.sum())
    row = {
        "AUROC": roc_auc_score(wrong, suspicion),
        "AP": average_precision_score(wrong, suspicion),
        "F1 at true n": wrong[order[:n_wrong]].mean(),
        "P@100": wrong[order[:100]].mean(),
        "P@500": wrong[order[:500]].mean() if n_wrong >= 100 else np.nan,
        "s": float(found["seconds"]),
        "CPU s": float(found["cpu"]),
        "GiB": float(found["peak"]) / 2**30,
    }
    estimate = np.nan
    if len(flagged):
        row["F1 flags"] = f1_score(wrong, flagged)
        estimate = float(flagged.sum())
    if len(found["probability"]):
        chance = found["probability"].astype(float)
        row["ECE width"] = expected_calibration_error(chance, wrong, BINS)
        row["ECE mass"] = equal_mass_error(chance, wrong)
        if method.startswith("ours"):
            estimate = float(chance.sum())
    row["errors est/true"] = estimate / max(n_wrong, 1)
    return row


def equal_mass_error(probability: np.ndarray, wrong: np.ndarray) -> float:
    """Expected calibration error over bins that hold equally many samples."""
    order = np.argsort(probability, kind="stable")
    gaps = [
        abs(float(probability[part].sum()) - int(wrong[part].sum())) for part in np.array_split(order, BINS)
    ]
    return sum(gaps) / max(len(order), 1)


def title_of(method: str) -> str:
    kind, _, option = method.partition(":")
    how = {"": ", features", "own": ""}.get(option, f", 5-fold C={option}")
    if "/" in option:
        how = f", {option.split('/')[0]}"
    return TITLES[kind] + how


def compare(bench: Bench, problem: Problem) -> dict[str, dict[str, float]]:
    """The figures of each method on one dataset."""
    rows = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name, values in problem.arrays.items():
            np.save(folder / f"{name}.npy", values)
        methods = bench.methods(ON_FEATURES if "features" in problem.arrays else ON_PROBABILITIES)
        for c in ("1", "1e-3") if "features" in problem.arrays else ():
            if any(method.endswith(f":{c}") for method in methods):
                seconds = bench.probabilities(folder, c, problem.arrays)
                print(f"  5-fold regression, C={c}: {seconds:.1f} s", file=sys.stderr)
        for method in methods:
            rows[method] = figures(method, bench.run(method, folder), problem.wrong)
            print(f"  {title_of(method)}: AP {rows[method]['AP']:.3f}", file=sys.stderr)
    return rows


def show(title: str, runs: list[dict[str, dict[str, float]]], wrong: list[int], n: int) -> None:
    """One table in Markdown: the mean over the runs, and the deviation of the average precision."""
    count = f"{wrong[0]:,}" if len(set(wrong)) == 1 else f"{min(wrong):,} to {max(wrong):,}"
    print(f"\n### {title}: {n:,} labels, {count} wrong, {len(runs)} run{'s' * (len(runs) > 1)}\n")
    print(f"| | {' | '.join(COLUMNS)} |\n|---{'|---' * len(COLUMNS)}|")
    for method in runs[0]:
        table = pd.DataFrame([run[method] for run in runs]).reindex(columns=COLUMNS)
        cells = [_cell(column, table[column]) for column in COLUMNS]
        print(f"| {title_of(method)} | {' | '.join(cells)} |", flush=True)


def run_sets(bench: Bench, found: Iterator[Problem]) -> dict[str, list[dict[str, dict[str, float]]]]:
    """The figures of all runs by title, printed as soon as a title is through."""
    runs: dict[str, list[dict[str, dict[str, float]]]] = {}
    counts: list[dict[str, object]] = []
    for title, same in groupby(found, key=lambda problem: problem.title):
        print(title, file=sys.stderr)
        wrong, n, runs[title] = [], 0, []
        for problem in same:
            runs[title].append(compare(bench, problem))
            wrong.append(int(problem.wrong.sum()))
            n = len(problem.wrong)
            counts += [
                {"rate": problem.rate, "kind": problem.kind, "method": method, **row}
                for method, row in runs[title][-1].items()
                if problem.rate is not None
            ]
        show(title, runs[title], wrong, n)
    table = pd.DataFrame(counts)
    if len(table) and table["rate"].nunique() > 1:
        show_counts(table)
    return runs


def show_counts(table: pd.DataFrame) -> None:
    """Estimated over true number of errors by share of planted errors."""
    rates = sorted(table["rate"].unique())
    print("\n### Estimated over true number of errors\n")
    print(f"| noise | | {' | '.join(f'{rate:.0%}' for rate in rates)} |\n|---|---{'|---' * len(rates)}|")
    for (kind, method), rows in table.groupby(["kind", "method"], sort=False):
        means = rows.groupby("rate")["errors est/true"].mean()
        print(f"| {kind} | {title_of(method)} | {' | '.join(f'{means[rate]:.2f}' for rate in rates)} |")


def _cell(column: str, values: pd.Series[float]) -> str:
    if values.isna().all():
        return ""
    digits = {"s": 1, "GiB": 2, "errors est/true": 2}.get(column, 3)
    text = f"{values.mean():.{digits}f}"
    if len(values) > 1 and column == "AP":
        return f"{text} ± {values.std():.3f}"
    if len(values) > 1 and column == "errors est/true":
        return f"{text} ({values.min():.2f} to {values.max():.2f})"
    return text


def scale(bench: Bench, size: str) -> None:
    """Generated probabilities, ours against find_label_issues: time, and peak memory over the input's."""
    n, k = map(int, size.split("x"))
    methods = bench.methods(("ours:own", "filter:prune_by_noise_rate/own"))
    with tempfile.TemporaryDirectory(dir=bench.cache) as temporary:
        folder = Path(temporary)
        wrong = write_probabilities(folder, n, k, seed=0)
        size_of_input = n * k * 4
        print(f"\n### {n:,} x {k:,} float32 probabilities, {size_of_input / 2**30:.2f} GiB\n")
        print("| | s | CPU s | peak GiB | peak / input | F1 flags | errors est/true |")
        print(f"|---{'|---' * 6}|", flush=True)
        for method in methods:
            try:
                found = bench.run(method, folder)
            except Failed as error:
                print(f"| {title_of(method)} | failed: {str(error).splitlines()[-1]} | | | | | |", flush=True)
                continue
            row, peak = figures(method, found, wrong), float(found["peak"])
            print(
                f"| {title_of(method)} | {row['s']:.1f} | {row['CPU s']:.1f} | {peak / 2**30:.2f} "
                f"| {peak / size_of_input:.2f} | {row['F1 flags']:.3f} | {row['errors est/true']:.2f} |",
                flush=True,
            )


def timing(bench: Bench, size: str) -> None:
    """Seconds from features to findings."""
    n, d = map(int, size.split("x"))
    features, true = blobs(n, d, seed=0)
    given = planted(true, 0.05, "uniform", seed=0)
    rows = compare_timed(bench, {"features": features, "given": given}, given != true)
    print(f"\n### {n:,} x {d:,} features\n")
    print(f"| | s | of it the regression | CPU s without it | AP | GiB |\n|---{'|---' * 5}|")
    for method, (row, seconds) in rows.items():
        of_it = f"{seconds:.1f}" if seconds else ""
        figures_shown = (
            f"{row['s'] + seconds:.1f} | {of_it} | {row['CPU s']:.1f} | {row['AP']:.3f} | {row['GiB']:.2f}"
        )
        print(f"| {title_of(method)} | {figures_shown} |", flush=True)


def compare_timed(
    bench: Bench, arrays: Mapping[str, np.ndarray], wrong: np.ndarray
) -> dict[str, tuple[dict[str, float], float]]:
    rows = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name, values in arrays.items():
            np.save(folder / f"{name}.npy", values)
        for method in bench.methods(ON_TIME):
            c = method.partition(":")[2]
            seconds = bench.probabilities(folder, c, arrays) if c else 0.0
            rows[method] = figures(method, bench.run(method, folder), wrong), seconds
    return rows


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of cifar10h/ and pred_probs/")
    parser.add_argument("--set", nargs="*", default=[], help="cifar10h, digits, pred_probs/NAME")
    parser.add_argument(
        "--features", default="default", help="default, lite0-last-128 (or another size), or a backbone"
    )
    parser.add_argument("--noise", type=float, nargs="*", default=[], help="shares of planted errors")
    parser.add_argument("--kind", nargs="*", choices=["uniform", "class"], default=["uniform"])
    parser.add_argument("--seeds", type=int, nargs="*", default=[0])
    parser.add_argument("--methods", nargs="*", default=[], help=f"of {', '.join(ON_FEATURES)}; all if none")
    parser.add_argument("--selfclean-python", help="interpreter of the environment that holds SelfClean")
    parser.add_argument("--cache", type=Path, help="folder to keep features and regressions in")
    parser.add_argument("--scale", nargs="*", default=[], metavar="NxK")
    parser.add_argument("--time", nargs="*", default=[], metavar="NxD")
    parser.add_argument("--max-gib", type=float, help="memory that a method may take; it fails beyond")
    parser.add_argument("--json", type=Path, help="file for the figures of each run")
    return parser.parse_args()


def main() -> None:
    options = parsed()
    with tempfile.TemporaryDirectory() as temporary:
        options.cache = options.cache or Path(temporary)
        options.cache.mkdir(parents=True, exist_ok=True)
        bench = Bench(cache=options.cache, selfclean_python=options.selfclean_python, chosen=options.methods)
        runs = run_sets(bench, problems(options))
        for size in options.scale:
            scale(bench, size)
        for size in options.time:
            timing(bench, size)
        if options.json:
            options.json.write_text(json.dumps(runs, indent=1))


if __name__ == "__main__":
    main()
