from __future__ import annotations

import json

import pandas as pd
import pytest

from dataaudit import version
from dataaudit.types import Locator, Tables
from dataaudit.version.difference import diff_tables


def tables(*rows: tuple[str, str, str | None, str | None]) -> Tables:
    """Samples as (sample id, digest, class, split)."""
    ids = [row[0] for row in rows]
    images = pd.DataFrame(
        {
            "filepath": ids, "width": 1, "height": 1,
            "split": pd.Series([row[3] for row in rows], index=ids, dtype=object),
            "digest": [row[1] for row in rows],
        },
        index=pd.Index(ids, name="sample_id"),
    )  # fmt: skip
    names = pd.Series([row[2] for row in rows], index=ids, dtype=object)
    locators = [Locator(file=i) for i in ids]
    labels = pd.DataFrame(
        {"sample_id": ids, "name": names, "geometry": None, "locator": locators}, index=pd.Index(ids)
    )
    return Tables(images=images, labels=labels, classes=tuple(sorted(set(names.dropna()))))


OLD = [("cat/0.png", "m0", "cat", None), ("cat/1.png", "m1", "cat", None), ("dog/2.png", "m2", "dog", None)]


@pytest.mark.parametrize(
    ("new", "expected"),
    [
        # an image moved to another class's folder is one relabeled sample
        ([("dog/0.png", "m0", "dog", None), *OLD[1:]],
         [("relabeled", "dog/0.png", "cat/0.png", "cat", "dog")]),
        # a cell of a manifest changed
        ([("cat/0.png", "m0", "dog", None), *OLD[1:]],
         [("relabeled", "cat/0.png", "cat/0.png", "cat", "dog")]),
        # a label taken away
        ([("cat/0.png", "m0", None, None), *OLD[1:]], [("relabeled", "cat/0.png", "cat/0.png", "cat", None)]),
        ([*OLD, ("dog/9.png", "m9", "dog", None)], [("added", "dog/9.png", None, None, "dog")]),
        (OLD[1:], [("dropped", "cat/0.png", "cat/0.png", "cat", None)]),
        ([("cat/0.png", "m7", "cat", None), *OLD[1:]],
         [("changed content", "cat/0.png", "cat/0.png", "m0", "m7")]),
        ([("cat/x.png", "m0", "cat", None), *OLD[1:]], [("renamed", "cat/x.png", "cat/0.png", None, None)]),
        ([("cat/0.png", "m0", "cat", "test"), *OLD[1:]],
         [("moved to another split", "cat/0.png", "cat/0.png", None, "test")]),
        # two images that swapped their names are two renames, not two changed contents
        ([("cat/1.png", "m0", "cat", None), ("cat/0.png", "m1", "cat", None), OLD[2]],
         [("renamed", "cat/0.png", "cat/1.png", None, None),
          ("renamed", "cat/1.png", "cat/0.png", None, None)]),
        # both the class and the split
        ([("test/dog/0.png", "m0", "dog", "test"), *OLD[1:]],
         [("relabeled", "test/dog/0.png", "cat/0.png", "cat", "dog"),
          ("moved to another split", "test/dog/0.png", "cat/0.png", None, "test")]),
        # one of two copies dropped
        (OLD, []),
    ],
)  # fmt: skip
def test_each_change_is_told_by_its_kind(new, expected):
    found = diff_tables(tables(*OLD), tables(*new), a="v1", b="v2").changes
    rows = found.astype(object).where(found.notna(), None)
    assert list(rows.itertuples(index=False, name=None)) == expected


def test_one_of_two_copies_dropped_leaves_the_other_unchanged():
    old = tables(("a/0.png", "same", "a", None), ("b/0.png", "same", "b", None))
    found = diff_tables(old, tables(("b/0.png", "same", "b", None)), a="v1", b="v2")
    assert (found.counts, found.unchanged) == ({"dropped": 1}, 1)
    assert found.changes["sample_id"].tolist() == ["a/0.png"]


def test_the_matrix_counts_from_class_to_class():
    old = tables(*[(f"{n}.png", f"m{n}", "cat" if n < 4 else "dog", None) for n in range(6)])
    new = tables(
        *[(f"{n}.png", f"m{n}", ["dog", "dog", "fox", "cat", "cat", "dog"][n], None) for n in range(6)]
    )
    found = diff_tables(old, new, a="v1", b="v2")
    assert found.matrix.loc["cat"].to_dict() == {"cat": 0, "dog": 2, "fox": 1}
    assert found.to_dict()["matrix"] == [
        {"old": "cat", "new": "dog", "n": 2}, {"old": "cat", "new": "fox", "n": 1},
        {"old": "dog", "new": "cat", "n": 1},
    ]  # fmt: skip


def test_the_text_says_who_moved_where():
    new = [("dog/0.png", "m0", "dog", None), OLD[1], ("dog/9.png", "m9", "dog", None)]
    assert diff_tables(tables(*OLD), tables(*new), a="v1", b="v2").to_text().splitlines() == [
        "v1 -> v2: 1 relabeled, 1 added, 1 dropped, 1 unchanged",
        "",
        "Relabeled",
        "  cat -> dog: 1",
        "",
        "  cat/0.png  cat -> dog",
        "",
        "Added",
        "  + dog/9.png  dog",
        "",
        "Dropped",
        "  - dog/2.png  dog",
    ]


def test_the_dict_is_ready_for_json():
    new = [("dog/0.png", "m0", "dog", None), *OLD[1:]]
    found = json.loads(json.dumps(diff_tables(tables(*OLD), tables(*new), a="v1", b="v2").to_dict()))
    assert found["counts"] == {"relabeled": 1}
    assert found["changes"] == [
        {"kind": "relabeled", "sample_id": "dog/0.png", "before": "cat/0.png", "old": "cat", "new": "dog"}
    ]


def test_two_versions_and_the_working_copy_are_compared_without_being_touched(photos, tree_of):
    version.commit(photos, message="as it came")
    (photos / "cat" / "0.png").rename(photos / "dog" / "0.png")
    version.commit(photos, message="one cat is a dog")
    (photos / "dog" / "5.png").unlink()
    before = tree_of(photos)
    assert version.diff(photos, "v1", "v2").counts == {"relabeled": 1}
    assert version.diff(photos, "v2").counts == {"dropped": 1}
    assert version.diff(photos, "v1").counts == {"relabeled": 1, "dropped": 1}
    assert version.diff(photos, "v2", "v1").changes["new"].tolist() == ["cat"]
    assert tree_of(photos) == before
