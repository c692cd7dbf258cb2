"""Does a model say the same of the same input: again, after other inputs, alone, and in eval mode?"""

from __future__ import annotations

import random
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from dataaudit.modelcheck import batch_independence, modes
from dataaudit.modelcheck.families import mod
from dataaudit.modelcheck.findings import finding, place_of
from dataaudit.modelcheck.inputs import Batch, Inputs, call, called, random_batch, tensors
from dataaudit.modelcheck.keeping import Kept, kept, set_deterministic
from dataaudit.modelcheck.watching import Call, Operation, calls, operations, same
from dataaudit.types import Finding

__all__ = ["CODES", "Runner", "determinism"]

CODES = tuple(f"MOD{number:03d}" for number in range(1, 10))

_DRAWS = (
    "bernoulli",
    "dropout",
    "rand",
    "normal",
    "uniform",
    "multinomial",
    "exponential",
    "poisson",
    "cauchy",
)
_ALIKE = 0.3
_FILLS = ("bernoulli_", "uniform_", "normal_", "random_", "copy_", "fill_", "zero_", "exponential_", "set_")


def determinism(
    model: nn.Module, inputs: Inputs | Batch | None = None, *, real: bool | None = None
) -> list[Finding]:
    """Find out whether a model puts out the same for the same input, and if not which module and why.

    The model is called in eval mode: twice in a row, with other random numbers, with its state put back, with
    uninitialised memory filled, and one sample alone; all of it is undone.

    Args:
        model: the model, on any device.
        inputs: what it is called with (see `dataaudit.modelcheck.inputs`), or a `Batch`; random numbers of a
            shape that it takes when left out. At least two samples, so that one can be looked at alone.
        real: whether the inputs are real data, for which batch norm's running statistics should fit; when
            left out as the batch says, or for tensors whether they are images, whose neighbouring pixels are
            alike.

    Returns:
        Findings MOD001 to MOD009, what explains others first.

    Raises:
        InputError: no input shape can be found.

    >>> determinism(nn.Sequential(nn.Linear(4, 2), nn.Dropout(0.5)))
    []
    """
    batch = inputs if isinstance(inputs, Batch) else Batch(inputs=inputs, real=bool(real))
    if batch.inputs is None:
        batch = random_batch(model)
    given = batch.inputs
    is_real = real
    if is_real is None:
        is_real = batch.real or (not isinstance(inputs, Batch) and looks_like_images(given))
    found = [*modes.unregistered(model), *modes.not_in_eval(model)]
    with kept(model, given, eager=True) as state, torch.no_grad():
        runner = Runner(model, given, state)
        first = runner.run(seed=0)
        found += _input_changed(runner, batch)
        again = runner.run(seed=1, restore=False)
        memory = _uninitialised(runner, first)
        found += memory
        if not same(first, again):
            found += _causes(runner, first, explained=bool(memory))
        if not any(item.code in ("MOD001", "MOD003", "MOD004") for item in found):
            found += batch_independence.batch_dependence(runner.model, given, runner.fresh)
        if is_real:
            runner.fresh()
            found += modes.running_statistics(model, given)
    return found


def looks_like_images(inputs: Inputs) -> bool:
    """Whether neighbouring pixels are alike, as in images and not in random numbers.

    >>> looks_like_images(torch.rand(2, 3, 16, 16)), looks_like_images(torch.ones(2, 3, 16, 16).cumsum(3))
    (False, True)
    """
    image = next((one for one in tensors(inputs) if one.ndim >= 3 and min(one.shape[-2:]) >= 8), None)
    if image is None or image.is_complex():
        return False
    values = image.detach().double()
    values = values - values.mean((-2, -1), keepdim=True)
    power = values.square().mean()
    alike = (values[..., 1:] * values[..., :-1]).mean()
    return bool(power.isfinite() and power > 0 and alike > _ALIKE * power)


@dataclass
class Runner:
    """Calls one model again and again, each time from the state that is asked for.

    Attributes:
        model: it.
        inputs: what it is called with; each call gets a copy.
        state: its state before the check.
    """

    model: nn.Module
    inputs: Inputs
    state: Kept

    def fresh(self) -> None:
        """Put the model back to its state before the check, in eval mode."""
        self.state.restore()
        torch._C._set_grad_enabled(False)
        self.model.eval()

    def run(self, *, seed: int, restore: bool = True) -> tuple[torch.Tensor, ...]:
        """Call the model; the tensors of its output, copied."""
        if restore:
            self.fresh()
        _seed(seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            out = called(self.model, _copied(self.inputs))
        return tuple(one.detach().clone() for one in tensors(out))

    def watched(self, *, seed: int, restore: bool = True) -> list[Call]:
        """The calls of its modules."""
        if restore:
            self.fresh()
        with calls(self.model) as done:
            self.run(seed=seed, restore=False)
        return done

    def operated(self, *, seed: int, restore: bool = True) -> list[Operation]:
        """The operations of one call."""
        if restore:
            self.fresh()
        with operations() as done:
            self.run(seed=seed, restore=False)
        return done


def _seed(seed: int) -> None:
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)


def _copied(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*map(_copied, value))
    if isinstance(value, (list, tuple)):
        return type(value)(_copied(item) for item in value)
    return value


def _causes(runner: Runner, first: tuple[torch.Tensor, ...], *, explained: bool) -> list[Finding]:
    """Why two calls in a row differ: by chance, by state, or by neither."""
    if not same(first, runner.run(seed=0)):
        return [] if explained else [_unrepeatable(runner)]
    found = []
    if not same(first, runner.run(seed=1)):
        found.append(_random(runner))
    runner.run(seed=0)
    if not same(first, runner.run(seed=0, restore=False)):
        found.append(_stateful(runner))
    return found


def _random(runner: Runner) -> Finding:
    where, place = _departs(runner.watched(seed=0), runner.watched(seed=1))
    operation = _first_difference(runner.operated(seed=0), runner.operated(seed=1))
    line = operation.line if operation is not None else None
    drop = where is not None and "drop" in type(where.module).__name__.lower()
    size = _difference(runner.run(seed=0), runner.run(seed=1))
    title = place if where is None else where.title
    what = f"In eval mode the same input gives another output each time: {title} draws random numbers"
    what += f" ({operation.name.removeprefix('aten.')}{f' at {line}' if line else ''})." if operation else "."
    what += f" The outputs of two seeds differ by up to {size:.2g} of their largest value."
    if where is not None and where.module.training:
        advice = "It is still in train mode after model.eval(): see to it that eval() reaches it."
    elif drop or (operation is not None and ("dropout" in operation.name or "bernoulli_" in operation.name)):
        advice = "Pass training=self.training to F.dropout, whose default is True."
    elif operation is not None and any(word in operation.name for word in _DRAWS):
        advice = "Draw only if self.training, or pass a seeded generator that starts anew in each call."
    else:
        advice = "Take the random number out of forward, or draw it only if self.training."
    name = place if where is None else where.name or title
    still = where is not None and where.module.training
    evidence = {
        "module": title, "type": None if where is None else type(where.module).__name__,
        "operation": None if operation is None else operation.name, "relative_difference": size,
    }  # fmt: skip
    source = line or (None if where is None else _own_place(where.module))
    return finding(mod.RANDOM_OUTPUT, name, what, advice=advice, evidence=evidence, source=source,
                   score=0.1 if still else 0.0)  # fmt: skip


def _stateful(runner: Runner) -> Finding:
    runner.fresh()
    before = modes.figures(runner.model)
    one = runner.watched(seed=0, restore=False)
    after = modes.figures(runner.model)
    changed = [name for name, value in after.items() if before.get(name) != value]
    where, place = _departs(one, runner.watched(seed=0, restore=False))
    title = place if where is None else where.title
    held = (
        f" A call changed {', '.join(changed[:4])}{' and more' if len(changed) > 4 else ''}."
        if changed
        else ""
    )
    what = (
        f"The second of two equal calls in eval mode gives another output: {title} carries state over.{held}"
    )
    owner = changed[0].rpartition(".")[0] if changed else ""
    module = dict(runner.model.named_modules()).get(owner) if changed else None
    batch_norm = module is not None and "Norm" in type(module).__name__
    if batch_norm:
        advice = "Its running statistics are updated in eval mode: see to it that eval() reaches it."
    elif changed:
        advice = f"Change {changed[0]} only if self.training, or start it anew in each call of forward."
    else:
        advice = "Start what forward carries over anew in each call, or keep it outside of the model."
    source = _own_place(module) if module is not None else None
    source = source or (None if where is None else _own_place(where.module))
    name = place if where is None else where.name or title
    return finding(mod.STATE_BETWEEN_CALLS, name, what, advice=advice,
                   evidence={"module": title, "changed": changed[:20]}, source=source)  # fmt: skip


def _unrepeatable(runner: Runner) -> Finding:
    one, two = runner.run(seed=0), runner.run(seed=0)
    size = _difference(one, two)
    where, place = _departs(runner.watched(seed=0), runner.watched(seed=0))
    operation = _first_difference(runner.operated(seed=0), runner.operated(seed=0))
    helps = _repeats_when_deterministic(runner)
    title = place if where is None else where.title
    what = f"Two calls with the same input, state and seed differ, first in {title}, by up to {size:.2g}"
    what += " of the largest value"
    what += (
        f" ({operation.name.removeprefix('aten.')}{f' at {operation.line}' if operation.line else ''})"
        if operation
        else ""
    )
    what += "; with deterministic algorithms they don't." if helps else "."
    advice = (
        "Call torch.use_deterministic_algorithms(True)."
        if helps
        else "Look there for the clock, a generator outside of the model, a global or the order of a set."
    )
    name = place if where is None else where.name or title
    source = (operation.line if operation else None) or (None if where is None else _own_place(where.module))
    evidence = {
        "module": title, "operation": None if operation is None else operation.name,
        "relative_difference": size, "deterministic_algorithms_help": helps,
    }  # fmt: skip
    return finding(mod.UNREPEATABLE_OPERATION, name, what, advice=advice, evidence=evidence, source=source,
                   score=0.6 if helps or size < 1e-4 else 0.0)  # fmt: skip


def _repeats_when_deterministic(runner: Runner) -> bool:
    def run() -> tuple[torch.Tensor, ...]:
        runner.fresh()
        set_deterministic(True, warn_only=True)
        return runner.run(seed=0, restore=False)

    return same(run(), run())


def _uninitialised(runner: Runner, first: tuple[torch.Tensor, ...]) -> list[Finding]:
    """Whether NaN reaches the output when PyTorch fills what nothing was written to with it."""

    def fill() -> None:
        runner.fresh()
        torch.utils.deterministic.fill_uninitialized_memory = True  # type: ignore[attr-defined]
        set_deterministic(True, warn_only=True)

    fill()
    filled = runner.run(seed=0, restore=False)
    if not any(_broken(one) and not _broken(other) for one, other in zip(filled, first, strict=False)):
        return []
    fill()
    done = runner.watched(seed=0, restore=False)
    where = next(
        (one for one in done if any(map(_broken, one.outputs)) and not any(map(_broken, one.inputs))), None
    )
    fill()
    with operations() as happened:
        runner.run(seed=0, restore=False)
    lines = [one.line for one in happened if "empty" in one.name and one.line is not None]
    title = "the model" if where is None else where.title
    held = [name for name, value in runner.model.state_dict().items() if _broken(value)]
    what = f"{title} reads memory that nothing was written to{f' (made at {lines[0]})' if lines else ''}: "
    what += "filled with NaN, it reaches the output."
    advice = "Use torch.zeros, or write every element before it is read."
    source = lines[0] if lines else (None if where is None else _own_place(where.module))
    name = title if where is None else where.name or title
    return [finding(mod.UNINITIALISED_MEMORY, name, what, advice=advice,
                    evidence={"module": title, "lines": lines[:5], "broken_weights": held[:5]},
                    source=source)]  # fmt: skip


def _broken(tensor: torch.Tensor) -> bool:
    return tensor.is_floating_point() and bool(tensor.isnan().any())


def _input_changed(runner: Runner, batch: Batch) -> list[Finding]:
    runner.fresh()
    copy = _copied(runner.inputs)
    with calls(runner.model, keep=lambda tensor: tensor.detach()) as done:
        call(runner.model, copy)
    before, after = tuple(tensors(runner.inputs)), tuple(tensors(copy))
    if same(before, after):
        return []
    # The innermost call that is given the input and leaves it changed
    pointers = {one.data_ptr() for one in after}
    touched = [one for one in done if any(tensor.data_ptr() in pointers for tensor in one.inputs)]
    inner = [one for one in touched if getattr(one.module, "inplace", False)]
    where = (inner or touched or done)[0]
    what = f"{where.title} changes the batch that the model is given: after the call it holds other values."
    return [finding(mod.INPUT_CHANGED, where.name or where.title, what,
                    advice="Use inplace=False there, or x = x * 2 in place of x *= 2.",
                    evidence={"module": where.title}, source=_own_place(where.module),
                    score=0.4)]  # fmt: skip


def _departs(a: Sequence[Call], b: Sequence[Call]) -> tuple[Call | None, str]:
    """The first call that gives another output for the same input, and its title."""
    for one, other in zip(a, b, strict=False):
        if one.name != other.name:
            break
        if same(one.inputs, other.inputs) and not same(one.outputs, other.outputs):
            return one, one.title
    return None, "the model"


def _first_difference(a: Sequence[Operation], b: Sequence[Operation]) -> Operation | None:
    """The first operation that gives another output for the same input."""
    for one, other in zip(a, b, strict=False):
        if one.name != other.name:
            return one
        base = one.name.split(".")[1]
        if "empty" in base or one.outputs == other.outputs:
            continue
        if one.inputs == other.inputs or base in _FILLS:
            return one
    return None


def _difference(a: Sequence[torch.Tensor], b: Sequence[torch.Tensor]) -> float:
    """Largest difference, as a share of the largest value; 1 where the shapes differ."""
    worst = 0.0
    for one, other in zip(a, b, strict=False):
        if one.shape != other.shape:
            return 1.0
        if one.numel() and not one.is_complex():
            gap = (one.double() - other.double()).abs().nan_to_num(0.0, 0.0, 0.0).max()
            top = one.double().abs().nan_to_num(0.0, 0.0, 0.0).max()
            worst = max(worst, float(gap / top) if top > 0 else float(gap))
    return worst


def _own_place(module: nn.Module) -> str | None:
    """Where a module of the user's own is written; None for one of a library."""
    if type(module).__module__.split(".")[0] in ("torch", "torchvision", "timm"):
        return None
    return place_of(module)
