"""The whole loop: audit, fix, commit, diff, compare, check out, undo; for a folder and for a manifest."""

from __future__ import annotations

from pathlib import Path

import pytest
from pictures import write_digits

import dataaudit as da

_WRONG = range(0, 300, 20)


def tree(folder: Path) -> dict[str, bytes]:
    """The dataset's files; what git, DVC and dataaudit keep beside it begins with a dot or ends in .dvc."""
    names = {path: path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    return {
        name: path.read_bytes() for path, name in names.items() if name[0] != "." and path.suffix != ".dvc"
    }


def mislabeled(number: int, name: str) -> str:
    return str((int(name) + 3) % 10) if number in _WRONG else name


@pytest.fixture
def folder(tmp_path: Path) -> tuple[Path, Path]:
    """300 digits, 15 in the folder of a wrong class; what is audited, and where its files are."""
    root = tmp_path / "digits"
    files, _ = write_digits(root, 300)
    for number, file in enumerate(files):
        name, base = file.split("/")
        (root / file).rename(root / mislabeled(number, name) / base)
    return root, root


@pytest.fixture
def manifest(tmp_path: Path) -> tuple[Path, Path]:
    """The same in a CSV with quotes, a comment column, Windows line ends and a byte order mark."""
    root = tmp_path / "digits"
    files, _ = write_digits(root / "images", 300)
    lines = [
        f'"images/{file}",digit {mislabeled(number, file.split("/")[0])},"a, b"\r\n'
        for number, file in enumerate(files)
    ]
    path = root / "labels.csv"
    path.write_bytes(b"\xef\xbb\xbf" + "".join(["filepath,label,note\r\n", *lines]).encode())
    return path, root


@pytest.mark.parametrize("kind", ["folder", "manifest"])
def test_from_wrong_labels_to_a_corrected_version_and_back(kind: str, request: pytest.FixtureRequest) -> None:
    path, root = request.getfixturevalue(kind)
    as_it_came = tree(root)
    report = da.audit(path, select=["LBL001"], progress=False)
    first = da.commit(path, message="as it came")
    plan = da.plan(report, min_probability=0.5)
    applied = da.apply(plan, reviewer="ada")
    fixed = tree(root)
    restored = [fix for fix in applied.fixes if int(Path(fix.sample_id).stem) in _WRONG]
    assert len(restored) >= 12
    assert len(applied.fixes) - len(restored) <= 5
    second = da.commit(path, message=f"relabel {len(applied.fixes)}")
    assert [first.name, second.name] == ["v1", "v2"]
    assert [each.message for each in da.versions(path)] == ["as it came", f"relabel {len(applied.fixes)}"]

    diff = da.diff(path, "v1", "v2")
    assert f"{len(applied.fixes)} relabeled" in diff.to_text()
    again = da.audit(path, select=["LBL001"], progress=False)
    assert len(again.items) < len(report.items) / 2

    compared = da.compare(path, ["v1", "v2"], progress=False)
    assert list(compared.table.index) == ["v1", "v2"]
    assert compared.table["accuracy"].min() > 0.7  # 58 held-out images don't tell the two apart

    da.checkout(path, "v1")
    assert tree(root) == as_it_came
    da.checkout(path, "v2")
    assert tree(root) == fixed
    da.undo(path)
    assert tree(root) == as_it_came


def test_a_version_is_audited_from_python_as_it_was(folder: tuple[Path, Path]) -> None:
    path, root = folder
    before = da.audit(path, select=["LBL001"], progress=False)
    da.commit(path, message="as it came")
    da.apply(da.plan(before, min_probability=0.5))
    fixed = tree(root)
    from dataaudit import loading

    old = da.audit(loading.read(path, rev="v1"), select=["LBL001"], progress=False)
    assert [item.key for item in old.items] == [item.key for item in before.items]
    assert old.n_decoded == 0
    assert tree(root) == fixed
