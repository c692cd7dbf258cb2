"""What a training step calls: its model, the layers in order, and where the scores of the classes are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from dataaudit.modelcheck.fits.probing import Probe
from dataaudit.modelcheck.inputs import tensors
from dataaudit.modelcheck.keeping import kept
from dataaudit.modelcheck.training.setups import scalar
from dataaudit.modelcheck.watching import Call, calls

__all__ = ["Scores", "Sighting", "at_path", "flat", "look"]

Path = tuple[Any, ...]
_LOSSES = (functional.cross_entropy, functional.nll_loss)
_FAR = 0.5


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Where a step has the class scores of its samples.

    Attributes:
        module: whose output they are.
        name: of the module.
        call: which of its calls in a step, counted from 0.
        place: which of the tensors that it returns.
        targets: where the classes are in the batch, as keys and indices.
    """

    module: nn.Module
    name: str
    call: int
    place: int
    targets: Path


@dataclass(frozen=True, kw_only=True)
class Sighting:
    """What one training step shows.

    Attributes:
        entry: the first module that it calls, or None.
        order: modules by name, in the order in which they are called.
        scores: where the class scores are, or None.
        reason: why there are none.
    """

    entry: nn.Module | None
    order: Mapping[str, int] = field(default_factory=dict)
    scores: Scores | None = None
    reason: str = ""


class _Losses(TorchFunctionMode):
    """Scores and targets that cross entropy is called with."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _LOSSES:
            given = [*args, *(kwargs[name] for name in ("input", "target") if name in kwargs)]
            if len(given) >= 2:
                self.seen.append((given[0], given[1]))
        return func(*args, **kwargs)


def look(probe: Probe) -> Sighting:
    """Take the step once and see what it calls; all is put back.

    Args:
        probe: within its `quiet`.
    """
    trained = (probe.module, probe.optimizer, probe.scaler, probe.batch)
    with kept(*trained), torch.enable_grad():
        with calls(probe.module, keep=lambda tensor: tensor) as done, _Losses() as losses:
            out = probe.run()
        outermost = [one for one in done if one.depth == 0]
        entry = min(outermost, key=lambda one: one.began).module if outermost else None
        order: dict[str, int] = {}
        for one in sorted(done, key=lambda each: each.began):
            order.setdefault(one.name, one.began)
        loss = None if probe.manual else scalar(out)
        found = _scores(probe, done, losses.seen, None if loss is None else float(loss.detach()))
    if isinstance(found, str):
        return Sighting(entry=entry, order=order, reason=found)
    return Sighting(entry=entry, order=order, scores=found)


def _scores(
    probe: Probe,
    done: Sequence[Call],
    losses: Sequence[tuple[torch.Tensor, torch.Tensor]],
    loss: float | None,
) -> Scores | str:
    """Where the scores are, or why they can't be told."""
    plain = [pair for pair in losses if pair[0].ndim == 2]
    if losses and not plain:
        return "the loss is of more than a class an image"
    if not plain:
        return _of_own_loss(probe, done, loss)
    if any(target.is_floating_point() for _, target in plain):
        return "the targets are mixed or smoothed before the loss"
    # Mixed images: the loss against the labels of both
    if any(one is other and not torch.equal(a, b) for one, a in plain for other, b in plain):
        return "the targets are mixed before the loss"
    scores, targets = plain[-1]
    where = next((path for path, one in _leaves(probe.batch) if _equal(one, targets)), None)
    if where is None:
        return "the targets of the loss aren't those of the batch"
    return (
        _placed(probe, done, scores, where)
        or "the scores that the loss is given aren't the output of a module"
    )


def _of_own_loss(probe: Probe, done: Sequence[Call], loss: float | None) -> Scores | str:
    """The scores of a loss that isn't PyTorch's: the last output that fits the classes."""
    labels = probe.parts.targets
    if not isinstance(labels, torch.Tensor) or labels.ndim != 1 or labels.is_floating_point():
        return "the batch has no class for each image"
    for one in reversed(done):
        for output in one.outputs:
            fits = output.ndim == 2 and output.is_floating_point() and len(output) == len(labels)
            if not fits or output.shape[1] < 2 or int(labels.max()) >= output.shape[1]:
                continue
            expected = float(functional.cross_entropy(output.detach().float(), labels.long()))
            if loss is None or abs(loss - expected) > _FAR * max(expected, 0.1):
                return "the loss isn't near the cross entropy of the batch's classes"
            where = next(path for path, leaf in _leaves(probe.batch) if _equal(leaf, labels))
            return _placed(probe, done, output, where) or ""
    return "no module returns a score for each class"


def _placed(probe: Probe, done: Sequence[Call], scores: torch.Tensor, targets: Path) -> Scores | None:
    # The outermost that returns them, as hooks inside of a compiled model aren't called; the LightningModule
    # itself last, as strategies call it for other ends as well
    outer = [one for one in reversed(done) if one.module is not probe.module]
    for one in [*outer, *(one for one in done if one.module is probe.module)]:
        for place, output in enumerate(one.outputs):
            if output is scores:
                own = [each for each in done if each.module is one.module]
                return Scores(
                    module=one.module, name=one.name, call=own.index(one), place=place, targets=targets
                )
    return None


def _equal(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one is other or (one.shape == other.shape and bool((one == other).all()))


def _leaves(batch: Any, at: Path = ()) -> Iterator[tuple[Path, torch.Tensor]]:
    if isinstance(batch, torch.Tensor):
        yield at, batch
    elif isinstance(batch, Mapping):
        for key, value in batch.items():
            yield from _leaves(value, (*at, key))
    elif isinstance(batch, (tuple, list)):
        for number, value in enumerate(batch):
            yield from _leaves(value, (*at, number))


def at_path(batch: Any, path: Path) -> Any:
    """What lies in nested mappings and lists.

    >>> at_path({"y": [1, 2]}, ("y", 1))
    2
    """
    for key in path:
        batch = batch[key]
    return batch


def flat(output: Any) -> list[torch.Tensor]:
    """The tensors that a module returned, in order."""
    return list(tensors(output))
