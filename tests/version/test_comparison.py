from __future__ import annotations

import json
import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from dataaudit import version
from dataaudit.errors import InputError, MissingDependencyError
from dataaudit.version import store
from dataaudit.version.comparison import compare_rows


def pixels(tables) -> pd.DataFrame:
    rows = [np.asarray(Image.open(path), dtype=np.float32).ravel() for path in tables.images["filepath"]]
    return pd.DataFrame(np.stack(rows), index=tables.images.index)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """400 real digits: v1 with every fifth label of the training split wrong, v2 put right."""
    root = tmp_path_factory.mktemp("digits") / "digits"
    data = load_digits()
    for number in range(400):
        split = "test" if number % 4 == 0 else "train"
        label = int(data.target[number])
        shown = (label + 3) % 10 if split == "train" and number % 5 == 0 else label
        folder = root / split / str(shown)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray((data.images[number] * 15).astype(np.uint8)).save(folder / f"{number}.png")
    version.commit(root, message="as it came")
    for number in range(400):
        if number % 4 and number % 5 == 0:
            label = int(data.target[number])
            path = root / "train" / str((label + 3) % 10) / f"{number}.png"
            path.rename(root / "train" / str(label) / path.name)
    version.commit(root, message="labels put right")
    return root


def test_right_labels_raise_the_accuracy_on_the_same_held_out_images(digits):
    found = version.compare(digits, ["v1", "v2"], embed=pixels)
    assert found.held_out == "100 images of the test split"
    assert found.newest == "v2"
    assert found.table["n_train"].tolist() == [300, 300]
    first, second = found.table.to_dict(orient="records")
    assert first["low"] < first["accuracy"] < first["high"]
    assert second["accuracy"] > first["accuracy"] and second["accuracy"] > 0.85
    assert second["difference"] == pytest.approx((second["gained"] - second["lost"]) / 100)
    assert 0 <= second["p_value"] <= 1 and np.isnan(first["p_value"])
    assert found.per_class["n"].sum() == 100
    assert "Baseline accuracy on 100 images of the test split" in found.to_text()
    json.dumps(found.to_dict(), allow_nan=False)


def test_the_figures_become_dvc_metrics_and_a_plot(digits):
    version.compare(digits, ["v1", "v2"], embed=pixels)
    with store.open_repo(digits.parent) as repo:
        shown = repo.metrics.show()[""]["data"][".dataaudit/digits/compare.json"]["data"]
        plots = repo.plots.show(targets=[str(digits.parent / ".dataaudit/digits/compare.csv")])
    assert shown["versions"]["v2"]["n_test"] == 100
    assert plots


def test_a_plot_is_drawn(digits, tmp_path):
    path = version.compare(digits, ["v1", "v2"], embed=pixels).plot(tmp_path / "compare.png")
    with Image.open(path) as picture:
        assert picture.size[0] > 1000


@pytest.mark.filterwarnings("default")  # of MLflow's own
def test_the_figures_go_to_mlflow_where_it_is_installed(digits, tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    import mlflow

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri((tmp_path / "runs").as_uri())
    found = version.compare(digits, ["v1", "v2"], embed=pixels, mlflow=True)
    (run,) = mlflow.search_runs(output_format="list")
    assert run.data.metrics["version/v2/accuracy"] == found.table.loc["v2", "accuracy"]
    assert run.data.params["versions"] == "v1 v2"
    assert {file.path for file in mlflow.MlflowClient().list_artifacts(run.info.run_id)} == {
        "compare.json", "compare.png",
    }  # fmt: skip
    assert mlflow.active_run() is None


def test_the_newest_version_is_the_truth_in_whatever_order_they_are_named(digits):
    assert version.compare(digits, ["v2", "v1"], embed=pixels).newest == "v2"


def table(*rows: tuple[str, str, str | None]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["digest", "name", "split"], dtype=object)


FEATURES = pd.DataFrame(
    np.repeat([[0.0], [1.0]], 10, axis=0) * np.ones(200), index=[f"{n:08x}" for n in range(20)]
)


def rows(split=lambda n: None) -> pd.DataFrame:
    return table(*[(f"{n:08x}", "a" if n < 10 else "b", split(n)) for n in range(20)])


@pytest.mark.parametrize(
    ("split", "words", "n_train"),
    [
        (
            lambda n: "test" if n % 4 == 0 else "val" if n % 4 == 1 else "train",
            "5 images of the test split",
            15,
        ),
        (lambda n: "Val" if n % 4 == 0 else "train", "5 images of the validation split", 15),
        (lambda n: None, "4 images, a fifth chosen by content", 16),
    ],
)
def test_images_are_held_out_by_split_and_else_by_content(split, words, n_train):
    found = compare_rows({"v1": rows(split), "v2": rows(split)}, FEATURES, newest="v2")
    assert (found.held_out, found.table["n_train"].tolist()) == (words, [n_train, n_train])
    assert found.table["accuracy"].tolist() == [1.0, 1.0]


def test_a_held_out_content_is_trained_on_in_no_version():
    older = rows(lambda n: "train")
    newer = rows(lambda n: "test" if n % 4 == 0 else "train")
    assert compare_rows({"v1": older, "v2": newer}, FEATURES, newest="v2").table["n_train"].tolist() == [
        15,
        15,
    ]


def test_near_duplicates_of_held_out_images_are_not_trained_on():
    groups = {"00000000": 1, "00000001": 1, "00000002": 1, "0000000b": 2, "0000000c": 3}
    found = compare_rows({"v1": rows(), "v2": rows()}, FEATURES, newest="v2", groups=groups)
    assert found.table["n_train"].tolist() == [14, 14]


def test_a_content_held_out_under_two_classes_is_not_scored():
    both = pd.concat([rows(), table(("00000000", "b", None))])
    assert compare_rows({"v1": both, "v2": both}, FEATURES, newest="v2").table["n_test"].tolist() == [3, 3]


def test_a_version_with_one_class_to_train_on_is_an_error():
    one = rows().assign(name="a")
    with pytest.raises(InputError, match="'v1' has 1 class"):
        compare_rows({"v1": one, "v2": rows()}, FEATURES, newest="v2")


def test_fewer_than_two_versions_are_an_error(digits):
    with pytest.raises(InputError, match="two or more"):
        version.compare(digits, ["v1"], embed=pixels)


def test_mlflow_that_is_not_installed_is_named_with_the_command(digits, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'dataaudit\[mlflow\]'"):
        version.compare(digits, ["v1", "v2"], embed=pixels, mlflow=True)
