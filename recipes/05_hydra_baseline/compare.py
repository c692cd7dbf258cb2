"""Was the clean-up worth it? The runs of `train.py`, version against version, read from MLflow.

python compare.py                      # the newest setting in ./mlruns
python compare.py --uri http://mlflow:5000 --setting 3f2a91c07b --output comparison/
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tracking
from scipy import stats

from dataaudit.errors import DataAuditError, InputError
from dataaudit.modelcheck import ModelReport, baselines, curves
from dataaudit.report.text import plural

LEVEL = 0.05
CURVES = ("train_", "val_", "lr")


@dataclass(frozen=True, kw_only=True)
class Run:
    """A complete run: its tags, its predictions by sample, and its curves (columns name, step, value)."""

    version: str
    commit: str
    seed: int
    tags: dict[str, str]
    rows: pd.DataFrame
    curves: pd.DataFrame

    @property
    def accuracy(self) -> float:
        return float((self.rows["given"] == self.rows["predicted"]).mean())


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A version against the first.

    Attributes:
        gained, lost: held-out images that only this, or only the first has right, by the vote of the seeds.
        p: McNemar's exact test of these, corrected for the number of versions (Holm).
        difference: mean over the seeds that both have, in shares.
        low, high: its 95 % interval over the seeds; NaN with one seed.
    """

    version: str
    gained: int
    lost: int
    p: float
    difference: float
    low: float
    high: float
    classes: pd.DataFrame

    def verdict(self, first: str) -> str:
        """One sentence: better, worse, or not to be told."""
        by = f"{100 * self.difference:+.1f} points"
        told = self.p < LEVEL and (self.gained > self.lost) == (self.difference > 0)
        if told and (np.isnan(self.low) or self.low > 0 or self.high < 0):
            word = "better" if self.difference > 0 else "worse"
            return f"{self.version} is {word} than {first}: {by}, p = {self.p:.2g}."
        more = "seeds: they differ as much" if told else "held-out images, or more seeds"
        return (
            f"{self.version} against {first}: {by}, which may be chance (p = {self.p:.2g}). Take more {more}."
        )


def read_runs(uri: str | None, experiment: str, setting: str | None) -> list[Run]:
    """The newest complete run of each version and seed in a setting, the newest setting when None.

    Raises:
        DataAuditError: MLflow isn't installed, or there is no such experiment, setting or complete run.
    """
    mlflow = tracking.client(uri)
    known = mlflow.get_experiment_by_name(experiment)
    if known is None:
        raise InputError(
            f"There is no experiment {experiment!r}.", where=tracking.address(uri),
            fix=f"Train first. {tracking.EXAMPLE}",
        )  # fmt: skip
    wanted = f"tags.{tracking.COMPLETE} = 'true'"
    if setting is not None:
        wanted += f" and tags.setting = '{setting}'"
    newest: dict[tuple[str, str], Any] = {}
    for each in tracking.search(mlflow, known.experiment_id, wanted):
        setting = setting or each.data.tags["setting"]
        if each.data.tags["setting"] == setting:
            newest.setdefault((each.data.tags["commit"], each.data.tags["seed"]), each)
    if not newest:
        raise InputError(f"No complete run of {experiment!r} was found.", where=tracking.address(uri))
    runs = [_run(mlflow, each) for each in newest.values()]
    return sorted(runs, key=lambda run: (version_order(run.version), run.seed))


def _run(mlflow: Any, found: Any) -> Run:
    tags, number = found.data.tags, found.info.run_id
    with tempfile.TemporaryDirectory() as folder:
        file = mlflow.download_artifacts(number, tracking.PREDICTIONS, folder)
        names = dict.fromkeys(("sample_id", "digest", "given", "predicted"), str)
        rows = pd.read_csv(file, dtype=names, keep_default_na=False)
    points = [
        (f"{tags['version']}, seed {tags['seed']}", name, point.step, point.value)
        for name in found.data.metrics
        if name.startswith(CURVES)
        for point in mlflow.get_metric_history(number, name)
    ]
    return Run(
        version=tags["version"], commit=tags["commit"], seed=int(tags["seed"]), tags=dict(tags),
        rows=rows.set_index("digest").sort_index(),
        curves=pd.DataFrame(points, columns=["run", "name", "step", "value"]),
    )  # fmt: skip


def version_order(name: str) -> tuple[int, str]:
    return (int(name[1:]), "") if name[:1] == "v" and name[1:].isdigit() else (sys.maxsize, name)


def interval(values: Sequence[float]) -> tuple[float, float]:
    """95 % interval of a mean over seeds, by Student's t; NaN of one value.

    >>> [round(end, 3) for end in interval([0.80, 0.82, 0.84])]
    [0.77, 0.87]
    """
    if len(values) < 2:
        return float("nan"), float("nan")
    half = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5
    return float(np.mean(values) - half), float(np.mean(values) + half)


def vote(runs: Sequence[Run]) -> pd.Series:
    """The class that the seeds give each held-out image, by the sum of their probabilities."""
    votes = pd.concat([run.rows[["predicted", "probability"]] for run in runs])
    sums = votes.groupby(["digest", "predicted"])["probability"].sum().reset_index()
    best = sums.sort_values("probability", kind="stable").drop_duplicates("digest", keep="last")
    return best.set_index("digest")["predicted"]


def differences(runs: Sequence[Run]) -> list[Difference]:
    """Each version against the first, on the same images."""
    by_version = {name: [run for run in runs if run.version == name] for name in versions_of(runs)}
    first, *others = by_version.values()
    made = [_difference(first, other) for other in others]
    # Holm: the smallest p counts as often as there are tests, the next one less, and so on
    order = sorted(range(len(made)), key=lambda at: made[at][0].p)
    corrected, so_far = [0.0] * len(made), 0.0
    for rank, at in enumerate(order):
        so_far = max(so_far, min(1.0, made[at][0].p * (len(made) - rank)))
        corrected[at] = so_far
    return [
        Difference(
            version=other[0].version, gained=len(test.only_model), lost=len(test.only_baseline), p=p,
            difference=float(np.mean(gaps)), low=interval(gaps)[0], high=interval(gaps)[1],
            classes=test.classes,
        )
        for other, (test, gaps), p in zip(others, made, corrected, strict=True)
    ]  # fmt: skip


def _difference(first: list[Run], other: list[Run]) -> tuple[baselines.Comparison, list[float]]:
    seeds = {run.seed: run for run in first}
    shared = [run for run in other if run.seed in seeds]
    if not shared:
        raise InputError(
            f"{first[0].version} and {other[0].version} have no seed in common: "
            f"{sorted(seeds)} and {sorted(run.seed for run in other)}.",
            fix="Train the same seeds on each: seed=0,1,2",
        )
    mine = [seeds[run.seed] for run in shared]
    if not mine[0].rows.index.equals(shared[0].rows.index):
        raise InputError("The runs were tested on different images.")
    test = baselines.compare(vote(shared), vote(mine), mine[0].rows["given"])
    return test, [run.accuracy - seeds[run.seed].accuracy for run in shared]


def versions_of(runs: Sequence[Run]) -> list[str]:
    return list(dict.fromkeys(run.version for run in runs))


def table(runs: Sequence[Run]) -> pd.DataFrame:
    """Index version: seeds, n_train, accuracy, its interval over the seeds, and the share of each seed."""
    rows = {}
    for name in versions_of(runs):
        shares = [run.accuracy for run in runs if run.version == name]
        low, high = interval(shares)
        rows[name] = {
            "seeds": len(shares), "accuracy": float(np.mean(shares)),
            "low": float(np.clip(low, 0, 1)), "high": float(np.clip(high, 0, 1)), "each": shares,
        }  # fmt: skip
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("version")


def to_text(runs: Sequence[Run], made: Sequence[Difference], found: ModelReport | None) -> str:
    """The comparison as lines for a terminal."""
    n, trusted = len(runs[0].rows), runs[0].tags["trusted"]
    lines = ["", f"Accuracy on {n:,} held-out images, against the labels of {trusted}", ""]
    shown = table(runs)
    width = max(len(name) for name in shown.index)
    for name, row in shown.iterrows():
        line = f"  {name:<{width}}  {row['accuracy']:.1%}"
        if row["seeds"] > 1:
            line += f"  [{row['low']:.1%}, {row['high']:.1%}] over {row['seeds']} seeds"
        lines.append(line)
    first = versions_of(runs)[0]
    for each in made:
        lines += ["", each.verdict(first)]
        lines.append(f"  {each.gained} images only {each.version} has right, {each.lost} only {first}.")
        if not np.isnan(each.low):
            lines.append(
                f"  95 % interval over the seeds: {100 * each.low:+.1f} to {100 * each.high:+.1f} points."
            )
        lines += [f"  {line}" for line in _classes(each, first)]
    if found is not None:
        lines += ["", f"Curves: {plural(len(found.items), 'finding')} in {plural(len(runs), 'run')}"]
        lines += [f"  {item.code} {item.item_id}: {item.evidence['what']}" for item in found.items[:10]]
        if len(found.items) > 10:
            lines.append(f"  and {len(found.items) - 10} more: dataaudit model curves on the folder of a run")
    return "\n".join(lines)


def _classes(each: Difference, first: str) -> list[str]:
    """The classes that changed most; `baseline` is the first version's share."""
    change = each.classes["model"] - each.classes["baseline"]
    order = change.abs().sort_values(ascending=False, kind="stable").index[:3]
    n = each.classes["n"]
    return [f"{name}: {100 * change[name]:+.0f} points on {n[name]} images" for name in order if change[name]]


def plot(runs: Sequence[Run], path: Path) -> None:
    """A point a seed, a bar of the interval a version."""
    from matplotlib.figure import Figure

    shown = table(runs)
    figure = Figure(figsize=(6, 1.2 + 0.6 * len(shown)), layout="constrained")
    axes = figure.subplots()
    for at, (_, row) in enumerate(shown.iterrows()):
        if row["seeds"] > 1:
            axes.plot([100 * row["low"], 100 * row["high"]], [at, at], color="#9aa5b1", lw=6, alpha=0.6)
        axes.plot([100 * one for one in row["each"]], [at] * row["seeds"], "o", color="#52606d", ms=5)
        axes.plot(100 * row["accuracy"], at, "|", color="#ba2525", ms=18, mew=2)
    axes.set_yticks(range(len(shown)), list(shown.index))
    axes.invert_yaxis()
    axes.margins(y=0.4)
    axes.set_xlabel(f"accuracy in % on {len(runs[0].rows):,} held-out images")
    axes.set_title("Versions: seeds, mean and 95 % interval of the mean", fontsize=10, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)


def report(uri: str | None, experiment: str, setting: str | None, folder: str | Path) -> str:
    """Read, compare and write ``comparison.json`` and ``comparison.png``; returns the text.

    Raises:
        DataAuditError: see `read_runs`.
    """
    runs = read_runs(uri, experiment, setting)
    made = differences(runs)
    logged = pd.concat([run.curves for run in runs])
    found = curves(logged, name="runs") if len(logged) else None
    home = Path(folder)
    home.mkdir(parents=True, exist_ok=True)
    setting = runs[0].tags["setting"]
    values = {
        "setting": setting, "trusted": runs[0].tags["trusted"], "n_test": len(runs[0].rows),
        "versions": table(runs).reset_index().to_dict(orient="records"),
        "differences": [
            {k: v for k, v in vars(each).items() if k != "classes"} for each in made
        ],
        "curves": [] if found is None else [{"code": one.code, "run": one.item_id} for one in found.items],
    }  # fmt: skip
    text = json.dumps(values, indent=2, default=float).replace("NaN", "null")
    (home / f"comparison-{setting}.json").write_text(text + "\n")
    plot(runs, home / f"comparison-{setting}.png")
    return f"{to_text(runs, made, found)}\n\nPlot: {home / f'comparison-{setting}.png'}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--uri", help="of MLflow; MLFLOW_TRACKING_URI or ./mlruns when left out")
    parser.add_argument("--experiment", default="dataaudit-versions")
    parser.add_argument("--setting", help="tag of the runs to compare; the newest when left out")
    parser.add_argument("--output", default="comparison", help="folder of the plot and the figures")
    given = parser.parse_args()
    try:
        print(report(given.uri, given.experiment, given.setting, given.output))
    except DataAuditError as error:
        tracking.stop(error)


if __name__ == "__main__":
    main()
