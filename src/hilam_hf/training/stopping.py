"""Signals that ask a run to end, heeded once the step in hand is done."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

# SIGUSR1 is what SLURM's --signal sends by habit; Windows has none.
SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name)]
_IMPATIENT_AFTER = 1.0


class StopRequest:
    """Which signal asked the run to end, if one did."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._at = 0.0

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Within it signals only note themselves; a second Ctrl-C, a second later or more, ends the run at once."""
        if threading.current_thread() is not threading.main_thread():
            # Python hands signals to the main thread alone.
            yield
            return
        before: dict[signal.Signals, Any] = {number: signal.signal(number, self._note) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _note(self, number: int, _: FrameType | None) -> None:
        now = time.monotonic()
        # A terminal's Ctrl-C reaches a process twice, by itself and through the launcher.
        if self.signal is not None and number == signal.SIGINT and now - self._at > _IMPATIENT_AFTER:
            raise KeyboardInterrupt
        if self.signal is None:
            self.signal, self._at = signal.Signals(number), now
