"""Settings of the fine-tuned detector, and whether it can be made here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from dataaudit.errors import InputError

__all__ = ["Settings", "ready"]

_SMALLEST = 64


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of the signal `finetuned_detections`, checked; it documents them.

    Raises:
        InputError: a setting is out of range.
    """

    model: str
    weights: str
    pretrained: bool
    folds: int
    epochs: int
    size: int
    batch_size: int
    learning_rate: float
    flip: bool
    seed: int
    max_gib: float

    def __post_init__(self) -> None:
        for name, least in (("folds", 2), ("epochs", 0), ("batch_size", 1), ("seed", 0), ("max_gib", 0)):
            value = getattr(self, name)
            # 0 folds picks a number
            if value < least and not (name == "folds" and value == 0):
                raise InputError(f"finetuned_detections: {name} = {value!r}; expected {least} or more.")
        if not 0 <= self.learning_rate < 1:
            raise InputError(
                f"finetuned_detections: learning_rate = {self.learning_rate!r}; expected it between 0 and 1."
            )
        if self.size and self.size < _SMALLEST:
            raise InputError(
                f"finetuned_detections: size = {self.size}; expected {_SMALLEST} or more, or 0 for the "
                "detector's own."
            )

    def facts(self) -> str:
        """What the training depends on, as text."""
        return json.dumps({**asdict(self), "weights": "", "max_gib": 0}, sort_keys=True)


def ready(settings: Mapping[str, Any]) -> None:
    """Find out, before anything else is done, whether a detector can be fine-tuned here.

    Args:
        settings: of `dataaudit.signals.detector.finetuned_detections`.

    Raises:
        InputError: a setting is out of range, or torchvision has no detector of that name.
        MissingDependencyError: the weights are neither here nor to be had.
    """
    chosen = Settings(**settings)
    from dataaudit.signals.detector.models import build, recipe_named

    recipe = recipe_named(
        chosen.model, weights=chosen.weights, pretrained=chosen.pretrained, size=chosen.size
    )
    build(recipe, 1)
