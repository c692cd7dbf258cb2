"""Networks of the recipe: (b, 3, size, size) uint8 images in, (b, n_classes) scores out."""

from itertools import pairwise

import torch
from torch import nn


class Scaled(nn.Module):
    """Bytes become what the network was trained on."""

    def __init__(self, network: nn.Module, mean: tuple[float, ...], deviation: tuple[float, ...]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", 255 * torch.tensor(mean)[:, None, None])
        self.register_buffer("deviation", 255 * torch.tensor(deviation)[:, None, None])

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.network((images.float() - self.mean) / self.deviation)


class ChannelsLast(nn.Module):
    """(b, 3, h, w) for a network that takes (b, h, w, 3)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.network(images.permute(0, 2, 3, 1))


def efficientnet_lite0(n_classes: int, image_size: int) -> nn.Module:
    from dataaudit.signals.networks.lite import load_lite

    network = load_lite(0)  # it scales the bytes itself
    network.classifier = nn.Linear(network.classifier.in_features, n_classes)
    return ChannelsLast(network.requires_grad_(True).train())  # it comes ready to predict


def small(n_classes: int, image_size: int) -> nn.Module:
    layers: list[nn.Module] = []
    channels = (3, 32, 64, 128)
    for inputs, outputs in pairwise(channels):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
        layers += [nn.MaxPool2d(2)]
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels[-1], n_classes)]
    return Scaled(nn.Sequential(*layers), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


def timm_model(n_classes: int, image_size: int, name: str, pretrained: bool) -> nn.Module:
    import timm

    network = timm.create_model(name, pretrained=pretrained, num_classes=n_classes)
    return Scaled(network, network.pretrained_cfg["mean"], network.pretrained_cfg["std"])
