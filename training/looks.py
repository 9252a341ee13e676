"""At which steps the processes of a run ask each other for signals and clocks, so that all stop and save together."""

from __future__ import annotations

import time

from training.distributed import ProcessGroup

LOOK_SECONDS = 1.0
"""Least time between two looks of several processes; batch systems give a program that they stop 30 s or more."""


class Looks:
    """The steps after which `look` is due: every step of a single process, else about one step a second.

    Each look waits for the slowest process, which a fast GPU should not do at every step. All processes look at the
    same steps: how many they take until the next look follows from the slowest one's time per step. A step that takes
    longer than `seconds` is followed by a look, as is every one where `seconds` is 0.

    most_steps: between two looks.
    """

    def __init__(self, group: ProcessGroup, most_steps: int, seconds: float = LOOK_SECONDS) -> None:
        self._group, self._most_steps, self._seconds = group, most_steps, seconds
        self._steps, self._next, self._looked = 0, 1, time.monotonic()

    def due(self) -> bool:
        """Counts a step; whether all processes look after it."""
        self._steps += 1
        return self._steps >= self._next

    def look(self, received: int, late: bool) -> tuple[int, bool]:
        """The highest signal that a process received, 0 for none, and whether one of them is late with its saving."""
        seconds = (time.monotonic() - self._looked) / self._steps
        highest, any_late, slowest = self._group.all_reduce_max([received, late, seconds])
        if self._group.world_size > 1:
            self._next = max(1, min(int(self._seconds / max(slowest, 1e-6)), self._most_steps))
        self._steps, self._looked = 0, time.monotonic()
        return int(highest), bool(any_late)
