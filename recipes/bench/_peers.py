"""The methods that the bench of label errors compares, each run in a process of its own.

    python _peers.py METHOD FOLDER OUT [GIB]

FOLDER holds what the methods are given, as arrays: ``given.npy`` (n,) class numbers and, where they are
known, ``features.npy`` (n, d), ``networks.npy`` (d,), ``probabilities-NAME.npy`` (n, k), ``phash.npy`` and
``thumbnails.npy``. OUT becomes an ``.npz`` with ``suspicion`` (n,) float, high where the label looks wrong;
``flagged`` (n,) bool, or empty where the method only ranks; ``probability`` (n,) where it states one, else
empty; ``seconds`` and ``cpu``, those of its processors, child processes included; and ``peak`` and
``start``, the peak memory of the process in all and before the method began, in bytes. Imports, loading and
what a user has anyway (a FiftyOne dataset) come before the clock. A process that needs more memory than GIB
fails.

SelfClean (CC BY-NC 4.0) runs under an interpreter where it is installed, and this file imports nothing but
NumPy for that.
"""

from __future__ import annotations

import importlib
import resource
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

Found = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Suspicion, flags and probabilities."""
Method = Callable[[Mapping[str, np.ndarray]], Callable[[], Found]]
"""Takes the arrays, gets ready, and returns what is timed."""

NONE = np.empty(0)


def run(method: str, folder: Path, out: Path) -> None:
    arrays = {path.stem: np.load(path) for path in folder.glob("*.npy")}
    timed = named(method)(arrays)
    start = peak_bytes()
    started, cpu = time.perf_counter(), cpu_seconds()
    suspicion, flagged, probability = timed()
    seconds, cpu = time.perf_counter() - started, cpu_seconds() - cpu
    np.savez(out, suspicion=suspicion, flagged=flagged, probability=probability, seconds=seconds, cpu=cpu,
             peak=peak_bytes(), start=start)  # fmt: skip


def named(method: str) -> Method:
    """The method ``KIND`` or ``KIND:OPTION``, where the option names the probabilities or the variant."""
    kind, _, option = method.partition(":")
    return lambda arrays: METHODS[kind](arrays, option)


def cpu_seconds() -> float:
    """What the processors spent on this process and on its children that have ended."""
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def peak_bytes() -> int:
    """Peak memory of this process since it began, its own alone: ru_maxrss counts that of the parent too."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def ours(arrays: Mapping[str, np.ndarray], option: str) -> Callable[[], Found]:
    """LBL001 from features, or from the user's probabilities where the option names some.

    The check of the user's probabilities, by which an audit begins, is timed too.
    """
    import pandas as pd

    from dataaudit import inputs, registry

    for module in ("cleanlab.count", "faiss", "scipy.optimize", "scipy.sparse", "sklearn.isotonic"):
        importlib.import_module(module)
    given = arrays["given"]
    n, n_classes = len(given), int(given.max()) + 1
    if option:
        n_classes = arrays[f"probabilities-{option}"].shape[1]
    ids = pd.Index([f"{i:07d}" for i in range(n)])
    classes = tuple(f"{i:04d}" for i in range(n_classes))
    tables = _tables(ids, np.array(classes, dtype=object)[given], classes)
    values = {name: getattr(tables, name) for name in ("images", "labels", "classes", "task")}
    # As the audit has it for probabilities that the user brings.
    values["judge"] = "network" if option else "probe"
    if not option:
        values["embeddings"] = pd.DataFrame(arrays["features"], index=ids, copy=False)
        if "networks" in arrays:
            columns = [arrays["networks"], np.arange(len(arrays["networks"]))]
            values["embeddings"].columns = pd.MultiIndex.from_arrays(columns)
        if "phash" in arrays:
            values["phash"] = pd.Series(arrays["phash"], index=ids)
            values["thumbnails"] = pd.DataFrame(arrays["thumbnails"], index=ids)
        else:
            values["near_duplicates"] = pd.Series(np.arange(n), index=ids)
    check = registry.checks()["LBL001"]

    def timed() -> Found:
        if option:
            values["pred_probs"] = inputs.probabilities(arrays[f"probabilities-{option}"], tables)
        outcome = check.run(*_arguments(check, values), **check.settings)
        score = outcome.score.reindex(ids).fillna(1.0)
        probability = NONE if outcome.probability is None else outcome.probability.reindex(ids).fillna(0.0)
        return 1 - np.asarray(score), np.asarray(outcome.flagged.reindex(ids, fill_value=False)), probability

    return timed


def _tables(ids: Any, names: np.ndarray, classes: tuple[str, ...]) -> Any:
    import pandas as pd

    from dataaudit import Tables

    images = pd.DataFrame(
        {"filepath": ids, "width": pd.NA, "height": pd.NA, "split": None, "digest": ids}, index=ids
    )
    labels = pd.DataFrame({"sample_id": ids, "name": names, "geometry": None, "locator": None}, index=ids)
    return Tables(images=images, labels=labels, classes=classes)


def _arguments(found: Any, values: dict[str, Any]) -> list[Any]:
    """What a check or signal needs: what is given, what signals make of it, None for what it can do without.

    This is the audit's own way (`dataaudit.pipeline`) for embeddings instead of images.
    """
    from dataaudit import registry

    arguments = []
    for need in found.needs:
        if need not in values and need in registry.signals() and not _lacking(need, values):
            signal = registry.signals()[need]
            values[need] = signal.run(*_arguments(signal, values), **signal.settings)
        if need not in values and need not in found.optional:
            raise SystemExit(f"{found.name} needs {need}, which the bench doesn't have.")
        arguments.append(values.get(need))
    return arguments


def _lacking(need: str, values: Mapping[str, Any]) -> bool:
    from dataaudit import registry

    if need in values:
        return False
    signal = registry.signals().get(need)
    return signal is None or any(
        _lacking(other, values) for other in signal.needs if other not in signal.optional
    )


def datalab(arrays: Mapping[str, np.ndarray], option: str) -> Callable[[], Found]:
    """The label check of cleanlab's Datalab, from features or from probabilities."""
    from cleanlab import Datalab

    given = arrays["given"]
    told = {"pred_probs": arrays[f"probabilities-{option}"]} if option else {"features": arrays["features"]}

    def timed() -> Found:
        lab = Datalab(data={"label": given}, label_name="label", verbosity=0)
        lab.find_issues(**told, issue_types={"label": {}})
        issues = lab.get_issues("label")
        suspicion = 1 - issues["label_score"].to_numpy()
        return suspicion, issues["is_label_issue"].to_numpy(), np.clip(suspicion, 0, 1)

    return timed


def cleanlab_filter(arrays: Mapping[str, np.ndarray], option: str) -> Callable[[], Found]:
    """cleanlab.filter.find_label_issues; the option is ``FILTER_BY/PROBABILITIES``."""
    from cleanlab.filter import find_label_issues

    filter_by, name = option.split("/")
    given, shares = arrays["given"], arrays[f"probabilities-{name}"]

    def timed() -> Found:
        flagged = find_label_issues(given, shares, filter_by=filter_by)
        return 1 - shares[np.arange(len(given)), given], flagged, NONE

    return timed


def cleanlab_score(arrays: Mapping[str, np.ndarray], option: str) -> Callable[[], Found]:
    """cleanlab.rank.get_label_quality_scores; the option is ``METHOD/PROBABILITIES``."""
    from cleanlab.rank import get_label_quality_scores

    method, name = option.split("/")
    adjusted = method.endswith("-adjusted")
    given, shares = arrays["given"], arrays[f"probabilities-{name}"]

    def timed() -> Found:
        quality = get_label_quality_scores(
            given, shares, method=method.removesuffix("-adjusted"), adjust_pred_probs=adjusted
        )
        return 1 - quality, NONE, NONE

    return timed


def prediction_differs(arrays: Mapping[str, np.ndarray], option: str) -> Callable[[], Found]:
    given, shares = arrays["given"], arrays[f"probabilities-{option}"]

    def timed() -> Found:
        doubt = 1 - shares[np.arange(len(given)), given]
        return doubt, shares.argmax(1) != given, np.clip(doubt, 0, 1)

    return timed


def mistakenness(arrays: Mapping[str, np.ndarray], option: str) -> Callable[[], Found]:
    """FiftyOne Brain's mistakenness from the logits of the predictions, as its documentation advises."""
    import fiftyone as fo
    import fiftyone.brain as fob

    given, shares = arrays["given"], arrays[f"probabilities-{option}"]
    logits = np.log(np.maximum(shares, 1e-12))
    dataset = fo.Dataset()
    samples = []
    for i, (label, row, best) in enumerate(zip(given, logits, shares.argmax(1), strict=True)):
        sample = fo.Sample(filepath=f"/images/{i:07d}.jpg", given=fo.Classification(label=str(label)))
        sample["prediction"] = fo.Classification(
            label=str(best), confidence=float(shares[i, best]), logits=row
        )
        samples.append(sample)
    dataset.add_samples(samples, progress=False)

    def timed() -> Found:
        fob.compute_mistakenness(dataset, "prediction", label_field="given", use_logits=True, progress=False)
        found = np.array(dataset.values("mistakenness"), dtype=float)
        dataset.delete()
        return found, found > 0.5, np.clip(found, 0, 1)

    return timed


def selfclean(arrays: Mapping[str, np.ndarray], option: str) -> Callable[[], Found]:
    """SelfClean's ranking of label errors and its automatic cut, on the features given."""
    from selfclean.cleaner.issue_manager import IssueTypes
    from selfclean.cleaner.selfclean_cleaner import SelfCleanCleaner

    features, given = arrays["features"], arrays["given"]
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)

    def timed() -> Found:
        cleaner = SelfCleanCleaner(auto_cleaning=True, log_level="ERROR")
        cleaner.fit(emb_space=unit.astype(np.float32), labels=given)
        issues = cleaner.predict(issues_to_detect=[IssueTypes.LABEL_ERRORS])["label_errors"]
        scores, order = issues["scores"], issues["indices"]
        suspicion, flagged = np.empty(len(given)), np.zeros(len(given), dtype=bool)
        suspicion[order] = 1 - scores
        # Its cut numbers the scores strictly between 0 and 1.
        inner = np.flatnonzero((scores > 0) & (scores < 1))
        flagged[order[inner[issues["auto_issues"]]]] = True
        return suspicion, flagged, NONE

    return timed


def regression(arrays: Mapping[str, np.ndarray], option: str) -> Callable[[], Found]:
    """Out-of-sample probabilities by logistic regression in 5 folds; the option is C. No method itself."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(C=float(option), max_iter=300))
    folds = StratifiedKFold(5, shuffle=True, random_state=0)

    def timed() -> Found:
        shares = cross_val_predict(
            model, arrays["features"], arrays["given"], cv=folds, method="predict_proba"
        )
        return NONE, NONE, shares.astype(np.float32)

    return timed


METHODS: dict[str, Callable[[Mapping[str, np.ndarray], str], Callable[[], Found]]] = {
    "ours": ours,
    "datalab": datalab,
    "filter": cleanlab_filter,
    "score": cleanlab_score,
    "differs": prediction_differs,
    "mistakenness": mistakenness,
    "selfclean": selfclean,
    "regression": regression,
}


if __name__ == "__main__":
    if len(sys.argv) > 4:
        resource.setrlimit(resource.RLIMIT_AS, (int(float(sys.argv[4]) * 2**30),) * 2)
    run(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
