"""Clean up labels: audit, fix, keep both states as versions, see what it changed, and take it back.

    python recipes/02_clean_up_labels.py photos/

The folder's own files are edited; git and DVC keep each version beside it.
"""

import sys
from pathlib import Path

import dataaudit as da


def clean_up(folder: Path) -> None:
    found = da.audit(folder, progress=False)
    before = da.commit(folder, message="as it came")
    print(f"{before.name}: {len(found.items)} findings")

    # Here the surest ones; a person's decisions go in the same way: da.plan(found, decisions="decisions.csv")
    plan = da.plan(found, min_probability=0.8)
    print(plan.diff())
    da.apply(plan, reviewer="recipe 02")

    left = da.audit(folder, progress=False)  # only what changed is looked at again
    after = da.commit(folder, message=f"{len(plan)} fixes")
    print(f"{after.name}: {len(left.items)} findings\n")

    print(da.diff(folder, before.name, after.name).to_text(limit=5), end="\n\n")
    print(da.compare(folder, [before.name, after.name], progress=False).to_text(), end="\n\n")

    # Every fix is in a ledger, so the files can go back to the same bytes.
    undone = da.undo(folder)
    print(f"Took back {undone.fixes} fixes.")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    clean_up(Path(sys.argv[1]))
