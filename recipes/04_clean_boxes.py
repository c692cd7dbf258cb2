"""Clean up boxes: look, audit, correct the surest ones in their files, audit again, and take it back.

    python recipes/04_clean_boxes.py photos/

The dataset may be COCO, YOLO, Pascal VOC, KITTI or CVAT. Without an argument a small one is drawn into
drawn/, with errors in its YOLO labels.
"""

import sys
from pathlib import Path

from shapes import draw

import dataaudit as da
from dataaudit import report


def clean_up(folder: Path) -> None:
    reports = folder.parent / ".dataaudit" / folder.name / "reports"
    page = da.show(folder, n=12)  # a notebook shows it by itself
    print("A quick look:", page.write(reports / "show.html"))

    found = da.audit(folder, progress=False)
    boxes = found.findings[found.findings["code"].str.startswith("BOX")]
    print(boxes[["code", "sample_id", "given", "suggested", "probability"]].to_string(index=False))
    print("Given and proposed boxes, drawn:", report.write(found, reports)["report.html"])

    # What a person decided goes in the same way: da.plan(found, decisions=reports / "findings.csv")
    plan = da.plan(found, min_probability=0.8, codes=["BOX"])
    print(plan.diff())
    da.apply(plan, reviewer="recipe 04")

    left = da.audit(folder, progress=False).findings["code"].str.startswith("BOX").sum()
    print(f"{len(boxes)} findings before and {left} after {len(plan)} fixes.")
    print(f"Took back {da.undo(folder).fixes} fixes.")


if __name__ == "__main__":
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "drawn")
    if len(sys.argv) == 1 and not folder.exists():
        draw(folder)
    clean_up(folder)
