"""The loaders of several processes: which samples each gets, and in which order in two epochs."""

from __future__ import annotations

import hashlib
import inspect
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils.data import DataLoader, DistributedSampler

from dataaudit.modelcheck.families import trn
from dataaudit.modelcheck.findings import finding
from dataaudit.modelcheck.inputs import tensors
from dataaudit.types import Finding

__all__ = ["judge_loaders", "read_loader"]

BATCHES = 200
"""Of a loader whose samples have to be read; where it tells their numbers, all of an epoch are looked at."""


def read_loader(make: Callable[..., Any], rank: int, world: int, *, seconds: float) -> dict[str, Any]:
    """Two epochs of a loader.

    Args:
        make: of rank, number of processes and, where it takes a third argument, the epoch.
        rank: of this process.
        world: how many processes.
        seconds: at most, for each epoch.

    Returns:
        ``epochs`` (for each, a list of numbers or digests of the samples), ``batches`` in the first,
        ``whole`` (whether an epoch was read to its end) and ``unset`` (whether a `DistributedSampler` that
        shuffles was gone through twice with the same epoch).
    """
    takes = len(inspect.signature(make).parameters) >= 3
    with _sampled() as rounds:
        loader = make(rank, world, 0) if takes else make(rank, world)
        first, batches, whole = _epoch(loader, seconds)
        again = loader
        if takes:
            again = make(rank, world, 1)
        elif iter(loader) is loader:
            again = make(rank, world)
        second, _, _ = _epoch(again, seconds)
    twice = Counter((each, epoch) for each, epoch in rounds)
    return {
        "epochs": [first, second],
        "batches": batches,
        "whole": whole,
        "takes_epoch": takes,
        "unset": any(n > 1 for n in twice.values()) or (len(rounds) > 1 and len({e for _, e in rounds}) == 1),
    }


@contextmanager
def _sampled() -> Iterator[list[tuple[int, int]]]:
    """Each time that a `DistributedSampler` that shuffles is gone through: which it is, and its epoch."""
    rounds: list[tuple[int, int]] = []
    own = DistributedSampler.__iter__

    def watched(self: DistributedSampler[Any]) -> Iterator[Any]:
        if self.shuffle:
            rounds.append((id(self), self.epoch))
        return own(self)

    DistributedSampler.__iter__ = watched  # type: ignore[method-assign]
    try:
        yield rounds
    finally:
        DistributedSampler.__iter__ = own  # type: ignore[method-assign]


def _epoch(loader: Any, seconds: float) -> tuple[list[str], int, bool]:
    """Samples and batches of an epoch, and whether it was read to its end."""
    if isinstance(loader, DataLoader) and loader.batch_sampler is not None:
        dealt = [list(batch) for batch in loader.batch_sampler]
        return [str(index) for batch in dealt for index in batch], len(dealt), True
    end = time.monotonic() + seconds
    seen: list[str] = []
    n = 0
    for batch in loader:
        n += 1
        seen += _digests(next(iter(tensors(batch)), torch.zeros(0)))
        if n == BATCHES or time.monotonic() > end:
            return seen, n, False
    return seen, n, True


def _digests(values: torch.Tensor) -> list[str]:
    """A digest of each sample."""
    rows = values.detach().cpu().contiguous()
    return [hashlib.blake2b(row.numpy().tobytes(), digest_size=8).hexdigest() for row in rows]


def judge_loaders(many: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    """TRN044: samples that several processes get, or one gets twice, other numbers of batches, one order."""
    loaders = [each["loader"] for each in many]
    if not all(loaders):
        return
    first = [one["epochs"][0] for one in loaders]
    counts = Counter(sample for samples in first for sample in set(samples))
    shared = sum(n > 1 for n in counts.values())
    if shared >= max(len(many), 2) and shared > 0.1 * len(counts):
        yield finding(
            trn.PROCESS_SAMPLER, "loader", f"{shared} of {len(counts)} samples go to more than one process.",
            advice="Give the loader a DistributedSampler with rank and number of processes.",
            evidence={"shared": shared, "samples": len(counts)},
        )  # fmt: skip
        return
    repeated = max(len(samples) - len(set(samples)) for samples in first)
    total = max(map(len, first))
    if repeated > max(len(many), 0.1 * total):
        yield finding(
            trn.PROCESS_SAMPLER, "loader",
            f"{repeated} of the {total} samples that a process gets in an epoch are repeats of others.",
            advice="A sampler without replacement.", evidence={"repeated": repeated, "samples": total},
        )  # fmt: skip
    batches = [one["batches"] for one in loaders]
    if len(set(batches)) > 1 and all(one["whole"] for one in loaders):
        yield finding(
            trn.PROCESS_SAMPLER, "batches",
            f"The processes get {', '.join(map(str, batches))} batches: those with more wait for the others "
            "until they are ended.",
            advice="DistributedSampler(drop_last=...) gives all the same number; or model.join().",
            evidence={"batches": batches},
        )  # fmt: skip
    if any(one["unset"] for one in loaders) and all(one["epochs"][0] == one["epochs"][1] for one in loaders):
        hint = "" if loaders[0]["takes_epoch"] else (
            " If your training loop does, let the function of the loader take the epoch as third argument."
        )  # fmt: skip
        yield finding(
            trn.PROCESS_SAMPLER, "set_epoch",
            "Two epochs of the loader have the same order although its DistributedSampler shuffles: nothing "
            "calls set_epoch().",
            advice=f"sampler.set_epoch(epoch) at the start of each epoch.{hint}", score=0.3,
        )  # fmt: skip
