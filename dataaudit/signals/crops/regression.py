"""Judging the place of boxes without a detector: what is learnt from the labeled boxes themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from dataaudit.errors import Unavailable
from dataaudit.signals.crops.dense import FIXED, Dense, dense
from dataaudit.types import CORNERS

if TYPE_CHECKING:
    from dataaudit.signals.crops.describing import Given
    from dataaudit.signals.crops.judging import Head
    from dataaudit.signals.feature_maps import FeatureMaps

__all__ = ["BoxJudge", "folds_of", "group_numbers", "learn", "usable"]

Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_FEWEST_BOXES = 20
_FEWEST_IMAGES = 10
_FOLDS = 5
_FEWEST_OF_CLASS = 20
_MOST_CLASSES = 16
_LEAST_SIDE = 1.0  # network pixels


@dataclass(frozen=True, kw_only=True, eq=False)
class BoxJudge:
    """Judges any box of the dataset's images, by what the labels of other images say.

    Attributes:
        ids: sample ids of the images that it knows.
        scales: (images, 4) network pixels per pixel, for each corner.
        sizes: (images, 2) network pixels.
        folds: (images,) fold of each image.
        channels: number of the channel of the classes that have one.
        labels: (m,) label ids of the boxes that it learnt from, in its order.
        given: those boxes.
        dense: held-out answers for the cells of the images.
        heads: one a fold.
    """

    ids: pd.Index
    scales: Doubles
    sizes: Doubles
    folds: Ints
    channels: dict[str, int]
    labels: pd.Index
    given: Given
    dense: Dense
    heads: list[Head]

    def judge(
        self,
        sample_ids: Sequence[str] | pd.Series[str] | pd.Index,
        names: Sequence[str] | pd.Series[str],
        corners: Doubles,
        labels: Sequence[str | None] | pd.Index | None = None,
    ) -> pd.DataFrame:
        """Judge boxes, labeled or not.

        Args:
            sample_ids: (n,) image of each box.
            names: (n,) class of each.
            corners: (n, 4) pixels.
            labels: (n,) id of the label that each box is or stands in place of, which then has no say in
                whether it is needed; None for a new box.

        Returns:
            RangeIndex (n,); columns ``x1``, ``y1``, ``x2``, ``y2``, where its object seems to be, in pixels;
            ``fit``, the expected IoU of the box with an object that no other label is for, ``fit_there``, the
            same of the box at that place, and ``spread``, how far several starts led apart, all in [0, 1].
            NaN where the box has no area in its image, or the image can't be read.
        """
        import torch

        from dataaudit.signals.crops.judging import judge, one_thread

        rows = self.ids.get_indexer(pd.Index(sample_ids))
        scaled = np.asarray(corners, dtype=np.float64).reshape(-1, 4) * np.where(
            rows[:, None] >= 0, self.scales[rows], np.nan
        )
        fine = _has_area(scaled, np.where(rows[:, None] >= 0, self.sizes[rows], np.nan))
        chosen = np.flatnonzero(fine)
        own = np.full(len(rows), -1) if labels is None else self.labels.get_indexer(pd.Index(labels))
        channels = pd.Series(list(names), dtype=object).map(self.channels).fillna(0).to_numpy(dtype=np.int64)
        with one_thread():
            found = judge(
                self.dense, self.given, self.heads, torch.from_numpy(self.folds),
                torch.from_numpy(self.sizes).float(), torch.from_numpy(rows[chosen]),
                torch.from_numpy(scaled[chosen]).float(), torch.from_numpy(channels[chosen]),
                torch.from_numpy(own[chosen]),
            )  # fmt: skip
        table = np.full((len(rows), 7), np.nan)
        table[chosen, :4] = found.corners.numpy() / self.scales[rows[chosen]]
        for column, values in enumerate((found.fit, found.fit_there, found.spread), start=4):
            table[chosen, column] = values.numpy()
        return pd.DataFrame(table, columns=[*CORNERS, "fit", "fit_there", "spread"])


def _has_area(corners: Doubles, sizes: Doubles) -> npt.NDArray[np.bool_]:
    """(n,) whether boxes, clipped to their images, have an area, all in network pixels."""
    with np.errstate(invalid="ignore"):
        low = np.clip(corners[:, :2], 0, sizes)
        high = np.clip(corners[:, 2:], 0, sizes)
        wide = high - low >= _LEAST_SIDE
    return np.asarray(wide.all(1), dtype=np.bool_)


def usable(objects: pd.DataFrame, maps: FeatureMaps) -> npt.NDArray[np.bool_]:
    """(n,) bool: the objects that are one thing with a class, in an image that can be read."""
    rows = maps.ids.get_indexer(pd.Index(objects["sample_id"]))
    scales, sizes = scales_of(maps)
    there = rows >= 0
    corners = objects[list(CORNERS)].to_numpy(dtype=np.float64)
    scaled = corners * np.where(there[:, None], scales[rows] if len(scales) else np.nan, np.nan)
    fine = _has_area(scaled, np.where(there[:, None], sizes[rows] if len(sizes) else np.nan, np.nan))
    left_out = objects["crowd"].to_numpy(dtype=bool) | objects["ignore"].to_numpy(dtype=bool)
    result: npt.NDArray[np.bool_] = there & fine & ~left_out & objects["name"].notna().to_numpy()
    return result


def scales_of(maps: FeatureMaps) -> tuple[Doubles, Doubles]:
    """(n, 4) network pixels per pixel for each corner, and (n, 2) sizes in network pixels, of each image."""
    from dataaudit.signals.feature_maps import network_size

    sizes = np.array(
        [network_size(width, height, maps.size) for width, height in maps.sizes.tolist()], dtype=np.float64
    ).reshape(-1, 2)
    scales = sizes / maps.sizes
    return np.concatenate([scales, scales], axis=1), sizes


def folds_of(groups: Ints, labeled: npt.NDArray[np.bool_]) -> Ints:
    """(n,) fold of each image; near-duplicates are in the same one, and each has its share of the labeled.

    Args:
        groups: (n,) number of the group of near-duplicates, from 0.
        labeled: (n,) whether the image has labels.
    """
    n_groups = int(groups.max(initial=-1)) + 1
    has_labels = np.bincount(groups[labeled], minlength=n_groups) > 0
    dealt = np.zeros(n_groups, dtype=np.int64)
    random = np.random.default_rng(0)
    for which in (has_labels, ~has_labels):
        members = random.permutation(np.flatnonzero(which))
        dealt[members] = np.arange(len(members)) % _FOLDS
    return dealt[groups]


def group_numbers(ids: pd.Index, near_duplicates: pd.Series[int]) -> Ints:
    """(n,) number from 0 of the group of near-duplicates of each image; one without a group is alone.

    >>> group_numbers(pd.Index(["a", "b", "c", "a"]), pd.Series({"b": 7, "c": 7})).tolist()
    [0, 1, 1, 0]
    """
    groups = near_duplicates.reindex(ids).to_numpy(dtype=np.float64)
    alone, _ = pd.factorize(ids)
    numbers, _ = pd.factorize(np.where(np.isnan(groups), -1.0 - alone, groups))
    return numbers.astype(np.int64)


def learn(objects: pd.DataFrame, maps: FeatureMaps, near_duplicates: pd.Series[int]) -> BoxJudge:
    """Learn from the labeled boxes what fits an object.

    Args:
        objects: every labeled object, in pixels.
        maps: of the images.
        near_duplicates: group of each image.

    Raises:
        Unavailable: too few boxes or images.
    """
    import torch

    from dataaudit.signals.crops.describing import Given
    from dataaudit.signals.crops.judging import fit_heads, one_thread
    from dataaudit.signals.crops.keeping import kept_judge, key_of

    chosen = objects[usable(objects, maps)]
    rows = maps.ids.get_indexer(pd.Index(chosen["sample_id"]))
    groups = group_numbers(maps.ids, near_duplicates)
    n_images = len(np.unique(groups[rows]))
    if len(chosen) < _FEWEST_BOXES or n_images < _FEWEST_IMAGES:
        raise Unavailable(
            f"there are {len(chosen)} usable boxes in {n_images} different images; what fits can be "
            f"learnt from {_FEWEST_BOXES} boxes in {_FEWEST_IMAGES} images"
        )
    order = np.argsort(rows, kind="stable")
    chosen, rows = chosen.iloc[order], rows[order]
    scales, sizes = scales_of(maps)
    low_high = np.clip(
        chosen[list(CORNERS)].to_numpy(dtype=np.float64) * scales[rows], 0, np.tile(sizes[rows], 2)
    )
    channels = _channels(chosen["name"])
    own = chosen["name"].map(channels).fillna(0).to_numpy(dtype=np.int64)
    folds = folds_of(groups, np.isin(np.arange(len(maps.ids)), rows))
    edges = np.searchsorted(rows, np.arange(len(maps.ids) + 1))
    spans = [slice(start, end) for start, end in pairwise(edges.tolist())]
    given = Given(
        images=torch.from_numpy(rows.astype(np.int64)),
        corners=torch.from_numpy(low_high).float(),
        channels=torch.from_numpy(own.copy()),
    )

    def learnt() -> tuple[Dense, list[Head]]:
        with one_thread():
            answers = dense(
                maps,
                [low_high[each] for each in spans],
                [np.asarray(own[each] - FIXED) for each in spans],
                folds,
                len(channels),
            )
            sides = torch.from_numpy(sizes).float()
            return answers, fit_heads(answers, given, sides, torch.from_numpy(folds))

    key = key_of(f"{maps.size} {list(channels)}", "".join(maps.digests), sizes, folds, rows, low_high, own)
    answers, heads = kept_judge(maps.workplace.cache, key, learnt)
    return BoxJudge(
        ids=maps.ids, scales=scales, sizes=sizes, folds=folds, channels=channels, labels=chosen.index,
        given=given, dense=answers, heads=heads,
    )  # fmt: skip


def _channels(names: pd.Series[Any]) -> dict[str, int]:
    """The channel of each common class; there is none of its own where all objects are of one class."""
    counts = names.value_counts()
    if len(counts) < 2:
        return {}
    common = counts[counts >= _FEWEST_OF_CLASS].index[:_MOST_CLASSES]
    return {str(name): FIXED + number for number, name in enumerate(sorted(common))}
