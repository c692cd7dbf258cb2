"""Manifests whose images have several classes."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dataaudit import formats, journal
from dataaudit.errors import ConflictError, FormatError, InputError
from dataaudit.formats._sets import separator_of
from dataaudit.types import Fix, Tables


def dataset(root: Path, content: bytes, name: str = "labels.csv") -> Path:
    root.mkdir(exist_ok=True)
    (root / "a.jpg").write_bytes(b"")
    (root / name).write_bytes(content)
    return root / name


def sets(tables: Tables) -> dict[str, list[str]]:
    named = tables.labels.dropna(subset="name")
    found = named.groupby("sample_id")["name"].agg(list)
    return {sample_id: found.get(sample_id, []) for sample_id in tables.images.index}


def fix_of(tables: Tables, sample_id: str, op: str, old: str | None = None, new: str | None = None) -> Fix:
    own = tables.labels[tables.labels["sample_id"] == sample_id]
    row = own[own["name"] == old].iloc[0] if op in ("remove", "relabel") and old else own.iloc[0]
    label_id = f"{sample_id}:{old or new}"
    return Fix(op=op, sample_id=sample_id, label_id=label_id, locator=row["locator"], old=old, new=new)


def patched(file: Path, options: Mapping[str, str], *changes: tuple[str, ...]) -> bytes:
    """The file after some fixes; taken back it must be what it was."""
    tables = formats.read(file, options=options)
    fixes = [fix_of(tables, *change) for change in changes]
    [edit] = formats.patch(tables.source, fixes)
    if isinstance(edit, journal.Write):
        return edit.content
    assert isinstance(edit, journal.Edit)
    after = journal.edited(file.read_bytes(), edit.splices)
    [back] = journal.invert(file.parent, [edit])
    undo = journal.from_record(file.parent, back)
    assert isinstance(undo, journal.Edit)
    assert journal.edited(after, undo.splices) == file.read_bytes()
    return after


CELLS, ROWS, COLUMNS = {"separator": ";"}, {"multilabel": "rows"}, {"multilabel": "columns"}
SAME = {
    "cells": (b"filepath,label\na.jpg,cat;dog\nb.jpg,\nc.jpg,dog\n", CELLS),
    "spaces in cells": (b"filepath,label\na.jpg,cat; dog ;cat\nb.jpg, \nc.jpg,dog;\n", CELLS),
    "words": (b"filepath,label\na.jpg,cat dog\nb.jpg,\nc.jpg,dog\n", {"separator": " "}),
    "commas in quotes": (b'filepath,label\na.jpg,"cat,dog"\nb.jpg,\nc.jpg,dog\n', {"separator": ","}),
    "rows": (b"filepath,label\na.jpg,cat\nb.jpg,\na.jpg,dog\nc.jpg,dog\nc.jpg,dog\n", ROWS),
    "columns": (b"filepath,cat,dog,note\na.jpg,1,1,x\nb.jpg,0,0,y\nc.jpg,0,1,z\n", COLUMNS),
    "named columns": (
        b"filepath,cat,blurry,dog\na.jpg,1,0,1\nb.jpg,0,1,0\nc.jpg,0,0,1\n",
        {"columns": "cat, dog"},
    ),
    "true and empty": (b"filepath,cat,dog\na.jpg,True,True\nb.jpg,False,\nc.jpg,False,True\n", COLUMNS),
}


@pytest.mark.parametrize(("content", "options"), SAME.values(), ids=SAME.keys())
def test_these_say_the_same(tmp_path: Path, content: bytes, options: dict[str, str]) -> None:
    tables = formats.read(dataset(tmp_path / "photos", content), options=options)
    assert tables.task == "multilabel"
    assert sets(tables) == {"a.jpg": ["cat", "dog"], "b.jpg": [], "c.jpg": ["dog"]}
    assert list(tables.labels.index) == ["a.jpg:cat", "a.jpg:dog", "b.jpg", "c.jpg:dog"]
    assert tables.classes == ("cat", "dog")
    again = formats.read(tables.source.path, options=tables.source.options)
    assert sets(again) == sets(tables)


def test_each_label_knows_its_cell(tmp_path: Path) -> None:
    def places(content: bytes, options: dict[str, str]) -> list[str]:
        tables = formats.read(dataset(tmp_path / "photos", content), options=options)
        return [str(locator) for locator in tables.labels["locator"]]

    assert places(b"filepath,label\na.jpg,cat;dog\n", CELLS) == ["labels.csv:2:label"] * 2
    assert places(b"filepath,label\na.jpg,cat\na.jpg,dog\n", ROWS) == [
        "labels.csv:2:label",
        "labels.csv:3:label",
    ]
    assert places(b"filepath,cat,dog\na.jpg,1,1\n", COLUMNS) == ["labels.csv:2:cat", "labels.csv:2:dog"]


A_FEW = ["cat;dog", "cat", "dog;bird", "bird", "cat;bird", "dog", "cat;dog;bird", "bird;cat", "dog", "cat"]
SNIFFED = {
    "semicolons": (A_FEW, ";"),
    "bars with spaces": ([cell.replace(";", " | ") for cell in A_FEW], "|"),
    "words": ([cell.replace(";", " ") for cell in A_FEW * 2], " "),
    "classes of two words": ([cell.replace("cat", "wild cat") for cell in A_FEW], ";"),
}
NOT_SNIFFED = {
    "too few to be sure": A_FEW[:5],
    "one class each": ["cat", "dog", "bird"] * 10,
    "paths of a hierarchy": ["animal|cat", "animal|dog", "animal", "thing|car", "thing|cup"] * 5,
    "parts that stay in their place": [f"{a};{b}" for a in "xyz" for b in "pqr"] * 3,
    "adjective and noun": [f"{a} {b}" for a in ("red", "blue", "green") for b in ("car", "cup", "hat")] * 3,
    "names of two words": ["traffic light", "stop sign", "street light", "light truck", "dog"] * 5,
    "free text": [f"note {n};see {n + 1}" for n in range(30)],
    "a separator at the end": [f"{cell};" for cell in A_FEW],
    "nothing": [],
}


@pytest.mark.parametrize(("cells", "separator"), SNIFFED.values(), ids=SNIFFED.keys())
def test_a_separator_is_found_where_nothing_else_is_likely(cells: list[str], separator: str) -> None:
    assert separator_of([*cells, None, ""]) == separator


@pytest.mark.parametrize("cells", NOT_SNIFFED.values(), ids=NOT_SNIFFED.keys())
def test_no_separator_is_guessed(cells: list[str]) -> None:
    assert separator_of(cells) is None


def test_what_was_found_is_told_and_can_be_refused(tmp_path: Path) -> None:
    lines = [f"{number}.jpg,{cell}" for number, cell in enumerate(A_FEW)]
    file = dataset(tmp_path / "photos", "\n".join(["filepath,label", "a.jpg,", *lines]).encode())
    assert formats.read(file).source.options["separator"] == ";"
    assert formats.read(file).task == "multilabel"
    single = formats.read(file, options={"multilabel": "no"})
    assert single.task == "classification"
    assert "cat;dog" in single.classes
    assert single.source.options["multilabel"] == "no"


WRONG = {
    "unknown kind": ({"multilabel": "cell"}, "The option multilabel is 'cell'. Did you mean 'cells'"),
    "two kinds": ({"multilabel": "rows", "separator": ";"}, "separator goes with multilabel=cells"),
    "empty": ({"separator": ""}, "The option separator is empty"),
    "no separator": ({"multilabel": "cells"}, "No separator splits the cells of 'label'"),
    "no such column": ({"columns": "cat,dgo"}, "has the column 'cat' 0 times"),
    "not a flag": ({"columns": "label"}, "labels.csv:2: The cell of the class 'label' is 'cat'; expected 0"),
    "no flags": ({"multilabel": "columns"}, "No column holds nothing but 0 and 1"),
}


@pytest.mark.parametrize(("options", "message"), WRONG.values(), ids=WRONG.keys())
def test_options_that_do_not_fit_are_refused(tmp_path: Path, options: dict[str, str], message: str) -> None:
    file = dataset(tmp_path / "photos", b"filepath,label\na.jpg,cat\nb.jpg,dog\n")
    with pytest.raises(InputError) as error:
        formats.read(file, options=options)
    assert message in str(error.value)


def test_rows_of_an_image_in_two_splits_are_refused(tmp_path: Path) -> None:
    file = dataset(tmp_path / "photos", b"filepath,label,split\na.jpg,cat,train\na.jpg,dog,test\n")
    with pytest.raises(FormatError, match=r":3: a\.jpg is in the split 'test' here and in 'train' before"):
        formats.read(file, options=ROWS)


HEAD = b"filepath,label,x\n"
PATCHED = {
    "add to a cell": (
        HEAD + b"a.jpg,cat;dog,1\nb.jpg,cat,2\n", CELLS, [("a.jpg", "add", None, "cow")],
        HEAD + b"a.jpg,cat;dog;cow,1\nb.jpg,cat,2\n",
    ),
    "add in the manner of the cell": (
        HEAD + b"a.jpg,cat; dog,1\n", CELLS, [("a.jpg", "add", None, "cow")],
        HEAD + b"a.jpg,cat; dog; cow,1\n",
    ),
    "add to an empty cell": (
        HEAD + b"a.jpg,,1\n", CELLS, [("a.jpg", "add", None, "cow")], HEAD + b"a.jpg,cow,1\n",
    ),
    "quotes stay, and come where needed": (
        HEAD + b'a.jpg,"cat,dog",1\nb.jpg,cat,2\n', {"separator": ","},
        [("a.jpg", "remove", "cat"), ("b.jpg", "add", None, "dog")],
        HEAD + b'a.jpg,"dog",1\nb.jpg,"cat,dog",2\n',
    ),
    "remove the first": (
        HEAD + b"a.jpg,cat; dog; cow,1\n", CELLS, [("a.jpg", "remove", "cat")], HEAD + b"a.jpg,dog; cow,1\n",
    ),
    "remove the only one": (
        HEAD + b"a.jpg,cat,1\n", CELLS, [("a.jpg", "remove", "cat")], HEAD + b"a.jpg,,1\n",
    ),
    "remove one that is written twice": (
        HEAD + b"a.jpg,cat;dog;cat,1\n", CELLS, [("a.jpg", "remove", "cat")], HEAD + b"a.jpg,dog,1\n",
    ),
    "several at once": (
        HEAD + b"a.jpg,cat;dog,1\n", CELLS,
        [("a.jpg", "remove", "cat"), ("a.jpg", "add", None, "cow"), ("a.jpg", "relabel", "dog", "fox")],
        HEAD + b"a.jpg,fox;cow,1\n",
    ),
    "drop": (
        HEAD + b"a.jpg,dog;cat,1\nb.jpg,cat,2\n", CELLS, [("a.jpg", "drop", "cat, dog")],
        HEAD + b"b.jpg,cat,2\n",
    ),
    "add a row": (
        HEAD + b"a.jpg,cat,1\r\nb.jpg,cat,2\r\n", ROWS, [("a.jpg", "add", None, "dog")],
        HEAD + b"a.jpg,cat,1\r\na.jpg,dog,1\r\nb.jpg,cat,2\r\n",
    ),
    "add a row at an end without a line end": (
        HEAD + b"b.jpg,cat,2\na.jpg,cat,1", ROWS, [("a.jpg", "add", None, "dog")],
        HEAD + b"b.jpg,cat,2\na.jpg,cat,1\na.jpg,dog,1",
    ),
    "fill the row of an image without a label": (
        HEAD + b"a.jpg,,1\n", ROWS, [("a.jpg", "add", None, "dog"), ("a.jpg", "add", None, "cat")],
        HEAD + b"a.jpg,dog,1\na.jpg,cat,1\n",
    ),
    "remove a row": (
        HEAD + b"a.jpg,cat,1\nb.jpg,cat,2\na.jpg,dog,3\n", ROWS, [("a.jpg", "remove", "dog")],
        HEAD + b"a.jpg,cat,1\nb.jpg,cat,2\n",
    ),
    "keep the image's last row": (
        HEAD + b"a.jpg,cat,1\na.jpg,dog,3\n", ROWS, [("a.jpg", "remove", "dog"), ("a.jpg", "remove", "cat")],
        HEAD + b"a.jpg,,1\n",
    ),
    "drop all rows": (
        HEAD + b"a.jpg,cat,1\nb.jpg,cat,2\na.jpg,dog,3\n", ROWS, [("a.jpg", "drop", "cat, dog")],
        HEAD + b"b.jpg,cat,2\n",
    ),
    "flip columns": (
        b"filepath,cat,dog,cow\na.jpg,1,0,0\nb.jpg,0,1,0\n", COLUMNS,
        [("a.jpg", "remove", "cat"), ("a.jpg", "add", None, "dog"), ("b.jpg", "relabel", "dog", "cat")],
        b"filepath,cat,dog,cow\na.jpg,0,1,0\nb.jpg,1,0,0\n",
    ),
    "flip in the manner of the cell": (
        b'filepath,cat,dog\na.jpg,"False",1.0\n', COLUMNS,
        [("a.jpg", "add", None, "cat"), ("a.jpg", "remove", "dog")], b'filepath,cat,dog\na.jpg,"True",0.0\n',
    ),
}  # fmt: skip


@pytest.mark.parametrize(("content", "options", "changes", "expected"), PATCHED.values(), ids=PATCHED.keys())
def test_fixes_change_the_one_place(
    tmp_path: Path, content: bytes, options: dict[str, str], changes: list[tuple[str, ...]], expected: bytes
) -> None:
    file = dataset(tmp_path / "photos", content)
    assert patched(file, options, *changes) == expected


def test_a_merge_needs_the_image_that_is_kept(tmp_path: Path) -> None:
    file = dataset(tmp_path / "photos", HEAD + b"a.jpg,cat;dog,1\nb.jpg,dog;cat,2\n")
    assert patched(file, CELLS, ("b.jpg", "merge", "cat, dog", "a.jpg")) == HEAD + b"a.jpg,cat;dog,1\n"
    with pytest.raises(ConflictError, match=r"no row of z\.jpg any more"):
        patched(file, CELLS, ("b.jpg", "merge", "cat, dog", "z.jpg"))


REFUSED = {
    "gone": (CELLS, HEAD + b"a.jpg,dog,1\n", ("a.jpg", "remove", "cat"), "are 'dog'; expected 'cat'"),
    "there": (CELLS, HEAD + b"a.jpg,cat;dog,1\n", ("a.jpg", "add", None, "dog"), "the label 'dog' already"),
    "other set": (CELLS, HEAD + b"a.jpg,dog,1\n", ("a.jpg", "drop", "cat"), "expected 'cat'"),
    "holds the separator": (CELLS, HEAD + b"a.jpg,cat,1\n", ("a.jpg", "add", None, "a;b"), "split at ';'"),
    "no column": (
        COLUMNS, b"filepath,cat,dog\na.jpg,1,0\n", ("a.jpg", "add", None, "cow"),
        "no column for the class 'cow'",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("options", "content", "change", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_a_fix_that_does_not_fit_is_refused(
    tmp_path: Path, options: dict[str, str], content: bytes, change: tuple[str, ...], message: str
) -> None:
    file = dataset(tmp_path / "photos", content)
    tables = formats.read(file, options=options)
    old = change[2] if len(change) > 2 else None
    fix = Fix(
        op=change[1], sample_id="a.jpg", label_id="x", locator=tables.labels["locator"].iloc[0],
        old=old, new=change[3] if len(change) > 3 else None,
    )  # fmt: skip
    with pytest.raises((ConflictError, InputError)) as error:
        formats.patch(tables.source, [fix])
    assert message in str(error.value)


def parquet(root: Path, columns: dict[str, pa.Array | list[object]]) -> Path:
    dataset(root, b"", "unused.txt")
    pq.write_table(pa.table(columns), root / "labels.parquet", row_group_size=2)
    return root / "labels.parquet"


def test_a_parquet_column_of_lists_is_read_and_changed(tmp_path: Path) -> None:
    lists = pa.array([["cat", "dog"], [], None, ["dog"]], pa.list_(pa.string()))
    file = parquet(tmp_path / "photos", {"filepath": ["a.jpg", "b.jpg", "c.jpg", "d.jpg"], "label": lists})
    tables = formats.read(file)
    assert sets(tables) == {"a.jpg": ["cat", "dog"], "b.jpg": [], "c.jpg": [], "d.jpg": ["dog"]}
    changes = [("a.jpg", "remove", "cat"), ("c.jpg", "add", None, "cow"), ("d.jpg", "add", None, "cat")]
    after = pq.read_table(io.BytesIO(patched(file, {}, *changes)))
    assert after["label"].to_pylist() == [["dog"], [], ["cow"], ["dog", "cat"]]
    assert after.schema.equals(pq.read_schema(file))


def test_parquet_rows_and_columns_are_changed(tmp_path: Path) -> None:
    file = parquet(
        tmp_path / "one", {"filepath": ["a.jpg", "b.jpg", "a.jpg"], "label": ["cat", "cat", "dog"]}
    )
    changes = [("a.jpg", "remove", "cat"), ("b.jpg", "add", None, "cow"), ("b.jpg", "add", None, "dog")]
    after = pq.read_table(io.BytesIO(patched(file, ROWS, *changes)))
    assert after.to_pydict() == {
        "filepath": ["b.jpg", "b.jpg", "b.jpg", "a.jpg"],
        "label": ["cat", "cow", "dog", "dog"],
    }
    flags = {"filepath": ["a.jpg", "b.jpg"], "cat": pa.array([1, 0], pa.int8()), "dog": [True, False]}
    file = parquet(tmp_path / "two", flags)
    after = pq.read_table(
        io.BytesIO(patched(file, COLUMNS, ("b.jpg", "add", None, "dog"), ("a.jpg", "remove", "cat")))
    )
    assert after.to_pydict() == {"filepath": ["a.jpg", "b.jpg"], "cat": [0, 0], "dog": [True, True]}
