"""Round trips through FiftyOne's annotation API, with a label tool in memory in place of a server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from databases import fiftyone
from label_tools import boxes_report, classes_report, key_of, verdicts

from dataaudit import tables
from dataaudit.errors import InputError
from dataaudit.review import annotation, label_tools

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture
def server() -> Iterator[dict[str, Any]]:
    """What the tool in memory holds."""
    fo = fiftyone()
    import memory_tool

    fo.annotation_config.backends["memory"] = {"config_cls": "memory_tool.MemoryBackendConfig"}
    yield memory_tool.SERVER
    del fo.annotation_config.backends["memory"]
    memory_tool.SERVER.clear()


def contents(dataset: Any) -> Any:
    """All that is in the samples of a dataset, and its fields."""
    return list(dataset.get_field_schema(flat=True)), [sample.to_mongo_dict() for sample in dataset]


def test_classes_go_out_and_come_back_with_nothing_else_changed(
    tmp_path: Path, server: dict[str, Any]
) -> None:
    report = classes_report(tmp_path)
    dataset = tables.write(report.tables)
    before = contents(dataset)
    annotation.annotate(report, backend="memory")
    ids = dict(zip(dataset.values(tables.ID), dataset.values("id"), strict=True))
    labels = server["ground_truth"]
    assert set(labels) == {ids[item.sample_id] for item in report.items if item.code.startswith("LBL")}
    for sample_id, name in (("cat/1.png", "dog"), ("cat/2.png", "fox")):
        (label,) = labels[ids[sample_id]].values()
        label.label = name
    found = annotation.answers(report, reviewer="ann")
    assert verdicts(found.decisions) == {"k1": "accept", "k2": ("relabel", "fox", None)}
    every = annotation.answers(report, finished=True)
    assert verdicts(every.decisions)["k3"] == verdicts(every.decisions)["k4"] == "keep"
    assert len(label_tools.take(report, found).new) == 2
    dataset.reload()
    assert contents(dataset) == before
    fiftyone().delete_dataset(dataset.name)


def test_boxes_are_known_by_their_ids(tmp_path: Path, server: dict[str, Any]) -> None:
    report = boxes_report(tmp_path)
    dataset = tables.write(report.tables)
    before = contents(dataset)
    annotation.annotate(report, backend="memory", codes=["BOX002", "BOX004", "BOX005"])
    ids = dict(zip(dataset.values(tables.ID), dataset.values("id"), strict=True))
    a = server["ground_truth"][ids["images/a.png"]]
    _, dog, copy = a
    a[dog].label = "cat"
    del a[copy]
    (loose, _) = server["ground_truth"][ids["images/b.png"]].values()
    loose.bounding_box = [0.0, 0.0, 55 / 120, 50 / 60]
    found = annotation.answers(report)
    assert verdicts(found.decisions) == {
        key_of(report, "BOX002"): "accept",
        key_of(report, "BOX004"): "accept",
        key_of(report, "BOX005"): ("move", "cat", pytest.approx((0, 0, 55, 50))),
    }
    assert found.left_out == ()
    dataset.reload()
    assert contents(dataset) == before
    fiftyone().delete_dataset(dataset.name)


def test_an_image_that_comes_back_empty_is_reported(tmp_path: Path, server: dict[str, Any]) -> None:
    report = boxes_report(tmp_path)
    dataset = tables.write(report.tables)
    annotation.annotate(report, backend="memory", codes=["BOX005"])
    (key,) = server["ground_truth"]
    server["ground_truth"][key] = {}
    found = annotation.answers(report, finished=True)
    assert found.decisions == ()
    assert found.left_out == (
        "annotation run dataaudit: images/b.png: It came back without labels; was it annotated at all?",
    )
    with pytest.raises(InputError, match="has an annotation run 'dataaudit' already"):
        annotation.annotate(report, backend="memory")
    with pytest.raises(InputError, match="no annotation run 'other' of dataaudit; there are 'dataaudit'"):
        annotation.answers(report, "other")
    fiftyone().delete_dataset(dataset.name)
