"""The model side: when training or deployment disappoints, is it the model, the training or the data?

Each check is a function that returns findings, and a command ``dataaudit model NAME``. What a check does to a
model is put back, also after an exception.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dataaudit.modelcheck.baselines import baseline
    from dataaudit.modelcheck.deployment.checking import parity
    from dataaudit.modelcheck.deployment.preparing import preprocessing
    from dataaudit.modelcheck.keeping import kept
    from dataaudit.modelcheck.lightning import SanityCheck, SanityError
    from dataaudit.modelcheck.loading import load_model
    from dataaudit.modelcheck.losses import loss_inputs
    from dataaudit.modelcheck.repeating import determinism
    from dataaudit.modelcheck.reporting import ModelReport
    from dataaudit.modelcheck.runs import curves
    from dataaudit.modelcheck.suite import sanity
    from dataaudit.modelcheck.tracing import trace
    from dataaudit.modelcheck.tracking import log_to_mlflow, log_to_tensorboard
    from dataaudit.modelcheck.training.gradient_flow import gradients
    from dataaudit.modelcheck.training.overfitting import overfit
    from dataaudit.modelcheck.training.processes import processes
    from dataaudit.modelcheck.training.rates import rate_fits_batch, rate_range
    from dataaudit.modelcheck.viewing import view

# No submodule may have the name of a function: an import of it would hide the function
_HOME = {
    "ModelReport": "reporting",
    "SanityCheck": "lightning",
    "SanityError": "lightning",
    "baseline": "baselines",
    "curves": "runs",
    "determinism": "repeating",
    "gradients": "training.gradient_flow",
    "kept": "keeping",
    "load_model": "loading",
    "log_to_mlflow": "tracking",
    "log_to_tensorboard": "tracking",
    "loss_inputs": "losses",
    "overfit": "training.overfitting",
    "parity": "deployment.checking",
    "preprocessing": "deployment.preparing",
    "processes": "training.processes",
    "rate_fits_batch": "training.rates",
    "rate_range": "training.rates",
    "sanity": "suite",
    "trace": "tracing",
    "view": "viewing",
}

__all__ = [
    "ModelReport",
    "SanityCheck",
    "SanityError",
    "baseline",
    "curves",
    "determinism",
    "gradients",
    "kept",
    "load_model",
    "log_to_mlflow",
    "log_to_tensorboard",
    "loss_inputs",
    "overfit",
    "parity",
    "preprocessing",
    "processes",
    "rate_fits_batch",
    "rate_range",
    "sanity",
    "trace",
    "view",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'dataaudit.modelcheck' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"dataaudit.modelcheck.{_HOME[name]}"), name)
    globals()[name] = value
    return value
