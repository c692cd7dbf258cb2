"""What was decided isn't asked again after another audit, unless image, label or suggestion changed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from dataaudit import audit, decisions
from dataaudit.cli import main
from dataaudit.types import Decision, Finding, Report


def picture(path: Path, shade: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (16, 16), (shade, 0, 0)).save(path)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two cats and two dogs; one of the cats is there twice."""
    root = tmp_path / "photos"
    for number, name in enumerate(("cat/1.png", "cat/3.png", "dog/4.png", "dog/5.png")):
        picture(root / name, 60 * number + 5)
    shutil.copy(root / "cat/1.png", root / "cat/2.png")
    return root


def audited(photos: Path, **settings: int) -> Report:
    return audit(photos, select=["DUP001"], progress=False, **settings)  # type: ignore[arg-type]


def keep(report: Report, finding: Finding, name: str = "ann") -> None:
    assert report.tables.source is not None
    digest = str(report.tables.images["digest"][finding.sample_id])
    decisions.record(
        report.tables.source,
        [
            Decision(
                finding=finding.key, verdict="keep", reviewer=name, code=finding.code,
                item_id=finding.item_id, given=finding.given, digest=digest,
            )
        ],
    )  # fmt: skip


def rename(photos: Path, old: str, new: str) -> None:
    (photos / new).parent.mkdir(exist_ok=True)
    (photos / old).rename(photos / new)


def repaint(photos: Path) -> None:
    picture(photos / "cat/1.png", 250)
    shutil.copy(photos / "cat/1.png", photos / "cat/2.png")


CHANGES: dict[str, tuple[Callable[[Path], object], bool]] = {
    "nothing": (lambda photos: None, True),
    "another image": (lambda photos: picture(photos / "dog/6.png", 33), True),
    "the name of the file": (lambda photos: rename(photos, "cat/2.png", "cat/22.png"), True),
    "the bytes of the image": (repaint, False),
    "the label": (
        lambda photos: [rename(photos, f"cat/{name}.png", f"cow/{name}.png") for name in "12"],
        False,
    ),
    "the suggestion": (lambda photos: rename(photos, "cat/1.png", "cat/0.png"), False),
}


@pytest.mark.parametrize(("change", "remembered"), CHANGES.values(), ids=CHANGES.keys())
def test_a_finding_that_was_kept_is_asked_again_only_where_it_is_another(
    photos: Path, change: Callable[[Path], object], remembered: bool
) -> None:
    report = audited(photos)
    [finding] = report.items
    assert (finding.item_id, finding.suggested) == ("cat/2.png", "cat/1.png")
    keep(report, finding)
    change(photos)
    [again] = audited(photos).items
    assert again.decision == ("keep" if remembered else None)


def test_it_is_remembered_by_an_audit_with_other_checks_and_settings(photos: Path) -> None:
    report = audited(photos)
    keep(report, report.items[0])
    again = audit(photos, select=["DUP001", "IMG"], settings={"IMG002": {}}, progress=False)
    assert [each.decision for each in again.items if each.code == "DUP001"] == ["keep"]


def test_a_copy_is_not_taken_for_the_renamed_file(photos: Path) -> None:
    report = audited(photos)
    keep(report, report.items[0])
    shutil.copy(photos / "cat/1.png", photos / "cat/20.png")
    verdicts = {each.item_id: each.decision for each in audited(photos).items}
    assert verdicts == {"cat/2.png": "keep", "cat/20.png": None}


def test_a_conflict_is_undecided_in_the_next_audit_and_what_settles_it_counts(photos: Path) -> None:
    report = audited(photos)
    [finding] = report.items
    source = report.tables.source
    assert source is not None
    keep(report, finding)
    accept = Decision(finding=finding.key, verdict="accept", fix=finding.fix, reviewer="bob")
    decisions.record(source, [accept])
    assert [each.decision for each in audited(photos).items] == [None]
    decisions.settle(source, "by:ann")
    assert [each.decision for each in audited(photos).items] == ["keep"]


# The command line


def run(*arguments: str, code: int = 0) -> None:
    assert main([*arguments]) == code


def test_two_people_decide_settle_and_fix_from_the_command_line(
    photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(photos.parent)
    Path("dataaudit.toml").write_text('select = ["DUP001"]\n')
    [finding] = audited(photos).items
    run("decisions", "export", "photos", "all.csv", "-q")
    assert capsys.readouterr().out == "all.csv: 1 finding, 0 decisions.\n"
    for name, verdict in (("ann", "accept"), ("bob", "keep")):
        text = Path("all.csv").read_text("utf-8-sig").replace(f"{finding.key},,", f"{finding.key},{verdict},")
        Path(f"{name}.csv").write_text(text)
        run("decisions", "import", "photos", f"{name}.csv", "--reviewer", name, "-q")
    assert "1 new, 0 known already, 0 left out.\n1 conflict to settle" in capsys.readouterr().out
    run("decisions", "conflicts", "photos")
    assert f"{finding.key}  DUP001  cat/2.png" in capsys.readouterr().out
    run("decisions", "agreement", "photos")
    assert "ann and bob, 1 finding:\n  error or not  0% the same" in capsys.readouterr().out
    run("fix", "photos", "--decided", "-q")
    assert "ann says accept: (merged into cat/1.png), bob says keep: settle it" in capsys.readouterr().err
    assert (photos / "cat/2.png").exists()
    run("decisions", "withdraw", "photos", finding.key, code=2)
    assert "ann, bob decided the finding" in capsys.readouterr().err
    run("decisions", "settle", "photos", "--rule", "majority")
    assert "0 settled, 1 left open." in capsys.readouterr().out
    run("decisions", "settle", "photos", "--rule", "by:ann", "--reviewer", "eve")
    run("decisions", "list", "photos")
    assert len(capsys.readouterr().out.splitlines()) == 2 + 3
    run("fix", "photos", "--decided", "-q")
    assert not (photos / "cat/2.png").exists()
    before = Path(".dataaudit/photos/decisions.jsonl").read_bytes()
    run("fix", "photos", "--decided", "-q")
    assert "nothing was changed" in capsys.readouterr().err
    assert Path(".dataaudit/photos/decisions.jsonl").read_bytes() == before


def test_a_decision_is_withdrawn_from_the_command_line(
    photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(photos.parent)
    report = audited(photos)
    keep(report, report.items[0])
    run("decisions", "withdraw", "photos", report.items[0].key)
    assert capsys.readouterr().out == "Withdrew 1 decision.\n"
    run("decisions", "list", "photos")
    assert capsys.readouterr().out == "There are no decisions yet.\n"
    run("decisions", "list", "photos", "--all")
    assert len(capsys.readouterr().out.splitlines()) == 2
    run("decisions", "withdraw", "photos", "k9", "--reviewer", "ann", code=2)
    assert "ann has decided nothing of the finding 'k9'" in capsys.readouterr().err


def test_decided_and_decisions_do_not_go_together(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["fix", "photos", "--decided", "--decisions", "d.csv"])
    assert "not allowed with argument" in capsys.readouterr().err
