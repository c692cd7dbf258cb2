"""How far two models are apart: differences against what rounding explains, decisions and accuracy."""

from __future__ import annotations

import copy
import math
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from dataaudit.modelcheck.inputs import Inputs, call, first, tensors

__all__ = [
    "Decisions",
    "compare_decisions",
    "decisions",
    "latency",
    "limit_for",
    "mcnemar",
    "relative",
    "rounding",
    "wilson",
]

# Share of the largest output that rounding of each type may make, at least and at most
_FLOOR = {torch.float64: 1e-7, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2,
          torch.qint8: 0.3}  # fmt: skip
_CEILING = {torch.float64: 1e-3, torch.float32: 2e-2, torch.float16: 0.15, torch.bfloat16: 0.4,
            torch.qint8: 0.6}  # fmt: skip
_EPSILON = {torch.float64: 2.0**-52, torch.float32: 2.0**-23, torch.float16: 2.0**-10,
            torch.bfloat16: 2.0**-7, torch.qint8: 2.0**-7}  # fmt: skip
MARGIN = 32.0
"""How many times the measured rounding is still rounding: kernels add in another order."""


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    """Largest difference as a share of the largest finite value of `a`; infinity where finiteness differs.

    >>> relative(torch.tensor([1.0, 4.0]), torch.tensor([1.0, 3.0]))
    0.25
    """
    if a.shape != b.shape:
        return math.inf
    if not a.numel():
        return 0.0
    one, other = a.detach().double().cpu(), b.detach().double().cpu()
    if not torch.equal(one.isfinite(), other.isfinite()):
        return math.inf
    one, other = one.nan_to_num(0.0, 0.0, 0.0), other.nan_to_num(0.0, 0.0, 0.0)
    gap, top = float((one - other).abs().max()), float(one.abs().max())
    return gap / top if top > 0 else (0.0 if gap == 0 else math.inf)


def rounding(model: nn.Module, inputs: Inputs, *, n: int = 2) -> float | None:
    """How much of the largest output rounding in the model's own type changes, against double precision.

    Args:
        model: in eval mode; it is copied.
        inputs: what it is called with; `n` samples are.

    Returns:
        A share, or None where it can't be told.
    """
    few = first(inputs, n)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            double = copy.deepcopy(model).double()
            exact = list(tensors(call(double, _double(few))))
            plain = list(tensors(call(model, few)))
    except Exception:  # such as a model that casts to float32 inside
        return None
    gaps = [relative(one, other) for one, other in zip(exact, plain, strict=False) if one.is_floating_point()]
    found = max(gaps, default=0.0)
    return found if math.isfinite(found) else None


def _double(value: Inputs) -> Inputs:
    if isinstance(value, torch.Tensor):
        return value.double() if value.is_floating_point() else value
    if isinstance(value, dict):
        return {key: _double(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_double(item) for item in value)
    return value


def limit_for(precision: torch.dtype, noise: float | None, own: torch.dtype = torch.float32) -> float:
    """Largest relative difference that a type explains.

    Args:
        precision: type of the deployed model.
        noise: what `rounding` measured in the type `own`, or None.
        own: type of the trained model.

    >>> limit_for(torch.float32, None), limit_for(torch.float16, 1e-7)
    (0.0001, 0.0262144)
    """
    dtype = max(precision, own, key=lambda each: _EPSILON.get(each, 0.0))
    floor, ceiling = _FLOOR.get(dtype, 1e-4), _CEILING.get(dtype, 2e-2)
    if noise is None:
        return floor
    scale = _EPSILON.get(dtype, 2.0**-23) / _EPSILON.get(own, 2.0**-23)
    return min(ceiling, max(floor, MARGIN * noise * scale))


def decisions(output: torch.Tensor) -> torch.Tensor | None:
    """What the model decides for each sample (or pixel): the class with the largest value.

    Args:
        output: (n, classes, ...) scores, or (n,) or (n, 1) scores of one class.

    Returns:
        (n, ...) int64, or None where the output is no decision.
    """
    if not output.is_floating_point() or output.ndim == 0:
        return None
    if output.ndim == 1 or output.shape[1] == 1:
        flat = output.reshape(len(output), -1)
        if flat.shape[1] != 1:
            return None
        inside = bool(((flat >= 0) & (flat <= 1)).all())
        return (flat[:, 0] > (0.5 if inside else 0.0)).long()
    return output.nan_to_num(-math.inf).argmax(1)


@dataclass(frozen=True, kw_only=True)
class Decisions:
    """How the decisions of two models compare.

    Attributes:
        n: how many decisions.
        flipped: positions of the samples with another decision.
        flips: how many decisions differ.
        right_before, right_after: how many of `labelled` are right, None without labels.
        labelled: how many have a label.
        p: of McNemar's exact test, None without labels.
    """

    n: int
    flipped: tuple[int, ...]
    flips: int
    labelled: int = 0
    right_before: int | None = None
    right_after: int | None = None
    p: float | None = None


def compare_decisions(
    before: torch.Tensor, after: torch.Tensor, targets: torch.Tensor | None
) -> Decisions | None:
    """Count the decisions that differ, and those that are right; None where the outputs are no decisions."""
    one, other = decisions(before), decisions(after)
    if one is None or other is None or one.shape != other.shape:
        return None
    differ = one != other
    flipped = differ.reshape(len(differ), -1).any(1).nonzero().flatten().tolist()
    result = Decisions(n=one.numel(), flipped=tuple(flipped), flips=int(differ.sum()))
    if targets is None or targets.shape != one.shape or targets.is_floating_point():
        return result
    known = (targets >= 0).cpu()
    if not known.any():
        return result
    right, still = (one == targets.cpu())[known], (other == targets.cpu())[known]
    return Decisions(
        n=result.n, flipped=result.flipped, flips=result.flips, labelled=int(known.sum()),
        right_before=int(right.sum()), right_after=int(still.sum()),
        p=mcnemar(int((right & ~still).sum()), int((~right & still).sum())),
    )  # fmt: skip


def wilson(k: int, n: int, z: float = 1.959964) -> tuple[float, float]:
    """95 % interval of a share, `k` of `n`.

    Reference: Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", JASA 1927.

    >>> [round(side, 3) for side in wilson(8, 10)]
    [0.49, 0.943]
    """
    if n == 0:
        return 0.0, 1.0
    share = k / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def mcnemar(only_first: int, only_second: int) -> float:
    """p-value of McNemar's exact test of two paired shares, two-sided.

    Args:
        only_first: samples that the first has right and the second has not.
        only_second: the reverse.

    Reference: McNemar, "Note on the Sampling Error of the Difference Between Correlated Proportions",
    Psychometrika 1947; exact by the binomial distribution.

    >>> mcnemar(8, 1), mcnemar(0, 0)
    (0.0390625, 1.0)
    """
    n = only_first + only_second
    if n == 0:
        return 1.0
    from scipy.stats import binomtest

    return float(binomtest(only_first, n, 0.5).pvalue)


def latency(run: Callable[[], object], *, warm: int = 2, repeats: int = 15, seconds: float = 1.0) -> float:
    """Median seconds of a call after `warm` calls; fewer than `repeats` when they take over `seconds`."""
    for _ in range(warm):
        run()
    took: list[float] = []
    while len(took) < repeats and (len(took) < 3 or sum(took) < seconds):
        start = time.perf_counter()
        run()
        took.append(time.perf_counter() - start)
    return sorted(took)[len(took) // 2]


def largest(before: Sequence[torch.Tensor], after: Sequence[torch.Tensor]) -> float:
    """The largest `relative` difference of several outputs; infinity where their forms differ."""
    if len(before) != len(after):
        return math.inf
    return max((relative(a, b) for a, b in zip(before, after, strict=True)), default=0.0)
