"""Fixes of a dataset that lives in FiftyOne alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dataaudit import fix, formats, journal
from dataaudit.errors import ConflictError, MissingDependencyError
from dataaudit.types import Finding, Fix, Report, Tables

# fiftyone and what it imports warn of their own future
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    from dataaudit.formats._fiftyone import connect

    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    try:
        fo = connect()
    except MissingDependencyError as error:
        pytest.skip(str(error))
    made = fo.Dataset()
    samples = [fo.Sample(filepath=str(tmp_path / f"{n}.jpg"), tags=["mine"], note=n) for n in range(4)]
    for sample, label in zip(samples, ["cat", "cat", "dog", None], strict=True):
        sample["ground_truth"] = None if label is None else fo.Classification(label=label, confidence=0.5)
    made.add_samples(samples, progress=False)
    yield made
    made.delete()


def planned(dataset: Any, *changes: tuple[int, str, str | None]) -> tuple[Tables, fix.Plan]:
    tables = formats.read(dataset.name, options={"label_field": "ground_truth"})
    items = []
    for number, op, new in changes:
        row = tables.labels.iloc[number]
        sample = row["sample_id"]
        edit = Fix(op=op, sample_id=sample, label_id=sample, locator=row["locator"], old=row["name"], new=new)
        items.append(
            Finding(
                key=str(number), code="LBL001", item_id=sample, sample_id=sample, score=0.1, probability=0.9,
                message="", fix=edit,
            )
        )  # fmt: skip
    report = Report(
        digest="", params={}, outcomes={}, items=tuple(items), skipped={}, timings={}, tables=tables
    )
    return tables, fix.plan(report, min_probability=0.5)


def documents(dataset: Any) -> list[Any]:
    """The samples as they are stored; to FiftyOne a field that is None is as one that isn't there."""
    found = dataset._sample_collection.find().sort("_id")
    return [
        {name: value for name, value in each.items() if value is not None and name != "last_modified_at"}
        for each in found
    ]


def test_labels_change_and_samples_go_and_the_undo_brings_all_of_it_back(dataset: Any) -> None:
    before = documents(dataset)
    _, plan = planned(dataset, (0, "relabel", "dog"), (1, "drop", None))
    fix.apply(plan)
    dataset.reload()
    assert dataset.values("ground_truth.label") == ["dog", "dog", None]
    assert dataset.values("ground_truth.confidence") == [0.5, 0.5, None]
    fix.undo(plan.source)
    dataset.reload()
    assert documents(dataset) == before


def test_a_sample_without_a_label_gets_one_and_loses_it_again(dataset: Any) -> None:
    before = documents(dataset)
    _, plan = planned(dataset, (3, "relabel", "cow"))
    fix.apply(plan)
    dataset.reload()
    assert dataset.values("ground_truth.label") == ["cat", "cat", "dog", "cow"]
    fix.undo(plan.source)
    dataset.reload()
    assert documents(dataset) == before


def test_a_label_that_changed_since_stops_the_whole_plan(dataset: Any) -> None:
    tables, plan = planned(dataset, (0, "relabel", "dog"), (1, "drop", None))
    dataset.set_values("ground_truth.label", {tables.images.index[0]: "cow"}, key_field="id")
    with pytest.raises(ConflictError, match="is 'cow'; expected 'cat'"):
        fix.apply(plan)
    assert len(dataset) == 4


def test_what_was_committed_before_a_kill_is_done_by_the_next_command(dataset: Any) -> None:
    from dataaudit import state

    _, plan = planned(dataset, (0, "relabel", "dog"), (1, "drop", None))
    folder = state.prepare(plan.source)
    with journal._locked(folder):
        journal._stage(folder, formats.patch(plan.source, plan.fixes))
    assert len(formats.read(dataset.name).images) == 3
    dataset.reload()
    assert dataset.values("ground_truth.label") == ["dog", "dog", None]
