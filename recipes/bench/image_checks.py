"""Which defects of images are found, and how many sound images are flagged: dataaudit and CleanVision, each
with its defaults, on the same files.

python recipes/bench/image_checks.py FOLDER [FOLDER ...] [--planted 30] [--images 600] [--seeds 3]

The folders hold sound photos. Some get one defect each, drawn with a seed; the rest are left as they are.
What is flagged among those is a false alarm, but that a few of the untouched photos do have the defect: grey
ones above all.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageFilter

from dataaudit.checks import images as checks
from dataaudit.sweep import sweep

Rng = np.random.Generator


def exposed(image: Image.Image, factor: float) -> Image.Image:
    values = np.asarray(image, dtype=float) * factor
    return Image.fromarray(np.clip(values, 0, 255).round().astype(np.uint8))


def blurred(image: Image.Image, rng: Rng) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(max(image.size) * rng.uniform(0.005, 0.03)))


def strip(image: Image.Image, rng: Rng) -> Image.Image:
    width, height = image.size
    long = rng.uniform(4, 10)
    if width > height:
        return image.crop((0, height // 3, width, height // 3 + max(1, round(width / long))))
    return image.crop((width // 3, 0, width // 3 + max(1, round(height / long)), height))


def tiny(image: Image.Image, rng: Rng) -> Image.Image:
    scale = rng.uniform(12, 40) / max(image.size)
    return image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))


def constant(image: Image.Image, rng: Rng) -> Image.Image:
    return Image.new("RGB", image.size, tuple(map(int, rng.integers(0, 256, 3))))


def mostly_flat(image: Image.Image, rng: Rng) -> Image.Image:
    # A small picture on a flat page
    page = constant(image, rng)
    share = rng.uniform(0.12, 0.3)
    patch = image.resize((max(1, round(image.width * share)), max(1, round(image.height * share))))
    page.paste(patch, (image.width // 3, image.height // 4))
    return page


DEFECTS: dict[str, Callable[[Image.Image, Rng], Image.Image]] = {
    "dark": lambda image, rng: exposed(image, rng.uniform(0.03, 0.2)),
    "bright": lambda image, rng: exposed(image, rng.uniform(4, 12)),
    "blurry": blurred,
    "low information": mostly_flat,
    "odd size": tiny,
    "odd aspect ratio": strip,
    "grey": lambda image, rng: image.convert("L").convert("RGB"),
    "constant": constant,
}
OURS = {
    "dark": "dark_image",
    "bright": "bright_image",
    "blurry": "blurry_image",
    "low information": "low_information",
    "odd size": "odd_size",
    "odd aspect ratio": "odd_aspect_ratio",
    "grey": "odd_colour",
    "constant": "near_constant",
}
THEIRS = {
    "dark": "dark",
    "bright": "light",
    "blurry": "blurry",
    "low information": "low_information",
    "odd size": "odd_size",
    "odd aspect ratio": "odd_aspect_ratio",
    "grey": "grayscale",
    "constant": "low_information",
}


def plant(paths: list[Path], folder: Path, planted: int, seed: int) -> pd.Series[str]:
    """Write the images, some with a defect; returns the defect by file, "" for none."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(paths))
    defects = [name for name in DEFECTS for _ in range(planted)]
    truth = {}
    for position, number in enumerate(order):
        defect = defects[position] if position < len(defects) else ""
        file = folder / f"{position:05d}.jpg"
        if defect:
            with Image.open(paths[number]) as image:
                DEFECTS[defect](image.convert("RGB"), rng).save(file, quality=92)
        else:
            shutil.copyfile(paths[number], file)
        truth[str(file)] = defect
    return pd.Series(truth)


def ours(files: list[str]) -> tuple[pd.DataFrame, float]:
    started = time.perf_counter()
    properties = sweep(pd.Series(files, index=files), workers=1).properties
    labels = pd.DataFrame({"sample_id": files, "name": "", "locator": None})
    found = {}
    for defect, name in OURS.items():
        function = getattr(checks, name)
        outcome = function(properties, labels) if name == "near_constant" else function(properties)
        found[defect] = outcome.flagged
    return pd.DataFrame(found).loc[files], time.perf_counter() - started


def theirs(files: list[str]) -> tuple[pd.DataFrame, float]:
    from cleanvision import Imagelab

    started = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        lab = Imagelab(filepaths=files)
        lab.find_issues({name: {} for name in sorted(set(THEIRS.values()))}, n_jobs=1, verbose=False)
    seconds = time.perf_counter() - started
    table = lab.issues.loc[files]
    return pd.DataFrame({defect: table[f"is_{name}_issue"] for defect, name in THEIRS.items()}), seconds


def counts(found: pd.DataFrame, truth: pd.Series[str]) -> pd.DataFrame:
    """For each defect: how many there are, are found, and how many untouched images and other defects are
    flagged."""
    untouched = (truth == "").to_numpy()
    rows = {}
    for defect in found:
        mine = (truth == defect).to_numpy()
        flags = found[defect].to_numpy(dtype=bool)
        rows[defect] = [
            mine.sum(),
            flags[mine].sum(),
            flags[untouched].sum(),
            flags[~mine & ~untouched].sum(),
        ]
    rows["any but grey"] = [0, 0, found[untouched].drop(columns="grey").any(axis=1).sum(), 0]
    return pd.DataFrame.from_dict(rows, orient="index", columns=["planted", "found", "untouched", "others"])


def table_of(total: pd.DataFrame) -> pd.DataFrame:
    flagged = total[["found", "untouched", "others"]].sum(axis=1)
    shown = total[["untouched", "others"]].astype(object)
    for place, (name, of) in enumerate({"recall": total["planted"], "precision": flagged}.items()):
        shown.insert(place, name, [f"{share:.0%}" for share in (total["found"] / of.clip(lower=1))])
    shown.loc["any but grey", ["recall", "precision", "others"]] = ""
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="+")
    parser.add_argument("--planted", type=int, default=30, help="images with each defect")
    parser.add_argument("--images", type=int, default=600, help="images in all, at most")
    parser.add_argument("--seeds", type=int, default=3, help="how many times, with another draw each")
    parser.add_argument("--save", type=Path, help="keep the files, and what is flagged, in this folder")
    given = parser.parse_args()
    every = sorted(
        path for root in given.folder for path in root.rglob("*") if path.suffix in (".jpg", ".png")
    )
    totals: dict[str, pd.DataFrame] = {}
    times: dict[str, float] = {}
    n = n_untouched = 0
    for seed in range(given.seeds):
        order = np.random.default_rng(seed).permutation(len(every))[: given.images]
        with contextlib.ExitStack() as at_end:
            parent = given.save or Path(at_end.enter_context(tempfile.TemporaryDirectory()))
            folder = parent / str(seed)
            folder.mkdir(parents=True, exist_ok=True)
            truth = plant([every[i] for i in order], folder, given.planted, seed)
            n, n_untouched = n + len(truth), n_untouched + int((truth == "").sum())
            for name, tool in (("dataaudit", ours), ("CleanVision", theirs)):
                found, seconds = tool(list(truth.index))
                totals[name] = counts(found, truth) + totals.get(name, 0)
                times[name] = seconds + times.get(name, 0.0)
                if given.save:
                    found.assign(truth=truth).to_csv(folder / f"{name}.csv")
    print(f"{n} images in {given.seeds} draws, {n_untouched} of them untouched")
    for name, total in totals.items():
        print(
            f"\n{name}: {times[name] * 1000 / n:.1f} ms an image, one thread\n{table_of(total).to_string()}"
        )


if __name__ == "__main__":
    main()
