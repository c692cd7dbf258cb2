"""Findings that were decided before, under another name of the file or with another box."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from dataaudit.decisions.outcomes import SAME
from dataaudit.metrics import box_iou
from dataaudit.types import Box, Decision, Finding

__all__ = ["decided_again", "key_of", "known_again"]


def key_of(
    code: str, item_id: str, sample_id: str | None, box: Box | None, digest: Any, given: Any, suggested: Any
) -> str:
    """The key of a finding: another one where the image, the given label or the suggestion is another.

    Args:
        code: of the check.
        item_id: what is flagged.
        sample_id: the image.
        box: of an object, in pixels: its number in the file changes when one before it is removed.
        digest: MD5 of the image's bytes.
        given: the class in the source.
        suggested: the class or sample suggested.
    """
    named = item_id if box is None else f"{sample_id}@{','.join(f'{corner:.1f}' for corner in box)}"
    text = "\0".join(map(str, (code, named, digest, given, suggested)))
    return hashlib.md5(text.encode("utf-8", "surrogateescape"), usedforsecurity=False).hexdigest()[:12]


def known_again(
    findings: Sequence[Finding], decided: Mapping[str, Decision], images: pd.DataFrame
) -> tuple[Finding, ...]:
    """Findings with the decisions on them, though the image was renamed or a proposed box has moved.

    See `decided_again`.

    Args:
        findings: of an audit; those that have a decision keep it.
        decided: decisions by the key of the finding.
        images: of the dataset, with digests.
    """
    undecided = [each for each in findings if each.decision is None]
    found = decided_again(undecided, decided, images)
    verdicts = {key: each.verdict for key, each in found.items() if each.verdict != "withdraw"}
    return tuple(
        replace(each, decision=verdicts[each.key]) if each.key in verdicts else each for each in findings
    )


def decided_again(
    findings: Sequence[Finding], decided: Mapping[str, Decision], images: pd.DataFrame
) -> dict[str, Decision]:
    """Decisions that were made on these findings when they had another key, by the present one.

    An image that was renamed or moved has the same content; all else that the key is made of has to be as it
    was, and the old name gone. The box of an object that isn't labeled is a detector's, which is another one
    after each training: it is the same object where the image has the same content and the boxes overlap by
    `SAME`.

    Args:
        findings: of an audit.
        decided: decisions by the key of the finding when they were made.
        images: of the dataset, with digests.
    """
    rivals: dict[tuple[str | None, str | None], list[Decision]] = {}
    present = {each.key for each in findings}
    for each in decided.values():
        if each.digest is not None and each.finding not in present:
            rivals.setdefault((each.code, each.digest), []).append(each)
    again = {}
    for finding in findings if rivals else ():
        digest = images["digest"].get(finding.sample_id)
        near = rivals.get((finding.code, digest), []) if finding.key not in decided else []
        found = _renamed(finding, near, images.index) or _moved(finding, near)
        if found is not None:
            again[finding.key] = found
    return again


def _renamed(finding: Finding, rivals: Sequence[Decision], names: pd.Index[Any]) -> Decision | None:
    """The decision on the same label of an image that had another name."""
    for each in reversed(rivals):
        olds = list(_samples_of(each.item_id or ""))
        # Where the old name is still there the two are copies, each of which is decided by itself
        if any(old in names for old in olds):
            continue
        about = (finding.box, each.digest, finding.given, finding.suggested)
        if any(each.finding == key_of(finding.code, str(each.item_id), old, *about) for old in olds):
            return each
    return None


def _samples_of(item_id: str) -> Iterator[str]:
    """What may be the sample of a label: its id begins with the sample's, before a colon."""
    parts = item_id.split(":")
    return (":".join(parts[:n]) for n in range(len(parts), 0, -1))


def _moved(finding: Finding, rivals: Sequence[Decision]) -> Decision | None:
    """The decision on the same object that isn't labeled, the latest of those that overlap most."""
    if finding.box is not None or finding.suggested_box is None:
        return None
    near = [each for each in rivals if each.judged_box is not None and each.given is None]
    if not near:
        return None
    boxes = np.array([each.judged_box for each in near], dtype=np.float64)
    iou = box_iou(boxes, np.array(finding.suggested_box, dtype=np.float64))
    best = len(iou) - 1 - int(iou[::-1].argmax())
    return near[best] if iou[best] > SAME else None
