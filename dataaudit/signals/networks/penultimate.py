"""The features that any classifier's last layer sees."""

from __future__ import annotations

import torch
from torch import nn

from dataaudit.errors import InputError

__all__ = ["Penultimate"]


class Penultimate(nn.Module):
    """A classifier whose output is the input of its last layer.

    Args:
        classifier: a network that ends in a linear layer, or in a 1x1 convolution and pooling.
        example: (b, ...) input that the network takes.

    Raises:
        InputError: the network has no linear or convolution layer.
    """

    def __init__(self, classifier: nn.Module, example: torch.Tensor) -> None:
        super().__init__()
        self.classifier = classifier.eval()
        self._last = self._last_layer(example)
        self._seen: list[torch.Tensor] = []
        self._last.register_forward_pre_hook(lambda _, inputs: self._seen.append(inputs[0]))

    def _last_layer(self, example: torch.Tensor) -> nn.Module:
        called: list[nn.Module] = []
        hooks = [
            module.register_forward_pre_hook(lambda module, _: called.append(module))
            for module in self.classifier.modules()
            if isinstance(module, (nn.Linear, nn.Conv2d))
        ]
        with torch.inference_mode():
            self.classifier(example)
        for hook in hooks:
            hook.remove()
        if not called:
            raise InputError(
                f"{type(self.classifier).__name__} has no linear or convolution layer to take features of."
            )
        return called[-1]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(b, c, h, w) -> (b, d) features."""
        self._seen.clear()
        self.classifier(images)
        features = self._seen.pop()
        return features.mean(tuple(range(2, features.ndim))) if features.ndim > 2 else features
