"""The table of a comparison."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from dataaudit.modelcheck.deployment.checking import Parity
from dataaudit.modelcheck.deployment.differences import wilson
from dataaudit.modelcheck.reporting import Table

__all__ = ["TYPES", "tables"]

TYPES = {"float32": torch.float32, "float64": torch.float64, "float16": torch.float16,
         "bfloat16": torch.bfloat16, "int8": torch.qint8}  # fmt: skip
_NAMES = {dtype: name for name, dtype in TYPES.items()}


def tables(found: Sequence[Parity]) -> list[Table]:
    """One table with a column for each deployed model."""
    rows: dict[str, list[str | None]] = {}
    for one in found:
        for name, value in row(one).items():
            rows.setdefault(name, []).append(value)
    names = tuple(one.deployed.name for one in found)
    shown = tuple((name, *values) for name, values in rows.items() if any(values))
    note = "Relative: the largest difference as a share of the largest output. Intervals: 95 %, Wilson."
    return [Table(title="Trained against deployed", columns=("", *names), rows=shown, note=note)]


def row(one: Parity) -> dict[str, str | None]:
    """The figures of a comparison as texts."""
    before, after = one.seconds
    figures: dict[str, str | None] = {
        "runtime": one.deployed.runtime or None,
        "computes in": _NAMES.get(one.deployed.precision),
        "samples": f"{one.n:,}",
        "largest difference": None if one.absolute is None else f"{one.absolute:.3g}",
        "relative": None if one.relative is None else f"{one.relative:.2g} (explained up to {one.limit:.1g})",
        "decisions that flip": None,
        "accuracy before": None,
        "accuracy after": None,
        "latency of one": None
        if before is None or after is None
        else f"{after * 1000:.1f} ms (trained: {before * 1000:.1f} ms)",
        "size": _size(one),
        "note": "; ".join(one.notes) or None,
    }
    made = one.decisions
    if made is not None:
        low, high = wilson(made.flips, made.n)
        figures["decisions that flip"] = f"{made.flips:,} of {made.n:,} ({low:.1%} to {high:.1%})"
        if made.right_before is not None and made.right_after is not None:
            figures["accuracy before"] = _share(made.right_before, made.labelled)
            figures["accuracy after"] = _share(made.right_after, made.labelled) + f", p = {made.p:.2g}"
    return figures


def _share(k: int, n: int) -> str:
    low, high = wilson(k, n)
    return f"{k / n:.1%} ({low:.1%} to {high:.1%})"


def _size(one: Parity) -> str | None:
    before, after = one.sizes
    if after is None:
        return None
    return f"{after / 1e6:.1f} MB" + ("" if before is None else f" (trained: {before / 1e6:.1f} MB)")
