"""A simulated review in our order against the order of the scores, and how well the errors left are known.

The reviewer knows the truth, or errs in one verdict of twenty. On CIFAR-10H one person's vote an image is the
given label; of a set of pred_probs 10,000 labels are drawn. A finding of LBL is accepted where the label is
wrong, and kept otherwise. After each 20 verdicts the estimate of the errors left is compared with the truth,
in all and among the findings. Log-loss and expected calibration error are those of the probability of each
finding, by the audit and as re-estimated when the finding was looked at.

    python recipes/bench/review_order.py --data DATA --cache CACHE
    python recipes/bench/review_order.py --data DATA --set pred_probs/human40_twins --seeds 0

DATA holds ``cifar10h/`` (see _data.py) and ``pred_probs/NAME/`` (see label_errors.py). CACHE keeps the trees
and what was computed of the images: the first audit takes a minute or two, the others seconds.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from _data import drawn, write_tree

from dataaudit.metrics import expected_calibration_error
from dataaudit.pipeline import audit
from dataaudit.types import Locator, Report, Tables
from dataaudit.worklist import Session, Worklist, worklist_of
from dataaudit.worklist.session import BLOCK

DRAWN = 10_000
SLIPS = 0.05
SHARES = (0.5, 0.8)


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A worklist, and the samples whose labels are wrong."""

    title: str
    worklist: Worklist
    wrong: frozenset[str]


@dataclass(frozen=True, kw_only=True)
class Course:
    """What a simulated review found.

    Attributes:
        found: (n,) bool: whether the finding looked at was an error, in the order of looking.
        stated: (n,) the probability of each when it was looked at.
        inside: for each block whether the number of errors left was in the interval: in all, and of findings.
        sizes: for each block the width of the interval over the number of errors left.
    """

    found: np.ndarray
    stated: np.ndarray
    inside: np.ndarray
    sizes: np.ndarray


def problems(options: argparse.Namespace, cache: Path) -> Iterator[Problem]:
    for name in options.set:
        for seed in options.seeds:
            if name == "cifar10h":
                report, wrong = from_votes(options.data / name, seed, cache)
            else:
                report, wrong = from_probabilities(options.data / name, seed)
            yield Problem(title=f"{name}, seed {seed}", worklist=worklist_of(report), wrong=wrong)


def from_votes(data: Path, seed: int, cache: Path) -> tuple[Report, frozenset[str]]:
    """An audit of CIFAR-10H with one person's vote an image as its label."""
    labels = drawn(data, seed)
    tree = cache / f"tree-{seed}"
    if not tree.exists():
        write_tree(data, tree, labels)
    report = audit(tree, select=("LBL",), cache=cache / "signals", progress=False)
    wrong = np.flatnonzero(labels["true"] != labels["given"])
    return report, frozenset(f"{labels['given'].iloc[at]}/{at:05d}.jpg" for at in wrong)


def from_probabilities(folder: Path, seed: int) -> tuple[Report, frozenset[str]]:
    """An audit of tables made by hand, with probabilities of a published model."""
    given, true = (np.load(folder / f"{kind}_labels.npy") for kind in ("noisy", "true"))
    shares = np.load(folder / "pred_probs.npy")
    rows = np.sort(np.random.default_rng(seed).choice(len(given), DRAWN, replace=False))
    ids = pd.Index([f"{row:05d}.png" for row in rows])
    classes = tuple(f"c{number}" for number in range(shares.shape[1]))
    names = np.array(classes, dtype=object)[given[rows]]
    images = pd.DataFrame(
        {"filepath": [f"/nowhere/{name}" for name in ids], "width": pd.NA, "height": pd.NA, "split": None,
         "digest": None}, index=ids,
    )  # fmt: skip
    labels = pd.DataFrame(
        {"sample_id": ids, "name": names, "geometry": None,
         "locator": [Locator(file="labels.csv", item=at + 2, field="label") for at in range(len(ids))]},
        index=ids,
    )  # fmt: skip
    tables = Tables(images=images, labels=labels, classes=classes)
    own = pd.DataFrame(shares[rows], index=ids, columns=list(classes))
    report = audit(tables, select=("LBL001",), pred_probs=own, progress=False)
    return report, frozenset(ids[given[rows] != true[rows]])


def review(problem: Problem, *, slips: float, seed: int) -> Course:
    """Look at everything in our order."""
    rng = np.random.default_rng(seed)
    session = Session(problem.worklist)
    sample_of = {entry.key: entry.sample_id for entry in problem.worklist.entries}
    # A sample may have several findings: its error is found with the first
    left, waiting = set(problem.wrong), set(sample_of)
    found, stated, inside, sizes = [], [], [], []
    while (entry := session.current) is not None:
        wrong = is_error(problem, entry.code, entry.sample_id)
        stated.append(session.probability(entry.key))
        found.append(wrong)
        says_wrong = wrong != (rng.random() < slips)
        session.decide(entry.key, "accept" if says_wrong and entry.fix is not None else "keep")
        for each in session.last:
            waiting.discard(each.finding)
            left.discard(str(sample_of[each.finding]))
        if len(found) % BLOCK == 0 or session.current is None:
            said = session.progress()
            queue = len(left & {sample_of[key] for key in waiting})
            inside.append(
                (said["low"] <= len(left) <= said["high"], said["queue_low"] <= queue <= said["queue_high"])
            )
            sizes.append((said["high"] - said["low"]) / max(len(left), 1))
    return Course(
        found=np.array(found), stated=np.array(stated), inside=np.array(inside), sizes=np.array(sizes)
    )


def is_error(problem: Problem, code: str, sample_id: str | None) -> bool:
    return code.startswith("LBL") and sample_id in problem.wrong


def by_score(problem: Problem) -> tuple[np.ndarray, np.ndarray]:
    """Whether each finding is an error, in the order of the scores, and the audit's probabilities."""
    entries = sorted(problem.worklist.entries, key=lambda entry: entry.score)
    # One look at a label answers both of two findings on it that propose the same
    first = {(entry.sample_id, entry.fix): entry for entry in reversed(entries)}
    entries = [entry for entry in entries if first[entry.sample_id, entry.fix] is entry]
    found = np.array([is_error(problem, entry.code, entry.sample_id) for entry in entries])
    chance = np.array([0.5 if entry.probability is None else entry.probability for entry in entries])
    return found, chance


def looks_to(found: np.ndarray, share: float) -> int:
    """How many looks it takes until a share of the errors is found."""
    reached = np.cumsum(found) >= share * found.sum() - 1e-9
    return int(reached.argmax()) + 1


def log_loss(chance: np.ndarray, truth: np.ndarray) -> float:
    inside = np.clip(chance, 1e-4, 1 - 1e-4)
    return float(-np.where(truth, np.log(inside), np.log(1 - inside)).mean())


def row(problem: Problem, slips: float, seed: int) -> tuple[list[str], Course]:
    course = review(problem, slips=slips, seed=seed)
    plain, chance = by_score(problem)
    looks = [f"{looks_to(course.found, share):,} / {looks_to(plain, share):,}" for share in SHARES]
    # The truth as the reviewer sees it is what probabilities are learnt from
    before, after = log_loss(chance, plain), log_loss(course.stated, course.found)
    gap = expected_calibration_error(chance, plain), expected_calibration_error(course.stated, course.found)
    inside = course.inside.mean(0)
    cells = [
        problem.title, f"{slips:.0%}", f"{len(course.found):,}", f"{course.found.sum():,}",
        f"{len(problem.wrong):,}", *looks, f"{inside[0]:.0%}", f"{inside[1]:.0%}",
        f"{np.median(course.sizes):.2f}", f"{before:.3f} / {after:.3f}", f"{gap[0]:.3f} / {gap[1]:.3f}",
    ]  # fmt: skip
    return cells, course


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of cifar10h/ and pred_probs/")
    parser.add_argument("--set", nargs="*", default=["cifar10h"], help="cifar10h, pred_probs/NAME")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--cache", type=Path, help="folder to keep trees and signals in")
    options = parser.parse_args()
    titles = ["set", "slips", "looks", "errors found", "errors", "looks to 50 %, ours / score",
              "to 80 %", "all left in interval", "of findings", "width / left", "log-loss, audit / ours",
              "ECE, audit / ours"]  # fmt: skip
    print(f"| {' | '.join(titles)} |\n|{'---|' * len(titles)}", flush=True)
    covered: dict[tuple[str, float], list[np.ndarray]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        cache = options.cache or Path(temporary)
        cache.mkdir(parents=True, exist_ok=True)
        for problem in problems(options, cache):
            for slips in (0.0, SLIPS):
                cells, course = row(problem, slips, seed=len(covered))
                covered.setdefault((problem.title.split(",")[0], slips), []).append(course.inside)
                print(f"| {' | '.join(cells)} |", flush=True)
    for (name, slips), parts in covered.items():
        together = np.concatenate(parts)
        print(
            f"{name}, slips {slips:.0%}: in the 90 % interval in {together[:, 0].mean():.1%} of "
            f"{len(together)} blocks, of findings in {together[:, 1].mean():.1%}"
        )


if __name__ == "__main__":
    main()
