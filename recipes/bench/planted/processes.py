"""Bugs of training with several processes, and set-ups that train as one process does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dataaudit.types import Finding

from . import healthy, planted
from ._images import cifar, streets

HERE = "planted._parallel"


def compared(
    model: str, images: Any, targets: Any, loss: str = "cross_entropy", **given: Any
) -> Sequence[Finding]:
    """Findings of two processes against one; names are of `_parallel`."""
    from dataaudit.modelcheck import processes
    from dataaudit.modelcheck.inputs import Batch

    batch = Batch(inputs=images, targets=targets, real=True)
    named = {key: f"{HERE}:{value}" if isinstance(value, str) else value for key, value in given.items()}
    return processes(f"{HERE}:{model}", f"{HERE}:{loss}", batch, **named).findings


@planted("resnet18 with four images a process", kind="batch norm not synchronised", part="processes",
         causes=["TRN040"])  # fmt: skip
def _(data: Path):
    return compared("resnet", *cifar(data, 8))


@planted("last batch of 12 and 4 images", kind="mean of uneven batches", part="processes", causes=["TRN041"])
def _(data: Path):
    return compared("transformer", *cifar(data, 16), sizes=[12, 4])


@planted("loss is a sum over the batch", kind="summed loss", part="processes", causes=["TRN041"])
def _(data: Path):
    return compared("grouped", *cifar(data, 8), loss="summed")


@planted("void pixels are ignored, and one process has far more of them", kind="mean of uneven targets",
         part="processes", causes=["TRN041"])  # fmt: skip
def _(data: Path):
    images, labels = streets(data, 4)
    labels[:2, :40] = 11
    return compared("masks", images, labels, loss="without_void")


@planted("contrastive loss sees the pairs of its own process", kind="loss compares samples",
         part="processes", causes=["TRN041"])  # fmt: skip
def _(data: Path):
    images, labels = cifar(data, 16)
    return compared("embedding", images, labels % 3, loss="contrastive")


@planted("the same seed in each process", kind="same random numbers", part="processes", causes=["TRN042"])
def _(data: Path):
    return compared("transformer", *cifar(data, 8), seed="same_seed")


@planted("centre of the outputs is updated in the first process only", kind="buffer of one process",
         part="processes", causes=["TRN043"], mentions=["center"])  # fmt: skip
def _(data: Path):
    return compared("centred", *cifar(data, 8), wrap="own_buffers")


@planted("model not wrapped in DistributedDataParallel", kind="not wrapped", part="processes",
         causes=["TRN043"])  # fmt: skip
def _(data: Path):
    return compared("transformer", *cifar(data, 8), wrap="bare")


@planted("ddp.module is called in place of ddp", kind="not wrapped", part="processes", causes=["TRN043"])
def _(data: Path):
    return compared("grouped", *cifar(data, 8), wrap="inner")


@planted("auxiliary head that the forward pass doesn't use", kind="unused parameter", part="processes",
         causes=["TRN045"], mentions=["aux_head"])  # fmt: skip
def _(data: Path):
    return compared("auxiliary", *cifar(data, 8))


@planted("loader without DistributedSampler", kind="sampler repeats", part="processes", causes=["TRN044"])
def _(data: Path):
    return compared("transformer", *cifar(data, 8), loader="plain_loader")


@planted("set_epoch never called", kind="set_epoch forgotten", part="processes", causes=["TRN044"],
         mentions=["set_epoch"])  # fmt: skip
def _(data: Path):
    return compared("transformer", *cifar(data, 8), loader="without_epoch", seed="own_seed")


@healthy("resnet18 with group norm", part="processes")
def _(data: Path):
    return compared("grouped", *cifar(data, 8))


@healthy("vision transformer, sampler and seeds as they should be", part="processes")
def _(data: Path):
    return compared("transformer", *cifar(data, 8), loader="with_epoch", seed="own_seed")


@healthy("fine-tuning with batch norm in eval mode", part="processes")
def _(data: Path):
    return compared("frozen", *cifar(data, 8))
