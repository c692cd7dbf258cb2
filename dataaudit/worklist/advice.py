"""When a reviewer may stop, as a sentence with figures."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from dataaudit.worklist.estimate import Estimate

__all__ = ["FEW", "advice_of"]

FEW = 0.1
"""Below this share of errors among the next findings, looking at them brings little."""


def advice_of(
    ahead: npt.NDArray[np.floating[Any]], queue: Estimate, everything: Estimate, confirmed: int
) -> str | None:
    """A sentence that says what is left, when stopping costs little or nothing is left to look at.

    Args:
        ahead: chances of the next findings to be errors.
        queue: the errors among the findings that are left.
        everything: the errors that are left in all.
        confirmed: how many errors were found.
    """
    if not len(ahead):
        below = _about(everything)
        found = f"Every finding is decided, {confirmed:,} of them errors."
        return (
            f"{found} {below} left where nothing was found, as far as known."
            if everything.errors >= 0.5
            else found
        )
    if float(np.mean(ahead)) >= FEW:
        return None
    looks = queue.n / max(queue.errors, 1e-9)
    cost = f": {looks:,.0f} looks an error" if looks < queue.n else ""
    return f"{_about(queue)} left in {queue.n:,} finding{'s' * (queue.n != 1)}{cost}."


def _about(estimate: Estimate) -> str:
    errors, low, high = round(estimate.errors), int(estimate.low), int(np.ceil(estimate.high))
    verb = "is" if errors == 1 else "are"
    return f"About {errors:,} error{'s' * (errors != 1)} ({low:,} to {high:,}) {verb}"
