"""The axis of a curve whose steps don't only grow: resumed runs, counters that restart, rows in no order."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

__all__ = ["in_order"]

Array: TypeAlias = "np.ndarray[Any, np.dtype[np.float64]]"


def in_order(x: Array, y: Array, epoch: Array | None = None) -> tuple[Array, Array, Array | None, str]:
    """Bring what was logged into the order of training.

    Where the steps go back once or a few times the run was resumed: what comes later counts, and what was
    logged before from the same steps on is left out. Where they go back to the start while the epoch goes
    on, or again and again after the same number of points, the counter restarts each epoch and is summed up.
    Where they go back all the time the rows are in no order and get sorted.

    Args:
        x: (n,) steps as logged, in the order in which they were logged.
        y: (n,) values.
        epoch: (n,) epoch of each, where it is known.

    Returns:
        x, y and epoch in order, and a note on what was done; empty where the steps only grow.
    """
    falls = np.flatnonzero(np.diff(x) < 0) + 1
    if not len(falls):
        return x, y, epoch, ""
    if _restarts(x, falls, epoch):
        lengths = np.diff(np.concatenate([[0], falls, [len(x)]]))
        tops = np.maximum.reduceat(x, np.concatenate([[0], falls]))
        offsets = np.concatenate([[0.0], np.cumsum(tops[:-1] - x[falls] + 1)])
        return x + np.repeat(offsets, lengths), y, epoch, f"its steps restart {len(falls)} times"
    if len(falls) > max(3, 0.1 * len(x)):
        order = np.argsort(x, kind="stable")
        return x[order], y[order], None if epoch is None else epoch[order], ""
    kept = np.ones(len(x), dtype=bool)
    for at in falls:
        kept[:at] &= x[:at] < x[at]
    last = falls[-1]
    note = f"its steps go back from {x[last - 1]:,.0f} to {x[last]:,.0f}: the later values count"
    return x[kept], y[kept], None if epoch is None else epoch[kept], note


def _restarts(x: Array, falls: np.ndarray[Any, Any], epoch: Array | None) -> bool:
    """Whether a counter begins again with each epoch."""
    if epoch is not None and not np.array_equal(epoch, x):
        return bool((epoch[falls] > epoch[falls - 1]).all())
    lengths = np.diff(np.concatenate([[0], falls]))
    return len(falls) >= 2 and bool((x[falls] <= x[0]).all()) and int(np.ptp(lengths)) <= 1 < lengths[0]
