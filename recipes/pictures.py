"""The pictures of the README: the demo's report, and the FiftyOne App on its saved view of label errors.

    pip install selenium
    python recipes/pictures.py docs/images

It needs Chromium and its driver.
"""

import contextlib
import io
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

import dataaudit as da
from dataaudit import demo, report
from dataaudit.formats._fiftyone import connect

WIDTH = 1400
MAX_BYTES = 400_000
VIEW = "LBL001 label_error"


@contextlib.contextmanager
def browser() -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    for argument in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "hide-scrollbars"):
        options.add_argument(f"--{argument}")
    options.add_argument("--blink-settings=preferredColorScheme=1")  # light
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    driver = webdriver.Chrome(options, service)
    try:
        yield driver
    finally:
        driver.quit()


def resize(driver: webdriver.Chrome, height: int) -> None:
    metrics = {"width": WIDTH, "height": height, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def save(shot: bytes, path: Path) -> None:
    picture = Image.open(io.BytesIO(shot)).convert("RGB")
    picture.save(path, optimize=True)
    if path.stat().st_size > MAX_BYTES:
        sys.exit(f"{path} has {path.stat().st_size:,} bytes; expected at most {MAX_BYTES:,}.")
    print(f"{path}  {picture.width} x {picture.height}, {path.stat().st_size:,} bytes")


def of_report(driver: webdriver.Chrome, page: Path) -> bytes:
    resize(driver, 2240)
    driver.get(page.resolve().as_uri())
    images = "return [...document.images].filter(each => each.complete && each.naturalWidth).length"
    WebDriverWait(driver, 30).until(lambda _: driver.execute_script(images) > 5)
    return driver.get_screenshot_as_png()


def of_app(driver: webdriver.Chrome, found: da.Report) -> bytes:
    fiftyone = connect()
    resize(driver, 900)
    dataset = da.push(found)
    dataset.app_config.color_scheme = fiftyone.ColorScheme(color_by="value")
    dataset.save()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    session = fiftyone.launch_app(dataset, remote=True, address="127.0.0.1", port=port)
    driver.get(f"http://127.0.0.1:{port}/datasets/{dataset.name}?view={fiftyone.core.utils.to_slug(VIEW)}")
    n = len(dataset.load_saved_view(VIEW))
    WebDriverWait(driver, 90).until(lambda _: f"{n} samples" in driver.find_element(By.TAG_NAME, "body").text)
    for button in driver.find_elements(By.XPATH, "//button[normalize-space()='Dismiss']"):
        button.click()
    shot = when_still(driver)
    session.close()
    fiftyone.delete_dataset(dataset.name)
    return shot


def when_still(driver: webdriver.Chrome) -> bytes:
    """A screenshot, once three in a row are the same: the App draws on canvases, which tell nothing."""
    shots: list[bytes] = []
    WebDriverWait(driver, 60, poll_frequency=1).until(
        lambda _: shots.append(driver.get_screenshot_as_png()) or len(set(shots[-3:])) == 1 < len(shots) - 1
    )
    return shots[-1]


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as home, browser() as driver:
        demo.write_digits(Path(home) / "digits")
        found = da.audit(Path(home) / "digits", progress=False)
        files = report.write(found, Path(home) / "report")
        save(of_report(driver, files["report.html"]), folder / "report.png")
        save(of_app(driver, found), folder / "app.png")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/images"))
