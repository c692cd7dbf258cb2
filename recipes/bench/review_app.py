"""Review in the FiftyOne App: from the command to the first finding, and from a key to the next finding.

    python recipes/bench/review_app.py CIFAR10H [--folder FOLDER] [--runs 3]

CIFAR-10H's 10,000 images with labels that people gave are audited once; FOLDER keeps them for another run.
Then, in turn, FiftyOne's own `launch_app` on the same dataset is timed to its grid, and `dataaudit review` to
its first finding with its picture, each from the start of the process, in one headless Chromium that is open
before. Keys are timed in the page, from the event to after the frame that shows the next finding, its picture
loaded. Needs Chromium and chromedriver, and a MongoDB in FIFTYONE_DATABASE_URI where other programs use
FiftyOne at the same time.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from _data import arguments, drawn, write_tree
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains

from dataaudit import formats, state, tables

KEYS = 60
SETTINGS = "[settings.LBL001]\nmin_probability = 0.005\nmax_findings = 930\n"
"""With the other checks' these are about 1,000 findings; left to itself the audit flags some 500 labels."""
PAUSE = 0.15  # seconds between keys: nobody looks at a finding for less
LAUNCH = "import fiftyone as fo, sys; fo.launch_app(fo.load_dataset(sys.argv[1]), remote=True, \
address='127.0.0.1', port=int(sys.argv[2])).wait(-1)"
GRID = "return document.querySelectorAll('canvas').length > 0"
FINDING = "const i = document.querySelector('.da-frame img'); return !!i && i.complete && i.naturalWidth > 0"
WATCH = """
window.keyTimes = [];
addEventListener("keydown", (event) => {
  const shown = () => document.querySelector(".da-finding");
  const before = shown() && shown().dataset.finding;
  const look = () => {
    const image = shown() && shown().dataset.finding !== before && shown().querySelector(".da-frame img");
    if (!image || !image.complete || !image.naturalWidth) return requestAnimationFrame(look);
    const channel = new MessageChannel();
    channel.port1.onmessage = () => keyTimes.push(performance.now() - event.timeStamp);
    requestAnimationFrame(() => channel.port2.postMessage(null));
  };
  requestAnimationFrame(look);
}, true);
document.querySelector(".da-root").focus();
"""


@contextlib.contextmanager
def chromium() -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    for argument in (
        "headless=new",
        "no-sandbox",
        "disable-gpu",
        "disable-dev-shm-usage",
        "window-size=1400,900",
    ):
        options.add_argument(f"--{argument}")
    options.page_load_strategy = "none"
    browser = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    seen = "try { localStorage.setItem('fiftyone-enterprise-tooltip-seen', 'true') } catch {}"
    browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": seen})
    # A second start finds FiftyOne's scripts in the browser's cache, the first doesn't
    browser.execute_cdp_cmd("Network.enable", {})
    browser.execute_cdp_cmd("Network.setCacheDisabled", {"cacheDisabled": True})
    try:
        yield browser
    finally:
        browser.quit()


def until(condition: Callable[[], Any], what: str, seconds: float = 300) -> Any:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.01)
    sys.exit(f"Waited {seconds} s in vain: {what}")


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def listens(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


def shows(browser: webdriver.Chrome, script: str) -> bool:
    try:
        return bool(browser.execute_script(script))
    except Exception:
        return False


@contextlib.contextmanager
def ended(process: subprocess.Popen[str]) -> Iterator[None]:
    try:
        yield
    finally:
        process.terminate()
        process.wait(60)


def launched(browser: webdriver.Chrome, name: str) -> float:
    """Seconds from the start of FiftyOne's own App to its grid."""
    port, started = free_port(), time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-c", LAUNCH, name, str(port)], stdout=subprocess.DEVNULL, text=True
    )
    with ended(process):
        until(lambda: listens(port), "FiftyOne's server")
        browser.get(f"http://localhost:{port}/datasets/{name}")
        until(lambda: shows(browser, GRID), "FiftyOne's grid")
        return time.perf_counter() - started


def reviewed(browser: webdriver.Chrome, photos: Path, keys: int = 0) -> tuple[float, list[float]]:
    """Seconds from the start of the command to its first finding, and milliseconds of each key."""
    port, started = free_port(), time.perf_counter()
    command = [sys.executable, "-m", "dataaudit", "review", str(photos), "--no-open", "--port", str(port)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    with ended(process):
        assert process.stderr is not None
        url = next(line.split(": ")[-1].strip() for line in process.stderr if "http://" in line)
        browser.get(url)
        until(lambda: shows(browser, FINDING), "the first finding")
        seconds = time.perf_counter() - started
        if keys:
            until(lambda: shows(browser, GRID), "the grid")
            time.sleep(3)
            browser.execute_script(WATCH)
        for n in range(keys):
            time.sleep(PAUSE)
            accepts = n % 2 and shows(
                browser, "return document.querySelector('.da-key-a').matches(':enabled')"
            )
            ActionChains(browser, duration=0).send_keys("a" if accepts else "k").perform()
            until(lambda n=n: browser.execute_script("return keyTimes.length") > n, "the next finding")
        return seconds, browser.execute_script("return keyTimes") if keys else []


def prepared(data: Path, folder: Path) -> Path:
    """The images, audited and in FiftyOne."""
    photos = folder / "photos"
    if not photos.exists():
        write_tree(data, photos, drawn(data, 0))
        (folder / "dataaudit.toml").write_text(SETTINGS)
    subprocess.run(
        [sys.executable, "-m", "dataaudit", "audit", str(photos), "--exit-zero", "--quiet"],
        check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    return photos


def measure(photos: Path, runs: int) -> None:
    source = formats.read(photos).source
    assert source is not None
    name = tables.dataset_name(source)
    findings = len(json.loads(state.worklist_file(source).read_text())["entries"])
    print(f"{len(formats.read(photos).images):,} images, {findings:,} findings")
    own, ours, keys = [], [], []
    with chromium() as browser:
        for run in range(runs):
            state.decisions_file(source).unlink(missing_ok=True)
            own.append(launched(browser, name))
            seconds, times = reviewed(browser, photos, KEYS if run == runs - 1 else 0)
            ours.append(seconds)
            keys += times
            print(
                f"run {run + 1}: launch_app to its grid {own[-1]:.1f} s, review to a finding {seconds:.1f} s"
            )
    theirs, mine, key = map(statistics.median, (own, ours, keys))
    print(f"median {theirs:.1f} s and {mine:.1f} s: {mine / theirs:.2f} times (target 1.2)")
    slow = statistics.quantiles(keys, n=20)[-1]
    print(f"key to next finding: median {key:.0f} ms (target 300), 95 % {slow:.0f} ms, {KEYS} keys")
    kept = len(state.decisions_file(source).read_text().splitlines())
    # Findings that propose the same fix are answered together
    print(f"lines on the disk: {kept}, at least {KEYS} expected")


if __name__ == "__main__":
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, help="keeps the audited images for another run")
    parser.add_argument("--runs", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        os.environ.setdefault("FIFTYONE_DATABASE_DIR", f"{given.folder or scratch}/database")
        os.environ.setdefault("FIFTYONE_DO_NOT_TRACK", "true")
        measure(prepared(given.data, given.folder or Path(scratch)), given.runs)
