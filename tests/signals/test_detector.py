"""The detection baseline: what it finds in drawn scenes, and what it leaves out."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image, ImageDraw

from dataaudit.decode import digest_of
from dataaudit.errors import InputError, Unavailable
from dataaudit.metrics import box_iou
from dataaudit.signals.detector import Scene, detections
from dataaudit.signals.detector.calibration import calibrated, matched
from dataaudit.signals.detector.decoding import decoded
from dataaudit.signals.detector.pictures import Batch, level_of, strides_for
from dataaudit.signals.detector.training import generalized_iou, targets
from dataaudit.signals.feature_maps import FeatureMaps, feature_maps
from dataaudit.types import CORNERS, FLAGS, Workplace

SIDE = 128


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> tuple[pd.DataFrame, FeatureMaps]:
    """36 pictures of a yellow square or a blue disc, or both, on noise; and their maps."""
    root = tmp_path_factory.mktemp("scenes")
    rng = np.random.default_rng(0)
    rows, files = [], {}
    for number in range(36):
        image = Image.fromarray(rng.integers(60, 120, (SIDE, SIDE, 3), dtype=np.uint8))
        draw = ImageDraw.Draw(image)
        for name, left in (("square", 0), ("disc", SIDE // 2)):
            if number % 3 == (0 if name == "square" else 1):
                continue
            side = int(rng.integers(36, 56))
            x, y = left + int(rng.integers(0, 64 - side)), int(rng.integers(0, SIDE - side))
            box = (x, y, x + side, y + side)
            if name == "square":
                draw.rectangle(box, fill=(250, 230, 40))
            else:
                draw.ellipse(box, fill=(30, 60, 250))
            rows.append((f"{number}.png:{name}", f"{number}.png", name, *map(float, box)))
        file = root / f"{number}.png"
        image.save(file)
        files[file.name] = (str(file), SIDE, SIDE, digest_of(file.read_bytes()))
    images = pd.DataFrame.from_dict(files, orient="index", columns=["filepath", "width", "height", "digest"])
    objects = pd.DataFrame(rows, columns=["label_id", "sample_id", "name", *CORNERS]).set_index("label_id")
    objects = objects.assign(**dict.fromkeys(FLAGS, False))
    place = Workplace(cache=root / "cache", device="cpu")
    return objects, feature_maps(images, pd.Series(dtype=str), place, size=SIDE)


def found_in(objects: pd.DataFrame, maps: FeatureMaps, **settings: int) -> pd.DataFrame:
    groups = pd.Series(np.arange(len(maps.ids)), index=maps.ids)
    return detections(objects, groups, maps, Workplace(device="cpu"), **{"folds": 3, **settings})


@pytest.fixture(scope="module")
def found(scenes: tuple[pd.DataFrame, FeatureMaps]) -> pd.DataFrame:
    """Detections where the square of the second picture has no box."""
    objects, maps = scenes
    return found_in(objects.drop("1.png:square"), maps)


def test_objects_are_found_in_pictures_that_the_model_did_not_see(
    scenes: tuple[pd.DataFrame, FeatureMaps], found: pd.DataFrame
) -> None:
    objects, _ = scenes
    best = found.groupby(["sample_id", "name"]).head(1).set_index(["sample_id", "name"])
    there = best.reindex(pd.MultiIndex.from_frame(objects[["sample_id", "name"]]))
    overlap = box_iou(there[list(CORNERS)].to_numpy(), objects[list(CORNERS)].to_numpy())
    assert np.mean(np.nan_to_num(overlap) >= 0.5) >= 0.9
    assert there["confidence"].median() >= 0.7


def test_an_object_without_a_box_is_found(found: pd.DataFrame) -> None:
    first = found[(found["sample_id"] == "1.png") & (found["name"] == "square")].iloc[0]
    assert first["confidence"] >= 0.5


def test_where_there_is_no_object_confidence_is_low(found: pd.DataFrame) -> None:
    absent = found[(found["sample_id"] == "0.png") & (found["name"] == "square")]
    assert absent["confidence"].max() < 0.3


def test_detections_are_a_table_with_boxes_inside_the_images(found: pd.DataFrame) -> None:
    assert list(found.columns) == ["sample_id", "name", "confidence", *CORNERS]
    assert found["confidence"].between(0, 1).all()
    boxes = found[list(CORNERS)].to_numpy()
    assert boxes.min() >= 0
    assert boxes.max() <= SIDE


def test_the_same_data_give_the_same_detections(scenes: tuple[pd.DataFrame, FeatureMaps]) -> None:
    objects, maps = scenes
    once, again = (found_in(objects, maps, epochs=1) for _ in range(2))
    pd.testing.assert_frame_equal(once, again)


@pytest.mark.parametrize("flag", ["crowd", "ignore"])
def test_what_is_ignored_is_not_learnt(scenes: tuple[pd.DataFrame, FeatureMaps], flag: str) -> None:
    objects, maps = scenes
    groups = pd.Series(np.arange(len(maps.ids)), index=maps.ids)
    scene = Scene.of(objects.assign(**{flag: objects["name"] == "disc"}), groups, maps.ids, folds=3, seed=0)
    assert scene.classes == ("square",)
    assert (scene.weights == 0).sum() == (objects["name"] == "disc").sum()


def test_boxes_that_cannot_be_used_are_left_out(scenes: tuple[pd.DataFrame, FeatureMaps]) -> None:
    objects, maps = scenes
    bad = objects.copy()
    bad.iloc[0, bad.columns.get_loc("x1")] = np.nan
    bad.iloc[1, bad.columns.get_loc("x2")] = bad.iloc[1]["x1"]
    bad.iloc[2, bad.columns.get_loc("x2")] = bad.iloc[2]["x1"] - 9
    bad.iloc[3, bad.columns.get_loc("sample_id")] = "unreadable.png"
    groups = pd.Series(np.arange(len(maps.ids)), index=maps.ids)
    assert len(Scene.of(bad, groups, maps.ids, folds=3, seed=0).boxes) == len(objects) - 4


def test_copies_of_a_picture_are_in_one_fold(scenes: tuple[pd.DataFrame, FeatureMaps]) -> None:
    objects, maps = scenes
    groups = pd.Series(np.arange(len(maps.ids)) // 4, index=maps.ids)
    folds = Scene.of(objects, groups, maps.ids, folds=3, seed=0).folds.reshape(-1, 4)
    assert (folds == folds[:, :1]).all()
    assert set(folds[:, 0]) == {0, 1, 2}


def test_too_few_objects_are_said(scenes: tuple[pd.DataFrame, FeatureMaps]) -> None:
    objects, maps = scenes
    with pytest.raises(Unavailable, match="there are 19 objects with a valid box; from 20 on"):
        found_in(objects.iloc[:19], maps)


def test_too_few_pictures_are_said(scenes: tuple[pd.DataFrame, FeatureMaps]) -> None:
    objects, maps = scenes
    with pytest.raises(Unavailable, match="2 different images are too few for 3 folds"):
        one = pd.Series(np.arange(len(maps.ids)) % 2, index=maps.ids)
        Scene.of(objects, one, maps.ids, folds=3, seed=0)


def test_too_many_images_are_said_with_the_setting(scenes: tuple[pd.DataFrame, FeatureMaps]) -> None:
    objects, maps = scenes
    with pytest.raises(Unavailable, match=r"detections\.max_images = 36"):
        found_in(objects, maps, max_images=10)


def test_one_fold_is_refused(scenes: tuple[pd.DataFrame, FeatureMaps]) -> None:
    objects, maps = scenes
    with pytest.raises(InputError, match="folds is 1; expected 2 at least"):
        found_in(objects, maps, folds=1)


def batch_of(
    box: tuple[float, ...], *, ignored: tuple[float, ...] = (0, 0, 0, 0), weight: float = 1.0
) -> Batch:
    """One picture of 32 x 64 network pixels with one object."""
    return Batch(
        maps=(),
        boxes=torch.tensor([[box]], dtype=torch.float32),
        classes=torch.tensor([[1]]),
        weights=torch.tensor([[weight]]),
        exist=torch.tensor([[True]]),
        ignored=torch.tensor([[ignored]], dtype=torch.float32),
        sizes=torch.tensor([[32, 64]]),
    )


CENTRES = torch.tensor([[8.0, 8.0], [24.0, 8.0], [40.0, 8.0], [72.0, 8.0]])
STRIDES = torch.full((4,), 16.0)


def test_a_cell_in_the_middle_of_an_object_says_so() -> None:
    wanted = targets(CENTRES, STRIDES, batch_of((16, 0, 32, 16)), 2)
    assert wanted.classes[0, :, 1].tolist() == [0, 1, 0, 0]
    assert wanted.classes[0, :, 0].tolist() == [0, 0, 0, 0]
    assert wanted.boxes[0, 1].tolist() == [16, 0, 32, 16]


def test_cells_outside_the_picture_do_not_count() -> None:
    assert targets(CENTRES, STRIDES, batch_of((16, 0, 32, 16)), 2).counted[0].tolist() == [1, 1, 1, 0]


def test_cells_in_an_ignored_region_do_not_count_but_in_an_object() -> None:
    wanted = targets(CENTRES, STRIDES, batch_of((16, 0, 32, 16), ignored=(16, 0, 64, 32)), 2)
    assert wanted.counted[0].tolist() == [1, 1, 0, 0]


def test_a_tiny_object_between_cells_has_one_cell() -> None:
    assert targets(CENTRES, STRIDES, batch_of((29, 5, 31, 7)), 2).placed[0].tolist() == [0, 1, 0, 0]


def test_a_difficult_object_counts_less() -> None:
    wanted = targets(CENTRES, STRIDES, batch_of((16, 0, 32, 16), weight=0.5), 2)
    assert wanted.placed[0, 1].item() == wanted.counted[0, 1].item() == 0.5


def test_generalized_iou_of_boxes_apart_is_negative() -> None:
    a, b = torch.tensor([0.0, 0.0, 1.0, 1.0]), torch.tensor([3.0, 0.0, 4.0, 1.0])
    assert generalized_iou(a, a).item() == 1.0
    assert generalized_iou(a, b).item() == -0.5


def test_weaker_boxes_on_an_object_fade() -> None:
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 14.0], [30.0, 0.0, 40.0, 10.0]])
    seen = decoded(torch.tensor([[0.9], [0.8], [0.6]]), boxes)
    assert seen.scores[:2].tolist() == pytest.approx([0.9, 0.6])
    assert seen.scores[2] < 0.2


def test_each_label_has_one_detection_at_most() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 9], [50, 0, 60, 10], [0, 0, 10, 10]], dtype=float)
    right = matched(np.array([0, 0, 0, 1]), boxes, np.array([0.5, 0.9, 0.9, 0.9]), np.array([0]), boxes[:1])
    assert right.tolist() == [False, True, False, False]


def test_calibrated_scores_keep_their_order_and_come_true() -> None:
    rng = np.random.default_rng(0)
    truth = rng.random(4000)
    right = rng.random(4000) < truth
    chances = calibrated(truth**3, right, np.ones(4000, dtype=bool))
    assert (np.diff(chances[np.argsort(truth)]) >= 0).all()
    assert abs(chances.mean() - right.mean()) < 0.02
    sure = chances > 0.8
    assert abs(chances[sure].mean() - right[sure].mean()) < 0.05


def test_without_detections_nothing_is_calibrated() -> None:
    assert calibrated(np.array([]), np.array([], dtype=bool), np.array([], dtype=bool)).tolist() == []


@pytest.mark.parametrize(
    ("sides", "strides"),
    [([400.0, 300.0], (32,)), ([400.0, 60.0], (16, 32)), ([400.0, 12.0, 12.0], (8, 16, 32))],
)
def test_small_objects_need_finer_strides(sides: list[float], strides: tuple[int, ...]) -> None:
    assert strides_for(np.array(sides)) == strides


def test_an_object_is_learnt_at_the_coarsest_stride_that_it_covers() -> None:
    assert level_of(torch.tensor([10.0, 100.0, 200.0]), (8, 16, 32)).tolist() == [8, 16, 32]
