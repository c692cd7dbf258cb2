"""Can the model learn one small batch by heart, and if not, why not?"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim.optimizer import Optimizer

from dataaudit.errors import InputError
from dataaudit.modelcheck.families import trn
from dataaudit.modelcheck.findings import finding
from dataaudit.modelcheck.inputs import Batch, Inputs, length
from dataaudit.modelcheck.keeping import kept
from dataaudit.modelcheck.training import paths as looked
from dataaudit.modelcheck.training import weights
from dataaudit.modelcheck.training.own_steps import judge_step
from dataaudit.modelcheck.training.runs import Run
from dataaudit.modelcheck.training.setups import (
    RATES,
    Loss,
    MakeOptimizer,
    Setup,
    Step,
    TrainStep,
    setup_of,
)
from dataaudit.modelcheck.training.trials import (
    Bench,
    Change,
    frozen_norms,
    largest_dropout,
    prepare,
    rate_of,
    unsound_inputs,
)
from dataaudit.types import Finding

__all__ = ["CODES", "Overfit", "overfit"]

CODES = tuple(f"TRN{number:03d}" for number in range(1, 14))

TOGETHER = Change(unfreeze=True, norms=True, no_dropout=True, no_decay=True, fresh_optimizer=1e-3)


@dataclass(frozen=True, kw_only=True)
class Overfit:
    """What came of learning one batch.

    Attributes:
        findings: why it can't be learned, the cause first, and what else is wrong on the way.
        run: as the user has it.
        tried: each change that was tried, in words, with whether it learned and its last loss.
        n: samples of the batch.
    """

    findings: list[Finding]
    run: Run
    tried: tuple[tuple[str, bool, float | None], ...]
    n: int

    @property
    def learned(self) -> bool:
        """Whether the batch was learned as the user has it."""
        return self.run.learned

    @property
    def said(self) -> str:
        """The outcome in a sentence."""
        losses = self.run.losses
        fell = f", loss {losses[0]:.3g} to {losses[-1]:.3g}" if losses else ""
        if self.learned:
            return f"{self.n} samples learned in {len(losses)} steps{fell}"
        end = "; the loss still falls" if self.run.falling else ""
        return f"{self.n} samples not learned in {len(losses)} steps{fell}{end}"


def overfit(
    model: nn.Module,
    loss: Loss | None,
    inputs: Inputs | Batch,
    targets: Any = None,
    *,
    step: Step | None = None,
    train_step: TrainStep | None = None,
    optimizer: Optimizer | MakeOptimizer | None = None,
    scaler: Any = None,
    seconds: float = 60.0,
    seed: int = 0,
) -> Overfit:
    """Let the model learn one small batch by heart; when it can't, change one thing at a time to see why.

    Every run starts from the model's state, and all of it is put back at the end. The model is trained in
    train mode; parts that are in eval mode inside a model in train mode stay so.

    Args:
        model: the model.
        loss: of prediction and target; None where the model computes it itself from inputs and targets.
        inputs: a few samples, or a `Batch` with targets.
        targets: what the loss takes; those of the batch when left out.
        step: in place of `loss`, a function of the model and ``(inputs, targets)`` that returns the loss.
        train_step: in place of `loss`, a function of the model, the optimizer and ``(inputs, targets)`` that
            does a whole step.
        optimizer: yours, a function of the model that makes it, or a class of ``torch.optim``; AdamW at 0.001
            when left out.
        scaler: ``torch.amp.GradScaler``, where the step is of mixed precision.
        seconds: for everything; a sound model takes a few.
        seed: of the random numbers of every run.

    Raises:
        InputError: there are no targets, nothing to learn, or the step raises.

    >>> _ = torch.manual_seed(0)
    >>> done = overfit(nn.Linear(16, 3), nn.CrossEntropyLoss(), torch.randn(6, 16), torch.arange(6) % 3,
    ...                optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=1e-9))
    >>> [item.code for item in done.findings]
    ['TRN004']
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        setup = setup_of(model, loss, inputs, targets, step=step, train_step=train_step,
                         optimizer=optimizer, scaler=scaler)  # fmt: skip
        with kept(*setup.roots) as state, torch.enable_grad():
            prepare(model)
            torch.manual_seed(seed)
            seen = looked.look(setup, state)
            if seen.error is not None:
                raise _raised(seen.error) from seen.error
            bench = Bench(setup=setup, state=state, seconds=seconds, seed=seed)
            found = [*judge_step(setup, state), *_batch(setup)]
            state.restore()
            prepare(model)
            found += looked.judge(setup, seen)
            run = bench.run(Change())
            if not run.learned and not _enough(run):
                found += _causes(bench, seen, run, found)
    tried = tuple(
        (str(change), done.learned, done.losses[-1] if done.losses else None) for change, done in bench.tried
    )
    return Overfit(findings=_ordered(found), run=run, tried=tried, n=length(setup.inputs))


def _raised(error: Exception) -> InputError:
    from dataaudit.modelcheck.findings import line_of, said

    return InputError(
        f"The training step raised {said(error)}", where=line_of(error),
        fix="Run dataaudit model loss, which says what the loss doesn't like.",
    )  # fmt: skip


def _enough(run: Run) -> bool:
    """Whether a run that didn't end is no cause for concern: the loss still falls, or fell where its floor
    isn't known."""
    if run.falling:
        return True
    return run.correct is None and len(run.losses) > 1 and run.losses[-1] < 0.7 * run.losses[0]


def _batch(setup: Setup) -> Iterator[Finding]:
    """TRN006 and TRN012: what is wrong with the batch itself."""
    unsound = unsound_inputs(setup.inputs)
    if unsound is not None:
        yield finding(
            trn.INPUT_SCALE, "inputs", f"Of the batch {unsound}.",
            advice="Look at the loader and the transform.", evidence={"inputs": unsound},
        )  # fmt: skip
        return
    pair = weights.contradiction(setup.inputs, setup.targets)
    if pair is None:
        return
    a, b, n = pair
    names = [setup.sample_ids[at] if at < len(setup.sample_ids) else f"sample {at}" for at in (a, b)]
    total = length(setup.inputs)
    if n == total and total > 2:
        what = f"All {total} inputs of the batch are equal, and their targets aren't."
        advice = "Look at the loader and the transform: they hand out one image again and again."
    else:
        what = f"{names[0]} and {names[1]} are equal pixel by pixel and have other targets."
        advice = "Correct the label; dataaudit audit finds such pairs in the whole dataset."
    yield finding(
        trn.CONTRADICTING_LABELS, "targets", what, advice=advice,
        evidence={"samples": names}, sample_id=setup.sample_ids[b] if b < len(setup.sample_ids) else None,
    )  # fmt: skip


def _causes(bench: Bench, seen: looked.Paths, run: Run, known: Sequence[Finding]) -> Iterator[Finding]:
    """Why the batch can't be learned."""
    setup = bench.setup
    sure = {item.code for item in known}
    if sure & {"TRN002", "TRN006", "TRN007", "TRN012"} or (sure & {"TRN011"} and seen.frozen):
        return
    if "TRN003" in sure and bench.first([Change(complete_optimizer=True)]):
        return
    bench.state.restore()
    yield from _loss(setup)
    if bench.run(TOGETHER).learned:
        yield _single(bench, seen, run)
        return
    wide = [
        Change(unfreeze=True, norms=True, no_dropout=True, no_decay=True, fresh_optimizer=1e-4),
        Change(unfreeze=True, norms=True, no_dropout=True, fresh_optimizer=1e-3, standardised=True),
        Change(unfreeze=True, norms=True, no_dropout=True, fresh_optimizer=1e-3, fresh_weights=True),
    ]
    helps = bench.first(wide)
    if helps is wide[0]:
        yield _single(bench, seen, run)
        return
    bench.state.restore()
    prepare(setup.model)
    last = weights.deepest(bench, seen, run, helps)
    if last.code == "TRN001" and bench.left <= 0:
        return  # what rests on all trials can't be said after some of them
    if last.code != "TRN001" or not run.losses or run.losses[-1] > 0.9 * run.losses[0]:
        yield last


def _loss(setup: Setup) -> list[Finding]:
    """What the check of loss inputs says, where there is a loss to look at."""
    if setup.train_step is not None:
        return []
    from dataaudit.modelcheck.losses import loss_inputs

    try:
        return loss_inputs(setup.model, setup.loss, setup.inputs, setup.targets, step=setup.step)
    except Exception:  # its own errors are shown by its own command
        return []


def _single(bench: Bench, seen: looked.Paths, run: Run) -> Finding:
    """The one change that suffices; everything together is known to."""
    setup = bench.setup
    model = setup.model
    decay = max((float(group.get("weight_decay", 0)) for group in setup.optimizer.param_groups), default=0.0)
    options: list[Change] = []
    if frozen_norms(model):
        options.append(Change(norms=True))
    if decay >= 0.1:
        options.append(Change(no_decay=True))
    if largest_dropout(model) > 0.6:
        options.append(Change(no_dropout=True))
    factors: tuple[float, ...] = (10.0, 100.0, 0.1, 1e3, 0.01, 1e4, 1e6)
    if run.broke or rate_of(setup) >= 0.3:
        factors = (0.1, 0.01, 1e-3, 1e-4, 10.0, 100.0)
    if setup.own_optimizer:
        usual = RATES.get(type(setup.optimizer).__name__, 1e-3) / max(rate_of(setup), 1e-30)
        if not 1e-3 < usual < 1e3:
            factors = (float(f"{usual:.0e}"), 10 * float(f"{usual:.0e}"), *factors)
        options += [Change(rate=factor) for factor in factors]
    options += [Change(no_dropout=True)]
    if seen.frozen:
        options.append(Change(unfreeze=True))
    if 0 < decay < 0.1:
        options.append(Change(no_decay=True))
    if setup.own_optimizer:
        options.append(Change(fresh_optimizer=1e-3))
    helps = bench.first(list(dict.fromkeys(options)))
    bench.state.restore()
    prepare(model)
    return weights.said(bench, run, helps, seen, decay)


def _ordered(found: Sequence[Finding]) -> list[Finding]:
    """Each finding once, the surest and the most telling first."""
    rank = {"TRN007": 0, "TRN002": 1, "TRN012": 2, "TRN006": 3, "TRN003": 4}
    seen: dict[str, Finding] = {}
    for item in found:
        seen.setdefault(item.key, item)
    return sorted(
        seen.values(),
        key=lambda item: (item.score, rank.get(item.code, 5 if item.code.startswith("MOD") else 6)),
    )
