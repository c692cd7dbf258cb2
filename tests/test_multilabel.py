"""A multi-label dataset from its files through audit, fixes and undo to versions."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.datasets import load_digits

import dataaudit as da
from dataaudit import decisions, fix, formats, pipeline, report
from dataaudit.errors import InputError
from dataaudit.types import Report

N = 300
CODES = ("LBL003", "LBL004")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two digits beside each other; 15 classes are forgotten and 10 are added, and two images are copies."""
    root = tmp_path_factory.mktemp("photos")
    digits = load_digits()
    rng = np.random.default_rng(0)
    lines, truth = ["filepath,label"], ["filepath,label"]
    for number in range(N):
        chosen = rng.choice(len(digits.data), 2, replace=False)
        pixels = np.hstack([digits.images[at] * 15.9 for at in chosen]).astype(np.uint8)
        Image.fromarray(pixels).resize((64, 32), Image.Resampling.BICUBIC).save(root / f"{number:03d}.png")
        names = sorted({f"d{digits.target[at]}" for at in chosen})
        truth.append(f"{number:03d}.png,{';'.join(names)}")
        if number % 20 == 3:
            names = names[1:]
        elif number % 30 == 4:
            names = sorted({*names, f"d{rng.integers(10)}"})
        lines.append(f"{number:03d}.png,{';'.join(names)}")
    for name, source in (("copy.png", "000.png"), ("other.png", "001.png")):
        (root / name).write_bytes((root / source).read_bytes())
    lines += [f"copy.png,{lines[1].split(',')[1]}", f"other.png,{lines[2].split(';')[-1]}"]
    (root / "labels.csv").write_text("\n".join(lines) + "\n")
    (root / "truth.txt").write_text("\n".join(truth) + "\n")
    return root


@pytest.fixture(scope="module")
def audited(photos: Path) -> Report:
    return da.audit(photos / "labels.csv", progress=False)


def test_the_sets_are_found_by_themselves_and_every_check_runs_or_says_why_not(audited: Report) -> None:
    assert audited.tables.task == "multilabel"
    assert audited.tables.source.options["separator"] == ";"
    assert audited.skipped["LBL001"] == "images have several labels here, which LBL003 and LBL004 look at"
    assert {"DUP001", "DUP002", "IMG001", "LBL002", "LBL003", "LBL004"} <= set(audited.outcomes)


def test_missing_labels_are_found_where_they_were_planted(photos: Path, audited: Report) -> None:
    truth = dict(line.split(",") for line in (photos / "truth.txt").read_text().splitlines())
    found = audited.findings[audited.findings["code"] == "LBL003"]
    rows = [row for row in found.itertuples() if row.sample_id in truth]
    right = [row.suggested in truth[row.sample_id].split(";") for row in rows]
    assert len(right) >= 5
    assert np.mean(right) > 0.5
    assert found["given"].isna().all()


def test_copies_are_told_by_their_sets(audited: Report) -> None:
    names = audited.tables.labels.groupby("sample_id")["name"].agg(sorted)
    [merged] = [item.fix for item in audited.items if item.code == "DUP001" and item.sample_id == "copy.png"]
    assert (merged.op, merged.new, merged.old) == ("merge", "000.png", ", ".join(names["000.png"]))
    [changed] = [item.fix for item in audited.items if item.code == "LBL002"]
    assert (changed.op, changed.sample_id, changed.new) == ("add", "other.png", names["001.png"][0])


def test_the_report_says_what_is_missing_and_what_is_too_much(audited: Report) -> None:
    summary = report.summarize(audited)
    by_code = {code: {row["change"] for row in summary["findings"] if row["code"] == code} for code in CODES}
    assert by_code == {"LBL003": {"missing"}, "LBL004": {"extra"}}
    row = next(row for row in summary["findings"] if row["code"] == "LBL003")
    assert (row["label"], row["suggests"]) == (None, "class")
    html = report.to_html(audited)
    assert "<span>missing</span>" in html


def test_labels_are_fixed_in_their_cells_and_taken_back(photos: Path, audited: Report) -> None:
    file = photos / "labels.csv"
    before = file.read_bytes()
    plan = fix.plan(audited, min_probability=0.5, codes=["LBL003", "LBL004", "LBL002", "DUP001"])
    assert {"add", "merge"} <= {item.fix.op for item in plan.items}
    shown = plan.diff()
    assert any(line.startswith("+d") for line in shown.splitlines())
    fix.apply(plan, reviewer="someone")
    old, new = before.decode().splitlines(), file.read_text().splitlines()
    touched = {item.fix.sample_id for item in plan.items}
    assert {line for line in old if line.split(",")[0] not in touched} <= set(new)
    again = da.audit(file, progress=False, select=["LBL003", "LBL004"])
    assert len(again.items) < len([item for item in audited.items if item.code in ("LBL003", "LBL004")])
    assert [line["op"] for line in fix.history(plan.source)] == [item.fix.op for item in plan.items]
    fix.undo(plan.source)
    assert file.read_bytes() == before


def test_a_person_decides_on_a_missing_label(photos: Path, audited: Report, tmp_path: Path) -> None:
    found = [item for item in audited.items if item.code == "LBL003"]
    decisions.write_template(audited, tmp_path / "template.csv")
    assert found[0].key in (tmp_path / "template.csv").read_text(encoding="utf-8-sig")
    have = set(audited.tables.labels.loc[lambda t: t["sample_id"] == found[0].sample_id, "name"].dropna())
    another = next(name for name in audited.tables.classes if name not in {*have, found[0].suggested})

    def answers(text: str) -> Path:
        (tmp_path / "answers.csv").write_text(f"finding,verdict,label\n{text}\n")
        return tmp_path / "answers.csv"

    [decision] = decisions.read(answers(f"{found[0].key},accept,"), audited)
    assert decision.fix == found[0].fix
    [decision] = decisions.read(answers(f"{found[0].key},other,{another}"), audited)
    assert (decision.fix.op, decision.fix.new) == ("add", another)
    assert decision.fix.label_id == f"{found[0].sample_id}:{another}"
    plan = fix.plan(audited, decisions=[decision])
    assert formats.patch(plan.source, plan.fixes)
    if have:
        with pytest.raises(InputError, match="already"):
            decisions.read(answers(f"{found[0].key},other,{min(have)}"), audited)


def test_probabilities_of_ones_own_need_not_sum_to_one(audited: Report) -> None:
    tables = audited.tables
    values = np.full((len(tables.images), len(tables.classes)), 0.3)
    found = da.audit(tables, select=["LBL003", "LBL004"], pred_probs=values, progress=False)
    assert set(found.outcomes) == {"LBL003", "LBL004"}
    assert found.params["given"] == ["multilabel_probs"]
    with pytest.raises(InputError, match=r"holds -0\.3\d* for '000\.png' and 'd0'; expected"):
        da.audit(tables, select=["LBL003"], pred_probs=-values, progress=False)
    with pytest.raises(InputError, match="one row for each sample"):
        da.audit(tables, select=["LBL003"], pred_probs=values[1:], progress=False)


def test_the_digest_knows_every_label(audited: Report) -> None:
    labels = audited.tables.labels
    several = labels["sample_id"].duplicated()
    fewer = pipeline.replace(audited.tables, labels=labels[~several])
    assert pipeline.digest_of(fewer) != pipeline.digest_of(audited.tables)


def test_versions_are_compared_label_by_label(photos: Path, audited: Report, tmp_path: Path) -> None:
    from dataaudit import version

    root = tmp_path / "set"
    (root / "images").mkdir(parents=True)
    lines = (photos / "labels.csv").read_text().splitlines()[:201]
    for line in lines[1:]:
        name = line.split(",")[0]
        (root / "images" / name).write_bytes((photos / name).read_bytes())
    file = root / "labels.csv"
    file.write_text("\n".join([lines[0], *(f"images/{line}" for line in lines[1:])]) + "\n")
    git = ["git", "-c", "user.name=someone", "-c", "user.email=someone@example.com"]
    subprocess.run([*git, "init", "-q", str(root)], check=True)
    for key, value in (("user.name", "someone"), ("user.email", "someone@example.com")):
        subprocess.run(["git", "-C", str(root), "config", key, value], check=True)
    version.commit(file, message="first")
    text = file.read_text().splitlines()
    first, second = text[1].split(","), text[2].split(",")
    file.write_text("\n".join([text[0], f"{first[0]},{first[1]};dX", f"{second[0]},dX", *text[3:]]) + "\n")
    version.commit(file, message="second")
    found = version.diff(file, "v1", "v2")
    assert found.counts == {"relabeled": 2}
    assert f"{first[0]}  +dX" in found.to_text()
    moves = dict.fromkeys(second[1].split(";"))
    assert f"{second[0]}  +dX, {', '.join(f'-{name}' for name in moves)}" in found.to_text()

    def embed(tables: object) -> pd.DataFrame:
        digits = [np.asarray(Image.open(path)).ravel() for path in tables.images["filepath"]]
        return pd.DataFrame(np.stack(digits).astype(np.float32), index=tables.images.index)

    compared = version.compare(file, ["v1", "v2"], embed=embed)
    assert compared.table["n_test"].iloc[0] > 0
