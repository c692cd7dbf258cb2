"""Audit a folder of labeled images, and print what looks wrong.

    python recipes/01_audit_a_folder.py photos/

The folder holds a folder for each class, with or without train, val and test above them. Without an argument
scikit-learn's digits are audited, written to digits/ with planted errors.
"""

import sys
from pathlib import Path

import dataaudit as da
from dataaudit import demo, report


def audit(folder: Path) -> None:
    found = da.audit(folder)

    # The findings are a pandas DataFrame, worst first: filter and group them as you like.
    findings = found.findings
    print(findings.groupby("code").size().rename("findings").to_string(), end="\n\n")

    labels = findings[findings["code"] == "LBL001"]
    print(f"Of {len(labels)} doubtful labels about {labels['probability'].sum():.0f} are wrong. The worst:\n")
    print(labels[["sample_id", "given", "suggested", "probability"]].head(10).to_string(index=False))

    # One page with all the pictures, to look at in a browser.
    files = report.write(found, folder.parent / ".dataaudit" / folder.name / "reports")
    print(f"\nReport: {files['report.html']}")


if __name__ == "__main__":
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "digits")
    if len(sys.argv) == 1 and not folder.exists():
        demo.write_digits(folder)
    audit(folder)
