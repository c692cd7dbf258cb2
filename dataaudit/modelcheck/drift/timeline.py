"""Whether production changed along its own time, and when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from dataaudit.errors import Unavailable
from dataaudit.modelcheck.drift.comparisons import Candidate, Compared
from dataaudit.modelcheck.drift.moments import scan, step
from dataaudit.modelcheck.drift.pairing import Pairing
from dataaudit.modelcheck.drift.properties import ASPECTS, MEASURES, number
from dataaudit.modelcheck.drift.statistics import classifier_scores
from dataaudit.modelcheck.drift.times import said, to_numbers
from dataaudit.modelcheck.families import drf

__all__ = ["one_a_moment", "over_time"]

_FEWEST = 20


def over_time(both: Pairing) -> Compared:
    """The likeliest moment at which light, colour, sharpness, size or content of production changed.

    Raises:
        Unavailable: no times, or fewer than 20 images with one.
    """
    times = both.production.times
    if times is None:
        raise Unavailable("it isn't known when the images of production were taken")
    numbers = to_numbers(times)
    rows = both.rows[both.is_production] - len(both.reference)
    rows = rows[~np.isnan(numbers[rows])]
    if len(rows) < _FEWEST:
        raise Unavailable(f"{len(rows)} different images of production have a time; it needs {_FEWEST}")
    rows = rows[np.argsort(numbers[rows], kind="stable")]
    if numbers[rows[0]] == numbers[rows[-1]]:
        raise Unavailable("all images of production were taken at the same time")
    names = list(MEASURES)
    values = both.production.images[names].to_numpy(dtype=np.float64)[rows]
    content = _content(both, rows)
    columns = values if content is None else np.column_stack([values, content])
    together, each = scan(_ranks(columns), n_permutations=both.dealt.labelings.shape[1] - 1)
    found = []
    for aspect in ASPECTS:
        mine = [at for at, name in enumerate(names) if MEASURES[name].aspect == aspect]
        best = min(mine, key=lambda at: each[at])
        found.append(_candidate(both, rows, numbers, columns[:, best], names[best], float(each[best])))
    if content is not None:
        found.append(_candidate(both, rows, numbers, content, "content", float(each[-1])))
    found.sort(key=lambda candidate: (candidate.p_value, -candidate.effect))
    return Compared(rule=drf.CHANGE_IN_TIME, p_value=together, candidates=found)


def one_a_moment(found: Sequence[Candidate]) -> list[Candidate]:
    """Of candidates whose intervals overlap the first, which says what else changed then."""
    kept: list[tuple[Candidate, list[str]]] = []
    for candidate in found:
        first, last = candidate.evidence["between"]
        for other, also in kept:
            begin, end = other.evidence["between"]
            if first <= end and begin <= last:
                also.append(_words(candidate))
                break
        else:
            kept.append((candidate, []))
    return [
        replace(candidate, message=f"{candidate.message} So did: {', '.join(also)}.") if also else candidate
        for candidate, also in kept
    ]


def _words(candidate: Candidate) -> str:
    measure = MEASURES.get(str(candidate.evidence["property"]))
    return "how much it looks like the reference" if measure is None else measure.words


def _content(both: Pairing, rows: Any) -> np.ndarray[Any, np.dtype[np.float64]] | None:
    """How much each image looks like production and not like the reference, by a classifier."""
    if not both.components.shape[1]:
        return None
    scores = np.zeros(len(both.production))
    observed = both.dealt.first()
    scores[both.rows[both.is_production] - len(both.reference)] = classifier_scores(
        both.components, observed, both.groups
    )[both.is_production, 0]
    return np.asarray(scores[rows])


def _ranks(values: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.float64]]:
    from scipy.stats import rankdata

    # One strange image must not make a change
    return np.asarray(rankdata(values, axis=0) / len(values), dtype=np.float64)


def _candidate(
    both: Pairing, rows: Any, numbers: Any, values: np.ndarray[Any, Any], name: str, p_value: float
) -> Candidate:
    assert both.production.times is not None
    ranks = _ranks(values[:, None])[:, 0]
    found = step(ranks)
    before, after = float(values[: found.at].mean()), float(values[found.at :].mean())
    moment, first, last = (
        said(float(numbers[rows[at]]), both.production.times)
        for at in (found.at, max(found.first - 1, 0), min(found.last, len(rows) - 1))
    )
    measure = MEASURES.get(name)
    if measure is None:
        what = f"Production became {'less' if after > before else 'more'} like the reference"
        figures = ""
    else:
        what = f"Production became {measure.more if after > before else measure.less}"
        figures = f": mean {measure.words} {number(after, measure)} after, {number(before, measure)} before"
    sign = 1 if after > before else -1
    scores = np.full(len(both.production), -np.inf)
    scores[rows[found.at :]] = sign * values[found.at :]
    shown = min(6, len(rows) - found.at)
    return Candidate(
        item=f"{name if measure is None else measure.aspect} over time",
        p_value=p_value,
        effect=min(abs(found.after - found.before), 1.0),
        effect_words=f"at {moment}",
        message=f"{what} at {moment} (95% interval: {first} to {last}){figures}.",
        advice="Look at what happened then: a new camera, a season, a release of the software on the way.",
        evidence={
            "property": name,
            "at": moment,
            "first": first,
            "last": last,
            "before": before,
            "after": after,
            "between": [int(found.first), int(found.last)],
        },
        examples=both.examples(scores, shown),
    )
