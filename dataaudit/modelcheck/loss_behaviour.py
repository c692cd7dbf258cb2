"""What does a loss of one's own want? Found by what it says of predictions that are made up."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from dataaudit.modelcheck.families import mod
from dataaudit.modelcheck.findings import finding
from dataaudit.modelcheck.loss_calls import origin_of
from dataaudit.modelcheck.loss_targets import CLOSE, is_whole, sums_to_one
from dataaudit.types import Finding

__all__ = ["Probe", "judge_classes", "wanted"]

SURE = 1e-4
MARGIN = 0.05
STRENGTHS = (2.0, 4.0, 8.0, 16.0)


@dataclass(frozen=True, kw_only=True)
class Probe:
    """A loss as a function of prediction and target alone, beside what it was given.

    Attributes:
        run: the loss of a prediction and a target; any value, or it raises.
        prediction: what the model put out, with its graph.
        target: what it was compared with.
        name: of the loss.
        source: ``file:line`` of the user's code, or None.
        image_size: (width, height) of the images in pixels, or None where the inputs aren't images.
    """

    run: Callable[[torch.Tensor, torch.Tensor], Any]
    prediction: torch.Tensor
    target: torch.Tensor
    name: str
    source: str | None = None
    image_size: tuple[float, float] | None = None

    def value(self, prediction: torch.Tensor, target: torch.Tensor | None = None) -> float:
        """The loss; NaN where it refuses."""
        return self.with_gradient(prediction, target)[0]

    def with_gradient(
        self, prediction: torch.Tensor, target: torch.Tensor | None = None
    ) -> tuple[float, torch.Tensor | None]:
        """The loss and its gradient with regard to the prediction; None without one."""
        given = prediction.detach().to(self.prediction.dtype).clone().requires_grad_()
        torch.manual_seed(0)
        try:
            found = self.run(given, self.target if target is None else target)
            value = found.float().mean() if isinstance(found, torch.Tensor) else None
            if value is None:
                return math.nan, None
            if value.requires_grad and value.isfinite():
                (gradient,) = torch.autograd.grad(value, given, allow_unused=True)
                return float(value.detach()), gradient
        except Exception:  # a loss that takes no such values: then nothing is said
            return math.nan, None
        return float(value.detach()), None


def judge_classes(probe: Probe) -> Iterator[Finding]:
    """Find out whether a loss over classes is given what it wants: logits, probabilities or their logarithms.

    Args:
        probe: the loss and what it was given.

    Yields:
        MOD020 or MOD021, at most one.
    """
    right = _right(probe.prediction, probe.target)
    if right is None:
        return
    values = probe.prediction.detach().float()
    if not bool(values.isfinite().all()):
        return
    wants = wanted(probe, right)
    activation = _activation(probe.prediction)
    if wants == "logits" and activation in ("softmax", "sigmoid"):
        yield finding(
            mod.SOFTMAX_BEFORE_LOSS,
            f"{probe.name} input",
            f"{probe.name} is given the output of {activation}, and takes softmax or sigmoid itself: it is "
            f"{probe.value(_sure(right)):.3g} where each probability is right, and "
            f"{_least(probe, right):.3g} for large logits.",
            advice=f"Give it the output before the {activation}.",
            evidence={"activation": activation, "wants": wants},
            source=probe.source,
        )
    elif wants == "probabilities" and _share_outside(values) > 0:
        yield finding(
            mod.LOGITS_INTO_PROBABILITY_LOSS,
            f"{probe.name} input",
            f"{probe.name} wants probabilities, and {_share_outside(values):.1%} of what it is given lies "
            f"outside 0 to 1 ({float(values.min()):.3g} to {float(values.max()):.3g}).",
            advice=f"{'softmax(dim=1)' if _exclusive(right) else 'sigmoid'} before it, or a loss that takes "
            "logits.",
            evidence={"lowest": float(values.min()), "highest": float(values.max()), "wants": wants},
            source=probe.source,
        )
    elif wants == "log-probabilities" and not sums_to_one(values.exp(), 1):
        given = "probabilities" if activation in ("softmax", "sigmoid") else "logits"
        yield finding(
            mod.LOGITS_INTO_PROBABILITY_LOSS,
            f"{probe.name} input",
            f"{probe.name} is given {given}, and wants their logarithms: it falls without bound as the value "
            "of the right class grows, whatever the others are.",
            advice="log_softmax(dim=1) before it, or cross_entropy.",
            evidence={"wants": wants},
            source=probe.source,
        )


def wanted(probe: Probe, right: torch.Tensor) -> str | None:
    """``logits``, ``probabilities``, ``log-probabilities``, or None where it can't be told.

    A loss that wants probabilities is least where each is right, and clips values outside 0 to 1, can't take
    them, or takes them for better than right. One that takes softmax or sigmoid itself is less for large
    logits than for those.

    Args:
        probe: the loss.
        right: 1 for what the target says is right and 0 for the rest, of the prediction's shape.
    """
    sure, wrong = _sure(right), _sure(_turned(right))
    best, worst = probe.value(sure), probe.value(wrong)
    if not (math.isfinite(best) and math.isfinite(worst)) or worst - best <= 1e-6:
        return None
    if _is_linear(probe, right):
        return "log-probabilities"
    strong = {k: probe.value(k * (2 * right - 1)) for k in STRENGTHS}
    against = probe.value(-8 * (2 * right - 1))
    least = min((value for value in strong.values() if math.isfinite(value)), default=math.inf)
    bounded = strong[16.0] >= strong[8.0] - 0.1 * max(against - strong[8.0], 0)
    if bounded and against > best and least < best - MARGIN * (worst - best):
        return "logits" if least > -MARGIN * (worst - best) or worst <= 0 else None
    if _same(probe, lambda x: x + 3.0) or _same(probe, lambda x: 2.0 * x):
        return None
    # Nothing below 0 can be given to it, or makes no difference; or more than 1 is better than right
    below = probe.value(_noise(probe).mul(0.3).clamp(-0.9, 0.9))
    better = probe.value(4 * right) < best - MARGIN * (worst - best)
    if not math.isfinite(below) or better or _same(probe, lambda x: x.clamp(0, 1)):
        return "probabilities"
    return None


def _least(probe: Probe, right: torch.Tensor) -> float:
    return min(probe.value(k * (2 * right - 1)) for k in STRENGTHS)


def _right(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor | None:
    """1 for what the target says is right and 0 for the rest; None where it isn't of classes."""
    shape = prediction.shape
    if prediction.numel() < 2 or not prediction.is_floating_point():
        return None
    if target.shape == shape:
        found = target.detach().float()
        if not bool(((found >= 0) & (found <= 1)).all()):
            return None
        if bool(((found == 0) | (found == 1)).all()):
            return found if bool((found == 1).any()) and bool((found == 0).any()) else None
        if prediction.ndim > 1 and shape[1] > 1 and sums_to_one(found, 1):
            return functional.one_hot(found.argmax(1), shape[1]).movedim(-1, 1).float()
        return None
    if prediction.ndim < 2 or shape[1] < 2 or target.shape != (shape[0], *shape[2:]) or not is_whole(target):
        return None
    index = target.detach().long()
    counted = (index >= 0) & (index < shape[1])
    if float(counted.float().mean()) < 0.5:
        return None
    return functional.one_hot(index.where(counted, 0), shape[1]).movedim(-1, 1).float()


def _exclusive(right: torch.Tensor) -> bool:
    return right.ndim > 1 and right.shape[1] > 1 and bool((right.sum(1) == 1).all())


def _sure(right: torch.Tensor) -> torch.Tensor:
    """Probabilities of nearly 0 and 1, whose sums are 1 where one class is right."""
    if _exclusive(right):
        return right * (1 - SURE * right.shape[1]) + SURE
    return right.clamp(SURE, 1 - SURE)


def _turned(right: torch.Tensor) -> torch.Tensor:
    return right.roll(1, 1) if _exclusive(right) else 1 - right


def _same(probe: Probe, change: Callable[[torch.Tensor], torch.Tensor]) -> bool:
    """Whether the loss doesn't see a change of the prediction."""
    start = _noise(probe)
    before, after = probe.value(start), probe.value(change(start))
    return math.isfinite(before) and abs(after - before) <= 1e-3 * max(abs(before), 1e-3)


def _noise(probe: Probe) -> torch.Tensor:
    noise = torch.randn(probe.prediction.shape, generator=torch.Generator().manual_seed(0))
    return noise.to(probe.prediction.device)


def _is_linear(probe: Probe, right: torch.Tensor) -> bool:
    """Whether the loss is a negative sum of the values of the right classes."""
    if not _exclusive(right):
        return False
    noise = _noise(probe)
    first, second = (probe.with_gradient(k * noise)[1] for k in (1.0, 3.0))
    if first is None or second is None or not torch.allclose(first, second, rtol=1e-3, atol=1e-9):
        return False
    return bool((first * (1 - right) == 0).all()) and bool((first * right <= 0).all()) and bool(first.any())


def _activation(prediction: torch.Tensor) -> str | None:
    origin = origin_of(prediction)
    if origin.known:
        return origin.activation if origin.exact else None
    values = prediction.float()
    if values.ndim > 1 and values.shape[1] > 1 and sums_to_one(values, 1) and bool((values >= 0).all()):
        return "softmax"
    return None


def _share_outside(values: torch.Tensor) -> float:
    return float(((values < -CLOSE) | (values > 1 + CLOSE)).float().mean())
