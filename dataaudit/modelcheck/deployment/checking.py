"""The trained model against the deployed one, on the same inputs: figures, findings and their causes."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from dataaudit.errors import InputError
from dataaudit.modelcheck.deployment import fitting, interventions
from dataaudit.modelcheck.deployment.departures import first_departure
from dataaudit.modelcheck.deployment.differences import (
    Decisions,
    compare_decisions,
    largest,
    latency,
    limit_for,
    relative,
    rounding,
    wilson,
)
from dataaudit.modelcheck.deployment.runtimes import Deployed, open_deployed, parameter_bytes, precision_of
from dataaudit.modelcheck.deployment.values import Departure
from dataaudit.modelcheck.deployment.weights import weights_elsewhere
from dataaudit.modelcheck.families import dep
from dataaudit.modelcheck.findings import finding
from dataaudit.modelcheck.inputs import Batch, Inputs, call, random_batch, tensors
from dataaudit.modelcheck.keeping import kept
from dataaudit.registry import Rule
from dataaudit.types import Finding

__all__ = ["CODES", "Parity", "parity"]

CODES = (*(f"DEP{number:03d}" for number in range(1, 13)), "DEP015", "DEP016")
FLIPS = 0.02
"""Share of other decisions that a version of lower precision may make."""
FEW = 4
LEVEL = 0.01
"""p-value below which accuracy is another one."""


@dataclass(frozen=True, kw_only=True)
class Parity:
    """How a deployed model compares with the trained one.

    Attributes:
        deployed: the deployed model.
        findings: what is wrong, most likely cause first.
        n: how many samples were compared.
        absolute: largest difference of an output value, or None where it can't be compared.
        relative: the same as a share of the largest output.
        limit: what the deployed type explains of it.
        decisions: flips and accuracy, or None for outputs that are no decision.
        seconds: median of a call with one sample, of the trained and the deployed model.
        sizes: bytes of both.
        departure: where the outputs first differ, or None.
        notes: what isn't wrong and is good to know.
    """

    deployed: Deployed
    findings: tuple[Finding, ...]
    n: int
    absolute: float | None = None
    relative: float | None = None
    limit: float = 0.0
    decisions: Decisions | None = None
    seconds: tuple[float | None, float | None] = (None, None)
    sizes: tuple[int | None, int | None] = (None, None)
    departure: Departure | None = None
    notes: tuple[str, ...] = field(default=())


def parity(
    model: nn.Module,
    deployed: Any,
    inputs: Inputs | Batch | None = None,
    *,
    targets: torch.Tensor | None = None,
    precision: torch.dtype | None = None,
    timed: bool = True,
) -> Parity:
    """Compare a deployed model with the trained one on the same inputs, and say why they differ.

    Args:
        model: the trained model; it is as before afterwards.
        deployed: a file, name, module, exported program or callable; see `open_deployed`.
        inputs: what both are given, or a `Batch`; random numbers when left out.
        targets: (n,) int64 classes, for accuracy before and after.
        precision: the type that the deployed model computes in, where it can't be found out.
        timed: measure the latency of both.

    Raises:
        InputError: the deployed model can't be loaded, or the trained one doesn't take the inputs.
    """
    batch = inputs if isinstance(inputs, Batch) else Batch(inputs=inputs, targets=targets)
    if batch.inputs is None:
        batch = random_batch(model)
    try:
        opened = open_deployed(deployed)
    except InputError as error:
        if getattr(deployed, "suffix", "") or str(deployed).endswith((".onnx", ".xml", ".pt2")):
            if "no file" in error.what:
                raise
            return Parity(
                deployed=Deployed(name=str(deployed), runtime="", run=_never), n=0,
                findings=(_not_running(str(deployed), error.what),),
            )  # fmt: skip
        raise
    with kept(model, opened.module, batch.inputs) as state, torch.no_grad():

        def fresh() -> None:
            state.restore()
            torch._C._set_grad_enabled(False)
            model.eval()

        fresh()
        return _Check(model=model, deployed=opened, batch=batch, fresh=fresh, precision=precision).run(timed)


def _never(_: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    raise InputError("The model wasn't loaded.")


def _not_running(name: str, why: str) -> Finding:
    return finding(
        dep.NOT_RUNNING, name, f"It can't be run: {why}",
        advice="Check the opset and operators that the runtime supports, and the input that it expects.",
        evidence={"error": why},
    )  # fmt: skip


class _Check:
    """One comparison; its parts share the model, the inputs and the outputs."""

    def __init__(
        self, *, model: nn.Module, deployed: Deployed, batch: Batch, fresh: Any, precision: torch.dtype | None
    ) -> None:
        self.model, self.deployed, self.batch, self.fresh = model, deployed, batch, fresh
        self.precision = precision or deployed.precision
        self.found: list[Finding] = []
        self.notes: list[str] = []

    def run(self, timed: bool) -> Parity:
        inputs = self._reference_inputs()
        before = self._reference(inputs)
        fitted = fitting.fit(self.deployed, inputs)
        self.found += fitted.findings
        self.notes += fitted.notes
        if fitted.run is None:
            return self._result(len(inputs[0]))
        if fitted.inputs is not inputs:  # another image size: both get it
            inputs = fitted.inputs
            before = self._reference(inputs)
        try:
            after = fitted.run(inputs)
        except Exception as error:
            self.found.append(_not_running(self.deployed.name, _said(error)))
            return self._result(len(inputs[0]))
        self.found += self._train_nodes()
        repeated = self._repeated(fitted, inputs)
        self.found += fitting.batch_sizes(
            self.deployed, fitted, inputs, after, random=repeated, limit=10 * limit_for(self.precision, None)
        )
        return self._compared(fitted, inputs, before, after, timed)

    def _reference_inputs(self) -> list[torch.Tensor]:
        given = self.batch.inputs
        if isinstance(given, list):
            raise InputError(
                "Detection models that take a list of images aren't compared here.",
                fix="Give module:attribute of a function that takes one tensor and returns tensors.",
            )
        return list(tensors(given))

    def _reference(self, inputs: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        self.fresh()
        given = self.batch.inputs
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            out = call(self.model, tuple(inputs) if isinstance(given, (torch.Tensor, tuple)) else given)
        return tuple(one.detach().cpu() for one in tensors(out))

    def _train_nodes(self) -> list[Finding]:
        path = self.deployed.path
        if path is None or path.suffix != ".onnx":
            return []
        from dataaudit.modelcheck.deployment import onnx_files

        nodes = onnx_files.train_nodes(path)
        if not nodes:
            return []
        titles = [onnx_files.node_title(node) for node in nodes]
        return [
            finding(
                dep.TRAIN_MODE, titles[0],
                f"{len(nodes)} nodes act as in training, the first is {titles[0]}.",
                advice="Call model.eval() before the export, and leave out training=TrainingMode.TRAINING.",
                evidence={"nodes": titles[:20]},
            )
        ]  # fmt: skip

    def _repeated(self, fitted: fitting.Fitted, inputs: list[torch.Tensor]) -> bool:
        """Whether the deployed model puts out something else each time, which is a finding."""
        assert fitted.run is not None
        few = [one[:FEW] for one in inputs]
        try:
            one, again = fitted.run(few), fitted.run(few)
        except Exception:  # another batch size fails, which is a finding of its own
            return False
        if largest(one, again) <= limit_for(self.precision, None) or interventions.nonfinite(one):
            return False
        if not any(item.code == "DEP005" for item in self.found):
            self.found.append(
                finding(
                    dep.TRAIN_MODE, "output", "The deployed model puts out something else each time.",
                    advice="Most likely dropout in train mode: call model.eval() before the export.",
                    evidence={"relative": largest(one, again)},
                )
            )  # fmt: skip
        return True

    def _compared(
        self,
        fitted: fitting.Fitted,
        inputs: list[torch.Tensor],
        before: tuple[torch.Tensor, ...],
        after: tuple[torch.Tensor, ...],
        timed: bool,
    ) -> Parity:
        self.fresh()
        own = precision_of(self.model)
        given = tuple(inputs) if len(inputs) > 1 else inputs[0]
        limit = limit_for(self.precision, rounding(self.model, given), own)
        gap = largest(before, after)
        absolute = None
        if len(before) == len(after) and all(a.shape == b.shape for a, b in zip(before, after, strict=True)):
            absolute = max(
                (float((a.double() - b.double()).abs().max()) for a, b in zip(before, after, strict=True)),
                default=0.0,
            )
        departure = None
        if interventions.is_far(gap, limit):
            departure = self._why(fitted, inputs, before, after, limit, gap)
        compared = None
        if before and after and before[0].shape == after[0].shape:
            compared = compare_decisions(before[0], after[0], self.batch.targets)
        if not self.found and compared is not None:
            self.found += _lossy(self.deployed, self.precision, compared, self.batch)
        seconds: tuple[float | None, float | None] = (None, None)
        if timed:
            seconds = self._latencies(fitted, inputs)
        return self._result(
            len(inputs[0]), absolute=absolute, relative=gap, limit=limit, decisions=compared, seconds=seconds,
            departure=departure,
        )  # fmt: skip

    def _why(
        self,
        fitted: fitting.Fitted,
        inputs: list[torch.Tensor],
        before: tuple[torch.Tensor, ...],
        after: tuple[torch.Tensor, ...],
        limit: float,
        gap: float,
    ) -> Departure | None:
        """Find the cause of a difference, and append the finding that names it."""
        if any(item.code in ("DEP005", "DEP007") for item in self.found):
            return None
        bad = interventions.nonfinite(after) > interventions.nonfinite(before)
        figures = _figures(before, after, limit)
        known = None
        if not bad:
            known = interventions.explain(
                self.model, inputs, before, after, limit=max(limit, 1e-3), fresh=self.fresh
            )
        if known is not None:
            if known.rule is dep.TRAIN_MODE:  # which is why the samples of a batch are mixed
                self.found = [item for item in self.found if item.code != "DEP004"]
            self.found.insert(
                0,
                finding(
                    known.rule, known.where, f"{known.what} {figures[0]}", advice=known.advice,
                    evidence={**figures[1], "left": known.left},
                    score=min(0.1, known.left),
                ),
            )  # fmt: skip
            return None
        if len(before) != len(after) or any(a.shape != b.shape for a, b in zip(before, after, strict=True)):
            self.found.append(_other_form(before, after))
            return None
        other = None if bad else weights_elsewhere(self.model, self.deployed)
        if other is not None:
            self.found.insert(0, other(figures[0], figures[1]))
            return None
        self.fresh()
        departure = first_departure(self.model, self.deployed, inputs, fitted, limit=limit)
        rule: Rule = dep.NONFINITE_OUTPUT if bad else dep.OUTPUT_DIFFERENCE
        where, what, advice = "output", "", "Look at the last layers, and at what is done after them."
        if departure is not None:
            where, what, advice = departure.title, " " + departure.sentence, departure.advice
            rule = departure.rule or rule
        head = f"{interventions.nonfinite(after):,} output values are NaN or infinite." if bad else figures[0]
        self.found.insert(
            0,
            finding(rule, where, head + what, advice=advice, evidence={
                **figures[1], **({} if departure is None else departure.evidence)}),
        )  # fmt: skip
        return departure

    def _latencies(
        self, fitted: fitting.Fitted, inputs: list[torch.Tensor]
    ) -> tuple[float | None, float | None]:
        one = [each[:1] for each in inputs]
        run = fitted.run
        assert run is not None
        self.fresh()
        try:
            return latency(lambda: self.model(*one)), latency(lambda: run(one))
        except Exception:  # a batch of one that isn't taken is a finding of its own
            return None, None

    def _result(self, n: int, **figures: Any) -> Parity:
        path = self.deployed.size
        found = sorted(self.found, key=lambda item: item.score)
        return Parity(
            deployed=self.deployed, findings=tuple(found), n=n, notes=tuple(self.notes),
            sizes=(parameter_bytes(self.model), path), **figures,
        )  # fmt: skip


def _figures(
    before: Sequence[torch.Tensor], after: Sequence[torch.Tensor], limit: float
) -> tuple[str, dict[str, Any]]:
    gap = largest(before, after)
    if len(before) != len(after) or any(a.shape != b.shape for a, b in zip(before, after, strict=True)):
        return "", {"shapes": [[tuple(one.shape) for one in side] for side in (before, after)]}
    gaps = [relative(a, b) for a, b in zip(before, after, strict=True)]
    worst = max(range(len(gaps)), key=gaps.__getitem__)
    differ = (before[worst].double() - after[worst].double()).abs().reshape(len(before[worst]), -1)
    share = float((differ.amax(1) > limit * float(before[worst].double().abs().max())).double().mean())
    absolute = float(differ.max())
    text = (
        f"Outputs differ by up to {absolute:.3g}, {gap:.2g} of the largest; its type explains {limit:.1g}. "
        f"{share:.0%} of the samples are affected."
    )
    return text, {"relative": gap, "absolute": absolute, "limit": limit, "samples": share}


def _other_form(before: Sequence[torch.Tensor], after: Sequence[torch.Tensor]) -> Finding:
    shapes = [", ".join(str(tuple(one.shape)) for one in side) or "nothing" for side in (before, after)]
    return finding(
        dep.OUTPUT_FORM, "output",
        f"The trained model puts out {shapes[0]}, the deployed one {shapes[1]}.",
        advice="Put out the same tensors in the same order on both sides.",
        evidence={"trained": shapes[0], "deployed": shapes[1]},
    )  # fmt: skip


def _lossy(deployed: Deployed, precision: torch.dtype, compared: Decisions, batch: Batch) -> list[Finding]:
    """DEP002: outputs are close, decisions aren't."""
    low = wilson(compared.flips, compared.n)[0]
    worse = compared.p is not None and compared.p < LEVEL
    lossy = precision in (torch.float16, torch.bfloat16, torch.qint8)
    if not worse and not (lossy and low > FLIPS):
        return []
    what = f"{compared.flips:,} of {compared.n:,} decisions differ"
    if compared.right_before is not None and compared.right_after is not None:
        shares = [right / compared.labelled for right in (compared.right_before, compared.right_after)]
        what += f"; accuracy {shares[0]:.1%} before and {shares[1]:.1%} after (p = {compared.p:.2g})"
    shown = [batch.sample_ids[at] for at in compared.flipped[:20] if at < len(batch.sample_ids)]
    return [
        finding(
            dep.DECISION_FLIPS, deployed.name, what + ".",
            advice="Calibrate with images of the deployment, and keep the first and last layer in float.",
            evidence={"flips": compared.flips, "n": compared.n, "samples": shown},
            sample_id=shown[0] if shown else None, score=0.2,
        )
    ]  # fmt: skip


def _said(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}{': ' + text[0][:300] if text else ''}"
