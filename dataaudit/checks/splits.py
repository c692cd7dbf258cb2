"""SPL: splits and leakage between them."""

from __future__ import annotations

import pandas as pd

from dataaudit.checks.groups import Groups, removal, rows_of
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
    rows: list[tuple[str, str, str | None, str]] = []
    fixes: dict[str, Fix] = {}
    for number, everyone in groups.several():
        members = everyone[everyone["split"].notna()]
        if members["split"].nunique() < 2:
            continue
        kept, stays = str(members.index[0]), members["split"].iloc[0]
        for member in rows_of(members):
            if member.split == stays:
                rows.append((member.Index, "To keep.", None, f"SPL001-{number}"))
                continue
            same_bytes = members.index[
                (members["digest"] == member.digest) & (members["split"] != member.split)
            ]
            other, exact = (str(same_bytes[0]), True) if len(same_bytes) else (kept, False)
            score[member.Index], probability[member.Index] = (0.0, 1.0) if exact else (0.1, float("nan"))
            how = "The same bytes as" if exact else "Nearly the same picture as"
            message = f"{how} {other} in the split {members.at[other, 'split']!r}."
            rows.append((member.Index, message, other, f"SPL001-{number}"))
            fixes[member.Index] = removal(member.Index, member.label_id, member.locator, member.name)
    evidence = pd.DataFrame(rows, columns=["id", "message", "suggested", "group"]).set_index("id")
    flagged = pd.Series(score.index.isin(list(fixes)), index=score.index)
    return Outcome(score=score, flagged=flagged, probability=probability, evidence=evidence, fixes=fixes)
