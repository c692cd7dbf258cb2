"""Small real image folders that several tests read."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import pytest
from browser import browser as browser
from browser import chromium as chromium
from browser import downloads as downloads
from pictures import write_digits
from PIL import Image

# Before fiftyone is imported by any test: nobody's datasets, settings and decisions are touched
_HOME = Path(tempfile.mkdtemp(prefix="dataaudit-tests-"))
atexit.register(shutil.rmtree, _HOME, ignore_errors=True)
os.environ |= {
    "FIFTYONE_DATABASE_DIR": str(_HOME / "database"),
    # FiftyOne attaches to any mongod that it started before, so the name has to keep the tests apart
    "FIFTYONE_DATABASE_NAME": _HOME.name,
    "FIFTYONE_CONFIG_PATH": str(_HOME / "config.json"),
    "XDG_DATA_HOME": str(_HOME / "data"),
}

# A shell's background job ignores Ctrl-C, and so would every command that a test starts and interrupts
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_sessionfinish() -> None:
    if "fiftyone.core.odm.database" in sys.modules and "FIFTYONE_PRIVATE_DATABASE_PORT" in os.environ:
        sys.modules["fiftyone.core.odm.database"].drop_database()


@pytest.fixture(scope="session")
def digit_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 digits in a class-per-folder tree; read only."""
    root = tmp_path_factory.mktemp("digits") / "digits"
    write_digits(root, 120)
    return root


@pytest.fixture(scope="session")
def crops() -> list[Image.Image]:
    """80 different 160 x 160 crops of scikit-learn's two photographs."""
    from sklearn.datasets import load_sample_images

    found = []
    for picture in load_sample_images().images:
        for top in range(0, 400, 80):
            for left in range(0, 480, 60):
                found.append(Image.fromarray(picture[top : top + 160, left : left + 160]))
    return found
