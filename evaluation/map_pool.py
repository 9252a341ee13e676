"""One function over many heat maps, in several processes, with the same results whatever their number."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from tqdm import tqdm

from cxr.heat_maps import HeatMap, HeatMapSource
from cxr.masks import GroundTruth
from cxr.runs.pool import in_processes

Result = TypeVar("Result")
Work = Callable[[HeatMap, GroundTruth], Result]

_CHUNK = 4  # maps handed to a process at once

_task_of_process: tuple[Work, HeatMapSource, GroundTruth]


def over_maps(
    work: Work[Result],
    source: HeatMapSource,
    ground_truth: GroundTruth,
    entries: Sequence[tuple[str, str]],
    *,
    workers: int,
    label: str,
) -> Iterator[Result]:
    """Yields `work(map, ground_truth)` for every (image id, task) of `entries`, in their order, with a progress bar.

    work: a function of a module, or a `functools.partial` of one. Up to `workers` processes, this one alone for 1.
    Every process computes in one thread. Raises InputError as the source does, OSError when a process dies.
    """
    workers = min(workers, -(-len(entries) // _CHUNK))
    with tqdm(total=len(entries), desc=label, unit="map", delay=2, leave=False, disable=None) as progress:
        for result in _results(work, source, ground_truth, entries, workers):
            progress.update()
            yield result


def _results(
    work: Work[Result], source: HeatMapSource, truth: GroundTruth, entries: Sequence[tuple[str, str]], workers: int
) -> Iterator[Result]:
    if workers <= 1:
        for entry in entries:
            with one_thread():
                result = work(source.load(*entry), truth)
            yield result
        return
    yield from in_processes(_run, entries, workers, chunk=_CHUNK, set_up=_set_up, arguments=(work, source, truth))


@contextmanager
def one_thread() -> Iterator[None]:
    """torch may round differently with another number of threads, which over small maps only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _set_up(work: Work, source: HeatMapSource, ground_truth: GroundTruth) -> None:
    global _task_of_process
    torch.set_num_threads(1)
    _task_of_process = (work, source, ground_truth)


def _run(entry: tuple[str, str]) -> Any:
    work, source, ground_truth = _task_of_process
    return work(source.load(*entry), ground_truth)
