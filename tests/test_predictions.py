from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from dataaudit import formats, predictions
from dataaudit.errors import InputError
from dataaudit.formats._shared import ObjectRows
from dataaudit.types import CORNERS, Locator, Source, Tables

XY = list(CORNERS)


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    """Two images of 40 x 20 pixels, in a COCO dataset with the category ids 3 and 7."""
    folder = tmp_path / "data"
    (folder / "images").mkdir(parents=True)
    for name in ("1.png", "2.png"):
        Image.new("RGB", (40, 20), "grey").save(folder / "images" / name)
    (folder / "instances.json").write_text(
        json.dumps(
            {
                "images": [
                    {"id": 10, "file_name": "1.png", "width": 40, "height": 20},
                    {"id": 20, "file_name": "2.png", "width": 40, "height": 20},
                ],
                "annotations": [{"id": 1, "image_id": 10, "category_id": 7, "bbox": [1, 2, 3, 4]}],
                "categories": [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}],
            }
        )
    )
    return formats.read(folder)


def results(path: Path, *entries: dict[str, object]) -> Path:
    path.write_text(json.dumps(entries))
    return path


def test_coco_results_are_read_by_the_ids_of_the_dataset(tables: Tables, tmp_path: Path) -> None:
    entry = {"image_id": 20, "category_id": 3, "bbox": [1, 2, 10, 5], "score": 0.75}
    table, units = predictions.read(results(tmp_path / "found.json", entry), tables)
    assert units == "pixels"
    assert table.to_dict("records") == [
        {"sample_id": "images/2.png", "name": "cat", "confidence": 0.75, "x1": 1, "y1": 2, "x2": 11, "y2": 7}
    ]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"image_id": 30, "category_id": 3, "bbox": [1, 2, 10, 5], "score": 0.7}, "no image 30"),
        ({"image_id": 20, "category_id": 4, "bbox": [1, 2, 10, 5], "score": 0.7}, "no category 4"),
        ({"image_id": 20, "category_id": 3, "bbox": [1, 2, 10], "score": 0.7}, "are not 4 numbers"),
        ({"image_id": 20, "category_id": 3, "bbox": [1, 2, 10, "x"], "score": 0.7}, "are not 4 numbers"),
        ({"image_id": 20, "category_id": 3, "bbox": [1, 2, 10, 5]}, "no image_id, bbox or score"),
        ({"image_id": 20, "category_id": 3, "bbox": [1, 2, 10, 5], "score": 7}, "from 0 to 1"),
    ],
)
def test_a_result_that_cant_be_used_is_named(
    tables: Tables, tmp_path: Path, entry: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        predictions.read(results(tmp_path / "found.json", entry), tables)


def test_a_file_that_is_no_json_is_an_error(tables: Tables, tmp_path: Path) -> None:
    file = tmp_path / "found.json"
    file.write_text("[{")
    with pytest.raises(InputError, match="It isn't JSON"):
        predictions.read(file, tables)


@pytest.fixture
def numbered(tmp_path: Path) -> Tables:
    """The images a.jpg and b.jpg of a YOLO dataset with the classes cat and dog."""
    folder = tmp_path / "yolo"
    for name in ("a", "b"):
        for kind in ("images", "labels"):
            (folder / kind).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 20), "grey").save(folder / "images" / f"{name}.jpg")
        (folder / "labels" / f"{name}.txt").write_text("0 0.5 0.5 0.2 0.2\n1 0.3 0.5 0.2 0.2\n")
    (folder / "data.yaml").write_text("train: images\nnames: [cat, dog]\n")
    return formats.read(folder)


def test_yolo_text_files_are_read_with_their_confidence(numbered: Tables, tmp_path: Path) -> None:
    folder = tmp_path / "found"
    folder.mkdir()
    (folder / "b.txt").write_text("1 0.5 0.5 0.2 0.4 0.875\n\n")
    table, units = predictions.read(folder, numbered)
    assert units == "relative"
    assert table.round(9).to_dict("records") == [
        {"sample_id": "images/b.jpg", "name": "dog", "confidence": 0.875,
         "x1": 0.4, "y1": 0.3, "x2": 0.6, "y2": 0.7}
    ]  # fmt: skip


def test_yolo_text_files_without_confidence_say_how_to_get_it(numbered: Tables, tmp_path: Path) -> None:
    folder = tmp_path / "found"
    folder.mkdir()
    (folder / "b.txt").write_text("1 0.5 0.5 0.2 0.4\n")
    with pytest.raises(InputError, match=r"b\.txt:1: The line has 5 numbers.*\n?.*save_conf=True"):
        predictions.read(folder, numbered)


def test_a_folder_without_a_file_for_an_image_is_an_error(numbered: Tables, tmp_path: Path) -> None:
    folder = tmp_path / "found"
    folder.mkdir()
    with pytest.raises(InputError, match="holds no text file"):
        predictions.read(folder, numbered)
    (folder / "z.txt").write_text("1 0.5 0.5 0.2 0.4 0.5\n")
    with pytest.raises(InputError, match="No file is named like an image"):
        predictions.read(folder, numbered)


def test_a_table_is_in_the_units_of_the_dataset(numbered: Tables) -> None:
    row = {
        "sample_id": "images/a.jpg",
        "name": "cat",
        "confidence": 0.5,
        "x1": 0.1,
        "y1": 0,
        "x2": 0.2,
        "y2": 1,
    }
    table, units = predictions.read(pd.DataFrame([row]), numbered)
    assert units == "relative"
    assert table.to_dict("records") == [row]


def test_predictions_of_unknown_classes_are_left_out_but_not_all_of_them(numbered: Tables) -> None:
    row = {"sample_id": "images/a.jpg", "confidence": 0.5, "x1": 0.1, "y1": 0.0, "x2": 0.2, "y2": 1.0}
    both = pd.DataFrame([{**row, "name": "cat"}, {**row, "name": "zebra"}])
    assert predictions.read(both, numbered)[0]["name"].tolist() == ["cat"]
    with pytest.raises(InputError, match="No prediction is of a class of the dataset: they are of zebra"):
        predictions.read(both.iloc[1:], numbered)


def test_a_path_that_isnt_there_and_a_number_are_no_predictions(numbered: Tables) -> None:
    with pytest.raises(InputError, match="no such file or folder of predictions"):
        predictions.read("nowhere.json", numbered)
    with pytest.raises(InputError, match="The predictions are a int"):
        predictions.read(5, numbered)


# Models


def test_a_callable_gets_each_image_and_returns_rows_of_six(numbered: Tables) -> None:
    sizes = []

    def model(image: Image.Image) -> np.ndarray:
        sizes.append(image.size)
        return np.array([[4.0, 5, 10, 15, 0.9, 1]])

    table, units = predictions.read(model, numbered)
    assert (sizes, units) == ([(40, 20)] * 2, "pixels")
    assert table["name"].tolist() == ["dog", "dog"]
    assert table[XY].iloc[0].tolist() == [4, 5, 10, 15]


def test_results_in_the_manner_of_ultralytics_are_read(numbered: Tables) -> None:
    import torch

    def model(image: Image.Image) -> list[SimpleNamespace]:
        boxes = SimpleNamespace(
            xyxy=torch.tensor([[4.0, 5, 10, 15]]), conf=torch.tensor([0.5]), cls=torch.tensor([7.0])
        )
        return [SimpleNamespace(boxes=boxes, names={7: "cat"})]

    table, _ = predictions.read(model, numbered)
    assert table[["name", "confidence"]].values.tolist() == [["cat", 0.5]] * 2


def test_a_detector_of_torchvision_runs_as_it_is(numbered: Tables) -> None:
    import torch
    from torchvision.models.detection import ssdlite320_mobilenet_v3_large

    torch.manual_seed(0)
    model = ssdlite320_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=2, score_thresh=0.0
    )
    table, units = predictions.read(model, numbered)
    assert units == "pixels"
    assert set(table["name"]) == {"dog"}
    assert table["x2"].max() <= 40


def test_images_without_detections_are_fine(numbered: Tables) -> None:
    table, _ = predictions.read(lambda image: {"boxes": [], "scores": [], "labels": []}, numbered)
    assert len(table) == 0


def test_a_model_that_returns_something_else_or_fails_is_an_error(numbered: Tables) -> None:
    with pytest.raises(InputError, match=r"returned a ndarray of shape \(2, 3\) for an image"):
        predictions.read(lambda image: np.zeros((2, 3)), numbered)
    with pytest.raises(InputError, match="The model failed: ZeroDivisionError"):
        predictions.read(lambda image: 1 / 0, numbered)
    with pytest.raises(InputError, match="returned 1 boxes, 2 scores and 1 labels"):
        predictions.read(lambda image: {"boxes": [[0, 0, 1, 1]], "scores": [1, 1], "labels": [1]}, numbered)


def test_image_ids_that_are_numbers_find_stems_with_zeros() -> None:
    rows = ObjectRows()
    rows.image("val/000000000139.jpg", "/nowhere", Locator(file="a.txt"))
    tables = rows.tables(
        source=Source(format="kitti", root=Path("/nowhere"), path="/nowhere", anchor=Path("/nowhere")),
        classes=("cat",),
    )
    table = pd.DataFrame([{"sample_id": "val/000000000139.jpg", "name": "cat", "confidence": 1,
                           "x1": 0, "y1": 0, "x2": 1, "y2": 1}])  # fmt: skip
    assert predictions.read(table, tables)[1] == "pixels"
    assert predictions._image_ids(tables)["139"] == "val/000000000139.jpg"
