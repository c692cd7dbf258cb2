"""The review in the HTML report with 5,000 findings: from key to next finding, loading, size of the file.

python recipes/bench/review_page.py CIFAR10H --photos FOLDER

The findings, their probabilities and their nearest images are drawn at random, the pictures are real: those
of CIFAR-10H and, with --photos, crops of 500 x 375 pixels out of a folder of photographs, such as coco128.
Times are taken in the page, from the event of the key to after the frame with the next picture, decoded.
Needs Chromium and chromedriver.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from _data import arguments
from PIL import Image

from dataaudit.report import summarize, write
from dataaudit.types import Finding, Fix, Locator, Neighbors, Report, Tables
from dataaudit.worklist import worklist_of

N, KEYS = 5_000, 200
CLASSES = tuple(f"class {letter}" for letter in "abcdefghij")
WATCH = """
window.keyTimes = [];
addEventListener("keydown", async (event) => {
  const image = document.querySelector("#r-stage img");
  if (image) await image.decode();
  requestAnimationFrame(() => {
    const channel = new MessageChannel();
    channel.port1.onmessage = () => keyTimes.push(performance.now() - event.timeStamp);
    channel.port2.postMessage(null);
  });
});
"""


def report_of(paths: list[Path]) -> Report:
    """5,000 findings on the first images, each with six of all images as its nearest."""
    rng = np.random.default_rng(0)
    ids = pd.Index([f"photos/{at:05d}-{path.name}" for at, path in enumerate(paths)], name="sample_id")
    images = pd.DataFrame(
        {"filepath": [str(path) for path in paths], "width": 500, "height": 375, "split": None,
         "digest": [f"{at:032x}" for at in range(len(paths))]}, index=ids, dtype=object,
    )  # fmt: skip
    given, other = rng.integers(10, size=len(paths)), rng.integers(1, 10, size=len(paths))
    labels = pd.DataFrame(
        {"sample_id": ids, "name": [CLASSES[at] for at in given], "geometry": None,
         "locator": [Locator(file=name) for name in ids]},
        index=pd.Index([f"L{at}" for at in range(len(paths))], name="label_id"), dtype=object,
    )  # fmt: skip
    tables = Tables(images=images, labels=labels, classes=CLASSES)
    chances = np.sort(rng.random(N))[::-1]
    items = []
    for at in range(N):
        new = CLASSES[(given[at] + other[at]) % 10]
        fix = Fix(op="relabel", sample_id=ids[at], label_id=f"L{at}", locator=Locator(file=ids[at]),
                  old=CLASSES[given[at]], new=new)  # fmt: skip
        items.append(
            Finding(key=f"{at:012x}", code="LBL001", item_id=f"L{at}", sample_id=ids[at], given=fix.old,
                    suggested=new, score=float(1 - chances[at]), probability=float(chances[at]),
                    message=f"The baseline gives '{fix.old}' 3.0% and '{new}' 91%; 29 of its 50 nearest "
                            f"images are '{new}', 3 '{fix.old}'.", fix=fix)
        )  # fmt: skip
    near = Neighbors(ids=ids, indices=rng.integers(len(paths), size=(len(paths), 6)),
                     similarities=np.full((len(paths), 6), 0.5, np.float32))  # fmt: skip
    return Report(digest="d", params={}, outcomes={}, items=tuple(items), skipped={}, timings={},
                  tables=tables, signals={"neighbors": near})  # fmt: skip


def crops(folder: Path, into: Path, n: int) -> list[Path]:
    """Parts of photographs, 500 x 375, all different."""
    rng = np.random.default_rng(0)
    photos = [Image.open(path).convert("RGB") for path in sorted(folder.rglob("*.jpg"))]
    paths = []
    for at in range(n):
        photo = photos[at % len(photos)]
        scale = max(500 / photo.width, 375 / photo.height) * rng.uniform(1, 1.4)
        left, top = rng.random(2) * (photo.width - 500 / scale, photo.height - 375 / scale)
        box = (left, top, left + 500 / scale, top + 375 / scale)
        paths.append(into / f"{at:05d}.jpg")
        photo.resize((500, 375), box=box).save(paths[-1], quality=90)
    return paths


def start() -> Any:
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or shutil.which("google-chrome") or ""
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1400,900"):
        options.add_argument(argument)
    options.set_capability("unhandledPromptBehavior", "accept")
    return webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))


def measured(page: Path) -> dict[str, float]:
    """Times in milliseconds."""
    from selenium.webdriver.common.action_chains import ActionChains

    browser = start()
    try:
        browser.get(page.as_uri())
        painted, loaded = browser.execute_script(
            "const [paint] = performance.getEntriesByName('first-contentful-paint');"
            "const [page] = performance.getEntriesByType('navigation');"
            "return [paint.startTime, page.loadEventEnd];"
        )
        opened = browser.execute_async_script(
            "const done = arguments[0], begin = performance.now(); location.hash = 'review';"
            "addEventListener('hashchange', async () => {"
            "await document.querySelector('#r-stage img').decode();"
            "requestAnimationFrame(() => setTimeout(() => done(performance.now() - begin))); });"
        )
        browser.execute_script("document.querySelector('#r-ask').close();" + WATCH)
        keys = ("a", "k", "a", "s")
        for at in range(KEYS):
            ActionChains(browser, duration=0).send_keys(keys[at % len(keys)]).perform()
            for _ in range(1000):
                if browser.execute_script("return keyTimes.length") > at:
                    break
        times = np.array(browser.execute_script("return keyTimes"))
        decided = browser.execute_script("return review.decisions.count")
        assert decided == KEYS, decided
    finally:
        browser.quit()
    return {
        "painted": painted, "loaded": loaded, "opened": opened, "median": float(np.median(times)),
        "p95": float(np.quantile(times, 0.95)), "worst": float(times.max()),
    }  # fmt: skip


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--photos", type=Path, help="folder with photographs")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        sets = {"CIFAR-10H, 32 x 32": sorted((options.data / "images").rglob("*.jpg"))[:10_000]}
        if options.photos:
            (folder / "photos").mkdir()
            sets["photographs, 500 x 375"] = crops(options.photos, folder / "photos", 10_000)
        for name, paths in sets.items():
            report = report_of(paths)
            worklist, summary = worklist_of(report), summarize(report)
            seconds = []
            for _ in range(2):
                begin = time.perf_counter()
                files = write(summary, folder / name, thumbnails=folder / f"{name} kept", worklist=worklist)
                seconds.append(time.perf_counter() - begin)
            size = files["report.html"].stat().st_size / 1e6
            found = measured(files["report.html"])
            print(f"{name}: {N:,} findings, {size:.1f} MB; target 40 MB")
            print(f"  written in {seconds[0]:.1f} s, again in {seconds[1]:.1f} s")
            print(f"  first paint {found['painted']:.0f} ms, loaded {found['loaded']:.0f} ms, "
                  f"review opens in {found['opened']:.0f} ms")  # fmt: skip
            print(f"  key to next finding: median {found['median']:.1f} ms, "
                  f"95 % {found['p95']:.1f} ms, worst {found['worst']:.1f} ms; target 50 ms")  # fmt: skip


if __name__ == "__main__":
    main()
