from __future__ import annotations

import csv
import io
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dataaudit import formats, journal, state
from dataaudit.errors import ConflictError, FormatError, InputError
from dataaudit.types import Fix, Source, Tables


def dataset(
    root: Path, content: bytes, name: str = "labels.csv", images: tuple[str, ...] = ("a.jpg",)
) -> Path:
    root.mkdir(exist_ok=True)
    for image in images:
        (root / image).parent.mkdir(parents=True, exist_ok=True)
        (root / image).write_bytes(b"")
    (root / name).write_bytes(content)
    return root / name


def rows(tables: Tables) -> list[tuple[str, str | None, str | None, int]]:
    items = [locator.item for locator in tables.labels["locator"]]
    return list(zip(tables.images.index, tables.labels["name"], tables.images["split"], items, strict=True))


def fix_of(tables: Tables, sample_id: str, new: str | None, op: str = "relabel") -> Fix:
    row = tables.labels.loc[sample_id]
    return Fix(
        op=op, sample_id=sample_id, label_id=sample_id, locator=row["locator"], old=row["name"], new=new
    )


def patched(source: Source, fixes: list[Fix]) -> bytes:
    [edit] = formats.patch(source, fixes)
    if isinstance(edit, journal.Write):
        return edit.content
    assert isinstance(edit, journal.Edit)
    return journal.edited(edit.path.read_bytes(), edit.splices)


READ = {
    "plain": b"filepath,label,split\na.jpg,cat,train\nb.jpg,dog,test\n",
    "semicolons, mark and CRLF, as a spreadsheet saves it": b"\xef\xbb\xbf"
    b"filepath;label;split\r\na.jpg;cat;train\r\nb.jpg;dog;test\r\n",
    "tabs": b"filepath\tlabel\tsplit\na.jpg\tcat\ttrain\nb.jpg\tdog\ttest\n",
    "bars": b"filepath|label|split\na.jpg|cat|train\nb.jpg|dog|test\n",
    "no line end at the end": b"filepath,label,split\na.jpg,cat,train\nb.jpg,dog,test",
    "old line ends": b"filepath,label,split\ra.jpg,cat,train\rb.jpg,dog,test\r",
    "quotes": b'"filepath","label","split"\n"a.jpg","cat","train"\n"b.jpg","dog","test"\n',
    "other names and order": b"Class,Image_Path,SPLIT\ncat,a.jpg,train\ndog,b.jpg,test\n",
    "a space after each delimiter": b'filepath, label, split\na.jpg, cat, train\nb.jpg, "dog", test\n',
    "dots and slashes": b"filepath,label,split\n./a.jpg,cat,train\nsub/../b.jpg,dog,test\n",
    "UTF-16": "\ufefffilepath,label,split\na.jpg,cat,train\nb.jpg,dog,test\n".encode("utf-16-le"),
    "UTF-16 big, no mark": "filepath,label,split\na.jpg,cat,train\nb.jpg,dog,test\n".encode("utf-16-be"),
    "cells left out at the end": b"filepath,label,split,note\na.jpg,cat,train\nb.jpg,dog,test,x\n",
    "a delimiter too many at the end": b"filepath,label,split,\na.jpg,cat,train,\nb.jpg,dog,test,\n",
}


@pytest.mark.parametrize("content", READ.values(), ids=READ.keys())
def test_these_say_the_same(tmp_path: Path, content: bytes) -> None:
    file = dataset(tmp_path / "photos", content)
    assert rows(formats.read(file)) == [("a.jpg", "cat", "train", 2), ("b.jpg", "dog", "test", 3)]


def test_a_record_is_named_by_the_line_it_begins_on(tmp_path: Path) -> None:
    file = dataset(tmp_path / "photos", b'filepath,note,label\n\na.jpg,"x\ny",cat\nb.jpg,"""q""",dog\n')
    assert rows(formats.read(file)) == [("a.jpg", "cat", None, 3), ("b.jpg", "dog", None, 5)]


def test_an_empty_label_is_none(tmp_path: Path) -> None:
    file = dataset(tmp_path / "photos", b"filepath,label\na.jpg,\nb.jpg,cat\n")
    assert formats.read(file).labels["name"].tolist() == [None, "cat"]


def test_a_path_in_two_rows_is_two_samples(tmp_path: Path) -> None:
    file = dataset(tmp_path / "photos", b"filepath,label\na.jpg,cat\na.jpg,dog\n")
    tables = formats.read(file)
    assert [row[:2] for row in rows(tables)] == [("a.jpg", "cat"), ("a.jpg#3", "dog")]
    assert (
        patched(tables.source, [fix_of(tables, "a.jpg#3", "cat")])
        == b"filepath,label\na.jpg,cat\na.jpg,cat\n"
    )


def test_absolute_paths_and_paths_outside_are_read(tmp_path: Path) -> None:
    inside, outside = tmp_path / "photos/a.jpg", tmp_path / "other.jpg"
    file = dataset(
        tmp_path / "photos", f"filepath,label\n{inside},cat\n../other.jpg,dog\n{outside},cow\n".encode()
    )
    tables = formats.read(file)
    assert list(tables.images.index) == ["a.jpg", "../other.jpg", str(outside)]
    assert tables.images["filepath"].tolist() == [str(inside), str(outside), str(outside)]


def test_backslashes_separate_folders_too(tmp_path: Path) -> None:
    file = dataset(tmp_path / "photos", b"filepath,label\nsub\\a.jpg,cat\n", images=("sub/a.jpg",))
    assert list(formats.read(file).images.index) == ["sub/a.jpg"]


def test_a_row_whose_image_is_missing_stays_a_sample(tmp_path: Path) -> None:
    file = dataset(tmp_path / "photos", b"filepath,label\na.jpg,cat\nmissing.jpg,dog\n")
    assert len(formats.read(file).images) == 2


def test_no_image_at_all_is_a_wrong_root(tmp_path: Path) -> None:
    file = dataset(tmp_path / "photos", b"filepath,label\nphotos/a.jpg,cat\n")
    with pytest.raises(FormatError, match=r"labels\.csv:2: None of the 1 images is there"):
        formats.read(file)


def test_the_state_stands_in_the_folder_where_all_images_are_below_it(tmp_path: Path) -> None:
    below = dataset(tmp_path / "one", b"filepath,label\nimages/a.jpg,cat\n", images=("images/a.jpg",))
    beside = dataset(tmp_path / "two", b"filepath,label\na.jpg,cat\n")
    assert formats.read(below).source.anchor == tmp_path / "one"
    assert formats.read(beside).source.anchor == tmp_path
    assert state.name_of(formats.read(below).source) == "labels.csv"
    assert state.name_of(formats.read(beside).source) == "two__labels.csv"


MALFORMED = {
    "no label": (
        b"filepath,lable\na.jpg,cat\n",
        "No column is named like a label. There are: filepath, lable",
    ),
    "two labels": (b"filepath,label,class\na.jpg,cat,dog\n", "More than one column could hold the label"),
    "twice": (b"filepath,label,label\na.jpg,cat,dog\n", "More than one column"),
    "too many": (
        b"filepath,label\na.jpg,cat\nb, c.jpg,dog\n",
        ":3: The record has 3 cells; the header has 2",
    ),
    "too few": (b"filepath,label\na.jpg\n", ":2: The record has 1 cells; the header has 2"),
    "open quote": (b'filepath,label\na.jpg,"cat\n', ":2: The quotes in cell 2 don't match"),
    "text after quotes": (b'filepath,label\na.jpg,"cat"s\n', ":2: The quotes in cell 2 don't match"),
    "no path": (b"filepath,label\n,cat\n", ":2: The cell 'filepath' is empty"),
    "empty": (b"", "The file is empty"),
    "no rows": (b"filepath,label\n", "a header and no rows"),
}


@pytest.mark.parametrize(("content", "message"), MALFORMED.values(), ids=MALFORMED.keys())
def test_a_malformed_manifest_is_named_with_its_line(tmp_path: Path, content: bytes, message: str) -> None:
    file = dataset(tmp_path / "photos", content)
    with pytest.raises(InputError) as error:
        formats.read(file)
    assert message in str(error.value)


def test_columns_can_be_named(tmp_path: Path) -> None:
    file = dataset(tmp_path / "photos", b"where;what;class\na.jpg;cat;1\n")
    tables = formats.read(file, options={"filepath": "where", "label": "what"})
    assert rows(tables) == [("a.jpg", "cat", None, 2)]
    assert tables.source.options == {"filepath": "where", "label": "what"}
    with pytest.raises(InputError, match=r"no column 'waht'\. Did you mean 'what'"):
        formats.read(file, options={"filepath": "where", "label": "waht"})
    with pytest.raises(InputError, match=r"no option 'lable'\. Did you mean 'label'"):
        formats.read(file, options={"lable": "what"})


def test_several_manifests_in_a_folder_are_named(tmp_path: Path) -> None:
    dataset(tmp_path, b"filepath,label\na.jpg,cat\n", "train.csv")
    dataset(tmp_path, b"filepath,label\na.jpg,cat\n", "test.csv")
    with pytest.raises(FormatError, match=r"several manifests: test\.csv, train\.csv"):
        formats.read(tmp_path)


PATCHED = {
    "plain": (b"filepath,label\na.jpg,cat\nb.jpg,cow\n", "dog", b"filepath,label\na.jpg,dog\nb.jpg,cow\n"),
    "quoted stays quoted": (b'filepath,label\na.jpg,"cat"\n', "dog", b'filepath,label\na.jpg,"dog"\n'),
    "quoted where needed": (b"filepath,label\na.jpg,cat\n", "a,b", b'filepath,label\na.jpg,"a,b"\n'),
    "quotes doubled": (b"filepath,label\na.jpg,cat\n", 'a"b', b'filepath,label\na.jpg,"a""b"\n'),
    "comma needs none": (b"filepath;label\r\na.jpg;cat\r\n", "a,b", b"filepath;label\r\na.jpg;a,b\r\n"),
    "empty cell": (b"filepath,label,x\na.jpg,,1", "dog", b"filepath,label,x\na.jpg,dog,1"),
    "space stays": (b"filepath, label\na.jpg, cat\n", "dog", b"filepath, label\na.jpg, dog\n"),
    "Latin-1 stays": (b"filepath,label,x\na.jpg,cat,\xe9\n", "\xfc", b"filepath,label,x\na.jpg,\xfc,\xe9\n"),
    "UTF-8 stays": ("filepath,x,label\na.jpg,猫\U0001f408,cat\n".encode(), "犬",
                    "filepath,x,label\na.jpg,猫\U0001f408,犬\n".encode()),
    "UTF-16 stays": ("\ufefffilepath,x,label\na.jpg,\U0001f408,cat".encode("utf-16-be"), "犬",
                     "\ufefffilepath,x,label\na.jpg,\U0001f408,犬".encode("utf-16-be")),
}  # fmt: skip


@pytest.mark.parametrize(("content", "new", "expected"), PATCHED.values(), ids=PATCHED.keys())
def test_a_relabel_changes_the_one_cell(tmp_path: Path, content: bytes, new: str, expected: bytes) -> None:
    tables = formats.read(dataset(tmp_path / "photos", content))
    assert patched(tables.source, [fix_of(tables, "a.jpg", new)]) == expected


def test_a_drop_takes_out_the_record_with_its_line_end(tmp_path: Path) -> None:
    file = dataset(tmp_path / "photos", b'filepath,label,x\r\na.jpg,cat,"1\n2"\r\nb.jpg,dog,3')
    tables = formats.read(file)
    assert (
        patched(tables.source, [fix_of(tables, "a.jpg", None, "drop")]) == b"filepath,label,x\r\nb.jpg,dog,3"
    )
    assert patched(tables.source, [fix_of(tables, "b.jpg", "a.jpg", "merge")]).endswith(b'cat,"1\n2"\r\n')


def test_a_label_that_the_encoding_lacks_is_refused(tmp_path: Path) -> None:
    tables = formats.read(dataset(tmp_path / "photos", b"filepath,label\na.jpg,\xe9\n"))
    with pytest.raises(InputError, match=r"labels\.csv:2: The file is in cp1252, which can't hold '猫'"):
        formats.patch(tables.source, [fix_of(tables, "a.jpg", "猫")])


CHANGED = {
    "label": (b"filepath,label\na.jpg,cow\nb.jpg,dog\n", ":2: The label of a.jpg is 'cow'; expected 'cat'"),
    "order": (b"filepath,label\nb.jpg,dog\na.jpg,cat\n", ":2: The row is about b.jpg; expected a.jpg"),
    "gone": (b"filepath,label\n", ":2: There is no row of a.jpg any more"),
}


@pytest.mark.parametrize(("content", "message"), CHANGED.values(), ids=CHANGED.keys())
def test_a_manifest_that_changed_is_a_conflict(tmp_path: Path, content: bytes, message: str) -> None:
    file = dataset(tmp_path / "photos", b"filepath,label\na.jpg,cat\nb.jpg,dog\n")
    tables = formats.read(file)
    file.write_bytes(content)
    with pytest.raises(ConflictError) as error:
        formats.patch(tables.source, [fix_of(tables, "a.jpg", "dog")])
    assert message in str(error.value)


def test_a_merge_needs_the_row_that_is_kept(tmp_path: Path) -> None:
    file = dataset(tmp_path / "photos", b"filepath,label\na.jpg,cat\nb.jpg,dog\n")
    tables = formats.read(file)
    file.write_bytes(b"filepath,label\na.jpg,cat\n")
    with pytest.raises(ConflictError, match=r"no row of b\.jpg any more"):
        formats.patch(tables.source, [fix_of(tables, "a.jpg", "b.jpg", "merge")])


def test_a_manifest_linked_from_elsewhere_is_refused(tmp_path: Path) -> None:
    other = dataset(tmp_path / "other", b"filepath,label\na.jpg,cat\n")
    file = dataset(tmp_path / "photos", b"")
    file.unlink()
    file.symlink_to(other)
    tables = formats.read(file)
    with pytest.raises(InputError, match="outside the dataset"):
        formats.patch(tables.source, [fix_of(tables, "a.jpg", "dog")])


def parquet(root: Path, table: pa.Table, **how: object) -> Path:
    dataset(root, b"", name="unused.txt")
    pq.write_table(table, root / "labels.parquet", **how)
    return root / "labels.parquet"


@pytest.mark.parametrize(
    ("labels", "new"),
    [
        (pa.array(["cat", None, "dog", "cat", "cat"]), "bird"),
        (pa.array(["cat", None, "dog", "cat", "cat"]).dictionary_encode(), "bird"),
        (pa.array([1, None, 2, 1, 1], pa.int16()), "7"),
        (pa.array(["cat", None, "dog", "cat", "cat"], pa.large_string()), "bird"),
    ],
    ids=["text", "categories", "numbers", "large text"],
)
def test_a_parquet_manifest_keeps_its_schema_groups_and_compression(
    tmp_path: Path, labels: pa.Array, new: str
) -> None:
    table = pa.table(
        {"filepath": [f"{x}.jpg" for x in "abcde"], "label": labels, "n": pa.array(range(5), pa.int8())}
    )
    table = table.replace_schema_metadata({"who": "me"})
    file = parquet(
        tmp_path / "photos",
        table,
        row_group_size=2,
        compression={"filepath": "zstd", "label": "gzip", "n": "none"},
    )
    tables = formats.read(file)
    assert tables.labels["locator"].iloc[2].item == 2
    fixes = [fix_of(tables, "b.jpg", new), fix_of(tables, "d.jpg", None, "drop")]
    before = pq.ParquetFile(file)
    content = patched(tables.source, fixes)
    after = pq.ParquetFile(io.BytesIO(content))
    assert after.schema_arrow.equals(before.schema_arrow, check_metadata=True)
    assert [after.metadata.row_group(n).num_rows for n in range(3)] == [2, 1, 1]
    columns = [after.metadata.row_group(0).column(n).compression for n in range(3)]
    assert columns == ["ZSTD", "GZIP", "UNCOMPRESSED"]
    file.write_bytes(content)
    expected = [name for n, name in enumerate(tables.labels["name"]) if n != 3]
    expected[1] = new
    assert formats.read(file).labels["name"].tolist() == expected


def test_the_categories_of_a_parquet_column_keep_their_order(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "filepath": ["a.jpg", "b.jpg"],
            "label": pd.Categorical(["low", "high"], ["low", "mid", "high"], ordered=True),
        }
    )
    file = parquet(tmp_path / "photos", pa.Table.from_pandas(frame))
    tables = formats.read(file)
    file.write_bytes(patched(tables.source, [fix_of(tables, "a.jpg", "top")]))
    label = pd.read_parquet(file)["label"]
    assert label.tolist() == ["top", "high"]
    assert label.cat.categories.tolist() == ["low", "mid", "high", "top"]
    assert label.cat.ordered


def test_a_label_that_a_parquet_column_cannot_hold_is_refused(tmp_path: Path) -> None:
    file = parquet(tmp_path / "photos", pa.table({"filepath": ["a.jpg"], "label": [1]}))
    tables = formats.read(file)
    with pytest.raises(InputError, match="holds int64 and can't hold 'cat'"):
        formats.patch(tables.source, [fix_of(tables, "a.jpg", "cat")])


def test_a_damaged_parquet_file_says_so(tmp_path: Path) -> None:
    file = dataset(tmp_path / "photos", b"PAR1 no", "labels.parquet")
    with pytest.raises(FormatError, match="can't be read as Parquet"):
        formats.read(file)


characters = st.characters(exclude_categories=("Cs",), exclude_characters="\0\ufeff")
labels = st.text(characters, min_size=1, max_size=6).filter(
    lambda name: name.strip() and name == name.strip()
)
endings = st.sampled_from(["\n", "\r\n"])
encodings = st.sampled_from(["utf-8", "utf-8-sig", "utf-16"])


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    names=st.lists(st.one_of(labels, st.just("")), min_size=1, max_size=6),
    notes=st.lists(st.text(characters, max_size=5), min_size=6, max_size=6),
    new=st.dictionaries(st.integers(0, 5), st.one_of(st.none(), labels), max_size=4),
    delimiter=st.sampled_from(",;\t|"),
    ending=endings,
    encoding=encodings,
    quoting=st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]),
    torn=st.booleans(),
)  # fmt: skip
def test_any_manifest_changes_in_the_cells_of_its_fixes_alone_and_back(
    tmp_path: Path, names: list[str], notes: list[str], new: dict[int, str | None], delimiter: str,
    ending: str, encoding: str, quoting: int, torn: bool,
) -> None:  # fmt: skip
    if quoting == csv.QUOTE_MINIMAL:  # some versions of the csv module leave a carriage return unquoted
        names = [name.replace("\r", "") for name in names]
        notes = [note.replace("\r", "") for note in notes]
    table = [[f"{n}.jpg", notes[n], name] for n, name in enumerate(names)]

    def text(records: list[list[str]], ends: str = ending) -> str:
        out = io.StringIO(newline="")
        csv.writer(out, delimiter=delimiter, lineterminator=ends, quoting=quoting).writerows(records)  # type: ignore[arg-type]
        return out.getvalue()

    whole = text([["filepath", "note", "label"], *table])
    whole = whole.removesuffix(ending) if torn else whole
    file = dataset(tmp_path / "photos", whole.encode(encoding), images=("0.jpg",))
    before = file.read_bytes()
    tables = formats.read(file)
    assert tables.labels["name"].tolist() == [name if name.strip() else None for name in names]
    new = {n: label for n, label in new.items() if n < len(names)}
    if not new:
        return
    fixes = [
        fix_of(tables, f"{n}.jpg", label, "drop" if label is None else "relabel") for n, label in new.items()
    ]
    [edit] = formats.patch(tables.source, fixes)
    [back] = journal.invert(tmp_path, [edit])
    assert isinstance(edit, journal.Edit)
    after = journal.edited(before, edit.splices)
    left = [[*row[:2], new.get(n) or row[2]] for n, row in enumerate(table) if new.get(n, "") is not None]
    decoded = after.decode(encoding)
    assert list(csv.reader(io.StringIO(decoded, newline=""), delimiter=delimiter))[1:] == left
    undo = journal.from_record(tmp_path, back)
    assert isinstance(undo, journal.Edit)
    assert undo.old_md5 == journal.md5(after)
    assert journal.edited(after, undo.splices) == before
