from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from made_objects import object_report, objects_of
from made_reports import SAMPLES, tables_of
from PIL import Image
from test_report_html import HOSTILE, Page

from dataaudit import state
from dataaudit.cli import main
from dataaudit.errors import InputError
from dataaudit.report import show, write
from dataaudit.types import Tables


def many(root: Path | None = None) -> Tables:
    """Ten images with none to nine objects."""
    return objects_of(
        root,
        {
            f"{n}.jpg": [("cat" if at else "dog", (at, at, at + 9, at + 9)) for at in range(n)]
            for n in range(10)
        },
    )


def test_the_same_seed_draws_the_same_images_and_another_draws_others() -> None:
    first = show(many(), n=4, seed=1)
    assert show(many(), n=4, seed=1) == first
    assert show(many(), n=4, seed=2).samples != first.samples
    assert len(first.samples) == 4


def test_the_densest_and_the_sparsest_are_told_by_their_objects() -> None:
    assert show(many(), n=2, order="densest").samples == ("9.jpg", "8.jpg")
    assert show(many(), n=2, order="sparsest").samples == ("0.jpg", "1.jpg")


def test_only_images_with_a_class_are_shown_when_one_is_named() -> None:
    assert set(show(many(), name="cat").samples) == {f"{n}.jpg" for n in range(2, 10)}


def test_every_box_has_the_colour_of_its_class_and_its_name(tmp_path: Path) -> None:
    text = show(objects_of(tmp_path)).html
    colours = dict(re.findall(r'<text class="(c\d+)"[^>]*>(\w+)<', text))
    assert sorted(colours.values()) == ["cat", "dog"]
    (cat,) = [colour for colour, name in colours.items() if name == "cat"]
    assert text.count(f'<rect class="{cat}"') == 2


def test_a_class_has_the_same_colour_whichever_images_are_shown(tmp_path: Path) -> None:
    pages = [show(many(tmp_path), n=1, order=order, name="cat").html for order in ("densest", "sparsest")]
    first, second = ({*re.findall(r'<rect class="(c\d+)"', page)} for page in pages)
    assert first == second
    assert len(first) == 1


def test_boxes_of_other_classes_are_thin_when_one_is_named(tmp_path: Path) -> None:
    text = show(many(tmp_path), n=1, order="densest", name="dog").html
    assert len(re.findall(r'<rect class="c\d+"', text)) == 1
    assert text.count('<rect class="other"') == 8


def test_relative_boxes_are_drawn_though_nobody_said_how_large_the_images_are(tmp_path: Path) -> None:
    tables = objects_of(tmp_path, {"1.jpg": [("cat", (0.25, 0.5, 0.5, 1.0))]})
    unknown = tables.images.assign(width=None, height=None)
    text = show(
        replace(tables, images=unknown.astype({"width": "Int64", "height": "Int64"}), units="relative")
    ).html
    assert 'x="40.0" y="60.0" width="40.0" height="60.0"' in text


def test_the_worst_are_those_of_the_last_report_with_what_it_proposes(tmp_path: Path) -> None:
    tables = objects_of(tmp_path)
    report = object_report(tables)
    page = show(tables, order="worst", report=report)
    assert page.samples == ("images/1.jpg", "images/3.jpg", "images/2.jpg")
    assert '<rect class="proposed" x="70' in page.html
    assert "A cat has no box." in page.html
    assert tables.source is not None
    write(report, state.reports_dir(tables.source))
    assert show(tables, order="worst") == page


def test_without_an_audit_the_worst_are_not_known(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="There is no report"):
        show(objects_of(tmp_path), order="worst")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"n": 0}, "n is 0"),
        ({"order": "wrost"}, "Did you mean 'worst'"),
        ({"name": "dgo"}, "Did you mean 'dog'"),
    ],
)
def test_what_cannot_be_shown_is_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        show(objects_of(), **wrong)  # type: ignore[arg-type]


def test_classes_of_whole_images_are_tags(photos: Path) -> None:
    page = Page(show(tables_of(SAMPLES | {"none.jpg": None}, root=photos)).html)
    assert "unlabeled" in page.text
    assert page.text.count("no preview") == 2  # the broken file and the one that isn't there
    assert sum(one == "dog" for one in page.text) == 5  # four images and the legend
    assert page.open == []


def test_no_image_can_be_shown_too() -> None:
    assert "No image to show." in show(objects_of(objects={})).html
    assert show(objects_of(objects={"1.jpg": []}), order="densest").samples == ("1.jpg",)


def test_hostile_names_are_text_and_the_page_may_run_nothing(tmp_path: Path) -> None:
    objects = {"1.jpg": [(name, (8 * at, 8, 8 * at + 7, 30)) for at, name in enumerate(HOSTILE)]}
    tables = objects_of(tmp_path, objects)  # type: ignore[arg-type]
    page = Page(show(tables).html)
    assert page.open == []
    assert page.all("script") == []
    assert not [tag for tag, attributes in page.tags if any(name.startswith("on") for name in attributes)]
    assert not [tag for tag, attributes in page.tags if "style" in attributes]
    (policy,) = [meta["content"] or "" for meta in page.all("meta") if meta.get("http-equiv")]
    assert "script-src" not in policy
    assert policy.startswith("default-src 'none'")
    for name in HOSTILE:
        assert name in page.text


def test_a_notebook_shows_the_page_in_a_frame(tmp_path: Path) -> None:
    frame = show(objects_of(tmp_path))._repr_html_()
    ((tag, attributes),) = Page(frame).tags
    assert tag == "iframe"
    assert (attributes["srcdoc"] or "").lstrip().startswith("<!doctype html>")


def test_the_command_writes_the_page_and_names_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "photos"
    for name in ("cat/1.png", "dog/2.png"):
        (root / name).parent.mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(root / name)
    assert main(["show", str(root), "--n", "1", "--class", "dog"]) == 0
    page = tmp_path / ".dataaudit/photos/reports/show.html"
    assert capsys.readouterr().out == f"{page}\n"
    assert "2.png" in page.read_text()
    assert main(["show", str(root), "--output", str(tmp_path / "new/look.html")]) == 0
    assert (tmp_path / "new/look.html").exists()
    assert main(["show", str(root), "--worst"]) == 2
    assert "dataaudit audit" in capsys.readouterr().err
