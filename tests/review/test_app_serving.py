"""The App's server: the desk of each dataset that is open there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from databases import fiftyone
from reviewed import audited, keys_of, write_dataset

import dataaudit as da
from dataaudit.review import serving
from dataaudit.types import Report


@pytest.fixture(scope="module")
def pushed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, Any]:
    """The report of the small dataset, and its FiftyOne dataset."""
    fiftyone()
    report = audited(write_dataset(tmp_path_factory.mktemp("serving")))
    return report, da.push(report)


def test_a_dataset_that_is_opened_in_the_app_by_itself_has_its_desk(pushed: tuple[Report, Any]) -> None:
    report, dataset = pushed
    answer = serving.answer(dataset.name, {"action": "open"})
    assert answer["progress"]["left"] == len(report.items)
    assert serving.desk_of(dataset.name) is serving.desk_of(dataset.name)


def test_what_is_selected_in_the_grid_is_known_by_its_sample(pushed: tuple[Report, Any]) -> None:
    report, dataset = pushed
    sample = dataset.match({"dataaudit_id": "6/0003.png"}).first()
    question = {"action": "preview", "verdict": "accept", "selected": [sample.id]}
    assert serving.answer(dataset.name, question)["keys"] == [keys_of(report)["6/0003.png"]]


def test_a_dataset_without_an_audit_says_what_to_do(tmp_path: Path) -> None:
    fiftyone()
    dataset = da.load(write_dataset(tmp_path))
    assert "dataaudit audit" in serving.answer(dataset.name, {"action": "open"})["error"]


def test_without_a_dataset_nothing_is_asked() -> None:
    assert serving.answer(None, {"action": "open"}) == {"error": "No dataset is open."}
    assert "error" in serving.answer("no such dataset", {"action": "open"})
