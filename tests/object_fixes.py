"""Fixes of objects for the tests of formats: made from tables, drawn at random, applied and taken back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from hypothesis import strategies as st
from PIL import Image

from dataaudit import fix, formats, state
from dataaudit.fix import Plan, Planned
from dataaudit.types import CORNERS, Box, Fix, Tables

NAMES = ("dog", "größe", "a<b>&c", 'say "hi"', "it's", "]]>", "猫")


def write_image(path: Path, size: tuple[int, int] = (48, 32)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (200, 90, 20)).save(path)
    return path


def contents(root: Path) -> dict[str, bytes]:
    """The bytes of every file of a dataset."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and state.FOLDER not in path.parts
    }


def box_of(tables: Tables, label_id: str) -> Box | None:
    row = tables.labels.loc[label_id]
    box = tuple(float(row[corner]) for corner in CORNERS)
    return box if all(map(math.isfinite, box)) else None


def of_object(tables: Tables, label_id: str, op: str, new: str | None = None, box: Box | None = None) -> Fix:
    """A relabel, remove or move of an object."""
    row = tables.labels.loc[label_id]
    return Fix(
        op=op, sample_id=row["sample_id"], label_id=label_id, locator=row["locator"], old=row["name"],
        new=row["name"] if op == "move" else new, old_box=box_of(tables, label_id), box=box,
    )  # fmt: skip


def of_image(
    tables: Tables, sample_id: str, op: str, new: str | None = None, box: Box | None = None, n: int = 0
) -> Fix:
    """An add to an image, or its drop or merge."""
    return Fix(
        op=op, sample_id=sample_id, label_id=f"{sample_id}:+{n}" if op == "add" else sample_id,
        locator=tables.images.loc[sample_id, "locator"], old=None, new=new, box=box,
    )  # fmt: skip


def apply(tables: Tables, *fixes: Fix) -> None:
    """Apply fixes as they are, recorded in the ledger."""
    assert tables.source is not None
    items = tuple(
        Planned(fix=each, finding=f"k{n}", code="BOX002", score=0.1, probability=0.9)
        for n, each in enumerate(fixes)
    )
    fix.apply(Plan(source=tables.source, items=items))


def patched(root: Path, *fixes: Fix, **read: str) -> Tables:
    """The tables after fixes."""
    apply(formats.read(root, **read), *fixes)
    return formats.read(root, **read)


@st.composite
def boxes(draw: st.DrawFn) -> Box:
    """Corners of boxes with quarters of pixels, not all of them inside an image."""
    x1, y1, x2, y2 = (draw(st.integers(-8, 400)) / 4 for _ in range(4))
    return x1, y1, x2, y2


@st.composite
def fixes_of(draw: st.DrawFn, tables: Tables, names: Sequence[str] = NAMES) -> list[Fix]:
    """Fixes that may be applied together: of objects, new ones, and images that leave."""
    # Where no annotation file is left, nothing says what the images are
    leaving = [each for each in tables.images.index[1:] if draw(st.integers(0, 5)) == 0]
    stays = [each for each in tables.images.index if each not in leaving]
    fixes = [of_image(tables, each, "drop") for each in leaving]
    for label_id, row in tables.labels.iterrows():
        if row["sample_id"] in leaving:
            continue
        ops = ["keep", "relabel", "remove"] + (["move"] if row["geometry"] == "box" else [])
        op = draw(st.sampled_from(ops))
        if op == "move":
            fixes.append(of_object(tables, str(label_id), op, box=draw(boxes())))
        elif op != "keep":
            new = draw(st.sampled_from(names)) if op == "relabel" else None
            fixes.append(of_object(tables, str(label_id), op, new))
    for number in range(draw(st.integers(0, 3))):
        image, name = draw(st.sampled_from(stays)), draw(st.sampled_from(names))
        fixes.append(of_image(tables, image, "add", name, draw(boxes()), n=number))
    return draw(st.permutations(fixes))


def expected(tables: Tables, fixes: Sequence[Fix]) -> list[tuple[str, str, Box]]:
    """The objects that are to be there after fixes: image, class and box, sorted."""
    rows = {
        str(label_id): (str(row["sample_id"]), str(row["name"]), box_of(tables, str(label_id)))
        for label_id, row in tables.labels.iterrows()
    }
    for each in fixes:
        if each.op in ("drop", "merge"):
            rows = {label_id: row for label_id, row in rows.items() if row[0] != each.sample_id}
        elif each.op == "remove":
            del rows[each.label_id]
        elif each.op == "relabel":
            rows[each.label_id] = (each.sample_id, str(each.new), rows[each.label_id][2])
        else:
            rows[each.label_id] = (each.sample_id, str(each.new), each.box)
    return sorted((row[0], row[1], row[2] or (math.nan,) * 4) for row in rows.values())


def objects(tables: Tables) -> list[tuple[str, str, Box]]:
    """The objects of tables: image, class and box, sorted."""
    return expected(tables, [])
