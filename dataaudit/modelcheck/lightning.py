"""A callback of Lightning: checks before the first step, a watch during training, curves after it."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import statistics
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dataaudit.errors import DataAuditError, InputError, MissingDependencyError, Unavailable

if TYPE_CHECKING:
    import torch

    from dataaudit.modelcheck.fits.dynamics import Dynamics
    from dataaudit.modelcheck.fits.gradients_seen import GradientWatch
    from dataaudit.modelcheck.fits.recording import Record
    from dataaudit.modelcheck.fits.sightings import Sighting
    from dataaudit.modelcheck.reporting import ModelReport
    from dataaudit.types import Finding

__all__ = ["SanityCheck", "SanityError"]

_PACKAGES = ("pytorch_lightning", "lightning.pytorch")
_FILE = "training_dynamics.parquet"


class SanityError(DataAuditError):
    """The training was stopped because of a finding.

    Attributes:
        findings: what was found, the cause first.
    """

    findings: Sequence[Finding] = ()


@dataclass
class _Fit:
    """What is known of one fit."""

    record: Record
    report: ModelReport | None = None
    learned: bool | None = None
    sighting: Sighting | None = None
    watch: GradientWatch | None = None
    dynamics: Dynamics | None = None
    reasons: dict[str, str] = field(default_factory=dict)
    handle: Any = None
    outputs: list[torch.Tensor] | None = None
    batch: Any = None
    batch_idx: int = 0
    begun: float = 0.0
    spent: float = 0.0
    checked: float = 0.0
    last: float | None = None
    took: deque[float] = field(default_factory=lambda: deque(maxlen=50))
    stepwise: set[str] | None = None
    done: bool = False


class SanityCheck:
    """Callback for a trainer of ``pytorch_lightning`` or ``lightning.pytorch``.

    Before the first step it runs `dataaudit.modelcheck.sanity` on the first batch, through your
    ``training_step`` and the optimizer of ``configure_optimizers``. During training it watches the gradients,
    and keeps how each sample fares; after it, it reads the curves of what was logged. All of it is in one
    report, ``dataaudit/model-training.html`` under the trainer's ``default_root_dir``, and goes to the
    trainer's loggers. What a check does to the model, optimizer, random numbers and trainer is put back.

    Args:
        on_finding: ``warn`` prints what is found, ``raise`` also stops the training for what is found before
            the first step or is beyond repair (NaN, an exploded gradient), ``ignore`` only writes the report.
        sanity: whether to run the suite before the first step.
        seconds: that the suite may take.
        samples: of the first batch, that it takes.
        watch_every: steps from one look at the gradients to the next, more where that takes more than a
            hundredth of the time; None for no watch.
        dynamics: whether to keep how each sample fares, in ``dataaudit/training_dynamics.parquet``, for
            ``dataaudit audit --training-dynamics``. It needs a class for each image and the samples' ids.
        sample_ids: a function of the batch that returns the ids; when left out they are the batch's third
            part, or what it has under ``id``, ``path``, ``filepath`` or the like.
        root: the dataset's folder, where ids are paths: they are kept relative to it, as an audit has them.
        folder: of the reports, in place of ``dataaudit`` under ``default_root_dir``.
        log: whether the report goes to the trainer's loggers.

    Attributes:
        report: `dataaudit.modelcheck.ModelReport` of the last fit, or None.
        training_dynamics: the file, or None.

    Raises:
        MissingDependencyError: no Lightning is installed.
        InputError: an argument is out of range.
    """

    report: ModelReport | None = None
    training_dynamics: Path | None = None
    _fit: _Fit | None = None

    def __new__(cls, *_: Any, **__: Any) -> SanityCheck:
        """An instance that is a callback of whichever Lightning is in use."""
        made: SanityCheck = object.__new__(_callback(cls))
        return made

    def __init__(
        self,
        *,
        on_finding: Literal["warn", "raise", "ignore"] = "warn",
        sanity: bool = True,
        seconds: float = 60.0,
        samples: int = 8,
        watch_every: int | None = 50,
        dynamics: bool = True,
        sample_ids: Callable[[Any], Any] | None = None,
        root: str | Path | None = None,
        folder: str | Path | None = None,
        log: bool = True,
    ) -> None:
        if on_finding not in ("warn", "raise", "ignore"):
            raise InputError(f"on_finding is {on_finding!r}; expected 'warn', 'raise' or 'ignore'.")
        for name, value in (("seconds", seconds), ("samples", samples), ("watch_every", watch_every)):
            if value is not None and value <= 0:
                raise InputError(f"{name} is {value}; expected more than 0.")
        self.on_finding, self.sanity, self.seconds, self.samples = on_finding, sanity, seconds, samples
        self.watch_every, self.dynamics, self.sample_ids = watch_every, dynamics, sample_ids
        self.root, self.folder, self.log_report = root, folder, log

    def __reduce__(self) -> Any:
        return _again, (getattr(type(self), "_origin", type(self)), dict(vars(self)))

    @property
    def findings(self) -> list[Finding]:
        """What was found in the last fit, the cause first."""
        return [] if self.report is None else list(self.report.items)

    # Hooks of Lightning

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Begin anew."""
        if stage == "fit":
            from dataaudit.modelcheck.fits.recording import Record

            self._fit, self.report, self.training_dynamics = _Fit(record=Record()), None, None

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Note the learning rate, and what was logged after the last epoch's end."""
        fit = self._fit
        if fit is not None and trainer.optimizers:
            self._late(trainer, fit)
            rate = trainer.optimizers[0].param_groups[0]["lr"]
            fit.record.logged(trainer.global_step, trainer.current_epoch, {"lr": rate})

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Run the checks before the first step."""
        fit = self._fit
        if fit is None:
            return
        fit.batch, fit.batch_idx = batch, batch_idx
        if fit.begun == 0:
            start = time.perf_counter()
            self._begin(trainer, pl_module, fit)
            fit.begun = time.perf_counter()
            fit.checked = fit.begun - start
        now = time.perf_counter()
        if fit.last is not None:
            fit.took.append(now - fit.last)
        fit.last = now
        fit.outputs = []

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        """Look at the gradients."""
        fit = self._fit
        if fit is None or fit.watch is None or fit.done:
            return
        from dataaudit.modelcheck.fits.probing import Probe

        with _timed(fit):
            new = fit.watch.look(
                trainer.global_step,
                lambda: Probe(trainer, pl_module, fit.batch, fit.batch_idx),
                seconds=statistics.median(fit.took) if fit.took else None,
            )
        if new:
            self._say(trainer, new)
            if self.on_finding == "raise":
                raise _stopped(new)

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep the loss, and how the samples fare."""
        fit = self._fit
        if fit is None:
            return
        import torch

        with _timed(fit):
            loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
            if isinstance(loss, torch.Tensor) and loss.numel() == 1:
                if pl_module.automatic_optimization:
                    loss = loss.detach() * trainer.accumulate_grad_batches  # Lightning divides by it
                fit.record.loss(trainer.global_step, trainer.current_epoch, loss)
            if fit.stepwise is None:
                fit.stepwise = set(_fresh(trainer))
            self._add(fit, batch)
            fit.outputs = fit.batch = None

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Keep what validation logged."""
        if self._fit is not None and not trainer.sanity_checking and trainer.state.fn == "fit":
            self._fit.record.logged(trainer.global_step, trainer.current_epoch, _fresh(trainer))

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Keep what the epoch logged."""
        if self._fit is not None:
            self._fit.record.logged(trainer.global_step, trainer.current_epoch, _fresh(trainer))

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Read the curves, and write the report."""
        if self._fit is not None and not self._fit.done:
            self._late(trainer, self._fit)
            self._finish(trainer, pl_module, self._fit)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Write what is known."""
        if self._fit is not None and not self._fit.done and self._fit.sighting is not None:
            self._finish(trainer, pl_module, self._fit, stopped=type(exception).__name__)

    # What the hooks do

    def _begin(self, trainer: Any, module: Any, fit: _Fit) -> None:
        from dataaudit.modelcheck.fits.dynamics import Dynamics
        from dataaudit.modelcheck.fits.gradients_seen import GradientWatch
        from dataaudit.modelcheck.fits.probing import Probe
        from dataaudit.modelcheck.fits.sightings import Sighting, look

        found: list[Finding] = []
        try:
            probe = Probe(trainer, module, fit.batch, fit.batch_idx, samples=self.samples)
        except Unavailable as error:
            fit.sighting = Sighting(entry=None, reason=error.what)
            fit.reasons["sanity"] = error.what
        else:
            with probe.quiet():
                try:
                    fit.sighting = look(probe)
                except (
                    Exception
                ) as error:  # the step raises; the suite says where, and then the training does
                    fit.sighting = Sighting(entry=None, reason=f"training_step raises {type(error).__name__}")
                if self.sanity and trainer.is_global_zero:
                    found = self._suite(probe, fit)
        if self.watch_every is not None:
            fit.watch = GradientWatch(module, fit.sighting.order, fit.sighting.entry, every=self.watch_every)
        if self.dynamics:
            fit.dynamics = Dynamics(root=self.root)
            self._follow(fit)
        if trainer.is_global_zero and found:
            self._say(trainer, found)
        if self.sanity and trainer.strategy.broadcast(bool(found)) and self.on_finding == "raise":
            raise _stopped(found)

    def _suite(self, probe: Any, fit: _Fit) -> list[Finding]:
        from dataaudit.modelcheck.suite import sanity

        parts, sighting = probe.parts, fit.sighting
        entry = sighting.entry if sighting is not None else None
        with probe.as_trained(), probe.called_as(entry):
            try:
                done = sanity(
                    probe.module, None, parts.inputs, parts.targets,
                    step=None if probe.manual else probe.step,
                    train_step=probe.train_step() if probe.manual else None,
                    optimizer=probe.optimizer, scaler=probe.scaler, seconds=self.seconds,
                )  # fmt: skip
            except InputError as error:
                fit.reasons["sanity"] = error.what
                return []
        fit.learned = done.learned
        fit.report = done.report(type(probe.module).__name__)
        return done.findings

    def _follow(self, fit: _Fit) -> None:
        """Watch the module that puts out the class scores."""
        from dataaudit.modelcheck.fits.dynamics import ids_of
        from dataaudit.modelcheck.fits.sightings import flat

        sighting = fit.sighting
        assert sighting is not None
        scores = sighting.scores
        if scores is None:
            fit.reasons["dynamics"] = sighting.reason
            return
        if ids_of(fit.batch, self.sample_ids) is None:
            fit.reasons["dynamics"] = "the batch names no samples: give sample_ids, or a third part with ids"
            return

        def keep(_module: Any, _args: Any, output: Any) -> None:
            if fit.outputs is not None:
                fit.outputs.append(flat(output)[scores.place].detach())

        fit.handle = scores.module.register_forward_hook(keep)

    def _add(self, fit: _Fit, batch: Any) -> None:
        from dataaudit.modelcheck.fits.dynamics import ids_of
        from dataaudit.modelcheck.fits.sightings import at_path

        scores = None if fit.sighting is None else fit.sighting.scores
        if fit.handle is None or fit.dynamics is None or scores is None or not fit.outputs:
            return
        if len(fit.outputs) <= scores.call:
            return
        ids, given = ids_of(batch, self.sample_ids), at_path(batch, scores.targets)
        values = fit.outputs[scores.call]
        if ids is not None and len(ids) == len(given) == len(values):
            fit.dynamics.add(ids, values, given)

    def _late(self, trainer: Any, fit: _Fit) -> None:
        """What the module logged at the end of an epoch after this callback was called."""
        late = {
            name: value
            for name, value in trainer.callback_metrics.items()
            if not fit.record.knows(name) and name not in (fit.stepwise or ())
        }
        fit.record.logged(trainer.global_step, max(trainer.current_epoch - 1, 0), late)

    def _finish(self, trainer: Any, module: Any, fit: _Fit, *, stopped: str | None = None) -> None:
        from dataaudit.modelcheck import reporting, tracking

        fit.done = True
        if fit.handle is not None:
            fit.handle.remove()
        folder = Path(trainer.default_root_dir) / "dataaudit" if self.folder is None else Path(self.folder)
        n_samples = self._write_dynamics(trainer, fit, folder, alone=stopped is not None)
        if not trainer.is_global_zero:
            return
        from dataaudit.modelcheck.fits.summing_up import brief, report_of

        facts = [] if stopped is None else [f"stopped by {stopped}"]
        if n_samples:
            facts.append(f"training dynamics of {n_samples:,} samples")
        self.report = report_of(
            type(module).__name__, fit.record.history(type(module).__name__), sanity=fit.report,
            learned=fit.learned,
            watch=fit.watch, reasons=fit.reasons, facts=facts, checked=fit.checked,
            trained=time.perf_counter() - fit.begun if fit.begun else 0.0, spent=fit.spent,
        )  # fmt: skip
        files = reporting.write(self.report, folder)
        if self.on_finding != "ignore" and stopped != SanityError.__name__:
            reporting.to_terminal(brief(self.report), html=files["html"])
        if self.log_report:
            for logger in trainer.loggers:
                tracking.log_to_logger(self.report, logger, step=trainer.global_step)

    def _write_dynamics(self, trainer: Any, fit: _Fit, folder: Path, *, alone: bool) -> int:
        """Write the file of this and all other processes; returns how many samples are in it."""
        import pandas as pd

        from dataaudit.modelcheck.fits.dynamics import joined

        if fit.dynamics is None:
            return 0
        folder.mkdir(parents=True, exist_ok=True)
        sums = [fit.dynamics.sums()]
        if trainer.world_size > 1 and not alone:
            part = folder / f".{trainer.global_rank}.{_FILE}"
            sums[0].to_parquet(part)
            trainer.strategy.barrier()
            if not trainer.is_global_zero:
                return 0
            parts = [folder / f".{rank}.{_FILE}" for rank in range(trainer.world_size)]
            sums = [pd.read_parquet(part) for part in parts if part.is_file()]
            for part in parts:
                part.unlink(missing_ok=True)
            if len(sums) < len(parts):
                fit.reasons["dynamics"] = f"{len(sums)} of {len(parts)} processes wrote theirs to {folder}"
        table = joined(sums)
        if not trainer.is_global_zero or table.empty:
            return 0
        self.training_dynamics = folder / _FILE
        table.to_parquet(self.training_dynamics)
        return len(table)

    def _say(self, trainer: Any, found: Sequence[Finding]) -> None:
        """Print findings at once."""
        if self.on_finding == "ignore" or not trainer.is_global_zero:
            return
        from dataaudit.modelcheck.reporting import ModelReport, to_terminal

        name = type(trainer.lightning_module).__name__
        to_terminal(ModelReport(name=name, command="training", codes=(), items=list(found)))


def _stopped(found: Sequence[Finding]) -> SanityError:
    if not found:
        return SanityError("The process of rank 0 stopped the training because of a finding.")
    item, more = found[0], len(found) - 1
    what = f"{item.code} {item.item_id}: {item.evidence.get('what', item.message)}"
    what += f" And {more} more." if more else ""
    error = SanityError(what, where=item.evidence.get("source"), fix=item.evidence.get("advice"))
    error.findings = tuple(found)
    return error


@contextmanager
def _timed(fit: _Fit) -> Iterator[None]:
    start = time.perf_counter()
    try:
        yield
    finally:
        fit.spent += time.perf_counter() - start


def _fresh(trainer: Any) -> Mapping[str, Any]:
    """What the loop that is running has logged, without what is left of others."""
    connector = getattr(trainer, "_logger_connector", None)
    try:
        found: Mapping[str, Any] = dict(connector.metrics["callback"]) if connector is not None else {}
    except (AttributeError, AssertionError, KeyError):
        return dict(trainer.callback_metrics)
    return found


def _callback(cls: type) -> type:
    """The class made a callback of each Lightning that is loaded, or else of each that is installed."""
    known = [package for package in _PACKAGES if package in sys.modules]
    if not known:
        known = [one for one in _PACKAGES if importlib.util.find_spec(one.split(".")[0]) is not None]
    if not known:
        raise MissingDependencyError(
            "SanityCheck is a callback of Lightning, which isn't installed.",
            fix="Install it: pip install 'dataaudit[lightning]'",
        )
    return _made(cls, tuple(known))


@functools.cache
def _made(cls: type, packages: tuple[str, ...]) -> type:
    bases = tuple(importlib.import_module(f"{package}.callbacks").Callback for package in packages)
    if issubclass(cls, bases):
        return cls
    names = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__}
    return type(cls.__name__, (cls, *bases), {**names, "_origin": cls})


def _again(cls: type, state: Mapping[str, Any]) -> Any:
    made: Any = object.__new__(_callback(cls))
    vars(made).update(state)
    return made
