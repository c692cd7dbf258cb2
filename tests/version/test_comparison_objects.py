"""Versions of a detection dataset compared by a detector that is trained on each: the mean box of a class
around the brightest spot."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from dataaudit import version
from dataaudit.errors import InputError
from dataaudit.types import CORNERS, Tables
from dataaudit.version import store

XML = (
    "<annotation><filename>{name}.png</filename><object><name>spot</name><bndbox><xmin>{}</xmin>"
    "<ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object></annotation>"
)


def annotate(root: Path, number: int, centre: tuple[int, int], half: int) -> None:
    x, y = centre
    text = XML.format(x - half, y - half, x + half, y + half, name=number)
    (root / f"Annotations/{number}.xml").write_text(text)


def spotted(root: Path, *, n: int, split: bool) -> Path:
    """Squares of 16 pixels; in v1 two of three boxes are twice as wide, in v2 all are right."""
    random = np.random.default_rng(0)
    (root / "Annotations").mkdir(parents=True)
    (root / "JPEGImages").mkdir()
    centres = [(int(x), int(y)) for x, y in random.integers(20, 44, (n, 2))]
    for number, (x, y) in enumerate(centres):
        pixels = random.integers(0, 60, (64, 64), dtype=np.uint8)
        pixels[y - 8 : y + 8, x - 8 : x + 8] = 230
        Image.fromarray(pixels).save(root / f"JPEGImages/{number}.png")
        annotate(root, number, (x, y), 16 if number % 3 else 8)
    if split:
        (root / "ImageSets/Main").mkdir(parents=True)
        for name, numbers in (("test", range(0, n, 4)), ("train", (k for k in range(n) if k % 4))):
            (root / f"ImageSets/Main/{name}.txt").write_text("".join(f"{each}\n" for each in numbers))
    version.commit(root, message="as it came")
    for number, centre in enumerate(centres):
        annotate(root, number, centre, 8)
    version.commit(root, message="boxes put right")
    return root


@pytest.fixture(scope="module")
def spots(tmp_path_factory):
    return spotted(tmp_path_factory.mktemp("spots") / "spots", n=24, split=False)


def detector(tables: Tables) -> pd.DataFrame:
    """The mean size of the boxes of the other images, around the bright pixels of each image."""
    labels = tables.labels
    width = (labels["x2"] - labels["x1"]).to_numpy()
    rows = []
    for number, (sample_id, path) in enumerate(tables.images["filepath"].items()):
        y, x = np.nonzero(np.asarray(Image.open(path)) > 200)
        half = np.delete(width, number).mean() / 2
        x, y = x.mean() + 0.5, y.mean() + 0.5
        rows.append((sample_id, "spot", 1 - number / 100, x - half, y - half, x + half, y + half))
    return pd.DataFrame(rows, columns=["sample_id", "name", "confidence", *CORNERS])


def test_right_boxes_raise_the_average_precision_on_the_same_images(spots):
    found = version.compare(spots, ["v1", "v2"], detect=detector, progress=False)
    assert (found.held_out, found.newest) == ("24 images", "v2")
    first, second = found.table.to_dict(orient="records")
    assert (first["n_train"], first["n_objects"], first["n_test"]) == (24, 24, 24)
    assert second["map"] == pytest.approx(1.0) and second["own_map"] == second["map"]
    assert first["map"] < 0.3 and first["low"] <= first["map"] <= first["high"]
    assert second["difference_low"] > 0.5 and second["p_value"] < 0.01
    assert np.isnan(first["p_value"]) and first["difference"] == 0
    assert found.per_class.loc["spot"].tolist() == [24, first["map"], second["map"]]
    assert found.per_class_50.loc["spot", "v2"] == pytest.approx(1.0)
    assert found.changes()["spot"] == pytest.approx(second["difference"])
    json.dumps(found.to_dict(), allow_nan=False)


def test_the_text_says_against_whose_labels(spots):
    lines = version.compare(spots, ["v1", "v2"], detect=detector, progress=False).to_text().splitlines()
    assert lines[:2] == [
        "Baseline trained on each version, out of sample on 24 images",
        "mAP (IoU 0.5 to 0.95) and AP50 against the labels of v2",
    ]
    assert lines[4].startswith("  v2  mAP 100.00% [100.00%, 100.00%]  AP50 100.00% [100.00%, 100.00%]  +")
    assert lines[7] == "  v2  24 objects in 24 images; against its own labels mAP 100.00%, AP50 100.00%"
    assert lines[-2] == "Classes whose AP changed most from v1 to v2"
    assert lines[-1].endswith(" points  spot")


def test_the_figures_become_dvc_metrics_and_a_plot(spots, tmp_path):
    found = version.compare(spots, ["v1", "v2"], detect=detector, progress=False)
    with store.open_repo(spots.parent) as repo:
        shown = repo.metrics.show()[""]["data"][".dataaudit/spots/compare.json"]["data"]
    assert shown["versions"]["v2"]["map"] == pytest.approx(1.0)
    assert "y: map" in (spots.parent / ".dataaudit/spots/dvc.yaml").read_text()
    with Image.open(found.plot(tmp_path / "compare.png")) as picture:
        assert picture.size[0] > 1000


def test_the_test_split_is_looked_at_where_there_is_one(tmp_path):
    root = spotted(tmp_path / "spots", n=12, split=True)
    found = version.compare(root, ["v1", "v2"], detect=detector, progress=False)
    assert found.held_out == "3 images of the test split"
    assert found.table["n_test"].tolist() == [3, 3]


def nothing(tables: Tables) -> pd.DataFrame:
    return pd.DataFrame(columns=["sample_id", "name", "confidence", *CORNERS])


def test_a_version_without_objects_to_look_for_is_an_error(tmp_path):
    root = spotted(tmp_path / "spots", n=12, split=False)
    for file in (root / "Annotations").iterdir():
        file.write_text("<annotation></annotation>")
    version.commit(root, message="all gone")
    with pytest.raises(InputError, match="'v3' has no object on the 12 images"):
        version.compare(root, ["v2", "v3"], detect=nothing, progress=False)
