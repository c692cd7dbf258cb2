"""A fine-tuned baseline: out-of-sample probabilities of a network trained in folds, and training dynamics.

It is asked for with ``audit(..., baseline="finetune")`` and takes minutes to hours where the probe of
`dataaudit.signals.probabilities` takes seconds. Nothing here loads torch or Lightning before it runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from dataaudit.errors import InputError, MissingDependencyError
from dataaudit.registry import signal
from dataaudit.signals.backbones import DEFAULT
from dataaudit.signals.finetune.dynamics import Finetuned, dynamics_of, pooled
from dataaudit.signals.finetune.plan import Settings, labeled
from dataaudit.signals.probabilities import pred_probs
from dataaudit.signals.spectrum import Network, Spectrum
from dataaudit.types import Neighbors, Workplace

__all__ = ["Finetuned", "finetuned", "finetuned_dynamics", "finetuned_probs", "ready"]


@signal
def finetuned(
    images: pd.DataFrame,
    near_duplicates: pd.Series[int],
    labels: pd.DataFrame,
    workplace: Workplace,
    *,
    model: str = "",
    pretrained: bool = True,
    folds: int = 5,
    epochs: int = 5,
    size: int = 0,
    batch_size: int = 32,
    learning_rate: float = 1e-3,
    head_rate: float = 1e-3,
    frozen_fraction: float = -1.0,
    flip: bool = False,
    seed: int = 0,
    devices: int = 0,
    workers: int = 0,
    max_gib: float = 8.0,
) -> Finetuned:
    """Fine-tune a network in folds; an image is judged by the one that saw neither it nor a near-duplicate.

    The network begins with its pretrained weights and a last layer fitted to their features, so that it
    starts as a linear probe; then all layers but the first are trained, the earlier the slower. Images are
    squeezed to squares and cropped at random by up to a quarter; nothing is mirrored unless `flip` says so,
    since digits, text and road signs would become something else. The probabilities are the mean over the
    later epochs, and no epoch is chosen by images that are held out. What is finished is kept, epoch by
    epoch: after Ctrl-C the next audit goes on from there.

    Args:
        images: for the paths and digests of the files.
        near_duplicates: group of each image that can be decoded.
        labels: given classes.
        workplace: device, cache and backbone of the audit.
        model: ``efficientnet_lite0``, a model of torchvision, ``timm:NAME``, or ``package.module:function``,
            which gets the number of classes and returns a network; empty: the backbone of the audit.
        pretrained: begin with weights trained on other images; False begins with random ones.
        folds: how many networks are trained, each on all images but those of its fold.
        epochs: rounds over the images a fold.
        size: pixels a side; 0: three times that of the images, from 96 to the model's own, in steps of 32.
        batch_size: images a step on each device.
        learning_rate: highest rate of the last layers below the head; the first ones have half of it.
        head_rate: highest rate of the last layer.
        frozen_fraction: share of the layers, the first ones, that stay as they are; -1: a quarter on a CPU,
            where the first ones cost most, none on a GPU.
        flip: mirror half of the images.
        seed: of folds, order and crops; on a CPU the same seed gives the same probabilities.
        devices: how many; 0: all GPUs, or one CPU.
        workers: processes that decode where the images aren't kept in one array; 0: none.
        max_gib: largest such array, on disk and mapped into memory.

    Raises:
        Unavailable: fewer than two classes, or none with two different images.
        InputError: a setting out of range, or no model of that name.
        MissingDependencyError: Lightning isn't installed, or the weights are neither here nor to be had.
    """
    settings = Settings(
        model=model or workplace.backbone or DEFAULT, pretrained=pretrained, folds=folds, epochs=epochs,
        size=size, batch_size=batch_size, learning_rate=learning_rate, head_rate=head_rate,
        frozen_fraction=frozen_fraction, flip=flip, seed=seed, devices=devices, workers=workers,
        max_gib=max_gib,
    )  # fmt: skip
    data = labeled(images, near_duplicates, labels, folds=folds, seed=seed)
    _need_lightning()
    from dataaudit.signals.finetune.fitting import run

    found = run(data, settings, workplace)
    n_folds = len(found.curves)
    held_out = data.fold == np.arange(n_folds)[:, None]
    dynamics, history = dynamics_of(found.curves, held_out)
    values = pooled([found.probabilities], data.given, data.fold)[data.judged]
    columns = pd.Index(data.classes)
    return Finetuned(
        pred_probs=pd.DataFrame(values, index=data.ids[data.judged], columns=columns),
        dynamics=dynamics.set_index(data.ids),
        history=history.set_index(pd.MultiIndex.from_product([data.ids, range(1, epochs + 1)],
                                                             names=["sample_id", "epoch"])),
        fold=pd.Series(data.fold, index=data.ids, name="fold"),
        size=found.size,
    )  # fmt: skip


@signal
def finetuned_probs(
    finetuned: Finetuned,
    spectrum: Spectrum,
    neighbors: Neighbors,
    near_duplicates: pd.Series[int],
    labels: pd.DataFrame,
    other_networks: Sequence[Network] | None = None,
    *,
    join_probe: bool = True,
) -> pd.DataFrame:
    """Out-of-sample probability of each class for each labeled image, of fine-tuned network and probe.

    The probe costs seconds and errs elsewhere. How much each counts is what fits the labels of the other
    folds best, so where the network is far better it has the say.

    Args:
        finetuned: the network.
        spectrum, neighbors, near_duplicates, labels, other_networks: what the probe needs, see
            `dataaudit.signals.probabilities.pred_probs`.
        join_probe: False leaves the probe out.

    Returns:
        (n, k) float32 rows that sum to 1; index: sample ids; columns: classes that have at least one label.
    """
    own = finetuned.pred_probs
    if not join_probe:
        return own
    probe = pred_probs(spectrum, neighbors, near_duplicates, labels, other_networks or ())
    ids = own.index[own.index.isin(probe.index)]
    probe = probe.loc[ids].reindex(columns=own.columns, fill_value=0.0)
    given = labels.dropna(subset="name").drop_duplicates("sample_id").set_index("sample_id")["name"]
    numbers = own.columns.get_indexer(pd.Index(given.loc[ids])).astype(np.int64)
    fold = np.asarray(finetuned.fold.loc[ids], dtype=np.int64)
    joined = own.copy()
    joined.loc[ids] = pooled([own.loc[ids].to_numpy(), probe.to_numpy()], numbers, fold)
    return joined


@signal
def finetuned_dynamics(finetuned: Finetuned) -> pd.DataFrame:
    """How each label fared while the network was trained, one row a labeled image.

    Returns:
        Columns as `dataaudit.signals.finetune.dynamics.dynamics_of` has them: ``loss``, ``margin``,
        ``confidence``, ``variability``, ``forgotten``, ``learned`` and the held-out figures.
    """
    return finetuned.dynamics


def ready(settings: Mapping[str, Any], backbone: str | None) -> None:
    """Find out, before anything else is done, whether a network can be fine-tuned here.

    Args:
        settings: of `finetuned`.
        backbone: name of the audit's backbone; None for one of the user's own.

    Raises:
        InputError: a setting is out of range, or no model has the name.
        MissingDependencyError: Lightning or timm isn't installed, or the weights are neither here nor to be
            had.
    """
    chosen = Settings(**settings)
    if not chosen.model and backbone is None:
        raise InputError(
            "The backbone is a module of your own; the baseline 'finetune' makes its networks by name.",
            fix="Set the model of the signal finetuned, such as 'resnet18' or 'package.module:function'.",
        )
    _need_lightning()
    from dataaudit.signals.finetune.models import build, recipe_named

    build(recipe_named(chosen.model or backbone or DEFAULT, pretrained=chosen.pretrained), 2)


def _need_lightning() -> None:
    import importlib.util

    if importlib.util.find_spec("pytorch_lightning") is None:
        raise MissingDependencyError(
            "The baseline 'finetune' needs Lightning.", fix="pip install 'dataaudit[finetune]'"
        )
