"""Several annotators: consensus, careless annotators and whom to ask, against majority vote and cleanlab.

Annotators are made from the votes of CIFAR-10H: each image is shown to some of them, who answer as a person
drawn from the image's own votes did, but slip at a rate of their own (0 to 12 %). Three are careless: one
answers at random in 60 % of cases, one says "cat" in 80 %, one swaps cat with dog and automobile with truck
in 70 %. Truth is the original label. Asking: 500 images that a method asks for first get one more answer, of
a careful annotator; all methods then go through the same consensus. The baseline's probabilities are those
of labels drawn from the votes.

    python recipes/bench/annotators.py CIFAR10H [--seeds 0 1 2] [--cache FOLDER]
"""

from __future__ import annotations

import tempfile
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import pandas as pd
from _data import arguments, drawn, swept
from sklearn.metrics import average_precision_score, roc_auc_score

from dataaudit.annotators import Annotations
from dataaudit.checks.annotators import annotator_unreliable, ask_another_person
from dataaudit.checks.consensus import Votes, consensus
from dataaudit.metrics import expected_calibration_error
from dataaudit.signals.probabilities import pred_probs
from dataaudit.signals.spectrum import neighbors, spectrum

SWAPS = {"cat": "dog", "dog": "cat", "automobile": "truck", "truck": "automobile"}
N_CARELESS = 3


def answers(
    shares: np.ndarray, names: np.ndarray, people: np.ndarray, slips: np.ndarray, seed: int
) -> np.ndarray:
    """(n,) what each of the annotators `people` says about its image; the first three are careless."""
    rng = np.random.default_rng(seed)
    n, k = shares.shape
    said = (rng.random(n)[:, None] > shares.cumsum(1)).sum(1).clip(0, k - 1)
    said = np.where(rng.random(n) < slips[people], rng.integers(0, k, n), said)
    said = np.where((people == 0) & (rng.random(n) < 0.6), rng.integers(0, k, n), said)
    said = np.where((people == 1) & (rng.random(n) < 0.8), list(names).index("cat"), said)
    other = np.array([list(names).index(SWAPS.get(name, name)) for name in names])
    return np.where((people == 2) & (rng.random(n) < 0.7), other[said], said)


def answered(shares: np.ndarray, names: np.ndarray, n_people: int, n_votes: int, seed: int) -> np.ndarray:
    """(n, n_people) what each annotator said about each image, NaN where not asked."""
    rng = np.random.default_rng(seed)
    slips = np.r_[np.zeros(N_CARELESS), np.linspace(0, 0.12, n_people - N_CARELESS)]
    asked = np.argsort(rng.random((len(shares), n_people)), axis=1)[:, :n_votes]
    wide = np.full((len(shares), n_people), np.nan)
    for column, people in enumerate(asked.T):
        said = answers(shares, names, people, slips, seed + 100 * column + 1)
        wide[np.arange(len(shares)), people] = said
    return wide


def annotations_of(wide: np.ndarray, ids: pd.Index, names: np.ndarray) -> Annotations:
    rows, people = np.nonzero(~np.isnan(wide))
    return Annotations(
        votes=pd.DataFrame(
            {
                "sample_id": ids[rows],
                "annotator": [f"p{person:03d}" for person in people],
                "name": names[wide[rows, people].astype(int)],
                "n": 1,
            }
        )
    )


def ours(wide: np.ndarray, ids: pd.Index, names: np.ndarray, prior: np.ndarray | None) -> np.ndarray:
    """(n, k) chances."""
    annotations = annotations_of(wide, ids, names)
    votes = Votes.of(annotations.votes, ids, pd.Index(names), pd.Index(annotations.annotators))
    return consensus(votes, prior).chances


def judge(best: np.ndarray, sure: np.ndarray, true: np.ndarray) -> dict[str, float]:
    wrong = best != true
    return {
        "accuracy": 1 - wrong.mean(),
        "AUROC of wrong": roc_auc_score(wrong, -sure),
        "average precision": average_precision_score(wrong, -sure),
        "calibration error": expected_calibration_error(sure, ~wrong),
    }


def people_judged(quality: np.ndarray) -> float:
    """The chance that a careless annotator has a lower quality than another."""
    return float(roc_auc_score(np.arange(len(quality)) < N_CARELESS, -quality))


def asked(wide: np.ndarray, shares: np.ndarray, order: np.ndarray, seed: int) -> np.ndarray:
    """The answers with one more for the first 500 images of `order`, by a careful annotator."""
    more = wide.copy()
    rows = order[:500]
    rng = np.random.default_rng(seed + 7)
    said = (rng.random(len(rows))[:, None] > shares[rows].cumsum(1)).sum(1).clip(0, shares.shape[1] - 1)
    free = np.isnan(more[rows][:, N_CARELESS:])
    more[rows, N_CARELESS + free.argmax(1)] = said
    return more


def compare(wide: np.ndarray, shares: np.ndarray, true: np.ndarray, ids: pd.Index, names: np.ndarray,
            prior: np.ndarray, seed: int) -> dict[str, dict[str, float]]:  # fmt: skip
    from cleanlab.multiannotator import get_active_learning_scores, get_label_quality_multiannotator

    found: dict[str, dict[str, float]] = {}
    said = np.stack([(wide == name).sum(1) for name in range(len(names))], axis=1)
    ties = np.random.default_rng(seed).random(said.shape) * 0.1
    found["majority vote"] = judge((said + ties).argmax(1), said.max(1) / said.sum(1), true)

    def gain(order: np.ndarray) -> float:
        more = ours(asked(wide, shares, order, seed), ids, names, prior)
        return float((more.argmax(1) == true).mean())

    started = time.perf_counter()
    theirs = get_label_quality_multiannotator(wide, prior, verbose=False)
    seconds = time.perf_counter() - started
    quality = theirs["annotator_stats"]["annotator_quality"].sort_index().to_numpy()
    table = theirs["label_quality"]
    scores, _ = get_active_learning_scores(wide, prior)
    found["cleanlab, with the baseline"] = {
        **judge(table["consensus_label"].to_numpy(), table["consensus_quality_score"].to_numpy(), true),
        "careless ranked low": people_judged(quality), "accuracy after asking": gain(np.argsort(scores)),
        "seconds": seconds,
    }  # fmt: skip
    labels = pd.DataFrame({"sample_id": ids, "name": None, "locator": None}, index=ids)
    annotations = annotations_of(wide, ids, names)
    for title, given in (("ours, votes alone", None), ("ours, with the baseline", prior)):
        started = time.perf_counter()
        chances = ours(wide, ids, names, given)
        seconds = time.perf_counter() - started
        frame = None if given is None else pd.DataFrame(given, index=ids, columns=names)
        people = annotator_unreliable(annotations, labels, "classification", frame)
        ask = ask_another_person(annotations, labels, "classification", frame).score.loc[ids].to_numpy()
        flags = people.flagged.sort_index().to_numpy()
        found[title] = {
            **judge(chances.argmax(1), chances.max(1), true),
            "careless ranked low": people_judged(people.score.sort_index().to_numpy()),
            "careless flagged": flags[:N_CARELESS].sum(), "others flagged": flags[N_CARELESS:].sum(),
            "accuracy after asking": gain(np.argsort(ask, kind="stable")), "seconds": seconds,
        }  # fmt: skip
    found["asked at random"] = {
        "accuracy after asking": gain(np.random.default_rng(seed).permutation(len(ids)))
    }
    return found


def baseline(data: Path, cache: Path, names: np.ndarray) -> np.ndarray:
    """(n, k) out-of-sample probabilities from labels drawn from the votes."""
    table = drawn(data, 0)
    features = swept(data, table["path"], "default", cache)["features"]
    values = pd.DataFrame(features, index=table["path"])
    labels = pd.DataFrame({"sample_id": values.index, "name": table["given"].to_numpy()}, index=values.index)
    found = spectrum(values)
    groups = pd.Series(np.arange(len(values)), index=values.index)
    return pred_probs(found, neighbors(found), groups, labels)[list(names)].to_numpy(dtype=float)


def show(title: str, runs: list[dict[str, dict[str, float]]]) -> None:
    columns = list(runs[0]["ours, with the baseline"])
    print(f"\n{title}\n\n| | {' | '.join(columns)} |\n|---{'|---' * len(columns)}|")
    for method in runs[0]:
        cells = defaultdict(list)
        for run in runs:
            for column, value in run[method].items():
                cells[column].append(value)
        row = [f"{np.mean(cells[column]):.4g}" if cells[column] else "" for column in columns]
        print(f"| {method} | {' | '.join(row)} |")


if __name__ == "__main__":
    parser = arguments(__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()))
    options = parser.parse_args()
    votes = pd.read_csv(options.data / "human_counts.csv")
    columns = [name for name in votes if name.startswith("h_")]
    classes = np.array([name[2:] for name in columns])
    counts = votes[columns].to_numpy(dtype=float)
    human = counts / counts.sum(1, keepdims=True)
    truth = pd.Index(classes).get_indexer(pd.Index(votes["label_name"]))
    paths = pd.Index(votes["path"])
    probabilities = baseline(options.data, options.cache, classes)
    for n_people, n_votes in ((30, 2), (30, 3), (30, 5), (200, 3)):
        runs = []
        for each in options.seeds:
            wide = answered(human, classes, n_people, n_votes, each)
            runs.append(compare(wide, human, truth, paths, classes, probabilities, each))
        show(f"{n_people} annotators, {n_votes} an image", runs)
