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
from dataaudit.modelcheck.findings import finding, line_of, place_of, said
from dataaudit.modelcheck.inputs import Batch, Inputs, length
from dataaudit.modelcheck.keeping import kept
from dataaudit.modelcheck.training import paths as looked
from dataaudit.modelcheck.training import weights
from dataaudit.modelcheck.training.at_sight import SUSPECTED, judge_settings, last_activation
from dataaudit.modelcheck.training.causes import causes
from dataaudit.modelcheck.training.loss_range import LossRange, loss_range
from dataaudit.modelcheck.training.own_steps import judge_step
from dataaudit.modelcheck.training.runs import Run
from dataaudit.modelcheck.training.setups import Loss, MakeOptimizer, Setup, Step, TrainStep, setup_of
from dataaudit.modelcheck.training.trials import Bench, Change, prepare, unsound_inputs
from dataaudit.types import Finding

__all__ = ["CODES", "Overfit", "overfit"]

CODES = (*(f"TRN{number:03d}" for number in range(1, 15)), "TRN020", "TRN021", "TRN022")


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
        with kept(*setup.roots, eager=True) as state, torch.enable_grad():
            prepare(model)
            torch.manual_seed(seed)
            seen = looked.look(setup, state)
            prepare(model)
            if seen.error is not None:
                told = _told(setup, seen)
                if told is None:
                    raise _raised(seen.error) from seen.error
                return Overfit(findings=[told], run=Run(losses=()), tried=(), n=length(setup.inputs))
            bounds = loss_range(setup)
            bare = last_activation(setup, seen, bounds)
            bench = Bench(setup=setup, state=state, seconds=seconds, bounds=bounds, seed=seed, bare=bare)
            found = [*judge_step(setup, state), *_batch(setup)]
            state.restore()
            prepare(model)
            found += [*looked.judge(setup, seen), *judge_settings(setup, seen, bounds)]
            run = bench.run(Change())
            if not run.learned and not _enough(run, bounds):
                found += causes(bench, seen, run, found)
    tried = tuple(
        (str(change), done.learned, done.losses[-1] if done.losses else None) for change, done in bench.tried
    )
    return Overfit(findings=_ordered(found), run=run, tried=tried, n=length(setup.inputs))


def _raised(error: Exception) -> InputError:
    return InputError(
        f"The training step raised {said(error)}", where=line_of(error),
        fix="Run dataaudit model loss, which says what the loss doesn't like.",
    )  # fmt: skip


def _told(setup: Setup, seen: looked.Paths) -> Finding | None:
    """The finding for an error that says its cause; None for any other."""
    message = str(seen.error)
    again = "backward through the graph a second time" in message
    given = setup.train_step or setup.step
    if given is not None and seen.steps and (again or "modified by an inplace operation" in message):
        return finding(
            trn.TRAINING_STEP, getattr(given, "__name__", type(given).__name__),
            f"Step {seen.steps + 1} takes the gradient of what an earlier step computed, and fails: "
            f"{said(seen.error) if seen.error else ''}.",
            advice="Call the model in every step; detach() what is carried over from one step to the next, "
            "and leave out retain_graph.", source=place_of(given), evidence={"error": message[:500]},
        )  # fmt: skip
    if "more than 1 value per channel" in message:
        norms = [name for name, one in setup.model.named_modules() if _is_norm(one)]
        reached = [name for name in norms if name not in seen.events.ends]
        name = next(iter(reached or norms), "batch norm")
        return finding(
            trn.NORMALISATION, name,
            f"{name} is given one value a channel ({length(setup.inputs)} samples), of which batch norm "
            "can't take a deviation in train mode.",
            advice="A larger batch (drop_last=True where the last one is small), or group or layer norm "
            "after global pooling.", evidence={"error": message[:500]},
        )  # fmt: skip
    return None


def _is_norm(module: nn.Module) -> bool:
    return isinstance(module, nn.modules.batchnorm._BatchNorm)


def _enough(run: Run, bounds: LossRange | None) -> bool:
    """Whether a run that didn't end is no cause for concern: the loss still falls, or fell where its floor
    isn't known."""
    if not run.losses or (bounds is not None and bounds.inverted):
        return False
    if run.falling or (run.cut and len(run.losses) > 5 and run.losses[-1] < 0.9 * run.losses[0]):
        return True
    if run.correct is None and len(run.losses) > 1:
        return run.losses[-1] < 0.7 * run.losses[0]
    numbers = bounds is not None and bounds.right == 0 and run.correct is not None and run.correct >= 0.5
    return numbers and bounds is not None and bounds.reached(run.losses[-1])


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


def _ordered(found: Sequence[Finding]) -> list[Finding]:
    """Each finding once, the surest and most telling first; a suspicion that turned out sure is left out."""
    rank = {"TRN007": 0, "TRN014": 1, "TRN002": 2, "TRN012": 3, "TRN006": 4, "TRN003": 5}
    sure = {item.code for item in found if item.score < SUSPECTED}
    seen: dict[str, Finding] = {}
    for item in found:
        if item.score < SUSPECTED or item.score > SUSPECTED or item.code not in sure:
            seen.setdefault(item.key, item)
    return sorted(
        seen.values(),
        key=lambda item: (item.score, rank.get(item.code, 6 if item.code.startswith("MOD") else 7)),
    )
