"""Folds that keep near-duplicates together and classes apart in equal shares."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

__all__ = ["folds_of"]

Ints = np.ndarray[Any, np.dtype[np.int64]]


def folds_of(given: Ints, groups: Ints, n_folds: int, *, seed: int = 0) -> Ints:
    """Deal groups of images over folds, each class by itself, the largest groups first.

    Args:
        given: (n,) class numbers.
        groups: (n,) group numbers; images of one group land in one fold. A group counts for the class that
            most of its images have.
        n_folds: how many folds, two at least.
        seed: of the order in which groups of one size are dealt.

    Returns:
        (n,) int64 fold numbers in [0, n_folds).

    >>> folds_of(np.array([0, 0, 0, 1, 1]), np.array([0, 0, 1, 2, 3]), 2).tolist()
    [0, 0, 1, 0, 1]
    """
    table = pd.DataFrame({"group": groups, "class": given})
    counts = table.value_counts(sort=False).rename("n").reset_index()
    counts = counts.sort_values(["group", "n", "class"], ascending=[True, False, True], kind="stable")
    main = counts.drop_duplicates("group").set_index("group")["class"]
    size = table["group"].value_counts().reindex(main.index)
    shuffled = np.random.default_rng(seed).permutation(len(main))
    order = np.lexsort((shuffled, -size.to_numpy(), main.to_numpy()))
    # Classes go on where the one before ended, so that small ones don't all lie in the first folds.
    fold = np.empty(len(main), dtype=np.int64)
    fold[order] = np.arange(len(main)) % n_folds
    return np.asarray(fold[main.index.get_indexer(pd.Index(groups))], dtype=np.int64)
