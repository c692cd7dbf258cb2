from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from dataaudit import audit, decisions, inputs
from dataaudit.errors import InputError
from dataaudit.types import Decision, Fix, Locator, Tables

IDS = ["a/0.png", "a/1.png", "b/2.png"]


@pytest.fixture
def tables() -> Tables:
    names = ["a", "a", "b"]
    images = pd.DataFrame(
        {"filepath": IDS, "width": pd.NA, "height": pd.NA, "split": None, "digest": None}, IDS
    )
    labels = pd.DataFrame(
        {"sample_id": IDS, "name": names, "geometry": None, "locator": [Locator(file=i) for i in IDS]}, IDS
    )
    return Tables(images=images, labels=labels, classes=("a", "b"))


def test_several_models_are_joined_as_their_geometric_mean(tables: Tables) -> None:
    one = pd.DataFrame([[0.9, 0.1], [0.5, 0.5], [0.2, 0.8]], IDS, ["a", "b"])
    two = pd.DataFrame([[0.5, 0.5], [0.2, 0.8]], IDS[:2], ["a", "b"])
    joined, said = inputs.models({"x": one, "y": two}, tables)
    assert joined.index.tolist() == IDS[:2]
    assert joined.to_numpy() == pytest.approx(np.array([[0.75, 0.25], [1 / 3, 2 / 3]]), abs=1e-6)
    assert said.to_dict("list") == {"x": ["a", "a"], "y": ["a", "b"]}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_probabilities_are_checked_without_a_copy(tables: Tables, dtype: type) -> None:
    values = np.array([[0.9, 0.1], [0.5, 0.5], [0.2, 0.8]], dtype=dtype)
    table = pd.DataFrame(values, IDS, ["a", "b"], copy=False)
    for given in (values, table):
        checked = inputs.probabilities(given, tables)
        assert np.shares_memory(checked.to_numpy(), values)
        assert checked.index.tolist() == IDS


def test_probabilities_of_other_types_become_float32(tables: Tables) -> None:
    checked = inputs.probabilities(np.array([[1, 0], [1, 0], [0, 1]]), tables)
    assert checked.to_numpy().dtype == np.float32
    mixed = pd.DataFrame({"a": [0.9, 0.5, 0.2], "b": np.float32([0.1, 0.5, 0.8])}, IDS)
    checked = inputs.probabilities(mixed, tables)
    assert np.shares_memory(checked.to_numpy(), checked.to_numpy())
    with pytest.raises(InputError, match="something that is no number"):
        inputs.probabilities(pd.DataFrame({"a": ["x", 1, 0], "b": [0, 0, 1]}, IDS), tables)


def test_no_model_and_models_without_a_common_sample_are_errors(tables: Tables) -> None:
    with pytest.raises(InputError, match="empty collection"):
        inputs.models([], tables)
    one = pd.DataFrame([[0.9, 0.1]], IDS[:1], ["a", "b"])
    with pytest.raises(InputError, match="No sample has a row"):
        inputs.models([one, one.set_axis(IDS[1:2])], tables)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"sample_id": ["a/0.png"], "name": ["a"]}, "no column 'confidence'"),
        (
            {"sample_id": ["x.png"], "name": ["a"], "confidence": [0.5]},
            "sample_id 'x.png', which the dataset",
        ),
        ({"sample_id": ["a/0.png"], "name": ["c"], "confidence": [0.5]}, "name 'c', which the dataset"),
        (
            {"sample_id": ["a/0.png"], "name": ["a"], "confidence": [50]},
            "is 50; expected a number from 0 to 1",
        ),
        ({"sample_id": ["a/0.png"], "name": ["a"], "confidence": ["high"]}, "is 'high'; expected a number"),
    ],
)
def test_wrong_predictions_are_errors(tables: Tables, table: dict[str, list[object]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        inputs.predictions(pd.DataFrame(table), tables)


def test_dynamics_of_epochs_are_averaged(tables: Tables) -> None:
    table = pd.DataFrame(
        {"sample_id": ["a/0.png", "a/0.png", "other"], "epoch": [1, 2, 1], "loss": [3.0, 1.0, 9.0]}
    )
    assert inputs.training_dynamics(table, tables).to_dict() == {"loss": {"a/0.png": 2.0}}
    by_epoch = table.set_index(["sample_id", "epoch"])
    assert inputs.training_dynamics(by_epoch, tables).to_dict() == {"loss": {"a/0.png": 2.0}}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (pd.DataFrame({"area": [1.0]}, ["a/0.png"]), "expected 'margin', 'confidence' or 'loss'"),
        (pd.DataFrame({"loss": [1.0]}, ["x"]), "No row of the training dynamics has the id of a sample"),
    ],
)
def test_wrong_dynamics_are_errors(tables: Tables, table: pd.DataFrame, message: str) -> None:
    with pytest.raises(InputError, match=message):
        inputs.training_dynamics(table, tables)


def test_files_are_read_by_their_ending(tmp_path: Path) -> None:
    np.save(tmp_path / "p.npy", np.ones((2, 2)))
    (tmp_path / "p.csv").write_text("id,a,b\n007,0.5,0.5\n")
    pd.DataFrame({"id": ["007"], "a": [1.0]}).to_parquet(tmp_path / "p.parquet", index=False)
    assert inputs.read(tmp_path / "p.npy").shape == (2, 2)
    assert inputs.read(tmp_path / "p.csv").loc["007"].tolist() == [0.5, 0.5]
    assert inputs.read(tmp_path / "p.parquet").loc["007", "a"] == 1
    assert list(inputs.read(tmp_path / "p.csv", indexed=False)) == ["id", "a", "b"]


@pytest.mark.parametrize("name", ["gone.npy", "bad.npy", "p.xlsx"])
def test_files_that_cant_be_read_are_errors_that_name_them(tmp_path: Path, name: str) -> None:
    if name != "gone.npy":
        (tmp_path / name).write_text("no numbers")
    with pytest.raises(InputError) as caught:
        inputs.read(tmp_path / name)
    assert name in str(caught.value)


def test_verdicts_are_those_on_labels_that_were_not_skipped() -> None:
    fix = Fix(op="relabel", sample_id="y", label_id="y", locator=Locator(file="y"), old="b", new="a")
    decided = {
        "1": Decision(finding="1", verdict="keep", code="LBL001", item_id="x", given="a", digest="d"),
        "2": Decision(finding="2", verdict="accept", fix=fix, code="LBL001", item_id="y", given="b"),
        "3": Decision(finding="3", verdict="skip", code="LBL001", item_id="z", given="b"),
        "4": Decision(finding="4", verdict="keep", code="DUP001", item_id="w", given="b"),
        "5": Decision(finding="5", verdict="keep"),
    }
    found = inputs.verdicts(decided)
    assert found is not None
    assert found.replace({np.nan: None}).to_dict("index") == {
        "x": {"given": "a", "wrong": False, "chosen": "a", "digest": "d"},
        "y": {"given": "b", "wrong": True, "chosen": "a", "digest": None},
    }
    assert inputs.verdicts({}) is None


def test_an_audit_of_probabilities_reads_no_network_and_takes_all_that_the_user_has(tmp_path: Path) -> None:
    n = 60
    names = [f"{'ab'[i % 2]}{i}.png" for i in range(n)]
    for i, name in enumerate(names):
        Image.new("RGB", (8, 8), (i, 0, 0)).save(tmp_path / name)
    given = ["ab"[i % 2] for i in range(n)]
    given[0] = "b"
    rng = np.random.default_rng(0)
    right = rng.uniform(0.8, 0.99, n)
    values = np.where(np.arange(n)[:, None] % 2 == [0, 1], right[:, None], 1 - right[:, None])
    images = pd.DataFrame(
        {"filepath": [str(tmp_path / i) for i in names], "width": pd.NA, "height": pd.NA, "split": None,
         "digest": None}, names,
    )  # fmt: skip
    labels = pd.DataFrame(
        {"sample_id": names, "name": given, "geometry": None, "locator": [Locator(file=i) for i in names]},
        names,
    )
    report = audit(
        Tables(images=images, labels=labels, classes=("a", "b")),
        select=["LBL001"],
        pred_probs={"big": values, "small": values},
        predictions=pd.DataFrame({"sample_id": names[:1], "name": ["a"], "confidence": [0.97]}),
        training_dynamics=pd.DataFrame({"margin": [-5.0, *[4.0] * (n - 1)]}, names),
        progress=False,
    )
    assert [finding.item_id for finding in report.items] == ["a0.png"]
    assert "2 of 2 models say 'a'; in training it fared worse than" in report.items[0].message
    assert report.params["given"] == ["model_predictions", "pred_probs", "predictions", "training_dynamics"]
    assert "embeddings" not in report.timings


def test_a_label_that_a_person_kept_is_not_asked_about_again(tmp_path: Path) -> None:
    for i in range(40):
        name = tmp_path / "photos" / ("b" if i == 0 else "ab"[i % 2]) / f"{i:02d}.png"
        name.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (i, 0, 0)).save(name)
    ids = sorted(str(path.relative_to(tmp_path / "photos")) for path in (tmp_path / "photos").glob("*/*.png"))
    sure = pd.DataFrame(
        [[0.95, 0.05] if int(i[2:4]) % 2 == 0 else [0.05, 0.95] for i in ids], ids, ["a", "b"]
    )
    report = audit(tmp_path / "photos", select=["LBL001"], pred_probs=sure, progress=False)
    assert [finding.item_id for finding in report.items] == ["b/00.png"]
    answers = tmp_path / "answers.csv"
    answers.write_text("finding,verdict\nLBL001:b/00.png,keep\n")
    assert report.tables.source is not None
    decisions.record(report.tables.source, decisions.read(answers, report))
    again = audit(tmp_path / "photos", select=["LBL001"], pred_probs=sure, progress=False)
    assert not again.items
    assert again.outcomes["LBL001"].probability["b/00.png"] == 0
