"""Ctrl-C between two steps: one in the middle of a write would leave MLflow's files unreadable."""

import signal
import sys
import threading
from types import TracebackType
from typing import Any

from pytorch_lightning import Callback


class Stopping(Callback):
    """Takes the first Ctrl-C as a wish to stop after the step, the second as one to stop at once.

    >>> with Stopping() as stopping:
    ...     stopping.check()
    """

    def __init__(self) -> None:
        self.asked = False
        self._before: Any = None

    def __enter__(self) -> "Stopping":
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._ask)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _ask(self, number: int, frame: Any) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        print("\nStopping after this step; Ctrl-C again stops at once.", file=sys.stderr)

    def check(self) -> None:
        """Stop here where it was asked for."""
        if self.asked:
            raise KeyboardInterrupt

    def on_train_batch_start(self, *_: Any) -> None:
        self.check()

    def on_validation_batch_start(self, *_: Any) -> None:
        self.check()

    def on_predict_batch_start(self, *_: Any) -> None:
        self.check()
