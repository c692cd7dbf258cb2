"""The same batch through one process and through several: do they train the same model?"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dataaudit.errors import InputError
from dataaudit.modelcheck.families import trn
from dataaudit.modelcheck.findings import finding
from dataaudit.modelcheck.inputs import Batch, call, first, length
from dataaudit.modelcheck.keeping import kept
from dataaudit.modelcheck.loading import load_callable, load_model
from dataaudit.modelcheck.training.process_loaders import judge_loaders
from dataaudit.modelcheck.training.process_runs import placement, run_together
from dataaudit.modelcheck.training.setups import Loss, scalar
from dataaudit.modelcheck.training.trials import without_dropout as no_dropout
from dataaudit.types import Finding

__all__ = ["CODES", "Processes", "processes"]

CODES = tuple(f"TRN{number:03d}" for number in range(40, 47))
TOLERANCE = 1e-3
"""Difference of gradients, as a share of the largest, that sums in another order may make."""


@dataclass(frozen=True, kw_only=True)
class Processes:
    """What the comparison shows.

    Attributes:
        findings: what differs and why.
        losses: of one process, and of each of several.
        difference: largest difference between the gradients of one and of several, as a share of the largest.
        seconds: how long the processes took.
    """

    findings: list[Finding]
    losses: tuple[float, ...]
    difference: float
    seconds: float


def processes(
    model: nn.Module | str,
    loss: Loss | str,
    batch: Batch,
    *,
    world: int = 2,
    sizes: Sequence[int] | None = None,
    wrap: str | None = None,
    loader: str | None = None,
    seed: str | None = None,
    seconds: float = 120.0,
) -> Processes:
    """Give a batch to one process, and its parts to several that train together, and compare.

    Each process runs by itself (nccl where there is a GPU for each, else gloo), without dropout, whose masks
    differ rightly. None is left running, whatever happens.

    Args:
        model: it, of a class that another process can import, or ``module:attribute``.
        loss: of prediction and target, likewise.
        batch: inputs and targets.
        world: how many processes.
        sizes: samples of each process; equal parts when left out.
        wrap: ``module:attribute`` of your function of the model that wraps it; DistributedDataParallel when
            left out.
        loader: ``module:attribute`` of your function of rank, number of processes and, where it takes a third
            argument, the epoch, that makes the loader; two epochs of it are read.
        seed: ``module:attribute`` of your function of the rank that sets random numbers.
        seconds: after which they are ended.

    Raises:
        InputError: the model can't be had in another process, the batch is too small, or a process is killed
            or takes too long.
    """
    cut = _sizes(batch, world, sizes)
    starts = [sum(cut[:at]) for at in range(world)]
    parts = [
        (first(batch.inputs, n, at), first(batch.targets, n, at)) for n, at in zip(cut, starts, strict=True)
    ]
    held = load_model(model)
    lossy = load_callable(loss, what="loss") if isinstance(loss, str) else loss
    start = time.perf_counter()
    with kept(held, lossy, batch.inputs, batch.targets) as state:
        held.train()
        case = _Case(
            model=held, loss=lossy, parts=parts, restore=state.restore,
            given=(first(batch.inputs, sum(cut)), first(batch.targets, sum(cut))),
        )  # fmt: skip
        one = figures(held, one_pass(held, lossy, *case.given, without_dropout=True))
        state.restore()
        on_gpu = any(each.is_cuda for each in held.parameters())
        backend, devices = placement(world, gpus=torch.cuda.device_count(), on_gpu=on_gpu)
        job = {
            "world": world, "seconds": seconds, "path": [str(Path.cwd()), *sys.path], "wrap": wrap,
            "loader": loader, "seed": seed, "model": model if isinstance(model, str) else None,
            "loss": loss if isinstance(loss, str) else None, "backend": backend, "devices": devices,
        }  # fmt: skip
        things = {"model": None if isinstance(model, str) else held, "state": held.state_dict(),
                  "loss": None if isinstance(loss, str) else lossy, "parts": parts}  # fmt: skip
        many, failed = run_together(job, things, seconds)
        state.restore()
        if failed is not None:
            found = [_failure(failed, case)]
        else:
            found = [*_shared(many, seeded=seed is not None), *judge_loaders(many)]
            found += _against(case, one, many, known=any(item.code == "TRN043" for item in found))
    losses = (one["loss"], *(each["loss"] for each in many))
    gap = distance(one["grads"], many[0]["grads"]) if many else float("nan")
    return Processes(findings=found, losses=losses, difference=gap, seconds=time.perf_counter() - start)


def _sizes(batch: Batch, world: int, sizes: Sequence[int] | None) -> list[int]:
    total = length(batch.inputs)
    if batch.targets is None:
        raise InputError("There are no targets.", fix="Give labels: --data DIR with labels, or --loader.")
    cut = list(sizes) if sizes is not None else [total // world] * world
    if world < 2 or len(cut) != world or min(cut) < 1 or sum(cut) > total:
        raise InputError(f"{total} samples can't be dealt to {world} processes as {cut}.")
    return cut


@dataclass(frozen=True, kw_only=True)
class _Case:
    """The model in this process: whole batch, its parts, and what puts the model back."""

    model: nn.Module
    loss: Any
    parts: Sequence[tuple[Any, Any]]
    given: tuple[Any, Any]
    restore: Callable[[], None]


def one_pass(
    model: nn.Module, loss: Any, inputs: Any, targets: Any, *, without_dropout: bool
) -> torch.Tensor:
    """Forward and backward pass; the loss."""
    for one in model.parameters():
        one.grad = None
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        stack.enter_context(torch.enable_grad())
        if without_dropout:
            stack.enter_context(no_dropout())
        value = scalar(loss(call(model, inputs), targets))
        if value is None or not value.requires_grad:
            raise InputError("The loss is no number with a gradient.", fix="See dataaudit model loss.")
        torch.autograd.backward(value)
    return value


def figures(model: nn.Module, value: torch.Tensor) -> dict[str, Any]:
    """Loss, gradients, and buffers other than batch norm's after a pass, copied."""
    norms = [
        f"{name}." if name else "" for name, one in model.named_modules()
        if isinstance(one, nn.modules.batchnorm._BatchNorm)
    ]  # fmt: skip
    return {
        "loss": float(value.detach()),
        "grads": {name: one.grad.detach().cpu().clone() for name, one in model.named_parameters()
                  if one.grad is not None},
        "buffers": {name: one.detach().cpu().clone() for name, one in model.named_buffers()
                    if not any(name.startswith(norm) for norm in norms)},
    }  # fmt: skip


def distance(a: Mapping[str, torch.Tensor], b: Mapping[str, torch.Tensor]) -> float:
    """Largest difference of any element, as a share of the largest of all."""
    if set(a) != set(b):
        return float("inf")
    top = max((float(one.abs().max()) for one in a.values() if one.numel()), default=0.0)
    gap = max((float((a[name] - b[name]).abs().max()) for name in a if a[name].numel()), default=0.0)
    return gap / top if top else gap


def _failure(failed: Mapping[str, Any], case: _Case) -> Finding:
    message, model = str(failed["message"]), case.model
    if "SyncBatchNorm expected input tensor to be on" in message:
        raise InputError(
            "SyncBatchNorm works on GPUs alone, and the processes run on the CPU.",
            fix="Leave it out of --wrap here, or run this where there are as many GPUs as processes.",
        )
    if "finished reduction" in message or "find_unused_parameters" in message:
        one_pass(model, case.loss, *case.given, without_dropout=True)
        names = [name for name, one in model.named_parameters() if one.requires_grad and one.grad is None]
        return finding(
            trn.PROCESS_UNUSED, names[0].rpartition(".")[0] if names else type(model).__name__,
            f"Several processes fail in the second step: {', '.join(names[:4])} take no part in the loss.",
            advice="Freeze or remove them, or wrap with find_unused_parameters=True.",
            evidence={"parameters": names[:20]},
        )  # fmt: skip
    line = (message.splitlines() or [""])[0]
    return finding(
        trn.PROCESS_DIFFERENCE, type(model).__name__,
        f"A process of several fails where one alone doesn't: {failed['type']}: {line}",
        advice="Run it with the traceback in the evidence.", evidence={"traceback": failed["traceback"]},
    )  # fmt: skip


def _shared(many: Sequence[Mapping[str, Any]], *, seeded: bool) -> Iterator[Finding]:
    """TRN042, TRN043 and TRN044: what the processes have in common, and shouldn't, or the reverse."""
    gap = max(distance(many[0]["grads"], each["grads"]) for each in many[1:])
    if gap > 1e-6:
        yield finding(
            trn.PROCESS_STATE, "gradients",
            f"After the backward pass the processes have other gradients, by up to {gap:.2g} of the largest: "
            "each trains a model of its own.",
            advice="Wrap the model in DistributedDataParallel, call the wrapper, and leave no_sync().",
            evidence={"difference": gap, "losses": [each["loss"] for each in many]},
        )  # fmt: skip
    if seeded and all(each["draw"] == many[0]["draw"] for each in many):
        yield finding(
            trn.PROCESS_RANDOM, "random numbers",
            f"All {len(many)} processes draw the same random numbers: dropout and augmentation repeat.",
            advice="torch.manual_seed(seed + rank).", evidence={"draws": many[0]["draw"]}, score=0.4,
        )  # fmt: skip
    names = [
        name for name, held in many[0]["buffers"].items()
        if any(not _close(held, each["buffers"].get(name)) for each in many[1:])
    ]  # fmt: skip
    if names:
        copied = all(each["broadcast"] for each in many)
        yield finding(
            trn.PROCESS_STATE, names[0],
            f"After a step the buffer {names[0]} isn't the same in all processes"
            + (f", nor are {len(names) - 1} others" if len(names) > 1 else "")
            + (": the first process's overwrites the others' in the next forward pass." if copied else "."),
            advice="dist.all_reduce what it is updated with, so that all processes make the same change.",
            score=0.3 if copied else 0.0, evidence={"buffers": names[:20]},
        )  # fmt: skip


def _close(a: torch.Tensor, b: torch.Tensor | None) -> bool:
    if b is None or a.shape != b.shape:
        return False
    return torch.allclose(a.double(), b.double(), rtol=1e-4, atol=1e-6, equal_nan=True)


def _against(
    case: _Case, one: Mapping[str, Any], many: Sequence[Mapping[str, Any]], *, known: bool
) -> Iterator[Finding]:
    """Why the gradient of several differs from that of one: found out in one process, part after part."""
    model, parts = case.model, case.parts
    gap = distance(one["grads"], many[0]["grads"])
    if known:
        return
    if gap <= TOLERANCE:
        yield from _buffers(one, many)
        return
    frozen, usual = _gap(case, norms=False), _gap(case, norms=True)
    evidence = {"difference": gap, "loss": one["loss"], "losses": [each["loss"] for each in many],
                "in_one_process": usual, "without_batch_norm": frozen}  # fmt: skip
    names = [
        name for name, each in model.named_modules() if isinstance(each, nn.modules.batchnorm._BatchNorm)
    ]
    small = min(length(inputs) for inputs, _ in parts)
    if usual > TOLERANCE and frozen <= TOLERANCE and names:
        yield finding(
            trn.PROCESS_BATCH_NORM, names[0],
            f"Batch norm ({len(names)} layers, first {names[0]}) normalises by the {small} samples of its "
            f"process: the gradient differs by up to {gap:.2g} of the largest from that of one process.",
            advice="nn.SyncBatchNorm.convert_sync_batchnorm(model) before wrapping; with 16 samples each "
            "or more it can be left.", evidence=evidence, score=0.3 if small < 16 else 0.7,
        )  # fmt: skip
    elif frozen > TOLERANCE:
        sizes = [length(inputs) for inputs, _ in parts]
        uneven = len(set(sizes)) > 1
        why = f"the parts have {', '.join(map(str, sizes))} samples" if uneven else (
            "the loss isn't a mean over samples that count alike (ignored targets, class weights, a sum, a "

            "comparison of samples)"
        )  # fmt: skip
        yield finding(
            trn.PROCESS_MEAN, "loss", f"The mean over processes isn't that over samples: {why}. The gradient "
            f"differs by up to {gap:.2g} of the largest.",
            advice="drop_last=True." if uneven else "Sum, and divide by the count over all processes times "
            "the number of processes.", evidence={**evidence, "sizes": sizes},
        )  # fmt: skip
    else:
        yield finding(
            trn.PROCESS_DIFFERENCE, "gradients",
            f"The gradient of several processes differs by up to {gap:.2g} of the largest from one's, and "
            "dealing the batch in one process doesn't explain it.",
            advice="Look for what depends on the rank or the number of processes.", evidence=evidence,
        )  # fmt: skip


def _buffers(one: Mapping[str, Any], many: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    """TRN046: buffers that several processes agree on, and one alone doesn't."""
    names = [name for name, held in one["buffers"].items() if not _close(held, many[0]["buffers"].get(name))]
    if names:
        yield finding(
            trn.PROCESS_DIFFERENCE, names[0],
            f"With the same gradient, the buffer {names[0]} is another after a step of several processes "
            "than after one of one.",
            advice="Look at what it counts or averages: the samples of the process, or of all.",
            evidence={"buffers": names[:20]}, score=0.4,
        )  # fmt: skip


def _gap(case: _Case, *, norms: bool) -> float:
    """How far the mean gradient of the parts, one by one in one process, is from that of the whole."""
    model = case.model

    def grads(inputs: Any, targets: Any) -> dict[str, torch.Tensor]:
        case.restore()
        model.train()
        for each in model.modules():
            if not norms and isinstance(each, nn.modules.batchnorm._BatchNorm):
                each.eval()
        value = one_pass(model, case.loss, inputs, targets, without_dropout=True)
        found: dict[str, torch.Tensor] = figures(model, value)["grads"]
        return found

    whole = grads(*case.given)
    each = [grads(*part) for part in case.parts]
    mean = {name: torch.stack([one[name] for one in each]).mean(0) for name in each[0]}
    return distance(whole, mean)
