"""Reports with findings to decide, made by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dataaudit import formats
from dataaudit.checks.box_fixes import BoxFixes
from dataaudit.formats._shared import ObjectRows
from dataaudit.types import Finding, Fix, Locator, Report, Source


def image_report(tmp_path: Path) -> Report:
    """Two cats that look like dogs, one of them named by two checks, and a finding without a fix."""
    for name in ("cat/1.jpg", "cat/2.jpg", "dog/3.jpg"):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).write_bytes(b"")
    tables = formats.read(tmp_path / "photos")

    def finding(key: str, code: str, sample: str, new: str | None) -> Finding:
        fix = new and Fix(
            op="relabel", sample_id=sample, label_id=sample, locator=Locator(file=sample), old="cat", new=new
        )
        return Finding(
            key=key, code=code, item_id=sample, sample_id=sample, score=0.1, probability=0.9,
            message='=1+1, "quoted"', given="cat", suggested=new, fix=fix or None,
        )  # fmt: skip

    items = (
        finding("k1", "LBL001", "cat/1.jpg", "dog"),
        finding("k2", "LBL001", "cat/2.jpg", "dog"),
        finding("k3", "LBL002", "cat/2.jpg", "dog"),
        finding("k4", "LBL002", "cat/2.jpg", "dog"),
        finding("k5", "IMG001", "dog/3.jpg", None),
    )
    return Report(digest="", params={}, outcomes={}, items=items, skipped={}, timings={}, tables=tables)


def object_report(tmp_path: Path) -> Report:
    """A cat that may be a dog, one whose box is loose, one that is missing, and an odd image, 100 x 80."""
    rows = ObjectRows()
    rows.image("a.jpg", str(tmp_path / "a.jpg"), Locator(file="a.xml"), size=(100, 80))
    for number in (1, 2):
        corners = (10.0 * number, 10.0, 10.0 * number + 20, 30.0)
        rows.object("a.jpg", f"a.jpg:{number}", "cat", corners, Locator(file="a.xml", item=number))
    source = Source(format="voc", root=tmp_path, path=str(tmp_path), anchor=tmp_path)
    tables = rows.tables(source=source, classes=["cow", "dog"])
    fixes = BoxFixes(tables.labels, tables.images, tables.units)
    box, loose, new = (10.0, 10.0, 30.0, 30.0), (20.0, 10.0, 40.0, 30.0), (50.0, 50.0, 70.0, 70.0)

    def finding(key: str, code: str, fix: Fix | None, **more: Any) -> Finding:
        item = fix.label_id if fix is not None else "a.jpg"
        return Finding(
            key=key, code=code, item_id=item, sample_id="a.jpg", score=0.1, probability=0.9, message="",
            fix=fix, **more,
        )  # fmt: skip

    items = (
        finding("class", "BOX002", fixes.relabel("a.jpg:1", "dog"), given="cat", suggested="dog", box=box),
        finding(
            "loose", "BOX005", fixes.move("a.jpg:2", (22, 12, 38, 28)), given="cat", box=loose,
            suggested_box=(22.0, 12.0, 38.0, 28.0),
        ),
        finding("missing", "BOX003", fixes.add("a.jpg", "dog", new), suggested="dog", suggested_box=new),
        finding("dark", "IMG003", None),
    )  # fmt: skip
    return Report(digest="", params={}, outcomes={}, items=items, skipped={}, timings={}, tables=tables)
