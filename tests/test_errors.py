from __future__ import annotations

from pathlib import Path

import pytest

from dataaudit.errors import (
    ConflictError,
    DataAuditError,
    FormatError,
    InputError,
    MissingDependencyError,
    Unavailable,
    nearest,
)


def test_a_message_says_where_what_and_what_to_do() -> None:
    error = InputError("class id 12 is out of range.", where="train/7.txt:3", fix="Fix the line.")
    assert str(error) == "train/7.txt:3: class id 12 is out of range.\nFix the line."
    assert (error.what, error.where, error.fix) == (
        "class id 12 is out of range.",
        "train/7.txt:3",
        "Fix the line.",
    )


def test_what_alone_is_the_message() -> None:
    error = DataAuditError("It broke.")
    assert (str(error), error.where, error.fix) == ("It broke.", None, None)


def test_a_path_is_shown_as_text() -> None:
    assert DataAuditError("It broke.", where=Path("a") / "b").where == "a/b"


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [(InputError, ValueError), (FormatError, ValueError), (MissingDependencyError, ImportError)],
)
def test_kinds_are_caught_as_what_they_are(kind: type[DataAuditError], builtin: type[Exception]) -> None:
    with pytest.raises(builtin):
        raise kind("It broke.")
    assert issubclass(kind, DataAuditError)


def test_conflicts_and_reasons_are_errors_of_the_package() -> None:
    assert issubclass(ConflictError, DataAuditError)
    assert issubclass(Unavailable, DataAuditError)


@pytest.mark.parametrize(
    ("name", "names", "sentence"),
    [
        ("lable", ["split", "label"], "Did you mean 'label'? There are: label, split."),
        ("lbl001", ["LBL001", "DUP001"], "Did you mean 'LBL001'? There are: DUP001, LBL001."),
        ("xyz", ["label"], "There are: label."),
        ("x", [], "There are: none."),
    ],
)
def test_the_nearest_name_is_suggested_whatever_its_case(name: str, names: list[str], sentence: str) -> None:
    assert nearest(name, names) == sentence
