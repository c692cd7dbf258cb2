"""One headless Chromium for all tests that look at a page; `conftest.py` hands its fixtures to them."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

WIDTH, HEIGHT = 1400, 900


def start(downloads: Path) -> Any:
    """A headless Chromium of 1400 x 900 pixels that saves what it downloads into a folder.

    Skips the test where there is no Chromium, no chromedriver or no selenium.
    """
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium isn't installed")
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    driver = shutil.which("chromedriver")
    if chromium is None or driver is None:
        missing = "chromium" if chromium is None else "chromedriver"
        pytest.skip(f"{missing} isn't on the PATH, so no page is looked at")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in (
        "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--hide-scrollbars",
        f"--window-size={WIDTH},{HEIGHT}", "--force-device-scale-factor=1",
    ):  # fmt: skip
        options.add_argument(argument)
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    options.set_capability("unhandledPromptBehavior", "accept")
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    browser.set_window_size(WIDTH, HEIGHT)
    return browser


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, Path]]:
    """The browser of the whole run and its folder of downloads."""
    folder = tmp_path_factory.mktemp("downloads")
    browser = start(folder)
    yield browser, folder
    browser.quit()


@pytest.fixture
def browser(chromium: tuple[Any, Path]) -> Iterator[Any]:
    """The browser on an empty page; it forgets afterwards what pages kept in it, and their messages."""
    driver, folder = chromium
    for path in folder.iterdir():
        path.unlink()
    driver.get("about:blank")
    driver.set_window_size(WIDTH, HEIGHT)
    driver.get_log("browser")
    yield driver
    driver.get("about:blank")
    driver.execute_cdp_cmd("Storage.clearDataForOrigin", {"origin": "*", "storageTypes": "all"})


@pytest.fixture
def downloads(chromium: tuple[Any, Path]) -> Path:
    """Where the browser saves what it downloads; empty when a test begins."""
    return chromium[1]


def wait(condition: Callable[[], Any], what: str, seconds: float = 10) -> Any:
    """What `condition` returns as soon as that is true; fails with `what` after some seconds."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        found = condition()
        if found:
            return found
        time.sleep(0.02)
    pytest.fail(f"Waited {seconds:g} s in vain: {what}")
