from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dataaudit.formats._shared import ObjectRows
from dataaudit.types import Locator, Source, Tables
from dataaudit.version.difference import diff_tables

Object = tuple[str, tuple[float, float, float, float]]
CAT: Object = ("cat", (10, 10, 50, 50))
DOG: Object = ("dog", (60, 10, 90, 50))
OLD = [CAT, DOG]


def tables(tmp_path: Any, images: dict[str, list[Any]], *, units: str = "pixels", ids: Any = None) -> Tables:
    """Images by name, the digest of each its stem; objects as (class, corners), with or without flags."""
    rows = ObjectRows()
    for sample_id, objects in images.items():
        rows.image(sample_id, sample_id, Locator(file=f"{sample_id}.xml"))
        for number, (name, corners, *flags) in enumerate(objects):
            own = number if ids is None else ids[number]
            locator = Locator(file=f"{sample_id}.xml", item=own)
            rows.object(sample_id, f"{sample_id}:{own}", name, corners, locator, **dict.fromkeys(flags, True))
    source = Source(format="voc", root=tmp_path, path=str(tmp_path), anchor=tmp_path)
    found = rows.tables(source=source, units=units)
    digests = found.images.index.str.split("/").str[-1]
    return replace(found, images=found.images.assign(digest=digests.to_numpy(dtype=object)))


def changes(tmp_path: Any, old: list[Any], new: list[Any], **more: Any) -> list[tuple[Any, ...]]:
    found = diff_tables(
        tables(tmp_path, {"a": old}), tables(tmp_path, {"a": new}, **more), a="v1", b="v2"
    ).objects
    assert found is not None
    assert found.unchanged == len(new) - int((found.changes["kind"] != "removed").sum())
    columns = ["kind", "old", "new", "before", "label_id"]
    rows = found.changes[columns].astype(object)
    return list(rows.where(rows.notna(), None).itertuples(index=False, name=None))


CASES: dict[str, tuple[list[Any], list[tuple[Any, ...]]]] = {
    "nothing": (OLD, []),
    "another order": ([DOG, CAT], []),
    "relabeled": ([("dog", CAT[1]), DOG], [("relabeled", "cat", "dog", "a:0", "a:0")]),
    "moved": ([("cat", (12, 10, 50, 50)), DOG], [("moved", "cat", "cat", "a:0", "a:0")]),
    "moved little": ([("cat", (10 + 1e-7, 10, 50, 50)), DOG], []),
    "moved and relabeled": (
        [("cow", (12, 10, 50, 50)), DOG],
        [("moved and relabeled", "cat", "cow", "a:0", "a:0")],
    ),
    "added": ([*OLD, ("cat", (0, 60, 9, 90))], [("added", None, "cat", None, "a:2")]),
    "removed, and the number of the next one changes": ([DOG], [("removed", "cat", None, "a:0", "a:0")]),
    "removed and the next one moved": (
        [("dog", (60, 10, 92, 50))],
        [("moved", "dog", "dog", "a:1", "a:0"), ("removed", "cat", None, "a:0", "a:0")],
    ),
    "a duplicate": ([CAT, CAT, DOG], [("added", None, "cat", None, "a:1")]),
    "far away with the same number": (
        [("cat", (0, 60, 9, 90)), DOG],
        [("moved", "cat", "cat", "a:0", "a:0")],
    ),
    "elsewhere and of another class": (
        [("cow", (0, 60, 9, 90)), DOG],
        [("added", None, "cow", None, "a:0"), ("removed", "cat", None, "a:0", "a:0")],
    ),
    "a new mark": ([(*CAT, "difficult"), DOG], [("marked otherwise", "", "difficult", "a:0", "a:0")]),
    "relabeled beside a new one of its class": (
        [("dog", CAT[1]), DOG, ("cat", (20, 10, 60, 50))],
        [("relabeled", "cat", "dog", "a:0", "a:0"), ("added", None, "cat", None, "a:2")],
    ),
    "a box that can't be read": (
        [("cat", (np.nan,) * 4), DOG],
        [("moved", "cat", "cat", "a:0", "a:0")],
    ),
    "all gone": ([], [("removed", "cat", None, "a:0", "a:0"), ("removed", "dog", None, "a:1", "a:1")]),
}


@pytest.mark.parametrize(("new", "expected"), CASES.values(), ids=CASES.keys())
def test_each_change_of_an_object_is_told_by_its_kind(tmp_path, new, expected):
    assert changes(tmp_path, OLD, new) == expected


def test_boxes_that_cannot_be_read_stay_the_same(tmp_path):
    broken = [("cat", (np.nan,) * 4), DOG]
    assert changes(tmp_path, broken, broken) == []


def test_an_id_that_stays_tells_which_of_two_boxes_moved(tmp_path):
    """The second box moves onto the first, which goes."""
    old = [CAT, ("cat", (12, 10, 52, 50))]
    assert changes(tmp_path, old, [("cat", (10.5, 10, 50.5, 50))], ids=[1]) == [
        ("moved", "cat", "cat", "a:1", "a:1"),
        ("removed", "cat", None, "a:0", "a:0"),
    ]


def test_objects_are_followed_through_renamed_images(tmp_path):
    old = tables(tmp_path, {"old/a": OLD, "old/b": [CAT]})
    new = tables(tmp_path, {"new/a": [("cow", CAT[1]), DOG], "new/b": [CAT]})
    found = diff_tables(old, new, a="v1", b="v2")
    assert (found.counts, found.unchanged) == ({"renamed": 2}, 0)
    assert (found.objects.counts, found.objects.unchanged) == ({"relabeled": 1}, 2)
    assert found.objects.changes["sample_id"].tolist() == ["new/a"]


def test_the_text_names_objects_with_their_boxes(tmp_path):
    old = tables(tmp_path, {"a": OLD, "b": [CAT, CAT, DOG]})
    new = tables(
        tmp_path, {"a": [("dog", CAT[1]), ("dog", (60, 10.5, 90, 50)), ("cat", (0, 60, 9, 90))], "c": [CAT]}
    )
    assert diff_tables(old, new, a="v1", b="v2").to_text().splitlines() == [
        "v1 -> v2: images 1 added, 1 dropped, 1 unchanged",
        "Objects: 1 relabeled, 1 moved, 1 added, 0 unchanged",
        "",
        "Added",
        "  + c  1 cat",
        "",
        "Dropped",
        "  - b  2 cat, 1 dog",
        "",
        "  kind   relabeled  moved  added",
        "  class                         ",
        "  cat            1      0      1",
        "  dog            0      1      0",
        "",
        "  cat -> dog: 1",
        "",
        "Objects relabeled",
        "  a  cat -> dog  (10, 10, 50, 50)",
        "",
        "Objects moved",
        "  a  dog (60, 10, 90, 50) -> (60, 10.5, 90, 50)  IoU 0.99",
        "",
        "Objects added",
        "  + a  cat (0, 60, 9, 90)",
    ]


def test_versions_with_the_same_objects_say_so(tmp_path):
    same = tables(tmp_path, {"a": OLD, "b": []})
    found = diff_tables(same, same, a="v1", b="v2")
    assert found.to_text() == "v1 and v2 hold the same 2 samples with the same labels."
    assert found.objects.by_class.empty


def test_the_dict_is_ready_for_json(tmp_path):
    old, new = tables(tmp_path, {"a": OLD}), tables(tmp_path, {"a": [("cat", (10, 10, 50, 40))]})
    found = json.loads(json.dumps(diff_tables(old, new, a="v1", b="v2").to_dict(), allow_nan=False))
    assert found["objects"]["counts"] == {"moved": 1, "removed": 1}
    assert found["objects"]["by_class"] == {
        "cat": {"moved": 1, "removed": 0},
        "dog": {"moved": 0, "removed": 1},
    }
    assert found["objects"]["changes"][0] == {
        "kind": "moved", "sample_id": "a", "label_id": "a:0", "before": "a:0", "class": "cat",
        "old": "cat", "new": "cat", "old_box": [10, 10, 50, 50], "box": [10, 10, 50, 40], "iou": 0.75,
    }  # fmt: skip
    assert found["objects"]["changes"][1]["box"] is None
