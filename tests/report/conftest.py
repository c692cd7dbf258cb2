from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_reports import SAMPLES, relabel, report_of, tables_of
from PIL import Image

from dataaudit.types import Finding, Fix, Locator, Outcome, Report


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Five small pictures and a broken file."""
    root = tmp_path / "photos"
    for at, sample in enumerate(SAMPLES):
        path = root / sample
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((150, 200, 3), 40 * at, np.uint8)).save(path)
    (root / "test/dog/broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 not a picture")
    return root


@pytest.fixture
def report(photos: Path) -> Report:
    """Two label errors, of which a person kept one, a duplicate that is also a leak, and a broken file."""
    tables = tables_of(SAMPLES, root=photos)
    merge = Fix(
        op="merge", sample_id="train/dog/2.jpg", label_id="L3", locator=Locator(file="train/dog/2.jpg"),
        old="dog", new="train/dog/1.jpg",
    )  # fmt: skip
    scores = pd.Series([0.02, 0.9, 0.32, 0.97, 1.0, 0.99], index=tables.labels.index)
    evidence = pd.DataFrame(
        {"message": ["To keep.", "Same bytes."], "group": ["DUP001-0", "DUP001-0"]},
        index=["train/dog/1.jpg", "train/dog/2.jpg"],
    )
    copies = pd.Series([1.0, 1.0, 1.0, 0.0, 1.0, 1.0], index=tables.images.index)
    return report_of(
        tables,
        relabel("k1", tables, "L0", "dog", score=0.02, probability=0.96),
        relabel("k2", tables, "L2", "cat", score=0.32, probability=0.4, decision="keep"),
        Finding(
            key="k3", code="DUP001", item_id="train/dog/2.jpg", sample_id="train/dog/2.jpg", score=0.0,
            probability=1.0, message="The same bytes as train/dog/1.jpg.", given="dog",
            suggested="train/dog/1.jpg", evidence={"group": "DUP001-0"}, fix=merge,
        ),
        Finding(
            key="k4", code="IMG001", item_id="test/dog/broken.jpg", sample_id="test/dog/broken.jpg",
            score=0.0, probability=1.0, message="Not an image.", given="dog",
        ),
        outcomes={
            "LBL001": Outcome(score=scores, flagged=scores < 0.5),
            "DUP001": Outcome(score=copies, flagged=copies < 0.5, evidence=evidence),
            "DUP002": Outcome(score=copies, flagged=copies > 2),
        },
        params={"backbone": "efficientnet_lite0", "select": []},
        skipped={"SPL001": "the dataset has no splits"},
        timings={"sweep": 1.5, "LBL001": 0.25, "decoded": 6.0, "total": 2.0},
    )  # fmt: skip
