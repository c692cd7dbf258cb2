"""Versions of detection datasets in the formats of files: what belongs to one, and what comes back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from trees import git, picture, tree

from dataaudit import fix, formats, version
from dataaudit.checks.box_fixes import BoxFixes
from dataaudit.errors import InputError
from dataaudit.types import Finding, Report, Tables

VOC = """<annotation>
  <filename>{name}.png</filename>
  <size><width>40</width><height>30</height><depth>3</depth></size>
  <object><name>cat</name><bndbox><xmin>{x}</xmin><ymin>5</ymin><xmax>20</xmax><ymax>15</ymax></bndbox></object>
</annotation>
"""


def voc(root: Path) -> Path:
    for number in range(3):
        picture(root / f"JPEGImages/{number}.png", 10 * number, 40)
        (root / "Annotations").mkdir(exist_ok=True)
        (root / f"Annotations/{number}.xml").write_text(VOC.format(name=number, x=number + 1))
    (root / "ImageSets/Main").mkdir(parents=True)
    (root / "ImageSets/Main/train.txt").write_text("0\n1\n")
    (root / "ImageSets/Main/test.txt").write_text("2\n")
    return root


def coco(root: Path) -> Path:
    for number in range(3):
        picture(root / f"images/{number}.png", 10 * number, 40)
    content = {
        "images": [{"id": n, "file_name": f"{n}.png", "width": 40, "height": 40} for n in range(3)],
        "annotations": [
            {"id": n, "image_id": n, "category_id": 1, "bbox": [n + 1, 5, 10, 10], "area": 100, "iscrowd": 0}
            for n in range(3)
        ],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    }
    (root / "annotations").mkdir()
    (root / "annotations/instances.json").write_text(json.dumps(content))
    return root


def coco_file(root: Path) -> Path:
    return coco(root) / "annotations/instances.json"


def kitti(root: Path) -> Path:
    for number in range(3):
        picture(root / f"training/image_2/{number:06}.png", 10 * number, 40)
        (root / "training/label_2").mkdir(exist_ok=True)
        line = f"cat 0.00 0 -10 {number + 1}.00 5.00 20.00 15.00 -1 -1 -1 -1000 -1000 -1000 -10\n"
        (root / f"training/label_2/{number:06}.txt").write_text(line)
    return root


def yolo(root: Path) -> Path:
    """The last image has no label file."""
    for number in range(4):
        picture(root / f"images/train/{number}.png", 10 * number, 40)
        (root / "labels/train").mkdir(parents=True, exist_ok=True)
        if number < 3:
            (root / f"labels/train/{number}.txt").write_text(f"0 0.5 0.5 0.{number + 1} 0.25\n")
    (root / "data.yaml").write_text("path: .\ntrain: images/train\nval: images/train\nnames: [cat, dog]\n")
    return root


def yolo_file(root: Path) -> Path:
    return yolo(root) / "data.yaml"


def cvat(root: Path) -> Path:
    shapes = ""
    for number in range(3):
        picture(root / f"images/{number}.png", 10 * number, 40)
        box = f'<box label="cat" occluded="0" xtl="{number + 1}" ytl="5" xbr="20" ybr="15" z_order="0"></box>'
        shapes += f'<image id="{number}" name="{number}.png" width="40" height="40">{box}</image>\n'
    (root / "annotations.xml").write_text(
        f"<?xml version='1.0' encoding='utf-8'?>\n<annotations><version>1.1</version>\n{shapes}</annotations>"
    )
    return root


def cvat_file(root: Path) -> Path:
    return cvat(root) / "annotations.xml"


FORMATS = {make.__name__: make for make in (voc, coco, coco_file, kitti, yolo, yolo_file, cvat, cvat_file)}


def report(tables: Tables, **fixes: object) -> Report:
    items = tuple(
        Finding(
            key=key,
            code="BOX001",
            item_id=key,
            sample_id=None,
            score=0.1,
            probability=0.9,
            message="",
            fix=each,
        )
        for key, each in fixes.items()
    )
    return Report(digest="", params={}, outcomes={}, items=items, skipped={}, timings={}, tables=tables)


def corrected(path: Path) -> fix.Applied:
    """The first object becomes a dog, the second goes, the third moves, and the last image gets another."""
    tables = formats.read(path)
    images = tables.images.assign(width=40, height=40)
    fixes = BoxFixes(tables.labels, images, tables.units)
    first, second, third = tables.labels.index
    audit = report(
        tables,
        a=fixes.relabel(first, "dog"),
        b=fixes.remove(second),
        c=fixes.move(third, (4, 6, 22, 16)),
        d=fixes.add(tables.images.index[-1], "cat", (25, 20, 35, 29)),
    )
    return fix.apply(fix.plan(audit, min_probability=0.5))


def shown(tables: Tables) -> list[tuple[str, str, tuple[float, ...]]]:
    corners = tables.labels[["x1", "y1", "x2", "y2"]].round(3).itertuples(index=False, name=None)
    return list(zip(tables.labels["sample_id"], tables.labels["name"], corners, strict=True))


def files(root: Path) -> dict[str, bytes]:
    return {name: content for name, content in tree(root).items() if ".dvc" not in name and ".git" not in name
            and ".dataaudit" not in name}  # fmt: skip


@pytest.mark.parametrize("make", FORMATS.values(), ids=FORMATS.keys())
def test_versions_hold_annotations_and_come_back(tmp_path, make):
    root = tmp_path / "work" / "set"
    path = make(root)
    before, first = files(root), shown(formats.read(path))
    version.commit(path, message="as it came")
    assert files(root) == before
    corrected(path)
    version.commit(path, message="corrected")
    after, second = files(root), shown(formats.read(path))
    found = version.diff(path, "v1", "v2")
    assert found.objects.counts == {"relabeled": 1, "moved": 1, "added": 1, "removed": 1}
    assert (found.counts, found.unchanged) == ({}, len(formats.read(path).images))
    assert shown(version.read(path, "v1")) == first
    assert shown(version.read(path, "v2")) == second
    version.checkout(path, "v1")
    assert files(root) == before
    version.checkout(path, "v2")
    assert files(root) == after
    assert version.versions(path)[1].counts["labels"] == {"cat": 2, "dog": 1}
    fix.undo(path)
    assert files(root) == before


def repository(make: Any, root: Path) -> Path:
    """A dataset in the root of a git repository of its own."""
    path = make(root)
    git(root, "init", "--quiet")
    return path


@pytest.mark.parametrize("make", [yolo, coco_file])
def test_a_dataset_that_is_a_repository_keeps_what_its_format_needs(tmp_path, make):
    root = tmp_path / "set"
    path = repository(make, root)
    before, first = files(root), shown(formats.read(path))
    version.commit(path, message="as it came")
    corrected(path)
    version.commit(path, message="corrected")
    after = files(root)
    assert shown(version.read(path, "v1")) == first
    version.checkout(path, "v1")
    assert files(root) == before
    version.checkout(path, "v2")
    assert files(root) == after
    assert git(root, "status", "--short") == ""


def test_annotations_that_git_holds_stay_with_git(tmp_path):
    root = repository(voc, tmp_path / "set")
    git(root, "add", "Annotations")
    git(root, "-c", "user.name=ann", "-c", "user.email=ann@example.org", "commit", "-qm", "annotations")
    before, first = files(root), shown(formats.read(root))
    version.commit(root, message="as it came")
    assert not (root / "Annotations.dvc").exists() and (root / "JPEGImages.dvc").exists()
    corrected(root)
    version.commit(root, message="corrected")
    after = files(root)
    assert "<name>dog</name>" in git(root, "show", "HEAD:Annotations/0.xml")
    assert git(root, "status", "--short") == ""
    assert shown(version.read(root, "v1")) == first
    assert version.diff(root, "v1").objects.counts == version.diff(root, "v1", "v2").objects.counts
    version.checkout(root, "v1")
    assert files(root) == before
    version.checkout(root, "v2")
    assert files(root) == after


def test_images_outside_the_dataset_are_refused(tmp_path):
    root = coco(tmp_path / "deep/down/work/set")
    (root / "images").rename(tmp_path / "images")
    tables = formats.read(root, options={"images": str(tmp_path / "images")})
    assert tables.source is not None
    with pytest.raises(InputError, match="lies outside the dataset's folder"):
        version.commit(tables.source, message="as it came")
