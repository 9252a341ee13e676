"""The processes that read films: what they ignore, and their failures in plain words."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from chexpert.files import InputError
from training.signals import EXIT_CODES

DIED = "a worker process died while reading films; was there enough memory?"


def ignore_signals(worker: int) -> None:
    """Start of a worker: Ctrl-C and batch systems signal all processes, but the last step still needs its films."""
    for number in EXIT_CODES:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def plain_failures() -> Iterator[None]:
    """Around everything that runs while there are workers: torch speaks up for a dead one wherever the program is.

    Raises InputError as the dataset raised it, ChildProcessError for a worker that died, TimeoutError for one that
    hangs. In the last two cases all workers are ended, for a hanging one would keep the program from ending.
    """
    try:
        yield
    except InputError as error:  # of a worker: wrapped in its traceback
        raise InputError(str(error).rstrip().splitlines()[-1].rpartition("InputError: ")[2]) from None
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        if not reason.startswith("DataLoader"):
            raise
        _end_workers()
        if "timed out" in reason:
            raise TimeoutError(f"a worker process hangs while reading films ({reason})") from None
        raise ChildProcessError(f"{DIED} ({reason})") from None
    except (ConnectionError, EOFError) as error:  # it died while it handed a batch over
        _end_workers()
        raise ChildProcessError(f"{DIED} ({error})") from None


def _end_workers() -> None:
    """Quietly: torch's handler of SIGCHLD would raise once more for every worker that is ended here."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
    for child in multiprocessing.active_children():
        child.kill()
        child.join()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
