"""What the commands do, end to end, on real digits."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from databases import fiftyone
from pictures import write_digits

from dataaudit.cli import main

_WRONG = range(0, 60, 10)


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """150 digits, six under a wrong class and one there twice, audited once; to be copied."""
    folder = tmp_path_factory.mktemp("audited") / "home"
    photos = folder / "photos"
    write_digits(photos, 150)
    for number in _WRONG:
        file = next(photos.glob(f"*/{number:04d}.png"))
        file.rename(photos / str((int(file.parent.name) + 3) % 10) / file.name)
    file = next(photos.glob("*/0071.png"))
    shutil.copy(file, file.with_name("copy.png"))
    assert main(["audit", str(photos), "--no-fiftyone", "--quiet"]) == 1
    return folder


@pytest.fixture
def photos(audited: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the audited folder, with what the audit knows, as the working directory's ``photos``."""
    shutil.copytree(audited, tmp_path / "home")
    monkeypatch.chdir(tmp_path / "home")
    return tmp_path / "home/photos"


def audit(*more: str) -> int:
    return main(["audit", "photos", "--no-fiftyone", "--quiet", *more])


def tree(folder: Path) -> str:
    """Digest of the names and contents of all files."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    lines = [f"{path.relative_to(folder)} {hashlib.md5(path.read_bytes()).hexdigest()}" for path in files]
    return "\n".join(lines)


def reports(photos: Path) -> Path:
    return photos.parent / ".dataaudit/photos/reports"


def decide(photos: Path, verdicts: dict[str, str], to: str = "decisions.csv") -> Path:
    """Fill in findings.csv as a person does: code to the verdict on each of its findings."""
    with (reports(photos) / "findings.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row["verdict"] = verdicts.get(row["code"], "")
        row["reviewer"] = "ada" if row["verdict"] else ""
    path = photos.parent / to
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


# audit


def test_findings_are_exit_code_1_and_the_report_is_on_standard_output(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert audit() == 1
    out, err = capsys.readouterr()
    assert "LBL001" in out
    assert "Report: " in out
    assert "Audited 151 images in" in err
    assert "(0 decoded, 151 known)" in err
    assert "Over the gate: any>0: " in err
    assert {file.name for file in reports(photos).iterdir()} >= {
        "report.html", "report.json", "findings.csv", "findings.parquet",
    }  # fmt: skip


def test_exit_zero_says_the_same_and_exits_with_0(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert audit("--exit-zero") == 0
    assert "Over the gate: any>0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("rules", "code"),
    [(["LBL>50%"], 0), (["LBL>1%"], 1), (["DUP001>0"], 1), (["DUP001>1"], 0), (["DUP001>1", "LBL>=1"], 1),
     (["any>=1000"], 0)],
    ids=str,
)  # fmt: skip
def test_the_gate_decides_the_exit_code(photos: Path, rules: list[str], code: int) -> None:
    assert audit(*(part for rule in rules for part in ("--fail-on", rule))) == code


@pytest.mark.parametrize("rule", ["LBL", "LBL>", "LBX>1", "any>101%"])
def test_a_malformed_rule_stops_before_the_audit(
    tmp_path: Path, rule: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_digits(tmp_path / "photos", 3)
    assert main(["audit", str(tmp_path / "photos"), "--no-fiftyone", "--fail-on", rule]) == 2
    assert rule in capsys.readouterr().err
    assert not (tmp_path / ".dataaudit").exists()


def test_json_is_all_there_is_on_standard_output(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert audit("--format", "json") == 1
    found = json.loads(capsys.readouterr().out)
    assert found["counts"]["images"] == 151
    assert {finding["code"] for finding in found["findings"]} >= {"LBL001", "DUP001"}


def test_sarif_names_files_from_the_working_directory(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert audit("--format", "sarif") == 1
    run = json.loads(capsys.readouterr().out)["runs"][0]
    places = [each["physicalLocation"]["artifactLocation"]["uri"] for result in run["results"]
              for each in result["locations"]]  # fmt: skip
    assert places
    assert all((photos.parent / place).is_file() for place in places)


def test_junit_has_a_case_for_each_check(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert audit("--format", "junit") == 1
    root = ET.fromstring(capsys.readouterr().out)
    assert any("LBL001" in (case.get("name") or "") for case in root.iter("testcase"))


def test_github_annotates_files_from_the_working_directory(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert audit("--format", "github") == 1
    lines = capsys.readouterr().out.splitlines()
    assert all(line.startswith(("::error ", "::warning ", "::notice ")) for line in lines)
    assert any("file=photos/" in line for line in lines)


def test_select_and_ignore_choose_the_checks(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    audit("--format", "json", "--select", "lbl,DUP001", "--ignore", "LBL002")
    found = json.loads(capsys.readouterr().out)
    assert {finding["code"] for finding in found["findings"]} == {"LBL001", "DUP001"}
    assert audit("--select", "XYZ") == 2
    assert "No check's code begins with 'XYZ'" in capsys.readouterr().err


def test_reports_go_where_they_are_told_to(photos: Path, tmp_path: Path) -> None:
    before = (reports(photos) / "report.json").stat().st_mtime_ns
    audit("--output", str(tmp_path / "out/here"))
    assert (tmp_path / "out/here/report.html").is_file()
    assert (reports(photos) / "report.json").stat().st_mtime_ns == before


def test_the_settings_file_applies_and_the_command_line_goes_before_it(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos.parent / "pyproject.toml").write_text(
        '[tool.dataaudit]\nselect = ["DUP001"]\nfail-on = ["DUP001>5"]\n'
    )
    assert audit("--format", "json") == 0
    assert {each["code"] for each in json.loads(capsys.readouterr().out)["findings"]} == {"DUP001"}
    assert audit("--fail-on", "DUP001>0") == 1
    capsys.readouterr()
    assert audit("--format", "json", "--select", "LBL001") == 0
    assert {each["code"] for each in json.loads(capsys.readouterr().out)["findings"]} == {"LBL001"}
    (photos / "dataaudit.toml").write_text('select = ["LBL001"]\n')
    assert audit("--format", "json") == 1
    assert {each["code"] for each in json.loads(capsys.readouterr().out)["findings"]} == {"LBL001"}


def test_a_damaged_settings_file_is_named(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (photos / "dataaudit.toml").write_text("select = [")
    assert audit() == 2
    assert f"{photos}/dataaudit.toml: This is not valid TOML" in capsys.readouterr().err


# The user's own probabilities


def probabilities(photos: Path) -> pd.DataFrame:
    """A model that is sure of the true class of each image."""
    from sklearn.datasets import load_digits

    truth = load_digits().target
    ids = sorted(path.relative_to(photos).as_posix() for path in photos.rglob("*.png"))
    of_file = [truth[71 if "copy" in name else int(Path(name).stem)] for name in ids]
    values = np.full((len(ids), 10), 0.01)
    values[np.arange(len(ids)), of_file] = 0.91
    return pd.DataFrame(values, index=pd.Index(ids), columns=[str(number) for number in range(10)])


@pytest.mark.parametrize("ending", ["csv", "parquet", "first column.parquet", "npy"])
def test_probabilities_of_a_model_of_ones_own_are_read_from_a_file(
    photos: Path, ending: str, capsys: pytest.CaptureFixture[str]
) -> None:
    table, file = probabilities(photos), photos.parent / f"probabilities.{ending}"
    if ending == "csv":
        table.to_csv(file)
    elif ending == "npy":
        np.save(file, table.to_numpy())
    elif ending == "parquet":
        table.to_parquet(file)
    else:
        table.reset_index(names="id").to_parquet(file, index=False)
    audit("--select", "LBL001", "--format", "json", "--pred-probs", str(file))
    found = {each["sample_id"] for each in json.loads(capsys.readouterr().out)["findings"]}
    assert found == {
        path.relative_to(photos).as_posix() for n in _WRONG for path in photos.rglob(f"{n:04d}.png")
    }


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [("a.csv", None, "no such file"), ("a.txt", b"1", ".txt is not one of"), ("a.npy", b"", "can't be read"),
     ("a.npy", b"junk", "can't be read"), ("a.parquet", b"junk", "can't be read"),
     ("a.csv", b"", "can't be read"),
     ("a.csv", b"id,0,1\n0/0000.png,0.5,0.5\n", "columns of pred_probs")],
)  # fmt: skip
def test_a_file_of_probabilities_that_does_not_fit_says_why(
    photos: Path, name: str, content: bytes | None, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        Path(name).write_bytes(content)
    assert audit("--pred-probs", name) == 2
    assert message in capsys.readouterr().err


# fix


def test_a_dry_run_prints_a_diff_and_changes_nothing(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tree(photos.parent / "photos"), tree(photos.parent / ".dataaudit/photos")
    assert main(["fix", "photos", "--min-probability", "0.5", "--dry-run", "--quiet"]) == 0
    out, err = capsys.readouterr()
    assert "0000.png" in out
    assert "fixes planned; nothing was changed." in err
    assert (tree(photos), tree(photos.parent / ".dataaudit/photos")) == before


def test_fixes_are_applied_and_taken_back_to_the_same_bytes(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tree(photos)
    assert main(["fix", "photos", "--min-probability", "0.5", "--quiet", "--reviewer", "ada"]) == 0
    assert "Take them back with: dataaudit fix photos --undo" in capsys.readouterr().err
    assert (photos / "0/0000.png").exists()
    assert tree(photos) != before
    ledger = (photos.parent / ".dataaudit/photos/fixes.jsonl").read_text().splitlines()
    assert all(json.loads(line)["reviewer"] == "ada" for line in ledger)
    assert main(["fix", "photos", "--undo"]) == 0
    assert tree(photos) == before
    assert main(["fix", "photos", "--undo"]) == 2


def test_fix_needs_to_be_told_which_fixes(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fix", "photos"]) == 2
    assert "Give --min-probability, --decided, --decisions or --undo." in capsys.readouterr().err
    assert main(["fix", "photos", "--min-probability", "7", "--quiet"]) == 2
    assert "min_probability is 7.0" in capsys.readouterr().err


def test_what_a_person_keeps_stays_and_no_longer_counts_against_the_gate(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert audit("--select", "DUP001") == 1
    decisions = decide(photos, {"DUP001": "keep"})
    before = tree(photos)
    assert main(["fix", "photos", "--decisions", str(decisions), "--quiet"]) == 0
    assert "nothing was changed" in capsys.readouterr().err
    assert tree(photos) == before
    assert audit("--select", "DUP001", "--format", "json") == 0
    assert [each["decision"] for each in json.loads(capsys.readouterr().out)["findings"]] == ["keep"]


def test_accepted_findings_are_fixed_and_are_gone_from_the_next_audit(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tree(photos)
    decisions = decide(photos, {"LBL001": "accept", "DUP001": "accept"})
    assert main(["fix", "photos", "--decisions", str(decisions), "--quiet"]) == 0
    ledger = (photos.parent / ".dataaudit/photos/fixes.jsonl").read_text().splitlines()
    assert {json.loads(line)["reviewer"] for line in ledger} == {"ada"}
    capsys.readouterr()
    assert audit("--select", "DUP001,LBL001", "--fail-on", "DUP001>0", "--fail-on", "LBL>3%") == 0
    assert main(["fix", "photos", "--undo"]) == 0
    assert tree(photos) == before


def test_decisions_with_a_slip_name_file_and_line_and_change_nothing(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tree(photos)
    decisions = decide(photos, {"LBL001": "acept"})
    assert main(["fix", "photos", "--decisions", str(decisions), "--quiet"]) == 2
    err = capsys.readouterr().err
    assert "decisions.csv:" in err
    assert "Did you mean 'accept'?" in err
    assert tree(photos) == before


def test_only_findings_of_the_selected_checks_are_fixed(photos: Path) -> None:
    assert main(["fix", "photos", "--min-probability", "0.5", "--select", "DUP001", "--quiet"]) == 0
    assert len(list(photos.rglob("*.png"))) == 150
    assert not (photos / "0/0000.png").exists()


# version


def test_versions_from_the_command_line(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = tree(photos)
    assert main(["version", "list", "photos"]) == 2
    assert "dataaudit version commit" in capsys.readouterr().err
    assert main(["version", "commit", "photos", "-m", "as it came"]) == 0
    assert capsys.readouterr().out.startswith("v1 ")
    assert main(["fix", "photos", "--min-probability", "0.5", "--quiet"]) == 0
    assert main(["version", "commit", "photos", "-m", "fixed", "--tag", "clean"]) == 0
    capsys.readouterr()
    assert main(["version", "list", "photos"]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert any("as it came" in line for line in listed)
    assert any(line.startswith("clean") for line in listed)
    assert main(["version", "diff", "photos", "v1", "clean", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)
    assert main(["version", "diff", "photos", "v1"]) == 0
    assert "Relabeled" in capsys.readouterr().out
    assert main(["audit", "photos", "--rev", "v1", "--no-fiftyone", "--quiet", "--select", "DUP001"]) == 1
    capsys.readouterr()
    assert main(["version", "checkout", "photos", "v1"]) == 0
    assert tree(photos) == before
    assert main(["version", "checkout", "photos", "v9"]) == 2
    shutil.rmtree(photos)
    assert main(["version", "checkout", "photos", "clean", "--force"]) == 0
    assert (photos / "0/0000.png").exists()


def test_compare_prints_a_table_and_writes_a_plot(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["version", "commit", "photos", "-m", "as it came"])
    main(["fix", "photos", "--min-probability", "0.5", "--quiet"])
    main(["version", "commit", "photos", "-m", "fixed"])
    capsys.readouterr()
    assert main(["version", "compare", "photos", "v1", "v2", "--plot", "made/here.png"]) == 0
    out, err = capsys.readouterr()
    assert "Baseline accuracy on" in out
    assert "Plot: made/here.png" in err
    assert (photos.parent / "made/here.png").read_bytes().startswith(b"\x89PNG")


def test_a_remote_gives_a_clone_its_images(photos: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    import subprocess
    import sys

    assert main(["version", "commit", "photos", "-m", "as it came"]) == 0
    store = str(tmp_path / "store")
    subprocess.run([sys.executable, "-m", "dvc", "remote", "add", "-q", "-d", "store", store], check=True)
    subprocess.run(["git", "add", ".dvc/config"], check=True)
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run(["git", *identity, "commit", "-q", "-m", "remote"], check=True)
    assert main(["version", "push", "photos"]) == 0
    subprocess.run(["git", "clone", "-q", str(photos.parent), str(tmp_path / "clone")], check=True)
    monkeypatch.chdir(tmp_path / "clone")
    capsys.readouterr()
    assert main(["version", "pull", "photos"]) == 0
    assert "Fetched " in capsys.readouterr().err
    assert tree(tmp_path / "clone/photos") == tree(photos)


# FiftyOne


def test_an_audit_writes_into_fiftyone_once_and_clean_takes_it_away(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fo = fiftyone()
    arguments = ["audit", "photos", "--quiet", "--exit-zero", "--select", "DUP001,LBL001"]
    assert main(arguments) == 0
    err = capsys.readouterr().err
    assert "saved views: DUP001 exact_duplicate, LBL001 label_error" in err
    name = err.split("fiftyone app launch ")[1].splitlines()[0]
    assert main(arguments) == 0
    assert f"nothing changed since dataset {name} was written" in capsys.readouterr().err
    assert main(["audit", "photos", "--clean"]) == 0
    assert fo.load_dataset(name).list_saved_views() == []
    assert main(arguments) == 0
    assert "saved views: DUP001" in capsys.readouterr().err
    fo.delete_dataset(name)
    assert main(["audit", "photos", "--clean"]) == 0
    assert "nothing to take away" in capsys.readouterr().err


def test_a_fiftyone_dataset_is_audited_fixed_and_undone_by_its_name(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fo = fiftyone()
    kind = fo.types.ImageClassificationDirectoryTree
    dataset = fo.Dataset.from_dir(
        str(photos), dataset_type=kind, name=photos.parent.parent.name, progress=False
    )
    before = dataset.values("ground_truth.label")
    name = ["--quiet", dataset.name]
    assert main(["audit", *name, "--select", "LBL001"]) == 1
    assert f"dataset {dataset.name}, saved views: LBL001 label_error" in capsys.readouterr().err
    assert main(["fix", *name, "--min-probability", "0.5", "--select", "LBL001"]) == 0
    dataset.reload()
    assert dataset.values("ground_truth.label") != before
    assert main(["fix", *name, "--undo"]) == 0
    dataset.reload()
    assert dataset.values("ground_truth.label") == before


def test_another_database_is_written_to_although_nothing_changed(
    photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fiftyone()
    arguments = ["audit", "photos", "--quiet", "--select", "DUP001"]
    main(arguments)
    monkeypatch.setenv("FIFTYONE_DATABASE_NAME", "another")
    capsys.readouterr()
    main(arguments)
    assert "saved views: DUP001 exact_duplicate" in capsys.readouterr().err
