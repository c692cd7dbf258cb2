"""BOX: objects that a detector sees otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from dataaudit.checks.box_fixes import BoxFixes, new_object_id
from dataaudit.registry import check
from dataaudit.signals.box_errors import BoxErrors
from dataaudit.signals.noise import expected_f1_flags
from dataaudit.types import CORNERS, Fix, Outcome

__all__ = ["bad_location", "merged_objects", "missing_object", "spurious_box", "wrong_class"]

_XY = list(CORNERS)


@check("BOX002", level="object")
def wrong_class(
    box_errors: BoxErrors,
    labels: pd.DataFrame,
    images: pd.DataFrame,
    units: str,
    *,
    min_probability: float = 0.0,
) -> Outcome:
    """The object in the box is probably of another class.

    Scoring: one less the probability.

    Probability: errors of each kind are planted in the labels (another class, another place, an object of
    another image), and a regression learns to tell them from the labels as they are by what the detections
    say: how well one of the box's class supports it, how well one of another class does, and how much support
    boxes of that class and size usually have; and, where they are known, by the class probabilities of the
    pixels in the box. How frequent each kind is follows from the labels themselves. The detections are
    out-of-sample predictions of the baseline, or your own.

    Flagged: the objects that together make the largest expected F1; `min_probability` flags those above a
    probability instead.

    Fix: relabel to the class that the detection and the pixels support most.

    Reference: Saerens, Latinne and Decaestecker, "Adjusting the Outputs of a Classifier to New a Priori
    Probabilities", Neural Computation 2002, for the shares of the kinds; Elkan and Noto, "Learning
    Classifiers from Only Positive and Unlabeled Data", KDD 2008, for learning beside labels with errors.
    """
    table = box_errors.labels
    flagged = _flagged(table["wrong class"], min_probability)
    suspects = table[flagged]
    names = labels["name"].loc[suspects.index]
    messages = [
        f"A detection of {new!r} supports this {old!r} with {other:.2f}, one of {old!r} with {support:.2f}."
        if other > 0.01
        else f"The pixels look like {new!r}; detections of {old!r} support it with {support:.2f}."
        for new, old, other, support in zip(
            suspects["suggested"], names, suspects["other"], suspects["support"], strict=True
        )
    ]
    fixes = BoxFixes(labels, images, units)
    return _outcome(
        table["wrong class"],
        flagged,
        suspects[["suggested", "support", "other"]].assign(message=messages),
        {
            str(label_id): fixes.relabel(str(label_id), new)
            for label_id, new in suspects["suggested"].items()
            if new is not None
        },
    )


@check("BOX003", level="object")
def missing_object(
    box_errors: BoxErrors,
    labels: pd.DataFrame,
    images: pd.DataFrame,
    units: str,
    *,
    min_probability: float = 0.0,
) -> Outcome:
    """An object has probably no box.

    Scoring: one less the probability. The items are detections that stand for no label.

    Probability: detections that stand for a label show what detections of objects look like (confidence,
    class, size, overlap with other labels and with more confident detections); a regression tells them from
    the others. If a share of the objects has no label, it shows among the detections that look best, which
    are all of objects; further down a detection without a label is such an object, or nothing. One that shows
    where a badly placed or wrongly named box belongs counts there, and one in a crowd or an ignored region
    nowhere.

    Flagged: the detections that together make the largest expected F1; `min_probability` flags those above a
    probability instead.

    Fix: add a box where the detection is, of its class.

    Reference: Elkan and Noto, "Learning Classifiers from Only Positive and Unlabeled Data", KDD 2008, for
    learning beside objects without a label; Tkachenko, Thyagarajan and Mueller, "ObjectLab: Automated
    Diagnosis of Mislabeled Images in Object Detection Data", ICML workshop 2023, for overlooked boxes.
    """
    found = box_errors.missing
    ids = [new_object_id(sample_id, box) for sample_id, box in _boxes(found)]
    table = found.set_index(pd.Index(ids, name="label_id", dtype=object))
    table = table[~table.index.duplicated() & ~table.index.isin(labels.index)]
    flagged = _flagged(table["probability"], min_probability)
    suspects = table[flagged]
    messages = [
        f"A {name!r} is detected here with confidence {confidence:.2f}, and "
        + (f"the best label covers it by {claimed:.2f} (IoU)." if claimed >= 0.05 else "no label covers it.")
        for name, confidence, claimed in zip(
            suspects["name"], suspects["confidence"], suspects["claimed"], strict=True
        )
    ]
    fixes = BoxFixes(labels, images, units)
    return _outcome(
        table["probability"],
        flagged,
        suspects[["sample_id", "confidence", "claimed", *_XY]].assign(
            suggested=suspects["name"], message=messages
        ),
        {
            str(item): fixes.add(sample_id, name, box)
            for item, name, (sample_id, box) in zip(
                suspects.index, suspects["name"], _boxes(suspects), strict=True
            )
        },
    )


@check("BOX004", level="object")
def spurious_box(
    box_errors: BoxErrors,
    labels: pd.DataFrame,
    images: pd.DataFrame,
    units: str,
    *,
    min_probability: float = 0.0,
) -> Outcome:
    """The box probably holds no object.

    Scoring: one less the probability.

    Probability: as for `BOX002`; boxes of other images, put where no label is, show how much support a box
    without an object has. A class or size that the detections seldom find is judged by what it usually gets.

    Flagged: the objects that together make the largest expected F1; `min_probability` flags those above a
    probability instead.

    Fix: remove the box.

    Reference: see `BOX002`.
    """
    table = box_errors.labels
    flagged = _flagged(table["spurious"], min_probability)
    suspects = table[flagged]
    names = labels["name"].loc[suspects.index]
    messages = [
        f"No detection supports this {name!r}: {support:.2f} by its class, {other:.2f} by another."
        for name, support, other in zip(names, suspects["support"], suspects["other"], strict=True)
    ]
    fixes = BoxFixes(labels, images, units)
    return _outcome(
        table["spurious"],
        flagged,
        suspects[["support", "other"]].assign(message=messages),
        {str(label_id): fixes.remove(str(label_id)) for label_id in suspects.index},
    )


@check("BOX005", level="object")
def bad_location(
    box_errors: BoxErrors,
    labels: pd.DataFrame,
    images: pd.DataFrame,
    units: str,
    *,
    min_probability: float = 0.0,
) -> Outcome:
    """The box is probably badly placed: its object lies otherwise.

    Scoring: one less the probability.

    Probability: as for `BOX002`; labels whose box was moved, or whose sides were, show what detections say
    about a box beside its object. How well detections usually fit the boxes of this dataset counts: where
    people draw loosely, more is allowed.

    Flagged: the objects that together make the largest expected F1; `min_probability` flags those above a
    probability instead.

    Fix: move the box to where its object is seen.

    Reference: see `BOX002`.
    """
    table = box_errors.labels
    flagged = _flagged(table["bad location"], min_probability)
    suspects = table[flagged]
    messages = [
        f"The object is seen elsewhere: its box and this one overlap by {iou:.2f} (IoU)."
        if not np.isnan(x1)
        else "Nothing fits the box, and its object isn't seen elsewhere either."
        for iou, x1 in zip(suspects["iou"], suspects["x1"], strict=True)
    ]
    fixes = BoxFixes(labels, images, units)
    return _outcome(
        table["bad location"],
        flagged,
        suspects[["iou", "support", "beside", *_XY]].assign(message=messages),
        {
            str(label_id): fixes.move(str(label_id), box)
            for label_id, (_, box) in zip(
                suspects.index,
                _boxes(suspects.assign(sample_id=labels["sample_id"].loc[suspects.index])),
                strict=True,
            )
            if not np.isnan(box).any()
        },
    )


@check("BOX011", level="object")
def merged_objects(
    box_errors: BoxErrors,
    labels: pd.DataFrame,
    images: pd.DataFrame,
    units: str,
    *,
    min_probability: float = 0.0,
) -> Outcome:
    """The box probably holds several objects of its class.

    Scoring: one less the probability.

    Probability: as for `BOX002`; boxes around two labels of a class that are neighbours show what detections
    say about such a box: two inside it, side by side, that cover it together.

    Flagged: the objects that together make the largest expected F1; `min_probability` flags those above a
    probability instead. The second object of each is an item of its own, in the same `group`.

    Fix: move the box to one of the objects; add a box for the other.

    Reference: see `BOX002`.
    """
    table = box_errors.labels
    likely = table["merged"].where((table["first"] >= 0) & (table["second"] >= 0), 0.0)
    suspects = table[_flagged(likely, min_probability)]
    fixes, made = BoxFixes(labels, images, units), {}
    rows, found = [], box_errors.detections
    for number, (label_id, each) in enumerate(suspects.iterrows()):
        first, second = (found.iloc[int(each[name])] for name in ("first", "second"))
        sample_id, name = labels.at[label_id, "sample_id"], labels.at[label_id, "name"]
        box, other = ([float(row[corner]) for corner in CORNERS] for row in (first, second))
        added = new_object_id(str(sample_id), other)
        made[str(label_id)] = fixes.move(str(label_id), box)
        made[added] = fixes.add(str(sample_id), str(name), other)
        confidences = f"{first['confidence']:.2f} and {second['confidence']:.2f}"
        message = f"Two objects of the class {name!r} are detected in it, with confidence {confidences}."
        common = {"group": f"merged-{number}", "sample_id": sample_id, "message": message}
        rows += [
            {"item": str(label_id), "suggested": None, **common, **dict(zip(CORNERS, box, strict=True))},
            {"item": added, "suggested": name, **common, **dict(zip(CORNERS, other, strict=True))},
        ]
    evidence = pd.DataFrame(rows, columns=["item", "suggested", "group", "sample_id", "message", *_XY])
    evidence = evidence.set_index("item")
    evidence = evidence[~evidence.index.duplicated()]
    new = evidence.index.difference(likely.index)
    owner = {made[item].label_id: item for item in evidence.index}
    chance = evidence["group"].map(likely.reindex(evidence.index).groupby(evidence["group"]).max())
    probability = pd.concat([likely, chance.loc[new].astype(float)])
    flagged = np.asarray(probability.index.isin(list(owner.values())))
    return _outcome(probability, flagged, evidence, made)


def _flagged(probability: pd.Series[float], least: float) -> np.ndarray[Any, np.dtype[np.bool_]]:
    values = probability.to_numpy(dtype=np.float64)
    return np.asarray(values >= least) if least > 0 else expected_f1_flags(values)


def _boxes(table: pd.DataFrame) -> list[tuple[str, list[float]]]:
    return list(zip(table["sample_id"].tolist(), table[_XY].to_numpy(dtype=float).tolist(), strict=True))


def _outcome(
    probability: pd.Series[float], flagged: Any, evidence: pd.DataFrame, fixes: Mapping[str, Fix]
) -> Outcome:
    chance = probability.astype(float).clip(0, 1)
    return Outcome(
        score=1 - chance,
        flagged=pd.Series(flagged, index=chance.index),
        probability=chance,
        evidence=evidence,
        fixes=dict(fixes),
    )
