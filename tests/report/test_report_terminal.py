from __future__ import annotations

import io

from made_reports import relabel, report_of, tables_of
from rich.console import Console

from dataaudit.report import summarize, to_terminal
from dataaudit.types import Report


def printed(report: Report, width: int = 120, **more: str) -> str:
    out = io.StringIO()
    to_terminal(report, Console(file=out, width=width), **more)
    return out.getvalue()


def test_it_names_the_dataset_the_checks_the_worst_findings_and_the_report(report: Report) -> None:
    text = printed(report, html="out/report.html")
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "photos folder · 6 images · 2 classes · train 4, test 2" in lines
    assert "LBL001 train/cat/1.jpg cat → dog 96%" in lines
    assert "DUP001 train/dog/2.jpg The same bytes as train/dog/1.jpg. 100%" in lines
    assert "Skipped: SPL001 the dataset has no splits" in lines
    assert lines[-1] == "Report: out/report.html"


def test_there_is_no_colour_where_it_is_not_a_terminal(report: Report) -> None:
    assert "\x1b" not in printed(report)


def test_names_that_look_like_markup_or_move_the_cursor_are_shown_as_text() -> None:
    tables = tables_of({"[red]a[/red].jpg": "[bold]cat", "b\x1b[2J.jpg": "dog"})
    report = report_of(
        tables, relabel("1", tables, "L0", "dog"), relabel("2", tables, "L1", "[bold]cat"),
        skipped={"SPL001": "[link=x]reason[/link]"},
    )  # fmt: skip
    text = printed(report)
    assert "[red]a[/red].jpg" in text
    assert "[bold]cat → dog" in text
    assert "b\\x1b[2J.jpg" in text
    assert "[link=x]reason[/link]" in text


def test_kept_findings_are_not_among_the_worst(report: Report) -> None:
    assert "train/dog/1.jpg  " not in printed(report)


def test_ten_findings_at_most_are_listed_and_each_check_has_one(report: Report) -> None:
    tables = report.tables
    many = [relabel(f"m{at}", tables, "L0", "dog", score=0.0) for at in range(50)]
    text = printed(report_of(tables, *many, *report.items))
    worst = text.split("Look at these first")[1].split("One label")[0]
    codes = [line.split()[0] for line in worst.splitlines() if line[:3] in ("LBL", "DUP", "IMG")]
    assert codes == ["LBL001"] * 8 + ["DUP001", "IMG001"]


def test_nothing_found_is_one_line() -> None:
    text = printed(report_of(tables_of({"1.jpg": "cat"})))
    assert "Nothing to fix in 1 image." in text
    assert "Look at these first" not in text


def test_it_fits_a_narrow_terminal(report: Report) -> None:
    assert max(map(len, printed(report, width=60).splitlines())) <= 60


def test_a_summary_prints_the_same(report: Report) -> None:
    out = io.StringIO()
    to_terminal(summarize(report), Console(file=out, width=120))
    assert out.getvalue() == printed(report)
