"""Worker processes that read films, their failures in one line, and the signals that stop a training."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

from cxr.files import InputError
from cxr.runs.memory import is_lack_of_memory
from training.compiling import compile_failure

DIED = "a worker process died while reading films; was there enough memory?"
NO_MEMORY = "out of memory; lower --batch-size (in training, a higher --accumulate saves memory too)"


def ignore_signals(worker: int) -> None:
    """Worker initialisation: Ctrl-C and batch systems signal all processes, but the last step still needs its films."""
    for number in EXIT_CODES:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def plain_failures() -> Iterator[None]:
    """Wraps everything that runs while there are workers: torch reports a dead one wherever the program is.

    Raises InputError as the dataset raised it, for a lack of memory, and for a network that cannot be compiled;
    ChildProcessError for a worker that died, TimeoutError for one that hangs. On any error all workers are killed.
    """
    try:
        yield
    except BaseException as error:
        try:
            end_workers()
        except RuntimeError:  # of torch's handler, which had been told of a dead worker before SIGCHLD was blocked
            end_workers()
        plain = _in_plain_words(error)
        if plain is None:
            raise
        raise plain from None


def _in_plain_words(error: BaseException) -> Exception | None:
    """The error to raise instead; None for one that is not the workers' or the machine's."""
    reason = str(error).partition("\n")[0]
    if is_lack_of_memory(error):
        return InputError(NO_MEMORY)
    if isinstance(error, InputError):  # of a worker: wrapped in its traceback
        return InputError(str(error).rstrip().splitlines()[-1].rpartition("InputError: ")[2])
    if isinstance(error, RuntimeError) and reason.startswith("DataLoader"):
        if "timed out" in reason:
            return TimeoutError(f"a worker process hangs while reading films ({reason})")
        return ChildProcessError(f"{DIED} ({reason})")
    if isinstance(error, RuntimeError) and (failure := compile_failure(error)):
        return InputError(f"this network cannot be compiled ({failure}); give --no-compile")
    if isinstance(error, BrokenPipeError):  # of our own output, as into `| head`
        return None
    if isinstance(error, (ConnectionError, EOFError)):  # it died while it handed a batch over
        return ChildProcessError(f"{DIED} ({error})")
    return None


def end_workers() -> None:
    """Kills all workers before the program ends: at its exit Python would send SIGTERM, which they ignore, and wait.

    SIGCHLD is blocked meanwhile, or torch's handler would raise for every worker that is killed here.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
    for child in multiprocessing.active_children():
        child.kill()
        child.join()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])


EXIT_CODES = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGUSR1: 0}
"""Exit code after each signal that stops a training; a batch system sends SIGUSR1 before the time is up."""


class StopSignals:
    """Context in which `received` holds the last of the signals, 0 for none. A second Ctrl-C ends the program at once.

    For the main thread only: Python allows signal handlers nowhere else.
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
