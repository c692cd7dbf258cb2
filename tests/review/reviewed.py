"""A small dataset with wrong labels and hostile names, audited, for the tests of review in the App."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from pictures import write_digits

from dataaudit import pipeline, report, state
from dataaudit.types import Report, Source
from dataaudit.worklist import worklist_of

HOSTILE = "<img src=x onerror='window.ran=1'>\"& سلام 😀"
"""The class that the digits 0 go under: HTML with script, quotes, right-to-left text and an emoji."""

WRONG = (3, 13, 23, 30, 33, 43, 53)
"""Numbers of the digits that lie under a wrong class."""

__all__ = ["HOSTILE", "WRONG", "audited", "keys_of", "source_of", "write_dataset"]


def write_dataset(folder: Path) -> Path:
    """Write 60 digits, seven of them under a wrong class, with probabilities of a model beside them.

    Returns:
        The folder of the images; ``probabilities.csv`` and ``dataaudit.toml`` are beside it.
    """
    photos = folder / "photos"
    files, _ = write_digits(photos, 60)
    (photos / "0").rename(photos / HOSTILE)
    names = [HOSTILE, *(str(number) for number in range(1, 10))]
    rows = {}
    for file in files:
        true, number = file.split("/")[0], int(Path(file).stem)
        true = HOSTILE if true == "0" else true
        given = names[(names.index(true) + 3) % 10] if number in WRONG else true
        if given != true:
            (photos / true / Path(file).name).rename(photos / given / Path(file).name)
        sure = 0.9 + number / 1000
        rows[f"{given}/{Path(file).name}"] = {
            name: sure if name == true else (1 - sure) / 9 for name in names
        }
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("sample_id")
    table.to_csv(folder / "probabilities.csv")
    (folder / "dataaudit.toml").write_text('select = ["LBL001"]\n')
    return photos


def audited(photos: Path) -> Report:
    """The report of the dataset, written where ``dataaudit audit`` writes it."""
    probabilities = pd.read_csv(photos.parent / "probabilities.csv", index_col="sample_id")
    found = pipeline.audit(photos, select=("LBL001",), pred_probs=probabilities, progress=False)
    source = source_of(found)
    state.prepare(source)
    report.write(found, state.reports_dir(source))
    state.worklist_file(source).write_text(worklist_of(found).to_json(), encoding="utf-8")
    return found


def source_of(found: Report) -> Source:
    assert found.tables.source is not None
    return found.tables.source


def keys_of(found: Report) -> dict[str, str]:
    """Key of each finding by its sample id."""
    return {str(item.sample_id): item.key for item in found.items}
