"""The processes that read films: what they ignore, and their failures in plain words."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

from cxr.files import InputError

DIED = "a worker process died while reading films; was there enough memory?"


def ignore_signals(worker: int) -> None:
    """Start of a worker: Ctrl-C and batch systems signal all processes, but the last step still needs its films."""
    for number in EXIT_CODES:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def plain_failures() -> Iterator[None]:
    """Around everything that runs while there are workers: torch speaks up for a dead one wherever the program is.

    Raises InputError as the dataset raised it, ChildProcessError for a worker that died, TimeoutError for one that
    hangs. Whatever the error, all workers are ended.
    """
    try:
        yield
    except BaseException as error:
        end_workers()
        plain = _in_plain_words(error)
        if plain is None:
            raise
        raise plain from None


def _in_plain_words(error: BaseException) -> Exception | None:
    reason = str(error).partition("\n")[0]
    if isinstance(error, InputError):  # of a worker: wrapped in its traceback
        return InputError(str(error).rstrip().splitlines()[-1].rpartition("InputError: ")[2])
    if isinstance(error, RuntimeError) and reason.startswith("DataLoader"):
        if "timed out" in reason:
            return TimeoutError(f"a worker process hangs while reading films ({reason})")
        return ChildProcessError(f"{DIED} ({reason})")
    if isinstance(error, BrokenPipeError):  # of our own output, as into `| head`
        return None
    if isinstance(error, (ConnectionError, EOFError)):  # it died while it handed a batch over
        return ChildProcessError(f"{DIED} ({error})")
    return None


def end_workers() -> None:
    """Ends all of them, before the program does: at its exit Python would ask them with SIGTERM, and wait for ever.

    Quietly: torch's handler of SIGCHLD would raise once more for every worker that is ended here.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
    for child in multiprocessing.active_children():
        child.kill()
        child.join()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])


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
