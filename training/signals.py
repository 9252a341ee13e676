"""Signals that end a run in good order: finish the step, save, exit."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Any

EXIT_CODES = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGUSR1: 0}
"""What a program that was asked to stop returns; SIGUSR1 is what a batch system sends before the time is up."""


class StopSignals:
    """While it is open, `received` tells the last of the signals, 0 for none. A second Ctrl-C ends the program at once.

    In the main thread only, as Python wants it.
    """

    def __init__(self) -> None:
        self.received = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        self._before = {number: signal.signal(number, self._note) for number in EXIT_CODES}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        if number == signal.SIGINT:
            signal.signal(number, self._before[number])
