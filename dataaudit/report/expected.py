"""How many errors are expected, and how many items to look at to find a share of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from dataaudit import registry
from dataaudit.errors import InputError, nearest
from dataaudit.metrics import expected_errors, review_budget
from dataaudit.report.text import plural
from dataaudit.types import Outcome, Report

__all__ = ["expected", "expected_by_check", "foremost", "sentences"]

FIRST = (10, 50, 100, 500, 1000, 5000, 10_000, 50_000, 100_000)
SHARES = (0.5, 0.8, 0.9, 0.95)
CONFIDENCE = 0.9
CURVE_STEPS = 50


def expected(report: Report, code: str = "LBL001") -> dict[str, Any]:
    """How many errors a check expects, in all and among the first to look at, and what finding them takes.

    What a person has decided is known: an item kept is right, one accepted or changed is wrong. The others
    stand in the order of their scores, worst first.

    Args:
        report: the result of an audit.
        code: a check whose outcome has probabilities.

    Returns:
        A dict that ``json.dumps`` takes as it is: ``items`` (how many have a probability), ``confirmed`` and
        ``kept`` (how many of them a person found wrong and right), ``to_review`` (the rest), ``errors``,
        ``low`` and ``high`` (the expected number of errors in all, with those confirmed, and the interval
        that holds it with a chance of ``confidence``), ``first`` (the same for the first ``k`` to look at,
        without those confirmed), ``budget`` (for each ``share`` of all errors how many, ``k``, are still to
        be looked at until as many are expected to be found) and ``curve`` (pairs of how many are looked at
        and, ``errors``, ``low`` and ``high``, how many are found).

    Raises:
        InputError: the check didn't run, or has no probabilities.
    """
    outcome = report.outcomes.get(code)
    if outcome is None:
        reason = report.skipped.get(code)
        raise InputError(
            f"{code} didn't run: {reason}."
            if reason
            else f"{code} didn't run in this audit. {nearest(code, report.outcomes)}"
        )
    found = _expected(outcome, _known(report, code))
    if found is None:
        have = [other for other, one in report.outcomes.items() if _expected(one, {}) is not None]
        raise InputError(
            f"{code} has no probabilities, so it can't say how many errors to expect.",
            fix=f"Those that have: {', '.join(have) or 'none'}.",
        )
    return found


def expected_by_check(report: Report) -> dict[str, dict[str, Any]]:
    """`expected` of each check that has probabilities, by code."""
    found = {code: _expected(one, _known(report, code)) for code, one in sorted(report.outcomes.items())}
    return {code: entry for code, entry in found.items() if entry is not None}


def foremost(by_check: Mapping[str, Mapping[str, Any]]) -> tuple[str, Mapping[str, Any]] | None:
    """The check of labels whose expectation is shown to people: LBL001, or the one that expects most errors.

    Checks of objects count where no check of classes does.

    Args:
        by_check: `expected_by_check` of a report.

    Returns:
        Its code and expectation; None where next to no error is expected.
    """
    known = registry.checks()
    families = [
        {
            code: entry
            for code, entry in by_check.items()
            if code.startswith(family) and (code not in known or known[code].level == "object")
        }
        for family in ("LBL", "BOX")
    ]
    labels = families[0] or families[1]
    if not labels:
        return None
    code = "LBL001" if "LBL001" in labels else max(labels, key=lambda code: float(labels[code]["errors"]))
    return (code, labels[code]) if labels[code]["errors"] >= 0.5 else None


def sentences(by_check: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """How many class labels are likely to be wrong, and what finding them takes, as two sentences or none.

    Args:
        by_check: `expected_by_check` of a report.
    """
    shown = foremost(by_check)
    # Of the many kinds of errors that objects have, one would say little
    if shown is None or shown[0].startswith("BOX"):
        return []
    entry = shown[1]
    first = next((one for one in reversed(entry["first"]) if one["k"] <= max(entry["errors"], 10)), None)
    worst = f"; in the worst {first['k']:,}: {first['errors']:,.0f}" if first else ""
    number = f"{entry['errors']:,.0f} wrong ({entry['low']:,} to {entry['high']:,})"
    found = [f"Expected in {plural(entry['items'], 'label')}: {number}{worst}."]
    budget = [one for one in entry["budget"] if one["k"]]
    if budget:
        shares = " / ".join(f"{100 * one['share']:.0f}" for one in budget)
        numbers = " / ".join(f"{one['k']:,}" for one in budget)
        found.append(f"To find {shares} % of them, look at the worst {numbers}.")
    return found


def _known(report: Report, code: str) -> dict[str, bool]:
    """Whether an item is wrong, for those that a person has decided."""
    verdicts = {"accept": True, "other": True, "keep": False}
    return {
        finding.item_id: verdicts[finding.decision]
        for finding in report.items
        if finding.code == code and finding.decision in verdicts
    }


def _expected(outcome: Outcome, known: Mapping[str, bool]) -> dict[str, Any] | None:
    if outcome.probability is None:
        return None
    chance = outcome.probability.to_numpy(dtype=np.float64)
    stated = ~np.isnan(chance)
    if not stated.any():
        return None
    index = outcome.score.index
    decided = np.asarray(index.isin(list(known)))
    confirmed = int(index.isin([item for item, wrong in known.items() if wrong]).sum())
    kept = int(decided.sum()) - confirmed
    rows = np.flatnonzero(stated & ~decided)
    queue = chance[rows[np.argsort(outcome.score.to_numpy(dtype=np.float64)[rows], kind="stable")]]
    errors, low, high = expected_errors(queue, CONFIDENCE)
    budget = [{"share": share, "k": _budget(queue, share, confirmed)} for share in SHARES]
    return {
        "items": len(queue) + confirmed + kept,
        "confirmed": confirmed,
        "kept": kept,
        "to_review": len(queue),
        "errors": confirmed + errors,
        "low": confirmed + low,
        "high": confirmed + high,
        "confidence": CONFIDENCE,
        "first": [_among(queue, k) for k in FIRST if k < len(queue)],
        "budget": budget,
        "curve": _curve(queue),
    }


def _budget(queue: np.ndarray[Any, Any], share: float, confirmed: int) -> int:
    """How many of the queue to look at until, with those confirmed, a share of all errors is found."""
    left = float(queue.sum())
    if not left:
        return 0
    return review_budget(queue, float(np.clip((share * (confirmed + left) - confirmed) / left, 0.0, 1.0)))


def _among(queue: np.ndarray[Any, Any], k: int) -> dict[str, Any]:
    errors, low, high = expected_errors(queue[:k], CONFIDENCE)
    return {"k": k, "errors": errors, "low": low, "high": high}


def _curve(queue: np.ndarray[Any, Any]) -> list[dict[str, Any]]:
    """What looking finds, until it is nearly all: at the right end the curve is flat."""
    end = min(len(queue), round(1.25 * review_budget(queue, SHARES[-1])))
    steps = sorted({round(end * step / CURVE_STEPS) for step in range(CURVE_STEPS + 1)}) if end else []
    return [_among(queue, k) for k in steps]
