"""Drift between a reference and production: all comparisons, corrected for how many they are."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from dataaudit.errors import InputError, Unavailable
from dataaudit.modelcheck.drift import comparisons
from dataaudit.modelcheck.drift.comparisons import Candidate, Compared
from dataaudit.modelcheck.drift.kernel import embeddings_by_kernel
from dataaudit.modelcheck.drift.pairing import Pairing, pair
from dataaudit.modelcheck.drift.sides import Side, read_side
from dataaudit.modelcheck.drift.timeline import one_a_moment, over_time
from dataaudit.modelcheck.families import drf
from dataaudit.modelcheck.findings import finding
from dataaudit.modelcheck.reporting import ModelReport, Table
from dataaudit.registry import Rule
from dataaudit.report.text import plural
from dataaudit.signals.backbones import DEFAULT
from dataaudit.types import Finding, Tables

__all__ = ["Checked", "compare", "drift", "report_of"]

LEVEL = 0.05
N_PERMUTATIONS = 999
_NEARLY = 0.75
COMPARISONS: Mapping[Rule, Callable[[Pairing], Compared]] = {
    drf.PROPERTY_DRIFT: comparisons.properties,
    drf.EMBEDDING_DRIFT: comparisons.embeddings,
    drf.CLASS_DRIFT: comparisons.classes,
    drf.PREDICTION_DRIFT: comparisons.predictions,
    drf.CONCEPT_DRIFT: comparisons.accuracy,
    drf.OUTLIER_SHARE: comparisons.outliers,
    drf.CHANGE_IN_TIME: over_time,
}
TESTS: Mapping[str, Callable[[Pairing], Compared]] = {
    "classifier": comparisons.embeddings,
    "mmd": embeddings_by_kernel,
}


@dataclass(frozen=True, kw_only=True)
class Checked:
    """What all comparisons of two sides found.

    Attributes:
        both: the sides.
        results: the comparisons that could be made, each with its p-values corrected for all of them.
        skipped: code to the reason, of the others.
        level: chance of a false alarm in the whole report, at most.
    """

    both: Pairing
    results: tuple[Compared, ...]
    skipped: Mapping[str, str]
    level: float

    def _surely(self, result: Compared) -> list[Candidate]:
        found = [candidate for candidate in result.candidates if candidate.p_value <= self.level]
        return one_a_moment(found) if result.rule is drf.CHANGE_IN_TIME else found

    @property
    def drifted(self) -> tuple[tuple[Rule, Candidate], ...]:
        """What differs by more than chance, the surest and largest first.

        A property that tells the sides apart nearly as well as all features together comes before these.
        """
        found = [(result.rule, candidate) for result in self.results for candidate in self._surely(result)]
        return tuple(sorted(found, key=lambda each: (each[1].p_value, -_weight(*each))))


def _weight(rule: Rule, candidate: Candidate) -> float:
    return candidate.effect / (_NEARLY if rule is drf.PROPERTY_DRIFT else 1.0)


def drift(
    reference: str | Path | Tables | Side,
    production: str | Path | Tables | Side,
    *,
    level: float = LEVEL,
    n_permutations: int = N_PERMUTATIONS,
    seed: int = 0,
    groups: str | None = None,
    test: Literal["classifier", "mmd"] = "classifier",
    backbone: str | None = DEFAULT,
    device: str = "auto",
    cache: Path | None = None,
    progress: bool = False,
) -> ModelReport:
    """Compare production with the reference: properties, content, classes, predictions and outliers.

    Args:
        reference: what the model was trained on: a dataset, a folder of images, or a file of
            `dataaudit.modelcheck.drift.save_side`.
        production: what it sees now, likewise.
        level: chance of a false alarm in the whole report, at most; in (0, 1).
        n_permutations: how often images are dealt out anew; more find what is rarer than 1 in as many.
        seed: of the random numbers; the same seed gives the same report.
        groups: a regular expression that finds in a sample id which images were taken together; see
            `dataaudit.modelcheck.drift.pairing.pair`.
        test: how embeddings are compared: ``classifier`` by whether a classifier tells the sides apart,
            ``mmd`` by the maximum mean discrepancy of a Gaussian kernel.
        backbone: whose features are compared; None compares only properties and classes.
        device: where the backbone runs.
        cache: folder of the cached signals.
        progress: show progress bars.

    Returns:
        The report; ``report.items`` are the findings, each with its effect and the images that show it.

    Raises:
        InputError: no images, different backbones, or a setting out of range.

    Reference: Rabanser, Günnemann and Lipton, "Failing Loudly: An Empirical Study of Methods for Detecting
    Dataset Shift", NeurIPS 2019.
    """
    started = time.perf_counter()
    sides = [
        read_side(each, backbone=backbone, device=device, cache=cache, progress=progress)
        for each in (reference, production)
    ]
    read = time.perf_counter()
    checked = compare(*sides, level=level, n_permutations=n_permutations, seed=seed, groups=groups, test=test)
    timings = {"read": read - started, "compare": time.perf_counter() - read}
    params = {"level": level, "permutations": n_permutations, "seed": seed, "groups": groups, "test": test}
    return report_of(checked, params=params, timings=timings)


def compare(
    reference: Side,
    production: Side,
    *,
    level: float = LEVEL,
    n_permutations: int = N_PERMUTATIONS,
    seed: int = 0,
    groups: str | None = None,
    test: Literal["classifier", "mmd"] = "classifier",
) -> Checked:
    """The comparisons of two sides that were read; see `drift`."""
    if not 0 < level < 1:
        raise InputError(f"The level is {level}; expected a chance above 0 and below 1, such as 0.05.")
    if n_permutations < 1 / level:
        raise InputError(
            f"{n_permutations} permutations can't show what is rarer than {level}.",
            fix=f"Take {int(20 / level) - 1} or more.",
        )
    if test not in TESTS:
        raise InputError(f"The test {test!r} isn't known; expected {' or '.join(map(repr, TESTS))}.")
    both = pair(reference, production, n_permutations=n_permutations, seed=seed, groups=groups)
    if not both.can_differ:
        reason = _no_difference(both)
        return Checked(
            both=both, results=(), skipped={rule.code: reason for rule in COMPARISONS}, level=level
        )
    results: list[Compared] = []
    skipped: dict[str, str] = {}
    for rule, run in {**COMPARISONS, drf.EMBEDDING_DRIFT: TESTS[test]}.items():
        try:
            results.append(run(both))
        except Unavailable as reason:
            skipped[rule.code] = str(reason)
    return Checked(both=both, results=_corrected(results), skipped=skipped, level=level)


def report_of(
    checked: Checked, *, params: Mapping[str, Any] | None = None, timings: Mapping[str, float] | None = None
) -> ModelReport:
    """The report of a comparison, in the form that terminal, HTML, JSON, SARIF and JUnit show."""
    from dataaudit.modelcheck.drift.drawing import pictures_of

    both = checked.both
    items = [_finding(rule, candidate, both) for rule, candidate in checked.drifted]
    shown = {item.sample_id for item in items if item.sample_id is not None}
    files = both.production.images["filepath"]
    return ModelReport(
        name=f"{both.production.name} against {both.reference.name}",
        command="drift",
        codes=[result.rule.code for result in checked.results],
        items=items,
        facts=_facts(both),
        params=params or {},
        parts=[_table(checked), *pictures_of(checked)],
        skipped=checked.skipped,
        timings=timings or {},
        images={name: str(files[name]) for name in shown},
        kind="data",
    )


def _corrected(results: list[Compared]) -> tuple[Compared, ...]:
    """The results with p-values that hold for the whole report, by Holm's procedure over the families.

    A candidate's p-value is already corrected for those of its family; what Holm's procedure multiplies the
    family's by, it multiplies the candidate's by.
    """
    order = np.argsort([result.p_value for result in results], kind="stable")
    found: list[Compared | None] = [None] * len(results)
    least = 0.0
    for rank, at in enumerate(order):
        result, factor = results[at], len(results) - rank
        least = max(least, min(result.p_value * factor, 1.0))
        candidates = [
            Candidate(**{**vars(each), "p_value": max(least, min(each.p_value * factor, 1.0))})
            for each in result.candidates
        ]
        found[at] = Compared(rule=result.rule, p_value=least, candidates=candidates)
    return tuple(result for result in found if result is not None)


def _finding(rule: Rule, candidate: Candidate, both: Pairing) -> Finding:
    examples = list(candidate.examples)
    return finding(
        rule,
        candidate.item,
        candidate.message,
        advice=candidate.advice,
        evidence={
            "p_value": candidate.p_value,
            "effect": candidate.effect,
            "effect_words": candidate.effect_words,
            **candidate.evidence,
            "examples": examples,
            "n_reference": len(both.reference),
            "n_production": len(both.production),
        },
        sample_id=examples[0]["production"] if examples else None,
        score=min(candidate.p_value, 1.0),
        probability=None,
    )


def _table(checked: Checked) -> Table:
    rows: list[tuple[Any, ...]] = []
    marked = set()
    for result in checked.results:
        for candidate in result.candidates:
            if candidate.p_value <= checked.level:
                marked.add(len(rows))
            rows.append(
                (result.rule.code, candidate.item, candidate.effect_words, _rounded(candidate.p_value))
            )
    note = (
        f"p-values hold for the whole report: below {checked.level:g} is drift, and a report without any "
        f"drift has one in at most {checked.level:.0%} of cases."
    )
    return Table(
        title="Compared",
        columns=("code", "what", "difference", "p-value"),
        rows=tuple(rows),
        marked=frozenset(marked),
        note=note,
    )


def _rounded(value: float) -> float:
    return float(f"{value:.2g}")


def _facts(both: Pairing) -> list[str]:
    facts = [f"{len(both.reference):,} against {plural(len(both.production), 'image')}"]
    if both.n_repeats:
        facts.append(f"{both.n_repeats:,} show the picture of another one of their side and don't count")
    if both.n_shared:
        facts.append(f"{both.n_shared:,} of production are in the reference as well")
    for side, name in ((both.reference, "the reference"), (both.production, "production")):
        if len(side.errors):
            facts.append(f"{plural(len(side.errors), 'file')} of {name} can't be decoded")
    return facts


def _no_difference(both: Pairing) -> str:
    if both.n_shared:
        return "every picture of production is in the reference"
    return "there is one group of images on each side at most, so that chance can't be told from drift"
