"""The figures of the README: human labels, dataaudit's fixes and the truth as three versions of CIFAR-10H.

    python cifar10h.py CIFAR10H work/ && cd work && python ../train.py -m data.path=photos data.version=v1,v2,v3 \\
        data.trusted=v3 seed=0,1,2 model.image_size=64

CIFAR10H holds images/ and human_counts.csv, a column of votes a class. v1 has the label of one person an image,
drawn at random; v2 is v1 after the fixes that an audit of it suggests, and nobody reviews them; v3 is the truth.
"""

import argparse
import shutil
from pathlib import Path

import numpy as np
import pandas as pd

import dataaudit as da


def draw(source: Path, n: int, *, hard: bool, seed: int = 0) -> pd.DataFrame:
    """Columns path, split, truth, given: `n` images to train on and as many to test on, drawn at random.

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
    rows = pd.DataFrame({"path": votes["path"], "truth": votes["label_name"], "given": drawn})
    order = np.argsort(shares.max(axis=1), kind="stable") if hard else chance.permutation(len(rows))
    chosen = rows.iloc[chance.permutation(order[: 2 * n])]
    return chosen.assign(split=["train"] * n + ["test"] * n).reset_index(drop=True)


def place(rows: pd.DataFrame, source: Path, folder: Path, column: str) -> None:
    """The images below split and class; what stood there before goes."""
    shutil.rmtree(folder, ignore_errors=True)
    for path, split, name in rows[["path", "split", column]].itertuples(index=False):
        file = folder / split / name / Path(path).name
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
    plan = da.plan(da.audit(folder, progress=False))
    da.apply(plan, reviewer="nobody")
    da.commit(folder, message=f"{len(plan)} fixes as dataaudit suggests them", progress=False)
    left = {file.name: (file.parts[-3], file.parts[-2]) for file in folder.glob("*/*/*.jpg")}
    fixed = rows.assign(now=[left.get(Path(path).name, ("", ""))[1] for path in rows["path"]])
    for split, part in fixed.groupby("split"):
        there = part[part["now"] != ""]
        print(f"{split}: {len(part)} images; wrong labels: v1 {(part['given'] != part['truth']).mean():.1%}, "
              f"v2 {(there['now'] != there['truth']).mean():.1%} of the {len(there)} that are left")  # fmt: skip
    place(rows, given.source, folder, "truth")
    da.commit(folder, message="the truth", progress=False)


if __name__ == "__main__":
    main()
