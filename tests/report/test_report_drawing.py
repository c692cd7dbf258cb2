from __future__ import annotations

import base64
import io
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from made_objects import found, object_report, objects_of
from PIL import Image
from test_report_html import HOSTILE, Page

from dataaudit.errors import InputError
from dataaudit.report import picture, summarize, to_html
from dataaudit.report.thumbnails import crops, sizes
from dataaudit.types import Finding, Report, Tables


def cards_of(text: str) -> list[str]:
    return re.findall(r'<article class="card.*?</article>', text, flags=re.DOTALL)


def drawings(card: str) -> list[str]:
    return re.findall(r'<svg class="drawn".*?</svg>', card, flags=re.DOTALL)


def rects(drawing: str, kind: str) -> list[tuple[float, ...]]:
    found = re.findall(
        rf'<rect class="{kind}" x="([-\d.]+)" y="([-\d.]+)" width="([-\d.]+)" height="([-\d.]+)"', drawing
    )
    return [tuple(map(float, one)) for one in found]


def view(drawing: str) -> tuple[float, ...]:
    (found,) = re.findall(r'viewBox="([^"]+)"', drawing)
    return tuple(map(float, found.split()))


def card(report: Report) -> str:
    (only,) = cards_of(to_html(report))
    return only


def seen(tables: Tables, item: str = "1.jpg:1", **more: Any) -> Finding:
    return found(tables, "k", "BOX004", item, **more)


def test_a_card_shows_the_object_close_up_and_the_whole_image_with_all_boxes(tmp_path: Path) -> None:
    tables = objects_of(tmp_path, {"1.jpg": [("cat", (10, 10, 40, 40)), ("dog", (100, 60, 150, 110))]})
    close, whole = drawings(card(object_report(tables, seen(tables))))
    assert view(whole) == (0, 0, 160, 120)
    assert rects(whole, "given") == [(10, 10, 30, 30)]
    assert rects(whole, "other") == [(100, 60, 50, 50)]
    x, y, width, height = view(close)
    assert (x, y) == (0, 0)  # not beyond the image
    assert width == height == pytest.approx(51)
    assert rects(close, "given") == [(10, 10, 30, 30)]
    assert rects(close, "other") == []  # it isn't in view


def test_a_missing_object_has_the_proposed_box_only(tmp_path: Path) -> None:
    page = to_html(object_report(objects_of(tmp_path)))
    (missing,) = [one for one in cards_of(page) if "A cat has no box." in one]
    for drawing in drawings(missing):
        assert rects(drawing, "proposed") == [(70, 60, 30, 50)]
        assert rects(drawing, "given") == rects(drawing, "other") == []
    assert "<span>missing</span> <ins><bdi>cat</bdi></ins>" in missing


def test_a_moved_box_is_drawn_before_and_after_also_outside_of_the_image(tmp_path: Path) -> None:
    page = to_html(object_report(objects_of(tmp_path)))
    (moved,) = [one for one in cards_of(page) if "outside the image" in one]
    for drawing in drawings(moved):
        assert rects(drawing, "given") == [(-20, 5, 50, 40)]
        assert rects(drawing, "proposed") == [(0, 5, 30, 40)]
        assert view(drawing)[0] <= -20


def test_an_object_that_fills_its_image_is_drawn_once(tmp_path: Path) -> None:
    tables = objects_of(tmp_path, {"1.jpg": [("cat", (10, 5, 150, 115))]})
    (only,) = drawings(card(object_report(tables, seen(tables))))
    assert view(only) == (0, 0, 160, 120)


@pytest.mark.parametrize(
    ("box", "drawn"),
    [
        pytest.param((40, 50, 10, 10), (10, 10, 30, 40), id="inverted"),
        pytest.param((50, 30, 50, 60), (50, 30, 0.2, 30), id="without width"),
        pytest.param((1e9, 1e9, 2e9, 2e9), (240, 180, 1, 1), id="far away"),
        pytest.param((-1e9, 10, 1e9, 20), (-80, 10, 320, 10), id="endless"),
    ],
)
def test_a_box_that_no_image_has_can_still_be_seen(
    tmp_path: Path, box: tuple[float, ...], drawn: tuple[float, ...]
) -> None:
    tables = objects_of(tmp_path, {"1.jpg": [("cat", box)]})  # type: ignore[list-item]
    for drawing in drawings(card(object_report(tables, seen(tables)))):
        (rect,) = rects(drawing, "given")
        assert rect == pytest.approx(drawn, abs=1)
        assert min(rect[2:]) > 0


def test_an_image_that_cannot_be_read_has_a_placeholder(tmp_path: Path) -> None:
    tables = objects_of(tmp_path)
    (tmp_path / "images/1.jpg").write_bytes(b"no image")
    broken = [one for one in cards_of(to_html(object_report(tables))) if 'title="images/1.jpg"' in one]
    assert broken
    assert all(not drawings(one) and "no preview" in one for one in broken)


def test_a_finding_without_any_box_is_a_card_like_those_of_images(tmp_path: Path) -> None:
    tables = objects_of(tmp_path)
    text = card(object_report(tables, found(tables, "k", "BOX001", "images/1.jpg:1", box=None)))
    assert drawings(text) == []
    assert "<img " in text


def test_an_image_with_many_findings_is_in_the_page_once(tmp_path: Path) -> None:
    tables = objects_of(tmp_path, {"1.jpg": [("cat", (10, 10, 60, 60))]})
    report = object_report(tables, *(replace(seen(tables), key=f"k{at}") for at in range(20)))
    page = to_html(report)
    assert len(cards_of(page)) == 20
    assert page.count('href="data:image/jpeg') == 2  # the close-up and the whole image


def test_the_policy_holds_with_drawings_and_no_attribute_has_a_style_or_a_handler(tmp_path: Path) -> None:
    report = object_report(objects_of(tmp_path))
    for text in (to_html(report), to_html(report, embed=True)):
        page = Page(text)
        assert page.open == []
        for _, attributes in page.tags:
            assert not [name for name in attributes if name == "style" or name.startswith("on")]
            assert (attributes.get("href") or "#").startswith(("data:", "#"))
        ids = {image["id"] for image in page.all("image")}
        assert {use["href"][1:] for use in page.all("use")} <= ids  # type: ignore[index]


@pytest.mark.parametrize("embed", [False, True])
def test_class_names_with_markup_are_shown_as_text_in_drawings_too(tmp_path: Path, embed: bool) -> None:
    objects = {"1.jpg": [(name, (8 * at, 8, 8 * at + 7, 30)) for at, name in enumerate(HOSTILE)]}
    tables = objects_of(tmp_path, objects)  # type: ignore[arg-type]
    items = [
        replace(seen(tables, f"1.jpg:{at + 1}", suggested=HOSTILE[at - 1], message=name), key=f"k{at}")
        for at, name in enumerate(HOSTILE)
    ]
    page = Page(to_html(object_report(tables, *items), embed=embed))
    assert len(page.programs) == (0 if embed else 1)
    assert not [tag for tag, attributes in page.tags if any(name.startswith("on") for name in attributes)]
    for name in HOSTILE:
        assert any(name in text for text in page.text)
        assert f"given: {name}" in page.text


def test_the_legend_is_there_only_with_drawings(tmp_path: Path) -> None:
    tables = objects_of(tmp_path)
    assert '<p class="key">' in to_html(object_report(tables))
    assert '<p class="key">' not in to_html(
        object_report(tables, found(tables, "k", "BOX001", "images/1.jpg:1", box=None))
    )


def test_images_that_are_annotated_differently_stand_side_by_side_with_their_boxes(tmp_path: Path) -> None:
    tables = objects_of(tmp_path)
    items = [
        found(tables, f"k{at}", "BOX013", f"images/{at}.jpg:1", evidence={"group": "g"}) for at in (1, 2)
    ]
    text = to_html(object_report(tables, *items))
    assert cards_of(text) == []
    figures = re.findall(r"<figure.*?</figure>", text, flags=re.DOTALL)
    assert [len(rects(one, "given")) for one in figures] == [1, 1]
    assert [len(rects(one, "other")) for one in figures] == [1, 1]


def test_boxes_of_one_image_that_belong_together_are_cards(tmp_path: Path) -> None:
    tables = objects_of(tmp_path)
    items = [
        found(tables, f"k{at}", "BOX008", f"images/1.jpg:{at}", evidence={"group": "g"}) for at in (1, 2)
    ]
    assert len(cards_of(to_html(object_report(tables, *items)))) == 2


def test_the_page_has_the_curve_of_the_predictions_and_a_row_for_each_class(tmp_path: Path) -> None:
    columns = ["sample_id", "name", "confidence", "x1", "y1", "x2", "y2"]
    detections = pd.DataFrame(
        [["images/1.jpg", "cat", 0.9, 10, 10, 40, 50], ["images/1.jpg", "dog", 0.8, 0, 0, 9, 9]],
        columns=columns,
    )
    text = to_html(object_report(objects_of(tmp_path), detections=detections))
    assert "Predictions against labels" in text
    assert 'class="precision" d="M0.0 0.0L150.0 0.0"' in text  # precision 1 up to a recall of a quarter
    page = Page(text)
    assert "0.50" in page.text  # one of two cats


def test_a_summary_saved_before_there_were_objects_still_makes_a_page(report: Report) -> None:
    summary = summarize(report)
    del summary["objects"]
    for finding in summary["findings"]:
        del finding["box"], finding["suggested_box"]
    assert "<article" in to_html(summary)


def test_a_finding_is_a_picture_with_both_boxes_for_notebooks(tmp_path: Path) -> None:
    report = object_report(objects_of(tmp_path))
    whole, close = picture(report, "k3"), picture(report, "k3", crop=True)
    assert whole.size == (160, 120)
    assert whole.getpixel((10, 5)) in ((0xE6, 0x9F, 0x00), (0x56, 0xB4, 0xE9))
    assert close.width < 160
    assert picture(report, "k2").getpixel((70, 62)) == (0x56, 0xB4, 0xE9)


def test_a_picture_of_no_finding_or_of_a_broken_file_is_refused(tmp_path: Path) -> None:
    report = object_report(objects_of(tmp_path))
    with pytest.raises(InputError, match="There is no finding 'k9'"):
        picture(report, "k9")
    (tmp_path / "images/1.jpg").write_bytes(b"no image")
    with pytest.raises(InputError, match="can't be read"):
        picture(report, "k1")


def test_a_crop_is_that_part_of_the_upright_image(tmp_path: Path) -> None:
    pixels = np.zeros((100, 200, 3), np.uint8)
    pixels[:, 100:] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter: the white half comes to lie below
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    path = str(tmp_path / "a.png")
    assert sizes([path, str(tmp_path / "none.png")]) == {path: (100, 200)}
    parts = crops([(path, None, (0, 0, 100, 50)), (path, None, (0, 120, 50, 200)), (path, None, None)])
    means = {}
    for (_, region), thumbnail in parts.items():
        image = Image.open(io.BytesIO(base64.b64decode(thumbnail.url.split(",")[1])))
        means[region] = (image.size, round(float(np.asarray(image).mean())))
    assert means[(0, 0, 100, 50)] == ((100, 50), 0)
    assert means[(0, 120, 50, 200)] == ((50, 80), 255)
    assert means[None][0] == (80, 160)


def test_crops_of_a_large_jpeg_keep_its_detail_and_are_kept_by_content(tmp_path: Path) -> None:
    pixels = np.zeros((1200, 1600, 3), np.uint8)
    pixels[600:640, 800:840:2] = 255
    Image.fromarray(pixels).save(tmp_path / "a.jpg", quality=95)
    path, folder = str(tmp_path / "a.jpg"), tmp_path / "kept"
    wanted = [(path, "ab" * 16, (800, 600, 840, 640)), (path, "ab" * 16, None)]
    first = crops(wanted, folder=folder, long_side=240)
    part = first[path, (800, 600, 840, 640)]
    assert (part.width, part.height) == (40, 40)
    image = Image.open(io.BytesIO(base64.b64decode(part.url.split(",")[1])))
    assert np.asarray(image.convert("L"), dtype=float).std() > 60
    (tmp_path / "a.jpg").unlink()
    assert crops(wanted, folder=folder, long_side=240) == first
