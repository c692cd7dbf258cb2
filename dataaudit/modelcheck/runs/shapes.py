"""Statistics of noisy curves: level, noise, trend, and what is left to gain. All functions are pure."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

__all__ = ["drop_left", "ends", "levels", "lowest", "noise", "rises", "smooth", "trend", "turning"]

Array: TypeAlias = "np.ndarray[Any, np.dtype[np.float64]]"


def noise(y: Array) -> float:
    """Standard deviation of what differs from one point to the next and is no trend.

    Args:
        y: (n,) finite values.

    >>> noise(np.arange(9.0)) < 1e-12
    True
    """
    if len(y) < 5:
        return float(np.std(np.diff(y)) / np.sqrt(2)) if len(y) > 2 else 0.0
    second = y[2:] - 2 * y[1:-1] + y[:-2]
    # Where a curve falls steeply its bend looks like noise: the calmer part is what tells
    return float(1.4826 * np.median(np.abs(second)) / np.sqrt(6))


def smooth(y: Array, width: int | None = None) -> Array:
    """Running median, with narrower windows at the ends; (n,) as `y`."""
    from scipy.ndimage import median_filter

    n = len(y)
    half = (max(3, n // 10) if width is None else width) // 2
    found = median_filter(y, size=2 * half + 1, mode="nearest")
    for i in (*range(min(half, n)), *range(max(0, n - half), n)):
        found[i] = np.median(y[max(0, i - half) : i + half + 1])
    return np.asarray(found, dtype=np.float64)


def ends(y: Array, share: float = 0.15) -> tuple[float, float]:
    """Median of the first and of the last `share` of a curve; the first has at most 3 points."""
    k = max(1, round(len(y) * share))
    return float(np.median(y[: min(k, 3)])), float(np.median(y[-max(k, min(3, len(y))) :]))


def levels(y: Array, n_blocks: int) -> Array:
    """Medians of `n_blocks` consecutive parts of nearly equal length (fewer where there are fewer points)."""
    return np.array([np.median(part) for part in np.array_split(y, min(n_blocks, len(y)))])


def lowest(y: Array) -> int:
    """Where the smoothed curve is lowest; the first such point."""
    return int(np.argmin(smooth(y)))


def trend(y: Array) -> tuple[float, float]:
    """Whether a curve rises or falls: Kendall's tau of blocks of it, and its p-value.

    Blocks, because neighbouring points of a curve aren't independent.

    Returns:
        tau in [-1, 1], positive where it rises, and p in [0, 1]; (0, 1) for a constant curve.
    """
    from scipy.stats import kendalltau

    middle = float(np.median(y))
    spread = 6 * float(np.median(np.abs(y - middle)))
    # One spike in a block would be its mean
    held = np.clip(y, middle - spread, middle + spread) if spread > 0 else y
    blocks = np.array([part.mean() for part in np.array_split(held, min(20, len(y)))])
    if len(blocks) < 4 or np.ptp(blocks) == 0:
        return 0.0, 1.0
    tau, p = kendalltau(np.arange(len(blocks)), blocks)
    return float(tau), float(p)


def rises(y: Array, at: int) -> tuple[float, float]:
    """How far a curve has risen at its end above its level around `at`.

    Returns:
        The rise of the median level, and its standard error from the noise of both levels.
    """
    k = max(1, min(3, at))
    low = y[max(0, at - k) : at + k + 1]
    after = y[at + 1 :]
    end = after[-max(1, min(len(after), max(3, len(y) // 8))) :]
    if not len(end):
        return 0.0, 0.0
    sigma = noise(y[max(0, at - 3) :])
    error = 1.2533 * sigma * np.sqrt(1 / len(low) + 1 / len(end))
    return float(np.median(end) - np.median(low)), float(error)


def drop_left(y: Array) -> tuple[float, float]:
    """How far a curve fell over its last quarter, and what as many points as it has might still bring.

    Returns:
        The fall between the beginning and the end of the last quarter, and the fall that follows from the
        power law through the levels at a quarter, the half and the end: never more than twice the fall of the
        second half.
    """
    n = len(y)
    last = y[-max(6, n // 4) :]
    k = max(2, len(last) // 3)
    fell = float(np.median(last[:k]) - np.median(last[-k:])) * len(last) / max(1, len(last) - k)
    blocks = levels(y, 8)
    if len(blocks) < 8:
        return fell, fell
    first, second = blocks[1] - blocks[3], blocks[3] - blocks[7]
    if first <= 0 or second <= 0:
        return fell, max(0.0, min(fell, second))
    ratio = min(second / first, 2.0)
    return fell, float(second * ratio)


def turning(y: Array) -> tuple[float, float]:
    """How far a curve swings about its trend in its second half, and how regularly.

    Returns:
        The deviation from a smooth trend (robust, in units of y), and the share of consecutive steps that go
        in opposite directions; 2/3 for independent noise, 1 for an alternation, less for slow waves.
    """
    half = y[len(y) // 2 :]
    x = np.linspace(-1, 1, len(half))
    left = half - np.polyval(np.polyfit(x, half, 1), x)
    low, high = np.quantile(left, [0.16, 0.84])
    sigma = float(high - low) / 2
    steps = np.sign(np.diff(half))
    steps = steps[steps != 0]
    turns = float((steps[1:] != steps[:-1]).mean()) if len(steps) > 1 else 0.0
    return sigma, turns
