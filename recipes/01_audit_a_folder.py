"""Audit a folder of labeled images, and print what looks wrong.

    python recipes/01_audit_a_folder.py photos/

The folder holds a folder for each class, with or without train, val and test above them. Without an argument,
scikit-learn's digits are audited, with planted errors.
"""

import sys
import tempfile
from pathlib import Path

import dataaudit as da
from dataaudit import demo, report


def audit(folder: Path) -> None:
    found = da.audit(folder)

    # The findings are a pandas DataFrame, worst first: filter and group them as you like.
    findings = found.findings
    print(findings.groupby("code").size().rename("findings").to_string(), end="\n\n")

    labels = findings[findings["code"] == "LBL001"]
    print(
        f"{labels['probability'].sum():.0f} of the {len(labels)} doubtful labels are expected to be wrong:\n"
    )
    print(labels[["sample_id", "given", "suggested", "probability"]].head(10).to_string(index=False))

    # One page with all the pictures, to look at in a browser.
    files = report.write(found, folder.parent / ".dataaudit" / folder.name / "reports")
    print(f"\nReport: {files['report.html']}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        audit(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as home:
            demo.write_digits(Path(home) / "digits")
            audit(Path(home) / "digits")
