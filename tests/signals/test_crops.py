"""Judging labeled boxes from their pixels: what fits an object, where it is, and of which class."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image, ImageDraw

from dataaudit.decode import digest_of
from dataaudit.errors import Unavailable
from dataaudit.metrics import box_iou
from dataaudit.signals.crops import BoxJudge, box_judge, box_regressions, object_probs
from dataaudit.signals.crops.classes import crop_features
from dataaudit.signals.crops.dense import FIXED, Dense
from dataaudit.signals.crops.describing import Given, describe
from dataaudit.signals.crops.judging import iou
from dataaudit.signals.crops.regression import folds_of
from dataaudit.signals.feature_maps import FeatureMaps, feature_maps
from dataaudit.types import CORNERS, FLAGS, Workplace

SIDE = 160
HALF = SIDE // 2
WRONG = {"3.png:square": (-16, -16), "22.png:disc": (14, 18), "41.png:square": (18, -12)}
"""Boxes that are labeled beside their object, by pixels along x and y."""
NOWHERE = ("30.png:square", "43.png:disc")
"""Boxes of objects that aren't drawn."""


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> tuple[pd.DataFrame, pd.DataFrame, FeatureMaps]:
    """48 pictures of a yellow square, a blue disc or both, on noise: labels, true places, and maps."""
    root = tmp_path_factory.mktemp("scenes")
    rng = np.random.default_rng(0)
    rows, files = [], {}
    for number in range(48):
        image = Image.fromarray(rng.integers(60, 120, (SIDE, SIDE, 3), dtype=np.uint8))
        draw = ImageDraw.Draw(image)
        for name, left in (("square", 0), ("disc", HALF)):
            label = f"{number}.png:{name}"
            side = int(rng.integers(36, 56))
            x, y = left + int(rng.integers(0, HALF - side)), int(rng.integers(0, SIDE - side))
            box = (x, y, x + side, y + side)
            if number % 3 == (0 if name == "disc" else 1) and label not in NOWHERE:
                continue
            if label not in NOWHERE and name == "square":
                draw.rectangle(box, fill=(250, 230, 40))
            elif label not in NOWHERE:
                draw.ellipse(box, fill=(30, 60, 250))
            rows.append((label, f"{number}.png", name, *map(float, box)))
        file = root / f"{number}.png"
        image.save(file)
        files[file.name] = (str(file), SIDE, SIDE, digest_of(file.read_bytes()))
    images = pd.DataFrame.from_dict(files, orient="index", columns=["filepath", "width", "height", "digest"])
    truth = pd.DataFrame(rows, columns=["label_id", "sample_id", "name", *CORNERS]).set_index("label_id")
    truth = truth.assign(image_width=float(SIDE), image_height=float(SIDE), **dict.fromkeys(FLAGS, False))
    labeled = truth.copy()
    for label, (x, y) in WRONG.items():
        labeled.loc[label, list(CORNERS)] += [x, y, x, y]
    place = Workplace(cache=root / "cache", device="cpu")
    maps = feature_maps(images, pd.Series(dtype=str), place, size=SIDE * 2)
    return labeled, truth, maps


def alone(maps: FeatureMaps) -> pd.Series:
    """No image is another's near-duplicate."""
    return pd.Series(np.arange(len(maps.ids)), index=maps.ids)


@pytest.fixture(scope="module")
def judge(scenes: tuple[pd.DataFrame, pd.DataFrame, FeatureMaps]) -> BoxJudge:
    labeled, _, maps = scenes
    return box_judge(labeled, alone(maps), maps)


def test_misplaced_boxes_are_the_likeliest_to_be_misplaced_and_are_moved_to_their_objects(
    scenes: tuple[pd.DataFrame, pd.DataFrame, FeatureMaps], judge: BoxJudge
) -> None:
    labeled, truth, _ = scenes
    found = box_regressions(labeled, judge)
    wrong = list(WRONG)
    assert set(found["misplaced"].nlargest(3).index) == set(wrong)
    proposed, drawn = found.loc[wrong, list(CORNERS)], truth.loc[wrong, list(CORNERS)]
    given = labeled.loc[wrong, list(CORNERS)]
    assert (box_iou(given.to_numpy(), drawn.to_numpy()) < 0.6).all()
    assert (box_iou(proposed.to_numpy(), drawn.to_numpy()) > 0.75).all()


def test_boxes_on_nothing_are_the_likeliest_to_be_spurious(
    scenes: tuple[pd.DataFrame, pd.DataFrame, FeatureMaps], judge: BoxJudge
) -> None:
    found = box_regressions(scenes[0], judge)
    assert set(found["spurious"].nlargest(2).index) == set(NOWHERE)
    assert (found.loc[list(NOWHERE), "iou"] < 0.5).all()
    assert found["iou"].between(0, 1).all()


def test_any_box_can_be_judged_and_one_on_a_labeled_object_is_not_needed(
    scenes: tuple[pd.DataFrame, pd.DataFrame, FeatureMaps], judge: BoxJudge
) -> None:
    labeled = scenes[0].loc[["0.png:square"]]
    corners = labeled[list(CORNERS)].to_numpy()
    own = judge.judge(["0.png"], ["square"], corners, labels=labeled.index)
    second = judge.judge(["0.png"], ["square"], corners)
    assert own["fit"][0] > 0.6
    assert second["fit"][0] < own["fit"][0] - 0.2


def test_boxes_are_judged_alike_whatever_is_judged_beside_them(
    scenes: tuple[pd.DataFrame, pd.DataFrame, FeatureMaps], judge: BoxJudge
) -> None:
    labeled = scenes[0]
    every = judge.judge(
        labeled["sample_id"], labeled["name"], labeled[list(CORNERS)].to_numpy(), labeled.index
    )
    last = labeled.iloc[-1:]
    one = judge.judge(last["sample_id"], last["name"], last[list(CORNERS)].to_numpy(), last.index)
    np.testing.assert_allclose(one.to_numpy()[0], every.to_numpy()[-1], rtol=1e-4)


def test_what_cannot_be_judged_is_nan(
    scenes: tuple[pd.DataFrame, pd.DataFrame, FeatureMaps], judge: BoxJudge
) -> None:
    judged = judge.judge(
        ["0.png", "0.png", "0.png", "no.png"],
        ["square"] * 4,
        np.array(
            [[np.nan, 0, 9, 9], [50, 50, 40, 60], [SIDE + 5, 0, SIDE + 50, 40], [0, 0, 40, 40]], dtype=float
        ),
    )
    assert judged.isna().all(axis=None)
    labeled = scenes[0].copy()
    labeled.loc["0.png:square", "crowd"] = True
    labeled.loc["2.png:disc", "ignore"] = True
    found = box_regressions(labeled, judge)
    assert found.index.equals(labeled.index)
    assert found[found.isna().all(axis=1)].index.tolist() == ["0.png:square", "2.png:disc"]


def test_a_judge_that_is_kept_says_the_same(
    scenes: tuple[pd.DataFrame, pd.DataFrame, FeatureMaps], judge: BoxJudge
) -> None:
    labeled, _, maps = scenes
    again = box_judge(labeled, alone(maps), maps)
    pd.testing.assert_frame_equal(box_regressions(labeled, again), box_regressions(labeled, judge))
    fresh = replace_cache(maps)
    pd.testing.assert_frame_equal(
        box_regressions(labeled, box_judge(labeled, alone(maps), fresh)), box_regressions(labeled, judge)
    )


def replace_cache(maps: FeatureMaps) -> FeatureMaps:
    """The same maps, nothing of which is kept on disk."""
    return FeatureMaps(
        ids=maps.ids, filepaths=maps.filepaths, digests=maps.digests, sizes=maps.sizes, size=maps.size,
        workplace=replace(maps.workplace, cache=None), max_bytes=maps.max_bytes,
    )  # fmt: skip


def test_threads_are_as_they_were(judge: BoxJudge) -> None:
    before = torch.get_num_threads()
    judge.judge(["0.png"], ["square"], np.array([[10.0, 10, 50, 50]]))
    assert torch.get_num_threads() == before


def test_few_boxes_or_images_and_many_images_cannot_be_learnt_from(
    scenes: tuple[pd.DataFrame, pd.DataFrame, FeatureMaps],
) -> None:
    labeled, _, maps = scenes
    with pytest.raises(Unavailable, match="19 usable boxes"):
        box_judge(labeled.iloc[:19], alone(maps), maps)
    with pytest.raises(Unavailable, match="in 1 different images"):
        box_judge(labeled, alone(maps) * 0, replace(maps, digests=["same"] * len(maps.ids)))
    with pytest.raises(Unavailable, match=r"box_judge\.max_images = 47"):
        box_judge(labeled, alone(maps), maps, max_images=47)


@pytest.mark.parametrize("max_crops", [1000, 0], ids=["crops", "maps"])
def test_boxes_of_another_class_are_the_least_probable(
    scenes: tuple[pd.DataFrame, pd.DataFrame, FeatureMaps], max_crops: int
) -> None:
    labeled, _, maps = scenes
    swapped = ["5.png:square", "20.png:disc"]
    names = labeled["name"].copy()
    names[swapped] = ["disc", "square"]
    labeled = labeled.assign(name=names)
    found = object_probs(labeled, alone(maps), maps, maps.workplace, max_crops=max_crops)
    assert list(found.columns) == ["disc", "square"]
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)
    own = found.to_numpy()[np.arange(len(found)), found.columns.get_indexer(names)]
    drawn = pd.Series(own, index=found.index).drop(list(NOWHERE))
    assert set(drawn.nsmallest(2).index) == set(swapped)


def test_classes_are_not_judged_where_there_is_one_or_too_many_boxes(
    scenes: tuple[pd.DataFrame, pd.DataFrame, FeatureMaps],
) -> None:
    labeled, _, maps = scenes
    with pytest.raises(Unavailable, match="one class"):
        object_probs(labeled.assign(name="thing"), alone(maps), maps, maps.workplace)
    with pytest.raises(Unavailable, match=r"object_probs\.max_objects = 10"):
        object_probs(labeled, alone(maps), maps, maps.workplace, max_objects=10)


def test_kept_crops_are_those_that_are_made_anew(
    scenes: tuple[pd.DataFrame, pd.DataFrame, FeatureMaps], tmp_path: Path
) -> None:
    labeled, _, maps = scenes
    place = replace(maps.workplace, cache=tmp_path)
    first = crop_features(labeled.iloc[:6], maps, place)
    more = crop_features(labeled.iloc[3:9], maps, place)
    anew = crop_features(labeled.iloc[:9], maps, replace(maps.workplace, cache=None))
    np.testing.assert_array_equal(first, anew[:6])
    np.testing.assert_array_equal(more, anew[3:])
    file = tmp_path / "object-crops-lite0-v1.npz"
    file.write_bytes(file.read_bytes()[:1000])
    np.testing.assert_array_equal(crop_features(labeled.iloc[:3], maps, place), anew[:3])


def test_crowds_and_ignored_objects_have_no_class_probabilities(
    scenes: tuple[pd.DataFrame, pd.DataFrame, FeatureMaps],
) -> None:
    labeled, _, maps = scenes
    some = labeled.iloc[:24].copy()
    some.loc[some.index[0], "ignore"] = True
    some.loc[some.index[5], "crowd"] = True
    some.loc[some.index[9], "x1"] = np.nan
    found = object_probs(some, alone(maps), maps, maps.workplace, max_crops=0)
    assert found.index.equals(some.index)
    assert np.flatnonzero(found.isna().all(axis=1)).tolist() == [0, 5, 9]


def test_near_duplicates_share_a_fold_and_the_labeled_are_spread() -> None:
    groups = np.array([0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    labeled = np.array([True] * 6 + [False] * 5)
    folds = folds_of(groups, labeled)
    assert folds[0] == folds[1]
    assert sorted(folds[[0, 2, 3, 4, 5]].tolist()) == [0, 1, 2, 3, 4]


def test_a_box_and_its_mirror_image_are_described_alike() -> None:
    random = np.random.default_rng(0)
    maps = random.normal(size=(FIXED, 10, 10)).astype(np.float16)
    # Left and right change places, and so do what is said about them
    mirrored = maps[[0, 3, 2, 1, 4, 7, 6, 5, 8]][:, :, ::-1]
    given = Given(
        images=torch.tensor([0, 1]),
        corners=torch.tensor([[100.0, 20, 150, 90], [10.0, 20, 60, 90]]),
        channels=torch.tensor([0, 0]),
    )
    boxes = torch.tensor([[48.0, 32, 112, 96], [48.0, 32, 112, 96]])
    nothing = torch.tensor([-1, -1])
    upright, turned = describe(
        Dense(stride=16, maps=[maps, mirrored]), given, torch.tensor([0, 1]), boxes, torch.tensor([0, 0]),
        nothing,
    )  # fmt: skip
    np.testing.assert_allclose(upright[0], turned[1], atol=2e-3)
    np.testing.assert_allclose(upright[1], turned[0], atol=2e-3)


def test_overlap_of_boxes() -> None:
    a = torch.tensor([[0.0, 0, 2, 2], [0.0, 0, 1, 1]])
    b = torch.tensor([[1.0, 0, 3, 2], [5.0, 5, 6, 6]])
    np.testing.assert_allclose(iou(a, b), [1 / 3, 0])
