"""The pictures of the README and the guide: the review in the FiftyOne App, of classes and of boxes, and in
the HTML report.

    pip install selenium
    python recipes/screenshots.py docs/images

It needs Chromium and its driver. The report and the App's grid are drawn by recipes/pictures.py.
"""

import io
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pictures import browser
from PIL import Image
from selenium import webdriver
from shapes import draw

from dataaudit import cli, demo

WIDTH, HEIGHT = 1400, 860
MAX_BYTES = 300_000
COLOURS = 128
SEEN = "try { localStorage.setItem('fiftyone-enterprise-tooltip-seen', 'true') } catch {}"


def save(driver: webdriver.Chrome, path: Path) -> None:
    picture = Image.open(io.BytesIO(driver.get_screenshot_as_png())).convert("RGB")
    picture.quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
    if path.stat().st_size > MAX_BYTES:
        sys.exit(f"{path} has {path.stat().st_size:,} bytes; expected at most {MAX_BYTES:,}.")
    print(f"{path}  {picture.width} x {picture.height}, {path.stat().st_size:,} bytes")


def wait(condition: Callable[[], Any], what: str, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            sys.exit(f"Waited {seconds} s in vain: {what}")
        time.sleep(0.1)


def of_review(driver: webdriver.Chrome, data: Path, path: Path, keys: int, *more: str) -> None:
    """Audit, open the App, accept some findings and take its picture."""
    cli.main(["audit", str(data), "--exit-zero", "--quiet"])
    command = [
        sys.executable,
        "-m",
        "dataaudit",
        "review",
        str(data),
        "--no-open",
        "--reviewer",
        "ann",
        *more,
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        url = next(line.split()[-1] for line in process.stderr if "http://" in line)
        driver.get(url)
        shown = "const i = document.querySelector('.da-frame img'); return !!i && i.complete"
        wait(lambda: driver.execute_script(shown), "the first finding")
        wait(
            lambda: driver.execute_script("return document.querySelectorAll('canvas').length > 0"), "the grid"
        )
        driver.execute_script("document.querySelector('.da-root').focus()")
        for n in range(keys):
            driver.switch_to.active_element.send_keys("a")
            wait(lambda n=n: decided(driver) > n, "the verdict")
        time.sleep(3)  # the grid draws on canvases, which tell nothing
        save(driver, path)
        process.send_signal(signal.SIGINT)


def of_page(driver: webdriver.Chrome, data: Path, path: Path, keys: str) -> None:
    """The review in the report of the last audit, after some keys."""
    report = data.parent / ".dataaudit" / data.name / "reports" / "report.html"
    driver.get(report.as_uri() + "#review")
    driver.execute_script("document.querySelector('#r-ask').close(); review.decisions.setReviewer('ann');"
                          "document.querySelector('#r-code').value = 'LBL001'; review.sieve()")  # fmt: skip
    for key in keys:
        driver.switch_to.active_element.send_keys(key)
    time.sleep(0.3)
    save(driver, path)


def decided(driver: webdriver.Chrome) -> int:
    said = driver.execute_script("return document.querySelector('.da-decided').textContent")
    return int(said.split()[0])


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as home, browser() as driver:
        size = {"width": WIDTH, "height": HEIGHT, "deviceScaleFactor": 1, "mobile": False}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": SEEN})
        demo.write_digits(Path(home) / "digits")
        of_review(driver, Path(home) / "digits", folder / "review-app.png", 14, "--select", "LBL")
        of_page(driver, Path(home) / "digits", folder / "review-page.png", 12 * "a" + "s")
        draw(Path(home) / "shapes")
        of_review(driver, Path(home) / "shapes", folder / "review-app-boxes.png", 0)


if __name__ == "__main__":
    assert shutil.which("chromedriver"), "There is no chromedriver on the PATH."
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/images"))
