"""Detectors of torchvision to fine-tune; loads torch."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dataaudit.errors import InputError, MissingDependencyError, nearest

__all__ = ["Recipe", "build", "longest_side", "recipe_named"]

_LEAST_SCORE = 0.005
_MOST = 100
_OTHER_LABELS = ("keypointrcnn", "maskrcnn")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to make a detector.

    Attributes:
        name: of torchvision's function.
        weights: file to begin with; empty: those that torchvision has, trained on COCO.
        pretrained: False begins with random weights.
        size: pixels of the shorter side; 0: the detector's own.
        digest: changes with the weights.
    """

    name: str
    weights: str
    pretrained: bool
    size: int
    digest: str


def recipe_named(name: str, *, weights: str = "", pretrained: bool = True, size: int = 0) -> Recipe:
    """The detector of that name.

    Args:
        name: a detector of torchvision, such as ``fasterrcnn_mobilenet_v3_large_320_fpn``,
            ``ssdlite320_mobilenet_v3_large`` or ``retinanet_resnet50_fpn_v2``.
        weights: a file of weights (a state dict); empty: torchvision's, which it downloads once.
        pretrained: False begins with random ones.
        size: pixels of the shorter side; 0: the detector's own.

    Raises:
        InputError: no detector of that name, no such file, or no weights to be read in it.
    """
    known = _names()
    if name not in known:
        raise InputError(f"torchvision has no detector {name!r}. {nearest(name, known)}")
    if not pretrained:
        return Recipe(name=name, weights="", pretrained=False, size=size, digest="random")
    if not weights:
        from torchvision.models import get_model_weights

        digest = str(get_model_weights(name).DEFAULT)
        return Recipe(name=name, weights="", pretrained=True, size=size, digest=digest)
    try:
        digest = hashlib.md5(Path(weights).read_bytes(), usedforsecurity=False).hexdigest()
    except OSError as error:
        raise InputError(
            f"The weights can't be read ({error.strerror}).",
            where=weights,
            fix="Set the setting 'weights' of finetuned_detections to a file of weights, or leave it out.",
        ) from error
    return Recipe(name=name, weights=weights, pretrained=True, size=size, digest=digest)


def build(recipe: Recipe, n_classes: int) -> nn.Module:
    """The detector with its weights and new last layers.

    Args:
        recipe: what to make.
        n_classes: k; the detector numbers them from 1, as 0 is the background.

    Raises:
        MissingDependencyError: the weights are neither here nor to be had.
        InputError: a file of weights that fit nothing.
    """
    from torchvision.models import get_model

    network: nn.Module = get_model(
        recipe.name, weights=None, weights_backbone=None, num_classes=n_classes + 1
    )
    _let_through(network)
    if recipe.size:
        _resize(network, recipe.size)
    if recipe.pretrained:
        _load(network, _state(recipe), recipe)
    return network


def longest_side(recipe: Recipe) -> int:
    """Pixels of the longer side that the detector looks at, at most."""
    network: Any = build(replace(recipe, pretrained=False), 1)
    transform = network.transform
    return int(max(transform.fixed_size or (transform.max_size,)))


def _names() -> list[str]:
    from torchvision.models import detection, list_models

    return [name for name in list_models(detection) if not name.startswith(_OTHER_LABELS)]


def _state(recipe: Recipe) -> Mapping[str, Any]:
    if recipe.weights:
        try:
            found = torch.load(recipe.weights, map_location="cpu", weights_only=True)
        except Exception as error:
            # torch and zipfile raise whatever a damaged file leads them into
            raise InputError(
                f"The weights can't be read: {str(error).splitlines()[0]}",
                where=recipe.weights,
                fix="A state dict is expected, as torch.save(model.state_dict(), path) writes it.",
            ) from error
        found = found.get("model", found) if isinstance(found, Mapping) else {}
        return {key: value for key, value in found.items() if isinstance(value, torch.Tensor)}
    from torchvision.models import get_model_weights

    weights = get_model_weights(recipe.name).DEFAULT
    try:
        state: Mapping[str, Any] = weights.get_state_dict(progress=False, check_hash=True)
    except OSError as error:
        raise MissingDependencyError(
            f"The weights {weights} can't be downloaded ({error}).",
            where=weights.url,
            fix="Go online once; or fetch that file elsewhere and set the setting 'weights' of "
            "finetuned_detections to its path; or leave out --detector finetune.",
        ) from error
    return state


def _load(network: nn.Module, state: Mapping[str, Any], recipe: Recipe) -> None:
    """Take the weights over but for the last layers, which say other classes."""
    own = network.state_dict()
    fitting = {key: value for key, value in state.items() if key in own and own[key].shape == value.shape}
    # Of a file for another detector some layers fit by chance
    if len(fitting) < len(own) / 2:
        raise InputError(
            f"Of {len(own)} layers of {recipe.name} {len(fitting)} have weights here.",
            where=recipe.weights,
            fix="Set the setting 'model' of finetuned_detections to the detector that they are of.",
        )
    network.load_state_dict(fitting, strict=False)


def _let_through(network: Any) -> None:
    """Weak detections count here, too: what isn't detected at all is evidence against a box."""
    last = getattr(network, "roi_heads", network)
    last.score_thresh = _LEAST_SCORE
    last.detections_per_img = _MOST


def _resize(network: Any, size: int) -> None:
    transform = network.transform
    if transform.fixed_size is not None:
        transform.fixed_size = (size, size)
        return
    transform.max_size = max(round(transform.max_size / max(transform.min_size) * size), size)
    transform.min_size = (size,)
