"""What a report looks like: in a terminal, as HTML, as files and for machines, all from one summary."""

from dataaudit.report.files import write, write_html
from dataaudit.report.gate import Breach, check_rules, gate
from dataaudit.report.html import to_html
from dataaudit.report.machine import to_github, to_json, to_junit, to_markdown, to_sarif
from dataaudit.report.picture import picture
from dataaudit.report.quick_look import Page, show
from dataaudit.report.summary import summarize
from dataaudit.report.terminal import to_terminal

__all__ = [
    "Breach",
    "Page",
    "check_rules",
    "gate",
    "picture",
    "show",
    "summarize",
    "to_github",
    "to_html",
    "to_json",
    "to_junit",
    "to_markdown",
    "to_sarif",
    "to_terminal",
    "write",
    "write_html",
]
