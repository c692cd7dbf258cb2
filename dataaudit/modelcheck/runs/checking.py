"""Every curve of every run is looked at; what is found becomes a report with plots."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from dataaudit.modelcheck.families import trn_curves as trn
from dataaudit.modelcheck.findings import finding
from dataaudit.modelcheck.reporting import Clock, ModelReport, Picture, Table
from dataaudit.modelcheck.runs import gaps, signs
from dataaudit.modelcheck.runs.drawing import MOST_RUNS, overview, plot
from dataaudit.modelcheck.runs.histories import Curve, History, Pair, pairs_of, rate_of
from dataaudit.modelcheck.runs.reading import Runs, read_runs
from dataaudit.modelcheck.runs.signs import Sight, Sign

__all__ = ["CODES", "curves", "signs_of"]

CODES = tuple(f"TRN0{number}" for number in range(50, 64))
_MOST_PLOTS, _MOST_NOTES = 8, 3
# In this order: what makes those after it meaningless comes first
_BAD = frozenset({"TRN050", "TRN051", "TRN052", "TRN053"})
_SHAPES: tuple[tuple[Callable[[Sight], Sign | None], frozenset[str]], ...] = (
    (signs.rate_effect, frozenset({"TRN052"})),
    (signs.diverging, frozenset({"TRN059"})),
    (signs.flat, frozenset({"TRN051", "TRN052"})),
    (signs.oscillating, _BAD),
    (signs.spikes, frozenset({"TRN050", "TRN051", "TRN054"})),
    (gaps.perfect_validation, frozenset({"TRN052"})),
    (gaps.validation_collapsed, _BAD),
    (gaps.overfitting, _BAD | {"TRN063"}),
    (gaps.validation_better, _BAD | {"TRN062"}),
    (gaps.underfitting, _BAD | {"TRN054", "TRN055", "TRN058", "TRN059", "TRN063"}),
    (signs.plateau, _BAD | {"TRN054", "TRN056", "TRN059"}),
    (gaps.stopped_early, _BAD | {"TRN054", "TRN055", "TRN056", "TRN059", "TRN063"}),
)


def curves(source: Runs, *, pairs: Sequence[str] = (), name: str | None = None) -> ModelReport:
    """Look at the curves of one run or several.

    Args:
        source: what `read_runs` reads: a folder, a file, an MLflow URI, a table, or several.
        pairs: ``TRAIN,VALIDATION`` or ``TRAIN,VALIDATION,higher``: which curves belong together; found by
            their names when left out.
        name: what the report is about; the source when left out.

    Returns:
        A report with the findings in `items`, a table of the runs, and a plot for each run with a finding.

    Raises:
        InputError: nothing there, no loss or metric among the curves, or an unknown name in `pairs`.
    """
    clock = Clock()
    with clock("read"):
        histories = read_runs(source)
    title = name or (str(source) if isinstance(source, str) or hasattr(source, "name") else "runs")
    items, rows, pairs_each = [], [], []
    marked: set[int] = set()
    pictures: list[Picture] = []
    with clock("check and draw"):
        for number, history in enumerate(histories):
            found = signs_of(history, pairs)
            chosen = pairs_of(history, pairs)
            several = len(histories) > 1
            items += [_finding(sign, history.name if several else None) for sign in found]
            rows.append(_row(history, chosen, found))
            pairs_each.append(chosen)
            if found:
                marked.add(number)
                if len(pictures) < _MOST_PLOTS:
                    note = " ".join(sign.what for sign in found)
                    pictures.append(Picture(title=history.name, png=plot(history, chosen, found), note=note))
        pictures = _overview(histories, pairs_each, marked) + pictures
    columns = (
        "run",
        "points",
        "curve",
        "training at the end",
        "validation at the end",
        "best",
        "at",
        "found",
    )
    table = Table(
        title="Runs", columns=columns, rows=tuple(rows), marked=frozenset(marked), note=_notes(histories)
    )
    n = sum(len(history.curves) for history in histories)
    return ModelReport(
        name=title, command="curves", codes=CODES, items=items, kind="run", parts=(table, *pictures),
        facts=[f"{len(histories)} run{'s' * (len(histories) != 1)}", f"{n} curves"], timings=clock.seconds,
        params={"pairs": list(pairs)}, skipped=_skipped(histories, pairs),
    )  # fmt: skip


def signs_of(history: History, pairs: Sequence[str] = ()) -> list[Sign]:
    """What the curves of one run show, surest first; each defect once, by the curve that shows it best."""
    chosen = pairs_of(history, pairs)
    found: dict[str, Sign] = {}
    for pair in chosen:
        for curve in _logged(history, pair):
            for look in (signs.nonfinite, signs.zero_loss) if pair.better == "lower" else (signs.nonfinite,):
                _keep(found, look(curve.name, curve, pair.unit))
    losses = [pair for pair in chosen if pair.better == "lower"][:4]
    metric = next((pair for pair in chosen if pair.better == "higher"), None)
    # Where validation has no loss its metric is looked at too
    seen = any(len(pair.val[1]) >= signs.FEWEST for pair in losses)
    looked = losses if seen or metric is None else [*losses, metric]
    for pair in looked:
        own: dict[str, Sign] = {code: sign for code, sign in found.items() if sign.curve in pair.names}
        see = _sight(pair, metric, rate_of(history))
        if pair.better == "higher" and losses and len(see.train) < signs.FEWEST:
            of_loss = _sight(losses[0], metric, None)
            see = replace(see, train=of_loss.train, at_train=of_loss.at_train)
            own = dict(found)
        for look_at, unless in _SHAPES:
            if not unless & own.keys():
                sign = look_at(see)
                _keep(own, sign)
                _keep(found, sign)
    return sorted(found.values(), key=lambda sign: sign.score)


def _keep(found: dict[str, Sign], sign: Sign | None) -> None:
    if sign is not None and (sign.rule.code not in found or sign.score < found[sign.rule.code].score):
        found[sign.rule.code] = sign


def _logged(history: History, pair: Pair) -> list[Curve]:
    names = dict.fromkeys((*pair.names, pair.raw.name if pair.raw is not None else None))
    return [history.curves[name] for name in names if name is not None]


def _sight(pair: Pair, metric: Pair | None, rate: Curve | None) -> Sight:
    top = 0.0
    if pair.better == "higher":
        both = np.concatenate([pair.train[1], pair.val[1]])
        highest = float(np.nanmax(both, initial=0.0))
        top = 1.0 if highest <= 1 else 100.0 if highest <= 100 else highest * 1.05
    sides = []
    for x, y in (pair.train, pair.val):
        fine = np.isfinite(y)
        sides += [x[fine], top - y[fine] if pair.better == "higher" else y[fine]]
    if rate is not None and pair.unit == "epoch":
        rate = None if rate.epoch is None else replace(rate, x=rate.epoch)
    return Sight(
        pair=pair, at_train=sides[0], train=sides[1], at_val=sides[2], val=sides[3], metric=metric, rate=rate,
        top=top if pair.better == "higher" else None,
    )  # fmt: skip


def _finding(sign: Sign, run: str | None) -> Any:
    where = sign.curve if run is None else f"{run}: {sign.curve}"
    evidence = {"curve": sign.curve, **({"run": run} if run else {}), **sign.figures}
    return finding(sign.rule, where, sign.what, advice=sign.advice, evidence=evidence, score=sign.score)


def _row(history: History, pairs: Sequence[Pair], found: Sequence[Sign]) -> tuple[Any, ...]:
    codes = ", ".join(sign.rule.code for sign in found)
    if not pairs:
        return history.name, None, "no loss or metric", None, None, None, None, codes
    pair = pairs[0]
    (_, train), (at, val) = pair.train, pair.val
    side_at, side = (at, val) if np.isfinite(val).any() else pair.train
    best = None
    if np.isfinite(side).any():
        best = int(np.nanargmin(side) if pair.better == "lower" else np.nanargmax(side))
    return (
        history.name, max(len(train), len(val)), pair.quantity,
        float(train[-1]) if len(train) else None, float(val[-1]) if len(val) else None,
        None if best is None else float(side[best]),
        None if best is None else f"{pair.unit} {side_at[best]:,.0f}", codes,
    )  # fmt: skip


def _overview(
    histories: Sequence[History], pairs: Sequence[Sequence[Pair]], marked: set[int]
) -> list[Picture]:
    png = overview(histories, pairs, [number in marked for number in range(len(histories))])
    if png is None:
        return []
    left = len(histories) - MOST_RUNS
    note = "Coloured: runs with findings. Grey: the others."
    return [
        Picture(title="All runs", png=png, note=note + (f" {left} more aren't drawn." if left > 0 else ""))
    ]


def _notes(histories: Sequence[History]) -> str:
    """Where steps were brought into order, of the first few curves."""
    several = len(histories) > 1
    notes = [f"{one.name}: {note}" if several else note for one in histories for note in one.notes]
    more = len(notes) - _MOST_NOTES
    return " ".join(notes[:_MOST_NOTES]) + (f" And {more} more curves so." if more > 0 else "")


def _skipped(histories: Sequence[History], asked: Sequence[str]) -> dict[str, str]:
    """What no run has the curves for."""
    pairs = [pair for history in histories for pair in pairs_of(history, asked)]
    skipped: dict[str, str] = {}
    if not any(len(pair.val[1]) >= signs.FEWEST for pair in pairs):
        reason = f"it needs {signs.FEWEST} points of a validation curve"
        rules = (trn.OVERFITTING, trn.UNDERFITTING, trn.VALIDATION_BETTER, trn.PERFECT_VALIDATION)
        skipped |= {rule.code: reason for rule in rules}
    if all(rate_of(history) is None for history in histories):
        skipped[trn.RATE_EFFECT.code] = "it needs the learning rate, as a curve named lr"
    if not any(len(pair.train[1]) >= signs.FEWEST for pair in pairs):
        reason = f"it needs {signs.FEWEST} points of a training loss"
        rules = (trn.DIVERGING_CURVE, trn.FLAT_CURVE, trn.SPIKES, trn.PLATEAU)
        skipped |= {rule.code: reason for rule in rules}
    return skipped
