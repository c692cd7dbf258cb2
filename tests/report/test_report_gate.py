from __future__ import annotations

import pytest
from made_reports import relabel, report_of, tables_of

from dataaudit.errors import InputError
from dataaudit.report import check_rules, gate, summarize
from dataaudit.types import Report


@pytest.mark.parametrize(
    ("rule", "breached"),
    [
        ("any>0", True),
        ("any>3", False),
        ("any>=3", True),
        ("LBL>0", True),
        ("LBL001>=1", True),
        ("LBL001>1", False),
        ("LBL002>=1", False),
        ("DUP001>0", True),
        ("LBL>16%", True),
        ("LBL>17%", False),
        ("any>=50%", True),
        ("any>50%", False),
        (" lbl001 >= 1 ", True),
        ("LBL>.5%", True),
        ("SPL>0", False),
    ],
)
def test_rules_count_findings_or_shares_of_images(report: Report, rule: str, breached: bool) -> None:
    assert bool(gate(report, [rule])) is breached
    assert bool(gate(summarize(report), [rule])) is breached


def test_without_rules_any_finding_is_a_breach(report: Report) -> None:
    assert [breach.rule for breach in gate(report)] == ["any>0"]


def test_a_kept_finding_does_not_count() -> None:
    tables = tables_of({"1.jpg": "cat", "2.jpg": "dog"})
    assert gate(report_of(tables, relabel("k", tables, "L0", "dog", decision="keep"))) == []
    assert len(gate(report_of(tables, relabel("k", tables, "L0", "dog", decision="skip")))) == 1


def test_a_breach_says_what_was_counted(report: Report) -> None:
    breaches = gate(report, ["LBL>1%", "any>0"])
    assert [breach.message for breach in breaches] == [
        "LBL>1%: 1 of 6 images (16.67%)",
        "any>0: 3 findings",
    ]
    assert (breaches[0].findings, breaches[0].images, breaches[0].share) == (1, 1, 1 / 6)


def test_a_cut_summary_gives_the_same_breaches(report: Report) -> None:
    assert gate(summarize(report, max_shown=0), ["any>=3"]) == gate(report, ["any>=3"])


def test_no_images_is_no_breach_of_a_share() -> None:
    assert gate(report_of(tables_of({})), ["any>0%", "any>0"]) == []


@pytest.mark.parametrize(
    "rule", ["", "LBL", "LBL>", "LBL<1", "LBL>1%%", "LBL01>1", ">1", "LBL>-1", "LBL==1", "LBL>1e3"]
)
def test_a_malformed_rule_is_refused_with_an_example(rule: str) -> None:
    with pytest.raises(InputError, match=r"can't be read(.|\n)*'LBL>1%'"):
        check_rules([rule])


def test_a_rule_with_an_unknown_code_is_refused_with_the_nearest(report: Report) -> None:
    with pytest.raises(InputError, match=r"LBK001.*Did you mean 'LBL001'"):
        gate(report, ["LBK001>0"])


def test_a_share_over_100_percent_is_refused() -> None:
    with pytest.raises(InputError, match="at most 100"):
        check_rules(["any>101%"])
