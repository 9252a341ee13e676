"""One function over many heat maps, film by film, in several processes, with the same results whatever their number."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from operator import itemgetter
from typing import Any, TypeVar

import torch
from tqdm import tqdm

from cxr.heat_maps import HeatMap, HeatMapSource
from cxr.masks import GroundTruth
from cxr.runs.pool import in_processes

Result = TypeVar("Result")
Work = Callable[[HeatMap, GroundTruth], Result]
Entries = Sequence[tuple[str, str]]
"""(image id, task) of maps."""

_task_of_process: tuple[Work, HeatMapSource, GroundTruth]


def over_maps(
    work: Work[Result],
    source: HeatMapSource,
    ground_truth: GroundTruth,
    entries: Entries,
    *,
    workers: int,
    label: str,
) -> Iterator[Result]:
    """Yields `work(map, ground_truth)` for every (image id, task) of `entries`, in their order, with a progress bar.

    work: a function of a module, or a `functools.partial` of one. Maps of one film that follow each other are made in
    one process, so that a source can read the film's file once for all of them. Up to `workers` processes, this one
    alone for 1. Every process computes in one thread. Raises InputError as the source does, OSError when a process
    dies.
    """
    films = [list(of_film) for _, of_film in groupby(entries, key=itemgetter(0))]
    with tqdm(total=len(entries), desc=label, unit="map", delay=2, leave=False, disable=None) as progress:
        for of_film in _results(work, source, ground_truth, films, workers):
            for result in of_film:
                progress.update()
                yield result


def _results(
    work: Work[Result], source: HeatMapSource, truth: GroundTruth, films: Sequence[Entries], workers: int
) -> Iterator[Sequence[Result]]:
    """The results of every film, in order."""
    if min(workers, len(films)) > 1:
        yield from in_processes(_run, films, workers, set_up=_set_up, arguments=(work, source, truth))
        return
    for entry in (entry for of_film in films for entry in of_film):
        with one_thread():
            result = work(source.load(*entry), truth)
        yield [result]


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


def _run(entries: Entries) -> list[Any]:
    work, source, ground_truth = _task_of_process
    return [work(source.load(*entry), ground_truth) for entry in entries]
