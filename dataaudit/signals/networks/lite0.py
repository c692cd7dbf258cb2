"""EfficientNet-Lite0 up to its last layer, to be fine-tuned."""

from __future__ import annotations

import torch
from torch.nn import functional

from dataaudit.signals.networks.lite import Lite, load_lite

__all__ = ["Lite0", "load_lite0"]

_POOLED_STAGES = (4, 6)


class Lite0(Lite):
    """EfficientNet-Lite0 whose output is the means over space of its last three stages, joined."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(b, h, w, 3) RGB from 0 to 255, h and w multiples of 32 -> (b, 112 + 320 + 1280) float32."""
        outputs = self.outputs(images)
        pooled = [outputs[number].mean((2, 3)) for number in _POOLED_STAGES]
        pooled.append(self.head(outputs[-1]).mean((2, 3)))
        return torch.cat([functional.layer_norm(part, part.shape[1:]) for part in pooled], dim=1)


def load_lite0() -> Lite0:
    """Lite0 with its ImageNet weights, in evaluation mode.

    Raises:
        MissingDependencyError: the package with the weights isn't installed.
    """
    network = Lite0()
    network.load_state_dict(load_lite(0).state_dict())
    return network.eval()
