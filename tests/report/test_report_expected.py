from __future__ import annotations

import io
import json
import re

import numpy as np
import pandas as pd
import pytest
from made_reports import relabel, report_of, tables_of
from rich.console import Console

from dataaudit.errors import InputError
from dataaudit.report import summarize, to_html, to_terminal
from dataaudit.types import Finding, Outcome, Report

CHANCES = [0.9, 0.8, 0.6, 0.4, 0.2, 0.1, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]


def audited(chances: list[float], *items: Finding, code: str = "LBL001") -> Report:
    """A report whose labels L0, L1, ... are wrong with these chances, the first worst."""
    tables = tables_of({f"{at:02d}.jpg": "cat" if at % 2 else "dog" for at in range(len(chances))})
    probability = pd.Series(chances, index=tables.labels.index, dtype=float)
    score = pd.Series(np.linspace(0, 1, len(chances)), index=probability.index)
    outcome = Outcome(score=score, flagged=score < 0, probability=probability)
    return report_of(tables, *items, outcomes={code: outcome})


def decided(label_id: str, decision: str) -> Finding:
    tables = tables_of({f"{at:02d}.jpg": "cat" if at % 2 else "dog" for at in range(12)})
    return relabel(f"key-{label_id}", tables, label_id, "cow", decision=decision)


def test_the_expected_errors_are_the_sum_of_the_probabilities() -> None:
    found = audited(CHANCES).expected()
    assert found["errors"] == pytest.approx(3.0)
    assert (found["low"], found["high"]) == (1, 5)
    assert (found["items"], found["to_review"], found["confirmed"], found["kept"]) == (12, 12, 0, 0)


def test_the_first_are_counted_in_the_order_of_the_scores() -> None:
    report = audited(CHANCES[::-1])
    assert report.expected()["first"] == [{"k": 10, "errors": pytest.approx(1.3), "low": 0, "high": 3}]
    report = audited(CHANCES)
    assert report.expected()["first"] == [{"k": 10, "errors": pytest.approx(3.0), "low": 1, "high": 5}]


def test_the_budget_says_how_many_to_look_at_for_a_share_of_the_errors() -> None:
    budget = {one["share"]: one["k"] for one in audited(CHANCES).expected()["budget"]}
    # 0.9, 1.7, 2.3, 2.7, 2.9 and 3.0 errors are expected among the first ones.
    assert budget == {0.5: 2, 0.8: 4, 0.9: 4, 0.95: 5}


def test_what_a_person_decided_is_known() -> None:
    found = audited(
        CHANCES, decided("L0", "keep"), decided("L1", "accept"), decided("L2", "other")
    ).expected()
    assert (found["confirmed"], found["kept"], found["to_review"]) == (2, 1, 9)
    # Two are wrong for sure, and 0.4 + 0.2 + 0.1 are expected among the rest.
    assert found["errors"] == pytest.approx(2.7)
    assert (found["low"], found["high"]) == (2, 4)
    assert {one["share"]: one["k"] for one in found["budget"]} == {0.5: 0, 0.8: 1, 0.9: 2, 0.95: 2}


def test_a_skipped_finding_is_still_to_be_looked_at() -> None:
    assert audited(CHANCES, decided("L0", "skip")).expected() == audited(CHANCES).expected()


def test_items_without_a_probability_are_left_out() -> None:
    found = audited([float("nan"), 0.5, 0.5]).expected()
    assert (found["items"], found["errors"]) == (2, 1.0)


def test_a_check_without_probabilities_says_which_have_some() -> None:
    report = audited(CHANCES)
    score = report.outcomes["LBL001"].score
    more = {"DUP001": Outcome(score=score, flagged=score < 0)}
    report = report_of(report.tables, outcomes={**report.outcomes, **more}, skipped={"SPL001": "no splits"})
    with pytest.raises(InputError, match=r"DUP001 has no probabilities(.|\n)*LBL001"):
        report.expected("DUP001")
    with pytest.raises(InputError, match="SPL001 didn't run: no splits"):
        report.expected("SPL001")
    with pytest.raises(InputError, match="Did you mean 'LBL001'"):
        report.expected("LBL0001")


def test_the_summary_holds_what_is_expected_by_check_ready_for_json() -> None:
    report = audited(CHANCES)
    assert summarize(report)["expected"] == {"LBL001": report.expected()}
    assert json.loads(json.dumps(summarize(report)))["expected"]["LBL001"]["budget"][0] == {
        "share": 0.5,
        "k": 2,
    }
    assert summarize(report_of(report.tables))["expected"] == {}


def test_the_curve_begins_at_nothing_and_ends_where_little_is_left() -> None:
    curve = audited([0.9] * 100 + [0.001] * 900).expected()["curve"]
    assert curve[0] == {"k": 0, "errors": 0.0, "low": 0, "high": 0}
    assert (curve[-1]["k"], round(curve[-1]["errors"], 2)) == (120, 90.02)
    assert len(curve) == 51


@pytest.mark.parametrize("chances", [[], [0.0] * 3, [float("nan")] * 2], ids=["empty", "fine", "unknown"])
def test_nothing_is_shown_where_no_error_is_expected(chances: list[float]) -> None:
    report = audited(chances)
    assert "Errors to expect" not in to_html(report)
    assert "To find" not in printed(report)


def test_the_terminal_says_in_two_lines_how_many_to_look_at() -> None:
    assert printed(audited(CHANCES)).splitlines()[-3:-1] == [
        "Expected in 12 labels: 3 wrong (1 to 5); in the worst 10: 3.",
        "To find 50 / 80 / 90 / 95 % of them, look at the worst 2 / 4 / 4 / 5.",
    ]


def test_the_page_has_the_table_and_the_curve_of_the_first_labels() -> None:
    page = to_html(audited(CHANCES))
    assert re.search(r"expects that 3 of 12 labels are wrong \(1 to 5", page)
    assert len(re.findall(r'<circle class="yes"', page)) == 4
    assert '<path class="curve" d="M0.0 220.0L' in page
    assert '<tr><td>95%</td><td class="num">5</td></tr>' in page


def test_a_notebook_shows_the_same_sentences() -> None:
    assert "look at the worst 2 / 4 / 4 / 5." in to_html(audited(CHANCES), embed=True)


def test_a_summary_of_an_older_version_is_still_shown() -> None:
    old = summarize(audited(CHANCES))
    del old["expected"]
    assert "Errors to expect" not in to_html(old)
    assert "To find" not in printed(old)


def printed(report: Report | dict[str, object]) -> str:
    out = io.StringIO()
    to_terminal(report, Console(file=out, width=100))
    return out.getvalue()
