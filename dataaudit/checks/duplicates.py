"""DUP: images that are there more than once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from dataaudit.checks.groups import Groups, removal, rows_of
from dataaudit.registry import check
from dataaudit.types import Fix, Outcome

__all__ = ["exact_duplicate", "near_duplicate"]


@check("DUP001", level="image")
def exact_duplicate(images: pd.DataFrame, labels: pd.DataFrame, image_errors: pd.Series[str]) -> Outcome:
    """The same file is there more than once.

    Scoring: 0 for a file whose bytes are those of another image that is kept, 1 for all others. Files that
    can't be decoded are not compared.

    Flagged: within each split, every copy but the one to keep: with the label that most copies have, with the
    shorter path. Copies in several splits are `SPL001`'s.

    Fix: merge into the kept image, where the label is the same. Copies with other labels are `LBL002`'s,
    those with other boxes `BOX013`'s.
    """
    known = images["digest"].dropna()
    known = known[~known.index.isin(image_errors.index)]
    groups = Groups.of(_within_splits(known, images), labels, images)
    score = pd.Series(1.0, index=images.index)
    copies = {str(member): 0.0 for _, members in groups.several() for member in members.index[1:]}
    return _outcome("DUP001", groups, score, copies, "The same bytes as {kept}.")


@check("DUP002", level="image")
def near_duplicate(
    near_duplicates: pd.Series[int], embeddings: pd.DataFrame, labels: pd.DataFrame, images: pd.DataFrame
) -> Outcome:
    """Nearly the same image is there more than once.

    Scoring: one minus the cosine similarity, about the mean, of the image's embedding and that of the image
    to keep; 1 for all images that aren't flagged. Images are compared by perceptual hash and embedding:
    another size, compression or brightness and a slight crop are seen through. Copies of the same bytes are
    `DUP001`'s.

    Flagged: every image of a group but the one to keep: of a test split rather than of a training split, with
    the label that most of them have, with the most pixels.

    Fix: merge into the kept image, where split and label, or all boxes, are the same.
    """
    groups = Groups.of(_within_splits(near_duplicates, images), labels, images)
    mean = embeddings.to_numpy().mean(0) if len(embeddings) else 0.0
    scores: dict[str, float] = {}
    for _, members in groups.several():
        vectors = embeddings.loc[members.index].to_numpy() - mean
        vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        similar = vectors @ vectors[0]
        copies = members["digest"].duplicated()
        scores |= {
            i: float(np.clip(1 - similar[j], 0, 1))
            for j, i in enumerate(members.index)
            if j and not copies.iloc[j]
        }
    score = pd.Series(1.0, index=near_duplicates.index)
    return _outcome("DUP002", groups, score, scores, "Nearly the same picture as {kept}.")


def _within_splits(groups: pd.Series[Any], images: pd.DataFrame) -> pd.Series[int]:
    """Groups that don't reach over splits."""
    splits = images.loc[groups.index, "split"].map(str)
    together = pd.MultiIndex.from_arrays([groups.map(str), splits])
    return pd.Series(pd.factorize(together)[0], index=groups.index)


def _outcome(
    code: str, groups: Groups, score: pd.Series[float], scores: dict[str, float], message: str
) -> Outcome:
    rows: list[tuple[Any, ...]] = []
    fixes: dict[str, Fix] = {}
    for number, members in groups.several():
        kept = str(members.index[0])
        if not any(member in scores for member in members.index):
            continue
        rows.append((kept, "To keep.", None, f"{code}-{number}"))
        first = members.iloc[0]
        for member in rows_of(members):
            if member.Index not in scores:
                continue
            rows.append((member.Index, message.format(kept=kept), kept, f"{code}-{number}"))
            if _same(member.annotations, first["annotations"]):
                fixes[member.Index] = removal(
                    member.Index, member.label_id, member.locator, member.name, kept=kept
                )
    found = pd.Series(scores, dtype=float)
    score = score.copy()
    score[found.index] = found
    exact = code == "DUP001"
    return Outcome(
        score=score,
        flagged=pd.Series(score.index.isin(found.index), index=score.index),
        probability=1 - score if exact else None,
        evidence=pd.DataFrame(rows, columns=["id", "message", "suggested", "group"]).set_index("id"),
        fixes=fixes,
    )


def _same(a: Any, b: Any) -> bool:
    return (pd.isna(a) and pd.isna(b)) or bool(a == b)
