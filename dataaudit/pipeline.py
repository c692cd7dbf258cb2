"""An audit: what the checks need -> signals -> checks -> Report."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence, Set
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from dataaudit import __version__, annotators, decisions, formats, inputs, registry, state
from dataaudit import predictions as predicted
from dataaudit.annotators import Annotations
from dataaudit.errors import DataAuditError, InputError, MissingDependencyError, Unavailable, nearest
from dataaudit.findings import contents_of, digest_of, findings_of, md5_of
from dataaudit.progress import bar
from dataaudit.registry import Signal
from dataaudit.signals.objects import in_pixels
from dataaudit.sweep import Embedder, Swept, sweep
from dataaudit.types import Check, Outcome, Report, Source, Tables, Workplace

if TYPE_CHECKING:
    import fiftyone as fo

    from dataaudit.signals.backbones import Backbone

__all__ = ["audit", "embed"]

_FIELDS = ("images", "labels", "predictions", "classes", "task", "units", "problems")
_OF_IMAGES = ("pred_probs", "finetuned", "multilabel_probs")
"""Signals that judge the class of a whole image."""
_SHOWN = ("pred_probs", "multilabel_probs", "object_probs", "neighbors", "near_duplicates")
_BASELINES: Mapping[str, Mapping[str, str]] = {
    "probe": {},
    "finetune": {"pred_probs": "finetuned_probs", "training_dynamics": "finetuned_dynamics"},
}
"""The signals that a baseline puts in place of others."""
_DETECTORS: Mapping[str, Mapping[str, str]] = {
    "baseline": {},
    "finetune": {"detections": "finetuned_detections"},
}
"""The same of a detector."""
_COSTLY = {"detections", "object_probs", "box_judge"}
"""Signals that take minutes: a check that can do without doesn't bring them in."""


def audit(
    data: str | Path | Tables | fo.Dataset,
    *,
    select: Sequence[str] = (),
    ignore: Sequence[str] = (),
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    backbone: str | Backbone = "efficientnet_lite0",
    baseline: str = "probe",
    detector: str = "baseline",
    device: str = "auto",
    pred_probs: pd.DataFrame | np.ndarray[Any, Any] | Sequence[Any] | Mapping[str, Any] | None = None,
    predictions: Any = None,
    training_dynamics: pd.DataFrame | None = None,
    annotations: str | Path | pd.DataFrame | Annotations | None = None,
    annotation_columns: Mapping[str, str] | None = None,
    cache: str | Path | None = None,
    format: str | None = None,  # noqa: A002
    options: Mapping[str, str] | None = None,
    progress: bool = True,
) -> Report:
    """Look for wrong, inconsistent and broken annotations.

    Args:
        data: a folder or manifest, the name of a FiftyOne dataset, a FiftyOne dataset, or tables.
        select: codes or prefixes of the checks to run, such as ``("LBL", "DUP001")``; empty runs all.
        ignore: codes or prefixes of the checks to leave out.
        settings: settings of checks by code and of signals by name, such as ``{"near_duplicates":
            {"min_similarity": 0.9}}``.
        backbone: its name (see `dataaudit.signals.backbones.backbone_named`) or a backbone of your own.
        baseline: what judges the labels: ``probe``, a regression and neighbours on the backbone's features,
            in seconds; or ``finetune``, a network fine-tuned in folds, in minutes to hours (see
            `dataaudit.signals.finetune.finetuned` and its settings).
        detector: what finds objects, where no predictions are given: ``baseline``, a head on the backbone's
            features, in minutes; or ``finetune``, a detector of torchvision, in minutes on a GPU and hours on
            a CPU (see `dataaudit.signals.detector.finetuned_detections` and its settings).
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        pred_probs: out-of-sample probabilities of your own model in place of the baseline's, (n, k): a table
            with sample ids and classes, or an array in the order of the labeled samples and of the sorted
            classes. Of a multi-label dataset all samples, labeled or not, and rows need not sum to 1. Of
            several models a list, or a mapping with their names.
        predictions: what your model predicts, where you don't have all its probabilities: a table with the
            columns ``sample_id``, ``name`` and ``confidence``; joined with the probabilities. Of objects: a
            table, a file of COCO results, a folder of YOLO text files, a FiftyOne field or a model, see
            `dataaudit.predictions.read`; they take the place of the trained detector's.
        training_dynamics: how each label fared while a model was trained on it, one row a sample or one a
            sample and epoch: ``margin``, ``confidence`` or ``loss``.
        annotations: what several people said about the images, a file or a table; see
            `dataaudit.annotators.read` for its shapes.
        annotation_columns: names of its columns that aren't recognised, such as ``{"sample": "img"}``.
        cache: folder of the cached signals; by default ``.dataaudit/cache`` beside the dataset, and none for
            tables made by hand.
        format: name of the format, when it isn't to be detected.
        options: options of the format, such as the name of the label column.
        progress: show progress bars.

    Returns:
        The report; ``report.findings`` is a table, worst first.

    Raises:
        InputError: an unknown code, setting, format or backbone; damaged files of annotations.
        DataAuditError: a check failed; its code is in the message.
    """
    started = time.perf_counter()
    tables = data if isinstance(data, Tables) else _tables(data, format, options or {})
    if baseline == "finetune" and tables.task == "detection":
        raise InputError(
            "The baseline 'finetune' judges the classes of whole images, and these have objects.",
            fix="Leave it out: a detector is trained, and with detector='finetune' (--detector finetune) a "
            "whole network; or hand in predictions of your own.",
        )
    run = _Run(
        tables=tables,
        checks=registry.select(select, ignore),
        settings=settings or {},
        backbone=backbone,
        baseline=baseline,
        detector=detector,
        device=device,
        cache=_cache_of(tables.source) if cache is None else Path(cache),
        progress=progress,
    )
    run.timings["load"] = time.perf_counter() - started
    decided = decisions.standing(tables.source) if tables.source is not None else {}
    _bring(run, pred_probs, predictions, training_dynamics, inputs.verdicts(decided))
    if annotations is not None:
        run.give("annotations", annotators.read(annotations, tables, columns=annotation_columns))
    outcomes, skipped = run.outcomes()
    items = findings_of(outcomes, run.tables, {key: found.verdict for key, found in decided.items()})
    items = decisions.known_again(items, decided, run.tables.images)
    run.timings["total"] = time.perf_counter() - started
    return Report(
        digest=digest_of(run.tables),
        params=run.params(select, ignore),
        outcomes=outcomes,
        items=items,
        skipped=skipped,
        timings=run.timings,
        tables=run.tables,
        n_decoded=run.n_decoded,
        detections=run.detections(),
        signals=run.shown(),
    )


def embed(
    tables: Tables,
    *,
    backbone: str | Backbone = "efficientnet_lite0",
    device: str = "auto",
    progress: bool = True,
) -> pd.DataFrame:
    """Features of the images of a dataset, from the cache where they are known.

    Returns:
        (n, d) float32; index: the sample ids whose file can be decoded.
    """
    cache = state.cache_dir(tables.source) if tables.source is not None else None
    swept = _sweep(tables, _embedder(backbone, device), cache, progress, known=True)
    assert swept.embeddings is not None
    return swept.embeddings


def _tables(data: Any, name: str | None, options: Mapping[str, str]) -> Tables:
    if isinstance(data, (str, Path)):
        return formats.read(data, format=name, options=options)
    from dataaudit import tables

    return tables.read(data, label_field=options.get("label_field"))


def _cache_of(source: Source | None) -> Path | None:
    if source is None:
        return None
    try:
        state.prepare(source)
    except OSError as error:
        raise InputError(
            f"The state of the dataset can't be kept ({error.strerror}).",
            where=error.filename or state.state_dir(source),
            fix="Make the folder writable, or name a folder for the cache: audit(..., cache=Path(...)).",
        ) from error
    return state.cache_dir(source)


def _embedder(backbone: str | Backbone, device: str) -> Embedder:
    from dataaudit.signals.backbones import backbone_named, embedder

    return embedder(backbone_named(backbone) if isinstance(backbone, str) else backbone, device=device)


def _sweep(
    tables: Tables, embedder: Embedder | None, cache: Path | None, progress: bool, *, known: bool
) -> Swept:
    digests = tables.images["digest"] if known else None
    with bar("Reading images", shown=progress) as update:
        return sweep(
            tables.images["filepath"], embedder=embedder, cache=cache, digests=digests, progress=update
        )


def _bring(run: _Run, pred_probs: Any, predictions: Any, training_dynamics: Any, verdicts: Any) -> None:
    """Hand what the user brings to the audit."""
    tables = run.tables
    if pred_probs is not None:
        several = isinstance(pred_probs, (Sequence, Mapping)) and not isinstance(pred_probs, str)
        if several and tables.task != "multilabel":
            joined, said = inputs.models(pred_probs, tables)
            run.give("pred_probs", joined)
            run.give("model_predictions", said)
        else:
            name = "multilabel_probs" if tables.task == "multilabel" else "pred_probs"
            run.give(name, inputs.probabilities(pred_probs, tables))
    if predictions is not None and tables.task == "detection":
        run.give_detections(*predicted.read(predictions, tables, progress=run.progress))
    elif predictions is not None:
        run.give("predictions", inputs.predictions(predictions, tables))
    if training_dynamics is not None:
        run.give("training_dynamics", inputs.training_dynamics(training_dynamics, tables))
    if verdicts is not None:
        run.give("verdicts", verdicts)


class _Run:
    """One audit under way: computes each signal when it is first needed."""

    def __init__(
        self,
        *,
        tables: Tables,
        checks: Sequence[Check],
        settings: Mapping[str, Mapping[str, Any]],
        backbone: str | Backbone,
        baseline: str,
        detector: str,
        device: str,
        cache: Path | None,
        progress: bool,
    ) -> None:
        self.tables, self._checks, self._cache, self.progress = tables, checks, cache, progress
        self._backbone, self._device = backbone, device
        self._baseline, self._detector = baseline, detector
        self._signals = dict(registry.signals())
        unknown = set(settings) - set(self._signals) - set(registry.checks())
        if unknown:
            known = [*self._signals, *registry.checks()]
            raise InputError(
                f"There are settings for {sorted(unknown)[0]!r}, which is neither a check nor a signal. "
                f"{nearest(sorted(unknown)[0], known)}"
            )
        declared: dict[str, Check | Signal] = {**self._signals, **registry.checks()}
        self._settings = {
            name: registry.with_settings(found, settings.get(name, {})) for name, found in declared.items()
        }
        if baseline not in _BASELINES:
            raise InputError(f"There is no baseline {baseline!r}. {nearest(baseline, _BASELINES)}")
        if detector not in _DETECTORS:
            raise InputError(f"There is no detector {detector!r}. {nearest(detector, _DETECTORS)}")
        for name, other in {**_BASELINES[baseline], **_DETECTORS[detector]}.items():
            self._signals[name], self._settings[name] = self._signals[other], self._settings[other]
        self._values: dict[str, Any] = {}
        self._keys: dict[str, str] = {}
        self._given: set[str] = set()
        self._swept: set[str] = set()
        self._detections_are_relative = False
        self.timings: dict[str, float] = {}
        self.n_decoded = 0

    def give(self, name: str, value: Any) -> None:
        """Take a signal that the user brings."""
        self._values[name] = value
        self._given.add(name)

    def give_detections(self, table: pd.DataFrame, units: str) -> None:
        """Take the user's predictions of objects; the corners become pixels when the sizes are known."""
        self.give("detections", table)
        self._detections_are_relative = units == "relative"

    def detections(self) -> pd.DataFrame | None:
        """The detections that the checks used; None where none did."""
        found = self._values.get("detections")
        return found if isinstance(found, pd.DataFrame) else None

    def shown(self) -> dict[str, Any]:
        """The signals that checks used and a reviewer is shown."""
        known = {name: self._values.get(name) for name in _SHOWN}
        return {
            name: value
            for name, value in known.items()
            if value is not None and not isinstance(value, Unavailable)
        }

    def params(self, select: Sequence[str], ignore: Sequence[str]) -> dict[str, Any]:
        """The settings of this audit, ready for JSON."""
        name = self._backbone if isinstance(self._backbone, str) else self._backbone.name
        used = {
            check.code: dict(self._settings[check.code])
            for check in self._checks
            if self._settings[check.code]
        }
        return {
            "select": [select] if isinstance(select, str) else list(select),
            "ignore": [ignore] if isinstance(ignore, str) else list(ignore),
            "backbone": name,
            "baseline": self._baseline,
            "detector": self._detector,
            "settings": used
            | {name: dict(self._settings[name]) for name in self._signals if self._settings[name]},
            "given": sorted(self._given),
        }

    def outcomes(self) -> tuple[dict[str, Outcome], dict[str, str]]:
        """Run the checks; those whose needs can't be met are skipped, with the reason."""
        self._sweep_once()
        outcomes: dict[str, Outcome] = {}
        skipped: dict[str, str] = {}
        for check in self._checks:
            try:
                arguments = self._arguments(check.needs, check.optional, saved=_COSTLY)
                started = time.perf_counter()
                outcomes[check.code] = check.run(*arguments, **self._settings[check.code])
                self.timings[check.code] = time.perf_counter() - started
            except Unavailable as reason:
                skipped[check.code] = str(reason)
            except MissingDependencyError:
                raise
            except Exception as error:
                raise DataAuditError(
                    f"{check.code} {check.name} failed: {type(error).__name__}: {error}",
                    fix=f"Run with --ignore {check.code} to go on without it, and report the failure.",
                ) from error
        return outcomes, skipped

    def _arguments(
        self, needs: Sequence[str], optional: Sequence[str], saved: Set[str] = frozenset()
    ) -> list[Any]:
        arguments = []
        absent = (set(registry.SWEPT) - self._swept) | (saved - self._needed() - set(self._values))
        for need in needs:
            try:
                if need in optional and need not in self._values and self._behind([need]) & absent:
                    raise Unavailable(f"nothing else needs what {need} is computed from")
                arguments.append(self._value(need))
            except Unavailable:
                if need not in optional:
                    raise
                arguments.append(None)
        return arguments

    def _value(self, name: str) -> Any:
        if name not in self._values:
            try:
                self._values[name] = self._compute(name)
            except Unavailable as reason:
                self._values[name] = reason
        value = self._values[name]
        if isinstance(value, Unavailable):
            raise value
        return value

    def _compute(self, name: str) -> Any:
        if name in _FIELDS:
            value = getattr(self.tables, name)
            if value is None:
                raise Unavailable(f"the dataset has no {name}")
            return value
        if name == "judge":
            return "probe" if self._baseline == "probe" and "pred_probs" not in self._given else "network"
        if name in _OF_IMAGES and self.tables.task == "detection":
            raise Unavailable("images have objects here, which the BOX checks look at")
        if name == "pred_probs" and self.tables.task == "multilabel":
            raise Unavailable("images have several labels here, which LBL003 and LBL004 look at")
        found = self._signals.get(name)
        if found is None:
            raise Unavailable(f"it needs {name}: {registry.INPUTS.get(name, registry.SWEPT.get(name, ''))}")
        if self._embeddings is not None and not len(self._embeddings):
            raise Unavailable("no image can be decoded")
        from dataaudit.signals.kept import is_kept, kept

        started = time.perf_counter()

        def compute() -> Any:
            return found.run(*self._arguments(found.needs, found.optional), **self._settings[name])

        if is_kept(name) and self._embeddings is not None:
            value = kept(name, self._key(name), self._cache, self._embeddings.index, compute)
        else:
            value = compute()
        self.timings[name] = time.perf_counter() - started
        return value

    def _key(self, name: str) -> str:
        """Digest of all that a signal depends on."""
        if name not in self._keys:
            found = self._signals.get(name)
            if found is None:
                material: Any = [name, self._content(name)]
            else:
                needs = [self._key(need) for need in found.needs]
                material = [__version__, name, self._settings[name], needs]
            self._keys[name] = md5_of(json.dumps(material, default=str))
        return self._keys[name]

    def _content(self, name: str) -> str:
        assert self._embeddings is not None
        ids = self._embeddings.index
        digests = "".join(self.tables.images["digest"].loc[ids])
        if name == "labels":
            named = contents_of(self.tables, "\1").reindex(ids)
            return md5_of(digests + "\0".join(named.fillna("").astype(str)))
        return md5_of(f"{digests}{self._embedder_name}")

    def _needed(self) -> set[str]:
        return self._behind(
            [need for check in self._checks for need in check.needs if need not in check.optional]
        )

    def _behind(self, wanted: Sequence[str]) -> set[str]:
        """All that must be there for some needs, themselves included."""
        waiting = list(wanted)
        needed: set[str] = set()
        while waiting:
            name = waiting.pop()
            if name not in needed and name not in self._given:
                needed.add(name)
                found = self._signals.get(name)
                waiting += [need for need in found.needs if need not in found.optional] if found else []
        return needed

    def _workplace(self) -> Workplace:
        # Before the sweep: whoever misspelt a model or lacks a package needn't wait for it.
        backbone = self._backbone if isinstance(self._backbone, str) else None
        if "finetuned" in self._needed() and self.tables.task != "detection":
            from dataaudit.signals.finetune import ready

            ready(self._settings["finetuned"], backbone)
        if self._detector == "finetune" and "detections" in self._needed():
            from dataaudit.signals.detector import settings

            settings.ready(self._settings["detections"])
        return Workplace(cache=self._cache, device=self._device, backbone=backbone, progress=self.progress)

    def _sweep_once(self) -> None:
        started = time.perf_counter()
        if "workplace" in self._needed():
            self._values["workplace"] = self._workplace()
        needed = self._needed()
        embedder = _embedder(self._backbone, self._device) if "embeddings" in needed else None
        # What the sweep gives in any case, and what it gives because a check can't do without.
        self._swept = set(registry.SWEPT) - ({"embeddings"} - needed)
        # The contents of a version are what DVC says they are; those of other tables may have changed since.
        source = self.tables.source
        known = source is not None and "rev" in source.options
        swept = _sweep(self.tables, embedder, self._cache, self.progress, known=known)
        images = self.tables.images.assign(
            width=swept.properties["width"], height=swept.properties["height"], digest=swept.digests
        )
        self.tables = replace(self.tables, images=images)
        self._embedder_name = embedder.name if embedder is not None else ""
        self._embeddings = _by_digest(swept.embeddings, swept.digests)
        self._values |= {
            "image_properties": swept.properties,
            "image_errors": swept.errors,
            "phash": swept.phash,
            "thumbnails": swept.thumbnails,
            "embeddings": self._embeddings,
        }
        if self._detections_are_relative:
            self._values["detections"] = in_pixels(self._values["detections"], images)
        self.timings["sweep"] = time.perf_counter() - started
        self.n_decoded = swept.n_decoded


def _by_digest(embeddings: pd.DataFrame | None, digests: pd.Series[str]) -> pd.DataFrame | None:
    if embeddings is None:
        return None
    order = np.lexsort(
        (embeddings.index.to_numpy(dtype=str), digests.loc[embeddings.index].to_numpy(dtype=str))
    )
    return pd.DataFrame(
        embeddings.to_numpy()[order], index=embeddings.index[order], columns=embeddings.columns
    )
