"""Networks to fine-tune: pretrained, with a new last layer of one output a class; loads torch."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from dataaudit.errors import InputError, MissingDependencyError
from dataaudit.signals.backbones import DEFAULT, backbone_named

__all__ = ["Classifier", "Head", "Recipe", "build", "recipe_named"]

_LITES = {"efficientnet_lite0": (0, 224), "efficientnet_lite1": (1, 224), "efficientnet_lite2": (2, 256)}
_DROPPED = 0.3
_OFFLINE = f"Go online once, or use the model {DEFAULT!r}, whose weights are installed."


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to make a network.

    Attributes:
        name: identifies the network and its weights.
        make: number of classes -> network, (b, 3, s, s) float32 standardised images -> (b, k) scores.
        size: pixels a side that it was trained at.
        mean, deviation: of each channel in [0, 1], by which images are standardised.
    """

    name: str
    make: Callable[[int], nn.Module]
    size: int = 224
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    deviation: tuple[float, ...] = (0.229, 0.224, 0.225)


def recipe_named(name: str, *, pretrained: bool = True) -> Recipe:
    """The network of that name.

    Args:
        name: ``efficientnet_lite0``, ``1`` or ``2``; a classification model of torchvision (``resnet18``,
            ``resnet50:IMAGENET1K_V1``); ``timm:NAME``; or ``package.module:function``, a function of the
            user's from the number of classes to a network.
        pretrained: begin with weights; False begins with random ones. The user's function decides itself.

    Raises:
        InputError: no model or function has the name.
        MissingDependencyError: timm isn't installed.
    """
    if name in _LITES:
        number, size = _LITES[name]
        return Recipe(
            name=_named(name, pretrained), make=lambda k: _lite(number, pretrained), size=size,
            mean=(127 / 255,) * 3, deviation=(128 / 255,) * 3,
        )  # fmt: skip
    if name.startswith("timm:"):
        return _timm(name, pretrained)
    from torchvision.models import list_models

    module, colon, function = name.partition(":")
    if colon and module not in list_models():
        return _of_the_user(name, module, function)
    return _torchvision(name, pretrained)


class Classifier(nn.Module):
    """A network with a new last layer.

    Attributes:
        network: the network; where its last layer was, there is a `Head`.
        head: that `Head`.
    """

    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(self, network: nn.Module, n_classes: int, mean: tuple[float, ...],
                 deviation: tuple[float, ...]) -> None:  # fmt: skip
        super().__init__()
        self.network = network
        self.head = _with_new_head(network, n_classes)
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(deviation).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(b, 3, s, s) float32 in [0, 1] -> (b, k) scores."""
        pixels = ((images - self.mean) / self.deviation).contiguous(memory_format=torch.channels_last)
        scores = self.network(pixels)
        # Inception and GoogLeNet add the scores of auxiliary classifiers while they are trained.
        scores = scores if isinstance(scores, torch.Tensor) else scores[0]
        return scores.flatten(1)

    def layers(self) -> list[nn.Module]:
        """The layers that have parameters of their own, from the first to the last but the head's."""
        own = set(self.head.modules())
        return [
            layer for layer in self.network.modules()
            if layer not in own and any(True for _ in layer.parameters(recurse=False))
        ]  # fmt: skip


class Head(nn.Module):
    """A last layer, of zeros to begin with, whose inputs are standardised by fixed figures.

    Args:
        layer: linear layer, or convolution over single pixels, whose inputs the new one takes.
        n_classes: k.
    """

    mean: torch.Tensor
    factor: torch.Tensor

    def __init__(self, layer: nn.Linear | nn.Conv2d, n_classes: int) -> None:
        super().__init__()
        self.flat = isinstance(layer, nn.Linear)
        self.n_inputs = layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels
        self.weight = nn.Parameter(torch.zeros(n_classes, self.n_inputs))
        self.bias = nn.Parameter(torch.zeros(n_classes))
        self.register_buffer("mean", torch.zeros(self.n_inputs))
        self.register_buffer("factor", torch.ones(self.n_inputs))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(..., d) -> (..., k); in place of a convolution, (b, d, h, w) -> (b, k, h, w)."""
        features = nn.functional.dropout(features, _DROPPED, self.training)
        if self.flat:
            return nn.functional.linear((features - self.mean) * self.factor, self.weight, self.bias)
        mean, factor = self.mean[:, None, None], self.factor[:, None, None]
        return nn.functional.conv2d((features - mean) * factor, self.weight[:, :, None, None], self.bias)


def build(recipe: Recipe, n_classes: int) -> Classifier:
    """The network with its weights and a last layer of zeros.

    Raises:
        MissingDependencyError: the weights are neither here nor to be had.
        InputError: the user's function made something that is no network.
    """
    network = recipe.make(n_classes)
    if not isinstance(network, nn.Module):
        raise InputError(f"{recipe.name} made a {type(network).__name__}; expected a torch.nn.Module.")
    classifier = Classifier(network, n_classes, recipe.mean, recipe.deviation)
    # One and a half times as fast on a CPU, and on a GPU in half precision
    return classifier.to(memory_format=torch.channels_last)


def _with_new_head(network: nn.Module, n_classes: int) -> Head:
    layers = [
        (name, layer) for name, layer in network.named_modules()
        if isinstance(layer, (nn.Linear, nn.Conv2d))
    ]  # fmt: skip
    if not layers:
        raise InputError(f"{type(network).__name__} has no linear or convolution layer to replace.")
    name, layer = layers[-1]
    head = Head(layer, n_classes)
    parent, _, own = name.rpartition(".")
    setattr(network.get_submodule(parent), own, head)
    return head


def _named(name: str, pretrained: bool) -> str:
    return name if pretrained else f"{name} with random weights"


def _lite(number: int, pretrained: bool) -> nn.Module:
    from dataaudit.signals.networks.lite import Lite, Moments, load_lite

    network = load_lite(number) if pretrained else Lite(number)
    # Their features don't go through the layers that end in ImageNet's classes.
    del network.head, network.classifier
    return _Lite(Moments(network))


class _Lite(nn.Module):
    """An EfficientNet-Lite that takes standardised images, with a last layer on its stages' features."""

    def __init__(self, features: nn.Module) -> None:
        super().__init__()
        self.features = features
        with torch.inference_mode():
            width = features.eval()(torch.zeros(1, 32, 32, 3)).shape[1]
        self.last = nn.Linear(width, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(b, 3, s, s) -> (b, k) scores."""
        scores: torch.Tensor = self.last(self.features((images * 128 + 127).permute(0, 2, 3, 1)))
        return scores


def _torchvision(name: str, pretrained: bool) -> Recipe:
    from torchvision.models import get_model, get_model_weights, list_models

    # It knows the names, and what to say about a misspelt one.
    backbone_named(name)
    model, _, weights_name = name.partition(":")
    if model not in list_models():
        raise InputError(
            f"{name} is no single network, so it can't be fine-tuned.",
            fix=f"Set the model of the signal finetuned, such as {DEFAULT!r}.",
        )
    weights = get_model_weights(model)
    chosen = weights[weights_name] if weights_name else weights.DEFAULT
    transform: Any = chosen.transforms()

    def make(n_classes: int) -> nn.Module:
        try:
            network: nn.Module = get_model(model, weights=chosen if pretrained else None)
        except OSError as error:
            raise MissingDependencyError(
                f"The weights {chosen} can't be downloaded ({error}).", where=chosen.url, fix=_OFFLINE
            ) from error
        return network

    return Recipe(
        name=_named(f"torchvision {model} {chosen.name}", pretrained), make=make,
        size=max(transform.crop_size),
        mean=tuple(transform.mean), deviation=tuple(transform.std),
    )  # fmt: skip


def _timm(name: str, pretrained: bool) -> Recipe:
    # It knows the names, and what to say where timm is missing.
    backbone_named(name)
    import timm

    model = name.removeprefix("timm:")
    config = timm.data.resolve_data_config(pretrained_cfg=timm.get_pretrained_cfg(model).to_dict())

    def make(n_classes: int) -> nn.Module:
        try:
            network: nn.Module = timm.create_model(model, pretrained=pretrained, num_classes=n_classes)
        except (OSError, RuntimeError) as error:
            raise MissingDependencyError(
                f"The weights of timm's {model} can't be downloaded ({str(error).splitlines()[0]}).",
                fix=_OFFLINE,
            ) from error
        return network

    return Recipe(
        name=_named(name, pretrained), make=make, size=max(config["input_size"][1:]),
        mean=tuple(config["mean"]), deviation=tuple(config["std"]),
    )  # fmt: skip


def _of_the_user(name: str, module: str, function: str) -> Recipe:
    try:
        make = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise InputError(
            f"The model {name!r} can't be imported: {error}.",
            fix="A function of yours is written package.module:function; it gets the number of classes and "
            "returns a torch.nn.Module.",
        ) from error
    return Recipe(name=name, make=make)
