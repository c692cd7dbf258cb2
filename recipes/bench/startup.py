"""How long `import dataaudit` and `dataaudit --help` take over the bare interpreter.

python recipes/bench/startup.py
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time


def seconds(command: list[str], runs: int = 15) -> float:
    times = []
    for _ in range(runs + 1):
        started = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])


if __name__ == "__main__":
    bare = seconds([sys.executable, "-c", "pass"])
    imported = seconds([sys.executable, "-c", "import dataaudit"])
    helped = seconds([sys.executable, "-m", "dataaudit.cli", "--help"])
    print(f"bare interpreter    {bare:.3f} s (median of 15)")
    print(f"import dataaudit    {imported - bare:+.3f} s over it; target 0.1 s")
    print(f"dataaudit --help    {helped - bare:+.3f} s over it; target 0.3 s")
