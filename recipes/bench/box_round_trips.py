"""Apply 1,000 random fixes to a dataset of boxes in each format, take them back, and compare every byte.

A dataset of 400 images and 1,200 objects is written in each format, in a style that its exporters don't have:
comments, odd blanks, mixed numbers, unknown keys. The fixes relabel, move, add and remove objects and drop
images; some of the classes are new. They are applied in one go (or in several with ``--batches``), read back,
and undone; then all bytes and file modes have to be those of the beginning.

    python recipes/bench/box_round_trips.py
    python recipes/bench/box_round_trips.py --fixes 5000 --seed 7 --batches 5
    python recipes/bench/box_round_trips.py --format coco fiftyone
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from dataaudit import fix, formats, state
from dataaudit.fix import Plan, Planned
from dataaudit.types import Box, Fix, Tables

CLASSES = ("cat", "dog", "traffic_light")
NEW_CLASSES = ("lynx", "größe", "猫")
WIDTH, HEIGHT = 64, 48

Annotation = tuple[str, list[tuple[int, int, int, int]]]


def main() -> int:
    arguments = _arguments()
    print(f"{arguments.fixes} fixes in {arguments.batches} batches, seed {arguments.seed}")
    print(f"{'format':<10}{'objects':>9}{'fixes':>8}{'after':>8}{'apply s':>10}{'undo s':>9}  bytes")
    failed = 0
    for name in arguments.format:
        chance = random.Random(f"{arguments.seed} {name}")
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            failed += not _round_trip(name, Path(folder) / "data", chance, arguments)
    return 1 if failed else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--format", nargs="+", choices=sorted(WRITERS), default=sorted(WRITERS))
    parser.add_argument("--fixes", type=int, default=1_000)
    parser.add_argument(
        "--batches", type=int, default=1, help="fixes are applied, and undone, in so many parts"
    )
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--objects", type=int, default=3, help="of an image")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", help="where to work; a temporary folder when it is left out")
    return parser.parse_args()


def _round_trip(name: str, root: Path, chance: random.Random, arguments: argparse.Namespace) -> bool:
    _write(name, root, chance, arguments)
    path: str | Path = root
    if name == "fiftyone":
        path = _in_fiftyone(root)
    before = _contents(name, root, path)
    tables = formats.read(path)
    n_objects, n_fixes, seconds, undone = len(tables.labels), 0, 0.0, 0.0
    wanted = None
    for batch in range(arguments.batches):
        tables = formats.read(path)
        fixes = _fixes(tables, arguments.fixes // arguments.batches, chance, batch)
        wanted = _expected(tables, fixes)
        started = time.perf_counter()
        _apply(tables, fixes)
        seconds += time.perf_counter() - started
        n_fixes += len(fixes)
    after = formats.read(path)
    as_asked = _objects(after) == wanted
    for _ in range(arguments.batches):
        started = time.perf_counter()
        fix.undo(path)
        undone += time.perf_counter() - started
    equal = _contents(name, root, path) == before
    said = "equal" if equal else "DIFFERENT"
    said += "" if as_asked else ", BUT THE FIXES DID SOMETHING ELSE"
    print(f"{name:<10}{n_objects:>9}{n_fixes:>8}{len(after.labels):>8}{seconds:>10.2f}{undone:>9.2f}  {said}")
    if name == "fiftyone":
        _forget(str(path))
    return equal and as_asked


def _fixes(tables: Tables, n: int, chance: random.Random, batch: int) -> list[Fix]:
    """Random fixes that may be applied together: one an object, none of an image that is dropped."""
    images = list(tables.images.index)
    dropped = set(chance.sample(images, max(1, n // 100)))
    rows = [row for row in tables.labels.itertuples() if row.sample_id not in dropped]
    stays = [image for image in images if image not in dropped]
    found = [_drop(tables, image) for image in dropped]
    n_added = n // 4
    for row in chance.sample(rows, min(len(rows), n - len(found) - n_added)):
        op = chance.choice(("relabel", "remove", "move") if row.geometry == "box" else ("relabel", "remove"))
        found.append(_of_object(tables, row, op, chance))
    for number in range(n - len(found)):
        image = chance.choice(stays)
        new = _box(tables, image, chance)
        found.append(
            Fix(
                op="add", sample_id=image, label_id=f"{image}:+{batch}-{number}",
                locator=tables.images.at[image, "locator"], old=None, new=_name(chance), box=new,
            )
        )  # fmt: skip
    chance.shuffle(found)
    return found


def _drop(tables: Tables, image: str) -> Fix:
    names = sorted(tables.labels["name"][tables.labels["sample_id"] == image])
    old = ", ".join(names) or None if tables.source and tables.source.root is None else None
    return Fix(
        op="drop",
        sample_id=image,
        label_id=image,
        locator=tables.images.at[image, "locator"],
        old=old,
        new=None,
    )


def _of_object(tables: Tables, row: object, op: str, chance: random.Random) -> Fix:
    label_id = str(row.Index)
    old = str(row.name)
    new = {"relabel": _name(chance, old), "remove": None, "move": old}[op]
    return Fix(
        op=op, sample_id=row.sample_id, label_id=label_id, locator=row.locator, old=old, new=new,
        old_box=(row.x1, row.y1, row.x2, row.y2),
        box=_box(tables, row.sample_id, chance) if op == "move" else None,
    )  # fmt: skip


def _name(chance: random.Random, besides: str = "") -> str:
    return chance.choice([name for name in (*CLASSES, *NEW_CLASSES) if name != besides])


def _box(tables: Tables, image: str, chance: random.Random) -> Box:
    """A box with quarters of pixels."""
    x1, x2 = sorted(chance.sample(range(WIDTH * 4), 2))
    y1, y2 = sorted(chance.sample(range(HEIGHT * 4), 2))
    width, height = (WIDTH, HEIGHT) if tables.units == "relative" else (1, 1)
    return x1 / 4 / width, y1 / 4 / height, x2 / 4 / width, y2 / 4 / height


def _apply(tables: Tables, fixes: list[Fix]) -> None:
    items = tuple(
        Planned(fix=each, finding=f"k{number}", code="BOX002", score=0.1, probability=0.9)
        for number, each in enumerate(fixes)
    )
    assert tables.source is not None
    fix.apply(Plan(source=tables.source, items=items))


def _expected(tables: Tables, fixes: list[Fix]) -> list[tuple[str, str]]:
    """Image and class of every object that is to be there."""
    rows = {str(row.Index): (row.sample_id, row.name) for row in tables.labels.itertuples()}
    for each in fixes:
        if each.op == "drop":
            rows = {label_id: row for label_id, row in rows.items() if row[0] != each.sample_id}
        elif each.op == "remove":
            del rows[each.label_id]
        else:
            rows[each.label_id] = (each.sample_id, str(each.new))
    return sorted(rows.values())


def _objects(tables: Tables) -> list[tuple[str, str]]:
    return _expected(tables, [])


def _contents(name: str, root: Path, path: str | Path) -> object:
    if name == "fiftyone":
        return _documents(str(path))
    return {
        str(file.relative_to(root)): (file.stat().st_mode, file.read_bytes())
        for file in sorted(root.rglob("*"))
        if file.is_file() and state.FOLDER not in file.parts
    }


# The datasets


def _write(name: str, root: Path, chance: random.Random, arguments: argparse.Namespace) -> None:
    annotations = []
    for number in range(arguments.images):
        boxes = []
        for _ in range(arguments.objects):
            x1, x2 = sorted(chance.sample(range(WIDTH), 2))
            y1, y2 = sorted(chance.sample(range(HEIGHT), 2))
            boxes.append((x1, y1, x2, y2))
        annotations.append((f"{number:05d}", boxes))
    folder = root / PICTURES[name]
    folder.mkdir(parents=True)
    for stem, _ in annotations:
        Image.new("RGB", (WIDTH, HEIGHT), tuple(chance.randrange(256) for _ in range(3))).save(
            folder / f"{stem}.png"
        )
    WRITERS[name](root, annotations, chance)


def _coco(root: Path, annotations: list[Annotation], chance: random.Random) -> None:
    images, objects = [], []
    for number, (stem, boxes) in enumerate(annotations, start=1):
        images.append(
            f'{{"id": {number}, "file_name":"{stem}.png", "width": {WIDTH}, "height": {HEIGHT}, "x": null}}'
        )
        for x1, y1, x2, y2 in boxes:
            name = chance.randrange(len(CLASSES)) + 1
            box = chance.choice(["[{}, {}, {}, {}]", "[{}.0,{}.00, {}e0, {}]"]).format(
                x1, y1, x2 - x1, y2 - y1
            )
            more = chance.choice(["", ', "score_by": "größe"', ', "attributes": {"bbox": [1, 2]}'])
            objects.append(
                f'{{"id": {len(objects) + 10},"image_id": {number}, '
                f'"category_id": {name}, "bbox": {box}{more}}}'
            )
    categories = [f'{{"id": {n}, "name": "{name}"}}' for n, name in enumerate(CLASSES, start=1)]
    text = '{"info": {"bbox": [0]},\r\n"images": [\r\n' + ",\r\n".join(images) + '],\r\n"annotations":[ '
    text += ",\r\n  ".join(objects) + '],"categories": [' + ", ".join(categories) + "]}"
    (root / "annotations.json").write_bytes(text.encode())


def _yolo(root: Path, annotations: list[Annotation], chance: random.Random) -> None:
    names = "\n".join(f"  {number}: {name}  # class" for number, name in enumerate(CLASSES))
    (root / "data.yaml").write_text(f"path: .\ntrain: images\nval:\nnames:\n{names}\n", encoding="utf-8")
    (root / "labels").mkdir()
    for stem, boxes in annotations:
        end = chance.choice(["\n", "\r\n"])
        lines = [
            f"{chance.randrange(len(CLASSES))} {(x1 + x2) / 2 / WIDTH:.6f}\t{(y1 + y2) / 2 / HEIGHT:.5f}  "
            f"{(x2 - x1) / WIDTH:.6f} {(y2 - y1) / HEIGHT}"
            for x1, y1, x2, y2 in boxes
        ]
        content = end.join(lines) + chance.choice(["", end, end + end])
        (root / "labels" / f"{stem}.txt").write_bytes(content.encode())


def _voc(root: Path, annotations: list[Annotation], chance: random.Random) -> None:
    (root / "Annotations").mkdir()
    for stem, boxes in annotations:
        encoding = chance.choice(["utf-8", "utf-8", "utf-16"])
        text = f'<?xml version="1.0" encoding="{encoding}"?>\n<!-- checked -->\n<annotation verified="yes">\n'
        text += f"  <filename>{stem}.png</filename>\n"
        for x1, y1, x2, y2 in boxes:
            name = chance.choice(["<name>{}</name>", "<name><![CDATA[{}]]></name>", "<name> {} </name>"])
            text += f"  <object>\n\t{name.format(chance.choice(CLASSES))}<!-- a --><pose/>\n"
            text += f"\t<bndbox><xmin>{x1}</xmin>"
            text += f"<ymax> {y2}.00 </ymax>\n<xmax>{x2}</xmax><ymin >{y1}</ymin></bndbox></object>\n"
        (root / f"Annotations/{stem}.xml").write_bytes((text + "</annotation>").encode(encoding))


def _kitti(root: Path, annotations: list[Annotation], chance: random.Random) -> None:
    (root / "training/label_2").mkdir()
    for stem, boxes in annotations:
        blank = chance.choice([" ", "\t", "  "])
        lines = [
            blank.join(
                [chance.choice(CLASSES), "0.00", "0", "-10", f"{x1}.50", str(y1), f"{x2}.75", f"{y2}.00"]
            )
            + " -1 -1 -1 -1000 -1000 -1000 -10"
            for x1, y1, x2, y2 in boxes
        ]
        content = "\n".join(lines) + chance.choice(["", "\n"])
        (root / f"training/label_2/{stem}.txt").write_bytes(content.encode())


def _cvat(root: Path, annotations: list[Annotation], chance: random.Random) -> None:
    labels = "".join(f"<label><name>{name}</name></label>" for name in CLASSES)
    text = (
        f"<?xml version='1.0'?>\n<annotations><version>1.1</version><meta><labels>{labels}</labels></meta>\n"
    )
    for number, (stem, boxes) in enumerate(annotations):
        text += f'  <image name="{stem}.png" id="{number}" width="{WIDTH}" height=\'{HEIGHT}\'>\n'
        for x1, y1, x2, y2 in boxes:
            quote = chance.choice("'\"")
            corners = f'ytl="{y1}" xtl={quote}{x1}.50{quote}\n     xbr="{x2}.75" ybr="{y2}.00"'
            text += f'    <box label="{chance.choice(CLASSES)}" {corners} occluded="0">'
            text += chance.choice(["</box>", "<attribute name='a'>&lt;</attribute></box>"]) + "<!-- b -->\n"
        text += "  </image>\n"
    (root / "annotations.xml").write_bytes((text + "</annotations>").encode())


def _in_fiftyone(root: Path) -> str:
    import fiftyone as fo

    dataset = fo.Dataset(f"round trips {time.time_ns()}", persistent=True)
    said = json.loads((root / "objects.json").read_text())
    samples = []
    for stem, objects in said:
        detections = [
            fo.Detection(label=name, bounding_box=box, tags=["a"], index=3) for name, box in objects
        ]
        sample = fo.Sample(filepath=str(root / f"images/{stem}.png"))
        sample["ground_truth"] = fo.Detections(detections=detections)
        samples.append(sample)
    dataset.add_samples(samples, progress=False)
    return str(dataset.name)


def _fiftyone(root: Path, annotations: list[Annotation], chance: random.Random) -> None:
    said = [
        (stem, [(chance.choice(CLASSES), _xywh(*corners)) for corners in boxes])
        for stem, boxes in annotations
    ]
    (root / "objects.json").write_text(json.dumps(said))


def _xywh(x1: int, y1: int, x2: int, y2: int) -> list[float]:
    return [x1 / WIDTH, y1 / HEIGHT, (x2 - x1) / WIDTH, (y2 - y1) / HEIGHT]


def _documents(name: str) -> list[str]:
    """The documents of the dataset as they are stored, but for the times of change."""
    import fiftyone as fo
    from bson import json_util

    found = fo.load_dataset(name)._sample_collection.find({}).sort("_id", 1)
    return [
        json_util.dumps({key: value for key, value in each.items() if key != "last_modified_at"})
        for each in found
    ]


def _forget(name: str) -> None:
    import fiftyone as fo

    fo.delete_dataset(name)


PICTURES = {
    "coco": "images",
    "cvat": "images",
    "fiftyone": "images",
    "kitti": "training/image_2",
    "voc": "JPEGImages",
    "yolo": "images",
}
WRITERS: dict[str, Callable[[Path, list[Annotation], random.Random], None]] = {
    "coco": _coco,
    "cvat": _cvat,
    "fiftyone": _fiftyone,
    "kitti": _kitti,
    "voc": _voc,
    "yolo": _yolo,
}

if __name__ == "__main__":
    raise SystemExit(main())
