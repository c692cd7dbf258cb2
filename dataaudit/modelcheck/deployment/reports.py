"""The table of a comparison."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from dataaudit.modelcheck.deployment.checking import Parity
from dataaudit.modelcheck.deployment.differences import wilson
from dataaudit.modelcheck.deployment.preparing import Preprocessing, Side
from dataaudit.modelcheck.reporting import Table

__all__ = ["TYPES", "steps", "tables"]

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


def steps(found: Preprocessing) -> Table:
    """The steps of both sides as a table."""
    columns = [_steps(side) for side in (found.training, found.deployment)]
    rows = tuple((name, columns[0][name], columns[1][name]) for name in columns[0])
    differ = frozenset(
        at for at, row in enumerate(rows) if at and row[1] != row[2] and row[0] != "unexplained"
    )
    note = "Steps as they look from outside: the known ones that explain the result best."
    if found.levels is not None:
        note += f" Mean difference: {found.levels:.2g} levels of 255."
    return Table(title="What each side does", columns=("", "training", "deployment"), rows=rows,
                 marked=differ, note=note)  # fmt: skip


def _steps(side: Side) -> dict[str, str]:
    recipe = side.recipe
    known = recipe.is_known
    return {
        "takes": side.takes,
        "EXIF orientation": "applied" if recipe.upright else "not applied, or none in these images",
        "region": str(recipe.region) if known else "not known",
        "resize": recipe.method if known else "not known",
        "colours": "BGR" if recipe.reverse else "RGB",
        "scaled to": recipe.scaling if known else "not known",
        "axes": side.layout,
        "type": side.dtype,
        "unexplained": f"{recipe.left:.1f} levels of 255",
    }
