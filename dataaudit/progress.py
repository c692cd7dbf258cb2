"""Progress of long work, with rate and time left, on standard error."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator

__all__ = ["bar"]


@contextlib.contextmanager
def bar(
    description: str, *, unit: str = "images", shown: bool = True
) -> Iterator[Callable[[int, int], None] | None]:
    """A progress bar; yields the function to call with the numbers done and of all, or None when it isn't
    shown.

    Without a terminal, as in CI, a line is written every 30 seconds instead of a moving bar.
    """
    if not shown:
        yield None
        return
    from tqdm import tqdm  # type: ignore[import-untyped]

    # Another program, such as the App's panel, may want to know more often than a log
    written = float(os.environ.get("DATAAUDIT_PROGRESS_SECONDS", 30))
    interval = 0.1 if sys.stderr.isatty() else written
    with tqdm(
        desc=description, unit=f" {unit}", mininterval=interval, dynamic_ncols=True, delay=0.5
    ) as shown_bar:

        def update(done: int, total: int) -> None:
            shown_bar.total = total
            shown_bar.update(done - shown_bar.n)

        yield update
