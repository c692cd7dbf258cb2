from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pictures import tables_of

from dataaudit.annotators import Annotations, read
from dataaudit.errors import InputError
from dataaudit.types import Tables


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    made = tables_of(tmp_path, ["pets/1.jpg", "pets/2.jpg", "wild/1.jpg"], ["cat", "dog", "fox"])
    return replace(made, classes=("cat", "dog", "fox"))


def written(folder: Path, text: str, name: str = "votes.csv") -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def rows(found: Annotations) -> list[tuple[str, str | None, str, int]]:
    return [tuple(row) for row in found.votes.itertuples(index=False)]  # type: ignore[misc]


ANN_AND_BOB = [
    ("pets/1.jpg", "ann", "cat", 1),
    ("pets/1.jpg", "bob", "dog", 1),
    ("wild/1.jpg", "ann", "fox", 1),
]


@pytest.mark.parametrize(
    "text",
    [
        "sample,annotator,label\npets/1.jpg,ann,cat\npets/1.jpg,bob,dog\nwild/1.jpg,ann,fox\n",
        "Image;Worker;Class\npets/1.jpg;ann;cat\npets/1.jpg;bob;dog\n\nwild/1.jpg;ann;fox\n",
        "sample,ann,bob\npets/1.jpg,cat,dog\nwild/1.jpg,fox,\n",
        "\ufefffilepath\tann\tbob\n./pets/1.jpg\tcat\tdog\n/mnt/data/wild/1.jpg\tfox\t\n",
    ],
    ids=["long", "long with other names", "wide", "wide with other paths"],
)
def test_votes_are_read_from_a_long_and_a_wide_table(tables: Tables, tmp_path: Path, text: str) -> None:
    found = read(written(tmp_path, text), tables)
    assert sorted(rows(found)) == ANN_AND_BOB
    assert found.annotators == ("ann", "bob")


@pytest.mark.parametrize(
    "text",
    [
        "path,label,cat,dog,fox\npets/1.jpg,3,2,1,0\nwild/1.jpg,0,0,0,3\n",
        "index,path,label_name,h_cat,h_dog,h_fox\n0,pets/1.jpg,cat,2,1,0\n1,wild/1.jpg,fox,0,,3\n",
        "id,cat_count,dog_count,fox_count\npets/1.jpg,2,1,0\nwild/1.jpg,0,0,3\n",
    ],
    ids=["classes", "with a prefix", "with a suffix"],
)
def test_numbers_of_votes_have_no_annotators(tables: Tables, tmp_path: Path, text: str) -> None:
    found = read(written(tmp_path, text), tables)
    assert rows(found) == [
        ("pets/1.jpg", None, "cat", 2),
        ("pets/1.jpg", None, "dog", 1),
        ("wild/1.jpg", None, "fox", 3),
    ]
    assert found.annotators == ()


def test_rows_without_an_annotator_are_votes_of_nobody_in_particular(tables: Tables, tmp_path: Path) -> None:
    found = read(written(tmp_path, "image,label\npets/1.jpg,cat\npets/1.jpg,cat\npets/1.jpg,dog\n"), tables)
    assert found.annotators == ()
    assert [row[2] for row in rows(found)] == ["cat", "cat", "dog"]


def test_tables_in_memory_have_their_samples_as_index_or_column(tables: Tables) -> None:
    wide = pd.DataFrame(
        {"ann": ["cat", "fox"], "bob": ["dog", np.nan]}, index=["pets/1.jpg", "wild/1.jpg"], dtype=object
    )
    assert sorted(rows(read(wide, tables))) == ANN_AND_BOB
    counts = pd.DataFrame({"cat": [2.0, np.nan], "dog": [1, 0]}, index=["pets/1.jpg", "wild/1.jpg"])
    assert rows(read(counts, tables)) == [("pets/1.jpg", None, "cat", 2), ("pets/1.jpg", None, "dog", 1)]


def test_what_was_read_is_taken_as_it_is_if_it_fits_the_dataset(tables: Tables) -> None:
    votes = pd.DataFrame({"sample_id": ["pets/1.jpg"], "annotator": ["ann"], "name": ["cat"], "n": [1]})
    annotations = Annotations(votes=votes)
    assert read(annotations, tables) is annotations
    with pytest.raises(InputError, match="the class 'cow', which the dataset lacks"):
        read(Annotations(votes=votes.assign(name="cow")), tables)
    with pytest.raises(InputError, match="no column 'n'"):
        Annotations(votes=votes.drop(columns="n"))


def test_a_parquet_file_is_read(tables: Tables, tmp_path: Path) -> None:
    table = pd.DataFrame({"sample": ["pets/1.jpg"] * 2, "user": [7, 8], "label": ["cat", "dog"]})
    table.to_parquet(tmp_path / "votes.parquet")
    assert read(tmp_path / "votes.parquet", tables).annotators == ("7", "8")


def test_columns_with_other_names_can_be_named(tables: Tables, tmp_path: Path) -> None:
    file = written(tmp_path, "bild,wer,was,note\npets/1.jpg,ann,cat,blurred\npets/1.jpg,bob,dog,\n")
    found = read(file, tables, columns={"sample": "bild", "annotator": "wer", "label": "was"})
    assert rows(found) == ANN_AND_BOB[:2]
    wide = written(tmp_path, "sample,size,ann,bob\npets/1.jpg,3,cat,dog\n", "wide.csv")
    assert rows(read(wide, tables, columns={"annotators": "ann, bob"})) == ANN_AND_BOB[:2]


def test_a_file_name_alone_is_enough_where_it_is_unique(tables: Tables, tmp_path: Path) -> None:
    found = read(written(tmp_path, "sample,annotator,label\n2.jpg,ann,dog\n"), tables)
    assert rows(found) == [("pets/2.jpg", "ann", "dog", 1)]


LONG = "sample,annotator,label\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{LONG}pets/1.jpg,ann,cat\n9.jpg,ann,cat\n", r"votes\.csv:3: The dataset has no sample '9\.jpg'\."),
        (f"{LONG}1.jpg,ann,cat\n", r"votes\.csv:2: The dataset has no sample '1\.jpg'"),
        (f"{LONG}9.jpg,ann,cat\n8.jpg,ann,cat\n", r"no sample '9\.jpg' \(and 1 more\)"),
        (f"{LONG}pets/1.jpg,ann,Cat\n", r"votes\.csv:2: The dataset has no class 'Cat'\. Did you mean 'cat'"),
        (
            f"{LONG}pets/1.jpg,ann,cat\n\npets/1.jpg,ann,dog\n",
            r"votes\.csv:4: 'ann' has labeled 'pets/1\.jpg' before, at .*votes\.csv:2",
        ),
        (f"{LONG}pets/1.jpg,ann,\n", r"votes\.csv:2: The cell of 'label' is empty"),
        (f"{LONG}pets/1.jpg,ann,cat,x\n", r"votes\.csv:2: The row has 4 cells; the header has 3"),
        ("a,b\n1,2\n", r"No column of the annotations names the sample; there are a, b"),
        ("sample\npets/1.jpg\n", r"No column of the annotations holds a label"),
        ("sample,ann,ann\npets/1.jpg,cat,dog\n", r"the column 'ann' more than once"),
        (LONG, r"There is no annotation in the table"),
        ("", r"The file is empty"),
        ("sample,cat,dog\npets/1.jpg,2,x\n", r"votes\.csv:2: The number of votes for 'dog' is 'x'"),
        ("sample,cat,dog\npets/1.jpg,2,-1\n", r"number of votes for 'dog' is '-1'"),
        ("sample,cat,dog\npets/1.jpg,2,1\npets/1.jpg,2,1\n", r"votes\.csv:3: .* numbers of votes already"),
    ],
)  # fmt: skip
def test_what_is_odd_is_refused_with_its_line(
    tables: Tables, tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        read(written(tmp_path, text), tables)


def test_an_error_in_a_table_in_memory_names_the_row(tables: Tables) -> None:
    table = pd.DataFrame({"sample": ["pets/1.jpg", "9.jpg"], "annotator": "ann", "label": "cat"})
    with pytest.raises(InputError, match=r"no sample '9\.jpg' \(row 1 of the annotations\)"):
        read(table, tables)


def test_a_file_or_column_that_is_not_there_is_told(tables: Tables, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="There is no such file of annotations"):
        read(tmp_path / "none.csv", tables)
    file = written(tmp_path, f"{LONG}pets/1.jpg,ann,cat\n")
    with pytest.raises(InputError, match=r"no column 'lable'\. Did you mean 'label'"):
        read(file, tables, columns={"label": "lable"})
    with pytest.raises(InputError, match="of the kind 'who'"):
        read(file, tables, columns={"who": "annotator"})


def test_a_file_that_a_fix_has_moved_is_known_by_its_name_unless_two_could_be_meant(
    tables: Tables, tmp_path: Path
) -> None:
    moved = written(tmp_path, f"{LONG}wild/2.jpg,ann,dog\n")
    assert rows(read(moved, tables)) == [("pets/2.jpg", "ann", "dog", 1)]
    unclear = written(tmp_path, f"{LONG}pets/2.jpg,ann,dog\nwild/2.jpg,ann,dog\n")
    with pytest.raises(InputError, match=r"votes\.csv:3: The dataset has no sample 'wild/2\.jpg'"):
        read(unclear, tables)
