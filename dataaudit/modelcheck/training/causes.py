"""Why a batch isn't learned: one thing after another is changed, and the smallest that helps is named."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from dataaudit.modelcheck.families import trn
from dataaudit.modelcheck.findings import finding, place_of
from dataaudit.modelcheck.training import weights
from dataaudit.modelcheck.training.at_sight import odd_weights, scale_fault
from dataaudit.modelcheck.training.own_steps import Randomness, randomness
from dataaudit.modelcheck.training.paths import Paths
from dataaudit.modelcheck.training.runs import Run
from dataaudit.modelcheck.training.setups import RATES, Setup
from dataaudit.modelcheck.training.trials import Bench, Change, frozen_norms, prepare, rate_of
from dataaudit.types import Finding

__all__ = ["causes"]


def causes(bench: Bench, seen: Paths, run: Run, known: Sequence[Finding]) -> Iterator[Finding]:
    """Try changes on a batch that `run` didn't learn; within `kept`.

    Args:
        bench: which has done `run` as the user has it.
        seen: what the first steps showed.
        run: it.
        known: what is wrong in any case; what is sure among it ends the search.
    """
    setup = bench.setup
    sure = {item.code for item in known if item.score < 0.3}
    if sure & {"TRN002", "TRN006", "TRN007", "TRN012", "TRN014"} or (sure & {"TRN011"} and seen.frozen):
        return
    if "TRN003" in sure and bench.first([Change(complete_optimizer=True)]):
        return
    if seen.broken:
        yield from _broken(bench)
        return
    if _stale(run):
        yield _stale_output(setup, run)
        return
    bench.state.restore()
    found = _loss(setup)
    yield from found
    if any(item.score < 0.3 for item in found):
        return
    bench.state.restore()
    prepare(setup.model)
    noise = randomness(setup, bench.state)
    helps = bench.first(_suspected(bench, seen, run, noise))
    if helps is not None:
        yield weights.said(bench, run, helps, seen, noise)
        return
    yield from _searched(bench, seen, run, noise)


def _searched(bench: Bench, seen: Paths, run: Run, noise: Randomness) -> Iterator[Finding]:
    """Everything is changed together, and then less and less of it."""
    model = bench.setup.model
    odd_scale = scale_fault(seen.events.entry) is not None
    every = Change(unfreeze=bool(seen.frozen), norms=bool(frozen_norms(model)),
                   no_decay=weights.decay_of(bench.setup) > 0,
                   no_dropout=bool(seen.events.dropouts), fresh_optimizer=1e-3, same_seed=noise.any,
                   standardised=odd_scale)  # fmt: skip
    fresh = replace(every, fresh_weights=True)
    lower, higher = replace(every, fresh_optimizer=1e-4), replace(every, fresh_optimizer=1e-2)
    wide = bench.first([every, lower, higher, fresh])
    bench.state.restore()
    prepare(model)
    if wide is None:
        last = weights.deepest(bench, seen, run, None)
        if last.code == "TRN001" and bench.left <= 0:
            yield from weights.unfinished(bench, run, _suspected(bench, seen, run, noise))
            return  # what rests on all trials can't be said after some of them
        if last.code != "TRN001" or not run.losses or run.losses[-1] > 0.9 * run.losses[0]:
            yield last
        return
    if wide.fresh_weights:
        least = bench.first([Change(fresh_weights=True)]) or wide
        yield weights.deepest(bench, seen, run, least)
        return
    single = bench.first(_singles(bench, seen, run, noise))
    if single is None:
        single = _smallest(bench, wide)
    yield weights.said(bench, run, single, seen, noise)


def _suspected(bench: Bench, seen: Paths, run: Run, noise: Randomness) -> list[Change]:
    """Single changes that something speaks for, the likeliest first."""
    setup, decay = bench.setup, weights.decay_of(bench.setup)
    found: list[Change] = []
    if run.rates[1] < 0.3 * run.rates[0]:
        found.append(Change(fixed_rate=True))
    if scale_fault(seen.events.entry) is not None:
        found.append(Change(standardised=True))
    if frozen_norms(setup.model):
        found.append(Change(norms=True))
    if decay >= 0.1:
        found.append(Change(no_decay=True))
    if max((rate for rate, _ in seen.events.dropouts), default=0.0) > 0.6:
        found.append(Change(no_dropout=True))
    if noise.any:
        found.append(Change(same_seed=True))
    if bench.bare is not None:
        found.append(Change(bare_output=True))
    if setup.own_optimizer and not 1e-3 < _usual(setup) < 1e3:
        found += [Change(rate=float(f"{_usual(setup):.0e}"))] if rate_of(setup) > 0 else []
    if any(grave or "all" in why for _, why, grave in odd_weights(setup.model)):
        found.append(Change(fresh_weights=True))
    return found


def _usual(setup: Setup) -> float:
    """What the rate is to be multiplied by to be the usual one of its optimizer."""
    return RATES.get(type(setup.optimizer).__name__, 1e-3) / max(rate_of(setup), 1e-30)


def _singles(bench: Bench, seen: Paths, run: Run, noise: Randomness) -> list[Change]:
    """All single changes but those that were tried, the smallest first."""
    setup = bench.setup
    options: list[Change] = []
    factors: tuple[float, ...] = (10.0, 100.0, 0.1, 1e3, 0.01, 1e4, 1e6)
    if run.broke or rate_of(setup) >= 0.3:
        factors = (0.1, 0.01, 1e-3, 1e-4, 10.0, 100.0)
    if setup.own_optimizer and rate_of(setup) > 0:
        options += [Change(rate=factor) for factor in factors]
    if seen.events.dropouts:
        options.append(Change(no_dropout=True))
    if seen.frozen:
        options.append(Change(unfreeze=True))
    if weights.decay_of(setup) > 0:
        options.append(Change(no_decay=True))
    if setup.own_optimizer:
        options.append(Change(fresh_optimizer=1e-3))
    done = {change for change, _ in bench.tried}
    return [one for one in options if one not in done]


def _smallest(bench: Bench, change: Change) -> Change | None:
    """`change` less all that isn't needed; None where time is up before that is known."""
    for part in change.parts():
        less = change.without(part)
        if less == Change():
            break
        if bench.left <= 0:
            return None
        if bench.run(less).learned:
            change = less
    return change


def _broken(bench: Bench) -> Iterator[Finding]:
    """TRN020: the first step isn't finite."""
    from dataaudit.modelcheck.training.gradient_flow import nonfinite

    bench.state.restore()
    prepare(bench.setup.model)
    yield from nonfinite(bench.setup)


def _loss(setup: Setup) -> list[Finding]:
    """What the check of loss inputs says, where there is a loss to look at."""
    if setup.train_step is not None:
        return []
    from dataaudit.modelcheck.losses import loss_inputs

    try:
        return loss_inputs(setup.model, setup.loss, setup.inputs, setup.targets, step=setup.step)
    except Exception:  # its own errors are shown by its own command
        return []


def _stale(run: Run) -> bool:
    """Whether the weights move, and the loss stays what it was to the last digit."""
    if len(run.losses) <= 10 or not math.isfinite(run.losses[0]):
        return False
    return len(set(run.losses)) == 1 and run.moved > 1e-3


def _stale_output(setup: Setup, run: Run) -> Finding:
    given = setup.train_step or setup.step or setup.loss
    return finding(
        trn.TRAINING_STEP, getattr(given, "__name__", type(given).__name__),
        f"In {len(run.losses)} steps the weights change by {run.moved:.0%}, and the loss stays "
        f"{run.losses[0]:.6g} to the last digit: it is that of an output made earlier, or doesn't depend on "
        "the weights.",
        advice="Call the model in every step, and compute the loss from what it returns then.",
        source=place_of(given) if given is not None else None,
        evidence={"loss": run.losses[0], "steps": len(run.losses), "moved": run.moved},
    )  # fmt: skip
