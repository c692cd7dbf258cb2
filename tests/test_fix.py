from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dataaudit import fix, formats, journal, state
from dataaudit.errors import ConflictError, InputError
from dataaudit.types import Decision, Finding, Fix, Report, Tables

BENCH = Path(__file__).parent.parent / "recipes/bench/fix_kill.py"


def tree(root: Path) -> Path:
    for name in ("cat/1.jpg", "cat/2.jpg", "cat/3.jpg", "dog/4.jpg", "dog/5.jpg"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    return root


def manifest(root: Path) -> Path:
    tree(root)
    lines = "".join(f"{name},{name[:3]},ok\n" for name in sorted(contents(root)))
    (root / "labels.csv").write_text(f"filepath,label,note\n{lines}")
    return root / "labels.csv"


def parquet(root: Path) -> Path:
    import pandas as pd

    tree(root)
    names = sorted(contents(root))
    frame = pd.DataFrame({"filepath": names, "label": [name[:3] for name in names]})
    frame.to_parquet(root / "labels.parquet")
    return root / "labels.parquet"


def contents(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and state.FOLDER not in path.parts
    }


def finding(
    tables: Tables,
    key: str,
    sample_id: str,
    op: str,
    new: str | None,
    probability: float | None = 0.9,
    **more: Any,
) -> Finding:
    row = tables.labels.loc[sample_id]
    proposed = Fix(
        op=op, sample_id=sample_id, label_id=sample_id, locator=row["locator"], old=row["name"], new=new
    )
    fields = {"code": "LBL001" if op == "relabel" else "DUP001", "fix": proposed, "message": "", **more}
    return Finding(
        key=key, item_id=sample_id, sample_id=sample_id, score=0.25, probability=probability, **fields
    )


def report(tables: Tables, *items: Finding) -> Report:
    return Report(
        digest="", params={}, outcomes={}, items=items, skipped={"SPL001": ""}, timings={}, tables=tables
    )


def chosen(plan: fix.Plan) -> list[tuple[str, str, str | None]]:
    return [(item.fix.sample_id, item.fix.op, item.fix.new) for item in plan.items]


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    return formats.read(tree(tmp_path / "photos"))


def test_the_probable_fixes_are_taken_in_the_order_of_their_places(tables: Tables) -> None:
    audit = report(
        tables,
        finding(tables, "a", "dog/4.jpg", "relabel", "cat", 0.95),
        finding(tables, "b", "cat/2.jpg", "relabel", "dog", 0.9),
        finding(tables, "c", "cat/1.jpg", "relabel", "dog", 0.89),
        finding(tables, "d", "cat/3.jpg", "relabel", "dog", None),
    )
    assert chosen(fix.plan(audit, min_probability=0.9)) == [
        ("cat/2.jpg", "relabel", "dog"),
        ("dog/4.jpg", "relabel", "cat"),
    ]


def test_what_a_person_decided_otherwise_stays(tables: Tables) -> None:
    audit = report(
        tables,
        finding(tables, "a", "cat/1.jpg", "relabel", "dog", decision="keep"),
        finding(tables, "b", "cat/1.jpg", "relabel", "dog", code="LBL002"),
        finding(tables, "c", "cat/2.jpg", "relabel", "dog", decision="skip"),
        finding(tables, "d", "cat/3.jpg", "relabel", "dog", decision="other"),
        finding(tables, "e", "dog/4.jpg", "relabel", "cat"),
        finding(tables, "f", "dog/5.jpg", "relabel", "cat", decision="accept"),
    )
    plan = fix.plan(audit, min_probability=0.5, decisions=[Decision(finding="e", verdict="keep")])
    assert chosen(plan) == [("dog/5.jpg", "relabel", "cat")]


def test_codes_narrow_the_choice(tables: Tables) -> None:
    audit = report(
        tables,
        finding(tables, "a", "cat/1.jpg", "relabel", "dog"),
        finding(tables, "b", "cat/2.jpg", "drop", None),
    )
    assert chosen(fix.plan(audit, min_probability=0.5, codes=["DUP"])) == [("cat/2.jpg", "drop", None)]
    assert chosen(fix.plan(audit, min_probability=0.5, codes=["SPL001"])) == []
    with pytest.raises(InputError, match="begins with 'LBX'"):
        fix.plan(audit, min_probability=0.5, codes=["LBX"])


def test_accepted_decisions_are_taken_and_others_with_their_label(tables: Tables) -> None:
    audit = report(
        tables,
        finding(tables, "a", "cat/1.jpg", "relabel", "dog", 0.1),
        finding(tables, "b", "cat/2.jpg", "relabel", "dog"),
        finding(tables, "c", "cat/3.jpg", "relabel", "dog"),
    )
    cow = finding(tables, "", "cat/2.jpg", "relabel", "cow").fix
    decisions = [
        Decision(finding="a", verdict="accept", reviewer="ann"),
        Decision(finding="b", verdict="other", fix=cow),
        Decision(finding="c", verdict="keep"),
        Decision(finding="from an older audit", verdict="keep"),
    ]
    plan = fix.plan(audit, decisions=decisions)
    assert chosen(plan) == [("cat/1.jpg", "relabel", "dog"), ("cat/2.jpg", "relabel", "cow")]
    assert [(item.decided, item.reviewer) for item in plan.items] == [(True, "ann"), (True, None)]


def test_a_sample_gets_one_fix(tables: Tables) -> None:
    audit = report(
        tables,
        finding(tables, "a", "cat/1.jpg", "relabel", "dog", 0.8),
        finding(tables, "b", "cat/1.jpg", "relabel", "cow", 0.9),
        finding(tables, "c", "cat/2.jpg", "relabel", "dog", 0.99),
        finding(tables, "d", "cat/2.jpg", "merge", "cat/3.jpg", 0.9),
        finding(tables, "e", "dog/4.jpg", "relabel", "cat", 0.99),
        finding(tables, "f", "dog/4.jpg", "relabel", "cow", 0.6),
    )
    plan = fix.plan(audit, min_probability=0.5, decisions=[Decision(finding="f", verdict="accept")])
    assert chosen(plan) == [
        ("cat/1.jpg", "relabel", "cow"),
        ("cat/2.jpg", "merge", "cat/3.jpg"),
        ("dog/4.jpg", "relabel", "cow"),
    ]
    assert plan.left_out == {
        "a": "LBL001 fixes cat/1.jpg already",
        "c": "DUP001 fixes cat/2.jpg already",
        "e": "LBL001 fixes dog/4.jpg already",
    }


def test_decisions_that_contradict_each_other_are_an_error(tables: Tables) -> None:
    audit = report(
        tables,
        finding(tables, "a", "cat/1.jpg", "relabel", "dog"),
        finding(tables, "b", "cat/1.jpg", "relabel", "cow"),
    )
    both = [Decision(finding=key, verdict="accept") for key in "ab"]
    with pytest.raises(InputError, match=r"cat/1\.jpg becomes 'dog' by a and 'cow' by b"):
        fix.plan(audit, decisions=both)


def test_a_group_of_duplicates_never_goes_as_a_whole(tables: Tables) -> None:
    audit = report(
        tables,
        finding(tables, "a", "cat/1.jpg", "merge", "cat/2.jpg", 0.9),
        finding(tables, "b", "cat/2.jpg", "merge", "cat/3.jpg", 0.8),
        finding(tables, "c", "cat/3.jpg", "merge", "cat/1.jpg", 0.7),
        finding(tables, "d", "dog/4.jpg", "merge", "dog/5.jpg"),
        finding(tables, "e", "dog/5.jpg", "drop", None),
    )
    plan = fix.plan(audit, min_probability=0.5)
    assert chosen(plan) == [("cat/1.jpg", "merge", "cat/2.jpg"), ("dog/5.jpg", "drop", None)]
    assert set(plan.left_out) == {"b", "c", "d"}


def test_a_plan_needs_something_to_choose_by_and_a_source(tables: Tables) -> None:
    with pytest.raises(InputError, match="Nothing says which fixes"):
        fix.plan(report(tables))
    with pytest.raises(InputError, match=r"min_probability is 95; expected a number from 0 to 1"):
        fix.plan(report(tables), min_probability=95)
    by_hand = Tables(images=tables.images, labels=tables.labels, classes=tables.classes)
    with pytest.raises(InputError, match="no files to fix"):
        fix.plan(report(by_hand), min_probability=0.5)


def test_the_diff_of_a_tree_shows_the_moves(tables: Tables) -> None:
    audit = report(
        tables,
        finding(tables, "a", "cat/1.jpg", "relabel", "dog"),
        finding(tables, "b", "cat/2.jpg", "merge", "cat/3.jpg"),
    )
    assert fix.plan(audit, min_probability=0.5).diff() == (
        "--- cat/1.jpg\n"
        "+++ dog/1.jpg\n"
        "--- cat/2.jpg\n"
        "+++ .dataaudit/photos/dropped/cat/2.jpg  (the same image as cat/3.jpg)\n"
    )


def test_the_diff_of_a_manifest_shows_the_cells(tmp_path: Path) -> None:
    tables = formats.read(manifest(tmp_path / "photos"))
    audit = report(
        tables,
        finding(tables, "a", "cat/1.jpg", "relabel", "dog"),
        finding(tables, "b", "cat/2.jpg", "drop", None),
    )
    assert fix.plan(audit, min_probability=0.5).diff() == (
        "--- labels.csv\n+++ labels.csv\n@@ labels.csv:2:label @@ cat/1.jpg\n-cat\n+dog\n"
        "--- labels.csv\n+++ labels.csv\n@@ labels.csv:3:label @@ cat/2.jpg\n-cat\n"
    )


def test_an_empty_plan_writes_nothing(tmp_path: Path, tables: Tables) -> None:
    applied = fix.apply(fix.plan(report(tables), min_probability=0.5))
    assert (applied.id, applied.fixes) == (None, ())
    assert not (tmp_path / state.FOLDER).exists()


def test_applied_fixes_stand_in_the_ledger(tables: Tables) -> None:
    audit = report(
        tables,
        finding(tables, "a", "cat/1.jpg", "relabel", "dog", 0.95),
        finding(tables, "b", "cat/2.jpg", "drop", None),
    )
    decisions = [Decision(finding="b", verdict="accept", reviewer="ann")]
    applied = fix.apply(fix.plan(audit, min_probability=0.9, decisions=decisions), reviewer="bob")
    lines = [json.loads(line) for line in applied.ledger.read_text().splitlines()]
    assert fix.history(applied.source) == lines
    at = lines[0].pop("at")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", at)
    lines[0].pop("undo")
    assert lines[0] == {
        "id": applied.id, "reviewer": "bob", "op": "relabel",
        "sample_id": "cat/1.jpg", "label_id": "cat/1.jpg",
        "locator": {"file": "cat/1.jpg", "item": None, "field": None}, "old": "cat", "new": "dog",
        "code": "LBL001", "finding": "a", "score": 0.25, "probability": 0.95,
    }  # fmt: skip
    assert (lines[1]["reviewer"], lines[1]["op"]) == ("ann", "drop")
    assert applied.ledger.with_name("dropped").joinpath("cat/2.jpg").read_bytes() == b"cat/2.jpg"


@pytest.mark.parametrize("make", [tree, manifest, parquet])
def test_undo_goes_back_one_application_at_a_time_to_the_same_bytes(tmp_path: Path, make: Any) -> None:
    root = tmp_path / "photos"
    path = make(root)
    states = [contents(root)]
    for key, sample_id, op, new in (
        ("a", "cat/1.jpg", "relabel", "cow"),
        ("b", "cat/2.jpg", "drop", None),
        ("c", "dog/5.jpg", "merge", "dog/4.jpg"),
    ):
        tables = formats.read(path)
        fix.apply(fix.plan(report(tables, finding(tables, key, sample_id, op, new)), min_probability=0.5))
        states.append(contents(root))
    assert len(formats.read(path).images) == 3
    one = fix.undo(path)
    assert (len(one.ids), one.fixes) == (1, 1)
    assert contents(root) == states[2]
    fix.undo(formats.read(path).source)
    assert contents(root) == states[1]
    fix.undo(path)
    assert contents(root) == states[0]
    with pytest.raises(InputError, match="nothing to take back"):
        fix.undo(path)
    assert [line["op"] for line in fix.history(formats.read(path).source)][3:] == ["undo"] * 3


@pytest.mark.parametrize("make", [tree, manifest, parquet])
def test_several_steps_are_taken_back_at_once_and_fixes_can_follow(tmp_path: Path, make: Any) -> None:
    root = tmp_path / "photos"
    path = make(root)
    before = contents(root)
    for _ in range(2):
        for sample_id in ("cat/1.jpg", "cat/2.jpg"):
            tables = formats.read(path)
            fix.apply(
                fix.plan(report(tables, finding(tables, "a", sample_id, "drop", None)), min_probability=0.5)
            )
        assert fix.undo(path, steps=2).fixes == 2
        assert contents(root) == before
    with pytest.raises(InputError, match="nothing to take back"):
        fix.undo(path, steps=3)


def test_a_folder_that_a_fix_made_goes_with_its_undo(tmp_path: Path, tables: Tables) -> None:
    fix.apply(
        fix.plan(report(tables, finding(tables, "a", "cat/1.jpg", "relabel", "cow")), min_probability=0.5)
    )
    assert (tmp_path / "photos/cow/1.jpg").exists()
    fix.undo(tmp_path / "photos")
    assert not (tmp_path / "photos/cow").exists()


def test_undo_refuses_what_was_changed_since(tmp_path: Path) -> None:
    path = manifest(tmp_path / "photos")
    tables = formats.read(path)
    fix.apply(
        fix.plan(report(tables, finding(tables, "a", "cat/1.jpg", "relabel", "dog")), min_probability=0.5)
    )
    path.write_text(path.read_text() + "cat/9.jpg,cat,new\n")
    changed = contents(path.parent)
    with pytest.raises(ConflictError, match=r"labels\.csv: The file has changed"):
        fix.undo(path)
    assert contents(path.parent) == changed


def test_a_name_that_is_taken_stops_the_whole_plan(tmp_path: Path, tables: Tables) -> None:
    (tmp_path / "photos/dog/1.jpg").write_bytes(b"another")
    before = contents(tmp_path / "photos")
    audit = report(
        tables,
        finding(tables, "a", "cat/1.jpg", "relabel", "dog"),
        finding(tables, "b", "cat/2.jpg", "relabel", "dog"),
    )
    with pytest.raises(
        ConflictError, match=r"dog/1\.jpg: The file already exists; .*cat/1\.jpg would be moved"
    ):
        fix.apply(fix.plan(audit, min_probability=0.5))
    assert contents(tmp_path / "photos") == before
    assert fix.history(tables.source) == []


def test_two_samples_of_one_name_trade_classes(tmp_path: Path) -> None:
    root = tree(tmp_path / "photos")
    (root / "dog/1.jpg").write_bytes(b"another")
    tables = formats.read(root)
    audit = report(
        tables,
        finding(tables, "a", "cat/1.jpg", "relabel", "dog"),
        finding(tables, "b", "dog/1.jpg", "relabel", "cat"),
    )
    before = contents(root)
    fix.apply(fix.plan(audit, min_probability=0.5))
    assert (root / "cat/1.jpg").read_bytes() == b"another"
    fix.undo(root)
    assert contents(root) == before


def test_a_manifest_that_says_something_else_stops_the_plan_with_its_line(tmp_path: Path) -> None:
    path = manifest(tmp_path / "photos")
    tables = formats.read(path)
    plan = fix.plan(report(tables, finding(tables, "a", "cat/2.jpg", "relabel", "dog")), min_probability=0.5)
    path.write_text(path.read_text().replace("cat/2.jpg,cat", "cat/2.jpg,cow"))
    for act in (fix.apply, fix.Plan.diff):
        with pytest.raises(ConflictError, match=r"labels\.csv:3: .* is 'cow'; expected 'cat'"):
            act(plan)


def test_a_damaged_ledger_is_named_with_its_line(tables: Tables) -> None:
    state.prepare(tables.source)
    state.ledger_file(tables.source).write_text(
        '{"id": "x", "op": "drop"}\nnonsense\n{"id": "y", "op": "drop"}\n'
    )
    with pytest.raises(InputError, match=r"fixes\.jsonl:2: The line of the ledger can't be read"):
        fix.history(tables.source)


def test_a_line_that_was_torn_is_no_part_of_the_ledger(tables: Tables) -> None:
    state.prepare(tables.source)
    state.ledger_file(tables.source).write_text('{"id": "x", "op": "drop"}\n{"id": "y", "o')
    assert [line["id"] for line in fix.history(tables.source)] == ["x"]


@pytest.mark.skipif(os.name != "posix", reason="kills")
@pytest.mark.parametrize("kind", [[], ["--tree"]])
def test_killed_at_random_moments_the_next_command_finds_the_old_or_the_new_state(
    tmp_path: Path, kind: list[str]
) -> None:
    command = [
        sys.executable,
        str(BENCH),
        "--kills",
        "10",
        "--rows",
        "300",
        "--fixes",
        "60",
        "--folder",
        str(tmp_path),
        *kind,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "10 of 10" in done.stdout


def test_the_journal_is_empty_after_a_fix(tables: Tables) -> None:
    applied = fix.apply(
        fix.plan(report(tables, finding(tables, "a", "cat/1.jpg", "relabel", "dog")), min_probability=0.5)
    )
    assert journal.recover(applied.ledger.parent) is False
