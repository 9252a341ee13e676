"""Worker processes: one function over many items, in their order; no worker outlives its parent."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_SET_PARENT_DEATH_SIGNAL = 1  # prctl's PR_SET_PDEATHSIG


def in_processes(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    workers: int,
    *,
    chunk: int = 1,
    set_up: Callable[..., None] | None = None,
    arguments: tuple[Any, ...] = (),
) -> Iterator[Result]:
    """Yields `function(item)` for every item, in their order; in this process where one worker is enough.

    function: of a module, or a `functools.partial` of one. chunk: items handed over at once. set_up: called with
    `arguments` in every process first, in this one too. An exception of `function` ends the work and is raised here.
    Raises OSError, one line, when a worker dies (out of memory, most often).
    """
    workers = min(workers, -(-len(items) // chunk))
    if workers <= 1:
        if items and set_up is not None:
            set_up(*arguments)
        yield from map(function, items)
        return
    with ProcessPoolExecutor(
        workers, _context(), initializer=_start, initargs=(os.getpid(), set_up, arguments)
    ) as pool:
        try:
            yield from pool.map(function, items, chunksize=chunk)
        except BrokenProcessPool:
            raise OSError("a worker process died, most likely out of memory; take a smaller --workers") from None
        finally:
            pool.shutdown(cancel_futures=True)


def _context() -> multiprocessing.context.BaseContext:
    """Forked workers have this process as their parent, which `_start` counts on, and start at once."""
    return multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")


def _start(parent: int, set_up: Callable[..., None] | None, arguments: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the parent ends the others
    end_with_parent(parent)
    if set_up is not None:
        set_up(*arguments)


def end_with_parent(parent: int) -> None:
    """Ends this process when its parent dies, by whatever signal: at once on Linux, within a second elsewhere."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
        if os.getppid() != parent:  # it died before
            os._exit(1)
        return
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
