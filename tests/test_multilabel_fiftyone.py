"""Multi-label datasets in FiftyOne: read, shown, changed in place, and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from databases import fiftyone

from dataaudit import fix, formats, review, tables
from dataaudit.errors import ConflictError, InputError
from dataaudit.types import Finding, Fix, Outcome, Report, Tables

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    fo = fiftyone()
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    made = fo.Dataset()
    samples = [fo.Sample(filepath=str(tmp_path / f"{n}.jpg"), tags=["train"]) for n in range(4)]
    for sample, names in zip(samples, [["cat", "dog"], ["dog"], [], None], strict=True):
        labels = [fo.Classification(label=name, confidence=0.5) for name in names or ()]
        sample["tags_of"] = None if names is None else fo.Classifications(classifications=labels)
    made.add_samples(samples, progress=False)
    yield made
    made.delete()


def report_of(found: Tables, *changes: tuple[int, str, str | None, str | None]) -> Report:
    """A report whose findings change the samples of these numbers."""
    items = []
    for key, (number, op, old, new) in enumerate(changes):
        sample = found.images.index[number]
        own = found.labels[found.labels["sample_id"] == sample]
        item = f"{sample}:{old or new}"
        edit = Fix(
            op=op, sample_id=sample, label_id=item, locator=own["locator"].iloc[0], old=old, new=new
        )  # fmt: skip
        items.append(
            Finding(
                key=str(key), code="LBL003", item_id=item, sample_id=sample, score=0.1, probability=0.9,
                message="", fix=edit,
            )
        )  # fmt: skip
    index = pd.Index([item.item_id for item in items])
    outcome = Outcome(
        score=pd.Series(0.1, index=index),
        flagged=pd.Series(True, index=index),
        evidence=pd.DataFrame({"sample_id": [item.sample_id for item in items]}, index=index),
    )
    return Report(
        digest="", params={}, outcomes={"LBL003": outcome}, items=tuple(items), skipped={}, timings={},
        tables=found,
    )  # fmt: skip


def labels(dataset: Any, field: str = "tags_of") -> list[list[str] | None]:
    dataset.reload()
    return dataset.values(f"{field}.classifications.label")


def documents(dataset: Any) -> list[Any]:
    return [each.get("tags_of") for each in dataset._sample_collection.find().sort("_id")]


def test_a_field_of_classifications_is_a_set_for_each_sample(dataset: Any) -> None:
    found = formats.read(dataset.name)
    assert found.task == "multilabel"
    ids = dataset.values("id")
    assert found.labels["sample_id"].tolist() == [ids[0], ids[0], *ids[1:]]
    assert found.labels["name"].tolist() == ["cat", "dog", "dog", None, None]
    assert found.images["split"].tolist() == ["train"] * 4
    first = dataset.first().tags_of.classifications[0].id
    assert str(found.labels["locator"].iloc[0]) == f"{ids[0]}:{first}:tags_of"


def test_labels_come_and_go_in_place_and_the_undo_brings_all_of_it_back(dataset: Any) -> None:
    before = documents(dataset)
    report = report_of(
        formats.read(dataset.name),
        (0, "remove", "cat", None), (0, "add", None, "cow"), (1, "relabel", "dog", "fox"),
        (3, "add", None, "cat"),
    )  # fmt: skip
    plan = fix.plan(report, min_probability=0.5)
    assert len(plan) == 4
    fix.apply(plan)
    assert labels(dataset) == [["dog", "cow"], ["fox"], [], ["cat"]]
    assert dataset.values("tags_of.classifications.confidence")[:2] == [[0.5, None], [0.5]]
    kept = documents(dataset)[0]["classifications"][0]
    assert kept == before[0]["classifications"][1]
    fix.undo(plan.source)
    assert documents(dataset) == before


def test_a_sample_is_dropped_with_all_its_labels(dataset: Any) -> None:
    report = report_of(formats.read(dataset.name), (0, "drop", "cat, dog", None), (0, "add", None, "cow"))
    plan = fix.plan(report, min_probability=0.5)
    assert [item.fix.op for item in plan.items] == ["drop"]
    fix.apply(plan)
    assert labels(dataset) == [["dog"], [], None]
    fix.undo(plan.source)
    assert sorted(map(str, labels(dataset))) == sorted(map(str, [["cat", "dog"], ["dog"], [], None]))


def test_labels_that_changed_since_stop_the_whole_plan(dataset: Any) -> None:
    report = report_of(formats.read(dataset.name), (0, "remove", "cat", None), (1, "add", None, "cow"))
    plan = fix.plan(report, min_probability=0.5)
    sample = dataset.first()
    sample.tags_of.classifications.pop(0)
    sample.save()
    with pytest.raises(ConflictError, match="are 'dog'; expected 'cat'"):
        fix.apply(plan)
    assert labels(dataset)[1] == ["dog"]


def test_several_fields_need_a_name(dataset: Any) -> None:
    dataset.add_sample_field("other", fiftyone().StringField)
    assert formats.read(dataset.name).source.options == {"label_field": "tags_of"}
    dataset.clone_sample_field("tags_of", "again")
    with pytest.raises(InputError, match="2 Classification fields: again, tags_of"):
        formats.read(dataset.name)


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    for name in "abc":
        (tmp_path / "photos" / f"{name}.jpg").write_bytes(name.encode())
    file = tmp_path / "photos" / "labels.csv"
    file.write_text("filepath,label\na.jpg,cat;dog\nb.jpg,\nc.jpg,dog\n")
    return file


def test_a_manifest_becomes_a_dataset_and_its_changes_follow(manifest: Path) -> None:
    fo = fiftyone()
    options = {"separator": ";"}
    dataset = tables.write(formats.read(manifest, options=options))
    try:
        assert labels(dataset, "ground_truth") == [["cat", "dog"], [], ["dog"]]
        dataset.match({"dataaudit_id": "a.jpg"}).tag_labels("mine", label_fields="ground_truth")
        manifest.write_text("filepath,label\na.jpg,dog;fox\nb.jpg,cat\nc.jpg,dog\n")
        dataset = tables.write(formats.read(manifest, options=options))
        assert labels(dataset, "ground_truth") == [["dog", "fox"], ["cat"], ["dog"]]
        assert dataset.values("ground_truth.classifications.tags")[0] == [["mine"], []]
        back = tables.read(dataset)
        assert list(back.labels.index) == ["a.jpg:dog", "a.jpg:fox", "b.jpg:cat", "c.jpg:dog"]
        assert [str(place) for place in back.labels["locator"]][:3] == [
            "labels.csv:2:label", "labels.csv:2:label", "labels.csv:3:label",
        ]  # fmt: skip
        assert back.task == "multilabel"
        single = tables.write(formats.read(manifest, options={"multilabel": "no"}))
        assert single.values("ground_truth.label") == ["dog;fox", "cat", "dog"]
    finally:
        fo.delete_dataset(dataset.name)


def test_findings_name_the_classes_that_are_missing(manifest: Path) -> None:
    found = formats.read(manifest, options={"separator": ";"})
    dataset = review.push(report_of(found, (1, "add", None, "cat"), (1, "add", None, "dog")))
    try:
        assert dataset.values("LBL003_labels") == [None, "cat, dog", None]
        assert dataset.values("LBL003_score") == [None, 0.1, None]
        assert dataset.match_tags("LBL003").values("dataaudit_id") == ["b.jpg"]
        review.clean(dataset)
        assert "LBL003_labels" not in dataset.get_field_schema()
    finally:
        fiftyone().delete_dataset(dataset.name)
