from __future__ import annotations

import base64
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_objects import object_report, objects_of
from made_reports import relabel, report_of, tables_of
from PIL import Image

from dataaudit.report import review_data as module
from dataaudit.report import summarize
from dataaudit.report.review_data import ReviewData, review_data
from dataaudit.types import Finding, Fix, Locator, Neighbors, Report
from dataaudit.worklist import worklist_of


def data_of(report: Report, **more: Any) -> tuple[dict[str, Any], ReviewData]:
    made = review_data(worklist_of(report), summarize(report), **more)
    return json.loads(made.json), made


def picture(made: ReviewData, number: int) -> Image.Image:
    lines = [line for block in made.blocks for line in block.split("\n")]
    return Image.open(io.BytesIO(base64.b64decode(lines[number])))


def draw(root: Path, n: int, size: tuple[int, int] = (200, 100)) -> Report:
    samples: dict[str, str | None] = {f"photos/{at}.png": "cat" for at in range(n)}
    (root / "photos").mkdir()
    rng = np.random.default_rng(0)
    for sample in samples:
        values = rng.integers(255, size=(size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(values).save(root / sample)
    tables = tables_of(samples, root=root, classes=("dog",))
    near = Neighbors(
        ids=tables.images.index, indices=np.array([[(at + 1) % n] for at in range(n)]),
        similarities=np.full((n, 1), 0.5, np.float32),
    )  # fmt: skip
    items = [relabel(f"k{at}", tables, f"L{at}", "dog", score=at / 100) for at in range(n)]
    return report_of(tables, *items, signals={"neighbors": near})


def test_nothing_in_the_data_ends_a_script_or_a_line(tmp_path: Path) -> None:
    name = "</script><!-- \u2028 & 'é"
    tables = tables_of({"1.jpg": name}, classes=("dog",))
    value, made = data_of(report_of(tables, relabel("k", tables, "L0", "dog")))
    assert not set("<>&\u2028é") & set(made.json)
    assert value["entries"][0]["given"] == name


def test_an_image_is_large_and_its_neighbours_are_small(tmp_path: Path) -> None:
    value, made = data_of(draw(tmp_path, 3), folder=tmp_path / "out")
    first = value["entries"][0]
    assert first["pictures"] == [{"at": 0, "size": [200, 100]}]
    assert picture(made, 0).size == (200, 100)
    ((number, similarity),) = first["near"]
    assert similarity == 0.5
    neighbor = value["images"][number]
    assert (neighbor["name"], neighbor["labels"]) == ("photos/1.png", ["cat"])
    assert picture(made, neighbor["thumb"]).size == (96, 48)
    assert value["images"][first["image"]]["url"] == "../photos/0.png"


def test_where_there_is_no_room_left_neighbours_are_named_and_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BUDGET", 1)
    value, made = data_of(draw(tmp_path, 3))
    assert [len(entry["pictures"]) for entry in value["entries"]] == [1, 1, 1]
    assert all("thumb" not in image for image in value["images"])
    assert sum(len(block.split("\n")) for block in made.blocks) == 3


def test_what_a_page_cannot_hold_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ENTRIES", 2)
    value, made = data_of(draw(tmp_path, 3))
    assert [entry["key"] for entry in value["entries"]] == ["k0", "k1"]
    assert (made.n, made.left_out) == (2, 1)


def test_an_image_without_a_readable_file_has_no_picture(tmp_path: Path) -> None:
    report = draw(tmp_path, 2)
    (tmp_path / "photos/0.png").write_bytes(b"no picture")
    value, _ = data_of(report)
    assert ["pictures" in entry for entry in value["entries"]] == [False, True]


def test_a_repeated_image_is_shown_beside_the_one_that_stays(tmp_path: Path) -> None:
    report = draw(tmp_path, 2)
    fix = Fix(
        op="merge", sample_id="photos/1.png", label_id="L1", locator=Locator(file="photos/1.png"), old="cat",
        new="photos/0.png",
    )  # fmt: skip
    twice = Finding(
        key="d", code="DUP001", item_id="photos/1.png", sample_id="photos/1.png", score=0.0, probability=None,
        message="Same bytes.", suggested="photos/0.png", fix=fix,
    )  # fmt: skip
    value, _ = data_of(replace(report, items=(twice,), signals={}))
    (entry,) = value["entries"]
    own, other = entry["pictures"]
    assert "of" not in own
    assert value["images"][other["of"]]["name"] == "photos/0.png"
    assert "suggested" not in entry  # a sample is no class


def test_an_object_is_shown_close_up_and_in_its_image(tmp_path: Path) -> None:
    report = object_report(objects_of(tmp_path))
    value, made = data_of(report)
    entry = next(entry for entry in value["entries"] if entry["key"] == "k2")
    close, whole = entry["pictures"]
    assert close["view"] == [42.5, 35, 85, 85]
    assert close["part"] == [42, 35, 128, 120]  # in whole pixels
    assert whole["view"] == [0, 0, 160, 120]
    assert picture(made, whole["at"]).size == (160, 120)
    assert entry["newBox"] == [70, 60, 100, 110]
    assert entry["named"] is True
