"""Drift: false alarms where nothing drifted, and what is found of what was planted.

    python recipes/bench/drift.py CIFAR10H [--repeats 1000] [--plants 100] [--n 200] [--cache FOLDER]
    python recipes/bench/drift.py CIFAR10H --only alarms|plants|small|large|streams|tests
    python recipes/bench/drift.py COCO128 --n 60 --only alarms|tests [--test mmd]

CIFAR10H is the folder with images/<class>/; any other with images/ does. Random halves of 2 n of its images
are compared with each other; a plant changes a share of the images of one half. Features and properties are
computed once and kept in FOLDER, those of changed images too; all images are written anew in the same way, so
that the change is all that differs. Streams are made: accuracy 98 % that falls to 60 %; with river installed,
the moment at which its ADWIN gives an alarm is printed beside ours. "tests" compares the two tests of
embeddings by themselves, at the 5 % level and without the other comparisons: no drift, and mild changes of
all images.
"""

from __future__ import annotations

import argparse
import io
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageFilter

from dataaudit.modelcheck.drift import Side, compare, load_side, read_side, save_side
from dataaudit.modelcheck.drift.checking import TESTS
from dataaudit.modelcheck.drift.outcomes import changes
from dataaudit.modelcheck.drift.pairing import pair

POOL = 1500
PLANTS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "night": lambda image: image.point(lambda value: value * 0.4),
    "blur": lambda image: image.filter(ImageFilter.GaussianBlur(1)),
    "colour cast": lambda image: Image.merge(
        "RGB",
        [c.point(lambda v, f=f: min(v * f, 255)) for c, f in zip(image.split(), (1.15, 1, 0.8), strict=True)],
    ),
    "JPEG quality 20": lambda image: jpeg(image, 20),
    "noise": lambda image: Image.fromarray(
        np.clip(
            np.asarray(image, dtype=float) + np.random.default_rng(0).normal(0, 12, (*image.size[::-1], 3)),
            0,
            255,
        ).astype(np.uint8)
    ),
}
MILD: dict[str, Callable[[Image.Image], Image.Image]] = {
    "mild blur": lambda image: image.filter(ImageFilter.GaussianBlur(0.5)),
    "JPEG quality 30": lambda image: jpeg(image, 30),
    "gamma 0.8": lambda image: image.point(lambda value: 255 * (value / 255) ** 0.8),
}


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return Image.open(stream).convert("RGB")


def whole(data: Path, cache: Path) -> Side:
    """All images of the data, unchanged."""
    file = cache / "whole.npz"
    if not file.exists():
        save_side(read_side(data / "images", cache=cache / "signals", progress=True), file)
    return load_side(file)


def planted(
    data: Path, cache: Path, plants: dict[str, Callable[[Image.Image], Image.Image]]
) -> dict[str, Side]:
    """The pool of images written anew, as it is ("same") and with each change."""
    files = sorted(file for file in (data / "images").rglob("*") if file.suffix in (".jpg", ".png"))
    rows = np.random.default_rng(0).permutation(len(files))[:POOL]
    found = {}
    for name, change in {"same": lambda image: image, **plants}.items():
        kept = cache / f"pool-{name.replace(' ', '-')}.npz"
        if not kept.exists():
            with tempfile.TemporaryDirectory() as folder:
                for row in rows:
                    to = Path(folder) / files[row].parent.name / f"{files[row].stem}.jpg"
                    to.parent.mkdir(exist_ok=True)
                    image = change(Image.open(files[row]).convert("RGB"))
                    image.save(to, quality=int(name.split()[-1]) if name.startswith("JPEG") else 92)
                save_side(read_side(folder), kept)
        found[name] = load_side(kept)
    return found


def take(side: Side, rows: np.ndarray) -> Side:
    return replace(
        side,
        images=side.images.iloc[rows],
        embeddings=side.embeddings[rows],
        phash=side.phash[rows],
        thumbnails=side.thumbnails[rows],
        classes=None if side.classes is None else side.classes.iloc[rows],
    )


def mixed(side: Side, other: Side, rows: np.ndarray, n_other: int) -> Side:
    """`rows` of a side, the last `n_other` of them as they are on the other side."""
    first, second = take(side, rows[: len(rows) - n_other]), take(other, rows[len(rows) - n_other :])
    return replace(
        first,
        images=pd.concat([first.images, second.images]),
        embeddings=np.concatenate([first.embeddings, second.embeddings]),
        phash=np.concatenate([first.phash, second.phash]),
        thumbnails=np.concatenate([first.thumbnails, second.thumbnails]),
        classes=None if first.classes is None else pd.concat([first.classes, second.classes]).fillna(0),
    )


def alarms(side: Side, n: int, repeats: int, *, labeled: bool, test: str = "classifier") -> None:
    """Random halves: how many reports have any finding, and which."""
    side = side if labeled else replace(side, classes=None)
    codes: Counter[str] = Counter()
    n_reports = 0
    for repeat in range(repeats):
        rows = np.random.default_rng([repeat, 1]).permutation(len(side))[: 2 * n]
        drifted = compare(take(side, rows[:n]), take(side, rows[n:]), test=test).drifted
        n_reports += bool(drifted)
        codes.update({rule.code for rule, _ in drifted})
        if repeat % 50 == 49:
            print(f"  {repeat + 1}: {n_reports} reports with a false alarm", flush=True)
    kind = "with labels" if labeled else "without labels"
    print(f"no drift, {n} images a side, {kind}, {test}: {n_reports} of {repeats} reports have a false alarm "
          f"({n_reports / repeats:.1%}); {dict(codes)}")  # fmt: skip


def tests(side: Side, pool: dict[str, Side], n: int, repeats: int, plants: int) -> None:
    """The tests of embeddings by themselves: false alarms on halves, and mild changes of all images."""
    count = repeats
    for name, other in {"no drift": None, **{name: pool[name] for name in MILD}}.items():
        small = dict.fromkeys(TESTS, 0)
        seconds = dict.fromkeys(TESTS, 0.0)
        from_, count = (side, repeats) if other is None else (pool["same"], plants)
        for repeat in range(count):
            rows = np.random.default_rng([repeat, 5]).permutation(len(from_))[: 2 * n]
            rows_2 = rows[n:]
            both = pair(take(from_, rows[:n]), take(other or from_, rows_2), seed=repeat)
            for test, run in TESTS.items():
                started = time.perf_counter()
                small[test] += run(both).p_value <= 0.05
                seconds[test] += time.perf_counter() - started
        words = ", ".join(
            f"{test} {hits} ({1000 * seconds[test] / count:.0f} ms each)" for test, hits in small.items()
        )
        print(f"{name}, {n} images a side, p <= 0.05 in {count} repeats: {words}", flush=True)


def power(pool: dict[str, Side], n: int, share: float, repeats: int) -> None:
    """A change in a share of production: how often it is found, by which codes."""
    for name in PLANTS:
        show(name, share, [once(pool["same"], pool[name], n, share, repeat) for repeat in range(repeats)])
    side = pool["same"]
    labels = np.asarray(side.labels)
    found = []
    for repeat in range(repeats):
        rng = np.random.default_rng([repeat, 2])
        new, old = (rng.permutation(np.flatnonzero(mask)) for mask in (labels == "ship", labels != "ship"))
        n_new = round(share * n)
        production = take(side, np.concatenate([old[n : 2 * n - n_new], new[:n_new]]))
        found.append(compare(take(side, old[:n]), replace(production, classes=None)).drifted)
    show("new class, no labels", share, found)


def once(side: Side, other: Side, n: int, share: float, repeat: int) -> tuple:
    rows = np.random.default_rng([repeat, 3]).permutation(len(side))[: 2 * n]
    reference, production = take(side, rows[:n]), mixed(side, other, rows[n:], round(share * n))
    return compare(replace(reference, classes=None), replace(production, classes=None)).drifted


def show(name: str, share: float, found: list) -> None:
    items = Counter(item for drifted in found for item in {candidate.item for _, candidate in drifted})
    n_found = sum(bool(drifted) for drifted in found)
    shown = ", ".join(f"{item} {n}" for item, n in items.most_common(5))
    print(f"{name} in {share:.0%}: found {n_found} of {len(found)}; {shown}", flush=True)


def large(side: Side) -> None:
    rows = np.random.default_rng(0).permutation(len(side))
    started, cpu = time.perf_counter(), time.process_time()
    compare(take(side, rows[:5000]), take(side, rows[5000:]))
    print(f"5,000 against 5,000 images after the sweep: {time.perf_counter() - started:.1f} s, "
          f"{time.process_time() - cpu:.1f} s of one core")  # fmt: skip


def streams(repeats: int) -> None:
    n = 2000
    at = np.arange(n)
    kinds = {
        "steady 98 %": np.full(n, 0.98),
        "steady 80 %": np.full(n, 0.8),
        "sudden, 98 % to 60 %": np.where(at < 1200, 0.98, 0.6),
        "sudden, 98 % to 93 %": np.where(at < 1200, 0.98, 0.93),
        "gradual, 98 % to 60 %": np.interp(at, [600, 1600], [0.98, 0.6]),
    }
    for name, chances in kinds.items():
        n_found = n_gradual = n_inside = 0
        errors, adwin = [], []
        for repeat in range(repeats):
            right = (np.random.default_rng([repeat, 4]).random(n) < chances).astype(float)
            found = changes(right, at.astype(float), n_permutations=199)
            n_found += bool(found)
            if len(found) == 1:
                n_gradual += found[0].gradual
                n_inside += found[0].first <= 1200 <= found[0].last
                errors.append(abs(found[0].at - 1200))
            adwin.append(first_alarm(right))
        print(f"{name}: changes in {n_found} of {repeats}; gradual {n_gradual}, interval holds the moment "
              f"{n_inside} of {len(errors)} single ones, "
              f"median distance {np.median(errors) if errors else '-'}; "
              f"ADWIN alarms {sum(each is not None for each in adwin)}, median at "
              f"{np.median([each for each in adwin if each is not None] or [np.nan])}")  # fmt: skip


def first_alarm(right: np.ndarray) -> int | None:
    try:
        from river.drift import ADWIN
    except ImportError:
        return None
    detector = ADWIN()
    for position, value in enumerate(right):
        detector.update(1 - value)
        if detector.drift_detected:
            return position
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--repeats", type=int, default=1000)
    parser.add_argument("--plants", type=int, default=100)
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "dataaudit-drift-bench")
    parser.add_argument("--only", choices=("alarms", "plants", "small", "large", "streams", "tests"))
    parser.add_argument("--test", choices=tuple(TESTS), default="classifier", help="of the alarms")
    given = parser.parse_args()
    given.cache.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    wanted = lambda part: given.only in (None, part)  # noqa: E731
    if wanted("large"):
        large(whole(given.data, given.cache))
    if wanted("plants"):
        power(planted(given.data, given.cache, PLANTS), given.n, 0.2, given.plants)
    if wanted("streams"):
        streams(given.plants)
    if wanted("small"):
        alarms(whole(given.data, given.cache), 20, given.plants, labeled=True)
    if wanted("alarms"):
        alarms(whole(given.data, given.cache), given.n, given.repeats, labeled=True, test=given.test)
    if wanted("tests"):
        pool = planted(given.data, given.cache, MILD)
        tests(whole(given.data, given.cache), pool, given.n, given.repeats, given.plants)


if __name__ == "__main__":
    main()
