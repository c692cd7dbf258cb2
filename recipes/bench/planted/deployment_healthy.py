"""Deployments that do what they should: other runtimes, other precisions, other layouts."""

from __future__ import annotations

import copy
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnxruntime
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from . import healthy
from ._deployed import compared, fitted, images_of, new, onnx_compared, to_onnx
from ._images import coco_classes, streets
from .deployment import Ending, Half, TwoHeads, quantized


@healthy("resnet18 by the exporter of today, any batch size", part="deployment")
def _(data: Path):
    x, y = images_of(data)
    model = fitted("resnet18", data)
    return onnx_compared(model, copy.deepcopy(model), x, y)


@healthy("mobilenet_v3_small by the exporter of TorchScript", part="deployment")
def _(data: Path):
    x, y = images_of(data, 64)
    model = fitted("mobilenet_v3_small", data, 64)
    return onnx_compared(model, copy.deepcopy(model), x, y, legacy=True)


@healthy("exported with a batch of one for a camera that gives one image at a time", part="deployment")
def _(data: Path):
    x, y = images_of(data)
    model = fitted("small", data)
    return onnx_compared(model, copy.deepcopy(model), x, y, example=x[:1], free=False, legacy=True)


@healthy("shufflenet scripted and frozen", part="deployment")
def _(data: Path):
    x, y = images_of(data, 64)
    model = fitted("shufflenet_v2_x0_5", data, 64)
    return compared(model, torch.jit.freeze(torch.jit.script(copy.deepcopy(model))), x, y)


@healthy("squeezenet traced and saved", part="deployment")
def _(data: Path):
    x, y = images_of(data, 64)
    model = fitted("squeezenet1_1", data, 64)
    with TemporaryDirectory() as folder:
        torch.jit.trace(copy.deepcopy(model), x[:2]).save(f"{folder}/model.pt")
        return compared(model, f"{folder}/model.pt", x, y)


@healthy("vit of timm through torch.export", part="deployment")
def _(data: Path):
    x, y = images_of(data)
    model = fitted("vit", data)
    shapes = ({0: torch.export.Dim("batch")},)
    return compared(model, torch.export.export(copy.deepcopy(model), (x[:2],), dynamic_shapes=shapes), x, y)


@healthy("resnet18 in half precision", part="deployment")
def _(data: Path):
    x, y = images_of(data)
    model = fitted("resnet18", data)
    return compared(model, Half(copy.deepcopy(model)), x, y, precision=torch.float16)


@healthy("convnext of timm in bfloat16", part="deployment")
def _(data: Path):
    x, y = images_of(data, 64)
    model = fitted("timm:convnext_atto", data, 64)
    served = copy.deepcopy(model).bfloat16()
    return compared(model, lambda batch: served(batch.bfloat16()).float(), x, y, precision=torch.bfloat16)


@healthy("resnet18 in int8, calibrated channel by channel with images of the data", part="deployment")
def _(data: Path):
    x, y = images_of(data)
    model = fitted("resnet18", data)
    with TemporaryDirectory() as folder:
        return compared(model, quantized(model, x[:2], x, folder, per_channel=True), x, y)


@healthy("batch norms of resnet18 folded into its convolutions", part="deployment")
def _(data: Path):
    x, y = images_of(data)
    model = fitted("resnet18", data)
    served = copy.deepcopy(model)
    pairs = [(served, "conv1", "bn1")]
    for stage in (served.layer1, served.layer2, served.layer3, served.layer4):
        for block in stage:
            pairs += [(block, "conv1", "bn1"), (block, "conv2", "bn2")]
            if block.downsample is not None:
                pairs.append((block.downsample, "0", "1"))
    for owner, conv, norm in pairs:
        setattr(owner, conv, fuse_conv_bn_eval(getattr(owner, conv), getattr(owner, norm)))
        setattr(owner, norm, nn.Identity())
    return compared(model, served, x, y)


@healthy("weights in the memory format channels_last", part="deployment")
def _(data: Path):
    x, y = images_of(data, 64)
    model = fitted("mobilenet_v2", data, 64)
    served = copy.deepcopy(model).to(memory_format=torch.channels_last)
    return compared(model, served, x, y)


@healthy("graph optimised by ONNX Runtime and saved again", part="deployment")
def _(data: Path):
    x, y = images_of(data)
    model = fitted("small", data)
    with TemporaryDirectory() as folder:
        file = to_onnx(model, x[:2], Path(folder) / "model.onnx", legacy=True)
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = f"{folder}/optimised.onnx"
        onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        return compared(model, f"{folder}/optimised.onnx", x, y)


@healthy("U-Net on street scenes in ONNX", part="deployment")
def _(data: Path):
    x, _ = streets(data, 4)
    model = fitted("unet", data)
    return onnx_compared(model, copy.deepcopy(model), x)


@healthy("scores and boxes, two outputs in ONNX", part="deployment")
def _(data: Path):
    x, _ = images_of(data)
    model = TwoHeads().eval()
    return onnx_compared(model, copy.deepcopy(model), x)


@healthy("multi-label model called through a function of numpy", part="deployment")
def _(data: Path):
    x, _ = coco_classes(data, 12)
    model = new("resnet18")
    model.fc = nn.Linear(512, 80)
    trained = Ending(model, torch.sigmoid).eval()
    with TemporaryDirectory() as folder:
        file = to_onnx(trained, x[:2], Path(folder) / "model.onnx", legacy=True)
        session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        return compared(
            trained, lambda batch: session.run(None, {"input": np.asarray(batch, np.float32)})[0], x
        )
