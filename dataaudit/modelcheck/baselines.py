"""The user's model against the dataset's baseline, on the same samples: is it the model or the data?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from dataaudit.errors import InputError
from dataaudit.modelcheck.deployment.differences import mcnemar, wilson
from dataaudit.modelcheck.families import mod
from dataaudit.modelcheck.findings import finding
from dataaudit.modelcheck.keeping import kept
from dataaudit.modelcheck.reporting import Table
from dataaudit.types import Finding, Tables

__all__ = ["CODES", "Comparison", "baseline", "compare", "predict"]

CODES = ("MOD030", "MOD031")
LEVEL = 0.05
FEW = 30
"""Samples below which nothing is said."""
ROOM = 0.02
"""Share of errors below which there is little left to gain."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """How a model compares with the baseline.

    Attributes:
        n: samples that both predicted and that have a label.
        right, baseline_right: how many each has right.
        only_model, only_baseline: sample ids that one of them alone has right, in the order of the table.
        p: of McNemar's exact test.
        classes: accuracy of both by class: columns ``n``, ``model``, ``baseline``.
        findings: MOD030 or MOD031, or none.
    """

    n: int
    right: int
    baseline_right: int
    only_model: tuple[str, ...]
    only_baseline: tuple[str, ...]
    p: float
    classes: pd.DataFrame
    findings: tuple[Finding, ...]

    def tables(self) -> list[Table]:
        """What a report shows."""
        rows = []
        for name, k in (("your model", self.right), ("baseline", self.baseline_right)):
            low, high = wilson(k, self.n)
            rows.append((name, f"{k / self.n:.1%}", f"{low:.1%} to {high:.1%}", f"{k:,} of {self.n:,}"))
        note = (
            f"{len(self.only_baseline):,} samples only the baseline has right, {len(self.only_model):,} only "
            f"the model. McNemar's exact test: p = {self.p:.2g}."
        )
        shown = self.classes.assign(gap=self.classes["model"] - self.classes["baseline"]).sort_values("gap")
        worst = tuple(
            (str(name), int(row["n"]), f"{row['model']:.0%}", f"{row['baseline']:.0%}")
            for name, row in shown.head(15).iterrows()
        )
        return [
            Table(title="Accuracy", columns=("", "accuracy", "95 % interval", "right"), rows=tuple(rows),
                  note=note),
            Table(title="Classes, worst against the baseline first",
                  columns=("class", "samples", "model", "baseline"), rows=worst),
            Table(title="Samples to look at", columns=("right by the baseline and wrong by the model",),
                  rows=tuple((sample,) for sample in self.only_baseline[:50])),
        ]  # fmt: skip


def compare(predicted: pd.Series[str], by_baseline: pd.Series[str], labels: pd.Series[str]) -> Comparison:
    """Compare the predicted classes of a model and of the baseline with the labels.

    Args:
        predicted: class by sample id, of the model.
        by_baseline: class by sample id, of the baseline, out of sample.
        labels: given class by sample id.

    Raises:
        InputError: no sample is in all three.
    """
    known = labels.dropna().index.intersection(predicted.index).intersection(by_baseline.index)
    if not len(known):
        raise InputError("No sample has a label and both predictions.")
    truth = labels.loc[known].astype(str)
    model_right = predicted.loc[known].astype(str).eq(truth)
    baseline_right = by_baseline.loc[known].astype(str).eq(truth)
    only_model = known[model_right & ~baseline_right]
    only_baseline = known[baseline_right & ~model_right]
    p = mcnemar(len(only_model), len(only_baseline))
    frame = pd.DataFrame({"model": model_right, "baseline": baseline_right}).groupby(truth.to_numpy())
    classes = frame.mean().assign(n=frame.size())
    result = Comparison(
        n=len(known), right=int(model_right.sum()), baseline_right=int(baseline_right.sum()),
        only_model=tuple(map(str, only_model)), only_baseline=tuple(map(str, only_baseline)), p=p,
        classes=classes, findings=(),
    )  # fmt: skip
    return Comparison(**{**vars(result), "findings": tuple(_findings(result))})


def _findings(made: Comparison) -> list[Finding]:
    if made.n < FEW:
        return []
    shares = made.right / made.n, made.baseline_right / made.n
    low, high = wilson(made.right, made.n)
    said = (
        f"Accuracy {shares[0]:.1%} ({low:.1%} to {high:.1%}) against {shares[1]:.1%} of the baseline on "
        f"{made.n:,} samples (p = {made.p:.2g}); {len(made.only_baseline):,} only the baseline has right, "
        f"{len(made.only_model):,} only the model."
    )
    evidence = {
        "n": made.n, "right": made.right, "baseline": made.baseline_right, "p": made.p,
        "only_baseline": made.only_baseline[:200],
    }  # fmt: skip
    if made.p < LEVEL and made.right < made.baseline_right:
        return [
            finding(
                mod.WORSE_THAN_BASELINE, "accuracy", said, evidence=evidence,
                advice="Debug the model and its training before you look at the data: the same images carry "
                "enough for the baseline.",
                sample_id=made.only_baseline[0], probability=1 - made.p,
            )
        ]  # fmt: skip
    if made.p >= LEVEL and shares[0] < 1 - ROOM:
        return [
            finding(
                mod.NO_BETTER_THAN_BASELINE, "accuracy", said, evidence=evidence, score=0.5,
                advice="Look at the data first (dataaudit audit): labels, duplicates, rare classes.",
            )
        ]  # fmt: skip
    return []


def baseline(
    predicted: pd.DataFrame, data: Any, *, split: str | None = None, device: str = "auto"
) -> Comparison:
    """Compare a model's predictions with the dataset's baseline, a regression on a backbone's features.

    Args:
        predicted: one row a sample: ``sample_id`` and ``name``, the class.
        data: a classification dataset, as an audit takes it.
        split: compare on this split alone, such as ``test``: what the model wasn't trained on. The baseline
            judges each sample without it and its near-duplicates.
        device: of the backbone.

    Raises:
        InputError: a column, split or sample is missing, or the dataset isn't one of classification.
    """
    from dataaudit.pipeline import audit

    for column in ("sample_id", "name"):
        if column not in predicted:
            raise InputError(
                f"The predictions have no column {column!r}; they have {list(predicted.columns)}."
            )
    report = audit(data, select=("LBL001",), device=device, progress=False)
    probabilities = report.signals.get("pred_probs")
    if probabilities is None:
        reason = report.skipped.get("LBL001", "it has no class labels")
        raise InputError(f"The dataset has no baseline: {reason}")
    labels = _labels(report.tables, split)
    classes = np.asarray(probabilities.columns)[probabilities.to_numpy().argmax(1)]
    by_baseline = pd.Series(classes, index=probabilities.index)
    given = predicted.drop_duplicates("sample_id").set_index("sample_id")["name"]
    strange = given.index.difference(report.tables.images.index)
    if len(strange):
        raise InputError(f"The predictions name the sample {strange[0]!r}, which the dataset doesn't have.")
    return compare(given, by_baseline, labels)


def _labels(tables: Tables, split: str | None) -> pd.Series[str]:
    if tables.task != "classification":
        raise InputError(f"The dataset is one of {tables.task}; a baseline is compared for classification.")
    labels = tables.labels.dropna(subset="name").set_index("sample_id")["name"]
    if split is None:
        return labels
    splits = tables.images["split"]
    if not (splits == split).any():
        raise InputError(f"There is no split {split!r}; the dataset has {sorted(splits.dropna().unique())}.")
    return labels[splits.reindex(labels.index).eq(split)]


def predict(
    model: nn.Module,
    data: str | Path,
    *,
    shape: tuple[int, ...] | None = None,
    transform: Callable[[Any], torch.Tensor] | None = None,
    batch_size: int = 32,
) -> pd.DataFrame:
    """What a classifier predicts for every image of a dataset that can be decoded.

    Args:
        model: its output (n, k) follows the sorted classes of the dataset; it is as before afterwards.
        data: the dataset.
        shape: of its input, found out when left out.
        transform: from a PIL image to a tensor; see `dataaudit.modelcheck.inputs.images_batch`.
        batch_size: samples in a call.

    Returns:
        Columns ``sample_id`` and ``name``.

    Raises:
        InputError: the output has another number of classes than the dataset.
    """
    from dataaudit import formats
    from dataaudit.decode import decode
    from dataaudit.modelcheck.inputs import input_shape, prepare

    found = formats.read(data)
    want = shape or (input_shape(model) if transform is None else ())
    weight = next((one for one in model.parameters() if one.is_floating_point()), torch.zeros(()))
    rows: list[tuple[str, str]] = []
    waiting: list[tuple[str, torch.Tensor]] = []

    def flush() -> None:
        images = torch.stack([image for _, image in waiting]).to(weight.device, weight.dtype)
        out = model(images)
        if out.ndim != 2 or out.shape[1] != len(found.classes):
            raise InputError(
                f"The model puts out {tuple(out.shape)}, and the dataset has {len(found.classes)} classes.",
                fix="Give --predictions with the columns sample_id and name.",
            )
        chosen = out.argmax(1).tolist()
        rows.extend((sample, found.classes[at]) for (sample, _), at in zip(waiting, chosen, strict=True))
        waiting.clear()

    with kept(model), torch.no_grad():
        model.eval()
        for sample, file in found.images["filepath"].items():
            image = decode(Path(file).read_bytes(), size=max(want, default=1 << 16)).image
            if image is None:
                continue
            waiting.append((str(sample), prepare(image, want) if transform is None else transform(image)))
            if len(waiting) == batch_size:
                flush()
        if waiting:
            flush()
    return pd.DataFrame(rows, columns=["sample_id", "name"])
