"""What a change of the dataset did to a baseline model, on images that no version trained on."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from dataaudit import state
from dataaudit.errors import InputError, MissingDependencyError
from dataaudit.metrics import mcnemar, wilson_interval
from dataaudit.types import Source, Tables
from dataaudit.version import git
from dataaudit.version.difference import BETWEEN, samples
from dataaudit.version.history import declare
from dataaudit.version.place import Place, place_of, write, write_json
from dataaudit.version.snapshot import find, read

if TYPE_CHECKING:
    from dataaudit.signals.backbones import Backbone
    from dataaudit.version.detection import Detect, DetectionComparison

__all__ = ["Comparison", "compare"]

Embed = Callable[[Tables], pd.DataFrame]
TEST: tuple[str, ...] = ("test", "testing")
VALIDATION: tuple[str, ...] = ("val", "valid", "validation", "dev")
C = 1e-2
"""Inverse strength of the baseline's regularisation. It is set once, not searched for: a search would give
each version a model of its own, and the figures would then mix the labels' effect with the search's luck. On
standardised features of a pretrained backbone a strong regularisation is better than scikit-learn's default
of 1, above all where labels are wrong."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The baseline's accuracy with each version's labels, on the same held-out images.

    Attributes:
        table: index ``version``, in the order asked for; ``n_train``, ``n_test``, ``accuracy``, ``low`` and
            ``high`` (95 % Wilson interval), ``difference`` to the first version, ``gained`` and ``lost``
            (held-out images that only this or only the first version has right) and ``p_value`` (exact
            McNemar test; NaN for the first).
        per_class: index ``class``; ``n`` (held-out images) and the accuracy with each version.
        newest: the version whose labels are the truth.
        held_out: where the held-out images come from, as a person reads it.
    """

    table: pd.DataFrame
    per_class: pd.DataFrame
    newest: str
    held_out: str

    measure = "accuracy"
    """The column that is compared."""
    named = "accuracy"

    def to_dict(self) -> dict[str, Any]:
        """The comparison ready for JSON; also what ``dvc metrics`` shows."""
        rows = self.table.astype(object).where(self.table.notna(), None)
        classes = self.per_class.astype(object).where(self.per_class.notna(), None)
        return {
            "newest": self.newest,
            "held_out": self.held_out,
            "versions": {str(name): row for name, row in rows.to_dict(orient="index").items()},
            "per_class": {str(name): row for name, row in classes.to_dict(orient="index").items()},
        }

    def to_text(self, *, limit: int = 10) -> str:
        """The comparison as lines for a terminal.

        Args:
            limit: how many classes are listed, those that changed most.
        """
        lines = [f"Baseline accuracy on {self.held_out}, against the labels of {self.newest}", ""]
        width = max(len(str(name)) for name in self.table.index)
        for name, row in self.table.to_dict(orient="index").items():
            line = f"  {name!s:<{width}}  {row['accuracy']:.2%}  [{row['low']:.2%}, {row['high']:.2%}]"
            line += f"  trained on {int(row['n_train']):,}"
            if not np.isnan(row["p_value"]):
                line += f"  {row['difference'] * 100:+.2f} points, p = {row['p_value']:.3g}"
            lines.append(line)
        changed = self.changes().head(limit)
        if len(changed):
            lines += ["", f"Classes that changed most from {self.table.index[0]} to {self.table.index[-1]}"]
            lines += [f"  {100 * change:+.1f} points  {name}" for name, change in changed.items()]
        return "\n".join(lines)

    def plot(self, path: str | Path) -> Path:
        """Draw the accuracies with their intervals and what changed class by class; returns `path`.

        Args:
            path: the picture to write; its ending says the format, such as ``.png`` or ``.svg``.
        """
        return draw(self, Path(path))

    def changes(self) -> pd.Series[float]:
        """Change of each class's accuracy from the first version to the last, largest first, no zeros."""
        first, last = self.per_class.iloc[:, 1], self.per_class.iloc[:, -1]
        change = (last - first).astype(float)
        change = change[change != 0]
        order = change.abs().sort_values(ascending=False, kind="stable").index
        return change.loc[order]

    def __repr__(self) -> str:
        parts = ", ".join(f"{name} {share:.2%}" for name, share in self.table["accuracy"].items())
        return f"Comparison({parts}; {self.held_out})"


def compare(
    dataset: str | Path | Source,
    versions: Sequence[str],
    *,
    backbone: str | Backbone = "efficientnet_lite0",
    device: str = "auto",
    embed: Embed | None = None,
    detect: Detect | None = None,
    groups: Mapping[str, Hashable] | None = None,
    mlflow: bool = False,
    progress: bool = True,
) -> Comparison | DetectionComparison:
    """Train the baseline on each version's labels and score all on the same held-out images.

    The held-out images are the test split of the newest version, else its validation split, else a fifth
    chosen by content, and its labels are the truth. No version trains on an image whose content is held out.
    Of a detection dataset the baseline detector is trained in folds, and all images that the versions have in
    common are looked at where there is neither split; each by a model that didn't see it.
    The figures go to ``compare.json`` and ``compare.csv`` in the dataset's state, which ``dvc metrics`` and
    ``dvc plots`` show.

    Args:
        dataset: the folder, the manifest or a source.
        versions: two or more of ``v1``, tags or git revisions; the first is what the others are compared to.
        backbone: network whose features the baseline is trained on; they come from the cache where an audit
            has put them.
        device: ``auto``, ``cpu``, ``cuda``, ``mps``.
        embed: features of your own instead: takes tables, gives a table with index ``sample_id``, (n, d)
            float32; images that can't be decoded may lack. It is called once, each distinct content once.
        detect: of a detection dataset a detector of your own instead, called once a version; see
            `dataaudit.version.detection.Detect`.
        groups: near-duplicate group by digest; what shares a group with a held-out image isn't trained on.
        mlflow: log parameters, figures and the plot to MLflow, into the active run if there is one.
        progress: show a bar while files are fetched.

    Returns:
        The comparison.

    Raises:
        InputError: fewer than two versions, an unknown one, no held-out image, or one class to train on.
        ConflictError: files are missing from the cache and no remote has them.
        MissingDependencyError: MLflow is asked for and isn't installed.
    """
    names = list(dict.fromkeys(versions))
    if len(names) < 2:
        raise InputError(f"{len(names)} version to compare; expected two or more, such as v1 and v2.")
    if mlflow:
        _mlflow()
    place = place_of(dataset)
    commits = {name: find(place, name) for name in names}
    latest = git.in_order(place.git_root, list(commits.values()))[-1]
    newest = next(name for name in names if commits[name] == latest)
    tables = {name: read(place.source, name, progress=progress) for name in names}
    found: Comparison | DetectionComparison
    if all(table.task == "detection" for table in tables.values()):
        from dataaudit.version.detection import compare_objects

        found = compare_objects(
            tables, newest=newest, backbone=backbone, device=device, detect=detect, progress=progress
        )
    else:
        found = _compare_classes(
            place, tables, newest, backbone=backbone, device=device, embed=embed, groups=groups,
            progress=progress,
        )  # fmt: skip
    _record(place, found)
    if mlflow:
        _log(found, place)
    return found


def _compare_classes(
    place: Place,
    tables: Mapping[str, Tables],
    newest: str,
    *,
    backbone: str | Backbone,
    device: str,
    embed: Embed | None,
    groups: Mapping[str, Hashable] | None,
    progress: bool,
) -> Comparison:
    union = _union(list(tables.values()), place.source)
    if embed is None:
        from dataaudit import pipeline

        features = pipeline.embed(union, backbone=backbone, device=device, progress=progress)
    else:
        features = embed(union)
    rows = {name: _usable(table, features) for name, table in tables.items()}
    several = any(table.task == "multilabel" for table in tables.values())
    return compare_rows(rows, features, newest=newest, groups=groups, several=several)


def _union(tables: Sequence[Tables], source: Source) -> Tables:
    """Each distinct content of some tables once, its digest as the sample id."""
    images = pd.concat([table.images for table in tables]).dropna(subset="digest")
    images = images.drop_duplicates("digest")
    images = images.set_index(pd.Index(images["digest"], name="sample_id"))
    return Tables(images=images, labels=tables[0].labels.iloc[:0], classes=(), source=source)


def _usable(tables: Tables, features: pd.DataFrame) -> pd.DataFrame:
    rows = samples(tables).dropna(subset="digest")
    if tables.task == "multilabel":
        rows = rows.assign(name=rows["name"].fillna(""))
    rows = rows.dropna(subset="name")
    return rows[rows["digest"].isin(features.index)]


def compare_rows(
    rows: Mapping[str, pd.DataFrame],
    features: pd.DataFrame,
    *,
    newest: str,
    groups: Mapping[str, Hashable] | None = None,
    several: bool = False,
) -> Comparison:
    """Compare labels of the same contents.

    Args:
        rows: for each version a table of labeled samples, columns ``digest``, ``name`` and ``split``.
        features: index digest, (n, d) float.
        newest: the version whose labels are the truth.
        groups: near-duplicate group by digest.
        several: whether ``name`` holds all classes of a sample, joined; the baseline is then right where it
            has all of them right.
    """
    truth, splits, held_out = _held_out(rows[newest])
    groups = groups or {}
    closed = {groups[digest] for digest in truth.index if digest in groups}
    test = features.loc[truth.index].to_numpy(dtype=np.float32)
    right: dict[str, npt.NDArray[np.bool_]] = {}
    n_train: dict[str, int] = {}
    for name, table in rows.items():
        kept = ~table["digest"].isin(truth.index) & ~folded(table["split"]).isin(splits)
        kept &= ~table["digest"].map(lambda digest: groups.get(digest, _FREE) in closed)
        train = table[kept]
        predict = _predict_sets if several else _predict
        predicted = predict(features, train, test, name)
        right[name], n_train[name] = predicted == truth.to_numpy(), len(train)
    return Comparison(
        table=_table(right, n_train),
        per_class=_per_class(right, truth, several=several),
        newest=newest,
        held_out=f"{len(truth):,} {held_out}",
    )


_FREE = object()


def folded(splits: pd.Series[Any]) -> pd.Series[Any]:
    """Names of splits in small letters."""
    return splits.map(lambda split: split.lower() if isinstance(split, str) else split)


def _held_out(table: pd.DataFrame) -> tuple[pd.Series[str], tuple[str, ...], str]:
    """The class of each held-out content, the splits that nothing is trained on, and where they come from."""
    splits, source = TEST, "images of the test split"
    rows = table[folded(table["split"]).isin(splits)]
    if not len(rows):
        splits, source = VALIDATION, "images of the validation split"
        rows = table[folded(table["split"]).isin(splits)]
    if not len(rows):
        splits, source = (), "images, a fifth chosen by content"
        rows = table[table["digest"].map(lambda digest: int(digest[:8], 16) % 5 == 0).astype(bool)]
    # A content held out under two classes has no truth to score against.
    agreed = rows.groupby("digest")["name"].nunique()
    rows = rows[rows["digest"].map(agreed) == 1].drop_duplicates("digest")
    if not len(rows):
        raise InputError(
            f"No image can be held out of {len(table)} labeled ones.",
            fix="Compare versions with more images, or with a test or validation split.",
        )
    return rows.set_index("digest")["name"], splits, source


def _predict(
    features: pd.DataFrame, train: pd.DataFrame, test: npt.NDArray[np.float32], name: str
) -> npt.NDArray[Any]:
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    if train["name"].nunique() < 2:
        raise InputError(
            f"The version {name!r} has {train['name'].nunique()} class to train on, in {len(train)} images "
            "outside the held-out ones; expected at least 2."
        )
    scaler = StandardScaler()
    fitted = scaler.fit_transform(features.loc[train["digest"]].to_numpy(dtype=np.float32))
    model = LogisticRegression(C=C, max_iter=1000).fit(fitted, train["name"].to_numpy(dtype=str))
    predicted: npt.NDArray[Any] = model.predict(scaler.transform(test))
    return predicted


def _predict_sets(
    features: pd.DataFrame, train: pd.DataFrame, test: npt.NDArray[np.float32], name: str
) -> npt.NDArray[Any]:
    """The classes of each held-out image, joined: a regression for each class."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    sets = [set(names.split(BETWEEN)) if names else set() for names in train["name"]]
    classes = sorted(set().union(*sets))
    if not classes:
        raise InputError(
            f"The version {name!r} has no class to train on, in {len(train)} images outside the held-out "
            "ones; expected at least 1."
        )
    scaler = StandardScaler()
    fitted = scaler.fit_transform(features.loc[train["digest"]].to_numpy(dtype=np.float32))
    shown = scaler.transform(test)
    columns = []
    for each in classes:
        there = np.array([each in own for own in sets])
        constant = there.all()  # then there is nothing to learn
        model = None if constant else LogisticRegression(C=C, max_iter=1000).fit(fitted, there)
        columns.append(np.full(len(test), True) if model is None else model.predict(shown))
    found = np.column_stack(columns)
    return np.array([BETWEEN.join(np.array(classes, dtype=object)[row]) for row in found], dtype=object)


def _table(right: Mapping[str, npt.NDArray[np.bool_]], n_train: Mapping[str, int]) -> pd.DataFrame:
    first = next(iter(right.values()))
    rows = []
    for number, (name, hits) in enumerate(right.items()):
        low, high = wilson_interval(int(hits.sum()), len(hits))
        lost, gained, p_value = mcnemar(first, hits)
        rows.append(
            {
                "version": name, "n_train": n_train[name], "n_test": len(hits),
                "accuracy": float(hits.mean()), "low": low, "high": high,
                "difference": float(hits.mean() - first.mean()),
                "gained": gained, "lost": lost, "p_value": p_value if number else float("nan"),
            }
        )  # fmt: skip
    return pd.DataFrame(rows).set_index("version")


def _per_class(
    right: Mapping[str, npt.NDArray[np.bool_]], truth: pd.Series[str], *, several: bool
) -> pd.DataFrame:
    """Share of the images of each class that each version's baseline has right."""
    hits = pd.DataFrame(dict(right), index=pd.Index(truth.to_numpy(), name="class"))
    if several:
        own = [names.split(BETWEEN) if names else ["(none)"] for names in truth]
        classes = pd.Series(own, index=range(len(own)), name="class", dtype=object).explode()
        hits = hits.iloc[classes.index].set_axis(pd.Index(classes.to_numpy(), name="class"))
    table = hits.groupby(level=0).mean()
    table.insert(0, "n", hits.groupby(level=0).size())
    return table


def _record(place: Place, found: Comparison | DetectionComparison) -> None:
    """Write the figures where ``dvc metrics`` and ``dvc plots`` look for them."""
    state.prepare(place.source)
    write_json(place.state / "compare.json", found.to_dict())
    write(place.state / "compare.csv", found.table[[found.measure, "low", "high"]].to_csv().encode())
    declare(place)


def draw(found: Comparison | DetectionComparison, path: Path) -> Path:
    """Draw a comparison into a file; returns its path."""
    from matplotlib.figure import Figure

    table, changes = found.table, found.changes().head(20)[::-1]
    height = max(3.2, 1.2 + 0.26 * len(changes))
    figure = Figure(figsize=(9.5, height), layout="constrained")
    left, right = figure.subplots(1, 2)
    places, shares = np.arange(len(table)), 100 * table[found.measure].to_numpy()
    ends = np.abs(100 * table[["low", "high"]].to_numpy().T - shares)
    left.errorbar(places, shares, yerr=ends, fmt="o", capsize=4, color="#1f5f8b")
    for spot, share in zip(places, shares, strict=True):
        left.annotate(f"{share:.1f}", (spot, share), xytext=(8, 0), textcoords="offset points", va="center")
    left.set_xticks(places, [str(name) for name in table.index])
    left.set_xlim(-0.5, len(table) - 0.5)
    left.set_ylabel(f"{found.named} in %, 95 % interval")
    left.set_title(f"{found.held_out},\nlabels of {found.newest}", fontsize=10)
    colors = ["#2a7f4f" if change > 0 else "#b3402e" for change in changes]
    right.barh([str(name) for name in changes.index], 100 * changes.to_numpy(), color=colors)
    right.axvline(0, color="#444444", linewidth=0.8)
    right.set_xlabel("change in points")
    title = f"by class, {table.index[0]} to {table.index[-1]}"
    right.set_title(title if len(changes) else f"{title}: no change", fontsize=10)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)
    return path


def _mlflow() -> Any:
    try:
        import mlflow
    except ImportError:
        raise MissingDependencyError(
            "Logging to MLflow needs the package mlflow-skinny or mlflow, and neither is installed.",
            fix="Install it: pip install 'dataaudit[mlflow]'",
        ) from None
    return mlflow


def _log(found: Comparison | DetectionComparison, place: Place) -> None:
    mlflow = _mlflow()
    mine = mlflow.active_run() is None
    if mine:
        mlflow.start_run(run_name=f"compare {place.prefix} {' '.join(map(str, found.table.index))}")
    try:
        mlflow.log_params(
            {
                "dataset": place.prefix, "versions": " ".join(map(str, found.table.index)),
                "newest": found.newest, "held_out": found.held_out,
                **({"C": C} if isinstance(found, Comparison) else {}),
            }
        )  # fmt: skip
        for step, (name, row) in enumerate(found.table.to_dict(orient="index").items()):
            mlflow.log_metric(found.measure, row[found.measure], step=step)
            safe = re.sub(r"[^\w./-]", "-", str(name))
            mlflow.log_metric(f"version/{safe}/{found.measure}", row[found.measure])
            mlflow.log_metric(f"version/{safe}/n_train", row["n_train"])
        with tempfile.TemporaryDirectory() as folder:
            mlflow.log_artifact(str(found.plot(Path(folder) / "compare.png")))
            write_json(Path(folder) / "compare.json", found.to_dict())
            mlflow.log_artifact(str(Path(folder) / "compare.json"))
    finally:
        if mine:
            mlflow.end_run()
