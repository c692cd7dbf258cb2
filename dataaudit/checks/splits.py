"""SPL: splits and leakage between them."""

from __future__ import annotations

import pandas as pd

from dataaudit.checks.groups import Groups, locator_of, split_rank
from dataaudit.errors import Unavailable
from dataaudit.registry import check
from dataaudit.types import Fix, Outcome

__all__ = ["leaks_between_splits"]


@check("SPL001", level="image")
def leaks_between_splits(
    near_duplicates: pd.Series[int], labels: pd.DataFrame, images: pd.DataFrame
) -> Outcome:
    """The same or nearly the same image is in two splits.

    Scoring: 0 for a file whose very bytes are in another split, 0.1 for nearly the same picture (which has no
    probability: a person decides), 1 for all others.

    Flagged: the images in the split that may rather lose one: training before validation before test, so that
    figures taken on the test split stay comparable.

    Fix: drop the flagged image.
    """
    if images["split"].dropna().nunique() < 2:
        raise Unavailable("the dataset has no splits")
    groups = Groups.of(near_duplicates, labels, images)
    score = pd.Series(1.0, index=near_duplicates.index)
    probability = pd.Series(0.0, index=near_duplicates.index)
    rows, fixes = [], {}
    for number, members in groups.several():
        splits = members["split"].dropna()
        if splits.nunique() < 2:
            continue
        kept = members.index[0]
        keep_rank = split_rank(members["split"].iloc[0])
        for member in members.loc[splits.index].itertuples():
            stays = split_rank(member.split) == keep_rank and member.split == members["split"].iloc[0]
            if stays:
                rows.append((member.Index, "To keep.", None, f"SPL001-{number}"))
                continue
            same_bytes = (members["digest"] == member.digest) & (members["split"] != member.split)
            other = same_bytes.index[same_bytes][0] if same_bytes.any() else kept
            score[member.Index] = 0.0 if same_bytes.any() else 0.1
            probability[member.Index] = 1.0 if same_bytes.any() else float("nan")
            how = "The same bytes as" if same_bytes.any() else "Nearly the same picture as"
            rows.append(
                (
                    member.Index,
                    f"{how} {other} in the split {members.at[other, 'split']!r}.",
                    other,
                    f"SPL001-{number}",
                )
            )
            fixes[member.Index] = Fix(
                op="drop", sample_id=member.Index, label_id=member.label_id, new=None,
                locator=locator_of(member.locator, member.Index), old=None if pd.isna(member.name) else member.name,
            )  # fmt: skip
    evidence = pd.DataFrame(rows, columns=["id", "message", "suggested", "group"]).set_index("id")
    flagged = pd.Series(score.index.isin(list(fixes)), index=score.index)
    return Outcome(score=score, flagged=flagged, probability=probability, evidence=evidence, fixes=fixes)
