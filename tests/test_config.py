from __future__ import annotations

from pathlib import Path

import pytest

from dataaudit.config import Config, find
from dataaudit.errors import InputError


def test_without_a_file_there_are_the_defaults(tmp_path: Path) -> None:
    assert find(tmp_path) == Config()


def test_settings_are_read_from_a_file_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "dataaudit.toml").write_text(
        'select = ["LBL", "DUP"]\nfail-on = "LBL>1%"\nbackbone = "resnet50"\nfiftyone = false\n'
        'options = {label = "species"}\n[settings.LBL001]\nmin_probability = 0.9\n'
    )
    config = find(tmp_path)
    assert (config.select, config.fail_on, config.backbone, config.fiftyone) == (
        ("LBL", "DUP"), ("LBL>1%",), "resnet50", False,
    )  # fmt: skip
    assert config.options == {"label": "species"}
    assert config.settings == {"LBL001": {"min_probability": 0.9}}
    assert config.file == tmp_path / "dataaudit.toml"


def test_the_nearest_file_at_or_above_the_dataset_counts(tmp_path: Path) -> None:
    (tmp_path / "a" / "photos").mkdir(parents=True)
    (tmp_path / "dataaudit.toml").write_text('ignore = ["IMG"]')
    (tmp_path / "a" / "pyproject.toml").write_text('[tool.dataaudit]\nignore = ["DUP"]')
    assert find(tmp_path / "a" / "photos").ignore == ("DUP",)
    (tmp_path / "a" / "pyproject.toml").write_text('[project]\nname = "other"')
    assert find(tmp_path / "a" / "photos").ignore == ("IMG",)


def test_a_manifest_file_has_the_settings_of_its_folder(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("")
    (tmp_path / "dataaudit.toml").write_text('device = "cpu"')
    assert find(tmp_path / "labels.csv").device == "cpu"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("select = [", "This is not valid TOML"),
        ('selct = ["LBL"]', "There is no setting 'selct'. Did you mean 'select'?"),
        ("backbone = 3", "backbone = 3: expected a string"),
        ("fiftyone = 1", "fiftyone = 1: expected true or false"),
        ("select = [1]", r"select = \[1\]: expected a list of strings"),
        ("options = {label = 3}", "options = {'label': 3}: expected a table of strings"),
        ("[settings]\nLBL001 = 3", "settings = {'LBL001': 3}: expected a table of tables"),
    ],
)
def test_what_cannot_be_used_is_an_error_that_names_the_file(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "dataaudit.toml").write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        find(tmp_path)
    assert str(caught.value).startswith(str(tmp_path / "dataaudit.toml"))


@pytest.mark.parametrize("text", ["tool = 3", "[tool]\ndataaudit = 3"])
def test_a_pyproject_with_something_else_in_the_place_of_settings_is_an_error_or_ignored(
    tmp_path: Path, text: str
) -> None:
    (tmp_path / "pyproject.toml").write_text(text)
    if text == "tool = 3":
        assert find(tmp_path) == Config()
    else:
        with pytest.raises(InputError, match=r"\[tool.dataaudit\] is 3; expected a table"):
            find(tmp_path)
