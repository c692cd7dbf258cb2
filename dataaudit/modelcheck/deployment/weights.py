"""Does a deployed module hold the weights of the trained one? Compared tensor by tensor, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from dataaudit.modelcheck.deployment.differences import relative
from dataaudit.modelcheck.deployment.runtimes import Deployed
from dataaudit.modelcheck.families import dep
from dataaudit.modelcheck.findings import finding
from dataaudit.types import Finding

__all__ = ["weights_elsewhere"]

_PREFIXES = ("", "module.", "model.", "_orig_mod.")
_TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}
_MOST = 0.8


def weights_elsewhere(
    model: nn.Module, deployed: Deployed
) -> Callable[[str, Mapping[str, Any]], Finding] | None:
    """What makes a finding DEP009 of a sentence and figures; None where the weights are the same, or unseen.

    Args:
        model: the trained model.
        deployed: the deployed one; only modules of PyTorch are looked into.
    """
    if deployed.module is None:
        return None
    ours = _floats(model)
    theirs = _named_alike(ours, _floats(deployed.module))
    # Where layers were folded or quantised, names or shapes are others
    if theirs is None or not ours:
        return None
    other = {
        name: gap
        for name, weight in ours.items()
        if (gap := relative(weight, theirs[name])) > _TOLERANCE.get(theirs[name].dtype, 1e-5)
    }
    if not other:
        return None
    first = next(iter(other))
    names = ", ".join(list(other)[:3]) + (" and more" if len(other) > 3 else "")
    all_ = len(other) > _MOST * len(ours)

    def made(sentence: str, figures: Mapping[str, Any]) -> Finding:
        return finding(
            dep.OTHER_WEIGHTS,
            first.rpartition(".")[0] or first,
            f"{len(other)} of {len(ours)} tensors hold other values than the trained model's: {names}. "
            f"{sentence}",
            advice="Export the checkpoint that you compare with"
            + (
                ", and check that its keys were loaded: load_state_dict(..., strict=True)."
                if all_
                else "; look at what was done to these tensors after it was loaded."
            ),
            evidence={**figures, "tensors": list(other)[:20], "largest": max(other.values())},
        )

    return made


def _floats(module: nn.Module) -> dict[str, torch.Tensor]:
    found = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    return {name: one.detach() for name, one in found.items() if one.is_floating_point() and one.numel()}


def _named_alike(
    ours: Mapping[str, torch.Tensor], theirs: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor] | None:
    for prefix in _PREFIXES:
        found = {name: theirs[prefix + name] for name in ours if prefix + name in theirs}
        if len(found) == len(ours) and all(one.shape == ours[name].shape for name, one in found.items()):
            return found
    return None
