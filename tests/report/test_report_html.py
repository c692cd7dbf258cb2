from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from made_reports import relabel, report_of, tables_of
from PIL import Image

from dataaudit.errors import InputError
from dataaudit.report import summarize, to_html, write_html
from dataaudit.types import Finding, Report
from dataaudit.worklist import worklist_of

HOSTILE = [
    "<script>alert(1)</script>",
    '" onmouseover="alert(1)',
    "' onclick='alert(1)",
    "</title><img src=x onerror=alert(1)>",
    "{{ 7 * 7 }}",
    "حصان",
    "🐈 cat",
    "&amp; &lt;",
    "-->]]>",
]
VOID = {"meta", "link", "img", "input", "br"}


class Page(HTMLParser):
    """Tags with their attributes, text outside of styles and scripts, what scripts hold that isn't run, and
    whether every tag is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.raw: dict[str, list[str]] = {"style": [], "script": []}
        self.data: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script" and self.all("script")[-1].get("type"):
            self.data.append(data)
        elif self.open and self.open[-1] in self.raw:
            self.raw[self.open[-1]].append(data)
        else:
            self.text.append(data)

    @property
    def programs(self) -> list[dict[str, str | None]]:
        return [attributes for attributes in self.all("script") if "type" not in attributes]

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def hostile_report() -> Report:
    samples = {f"train/{name.replace('/', '_')}/{name.replace('/', '_')}.jpg": name for name in HOSTILE}
    tables = tables_of(samples)
    findings = [
        relabel(f"k{at}", tables, f"L{at}", HOSTILE[at - 1], message=f"Looks like {HOSTILE[at - 1]}.")
        for at in range(len(HOSTILE))
    ]
    return report_of(
        tables,
        *findings,
        params={HOSTILE[0]: HOSTILE[1]},
        skipped={"SPL001": HOSTILE[3]},
        timings={HOSTILE[0]: 1.0},
    )


def test_every_tag_is_closed_and_nothing_is_loaded_from_outside(report: Report) -> None:
    for text in (to_html(report), to_html(report, embed=True), to_html(hostile_report())):
        page = Page(text)
        assert page.open == []
        for _, attributes in page.tags:
            for name in ("src", "href", "srcset", "action", "poster", "data"):
                assert (attributes.get(name) or "#").startswith(("data:", "#"))
        assert not re.search(
            r"url\(|@import|fetch\(|XMLHttpRequest", "".join(page.raw["style"] + page.raw["script"])
        )


def test_the_policy_allows_only_the_style_and_script_of_the_page(report: Report) -> None:
    page = Page(to_html(report))
    (policy,) = [
        meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy"
    ]

    def source(text: str) -> str:
        return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"

    (style,), (script,) = page.raw["style"], page.raw["script"]
    assert policy == (
        f"default-src 'none'; img-src data:; style-src {source(style)}; script-src {source(script)}; "
        "base-uri 'none'; form-action 'none'"
    )


def test_no_attribute_holds_a_style_or_a_handler(report: Report) -> None:
    for text in (to_html(report), to_html(report, embed=True)):
        for _, attributes in Page(text).tags:
            assert not [name for name in attributes if name == "style" or name.startswith("on")]


@pytest.mark.parametrize("embed", [False, True])
def test_names_with_markup_quotes_and_other_scripts_are_shown_as_text(embed: bool) -> None:
    page = Page(to_html(hostile_report(), embed=embed))
    assert len(page.programs) == (0 if embed else 1)
    assert not [tag for tag, attributes in page.tags if any(name.startswith("on") for name in attributes)]
    for name in HOSTILE:
        assert name in page.text


def test_characters_that_turn_the_direction_are_shown_as_escapes() -> None:
    tables = tables_of({"train/a/gpj\u202e.exe": "cat\u202e\x07"}, classes=("dog",))
    text = to_html(report_of(tables, relabel("k", tables, "L0", "dog")))
    assert "gpj\\u202e.exe" in text
    assert "cat\\u202e\\x07" in text
    assert "\u202e" not in "".join(Page(text).text)


def test_a_label_error_has_a_card_with_picture_labels_and_chance(report: Report) -> None:
    text = to_html(report)
    page = Page(text)
    cards = [attributes for attributes in page.all("article") if "card" in (attributes["class"] or "")]
    assert [(card["data-given"], card["data-suggested"]) for card in cards] == [
        ("cat", "dog"),
        ("dog", "cat"),
    ]
    assert "kept" in (cards[1]["class"] or "")
    assert "96%" in page.text
    assert "Looks like dog." in page.text


def test_duplicates_stand_side_by_side_with_the_one_to_keep_marked(report: Report) -> None:
    page = Page(to_html(report))
    figures = page.all("figure")
    assert [figure.get("class") for figure in figures] == ["stays", None]
    assert page.text.count("keep") == 1


def test_an_unreadable_file_is_a_line_and_not_a_picture(report: Report) -> None:
    page = Page(to_html(report))
    assert "Not an image." in page.text
    assert "test/dog/broken.jpg" in page.text
    assert len(page.all("img")) == 4


def test_a_picture_that_cannot_be_shown_has_a_placeholder() -> None:
    tables = tables_of({"1.jpg": "cat"}, classes=("dog",))
    page = Page(to_html(report_of(tables, relabel("k", tables, "L0", "dog"))))
    assert page.all("img") == []
    assert "no preview" in page.text


def test_the_rest_of_the_cards_is_counted_and_the_csv_named() -> None:
    tables = tables_of({f"{at}.jpg": "cat" for at in range(30)}, classes=("dog",))
    report = report_of(tables, *(relabel(f"k{at}", tables, f"L{at}", "dog") for at in range(30)))
    text = to_html(report, max_cards=12)
    assert text.count('<article class="card"') == 12
    assert "The worst 12 are shown. 18 more are in findings.csv, which has all." in text
    assert (
        to_html(report, embed=True).count("da-card")
        - to_html(report, embed=True, max_cards=0).count("da-card")
        == 25
    )


def test_a_report_without_findings_says_so_and_shows_no_cards() -> None:
    text = to_html(report_of(tables_of({"1.jpg": "cat"})))
    assert "Nothing to fix in 1 image." in text
    assert "<article" not in text


def test_an_empty_dataset_and_findings_about_classes_can_be_shown() -> None:
    odd = Finding(
        key="k", code="GRP001", item_id="cat", sample_id=None, score=0.5, probability=None, message="Rare."
    )
    page = Page(to_html(report_of(tables_of({}), odd)))
    assert "Rare." in page.text


def test_embedded_it_is_one_div_without_script_and_with_its_own_styles(report: Report) -> None:
    text = to_html(report, embed=True).strip()
    page = Page(text)
    assert page.tags[0] == ("div", {"class": "dataaudit-report"})
    assert text.startswith("<div")
    assert text.endswith("</div>")
    assert page.all("script") == []
    rules = re.sub(r"\{[^{}]*\}", "{}", "".join(page.raw["style"]))
    selectors = [one for rule in rules.split("{}") for one in rule.split(",") if one.strip()]
    assert selectors
    assert all(selector.strip().startswith(".dataaudit-report") for selector in selectors)


def test_a_notebook_shows_the_report_itself(report: Report) -> None:
    assert report._repr_html_() == to_html(report, embed=True)


def test_a_summary_gives_the_same_page_as_its_report(report: Report) -> None:
    worklist = worklist_of(report)
    assert to_html(summarize(report), worklist=worklist) == to_html(report)


def test_a_summary_without_a_worklist_gives_a_page_without_review(report: Report) -> None:
    text = to_html(summarize(report))
    assert 'id="r-review"' not in text
    assert "class Decisions" not in text
    assert 'id="r-review"' in to_html(report)


def test_a_second_page_needs_the_pictures_no_more(report: Report, photos: Path, tmp_path: Path) -> None:
    summary = summarize(report)
    first = to_html(summary, thumbnails=tmp_path / "thumbnails")
    for path in photos.rglob("*.jpg"):
        path.unlink()
    assert to_html(summary, thumbnails=tmp_path / "thumbnails") == first


def test_a_file_name_that_is_not_utf_8_can_be_written(tmp_path: Path) -> None:
    tables = tables_of({"caf\udce9.jpg": "cat"}, classes=("dog",), root=tmp_path)
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    path = write_html(report_of(tables, relabel("k", tables, "L0", "dog")), tmp_path / "new" / "report.html")
    assert "caf\\udce9.jpg" in path.read_text(encoding="utf-8")


def test_very_long_names_and_messages_are_kept_whole() -> None:
    tables = tables_of({"a" * 300 + ".jpg": "c" * 300}, classes=("dog",))
    report = report_of(tables, relabel("k", tables, "L0", "dog"))
    found = replace(report.items[0], message="m" * 3000)
    assert "m" * 3000 in to_html(replace(report, items=(found,)))


def test_a_negative_number_of_cards_is_refused(report: Report) -> None:
    with pytest.raises(InputError, match="max_cards is -1"):
        to_html(report, max_cards=-1)
