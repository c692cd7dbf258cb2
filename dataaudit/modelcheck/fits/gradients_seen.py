"""Gradients during training, seen now and then: vanishing, exploding, dead, and where NaN comes from."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from dataaudit.errors import Unavailable
from dataaudit.modelcheck.families import trn
from dataaudit.modelcheck.findings import finding
from dataaudit.modelcheck.fits.probing import Probe
from dataaudit.modelcheck.reporting import Table
from dataaudit.modelcheck.training.gradient_flow import LayerGradient, flow, gradients
from dataaudit.types import Finding

__all__ = ["CODES", "GradientWatch"]

CODES = tuple(rule.code for rule in (trn.NONFINITE_GRADIENT, trn.VANISHING_GRADIENT, trn.EXPLODING_GRADIENT,
                                     trn.DEAD_GRADIENT))  # fmt: skip
SHARE = 0.01
"""Of the time of the steps, what looking may take."""
_MOST_POINTS = 200
_SKIPPED = 20
_JUMP = 100.0


class GradientWatch:
    """The gradients of a fit's steps; norms are those without the scale of mixed precision.

    Args:
        module: whose weights are watched.
        order: modules in the order in which they are called, of `dataaudit.modelcheck.fits.sightings.look`.
        entry: the module that the training step calls first, or None.
        every: steps from one look at all layers to the next; more where looking takes more than a hundredth
            of the time of the steps.
    """

    def __init__(
        self, module: nn.Module, order: Mapping[str, int], entry: nn.Module | None = None, *, every: int = 50
    ) -> None:
        self._entry = entry
        self.every = self._wanted = every
        self.findings: list[Finding] = []
        self.points: list[tuple[int, float]] = []
        self.cost = 0.0
        weights = [
            (order.get(name.rpartition(".")[0], len(order)), name, weight)
            for name, weight in module.named_parameters()
            if weight.requires_grad and weight.is_floating_point()
        ]
        weights.sort(key=lambda one: one[0])
        self._ends = [one for _, _, one in (*weights[:1], *weights[-1:])]
        self._layers = [
            (one, LayerGradient(name=name, order=at, size=one.numel()))
            for at, name, one in weights
            if one.ndim > 1
        ]
        self._names = [(name, one) for _, name, one in weights]
        self._done: set[str] = set()
        self._skipped = 0

    @property
    def rows(self) -> list[LayerGradient]:
        """The layers in the order in which they are called."""
        return [row for _, row in self._layers]

    def look(self, step: int, probe: Callable[[], Probe], *, seconds: float | None = None) -> list[Finding]:
        """Look before an optimizer's step, when gradients are whole and without scale.

        Args:
            step: number of the optimizer's step.
            probe: makes that of the batch that the gradients come from.
            seconds: of a step, as measured; None where unknown.

        Returns:
            What is new.
        """
        start = time.perf_counter()
        before = len(self.findings)
        if trn.NONFINITE_GRADIENT.code not in self._done and not self._finite():
            self._broken(step, probe)
            start = time.perf_counter()  # it happens once
        elif step % self.every == 0:
            self._measure(step)
            took = time.perf_counter() - start
            if seconds:
                self.every = max(self._wanted, math.ceil(took / (SHARE * seconds)))
        self.cost += time.perf_counter() - start
        return self.findings[before:]

    def _finite(self) -> bool:
        """Whether the gradients at both ends are: what isn't finite runs back to the first layer."""
        found = [one.grad for one in self._ends if one.grad is not None and not one.grad.is_sparse]
        return all(math.isfinite(float(grad.detach().float().sum())) for grad in found)

    def _broken(self, step: int, make: Callable[[], Probe]) -> None:
        try:
            probe = make()
        except Unavailable as error:
            self._nonfinite(step, [], f" Where it begins isn't looked for: {error.what}.")
            return
        scaler = probe.scaler
        if scaler is not None and float(scaler.get_scale()) > 1:
            self._skipped += 1
            if self._skipped < _SKIPPED:  # the scaler leaves the step out and lowers its scale
                return
        try:
            with probe.quiet(), probe.called_as(self._entry):
                found = gradients(
                    probe.module, None, probe.parts.inputs, probe.parts.targets,
                    step=None if probe.manual else probe.step,
                    train_step=probe.train_step() if probe.manual else None,
                    optimizer=probe.optimizer, steps=1,
                ).findings  # fmt: skip
        except Exception as error:  # of the user's code or for memory: what is known is said all the same
            self._nonfinite(step, [], f" A second try raised {type(error).__name__}.")
            return
        self._nonfinite(step, [item for item in found if item.code == trn.NONFINITE_GRADIENT.code])

    def _nonfinite(self, step: int, found: list[Finding], said: str = "") -> None:
        """TRN020, as a second try of the step shows it, or by the gradients alone."""
        self._done.add(trn.NONFINITE_GRADIENT.code)
        layers = [name for name, one in self._names if one.grad is not None and not _sound(one.grad)]
        if found:
            evidence: dict[str, Any] = {"step": step, "weights": layers[:20], **found[0].evidence}
            name, what = found[0].item_id, f"Step {step}: {evidence.pop('what')}"
            advice, source = evidence.pop("advice"), evidence.pop("source", None)
        else:
            name, source = layers[-1] if layers else "loss", None
            evidence = {"step": step, "weights": layers[:20], "pass": "backward"}
            what = (
                f"Step {step}: the gradient of {len(layers)} of {len(self._names)} weights is NaN or "
                f"infinite; on its way back {name} is the first.{said}"
            )
            advice = "dataaudit model trace --train on this batch; a lower learning rate, or clipping."
        self.findings.append(
            finding(trn.NONFINITE_GRADIENT, name, what, advice=advice, source=source, evidence=evidence)
        )

    def _measure(self, step: int) -> None:
        held = [(one, row) for one, row in self._layers if one.grad is None or not one.grad.is_sparse]
        with torch.no_grad():
            grads = [(one, row, one.grad) for one, row in held]
            have = [(one, row, grad) for one, row, grad in grads if grad is not None]
            if not have:
                return
            both = [grad for _, _, grad in have] + [one.detach() for one, _, _ in have]
            norms = torch.stack([norm.float() for norm in torch._foreach_norm(both)]).tolist()
        n = len(have)
        for (_, row, _), norm, weight in zip(have, norms[:n], norms[n:], strict=True):
            row.norms.append(norm)
            row.weights.append(weight)
        total = math.sqrt(sum(norm**2 for norm in norms[:n]))
        self._exploded(step, total, math.sqrt(sum(norm**2 for norm in norms[n:])), have[0][1].name)
        self.points.append((step, total))
        if len(self.points) > _MOST_POINTS:
            self._wanted = self.every = self.every * 2
            del self.points[1::2]
            for row in self.rows:
                del row.norms[1::2], row.weights[1::2]

    def _exploded(self, step: int, total: float, weights: float, name: str) -> None:
        usual = statistics.median([one for _, one in self.points]) if len(self.points) >= 3 else None
        if trn.EXPLODING_GRADIENT.code in self._done or usual is None or not math.isfinite(total):
            return
        if total > 1e3 * max(weights, 1.0) and total > _JUMP * usual:
            self._done.add(trn.EXPLODING_GRADIENT.code)
            self.findings.append(
                finding(
                    trn.EXPLODING_GRADIENT, name,
                    f"Step {step}: the gradient's norm is {total:.3g}; until then it was {usual:.3g} "
                    "(median).",
                    advice="Lower the learning rate, warm it up, or clip to a norm of about 1.",
                    evidence={"step": step, "norm": total, "usual": usual, "weights": weights},
                )
            )  # fmt: skip

    def judge(self, *, statistics: bool = True) -> list[Finding]:
        """What was found, and what all looks together show; called once, at the end.

        Args:
            statistics: whether vanishing and dead gradients count.
        """
        if statistics and len(self.points) >= 3 and trn.NONFINITE_GRADIENT.code not in self._done:
            known = {item.code for item in self.findings}
            rows = {number: row for number, row in enumerate(self.rows) if row.norms}
            self.findings += [item for item in flow(rows) if item.code not in known]
            self.findings += self._dead(list(rows.values()))
        return self.findings

    def _dead(self, rows: list[LayerGradient]) -> list[Finding]:
        dead = [row for row in rows if max(row.norms) == 0 and "embed" not in row.name.lower()]
        if not dead or len(dead) == len(rows):
            return []
        more = f"; so is that of {len(dead) - 1} others" if len(dead) > 1 else ""
        return [
            finding(
                trn.DEAD_GRADIENT, dead[-1].name,
                f"The gradient of {dead[-1].name} was zero at each of {len(dead[-1].norms)} looks during "
                f"training{more}.",
                advice="Look at what follows it: dead ReLUs, zero weights, rounding, detach; dataaudit model "
                "overfit finds out which.",
                evidence={"weights": [row.name for row in dead[:20]]},
            )
        ]  # fmt: skip

    def table(self) -> Table:
        """A row a layer: its gradient's norm over the training."""
        named = {item.item_id for item in self.findings}
        rows = [row for row in self.rows if row.norms]
        return Table(
            title="Gradients during training",
            columns=("weight", "numbers", "gradient, first", "median", "last", "highest"),
            rows=tuple(
                (row.name, row.size, row.norms[0], statistics.median(row.norms), row.norms[-1],
                 max(row.norms))
                for row in rows
            ),
            marked=frozenset(at for at, row in enumerate(rows) if row.name in named),
            note=f"Norms of {len(self.points)} steps, one in {self.every}, before clipping.",
        )  # fmt: skip


def _sound(grad: torch.Tensor) -> bool:
    values = grad.coalesce().values() if grad.is_sparse else grad
    return bool(values.isfinite().all())
