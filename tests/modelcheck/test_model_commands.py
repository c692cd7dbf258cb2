"""The commands of the model side, from the command line to each output."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from dataaudit.cli import main
from dataaudit.modelcheck.families import mod
from dataaudit.modelcheck.findings import finding
from dataaudit.modelcheck.reporting import ModelReport, Picture, Table, to_html

MODULE = """
import torch
from torch import nn

def good():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 10))

class Dropping(nn.Module):
    def forward(self, x):
        return nn.functional.dropout(x, 0.5)

def random_one():
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 10), Dropping())

def softmaxed():
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 10), nn.Softmax(1))
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "ownnets", raising=False)
    (tmp_path / "ownnets.py").write_text(MODULE)
    return tmp_path


SHAPE = ("--input-shape", "3,8,8")


def test_a_healthy_model_exits_with_0(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["model", "determinism", "ownnets:good", *SHAPE]) == 0
    out = capsys.readouterr().out
    assert "Nothing found: 8 kinds of defect looked for." in out
    assert "MOD007 it needs real data" in out


def test_a_finding_exits_with_1_and_says_where_and_what_to_change(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["model", "determinism", "ownnets:random_one", *SHAPE]) == 1
    out = capsys.readouterr().out
    assert "MOD001 2  ownnets.py:11" in out
    assert "Change: Pass training=self.training to F.dropout" in out
    assert main(["model", "determinism", "ownnets:random_one", *SHAPE, "--exit-zero"]) == 0
    assert main(["model", "determinism", "ownnets:random_one", *SHAPE, "--ignore", "MOD001"]) == 0
    assert main(["model", "determinism", "ownnets:random_one", *SHAPE, "--fail-on", "MOD001>1"]) == 0


def test_each_output_for_machines_has_the_finding_at_its_line(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["model", "determinism", "ownnets:random_one", *SHAPE, "--format"]
    main([*command, "json"])
    summary = json.loads(capsys.readouterr().out)
    assert [one["code"] for one in summary["findings"]] == ["MOD001"]
    main([*command, "sarif"])
    result = json.loads(capsys.readouterr().out)["runs"][0]["results"][0]
    place = result["locations"][0]["physicalLocation"]
    assert (place["artifactLocation"]["uri"], place["region"]["startLine"]) == ("ownnets.py", 11)
    main([*command, "junit"])
    failed = [
        one.get("name")
        for one in ElementTree.fromstring(capsys.readouterr().out).iter("testcase")
        if len(one)
    ]
    assert failed == ["MOD001 random_output", "MOD007 running_statistics"]
    main([*command, "github"])
    assert "::error file=ownnets.py,line=11,title=MOD001 random_output::" in capsys.readouterr().out


def test_the_loss_is_looked_at_with_the_labels_of_a_folder(
    here: Path, digit_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ("--data", str(digit_folder), *SHAPE)
    assert main(["model", "loss", "ownnets:good", *data]) == 0
    assert main(["model", "loss", "ownnets:softmaxed", *data]) == 1
    assert "MOD020 cross_entropy input" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["loss", "ownnets:good"], "A loss needs labels"),
        (["trace", "ownnets:good", "--input-shape", "three"], "expected such as 3,224,224"),
        (["trace", "ownnets:good", "-n", "0"], "-n is 0"),
        (["trace", "ownnets:nothing"], "ownnets has no 'nothing'"),
    ],
)
def test_bad_usage_exits_with_2(
    here: Path, arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["model", *arguments]) == 2
    assert says in capsys.readouterr().err


def test_a_report_escapes_what_the_user_named_and_holds_its_pictures() -> None:
    item = finding(
        mod.RANDOM_OUTPUT, "<b>layer</b>", "What <i>is</i>.", advice="Change it.", evidence={"p": 0.5}
    )
    report = ModelReport(
        name="<script>alert(1)</script>", command="trace", codes=("MOD001",), items=[item],
        parts=[
            Table(title="A table", columns=("a", "b"), rows=(("<x>", 1.5), (None, 2)), marked=frozenset({1})),
            Picture(title="A plot", png=b"\x89PNG", note="How it went."),
        ],
    )  # fmt: skip
    page = to_html(report)
    assert "<script>" not in page
    assert "<b>layer" not in page
    assert "&lt;x&gt;" in page
    assert 'alt="How it went."' in page
    assert report._repr_html_().startswith('<div class="dataaudit-model">')
    assert repr(report) == "ModelReport(<script>alert(1)</script>, trace, findings: MOD001 1)"


def test_a_report_without_findings_and_rows_is_drawn() -> None:
    report = ModelReport(name="m", command="trace", codes=("MOD001",), items=[],
                         parts=[Table(title="Empty", columns=("a",), rows=())])  # fmt: skip
    assert "Nothing found: 1 kind of defect looked for." in to_html(report)
