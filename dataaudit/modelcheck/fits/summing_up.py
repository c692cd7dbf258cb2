"""One report of a fit: what was found before it, during it and in its curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from dataaudit.errors import InputError
from dataaudit.modelcheck import suite
from dataaudit.modelcheck.fits.gradients_seen import CODES, GradientWatch
from dataaudit.modelcheck.reporting import ModelReport, Picture, Table
from dataaudit.modelcheck.runs import checking
from dataaudit.modelcheck.runs.histories import History

__all__ = ["brief", "report_of"]


def report_of(
    name: str,
    history: History,
    *,
    sanity: ModelReport | None,
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
    parts: list[Table | Picture] = []
    skipped = {} if sanity is None else dict(sanity.skipped)
    if "sanity" in reasons:
        skipped |= dict.fromkeys(suite.CODES, reasons["sanity"])
    if watch is not None:
        found += watch.judge()
        skipped = {code: why for code, why in skipped.items() if code not in CODES}
        if watch.points:
            parts.append(watch.table())
    curved = _curves(history)
    if curved is not None:
        found += curved.items
        parts += curved.parts
        skipped |= curved.skipped
    first = {item.key: item for item in reversed(found)}
    least, ordered = 0.0, []
    for key in dict.fromkeys(item.key for item in found):  # a report shows the lowest score first
        least = max(least, first[key].score)
        ordered.append(replace(first[key], score=least))
    share = spent / trained if trained > 0 else 0.0
    said = [*facts, f"watching took {share:.1%} of the training"]
    if "dynamics" in reasons:
        said.append(f"no training dynamics: {reasons['dynamics']}")
    timings: dict[str, float] = {} if sanity is None else dict(sanity.timings)
    return ModelReport(
        name=name, command="training", codes=tuple(dict.fromkeys((*suite.CODES, *CODES, *checking.CODES))), items=ordered,
        facts=[*(() if sanity is None else sanity.facts), *said],
        parts=[*parts, *(() if sanity is None else sanity.parts)],
        skipped=skipped, params={"watching": share},
        timings={**timings, "before": max(checked - sum(timings.values()), 0.0), "training": trained},
    )  # fmt: skip


def _curves(history: History) -> ModelReport | None:
    """What the curves show; None where there are none."""
    try:
        return checking.curves([history], name=history.name)
    except InputError:
        return None


def brief(report: ModelReport) -> ModelReport:
    """The same with the findings alone, for the terminal."""
    return replace(report, parts=(), skipped={})
