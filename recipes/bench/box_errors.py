"""Errors planted in boxes, found by ours and by its peers on the same predictions, in one run.

    python recipes/bench/box_errors.py coco128 --data DATA --predictions fastest --weights FastestDet.onnx
    python recipes/bench/box_errors.py coco128 --data DATA --predictions baseline --seeds 0
    python recipes/bench/box_errors.py raccoon --data DATA --predictions baseline --seeds 0 1 2 3 4
    python recipes/bench/box_errors.py camvid --data DATA --seeds 0 1 --kinds missing spurious shifted --alone
    python recipes/bench/box_errors.py --speed 4000 118000
    python recipes/bench/box_errors.py raccoon --data DATA --time 364

Needs dataaudit[bench]. DATA holds ``coco128/``, ``raccoon/`` and ``camvid/``, of whose masks the boxes of
street scenes are made (see _streets.py). One kind of error at a time is planted in a
share of the objects (see _boxes.py), before the baseline is trained on them. For each kind the average
precision of the ranking by each method that has the kind, over the labels, or for missing objects over the
predictions (those at IoU >= 0.5 with a deleted object count once, and objects that no prediction finds as
missed). Of two boxes of one object the first that is named counts. ``seen`` is the average precision over
the wrong objects that some prediction overlaps by 0.5 or more alone.

Ours are the probabilities of the BOX checks. cleanlab's are its scores by box (overlooked, bad location,
swapped); FiftyOne Brain's its mistakenness, mistakenness of location, and its booleans for missing (ranked by
confidence) and spurious boxes.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from _boxes import KINDS, XY, Planted, plant
from _fastest import detect
from _streets import SETS, streets

from dataaudit import formats, pipeline
from dataaudit.formats._shared import ObjectRows
from dataaudit.metrics import box_iou
from dataaudit.signals.box_errors import box_errors
from dataaudit.signals.objects import image_sizes
from dataaudit.types import FLAGS, Locator, Report, Tables

CODES = {
    "wrong class": ("BOX002",),
    "missing": ("BOX003",),
    "spurious": ("BOX004",),
    "shifted": ("BOX005",),
    "resized": ("BOX005",),
    "duplicate": ("BOX008",),
    "other duplicate": ("BOX009",),
    "split": ("BOX010",),
    "merged": ("BOX011",),
}
CLEANLAB = {"wrong class": "swap", "missing": "overlooked", "shifted": "badloc", "resized": "badloc"}
BRAIN = {
    "wrong class": "mistakenness",
    "missing": "possible_missing",
    "spurious": "possible_spurious",
    "shifted": "mistakenness_loc",
    "resized": "mistakenness_loc",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("name", nargs="?", choices=("coco128", "raccoon", *SETS))
    parser.add_argument("--data", type=Path)
    parser.add_argument("--predictions", choices=("fastest", "baseline"), default="baseline")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--share", type=float, default=0.1)
    parser.add_argument("--least", type=float, default=0.1, help="confidence of FastestDet's predictions")
    parser.add_argument("--cache", type=Path, help="keeps what is computed from the images")
    parser.add_argument("--alone", action="store_true", help="ours alone, without the peers")
    parser.add_argument("--speed", type=int, nargs="+", metavar="IMAGES")
    parser.add_argument("--time", type=int, metavar="IMAGES", help="time the baseline on 640 x 480 pixels")
    given = parser.parse_args()
    if given.speed:
        speed(given.speed)
        return
    if given.time:
        time_baseline(loaded(given.name, given.data), given.time)
        return
    with tempfile.TemporaryDirectory(prefix="fiftyone-") as folder:
        os.environ["FIFTYONE_DATABASE_DIR"] = folder  # the user's own database isn't touched
        os.environ["FIFTYONE_DATABASE_VALIDATION"] = "false"
        compare(given)


def compare(given: argparse.Namespace) -> None:
    """Print a line for each kind of error."""
    with tempfile.TemporaryDirectory(prefix="streets-") as folder:
        made = given.name in SETS
        tables = streets(given.name, given.data, Path(folder)) if made else loaded(given.name, given.data)
        compare_on(tables, given)


def compare_on(tables: Tables, given: argparse.Namespace) -> None:
    found = None
    if given.predictions == "fastest":
        found = detect(given.weights, tables.images, least=given.least)
    for kind in given.kinds:
        if kind in ("wrong class", "other duplicate") and len(tables.classes) < 2:
            continue
        rows = [one(tables, found, kind, seed, given) for seed in given.seeds]
        show(kind, rows)


def loaded(name: str, data: Path) -> Tables:
    folder = data / "coco128" / "object_detection" if name == "coco128" else data / name
    tables = formats.read(folder)
    if name == "raccoon":
        return tables
    from PIL import Image

    sizes = [Image.open(path).size for path in tables.images["filepath"]]
    images = tables.images.assign(
        declared_width=pd.array([width for width, _ in sizes], dtype="Int64"),
        declared_height=pd.array([height for _, height in sizes], dtype="Int64"),
    )
    names = {name: name.replace(" ", "") for name in tables.classes}  # as FastestDet's list has some
    labels = tables.labels.assign(name=tables.labels["name"].map(names))
    return Tables(
        images=images,
        labels=labels,
        classes=tuple(sorted(names.values())),
        task="detection",
        units="relative",
    )


def one(
    tables: Tables, found: pd.DataFrame | None, kind: str, seed: int, given: argparse.Namespace
) -> dict[str, Any]:
    """Figures of each method on one draw."""
    planted = plant(tables, kind, share=given.share, seed=seed)
    if found is not None:
        found = found.assign(name=found["name"].str.replace(" ", ""))
        found = found[found["name"].isin(planted.tables.classes)].reset_index(drop=True)
    started = time.perf_counter()
    report = pipeline.audit(
        planted.tables, predictions=found, select=("BOX",), cache=given.cache, progress=False
    )
    figures: dict[str, Any] = {"n": len(planted.wrong) or len(planted.gone), "seed": seed}
    figures["dataaudit seconds"] = time.perf_counter() - started
    detections = (
        report.detections if report.detections is not None else pd.DataFrame(columns=["sample_id", *XY])
    )
    seen = visible(planted, kind, detections)
    for code in CODES[kind]:
        if code not in report.outcomes:
            figures["dataaudit"] = float("nan")
            figures["skipped"] = report.skipped.get(code)
            continue
        ranked = ours(report, code)
        figures["dataaudit"], figures["first 20"] = precision(planted, kind, ranked)
        figures["dataaudit, seen"], _ = precision(planted, kind, ranked, only=seen)
        figures["expected"] = float(ranked["suspicion"].sum())
        figures["flagged"] = int(report.outcomes[code].flagged.sum())
    if not given.alone and len(detections):
        for name, method, kinds in (("cleanlab", by_cleanlab, CLEANLAB), ("brain", by_brain, BRAIN)):
            if kind in kinds:
                ranked, seconds = method(planted.tables, detections, kinds[kind])
                figures[name], _ = precision(planted, kind, ranked)
                figures[f"{name} seconds"] = seconds
    return figures


def show(kind: str, rows: Sequence[Mapping[str, Any]]) -> None:
    table = pd.DataFrame(rows)
    skipped = table.pop("skipped").dropna().unique() if "skipped" in table else ()
    means = table.drop(columns="seed").mean()
    spread = f"{table['dataaudit'].min():.3f} to {table['dataaudit'].max():.3f}"
    print(f"{kind:16} " + "  ".join(f"{name} {value:.3f}" for name, value in means.items()) + f"  ({spread})",
          *skipped, flush=True)  # fmt: skip


# Ranking


def ours(report: Report, code: str) -> pd.DataFrame:
    """Suspicion of each item; objects that aren't there yet with their box."""
    outcome = report.outcomes[code]
    suspicion = outcome.probability if outcome.probability is not None else 1 - outcome.score
    table = pd.DataFrame({"suspicion": suspicion.fillna(1 - outcome.score)})
    if code == "BOX003":  # the name of an object that isn't there yet says where it is
        places = [item.rsplit(":+", 1) for item in table.index]
        table = table.assign(sample_id=[sample_id for sample_id, _ in places])
        table[XY] = [[float(corner) for corner in box.split(",")] for _, box in places]
    return table


def precision(
    planted: Planted, kind: str, ranked: pd.DataFrame, only: frozenset[str] | None = None
) -> tuple[float, float]:
    """Average precision of a ranking, and its precision among the first 20."""
    ranked = ranked.sort_values("suspicion", ascending=False, kind="stable")
    if kind == "missing":
        gone = planted.gone if only is None else planted.gone.loc[list(only)]
        hits = [hit for hit in _found(ranked, gone, planted.gone) if hit is not None]
        total = len(gone)
    else:
        wrong = planted.wrong if only is None else only
        groups = planted.groups
        # What would be added beside a label is the same finding as the label
        ranked = ranked[ranked.index.isin(planted.tables.labels.index)]
        named: set[str] = set()
        hits = []
        for item in ranked.index:
            group = groups.get(item, item)
            if item in planted.wrong and (item not in wrong or group in named):
                continue
            hits.append(item in wrong)
            named.add(group)
        total = len({groups.get(item, item) for item in wrong})
    right = np.array(hits, dtype=float)
    if not total or not len(right):
        return float("nan") if not total else 0.0, 0.0
    return float((right * right.cumsum() / np.arange(1, len(right) + 1)).sum() / total), float(
        right[:20].mean()
    )


def _found(ranked: pd.DataFrame, gone: pd.DataFrame, every: pd.DataFrame) -> list[bool | None]:
    """Whether each prediction is a deleted object; None for one that was found before or isn't asked for."""
    boxes = dict(list(every.groupby("sample_id")))
    named: set[str] = set()
    hits: list[bool | None] = []
    for sample_id, box in zip(ranked["sample_id"], ranked[XY].to_numpy(dtype=float), strict=True):
        own = boxes.get(sample_id)
        over = [] if own is None else list(own.index[box_iou(box, own[XY].to_numpy(dtype=float)) >= 0.5])
        new = [item for item in over if item not in named and item in gone.index]
        hits.append(True if new else None if over else False)
        named.update(new[:1])
    return hits


def visible(planted: Planted, kind: str, detections: pd.DataFrame) -> frozenset[str]:
    """The planted errors at whose box, or whose object's, there is a prediction with IoU >= 0.5.

    Of "merged" both objects must be seen.
    """
    if kind == "merged":
        assert planted.whole is not None
        gone = planted.gone.set_axis(pd.Index(planted.pairs, name="label_id"))
        return _overlapped(planted.whole, detections) & _overlapped(gone, detections)
    alone = len(planted.gone) and not planted.wrong
    return _overlapped(planted.gone if alone else planted.tables.labels.loc[list(planted.wrong)], detections)


def _overlapped(table: pd.DataFrame, detections: pd.DataFrame) -> frozenset[str]:
    own = dict(list(detections.groupby("sample_id")))
    return frozenset(
        str(item)
        for item, sample_id, box in zip(
            table.index, table["sample_id"], table[XY].to_numpy(dtype=float), strict=True
        )
        if sample_id in own and box_iou(box, own[sample_id][XY].to_numpy(dtype=float)).max() >= 0.5
    )


# Peers


def for_cleanlab(labels: pd.DataFrame, detections: pd.DataFrame, classes: Sequence[str]) -> Any:
    """Labels and predictions in its format, the ids of the labels, and the rows of the predictions."""
    numbers = {name: number for number, name in enumerate(classes)}
    by_image = dict(list(detections.groupby("sample_id")))
    given, predicted, ids, rows = [], [], [], []
    for sample_id, own in labels.groupby("sample_id", sort=False):
        given.append({"bboxes": own[XY].to_numpy(float), "labels": own["name"].map(numbers).to_numpy()})
        ids += list(own.index)
        found = by_image.get(sample_id, detections.iloc[:0])
        parts = np.empty(len(classes), dtype=object)
        for number, name in enumerate(classes):
            part = found[found["name"] == name]
            parts[number] = part[[*XY, "confidence"]].to_numpy(float).reshape(-1, 5)
            rows += list(part.index)
        predicted.append(parts)
    return given, predicted, ids, rows


def by_cleanlab(tables: Tables, detections: pd.DataFrame, kind: str) -> tuple[pd.DataFrame, float]:
    from cleanlab.object_detection import rank

    given, predicted, ids, rows = for_cleanlab(tables.labels, detections, tables.classes)
    score = getattr(rank, f"compute_{kind}_box_scores")
    started = time.perf_counter()
    scores = score(labels=given, predictions=predicted)
    seconds = time.perf_counter() - started
    flat = np.concatenate([np.ravel(each) for each in scores]).astype(float)
    if kind == "overlooked":
        table = detections.loc[rows].assign(suspicion=np.nan_to_num(1 - flat, nan=-1.0))
        return table[["suspicion", "sample_id", *XY]], seconds
    return pd.DataFrame({"suspicion": np.nan_to_num(1 - flat, nan=-1.0)}, index=ids), seconds


def by_brain(tables: Tables, detections: pd.DataFrame, kind: str) -> tuple[pd.DataFrame, float]:
    import fiftyone as fo
    import fiftyone.brain as fob

    dataset = fo.Dataset()
    sizes = image_sizes(tables.images)
    own = {key: dict(list(table.groupby("sample_id"))) for key, table in
           (("labels", tables.labels), ("found", detections))}  # fmt: skip
    samples = []
    for sample_id, path in tables.images["filepath"].items():
        size = np.tile(sizes.loc[sample_id].to_numpy(), 2)
        fields = {}
        for key, table in own.items():
            made = []
            rows = table.get(sample_id)
            for item, row in () if rows is None else rows.iterrows():
                x1, y1, x2, y2 = row[XY].to_numpy(dtype=float) / size
                extra = {} if key == "labels" else {"confidence": float(row["confidence"])}
                made.append(fo.Detection(label=row["name"], bounding_box=[x1, y1, x2 - x1, y2 - y1],
                                         item=str(item), **extra))  # fmt: skip
            fields[key] = fo.Detections(detections=made)
        samples.append(fo.Sample(filepath=path, **fields))
    dataset.add_samples(samples, progress=False)
    started = time.perf_counter()
    fob.compute_mistakenness(dataset, "found", label_field="labels", progress=False)
    seconds = time.perf_counter() - started
    key = "found" if kind == "possible_missing" else "labels"
    rows = []
    for found in dataset.values(f"{key}.detections"):
        for each in found or ():
            value = each[kind] if kind in each.field_names and each[kind] is not None else 0.0
            rows.append((each["item"], float(value) * (each.confidence if key == "found" else 1.0)))
    dataset.delete()
    table = pd.DataFrame(rows, columns=["item", "suspicion"])
    if key == "labels":
        return table.set_index("item"), seconds
    table = table.astype({"item": int}).set_index("item")
    return detections.join(table)[["suspicion", "sample_id", *XY]], seconds


# Speed


def speed(numbers: Sequence[int]) -> None:
    """Images with 7 boxes and 50 predictions of 80 classes; cleanlab on the first number alone."""
    for position, n in enumerate(numbers):
        images, labels, found, classes = made(n)
        started = time.perf_counter()
        box_errors(labels, found, images, classes)
        seconds = time.perf_counter() - started
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"dataaudit, {n:,} images: {seconds:.1f} s, {1000 * seconds / n:.2f} ms an image, "
              f"peak {peak:.2f} GiB")  # fmt: skip
        if position == 0:
            from cleanlab.object_detection.rank import get_label_quality_scores

            given, predicted, *_ = for_cleanlab(labels, found, classes)
            started = time.perf_counter()
            get_label_quality_scores(given, predicted, verbose=False)
            theirs = time.perf_counter() - started
            print(f"cleanlab, {n:,} images: {theirs:.1f} s, {1000 * theirs / n:.2f} ms an image, "
                  f"{theirs / seconds:.1f} times as long")  # fmt: skip


def time_baseline(tables: Tables, n: int) -> None:
    """Features and baseline on n images of 640 x 480 pixels: those of the dataset, and then mirrored ones."""
    from PIL import Image, ImageOps

    with tempfile.TemporaryDirectory() as folder:
        rows, sizes = ObjectRows(), image_sizes(tables.images)
        own = dict(list(tables.labels.groupby("sample_id")))
        for number in range(n):
            turn, row = divmod(number, len(tables.images))
            sample_id = tables.images.index[row]
            file = Path(folder) / f"{number}.jpg"
            image = Image.open(tables.images["filepath"].iloc[row]).convert("RGB").resize((640, 480))
            (ImageOps.mirror(image) if turn % 2 else image).save(file)
            rows.image(file.name, str(file), Locator(file="a.xml"), size=(640, 480))
            scale = np.tile([640, 480] / sizes.loc[sample_id].to_numpy(), 2)
            for item, label in own.get(sample_id, tables.labels.iloc[:0]).iterrows():
                x1, y1, x2, y2 = label[XY].to_numpy(dtype=float) * scale
                corners = (640 - x2, y1, 640 - x1, y2) if turn % 2 else (x1, y1, x2, y2)
                rows.object(file.name, f"{number}:{item}", label["name"], corners, Locator(file="a.xml"))
        resized = rows.tables(source=None)
        report = pipeline.audit(resized, select=("BOX003",), cache=Path(folder) / "cache", progress=False)
        seconds = report.timings
        parts = f"features and baseline {seconds['detections']:.0f} s, whole audit {seconds['total']:.0f} s"
        print(f"{n} images, {len(resized.labels)} boxes: {parts}")


def made(n: int) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame, tuple[str, ...]]:
    """The signals of n images."""
    rng = np.random.default_rng(0)
    ids = pd.Index([f"{number:012d}.jpg" for number in range(n)], name="sample_id")
    images = pd.DataFrame(
        {"width": 640, "height": 480, "declared_width": 640, "declared_height": 480}, index=ids
    )
    classes = np.array([f"class {number:02d}" for number in range(80)], dtype=object)

    def boxes(m: int) -> np.ndarray:
        corner = rng.uniform(0, 1, (m, 2)) * [560, 400]
        return np.concatenate([corner, corner + rng.uniform(10, 80, (m, 2))], axis=1)

    corners, names = boxes(7 * n), rng.integers(80, size=7 * n)
    labels = pd.DataFrame(corners, columns=XY).assign(sample_id=np.repeat(ids, 7), name=classes[names])
    labels = labels.assign(**dict.fromkeys(FLAGS, False))
    found, predicted = boxes(50 * n), rng.integers(80, size=50 * n)
    confidence = rng.uniform(0, 0.5, 50 * n)
    seen = (np.arange(n)[:, None] * 50 + np.arange(7)).ravel()
    found[seen] = corners + rng.normal(0, 4, corners.shape)
    predicted[seen] = np.where(rng.random(7 * n) < 0.9, names, predicted[seen])
    confidence[seen] = rng.uniform(0.3, 1, 7 * n)
    table = pd.DataFrame(found, columns=XY).assign(
        sample_id=np.repeat(ids, 50), name=classes[predicted], confidence=confidence
    )
    return images, labels, table, tuple(classes)


if __name__ == "__main__":
    main()
