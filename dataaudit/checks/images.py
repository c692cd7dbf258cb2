"""IMG: image files and their properties."""

from __future__ import annotations

import pandas as pd

from dataaudit.checks.groups import removal
from dataaudit.registry import check
from dataaudit.types import Fix, Outcome

__all__ = ["undecodable_image"]


@check("IMG001", level="image")
def undecodable_image(images: pd.DataFrame, labels: pd.DataFrame, image_errors: pd.Series[str]) -> Outcome:
    """The file can't be decoded: it is missing, empty, cut off, damaged, too large or not an image.

    Scoring: 0 for such a file, 1 for all others.

    Flagged: every such file, with the reason.

    Fix: drop the sample.
    """
    failed = images.index.isin(image_errors.index)
    score = pd.Series(1.0, index=images.index).where(~failed, 0.0)
    first = labels.reset_index(names="label_id").drop_duplicates("sample_id").set_index("sample_id")
    fixes: dict[str, Fix] = {}
    for sample_id in map(str, images.index[failed]):
        label = first.loc[sample_id].to_dict() if sample_id in first.index else {}
        fixes[sample_id] = removal(
            sample_id, label.get("label_id", sample_id), label.get("locator"), label.get("name")
        )
    reasons = image_errors.loc[images.index[failed]]
    evidence = pd.DataFrame(
        {"message": [f"{reason[0].upper()}{reason[1:]}." for reason in reasons]}, index=reasons.index
    )
    return Outcome(
        score=score,
        flagged=pd.Series(failed, index=images.index),
        probability=1 - score,
        evidence=evidence,
        fixes=fixes,
    )
