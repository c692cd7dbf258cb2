"""The panel is known to FiftyOne while a review runs, and the user's own plugins are as before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from databases import fiftyone

from dataaudit.review import app


def plugin(folder: Path, name: str) -> None:
    folder.mkdir(parents=True)
    (folder / "fiftyone.yml").write_text(f"name: '{name}'\n")
    (folder / "__init__.py").write_text("def register(p):\n    pass\n")


def seen(folder: Path) -> dict[str, Path]:
    """What FiftyOne finds in a folder of plugins: name to the place it really is at."""
    from fiftyone.plugins import list_plugins

    fo = fiftyone()
    before, fo.config.plugins_dir = fo.config.plugins_dir, str(folder)
    try:
        return {each.name: Path(each.directory).resolve() for each in list_plugins(builtin=False)}
    finally:
        fo.config.plugins_dir = before


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The user's folder of plugins."""
    folder = tmp_path / "own plugins"
    plugin(folder / "deep/mine", "@me/mine")
    monkeypatch.setattr(fiftyone().config, "plugins_dir", str(folder))
    return folder


def tree(folder: Path) -> list[str]:
    return sorted(str(path) for path in folder.rglob("*"))


def test_the_panel_and_the_users_own_plugins_are_found(own: Path) -> None:
    before = tree(own)
    with app.plugins() as folder:
        found = seen(folder)
        assert set(found) == {"@dataaudit/review", "@me/mine"}
        assert (found["@dataaudit/review"] / "panel.js").is_file()
        assert found["@me/mine"] == (own / "deep/mine").resolve()
    assert not folder.exists()
    assert tree(own) == before


def test_an_installed_plugin_of_the_same_name_stays_and_is_said(
    own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plugin(own / "review", "@dataaudit/review")
    before = tree(own)
    with app.plugins() as folder:
        found = seen(folder)
        assert set(found) == {"@dataaudit/review", "@me/mine"}
        assert found["@dataaudit/review"] != (own / "review").resolve()
    assert f"The plugin @dataaudit/review in {own / 'review'} stays as it is" in capsys.readouterr().err
    assert tree(own) == before


def test_without_a_folder_of_plugins_there_is_the_panel_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fiftyone().config, "plugins_dir", str(tmp_path / "none"))
    with app.plugins() as folder:
        assert set(seen(folder)) == {"@dataaudit/review"}
