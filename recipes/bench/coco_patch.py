"""How long reading and fixing a COCO file of 450 MB with 860,000 annotations takes, beside `json.load`.

python recipes/bench/coco_patch.py [--annotations 860000] [--folder DIR]

Each step runs in a process of its own, so that its peak of memory is its own too: `json.load`, reading into
tables, applying 1,000 fixes (400 moves, 300 classes, 200 removals, 100 new objects), and taking them back,
which must give the same bytes. Targets: fixing takes at most twice the time of `json.load`, and three times
the size of the file.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

STEPS = ("json.load", "read", "apply", "undo")
CHOOSE = "choose"
IMAGES_PER_ANNOTATION = 7.27


def make(root: Path, n: int) -> Path:
    """Write the dataset: annotations with polygons as long as those of COCO, images that are empty files."""
    draw = random.Random(0)
    n_images = max(1, round(n / IMAGES_PER_ANNOTATION))
    file = root / "annotations" / "instances_train2017.json"
    file.parent.mkdir(parents=True)
    (root / "train2017").mkdir()
    with file.open("w") as out:
        out.write('{"info": {"description": "made"}, "licenses": [{"id": 1, "name": "none"}], "images": [')
        for number in range(n_images):
            name = f"{number:012d}.jpg"
            (root / "train2017" / name).touch()
            out.write(
                ", "
                * bool(number)
                + f'{{"license": 1, "file_name": "{name}", "coco_url": "http://images.example.org/'
                f'train2017/{name}", "height": 480, "width": 640, "date_captured": "2013-11-14 11:18:45", '
                f'"id": {number}}}'
            )
        out.write('], "annotations": [')
        for number in range(n):
            x, y, w, h = (draw.uniform(low, high) for low, high in ((0, 500), (0, 380), (1, 140), (1, 100)))
            points = ", ".join(
                f"{draw.uniform(x, x + w):.2f}, {draw.uniform(y, y + h):.2f}"
                for _ in range(draw.choice((4, 10, 18, 28, 46)))
            )
            polygon = f"[[{points}]]" if number % 2 else "[]"
            polygon = f"[[{points}], [{points}]]" if number % 20 == 1 else polygon
            padding = f'"note": "{"." * draw.randrange(100, 430)}", ' if not number % 2 else ""
            out.write(
                ", "
                * bool(number)
                + f'{{"segmentation": {polygon}, {padding}"area": {w * h:.4f}, "iscrowd": 0, '
                f'"image_id": {draw.randrange(n_images)}, "bbox": [{x:.2f}, {y:.2f}, {w:.2f}, {h:.2f}], '
                f'"category_id": {draw.randrange(1, 81)}, "id": {3 * number + 1}}}'
            )
        categories = ", ".join(
            f'{{"supercategory": "thing", "id": {number}, "name": "class {number}"}}'
            for number in range(1, 81)
        )
        out.write(f'], "categories": [{categories}]}}')
    return file


def choose(root: Path) -> None:
    """Read the dataset and write down 1,000 fixes of it."""
    from dataaudit import formats

    tables = formats.read(root)
    labels = tables.labels[tables.labels["geometry"] == "box"].sample(900, random_state=0)
    chosen = []
    for number, (label_id, row) in enumerate(labels.iterrows()):
        old = tuple(float(row[corner]) for corner in ("x1", "y1", "x2", "y2"))
        op = "move" if number < 400 else "relabel" if number < 700 else "remove"
        new = {
            "move": row["name"],
            "relabel": "class 80" if row["name"] != "class 80" else "new",
            "remove": None,
        }[op]
        box = (old[0] + 1, old[1], old[2] + 2.5, old[3]) if op == "move" else None
        place = row["locator"]
        chosen.append(
            [
                op,
                row["sample_id"],
                label_id,
                [place.file, place.item, place.field],
                row["name"],
                new,
                old,
                box,
            ]
        )
    for sample_id, row in tables.images.sample(100, random_state=0).iterrows():
        place = row["locator"]
        label_id = f"{sample_id}:+1,2,30,40"
        item = [place.file, place.item, place.field]
        chosen.append(["add", sample_id, label_id, item, None, "class 1", None, (1, 2, 30, 40)])
    (root.parent / "fixes.json").write_text(json.dumps(chosen))


def step(name: str, root: Path) -> None:
    """Run one step and print its seconds and its peak of memory in bytes."""
    file = root / "annotations" / "instances_train2017.json"
    if name != "json.load":
        from dataaudit import fix, formats
        from dataaudit.types import Fix, Locator, Source

        source = Source(format="coco", root=root, path=str(root), anchor=root.parent)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if name == CHOOSE:
        choose(root)
    if name == "apply":
        items = []
        for op, sample_id, label_id, place, old, new, old_box, box in json.loads(
            (root.parent / "fixes.json").read_text()
        ):
            one = Fix(
                op=op, sample_id=sample_id, label_id=label_id,
                locator=Locator(file=place[0], item=place[1], field=place[2]), old=old, new=new,
                old_box=None if old_box is None else tuple(old_box), box=None if box is None else tuple(box),
            )  # fmt: skip
            items.append(fix.Planned(fix=one, finding=label_id, code="BOX005", score=0.1, probability=0.9))
    started, worked = time.perf_counter(), time.process_time()
    if name == "json.load":
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with file.open("rb") as opened:
            json.load(opened)
    elif name == "read":
        formats.read(root)
    elif name == "apply":
        fix.apply(fix.Plan(source=source, items=tuple(items)))
    elif name == "undo":
        fix.undo(source)
    seconds, cpu = time.perf_counter() - started, time.process_time() - worked
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    unit = 1 if sys.platform == "darwin" else 1024
    print(json.dumps({"seconds": seconds, "cpu": cpu, "peak": peak * unit, "before": before * unit}))


def run(root: Path, name: str) -> dict[str, float]:
    command = [sys.executable, __file__, "--step", name, "--folder", str(root)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def digest(file: Path) -> str:
    with file.open("rb") as opened:
        return (
            hashlib.file_digest(opened, "md5").hexdigest()
            if sys.version_info >= (3, 11)
            else hashlib.md5(opened.read()).hexdigest()
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--annotations", type=int, default=860_000)
    parser.add_argument(
        "--folder", type=Path, help="where the dataset is made; a temporary folder by default"
    )
    parser.add_argument("--step", choices=(*STEPS, CHOOSE), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.step:
        step(given.step, given.folder)
        return
    with tempfile.TemporaryDirectory(dir=given.folder) as place:
        root = Path(place) / "coco"
        file = make(root, given.annotations)
        size, old = file.stat().st_size, digest(file)
        run(root, CHOOSE)
        print(f"{size / 1e6:.0f} MB, {given.annotations} annotations, {os.cpu_count()} cores")
        reference: dict[str, float] = {}
        for name in STEPS:
            found = run(root, name)
            reference = reference or found
            print(
                f"{name:10s} {found['seconds']:6.1f} s "
                f"({found['seconds'] / reference['seconds']:.2f} of json.load), "
                f"processor {found['cpu']:.1f} s "
                f"({found['cpu'] / reference['cpu']:.2f}); "
                f"peak {found['peak'] / size:.2f} times the file, "
                f"{(found['peak'] - found['before']) / size:.2f} without what was there before"
            )
            if name == "apply":
                print(f"{'':10s} the file has changed: {digest(file) != old}")
        print(f"{'':10s} the same bytes after the undo: {digest(file) == old}")


if __name__ == "__main__":
    main()
