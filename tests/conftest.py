"""Small real image folders that several tests read."""

from __future__ import annotations

from pathlib import Path

import pytest
from pictures import write_digits
from PIL import Image


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
