"""Outliers, off-topic groups, underperforming groups and spurious cues: what is planted and what is found.

Off-topic images are planted among CIFAR-10 images (digits, street frames, pages of text and COCO crops at 32
pixels), with class labels drawn at random, and CIFAR-10 images among COCO images without labels. OUT001 and
OUT002 are
compared with cleanlab's OutOfDistribution score and Datalab's default rule on the same embeddings. Cues are
planted in the files of one class; what is flagged on resamples without any is a false alarm.

    python recipes/bench/outliers.py CIFAR10H COCO CAMVID [--draws 5] [--resamples 20] [--only outliers]

COCO and CAMVID are folders of images.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw, ImageEnhance

import dataaudit as da
from dataaudit.checks.cues import spurious_cue
from dataaudit.pipeline import embed
from dataaudit.sweep import sweep

Planted = tuple[str, list[str], list[str]]


def small(file: Path, to: Path) -> Path:
    """The square in the middle at 32 pixels."""
    image = Image.open(file).convert("RGB")
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = image.crop((left, top, left + side, top + side)).resize((32, 32), Image.Resampling.LANCZOS)
    to.parent.mkdir(parents=True, exist_ok=True)
    square.save(to, quality=95)
    return to


def page(seed: int, to: Path) -> Path:
    """Lines of text on white, at 32 pixels."""
    words = ["lorem", "ipsum", "dolor", "12", "48", "97", "file", "edit", "view", "help", "save", "total"]
    rng = np.random.default_rng(seed)
    image = Image.new("RGB", (128, 128), (250, 250, 250))
    for line in range(10):
        ImageDraw.Draw(image).text((4, 4 + 12 * line), " ".join(rng.choice(words, 4)), fill=(20, 20, 60))
    to.parent.mkdir(parents=True, exist_ok=True)
    image.resize((32, 32), Image.Resampling.LANCZOS).save(to)
    return to


def pictures(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))


def write_pool(arguments: argparse.Namespace, folder: Path) -> dict[str, dict[str, Path]]:
    """Files by id of each source."""
    from sklearn.datasets import load_digits

    votes = pd.read_csv(arguments.cifar10h / "human_counts.csv")
    chosen = votes.sample(4000, random_state=0)
    pool: dict[str, dict[str, Path]] = {
        "cifar": {str(path): arguments.cifar10h / str(path) for path in chosen["path"]}
    }
    coco = {path.name: path for path in pictures(arguments.coco)}
    pool["coco"] = {f"coco/{name}": path for name, path in coco.items()}
    pool["coco32"] = {f"coco32/{name}": small(path, folder / "coco32" / name) for name, path in coco.items()}
    pool["street32"] = {
        f"street32/{path.stem}.jpg": small(path, folder / "street32" / f"{path.stem}.jpg")
        for path in pictures(arguments.camvid)
    }
    (folder / "digits").mkdir()
    pool["digits"], pool["copies"] = {}, {}
    for at, digit in enumerate(load_digits().images[:300]):
        image = Image.fromarray((digit * 15.9).astype(np.uint8)).resize((32, 32), Image.Resampling.BICUBIC)
        file = folder / "digits" / f"{at}.png"
        image.save(file)
        pool["digits"][f"digits/{at}.png"] = file
    pool["text"] = {f"text/{at}.png": page(at, folder / "text" / f"{at}.png") for at in range(60)}
    for at, file in enumerate(list(coco.values())[:20]):
        for copy in range(5):
            to = folder / "copies" / f"{at}-{copy}.jpg"
            small(file, to)
            Image.open(to).save(to, quality=95 - copy)
            pool["copies"][f"copies/{at}-{copy}.jpg"] = to
    return pool


def tables_of(files: dict[str, Path], names: dict[str, str | None]) -> da.Tables:
    ids = pd.Index(list(files))
    images = pd.DataFrame(
        {
            "filepath": [str(files[i]) for i in ids],
            "width": None,
            "height": None,
            "split": None,
            "digest": None,
        },
        index=ids,
        dtype=object,
    )
    labels = pd.DataFrame(
        {"sample_id": ids, "name": [names[i] for i in ids], "geometry": None, "locator": None},
        index=ids,
        dtype=object,
    )
    return da.Tables(
        images=images, labels=labels, classes=tuple(sorted({name for name in names.values() if name}))
    )


def scenarios(pool: dict[str, dict[str, Path]], draw: int) -> Iterator[Planted]:
    """Name, ids of the dataset, ids of what is planted."""
    rng = np.random.default_rng(draw)

    def some(source: str, n: int) -> list[str]:
        return [str(one) for one in rng.choice(sorted(pool[source]), n, replace=False)]

    many = some("cifar", 2500)
    yield "CIFAR-10", many, []
    yield "CIFAR-10 + 20 digits", many, some("digits", 20)
    yield "CIFAR-10 + 5 digits", many, some("digits", 5)
    yield "CIFAR-10 + 20 street frames", many, some("street32", 20)
    yield "CIFAR-10 + 30 COCO pictures", many, some("coco32", 30)
    yield "CIFAR-10 + 15 pages of text", many, some("text", 15)
    yield "CIFAR-10 + 3 pages of text", many, some("text", 3)
    yield "CIFAR-10 + 1 page of text", many, some("text", 1)
    one = int(rng.integers(20))
    yield "CIFAR-10 + 1 COCO picture in 5 copies", many, [f"copies/{one}-{copy}.jpg" for copy in range(5)]
    photos = sorted(pool["coco"])
    yield "COCO, no labels", photos, []
    yield "COCO, no labels + 10 CIFAR-10", photos, some("cifar", 10)
    yield "COCO, no labels + 100 CIFAR-10", photos, some("cifar", 100)
    yield "digits, no labels + 10 CIFAR-10", sorted(pool["digits"]), some("cifar", 10)


def of_cleanlab(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Score of OutOfDistribution, and the flags of Datalab's default rule.

    Datalab flags a mean distance to the 10 nearest neighbours above the third quartile and 1 / 0.37037 - 1
    times the range between the quartiles. It is applied here to the same neighbours, as Datalab itself needs
    further packages.
    """
    from cleanlab.outlier import OutOfDistribution

    model = OutOfDistribution()
    score = np.asarray(model.fit_score(features=features, verbose=False))
    distances, _ = model.params["knn"].kneighbors(n_neighbors=10)
    mean = distances.mean(1)
    first, third = np.percentile(mean, [25, 75])
    return score, mean > third + (1 / 0.37037 - 1) * (third - first)


def f1(flagged: np.ndarray, planted: np.ndarray) -> float:
    return float(2 * (flagged & planted).sum() / max(flagged.sum() + planted.sum(), 1))


def outliers(pool: dict[str, dict[str, Path]], cache: Path, draws: int) -> pd.DataFrame:
    from sklearn.metrics import average_precision_score, roc_auc_score

    files = {name: file for source in pool.values() for name, file in source.items()}
    features = embed(tables_of(files, dict.fromkeys(files)), progress=False)
    rows = []
    for draw in range(draws):
        for name, many, planted in scenarios(pool, draw):
            ids = [*many, *planted]
            labeled = name.startswith("CIFAR")
            classes = sorted({one.split("/")[-2] for one in many}) if labeled else [None]
            rng = np.random.default_rng(draw)
            names = {
                one: one.split("/")[-2] if labeled and one in pool["cifar"] else rng.choice(classes)
                for one in ids
            }
            report = da.audit(
                tables_of({one: files[one] for one in ids}, names),
                select=["OUT"],
                cache=cache,
                progress=False,
            )
            outcomes = [report.outcomes[code] for code in ("OUT001", "OUT002")]
            score = np.min([outcome.score.reindex(ids).to_numpy() for outcome in outcomes], axis=0)
            flags = np.any([outcome.flagged.reindex(ids).to_numpy() for outcome in outcomes], axis=0)
            theirs, their_flags = of_cleanlab(features.loc[ids].to_numpy())
            y = np.isin(ids, planted)
            row = {
                "images": name, "ours: flagged": flags[y].sum(), "ours: false": flags[~y].sum(),
                "Datalab: flagged": their_flags[y].sum(), "Datalab: false": their_flags[~y].sum(),
            }  # fmt: skip
            if planted:
                row |= {
                    "ours: AUROC": roc_auc_score(y, -score), "cleanlab: AUROC": roc_auc_score(y, -theirs),
                    "ours: AP": average_precision_score(y, -score),
                    "cleanlab: AP": average_precision_score(y, -theirs),
                    "ours: F1": f1(flags, y), "Datalab: F1": f1(their_flags, y),
                }  # fmt: skip
            rows.append(row)
    return pd.DataFrame(rows).groupby("images", sort=False).mean()


def with_cue(image: Image.Image, cue: str, chance: float) -> Image.Image:
    """The image with a cue; `chance` in [0, 1] decides whether it is one of those that have it."""
    image = image.convert("RGB")
    draw = ImageDraw.Draw(image)
    if cue == "grey frame of 2 pixels":
        draw.rectangle((0, 0, 31, 31), outline=(128, 128, 128), width=2)
    elif cue == "mark in the corner of 70 %" and chance < 0.7:
        draw.rectangle((23, 26, 30, 30), fill=(250, 250, 250))
    elif cue == "60 % at 40 pixels" and chance < 0.6:
        return image.resize((40, 40), Image.Resampling.LANCZOS)
    elif "brighter" in cue:
        return ImageEnhance.Brightness(image).enhance(1 + int(cue.split()[0]) / 100)
    return image


CUES = (
    "none", "PNG", "grey frame of 2 pixels", "mark in the corner of 70 %", "60 % at 40 pixels",
    "20 % brighter", "50 % brighter", "100 % brighter",
)  # fmt: skip


def cues(pool: dict[str, dict[str, Path]], folder: Path, resamples: int) -> pd.DataFrame:
    rows = []
    for seed in range(resamples):
        rng = np.random.default_rng(seed)
        ids = [str(one) for one in rng.choice(sorted(pool["cifar"]), 1500, replace=False)]
        names = [one.split("/")[-2] for one in ids]
        target = sorted(set(names))[seed % 10]
        for cue in CUES:
            files = {}
            for one, name in zip(ids, names, strict=True):
                files[one] = str(pool["cifar"][one])
                if name == target and cue != "none":
                    to = folder / f"{seed}-{cue}-{one.replace('/', '_')}"
                    to = to.with_suffix(".png" if cue == "PNG" else ".jpg")
                    with_cue(Image.open(files[one]), cue, float(rng.random())).save(to, quality=95)
                    files[one] = str(to)
            swept = sweep(pd.Series(files))
            tables = tables_of(
                {one: Path(file) for one, file in files.items()}, dict(zip(ids, names, strict=True))
            )
            outcome = spurious_cue(swept.properties, swept.thumbnails, tables.labels, tables.images)
            found = outcome.evidence["classes"] if len(outcome.evidence) else pd.Series(dtype=str)
            right = [target in classes.split(", ") for classes in found]
            rows.append(
                {
                    "cue": cue,
                    "found": any(right) and cue != "none",
                    "false": len(found) - (sum(right) if cue != "none" else 0),
                }
            )
    return pd.DataFrame(rows).groupby("cue", sort=False).agg({"found": "sum", "false": "sum"})


def groups(pool: dict[str, dict[str, Path]], cache: Path, resamples: int) -> pd.DataFrame:
    """GRP001 to GRP004 on resamples as they are, and with a third of the labels of the darkest wrong."""
    rows = []
    for seed in range(resamples):
        rng = np.random.default_rng(seed)
        ids = [str(one) for one in rng.choice(sorted(pool["cifar"]), 2000, replace=False)]
        names = {one: one.split("/")[-2] for one in ids}
        classes = sorted(set(names.values()))
        light = {one: np.asarray(Image.open(pool["cifar"][one]).convert("L")).mean() for one in ids}
        darkest = sorted(ids, key=lambda one: light[one])[:400]
        wrong = {one: str(rng.choice(classes)) for one in darkest if rng.random() < 1 / 3}
        for what, given in (("as they are", names), ("wrong labels among the darkest", {**names, **wrong})):
            files = {one: pool["cifar"][one] for one in ids}
            report = da.audit(tables_of(files, given), select=["GRP"], cache=cache, progress=False)
            row = {code: int(outcome.flagged.sum()) for code, outcome in report.outcomes.items()}
            named = any(item.item_id.startswith("brightness below") for item in report.items)
            rows.append({"images": what, **row, "the darkest named": named})
    return pd.DataFrame(rows).groupby("images", sort=False).sum()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("cifar10h", "coco", "camvid"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--resamples", type=int, default=20)
    parser.add_argument("--only", choices=("outliers", "groups", "cues"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        pool = write_pool(arguments, root)
        (root / "cues").mkdir()
        if arguments.only in (None, "outliers"):
            print(outliers(pool, root / "cache", arguments.draws).T.round(3).to_string())
        if arguments.only in (None, "groups"):
            print(groups(pool, root / "cache", arguments.resamples).to_string())
        if arguments.only in (None, "cues"):
            print(cues(pool, root / "cues", arguments.resamples).to_string())


if __name__ == "__main__":
    main()
