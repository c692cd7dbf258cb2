"""Bugs of what is deployed: exported wrongly, other weights, another precision, another input or output."""

from __future__ import annotations

import copy
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import nn

from . import planted
from ._deployed import compared, fitted, images_of, learn, new, onnx_compared, to_onnx
from ._images import DEVIATION, MEAN, cifar_pixels, streets

# ------------------------------------------------------------------ mode and weights


@planted(
    "resnet18 exported to ONNX in train mode",
    kind="train mode export", part="deployment", causes=["DEP005"],
)  # fmt: skip
def _(data: Path):
    x, y = images_of(data)
    model = fitted("resnet18", data)
    mode = torch.onnx.TrainingMode.TRAINING
    return onnx_compared(model, copy.deepcopy(model).train(), x, y, legacy=True, example=x, training=mode)


@planted(
    "CNN with dropout traced before model.eval()",
    kind="train mode export", part="deployment", causes=["DEP005"],
)  # fmt: skip
def _(data: Path):
    x, y = images_of(data)
    model = fitted("small", data)
    traced = torch.jit.trace(copy.deepcopy(model).train(), x, check_trace=False)
    return compared(model, traced, x, y)


@planted(
    "mobilenet_v3_small, checkpoint of an earlier epoch exported",
    kind="other weights", part="deployment", causes=["DEP009"],
)  # fmt: skip
def _(data: Path):
    x, y = images_of(data)
    earlier = fitted("mobilenet_v3_small", data)
    latest = learn(copy.deepcopy(earlier), x, y, steps=4)
    return onnx_compared(latest, earlier, x, y, legacy=True)


@planted(
    "shufflenet, keys of the checkpoint begin with module. and strict=False leaves random weights",
    kind="checkpoint not loaded", part="deployment", causes=["DEP009"],
)  # fmt: skip
def _(data: Path):
    x, y = images_of(data, 64)
    model = fitted("shufflenet_v2_x0_5", data, 64)
    stored = {f"module.{name}": value for name, value in model.state_dict().items()}
    served = new("shufflenet_v2_x0_5")
    served.load_state_dict(stored, strict=False)
    return compared(model, torch.jit.script(served.eval()), x, y)


@planted(
    "averaged weights (EMA) are validated and the raw ones exported",
    kind="EMA against raw weights", part="deployment", causes=["DEP009"],
)  # fmt: skip
def _(data: Path):
    x, y = images_of(data)
    model = fitted("small", data)
    averaged = torch.optim.swa_utils.AveragedModel(
        model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.7), use_buffers=True
    )
    for _ in range(3):
        learn(model, x, y, steps=2)
        averaged.update_parameters(model)
    return onnx_compared(averaged.module.eval(), model, x, y)


@planted(
    "only the last layer of the export is of another run",
    kind="other weights", part="deployment", causes=["DEP009"], mentions=["classifier"],
)  # fmt: skip
def _(data: Path):
    x, y = images_of(data)
    model = fitted("small", data)
    served = copy.deepcopy(model)
    served.classifier.reset_parameters()
    return compared(model, served, x, y)


# ------------------------------------------------------------------ precision


class Half(nn.Module):
    """Half precision inside, float32 outside."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model.half()

    def forward(self, x):
        return self.model(x.half()).float()


class Descriptor(nn.Module):
    """A CNN whose features are brought to unit length before the classes."""

    def __init__(self) -> None:
        super().__init__()
        self.body = new("small").features
        self.head = nn.Linear(64 * 8 * 8, 10)

    def forward(self, x):
        features = self.body(x).flatten(1)
        energy = (features * features).sum(1, keepdim=True)
        return self.head(features / energy.sqrt().clamp(min=1e-6)) * 10


def descriptor(x, y) -> nn.Module:
    model = Descriptor()
    with torch.no_grad():
        model.body[9].weight.fill_(12)
    return learn(model, x, y, steps=6)


@planted(
    "sum of squares in half precision is larger than 65504",
    kind="half precision overflow", part="deployment", causes=["DEP006"],
)  # fmt: skip
def _(data: Path):
    x, y = images_of(data)
    model = descriptor(x, y)
    return compared(model, Half(copy.deepcopy(model)), x, y, precision=torch.float16)


@planted(
    "running variance of batch norm for images of 12 bits is infinite in half precision",
    kind="half precision overflow", part="deployment", causes=["DEP006"],
)  # fmt: skip
def _(data: Path):
    pixels, y = cifar_pixels(data, 32)
    x = pixels.float() * 16
    model = learn(new("small"), x, y)
    return compared(model, Half(copy.deepcopy(model)), x, y, precision=torch.float16)


@planted(
    "TorchScript in half precision, a convolution of 0..255 inputs overflows",
    kind="half precision overflow", part="deployment", causes=["DEP006"],
)  # fmt: skip
def _(data: Path):
    pixels, y = cifar_pixels(data, 32)
    x = pixels.float()
    model = nn.Sequential(nn.Conv2d(3, 16, 5, 2, 2), nn.ReLU(), nn.Conv2d(16, 64, 5, 2, 2), nn.ReLU(),
                          nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))  # fmt: skip
    with torch.no_grad():
        model[0].weight.mul_(20)
        model[2].weight.mul_(2000)
        model[6].weight.mul_(1e-6)
    served = torch.jit.trace(Half(copy.deepcopy(model)).eval(), x[:2])
    return compared(model.eval(), served, x, y, precision=torch.float16)


def quantized(model: nn.Module, example, readings, folder: str, **given) -> str:
    """Statically quantised by ONNX Runtime with the given calibration images."""
    from onnxruntime.quantization import CalibrationDataReader, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.rest = [{"input": part.numpy()} for part in readings.split(8)]

        def get_next(self):
            return self.rest.pop(0) if self.rest else None

    file = to_onnx(model, example, Path(folder) / "float.onnx", legacy=True)
    ready, done = f"{folder}/ready.onnx", f"{folder}/int8.onnx"
    quant_pre_process(str(file), ready, skip_symbolic_shape=True)
    quantize_static(ready, done, Reader(), **given)
    return done


@planted(
    "int8, calibrated with images that were not normalised",
    kind="int8 badly calibrated", part="deployment", causes=["DEP002", "DEP001"],
)  # fmt: skip
def _(data: Path):
    x, y = images_of(data)
    model = fitted("resnet18", data)
    raw = cifar_pixels(data, 32)[0].float()
    with TemporaryDirectory() as folder:
        return compared(model, quantized(model, x[:2], raw, folder), x, y)


@planted(
    "int8 with one scale a tensor for the depthwise convolutions of mobilenet_v2",
    kind="int8 one scale a tensor", part="deployment", causes=["DEP002", "DEP001"],
)  # fmt: skip
def _(data: Path):
    x, y = images_of(data, 64)
    model = fitted("mobilenet_v2", data, 64)
    with torch.no_grad():  # as batch norm leaves it: a few channels with far larger weights once it is folded
        for layer in model.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.running_var[::7] *= 1e-3
                layer.weight[::7] *= 10**-1.5
    with TemporaryDirectory() as folder:
        return compared(model, quantized(model, x[:2], x[:8], folder, per_channel=False), x, y)


# ------------------------------------------------------------------ input


@planted(
    "exported with the batch of 8 of the example",
    kind="fixed batch size", part="deployment", causes=["DEP004"],
)  # fmt: skip
def _(data: Path):
    x, y = images_of(data)
    model = fitted("resnet18", data)
    return onnx_compared(model, model, x, y, example=x[:8], free=False)


class Reshaping(nn.Module):
    """Flattens with the batch size as a number."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.features = model.features
        self.classifier = model.classifier

    def forward(self, x):
        batch, channels = int(x.shape[0]), 64
        features = self.features(x).reshape(batch, channels, -1).mean(2)
        return self.classifier(features)


@planted(
    "int(x.shape[0]) in the forward pass becomes a constant of the trace",
    kind="batch size in the graph", part="deployment", causes=["DEP004"],
)  # fmt: skip
def _(data: Path):
    x, y = images_of(data)
    model = Reshaping(fitted("small", data))
    return onnx_compared(model.eval(), model, x, y, example=x[:4], legacy=True)


@planted(
    "trained with 64 pixels a side, exported with 32",
    kind="wrong input size", part="deployment", causes=["DEP003"],
)  # fmt: skip
def _(data: Path):
    x, y = images_of(data, 64)
    model = fitted("resnet18", data, 64)
    return onnx_compared(model, model, x, y, example=x[:2, :, ::2, ::2], legacy=True)


class ChannelsLast(nn.Module):
    """What a converter for TensorFlow makes: takes (n, height, width, 3)."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model(x.permute(0, 3, 1, 2))


@planted("export takes channels last", kind="NHWC input", part="deployment", causes=["DEP003"])
def _(data: Path):
    x, y = images_of(data)
    model = fitted("squeezenet1_1", data)
    served = ChannelsLast(model).eval()
    return onnx_compared(model, served, x, y, example=x[:2].permute(0, 2, 3, 1), legacy=True)


@planted("export takes one grey channel", kind="number of channels", part="deployment", causes=["DEP003"])
def _(data: Path):
    x, y = images_of(data)
    model = fitted("small", data)
    served = copy.deepcopy(model)
    first = served.features[0]
    grey = nn.Conv2d(1, first.out_channels, 3, padding=1)
    grey.load_state_dict({"weight": first.weight.detach().sum(1, keepdim=True), "bias": first.bias.detach()})
    served.features[0] = grey
    return onnx_compared(model, served.eval(), x, y, example=x[:2, :1], legacy=True)


class Prepared(nn.Module):
    """A step of the preprocessing built into what is deployed."""

    def __init__(self, model: nn.Module, step) -> None:
        super().__init__()
        self.step, self.model = step, model

    def forward(self, x):
        return self.model(self.step(x))


@planted(
    "normalisation is in the ONNX graph, and in the code that calls it too",
    kind="normalised twice", part="deployment", causes=["DEP001", "DEP012"], mentions=["normalis"],
)  # fmt: skip
def _(data: Path):
    x, y = images_of(data)
    model = fitted("resnet18", data)
    return onnx_compared(model, Prepared(model, lambda x: (x - MEAN) / DEVIATION).eval(), x, y, legacy=True)


@planted(
    "the served model turns RGB to BGR itself",
    kind="BGR inside", part="deployment", causes=["DEP001", "DEP010"], mentions=["BGR"],
)  # fmt: skip
def _(data: Path):
    x, y = images_of(data)
    model = fitted("mobilenet_v3_small", data)
    return compared(model, torch.jit.trace(Prepared(model, lambda x: x.flip(1)).eval(), x[:2]), x, y)


@planted(
    "the served model divides by 255 once more",
    kind="divided by 255 twice", part="deployment", causes=["DEP001", "DEP011"], mentions=["255"],
)  # fmt: skip
def _(data: Path):
    pixels, y = cifar_pixels(data, 32)
    x = pixels.float() / 255
    model = learn(new("small"), x, y)
    return compared(model, Prepared(copy.deepcopy(model), lambda x: x / 255).eval(), x, y)


# ------------------------------------------------------------------ output


class Ending(nn.Module):
    """A step after the model, in what is deployed alone."""

    def __init__(self, model: nn.Module, step) -> None:
        super().__init__()
        self.model, self.step = model, step

    def forward(self, x):
        return self.step(self.model(x))


@planted(
    "softmax in the export only", kind="softmax in the export", part="deployment", causes=["DEP007"],
    mentions=["softmax"],
)  # fmt: skip
def _(data: Path):
    x, y = images_of(data)
    model = fitted("vit", data)
    return onnx_compared(model, Ending(model, lambda out: out.softmax(1)).eval(), x, y, legacy=True)


@planted(
    "sigmoid in the export of a segmentation model only",
    kind="sigmoid in the export", part="deployment", causes=["DEP007"], mentions=["sigmoid"],
)  # fmt: skip
def _(data: Path):
    x, _ = streets(data, 4)
    model = fitted("unet", data)
    return compared(model, torch.jit.trace(Ending(model, torch.sigmoid).eval(), x[:1]), x)


@planted(
    "export puts out the class and no scores", kind="argmax in the export", part="deployment",
    causes=["DEP007"],
)  # fmt: skip
def _(data: Path):
    x, y = images_of(data)
    model = fitted("resnet18", data)
    return onnx_compared(model, Ending(model, lambda out: out.argmax(1)).eval(), x, y, legacy=True)


@planted(
    "logits divided by a temperature in the export only",
    kind="temperature in the export", part="deployment", causes=["DEP007", "DEP001"],
)  # fmt: skip
def _(data: Path):
    x, y = images_of(data)
    model = fitted("small", data)
    return onnx_compared(model, Ending(model, lambda out: out / 1.7).eval(), x, y)


@planted(
    "classes in the order of the numbers in one place and of the alphabet in the other",
    kind="classes permuted", part="deployment", causes=["DEP007"], mentions=["order"],
)  # fmt: skip
def _(data: Path):
    x, y = images_of(data)
    model = fitted("resnet18", data)
    served = copy.deepcopy(model)
    order = torch.tensor([0, 3, 6, 9, 2, 5, 8, 1, 4, 7])
    with torch.no_grad():
        served.fc.weight.copy_(served.fc.weight[order])
        served.fc.bias.copy_(served.fc.bias[order])
    return compared(model, lambda batch: served(batch), x, y)


@planted(
    "export has a class for the background that the model hasn't",
    kind="number of classes", part="deployment", causes=["DEP007"],
)  # fmt: skip
def _(data: Path):
    x, y = images_of(data)
    model = fitted("small", data)
    return onnx_compared(model, Ending(model, lambda out: nn.functional.pad(out, (1, 0))).eval(), x, y)


class TwoHeads(nn.Module):
    """Scores and a box for an image."""

    def __init__(self) -> None:
        super().__init__()
        self.body = new("small").features
        self.scores, self.box = nn.Linear(64, 10), nn.Linear(64, 4)

    def forward(self, x):
        features = self.body(x).mean((2, 3))
        return self.scores(features), self.box(features)


@planted("boxes come first in the export", kind="outputs swapped", part="deployment", causes=["DEP007"])
def _(data: Path):
    x, _ = images_of(data)
    model = TwoHeads().eval()
    return onnx_compared(model, Ending(model, lambda out: (out[1], out[0])).eval(), x, legacy=True)
