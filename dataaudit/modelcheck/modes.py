"""Train and eval mode: what eval doesn't reach, what PyTorch doesn't know, what differs between the two."""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from dataaudit.modelcheck.families import mod
from dataaudit.modelcheck.findings import finding, place_of
from dataaudit.modelcheck.inputs import Inputs, call
from dataaudit.modelcheck.keeping import kept
from dataaudit.modelcheck.watching import calls, same
from dataaudit.types import Finding

__all__ = ["figures", "not_in_eval", "running_statistics", "train_eval", "unregistered"]

MAX_SHIFT, MAX_RATIO, MIN_VALUES = 1.0, 10.0, 32
_BATCH_NORM = nn.modules.batchnorm._BatchNorm
_EXPECTED = ("Drop", "StochasticDepth", "BatchNorm", "InstanceNorm")


def unregistered(model: nn.Module) -> list[Finding]:
    """MOD008: modules and parameters in plain containers of a module, which PyTorch doesn't know of."""
    known = {id(part) for part in model.modules()} | {id(one) for one in model.parameters()}
    found = []
    for name, module in model.named_modules():
        for attribute, held in vars(module).items():
            # Hooks, and what PyTorch itself and libraries keep, such as a trainer's reference
            if attribute.startswith("_") or not isinstance(held, (list, tuple, dict)):
                continue
            lost = [one for one in _inside(held) if id(one) not in known and _trains(one)]
            if not lost:
                continue
            where = f"{name}.{attribute}" if name else attribute
            n = sum(_size(one) for one in lost)
            kind = type(lost[0]).__name__
            what = (
                f"{where} is a plain {type(held).__name__} with {len(lost)} {kind}"
                f"{'s' if len(lost) > 1 else ''} ({n:,} parameters) that model.parameters() doesn't hold."
            )
            better = "nn.ParameterList" if isinstance(lost[0], nn.Parameter) else "nn.ModuleList"
            if isinstance(held, dict):
                better = better.replace("List", "Dict")
            found.append(
                finding(
                    mod.UNREGISTERED_LAYER, where, what,
                    advice=f"Make it a {better}: then it is trained, saved, moved and put into eval mode.",
                    evidence={"parameters": n, "modules": len(lost)}, source=place_of(type(module)),
                )
            )  # fmt: skip
    return found


def _inside(held: Any, depth: int = 0) -> Iterator[nn.Module | nn.Parameter]:
    if isinstance(held, (nn.Module, nn.Parameter)):
        yield held
    elif depth < 3 and isinstance(held, (list, tuple)):
        for one in held:
            yield from _inside(one, depth + 1)
    elif depth < 3 and isinstance(held, dict):
        for one in held.values():
            yield from _inside(one, depth + 1)


def _trains(one: nn.Module | nn.Parameter) -> bool:
    tensors = [one] if isinstance(one, nn.Parameter) else list(one.parameters())
    return any(tensor.requires_grad for tensor in tensors)


def _size(one: nn.Module | nn.Parameter) -> int:
    return one.numel() if isinstance(one, nn.Parameter) else sum(part.numel() for part in one.parameters())


def not_in_eval(model: nn.Module) -> list[Finding]:
    """MOD006: modules that are still in train mode after ``model.eval()``."""
    with kept(model):
        model.eval()
        still = [(name, part) for name, part in model.named_modules() if part.training]
        matter = [
            (name, part) for name, part in still
            if any(word in type(part).__name__ for word in _EXPECTED) or not any(part.children())
        ]  # fmt: skip
    if not still:
        return []
    shown = matter or still
    names = ", ".join(f"{name or 'the model'} ({type(part).__name__})" for name, part in shown[:3])
    parent = _parent(model, shown[0][0])
    what = f"After model.eval(), {len(still)} modules are still in train mode: {names}"
    what += f" and {len(shown) - 3} more." if len(shown) > 3 else "."
    own = [
        each
        for each in parent
        if type(each).train is not nn.Module.train or type(each).eval is not nn.Module.eval
    ]
    culprit = f"{type(own[0]).__name__} has a train() or eval() of its own: " if own else ""
    return [
        finding(
            mod.EVAL_NOT_REACHED, shown[0][0] or type(model).__name__, what,
            advice=f"{culprit}call super().train(mode) in it, and return self.",
            evidence={"modules": [name for name, _ in still][:20]},
            source=place_of(type(own[0]).train) if own else None,
        )
    ]  # fmt: skip


def _parent(model: nn.Module, name: str) -> list[nn.Module]:
    """The modules that hold the one named, from the outside inwards, and it."""
    parts = name.split(".") if name else []
    chain = [model]
    for part in parts:
        chain.append(chain[-1].get_submodule(part))
    return chain


def running_statistics(model: nn.Module, inputs: Inputs) -> list[Finding]:
    """MOD007: batch norms whose running statistics don't fit the inputs; the model is in eval mode."""
    norms = {
        name: part for name, part in model.named_modules()
        if isinstance(part, _BATCH_NORM) and part.running_mean is not None and part.running_var is not None
    }  # fmt: skip
    broken = [name for name, part in norms.items() if _is_broken(part)]
    if broken:
        what = (
            f"The running statistics of {broken[0]} hold NaN or a negative variance ({len(broken)} in all)."
        )
        return [finding(mod.RUNNING_STATISTICS, broken[0], what, evidence={"layers": broken[:20]},
                        advice="Train from a state before the loss was NaN, or reset_running_stats() and "
                        "run training images through it in train mode.")]  # fmt: skip
    if all(_is_default(part) for part in norms.values()):
        return []
    found: list[tuple[str, float, float]] = []
    with calls(model) as done, torch.no_grad():
        call(model, inputs)
    for one in done:
        if one.name in norms and one.inputs and not _is_default(norms[one.name]):
            gap = _gap(norms[one.name], one.inputs[0])
            if gap is not None:
                found.append((one.name, *gap))
    bad = [row for row in found if row[1] > MAX_SHIFT or row[2] > math.log(MAX_RATIO)]
    if not bad:
        return []
    name, shift, ratio = bad[0]
    what = (
        f"The running statistics of {name} don't fit the data: the batch's means are a median of {shift:.1f} "
        f"standard deviations away, the variances a factor of {math.exp(ratio):.1f} ({len(bad)} of "
        f"{len(found)} batch norms)."
    )
    first = name == found[0][0]
    if _never_moved(norms[name]):
        n_seen, momentum = norms[name].num_batches_tracked, norms[name].momentum
        what += f" They are 0 and 1 as at the start, after {n_seen} batches with a momentum of {momentum}."
    advice = (
        "PyTorch's momentum is the share of the new batch: 0.1 is its default, and 0 never moves the "
        "statistics. Set it, and run training images through the model in train mode."
        if _never_moved(norms[name])
        else "It is the first of them: compare preprocessing (scale, mean, colours) with that of training."
        if first
        else "Compare preprocessing with that of training; if it is the same, run a few hundred training "
        "images through the model in train mode, with a smaller momentum."
    )
    evidence = {
        "median_shift": shift,
        "variance_factor": math.exp(ratio),
        "layers": [row[0] for row in bad][:20],
    }
    return [finding(mod.RUNNING_STATISTICS, name, what, advice=advice, evidence=evidence, score=0.2)]


def _is_broken(part: Any) -> bool:
    mean, variance = part.running_mean, part.running_var
    return not bool(mean.isfinite().all() and variance.isfinite().all() and (variance >= 0).all())


def _is_default(part: Any) -> bool:
    """Whether the statistics are as at the start, and no batch was seen that should have changed them."""
    seen = part.num_batches_tracked
    fresh = seen is None or int(seen) == 0
    return fresh and bool((part.running_mean == 0).all() and (part.running_var == 1).all())


def _never_moved(part: Any) -> bool:
    return bool((part.running_mean == 0).all() and (part.running_var == 1).all())


def _gap(part: Any, given: torch.Tensor) -> tuple[float, float] | None:
    """Median shift in deviations, and median ratio of variances as |log|; None for too few values."""
    channels = given.transpose(0, 1).flatten(1).double() if given.ndim > 1 else given[None].double()
    if channels.shape[1] < MIN_VALUES:
        return None
    mean, variance = part.running_mean.double(), part.running_var.double()
    seen = channels.var(1, unbiased=False)
    alive = (variance > 1e-6) & (seen > 1e-6)
    if not alive.any():
        return None
    shift = (channels.mean(1) - mean).abs() / (variance + part.eps).sqrt()
    ratio = ((seen + part.eps) / (variance + part.eps)).log().abs()
    return float(shift[alive].median()), float(ratio[alive].median())


def train_eval(model: nn.Module, inputs: Inputs) -> list[dict[str, Any]]:
    """Modules that put out something else in train mode than in eval mode, for the same input and seed.

    Args:
        model: the model; it is as before afterwards.
        inputs: what it is called with; detection models need targets in train mode.

    Returns:
        One dict a module, in execution order of eval mode: ``name``, ``type``, ``difference`` (share of the
        largest value) and ``expected``, true for dropout, stochastic depth and batch norm.
    """
    with kept(model, inputs, eager=True), torch.no_grad():
        model.eval()
        torch.manual_seed(0)
        with calls(model) as done:
            call(model, inputs)
        rows = []
        for one in done:
            kind = type(one.module).__name__
            if any(True for _ in one.module.children()) or len(one.inputs) != 1 or not one.outputs:
                continue
            one.module.train()
            torch.manual_seed(0)
            try:
                out = one.module(one.inputs[0].clone())
            except (RuntimeError, ValueError, TypeError):
                continue
            finally:
                one.module.eval()
            if not isinstance(out, torch.Tensor) or same((out,), one.outputs[:1]):
                continue
            top = float(one.outputs[0].double().abs().max()) or 1.0
            gap = (
                float((out.double() - one.outputs[0].double()).abs().max()) / top
                if out.shape == one.outputs[0].shape
                else 1.0
            )
            expected = any(word in kind for word in _EXPECTED)
            rows.append({"name": one.name, "type": kind, "difference": gap, "expected": expected})
    return rows


def figures(model: nn.Module) -> dict[str, Any]:
    """What may change in a call, by name: digests of weights and buffers, and plain attributes."""
    found: dict[str, Any] = {
        name: _digest(value) for name, value in [*model.named_parameters(), *model.named_buffers()]
    }
    for name, module in model.named_modules():
        for attribute, value in vars(module).items():
            if attribute in ("_parameters", "_buffers", "_modules", "training") or attribute.endswith(
                "_hooks"
            ):
                continue
            found[f"{name}.{attribute}" if name else attribute] = _plain(value)
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return _digest(value)
    if isinstance(value, torch.Generator):
        return _digest(value.get_state())
    if isinstance(value, random.Random):
        return value.getstate()
    if isinstance(value, (int, float, str, bool)):
        return value
    if isinstance(value, Mapping):
        return [len(value), *(_plain(item) for item in list(value.values())[:100])]
    if isinstance(value, (list, tuple)):
        return [len(value), *(_plain(item) for item in list(value)[:100])]
    return type(value).__name__


def _digest(tensor: torch.Tensor) -> str:
    if tensor.layout is not torch.strided or tensor.device.type == "meta":
        return ""
    plain = tensor.detach().cpu().contiguous().reshape(-1)
    data = plain.view(torch.uint8).numpy().data if plain.numel() else b""
    return hashlib.blake2b(data, digest_size=8).hexdigest()
