"""One report of a fit: what was found before it, during it and in its curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from dataaudit.errors import InputError
from dataaudit.modelcheck import suite
from dataaudit.modelcheck.families import trn
from dataaudit.modelcheck.families import trn_curves as curves
from dataaudit.modelcheck.fits.gradients_seen import CODES, GradientWatch
from dataaudit.modelcheck.ranking import with_rising_scores
from dataaudit.modelcheck.reporting import ModelReport, Picture, Table
from dataaudit.modelcheck.runs import checking
from dataaudit.modelcheck.runs.drawing import plot
from dataaudit.modelcheck.runs.histories import History, pairs_of
from dataaudit.types import Finding

__all__ = ["brief", "report_of"]


def report_of(
    name: str,
    history: History,
    *,
    sanity: ModelReport | None,
    learned: bool | None,
    watch: GradientWatch | None,
    reasons: Mapping[str, str],
    facts: Sequence[str],
    checked: float,
    trained: float,
    spent: float,
) -> ModelReport:
    """Join what a fit showed.

    Args:
        name: of the model.
        history: its curves.
        sanity: report of the suite, or None where it didn't run.
        learned: whether the suite learned the first batch, None where it wasn't tried.
        watch: of the gradients, or None.
        reasons: why ``sanity`` or ``dynamics`` weren't possible.
        facts: further short texts.
        checked: seconds before the first step.
        trained: seconds after it.
        spent: of those, on watching.

    Returns:
        A report, the findings before training first, each code about each place once.
    """
    found = [] if sanity is None else list(sanity.items)
    if sanity is None:
        skipped = dict.fromkeys(suite.CODES, reasons.get("sanity", "it was turned off"))
    else:
        skipped = dict(sanity.skipped)
    if watch is not None:
        # Statistics of gradients are no fault of a set-up that learns its batch
        found += watch.judge(statistics=not learned)
        skipped = {code: why for code, why in skipped.items() if code not in CODES}
    curved = _curves(history)
    follows, cause = _following(found, () if curved is None else curved.items)
    parts: list[Table | Picture] = []
    if curved is None:
        skipped |= dict.fromkeys(checking.CODES, "no loss or metric was logged")
    else:
        found += [item for item in curved.items if item not in follows]
        skipped |= curved.skipped
        parts += _of_curves(curved, history, follows, cause)
    if watch is not None and watch.points:
        parts.append(watch.table())
    share = spent / trained if trained > 0 else 0.0
    said = [*facts, f"watching took {share:.1%} of the training"]
    if "dynamics" in reasons:
        said.append(f"no training dynamics: {reasons['dynamics']}")
    known = {item.code for item in found}
    unique = {item.key: item for item in reversed(found)}  # of two about one place the first
    timings: dict[str, float] = {} if sanity is None else dict(sanity.timings)
    return ModelReport(
        name=name, command="training",
        items=with_rising_scores([unique[key] for key in dict.fromkeys(item.key for item in found)]),
        codes=tuple(dict.fromkeys((*suite.CODES, *CODES, *checking.CODES))),
        facts=[*(() if sanity is None else sanity.facts), *said],
        parts=[*parts, *(() if sanity is None else sanity.parts)],
        skipped={code: why for code, why in skipped.items() if code not in known},
        params={"watching": round(share, 5)},
        timings={**timings, "before": max(checked - sum(timings.values()), 0.0), "training": trained},
    )  # fmt: skip


def _of_curves(
    curved: ModelReport, history: History, follows: Sequence[Finding], cause: Finding | None
) -> list[Table | Picture]:
    """The tables and plots of the curves, with what follows from what was found before."""
    parts, pairs = list(curved.parts), pairs_of(history)
    if pairs and not any(isinstance(part, Picture) for part in parts):
        parts.append(Picture(title="Curves", png=plot(history, pairs, [])))
    if follows and cause is not None:
        rows = tuple((item.code, item.item_id, str(item.evidence.get("what"))) for item in follows)
        parts.append(Table(title="What follows from it", columns=("code", "about", "what"), rows=rows,
                           note=f"Explained by {cause.code} {cause.item_id}."))  # fmt: skip
    return parts


def _curves(history: History) -> ModelReport | None:
    """What the curves show; None where there are none."""
    try:
        return checking.curves([history], name=history.name)
    except InputError:
        return None


def _following(before: Sequence[Finding], curved: Sequence[Finding]) -> tuple[list[Finding], Finding | None]:
    """What of the curves' findings follows from what was found before, and from which."""
    broken = {trn.NONFINITE_GRADIENT.code, trn.EXPLODING_GRADIENT.code}
    cause = next((item for item in before if item.code in broken), before[0] if before else None)
    if cause is None:
        return [], None
    effects = [curves.FLAT_CURVE, curves.UNDERFITTING, curves.PLATEAU]
    if cause.code in broken:
        effects += [curves.NONFINITE_CURVE, curves.DIVERGING_CURVE, curves.SPIKES]
    codes = {rule.code for rule in effects}
    return [item for item in curved if item.code in codes], cause


def brief(report: ModelReport) -> ModelReport:
    """The same with the findings alone, for the terminal."""
    ran = [code for code in report.codes if code not in report.skipped]
    return replace(report, parts=(), skipped={}, codes=ran)
