"""The gate: when do the findings of a report make a run fail."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dataaudit import registry
from dataaudit.errors import InputError, nearest
from dataaudit.report.summary import as_summary
from dataaudit.report.text import plural
from dataaudit.types import Report

__all__ = ["DEFAULT_RULES", "Breach", "check_rules", "gate"]

DEFAULT_RULES = ("any>0",)
_RULE = re.compile(r"\s*(any|[a-z]{3}(?:\d{3})?)\s*(>=|>)\s*(\d+(?:\.\d+)?|\.\d+)\s*(%?)\s*", re.IGNORECASE)
_EXAMPLES = (
    "Write a code, a family or any, then > or >=, then a number or a share: 'LBL>1%', 'DUP001>0', 'any>=10'."
)


@dataclass(frozen=True, kw_only=True)
class Breach:
    """A rule of the gate that a report breaks.

    Attributes:
        rule: the rule as it was written.
        findings: findings that the rule counts; those that a person decided to keep aren't among them.
        images: distinct images that they are about.
        share: `images` as a share of the dataset's images, in [0, 1].
        message: the sentence that a person reads.
    """

    rule: str
    findings: int
    images: int
    share: float
    message: str


def gate(report: Report | Mapping[str, Any], rules: Sequence[str] = DEFAULT_RULES) -> list[Breach]:
    """Say which of the rules a report breaks.

    A number is compared with the number of findings, a share with the share of the dataset's images that have
    such a finding. Findings that a person decided to keep don't count, and a check that was skipped has none.

    Args:
        report: a report or its summary.
        rules: such as ``LBL>1%`` (a family), ``DUP001>0`` (a code) or ``any>=10``.

    Returns:
        One breach for each broken rule, in the order of the rules.

    Raises:
        InputError: a rule that can't be read, or that names a code that no check has.
    """
    summary = as_summary(report)
    if isinstance(rules, str):
        rules = (rules,)
    codes = {entry["code"] for part in ("codes", "skipped") for entry in summary[part]}
    parsed = [(rule, *_parse(rule, codes)) for rule in rules]
    total = summary["counts"]["images"]
    breaches = []
    for rule, name, at_least, limit, is_share in parsed:
        counted = summary["open"].get(name, {"findings": 0, "images": 0})
        share = counted["images"] / total if total else 0.0
        value = share if is_share else counted["findings"]
        if not (value >= limit if at_least else value > limit):
            continue
        seen = (
            f"{counted['images']:,} of {total:,} images ({share:.2%})"
            if is_share
            else plural(counted["findings"], "finding")
        )
        breaches.append(Breach(rule=rule, **counted, share=share, message=f"{rule}: {seen}"))
    return breaches


def check_rules(rules: Sequence[str]) -> None:
    """Refuse rules that `gate` would refuse, before there is a report.

    Raises:
        InputError: a rule that can't be read, or that names a code that no check has.
    """
    for rule in rules:
        _parse(rule)


def _parse(rule: str, codes: Iterable[str] = ()) -> tuple[str, bool, float, bool]:
    match = _RULE.fullmatch(rule)
    if match is None:
        raise InputError(f"The gate's rule {rule!r} can't be read.", fix=_EXAMPLES)
    name, sign, number, percent = match.groups()
    name = "any" if name.lower() == "any" else name.upper()
    whole = {*codes, *registry.rules()}
    known = {"any", *whole, *(code[:3] for code in whole)}
    if name not in known:
        raise InputError(f"The gate's rule {rule!r} names {name}, which no check has. {nearest(name, known)}")
    limit = float(number)
    if percent and limit > 100:
        raise InputError(
            f"The gate's rule {rule!r} asks for {number} %; a share is at most 100 %.", fix=_EXAMPLES
        )
    return name, sign == ">=", limit / 100 if percent else limit, bool(percent)
