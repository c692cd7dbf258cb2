"""The whole loop on real images: scikit-learn's 1,797 handwritten digits, with planted errors."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dataaudit.errors import InputError
from dataaudit.types import Report

__all__ = ["Planted", "run", "write_digits"]

_SEED = 0
_FLIPPED = 0.05
_N_LEAKS, _N_COPIES = 12, 8


@dataclass(frozen=True, kw_only=True)
class Planted:
    """What is wrong with the demo's images, by sample id.

    Attributes:
        flipped: sample to its true class.
        leaks: copies in the training split of images of the test split.
        copies: second copies within the training split.
        broken: the file that is cut off.
    """

    flipped: dict[str, str]
    leaks: tuple[str, ...]
    copies: tuple[str, ...]
    broken: str


def write_digits(folder: Path) -> Planted:
    """Write the digits as an image folder with splits, 5 % of the labels flipped, copies and a broken file.

    Args:
        folder: a new or empty folder.

    Returns:
        What was planted.

    Raises:
        InputError: the folder isn't empty.
    """
    from sklearn.datasets import load_digits

    if folder.exists() and any(folder.iterdir()):
        raise InputError(
            "The folder of the demo is not empty.", where=folder, fix="Name a new folder: dataaudit demo DIR"
        )
    digits = load_digits()
    rng = np.random.default_rng(_SEED)
    n = len(digits.target)
    test = np.zeros(n, dtype=bool)
    test[rng.permutation(n)[: n // 4]] = True
    given = digits.target.copy()
    wrong = rng.permutation(n)[: round(_FLIPPED * n)]
    given[wrong] = (given[wrong] + rng.integers(1, 10, len(wrong))) % 10
    ids = [f"{'test' if test[i] else 'train'}/{given[i]}/{i:04d}.png" for i in range(n)]
    images = [_image(pixels) for pixels in digits.images]
    for sample_id, image in zip(ids, images, strict=True):
        _save(image, folder / sample_id)
    sound = np.setdiff1d(np.arange(n), wrong)
    leaked = rng.choice(sound[test[sound]], _N_LEAKS, replace=False)
    copied = rng.choice(sound[~test[sound]], _N_COPIES + 1, replace=False)
    leaks = tuple(f"train/{given[i]}/leak-{i:04d}.png" for i in leaked)
    copies = tuple(f"train/{given[i]}/copy-{i:04d}.png" for i in copied[:-1])
    for i, sample_id in zip([*leaked, *copied[:-1]], [*leaks, *copies], strict=True):
        (folder / sample_id).write_bytes((folder / ids[i]).read_bytes())
    broken = f"train/{given[copied[-1]]}/broken.png"
    (folder / broken).write_bytes((folder / ids[copied[-1]]).read_bytes()[:70])
    flipped = {ids[i]: str(digits.target[i]) for i in wrong}
    return Planted(flipped=flipped, leaks=leaks, copies=copies, broken=broken)


def _image(pixels: np.ndarray[Any, Any]) -> Any:
    from PIL import Image

    grey = np.clip(pixels * 16, 0, 255).astype(np.uint8)
    return Image.fromarray(grey).resize((32, 32), Image.Resampling.BICUBIC)


def _save(image: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def found_of_planted(report: Report, planted: Planted) -> dict[str, tuple[int, int, int]]:
    """How many of what was planted was found.

    Returns:
        By code: planted, found of those, and findings in all.
    """
    by_code: dict[str, set[str]] = {}
    for item in report.items:
        by_code.setdefault(item.code, set()).add(item.sample_id or item.item_id)
    wanted = {"LBL001": set(planted.flipped), "SPL001": set(planted.leaks), "DUP001": set(planted.copies),
              "IMG001": {planted.broken}}  # fmt: skip
    copies = {code: _matches(report, code, ids) if code == "DUP001" else len(ids & by_code.get(code, set()))
              for code, ids in wanted.items()}  # fmt: skip
    return {code: (len(ids), copies[code], len(by_code.get(code, ()))) for code, ids in wanted.items()}


def _matches(report: Report, code: str, ids: set[str]) -> int:
    # Of two equal files either may be the one to keep, so a copy counts as found when its pair is flagged.
    pairs = [{item.sample_id, item.suggested} for item in report.items if item.code == code]
    return sum(any(sample_id in pair for pair in pairs) for sample_id in ids)


def run(folder: Path, *, fiftyone: bool = True) -> None:
    """Run the demo: plant, audit, fix, commit, diff, compare; prints what was found against what was planted.

    Args:
        folder: a new folder; everything is made in it.
        fiftyone: write the findings into FiftyOne too.
    """
    from rich.console import Console
    from rich.text import Text

    console = Console()
    started = time.perf_counter()
    photos = folder / "digits"

    def step(text: str) -> None:
        line = Text(f"\n[{time.perf_counter() - started:4.0f} s] {text}", style="bold")
        console.print(line, soft_wrap=True)

    step("Writing scikit-learn's digits, with errors that are known")
    console.print(Text(str(photos)), soft_wrap=True)
    planted = write_digits(photos)
    (folder / "planted.json").write_text(json.dumps(planted.__dict__, indent=2))
    _loop(photos, planted, console, step, fiftyone)
    step("Done. Look around:")
    for command in ("audit", "version list", "fix --undo"):
        console.print(Text(f"  dataaudit {command} {photos}"), soft_wrap=True)


def _loop(photos: Path, planted: Planted, console: Any, step: Any, fiftyone: bool) -> None:
    from dataaudit import fix, pipeline, report, state, version
    from dataaudit.commands import figures_of
    from dataaudit.version import git

    step("dataaudit version commit: v1, the dataset as it came")
    # Its own repository, as the one it may lie in can ignore it: a clone of this project does.
    git.init(photos.parent)
    version.commit(photos, message="the digits as they came")
    step("dataaudit audit")
    first = pipeline.audit(photos)
    source = first.tables.source
    assert source is not None
    files = report.write(first, state.reports_dir(source))
    report.to_terminal(first, console, html=files["report.html"])
    _print_planted(console, first, planted)
    if fiftyone:
        _into_fiftyone(console, step, first)
    step("dataaudit fix --min-probability 0.5")
    plan = fix.plan(first, min_probability=0.5)
    applied = fix.apply(plan, reviewer="demo")
    right = sum(
        planted.flipped.get(each.sample_id) == each.new for each in applied.fixes if each.op == "relabel"
    )
    n_relabeled = sum(each.op == "relabel" for each in applied.fixes)
    console.print(
        f"{len(applied.fixes)} fixes applied; {right} of {n_relabeled} relabels restore the true class."
    )
    step("dataaudit version commit: v2")
    again = pipeline.audit(photos, progress=False)
    report.write(again, state.reports_dir(source))
    version.commit(photos, message=f"{len(applied.fixes)} fixes", summary=figures_of(again))
    step("dataaudit version diff v1 v2")
    console.print(version.diff(photos, "v1", "v2").to_text(limit=5), markup=False)
    step("dataaudit version compare v1 v2")
    compared = version.compare(photos, ["v1", "v2"], progress=False)
    console.print(compared.to_text(), markup=False)
    console.print(
        f"Plot: {compared.plot(state.reports_dir(source) / 'compare.png')}", markup=False, soft_wrap=True
    )


def _into_fiftyone(console: Any, step: Any, first: Report) -> None:
    from rich.text import Text

    from dataaudit import review

    step("Into FiftyOne")
    dataset = review.push(first)
    console.print(Text(f"Dataset {dataset.name}, with the saved views"))
    for name in dataset.list_saved_views():
        console.print(Text(f"  {name}"))
    console.print(Text(f"Open it with: fiftyone app launch {dataset.name}"), soft_wrap=True)


def _print_planted(console: Any, first: Report, planted: Planted) -> None:
    from rich.table import Table

    table = Table(title="Found against planted", title_justify="left", title_style="bold")
    for column in ("check", "planted", "found", "findings in all"):
        table.add_column(column, justify="left" if column == "check" else "right")
    for code, counts in found_of_planted(first, planted).items():
        table.add_row(code, *map(str, counts))
    console.print(table)
