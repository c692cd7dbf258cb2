"""The review in the HTML report, in a real browser."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from browser import wait
from made_objects import object_report, objects_of
from made_reports import relabel, report_of, tables_of
from pictures import write_digits
from PIL import Image

from dataaudit import decisions
from dataaudit.report import write
from dataaudit.types import Neighbors, Outcome, Report
from dataaudit.worklist import Session, worklist_of

CLASSES = ("cat", "dog", "horse")
ENTER, ESCAPE, DOWN, TAB = "\ue007", "\ue00c", "\ue015", "\ue004"
"""As WebDriver names keys."""


@pytest.fixture
def animals(tmp_path: Path) -> Report:
    """Forty images, of which thirty look like another class; the worst first, with their chances."""
    samples: dict[str, str | None] = {f"animals/cat/{at:02d}.png": "cat" for at in range(20)}
    samples |= {f"animals/dog/{at:02d}.png": "dog" for at in range(20)}
    for at, sample in enumerate(samples):
        (tmp_path / sample).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((24, 32, 3), 6 * at, np.uint8)).save(tmp_path / sample)
    tables = tables_of(samples, root=tmp_path, classes=("horse",))
    items = []
    for at in range(30):
        suggested = "dog" if at < 20 else ("horse", "cat")[at % 2]
        chance = round(0.98 - 0.03 * at, 2)
        items.append(relabel(f"{at:012x}", tables, f"L{at}", suggested, score=1 - chance, probability=chance))
    ids = tables.images.index
    near = Neighbors(
        ids=ids, indices=np.array([[(at + 1) % 40, (at + 2) % 40] for at in range(40)]),
        similarities=np.full((40, 2), 0.5, np.float32),
    )  # fmt: skip
    chances = pd.Series([item.probability for item in items] + [0.02] * 10, index=tables.labels.index)
    flagged = pd.Series([True] * 30 + [False] * 10, index=tables.labels.index)
    evidence = pd.DataFrame({"message": "."}, index=tables.labels.index)
    outcome = Outcome(score=1 - chances, flagged=flagged, probability=chances, evidence=evidence)
    votes = pd.DataFrame([[0.2, 0.7, 0.1]] * 40, index=ids, columns=CLASSES)
    return report_of(
        tables, *items, outcomes={"LBL001": outcome}, signals={"neighbors": near, "pred_probs": votes}
    )


@pytest.fixture
def show(browser: Any, tmp_path: Path) -> Callable[[Report], Any]:
    """Write a report and open its review; the question for a name is answered."""

    def show(report: Report, name: str = "Ann") -> Any:
        page = write(report, tmp_path / "out", thumbnails=tmp_path / "thumbnails")["report.html"]
        browser.get(page.as_uri() + "#review")
        wait(lambda: browser.execute_script("return review !== null"), "the review to open")
        press(browser, name, ENTER)
        return browser

    return show


def press(browser: Any, *keys: str) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    for key in keys:
        ActionChains(browser, duration=0).send_keys(key).perform()


def text(browser: Any, query: str) -> str:
    return str(browser.execute_script(f"return document.querySelector('{query}').textContent"))


def said(browser: Any) -> list[tuple[str, str, str | None]]:
    """Finding, verdict and label of the decisions in their order."""
    return [
        (row["finding"], row["verdict"], row["label"])
        for row in browser.execute_script("return review.decisions.inOrder()")
    ]


def current(browser: Any) -> str:
    return str(browser.execute_script("return review.entry.key"))


def downloaded(browser: Any, downloads: Path) -> Path:
    """The decisions file that the button saves."""
    browser.execute_script("document.querySelector('#r-save').click()")
    return wait(lambda: next(downloads.glob("*.jsonl"), None), "the download")


def choose(browser: Any, query: str, value: str) -> None:
    browser.execute_script(
        "const node = document.querySelector(arguments[0]); node.value = arguments[1];"
        "node.dispatchEvent(new Event('input', { bubbles: true }));", query, value,
    )  # fmt: skip


def test_keys_decide_and_the_next_finding_is_shown(
    animals: Report, show: Callable[[Report], Any], downloads: Path
) -> None:
    browser = show(animals)
    order = browser.execute_script("return review.queue.fitting.map((at) => review.data.entries[at].key)")
    press(browser, "a", "k", "s")
    assert said(browser) == [(order[0], "accept", None), (order[1], "keep", None), (order[2], "skip", None)]
    assert current(browser) == order[3]
    assert text(browser, "#r-progress-text") == "2 of 30 decided"
    assert text(browser, "#r-said") == "Skipped. Next: cat → dog, 89% likely an error."
    press(browser, "u", "u")
    assert said(browser) == [(order[0], "accept", None)]
    assert current(browser) == order[1]
    assert browser.execute_script("return document.querySelector('#r-stage img').naturalWidth") == 32
    rows = [json.loads(line) for line in downloaded(browser, downloads).read_text().splitlines()]
    assert [list(row) for row in rows] == [["finding", "verdict", "label", "box", "reviewer", "note", "at"]]
    assert (rows[0]["reviewer"], rows[0]["note"]) == ("Ann", None)


def test_another_class_is_typed_and_likely_ones_have_numbers(
    animals: Report, show: Callable[[Report], Any]
) -> None:
    browser = show(animals)
    first, given = browser.execute_script("return [review.entry.key, review.entry.given]")
    assert given == "cat"
    press(browser, "o", "ho", ENTER)
    second = current(browser)
    press(browser, "1")  # dog, the proposed one
    third = current(browser)
    press(browser, "2")  # cat, the given one
    fourth = current(browser)
    press(browser, "o", "cow")
    assert text(browser, "#r-names") == "No such class."
    press(browser, ENTER, ESCAPE, "o", DOWN, ENTER)
    expected = [(first, "other", "horse"), (second, "accept", None), (third, "keep", None)]
    assert said(browser) == [*expected, (fourth, "other", "horse")]


def test_filters_meet_and_the_filtered_are_accepted_at_once(
    animals: Report, show: Callable[[Report], Any]
) -> None:
    browser = show(animals)
    choose(browser, "#r-class", "horse")
    choose(browser, "#r-low", "25")
    assert text(browser, "#r-number") == "3 shown"
    browser.execute_script("document.querySelector('#r-bulk').click()")
    # 0.38, 0.32 and 0.26
    assert "About 1 of them (32%) are expected to be errors." in text(browser, "#r-sure-text")
    press(browser, ENTER)
    assert {verdict for _, verdict, _ in said(browser)} == {"accept"}
    assert len(said(browser)) == 3
    assert text(browser, "#r-empty") == "No finding matches."
    choose(browser, "#r-state", "done")
    assert text(browser, "#r-number") == "3 shown"
    press(browser, "u")
    assert said(browser) == []
    choose(browser, "#r-state", "open")
    choose(browser, "#r-class", "")
    choose(browser, "#r-low", "")
    choose(browser, "#r-words", "CAT/03")
    assert text(browser, "#r-number") == "1 shown"


def test_decisions_stay_when_the_page_is_loaded_again_and_can_still_be_undone(
    animals: Report, show: Callable[[Report], Any]
) -> None:
    browser = show(animals)
    press(browser, "a", "k")
    before = said(browser)
    browser.refresh()
    wait(lambda: browser.execute_script("return review !== null"), "the review to open")
    assert said(browser) == before
    assert text(browser, "#r-who") == "as Ann"
    press(browser, "u")
    assert said(browser) == before[:1]


def test_a_file_of_decisions_goes_on_in_another_browser(
    animals: Report, show: Callable[[Report], Any], downloads: Path
) -> None:
    browser = show(animals)
    press(browser, "a", "k")
    before, file = said(browser), downloaded(browser, downloads)
    assert browser.execute_script("return review.decisions.unsaved") is False
    lines = [*file.read_text().splitlines(), json.dumps({"finding": "gone", "verdict": "keep"})]
    file.write_text("\n".join(lines))
    browser.execute_script("localStorage.clear()")
    browser.refresh()
    wait(lambda: browser.execute_script("return review !== null"), "the review to open")
    assert said(browser) == []
    press(browser, "Bob", ENTER)
    browser.find_element("id", "r-file").send_keys(str(file))
    wait(lambda: len(said(browser)) == 2, "the decisions to be taken over")
    assert sorted(said(browser)) == sorted(before)
    assert text(browser, "#r-note").startswith("2 decisions taken over. 1 decision left out")
    file.write_text("finding,verdict\n")
    browser.find_element("id", "r-file").send_keys(str(file))
    wait(lambda: "is not JSON" in text(browser, "#r-note"), "the sentence about the file")


def test_storage_that_is_refused_is_said_and_nothing_breaks(
    animals: Report, show: Callable[[Report], Any], browser: Any
) -> None:
    script = "Object.defineProperty(window, 'localStorage', { get() { throw new DOMException('no'); } });"
    added = browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": script})
    try:
        show(animals)
        assert text(browser, "#r-note").startswith("This browser keeps nothing for this page")
        press(browser, "a")
        assert [verdict for _, verdict, _ in said(browser)] == ["accept"]
    finally:
        browser.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", added)


def test_order_and_estimates_are_those_of_a_session(animals: Report, show: Callable[[Report], Any]) -> None:
    browser = show(animals)
    session, draw = Session(worklist_of(animals)), random.Random(0)
    for at in range(30):
        entry = session.current
        assert entry is not None
        assert current(browser) == entry.key
        assert agree(browser, session)
        verdict = "skip" if at == 7 else draw.choice(("accept", "accept", "keep"))
        session.decide(entry.key, verdict)
        press(browser, verdict[0])
        if at in (3, 24):
            session.undo()
            press(browser, "u")
    assert agree(browser, session)


def test_figures_are_those_of_a_session_with_several_checks_groups_and_findings_without_chances(
    show: Callable[[Report], Any],
) -> None:
    draw = random.Random(1)
    tables = tables_of({f"{at}.jpg": CLASSES[at % 3] for at in range(120)})
    items = []
    for at in range(90):
        chance = draw.choice((0.02, 0.3, 0.3, 0.9, 0.99999, 1.0, None))
        found = relabel(
            f"{at:012x}", tables, f"L{at}", CLASSES[(at + 1 + at % 2) % 3], score=draw.random(),
            probability=chance, evidence={"group": draw.choice("ab")} if at % 5 == 0 else {},
        )  # fmt: skip
        code = "OUT001" if chance is None else draw.choice(("LBL001", "SEG001"))
        items.append(replace(found, code=code))
        if at % 10 == 1:  # another check proposes the same
            items.append(replace(found, key=f"{at:x}{'f' * 8}", code="LBL003", probability=0.6))
    browser = show(report_of(tables, *items))
    session = Session(worklist_of(report_of(tables, *items)))
    for step in range(70):
        key, verdict = draw.choice(items).key, draw.choice(("accept", "keep", "skip"))
        session.decide(key, verdict)
        browser.execute_script(
            "review.refresh(review.queue.keys.get(arguments[0])); review.decide(arguments[1]);", key, verdict
        )
        if step % 9 == 0:
            assert agree(browser, session)


def agree(browser: Any, session: Session) -> bool:
    mine = session.progress()
    figures, queue, advice = browser.execute_script(
        "const found = review.queue.progress();"
        "return [[found.decided, found.left, found.confirmed, found.kept, found.errorsLeft,"
        "found.low, found.high],"
        "review.queue.fitting.map((at) => review.data.entries[at].key), found.advice];"
    )
    names = ("decided", "left", "confirmed", "kept", "errors_left", "low", "high")
    assert figures == pytest.approx([mine[name] for name in names], abs=1e-6)
    assert advice == mine["advice"]
    assert queue == session.queue
    return True


def test_findings_that_propose_the_same_fix_are_answered_by_one_verdict(
    animals: Report, show: Callable[[Report], Any]
) -> None:
    first = animals.items[0]
    twin = replace(first, key="feed", code="LBL003", message="Another check says so too.")
    browser = show(replace(animals, items=(*animals.items, twin)))
    press(browser, "a")
    assert sorted(said(browser)) == sorted([(first.key, "accept", None), ("feed", "accept", None)])
    press(browser, "u")
    assert said(browser) == []


HOSTILE = (
    "<img src=x onerror=hit=1>",
    "</script><script>hit = 1</script>",
    "\"' onfocus='hit=1' autofocus=\"",
    "سلام",
    "🐈 cat",
    "${hit=1}",
    "a\u2028b #1 100%?",
    "=SUM(A1)",
)


def test_hostile_names_are_shown_as_text_and_nothing_runs(
    tmp_path: Path, show: Callable[[Report], Any], downloads: Path
) -> None:
    samples: dict[str, str | None] = {}
    for at, name in enumerate(HOSTILE):
        folder = tmp_path / f"{at}" / name.replace("/", "_")
        folder.mkdir(parents=True)
        Image.new("RGB", (24, 24)).save(folder / f"{at} {name.replace('/', '_')}.png")
        samples[str((folder / f"{at} {name.replace('/', '_')}.png").relative_to(tmp_path))] = name
    tables = tables_of(samples, root=tmp_path)
    items = [
        relabel(f"{at:012x}", tables, f"L{at}", HOSTILE[at - 1], message=f"Is it {HOSTILE[at - 1]}?")
        for at in range(len(HOSTILE))
    ]
    report = report_of(tables, *items)
    browser = show(report, name="<b>Ann</b>")
    for _ in HOSTILE:
        at = int(current(browser), 16)
        for query, expected in (
            ("#r-change", f"{HOSTILE[at]} → {HOSTILE[at - 1]}"),
            ("#r-message", f"Is it {HOSTILE[at - 1]}?"),
            ("#r-keep-text", f"Keep {HOSTILE[at]}"),
            ("#r-path .file", list(samples)[at]),
        ):
            assert browser.execute_script(f"return document.querySelector('{query}').textContent") == expected
        loaded = browser.execute_async_script(
            "const [done] = arguments, image = new Image(); image.onload = () => done(true);"
            "image.onerror = () => done(false); image.src = document.querySelector('#r-stage img').src;"
        )
        assert loaded
        press(browser, "o", HOSTILE[at - 2][:3])
        press(browser, ESCAPE, "k")
    assert browser.execute_script("return typeof hit") == "undefined"
    assert text(browser, "#r-who") == "as <b>Ann</b>"
    assert [m for m in browser.get_log("browser") if "favicon" not in m["message"]] == []
    file = downloaded(browser, downloads)
    assert {each.verdict for each in decisions.read(file, report)} == {"keep"}


def test_the_link_to_a_file_is_one_address_whatever_its_name_holds(
    tmp_path: Path, show: Callable[[Report], Any]
) -> None:
    sample = "animals/a b#1?x%20'\"<i>é🐈.png"
    (tmp_path / "animals").mkdir()
    Image.new("RGB", (24, 24)).save(tmp_path / sample)
    tables = tables_of({sample: "cat"}, root=tmp_path, classes=("dog",))
    browser = show(report_of(tables, relabel("k", tables, "L0", "dog")))
    address = browser.execute_script("return document.querySelector('#r-file-link').href")
    browser.get(address)
    assert browser.execute_script("return document.images[0].naturalWidth") == 24


def test_what_is_downloaded_is_fixed_and_nothing_else(browser: Any, downloads: Path, tmp_path: Path) -> None:
    """A real audit, decided in the page, and the file handed to the command line."""
    from dataaudit import cli

    root = tmp_path / "digits"
    write_digits(root, 120)
    moved = sorted(root.glob("*/*"))[:60:20]
    wrong = {}
    for path in moved:
        other = next(folder for folder in sorted(root.iterdir()) if folder != path.parent)
        path.rename(other / path.name)
        wrong[path.name] = (other.name, path.parent.name)
    assert cli.main(["audit", str(root), "--no-fiftyone", "--quiet", "--exit-zero"]) == 0
    before = {path.name: path.parent.name for path in root.glob("*/*")}
    page = tmp_path / ".dataaudit" / "digits" / "reports" / "report.html"
    browser.get(page.as_uri() + "#review")
    wait(lambda: browser.execute_script("return review !== null"), "the review to open")
    press(browser, "Ann", ENTER)
    choose(browser, "#r-code", "LBL001")
    expected = {}
    for verdict in ("a", "k", "o"):
        name, new = browser.execute_script("return [review.entry.imageName, review.entry.fix.new]")
        other = next(
            each for each in sorted(set(before.values())) if each not in (new, before[Path(name).name])
        )
        press(browser, verdict, *([other, ENTER] if verdict == "o" else []))
        if verdict != "k":
            expected[Path(name).name] = new if verdict == "a" else other
    file = downloaded(browser, downloads)
    assert cli.main(["fix", str(root), "--decisions", str(file), "--quiet"]) == 0
    after = {path.name: path.parent.name for path in root.glob("*/*")}
    assert {name for name in after if after[name] != before[name]} == set(expected)
    assert {name: after[name] for name in expected} == expected
    kept = [json.loads(line) for line in (page.parent.parent / "decisions.jsonl").read_text().splitlines()]
    assert [(each["verdict"], each["reviewer"]) for each in kept] == [
        ("accept", "Ann"), ("keep", "Ann"), ("other", "Ann")
    ]  # fmt: skip


def test_what_was_decided_before_the_audit_is_decided_here_and_can_be_changed(
    animals: Report, show: Callable[[Report], Any]
) -> None:
    first, *others = animals.items
    browser = show(replace(animals, items=(replace(first, decision="keep"), *others)))
    assert text(browser, "#r-progress-text") == "1 of 30 decided"
    assert text(browser, "#r-number") == "29 shown"
    choose(browser, "#r-state", "done")
    assert (current(browser), text(browser, "#r-verdict")) == (first.key, "Decided before: keep")
    press(browser, "a")
    assert said(browser) == [(first.key, "accept", None)]


def test_leaving_with_decisions_that_are_not_downloaded_is_asked_about(
    animals: Report, show: Callable[[Report], Any], downloads: Path
) -> None:
    browser = show(animals)
    asks = (
        "const leaving = new Event('beforeunload', { cancelable: true });"
        "dispatchEvent(leaving); return leaving.defaultPrevented;"
    )
    assert browser.execute_script(asks) is False
    press(browser, "a")
    assert browser.execute_script(asks) is True
    downloaded(browser, downloads)
    assert browser.execute_script(asks) is False
    press(browser, "u")
    assert browser.execute_script(asks) is False  # nothing is decided, so nothing can be lost


def test_two_tabs_on_one_page_know_of_each_other(animals: Report, show: Callable[[Report], Any]) -> None:
    browser = show(animals)
    press(browser, "a")
    first, page = browser.current_window_handle, browser.current_url
    browser.switch_to.new_window("tab")
    try:
        browser.get(page)
        wait(lambda: browser.execute_script("return review !== null"), "the review to open")
        press(browser, "k")
        both = said(browser)
        assert [verdict for _, verdict, _ in both] == ["accept", "keep"]
    finally:
        browser.close()
        browser.switch_to.window(first)
    wait(lambda: said(browser) == both, "the other tab's decision")
    assert text(browser, "#r-progress-text") == "2 of 30 decided"


def test_boxes_are_drawn_in_pixels_of_the_image_and_say_what_is_proposed(
    tmp_path: Path, show: Callable[[Report], Any]
) -> None:
    browser = show(object_report(objects_of(tmp_path)))
    seen = {}
    for _ in range(4):
        boxes = browser.execute_script(
            "return [...document.querySelectorAll('#r-stage figure:last-child rect')]"
            ".filter((one) => ['given', 'proposed'].includes(one.getAttribute('class')))"
            ".map((one) => [one.getAttribute('class'), ...['x', 'y', 'width', 'height']"
            ".map((name) => Number(one.getAttribute(name)))])"
        )
        seen[current(browser)] = (text(browser, "#r-accept-text"), boxes)
        press(browser, "s")
    assert seen == {
        "k1": ("Change to dog", [["given", 10, 10, 30, 40]]),
        "k2": ("Add an object: cat", [["proposed", 70, 60, 30, 50]]),
        "k3": ("Move the box", [["given", -20, 5, 50, 40], ["proposed", 0, 5, 30, 40]]),
        "k4": ("Remove the object", [["given", 60, 20, 50, 50]]),
    }


def test_the_review_can_be_used_by_keyboard_alone_and_at_400_pixels(
    animals: Report, show: Callable[[Report], Any]
) -> None:
    browser = show(animals)
    press(browser, "a")
    reached = set()
    for _ in range(40):
        press(browser, TAB)
        name, outline = browser.execute_script(
            "const one = document.activeElement;"
            "return [one === document.body ? 'page' : one.id, getComputedStyle(one).outlineStyle];"
        )
        reached.add(name)
        assert outline != "none" or name == "page", name
    wanted = {"r-save", "r-load", "r-help", "r-class", "r-words", "r-accept", "r-keep", "r-other", "r-bulk"}
    assert wanted <= reached
    unnamed = browser.execute_script(
        "return [...document.querySelectorAll('#r-review :is(button, input, select)')]"
        ".filter((one) => !one.textContent.trim() && !one.ariaLabel && !one.closest('label'))"
        ".map((one) => one.id)"
    )
    assert unnamed == []
    size = {"width": 400, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        assert browser.execute_script("return document.documentElement.scrollWidth") == 400
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
