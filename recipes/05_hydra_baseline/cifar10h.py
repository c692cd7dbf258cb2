"""The figures of the README: human labels, dataaudit's fixes and the truth as three versions of CIFAR-10H.

    python cifar10h.py CIFAR10H work/
    python train.py -m data.path=work/photos data.version=v1,v2,v3 seed=0,1,2 model.image_size=64

CIFAR10H holds images/ and human_counts.csv, a column of votes a class. v1 has the label that one person gave
each image, drawn at random; v2 is v1 after the surest fixes that an audit of it suggests, and nobody reviewed
them; v3 is the truth.
"""

import argparse
import shutil
from pathlib import Path

import numpy as np
import pandas as pd

import dataaudit as da

MIN_PROBABILITY = 0.8


def draw(source: Path, n: int, *, hard: bool, seed: int = 0) -> pd.DataFrame:
    """Columns path, file, truth, given, split: `n` images to train on and `n` to test on.

    Args:
        source: CIFAR10H.
        n: images of each.
        hard: train on the images that people agree least about.
        seed: of the choice and of the votes.
    """
    chance = np.random.default_rng(seed)
    votes = pd.read_csv(source / "human_counts.csv")
    columns = [name for name in votes if name.startswith("h_")]
    shares = votes[columns].div(votes[columns].sum(axis=1), axis=0).to_numpy()
    drawn = [columns[chance.choice(len(columns), p=row)].removeprefix("h_") for row in shares]
    names = [f"{number:05d}.jpg" for number in votes["index"]]  # one name for one image, in all classes
    rows = pd.DataFrame({"path": votes["path"], "file": names, "truth": votes["label_name"], "given": drawn})
    order = np.argsort(shares.max(axis=1), kind="stable") if hard else chance.permutation(len(rows))
    chosen = rows.iloc[chance.permutation(order[: 2 * n])]
    return chosen.assign(split=["train"] * n + ["test"] * n).reset_index(drop=True)


def place(rows: pd.DataFrame, source: Path, folder: Path, column: str) -> None:
    """The images below split and class; what stood there before goes."""
    shutil.rmtree(folder, ignore_errors=True)
    for path, own, split, name in rows[["path", "file", "split", column]].itertuples(index=False):
        file = folder / split / name / own
        file.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / path, file)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--n", type=int, default=1500)
    parser.add_argument("--hard", action="store_true", help="the images that people agree least about")
    given = parser.parse_args()
    rows, folder = draw(given.source, given.n, hard=given.hard), given.work / "photos"

    place(rows, given.source, folder, "given")
    da.commit(folder, message="one person's label an image", progress=False)
    plan = da.plan(da.audit(folder, progress=False), min_probability=MIN_PROBABILITY)
    da.apply(plan, reviewer="nobody")
    da.commit(folder, message=f"{len(plan)} fixes as dataaudit suggests them", progress=False)
    left = {file.name: file.parent.name for file in folder.glob("*/*/*.jpg")}
    fixed = rows.assign(now=rows["file"].map(left).fillna(""))
    for split, part in fixed.groupby("split"):
        there = part[part["now"] != ""]
        before, after = (part["given"] != part["truth"]).mean(), (there["now"] != there["truth"]).mean()
        print(f"{split}: {len(part)} images, {before:.1%} wrong in v1; {len(there)}, {after:.1%} wrong in v2")
    place(rows, given.source, folder, "truth")
    da.commit(folder, message="the truth", progress=False)


if __name__ == "__main__":
    main()
