"""Damage to lists, further files beside the annotations, and all records at once."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from damage import IMAGES, Damage, Harm, replaced, rewritten
from damaged_values import KITTI_LINE
from object_fixes import write_image


def _coco_of(change: Callable[[dict[str, Any]], None]) -> Harm:
    def harm(root: Path) -> None:
        said = json.loads((root / "annotations.json").read_text())
        change(said)
        (root / "annotations.json").write_text(json.dumps(said))

    return harm


def _empty_lists(said: dict[str, Any]) -> None:
    said["images"], said["annotations"] = [], []


def _no_annotations(said: dict[str, Any]) -> None:
    said["annotations"] = []


def _captions(said: dict[str, Any]) -> None:
    said["annotations"] = [{"id": 1, "image_id": 1, "caption": "a cat"}]


def _panoptic(said: dict[str, Any]) -> None:
    segments = [{"id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "area": 12}]
    said["annotations"] = [{"image_id": 1, "file_name": "a.png", "segments_info": segments}]


def _nested(said: dict[str, Any]) -> None:
    deep: list[Any] = []
    for _ in range(500):
        deep = [deep]
    said["annotations"][0]["segmentation"] = deep


def _copied(file: str, name: str) -> Harm:
    """Another file of annotations beside the first."""

    def harm(root: Path) -> None:
        shutil.copyfile(root / file, root / name)

    return harm


def _two_splits(root: Path) -> None:
    (root / "ImageSets/Main").mkdir(parents=True)
    for name in ("train", "val"):
        (root / f"ImageSets/Main/{name}.txt").write_bytes(b"a\n")


def _written(file: str, text: str | bytes) -> Harm:
    def harm(root: Path) -> None:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_bytes(text if isinstance(text, bytes) else text.encode())

    return harm


def _listed(text: str | bytes) -> Harm:
    """Splits that are a list of images."""

    def harm(root: Path) -> None:
        replaced("data.yaml", "train: images", "train: train.txt")(root)
        (root / "train.txt").write_bytes(text if isinstance(text, bytes) else text.encode())

    return harm


def _class_file(text: str | bytes) -> Harm:
    def harm(root: Path) -> None:
        (root / "data.yaml").unlink()
        (root / "classes.txt").write_bytes(text if isinstance(text, bytes) else text.encode())

    return harm


def _bomb(root: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    rewritten("data.yaml", lambda content: content + "\n".join(lines).encode() + b"\n")(root)


def _twin(form: str, name: str) -> Harm:
    """Another image of the name of one that is there, with another ending."""

    def harm(root: Path) -> None:
        write_image(root / IMAGES[form].format("a").replace("a.png", name))

    return harm


FILES: tuple[tuple[str, str, Harm, str], ...] = (
    ("coco", "empty lists", _coco_of(_empty_lists), "data"),
    ("coco", "captions", _coco_of(_captions), "annotations.json"),
    ("coco", "panoptic", _coco_of(_panoptic), "annotations.json"),
    ("coco", "500 lists in each other", _coco_of(_nested), ""),
    ("coco", "no annotations", _coco_of(_no_annotations), "annotations.json"),
    ("coco", "a copy of the file", _copied("annotations.json", "copy of annotations.json"), "copy of"),
    ("coco", "a copy named instances", _copied("annotations.json", "instances_x.json"), "annotations.json"),
    ("coco", "a JSON of another kind beside it", _written("settings.json", '{"a": 1}'), ""),
    ("yolo", "a second yaml", _written("other.yaml", "train: images\nnames: [a]\n"), "other.yaml"),
    ("yolo", "a label file of no image", _written("labels/z.txt", "0 0.5 0.5 0.1 0.1\n"), "z.txt"),
    ("yolo", "a list with a missing image", _listed("images/a.png\nimages/z.png\n"), "z.png"),
    ("yolo", "a list with an image twice", _listed("images/a.png\n" * 2), "train.txt"),
    ("yolo", "an empty list", _listed(""), "data.yaml"),
    ("yolo", "a list of blanks", _listed("\n  \n\n"), "data.yaml"),
    ("yolo", "a list of zero bytes", _listed(bytes(64)), ""),
    ("yolo", "a list in UTF-16", _listed("images/a.png\nimages/b.png\nimages/c.png\n".encode("utf-16")), ""),
    ("yolo", "a list upwards", _listed("images/a.png\n../../../../../etc/passwd\n"), "passwd"),
    ("yolo", "a list of folders", _listed("images\nimages/a.png\n"), ""),
    ("yolo", "a list that isn't UTF-8", _listed(b"images/a.png\nimages/\xff.png\n"), ""),
    ("yolo", "an empty class list", _class_file(""), "class"),
    ("yolo", "a class list with a class twice", _class_file("cat\ncat\n"), "classes.txt"),
    ("yolo", "a class list with a gap", _class_file("cat\n\ndog\n"), "a.txt:2"),
    ("yolo", "a class list of zero bytes", _class_file(bytes(16)), "class"),
    ("yolo", "a class list of one class", _class_file("cat\n"), "a.txt:2"),
    ("yolo", "a class list in UTF-16", _class_file("cat\ndog\n".encode("utf-16")), ""),
    ("yolo", "a class list with a mark", _class_file("\ufeffcat\ndog\n"), ""),
    ("yolo", "a bomb of anchors", _bomb, ""),
    ("yolo", "two images of one name", _twin("yolo", "a.jpg"), "a.txt"),
    ("voc", "two images of one name", _twin("voc", "a.jpg"), "a.xml"),
    ("kitti", "two images of one name", _twin("kitti", "a.jpg"), "a.txt"),
    ("voc", "an annotation file of no image", _written("Annotations/z.xml", "<annotation/>"), "z.xml"),
    ("voc", "a split of zero bytes", _written("ImageSets/Main/train.txt", bytes(64)), ""),
    ("voc", "an image in two splits", _two_splits, "val.txt:1"),
    ("voc", "a split of missing images", _written("ImageSets/Main/train.txt", "a\nz\n"), "train.txt:2"),
    ("kitti", "a label file of no image", _written("training/label_2/z.txt", KITTI_LINE + "\n"), "z.txt"),
    ("kitti", "a label file of another format", _written("training/label_2/z.txt", "1 2 3\n"), "z.txt"),
    ("cvat", "a copy of the file", _copied("annotations.xml", "copy.xml"), "copy.xml"),
)  # fmt: skip


def to_folders(outcomes: Mapping[str, str]) -> Iterator[Damage]:
    """All of them.

    Args:
        outcomes: of those that aren't reported, by format and name.
    """
    for form, name, harm, place in FILES:
        outcome = outcomes.get(f"{form} {name}", "reported")
        yield Damage(format=form, name=name, harm=harm, outcome=outcome, place=place)
