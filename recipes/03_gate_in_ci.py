"""A gate in CI: fail when too many labels are doubtful, and show each of them at its file.

    python recipes/03_gate_in_ci.py photos/ "LBL>1%" "SPL001>0"

It exits with 1 over the gate and writes dataaudit.sarif. From the command line the same is

    dataaudit audit photos/ --no-fiftyone --fail-on "LBL>1%" --format sarif > dataaudit.sarif

and in a workflow of GitHub Actions:

    - run: pip install dataaudit
    - uses: actions/cache@v4  # an audit pays only for the images that changed
      with:
        path: .dataaudit/cache
        key: dataaudit-${{ github.sha }}
        restore-keys: dataaudit-
    - run: dataaudit audit photos/ --no-fiftyone --fail-on "LBL>1%" --format sarif > dataaudit.sarif
    - uses: github/codeql-action/upload-sarif@v3
      if: always()
      with:
        sarif_file: dataaudit.sarif

A finding that a person decided to keep, in the committed .dataaudit/photos/decisions.jsonl, doesn't count.
"""

import sys
from pathlib import Path

import dataaudit as da
from dataaudit import report


def gate(folder: str, rules: list[str]) -> int:
    report.check_rules(rules)  # a slip in a rule should not cost an audit
    found = da.audit(folder, progress=False)
    Path("dataaudit.sarif").write_text(report.to_sarif(found, base=Path.cwd()))

    breaches = report.gate(found, rules)
    for breach in breaches:
        print(f"Over the gate: {breach.message}")
    return 1 if breaches else 0


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    sys.exit(gate(sys.argv[1], sys.argv[2:] or ["any>0"]))
