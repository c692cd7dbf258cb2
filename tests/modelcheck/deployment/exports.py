"""Small networks as ONNX files, and edits of the graph that plant what goes wrong in deployments."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import nn


class Small(nn.Module):
    """Convolution, batch norm, pooling, resize, dropout and a head: what exports get wrong."""

    def __init__(self, *, gain: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.pool = nn.AvgPool2d(3, stride=2, padding=1)
        self.mix = nn.Conv2d(8, 12, 3, padding=1)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(12, 5)
        self.gain = gain
        self.norm.running_mean += 0.2
        self.norm.running_var *= 0.5
        self.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        x = self.pool(x) * self.gain
        x = nn.functional.interpolate(x, scale_factor=2.0, mode="bilinear")
        x = nn.functional.leaky_relu(self.mix(x), 0.1) / self.gain
        return self.head(self.drop(x.amax((2, 3))))


def images(n: int = 8, side: int = 16) -> torch.Tensor:
    return torch.rand((n, 3, side, side), generator=torch.Generator().manual_seed(1))


def save_onnx(
    model: nn.Module, path: Path, example: torch.Tensor | None = None, *, free: bool = True, **options: Any
) -> Path:
    """Write with PyTorch's older exporter, which takes a tenth of a second."""
    example = images(2) if example is None else example
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model, (example,), str(path), dynamo=False, input_names=["image"], output_names=["logits"],
            dynamic_axes={"image": {0: "n"}, "logits": {0: "n"}} if free else None, **options,
        )  # fmt: skip
    return path


def edited(path: Path, edit: Callable[[Any], None]) -> Path:
    """The file with its graph changed in place."""
    model = onnx.load(str(path))
    edit(model.graph)
    onnx.save(model, str(path))
    return path


def node_of(graph: Any, kind: str) -> Any:
    return next(node for node in graph.node if node.op_type == kind)


def set_attribute(graph: Any, kind: str, **values: Any) -> None:
    node = node_of(graph, kind)
    for name, value in values.items():
        for old in [each for each in node.attribute if each.name == name]:
            node.attribute.remove(old)
        node.attribute.append(onnx.helper.make_attribute(name, value))
