"""Watch production: is what the model sees still what it was trained on?

    python recipes/07_drift.py photos/ production/

Once, keep what is known of the training images in a file; it holds no images, so that it can go where the
model goes:

    dataaudit model drift photos/ --save-reference reference.npz

Then daily, as a job whose exit code is 1 where something drifted:

    dataaudit model drift reference.npz production/2026-11-23/ --fail-on "any>0" --output reports/
    dataaudit model drift --outcomes outcomes.csv  # time, given, predicted: when did accuracy change?
"""

import sys
from pathlib import Path

from dataaudit.modelcheck.drift import drift, read_side, save_side
from dataaudit.modelcheck.reporting import write


def watch(reference: str, production: str) -> int:
    file = Path("reference.npz")
    if not file.exists():
        save_side(read_side(reference), file)

    report = drift(file, production)
    for item in report.items:
        print(f"{item.code} {item.evidence['what']}")
        for example in item.evidence["examples"][:3]:
            print(f"  {example['production']} (nearest in the reference: {example['reference']})")
    print(f"Report: {write(report, 'reports')['html']}")
    return 1 if report.items else 0


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    sys.exit(watch(sys.argv[1], sys.argv[2]))
