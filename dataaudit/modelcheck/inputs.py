"""What a model is called with: a batch of the user's, of images in a folder, or random numbers that fit."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import nn

from dataaudit.decode import decode
from dataaudit.errors import InputError
from dataaudit.modelcheck.findings import line_of, said
from dataaudit.modelcheck.keeping import kept

__all__ = [
    "Batch",
    "Inputs",
    "call",
    "called",
    "first",
    "images_batch",
    "input_shape",
    "length",
    "move",
    "random_batch",
    "tensors",
    "user_batch",
]

Inputs: TypeAlias = Any
"""A tensor (n, ...), a list of tensors (one a sample, as detection models want), a tuple of positional or a
mapping of keyword arguments."""

Transform: TypeAlias = Callable[[Any], torch.Tensor]

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIDES = (224, 64, 32, 28, 128, 256, 299, 384, 512)
LENGTHS = (128, 1024)
MAX_SIDE = 1 << 16


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Some samples that a model can be called with.

    Attributes:
        inputs: what ``call(model, inputs)`` takes.
        targets: what the loss takes, or None where there are no labels.
        sample_ids: name of each sample; empty for random numbers.
        real: whether the inputs are of real images.
        classes: names of the classes, in the order of the targets' indices.
    """

    inputs: Inputs
    targets: Any = None
    sample_ids: tuple[str, ...] = ()
    real: bool = False
    classes: tuple[str, ...] = field(default=())


def call(model: Callable[..., Any], inputs: Inputs) -> Any:
    """Call a model: a tuple holds positional arguments, a mapping keyword arguments, all else is one.

    A named tuple, such as a PackedSequence, is one argument.
    """
    if isinstance(inputs, Mapping):
        return model(**inputs)
    plain = isinstance(inputs, tuple) and not hasattr(inputs, "_fields")
    return model(*inputs) if plain else model(inputs)


def called(model: nn.Module, inputs: Inputs) -> Any:
    """Call a model; what it raises becomes an error that names the line.

    Raises:
        InputError: the model raises.
    """
    try:
        return call(model, inputs)
    except Exception as error:
        shapes = ", ".join(str(tuple(one.shape)) for one in tensors(inputs))
        raise InputError(
            f"The model raises {said(error)}, with inputs {shapes} in "
            f"{'train' if model.training else 'eval'} mode.",
            where=line_of(error),
            fix="See how far it comes: dataaudit model trace; or give other inputs: --input-shape, --loader.",
        ) from error


def tensors(value: Any) -> Iterator[torch.Tensor]:
    """The tensors in nested tuples, lists, mappings and objects with attributes, in order."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors(item)
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from tensors(item)
    elif hasattr(value, "__dataclass_fields__") or type(value).__name__ == "ImageList":
        yield from tensors(vars(value))


def length(inputs: Inputs) -> int:
    """How many samples the inputs hold.

    >>> length(torch.zeros(4, 3, 8, 8)), length([torch.zeros(3, 8, 8)])
    (4, 1)
    """
    if isinstance(inputs, list):
        return len(inputs)
    if isinstance(inputs, nn.utils.rnn.PackedSequence):
        return 1  # its samples are interleaved: one can't be taken out
    found = [one for one in tensors(inputs) if one.ndim]
    return len(found[0]) if found else 1


def first(inputs: Inputs, n: int, start: int = 0) -> Inputs:
    """`n` samples of the inputs from `start` on; what isn't as long as the batch stays whole."""
    total = length(inputs)

    def cut(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return value[start : start + n] if value.ndim and len(value) == total else value
        if isinstance(value, Mapping):
            return {key: cut(item) for key, item in value.items()}
        if isinstance(value, list):
            return value[start : start + n] if len(value) == total else [cut(item) for item in value]
        return tuple(map(cut, value)) if isinstance(value, tuple) else value

    return cut(inputs)


def move(value: Any, device: torch.device | str) -> Any:
    """Nested tensors on another device."""
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, Mapping):
        return {key: move(item, device) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(move(item, device) for item in value)
    return value


def is_detector(model: nn.Module) -> bool:
    """Whether it is one of torchvision's detection models, which take a list of images."""
    return type(getattr(model, "transform", None)).__name__ == "GeneralizedRCNNTransform"


def input_shape(model: nn.Module) -> tuple[int, ...]:
    """Shape of one sample that the model takes, without the batch, found from what it says or by trying.

    Args:
        model: of timm, where its configuration says it; of torchvision; or any whose first layer is a
            convolution or a linear one.

    Returns:
        Such as (3, 224, 224). The model is as it was.

    Raises:
        InputError: no shape that was tried is taken; the last error says why.
    """
    said = getattr(model, "pretrained_cfg", None) or getattr(model, "default_cfg", None)
    tried: list[tuple[int, ...]] = []
    if isinstance(said, Mapping) and said.get("input_size"):
        tried.append(tuple(int(side) for side in said["input_size"]))
    example = getattr(model, "example_input_array", None)
    if isinstance(example, torch.Tensor):
        tried.append(tuple(example.shape[1:]))
    size = getattr(model, "image_size", None)
    if isinstance(size, int):
        tried.append((3, size, size))
    tried += _shapes(model)
    reason = "it has no layer that says"
    with kept(model, eager=True), torch.no_grad():
        model.eval()
        for shape in tried:
            try:
                call(model, _random(model, shape, 2, torch.Generator().manual_seed(0)))
                return shape
            except Exception as error:
                reason = (str(error).splitlines() or [type(error).__name__])[0]
    raise InputError(
        f"The shape of the model's input can't be found: {reason}.",
        fix="Give it: --input-shape 3,224,224, or a batch of your own: --loader mymodule:make_loader",
    )


def _shapes(model: nn.Module) -> list[tuple[int, ...]]:
    """Shapes that the first layer with weights may take."""
    for part in model.modules():
        if isinstance(part, nn.Conv2d):
            return [(part.in_channels, side, side) for side in SIDES]
        if isinstance(part, nn.Conv1d):
            return [(part.in_channels, n) for n in LENGTHS]
        if isinstance(part, nn.Conv3d):
            return [(part.in_channels, n, side, side) for n, side in ((8, 112), (16, 224), (16, 32))]
        if isinstance(part, nn.Linear):
            n, found = part.in_features, [(part.in_features,)]
            for channels in (1, 3):
                side = round((n / channels) ** 0.5)
                if side > 1 and channels * side * side == n:
                    found.append((channels, side, side))  # type: ignore[arg-type]
            return list(found)
    return []


def random_batch(model: nn.Module, n: int = 4, *, shape: Sequence[int] | None = None, seed: int = 0) -> Batch:
    """Random inputs: standard normal, or images of uniform noise for torchvision's detection models.

    Args:
        model: what they are for; its device and the type of its weights are theirs.
        n: how many samples.
        shape: of one sample, without the batch; found by `input_shape` when left out.
        seed: of the random numbers; PyTorch's own are left alone.
    """
    found = tuple(shape) if shape is not None else input_shape(model)
    generator = torch.Generator().manual_seed(seed)
    return Batch(inputs=_random(model, found, n, generator))


def _random(model: nn.Module, shape: tuple[int, ...], n: int, generator: torch.Generator) -> Inputs:
    weight = next((one for one in model.parameters() if one.is_floating_point()), None)
    device, dtype = (torch.device("cpu"), torch.float32) if weight is None else (weight.device, weight.dtype)
    if is_detector(model):
        images = [torch.rand(shape, generator=generator) for _ in range(n)]
        return [image.to(device, dtype) for image in images]
    return torch.randn((n, *shape), generator=generator).to(device, dtype)


def images_batch(
    path: str | Path,
    model: nn.Module,
    n: int = 4,
    *,
    shape: Sequence[int] | None = None,
    transform: Transform | None = None,
    seed: int = 0,
) -> Batch:
    """A batch of real images with their labels.

    Args:
        path: a dataset in any format that an audit reads.
        model: what it is for: the shape of its input, its device and the type of its weights.
        n: how many samples, drawn so that as many classes as possible are among them.
        shape: (channels, height, width); found by `input_shape` when left out.
        transform: turns a PIL image into a tensor; when left out the image is resized to cover the shape, cut
            at its centre, scaled to 0 to 1 and normalised with ImageNet's mean and deviation.
        seed: of the choice.

    Raises:
        InputError: the dataset has no image that can be decoded.
    """
    from dataaudit import formats

    found = formats.read(path)
    detector = is_detector(model)
    want: tuple[int, ...] = ()
    if transform is None and not detector:
        want = tuple(shape) if shape is not None else input_shape(model)
        if len(want) != 3:
            raise InputError(
                f"The model takes samples of shape {want}; images need (channels, height, width)."
            )
    classes = tuple(found.classes)
    named = found.labels.dropna(subset=["name"]).groupby("sample_id", sort=False)["name"].first()
    labels = {str(sample): str(name) for sample, name in named.items()}
    files = {str(sample): str(file) for sample, file in found.images["filepath"].items()}
    images, ids, targets, reason = [], [], [], ""
    for sample in _chosen(list(files), labels, seed):
        # At full scale where the user's transform or the detector resizes
        read = decode(Path(files[sample]).read_bytes(), size=max(want, default=MAX_SIDE))
        image = read.image
        if image is None:
            reason = reason or f"{sample}: {read.error}"
            continue
        images.append(transform(image) if transform is not None else prepare(image, want, raw=detector))
        ids.append(sample)
        targets.append(classes.index(labels[sample]) if sample in labels else -100)
        if len(images) == n:
            break
    if not images:
        raise InputError(f"No image can be decoded. {reason}".rstrip(), where=path)
    weight = next((one for one in model.parameters() if one.is_floating_point()), torch.zeros(()))
    inputs: Inputs = [one.to(weight.device, weight.dtype) for one in images]
    if not detector:
        inputs = torch.stack(inputs)
    told = torch.tensor(targets, device=weight.device) if found.task == "classification" else None
    return Batch(inputs=inputs, targets=told, sample_ids=tuple(ids), real=True, classes=classes)


def _chosen(samples: list[str], labels: Mapping[str, str], seed: int) -> Iterator[str]:
    """Samples in random order, one of each class in turn."""
    chance = random.Random(seed)
    chance.shuffle(samples)
    queues: dict[str | None, list[str]] = {}
    for sample in samples:
        queues.setdefault(labels.get(sample), []).append(sample)
    while queues:
        for name in list(queues):
            yield queues[name].pop()
            if not queues[name]:
                del queues[name]


def prepare(image: Any, shape: tuple[int, ...], *, raw: bool = False) -> torch.Tensor:
    """An RGB PIL image as a tensor of `shape`, normalised as for ImageNet; `raw` is only scaled to 0 to 1."""
    if raw:
        return torch.from_numpy(np.asarray(image, dtype=np.float32) / 255).permute(2, 0, 1).contiguous()
    channels, height, width = shape
    scale = max(height / image.height, width / image.width)
    size = max(width, round(image.width * scale)), max(height, round(image.height * scale))
    resized = image.resize(size)
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    cut = resized.crop((left, top, left + width, top + height))
    pixels = torch.from_numpy(np.asarray(cut, dtype=np.float32) / 255).permute(2, 0, 1)
    normal = (pixels - torch.tensor(MEAN)[:, None, None]) / torch.tensor(DEVIATION)[:, None, None]
    if channels == 3:
        return normal.contiguous()
    return normal.mean(0, keepdim=True).expand(channels, -1, -1).contiguous()


def user_batch(loader: Any, n: int | None = None) -> Batch:
    """The first batch of a user's loader: ``(inputs, targets)``, a mapping with both, or inputs alone.

    Args:
        loader: an iterable of batches, such as a DataLoader, or a function that makes one.
        n: samples to keep at most.

    Raises:
        InputError: it yields nothing.
    """
    batches = loader() if callable(loader) and not hasattr(loader, "__iter__") else loader
    batch = next(iter(batches), None)
    if batch is None:
        raise InputError("The loader yields no batch.")
    targets = None
    if isinstance(batch, (tuple, list)) and len(batch) == 2:
        batch, targets = batch
    elif isinstance(batch, Mapping):
        names = [name for name in ("targets", "target", "labels", "label", "y") if name in batch]
        if names:
            targets = batch[names[0]]
            batch = {key: value for key, value in batch.items() if key != names[0]}
            if len(batch) == 1:
                batch = next(iter(batch.values()))
    if n is not None:
        total = length(batch)
        batch = first(batch, n)
        if targets is not None and length(targets) == total:
            targets = first(targets, n)
    if isinstance(batch, tuple) and batch and all(isinstance(one, torch.Tensor) for one in batch):
        same = {one.shape for one in batch}
        # torchvision's detection references collate images into a tuple
        batch = list(batch) if len(same) > 1 or all(one.ndim == 3 for one in batch) else batch
    return Batch(inputs=batch, targets=targets, real=True)
