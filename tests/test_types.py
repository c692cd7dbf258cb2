from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from pictures import tables_of

from dataaudit.errors import InputError
from dataaudit.types import Decision, Finding, Fix, Locator, Outcome, Report, Tables


def series(**values: object) -> pd.Series:
    return pd.Series(values)


def finding(**changes: object) -> Finding:
    values: dict[str, object] = {
        "key": "k1",
        "code": "LBL001",
        "item_id": "a.png",
        "sample_id": "a.png",
        "score": 0.1,
        "probability": 0.9,
        "message": "It looks like b.",
        "given": "a",
        "suggested": "b",
    }
    return Finding(**(values | changes))


def test_types_are_frozen_and_keyword_only() -> None:
    locator = Locator(file="labels.csv", item=3)
    with pytest.raises(AttributeError):
        locator.file = "other.csv"
    with pytest.raises(TypeError):
        Locator("labels.csv")


@pytest.mark.parametrize(
    ("locator", "text"),
    [
        (Locator(file="a/b.png"), "a/b.png"),
        (Locator(file="labels.csv", item=17, field="label"), "labels.csv:17:label"),
        (Locator(file="labels.json", item="x"), "labels.json:x"),
    ],
)
def test_a_locator_reads_like_a_place_in_a_file(locator: Locator, text: str) -> None:
    assert str(locator) == text


def test_tables_need_their_columns() -> None:
    images = pd.DataFrame({"filepath": ["/a.png"]}, index=["a.png"])
    labels = pd.DataFrame(columns=["sample_id", "name", "geometry", "locator"])
    with pytest.raises(InputError, match=r"Tables.images has no column 'width', 'height', 'split', 'digest'"):
        Tables(images=images, labels=labels, classes=())


def test_tables_refuse_ids_that_are_there_twice() -> None:
    with pytest.raises(InputError, match=r"Tables.images has the id 'a.png' more than once"):
        tables_of(Path("/"), ["a.png", "a.png"], ["x", "y"])


def test_tables_refuse_labels_of_unknown_samples_and_classes() -> None:
    good = tables_of(Path("/"), ["a.png", "b.png"], ["x", "y"])
    with pytest.raises(InputError, match=r"names the sample 'c.png', which Tables.images doesn't have"):
        Tables(
            images=good.images, labels=good.labels.assign(sample_id=["a.png", "c.png"]), classes=good.classes
        )
    with pytest.raises(InputError, match=r"has the class 'z', which Tables.classes doesn't name"):
        Tables(images=good.images, labels=good.labels.assign(name=["x", "z"]), classes=good.classes)


def test_unlabeled_images_are_allowed() -> None:
    assert tables_of(Path("/"), ["a.png", "b.png"], ["x", None]).classes == ("x",)


def test_an_outcome_needs_one_index() -> None:
    with pytest.raises(InputError, match=r"Outcome.score has 1 items and Outcome.flagged 2"):
        Outcome(score=series(a=1.0), flagged=series(a=True, b=False))


@pytest.mark.parametrize("score", [-0.1, 1.1, float("nan"), float("inf")])
def test_an_outcome_needs_scores_between_zero_and_one(score: float) -> None:
    with pytest.raises(InputError, match=r"expected \[0, 1\]"):
        Outcome(score=series(a=score, b=0.5), flagged=series(a=True, b=False))


def test_an_outcome_needs_a_row_of_evidence_for_each_flagged_item() -> None:
    with pytest.raises(InputError, match=r"Outcome.evidence lacks the flagged item 'b'"):
        Outcome(
            score=series(a=0.0, b=0.0),
            flagged=series(a=True, b=True),
            evidence=pd.DataFrame({"message": ["x"]}, index=["a"]),
        )


def test_an_outcome_needs_probabilities_of_the_same_items_between_zero_and_one() -> None:
    with pytest.raises(InputError, match=r"Outcome.probability needs the same index"):
        Outcome(score=series(a=0.0), flagged=series(a=True), probability=series(b=0.5))
    with pytest.raises(InputError, match=r"Outcome.probability reaches from 1.5 to 1.5; expected"):
        Outcome(score=series(a=0.0), flagged=series(a=True), probability=series(a=1.5))


def test_an_empty_outcome_is_fine() -> None:
    empty = pd.Series([], dtype=float)
    assert Outcome(score=empty, flagged=empty.astype(bool)).score.empty


@pytest.mark.parametrize(
    ("op", "new", "message"),
    [
        ("shrink", "b", "Fix.op is 'shrink'; expected one of relabel, rename, add"),
        ("relabel", None, "A relabel fix of a.png has new=None"),
        ("drop", "b", "A drop fix of a.png has new='b'"),
    ],
)
def test_a_fix_that_makes_no_sense_is_refused(op: str, new: str | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Fix(op=op, sample_id="a.png", label_id="a.png", locator=Locator(file="a.png"), old="a", new=new)


def test_a_verdict_that_there_is_not_is_refused() -> None:
    with pytest.raises(InputError, match="The verdict is 'yes'; expected one of accept, keep, other, skip"):
        Decision(finding="k1", verdict="yes")


def report(*items: Finding) -> Report:
    return Report(
        digest="d",
        params={},
        outcomes={},
        items=items,
        skipped={},
        timings={},
        tables=tables_of(Path("/"), ["a.png", "b.png"], ["a", "b"]),
    )


def test_findings_are_a_table_worst_first() -> None:
    table = report(finding(), finding(key="k2", code="DUP001", probability=None, score=0.2)).findings
    assert list(table.index) == ["k1", "k2"]
    assert table.loc["k1", "suggested"] == "b"
    assert pd.isna(table.loc["k2", "probability"])
    assert list(table.columns)[:3] == ["code", "item_id", "sample_id"]


def test_no_findings_are_an_empty_table_of_the_same_columns() -> None:
    assert list(report().findings.columns) == list(report(finding()).findings.columns)
    assert report().findings.dtypes["probability"] == "float64"


def test_a_report_says_what_it_found() -> None:
    found = report(finding(), finding(key="k2"), finding(key="k3", code="DUP001"))
    assert repr(found) == "Report(2 images, findings: DUP001 1, LBL001 2)"
    assert repr(report()) == "Report(2 images, findings: none)"
