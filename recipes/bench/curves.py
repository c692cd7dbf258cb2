"""Curves: false alarms on healthy runs, and what is found of what was planted.

    python recipes/bench/curves.py [--repeats 300] [--seeds 0] [--train 20]
    python recipes/bench/curves.py --real RUNS [--data CIFAR10H --seeds 0-35]

Healthy runs are simulated: losses that fall as a power or an exponential, 12 to 200 epochs, noise from 1% to
10% that grows with the level, with and without accuracy, learning rate and single steps. `--train` real ones
are trained besides: small networks on scikit-learn's digits, with early enough an end. A planted run is a
healthy one with one thing changed. Several seeds are counted together.

`--real` looks at runs in a folder, ``KIND-SEED.csv``; with `--data` (a folder with CIFAR-10H) those that
aren't there are trained first, a healthy one for each seed and one of each mistake for every twelfth (see
_training_runs.py; about 10 s a run on one core).
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import _training_runs
import numpy as np
import pandas as pd

from dataaudit.modelcheck.runs import History, read_runs, signs_of

Run = pd.DataFrame
Plant = Callable[[Run, np.random.Generator], Run]


def healthy(rng: np.random.Generator) -> Run:
    """A run that nothing is wrong with."""
    n = int(rng.choice([12, 20, 30, 50, 100, 200]))
    epoch = np.arange(n)
    start, floor = float(rng.uniform(0.7, 5)), float(rng.uniform(0.02, 0.25))
    if rng.random() < 0.5:
        fall = np.exp(-epoch / n * float(rng.uniform(4.5, 10)))
    else:
        fall = (1 + epoch * 200 / n) ** -float(rng.uniform(0.5, 1.2))
    gap = float(rng.uniform(0.0, 0.25))
    sigma_train, sigma_val = float(rng.uniform(0.003, 0.04)), float(rng.uniform(0.01, 0.1))
    train = start * (floor + (1 - floor) * fall)
    val = start * (floor + gap + (1 - floor - gap) * fall)
    table = pd.DataFrame({
        "epoch": epoch,
        "train_loss": train * np.exp(sigma_train * rng.standard_normal(n)),
        "val_loss": val * np.exp(sigma_val * rng.standard_normal(n)),
    })  # fmt: skip
    if rng.random() < 0.6:
        best = float(rng.uniform(0.9, 0.97))
        for name, lost in (("train_acc", 0.0), ("val_acc", gap * 0.3)):
            accuracy = best - lost - (best - 0.1) * fall + sigma_val * 0.1 * rng.standard_normal(n)
            table[name] = np.clip(accuracy, 0, 0.998)
    if rng.random() < 0.5:
        table["lr"] = 0.1 * (1 + np.cos(np.pi * epoch / n)) / 2 if rng.random() < 0.5 else 0.01
    return table


def of_steps(rng: np.random.Generator) -> Run:
    """A healthy run of single steps, heavy-tailed, with validation now and then."""
    n = int(rng.choice([400, 1000, 3000]))
    step = np.arange(n)
    fall = np.exp(-step / n * float(rng.uniform(5, 10)))
    level = 2.3 * (0.08 + 0.92 * fall)
    tails = rng.standard_t(6, n)
    table = pd.DataFrame({"step": step, "train/loss": level * np.exp(0.15 * tails)})
    every = n // int(rng.choice([10, 20, 40]))
    own = 2.3 * (0.11 + 0.89 * fall) * np.exp(0.02 * rng.standard_normal(n))
    return table.assign(**{"val/loss": np.where(step % every == every - 1, own, np.nan)})


def changed(table: Run, **columns: np.ndarray) -> Run:
    return table.assign(**columns)


def overfit(t: Run, rng: np.random.Generator) -> Run:
    n = len(t)
    since = np.maximum(np.arange(n) - n * float(rng.uniform(0.25, 0.6)), 0) / n
    return changed(t, val_loss=t.val_loss + since * t.val_loss.iloc[0] * float(rng.uniform(0.4, 1.5)))


def diverge(t: Run, rng: np.random.Generator) -> Run:
    n = len(t)
    since = np.maximum(np.arange(n) - n * float(rng.uniform(0.3, 0.7)), 0) / n
    grown = t.train_loss.iloc[0] * np.expm1(since * float(rng.uniform(4, 12)))
    return changed(t, train_loss=t.train_loss + grown, val_loss=t.val_loss + grown)


def still(t: Run, rng: np.random.Generator) -> Run:
    k = int(rng.choice([2, 10, 100]))
    noise = rng.standard_normal((2, len(t))) * 0.01
    t = t.drop(columns=[name for name in ("train_acc", "val_acc") if name in t])
    return changed(t, train_loss=np.log(k) * (1 + noise[0]), val_loss=np.log(k) * (1 + noise[1]))


def nan(t: Run, rng: np.random.Generator) -> Run:
    at = int(len(t) * rng.uniform(0.2, 0.9))
    return changed(t, train_loss=t.train_loss.where(t.index < at, np.inf if rng.random() < 0.3 else np.nan))


def zero(t: Run, rng: np.random.Generator) -> Run:
    at = int(len(t) * rng.choice([0, 0.1]))
    return changed(t, train_loss=t.train_loss.where(t.index < at, 0.0))


def swing(t: Run, rng: np.random.Generator) -> Run:
    waves = np.sign(np.sin(np.arange(len(t)) * float(rng.uniform(1.5, 3))))
    size = t.train_loss.iloc[0] * float(rng.uniform(0.4, 0.6))
    by = size * (1 + waves) / 2 * rng.uniform(0.6, 1.4, len(t))
    return changed(t, train_loss=t.train_loss + by, val_loss=t.val_loss + by)


def under(t: Run, rng: np.random.Generator) -> Run:
    t = t.drop(columns=[name for name in ("train_acc", "val_acc") if name in t])
    high, n = float(rng.uniform(0.7, 0.9)), len(t)
    fall = high + (1 - high) * np.exp(-np.arange(n) / n * 12)
    noise = np.exp(0.006 * rng.standard_normal((2, n)))
    return changed(t, train_loss=2.3 * fall * noise[0], val_loss=2.3 * fall * noise[1])


def short(t: Run, rng: np.random.Generator) -> Run:
    n = len(t)
    rate = float(rng.uniform(0.4, 1.5))
    noise = np.exp(0.01 * rng.standard_normal((2, n)))
    fall = np.exp(-np.arange(n) / n * rate)
    t = t.drop(columns=[name for name in ("lr",) if name in t])
    return changed(t, train_loss=2.3 * fall * noise[0], val_loss=2.35 * fall * noise[1])


def better(t: Run, rng: np.random.Generator) -> Run:
    return changed(
        t, val_loss=t.train_loss * float(rng.uniform(0.3, 0.6)) * np.exp(0.03 * rng.standard_normal(len(t)))
    )


def stairs(t: Run, rng: np.random.Generator) -> Run:
    n, since = len(t), int(len(t) * rng.uniform(0.45, 0.6))
    level = np.where(np.arange(n) < since, 0.6 + 0.4 * np.exp(-np.arange(n) / n * 40),
                     0.1 + 0.5 * np.exp(-(np.arange(n) - since) / n * 25))  # fmt: skip
    noise = np.exp(0.01 * rng.standard_normal((2, n)))
    return changed(t, train_loss=2 * level * noise[0], val_loss=2.1 * level * noise[1],
                   lr=np.where(np.arange(n) < since, 0.1, 0.01))  # fmt: skip


def jump(t: Run, rng: np.random.Generator) -> Run:
    n, since = len(t), int(len(t) * rng.uniform(0.4, 0.6))
    up = np.where(np.arange(n) < since, 0.0, t.train_loss.iloc[0] * 0.45)
    rate = np.where(np.arange(n) < since, 0.01, 0.2)
    return changed(t, train_loss=t.train_loss + up, val_loss=t.val_loss + up, lr=rate)


def spiky(t: Run, rng: np.random.Generator) -> Run:
    at = rng.choice(np.arange(5, len(t) - 2), max(1, len(t) // 40), replace=False)
    return changed(
        t, train_loss=t.train_loss.where(~t.index.isin(at), t.train_loss * float(rng.uniform(5, 20)))
    )


def leak(t: Run, rng: np.random.Generator) -> Run:
    n = len(t)
    accuracy = 0.9 - 0.5 * np.exp(-np.arange(n) / n * 6)
    return changed(t, train_acc=accuracy, val_acc=np.ones(n), val_loss=t.train_loss * 0.03)


PLANTS: dict[str, tuple[Plant, set[str]]] = {
    "NaN or infinite": (nan, {"TRN050"}),
    "diverging": (diverge, {"TRN051"}),
    "zero": (zero, {"TRN052"}),
    "flat": (still, {"TRN053"}),
    "oscillating": (swing, {"TRN054"}),
    "overfitting": (overfit, {"TRN055"}),
    "underfitting": (under, {"TRN056"}),
    "stopped early": (short, {"TRN057"}),
    "validation better": (better, {"TRN058"}),
    "rate raised too far": (jump, {"TRN059"}),
    "plateau before a cut": (stairs, {"TRN060"}),
    "spikes": (spiky, {"TRN061"}),
    "perfect validation": (leak, {"TRN062"}),
}


def trained(seed: int) -> Run:
    """A small network on digits, trained as one should."""
    import torch
    from sklearn.datasets import load_digits
    from torch import nn

    x, y = load_digits(return_X_y=True)
    torch.manual_seed(seed)
    order = torch.randperm(len(x))
    inputs, targets = torch.tensor(x, dtype=torch.float32)[order] / 16, torch.tensor(y)[order]
    net = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    rng = np.random.default_rng(seed)
    n_epochs, rate, batch = (
        int(rng.choice([20, 30, 40])),
        float(rng.choice([1e-3, 2e-3])),
        int(rng.choice([16, 32])),
    )
    optimizer = torch.optim.Adam(net.parameters(), rate)
    rows = []
    for epoch in range(n_epochs):
        losses, right = [], 0
        for part in torch.randperm(1300).split(batch):
            out = net(inputs[part])
            loss = nn.functional.cross_entropy(out, targets[part])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
            right += int((out.argmax(1) == targets[part]).sum())
        with torch.no_grad():
            out = net(inputs[1300:])
            val = float(nn.functional.cross_entropy(out, targets[1300:]))
            hits = float((out.argmax(1) == targets[1300:]).float().mean())
        rows.append((epoch, np.mean(losses), right / 1300, val, hits))
    return pd.DataFrame(rows, columns=["epoch", "train_loss", "train_acc", "val_loss", "val_acc"])


def codes(table: Run) -> set[str]:
    (history,) = read_runs(table)
    return {sign.rule.code for sign in signs_of(history)}


def alarms(name: str, tables: list[Run]) -> None:
    found = [codes(table) for table in tables]
    share = np.mean([bool(each) for each in found])
    counts = Counter(code for each in found for code in each)
    print(
        f"{name:24s} {len(tables):4d} runs  false alarms {share:6.1%}  {dict(sorted(counts.items()))}",
        flush=True,
    )


def real(folder: Path) -> None:
    """What is said of runs that were trained: the healthy ones, then each kind of mistake."""
    expected = _training_runs.kinds()
    tables = {path.stem: pd.read_csv(path) for path in sorted(folder.glob("*.csv"))}
    usual = {name: table for name, table in tables.items() if name.startswith("healthy")}
    sound = [name for name, table in usual.items() if _training_runs.is_healthy(table)]
    alarms("healthy, real", [usual[name] for name in sound])
    print(f"{'':24s} {len(usual) - len(sound):4d} runs left out: they didn't learn well enough to count")
    hits = total = firsts = 0
    for kind, named in expected.items():
        found = [
            ordered(read_runs(folder / f"{name}.csv")) for name in tables if name.rsplit("-", 1)[0] == kind
        ]
        right = sum(bool(named & set(each)) for each in found)
        first = sum(bool(each) and each[0] in named for each in found)
        hits, firsts, total = hits + right, firsts + first, total + len(found)
        others = Counter(code for each in found for code in each if code not in named)
        print(f"{kind:24s} {len(found):4d} runs  named {right}, first {first}  {dict(others)}")
    if total:
        print(f"{'all mistakes':24s} {total:4d} runs  named {hits / total:.1%}, first {firsts / total:.1%}")


def ordered(histories: list[History]) -> list[str]:
    """Codes of one run, surest first."""
    return [sign.rule.code for sign in signs_of(histories[0])]


def simulated(seeds: list[int], repeats: int) -> None:
    """What is said of simulated runs, healthy and planted, of all seeds together."""
    chances = [np.random.default_rng(seed) for seed in seeds]
    alarms("healthy, by epoch", [healthy(rng) for rng in chances for _ in range(repeats)])
    alarms("healthy, by step", [of_steps(rng) for rng in chances for _ in range(repeats // 3)])
    for name, (plant, expected) in PLANTS.items():
        found = [codes(plant(healthy(rng), rng)) for rng in chances for _ in range(max(20, repeats // 5))]
        recall = np.mean([bool(each & expected) for each in found])
        anything = np.mean([bool(each) for each in found])
        others = Counter(code for each in found for code in each - expected)
        print(
            f"{name:24s} {len(found):4d} runs  found {recall:6.1%}, anything {anything:6.1%}  {dict(others)}",
            flush=True,
        )


def numbers(text: str) -> list[int]:
    """``0-3,7`` as numbers."""
    found: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=300, help="healthy runs a seed (%(default)s)")
    parser.add_argument("--train", type=int, default=0, help="runs on digits (%(default)s)")
    parser.add_argument("--seeds", type=numbers, default=[0], help="such as 0-9 or 3,7 (0)")
    parser.add_argument("--real", type=Path, metavar="RUNS", help="folder with trained runs")
    parser.add_argument("--data", type=Path, help="CIFAR-10H, to train the runs that aren't in RUNS yet")
    given = parser.parse_args()
    if given.real is not None:
        if given.data is not None:
            _training_runs.make(given.real, given.data, given.seeds)
        real(given.real)
        return
    simulated(given.seeds, given.repeats)
    if given.train:
        alarms("healthy, trained", [trained(given.seeds[0] + number) for number in range(given.train)])


if __name__ == "__main__":
    main()
