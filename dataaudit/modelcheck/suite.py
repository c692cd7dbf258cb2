"""The sanity suite: the checks to run before training, on one batch, with one list of causes."""

from __future__ import annotations

import inspect
import math
import time
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from dataaudit.errors import DataAuditError, InputError
from dataaudit.modelcheck import losses, ranking, repeating, tracing
from dataaudit.modelcheck.families import mod
from dataaudit.modelcheck.findings import finding, line_of, place_of, said
from dataaudit.modelcheck.inputs import Batch, Inputs, is_detector, random_batch, tensors
from dataaudit.modelcheck.keeping import kept
from dataaudit.modelcheck.reporting import ModelReport, Picture, Table
from dataaudit.modelcheck.training import gradient_flow, overfitting
from dataaudit.modelcheck.training.gradient_flow import Gradients
from dataaudit.modelcheck.training.overfitting import Overfit
from dataaudit.modelcheck.training.setups import (
    Loss,
    MakeOptimizer,
    Setup,
    Step,
    TrainStep,
    setup_of,
)
from dataaudit.types import Finding

if TYPE_CHECKING:
    from torch.optim.optimizer import Optimizer

__all__ = ["CHECKS", "CODES", "Sanity", "sanity"]

CHECKS: Mapping[str, tuple[str, ...]] = {
    "trace": tracing.CODES,
    "loss inputs": losses.CODES,
    "determinism": repeating.CODES,
    "gradients": gradient_flow.CODES,
    "overfit": overfitting.CODES,
}
"""The checks in the order in which they run, and the codes that each looks for."""

CODES = tuple(dict.fromkeys([*(code for codes in CHECKS.values() for code in codes), "MOD040"]))

_PASSES: Mapping[str, int] = {
    "trace": 10,
    "loss inputs": 5,
    "determinism": 14,
    "gradients": 16,
    "overfit": 16,
}
"""Forward passes that a check of a sound model is worth; what runs first takes more than its own."""


@dataclass(frozen=True, kw_only=True)
class Sanity:
    """What the checks of the suite say together.

    Attributes:
        findings: the causes, first what comes before the others; what follows from one is in its evidence
            under ``explains``.
        explained: a finding that follows from another, and that other.
        passed_over: what statistics of gradients show in a set-up that learns its batch, which is no fault by
            itself.
        skipped: check to the reason why it didn't run, or not to its end.
        timings: seconds by check.
        trace: the layers in eval mode, or None where it didn't run.
        gradients: of the first steps, or None.
        overfit: what came of learning the batch, or None.
        facts: short texts about model and batch.
        images: sample id to image file.
    """

    findings: list[Finding]
    explained: tuple[tuple[Finding, Finding], ...] = ()
    passed_over: tuple[Finding, ...] = ()
    skipped: Mapping[str, str] = field(default_factory=dict)
    timings: Mapping[str, float] = field(default_factory=dict)
    trace: tracing.Trace | None = None
    gradients: Gradients | None = None
    overfit: Overfit | None = None
    facts: tuple[str, ...] = ()

    @property
    def learned(self) -> bool | None:
        """Whether the batch was learned as the user has it; None where that wasn't tried."""
        return None if self.overfit is None else self.overfit.learned

    def report(
        self, name: str = "model", *, params: Mapping[str, Any] | None = None, whole: bool = True
    ) -> ModelReport:
        """A report for the terminal, HTML and JSON.

        Args:
            name: what was checked, as its heading.
            params: settings, ready for JSON.
            whole: with the tables of layers and gradients and the curve of the loss.
        """
        skipped = {code: reason for check, reason in self.skipped.items() for code in CHECKS[check]}
        gone = {code for code in skipped if not any(item.code == code for item in self.findings)}
        below = {item.code for item in (*(item for item, _ in self.explained), *self.passed_over)}
        return ModelReport(
            name=name, command="sanity", codes=[code for code in CODES if code not in below],
            items=ranking.with_rising_scores(self.findings),
            facts=self.facts if self.overfit is None else (*self.facts, self.overfit.said),
            params=params or {}, parts=[*self._tables(), *(self._details() if whole else ())],
            skipped={code: skipped[code] for code in sorted(gone)}, timings=self.timings,
        )  # fmt: skip

    def _tables(self) -> list[Table | Picture]:
        rows: tuple[tuple[Any, ...], ...] = tuple(
            (check, self.timings.get(check), self.skipped.get(check) or self._outcome(check))
            for check in CHECKS
        )
        parts: list[Table | Picture] = [
            Table(title="What was run", columns=("check", "seconds", "outcome"), rows=rows)
        ]
        if self.explained:
            rows = tuple(
                (item.code, item.item_id, _first_sentence(item), f"{cause.code} {cause.item_id}")
                for item, cause in self.explained
            )
            parts.append(Table(title="What follows from it", rows=rows,
                               columns=("code", "about", "what", "explained by")))  # fmt: skip
        if self.passed_over:
            rows = tuple((item.code, item.item_id, _first_sentence(item)) for item in self.passed_over)
            parts.append(Table(title="Seen, and no fault", columns=("code", "about", "what"), rows=rows,
                               note="Nothing else points to it."))  # fmt: skip
        if self.overfit is not None and len(self.overfit.tried) > 1:
            rows = tuple((change, "yes" if ok else "no", loss) for change, ok, loss in self.overfit.tried)
            parts.append(Table(title="What was tried", columns=("change", "learned", "last loss"), rows=rows))
        return parts

    def _outcome(self, check: str) -> str:
        if check == "overfit" and self.overfit is not None:
            return self.overfit.said
        everything = [*self.findings, *(item for item, _ in self.explained), *self.passed_over]
        own = dict.fromkeys(item.code for item in everything if item.code in CHECKS[check])
        return ", ".join(own) or "nothing found"

    def _details(self) -> list[Table | Picture]:
        parts: list[Table | Picture] = []
        if self.overfit is not None and sum(map(math.isfinite, self.overfit.run.losses)) > 1:
            from dataaudit.modelcheck.training import drawing

            parts.append(drawing.losses(self.overfit.run.losses, title="Loss on the one batch"))
        if self.gradients is not None and any(one.norms for one in self.gradients.layers):
            parts.append(self.gradients.table())
        if self.trace is not None:
            parts.append(self.trace.table())
        return parts


def _first_sentence(item: Finding) -> str:
    return str(item.evidence.get("what", item.message))


def sanity(
    model: nn.Module,
    loss: Loss | None = None,
    inputs: Inputs | Batch | None = None,
    targets: Any = None,
    *,
    step: Step | None = None,
    train_step: TrainStep | None = None,
    optimizer: Optimizer | MakeOptimizer | None = None,
    scaler: Any = None,
    seconds: float = 60.0,
    seed: int = 0,
) -> Sanity:
    """Check a set-up before it is trained: layers, loss, determinism, gradients, and learning one batch.

    All checks get the same batch, and their findings become one list with the cause first: what a finding
    explains is shown under it and isn't a finding of its own. Everything is put back.

    Args:
        model: the model.
        loss: of prediction and target; None where the model computes it itself from inputs and targets, as
            torchvision's detection models do.
        inputs: a few samples (8 or so), or a `Batch`; random numbers that fit when left out.
        targets: what the loss takes; without any, only layers and determinism are looked at.
        step: in place of `loss`, a function of the model and ``(inputs, targets)`` that returns the loss.
        train_step: in place of `loss`, a function of the model, the optimizer and ``(inputs, targets)`` that
            does a whole step.
        optimizer: yours, a function of the model that makes it, or a class of ``torch.optim``; AdamW at 0.001
            when left out.
        scaler: ``torch.amp.GradScaler``, where the step is of mixed precision.
        seconds: for everything together; a check that doesn't fit any more is left out with the reason.
        seed: of the random numbers.

    Raises:
        InputError: the arguments don't fit each other, no input can be found that the model takes, or it is
            TorchScript.

    >>> _ = torch.manual_seed(0)
    >>> net = nn.Sequential(nn.Linear(16, 3), nn.Softmax(1))
    >>> done = sanity(net, nn.CrossEntropyLoss(), torch.randn(6, 16), torch.arange(6) % 3)
    >>> [item.code for item in done.findings]
    ['MOD020']
    """
    if isinstance(model, torch.jit.ScriptModule):
        raise InputError(
            "The model is TorchScript, whose layers can't be watched.",
            fix="Give the Python module that it was made from; dataaudit model parity compares the two.",
        )
    if seconds <= 0:
        raise InputError(f"seconds is {seconds:g}; expected more than 0.")
    batch = _batch(model, inputs, targets, seed)
    suite = _Suite(model=model, batch=batch, seconds=seconds, loss=loss, step=step, train_step=train_step,
                   optimizer=optimizer, scaler=scaler, seed=seed)  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        suite.run()
    return suite.result()


def _batch(model: nn.Module, inputs: Inputs | Batch | None, targets: Any, seed: int) -> Batch:
    if isinstance(inputs, Batch):
        return inputs if targets is None else replace(inputs, targets=targets)
    if inputs is None:
        if targets is not None:
            raise InputError("There are targets and no inputs.", fix="Give both, or neither.")
        return random_batch(model, seed=seed)
    return Batch(inputs=inputs, targets=targets, real=targets is not None)


@dataclass(kw_only=True)
class _Suite:
    """One run of the checks."""

    model: nn.Module
    batch: Batch
    seconds: float
    loss: Loss | None
    step: Step | None
    train_step: TrainStep | None
    optimizer: Any
    scaler: Any
    seed: int
    start: float = field(default_factory=time.perf_counter)
    found: list[Finding] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    timings: dict[str, float] = field(default_factory=dict)
    errors: list[tuple[str, Exception]] = field(default_factory=list)
    forward: float = 0.0
    trace: tracing.Trace | None = None
    gradients: Gradients | None = None
    overfit: Overfit | None = None

    @property
    def left(self) -> float:
        return self.seconds - (time.perf_counter() - self.start)

    def run(self) -> None:
        """Run every check that the batch and the time allow."""
        reason = self._no_training()
        self._one("trace", self._trace)
        if reason is None:
            self._one("loss inputs", self._loss_inputs)
        self._one("determinism", self._determinism)
        if reason is None:
            self._one("gradients", self._gradients)
            self._one("overfit", self._overfit)
        else:
            self.skipped.update(dict.fromkeys(("loss inputs", "gradients", "overfit"), reason))

    def _no_training(self) -> str | None:
        """Why nothing can be trained, or None."""
        given = (self.loss, self.step, self.train_step)
        if sum(one is not None for one in given) > 1:
            raise InputError("loss, step and train_step all say what the loss is.", fix="Give one of them.")
        if self.batch.targets is None and self.step is None and self.train_step is None:
            return "the batch has no targets"
        if not any(True for _ in self.model.parameters()):
            return f"{type(self.model).__name__} has no parameters"
        if not any(one is not None for one in given):
            self._takes_targets()
        if any(one.is_inference() for one in [*self.model.parameters(), *tensors(self.batch.inputs)]):
            return "tensors made in inference mode have no gradient"
        return None

    def _takes_targets(self) -> None:
        """Refuse a model without a loss whose forward pass takes no targets."""
        model = self.model
        while isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            model = model.module
        model = getattr(model, "_orig_mod", model)
        forward = inspect.signature(model.forward)
        try:
            forward.bind(self.batch.inputs, self.batch.targets)
        except TypeError:
            raise InputError(
                "Without a loss the model is called with inputs and targets, and "
                f"{type(model).__name__}.forward takes ({', '.join(forward.parameters)}).",
                where=place_of(model), fix="Give a loss, or a step that returns it.",
            ) from None  # fmt: skip

    def _one(self, check: str, act: Callable[[], None]) -> None:
        need = _PASSES[check] * self.forward
        if self.left < need or self.left <= 0:
            self.skipped[check] = f"it needs about {need:.0f} s, and {max(self.left, 0):.0f} s are left"
            return
        begin = time.perf_counter()
        try:
            act()
        except Exception as error:
            if not _is_of_the_user(error):
                raise
            self.errors.append((check, error))
            self.skipped[check] = said(_first_cause(error))
        finally:
            took = self.timings[check] = time.perf_counter() - begin
            # The first passes are slow, as memory is allocated: the fastest check tells what one takes
            self.forward = min(self.forward or took, took / _PASSES[check])

    def _trace(self) -> None:
        self.trace = tracing.trace(self.model, self.batch)
        self.found += self.trace.findings
        if self.trace.error is not None:
            # Once more, for the error itself and its line
            with kept(self.model, self.batch.inputs, eager=True), torch.no_grad():
                from dataaudit.modelcheck.inputs import call

                self.model.eval()
                call(self.model, self.batch.inputs)

    def _setup(self) -> Setup:
        return setup_of(self.model, self.loss, self.batch, step=self.step, train_step=self.train_step,
                        optimizer=self.optimizer, scaler=self.scaler)  # fmt: skip

    def _loss_inputs(self) -> None:
        if self.train_step is None:
            found = losses.loss_inputs(self.model, self.loss, self.batch, step=self.step)
            self.found += [item for item in found if not _is_no_matter_of_shapes(item)]
            return
        setup, train_step = self._setup(), self.train_step
        seen = _Backward()

        def step(model: nn.Module, batch: Any) -> torch.Tensor:
            seen.value = torch.ones((), requires_grad=True)
            with seen:
                train_step(model, setup.optimizer, batch)
            return seen.value

        with kept(*setup.roots, eager=True):
            self.found += losses.loss_inputs(self.model, None, self.batch, step=step)

    def _determinism(self) -> None:
        self.found += repeating.determinism(self.model, self.batch)

    def _gradients(self) -> None:
        self.gradients = gradient_flow.gradients(
            self.model, self.loss, self.batch, step=self.step, train_step=self.train_step,
            optimizer=self.optimizer, scaler=self.scaler,
        )  # fmt: skip
        self.found += self.gradients.findings

    def _overfit(self) -> None:
        self.overfit = overfitting.overfit(
            self.model, self.loss, self.batch, step=self.step, train_step=self.train_step,
            optimizer=self.optimizer, scaler=self.scaler, seconds=self.left, seed=self.seed,
        )  # fmt: skip
        self.found += self.overfit.findings

    def result(self) -> Sanity:
        """The findings of all checks, each cause once."""
        done = self.overfit
        fails = done is not None and any(item.code in CHECKS["overfit"] for item in done.findings)
        settled = ranking.settle(
            [*self.found, *_raised(self.errors, self)],
            sound=done is not None and (done.learned or not fails),
            matching=is_detector(self.model),
        )
        return Sanity(
            findings=list(settled.findings), explained=settled.explained, passed_over=settled.passed_over,
            skipped=dict(self.skipped), timings=dict(self.timings), trace=self.trace,
            gradients=self.gradients, overfit=done, facts=_facts(self.model, self.batch),
        )  # fmt: skip


class _Backward(TorchFunctionMode):
    """Notes the loss of which a step takes the gradient."""

    value: torch.Tensor

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if getattr(func, "__name__", "") == "backward" and args and isinstance(args[0], torch.Tensor):
            self.value = args[0]
        return func(*args, **(kwargs or {}))


def _facts(model: nn.Module, batch: Batch) -> tuple[str, ...]:
    from dataaudit.modelcheck import commands

    return tuple(commands.facts(model, batch))


def _first_cause(error: BaseException) -> BaseException:
    """The exception of the user's code that a check's error was raised from."""
    while isinstance(error, DataAuditError) and error.__cause__ is not None:
        error = error.__cause__
    return error


def _is_of_the_user(error: Exception) -> bool:
    """Whether an exception comes from the user's code, and not from wrong arguments or a check itself."""
    first = _first_cause(error)
    if isinstance(first, DataAuditError):
        return False
    frames = traceback.extract_tb(first.__traceback__)
    return not frames or not Path(frames[-1].filename).is_relative_to(Path(__file__).parent)


def _is_no_matter_of_shapes(item: Finding) -> bool:
    """Whether it only repeats an error of the user's code that PyTorch raises for no shape or type."""
    error = str(item.evidence.get("error", "")).split(":")[0]
    return item.code == "MOD022" and error not in ("", "RuntimeError", "ValueError", "IndexError")


def _raised(errors: Sequence[tuple[str, Exception]], suite: _Suite) -> list[Finding]:
    """MOD040: what the user's code raised, each error once."""
    found: dict[str, tuple[BaseException, list[str]]] = {}
    for check, error in errors:
        first = _first_cause(error)
        found.setdefault(said(first), (first, []))[1].append(check)
    return [_raising(text, error, checks, suite) for text, (error, checks) in found.items()]


def _raising(text: str, error: BaseException, checks: list[str], suite: _Suite) -> Finding:
    name = type(suite.model).__name__
    what = f"The code of the model or its step raises {text}, in {' and in '.join(checks)}"
    what += " (in eval mode)." if set(checks) <= {"trace", "determinism"} else "."
    if set(checks) <= {"trace", "determinism"}:
        advice = "See how far it comes: dataaudit model trace."
    else:
        advice = "Compare what goes in with what it expects: dataaudit model trace --train, and model loss."
    shapes = [tuple(one.shape) for one in tensors(suite.batch.inputs)][:4]
    return finding(
        mod.RAISES, name, what, advice=advice, source=line_of(error),
        evidence={"error": text, "checks": checks, "inputs": shapes},
    )  # fmt: skip
