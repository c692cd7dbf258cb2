"""The architecture as a file, and in Netron where it is installed."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from urllib.request import urlopen

import pytest
from torch import nn

from dataaudit.cli import main
from dataaudit.errors import MissingDependencyError
from dataaudit.modelcheck import viewing

MODULE = """
from torch import nn
def make():
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    pytest.importorskip("onnxscript")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "viewednets", raising=False)
    (tmp_path / "viewednets.py").write_text(MODULE)
    return tmp_path


def test_a_module_is_written_as_onnx_and_its_file_is_named(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["model", "view", "viewednets:make", "--input-shape", "3,2,2", "--no-open"]) == 0
    file = Path(capsys.readouterr().out.strip())
    assert file.suffix == ".onnx"
    assert file.is_file()
    assert viewing.file_of(file, here) == file


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "netron", None)
    with pytest.raises(MissingDependencyError, match=r"dataaudit\[view\]"):
        viewing.view(tmp_path / "m.onnx")
    assert main(["model", "view", "nothing.onnx"]) == 2


@pytest.mark.skipif(importlib.util.find_spec("netron") is None, reason="Netron isn't installed")
def test_netron_serves_the_file(tmp_path: Path) -> None:
    import netron

    file = viewing.file_of(nn.Sequential(nn.Linear(3, 2)), tmp_path)
    address = viewing.view(file, browse=False)
    try:
        with urlopen(address, timeout=10) as page:
            assert "Netron" in page.read().decode()
    finally:
        netron.stop()
