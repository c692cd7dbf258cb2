"""A review in the FiftyOne App, with a real browser: keys in, files out."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import wait
from databases import fiftyone
from reviewed import HOSTILE, WRONG, audited, keys_of, write_dataset

import dataaudit as da
from dataaudit import decisions, state
from dataaudit.types import Source

_SLOW = 90  # seconds: two cores start a database, a server and the App
_SEEN = "try { localStorage.setItem('fiftyone-enterprise-tooltip-seen', 'true') } catch {}"
"""Keeps FiftyOne's advertisement from opening over the page and taking the keys."""


class Panel:
    """The panel as a person sees and uses it."""

    def __init__(self, browser: Any, url: str) -> None:
        self.browser, self.url = browser, url
        made = browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": _SEEN})
        browser.get(url)
        wait(self.key, "the first finding", _SLOW)
        browser.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", made)
        focused = "return document.activeElement.classList.contains('da-root')"
        wait(lambda: self.script(focused), "the keys to be heard", _SLOW)

    def key(self) -> str | None:
        found: str | None = self.script(
            "const f = document.querySelector('.da-finding'); return f && f.dataset.finding"
        )
        return found

    def script(self, text: str) -> Any:
        return self.browser.execute_script(text)

    def text(self, selector: str) -> str:
        return str(
            self.script(
                f"return [...document.querySelectorAll('{selector}')].map(e => e.textContent).join('|')"
            )
        )

    def press(self, *keys: str) -> None:
        """Press keys, each of which brings another finding."""
        from selenium.webdriver.common.action_chains import ActionChains

        for key in keys:
            before = self.key()
            ActionChains(self.browser).send_keys(key).perform()
            wait(lambda before=before: self.key() != before, f"another finding after {key}", _SLOW)

    def type(self, text: str) -> None:
        from selenium.webdriver.common.action_chains import ActionChains

        ActionChains(self.browser).send_keys(text).perform()

    def until(self, selector: str, text: str) -> None:
        wait(lambda: text in self.text(selector), f"{text!r} in {selector}", _SLOW)

    def click(self, selector: str) -> None:
        self.script(f"document.querySelector('{selector}').click()")


@pytest.fixture(scope="module")
def review(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Source, str, dict[str, str]]]:
    """`dataaudit review` of a small dataset: the source, the page, the keys of findings by sample id."""
    fiftyone()
    folder = tmp_path_factory.mktemp("app")
    report = audited(write_dataset(folder))
    da.push(report)
    assert report.tables.source is not None
    command = [
        sys.executable, "-m", "dataaudit", "review", "photos", "--reviewer", "ann", "--no-open",
        "--pred-probs", "probabilities.csv",
    ]  # fmt: skip
    with subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = []
        for line in process.stderr:
            said.append(line)
            if "http://" in line:
                break
        else:
            pytest.fail("".join(said))
        yield report.tables.source, line.split()[-1], keys_of(report)
        process.send_signal(signal.SIGINT)
        process.wait(30)
        last = process.stderr.read()
    # Ctrl-C is how a review ends
    assert process.returncode == 0
    assert "ann has decided" in last
    assert "Traceback" not in last


def verdicts(source: Source) -> dict[str, str]:
    return {key: each.verdict for key, each in decisions.latest(source).items()}


@pytest.mark.timeout(300)
def test_a_review_from_the_first_key_to_the_corrected_files(
    review: tuple[Source, str, dict[str, str]], browser: Any
) -> None:
    source, url, keys = review
    photos = Path(source.path)
    panel = Panel(browser, url)
    seen = [panel.key()]

    # Keys: accept, keep and undo, each on the disk at once
    panel.press("a")
    seen.append(panel.key())
    panel.press("k")
    panel.until(".da-decided", f"2 of {len(WRONG)} decided")
    assert verdicts(source) == {seen[0]: "accept", seen[1]: "keep"}
    panel.press("u")
    assert panel.key() == seen[1]
    assert verdicts(source) == {seen[0]: "accept"}

    # Loaded again, it goes on where it was
    panel = Panel(browser, url)
    panel.until(".da-decided", f"1 of {len(WRONG)} decided")
    assert panel.key() != seen[0]

    # A filter, and names that are HTML are text
    panel.script(
        "const s = document.querySelector('select.da-classes');"
        "const set = Object.getOwnPropertyDescriptor(HTMLSelectElement.prototype, 'value').set;"
        f"set.call(s, {HOSTILE!r}); s.dispatchEvent(new Event('change', {{bubbles: true}}))"
    )
    hostile = {keys["3/0030.png"], keys[f"{HOSTILE}/0043.png"]} - {seen[0]}
    wait(lambda: panel.key() in hostile, "a finding of the class", _SLOW)
    assert HOSTILE in panel.text(".da-facts bdi")
    assert panel.script(
        "return [...document.querySelectorAll('.da-root img')].every(e => e.src.includes('/media'))"
    )
    assert panel.script("return window.ran") is None

    # Another class, by its name; the filter has the right finding
    decided = panel.key()
    panel.script("document.querySelector('.da-root').focus()")
    panel.type("o")
    wait(lambda: panel.script("return document.activeElement.tagName") == "INPUT", "the field", _SLOW)
    panel.press("9\ue007")  # Enter
    wait(lambda: verdicts(source).get(str(decided)) == "other", "the verdict on the disk", _SLOW)

    # The files, after the button
    panel.click(".da-apply")
    panel.until(".da-done", "Applied 2 fixes")
    moved = {each.fix.new: each.fix.sample_id for each in decisions.latest(source).values() if each.fix}
    assert len(moved) == 2
    for new, sample_id in moved.items():
        assert not (photos / sample_id).exists()
        assert (photos / str(new) / Path(sample_id).name).is_file()


def test_a_verdict_that_cannot_be_written_is_shown_and_asked_again(
    review: tuple[Source, str, dict[str, str]], browser: Any
) -> None:
    source, url, _ = review
    panel = Panel(browser, url)
    first, before = panel.key(), verdicts(source)
    with a_folder_in_place_of(state.decisions_file(source)):
        panel.type("k")
        panel.until(".da-error", "Not written")
        assert panel.key() == first
    assert verdicts(source) == before


@contextlib.contextmanager
def a_folder_in_place_of(file: Path) -> Iterator[None]:
    file.touch()
    aside = file.rename(file.with_suffix(".aside"))
    file.mkdir()
    try:
        yield
    finally:
        file.rmdir()
        aside.rename(file)
