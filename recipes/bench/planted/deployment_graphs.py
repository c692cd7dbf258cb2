"""Bugs of graphs: a node that was changed on the way, and what a trace or a port leaves out."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import nn

from . import planted
from ._deployed import attribute, compared, fitted, images_of, learn, new, nodes, onnx_compared
from ._images import streets

# ------------------------------------------------------------------ nodes of an ONNX graph


class Unfused(nn.Module):
    """A convolution's batch norm after its activation, where no exporter folds it away."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.conv2, self.norm2 = nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32)
        self.head = nn.Linear(32, 10)

    def forward(self, x):
        x = self.norm1(nn.functional.relu(self.conv1(x)))
        x = self.norm2(nn.functional.relu(self.conv2(nn.functional.max_pool2d(x, 2))))
        return self.head(nn.functional.max_pool2d(x, 2).mean((2, 3)))


def unfused(x, y) -> nn.Module:
    return learn(Unfused(), x, y)


@planted(
    "converter writes epsilon 0.001 into the second batch norm",
    kind="batch norm epsilon", part="deployment", causes=["DEP001"], mentions=["norm2"],
)  # fmt: skip
def _(data: Path):
    x, y = images_of(data)
    model = unfused(x, y)
    model.norm2.running_var.mul_(0.05)

    def edit(graph):
        attribute(nodes(graph, "BatchNormalization")[-1], "epsilon", 1e-3)

    return onnx_compared(model, model, x, y, edit=edit, legacy=True)


@planted(
    "padding of a strided convolution on one side only, as TensorFlow's SAME",
    kind="padding on one side", part="deployment", causes=["DEP001"], mentions=["layer3.0"],
)  # fmt: skip
def _(data: Path):
    x, y = images_of(data, 64)
    model = fitted("resnet18", data, 64)
    served = copy.deepcopy(model)
    served.layer3[0].conv1 = nn.Sequential(nn.ZeroPad2d((0, 2, 0, 2)), served.layer3[0].conv1)
    served.layer3[0].conv1[1].padding = (0, 0)
    return compared(model, torch.jit.trace(served.eval(), x[:2]), x, y)


@planted(
    "pads of one Conv node of the ONNX file are moved to one side",
    kind="padding on one side", part="deployment", causes=["DEP001"], mentions=["conv2"],
)  # fmt: skip
def _(data: Path):
    x, y = images_of(data)
    model = unfused(x, y)

    def edit(graph):
        attribute(nodes(graph, "Conv")[1], "pads", [0, 0, 2, 2])

    return onnx_compared(model, model, x, y, edit=edit, legacy=True)


class Upsampling(nn.Module):
    """A segmentation model whose result is enlarged to the image."""

    def __init__(self, model: nn.Module, **given) -> None:
        super().__init__()
        self.model, self.given = model, given

    def forward(self, x):
        return nn.functional.interpolate(
            self.model(nn.functional.avg_pool2d(x, 2)), scale_factor=2, mode="bilinear", **self.given
        )


@planted(
    "Resize node rounds coordinates as an old runtime does",
    kind="resize mode", part="deployment", causes=["DEP001"], mentions=["esize"],
)  # fmt: skip
def _(data: Path):
    x, _ = streets(data, 4)
    model = Upsampling(fitted("unet", data), align_corners=False).eval()

    def edit(graph):
        (node,) = nodes(graph, "Resize")
        attribute(node, "coordinate_transformation_mode", "asymmetric")

    return onnx_compared(model, model, x, edit=edit, legacy=True)


@planted(
    "align_corners differs between the trained model and the served one",
    kind="align_corners", part="deployment", causes=["DEP001"],
)  # fmt: skip
def _(data: Path):
    x, _ = streets(data, 4)
    body = fitted("unet", data)
    model, served = Upsampling(body, align_corners=False), Upsampling(body, align_corners=True)
    return onnx_compared(model.eval(), served.eval(), x)


@planted(
    "converter drops the bias of the last layer",
    kind="bias dropped", part="deployment", causes=["DEP001", "DEP009"], mentions=["classifier"],
)  # fmt: skip
def _(data: Path):
    x, y = images_of(data)
    model = fitted("small", data)
    with torch.no_grad():
        model.classifier.bias.copy_(torch.linspace(-1, 1, 10))

    def edit(graph):
        del nodes(graph, "Gemm")[-1].input[2]

    return onnx_compared(model, model, x, y, edit=edit, legacy=True)


@planted(
    "average pooling in place of max pooling in one node",
    kind="operator replaced", part="deployment", causes=["DEP001"], mentions=["ool"],
)  # fmt: skip
def _(data: Path):
    x, y = images_of(data)
    model = unfused(x, y)

    def edit(graph):
        node = nodes(graph, "MaxPool")[0]
        node.op_type = "AveragePool"
        kept = [
            item for item in node.attribute if item.name in ("kernel_shape", "strides", "pads", "ceil_mode")
        ]
        del node.attribute[:]
        node.attribute.extend(kept)

    return onnx_compared(model, model, x, y, edit=edit, legacy=True)


@planted(
    "operator that only the vendor's runtime knows",
    kind="operator unknown", part="deployment", causes=["DEP008"], mentions=["HardSwish6"],
)  # fmt: skip
def _(data: Path):
    x, y = images_of(data)
    model = fitted("small", data)

    def edit(graph):
        node = nodes(graph, "Relu")[1]
        node.op_type, node.domain = "HardSwish6", "vendor.npu"
        graph.opset_import.append(onnx.helper.make_opsetid("vendor.npu", 1))

    return onnx_compared(model, model, x, y, edit=edit, legacy=True)


# ------------------------------------------------------------------ what a trace or a port leaves out


class Brightening(nn.Module):
    """Brightens dark images only."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x):
        if x.mean() < -0.5:
            x = x * 0.5 + 1
        return self.model(x)


@planted(
    "traced with a bright example, and the branch for dark images is lost",
    kind="branch lost by tracing", part="deployment", causes=["DEP001"],
)  # fmt: skip
def _(data: Path):
    x, y = images_of(data)
    model = Brightening(fitted("small", data)).eval()
    traced = torch.jit.trace(model, x[x.mean((1, 2, 3)) > 0][:2])
    return compared(model, traced, x[x.mean((1, 2, 3)) < -0.5], y[x.mean((1, 2, 3)) < -0.5])


@planted(
    "batch norm folded into the convolution without its mean",
    kind="batch norm folded wrongly", part="deployment", causes=["DEP001"], mentions=["layer2.0"],
)  # fmt: skip
def _(data: Path):
    x, y = images_of(data)
    model = fitted("resnet18", data)
    served = copy.deepcopy(model)
    block = served.layer2[0]
    conv, norm = block.conv1, block.bn1
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    folded = nn.Conv2d(conv.in_channels, conv.out_channels, 3, stride=conv.stride, padding=1)
    with torch.no_grad():
        folded.weight.copy_(conv.weight * scale[:, None, None, None])
        folded.bias.copy_(norm.bias)
    block.conv1, block.bn1 = folded, nn.Identity()
    return compared(model, served.eval(), x, y)


@planted(
    "model written again for the server, with another epsilon of batch norm",
    kind="batch norm epsilon", part="deployment", causes=["DEP001"], mentions=["features.0.1"],
)  # fmt: skip
def _(data: Path):
    x, y = images_of(data)
    model = fitted("mobilenet_v3_small", data)
    served = new("mobilenet_v3_small").eval()
    for layer in served.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.eps = 1e-2
    served.load_state_dict(model.state_dict())
    return compared(model, served, x, y)


@planted(
    "vision transformer with the approximate GELU of the phone",
    kind="other activation", part="deployment", causes=["DEP001"], mentions=["act"],
)  # fmt: skip
def _(data: Path):
    x, y = images_of(data)
    model = fitted("vit", data)
    served = copy.deepcopy(model)
    for layer in served.modules():
        if hasattr(layer, "act"):
            layer.act = nn.GELU(approximate="tanh")
    return compared(model, served.eval(), x, y)


@planted(
    "images are flipped on the server by a function of numpy that reads them from the left",
    kind="image mirrored", part="deployment", causes=["DEP001", "DEP015"], mentions=["mirror"],
)  # fmt: skip
def _(data: Path):
    x, y = images_of(data)
    model = fitted("resnet18", data)
    served = copy.deepcopy(model)
    return compared(
        model, lambda batch: served(torch.from_numpy(np.ascontiguousarray(batch.numpy()[..., ::-1]))), x, y
    )
