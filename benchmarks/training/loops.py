"""Our training loop as it is measured, and the measures of a training loop: seconds, waits for the device."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

import torch
from torch import nn

from benchmarks.measure import Timer
from training.engine import Precision, Stepper, one_cycle
from training.loader import Batch
from training.trainer import READ_EVERY

RATE = 1e-4
MANY_STEPS = 10_000
"""Of the schedule; no loop here gets that far."""

SYNCHRONISING = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "aten::item")


class Loop(Protocol):
    """A training loop from its batch on. `finish` waits for the device."""

    def step(self, batch: Any) -> None: ...

    def finish(self) -> None: ...


class Idle:
    """A loop that leaves its batches alone."""

    def step(self, batch: Any) -> None:
        pass

    def finish(self) -> None:
        pass


class OurLoop:
    """As `trainClassification.py` trains: the losses are read now and then."""

    def __init__(self, model: nn.Module, device: str) -> None:
        self.device = device
        optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, fused=True)
        self.stepper = Stepper(
            model.train(), optimizer, one_cycle(optimizer, RATE, MANY_STEPS), Precision(device), seed=0
        )
        self.losses: list[float] = []

    def step(self, batch: Batch) -> None:
        self.stepper.step([batch])
        if self.stepper.unread >= READ_EVERY:
            self._read()

    def finish(self) -> None:
        self._read()
        wait_for(self.device)

    def _read(self) -> None:
        self.losses += [row.loss for row in self.stepper.read()]


def timed(loop: Loop, batches: Iterable[Any], warm_up: int) -> dict[str, float]:
    """Seconds from the first batch after `warm_up` ones to the last, waiting for batches included."""
    batches = iter(batches)
    for _ in range(warm_up):
        loop.step(next(batches))
    loop.finish()
    timer = Timer()
    for batch in batches:
        loop.step(batch)
    loop.finish()
    return timer.seconds()


def synchronisations(loop: Loop, batch: Any, steps: int) -> dict[str, float]:
    """How often a step waits for the device, by torch's profiler; what the profiler itself does is taken off.

    `aten::item` counts more than that: optimisers read step counters that lie on the CPU so.
    """

    def counts(steps: int) -> dict[str, int]:
        with torch.profiler.profile() as profiler:
            for _ in range(steps):
                loop.step(batch)
        events = {event.key: event.count for event in profiler.key_averages()}
        return {name: events.get(name, 0) for name in SYNCHRONISING}

    loop.finish()
    few, many = counts(steps), counts(2 * steps)
    return {name: (many[name] - few[name]) / steps for name in SYNCHRONISING}


def wait_for(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def copy_bandwidth(gibibytes: int = 2, times: int = 10) -> float:
    """GB/s that the GPU's memory moves, reading and writing, in copies of a large array."""
    source = torch.empty(gibibytes * 2**30, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)

    def copies(times: int) -> float:
        torch.cuda.synchronize()
        timer = Timer()
        for _ in range(times):
            target.copy_(source)
        torch.cuda.synchronize()
        return timer.seconds()["seconds"]

    copies(2)
    return 2 * source.nbytes * times / copies(times) / 1e9
