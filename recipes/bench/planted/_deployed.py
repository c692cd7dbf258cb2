"""Fitted models, their exports, and the comparison with what was made of them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from dataaudit.types import Finding

from ._images import cifar, streets
from ._models import SmallNet, UNet, timm_model, vision, vit


def images_of(data: Path, side: int = 32) -> tuple[Tensor, Tensor]:
    """(32, 3, side, side) normalised and their classes."""
    images, labels = cifar(data, 32, side)
    return images, labels


def fitted(name: str, data: Path, side: int = 32) -> nn.Module:
    """A model in eval mode that has learnt the images a little; a copy of its own for each call."""
    return copy.deepcopy(_fitted(name, data, side))


@cache
def _fitted(name: str, data: Path, side: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = new(name, side)
        images, labels = streets(data, 8) if name == "unet" else images_of(data, side)
        learn(model, images, labels)
    return model


def new(name: str, side: int = 32) -> nn.Module:
    """The model with random weights: small, unet, vit, ``timm:NAME`` or a name of torchvision."""
    if name == "small":
        return SmallNet(dropout=0.2)
    if name == "unet":
        return UNet()
    if name == "vit":
        return vit(side=side)
    return timm_model(name[5:]) if name.startswith("timm:") else vision(name)


def learn(model: nn.Module, images: Tensor, labels: Tensor, steps: int = 24) -> nn.Module:
    """A few steps of AdamW with statistics of batch norm that keep pace, and back in eval mode."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    model.train()
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 0.3
    for step in range(steps):
        part = slice(0, None, 2) if step % 2 else slice(1, None, 2)
        loss = nn.functional.cross_entropy(model(images[part]), labels[part].clamp(max=11))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


def compared(
    model: nn.Module, deployed: Any, images: Any, labels: Tensor | None = None, **given: Any
) -> Sequence[Finding]:
    """Findings of parity on real images."""
    from dataaudit.modelcheck import parity
    from dataaudit.modelcheck.inputs import Batch

    batch = Batch(inputs=images, targets=labels, real=True)
    return parity(model, deployed, batch, timed=False, **given).findings


def to_onnx(
    model: nn.Module, example: Tensor, file: Path, *, legacy: bool = False, free: bool = True, **given: Any
) -> Path:
    """Export, by the exporter of today or by that of TorchScript; `free` leaves the batch size open."""
    if legacy:
        axes = {"dynamic_axes": {"input": {0: "batch"}}} if free else {}
        names = {"input_names": ["input"]}
        torch.onnx.export(model, (example,), file, dynamo=False, **names, **axes, **given)
    else:
        shapes = {"dynamic_shapes": ({0: torch.export.Dim("batch")},)} if free else {}
        torch.onnx.export(model, (example,), file, dynamo=True, verbose=False, **shapes, **given)
    return file


Edit = Callable[[onnx.ModelProto], None]


def onnx_compared(
    model: nn.Module,
    exported: nn.Module,
    images: Tensor,
    labels: Tensor | None = None,
    *,
    example: Tensor | None = None,
    edit: Edit | None = None,
    **given: Any,
) -> Sequence[Finding]:
    """Findings of parity between a model and the ONNX file of another one, whose graph `edit` may change."""
    with TemporaryDirectory() as folder:
        file = to_onnx(
            exported, images[:2] if example is None else example, Path(folder) / "model.onnx", **given
        )
        if edit is not None:
            graph = onnx.load(file)
            edit(graph)
            onnx.save(graph, file)
        return compared(model, str(file), images, labels)


def nodes(graph: onnx.ModelProto, kind: str) -> list[onnx.NodeProto]:
    """The nodes of one operator, in order."""
    return [node for node in graph.graph.node if node.op_type == kind]


def attribute(node: onnx.NodeProto, name: str, value: Any) -> None:
    """Set an attribute of a node."""
    kept = [item for item in node.attribute if item.name != name]
    del node.attribute[:]
    node.attribute.extend([*kept, onnx.helper.make_attribute(name, value)])
