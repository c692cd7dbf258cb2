"""Groups of near-duplicates for folds, where the images are frames of a film."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

__all__ = ["cut_films"]

_LARGEST, _LARGEST_NUMBER = 0.2, 4
_RUN, _SHORTEST_RUN = 0.1, 2
_NUMBERS = re.compile(r"(\d+)")


def cut_films(near_duplicates: pd.Series[int], digests: pd.Series[str]) -> pd.Series[int]:
    """Groups of near-duplicates, a large one cut into runs of images that follow each other by name.

    The frames of a film resemble each other one by one, so that the whole film is one group, and nothing
    would be left to learn from when it is held out. Cut into runs, only the frames at their ends have a
    neighbour elsewhere. Files of the same bytes stay together.

    Args:
        near_duplicates: group of each image; index: sample ids.
        digests: MD5 of the files; index: sample ids.

    Returns:
        Group of each image, with the same index. A group is cut that holds more than a fifth of the images
        and more than four; a run is a tenth of the images long at most.

    Reference: Burman, Chow and Nolan, "A Cross-Validatory Method for Dependent Data", Biometrika 1994, for
    blocks.

    >>> films = pd.Series(0, index=[f"{number}.png" for number in range(40)])
    >>> cut_films(films, pd.Series(films.index, index=films.index)).value_counts().tolist()
    [4, 4, 4, 4, 4, 4, 4, 4, 4, 4]
    """
    most = max(_LARGEST * len(near_duplicates), _LARGEST_NUMBER)
    longest = max(int(_RUN * len(near_duplicates)), _SHORTEST_RUN)
    large = near_duplicates.value_counts().loc[lambda counts: counts > most].index
    cut = near_duplicates.copy()
    new = int(cut.max()) + 1 if len(cut) else 0
    for group in sorted(large):
        ids = near_duplicates.index[near_duplicates == group]
        content = digests.reindex(ids).fillna(pd.Series(ids, index=ids).astype(str))
        order = sorted(ids, key=_natural)
        # Equal files count as one, which stands where the first of them does
        numbers, contents = pd.factorize(content.loc[order])
        n_runs = -(-len(contents) // longest)
        runs = np.arange(len(contents)) * n_runs // max(len(contents), 1)
        cut.loc[order] = new + runs[numbers]
        new += n_runs
    return cut


def _natural(name: str) -> list[tuple[int, int, str]]:
    """Key by which 9.png stands before 10.png."""
    return [
        (0, int(part), "") if part.isdigit() else (1, 0, part) for part in _NUMBERS.split(str(name)) if part
    ]
