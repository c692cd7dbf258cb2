"""Where a fold begins: the pretrained network with a last layer fitted to its features; loads torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from dataaudit.errors import InputError
from dataaudit.signals.finetune.models import Classifier, Recipe, build
from dataaudit.signals.finetune.pictures import Pictures

__all__ = ["begin_head", "features_of", "usable_size"]

Floats = np.ndarray[Any, np.dtype[np.float32]]
Ints = np.ndarray[Any, np.dtype[np.int64]]

_PENALTY = 0.1
_ROUNDS = 100
_LEAST_DEVIATION = 0.1


def usable_size(recipe: Recipe, size: int) -> int:
    """`size`, or the network's own where it takes no other, as vision transformers do."""
    classifier = build(recipe, 2).eval()
    with torch.inference_mode():
        for each in (size, recipe.size):
            try:
                classifier(torch.zeros(2, 3, each, each))
            except (RuntimeError, AssertionError, ValueError) as error:
                reason = error
                continue
            return each
    raise InputError(
        f"{recipe.name} takes no images of {size} nor of {recipe.size} pixels: {str(reason).splitlines()[0]}",
        fix="A network of yours gets float32 images (b, 3, s, s), and scores (b, k) are expected of it.",
    ) from reason


def features_of(
    classifier: Classifier,
    pictures: Pictures,
    device: str,
    progress: Callable[[int, int], None] | None = None,
) -> Floats | None:
    """What the last layer of a network sees of each image; None where it is a convolution.

    Args:
        classifier: with the weights it begins with.
        pictures: n images.
        device: as `pick_device` has it.
        progress: called with the number of images done and of all.

    Returns:
        (n, d) float32.
    """
    if not classifier.head.flat:
        return None
    seen: list[torch.Tensor] = []
    hook = classifier.head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    classifier.to(device).eval()
    features = np.empty((len(pictures), classifier.head.n_inputs), dtype=np.float32)
    try:
        for start in range(0, len(pictures), 64):
            rows = np.arange(start, min(start + 64, len(pictures)))
            images = torch.from_numpy(pictures.take(rows)).to(device)
            with torch.inference_mode():
                classifier(images.permute(0, 3, 1, 2).float() / 255)
            found = seen.pop().float()
            if found.ndim > 2:
                return None
            features[rows] = found.cpu().numpy()
            if progress is not None:
                progress(len(rows) + start, len(pictures))
    finally:
        hook.remove()
        classifier.cpu()
    return features


def begin_head(classifier: Classifier, features: Floats, given: Ints, device: str) -> None:
    """Fit the last layer to the features, so that the network begins as a linear probe.

    Args:
        classifier: its head is changed.
        features: (m, d) of the images that are trained on.
        given: (m,) class numbers.
        device: as `pick_device` has it.

    Reference:
        Kumar et al., "Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution",
        ICLR 2022.
    """
    values = torch.from_numpy(features).to(device)
    mean, deviation = values.mean(0), values.std(0, correction=0)
    # A feature that hardly changes here would rule the scores of images in which it does.
    deviation = deviation.clamp(min=_LEAST_DEVIATION * float(deviation.square().mean().sqrt()) + 1e-6)
    values = (values - mean) / deviation
    classes = torch.from_numpy(given).to(device)
    head = classifier.head
    weight = torch.zeros(head.weight.shape, device=device, requires_grad=True)
    bias = torch.zeros(head.bias.shape, device=device, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=_ROUNDS, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = functional.cross_entropy(values @ weight.T + bias, classes)
        loss = loss + 0.5 * _PENALTY * weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        head.mean.copy_(mean)
        head.factor.copy_(1 / deviation)
        head.weight.copy_(weight)
        head.bias.copy_(bias)
